//! What one address may cost: so many attempts may be under way or have failed, and failures are forgotten at a rate.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a full table is searched for addresses that are forgiven.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// Token buckets by address; an IPv6 address counts as its /64, which is what one customer has.
#[derive(Debug)]
pub struct Attempts {
    burst: f64,
    per_second: f64,
    addresses_max: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    buckets: HashMap<u128, Bucket>,
    /// The one of all addresses that the table has no room for.
    others: Option<Bucket>,
    swept: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Attempts {
    /// `burst` attempts at once, of which `per_minute` come back; for up to `addresses_max` addresses of their own.
    #[must_use]
    pub fn new(burst: u32, per_minute: u32, addresses_max: u32) -> Self {
        Self {
            burst: f64::from(burst.max(1)),
            per_second: f64::from(per_minute) / 60.0,
            addresses_max: addresses_max as usize,
            table: Mutex::default(),
        }
    }

    /// Takes an attempt; false when there is none left.
    pub fn take(&self, address: IpAddr) -> bool {
        self.take_at(address, Instant::now())
    }

    /// An attempt went well.
    pub fn give_back(&self, address: IpAddr) {
        self.give_back_at(address, Instant::now());
    }

    fn take_at(&self, address: IpAddr, now: Instant) -> bool {
        self.with_bucket(address, now, |left| {
            let has = *left >= 1.0;
            *left -= f64::from(u8::from(has));
            has
        })
    }

    fn give_back_at(&self, address: IpAddr, now: Instant) {
        self.with_bucket(address, now, |left| *left += 1.0);
    }

    fn with_bucket<T>(&self, address: IpAddr, now: Instant, what: impl FnOnce(&mut f64) -> T) -> T {
        let key = key(address);
        let fresh = Bucket {
            left: self.burst,
            at: now,
        };
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let table = &mut *table;
        let is_due = |at: Instant| now.saturating_duration_since(at) >= SWEEP_PAUSE;
        if table.buckets.len() >= self.addresses_max
            && !table.buckets.contains_key(&key)
            && table.swept.is_none_or(is_due)
        {
            table.swept = Some(now);
            table
                .buckets
                .retain(|_, bucket| self.refilled(bucket, now) < self.burst);
        }
        let has_room = table.buckets.len() < self.addresses_max;
        let bucket = if has_room || table.buckets.contains_key(&key) {
            table.buckets.entry(key).or_insert(fresh)
        } else {
            table.others.get_or_insert(fresh)
        };
        bucket.left = self.refilled(bucket, now);
        bucket.at = now;
        let answer = what(&mut bucket.left);
        bucket.left = bucket.left.min(self.burst);
        if has_room && bucket.left >= self.burst {
            table.buckets.remove(&key); // nothing to remember
        }
        answer
    }

    fn refilled(&self, bucket: &Bucket, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        (bucket.left + passed * self.per_second).min(self.burst)
    }
}

fn key(address: IpAddr) -> u128 {
    match address.to_canonical() {
        // Beside the /64s, whose lower half is zero.
        IpAddr::V4(address) => u128::from(address.to_bits()) | 1 << 63,
        IpAddr::V6(address) => address.to_bits() >> 64 << 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn attempts_run_out_and_come_back_at_their_rate() {
        let attempts = Attempts::new(2, 60, 16);
        let (now, a) = (Instant::now(), address("192.0.2.1"));
        let after = |ms| now + Duration::from_millis(ms);
        assert!(attempts.take_at(a, now) && attempts.take_at(a, now));
        assert!(!attempts.take_at(a, after(900)));
        assert!(attempts.take_at(a, after(1_100)));
        assert!(!attempts.take_at(a, after(1_200)));
        assert!(attempts.take_at(address("192.0.2.2"), after(1_200)));
        attempts.give_back_at(a, after(1_200));
        assert!(attempts.take_at(a, after(1_200)));
    }

    #[test]
    fn a_slash_64_is_one_and_a_mapped_address_is_the_old_one() {
        let attempts = Attempts::new(1, 1, 16);
        let now = Instant::now();
        assert!(attempts.take_at(address("2001:db8:0:1::1"), now));
        assert!(!attempts.take_at(address("2001:db8:0:1:ffff::2"), now));
        assert!(attempts.take_at(address("2001:db8:0:2::1"), now));
        assert!(attempts.take_at(address("192.0.2.1"), now));
        assert!(!attempts.take_at(address("::ffff:192.0.2.1"), now));
    }

    #[test]
    fn the_table_is_bounded_and_those_beyond_it_share_one_bucket() {
        let attempts = Attempts::new(1, 60, 100);
        let now = Instant::now();
        let nth = |n: u32| IpAddr::from((0x0a00_0000 + n).to_be_bytes());
        let taken = (0..10_000)
            .filter(|n| attempts.take_at(nth(*n), now))
            .count();
        assert_eq!(taken, 101);
        assert_eq!(attempts.table.lock().unwrap().buckets.len(), 100);
        assert!(!attempts.take_at(nth(5), now), "it is remembered");
        // Who is forgiven makes room.
        let later = now + Duration::from_secs(2);
        assert!(attempts.take_at(nth(20_000), later) && attempts.take_at(nth(20_001), later));
        assert!(attempts.table.lock().unwrap().buckets.len() <= 100);
        // Who succeeds leaves nothing behind.
        let attempts = Attempts::new(1, 60, 100);
        for n in 0..1_000 {
            assert!(attempts.take_at(nth(n), now));
            attempts.give_back_at(nth(n), now);
        }
        assert!(attempts.table.lock().unwrap().buckets.is_empty());
    }
}
