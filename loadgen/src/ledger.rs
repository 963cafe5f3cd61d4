//! What became of every message that was sent.

use std::collections::BTreeMap;

use codec::ReasonCode;
use serde::Serialize;

/// Counts of messages with QoS 1. Each is counted when it is sent and once more when its fate is known; what has no fate
/// at the end is counted by whoever kept track of it, so that the sum can be wrong and is checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// Messages handed to a connection.
    pub sent: u64,
    /// Messages that the broker answered for.
    pub acknowledged: u64,
    /// Messages that the broker refused, by the name of the reason.
    pub refused: BTreeMap<String, u64>,
    /// Messages that were sent and neither acknowledged nor refused when the measure ended.
    pub unanswered: u64,
    /// Answers that belong to no message.
    pub unasked: u64,
}

impl Ledger {
    /// Counts an answer.
    pub fn answer(&mut self, reason: ReasonCode) {
        // No matching subscribers is a success too (3.4.2.1).
        if reason.0 < 0x80 {
            self.acknowledged += 1;
        } else {
            *self.refused.entry(reason.to_string()).or_default() += 1;
        }
    }

    /// Whether every message has exactly one fate.
    #[must_use]
    pub fn balances(&self) -> bool {
        let refused: u64 = self.refused.values().sum();
        self.unasked == 0 && self.sent == self.acknowledged + refused + self.unanswered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_balances_only_when_every_message_has_one_fate() {
        let mut ledger = Ledger {
            sent: 4,
            ..Ledger::default()
        };
        ledger.answer(ReasonCode::SUCCESS);
        ledger.answer(ReasonCode::NO_MATCHING_SUBSCRIBERS);
        ledger.answer(ReasonCode::QUOTA_EXCEEDED);
        assert!(!ledger.balances());
        ledger.unanswered = 1;
        assert!(ledger.balances());
        assert_eq!(ledger.acknowledged, 2);
        ledger.unasked = 1;
        assert!(!ledger.balances());
    }
}
