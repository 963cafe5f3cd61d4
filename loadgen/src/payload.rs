//! Payloads: a stamp, and behind it noise that follows from the stamp. No compression makes it smaller, so that a measure
//! with compression on measures no zeros, and whoever gets it knows every byte of it without having kept one.

use crate::stamp::{STAMP_BYTES, Stamp};

/// The noise behind one stamp: a number for each eight bytes. A counter that starts at a hash of the stamp is multiplied
/// with itself and folded: the products do not wait for each other, so that 200 bytes are written in 31 ns and checked in
/// 22. (Slices of a table would take 5, and come again within a batch of messages, where a compression finds them.)
#[derive(Debug)]
struct Filling(u64);

/// Odd, with as many ones as zeros: what the counter goes on by.
const STEP: u64 = 0xA24B_AED4_963E_E407;

/// What tells the factors apart.
const OTHER: u64 = 0x9FB2_1C65_1E98_DF25;

fn folded(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

impl Filling {
    /// What belongs behind the stamp at the beginning of a payload.
    fn of(stamp: &[u8; STAMP_BYTES]) -> Self {
        let (words, _) = stamp.as_chunks::<8>();
        Self(words.iter().fold(STEP, |hash, word| {
            folded(hash ^ u64::from_le_bytes(*word), OTHER).wrapping_add(STEP)
        }))
    }

    fn next(&mut self) -> [u8; 8] {
        self.0 = self.0.wrapping_add(STEP);
        folded(self.0, self.0 ^ OTHER).to_le_bytes()
    }
}

/// Writes the stamp and what belongs behind it over a whole payload.
///
/// # Panics
/// When `payload` is shorter than [`STAMP_BYTES`].
pub fn write(stamp: &Stamp, payload: &mut [u8]) {
    stamp.write(payload);
    let Some((head, body)) = payload.split_first_chunk_mut() else {
        return;
    };
    let mut filling = Filling::of(head);
    let (words, rest) = body.as_chunks_mut::<8>();
    for word in words {
        *word = filling.next();
    }
    let last = filling.next();
    rest.copy_from_slice(&last[..rest.len()]);
}

/// What a payload is besides its stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// It does not begin with a stamp, so nothing is known of what it had to be.
    Unknown,
    /// Behind the stamp are the bytes that belong to it. So long is the whole payload, which the plan knows as well.
    Intact(u32),
    /// Behind the stamp are other bytes.
    Damaged,
}

impl Body {
    /// Of a payload from which this stamp was read.
    #[must_use]
    pub fn of(stamp: Option<&Stamp>, payload: &[u8]) -> Self {
        let begins =
            |stamp: &Stamp| payload.get(16..STAMP_BYTES) == Some(&stamp.due_ns.to_be_bytes());
        match stamp {
            Some(stamp) if begins(stamp) && is_intact(payload) => {
                Self::Intact(payload.len() as u32)
            }
            Some(stamp) if begins(stamp) => Self::Damaged,
            _ => Self::Unknown,
        }
    }
}

/// Whether the bytes behind a stamp are those that belong to it.
fn is_intact(payload: &[u8]) -> bool {
    let Some((head, body)) = payload.split_first_chunk() else {
        return false;
    };
    let mut filling = Filling::of(head);
    let (words, rest) = body.as_chunks::<8>();
    let differ = words.iter().fold(0, |differ, word| {
        differ | (u64::from_le_bytes(*word) ^ u64::from_le_bytes(filling.next()))
    });
    differ == 0 && rest == &filling.next()[..rest.len()]
}

/// An endless stream of pseudo-random bytes (xorshift64*): the same for the same seed, and cheap.
#[derive(Debug, Clone)]
pub struct Noise(u64);

impl Noise {
    /// A stream of its own for each `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // A state of zero would stay there; the constant spreads small seeds over all bits.
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound` (at least 1).
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.next_u64()) * u128::from(bound.max(1));
        (wide >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(number: u32) -> Stamp {
        Stamp {
            run: 7,
            stream: 0,
            lane: 3,
            number,
            due_ns: 1_000_000 * u64::from(number),
        }
    }

    #[test]
    fn every_byte_value_is_as_likely_as_the_next() {
        let mut payload = [0; STAMP_BYTES + 195];
        let mut counts = [0_u32; 256];
        for number in 0..5_000 {
            write(&stamp(number), &mut payload);
            assert_eq!(Stamp::read(&payload), Some(stamp(number)));
            for byte in &payload[STAMP_BYTES..] {
                counts[usize::from(*byte)] += 1;
            }
        }
        let mean = 5_000 * 195 / 256;
        for (byte, count) in counts.iter().enumerate() {
            assert!(
                count.abs_diff(mean) < mean / 10,
                "byte {byte} came {count} times"
            );
        }
    }

    /// A batch of messages has nothing twice that a compression could refer to.
    #[test]
    fn no_four_bytes_come_again_more_often_than_by_chance() {
        let mut seen = std::collections::HashSet::new();
        let mut again = 0;
        let mut payload = [0; STAMP_BYTES + 176];
        for number in 0..1_000 {
            write(&stamp(number), &mut payload);
            for four in payload[STAMP_BYTES..].windows(4) {
                again += u32::from(!seen.insert(<[u8; 4]>::try_from(four).unwrap()));
            }
        }
        // 173,000 draws of 4,294,967,296: 3.5 on average.
        assert!(again < 20, "{again}");
    }

    #[test]
    fn each_wrong_bit_and_each_exchange_is_noticed() {
        for len in [STAMP_BYTES, STAMP_BYTES + 1, STAMP_BYTES + 8, 61, 200] {
            let mut payload = vec![0; len];
            write(&stamp(9), &mut payload);
            assert!(is_intact(&payload), "{len}");
            for bit in STAMP_BYTES * 8..len * 8 {
                let mut damaged = payload.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(!is_intact(&damaged), "{len}: bit {bit}");
            }
        }
        let mut payloads = [[0; 40], [0; 40]];
        for (number, payload) in (0..).zip(&mut payloads) {
            write(&stamp(number), payload);
        }
        let [mut one, other] = payloads;
        one[STAMP_BYTES..].copy_from_slice(&other[STAMP_BYTES..]);
        assert!(!is_intact(&one), "behind another message's stamp");
        assert!(!is_intact(&other[..STAMP_BYTES - 1]), "no room for a stamp");
    }

    #[test]
    fn numbers_stay_below_their_bound_and_reach_it() {
        let mut noise = Noise::new(2);
        let mut seen = [false; 10];
        for _ in 0..1_000 {
            seen[noise.below(10) as usize] = true;
        }
        assert_eq!(seen, [true; 10]);
        assert_eq!(noise.below(0), 0);
    }
}
