//! What a replay would do, counted: records by topic, partition and minute, samples, bytes.

use std::collections::{BTreeMap, VecDeque};

use crate::line::Line;
use crate::moment::timestamp;

/// First and last records that are shown.
const SAMPLES: usize = 3;
/// Characters of a sample that are shown.
const SAMPLE_CHARACTERS_MAX: usize = 300;
/// Rows that are counted apart; beyond it the minutes become hours, and the hours days.
const ROWS_MAX: usize = 5_000;

/// Counts records.
#[derive(Debug)]
pub struct Census {
    step_ms: i64,
    rows: BTreeMap<(String, i32, i64), u64>,
    records: u64,
    bytes: u64,
    first: Vec<String>,
    last: VecDeque<String>,
    youngest_ms: Option<i64>,
    oldest_ms: Option<i64>,
}

impl Default for Census {
    fn default() -> Self {
        Self {
            step_ms: 60_000,
            rows: BTreeMap::new(),
            records: 0,
            bytes: 0,
            first: Vec::new(),
            last: VecDeque::new(),
            youngest_ms: None,
            oldest_ms: None,
        }
    }
}

impl Census {
    pub(crate) fn count(&mut self, record: &Line<'_>) {
        self.records += 1;
        self.bytes += record.bytes() as u64;
        if let Some(ms) = record.timestamp_ms {
            self.youngest_ms = self.youngest_ms.max(Some(ms));
            self.oldest_ms = Some(self.oldest_ms.map_or(ms, |oldest| oldest.min(ms)));
        }
        let step = record.timestamp_ms.unwrap_or(0).div_euclid(self.step_ms) * self.step_ms;
        *self
            .rows
            .entry((record.topic.to_owned(), record.partition, step))
            .or_default() += 1;
        while self.rows.len() > ROWS_MAX && self.step_ms < 86_400_000 {
            self.step_ms = if self.step_ms < 3_600_000 {
                3_600_000
            } else {
                86_400_000
            };
            for ((topic, partition, ms), count) in std::mem::take(&mut self.rows) {
                let step = ms.div_euclid(self.step_ms) * self.step_ms;
                *self.rows.entry((topic, partition, step)).or_default() += count;
            }
        }
        if self.first.len() < SAMPLES {
            self.first.push(sample(record));
        } else {
            if self.last.len() == SAMPLES {
                self.last.pop_front();
            }
            self.last.push_back(sample(record));
        }
    }

    /// How long from the oldest record to the youngest, in milliseconds.
    #[must_use]
    pub fn recorded_ms(&self) -> u64 {
        match (self.oldest_ms, self.youngest_ms) {
            (Some(oldest), Some(youngest)) => u64::try_from(youngest - oldest).unwrap_or(0),
            _ => 0,
        }
    }

    /// Records counted.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The counts, the samples and the size, as text.
    #[must_use]
    pub fn text(&self) -> String {
        let per = match self.step_ms {
            60_000 => "minute",
            3_600_000 => "hour",
            _ => "day",
        };
        let width = self.rows.keys().map(|(topic, ..)| topic.len()).max();
        let width = width.unwrap_or(0).max(5);
        let mut text = format!("{:width$}  partition  {per:20}  records\n", "topic");
        for ((topic, partition, ms), count) in &self.rows {
            let time = timestamp(*ms);
            text += &format!("{topic:width$}  {partition:9}  {time:20}  {count:7}\n");
        }
        for (what, samples) in [
            ("first", self.first.iter().collect::<Vec<_>>()),
            ("last", self.last.iter().collect()),
        ] {
            for sample in samples {
                text += &format!("{what}: {sample}\n");
            }
        }
        text += &format!(
            "{} records, {} bytes of keys, values and headers\n",
            self.records, self.bytes
        );
        text
    }
}

fn sample(record: &Line<'_>) -> String {
    let json = serde_json::to_string(record).unwrap_or_default();
    let mut sample: String = json.chars().take(SAMPLE_CHARACTERS_MAX).collect();
    if sample.len() < json.len() {
        sample.push('…');
    }
    sample
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64, ms: i64) -> Line<'static> {
        Line {
            topic: "t",
            offset,
            timestamp_ms: Some(ms),
            value: Some(b"xyz"),
            ..Line::default()
        }
    }

    #[test]
    fn records_are_counted_by_minute_with_the_first_and_the_last() {
        let mut census = Census::default();
        for offset in 0..10 {
            census.count(&record(offset, offset * 20_000));
        }
        let text = census.text();
        for part in [
            "1970-01-01T00:00:00Z        3",
            "1970-01-01T00:03:00Z        1",
            "10 records, 30 bytes",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let samples: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("\"offset\""))
            .collect();
        assert_eq!(samples.len(), 6);
        assert!(samples[0].starts_with("first") && samples[0].contains("\"offset\":0"));
        assert!(samples[5].starts_with("last") && samples[5].contains("\"offset\":9"));
        assert_eq!(census.recorded_ms(), 180_000);
    }

    #[test]
    fn many_minutes_become_hours_so_that_memory_stays_bounded() {
        let mut census = Census::default();
        for minute in 0..6_000 {
            census.count(&record(minute, minute * 60_000));
        }
        assert_eq!((census.rows.len(), census.records()), (100, 6_000));
        assert_eq!(census.rows.values().sum::<u64>(), 6_000);
    }
}
