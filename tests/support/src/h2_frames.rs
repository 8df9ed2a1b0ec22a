//! HTTP/2 frame by frame: heads that no library would agree to send.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::patience::patient;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Frame types (RFC 9113 §6).
pub const DATA: u8 = 0;
/// `HEADERS`.
pub const HEADERS: u8 = 1;
/// `RST_STREAM`.
pub const RST_STREAM: u8 = 3;
/// `SETTINGS`.
pub const SETTINGS: u8 = 4;
/// `PING`.
pub const PING: u8 = 6;
/// `GOAWAY`.
pub const GOAWAY: u8 = 7;
/// `WINDOW_UPDATE`.
pub const WINDOW_UPDATE: u8 = 8;
/// `CONTINUATION`.
pub const CONTINUATION: u8 = 9;
/// The flag of the last frame of a stream.
pub const END_STREAM: u8 = 1;
/// The flag of an acknowledgement.
pub const ACK: u8 = 1;
/// The flag of the last frame of a header block.
pub const END_HEADERS: u8 = 4;

/// A connection that sends any frame it is told to.
pub struct H2Peer {
    stream: TcpStream,
    next_stream: u32,
}

/// What became of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum H2Outcome {
    /// An answer came; its status if it was sent in a form this reader knows.
    Answered(Option<u16>),
    /// The stream was reset with this error code.
    Reset(u32),
    /// The connection was given up with this error code, or closed (`None`).
    Gone(Option<u32>),
}

/// What became of a flood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flooded {
    /// The connection was given up with this error code, or closed (`None`).
    Ended(Option<u32>),
    /// All of it was taken.
    Taken,
    /// The other side stopped reading.
    Blocked,
}

impl H2Outcome {
    /// Whether the request was refused: reset, given up, or answered 4xx.
    pub fn is_refused(self) -> bool {
        match self {
            Self::Answered(status) => status.is_some_and(|status| (400..500).contains(&status)),
            Self::Reset(_) | Self::Gone(_) => true,
        }
    }
}

impl H2Peer {
    /// Connects and exchanges settings.
    pub async fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap_or_else(|error| panic!("{address}: {error}"));
        stream.set_nodelay(true).expect("a fresh socket takes options");
        stream.write_all(PREFACE).await.expect("a fresh connection takes the preface");
        let mut peer = Self { stream, next_stream: 1 };
        peer.frame(SETTINGS, 0, 0, &[]).await;
        peer
    }

    /// Opens a stream with these fields, in this order, and a body if one is given; says what became of it.
    pub async fn request(&mut self, fields: &[(&str, &str)], body: Option<&[u8]>) -> H2Outcome {
        let id = self.open(fields, body.is_none()).await;
        if let Some(body) = body {
            self.frame(DATA, END_STREAM, id, body).await;
        }
        self.outcome(id).await
    }

    /// Opens a stream and returns its number.
    pub async fn open(&mut self, fields: &[(&str, &str)], ends: bool) -> u32 {
        let id = self.next_stream;
        self.next_stream += 2;
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        self.frame(HEADERS, flags, id, &block(fields)).await;
        id
    }

    /// Sends a piece of a body.
    pub async fn data(&mut self, id: u32, bytes: &[u8], ends: bool) {
        self.frame(DATA, if ends { END_STREAM } else { 0 }, id, bytes).await;
    }

    /// Resets a stream (`CANCEL`).
    pub async fn reset(&mut self, id: u32) {
        self.frame(RST_STREAM, 0, id, &8u32.to_be_bytes()).await;
    }

    /// Sends any frame.
    pub async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        // What the other side no longer wants to read is no fault of the test.
        let _ = self.stream.write_all(&frame(kind, flags, stream, payload)).await;
    }

    /// Sends what `next` gives, as fast as it is taken, until there is no more of it or the connection is given up;
    /// reads meanwhile, and answers nothing.
    pub async fn flood(&mut self, next: impl FnMut() -> Option<Vec<u8>>) -> Flooded {
        let (mut reading, writing) = self.stream.split();
        tokio::select! {
            biased;
            code = until_given_up(&mut reading) => Flooded::Ended(code),
            flooded = pour(writing, next) => match flooded {
                // What is still on its way may say why.
                Flooded::Ended(_) => Flooded::Ended(until_given_up(&mut reading).await),
                other => other,
            },
        }
    }

    /// The same, and reads nothing.
    pub async fn flood_unread(&mut self, next: impl FnMut() -> Option<Vec<u8>>) -> Flooded {
        pour(self.stream.split().1, next).await
    }

    /// Sends a ping and reads until it is answered: what was sent before it has been read by then, and the other side's
    /// settings hold. False when the connection is given up instead.
    pub async fn ping(&mut self) -> bool {
        self.frame(PING, 0, 0, b"read yet").await;
        let answered = async {
            loop {
                match read_frame(&mut self.stream).await {
                    Some((PING, ACK, _)) => return true,
                    Some((SETTINGS, 0, _)) => self.frame(SETTINGS, ACK, 0, &[]).await,
                    Some((GOAWAY, ..)) | None => return false,
                    Some(_) => {}
                }
            }
        };
        tokio::time::timeout(patient(Duration::from_secs(15)), answered)
            .await
            .expect("a ping is answered, or the connection ends")
    }

    /// Reads until this stream, or the connection, is decided.
    pub async fn outcome(&mut self, id: u32) -> H2Outcome {
        tokio::time::timeout(patient(Duration::from_secs(15)), self.read_outcome(id))
            .await
            .unwrap_or_else(|_| panic!("stream {id} was never decided"))
    }

    /// Reads until the connection is given up; the error code of its GOAWAY, `None` without one.
    pub async fn goaway(&mut self) -> Option<u32> {
        match self.outcome(u32::MAX).await {
            H2Outcome::Gone(code) => code,
            H2Outcome::Answered(_) | H2Outcome::Reset(_) => unreachable!("no stream has that number"),
        }
    }

    async fn read_outcome(&mut self, wanted: u32) -> H2Outcome {
        loop {
            let mut head = [0; 9];
            if self.stream.read_exact(&mut head).await.is_err() {
                return H2Outcome::Gone(None);
            }
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
            let mut payload = vec![0; length];
            if self.stream.read_exact(&mut payload).await.is_err() {
                return H2Outcome::Gone(None);
            }
            match head[3] {
                SETTINGS if head[4] & ACK == 0 => self.frame(SETTINGS, ACK, 0, &[]).await,
                PING if head[4] & ACK == 0 => self.frame(PING, ACK, 0, &payload).await,
                GOAWAY => return H2Outcome::Gone(number(&payload, 4)),
                RST_STREAM if stream == wanted => return H2Outcome::Reset(number(&payload, 0).unwrap_or(u32::MAX)),
                HEADERS if stream == wanted => return H2Outcome::Answered(status(&payload)),
                _ => {}
            }
        }
    }
}

