//! Who is told of trouble: every condition, made to happen, and what a receiver gets of it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use super::*;
use crate::support::TOKEN;

/// What a receiver got: the path that was asked for, and the body.
type Got = (String, Value);

/// Whom the service tells: it takes everything.
struct People {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
}

impl People {
    fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, got) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<Got>>>::default());
        let taken = Arc::clone(&got);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
                let whole = loop {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    if let Some((head, body)) = text.split_once("\r\n\r\n") {
                        let length = head.to_ascii_lowercase().lines().find_map(|line| {
                            line.strip_prefix("content-length:").map(|length| length.trim().parse::<usize>().unwrap())
                        });
                        if body.len() >= length.unwrap_or(0) {
                            break Some((head.to_owned(), body.to_owned()));
                        }
                    }
                    match stream.read(&mut piece) {
                        Ok(length) if length > 0 => bytes.extend_from_slice(&piece[..length]),
                        _ => break None,
                    }
                };
                let Some((head, body)) = whole else { continue };
                let path = head.split(' ').nth(1).unwrap().to_owned();
                taken.lock().unwrap().push((path, serde_json::from_str(&body).unwrap_or(Value::Null)));
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            }
        });
        Self { address, got }
    }

    /// The settings that lead here; people are told after `delay`.
    fn settings(&self, delay: &str, more: &str) -> String {
        let address = self.address;
        format!(
            "[notify]\nwebhook_url = \"http://{address}/json\"\nslack_url = \"http://{address}/slack\"\n\
             ping_url = \"http://{address}/ping\"\nping_every = \"10s\"\ndelay = \"{delay}\"\n{more}"
        )
    }

    /// What was told of a condition, as (status, subject), in order.
    fn told(&self, condition: &str) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let got = self.got.lock().unwrap();
        let told = got.iter().filter(|(path, body)| path == "/json" && body["condition"] == condition);
        told.map(|(_, body)| (text(&body["status"]), text(&body["subject"]))).collect()
    }

    /// Waits until this was told last of a condition and subject.
    fn until_told(&self, condition: &str, status: &str, subject: &str) {
        until(&format!("{condition} of {subject} is told as {status}"), || {
            let told = self.told(condition);
            told.iter().rfind(|(_, of)| of == subject).is_some_and(|(last, _)| last == status)
        });
    }

    /// The details of what was told last of a condition.
    fn detail(&self, condition: &str) -> String {
        let got = self.got.lock().unwrap();
        let last = got.iter().rfind(|(path, body)| path == "/json" && body["condition"] == condition).unwrap();
        last.1["detail"].as_str().unwrap().to_owned()
    }

    fn asked_for(&self, path: &str) -> usize {
        self.got.lock().unwrap().iter().filter(|(of, _)| of == path).count()
    }
}

/// A world whose service tells these people after `delay`.
fn told_world(people: &People, delay: &str, more: &str) -> World {
    let world = World::new();
    world.settings(&format!("{SERVE}{}", people.settings(delay, more)));
    world
}

#[test]
fn a_refused_token_is_told_of_once_over_restarts_and_so_is_its_end() {
    let people = People::listen();
    let world = told_world(&people, "10s", "name = \"Berlin\"\n");
    let mail = events(3, 1, (10, 1000));
    let serve = Serve::start(&world);
    until("all is well", || people.asked_for("/ping") > 0);
    world.jelly.set_token("another");
    serve.post(&mail[0]);
    people.until_told("team_paused", "trouble", "default");
    until("the health check fails", || people.asked_for("/ping/fail") > 0);
    until("it is written down", || world.path(".local/state/jellyjar/inbox/notified.json").exists());
    let killed = serve.process.kill();
    world.check(&killed);
    let is_logged = |text: &str, level: &str, words: &str| {
        text.lines().any(|line| line.contains(&format!(" {level} ")) && line.contains(words))
    };
    assert!(is_logged(&killed.stderr, "WARN", "team default is paused condition=team_paused"), "{}", killed.stderr);
    // The token is still refused: two more lives say nothing new.
    for event in &mail[1..] {
        let serve = Serve::start(&world);
        serve.post(event);
        until("it is paused again", || {
            serve.ask("/metrics").1.contains("jellyjar_paused{scope=\"team\",name=\"default\"} 1")
        });
        serve.stop(&world);
    }
    assert_eq!(people.told("team_paused").len(), 1, "{:?}", people.told("team_paused"));
    world.jelly.set_token(TOKEN);
    let serve = Serve::start(&world);
    until_archived(&world.archive(), &ids(&mail));
    people.until_told("team_paused", "recovered", "default");
    let said = serve.stop(&world).stderr;
    assert!(is_logged(&said, "INFO", "team default is no longer paused condition=team_paused"), "{said}");
    assert_eq!(people.told("team_paused").len(), 2);
    let got = people.got.lock().unwrap();
    let slack: Vec<&str> =
        got.iter().filter(|(path, _)| path == "/slack").map(|(_, body)| body["text"].as_str().unwrap()).collect();
    assert!(slack.iter().any(|text| text.contains("(Berlin):* team default is paused")), "{slack:?}");
    assert!(slack.iter().any(|text| text.contains("team default is no longer paused")), "{slack:?}");
    assert!(!got.iter().any(|(_, body)| body.to_string().contains(TOKEN)), "a token was told");
}

