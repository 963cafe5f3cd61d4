//! What keeps the store from growing without end, without Kafka: old messages go and rooms count on, and there are limits on
//! rooms and members.

use runtime::{Batch, Forget, Handler as _, Outcome, Part};
use serde_json::{Value, json};

use crate::Config;
use crate::clock::now_ms;
use crate::handler::ChatHandler;
use crate::metrics::Metrics;
use crate::store::tests::{growth, store};
use crate::store::{Direction, Forgetter, Limits, Store};

struct Case {
    handler: ChatHandler,
    dir: tempfile::TempDir,
    next_offset: i64,
}

impl Case {
    async fn new(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        Self {
            handler: handler(store, limits),
            dir,
            next_offset: 0,
        }
    }

    fn store(&self) -> &Store {
        &self.handler.store
    }

    /// A message that was stored so many milliseconds ago; the batch in which it came.
    async fn say(&mut self, room: &str, from: &str, ago_ms: i64) -> (Batch, Outcome) {
        let offset = self.next_offset;
        self.next_offset += 1;
        let mut batch = Batch::new("chat.messages", 0);
        let topic = format!("rooms/{room}/messages");
        let payload = json!({"id": format!("m-{offset}"), "from": from, "text": "x"}).to_string();
        let at = Some(now_ms() - ago_ms);
        batch.push(
            offset,
            at,
            Some(topic.as_bytes()),
            Some(payload.as_bytes()),
            [],
        );
        let outcome = self.handle(&batch).await;
        (batch, outcome)
    }

    async fn handle(&mut self, batch: &Batch) -> Outcome {
        self.handler
            .handle(std::slice::from_ref(batch))
            .await
            .unwrap()
    }

    /// The sequence numbers that a room has.
    async fn seqs(&self, room: &str) -> Vec<i64> {
        let page = self
            .store()
            .history(room, Direction::After(0), 10_000)
            .await;
        let (_, page) = page.unwrap().expect("a room");
        page.into_iter().map(|entry| entry.seq).collect()
    }

    async fn forget(&self, retention_days: u32, room_messages_max: u32) -> (u64, u64) {
        let mut forgetter = Forgetter::new(self.store().clone(), retention_days, room_messages_max);
        let (mut rows, mut parts) = (0, 0);
        loop {
            let Part { rows: some, more } = forgetter.forget().await.unwrap();
            assert!(some <= 1_000, "a part is bounded");
            (rows, parts) = (rows + some, parts + 1);
            if !more {
                return (rows, parts);
            }
        }
    }
}

fn handler(store: Store, limits: Limits) -> ChatHandler {
    ChatHandler {
        growth: growth(&store),
        store,
        topics: Config::default().mqtt_topics().unwrap(),
        text_bytes_max: 1_000,
        sender: crate::config::Sender::Principal,
        limits,
        metrics: Metrics::new(&prometheus::Registry::new()).unwrap(),
    }
}

fn wide() -> Limits {
    Config::default().limits()
}

fn receipts(outcome: &Outcome) -> Vec<Value> {
    let receipts = outcome.downlink.iter();
    receipts
        .filter(|message| message.topic.starts_with("users/"))
        .map(|message| serde_json::from_slice(&message.payload).unwrap())
        .collect()
}

const DAY_MS: i64 = 86_400_000;

#[tokio::test]
async fn what_is_too_old_or_too_much_goes_and_the_room_counts_on() {
    let mut case = Case::new(wide()).await;
    let (oldest, _) = case.say("lobby", "alice", 9 * DAY_MS).await;
    for ago_ms in [8 * DAY_MS, 2 * DAY_MS, 5, 4, 3] {
        case.say("lobby", "bob", ago_ms).await;
    }
    case.say("other", "bob", 9 * DAY_MS).await;
    case.say("quiet", "bob", 1).await;
    assert_eq!(case.forget(0, 6).await, (0, 1), "nothing is over");
    assert_eq!(case.forget(7, 100).await.0, 3);
    assert_eq!(case.seqs("lobby").await, [3, 4, 5, 6]);
    assert_eq!(case.forget(0, 3).await.0, 1);
    assert_eq!(case.seqs("lobby").await, [4, 5, 6]);
    assert_eq!(case.seqs("other").await, [] as [i64; 0]);

    // Alice has read 1 of 6, and can read 3.
    let alice = case
        .store()
        .membership("lobby", "alice")
        .await
        .unwrap()
        .unwrap();
    assert_eq!((alice.read_seq, alice.last_seq, alice.unread), (1, 6, 3));
    let (unread, rooms, _) = case.store().unread("alice", 10).await.unwrap();
    assert_eq!((unread, rooms), (3, 1));
    let (lobby, _) = case.store().room("lobby").await.unwrap().unwrap();
    assert_eq!((lobby.first_seq, lobby.last_seq), (4, 6));

    // Records that come again change nothing, whether what they became is there or not.
    let again = case.handle(&oldest).await;
    assert!(
        again.downlink.is_empty() && again.poison.is_empty(),
        "{again:?}"
    );
    assert_eq!(case.seqs("lobby").await, [4, 5, 6]);

    // After a restart, too, rooms count on.
    let next_offset = case.next_offset;
    let dir = case.dir;
    case.handler.store.file().close().await;
    let mut case = Case {
        handler: handler(store(&dir).await, wide()),
        dir,
        next_offset,
    };
    let (_, outcome) = case.say("other", "alice", 0).await;
    assert_eq!(receipts(&outcome)[0]["seq"], 2);
    let (_, outcome) = case.say("lobby", "alice", 0).await;
    assert_eq!(receipts(&outcome)[0]["seq"], 7);
    assert_eq!(case.seqs("lobby").await, [4, 5, 6, 7]);
}

