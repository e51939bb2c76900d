//! Finds Jelly content in one JSON value: webhook envelopes, messages, conversations, API pages, inbox records, and log
//! records that carry one of those.

use super::fields::{self, Key, Object};
use super::inbox;
use super::scan;
use super::value::Value;
use crate::model::Message;

/// How deep in a log record content is looked for.
const MAX_SEARCH_DEPTH: u32 = 32;
/// The events that the service is known to send.
const KNOWN_EVENTS: &[&str] =
    &[NEW_MESSAGE, "assigned", "comment_added", "conversation_archived", "conversation_unarchived"];
/// The event that brings mail: without a message it has lost it on the way.
const NEW_MESSAGE: &str = "new_message";
const WITHOUT_MESSAGE: &str = "the event new_message carries no message";
const ENVELOPE_KEYS: &[Key] = &[Key::Event, Key::Data];
const DATA_KEYS: &[Key] = &[Key::Message, Key::Conversation, Key::Messages];

/// What is known of a value from where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Context {
    /// Nothing.
    Any,
    /// An element of a page's `messages`.
    Message,
    /// An element of a page's `conversations`.
    Conversation,
}

/// One unit that was found in a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Where it begins in the value's text.
    pub(super) offset: usize,
    /// What it is.
    pub(super) unit: Unit,
}

/// See [`Found`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Jelly content.
    Content {
        /// The team that an inbox record names.
        team: Option<String>,
        /// Its messages.
        messages: Vec<Message>,
        /// Why single attachments could not be read.
        bad_attachments: Vec<String>,
    },
    /// JSON, but no Jelly content.
    Ignored,
    /// Jelly content that cannot be read, and why.
    Bad(String),
}

/// Finds the units in `text`, one valid JSON value whose containers were noted: at least one.
pub(super) fn interpret(text: &str, containers: &scan::Containers, context: Context, found: &mut Vec<Found>) {
    found.clear();
    let mut search = Search { base: text.as_ptr() as usize, fixed_offset: None, team: None, found };
    let value = Value::scanned(text, containers);
    match context {
        Context::Any => search.value(value, 0),
        Context::Message | Context::Conversation => search.page_element(value, context),
    }
    if found.is_empty() {
        found.push(Found { offset: 0, unit: Unit::Ignored });
    }
}

struct Search<'f> {
    /// The address of the text, from which offsets are counted.
    base: usize,
    /// The offset that counts for everything inside a string.
    fixed_offset: Option<usize>,
    team: Option<String>,
    found: &'f mut Vec<Found>,
}

/// What a unit is made of, or why it cannot be.
type Content = Result<(Vec<Message>, Vec<String>), String>;

