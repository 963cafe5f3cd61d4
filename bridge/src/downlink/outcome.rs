//! What became of a record of the downlink topic, in one word: how far it came with the session with which it came
//! furthest.

use std::sync::atomic::{AtomicU64, Ordering};

use broker::Outcome;

use crate::status::{DownlinkOutcome, DownlinkOutcomes};

/// The word for a message that the broker has dealt with.
pub(super) fn of(outcome: &Outcome, retain: bool) -> DownlinkOutcome {
    let furthest_first = [
        (outcome.delivered, DownlinkOutcome::Delivered),
        (outcome.queued, DownlinkOutcome::Queued),
        (outcome.queue_full, DownlinkOutcome::QueueFull),
        (outcome.outbox_full, DownlinkOutcome::OutboxFull),
        (outcome.memory, DownlinkOutcome::Memory),
        (outcome.too_large, DownlinkOutcome::TooLarge),
        (outcome.offline, DownlinkOutcome::Offline),
        (outcome.withheld, DownlinkOutcome::Withheld),
        (outcome.expired, DownlinkOutcome::Expired),
    ];
    furthest_first
        .into_iter()
        .find(|(sessions, _)| *sessions > 0)
        .map_or(
            if retain {
                DownlinkOutcome::Retained
            } else {
                DownlinkOutcome::NoSession
            },
            |(_, word)| word,
        )
}

/// For how many sessions it came to that.
pub(super) fn sessions(outcome: &Outcome, word: DownlinkOutcome) -> u32 {
    match word {
        DownlinkOutcome::Delivered => outcome.delivered,
        DownlinkOutcome::Queued => outcome.queued,
        DownlinkOutcome::QueueFull => outcome.queue_full,
        DownlinkOutcome::OutboxFull => outcome.outbox_full,
        DownlinkOutcome::Memory => outcome.memory,
        DownlinkOutcome::TooLarge => outcome.too_large,
        DownlinkOutcome::Offline => outcome.offline,
        DownlinkOutcome::Withheld => outcome.withheld,
        DownlinkOutcome::Expired => outcome.expired,
        DownlinkOutcome::Retained
        | DownlinkOutcome::NoSession
        | DownlinkOutcome::NoRoom
        | DownlinkOutcome::Malformed => 0,
    }
}

/// The counters behind [`DownlinkOutcomes`].
#[derive(Debug, Default)]
pub(super) struct Counts([AtomicU64; DownlinkOutcome::ALL.len()]);

impl Counts {
    pub(super) fn count(&self, outcome: DownlinkOutcome) {
        self.0[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> DownlinkOutcomes {
        DownlinkOutcomes(self.0.each_ref().map(|count| count.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_with_which_it_came_furthest_gives_the_word() {
        let none = Outcome::default();
        let cases = [
            (none, DownlinkOutcome::NoSession),
            (
                Outcome {
                    session_ended: 2,
                    ..none
                },
                DownlinkOutcome::NoSession,
            ),
            (
                Outcome {
                    delivered: 1,
                    queued: 7,
                    too_large: 3,
                    ..none
                },
                DownlinkOutcome::Delivered,
            ),
            (
                Outcome {
                    queued: 1,
                    queue_full: 4,
                    offline: 9,
                    ..none
                },
                DownlinkOutcome::Queued,
            ),
            (
                Outcome {
                    offline: 1,
                    withheld: 1,
                    ..none
                },
                DownlinkOutcome::Offline,
            ),
            (Outcome { expired: 1, ..none }, DownlinkOutcome::Expired),
        ];
        for (outcome, word) in cases {
            assert_eq!(of(&outcome, false), word, "{outcome:?}");
        }
        assert_eq!(of(&none, true), DownlinkOutcome::Retained);
        let some = Outcome {
            queued: 7,
            queue_full: 4,
            ..none
        };
        assert_eq!(sessions(&some, DownlinkOutcome::Queued), 7);
        assert_eq!(sessions(&some, DownlinkOutcome::NoSession), 0);
    }

    #[test]
    fn each_word_has_a_count_of_its_own() {
        let counts = Counts::default();
        for (n, outcome) in (1..).zip(DownlinkOutcome::ALL) {
            for _ in 0..n {
                counts.count(outcome);
            }
        }
        let read = counts.read();
        for (n, outcome) in (1..).zip(DownlinkOutcome::ALL) {
            assert_eq!(read.of(outcome), n, "{outcome:?}");
        }
    }
}