#[test]
fn failures_contradictions_and_what_cannot_be_taken_or_read_are_told_of() {
    let people = People::listen();
    let world = told_world(&people, "0s", "");
    let text = std::fs::read_to_string(world.path("jellyjar.toml")).unwrap();
    std::fs::write(world.path("jellyjar.toml"), text.replace("[serve]\n", "[serve]\nmax_body_size = \"64 KiB\"\n"))
        .unwrap();
    let mail = events(2, 1, (500, 1000));
    let serve = Serve::start(&world);
    world.jelly.set_faults("api-404=1.0");
    serve.post(&mail[0]);
    people.until_told("failed", "happened", "default");
    assert!(people.detail("failed").contains("1 gone"), "{}", people.detail("failed"));
    world.jelly.set_faults("wrong-size=1.0");
    serve.post(&mail[1]);
    people.until_told("quarantined", "happened", "default");
    let large = format!("{{\"event\": \"{}\"}}", "x".repeat(70_000));
    assert_eq!(serve.sender().post("default", SECRET, large.as_bytes()), Some(413));
    people.until_told("body_too_large", "happened", "default");
    assert_eq!(serve.sender().post("default", SECRET, b"{ no JSON"), Some(200));
    people.until_told("unreadable", "happened", "default");
    serve.stop(&world);
}

#[test]
fn silence_while_work_waits_and_its_end_are_told_of() {
    let people = People::listen();
    let world = told_world(&people, "0s", "no_success_after = \"1s\"\n");
    let text = std::fs::read_to_string(world.path("jellyjar.toml")).unwrap();
    std::fs::write(world.path("jellyjar.toml"), text.replace("[retry]\n", "[retry]\nmax_attempts = 1000\n")).unwrap();
    world.jelly.set_faults("api-stall=1.0");
    let mail = events(1, 1, (10, 1000));
    let serve = Serve::start(&world);
    serve.post(&mail[0]);
    people.until_told("no_success", "trouble", "default");
    world.jelly.set_faults("");
    until_archived(&world.archive(), &ids(&mail));
    people.until_told("no_success", "recovered", "default");
    serve.stop(&world);
}

#[test]
fn a_full_disk_an_archive_that_is_away_and_settings_that_are_wrong_are_told_of_with_their_ends() {
    let people = People::listen();
    let world = told_world(&people, "0s", "disk_free_below = \"1 PiB\"\n");
    std::fs::write(world.path("disk"), "not mounted").unwrap();
    let mut command = world.command(&["serve", "--archive", "disk/archive"]);
    command.env("JELLY_WEBHOOK_SECRET", SECRET);
    let serve = Serve::start_with(&world, command);
    people.until_told("disk_nearly_full", "trouble", "inbox");
    people.until_told("not_ready", "trouble", "archive:disk/archive");
    std::fs::remove_file(world.path("disk")).unwrap();
    std::fs::create_dir(world.path("disk")).unwrap();
    people.until_told("not_ready", "recovered", "archive:disk/archive");
    people.until_told("disk_nearly_full", "trouble", "archive");
    let text = std::fs::read_to_string(world.path("jellyjar.toml")).unwrap();
    std::fs::write(world.path("jellyjar.toml"), "no settings").unwrap();
    serve.process.hang_up();
    people.until_told("reload_failed", "trouble", "settings");
    std::fs::write(world.path("jellyjar.toml"), text.replace("1 PiB", "0 B")).unwrap();
    serve.process.hang_up();
    people.until_told("reload_failed", "recovered", "settings");
    people.until_told("disk_nearly_full", "recovered", "inbox");
    people.until_told("disk_nearly_full", "recovered", "archive");
    serve.stop(&world);
}

#[test]
fn a_certificate_that_expires_is_told_of_until_there_is_a_new_one() {
    let people = People::listen();
    let world = World::new();
    let install = |certificate: &str| {
        let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls");
        std::fs::copy(fixtures.join(format!("{certificate}.certificate.pem")), world.path("new")).unwrap();
        std::fs::rename(world.path("new"), world.path("certificate")).unwrap();
        std::fs::copy(fixtures.join("first.key.pem"), world.path("key")).unwrap();
    };
    install("expired");
    let serve = SERVE.replace("[serve]\n", "[serve]\ntls_certificate = \"certificate\"\ntls_key = \"key\"\n");
    world.settings(&format!("{serve}{}", people.settings("0s", "")));
    let serve = Serve::start(&world);
    people.until_told("certificate_expires", "trouble", "public listener");
    assert_eq!(people.detail("certificate_expires"), "It expired at 2026-01-01T12:34:56Z.");
    let expiry = "jellyjar_tls_certificate_expiry_timestamp_seconds 1767270896.000";
    assert!(serve.ask("/metrics").1.contains(expiry), "{}", serve.ask("/metrics").1);
    install("second");
    people.until_told("reload_failed", "trouble", "the certificate of the public listener");
    install("first");
    people.until_told("reload_failed", "recovered", "the certificate of the public listener");
    people.until_told("certificate_expires", "recovered", "public listener");
    serve.stop(&world);
}
