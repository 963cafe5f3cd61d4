//! Version 1: one line of text (section 2.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{ProxyError, ProxyHeader};

pub(super) const SIGNATURE: &[u8] = b"PROXY ";

/// The longest line, with its end, in bytes.
const LINE_BYTES_MAX: usize = 107;

pub(super) fn parse(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyError> {
    let seen = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = seen.windows(2).position(|pair| pair == b"\r\n") else {
        return match seen.len() {
            LINE_BYTES_MAX => Err(ProxyError::V1("it is longer than 107 bytes")),
            _ => Ok(None),
        };
    };
    let line = std::str::from_utf8(&seen[SIGNATURE.len()..end])
        .map_err(|_| ProxyError::V1("it is no text"))?;
    let source = source(line).map_err(ProxyError::V1)?;
    let header = ProxyHeader {
        source,
        ..ProxyHeader::default()
    };
    Ok(Some((header, end + 2)))
}

fn source(line: &str) -> Result<Option<SocketAddr>, &'static str> {
    let mut words = line.split(' ');
    let address: fn(&str) -> Option<IpAddr> = match words.next() {
        // Whatever stands behind it is to be ignored.
        Some("UNKNOWN") => return Ok(None),
        Some("TCP4") => |word| word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        Some("TCP6") => |word| word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return Err("it names neither TCP4 nor TCP6 nor UNKNOWN"),
    };
    let mut addresses = || words.next().and_then(address).ok_or("an address is none");
    let (source, _) = (addresses()?, addresses()?);
    let mut ports = || words.next().and_then(port).ok_or("a port is none");
    let (source_port, _) = (ports()?, ports()?);
    match words.next() {
        None => Ok(Some(SocketAddr::new(source.to_canonical(), source_port))),
        Some(_) => Err("it has more than two addresses and ports"),
    }
}

/// Digits, and not more of them than there have to be.
fn port(word: &str) -> Option<u16> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit());
    let is_short = word == "0" || !word.starts_with('0');
    (is_plain && is_short).then(|| word.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Option<SocketAddr>, ProxyError> {
        let (header, len) = parse(line.as_bytes())?.expect("it is whole");
        assert_eq!(len, line.len());
        Ok(header.source)
    }

    #[test]
    fn the_source_is_the_first_address_and_port() {
        let cases = [
            (
                "PROXY TCP4 192.0.2.1 198.51.100.7 56324 1883\r\n",
                "192.0.2.1:56324",
            ),
            (
                "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
                "255.255.255.255:65535",
            ),
            ("PROXY TCP6 2001:db8::1 ::1 0 1883\r\n", "[2001:db8::1]:0"),
            ("PROXY TCP6 ::ffff:192.0.2.1 ::1 5 1883\r\n", "192.0.2.1:5"),
        ];
        for (line, source) in cases {
            assert_eq!(parsed(line), Ok(Some(source.parse().unwrap())), "{line}");
        }
        for line in [
            "PROXY UNKNOWN\r\n",
            "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
            "PROXY UNKNOWN whatever\r\n",
        ] {
            assert_eq!(parsed(line), Ok(None), "{line}");
        }
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_BYTES_MAX - 16));
        assert_eq!(longest.len(), LINE_BYTES_MAX);
        assert_eq!(parsed(&longest), Ok(None));
    }

    #[test]
    fn a_line_that_lies_is_refused() {
        for line in [
            "PROXY TCP4\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 56324\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 56324 1883 \r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 56324 1883 7\r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.7 56324 1883\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.7 1 2\r\n",
            "PROXY TCP4 192.0.2.256 198.51.100.7 1 2\r\n",
            "PROXY TCP4 192.0.2.01 198.51.100.7 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 65536 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 -1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 +1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 01 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7  2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 1 2\n\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.7 1 2\r\n",
            "PROXY tcp4 192.0.2.1 198.51.100.7 1 2\r\n",
            "PROXY \r\n",
        ] {
            assert!(matches!(parsed(line), Err(ProxyError::V1(_))), "{line}");
        }
        assert!(matches!(parse(b"PROXY \xFF\r\n"), Err(ProxyError::V1(_))));
    }

    #[test]
    fn a_line_without_an_end_is_not_waited_for() {
        let line = format!("PROXY UNKNOWN {}", "x".repeat(LINE_BYTES_MAX));
        assert_eq!(parse(&line.as_bytes()[..LINE_BYTES_MAX - 1]), Ok(None));
        let refused = ProxyError::V1("it is longer than 107 bytes");
        assert_eq!(parse(&line.as_bytes()[..LINE_BYTES_MAX]), Err(refused));
        assert_eq!(parse(line.as_bytes()), Err(refused));
    }
}
