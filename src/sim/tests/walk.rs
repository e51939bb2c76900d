//! The mail as the API lists it, and the feed that moves.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::corpus::{CorpusConfig, Profile};
use super::*;

/// A plain team: 2 messages a conversation, one file each where there are files.
fn plain(conversations: u64) -> CorpusConfig {
    CorpusConfig {
        profile: Profile::Plain,
        messages: conversations * 2,
        messages_per_conversation: 2,
        with_files_percent: 20,
        ..CorpusConfig::default()
    }
}

async fn world(mail: CorpusConfig, faults: &str) -> World {
    World::with(SimConfig { mail, faults: faults.parse().unwrap(), ..SimConfig::default() }).await
}

impl World {
    async fn json(&self, path: &str) -> Value {
        let answer = self.api(path).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.json().await.unwrap()
    }

    /// The status and body of an answer that must be JSON.
    async fn status(&self, path: &str) -> (u16, Value) {
        let answer = self.api(path).await;
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/json; charset=utf-8", "{path}");
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// All entries of a list, page by page.
    async fn walk(&self, path: &str, name: &str) -> Vec<Value> {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.json(&with_cursor(path, &cursor)).await;
            found.extend(page[name].as_array().unwrap().iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => next.clone_into(&mut cursor),
                None => return found,
            }
        }
    }
}

fn with_cursor(path: &str, cursor: &str) -> String {
    let cursor: String = url::form_urlencoded::byte_serialize(cursor.as_bytes()).collect();
    let sign = if path.contains('?') { '&' } else { '?' };
    format!("{path}{sign}cursor={cursor}")
}

