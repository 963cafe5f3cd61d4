//! What clients send: read strictly, and what is wrong with it said precisely.
//!
//! A fault here becomes the reason on a dead letter, so it names the field, what it is and what it should be.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

/// The longest name of a room or a user.
pub const NAME_BYTES_MAX: usize = 256;

/// The longest identifier of a message.
pub const ID_BYTES_MAX: usize = 128;

/// The longest that fields may be which this version does not know, with their names.
pub const EXTRA_BYTES_MAX: usize = 16_384;

/// What a name may be, for whoever sent another.
pub const NAME_ALLOWED: &str =
    "1 to 256 bytes of text without `/`, `+`, `#` and control characters";

/// A chat message as its sender wrote it: `{"id":"m-1","from":"alice","text":"hello"}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<'a> {
    /// The sender's own identifier of the message, for its receipt.
    pub id: Option<Cow<'a, str>>,
    /// Who writes.
    pub from: Cow<'a, str>,
    /// What is written.
    pub text: Cow<'a, str>,
    /// Fields of newer clients, as they were written: a JSON object.
    pub extra: Option<String>,
}

/// Why a payload is no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The kind of fault, one word.
    pub class: &'static str,
    /// The field, what it is and what it should be.
    pub reason: String,
}

/// A payload that is no message, and as much of it as is needed to tell its sender so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condemned {
    /// What is wrong with it.
    pub fault: Fault,
    /// Who writes, if that can be read.
    pub from: Option<String>,
    /// The sender's own identifier of the message, if that can be read.
    pub id: Option<String>,
}

impl From<Fault> for Condemned {
    fn from(fault: Fault) -> Self {
        Self {
            fault,
            from: None,
            id: None,
        }
    }
}

impl<'a> Message<'a> {
    /// Reads a payload. Fields that it does not know are kept as they are, for newer clients. Where it is known who the
    /// `sender` is, the message is his: it need not say so, and may not say anything else.
    ///
    /// # Errors
    ///
    /// The fault, for the dead letter, and who is to hear of it.
    pub fn read(
        payload: &'a [u8],
        sender: Option<&'a str>,
        text_bytes_max: usize,
    ) -> Result<Self, Condemned> {
        let mut read = Self::read_as(payload, sender, text_bytes_max);
        if let (Err(condemned), Some(sender)) = (&mut read, sender) {
            // Who sent it hears of it, whatever the payload says.
            condemned.from = check_name("from", sender)
                .is_ok()
                .then(|| sender.to_owned());
        }
        read
    }

    fn read_as(
        payload: &'a [u8],
        sender: Option<&'a str>,
        text_bytes_max: usize,
    ) -> Result<Self, Condemned> {
        // A derived reader would also take a list of the fields' values.
        if payload
            .trim_ascii_start()
            .first()
            .is_some_and(|first| *first != b'{')
        {
            serde_json::from_slice::<IgnoredAny>(payload)
                .map_err(|error| not_read(payload, &error))?;
            let reason =
                "the payload: JSON, but no object; it must be an object with from and text";
            return Err(Condemned::from(Fault {
                class: "WrongType",
                reason: reason.to_owned(),
            }));
        }
        let fields: Fields<'_> =
            serde_json::from_slice(payload).map_err(|error| not_read(payload, &error))?;
        let readable = |field: &Field<'_>, allowed: fn(&str) -> bool| match field {
            Field::Text(text) if allowed(text) => Some(text.clone().into_owned()),
            _ => None,
        };
        let from = readable(&fields.from, |name| check_name("from", name).is_ok());
        let id = readable(&fields.id, |id| (1..=ID_BYTES_MAX).contains(&id.len()));
        Self::check(fields, sender, text_bytes_max).map_err(|fault| Condemned { fault, from, id })
    }

    fn check(
        fields: Fields<'a>,
        sender: Option<&'a str>,
        text_bytes_max: usize,
    ) -> Result<Self, Fault> {
        let extra = fields.extra();
        let from = match sender {
            None => fields.from.required("from")?,
            Some(sender) => match fields.from.optional("from")? {
                Some(from) if from != sender => {
                    return Err(Fault {
                        class: "WrongSender",
                        reason: format!(
                            "from: the payload says {from:.256?}, and it is from the user {sender:.256?}"
                        ),
                    });
                }
                _ => sender.into(),
            },
        };
        check_name("from", &from).map_err(|reason| Fault {
            class: "BadName",
            reason,
        })?;
        let text = fields.text.required("text")?;
        check_length("text", &text, text_bytes_max)?;
        let id = fields.id.optional("id")?;
        if let Some(id) = &id {
            check_length("id", id, ID_BYTES_MAX)?;
        }
        if let Some(extra) = extra.as_deref().filter(|all| all.len() > EXTRA_BYTES_MAX) {
            let reason = format!(
                "the fields beside id, from and text: {} bytes long; they must be at most {EXTRA_BYTES_MAX} bytes",
                extra.len()
            );
            return Err(Fault {
                class: "BadLength",
                reason,
            });
        }
        Ok(Self {
            id,
            from,
            text,
            extra,
        })
    }
}

