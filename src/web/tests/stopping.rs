//! The end: nothing new, what is in flight to its end, and never longer than was said.

use tokio::net::TcpStream;

use super::client::{Client, webhook};
use super::*;

const BODY: &[u8] = b"{}";

#[tokio::test]
async fn a_request_in_flight_is_answered_while_the_idle_are_closed_and_the_new_refused() {
    let world = World::start().await;
    let mut idle = Client::connect(world.address).await;
    idle.send(&webhook("default", SECRET, BODY)).await;
    assert_eq!(idle.reply().await.unwrap().status, 200);
    let mut silent = Client::connect(world.address).await;
    world.kept.set(Mood::Hold);
    let mut busy = Client::connect(world.address).await;
    busy.send(&webhook("default", SECRET, BODY)).await;
    world.kept.holding.notified().await;

    world.stop.set();
    assert!(idle.is_closed().await);
    assert!(silent.is_closed().await);
    assert!(TcpStream::connect(world.address).await.is_err());
    world.kept.release.notify_one();
    let reply = busy.reply().await.unwrap();
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    assert!(busy.is_closed().await);
    drop(busy);
    assert_eq!(world.serving.await.unwrap(), 0, "none was cut");
    assert_eq!(world.kept.bodies().len(), 2);
}

#[tokio::test]
async fn what_does_not_end_is_cut_when_the_time_is_up() {
    let world = World::with(config(), None, Duration::from_millis(100)).await;
    world.kept.set(Mood::Hold);
    let mut busy = Client::connect(world.address).await;
    busy.send(&webhook("default", SECRET, BODY)).await;
    world.kept.holding.notified().await;
    world.stop.set();
    assert!(busy.is_closed().await);
    assert_eq!(world.serving.await.unwrap(), 1);
    assert_eq!(world.kept.bodies(), []);
}

#[tokio::test]
async fn a_taken_address_is_named_with_its_setting() {
    let world = World::start().await;
    let config = ServeConfig { ops_listen: world.address, ..config() };
    let error = Listener::operations(&config).await.unwrap_err().to_string();
    assert!(error.contains(&world.address.to_string()) && error.contains("--ops-listen"), "{error}");
}
