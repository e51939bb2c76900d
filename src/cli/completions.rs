//! `jellyjar completions`: what a shell needs to complete commands and flags.

use std::process::ExitCode;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, DONE, output};

/// The arguments of `jellyjar completions`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar completions bash > ~/.local/share/bash-completion/completions/jellyjar
  jellyjar completions zsh > ~/.zfunc/_jellyjar            with ~/.zfunc in fpath
  jellyjar completions fish > ~/.config/fish/completions/jellyjar.fish")]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

/// Runs the command.
pub(super) fn run(args: &CompletionsArgs) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "jellyjar", &mut script);
    output::line(String::from_utf8_lossy(&script).trim_end());
    ExitCode::from(DONE)
}
