//! Findings with an excerpt and a caret.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet, renderer::DecorStyle};

use crate::config::diagnostic::{Diagnostic, Location, Severity};
use crate::config::place::{Position, Sources, byte_of, line_starts};

/// Whether text is coloured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Colour {
    /// Never: pipes, files, `NO_COLOR`.
    Never,
    /// With escape sequences for terminals.
    Always,
}

/// All findings with excerpts, then one line that counts them; empty when there are none. Secrets are stars.
pub fn text(diagnostics: &[Diagnostic], sources: &Sources, colour: Colour) -> String {
    let renderer = match colour {
        Colour::Never => Renderer::plain(),
        Colour::Always => Renderer::styled(),
    };
    let renderer = renderer.decor_style(DecorStyle::Ascii);
    let mut text = String::new();
    for diagnostic in diagnostics {
        text.push_str(&renderer.render(&groups(diagnostic, sources)));
        text.push_str("\n\n");
    }
    if !diagnostics.is_empty() {
        text.push_str(&totals(diagnostics));
        text.push('\n');
    }
    text
}

fn totals(diagnostics: &[Diagnostic]) -> String {
    let count = |severity: Severity| diagnostics.iter().filter(|found| found.severity() == severity).count();
    let words = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    format!("{}, {}", words(count(Severity::Error), "error"), words(count(Severity::Warning), "warning"))
}

fn groups<'a>(diagnostic: &Diagnostic, sources: &Sources) -> Vec<Group<'a>> {
    let level = match diagnostic.severity() {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(diagnostic.to_string()).id(diagnostic.code.word());
    let Some(at) = &diagnostic.at else { return vec![Group::with_title(title)] };
    let marks = std::iter::once((at, None, AnnotationKind::Primary))
        .chain(diagnostic.labels.iter().map(|label| (&label.at, Some(label.text.clone()), AnnotationKind::Context)));
    let marks: Vec<_> = marks.collect();
    let mut group = Group::with_title(title);
    let mut files: Vec<&str> = Vec::new();
    for (at, _, _) in &marks {
        if !files.contains(&&*at.file) {
            files.push(&at.file);
        }
    }
    for file in files {
        let Some(source) = sources.file_named(file) else { continue };
        let here = || marks.iter().filter(|(at, _, _)| *at.file == *file);
        let first = here().map(|(at, _, _)| at.span.start.line).min().unwrap_or(1);
        let last = here().map(|(at, _, _)| at.span.start.line).max().unwrap_or(first);
        let shown = source.shown_lines(first, last);
        let lines = line_starts(&shown);
        let annotations: Vec<_> = here()
            .filter_map(|(at, label, kind)| {
                Some(kind.span(byte_range(&shown, &lines, at, first)?).label(label.clone()))
            })
            .collect();
        // The first line names the main place already; another file has to be named.
        let path = (*file != *at.file).then(|| file.to_owned());
        group = group.element(Snippet::source(shown).line_start(first as usize).path(path).annotations(annotations));
    }
    vec![group]
}

/// The bytes of a place in a text that begins at line `first`; at most to the end of its first line, because a caret
/// under a screenful helps nobody.
fn byte_range(text: &str, lines: &[usize], at: &Location, first: u32) -> Option<std::ops::Range<usize>> {
    let within = |position: Position| Position { line: position.line - first + 1, ..position };
    let start = byte_of(text, lines, within(at.span.start))?;
    let line_end = text[start..].find('\n').map_or(text.len(), |length| start + length);
    let end = byte_of(text, lines, within(at.span.end)).unwrap_or(line_end).clamp(start, line_end);
    Some(start..end)
}
