//! The writer of one team: a thread that takes what waits, writes it, syncs it once, and answers all (group commit).
//!
//! After a failed write or sync nothing of the segment is trusted but what was synced before: it is closed there for
//! good, and the next records go into a new one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::sync::Arc;
use std::time::Duration;

use super::AppendError;
use super::segment::{SegmentId, make_folder, sync_folder};
use super::space::free_bytes;
use super::team::{Ages, Segment, Team, Waiting};
use crate::config::values;

/// What is written and synced together at most, in bytes, but for one record that is larger.
const BATCH_BYTES: usize = 16 << 20;
/// Small records are gathered into writes of about this size.
const WRITE_BYTES: usize = 256 << 10;
/// How often a writer that failed tries whether it can write again.
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// What it tries to write.
const PROBE: [u8; 16 << 10] = [0; 16 << 10];
/// The longest sleep while a segment is open: the clock may be set meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(30);

pub(super) struct Writer {
    team: Arc<Team>,
    open: Option<OpenSegment>,
}

struct OpenSegment {
    id: SegmentId,
    file: File,
    /// What of it is durable.
    bytes: u64,
    began_at_ms: i64,
    /// Whether its name is durable.
    named: bool,
}

enum Work {
    Batch(Vec<Waiting>),
    Look,
    Stop,
}

impl Writer {
    pub(super) fn new(team: Arc<Team>) -> Self {
        Self { team, open: None }
    }

    pub(super) fn run(mut self) {
        let _end = End(Arc::clone(&self.team));
        loop {
            match self.wait() {
                Work::Batch(batch) => self.commit(batch),
                Work::Look => self.probe(),
                Work::Stop => break,
            }
            self.close_if_due();
        }
        self.close();
    }

    /// Waits for records, or until it is time to look at something.
    fn wait(&self) -> Work {
        let mut state = self.team.state();
        loop {
            if !state.waiting.is_empty() {
                let (mut batch, mut bytes) = (Vec::new(), 0);
                while let Some(waiting) = state.waiting.pop_front_if(|next| {
                    bytes += next.line.len();
                    bytes <= BATCH_BYTES || batch.is_empty()
                }) {
                    batch.push(waiting);
                }
                state.writing_since_ms = Some(self.team.common.clock.now_ms());
                return Work::Batch(batch);
            }
            if state.stopping {
                return Work::Stop;
            }
            if std::mem::take(&mut state.poked) {
                return Work::Look;
            }
            let most = match (&state.failing, &self.open) {
                (Some(_), _) => PROBE_EVERY,
                (None, Some(open)) => self.time_left(open).clamp(Duration::from_millis(10), LOOK_EVERY),
                (None, None) => Duration::MAX,
            };
            let woken = self.team.wake.wait_timeout(state, most);
            let (locked, waited) = woken.unwrap_or_else(std::sync::PoisonError::into_inner);
            state = locked;
            if waited.timed_out() {
                state.poked = true;
            }
        }
    }

    /// How long a segment stays open yet.
    fn time_left(&self, open: &OpenSegment) -> Duration {
        let age_ms = self.team.common.clock.now_ms().saturating_sub(open.began_at_ms);
        let age = Duration::from_millis(u64::try_from(age_ms).unwrap_or(0));
        self.team.common.config.segment_age.saturating_sub(age)
    }

    fn commit(&mut self, batch: Vec<Waiting>) {
        self.close_if_due();
        let bytes = batch.iter().map(|waiting| waiting.line.len() as u64).sum();
        let stored = self.store(&batch, bytes);
        if stored.is_err() {
            self.abandon();
        }
        let now_ms = self.team.common.clock.now_ms();
        {
            let mut state = self.team.state();
            state.writing_since_ms = None;
            if let (Ok(()), Some(open)) = (&stored, &mut self.open) {
                let segment = state.segments.entry(open.id).or_insert_with(|| Segment {
                    bytes: 0,
                    closed: false,
                    ages: Ages::since(now_ms),
                });
                segment.ages.note(open.bytes, now_ms);
                open.bytes += bytes;
                segment.bytes = open.bytes;
            }
        }
        self.tell(stored.as_ref().err());
        for Waiting { line, admission, answer } in batch {
            // Its room is free again before anybody can know of it.
            drop(line);
            if stored.is_ok() {
                admission.stored();
            } else {
                drop(admission);
            }
            // Who asked may have gone meanwhile.
            let _ = answer.send(stored.clone());
        }
    }

    /// Makes records durable, and the segment's name with its first ones.
    fn store(&mut self, batch: &[Waiting], bytes: u64) -> Result<(), AppendError> {
        self.check_free(bytes)?;
        if self.open.is_none() {
            self.open = Some(self.begin()?);
        }
        let open = self.open.as_mut().expect("one was begun just now, unless one was open");
        let path = open.id.path(&self.team.folder);
        write(&open.file, open.bytes, batch, bytes).map_err(AppendError::io("write to the inbox segment", &path))?;
        open.file.sync_data().map_err(AppendError::io("sync the inbox segment", &path))?;
        if !open.named {
            sync_folder(&self.team.folder).map_err(AppendError::io("sync the folder", &self.team.folder))?;
            open.named = true;
        }
        Ok(())
    }

