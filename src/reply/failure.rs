//! What goes wrong around the decision: in the message itself, towards the upstream, or with us.

/// Why a request that may be fine is not answered by the upstream. Closed, like the gate's `Denial`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Failure {
    /// The message has no single reading (RFC 9112 §6.3, §11.2).
    BadRequest {
        /// What is wrong with it, for the client.
        detail: &'static str,
    },
    /// The request line's target is longer than allowed.
    TargetTooLong,
    /// The head is larger than allowed, or has too many fields.
    HeadersTooLarge,
    /// The head did not arrive in time.
    RequestTimeout,
    /// The body is larger than the route allows.
    BodyTooLarge,
    /// `Expect` asks for something other than `100-continue` (RFC 9110 §10.1.1).
    ExpectationFailed,
    /// The key stopped holding while the body was still coming.
    KeyGone,
    /// No connection to the upstream, or it broke before it answered, or its answer has no single reading.
    UpstreamUnreachable,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// All connections to the upstream are in use.
    UpstreamBusy,
    /// What is under way holds nearly as much memory as there is for it.
    Overloaded,
    /// A bug of ours, caught.
    Internal,
}

impl Failure {
    /// The contract's code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::BadRequest { .. } => "bad_request",
            Self::TargetTooLong => "target_too_long",
            Self::HeadersTooLarge => "headers_too_large",
            Self::RequestTimeout => "request_timeout",
            Self::BodyTooLarge => "body_too_large",
            Self::ExpectationFailed => "expectation_failed",
            Self::KeyGone => "invalid_key",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamBusy => "upstream_busy",
            Self::Overloaded => "overloaded",
            Self::Internal => "internal_error",
        }
    }
}
