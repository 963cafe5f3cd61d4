//! One message on its way through Kafka, and its translation to headers and back.

use crate::EnvelopeError;
use crate::header::{self, Decimal};
use crate::report::CORRELATION_BYTES_MAX;

/// The longest text or binary field that MQTT can carry: its length has two bytes (MQTT 5.0, 1.5.4 and 1.5.6).
const FIELD_BYTES_MAX: usize = 65_535;

/// All of a message but its payload and its user properties. `Copy` and free of allocations, so that the broker can fill
/// one per message straight from a packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fields<'a> {
    /// The topic name.
    pub topic: &'a str,
    /// The quality of service, 0 to 2.
    pub qos: u8,
    /// Whether the publisher asked to retain it.
    pub retain: bool,
    /// The client identifier of the publisher.
    pub client_id: Option<&'a str>,
    /// The user that the publisher is, as the broker knows it.
    pub user: Option<&'a str>,
    /// The tenant of that user.
    pub tenant: Option<&'a str>,
    /// The broker node that took it.
    pub node: Option<&'a str>,
    /// When the broker read it, in microseconds since the Unix epoch.
    pub received_at_micros: Option<u64>,
    /// Payload format indicator: 0 unspecified bytes, 1 UTF-8. Absent is told apart from 0.
    pub payload_format: Option<u8>,
    /// Message expiry interval in seconds, as the publisher gave it, less the time before the record was made: time spent in
    /// Kafka is not taken off.
    pub message_expiry_s: Option<u32>,
    /// Content type.
    pub content_type: Option<&'a str>,
    /// Response topic.
    pub response_topic: Option<&'a str>,
    /// Correlation data.
    pub correlation_data: Option<&'a [u8]>,
}

impl Fields<'_> {
    /// Calls `f` with the name and value of every header, user properties last and in their order. `scratch` is reused for
    /// the names of user properties; it stays untouched without any.
    pub fn for_each_header<'u>(
        &self,
        user_properties: impl IntoIterator<Item = (&'u str, &'u str)>,
        scratch: &mut String,
        mut f: impl FnMut(&str, &[u8]),
    ) {
        f(header::TOPIC, self.topic.as_bytes());
        f(header::QOS, Decimal::new(u64::from(self.qos)).as_bytes());
        if self.retain {
            f(header::RETAIN, b"1");
        }
        if let Some(client_id) = self.client_id {
            f(header::CLIENT_ID, client_id.as_bytes());
        }
        if let Some(user) = self.user {
            f(header::USER, user.as_bytes());
        }
        if let Some(tenant) = self.tenant {
            f(header::TENANT, tenant.as_bytes());
        }
        if let Some(node) = self.node {
            f(header::NODE, node.as_bytes());
        }
        if let Some(micros) = self.received_at_micros {
            f(header::RECEIVED_AT, Decimal::new(micros).as_bytes());
        }
        if let Some(format) = self.payload_format {
            f(
                header::PAYLOAD_FORMAT,
                Decimal::new(u64::from(format)).as_bytes(),
            );
        }
        if let Some(seconds) = self.message_expiry_s {
            f(
                header::MESSAGE_EXPIRY,
                Decimal::new(u64::from(seconds)).as_bytes(),
            );
        }
        if let Some(content_type) = self.content_type {
            f(header::CONTENT_TYPE, content_type.as_bytes());
        }
        if let Some(topic) = self.response_topic {
            f(header::RESPONSE_TOPIC, topic.as_bytes());
        }
        if let Some(data) = self.correlation_data {
            f(header::CORRELATION_DATA, data);
        }
        for (name, value) in user_properties {
            f(header::user_header(name, scratch), value.as_bytes());
        }
    }
}

