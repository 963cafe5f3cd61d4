//! What devices send: telemetry and replies, read strictly, and what is wrong with them said precisely.
//!
//! An error here becomes the reason on a dead letter, so it names the field, what it is and what it should be.

use serde_json::Value;

/// The longest telemetry payload, in bytes. A reading is a number and a time.
pub const TELEMETRY_BYTES_MAX: usize = 4_096;

/// The longest reply payload, in bytes.
pub const REPLY_BYTES_MAX: usize = 65_536;

/// The longest name of a device, a metric or a command, in bytes.
pub const NAME_BYTES_MAX: usize = 256;

/// The longest command id, in bytes.
pub const COMMAND_ID_BYTES_MAX: usize = 128;

/// The last millisecond of the year 9999.
const AT_MS_MAX: i64 = 253_402_300_799_999;

/// How far ahead of its receipt a reading may say it was measured, in milliseconds: a day. A clock that is further ahead is
/// wrong, and its readings would outlive every retention.
pub const AT_AHEAD_MS_MAX: i64 = 86_400_000;

/// Why something is refused; the record goes to the dead letters with this as the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The kind of fault, one word, by which faults are counted.
    pub class: &'static str,
    /// The field, what it is and what it should be.
    pub reason: String,
}

impl Fault {
    pub(crate) fn new(class: &'static str, reason: impl Into<String>) -> Self {
        Self {
            class,
            reason: reason.into(),
        }
    }
}

fn refuse<T>(class: &'static str, reason: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::new(class, reason))
}

/// One reading of one metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// In the metric's own unit; finite.
    pub value: f64,
    /// When it was measured, milliseconds since the Unix epoch, as the device says.
    pub at_ms: Option<i64>,
}

/// Reads `{"value":21.5,"at":1766000000000}` or a bare number; `ts` says the same as `at`. Fields it does not know are left to
/// newer devices.
///
/// # Errors
///
/// The reason for the dead letter.
pub fn telemetry(payload: &[u8], received_ms: i64) -> Result<Reading, Fault> {
    if let Some(reading) = plain(payload, received_ms) {
        return Ok(reading);
    }
    let json = parse(payload, TELEMETRY_BYTES_MAX)?;
    let (value, at) = match &json {
        Value::Number(_) => (&json, None),
        Value::Object(fields) => match fields.get("value") {
            Some(value) => (value, time(fields)?),
            None => {
                return refuse(
                    "MissingField",
                    "value: missing; a reading is {\"value\": number, \"at\": milliseconds} or a number",
                );
            }
        },
        other => {
            return refuse(
                "WrongType",
                format!(
                    "the payload is {}; a reading is an object with value, or a number",
                    kind(other)
                ),
            );
        }
    };
    // serde_json has refused numbers beyond the range of a double, so what is left is finite.
    let Some(number) = value.as_f64().filter(|number| number.is_finite()) else {
        return refuse(
            "WrongType",
            format!("value: {}; it must be a number", kind(value)),
        );
    };
    let at_ms = match at {
        None => None,
        Some((named, at)) => match at.as_i64() {
            Some(at_ms) if (0..=AT_MS_MAX).contains(&at_ms) => {
                if at_ms > received_ms.saturating_add(AT_AHEAD_MS_MAX) {
                    return refuse(
                        "OutOfRange",
                        format!(
                            "{named}: {at_ms} is more than {AT_AHEAD_MS_MAX} ms ahead of its receipt at {received_ms}"
                        ),
                    );
                }
                Some(at_ms)
            }
            _ => {
                return refuse(
                    if at.is_number() {
                        "OutOfRange"
                    } else {
                        "WrongType"
                    },
                    format!(
                        "{named}: {}; it must be whole milliseconds since 1970-01-01 UTC, from 0 to {AT_MS_MAX}",
                        shown(at)
                    ),
                );
            }
        },
    };
    Ok(Reading {
        value: number,
        at_ms,
    })
}

