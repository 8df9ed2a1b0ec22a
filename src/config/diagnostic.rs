//! What is wrong with a configuration, where, and how to fix it.
//!
//! Owns the words of a finding and the collection of all of them. Must not know how they are shown (see `render`).

use std::sync::Arc;

use super::place::{PlaceId, Sources, Span};

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but probably does not say what was meant.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

macro_rules! codes {
    ($( $(#[doc = $doc:literal])+ $name:ident = $word:literal, $severity:ident; )*) => {
        /// Kinds of findings: a closed set, each with a stable name for scripts.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
        pub enum Code { $( $(#[doc = $doc])+ $name, )* }

        impl Code {
            /// All of them.
            pub const ALL: &'static [Self] = &[$( Self::$name, )*];

            /// The stable name.
            pub const fn word(self) -> &'static str {
                match self { $( Self::$name => $word, )* }
            }

            /// What findings of this kind say.
            pub const fn summary(self) -> &'static str {
                match self { $( Self::$name => concat!($($doc),+).trim_ascii(), )* }
            }

            /// How bad they are.
            pub const fn severity(self) -> Severity {
                match self { $( Self::$name => Severity::$severity, )* }
            }
        }
    };
}

codes! {
    /// A file cannot be read.
    Unreadable = "unreadable", Error;
    /// A file is larger, deeper or more entangled than a configuration ever is.
    TooLarge = "too-large", Error;
    /// The text is not YAML.
    Syntax = "syntax", Error;
    /// A key stands twice in one map, or a name is defined twice.
    Duplicate = "duplicate", Error;
    /// There is no such field or section.
    UnknownField = "unknown-field", Error;
    /// A field that is needed is not there.
    MissingField = "missing-field", Error;
    /// A value is of another shape than its field.
    WrongType = "wrong-type", Error;
    /// A value is of the right shape but makes no sense.
    BadValue = "bad-value", Error;
    /// A variable that a value refers to is not set.
    UnsetVariable = "unset-variable", Error;
    /// A file that a value refers to does not exist.
    MissingFile = "missing-file", Error;
    /// A certificate, key or authority cannot be used.
    BadCertificate = "bad-certificate", Error;
    /// A name that is referred to is defined nowhere.
    UnknownReference = "unknown-reference", Error;
    /// Two fields contradict each other.
    Conflict = "conflict", Error;
    /// A route or method does not say what it demands.
    NoDemand = "no-demand", Error;
    /// Two rules are equally good for the same requests.
    Tie = "tie", Error;
    /// Two patterns differ only in upper and lower case.
    CaseOnly = "case-only", Error;
    /// A certificate, key or authority is not for this user to read.
    MayNotRead = "may-not-read", Warning;
    /// No standard has this method, but one that is spelt much like it.
    OddMethod = "odd-method", Warning;
    /// A scope that a rule demands is not in the catalogue.
    UndeclaredScope = "undeclared-scope", Warning;
    /// A scope in the catalogue is demanded by no rule.
    UnusedScope = "unused-scope", Warning;
    /// A role grants nothing that the catalogue knows.
    IdleRole = "idle-role", Warning;
    /// No request ever reaches a rule, or none can satisfy it.
    Unreachable = "unreachable", Warning;
    /// A public rule answers requests that a protected rule covers too.
    PublicShadow = "public-shadow", Warning;
    /// Refusals are reported, not enforced.
    ReportMode = "report-mode", Warning;
    /// An upstream, certificate or other named thing is used nowhere.
    Unused = "unused", Warning;
    /// An OCSP response cannot be stapled.
    NotStapled = "not-stapled", Warning;
    /// A setting weakens a protection.
    Weakened = "weakened", Warning;
    /// Two settings go badly together.
    Mismatch = "mismatch", Warning;
}

/// A stretch of a file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Location {
    /// The file as the operator named it.
    pub file: Arc<str>,
    /// From where to where.
    pub span: Span,
}

/// Another place that has to do with a finding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Label {
    /// Where.
    pub at: Location,
    /// What it is: "first defined here".
    pub text: String,
}

/// One finding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// What kind.
    pub code: Code,
    /// Where it stands; none when it is about a file as a whole that could not be read.
    pub at: Option<Location>,
    /// The path of the value, `routes[2].scopes[0]`; empty for a whole document.
    pub path: String,
    /// What is wrong, without the place. Never holds a secret.
    pub message: String,
    /// How to fix it.
    pub fix: Option<String>,
    /// Other places that have to do with it.
    pub labels: Vec<Label>,
}

impl Diagnostic {
    /// How bad it is.
    pub const fn severity(&self) -> Severity {
        self.code.severity()
    }
}

