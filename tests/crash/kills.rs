//! Kills at random times.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::Options;
use super::life::{Life, Totals, check_again};
use super::random::Random;
use super::world::{Size, World};

/// The dump of every life.
const SIZE: Size = Size { messages: 200, per_message: 4, contents: 240, large: 24, huge: 0 };

/// How many processes are killed unless it is said.
pub(crate) const DEFAULT: u64 = 200;

/// What is kept between runs of this program.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    seed: u64,
    next_life: u64,
    seconds: f64,
    totals: Totals,
}

impl Kept {
    fn save(&self, path: &Path) -> Result<()> {
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_vec_pretty(self)?)?;
        Ok(fs::rename(new, path)?)
    }
}

/// Kills until so many processes have died, going on from what was kept if that is asked for.
pub(crate) fn run(options: &Options) -> Result<Totals> {
    let state = options.dir.join("kills.json");
    let mut kept = Kept { seed: options.seed, ..Kept::default() };
    if options.resume && state.exists() {
        kept = serde_json::from_slice(&fs::read(&state)?).with_context(|| format!("reading {}", state.display()))?;
        println!("going on: {}", kept.totals.line());
    }
    let kills = options.kills.unwrap_or(DEFAULT);
    let world = World::start(&options.dir.join("kills"), &options.program, kept.seed, SIZE)?;
    let mut said = kept.totals.kills;
    while kept.totals.kills < kills {
        let started = Instant::now();
        let left = kills - kept.totals.kills;
        let life = kept.next_life;
        let outcome = live(&world, kept.seed, life, left, &mut kept.totals);
        kept.next_life += 1;
        kept.seconds += started.elapsed().as_secs_f64();
        kept.save(&state)?;
        outcome.with_context(|| {
            format!("seed {}, life {life}; the archive is kept in {}", kept.seed, world.archive().display())
        })?;
        if kept.totals.kills >= said + 100 || kept.totals.kills >= kills {
            said = kept.totals.kills;
            println!("{} ({:.0} s)", kept.totals.line(), kept.seconds);
        }
    }
    Ok(kept.totals)
}

/// One life with at most `kills` deaths.
pub(crate) fn live(world: &World, seed: u64, number: u64, kills: u64, totals: &mut Totals) -> Result<()> {
    let mut random = Random::new(seed, number);
    world.begin_at_random(&mut random)?;
    // How long a whole run may take; learned from runs that end.
    let mut whole = Duration::from_secs(1);
    let mut life = Life::default();
    for death in 0.. {
        let kill_after = (death < kills).then(|| match random.below(4) {
            // While it starts, which after a death is its recovery.
            0 => Duration::from_micros(random.below(60_000)),
            1 => whole.mul_f64(0.3).min(Duration::from_micros(random.below(300_000))),
            _ => whole.mul_f64(f64::from(u32::try_from(random.below(1_000)).unwrap_or(0)) / 1_000.0),
        });
        let started = Instant::now();
        let ran = world.wait(world.spawn(&[])?, kill_after)?;
        if !ran.was_killed() {
            life.complete(world, &ran, totals)?;
            break;
        }
        whole = whole.max(started.elapsed());
        life.after_death(world)?;
        if random.one_in(4) {
            life.delete_catalog(world)?;
        }
    }
    if random.one_in(4) {
        if random.one_in(2) {
            world.delete_catalog()?;
        }
        check_again(world)?;
    }
    Ok(())
}
