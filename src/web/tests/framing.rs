//! Requests at the edge of HTTP and beyond it: no crash, no hang, and no request inside another.

use tokio::io::AsyncWriteExt as _;

use super::client::{Client, ask, request, sign, webhook};
use super::*;

const BODY: &[u8] = b"{}";

/// A request whose head is given but for the signature, line ends and the empty line.
fn raw(lines: &[&str], rest: &str) -> Vec<u8> {
    let signature = format!("X-Jelly-Signature: {}", sign(SECRET, BODY));
    let mut lines = lines.to_vec();
    lines.insert(1, &signature);
    format!("{}\r\n\r\n{rest}", lines.join("\r\n")).into_bytes()
}

const POST: &str = "POST /webhooks/default HTTP/1.1\r\nHost: t";

#[tokio::test]
async fn what_is_framed_in_two_ways_hides_no_second_request() {
    let world = World::start().await;
    let hidden = String::from_utf8(webhook("default", SECRET, b"hidden")).unwrap();
    let chunks = format!("2\r\n{{}}\r\n0\r\n\r\n{hidden}");
    let length = format!("Content-Length: {}", chunks.len());
    for lines in [
        [POST, &length, "Transfer-Encoding: chunked"],
        [POST, "Transfer-Encoding: chunked", &length],
        [POST, "Transfer-Encoding: chunked", "Content-Length: 0"],
        [POST, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
    ] {
        let mut client = Client::connect(world.address).await;
        client.send(&raw(&lines, &chunks)).await;
        let reply = client.reply().await.unwrap();
        assert!([200, 400].contains(&reply.status), "{lines:?}: {reply:?}");
        assert!(client.is_closed().await, "{lines:?}");
    }
    assert!(world.kept.bodies().iter().all(|(_, body)| &body[..] == BODY), "{:?}", world.kept.bodies());
}

#[tokio::test]
async fn requests_that_break_the_rules_are_refused_and_end_their_connection() {
    let world = World::start().await;
    let filler = format!("X-Filler: {}", "x".repeat(20 << 10));
    let path = format!("POST /webhooks/{} HTTP/1.1", "x".repeat(70_000));
    let many: Vec<String> = (0..200).map(|number| format!("X-{number}: y")).collect();
    let many = many.join("\r\n");
    let chunked = "Transfer-Encoding: chunked";
    let cases: [(&[&str], &str, &[u16]); 24] = [
        (&[POST, "Content-Length: 2", "Content-Length: 3"], "{}x", &[400]),
        (&[POST, "Content-Length: 2, 3"], "{}x", &[400]),
        (&[POST, "Content-Length: +2"], "{}", &[400]),
        (&[POST, "Content-Length: -2"], "{}", &[400]),
        (&[POST, "Content-Length: 0x2"], "{}", &[400]),
        (&[POST, "Content-Length: 99999999999999999999999"], "{}", &[400]),
        (&[POST, "Content-Length: 18446744073709551615"], "{}", &[400, 413, 431]),
        (&[POST, "Content-Length : 2"], "{}", &[400]),
        (&[POST, "X-Folded: a", " b", "Content-Length: 2"], "{}", &[400]),
        (&[POST, "X-Nul: \0", "Content-Length: 2"], "{}", &[400]),
        (&[POST, "X-Return: a\rb", "Content-Length: 2"], "{}", &[400]),
        (&[POST, "Transfer-Encoding: xchunked"], "2\r\n{}\r\n0\r\n\r\n", &[400]),
        (&[POST, "Transfer-Encoding: chunked, identity"], "2\r\n{}\r\n0\r\n\r\n", &[400]),
        (&["POST /webhooks/default HTTP/1.0", chunked], "2\r\n{}\r\n0\r\n\r\n", &[400]),
        (&[POST, chunked], "zz\r\n{}\r\n0\r\n\r\n", &[400]),
        (&[POST, chunked], "fffffffffffffffff\r\n{}\r\n0\r\n\r\n", &[400]),
        (&[POST, chunked], "2\r\n{}xx\r\n0\r\n\r\n", &[400]),
        (&[POST, "Content-Length: 2", &filler], "{}", &[431]),
        (&[POST, "Content-Length: 2", &many], "{}", &[431]),
        (&[&path, "Content-Length: 2"], "{}", &[414, 431]),
        (&["POST /webhooks/default HTTP/9.1", "Content-Length: 2"], "{}", &[400]),
        (&["POST /webhooks/default", "Content-Length: 2"], "{}", &[400]),
        (&["GET /a b HTTP/1.1"], "", &[400]),
        (&["\u{16}\u{3}\u{1}\u{2}"], "", &[400]),
    ];
    for (lines, rest, statuses) in cases {
        let mut client = Client::connect(world.address).await;
        client.send(&raw(lines, rest)).await;
        let reply = client.reply().await.unwrap_or_else(|| panic!("no answer to {lines:.200?}"));
        assert!(statuses.contains(&reply.status), "{lines:.200?}: {reply:?}");
        assert!(client.is_closed().await, "{lines:.200?}");
    }
    assert_eq!(world.kept.bodies(), []);
    assert_eq!(ask(world.address, &webhook("default", SECRET, BODY)).await.status, 200);
}

#[tokio::test]
async fn bytes_that_are_no_http_do_no_harm() {
    let world = World::start().await;
    // xorshift: the same bytes in each run.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..200_u32 {
        let mut bytes = webhook("nobody", SECRET, b"0123456789");
        match round % 4 {
            0 => bytes = (0..next() % 3000).map(|_| next().to_le_bytes()[0]).collect(),
            1 => bytes.truncate(usize::try_from(next()).unwrap() % bytes.len()),
            2 => bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            _ => {
                for _ in 0..3 {
                    let at = usize::try_from(next()).unwrap() % bytes.len();
                    bytes[at] = next().to_le_bytes()[0];
                }
            }
        }
        let mut client = Client::connect(world.address).await;
        client.send(&bytes).await;
        _ = client.stream.shutdown().await;
        client.is_closed().await;
    }
    assert_eq!(world.kept.bodies(), []);
    assert_eq!(ask(world.address, &webhook("default", SECRET, BODY)).await.status, 200);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_kept_in_order() {
    let world = World::start().await;
    let bodies: Vec<String> = (0..50).map(|number| format!("{{\"number\":{number}}}")).collect();
    let mut bytes = Vec::new();
    for body in &bodies {
        bytes.extend(webhook("default", SECRET, body.as_bytes()));
        bytes.extend(request("GET", "/webhooks/default", &[], b""));
    }
    let mut client = Client::connect(world.address).await;
    client.send(&bytes).await;
    for _ in &bodies {
        assert_eq!(client.reply().await.unwrap().status, 200);
        assert_eq!(client.reply().await.unwrap().status, 405);
    }
    let kept = world.kept.bodies();
    assert!(kept.iter().map(|(_, body)| &body[..]).eq(bodies.iter().map(String::as_bytes)));
}

#[tokio::test]
async fn what_follows_a_refused_body_is_not_believed() {
    let world = World::start().await;
    let hidden = webhook("default", SECRET, b"hidden");
    let mut client = Client::connect(world.address).await;
    client.send(&request("POST", "/webhooks/nobody", &[], &hidden)).await;
    assert_eq!(client.reply().await.unwrap().status, 404);
    assert!(client.is_closed().await);
    assert_eq!(world.kept.bodies(), []);
}

#[tokio::test]
async fn http_1_0_is_understood() {
    let world = World::start().await;
    let mut client = Client::connect(world.address).await;
    client.send(&raw(&["POST /webhooks/default HTTP/1.0", "Content-Length: 2"], "{}")).await;
    assert_eq!(client.reply().await.unwrap().status, 200);
    assert!(client.is_closed().await);
    let kept_alive = ["POST /webhooks/default HTTP/1.0", "Connection: keep-alive", "Content-Length: 2"];
    let mut client = Client::connect(world.address).await;
    for _ in 0..2 {
        client.send(&raw(&kept_alive, "{}")).await;
        assert_eq!(client.reply().await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_sender_that_has_closed_its_side_still_gets_its_answer() {
    let world = World::start().await;
    world.kept.set(Mood::Hold);
    let mut client = Client::connect(world.address).await;
    client.send(&webhook("default", SECRET, BODY)).await;
    client.stream.shutdown().await.unwrap();
    world.kept.holding.notified().await;
    // By the time this is answered, the server has long seen the other's end.
    assert_eq!(ask(world.address, &webhook("nobody", SECRET, BODY)).await.status, 404);
    world.kept.release.notify_one();
    assert_eq!(client.reply().await.unwrap().status, 200);
    assert!(client.is_closed().await);
    let whole = webhook("default", SECRET, BODY);
    for length in [0, 10, whole.len() - 1] {
        let mut client = Client::connect(world.address).await;
        client.send(&whole[..length]).await;
        client.stream.shutdown().await.unwrap();
        assert!(client.reply().await.is_none_or(|reply| reply.status == 400));
        assert!(client.is_closed().await);
    }
    assert_eq!(world.kept.bodies().len(), 1);
}

#[tokio::test]
async fn a_sender_may_ask_before_it_sends_its_body() {
    let world = World::start().await;
    let mut client = Client::connect(world.address).await;
    client.send(&raw(&[POST, "Expect: 100-continue", "Content-Length: 2"], "")).await;
    assert_eq!(client.reply().await.unwrap().status, 100);
    client.send(BODY).await;
    assert_eq!(client.reply().await.unwrap().status, 200);
    let mut client = Client::connect(world.address).await;
    client.send(&raw(&[POST, "Expect: foo", "Content-Length: 2"], "{}")).await;
    assert_eq!(client.reply().await.unwrap().status, 417);
    assert_eq!(world.kept.bodies().len(), 1);
    let nowhere = request("POST", "/", &[("Expect", "100-continue")], BODY);
    let mut client = Client::connect(world.address).await;
    client.send(&nowhere[..nowhere.len() - BODY.len()]).await;
    assert_eq!(client.reply().await.unwrap().status, 404);
}

#[tokio::test]
async fn a_body_in_chunks_is_kept_whole() {
    let world = World::start().await;
    let mut client = Client::connect(world.address).await;
    let chunks = "1;name=value\r\n{\r\n1\r\n}\r\n0\r\nX-Trailer: y\r\n\r\n";
    client.send(&raw(&[POST, "Transfer-Encoding: chunked"], chunks)).await;
    assert_eq!(client.reply().await.unwrap().status, 200);
    assert_eq!(&world.kept.bodies()[0].1[..], BODY);
}
