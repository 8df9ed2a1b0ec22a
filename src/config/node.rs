//! A YAML text as a tree in which every key and value has a numbered place.
//!
//! Owns reading YAML 1.2 with bounds: depth, size after aliases are followed, one document, no key twice.
//! Must not know what any value means. The parser underneath gives events; recursion here ends at [`MAX_DEPTH`].

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, StrInput};

use super::diagnostic::{Code, Diagnostic, Findings, Location, Problem};
use super::place::{FileId, PlaceId, Position, Span, Step};
use super::traps;

/// Deepest nesting of maps and lists.
pub(crate) const MAX_DEPTH: usize = 32;
/// Most keys and values of one file once aliases are followed.
pub(crate) const MAX_NODES: usize = 250_000;

/// A key or value.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: PlaceId,
    pub(crate) kind: NodeKind,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(crate) enum NodeKind {
    /// A text or number.
    Scalar(Scalar),
    /// Items in order.
    List(Vec<Node>),
    /// Entries in order, no key twice.
    Map(Vec<Entry>),
}

/// An entry of a map.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Arc<str>,
    /// Where the key stands.
    pub(crate) key_at: PlaceId,
    pub(crate) value: Node,
}

/// A text or number.
#[derive(Clone, Debug)]
pub(crate) struct Scalar {
    /// The text, variables replaced.
    pub(crate) text: String,
    /// Whether it stands without quotes, so that it may be a number, a boolean or nothing.
    pub(crate) plain: bool,
    /// What was written, when variables were replaced: the only form that messages may show.
    pub(crate) written: Option<String>,
    /// Whether a variable could not be replaced, which is noted: the text means nothing.
    pub(crate) is_broken: bool,
}

impl Scalar {
    /// The form that messages may show.
    pub(crate) fn shown(&self) -> &str {
        self.written.as_deref().unwrap_or(&self.text)
    }

    /// Whether it may be a number or boolean: without quotes, or by way of a variable.
    pub(crate) fn is_bare(&self) -> bool {
        self.plain || self.written.is_some()
    }

    /// Whether it is YAML's nothing.
    pub(crate) fn is_null(&self) -> bool {
        self.plain && self.written.is_none() && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }
}

impl Node {
    /// What the value is, for "expected …, found …".
    pub(crate) fn found(&self) -> String {
        match &self.kind {
            NodeKind::List(_) => "a list".to_owned(),
            NodeKind::Map(_) => "a map".to_owned(),
            NodeKind::Scalar(scalar) if scalar.is_null() => "nothing".to_owned(),
            NodeKind::Scalar(scalar) => format!("{:?}", shortened(scalar.shown())),
        }
    }
}

/// The beginning of a text that may be long.
pub(crate) fn shortened(text: &str) -> String {
    const MOST: usize = 80;
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    text.chars().take(MOST).chain(std::iter::once('…')).collect()
}

/// Reads the text of `file` into a tree; `None` when it is empty or has errors, which are noted.
pub(crate) fn parse(file: FileId, text: &str, findings: &mut Findings) -> Option<Node> {
    let mut reader = Reader { parser: Parser::new_from_str(text), anchors: HashMap::new() };
    let raw = match reader.document() {
        Ok(raw) => raw?,
        Err(failure) => {
            note_failure(file, text, failure, findings);
            return None;
        }
    };
    Placer { file, findings, nodes: 0, overflow: false }.root(&raw)
}

/// A value before it has a place: aliases share what they refer to.
struct Raw {
    span: Span,
    kind: RawKind,
    /// Maps and lists inside each other below this one, aliases followed: a chain of aliases is as deep as it reads.
    height: usize,
}

impl Raw {
    fn new(span: Span, kind: RawKind) -> Self {
        let height = match &kind {
            RawKind::Scalar { .. } => 0,
            RawKind::List(items) => 1 + items.iter().map(|item| item.height).max().unwrap_or(0),
            RawKind::Map(entries) => {
                1 + entries.iter().map(|(key, value)| key.height.max(value.height)).max().unwrap_or(0)
            }
        };
        Self { span, kind, height }
    }
}

enum RawKind {
    Scalar { text: String, plain: bool },
    List(Vec<Rc<Raw>>),
    Map(Vec<(Rc<Raw>, Rc<Raw>)>),
}

/// Why reading stopped.
struct Failure {
    code: Code,
    at: Position,
    message: String,
    fix: Option<String>,
}

impl Failure {
    fn new(code: Code, at: Marker, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { code, at: position(at), message: message.into(), fix: Some(fix.into()) }
    }
}

