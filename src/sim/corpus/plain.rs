//! Plain mail: any number of messages with noise attached. Each message is a function of its number, so that nothing is
//! held and a team of a million messages costs nothing until it is read.

use std::io::{self, Write};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::content::Kind;
use super::super::ids::{Blob, IdKey};
use super::super::random::mix2;
use super::{CorpusConfig, Summary};

/// 2026-10-01T00:00:00Z, when the first message was sent.
const FIRST_SENT_SECOND: i64 = 1_790_812_800;
/// The mail is of four weeks, so that a large team's is not of the future.
const SPAN_SECONDS: u64 = 28 * 86_400;

/// Writes the plain dump as JSON Lines: one webhook event for each message.
pub fn write(config: &CorpusConfig, out: &mut impl Write) -> io::Result<Summary> {
    let ids = IdKey::new(config.seed, &config.team);
    let mut summary = Summary { messages: config.messages, ..Summary::default() };
    let mut seen = vec![false; usize::try_from(config.contents).map_err(io::Error::other)?];
    let mut line = Vec::with_capacity(4 << 10);
    let per_conversation = config.messages_per_conversation.max(1);
    let numbers = config.first_message..config.first_message.saturating_add(config.messages);
    for number in numbers {
        line.clear();
        let count = attachments_of(config, number);
        let inbound = is_inbound(number);
        let time = sent_at(config, number);
        let conversation = number / per_conversation;
        write!(
            line,
            "{{\"event\":\"new_message\",\"created_at\":\"{time}\",\"data\":{{\"message\":{{\"id\":\"m{number}\",\
             \"conversation_id\":\"c{conversation}\",\"subject\":\"Message {number}\",\"inbound\":{inbound},\
             \"sent_at\":\"{time}\",\"from\":[\"{person}\"],\"to\":[\"team@harbour.example\"],\
             \"cc\":[],\"text_body\":\"Please find the files attached.\",\"attachments_count\":{count},\"attachments\":[",
            person = person(number),
        )?;
        for index in 0..count {
            let blob = blob(config, number * config.attachments_per_message + index);
            let fresh = match usize::try_from(blob.content).ok().and_then(|content| seen.get_mut(content)) {
                Some(seen) => !std::mem::replace(seen, true),
                None => true,
            };
            summary.contents += u64::from(fresh);
            summary.bytes += blob.size_bytes;
            let id = ids.mint(blob);
            write!(
                line,
                "{comma}{{\"id\":\"{id}\",\"filename\":\"file-{file}.bin\",\"content_type\":\"application/octet-stream\",\
                 \"byte_size\":{size},\"inline\":false,\"url\":\"{base}/attachments/{id}\"}}",
                comma = if index == 0 { "" } else { "," },
                file = blob.number,
                size = blob.size_bytes,
                base = config.url_base,
            )?;
        }
        writeln!(
            line,
            "]}},\"conversation\":{{\"id\":\"c{conversation}\",\"subject\":\"Message {first}\",\"labels\":[],\
             \"mailboxes\":[{{\"id\":1,\"name\":\"Support\"}}]}},\"is_new_conversation\":{is_new}}}}}",
            first = conversation * per_conversation,
            is_new = number % per_conversation == 0,
        )?;
        out.write_all(&line)?;
        summary.attachments += count;
    }
    Ok(summary)
}

/// A message as the API shows it: what the dump says, and the fields that the dump leaves out.
pub(in crate::sim) fn message(config: &CorpusConfig, ids: &IdKey, number: u64) -> Value {
    let conversation = number / config.messages_per_conversation.max(1);
    let (time, person) = (sent_at(config, number).to_string(), person(number));
    let files: Vec<_> = blobs_of(config, number)
        .map(|blob| {
            let id = ids.mint(blob);
            json!({
                "id": id,
                "filename": format!("file-{}.bin", blob.number),
                "content_type": "application/octet-stream",
                "byte_size": blob.size_bytes,
                "inline": false,
                "url": format!("{}/attachments/{id}", config.url_base),
            })
        })
        .collect();
    json!({
        "id": format!("m{number}"),
        "conversation_id": format!("c{conversation}"),
        "subject": format!("Message {number}"),
        "inbound": is_inbound(number),
        "sent_at": time,
        "created_at": time,
        "url": format!("https://app.letsjelly.com/conversations/c{conversation}#m{number}"),
        "from": [person],
        "to": ["team@harbour.example"],
        "cc": [],
        "html_body": "<p>Please find the files attached.</p>",
        "text_body": "Please find the files attached.",
        "attachments_count": files.len(),
        "attachments": files,
        "sender": { "type": "contact", "email": person },
    })
}

