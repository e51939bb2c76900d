//! Tests of delivery, against receivers that answer what they are told.

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::config::HttpConfig;
use crate::notify::message::Status;
use crate::notify::{Condition, Kind};

/// A receiver: the request lines and bodies that come in; it answers with each status in turn, then with 200.
struct Receiver {
    url: String,
    requests: UnboundedReceiver<(String, String)>,
}

impl Receiver {
    async fn start(statuses: &'static [&'static str]) -> Self {
        use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hush", listener.local_addr().unwrap());
        let (sender, requests) = unbounded_channel();
        tokio::spawn(async move {
            let mut statuses = statuses.iter();
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = BufReader::new(stream);
                let (mut head, mut length) = (String::new(), 0);
                loop {
                    let mut line = String::new();
                    stream.read_line(&mut line).await.unwrap();
                    if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = text.trim().parse().unwrap();
                    }
                    if line.trim().is_empty() {
                        break;
                    }
                    head.push_str(&line);
                }
                let mut body = vec![0; length];
                stream.read_exact(&mut body).await.unwrap();
                let line = head.lines().next().unwrap().to_owned();
                let status = statuses.next().unwrap_or(&"200 OK");
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 4\r\nConnection: close\r\n\r\nhush");
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
                if sender.send((line, String::from_utf8(body).unwrap())).is_err() {
                    return;
                }
            }
        });
        Self { url, requests }
    }

    async fn next(&mut self) -> (String, String) {
        tokio::time::timeout(Duration::from_secs(20), self.requests.recv()).await.expect("no request came").unwrap()
    }
}

fn metrics() -> Metrics {
    Metrics::new([], [], jiff::Timestamp::UNIX_EPOCH)
}

fn outboxes(addresses: Addresses) -> Outboxes {
    let client = crate::http::operator_client(&HttpConfig::default(), Duration::from_secs(5)).unwrap();
    let clock = Clock::fixed(jiff::Timestamp::UNIX_EPOCH);
    let mut outboxes = Outboxes::new(client, addresses, clock, metrics());
    outboxes.first_wait = Duration::from_millis(1);
    outboxes
}

fn message(subject: &str) -> Message {
    Message {
        status: Status::Trouble,
        condition: Condition::new(Kind::TeamPaused, subject),
        at_ms: 0,
        since_ms: 0,
        count: 1,
        detail: "why".into(),
    }
}

/// What says that there is no end yet.
fn on() -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    // A dropped sender would be an end.
    std::mem::forget(sender);
    receiver
}

fn secret(url: &str) -> Secret {
    Secret::new(url)
}

#[tokio::test]
async fn each_receiver_gets_every_message_in_its_own_form_and_none_waits_for_another() {
    let mut webhook = Receiver::start(&["503 Busy", "429 Slow down", "200 OK"]).await;
    let mut slack = Receiver::start(&[]).await;
    let outboxes =
        outboxes(Addresses { webhook: Some(secret(&webhook.url)), slack: Some(secret(&slack.url)), ping: None });
    outboxes.push(&message("one"), Some("Berlin"));
    outboxes.push(&message("two"), None);
    let requests = async {
        let mut texts = Vec::new();
        for _ in 0..2 {
            texts.push(slack.next().await);
        }
        assert!(texts[0].1.contains("team one is paused") && texts[0].1.starts_with("{\"text\":"), "{texts:?}");
        assert!(texts[1].1.contains("team two is paused"), "{texts:?}");
        let mut bodies = Vec::new();
        for _ in 0..4 {
            let (line, body) = webhook.next().await;
            assert_eq!(line, "POST /hush HTTP/1.1");
            bodies.push(serde_json::from_str::<serde_json::Value>(&body).unwrap());
        }
        assert_eq!([&bodies[0]["id"], &bodies[1]["id"]], [&bodies[2]["id"]; 2], "the same one, tried again");
        assert_eq!((&bodies[2]["subject"], &bodies[2]["name"]), (&"one".into(), &"Berlin".into()));
        assert_eq!((&bodies[3]["subject"], &bodies[3]["dropped"]), (&"two".into(), &0.into()));
        // Until the answers were taken in.
        while outboxes.webhook.first().is_some() || outboxes.slack.first().is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = outboxes.deliver(on()) => {}
        () = requests => {}
    }
    assert_eq!(outboxes.metrics.notifications.of(Delivery::WebhookDelivered).value(), 2);
    assert_eq!(outboxes.metrics.notifications.of(Delivery::SlackDelivered).value(), 2);
    assert_eq!(outboxes.metrics.notifications.of(Delivery::WebhookFailed).value(), 0);
}

