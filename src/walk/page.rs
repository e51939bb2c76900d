//! From a page of messages to payloads: what is kept of it until it is ingested.

use std::ops::ControlFlow;

use jiff::Timestamp;

use crate::config::SourceConfig;
use crate::model::{Attachment, Conversation, Message, Payload, Position, Reject};
use crate::source::{self, Item};

/// A page as it was read.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// The messages with attachments.
    pub(super) messages: Vec<Message>,
    pub(super) rejects: Vec<Reject>,
}

/// Reads the texts of messages as payloads are read, in the conversation as the list showed it. Blocks. Messages that
/// were sent after `upto` are left out.
pub(super) fn read(
    texts: &[String],
    conversation: &Conversation,
    upto: Option<Timestamp>,
    config: &SourceConfig,
) -> Read {
    let text = format!("{{\"messages\":[{}]}}", texts.join(","));
    // Whole pages are bounded where they come in.
    let config =
        SourceConfig { max_payload_bytes: config.max_payload_bytes.max(text.len() + 1), ..SourceConfig::default() };
    let name = format!("Jelly /conversations/{}/messages", conversation.id.as_deref().unwrap_or_default());
    let mut read = Read::default();
    let _never_breaks = source::read_from(&name, text.as_bytes(), &config, None, &mut |item| {
        match item {
            Item::Payload(payload) => {
                read.rejects.extend(payload.rejects());
                let is_younger = |message: &Message| {
                    let sent_at = message.sent_at.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
                    sent_at.zip(upto).is_some_and(|(sent_at, upto)| sent_at > upto)
                };
                let kept = payload.messages.into_iter().filter(|one| !one.attachments.is_empty() && !is_younger(one));
                read.messages.extend(kept.map(|one| Message { conversation: Some(conversation.clone()), ..one }));
            }
            Item::Rejected(reject) => read.rejects.push(reject),
            Item::Known | Item::Ignored(_) => {}
        }
        ControlFlow::Continue(())
    });
    read
}

/// A message with what its own form leaves out.
type Parts = (Message, Option<Conversation>, Vec<Attachment>);

/// What is kept of messages.
pub(super) fn content(messages: Vec<Message>) -> String {
    let parts: Vec<Parts> = messages
        .into_iter()
        .map(|mut message| {
            let conversation = message.conversation.take();
            let attachments = std::mem::take(&mut message.attachments);
            (message, conversation, attachments)
        })
        .collect();
    serde_json::to_string(&parts).expect("plain structs of text and numbers always serialise")
}

/// The payload of what was kept.
pub(super) fn payload(content: &str) -> serde_json::Result<Payload> {
    let parts: Vec<Parts> = serde_json::from_str(content)?;
    let messages =
        parts.into_iter().map(|(message, conversation, attachments)| Message { conversation, attachments, ..message });
    Ok(Payload {
        position: Position { source: "Jelly".into(), line: 1, byte_offset: 0 },
        team: None,
        messages: messages.collect(),
        bad_attachments: Vec::new(),
        text: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation() -> Conversation {
        Conversation { id: Some("slug".into()), labels: vec!["Bug".into()], ..Conversation::default() }
    }

    #[test]
    fn messages_keep_everything_that_a_webhook_would_have_brought() {
        let message = r#"{"id":7,"subject":"S","inbound":true,"sent_at":"2024-01-15T10:30:00Z","from":["a@b.example"],
            "html_body":"<p>","attachments":[{"id":"x=--1","filename":"f","byte_size":"12","inline":true}]}"#;
        let texts = [message.to_owned(), r#"{"id":8,"attachments":[]}"#.to_owned()];
        let read = read(&texts, &conversation(), None, &SourceConfig::default());
        assert_eq!((read.messages.len(), read.rejects.len()), (1, 0));
        let again = payload(&content(read.messages.clone())).unwrap();
        assert_eq!(again.messages, read.messages);
        assert_eq!(again.messages[0].conversation, Some(conversation()));
        assert_eq!(again.messages[0].attachments[0].size_bytes, Some(12));
    }

    #[test]
    fn what_is_too_young_is_left_out_and_what_cannot_be_read_is_told() {
        let message =
            |sent_at: &str, id: &str| format!(r#"{{"id":1,"sent_at":"{sent_at}","attachments":[{{"id":{id}}}]}}"#);
        let texts = [
            message("2024-01-15T10:30:00Z", "\"a\""),
            message("2024-01-15T10:30:01Z", "\"b\""),
            message("yesterday", "\"c\""),
            message("2024-01-15T10:30:00Z", "{}"),
        ];
        let upto = "2024-01-15T10:30:00Z".parse().ok();
        let read = read(&texts, &conversation(), upto, &SourceConfig::default());
        let ids: Vec<&str> =
            read.messages.iter().flat_map(|one| &one.attachments).map(|attachment| attachment.id.as_str()).collect();
        assert_eq!(ids, ["a", "c"]);
        assert_eq!(read.rejects.len(), 1);
    }
}
