//! `jellyjar serve`: takes webhooks, and archives what comes with them, for as long as it runs.
//!
//! Here everything is wired: listeners, inbox, one [`archive::Service`] for each archive, and what tells people about it.
//! The listeners and the inbox need nothing else to be up; an archive that fails is opened again and again beside them.

mod archive;
mod background;
mod board;
mod disks;
mod reload;
mod rush;
mod sample;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures::FutureExt as _;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::session::{EgressWindows, no_token, settings};
use super::{DONE, Global, UsageError, output};
use crate::clock::Clock;
use crate::config::{Config, Environment, Overrides};
use crate::inbox::Inboxes;
use crate::metrics::Metrics;
use crate::model::Location;
use crate::notify::{Beat, Notifier, Pulse, Systemd};
use crate::web::{Delivery, Hooks, Listener, Operations, Receiver, Tls};
use crate::worker::Signal;
use background::Background;
use board::{Board, InboxSink};
use rush::Rush;
use sample::Samples;

/// How long a stop may take, all in all; what is not done then is done by the next start.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// How long requests in flight may take of it.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How often the parts of the service are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The arguments of `jellyjar serve`.
#[derive(Debug, Clone, Args)]
#[expect(clippy::doc_markdown, reason = "these are help texts, where backticks would show")]
#[command(after_help = "Examples:
  export JELLY_API_TOKEN=… JELLY_WEBHOOK_SECRET=…
  jellyjar serve --archive /srv/archive --listen 127.0.0.1:8080
  jellyjar serve --config /etc/jellyjar/jellyjar.toml
  curl http://127.0.0.1:8081/readyz               what it needs, and how that is

Jelly posts webhooks to https://YOUR.HOST/webhooks/TEAM, where TEAM is `default` unless teams are configured. A webhook is
answered with 2xx only once it is durable in the inbox. SIGTERM stops it in good order, SIGHUP reads settings, tokens and
secrets again; so does a change of their files. Stop it, kill it and start it again as you like: nothing that was
accepted is lost.")]
pub(super) struct ServeArgs {
    /// Where webhooks are taken: an address of this machine and a port [env: JELLYJAR_LISTEN] [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) listen: Option<String>,
    /// Where /healthz, /readyz and /metrics are told [env: JELLYJAR_OPS_LISTEN] [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) ops_listen: Option<String>,
}

/// What all parts of a service share.
#[derive(Clone)]
struct Shared {
    clock: Clock,
    inboxes: Inboxes,
    board: Board,
    metrics: Metrics,
    notifier: Notifier,
    pulse: Pulse,
    windows: EgressWindows,
    samples: Samples,
    rush: Rush,
}

impl Shared {
    /// Opens the inbox, and what tells people of it.
    fn open(config: &Config) -> anyhow::Result<Self> {
        let clock = Clock::system();
        let names: Vec<String> = config.teams.keys().cloned().collect();
        let groups: Vec<&str> = names.iter().map(|name| config.egress_group(name)).collect();
        let metrics = Metrics::new(names.iter().map(String::as_str), groups, clock.now());
        let folder = config.inbox_folder().ok_or_else(|| {
            UsageError("HOME is not set, so there is no usual place for the inbox; set `folder` under [inbox]".into())
        })?;
        let inboxes = Inboxes::open(&config.inbox, &folder, &names, clock.clone())?;
        let kept = Some(folder.join("notified.json"));
        let notifier = Notifier::new(&config.notify, &config.http, clock.clone(), metrics.clone(), kept)?;
        let board = Board::new(inboxes.clone(), metrics.clone(), notifier.clone(), clock.clone());
        let samples = Samples::new(&names, &folder, config.notify.disk_free_below_bytes, clock.now());
        let (pulse, windows, rush) = (Pulse::default(), EgressWindows::default(), Rush::default());
        Ok(Self { clock, inboxes, board, metrics, notifier, pulse, windows, samples, rush })
    }
}

/// The listeners, while they serve.
struct Listening {
    hooks: Arc<Hooks>,
    /// Ends the taking of webhooks, which ends first.
    stop_taking: Signal,
    taking: JoinHandle<usize>,
    telling: JoinHandle<usize>,
}

