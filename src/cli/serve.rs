//! `jellyjar serve`: takes webhooks, and archives what comes with them, for as long as it runs; and its halves, `receive` and
//! `work` ([`Role`]).
//!
//! Here everything is wired: listeners, inbox, one [`archive::Service`] for each archive, and what tells people about it.
//! The listeners and the inbox need nothing else to be up; an archive that fails is opened again and again beside them.

mod archive;
mod background;
mod board;
mod compaction;
mod disks;
mod reload;
mod role;
mod rush;
mod sample;
mod walks;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::session::{EgressWindows, TriedTokens};
use super::{DONE, Global, UsageError, output};
use crate::clock::Clock;
use crate::config::{Config, Environment, Overrides};
use crate::inbox::Inboxes;
use crate::metrics::Metrics;
use crate::notify::{Beat, Condition, Kind, Notifier, Pulse, Systemd, expires};
use crate::store::JournalWriter;
use crate::web::{Connections, Delivery, Hooks, Listener, Operations, Receiver, Tls};
use crate::worker::Signal;
use background::Background;
use board::{Board, InboxSink};
use role::{Part, Role};
pub(super) use role::{ReceiveArgs, ServeArgs, WorkArgs};
use rush::Rush;
use sample::Samples;

/// How long a stop may take, all in all; what is not done then is done by the next start.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// How long requests in flight may take of it.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How often the parts of the service are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What all parts of a service share.
#[derive(Clone)]
struct Shared {
    role: Role,
    clock: Clock,
    /// This machine's inbox, where webhooks are taken.
    inboxes: Option<Inboxes>,
    board: Board,
    metrics: Metrics,
    notifier: Notifier,
    pulse: Pulse,
    windows: EgressWindows,
    tried: TriedTokens,
    samples: Samples,
    rush: Rush,
    /// As whom each archive was written last, by its place.
    writers: Arc<Mutex<BTreeMap<String, Arc<JournalWriter>>>>,
}

impl Shared {
    /// Opens the inbox, if there is to be one, and what tells people of how all is.
    fn open(role: Role, config: &Config) -> anyhow::Result<Self> {
        let clock = Clock::system();
        let names = names_of(config);
        let metrics = Metrics::new(names.iter().map(String::as_str), groups_of(config), clock.now());
        let inboxes = if role.receives() {
            let folder = config.inbox_folder().ok_or_else(|| {
                UsageError(
                    "HOME is not set, so there is no usual place for the inbox; set `folder` under [inbox]".into(),
                )
            })?;
            Some(Inboxes::open(&config.inbox, &folder, &names, clock.clone())?)
        } else {
            None
        };
        let kept = role.notified_file(config);
        let notifier = Notifier::new(&config.notify, &config.http, clock.clone(), metrics.clone(), kept)?;
        let (pulse, rush) = (Pulse::default(), Rush::default());
        let (windows, tried) = (EgressWindows::default(), TriedTokens::default());
        let board = Board::new(inboxes.clone(), metrics.clone(), notifier.clone(), pulse.clone(), clock.clone());
        let folder = inboxes.as_ref().map(Inboxes::folder);
        let samples = Samples::new(&names, folder, config.notify.disk_free_below_bytes, clock.now());
        let writers = Arc::default();
        Ok(Self { role, clock, inboxes, board, metrics, notifier, pulse, windows, tried, samples, rush, writers })
    }

    fn writers(&self) -> MutexGuard<'_, BTreeMap<String, Arc<JournalWriter>>> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over another configuration, but for what the services of archives need. With an error nothing has changed.
    async fn reconfigure(&self, config: &Config, taking: Option<&Taking>) -> anyhow::Result<()> {
        let names = names_of(config);
        let places: Vec<String> = places_of(config).into_keys().collect();
        if let Some(inboxes) = self.inboxes.clone() {
            let names = names.clone();
            // A disk that does not answer keeps a thread, and not this one.
            tokio::task::spawn_blocking(move || inboxes.add(&names)).await??;
        }
        self.metrics.reconfigure(names.iter().map(String::as_str), groups_of(config));
        if let Some(taking) = taking {
            taking.hooks.replace(&config.teams);
        }
        if let Err(error) = self.notifier.reconfigure(&config.notify, &config.http) {
            tracing::error!("notifications go the way of before: {error:#}");
        }
        self.samples.reconfigure(config.notify.disk_free_below_bytes, &names, &places);
        Ok(())
    }

    /// Lets go of teams and archives that are not configured any more, once nobody works on them.
    async fn let_go(&self, before: &Config, config: &Config) {
        let (names, places) = (names_of(config), places_of(config));
        if let Some(inboxes) = &self.inboxes {
            inboxes.keep(&names).await;
        }
        for name in before.teams.keys().filter(|name| !names.contains(name)) {
            let end = if self.role.receives() { "no webhooks are taken for it" } else { "nothing is fetched for it" };
            tracing::warn!(team = %name, "the team is not configured any more; {end}");
            self.board.forget_team(name);
        }
        self.writers().retain(|place, _| places.contains_key(place));
    }
}

