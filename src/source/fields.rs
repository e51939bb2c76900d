//! Reads the fields of messages, conversations and attachments, leniently: numbers where text comes and the reverse,
//! `null` and missing anything. Only a key that is repeated makes a unit unreadable.

use std::borrow::Cow;

use super::value::Value;
use crate::model::{Attachment, AttachmentId, Conversation, Direction, Message};

/// Declares the keys that are read at all.
macro_rules! keys {
    ($($variant:ident $name:literal),* $(,)?) => {
        /// A key that is read somewhere.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Key { $(#[doc = concat!("`", $name, "`.")] $variant),* }

        impl Key {
            const ALL: &'static [Self] = &[$(Self::$variant),*];

            fn of(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }

            /// The key as it is written.
            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }
    };
}

keys! {
    Id "id", Subject "subject", From "from", To "to", Cc "cc", SentAt "sent_at", CreatedAt "created_at",
    Inbound "inbound", Sender "sender", Attachments "attachments", AttachmentsCount "attachments_count",
    HtmlBody "html_body", TextBody "text_body", ConversationId "conversation_id", Conversation "conversation",
    Labels "labels", Mailboxes "mailboxes", Messages "messages", Conversations "conversations",
    Event "event", Data "data", Message "message", Filename "filename", Name "name", ContentType "content_type",
    ByteSize "byte_size", Size "size", Inline "inline", Email "email", Address "address",
    V "v", Team "team", ReceivedAt "received_at", Body "body", BodyBase64 "body_base64", Crc "crc",
}

const MESSAGE_KEYS: &[Key] = &[
    Key::Id,
    Key::Subject,
    Key::From,
    Key::To,
    Key::Cc,
    Key::SentAt,
    Key::CreatedAt,
    Key::Inbound,
    Key::Attachments,
    Key::ConversationId,
    Key::Conversation,
];
const ATTACHMENT_KEYS: &[Key] =
    &[Key::Id, Key::Filename, Key::Name, Key::ContentType, Key::ByteSize, Key::Size, Key::Inline];
const CONVERSATION_KEYS: &[Key] = &[Key::Id, Key::Subject, Key::Labels, Key::Mailboxes, Key::Messages];

/// One object: the values of the keys that are read, as they stand in the text.
#[derive(Debug)]
pub(super) struct Object<'a> {
    value: Value<'a>,
    fields: [Option<Value<'a>>; Key::ALL.len()],
    repeated: u64,
}

impl<'a> Object<'a> {
    /// Reads an object; `None` for other values.
    pub(super) fn read(value: Value<'a>) -> Option<Self> {
        if !value.is_object() {
            return None;
        }
        let mut object = Self { value, fields: [None; Key::ALL.len()], repeated: 0 };
        for (literal, field) in value.entries() {
            let plain = literal.get(1..literal.len() - 1).unwrap_or("");
            let key =
                if plain.contains('\\') { Key::of(&super::value::unescape(literal).content) } else { Key::of(plain) };
            if let Some(key) = key {
                let index = key as usize;
                object.repeated |= u64::from(object.fields[index].is_some()) << index;
                object.fields[index] = Some(field);
            }
        }
        Some(object)
    }

    /// The object as a value.
    pub(super) const fn value(&self) -> Value<'a> {
        self.value
    }

    /// The value of a key; `None` where it is missing or `null`.
    pub(super) fn get(&self, key: Key) -> Option<Value<'a>> {
        self.fields[key as usize].filter(|value| !value.is_null())
    }

    /// Whether a key is there, be it `null`.
    pub(super) const fn has(&self, key: Key) -> bool {
        self.fields[key as usize].is_some()
    }

    /// The object under a key.
    pub(super) fn object(&self, key: Key) -> Option<Self> {
        self.get(key).and_then(Object::read)
    }

    /// Text under a key.
    pub(super) fn text(&self, key: Key) -> Option<String> {
        self.get(key).and_then(text)
    }

    /// Fails if one of `keys` is repeated: nobody could say which of its values counts.
    pub(super) fn require_single(&self, keys: &[Key]) -> Result<(), String> {
        match keys.iter().find(|key| self.repeated >> **key as usize & 1 == 1) {
            Some(key) => Err(format!("duplicate field `{}`", key.name())),
            None => Ok(()),
        }
    }
}

/// A string's content, or a number or boolean as it was written.
fn text(value: Value<'_>) -> Option<String> {
    plain(value).map(Cow::into_owned)
}