/// One message as a record carries it. Borrows from the record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The topic name.
    pub topic: &'a str,
    /// The quality of service, 0 to 2.
    pub qos: u8,
    /// Whether the publisher asked to retain it.
    pub retain: bool,
    /// The client identifier of the publisher.
    pub client_id: Option<&'a str>,
    /// The user that the publisher is, as the broker knows it.
    pub user: Option<&'a str>,
    /// The tenant of that user.
    pub tenant: Option<&'a str>,
    /// The broker node that took it.
    pub node: Option<&'a str>,
    /// When the broker read it, in microseconds since the Unix epoch.
    pub received_at_micros: Option<u64>,
    /// Payload format indicator: 0 unspecified bytes, 1 UTF-8. Absent is told apart from 0.
    pub payload_format: Option<u8>,
    /// Message expiry interval in seconds, as the publisher gave it, less the time before the record was made: time spent in
    /// Kafka is not taken off.
    pub message_expiry_s: Option<u32>,
    /// Content type.
    pub content_type: Option<&'a str>,
    /// Response topic.
    pub response_topic: Option<&'a str>,
    /// Correlation data.
    pub correlation_data: Option<&'a [u8]>,
    /// In the downlink: under what a report of what becomes of it is wanted, if one is.
    pub report: Option<&'a str>,
    /// User properties in order; a name may stand there more than once.
    pub user_properties: Vec<(&'a str, &'a str)>,
    /// The payload.
    pub payload: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Everything but the payload and the user properties.
    #[must_use]
    pub fn fields(&self) -> Fields<'a> {
        Fields {
            topic: self.topic,
            qos: self.qos,
            retain: self.retain,
            client_id: self.client_id,
            user: self.user,
            tenant: self.tenant,
            node: self.node,
            received_at_micros: self.received_at_micros,
            payload_format: self.payload_format,
            message_expiry_s: self.message_expiry_s,
            content_type: self.content_type,
            response_topic: self.response_topic,
            correlation_data: self.correlation_data,
        }
    }

    /// Calls `f` with the name and value of every header, user properties last and in their order.
    pub fn for_each_header(&self, mut f: impl FnMut(&str, &[u8])) {
        if let Some(report) = self.report {
            f(header::REPORT, report.as_bytes());
        }
        self.fields()
            .for_each_header(self.user_properties.iter().copied(), &mut String::new(), f);
    }

    /// Reads a record. Headers that are not named here are skipped; of a header that may stand once, the last one counts,
    /// as with Kafka's `lastHeader`. A header without a value is an empty one.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError`] when the record could not be published as an MQTT message.
    pub fn parse(
        key: Option<&'a [u8]>,
        payload: &'a [u8],
        headers: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
    ) -> Result<Self, EnvelopeError> {
        let mut envelope = Envelope {
            payload,
            ..Envelope::default()
        };
        let mut topic = None;
        for (name, value) in headers {
            let value = value.unwrap_or_default();
            if let Some(property) = header::user_property(name) {
                let field = "the name of a user property";
                let property = text(field, property.as_bytes())?;
                let value = text("the value of a user property", value)?;
                envelope.user_properties.push((property, value));
                continue;
            }
            match name {
                header::TOPIC => topic = Some(topic_name(header::TOPIC, value)?),
                header::QOS => envelope.qos = digit(header::QOS, value, 2, "0, 1 or 2")?,
                header::RETAIN => envelope.retain = digit(header::RETAIN, value, 1, "0 or 1")? == 1,
                header::CLIENT_ID => envelope.client_id = Some(text(header::CLIENT_ID, value)?),
                header::USER => envelope.user = Some(text(header::USER, value)?),
                header::TENANT => envelope.tenant = Some(text(header::TENANT, value)?),
                header::NODE => envelope.node = Some(text(header::NODE, value)?),
                header::RECEIVED_AT => {
                    envelope.received_at_micros = Some(number(
                        header::RECEIVED_AT,
                        value,
                        "microseconds since 1970 in decimal digits",
                    )?);
                }
                header::PAYLOAD_FORMAT => {
                    envelope.payload_format =
                        Some(digit(header::PAYLOAD_FORMAT, value, 1, "0 or 1")?);
                }
                header::MESSAGE_EXPIRY => {
                    let allowed = "seconds in decimal digits, at most 4294967295";
                    let seconds = number(header::MESSAGE_EXPIRY, value, allowed)?;
                    envelope.message_expiry_s =
                        Some(u32::try_from(seconds).map_err(|_| EnvelopeError::BadValue {
                            field: header::MESSAGE_EXPIRY,
                            allowed,
                        })?);
                }
                header::CONTENT_TYPE => {
                    envelope.content_type = Some(text(header::CONTENT_TYPE, value)?)
                }
                header::RESPONSE_TOPIC => {
                    envelope.response_topic = Some(topic_name(header::RESPONSE_TOPIC, value)?);
                }
                header::CORRELATION_DATA => {
                    envelope.correlation_data = Some(binary(header::CORRELATION_DATA, value)?);
                }
                header::REPORT => envelope.report = Some(correlation(value)?),
                _ => {}
            }
        }
        envelope.topic = match (topic, key) {
            (Some(topic), _) => topic,
            (None, Some(key)) => topic_name("key", key)?,
            (None, None) => return Err(EnvelopeError::NoTopic),
        };
        Ok(envelope)
    }
}

