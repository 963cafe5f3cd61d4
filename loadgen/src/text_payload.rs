//! Payloads that are text, for example JSON: a template with the stamp in it, for brokers that hand them on to programs
//! which read them. It has to be as cheap as noise, so it is written into a buffer that is kept.

use std::io::Write as _;

use crate::payload::Noise;
use crate::stamp::{Stamp, TEXT_STAMP_BYTES};

/// A template of a payload, parsed once. `{stamp}`, which is in it exactly once, stands for the stamp as text, `{n}` for the
/// topic's number, `{publisher}` for the publisher's number in its group, `{value}` for a pseudo-random decimal number from
/// 0 to 100, and `{fill}` for text noise up to the payload's size.
///
/// A brace is the beginning of one of these only where a word and a closing brace follow, which is nowhere in a JSON object;
/// all other braces are text, and so `{"id":"{stamp}","at":{"n":{n}}}` needs no escapes. `{{` is a brace everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextPayload {
    parts: Vec<Part>,
    has_fill: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<[u8]>),
    Stamp,
    Topic,
    Publisher,
    Value,
    Fill,
}

/// The largest `{value}`, in hundredths.
const VALUE_MAX: u64 = 100 * 100;

/// What `{fill}` is made of: six random bits are a character, and none of them has a meaning in JSON.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 .";

/// Characters of [`ALPHABET`] that a random number is enough for.
const CHARACTERS_PER_NUMBER: usize = 10;

/// Why a text is no template of a payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextPayloadError {
    /// A word in braces that is none of the variables.
    #[error(
        "{{{0}}} is not known; allowed are {{stamp}}, {{n}}, {{publisher}}, {{value}} and {{fill}}, and {{{{ for a brace"
    )]
    Unknown(String),
    /// No stamp, or several.
    #[error("{{stamp}} has to be in it exactly once and is in it {0} times")]
    Stamps(usize),
    /// Several fills.
    #[error("{{fill}} may be in it once and is in it {0} times")]
    Fills(usize),
    /// A character that no text has.
    #[error("it has the control character {0:?} in it; allowed are tabs and line ends")]
    Control(char),
}

impl TextPayload {
    /// Parses a template.
    ///
    /// # Errors
    /// [`TextPayloadError`].
    pub fn parse(text: &str) -> Result<Self, TextPayloadError> {
        let control = |c: &char| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
        if let Some(c) = text.chars().find(control) {
            return Err(TextPayloadError::Control(c));
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            literal.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('{') {
                literal.push('{');
                rest = after;
                continue;
            }
            let Some(word) = word(rest) else {
                literal.push('{');
                continue;
            };
            rest = &rest[word.len() + 1..];
            let part = match word {
                "stamp" => Part::Stamp,
                "n" => Part::Topic,
                "publisher" => Part::Publisher,
                "value" => Part::Value,
                "fill" => Part::Fill,
                _ => return Err(TextPayloadError::Unknown(word.to_owned())),
            };
            push_text(&mut parts, &mut literal);
            parts.push(part);
        }
        literal.push_str(rest);
        push_text(&mut parts, &mut literal);

        let count = |wanted: &Part| parts.iter().filter(|part| *part == wanted).count();
        let (stamps, fills) = (count(&Part::Stamp), count(&Part::Fill));
        if stamps != 1 {
            return Err(TextPayloadError::Stamps(stamps));
        }
        if fills > 1 {
            return Err(TextPayloadError::Fills(fills));
        }
        Ok(Self {
            has_fill: fills == 1,
            parts,
        })
    }

    /// Whether its payloads are filled up to a size.
    #[must_use]
    pub fn has_fill(&self) -> bool {
        self.has_fill
    }

    /// The largest size of a payload without its fill, in bytes, for so many topics and publishers.
    #[must_use]
    pub fn bytes_max(&self, topics: u32, publishers: u32) -> usize {
        let longest = |part| longest(part, topics, publishers);
        self.parts.iter().map(longest).sum()
    }

    /// Where the stamp ends at most, in bytes from the beginning of a payload that is filled up to `bytes`.
    #[must_use]
    pub fn stamp_ends_at_most(&self, topics: u32, publishers: u32, bytes: usize) -> usize {
        let stamp = self.parts.iter().position(|part| *part == Part::Stamp);
        let (before, after) = self.parts.split_at(stamp.map_or(0, |at| at + 1));
        if before.contains(&Part::Fill) {
            return bytes.saturating_sub(after.iter().map(shortest).sum());
        }
        let longest = |part| longest(part, topics, publishers);
        before.iter().map(longest).sum()
    }

