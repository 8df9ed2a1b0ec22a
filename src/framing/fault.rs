//! What can be wrong with the framing of a message, and what its sender is told.

use std::error::Error;
use std::fmt;

/// Why a message has no single reading, is too large, or did not arrive in time.
///
/// One enum for both directions, because the grammar is one. In an answer every fault means the same to the client:
/// 502, and the upstream connection is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The request line is not method, space, target, space, `HTTP/1.0` or `HTTP/1.1` (RFC 9112 §3).
    RequestLine,
    /// The target holds a byte that has no place in one, or has a form its method does not allow (RFC 9112 §3.2).
    Target,
    /// The target, or the line it stands in, is too long.
    TargetTooLong,
    /// A line of the head does not end in CR LF, or more than one empty line stands before it (RFC 9112 §2.2).
    LineEnd,
    /// A field name is empty, is no token, or has white space before its colon (RFC 9112 §5.1).
    FieldName,
    /// A field value holds a control byte: NUL, a bare CR, DEL (RFC 9110 §5.5).
    FieldValue,
    /// A field is continued on another line, `obs-fold` (RFC 9112 §5.2).
    FoldedField,
    /// The head is too large.
    HeadTooLarge,
    /// The head has too many fields.
    TooManyFields,
    /// An HTTP/1.1 request without `Host` (RFC 9112 §3.2).
    HostMissing,
    /// More than one `Host`.
    HostRepeated,
    /// `Host`, or the authority of the target, is more or less than a host and a port.
    HostMalformed,
    /// `Host` and the authority of the target differ.
    HostDiffers,
    /// `Content-Length` is not one decimal number below 2^63.
    ContentLength,
    /// More than one `Content-Length`, equal or not.
    ContentLengthRepeated,
    /// `Transfer-Encoding` is something else than exactly `chunked`.
    TransferEncoding,
    /// More than one `Transfer-Encoding`.
    TransferEncodingRepeated,
    /// `Transfer-Encoding` in an HTTP/1.0 message (RFC 9112 §6.1).
    TransferEncodingInOldVersion,
    /// Both `Content-Length` and `Transfer-Encoding` (RFC 9112 §6.3).
    LengthAndEncoding,
    /// `Expect` is something else than exactly `100-continue`, or is repeated.
    Expect,
    /// A body where none can be: a WebSocket handshake, CONNECT, an informational answer.
    UnexpectedBody,
    /// A chunk does not begin with 1 to 16 hexadecimal digits that fit 63 bits (RFC 9112 §7.1).
    ChunkSize,
    /// A chunk, or its size, is not followed by CR LF.
    ChunkEnd,
    /// A chunk extension holds a byte outside visible ASCII, space and tab.
    ChunkExtension,
    /// The chunk extensions of one body are too large.
    ChunkExtensionsTooLarge,
    /// A trailer field is malformed, or is one that frames or routes a message (RFC 9110 §6.5.1).
    Trailer,
    /// The trailer section is too large, or has too many fields.
    TrailersTooLarge,
    /// The rest of a request head did not arrive in time.
    HeadTimeout,
    /// The rest of a request body did not arrive in time.
    BodyTimeout,
    /// The status line is not `HTTP/1.0` or `HTTP/1.1`, space, three digits, and a reason or none (RFC 9112 §4).
    StatusLine,
    /// An upstream sent bytes that belong to no request.
    Unrequested,
    /// An upstream sent too many informational answers for one request.
    TooManyInformational,
    /// An upstream switched protocols and was not asked to.
    UnexpectedUpgrade,
}

impl Fault {
    /// The status a sender of such a request is answered with: 400, 408, 414, 417 or 431; 502 for
    /// what only an upstream does.
    pub const fn status(self) -> u16 {
        match self {
            Self::TargetTooLong => 414,
            Self::Expect => 417,
            Self::HeadTooLarge | Self::TooManyFields => 431,
            Self::HeadTimeout | Self::BodyTimeout => 408,
            Self::StatusLine | Self::Unrequested | Self::TooManyInformational | Self::UnexpectedUpgrade => 502,
            Self::RequestLine
            | Self::Target
            | Self::LineEnd
            | Self::FieldName
            | Self::FieldValue
            | Self::FoldedField
            | Self::HostMissing
            | Self::HostRepeated
            | Self::HostMalformed
            | Self::HostDiffers
            | Self::ContentLength
            | Self::ContentLengthRepeated
            | Self::TransferEncoding
            | Self::TransferEncodingRepeated
            | Self::TransferEncodingInOldVersion
            | Self::LengthAndEncoding
            | Self::UnexpectedBody
            | Self::ChunkSize
            | Self::ChunkEnd
            | Self::ChunkExtension
            | Self::ChunkExtensionsTooLarge
            | Self::Trailer
            | Self::TrailersTooLarge => 400,
        }
    }

