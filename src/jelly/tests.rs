//! The exchange against a server that says exact bytes; `reading` and `writing` do the same with the other calls.

mod reading;
mod writing;

use std::time::Duration;

use super::*;
use crate::config::HttpConfig;
use crate::http::Decision;
use crate::http::scripted::{Answer, Scripted, Then, answer};

const TOKEN: &str = "t0ken-canary";
const ID: &str = "eyJfcmFpbHMi==--canary/é ?#%2F.~";

fn client_at(base: &str) -> JellyClient {
    let base = BaseUrl::parse(base).unwrap();
    let patience = Duration::from_millis(300);
    let config = HttpConfig { connect_timeout: patience, read_timeout: patience, ..HttpConfig::default() };
    let clients = HttpClients::new(&config, &base).unwrap();
    let clock = Clock::fixed("2026-11-22T00:00:00Z".parse().unwrap());
    let quota = Quota::new(QuotaLimits::NONE, EgressWindow::default());
    JellyClient::new(clients, base, &Secret::new(TOKEN), "acme".parse().unwrap(), quota, clock).unwrap()
}

fn id() -> AttachmentId {
    ID.to_owned().try_into().unwrap()
}

/// The error of an exchange that gets `answer`, with proof that it keeps its secrets.
async fn failure(answer: Answer) -> ApiError {
    let server = Scripted::start(vec![answer]).await;
    let error = client_at(&server.url("/api")).link_to(&id()).await.unwrap_err();
    let shown = format!("{error} {error:?}");
    for canary in ["canary", "t0ken", "eyJ", "/attachments", "X-Amz"] {
        assert!(!shown.contains(canary), "{shown}");
    }
    error
}

#[tokio::test]
async fn the_request_goes_to_the_encoded_id_below_the_base_and_carries_the_token() {
    let server =
        Scripted::start(vec![answer("302 Found", &["Location: https://s.example/a?X-Amz-Signature=1"], b"<a>")]).await;
    let client = client_at(&server.url("/api/"));
    let link = client.link_to(&id()).await.unwrap();
    assert_eq!(format!("{link}"), "https://s.example");
    let asked = server.asked().remove(0);
    let target = "GET /api/attachments/eyJfcmFpbHMi%3D%3D--canary%2F%C3%A9%20%3F%23%252F.~ HTTP/1.1\r\n";
    assert!(asked.starts_with(target), "{asked}");
    let asked = asked.to_lowercase();
    assert!(asked.contains("\r\nauthorization: bearer t0ken-canary\r\n"), "{asked}");
    assert!(asked.contains("\r\naccept-encoding: identity\r\n"), "{asked}");
    assert!(asked.contains("\r\nuser-agent: jellyjar/"), "{asked}");
    assert_eq!(client.requests(), 1);
    assert!(!format!("{client:?}").contains("t0ken"));
}

#[tokio::test]
async fn every_redirect_status_gives_a_link_and_relative_ones_are_resolved() {
    for status in ["301 M", "302 F", "303 S", "307 T", "308 P"] {
        let server = Scripted::start(vec![answer(status, &["Location: /disk/a%2Fb?x=%27"], b"")]).await;
        let link = client_at(&server.url("/api")).link_to(&id()).await.unwrap();
        assert!(link.is_exact());
        assert_eq!(link.open().as_str(), server.url("/disk/a%2Fb?x=%27"));
    }
}

#[tokio::test]
async fn a_redirect_counts_though_its_body_never_ends() {
    let stalled = answer("302 Found", &["Location: https://s.example/a"], b"0123456789").cut(3, Then::Stall);
    let server = Scripted::start(vec![stalled]).await;
    assert!(client_at(&server.url("/api")).link_to(&id()).await.is_ok());
}

