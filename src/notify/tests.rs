//! Tests of the notifier as a whole: what is reported arrives, over restarts too.

use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::secret::Secret;

/// A receiver that takes everything, and passes the bodies on.
async fn receiver() -> (String, UnboundedReceiver<serde_json::Value>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (sender, bodies) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            let body = loop {
                stream.read_buf(&mut request).await.unwrap();
                let Some(head) = memchr::memmem::find(&request, b"\r\n\r\n") else { continue };
                if let Ok(body) = serde_json::from_slice(&request[head + 4..]) {
                    break body;
                }
            };
            stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await.unwrap();
            if sender.send(body).is_err() {
                return;
            }
        }
    });
    (url, bodies)
}

/// The next body, which must come within a while.
async fn next(bodies: &mut UnboundedReceiver<serde_json::Value>) -> serde_json::Value {
    tokio::time::timeout(Duration::from_secs(20), bodies.recv()).await.expect("nothing came").unwrap()
}

fn paused() -> Condition {
    Condition::new(Kind::TeamPaused, "support")
}

#[tokio::test]
async fn what_is_reported_arrives_and_its_end_too_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (url, mut bodies) = receiver().await;
    let config =
        NotifyConfig { webhook_url: Some(Secret::new(&url)), delay: Duration::ZERO, ..NotifyConfig::default() };
    let clock = Clock::fixed(Timestamp::UNIX_EPOCH);
    let metrics = Metrics::new([], [], Timestamp::UNIX_EPOCH);
    let make = || {
        let kept = Some(folder.path().join("notified.json"));
        Notifier::new(&config, &HttpConfig::default(), clock.clone(), metrics.clone(), kept).unwrap()
    };
    let pulse = Pulse::default();

    let notifier = make();
    let stopped = AtomicBool::new(false);
    let steps = async {
        notifier.raise(paused(), "the token is refused");
        let body = next(&mut bodies).await;
        assert_eq!((&body["status"], &body["condition"]), (&"trouble".into(), &"team_paused".into()));
        assert_eq!(metrics.troubles.values()["team_paused"], 1);
        notifier.raise(paused(), "the token is refused");
        notifier.happened(Condition::new(Kind::Failed, "support"), 3, "gone");
        let body = next(&mut bodies).await;
        assert_eq!((&body["condition"], &body["count"]), (&"failed".into(), &3.into()));
        stopped.store(true, Ordering::SeqCst);
    };
    notifier.run(&pulse, steps).await;
    assert!(stopped.load(Ordering::SeqCst));
    drop(notifier);

    clock.advance_ms(1_000);
    let notifier = make();
    notifier.raise(paused(), "the token is refused");
    let steps = async {
        notifier.clear(&paused());
        let body = next(&mut bodies).await;
        assert_eq!((&body["status"], &body["condition"]), (&"recovered".into(), &"team_paused".into()));
        assert_eq!(metrics.troubles.values()["team_paused"], 0);
    };
    notifier.run(&pulse, steps).await;
    assert!(bodies.try_recv().is_err());
}

#[tokio::test]
async fn what_was_reported_just_before_the_end_still_arrives() {
    let (url, mut bodies) = receiver().await;
    let config =
        NotifyConfig { webhook_url: Some(Secret::new(&url)), delay: Duration::ZERO, ..NotifyConfig::default() };
    let metrics = Metrics::new([], [], Timestamp::UNIX_EPOCH);
    let notifier = Notifier::new(&config, &HttpConfig::default(), Clock::system(), metrics, None).unwrap();
    let pulse = Pulse::default();
    notifier.set(Condition::new(Kind::NotReady, "archive"), Some("disk full".into()));
    let _hanging = pulse.expect("worker", Duration::ZERO);
    notifier.run(&pulse, std::future::ready(())).await;
    let titles = [next(&mut bodies).await, next(&mut bodies).await].map(|body| body["title"].to_string());
    assert_eq!(titles, ["\"archive does not work\"", "\"the worker shows no sign of life\""]);
}

#[tokio::test]
async fn a_file_of_what_was_told_that_cannot_be_read_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notified.json");
    std::fs::write(&path, "{").unwrap();
    let metrics = Metrics::new([], [], Timestamp::UNIX_EPOCH);
    let config = NotifyConfig { delay: Duration::ZERO, ..NotifyConfig::default() };
    let notifier =
        Notifier::new(&config, &HttpConfig::default(), Clock::system(), metrics.clone(), Some(path.clone())).unwrap();
    notifier.raise(paused(), "");
    notifier.run(&Pulse::default(), std::future::ready(())).await;
    assert_eq!(metrics.troubles.values()["team_paused"], 1);
    assert_eq!(kept::read(&path).unwrap().len(), 1);
}
