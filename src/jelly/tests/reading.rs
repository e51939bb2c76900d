//! What lists and single things are read from, and what is made of answers that are none.

use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::Value;

use super::*;

const OK: &str = "200 OK";

fn slug() -> Id {
    "stair car/é".parse().unwrap()
}

async fn served(bodies: &[&str]) -> (Scripted, JellyClient) {
    let server = Scripted::start(bodies.iter().map(|body| answer(OK, &[], body.as_bytes())).collect()).await;
    let client = client_at(&server.url("/api"));
    (server, client)
}

/// The request lines so far.
fn lines(server: &Scripted) -> Vec<String> {
    server.asked().iter().map(|asked| asked.lines().next().unwrap().replace(" HTTP/1.1", "")).collect()
}

#[tokio::test]
async fn conversations_are_walked_page_by_page_with_every_filter_and_raw_texts_unchanged() {
    let first = r#"{"conversations":[{"id":"a","x": [1, 2] ,"attachments_count":3},{"id":7}],"next_cursor":"c/1&="}"#;
    let (server, client) = served(&[first, r#"{"conversations":[],"next_cursor":null}"#]).await;
    let filter = ConversationFilter {
        status: Some("open".into()),
        label_id: Some("3".parse().unwrap()),
        mailbox_id: Some("m 1".parse().unwrap()),
        limit: None,
    };
    let pages: Vec<_> = client.conversations(filter, None).try_collect().await.unwrap();
    assert_eq!(pages.len(), 2);
    assert_eq!(pages[0].entries[0].raw().get(), r#"{"id":"a","x": [1, 2] ,"attachments_count":3}"#);
    assert_eq!((pages[0].entries[0].attachments_count, pages[0].entries[1].id.as_str()), (Some(3), "7"));
    assert_eq!((pages[0].cursor.as_ref(), pages[1].cursor.as_ref()), (None, pages[0].next_cursor.as_ref()));
    assert_eq!(
        lines(&server),
        [
            "GET /api/conversations?limit=100&status=open&label_id=3&mailbox_id=m+1",
            "GET /api/conversations?limit=100&cursor=c%2F1%26%3D&status=open&label_id=3&mailbox_id=m+1",
        ]
    );
    assert!(server.asked().iter().all(|asked| asked.to_lowercase().contains("authorization: bearer t0ken-canary")));
}

#[tokio::test]
async fn a_walk_asks_for_no_page_before_it_is_wanted_and_goes_on_at_a_kept_cursor() {
    let (server, client) = served(&[r#"{"messages":[{"id":1}],"next_cursor":12}"#]).await;
    let kept: Cursor = serde_json::from_str("\"kept\"").unwrap();
    let mut pages = Box::pin(client.messages(slug(), Some(kept)));
    assert_eq!(lines(&server).len(), 0);
    let page = pages.next().await.unwrap().unwrap();
    assert_eq!(page.next_cursor.unwrap().as_str(), "12");
    assert_eq!(lines(&server), ["GET /api/conversations/stair%20car%2F%C3%A9/messages?limit=100&cursor=kept"]);
}

#[tokio::test]
async fn a_walk_ends_at_its_first_error_and_where_cursors_go_in_circles() {
    let page = |next: &str| format!("{{\"conversations\":[],\"next_cursor\":{next:?}}}");
    let (server, client) = served(&[&page("b"), &page("c"), &page("b")]).await;
    let mut pages = Box::pin(client.conversations(ConversationFilter::default(), None));
    assert!(pages.next().await.unwrap().is_ok() && pages.next().await.unwrap().is_ok());
    assert!(matches!(pages.next().await, Some(Err(ApiError::CursorLoop { pages: 3 }))));
    assert!(pages.next().await.is_none());
    assert_eq!(lines(&server).len(), 3);

    let (_server, client) = served(&[&page("same")]).await;
    let same = Cursor::try_from("same".to_owned()).unwrap();
    let error = client.conversations_page(&ConversationFilter::default(), Some(&same)).await.unwrap_err();
    assert!(matches!(error, ApiError::CursorLoop { .. }), "{error:?}");
}

#[tokio::test]
async fn a_walk_ends_where_pages_go_on_and_on_without_an_entry() {
    let page = |number: usize, entries: &str| format!("{{\"messages\":[{entries}],\"next_cursor\":\"c{number}\"}}");
    let most = usize::try_from(Trail::MOST_EMPTY_PAGES).unwrap();
    // An entry, read or not, begins the count anew.
    let entries = |number: usize| if number == most - 2 { "7" } else { "" };
    let texts: Vec<String> = (0..3 * most).map(|number| page(number, entries(number))).collect();
    let (server, client) = served(&texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let pages: Vec<_> = client.messages(slug(), None).collect().await;
    let (last, before) = pages.split_last().unwrap();
    assert!(matches!(last, Err(ApiError::EmptyPages { pages: 10 })), "{last:?}");
    assert!(before.iter().all(Result::is_ok));
    assert_eq!((pages.len(), lines(&server).len()), (2 * most - 1, 2 * most - 1));
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_is_kept_and_costs_no_other() {
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let body =
        format!(r#"{{"messages":[{{"id":1}},{{"no":"id"}},7,{{"id":2,"x":{deep}}},{{"id":3}}],"next_cursor":""}}"#);
    let (_server, client) = served(&[&body]).await;
    let page = client.messages_page(&slug(), None, Some(200)).await.unwrap();
    let ids: Vec<&str> = page.entries.iter().map(|message| message.id.as_str()).collect();
    assert_eq!((ids.as_slice(), page.next_cursor), (["1", "3"].as_slice(), None));
    let raws: Vec<&str> = page.unreadable.iter().map(|entry| entry.raw.get()).collect();
    assert_eq!(raws[..2], [r#"{"no":"id"}"#, "7"]);
    assert!(raws[2].contains("[[[") && page.unreadable[2].reason.contains("recursion"), "{:?}", page.unreadable);
    assert!(page.unreadable[0].reason.contains("missing field `id`"), "{:?}", page.unreadable);
}

#[tokio::test]
async fn a_full_page_that_tells_nothing_of_the_next_is_never_taken_for_the_last() {
    let (_server, client) = served(&[r#"{"messages":[{"id":1}]}"#, r#"{"messages":[{"id":1}]}"#]).await;
    let error = client.messages_page(&slug(), None, Some(1)).await.unwrap_err();
    assert!(error.to_string().contains("without \"next_cursor\""), "{error}");
    assert!(client.messages_page(&slug(), None, Some(2)).await.unwrap().next_cursor.is_none());
}

#[tokio::test]
async fn pages_of_another_shape_are_refused_with_what_is_wrong() {
    for (body, hint) in [
        ("[]", "invalid type"),
        ("{}", "without \"conversations\""),
        (r#"{"conversations":{}}"#, "invalid type"),
        (r#"{"conversations":null}"#, "invalid type"),
        (r#"{"conversations":[],"next_cursor":{}}"#, "neither text nor null"),
        (r#"{"conversations":[],"next_cursor":true}"#, "neither text nor null"),
    ] {
        let (_server, client) = served(&[body]).await;
        let error = client.conversations_page(&ConversationFilter::default(), None).await.unwrap_err();
        assert!(error.to_string().contains(hint), "{body}: {error}");
        assert_eq!(error.decision(), Decision::RetryAfter(None));
    }
    let long = format!(r#"{{"conversations":[],"next_cursor":"{}"}}"#, "x".repeat(4_097));
    let (_server, client) = served(&[&long]).await;
    let error = client.conversations_page(&ConversationFilter::default(), None).await.unwrap_err();
    assert!(matches!(error, ApiError::InvalidId(_)), "{error}");
}

#[tokio::test]
async fn single_conversations_and_messages_are_read_and_kept_as_they_came() {
    let conversation = r#" {"id":"stair-car","messages":[{"id":"1","attachments":[{"id":"e"}]}],"new":{"a":1}} "#;
    let (server, client) = served(&[conversation, r#"{"id":12,"conversation_id":"stair-car"}"#, "[]"]).await;
    let read = client.conversation(&slug()).await.unwrap();
    assert_eq!((read.messages.len(), read.raw().get()), (1, conversation.trim()));
    assert_eq!(read.other["new"], serde_json::json!({"a": 1}));
    let message = client.message(&"12".parse().unwrap()).await.unwrap();
    assert_eq!(message.conversation_id.as_ref().unwrap().as_str(), "stair-car");
    assert!(client.message(&slug()).await.is_err());
    assert_eq!(lines(&server)[..2], ["GET /api/conversations/stair%20car%2F%C3%A9", "GET /api/messages/12"]);
}

#[tokio::test]
async fn lists_of_a_team_come_bare_or_named() {
    let bodies = [
        r#"[{"id":1,"name":"Bug","color":"cherry"},{"id":"2","name":"Feature"}]"#,
        r#"[{"id":"42","name":"Michael Bluth","email":"michael@bluth.company","role":"owner","active":true}]"#,
        r#"{"mailboxes":[{"id":5,"name":"Support","email":"s@x.example"}]}"#,
        r#"{"members":[{"id":42}],"next_cursor":null}"#,
    ];
    let (server, client) = served(&bodies).await;
    let labels = client.labels().await.unwrap();
    assert_eq!((labels.len(), labels[0].id.as_ref().unwrap().as_str()), (2, "1"));
    let members = client.members().await.unwrap();
    assert_eq!((members[0].id.as_str(), members[0].active), ("42", Some(true)));
    assert_eq!(client.mailboxes().await.unwrap()[0].email.as_deref(), Some("s@x.example"));
    assert_eq!(client.mailbox_members(&"5".parse().unwrap()).await.unwrap()[0].id.as_str(), "42");
    assert_eq!(
        lines(&server),
        ["GET /api/labels", "GET /api/members", "GET /api/mailboxes", "GET /api/mailboxes/5/members"]
    );
    assert_eq!((client.requests(), client.quota().used(client.inner.clock.now()).0), (4, 4));

    let (_server, client) = served(&[r#"{"labels":[],"next_cursor":"more"}"#, r#"{"tags":[]}"#, "[1]"]).await;
    for hint in ["in pages", "without \"labels\"", "invalid type"] {
        let error = client.labels().await.unwrap_err();
        assert!(error.to_string().contains(hint), "{error}");
    }
}

#[tokio::test]
async fn every_documented_error_is_a_variant() {
    let error = async |status: &str, headers: &[&str], body: &str| {
        let server = Scripted::start(vec![answer(status, headers, body.as_bytes())]).await;
        let error = client_at(&server.url("/api")).conversation(&slug()).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
        error
    };
    let unauthorized = error("401 U", &[], r#"{"error":"Invalid API token t0ken-canary"}"#).await;
    assert!(matches!(unauthorized, ApiError::Unauthorized(words) if words == "Invalid API token [cut]"));
    let missing = error("404 N", &[], r#"{"error":"Resource not found"}"#).await;
    assert_eq!(missing.to_string(), "Jelly knows no such conversation (404: Resource not found)");
    assert!(matches!(error("404 N", &[], r#"{"error":"Endpoint not found"}"#).await, ApiError::WrongEndpoint));
    assert!(matches!(error("404 N", &[], "<html>").await, ApiError::NotJson { status: 404, .. }));
    let conflict = error("409 C", &[], r#"{"id":9,"new":true}"#).await;
    assert!(
        matches!(conflict, ApiError::Conflict { existing, .. } if existing.raw().get() == r#"{"id":9,"new":true}"#)
    );
    let invalid = error("422 I", &[], r#"{"errors":["Name can't be blank","Too long"]}"#).await;
    assert!(matches!(invalid, ApiError::Invalid(messages) if messages == ["Name can't be blank", "Too long"]));
    let limited = error("429 L", &["Retry-After: 7"], "{}").await;
    assert_eq!(limited.wait(), Some(Duration::from_secs(7)));
    assert!(matches!(error("500 S", &[], r#"{"error":"x"}"#).await, ApiError::Server { status: 500, .. }));
    assert!(matches!(error("418 T", &[], "{}").await, ApiError::Rejected { status: 418, .. }));
    for (body, found) in
        [("", "an empty body"), ("<p>", "a page (HTML or XML)"), ("{\"a\":", "a body that is not JSON")]
    {
        let not_json = error(OK, &[], body).await;
        assert!(matches!(&not_json, ApiError::NotJson { status: 200, found: what } if *what == found), "{not_json:?}");
    }
}

#[tokio::test]
async fn a_redirect_is_never_followed() {
    let target = Scripted::start(vec![answer(OK, &[], b"[]")]).await;
    let location = format!("Location: {}", target.url("/canary"));
    let server = Scripted::start(vec![answer("302 Found", &[location.as_str()], b"")]).await;
    let error = client_at(&server.url("/api")).labels().await.unwrap_err();
    assert!(error.to_string().contains("status 302") && !error.to_string().contains("canary"), "{error}");
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn answers_are_bounded_in_size_and_time() {
    let bounds = Bounds { max_answer_bytes: 100, patience: Duration::from_millis(200) };
    let long = format!("[{}]", " ".repeat(99));
    let chunked = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n{long}\r\n0\r\n\r\n");
    let fits = format!("[{}]", " ".repeat(98));
    let server = Scripted::start(vec![
        answer(OK, &[], long.as_bytes()),
        Answer(chunked.into_bytes(), Then::Keep),
        answer(OK, &[], fits.as_bytes()),
        answer(OK, &[], b"[1]").cut(1, Then::Stall),
        answer(OK, &[], b"[1]").cut(1, Then::Close),
    ])
    .await;
    let client = client_at(&server.url("/api")).bounded_by(bounds);
    for _ in 0..2 {
        let error = client.labels().await.unwrap_err();
        assert!(matches!(error, ApiError::TooLarge { limit_bytes: 100 }), "{error}");
    }
    assert!(client.labels().await.unwrap().is_empty());
    assert!(matches!(client.labels().await.unwrap_err(), ApiError::Timeout(_)));
    assert!(matches!(client.labels().await.unwrap_err(), ApiError::Connection(_)));
}

#[tokio::test]
async fn a_used_up_quota_sends_nothing_and_tells_how_long() {
    let server = Scripted::start(vec![answer(OK, &[], b"[]")]).await;
    let base = BaseUrl::parse(&server.url("/api")).unwrap();
    let clients = HttpClients::new(&HttpConfig::default(), &base).unwrap();
    let clock = Clock::fixed("2026-11-22T23:59:00Z".parse().unwrap());
    let quota = Quota::new(QuotaLimits { per_day: Some(1), ..QuotaLimits::NONE }, EgressWindow::default());
    let client =
        JellyClient::new(clients, base, &Secret::new(TOKEN), "acme".parse().unwrap(), quota, clock.clone()).unwrap();
    client.labels().await.unwrap();
    let error = client.labels().await.unwrap_err();
    assert_eq!(error.wait(), Some(Duration::from_mins(1)));
    assert_eq!((client.requests(), server.asked().len()), (1, 1));
    clock.advance_ms(60_000);
    // Sent again, though nobody answers.
    assert!(matches!(client.labels().await.unwrap_err(), ApiError::Connection(_)));
}

/// A page's entries are payloads as they stand.
#[tokio::test]
async fn raw_texts_are_json_of_their_own() {
    let (_server, client) = served(&[r#"{"messages":[{"id":1,"html_body":"\ud83d\ude00\u001b"}]}"#]).await;
    let page = client.messages_page(&slug(), None, None).await.unwrap();
    let raw: Value = serde_json::from_str(page.entries[0].raw().get()).unwrap();
    assert_eq!(raw["html_body"].as_str(), page.entries[0].html_body.as_deref());
}