#[tokio::test]
async fn a_refused_message_is_given_up_and_the_next_one_says_so() {
    let mut webhook = Receiver::start(&["404 Gone", "302 Elsewhere"]).await;
    let outboxes = outboxes(Addresses { webhook: Some(secret(&webhook.url)), ..Addresses::default() });
    for subject in ["one", "two", "three"] {
        outboxes.push(&message(subject), None);
    }
    let requests = async {
        for (subject, dropped) in [("one", 0), ("two", 1), ("three", 2)] {
            let body: serde_json::Value = serde_json::from_str(&webhook.next().await.1).unwrap();
            assert_eq!((&body["subject"], &body["dropped"]), (&subject.into(), &dropped.into()));
        }
        while outboxes.webhook.first().is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = outboxes.deliver(on()) => {}
        () = requests => {}
    }
    assert_eq!(outboxes.metrics.notifications.of(Delivery::WebhookFailed).value(), 2);
    assert_eq!(outboxes.metrics.notifications.of(Delivery::WebhookDelivered).value(), 1);
    assert_eq!(outboxes.webhook.dropped.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn an_outbox_is_bounded_and_a_message_of_yesterday_is_given_up() {
    let outboxes = outboxes(Addresses { slack: Some(secret("http://127.0.0.1:1/hush")), ..Addresses::default() });
    for number in 0..MAX_WAITING + 3 {
        outboxes.push(&message(&number.to_string()), None);
    }
    assert_eq!(locked(&outboxes.slack.waiting).len(), MAX_WAITING);
    assert_eq!(outboxes.slack.first().unwrap().message.condition.subject, "3");
    assert!(outboxes.webhook.first().is_none(), "nobody is there to read it");
    assert_eq!(outboxes.metrics.notifications.of(Delivery::SlackDropped).value(), 3);
    outboxes.clock.advance_ms(GIVE_UP_MS);
    let given_up = async {
        while outboxes.slack.first().is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = outboxes.deliver(on()) => {}
        () = given_up => {}
    }
    assert_eq!(outboxes.metrics.notifications.of(Delivery::SlackFailed).value(), MAX_WAITING as u64);
}

#[tokio::test]
async fn what_waits_at_the_end_is_tried_once() {
    let mut webhook = Receiver::start(&["503 Busy"]).await;
    let outboxes = outboxes(Addresses { webhook: Some(secret(&webhook.url)), ..Addresses::default() });
    outboxes.push(&message("one"), None);
    outboxes.push(&message("two"), None);
    outboxes.deliver(watch::channel(true).1).await;
    assert!(webhook.next().await.1.contains("team one"));
    assert!(webhook.next().await.1.contains("team two"));
    assert!(outboxes.webhook.first().is_none());
    assert_eq!(outboxes.metrics.notifications.of(Delivery::WebhookFailed).value(), 1);
}

#[tokio::test]
async fn the_health_check_is_told_of_changes_at_once_and_a_new_address_too() {
    let mut check = Receiver::start(&[]).await;
    let mut other = Receiver::start(&[]).await;
    let outboxes =
        outboxes(Addresses { ping: Some(secret(&format!("{}?every=day", check.url))), ..Addresses::default() });
    let every = Duration::from_hours(24);
    let requests = async {
        outboxes.health(true, every);
        assert_eq!(check.next().await.0, "GET /hush?every=day HTTP/1.1");
        outboxes.health(true, every);
        outboxes.health(false, every);
        assert_eq!(check.next().await.0, "GET /hush/fail?every=day HTTP/1.1");
        outboxes.health(true, every);
        assert_eq!(check.next().await.0, "GET /hush?every=day HTTP/1.1");
        outboxes.readdress(Addresses { ping: Some(secret(&other.url)), ..Addresses::default() }, None);
        assert_eq!(other.next().await.0, "GET /hush HTTP/1.1");
    };
    tokio::select! {
        () = outboxes.deliver(on()) => {}
        () = requests => {}
    }
}

#[tokio::test]
async fn no_error_names_the_address_or_repeats_the_answer() {
    let receiver = Receiver::start(&["404 Gone"]).await;
    for url in [receiver.url.as_str(), "http://127.0.0.1:1/hush?hush=hush", "https://127.0.0.1:1/hush", "hush"] {
        let outboxes = outboxes(Addresses { webhook: Some(secret(url)), ..Addresses::default() });
        outboxes.push(&message("one"), None);
        let waiting = outboxes.webhook.first().unwrap();
        let error = outboxes.post(Channel::Webhook, &outboxes.webhook, &waiting).await.unwrap_err();
        assert!(!format!("{error} {error:?} {outboxes:?}").contains("hush"), "{error:?}");
    }
}

#[tokio::test]
async fn no_log_line_at_any_level_names_the_address_or_repeats_the_answer() {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            locked(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let mut webhook = Receiver::start(&["503 Busy", "404 Gone"]).await;
    let mut check = Receiver::start(&["500 Broken"]).await;
    let addresses = Addresses {
        webhook: Some(secret(&format!("{}?hush=hush", webhook.url))),
        slack: Some(secret("http://127.0.0.1:1/hush")),
        ping: Some(secret(&check.url)),
    };
    let outboxes = outboxes(addresses);
    outboxes.push(&message("one"), None);
    outboxes.health(false, Duration::from_hours(1));
    let requests = async {
        webhook.next().await;
        webhook.next().await;
        check.next().await;
        check.next().await;
        while outboxes.webhook.first().is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = outboxes.deliver(on()) => {}
        () = requests => {}
    }
    let lines = String::from_utf8(locked(&lines.0).clone()).unwrap();
    for logged in
        ["the receiver answered 503", "is tried again", "is given up", "the health check was not reached", "TRACE"]
    {
        assert!(lines.contains(logged), "{logged}: {lines}");
    }
    assert!(!lines.contains("hush"), "{lines}");
}
