//! The command line: one file a command, and the only place where modules are wired together.

mod accept;
mod api;
mod backfill;
mod catalog;
mod compact;
mod completions;
pub mod config;
mod demo;
mod doctor;
mod export;
mod failed;
pub mod filter_args;
mod find;
mod fleet;
mod get;
mod log;
mod look;
mod man;
mod output;
mod pause;
mod places;
mod progress;
mod quarantined;
mod rebuild;
mod receipt;
mod refilter;
mod rejected;
mod replay;
mod retry;
mod run;
mod serve;
mod session;
pub mod sim;
mod status;
mod suggest;
mod verify;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::Overrides;

/// Exit code: everything that was asked for is done.
pub const DONE: u8 = 0;
/// Exit code: something failed, was quarantined or rejected, or is still pending.
pub const INCOMPLETE: u8 = 1;
/// Exit code: usage or configuration.
pub const USAGE: u8 = 2;
/// Exit code: the token is refused.
pub const TOKEN_REFUSED: u8 = 3;
/// Exit code: interrupted (128 + SIGINT).
pub const INTERRUPTED: u8 = 130;

/// A mistake in arguments or settings: ends the program with exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// Archives every email attachment of a Jelly team into a bucket or folder that the team owns.
#[derive(Debug, Parser)]
#[command(name = "jellyjar", version, infer_subcommands = false, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = "Examples:
  jellyjar demo                                   see it work, with nothing set up
  export JELLY_API_TOKEN=…                        the team's token, from Jelly's settings
  jellyjar replay dumps/ --archive /srv/archive   archive every attachment of saved payloads
  jellyjar status --archive /srv/archive          what is archived, and what is not
  jellyjar verify --archive /srv/archive          prove that all of it is intact

Exit codes: 0 all done; 1 some failed, quarantined, rejected or pending; 2 usage or configuration; \
3 the token is refused; 130 interrupted.")]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
#[expect(clippy::doc_markdown, reason = "these are help texts, where backticks would show")]
pub(crate) struct Global {
    /// The configuration file [default: ./jellyjar.toml or the user's configuration folder, if there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The archive: a folder, or s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX [env: JELLYJAR_ARCHIVE]
    #[arg(long, global = true, value_name = "PLACE")]
    archive: Option<OsString>,
    /// The catalog's folder, on a local disk, or postgres://USER@HOST/DATABASE [env: JELLYJAR_CATALOG,
    /// JELLYJAR_CATALOG_FILE] [default: .jellyjar in the archive, or a folder in ~/.local/state/jellyjar for a bucket]
    #[arg(long, global = true, value_name = "DIR")]
    catalog: Option<PathBuf>,
    /// The team, where several are configured
    #[arg(long, global = true, value_name = "NAME")]
    team: Option<String>,
    /// A file that holds the API token [env: JELLY_API_TOKEN_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The API's base URL [env: JELLY_API_URL] [default: the live service]
    #[arg(long, global = true, value_name = "URL")]
    api_url: Option<String>,
    /// A file of extra root certificates, in PEM [env: JELLYJAR_CA_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Attachments that are fetched at once [env: JELLYJAR_CONCURRENCY]
    #[arg(long, global = true, value_name = "N")]
    concurrency: Option<usize>,
    /// Print one JSON object to standard output, and nothing else there
    #[arg(long, global = true)]
    json: bool,
    /// Show no progress, and log errors only
    #[arg(long, short, global = true)]
    quiet: bool,
}

