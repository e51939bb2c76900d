//! Webhooks that tell of mail that arrives.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// A receiver that answers each request with the same status.
struct Receiver {
    listener: TcpListener,
    status: &'static str,
}

impl Receiver {
    async fn new(status: &'static str) -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), status }
    }

    fn url(&self) -> String {
        let address = self.listener.local_addr().unwrap();
        format!("http://jelly:open%20sesame@{address}/webhooks/default?x=1")
    }

    /// The head and the body of the next request.
    async fn next(&self) -> (String, String) {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        let mut text = String::new();
        loop {
            let mut piece = [0; 8192];
            let count = stream.read(&mut piece).await.unwrap();
            text.push_str(std::str::from_utf8(&piece[..count]).unwrap());
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let (_, rest) = head.split_once("Content-Length: ").unwrap();
                if body.len() == rest.split_once("\r\n").unwrap().0.parse::<usize>().unwrap() {
                    break;
                }
            }
        }
        stream.write_all(format!("HTTP/1.1 {}\r\n\r\n", self.status).as_bytes()).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }
}

impl World {
    /// Waits until so many webhooks have ended, one way or the other.
    async fn until_told(&self, count: u64) {
        loop {
            let stats = self.sim.stats();
            if stats.webhooks_sent + stats.webhooks_failed >= count {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_webhook_tells_of_new_mail_and_is_signed() {
    let receiver = Receiver::new("200 OK").await;
    let webhook = Some(Webhook::new(&receiver.url(), "key").unwrap());
    let world = World::with(SimConfig { webhook, ..SimConfig::default() }).await;
    let delivery = Delivery { conversation: Some("c00003".into()), ..Delivery::default() };
    let message = world.sim.deliver(&delivery).unwrap();
    let (head, body) = receiver.next().await;
    assert!(head.starts_with("POST /webhooks/default?x=1 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nAuthorization: Basic amVsbHk6b3BlbiBzZXNhbWU="), "{head}");
    assert!(body.contains(r"\u003c") && !body.contains('<'), "JSON is escaped for HTML");
    let event: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&event["event"], &event["data"]["message"]), (&"new_message".into(), &message));
    assert_eq!(event["data"]["conversation"]["id"], "c00003");
    assert_eq!(event["data"]["is_new_conversation"], false);
    // RFC 4231 has no case with such a body, so the sum is made here by hand from its definition (RFC 2104).
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(b"key").for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = crate::digest::Digest::of(&[&pad(0x36)[..], body.as_bytes()].concat());
    let outer = crate::digest::Digest::of(&[&pad(0x5c)[..], inner.as_bytes()].concat());
    assert!(head.contains(&format!("\r\nX-Jelly-Signature: sha256={outer}")), "{head}");
    world.until_told(1).await;
    assert_eq!(world.sim.stats().webhooks_sent, 1);
}

#[tokio::test]
async fn a_webhook_is_dropped_by_a_fault_or_when_no_one_is_to_be_told() {
    let receiver = Receiver::new("204 No Content").await;
    let webhook = Some(Webhook::new(&receiver.url(), "").unwrap());
    let faults = "webhook-drop=first:1".parse().unwrap();
    let world = World::with(SimConfig { webhook, faults, ..SimConfig::default() }).await;
    world.sim.deliver(&Delivery::default()).unwrap();
    world.sim.deliver(&Delivery { webhook: false, ..Delivery::default() }).unwrap();
    world.sim.deliver(&Delivery::default()).unwrap();
    let (head, _) = receiver.next().await;
    assert!(!head.contains("X-Jelly-Signature"));
    world.until_told(1).await;
    let stats = world.sim.stats();
    assert_eq!((stats.arrived, stats.webhooks_sent, stats.webhooks_dropped), (3, 1, 1));
}

#[tokio::test]
async fn ten_failures_in_a_row_switch_a_webhook_off() {
    let receiver = Receiver::new("503 Service Unavailable").await;
    let world = World::new("").await;
    world.sim.set_webhook(Some(Webhook::new(&receiver.url(), "").unwrap()));
    for count in 1..=10 {
        world.sim.deliver(&Delivery::default()).unwrap();
        receiver.next().await;
        world.until_told(count).await;
    }
    world.sim.deliver(&Delivery::default()).unwrap();
    let stats = world.sim.stats();
    assert_eq!((stats.webhooks_failed, stats.webhooks_dropped), (10, 1));
    assert!(Webhook::new("https://127.0.0.1/", "").is_err());
    assert!(Webhook::new("nonsense", "").is_err());
}
