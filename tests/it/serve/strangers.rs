//! What does not come from Jelly, what cannot be read, and what the service never says.

use super::*;
use crate::support::{Answer, TOKEN, sign};

#[test]
fn what_is_signed_and_unreadable_is_kept_and_shown() {
    let world = world();
    let mail = events(2, 1, (10, 1000));
    let serve = Serve::start(&world);
    let lost: [&[u8]; 3] = [
        b"{\"event\":\"new_message\",\"data\":{}}",
        b"{\"event\":\"new_message\"}",
        b"{\"event\":\"new_message\",\"data\":null}",
    ];
    let bad: [&[u8]; 4] = [b"{\"event\": ", b"", b"\xff\xfe\x00", b"[1, 2"];
    serve.post(&mail[0]);
    for body in bad.into_iter().chain(lost) {
        assert_eq!(serve.sender().post("default", SECRET, body), Some(200), "{body:?}");
    }
    // What Jelly may send one day is no error.
    for body in [&b"{\"event\": \"team.renamed\", \"data\": {}}"[..], b"{}", b"null", b"17"] {
        assert_eq!(serve.sender().post("default", SECRET, body), Some(200), "{body:?}");
    }
    serve.post(&mail[1]);
    until_archived(&world.archive(), &ids(&mail));
    let answer = world.run(&["rejected", "--archive", "archive", "--json"]).json();
    let total = answer["total"].as_u64().unwrap();
    assert!(total >= 3, "{answer}");
    let rejected = answer["rejected"].as_array().unwrap();
    // In the inbox, or already in its copy.
    assert!(rejected.iter().all(|one| one["source"].as_str().unwrap().contains("/default/")), "{answer}");
    assert!(rejected.iter().any(|one| one["excerpt"].as_str().unwrap().contains("event")), "{answer}");
    let without = rejected.iter().filter(|one| one["reason"] == "the event new_message carries no message");
    assert_eq!(without.count(), lost.len(), "{answer}");
    until("the inbox is copied", || segments(&world).is_empty());
    serve.stop(&world);

    // They are read once, and shown once.
    let serve = Serve::start(&world);
    until("it is ready", || serve.is_ready());
    serve.stop(&world);
    let answer = world.run(&["rejected", "--archive", "archive", "--json"]).json();
    assert_eq!(answer["total"].as_u64(), Some(total), "{answer}");
}

#[test]
fn refusals_have_the_right_shape_and_tell_nothing() {
    let world = world();
    world.settings(&SERVE.replace("[serve]\n", "[serve]\nmax_body_size = \"64 KiB\"\n"));
    let serve = Serve::start(&world);
    let sender = serve.sender();
    let body = events(1, 1, (10, 100))[0].to_string();
    let body = body.as_bytes();
    let right = sign(SECRET, body);
    let send = |method: &str, path: &str, headers: &str, body: &[u8]| sender.send(method, path, headers, body).unwrap();
    let signed = |tag: &str| format!("x-jelly-signature: {tag}\r\n");

    let unknown: Vec<Answer> = [
        String::new(),
        signed(&sign("another secret", body)),
        signed(&right[..62]),
        signed(&right.replace(|c: char| c.is_ascii_hexdigit(), "g")),
        signed(&right).repeat(2),
        signed(""),
        format!("{}authorization: Bearer {TOKEN}\r\n", signed("00")),
    ]
    .iter()
    .map(|headers| send("POST", "/webhooks/default", headers, body))
    .collect();
    assert_eq!(unknown[0].status, 401);
    assert!(unknown.iter().all(|answer| *answer == unknown[0]), "refusals differ: {unknown:?}");

    let nowhere: Vec<Answer> = ["/webhooks/nobody", "/webhooks/default/x", "/webhooks/", "/", "/metrics", "/healthz"]
        .iter()
        .map(|path| send("POST", path, &signed(&right), body))
        .collect();
    assert_eq!(nowhere[0].status, 404);
    assert!(nowhere.iter().all(|answer| *answer == nowhere[0]), "refusals differ: {nowhere:?}");

    for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
        let known = send(method, "/webhooks/default", "", b"");
        assert_eq!((known.status, known.head.contains("allow: post")), (405, true), "{known:?}");
        assert_eq!(known, send(method, "/webhooks/nobody", "", b""), "a method tells which teams there are");
    }
    let large = vec![b' '; (64 << 10) + 1];
    assert_eq!(send("POST", "/webhooks/default", &signed(&sign(SECRET, &large)), &large).status, 413);
    let whole = &large[1..];
    assert_eq!(send("POST", "/webhooks/default", &signed(&sign(SECRET, whole)), whole).status, 200);
    let headers = format!("{}content-encoding: gzip\r\n", signed(&right));
    assert_eq!(send("POST", "/webhooks/default", &headers, body).status, 415);
    assert_eq!(send("POST", "/webhooks/default", &signed(&right), body).status, 200);
    serve.stop(&world);
}

