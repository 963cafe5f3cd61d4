//! CONNECT (3.1), the one packet that says which version it is in.

use crate::primitive::{
    NULL_CHARACTER, Reader, check_binary, check_string, check_topic_name, put_field, put_header,
    put_u16,
};
use crate::properties::Allowed;
use crate::{DecodeError, EncodeError, Properties, Qos, Version};

/// A client asks for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// Version that this and all further packets of the connection are in.
    pub version: Version,
    /// Start without the session that may exist. In 3.x ("clean session") it
    /// also ends the session with the connection.
    pub clean_start: bool,
    /// Longest silence of the client, in seconds; 0: unlimited.
    pub keep_alive: u16,
    /// May be empty: the server then chooses one (3.1.3.1), or refuses.
    /// Longer than the 23 bytes of 3.1 is accepted from 3.1 clients too.
    pub client_id: &'a str,
    /// What to publish if the client goes without a word.
    pub will: Option<Will<'a>>,
    /// User name.
    pub username: Option<&'a str>,
    /// Password; in 3.x only together with a user name.
    pub password: Option<&'a [u8]>,
    /// Empty in 3.x.
    pub properties: Properties<'a>,
}

/// A message that the server publishes for a client that went without
/// DISCONNECT (3.1.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Will<'a> {
    /// A valid topic name.
    pub topic: &'a str,
    /// The message.
    pub payload: &'a [u8],
    /// Its QoS.
    pub qos: Qos,
    /// Whether to retain it.
    pub retain: bool,
    /// Empty in 3.x.
    pub properties: Properties<'a>,
}

const RESERVED: u8 = 0x01;
const CLEAN_START: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_QOS_SHIFT: u8 = 3;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USERNAME: u8 = 0x80;

impl<'a> Connect<'a> {
    pub(crate) fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let version = read_version(&mut reader)?;
        let flags = reader.u8()?;
        let will_flags = check_flags(version, flags)?;
        let keep_alive = reader.u16()?;
        let properties = if version.has_properties() {
            Properties::read(&mut reader, Allowed::CONNECT)?
        } else {
            Properties::EMPTY
        };
        let client_id = reader.string()?;
        let will = match will_flags {
            Some((qos, retain)) => Some(Will::read(&mut reader, version, qos, retain)?),
            None => None,
        };
        // 3.1 only (its section 3.1): the flag may be set and the field
        // missing, "the remaining length takes precedence".
        let may_end = |reader: &Reader<'_>| version == Version::V31 && reader.is_empty();
        let username = if flags & USERNAME != 0 && !may_end(&reader) {
            Some(reader.string()?)
        } else {
            None
        };
        let password = if flags & PASSWORD != 0 && !may_end(&reader) {
            Some(reader.binary()?)
        } else {
            None
        };
        reader.end()?;
        Ok(Connect {
            version,
            clean_start: flags & CLEAN_START != 0,
            keep_alive,
            client_id,
            will,
            username,
            password,
            properties,
        })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let version = self.version;
        let name = version.protocol_name();
        self.check()?;
        let mut flags = 0;
        if self.clean_start {
            flags |= CLEAN_START;
        }
        let mut remaining = 2 + name.len() + 1 + 1 + 2 + 2 + self.client_id.len();
        if version.has_properties() {
            remaining += self.properties.prefixed_len();
        }
        if let Some(will) = &self.will {
            flags |= WILL | u8::from(will.qos) << WILL_QOS_SHIFT;
            if will.retain {
                flags |= WILL_RETAIN;
            }
            remaining += 2 + will.topic.len() + 2 + will.payload.len();
            if version.has_properties() {
                remaining += will.properties.prefixed_len();
            }
        }
        if let Some(username) = self.username {
            flags |= USERNAME;
            remaining += 2 + username.len();
        }
        if let Some(password) = self.password {
            flags |= PASSWORD;
            remaining += 2 + password.len();
        }
        put_header(out, 0x10, remaining)?;
        put_field(out, name.as_bytes());
        out.extend_from_slice(&[version as u8, flags]);
        put_u16(out, self.keep_alive);
        if version.has_properties() {
            self.properties.put(out);
        }
        put_field(out, self.client_id.as_bytes());
        if let Some(will) = &self.will {
            if version.has_properties() {
                will.properties.put(out);
            }
            put_field(out, will.topic.as_bytes());
            put_field(out, will.payload);
        }
        if let Some(username) = self.username {
            put_field(out, username.as_bytes());
        }
        if let Some(password) = self.password {
            put_field(out, password);
        }
        Ok(())
    }

    fn check(&self) -> Result<(), EncodeError> {
        check_string("client identifier", self.client_id)?;
        if let Some(username) = self.username {
            check_string("user name", username)?;
        }
        if let Some(password) = self.password {
            check_binary("password", password)?;
            if self.username.is_none() && !self.version.has_properties() {
                return Err(EncodeError::NotInVersion {
                    what: "password without a user name",
                    version: self.version,
                });
            }
        }
        if let Some(will) = &self.will {
            check_topic_name(will.topic)?;
            check_binary("will payload", will.payload)?;
            if self.version.has_properties() {
                will.properties.check(Allowed::WILL)?;
            }
        }
        if self.version.has_properties() {
            self.properties.check(Allowed::CONNECT)?;
        }
        Ok(())
    }
}