impl Global {
    fn overrides(&self, skip_tokens: bool) -> Overrides {
        Overrides {
            config: self.config.clone(),
            archive: self.archive.clone(),
            catalog: self.catalog.clone(),
            token_file: self.token_file.clone(),
            api_url: self.api_url.clone(),
            ca_file: self.ca_file.clone(),
            concurrency: self.concurrency,
            listen: None,
            ops_listen: None,
            read_webhooks: false,
            skip_tokens,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Archive every attachment of saved payloads
    Replay(replay::ReplayArgs),
    /// Archive what came before: every attachment of the mail that Jelly has
    Backfill(backfill::BackfillArgs),
    /// Take webhooks and archive what comes with them, for as long as it runs
    Serve(serve::ServeArgs),
    /// Take webhooks, and leave the archiving to `work`: for many machines
    Receive(serve::ReceiveArgs),
    /// Archive what `receive` took in, and what else is pending, for as long as it runs: for many machines
    Work(serve::WorkArgs),
    /// Keep a team from sending requests, for a while or until `resume`
    Pause(pause::PauseArgs),
    /// Let a paused team send requests again
    Resume(pause::ResumeArgs),
    /// Find attachments by words, name, people, date, type or hash
    Find(find::FindArgs),
    /// What is archived, what is not, and what to do about it
    Status(status::StatusArgs),
    /// What could not be archived, why, and what next
    Failed(failed::FailedArgs),
    /// Bytes that contradict what was declared: a person decides
    Quarantined(quarantined::QuarantinedArgs),
    /// Admit quarantined bytes to the archive
    Accept(accept::AcceptArgs),
    /// Try again what failed, and finish what is pending
    Retry(retry::RetryArgs),
    /// Fetch what was skipped and the rules of now accept
    Refilter(refilter::RefilterArgs),
    /// Input that could not be read, and where it stands
    Rejected(rejected::RejectedArgs),
    /// An attachment's bytes, proven, to a file or standard output
    Get(get::GetArgs),
    /// A tree of readable names for an auditor, or to leave with, each file proven
    Export(export::ExportArgs),
    /// Prove that journal, catalog and bytes are whole, and repair bytes
    Verify(verify::VerifyArgs),
    /// Merge the journal's small segments of past days into large ones
    Compact(compact::CompactArgs),
    /// Make the catalog anew from the archive's journal
    Rebuild(rebuild::RebuildArgs),
    /// Check everything that a run needs, and say what to do where something is wrong
    Doctor(doctor::DoctorArgs),
    /// See it work: a simulated Jelly, a sample dump, an archive in ./jellyjar-demo
    Demo(demo::DemoArgs),
    /// Run the simulated Jelly alone, to rehearse with
    Sim(sim::SimArgs),
    /// Every call of Jelly's API: labels, members, conversations, contacts and the like
    Api(api::ApiArgs),
    /// Check, show or begin a configuration
    Config(config::ConfigArgs),
    /// Copy the catalog, or tell where it is
    Catalog(catalog::CatalogArgs),
    /// Print what a shell needs to complete commands
    Completions(completions::CompletionsArgs),
    /// Print or write the manual
    Man(man::ManArgs),
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse().map_err(suggest::explain) {
        Ok(cli) => cli,
        // What was asked for with --json is answered so, whatever cannot be understood beside it.
        Err(error) if error.use_stderr() && wants_json(std::env::args_os()) => {
            return output::fail(&UsageError(suggest::in_one_line(&error)).into(), true);
        }
        Err(error) => error.exit(),
    };
    log::start(cli.global.quiet);
    raise_descriptor_limit();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(&anyhow::Error::new(error).context("cannot start"), cli.global.json),
    };
    let json = cli.global.json;
    let outcome = runtime.block_on(dispatch(cli));
    // A reader that waits for standard input must not keep the program.
    runtime.shutdown_background();
    output::settle(outcome.unwrap_or_else(|error| output::fail(&error, json)))
}

/// Whether there is a `--json` among arguments that could not be understood.
fn wants_json(arguments: impl Iterator<Item = OsString>) -> bool {
    arguments.take_while(|word| word != "--").any(|word| word == "--json")
}

async fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let global = cli.global;
    match cli.command {
        Command::Replay(args) => Box::pin(replay::run(args, &global)).await,
        Command::Backfill(args) => Box::pin(backfill::run(args, &global)).await,
        Command::Serve(args) => Box::pin(serve::run(args, &global)).await,
        Command::Receive(args) => Box::pin(serve::run(args, &global)).await,
        Command::Work(args) => Box::pin(serve::run(args, &global)).await,
        Command::Pause(args) => Box::pin(pause::pause(args, &global)).await,
        Command::Resume(args) => Box::pin(pause::resume(args, &global)).await,
        Command::Find(args) => Box::pin(find::run(args, &global)).await,
        Command::Status(args) => Box::pin(status::run(args, &global)).await,
        Command::Failed(args) => Box::pin(failed::run(args, &global)).await,
        Command::Quarantined(args) => Box::pin(quarantined::run(args, &global)).await,
        Command::Accept(args) => Box::pin(accept::run(args, &global)).await,
        Command::Retry(args) => Box::pin(retry::run(args, &global)).await,
        Command::Refilter(args) => Box::pin(refilter::run(args, &global)).await,
        Command::Rejected(args) => Box::pin(rejected::run(args, &global)).await,
        Command::Get(args) => Box::pin(get::run(args, &global)).await,
        Command::Export(args) => Box::pin(export::run(args, &global)).await,
        Command::Verify(args) => Box::pin(verify::run(args, &global)).await,
        Command::Compact(args) => Box::pin(compact::run(args, &global)).await,
        Command::Rebuild(args) => Box::pin(rebuild::run(args, &global)).await,
        Command::Doctor(args) => Box::pin(doctor::run(args, &global)).await,
        Command::Demo(args) => Box::pin(demo::run(args, &global)).await,
        Command::Sim(args) => sim::run(args).await,
        Command::Api(args) => Box::pin(api::run(args, &global)).await,
        Command::Config(args) => config::run(&args, &global.overrides(false), global.json),
        Command::Catalog(args) => Box::pin(catalog::run(args, &global)).await,
        Command::Completions(args) => Ok(completions::run(&args)),
        Command::Man(args) => man::run(&args, global.json),
    }
}

/// Lets this process open as many files as the system allows it: large downloads are files until they are stored.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum.map_or(Some(65_536), |maximum| Some(maximum.min(65_536)));
    // Without it, fewer downloads fit; nothing else changes.
    let _ = setrlimit(Resource::Nofile, limit);
}

#[cfg(test)]
mod tests;
