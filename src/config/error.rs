//! What can be wrong with a configuration. Messages say where, what, and what to write instead; never a secret.

use std::io;
use std::path::{Path, PathBuf};

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that was asked for, or is in its usual place, cannot be read.
    #[error("cannot read the configuration file {path}", path = path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no TOML, or a value in it does not fit.
    #[error("{}: {}{message}", place(path, *line), key.as_ref().map(|key| format!("`{key}`: ")).unwrap_or_default())]
    File {
        /// The file.
        path: PathBuf,
        /// Counted from 1; `None` where no single line is to blame.
        line: Option<usize>,
        /// The setting, dotted, where one is to blame.
        key: Option<String>,
        /// What is wrong and what to write instead.
        message: String,
    },
    /// The value of an environment variable does not fit.
    #[error("environment variable {name}: {message}")]
    Environment {
        /// The variable.
        name: &'static str,
        /// What is wrong and what to write instead.
        message: String,
    },
    /// The value of a flag does not fit.
    #[error("{name}: {message}")]
    Flag {
        /// The flag, with its dashes.
        name: &'static str,
        /// What is wrong and what to write instead.
        message: String,
    },
    /// A file of AWS profiles is there and cannot be read.
    #[error("cannot read the file of AWS profiles {path}; check that you may read it", path = path.display())]
    ReadProfiles {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file of a secret cannot be read.
    #[error("cannot read the {what} file {path} of team `{team}`; check that it exists and that you may read it", path = shown(path))]
    ReadSecret {
        /// What it should hold: `token`, `webhook secret`.
        what: &'static str,
        /// The team.
        team: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file's content is not the secret it should be. The content is not shown.
    #[error("the {what} file {path} of team `{team}` holds no usable {what}: {problem}", path = path.display())]
    BadSecret {
        /// What it should hold.
        what: &'static str,
        /// The team.
        team: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A file that holds the address of notifications cannot be read.
    #[error("cannot read the file {path} of `{key}`; check that it exists and that you may read it", path = shown(path))]
    ReadAddress {
        /// The setting.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Such a file's content is no URL. The content is not shown.
    #[error("the file {path} of `{key}` holds no usable URL: {problem}", path = path.display())]
    BadAddress {
        /// The setting.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Settings that do not go together.
    #[error("{0}")]
    Conflict(String),
}

impl ConfigError {
    /// Blames an environment variable.
    pub(super) fn environment(name: &'static str, message: impl Into<String>) -> Self {
        Self::Environment { name, message: message.into() }
    }
}

/// Writes `FILE:LINE`.
fn place(path: &Path, line: Option<usize>) -> String {
    line.map_or_else(|| path.display().to_string(), |line| format!("{}:{line}", path.display()))
}

/// A path as it may be shown: what looks like no path at all may be the token itself, put where its file belongs.
fn shown(path: &std::path::Path) -> String {
    let text = path.to_string_lossy();
    if text.contains(['/', '.']) { text.into_owned() } else { "(not shown: is it the token itself?)".into() }
}
