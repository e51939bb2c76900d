//! The realistic mail: real little files in several dump formats, with duplicates, inline images, empty files and
//! awkward names.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::content::{Contents, Kind, Source};
use super::super::ids::{Blob, IdKey};
use super::super::random::Random;
use super::mail::{AWKWARD_NAMES, CONTACTS, FIRST_MEMBER_ID, LABELS, MAILBOXES, MEMBERS, TOPICS, long_name};
use super::{CorpusConfig, Summary};

/// The content number of each member's signature image is below this.
const SIGNATURES: u64 = 8;
/// 2026-07-01T08:00:00Z, when the first message was sent.
const FIRST_SENT_SECOND: i64 = 1_782_892_800;

/// One message and what it belongs to.
struct Letter {
    message: Value,
    conversation: Value,
    conversation_number: u64,
    created_at: String,
    is_new_conversation: bool,
}

/// Writes the dump: webhook events (plain and gzip), API pages, conversations, and conversations in zstd.
pub(super) fn write(config: &CorpusConfig, folder: &Path) -> io::Result<Summary> {
    let mut writer = Writer::new(config);
    let letters: Vec<_> = (0..config.messages).map(|number| writer.letter(number)).collect();
    let mut summary = writer.summary(config.messages);

    // Cut between conversations, so that each file is one that the service could have given.
    let part = |index: u64| {
        let bound = |index: u64| config.messages * index / 5;
        letters.iter().filter(move |letter| {
            let first = letter.conversation_number * 3;
            first >= bound(index) && first < bound(index + 1)
        })
    };
    let mut save = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        summary.files.push(path.clone());
        fs::write(path, bytes)
    };
    save("webhooks.jsonl", events(part(0)).as_bytes())?;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(events(part(1)).as_bytes())?;
    save("webhooks-more.jsonl.gz", &gzip.finish()?)?;
    let messages: Vec<_> = part(2).map(|letter| &letter.message).collect();
    let page = json!({ "messages": messages, "next_cursor": null });
    save("api-messages.json", serde_json::to_string_pretty(&page)?.as_bytes())?;
    let conversations: Vec<_> = conversations(part(3)).collect();
    save("conversations.json", serde_json::to_string(&conversations)?.as_bytes())?;
    let mut lines = String::new();
    for conversation in self::conversations(part(4)) {
        let _ = writeln!(lines, "{conversation}");
    }
    save("conversations-more.jsonl.zst", &zstd::encode_all(lines.as_bytes(), 3)?)?;
    Ok(summary)
}

/// Webhook events as JSON Lines, escaped for HTML as Rails does it.
fn events<'a>(letters: impl Iterator<Item = &'a Letter>) -> String {
    let mut lines = String::new();
    for letter in letters {
        let event = json!({
            "event": "new_message",
            "created_at": letter.created_at,
            "data": {
                "message": letter.message,
                "conversation": letter.conversation,
                "is_new_conversation": letter.is_new_conversation,
            },
        });
        // These characters stand in strings only, so that escaping them leaves the JSON the same.
        let text = event.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
        lines.push_str(&text);
        lines.push('\n');
    }
    lines
}

/// Conversations with their messages, oldest first.
fn conversations<'a>(letters: impl Iterator<Item = &'a Letter>) -> impl Iterator<Item = Value> {
    let mut all: Vec<(u64, Value)> = Vec::new();
    for letter in letters {
        if all.last().is_none_or(|(number, _)| *number != letter.conversation_number) {
            let mut conversation = letter.conversation.clone();
            conversation["messages"] = json!([]);
            all.push((letter.conversation_number, conversation));
        }
        if let Some((_, conversation)) = all.last_mut()
            && let Some(messages) = conversation["messages"].as_array_mut()
        {
            messages.push(letter.message.clone());
        }
    }
    all.into_iter().map(|(_, conversation)| conversation)
}