/// Whether a name can be a level of an MQTT topic, and be shown.
///
/// # Errors
///
/// A sentence that begins with `field`.
pub fn check_name(field: &str, name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err(format!("{field}: empty; it must be {NAME_ALLOWED}"));
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(format!(
            "{field}: {} bytes long; it must be {NAME_ALLOWED}",
            name.len()
        ));
    }
    match name
        .chars()
        .find(|c| matches!(c, '/' | '+' | '#') || c.is_control())
    {
        None => Ok(()),
        Some(c) => Err(format!(
            "{field}: has {c:?} in it; it must be {NAME_ALLOWED}"
        )),
    }
}

fn check_length(field: &str, text: &str, bytes_max: usize) -> Result<(), Fault> {
    if text.is_empty() || text.len() > bytes_max {
        let reason = format!(
            "{field}: {} bytes long; it must be 1 to {bytes_max} bytes",
            text.len()
        );
        return Err(Fault {
            class: "BadLength",
            reason,
        });
    }
    Ok(())
}

fn not_read(payload: &[u8], error: &serde_json::Error) -> Fault {
    if payload.is_empty() {
        return Fault {
            class: "NotJson",
            reason: "the payload is empty; it must be a JSON object".to_owned(),
        };
    }
    match error.classify() {
        Category::Data => Fault {
            class: "WrongType",
            reason: format!("the payload: {error}"),
        },
        _ => Fault {
            class: "NotJson",
            reason: format!("the payload is not JSON: {error}"),
        },
    }
}

#[derive(Default)]
struct Fields<'a> {
    id: Field<'a>,
    from: Field<'a>,
    text: Field<'a>,
    /// All others, as they were written.
    others: BTreeMap<String, &'a RawValue>,
}

impl Fields<'_> {
    /// The fields that are not known here, as a JSON object.
    fn extra(&self) -> Option<String> {
        if self.others.is_empty() {
            return None;
        }
        // Names and texts that were read as JSON can be written as JSON.
        serde_json::to_string(&self.others).ok()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with from and text")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields::default();
        while let Some(Name(name)) = map.next_key()? {
            let (known, named) = match &*name {
                "id" => (&mut fields.id, "id"),
                "from" => (&mut fields.from, "from"),
                "text" => (&mut fields.text, "text"),
                _ => {
                    fields.others.insert(name.into_owned(), map.next_value()?);
                    continue;
                }
            };
            if !matches!(known, Field::Missing) {
                return Err(A::Error::duplicate_field(named));
            }
            *known = map.next_value()?;
        }
        Ok(fields)
    }
}

