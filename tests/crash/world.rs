//! What a crash happens in: a simulated Jelly, a dump, the truth about every attachment, and the real program.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _};
use jellyjar::sim::corpus::{CorpusConfig, write_plain};
use jellyjar::sim::{Fault, Faults, Rule, Sim, SimConfig};
use rustix::process::{Pid, Signal};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Runtime;

use super::bucket::Bucket;
use super::files;
use super::random::Random;

/// A run that takes longer than this hangs, unless it has more to do than most.
const HANGS_AFTER: Duration = Duration::from_mins(1);
/// Downloads at once that learn the truth.
const DOWNLOADS: usize = 16;

/// What webhooks are signed with.
pub(crate) const WEBHOOK_SECRET: &str = "webhook-secret";

/// What an attachment has to end as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Truth {
    /// Archived, with the bytes that the storage serves.
    Bytes {
        /// Their SHA-256, in hex.
        sha256: String,
        /// Their size.
        size_bytes: u64,
    },
    /// Skipped: it is inline wherever it occurs.
    Inline,
}

/// How large a dump is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Messages with small attachments.
    pub(crate) messages: u64,
    /// Small attachments in each of them.
    pub(crate) per_message: u64,
    /// Different small contents.
    pub(crate) contents: u64,
    /// Attachments beyond what is spooled in memory.
    pub(crate) large: u64,
    /// Attachments that a bucket gets in parts.
    pub(crate) huge: u64,
}

/// Sizes of small attachments, in bytes.
const SMALL: (u64, u64) = (200, 20_000);
/// Sizes of large ones: on both sides of the default bound between memory and file.
const LARGE: (u64, u64) = (200_000, 420_000);
/// Sizes of huge ones: more than one of the smallest parts that S3 takes.
const HUGE: (u64, u64) = (6 << 20, 11 << 20);

/// A simulated Jelly with a dump, and a folder to work in.
#[derive(Debug)]
pub(crate) struct World {
    /// Where the simulator and the catalog's reader run.
    pub(crate) runtime: Runtime,
    /// The simulator.
    pub(crate) sim: Sim,
    /// The real program.
    pub(crate) program: PathBuf,
    /// The folder of everything.
    pub(crate) folder: PathBuf,
    /// What every attachment of the dump has to end as.
    pub(crate) truth: BTreeMap<String, Truth>,
    /// The bucket that the archive is in, if it is not a folder.
    pub(crate) bucket: Option<Bucket>,
    /// The catalog as the setting takes it, if it is not where it usually is.
    pub(crate) catalog: Option<String>,
    /// A run that takes longer than this hangs.
    pub(crate) hangs_after: Duration,
}

/// The settings of a life that decide which ways through the program are taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Attachments made durable together: few are synced one by one, many by `syncfs`.
    pub(crate) batch_size: u64,
    /// Downloads above this size are files from the start.
    pub(crate) memory_threshold_kib: u64,
    /// Downloads at once.
    pub(crate) concurrency: u64,
}

/// How a run of the program ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Its exit status.
    pub(crate) status: ExitStatus,
    /// What it printed.
    pub(crate) stdout: String,
    /// What it logged.
    pub(crate) stderr: String,
    /// Whether it had to be killed since it did not end.
    pub(crate) hung: bool,
}

impl Ran {
    /// The receipt; `Null` where there is none.
    pub(crate) fn receipt(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or(Value::Null)
    }

    /// Whether it was killed by SIGKILL. A tracer that kills its program ends in the same way.
    pub(crate) fn was_killed(&self) -> bool {
        !self.hung && (self.status.signal() == Some(9) || self.status.code() == Some(128 + 9))
    }
}

