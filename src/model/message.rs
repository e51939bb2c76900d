//! A message as a payload showed it, reduced to what filters and the journal need.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::AttachmentId;

/// Who sent a message: someone outside to the team, or the team.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Mail that came in.
    Inbound,
    /// Mail that the team sent.
    Outbound,
}

/// The conversation that a message belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conversation {
    /// Its slug.
    pub id: Option<String>,
    /// Its subject.
    pub subject: Option<String>,
    /// The names of its labels.
    #[serde(default)]
    pub labels: Vec<String>,
    /// The names of its mailboxes.
    #[serde(default)]
    pub mailboxes: Vec<String>,
}

/// One attachment as a message declared it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The stable id.
    pub id: AttachmentId,
    /// The file name, as it came: hostile until sanitised.
    pub name: Option<String>,
    /// The declared media type.
    pub content_type: Option<String>,
    /// The declared size in bytes; `None` where it is missing, negative or no number below 2^63.
    pub size_bytes: Option<u64>,
    /// Whether the HTML body refers to it; a missing mark counts as `false`.
    #[serde(default)]
    pub inline: bool,
}

/// One message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its id.
    pub id: Option<String>,
    /// Its subject.
    pub subject: Option<String>,
    /// The senders' addresses.
    #[serde(default)]
    pub from: Vec<String>,
    /// The receivers' addresses.
    #[serde(default)]
    pub to: Vec<String>,
    /// The copied receivers' addresses.
    #[serde(default)]
    pub cc: Vec<String>,
    /// When it was sent, as it came (RFC 3339 from the service).
    pub sent_at: Option<String>,
    /// Which way it went.
    pub direction: Option<Direction>,
    /// Its conversation, where the payload told.
    #[serde(skip)]
    pub conversation: Option<Conversation>,
    /// Its attachments, in order.
    #[serde(skip)]
    pub attachments: Vec<Attachment>,
}

/// Where a payload was read: the source's display name, the line (from 1) and the byte offset (from 0) at which it
/// begins, both counted in the decompressed text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// A path, or `-` for standard input.
    pub source: String,
    /// Counted from 1.
    pub line: u64,
    /// Counted from 0.
    pub byte_offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} (byte {})", self.source, self.line, self.byte_offset)
    }
}

/// One unit of Jelly content: an event, a message, or a conversation with its messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// Where it began.
    pub position: Position,
    /// The team that an inbox record names.
    pub team: Option<String>,
    /// The messages in it; none for an event without one.
    pub messages: Vec<Message>,
    /// Why single attachment entries in it could not be read. The rest of the payload counts.
    pub bad_attachments: Vec<String>,
    /// What its text is known again by, where it is all that its text holds.
    pub text: Option<[u8; 16]>,
}

impl Payload {
    /// What in it could not be read.
    pub fn rejects(&self) -> impl Iterator<Item = Reject> {
        self.bad_attachments.iter().map(|reason| Reject::new(self.position.clone(), reason.clone()))
    }
}

/// Something in a source that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    /// Where it began.
    pub position: Position,
    /// What is wrong with it.
    pub reason: String,
    /// Its first characters, printable, with secrets cut.
    pub excerpt: String,
}

impl Reject {
    /// A reject without an excerpt.
    pub fn new(position: Position, reason: String) -> Self {
        Self { position, reason, excerpt: String::new() }
    }
}