impl Listening {
    /// Begins to take webhooks, and to answer operators until `stop`.
    async fn begin(config: &Config, shared: &Shared, stop: &Signal) -> anyhow::Result<Self> {
        let hooks = Arc::new(Hooks::new(&config.teams));
        let tls = match (&config.serve.tls_certificate, &config.serve.tls_key) {
            (Some(certificate), Some(key)) => Some(Tls::load(certificate, key)?),
            _ => None,
        };
        let public = Listener::public(&config.serve, tls.clone()).await?;
        let operations = Listener::operations(&config.serve).await?;
        output::note(format!(
            "Taking webhooks on {}://{}/webhooks/{{{}}}; operations on http://{}.",
            if tls.is_some() { "https" } else { "http" },
            public.address(),
            hooks.teams().join(","),
            operations.address()
        ));
        let board = shared.board.clone();
        let sink = InboxSink(shared.inboxes.clone(), shared.metrics.clone());
        let rush = shared.rush.clone();
        let told = move |delivery: &Delivery<'_>| {
            rush.count();
            board.delivered(delivery);
        };
        let receiver = Arc::new(Receiver::new(&config.serve, Arc::clone(&hooks), sink, told));
        let (stop_taking, connections) = (Signal::default(), public.connections());
        let taking = tokio::spawn(public.serve(Arc::clone(&receiver), stop_taking.clone(), ANSWER_WITHIN));
        let (metrics, samples, clock) = (shared.metrics.clone(), shared.samples.clone(), shared.clock.clone());
        let asked = Operations::new(shared.board.clone(), move || {
            metrics.connections.set(u64::try_from(connections.open()).ok());
            metrics.body_bytes_in_flight.set(receiver.body_bytes());
            samples.show(&metrics, clock.now());
            metrics.render(clock.now())
        });
        let telling = tokio::spawn(operations.serve(Arc::new(asked), stop.clone(), Duration::from_secs(1)));
        if let Some(tls) = tls {
            tokio::spawn(tls.watch(stop.clone()));
        }
        tokio::spawn(shared.rush.clone().watch(stop.clone()));
        tokio::spawn(shared.samples.clone().watch(shared.clone(), stop.clone()));
        Ok(Self { hooks, stop_taking, taking, telling })
    }
}

/// Runs the command.
pub(super) async fn run(args: ServeArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let listeners = Overrides { listen: args.listen, ops_listen: args.ops_listen, ..global.overrides(false) };
    let overrides = Overrides { read_webhooks: true, ..listeners };
    let config = settings(&overrides)?.config;
    check(&config)?;
    // From here on signals are heard; before the first poll a SIGTERM would end the process in no good order.
    let mut reloads = reload::Reloads::new(&overrides, &config);
    let mut stopped = Box::pin(super::run::interrupted());
    if (&mut stopped).now_or_never().is_some() {
        return Ok(ExitCode::from(DONE));
    }
    let shared = Shared::open(&config)?;
    let stop = Signal::default();
    let listening = Listening::begin(&config, &shared, &stop).await?;
    let names: Vec<String> = config.teams.keys().cloned().collect();
    let systemd = Arc::new(Systemd::from_environment(&Environment::from_process()));
    let (notifier, pulse, ended) = (shared.notifier.clone(), shared.pulse.clone(), stop.clone());
    let notifying = tokio::spawn(async move { notifier.run(&pulse, ended.wait()).await });
    let (watchdog, pulse) = (Arc::clone(&systemd), shared.pulse.clone());
    let watching = tokio::spawn(async move { watchdog.watch(&pulse).await });

    let background = Background::start()?;
    let mut services = start(&config, &shared, &background);
    systemd.ready();
    let beat = shared.pulse.expect("service", LOOK_EVERY * 6);
    loop {
        beat.beat();
        shared.board.look();
        tokio::select! {
            () = &mut stopped => break,
            () = tokio::time::sleep(LOOK_EVERY) => {}
            changed = reloads.next() => match changed {
                Ok(mut config) => {
                    leave_out_new(&mut config, &names);
                    systemd.reloading();
                    listening.hooks.replace(&config.teams);
                    shared.notifier.reconfigure(&config.notify);
                    shared.samples.reconfigure(config.notify.disk_free_below_bytes);
                    // Whoever holds a token is started anew with the one of now; listeners and inbox go on.
                    tokio::select! {
                        () = end(&mut services) => {}
                        // However long they take: the service lives, and can be stopped.
                        () = keep_beating(&beat) => {}
                        () = &mut stopped => break,
                    }
                    services = start(&config, &shared, &background);
                    shared.board.reloaded(None);
                    systemd.ready();
                    output::note("Settings, tokens and secrets are read again.");
                }
                Err(error) => {
                    tracing::error!("the settings cannot be read again; those of before stay in force: {error:#}");
                    shared.board.reloaded(Some(format!("{error:#}")));
                }
            },
        }
    }
    systemd.stopping();
    output::note("Stopping: finishing or releasing what is in flight.");
    let stopping = async {
        listening.stop_taking.set();
        let _ = listening.taking.await;
        end(&mut services).await;
        shared.inboxes.close().await;
        shared.samples.tell_ended(&shared);
        stop.set();
        let _ = tokio::join!(listening.telling, notifying);
    };
    tokio::select! {
        stopped = tokio::time::timeout(STOP_WITHIN, stopping) => {
            if stopped.is_err() {
                tracing::warn!("not everything could be ended in time; the next start goes on with it");
            }
        }
        () = super::run::interrupted() => return Ok(ExitCode::from(super::INTERRUPTED)),
    }
    watching.abort();
    Ok(ExitCode::from(DONE))
}

