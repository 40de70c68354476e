//! How is an address bound by every worker at once, and yet by nobody else?

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted; the system may allow less.
const BACKLOG: i32 = 16_384;

/// One listening socket for each worker; the kernel spreads connections over them. `held` are addresses that this
/// process has bound already.
pub(super) fn bind(address: SocketAddr, workers: usize, held: &[SocketAddr]) -> io::Result<Vec<TcpListener>> {
    // Sockets with SO_REUSEPORT share a port with every other process of the same user that sets it too. An attempt
    // without it finds them. It would also find our own wildcard socket of the same port, which is no conflict.
    if !held.iter().any(|other| overlaps(*other, address)) {
        socket(address)?.bind(&address.into())?;
    }
    (0..workers).map(|_| listen(address)).collect()
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// Whether both take connections of one port.
fn overlaps(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free_address() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    #[test]
    fn workers_share_an_address_but_not_with_strangers() {
        let address = free_address();
        let ours = bind(address, 2, &[]).unwrap();
        assert_eq!(ours.len(), 2);
        let stranger = bind(address, 1, &[]);
        assert_eq!(stranger.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(ours);
        assert!(bind(address, 1, &[]).is_ok());
    }

    #[test]
    fn our_own_wildcard_is_no_conflict() {
        let address = free_address();
        let wildcard = SocketAddr::from(([0, 0, 0, 0], address.port()));
        let _wide = bind(wildcard, 1, &[]).unwrap();
        assert!(bind(address, 1, &[]).is_err());
        assert!(bind(address, 1, &[wildcard]).is_ok());
    }
}
