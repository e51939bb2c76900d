//! `jellyjar demo`: the whole way, with nothing set up: a simulated Jelly, a sample dump, an archive.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;

use super::output;
use super::session::{Access, Session};
use super::{Global, replay};
use crate::config::{Environment, Overrides, load};
use crate::sim::{Sim, SimConfig, corpus};
use crate::source;

/// The arguments of `jellyjar demo`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar demo            archive a simulated team's mail into ./jellyjar-demo
  jellyjar demo            again: everything is known, and no request is made
  rm -r jellyjar-demo*     and it is gone")]
pub(super) struct DemoArgs {
    /// The archive's folder; the sample dump goes beside it, into DIR-dumps
    #[arg(long, value_name = "DIR", default_value = "jellyjar-demo")]
    dir: PathBuf,
}

/// Runs the command.
pub(super) async fn run(args: DemoArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let say = |text: String| {
        if !global.quiet {
            output::note(text);
        }
    };
    let archive = args.dir;
    let mut dumps = archive.clone().into_os_string();
    dumps.push("-dumps");
    let dumps = PathBuf::from(dumps);
    let simulator = SimConfig::default();
    let corpus =
        corpus::CorpusConfig { seed: simulator.seed, team: simulator.team.clone(), ..corpus::CorpusConfig::default() };
    let summary = corpus::write_dump(&corpus, &dumps)
        .with_context(|| format!("cannot write the sample dump to {}", dumps.display()))?;
    let token = simulator.token.clone();
    let sim = Sim::start(simulator).await?;
    say(format!("A simulated Jelly listens at {}.", sim.base_url()));
    say(format!("A sample dump of {} messages is in {}.", summary.messages, dumps.display()));
    say(format!("Archiving into {} …\n", archive.display()));

    // The simulator's address and token stand in for a person's environment; nothing of the real one is used.
    let environment = Environment::from_pairs([("JELLY_API_URL", sim.base_url()), ("JELLY_API_TOKEN", token)]);
    let overrides = Overrides { archive: Some(archive.clone().into_os_string()), ..Overrides::default() };
    let loaded = load(&overrides, &environment)?;
    let inputs = source::resolve(&[dumps.to_string_lossy().into_owned()])?;
    let nobody = Global { config: None, archive: None, catalog: None, team: None, token_file: None, ..global.clone() };
    let session = Arc::new(Session::open(&nobody, loaded, true).await?);
    let access = Arc::new(Access::open(&session).await?);
    let receipt = Box::pin(replay::replay(session, access, inputs, replay::Care::default(), global.quiet)).await?;
    receipt.print(global.json);
    say(next_steps(&archive));
    sim.stop().await;
    Ok(ExitCode::from(receipt.exit_code()))
}

fn next_steps(archive: &Path) -> String {
    let program =
        std::env::args_os().next().map_or_else(|| "jellyjar".into(), |path| path.to_string_lossy().into_owned());
    let archive = archive.display();
    format!(
        "\nTry next:\n  {program} status --archive {archive}\n  {program} verify --archive {archive}\n  \
         {program} demo          (again: everything is known, no request is made)"
    )
}
