//! From records to messages, and from messages to receipts on the downlink.

use envelope::Downlink;
use runtime::{Batch, HandleError, Handler, Outcome, Poison, Record, Stage};
use serde::Serialize;

use crate::clock::now_ms;
use crate::config::Topics;
use crate::message::{Fault, Message, check_name};
use crate::metrics::Metrics;
use crate::store::{Incoming, Partition, Store, Stored};

/// The chat backend's [`Handler`].
pub(crate) struct ChatHandler {
    pub store: Store,
    pub topics: Topics,
    pub text_bytes_max: usize,
    pub metrics: Metrics,
}

/// What the sender of a message is told.
#[derive(Debug, Serialize)]
struct Receipt<'a> {
    room: &'a str,
    /// The sender's own identifier, when there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    seq: i64,
    stored_at: i64,
}

impl Handler for ChatHandler {
    async fn handle(&mut self, batches: &[Batch]) -> Result<Outcome, HandleError> {
        let mut poison = Vec::new();
        let partitions: Vec<Partition<'_>> = batches
            .iter()
            .map(|batch| self.read_batch(batch, &mut poison))
            .collect();
        let all = self.store.apply(&partitions, now_ms()).await?;
        let again = all.iter().filter(|stored| stored.again).count() as u64;
        self.metrics.messages.inc_by(all.len() as u64 - again);
        self.metrics.messages_again.inc_by(again);
        let downlink = all
            .iter()
            .map(|stored| self.receipt(&partitions, *stored))
            .collect::<Result<_, _>>()?;
        Ok(Outcome { downlink, poison })
    }
}

