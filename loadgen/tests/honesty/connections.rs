//! Connections that end in mid-run.

use std::collections::BTreeMap;

use codec::Packet;

use crate::proxy::Act;
use crate::run::{Setup, delivery, each, of_deliveries};

fn ended(count: u64) -> String {
    format!("{count} connections were refused or ended by the broker")
}

fn closed(count: u64) -> BTreeMap<String, u64> {
    BTreeMap::from([("closed by the broker".to_owned(), count)])
}

#[test]
fn cut_publishers_come_back_and_only_what_was_in_flight_is_unanswered() {
    each(1..=2, |qos| {
        let setup = Setup {
            qos,
            drain_max_s: 20.0,
            ..Setup::default()
        };
        let (report, proxy) = setup.run(|seen| match (seen.packet, seen.stamp) {
            (Packet::Publish(_), Some(stamp))
                if !seen.to_client && stamp.lane % 2 == 1 && stamp.number == 40 =>
            {
                Act::Cut
            }
            _ => Act::Pass,
        });
        assert_eq!(report.connects.closed, closed(2));
        assert_eq!((report.connects.begun, report.connects.accepted), (10, 10));
        let book = proxy.book();
        let lost = book.sent.len() - book.acked.len();
        assert!(lost >= 2, "at least the two that were in the cut");
        let unanswered = format!("{lost} publishes of stream \"m\" were never answered");
        assert_eq!(report.failures, [unanswered, ended(2)]);
        // What was due while they were away was sent when they were back.
        assert_eq!(report.streams[0].counts.sent, setup.messages());
        assert_eq!(report.audiences[0].missing, 0);
    });
}

#[test]
fn cut_subscribers_come_back_and_miss_what_came_while_they_were_away() {
    let setup = Setup {
        per_second: 400,
        seconds: 2.0,
        ..Setup::default()
    };
    let mut cut = false;
    let (report, proxy) = setup.run(move |seen| match delivery(seen) {
        Some(stamp) if seen.client == "s-2" && stamp.number == 50 && !cut => {
            cut = true;
            Act::Cut
        }
        _ => Act::Pass,
    });
    assert_eq!(report.connects.closed, closed(1));
    // 50 came before, and the client is away for a second of the two.
    let came = proxy.book().delivered["s-2"].len() as u64;
    assert!(came >= 50, "{came}");
    let missing = 200 - came;
    assert!(missing >= 1, "the one in the cut");
    let missing = of_deliveries(missing, "h/{n}", "are missing");
    assert_eq!(report.failures, [missing, ended(1)]);
    assert_eq!(report.connects.granted, 5);
}

/// Connections end wherever chance has it: at CONNECT, at SUBSCRIBE, at a message or at an answer.
#[test]
fn a_broker_that_hangs_up_at_random_is_reckoned_with() {
    let setup = Setup {
        per_second: 400,
        seconds: 2.0,
        ..Setup::default()
    };
    let (mut seed, mut cuts) = (1_u32, 0);
    let (report, _) = setup.run(move |_| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let limit = if cuts < 2 { 4 } else { 80 };
        if cuts < 12 && (seed >> 16) % limit == 0 {
            cuts += 1;
            return Act::Cut;
        }
        Act::Pass
    });
    let closed: u64 = report.connects.closed.values().sum();
    assert!((3..=12).contains(&closed), "{:?}", report.connects.closed);
    assert!(report.failures.contains(&ended(closed)));
    assert_eq!(report.connects.begun, 8 + closed);
}
