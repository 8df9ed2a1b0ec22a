//! Where things stand in configuration files: files, positions, and the path of every value.
//!
//! Owns the texts and the numbering of places. Must not know what any value means.

use std::path::PathBuf;
use std::sync::Arc;

use crate::gate::SourceSpan;

/// A position in a text; both count from 1, columns in characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Position {
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
}

/// From one position up to, not including, another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Span {
    /// The first character.
    pub start: Position,
    /// After the last character.
    pub end: Position,
}

/// One file of a configuration.
#[derive(Clone)]
pub struct SourceFile {
    /// The file as the operator named it.
    pub name: Arc<str>,
    /// Where it was read from; what relative paths in it are relative to is its parent.
    pub path: PathBuf,
    text: String,
    /// The byte at which each line begins.
    lines: Vec<usize>,
    secrets: Vec<Span>,
}

/// Number of a file in [`Sources`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub(crate) struct FileId(u16);

impl FileId {
    /// The file that was named on the command line.
    pub(crate) const MAIN: Self = Self(0);
}

/// Number of a place in [`Sources`]: one occurrence of one key or value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(crate) struct PlaceId(u32);

/// What leads from a value to the one inside it.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// The document.
    Root,
    /// The value of this key of a map.
    Key(Arc<str>),
    /// The item with this index of a list.
    Index(usize),
}

#[derive(Clone, Debug)]
struct Place {
    file: FileId,
    span: Span,
    parent: Option<PlaceId>,
    step: Step,
}

/// The files of one load, and every place in them that was given a number.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<SourceFile>,
    places: Vec<Place>,
}

impl Sources {
    /// The files in the order they were read, the main one first.
    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// The file with this name.
    pub fn file_named(&self, name: &str) -> Option<&SourceFile> {
        self.files.iter().find(|file| *file.name == *name)
    }

    /// Takes in a file. At most 65,536, which the loader's own bound stays far below.
    pub(crate) fn add_file(&mut self, name: &str, path: PathBuf, text: String) -> FileId {
        let id = FileId(u16::try_from(self.files.len()).unwrap_or(u16::MAX));
        let lines = line_starts(&text);
        self.files.push(SourceFile { name: name.into(), path, text, lines, secrets: Vec::new() });
        id
    }

    pub(crate) fn file(&self, id: FileId) -> &SourceFile {
        &self.files[usize::from(id.0)]
    }

    /// Numbers a place.
    pub(crate) fn add(&mut self, file: FileId, span: Span, parent: Option<PlaceId>, step: Step) -> PlaceId {
        let id = PlaceId(u32::try_from(self.places.len()).unwrap_or(u32::MAX));
        self.places.push(Place { file, span, parent, step });
        id
    }

    /// The same place, narrowed to `span`.
    pub(crate) fn narrowed(&mut self, place: PlaceId, span: Span) -> PlaceId {
        let narrowed = Place { span, ..self.place(place).clone() };
        let id = PlaceId(u32::try_from(self.places.len()).unwrap_or(u32::MAX));
        self.places.push(narrowed);
        id
    }

    /// Keeps what stands at `place` out of every excerpt.
    pub(crate) fn mark_secret(&mut self, place: PlaceId) {
        let Place { file, span, .. } = *self.place(place);
        self.files[usize::from(file.0)].secrets.push(span);
    }

    /// Keeps the line of `place`, from there on, out of every excerpt.
    pub(crate) fn mark_rest_of_line_secret(&mut self, place: PlaceId) {
        let Place { file, span, .. } = *self.place(place);
        let end = Position { line: span.start.line + 1, column: 1 };
        self.files[usize::from(file.0)].secrets.push(Span { start: span.start, end });
    }

    pub(crate) fn span(&self, place: PlaceId) -> Span {
        self.place(place).span
    }

    pub(crate) fn file_of(&self, place: PlaceId) -> FileId {
        self.place(place).file
    }

    /// The directory that relative paths written at `place` are relative to.
    pub(crate) fn base_of(&self, place: PlaceId) -> PathBuf {
        self.file(self.file_of(place)).path.parent().map_or_else(PathBuf::new, PathBuf::from)
    }

    /// The path of a value as people write it, `routes[2].scopes[0]`; empty for a whole document.
    pub(crate) fn path(&self, place: PlaceId) -> String {
        let mut steps = Vec::new();
        let mut next = Some(place);
        while let Some(id) = next {
            let place = self.place(id);
            steps.push(&place.step);
            next = place.parent;
        }
        let mut text = String::new();
        for step in steps.into_iter().rev() {
            push_step(&mut text, step);
        }
        text
    }

    /// File, line and column of a place.
    pub(crate) fn source_span(&self, place: PlaceId) -> SourceSpan {
        let found = self.place(place);
        SourceSpan {
            file: Arc::clone(&self.file(found.file).name),
            line: found.span.start.line,
            column: found.span.start.column,
        }
    }

