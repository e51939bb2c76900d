//! `jellyjar sim`: the simulated Jelly, to rehearse with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytesize::ByteSize;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::Clock;
use crate::sim::corpus::{CorpusConfig, Profile, Summary, write_dump};
use crate::sim::{Delivery, Fault, Faults, LimitConfig, Schedule, Sim, SimConfig, Webhook};

const EXAMPLES: &str = "\
Examples:
  jellyjar sim --dump ./rehearsal-dump
  jellyjar sim --fault truncate=first:1 --fault api-429=0.05
  jellyjar sim --dump ./load --profile plain --messages 10000 --contents 2000
  jellyjar sim --profile plain --messages 300000 --with-files 20 --mail-every 50

The API lists the team's mail; a dump is the same mail. The simulator keeps no
files: an attachment's id says, signed, what its bytes are. A dump fits every
simulator of the same --seed and --team. While it runs, its control pages
answer without a token:
  GET  /_sim/stats      the counters, as JSON
  GET  /_sim/exchanges  how often each id was exchanged, as JSON Lines
  GET  /_sim/truth      every attachment that is not inline, as JSON Lines
  PUT  /_sim/faults     {\"api-500\": 0.1, \"truncate\": \"first:1\"}
  PUT  /_sim/token      the new token, as text
  POST /_sim/mail       lets a message arrive: {\"conversation\": \"c00007\",
                        \"attachments\": 2, \"inline\": 1, \"webhook\": false},
                        or {\"new\": true} for a new conversation
  PUT  /_sim/schedule   mail that arrives by itself: {\"every\": 10 requests,
                        \"count\": 5 at most, \"mail\": {as above}}; or DELETE
  PUT  /_sim/webhook    {\"url\": \"http://…\", \"secret\": \"…\"}; or DELETE
  POST /_sim/reset      all counters back to nothing
--fault also takes retry-after=SECONDS, slow-bytes-per-second=N and
short-link-ms=N. It all speaks plain HTTP and is meant for this machine only.";

/// Run a simulated Jelly to rehearse with: an API, a storage, and dumps that fit them.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct SimArgs {
    /// Address of the API; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4010")]
    listen: SocketAddr,
    /// Address of the storage; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    storage_listen: SocketAddr,
    /// Number that ids, bytes, signatures and faults follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Team whose ids are served.
    #[arg(long, default_value = "")]
    team: String,
    /// Token that is accepted. It guards nothing but made-up files.
    #[arg(long, default_value = "sim-token")]
    token: String,
    /// How long a signed link lives.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    link_ttl: Duration,
    /// How long every request waits for its answer.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    latency: Duration,
    /// What goes wrong: a fault and its rate (0 to 1), or `first:K`, the first K requests for each attachment or list, or
    /// `at:K`, the K-th alone. Repeat for several; `--fault list` lists them.
    #[arg(long, value_name = "NAME=RATE")]
    fault: Vec<String>,
    /// Requests allowed in a window of so many seconds, such as 5000/300.
    #[arg(long, value_name = "N/SECONDS", value_parser = window)]
    limit_window: Option<(u64, Duration)>,
    /// Requests allowed in a UTC day.
    #[arg(long, value_name = "N")]
    limit_day: Option<u64>,
    /// Give three objects in four a checksum header (SHA-256, MD5 or CRC32C) beside the entity tag.
    #[arg(long)]
    checksums: bool,
    /// Write a dump into this folder first.
    #[arg(long, value_name = "DIR")]
    dump: Option<PathBuf>,
    /// Stop once the dump is written.
    #[arg(long, requires = "dump")]
    dump_only: bool,
    /// Messages of the team: those that the API lists, and a dump holds.
    #[arg(long, value_name = "N", default_value_t = 300)]
    messages: u64,
    /// What they are like: `realistic` (real files, dumps of several formats) or `plain` (noise, any number).
    #[arg(long, default_value = "realistic")]
    profile: Profile,
    /// Messages in each conversation of plain mail.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    conversation_messages: u64,
    /// Of 100 conversations of plain mail, how many have attachments.
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u64).range(..=100))]
    with_files: u64,
    /// Attachments in each message of those conversations.
    #[arg(long, value_name = "N", default_value_t = 1)]
    attachments: u64,
    /// Different contents in plain mail; 0 gives each attachment its own.
    #[arg(long, value_name = "N", default_value_t = 0)]
    contents: u64,
    /// Smallest and largest attachment of plain mail.
    #[arg(long, value_name = "MIN..MAX", default_value = "4KiB..64KiB", value_parser = sizes)]
    sizes: (u64, u64),
    /// Let a new message arrive at every N-th request to the API.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    mail_every: Option<u64>,
    /// Post a webhook to this http:// URL for each message that arrives.
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
    /// What webhooks are signed with. It guards nothing but made-up mail.
    #[arg(long, value_name = "SECRET", default_value = "sim-secret")]
    webhook_secret: String,
    /// Print one line of JSON when ready, and nothing else.
    #[arg(long)]
    json: bool,
}

/// Runs the simulator until it is interrupted.
#[expect(clippy::print_stdout, reason = "the command's result goes to standard output")]
pub async fn run(args: SimArgs) -> anyhow::Result<ExitCode> {
    if args.fault.iter().any(|fault| fault == "list") {
        for fault in Fault::all() {
            println!("{:18} {}", fault.name(), fault.description());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut faults = Faults::none();
    for setting in &args.fault {
        let Some((name, value)) = setting.split_once('=') else {
            bail!("--fault {setting}: expected NAME=RATE or NAME=first:K; `--fault list` lists the names");
        };
        faults.set(name, value).with_context(|| format!("--fault {setting}"))?;
    }
    let mail = CorpusConfig {
        seed: args.seed,
        team: args.team.clone(),
        profile: args.profile,
        messages: args.messages,
        messages_per_conversation: args.conversation_messages,
        with_files_percent: args.with_files,
        attachments_per_message: args.attachments,
        contents: args.contents,
        sizes: args.sizes,
        ..CorpusConfig::default()
    };
    let webhook = args.webhook.as_deref().map(|url| Webhook::new(url, &args.webhook_secret));
    let webhook = webhook.transpose().map_err(|error| anyhow!("--webhook: {error}"))?;
    let schedule = args.mail_every.map(|every| Schedule { every, count: u64::MAX, mail: Delivery::default() });
    if let Some(folder) = &args.dump {
        let (config, target) = (mail.clone(), folder.clone());
        let summary = tokio::task::spawn_blocking(move || write_dump(&config, &target))
            .await?
            .with_context(|| format!("writing the dump into {}", folder.display()))?;
        if !args.json {
            println!("{}", describe(&summary, folder));
        }
        if args.dump_only {
            return Ok(ExitCode::SUCCESS);
        }
    }
    let sim = Sim::start(SimConfig {
        listen: args.listen,
        storage_listen: args.storage_listen,
        seed: args.seed,
        team: args.team.clone(),
        mail,
        schedule,
        webhook,
        token: args.token.clone(),
        link_ttl: args.link_ttl,
        latency: args.latency,
        faults,
        limits: LimitConfig { window: args.limit_window, per_day: args.limit_day },
        checksums: args.checksums,
        clock: Clock::system(),
    })
    .await?;
    // Listened for before anyone is told that the simulator is ready, so that none is missed.
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    if args.json {
        let ready = serde_json::json!({
            "base_url": sim.base_url(),
            "storage_url": sim.storage_url(),
            "token": args.token,
            "pid": std::process::id(),
        });
        println!("{ready}");
    } else {
        println!("{}", instructions(&args, &sim));
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    let stats = sim.stats();
    sim.stop().await;
    if !args.json {
        println!("{}", serde_json::to_string_pretty(&stats)?);
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(summary: &Summary, folder: &std::path::Path) -> String {
    format!(
        "Wrote {} files into {}: {} messages, {} attachments of which {} are inline only; the others have {} different \
         contents and {} together.\n",
        summary.files.len(),
        folder.display(),
        summary.messages,
        summary.attachments,
        summary.inline,
        summary.contents,
        ByteSize(summary.bytes)
    )
}

fn instructions(args: &SimArgs, sim: &Sim) -> String {
    let dump = args.dump.clone().unwrap_or_else(|| PathBuf::from("DUMP"));
    format!(
        "Simulated Jelly is ready at {base} (storage at {storage}).\n\nTo rehearse, in another terminal:\n  \
         export JELLY_API_URL={base} JELLY_API_TOKEN={token}\n  jellyjar replay {dump} --archive ./rehearsal\n\n\
         Counters: {control}/stats\nStop with Ctrl-C.",
        base = sim.base_url(),
        storage = sim.storage_url(),
        token = args.token,
        dump = dump.display(),
        control = sim.control_url(),
    )
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    parsed.try_into().map_err(|_| "a duration cannot be negative".to_owned())
}

fn window(text: &str) -> Result<(u64, Duration), String> {
    let wrong = || format!("{text:?} is not N/SECONDS, such as 5000/300");
    let (count, seconds) = text.split_once('/').ok_or_else(wrong)?;
    let seconds: u64 = seconds.parse().map_err(|_| wrong())?;
    if seconds == 0 {
        return Err(wrong());
    }
    Ok((count.parse().map_err(|_| wrong())?, Duration::from_secs(seconds)))
}

fn sizes(text: &str) -> Result<(u64, u64), String> {
    let size = |text: &str| text.trim().parse::<ByteSize>().map(|size| size.as_u64());
    let (min, max) = text.split_once("..").unwrap_or((text, text));
    let (min, max) = (size(min)?, size(max)?);
    if min > max { Err(format!("{text:?}: the smallest size is above the largest")) } else { Ok((min, max)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_are_read_as_people_write_them() {
        assert_eq!(duration("5m"), Ok(Duration::from_mins(5)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("-5s").is_err() && duration("soon").is_err());
        assert_eq!(window("5000/300"), Ok((5000, Duration::from_mins(5))));
        assert!(window("5000").is_err() && window("1/0").is_err());
        assert_eq!(sizes("4KiB..64KiB"), Ok((4096, 65_536)));
        assert_eq!(sizes("0"), Ok((0, 0)));
        assert!(sizes("2..1").is_err() && sizes("big").is_err());
    }
}