/// When it was measured, as the device says, and how it calls that.
fn time(fields: &serde_json::Map<String, Value>) -> Result<Option<(&'static str, &Value)>, Fault> {
    let given = |name: &'static str| {
        let value = fields.get(name).filter(|value| !value.is_null())?;
        Some((name, value))
    };
    match (given("at"), given("ts")) {
        (Some(_), Some(_)) => refuse(
            "Ambiguous",
            "at and ts: both are given; a reading has one of them",
        ),
        (at, ts) => Ok(at.or(ts)),
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
    if payload.len() > TELEMETRY_BYTES_MAX || payload.first() != Some(&b'{') {
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
    is_allowed.then_some(Reading { value, at_ms: at })
}

/// The answer of a device to a command.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// Which command.
    pub id: String,
    /// Whether the device says that it did it.
    pub ok: bool,
    /// Whatever the device adds, as JSON text.
    pub result: Option<String>,
}

/// Reads `{"id":"c-…","ok":true,"result":…}`. A device of MQTT 5.0 may leave the id to the correlation data.
///
/// # Errors
///
/// The reason for the dead letter.
pub fn reply(payload: &[u8], correlation_data: Option<&[u8]>) -> Result<Reply, Fault> {
    let json = parse(payload, REPLY_BYTES_MAX)?;
    let Value::Object(fields) = &json else {
        return refuse(
            "WrongType",
            format!(
                "the payload is {}; a reply is an object with id, ok and result",
                kind(&json)
            ),
        );
    };
    let id = match fields.get("id").filter(|id| !id.is_null()) {
        Some(Value::String(id)) => id.clone(),
        Some(other) => {
            return refuse(
                "WrongType",
                format!("id: {}; it must be the command's id, a string", kind(other)),
            );
        }
        None => match correlation_data.map(std::str::from_utf8) {
            Some(Ok(id)) => id.to_owned(),
            Some(Err(_)) => {
                return refuse(
                    "WrongType",
                    "the correlation data is not UTF-8; it must be the command's id",
                );
            }
            None => {
                return refuse(
                    "MissingField",
                    "id: missing, and there is no correlation data; one of them must be the command's id",
                );
            }
        },
    };
    if id.is_empty() || id.len() > COMMAND_ID_BYTES_MAX {
        return refuse(
            "BadLength",
            format!(
                "id: {} bytes long; a command's id has 1 to {COMMAND_ID_BYTES_MAX}",
                id.len()
            ),
        );
    }
    let ok = match fields.get("ok") {
        Some(Value::Bool(ok)) => *ok,
        Some(other) => {
            return refuse(
                "WrongType",
                format!("ok: {}; it must be true or false", kind(other)),
            );
        }
        None => return refuse("MissingField", "ok: missing; it must be true or false"),
    };
    Ok(Reply {
        id,
        ok,
        result: fields.get("result").map(Value::to_string),
    })
}

/// Checks a name that is one level of a topic.
///
/// # Errors
///
/// What is allowed, after the name of the field.
pub fn check_name(field: &str, name: &str) -> Result<(), Fault> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return refuse(
            "BadLength",
            format!(
                "{field}: {} bytes long; it must have 1 to {NAME_BYTES_MAX}",
                name.len()
            ),
        );
    }
    if name.contains(|c: char| matches!(c, '/' | '+' | '#') || c.is_control()) {
        return refuse(
            "BadName",
            format!(
                "{field}: it must be one level of a topic, without `/`, `+`, `#` and control characters"
            ),
        );
    }
    Ok(())
}

fn parse(payload: &[u8], bytes_max: usize) -> Result<Value, Fault> {
    if payload.len() > bytes_max {
        return refuse(
            "BadLength",
            format!(
                "the payload has {} bytes; at most {bytes_max} are allowed",
                payload.len()
            ),
        );
    }
    serde_json::from_slice(payload)
        .map_err(|error| Fault::new("NotJson", format!("the payload is not JSON: {error}")))
}