/// Refuses settings with which nothing could be archived.
fn check(config: &Config) -> anyhow::Result<()> {
    if config.teams.is_empty() {
        return Err(no_token(crate::config::DEFAULT_TEAM).into());
    }
    for (name, team) in &config.teams {
        if team.token.is_none() {
            return Err(no_token(name).into());
        }
        if config.archive_for(name).is_none() {
            let text =
                format!("team {name} has no archive; add --archive PLACE, or set `archive` in the configuration");
            return Err(UsageError(text).into());
        }
    }
    if Hooks::new(&config.teams).teams().is_empty() {
        let text = "no team has a webhook secret, so no webhook could be accepted; set JELLY_WEBHOOK_SECRET, or \
                    `webhook_secret_file` under [teams.NAME]";
        return Err(UsageError(text.into()).into());
    }
    Ok(())
}

/// A service that runs, and the switch that ends it.
type Running = (Signal, oneshot::Receiver<()>);

/// Starts a service for each archive, with all its teams.
fn start(config: &Config, shared: &Shared, background: &Background) -> Vec<Running> {
    let mut archives: BTreeMap<String, (Location, String)> = BTreeMap::new();
    for name in config.teams.keys() {
        if let Some(location) = config.archive_for(name) {
            archives.entry(location.to_string()).or_insert_with(|| (location.clone(), name.clone()));
        }
    }
    shared.board.expect(archives.keys().cloned());
    archives
        .into_iter()
        .map(|(place, (_, team))| {
            let stop = Signal::default();
            let service = archive::Service { place, team, config: config.clone(), shared: shared.clone() };
            let signal = stop.clone();
            let (ending, ended) = oneshot::channel();
            // On a thread of its own: what one archive is busy with delays no other.
            background.spawn(move |runtime| {
                runtime.block_on(service.run(&signal));
                let _ = ending.send(());
            });
            (stop, ended)
        })
        .collect()
}

/// Ends services. Can be dropped, and begun again.
async fn end(services: &mut Vec<Running>) {
    for (stop, _) in &*services {
        stop.set();
    }
    while let Some((_, ended)) = services.last_mut() {
        let _ = ended.await;
        services.pop();
    }
}

/// Shows signs of life until it is dropped.
async fn keep_beating(beat: &Beat) {
    loop {
        beat.beat();
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Leaves out teams that came while the service runs: inboxes and metrics are made at the start.
fn leave_out_new(config: &mut Config, known: &[String]) {
    config.teams.retain(|name, _| {
        let is_known = known.contains(name);
        if !is_known {
            tracing::warn!(team = %name, "the team is new; restart the service to take its webhooks");
        }
        is_known
    });
}

/// The files whose change means that settings are to be read again.
fn watched_files(config: &Config, overrides: &Overrides) -> Vec<PathBuf> {
    let teams = config.teams.values().flat_map(|team| {
        [&team.token_file, &team.webhook.secret_file, &team.webhook.password_file].into_iter().flatten()
    });
    overrides.config.iter().chain(teams).cloned().collect()
}
