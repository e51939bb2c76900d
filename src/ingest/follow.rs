//! From the inbox to the catalog: one team's webhooks are taken in in the order in which they came, and how far is kept
//! with them.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{IngestError, Intake, Prepared, Team};
use crate::catalog::{Catalog, InboxPosition};
use crate::clock::Clock;
use crate::config::SourceConfig;
use crate::inbox::{Inboxes, Position, ReadError};
use crate::metrics::Metrics;
use crate::model::{Attachment, AttachmentKey, Reject};
use crate::source::{self, Item};

/// So much of the inbox is taken in at once, in bytes; a record that is larger comes alone.
const BATCH_BYTES: usize = 8 << 20;

/// A batch of so many payloads tells that they come fast. Then the next ones are gathered for a while: each batch costs
/// syncs of journal and catalog, for which the inbox would have to wait.
const MANY: u64 = 64;
const GATHER: Duration = Duration::from_millis(400);

/// Why following an inbox broke off. Nothing is lost: it goes on at the position that is kept.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The inbox cannot be read.
    #[error(transparent)]
    Inbox(#[from] ReadError),
    /// What was read cannot be taken in.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The runtime is stopping.
    #[error("reading the inbox was interrupted")]
    Interrupted,
}

/// What a batch of records held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Followed {
    /// Payloads with messages that were not known.
    pub new: u64,
    /// Payloads with attachments that were known, all of them.
    pub known: u64,
    /// Payloads of other kinds, or without any attachment.
    pub ignored: u64,
    /// What could not be read; it is kept.
    pub rejected: u64,
    /// Attachments that became pending.
    pub enqueued: u64,
    /// Pending attachments that waited as bulk work, and are live now.
    pub promoted: u64,
    /// Attachments that the rules skip.
    pub skipped: u64,
    /// How long it took.
    pub took: Duration,
}

/// Follows the inbox of one team.
#[derive(Debug)]
pub struct Follower {
    /// The inboxes.
    pub inboxes: Inboxes,
    /// The team's name in them.
    pub name: String,
    /// The team.
    pub team: Team,
    /// Where payloads go.
    pub intake: Arc<Intake>,
    /// Where the position is kept.
    pub catalog: Arc<Catalog>,
    /// How payloads are read.
    pub source: SourceConfig,
    /// The time.
    pub clock: Clock,
    /// Where it is noted when attachments came.
    pub metrics: Metrics,
}

/// How often a follower without work says that it is alive.
const ALIVE_EVERY: Duration = Duration::from_secs(10);

/// A batch that was read.
struct Batch {
    prepared: Prepared,
    rejects: Vec<Reject>,
    followed: Followed,
    /// When its attachments came, in milliseconds since the Unix epoch.
    arrivals: Vec<(AttachmentKey, i64)>,
}

impl Follower {
    /// Takes in what comes, from where an earlier life left off, and tells of each batch. Ends with an error alone; can be
    /// dropped at any time, and begun again. Calls `alive` with each batch and, while there is nothing to do, from time to
    /// time: never while something waits that it does not get on with.
    pub async fn run(
        &self,
        alive: impl Fn() + Send + Sync,
        mut told: impl FnMut(Followed) + Send,
    ) -> Result<std::convert::Infallible, FollowError> {
        alive();
        let inbox = self.inboxes.identity(&self.name)?.to_string();
        let kept = self.catalog.inbox_position(self.team.row, &inbox).await.map_err(IngestError::from)?;
        // A position that cannot be read is none: what was taken in before is known by its lines.
        let from = kept.and_then(|kept| Some(Position { segment: kept.segment.parse().ok()?, offset: kept.offset }));
        if let Some(from) = from {
            self.inboxes.consumed(&self.name, from)?;
        }
        let mut reader = self.inboxes.reader(&self.name, from)?;
        loop {
            let is_behind = || self.inboxes.is_behind(&self.name).unwrap_or(true);
            let batch = waiting(reader.next(BATCH_BYTES), ALIVE_EVERY, is_behind, &alive).await?;
            alive();
            let began = Instant::now();
            let (end, start, bytes) = (batch.end, batch.start, batch.bytes);
            let bytes_read = bytes.len();
            let (name, team, source, clock) =
                (self.name.clone(), self.team.clone(), self.source.clone(), self.clock.clone());
            let read = tokio::task::spawn_blocking(move || read_batch(&name, &team, &source, &clock, start, &bytes));
            let Batch { prepared, mut rejects, mut followed, arrivals } =
                read.await.map_err(|_| FollowError::Interrupted)?;
            if !rejects.is_empty() && start.offset > 0 {
                let (inboxes, name) = (self.inboxes.clone(), self.name.clone());
                let counted = tokio::task::spawn_blocking(move || inboxes.lines_before(&name, start));
                let before = counted.await.map_err(|_| FollowError::Interrupted)??;
                for reject in &mut rejects {
                    reject.position.line += before;
                }
            }
            self.intake.keep_rejects(&rejects).await?;
            let position = InboxPosition { inbox: inbox.clone(), segment: end.segment.to_string(), offset: end.offset };
            let with_attachments = u64::try_from(prepared.payload_ends.len()).unwrap_or(u64::MAX);
            for (key, at_ms) in &arrivals {
                self.metrics.arrivals.note(*key.as_bytes(), *at_ms);
            }
            let taken = self.intake.take_live(&self.team, prepared, &position).await?;
            followed.new = taken.new_payloads;
            followed.known = with_attachments.saturating_sub(taken.new_payloads);
            (followed.enqueued, followed.promoted, followed.skipped) = (taken.enqueued, taken.promoted, taken.skipped);
            if taken.enqueued + taken.promoted == 0 {
                // All of it has its place already, and nothing will ever ask for these.
                for (key, _) in &arrivals {
                    self.metrics.arrivals.take(key.as_bytes());
                }
            }
            self.inboxes.consumed(&self.name, end)?;
            followed.took = began.elapsed();
            told(followed);
            let payloads = followed.new + followed.known + followed.ignored + followed.rejected;
            if payloads >= MANY && bytes_read < BATCH_BYTES / 2 {
                tokio::time::sleep(GATHER).await;
            }
        }
    }
}