/// What a JSON value is, for people.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// A number as it is, anything else by its kind: a dead letter's reason stays short whatever was sent.
fn shown(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        other => kind(other).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_766_000_000_000;

    #[test]
    fn reads_readings() {
        for (payload, value, at_ms) in [
            (
                r#"{"value":21.5,"at":1766000000000}"#,
                21.5,
                Some(1_766_000_000_000),
            ),
            (r#"{"value":-3}"#, -3.0, None),
            (r#"{"value":7,"ts":1766000000000}"#, 7.0, Some(NOW_MS)),
            (r#" {"ts":1766000000000,"value":7}"#, 7.0, Some(NOW_MS)),
            (r#"{"value":0,"at":null,"unit":"C"}"#, 0.0, None),
            ("21.5", 21.5, None),
            (" 1e3\n", 1000.0, None),
            ("18446744073709551616", 18_446_744_073_709_551_616.0, None),
            ("1.7976931348623157e308", f64::MAX, None),
        ] {
            assert_eq!(
                telemetry(payload.as_bytes(), NOW_MS),
                Ok(Reading { value, at_ms }),
                "{payload}"
            );
        }
    }

    #[test]
    fn refuses_readings_and_says_why() {
        let ahead = format!(r#"{{"value":1,"at":{}}}"#, NOW_MS + AT_AHEAD_MS_MAX + 1);
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
                "\"21.5\"",
                "the payload is a string; a reading is an object with value, or a number",
            ),
            (
                "[1]",
                "the payload is an array; a reading is an object with value, or a number",
            ),
            (
                r#"{"value":"21.5"}"#,
                "value: a string; it must be a number",
            ),
            (r#"{"value":true}"#, "value: a boolean; it must be a number"),
            (r#"{"value":null}"#, "value: null; it must be a number"),
            (
                r#"{"temperature":1}"#,
                "value: missing; a reading is {\"value\": number, \"at\": milliseconds} or a number",
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
            let error = telemetry(payload.as_bytes(), NOW_MS).expect_err(payload);
            assert_eq!(error.reason, reason, "{payload}");
        }
    }

    #[test]
    fn hostile_payloads_are_refused_without_harm() {
        let deep = "[".repeat(4_000);
        let long = format!(
            "{{\"value\":1,\"pad\":\"{}\"}}",
            "x".repeat(TELEMETRY_BYTES_MAX)
        );
        assert!(
            telemetry(deep.as_bytes(), NOW_MS)
                .expect_err("deep")
                .reason
                .contains("recursion limit")
        );
        assert!(
            telemetry(long.as_bytes(), NOW_MS)
                .expect_err("long")
                .reason
                .contains("at most 4096")
        );
        assert!(telemetry(&[0xff, 0xfe], NOW_MS).is_err());
        assert!(telemetry(b"\0", NOW_MS).is_err());
    }

    #[test]
    fn reads_replies() {
        assert_eq!(
            reply(br#"{"id":"c-1","ok":true,"result":{"took_ms":12}}"#, None),
            Ok(Reply {
                id: "c-1".into(),
                ok: true,
                result: Some(r#"{"took_ms":12}"#.into())
            })
        );
        assert_eq!(
            reply(br#"{"ok":false}"#, Some(b"c-2")),
            Ok(Reply {
                id: "c-2".into(),
                ok: false,
                result: None
            })
        );
    }

    #[test]
    fn refuses_replies_and_says_why() {
        for (payload, correlation, reason) in [
            (
                "done",
                None,
                "the payload is not JSON: expected value at line 1 column 1",
            ),
            (
                "true",
                None,
                "the payload is a boolean; a reply is an object with id, ok and result",
            ),
            (
                r#"{"ok":true}"#,
                None,
                "id: missing, and there is no correlation data; one of them must be the command's id",
            ),
            (
                r#"{"ok":true}"#,
                Some(&[0xff_u8][..]),
                "the correlation data is not UTF-8; it must be the command's id",
            ),
            (
                r#"{"id":7,"ok":true}"#,
                None,
                "id: a number; it must be the command's id, a string",
            ),
            (
                r#"{"id":"","ok":true}"#,
                None,
                "id: 0 bytes long; a command's id has 1 to 128",
            ),
            (
                r#"{"id":"c-1"}"#,
                None,
                "ok: missing; it must be true or false",
            ),
            (
                r#"{"id":"c-1","ok":"yes"}"#,
                None,
                "ok: a string; it must be true or false",
            ),
        ] {
            let error = reply(payload.as_bytes(), correlation).expect_err(payload);
            assert_eq!(error.reason, reason, "{payload}");
        }
    }

    #[test]
    fn names_are_one_level() {
        assert_eq!(check_name("device", "d-1"), Ok(()));
        for name in ["", "a/b", "+", "a#", "nul\0", "new\nline"] {
            assert!(check_name("device", name).is_err(), "{name:?}");
        }
        assert_eq!(
            check_name("metric", &"m".repeat(257))
                .expect_err("too long")
                .reason,
            "metric: 257 bytes long; it must have 1 to 256"
        );
    }
}
