//! What others may ask of us: the listener that takes webhooks, and the one that tells operators how things are.
//!
//! It knows who may send and how much, and hands each accepted body to a [`Sink`] as it came. It must not know where
//! bodies are kept, what they mean, or how the metrics came about. It never logs a body, a header or a secret.
//!
//! What a stranger can take is bounded everywhere: connections, the time to make one, to send a head and a body, the
//! rate of a body, and the memory of all bodies together. Small bodies never wait for large ones.

mod answer;
mod body;
mod budget;
mod certificate;
mod connection;
mod hooks;
mod listener;
mod operations;
mod pace;
mod quiet;
mod receiver;
mod tls;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Request, Response};

pub use answer::Answer;
pub use hooks::{Hook, Hooks};
pub use listener::{Connections, ListenError, Listener};
pub use operations::{Dependency, Health, Operations};
pub use receiver::{Delivery, DeliveryResult, Receiver};
pub use tls::{Tls, TlsError};

/// Where accepted bodies go.
pub trait Sink: Send + Sync + 'static {
    /// Keeps a body as it came. Returns only when it is durable.
    ///
    /// Cancellation: when the sender goes away the future is dropped, and the body may be kept or not.
    ///
    /// # Errors
    /// If it could not be kept; the sender is told to come again.
    fn append(&self, team: &str, body: Bytes) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// Why a body could not be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// More comes in than can be written.
    #[error("more webhooks come in than can be stored")]
    Overloaded {
        /// When it is worth to come again.
        retry_after: Duration,
    },
    /// Nothing can be written now: the disk is full, or broken.
    #[error("webhooks cannot be stored: {reason}")]
    Unavailable {
        /// Why, for the log; senders are not told.
        reason: String,
    },
}

/// What answers the requests of a listener.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. Must end in bounded time, whatever the sender does.
    fn handle(&self, request: Request<Incoming>) -> impl Future<Output = Response<Answer>> + Send;
}