impl World {
    /// Starts a simulator, writes a dump into `folder`, and downloads every attachment once to learn the truth.
    pub(crate) fn start(folder: &Path, program: &Path, seed: u64, size: Size) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let sim = runtime.block_on(Sim::start(SimConfig { seed, ..SimConfig::default() }))?;
        fs::create_dir_all(folder)?;
        let (folder, program) = (folder.to_owned(), program.to_owned());
        let mut world = Self {
            runtime,
            sim,
            program,
            folder,
            truth: BTreeMap::new(),
            bucket: None,
            catalog: None,
            hangs_after: HANGS_AFTER,
        };
        let inline = world.write_dump(seed, size)?;
        world.truth = world.runtime.block_on(download_all(&world.sim.base_url(), inline))?;
        Ok(world)
    }

    /// Where the archive is; for a bucket, its copy (see [`refresh`](Self::refresh)).
    pub(crate) fn archive(&self) -> PathBuf {
        self.folder.join("archive")
    }

    /// Where the catalog is, and what is spooled.
    pub(crate) fn home(&self) -> PathBuf {
        if self.bucket.is_some() { self.folder.join("home") } else { self.archive().join(".jellyjar") }
    }

    /// Copies a bucket to where the archive would be as a folder: what is new, or everything `anew`.
    pub(crate) fn refresh(&self, anew: bool) -> Result<()> {
        let Some(bucket) = &self.bucket else { return Ok(()) };
        self.runtime.block_on(bucket.copy_to(&self.archive(), anew))
    }

    /// Writes the dump and gives, for each attachment, whether it is inline wherever it occurs.
    fn write_dump(&self, seed: u64, size: Size) -> Result<BTreeMap<String, bool>> {
        let small = CorpusConfig {
            seed,
            messages: size.messages,
            attachments_per_message: size.per_message,
            contents: size.contents,
            sizes: SMALL,
            ..CorpusConfig::default()
        };
        let large = CorpusConfig {
            seed,
            messages: size.large,
            contents: size.large.div_ceil(2),
            sizes: LARGE,
            first_message: 1_000_000,
            ..CorpusConfig::default()
        };
        let huge = CorpusConfig {
            seed,
            messages: size.huge,
            sizes: HUGE,
            first_message: 2_000_000,
            ..CorpusConfig::default()
        };
        let mut text = Vec::new();
        write_plain(&large, &mut text)?;
        write_plain(&huge, &mut text)?;
        write_plain(&small, &mut text)?;
        let mut messages: Vec<Value> = text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(serde_json::from_slice)
            .collect::<Result<_, _>>()?;
        // Some attachments are inline: every 11th everywhere, every 7th in its own message but not in a later one.
        let mut inline = BTreeMap::new();
        let mut forwarded = Vec::new();
        for (number, attachment) in messages.iter_mut().flat_map(attachments_mut).enumerate() {
            let id = attachment["id"].as_str().context("an attachment without id")?.to_owned();
            if number % 7 == 0 {
                forwarded.push(attachment.clone());
            }
            attachment["inline"] = (number % 11 == 0 || number % 7 == 0).into();
            inline.insert(id, number % 11 == 0 && number % 7 != 0);
        }
        for (number, batch) in forwarded.chunks(5).enumerate() {
            let mut message = messages.first().context("an empty dump")?.clone();
            message["data"]["message"]["id"] = format!("forward-{number}").into();
            message["data"]["message"]["attachments"] = batch.to_vec().into();
            messages.push(message);
        }
        let mut out = File::create(self.folder.join("dump.jsonl"))?;
        let mut lines = Vec::new();
        for message in &messages {
            serde_json::to_writer(&mut lines, message)?;
            lines.push(b'\n');
        }
        out.write_all(&lines)?;
        Ok(inline)
    }

    /// Begins a life with settings and faults of its own; gives the settings.
    pub(crate) fn begin_at_random(&self, random: &mut Random) -> Result<Settings> {
        let settings = Settings {
            batch_size: *random.pick(&[4, 8, 60, 512]),
            memory_threshold_kib: *random.pick(&[4, 64, 256]),
            concurrency: *random.pick(&[4, 16, 32]),
        };
        // Broken bodies are continued and redirects are followed, which costs no exchange.
        let faults = match random.below(3) {
            0 => Faults::none(),
            1 => Faults::none().with(Fault::Truncate, Rule::Rate(0.02)),
            _ => Faults::none().with(Fault::Redirect, Rule::Rate(0.05)),
        };
        self.begin(settings, faults)?;
        Ok(settings)
    }

    /// Begins a life: an empty archive, counters at nothing, these settings and faults.
    pub(crate) fn begin(&self, settings: Settings, faults: Faults) -> Result<()> {
        files::remove_folder(&self.archive())?;
        files::remove_folder(&self.home())?;
        files::remove_folder(&self.folder.join("inbox"))?;
        if let Some(bucket) = &self.bucket {
            bucket.begin();
        }
        fs::write(
            self.folder.join("jellyjar.toml"),
            format!(
                "[worker]\nbatch_size = {}\nconcurrency = {}\nmax_leases = 256\nmax_wait = \"2s\"\n\
                 [spool]\nmemory_threshold = \"{} KiB\"\nmin_free = \"1 MiB\"\nallow_tmpfs = true\n\
                 [retry]\nbase_delay = \"10ms\"\n[bucket]\npart_size = \"5 MiB\"\n\
                 [serve]\nlisten = \"127.0.0.1:0\"\nops_listen = \"127.0.0.1:0\"\n\
                 [inbox]\nfolder = \"inbox\"\nsegment_age = \"1s\"\nsegment_size = \"64 KiB\"\nmin_free = \"0 B\"\n\
                 allow_tmpfs = true\n",
                settings.batch_size, settings.concurrency, settings.memory_threshold_kib
            ),
        )?;
        self.sim.set_faults(faults);
        self.sim.reset();
        Ok(())
    }

    /// Makes the archive and its catalog, with nothing in them.
    pub(crate) fn make_archive(&self) -> Result<()> {
        fs::write(self.folder.join("empty.jsonl"), "{}\n")?;
        let ran = self.wait(self.spawn_replay(&[], "empty.jsonl")?, None)?;
        anyhow::ensure!(ran.status.success(), "making an empty archive failed: {}{}", ran.stdout, ran.stderr);
        Ok(())
    }

    /// Starts `jellyjar replay` of the dump, under `tracer` if it is not empty.
    pub(crate) fn spawn(&self, tracer: &[String]) -> Result<Child> {
        self.spawn_replay(tracer, "dump.jsonl")
    }

    fn spawn_replay(&self, tracer: &[String], dump: &str) -> Result<Child> {
        self.spawn_command(tracer, &["replay", dump])
    }

    /// Runs any command of the program over the archive to its end.
    pub(crate) fn command(&self, words: &[&str]) -> Result<Ran> {
        self.wait(self.spawn_command(&[], words)?, None)
    }

    /// Starts any command of the program over the archive.
    pub(crate) fn spawn_command(&self, tracer: &[String], words: &[&str]) -> Result<Child> {
        let mut command = match tracer {
            [] => Command::new(&self.program),
            [tracer, options @ ..] => {
                let mut command = Command::new(tracer);
                command.args(options).arg(&self.program);
                command
            }
        };
        let place = self.bucket.as_ref().map_or_else(|| "archive".to_owned(), Bucket::location);
        command
            .args(["--config", "jellyjar.toml", "--quiet", "--json", "--archive", &place])
            .args(words)
            .current_dir(&self.folder)
            .process_group(0)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", &self.folder)
            .env("JELLY_API_URL", self.sim.base_url())
            .env("JELLY_API_TOKEN", "sim-token")
            .env("JELLY_WEBHOOK_SECRET", WEBHOOK_SECRET)
            .envs(self.bucket.iter().flat_map(Bucket::environment))
            .envs(self.bucket.iter().map(|_| ("JELLYJAR_CATALOG", self.home())))
            .envs(self.catalog.iter().map(|catalog| ("JELLYJAR_CATALOG", catalog)))
            .stdin(Stdio::null())
            .stdout(File::create(self.folder.join("stdout"))?)
            .stderr(File::create(self.folder.join("stderr"))?);
        command.spawn().with_context(|| format!("starting {}", command.get_program().display()))
    }

    /// Waits for a run to end; kills it after `kill_after`, or when it hangs.
    pub(crate) fn wait(&self, mut child: Child, kill_after: Option<Duration>) -> Result<Ran> {
        let started = Instant::now();
        let (mut killed, mut hung) = (false, false);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if !killed && kill_after.is_some_and(|after| started.elapsed() >= after) {
                child.kill()?;
                killed = true;
            }
            // One whose thread has fallen over need not be waited for as long.
            let fell_over = started.elapsed() > HANGS_AFTER / 10 && self.read("stderr")?.contains("panicked");
            if fell_over || started.elapsed() > self.hangs_after {
                // A tracer does not take its program with it: the whole group goes.
                rustix::process::kill_process_group(Pid::from_child(&child), Signal::KILL)?;
                hung = true;
                break child.wait()?;
            }
            std::thread::sleep(Duration::from_micros(300));
        };
        Ok(Ran { status, stdout: self.read("stdout")?, stderr: self.read("stderr")?, hung })
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, tracer: &[String]) -> Result<Ran> {
        self.wait(self.spawn(tracer)?, None)
    }

    /// Removes the catalog, as a person might who has lost it.
    pub(crate) fn delete_catalog(&self) -> Result<()> {
        for name in ["catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"] {
            match fs::remove_file(self.home().join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    fn read(&self, name: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.folder.join(name))?).into_owned())
    }
}

fn attachments_mut(event: &mut Value) -> impl Iterator<Item = &mut Value> {
    event["data"]["message"]["attachments"].as_array_mut().into_iter().flatten()
}

/// Downloads every attachment the plain way: what the storage serves is the truth.
async fn download_all(base_url: &str, inline: BTreeMap<String, bool>) -> Result<BTreeMap<String, Truth>> {
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build()?;
    let learn = async |(id, inline): (String, bool)| {
        if inline {
            return anyhow::Ok((id, Truth::Inline));
        }
        let answer = client.get(format!("{base_url}/attachments/{id}")).bearer_auth("sim-token").send().await?;
        let link = answer.headers().get("location").context("no Location")?.to_str()?.to_owned();
        let bytes = client.get(link).send().await?.error_for_status()?.bytes().await?;
        let sha256 = hex(&Sha256::digest(&bytes));
        Ok((id, Truth::Bytes { sha256, size_bytes: bytes.len() as u64 }))
    };
    futures::stream::iter(inline.into_iter().map(learn)).buffer_unordered(DOWNLOADS).try_collect().await
}

/// Bytes as lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