impl Search<'_> {
    fn offset(&self, value: Value<'_>) -> usize {
        self.fixed_offset.unwrap_or_else(|| (value.text().as_ptr() as usize).saturating_sub(self.base))
    }

    fn push(&mut self, value: Value<'_>, content: Content) {
        let unit = match content {
            Ok((messages, bad_attachments)) => Unit::Content { team: self.team.clone(), messages, bad_attachments },
            Err(reason) => Unit::Bad(reason),
        };
        self.found.push(Found { offset: self.offset(value), unit });
    }

    /// Looks at any value; pushes nothing if there is no content in it.
    fn value(&mut self, value: Value<'_>, depth: u32) {
        if depth > MAX_SEARCH_DEPTH {
            if value.text().contains("attachments") {
                self.push(
                    value,
                    Err(format!("it lies more than {MAX_SEARCH_DEPTH} levels deep, where nothing is searched")),
                );
            }
            return;
        }
        if let Some(object) = Object::read(value) {
            self.object(&object, depth);
        } else if value.is_array() {
            for (_, element) in value.entries() {
                self.value(element, depth + 1);
            }
        } else if value.text().len() > 2 {
            self.string(value, depth);
        }
    }

    fn object(&mut self, object: &Object<'_>, depth: u32) {
        let value = object.value();
        if is_inbox_record(object) {
            self.inbox_record(object, depth);
        } else if is_envelope(object) {
            let content = object.require_single(ENVELOPE_KEYS).and_then(|()| match object.object(Key::Data) {
                Some(data) => data_content(&data),
                None => Ok((Vec::new(), Vec::new())),
            });
            let content = content.and_then(|(messages, bad)| {
                let is_lost = messages.is_empty() && bad.is_empty() && is_new_message(object);
                if is_lost { Err(WITHOUT_MESSAGE.into()) } else { Ok((messages, bad)) }
            });
            self.push(value, content);
        } else if object.object(Key::Message).is_some_and(|message| is_message(&message)) {
            self.push(value, data_content(object));
        } else if object.get(Key::Messages).is_some_and(Value::is_array) && object.get(Key::Id).is_some() {
            self.push(value, conversation_content(object));
        } else if is_page(object) {
            self.page(object);
        } else if is_message(object) {
            self.push(value, message_content(object));
        } else {
            for (_, field) in value.entries() {
                self.value(field, depth + 1);
            }
        }
    }

    fn page(&mut self, page: &Object<'_>) {
        if let Err(reason) = page.require_single(&[Key::Messages, Key::Conversations]) {
            self.push(page.value(), Err(reason));
            return;
        }
        for (key, context) in [(Key::Messages, Context::Message), (Key::Conversations, Context::Conversation)] {
            if let Some(list) = page.get(key).filter(|list| list.is_array()) {
                for (_, element) in list.entries() {
                    self.page_element(element, context);
                }
            }
        }
    }

    fn page_element(&mut self, value: Value<'_>, context: Context) {
        let object = Object::read(value).filter(|object| object.has(Key::Id) || object.has(Key::Attachments));
        match object {
            Some(object) if context == Context::Conversation => self.push(value, conversation_content(&object)),
            Some(object) => self.push(value, message_content(&object)),
            None => self.found.push(Found { offset: self.offset(value), unit: Unit::Ignored }),
        }
    }

    fn inbox_record(&mut self, object: &Object<'_>, depth: u32) {
        let record = object.value();
        let body = match inbox::read(object) {
            Ok(body) => body,
            Err(reason) => return self.push(record, Err(reason)),
        };
        let outer = std::mem::replace(&mut self.team, body.team);
        let before = self.found.len();
        match &body.text {
            Some(text) => match scan::check(text) {
                Ok(()) => self.inside_string(record, text, depth),
                Err(reason) => self.push(record, Err(format!("the inbox record's body is no JSON: {reason}"))),
            },
            None => {
                if let Some(value) = object.get(Key::Body) {
                    self.value(value, depth + 1);
                }
            }
        }
        if self.found.len() == before {
            let value = body.text.as_deref().map(Value::new).or(object.get(Key::Body));
            // Whoever has sent it has signed it: it is no log line that looks like an event.
            let is_lost = value.and_then(Object::read).is_some_and(|body| is_new_message(&body));
            let unit = if is_lost { Unit::Bad(WITHOUT_MESSAGE.into()) } else { Unit::Ignored };
            self.found.push(Found { offset: self.offset(record), unit });
        }
        self.team = outer;
    }

    /// Looks into a string that may hold JSON.
    fn string(&mut self, value: Value<'_>, depth: u32) {
        let Some(text) = value.string() else { return };
        let text = text.content.trim_ascii();
        if !text.starts_with(['{', '[']) {
            return;
        }
        match scan::check(text) {
            Ok(()) => self.inside_string(value, text, depth),
            Err(reason) if text.contains("\"attachments\"") => {
                self.push(value, Err(format!("a string that looks like Jelly content is no whole JSON: {reason}")));
            }
            Err(_) => {}
        }
    }

    fn inside_string(&mut self, outer: Value<'_>, text: &str, depth: u32) {
        let before = self.fixed_offset.replace(self.offset(outer));
        self.value(Value::new(text), depth + 1);
        self.fixed_offset = before;
    }
}

fn is_inbox_record(object: &Object<'_>) -> bool {
    object.has(Key::V)
        && object.has(Key::Team)
        && object.has(Key::ReceivedAt)
        && (object.has(Key::Body) || object.has(Key::BodyBase64))
}

