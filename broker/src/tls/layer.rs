//! The server's end of TLS as a layer.
//!
//! rustls is driven without buffers of its own: records are decrypted where they were read, and an idle connection keeps its
//! keys and nothing else.

use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic,
};

use crate::limits::TLS_PARTIAL_BYTES_MAX;
use crate::transport::{Facts, Layer, LayerError, Sides, Stray, http_answer};

/// The first byte of a TLS record that holds a part of a handshake.
const HANDSHAKE: u8 = 0x16;
/// What a record adds to what is in it, at the most.
const RECORD_BYTES: usize = 64;
/// What a record holds at the most.
const RECORD_PLAIN_BYTES: usize = 16_384;

/// See the module.
pub(crate) struct TlsLayer {
    state: State,
    /// The beginning of a record, or of a message of the handshake, whose rest has not come.
    partial: Vec<u8>,
    /// The other side has said that it sends nothing more.
    ended: bool,
}

enum State {
    /// Nothing has come: a connection that says nothing costs nothing.
    Fresh(Arc<ServerConfig>),
    Open(Box<UnbufferedServerConnection>),
    /// It failed, and says nothing more.
    Over,
}

impl fmt::Debug for TlsLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsLayer")
            .field("open", &self.is_open())
            .field("partial", &self.partial.len())
            .finish_non_exhaustive()
    }
}

fn broken(error: impl fmt::Display) -> LayerError {
    LayerError::Broken {
        layer: "TLS",
        why: error.to_string(),
    }
}

impl TlsLayer {
    pub(crate) fn new(config: Arc<ServerConfig>) -> Self {
        Self {
            state: State::Fresh(config),
            partial: Vec::new(),
            ended: false,
        }
    }

    /// Looks at the first byte of all: whether it is TLS.
    fn begins(&mut self, first: u8, down: &mut Vec<u8>) -> Result<(), LayerError> {
        let State::Fresh(config) = &self.state else {
            return Ok(());
        };
        if first == HANDSHAKE {
            let connection = UnbufferedServerConnection::new(Arc::clone(config)).map_err(broken)?;
            self.state = State::Open(Box::new(connection));
            return Ok(());
        }
        self.state = State::Over;
        match Stray::of(first) {
            Some(stray) => {
                if stray == Stray::Http {
                    down.extend(http_answer("This port speaks MQTT in TLS, not HTTP."));
                }
                Err(LayerError::Stray(stray))
            }
            None => Err(broken(format_args!("no TLS: it begins with {first:#04x}"))),
        }
    }

    /// Takes whole records off the beginning of `wire`: how many bytes.
    fn process(&mut self, wire: &mut [u8], sides: &mut Sides<'_>) -> Result<usize, LayerError> {
        let State::Open(connection) = &mut self.state else {
            return Ok(wire.len());
        };
        let mut at = 0;
        let mut failed = None;
        loop {
            let status = connection.process_tls_records(&mut wire[at..]);
            let UnbufferedStatus { mut discard, state } = status;
            let mut goes_on = true;
            match state {
                Err(error) => {
                    failed.get_or_insert(error);
                }
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => {
                                discard += record.discard;
                                sides.up.extend_from_slice(record.payload);
                            }
                            Err(error) => {
                                failed.get_or_insert(error);
                            }
                        }
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(sides.down, |room| data.encode(room))?;
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.ended = true,
                // A handshake that waits, or all is taken. Early data is not offered.
                Ok(_) => goes_on = false,
            }
            at = (at + discard).min(wire.len());
            // After a failure nothing is read any more: asked again, it gives what the other side is told of it, and when
            // that is all it would read on.
            if !goes_on || failed.is_some() && !connection.wants_write() {
                break;
            }
        }
        match failed {
            Some(error) => {
                self.state = State::Over;
                Err(broken(error))
            }
            None => Ok(at),
        }
    }

    /// Does something that only an open connection can, having put into `wire` what comes before.
    fn traffic(
        &mut self,
        wire: &mut Vec<u8>,
        mut what: impl FnMut(&mut Traffic<'_>, &mut Vec<u8>) -> Result<(), LayerError>,
    ) -> Result<(), LayerError> {
        let State::Open(connection) = &mut self.state else {
            return Err(broken("not open"));
        };
        loop {
            // The connection knows places in what it has not taken yet: it has to see that each time.
            let UnbufferedStatus { discard, state } =
                connection.process_tls_records(&mut self.partial);
            let done = match state.map_err(broken)? {
                ConnectionState::EncodeTlsData(mut data) => {
                    encode(wire, |room| data.encode(room))?;
                    false
                }
                ConnectionState::TransmitTlsData(data) => {
                    data.done();
                    false
                }
                ConnectionState::PeerClosed => {
                    self.ended = true;
                    false
                }
                ConnectionState::WriteTraffic(mut traffic) => {
                    what(&mut traffic, wire)?;
                    true
                }
                _ => return Err(broken("not open")),
            };
            self.partial.drain(..discard.min(self.partial.len()));
            if done {
                return Ok(());
            }
        }
    }
}

