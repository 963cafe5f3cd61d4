//! Checks of single values, each with its error.

use std::time::Duration;

use codec::Qos;

use super::error::ScenarioError;
use super::limits::{RATE_MAX, RATE_MIN, SECONDS_MAX};
use crate::template::Template;

/// A number with its thousands apart, for people.
pub(super) fn grouped(number: impl Into<i128>) -> String {
    let number: i128 = number.into();
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A whole number between two others.
pub(super) fn whole(key: &str, value: i64, min: i64, max: i64) -> Result<u32, ScenarioError> {
    u32::try_from(value)
        .ok()
        .filter(|_| (min..=max).contains(&value))
        .ok_or_else(|| {
            ScenarioError::value(
                key,
                grouped(value),
                format!("allowed are {} to {}", grouped(min), grouped(max)),
            )
        })
}

/// So many a second.
pub(super) fn rate(key: &str, value: f64) -> Result<f64, ScenarioError> {
    if (RATE_MIN..=RATE_MAX).contains(&value) {
        return Ok(value);
    }
    let max = grouped(RATE_MAX as i64);
    Err(ScenarioError::value(
        key,
        value,
        format!("a rate is more than 0, at least {RATE_MIN}, and at most {max} a second"),
    ))
}

/// A time in seconds, at least `min`.
pub(super) fn seconds(key: &str, value: f64, min: f64) -> Result<Duration, ScenarioError> {
    if (min..=SECONDS_MAX).contains(&value) {
        return Ok(Duration::from_secs_f64(value));
    }
    Err(ScenarioError::value(
        key,
        value,
        format!("allowed are {min} to {SECONDS_MAX} seconds, which are 30 days"),
    ))
}

/// A QoS.
pub(super) fn qos(key: &str, value: i64) -> Result<Qos, ScenarioError> {
    u8::try_from(value)
        .ok()
        .and_then(|level| Qos::try_from(level).ok())
        .ok_or_else(|| ScenarioError::value(key, value, "allowed are 0, 1 and 2"))
}

/// A template with no other variable than `{n}`, and `{i}` where it has a meaning.
pub(super) fn template(key: &str, text: &str, with_i: bool) -> Result<Template, ScenarioError> {
    let template =
        Template::parse(text).map_err(|why| ScenarioError::refused(key, why.to_string()))?;
    if template.has_i() && !with_i {
        return Err(ScenarioError::value(
            key,
            format!("\"{text}\""),
            "{i} counts a subscription's filters and is known there only; here it is {n}",
        ));
    }
    Ok(template)
}

/// The name of a group or stream.
pub(super) fn name(key: &str, name: &str) -> Result<(), ScenarioError> {
    if name.is_empty() || name.len() > 100 || name.chars().any(char::is_control) {
        return Err(ScenarioError::value(
            key,
            format!("{name:?}"),
            "a name has 1 to 100 bytes and no control characters",
        ));
    }
    Ok(())
}

/// The first name that comes twice.
pub(super) fn twice<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut seen = std::collections::HashSet::new();
    names.into_iter().find(|name| !seen.insert(*name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        for (number, wanted) in [
            (0_i64, "0"),
            (999, "999"),
            (-1_000, "-1,000"),
            (83_333, "83,333"),
            (i64::MIN, "-9,223,372,036,854,775,808"),
        ] {
            assert_eq!(grouped(number), wanted);
        }
    }

    #[test]
    fn rates_and_times_that_are_none_are_refused() {
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300, 1e-300] {
            let error = rate("a.per_second", value).unwrap_err().to_string();
            assert!(error.starts_with("a.per_second is "), "{error}");
        }
        for value in [-0.1, f64::NAN, f64::INFINITY, 1e18] {
            assert!(seconds("run.seconds", value, 0.0).is_err(), "{value}");
        }
        assert_eq!(seconds("a", 0.5, 0.0).unwrap(), Duration::from_millis(500));
    }

    #[test]
    fn there_is_no_qos_3() {
        for value in [-1, 3, 256, i64::MAX] {
            assert!(qos("a", value).is_err(), "{value}");
        }
        assert_eq!(qos("a", 2).unwrap(), Qos::ExactlyOnce);
    }
}
