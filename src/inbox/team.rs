//! One team's inbox: what waits, what its segments are, and who is told of a change.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use super::identity::InboxId;
use super::segment::{self, SegmentId};
use super::space::{Admission, Space};
use super::writer::Writer;
use super::{AppendError, ClosedSegment, OpenError, Position, ReadError};
use crate::clock::Clock;
use crate::config::InboxConfig;
use crate::source::{inbox_line, inbox_line_bound};

/// Bodies up to this size become lines at once; larger ones on a thread that may block.
const SMALL_BODY_BYTES: usize = 128 << 10;

/// What all teams share. The lock ends with the last of them.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) config: InboxConfig,
    pub(super) folder: PathBuf,
    pub(super) clock: Clock,
    pub(super) space: Arc<Space>,
    pub(super) _lock: File,
}

/// One team's inbox. Its writer, a thread, is started by the first record.
#[derive(Debug)]
pub(super) struct Team {
    pub(super) name: String,
    pub(super) index: u64,
    pub(super) folder: PathBuf,
    pub(super) identity: InboxId,
    pub(super) common: Arc<Common>,
    state: Mutex<State>,
    /// Tells the writer that something waits.
    pub(super) wake: Condvar,
    /// Tells readers that records became durable, or that a segment was closed.
    changes: watch::Sender<u64>,
}

/// What changes under a team's lock, which is never held while a file is touched.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) segments: BTreeMap<SegmentId, Segment>,
    /// The highest name that was ever given.
    pub(super) last: Option<SegmentId>,
    /// The highest name that was removed.
    floor: Option<SegmentId>,
    pub(super) has_writer: bool,
    thread: Option<JoinHandle<()>>,
    pub(super) stopping: bool,
    /// The writer is to look at the time, and at what has failed.
    pub(super) poked: bool,
    /// Why the last record could not be written.
    pub(super) failing: Option<AppendError>,
    /// Since when the disk has not answered.
    pub(super) writing_since_ms: Option<i64>,
    /// What has been taken over for good.
    pub(super) consumed: Option<Position>,
    pub(super) torn_bytes: u64,
}

/// A record that waits to be written.
pub(super) struct Waiting {
    pub(super) line: Vec<u8>,
    pub(super) admission: Admission,
    pub(super) answer: oneshot::Sender<Result<(), AppendError>>,
}

impl fmt::Debug for Waiting {
    /// Shows the length only: what people write to each other is not for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.line.len())
    }
}

/// What is known of a segment.
#[derive(Debug)]
pub(super) struct Segment {
    /// What of it is durable.
    pub(super) bytes: u64,
    pub(super) closed: bool,
    pub(super) ages: Ages,
}

impl Team {
    /// Opens one team's folder, with what earlier lives left in it.
    pub(super) fn open(name: &str, common: &Arc<Common>) -> Result<Self, OpenError> {
        let folder = common.folder.join(name);
        segment::make_folder(&folder).map_err(OpenError::io("make the folder", &folder))?;
        let identity =
            identity_of(&folder, common.clock.now_ms()).map_err(OpenError::io("name the folder", &folder))?;
        let found = segment::find(&folder).map_err(OpenError::io("look into the folder", &folder))?;
        let mut state = State { floor: found.floor, torn_bytes: found.torn_bytes, ..State::default() };
        state.last = found.floor.max(found.segments.last().map(|(id, _)| *id));
        let index = common.space.join();
        for (id, bytes) in found.segments {
            let ages = Ages::since(id.began_at_ms());
            state.segments.insert(id, Segment { bytes, closed: true, ages });
            common.space.occupy(index, bytes);
        }
        let team = Self {
            name: name.to_owned(),
            index,
            folder,
            identity,
            common: Arc::clone(common),
            state: Mutex::new(state),
            wake: Condvar::new(),
            changes: watch::Sender::new(0),
        };
        team.remove_empty();
        Ok(team)
    }

