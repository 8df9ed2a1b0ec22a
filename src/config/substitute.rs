//! `${NAME}`, `${NAME:-default}` and `${file:PATH}` inside values; `$$` is a dollar.
//!
//! Works on the tree, after parsing: what a variable holds can never become YAML. Keys are left alone.
//! A replaced value is never shown in a message: only what was written is.

use std::path::Path;

use super::diagnostic::{Code, Findings, Problem};
use super::node::{Node, NodeKind, Scalar};
use super::place::{PlaceId, Position, Span};

/// Where variables come from.
pub type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Largest file that `${file:…}` reads.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Replaces in every value below `node`.
pub(crate) fn replace_all(node: &mut Node, environment: &Environment<'_>, findings: &mut Findings) {
    match &mut node.kind {
        NodeKind::Scalar(scalar) => replace(node.at, scalar, environment, findings),
        NodeKind::List(items) => items.iter_mut().for_each(|item| replace_all(item, environment, findings)),
        NodeKind::Map(entries) => {
            entries.iter_mut().for_each(|entry| replace_all(&mut entry.value, environment, findings));
        }
    }
}

/// A piece of a value.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'t> {
    Text(&'t str),
    Dollar,
    Variable { name: &'t str, default: Option<&'t str> },
    File { path: &'t str },
}

fn replace(at: PlaceId, scalar: &mut Scalar, environment: &Environment<'_>, findings: &mut Findings) {
    if !scalar.text.contains('$') {
        return;
    }
    let written = scalar.text.clone();
    let mut text = String::with_capacity(written.len());
    let mut replaced = false;
    let mut rest = written.as_str();
    while !rest.is_empty() {
        let offset = written.len() - rest.len();
        let (piece, length) = match next_piece(rest) {
            Ok(found) => found,
            Err(flaw) => {
                let place = within(at, &written, offset, rest.len(), findings);
                findings.note(
                    Problem::new(Code::BadValue, place, flaw)
                        .fix("Write ${NAME}, ${NAME:-default} or ${file:PATH}; $$ is a dollar"),
                );
                scalar.is_broken = true;
                return;
            }
        };
        match piece {
            Piece::Text(piece) => text.push_str(piece),
            Piece::Dollar => text.push('$'),
            Piece::Variable { name, default } => {
                replaced = true;
                match environment(name).or_else(|| default.map(str::to_owned)) {
                    Some(value) => text.push_str(&value),
                    None => {
                        scalar.is_broken = true;
                        let place = within(at, &written, offset, length, findings);
                        let message = format!("the variable {name} is not set");
                        findings.note(
                            Problem::new(Code::UnsetVariable, place, message)
                                .fix(format!("Set it, or give a default: ${{{name}:-value}}")),
                        );
                    }
                }
            }
            Piece::File { path } => {
                replaced = true;
                let file = findings.sources.base_of(at).join(path);
                match read_trimmed(&file) {
                    Ok(value) => text.push_str(&value),
                    Err(reason) => {
                        scalar.is_broken = true;
                        let place = within(at, &written, offset, length, findings);
                        let message = format!("cannot read {}: {reason}", file.display());
                        findings.note(
                            Problem::new(Code::MissingFile, place, message)
                                .fix("Create it, or correct the path; it is relative to this file"),
                        );
                    }
                }
            }
        }
        rest = &rest[length..];
    }
    scalar.text = text;
    if replaced {
        scalar.written = Some(written);
    }
}

/// The first piece of `rest` and how many bytes it takes.
fn next_piece(rest: &str) -> Result<(Piece<'_>, usize), &'static str> {
    let Some(dollar) = rest.find('$') else { return Ok((Piece::Text(rest), rest.len())) };
    if dollar > 0 {
        return Ok((Piece::Text(&rest[..dollar]), dollar));
    }
    if rest.starts_with("$$") {
        return Ok((Piece::Dollar, 2));
    }
    let Some(inner) = rest.strip_prefix("${") else { return Ok((Piece::Dollar, 1)) };
    let end = inner.find('}').ok_or("`${` without `}`")?;
    let (inner, length) = (&inner[..end], end + 3);
    if let Some(path) = inner.strip_prefix("file:") {
        return if path.is_empty() { Err("`${file:}` names no file") } else { Ok((Piece::File { path }, length)) };
    }
    let (name, default) = inner.split_once(":-").map_or((inner, None), |(name, default)| (name, Some(default)));
    let well_formed = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if well_formed { Ok((Piece::Variable { name, default }, length)) } else { Err("this is no name of a variable") }
}

/// The file's text without one line end.
fn read_trimmed(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !size.is_file() {
        return Err("it is no file".to_owned());
    }
    if size.len() > MAX_FILE_BYTES {
        return Err(format!("it is larger than {MAX_FILE_BYTES} bytes"));
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let mut text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// The place of `length` bytes at `offset` of a value, when the value stands in the file as it is; else the whole.
pub(crate) fn within(at: PlaceId, value: &str, offset: usize, length: usize, findings: &mut Findings) -> PlaceId {
    let whole = findings.sources.span(at);
    let file = findings.sources.file(findings.sources.file_of(at));
    let Some(written) = file.slice(whole) else { return at };
    let quotes = usize::from(written.starts_with(['"', '\'']));
    let verbatim = whole.start.line == whole.end.line
        && written.get(quotes..written.len().saturating_sub(quotes)) == Some(value)
        && value.is_char_boundary(offset)
        && value.is_char_boundary(offset + length);
    if !verbatim {
        return at;
    }
    let count = |text: &str| u32::try_from(text.chars().count()).unwrap_or(0);
    let quotes = u32::from(quotes == 1);
    let start = whole.start.column + quotes + count(&value[..offset]);
    let end = start + count(&value[offset..offset + length]).max(1);
    let line = whole.start.line;
    findings.sources.narrowed(at, Span { start: Position { line, column: start }, end: Position { line, column: end } })
}