    /// Refuses what would leave too little free space.
    fn check_free(&self, bytes: u64) -> Result<(), AppendError> {
        let folder = &self.team.common.folder;
        let free = free_bytes(folder).map_err(AppendError::io("ask for the free space of", folder))?;
        let least = self.team.common.config.min_free_bytes;
        if free < least.saturating_add(bytes) {
            return Err(AppendError::Full(format!(
                "the disk of the inbox is nearly full: {} are free in {}, and {} are to stay so (inbox.min_free)",
                bytesize::ByteSize(free),
                folder.display(),
                values::format_size(least)
            )));
        }
        Ok(())
    }

    /// Begins a segment under a name that was never used.
    fn begin(&self) -> Result<OpenSegment, AppendError> {
        let folder = &self.team.folder;
        let began_at_ms = self.team.common.clock.now_ms();
        let id = {
            let mut state = self.team.state();
            let id = SegmentId::above(state.last, began_at_ms).map_err(AppendError::io("name a segment in", folder))?;
            state.last = Some(id);
            id
        };
        let path = id.path(folder);
        // Mail is for this program's eyes only.
        let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = match create() {
            // Somebody has removed the folder.
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_folder(folder).and_then(|()| create()),
            other => other,
        };
        let file = file.map_err(AppendError::io("begin the inbox segment", &path))?;
        Ok(OpenSegment { id, file, bytes: 0, began_at_ms, named: false })
    }

    /// Gives a segment up after a failure. What is behind its durable end is no record; it is cut off where that works.
    fn abandon(&mut self) {
        let Some(open) = self.open.take() else { return };
        let path = open.id.path(&self.team.folder);
        let undone = if open.bytes == 0 { std::fs::remove_file(&path) } else { open.file.set_len(open.bytes) };
        if let Err(error) = undone {
            tracing::debug!(error = %error, "what a failed write left at {} stays there", path.display());
        }
        self.mark_closed(open.id);
    }

    fn close_if_due(&mut self) {
        let config = &self.team.common.config;
        let due = |open: &OpenSegment| open.bytes >= config.segment_bytes || self.time_left(open).is_zero();
        if self.open.as_ref().is_some_and(due) {
            self.close();
        }
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            self.mark_closed(open.id);
        }
    }

    fn mark_closed(&self, id: SegmentId) {
        if let Some(segment) = self.team.state().segments.get_mut(&id) {
            segment.closed = true;
        }
        self.team.changed();
    }

    /// After a failure, tries whether writing works again, so that the inbox opens again without any sender's help.
    fn probe(&mut self) {
        if self.team.state().failing.is_none() {
            return;
        }
        let path = self.team.folder.join(".probe");
        let tried = self.check_free(PROBE.len() as u64).and_then(|()| {
            let written = File::create(&path).and_then(|mut file| {
                file.write_all(&PROBE)?;
                file.sync_data()
            });
            // Whether it is removed is not what was asked.
            let _ = std::fs::remove_file(&path);
            written.map_err(AppendError::io("write", &path))
        });
        self.tell(tried.as_ref().err());
    }

    /// Notes whether writing works, and tells of the change that led here. What fails is logged once.
    fn tell(&self, failure: Option<&AppendError>) {
        let before = std::mem::replace(&mut self.team.state().failing, failure.cloned());
        match (before, failure) {
            (None, Some(error)) => {
                tracing::error!(team = self.team.name, "webhooks are refused: {error}");
            }
            (Some(_), None) => tracing::info!(team = self.team.name, "the inbox can be written again"),
            _ => {}
        }
        self.team.changed();
    }
}

/// Writes the lines of a batch from `offset` on, in as few calls as are worth it.
fn write(file: &File, mut offset: u64, batch: &[Waiting], bytes: u64) -> io::Result<()> {
    let mut put = |bytes: &[u8]| {
        file.write_all_at(bytes, offset)?;
        offset += bytes.len() as u64;
        Ok::<_, io::Error>(())
    };
    if let [Waiting { line, .. }] = batch {
        return put(line);
    }
    let mut buffer = Vec::with_capacity(usize::try_from(bytes).map_or(WRITE_BYTES, |bytes| bytes.min(WRITE_BYTES)));
    for Waiting { line, .. } in batch {
        if buffer.len() + line.len() > WRITE_BYTES && !buffer.is_empty() {
            put(&buffer)?;
            buffer.clear();
        }
        if line.len() >= WRITE_BYTES {
            put(line)?;
        } else {
            buffer.extend_from_slice(line);
        }
    }
    put(&buffer)
}

/// The end of a writer, also by a panic: nothing may wait for it any longer.
struct End(Arc<Team>);

impl Drop for End {
    fn drop(&mut self) {
        let left = {
            let mut state = self.0.state();
            state.has_writer = false;
            state.writing_since_ms = None;
            for segment in state.segments.values_mut() {
                segment.closed = true;
            }
            std::mem::take(&mut state.waiting)
        };
        drop(left);
        self.0.changed();
    }
}
