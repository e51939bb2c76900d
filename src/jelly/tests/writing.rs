//! What is sent when something changes, and what is made of the answers. Nothing is sent twice.

use serde_json::{Value, json};

use super::*;

fn slug() -> Id {
    "stair-car".parse().unwrap()
}

fn id(text: &str) -> Id {
    text.parse().unwrap()
}

async fn served(answers: &[(&str, &str)]) -> (Scripted, JellyClient) {
    let answers = answers.iter().map(|(status, body)| answer(status, &[], body.as_bytes())).collect();
    let server = Scripted::start(answers).await;
    let client = client_at(&server.url("/api"));
    (server, client)
}

/// The one request that was sent: its first line, and its body.
fn sent(server: &Scripted) -> (String, Value) {
    let asked = server.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let (head, body) = asked[0].split_once("\r\n\r\n").unwrap();
    if !body.is_empty() {
        assert!(head.to_lowercase().contains("content-type: application/json"), "{head}");
    }
    let body = if body.is_empty() { Value::Null } else { serde_json::from_str(body).unwrap() };
    (head.lines().next().unwrap().replace(" HTTP/1.1", ""), body)
}

#[tokio::test]
async fn a_label_is_made_and_a_taken_name_is_invalid() {
    let (server, client) = served(&[("201 C", r#"{"id":3,"name":"Important","color":"cherry"}"#)]).await;
    let label = client.create_label("Important", Some("cherry")).await.unwrap();
    assert_eq!(label.id.as_ref().unwrap().as_str(), "3");
    assert_eq!(sent(&server), ("POST /api/labels".into(), json!({"name": "Important", "color": "cherry"})));
    let (server, client) = served(&[("422 I", r#"{"errors":["Name has already been taken"]}"#)]).await;
    let error = client.create_label("Bug", None).await.unwrap_err();
    assert!(
        matches!(&error, ApiError::Invalid(all) if all == &["Name has already been taken"]) && !error.may_be_done()
    );
    assert_eq!(sent(&server).1, json!({"name": "Bug"}));
}

#[tokio::test]
async fn a_comment_is_written_as_it_is() {
    let (server, client) = served(&[("201 C", r#"{"id":"c1","body":"\"a\"\n","author":{"id":1}}"#)]).await;
    let comment = client.comment(&slug(), "\"a\"\n").await.unwrap();
    assert_eq!((comment.body.as_deref(), &comment.other["author"]["id"]), (Some("\"a\"\n"), &json!(1)));
    assert_eq!(sent(&server), ("POST /api/conversations/stair-car/comments".into(), json!({"body": "\"a\"\n"})));
}

#[tokio::test]
async fn labels_are_put_on_and_taken_off_whatever_the_answer_shows() {
    let (server, client) = served(&[("201 C", r#"[{"id":3,"name":"Important"}]"#)]).await;
    assert_eq!(client.add_label(&slug(), &id("456")).await.unwrap().len(), 1);
    assert_eq!(sent(&server), ("POST /api/conversations/stair-car/labels".into(), json!({"label_id": 456})));
    for (status, body, left) in [
        ("200 OK", r#"[{"id":3}]"#, Some(1)),
        ("200 OK", r#"{"id":"stair-car","labels":[]}"#, Some(0)),
        ("200 OK", "{}", None),
        ("204 No Content", "", None),
    ] {
        let (server, client) = served(&[(status, body)]).await;
        let labels = client.remove_label(&slug(), &id("a/b")).await.unwrap();
        assert_eq!(labels.map(|labels| labels.len()), left, "{body}");
        assert_eq!(sent(&server), ("DELETE /api/conversations/stair-car/labels/a%2Fb".into(), Value::Null));
    }
    let (_server, client) = served(&[("404 N", r#"{"error":"Resource not found"}"#)]).await;
    let error = client.remove_label(&slug(), &id("1")).await.unwrap_err();
    assert_eq!(error.to_string(), "Jelly knows no such conversation or label (404: Resource not found)");
}

#[tokio::test]
async fn an_assignment_names_a_member_in_exactly_one_way_and_tells_whether_it_is_new() {
    let answer = r#"{"id":"stair-car","assignees":[{"id":"42","name":"Michael Bluth"}],"labels":[]}"#;
    let (server, client) = served(&[("201 C", answer)]).await;
    let assigned = client.assign(&slug(), &Assignee::Email("michael@bluth.company".into())).await.unwrap();
    assert!(assigned.is_new && assigned.resource.assignees[0].id.as_str() == "42");
    let path = "POST /api/conversations/stair-car/assignments";
    assert_eq!(sent(&server), (path.into(), json!({"email": "michael@bluth.company"})));
    let (server, client) = served(&[("200 OK", answer)]).await;
    assert!(!client.assign(&slug(), &Assignee::Member(id("42"))).await.unwrap().is_new);
    assert_eq!(sent(&server).1, json!({"member_id": 42}));
    let (server, client) = served(&[("200 OK", r#"{"id":"stair-car","assignees":[]}"#)]).await;
    assert!(client.unassign(&slug(), &id("42")).await.unwrap().assignees.is_empty());
    assert_eq!(sent(&server), ("DELETE /api/conversations/stair-car/assignments/42".into(), Value::Null));
}

#[tokio::test]
async fn a_draft_that_is_there_already_is_no_failure() {
    let draft = DraftReply { body: "<p>".into(), ..DraftReply::default() };
    let made = r#"{"id":"123","sent_at":null,"attachments":[]}"#;
    let (server, client) = served(&[("201 C", made)]).await;
    let written = client.draft_reply(&slug(), &draft).await.unwrap();
    assert_eq!((written.is_new, written.resource.id.as_str()), (true, "123"));
    assert_eq!(sent(&server), ("POST /api/conversations/stair-car/draft_reply".into(), json!({"body": "<p>"})));
    let text = |text: &str| Some(text.to_owned());
    let full = DraftReply {
        member_id: Some(id("42")),
        message_id: Some(id("m-1")),
        to: text("a@x"),
        cc: text("b@x"),
        bcc: text(""),
        ..draft.clone()
    };
    let (server, client) = served(&[("409 C", r#"{"id":"7","html_body":"<p>mine"}"#)]).await;
    let written = client.draft_reply(&slug(), &full).await.unwrap();
    assert_eq!((written.is_new, written.resource.html_body.as_deref()), (false, Some("<p>mine")));
    let all = json!({"body": "<p>", "member_id": 42, "message_id": "m-1", "to": "a@x", "cc": "b@x", "bcc": ""});
    assert_eq!(sent(&server).1, all);
    // Larger than what is read of other errors.
    let long = format!(r#"{{"id":"7","html_body":"{}"}}"#, "x".repeat(200_000));
    let (_server, client) = served(&[("409 C", &long)]).await;
    assert_eq!(client.draft_reply(&slug(), &draft).await.unwrap().resource.raw().get(), long);
    let (_server, client) = served(&[("409 C", r#"{"error":"Draft exists"}"#)]).await;
    assert!(matches!(client.draft_reply(&slug(), &draft).await.unwrap_err(), ApiError::Conflict { .. }));
}

#[tokio::test]
async fn a_contact_is_looked_up_by_its_encoded_address() {
    let (server, client) =
        served(&[("200 OK", r#"{"id":"abc123","name":"Alice Smith","email":"a+b@x.example"}"#)]).await;
    assert_eq!(client.contact("a+b&c@x.example").await.unwrap().name.as_deref(), Some("Alice Smith"));
    assert_eq!(sent(&server).0, "GET /api/contacts/for_email?email=a%2Bb%26c%40x.example");
    let (_server, client) = served(&[("404 N", r#"{"error":"Resource not found"}"#)]).await;
    let error = client.contact("a@x").await.unwrap_err();
    assert_eq!(error.to_string(), "Jelly knows no such contact (404: Resource not found)");
}

#[tokio::test]
async fn a_saved_contact_sends_nothing_that_was_not_named() {
    let saved = r#"{"id":42,"email":"alice@example.com","links":[{"title":"Web","url":"https://a"}],"labels":[{"name":"VIP"}]}"#;
    let (server, client) = served(&[("201 C", saved)]).await;
    let change = ContactChange { email: "alice@example.com".into(), ..ContactChange::default() };
    let written = client.save_contact(&change).await.unwrap();
    assert!(written.is_new);
    assert_eq!(written.resource.links[0].title.as_deref(), Some("Web"));
    assert_eq!(
        (written.resource.labels[0].name.as_deref(), written.resource.labels[0].id.as_ref()),
        (Some("VIP"), None)
    );
    assert_eq!(sent(&server), ("POST /api/contacts".into(), json!({"email": "alice@example.com"})));
    let (server, client) = served(&[("200 OK", saved)]).await;
    let links = vec![("Web".to_owned(), "https://a".to_owned())];
    let full = ContactChange {
        name: Some("Alice".into()),
        note: Some(String::new()),
        links: Some(links),
        labels: Some(Vec::new()),
        ..change
    };
    assert!(!client.save_contact(&full).await.unwrap().is_new);
    let all =
        json!({"email": "alice@example.com", "name": "Alice", "note": "", "links": {"Web": "https://a"}, "labels": []});
    assert_eq!(sent(&server).1, all);
}

#[tokio::test]
async fn what_may_have_been_done_is_said_and_never_sent_again() {
    let warm = answer("200 OK", &[], b"[]");
    for (lost, bytes) in [
        (Then::Close, ""),
        (Then::Stall, ""),
        (Then::Close, "HTTP/1.1 201 Created\r\nContent-Length: 9\r\n\r\n{"),
        (Then::Keep, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"),
        (Then::Keep, "HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\n<p>"),
        (Then::Keep, "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n[]"),
    ] {
        // The first answer leaves a connection in the pool, on which a library might try again by itself.
        let server = Scripted::start(vec![warm.clone(), Answer(bytes.into(), lost), warm.clone()]).await;
        let client = client_at(&server.url("/api"));
        client.labels().await.unwrap();
        let error = client.comment(&slug(), "once").await.unwrap_err();
        assert!(error.may_be_done(), "{bytes:?}: {error:?}");
        let asked = server.asked();
        assert_eq!(asked.iter().filter(|asked| asked.starts_with("POST")).count(), 1, "{bytes:?}");
    }
}

#[tokio::test]
async fn a_write_that_a_limit_refused_was_not_done() {
    let server = Scripted::start(vec![answer("429 L", &["Retry-After: 3"], b"{}")]).await;
    let error = client_at(&server.url("/api")).comment(&slug(), "x").await.unwrap_err();
    assert_eq!((error.wait(), error.may_be_done()), (Some(Duration::from_secs(3)), false));
}

#[test]
fn requests_show_what_would_be_sent() {
    let request = ApiRequest::add_label(&slug(), &id("3"));
    assert_eq!((request.method(), request.path().as_str()), ("POST", "/conversations/stair-car/labels"));
    assert_eq!(request.json(), Some(&json!({"label_id": 3})));
    assert_eq!(ApiRequest::contact("a b@x").path(), "/contacts/for_email?email=a+b%40x");
    assert_eq!(ApiRequest::labels().json(), None);
}
