//! The PROXY protocol, versions 1 and 2: what a proxy in front of us says of its client, before the client's first byte.
//! No I/O: bytes in, a header out. By HAProxy's `doc/proxy-protocol.txt`, whose sections are named here.

mod layer;
mod v1;
mod v2;

use std::net::SocketAddr;

pub use layer::ProxyLayer;

/// The longest header that is taken, in bytes. Version 2 could say 65,551; real ones have addresses, names and a few numbers.
pub(crate) const PROXY_HEADER_BYTES_MAX: usize = 2_048;
/// The longest name in a header, in bytes: that of a host, by DNS.
const NAME_BYTES_MAX: usize = 255;

/// What a proxy says of its client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ProxyHeader {
    /// Where the client is. None when the proxy speaks for itself, as in its health checks (LOCAL), does not know (UNKNOWN),
    /// or was reached by a Unix socket.
    pub(crate) source: Option<SocketAddr>,
    /// The name that the client asked for by TLS (SNI).
    pub(crate) tls_name: Option<Box<str>>,
    /// Whether the client came to the proxy by TLS.
    pub(crate) is_tls: bool,
    /// The common name of the client's certificate, if the proxy has verified that.
    pub(crate) certificate_name: Option<Box<str>>,
}

/// Why a connection is refused that has to begin with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProxyError {
    /// It begins with something else.
    #[error("no PROXY header, which this listener requires")]
    Missing,
    /// A line of version 1 that is none.
    #[error("a PROXY header of version 1 is malformed: {0}")]
    V1(&'static str),
    /// A header of version 2 that is none.
    #[error("a PROXY header of version 2 is malformed: {0}")]
    V2(&'static str),
    /// More than [`PROXY_HEADER_BYTES_MAX`].
    #[error("a PROXY header of {0} bytes, of which 2,048 are allowed")]
    TooLong(usize),
}

/// The header at the beginning of `bytes`, and its length; none when more of it has to come.
///
/// # Errors
/// It is none, or one that is not allowed.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyError> {
    let begins_like = |signature: &[u8]| {
        bytes
            .iter()
            .zip(signature)
            .all(|(byte, expected)| byte == expected)
    };
    if begins_like(v2::SIGNATURE) {
        v2::parse(bytes)
    } else if begins_like(v1::SIGNATURE) {
        v1::parse(bytes)
    } else {
        Err(ProxyError::Missing)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One header of each kind.
    fn sound() -> Vec<Vec<u8>> {
        vec![
            b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 1883\r\n".to_vec(),
            b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n".to_vec(),
            b"PROXY UNKNOWN\r\n".to_vec(),
            v2::tests::of_v4(&[]),
            v2::tests::of_v4(&v2::tests::tls("app.example", 0, "device-7")),
        ]
    }

    #[test]
    fn a_header_that_comes_in_pieces_is_waited_for_and_what_is_behind_it_is_left() {
        for header in sound() {
            for cut in 0..header.len() {
                assert_eq!(parse(&header[..cut]), Ok(None), "{cut} of {header:?}");
            }
            let stream = [&header[..], b"\x10\x0E\0\x04MQTT"].concat();
            let (_, len) = parse(&stream).unwrap().expect("it is whole");
            assert_eq!(len, header.len());
        }
    }

    #[test]
    fn what_is_no_header_is_known_from_the_first_byte_that_differs() {
        for bytes in [
            &b"\x10\x0E\0\x04MQTT"[..],
            b"\x16\x03\x01",
            b"GET / HTTP/1.1\r\n",
            b"PUT",
            b"PROXX",
            b"\r\n\r\n\0\r\nQUIX",
        ] {
            assert_eq!(parse(bytes), Err(ProxyError::Missing), "{bytes:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn damaged_headers_never_panic_and_are_never_waited_for_without_end(
            which in 0..5_usize, damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let mut bytes = sound()[which].clone();
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let whole = parse(&bytes);
            if let Ok(Some((_, len))) = &whole {
                prop_assert!(*len <= bytes.len());
            }
            // What was refused is refused with more behind it, and what was taken is taken.
            bytes.extend([b'x'; PROXY_HEADER_BYTES_MAX]);
            let padded = parse(&bytes);
            match whole {
                Ok(None) => prop_assert!(padded != Ok(None)),
                other => prop_assert_eq!(padded, other),
            }
        }

        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&bytes);
            let _ = parse(&[v2::SIGNATURE, &bytes].concat());
            let _ = parse(&[v1::SIGNATURE, &bytes].concat());
        }
    }
}