    /// Removes segments that hold no whole record: nobody reads to their end.
    fn remove_empty(&self) {
        let empty: Vec<_> =
            self.state().segments.iter().filter(|(_, segment)| segment.bytes == 0).map(|(id, _)| *id).collect();
        for id in empty {
            if let Err(error) = self.remove(id) {
                // It stays, as harmless as it is.
                tracing::debug!(error = %error, "an empty inbox segment stays");
            }
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A writer that fell over says so itself, when it ends.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells readers of a change.
    pub(super) fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Hears of changes.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Has a record written, and waits until it is durable. If this is dropped, the record may be written or not.
    pub(super) async fn append(self: &Arc<Self>, source: &str, body: Bytes) -> Result<(), AppendError> {
        let bound = inbox_line_bound(&self.name, source, body.len());
        let mut admission = self.common.space.admit(self.index, bound as u64)?;
        let received_at = self.common.clock.now();
        let line = if body.len() <= SMALL_BODY_BYTES {
            inbox_line(&self.name, received_at, source, &body)
        } else {
            let (team, source) = (self.name.clone(), source.to_owned());
            let made = tokio::task::spawn_blocking(move || inbox_line(&team, received_at, &source, &body));
            made.await.map_err(|_| AppendError::Closed)?
        };
        admission.shrink(line.len() as u64);
        let (answer, answered) = oneshot::channel();
        self.enqueue(Waiting { line, admission, answer })?;
        let timeout = self.common.config.write_timeout;
        match tokio::time::timeout(timeout, answered).await {
            Ok(answer) => answer.unwrap_or(Err(AppendError::Closed)),
            Err(_) => Err(AppendError::TimedOut(timeout)),
        }
    }

    fn enqueue(self: &Arc<Self>, waiting: Waiting) -> Result<(), AppendError> {
        let mut state = self.state();
        if state.stopping {
            return Err(AppendError::Closed);
        }
        if !state.has_writer {
            let writer = Writer::new(Arc::clone(self));
            let thread = std::thread::Builder::new().name("inbox".into());
            let started = thread.spawn(move || writer.run());
            state.thread = Some(started.map_err(AppendError::io("start a writer for", &self.folder))?);
            state.has_writer = true;
        }
        state.waiting.push_back(waiting);
        self.wake.notify_one();
        Ok(())
    }

    /// Has the writer look at the time, and at what has failed.
    pub(super) fn poke(&self) {
        self.state().poked = true;
        self.wake.notify_one();
    }

    /// Refuses further records and lets the writer end once it has written what waits.
    pub(super) fn stop(&self) {
        self.state().stopping = true;
        self.wake.notify_one();
    }

    /// Waits until the writer has ended, and writes down how far all was taken over: what is left of a team that is not
    /// configured any more is told by it.
    pub(super) async fn stopped(&self) {
        let mut changes = self.changes();
        while self.state().has_writer {
            // The sender is this team's own.
            let _ = changes.changed().await;
        }
        // Its last steps, which let go of the lock.
        let thread = self.state().thread.take();
        if let Some(thread) = thread {
            // One that fell over has ended, too.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        let consumed = self.state().consumed;
        if let Some(upto) = consumed {
            let folder = self.folder.clone();
            let noted = tokio::task::spawn_blocking(move || segment::note_taken(&folder, upto)).await;
            if let Ok(Err(error)) = noted {
                tracing::debug!(team = self.name, error = %error, "how far the inbox was taken over is not written down");
            }
        }
    }

    /// The segments that get no more records, in order.
    pub(super) fn closed(&self) -> Vec<ClosedSegment> {
        let state = self.state();
        let closed = state.segments.iter().filter(|(_, segment)| segment.closed);
        closed
            .map(|(id, segment)| ClosedSegment { id: *id, path: id.path(&self.folder), bytes: segment.bytes })
            .collect()
    }

    /// Removes a closed segment. One that is not there is no error.
    pub(super) fn remove(&self, id: SegmentId) -> Result<(), ReadError> {
        let (known, floor) = {
            let state = self.state();
            (state.segments.get(&id).map(|segment| segment.closed), state.floor)
        };
        match known {
            None => return Ok(()),
            Some(false) => return Err(ReadError::Open(id)),
            Some(true) => {}
        }
        let path = id.path(&self.folder);
        let floor = segment::remove(&self.folder, id, floor).map_err(|source| ReadError::Remove { path, source })?;
        let mut state = self.state();
        state.floor = state.floor.max(Some(floor));
        if let Some(segment) = state.segments.remove(&id) {
            self.common.space.release(self.index, segment.bytes);
        }
        Ok(())
    }

    /// Forgets a segment whose file somebody took away.
    pub(super) fn forget(&self, id: SegmentId) {
        if let Some(segment) = self.state().segments.remove(&id) {
            self.common.space.release(self.index, segment.bytes);
            tracing::warn!(
                "the inbox segment {} is gone, and with it {} bytes of accepted webhooks unless they were archived",
                id.path(&self.folder).display(),
                segment.bytes
            );
        }
        self.changed();
    }

    /// Takes note of a position that somebody has. A segment below it would never be read, so names go on above it even if
    /// the disk is a new one and the clock was set back.
    pub(super) fn knows(&self, position: Option<Position>) {
        let mut state = self.state();
        state.last = state.last.max(position.map(|position| position.segment));
    }

    /// Where reading goes on behind `position`: the segment, the place in it, and its durable end.
    pub(super) fn readable(&self, position: Option<Position>) -> Option<(SegmentId, u64, u64)> {
        self.state().readable(position)
    }
}

/// Who a folder is. Where that cannot be written down now, it is somebody else after the next start.
fn identity_of(folder: &Path, now_ms: i64) -> io::Result<InboxId> {
    InboxId::of(folder, now_ms).or_else(|error| {
        let place = folder.display();
        tracing::warn!(error = %error, "the inbox {place} cannot be named now; the next start reads it from its beginning");
        InboxId::random(now_ms)
    })
}

impl Drop for Team {
    fn drop(&mut self) {
        self.common.space.leave(self.index);
    }
}

impl State {
    pub(super) fn readable(&self, position: Option<Position>) -> Option<(SegmentId, u64, u64)> {
        if let Some(Position { segment, offset }) = position
            && let Some(found) = self.segments.get(&segment).filter(|found| offset < found.bytes)
        {
            return Some((segment, offset, found.bytes));
        }
        let (id, next) = self
            .segments
            .iter()
            .filter(|(id, _)| position.is_none_or(|position| **id > position.segment))
            .find(|(_, segment)| segment.bytes > 0)?;
        Some((*id, 0, next.bytes))
    }
}

/// When the records of a segment were written, roughly: in few marks however many there are.
#[derive(Debug)]
pub(super) struct Ages {
    every_ms: i64,
    /// Where records begin that were written at a time or later.
    marks: Vec<(u64, i64)>,
}

impl Ages {
    const MOST: usize = 128;

    pub(super) fn since(ms: i64) -> Self {
        Self { every_ms: 1000, marks: vec![(0, ms)] }
    }

    /// Notes that what stands from `offset` on was written at `ms`.
    pub(super) fn note(&mut self, offset: u64, ms: i64) {
        if self.marks.last().is_some_and(|(_, last)| ms < last.saturating_add(self.every_ms)) {
            return;
        }
        self.marks.push((offset, ms));
        if self.marks.len() > Self::MOST {
            let mut place = 0;
            self.marks.retain(|_| {
                place += 1;
                place % 2 == 1
            });
            self.every_ms *= 2;
        }
    }

    /// When what stands at `offset` was written, or somewhat before.
    pub(super) fn at(&self, offset: u64) -> Option<i64> {
        let behind = self.marks.partition_point(|(start, _)| *start <= offset);
        self.marks.get(behind.checked_sub(1)?).map(|(_, ms)| *ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_stay_few_and_never_make_a_record_younger() {
        let mut ages = Ages::since(0);
        for second in 0..10_000_i64 {
            ages.note(u64::try_from(second).unwrap() * 10, second * 1000);
        }
        assert!(ages.marks.len() <= Ages::MOST, "{}", ages.marks.len());
        for second in [0, 1, 17, 5_000, 9_999_i64] {
            let at = ages.at(u64::try_from(second).unwrap() * 10 + 3).unwrap();
            assert!(at <= second * 1000 && at >= second * 1000 - 256_000, "{second}: {at}");
        }
    }
}
