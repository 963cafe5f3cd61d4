//! What all payloads of devices share, and replies: read strictly, and what is wrong with them said precisely. Telemetry is in
//! `telemetry.rs`.
//!
//! An error here becomes the reason on a dead letter, so it names the field, what it is and what it should be.

use serde_json::Value;

/// The longest reply payload, in bytes.
pub const REPLY_BYTES_MAX: usize = 65_536;

/// The longest name of a device, a metric or a command, in bytes.
pub const NAME_BYTES_MAX: usize = 256;

/// The longest command id, in bytes.
pub const COMMAND_ID_BYTES_MAX: usize = 128;

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

pub(crate) fn refuse<T>(class: &'static str, reason: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::new(class, reason))
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

pub(crate) fn parse(payload: &[u8], bytes_max: usize) -> Result<Value, Fault> {
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
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
