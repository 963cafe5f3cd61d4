//! What is to be reported of downlink records that ask for it, and when: by batch, for a position moves over a record only
//! when Kafka has its report; and later again of what waits in sessions. Pure: no Kafka, no clock, no threads.

use std::collections::{BTreeMap, HashMap};

use broker::{Outcome as Sessions, Time};
use envelope::report::Outcome;

use super::held::At;
use super::outcome;
use crate::status::DownlinkOutcome;

/// Which record asks, and under what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// The MQTT topic of the message.
    pub(super) topic: Box<str>,
    pub(super) correlation: Box<str>,
    pub(super) at: At,
}

/// What is to be told of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) asked: Asked,
    pub(super) outcome: Outcome,
    pub(super) sessions: u32,
}

impl Told {
    /// Of a record that came to no session.
    pub(super) fn of_none(asked: Asked, outcome: Outcome) -> Self {
        Self {
            asked,
            outcome,
            sessions: 0,
        }
    }
}

/// A message that is followed until all of its waiting is over.
#[derive(Debug)]
struct Followed {
    asked: Asked,
    expires_at: Option<Time>,
    /// In how many sessions it was left to wait; none as long as the broker has not said.
    waits: Option<u32>,
    /// Of how many sessions it was told since how that ended.
    ended: u32,
}

/// A batch whose reports Kafka does not have yet.
#[derive(Debug, Default)]
struct Owed {
    unconfirmed: usize,
    arrived: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Reports {
    followed: HashMap<u64, Followed>,
    /// Of them, those that wait in sessions, and how many may.
    waiting: usize,
    waiting_max: usize,
    /// Messages whose waiting will end untold, since the last look.
    untold: u64,
    last_number: u64,
    /// What is to be told when a batch has arrived.
    kept: BTreeMap<u64, Vec<Told>>,
    owed: BTreeMap<u64, Owed>,
}

impl Reports {
    pub(super) fn new(waiting_max: u32) -> Self {
        Self {
            followed: HashMap::new(),
            waiting: 0,
            waiting_max: waiting_max as usize,
            untold: 0,
            last_number: 0,
            kept: BTreeMap::new(),
            owed: BTreeMap::new(),
        }
    }

    /// Follows the message of a record, under a number.
    pub(super) fn follow(&mut self, asked: Asked, expires_at: Option<Time>) -> u64 {
        self.last_number += 1;
        let followed = Followed {
            asked,
            expires_at,
            waits: None,
            ended: 0,
        };
        self.followed.insert(self.last_number, followed);
        self.last_number
    }

    /// What is told of a message that waits at this node, and is followed further.
    pub(super) fn waiting(&self, number: u64) -> Option<Told> {
        let followed = self.followed.get(&number)?;
        Some(Told::of_none(followed.asked.clone(), Outcome::Waiting))
    }

    /// What is told of a message that no session will get any more.
    pub(super) fn end(&mut self, number: u64, outcome: Outcome) -> Option<Told> {
        let followed = self.followed.remove(&number)?;
        Some(Told::of_none(followed.asked, outcome))
    }

    /// What is told of a message that the sessions have which should.
    pub(super) fn arrived(
        &mut self,
        number: u64,
        sessions: &Sessions,
        word: DownlinkOutcome,
    ) -> Option<Told> {
        let followed = self.followed.get_mut(&number)?;
        followed.waits = Some(sessions.queued);
        let told = Told {
            asked: followed.asked.clone(),
            outcome: report_of(word),
            sessions: outcome::sessions(sessions, word),
        };
        if followed.ended >= sessions.queued {
            self.followed.remove(&number);
        } else if self.waiting == self.waiting_max {
            self.followed.remove(&number);
            self.untold += 1;
        } else {
            self.waiting += 1;
        }
        Some(told)
    }

    /// What is told of a message that waited in a session until now.
    pub(super) fn later(&mut self, number: u64, sessions: &Sessions) -> Option<Told> {
        let followed = self.followed.get_mut(&number)?;
        followed.ended += 1;
        let word = outcome::of(sessions, false);
        let told = Told {
            asked: followed.asked.clone(),
            outcome: report_of(word),
            sessions: outcome::sessions(sessions, word),
        };
        if followed.waits.is_some_and(|waits| followed.ended >= waits) {
            self.followed.remove(&number);
            self.waiting -= 1;
        }
        Some(told)
    }

