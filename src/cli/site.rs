//! The configuration a verb works on: which file, what it says, and what its rules compile to.
//!
//! Owns finding and reading the file. Must not know what a verb wants of it.

use std::path::{Path, PathBuf};

use super::failure::Failure;
use super::findings;
use crate::config::{self, Loaded, Settings, Sources};
use crate::gate::Rules;

/// Where the configuration is looked for when no `--config` names it.
const USUAL_PLACES: [&str; 2] = ["portcullis.yaml", "/etc/portcullis/portcullis.yaml"];

/// The configuration file a verb works on.
///
/// # Errors
/// [`Failure::Configuration`] when none is named and none stands in a usual place.
pub(super) fn find(named: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    USUAL_PLACES.iter().map(PathBuf::from).find(|place| place.exists()).ok_or_else(|| {
        let [here, there] = USUAL_PLACES;
        Failure::Configuration(format!(
            "error: no configuration: neither ./{here} nor {there} exists. Name one with --config FILE, or write one \
             with `portcullis init`.\n"
        ))
    })
}

/// Reads the configuration with the variables of this process.
pub(super) fn load(named: Option<&Path>) -> Result<Loaded, Failure> {
    Ok(config::load(&find(named)?, &variable))
}

/// What `${NAME}` stands for.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A configuration that can be used.
#[derive(Debug)]
pub(super) struct Site {
    /// The main file.
    pub(super) path: PathBuf,
    /// What it says.
    pub(super) settings: Settings,
    /// Its texts.
    pub(super) sources: Sources,
}

impl Site {
    /// Reads the configuration; warnings are for `check` to tell.
    ///
    /// # Errors
    /// [`Failure::Configuration`] with every problem.
    pub(super) fn open(named: Option<&Path>) -> Result<Self, Failure> {
        let path = find(named)?;
        Self::from_loaded(path.clone(), config::load(&path, &variable))
    }

    /// What came of reading the configuration at `path`, if it can be used.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) fn from_loaded(path: PathBuf, loaded: Loaded) -> Result<Self, Failure> {
        match loaded {
            Loaded { settings: Some(settings), sources, .. } => Ok(Self { path, settings, sources }),
            refused @ Loaded { settings: None, .. } => Err(Failure::Configuration(findings::text(&refused))),
        }
    }

    /// Its rules, as a running gateway compiles them.
    ///
    /// # Errors
    /// [`Failure::Configuration`]; `check` would have said so.
    pub(super) fn rules(&self) -> Result<Rules, Failure> {
        compile(&self.settings)
    }
}

/// The rules of `settings`, as a running gateway compiles them.
pub(super) fn compile(settings: &Settings) -> Result<Rules, Failure> {
    let upstreams: Vec<&str> = settings.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    Rules::compile(settings.gate.clone(), &upstreams)
        .map_err(|error| Failure::Configuration(format!("error: {error}\n")))
}
