//! Dead letters: what stands in the headers of one, which of a topic are meant, and which were put back.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use envelope::dead_letter;
use envelope::replay::{ATTEMPTS, Origin};
use serde::Serialize;

use crate::line::Line;
use crate::moment::{Bounds, Moment};
use crate::plan::{Plan, Span};
use crate::source::{Next, Source};
use crate::{Error, Kafka};

/// What a topic's name gets for that of its dead letters, by default.
const SUFFIX: &str = ".dlq";
/// Where it stands which letters were put back: compacted, keyed by the letter's place.
pub(crate) const REDRIVEN_TOPIC: &str = "mill.redriven";
/// How long one look for records takes.
const LOOK: Duration = Duration::from_millis(100);

/// The place of a letter: partition and offset in its topic.
pub type Id = (i32, i64);

/// Reads the place of a letter, `PARTITION/OFFSET`.
///
/// # Errors
/// It is none.
pub fn id(text: &str) -> Result<Id, Error> {
    let parsed = text.split_once('/').and_then(|(partition, offset)| {
        let id: Id = (partition.parse().ok()?, offset.parse().ok()?);
        (id.0 >= 0 && id.1 >= 0).then_some(id)
    });
    parsed.ok_or_else(|| {
        Error::option(
            "--id",
            text,
            "PARTITION/OFFSET of a letter, for example 0/17",
        )
    })
}

/// What a dead letter says of itself.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Letter<'a> {
    /// The topic in which the record was.
    pub topic: &'a str,
    /// The partition in which it was.
    pub partition: i32,
    /// Its offset there; none of what Kafka never took.
    pub offset: Option<i64>,
    /// Who gave up: a consumer group, or a node.
    pub group: &'a str,
    /// The step that failed.
    pub stage: &'a str,
    /// The kind of fault, one word.
    pub class: &'a str,
    /// The fault in words.
    pub message: &'a str,
    /// How often it was put back before.
    pub attempts: u64,
    /// Its payload was too large for a letter.
    pub truncated: bool,
}

impl<'a> Letter<'a> {
    /// Reads the headers of a record; `None` when it is no dead letter.
    #[must_use]
    pub fn of(record: &Line<'a>) -> Option<Self> {
        let text = |name: &str| {
            let value = record.last_header(name);
            value.and_then(|value| std::str::from_utf8(value).ok())
        };
        let number = |name: &str| text(name).and_then(|text| text.parse::<i64>().ok());
        Some(Self {
            topic: text(dead_letter::ORIGINAL_TOPIC)?,
            partition: i32::try_from(number(dead_letter::ORIGINAL_PARTITION)?).ok()?,
            offset: number(dead_letter::ORIGINAL_OFFSET),
            group: text(dead_letter::CONNECTOR_NAME).unwrap_or_default(),
            stage: text(dead_letter::STAGE).unwrap_or_default(),
            class: text(dead_letter::EXCEPTION_CLASS).unwrap_or_default(),
            message: text(dead_letter::EXCEPTION_MESSAGE).unwrap_or_default(),
            attempts: number(ATTEMPTS).map_or(0, |attempts| attempts.unsigned_abs()),
            truncated: record.last_header(dead_letter::TRUNCATED).is_some(),
        })
    }
}

/// Which letters are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// With one of these kinds of fault; all, where there is none.
    pub classes: Vec<String>,
    /// At one of these places; everywhere, where there is none.
    pub ids: BTreeSet<Id>,
}

impl Wanted {
    /// Whether this letter is.
    #[must_use]
    pub fn takes(&self, record: &Line<'_>, letter: &Letter<'_>) -> bool {
        let by_class = self.classes.is_empty() || self.classes.iter().any(|c| c == letter.class);
        let by_id = self.ids.is_empty() || self.ids.contains(&(record.partition, record.offset));
        by_class && by_id
    }
}

/// The topics of dead letters, by name.
///
/// # Errors
/// Kafka does not answer.
pub fn topics(kafka: &Kafka) -> Result<Vec<String>, Error> {
    let known = kafka.topics(&kafka.consumer("millstream-dlq")?)?;
    let letters = known.into_keys().filter(|name| name.ends_with(SUFFIX));
    Ok(letters.collect())
}

