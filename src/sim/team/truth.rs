//! What an archive must hold in the end: every attachment that is not inline wherever it occurs.

use std::collections::HashSet;

use serde::Serialize;
use serde_json::Value;

use super::super::corpus::plain;
use super::Team;
use super::mail::{Mail, messages_of};

/// An attachment that belongs into the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Known {
    /// Its id.
    pub id: String,
    /// Its size.
    pub byte_size: u64,
    /// A message that brings it as a file.
    pub message_id: String,
    /// That message's conversation.
    pub conversation_id: String,
    /// Whether it came after the start.
    pub arrived: bool,
}

impl Team {
    /// All attachments that are not inline wherever they occur, each once.
    pub(in crate::sim) fn truth(&self) -> Vec<Known> {
        let changes = &*self.changes();
        let mut found = Found::default();
        match self.mail() {
            Mail::Plain { config, ids } => {
                for number in 0..config.messages {
                    for blob in plain::blobs_of(config, number) {
                        found.known.push(Known {
                            id: ids.mint(blob),
                            byte_size: blob.size_bytes,
                            message_id: self.mail().message_id(number),
                            conversation_id: self.mail().slug(number / config.messages_per_conversation.max(1)),
                            arrived: false,
                        });
                    }
                }
            }
            Mail::Realistic { conversations, .. } => {
                conversations.iter().flat_map(messages_of).for_each(|message| found.add(message, false));
            }
        }
        let mut arrived: Vec<_> = changes.places.iter().collect();
        arrived.sort_unstable();
        for (_, (conversation, index)) in arrived {
            let message = changes.arrived.get(conversation).and_then(|messages| messages.get(*index));
            if let Some(message) = message {
                found.add(message, true);
            }
        }
        found.known
    }
}

#[derive(Default)]
struct Found {
    known: Vec<Known>,
    seen: HashSet<String>,
}

impl Found {
    fn add(&mut self, message: &Value, arrived: bool) {
        let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
        for file in message["attachments"].as_array().into_iter().flatten() {
            let id = text(file, "id");
            if file["inline"] == true || !self.seen.insert(id.clone()) {
                continue;
            }
            self.known.push(Known {
                id,
                byte_size: file["byte_size"].as_u64().unwrap_or(0),
                message_id: text(message, "id"),
                conversation_id: text(message, "conversation_id"),
                arrived,
            });
        }
    }
}
