//! What a backend appends to the downlink topic, for the broker to publish.

use crate::{Envelope, EnvelopeError};

/// A message to MQTT subscribers, owned, so that a backend can build it and hand it on.
///
/// ```
/// let receipt = envelope::Downlink::new("users/alice/receipts", br#"{"seq":42}"#).qos(1);
/// assert_eq!(receipt.key(), b"users/alice/receipts");
/// receipt.validate().unwrap();
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Downlink {
    /// The topic name to publish to.
    pub topic: String,
    /// The payload.
    pub payload: Vec<u8>,
    /// The quality of service, 0 to 2.
    pub qos: u8,
    /// Whether the broker keeps it as the topic's retained message. With an empty payload it removes that.
    pub retain: bool,
    /// Payload format indicator: 0 unspecified bytes, 1 UTF-8.
    pub payload_format: Option<u8>,
    /// Message expiry interval in seconds, counted from the record's timestamp: a message that lay in Kafka for longer is
    /// not delivered any more.
    pub message_expiry_s: Option<u32>,
    /// Content type.
    pub content_type: Option<String>,
    /// Response topic.
    pub response_topic: Option<String>,
    /// Correlation data.
    pub correlation_data: Option<Vec<u8>>,
    /// Under what reports of what becomes of it are wanted (see [`report`](crate::report)), if they are: text of 1 to 256
    /// bytes.
    pub report: Option<String>,
    /// User properties in order.
    pub user_properties: Vec<(String, String)>,
}

impl Downlink {
    /// A message with quality of service 0, not retained, without properties.
    #[must_use]
    pub fn new(topic: impl Into<String>, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            topic: topic.into(),
            payload: payload.into(),
            ..Self::default()
        }
    }

    /// Sets the quality of service.
    #[must_use]
    pub fn qos(mut self, qos: u8) -> Self {
        self.qos = qos;
        self
    }

    /// Sets whether it is retained.
    #[must_use]
    pub fn retain(mut self, retain: bool) -> Self {
        self.retain = retain;
        self
    }

    /// Sets the payload format indicator.
    #[must_use]
    pub fn payload_format(mut self, format: u8) -> Self {
        self.payload_format = Some(format);
        self
    }

    /// Sets the message expiry interval in seconds.
    #[must_use]
    pub fn message_expiry_s(mut self, seconds: u32) -> Self {
        self.message_expiry_s = Some(seconds);
        self
    }

    /// Sets the content type.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// Sets the response topic.
    #[must_use]
    pub fn response_topic(mut self, topic: impl Into<String>) -> Self {
        self.response_topic = Some(topic.into());
        self
    }

    /// Sets the correlation data.
    #[must_use]
    pub fn correlation_data(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.correlation_data = Some(data.into());
        self
    }

    /// Asks for reports of what becomes of it, under this text.
    #[must_use]
    pub fn report(mut self, correlation: impl Into<String>) -> Self {
        self.report = Some(correlation.into());
        self
    }

    /// Adds a user property after those already there.
    #[must_use]
    pub fn user_property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.user_properties.push((name.into(), value.into()));
        self
    }

    /// The record's key: the topic, so that messages to one topic stay in order.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.topic.as_bytes()
    }

    /// The message as an envelope; its headers are the record's headers.
    #[must_use]
    pub fn envelope(&self) -> Envelope<'_> {
        Envelope {
            topic: &self.topic,
            qos: self.qos,
            retain: self.retain,
            client_id: None,
            user: None,
            tenant: None,
            node: None,
            received_at_micros: None,
            payload_format: self.payload_format,
            message_expiry_s: self.message_expiry_s,
            content_type: self.content_type.as_deref(),
            response_topic: self.response_topic.as_deref(),
            correlation_data: self.correlation_data.as_deref(),
            report: self.report.as_deref(),
            user_properties: self
                .user_properties
                .iter()
                .map(|(name, value)| (&**name, &**value))
                .collect(),
            payload: &self.payload,
        }
    }

    /// Calls `f` with the name and value of every header.
    pub fn for_each_header(&self, f: impl FnMut(&str, &[u8])) {
        self.envelope().for_each_header(f);
    }

    /// Whether the bridge will be able to publish it. Worth asking before appending: the bridge can only put a record that
    /// it cannot publish among the dead letters.
    ///
    /// # Errors
    ///
    /// What the bridge would say about the record.
    pub fn validate(&self) -> Result<(), EnvelopeError> {
        let mut headers = Vec::new();
        self.for_each_header(|name, value| headers.push((name.to_owned(), value.to_vec())));
        let headers = headers
            .iter()
            .map(|(name, value)| (&**name, Some(&**value)));
        Envelope::parse(Some(self.key()), &self.payload, headers).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validate_says_what_the_bridge_would_say() {
        assert_eq!(Downlink::new("a/b", "x").validate(), Ok(()));
        assert!(matches!(
            Downlink::new("a/#", "x").validate(),
            Err(EnvelopeError::BadTopic { .. })
        ));
        assert!(matches!(
            Downlink::new("", "x").validate(),
            Err(EnvelopeError::BadTopic { .. })
        ));
        assert!(matches!(
            Downlink::new("a", "x").qos(3).validate(),
            Err(EnvelopeError::BadValue { .. })
        ));
        assert!(matches!(
            Downlink::new("a", "x").user_property("a", "\0").validate(),
            Err(EnvelopeError::NotText { .. })
        ));
        assert_eq!(Downlink::new("a", "x").report("c-1").validate(), Ok(()));
        for bad in [String::new(), "x".repeat(257)] {
            assert!(matches!(
                Downlink::new("a", "x").report(bad).validate(),
                Err(EnvelopeError::BadValue { .. })
            ));
        }
    }

    #[test]
    fn the_builder_sets_every_field() {
        let downlink = Downlink::new("a", "x")
            .qos(2)
            .retain(true)
            .payload_format(1)
            .message_expiry_s(60)
            .content_type("application/json")
            .response_topic("r")
            .correlation_data([1, 2])
            .report("c-1")
            .user_property("k", "1")
            .user_property("k", "2");
        let envelope = Envelope {
            topic: "a",
            qos: 2,
            retain: true,
            payload_format: Some(1),
            message_expiry_s: Some(60),
            content_type: Some("application/json"),
            response_topic: Some("r"),
            correlation_data: Some(&[1, 2]),
            report: Some("c-1"),
            user_properties: vec![("k", "1"), ("k", "2")],
            payload: b"x",
            ..Envelope::default()
        };
        assert_eq!(downlink.envelope(), envelope);
    }
}