impl<'a> Will<'a> {
    fn read(
        reader: &mut Reader<'a>,
        version: Version,
        qos: Qos,
        retain: bool,
    ) -> Result<Self, DecodeError> {
        let properties = if version.has_properties() {
            Properties::read(reader, Allowed::WILL)?
        } else {
            Properties::EMPTY
        };
        let topic = read_topic_name(reader)?;
        let payload = reader.binary()?;
        Ok(Will {
            topic,
            payload,
            qos,
            retain,
            properties,
        })
    }
}

/// A topic name without wildcards [MQTT-3.3.2-2].
#[inline]
pub(crate) fn read_topic_name<'a>(reader: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let name = reader.utf8()?;
    match topic::validate_name(name) {
        Ok(()) => Ok(name),
        Err(error) => Err(topic_name_error(error)),
    }
}

/// U+0000 makes any string malformed, before it is a question of topics.
#[cold]
pub(crate) fn topic_name_error(error: topic::TopicError) -> DecodeError {
    match error {
        topic::TopicError::NullCharacter => NULL_CHARACTER,
        error => DecodeError::TopicName(error),
    }
}

fn read_version(reader: &mut Reader<'_>) -> Result<Version, DecodeError> {
    // [MQTT-3.1.2-1]
    let name = reader.binary()?;
    if name != b"MQTT" && name != b"MQIsdp" {
        return Err(DecodeError::NotMqtt);
    }
    match (name, reader.u8()?) {
        (b"MQIsdp", 3) => Ok(Version::V31),
        (b"MQTT", 4) => Ok(Version::V311),
        (b"MQTT", 5) => Ok(Version::V5),
        (_, level) => Err(DecodeError::UnsupportedVersion(level)),
    }
}

/// QoS and retain flag of the will, if there is one.
fn check_flags(version: Version, flags: u8) -> Result<Option<(Qos, bool)>, DecodeError> {
    // 3.1 does not use this bit.
    if flags & RESERVED != 0 && version != Version::V31 {
        return Err(DecodeError::malformed(
            "the reserved connect flag is set",
            "MQTT-3.1.2-3",
        ));
    }
    if flags & PASSWORD != 0 && flags & USERNAME == 0 && !version.has_properties() {
        return Err(DecodeError::protocol(
            "the password flag is set without the user name flag",
            "3.1.1 MQTT-3.1.2-22",
        ));
    }
    if flags & WILL != 0 {
        let qos = Qos::from_bits(flags >> WILL_QOS_SHIFT)
            .ok_or(DecodeError::malformed("the will QoS is 3", "MQTT-3.1.2-12"))?;
        return Ok(Some((qos, flags & WILL_RETAIN != 0)));
    }
    // 3.1 disregards both without a will.
    if version != Version::V31 {
        if flags & (0b11 << WILL_QOS_SHIFT) != 0 {
            return Err(DecodeError::malformed(
                "there is a will QoS but no will",
                "MQTT-3.1.2-11",
            ));
        }
        if flags & WILL_RETAIN != 0 {
            return Err(DecodeError::malformed(
                "there is a will retain flag but no will",
                "MQTT-3.1.2-13",
            ));
        }
    }
    Ok(None)
}