fn names_of(config: &Config) -> Vec<String> {
    config.teams.keys().cloned().collect()
}

fn groups_of(config: &Config) -> BTreeSet<&str> {
    config.teams.keys().map(|name| config.egress_group(name)).collect()
}

/// The places of all archives, each with one of its teams.
fn places_of(config: &Config) -> BTreeMap<String, String> {
    let mut places = BTreeMap::new();
    for name in config.teams.keys() {
        if let Some(location) = config.archive_for(name) {
            places.entry(location.to_string()).or_insert_with(|| name.clone());
        }
    }
    places
}

/// The places of all archives, each with the name of its catalog: where that is, if it is configured.
fn catalogs_of(config: &Config) -> impl Iterator<Item = (String, String)> {
    let catalog = config.catalog.as_ref().map(ToString::to_string);
    places_of(config).into_keys().map(move |place| {
        let catalog = catalog.clone().unwrap_or_else(|| place.clone());
        (place, catalog)
    })
}

/// The listeners, while they serve.
struct Listening {
    /// The public one, where webhooks are taken.
    taking: Option<Taking>,
    telling: JoinHandle<usize>,
}

/// The public listener.
struct Taking {
    hooks: Arc<Hooks>,
    tls: Option<Arc<Tls>>,
    /// Ends the taking of webhooks, which ends first.
    stop: Signal,
    serving: JoinHandle<usize>,
    connections: Connections,
    /// How many bytes of bodies are on their way.
    body_bytes: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Where it is, for people.
    address: String,
}

impl Taking {
    /// Begins to take webhooks into an inbox.
    async fn begin(config: &Config, shared: &Shared, inboxes: &Inboxes, stop: &Signal) -> anyhow::Result<Self> {
        let hooks = Arc::new(Hooks::new(&config.teams));
        let tls = match (&config.serve.tls_certificate, &config.serve.tls_key) {
            (Some(certificate), Some(key)) => Some(Tls::load(certificate, key)?),
            _ => None,
        };
        let public = Listener::public(&config.serve, tls.clone()).await?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let teams = hooks.teams();
        // Several as a shell would write them.
        let teams = if let [only] = &teams[..] { only.clone() } else { format!("{{{}}}", teams.join(",")) };
        let address = format!("{scheme}://{}/webhooks/{teams}", public.address());
        let board = shared.board.clone();
        let sink = InboxSink(inboxes.clone(), shared.metrics.clone());
        let rush = shared.rush.clone();
        let told = move |delivery: &Delivery<'_>| {
            rush.count();
            board.delivered(delivery);
        };
        let receiver = Arc::new(Receiver::new(&config.serve, Arc::clone(&hooks), sink, told));
        let (stop_taking, connections) = (Signal::default(), public.connections());
        let serving = tokio::spawn(public.serve(Arc::clone(&receiver), stop_taking.clone(), ANSWER_WITHIN));
        tokio::spawn(shared.rush.clone().watch(stop.clone()));
        let body_bytes: Arc<dyn Fn() -> u64 + Send + Sync> = Arc::new(move || receiver.body_bytes());
        Ok(Self { hooks, tls, stop: stop_taking, serving, connections, body_bytes, address })
    }
}

impl Listening {
    /// Begins to take webhooks, where there is an inbox for them, and to answer operators until `stop`.
    async fn begin(config: &Config, shared: &Shared, stop: &Signal) -> anyhow::Result<Self> {
        let taking = match &shared.inboxes {
            Some(inboxes) => Some(Taking::begin(config, shared, inboxes, stop).await?),
            None => None,
        };
        let operations = Listener::operations(&config.serve).await?;
        let doing = taking.as_ref().map_or("Working".into(), |taking| format!("Taking webhooks on {}", taking.address));
        output::note(format!("{doing}; operations on http://{}.", operations.address()));
        let (metrics, samples, clock) = (shared.metrics.clone(), shared.samples.clone(), shared.clock.clone());
        let readiness = shared.board.clone();
        let public = taking.as_ref().map(|taking| (taking.connections.clone(), Arc::clone(&taking.body_bytes)));
        let asked = Operations::new(shared.board.clone(), move || {
            readiness.show();
            if let Some((connections, body_bytes)) = &public {
                metrics.connections.set(u64::try_from(connections.open()).ok());
                metrics.body_bytes_in_flight.set(body_bytes());
            }
            samples.show(&metrics, clock.now());
            metrics.render(clock.now())
        });
        let telling = tokio::spawn(operations.serve(Arc::new(asked), stop.clone(), Duration::from_secs(1)));
        if let Some(tls) = taking.as_ref().and_then(|taking| taking.tls.as_ref()) {
            if let Some(expires_at) = tls.expires_at() {
                output::note(format!("The certificate expires at {expires_at:.0}."));
            }
            tokio::spawn(Arc::clone(tls).watch(stop.clone()));
        }
        tokio::spawn(shared.samples.clone().watch(shared.clone(), stop.clone()));
        Ok(Self { taking, telling })
    }

