//! From records to messages, and from messages to receipts on the downlink.

use envelope::{Downlink, header};
use runtime::{Batch, Growth, HandleError, Handler, Outcome, Poison, Record, Stage};
use serde::Serialize;

use crate::change::Change;
use crate::clock::now_ms;
use crate::config::{Sender, Topics};
use crate::message::{Condemned, Fault, Message, check_name};
use crate::metrics::Metrics;
use crate::store::{Applied, Changed, Incoming, Limits, Partition, Store, Stored};

/// The chat backend's [`Handler`].
pub(crate) struct ChatHandler {
    pub store: Store,
    pub topics: Topics,
    pub text_bytes_max: usize,
    pub sender: Sender,
    pub limits: Limits,
    pub growth: Growth,
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

/// What the readers of a room are told when a message is stored: the message came to them live, its number did not.
#[derive(Debug, Serialize)]
struct Event<'a> {
    kind: &'static str,
    seq: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    from: &'a str,
    stored_at: i64,
}

/// What the sender of a message that cannot be stored is told.
#[derive(Debug, Serialize)]
struct Rejection<'a> {
    room: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    rejected: &'static str,
    reason: &'a str,
}

/// A record that cannot be handled, and who is to hear of it.
struct Refused {
    stage: Stage,
    fault: Fault,
    rejection: Option<Downlink>,
}