    /// The name of this fault in events.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::RequestLine => "request_line",
            Self::Target => "target",
            Self::TargetTooLong => "target_too_long",
            Self::LineEnd => "line_end",
            Self::FieldName => "field_name",
            Self::FieldValue => "field_value",
            Self::FoldedField => "folded_field",
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyFields => "too_many_fields",
            Self::HostMissing => "host_missing",
            Self::HostRepeated => "host_repeated",
            Self::HostMalformed => "host_malformed",
            Self::HostDiffers => "host_differs",
            Self::ContentLength => "content_length",
            Self::ContentLengthRepeated => "content_length_repeated",
            Self::TransferEncoding => "transfer_encoding",
            Self::TransferEncodingRepeated => "transfer_encoding_repeated",
            Self::TransferEncodingInOldVersion => "transfer_encoding_in_old_version",
            Self::LengthAndEncoding => "length_and_encoding",
            Self::Expect => "expect",
            Self::UnexpectedBody => "unexpected_body",
            Self::ChunkSize => "chunk_size",
            Self::ChunkEnd => "chunk_end",
            Self::ChunkExtension => "chunk_extension",
            Self::ChunkExtensionsTooLarge => "chunk_extensions_too_large",
            Self::Trailer => "trailer",
            Self::TrailersTooLarge => "trailers_too_large",
            Self::HeadTimeout => "head_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::StatusLine => "status_line",
            Self::Unrequested => "unrequested",
            Self::TooManyInformational => "too_many_informational",
            Self::UnexpectedUpgrade => "unexpected_upgrade",
        }
    }

    /// One sentence for the sender: what is wrong and what would be right. Names no byte of the message.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::RequestLine => {
                "The request line is malformed: send a method, one space, the target, one space and HTTP/1.1."
            }
            Self::Target => {
                "The request target holds a byte that must be percent-encoded, or a form that its method does not allow."
            }
            Self::TargetTooLong => "The request target is too long: shorten the path or the query.",
            Self::LineEnd => "A line of the request head does not end in CR LF: send CR LF after every line.",
            Self::FieldName => {
                "A header field name is malformed: send a token directly followed by a colon, without white space."
            }
            Self::FieldValue => {
                "A header field value holds a control byte: send visible characters, spaces and tabs only."
            }
            Self::FoldedField => "A header field is folded over several lines: send each field on one line.",
            Self::HeadTooLarge => "The request head is too large: send fewer or smaller header fields.",
            Self::TooManyFields => "The request has too many header fields: send fewer.",
            Self::HostMissing => "The Host field is missing: HTTP/1.1 demands exactly one.",
            Self::HostRepeated => "The Host field is repeated: send exactly one.",
            Self::HostMalformed => "The Host field is malformed: send a host name or address and at most a port.",
            Self::HostDiffers => "The Host field and the authority of the target differ: send the same in both.",
            Self::ContentLength => "Content-Length is malformed: send one decimal number.",
            Self::ContentLengthRepeated => "Content-Length is repeated: send exactly one.",
            Self::TransferEncoding => "Transfer-Encoding is not supported: send exactly `chunked`, or Content-Length.",
            Self::TransferEncodingRepeated => "Transfer-Encoding is repeated: send exactly one.",
            Self::TransferEncodingInOldVersion => "HTTP/1.0 has no Transfer-Encoding: send Content-Length.",
            Self::LengthAndEncoding => "Both Content-Length and Transfer-Encoding are present: send one of them.",
            Self::Expect => "Expect is not supported: send exactly `100-continue`, once, or leave it out.",
            Self::UnexpectedBody => "This request cannot have a body: send it without one.",
            Self::ChunkSize => "A chunk size is malformed: send 1 to 16 hexadecimal digits.",
            Self::ChunkEnd => "A chunk or its size does not end in CR LF.",
            Self::ChunkExtension => "A chunk extension holds a byte that has no place there: send none.",
            Self::ChunkExtensionsTooLarge => "The chunk extensions are too large: send none.",
            Self::Trailer => "A trailer field is malformed or is not allowed in a trailer section.",
            Self::TrailersTooLarge => "The trailer section is too large: send fewer or smaller fields.",
            Self::HeadTimeout => "The request head did not arrive in time.",
            Self::BodyTimeout => "The request body did not arrive in time.",
            Self::StatusLine => "The upstream's status line is malformed.",
            Self::Unrequested => "The upstream sent bytes that belong to no request.",
            Self::TooManyInformational => "The upstream sent too many informational answers.",
            Self::UnexpectedUpgrade => "The upstream switched protocols without being asked.",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.detail())
    }
}

impl Error for Fault {}
