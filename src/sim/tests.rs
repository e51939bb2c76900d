//! The simulator seen through its listeners.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{ACCEPT_RANGES, CONTENT_RANGE, CONTENT_TYPE, ETAG, LOCATION, RETRY_AFTER};
use reqwest::{Client, Method, Response, StatusCode};

use super::content::Kind;
use super::ids::{Blob, IdKey};
use super::*;

mod calls;
mod walk;
mod webhooks;

const SIZE_BYTES: u64 = 200_000;

/// A simulator and a client that follows nothing.
struct World {
    sim: Sim,
    client: Client,
    clock: Clock,
}

impl World {
    async fn new(faults: &str) -> Self {
        Self::with(SimConfig { faults: faults.parse().unwrap(), ..SimConfig::default() }).await
    }

    async fn with(config: SimConfig) -> Self {
        let clock = Clock::fixed(Timestamp::from_second(1_800_000_000).unwrap());
        let sim = Sim::start(SimConfig { clock: clock.clone(), ..config }).await.unwrap();
        let none = reqwest::redirect::Policy::none();
        let client = Client::builder().redirect(none).no_proxy().referer(false).build().unwrap();
        Self { sim, client, clock }
    }

    async fn api(&self, path: &str) -> Response {
        let url = format!("{}{path}", self.sim.base_url());
        self.client.get(url).bearer_auth("sim-token").send().await.unwrap()
    }

    async fn exchange(&self, number: u64) -> Response {
        self.api(&format!("/attachments/{}", id(number, SIZE_BYTES))).await
    }

    /// A fresh link to a file.
    async fn link(&self, number: u64, size_bytes: u64) -> String {
        let answer = self.api(&format!("/attachments/{}", id(number, size_bytes))).await;
        assert_eq!(answer.status(), StatusCode::FOUND);
        location(&answer)
    }

    async fn download(&self, number: u64) -> reqwest::Result<Response> {
        self.client.get(self.link(number, SIZE_BYTES).await).send().await
    }

    async fn get(&self, link: &str, name: &'static str, value: &str) -> Response {
        self.client.get(link).header(name, value).send().await.unwrap()
    }
}

fn id(number: u64, size_bytes: u64) -> String {
    IdKey::new(1, "").mint(Blob { number, kind: Kind::Plain, content: number, size_bytes })
}

fn location(answer: &Response) -> String {
    answer.headers()[LOCATION].to_str().unwrap().to_owned()
}

/// The true bytes of a file.
fn truth(number: u64, size_bytes: u64) -> Vec<u8> {
    let blob = Blob { number, kind: Kind::Plain, content: number, size_bytes };
    let mut bytes = Vec::new();
    super::content::Contents::new(1, false).source(blob).fill(0, size_bytes, &mut bytes);
    bytes
}

#[tokio::test]
async fn an_id_is_exchanged_for_a_link_that_gives_the_declared_bytes() {
    let world = World::new("").await;
    let answer = world.exchange(3).await;
    assert_eq!(answer.status(), StatusCode::FOUND);
    let link = location(&answer);
    assert!(link.starts_with(&world.sim.storage_url()));
    assert!(answer.text().await.unwrap().contains("redirected"));
    let file = world.client.get(&link).send().await.unwrap();
    assert_eq!(file.content_length(), Some(SIZE_BYTES));
    assert_eq!(file.headers()[ACCEPT_RANGES], "bytes");
    assert!(file.bytes().await.unwrap() == truth(3, SIZE_BYTES));
    assert_ne!(world.link(3, SIZE_BYTES).await, link, "each exchange mints a fresh link");
    let encoded = id(3, SIZE_BYTES).replace('=', "%3D").replace('-', "%2D");
    assert_eq!(world.api(&format!("/attachments/{encoded}")).await.status(), StatusCode::FOUND);
    let stats = world.sim.stats();
    assert_eq!((stats.api_requests, stats.exchanges, stats.links), (3, 3, 3));
    assert_eq!((stats.storage_requests, stats.bytes_served, stats.storage_authorization_seen), (1, SIZE_BYTES, 0));
    assert_eq!(world.sim.exchange_counts(), HashMap::from([(id(3, SIZE_BYTES), 3)]));
}

