//! How one route wants its paths read.

/// What to do with a percent-encoded slash (`%2F`) in a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum EncodedSlash {
    /// Refuse the request: servers disagree about what it means.
    Refuse,
    /// Keep it as data inside its segment, for APIs such as GitLab's `group%2Fproject`.
    Keep,
}

/// What to do with an empty segment (`//`) in a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum EmptySegments {
    /// Refuse the request.
    Refuse,
    /// Remove empty segments before matching and forwarding.
    Merge,
}

/// Whether a trailing slash matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum TrailingSlash {
    /// `/a` and `/a/` are two paths.
    Exact,
    /// The route matches with and without it; the path is forwarded as it came.
    Either,
}

/// What to do with a path that normalisation would change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Normalize {
    /// Match and forward the normalised path.
    Rewrite,
    /// Refuse the request.
    Refuse,
}

/// `path_rules` of one route; the strictest reading unless an API needs another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct PathRules {
    /// Percent-encoded slashes.
    pub encoded_slash: EncodedSlash,
    /// Empty segments.
    pub empty_segments: EmptySegments,
    /// Trailing slashes.
    pub trailing_slash: TrailingSlash,
    /// Paths that are not in normal form.
    pub normalize: Normalize,
}

impl PathRules {
    /// What holds where a route says nothing.
    pub const STRICT: Self = Self {
        encoded_slash: EncodedSlash::Refuse,
        empty_segments: EmptySegments::Refuse,
        trailing_slash: TrailingSlash::Exact,
        normalize: Normalize::Rewrite,
    };
}

/// How the server behind a route reads a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ReadsPaths {
    /// Nobody promised anything: a path that some server reads differently is judged under every such reading.
    Variously,
    /// The upstream reads bytes as they are: only the path itself is judged.
    Exactly,
}
