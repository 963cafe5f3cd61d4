//! The names of the headers, and how a number or a user property becomes one.
//!
//! A number is its decimal ASCII text: every Kafka client and `kcat` can print it, and nobody has to agree on a byte order.

/// The MQTT topic name, UTF-8. Missing: the record's key is the topic name.
pub const TOPIC: &str = "mqtt.topic";

/// The quality of service with which the message was published, `0`, `1` or `2`. Missing: `0`.
pub const QOS: &str = "mqtt.qos";

/// `1` for a retained message, `0` or missing for any other.
pub const RETAIN: &str = "mqtt.retain";

/// The client identifier of the publisher, UTF-8. Missing in the downlink.
pub const CLIENT_ID: &str = "mqtt.client-id";

/// The user that the publisher is, as the broker knows it: by password, token or certificate, never by what the publisher says
/// of itself. UTF-8. Missing: nobody asked who it is. No user property becomes this header.
pub const USER: &str = "mqtt.user";

/// The tenant of that user, UTF-8. Missing: it has none.
pub const TENANT: &str = "mqtt.tenant";

/// The name of the broker node that took the message, UTF-8.
pub const NODE: &str = "mqtt.node";

/// When the broker read the message: microseconds since the Unix epoch.
pub const RECEIVED_AT: &str = "mqtt.received-at";

/// Payload format indicator, `0` or `1` (MQTT 5.0, 3.3.2.3.2).
pub const PAYLOAD_FORMAT: &str = "mqtt.payload-format";

/// Message expiry interval in seconds as the publisher gave it (MQTT 5.0, 3.3.2.3.3), less the time that the node held it.
pub const MESSAGE_EXPIRY: &str = "mqtt.message-expiry";

/// Content type, UTF-8 (MQTT 5.0, 3.3.2.3.9).
pub const CONTENT_TYPE: &str = "mqtt.content-type";

/// Response topic, a topic name (MQTT 5.0, 3.3.2.3.5).
pub const RESPONSE_TOPIC: &str = "mqtt.response-topic";

/// Correlation data, raw bytes (MQTT 5.0, 3.3.2.3.6).
pub const CORRELATION_DATA: &str = "mqtt.correlation-data";

/// What stands before the name of a user property (MQTT 5.0, 3.3.2.3.7). User properties keep their order and may repeat.
pub const USER_PREFIX: &str = "mqtt.user.";

/// Marks a record that is no MQTT message but a change that a backend's HTTP API wrote into its own log, and says which
/// kind. No MQTT client can set it.
pub const CHANGE: &str = "millstream.change";

/// Asks for a report of what becomes of a downlink record, see [`crate::report`]: its value comes back in it. Text of 1 to 256
/// bytes.
pub const REPORT: &str = "mill.report";

/// The user properties that are headers under their own name, because tracing tools look for them there (W3C Trace Context).
pub const TRACE_NAMES: [&str; 2] = ["traceparent", "tracestate"];

/// The header of the user property `name`. `scratch` holds the name when one has to be put together, so that a caller with
/// many messages allocates once.
#[must_use]
pub fn user_header<'a>(name: &'a str, scratch: &'a mut String) -> &'a str {
    if TRACE_NAMES.contains(&name) {
        return name;
    }
    scratch.clear();
    scratch.push_str(USER_PREFIX);
    scratch.push_str(name);
    scratch
}

/// The user property that the header `header` carries, or `None` when it carries none.
#[must_use]
pub fn user_property(header: &str) -> Option<&str> {
    if TRACE_NAMES.contains(&header) {
        return Some(header);
    }
    header.strip_prefix(USER_PREFIX)
}

/// A number as decimal ASCII without an allocation.
pub(crate) struct Decimal {
    digits: [u8; Self::DIGITS_MAX],
    start: usize,
}

impl Decimal {
    /// The digits of `u64::MAX`.
    const DIGITS_MAX: usize = 20;

    pub(crate) fn new(mut value: u64) -> Self {
        let mut digits = [b'0'; Self::DIGITS_MAX];
        let mut start = Self::DIGITS_MAX;
        loop {
            start -= 1;
            // The remainder of a division by ten fits a byte.
            digits[start] = b'0' + u8::try_from(value % 10).unwrap_or(0);
            value /= 10;
            if value == 0 {
                return Self { digits, start };
            }
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_is_what_to_string_gives() {
        for value in [0, 1, 9, 10, 99, 100, 1_766_000_000_000_000, u64::MAX] {
            assert_eq!(Decimal::new(value).as_bytes(), value.to_string().as_bytes());
        }
    }

    #[test]
    fn a_user_property_comes_back_from_its_header() {
        let mut scratch = String::new();
        for name in [
            "",
            "a",
            "mqtt.topic",
            "mqtt.user.a",
            "traceparent",
            "tracestate",
            "Traceparent",
            "ü",
        ] {
            let header = user_header(name, &mut scratch).to_owned();
            assert_eq!(user_property(&header), Some(name), "{header}");
        }
        assert_eq!(user_header("traceparent", &mut scratch), "traceparent");
        assert_eq!(user_header("a", &mut scratch), "mqtt.user.a");
        assert_eq!(user_property("mqtt.topic"), None);
        assert_eq!(user_property("other"), None);
    }
}
