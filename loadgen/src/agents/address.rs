//! Where an agent is: a name that may not be known yet, at a machine that may not be up yet.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

/// How long an agent may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause between two tries.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Agents of a run.
pub const AGENTS_MAX: usize = 10_000;

/// `HOST:PORT`, resolved when it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentAddress {
    text: String,
}

/// One or many: in `HOST-{0..99}.SERVICE:PORT` the braces stand for every number from the first to the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentAddresses(pub Vec<AgentAddress>);

impl FromStr for AgentAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |(host, port): (&str, &str)| {
            let port: u16 = port.parse().ok()?;
            (!host.is_empty() && !host.contains(['{', '}']) && port > 0).then_some(())
        };
        text.rsplit_once(':')
            .and_then(port)
            .ok_or_else(|| "an agent is HOST:PORT, for example 10.0.0.5:7401".to_owned())?;
        Ok(Self {
            text: text.to_owned(),
        })
    }
}

impl FromStr for AgentAddresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((before, rest)) = text.split_once('{') else {
            return Ok(Self(vec![text.parse()?]));
        };
        let range = rest.split_once('}').and_then(|(range, after)| {
            let (first, last) = range.split_once("..")?;
            let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last && last - first < AGENTS_MAX).then_some((first..=last, after))
        });
        let (numbers, after) = range.ok_or_else(|| {
            format!(
                "many agents are HOST-{{0..99}}:PORT, with up to {AGENTS_MAX} numbers that ascend"
            )
        })?;
        let agents = numbers.map(|number| format!("{before}{number}{after}").parse());
        Ok(Self(agents.collect::<Result<_, String>>()?))
    }
}

impl fmt::Display for AgentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl AgentAddress {
    /// Connects, and tries again until `deadline` as long as the name is not known or nobody answers. `given_up` ends it
    /// earlier.
    ///
    /// # Errors
    /// What the last try failed for.
    pub(super) fn connect(
        &self,
        deadline: Instant,
        given_up: impl Fn() -> bool,
    ) -> io::Result<TcpStream> {
        loop {
            let error = match self.try_connect() {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            if given_up() || Instant::now() + RETRY_PAUSE > deadline {
                return Err(error);
            }
            thread::sleep(RETRY_PAUSE);
        }
    }

    fn try_connect(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::other("the name has no address");
        for address in self.text.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(stream) if connected_to_itself(&stream) => {
                    last = io::ErrorKind::ConnectionRefused.into();
                }
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Linux connects a socket to itself when it happens to get the port that it asks for, on an address of its own machine.
fn connected_to_itself(stream: &TcpStream) -> bool {
    let ends: io::Result<(SocketAddr, SocketAddr)> = stream
        .local_addr()
        .and_then(|it| Ok((it, stream.peer_addr()?)));
    ends.is_ok_and(|(local, peer)| local == peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for good in ["10.0.0.5:7401", "load-agent-3.load-agents:7401", "[::1]:1"] {
            assert_eq!(good.parse::<AgentAddress>().unwrap().to_string(), good);
        }
        for bad in ["10.0.0.5", ":7401", "host:", "host:0", "host:70000", ""] {
            let error = bad.parse::<AgentAddress>().unwrap_err();
            assert!(error.contains("HOST:PORT"), "{bad}: {error}");
        }
    }

    #[test]
    fn braces_stand_for_numbers() {
        let many: AgentAddresses = "a-{9..11}.s:7401".parse().unwrap();
        let texts: Vec<String> = many.0.iter().map(AgentAddress::to_string).collect();
        assert_eq!(texts, ["a-9.s:7401", "a-10.s:7401", "a-11.s:7401"]);
        let one: AgentAddresses = "a:1".parse().unwrap();
        assert_eq!(one.0.len(), 1);
        for bad in [
            "a-{1}:1",
            "a-{2..1}:1",
            "a-{0..10000}:1",
            "a-{0..1:1",
            "a-{0..1}",
            "{0..1}{2..3}:1",
        ] {
            let error = bad.parse::<AgentAddresses>().unwrap_err();
            assert!(error.contains("PORT"), "{bad}: {error}");
        }
    }

    #[test]
    fn nobody_there_is_an_error_at_the_deadline_or_when_given_up() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address: AgentAddress = free.local_addr().unwrap().to_string().parse().unwrap();
        drop(free);
        assert!(address.connect(Instant::now(), || false).is_err());
        let later = Instant::now() + Duration::from_secs(3_600);
        assert!(address.connect(later, || true).is_err());
    }
}