fn binary<'a>(field: &'static str, value: &'a [u8]) -> Result<&'a [u8], EnvelopeError> {
    if value.len() > FIELD_BYTES_MAX {
        return Err(EnvelopeError::TooLong {
            field,
            bytes: value.len(),
        });
    }
    Ok(value)
}

fn text<'a>(field: &'static str, value: &'a [u8]) -> Result<&'a str, EnvelopeError> {
    let value =
        std::str::from_utf8(binary(field, value)?).map_err(|_| EnvelopeError::NotText { field })?;
    if value.contains('\0') {
        return Err(EnvelopeError::NotText { field });
    }
    Ok(value)
}

fn correlation(value: &[u8]) -> Result<&str, EnvelopeError> {
    if !(1..=CORRELATION_BYTES_MAX).contains(&value.len()) {
        return Err(EnvelopeError::BadValue {
            field: header::REPORT,
            allowed: "text of 1 to 256 bytes",
        });
    }
    text(header::REPORT, value)
}

fn topic_name<'a>(field: &'static str, value: &'a [u8]) -> Result<&'a str, EnvelopeError> {
    let name = text(field, value)?;
    topic::validate_name(name).map_err(|cause| EnvelopeError::BadTopic { field, cause })?;
    Ok(name)
}

fn number(field: &'static str, value: &[u8], allowed: &'static str) -> Result<u64, EnvelopeError> {
    // `parse` alone would also take a sign.
    if !value.iter().all(u8::is_ascii_digit) {
        return Err(EnvelopeError::BadValue { field, allowed });
    }
    std::str::from_utf8(value)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .ok_or(EnvelopeError::BadValue { field, allowed })
}

