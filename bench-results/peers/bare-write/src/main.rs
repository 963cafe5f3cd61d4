//! The floor of a fan-out: takes MQTT 3.1.1 clients and gives every PUBLISH, byte for byte as it came, to every client
//! that has subscribed to anything, with one `write` each. No topics, no sessions, no queues, no timers, one thread: what
//! is left is what the kernel takes for a delivery. It is no broker, and measures nothing but `millstream load fan-out`.
//!
//! `bare-write-peer HOST:PORT`

use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);
const EVENTS_PER_TURN_MAX: usize = 1_024;

/// What is read at once; also the largest packet.
const READ_BYTES: usize = 64 * 1_024;

/// A subscriber that leaves so much unread is cut: nothing is dropped in silence.
const UNWRITTEN_BYTES_MAX: usize = 64 * 1_048_576;

struct Client {
    stream: TcpStream,
    /// The beginning of a packet.
    unread: Vec<u8>,
    /// What the socket did not take; empty as long as the client reads.
    unwritten: Vec<u8>,
}

impl Client {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut written = 0;
        if self.unwritten.is_empty() {
            written = match self.stream.write(bytes) {
                Ok(written) => written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
        }
        self.unwritten.extend_from_slice(&bytes[written..]);
        if self.unwritten.len() > UNWRITTEN_BYTES_MAX {
            return Err(io::Error::other("it does not read"));
        }
        Ok(())
    }

    fn write_rest(&mut self) -> io::Result<()> {
        while !self.unwritten.is_empty() {
            match self.stream.write(&self.unwritten) {
                Ok(written) => drop(self.unwritten.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// By the number of their tokens; numbers are not used again.
#[derive(Default)]
struct Clients {
    all: Vec<Option<Client>>,
    subscribers: Vec<usize>,
}

impl Clients {
    fn accept(&mut self, listener: &TcpListener, poll: &Poll) -> io::Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let interests = Interest::READABLE | Interest::WRITABLE;
            poll.registry()
                .register(&mut stream, Token(self.all.len()), interests)?;
            self.all.push(Some(Client {
                stream,
                unread: Vec::new(),
                unwritten: Vec::new(),
            }));
        }
    }

    /// Takes all that a client has sent.
    fn read(&mut self, at: usize, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            let Some(client) = &mut self.all[at] else {
                return Ok(());
            };
            let kept = client.unread.len();
            buffer[..kept].copy_from_slice(&client.unread);
            let read = match client.stream.read(&mut buffer[kept..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            client.unread.clear();
            let mut rest = &buffer[..kept + read];
            while let Some((head, len)) = frame(rest)? {
                let (packet, behind) = rest.split_at(len);
                self.take(at, packet, head)?;
                rest = behind;
            }
            if rest.len() == buffer.len() {
                return Err(io::Error::other("its packet is too large"));
            }
            if let Some(client) = &mut self.all[at] {
                client.unread.extend_from_slice(rest);
            }
            // Less than there is room for: the socket is empty, and more of it is a new event.
            if kept + read < buffer.len() {
                return Ok(());
            }
        }
    }

    fn take(&mut self, at: usize, packet: &[u8], head: usize) -> io::Result<()> {
        match packet[0] {
            0x30 => self.publish(packet),
            // CONNECT: accepted.
            0x10 => return self.answer(at, &[0x20, 2, 0, 0]),
            // SUBSCRIBE: QoS 0 is granted for each filter.
            0x82 => {
                let filters = filters(&packet[head..]).ok_or(ErrorKind::InvalidData)?;
                let mut suback = vec![0x90, 2 + filters, packet[head], packet[head + 1]];
                suback.resize(4 + usize::from(filters), 0);
                if !self.subscribers.contains(&at) {
                    self.subscribers.push(at);
                }
                return self.answer(at, &suback);
            }
            // PINGREQ.
            0xC0 => return self.answer(at, &[0xD0, 0]),
            // DISCONNECT.
            0xE0 => return Err(ErrorKind::UnexpectedEof.into()),
            other => {
                return Err(io::Error::other(format!(
                    "its packet begins with {other:#04x}"
                )));
            }
        }
        Ok(())
    }

    fn answer(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
        match &mut self.all[at] {
            Some(client) => client.write(bytes),
            None => Ok(()),
        }
    }

    /// A PUBLISH of QoS 0 looks the same on its way in and on its way out.
    fn publish(&mut self, packet: &[u8]) {
        let mut gone = None;
        for &at in &self.subscribers {
            let Some(client) = &mut self.all[at] else {
                continue;
            };
            if let Err(error) = client.write(packet) {
                gone = Some((at, error));
            }
        }
        // One at a time: the next one is found at the next PUBLISH.
        if let Some((at, error)) = gone {
            self.close(at, &error);
        }
    }

    fn close(&mut self, at: usize, why: &io::Error) {
        self.all[at] = None;
        self.subscribers.retain(|&subscriber| subscriber != at);
        if why.kind() != ErrorKind::UnexpectedEof {
            eprintln!("client {at}: {why}");
        }
    }
}

/// Length of the first packet's head, and of all of it; `None` when it is not there yet.
fn frame(bytes: &[u8]) -> io::Result<Option<(usize, usize)>> {
    let mut len = 0;
    for (place, &byte) in bytes.iter().skip(1).take(4).enumerate() {
        len |= usize::from(byte & 0x7F) << (7 * place);
        if byte & 0x80 == 0 {
            let head = 2 + place;
            return Ok((bytes.len() >= head + len).then_some((head, head + len)));
        }
    }
    if bytes.len() > 4 {
        return Err(io::Error::other("it does not speak MQTT"));
    }
    Ok(None)
}

/// How many filters a SUBSCRIBE has, behind its head; `None` when it is not one, or has more than its answer's length
/// can say in one byte.
fn filters(body: &[u8]) -> Option<u8> {
    let mut rest = body.get(2..)?;
    let mut count = 0_u8;
    while let Some((len, behind)) = rest.split_first_chunk() {
        rest = behind.get(usize::from(u16::from_be_bytes(*len)) + 1..)?;
        count += 1;
        if count > 125 {
            return None;
        }
    }
    rest.is_empty().then_some(count)
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args()
        .nth(1)
        .ok_or("usage: bare-write-peer HOST:PORT")?;
    let mut listener = TcpListener::bind(address.parse()?)?;
    let mut poll = Poll::new()?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(EVENTS_PER_TURN_MAX);
    let mut clients = Clients::default();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            if event.token() == LISTENER {
                clients.accept(&listener, &poll)?;
                continue;
            }
            let at = event.token().0;
            let mut result = Ok(());
            if let Some(client) = &mut clients.all[at] {
                result = client.write_rest();
            }
            if result.is_ok() && event.is_readable() {
                result = clients.read(at, &mut buffer);
            }
            if let Err(error) = result {
                clients.close(at, &error);
            }
        }
    }
}