#[tokio::test]
async fn whatever_is_not_ours_is_refused_in_json() {
    let world = World::new("").await;
    let tampered = id(3, SIZE_BYTES).replacen('e', "f", 1);
    for path in [&format!("/attachments/{tampered}"), "/attachments/%2E%2E%2Fetc", "/attachments/%FF", "/attachments/x"]
    {
        let answer = world.api(path).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(answer.text().await.unwrap(), r#"{"error":"Resource not found"}"#);
    }
    for path in ["/nothing", "/attachments", "/attachments/a/b"] {
        assert_eq!(world.api(path).await.text().await.unwrap(), r#"{"error":"Endpoint not found"}"#, "{path}");
    }
    let url = format!("{}/members", world.sim.base_url());
    let answer = world.client.get(&url).bearer_auth("wrong").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(answer.text().await.unwrap(), r#"{"error":"Invalid API token"}"#);
    assert!(world.api("/members").await.json::<serde_json::Value>().await.unwrap()[0]["id"].is_string());
    world.sim.set_token("another");
    assert_eq!(world.api("/members").await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_link_is_dead_after_its_time_and_when_touched() {
    let world = World::new("").await;
    let link = world.link(1, 10).await;
    let touched = world.client.get(link.replace("%252B", "%2B")).send().await.unwrap();
    assert_eq!(touched.status(), StatusCode::FORBIDDEN);
    assert!(touched.text().await.unwrap().contains("SignatureDoesNotMatch"));
    let head = world.client.request(Method::HEAD, &link).send().await.unwrap();
    assert_eq!(head.status(), StatusCode::FORBIDDEN);
    world.clock.advance_ms(299_999);
    assert_eq!(world.client.get(&link).send().await.unwrap().status(), StatusCode::OK);
    world.clock.advance_ms(1);
    let expired = world.client.get(&link).send().await.unwrap();
    assert_eq!(expired.status(), StatusCode::FORBIDDEN);
    assert!(expired.text().await.unwrap().contains("Request has expired"));
}

#[tokio::test]
async fn a_token_at_the_storage_is_refused_and_counted() {
    let world = World::new("").await;
    let link = world.link(1, 10).await;
    let answer = world.client.get(&link).bearer_auth("sim-token").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    assert!(answer.text().await.unwrap().contains("Only one auth mechanism allowed"));
    assert_eq!(world.sim.stats().storage_authorization_seen, 1);
}

#[tokio::test]
async fn ranges_continue_a_download_under_its_etag() {
    let world = World::new("").await;
    let link = world.link(4, SIZE_BYTES).await;
    let etag = world.client.get(&link).send().await.unwrap().headers()[ETAG].to_str().unwrap().to_owned();
    let part = world.client.get(&link).header("range", "bytes=70001-").header("if-match", &etag).send().await.unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.headers()[CONTENT_RANGE], format!("bytes 70001-199999/{SIZE_BYTES}"));
    assert!(part.bytes().await.unwrap() == truth(4, SIZE_BYTES)[70_001..]);
    assert_eq!(world.get(&link, "if-match", "\"other\"").await.status(), StatusCode::PRECONDITION_FAILED);
    assert_eq!(world.get(&link, "range", "bytes=200000-").await.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    let empty = world.link(5, 0).await;
    assert_eq!(world.get(&empty, "range", "bytes=0-").await.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    let whole = world.client.get(&empty).send().await.unwrap();
    assert_eq!((whole.status(), whole.content_length()), (StatusCode::OK, Some(0)));
    assert_eq!(world.sim.stats().storage_ranges, 1);
}

#[tokio::test]
async fn a_connection_survives_refusals_and_head() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let world = World::new("").await;
    let mut stream = tokio::net::TcpStream::connect(world.sim.api_address).await.unwrap();
    // Sent at once: each answer must end where the next begins.
    let requests = "HEAD /api/x HTTP/1.1\r\nAuthorization: Bearer sim-token\r\n\r\nGET /api/members HTTP/1.1\r\n\r\n\
                    GET /api/members HTTP/1.1\r\nauthorization: Bearer sim-token\r\nConnection: close\r\n\r\n";
    stream.write_all(requests.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let answers: Vec<_> = text.split("HTTP/1.1 ").skip(1).collect();
    assert_eq!(answers.iter().map(|answer| &answer[..3]).collect::<Vec<_>>(), ["404", "401", "200"]);
    assert!(answers[0].ends_with("\r\n\r\n") && answers[1].ends_with('}') && answers[2].ends_with(']'), "{text}");
}

#[tokio::test]
async fn limits_answer_429_until_their_window_ends() {
    let limits = LimitConfig { window: Some((2, Duration::from_mins(5))), per_day: None };
    let world = World::with(SimConfig { limits, ..SimConfig::default() }).await;
    for _ in 0..2 {
        assert_eq!(world.api("/members").await.status(), StatusCode::OK);
    }
    let answer = world.api("/members").await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.headers()[RETRY_AFTER], "300");
    world.clock.advance_ms(300_000);
    assert_eq!(world.api("/members").await.status(), StatusCode::OK);
}

/// Every fault of the API, and the status that shows it; 0 for a connection that breaks.
#[tokio::test]
async fn each_fault_of_the_api_fires_once_and_then_all_is_well() {
    let expected = [
        ("api-401", 401),
        ("api-403", 403),
        ("api-404", 404),
        ("api-429", 429),
        ("api-429-date", 429),
        ("api-500", 500),
        ("api-503", 503),
        ("api-html", 200),
        ("api-reset", 0),
        ("missing-location", 302),
        ("link-metadata", 302),
        ("link-private", 302),
        ("expired-link", 302),
        ("short-link", 302),
    ];
    for (number, (name, status)) in (0..).zip(expected) {
        let world = World::new(&format!("{name}=first:1,retry-after=7")).await;
        let url = format!("{}/attachments/{}", world.sim.base_url(), id(number, 10));
        let first = world.client.get(&url).bearer_auth("sim-token").send().await;
        assert_eq!(first.as_ref().map_or(0, |answer| answer.status().as_u16()), status, "{name}");
        if let Ok(answer) = first {
            let header = |name| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            match name {
                "api-429" => assert_eq!(header(RETRY_AFTER).unwrap(), "7"),
                "api-429-date" => assert_eq!(header(RETRY_AFTER).unwrap(), "Fri, 15 Jan 2027 08:00:07 GMT"),
                "missing-location" => assert_eq!(header(LOCATION), None),
                "link-metadata" => assert!(header(LOCATION).unwrap().starts_with("http://169.254.169.254/")),
                "expired-link" => {
                    let answer = world.client.get(location(&answer)).send().await.unwrap();
                    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
                }
                "short-link" => {
                    world.clock.advance_ms(1000);
                    let answer = world.client.get(location(&answer)).send().await.unwrap();
                    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
                }
                _ => {}
            }
        }
        let link = world.link(number, 10).await;
        assert_eq!(world.client.get(link).send().await.unwrap().bytes().await.unwrap(), truth(number, 10), "{name}");
        assert_eq!(world.sim.stats().faults, [(name.to_owned(), 1)].into(), "{name}");
    }
}

/// What a client can see of one download.
#[derive(Debug, PartialEq)]
enum Seen {
    Status(u16),
    Broken,
    Size(u64),
    Wrong,
    Right,
}

async fn seen(world: &World) -> (Seen, Option<String>) {
    let Ok(answer) = world.download(1).await else { return (Seen::Broken, None) };
    let etag = answer.headers().get(ETAG).map(|value| value.to_str().unwrap().to_owned());
    if answer.status() != StatusCode::OK {
        return (Seen::Status(answer.status().as_u16()), etag);
    }
    let Ok(bytes) = answer.bytes().await else { return (Seen::Broken, etag) };
    let right = truth(1, SIZE_BYTES);
    let seen = if bytes == right {
        Seen::Right
    } else if bytes.len() == right.len() {
        Seen::Wrong
    } else {
        Seen::Size(bytes.len() as u64)
    };
    (seen, etag)
}

#[tokio::test]
async fn each_fault_of_the_storage_fires_once_and_then_all_is_well() {
    let expected = [
        ("lost", Seen::Status(404)),
        ("storage-403", Seen::Status(403)),
        ("storage-404", Seen::Status(404)),
        ("storage-500", Seen::Status(500)),
        ("storage-503", Seen::Status(503)),
        ("redirect", Seen::Status(307)),
        ("redirect-loop", Seen::Status(307)),
        ("redirect-metadata", Seen::Status(307)),
        ("redirect-private", Seen::Status(307)),
        ("html-page", Seen::Size(super::api::LOGIN_PAGE.len() as u64)),
        ("html-octets", Seen::Size(super::api::LOGIN_PAGE.len() as u64)),
        ("json-page", Seen::Size(33)),
        ("xml-page", Seen::Size(148)),
        ("wrong-size", Seen::Size(SIZE_BYTES + 7)),
        ("flip", Seen::Wrong),
        ("flip-silent", Seen::Wrong),
        ("short-length", Seen::Size(SIZE_BYTES - 1)),
        ("long-length", Seen::Broken),
        ("truncate", Seen::Broken),
        ("reset", Seen::Broken),
        ("storage-reset", Seen::Broken),
        ("slow", Seen::Right),
    ];
    for (name, first) in expected {
        let world = World::new(&format!("{name}=first:1,slow-bytes-per-second=4000000")).await;
        let (got, first_etag) = seen(&world).await;
        assert_eq!(got, first, "{name}");
        let (got, etag) = seen(&world).await;
        assert_eq!(got, Seen::Right, "{name}");
        match name {
            "flip" => assert_eq!(first_etag, etag, "a flipped byte hides behind the true tag"),
            "flip-silent" => assert_eq!(first_etag, None),
            _ => {}
        }
        assert_eq!(world.sim.stats().faults, [(name.to_owned(), 1)].into(), "{name}");
    }
}

#[tokio::test]
async fn a_stalled_body_sends_half_and_holds_the_connection() {
    let world = World::new("stall=first:1,api-stall=0").await;
    let mut answer = world.download(1).await.unwrap();
    let mut got = 0;
    while got < SIZE_BYTES / 2 {
        got += answer.chunk().await.unwrap().unwrap().len() as u64;
    }
    assert_eq!(got, SIZE_BYTES / 2);
    let next = tokio::time::timeout(Duration::from_millis(100), answer.chunk()).await;
    assert!(next.is_err(), "nothing more may come, nor may the connection end");
}

#[tokio::test]
async fn the_control_pages_steer_without_a_token() {
    let world = World::new("").await;
    let control = world.sim.control_url();
    let put = |page: &str, body: &'static str| world.client.put(format!("{control}/{page}")).body(body).send();
    assert_eq!(put("faults", r#"{"api-500": 1}"#).await.unwrap().status(), StatusCode::OK);
    assert_eq!(world.exchange(1).await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(put("faults", r#"{"nonsense": 1}"#).await.unwrap().status(), StatusCode::UNPROCESSABLE_ENTITY);
    let lines = world.client.get(format!("{control}/exchanges")).send().await.unwrap().text().await.unwrap();
    assert_eq!(lines, format!("{{\"id\":\"{}\",\"count\":1}}\n", id(1, SIZE_BYTES)));
    let stats = world.client.get(format!("{control}/stats")).send().await.unwrap();
    let stats: serde_json::Value = stats.json().await.unwrap();
    assert_eq!((&stats["exchanges"], &stats["faults"]["api-500"]), (&1.into(), &1.into()));
    world.client.post(format!("{control}/reset")).send().await.unwrap();
    assert_eq!(world.sim.stats().exchanges, 0);
    assert_eq!(put("token", "new").await.unwrap().status(), StatusCode::OK);
    assert_eq!(world.exchange(1).await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn html_and_svg_are_served_as_octets() {
    let world = World::new("").await;
    let mut types = HashSet::new();
    for kind in [Kind::Html, Kind::Svg, Kind::Pdf] {
        let blob = Blob { number: 1, kind, content: 1, size_bytes: 5 };
        let link = location(&world.api(&format!("/attachments/{}", IdKey::new(1, "").mint(blob))).await);
        let answer = world.client.get(link).send().await.unwrap();
        types.insert(answer.headers()[CONTENT_TYPE].to_str().unwrap().to_owned());
    }
    assert_eq!(types, ["application/octet-stream", "application/pdf"].map(str::to_owned).into());
}
