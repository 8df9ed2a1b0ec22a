//! The PROXY protocol: whom a load balancer speaks for.
//!
//! Owns when a header is expected, reading exactly its bytes, and what it says. Must not know what is spoken behind it.
//! Specification: haproxy, `doc/proxy-protocol.txt`, versions 1 and 2.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest header of version 1, CR LF included (§2.1).
const MAX_TEXT_BYTES: usize = 107;
/// The longest header of version 2 that is read; addresses need 52 bytes, what balancers add some hundred.
const MAX_BINARY_BYTES: usize = 4 * 1024;
/// The signature of version 2, and less than the shortest header of version 1.
const SIGNATURE_BYTES: usize = 12;
/// Signature, version, family and length of version 2.
const BINARY_PREFIX_BYTES: usize = 16;

/// Both ends of a client's connection, as far as a balancer told them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced {
    /// The client; the balancer itself where it speaks for nobody, such as in its health checks.
    pub client: SocketAddr,
    /// What the client connected to; none where it was not told.
    pub destination: Option<SocketAddr>,
}

/// Why a connection does not begin as its peer should begin it. The connection must be closed.
#[derive(Debug)]
pub enum ProxyProtocolError {
    /// The header did not come whole.
    Io(io::Error),
    /// There is no header.
    Missing,
    /// It is too long.
    TooLong,
    /// It is malformed.
    Malformed,
    /// It is about another protocol than TCP.
    NotTcp,
}

impl fmt::Display for ProxyProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the PROXY protocol header did not arrive whole ({error})"),
            Self::Missing => f.write_str(
                "no PROXY protocol header from a peer that must send one: switch it on at the load balancer, or take \
                 the peer out of `proxy_protocol.from`",
            ),
            Self::TooLong => write!(
                f,
                "the PROXY protocol header is too long: at most {MAX_TEXT_BYTES} bytes of version 1 or \
                 {MAX_BINARY_BYTES} of version 2 are read"
            ),
            Self::Malformed => f.write_str("the PROXY protocol header is malformed: look at the load balancer"),
            Self::NotTcp => f.write_str("the PROXY protocol header is not about TCP: look at the load balancer"),
        }
    }
}

impl std::error::Error for ProxyProtocolError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Missing | Self::TooLong | Self::Malformed | Self::NotTcp => None,
        }
    }
}

impl From<io::Error> for ProxyProtocolError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Whom the connection of `peer` is from: the peer itself, or whom it speaks for when it is in `listed`.
///
/// A listed peer must send a header; of any other not a byte is read, so that a header it sends is a malformed request.
/// Never reads beyond the header: TLS or HTTP can be read from `stream` at once. Sets no deadline; when it is cancelled,
/// an unknown part of the header is gone and the connection must be closed.
///
/// # Errors
/// See [`ProxyProtocolError`].
pub async fn read_client_address<R>(
    stream: &mut R,
    peer: SocketAddr,
    listed: &[IpNet],
) -> Result<Announced, ProxyProtocolError>
where
    R: AsyncRead + Unpin,
{
    let address = peer.ip().to_canonical();
    if !listed.iter().any(|network| network.contains(&address)) {
        return Ok(Announced { client: peer, destination: None });
    }
    let mut header = vec![0; SIGNATURE_BYTES];
    stream.read_exact(&mut header).await?;
    let addresses = if header == v2::PROTOCOL_PREFIX {
        read_binary(stream, &mut header).await?;
        parse_binary(&header)?
    } else if header.starts_with(b"PROXY ") {
        read_text(stream, &mut header).await?;
        parse_text(&header)?
    } else {
        return Err(ProxyProtocolError::Missing);
    };
    Ok(match addresses {
        Some((source, destination)) => {
            Announced { client: canonical(source), destination: Some(canonical(destination)) }
        }
        None => Announced { client: peer, destination: None },
    })
}

type Addresses = Option<(SocketAddr, SocketAddr)>;