#[tokio::test]
async fn much_goes_in_parts_and_many_rooms_are_looked_at_in_parts() {
    let mut case = Case::new(wide()).await;
    let mut batch = Batch::new("chat.messages", 0);
    let payload = json!({"from": "alice", "text": "x"}).to_string();
    for offset in 0..4_000 {
        let room = if offset < 1_500 {
            format!("r-{offset}")
        } else {
            "lobby".to_owned()
        };
        let topic = format!("rooms/{room}/messages");
        batch.push(
            offset,
            Some(1),
            Some(topic.as_bytes()),
            Some(payload.as_bytes()),
            [],
        );
    }
    case.handle(&batch).await;
    let (rows, parts) = case.forget(0, 100).await;
    assert_eq!(rows, 2_400);
    assert_eq!(
        parts, 4,
        "three with messages, and one for the rooms behind them"
    );
    assert_eq!(case.seqs("lobby").await.len(), 100);
    let (rows, _) = case.forget(1, 100).await;
    assert_eq!(rows, 1_600, "all of them are old");
}

#[tokio::test]
async fn a_room_too_many_is_a_dead_letter_that_names_the_limit_again_and_again() {
    let mut case = Case::new(Limits {
        rooms_max: 2,
        ..wide()
    })
    .await;
    case.say("a", "alice", 0).await;
    case.say("b", "alice", 0).await;
    let (refused, first) = case.say("c", "alice", 0).await;
    let again = case.handle(&refused).await;
    for outcome in [first, again] {
        let [poison] = &outcome.poison[..] else {
            panic!("{:?}", outcome.poison)
        };
        assert_eq!(poison.class(), "LimitReached");
        assert!(
            poison.reason().contains("rooms_max = 2"),
            "{}",
            poison.reason()
        );
        let told = receipts(&outcome);
        assert_eq!(told.len(), 1);
        assert_eq!(
            (&told[0]["rejected"], &told[0]["id"]),
            (&json!("LimitReached"), &json!("m-2"))
        );
    }
    let (_, outcome) = case.say("b", "alice", 0).await;
    assert_eq!(
        receipts(&outcome)[0]["seq"],
        2,
        "rooms that are there go on"
    );
}

#[tokio::test]
async fn a_full_room_takes_messages_and_no_members() {
    let mut case = Case::new(Limits {
        room_members_max: 2,
        ..wide()
    })
    .await;
    for from in ["alice", "bob", "carol", "bob"] {
        let (_, outcome) = case.say("lobby", from, 0).await;
        assert!(outcome.poison.is_empty());
        assert_eq!(receipts(&outcome).len(), 1, "{from} has a receipt");
    }
    let members = async |case: &Case| {
        let members = case.store().members("lobby", "", 10).await.unwrap();
        let members = members.into_iter();
        members
            .map(|member| (member.user, member.read_seq))
            .collect::<Vec<_>>()
    };
    let expected = [("alice".to_owned(), 1), ("bob".to_owned(), 4)];
    assert_eq!(members(&case).await, expected);

    // Who leaves makes a place.
    let mut batch = Batch::new("chat.messages", 0);
    let topic = Some(&b"rooms/lobby/messages"[..]);
    let header = |kind: &'static str| [("millstream.change", Some(kind.as_bytes()))];
    let of = |user: &str| json!({ "user": user }).to_string();
    let offset = case.next_offset;
    for (at, kind, user) in [
        (0, "leave", "alice"),
        (1, "join", "carol"),
        (2, "join", "dave"),
    ] {
        batch.push(
            offset + at,
            Some(1),
            topic,
            Some(of(user).as_bytes()),
            header(kind),
        );
    }
    case.next_offset += 3;
    case.handle(&batch).await;
    case.say("lobby", "carol", 0).await;
    let users: Vec<_> = members(&case)
        .await
        .into_iter()
        .map(|(user, _)| user)
        .collect();
    assert_eq!(users, ["bob", "carol"]);
    let (_, count) = case.store().room("lobby").await.unwrap().unwrap();
    assert_eq!(count, 2);
}
