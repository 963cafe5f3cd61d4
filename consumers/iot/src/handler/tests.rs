//! What records do to the store and which alerts and dead letters follow, without Kafka.

use std::collections::BTreeMap;

use super::*;
use crate::alert::{Kind, Rule};
use crate::store::tests::{growth, store};
use crate::store::{Before, Dispatch, NewCommand, Point, Range, Status};
use crate::telemetry::Value;
use crate::{Config, store::Cursor};

pub(super) const MS: i64 = 1_766_000_000_000;

pub(super) struct Case {
    pub(super) handler: IotHandler,
    _dir: tempfile::TempDir,
}

impl Case {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(&dir).await;
        let rules = BTreeMap::from([(
            "temperature",
            Rule {
                above: Some(30.0),
                below: None,
                hysteresis: 2.0,
            },
        )]);
        store
            .configure_rules(rules.iter().map(|(metric, rule)| (*metric, rule)))
            .await
            .expect("configures");
        let handler = IotHandler {
            topics: Config::default().topics().expect("good defaults"),
            limits: Limits {
                metrics_per_device_max: 3,
                silent_days: 0,
                ..Config::default().limits()
            },
            growth: growth(&store),
            store,
            metrics: Metrics::new(&prometheus::Registry::new()).expect("registers"),
        };
        Self { handler, _dir: dir }
    }

    pub(super) async fn handle(&mut self, batches: &[Batch]) -> Outcome {
        self.handler.handle(batches).await.expect("the store works")
    }

    pub(super) async fn forget(&self, before_ms: i64) -> u64 {
        let ms = before_ms;
        self.forget_silent(Before { ms, silent_ms: 0 }).await
    }

    pub(super) async fn forget_silent(&self, before: Before) -> u64 {
        let limits = &self.handler.limits;
        let rows = self.handler.store.forget(before, limits).await;
        rows.expect("forgets")
    }

    pub(super) async fn values(&self, device: &str, metric: &str) -> Vec<f64> {
        let all = Range {
            from_ms: 0,
            to_ms: i64::MAX,
            before: None,
            points_max: 100,
        };
        let page = self
            .handler
            .store
            .points(device, metric, all)
            .await
            .expect("reads");
        page.map_or(Vec::new(), |page| {
            let number = |point: &Point| point.value.number().expect("a number");
            page.points.iter().map(number).collect()
        })
    }

    pub(super) async fn post(&self, id: &str) {
        let new = NewCommand {
            id,
            device: "d-1",
            command: "reboot",
            args: "{}",
            created_ms: MS,
            expires_ms: MS + 1_000,
        };
        assert!(
            self.handler
                .store
                .post_command(&new, 100)
                .await
                .expect("stores")
        );
    }
}

/// Records of one partition: MQTT topic and payload.
pub(super) fn batch(first_offset: i64, records: &[(&str, &str)]) -> Batch {
    let mut batch = Batch::new("iot.telemetry", 3);
    for (offset, (topic, payload)) in (first_offset..).zip(records) {
        let received = format!("{}", (MS + offset) * 1_000);
        batch.push(
            offset,
            Some(MS),
            Some(topic.as_bytes()),
            Some(payload.as_bytes()),
            [("mqtt.received-at", Some(received.as_bytes()))],
        );
    }
    batch
}

pub(super) const T: &str = "devices/d-1/telemetry/temperature";
pub(super) const R: &str = "devices/d-1/replies/reboot";

fn shown(outcome: &Outcome) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    outcome
        .downlink
        .iter()
        .map(|message| (message.topic.clone(), text(&message.payload)))
        .collect()
}

pub(super) fn reasons(outcome: &Outcome) -> Vec<(i64, &'static str, &str)> {
    outcome
        .poison
        .iter()
        .map(|poison| (poison.offset(), poison.class(), poison.reason()))
        .collect()
}