/// What a record says.
enum Said<'a> {
    Message(Incoming<'a>),
    Change(Changed<'a>),
}

impl Handler for ChatHandler {
    fn store(&self) -> Option<runtime::store::Store> {
        Some(self.store.file().clone())
    }

    async fn handle(&mut self, batches: &[Batch]) -> Result<Outcome, HandleError> {
        let mut outcome = Outcome::default();
        let partitions: Vec<Partition<'_>> = batches
            .iter()
            .map(|batch| self.read_batch(batch, &mut outcome))
            .collect();
        let applied = self.store.apply(&partitions, self.limits).await?;
        self.refuse(&applied, &partitions, &mut outcome);
        let all = applied.stored;
        let again = all.iter().filter(|stored| stored.again).count() as u64;
        self.metrics.messages.inc_by(all.len() as u64 - again);
        self.metrics.messages_again.inc_by(again);
        for stored in all {
            let incoming = &partitions[stored.partition].messages[stored.message];
            outcome.downlink.push(self.receipt(incoming, stored)?);
            // Sent again by its sender, it is no news to the room.
            if stored.first {
                outcome.downlink.push(self.event(incoming, stored)?);
            }
        }
        Ok(outcome)
    }
}

impl ChatHandler {
    /// What of the limits a call has come to: records that would make a room too many are dead letters, and who wrote hears of
    /// it.
    fn refuse(&self, applied: &Applied, partitions: &[Partition<'_>], outcome: &mut Outcome) {
        let Limits {
            rooms_max,
            room_members_max,
        } = self.limits;
        let rooms = applied.refused.len() as u64;
        self.growth.refused("rooms_max", rooms_max.into(), rooms);
        let members = applied.members_refused;
        self.growth
            .refused("room_members_max", room_members_max.into(), members);
        let reason = format!("the room would be one too many: rooms_max = {rooms_max}");
        for (index, offset) in &applied.refused {
            let partition = &partitions[*index];
            let Some(record) = partition.batch.at_offset(*offset) else {
                continue;
            };
            let class = "LimitReached";
            outcome
                .poison
                .push(Poison::new(record, Stage::TaskPut, class, &*reason));
            let mut messages = partition.messages.iter();
            let Some(incoming) = messages.find(|incoming| incoming.offset == *offset) else {
                continue;
            };
            let rejection = Rejection {
                room: incoming.room,
                id: incoming.message.id.as_deref(),
                rejected: class,
                reason: &reason,
            };
            let topic = self.topics.receipts.write([&incoming.message.from]);
            outcome.downlink.extend(message(topic, &rejection).ok());
        }
    }

    fn read_batch<'a>(&self, batch: &'a Batch, outcome: &mut Outcome) -> Partition<'a> {
        let mut partition = Partition {
            batch,
            messages: Vec::with_capacity(batch.len()),
            changes: Vec::new(),
        };
        for record in batch.iter() {
            match self.read(record) {
                Ok(Said::Message(message)) => partition.messages.push(message),
                Ok(Said::Change(change)) => partition.changes.push(change),
                Err(refused) => {
                    let Fault { class, reason } = refused.fault;
                    let poison = Poison::new(record, refused.stage, class, reason);
                    outcome.poison.push(poison);
                    outcome.downlink.extend(refused.rejection);
                }
            }
        }
        partition
    }

    fn read<'a>(&self, record: Record<'a>) -> Result<Said<'a>, Box<Refused>> {
        let header = |class, reason| {
            Box::new(Refused {
                stage: Stage::HeaderConverter,
                fault: Fault { class, reason },
                rejection: None,
            })
        };
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
        let offset = record.offset();
        if let Some(kind) = record.header(header::CHANGE) {
            let change = Change::read(kind, envelope.payload)
                .map_err(|fault| Refused {
                    stage: Stage::ValueConverter,
                    fault,
                    rejection: None,
                })
                .map_err(Box::new)?;
            return Ok(Said::Change(Changed {
                offset,
                room,
                change,
            }));
        }
        let sender = envelope.user.filter(|_| self.sender == Sender::Principal);
        let message = Message::read(envelope.payload, sender, self.text_bytes_max);
        let message = message.map_err(|refused| {
            let rejection = self.rejection(room, &refused, envelope.client_id);
            Box::new(Refused {
                stage: Stage::ValueConverter,
                fault: refused.fault,
                rejection,
            })
        })?;
        let received_ms = envelope
            .received_at_micros
            .and_then(|micros| i64::try_from(micros / 1_000).ok());
        Ok(Said::Message(Incoming {
            offset,
            room,
            message,
            received_ms,
            // The record's own time, so that a store that is made anew from the log says the same.
            stored_ms: record.timestamp_ms().or(received_ms).unwrap_or_else(now_ms),
        }))
    }

    /// For the sender whom the payload names; where it names nobody, for the user whose name the MQTT client bears.
    fn rejection(
        &self,
        room: &str,
        refused: &Condemned,
        client_id: Option<&str>,
    ) -> Option<Downlink> {
        let bears_a_name = |id: &&str| check_name("user", id).is_ok();
        let user = refused.from.as_deref().or(client_id.filter(bears_a_name))?;
        let rejection = Rejection {
            room,
            id: refused.id.as_deref(),
            rejected: refused.fault.class,
            reason: &refused.fault.reason,
        };
        // A rejection that could not be written would be a bug; the dead letter has it all.
        message(self.topics.receipts.write([user]), &rejection).ok()
    }

    fn receipt(&self, incoming: &Incoming<'_>, stored: Stored) -> Result<Downlink, HandleError> {
        let receipt = Receipt {
            room: incoming.room,
            id: incoming.message.id.as_deref(),
            seq: stored.seq,
            stored_at: stored.stored_ms,
        };
        message(
            self.topics.receipts.write([&incoming.message.from]),
            &receipt,
        )
    }

    fn event(&self, incoming: &Incoming<'_>, stored: Stored) -> Result<Downlink, HandleError> {
        let event = Event {
            kind: "stored",
            seq: stored.seq,
            id: incoming.message.id.as_deref(),
            from: &incoming.message.from,
            stored_at: stored.stored_ms,
        };
        message(self.topics.events.write([incoming.room]), &event)
    }
}

