//! How much a client may take from its connection that shall read slowly.

use crate::clock::Nanos;

const SECOND: Nanos = 1_000_000_000;

/// What a client may read by now: as much as its rate gave since it began, less what it has read. What it does not read is
/// kept for it for a second and no longer, so that no burst comes later than that.
#[derive(Debug)]
pub(crate) struct Allowance {
    bytes_per_second: u64,
    since: Nanos,
    /// In parts of 1 to 1,000,000,000 of a byte; negative after a read of more than there was.
    credit: i128,
}

impl Allowance {
    /// Nothing yet.
    pub(crate) fn new(bytes_per_second: u32, now: Nanos) -> Self {
        Self {
            bytes_per_second: bytes_per_second.into(),
            since: now,
            credit: 0,
        }
    }

    /// Bytes that may be read now.
    pub(crate) fn bytes(&mut self, now: Nanos) -> usize {
        let elapsed = now.saturating_sub(self.since);
        self.since = self.since.max(now);
        let rate = i128::from(self.bytes_per_second);
        let credit = self.credit + i128::from(elapsed) * rate;
        self.credit = credit.min(rate * i128::from(SECOND));
        usize::try_from(self.credit / i128::from(SECOND)).unwrap_or(0)
    }

    /// So many were read, also more than [`Allowance::bytes`] said: they are waited for before the next ones.
    pub(crate) fn took(&mut self, bytes: usize) {
        self.credit -= bytes as i128 * i128::from(SECOND);
    }

    /// When the next byte may be read, if ever.
    pub(crate) fn next_at(&self) -> Option<Nanos> {
        let lacks = i128::from(SECOND) - self.credit;
        let rate = i128::from(self.bytes_per_second);
        if lacks <= 0 {
            return Some(self.since);
        }
        let wait = lacks.checked_div(rate)? + 1;
        Some(
            self.since
                .saturating_add(Nanos::try_from(wait).unwrap_or(Nanos::MAX)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_read_than_the_rate_gives() {
        let mut allowance = Allowance::new(1_000, 5 * SECOND);
        assert_eq!(allowance.bytes(5 * SECOND), 0);
        let mut read = 0;
        // In steps that give no whole bytes.
        for step in 1..=30_000 {
            let bytes = allowance.bytes(5 * SECOND + step * 333_333);
            allowance.took(bytes);
            read += bytes;
        }
        assert_eq!(read, 9_999);
        assert_eq!(allowance.bytes(100 * SECOND), 1_000, "a second's at most");
    }

    #[test]
    fn a_debt_is_paid_before_the_next_byte() {
        let mut allowance = Allowance::new(10, 0);
        assert_eq!(allowance.next_at(), Some(SECOND / 10 + 1));
        assert_eq!(allowance.bytes(SECOND), 10);
        allowance.took(25);
        assert_eq!(allowance.bytes(2 * SECOND), 0);
        let next = allowance.next_at().unwrap();
        assert!((26 * SECOND / 10..=26 * SECOND / 10 + 1).contains(&next));
        assert_eq!(allowance.bytes(next), 1);
    }

    #[test]
    fn who_reads_nothing_never_may() {
        let mut allowance = Allowance::new(0, 0);
        assert_eq!(allowance.bytes(1_000_000 * SECOND), 0);
        assert_eq!(allowance.next_at(), None);
    }
}
