//! A server that speaks HTTP/2 frame by frame, for what no library would do.

use std::time::Duration;

use crate::RawPeer;
use crate::h2_frames::{ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, frame};

/// `:status: 200` (RFC 7541 appendix A).
pub const OK: &[u8] = &[0x88];
/// `:status: 204`.
pub const NO_CONTENT: &[u8] = &[0x89];
/// Error codes (RFC 9113 §7).
pub const INTERNAL_ERROR: u32 = 2;
/// `REFUSED_STREAM`.
pub const REFUSED_STREAM: u32 = 7;
/// Settings (RFC 9113 §6.5.2): `MAX_CONCURRENT_STREAMS`.
pub const MAX_STREAMS: u16 = 3;
/// `INITIAL_WINDOW_SIZE`.
pub const WINDOW: u16 = 4;

/// One connection, from the server's end.
pub struct H2Server {
    peer: RawPeer,
    /// The frame that is being read: its head.
    begun: Option<Vec<u8>>,
}

/// A frame of the client's.
#[derive(Debug)]
pub struct H2Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// The rest.
    pub payload: Vec<u8>,
}

impl H2Server {
    /// Reads the preface and says which settings hold.
    pub async fn begin(mut peer: RawPeer, settings: &[(u16, u32)]) -> Option<Self> {
        // The preface looks like two heads.
        peer.head().await?;
        peer.head().await?;
        let entry = |(name, value): &(u16, u32)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
        peer.send(frame(SETTINGS, 0, 0, &settings.iter().flat_map(entry).collect::<Vec<u8>>())).await;
        Some(Self { peer, begun: None })
    }

    /// Which connection it is, counted from 1.
    pub fn number(&self) -> usize {
        self.peer.number
    }

    /// The next frame; none at the end of the connection. May be given up and called again.
    pub async fn frame(&mut self) -> Option<H2Frame> {
        loop {
            if self.begun.is_none() {
                self.begun = Some(self.peer.bytes(9).await?);
            }
            let head = self.begun.clone()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let payload = self.peer.bytes(length).await?;
            self.begun = None;
            match head[3] {
                SETTINGS | PING if head[4] & ACK != 0 => {}
                SETTINGS => self.say(SETTINGS, ACK, 0, &[]).await,
                PING => self.say(PING, ACK, 0, &payload).await,
                kind => {
                    let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
                    return Some(H2Frame { kind, flags: head[4], stream, payload });
                }
            }
        }
    }

    /// The next frame, unless none comes for so long.
    pub async fn frame_within(&mut self, span: Duration) -> Result<Option<H2Frame>, Quiet> {
        tokio::time::timeout(span, self.frame()).await.map_err(|_| Quiet)
    }

    /// The next request's stream.
    pub async fn request(&mut self) -> Option<u32> {
        loop {
            let frame = self.frame().await?;
            if frame.kind == HEADERS {
                return Some(frame.stream);
            }
        }
    }

    /// Reads until this stream is reset; why. None when the connection ended before.
    pub async fn reset_of(&mut self, stream: u32) -> Option<u32> {
        loop {
            let frame = self.frame().await?;
            if frame.kind == RST_STREAM && frame.stream == stream {
                return Some(u32::from_be_bytes(frame.payload.try_into().ok()?));
            }
        }
    }

    /// Says any frame.
    pub async fn say(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.peer.send(frame(kind, flags, stream, payload)).await;
    }

    /// Begins an answer.
    pub async fn head(&mut self, stream: u32, block: &[u8]) {
        self.say(HEADERS, END_HEADERS, stream, block).await;
    }

    /// Answers without a body.
    pub async fn answer(&mut self, stream: u32, block: &[u8]) {
        self.say(HEADERS, END_HEADERS | END_STREAM, stream, block).await;
    }

    /// Says a piece of a body.
    pub async fn data(&mut self, stream: u32, piece: &[u8], ends: bool) {
        self.say(DATA, if ends { END_STREAM } else { 0 }, stream, piece).await;
    }

    /// Resets a stream.
    pub async fn reset(&mut self, stream: u32, code: u32) {
        self.say(RST_STREAM, 0, stream, &code.to_be_bytes()).await;
    }

    /// Says that nothing behind this stream was looked at (`NO_ERROR`).
    pub async fn go_away(&mut self, last: u32) {
        self.say(GOAWAY, 0, 0, &[last.to_be_bytes(), 0u32.to_be_bytes()].concat()).await;
    }
}

/// Nothing came.
#[derive(Debug)]
pub struct Quiet;