/// The bytes of any frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("test frames are short").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The header block of these fields, every one a literal.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        literal(&mut block, name, value);
    }
    block
}

/// How much of a flood is written at a time.
const POURED: usize = 32 * 1024;

/// How long a flood may stand still before the other side counts as no longer reading.
const STILL: Duration = Duration::from_secs(2);

async fn pour(mut writing: impl AsyncWrite + Unpin, mut next: impl FnMut() -> Option<Vec<u8>>) -> Flooded {
    let mut is_over = false;
    while !is_over {
        let mut bytes = Vec::with_capacity(POURED);
        while bytes.len() < POURED && !is_over {
            match next() {
                Some(more) => bytes.extend_from_slice(&more),
                None => is_over = true,
            }
        }
        match tokio::time::timeout(patient(STILL), writing.write_all(&bytes)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Flooded::Ended(None),
            Err(_) => return Flooded::Blocked,
        }
    }
    Flooded::Taken
}

/// The next frame: its type, its flags and its payload.
async fn read_frame(reading: &mut (impl AsyncRead + Unpin)) -> Option<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    reading.read_exact(&mut head).await.ok()?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let mut payload = vec![0; length];
    reading.read_exact(&mut payload).await.ok()?;
    Some((head[3], head[4], payload))
}

/// Reads until the connection is given up; the error code of its GOAWAY.
async fn until_given_up(reading: &mut (impl AsyncRead + Unpin)) -> Option<u32> {
    loop {
        if let (GOAWAY, _, payload) = read_frame(reading).await? {
            return number(&payload, 4);
        }
    }
}

fn number(payload: &[u8], at: usize) -> Option<u32> {
    payload.get(at..at + 4).map(|bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// A field as a literal without indexing and without Huffman coding (RFC 7541 §6.2.2).
fn literal(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        let length = text.len();
        if length < 127 {
            block.push(u8::try_from(length).expect("below 127"));
        } else {
            block.push(127);
            let mut rest = length - 127;
            while rest >= 128 {
                block.push(u8::try_from(rest % 128).expect("below 128") | 0x80);
                rest /= 128;
            }
            block.push(u8::try_from(rest).expect("below 128"));
        }
        block.extend_from_slice(text.as_bytes());
    }
}

/// The status, when it is the block's first field and either indexed (RFC 7541 appendix A, 8 to 14) or a literal with
/// an indexed name and digits that are plain or Huffman-coded (appendix B: `0`–`2` take five bits, `3`–`9` six).
fn status(block: &[u8]) -> Option<u16> {
    // A dynamic table size update (§6.3) may come first.
    let skip = block.iter().take_while(|byte| *byte & 0xe0 == 0x20).count();
    let block = &block[skip..];
    match *block.first()? {
        0x88 => Some(200),
        0x89 => Some(204),
        0x8a => Some(206),
        0x8b => Some(304),
        0x8c => Some(400),
        0x8d => Some(404),
        0x8e => Some(500),
        0x48 | 0x08 | 0x18 => {
            let length = *block.get(1)?;
            let bytes = block.get(2..2 + usize::from(length & 0x7f))?;
            let digits =
                if length & 0x80 == 0 { String::from_utf8(bytes.to_vec()).ok()? } else { huffman_digits(bytes) };
            digits.parse().ok()
        }
        _ => None,
    }
}

fn huffman_digits(bytes: &[u8]) -> String {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let value = |bits: &[u8]| bits.iter().fold(0u8, |sum, bit| sum << 1 | bit);
    let mut text = String::new();
    let mut at = 0;
    while text.len() < 3 && at + 5 <= bits.len() {
        let five = value(&bits[at..at + 5]);
        if five < 3 {
            text.push(char::from(b'0' + five));
            at += 5;
        } else if at + 6 <= bits.len() {
            // 0x19 is `3`, 0x1f is `9`.
            text.push(char::from(b'3' + value(&bits[at..at + 6]).wrapping_sub(0x19)));
            at += 6;
        } else {
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read_in_every_form_a_server_may_choose() {
        assert_eq!(status(&[0x88]), Some(200));
        assert_eq!(status(&[0x20, 0x8c]), Some(400));
        assert_eq!(status(&[0x48, 3, b'4', b'0', b'1']), Some(401));
        // RFC 7541 §C.6.1: 302 Huffman-coded; §C.6.2: 307.
        assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), Some(302));
        assert_eq!(status(&[0x48, 0x83, 0x64, 0x0e, 0xff]), Some(307));
    }
}
