//! What the service speaks of. Every field but an id may be missing or of another kind than documented; what is not
//! documented is kept in `other`.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::lenient;
use crate::model::{AttachmentId, InvalidId};

/// An id of a conversation, a label, a member and the like: a number in some answers, text in others. Fit for one
/// segment of a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(String);

impl Id {
    /// The longest id that is accepted, in bytes.
    pub const MAX_BYTES: usize = 1024;

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Id {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        if text.is_empty() {
            return Err(InvalidId("the id is empty".into()));
        }
        if text.len() > Self::MAX_BYTES {
            return Err(InvalidId(format!("the id is {} bytes long; {} are allowed", text.len(), Self::MAX_BYTES)));
        }
        if text == "." || text == ".." {
            // RFC 3986 §5.2.4: a dot segment would be removed from the request path, encoded or not.
            return Err(InvalidId("the id is a dot segment, which no URL can carry".into()));
        }
        Ok(Self(text))
    }
}

impl std::str::FromStr for Id {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        text.to_owned().try_into()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&Id> for Value {
    fn from(id: &Id) -> Self {
        match id.0.parse::<u64>() {
            Ok(number) if number.to_string() == id.0 => Self::from(number),
            _ => Self::from(id.0.as_str()),
        }
    }
}

impl Serialize for Id {
    /// A number where the text is one, as the vendor's examples write ids in requests.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Value::from(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let text = match Value::deserialize(deserializer)? {
            Value::String(text) => text,
            // Another number has lost digits already.
            Value::Number(number) if number.is_u64() || number.is_i64() => number.to_string(),
            _ => return Err(D::Error::custom("the id is neither text nor a whole number")),
        };
        Self::try_from(text).map_err(D::Error::custom)
    }
}

/// A label, of a team or on a conversation or contact.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Label {
    /// Its id; labels on a contact have none.
    #[serde(default, deserialize_with = "lenient::one")]
    pub id: Option<Id>,
    /// Its name, unique in the team.
    #[serde(default, deserialize_with = "lenient::text")]
    pub name: Option<String>,
    /// Its color, by name.
    #[serde(default, deserialize_with = "lenient::text")]
    pub color: Option<String>,
    /// Every other field.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A person of the team.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Member {
    /// The id of the membership, which stands wherever a `member_id` is asked for.
    pub id: Id,
    /// The person's name.
    #[serde(default, deserialize_with = "lenient::text")]
    pub name: Option<String>,
    /// The address of the person's account.
    #[serde(default, deserialize_with = "lenient::text")]
    pub email: Option<String>,
    /// `owner`, `member`, or another.
    #[serde(default, deserialize_with = "lenient::text")]
    pub role: Option<String>,
    /// Whether the membership is active.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub active: Option<bool>,
    /// Every other field.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A mailbox: an address that the team shares.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Mailbox {
    /// Its id.
    pub id: Id,
    /// Its name.
    #[serde(default, deserialize_with = "lenient::text")]
    pub name: Option<String>,
    /// Its address.
    #[serde(default, deserialize_with = "lenient::text")]
    pub email: Option<String>,
    /// Every other field.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A conversation, as lists show it, or with its messages.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Conversation {
    /// Its slug.
    pub id: Id,
    /// Its subject.
    #[serde(default, deserialize_with = "lenient::text")]
    pub subject: Option<String>,
    /// `open`, `archived`, `snoozed`, `spam`, `trash`, or another.
    #[serde(default, deserialize_with = "lenient::text")]
    pub status: Option<String>,
    /// Its labels.
    #[serde(default, deserialize_with = "lenient::list")]
    pub labels: Vec<Label>,
    /// Its mailboxes.
    #[serde(default, deserialize_with = "lenient::list")]
    pub mailboxes: Vec<Mailbox>,
    /// Who it is assigned to.
    #[serde(default, deserialize_with = "lenient::list")]
    pub assignees: Vec<Member>,
    /// How many messages it has.
    #[serde(default, deserialize_with = "lenient::count")]
    pub messages_count: Option<u64>,
    /// How many comments it has.
    #[serde(default, deserialize_with = "lenient::count")]
    pub comments_count: Option<u64>,
    /// How many attachments its messages have.
    #[serde(default, deserialize_with = "lenient::count")]
    pub attachments_count: Option<u64>,
    /// When it was made, as the service wrote it.
    #[serde(default, deserialize_with = "lenient::text")]
    pub created_at: Option<String>,
    /// When it was changed last, as the service wrote it.
    #[serde(default, deserialize_with = "lenient::text")]
    pub updated_at: Option<String>,
    /// When its last message came or went, as the service wrote it.
    #[serde(default, deserialize_with = "lenient::text")]
    pub last_message_at: Option<String>,
    /// Its page for people.
    #[serde(default, deserialize_with = "lenient::text")]
    pub url: Option<String>,
    /// Its messages; lists leave them out.
    #[serde(default, deserialize_with = "lenient::list")]
    pub messages: Vec<Message>,
    /// Every other field.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Conversation {
    /// When something happened in it last: the latest of its times that can be read.
    pub fn last_activity(&self) -> Option<Timestamp> {
        let times = [&self.last_message_at, &self.updated_at, &self.created_at];
        times.into_iter().flatten().filter_map(|time| time.parse().ok()).max()
    }
}