/// The files of a message.
pub(in crate::sim) fn blobs_of(config: &CorpusConfig, number: u64) -> impl Iterator<Item = Blob> {
    let first = number * config.attachments_per_message;
    (0..attachments_of(config, number)).map(move |index| blob(config, first + index))
}

/// How many attachments a message has. Of each 100 conversations in a row, exactly the configured number have some.
pub(in crate::sim) fn attachments_of(config: &CorpusConfig, number: u64) -> u64 {
    let conversation = number / config.messages_per_conversation.max(1);
    let place = (conversation % 100 * 37 + config.seed % 100) % 100;
    if place < config.with_files_percent { config.attachments_per_message } else { 0 }
}

/// When a message was sent: one a minute, or closer together if they would not fit into the time.
pub(in crate::sim) fn sent_at(config: &CorpusConfig, number: u64) -> Timestamp {
    let total = config.first_message.saturating_add(config.messages);
    let seconds = if total <= SPAN_SECONDS / 60 { number * 60 } else { number.saturating_mul(SPAN_SECONDS) / total };
    Timestamp::from_second(FIRST_SENT_SECOND)
        .and_then(|start| start.checked_add(SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(0))))
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

const fn is_inbound(number: u64) -> bool {
    !number.is_multiple_of(4)
}

fn person(number: u64) -> String {
    format!("person{}@customers.example", number % 97)
}

/// The file of plain attachment `number`: the first ones go through all contents, the others repeat them.
fn blob(config: &CorpusConfig, number: u64) -> Blob {
    let content = match config.contents {
        0 => number,
        contents if number < contents => number,
        contents => mix2(config.seed, number) % contents,
    };
    let (min, max) = config.sizes;
    let span = max.saturating_sub(min).saturating_add(1);
    let size_bytes = min + mix2(config.seed ^ 0x512e, content) % span;
    Blob { number, kind: Kind::Plain, content, size_bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_conversations_has_files() {
        for seed in [1, 7, 250] {
            let config = CorpusConfig { seed, with_files_percent: 20, ..CorpusConfig::default() };
            let with = |number: &u64| attachments_of(&config, *number * 3) > 0;
            assert_eq!((0..1000).filter(with).count(), 200);
            assert!((0..3000).all(|number| attachments_of(&config, number) == attachments_of(&config, number / 3 * 3)));
        }
    }

    #[test]
    fn the_mail_of_a_large_team_is_in_order_and_of_four_weeks() {
        for messages in [100, 40_320, 40_321, 3_000_000] {
            let config = CorpusConfig { messages, ..CorpusConfig::default() };
            assert_eq!(sent_at(&config, 0).to_string(), "2026-10-01T00:00:00Z");
            let last = sent_at(&config, messages - 1);
            assert!(last < "2026-10-29T00:00:00Z".parse().unwrap(), "{last}");
            assert!(sent_at(&config, messages - 2) <= last);
        }
    }

    #[test]
    fn the_api_shows_the_message_that_the_dump_has() {
        let config = CorpusConfig { messages: 9, with_files_percent: 50, ..CorpusConfig::default() };
        let (ids, mut text) = (IdKey::new(1, ""), Vec::new());
        write(&config, &mut text).unwrap();
        for (number, line) in (0..).zip(text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())) {
            let event: Value = serde_json::from_slice(line).unwrap();
            let shown = message(&config, &ids, number);
            for (name, value) in event["data"]["message"].as_object().unwrap() {
                assert_eq!(shown[name], *value, "{name} of message {number}");
            }
        }
    }
}