fn digit(
    field: &'static str,
    value: &[u8],
    max: u8,
    allowed: &'static str,
) -> Result<u8, EnvelopeError> {
    match value {
        [digit @ b'0'..=b'9'] if digit - b'0' <= max => Ok(digit - b'0'),
        _ => Err(EnvelopeError::BadValue { field, allowed }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Headers<'a> = Vec<(&'a str, Option<&'a [u8]>)>;

    fn parse<'a>(headers: &Headers<'a>) -> Result<Envelope<'a>, EnvelopeError> {
        Envelope::parse(Some(b"a/b"), b"x", headers.iter().copied())
    }

    #[test]
    fn the_key_is_the_topic_when_no_header_says_it() {
        assert_eq!(parse(&vec![]).unwrap().topic, "a/b");
        assert_eq!(parse(&vec![("mqtt.topic", Some(b"c"))]).unwrap().topic, "c");
        assert_eq!(Envelope::parse(None, b"", []), Err(EnvelopeError::NoTopic));
        assert!(matches!(
            Envelope::parse(Some(b"a/#"), b"", []),
            Err(EnvelopeError::BadTopic { field: "key", .. })
        ));
        assert_eq!(
            Envelope::parse(Some(b"\xff"), b"", []),
            Err(EnvelopeError::NotText { field: "key" })
        );
    }

    #[test]
    fn a_key_that_is_no_topic_does_no_harm_when_a_header_names_the_topic() {
        let headers: Headers = vec![("mqtt.topic", Some(b"c"))];
        assert_eq!(
            Envelope::parse(Some(b"\xff#"), b"", headers).unwrap().topic,
            "c"
        );
    }

    #[test]
    fn a_record_without_headers_is_quality_of_service_0_and_not_retained() {
        let envelope = parse(&vec![]).unwrap();
        assert_eq!(
            (envelope.qos, envelope.retain, envelope.payload),
            (0, false, b"x".as_slice())
        );
        assert_eq!(
            envelope.fields(),
            Fields {
                topic: "a/b",
                ..Fields::default()
            }
        );
    }

    #[test]
    fn foreign_headers_are_skipped_and_the_last_of_a_header_counts() {
        let headers: Headers = vec![
            ("mqtt.qos", Some(b"1")),
            ("content-type", Some(b"\xff\xff")),
            ("mqtt.future", Some(b"?")),
            ("mqtt.qos", Some(b"2")),
        ];
        let envelope = parse(&headers).unwrap();
        assert_eq!(envelope.qos, 2);
        assert!(envelope.user_properties.is_empty());
    }

    /// Whoever chooses the name of a user property cannot choose who he is.
    #[test]
    fn no_user_property_is_taken_for_the_user() {
        let fields = Fields {
            topic: "a",
            user: Some("ada"),
            tenant: Some("acme"),
            ..Fields::default()
        };
        let mut headers = Vec::new();
        let properties = [
            ("", "eve"),
            ("user", "eve"),
            ("mqtt.user", "eve"),
            ("mqtt.tenant", "x"),
        ];
        fields.for_each_header(properties, &mut String::new(), |name, value| {
            headers.push((name.to_owned(), value.to_vec()));
        });
        let headers: Headers = headers
            .iter()
            .map(|(name, value)| (name.as_str(), Some(value.as_slice())))
            .collect();
        let envelope = parse(&headers).unwrap();
        assert_eq!(
            (envelope.user, envelope.tenant),
            (Some("ada"), Some("acme"))
        );
        assert_eq!(envelope.user_properties, properties);
        assert_eq!(envelope.fields(), fields);
        assert_eq!(
            parse(&vec![("mqtt.user.", Some(b"eve"))]).unwrap().user,
            None
        );
    }

    #[test]
    fn a_wrong_header_is_named() {
        let long = vec![b'x'; FIELD_BYTES_MAX + 1];
        let cases: [(&str, &[u8]); 20] = [
            ("mqtt.qos", b"3"),
            ("mqtt.qos", b""),
            ("mqtt.qos", b"01"),
            ("mqtt.qos", b"one"),
            ("mqtt.retain", b"true"),
            ("mqtt.payload-format", b"2"),
            ("mqtt.message-expiry", b"4294967296"),
            ("mqtt.message-expiry", b"-1"),
            ("mqtt.message-expiry", b"+1"),
            ("mqtt.message-expiry", b""),
            ("mqtt.received-at", b"18446744073709551616"),
            ("mqtt.received-at", b"1.5"),
            ("mqtt.topic", b"a/+"),
            ("mqtt.topic", b""),
            ("mqtt.topic", b"a\0"),
            ("mqtt.response-topic", b"a/#"),
            ("mqtt.content-type", b"\xff"),
            ("mqtt.content-type", b"a\0"),
            ("mqtt.correlation-data", &long),
            ("mqtt.client-id", b"\xc3"),
        ];
        for (name, value) in cases {
            let error = parse(&vec![(name, Some(value))]).expect_err(name);
            assert!(error.to_string().contains(name), "{name}: {error}");
        }
        assert!(parse(&vec![("mqtt.user.a\0", Some(b""))]).is_err());
        assert!(parse(&vec![("mqtt.user.a", Some(b"\0"))]).is_err());
        assert!(parse(&vec![("traceparent", Some(b"\xff"))]).is_err());
    }

    #[test]
    fn a_small_message_has_few_headers() {
        let envelope = Envelope {
            topic: "a",
            qos: 1,
            ..Envelope::default()
        };
        let mut names = Vec::new();
        envelope.for_each_header(|name, value| {
            names.push(format!("{name}={}", String::from_utf8_lossy(value)))
        });
        assert_eq!(names, ["mqtt.topic=a", "mqtt.qos=1"]);
    }
}