/// All conversations, oldest first, each with its `messages`.
pub(in crate::sim) fn all(config: &CorpusConfig) -> Vec<Value> {
    let mut writer = Writer::new(config);
    let letters: Vec<_> = (0..config.messages).map(|number| writer.letter(number)).collect();
    conversations(letters.iter()).collect()
}

/// Makes letters, one after the other.
struct Writer<'a> {
    config: &'a CorpusConfig,
    ids: IdKey,
    contents: Contents,
    next_number: u64,
    /// Files that were sent before, which some messages bring again.
    sent: Vec<(Kind, u64, u64, String)>,
    /// The last attachment that was not inline.
    last: Option<Blob>,
    /// Every attachment, and whether it is inline wherever it occurs.
    inline: HashMap<Blob, bool>,
}

impl<'a> Writer<'a> {
    fn new(config: &'a CorpusConfig) -> Self {
        Self {
            config,
            ids: IdKey::new(config.seed, &config.team),
            contents: Contents::new(config.seed, false),
            next_number: 1,
            sent: Vec::new(),
            last: None,
            inline: HashMap::new(),
        }
    }

    fn summary(&self, messages: u64) -> Summary {
        let kept: Vec<_> = self.inline.iter().filter(|(_, inline)| !**inline).map(|(blob, _)| *blob).collect();
        let contents: HashSet<_> = kept.iter().map(|blob| self.bytes_of(*blob)).collect();
        Summary {
            files: Vec::new(),
            messages,
            attachments: self.inline.len() as u64,
            inline: (self.inline.len() - kept.len()) as u64,
            contents: contents.len() as u64,
            bytes: kept.iter().map(|blob| blob.size_bytes).sum(),
        }
    }

    /// What two blobs have in common exactly when their bytes are equal.
    fn bytes_of(&self, blob: Blob) -> (u64, crate::digest::Digest) {
        let mut bytes = Vec::new();
        self.contents.source(blob).fill(0, blob.size_bytes.min(1 << 20), &mut bytes);
        (blob.size_bytes, crate::digest::Digest::of(&bytes))
    }

    /// A new attachment with given bytes; the size is what they come out to.
    fn blob(&mut self, kind: Kind, content: u64, noise_bytes: u64) -> Blob {
        let number = self.next_number;
        self.next_number += 1;
        let mut blob = Blob { number, kind, content, size_bytes: noise_bytes };
        if let Source::Whole(bytes) = self.contents.source(blob) {
            blob.size_bytes = bytes.len() as u64;
        }
        blob
    }

    /// An attachment as a message shows it.
    fn entry(&mut self, blob: Blob, name: &str, media_type: &str, inline: bool) -> Value {
        let only_inline = self.inline.entry(blob).or_insert(true);
        *only_inline &= inline;
        if !inline {
            self.last = Some(blob);
        }
        let id = self.ids.mint(blob);
        json!({
            "id": id,
            "filename": name,
            "content_type": media_type,
            "byte_size": blob.size_bytes,
            "inline": inline,
            "url": format!("{}/attachments/{id}", self.config.url_base),
        })
    }

    /// The usual attachments of a topic: new ones, or one that was sent before under a new id.
    fn usual(&mut self, files: &[(Kind, &str)], random: &mut Random) -> Vec<Value> {
        let mut entries = Vec::new();
        for (kind, name) in files {
            if !self.sent.is_empty() && random.chance(15) {
                let (kind, content, noise_bytes, name) = random.pick(&self.sent).clone();
                let blob = self.blob(kind, content, noise_bytes);
                entries.push(self.entry(blob, &name, kind.media_type(), false));
                continue;
            }
            let content = SIGNATURES + self.next_number;
            let blob = self.blob(*kind, content, 0);
            let name = name.replace('#', &format!("{:04}", blob.number));
            self.sent.push((*kind, content, 0, name.clone()));
            entries.push(self.entry(blob, &name, kind.media_type(), false));
        }
        entries
    }

