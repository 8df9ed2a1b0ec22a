//! What an origin says when it is asked.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Frame;
use tokio::sync::{mpsc, watch};

use crate::stream::{AnyBody, BodyError, ChannelBody, PatternBody, WithTrailers, empty, full};

/// What an [`Origin`](crate::Origin) answers. Cheap to clone.
#[derive(Clone)]
pub struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: BodyPlan,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) delay: Duration,
    pub(crate) latch: Option<Latch>,
    pub(crate) reads_body: bool,
}

#[derive(Clone)]
pub(crate) enum BodyPlan {
    Fixed(Bytes),
    /// The request's body, piece by piece as it comes.
    Echo,
    /// The pattern of this length.
    Pattern {
        length: u64,
        sized: bool,
    },
    Channel(Arc<Mutex<Option<ChannelBody>>>),
    /// A 101, and then every byte comes back.
    Tunnel,
}

impl Answer {
    /// 200 with a text.
    pub fn ok(text: impl Into<String>) -> Self {
        Self::status(200).body(text.into())
    }

    /// This status without a body.
    pub fn status(status: u16) -> Self {
        Self {
            status: StatusCode::from_u16(status).expect("tests use real statuses"),
            headers: Vec::new(),
            body: BodyPlan::Fixed(Bytes::new()),
            trailers: None,
            delay: Duration::ZERO,
            latch: None,
            reads_body: true,
        }
    }

    /// 200 with the request's own body, piece by piece as it comes, and the request's trailers.
    pub fn echo() -> Self {
        Self { body: BodyPlan::Echo, ..Self::status(200) }
    }

    /// 200 with this many bytes of a known pattern and `Content-Length`. Allocates nothing of that size.
    pub fn pattern(length: u64) -> Self {
        Self { body: BodyPlan::Pattern { length, sized: true }, ..Self::status(200) }
    }

    /// The same without `Content-Length`.
    pub fn unsized_pattern(length: u64) -> Self {
        Self { body: BodyPlan::Pattern { length, sized: false }, ..Self::status(200) }
    }

    /// 200 whose body comes out of the test's hands. The first request gets it; later ones get nothing.
    pub fn fed() -> (Self, Feed) {
        let (sender, pieces) = mpsc::channel(4);
        let plan = BodyPlan::Channel(Arc::new(Mutex::new(Some(ChannelBody { pieces }))));
        (Self { body: plan, ..Self::status(200) }, Feed { sender })
    }

    /// Server-sent events out of the test's hands.
    pub fn events() -> (Self, Feed) {
        let (answer, feed) = Self::fed();
        (answer.header("content-type", "text/event-stream").header("cache-control", "no-cache"), feed)
    }

    /// Accepts a WebSocket handshake and then sends every byte back, unread.
    pub fn tunnel() -> Self {
        Self { body: BodyPlan::Tunnel, ..Self::status(101) }
    }

    /// Adds a field.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((
            name.parse().expect("tests use real field names"),
            value.parse().expect("tests use real field values"),
        ));
        self
    }

    /// Replaces the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = BodyPlan::Fixed(body.into());
        self
    }

    /// Adds a trailer.
    #[must_use]
    pub fn trailer(mut self, name: &'static str, value: &'static str) -> Self {
        self.trailers
            .get_or_insert_with(HeaderMap::new)
            .append(HeaderName::from_static(name), HeaderValue::from_static(value));
        self
    }

    /// Waits this long before saying anything.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Says nothing until the latch is opened.
    #[must_use]
    pub fn held(mut self) -> (Self, Latch) {
        let latch = Latch::new();
        self.latch = Some(latch.clone());
        (self, latch)
    }

    /// Answers without reading the request's body.
    #[must_use]
    pub fn without_reading(mut self) -> Self {
        self.reads_body = false;
        self
    }

    /// The body to send, unless it is the request's.
    pub(crate) fn own_body(&self) -> AnyBody {
        let body = match &self.body {
            BodyPlan::Fixed(bytes) => full(bytes.clone()),
            BodyPlan::Pattern { length, sized } => {
                PatternBody { offset: 0, left: *length, sized: *sized }.boxed_unsync()
            }
            BodyPlan::Channel(channel) => {
                let taken = channel.lock().unwrap_or_else(PoisonError::into_inner).take();
                taken.map_or_else(empty, BodyExt::boxed_unsync)
            }
            BodyPlan::Echo | BodyPlan::Tunnel => empty(),
        };
        match &self.trailers {
            Some(trailers) => WithTrailers { inner: body, trailers: Some(trailers.clone()) }.boxed_unsync(),
            None => body,
        }
    }
}

/// The other end of a body that the test sends piece by piece. Dropping it ends the body.
pub struct Feed {
    sender: mpsc::Sender<Result<Frame<Bytes>, BodyError>>,
}

impl Feed {
    pub(crate) fn from_sender(sender: mpsc::Sender<Result<Frame<Bytes>, BodyError>>) -> Self {
        Self { sender }
    }

    /// Sends a piece. Says whether anybody still wants it.
    pub async fn send(&self, piece: impl Into<Bytes>) -> bool {
        self.sender.send(Ok(Frame::data(piece.into()))).await.is_ok()
    }

    /// Breaks the body off.
    pub async fn abort(self) {
        let _ = self.sender.send(Err("broken off by the test".into())).await;
    }

    /// Waits until the body is no longer wanted.
    pub async fn unwanted(&self) {
        self.sender.closed().await;
    }
}

/// Holds answers back until it is opened.
#[derive(Clone)]
pub struct Latch {
    open: Arc<watch::Sender<bool>>,
}

impl Latch {
    fn new() -> Self {
        Self { open: Arc::new(watch::Sender::new(false)) }
    }

    /// Lets everything through from now on.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    pub(crate) async fn opened(&self) {
        // The sender lives in `self`, so this ends only when the latch is opened.
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }
}