    /// Replaces what is in `into` by the payload of a message; `bytes` is its size if it is filled.
    pub fn render(
        &self,
        stamp: &Stamp,
        topic: u32,
        publisher: u32,
        bytes: usize,
        into: &mut Vec<u8>,
    ) {
        // The same message has the same payload, in every run with its numbers.
        let mut noise =
            Noise::new(stamp.due_ns ^ u64::from(stamp.lane) << 40 ^ u64::from(stamp.number) << 8);
        into.clear();
        let mut fill_at = None;
        for part in &self.parts {
            // Writing to a vector does not fail.
            match part {
                Part::Text(text) => into.extend_from_slice(text),
                Part::Stamp => into.extend_from_slice(&stamp.to_text()),
                Part::Topic => drop(write!(into, "{topic}")),
                Part::Publisher => drop(write!(into, "{publisher}")),
                Part::Value => {
                    let value = noise.below(VALUE_MAX + 1);
                    drop(write!(into, "{}.{:02}", value / 100, value % 100));
                }
                Part::Fill => fill_at = Some(into.len()),
            }
        }
        if let Some(at) = fill_at {
            let behind = into.len() - at;
            let wanted = bytes.saturating_sub(into.len());
            into.resize(into.len() + wanted, b' ');
            into.copy_within(at..at + behind, at + wanted);
            fill(&mut noise, &mut into[at..at + wanted]);
        }
    }
}

/// The word that a closing brace ends.
fn word(text: &str) -> Option<&str> {
    let end = text.find('}')?;
    let word = &text[..end];
    let in_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '%' | '/');
    (!word.is_empty() && word.chars().all(in_word)).then_some(word)
}

fn push_text(parts: &mut Vec<Part>, literal: &mut String) {
    if !literal.is_empty() {
        let text = std::mem::take(literal).into_bytes();
        parts.push(Part::Text(text.into_boxed_slice()));
    }
}

fn longest(part: &Part, topics: u32, publishers: u32) -> usize {
    let digits = |count: u32| count.saturating_sub(1).checked_ilog10().unwrap_or(0) as usize + 1;
    match part {
        Part::Text(text) => text.len(),
        Part::Stamp => TEXT_STAMP_BYTES,
        Part::Topic => digits(topics),
        Part::Publisher => digits(publishers),
        Part::Value => "100.00".len(),
        Part::Fill => 0,
    }
}

fn shortest(part: &Part) -> usize {
    match part {
        Part::Text(text) => text.len(),
        Part::Stamp => TEXT_STAMP_BYTES,
        Part::Topic | Part::Publisher => "0".len(),
        Part::Value => "0.00".len(),
        Part::Fill => 0,
    }
}