impl ChatHandler {
    fn read_batch<'a>(&self, batch: &'a Batch, poison: &mut Vec<Poison>) -> Partition<'a> {
        let mut messages = Vec::with_capacity(batch.len());
        for record in batch.iter() {
            match self.read(record) {
                Ok(message) => messages.push(message),
                Err((stage, fault)) => {
                    poison.push(Poison::new(record, stage, fault.class, fault.reason));
                }
            }
        }
        Partition { batch, messages }
    }

    fn read<'a>(&self, record: Record<'a>) -> Result<Incoming<'a>, (Stage, Fault)> {
        let header = |class, reason| (Stage::HeaderConverter, Fault { class, reason });
        let envelope = record
            .envelope()
            .map_err(|error| header("MalformedRecord", error.to_string()))?;
        let Some([room]) = self.topics.messages.read(envelope.topic) else {
            let expected = self.topics.messages.as_str();
            return Err(header(
                "UnknownTopic",
                format!("the MQTT topic is not {expected}"),
            ));
        };
        check_name("room", room).map_err(|reason| header("BadName", reason))?;
        let message = Message::read(envelope.payload, self.text_bytes_max)
            .map_err(|fault| (Stage::ValueConverter, fault))?;
        let received_ms = envelope
            .received_at_micros
            .and_then(|micros| i64::try_from(micros / 1_000).ok());
        Ok(Incoming {
            offset: record.offset(),
            room,
            message,
            received_ms,
        })
    }

    fn receipt(
        &self,
        partitions: &[Partition<'_>],
        stored: Stored,
    ) -> Result<Downlink, HandleError> {
        let Incoming { room, message, .. } = &partitions[stored.partition].messages[stored.message];
        let receipt = Receipt {
            room,
            id: message.id.as_deref(),
            seq: stored.seq,
            stored_at: stored.stored_ms,
        };
        let payload = serde_json::to_vec(&receipt).map_err(|error| {
            HandleError::Fatal(format!("a receipt cannot be written as JSON: {error}"))
        })?;
        Ok(
            Downlink::new(self.topics.receipts.write([&message.from]), payload)
                .qos(1)
                .payload_format(1)
                .content_type("application/json"),
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::Config;
    use crate::store::Direction;
    use crate::store::tests::store;

    struct Case {
        handler: ChatHandler,
        _dir: tempfile::TempDir,
    }

    impl Case {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let handler = ChatHandler {
                store: store(&dir).await,
                topics: Config::default().mqtt_topics().unwrap(),
                text_bytes_max: 1_000,
                metrics: Metrics::new(&prometheus::Registry::new()).unwrap(),
            };
            Self { handler, _dir: dir }
        }

        /// The receipts of a call.
        async fn receipts(&mut self, batches: &[Batch]) -> Vec<(String, Value)> {
            let outcome = self.handler.handle(batches).await.unwrap();
            assert!(outcome.poison.is_empty(), "{:?}", outcome.poison);
            let receipt = |message: Downlink| {
                assert_eq!((message.qos, message.validate()), (1, Ok(())));
                (
                    message.topic,
                    serde_json::from_slice(&message.payload).unwrap(),
                )
            };
            outcome.downlink.into_iter().map(receipt).collect()
        }

        async fn history(&self, room: &str) -> Vec<(i64, String)> {
            let page = self
                .handler
                .store
                .history(room, Direction::After(0), 1_000)
                .await
                .unwrap();
            page.map_or(Vec::new(), |(_, page)| {
                page.into_iter()
                    .map(|entry| (entry.seq, entry.text))
                    .collect()
            })
        }
    }

    fn push(batch: &mut Batch, offset: i64, topic: &str, payload: &str) {
        batch.push(
            offset,
            None,
            Some(topic.as_bytes()),
            Some(payload.as_bytes()),
            [],
        );
    }

    /// Messages `text-OFFSET` of `user`, in one room or in several by turns.
    fn batch(partition: i32, offsets: std::ops::Range<i64>, user: &str, rooms: &[&str]) -> Batch {
        let mut batch = Batch::new("chat.messages", partition).of_cluster("c".into());
        for offset in offsets {
            let room = rooms[usize::try_from(offset).unwrap() % rooms.len()];
            let payload = json!({ "id": format!("m-{offset}"), "from": user, "text": format!("text-{offset}") });
            push(
                &mut batch,
                offset,
                &format!("rooms/{room}/messages"),
                &payload.to_string(),
            );
        }
        batch
    }

    fn seqs(receipts: &[(String, Value)]) -> Vec<i64> {
        receipts
            .iter()
            .map(|(_, receipt)| receipt["seq"].as_i64().unwrap())
            .collect()
    }

    /// More rooms and messages than fit into a statement.
    #[tokio::test]
    async fn large_calls_are_answered_like_small_ones() {
        let messages = 2 * runtime::store::ROWS_PER_STATEMENT_MAX + 7;
        let rooms: Vec<String> = (0..messages - 5).map(|room| format!("r-{room}")).collect();
        let rooms: Vec<&str> = rooms.iter().map(String::as_str).collect();
        let all = [batch(0, 0..i64::try_from(messages).unwrap(), "ann", &rooms)];
        let mut case = Case::new().await;
        let receipts = case.receipts(&all).await;
        let expected: Vec<i64> = (0..messages)
            .map(|n| if n < rooms.len() { 1 } else { 2 })
            .collect();
        assert_eq!(seqs(&receipts), expected);
        assert_eq!(case.receipts(&all).await, receipts);
        assert_eq!(
            case.history("r-4").await,
            [
                (1, "text-4".to_owned()),
                (2, format!("text-{}", rooms.len() + 4))
            ]
        );
        assert_eq!(case.history("r-5").await, [(1, "text-5".to_owned())]);
    }

    #[tokio::test]
    async fn a_message_gets_a_number_and_its_sender_a_receipt() {
        let mut case = Case::new().await;
        let receipts = case
            .receipts(&[batch(0, 0..3, "alice", &["lobby", "attic"])])
            .await;
        assert_eq!(seqs(&receipts), [1, 1, 2]);
        let (topic, receipt) = &receipts[2];
        assert_eq!(topic, "users/alice/receipts");
        assert_eq!(
            (&receipt["room"], &receipt["id"]),
            (&json!("lobby"), &json!("m-2"))
        );
        assert!(receipt["stored_at"].as_i64().unwrap() > 1_600_000_000_000);
        assert_eq!(
            case.history("lobby").await,
            [(1, "text-0".to_owned()), (2, "text-2".to_owned())]
        );
        assert_eq!(case.history("attic").await, [(1, "text-1".to_owned())]);
        assert_eq!(case.history("cellar").await, []);
    }

    #[tokio::test]
    async fn a_message_without_an_identifier_gets_a_receipt_without_one() {
        let mut case = Case::new().await;
        let mut batch = Batch::new("chat.messages", 0);
        push(
            &mut batch,
            0,
            "rooms/lobby/messages",
            r#"{"from":"bob","text":"x"}"#,
        );
        let receipts = case.receipts(&[batch]).await;
        assert_eq!(
            receipts[0]
                .1
                .as_object()
                .unwrap()
                .keys()
                .collect::<Vec<_>>(),
            ["room", "seq", "stored_at"]
        );
    }

    #[tokio::test]
    async fn a_record_seen_again_is_stored_once_and_answered_as_before() {
        let mut case = Case::new().await;
        let first = case
            .receipts(&[batch(0, 0..700, "alice", &["lobby", "attic", "cellar"])])
            .await;
        assert_eq!(first.len(), 700);
        // All of it again, then a part with new records behind it.
        assert_eq!(
            case.receipts(&[batch(0, 0..700, "alice", &["lobby", "attic", "cellar"])])
                .await,
            first
        );
        let mixed = case
            .receipts(&[batch(0, 690..710, "alice", &["lobby", "attic", "cellar"])])
            .await;
        assert_eq!(mixed[..10], first[690..]);
        assert_eq!(mixed.len(), 20);
        for room in ["lobby", "attic", "cellar"] {
            let history = case.history(room).await;
            let numbers: Vec<i64> = history.iter().map(|(seq, _)| *seq).collect();
            assert_eq!(
                numbers,
                (1..=i64::try_from(history.len()).unwrap()).collect::<Vec<_>>(),
                "dense"
            );
        }
        assert_eq!(case.handler.metrics.messages.get(), 710);
        assert_eq!(case.handler.metrics.messages_again.get(), 710);
    }

    #[tokio::test]
    async fn partitions_of_one_call_share_rooms_and_keep_their_orders() {
        let mut case = Case::new().await;
        let receipts = case
            .receipts(&[
                batch(0, 0..5, "alice", &["lobby"]),
                batch(1, 0..5, "bob", &["lobby"]),
            ])
            .await;
        assert_eq!(seqs(&receipts), (1..=10).collect::<Vec<_>>());
        assert_eq!(receipts[5].0, "users/bob/receipts");
        // The same offsets in another partition or cluster are other records.
        let again = case.receipts(&[batch(1, 3..5, "bob", &["lobby"])]).await;
        assert_eq!(seqs(&again), [9, 10]);
        let other = batch(1, 3..5, "bob", &["lobby"]).of_cluster("d".into());
        assert_eq!(seqs(&case.receipts(&[other]).await), [11, 12]);
    }

    #[tokio::test]
    async fn poison_is_told_apart_and_the_rest_is_stored() {
        let mut case = Case::new().await;
        let mut batch = Batch::new("chat.messages", 0).of_cluster("c".into());
        let good = r#"{"from":"alice","text":"x"}"#;
        let long_room = format!("rooms/{}/messages", "r".repeat(257));
        push(&mut batch, 0, "rooms/lobby/messages", good);
        push(&mut batch, 1, "rooms/lobby/messages", "hello");
        push(
            &mut batch,
            2,
            "rooms/lobby/messages",
            r#"{"from":1e400,"text":"x"}"#,
        );
        push(
            &mut batch,
            3,
            "rooms/lobby/messages",
            r#"{"from":"alice","text":7}"#,
        );
        push(&mut batch, 4, "rooms/lobby/typing", good);
        push(&mut batch, 5, &long_room, good);
        push(&mut batch, 6, "rooms/#/messages", good);
        batch.push(7, None, None, None, []);
        push(
            &mut batch,
            8,
            "rooms/lobby/messages",
            &json!({ "from": "a", "text": "x".repeat(1_001) }).to_string(),
        );
        push(&mut batch, 9, "rooms/lobby/messages", good);
        let batches = [batch];
        for round in 0..2 {
            let outcome = case.handler.handle(&batches).await.unwrap();
            let found: Vec<_> = outcome
                .poison
                .iter()
                .map(|poison| (poison.offset(), poison.class(), poison.reason()))
                .collect();
            let expected = [
                (1, "NotJson", "the payload is not JSON: expected value"),
                (2, "NotJson", "number out of range"),
                (3, "WrongType", "text: a number; it must be text"),
                (
                    4,
                    "UnknownTopic",
                    "the MQTT topic is not rooms/{room}/messages",
                ),
                (5, "BadName", "room: 257 bytes long"),
                (6, "MalformedRecord", "key is no topic name"),
                (
                    7,
                    "MalformedRecord",
                    "neither the header mqtt.topic nor a key",
                ),
                (
                    8,
                    "BadLength",
                    "text: 1001 bytes long; it must be 1 to 1000 bytes",
                ),
            ];
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for ((offset, class, reason), (wanted_offset, wanted_class, wanted)) in
                found.iter().zip(expected)
            {
                assert_eq!((*offset, *class), (wanted_offset, wanted_class));
                assert!(reason.contains(wanted), "{reason}");
            }
            assert_eq!(outcome.downlink.len(), 2, "round {round}");
            assert_eq!(case.history("lobby").await.len(), 2);
        }
    }

    #[tokio::test]
    async fn a_full_disk_is_waited_for_and_loses_nothing() {
        let mut case = Case::new().await;
        let mut stored = 0;
        case.handler.store.limit_pages(Some(60)).await;
        let error = loop {
            let next = batch(0, stored..stored + 100, "alice", &["lobby"]);
            match case.handler.handle(&[next]).await {
                Ok(outcome) => {
                    assert_eq!(outcome.downlink.len(), 100);
                    stored += 100;
                    assert!(stored < 100_000, "the limit has no effect");
                }
                Err(error) => break error,
            }
        };
        let HandleError::Transient(reason) = &error else {
            panic!("{error:?} would stop the backend")
        };
        assert!(reason.contains("database or disk is full"), "{reason}");
        // Nothing of the batch was stored, and it stays so as long as the disk is full; readers go on.
        let next = batch(0, stored..stored + 100, "alice", &["lobby"]);
        case.handler
            .handle(std::slice::from_ref(&next))
            .await
            .unwrap_err();
        assert_eq!(case.history("lobby").await.len() as i64, stored.min(1_000));
        case.handler.store.limit_pages(None).await;
        let receipts = case.receipts(&[next]).await;
        assert_eq!(
            seqs(&receipts),
            (stored + 1..=stored + 100).collect::<Vec<_>>()
        );
    }
}
