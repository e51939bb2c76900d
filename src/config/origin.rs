//! Where each value came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A flag, with its dashes.
    Flag(&'static str),
    /// An environment variable.
    Environment(&'static str),
    /// The configuration file.
    File {
        /// Counted from 1.
        line: usize,
    },
    /// A profile of the AWS tools.
    Profile,
    /// Built in.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File { line } => write!(f, "file, line {line}"),
            Self::Profile => f.write_str("AWS profile"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// The configuration file that was read and the origin of every value that is no default, by dotted key.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The configuration file, if there is one.
    pub file: Option<PathBuf>,
    /// How the file was found: `--config`, `JELLYJAR_CONFIG`, or its usual place.
    pub file_found_by: Option<&'static str>,
    /// The AWS profile from which some values came, and its files, in words.
    pub(super) profile: Option<String>,
    origins: BTreeMap<String, Origin>,
}

impl Sources {
    /// The origin of a setting by its dotted key (`http.read_timeout`, `teams.default.token`).
    pub fn of(&self, key: &str) -> Origin {
        self.origins.get(key).copied().unwrap_or(Origin::Default)
    }

    /// Whether somebody set it, that is, it is no default.
    pub fn is_set(&self, key: &str) -> bool {
        self.origins.contains_key(key)
    }

    /// The first setting in a section that somebody wrote down for jellyjar itself: in the file, or as a flag.
    pub(super) fn first_under(&self, section: &str) -> Option<&str> {
        let within = |key: &str| key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'));
        self.origins.keys().map(String::as_str).find(|key| within(key))
    }

    /// Records where a setting came from, in place of what was known.
    pub fn set(&mut self, key: impl Into<String>, origin: Origin) {
        self.origins.insert(key.into(), origin);
    }

    /// Names the place of a setting for an error message: `FILE:LINE`, a flag, or a variable; `None` for a default.
    pub fn locate(&self, key: &str) -> Option<String> {
        match (self.of(key), &self.file) {
            (Origin::File { line }, Some(file)) => Some(format!("{}:{line}", file.display())),
            (Origin::Profile, _) => self.profile.clone(),
            (Origin::Default | Origin::File { .. }, _) => None,
            (Origin::Flag(name) | Origin::Environment(name), _) => Some(name.to_owned()),
        }
    }
}
