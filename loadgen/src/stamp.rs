//! What every payload carries: which message this is, and when it was due. A damaged stamp is none: it must not pass for
//! another message.
//!
//! A payload of noise begins with the stamp in binary. A payload that is text has it somewhere as text, so that it can be
//! inside JSON, and so that whoever answers can send it back inside something else.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Marks a payload of this tool, together with [`mark`].
const MAGIC: u16 = 0x4D53;

/// Length of an encoded stamp, and so the smallest payload of a run, in bytes.
pub const STAMP_BYTES: usize = 24;

/// What a stamp as text begins with. Base64 has no `~`, so it is in no stamp, and JSON takes it as it is.
const TEXT_MARKER: &[u8] = b"ms~";

/// Length of a stamp as text, in bytes: the marker, and 24 bytes in base64 without padding.
pub const TEXT_STAMP_BYTES: usize = TEXT_MARKER.len() + STAMP_BYTES / 3 * 4;

/// A stamp as text is looked for in so many first bytes of a payload, and has to end within them.
pub const TEXT_STAMP_WITHIN_BYTES: usize = 512;

/// Streams have numbers below this. The third byte of a binary stamp is then smaller than any byte of a text, so that no
/// text passes for a binary stamp, as one in 65,536 would by its first two bytes.
pub const STREAMS_MAX: u16 = (b'\t' as u16) << 8;

const _: () = assert!(STAMP_BYTES.is_multiple_of(3));

/// Identifies a message of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The run, so that what an earlier one left behind in the broker is not counted.
    pub run: u32,
    /// The stream of the plan, below [`STREAMS_MAX`].
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

    /// The stamp as text: letters, digits, `-`, `_` and one `~`.
    #[must_use]
    pub fn to_text(&self) -> [u8; TEXT_STAMP_BYTES] {
        let mut binary = [0; STAMP_BYTES];
        self.write(&mut binary);
        let mut text = [0; TEXT_STAMP_BYTES];
        let (marker, rest) = text.split_at_mut(TEXT_MARKER.len());
        marker.copy_from_slice(TEXT_MARKER);
        let written = URL_SAFE_NO_PAD.encode_slice(binary, rest);
        debug_assert_eq!(written, Ok(rest.len()));
        text
    }

    /// Reads the stamp of a payload: the binary one that it begins with, or else the first one as text within
    /// [`TEXT_STAMP_WITHIN_BYTES`]. `None` when it has neither.
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<Self> {
        match payload.get(2) {
            Some(byte) if *byte < b'\t' => Self::read_binary(payload),
            _ => None,
        }
        .or_else(|| Self::read_text(payload))
    }

    fn read_text(payload: &[u8]) -> Option<Self> {
        let mut rest = &payload[..payload.len().min(TEXT_STAMP_WITHIN_BYTES)];
        while let Some(at) = rest.iter().position(|byte| *byte == TEXT_MARKER[0]) {
            rest = &rest[at..];
            let mut binary = [0; STAMP_BYTES];
            let text = rest.strip_prefix(TEXT_MARKER);
            let decoded = text
                .and_then(|text| text.get(..TEXT_STAMP_BYTES - TEXT_MARKER.len()))
                .map(|text| URL_SAFE_NO_PAD.decode_slice(text, &mut binary));
            if decoded == Some(Ok(STAMP_BYTES))
                && let Some(stamp) = Self::read_binary(&binary)
            {
                return Some(stamp);
            }
            rest = &rest[1..];
        }
        None
    }

    fn read_binary(payload: &[u8]) -> Option<Self> {
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
            stream: STREAMS_MAX - 1,
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
        assert_eq!(Stamp::read(b""), None);
        assert_eq!(Stamp::read(b"ms~"), None);
        assert_eq!(Stamp::read(&[b'm'; 600]), None);
        assert_eq!(Stamp::read("ms~".repeat(200).as_bytes()), None);
    }

    const STAMP: Stamp = Stamp {
        run: u32::MAX,
        stream: 3,
        lane: 0,
        number: 0x00FF_10FE,
        due_ns: 1_234_567_890_123,
    };

    /// A text with the stamp behind so many bytes.
    fn behind(bytes: usize) -> Vec<u8> {
        [&vec![b'm'; bytes][..], &STAMP.to_text(), b"\"}"].concat()
    }

    #[test]
    fn a_stamp_in_a_text_is_read() {
        let text = String::from_utf8(STAMP.to_text().to_vec()).unwrap();
        assert_eq!((text.len(), &text[..3]), (35, "ms~"));
        let quoted = format!("\"{text}\"");
        let read: String = serde_json::from_str(&quoted).unwrap();
        assert_eq!(read, text, "JSON needs no escapes");
        for payload in [
            text.clone(),
            format!("{{\"room\":\"lobby\",\"id\":{quoted},\"seq\":7}}"),
            format!("ms~ is no stamp, mms~ neither; this is: ms~{text}"),
        ] {
            assert_eq!(Stamp::read(payload.as_bytes()), Some(STAMP), "{payload}");
        }
    }

    #[test]
    fn a_text_that_begins_like_a_binary_stamp_is_none() {
        let like = |number: &u32| {
            let text = format!("{{\"number\":\"{number:013}");
            let bytes = text.as_bytes();
            bytes.len() == STAMP_BYTES && bytes[..2] == mark(&bytes[2..]).to_be_bytes()
        };
        let number = (0..10_000_000).find(like).unwrap();
        let text = format!(
            "{{\"number\":\"{number:013}{}",
            String::from_utf8_lossy(&STAMP.to_text())
        );
        assert!(Stamp::read_binary(text.as_bytes()).is_some());
        assert_eq!(Stamp::read(text.as_bytes()), Some(STAMP));
    }

    #[test]
    fn a_stamp_in_a_text_has_to_end_within_the_bound() {
        let last = TEXT_STAMP_WITHIN_BYTES - TEXT_STAMP_BYTES;
        assert_eq!(Stamp::read(&behind(last)), Some(STAMP));
        assert_eq!(Stamp::read(&behind(last + 1)), None);
    }

    #[test]
    fn a_stamp_in_a_text_with_a_wrong_byte_is_none() {
        let text = STAMP.to_text();
        for at in 0..text.len() {
            for byte in (0..=u8::MAX).filter(|byte| *byte != text[at]) {
                let mut damaged = text;
                damaged[at] = byte;
                assert_eq!(Stamp::read(&damaged), None, "{byte} at {at}");
            }
            assert_eq!(Stamp::read(&text[..at]), None, "cut at {at}");
        }
    }
}
