//! Files that several tests read.

use std::path::Path;

use super::{Loaded, load_text};

pub(super) fn no_environment(_: &str) -> Option<String> {
    None
}

pub(super) fn loaded(text: &str) -> Loaded {
    load_text(Path::new("p.yaml"), text, &no_environment)
}

/// The findings of a text, one a line, as people read them.
pub(super) fn findings(text: &str) -> Vec<String> {
    loaded(text).diagnostics.iter().map(ToString::to_string).collect()
}

/// A complete file whose `routes` are these lines.
pub(super) fn with_routes(routes: &str) -> String {
    format!(
        "version: 1\nlisteners: [{{ bind: 127.0.0.1:0 }}]\n\
         upstreams: {{ app: {{ kind: echo }} }}\nscopes: {{ a: {{}}, b: {{}} }}\nroutes:\n{routes}"
    )
}

/// A complete file with these lines instead of other sections.
pub(super) fn with(sections: &str) -> String {
    format!(
        "{sections}\nversion: 1\nlisteners: [{{ bind: 127.0.0.1:0 }}]\nupstreams: {{ app: {{ kind: echo }} }}\n\
         routes: [{{ path: /**, upstream: app, auth: none }}]\n"
    )
}
