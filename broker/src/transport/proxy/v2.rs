//! Version 2: a binary header, with further values behind the addresses (section 2.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{NAME_BYTES_MAX, PROXY_HEADER_BYTES_MAX, ProxyError, ProxyHeader};

pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, command, family, length.
const FIXED_BYTES: usize = 16;

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

const UNSPECIFIED: u8 = 0x00;
const TCP_OVER_V4: u8 = 0x11;
const TCP_OVER_V6: u8 = 0x21;
const UNIX_STREAM: u8 = 0x31;

/// Types of values (section 2.2.1 and on).
const TYPE_AUTHORITY: u8 = 0x02;
const TYPE_CRC32C: u8 = 0x03;
const TYPE_SSL: u8 = 0x20;
const SUBTYPE_SSL_CN: u8 = 0x22;

/// Bits of the first byte of the value about TLS (section 2.2.6).
const CLIENT_SSL: u8 = 0x01;
const CLIENT_CERT_CONN: u8 = 0x02;
const CLIENT_CERT_SESS: u8 = 0x04;

pub(super) fn parse(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyError> {
    let command = bytes.get(SIGNATURE.len()).copied();
    if command.is_some_and(|command| command != LOCAL && command != PROXY) {
        return Err(ProxyError::V2("neither LOCAL nor PROXY"));
    }
    let Some(fixed) = bytes.get(..FIXED_BYTES) else {
        return Ok(None);
    };
    let (family, length) = (fixed[13], u16::from_be_bytes([fixed[14], fixed[15]]));
    let whole = FIXED_BYTES + usize::from(length);
    if whole > PROXY_HEADER_BYTES_MAX {
        return Err(ProxyError::TooLong(whole));
    }
    let Some(bytes) = bytes.get(..whole) else {
        return Ok(None);
    };
    if command == Some(LOCAL) {
        // The proxy speaks for itself; the rest is to be skipped, whatever it is.
        return Ok(Some((ProxyHeader::default(), whole)));
    }
    let (source, addresses) = source(family, &bytes[FIXED_BYTES..]).map_err(ProxyError::V2)?;
    let mut header = ProxyHeader {
        source,
        ..ProxyHeader::default()
    };
    values(bytes, FIXED_BYTES + addresses, &mut header).map_err(ProxyError::V2)?;
    Ok(Some((header, whole)))
}

/// The first address, and the length of all of them.
fn source(family: u8, bytes: &[u8]) -> Result<(Option<SocketAddr>, usize), &'static str> {
    const CUT: &str = "it is too short for its addresses";
    match family {
        UNSPECIFIED => Ok((None, 0)),
        TCP_OVER_V4 => {
            let (source, rest) = bytes.split_first_chunk::<4>().ok_or(CUT)?;
            let ports = rest.get(4..8).ok_or(CUT)?;
            let port = u16::from_be_bytes([ports[0], ports[1]]);
            let source = IpAddr::V4(Ipv4Addr::from_octets(*source));
            Ok((Some(SocketAddr::new(source, port)), 12))
        }
        TCP_OVER_V6 => {
            let (source, rest) = bytes.split_first_chunk::<16>().ok_or(CUT)?;
            let ports = rest.get(16..20).ok_or(CUT)?;
            let port = u16::from_be_bytes([ports[0], ports[1]]);
            let source = IpAddr::V6(Ipv6Addr::from_octets(*source)).to_canonical();
            Ok((Some(SocketAddr::new(source, port)), 36))
        }
        UNIX_STREAM => bytes.get(..216).ok_or(CUT).map(|_| (None, 216)),
        0x12 | 0x22 | 0x32 => Err("it says datagrams, which MQTT does not come by"),
        _ => Err("its family or protocol is none"),
    }
}

/// Takes what is known of the values from `at` on.
fn values(bytes: &[u8], at: usize, header: &mut ProxyHeader) -> Result<(), &'static str> {
    let mut rest = &bytes[at..];
    while !rest.is_empty() {
        let begins = bytes.len() - rest.len();
        let (kind, value) = take_value(&mut rest)?;
        match kind {
            TYPE_AUTHORITY => header.tls_name = Some(name(value)?),
            TYPE_CRC32C => check(bytes, begins, value)?,
            TYPE_SSL => tls(value, header)?,
            // What its own proxy and a later version say (section 2.2.1: to be skipped).
            _ => {}
        }
    }
    Ok(())
}