/// Reads a topic from its beginning to where it ends now, partition by partition; `f` ends it with `false`.
///
/// # Errors
/// No such topic, Kafka fails, or what `f` says.
pub fn each(
    kafka: &Kafka,
    topic: &str,
    stop: &AtomicBool,
    mut f: impl FnMut(&Line<'_>) -> Result<bool, Error>,
) -> Result<(), Error> {
    let all = |moment| Bounds::parse("--from", &[], moment, i64::MAX);
    let (from, to) = (all(Moment::Earliest)?, all(Moment::Latest)?);
    let plan = Plan::resolve(kafka, &[topic.to_owned()], &from, &to, i64::MAX)?;
    let spans: Vec<(usize, &Span, i64)> = plan
        .spans
        .iter()
        .filter(|span| span.offsets() > 0)
        .enumerate()
        .map(|(number, span)| (number, span, span.first))
        .collect();
    if spans.is_empty() {
        return Ok(());
    }
    let source = Source::open(kafka, &spans)?;
    while !stop.load(Ordering::Relaxed) {
        match source.next(LOOK)? {
            Next::Record(_, message) => {
                if let Some(line) = Line::of(&message)
                    && !f(&line)?
                {
                    return Ok(());
                }
            }
            Next::Ended(_) | Next::Idle => {}
            Next::Done => return Ok(()),
        }
    }
    Err(Error::failed(
        format!("read {topic} to its end"),
        "it was stopped",
    ))
}

/// The letters of `topic` that were put back.
///
/// # Errors
/// Kafka does not answer.
pub fn redriven(kafka: &Kafka, topic: &str, stop: &AtomicBool) -> Result<HashSet<Id>, Error> {
    let mut ids = HashSet::new();
    let known = kafka.topics(&kafka.consumer("millstream-dlq")?)?;
    if !known.contains_key(REDRIVEN_TOPIC) {
        return Ok(ids);
    }
    each(kafka, REDRIVEN_TOPIC, stop, |record| {
        let place = record.key.and_then(Origin::parse);
        if let Some(place) = place.filter(|place| place.topic == topic) {
            ids.insert((place.partition, place.offset));
        }
        Ok(true)
    })?;
    Ok(ids)
}

/// The letters of a topic, counted.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    /// The topic of the letters.
    pub topic: String,
    /// All of them.
    pub letters: u64,
    /// Those that were put back.
    pub redriven: u64,
    /// By kind of fault and who gave up.
    pub by_fault: BTreeMap<String, u64>,
    /// When the oldest was written, in milliseconds since the Unix epoch.
    pub oldest_ms: Option<i64>,
    /// And the youngest.
    pub youngest_ms: Option<i64>,
    /// Records that are no dead letters.
    pub others: u64,
}

impl Summary {
    /// Counts what is in `topic`.
    ///
    /// # Errors
    /// No such topic, or Kafka fails.
    pub fn of(kafka: &Kafka, topic: &str, stop: &AtomicBool) -> Result<Self, Error> {
        let redriven = redriven(kafka, topic, stop)?;
        let mut summary = Self {
            topic: topic.to_owned(),
            ..Self::default()
        };
        each(kafka, topic, stop, |record| {
            let Some(letter) = Letter::of(record) else {
                summary.others += 1;
                return Ok(true);
            };
            summary.letters += 1;
            let is_redriven = redriven.contains(&(record.partition, record.offset));
            summary.redriven += u64::from(is_redriven);
            let fault = format!("{} ({})", letter.class, letter.group);
            *summary.by_fault.entry(fault).or_default() += 1;
            if let Some(ms) = record.timestamp_ms {
                let (oldest, youngest) = (&mut summary.oldest_ms, &mut summary.youngest_ms);
                *oldest = Some(oldest.map_or(ms, |oldest| oldest.min(ms)));
                *youngest = Some(youngest.map_or(ms, |youngest| youngest.max(ms)));
            }
            Ok(true)
        })?;
        Ok(summary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record<'a>(headers: &[(&'a str, &'a str)]) -> Line<'a> {
        Line {
            topic: "t.dlq",
            partition: 2,
            offset: 9,
            headers: headers
                .iter()
                .map(|&(name, value)| (name, Some(value.as_bytes())))
                .collect(),
            ..Line::default()
        }
    }

    #[test]
    fn a_letter_is_what_its_last_headers_say() {
        let headers = [
            (dead_letter::ORIGINAL_TOPIC, "t"),
            (dead_letter::ORIGINAL_PARTITION, "3"),
            (dead_letter::ORIGINAL_OFFSET, "41"),
            (dead_letter::EXCEPTION_CLASS, "NotJson"),
            (ATTEMPTS, "2"),
            // It failed once more.
            (dead_letter::ORIGINAL_OFFSET, "77"),
            (dead_letter::CONNECTOR_NAME, "chat"),
        ];
        let record = record(&headers);
        let letter = Letter::of(&record).unwrap();
        assert_eq!(
            (letter.topic, letter.partition, letter.offset),
            ("t", 3, Some(77))
        );
        assert_eq!((letter.class, letter.group), ("NotJson", "chat"));
        assert_eq!((letter.attempts, letter.truncated), (2, false));
    }

    #[test]
    fn what_has_no_origin_is_no_letter() {
        assert!(Letter::of(&record(&[])).is_none());
        assert!(Letter::of(&record(&[(dead_letter::ORIGINAL_TOPIC, "t")])).is_none());
    }

    #[test]
    fn letters_are_chosen_by_fault_and_place() {
        let headers = [
            (dead_letter::ORIGINAL_TOPIC, "t"),
            (dead_letter::ORIGINAL_PARTITION, "3"),
            (dead_letter::EXCEPTION_CLASS, "NotJson"),
        ];
        let record = record(&headers);
        let takes = |classes: &[&str], ids: &[Id]| {
            let wanted = Wanted {
                classes: classes.iter().map(|&class| class.to_owned()).collect(),
                ids: ids.iter().copied().collect(),
            };
            wanted.takes(&record, &Letter::of(&record).unwrap())
        };
        assert!(takes(&[], &[]));
        assert!(takes(&["BadName", "NotJson"], &[(2, 9), (0, 0)]));
        assert!(!takes(&["BadName"], &[]));
        assert!(!takes(&[], &[(9, 2)]));
    }

    #[test]
    fn a_place_is_partition_and_offset() {
        assert_eq!(id("0/17").unwrap(), (0, 17));
        for bad in ["", "17", "a/1", "1/", "-1/2", "1/-2", "1/2/3"] {
            assert!(id(bad).unwrap_err().to_string().contains("--id"), "{bad}");
        }
    }
}
