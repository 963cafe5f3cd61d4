//! Messages on the way to subscribers.

use std::time::Duration;

use codec::{Packet, Qos};
use loadgen::stamp::STAMP_BYTES;

use crate::proxy::{Act, Seen};
use crate::run::{Setup, answer, delivery, each, of_deliveries};

/// Does `what` to every delivery with such a number.
fn every(
    of: u32,
    rest: u32,
    mut what: impl FnMut(&Seen<'_>) -> Act + Send + 'static,
) -> impl FnMut(&Seen<'_>) -> Act + Send + 'static {
    move |seen| match delivery(seen) {
        Some(stamp) if stamp.number % of == rest => what(seen),
        _ => Act::Pass,
    }
}

const MISSING: &str = "are missing";
const TWICE: &str = "came more than once";
const DAMAGED: &str = "came with other bytes than were published";
const LATE: &str = "came behind a later one";

#[test]
fn where_nothing_is_wrong_nothing_is_found() {
    each(0..=2, |qos| {
        let setup = Setup {
            qos,
            ..Setup::default()
        };
        let (report, _) = setup.run(|_| Act::Pass);
        assert_eq!(report.failures, [""; 0]);
        assert_eq!(report.audiences[0].delivered, setup.messages());
    });
}

#[test]
fn a_dropped_message_is_missing() {
    each(0..=2, |qos| {
        let setup = Setup {
            qos,
            ..Setup::default()
        };
        // 100 messages in each of 4 lanes: numbers 3, 13, … 93.
        let (report, _) = setup.run(every(10, 3, |_| Act::Drop));
        assert_eq!(report.audiences[0].missing, 40);
        assert_eq!(report.failures, [of_deliveries(40, "h/{n}", MISSING)]);
    });
}

#[test]
fn the_last_message_of_a_lane_and_a_whole_lane_are_missed_too() {
    let (report, _) = Setup::default().run(|seen| match delivery(seen) {
        Some(stamp) if stamp.number == 99 || stamp.lane == 2 => Act::Drop,
        _ => Act::Pass,
    });
    assert_eq!(report.failures, [of_deliveries(103, "h/{n}", MISSING)]);
    assert_eq!(report.audiences[0].worst[0].client_id, "s-2");
    assert_eq!(report.audiences[0].worst[0].missing, 100);
}

#[test]
fn a_doubled_message_is_a_duplicate() {
    each(0..=1, |qos| {
        let setup = Setup {
            qos,
            ..Setup::default()
        };
        // The last one of each lane, behind which nothing comes, is among them.
        let (report, _) = setup.run(every(10, 9, |_| Act::Double));
        assert_eq!(report.audiences[0].duplicates, 40);
        assert_eq!(report.failures, [of_deliveries(40, "h/{n}", TWICE)]);
    });
}

#[test]
fn with_qos_2_a_repetition_is_no_duplicate_and_a_second_message_is() {
    let setup = Setup {
        qos: 2,
        ..Setup::default()
    };
    let (report, _) = setup.run(every(10, 9, |_| Act::Double));
    assert_eq!(report.failures, [""; 0]);
    assert_eq!(report.audiences[0].delivered, 400);
    let (report, _) = setup.run(every(10, 9, |_| Act::DoubleAsNew));
    assert_eq!(report.failures, [of_deliveries(40, "h/{n}", TWICE)]);
}

#[test]
fn a_message_behind_a_later_one_is_out_of_order() {
    each(0..=2, |qos| {
        let setup = Setup {
            qos,
            ..Setup::default()
        };
        let (report, _) = setup.run(every(10, 4, |_| Act::Hold));
        assert_eq!(report.audiences[0].out_of_order, 40);
        assert_eq!(report.failures, [of_deliveries(40, "h/{n}", LATE)]);
    });
}

#[test]
fn a_message_to_the_wrong_client_is_no_delivery() {
    let (report, _) = Setup::default().run(every(10, 5, |seen| match seen.client {
        "s-0" => Act::To("s-3".to_owned()),
        _ => Act::To("s-0".to_owned()),
    }));
    assert_eq!(report.misdelivered, 40);
    let wrong = "40 messages came to clients that had not asked for them".to_owned();
    assert_eq!(
        report.failures,
        [of_deliveries(40, "h/{n}", MISSING), wrong]
    );
}

#[test]
fn a_message_that_a_publisher_gets_is_in_the_wrong_place() {
    let (report, _) = Setup::default().run(every(50, 5, |_| Act::AlsoTo("p-1".to_owned())));
    let wrong = "8 messages came to clients that had not asked for them".to_owned();
    assert_eq!(report.failures, [wrong]);
}

/// Each byte of the stamp, from its mark to the time.
#[test]
fn a_message_with_a_damaged_stamp_is_foreign_and_missing() {
    let mut at = 0;
    let (report, _) = Setup::default().run(every(10, 6, move |_| {
        at = (at + 1) % 24;
        Act::Corrupt(at)
    }));
    assert_eq!(report.foreign, 40);
    assert_eq!(report.failures, [of_deliveries(40, "h/{n}", MISSING)]);
    assert!(report.remarks[0].starts_with("40 messages came that are not of this run"));
}

/// Each byte behind the stamp.
#[test]
fn a_message_with_a_wrong_byte_behind_its_stamp_is_damaged_and_not_missing() {
    let mut at = 23;
    let (report, _) = Setup::default().run(every(10, 6, move |_| {
        at = if at == 39 { 24 } else { at + 1 };
        Act::Corrupt(at)
    }));
    assert_eq!(report.foreign, 0);
    assert_eq!(report.audiences[0].delivered, 400);
    assert_eq!(report.failures, [of_deliveries(40, "h/{n}", DAMAGED)]);
}

/// Cut short, also to nothing but the stamp; longer; and the rest of another message.
#[test]
fn a_message_with_another_length_or_anothers_bytes_is_damaged() {
    let mut before = Vec::new();
    let (report, _) = Setup::default().run(every(5, 2, move |seen| {
        let Packet::Publish(publish) = seen.packet else {
            return Act::Pass;
        };
        let (stamp, rest) = publish.payload.split_at(STAMP_BYTES);
        let number = seen.stamp.unwrap().number;
        let other = match number / 5 % 4 {
            0 => stamp.to_vec(),
            1 => publish.payload[..publish.payload.len() - 1].to_vec(),
            2 => [publish.payload, b"x"].concat(),
            _ => [stamp, &before[..]].concat(),
        };
        before = rest.to_vec();
        Act::Payload(other)
    }));
    assert_eq!(report.failures, [of_deliveries(80, "h/{n}", DAMAGED)]);
}

#[test]
fn a_message_with_another_qos_than_asked_for_is_told() {
    let cases = [
        (1, None, Qos::AtMostOnce, 1),
        (2, None, Qos::AtMostOnce, 2),
        (2, None, Qos::AtLeastOnce, 2),
        (2, Some(1), Qos::AtMostOnce, 1),
        // More than was asked for is another QoS as well.
        (0, Some(2), Qos::AtLeastOnce, 0),
        (2, Some(0), Qos::AtLeastOnce, 0),
    ];
    each(cases, |(qos, subscribed_qos, comes_with, asked_for)| {
        let setup = Setup {
            qos,
            subscribed_qos,
            ..Setup::default()
        };
        let (report, _) = setup.run(every(10, 3, move |_| Act::Qos(comes_with)));
        let what = format!(
            "came with another QoS than {asked_for}, the smaller one of publish and subscription"
        );
        assert_eq!(report.failures, [of_deliveries(40, "h/{n}", &what)]);
        assert_eq!(report.audiences[0].delivered, 400);
    });
}

/// Many subscribers to all topics, and every fault at the same time.
#[test]
fn many_faults_at_once_are_told_apart() {
    let setup = Setup {
        publishers: 6,
        subscribers: 3,
        filter: "h/#",
        topics: 3,
        per_second: 720,
        ..Setup::default()
    };
    // 60 messages in each of 6 lanes, each to 3 subscribers.
    let (report, _) = setup.run(|seen| match delivery(seen).map(|stamp| stamp.number % 10) {
        Some(1) => Act::Drop,
        Some(3) => Act::Double,
        Some(5) => Act::Hold,
        Some(8) => Act::Corrupt(13),
        _ => Act::Pass,
    });
    let audience = &report.audiences[0];
    assert_eq!(audience.expected, 3 * setup.messages());
    assert_eq!((audience.missing, report.foreign), (216, 108));
    assert_eq!((audience.duplicates, audience.out_of_order), (108, 108));
}

/// A message that was not acknowledged and came makes up for none that was and did not.
#[test]
fn an_unanswered_message_that_came_hides_no_missing_one() {
    let swallow_and_drop = |seen: &Seen<'_>| {
        if answer(seen).is_some_and(|(stamp, _)| stamp.number % 10 == 7) {
            return Act::Drop;
        }
        match delivery(seen) {
            Some(stamp) if stamp.number % 10 == 2 => Act::Drop,
            _ => Act::Pass,
        }
    };
    let shared = Setup {
        filter: "h/#",
        shared: true,
        ..Setup::default()
    };
    let all = Setup {
        filter: "h/#",
        subscribers: 1,
        ..Setup::default()
    };
    each([Setup::default(), all, shared], |setup| {
        let (report, _) = setup.run(swallow_and_drop);
        let audience = &report.audiences[0];
        assert_eq!(report.streams[0].counts.unanswered, 40);
        assert_eq!((audience.missing, audience.unacknowledged), (40, 40));
    });
}

#[test]
fn a_share_of_members_lacks_what_none_got_and_doubles_what_two_got() {
    let setup = Setup {
        filter: "h/#",
        shared: true,
        ..Setup::default()
    };
    let (report, _) = setup.run(|seen| match delivery(seen).map(|stamp| stamp.number) {
        Some(number) if number % 10 == 1 => Act::Drop,
        Some(number) if number % 25 == 3 => Act::Double,
        Some(number) if number % 25 == 8 => match seen.client {
            "s-0" => Act::AlsoTo("s-1".to_owned()),
            _ => Act::AlsoTo("s-0".to_owned()),
        },
        _ => Act::Pass,
    });
    let audience = &report.audiences[0];
    assert_eq!((audience.expected, audience.delivered), (400, 360));
    // Number 3, 8, 28, 33, … without 51 and the like: of 8 in each lane none ends with 1.
    assert_eq!((audience.missing, audience.duplicates), (40, 32));
}

/// A broker that is slow at the end is no broker that loses: what is on its way is waited for.
#[test]
fn what_comes_after_a_long_silence_is_not_missing() {
    let setup = Setup {
        drain_max_s: 20.0,
        ..Setup::default()
    };
    let (report, proxy) = setup.run(|seen| match delivery(seen) {
        Some(stamp) if stamp.number == 99 => Act::Late(Duration::from_millis(1_700)),
        _ => Act::Pass,
    });
    assert_eq!(report.failures, [""; 0]);
    assert_eq!(proxy.book().sent.len() as u64, setup.messages());
}