async fn read_more<R>(stream: &mut R, header: &mut Vec<u8>, len: usize) -> io::Result<()>
where
    R: AsyncRead + Unpin,
{
    let begin = header.len();
    header.resize(begin + len, 0);
    stream.read_exact(&mut header[begin..]).await?;
    Ok(())
}

async fn read_binary<R>(stream: &mut R, header: &mut Vec<u8>) -> Result<(), ProxyProtocolError>
where
    R: AsyncRead + Unpin,
{
    read_more(stream, header, BINARY_PREFIX_BYTES - SIGNATURE_BYTES).await?;
    let len = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if BINARY_PREFIX_BYTES + len > MAX_BINARY_BYTES {
        return Err(ProxyProtocolError::TooLong);
    }
    read_more(stream, header, len).await?;
    Ok(())
}

/// Reads a line of unknown length without a byte of what is behind it: as much as must be left of it, again and again.
async fn read_text<R>(stream: &mut R, header: &mut Vec<u8>) -> Result<(), ProxyProtocolError>
where
    R: AsyncRead + Unpin,
{
    let shortest = match &header[6..10] {
        b"TCP4" => b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n".len(),
        b"TCP6" => b"PROXY TCP6 :: :: 1 1\r\n".len(),
        b"UNKN" => b"PROXY UNKNOWN\r\n".len(),
        _ => return Err(ProxyProtocolError::Malformed),
    };
    read_more(stream, header, shortest - header.len()).await?;
    while !header.ends_with(b"\r\n") {
        let left = if header.ends_with(b"\r") { 1 } else { 2 };
        if header.len() + left > MAX_TEXT_BYTES {
            return Err(ProxyProtocolError::TooLong);
        }
        read_more(stream, header, left).await?;
    }
    Ok(())
}

fn parse_text(header: &[u8]) -> Result<Addresses, ProxyProtocolError> {
    let parsed = v1::Header::try_from(header).map_err(|_| ProxyProtocolError::Malformed)?;
    let (source, destination) = match parsed.addresses {
        v1::Addresses::Unknown => return Ok(None),
        v1::Addresses::Tcp4(ip) => (
            SocketAddr::from((ip.source_address, ip.source_port)),
            SocketAddr::from((ip.destination_address, ip.destination_port)),
        ),
        v1::Addresses::Tcp6(ip) => (
            SocketAddr::from((ip.source_address, ip.source_port)),
            SocketAddr::from((ip.destination_address, ip.destination_port)),
        ),
    };
    // What the addresses are written as is what was read: no signs, no leading zeros, no other white space.
    let is_plain = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':' | b' ');
    let fields = header["PROXY TCP4 ".len()..].strip_suffix(b"\r\n").unwrap_or_default();
    if !fields.iter().all(is_plain) || fields.split(|&byte| byte == b' ').count() != 4 {
        return Err(ProxyProtocolError::Malformed);
    }
    Ok(Some((source, destination)))
}

fn parse_binary(header: &[u8]) -> Result<Addresses, ProxyProtocolError> {
    let parsed = v2::Header::try_from(header).map_err(|_| ProxyProtocolError::Malformed)?;
    if parsed.command == v2::Command::Local {
        return Ok(None);
    }
    // §2.2: what is unspecified is skipped, and the connection is its peer's own.
    let addresses = match parsed.addresses {
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => return Ok(None),
        v2::Addresses::IPv4(ip) => (
            SocketAddr::from((ip.source_address, ip.source_port)),
            SocketAddr::from((ip.destination_address, ip.destination_port)),
        ),
        v2::Addresses::IPv6(ip) => (
            SocketAddr::from((ip.source_address, ip.source_port)),
            SocketAddr::from((ip.destination_address, ip.destination_port)),
        ),
    };
    match parsed.protocol {
        v2::Protocol::Stream => Ok(Some(addresses)),
        v2::Protocol::Unspecified => Ok(None),
        v2::Protocol::Datagram => Err(ProxyProtocolError::NotTcp),
    }
}

/// An IPv4 address in IPv6 clothes is that IPv4 address, so that networks match it however it came.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}