    /// What some messages bring besides.
    fn unusual(&mut self, number: u64, entries: &mut Vec<Value>) {
        if number % 4 == 1 {
            let index = usize::try_from(number / 4).unwrap_or(0);
            let name = AWKWARD_NAMES.get(index).map_or_else(long_name, |name| (*name).to_owned());
            if index <= AWKWARD_NAMES.len() {
                let blob = self.blob(Kind::Pdf, 100_000 + number, 0);
                entries.push(self.entry(blob, &name, Kind::Pdf.media_type(), false));
            }
        }
        match number % 60 {
            7 => {
                let blob = self.blob(Kind::Plain, 0, 0);
                entries.push(self.entry(blob, "empty.txt", "text/plain", false));
            }
            17 => {
                let blob = self.blob(Kind::Pdf, 200_000 + number, 0);
                entries.push(self.entry(blob, "inline statement.pdf", "application/pdf", true));
            }
            // The same id again: quoted inline here, though it came as a file before; and the other way round.
            23 => {
                if let Some(blob) = self.last {
                    entries.push(self.entry(blob, "quoted again", blob.kind.media_type(), true));
                }
            }
            // A name and a type that do not fit the bytes.
            31 => {
                let blob = self.blob(Kind::Png, 300_000 + number, 0);
                entries.push(self.entry(blob, "scan.pdf", "application/pdf", false));
            }
            41 => {
                let blob = self.blob(Kind::Plain, 400_000 + number / 60, 9 << 20);
                entries.push(self.entry(blob, "Walk round the yard.mov", "video/quicktime", false));
            }
            _ => {}
        }
    }

    fn letter(&mut self, number: u64) -> Letter {
        let mut random = Random::new(self.config.seed ^ 0x1e77, number);
        let conversation_number = number / 3;
        let is_new_conversation = number.is_multiple_of(3);
        let mut about = Random::new(self.config.seed ^ 0xab0, conversation_number);
        let (topic, contact) = (about.pick(TOPICS), *about.pick(CONTACTS));
        let member_index = about.below(MEMBERS.len() as u64);
        let member = MEMBERS[usize::try_from(member_index).unwrap_or(0)];
        let mailbox = *about.pick(MAILBOXES);
        let inbound = number % 3 != 1;

        let mut entries = if number % 3 == 2 { Vec::new() } else { self.usual(topic.files, &mut random) };
        self.unusual(number, &mut entries);
        let mut html = format!("<p>Hello,</p><p>{}</p>", topic.text.replace('&', "&amp;"));
        if !inbound {
            let blob = self.blob(Kind::Png, member_index, 0);
            let entry = self.entry(blob, "signature.png", "image/png", true);
            let source = entry["url"].as_str().unwrap_or_default();
            let _ = write!(html, "<p>{}<br><img src=\"{source}\"></p>", member.0);
            entries.push(entry);
        }

        let address = |(name, address): (&str, &str)| {
            if number.is_multiple_of(2) { format!("{name} <{address}>") } else { address.to_owned() }
        };
        let (from, to) = if inbound { (contact, member) } else { (member, contact) };
        let sent_at = Self::time(number);
        let sender = if inbound {
            json!({ "type": "contact", "email": contact.1 })
        } else {
            json!({ "type": "member", "id": (FIRST_MEMBER_ID + member_index).to_string(), "name": member.0, "email": member.1 })
        };
        let subject = if is_new_conversation { topic.subject.to_owned() } else { format!("Re: {}", topic.subject) };
        let url = format!("https://app.letsjelly.com/conversations/c{conversation_number:05}");
        let message = json!({
            "id": format!("msg_{number:06}"),
            "conversation_id": format!("c{conversation_number:05}"),
            "subject": subject,
            "inbound": inbound,
            "sent_at": sent_at,
            "created_at": sent_at,
            "url": format!("{url}#msg_{number:06}"),
            "from": [address(from)],
            "to": [address(to)],
            "cc": if number.is_multiple_of(7) { vec![MEMBERS[0].1] } else { Vec::new() },
            "html_body": html,
            "text_body": topic.text,
            "attachments_count": entries.len(),
            "attachments": entries,
            "sender": sender,
        });
        let labels: Vec<_> = topic
            .label
            .map(|index| json!({ "id": LABELS[index].0, "name": LABELS[index].1, "color": LABELS[index].2 }))
            .into_iter()
            .collect();
        let conversation = json!({
            "id": format!("c{conversation_number:05}"),
            "subject": topic.subject,
            "status": if conversation_number.is_multiple_of(3) { "open" } else { "archived" },
            "labels": labels,
            "mailboxes": [{ "id": mailbox.0, "name": mailbox.1 }],
            "assignees": [],
            "url": url,
            "last_message_at": sent_at,
        });
        Letter { message, conversation, conversation_number, created_at: sent_at, is_new_conversation }
    }

