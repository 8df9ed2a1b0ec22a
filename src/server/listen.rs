//! Listening sockets: opened, or inherited from a supervisor (systemd socket activation, `sd_listen_fds(3)`).

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, Socket, Type};

use super::settings::Bind;

/// How many connections the kernel may hold that were not accepted yet.
const BACKLOG: i32 = 4096;

/// A socket that connections come in through.
#[derive(Debug)]
pub(crate) enum Listening {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket, and its file when we made it: then it is removed when we stop listening.
    Unix(UnixListener, Option<PathBuf>),
}

impl Listening {
    /// Where it listens: the port the kernel chose, if it was asked to.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().map_or_else(|_| "?".to_owned(), |a| a.to_string()),
            Self::Unix(listener, _) => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                format!("unix:{}", path.unwrap_or(Path::new("?")).display())
            }
        }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A socket cannot be opened.
#[derive(Debug)]
pub struct ListenError {
    /// Where.
    pub(crate) bind: Bind,
    /// Which setting says so.
    pub(crate) setting: String,
    /// Why not.
    pub(crate) source: io::Error,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bind, setting, source } = self;
        match source.kind() {
            io::ErrorKind::AddrInUse => write!(
                f,
                "cannot listen on {bind} (address in use): another process holds it; stop it or change {setting}"
            ),
            io::ErrorKind::PermissionDenied => write!(
                f,
                "cannot listen on {bind} (permission denied): ports below 1024 need CAP_NET_BIND_SERVICE; grant it or \
                 change {setting}"
            ),
            io::ErrorKind::AddrNotAvailable => write!(
                f,
                "cannot listen on {bind} (address not available): this machine has no such address; change {setting}"
            ),
            _ => write!(f, "cannot listen on {bind} ({source}); change {setting}"),
        }
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Opens a socket. `setting` is named in the error.
///
/// # Errors
/// When the operating system refuses.
pub(crate) fn listen(bind: &Bind, setting: &str) -> Result<Listening, ListenError> {
    let opened = match bind {
        Bind::Tcp(address) => listen_tcp(*address).map(Listening::Tcp),
        Bind::Unix(path) => listen_unix(path).map(|listener| Listening::Unix(listener, Some(path.clone()))),
    };
    opened.map_err(|source| ListenError { bind: bind.clone(), setting: setting.to_owned(), source })
}

fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `[::]` means IPv6 alone: whoever wants both says both.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    // A socket file that nobody listens on is what a killed predecessor left behind.
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Sockets that a supervisor opened for us. Taken once, at start.
pub(crate) struct Inherited {
    tcp: Vec<TcpListener>,
    unix: Vec<UnixListener>,
}

impl Inherited {
    /// Takes what `LISTEN_FDS` offers to this process; nothing when it offers nothing.
    pub(crate) fn from_environment() -> Self {
        let mut offered = listenfd::ListenFd::from_env();
        let (mut tcp, mut unix) = (Vec::new(), Vec::new());
        for index in 0..offered.len() {
            if let Ok(Some(listener)) = offered.take_tcp_listener(index) {
                tcp.push(listener);
            } else if let Ok(Some(listener)) = offered.take_unix_listener(index) {
                unix.push(listener);
            }
        }
        Self { tcp, unix }
    }

    /// The inherited socket for `bind`, if there is one.
    pub(crate) fn take(&mut self, bind: &Bind) -> Option<Listening> {
        let listening = match bind {
            Bind::Tcp(address) => {
                let at = self.tcp.iter().position(|listener| listener.local_addr().is_ok_and(|a| a == *address))?;
                Listening::Tcp(self.tcp.swap_remove(at))
            }
            Bind::Unix(path) => {
                let is_it = |listener: &UnixListener| {
                    listener.local_addr().is_ok_and(|address| address.as_pathname() == Some(path.as_path()))
                };
                let at = self.unix.iter().position(is_it)?;
                Listening::Unix(self.unix.swap_remove(at), None)
            }
        };
        let nonblocking = match &listening {
            Listening::Tcp(listener) => listener.set_nonblocking(true),
            Listening::Unix(listener, _) => listener.set_nonblocking(true),
        };
        nonblocking.ok().map(|()| listening)
    }
}
