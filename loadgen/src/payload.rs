//! Payloads that no compression makes smaller, so that a measure with compression on measures no zeros.

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

    /// Overwrites `payload`: first the stamp as a big-endian number, as far as there is room, then noise.
    pub fn fill(&mut self, stamp: u64, payload: &mut [u8]) {
        for chunk in payload.chunks_mut(8) {
            let bytes = self.next_u64().to_be_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        if let Some(head) = payload.first_chunk_mut() {
            *head = stamp.to_be_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_value_is_as_likely_as_the_next() {
        let mut noise = Noise::new(1);
        let mut payload = [0; 203];
        let mut counts = [0_u32; 256];
        for stamp in 0..5_000 {
            noise.fill(stamp, &mut payload);
            assert_eq!(payload[..8], stamp.to_be_bytes());
            for byte in &payload[8..] {
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

    #[test]
    fn a_payload_shorter_than_a_stamp_is_noise() {
        let mut payload = [0; 5];
        Noise::new(3).fill(7, &mut payload);
        assert_ne!(payload, [0; 5]);
    }
}
