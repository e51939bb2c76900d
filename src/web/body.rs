//! Reads a body under its bounds: size, time, rate and memory.

use std::error::Error;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use tokio::time::{Instant, timeout, timeout_at};

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

/// The bounds of one body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    max_bytes: u64,
    /// So long the rate is not looked at.
    grace: Duration,
    longest: Duration,
    bytes_per_second: u64,
}

impl Bounds {
    pub(super) fn new(config: &ServeConfig) -> Self {
        Self {
            max_bytes: config.max_body_bytes,
            grace: config.header_timeout,
            longest: config.body_timeout,
            bytes_per_second: config.min_body_rate_bytes.max(1),
        }
    }

    /// How long a body may have taken when so many bytes of it have come.
    fn time_for(&self, received: u64) -> Duration {
        let by_rate = Duration::from_millis(received.saturating_mul(1000) / self.bytes_per_second);
        self.grace.saturating_add(by_rate).min(self.longest)
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
    loop {
        let deadline = start + bounds.time_for(bytes.len() as u64);
        let frame = timeout_at(deadline, body.frame()).await.map_err(|_| BodyError::TooSlow)?;
        let Some(frame) = frame else { return Ok((Bytes::from(bytes), share)) };
        // What is no data is trailers, which mean nothing here.
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        let needed = bytes.len() as u64 + data.remaining() as u64;
        if needed > bounds.max_bytes {
            return Err(BodyError::TooLarge);
        }
        if needed > room {
            let asked = Instant::now();
            let wait = timeout(bounds.longest, budget.grow(&mut share, needed, declared)).await;
            room = wait.map_err(|_| BodyError::NoRoom)?;
            start += asked.elapsed();
            if let Some(declared) = declared {
                bytes.reserve_exact(capacity(declared).saturating_sub(bytes.len()));
            }
        }
        bytes.extend_from_slice(&data);
    }
}

fn capacity(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
