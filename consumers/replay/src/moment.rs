//! Where a replay begins and ends, as operators say it: `earliest`, `latest`, an offset, a time, or a time ago.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Error;

/// What a value of `--from` and `--to` may be.
const ALLOWED: &str = "earliest, latest, an offset (1200), a time (2026-11-27T10:00:00Z), a time ago (-15m, -2h30m, -7d), \
                       or one of these for one partition (3:1200)";

/// A place in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Moment {
    /// The oldest record that is still there.
    Earliest,
    /// After the youngest record.
    Latest,
    /// An offset.
    Offset(i64),
    /// The first record of this time or later, in milliseconds since the Unix epoch.
    Time(i64),
}

impl Moment {
    fn parse(text: &str, now_ms: i64) -> Option<Self> {
        match text {
            "earliest" => return Some(Self::Earliest),
            "latest" => return Some(Self::Latest),
            _ => {}
        }
        if let Some(ago) = text.strip_prefix('-') {
            return Some(Self::Time(now_ms.checked_sub(duration_ms(ago)?)?));
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().ok().map(Self::Offset);
        }
        let time: Timestamp = text.parse().ok()?;
        Some(Self::Time(time.as_millisecond()))
    }
}

/// `2h30m` in milliseconds: whole numbers, each with one of the units ms, s, m, h, d.
fn duration_ms(text: &str) -> Option<i64> {
    let mut total = 0i64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        rest = &rest[end..];
        total = total.checked_add(number.checked_mul(unit)?)?;
    }
    (!text.is_empty()).then_some(total)
}

/// One end of a replay: a moment for all partitions, and other ones for some.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    option: String,
    all: Moment,
    partitions: BTreeMap<i32, Moment>,
}

impl Bounds {
    /// Reads the values of `option`; without one for all partitions it is `default`.
    ///
    /// # Errors
    /// Names the value that is none, and what is.
    pub fn parse(
        option: &'static str,
        values: &[String],
        default: Moment,
        now_ms: i64,
    ) -> Result<Self, Error> {
        let mut bounds = Self {
            option: option.to_owned(),
            all: default,
            partitions: BTreeMap::new(),
        };
        let mut all = None;
        for value in values {
            let refused = |allowed: &str| Error::option(option, value, allowed);
            // The hours of a time have a colon after them, too, but are not all that stands before it.
            let (partition, text) = match value.split_once(':') {
                Some((partition, text))
                    if !partition.is_empty() && partition.bytes().all(|b| b.is_ascii_digit()) =>
                {
                    let partition = partition.parse::<i32>().map_err(|_| refused(ALLOWED))?;
                    (Some(partition), text)
                }
                _ => (None, value.as_str()),
            };
            let moment = Moment::parse(text, now_ms).ok_or_else(|| refused(ALLOWED))?;
            let before = match partition {
                Some(partition) => bounds.partitions.insert(partition, moment),
                None => all.replace(moment),
            };
            if before.is_some() {
                return Err(refused(
                    "one value for all partitions, and one for each partition",
                ));
            }
        }
        bounds.all = all.unwrap_or(default);
        Ok(bounds)
    }

    /// The moment that holds for `partition`.
    #[must_use]
    pub fn of(&self, partition: i32) -> Moment {
        self.partitions.get(&partition).copied().unwrap_or(self.all)
    }

    /// All moments that were named.
    pub(crate) fn moments(&self) -> impl Iterator<Item = Moment> {
        std::iter::once(self.all).chain(self.partitions.values().copied())
    }

    /// The partitions that have a moment of their own.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = i32> {
        self.partitions.keys().copied()
    }
}

/// Milliseconds since the Unix epoch as RFC 3339.
#[must_use]
pub fn timestamp(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms"), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    fn from(values: &[&str]) -> Result<Bounds, Error> {
        let values: Vec<String> = values.iter().map(|&value| value.to_owned()).collect();
        Bounds::parse("--from", &values, Moment::Earliest, NOW)
    }

    #[test]
    fn a_moment_is_what_operators_write() {
        for (text, moment) in [
            ("earliest", Moment::Earliest),
            ("latest", Moment::Latest),
            ("0", Moment::Offset(0)),
            ("1200", Moment::Offset(1_200)),
            ("-15m", Moment::Time(NOW - 900_000)),
            ("-2h30m", Moment::Time(NOW - 9_000_000)),
            ("-7d", Moment::Time(NOW - 604_800_000)),
            ("-1s500ms", Moment::Time(NOW - 1_500)),
            ("1970-01-01T00:00:01Z", Moment::Time(1_000)),
            ("1970-01-01T02:00:00.5+02:00", Moment::Time(500)),
        ] {
            assert_eq!(from(&[text]).unwrap().of(9), moment, "{text}");
        }
        assert_eq!(from(&[]).unwrap().of(0), Moment::Earliest);
    }

    #[test]
    fn a_partition_may_have_its_own() {
        let bounds = from(&["3:1200", "-15m", "4:1970-01-01T00:00:01Z"]).unwrap();
        assert_eq!(bounds.of(3), Moment::Offset(1_200));
        assert_eq!(bounds.of(4), Moment::Time(1_000));
        assert_eq!(bounds.of(0), Moment::Time(NOW - 900_000));
    }

    #[test]
    fn what_is_no_moment_is_named_with_what_is() {
        for bad in [
            "",
            "-",
            "-15",
            "-15x",
            "-m",
            "--15m",
            "1.5",
            "yesterday",
            "2026-11-27",
            "3:",
            ":3",
            "99999999999999999999",
            "9999999999:1",
            "-99999999999999d",
            "2026-13-01T00:00:00Z",
            "-15m\u{fc}",
        ] {
            let error = from(&[bad]).expect_err(bad).to_string();
            assert!(
                error.contains("--from") && error.contains("earliest") && error.contains("-15m"),
                "{bad}: {error}"
            );
        }
        let twice = from(&["1", "2"]).unwrap_err().to_string();
        assert!(twice.contains("one value"), "{twice}");
        assert!(from(&["1:1", "1:2"]).is_err());
    }

    #[test]
    fn a_time_is_printed_as_it_is_read() {
        assert_eq!(timestamp(1_000), "1970-01-01T00:00:01Z");
        assert_eq!(timestamp(i64::MAX), format!("{} ms", i64::MAX));
    }
}
