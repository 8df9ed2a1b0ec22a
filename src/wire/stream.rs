//! A peer's bytes, whichever way they come.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::tcp;

/// A socket without TLS.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix domain socket.
    Unix(UnixStream),
}

/// A connection to a client or an upstream. TLS is boxed: an idle connection in the clear must not pay for it.
#[derive(Debug)]
pub enum Stream {
    /// In the clear.
    Plain(Socket),
    /// Inside TLS, as the server.
    Served(Box<tokio_rustls::server::TlsStream<Socket>>),
    /// Inside TLS, as the client.
    Asked(Box<tokio_rustls::client::TlsStream<Socket>>),
}

impl Stream {
    /// Whether it is inside TLS.
    pub const fn is_tls(&self) -> bool {
        matches!(self, Self::Served(_) | Self::Asked(_))
    }

    /// The TCP connection, if nothing else stands between it and us.
    pub(super) const fn plain_tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(Socket::Tcp(stream)) => Some(stream),
            Self::Plain(Socket::Unix(_)) | Self::Served(_) | Self::Asked(_) => None,
        }
    }

    /// Ready when reading is likely to find something: bytes, the end, or an error. Costs no system call.
    ///
    /// Inside TLS that means that something came from the peer, not that there is anything in it for us.
    ///
    /// # Errors
    /// When the runtime that watches the socket is gone.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => socket.poll_readable(cx),
            Self::Served(tls) => {
                let (socket, session) = tls.get_ref();
                if session.wants_read() { socket.poll_readable(cx) } else { Poll::Ready(Ok(())) }
            }
            Self::Asked(tls) => {
                let (socket, session) = tls.get_ref();
                if session.wants_read() { socket.poll_readable(cx) } else { Poll::Ready(Ok(())) }
            }
        }
    }
}

impl Socket {
    fn poll_receive(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            // What was never initialised would have to be, for no more than what comes.
            Self::Tcp(stream) if buf.initialized().len() == buf.capacity() => tcp::poll_recv(stream, cx, buf),
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => tcp::poll_send(stream, cx, data),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }

    /// One slice goes by `send(2)`, which the kernel finds cheaper than `writev(2)` of one; what TLS holds is one while it is
    /// one record.
    fn poll_write_slices(&mut self, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match (self, slices) {
            (Self::Tcp(stream), [one]) => tcp::poll_send(stream, cx, one),
            (Self::Tcp(stream), _) => Pin::new(stream).poll_write_vectored(cx, slices),
            (Self::Unix(stream), _) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    /// Returns once there is something to read, or the peer is gone. Cancel safe.
    ///
    /// # Errors
    /// When the runtime that watches the socket is gone.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
        }
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
        }
    }
}

impl Stream {
    fn poll_receive(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => socket.poll_receive(cx, buf),
            Self::Served(tls) => Pin::new(tls).poll_read(cx, buf),
            Self::Asked(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => socket.poll_send(cx, data),
            Self::Served(tls) => Pin::new(tls).poll_write(cx, data),
            Self::Asked(tls) => Pin::new(tls).poll_write(cx, data),
        }
    }

    fn poll_write_slices(&mut self, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => socket.poll_write_slices(cx, slices),
            Self::Served(tls) => Pin::new(tls).poll_write_vectored(cx, slices),
            Self::Asked(tls) => Pin::new(tls).poll_write_vectored(cx, slices),
        }
    }
}

macro_rules! delegate {
    ($type:ty, $($variant:path),+) => {
        impl AsyncRead for $type {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                self.get_mut().poll_receive(cx, buf)
            }
        }

        impl AsyncWrite for $type {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
                self.get_mut().poll_send(cx, data)
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                self.get_mut().poll_write_slices(cx, bufs)
            }

            fn is_write_vectored(&self) -> bool {
                match self {
                    $($variant(stream) => stream.is_write_vectored(),)+
                }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $($variant(stream) => Pin::new(stream).poll_flush(cx),)+
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $($variant(stream) => Pin::new(stream).poll_shutdown(cx),)+
                }
            }
        }
    };
}

delegate!(Socket, Self::Tcp, Self::Unix);
delegate!(Stream, Self::Plain, Self::Served, Self::Asked);
