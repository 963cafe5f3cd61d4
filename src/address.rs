//! Addresses as operators write them, and listeners bound to them with an error that says what to do next.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

use crate::exit::Failure;

/// What an address may look like, for messages.
const FORM: &str = "HOST:PORT, for example 127.0.0.1:1883, [::1]:1883 or localhost:1883";

/// The first socket address that `text` names. `option` is the option or key it came from, for the message.
///
/// # Errors
/// A start failure naming `option`, the text and the allowed form.
pub fn resolve(option: &str, text: &str) -> Result<SocketAddr, Failure> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let bad = |why: String| {
        Failure::cannot_start(format!(
            "{option} {text:?} is not an address ({why}): write {FORM}"
        ))
    };
    let port = text
        .rsplit_once(':')
        .ok_or_else(|| bad("no port".into()))?
        .1;
    if port.parse::<u16>().is_err() {
        return Err(bad(format!(
            "{port:?} is not a port number between 0 and 65535"
        )));
    }
    text.to_socket_addrs()
        .map_err(|error| bad(error.to_string()))?
        .next()
        .ok_or_else(|| bad("the name has no address".into()))
}

/// Binds the HTTP listener.
///
/// # Errors
/// A start failure that names the option, the address and what to do next.
pub fn listen(option: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    let listener =
        TcpListener::bind(address).map_err(|error| cannot_listen(option, address, &error))?;
    listener
        .set_nonblocking(true)
        .map_err(|error| cannot_listen(option, address, &error))?;
    Ok(listener)
}

/// One sentence for a listener that could not be bound.
pub fn cannot_listen(option: &str, address: SocketAddr, error: &io::Error) -> Failure {
    Failure::cannot_start(match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "{address} is in use by another process: stop that one, or choose another address with {option} {}:{}",
            Host(address),
            address.port().wrapping_add(1).max(1024)
        ),
        io::ErrorKind::AddrNotAvailable => format!(
            "{address} is not an address of this machine: choose one that is with {option}, for example {option} \
             127.0.0.1:{}",
            address.port()
        ),
        io::ErrorKind::PermissionDenied => {
            format!("this user may not listen on {address}: choose a port above 1023 with {option}")
        }
        _ => format!("cannot listen on {address} ({error}): choose another address with {option}"),
    })
}

struct Host(SocketAddr);

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            SocketAddr::V4(v4) => write!(f, "{}", v4.ip()),
            SocketAddr::V6(v6) => write!(f, "[{}]", v6.ip()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolves_what_operators_write() {
        for (text, expected) in [
            ("127.0.0.1:1883", "127.0.0.1:1883"),
            ("[::1]:80", "[::1]:80"),
            ("0.0.0.0:0", "0.0.0.0:0"),
        ] {
            assert_eq!(resolve("--mqtt", text).unwrap().to_string(), expected);
        }
        assert_eq!(resolve("--mqtt", "localhost:7").unwrap().port(), 7);
    }

    #[test]
    fn a_bad_address_names_option_text_and_form() {
        for text in ["", "1883", "127.0.0.1", "127.0.0.1:99999", "127.0.0.1:http"] {
            let message = resolve("--mqtt", text).unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("--mqtt {text:?}")),
                "{message}"
            );
            assert!(message.contains("HOST:PORT"), "{message}");
        }
    }

    #[test]
    fn a_port_in_use_is_said_so() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let message = listen("--http", address).unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("{address} is in use")),
            "{message}"
        );
        assert!(message.contains("--http 127.0.0.1:"), "{message}");
    }
}
