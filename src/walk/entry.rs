//! A conversation as the list shows it: what changes when it does, and when that was.

use crate::catalog::WalkEntry;
use crate::digest::Digest;
use crate::jelly::Conversation;
use crate::model;

/// When something happened in it last, by the service's clock, in milliseconds since the Unix epoch.
pub(super) fn activity_ms(conversation: &Conversation) -> Option<i64> {
    conversation.last_activity().map(jiff::Timestamp::as_millisecond)
}

/// What a walk keeps of it. `salt` differs in each walk: what shows nothing that could change is read by each.
pub(super) fn entry(conversation: &Conversation, only_known: bool, salt: i64) -> WalkEntry {
    let count = |count: Option<u64>| count.map_or("-".to_owned(), |count| count.to_string());
    let (messages, files) = (conversation.messages_count, conversation.attachments_count);
    let (last, updated) = (conversation.last_message_at.as_deref(), conversation.updated_at.as_deref());
    let text = match (messages, files, last, updated) {
        (None, None, None, None) => format!("salt {salt}"),
        (None, None, None, Some(updated)) => format!("updated {updated}"),
        _ => format!("messages {} files {} last {}", count(messages), count(files), last.unwrap_or("-")),
    };
    let [first @ .., _, _, _, _, _, _, _, _] = Digest::of(text.as_bytes()).short();
    WalkEntry {
        conversation: model::Conversation {
            id: Some(conversation.id.as_str().to_owned()),
            subject: conversation.subject.clone(),
            labels: conversation.labels.iter().filter_map(|label| label.name.clone()).collect(),
            mailboxes: conversation.mailboxes.iter().filter_map(|mailbox| mailbox.name.clone()).collect(),
        },
        fingerprint: i64::from_be_bytes(first),
        may_hold: files != Some(0),
        only_known,
        messages_count: messages,
        attachments_count: files,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(json: &str) -> Conversation {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_fingerprint_changes_with_mail_and_not_with_labels() {
        let print = |json: &str| entry(&conversation(json), false, 7).fingerprint;
        let first = r#"{"id":1,"messages_count":2,"attachments_count":1,"last_message_at":"2024-01-01T00:00:00Z"}"#;
        assert_eq!(
            print(first),
            print(&first.replace("\"id\":1", r#""id":1,"labels":[{"name":"x"}],"updated_at":"z""#))
        );
        for other in [first.replace(":2,", ":3,"), first.replace(":1,\"l", ":2,\"l"), first.replace("01T", "02T")] {
            assert_ne!(print(first), print(&other), "{other}");
        }
        assert_eq!(print(r#"{"id":1}"#), print(r#"{"id":1}"#));
        assert_ne!(print(r#"{"id":1}"#), entry(&conversation(r#"{"id":1}"#), false, 8).fingerprint);
        assert_ne!(print(r#"{"id":1,"updated_at":"a"}"#), print(r#"{"id":1,"updated_at":"b"}"#));
    }

    #[test]
    fn only_a_count_of_zero_says_that_there_are_no_attachments() {
        let may_hold = |json: &str| entry(&conversation(json), false, 0).may_hold;
        assert!(!may_hold(r#"{"id":"a","attachments_count":0}"#));
        for unclear in
            [r#"{"id":"a"}"#, r#"{"id":"a","attachments_count":null}"#, r#"{"id":"a","attachments_count":[]}"#]
        {
            assert!(may_hold(unclear), "{unclear}");
        }
    }

    #[test]
    fn times_that_cannot_be_read_are_none() {
        assert_eq!(activity_ms(&conversation(r#"{"id":"a","last_message_at":"soon","updated_at":9}"#)), None);
        let both = r#"{"id":"a","last_message_at":"1970-01-01T00:00:01Z","updated_at":"1970-01-01T00:00:02Z"}"#;
        assert_eq!(activity_ms(&conversation(both)), Some(2_000));
    }
}