fn message(topic: String, content: &impl Serialize) -> Result<Downlink, HandleError> {
    let payload = serde_json::to_vec(content).map_err(|error| {
        HandleError::Fatal(format!("an answer cannot be written as JSON: {error}"))
    })?;
    Ok(Downlink::new(topic, payload)
        .qos(1)
        .payload_format(1)
        .content_type("application/json"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::Config;
    use crate::store::Direction;
    use crate::store::tests::{growth, store};

    struct Case {
        handler: ChatHandler,
        _dir: tempfile::TempDir,
    }

    impl Case {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = store(&dir).await;
            let handler = ChatHandler {
                store: store.clone(),
                topics: Config::default().mqtt_topics().unwrap(),
                text_bytes_max: 1_000,
                sender: Sender::Principal,
                limits: Config::default().limits(),
                growth: growth(&store),
                metrics: Metrics::new(&prometheus::Registry::new()).unwrap(),
            };
            Self { handler, _dir: dir }
        }

        /// The receipts of a call.
        async fn receipts(&mut self, batches: &[Batch]) -> Vec<(String, Value)> {
            let mut answers = self.answers(batches).await;
            answers.retain(|(topic, _)| topic.starts_with("users/"));
            answers
        }

        /// Receipts and events of a call without poison.
        async fn answers(&mut self, batches: &[Batch]) -> Vec<(String, Value)> {
            let outcome = self.handler.handle(batches).await.unwrap();
            assert!(outcome.poison.is_empty(), "{:?}", outcome.poison);
            read_answers(outcome)
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

    fn read_answers(outcome: Outcome) -> Vec<(String, Value)> {
        let answer = |message: Downlink| {
            assert_eq!((message.qos, message.validate()), (1, Ok(())));
            (
                message.topic,
                serde_json::from_slice(&message.payload).unwrap(),
            )
        };
        outcome.downlink.into_iter().map(answer).collect()
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
    async fn readers_of_a_room_learn_the_number_of_what_was_stored() {
        let mut case = Case::new().await;
        let mut first = Batch::new("chat.messages", 0);
        let payload = r#"{"id":"m-1","from":"alice","text":"x"}"#;
        let key = Some(&b"rooms/lobby/messages"[..]);
        first.push(0, Some(1_700), key, Some(payload.as_bytes()), []);
        let batches = [first];
        let answers = case.answers(&batches).await;
        let event =
            json!({ "kind": "stored", "seq": 1, "id": "m-1", "from": "alice", "stored_at": 1_700 });
        assert_eq!(answers.len(), 2);
        assert_eq!(answers[1], ("rooms/lobby/events".to_owned(), event));
        assert_eq!(case.answers(&batches).await, answers);
    }

    #[tokio::test]
    async fn what_a_sender_sends_again_is_the_same_message() {
        let mut case = Case::new().await;
        let alice = r#"{"id":"m-1","from":"alice","text":"x"}"#;
        let bob = r#"{"id":"m-1","from":"bob","text":"x"}"#;
        let records = |offsets: std::ops::Range<i64>, payload| {
            let mut batch = Batch::new("chat.messages", 0);
            for offset in offsets {
                push(&mut batch, offset, "rooms/lobby/messages", payload);
            }
            [batch]
        };
        // Twice in one call, again in a later one, and all of it seen again.
        let first = case.answers(&records(0..2, alice)).await;
        assert_eq!(first.len(), 3, "two receipts, one event: {first:?}");
        assert_eq!(first[0], first[2]);
        let again = case.answers(&records(2..3, alice)).await;
        assert_eq!(again, [first[0].clone()]);
        assert_eq!(seqs(&case.receipts(&records(3..4, bob)).await), [2]);
        assert_eq!(case.answers(&records(0..2, alice)).await, first);
        assert_eq!(case.history("lobby").await.len(), 2);
        // In another room it is another message.
        let mut attic = Batch::new("chat.messages", 0);
        push(&mut attic, 4, "rooms/attic/messages", alice);
        assert_eq!(seqs(&case.receipts(&[attic]).await), [1]);
    }

    #[tokio::test]
    async fn senders_of_what_cannot_be_stored_are_told() {
        let mut case = Case::new().await;
        let mut batch = Batch::new("chat.messages", 0);
        for (offset, payload, client) in [
            (0, r#"{"id":"m-1","from":"alice","text":""}"#, "phone-7"),
            (1, "hello", "bob"),
            (2, "hello", "no/name"),
        ] {
            batch.push(
                offset,
                None,
                Some(b"rooms/lobby/messages"),
                Some(payload.as_bytes()),
                [(header::CLIENT_ID, Some(client.as_bytes()))],
            );
        }
        let outcome = case.handler.handle(&[batch]).await.unwrap();
        assert_eq!(outcome.poison.len(), 3);
        let answers = read_answers(outcome);
        assert_eq!(answers.len(), 2, "{answers:?}");
        assert_eq!(answers[0].0, "users/alice/receipts");
        assert_eq!(
            answers[0].1,
            json!({
                "room": "lobby",
                "id": "m-1",
                "rejected": "BadLength",
                "reason": "text: 0 bytes long; it must be 1 to 1000 bytes",
            })
        );
        assert_eq!(answers[1].0, "users/bob/receipts");
        assert_eq!(answers[1].1["rejected"], "NotJson");
    }

    #[tokio::test]
    async fn members_change_at_their_place_among_the_messages() {
        let key = Some(&b"rooms/lobby/messages"[..]);
        let mut batch = Batch::new("chat.messages", 0).of_cluster("c".into());
        let change = |kind: &'static str| [(header::CHANGE, Some(kind.as_bytes()))];
        let message = |from| json!({ "from": from, "text": "x" }).to_string();
        let member = |user| json!({ "user": user }).to_string();
        batch.push(0, None, key, Some(message("alice").as_bytes()), []);
        batch.push(1, None, key, Some(member("bob").as_bytes()), change("join"));
        batch.push(2, None, key, Some(message("alice").as_bytes()), []);
        batch.push(3, None, key, Some(message("carol").as_bytes()), []);
        batch.push(
            4,
            None,
            key,
            Some(member("carol").as_bytes()),
            change("leave"),
        );
        batch.push(5, None, key, Some(message("dave").as_bytes()), []);
        let read = br#"{"user":"bob","seq":3}"#;
        batch.push(6, None, key, Some(read), change("read"));
        batch.push(
            7,
            None,
            key,
            Some(member("dave").as_bytes()),
            change("leave"),
        );
        batch.push(8, None, key, Some(message("dave").as_bytes()), []);
        let batches = [batch];
        let mut case = Case::new().await;
        for _ in 0..2 {
            assert_eq!(case.receipts(&batches).await.len(), 5);
            let members = case.handler.store.members("lobby", "", 10).await.unwrap();
            let read: Vec<_> = members
                .iter()
                .map(|member| (member.user.as_str(), member.read_seq))
                .collect();
            assert_eq!(read, [("alice", 2), ("bob", 3), ("dave", 5)]);
        }
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
        assert_eq!(
            seqs(&case.receipts(&[other]).await),
            [9, 10],
            "other records, but what they carry was sent before"
        );
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
            let told = outcome.downlink.len();
            // Two receipts, two events, and a rejection for the one who can be known.
            assert_eq!(told, 2 + 2 + 2, "round {round}");
            assert_eq!(case.history("lobby").await.len(), 2);
        }
    }

    #[tokio::test]
    async fn a_message_is_from_whom_the_broker_knows_and_one_that_claims_another_is_a_dead_letter()
    {
        let mut case = Case::new().await;
        let records = [
            (r#"{"from":"alice","text":"as herself"}"#, Some("alice")),
            (r#"{"text":"says nobody"}"#, Some("alice")),
            (r#"{"from":"alice","text":"as somebody else"}"#, Some("eve")),
            (r#"{"from":7,"text":"as a number"}"#, Some("eve")),
            (r#"{"from":"bob","text":"nobody asked"}"#, None),
        ];
        let batch = || {
            let mut batch = Batch::new("chat.messages", 0);
            for (offset, (payload, user)) in (0..).zip(records) {
                let user = user.map(|user| (header::USER, Some(user.as_bytes())));
                let key = Some(&b"rooms/lobby/messages"[..]);
                batch.push(offset, None, key, Some(payload.as_bytes()), user);
            }
            [batch]
        };
        let outcome = case.handler.handle(&batch()).await.unwrap();
        let found: Vec<_> = outcome
            .poison
            .iter()
            .map(|poison| (poison.offset(), poison.class()))
            .collect();
        assert_eq!(found, [(2, "WrongSender"), (3, "WrongType")]);
        let reason = outcome.poison[0].reason();
        assert!(
            reason.contains("\"alice\"") && reason.contains("\"eve\""),
            "{reason}"
        );
        let told: Vec<_> = read_answers(outcome)
            .into_iter()
            .filter(|(topic, _)| topic.starts_with("users/"))
            .collect();
        let topics: Vec<_> = told.iter().map(|(topic, _)| topic.as_str()).collect();
        // The true sender hears of it, not the one that he claimed to be.
        let mut expected = ["users/eve/receipts"; 2].to_vec();
        expected.extend([
            "users/alice/receipts",
            "users/alice/receipts",
            "users/bob/receipts",
        ]);
        assert_eq!(topics, expected);
        assert_eq!(case.history("lobby").await.len(), 3);
        // Where the payload is believed, it is believed.
        let mut case = Case::new().await;
        case.handler.sender = Sender::Payload;
        let outcome = case.handler.handle(&batch()).await.unwrap();
        let found: Vec<_> = outcome
            .poison
            .iter()
            .map(|poison| poison.offset())
            .collect();
        assert_eq!(found, [1, 3]);
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
                    assert_eq!(outcome.downlink.len(), 200);
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