impl From<ScanError> for Failure {
    fn from(error: ScanError) -> Self {
        let at = position(*error.marker());
        match traps::explain(error.info()) {
            Some((message, fix)) => {
                Self { code: Code::Syntax, at, message: message.to_owned(), fix: Some(fix.to_owned()) }
            }
            None => Self { code: Code::Syntax, at, message: format!("this is not YAML: {}", error.info()), fix: None },
        }
    }
}

fn position(marker: Marker) -> Position {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX - 1);
    Position { line: count(marker.line()).max(1), column: count(marker.col()) + 1 }
}

struct Reader<'i> {
    parser: Parser<'i, StrInput<'i>>,
    /// Complete values by anchor; an anchor that is still open is not in it.
    anchors: HashMap<usize, Rc<Raw>>,
}

impl<'i> Reader<'i> {
    fn next(&mut self) -> Result<(Event<'i>, saphyr_parser::Span), Failure> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(error.into()),
            None => Ok((Event::StreamEnd, saphyr_parser::Span::default())),
        }
    }

    /// The only document of the stream.
    fn document(&mut self) -> Result<Option<Rc<Raw>>, Failure> {
        let mut found = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::Nothing | Event::StreamStart | Event::DocumentEnd => {}
                Event::StreamEnd => return Ok(found),
                Event::DocumentStart(_) if found.is_some() => {
                    return Err(Failure::new(
                        Code::Syntax,
                        span.start,
                        "a second document begins here",
                        "Write one document a file, and name the others in `include`",
                    ));
                }
                Event::DocumentStart(_) => {
                    let (event, span) = self.next()?;
                    found = Some(self.value(event, span, 0)?);
                }
                Event::Alias(_)
                | Event::Scalar(..)
                | Event::SequenceStart(..)
                | Event::SequenceEnd
                | Event::MappingStart(..)
                | Event::MappingEnd => {}
            }
        }
    }

    fn value(&mut self, event: Event<'i>, span: saphyr_parser::Span, depth: usize) -> Result<Rc<Raw>, Failure> {
        if depth > MAX_DEPTH {
            return Err(too_deep(span.start));
        }
        let (anchor, tag, raw) = match event {
            Event::Alias(id) => {
                return self.anchors.get(&id).cloned().ok_or_else(|| {
                    Failure::new(
                        Code::Syntax,
                        span.start,
                        "this alias refers to what it stands in",
                        "Write the value out",
                    )
                });
            }
            Event::Scalar(text, style, anchor, tag) => {
                let kind = RawKind::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                (anchor, tag, Raw::new(Span { start: position(span.start), end: position(span.end) }, kind))
            }
            Event::SequenceStart(anchor, tag) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => items.push(self.value(event, span, depth + 1)?),
                    }
                }
                (anchor, tag, Raw::new(first_character(span), RawKind::List(items)))
            }
            Event::MappingStart(anchor, tag) => {
                let mut entries = Vec::new();
                loop {
                    match self.next()? {
                        (Event::MappingEnd, _) => break,
                        (event, at) => {
                            let key = self.value(event, at, depth + 1)?;
                            let (event, at) = self.next()?;
                            entries.push((key, self.value(event, at, depth + 1)?));
                        }
                    }
                }
                (anchor, tag, Raw::new(first_character(span), RawKind::Map(entries)))
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => {
                return Err(Failure::new(Code::Syntax, span.start, "this is not YAML", "Write a map of sections"));
            }
        };
        if let Some(tag) = tag {
            return Err(Failure::new(
                Code::Syntax,
                span.start,
                format!("the tag `{tag}` says what kind of value follows, which the fields know already"),
                "Remove it; a value in quotes is a text",
            ));
        }
        if raw.height > MAX_DEPTH {
            return Err(too_deep(span.start));
        }
        let raw = Rc::new(raw);
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&raw));
        }
        Ok(raw)
    }
}

fn too_deep(at: Marker) -> Failure {
    let message = format!("too many maps and lists inside each other, more than {MAX_DEPTH}");
    Failure::new(Code::TooLarge, at, message, "No setting is that deep")
}

/// Maps and lists are pointed at by their beginning: their end may be screens away.
fn first_character(span: saphyr_parser::Span) -> Span {
    let start = position(span.start);
    Span { start, end: Position { column: start.column + 1, ..start } }
}