    /// When message `number` was sent: one every seven hours and some.
    fn time(number: u64) -> String {
        let seconds = i64::try_from(number.saturating_mul(26_117)).unwrap_or(0);
        Timestamp::from_second(FIRST_SENT_SECOND)
            .and_then(|start| start.checked_add(SignedDuration::from_secs(seconds)))
            .unwrap_or(Timestamp::UNIX_EPOCH)
            .to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// Every object with a `byte_size` in the files of a dump.
    fn attachments(folder: &Path) -> Vec<Value> {
        fn collect(value: &Value, found: &mut Vec<Value>) {
            match value {
                Value::Object(fields) if fields.contains_key("byte_size") => found.push(value.clone()),
                Value::Object(fields) => fields.values().for_each(|value| collect(value, found)),
                Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
                _ => {}
            }
        }
        let mut found = Vec::new();
        for file in fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            let mut text = String::new();
            match path.extension().unwrap().to_str().unwrap() {
                "gz" => drop(flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap()),
                "zst" => text = String::from_utf8(zstd::decode_all(&bytes[..]).unwrap()).unwrap(),
                _ => text = String::from_utf8(bytes).unwrap(),
            }
            for value in serde_json::Deserializer::from_str(&text).into_iter::<Value>() {
                collect(&value.unwrap(), &mut found);
            }
        }
        found
    }

    #[test]
    fn the_dump_declares_what_its_ids_stand_for_and_adds_up() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let config = CorpusConfig { messages: 200, ..CorpusConfig::default() };
        let summary = write(&config, first.path()).unwrap();
        let found = attachments(first.path());
        let (ids, contents) = (IdKey::new(1, ""), Contents::new(1, false));
        let (mut all, mut kept) = (HashSet::new(), HashSet::new());
        for attachment in &found {
            let blob = ids.verify(attachment["id"].as_str().unwrap()).unwrap();
            assert_eq!(attachment["byte_size"], blob.size_bytes);
            if let Source::Whole(bytes) = contents.source(blob) {
                assert_eq!(bytes.len() as u64, blob.size_bytes);
            }
            all.insert(blob);
            if attachment["inline"] == false {
                kept.insert(blob);
            }
        }
        assert_eq!((all.len() as u64, (all.len() - kept.len()) as u64), (summary.attachments, summary.inline));
        assert!(found.len() > all.len(), "some id must occur twice");
        assert!((kept.len() as u64) > summary.contents, "some content must occur twice");
        assert!(kept.iter().any(|blob| blob.size_bytes == 0), "there must be an empty file");
        for name in AWKWARD_NAMES {
            assert!(found.iter().any(|attachment| attachment["filename"] == *name), "{name:?}");
        }
        assert!(found.iter().any(|attachment| attachment["filename"].as_str().unwrap().len() > 255));

        write(&config, second.path()).unwrap();
        for file in &summary.files {
            let name = file.file_name().unwrap();
            assert!(fs::read(file).unwrap() == fs::read(second.path().join(name)).unwrap(), "{name:?} must repeat");
        }
    }
}