/// A message: mail, or a draft of it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Message {
    /// Its id.
    pub id: Id,
    /// The slug of its conversation.
    #[serde(default, deserialize_with = "lenient::one")]
    pub conversation_id: Option<Id>,
    /// Its subject.
    #[serde(default, deserialize_with = "lenient::text")]
    pub subject: Option<String>,
    /// Whether it came in.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub inbound: Option<bool>,
    /// When it was sent, as the service wrote it; a draft was not.
    #[serde(default, deserialize_with = "lenient::text")]
    pub sent_at: Option<String>,
    /// When it was made, as the service wrote it.
    #[serde(default, deserialize_with = "lenient::text")]
    pub created_at: Option<String>,
    /// The senders' addresses, some as `Name <address>`.
    #[serde(default, deserialize_with = "lenient::addresses")]
    pub from: Vec<String>,
    /// The receivers' addresses.
    #[serde(default, deserialize_with = "lenient::addresses")]
    pub to: Vec<String>,
    /// The copied receivers' addresses.
    #[serde(default, deserialize_with = "lenient::addresses")]
    pub cc: Vec<String>,
    /// Who wrote it.
    #[serde(default, deserialize_with = "lenient::one")]
    pub sender: Option<Sender>,
    /// Its page for people.
    #[serde(default, deserialize_with = "lenient::text")]
    pub url: Option<String>,
    /// Its text as HTML.
    #[serde(default, deserialize_with = "lenient::text")]
    pub html_body: Option<String>,
    /// Its text.
    #[serde(default, deserialize_with = "lenient::text")]
    pub text_body: Option<String>,
    /// How many attachments it has.
    #[serde(default, deserialize_with = "lenient::count")]
    pub attachments_count: Option<u64>,
    /// Its attachments.
    #[serde(default, deserialize_with = "lenient::list")]
    pub attachments: Vec<MessageAttachment>,
    /// Every other field.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A comment on a conversation, seen by the team alone.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Comment {
    /// Its id.
    #[serde(default, deserialize_with = "lenient::one")]
    pub id: Option<Id>,
    /// Its text.
    #[serde(default, deserialize_with = "lenient::text")]
    pub body: Option<String>,
    /// When it was made, as the service wrote it.
    #[serde(default, deserialize_with = "lenient::text")]
    pub created_at: Option<String>,
    /// Every other field.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Someone outside that the team writes with.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Contact {
    /// The id.
    #[serde(default, deserialize_with = "lenient::one")]
    pub id: Option<Id>,
    /// The name.
    #[serde(default, deserialize_with = "lenient::text")]
    pub name: Option<String>,
    /// The address.
    #[serde(default, deserialize_with = "lenient::text")]
    pub email: Option<String>,
    /// The page for people.
    #[serde(default, deserialize_with = "lenient::text")]
    pub url: Option<String>,
    /// A note about the contact, seen by the team alone. May hold HTML.
    #[serde(default, deserialize_with = "lenient::text")]
    pub note: Option<String>,
    /// The links of the contact.
    #[serde(default, deserialize_with = "lenient::list")]
    pub links: Vec<ContactLink>,
    /// The labels of the contact.
    #[serde(default, deserialize_with = "lenient::list")]
    pub labels: Vec<Label>,
    /// Every other field.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A link of a contact.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ContactLink {
    /// What it is called.
    #[serde(default, deserialize_with = "lenient::text")]
    pub title: Option<String>,
    /// Where it leads.
    #[serde(default, deserialize_with = "lenient::text")]
    pub url: Option<String>,
    /// Every other field.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Who wrote a message: a `member` of the team, a `contact`, or the `system`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Sender {
    /// `member`, `contact`, `system`, or another.
    #[serde(default, rename = "type", deserialize_with = "lenient::text")]
    pub kind: Option<String>,
    /// A member's id.
    #[serde(default, deserialize_with = "lenient::one")]
    pub id: Option<Id>,
    /// The name.
    #[serde(default, deserialize_with = "lenient::text")]
    pub name: Option<String>,
    /// The address.
    #[serde(default, deserialize_with = "lenient::text")]
    pub email: Option<String>,
    /// Every other field.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// An attachment as a message shows it. Its `url` is not read: the way to the file is [`super::JellyClient::exchange`].
#[derive(Clone, PartialEq, Deserialize)]
pub struct MessageAttachment {
    /// The stable id.
    pub id: AttachmentId,
    /// The file's name, as it came: hostile until sanitised.
    #[serde(default, deserialize_with = "lenient::text")]
    pub filename: Option<String>,
    /// The media type.
    #[serde(default, deserialize_with = "lenient::text")]
    pub content_type: Option<String>,
    /// The size.
    #[serde(default, deserialize_with = "lenient::count")]
    pub byte_size: Option<u64>,
    /// Whether the HTML text refers to it.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub inline: Option<bool>,
    /// Every other field; a `url` in it holds the id.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl fmt::Debug for MessageAttachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("MessageAttachment");
        shown.field("id", &self.id).field("filename", &self.filename).field("byte_size", &self.byte_size);
        shown.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
