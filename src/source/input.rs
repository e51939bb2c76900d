//! Turns SOURCE arguments into inputs: standard input, files, folders, patterns.

use std::collections::HashSet;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A SOURCE argument that cannot be used. Nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Nothing has this name.
    #[error("source {0:?} does not exist; give a file, a folder, a pattern or - for standard input")]
    Missing(String),
    /// The pattern is not well formed.
    #[error("source {pattern:?} does not exist, and is no pattern either: {reason}")]
    Pattern {
        /// The argument.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing matches the pattern.
    #[error("no file matches the source pattern {0:?}")]
    NoMatch(String),
    /// The path cannot be looked at.
    #[error("source {source_name:?} cannot be looked at")]
    Inaccessible {
        /// The argument.
        source_name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// One thing to read.
#[derive(Debug, Clone)]
pub struct Input {
    name: String,
    origin: Origin,
    total_bytes: Option<u64>,
    read_bytes: Arc<AtomicU64>,
}

#[derive(Debug, Clone)]
enum Origin {
    Stdin,
    /// Named by the user: whatever it is, it is opened.
    Given(PathBuf),
    /// Found in a folder: opened only if it is a regular file still.
    Found(PathBuf),
    /// Found in a folder, and not to be read.
    Unreadable(String),
}

impl Input {
    /// The name that positions carry: the path, or `-`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many bytes there are, compressed as they may be; `None` for streams.
    pub const fn total_bytes(&self) -> Option<u64> {
        self.total_bytes
    }

    /// How many of those bytes were read so far. Clones share the count.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.read_bytes)
    }

    /// Opens it.
    pub(super) fn open(&self) -> io::Result<Box<dyn io::Read>> {
        match &self.origin {
            Origin::Stdin => Ok(Box::new(io::stdin())),
            Origin::Given(path) => Ok(Box::new(File::open(path)?)),
            Origin::Found(path) => {
                // Should a FIFO have taken its place, opening it must not wait for a writer.
                let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
                let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
                if file.metadata()?.is_file() {
                    Ok(Box::new(file))
                } else {
                    Err(io::Error::other("is no file any more"))
                }
            }
            Origin::Unreadable(reason) => Err(io::Error::other(reason.clone())),
        }
    }

    fn new(name: &Path, origin: Origin, metadata: Option<&Metadata>) -> Self {
        let name = name.to_string_lossy().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        let total_bytes = metadata.filter(|metadata| metadata.is_file()).map(Metadata::len);
        Self { name, origin, total_bytes, read_bytes: Arc::default() }
    }
}

/// Resolves SOURCE arguments, in their order: `-` is standard input (once); a folder gives every file in it and its
/// folders, sorted by name; an argument that names nothing is taken as a pattern. Folders whose names begin with a dot
/// are left out unless they are named themselves. Links are followed, each folder is entered once. What stands in a
/// folder and cannot be read becomes an input that yields one reject.
pub fn resolve(sources: &[String]) -> Result<Vec<Input>, SourceError> {
    let mut inputs = Vec::new();
    for source in sources {
        if source == "-" {
            if !inputs.iter().any(|input: &Input| matches!(input.origin, Origin::Stdin)) {
                inputs.push(Input::new(Path::new("-"), Origin::Stdin, None));
            }
            continue;
        }
        match fs::metadata(source) {
            Ok(metadata) => given(Path::new(source), &metadata, &mut inputs),
            Err(error) if error.kind() == io::ErrorKind::NotFound => matching(source, &mut inputs)?,
            Err(error) => {
                return Err(SourceError::Inaccessible { source_name: source.clone(), source: error });
            }
        }
    }
    Ok(inputs)
}

fn given(path: &Path, metadata: &Metadata, inputs: &mut Vec<Input>) {
    if metadata.is_dir() {
        walk(path, &mut HashSet::from([(metadata.dev(), metadata.ino())]), inputs);
    } else {
        inputs.push(Input::new(path, Origin::Given(path.to_owned()), Some(metadata)));
    }
}

fn matching(pattern: &str, inputs: &mut Vec<Input>) -> Result<(), SourceError> {
    if !pattern.contains(['*', '?', '[']) {
        return Err(SourceError::Missing(pattern.to_owned()));
    }
    let matches = glob::glob(pattern)
        .map_err(|error| SourceError::Pattern { pattern: pattern.to_owned(), reason: error.to_string() })?;
    let before = inputs.len();
    let mut found_any = false;
    for entry in matches {
        found_any = true;
        match entry {
            Ok(path) => found(&path, &mut HashSet::new(), inputs),
            Err(error) => {
                let reason = format!("cannot be looked at: {}", error.error());
                inputs.push(Input::new(error.path(), Origin::Unreadable(reason), None));
            }
        }
    }
    if !found_any {
        return Err(SourceError::NoMatch(pattern.to_owned()));
    }
    inputs[before..].sort_by(|a, b| a.name.cmp(&b.name));
    Ok(())
}

fn walk(folder: &Path, visited: &mut HashSet<(u64, u64)>, inputs: &mut Vec<Input>) {
    let entries = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>());
    match entries {
        Ok(mut paths) => {
            paths.sort();
            for path in paths {
                found(&path, visited, inputs);
            }
        }
        Err(error) => {
            inputs.push(Input::new(folder, Origin::Unreadable(format!("the folder cannot be read: {error}")), None));
        }
    }
}

/// Adds what was found in a folder or by a pattern.
fn found(path: &Path, visited: &mut HashSet<(u64, u64)>, inputs: &mut Vec<Input>) {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => {
            let is_link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
            let reason = if is_link {
                format!("a link that leads nowhere: {error}")
            } else {
                format!("cannot be looked at: {error}")
            };
            return inputs.push(Input::new(path, Origin::Unreadable(reason), None));
        }
    };
    let kind = metadata.file_type();
    if metadata.is_dir() {
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        // An archive below a source holds bytes and a journal of its own, no payloads to be read by accident.
        let is_archive = path.join("jellyjar.json").is_file();
        if !is_hidden && !is_archive && visited.insert((metadata.dev(), metadata.ino())) {
            walk(path, visited, inputs);
        }
    } else if metadata.is_file() {
        inputs.push(Input::new(path, Origin::Found(path.to_owned()), Some(&metadata)));
    } else {
        let what = if kind.is_fifo() {
            "a FIFO"
        } else if kind.is_socket() {
            "a socket"
        } else {
            "a device"
        };
        let reason = format!("not read: {what} in a folder; name it as a source of its own if it is to be read");
        inputs.push(Input::new(path, Origin::Unreadable(reason), None));
    }
}
