//! What is kept of a walk: where it is, and what it has counted.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::WalkError;
use super::listing::Listing;
use crate::catalog::{Walk, WalkNotes};

/// Which conversations a backfill walks. With the team, they say which walk it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filters {
    /// Only those of this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Only those with the label of this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_id: Option<String>,
    /// Only those in the mailbox of this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mailbox_id: Option<String>,
    /// Only those in which something happened since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

impl Filters {
    /// As they are kept.
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).expect("plain structs of text always serialise")
    }

    /// Whether all conversations are walked.
    pub(super) fn are_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What a walk has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Requests for pages of conversations.
    pub list_requests: u64,
    /// Requests for pages of messages, or for single ones.
    pub message_requests: u64,
    /// Entries that were listed, those that came again with them.
    pub listed: u64,
    /// Passes and rounds over the list.
    pub turns: u64,
    /// Conversations that have, or may have, attachments.
    pub conversations: u64,
    /// Those of them whose messages were to be read when all was listed.
    pub to_read: u64,
    /// The pages of their messages.
    pub pages: u64,
    /// The attachments that the list tells of.
    pub listed_attachments: u64,
    /// Those of them that were known when all was listed.
    pub known_attachments: u64,
    /// Conversations that were read to their end.
    pub read: u64,
    /// Messages with attachments that were read.
    pub messages: u64,
    /// Attachments that became pending.
    pub enqueued: u64,
    /// Attachments that the rules skip and nobody knew.
    pub skipped: u64,
    /// Conversations that vanished before they were read.
    pub gone: u64,
    /// Conversations that could not be read.
    pub failed: u64,
    /// Entries of lists, and parts of messages, that could not be read.
    pub unreadable: u64,
    /// Whether the list moved so fast that it was left before it came to rest.
    pub is_unsettled: bool,
}

impl Counts {
    /// What a walk has counted.
    pub fn of(walk: &Walk) -> Self {
        // Whatever another version wrote: figures for people.
        serde_json::from_str(&walk.counts).unwrap_or_default()
    }
}

/// Where a walk is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) filters: Filters,
    pub(super) listing: Listing,
    /// Differs in each beginning: the fingerprint of what shows none.
    pub(super) salt: i64,
    /// Of a sweep: all that is older was seen.
    #[serde(default)]
    pub(super) watermark_ms: Option<i64>,
    /// Of a sweep: what `watermark_ms` will be.
    #[serde(default)]
    pub(super) next_watermark_ms: Option<i64>,
    /// Of a sweep: when the last one ended.
    #[serde(default)]
    pub(super) completed_ms: Option<i64>,
    /// Of a sweep: the statuses that the feed without one does not show.
    #[serde(default)]
    pub(super) apart: Vec<String>,
    /// Of a sweep: whether something was so young that it was left to the next.
    #[serde(default)]
    pub(super) has_young: bool,
    /// Of a sweep: how long a webhook may be on its way.
    #[serde(default)]
    pub(super) grace_ms: i64,
}

impl State {
    pub(super) fn new(filters: Filters, listing: Listing, salt: i64) -> Self {
        Self {
            filters,
            listing,
            salt,
            watermark_ms: None,
            next_watermark_ms: None,
            completed_ms: None,
            apart: Vec::new(),
            has_young: false,
            grace_ms: 0,
        }
    }
}

/// A walk that is being gone on with.
#[derive(Debug, Clone)]
pub(super) struct Going {
    pub(super) walk: Walk,
    pub(super) state: State,
    pub(super) counts: Counts,
}

impl Going {
    pub(super) fn new(walk: Walk) -> Result<Self, WalkError> {
        let state = serde_json::from_str(&walk.state)
            .map_err(|error| WalkError::Unreadable(format!("{error}; begin it anew with --restart")))?;
        let counts = Counts::of(&walk);
        Ok(Self { walk, state, counts })
    }

    pub(super) fn notes(&self) -> WalkNotes {
        notes(&self.state, &self.counts)
    }
}

pub(super) fn notes(state: &State, counts: &Counts) -> WalkNotes {
    let text = |value: serde_json::Result<String>| value.expect("plain structs of text and numbers always serialise");
    WalkNotes { state: text(serde_json::to_string(state)), counts: text(serde_json::to_string(counts)) }
}
