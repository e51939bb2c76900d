//! New mail: a message in a conversation that is there, which jumps to the top of the feed, or a new conversation.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::content::Kind;
use super::super::corpus::mail::{CONTACTS, MAILBOXES};
use super::super::ids::{Blob, IdKey};
use super::super::random::mix2;
use super::{Conversation, Team, seconds};

/// Attachments that come after the start are numbered from here on.
const FIRST_FILE: u64 = 100_000_000;

/// Mail that is to arrive. In JSON, every field may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Delivery {
    /// The conversation it belongs to; none draws one from the seed.
    pub conversation: Option<String>,
    /// Whether it begins a new conversation.
    pub new: bool,
    /// How many files it brings.
    pub attachments: u64,
    /// How many inline images it brings besides.
    pub inline: u64,
    /// Whether the webhook tells of it, if there is one.
    pub webhook: bool,
}

impl Default for Delivery {
    fn default() -> Self {
        Self { conversation: None, new: false, attachments: 1, inline: 0, webhook: true }
    }
}

/// Mail that arrives while the API is used. Every fourth message begins a new conversation, the others come into one
/// that the seed draws.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// After how many requests to the API a message comes.
    pub every: u64,
    /// How many come in all.
    #[serde(default = "unlimited")]
    pub count: u64,
    /// What each is like.
    #[serde(default)]
    pub mail: Delivery,
}

const fn unlimited() -> u64 {
    u64::MAX
}

/// A message that arrived.
#[derive(Debug)]
pub(in crate::sim) struct Arrival {
    pub(in crate::sim) message: Value,
    /// The body of the webhook that tells of it.
    pub(in crate::sim) event: String,
}

impl Team {
    /// Lets a message arrive; `None` if there is no such conversation.
    pub(in crate::sim) fn arrive(&self, delivery: &Delivery, ids: &IdKey, now: Timestamp) -> Option<Arrival> {
        let changes = &mut *self.changes();
        let draw = mix2(self.config.seed ^ 0x6d61_696c, changes.arrivals);
        let new_conversations = changes.moved.values().filter(|number| **number >= self.mail().len()).count() as u64;
        let total = self.mail().len() + new_conversations;
        let known = match &delivery.conversation {
            Some(slug) => Some(self.conversation(changes, slug)?),
            None if delivery.new || total == 0 => None,
            None => self.numbered(changes, draw % total),
        };
        let is_new_conversation = known.is_none();
        let mut conversation = known.unwrap_or_else(|| Conversation {
            number: total,
            slug: self.mail().slug(total),
            subject: format!("New matter {total}"),
            status: "open",
            labels: Vec::new(),
            mailboxes: vec![u64::from(MAILBOXES[0].0)],
            assignees: Vec::new(),
            messages_count: 0,
            comments_count: 0,
            attachments_count: 0,
            created_at: now,
            updated_at: now,
            last_message_at: now,
            rank: u64::MAX,
        });

        let id = self.mail().message_id(self.mail().messages() + changes.arrivals);
        let files: Vec<_> = (0..delivery.attachments + delivery.inline)
            .map(|index| {
                let inline = index >= delivery.attachments;
                let number = FIRST_FILE + changes.arrived_files + index;
                let size_bytes = 1 + mix2(draw, index) % 16_384;
                let id = ids.mint(Blob { number, kind: Kind::Plain, content: number, size_bytes });
                json!({
                    "id": id,
                    "filename": if inline { "signature.png".to_owned() } else { format!("arrived-{number}.bin") },
                    "content_type": if inline { "image/png" } else { "application/octet-stream" },
                    "byte_size": size_bytes,
                    "inline": inline,
                    "url": format!("{}/attachments/{id}", self.config.url_base),
                })
            })
            .collect();
        let contact = CONTACTS[usize::try_from(draw % CONTACTS.len() as u64).unwrap_or(0)];
        let time = seconds(now);
        let message = json!({
            "id": id,
            "conversation_id": conversation.slug,
            "subject": if is_new_conversation { conversation.subject.clone() } else { format!("Re: {}", conversation.subject) },
            "inbound": true,
            "sent_at": time,
            "created_at": time,
            "url": format!("{}#{id}", conversation.url()),
            "from": [contact.1],
            "to": ["team@harbour.example"],
            "cc": [],
            "html_body": "<p>New mail.</p>",
            "text_body": "New mail.",
            "attachments_count": files.len(),
            "attachments": files,
            "sender": { "type": "contact", "email": contact.1 },
        });

        changes.moved.remove(&conversation.rank);
        conversation.rank = self.mail().len() + changes.arrivals;
        changes.moved.insert(conversation.rank, conversation.number);
        changes.arrivals += 1;
        changes.arrived_files += files.len() as u64;
        conversation.messages_count += 1;
        conversation.attachments_count += files.len() as u64;
        (conversation.updated_at, conversation.last_message_at) = (now, now);
        let arrived = changes.arrived.entry(conversation.number).or_default();
        changes.places.insert(id, (conversation.number, arrived.len()));
        arrived.push(message.clone());
        let event = json!({
            "event": "new_message",
            "created_at": time,
            "data": {
                "message": message,
                "conversation": conversation.to_event_json(&changes.people),
                "is_new_conversation": is_new_conversation,
            },
        });
        changes.conversations.insert(conversation.number, conversation);
        // Escaped for HTML as Rails does it; these characters stand in strings only.
        let event = event.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
        Some(Arrival { message, event })
    }
}