/// Waits for what comes next, and says that it is alive while nothing should have come: never while something is there
/// that is not read.
async fn waiting<T>(
    next: impl Future<Output = T> + Send,
    every: Duration,
    is_behind: impl Fn() -> bool + Send + Sync,
    alive: impl Fn() + Send + Sync,
) -> T {
    let mut next = std::pin::pin!(next);
    loop {
        tokio::select! {
            biased;
            next = &mut next => return next,
            () = tokio::time::sleep(every) => {}
        }
        if !is_behind() {
            alive();
        }
    }
}

fn read_batch(name: &str, team: &Team, source: &SourceConfig, clock: &Clock, start: Position, bytes: &[u8]) -> Batch {
    let (prepared, followed) = (Prepared::new(clock.now()), Followed::default());
    let mut batch = Batch { prepared, rejects: Vec::new(), followed, arrivals: Vec::new() };
    let place = format!("inbox/{name}/{}.jsonl", start.segment);
    let mut reject = |mut reject: Reject, followed: &mut Followed| {
        // Both are counted from where the batch began; its line is known to whoever asks for it.
        reject.position.byte_offset += start.offset;
        batch.rejects.push(reject);
        followed.rejected += 1;
    };
    let _never_breaks = source::read_from(&place, bytes, source, None, &mut |item| {
        match item {
            Item::Payload(payload) if payload.team.as_deref().is_some_and(|named| named != name) => {
                let reason = format!("it names another team than {name}, in whose inbox it stands");
                reject(Reject::new(payload.position, reason), &mut batch.followed);
            }
            Item::Payload(payload) => {
                for one in payload.rejects() {
                    reject(one, &mut batch.followed);
                }
                let line = usize::try_from(payload.position.byte_offset).ok().and_then(|at| bytes.get(at..));
                if let Some(at) = line.and_then(source::inbox_received_at) {
                    let attachments = payload.messages.iter().flat_map(|message| &message.attachments);
                    let arrived = |one: &Attachment| (AttachmentKey::new(&team.key, &one.id), at.as_millisecond());
                    batch.arrivals.extend(attachments.map(arrived));
                }
                let before = batch.prepared.payload_ends.len();
                batch.prepared.push(team, &payload);
                batch.followed.ignored += u64::from(batch.prepared.payload_ends.len() == before);
            }
            Item::Known => {}
            Item::Ignored(_) => batch.followed.ignored += 1,
            Item::Rejected(one) => reject(one, &mut batch.followed),
        }
        ControlFlow::Continue(())
    });
    batch
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_follower_is_silent_while_something_waits_that_it_does_not_read() {
        let (looks, signs, release) = (AtomicU32::new(0), AtomicU32::new(0), tokio::sync::Notify::new());
        let is_behind = || {
            let looks = looks.fetch_add(1, Ordering::Relaxed) + 1;
            if looks == 40 {
                release.notify_one();
            }
            // Idle at first; then something came, and reading it hangs.
            looks > 20
        };
        let alive = || {
            signs.fetch_add(1, Ordering::Relaxed);
        };
        let next = async {
            release.notified().await;
            "batch"
        };
        let read = waiting(next, Duration::from_millis(1), is_behind, alive).await;
        assert_eq!((read, looks.into_inner(), signs.into_inner()), ("batch", 40, 20));
    }
}