impl std::fmt::Display for Diagnostic {
    /// `config/routes.yaml:14:9 routes[2].scopes[0]: "orders read" is not a scope. Write two entries.`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.at {
            Some(at) => {
                write!(f, "{}:{}:{}", at.file, at.span.start.line, at.span.start.column)?;
                if !self.path.is_empty() {
                    write!(f, " {}", self.path)?;
                }
                f.write_str(": ")?;
            }
            None if self.path.is_empty() => {}
            None => write!(f, "{}: ", self.path)?,
        }
        f.write_str(&self.message)?;
        match &self.fix {
            Some(fix) if fix.ends_with('?') => write!(f, ". {fix}"),
            Some(fix) => write!(f, ". {fix}."),
            None => f.write_str("."),
        }
    }
}

/// A finding under construction: its place is still a number.
pub(crate) struct Problem {
    code: Code,
    at: PlaceId,
    message: String,
    fix: Option<String>,
    labels: Vec<(PlaceId, String)>,
}

impl Problem {
    pub(crate) fn new(code: Code, at: PlaceId, message: impl Into<String>) -> Self {
        Self { code, at, message: message.into(), fix: None, labels: Vec::new() }
    }

    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    pub(crate) fn label(mut self, at: PlaceId, text: impl Into<String>) -> Self {
        self.labels.push((at, text.into()));
        self
    }
}

/// The most findings that are kept; a file with more is not read by anyone.
pub(crate) const MAX_FINDINGS: usize = 500;

/// Everything found in one load, beside the sources it was found in.
#[derive(Default)]
pub(crate) struct Findings {
    /// Where everything stands.
    pub(crate) sources: Sources,
    /// Whether a file could not be read, so that what it defines seems to be missing.
    pub(crate) is_incomplete: bool,
    list: Vec<Diagnostic>,
}

impl Findings {
    /// Notes a finding; the same one at the same place is noted once.
    pub(crate) fn note(&mut self, problem: Problem) {
        let Problem { code, at, message, fix, labels } = problem;
        let labels = labels.into_iter().map(|(at, text)| Label { at: self.locate(at), text }).collect();
        let path = self.sources.path(at);
        self.note_raw(Diagnostic { code, at: Some(self.locate(at)), path, message, fix, labels });
    }

    /// Notes a finding that has no number for its place.
    pub(crate) fn note_raw(&mut self, diagnostic: Diagnostic) {
        let known = self.list.iter().any(|other| other.at == diagnostic.at && other.message == diagnostic.message);
        if !known && self.list.len() < MAX_FINDINGS {
            self.list.push(diagnostic);
        }
    }

    /// Whether anything makes the configuration unusable.
    pub(crate) fn has_errors(&self) -> bool {
        self.list.iter().any(|diagnostic| diagnostic.severity() == Severity::Error)
    }

    /// Whether anything in this file makes it unusable.
    pub(crate) fn has_errors_in(&self, file: super::place::FileId) -> bool {
        let name = &self.sources.file(file).name;
        let here = |found: &&Diagnostic| found.at.as_ref().is_some_and(|at| at.file == *name);
        self.list.iter().filter(here).any(|found| found.severity() == Severity::Error)
    }

    /// Whether something in the section of this name is an error.
    pub(crate) fn is_broken(&self, section: &str) -> bool {
        self.list.iter().any(|diagnostic| {
            diagnostic.severity() == Severity::Error
                && diagnostic
                    .path
                    .strip_prefix(section)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    /// Whether an unknown section was taken for a misspelt `section`.
    pub(crate) fn is_misspelt(&self, section: &str) -> bool {
        let named = format!("`{section}`");
        let meant = |fix: &Option<String>| fix.as_ref().is_some_and(|fix| fix.contains(&named));
        self.list.iter().any(|found| found.code == Code::UnknownField && meant(&found.fix))
    }

    /// The file, line and column of a place.
    pub(crate) fn locate(&self, at: PlaceId) -> Location {
        let file = Arc::clone(&self.sources.file(self.sources.file_of(at)).name);
        Location { file, span: self.sources.span(at) }
    }

    /// What stands at a place, as it is written there: the only form of a value that a message may show, because what
    /// a variable stands for may be a secret.
    pub(crate) fn written(&self, at: PlaceId) -> String {
        let text = self.sources.file(self.sources.file_of(at)).slice(self.sources.span(at)).unwrap_or_default();
        let text = text.trim();
        let unquoted = ['"', '\''].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote));
        super::node::shortened(unquoted.unwrap_or(text))
    }

    /// The sources, and all findings in reading order, errors of one place before its warnings.
    pub(crate) fn finish(mut self) -> (Sources, Vec<Diagnostic>) {
        let files: Vec<Arc<str>> = self.sources.files().iter().map(|file| Arc::clone(&file.name)).collect();
        let order = |at: &Option<Location>| {
            at.as_ref().map(|at| (files.iter().position(|file| *file == at.file), at.span.start))
        };
        self.list.sort_by_key(|found| (order(&found.at), found.severity()));
        (self.sources, self.list)
    }
}
