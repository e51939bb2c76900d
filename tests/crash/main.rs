//! Proves that a kill at any moment loses nothing, that syncs are ordered, and that a failed system call is told.
//!
//! Drives the real program over real sockets and files. `tests/crash/run --help` tells how.

#![expect(clippy::print_stdout, reason = "the report of a test program")]

mod bucket;
mod catalog;
mod faults;
mod files;
mod fleet;
mod kills;
mod life;
mod oracle;
mod order;
mod random;
mod serve;
mod steps;
mod trace;
mod world;

use std::path::PathBuf;

use anyhow::{Result, bail};

const USAGE: &str = "\
tests/crash/run [--kills N] [--seed S] [--resume] [--dir DIR] [PART…]
  --kills N   processes killed at random times, together (default 200; 40 for serve)
  --seed S    number that every choice follows from (default 1)
  --resume    go on from the totals that DIR keeps (kills, fleet)
  --dir DIR   where to work; a local disk (default: under target/)
  --program P the jellyjar to run (default: the one built with this)
  PART        kills, serve, bucket, steps, order, faults (default: these); bucket kills half of N, and needs a SeaweedFS:
              tests/servers/run --only seaweedfs -- tests/crash/run bucket
              fleet lets many workers archive one dump, and needs a PostgreSQL, too; tests/soak calls it
For a fleet:
  --workers N, --attachments N, --quota N        how many there are, and requests that are allowed in 5 minutes
  --seconds N, --every-ms N                      for how long it is disturbed, and how often a worker is killed or stopped
  --crash-postgres N, --terminate N, --cut N     PostgreSQL crashed, its connections ended, and cut around a commit";

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Options {
    /// How many processes are to be killed, if it is said.
    pub(crate) kills: Option<u64>,
    pub(crate) seed: u64,
    pub(crate) resume: bool,
    pub(crate) dir: PathBuf,
    pub(crate) program: PathBuf,
    /// What a fleet has to do and to bear.
    pub(crate) fleet: fleet::Plan,
    parts: Vec<String>,
}

fn options() -> Result<Options> {
    let mut options = Options {
        kills: None,
        seed: 1,
        resume: false,
        dir: PathBuf::from(concat!(env!("CARGO_TARGET_TMPDIR"), "/crash")),
        program: PathBuf::from(env!("CARGO_BIN_EXE_jellyjar")),
        fleet: fleet::Plan::default(),
        parts: Vec::new(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| anyhow::anyhow!("{word} needs a value\n{USAGE}"));
        match word.as_str() {
            "--kills" => options.kills = Some(value()?.parse()?),
            "--seed" => options.seed = value()?.parse()?,
            "--resume" => options.resume = true,
            "--dir" => options.dir = value()?.into(),
            "--program" => options.program = PathBuf::from(value()?).canonicalize()?,
            "--workers" => options.fleet.workers = value()?.parse()?,
            "--attachments" => options.fleet.attachments = value()?.parse()?,
            "--quota" => options.fleet.quota = value()?.parse()?,
            "--seconds" => options.fleet.seconds = value()?.parse()?,
            "--every-ms" => options.fleet.every_ms = value()?.parse()?,
            "--crash-postgres" => options.fleet.crashes = value()?.parse()?,
            "--terminate" => options.fleet.terminations = value()?.parse()?,
            "--cut" => options.fleet.cuts = value()?.parse()?,
            "--help" | "-h" => {
                println!("{USAGE}");
                std::process::exit(0);
            }
            part if PARTS.contains(&part) => options.parts.push(word),
            _ => bail!("{word:?} is not understood\n{USAGE}"),
        }
    }
    Ok(options)
}

const PARTS: [&str; 7] = ["kills", "serve", "bucket", "steps", "order", "faults", "fleet"];

fn main() -> Result<()> {
    let mut options = options()?;
    let wants = |part: &str| options.parts.is_empty() || options.parts.iter().any(|wanted| wanted == part);
    std::fs::create_dir_all(&options.dir)?;
    options.dir = options.dir.canonicalize()?;
    if wants("kills") {
        let totals = kills::run(&options)?;
        println!("kills at random times: {}", totals.line());
    }
    if wants("serve") {
        let (totals, posted) = serve::run(&options)?;
        println!("kills of serve at random times: {}; {}", totals.line(), posted.line());
    }
    if wants("bucket") {
        match bucket::run(&options)? {
            Some((totals, cut_off)) => {
                println!("kills at random times, over a bucket: {}; uploads in parts cut off {cut_off}", totals.line());
            }
            None => println!("kills over a bucket: skipped, for want of one; tests/crash/run --help says more"),
        }
    }
    if options.parts.iter().any(|part| part == "fleet") {
        match fleet::run(&options)? {
            Some((totals, counts)) => println!("fleets: {}; {}", totals.line(), counts.line()),
            None => println!("fleets: skipped, for want of a PostgreSQL or a bucket; tests/crash/run --help says more"),
        }
    }
    if wants("steps") {
        let (totals, hit) = steps::run(&options)?;
        println!("kills before each step, the first of each life and one in its recovery:");
        for (step, count) in &hit {
            println!("  {count:3} × before \"{step}\"  {}", trace::meaning(step));
        }
        println!("kills at named steps: {}", totals.line());
    }
    if wants("order") {
        println!("order of syncs: {}", order::run(&options)?.line());
    }
    if wants("faults") {
        let (totals, told) = faults::run(&options)?;
        println!("failed system calls, each followed by a whole run:");
        for (told, count) in &told {
            println!("  {count:3} × {told}");
        }
        println!("{} failures in {} lives: {}", told.values().sum::<u64>(), totals.lives, totals.line());
    }
    Ok(())
}
