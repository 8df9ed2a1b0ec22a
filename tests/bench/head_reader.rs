//! The framing room, reading requests that are there already.

use portcullis::domain::fields::FieldTable;
use portcullis::framing::{RequestHeads, RequestLimits};

/// The head of a `GET` of exactly `len` bytes, at least 320.
pub fn request_head(len: usize) -> Vec<u8> {
    let begin = "GET /v1/r0/items/42?page=3&per_page=50 HTTP/1.1\r\nHost: api.example.com\r\n\
                 User-Agent: okhttp/4.12.0\r\nAccept: application/json\r\nAccept-Encoding: gzip, deflate, br\r\n\
                 Authorization: Bearer pc_live_sk_0123456789abcdefghijklmnopqrstuv000000\r\n\
                 X-Request-Id: 0b7c3f4e-93a1-4c1b-9d53-6f4d8a1e2c75\r\nX-Trace: ";
    let end = "\r\n\r\n";
    let rest = len.checked_sub(begin.len() + end.len()).expect("a head has its fields");
    [begin.as_bytes(), &vec![b'a'; rest], end.as_bytes()].concat()
}

/// One client connection that always has the next request.
pub struct HeadReader {
    heads: RequestHeads,
    head: Vec<u8>,
    fields: FieldTable,
}

impl HeadReader {
    /// A reader of this head, again and again.
    pub fn new(head: Vec<u8>) -> Self {
        Self { heads: RequestHeads::new(RequestLimits::default()), head, fields: FieldTable::new() }
    }

    /// Reads one request, and says how many bytes its head has. The one place that calls the framing room.
    pub fn read(&mut self) -> usize {
        let read = self.heads.read(&self.head, &mut self.fields);
        read.expect("the head has one reading").expect("the head is whole").len
    }
}
