//! When settings are to be read again: on SIGHUP, and when a file that they come from has changed.
//!
//! Files are known by their content: times of files lie, and orchestrators put new files in place of old ones, by renames
//! or by swapping a link somewhere on the way.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::role::Role;
use crate::config::{Config, Loaded, Overrides};
use crate::digest::Digest;

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The most of a file that is looked at, in bytes.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// What is in files; nothing for one that cannot be read.
type Contents = BTreeMap<PathBuf, Option<Digest>>;

/// Tells when to read settings again, and reads them.
pub(super) struct Reloads {
    role: Role,
    overrides: Overrides,
    /// The configuration file, if there was one.
    file: Option<PathBuf>,
    seen: Contents,
    turn: Interval,
    hangup: Option<Signal>,
    /// Whether somebody asked. It is kept here, as whoever waits may be dropped between hearing of it and reading.
    asked: bool,
}

impl Reloads {
    /// Begins with settings that were read just now. From here on a SIGHUP does not end the process. Blocks on files.
    pub(super) fn new(role: Role, overrides: &Overrides, loaded: &Loaded) -> Self {
        let mut turn = interval(LOOK_EVERY);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        turn.reset();
        Self {
            role,
            overrides: overrides.clone(),
            file: loaded.sources.file.clone(),
            seen: contents(loaded.files()),
            turn,
            hangup: signal(SignalKind::hangup()).ok(),
            asked: false,
        }
    }

    /// Waits until settings are to be read again; gives those of now. Can be dropped while it waits. What cannot be used
    /// is told once, until a file changes again or somebody asks.
    pub(super) async fn next(&mut self) -> anyhow::Result<Config> {
        loop {
            if !self.asked {
                let hangup = async {
                    match &mut self.hangup {
                        Some(signal) => {
                            signal.recv().await;
                        }
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = hangup => self.asked = true,
                    _ = self.turn.tick() => {}
                }
            }
            let files = self.seen.keys().cloned().collect();
            // A network file system that is gone can keep a thread; it must not keep this one.
            let Ok(found) = tokio::task::spawn_blocking(|| contents(files)).await else { continue };
            if !std::mem::take(&mut self.asked) && found == self.seen {
                continue;
            }
            self.seen = found;
            return self.read();
        }
    }

    /// Reads the settings, and notes from which files they came.
    fn read(&mut self) -> anyhow::Result<Config> {
        let loaded = self.role.settings(&self.overrides)?;
        if let (Some(gone), None) = (&self.file, &loaded.sources.file) {
            anyhow::bail!("{} is gone, from which the settings came; put it back, or restart", gone.display());
        }
        self.file.clone_from(&loaded.sources.file);
        let mut now = contents(loaded.files());
        // As they were before they were read: what has changed since is read next time.
        for (path, content) in &mut now {
            if let Some(before) = self.seen.get(path) {
                *content = *before;
            }
        }
        self.seen = now;
        Ok(loaded.config)
    }
}

fn contents(files: Vec<PathBuf>) -> Contents {
    files.into_iter().map(|path| (path.clone(), content(&path))).collect()
}

fn content(path: &Path) -> Option<Digest> {
    let mut bytes = Vec::new();
    // A pipe or a device would never end.
    let file = std::fs::File::open(path).ok().filter(|file| file.metadata().is_ok_and(|found| found.is_file()))?;
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).ok()?;
    Some(Digest::of(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_content_through_renames_and_swapped_links() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for version in ["1", "2"] {
            std::fs::create_dir(path(version)).unwrap();
            std::fs::write(path(version).join("token"), format!("token-{version}")).unwrap();
        }
        // As Kubernetes does: a link to a link to a folder, of which the inner one is swapped.
        std::os::unix::fs::symlink("1", path("..data")).unwrap();
        std::os::unix::fs::symlink("..data/token", path("token")).unwrap();
        let files = || contents(vec![path("token"), path("missing")]);
        let first = files();
        assert_eq!(first[&path("missing")], None);
        assert_eq!(files(), first);
        std::os::unix::fs::symlink("2", path("..new")).unwrap();
        std::fs::rename(path("..new"), path("..data")).unwrap();
        let second = files();
        assert_ne!(second, first);
        // The same text in a new file, by a rename.
        std::fs::write(path("new"), "token-2").unwrap();
        std::fs::rename(path("new"), path("2/token")).unwrap();
        assert_eq!(files(), second);
    }
}
