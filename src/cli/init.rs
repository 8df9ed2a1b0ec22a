//! `init`: a directory that a gateway can be run from.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use super::console::Console;
use super::failure::Failure;
use super::site::{self, Site};
use super::vault::{Vault, local_actor};
use crate::config;
use crate::domain::{Bounds, GrantedScope, KeyKind, MintedKey, Scope, time};
use crate::manage::{Draft, Vocabulary, mint};
use crate::store::{OpenMode, StoreSettings};

/// `init`.
#[derive(Args, Debug)]
pub(super) struct InitArgs {
    /// Where to; it is made if it does not exist
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,
}

/// The file that a gateway reads.
const CONFIG: &str = "portcullis.yaml";
/// What editors read beside it.
const SCHEMA: &str = "portcullis.schema.json";

/// Writes the files, makes the store and prints the first key.
///
/// # Errors
/// [`Failure::Runtime`] when something stands there already; then nothing is changed.
pub(super) fn run(args: InitArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let path = args.directory.join(CONFIG);
    let template = config::init_template();
    let site = Site::from_loaded(path.clone(), config::load_text(&path, template, &site::variable))?;
    let schema = args.directory.join(SCHEMA);
    let store = match &site.settings.store {
        StoreSettings::Sqlite { path } => Some(path),
        StoreSettings::Memory | StoreSettings::Postgres(_) => None,
    };
    for there in [Some(&path), Some(&schema), store].into_iter().flatten() {
        if there.symlink_metadata().is_ok() {
            return Err(Failure::runtime(format!(
                "{} exists already, and nothing is overwritten; choose another directory, or move it away",
                there.display()
            )));
        }
    }
    std::fs::create_dir_all(&args.directory)
        .map_err(|error| Failure::runtime(format!("cannot make {}: {error}", args.directory.display())))?;
    let mut written = Vec::new();
    let made = make(&[(&path, template), (&schema, &config::schema_text())], &site, &mut written);
    let key = made.inspect_err(|_| {
        // So that it can be tried again; the first failure is what is told.
        written.iter().for_each(|file| drop(std::fs::remove_file(file)));
    })?;
    for file in written.iter().chain(store) {
        writeln!(console.talk, "made {}", file.display())?;
    }
    writeln!(
        console.talk,
        "The first management key, for the management API. It is shown this once: only its hash is kept."
    )?;
    writeln!(console.out, "{}", key.reveal())?;
    console.out.flush()?;
    let config = super::curl::shell_word(&path.display().to_string());
    writeln!(
        console.talk,
        "Next: edit {config}, then\n  portcullis check -c {config}\n  portcullis run -c {config}\n  portcullis keys \
         create -c {config} --name first --scopes read:orders"
    )?;
    Ok(())
}

/// Writes the files and makes the key; `written` says which files are there by now.
fn make(files: &[(&Path, &str)], site: &Site, written: &mut Vec<PathBuf>) -> Result<MintedKey, Failure> {
    for (path, content) in files {
        let refused = |error| Failure::runtime(format!("cannot make {}: {error}", path.display()));
        let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(refused)?;
        written.push((*path).to_owned());
        file.write_all(content.as_bytes()).map_err(refused)?;
    }
    first_key(site)
}

/// A key that may do everything the gateway's own scopes allow, and hand out everything else.
fn first_key(site: &Site) -> Result<MintedKey, Failure> {
    let (by, now) = (local_actor(), time::now());
    let environment = "live".to_owned();
    let word = Vocabulary::of(&site.settings.gate).environment_word(&environment).map_err(Failure::Runtime)?;
    let granted = |texts: &[&str]| -> Vec<GrantedScope> { texts.iter().flat_map(|text| text.parse()).collect() };
    let draft = Draft {
        name: "first management key".to_owned(),
        description: "Made by `portcullis init`.".to_owned(),
        owner: None,
        environment,
        kind: KeyKind::Management,
        scopes: granted(&Scope::RESERVED),
        roles: Vec::new(),
        may_grant: granted(&["*"]),
        bounds: Bounds::default(),
        expires_at: None,
        metadata: BTreeMap::new(),
        paired: false,
    };
    let (record, key) = mint(draft, word, &site.settings.gate, &by.name, now)?;
    Vault::open_checked(site, OpenMode::Create, "init")?
        .ask(|store| store.writer().insert_keys(vec![record], by, now))?;
    Ok(key)
}
