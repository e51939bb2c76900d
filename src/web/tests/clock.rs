//! Senders that take their time, and how little they can take from others.

use tokio::net::TcpSocket;
use tokio::time::{Instant, interval};

use super::client::{Client, ask, request, webhook};
use super::*;

const BODY: &[u8] = b"{}";

fn hasty() -> ServeConfig {
    ServeConfig {
        header_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(600),
        body_timeout: Duration::from_secs(5),
        ..config()
    }
}

/// Sends byte after byte until the other side closes or answers; returns how long that took.
async fn trickle(client: &mut Client, bytes: &[u8]) -> Duration {
    let start = Instant::now();
    let mut ticks = interval(Duration::from_millis(20));
    for byte in bytes.iter().cycle() {
        let mut one = [0];
        tokio::select! {
            biased;
            read = client.stream.peek(&mut one) => {
                _ = read;
                return start.elapsed();
            }
            _ = ticks.tick() => client.send(&[*byte]).await,
        }
    }
    unreachable!("the bytes never end")
}

#[tokio::test]
async fn a_head_that_trickles_is_cut_and_silence_too() {
    let world = World::with(hasty(), None, Duration::ZERO).await;
    let mut client = Client::connect(world.address).await;
    client.send(b"POST /webhooks/default HTTP/1.1\r\nX-Slow: ").await;
    let took = trickle(&mut client, b"x").await;
    assert!(took >= Duration::from_millis(250), "{took:?}");
    assert!(client.is_closed().await);
    assert!(Client::connect(world.address).await.is_closed().await, "one that says nothing at all");
}

#[tokio::test]
async fn a_connection_rests_between_requests_for_longer_than_a_head_may_take_but_not_for_ever() {
    let world = World::with(hasty(), None, Duration::ZERO).await;
    let mut client = Client::connect(world.address).await;
    client.send(&webhook("default", SECRET, BODY)).await;
    assert_eq!(client.reply().await.unwrap().status, 200);
    let rested = Instant::now();
    assert!(client.is_closed().await);
    assert!(rested.elapsed() >= Duration::from_millis(500), "{:?}", rested.elapsed());

    let mut client = Client::connect(world.address).await;
    client.send(&webhook("default", SECRET, BODY)).await;
    assert_eq!(client.reply().await.unwrap().status, 200);
    client.send(b"POST /web").await;
    let begun = Instant::now();
    assert!(client.is_closed().await, "a second head that is begun must end");
    assert!(begun.elapsed() < Duration::from_millis(550), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_body_that_trickles_is_answered_408_and_cut() {
    let world = World::with(hasty(), None, Duration::ZERO).await;
    let bytes = webhook("default", SECRET, &[b'x'; 10_000]);
    let mut client = Client::connect(world.address).await;
    client.send(&bytes[..200]).await;
    trickle(&mut client, b"x").await;
    let reply = client.reply().await.unwrap();
    assert_eq!((reply.status, reply.header("connection")), (408, Some("close")));
    assert_eq!(world.results(), [DeliveryResult::TooSlow]);
}

#[tokio::test]
async fn a_sender_that_never_reads_its_answers_is_cut() {
    let world = World::with(hasty(), None, Duration::ZERO).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(world.address).await.unwrap();
    let many = request("GET", "/webhooks/default", &[], b"").repeat(1000);
    let cut = async { while tokio::io::AsyncWriteExt::write_all(&mut stream, &many).await.is_ok() {} };
    tokio::time::timeout(Duration::from_mins(1), cut).await.expect("it was never cut");
}

#[tokio::test]
async fn more_connections_than_are_allowed_wait_for_their_turn() {
    let world = World::with(ServeConfig { max_connections: 2, ..hasty() }, None, Duration::ZERO).await;
    world.kept.set(Mood::Hold);
    let mut holders = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(world.address).await;
        client.send(&webhook("default", SECRET, BODY)).await;
        world.kept.holding.notified().await;
        holders.push(client);
    }
    assert!(world.connections.is_full() && world.connections.open() == 2);
    let mut third = Client::connect(world.address).await;
    third.send(&webhook("nobody", SECRET, BODY)).await;
    let early = tokio::time::timeout(Duration::from_millis(100), third.reply()).await;
    assert!(early.is_err(), "there was no place for it: {early:?}");
    world.kept.release.notify_one();
    assert_eq!(third.reply().await.unwrap().status, 404);
    world.kept.release.notify_one();
}

/// Senders that stop a third each: in the head, early in the body, and late in the body.
async fn stall(address: SocketAddr, number: usize) -> Vec<Client> {
    let large = webhook("default", SECRET, &vec![b'x'; 200_000]);
    let connect = async |number: usize| {
        let mut client = Client::connect(address).await;
        client.send(&large[..[50, 300, 20_000][number % 3]]).await;
        client
    };
    futures::future::join_all((0..number).map(connect)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_stalled_senders_harm_nobody() {
    let long = Duration::from_mins(2);
    let world = World::with(ServeConfig { header_timeout: long, ..config() }, None, Duration::ZERO).await;
    let stalled = stall(world.address, 1000).await;
    for number in 0..100 {
        let size = [100, 8 << 10, 100_000][number % 3];
        assert_eq!(ask(world.address, &webhook("default", SECRET, &vec![b'y'; size])).await.status, 200);
    }
    assert_eq!(world.results().len(), 100, "the stalled ones were there all the time");
    drop(stalled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_senders_are_cut_all_at_the_same_age() {
    let world = World::with(hasty(), None, Duration::ZERO).await;
    for (number, mut client) in stall(world.address, 300).await.into_iter().enumerate() {
        let reply = client.reply().await;
        assert_eq!(reply.map(|reply| reply.status), (number % 3 > 0).then_some(408), "{number}");
    }
    assert_eq!(world.results(), [DeliveryResult::TooSlow; 200]);
    assert_eq!(world.kept.bodies(), []);
}
