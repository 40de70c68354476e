//! Who is the client behind a load balancer? The PROXY protocol header, v1 or v2, at the start of a connection: read
//! from clients' connections and written to endpoints'.

use std::io;
use std::net::{IpAddr, SocketAddr};

use ppp::{v1, v2};

const V1_START: &[u8] = b"PROXY ";
/// The longest v1 header with its line end.
const V1_LIMIT: usize = 107;
const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The fixed part of a v2 header, whose last two bytes say how long the rest is.
const V2_FIXED: usize = 16;
/// The longest rest of a v2 header that is accepted.
const V2_LIMIT: usize = 4096;

/// What the first bytes of a connection say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// More bytes are needed.
    Incomplete,
    /// Not a PROXY header, or a broken one: the connection is to be closed.
    Malformed,
    Complete {
        /// Bytes that belong to the header.
        length: usize,
        /// `None`: the connection speaks for itself (`LOCAL`, `UNKNOWN`, not TCP).
        addresses: Option<Addresses>,
    },
}

/// The ends of the connection as the load balancer saw them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Addresses {
    pub client: SocketAddr,
    pub destination: SocketAddr,
}

/// Reads a header from the first bytes of a connection.
pub(crate) fn parse(bytes: &[u8]) -> Header {
    if begins(bytes, V2_START) {
        binary(bytes)
    } else if begins(bytes, V1_START) {
        text(bytes)
    } else {
        Header::Malformed
    }
}

impl Addresses {
    /// The header of version 1.
    pub(crate) fn to_text(self) -> Vec<u8> {
        v1::Addresses::from(self.alike()).to_string().into_bytes()
    }

    /// The header of version 2.
    ///
    /// # Errors
    ///
    /// None that could happen: the header is always short enough.
    pub(crate) fn to_binary(self) -> io::Result<Vec<u8>> {
        v2::Builder::with_addresses(v2::Version::Two | v2::Command::Proxy, v2::Protocol::Stream, self.alike()).build()
    }

    /// Client and destination as addresses of one family, as headers need them.
    fn alike(self) -> (SocketAddr, SocketAddr) {
        let mapped = |address: SocketAddr| match address.ip() {
            IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
            IpAddr::V6(_) => address,
        };
        match self.client.is_ipv4() == self.destination.is_ipv4() {
            true => (self.client, self.destination),
            false => (mapped(self.client), mapped(self.destination)),
        }
    }
}

/// Whether `bytes` begin with `start`, or may yet.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(byte, wanted)| byte == wanted)
}

fn text(bytes: &[u8]) -> Header {
    let within = bytes.get(..V1_LIMIT).unwrap_or(bytes);
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < V1_LIMIT { Header::Incomplete } else { Header::Malformed };
    };
    let length = end + 2;
    let Some(Ok(header)) = within.get(..length).map(v1::Header::try_from) else { return Header::Malformed };
    let addresses = match header.addresses {
        v1::Addresses::Tcp4(ends) => Some(Addresses {
            client: (ends.source_address, ends.source_port).into(),
            destination: (ends.destination_address, ends.destination_port).into(),
        }),
        v1::Addresses::Tcp6(ends) => Some(Addresses {
            client: (ends.source_address, ends.source_port).into(),
            destination: (ends.destination_address, ends.destination_port).into(),
        }),
        v1::Addresses::Unknown => None,
    };
    Header::Complete { length, addresses }
}

fn binary(bytes: &[u8]) -> Header {
    let Some([high, low]) = bytes.get(V2_FIXED - 2..V2_FIXED) else { return Header::Incomplete };
    let rest = usize::from(u16::from_be_bytes([*high, *low]));
    if rest > V2_LIMIT {
        return Header::Malformed;
    }
    let length = V2_FIXED + rest;
    let Some(whole) = bytes.get(..length) else { return Header::Incomplete };
    let Ok(header) = v2::Header::try_from(whole) else { return Header::Malformed };
    let ends = match header.addresses {
        _ if header.command == v2::Command::Local => None,
        v2::Addresses::IPv4(ends) => Some(Addresses {
            client: (ends.source_address, ends.source_port).into(),
            destination: (ends.destination_address, ends.destination_port).into(),
        }),
        v2::Addresses::IPv6(ends) => Some(Addresses {
            client: (ends.source_address, ends.source_port).into(),
            destination: (ends.destination_address, ends.destination_port).into(),
        }),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
    };
    Header::Complete { length, addresses: ends }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: ([u8; 4], [u8; 4]) = ([192, 0, 2, 1], [198, 51, 100, 2]);

    fn addresses() -> Option<Addresses> {
        Some(Addresses { client: (ENDS.0, 1000).into(), destination: (ENDS.1, 443).into() })
    }

    fn v2(command: v2::Command) -> Vec<u8> {
        let ends = v2::IPv4::new(ENDS.0, ENDS.1, 1000, 443);
        v2::Builder::with_addresses(v2::Version::Two | command, v2::Protocol::Stream, ends).build().unwrap()
    }

    #[test]
    fn both_versions_tell_the_ends_and_where_they_stop() {
        let text = b"PROXY TCP4 192.0.2.1 198.51.100.2 1000 443\r\n".to_vec();
        let cases = [
            (text, addresses()),
            (b"PROXY TCP6 ::1 ::2 1 2\r\n".to_vec(), {
                let [client, destination] = ["[::1]:1", "[::2]:2"].map(|text| text.parse().unwrap());
                Some(Addresses { client, destination })
            }),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (v2(v2::Command::Proxy), addresses()),
            (v2(v2::Command::Local), None),
        ];
        for (header, addresses) in cases {
            let length = header.len();
            for cut in 0..length {
                assert_eq!(parse(&header[..cut]), Header::Incomplete, "{:?} cut at {cut}", header.escape_ascii());
            }
            let with_more = [header, vec![0x16, 3, 1, 0xff]].concat();
            assert_eq!(parse(&with_more), Header::Complete { length, addresses });
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let ends = |client: &str, destination: &str| Addresses {
            client: client.parse().unwrap(),
            destination: destination.parse().unwrap(),
        };
        let cases = [
            (ends("192.0.2.1:1000", "198.51.100.2:443"), ends("192.0.2.1:1000", "198.51.100.2:443")),
            (ends("[2001:db8::1]:1", "[2001:db8::2]:2"), ends("[2001:db8::1]:1", "[2001:db8::2]:2")),
            (ends("192.0.2.1:1", "[2001:db8::2]:2"), ends("[::ffff:192.0.2.1]:1", "[2001:db8::2]:2")),
        ];
        for (written, read) in cases {
            for header in [written.to_text(), written.to_binary().unwrap()] {
                assert_eq!(parse(&header), Header::Complete { length: header.len(), addresses: Some(read) });
            }
        }
        assert_eq!(cases[0].0.to_text(), b"PROXY TCP4 192.0.2.1 198.51.100.2 1000 443\r\n");
    }

    #[test]
    fn everything_else_is_malformed() {
        let long = [b"PROXY ".as_slice(), &[b'x'; 200]].concat();
        let huge = [V2_START, &[0x21, 0x11, 0xff, 0xff]].concat();
        let bad_command = [V2_START, &[0x2f, 0x11, 0, 0]].concat();
        let cases: [&[u8]; 7] = [
            b"GET / HTTP/1.1\r\n",
            b"\x16\x03\x01",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 99999\r\n",
            &long,
            &huge,
            &bad_command,
        ];
        for bytes in cases {
            assert_eq!(parse(bytes), Header::Malformed, "{}", bytes.escape_ascii());
        }
    }
}