type Traffic<'a> = WriteTraffic<'a, ServerConnectionData>;

/// Appends what is encoded into as much room as that needs.
fn encode(
    wire: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), LayerError> {
    let at = wire.len();
    let required = match encode(&mut []) {
        Ok(_) => return Ok(()),
        Err(EncodeError::InsufficientSize(size)) => size.required_size,
        Err(error) => return Err(broken(error)),
    };
    wire.resize(at + required, 0);
    let written = encode(&mut wire[at..]).map_err(broken)?;
    wire.truncate(at + written);
    Ok(())
}

/// Appends what is encrypted; `room` is how much that is at the most.
fn encrypt(
    wire: &mut Vec<u8>,
    room: usize,
    encrypt: impl FnOnce(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<(), LayerError> {
    let at = wire.len();
    wire.resize(at + room, 0);
    let written = encrypt(&mut wire[at..]);
    wire.truncate(at + *written.as_ref().unwrap_or(&0));
    written.map(|_| ()).map_err(broken)
}

impl Layer for TlsLayer {
    fn receive(&mut self, wire: &mut [u8], sides: &mut Sides<'_>) -> Result<(), LayerError> {
        let Some(first) = wire.first() else {
            return Ok(());
        };
        self.begins(*first, sides.down)?;
        if self.partial.is_empty() {
            let taken = self.process(wire, sides)?;
            if taken < wire.len() {
                self.partial = wire[taken..].to_vec();
            }
        } else {
            let mut partial = std::mem::take(&mut self.partial);
            partial.extend_from_slice(wire);
            let taken = self.process(&mut partial, sides)?;
            if taken < partial.len() {
                partial.drain(..taken);
                self.partial = partial;
            }
        }
        if self.partial.len() > TLS_PARTIAL_BYTES_MAX {
            return Err(broken("a message that does not end"));
        }
        Ok(())
    }

    fn send(&mut self, plain: &[u8], wire: &mut Vec<u8>) -> Result<(), LayerError> {
        let records = plain.len() / RECORD_PLAIN_BYTES + 1;
        self.traffic(wire, |traffic, wire| {
            encrypt(wire, plain.len() + records * RECORD_BYTES, |room| {
                traffic.encrypt(plain, room)
            })
        })
    }

    fn finish(&mut self, wire: &mut Vec<u8>) {
        // Who has failed was told why; who is not in yet is told nothing.
        if !self.is_open() {
            return;
        }
        let _ = self.traffic(wire, |traffic, wire| {
            encrypt(wire, RECORD_BYTES, |room| traffic.queue_close_notify(room))
        });
    }

    fn is_open(&self) -> bool {
        match &self.state {
            State::Open(connection) => !connection.is_handshaking(),
            State::Fresh(_) | State::Over => false,
        }
    }

    fn is_ended(&self) -> bool {
        self.ended
    }

    fn tell(&self, facts: &mut Facts) {
        facts.is_secure = true;
        if let State::Open(connection) = &self.state
            && let Some([first, ..]) = connection.peer_certificates()
        {
            facts.certificate = Some(first.to_vec());
        }
    }
}
