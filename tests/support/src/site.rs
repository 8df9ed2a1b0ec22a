//! A place to run the executable in: a directory, a configuration file, a command line, and the secrets used there.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::origin::Origin;
use crate::patience::patient;
use crate::vault::Vault;

/// Longest any verb but `run` and `dev` may take.
const VERB_LIMIT: Duration = Duration::from_secs(60);

/// Sections a test need not write: they are added where its text does not have them.
const USUAL_SECTIONS: [(&str, &str); 5] = [
    ("version", "version: 1\n"),
    ("store", "store: { driver: sqlite, path: data/portcullis.db }\n"),
    ("admin", "admin: { bind: \"127.0.0.1:0\", socket: data/portcullis.sock }\n"),
    ("metrics", "metrics: { bind: \"127.0.0.1:0\" }\n"),
    ("logging", "logging: { format: json }\n"),
];

/// Where the configuration file of a site is, below its directory.
const CONFIG_FILE: &str = "portcullis.yaml";

/// Collects what a [`Site`] is made of.
pub struct SiteBuilder {
    binary: PathBuf,
    config: String,
    verbatim: bool,
    fills: Vec<(String, String)>,
    env: Vec<(String, String)>,
    files: Vec<(PathBuf, Vec<u8>)>,
    vault: Vault,
    under: Vec<String>,
}

/// A directory with a configuration file, and the executable to run on it. Clones are the same place; the directory
/// goes with the last one.
#[derive(Clone)]
pub struct Site {
    inner: Arc<Inner>,
}

struct Inner {
    directory: tempfile::TempDir,
    binary: PathBuf,
    verbatim: bool,
    fills: Mutex<Vec<(String, String)>>,
    env: Vec<(String, String)>,
    vault: Vault,
    under: Vec<String>,
}

impl Site {
    /// Begins a site for the executable at `binary`.
    pub fn with(binary: impl Into<PathBuf>) -> SiteBuilder {
        SiteBuilder {
            binary: binary.into(),
            config: String::new(),
            verbatim: false,
            fills: Vec::new(),
            env: Vec::new(),
            files: Vec::new(),
            vault: Vault::default(),
            under: Vec::new(),
        }
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        self.inner.directory.path()
    }

