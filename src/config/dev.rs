//! Configurations nobody wrote: the trial of `dev`, and the file that `init` leaves to be edited.

use std::net::SocketAddr;
use std::path::Path;

use super::diagnostic::Diagnostic;
use super::load::load_text;
use super::settings::Settings;

/// What `dev` was told.
#[derive(Clone, Debug)]
pub struct DevOptions {
    /// The server behind the gateway, `http://host:port`; none: the built-in echo answers.
    pub upstream: Option<String>,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where the management API answers.
    pub admin: SocketAddr,
    /// Where metrics and health answer.
    pub metrics: SocketAddr,
}

/// Settings of a trial: keys in memory; any path, where reading (GET, HEAD, OPTIONS) takes `read:anything` and
/// everything else `write:anything`.
///
/// # Errors
/// When `upstream` is no URL a gateway can forward to.
pub fn dev_settings(options: &DevOptions) -> Result<Settings, Vec<Diagnostic>> {
    // JSON strings are YAML: whatever was typed stays one value. A `$` in it is a dollar, not a variable.
    let quoted = |text: &str| serde_json::Value::from(text.replace('$', "$$")).to_string();
    let upstream = match &options.upstream {
        Some(url) => format!("{{ targets: [{{ url: {} }}] }}", quoted(url)),
        None => "{ kind: echo }".to_owned(),
    };
    let socket = std::env::temp_dir().join(format!("portcullis-dev-{}.sock", std::process::id()));
    let text = format!(
        r#"version: 1
listeners: [{{ bind: "{listen}" }}]
upstreams: {{ app: {upstream} }}
scopes:
  read:anything: {{ title: Read anything }}
  write:anything: {{ title: Change anything }}
routes:
  - path: /**
    upstream: app
    scopes: write:anything
    methods:
      GET: {{ scopes: read:anything }}
      OPTIONS: {{ scopes: read:anything }}
      "*": {{}}
store: {{ driver: memory }}
admin: {{ bind: "{admin}", socket: {socket} }}
metrics: {{ bind: "{metrics}" }}
reload: {{ watch: true }}
"#,
        listen = options.listen,
        admin = options.admin,
        metrics = options.metrics,
        socket = quoted(&socket.display().to_string()),
    );
    let loaded = load_text(Path::new("(built in)"), &text, &|_| None);
    let settings = loaded.settings.ok_or(loaded.diagnostics)?;
    // There is no file to watch or to read again.
    Ok(Settings { files: Vec::new(), ..settings })
}

/// The commented configuration that `init` writes beside its schema. It is one that starts.
pub const fn init_template() -> &'static str {
    include_str!("template.yaml")
}

#[cfg(test)]
#[path = "dev_tests.rs"]
mod tests;