    /// Tells how long the certificate is good for, and whether a new one cannot be used.
    fn look_at_certificate(&self, config: &Config, shared: &Shared) {
        let Some(tls) = self.taking.as_ref().and_then(|taking| taking.tls.as_ref()) else { return };
        let (expires_at, subject) = (tls.expires_at(), "public listener");
        shared.metrics.certificate_expiry.set(expires_at);
        let within = config.notify.certificate_expires_within;
        let soon = expires_at.and_then(|at| expires(at, shared.clock.now(), within));
        shared.notifier.set(Condition::new(Kind::CertificateExpires, subject), soon);
        shared
            .notifier
            .set(Condition::new(Kind::ReloadFailed, "the certificate of the public listener"), tls.failure());
    }
}

/// Runs the command.
pub(super) async fn run(part: impl Into<Part>, global: &Global) -> anyhow::Result<ExitCode> {
    let Part { role, listen, ops_listen } = part.into();
    let overrides = role.overrides(Overrides { listen, ops_listen, ..global.overrides(false) });
    let loaded = role.settings(&overrides)?;
    // From here on signals are heard; before the first poll a SIGTERM would end the process in no good order.
    let mut reloads = reload::Reloads::new(role, &overrides, &loaded);
    let mut config = loaded.config;
    let mut stopped = Box::pin(super::run::interrupted());
    if (&mut stopped).now_or_never().is_some() {
        return Ok(ExitCode::from(DONE));
    }
    let shared = Shared::open(role, &config)?;
    let stop = Signal::default();
    // Before anybody can ask: what is not open yet is not ready.
    shared.board.expect(catalogs_of(&config));
    let listening = Listening::begin(&config, &shared, &stop).await?;
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
        listening.look_at_certificate(&config, &shared);
        tokio::select! {
            () = &mut stopped => break,
            () = tokio::time::sleep(LOOK_EVERY) => {}
            changed = reloads.next() => match changed {
                Ok(new) => {
                    systemd.reloading();
                    if let Err(error) = shared.reconfigure(&new, listening.taking.as_ref()).await {
                        refused(&shared, &error);
                        systemd.ready();
                        continue;
                    }
                    // Whoever holds a token is started anew with the one of now; listeners and inbox go on.
                    let over = async {
                        end(&mut services).await;
                        shared.let_go(&config, &new).await;
                    };
                    tokio::select! {
                        () = over => {}
                        // However long they take: the service lives, and can be stopped.
                        () = keep_beating(&beat) => {}
                        () = &mut stopped => break,
                    }
                    if config.serve != new.serve || config.inbox != new.inbox {
                        tracing::warn!("some settings under [serve] or [inbox] are taken over by a restart alone");
                    }
                    config = new;
                    services = start(&config, &shared, &background);
                    shared.board.reloaded(None);
                    systemd.ready();
                    output::note("Settings, tokens and secrets are read again.");
                }
                Err(error) => refused(&shared, &error),
            },
        }
    }
    systemd.stopping();
    output::note("Stopping: finishing or releasing what is in flight.");
    let stopping = async {
        if let Some(taking) = listening.taking {
            taking.stop.set();
            let _ = taking.serving.await;
        }
        end(&mut services).await;
        if let Some(inboxes) = &shared.inboxes {
            inboxes.close().await;
        }
        shared.samples.tell_ended(&shared);
        stop.set();
        let _ = tokio::join!(listening.telling, notifying);
    };
    tokio::select! {
        stopped = tokio::time::timeout(STOP_WITHIN, stopping) => {
            if stopped.is_err() {
                tracing::warn!("not everything could be ended in time; the next start goes on with it");
                std::process::exit(i32::from(DONE));
            }
        }
        // At once: what is not recorded is done again. The threads of archives would fall over without their runtime.
        () = super::run::interrupted() => std::process::exit(i32::from(super::INTERRUPTED)),
    }
    watching.abort();
    Ok(ExitCode::from(DONE))
}

/// Tells that settings cannot be taken over.
fn refused(shared: &Shared, error: &anyhow::Error) {
    tracing::error!("the settings cannot be read again; those of before stay in force: {error:#}");
    shared.board.reloaded(Some(format!("{error:#}")));
}

/// A service that runs, and the switch that ends it.
type Running = (Signal, oneshot::Receiver<()>);

/// Starts a service for each archive, with all its teams.
fn start(config: &Config, shared: &Shared, background: &Background) -> Vec<Running> {
    let archives = places_of(config);
    shared.board.expect(catalogs_of(config));
    archives
        .into_iter()
        .map(|(place, team)| {
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
