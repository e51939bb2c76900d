//! Entities from texts as the service might write them.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn conversation(text: &str) -> Conversation {
    serde_json::from_str(text).unwrap()
}

#[test]
fn ids_are_read_as_numbers_and_as_text_and_written_as_the_examples_write_them() {
    for (text, id, sent) in [
        ("42", "42", "42"),
        ("\"42\"", "42", "42"),
        ("\"042\"", "042", "\"042\""),
        ("-7", "-7", "\"-7\""),
        ("\"stair-car\"", "stair-car", "\"stair-car\""),
        ("\"99999999999999999999\"", "99999999999999999999", "\"99999999999999999999\""),
    ] {
        let read: Id = serde_json::from_str(text).unwrap();
        assert_eq!((read.as_str(), serde_json::to_string(&read).unwrap().as_str()), (id, sent));
    }
    for bad in ["\"\"", "\".\"", "\"..\"", "1.5", "99999999999999999999", "null", "true", "[1]", "{}"] {
        assert!(serde_json::from_str::<Id>(bad).is_err(), "{bad}");
    }
    assert!(Id::try_from("x".repeat(1_025)).is_err());
}

#[test]
fn a_conversation_is_read_whatever_is_missing_null_or_of_another_kind() {
    let bare = conversation("{\"id\":7}");
    assert_eq!((bare.id.as_str(), bare.subject, bare.labels.len(), bare.messages_count), ("7", None, 0, None));
    let nulls =
        conversation("{\"id\":\"a\",\"subject\":null,\"labels\":null,\"messages\":null,\"messages_count\":null}");
    assert_eq!((nulls.subject, nulls.labels.len(), nulls.messages.len()), (None, 0, 0));
    let odd = conversation(
        r#"{"id":"a","subject":12,"status":true,"labels":{"id":"3","name":"Bug"},"mailboxes":"x","assignees":[7,{"id":4}],
            "messages_count":"12","attachments_count":-1,"url":[]}"#,
    );
    assert_eq!((odd.subject.as_deref(), odd.status.as_deref()), (Some("12"), Some("true")));
    assert_eq!(odd.labels[0].name.as_deref(), Some("Bug"));
    assert_eq!((odd.mailboxes.len(), odd.assignees[0].id.as_str(), odd.assignees.len()), (0, "4", 1));
    assert_eq!((odd.messages_count, odd.attachments_count, odd.url), (Some(12), None, None));
    assert!(serde_json::from_str::<Conversation>("{\"subject\":\"without id\"}").is_err());
    assert!(serde_json::from_str::<Conversation>("{\"id\":1,\"id\":2}").is_err());
}

#[test]
fn the_last_activity_is_the_latest_time_that_can_be_read() {
    let text = r#"{"id":1,"last_message_at":"2026-01-02T03:04:05Z","updated_at":"2026-02-02T03:04:05+02:00","created_at":"x"}"#;
    assert_eq!(conversation(text).last_activity(), Some("2026-02-02T01:04:05Z".parse().unwrap()));
    assert_eq!(conversation("{\"id\":1}").last_activity(), None);
}

#[test]
fn a_message_is_read_as_the_vendors_page_shows_it() {
    let message: Message = serde_json::from_value(json!({
        "id": 123, "subject": "Re: Stair car", "inbound": "false", "sent_at": null,
        "from": ["contact@bluth.company", {"email": "b@x.example"}, {"name": "C"}, null, ""],
        "to": "sally@sitwell.test", "cc": null, "html_body": "<p>", "attachments_count": 1,
        "attachments": [{"id": "eyJ-canary", "filename": "a.pdf", "byte_size": "12", "inline": 1, "url": "u-canary"}, {"id": ""}],
        "sender": {"type": "member", "id": 42, "name": "Michael", "team": "x"}
    }))
    .unwrap();
    assert_eq!((message.id.as_str(), message.inbound, message.sent_at.as_deref()), ("123", Some(false), None));
    assert_eq!(message.from, ["contact@bluth.company", "b@x.example", "C"]);
    assert_eq!((message.to.as_slice(), message.cc.len()), (["sally@sitwell.test".to_owned()].as_slice(), 0));
    let [attachment] = message.attachments.as_slice() else { panic!("{message:?}") };
    assert_eq!((attachment.byte_size, attachment.inline), (Some(12), Some(true)));
    let sender = message.sender.as_ref().unwrap();
    assert_eq!((sender.kind.as_deref(), sender.id.as_ref().map(Id::as_str)), (Some("member"), Some("42")));
    assert_eq!(sender.other["team"], json!("x"));
    assert!(!format!("{message:?}").contains("canary"));
}

/// Any JSON that is not deeper than a few levels.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(".{0,6}", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn unknown_fields_survive(fields in proptest::collection::btree_map("new_.{0,8}", any_json(), 0..6)) {
        let mut all: Map<String, Value> = fields.clone().into_iter().collect();
        all.insert("id".into(), json!("x"));
        let unknown: Map<String, Value> = fields.into_iter().collect();
        let text = Value::Object(all).to_string();
        prop_assert_eq!(&serde_json::from_str::<Conversation>(&text).unwrap().other, &unknown);
        prop_assert_eq!(&serde_json::from_str::<Message>(&text).unwrap().other, &unknown);
        prop_assert_eq!(&serde_json::from_str::<Member>(&text).unwrap().other, &unknown);
        prop_assert_eq!(&serde_json::from_str::<Mailbox>(&text).unwrap().other, &unknown);
        prop_assert_eq!(&serde_json::from_str::<Label>(&text).unwrap().other, &unknown);
    }

    #[test]
    fn known_fields_of_any_kind_never_make_a_conversation_unreadable(
        subject in any_json(), labels in any_json(), assignees in any_json(), messages in any_json(), count in any_json()
    ) {
        let text = json!({"id": 1, "subject": subject, "labels": labels, "assignees": assignees, "messages": messages,
            "messages_count": count}).to_string();
        prop_assert!(serde_json::from_str::<Conversation>(&text).is_ok());
    }
}