    /// What is told of messages that expired in the sessions in which they waited, whose clients may never come for them.
    pub(super) fn take_expired(&mut self, now: Time) -> Vec<Told> {
        let expired = self.followed.extract_if(|_, followed| {
            followed.waits.is_some() && followed.expires_at.is_some_and(|at| at <= now)
        });
        let told: Vec<Told> = expired
            .map(|(_, followed)| Told::of_none(followed.asked, Outcome::Expired))
            .collect();
        self.waiting -= told.len();
        told
    }

    /// Messages that wait in sessions and are followed.
    pub(super) fn waiting_in_sessions(&self) -> usize {
        self.waiting
    }

    /// How many messages were left to wait untold since the last call.
    pub(super) fn take_untold(&mut self) -> u64 {
        std::mem::take(&mut self.untold)
    }

    /// Keeps what is to be told of records of the batch until it has arrived.
    pub(super) fn keep(&mut self, batch: u64, told: Vec<Told>) {
        if !told.is_empty() {
            self.kept.insert(batch, told);
        }
    }

    /// What was kept.
    pub(super) fn take_kept(&mut self, batch: u64) -> Vec<Told> {
        self.kept.remove(&batch).unwrap_or_default()
    }

    /// A report about a record of the batch has gone to Kafka.
    pub(super) fn sent(&mut self, batch: u64) {
        self.owed.entry(batch).or_default().unconfirmed += 1;
    }

    /// Kafka has one, or will never have it. True when the batch has nothing more to wait for.
    pub(super) fn confirmed(&mut self, batch: u64) -> bool {
        let Some(owed) = self.owed.get_mut(&batch) else {
            return false;
        };
        owed.unconfirmed = owed.unconfirmed.saturating_sub(1);
        let is_done = owed.arrived && owed.unconfirmed == 0;
        if is_done {
            self.owed.remove(&batch);
        }
        is_done
    }

    /// All reports about the batch have gone to Kafka. True when there is none for which it must wait.
    pub(super) fn batch_arrived(&mut self, batch: u64) -> bool {
        let Some(owed) = self.owed.get_mut(&batch) else {
            return true;
        };
        owed.arrived = true;
        false
    }

