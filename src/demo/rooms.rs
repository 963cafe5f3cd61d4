//! Rooms with talkers: each member says something now and then, reads the others, and waits for its receipt.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;
use tokio::time::MissedTickBehavior;

use super::client::{Client, Message, Outgoing, Seen, Version};
use super::ledger::LastSeen;
use super::{Fleet, Stop};

/// Rooms of the demo, by name; more than these are numbered.
const ROOMS: &[&str] = &["lobby", "garden", "kitchen", "workshop"];
/// First names of the talkers; each is one user in one room.
const NAMES: &[&str] = &[
    "ada",
    "blaise",
    "charles",
    "donald",
    "edsger",
    "frances",
    "grace",
    "hedy",
    "ivan",
    "joan",
    "katherine",
    "leslie",
    "margaret",
    "niklaus",
    "ole",
    "peter",
    "radia",
    "sophie",
    "tony",
    "vint",
];
/// What they say.
const LINES: &[&str] = &[
    "Good morning, everyone.",
    "Is the mill running?",
    "It has not stopped since yesterday.",
    "Who moved the sensor by the window?",
    "The stream is high today.",
    "I read that in the log.",
    "At offset zero, where everything begins.",
    "Shall we replay it from noon?",
    "No need, nothing was lost.",
    "Then let us have tea.",
];

/// The name of room `index`.
pub fn room_name(index: usize) -> String {
    ROOMS
        .get(index)
        .map_or_else(|| format!("room-{}", index + 1), |name| (*name).to_owned())
}

/// The name of talker `index`, unique in the fleet.
fn talker_name(index: usize) -> String {
    let name = NAMES[index % NAMES.len()];
    match index / NAMES.len() {
        0 => name.to_owned(),
        round => format!("{name}-{}", round + 1),
    }
}

/// One member of one room.
pub struct Talker {
    /// The room's number.
    pub room: usize,
    /// This member's place in the room: the effect "this member got it" of a message in it.
    pub place: u32,
    /// Members of the room; also the number of the effect "the sender got its receipt".
    pub members: u32,
    /// This talker's number in the fleet.
    pub index: usize,
}

#[derive(Deserialize)]
struct Said {
    id: String,
    from: String,
}

#[derive(Deserialize)]
struct Receipt {
    id: String,
}

impl Talker {
    /// Lives until the fleet is told to end; stops talking when told to be quiet.
    pub async fn live(self, fleet: Arc<Fleet>, mut stop: Stop) {
        let (room, me) = (room_name(self.room), talker_name(self.index));
        let (said, receipts) = (
            format!("rooms/{room}/messages"),
            format!("users/{me}/receipts"),
        );
        let mut client = Client::connect(
            Version::V311,
            &format!("demo-{me}"),
            fleet.mqtt,
            vec![said.clone(), receipts.clone()],
            fleet.online.clone(),
        );
        let mut last_said = LastSeen::default();
        let mut last_receipts = LastSeen::default();
        // Members take turns instead of all speaking in the same instant.
        let interval = fleet.config.message_interval();
        let phase = interval.mul_f64(f64::from(self.place) / f64::from(self.members));
        let mut turn = tokio::time::interval_at(
            tokio::time::Instant::now() + phase + Duration::from_millis(1),
            interval,
        );
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lines = LINES.iter().cycle().skip(self.index);
        loop {
            tokio::select! {
                seen = client.next() => match seen {
                    None => return,
                    Some(Seen::Ready) => fleet.ready(),
                    Some(Seen::Acknowledged(number)) => fleet.ledger.acknowledged(number, Instant::now()),
                    Some(Seen::Refused(number)) => fleet.ledger.refused(number),
                    Some(Seen::Forgotten(number)) => fleet.ledger.forget(number),
                    Some(Seen::Message(message)) if message.topic == said => {
                        self.read(&fleet, &message, &mut last_said);
                    }
                    Some(Seen::Message(message)) => {
                        let receipt = serde_json::from_slice::<Receipt>(&message.payload);
                        if let Some(number) = receipt.ok().and_then(|receipt| fleet.number(&receipt.id)) {
                            fleet.ledger.effect(number, self.members, 0, &mut last_receipts);
                        }
                    }
                },
                _ = turn.tick() => {
                    // All members listen before the first one speaks, or the first words would count as lost.
                    if fleet.may_speak() && client.may_publish() {
                        let number = fleet.ledger.publish(self.members + 1);
                        let text = lines.next().unwrap_or(&"");
                        let payload = json!({"id": fleet.id(number), "from": me, "text": text});
                        let message = Outgoing {
                            topic: said.clone(),
                            payload: payload.to_string().into_bytes(),
                            tag: number,
                            ..Outgoing::default()
                        };
                        if !client.publish(message) {
                            fleet.ledger.forget(number);
                        }
                    }
                }
                () = stop.asked() => {
                    client.disconnect();
                    // Lets the library send its DISCONNECT.
                    while client.next().await.is_some() {}
                    return;
                }
            }
        }
    }

    fn read(&self, fleet: &Fleet, message: &Message, last: &mut LastSeen) {
        // People talk in these rooms too: what the fleet did not write is read and not counted.
        let Ok(said) = serde_json::from_slice::<Said>(&message.payload) else {
            return;
        };
        if let Some(number) = fleet.number(&said.id) {
            fleet
                .ledger
                .effect(number, self.place, super::key(&said.from), last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let names: std::collections::HashSet<_> = (0..100).map(talker_name).collect();
        assert_eq!(names.len(), 100);
        assert_eq!(room_name(0), "lobby");
        assert_eq!(room_name(9), "room-10");
    }
}
