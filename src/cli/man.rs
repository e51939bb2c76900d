//! `jellyjar man`: the manual's pages.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};

use super::{Cli, DONE, output};

/// The arguments of `jellyjar man`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar man > jellyjar.1                            the main page; read it with: man ./jellyjar.1
  jellyjar man --dir ~/.local/share/man/man1           a page for each command: man jellyjar-replay")]
pub(super) struct ManArgs {
    /// Write a page for each command into this folder, which is made if need be
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Runs the command.
pub(super) fn run(args: &ManArgs, json: bool) -> anyhow::Result<ExitCode> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    match &args.dir {
        None => output::line(String::from_utf8_lossy(&page(&command)?).trim_end()),
        Some(folder) => {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            let mut written = Vec::new();
            write(&command, folder, &mut written)?;
            if json {
                output::json(&serde_json::json!({ "ok": true, "pages": written }));
            } else {
                output::line(format!("{}: {} pages.", folder.display(), written.len()));
            }
        }
    }
    Ok(ExitCode::from(DONE))
}

/// The page of a command, in roff.
fn page(command: &clap::Command) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut text).context("cannot render the page")?;
    Ok(text)
}

fn write(command: &clap::Command, folder: &Path, written: &mut Vec<String>) -> anyhow::Result<()> {
    // `jellyjar-config-check`.
    let path = folder.join(format!("{}.1", command.get_display_name().unwrap_or_else(|| command.get_name())));
    std::fs::write(&path, page(command)?).with_context(|| format!("cannot write {}", path.display()))?;
    written.push(path.display().to_string());
    command.get_subcommands().filter(|one| one.get_name() != "help").try_for_each(|one| write(one, folder, written))
}
