//! How the inbox is: what metrics, readiness and notifications tell.

use std::time::Duration;

use jiff::Timestamp;

use super::space::free_bytes;
use super::team::Team;
use super::{AppendError, Inboxes, Stranger};
use crate::config::values;

/// An inbox without room for a webhook of this size counts as full.
const USUAL_BYTES: u64 = 64 << 10;

/// All teams' inboxes.
#[derive(Debug, Clone)]
pub struct InboxStatus {
    /// What they take on disk, in bytes, with what waits to be written.
    pub bytes: u64,
    /// What they may take.
    pub max_bytes: u64,
    /// What is free on its disk, in bytes; `None` where the system does not tell.
    pub free_bytes: Option<u64>,
    /// Why somebody should look, as a sentence, before records are refused.
    pub alarm: Option<String>,
    /// Each team's.
    pub teams: Vec<TeamStatus>,
    /// Folders of teams that are not configured any more: what is in them is not archived.
    pub strangers: Vec<Stranger>,
}

/// One team's inbox.
#[derive(Debug, Clone)]
pub struct TeamStatus {
    /// The team.
    pub team: String,
    /// What it takes on disk, in bytes, with what waits to be written.
    pub bytes: u64,
    /// What it may take.
    pub max_bytes: u64,
    /// How many files that is.
    pub segments: usize,
    /// What has not been taken over yet, in bytes.
    pub unread_bytes: u64,
    /// How long the oldest of that has waited; `None` where all is taken over. Rounded up to some seconds.
    pub unread_age: Option<Duration>,
    /// When the oldest segment was begun.
    pub oldest_at: Option<Timestamp>,
    /// The records that wait to be written.
    pub waiting: usize,
    /// Why somebody should look, as a sentence, before records are refused.
    pub alarm: Option<String>,
    /// Why records are refused now, as a sentence.
    pub failing: Option<String>,
    /// What earlier lives left behind their last whole record, in bytes. It was never accepted.
    pub torn_bytes: u64,
}

impl Inboxes {
    /// How the inbox is now.
    pub fn status(&self) -> InboxStatus {
        let common = &self.0.common;
        let (bytes, max_bytes) = (common.space.total().disk_bytes, common.config.max_bytes);
        let free_bytes = free_bytes(&common.folder).ok();
        let alarm = alarm("the inbox", bytes, max_bytes, common.config.alarm);
        InboxStatus {
            bytes,
            max_bytes,
            free_bytes,
            alarm: alarm.or_else(|| low(free_bytes?, common.config.min_free_bytes)),
            teams: self.teams().values().map(|team| team.status()).collect(),
            strangers: self.strangers().clone(),
        }
    }
}

impl Team {
    fn status(&self) -> TeamStatus {
        let (space, config) = (&self.common.space, &self.common.config);
        let now_ms = self.common.clock.now_ms();
        let since = |ms: i64| Duration::from_millis(u64::try_from(now_ms.saturating_sub(ms)).unwrap_or(0));
        let (total, own) = space.usage(self.index);
        let max_bytes = space.team_max_bytes();
        let state = self.state();
        let unread_bytes = state
            .segments
            .iter()
            .map(|(id, segment)| match state.consumed {
                Some(upto) if upto.segment > *id => 0,
                Some(upto) if upto.segment == *id => segment.bytes.saturating_sub(upto.offset),
                _ => segment.bytes,
            })
            .sum();
        let unread_at =
            state.readable(state.consumed).and_then(|(id, offset, _)| state.segments.get(&id)?.ages.at(offset));
        let stuck = state.writing_since_ms.map(since).filter(|waited| *waited > config.write_timeout);
        let room = max_bytes.saturating_sub(own.disk_bytes).min(config.max_bytes.saturating_sub(total.disk_bytes));
        let failing = match (&state.failing, stuck) {
            (Some(error), _) => Some(error.to_string()),
            (None, Some(_)) => Some(AppendError::TimedOut(config.write_timeout).to_string()),
            (None, None) => (room < USUAL_BYTES).then(|| "the inbox is full (inbox.max_size)".to_owned()),
        };
        TeamStatus {
            team: self.name.clone(),
            bytes: own.disk_bytes,
            max_bytes,
            segments: state.segments.len(),
            unread_bytes,
            unread_age: unread_at.map(since),
            oldest_at: state
                .segments
                .first_key_value()
                .and_then(|(id, _)| Timestamp::from_millisecond(id.began_at_ms()).ok()),
            waiting: own.waiting,
            alarm: alarm(&format!("the inbox of team `{}`", self.name), own.disk_bytes, max_bytes, config.alarm),
            failing,
            torn_bytes: state.torn_bytes,
        }
    }
}

/// The words of an alarm, if it is time for one.
fn alarm(what: &str, bytes: u64, max_bytes: u64, share: f64) -> Option<String> {
    #[expect(clippy::cast_precision_loss, reason = "a share needs no 53 bits")]
    let reached = bytes > 0 && bytes as f64 >= max_bytes as f64 * share;
    reached.then(|| {
        format!(
            "{what} holds {} of the {} that it may take (inbox.max_size): the archive does not keep up; above that, \
             webhooks are refused",
            bytesize::ByteSize(bytes),
            values::format_size(max_bytes)
        )
    })
}

/// The words of an alarm for a disk on which less than twice the space is free that is to stay so.
fn low(free_bytes: u64, min_free_bytes: u64) -> Option<String> {
    (free_bytes / 2 < min_free_bytes).then(|| {
        format!(
            "the disk of the inbox has {} left; below {} webhooks are refused (inbox.min_free)",
            bytesize::ByteSize(free_bytes),
            values::format_size(min_free_bytes)
        )
    })
}
