//! What devices report: one metric, or several at once, read strictly; and the values that a metric may have.

use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::payload::{Fault, check_name, kind, parse, refuse};

/// The longest payload with one reading, in bytes.
pub const READING_BYTES_MAX: usize = 4_096;

/// The longest payload with readings of several metrics, in bytes.
pub const READINGS_BYTES_MAX: usize = 65_536;

/// Most metrics in one payload.
pub const METRICS_PER_PAYLOAD_MAX: usize = 256;

/// The longest text that is a value, in bytes.
pub const TEXT_BYTES_MAX: usize = 1_024;

/// The last millisecond of the year 9999.
const AT_MS_MAX: i64 = 253_402_300_799_999;

/// How far ahead of its receipt a reading may say it was measured, in milliseconds: a day. A clock that is further ahead is
/// wrong, and its readings would outlive every retention.
pub const AT_AHEAD_MS_MAX: i64 = 86_400_000;

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// In the metric's own unit; finite.
    Number(f64),
    /// A switch, a contact, an alarm.
    Boolean(bool),
    /// A state by its name; at most [`TEXT_BYTES_MAX`].
    Text(String),
}

impl Value {
    /// What alert rules compare with their thresholds: `true` is 1, `false` is 0, a text is never beyond any.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Boolean(value) => Some(f64::from(u8::from(*value))),
            Self::Text(_) => None,
        }
    }
}

/// One reading of one metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// What was measured.
    pub value: Value,
    /// When, milliseconds since the Unix epoch, as the device says.
    pub at_ms: Option<i64>,
}

/// Readings of several metrics of a device, measured at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct Readings {
    /// What was measured, by metric.
    pub values: Vec<(String, Value)>,
    /// When, milliseconds since the Unix epoch, as the device says.
    pub at_ms: Option<i64>,
}

/// Reads `{"value":21.5,"at":1766000000000}` or only the value; `ts` says the same as `at`. Fields it does not know are left to
/// newer devices.
///
/// # Errors
///
/// The reason for the dead letter.
pub fn reading(payload: &[u8], received_ms: i64) -> Result<Reading, Fault> {
    if let Some(reading) = plain(payload, received_ms) {
        return Ok(reading);
    }
    let json = parse(payload, READING_BYTES_MAX)?;
    let Json::Object(mut fields) = json else {
        return match json {
            Json::Number(_) | Json::Bool(_) | Json::String(_) => Ok(Reading {
                value: value("the payload", json)?,
                at_ms: None,
            }),
            other => refuse(
                "WrongType",
                format!(
                    "the payload is {}; a reading is an object with value, or a number, a boolean or a string",
                    kind(&other)
                ),
            ),
        };
    };
    let Some(measured) = fields.remove("value") else {
        return refuse(
            "MissingField",
            "value: missing; a reading is {\"value\": …, \"at\": milliseconds} or only the value; several metrics at once go to \
             the topic without the metric's name",
        );
    };
    Ok(Reading {
        value: value("value", measured)?,
        at_ms: time(&fields, received_ms)?,
    })
}

/// Reads `{"temperature":21.5,"door":"open","at":1766000000000}`, in which every field but `at` and `ts` is a metric, or
/// `{"values":{"temperature":21.5,"door":"open"},"at":1766000000000}`.
///
/// # Errors
///
/// The reason for the dead letter; one value that cannot be read refuses them all.
pub fn readings(payload: &[u8], received_ms: i64) -> Result<Readings, Fault> {
    let mut fields = match parse(payload, READINGS_BYTES_MAX)? {
        Json::Object(fields) => fields,
        other => {
            return refuse(
                "WrongType",
                format!(
                    "the payload is {}; readings of several metrics are an object of values by metric",
                    kind(&other)
                ),
            );
        }
    };
    let at_ms = time(&fields, received_ms)?;
    let values = match fields.remove("values") {
        Some(Json::Object(values)) => values,
        Some(other) => {
            return refuse(
                "WrongType",
                format!(
                    "values: {}; it must be an object of values by metric",
                    kind(&other)
                ),
            );
        }
        None => {
            fields.retain(|name, _| name != "at" && name != "ts");
            fields
        }
    };
    if values.is_empty() || values.len() > METRICS_PER_PAYLOAD_MAX {
        return refuse(
            "BadLength",
            format!(
                "{} metrics; a payload has 1 to {METRICS_PER_PAYLOAD_MAX}",
                values.len()
            ),
        );
    }
    let values = values
        .into_iter()
        .map(|(metric, measured)| {
            check_name("metric", &metric)?;
            let value = value(&metric, measured)?;
            Ok((metric, value))
        })
        .collect::<Result<_, Fault>>()?;
    Ok(Readings { values, at_ms })
}

