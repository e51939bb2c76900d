//! The one source of time. Owns "what time is it"; every other module takes a [`Clock`].

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use jiff::Timestamp;

/// Tells the current time. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    Fixed(Arc<AtomicI64>),
    Server(Arc<ServerTime>),
}

/// The time of a server, as it was when it was last asked, plus what has passed since.
#[derive(Debug)]
struct ServerTime {
    began: Instant,
    /// What the server's time was when this process's was `began`, in milliseconds since the Unix epoch.
    then_ms: AtomicI64,
}

impl ServerTime {
    fn passed_ms(&self) -> i64 {
        i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still at `start` until [`Clock::advance_ms`] moves it. For tests.
    pub fn fixed(start: Timestamp) -> Self {
        Self(Source::Fixed(Arc::new(AtomicI64::new(start.as_millisecond()))))
    }

    /// The clock of a server that says it is `now_ms` (milliseconds since the Unix epoch). It goes on steadily, whatever is
    /// done to this machine's clock, until [`Clock::set_server_ms`].
    pub fn server(now_ms: i64) -> Self {
        let time = ServerTime { began: Instant::now(), then_ms: AtomicI64::new(now_ms) };
        Self(Source::Server(Arc::new(time)))
    }

    /// Sets a server's clock by what the server says now; changes no other.
    pub fn set_server_ms(&self, now_ms: i64) {
        if let Source::Server(time) = &self.0 {
            time.then_ms.store(now_ms.saturating_sub(time.passed_ms()), Ordering::Relaxed);
        }
    }

    /// Whether it is that of this machine.
    pub fn is_system(&self) -> bool {
        matches!(self.0, Source::System)
    }

    /// The time of a clock that stands still.
    pub fn fixed_ms(&self) -> Option<i64> {
        matches!(self.0, Source::Fixed(_)).then(|| self.now_ms())
    }

    /// The current time.
    #[allow(clippy::disallowed_methods, reason = "this is the one place that asks the system for the time")]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => Timestamp::now(),
            Source::Fixed(ms) => {
                Timestamp::from_millisecond(ms.load(Ordering::Relaxed)).unwrap_or(Timestamp::UNIX_EPOCH)
            }
            Source::Server(time) => {
                let now_ms = time.then_ms.load(Ordering::Relaxed).saturating_add(time.passed_ms());
                Timestamp::from_millisecond(now_ms).unwrap_or(Timestamp::UNIX_EPOCH)
            }
        }
    }

    /// The current time in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> i64 {
        self.now().as_millisecond()
    }

    /// Moves a fixed clock forward by `ms` milliseconds; does nothing to the system's clock.
    pub fn advance_ms(&self, ms: i64) {
        if let Source::Fixed(now) = &self.0 {
            now.fetch_add(ms, Ordering::Relaxed);
        }
    }
}
