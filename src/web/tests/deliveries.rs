//! What is accepted, what is refused, and what strangers can learn from it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use tokio::io::AsyncWriteExt as _;

use super::client::{Client, ask, request, sign, webhook};
use super::*;

const BODY: &[u8] = br#"{"event":"new_message","data":{}}"#;

fn login(password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("jelly:{password}")))
}

#[tokio::test]
async fn what_is_signed_is_kept_as_it_came_whatever_it_is() {
    let world = World::start().await;
    let large = vec![b'{'; 3 << 20];
    let bodies: [&[u8]; 6] = [BODY, b"", b"{\"event\":", b"\xff\x00\n", b"{\"event\":\"never heard of\"}", &large];
    for body in bodies {
        let reply = ask(world.address, &webhook("default", SECRET, body)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    let kept = world.kept.bodies();
    assert!(kept.iter().all(|(team, _)| team == "default"));
    assert_eq!(kept.iter().map(|(_, body)| &body[..]).collect::<Vec<_>>(), bodies);
    assert_eq!(world.results.lock().unwrap()[5], (Some("default".into()), DeliveryResult::Stored, 3 << 20));
}

#[tokio::test]
async fn each_of_two_secrets_is_good_and_a_query_or_a_prefix_does_no_harm() {
    let world = World::start().await;
    for secret in [SECRET, "the-next-secret-of-the-tests"] {
        assert_eq!(ask(world.address, &webhook("rotating", secret, BODY)).await.status, 200);
    }
    let signature = format!("sha256={}", sign(SECRET, BODY).to_uppercase());
    let bytes = request("POST", "/webhooks/default?from=jelly", &[("x-jelly-signature", &signature)], BODY);
    assert_eq!(ask(world.address, &bytes).await.status, 200);
}

#[tokio::test]
async fn everything_that_can_be_wrong_with_a_sender_is_answered_the_same() {
    let world = World::start().await;
    let (good, password) = (sign(SECRET, BODY), login(PASSWORD));
    let other = sign("another secret", BODY);
    let signature = "X-Jelly-Signature";
    let authorization = "Authorization";
    let wrong: Vec<Vec<(&str, &str)>> = vec![
        vec![],
        vec![(signature, "")],
        vec![(signature, &good[..62])],
        vec![(signature, "zz")],
        vec![(signature, &other)],
        vec![(signature, &good)],
        vec![(authorization, &password)],
        vec![(signature, &other), (authorization, &password)],
        vec![(signature, &good), (signature, &good), (authorization, &password)],
        vec![(signature, &good), (authorization, "Basic !!!")],
        vec![(signature, &good), (authorization, "Bearer x")],
    ];
    let mut replies = Vec::new();
    for headers in &wrong {
        replies.push(ask(world.address, &request("POST", "/webhooks/guarded", headers, BODY)).await);
    }
    replies.push(ask(world.address, &request("POST", "/webhooks/default", &[], BODY)).await);
    replies.push(ask(world.address, &request("POST", "/webhooks/legacy", &[(signature, &good)], BODY)).await);
    assert_eq!(replies[0].status, 401);
    for reply in &replies {
        assert_eq!(reply, &replies[0]);
    }
    assert_eq!(world.kept.bodies(), []);
    assert!(world.results().iter().all(|result| *result == DeliveryResult::Unauthorized));

    let right = request("POST", "/webhooks/guarded", &[(signature, &good), (authorization, &password)], BODY);
    assert_eq!(ask(world.address, &right).await.status, 200);
}

#[tokio::test]
async fn unsigned_webhooks_are_kept_where_a_team_allows_them_with_its_password() {
    let world = World::start().await;
    let headers = [("Authorization", login(PASSWORD))];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(ask(world.address, &request("POST", "/webhooks/legacy", &headers, BODY)).await.status, 200);
    assert_eq!(ask(world.address, &request("POST", "/webhooks/guarded", &headers, BODY)).await.status, 401);
}

#[tokio::test]
async fn paths_and_methods_tell_nothing_of_which_teams_there_are() {
    let world = World::start().await;
    let nowhere = ask(world.address, &webhook("nobody", SECRET, BODY)).await;
    assert_eq!(nowhere.status, 404);
    for path in ["/webhooks/unset", "/webhooks/", "/", "/webhooks/default/x", "/metrics", "/webhooks/%64efault"] {
        let signature = sign(SECRET, BODY);
        let reply = ask(world.address, &request("POST", path, &[("X-Jelly-Signature", &signature)], BODY)).await;
        assert_eq!(reply, nowhere, "{path}");
    }
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let known = ask(world.address, &request(method, "/webhooks/default", &[], b"")).await;
        let unknown = ask(world.address, &request(method, "/webhooks/nobody", &[], b"")).await;
        assert_eq!((known.status, known.header("allow")), (405, Some("post")), "{method}");
        assert_eq!(known, unknown, "{method}");
    }
    assert_eq!(world.kept.bodies(), []);
    assert!(
        world
            .results
            .lock()
            .unwrap()
            .iter()
            .all(|(team, result, _)| { team.is_none() || *result == DeliveryResult::WrongMethod })
    );
}

#[tokio::test]
async fn a_body_over_the_cap_is_refused_and_one_at_the_cap_is_kept() {
    let world = World::with(ServeConfig { max_body_bytes: 100_000, ..config() }, None, Duration::ZERO).await;
    let largest = vec![b'x'; 100_000];
    assert_eq!(ask(world.address, &webhook("default", SECRET, &largest)).await.status, 200);
    let larger = vec![b'x'; 100_001];
    for body in [&larger[..], &vec![b'x'; 8 << 20]] {
        // It sends all before it looks at the answer, and is not reset meanwhile.
        let mut client = Client::connect(world.address).await;
        client.stream.write_all(&webhook("default", SECRET, body)).await.unwrap();
        assert_eq!(client.reply().await.unwrap().status, 413);
        assert!(client.is_ended_in_order().await);
    }
    let chunks = [&b"186a1\r\n"[..], &larger, b"\r\n0\r\n\r\n"].concat();
    let signature = sign(SECRET, &larger);
    let head = format!(
        "POST /webhooks/default HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nX-Jelly-Signature: {signature}\r\n\r\n"
    );
    assert_eq!(ask(world.address, &[head.as_bytes(), &chunks].concat()).await.status, 413);
    assert_eq!(world.kept.bodies().len(), 1);
    let refused = (Some("default".to_owned()), DeliveryResult::TooLarge, 0);
    assert_eq!(world.results.lock().unwrap()[1..], [refused.clone(), refused.clone(), refused]);
}

#[tokio::test]
async fn a_compressed_body_is_refused() {
    let world = World::start().await;
    let signature = sign(SECRET, BODY);
    for (encoding, status) in [("gzip", 415), ("identity, zstd", 415), ("identity", 200)] {
        let headers = [("X-Jelly-Signature", signature.as_str()), ("Content-Encoding", encoding)];
        let reply = ask(world.address, &request("POST", "/webhooks/default", &headers, BODY)).await;
        assert_eq!(reply.status, status, "{encoding}");
    }
}

#[tokio::test]
async fn a_sender_is_told_to_come_again_and_not_why() {
    let config = ServeConfig { store_timeout: Duration::from_millis(100), ..config() };
    let world = World::with(config, None, Duration::ZERO).await;
    for (mood, wait) in [(Mood::Overloaded, "7"), (Mood::Unavailable, "5"), (Mood::Hold, "5")] {
        world.kept.set(mood);
        let reply = ask(world.address, &webhook("default", SECRET, BODY)).await;
        assert_eq!((reply.status, reply.header("retry-after")), (503, Some(wait)), "{mood:?}");
        assert!(!reply.body.contains("jelly"), "{reply:?}");
    }
    assert_eq!(world.kept.bodies(), []);
    use DeliveryResult::{Overloaded, Unavailable};
    assert_eq!(world.results(), [Overloaded, Unavailable, Unavailable]);
    world.kept.set(Mood::Keep);
    assert_eq!(ask(world.address, &webhook("default", SECRET, BODY)).await.status, 200);
}

#[tokio::test]
async fn nothing_is_said_before_the_body_is_kept() {
    let world = World::start().await;
    world.kept.set(Mood::Hold);
    let mut client = Client::connect(world.address).await;
    client.send(&webhook("default", SECRET, BODY)).await;
    world.kept.holding.notified().await;
    let mut byte = [0];
    assert_eq!(client.stream.try_read(&mut byte).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    world.kept.release.notify_one();
    assert_eq!(client.reply().await.unwrap().status, 200);
}

#[tokio::test]
async fn secrets_change_for_connections_that_are_there() {
    let world = World::start().await;
    let mut client = Client::connect(world.address).await;
    client.send(&webhook("default", SECRET, BODY)).await;
    assert_eq!(client.reply().await.unwrap().status, 200);
    world.hooks.replace(&[("default".to_owned(), team(&["a-secret-that-came-later"], false, false))].into());
    assert_eq!(world.hooks.teams(), ["default"]);
    client.send(&webhook("default", SECRET, BODY)).await;
    assert_eq!(client.reply().await.unwrap().status, 401);
    let mut client = Client::connect(world.address).await;
    client.send(&webhook("default", "a-secret-that-came-later", BODY)).await;
    assert_eq!(client.reply().await.unwrap().status, 200);
}