fn take_value<'a>(rest: &mut &'a [u8]) -> Result<(u8, &'a [u8]), &'static str> {
    const CUT: &str = "a value is longer than what there is of it";
    let (&[kind, high, low], behind) = rest.split_first_chunk().ok_or(CUT)?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let (value, behind) = behind.split_at_checked(length).ok_or(CUT)?;
    *rest = behind;
    Ok((kind, value))
}

fn tls(value: &[u8], header: &mut ProxyHeader) -> Result<(), &'static str> {
    let (&[client, verified @ ..], mut rest) = value
        .split_first_chunk::<5>()
        .ok_or("what it says of TLS is too short")?;
    header.is_tls = client & CLIENT_SSL != 0;
    let has_certificate = client & (CLIENT_CERT_CONN | CLIENT_CERT_SESS) != 0;
    let is_verified = header.is_tls && has_certificate && verified == [0; 4];
    while !rest.is_empty() {
        let (kind, value) = take_value(&mut rest)?;
        if kind == SUBTYPE_SSL_CN {
            let name = name(value)?;
            // A name that the proxy has not verified is anybody's.
            header.certificate_name = is_verified.then_some(name);
        }
    }
    Ok(())
}

/// A name as it may stand in a log and in a rule.
fn name(value: &[u8]) -> Result<Box<str>, &'static str> {
    if value.is_empty() || value.len() > NAME_BYTES_MAX {
        return Err("a name in it is empty or longer than 255 bytes");
    }
    let name = std::str::from_utf8(value).map_err(|_| "a name in it is no UTF-8")?;
    if name.chars().any(char::is_control) {
        return Err("a name in it has control characters");
    }
    Ok(name.into())
}

/// Compares the checksum, which stands behind the type and length at `at`, with that of the header (section 2.2.3).
fn check(bytes: &[u8], at: usize, value: &[u8]) -> Result<(), &'static str> {
    let said = value
        .try_into()
        .map(u32::from_be_bytes)
        .map_err(|_| "its checksum has not 4 bytes")?;
    let place = at + 3..at + 7;
    let at_place = |at: usize, byte: u8| if place.contains(&at) { 0 } else { byte };
    let bytes = bytes
        .iter()
        .enumerate()
        .map(|(at, byte)| at_place(at, *byte));
    match crc32c(bytes) == said {
        true => Ok(()),
        false => Err("its checksum is wrong"),
    }
}