fn fill(noise: &mut Noise, into: &mut [u8]) {
    for chunk in into.chunks_mut(CHARACTERS_PER_NUMBER) {
        let mut bits = noise.next_u64();
        for byte in chunk {
            *byte = ALPHABET[(bits % 64) as usize];
            bits /= 64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        run: 7,
        stream: 1,
        lane: 12,
        number: 5,
        due_ns: 1_000_000_000,
    };

    fn rendered(text: &str, topic: u32, publisher: u32, bytes: usize) -> String {
        let mut into = b"old".to_vec();
        let payload = TextPayload::parse(text).unwrap();
        payload.render(&STAMP, topic, publisher, bytes, &mut into);
        assert_eq!(Stamp::read(&into), Some(STAMP));
        String::from_utf8(into).unwrap()
    }

    #[test]
    fn variables_are_put_in_and_other_braces_stay() {
        let stamp = String::from_utf8(STAMP.to_text().to_vec()).unwrap();
        for (text, wanted) in [
            ("{stamp}", stamp.clone()),
            (
                "{\"id\":\"{stamp}\",\"at\":{\"n\":{n},\"p\":{publisher}},\"none\":{}}",
                format!("{{\"id\":\"{stamp}\",\"at\":{{\"n\":71,\"p\":8}},\"none\":{{}}}}"),
            ),
            ("{{n}{{{n}{stamp}{", format!("{{n}}{{71{stamp}{{")),
            ("{ n}\n{stamp}}", format!("{{ n}}\n{stamp}}}")),
        ] {
            assert_eq!(rendered(text, 71, 8, 0), wanted);
        }
    }

    #[test]
    fn a_fill_makes_a_payload_as_large_as_it_has_to_be_wherever_it_is() {
        for text in [
            "{\"id\":\"{stamp}\",\"from\":\"w-{publisher}\",\"value\":{value},\"text\":\"{fill}\"}",
            "{\"text\":\"{fill}\",\"id\":\"{stamp}\",\"value\":{value}}",
        ] {
            for bytes in [120, 121, 129, 130, 131, 400] {
                let payload = rendered(text, 3, 99, bytes);
                assert_eq!(payload.len(), bytes, "{payload}");
                let json: serde_json::Value = serde_json::from_str(&payload).unwrap();
                assert!(json["text"].as_str().is_some_and(|text| !text.is_empty()));
                assert!(json["value"].is_number());
            }
        }
        assert!(!TextPayload::parse("{stamp}").unwrap().has_fill());
    }

    #[test]
    fn values_are_numbers_from_0_to_100_and_come_from_the_message() {
        let payload = TextPayload::parse("{\"value\":{value},\"stamp\":\"{stamp}\"}").unwrap();
        let mut values = Vec::new();
        let mut into = Vec::new();
        for number in 0..2_000 {
            let stamp = Stamp { number, ..STAMP };
            payload.render(&stamp, 0, 0, 0, &mut into);
            let json: serde_json::Value = serde_json::from_slice(&into).unwrap();
            values.push(json["value"].as_f64().unwrap());
            let before = into.clone();
            payload.render(&stamp, 0, 0, 0, &mut into);
            assert_eq!(into, before);
        }
        assert!(values.iter().all(|value| (0.0..=100.0).contains(value)));
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        assert!((45.0..55.0).contains(&mean), "{mean}");
        values.sort_by(f64::total_cmp);
        values.dedup();
        assert!(values.len() > 1_500, "{} different ones", values.len());
    }

    #[test]
    fn a_fill_has_all_characters_about_as_often() {
        let payload = TextPayload::parse("{stamp}{fill}").unwrap();
        let mut counts = [0_u32; 256];
        let mut into = Vec::new();
        for number in 0..1_000 {
            let stamp = Stamp { number, ..STAMP };
            payload.render(&stamp, 0, 0, TEXT_STAMP_BYTES + 128, &mut into);
            for byte in &into[TEXT_STAMP_BYTES..] {
                counts[usize::from(*byte)] += 1;
            }
        }
        for byte in ALPHABET {
            let count = counts[usize::from(*byte)];
            assert!((1_800..2_200).contains(&count), "{byte}: {count}");
        }
    }

    #[test]
    fn sizes_are_bounded_by_the_largest_numbers() {
        let payload = TextPayload::parse("{fill}{n}-{publisher}{stamp}{value}{n}").unwrap();
        assert_eq!(payload.bytes_max(1_000, 1), 3 + 1 + 1 + 35 + 6 + 3);
        assert_eq!(payload.bytes_max(1_001, 11), 4 + 1 + 2 + 35 + 6 + 4);
        assert_eq!(payload.stamp_ends_at_most(1_001, 11, 200), 200 - 4 - 1);
        let payload = TextPayload::parse("{n}{value}{stamp}{fill}").unwrap();
        assert_eq!(payload.stamp_ends_at_most(u32::MAX, 1, 200), 10 + 6 + 35);
        let mut into = Vec::new();
        for topic in [0, 9, 10, u32::MAX - 1] {
            payload.render(&STAMP, topic, 0, 0, &mut into);
            assert!(into.len() <= payload.bytes_max(topic + 1, 1));
        }
    }

    #[test]
    fn the_buffer_is_kept() {
        let payload = TextPayload::parse("{n}{fill}{stamp}").unwrap();
        let mut into = Vec::with_capacity(200);
        let at = into.as_ptr();
        for topic in [0, 4_000_000_000, 7] {
            payload.render(&STAMP, topic, 0, 200, &mut into);
            assert_eq!((into.len(), into.as_ptr()), (200, at));
        }
    }

    #[test]
    fn what_is_no_template_is_refused_with_what_is_allowed() {
        for (text, wanted) in [
            (
                "",
                "{stamp} has to be in it exactly once and is in it 0 times",
            ),
            ("{{stamp}", "is in it 0 times"),
            ("{stamp}{stamp}", "is in it 2 times"),
            (
                "{stamp}{fill}{fill}",
                "{fill} may be in it once and is in it 2 times",
            ),
            (
                "{stamp}{stmp}",
                "{stmp} is not known; allowed are {stamp}, {n},",
            ),
            ("{stamp}{n%10}", "{n%10} is not known"),
            ("{stamp}{N}", "{N} is not known"),
            ("{stamp}\0", "control character '\\0'"),
        ] {
            let error = TextPayload::parse(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
