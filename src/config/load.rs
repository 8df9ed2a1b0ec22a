//! From files to settings: reads, follows `include`, merges, resolves, lints.
//!
//! Owns which files are read and what an included one may hold. Every problem of every file is found in one go.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostic::{Code, Diagnostic, Findings, Location, Problem};
use super::file::File;
use super::node::{self, Node, NodeKind};
use super::place::{FileId, Position, Sources, Span};
use super::settings::Settings;
use super::shape::{Items, Listed, Named, Section, Shape};
use super::substitute::{Environment, replace_all};
use super::{lint, resolve};
use crate::domain::time;

/// Largest configuration file.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Most files of one configuration.
pub const MAX_FILES: usize = 256;

/// What came of reading a configuration.
#[derive(Debug)]
pub struct Loaded {
    /// The settings; none when there is an error among the diagnostics.
    pub settings: Option<Settings>,
    /// Everything found, in reading order.
    pub diagnostics: Vec<Diagnostic>,
    /// The texts, for excerpts, and where every value stands.
    pub sources: Sources,
}

/// Reads the configuration at `path` and the files it includes. Reads files, opens nothing else.
///
/// `environment` answers what `${NAME}` stands for. All problems are found, not only the first; no diagnostic holds
/// the value of a variable, of a `${file:…}` or of a secret field.
pub fn load(path: &Path, environment: &Environment<'_>) -> Loaded {
    let mut findings = Findings::default();
    match read(path, &mut findings) {
        Some(text) => {
            findings.sources.add_file(&path.display().to_string(), path.to_owned(), text.clone());
            load_main(&text, environment, findings)
        }
        None => conclude(None, findings),
    }
}

/// As [`load`], with the main file's text given. `path` is what messages call it and relative paths are relative to.
pub fn load_text(path: &Path, text: &str, environment: &Environment<'_>) -> Loaded {
    let mut findings = Findings::default();
    findings.sources.add_file(&path.display().to_string(), path.to_owned(), text.to_owned());
    load_main(text, environment, findings)
}

fn load_main(text: &str, environment: &Environment<'_>, mut findings: Findings) -> Loaded {
    let file = decode(FileId::MAIN, text, environment, &mut findings);
    let settings = file.and_then(|mut main| {
        let includes = main.include.0.take();
        for included in include(includes, &mut findings) {
            let text = findings.sources.file(included).text().to_owned();
            match decode(included, &text, environment, &mut findings) {
                Some(part) => merge(&mut main, part, included, &mut findings),
                None => findings.is_incomplete = true,
            }
        }
        resolve::resolve(&main, &mut findings)
    });
    conclude(settings, findings)
}

fn conclude(resolved: Option<resolve::Resolved>, mut findings: Findings) -> Loaded {
    let settings = resolved.filter(|_| !findings.has_errors()).map(|resolved| {
        lint::lint(&resolved, time::now(), &mut findings);
        resolved.settings
    });
    let (sources, diagnostics) = findings.finish();
    Loaded { settings, diagnostics, sources }
}

fn decode(id: FileId, text: &str, environment: &Environment<'_>, findings: &mut Findings) -> Option<File> {
    match tree(id, text, environment, findings) {
        Some(node) => File::decode(&node, findings),
        None => {
            if !findings.has_errors_in(id) {
                let name = Arc::clone(&findings.sources.file(id).name);
                let fix = (id == FileId::MAIN).then(|| "`portcullis init` writes one to start from".to_owned());
                note_whole(Code::MissingField, name, "the file is empty", fix, findings);
            }
            None
        }
    }
}

/// The tree of a file, variables replaced.
pub(crate) fn tree(id: FileId, text: &str, environment: &Environment<'_>, findings: &mut Findings) -> Option<Node> {
    let mut node = node::parse(id, text, findings)?;
    if matches!(&node.kind, NodeKind::Scalar(scalar) if scalar.is_null()) {
        return None;
    }
    replace_all(&mut node, environment, findings);
    Some(node)
}

/// Reads a file's text, within its bound.
fn read(path: &Path, findings: &mut Findings) -> Option<String> {
    let name: Arc<str> = path.display().to_string().into();
    let refuse = |code, message: String, fix: &str, findings: &mut Findings| {
        note_whole(code, Arc::clone(&name), &message, Some(fix.to_owned()), findings);
        None
    };
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => {
            let fix = "Name the file with --config, or write one with `portcullis init`";
            return refuse(Code::Unreadable, format!("cannot read it: {error}"), fix, findings);
        }
    };
    if metadata.is_dir() {
        return refuse(Code::Unreadable, "it is a directory".to_owned(), "Name a file in it", findings);
    }
    if metadata.len() > MAX_FILE_BYTES {
        let message = format!("it has {} bytes, more than the {MAX_FILE_BYTES} of a configuration", metadata.len());
        return refuse(Code::TooLarge, message, "Split it, and name the parts in `include`", findings);
    }
    let bytes = match read_bounded(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            return refuse(Code::Unreadable, format!("cannot read it: {error}"), "Make it readable", findings);
        }
    };
    match String::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) => {
            let line = error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
            refuse(Code::Syntax, format!("line {line} is not UTF-8"), "Save it as UTF-8", findings)
        }
    }
}

/// A file that grows while it is read, or a device, ends at the bound as well.
fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(std::io::Error::other("it is too large"));
    }
    Ok(bytes)
}

