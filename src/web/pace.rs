//! What a connection is doing, as its watch sees it: waiting between requests, sending a head, or being answered.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Between requests, since then.
    Idle(Instant),
    /// A head is coming, since then.
    Head(Instant),
    /// A request is being answered; who answers it keeps its own time.
    Busy,
}

/// The phase of one connection, shared by its stream, its requests and its watch.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    phase: Arc<Mutex<Phase>>,
    header_timeout: Duration,
    idle_timeout: Duration,
}

impl Pace {
    /// A new connection owes its first head from now on.
    pub(super) fn new(header_timeout: Duration, idle_timeout: Duration) -> Self {
        Self { phase: Arc::new(Mutex::new(Phase::Head(Instant::now()))), header_timeout, idle_timeout }
    }

    /// When the connection is to be cut if nothing changes.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.phase() {
            Phase::Idle(since) => Some(since + self.idle_timeout),
            Phase::Head(since) => Some(since + self.header_timeout),
            Phase::Busy => None,
        }
    }

    /// Whether a request is being answered.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.phase(), Phase::Busy)
    }

    /// A whole head has come.
    pub(super) fn begin(&self) {
        self.set(Phase::Busy);
    }

    /// A request was answered.
    pub(super) fn end(&self) {
        self.set(Phase::Idle(Instant::now()));
    }

    /// Bytes have come.
    fn touch(&self) {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*phase, Phase::Idle(_)) {
            *phase = Phase::Head(Instant::now());
        }
    }

    fn phase(&self) -> Phase {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }
}

/// A stream that tells its [`Pace`] when bytes come.
#[derive(Debug)]
pub(super) struct Paced<S> {
    stream: S,
    pace: Pace,
}

impl<S> Paced<S> {
    pub(super) fn new(stream: S, pace: Pace) -> Self {
        Self { stream, pace }
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            this.pace.touch();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