#[tokio::test]
async fn every_status_has_its_decision() {
    let json = b"{\"error\":\"No, https://x.example/?X-Amz-Signature=canary eyJcanary\"}";
    for (status, headers, decision) in [
        ("401 Unauthorized", &[][..], Decision::PauseTeam),
        ("403 Forbidden", &[], Decision::ProbeMembers),
        ("404 Not Found", &[], Decision::RetryGone),
        ("422 Unprocessable", &[], Decision::Fail),
        ("418 Teapot", &[], Decision::Fail),
        ("408 Timeout", &[], Decision::RetryAfter(None)),
        ("429 Slow", &[], Decision::PauseEgressGroup(Duration::from_mins(1))),
        ("429 Slow", &["Retry-After: 7"], Decision::PauseEgressGroup(Duration::from_secs(7))),
        ("429 Slow", &["Retry-After: 301"], Decision::PauseTeamFor(Duration::from_secs(301))),
        (
            "429 Slow",
            &["Retry-After: Sun, 22 Nov 2026 00:01:30 GMT"],
            Decision::PauseEgressGroup(Duration::from_secs(90)),
        ),
        ("500 Oops", &[], Decision::RetryAfter(None)),
        ("503 Busy", &["Retry-After: 9"], Decision::RetryAfter(Some(Duration::from_secs(9)))),
        ("200 OK", &[], Decision::RetryAfter(None)),
        ("304 Same", &[], Decision::RetryAfter(None)),
        ("302 Found", &[], Decision::RetryAfter(None)),
        ("302 Found", &["Location: https://10.0.0.1/a?X-Amz-Signature=canary"], Decision::RetryAfter(None)),
        ("302 Found", &["Location: http://s.example/a?X-Amz-Signature=canary"], Decision::RetryAfter(None)),
        ("302 Found", &["Location: https://a.example/", "Location: https://b.example/"], Decision::RetryAfter(None)),
    ] {
        let error = failure(answer(status, headers, json)).await;
        assert_eq!(error.decision(), decision, "{status} {headers:?}: {error}");
    }
}

#[tokio::test]
async fn an_error_body_that_never_ends_or_is_huge_does_not_hide_the_status() {
    let endless = answer("404 Not Found", &[], b"{\"error\":\"x\"}").cut(4, Then::Stall);
    assert!(matches!(failure(endless).await, ApiError::NotFound { .. }));
    let huge = answer("500 Oops", &[], &vec![b'x'; 300_000]);
    assert!(matches!(failure(huge).await, ApiError::Server { status: 500, .. }));
}

#[tokio::test]
async fn silence_is_a_timeout_and_a_dropped_connection_is_not() {
    let silent = failure(Answer(Vec::new(), Then::Stall)).await;
    assert!(matches!(silent, ApiError::Timeout(_)), "{silent:?}");
    let dropped = failure(Answer(Vec::new(), Then::Close)).await;
    assert!(matches!(dropped, ApiError::Connection(_)), "{dropped:?}");
    let garbage = failure(Answer(b"SSH-2.0-OpenSSH\r\n\r\n".to_vec(), Then::Close)).await;
    assert!(matches!(garbage, ApiError::Connection(_)), "{garbage:?}");
}

#[tokio::test]
async fn the_probe_tells_a_refused_token_from_a_refused_attachment() {
    let ok = answer("200 OK", &[], b"[]");
    let (unauthorized, forbidden) = (answer("401 U", &[], b""), answer("403 F", &[], b""));
    let server = Scripted::start(vec![ok, unauthorized, forbidden, answer("500 E", &[], b"")]).await;
    let client = client_at(&server.url("/api"));
    assert!(client.probe_members().await.unwrap());
    assert!(!client.probe_members().await.unwrap());
    assert!(!client.probe_members().await.unwrap());
    assert!(client.probe_members().await.is_err());
    assert!(server.asked()[0].starts_with("GET /api/members HTTP/1.1\r\n"));
    assert_eq!((client.requests(), client.quota().used(client.inner.clock.now()).0), (4, 4));
}

#[test]
fn a_token_that_no_header_can_carry_is_refused_without_showing_it() {
    let base = BaseUrl::parse("http://127.0.0.1:1").unwrap();
    let clients = HttpClients::new(&HttpConfig::default(), &base).unwrap();
    for token in ["", " ", "t0k en", "t0k\u{e9}n", "t0k\nen"] {
        let quota = Quota::new(QuotaLimits::NONE, EgressWindow::default());
        let clock = Clock::system();
        let made =
            JellyClient::new(clients.clone(), base.clone(), &Secret::new(token), "acme".parse().unwrap(), quota, clock);
        let error = made.unwrap_err().to_string();
        assert!(error.contains("team acme") && !error.contains("t0k"), "{error}");
    }
}

#[tokio::test]
async fn redirects_and_errors_leave_the_connection_to_the_next_request() {
    let found = || answer("302 Found", &["Location: https://s.example/a"], b"<html>You are being redirected");
    let missing = || answer("404 Not Found", &[], b"{\"error\":\"Resource not found\"}");
    let server = Scripted::start([found(), missing(), found(), missing(), found(), found()].to_vec()).await;
    let client = client_at(&server.url("/api"));
    for _ in 0..6 {
        // The outcome is another test's matter.
        drop(client.link_to(&id()).await);
    }
    assert_eq!(client.requests(), 6);
    // The pool may hear of the end of a body a moment late, once.
    assert!(server.connections() <= 2, "{}", server.connections());
}
