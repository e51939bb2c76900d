//! The workers of a fleet: processes as on machines of their own, each with a folder and a configuration file.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::bucket::Bucket;
use crate::files::remove_folder;
use crate::oracle::files_below;
use crate::world::World;

/// How long a worker may take to stop.
const STOPS_WITHIN: Duration = Duration::from_mins(1);

/// One worker. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Worker {
    folder: PathBuf,
    child: Child,
    /// Until when it is stopped (SIGSTOP).
    pub(super) stopped_until: Option<Instant>,
}

impl Worker {
    /// Makes the folder of worker `number`, with these settings, and starts it.
    pub(super) fn start(world: &World, number: usize, settings: &str) -> Result<Self> {
        let folder = world.folder.join(format!("worker-{number}"));
        remove_folder(&folder)?;
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("jellyjar.toml"), settings)?;
        Ok(Self { child: spawn(world, &folder)?, folder, stopped_until: None })
    }

    /// Its process id.
    pub(super) fn process(&self) -> i64 {
        i64::from(self.child.id())
    }

    /// Stops it as it is.
    pub(super) fn stop(&mut self, length: Duration) -> Result<()> {
        self.send(Signal::STOP)?;
        self.stopped_until = Some(Instant::now() + length);
        Ok(())
    }

    /// Lets it go on.
    pub(super) fn go_on(&mut self) -> Result<()> {
        self.stopped_until = None;
        self.send(Signal::CONT)
    }

    /// Kills it and starts another in its place.
    pub(super) fn replace(&mut self, world: &World) -> Result<()> {
        self.send(Signal::KILL)?;
        self.child.wait()?;
        self.stopped_until = None;
        self.child = spawn(world, &self.folder)?;
        Ok(())
    }

    /// Fails if it has ended by itself: a worker outlives everything that may happen to others.
    pub(super) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("a worker ended with {status}:\n{}", tail(&self.said()?));
        }
        Ok(())
    }

    /// Ends it in good order.
    pub(super) fn end(mut self) -> Result<()> {
        self.send(Signal::TERM)?;
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "SIGTERM ended a worker with {status}:\n{}", tail(&self.said()?));
                return Ok(());
            }
            ensure!(began.elapsed() < STOPS_WITHIN, "SIGTERM does not end a worker:\n{}", tail(&self.said()?));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn said(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.folder.join("stderr"))?).into_owned())
    }

    fn send(&self, signal: Signal) -> Result<()> {
        Ok(kill_process_group(Pid::from_child(&self.child), signal)?)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.send(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

fn spawn(world: &World, folder: &std::path::Path) -> Result<Child> {
    let log = File::options().create(true).append(true).open(folder.join("stderr"))?;
    Command::new(&world.program)
        .args(["work", "--config", "jellyjar.toml"])
        .current_dir(folder)
        .process_group(0)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", folder)
        .env("JELLY_API_URL", world.sim.base_url())
        .env("JELLY_API_TOKEN", "sim-token")
        .envs(world.bucket.iter().flat_map(Bucket::environment))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("starting {}", world.program.display()))
}

/// What is wrong with what workers that have ended leave behind: words that nobody may see, and downloads.
pub(super) fn leavings(world: &World, count: usize, secrets: &[&str]) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for number in 0..count {
        let folder = world.folder.join(format!("worker-{number}"));
        let said = String::from_utf8_lossy(&fs::read(folder.join("stderr"))?).into_owned();
        for secret in secrets.iter().filter(|secret| said.contains(**secret)) {
            wrong.push(format!("worker {number} has printed {secret}"));
        }
        if said.contains("panicked") {
            wrong.push(format!("worker {number} has panicked:\n{}", tail(&said)));
        }
        let left = files_below(&folder, "spool")?;
        wrong.extend(left.into_iter().map(|key| format!("worker {number} has left {key} behind")));
    }
    Ok(wrong)
}

/// The last lines of a text.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