/// What is in the bodies of the next test.
const BODY: &str = "body-canary-c41a9f20";

#[test]
fn nothing_that_it_says_holds_a_secret_a_body_or_a_link() {
    let faults =
        "storage-403=0.2,storage-500=0.2,redirect=0.3,reset=0.2,html-page=0.2,flip=0.2,api-500=0.2,api-html=0.2";
    let world = World::with_faults(faults);
    world.settings(SERVE);
    let mut command = Serve::command(&world);
    command.env("JELLYJAR_LOG", "trace");
    let serve = Serve::start_with(&world, command);
    let mut mail = events(40, 1, (10, 2000));
    for event in &mut mail {
        event["data"]["message"]["subject"] = BODY.into();
        event["data"]["message"]["text"] = BODY.into();
        serve.post(event);
    }
    let bad = format!("{{\"text\": \"{BODY}\", \"token\": \"Bearer {TOKEN}\", ");
    assert_eq!(serve.sender().post("default", SECRET, bad.as_bytes()), Some(200));
    let wrong = sign("wrong-secret-canary-17", bad.as_bytes());
    let headers = format!("x-jelly-signature: {wrong}\r\nauthorization: Basic cGFzc3dvcmQtY2FuYXJ5\r\n");
    assert_eq!(serve.sender().send("POST", "/webhooks/default", &headers, bad.as_bytes()).unwrap().status, 401);
    until("all have an outcome", || {
        let open = "SELECT CAST(count(*) AS TEXT) FROM attachments WHERE state = 'pending'";
        let known = "SELECT CAST(count(*) AS TEXT) FROM attachments";
        world.catalog(known) == ["40"] && world.catalog(open) == ["0"]
    });
    until("the inbox is copied", || segments(&world).is_empty());
    serve.process.hang_up();
    until("the settings are read again", || serve.process.stderr().contains("are read again"));
    let told = [serve.ask("/metrics").1, serve.ask("/readyz").1];
    let ended = serve.stop(&world);
    assert!(ended.stderr.len() > 20_000, "nothing was traced: {}", ended.stderr);
    let signature = sign(SECRET, mail[0].to_string().as_bytes());
    let storage = world.jelly.storage_url().replace("http://", "");
    for text in told.iter().chain([&ended.stdout, &ended.stderr]) {
        for canary in [SECRET, TOKEN, BODY, "X-Amz-", "cGFzc3dvcmQtY2FuYXJ5", "response-content", &signature, &wrong] {
            if let Some(at) = text.find(canary) {
                let from = text[..at].rfind('\n').unwrap_or(0);
                panic!("{canary} was printed: {}", text[from..].lines().take(3).collect::<String>());
            }
        }
        assert!(!text.contains(&format!("{storage}/s")), "a link into the storage was printed");
        for id in ids(&mail) {
            assert!(!text.contains(&id), "a raw id was printed");
        }
    }
    let archive = World::bytes_below(&world.archive());
    for canary in [SECRET, TOKEN] {
        // The copy of the inbox holds bodies, packed; the catalog's excerpts must not hold what looks like a token.
        assert!(memchr::memmem::find(&archive, canary.as_bytes()).is_none(), "{canary} is in the archive");
    }
}
