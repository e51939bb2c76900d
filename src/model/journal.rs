//! The lines of the journal (v1). Fields that are not known here are kept in `extra`, so that a rewrite loses nothing.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Attachment, AttachmentId, Conversation, Message, TeamKey, WriterId};
use crate::digest::Digest;

/// The version of the archive's format that this program writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// A line or marker that a newer program wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("format version {0} is newer than this jellyjar understands ({FORMAT_VERSION}); install a newer jellyjar")]
pub struct UnsupportedVersion(pub u32);

/// Which of the two streams of the journal a segment belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// `messages/`: what was seen.
    Messages,
    /// `outcomes/`: what became of each attachment.
    Outcomes,
}

impl Stream {
    /// Both streams, messages first: an outcome never comes before the message that carries it.
    pub const ALL: [Self; 2] = [Self::Messages, Self::Outcomes];

    /// The first segment of its keys.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Outcomes => "outcomes",
        }
    }
}

/// A segment that another one replaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRef {
    /// Its key in the archive.
    pub key: String,
    /// The digest of its bytes.
    pub sha256: Digest,
}

/// The first line of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentHeader {
    /// [`FORMAT_VERSION`].
    pub v: u32,
    /// Always `segment`.
    pub kind: String,
    /// Which stream it belongs to.
    pub stream: Stream,
    /// Who wrote it.
    pub writer_id: WriterId,
    /// Its place, from 0, among this writer's segments of this stream.
    pub seq: u64,
    /// The digest of the whole segment before it in that order; `None` on the first.
    pub previous_sha256: Option<Digest>,
    /// The segments that it replaces.
    #[serde(default)]
    pub supersedes: Vec<SegmentRef>,
    /// Fields of newer programs.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One message that has attachments: every input of a filter rule, and every link from a message to a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageLine {
    /// [`FORMAT_VERSION`].
    pub v: u32,
    /// Always `message`.
    pub kind: String,
    /// The team's `archive_key`.
    pub team: TeamKey,
    /// When it was read.
    pub at: Timestamp,
    /// The message.
    pub message: Message,
    /// Its conversation.
    pub conversation: Option<Conversation>,
    /// Its attachments.
    pub attachments: Vec<Attachment>,
    /// Fields of newer programs.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl MessageLine {
    /// Makes the line of one message.
    pub fn new(team: TeamKey, at: Timestamp, mut message: Message) -> Self {
        let conversation = message.conversation.take();
        let attachments = std::mem::take(&mut message.attachments);
        Self {
            v: FORMAT_VERSION,
            kind: "message".into(),
            team,
            at,
            message,
            conversation,
            attachments,
            extra: Map::new(),
        }
    }

    /// Puts the parts of the line together again as the message that filters take.
    pub fn into_message(self) -> Message {
        Message { conversation: self.conversation, attachments: self.attachments, ..self.message }
    }
}

/// A line that tells its format's version.
pub trait Versioned {
    /// The version that wrote it.
    fn version(&self) -> u32;
}

impl Versioned for MessageLine {
    fn version(&self) -> u32 {
        self.v
    }
}

impl Versioned for OutcomeLine {
    fn version(&self) -> u32 {
        self.v
    }
}

/// What became of an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutcomeKind {
    /// Its bytes are a blob of the archive.
    Archived,
    /// A filter rule decided against it.
    Skipped,
    /// It could not be fetched, for good.
    Failed,
    /// It was fetched, but contradicts what was declared; a person decides.
    Quarantined,
    /// It was erased on request, and stays so.
    Erased,
}

impl OutcomeKind {
    /// The word for it in journal, catalog and output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Archived => "archived",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::Quarantined => "quarantined",
            Self::Erased => "erased",
        }
    }
}

/// One outcome. Merged by (team, attachment): `erased` wins, then `archived`, then the highest generation (then `at`,
/// then `writer_id`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeLine {
    /// [`FORMAT_VERSION`].
    pub v: u32,
    /// What became of it.
    pub kind: OutcomeKind,
    /// The team's `archive_key`.
    pub team: TeamKey,
    /// The attachment's stable id.
    pub attachment_id: AttachmentId,
    /// The number of the lease grant (or decision) that led here; later ones are higher.
    pub generation: u64,
    /// Who wrote it.
    pub writer_id: WriterId,
    /// When it was decided.
    pub at: Timestamp,
    /// The blob's name (archived) or the quarantined bytes' name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    /// The size of those bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// The media type that the bytes show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sniffed_type: Option<String>,
    /// The filter rule that decided (skipped).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Why (failed, quarantined), or by whose leave (archived after `accept`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Fields of newer programs.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_of_an_outcome_line_survive_a_rewrite() {
        let line = r#"{"v":1,"kind":"failed","team":"default","attachment_id":"a","generation":7,"writer_id":"w","at":"2026-11-22T10:00:00Z","reason":"gone","later":{"x":1}}"#;
        let parsed: OutcomeLine = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&parsed).unwrap(), line);
    }

    #[test]
    fn a_message_line_gives_back_the_message_it_was_made_of() {
        let message = Message {
            id: Some("m1".into()),
            conversation: Some(Conversation { labels: vec!["Bug".into()], ..Conversation::default() }),
            attachments: vec![Attachment {
                id: "a1".to_owned().try_into().unwrap(),
                name: None,
                content_type: None,
                size_bytes: Some(3),
                inline: false,
            }],
            ..Message::default()
        };
        let line = MessageLine::new("default".parse().unwrap(), Timestamp::UNIX_EPOCH, message.clone());
        let text = serde_json::to_string(&line).unwrap();
        assert_eq!(serde_json::from_str::<MessageLine>(&text).unwrap().into_message(), message);
    }
}