/// A value that a metric may have; `field` is how the device calls it.
fn value(field: &str, measured: Json) -> Result<Value, Fault> {
    match measured {
        // serde_json has refused numbers beyond the range of a double, so what is left is finite.
        Json::Number(number) if number.as_f64().is_some_and(f64::is_finite) => {
            Ok(Value::Number(number.as_f64().unwrap_or_default()))
        }
        Json::Bool(value) => Ok(Value::Boolean(value)),
        Json::String(text) if text.len() <= TEXT_BYTES_MAX => Ok(Value::Text(text)),
        Json::String(text) => refuse(
            "BadLength",
            format!(
                "{field}: a string of {} bytes; at most {TEXT_BYTES_MAX} are allowed",
                text.len()
            ),
        ),
        other => refuse(
            "WrongType",
            format!(
                "{field}: {}; it must be a number, a boolean or a string",
                kind(&other)
            ),
        ),
    }
}

/// When it was measured, as the device says.
fn time(fields: &Map<String, Json>, received_ms: i64) -> Result<Option<i64>, Fault> {
    let given = |name: &'static str| {
        let value = fields.get(name).filter(|value| !value.is_null())?;
        Some((name, value))
    };
    let (named, at) = match (given("at"), given("ts")) {
        (None, None) => return Ok(None),
        (Some(at), None) | (None, Some(at)) => at,
        (Some(_), Some(_)) => {
            return refuse(
                "Ambiguous",
                "at and ts: both are given; a reading has one of them",
            );
        }
    };
    match at.as_i64() {
        Some(at_ms) if (0..=AT_MS_MAX).contains(&at_ms) => {
            if at_ms > received_ms.saturating_add(AT_AHEAD_MS_MAX) {
                return refuse(
                    "OutOfRange",
                    format!(
                        "{named}: {at_ms} is more than {AT_AHEAD_MS_MAX} ms ahead of its receipt at {received_ms}"
                    ),
                );
            }
            Ok(Some(at_ms))
        }
        _ => refuse(
            if at.is_number() {
                "OutOfRange"
            } else {
                "WrongType"
            },
            format!(
                "{named}: {}; it must be whole milliseconds since 1970-01-01 UTC, from 0 to {AT_MS_MAX}",
                shown(at)
            ),
        ),
    }
}

/// The form in which nearly all readings come, read without a tree of values. `None` leaves it to the thorough way, which knows
/// all forms and says what is wrong.
fn plain(payload: &[u8], received_ms: i64) -> Option<Reading> {
    #[derive(serde::Deserialize)]
    struct Plain {
        value: f64,
        at: Option<i64>,
        ts: Option<i64>,
    }
    if payload.len() > READING_BYTES_MAX || payload.first() != Some(&b'{') {
        return None;
    }
    // Fields that it skips are checked to be text by this.
    let Plain { value, at, ts } = serde_json::from_str(std::str::from_utf8(payload).ok()?).ok()?;
    if at.is_some() && ts.is_some() {
        return None;
    }
    let at = at.or(ts);
    let at_max = AT_MS_MAX.min(received_ms.saturating_add(AT_AHEAD_MS_MAX));
    let is_allowed = at.is_none_or(|at_ms| (0..=at_max).contains(&at_ms));
    is_allowed.then_some(Reading {
        value: Value::Number(value),
        at_ms: at,
    })
}

