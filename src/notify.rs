//! Tells people and machines how the service is: notifications of trouble, a health check's pings, and what systemd
//! wants to hear. Nothing here ever waits for a receiver on behalf of who reports: reporting changes a board in memory,
//! and a task of its own delivers. The addresses are secrets and are never printed.

mod board;
mod condition;
mod delivery;
mod kept;
mod message;
mod pulse;
mod systemd;
mod thresholds;

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tracing::{info, warn};

pub use condition::{Condition, Kind};
pub use message::{Message, Status};
pub use pulse::{Beat, Pulse};
pub use systemd::Systemd;
pub use thresholds::{Progress, expires, nearly_full};

use self::board::{Board, Timing};
use self::delivery::{Addresses, Outboxes};
use crate::clock::Clock;
use crate::config::{HttpConfig, NotifyConfig};
use crate::http::HttpError;
use crate::metrics::Metrics;

/// The longest sleep between two looks at the board, so that a clock that jumps is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// Where trouble is reported. Cheap to clone; no call waits for anything.
#[derive(Debug, Clone)]
pub struct Notifier(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    board: Mutex<Board>,
    changed: Notify,
    clock: Clock,
    settings: RwLock<NotifyConfig>,
    outboxes: Outboxes,
    metrics: Metrics,
    kept: Option<PathBuf>,
}

impl Notifier {
    /// Makes a notifier. `kept` is the file in which it remembers over restarts what it has told; without, whoever was
    /// told of trouble before a restart is not told of its end.
    pub fn new(
        config: &NotifyConfig,
        http: &HttpConfig,
        clock: Clock,
        metrics: Metrics,
        kept: Option<PathBuf>,
    ) -> Result<Self, HttpError> {
        let mut board = Board::default();
        if let Some(path) = &kept {
            match kept::read(path) {
                Ok(told) => board.restore(told, clock.now_ms()),
                Err(error) => warn!(path = %path.display(), %error, "what was notified before is not known"),
            }
        }
        let client = crate::http::operator_client(http, config.timeout)?;
        let outboxes = Outboxes::new(client, Addresses::of(config), clock.clone(), metrics.clone());
        let settings = RwLock::new(config.clone());
        let board = Mutex::new(board);
        Ok(Self(Arc::new(Inner { board, changed: Notify::new(), clock, settings, outboxes, metrics, kept })))
    }

    /// Trouble has begun, or lasts. Saying so again costs nothing and changes only the details.
    pub fn raise(&self, condition: Condition, detail: impl Into<String>) {
        self.board().raise(condition, &detail.into(), self.0.clock.now_ms());
        self.0.changed.notify_one();
    }

    /// Trouble is over. Saying so of what is no trouble costs nothing.
    pub fn clear(&self, condition: &Condition) {
        if self.board().clear(condition, self.0.clock.now_ms()) {
            self.0.changed.notify_one();
        }
    }

    /// [`Notifier::raise`] with details, [`Notifier::clear`] without: for those who look from time to time.
    pub fn set(&self, condition: Condition, detail: Option<String>) {
        match detail {
            Some(detail) => self.raise(condition, detail),
            None => self.clear(&condition),
        }
    }

    /// All troubles of one kind: these subjects have it, each with details, and no others.
    pub fn set_all(&self, kind: Kind, subjects: Vec<(String, String)>) {
        self.board().set_all(kind, subjects, self.0.clock.now_ms());
        self.0.changed.notify_one();
    }

    /// Something happened, this often, that does not last: an attachment failed for good, a body was refused. Many
    /// become one notification.
    pub fn happened(&self, condition: Condition, times: u64, detail: impl Into<String>) {
        self.board().happened(condition, times, &detail.into(), self.0.clock.now_ms());
        self.0.changed.notify_one();
    }

    /// Takes over a new configuration. With an error only the way to receivers stays as it was.
    pub fn reconfigure(&self, config: &NotifyConfig, http: &HttpConfig) -> Result<(), HttpError> {
        let client = crate::http::operator_client(http, config.timeout);
        self.0.outboxes.readdress(Addresses::of(config), client.as_ref().ok().cloned());
        *self.0.settings.write().unwrap_or_else(PoisonError::into_inner) = config.clone();
        self.0.changed.notify_one();
        client.map(|_| ())
    }

    /// Reports what is stuck, and delivers, until `stop`; then looks once more, and tries once, for a few seconds, to
    /// deliver what waits. Dropping the future loses what is not delivered.
    pub async fn run(&self, pulse: &Pulse, stop: impl Future<Output = ()> + Send) {
        let (stopping, mut is_stopping) = watch::channel(false);
        let (ending, is_ending) = watch::channel(false);
        let stop = async {
            stop.await;
            stopping.send_replace(true);
        };
        let look = async {
            loop {
                let is_last = *is_stopping.borrow_and_update();
                let wait = self.look(pulse);
                self.keep().await;
                if is_last {
                    break;
                }
                tokio::select! {
                    () = self.0.changed.notified() => {}
                    () = tokio::time::sleep(wait) => {}
                    _ = is_stopping.changed() => {}
                }
            }
            ending.send_replace(true);
        };
        tokio::join!(stop, look, self.0.outboxes.deliver(is_ending));
    }

    /// Puts what is due into the outboxes; tells how long nothing else will be.
    fn look(&self, pulse: &Pulse) -> Duration {
        let settings = self.0.settings.read().unwrap_or_else(PoisonError::into_inner).clone();
        let now_ms = self.0.clock.now_ms();
        let late = pulse.late();
        let timing = Timing { delay: settings.delay, repeat_every: settings.repeat_every };
        let (messages, next_ms, troubles) = {
            let mut board = self.board();
            board.set_all(Kind::Hanging, late, now_ms);
            let messages = board.due(timing, now_ms);
            (messages, board.next_due_ms(timing), board.troubles())
        };
        self.0.metrics.troubles.replace(Kind::lasting().map(|kind| {
            let count = troubles.iter().filter(|condition| condition.kind == kind).count();
            (kind.name().to_owned(), u64::try_from(count).unwrap_or(u64::MAX))
        }));
        for message in messages {
            log(&message);
            self.0.outboxes.push(&message, settings.name.as_deref());
        }
        self.0.outboxes.health(troubles.is_empty(), settings.ping_every);
        next_ms.map_or(LOOK_EVERY, |next| {
            Duration::from_millis(next.saturating_sub(now_ms).max(1).unsigned_abs()).min(LOOK_EVERY)
        })
    }

    /// Writes down what was told, if that changed.
    async fn keep(&self) {
        let Some(path) = self.0.kept.clone() else { return };
        let Some(told) = self.board().take_changes() else { return };
        let written = tokio::task::spawn_blocking(move || kept::write(&path, &told).map_err(|error| (path, error)));
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err((path, error))) => warn!(path = %path.display(), %error, "cannot write down what was notified"),
            Err(error) => warn!(%error, "cannot write down what was notified"),
        }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.0.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs what people are told: trouble as a warning, its end as news.
fn log(message: &Message) {
    let Message { condition: Condition { kind, subject }, status, count, detail, .. } = message;
    let (condition, status_name, title) = (kind.name(), status.name(), message.title());
    match status {
        Status::Trouble | Status::Still | Status::Happened => {
            warn!(%condition, %subject, status = status_name, count, %detail, "{title}");
        }
        Status::Recovered => info!(%condition, %subject, status = status_name, count, %detail, "{title}"),
    }
}

#[cfg(test)]
mod tests;