    /// Every numbered value with its path and where it stands. Routes of included files are numbered among all of
    /// them by `route_index`, which is asked with the place of a route; the first place of a path counts.
    pub(crate) fn paths(
        &self,
        route_index: impl Fn(&SourceSpan) -> Option<usize>,
    ) -> impl Iterator<Item = (String, SourceSpan)> {
        let mut paths: Vec<Option<String>> = Vec::with_capacity(self.places.len());
        let mut found = Vec::with_capacity(self.places.len());
        for (index, place) in self.places.iter().enumerate() {
            let id = PlaceId(u32::try_from(index).unwrap_or(u32::MAX));
            let span = self.source_span(id);
            let parent = place.parent.map(|parent| paths[parent.0 as usize].clone());
            let path = match (parent, &place.step) {
                (None, _) => Some(String::new()),
                (Some(parent), Step::Index(_)) if parent.as_deref() == Some("routes") => {
                    route_index(&span).map(|index| format!("routes[{index}]"))
                }
                (Some(parent), step) => parent.map(|mut path| {
                    push_step(&mut path, step);
                    path
                }),
            };
            found.extend(path.clone().map(|path| (path, span)));
            paths.push(path);
        }
        // Later entries of a map replace earlier ones, so the first place of each path comes last.
        found.into_iter().rev()
    }

    /// Where the key of this section of a file stands.
    pub(crate) fn find_key(&self, file: FileId, section: &str) -> Option<PlaceId> {
        let root = |place: &Place| place.parent.is_some_and(|parent| self.place(parent).parent.is_none());
        let named = |place: &Place| matches!(&place.step, Step::Key(key) if **key == *section);
        let found = self.places.iter().position(|place| place.file == file && named(place) && root(place))?;
        u32::try_from(found).ok().map(PlaceId)
    }

    fn place(&self, id: PlaceId) -> &Place {
        &self.places[id.0 as usize]
    }
}

fn push_step(text: &mut String, step: &Step) {
    use std::fmt::Write as _;
    match step {
        Step::Root => {}
        Step::Index(index) => {
            let _ = write!(text, "[{index}]");
        }
        Step::Key(key) => push_key(text, key),
    }
}

/// Appends a key to a path, in quotes where it would be misread.
pub(crate) fn push_key(text: &mut String, key: &str) {
    use std::fmt::Write as _;
    let plain = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "_-*:/".contains(c));
    if !plain {
        let _ = write!(text, "[{key:?}]");
    } else if text.is_empty() {
        text.push_str(key);
    } else {
        let _ = write!(text, ".{key}");
    }
}

impl std::fmt::Debug for SourceFile {
    /// Without the text: it may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceFile").field("name", &self.name).field("path", &self.path).finish_non_exhaustive()
    }
}

impl SourceFile {
    /// These lines of the text as they may be shown: every character of a secret is a star, so that positions stay
    /// what they are. From 1, both included.
    pub fn shown_lines(&self, first: u32, last: u32) -> String {
        let start = self.lines.get(first as usize - 1).copied().unwrap_or(self.text.len());
        let end = self.lines.get(last as usize).copied().unwrap_or(self.text.len());
        let mut shown = String::with_capacity(end - start);
        let mut here = Position { line: first, column: 1 };
        for c in self.text[start..end].chars() {
            let hidden = self.secrets.iter().any(|secret| secret.start <= here && here < secret.end);
            if c == '\n' {
                here = Position { line: here.line + 1, column: 1 };
            } else {
                here.column += 1;
            }
            shown.push(if hidden && !c.is_whitespace() { '*' } else { c });
        }
        shown
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The text between two positions, as written.
    pub(crate) fn slice(&self, span: Span) -> Option<&str> {
        self.text.get(self.byte_of(span.start)?..self.byte_of(span.end)?)
    }

    /// The span without white space at its end, which the parser counts in after a closing quote.
    pub(crate) fn trimmed(&self, span: Span) -> Span {
        let Some(text) = self.slice(span).map(str::trim_end) else { return span };
        let mut end = span.start;
        for c in text.chars() {
            end = match c {
                '\n' => Position { line: end.line + 1, column: 1 },
                _ => Position { column: end.column + 1, ..end },
            };
        }
        Span { end, ..span }
    }

    fn byte_of(&self, position: Position) -> Option<usize> {
        byte_of(&self.text, &self.lines, position)
    }
}

/// The byte at which each line of `text` begins.
pub(crate) fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

/// The byte at which `position` stands in `text`; the end of its line when the line is shorter.
pub(crate) fn byte_of(text: &str, lines: &[usize], position: Position) -> Option<usize> {
    let start = *lines.get((position.line as usize).checked_sub(1)?)?;
    let line = text.get(start..)?.split('\n').next().unwrap_or_default();
    let column = (position.column as usize).saturating_sub(1);
    Some(start + line.char_indices().nth(column).map_or(line.len(), |(at, _)| at))
}
