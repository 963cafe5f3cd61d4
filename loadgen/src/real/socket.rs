//! Sockets towards the broker, from addresses of choice, and why they fail in words that can be counted.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// What became of a connect call.
#[derive(Debug)]
pub(crate) enum Begun {
    /// It is under way.
    Stream(TcpStream),
    /// The other side refused at once, or there is no way to it.
    Failed(io::Error),
}

/// Starts to connect. A source address takes one of its ports here: the kernel's port range is the bound of connections
/// for each (socket2 does not offer `IP_BIND_ADDRESS_NO_PORT`, with which they could be shared between brokers).
///
/// # Errors
/// This machine lacks something: files, ports, memory, or the source address.
pub(crate) fn begin(broker: SocketAddr, source: Option<IpAddr>) -> io::Result<Begun> {
    let socket = Socket::new(
        Domain::for_address(broker),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    // Nothing else says "now" to a message that waits for the acknowledgement of the one before.
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&broker.into()) {
        Ok(()) => {}
        Err(error) if is_under_way(&error) => {}
        Err(error) if is_of_the_network(&error) => return Ok(Begun::Failed(error)),
        Err(error) => return Err(error),
    }
    Ok(Begun::Stream(TcpStream::from_std(socket.into())))
}

/// Makes the end of a connection abrupt: the other side gets a reset when it is dropped.
pub(crate) fn make_abrupt(stream: &TcpStream) {
    // A socket that is gone already needs no telling.
    drop(SockRef::from(stream).set_linger(Some(Duration::ZERO)));
}

/// Lets the kernel take as little as it can in place of a client that does not read.
pub(crate) fn keep_little_unread(stream: &TcpStream) {
    /// Less than any kernel's least, which it takes instead.
    const BYTES: usize = 1;
    // Where it is refused, the kernel takes more.
    drop(SockRef::from(stream).set_recv_buffer_size(BYTES));
}

/// Whether a source address has no port left, and another one may have.
pub(crate) fn is_out_of_ports(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse
    )
}

fn is_under_way(error: &io::Error) -> bool {
    /// EINPROGRESS, for which the standard library has no stable name.
    const IN_PROGRESS: i32 = 115;
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(IN_PROGRESS)
}

fn is_of_the_network(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

/// Why a connection failed: the same words for the same reason.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => "connection reset".to_owned(),
        io::ErrorKind::TimedOut => "connection timed out".to_owned(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "no way to the broker".to_owned()
        }
        _ => error.to_string(),
    }
}