/// The name of a field, not copied where that can be helped.
#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// Any JSON, of which only text is kept: so a wrong type can be told by the field's name.
#[derive(Default)]
enum Field<'a> {
    #[default]
    Missing,
    Text(Cow<'a, str>),
    Other(&'static str),
}

impl<'a> Field<'a> {
    fn required(self, name: &str) -> Result<Cow<'a, str>, Fault> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Missing => Err(Fault {
                class: "MissingField",
                reason: format!("{name}: missing; it must be text"),
            }),
            Self::Other(kind) => Err(wrong_type(name, kind)),
        }
    }

    fn optional(self, name: &str) -> Result<Option<Cow<'a, str>>, Fault> {
        match self {
            Self::Text(text) => Ok(Some(text)),
            Self::Missing | Self::Other("null") => Ok(None),
            Self::Other(kind) => Err(wrong_type(name, kind)),
        }
    }
}

fn wrong_type(name: &str, kind: &str) -> Fault {
    Fault {
        class: "WrongType",
        reason: format!("{name}: {kind}; it must be text"),
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Field<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Field<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Field<'de>, E> {
        Ok(Field::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Field<'de>, E> {
        Ok(Field::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E: Error>(self) -> Result<Field<'de>, E> {
        Ok(Field::Other("null"))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Field<'de>, E> {
        Ok(Field::Other("true or false"))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Field<'de>, E> {
        Ok(Field::Other("a number"))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Field<'de>, E> {
        Ok(Field::Other("a number"))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Field<'de>, E> {
        Ok(Field::Other("a number"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Field<'de>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::Other("a list"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Other("an object"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT_BYTES_MAX: usize = 20;

    fn read(payload: &str) -> Result<Message<'_>, Condemned> {
        Message::read(payload.as_bytes(), None, TEXT_BYTES_MAX)
    }

    #[test]
    fn a_message_is_read_without_a_copy() {
        let message = read(r#"{"id":"m-1","from":"alice","text":"hello"}"#).unwrap();
        assert!(matches!(message.text, Cow::Borrowed("hello")));
        assert_eq!(
            (message.id.as_deref(), &*message.from),
            (Some("m-1"), "alice")
        );
        // Without an identifier, with fields of newer clients, with escapes.
        for payload in [
            r#"{"from":"alice","text":"hello"}"#,
            r#"{"text":"hello","id":null,"from":"alice","more":[1e999,{"a":123456789012345678901234567890}]}"#,
            r#"{"from":"\u0061lice","text":"hell\u006f"}"#,
        ] {
            let message = read(payload).unwrap();
            assert_eq!(
                (message.id, &*message.from, &*message.text),
                (None, "alice", "hello"),
                "{payload}"
            );
        }
    }

    #[test]
    fn fields_of_newer_clients_are_kept_as_they_were_written() {
        let extra = |payload| read(payload).unwrap().extra;
        assert_eq!(extra(r#"{"from":"a","text":"x"}"#), None);
        assert_eq!(
            extra(r#"{"to":["b", 1e999],"from":"a","text":"x","a\u0022b":{"n":123456789012345678901}}"#)
                .as_deref(),
            Some(r#"{"a\"b":{"n":123456789012345678901},"to":["b", 1e999]}"#)
        );
        let long = format!(r#"{{"from":"a","text":"x","z":"{}"}}"#, "z".repeat(16_384));
        assert_eq!(read(&long).unwrap_err().fault.class, "BadLength");
    }

    #[test]
    fn what_can_be_read_of_the_sender_of_a_bad_message_is_kept() {
        for (payload, from, id) in [
            (r#"{"from":"a","id":"m","text":""}"#, Some("a"), Some("m")),
            (r#"{"from":"a","id":7,"text":"x"}"#, Some("a"), None),
            (r#"{"from":"a/b","id":"m","text":"x"}"#, None, Some("m")),
            ("hello", None, None),
        ] {
            let condemned = read(payload).unwrap_err();
            let found = (condemned.from.as_deref(), condemned.id.as_deref());
            assert_eq!(found, (from, id), "{payload}");
        }
    }

    #[test]
    fn a_fault_names_the_field_what_it_is_and_what_it_should_be() {
        let long_id = format!(r#"{{"from":"a","text":"x","id":"{}"}}"#, "i".repeat(129));
        let long_name = format!(r#"{{"from":"{}","text":"x"}}"#, "n".repeat(257));
        let deep = format!(
            r#"{{"from":"a","text":{}1{}}}"#,
            "[".repeat(200),
            "]".repeat(200)
        );
        let cases = [
            ("", "NotJson", "the payload is empty"),
            (
                "hello",
                "NotJson",
                "the payload is not JSON: expected value at line 1 column 1",
            ),
            (
                r#"{"from":"alice""#,
                "NotJson",
                "the payload is not JSON: EOF",
            ),
            (
                r#"{"from":"a","text":"x"} y"#,
                "NotJson",
                "trailing characters",
            ),
            (
                r#"{"from":1e999,"text":"x"}"#,
                "NotJson",
                "number out of range",
            ),
            (&deep, "WrongType", "text: a list; it must be text"),
            (
                "5",
                "WrongType",
                "JSON, but no object; it must be an object with from and text",
            ),
            (r#" "hello""#, "WrongType", "JSON, but no object"),
            (
                r#"["m-1","alice","hello"]"#,
                "WrongType",
                "JSON, but no object",
            ),
            (
                r#"{"from":"a","from":"b","text":"x"}"#,
                "WrongType",
                "duplicate field `from`",
            ),
            ("{}", "MissingField", "from: missing; it must be text"),
            (
                r#"{"from":"alice"}"#,
                "MissingField",
                "text: missing; it must be text",
            ),
            (
                r#"{"from":42,"text":"x"}"#,
                "WrongType",
                "from: a number; it must be text",
            ),
            (r#"{"from":-1,"text":"x"}"#, "WrongType", "from: a number"),
            (
                r#"{"from":123456789012345678901234567890,"text":"x"}"#,
                "WrongType",
                "from: a number",
            ),
            (
                r#"{"from":null,"text":"x"}"#,
                "WrongType",
                "from: null; it must be text",
            ),
            (
                r#"{"from":"a","text":["x"]}"#,
                "WrongType",
                "text: a list; it must be text",
            ),
            (
                r#"{"from":"a","text":{"x":1}}"#,
                "WrongType",
                "text: an object; it must be text",
            ),
            (
                r#"{"from":"a","text":"x","id":true}"#,
                "WrongType",
                "id: true or false; it must be text",
            ),
            (
                r#"{"from":"","text":"x"}"#,
                "BadName",
                "from: empty; it must be 1 to 256 bytes",
            ),
            (
                r#"{"from":"a/b","text":"x"}"#,
                "BadName",
                "from: has '/' in it",
            ),
            (
                r#"{"from":"+","text":"x"}"#,
                "BadName",
                "from: has '+' in it",
            ),
            (
                r#"{"from":"a\u0000","text":"x"}"#,
                "BadName",
                r"from: has '\0' in it",
            ),
            (&long_name, "BadName", "from: 257 bytes long"),
            (
                r#"{"from":"a","text":""}"#,
                "BadLength",
                "text: 0 bytes long; it must be 1 to 20 bytes",
            ),
            (
                r#"{"from":"a","text":"123456789012345678901"}"#,
                "BadLength",
                "text: 21 bytes long",
            ),
            (
                &long_id,
                "BadLength",
                "id: 129 bytes long; it must be 1 to 128 bytes",
            ),
        ];
        for (payload, class, reason) in cases {
            let fault = read(payload).expect_err(payload).fault;
            assert_eq!(fault.class, class, "{payload}: {fault:?}");
            assert!(fault.reason.contains(reason), "{payload}: {fault:?}");
        }
        let fault = Message::read(b"{\"from\":\"\xff\",\"text\":\"x\"}", None, TEXT_BYTES_MAX)
            .unwrap_err()
            .fault;
        assert_eq!(fault.class, "NotJson");
        assert!(
            fault.reason.contains("invalid unicode code point"),
            "{}",
            fault.reason
        );
    }
}