    /// A path below its directory.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.directory().join(relative)
    }

    /// Its configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.path(CONFIG_FILE)
    }

    /// The executable.
    pub fn binary(&self) -> &Path {
        &self.inner.binary
    }

    /// The secrets used here.
    pub fn vault(&self) -> &Vault {
        &self.inner.vault
    }

    /// What a gateway is started by.
    pub(crate) fn under(&self) -> &[String] {
        &self.inner.under
    }

    /// Its environment variables.
    pub(crate) fn env(&self) -> &[(String, String)] {
        &self.inner.env
    }

    /// Writes a file below its directory, with the directories above it.
    pub fn write(&self, relative: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(relative);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).expect("a directory below our own can be made");
        }
        std::fs::write(&path, content).expect("a file below our own directory can be written");
        path
    }

    /// Replaces the configuration file; placeholders and usual sections as at the beginning.
    pub fn rewrite_config(&self, config: &str) {
        let fills = self.inner.fills.lock().unwrap_or_else(PoisonError::into_inner);
        let text = render(config, &fills, self.inner.verbatim);
        drop(fills);
        self.write(CONFIG_FILE, text);
    }

    /// Sets what `{{name}}` stands for in configurations written from now on.
    pub fn fill(&self, name: &str, value: &str) {
        self.inner.fills.lock().unwrap_or_else(PoisonError::into_inner).push((name.to_owned(), value.to_owned()));
    }

    /// Runs a verb on the configuration file and returns what it said.
    pub async fn cli(&self, args: &[&str]) -> Outcome {
        self.cli_with_input(args, "").await
    }

    /// The same with something on standard input.
    pub async fn cli_with_input(&self, args: &[&str], input: &str) -> Outcome {
        let config = self.config_path();
        let mut all = vec!["-c", config.to_str().expect("temporary paths are UTF-8")];
        all.extend_from_slice(args);
        self.bare_cli(&all, input).await
    }

    /// Runs the executable with exactly these arguments in the site's directory.
    ///
    /// # Panics
    /// When it does not end in time, or prints a secret that the site knows already.
    pub async fn bare_cli(&self, args: &[&str], input: &str) -> Outcome {
        self.run_cli(self.directory(), &[], args, input).await
    }

    /// Runs the executable in a directory without a configuration, with more variables in its environment.
    ///
    /// # Panics
    /// As [`Self::bare_cli`].
    pub async fn far_cli(&self, env: &[(&str, &str)], args: &[&str], input: &str) -> Outcome {
        let directory = self.path("elsewhere");
        std::fs::create_dir_all(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        self.run_cli(&directory, env, args, input).await
    }

    async fn run_cli(&self, directory: &Path, env: &[(&str, &str)], args: &[&str], input: &str) -> Outcome {
        let mut command = tokio::process::Command::new(self.binary());
        command.args(args).current_dir(directory).envs(self.inner.env.iter().cloned()).kill_on_drop(true);
        command.envs(env.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let line = format!("portcullis {}", args.join(" "));
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{line}: {error}"));
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // A verb that reads nothing may be gone before it is written to; that is no fault of the test.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = tokio::time::timeout(patient(VERB_LIMIT), child.wait_with_output())
            .await
            .unwrap_or_else(|_| panic!("{line}: still running after {:?}", patient(VERB_LIMIT)))
            .unwrap_or_else(|error| panic!("{line}: {error}"));
        let outcome = Outcome {
            line,
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        for said in [&outcome.stdout, &outcome.stderr] {
            if let Some(secret) = self.inner.vault.find_in(said.as_bytes()) {
                panic!("{} printed the secret {secret}", outcome.line);
            }
        }
        outcome
    }

    /// Creates a secret key with these scopes (comma-separated) through the command line.
    pub async fn create_key(&self, name: &str, scopes: &str) -> Key {
        self.create(KeySpec::new(name, scopes)).await
    }

    /// Creates a key through the command line and remembers its text as a secret.
    pub async fn create(&self, spec: KeySpec) -> Key {
        let mut args: Vec<&str> = vec!["keys", "create", "--output", "json"];
        args.extend(spec.args.iter().map(String::as_str));
        let record = self.cli(&args).await.success().json();
        let text_of = |field: &str| {
            record[field].as_str().unwrap_or_else(|| panic!("`keys create` shows no {field}: {record}")).to_owned()
        };
        let key = Key { id: text_of("id"), text: text_of("key"), prefix: text_of("prefix"), record: record.clone() };
        self.inner.vault.keep(&key.text);
        key
    }

    /// The record of a key, as `keys show` prints it.
    pub async fn show_key(&self, id: &str) -> Value {
        self.cli(&["keys", "show", id, "--output", "json"]).await.success().json()
    }
}

impl SiteBuilder {
    /// The configuration file. `{{name}}` is replaced by what was filled in; sections that every test needs (`store`,
    /// `admin`, `metrics`, `logging`, `version`) are added where the text has none.
    #[must_use]
    pub fn config(mut self, text: &str) -> Self {
        text.clone_into(&mut self.config);
        self
    }

    /// The configuration file, to the letter apart from `{{name}}`.
    #[must_use]
    pub fn verbatim_config(mut self, text: &str) -> Self {
        self.verbatim = true;
        self.config(text)
    }

    /// What `{{name}}` stands for; `{{dir}}` is the site's directory.
    #[must_use]
    pub fn fill(mut self, name: &str, value: impl ToString) -> Self {
        self.fills.push((name.to_owned(), value.to_string()));
        self
    }

    /// `{{name}}` stands for the origin's `host:port`; the origin learns which secrets it must never see.
    #[must_use]
    pub fn upstream(self, name: &str, origin: &Origin) -> Self {
        origin.watch(&self.vault);
        self.fill(name, origin.authority())
    }

    /// A file beside the configuration.
    #[must_use]
    pub fn file(mut self, relative: impl Into<PathBuf>, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((relative.into(), content.into()));
        self
    }

    /// An environment variable of every process started here.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gateways are started by this command, which must become what it is given (`prlimit(1)`).
    #[must_use]
    pub fn under(mut self, program: &Path, args: &[&str]) -> Self {
        let program = program.to_str().expect("tools have UTF-8 paths").to_owned();
        self.under = std::iter::once(program).chain(args.iter().map(|arg| (*arg).to_owned())).collect();
        self
    }

    /// Writes everything down; nothing runs yet.
    pub fn prepare(self) -> Site {
        let directory = tempfile::Builder::new().prefix("portcullis-").tempdir().expect("a temporary directory");
        let here = directory.path().to_str().expect("temporary paths are UTF-8").to_owned();
        let mut fills = vec![("dir".to_owned(), here)];
        fills.extend(self.fills);
        let site = Site {
            inner: Arc::new(Inner {
                directory,
                binary: self.binary,
                verbatim: self.verbatim,
                fills: Mutex::new(fills),
                env: self.env,
                vault: self.vault,
                under: self.under,
            }),
        };
        for (path, content) in &self.files {
            site.write(path, content);
        }
        site.rewrite_config(&self.config);
        site
    }

    /// Writes everything down and starts the gateway on it.
    pub async fn start(self) -> crate::Gateway {
        self.prepare().start().await
    }
}

fn render(config: &str, fills: &[(String, String)], verbatim: bool) -> String {
    let mut text = config.to_owned();
    if !verbatim {
        for (section, usual) in USUAL_SECTIONS {
            let present =
                config.lines().any(|line| line.strip_prefix(section).is_some_and(|rest| rest.starts_with(':')));
            if !present {
                text = usual.to_owned() + &text;
            }
        }
    }
    for (name, value) in fills.iter().rev() {
        text = text.replace(&format!("{{{{{name}}}}}"), value);
    }
    assert!(!text.contains("{{"), "a placeholder was not filled in:\n{text}");
    text
}

/// What a new key is created with.
pub struct KeySpec {
    args: Vec<String>,
}

impl KeySpec {
    /// A key with this name and these scopes, comma-separated.
    pub fn new(name: &str, scopes: &str) -> Self {
        Self { args: ["--name", name, "--scopes", scopes].map(str::to_owned).to_vec() }
    }

    /// Any other option of `keys create`.
    #[must_use]
    pub fn option(mut self, option: &str, value: &str) -> Self {
        self.args.extend([option.to_owned(), value.to_owned()]);
        self
    }

    /// An option of `keys create` that takes no value.
    #[must_use]
    pub fn flag(mut self, option: &str) -> Self {
        self.args.push(option.to_owned());
        self
    }

    /// Its environment.
    #[must_use]
    pub fn environment(self, name: &str) -> Self {
        self.option("--environment", name)
    }

    /// `secret`, `publishable` or `management`.
    #[must_use]
    pub fn kind(self, name: &str) -> Self {
        self.option("--kind", name)
    }

    /// How long it lives.
    #[must_use]
    pub fn expires_in(self, duration: &str) -> Self {
        self.option("--expires-in", duration)
    }
}

/// A key that was created: the only place where a test holds its text.
#[derive(Clone)]
pub struct Key {
    /// Its public name.
    pub id: String,
    /// The secret itself.
    pub text: String,
    /// The public beginning of its text.
    pub prefix: String,
    /// The record that `keys create` printed, secret included.
    pub record: Value,
}

/// What a verb said, and how it ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The command line.
    pub line: String,
    /// Its exit code; -1 when it was ended by a signal.
    pub code: i32,
    /// Its results.
    pub stdout: String,
    /// Its talk.
    pub stderr: String,
}

impl Outcome {
    /// Itself, if it ended with this code.
    #[track_caller]
    #[must_use]
    pub fn exit(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "`{}` ended with {} instead of {code}\nstdout: {}\nstderr: {}",
            self.line, self.code, self.stdout, self.stderr
        );
        self
    }

    /// Itself, if it ended with 0.
    #[track_caller]
    #[must_use]
    pub fn success(self) -> Self {
        self.exit(0)
    }

    /// Its results as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("`{}` printed no JSON ({error}): {}", self.line, self.stdout))
    }

    /// Results and talk in one text.
    pub fn everything(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }

    /// Itself, if every one of `words` occurs in what it said.
    #[track_caller]
    #[must_use]
    pub fn says(self, words: &[&str]) -> Self {
        let everything = self.everything();
        for word in words {
            assert!(everything.contains(word), "`{}` does not say {word:?}:\n{everything}", self.line);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_sections_are_added_only_where_the_text_has_none() {
        let text = render("metrics: { bind: \"[::1]:0\" }\nroutes: []\n", &[], false);
        assert_eq!(text.matches("metrics:").count(), 1, "{text}");
        assert!(text.contains("version: 1") && text.contains("store:"), "{text}");
        assert_eq!(render("a: 1\n", &[], true), "a: 1\n");
    }

    #[test]
    fn the_latest_fill_of_a_name_wins() {
        let fills = [("x".to_owned(), "1".to_owned()), ("x".to_owned(), "2".to_owned())];
        assert_eq!(render("a: {{x}}", &fills, true), "a: 2");
    }
}