/// A number as it is, anything else by its kind: a dead letter's reason stays short whatever was sent.
fn shown(value: &Json) -> String {
    match value {
        Json::Number(number) => number.to_string(),
        other => kind(other).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_766_000_000_000;

    #[test]
    fn reads_one_metric() {
        let text = |text: &str| Value::Text(text.to_owned());
        for (payload, value, at_ms) in [
            (
                r#"{"value":21.5,"at":1766000000000}"#,
                Value::Number(21.5),
                Some(1_766_000_000_000),
            ),
            (r#"{"value":-3}"#, Value::Number(-3.0), None),
            (
                r#"{"value":7,"ts":1766000000000}"#,
                Value::Number(7.0),
                Some(NOW_MS),
            ),
            (
                r#" {"ts":1766000000000,"value":7}"#,
                Value::Number(7.0),
                Some(NOW_MS),
            ),
            (
                r#"{"value":0,"at":null,"unit":"C"}"#,
                Value::Number(0.0),
                None,
            ),
            ("21.5", Value::Number(21.5), None),
            (" 1e3\n", Value::Number(1000.0), None),
            (
                "18446744073709551616",
                Value::Number(18_446_744_073_709_551_616.0),
                None,
            ),
            ("1.7976931348623157e308", Value::Number(f64::MAX), None),
            ("true", Value::Boolean(true), None),
            (
                r#"{"value":false,"ts":1766000000000}"#,
                Value::Boolean(false),
                Some(NOW_MS),
            ),
            ("\"21.5\"", text("21.5"), None),
            (
                r#"{"value":"open","at":1766000000000}"#,
                text("open"),
                Some(NOW_MS),
            ),
            (r#"{"value":""}"#, text(""), None),
        ] {
            assert_eq!(
                reading(payload.as_bytes(), NOW_MS),
                Ok(Reading { value, at_ms }),
                "{payload}"
            );
        }
    }

    #[test]
    fn reads_several_metrics() {
        let values = vec![
            ("door".to_owned(), Value::Text("open".to_owned())),
            ("heating".to_owned(), Value::Boolean(true)),
            ("temperature".to_owned(), Value::Number(21.5)),
        ];
        for (payload, at_ms) in [
            (r#"{"temperature":21.5,"heating":true,"door":"open"}"#, None),
            (
                r#"{"temperature":21.5,"heating":true,"door":"open","at":1766000000000}"#,
                Some(NOW_MS),
            ),
            (
                r#"{"ts":1766000000000,"unit":7,"values":{"temperature":21.5,"heating":true,"door":"open"}}"#,
                Some(NOW_MS),
            ),
        ] {
            let values = values.clone();
            assert_eq!(
                readings(payload.as_bytes(), NOW_MS),
                Ok(Readings { values, at_ms }),
                "{payload}"
            );
        }
    }

    #[test]
    fn refuses_several_metrics_and_says_why() {
        let many: Map<String, Json> = (0..=METRICS_PER_PAYLOAD_MAX)
            .map(|metric| (format!("m-{metric}"), Json::from(1)))
            .collect();
        let many = Json::Object(many).to_string();
        for (payload, reason) in [
            (
                "21.5",
                "the payload is a number; readings of several metrics are an object of values by metric",
            ),
            ("{}", "0 metrics; a payload has 1 to 256"),
            (
                r#"{"at":1766000000000}"#,
                "0 metrics; a payload has 1 to 256",
            ),
            (many.as_str(), "257 metrics; a payload has 1 to 256"),
            (
                r#"{"a":1,"b":null}"#,
                "b: null; it must be a number, a boolean or a string",
            ),
            (
                r#"{"a":{"value":1}}"#,
                "a: an object; it must be a number, a boolean or a string",
            ),
            (
                r#"{"values":[1]}"#,
                "values: an array; it must be an object of values by metric",
            ),
            (
                r#"{"a/b":1}"#,
                "metric: it must be one level of a topic, without `/`, `+`, `#` and control characters",
            ),
            (
                r#"{"a":1,"ts":"now"}"#,
                "ts: a string; it must be whole milliseconds since 1970-01-01 UTC, from 0 to 253402300799999",
            ),
        ] {
            let error = readings(payload.as_bytes(), NOW_MS).expect_err(payload);
            assert_eq!(error.reason, reason, "{payload}");
        }
    }

    #[test]
    fn refuses_one_metric_and_says_why() {
        let ahead = format!(r#"{{"value":1,"at":{}}}"#, NOW_MS + AT_AHEAD_MS_MAX + 1);
        let long = format!(r#"{{"value":"{}"}}"#, "x".repeat(TEXT_BYTES_MAX + 1));
        for (payload, reason) in [
            (
                r#"{"value":1,"at":5,"ts":5}"#,
                "at and ts: both are given; a reading has one of them",
            ),
            (
                r#"{"value":1,"ts":"now"}"#,
                "ts: a string; it must be whole milliseconds since 1970-01-01 UTC, from 0 to 253402300799999",
            ),
            (
                "",
                "the payload is not JSON: EOF while parsing a value at line 1 column 0",
            ),
            (
                "hello",
                "the payload is not JSON: expected value at line 1 column 1",
            ),
            (
                "NaN",
                "the payload is not JSON: expected value at line 1 column 1",
            ),
            (
                "1e400",
                "the payload is not JSON: number out of range at line 1 column 5",
            ),
            (
                r#"{"value":1e999}"#,
                "the payload is not JSON: number out of range at line 1 column 14",
            ),
            (
                r#"{"value":Infinity}"#,
                "the payload is not JSON: expected value at line 1 column 10",
            ),
            (
                "21.5 21.5",
                "the payload is not JSON: trailing characters at line 1 column 6",
            ),
            (
                "[1]",
                "the payload is an array; a reading is an object with value, or a number, a boolean or a string",
            ),
            (
                long.as_str(),
                "value: a string of 1025 bytes; at most 1024 are allowed",
            ),
            (
                r#"{"value":[1]}"#,
                "value: an array; it must be a number, a boolean or a string",
            ),
            (
                r#"{"value":null}"#,
                "value: null; it must be a number, a boolean or a string",
            ),
            (
                r#"{"temperature":1}"#,
                "value: missing; a reading is {\"value\": …, \"at\": milliseconds} or only the value; several metrics at once go to the topic without the metric's name",
            ),
            (
                r#"{"value":1,"at":-1}"#,
                "at: -1; it must be whole milliseconds since 1970-01-01 UTC, from 0 to 253402300799999",
            ),
            (
                r#"{"value":1,"at":1.5}"#,
                "at: 1.5; it must be whole milliseconds since 1970-01-01 UTC, from 0 to 253402300799999",
            ),
            (
                r#"{"value":1,"at":1e300}"#,
                "at: 1e+300; it must be whole milliseconds since 1970-01-01 UTC, from 0 to 253402300799999",
            ),
            (
                r#"{"value":1,"at":"now"}"#,
                "at: a string; it must be whole milliseconds since 1970-01-01 UTC, from 0 to 253402300799999",
            ),
            (
                ahead.as_str(),
                "at: 1766086400001 is more than 86400000 ms ahead of its receipt at 1766000000000",
            ),
        ] {
            let error = reading(payload.as_bytes(), NOW_MS).expect_err(payload);
            assert_eq!(error.reason, reason, "{payload}");
        }
    }

    #[test]
    fn hostile_payloads_are_refused_without_harm() {
        let deep = "[".repeat(4_000);
        let long = |bytes: usize| format!("{{\"value\":1,\"pad\":\"{}\"}}", "x".repeat(bytes));
        for (error, reason) in [
            (
                reading(deep.as_bytes(), NOW_MS).expect_err("deep"),
                "recursion limit",
            ),
            (
                reading(long(READING_BYTES_MAX).as_bytes(), NOW_MS).expect_err("long"),
                "at most 4096",
            ),
            (
                readings(long(READINGS_BYTES_MAX).as_bytes(), NOW_MS).expect_err("long"),
                "at most 65536",
            ),
        ] {
            assert!(error.reason.contains(reason), "{error:?}");
        }
        for payload in [&[0xff_u8, 0xfe][..], b"\0", b"{\"a\xff\":1}"] {
            assert!(reading(payload, NOW_MS).is_err());
            assert!(readings(payload, NOW_MS).is_err());
        }
    }
}
