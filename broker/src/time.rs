//! The broker's clock reading: milliseconds since the broker was made. Where it comes from is the caller's business
//! (a monotonic clock, or a test that owns time).

/// Milliseconds since the broker was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

impl Time {
    /// `ms` milliseconds later.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// `seconds` later.
    #[must_use]
    pub fn plus_s(self, seconds: u64) -> Self {
        self.plus_ms(seconds.saturating_mul(1_000))
    }

    /// Milliseconds from `earlier` to this time; 0 where `earlier` is later.
    #[must_use]
    pub fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