    /// Everything that is not done is read again: only what waits in sessions is followed further.
    pub(super) fn rewind(&mut self) {
        self.kept.clear();
        self.owed.clear();
        self.followed.retain(|_, followed| followed.waits.is_some());
    }
}

/// The report's word.
pub(super) fn report_of(word: DownlinkOutcome) -> Outcome {
    match word {
        DownlinkOutcome::Delivered => Outcome::Delivered,
        DownlinkOutcome::Queued => Outcome::Queued,
        DownlinkOutcome::Retained => Outcome::Retained,
        DownlinkOutcome::NoSession => Outcome::NoSession,
        DownlinkOutcome::NoRoom => Outcome::NoRoom,
        DownlinkOutcome::Expired => Outcome::Expired,
        DownlinkOutcome::Malformed => Outcome::Malformed,
        DownlinkOutcome::QueueFull => Outcome::DroppedQueueFull,
        DownlinkOutcome::OutboxFull => Outcome::DroppedOutboxFull,
        DownlinkOutcome::Memory => Outcome::DroppedMemory,
        DownlinkOutcome::TooLarge => Outcome::DroppedTooLarge,
        DownlinkOutcome::Offline => Outcome::DroppedOffline,
        DownlinkOutcome::Withheld => Outcome::DroppedWithheld,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(offset: i64) -> Asked {
        Asked {
            topic: "a".into(),
            correlation: offset.to_string().into(),
            at: (0, offset),
        }
    }

    fn arrive(reports: &mut Reports, number: u64, delivered: u32, queued: u32) -> Option<Outcome> {
        let sessions = Sessions {
            delivered,
            queued,
            ..Sessions::default()
        };
        let told = reports.arrived(number, &sessions, outcome::of(&sessions, false))?;
        Some(told.outcome)
    }

    fn later(reports: &mut Reports, number: u64, change: fn(&mut Sessions)) -> Option<Outcome> {
        let mut sessions = Sessions::default();
        change(&mut sessions);
        Some(reports.later(number, &sessions)?.outcome)
    }

    #[test]
    fn a_message_that_waits_in_sessions_is_followed_to_the_last_of_them() {
        let mut reports = Reports::new(10);
        let one = reports.follow(asked(1), None);
        assert_eq!(arrive(&mut reports, one, 0, 2), Some(Outcome::Queued));
        let sent = later(&mut reports, one, |s| s.delivered = 1);
        assert_eq!(sent, Some(Outcome::Delivered));
        let gone = later(&mut reports, one, |s| s.session_ended = 1);
        assert_eq!(gone, Some(Outcome::NoSession));
        assert_eq!(later(&mut reports, one, |s| s.delivered = 1), None);
        assert!(reports.followed.is_empty());
    }

    #[test]
    fn the_end_of_waiting_may_come_before_the_broker_says_that_it_waits() {
        let mut reports = Reports::new(10);
        let one = reports.follow(asked(1), None);
        let sent = later(&mut reports, one, |s| s.delivered = 1);
        assert_eq!(sent, Some(Outcome::Delivered));
        assert_eq!(arrive(&mut reports, one, 0, 1), Some(Outcome::Queued));
        assert!(reports.followed.is_empty(), "it is over all the same");
    }

    #[test]
    fn so_many_are_followed_while_they_wait_and_of_others_it_is_told_that_they_wait() {
        let mut reports = Reports::new(1);
        let one = reports.follow(asked(1), Some(Time(10)));
        assert_eq!(reports.waiting(one).map(|told| told.asked), Some(asked(1)));
        assert_eq!(arrive(&mut reports, one, 0, 1), Some(Outcome::Queued));
        let two = reports.follow(asked(2), None);
        assert_eq!(arrive(&mut reports, two, 0, 1), Some(Outcome::Queued));
        assert_eq!((reports.take_untold(), reports.take_untold()), (1, 0));
        assert_eq!(later(&mut reports, two, |s| s.delivered = 1), None);
        let three = reports.follow(asked(3), None);
        assert_eq!(arrive(&mut reports, three, 1, 0), Some(Outcome::Delivered));

        assert_eq!(reports.take_expired(Time(9)), []);
        let expired = [Told::of_none(asked(1), Outcome::Expired)];
        assert_eq!(reports.take_expired(Time(10)), expired);
        assert_eq!(
            later(&mut reports, one, |s| s.expired = 1),
            None,
            "told once"
        );
        let four = reports.follow(asked(4), None);
        assert_eq!(arrive(&mut reports, four, 0, 1), Some(Outcome::Queued));
        assert_eq!(
            (reports.waiting_in_sessions(), reports.take_untold()),
            (1, 0)
        );
        let ended = reports.follow(asked(5), None);
        let ended = reports.end(ended, Outcome::Expired).unwrap();
        assert_eq!((ended.outcome, ended.sessions), (Outcome::Expired, 0));
    }

    #[test]
    fn a_batch_waits_for_each_of_its_reports_and_one_without_any_for_nothing() {
        let mut reports = Reports::new(1);
        assert!(reports.batch_arrived(1));
        reports.sent(2);
        reports.sent(2);
        assert!(!reports.confirmed(2), "not all were sent yet");
        assert!(!reports.batch_arrived(2));
        assert!(reports.confirmed(2));
        assert!(!reports.confirmed(2), "a batch ends once");
        reports.sent(3);
        reports.rewind();
        assert!(!reports.confirmed(3), "of before a rewind");
    }

    #[test]
    fn after_going_back_what_is_read_again_is_not_followed_twice() {
        let mut reports = Reports::new(10);
        let queued = reports.follow(asked(1), None);
        arrive(&mut reports, queued, 0, 1);
        let on_its_way = reports.follow(asked(2), None);
        reports.rewind();
        assert_eq!(reports.waiting(on_its_way), None);
        let sent = later(&mut reports, queued, |s| s.delivered = 1);
        assert_eq!(sent, Some(Outcome::Delivered));
    }
}
