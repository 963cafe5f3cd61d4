//! What nodes report of commands, without Kafka.

use envelope::report::{Outcome as Word, Place, Report};

use super::tests::{Case, MS, R, batch, reasons};
use super::*;
use crate::store::{Dispatch, Status};

fn report(id: &str, outcome: Word) -> Vec<u8> {
    let report = Report {
        report: id.to_owned(),
        outcome,
        sessions: 1,
        node: "n".to_owned(),
        topic: "devices/d-1/commands/reboot".to_owned(),
        origin: Place {
            topic: "mqtt.downlink".to_owned(),
            partition: 0,
            offset: 0,
        },
        at: 7,
    };
    report.to_json()
}

/// Records of the topic of reports, from an offset on.
fn reports(first_offset: i64, values: &[Vec<u8>]) -> Batch {
    let mut batch = Batch::new("mqtt.downlink.reports", 0);
    for (offset, value) in (first_offset..).zip(values) {
        let key = Some(&b"devices/d-1/commands/reboot"[..]);
        batch.push(offset, Some(MS), key, Some(value), []);
    }
    batch
}

impl Case {
    async fn status(&self, id: &str) -> Status {
        let command = self.handler.store.command(id).await.expect("reads");
        command.expect("is there").status
    }

    /// Sends what was posted, at a moment.
    async fn sent(&self, now_ms: i64) {
        let store = &self.handler.store;
        let claimed = store.claim_commands(now_ms, now_ms + 500, 10).await;
        let sent = claimed.expect("claims").into_iter();
        let sent = sent.map(|command| (command.seq, Dispatch::Sent));
        store.settle_commands(sent, now_ms).await.expect("settles");
    }

    async fn reported(&mut self, offset: i64, outcome: Word) {
        let done = self
            .handle(&[reports(offset, &[report("c-1", outcome)])])
            .await;
        assert!(done.poison.is_empty() && done.downlink.is_empty());
    }
}

#[tokio::test]
async fn a_command_goes_as_far_as_the_furthest_report_and_never_back() {
    let mut case = Case::new().await;
    case.post("c-1").await;
    // A report can be faster than the note that Kafka has it.
    case.reported(0, Word::Waiting).await;
    assert_eq!(case.status("c-1").await, Status::NoReceiver);
    case.sent(MS).await;
    let steps = [
        (Word::NoSession, Status::NoReceiver),
        (Word::Unknown, Status::NoReceiver),
        (Word::Queued, Status::Queued),
        (Word::Waiting, Status::Queued),
        (Word::Expired, Status::Expired),
        (Word::Queued, Status::Expired),
        (Word::Delivered, Status::Delivered),
        (Word::Expired, Status::Delivered),
    ];
    for (offset, (word, status)) in (1..).zip(steps) {
        case.reported(offset, word).await;
        assert_eq!(case.status("c-1").await, status, "after {word:?}");
    }
    let shown = case.handler.store.command("c-1").await.expect("reads");
    let shown = shown.expect("is there");
    assert_eq!(
        shown.report,
        Some(serde_json::json!({"outcome": "delivered", "sessions": 1, "node": "n", "at": 7}))
    );
    let reply = batch(0, &[(R, r#"{"id":"c-1","ok":true}"#)]);
    case.handle(&[reply]).await;
    case.reported(20, Word::Delivered).await;
    assert_eq!(case.status("c-1").await, Status::Replied);
}

#[tokio::test]
async fn what_no_device_got_expires_and_what_one_got_does_not() {
    let mut case = Case::new().await;
    for (id, word) in [
        ("c-1", Some(Word::Delivered)),
        ("c-2", Some(Word::Queued)),
        ("c-3", Some(Word::NoRoom)),
        ("c-4", None),
    ] {
        case.post(id).await;
        case.sent(MS).await;
        if let Some(word) = word {
            case.handle(&[reports(0, &[report(id, word)])]).await;
        }
    }
    case.sent(MS + 1_000).await;
    assert_eq!(case.status("c-1").await, Status::Delivered);
    for id in ["c-2", "c-3", "c-4"] {
        assert_eq!(case.status(id).await, Status::Expired, "{id}");
    }
}

#[tokio::test]
async fn a_report_on_what_is_not_ours_is_nothing_and_one_that_is_none_is_a_dead_letter() {
    let mut case = Case::new().await;
    case.post("c-1").await;
    let values = [
        report("somebody's", Word::Delivered),
        b"{}".to_vec(),
        report("c-1", Word::Queued),
    ];
    let done = case.handle(&[reports(0, &values)]).await;
    let reasons = reasons(&done);
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert_eq!((reasons[0].0, reasons[0].1), (1, "NoReport"));
    assert!(
        reasons[0].2.contains("missing field `report`"),
        "{reasons:?}"
    );
    assert_eq!(case.status("c-1").await, Status::Queued);
}
