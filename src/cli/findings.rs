//! What is wrong with a configuration, as people read it.

use crate::config::{self, Colour, Diagnostic, Loaded, Severity};

/// All findings with excerpts. Coloured; the console takes colours out again where they do not belong.
pub(super) fn text(loaded: &Loaded) -> String {
    config::text(&loaded.diagnostics, &loaded.sources, Colour::Always)
}

/// How many findings are of this severity.
pub(super) fn count(findings: &[Diagnostic], severity: Severity) -> usize {
    findings.iter().filter(|finding| finding.severity() == severity).count()
}
