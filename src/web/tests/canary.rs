//! Whatever happens, nothing that is said of it holds a secret, a body, or what a stranger sent.

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tracing_subscriber::fmt::MakeWriter;

use super::client::{Client, request, sign, webhook};
use super::*;

/// Stands in bodies, paths, headers and wrong secrets.
const CANARY: &str = "canary-in-the-mine";

#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn no_trace_holds_a_secret_a_body_or_a_header() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    // On this thread, which runs all tasks of this test.
    let _guard = tracing::subscriber::set_default(subscriber);
    let config = ServeConfig { header_timeout: Duration::from_millis(100), max_body_bytes: 10_000, ..config() };
    let world = World::with(config.clone(), None, Duration::ZERO).await;
    let body = format!("{{\"event\":\"{CANARY}\"}}");
    let body = body.as_bytes();
    let signature = sign(SECRET, body);
    let login = format!("Basic {}", STANDARD.encode(format!("jelly:{PASSWORD}")));
    let wrong = format!("Basic {}", STANDARD.encode(format!("jelly:{CANARY}")));
    let requests = [
        webhook("default", SECRET, body),
        webhook("default", CANARY, body),
        webhook(CANARY, SECRET, body),
        webhook("default", SECRET, CANARY.repeat(1000).as_bytes()),
        request("POST", "/webhooks/guarded", &[("X-Jelly-Signature", &signature), ("Authorization", &login)], body),
        request("POST", "/webhooks/guarded", &[("X-Jelly-Signature", &signature), ("Authorization", &wrong)], body),
        request("POST", "/webhooks/default", &[("X-Jelly-Signature", CANARY), ("Content-Encoding", CANARY)], body),
        request("GET", &format!("/webhooks/default?{CANARY}"), &[("Cookie", CANARY)], b""),
        format!("POST /{CANARY} {CANARY}\r\nContent-Length: {CANARY}\r\n\r\n").into_bytes(),
        webhook("default", SECRET, body)[..60].to_vec(),
    ];
    for mood in [Mood::Keep, Mood::Overloaded, Mood::Unavailable] {
        world.kept.set(mood);
        for request in &requests {
            let mut client = Client::connect(world.address).await;
            client.send(request).await;
            client.reply().await;
        }
    }
    tracing::trace!(config = ?config, hooks = ?world.hooks, team = ?team(&[SECRET], true, true), "as debug forms");

    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for part in [SECRET, PASSWORD, CANARY, signature.as_str(), &login[6..], &wrong[6..]] {
        assert!(!text.contains(part), "{part} is in\n{text}");
    }
    for told in
        ["the disk is full of jelly", "user name and password, are not those", "max_body_size", "as debug forms"]
    {
        assert!(text.contains(told), "{told} is not in\n{text}");
    }
}
