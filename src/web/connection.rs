//! One connection from its first byte to its end: HTTP/1 by hyper, with a watch over its time.
//!
//! hyper's own header timeout also runs between requests, where a connection may rest longer; so the watch is ours.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, HeaderValue, TRANSFER_ENCODING};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until, timeout};

use super::pace::{Pace, Paced};
use super::{Answer, Handler};
use crate::worker::Signal;

/// The most that a head may take, in bytes; larger ones are answered 431.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// The most that is buffered of one connection, in bytes: a thousand slow ones have one each.
const MAX_BUFFER_BYTES: usize = MAX_HEAD_BYTES;
/// How long what a refused sender still sends is read and dropped, so that the answer reaches it. A connection that is
/// closed with bytes unread is reset, and a reset throws away answers that are on their way.
const LINGER: Duration = Duration::from_secs(2);
/// The most that is dropped so, in bytes.
const MAX_LINGER_BYTES: u64 = 16 << 20;

/// The times of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) header_timeout: Duration,
    pub(super) idle_timeout: Duration,
}

/// How serving ended.
enum End {
    /// By HTTP's own rules.
    Closed,
    /// The peer broke the rules, or the connection broke.
    Broken,
    /// It took too long.
    TimedOut,
}

struct Requests<H> {
    handler: Arc<H>,
    pace: Pace,
}

impl<H: Handler> Service<Request<Incoming>> for Requests<H> {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (handler, pace) = (Arc::clone(&self.handler), self.pace.clone());
        pace.begin();
        Box::pin(async move {
            // RFC 9112, section 6.1: what came with a transfer coding may have been framed otherwise by a proxy before
            // us, so nothing after it on this connection is believed.
            let is_chunked = request.headers().contains_key(TRANSFER_ENCODING);
            let has_body = !request.body().is_end_stream();
            let mut response = handler.handle(request).await;
            if is_chunked || has_body && !response.status().is_success() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            pace.end();
            Ok(response)
        })
    }
}

/// Serves one connection until it ends, takes too long, or `stop` is set and its request is answered.
pub(super) async fn serve<S, H>(stream: S, handler: Arc<H>, times: Times, stop: Signal)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let pace = Pace::new(times.header_timeout, times.idle_timeout);
    let requests = Requests { handler, pace: pace.clone() };
    let mut connection = http1::Builder::new()
        .half_close(true)
        .header_read_timeout(None)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_BUFFER_BYTES)
        .serve_connection(TokioIo::new(Paced::new(stream, pace.clone())), requests);
    let mut stopped = pin!(stop.wait());
    let mut is_stopping = false;
    let mut watch = pin!(sleep_until(Instant::now()));
    let end = poll_fn(|cx| {
        if !is_stopping && stopped.as_mut().poll(cx).is_ready() {
            is_stopping = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        if let Poll::Ready(result) = connection.poll_without_shutdown(cx) {
            return Poll::Ready(if result.is_ok() { End::Closed } else { End::Broken });
        }
        // Whatever changes the phase happens in the poll above, so the deadline is always the present one here.
        let Some(deadline) = pace.deadline() else { return Poll::Pending };
        if watch.deadline() != deadline {
            watch.as_mut().reset(deadline);
        }
        watch.as_mut().poll(cx).map(|()| End::TimedOut)
    })
    .await;
    let stream = connection.into_parts().io.into_inner().into_inner();
    match end {
        End::TimedOut => tracing::debug!("a connection was cut: its time was up"),
        End::Broken if pace.is_busy() => tracing::debug!("a connection broke during a request"),
        End::Closed | End::Broken => linger(stream).await,
    }
}

/// Closes our side, then drops what still comes, for a short while.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let drop_rest = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(MAX_LINGER_BYTES), &mut tokio::io::sink()).await
    };
    // Nobody is left to tell of a connection that breaks here.
    _ = timeout(LINGER, drop_rest).await;
}
