//! Reads a body under its bounds: size, time, rate and memory.

use std::error::Error;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use tokio::time::{Instant, sleep_until, timeout};

use super::budget::{Budget, FREE_BYTES, Share};
use crate::config::ServeConfig;

/// Why a body was not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyError {
    /// It is larger than is taken.
    TooLarge,
    /// It came too slowly.
    TooSlow,
    /// There was no memory for it for too long.
    NoRoom,
    /// The sender broke off, or broke the rules of HTTP.
    Broken,
}

/// While others wait for room, a body that holds some may be silent for so long, and so long its rate is not looked at.
const PRESSED_GRACE: Duration = Duration::from_secs(1);

/// The bounds of one body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    max_bytes: u64,
    /// So long the rate is not looked at.
    grace: Duration,
    longest: Duration,
    /// So long it may wait for memory, all in all.
    longest_wait: Duration,
    bytes_per_second: u64,
}

impl Bounds {
    pub(super) fn new(config: &ServeConfig) -> Self {
        Self {
            max_bytes: config.max_body_bytes,
            grace: config.header_timeout,
            longest: config.body_timeout,
            longest_wait: config.store_timeout,
            bytes_per_second: config.min_body_rate_bytes.max(1),
        }
    }

    /// How long a body may have taken when so many bytes of it have come.
    fn time_for(&self, received: u64, is_pressed: bool) -> Duration {
        let grace = if is_pressed { self.grace.min(PRESSED_GRACE) } else { self.grace };
        let by_rate = Duration::from_millis(received.saturating_mul(1000) / self.bytes_per_second);
        grace.saturating_add(by_rate).min(self.longest)
    }
}

/// Reads a body to its end. The share that comes with it must be kept as long as the bytes.
///
/// # Errors
/// See [`BodyError`]. What has come is dropped.
pub(super) async fn read<B>(mut body: B, bounds: Bounds, budget: &Budget) -> Result<(Bytes, Share), BodyError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let declared = body.size_hint().exact();
    if declared.is_some_and(|declared| declared > bounds.max_bytes) {
        return Err(BodyError::TooLarge);
    }
    let (mut share, mut room) = (Share::default(), FREE_BYTES);
    let mut bytes = Vec::with_capacity(capacity(declared.unwrap_or(0).min(FREE_BYTES)));
    // Moves on by what was spent waiting for memory, which is not the sender's fault.
    let mut start = Instant::now();
    let mut last = start;
    let mut left_to_wait = bounds.longest_wait;
    loop {
        let is_pressed = share.is_held() && budget.is_pressed();
        let mut deadline = start + bounds.time_for(bytes.len() as u64, is_pressed);
        if is_pressed {
            deadline = deadline.min(last + PRESSED_GRACE);
        }
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame,
            () = sleep_until(deadline) => {
                if is_pressed && !budget.is_pressed() {
                    continue;
                }
                return Err(BodyError::TooSlow);
            }
            () = budget.pressed(), if share.is_held() && !is_pressed => continue,
        };
        last = Instant::now();
        let Some(frame) = frame else { return Ok((Bytes::from(bytes), share)) };
        // What is no data is trailers, which mean nothing here.
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        let needed = bytes.len() as u64 + data.remaining() as u64;
        if needed > bounds.max_bytes {
            return Err(BodyError::TooLarge);
        }
        if needed > room {
            let asked = Instant::now();
            let wait = timeout(left_to_wait, budget.grow(&mut share, needed, declared)).await;
            room = wait.map_err(|_| BodyError::NoRoom)?;
            last = Instant::now();
            start += last - asked;
            left_to_wait = left_to_wait.saturating_sub(last - asked);
            let size = declared.unwrap_or(needed).min(room);
            bytes.reserve_exact(capacity(size).saturating_sub(bytes.len()));
        }
        bytes.extend_from_slice(&data);
    }
}