fn slugs(conversations: &[Value]) -> Vec<&str> {
    conversations.iter().map(|conversation| conversation["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_walk_finds_every_conversation_once_newest_first_and_every_message_oldest_first() {
    for mail in [CorpusConfig { messages: 121, ..CorpusConfig::default() }, plain(57)] {
        let (is_plain, messages) = (mail.profile == Profile::Plain, mail.messages);
        let world = world(mail, "").await;
        let all = world.walk("/conversations?limit=7", "conversations").await;
        let expected: Vec<_> = (0..if is_plain { 57 } else { 41 }).rev().collect();
        let slug = |number: &u32| if is_plain { format!("c{number}") } else { format!("c{number:05}") };
        assert_eq!(slugs(&all), expected.iter().map(slug).collect::<Vec<_>>());
        assert_eq!(world.sim.stats().conversation_pages, all.len().div_ceil(7) as u64);
        assert!(all.is_sorted_by(|a, b| a["last_message_at"].as_str() > b["last_message_at"].as_str()));

        let (mut seen, mut inline_anywhere) = (BTreeSet::new(), BTreeSet::new());
        let mut count = 0;
        for conversation in &all {
            let slug = conversation["id"].as_str().unwrap();
            let found = world.walk(&format!("/conversations/{slug}/messages?limit=2"), "messages").await;
            assert_eq!(found.len() as u64, conversation["messages_count"]);
            assert!(found.is_sorted_by(|a, b| a["sent_at"].as_str() < b["sent_at"].as_str()));
            assert_eq!(found.last().unwrap()["sent_at"], conversation["last_message_at"]);
            assert_eq!(found[0]["sent_at"], conversation["created_at"]);
            let whole = world.json(&format!("/conversations/{slug}")).await;
            assert_eq!(whole["messages"].as_array().unwrap(), &found);
            assert_eq!(whole["messages_url"], conversation["messages_url"]);
            assert_eq!(world.json(&format!("/messages/{}", found[0]["id"].as_str().unwrap())).await, found[0]);
            let mut files = 0;
            for file in found.iter().flat_map(|message| message["attachments"].as_array().unwrap()) {
                files += 1;
                let id = file["id"].as_str().unwrap().to_owned();
                let list = if file["inline"] == true { &mut inline_anywhere } else { &mut seen };
                list.insert(id);
            }
            assert_eq!(files, conversation["attachments_count"], "{slug}");
            count += found.len() as u64;
        }
        assert_eq!(count, messages);
        let truth: Vec<_> = world.sim.truth().into_iter().map(|known| known.id).collect();
        assert_eq!(truth.len(), seen.len());
        assert_eq!(truth.iter().cloned().collect::<BTreeSet<_>>(), seen);
        assert!(is_plain || inline_anywhere.difference(&seen).count() > 0);
        for id in truth.iter().take(3) {
            assert_eq!(world.api(&format!("/attachments/{id}")).await.status(), StatusCode::FOUND);
        }
    }
}

#[tokio::test]
async fn a_team_of_a_hundred_thousand_conversations_costs_only_what_is_read() {
    let world = world(plain(100_000), "").await;
    let first = world.json("/conversations?limit=100").await;
    assert_eq!(slugs(first["conversations"].as_array().unwrap())[..2], ["c99999", "c99998"]);
    let changes = world.sim.state.team.changes();
    let (mut below, mut pages, mut with_files) = (u64::MAX, 0, 0);
    loop {
        let (page, has_more) = world.sim.state.team.page(&changes, below, 100, &super::super::team::Filter::default());
        pages += 1;
        with_files += page.iter().filter(|conversation| conversation.attachments_count > 0).count();
        if !has_more {
            break;
        }
        below = page.last().unwrap().rank;
    }
    assert_eq!((pages, with_files), (1_000, 20_000));
    drop(changes);
    assert_eq!(world.sim.truth().len(), 40_000);
}

#[tokio::test]
async fn filters_narrow_and_nonsense_is_refused_in_json() {
    let world = world(CorpusConfig::default(), "").await;
    let all = world.walk("/conversations", "conversations").await;
    for (filter, admits) in [
        ("status=open", &(|c: &Value| c["status"] == "open") as &dyn Fn(&Value) -> bool),
        ("label_id=1", &|c: &Value| c["labels"].as_array().unwrap().iter().any(|label| label["id"] == 1)),
        ("mailbox_id=3", &|c: &Value| c["mailboxes"][0]["id"] == 3),
        ("mailbox_id=3&status=open", &|c: &Value| c["mailboxes"][0]["id"] == 3 && c["status"] == "open"),
    ] {
        let found = world.walk(&format!("/conversations?limit=5&{filter}"), "conversations").await;
        let expected: Vec<_> = all.iter().filter(|conversation| admits(conversation)).cloned().collect();
        assert!(!expected.is_empty() && expected.len() < all.len(), "{filter}");
        assert_eq!(found, expected, "{filter}");
    }
    assert_eq!(world.json("/conversations?status=spam").await, json!({ "conversations": [], "next_cursor": null }));
    let cursor = world.json("/conversations?limit=1").await["next_cursor"].as_str().unwrap().to_owned();
    for (path, error) in [
        ("/conversations?limit=0", "Limit must be between 1 and 100"),
        ("/conversations?limit=101", "Limit must be between 1 and 100"),
        ("/conversations?limit=ten", "Limit must be between 1 and 100"),
        ("/conversations?status=lost", "Status is not included in the list"),
        ("/conversations?cursor=nonsense", "Cursor is invalid"),
        (&format!("/conversations?cursor={cursor}"), "Cursor is invalid"),
        (&with_cursor("/conversations/c00001/messages", &cursor), "Cursor is invalid"),
    ] {
        assert_eq!(world.status(path).await, (422, json!({ "errors": [error] })), "{path}");
    }
    for path in [
        "/conversations?label_id=99",
        "/conversations?mailbox_id=x",
        "/conversations/c1",
        "/conversations/c99999",
        "/conversations/c99999/messages",
        "/messages/msg_1",
        "/mailboxes/9/members",
    ] {
        assert_eq!(world.status(path).await, (404, json!({ "error": "Resource not found" })), "{path}");
    }
    let url = format!("{}/mailboxes", world.sim.base_url());
    let answer = world.client.delete(url).bearer_auth("sim-token").send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.text().await.unwrap()),
        (404, r#"{"error":"Endpoint not found"}"#.into())
    );
}

#[tokio::test]
async fn short_lists_are_sorted_and_leave_out_who_has_left() {
    let world = world(CorpusConfig::default(), "").await;
    let labels = world.json("/labels").await;
    let names: Vec<_> = labels.as_array().unwrap().iter().map(|label| label["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Invoices", "Orders", "Photos", "Später"]);
    assert!(labels[0]["id"].is_u64());
    let members = world.json("/members").await;
    assert_eq!(members.as_array().unwrap().len(), 3);
    assert!(members.as_array().unwrap().iter().all(|member| member["active"] == true && member["id"].is_string()));
    assert_eq!(world.json("/mailboxes").await[1], json!({ "id": 2, "name": "Invoices" }));
    assert_eq!(world.json("/mailboxes/2/members").await, members);
    assert_eq!((world.sim.stats().reads, world.sim.stats().members), (3, 1));
}

#[tokio::test]
async fn mail_that_arrives_lifts_its_conversation_to_the_top() {
    let world = world(plain(10), "").await;
    let page = world.json("/conversations?limit=5").await;
    let cursor = page["next_cursor"].as_str().unwrap();
    let delivery = Delivery { conversation: Some("c2".into()), attachments: 2, inline: 1, ..Delivery::default() };
    let message = world.sim.deliver(&delivery).unwrap();
    world.sim.deliver(&Delivery { new: true, attachments: 0, ..Delivery::default() }).unwrap();
    assert_eq!(world.sim.deliver(&Delivery { conversation: Some("c99".into()), ..Delivery::default() }), None);

    let rest = world.json(&with_cursor("/conversations?limit=5", cursor)).await;
    assert_eq!(slugs(rest["conversations"].as_array().unwrap()), ["c4", "c3", "c1", "c0"], "c2 is missed");
    let all = world.walk("/conversations?limit=3", "conversations").await;
    assert_eq!(slugs(&all), ["c10", "c2", "c9", "c8", "c7", "c6", "c5", "c4", "c3", "c1", "c0"]);
    assert_eq!((&all[1]["messages_count"], &all[1]["last_message_at"]), (&json!(3), &json!("2027-01-15T08:00:00Z")));
    let messages = world.walk("/conversations/c2/messages?limit=1", "messages").await;
    assert_eq!(messages[2], message);
    assert_eq!(world.json(&format!("/messages/{}", message["id"].as_str().unwrap())).await, message);
    assert_eq!((&message["conversation_id"], &message["attachments_count"]), (&json!("c2"), &json!(3)));
    let arrived: Vec<_> = world.sim.truth().into_iter().filter(|known| known.arrived).collect();
    let ids: Vec<_> = arrived.iter().map(|known| known.id.as_str()).collect();
    assert_eq!(ids, [&message["attachments"][0]["id"], &message["attachments"][1]["id"]]);
    let file = world.api(&format!("/attachments/{}", ids[0])).await;
    let bytes = world.client.get(location(&file)).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(bytes.len() as u64, arrived[0].byte_size);
}

#[tokio::test]
async fn mail_arrives_by_itself_at_every_so_many_requests() {
    let schedule = serde_json::from_value(json!({ "every": 3, "count": 4, "mail": { "attachments": 2 } })).unwrap();
    let config = SimConfig { mail: plain(20), schedule: Some(schedule), ..SimConfig::default() };
    let world = World::with(config).await;
    for arrived in [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4] {
        world.json("/labels").await;
        assert_eq!(world.sim.stats().arrived, arrived);
    }
    let all = world.walk("/conversations", "conversations").await;
    assert_eq!((all.len(), slugs(&all)[0]), (21, "c20"), "every fourth begins a new conversation");
    assert_eq!(world.sim.truth().iter().filter(|known| known.arrived).count(), 8);
    world.sim.set_schedule(None);
}

/// Every fault of the lists, by the statuses of three requests for the second page.
#[tokio::test]
async fn each_fault_of_the_lists_shows() {
    for (fault, path, statuses) in [
        ("page-422=first:1", "/conversations?limit=5", [422, 200, 200]),
        ("page-429=at:3", "/conversations?limit=5", [200, 429, 200]),
        ("page-500=1", "/conversations?limit=5", [500, 500, 500]),
        ("call-429=first:1", "/labels", [429, 200, 200]),
        ("call-500=first:1", "/messages/m1", [500, 200, 200]),
        ("call-401=first:1", "/members", [401, 200, 200]),
        ("messages-404=first:1", "/conversations/c1/messages?limit=1", [404, 200, 200]),
        ("conversation-gone=1", "/conversations/c1/messages?limit=1", [404, 404, 404]),
        ("conversation-gone=1", "/conversations/c1", [404, 404, 404]),
        ("conversation-gone=1", "/messages/m1", [404, 404, 404]),
        ("conversation-gone=1", "/conversations?limit=1", [200, 200, 200]),
        ("messages-422=first:2", "/conversations/c1/messages?limit=1", [422, 422, 200]),
        ("messages-429=first:1", "/conversations/c1/messages?limit=1", [429, 200, 200]),
        ("messages-500=at:3", "/conversations/c1/messages?limit=1", [200, 500, 200]),
    ] {
        let world = world(plain(12), "").await;
        let cursor = world.json(path).await["next_cursor"].as_str().unwrap_or_default().to_owned();
        if !fault.contains("at:") {
            world.sim.reset();
        }
        world.sim.set_faults(fault.parse().unwrap());
        let mut got = Vec::new();
        for _ in 0..3 {
            got.push(world.api(&with_cursor(path, &cursor)).await.status().as_u16());
        }
        assert_eq!(got, statuses, "{fault}");
    }
    let empty = world(plain(12), "messages-empty=1").await;
    assert_eq!(empty.json("/conversations/c1/messages").await, json!({ "messages": [], "next_cursor": null }));
    for fault in ["page-html=1", "page-cut=1", "messages-html=1", "call-html=1"] {
        let world = world(plain(12), fault).await;
        let path = match fault {
            "messages-html=1" => "/conversations/c1/messages",
            "call-html=1" => "/mailboxes",
            _ => "/conversations",
        };
        let answer = world.api(path).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(answer.json::<Value>().await.is_err(), "{fault}");
    }
    let world = world(plain(12), "page-reset=1").await;
    let url = format!("{}/conversations", world.sim.base_url());
    assert!(world.client.get(url).bearer_auth("sim-token").send().await.is_err());
}

#[tokio::test]
async fn pages_loop_repeat_and_leave_out_what_they_are_told_to() {
    let world = world(plain(12), "").await;
    let path = "/conversations?limit=4";
    let first = world.json(path).await;
    let cursor = first["next_cursor"].as_str().unwrap().to_owned();
    let second = world.json(&with_cursor(path, &cursor)).await;
    assert_eq!(slugs(second["conversations"].as_array().unwrap()), ["c7", "c6", "c5", "c4"]);

    world.sim.set_faults("page-loop=1".parse().unwrap());
    let looping = world.json(&with_cursor(path, &cursor)).await;
    assert_eq!((&looping["conversations"], &looping["next_cursor"]), (&second["conversations"], &json!(cursor)));
    let top = world.json(path).await["next_cursor"].as_str().unwrap().to_owned();
    assert_eq!(world.json(&with_cursor(path, &top)).await["conversations"], first["conversations"]);

    world.sim.set_faults("page-vanish=1".parse().unwrap());
    let vanished = world.json(&with_cursor(path, &cursor)).await;
    assert_eq!(slugs(vanished["conversations"].as_array().unwrap()), ["c7", "c6", "c4"]);
    assert_eq!(vanished["next_cursor"], second["next_cursor"]);

    world.sim.set_faults("page-repeat=1".parse().unwrap());
    let repeated = world.json(&with_cursor(path, &cursor)).await;
    assert_eq!(slugs(repeated["conversations"].as_array().unwrap()), ["c10", "c9", "c8", "c7", "c6", "c5", "c4"]);

    world.sim.set_faults("messages-loop=1".parse().unwrap());
    let path = "/conversations/c1/messages?limit=1";
    let cursor = world.json(path).await["next_cursor"].as_str().unwrap().to_owned();
    assert_eq!(world.json(&with_cursor(path, &cursor)).await["messages"][0]["id"], "m2");

    world.sim.set_faults("count-missing=0.5,count-null=1".parse().unwrap());
    let all = world.json("/conversations").await;
    let all = all["conversations"].as_array().unwrap();
    let missing = all.iter().filter(|conversation| conversation.get("attachments_count").is_none()).count();
    assert!(missing > 0 && missing < all.len(), "{missing}");
    assert!(all.iter().all(|conversation| conversation["attachments_count"].is_null()));
}
