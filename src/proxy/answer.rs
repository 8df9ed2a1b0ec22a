//! An answer on its way to the client, whichever version of HTTP it goes out in.

use bytes::Bytes;
use http::{Response, StatusCode};

use super::body::ReplyBody;
use super::headers::is_hop_by_hop;
use super::observed::Exchange;
use super::shelf::Shelved;
use super::tunnel::PendingTunnel;
use crate::domain::{FieldLines, Fields, Known};
use crate::reply::Rendered;
use crate::wire::Buffers;

/// Fields that an answer gets over HTTP/2 besides its own: its length, and the date, for which the library makes room even
/// where there is one.
const BESIDES: usize = 2;

/// An answer: ours, or an upstream's.
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: StatusCode,
    /// The upstream's reason phrase, where it is not the usual one.
    pub(crate) reason: Option<Box<[u8]>>,
    /// Its fields, without those that frame it and those of one connection.
    pub(crate) lines: FieldLines,
    /// Whether they say when it was made; otherwise we do.
    pub(crate) has_date: bool,
    /// What is said about the length of its body.
    pub(crate) length: Length,
    /// Its body.
    pub(crate) body: ReplyBody,
    /// What the connection becomes behind a 101.
    pub(crate) tunnel: Option<Box<PendingTunnel>>,
    /// What is noted of a refusal behind it.
    pub(crate) exchange: Option<Shelved<Exchange>>,
}

/// What an answer says about the length of its body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Length {
    /// Nothing: it cannot have one.
    Absent,
    /// So many bytes; of an answer to HEAD, what GET would get.
    Exact(u64),
    /// It is as long as it is.
    Unknown,
}

impl Answer {
    /// A refusal, and what observes it.
    pub(crate) fn refusal(rendered: Rendered, is_head: bool, exchange: Option<Shelved<Exchange>>) -> Self {
        let Rendered { status, lines, body } = rendered;
        Self {
            status,
            reason: None,
            lines,
            has_date: false,
            length: Length::Exact(body.len() as u64),
            body: if is_head { ReplyBody::Empty } else { ReplyBody::from(body) },
            tunnel: None,
            exchange,
        }
    }

    /// Another answer of ours, whole.
    pub(crate) fn whole(answer: Response<Bytes>, is_head: bool) -> Self {
        let (mut parts, body) = answer.into_parts();
        parts.headers.remove(http::header::CONTENT_LENGTH);
        let may_have_body = !parts.status.is_informational() && parts.status != StatusCode::NO_CONTENT;
        let length = if may_have_body { Length::Exact(body.len() as u64) } else { Length::Absent };
        Self {
            status: parts.status,
            reason: None,
            lines: FieldLines::from(&parts.headers),
            has_date: false,
            length,
            body: if is_head { ReplyBody::Empty } else { ReplyBody::from(body.to_vec()) },
            tunnel: None,
            exchange: None,
        }
    }

    /// The same for HTTP/2, where the library frames it.
    pub(crate) fn into_h2(self, buffers: &Buffers) -> Response<ReplyBody> {
        let mut answer = Response::new(self.body);
        *answer.status_mut() = self.status;
        *answer.headers_mut() = self.lines.to_headers(BESIDES);
        if let Length::Exact(length) = self.length {
            answer.headers_mut().insert(http::header::CONTENT_LENGTH, length.into());
        }
        buffers.take_back_out(self.lines.into_memory());
        answer
    }
}

/// Copies what goes on of an upstream's fields to `lines`: nothing that frames the message or is meant for this
/// connection alone (RFC 9110 §7.6.1), and no request id but ours.
pub(super) fn pass_fields(fields: Fields<'_>, lines: &mut FieldLines) {
    let nominates = super::headers::nominates(fields);
    for field in fields.iter() {
        let stays = !is_hop_by_hop(field.known) && !matches!(field.known, Known::ContentLength | Known::XRequestId);
        if stays && !(nominates && super::headers::is_nominated(fields, field.name)) {
            lines.push(field.name, field.value);
        }
    }
}
