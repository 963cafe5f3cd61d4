//! The data types of 1.5: integers, strings, binary data, variable byte
//! integers; read from a slice without copying, written to a `Vec`.

use crate::{DecodeError, EncodeError};

/// Longest string or binary field, in bytes (1.5.4, 1.5.6).
pub const FIELD_BYTES_MAX: usize = 65_535;

/// Largest value of a variable byte integer (1.5.5), which is also the most
/// bytes that can follow a fixed header.
pub const VARIABLE_BYTE_INTEGER_MAX: u32 = 268_435_455;

/// Bytes that the variable byte integer for `value` takes.
pub(crate) const fn varint_len(value: usize) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}

/// Reads a variable byte integer at the front of `buf`: its value and length,
/// or `None` while its last byte has not come.
pub(crate) fn read_varint(buf: &[u8]) -> Result<Option<(u32, usize)>, DecodeError> {
    let mut value = 0;
    for (i, &byte) in buf.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(Some((value, i + 1)));
        }
    }
    if buf.len() < 4 {
        return Ok(None);
    }
    Err(DecodeError::malformed(
        "a variable byte integer is longer than four bytes",
        "1.5.5",
    ))
}

/// Takes fields off the front of a slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(rest: &'a [u8]) -> Self {
        Reader { rest }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything that was not taken yet.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Refuses bytes after a packet's last field.
    pub(crate) const fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::TRAILING)
        }
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (&head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(DecodeError::TRUNCATED)?;
        self.rest = rest;
        Ok(head)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(DecodeError::TRUNCATED)?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn varint(&mut self) -> Result<u32, DecodeError> {
        let (value, len) = read_varint(self.rest)?.ok_or(DecodeError::TRUNCATED)?;
        if len != varint_len(value as usize) {
            return Err(DecodeError::malformed(
                "a variable byte integer is longer than its value needs",
                "MQTT-1.5.5-1",
            ));
        }
        self.take(len)?;
        Ok(value)
    }

    #[inline]
    pub(crate) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// A UTF-8 string that may still hold U+0000, for the caller to refuse.
    #[inline]
    pub(crate) fn utf8(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = self.binary()?;
        // `from_utf8` refuses surrogates and overlong forms, and takes ASCII
        // a word at a time.
        std::str::from_utf8(bytes).map_err(|_| {
            DecodeError::malformed("a string is not well-formed UTF-8", "MQTT-1.5.4-1")
        })
    }

    /// A UTF-8 string as the specification has it.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<&'a str, DecodeError> {
        let string = self.utf8()?;
        if string.as_bytes().contains(&0) {
            return Err(NULL_CHARACTER);
        }
        Ok(string)
    }
}

/// [MQTT-1.5.4-2]
pub(crate) const NULL_CHARACTER: DecodeError = DecodeError::malformed(
    "a string contains the null character U+0000",
    "MQTT-1.5.4-2",
);

pub(crate) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(crate) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Writes a variable byte integer; `value` was checked against
/// [`VARIABLE_BYTE_INTEGER_MAX`].
#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    debug_assert!(value <= VARIABLE_BYTE_INTEGER_MAX as usize);
    while value > 0x7F {
        out.push(value as u8 & 0x7F | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes a field whose length was checked by [`check_binary`] or
/// [`check_string`].
#[inline]
pub(crate) fn put_field(out: &mut Vec<u8>, bytes: &[u8]) {
    debug_assert!(bytes.len() <= FIELD_BYTES_MAX);
    put_u16(out, bytes.len() as u16);
    out.extend_from_slice(bytes);
}

pub(crate) fn check_binary(what: &'static str, bytes: &[u8]) -> Result<(), EncodeError> {
    if bytes.len() > FIELD_BYTES_MAX {
        let len = bytes.len();
        return Err(EncodeError::FieldTooLong { what, len });
    }
    Ok(())
}

pub(crate) fn check_string(what: &'static str, string: &str) -> Result<(), EncodeError> {
    check_binary(what, string.as_bytes())?;
    if string.as_bytes().contains(&0) {
        return Err(EncodeError::invalid(
            "a string contains the null character U+0000",
            "MQTT-1.5.4-2",
        ));
    }
    Ok(())
}

/// Refuses to write a topic name that every decoder would refuse.
pub(crate) fn check_topic_name(name: &str) -> Result<(), EncodeError> {
    check_binary("topic name", name.as_bytes())?;
    topic::validate_name(name)
        .map_err(|_| EncodeError::invalid("the topic name is invalid", "MQTT-3.3.2-2"))
}

/// Writes the fixed header. The last thing that can fail: all else was
/// checked before, so that nothing is appended on error.
#[inline]
pub(crate) fn put_header(
    out: &mut Vec<u8>,
    first: u8,
    remaining: usize,
) -> Result<(), EncodeError> {
    if remaining > VARIABLE_BYTE_INTEGER_MAX as usize {
        return Err(EncodeError::TooLarge { len: remaining });
    }
    out.reserve(1 + varint_len(remaining) + remaining);
    out.push(first);
    put_varint(out, remaining);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_byte_integers_of_table_1_1() {
        for (value, bytes) in [
            (0, &[0x00][..]),
            (127, &[0x7F]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xFF, 0x7F]),
            (16_384, &[0x80, 0x80, 0x01]),
            (2_097_151, &[0xFF, 0xFF, 0x7F]),
            (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
            (268_435_455, &[0xFF, 0xFF, 0xFF, 0x7F]),
        ] {
            let mut out = Vec::new();
            put_varint(&mut out, value as usize);
            assert_eq!(out, bytes);
            assert_eq!(varint_len(value as usize), bytes.len());
            assert_eq!(read_varint(bytes), Ok(Some((value, bytes.len()))));
            assert_eq!(Reader::new(bytes).varint(), Ok(value));
            for cut in 0..bytes.len() {
                assert_eq!(read_varint(&bytes[..cut]), Ok(None));
            }
        }
    }

    #[test]
    fn a_padded_variable_byte_integer_is_malformed() {
        for bytes in [
            &[0x80, 0x00][..],
            &[0xFF, 0x80, 0x00],
            &[0x81, 0x80, 0x80, 0x00],
        ] {
            assert!(matches!(
                Reader::new(bytes).varint(),
                Err(DecodeError::Malformed {
                    clause: "MQTT-1.5.5-1",
                    ..
                })
            ));
        }
        assert!(read_varint(&[0xFF, 0xFF, 0xFF, 0xFF]).is_err());
    }
}
