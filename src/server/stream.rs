//! A client's bytes, whichever way they come in.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// A socket without TLS.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A client connection, with or without TLS.
#[expect(clippy::large_enum_variant, reason = "one per connection; boxing TLS would cost every read an indirection")]
pub(super) enum ClientStream {
    Plain(Socket),
    Tls(TlsStream<Socket>),
}

macro_rules! delegate {
    ($type:ty, $first:path, $second:path) => {
        impl AsyncRead for $type {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $first(stream) => Pin::new(stream).poll_read(cx, buf),
                    $second(stream) => Pin::new(stream).poll_read(cx, buf),
                }
            }
        }

        impl AsyncWrite for $type {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $first(stream) => Pin::new(stream).poll_write(cx, data),
                    $second(stream) => Pin::new(stream).poll_write(cx, data),
                }
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $first(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
                    $second(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
                }
            }

            fn is_write_vectored(&self) -> bool {
                match self {
                    $first(stream) => stream.is_write_vectored(),
                    $second(stream) => stream.is_write_vectored(),
                }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $first(stream) => Pin::new(stream).poll_flush(cx),
                    $second(stream) => Pin::new(stream).poll_flush(cx),
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $first(stream) => Pin::new(stream).poll_shutdown(cx),
                    $second(stream) => Pin::new(stream).poll_shutdown(cx),
                }
            }
        }
    };
}

delegate!(Socket, Socket::Tcp, Socket::Unix);
delegate!(ClientStream, ClientStream::Plain, ClientStream::Tls);
