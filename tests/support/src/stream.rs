//! Bodies of any length that nobody has to hold: a pattern whose every byte is known by its offset.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// Why a body ended early.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// Any body the kit sends.
pub(crate) type AnyBody = UnsyncBoxBody<Bytes, BodyError>;

/// The pattern repeats after this many bytes, a prime, so that no chunking hides a lost or doubled piece.
const PERIOD: usize = 251;
const CHUNK: usize = PERIOD * 256;

/// The pattern's bytes from `offset` on, at most one chunk.
pub(crate) fn pattern(offset: u64, at_most: u64) -> Bytes {
    static BUFFER: OnceLock<Bytes> = OnceLock::new();
    let buffer = BUFFER.get_or_init(|| {
        (0..CHUNK + PERIOD).map(|at| u8::try_from(at % PERIOD).expect("the period is below 256")).collect()
    });
    let start = usize::try_from(offset % PERIOD as u64).expect("below the period");
    let length = usize::try_from(at_most.min(CHUNK as u64)).expect("below a chunk");
    buffer.slice(start..start + length)
}

/// Whether `bytes` are what the pattern has at `offset`.
pub(crate) fn is_pattern(offset: u64, bytes: &[u8]) -> bool {
    let mut at = offset;
    let mut rest = bytes;
    while !rest.is_empty() {
        let expected = pattern(at, rest.len() as u64);
        if rest[..expected.len()] != expected[..] {
            return false;
        }
        at += expected.len() as u64;
        rest = &rest[expected.len()..];
    }
    true
}

/// The first `left` bytes of the pattern.
pub(crate) struct PatternBody {
    pub(crate) offset: u64,
    pub(crate) left: u64,
    /// Whether the length is announced.
    pub(crate) sized: bool,
}

impl Body for PatternBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let piece = pattern(self.offset, self.left);
        self.offset += piece.len() as u64;
        self.left -= piece.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        if self.sized { SizeHint::with_exact(self.left) } else { SizeHint::default() }
    }
}

/// A body whose pieces come out of a channel as somebody puts them in; an `Err` breaks it off.
pub(crate) struct ChannelBody {
    pub(crate) pieces: mpsc::Receiver<Result<Frame<Bytes>, BodyError>>,
}

impl Body for ChannelBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.pieces.poll_recv(cx)
    }
}

/// A body with trailers behind it; the length is not announced.
pub(crate) struct WithTrailers {
    pub(crate) inner: AnyBody,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Body for WithTrailers {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(None) => Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))),
            other => other,
        }
    }
}

pub(crate) fn empty() -> AnyBody {
    Empty::new().map_err(never).boxed_unsync()
}

pub(crate) fn full(bytes: Bytes) -> AnyBody {
    Full::new(bytes).map_err(never).boxed_unsync()
}

#[allow(clippy::needless_pass_by_value, reason = "the shape `map_err` asks for")]
fn never(impossible: Infallible) -> BodyError {
    match impossible {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pattern_body_has_its_length_and_every_byte_in_its_place() {
        let body = PatternBody { offset: 0, left: 200_001, sized: true }.collect().await.unwrap().to_bytes();
        assert_eq!(body.len(), 200_001);
        assert!(is_pattern(0, &body));
        assert!(is_pattern(100, &body[100..]));
        assert!(!is_pattern(0, &body[1..]), "a lost byte is noticed");
    }
}
