//! Listening sockets: taken for all workers at the start, and accepted on by each.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use mio::event::Source;
use socket2::{Domain, Protocol, Socket as RawSocket, Type};

use crate::listener::Place;
use crate::transport::Socket;

/// One worker's socket of a listener.
#[derive(Debug)]
pub(super) struct Door {
    /// The listener's place in the configuration.
    pub(super) listener: u16,
    socket: Listening,
    /// It may have connections: its edge came, and it was not yet seen empty.
    pub(super) may_accept: bool,
}

#[derive(Debug)]
enum Listening {
    Tcp(mio::net::TcpListener),
    Unix(mio::net::UnixListener),
}

impl Door {
    fn new(listener: u16, socket: Listening) -> Self {
        Self {
            listener,
            socket,
            may_accept: true,
        }
    }

    #[cfg(test)]
    pub(super) fn of_tcp(listener: TcpListener) -> Self {
        listener.set_nonblocking(true).unwrap();
        Self::new(0, Listening::Tcp(mio::net::TcpListener::from_std(listener)))
    }

    /// What a poll is told of.
    pub(super) fn source(&mut self) -> &mut dyn Source {
        match &mut self.socket {
            Listening::Tcp(listener) => listener,
            Listening::Unix(listener) => listener,
        }
    }

    /// The next connection.
    pub(super) fn accept(&self) -> io::Result<Socket> {
        match &self.socket {
            Listening::Tcp(listener) => listener.accept().map(|(stream, _)| Socket::Tcp(stream)),
            Listening::Unix(listener) => listener.accept().map(|(stream, _)| Socket::Unix(stream)),
        }
    }

    #[cfg(test)]
    pub(super) fn local_addr(&self) -> SocketAddr {
        match &self.socket {
            Listening::Tcp(listener) => listener.local_addr().unwrap(),
            Listening::Unix(_) => unreachable!("no TCP"),
        }
    }
}

/// Takes a listener's place for `count` workers: a door for each, and where it listens now.
pub(super) fn open(
    listener: u16,
    place: &Place,
    count: usize,
    backlog: u32,
) -> io::Result<(Vec<Door>, Place)> {
    match place {
        Place::Net(address) => {
            let sockets = listen(*address, count, backlog)?;
            let address = match sockets.first() {
                Some(first) => first.local_addr()?,
                None => *address,
            };
            let door = |socket| {
                Door::new(
                    listener,
                    Listening::Tcp(mio::net::TcpListener::from_std(socket)),
                )
            };
            Ok((sockets.into_iter().map(door).collect(), Place::Net(address)))
        }
        Place::Unix(path) => {
            let socket = listen_unix(path)?;
            let door = |_| {
                let socket = mio::net::UnixListener::from_std(socket.try_clone()?);
                Ok(Door::new(listener, Listening::Unix(socket)))
            };
            let doors = (0..count).map(door).collect::<io::Result<_>>()?;
            Ok((doors, place.clone()))
        }
    }
}

/// `count` listening sockets on one port. The first takes the port for itself, so that a port in use is an error also
/// where whoever uses it would share; only then is it shared, with the others.
fn listen(address: SocketAddr, count: usize, backlog: u32) -> io::Result<Vec<TcpListener>> {
    let mut address = address;
    let mut sockets = Vec::with_capacity(count);
    for nth in 0..count {
        let socket = RawSocket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        // Frames leave in one write a turn: waiting for more to come would only add latency. Connections inherit it.
        socket.set_tcp_nodelay(true)?;
        if nth > 0 {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&address.into())?;
        if nth == 0 {
            socket.set_reuse_port(true)?;
            let bound = socket.local_addr()?.as_socket();
            address = bound.unwrap_or(address); // the port that the system chose
        }
        sockets.push(socket);
    }
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    for socket in &sockets {
        socket.listen(backlog)?;
    }
    Ok(sockets.into_iter().map(TcpListener::from).collect())
}

/// One socket for all workers. What an earlier process left behind is replaced, what another one listens on is not.
fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if is_socket && UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Takes the path of a Unix socket away that nobody listens on any more.
pub(super) fn close(place: &Place) {
    if let Place::Unix(path) = place
        && let Err(error) = std::fs::remove_file(path)
    {
        tracing::debug!(%error, path = %path.display(), "a socket's path stays behind");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_unix_socket_that_nobody_listens_on_is_taken_and_another_ones_is_not() {
        let dir = std::env::temp_dir().join(format!("millstream-doors-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let place = Place::Unix(dir.join("mqtt"));
        let (first, _) = open(0, &place, 2, 16).unwrap();
        let error = open(0, &place, 1, 16).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        let (again, _) = open(0, &place, 3, 16).unwrap();
        assert_eq!(again.len(), 3);
        // A file that is no socket stays.
        let file = dir.join("file");
        std::fs::write(&file, "mine").unwrap();
        open(0, &Place::Unix(file.clone()), 1, 16).unwrap_err();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
