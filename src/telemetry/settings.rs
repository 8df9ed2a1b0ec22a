//! How the gateway speaks about itself.

/// `logging`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Shape of a line.
    pub format: LogFormat,
    /// Least severe event written: `error`, `warn`, `info`, `debug`, `trace`. Default `info`.
    pub level: LogLevel,
    /// Whether each request gets an access line.
    pub access: bool,
    /// Whether the last octet of IPv4 and the last 80 bits of IPv6 client addresses are written as zero.
    pub mask_addresses: bool,
}

/// Shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

/// Severity of a log event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something will.
    Warn,
    /// State changes.
    Info,
    /// Details for an operator who looks into something.
    Debug,
    /// Everything.
    Trace,
}

/// `metrics`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsSettings {
    /// Where `/metrics`, `/livez` and `/readyz` answer.
    pub bind: std::net::SocketAddr,
    /// Most values of the `route` label; routes beyond are counted as `other`. Default 500.
    pub max_routes: usize,
}
