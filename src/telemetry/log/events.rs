//! From tracing events to lines.
//!
//! Owns the shape of an event's line: `ts`, `level`, `message`, `target`, then the event's own fields. Spans are not
//! written. Must not know where lines go.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::writer::LineSender;
use super::{OUR_TARGET, Style};
use crate::domain::time;
use crate::telemetry::access::LineFormat;
use crate::telemetry::line::{push_json_string, push_text_value};
use crate::telemetry::visible::push_visible;

/// Turns every event that reaches it into one line.
pub(super) struct EventLines {
    pub(super) sender: LineSender,
    pub(super) style: Arc<Style>,
}

impl<S: Subscriber> Layer<S> for EventLines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let format = self.style.format();
        let mut fields = Fields { format, message: String::new(), rest: String::new() };
        event.record(&mut fields);
        let mut line = String::with_capacity(128 + fields.message.len() + fields.rest.len());
        let metadata = event.metadata();
        match format {
            LineFormat::Json => {
                // Writing to a String cannot fail, here and below.
                let _ = write!(line, "{{\"ts\":\"{}\",\"level\":\"{}\",", time::now(), level_name(*metadata.level()));
                line.push_str("\"message\":");
                push_json_string(&mut line, &fields.message);
                line.push_str(",\"target\":");
                push_json_string(&mut line, metadata.target());
                line.push_str(&fields.rest);
                line.push('}');
            }
            LineFormat::Text => {
                let _ = write!(line, "{} ", time::now());
                self.push_level(&mut line, *metadata.level());
                line.push(' ');
                push_visible(&mut line, &fields.message);
                line.push_str(&fields.rest);
                if !is_ours(metadata.target()) {
                    line.push_str(" target=");
                    push_text_value(&mut line, metadata.target());
                }
            }
        }
        line.push('\n');
        self.sender.send(line, 1);
    }
}

impl EventLines {
    fn push_level(&self, line: &mut String, level: Level) {
        let name = level_name(level);
        if self.style.colour {
            let _ = write!(line, "\x1b[{}m{name:>5}\x1b[0m", level_colour(level));
        } else {
            let _ = write!(line, "{name:>5}");
        }
    }
}

fn is_ours(target: &str) -> bool {
    target.strip_prefix(OUR_TARGET).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// The number of an ANSI colour.
fn level_colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

/// An event's fields, rendered as they are visited; the message apart from the rest.
struct Fields {
    format: LineFormat,
    message: String,
    rest: String,
}

impl Fields {
    /// Appends the name of a field, and what stands between it and its value.
    fn name(&mut self, field: &Field) {
        let name = field.name();
        let name = name.strip_prefix("r#").unwrap_or(name);
        // An object with the same name twice has no single reading (RFC 8259 §4).
        let prefix = if matches!(name, "ts" | "level" | "target") { "field_" } else { "" };
        match self.format {
            LineFormat::Json => {
                self.rest.push(',');
                push_json_string(&mut self.rest, &format!("{prefix}{name}"));
                self.rest.push(':');
            }
            LineFormat::Text => {
                let _ = write!(self.rest, " {prefix}{name}=");
            }
        }
    }

    fn number(&mut self, field: &Field, number: impl fmt::Display) {
        self.name(field);
        let _ = write!(self.rest, "{number}");
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
            return;
        }
        self.name(field);
        match self.format {
            LineFormat::Json => push_json_string(&mut self.rest, value),
            LineFormat::Text => push_text_value(&mut self.rest, value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        self.record_str(field, &text);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no word for infinities and NaN.
        if value.is_finite() {
            self.number(field, value);
        } else {
            self.record_str(field, &value.to_string());
        }
    }
}
