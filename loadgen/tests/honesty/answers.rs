//! Answers on the way to publishers and subscribers.

use codec::{Packet, ReasonCode};

use crate::proxy::{Act, ack};
use crate::run::{Setup, answer, each, of_deliveries};

fn unanswered(count: u64) -> String {
    format!("{count} publishes of stream \"m\" were never answered")
}

#[test]
fn a_swallowed_answer_is_missed_and_the_message_is_not() {
    each(1..=2, |qos| {
        let setup = Setup {
            qos,
            ..Setup::default()
        };
        let (report, _) = setup.run(|seen| match answer(seen) {
            Some((stamp, _)) if stamp.number % 10 == 9 => Act::Drop,
            _ => Act::Pass,
        });
        assert_eq!(report.failures, [unanswered(40)]);
        let audience = &report.audiences[0];
        assert_eq!((audience.expected, audience.unacknowledged), (360, 40));
    });
}

#[test]
fn an_answer_with_a_wrong_identifier_answers_nothing() {
    let (report, _) = Setup::default().run(|seen| match answer(seen) {
        Some((stamp, id)) if stamp.number % 10 == 5 => {
            Act::Instead(ack(Packet::PubAck, id + 20_000, ReasonCode::SUCCESS))
        }
        _ => Act::Pass,
    });
    let unasked = "40 answers came to packets that nobody had sent".to_owned();
    assert_eq!(report.failures, [unanswered(40), unasked]);
}

#[test]
fn refusals_are_counted_by_reason() {
    let kinds = [
        (1, Packet::PubAck as fn(codec::Ack<'static>) -> _),
        (2, Packet::PubRec),
    ];
    each(kinds, |(qos, kind)| {
        let setup = Setup {
            qos,
            ..Setup::default()
        };
        let (report, _) = setup.run(move |seen| {
            let (Packet::Publish(publish), Some(stamp)) = (seen.packet, seen.stamp) else {
                return Act::Pass;
            };
            let reason = match stamp.number % 10 {
                _ if seen.to_client => return Act::Pass,
                2 | 3 => ReasonCode::QUOTA_EXCEEDED,
                7 => ReasonCode::NOT_AUTHORIZED,
                _ => return Act::Pass,
            };
            Act::Answer(ack(kind, publish.packet_id.unwrap().get(), reason))
        });
        assert_eq!(
            report.failures,
            ["120 publishes of stream \"m\" were refused"]
        );
        let refused: Vec<(&str, u64)> = report.streams[0]
            .counts
            .refused
            .iter()
            .map(|(why, count)| (&why[..], *count))
            .collect();
        assert_eq!(refused, [("Not authorized", 40), ("Quota exceeded", 80)]);
        assert_eq!(report.audiences[0].expected, 280);
    });
}

/// A broker that takes publishes and answers none: the window fills, and what waits behind it is told as well.
#[test]
fn a_publisher_that_is_stuck_has_due_messages_that_were_not_sent() {
    let setup = Setup {
        window: 3,
        ..Setup::default()
    };
    let (report, _) = setup.run(|seen| match answer(seen) {
        Some(_) if seen.client == "p-2" => Act::Drop,
        _ => Act::Pass,
    });
    assert_eq!(report.streams[0].counts.due, 400);
    let unsent = "97 messages of stream \"m\" were due and could not be sent".to_owned();
    assert_eq!(report.failures, [unanswered(3), unsent]);
    assert_eq!(report.audiences[0].unacknowledged, 3);
}

#[test]
fn a_refused_filter_is_told_and_what_it_would_have_got_is_missing() {
    let (report, _) = Setup::default().run(|seen| match seen.packet {
        Packet::Subscribe(subscribe) if seen.client == "s-1" => {
            let [high, low] = subscribe.packet_id.get().to_be_bytes();
            Act::Answer(vec![0x90, 4, high, low, 0, ReasonCode::NOT_AUTHORIZED.0])
        }
        _ => Act::Pass,
    });
    let refused = "1 filters were refused".to_owned();
    assert_eq!(
        report.failures,
        [of_deliveries(100, "h/{n}", "are missing"), refused]
    );
    assert_eq!(report.connects.granted, 3);
}