/// Like [`text`], without a copy where that can be.
fn plain(value: Value<'_>) -> Option<Cow<'_, str>> {
    match value.string() {
        Some(text) => Some(text.content),
        None if value.is_null() || value.is_object() || value.is_array() => None,
        None => Some(Cow::Borrowed(value.text())),
    }
}

/// A conversation's own fields. A bare string or number is its id.
pub(super) fn conversation(value: Value<'_>) -> Result<Option<Conversation>, String> {
    let Some(object) = Object::read(value) else {
        return Ok(text(value).map(|id| Conversation { id: Some(id), ..Conversation::default() }));
    };
    object.require_single(CONVERSATION_KEYS)?;
    Ok(Some(Conversation {
        id: object.text(Key::Id),
        subject: object.text(Key::Subject),
        labels: names(object.get(Key::Labels)),
        mailboxes: names(object.get(Key::Mailboxes)),
    }))
}

/// A message. `context` is the conversation that stands around it; `path` names it in reasons; attachments that cannot
/// be read go to `bad`.
pub(super) fn message(
    object: &Object<'_>,
    context: Option<Conversation>,
    path: &str,
    bad: &mut Vec<String>,
) -> Result<Message, String> {
    object.require_single(MESSAGE_KEYS)?;
    let own = object.get(Key::Conversation).map(conversation).transpose()?.flatten();
    let mut around = context.or(own);
    if let Some(id) = object.text(Key::ConversationId) {
        around.get_or_insert_default().id.get_or_insert(id);
    }
    let mut from = addresses(object.get(Key::From));
    if from.is_empty() {
        from = addresses(object.get(Key::Sender));
    }
    Ok(Message {
        id: object.text(Key::Id),
        subject: object.text(Key::Subject),
        from,
        to: addresses(object.get(Key::To)),
        cc: addresses(object.get(Key::Cc)),
        sent_at: object.text(Key::SentAt).or_else(|| object.text(Key::CreatedAt)),
        direction: object
            .get(Key::Inbound)
            .and_then(flag)
            .map(|is_inbound| if is_inbound { Direction::Inbound } else { Direction::Outbound }),
        conversation: around,
        attachments: attachments(object.get(Key::Attachments), path, bad)?,
    })
}

fn attachments(list: Option<Value<'_>>, path: &str, bad: &mut Vec<String>) -> Result<Vec<Attachment>, String> {
    let Some(list) = list else { return Ok(Vec::new()) };
    if !list.is_array() {
        bad.push(format!("{path}attachments: not a list"));
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for (index, (_, entry)) in list.entries().enumerate() {
        let Some(object) = Object::read(entry) else {
            bad.push(format!("{path}attachments[{index}]: not an object"));
            continue;
        };
        object.require_single(ATTACHMENT_KEYS).map_err(|reason| format!("{path}attachments[{index}]: {reason}"))?;
        match attachment_id(&object) {
            Ok(id) => found.push(Attachment {
                id,
                name: object.text(Key::Filename).or_else(|| object.text(Key::Name)),
                content_type: object.text(Key::ContentType),
                size_bytes: object.get(Key::ByteSize).or_else(|| object.get(Key::Size)).and_then(size),
                inline: object.get(Key::Inline).and_then(flag).unwrap_or(false),
            }),
            Err(reason) => bad.push(format!("{path}attachments[{index}]: {reason}")),
        }
    }
    Ok(found)
}

fn attachment_id(object: &Object<'_>) -> Result<AttachmentId, String> {
    let value = object.get(Key::Id).ok_or("attachment id is missing")?;
    let id = match value.string() {
        Some(id) if id.is_lossy => {
            return Err("attachment id holds half a surrogate pair, which is no character".into());
        }
        Some(id) => id.content.into_owned(),
        None if matches!(value.first(), b'-' | b'0'..=b'9') => value.text().to_owned(),
        None => return Err("attachment id is neither text nor a number".into()),
    };
    AttachmentId::try_from(id).map_err(|error| error.to_string())
}

/// Addresses from text, an object with `email` or `address`, or a list of those.
fn addresses(value: Option<Value<'_>>) -> Vec<String> {
    let single = |value: Value<'_>| match Object::read(value) {
        Some(object) => {
            object.text(Key::Email).or_else(|| object.text(Key::Address)).or_else(|| object.text(Key::Name))
        }
        None => text(value),
    };
    each(value).filter_map(single).filter(|address| !address.is_empty()).collect()
}

/// Names from text, an object with `name`, or a list of those.
fn names(value: Option<Value<'_>>) -> Vec<String> {
    let single = |value: Value<'_>| match Object::read(value) {
        Some(object) => object.text(Key::Name),
        None => text(value),
    };
    each(value).filter_map(single).collect()
}

/// The elements of a list, or the one value that is none.
fn each(value: Option<Value<'_>>) -> impl Iterator<Item = Value<'_>> {
    let single = value.filter(|value| !value.is_array());
    let list = value.filter(|value| value.is_array());
    list.into_iter().flat_map(|list| list.entries().map(|(_, element)| element)).chain(single)
}

fn flag(value: Value<'_>) -> Option<bool> {
    let text = plain(value)?;
    let is_one_of = |words: [&str; 2]| words.iter().any(|word| text.trim().eq_ignore_ascii_case(word));
    match (is_one_of(["true", "1"]), is_one_of(["false", "0"])) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}

/// A whole number below 2^63, as a number or as text.
fn size(value: Value<'_>) -> Option<u64> {
    let text = plain(value)?;
    let digits = text.trim();
    let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_plain { digits.parse().ok().filter(|size| *size < 1 << 63) } else { None }
}