/// More devices than fit into a statement, in two partitions, some of them in both.
#[tokio::test]
async fn large_calls_leave_what_small_ones_would() {
    let devices = 2 * runtime::store::ROWS_PER_STATEMENT_MAX + 7;
    let topics: Vec<String> = (0..devices)
        .map(|device| format!("devices/d-{device}/telemetry/temperature"))
        .collect();
    let partition = |number: i32, of_partition: Vec<(usize, i64)>| {
        let mut batch = Batch::new("iot.telemetry", number);
        for (offset, (device, value)) in (0_i64..).zip(of_partition) {
            let at = format!(r#"{{"value":{value},"at":{}}}"#, MS + offset);
            batch.push(
                offset,
                Some(MS),
                Some(topics[device].as_bytes()),
                Some(at.as_bytes()),
                [],
            );
        }
        batch
    };
    let numbered = |from: usize, value: i64| (from..devices).map(move |device| (device, value));
    let first = partition(
        0,
        numbered(0, 20).chain(numbered(devices / 2, 21)).collect(),
    );
    let second = partition(1, numbered(devices - 3, 22).collect());
    let mut case = Case::new().await;
    let batches = [first, second];
    let readings = devices + devices.div_ceil(2) + 3;
    for repeated in [0, readings] {
        let outcome = case.handle(&batches).await;
        assert!(outcome.poison.is_empty(), "{:?}", outcome.poison);
        assert_eq!(
            case.handler.metrics.readings_repeated.get(),
            repeated as u64
        );
        for (device, values) in [
            (0, vec![20.0]),
            (devices / 2 - 1, vec![20.0]),
            (devices / 2, vec![21.0, 20.0]),
            (devices - 1, vec![20.0, 21.0, 22.0]),
        ] {
            let mut found = case.values(&format!("d-{device}"), "temperature").await;
            let mut expected = values;
            found.sort_by(f64::total_cmp);
            expected.sort_by(f64::total_cmp);
            assert_eq!(found, expected, "d-{device}");
        }
    }
    assert_eq!(case.handler.metrics.readings.get(), readings as u64);
}

#[tokio::test]
async fn readings_become_a_series_with_a_last_value() {
    let mut case = Case::new().await;
    let outcome = case
        .handle(&[batch(
            0,
            &[
                (T, "20.5"),
                (T, r#"{"value":21,"at":1766000000500}"#),
                (T, "-4e-3"),
            ],
        )])
        .await;
    assert!(outcome.downlink.is_empty() && outcome.poison.is_empty());
    // In the order of their own time: the second says that it was measured after the third was received.
    assert_eq!(
        case.values("d-1", "temperature").await,
        [20.5, -0.004, 21.0]
    );
    let metrics = case.handler.store.metrics("d-1").await.expect("reads");
    assert_eq!(metrics.len(), 1);
    assert_eq!(
        (&metrics[0].value, metrics[0].at, metrics[0].samples),
        (&Value::Number(-0.004), MS + 2, 3)
    );
}

#[tokio::test]
async fn records_that_come_again_change_nothing_and_yield_the_same_alerts() {
    let mut case = Case::new().await;
    let first = batch(0, &[(T, "20"), (T, "31"), (T, "32")]);
    let alerts = shown(&case.handle(std::slice::from_ref(&first)).await);
    assert_eq!(
        alerts,
        [(
            "devices/d-1/alerts".to_owned(),
            format!(
                r#"{{"id":"iot.telemetry/3/1/temperature","device":"d-1","metric":"temperature","value":31.0,"threshold":30.0,"kind":"above","at":{}}}"#,
                MS + 1
            )
        )]
    );
    // Not even a rule that changed in between makes another alert of an old record.
    let stricter = Rule {
        above: Some(10.0),
        below: None,
        hysteresis: 0.0,
    };
    assert!(
        case.handler
            .store
            .put_rule("temperature", stricter, 10)
            .await
            .expect("puts")
    );
    assert_eq!(shown(&case.handle(&[first]).await), alerts);

    // Old and new records in one batch: the old alert again, then what the new records raise.
    let both = batch(1, &[(T, "31"), (T, "32"), (T, "5"), (T, "11")]);
    let shown = shown(&case.handle(&[both]).await);
    assert_eq!(shown.len(), 2);
    assert_eq!(shown[0], alerts[0]);
    assert!(
        shown[1]
            .1
            .contains(r#""id":"iot.telemetry/3/4/temperature""#),
        "{}",
        shown[1].1
    );
    assert_eq!(
        case.values("d-1", "temperature").await,
        [20.0, 31.0, 32.0, 5.0, 11.0]
    );
    let metrics = case.handler.store.metrics("d-1").await.expect("reads");
    assert_eq!(metrics[0].samples, 5);
}

const ALL: &str = "devices/d-1/telemetry";

#[tokio::test]
async fn a_payload_may_hold_several_metrics_of_any_kind() {
    let mut case = Case::new().await;
    let records = batch(
        0,
        &[
            (ALL, r#"{"temperature":31,"door":"open","heating":true}"#),
            (
                ALL,
                r#"{"values":{"temperature":32,"door":"shut"},"ts":1766000000500}"#,
            ),
            ("devices/d-1/telemetry/door", r#""ajar""#),
            ("devices/d-1/telemetry/heating", "false"),
        ],
    );
    let alerts = case.handle(std::slice::from_ref(&records)).await;
    assert_eq!(reasons(&alerts), []);
    assert_eq!(shown(&alerts).len(), 1);
    assert!(
        shown(&alerts)[0]
            .1
            .contains(r#""id":"iot.telemetry/3/0/temperature""#)
    );
    let metrics = case.handler.store.metrics("d-1").await.expect("reads");
    let lines: Vec<String> = metrics
        .iter()
        .map(|row| serde_json::to_string(row).expect("JSON"))
        .collect();
    assert_eq!(
        lines,
        [
            r#"{"metric":"door","value":"ajar","at":1766000000002,"received_at":1766000000002,"samples":3,"state":"normal"}"#,
            r#"{"metric":"heating","value":false,"at":1766000000003,"received_at":1766000000003,"samples":2,"state":"normal"}"#,
            r#"{"metric":"temperature","value":32.0,"at":1766000000500,"received_at":1766000000001,"samples":2,"state":"above"}"#,
        ]
    );
    assert_eq!(case.values("d-1", "temperature").await, [31.0, 32.0]);
    // Once more, as after a crash: the same alert, and nothing twice.
    let again = case.handle(&[records]).await;
    assert_eq!(shown(&again), shown(&alerts));
    assert_eq!(
        case.handler.store.metrics("d-1").await.expect("reads"),
        metrics
    );
}

#[tokio::test]
async fn several_alerts_of_one_record_come_again_in_the_same_order() {
    let mut case = Case::new().await;
    let rule = Rule {
        above: Some(0.5),
        below: None,
        hysteresis: 0.0,
    };
    let put = case.handler.store.put_rule("alarm", rule, 10).await;
    assert!(put.expect("puts"));
    let records = batch(0, &[(ALL, r#"{"temperature":31,"alarm":true}"#)]);
    let first = shown(&case.handle(std::slice::from_ref(&records)).await);
    let ids: Vec<&str> = first
        .iter()
        .map(|(_, alert)| alert.split('"').nth(3).expect("an id"))
        .collect();
    assert_eq!(
        ids,
        ["iot.telemetry/3/0/alarm", "iot.telemetry/3/0/temperature"]
    );
    assert_eq!(shown(&case.handle(&[records]).await), first);
    // A text is on no side of a threshold: it neither raises the alert nor ends it.
    let text = batch(
        1,
        &[
            ("devices/d-1/telemetry/alarm", r#""?""#),
            ("devices/d-1/telemetry/alarm", "true"),
        ],
    );
    assert_eq!(shown(&case.handle(&[text]).await), []);
}

/// A record is applied whole or not at all: what is left out of it would be lost, or be there twice after a redrive.
#[tokio::test]
async fn a_payload_with_more_metrics_than_the_device_may_have_is_one_dead_letter() {
    let mut case = Case::new().await;
    let outcome = case
        .handle(&[batch(
            0,
            &[
                (ALL, r#"{"a":1,"b":2}"#),
                (ALL, r#"{"a":3,"c":4,"d":5}"#),
                (ALL, r#"{"a":6,"c":7}"#),
                (ALL, r#"{"a":8,"b":null}"#),
            ],
        )])
        .await;
    assert_eq!(
        reasons(&outcome),
        [
            (
                3,
                "WrongType",
                "b: null; it must be a number, a boolean or a string"
            ),
            (
                1,
                "LimitReached",
                "the device would have too many metrics: metrics_per_device_max = 3"
            ),
        ]
    );
    assert_eq!(case.values("d-1", "a").await, [1.0, 6.0]);
    assert_eq!(case.values("d-1", "c").await, [7.0]);
}

#[tokio::test]
async fn the_state_of_an_alert_outlives_the_batch() {
    let mut case = Case::new().await;
    assert_eq!(
        case.handle(&[batch(0, &[(T, "31")])]).await.downlink.len(),
        1
    );
    assert_eq!(
        case.handle(&[batch(1, &[(T, "33"), (T, "29")])])
            .await
            .downlink
            .len(),
        0
    );
    assert_eq!(
        case.handle(&[batch(3, &[(T, "27"), (T, "31")])])
            .await
            .downlink
            .len(),
        1
    );
    let alerts = case
        .handler
        .store
        .alerts(Some("d-1"), 10)
        .await
        .expect("reads");
    assert_eq!(
        alerts
            .iter()
            .map(|alert| (alert.value, alert.kind))
            .collect::<Vec<_>>(),
        [(31.0, Kind::Above), (31.0, Kind::Above)]
    );
    assert_eq!(
        case.handler
            .store
            .alerts(None, 1)
            .await
            .expect("reads")
            .len(),
        1
    );
}

#[tokio::test]
async fn bad_records_are_poison_with_a_reason_and_the_rest_is_applied() {
    let mut case = Case::new().await;
    let mut bad = batch(
        0,
        &[
            (T, "20"),
            (T, "hello"),
            (T, r#"{"value":[20]}"#),
            (T, "NaN"),
            (T, "1e999"),
            ("devices/d-1/other/x", "1"),
            (R, "true"),
            (R, r#"{"id":"c-404","ok":true}"#),
            (T, "21"),
        ],
    );
    bad.push(9, Some(MS), None, Some(b"1"), []);
    let expected = [
        (
            1,
            "NotJson",
            "the payload is not JSON: expected value at line 1 column 1",
        ),
        (
            2,
            "WrongType",
            "value: an array; it must be a number, a boolean or a string",
        ),
        (
            3,
            "NotJson",
            "the payload is not JSON: expected value at line 1 column 1",
        ),
        (
            4,
            "NotJson",
            "the payload is not JSON: number out of range at line 1 column 5",
        ),
        (
            5,
            "UnknownTopic",
            "the MQTT topic is none of devices/{device}/telemetry/{metric}, devices/{device}/telemetry and devices/{device}/replies/{command}",
        ),
        (
            6,
            "WrongType",
            "the payload is a boolean; a reply is an object with id, ok and result",
        ),
        (
            9,
            "MalformedRecord",
            "the record has neither the header mqtt.topic nor a key, so its MQTT topic is unknown",
        ),
    ];
    let bad = [bad];
    assert_eq!(reasons(&case.handle(&bad).await), expected);
    // Dead letters may have been lost after the store had the batch: they come again too.
    assert_eq!(reasons(&case.handle(&bad).await), expected);
    assert_eq!(case.values("d-1", "temperature").await, [20.0, 21.0]);
    // A reply to a command of another store is kept as such.
    let stray = case
        .handler
        .store
        .stray_reply("c-404")
        .await
        .expect("reads");
    let (device, command, reply) = stray.expect("is there");
    assert_eq!(format!("devices/{device}/replies/{command}"), R);
    assert!(reply.ok);
    assert!(case.forget(i64::MAX).await > 0);
    let stray = case
        .handler
        .store
        .stray_reply("c-404")
        .await
        .expect("reads");
    assert_eq!(stray, None);
}

#[tokio::test]
async fn a_command_that_no_device_answers_expires_and_a_late_reply_counts() {
    let mut case = Case::new().await;
    case.post("c-1").await;
    let claimed = case.handler.store.claim_commands(MS, MS + 500, 2).await;
    assert_eq!(claimed.expect("claims").len(), 1);
    let store = case.handler.store.clone();
    store
        .settle_commands([(1, Dispatch::Sent)].into_iter(), MS)
        .await
        .expect("settles");
    let status = async |store: &Store| {
        let command = store.command("c-1").await.expect("reads");
        command.expect("is there").status
    };
    store
        .claim_commands(MS + 999, MS + 1_500, 2)
        .await
        .expect("looks");
    assert_eq!(status(&store).await, Status::Sent);
    store
        .claim_commands(MS + 1_000, MS + 1_500, 2)
        .await
        .expect("looks");
    assert_eq!(status(&store).await, Status::Expired);
    let reply = batch(
        0,
        &[("devices/d-1/replies/reboot", r#"{"id":"c-1","ok":true}"#)],
    );
    case.handle(&[reply]).await;
    assert_eq!(status(&store).await, Status::Replied);
}

#[tokio::test]
async fn one_device_cannot_make_metrics_without_end() {
    let mut case = Case::new().await;
    let names: Vec<String> = (0..5)
        .map(|n| format!("devices/d-1/telemetry/m{n}"))
        .collect();
    let mut records: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    records.push(("devices/d-2/telemetry/m9", "1"));
    let batches = [batch(0, &records)];
    let expected = [
        (
            3,
            "LimitReached",
            "the device would have too many metrics: metrics_per_device_max = 3",
        ),
        (
            4,
            "LimitReached",
            "the device would have too many metrics: metrics_per_device_max = 3",
        ),
    ];
    assert_eq!(reasons(&case.handle(&batches).await), expected);
    assert_eq!(reasons(&case.handle(&batches).await), expected);
    let devices = case.handler.store.devices("", 10).await.expect("reads");
    assert_eq!(
        devices
            .iter()
            .map(|row| (row.device.as_str(), row.metrics))
            .collect::<Vec<_>>(),
        [("d-1", 3), ("d-2", 1)]
    );
}

#[tokio::test]
async fn a_reply_is_noted_once_and_only_from_the_device_that_was_asked() {
    let mut case = Case::new().await;
    case.post("c-1").await;
    let wrong = [("devices/d-2/replies/reboot", r#"{"id":"c-1","ok":true}"#)];
    assert_eq!(
        reasons(&case.handle(&[batch(0, &wrong)]).await),
        [(
            0,
            "NotApplicable",
            "id: it is that of the command reboot for the device d-1"
        )]
    );
    let replies = [
        (R, r#"{"id":"c-1","ok":true,"result":[1]}"#),
        (R, r#"{"id":"c-1","ok":false}"#),
    ];
    let outcome = case.handle(&[batch(1, &replies)]).await;
    assert!(outcome.poison.is_empty(), "{outcome:?}");
    // The note that it was sent comes after the reply: the reply stays.
    case.handler
        .store
        .settle_commands([(1, Dispatch::Sent)].into_iter(), MS)
        .await
        .expect("settles");
    let command = case
        .handler
        .store
        .command("c-1")
        .await
        .expect("reads")
        .expect("is there");
    assert_eq!(
        (command.status, command.sent_at),
        (Status::Replied, Some(MS))
    );
    let reply = command.reply.expect("replied");
    assert_eq!(
        (reply.ok, reply.result, reply.received_at),
        (true, serde_json::json!([1]), MS + 1)
    );
}

#[tokio::test]
async fn commands_are_claimed_by_one_in_order_and_expire() {
    let case = Case::new().await;
    let store = &case.handler.store;
    for id in ["c-1", "c-2", "c-3"] {
        case.post(id).await;
    }
    let claimed = store.claim_commands(MS, MS + 500, 2).await.expect("claims");
    assert_eq!(
        claimed
            .iter()
            .map(|command| command.id.as_str())
            .collect::<Vec<_>>(),
        ["c-1", "c-2"]
    );
    let claimed = store.claim_commands(MS, MS + 500, 2).await.expect("claims");
    assert_eq!(
        claimed
            .iter()
            .map(|command| command.id.as_str())
            .collect::<Vec<_>>(),
        ["c-3"]
    );
    store
        .release_commands([3].into_iter())
        .await
        .expect("releases");
    assert_eq!(
        store
            .claim_commands(MS, MS + 500, 2)
            .await
            .expect("claims")
            .len(),
        1
    );
    // Whoever claimed them died; by then they are too old.
    assert!(
        store
            .claim_commands(MS + 1_000, MS + 9_000, 10)
            .await
            .expect("claims")
            .is_empty()
    );
    let command = store
        .command("c-2")
        .await
        .expect("reads")
        .expect("is there");
    assert_eq!(command.status, Status::Expired);
    assert_eq!(store.commands_pending().await.expect("reads"), 0);
}

#[tokio::test]
async fn a_full_disk_is_transient_and_loses_nothing() {
    let mut case = Case::new().await;
    case.handler.store.limit_pages(Some(1)).await;
    let metrics: Vec<String> = (0..2_000)
        .map(|n| format!("devices/d-{n}/telemetry/t"))
        .collect();
    let records: Vec<(&str, &str)> = metrics.iter().map(|topic| (topic.as_str(), "1")).collect();
    let batches = [batch(0, &records)];
    match case.handler.handle(&batches).await {
        Err(HandleError::Transient(message)) => assert!(message.contains("full"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert!(
        case.handler
            .store
            .devices("", 10)
            .await
            .expect("reads")
            .is_empty()
    );
    case.handler.store.limit_pages(None).await;
    assert!(case.handle(&batches).await.poison.is_empty());
    assert_eq!(
        case.handler
            .store
            .devices("", 10_000)
            .await
            .expect("reads")
            .len(),
        2_000
    );
}

#[tokio::test]
async fn pages_of_a_series_neither_skip_nor_repeat_readings_of_the_same_time() {
    let mut case = Case::new().await;
    let payload = format!(r#"{{"value":1,"at":{MS}}}"#);
    case.handle(&[batch(0, &[(T, payload.as_str()); 7])]).await;
    let mut before: Option<Cursor> = None;
    let mut pages = Vec::new();
    loop {
        let range = Range {
            from_ms: MS,
            to_ms: MS,
            before,
            points_max: 3,
        };
        let page = case
            .handler
            .store
            .points("d-1", "temperature", range)
            .await
            .expect("reads")
            .expect("is there");
        pages.push(page.points.len());
        let Some(next) = page.before else { break };
        assert_eq!(next.to_string().parse(), Ok(next));
        before = Some(next);
    }
    assert_eq!(pages, [3, 3, 1]);
}

#[tokio::test]
async fn old_data_is_forgotten_in_parts_and_the_last_value_stays() {
    let mut case = Case::new().await;
    case.handle(&[batch(0, &[(T, "31"), (T, "20"), (T, "31"), (T, "22")])])
        .await;
    case.post("c-1").await;
    assert_eq!(case.forget(MS + 2).await, 3);
    assert_eq!(case.values("d-1", "temperature").await, [31.0, 22.0]);
    assert_eq!(case.forget(MS + 100).await, 3);
    assert_eq!(case.forget(MS + 100).await, 0);
    assert!(
        case.handler
            .store
            .command("c-1")
            .await
            .expect("reads")
            .is_some()
    );
    assert_eq!(
        case.handler.store.metrics("d-1").await.expect("reads")[0].value,
        Value::Number(22.0)
    );
}