fn note_failure(file: FileId, text: &str, failure: Failure, findings: &mut Findings) {
    let Failure { code, at, message, fix } = failure;
    let (at, message, fix) = match traps::recognise(text, at) {
        Some(trap) if code == Code::Syntax => (trap.at, trap.message, Some(trap.fix)),
        Some(_) | None => (at, message, fix),
    };
    let end = Position { column: at.column + 1, ..at };
    let span = Span { start: at, end };
    let name = Arc::clone(&findings.sources.file(file).name);
    // No tree, so nobody knows which values are secrets: a line that looks like one is hidden whole.
    if traps::may_hold_secret(text, at.line) {
        let line_end = Position { line: at.line + 1, column: 1 };
        let whole = Span { start: Position { line: at.line, column: 1 }, end: line_end };
        let whole = findings.sources.add(file, whole, None, Step::Root);
        findings.sources.mark_secret(whole);
    }
    let at = Some(Location { file: name, span });
    findings.note_raw(Diagnostic { code, at, path: String::new(), message, fix, labels: Vec::new() });
}

struct Placer<'f> {
    file: FileId,
    findings: &'f mut Findings,
    nodes: usize,
    overflow: bool,
}

impl Placer<'_> {
    fn root(mut self, raw: &Raw) -> Option<Node> {
        let node = self.place(raw, None, Step::Root);
        (!self.overflow).then_some(node)
    }

    fn place(&mut self, raw: &Raw, parent: Option<PlaceId>, step: Step) -> Node {
        let span = match &raw.kind {
            RawKind::Scalar { plain: false, .. } => self.findings.sources.file(self.file).trimmed(raw.span),
            RawKind::Scalar { .. } | RawKind::List(_) | RawKind::Map(_) => raw.span,
        };
        let at = self.number(span, parent, step);
        if self.overflow {
            return Node { at, kind: NodeKind::List(Vec::new()) };
        }
        let kind = match &raw.kind {
            RawKind::Scalar { text, plain } => {
                NodeKind::Scalar(Scalar { text: text.clone(), plain: *plain, written: None, is_broken: false })
            }
            RawKind::List(items) => {
                let mut placed = Vec::with_capacity(items.len().min(1024));
                for (index, item) in items.iter().enumerate() {
                    placed.push(self.place(item, Some(at), Step::Index(index)));
                    if self.overflow {
                        break;
                    }
                }
                NodeKind::List(placed)
            }
            RawKind::Map(entries) => NodeKind::Map(self.entries(entries, at)),
        };
        Node { at, kind }
    }

    fn entries(&mut self, entries: &[(Rc<Raw>, Rc<Raw>)], at: PlaceId) -> Vec<Entry> {
        let mut placed: Vec<Entry> = Vec::with_capacity(entries.len().min(1024));
        let mut known: HashMap<Arc<str>, PlaceId> = HashMap::new();
        for (key, value) in entries {
            let RawKind::Scalar { text, .. } = &key.kind else {
                let key_at = self.number(key.span, Some(at), Step::Root);
                let problem = Problem::new(Code::Syntax, key_at, "a map or list cannot be a key");
                self.findings.note(problem.fix("Put text with braces in quotes: \"/v1/{id}\""));
                continue;
            };
            let name: Arc<str> = text.as_str().into();
            let key_at = self.number(key.span, Some(at), Step::Key(Arc::clone(&name)));
            if self.overflow {
                break;
            }
            if traps::names_a_secret(&name) {
                // Even where the field turns out to be unknown or doubled, an excerpt must not show its value.
                let value_at = self.number(value.span, Some(at), Step::Key(Arc::clone(&name)));
                self.findings.sources.mark_secret(value_at);
            }
            if let Some(first) = known.get(&name) {
                let problem = Problem::new(Code::Duplicate, key_at, format!("`{name}` stands twice in this map"));
                self.findings.note(problem.label(*first, "first defined here").fix("Merge the two, or remove one"));
                continue;
            }
            known.insert(Arc::clone(&name), key_at);
            let value = self.place(value, Some(at), Step::Key(Arc::clone(&name)));
            placed.push(Entry { key: name, key_at, value });
        }
        placed
    }

    fn number(&mut self, span: Span, parent: Option<PlaceId>, step: Step) -> PlaceId {
        let at = self.findings.sources.add(self.file, span, parent, step);
        self.nodes += 1;
        if self.nodes > MAX_NODES && !self.overflow {
            self.overflow = true;
            let message = format!("more than {MAX_NODES} keys and values once aliases are followed");
            self.findings.note(Problem::new(Code::TooLarge, at, message).fix("Write fewer, or split the file"));
        }
        at
    }
}
