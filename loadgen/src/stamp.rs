//! The first bytes of every payload: which message this is, and when it was due. A damaged stamp is none: it must not pass
//! for another message.

/// Marks a payload of this tool, together with [`mark`].
const MAGIC: u16 = 0x4D53;

/// Length of an encoded stamp, and so the smallest payload of a run, in bytes.
pub const STAMP_BYTES: usize = 24;

/// Identifies a message of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The run, so that what an earlier one left behind in the broker is not counted.
    pub run: u32,
    /// The stream of the plan.
    pub stream: u16,
    /// The lane of the stream: one publisher and one topic. Order is promised within it.
    pub lane: u32,
    /// The number of the message in its lane, from 0 without a gap.
    pub number: u32,
    /// When the schedule wanted it sent, in nanoseconds of [`crate::clock`].
    pub due_ns: u64,
}

impl Stamp {
    /// Writes the stamp to the beginning of `payload`.
    ///
    /// # Panics
    /// When `payload` is shorter than [`STAMP_BYTES`].
    pub fn write(&self, payload: &mut [u8]) {
        payload[2..4].copy_from_slice(&self.stream.to_be_bytes());
        payload[4..8].copy_from_slice(&self.run.to_be_bytes());
        payload[8..12].copy_from_slice(&self.lane.to_be_bytes());
        payload[12..16].copy_from_slice(&self.number.to_be_bytes());
        payload[16..24].copy_from_slice(&self.due_ns.to_be_bytes());
        let mark = mark(&payload[2..STAMP_BYTES]);
        payload[..2].copy_from_slice(&mark.to_be_bytes());
    }

    /// Reads the stamp of a payload; `None` when it has none.
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<Self> {
        let bytes: &[u8; STAMP_BYTES] = payload.first_chunk()?;
        let u16_at = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| (u32::from(u16_at(at)) << 16) | u32::from(u16_at(at + 2));
        (u16_at(0) == mark(&bytes[2..])).then(|| Self {
            stream: u16_at(2),
            run: u32_at(4),
            lane: u32_at(8),
            number: u32_at(12),
            due_ns: (u64::from(u32_at(16)) << 32) | u64::from(u32_at(20)),
        })
    }
}

/// The first two bytes of a stamp, by the others: each bit of them changes one of these.
fn mark(rest: &[u8]) -> u16 {
    rest.chunks_exact(2).fold(MAGIC, |mark, pair| {
        mark.rotate_left(1) ^ u16::from_be_bytes([pair[0], pair[1]])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let stamp = Stamp {
            run: 0x0102_0304,
            stream: 0xA0B,
            lane: 0xFFFF_FFFE,
            number: 7,
            due_ns: u64::MAX - 5,
        };
        let mut payload = [0xEE; STAMP_BYTES + 1];
        stamp.write(&mut payload);
        assert_eq!(Stamp::read(&payload), Some(stamp));
        assert_eq!(payload[STAMP_BYTES], 0xEE);
    }

    #[test]
    fn a_stamp_with_a_wrong_bit_is_none() {
        let stamp = Stamp {
            run: 7,
            stream: 0,
            lane: 3,
            number: 1_000,
            due_ns: 1_234_567_890_123,
        };
        let mut payload = [0; STAMP_BYTES];
        stamp.write(&mut payload);
        for bit in 0..STAMP_BYTES * 8 {
            let mut damaged = payload;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Stamp::read(&damaged), None, "bit {bit}");
        }
    }

    #[test]
    fn other_payloads_have_none() {
        assert_eq!(Stamp::read(&[0; 200]), None);
        assert_eq!(Stamp::read(&MAGIC.to_be_bytes()), None);
    }
}
