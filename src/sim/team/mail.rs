//! A team's mail as it was at the start. It never changes.

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::Value;

use super::super::corpus::{CorpusConfig, Profile, plain, realistic};
use super::super::ids::IdKey;
use super::{Conversation, STATUSES};

/// See the module.
#[derive(Debug)]
pub(super) enum Mail {
    /// A function of its numbers.
    Plain { config: CorpusConfig, ids: IdKey },
    /// Conversations with their `messages`, and where each message is.
    Realistic { conversations: Vec<Value>, places: HashMap<String, (u64, u64)> },
}

impl Mail {
    /// The mail of a team; realistic mail is made here, all of it.
    pub(super) fn new(config: &CorpusConfig) -> Self {
        match config.profile {
            Profile::Plain => Self::Plain { config: config.clone(), ids: IdKey::new(config.seed, &config.team) },
            Profile::Realistic => {
                let conversations = realistic::all(config);
                let mut places = HashMap::new();
                for (number, conversation) in (0..).zip(&conversations) {
                    for (index, message) in (0..).zip(messages_of(conversation)) {
                        places.insert(text(message, "id").to_owned(), (number, index));
                    }
                }
                Self::Realistic { conversations, places }
            }
        }
    }

    /// How many conversations there are.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Plain { config, .. } => config.messages.div_ceil(per_conversation(config)),
            Self::Realistic { conversations, .. } => conversations.len() as u64,
        }
    }

    /// The id of a conversation, also of one that is yet to come.
    pub(super) fn slug(&self, number: u64) -> String {
        match self {
            Self::Plain { .. } => format!("c{number}"),
            Self::Realistic { .. } => format!("c{number:05}"),
        }
    }

    /// The number of a conversation's id, whether or not there is one.
    pub(super) fn number(&self, slug: &str) -> Option<u64> {
        let number = slug.strip_prefix('c')?.parse().ok()?;
        (self.slug(number) == slug).then_some(number)
    }

    /// The id of message `number` of the team, also of one that is yet to come.
    pub(super) fn message_id(&self, number: u64) -> String {
        match self {
            Self::Plain { .. } => format!("m{number}"),
            Self::Realistic { .. } => format!("msg_{number:06}"),
        }
    }

    /// How many messages there are.
    pub(super) fn messages(&self) -> u64 {
        match self {
            Self::Plain { config, .. } => config.messages,
            Self::Realistic { places, .. } => places.len() as u64,
        }
    }

    /// One of the conversations.
    pub(super) fn conversation(&self, number: u64) -> Conversation {
        let (subject, status, labels, mailboxes, times, counts);
        match self {
            Self::Plain { config, .. } => {
                let per = per_conversation(config);
                let (first, end) = (number * per, ((number + 1) * per).min(config.messages));
                subject = format!("Message {first}");
                status = plain_status(number);
                (labels, mailboxes) = (Vec::new(), vec![1]);
                times = (plain::sent_at(config, first), plain::sent_at(config, end - 1));
                counts = (end - first, (end - first) * plain::attachments_of(config, first));
            }
            Self::Realistic { conversations, .. } => {
                let found = &conversations[usize::try_from(number).unwrap_or(usize::MAX)];
                let ids = |name: &str| {
                    let entries = found[name].as_array().into_iter().flatten();
                    entries.filter_map(|entry| entry["id"].as_u64()).collect()
                };
                let time = |message: Option<&Value>| {
                    let time = message.and_then(|message| text(message, "sent_at").parse().ok());
                    time.unwrap_or(Timestamp::UNIX_EPOCH)
                };
                let messages = messages_of(found);
                subject = text(found, "subject").to_owned();
                status = STATUSES.into_iter().find(|status| *status == text(found, "status")).unwrap_or("open");
                (labels, mailboxes) = (ids("labels"), ids("mailboxes"));
                times = (time(messages.first()), time(messages.last()));
                let files = messages.iter().filter_map(|message| message["attachments_count"].as_u64()).sum();
                counts = (messages.len() as u64, files);
            }
        }
        Conversation {
            number,
            slug: self.slug(number),
            subject,
            status,
            labels,
            mailboxes,
            assignees: Vec::new(),
            messages_count: counts.0,
            comments_count: 0,
            attachments_count: counts.1,
            created_at: times.0,
            updated_at: times.1,
            last_message_at: times.1,
            rank: number,
        }
    }

    /// Message `index` of a conversation.
    pub(super) fn message(&self, conversation: u64, index: u64) -> Value {
        match self {
            Self::Plain { config, ids } => plain::message(config, ids, conversation * per_conversation(config) + index),
            Self::Realistic { conversations, .. } => {
                let at = |number| usize::try_from(number).unwrap_or(usize::MAX);
                messages_of(&conversations[at(conversation)])[at(index)].clone()
            }
        }
    }

    /// The conversation of a message, and its place in it.
    pub(super) fn find(&self, id: &str) -> Option<(u64, u64)> {
        match self {
            Self::Plain { config, .. } => {
                let number: u64 = id.strip_prefix('m')?.parse().ok()?;
                let per = per_conversation(config);
                (number < config.messages && self.message_id(number) == id).then_some((number / per, number % per))
            }
            Self::Realistic { places, .. } => places.get(id).copied(),
        }
    }
}

fn per_conversation(config: &CorpusConfig) -> u64 {
    config.messages_per_conversation.max(1)
}

/// Most are open or archived, as in realistic mail; a few are something else.
const fn plain_status(number: u64) -> &'static str {
    match number % 30 {
        7 => STATUSES[2],
        17 => STATUSES[3],
        28 => STATUSES[4],
        rest if rest % 3 == 0 => STATUSES[0],
        _ => STATUSES[1],
    }
}

/// The messages of a conversation of realistic mail.
pub(super) fn messages_of(conversation: &Value) -> &[Value] {
    conversation["messages"].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}
