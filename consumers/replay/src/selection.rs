//! Which records are meant: by MQTT topic, by headers, by publisher, by what the payload says.

use envelope::header;
use serde_json::Value;
use serde_json_path::JsonPath;

use crate::Error;
use crate::line::Line;

/// What a record must have. An empty one means all.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    filters: Vec<String>,
    headers: Vec<(String, String)>,
    client_id: Option<String>,
    conditions: Vec<JsonPath>,
}

/// What `--where` may say.
const CONDITION: &str = "a condition of RFC 9535 on a JSON payload, which is @: @.value > 30 && @.unit == 'C', @.reading.battery, \
                         match(@.room, 'kitchen.*')";

impl Selection {
    /// Records whose MQTT topic matches one of `filters` (if there is one), that have every one of `headers` (`NAME=VALUE`),
    /// were published by `client_id`, and have a JSON payload that fulfils every one of `conditions`.
    ///
    /// # Errors
    /// A filter that MQTT forbids, a header without `=`, or a condition that is none.
    pub fn new(
        filters: &[String],
        headers: &[String],
        client_id: Option<&str>,
        conditions: &[String],
    ) -> Result<Self, Error> {
        for filter in filters {
            topic::validate_filter(filter).map_err(|error| {
                let allowed = format!("an MQTT topic filter such as rooms/+/messages ({error})");
                Error::option("--filter", filter, allowed)
            })?;
        }
        let headers = headers
            .iter()
            .map(|given| match given.split_once('=') {
                Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
                _ => Err(Error::option(
                    "--header",
                    given,
                    "NAME=VALUE, for example mqtt.user.tenant=acme",
                )),
            })
            .collect::<Result<_, _>>()?;
        // A condition is asked of the elements of a list, so the payload is made the one element of one.
        let condition = |text: &String| {
            JsonPath::parse(&format!("$[?{text}]"))
                .map_err(|error| Error::option("--where", text, format!("{CONDITION} ({error})")))
        };
        Ok(Self {
            filters: filters.to_vec(),
            headers,
            client_id: client_id.map(ToOwned::to_owned),
            conditions: conditions.iter().map(condition).collect::<Result<_, _>>()?,
        })
    }

    /// Whether `record` is meant.
    #[must_use]
    pub fn takes(&self, record: &Line<'_>) -> bool {
        if let Some(client_id) = &self.client_id
            && record.last_header(header::CLIENT_ID) != Some(client_id.as_bytes())
        {
            return false;
        }
        if !self.filters.is_empty() && !self.takes_topic(record) {
            return false;
        }
        let has = |(name, value): &(String, String)| {
            let mut headers = record.headers.iter();
            headers.any(|(other, found)| other == name && *found == Some(value.as_bytes()))
        };
        self.headers.iter().all(has) && self.fulfils(record)
    }

    fn fulfils(&self, record: &Line<'_>) -> bool {
        if self.conditions.is_empty() {
            return true;
        }
        let Ok(payload) = serde_json::from_slice::<Value>(record.value.unwrap_or_default()) else {
            return false;
        };
        let payload = Value::Array(vec![payload]);
        let mut conditions = self.conditions.iter();
        conditions.all(|condition| !condition.query(&payload).is_empty())
    }

    fn takes_topic(&self, record: &Line<'_>) -> bool {
        // What the contract says: the header, else the key.
        let name = record.last_header(header::TOPIC).or(record.key);
        let Some(name) = name.and_then(|name| std::str::from_utf8(name).ok()) else {
            return false;
        };
        self.filters
            .iter()
            .any(|filter| topic::matches(filter, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(selection: &Selection, headers: &[(&str, &str)], key: &str) -> bool {
        let headers = headers
            .iter()
            .map(|&(name, value)| (name, Some(value.as_bytes())))
            .collect();
        selection.takes(&Line {
            key: Some(key.as_bytes()),
            headers,
            ..Line::default()
        })
    }

    fn selection(filters: &[&str], headers: &[&str], client: Option<&str>) -> Selection {
        let owned = |texts: &[&str]| texts.iter().map(|&t| t.to_owned()).collect::<Vec<_>>();
        Selection::new(&owned(filters), &owned(headers), client, &[]).unwrap()
    }

    #[test]
    fn the_header_says_the_topic_and_the_key_does_without_one() {
        let rooms = selection(&["rooms/+/messages", "x"], &[], None);
        assert!(takes(&rooms, &[("mqtt.topic", "rooms/a/messages")], "k"));
        assert!(takes(&rooms, &[], "rooms/a/messages"));
        assert!(takes(&rooms, &[], "x"));
        assert!(!takes(
            &rooms,
            &[("mqtt.topic", "rooms/a")],
            "rooms/a/messages"
        ));
        // The last of a header counts.
        let twice = [("mqtt.topic", "x"), ("mqtt.topic", "y")];
        assert!(!takes(&rooms, &twice, "k"));
    }

    #[test]
    fn every_condition_must_hold() {
        let all = selection(&["#"], &["a=1", "b=x=y"], Some("c"));
        let good = [
            ("mqtt.client-id", "c"),
            ("a", "1"),
            ("a", "2"),
            ("b", "x=y"),
        ];
        assert!(takes(&all, &good, "t"));
        for left_out in [0, 1, 3] {
            let mut headers = good.to_vec();
            headers.remove(left_out);
            assert!(!takes(&all, &headers, "t"), "{left_out}");
        }
        assert!(takes(&Selection::default(), &[], "t"));
    }

    #[test]
    fn the_payload_fulfils_conditions() {
        let takes = |conditions: &[&str], payload: &str| {
            let conditions: Vec<String> = conditions.iter().map(|&text| text.to_owned()).collect();
            let selection = Selection::new(&[], &[], None, &conditions).unwrap();
            selection.takes(&Line {
                value: Some(payload.as_bytes()),
                ..Line::default()
            })
        };
        let payload = r#"{"value": 31.5, "unit": "C", "of": {"room": "kitchen 2"}, "tags": ["a"]}"#;
        for (conditions, expected) in [
            (&["@.value > 30 && @.unit == 'C'"][..], true),
            (&["@.value > 30", "@.unit == 'F'"], false),
            (&["@.of.room"], true),
            (&["@.of.floor"], false),
            (&["match(@.of.room, 'kitchen.*')"], true),
            (&["@.tags[0] == 'a'"], true),
            (&["!@.value"], false),
        ] {
            assert_eq!(takes(conditions, payload), expected, "{conditions:?}");
        }
        // A payload may be no object, or no JSON.
        assert!(takes(&["@ > 4"], "5"));
        assert!(!takes(&["@ > 4"], "5 and more"));
        assert!(!takes(&["@"], ""));
    }

    #[test]
    fn what_is_no_filter_and_no_header_is_refused() {
        let error = Selection::new(&["a/#/b".to_owned()], &[], None, &[]).unwrap_err();
        assert!(error.to_string().contains("--filter"), "{error}");
        for bad in ["a", "=1", ""] {
            let error = Selection::new(&[], &[bad.to_owned()], None, &[]).unwrap_err();
            assert!(error.to_string().contains("NAME=VALUE"), "{error}");
        }
        for bad in ["", "@.a >", "@.a > 1] || $[?@.b", "value > 1"] {
            let error = Selection::new(&[], &[], None, &[bad.to_owned()]).unwrap_err();
            assert!(error.to_string().contains("--where"), "{error}");
        }
    }
}