/// CRC-32C (RFC 3720, appendix B.4), bit by bit: a header is short, and comes once a connection.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    const POLYNOMIAL: u32 = 0x82F6_3B78;
    !bytes.fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = (rest.len() as u16).to_be_bytes();
        [SIGNATURE, &[command, family], &length, rest].concat()
    }

    const V4: &[u8] = b"\xC0\0\x02\x01\xC6\x33\x64\x07\xDC\x04\x07\x5B";
    const SOURCE: &str = "192.0.2.1:56324";

    pub(crate) fn of_v4(values: &[u8]) -> Vec<u8> {
        header(PROXY, TCP_OVER_V4, &[V4, values].concat())
    }

    fn value(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind], &(value.len() as u16).to_be_bytes()[..], value].concat()
    }

    /// The values of a proxy that has ended TLS.
    pub(crate) fn tls(authority: &str, verified: u32, common_name: &str) -> Vec<u8> {
        let bits = CLIENT_SSL | CLIENT_CERT_SESS;
        [
            value(TYPE_AUTHORITY, authority.as_bytes()),
            of_tls(bits, verified, common_name),
        ]
        .concat()
    }

    fn of_tls(bits: u8, verified: u32, common_name: &str) -> Vec<u8> {
        let version = value(0x21, b"TLSv1.3");
        let common_name = value(SUBTYPE_SSL_CN, common_name.as_bytes());
        value(
            TYPE_SSL,
            &[&[bits], &verified.to_be_bytes()[..], &version, &common_name].concat(),
        )
    }

    fn parsed(bytes: &[u8]) -> Result<ProxyHeader, ProxyError> {
        let (header, len) = parse(bytes)?.expect("it is whole");
        assert_eq!(len, bytes.len());
        Ok(header)
    }

    #[test]
    fn the_source_is_the_first_address_and_port() {
        assert_eq!(
            parsed(&of_v4(&[])).unwrap().source,
            Some(SOURCE.parse().unwrap())
        );
        let mut v6 = [0; 36];
        v6[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        v6[32..34].copy_from_slice(&7_u16.to_be_bytes());
        let source = parsed(&header(PROXY, TCP_OVER_V6, &v6)).unwrap().source;
        assert_eq!(source, Some("[2001:db8::7]:7".parse().unwrap()));
        v6[..16].copy_from_slice(&Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().octets());
        let source = parsed(&header(PROXY, TCP_OVER_V6, &v6)).unwrap().source;
        assert_eq!(source, Some("192.0.2.1:7".parse().unwrap()));
    }

    #[test]
    fn who_has_no_address_has_none() {
        for bytes in [
            header(LOCAL, UNSPECIFIED, &[]),
            header(LOCAL, TCP_OVER_V4, V4),
            header(LOCAL, 0xFF, b"anything"),
            header(PROXY, UNSPECIFIED, &[]),
            header(PROXY, UNIX_STREAM, &[b'/'; 216]),
        ] {
            assert_eq!(parsed(&bytes), Ok(ProxyHeader::default()), "{bytes:?}");
        }
    }

    #[test]
    fn names_come_from_the_values() {
        let other = value(0xEA, b"vpce-08d2bf15fac5001c9");
        let values = [
            other,
            tls("app.example", 0, "device-7"),
            value(0x04, b"padding"),
        ]
        .concat();
        let expected = ProxyHeader {
            source: Some(SOURCE.parse().unwrap()),
            tls_name: Some("app.example".into()),
            is_tls: true,
            certificate_name: Some("device-7".into()),
        };
        assert_eq!(parsed(&of_v4(&values)), Ok(expected));
    }

    #[test]
    fn a_certificate_that_was_not_verified_names_nobody() {
        let name = |bits, verified| {
            let header = parsed(&of_v4(&of_tls(bits, verified, "admin"))).unwrap();
            header.certificate_name
        };
        assert_eq!(name(CLIENT_SSL | CLIENT_CERT_CONN, 0), Some("admin".into()));
        assert_eq!(name(CLIENT_SSL | CLIENT_CERT_CONN, 1), None);
        assert_eq!(name(CLIENT_SSL | CLIENT_CERT_SESS, 0x0100_0000), None);
        assert_eq!(name(CLIENT_SSL, 0), None);
        assert_eq!(name(CLIENT_CERT_CONN, 0), None, "not by TLS");
    }

    #[test]
    fn a_checksum_is_compared() {
        assert_eq!(crc32c(b"123456789".iter().copied()), 0xE306_9283);
        let mut bytes = of_v4(&[&value(TYPE_CRC32C, &[0; 4])[..], &tls("a", 0, "b")].concat());
        let place = FIXED_BYTES + V4.len() + 3;
        let crc = crc32c(bytes.iter().copied());
        bytes[place..place + 4].copy_from_slice(&crc.to_be_bytes());
        assert!(parsed(&bytes).is_ok());
        // The port is another one than the proxy said.
        bytes[FIXED_BYTES + 8] ^= 1;
        assert_eq!(parsed(&bytes), Err(ProxyError::V2("its checksum is wrong")));
        let short = of_v4(&value(TYPE_CRC32C, &[0; 3]));
        assert_eq!(
            parsed(&short),
            Err(ProxyError::V2("its checksum has not 4 bytes"))
        );
    }

    #[test]
    fn a_header_that_lies_is_refused() {
        let cut_value = [&value(TYPE_AUTHORITY, b"name")[..6], b""].concat();
        let lying_tls = value(
            TYPE_SSL,
            &[&[1, 0, 0, 0, 0, SUBTYPE_SSL_CN, 0, 9], &b"cut"[..]].concat(),
        );
        for bytes in [
            header(0x22, TCP_OVER_V4, V4),
            header(0x11, TCP_OVER_V4, V4),
            header(PROXY, 0x12, V4),
            header(PROXY, 0x22, &[0; 36]),
            header(PROXY, 0x41, V4),
            header(PROXY, 0x10, V4),
            header(PROXY, TCP_OVER_V4, &V4[..11]),
            header(PROXY, TCP_OVER_V6, V4),
            header(PROXY, UNIX_STREAM, &[0; 215]),
            of_v4(b"\x02"),
            of_v4(&cut_value),
            of_v4(&lying_tls),
            of_v4(&value(TYPE_SSL, &[1, 0, 0, 0])),
            of_v4(&value(TYPE_AUTHORITY, b"")),
            of_v4(&value(TYPE_AUTHORITY, b"\xFF")),
            of_v4(&value(TYPE_AUTHORITY, b"a\nb")),
            of_v4(&value(TYPE_AUTHORITY, b"\x1B[31m")),
            of_v4(&value(TYPE_AUTHORITY, &[b'a'; 256])),
            of_v4(&tls("a", 0, "c\0n")),
        ] {
            assert!(
                matches!(parsed(&bytes), Err(ProxyError::V2(_))),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn a_header_of_64_kib_is_refused_before_it_has_come() {
        let mut bytes = of_v4(&[]);
        bytes[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        assert_eq!(
            parse(&bytes[..FIXED_BYTES]),
            Err(ProxyError::TooLong(65_551))
        );
        let room = PROXY_HEADER_BYTES_MAX - FIXED_BYTES - V4.len() - 3;
        assert!(parsed(&of_v4(&value(0x04, &vec![0; room]))).is_ok());
        let one_more = of_v4(&value(0x04, &vec![0; room + 1]));
        assert_eq!(
            parse(&one_more),
            Err(ProxyError::TooLong(PROXY_HEADER_BYTES_MAX + 1))
        );
    }
}
