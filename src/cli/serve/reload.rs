//! When settings are to be read again: on SIGHUP, and when a file that they come from has changed.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::session::settings;
use crate::config::{Config, Overrides};

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Tells when to read settings again, and reads them.
pub(super) struct Reloads {
    overrides: Overrides,
    files: Vec<PathBuf>,
    seen: Vec<Option<(SystemTime, u64)>>,
    hangup: Option<Signal>,
}

impl Reloads {
    /// Begins with settings that were read just now. From here on a SIGHUP does not end the process.
    pub(super) fn new(overrides: &Overrides, config: &Config) -> Self {
        let files = super::watched_files(config, overrides);
        let seen = stamps(&files);
        Self { overrides: overrides.clone(), files, seen, hangup: signal(SignalKind::hangup()).ok() }
    }

    /// Waits until settings are to be read again; gives those of now. Can be dropped while it waits.
    pub(super) async fn next(&mut self) -> anyhow::Result<Config> {
        loop {
            let hangup = async {
                match &mut self.hangup {
                    Some(signal) => {
                        signal.recv().await;
                    }
                    None => std::future::pending().await,
                }
            };
            let asked = tokio::select! {
                () = hangup => true,
                () = tokio::time::sleep(LOOK_EVERY) => false,
            };
            let found = stamps(&self.files);
            if !asked && found == self.seen {
                continue;
            }
            self.seen = found;
            let config = settings(&self.overrides)?.config;
            super::check(&config)?;
            self.files = super::watched_files(&config, &self.overrides);
            self.seen = stamps(&self.files);
            return Ok(config);
        }
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<(SystemTime, u64)>> {
    let stamp =
        |file: &PathBuf| std::fs::metadata(file).ok().and_then(|found| Some((found.modified().ok()?, found.len())));
    files.iter().map(stamp).collect()
}