fn capacity(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{StreamExt as _, stream};
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;

    const MIB: u64 = 1 << 20;

    fn config() -> ServeConfig {
        ServeConfig {
            max_body_bytes: 4 * MIB,
            max_in_flight_bytes: 12 * MIB,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_mins(2),
            min_body_rate_bytes: 1000,
            ..ServeConfig::default()
        }
    }

    /// Nothing takes longer than a moment.
    fn hasty() -> ServeConfig {
        let moment = Duration::from_millis(50);
        ServeConfig { header_timeout: moment, body_timeout: moment, ..config() }
    }

    async fn read_all(
        config: &ServeConfig,
        body: impl Body<Data = Bytes, Error = std::io::Error> + Unpin,
        budget: &Budget,
    ) -> Result<(usize, Share), BodyError> {
        read(body, Bounds::new(config), budget).await.map(|(bytes, share)| (bytes.len(), share))
    }

    /// A body without a declared size, in pieces of a size.
    fn pieces(count: usize, size: usize) -> impl Body<Data = Bytes, Error = std::io::Error> + Unpin {
        let pieces = stream::iter(0..count).map(move |_| Ok(Frame::data(Bytes::from(vec![b'x'; size]))));
        StreamBody::new(pieces)
    }

    fn whole(size: usize) -> impl Body<Data = Bytes, Error = std::io::Error> + Unpin {
        Full::new(Bytes::from(vec![b'x'; size])).map_err(|never| match never {})
    }

    #[tokio::test]
    async fn a_body_comes_whole_in_any_number_of_pieces_up_to_the_largest() {
        let (config, budget) = (config(), Budget::new(&config()));
        for (count, size) in [(0, 0), (1, 10), (3, 1), (5, 16 << 10), (100, 15_000), (4, 1 << 20)] {
            let (length, _share) = read_all(&config, pieces(count, size), &budget).await.unwrap();
            assert_eq!(length, count * size);
        }
        assert_eq!(read_all(&config, whole(4 << 20), &budget).await.unwrap().0, 4 << 20);
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_is_refused_by_what_it_declares_or_by_what_comes() {
        let (config, budget) = (config(), Budget::new(&config()));
        let declared = read_all(&config, whole((4 << 20) + 1), &budget).await;
        assert_eq!(declared.unwrap_err(), BodyError::TooLarge);
        let undeclared = read_all(&config, pieces(5, 1 << 20), &budget).await;
        assert_eq!(undeclared.unwrap_err(), BodyError::TooLarge);
    }

    #[test]
    fn time_comes_with_bytes_from_the_grace_up_to_the_longest() {
        let bounds = Bounds::new(&config());
        for (received, seconds, pressed) in
            [(0, 10, 1), (1000, 11, 2), (50_000, 60, 51), (110_000, 120, 111), (u64::MAX, 120, 120)]
        {
            assert_eq!(bounds.time_for(received, false), Duration::from_secs(seconds), "{received}");
            assert_eq!(bounds.time_for(received, true), Duration::from_secs(pressed), "{received}");
        }
    }

    #[tokio::test]
    async fn a_body_that_stops_coming_is_cut() {
        let config = hasty();
        let some = stream::iter([Ok(Frame::data(Bytes::from_static(b"x")))]);
        let stalled = StreamBody::new(some.chain(stream::pending()));
        let error = read_all(&config, stalled, &Budget::new(&config)).await.unwrap_err();
        assert_eq!(error, BodyError::TooSlow);
    }

    #[tokio::test]
    async fn a_body_waits_for_memory_only_so_long_and_that_is_not_the_senders_time() {
        let config = ServeConfig { store_timeout: Duration::from_millis(200), ..hasty() };
        let budget = Budget::new(&config);
        let (_, first) = read_all(&config, pieces(2, 1 << 20), &budget).await.unwrap();
        let second = read_all(&config, pieces(2, 1 << 20), &budget).await;
        assert_eq!(second.unwrap_err(), BodyError::NoRoom);
        assert!(read_all(&config, pieces(1, 1 << 20), &budget).await.is_ok(), "small ones are not concerned");
        // The place is given after more than the grace; the third body then goes on, though its sender would be late.
        let mut third = std::pin::pin!(read_all(&config, pieces(3, 1 << 20), &budget));
        assert!(timeout(config.header_timeout * 2, &mut third).await.is_err());
        drop(first);
        assert_eq!(third.await.unwrap().0, 3 << 20);
    }

    #[tokio::test]
    async fn a_body_that_holds_room_and_stalls_is_cut_once_another_waits() {
        let config = config();
        let budget = Budget::new(&config);
        let stalls = || {
            let some = stream::iter([Ok(Frame::data(Bytes::from(vec![b'x'; 600 << 10])))]);
            StreamBody::new(some.chain(stream::pending()))
        };
        // Seven MiB are shared, and each of these takes one; the eighth has the place for small ones.
        let stalled = async {
            futures::future::join_all((0..8).map(|_| read_all(&config, stalls(), &budget))).await;
            std::future::pending::<()>().await;
        };
        // Far less than the two minutes that the stalled ones have while nobody waits.
        let honest = timeout(Duration::from_secs(30), read_all(&config, pieces(30, 10 << 10), &budget));
        let honest = tokio::select! {
            biased;
            () = stalled => unreachable!("it is pending for ever"),
            honest = honest => honest,
        };
        assert_eq!(honest.unwrap().unwrap().0, 300 << 10);
    }
}
