//! The simulated team: its mail as it was at the start, which is made when it is read, and what has changed since, which
//! is all that is held.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, OnceLock};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::corpus::CorpusConfig;
use super::state::lock;

mod arrive;
mod contacts;
mod feed;
mod mail;
mod people;
mod truth;

pub use arrive::{Delivery, Schedule};
pub(super) use contacts::{Contacts, Link};
pub(super) use feed::Filter;
use mail::Mail;
pub(super) use people::{Label, People};
pub use truth::Known;

/// What the service says of a conversation's state.
pub(super) const STATUSES: [&str; 5] = ["open", "archived", "snoozed", "spam", "trash"];

/// A conversation.
#[derive(Debug, Clone)]
pub(super) struct Conversation {
    /// Its number; the oldest is 0.
    pub(super) number: u64,
    /// Its id.
    pub(super) slug: String,
    pub(super) subject: String,
    pub(super) status: &'static str,
    /// The ids of its labels.
    pub(super) labels: Vec<u64>,
    /// The ids of its mailboxes.
    pub(super) mailboxes: Vec<u64>,
    /// The ids of the members it is assigned to.
    pub(super) assignees: Vec<u64>,
    pub(super) messages_count: u64,
    pub(super) comments_count: u64,
    pub(super) attachments_count: u64,
    pub(super) created_at: Timestamp,
    /// When anything about it changed.
    pub(super) updated_at: Timestamp,
    /// When its last message came.
    pub(super) last_message_at: Timestamp,
    /// Its place in the feed: the highest comes first. New mail gives it the highest.
    pub(super) rank: u64,
}

/// What has changed since the start.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Members and labels.
    pub(super) people: People,
    pub(super) contacts: Contacts,
    /// Drafts, by the message that each replies to.
    pub(super) drafts: HashMap<String, Value>,
    /// Conversations that are not as the mail has them.
    conversations: HashMap<u64, Conversation>,
    /// Those of them that got mail, by their place in the feed.
    moved: BTreeMap<u64, u64>,
    /// Messages that came after the start, by conversation, oldest first.
    arrived: HashMap<u64, Vec<Value>>,
    /// Where a message that came after the start is: its conversation, and its place in `arrived`.
    places: HashMap<String, (u64, usize)>,
    /// How many messages came after the start.
    arrivals: u64,
    /// How many attachments they brought.
    arrived_files: u64,
}

impl Changes {
    /// The id of the next draft.
    pub(super) fn next_draft_id(&self) -> String {
        (123 + self.drafts.len()).to_string()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Team {
    config: CorpusConfig,
    mail: OnceLock<Mail>,
    changes: Mutex<Changes>,
}

impl Team {
    /// A team with this mail.
    pub(super) fn new(config: CorpusConfig) -> Self {
        Self { config, mail: OnceLock::new(), changes: Mutex::default() }
    }

    /// Reads and changes what changes.
    pub(super) fn changes(&self) -> MutexGuard<'_, Changes> {
        lock(&self.changes)
    }

    fn mail(&self) -> &Mail {
        self.mail.get_or_init(|| Mail::new(&self.config))
    }

    /// The API's address as its answers name it.
    pub(super) fn api_url(&self) -> &str {
        &self.config.url_base
    }

    /// A conversation as it is now.
    pub(super) fn conversation(&self, changes: &Changes, slug: &str) -> Option<Conversation> {
        let number = self.mail().number(slug)?;
        self.numbered(changes, number)
    }

    /// Puts a changed conversation back, with the time of the change. Its place in the feed stays.
    pub(super) fn change(changes: &mut Changes, mut conversation: Conversation, now: Timestamp) {
        conversation.updated_at = now;
        changes.conversations.insert(conversation.number, conversation);
    }

    fn numbered(&self, changes: &Changes, number: u64) -> Option<Conversation> {
        let changed = changes.conversations.get(&number).cloned();
        changed.or_else(|| (number < self.mail().len()).then(|| self.mail().conversation(number)))
    }

    /// The messages of a conversation from number `from` on, oldest first, at most `limit`.
    pub(super) fn messages(&self, changes: &Changes, conversation: &Conversation, from: u64, limit: u64) -> Vec<Value> {
        let arrived = changes.arrived.get(&conversation.number).map_or(&[][..], Vec::as_slice);
        let before = conversation.messages_count - arrived.len() as u64;
        let to = from.saturating_add(limit).min(conversation.messages_count);
        (from..to)
            .filter_map(|index| match index.checked_sub(before) {
                None => Some(self.mail().message(conversation.number, index)),
                Some(late) => arrived.get(usize::try_from(late).ok()?).cloned(),
            })
            .collect()
    }

    /// One message.
    pub(super) fn message(&self, changes: &Changes, id: &str) -> Option<Value> {
        if let Some((conversation, index)) = changes.places.get(id) {
            return changes.arrived.get(conversation)?.get(*index).cloned();
        }
        if let Some(draft) = changes.drafts.values().find(|draft| draft["id"] == id) {
            return Some(draft.clone());
        }
        let (conversation, index) = self.mail().find(id)?;
        Some(self.mail().message(conversation, index))
    }
}

impl Conversation {
    /// Its address for people.
    pub(super) fn url(&self) -> String {
        format!("https://app.letsjelly.com/conversations/{}", self.slug)
    }

    /// The conversation as lists show it.
    pub(super) fn to_json(&self, people: &People, api: &str) -> Value {
        let mut shown = self.to_event_json(people);
        let more = json!({
            "messages_count": self.messages_count,
            "comments_count": self.comments_count,
            "attachments_count": self.attachments_count,
            "snoozed_until": (self.status == "snoozed").then_some("2030-01-01T08:00:00Z"),
            "messages_url": format!("{api}/conversations/{}/messages", self.slug),
            "created_at": seconds(self.created_at),
            "updated_at": seconds(self.updated_at),
        });
        if let (Value::Object(shown), Value::Object(more)) = (&mut shown, more) {
            shown.extend(more);
        }
        shown
    }

    /// The conversation as webhooks show it.
    pub(super) fn to_event_json(&self, people: &People) -> Value {
        json!({
            "id": self.slug,
            "subject": self.subject,
            "status": self.status,
            "labels": people.labels_json(&self.labels),
            "mailboxes": self.mailboxes.iter().filter_map(|id| people::mailbox_json(*id)).collect::<Vec<_>>(),
            "assignees": people.assignees_json(&self.assignees),
            "url": self.url(),
            "last_message_at": seconds(self.last_message_at),
        })
    }
}

/// A time as the service writes it: whole seconds.
pub(super) fn seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}