fn is_envelope(object: &Object<'_>) -> bool {
    let Some(event) = object.text(Key::Event) else { return false };
    let Some(data) = object.get(Key::Data).filter(|data| data.is_object()) else { return false };
    let holds_message = || Object::read(data)?.object(Key::Message).map(|message| is_message(&message));
    object.has(Key::CreatedAt) || KNOWN_EVENTS.contains(&event.as_str()) || holds_message() == Some(true)
}

fn is_new_message(object: &Object<'_>) -> bool {
    object.text(Key::Event).is_some_and(|event| event == NEW_MESSAGE)
}

fn is_page(object: &Object<'_>) -> bool {
    [Key::Messages, Key::Conversations].iter().any(|key| object.get(*key).is_some_and(Value::is_array))
}

/// Whether an object that stands anywhere shows itself as a message. Its own list of attachments says so, beside any
/// other field of a message; without one it needs an id and a field that hardly anything else has.
fn is_message(object: &Object<'_>) -> bool {
    let has_any = |keys: &[Key]| keys.iter().any(|key| object.has(*key));
    let distinct =
        [Key::HtmlBody, Key::TextBody, Key::Inbound, Key::AttachmentsCount, Key::SentAt, Key::ConversationId];
    if object.has(Key::Attachments) {
        let is_marked = has_any(&distinct) || has_any(&[Key::Id, Key::Subject, Key::From, Key::To]);
        let holds_ids = |list: Value<'_>| {
            list.is_array()
                && list.entries().any(|(_, entry)| Object::read(entry).is_some_and(|entry| entry.has(Key::Id)))
        };
        return is_marked || object.get(Key::Attachments).is_some_and(holds_ids);
    }
    object.has(Key::Id) && (has_any(&distinct) || object.has(Key::Subject) && has_any(&[Key::From, Key::To]))
}

fn message_content(object: &Object<'_>) -> Content {
    let mut bad = Vec::new();
    let message = fields::message(object, None, "", &mut bad)?;
    Ok((vec![message], bad))
}

/// The `data` of an envelope: a message, its conversation, or a conversation's messages.
fn data_content(data: &Object<'_>) -> Content {
    data.require_single(DATA_KEYS)?;
    let conversation = data.get(Key::Conversation);
    let context = conversation.map(fields::conversation).transpose()?.flatten();
    let mut bad = Vec::new();
    let mut messages = Vec::new();
    let inner = conversation.and_then(Object::read).and_then(|object| object.get(Key::Messages));
    if let Some(message) = data.object(Key::Message) {
        if inner.is_none() && !data.has(Key::Messages) {
            // The usual event, which needs no copy of the conversation. A list of one takes no more room than that: the
            // allocator sweeps up at every request that is large to it.
            return Ok((vec![fields::message(&message, context, "", &mut bad)?], bad));
        }
        messages.push(fields::message(&message, context.clone(), "", &mut bad)?);
    }
    for list in [data.get(Key::Messages), inner].into_iter().flatten() {
        read_messages(list, context.as_ref(), &mut messages, &mut bad)?;
    }
    Ok((messages, bad))
}

fn conversation_content(object: &Object<'_>) -> Content {
    let context = fields::conversation(object.value())?;
    let (mut messages, mut bad) = (Vec::new(), Vec::new());
    if let Some(list) = object.get(Key::Messages) {
        read_messages(list, context.as_ref(), &mut messages, &mut bad)?;
    }
    Ok((messages, bad))
}

fn read_messages(
    list: Value<'_>,
    context: Option<&crate::model::Conversation>,
    messages: &mut Vec<Message>,
    bad: &mut Vec<String>,
) -> Result<(), String> {
    if !list.is_array() {
        bad.push("messages: not a list".into());
        return Ok(());
    }
    for (index, (_, element)) in list.entries().enumerate() {
        match Object::read(element) {
            Some(object) => {
                let path = format!("messages[{index}].");
                let message = fields::message(&object, context.cloned(), &path, bad);
                messages.push(message.map_err(|reason| format!("messages[{index}]: {reason}"))?);
            }
            None => bad.push(format!("messages[{index}]: not an object")),
        }
    }
    Ok(())
}
