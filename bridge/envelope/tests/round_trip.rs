//! What goes into a record comes out of it: every field of every message, unchanged.

use envelope::{Downlink, Envelope};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Text as MQTT allows it: any UTF-8 but U+0000.
fn text() -> impl Strategy<Value = String> {
    "[^\0]{0,40}"
}

fn topic_name() -> impl Strategy<Value = String> {
    "[^\0+#]{1,40}"
}

/// Names that could be taken for headers of the contract are drawn often.
fn property_name() -> impl Strategy<Value = String> {
    prop_oneof![
        text(),
        Just("traceparent".to_owned()),
        Just("tracestate".to_owned()),
        Just("mqtt.topic".to_owned()),
        Just("mqtt.user.a".to_owned()),
        Just("same".to_owned()),
    ]
}

prop_compose! {
    fn message()(
        topic in topic_name(),
        payload in vec(any::<u8>(), 0..200),
        qos in 0u8..=2,
        retain: bool,
        payload_format in option::of(0u8..=1),
        message_expiry_s: Option<u32>,
        content_type in option::of(text()),
        response_topic in option::of(topic_name()),
        correlation_data in option::of(vec(any::<u8>(), 0..100)),
        report in option::of("[^\0]{1,40}"),
        user_properties in vec((property_name(), text()), 0..6),
    ) -> Downlink {
        Downlink {
            topic, payload, qos, retain, payload_format, message_expiry_s, content_type, response_topic,
            correlation_data, report, user_properties,
        }
    }
}

fn headers(envelope: &Envelope<'_>) -> Vec<(String, Vec<u8>)> {
    let mut headers = Vec::new();
    envelope.for_each_header(|name, value| headers.push((name.to_owned(), value.to_vec())));
    headers
}

proptest! {
    #[test]
    fn every_field_survives(
        message in message(),
        client_id in option::of(text()),
        node in option::of(text()),
        received_at_micros: Option<u64>,
        key in option::of(vec(any::<u8>(), 0..20)),
    ) {
        let before = Envelope {
            client_id: client_id.as_deref(),
            node: node.as_deref(),
            received_at_micros,
            ..message.envelope()
        };
        let headers = headers(&before);
        let after = Envelope::parse(
            key.as_deref(),
            &message.payload,
            headers.iter().map(|(name, value)| (name.as_str(), Some(value.as_slice()))),
        );
        prop_assert_eq!(after, Ok(before));
    }

    #[test]
    fn what_the_builder_makes_of_valid_parts_is_valid(message in message()) {
        prop_assert_eq!(message.validate(), Ok(()));
    }

    #[test]
    fn no_record_makes_it_panic(
        key in option::of(vec(any::<u8>(), 0..20)),
        headers in vec(("(mqtt\\.)?[a-z-]{0,16}|mqtt.qos|mqtt.message-expiry", option::of(vec(any::<u8>(), 0..20))), 0..8),
    ) {
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
        if let Ok(envelope) = Envelope::parse(key.as_deref(), b"", headers) {
            prop_assert!(topic::validate_name(envelope.topic).is_ok());
        }
    }

    #[test]
    fn a_partition_is_always_one_of_the_topic(key in vec(any::<u8>(), 0..64), partitions in 1i32..1000) {
        prop_assert!((0..partitions).contains(&envelope::partition(&key, partitions)));
    }
}