/// Notes something about a file as a whole.
fn note_whole(code: Code, file: Arc<str>, message: &str, fix: Option<String>, findings: &mut Findings) {
    let start = Position { line: 1, column: 1 };
    let known = findings.sources.file_named(&file).is_some();
    let at = known.then(|| Location { file: Arc::clone(&file), span: Span { start, end: start } });
    let path = if known { String::new() } else { file.to_string() };
    findings.note_raw(Diagnostic { code, at, path, message: message.to_owned(), fix, labels: Vec::new() });
}

/// The files that the patterns of `include` name, in order of pattern and then of name; read, not yet parsed.
fn include(patterns: Option<Listed<String>>, findings: &mut Findings) -> Vec<FileId> {
    let mut found = Vec::new();
    let mut known: Vec<PathBuf> = vec![findings.sources.file(FileId::MAIN).path.clone()];
    for pattern in patterns.iter().flat_map(Listed::iter) {
        let base = findings.sources.base_of(pattern.at);
        // Only what is written is a pattern, not the directory it is relative to.
        let escaped = Path::new(&glob::Pattern::escape(&base.display().to_string())).join(&pattern.value);
        let paths = match glob::glob(&escaped.display().to_string()) {
            Ok(paths) => paths.filter_map(Result::ok).filter(|path| path.is_file()).collect::<Vec<_>>(),
            Err(error) => {
                let message = format!("{:?} is not a pattern of files: {}", findings.written(pattern.at), error.msg);
                findings.note(Problem::new(Code::BadValue, pattern.at, message).fix("Write routes.d/*.yaml"));
                continue;
            }
        };
        // A directory that is still empty is fine; a single file that is not there is a mistake.
        if paths.is_empty() && !pattern.value.contains(['*', '?', '[']) {
            let message = format!("{} does not exist", base.join(findings.written(pattern.at)).display());
            findings.note(Problem::new(Code::MissingFile, pattern.at, message).fix("Create it, or correct the path"));
            findings.is_incomplete = true;
        }
        for path in paths {
            if known.contains(&path) {
                continue;
            }
            if known.len() >= MAX_FILES {
                let message = format!("more than {MAX_FILES} files");
                findings.note(Problem::new(Code::TooLarge, pattern.at, message).fix("Put several routes in one file"));
                return found;
            }
            known.push(path.clone());
            match read(&path, findings) {
                Some(text) => found.push(findings.sources.add_file(&path.display().to_string(), path, text)),
                None => findings.is_incomplete = true,
            }
        }
    }
    found
}

/// Adds an included file's lists and maps to the main file's.
fn merge(main: &mut File, part: File, file: FileId, findings: &mut Findings) {
    let File {
        version: _,
        include,
        listeners,
        tls,
        upstreams,
        environments,
        scopes,
        roles,
        auth,
        headers,
        routes,
        mode,
        report,
        store,
        sync,
        audit,
        usage,
        rate_limits,
        limits,
        admin,
        api,
        errors,
        metrics,
        logging,
        reload,
        shutdown,
        workers,
    } = part;
    merge_named(&mut main.tls, tls, findings);
    merge_named(&mut main.upstreams, upstreams, findings);
    merge_named(&mut main.environments, environments, findings);
    merge_named(&mut main.scopes, scopes, findings);
    merge_named(&mut main.roles, roles, findings);
    if let Some(Items(more)) = routes.0 {
        main.routes.0.get_or_insert_with(|| Items(Vec::new())).0.extend(more);
    }
    let misplaced = [
        ("include", include.0.is_some()),
        ("listeners", listeners.0.is_some()),
        ("auth", auth.0.is_some()),
        ("headers", headers.0.is_some()),
        ("mode", mode.0.is_some()),
        ("report", report.0.is_some()),
        ("store", store.0.is_some()),
        ("sync", sync.0.is_some()),
        ("audit", audit.0.is_some()),
        ("usage", usage.0.is_some()),
        ("rate_limits", rate_limits.0.is_some()),
        ("limits", limits.0.is_some()),
        ("admin", admin.0.is_some()),
        ("api", api.0.is_some()),
        ("errors", errors.0.is_some()),
        ("metrics", metrics.0.is_some()),
        ("logging", logging.0.is_some()),
        ("reload", reload.0.is_some()),
        ("shutdown", shutdown.0.is_some()),
        ("workers", workers.0.is_some()),
    ];
    for (section, is_there) in misplaced {
        if let (true, Some(at)) = (is_there, findings.sources.find_key(file, section)) {
            let message = format!("`{section}` stands in an included file");
            let fix = "Move it to the main file; an included one holds tls, upstreams, environments, scopes, roles and routes";
            findings.note(Problem::new(Code::UnknownField, at, message).fix(fix));
        }
    }
}

fn merge_named<T>(main: &mut Section<Named<T>>, part: Section<Named<T>>, findings: &mut Findings) {
    let Some(Named(more)) = part.0 else { return };
    let all = main.0.get_or_insert_with(Named::default);
    for entry in more {
        match all.find(&entry.name) {
            Some(first) => {
                let message = format!("`{}` is defined twice", entry.name);
                let problem = Problem::new(Code::Duplicate, entry.name_at, message);
                findings.note(problem.label(first.name_at, "first defined here").fix("Rename or remove one"));
            }
            None => all.0.push(entry),
        }
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
