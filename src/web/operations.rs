//! The operations listener: `/healthz`, `/readyz` and `/metrics`. It asks what it is given and knows no dependency itself.

use std::fmt;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::ALLOW;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;

use super::Handler;
use super::answer::{self, Answer};

/// The media type of the Prometheus text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Something that the service needs, and how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// What it is: `inbox`, `archive:PLACE`, `catalog:PLACE`.
    pub name: String,
    /// Well, or why not; without secrets, for everybody who asks reads it.
    pub state: Result<(), String>,
}

/// Tells how all dependencies are.
pub trait Health: Send + Sync + 'static {
    /// All dependencies, well or not. Must not block: what takes time is looked at elsewhere, and remembered.
    fn dependencies(&self) -> Vec<Dependency>;

    /// The parts of the process that show no sign of life: a restart may help, and nothing else.
    fn hanging(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Answers operators and their monitors.
pub struct Operations<H> {
    health: H,
    render_metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

impl<H> fmt::Debug for Operations<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Operations")
    }
}

impl<H: Health> Operations<H> {
    /// `render_metrics` writes all metrics in the Prometheus text format.
    pub fn new(health: H, render_metrics: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self { health, render_metrics: Arc::new(render_metrics) }
    }

    fn alive(&self) -> Response<Answer> {
        let hanging = self.health.hanging();
        if hanging.is_empty() {
            return answer::plain(StatusCode::OK, "alive\n");
        }
        let text = format!("no sign of life: {}\n", hanging.join(", "));
        answer::plain(StatusCode::SERVICE_UNAVAILABLE, text)
    }

    fn ready(&self) -> Response<Answer> {
        let dependencies = self.health.dependencies();
        let is_ready = dependencies.iter().all(|dependency| dependency.state.is_ok());
        let dependencies: Vec<_> = dependencies
            .iter()
            .map(|Dependency { name, state }| json!({ "name": name, "ready": state.is_ok(), "reason": state.as_ref().err() }))
            .collect();
        let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let text = format!("{}\n", json!({ "ready": is_ready, "dependencies": dependencies }));
        answer::typed(status, "application/json", text)
    }
}

impl<H: Health> Handler for Operations<H> {
    async fn handle(&self, request: Request<Incoming>) -> Response<Answer> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let response = answer::plain(StatusCode::METHOD_NOT_ALLOWED, "send GET\n");
            return answer::with(response, ALLOW, "GET, HEAD");
        }
        match request.uri().path() {
            "/healthz" => self.alive(),
            "/readyz" => self.ready(),
            "/metrics" => answer::typed(StatusCode::OK, METRICS, (self.render_metrics)()),
            _ => answer::plain(StatusCode::NOT_FOUND, "not found; ask for /healthz, /readyz or /metrics\n"),
        }
    }
}
