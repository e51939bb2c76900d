//! A small HTTP/1.1 server, written by hand: it must be able to lie about lengths, cut, stall and reset, must show the
//! request target byte for byte, and must cost little beside the client that is being measured.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::content::{PIECE_BYTES, Source};
use super::state::State;

/// The longest request head, in bytes.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// The longest request body, in bytes.
const MAX_BODY_BYTES: usize = 1 << 20;
/// How often a slow body sends something.
const SLOW_BEAT: Duration = Duration::from_millis(50);

/// Which of the two servers answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The API, and the simulator's own control pages.
    Api,
    /// The storage.
    Storage,
}

/// A request as it came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    /// The method.
    pub(super) method: &'a str,
    /// The target, byte for byte.
    pub(super) target: &'a str,
    headers: &'a str,
    /// The body.
    pub(super) body: &'a [u8],
}

impl<'a> Request<'a> {
    /// Reads a head that ends with an empty line.
    fn parse(head: &'a [u8], body: &'a [u8]) -> Option<Self> {
        let head = std::str::from_utf8(head).ok()?;
        let (line, headers) = head.split_once("\r\n")?;
        let (method, rest) = line.split_once(' ')?;
        let (target, version) = rest.split_once(' ')?;
        version.starts_with("HTTP/1.").then_some(Self { method, target, headers, body })
    }

    /// The first header of that name.
    pub(super) fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.split("\r\n").find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// What to do once the head of an answer is written.
#[derive(Debug)]
pub(super) enum Next {
    /// Send what was written and wait for the next request.
    KeepAlive,
    /// Send nothing and reset the connection.
    Reset,
    /// Send nothing and hold the connection until the client leaves.
    Stall,
    /// Send what was written, then a body.
    Send(Box<Body>),
}

/// What happens after a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The connection serves the next request.
    KeepAlive,
    /// It is closed.
    Close,
    /// It is reset.
    Reset,
    /// It is held until the client leaves.
    Stall,
}

/// A body to send.
#[derive(Debug)]
pub(super) struct Body {
    /// Where the bytes come from.
    pub(super) source: Source,
    /// Where the body begins in them.
    pub(super) offset: u64,
    /// How many bytes are sent.
    pub(super) size_bytes: u64,
    /// Which of the bytes (counted from the source's beginning) is sent wrong.
    pub(super) flip_at: Option<u64>,
    /// How fast it is sent.
    pub(super) bytes_per_second: Option<u64>,
    /// What happens then.
    pub(super) end: End,
}

/// Accepts connections until the task is aborted; that ends its connections too.
pub(super) async fn serve(listener: TcpListener, role: Role, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                state.counters.connections.fetch_add(1, Relaxed);
                let state = Arc::clone(&state);
                connections.spawn(async move {
                    // A client that leaves is nothing to report.
                    let _ = connection(stream, role, &state).await;
                });
            }
            // Out of descriptors, most likely: let some connections end.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Counts a request as being answered until it is dropped.
struct InFlight<'a>(&'a State);

impl<'a> InFlight<'a> {
    fn new(state: &'a State) -> Self {
        let now = state.counters.in_flight.fetch_add(1, Relaxed) + 1;
        state.counters.in_flight_max.fetch_max(now, Relaxed);
        Self(state)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.counters.in_flight.fetch_sub(1, Relaxed);
    }
}

async fn connection(mut stream: TcpStream, role: Role, state: &State) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut input, mut output) = (Vec::with_capacity(8 << 10), Vec::with_capacity(8 << 10));
    loop {
        let head_bytes = loop {
            if let Some(at) = memmem::find(&input, b"\r\n\r\n") {
                break at + 4;
            }
            if input.len() > MAX_HEAD_BYTES {
                return refuse(stream, "431 Request Header Fields Too Large").await;
            }
            if stream.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
        };
        let body_bytes = match Request::parse(&input[..head_bytes], &[]) {
            Some(request) if request.header("transfer-encoding").is_none() => {
                request.header("content-length").map_or(Some(0), |text| text.parse::<usize>().ok())
            }
            _ => None,
        };
        let Some(body_bytes) = body_bytes else {
            return refuse(stream, "400 Bad Request").await;
        };
        if body_bytes > MAX_BODY_BYTES {
            return refuse(stream, "413 Content Too Large").await;
        }
        let whole_bytes = head_bytes + body_bytes;
        while input.len() < whole_bytes {
            if stream.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
        }

        let in_flight = InFlight::new(state);
        if !state.latency.is_zero() {
            tokio::time::sleep(state.latency).await;
        }
        output.clear();
        let (next, last) = {
            let (head, body) = input[..whole_bytes].split_at(head_bytes);
            let Some(request) = Request::parse(head, body) else {
                return refuse(stream, "400 Bad Request").await;
            };
            let last = request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
            let next = match role {
                Role::Api => super::api::answer(state, &request, &mut output),
                Role::Storage => super::storage::answer(state, &request, &mut output),
            };
            if request.method == "HEAD"
                && let Some(at) = memmem::find(&output, b"\r\n\r\n")
            {
                output.truncate(at + 4);
            }
            (next, last)
        };
        input.drain(..whole_bytes);
        let end = match next {
            Next::KeepAlive => {
                stream.write_all(&output).await?;
                End::KeepAlive
            }
            Next::Reset => End::Reset,
            Next::Stall => End::Stall,
            Next::Send(body) => {
                send(&mut stream, &body, &mut output, state).await?;
                body.end
            }
        };
        drop(in_flight);
        match end {
            End::KeepAlive if !last => {}
            End::KeepAlive | End::Close => return stream.shutdown().await,
            End::Reset => return stream.set_zero_linger(),
            End::Stall => return until_gone(&mut stream, &mut input).await,
        }
        if output.capacity() > 128 << 10 {
            output = Vec::with_capacity(8 << 10);
        }
    }
}

/// Sends the head that stands in `output`, then the body, a piece at a time.
async fn send(stream: &mut TcpStream, body: &Body, output: &mut Vec<u8>, state: &State) -> io::Result<()> {
    let beats_per_second = 1000 / SLOW_BEAT.as_millis().max(1);
    let piece_bytes = body
        .bytes_per_second
        .map_or(PIECE_BYTES, |rate| (rate / u64::try_from(beats_per_second).unwrap_or(1)).clamp(1, PIECE_BYTES));
    let mut sent = 0;
    loop {
        let count = piece_bytes.min(body.size_bytes - sent);
        let from = body.offset + sent;
        let start = output.len();
        body.source.fill(from, count, output);
        if let Some(at) = body.flip_at
            && (from..from + count).contains(&at)
        {
            let index = start + usize::try_from(at - from).unwrap_or(0);
            output[index] ^= 1;
        }
        stream.write_all(output).await?;
        output.clear();
        state.counters.bytes_served.fetch_add(count, Relaxed);
        sent += count;
        if sent >= body.size_bytes {
            return Ok(());
        }
        if body.bytes_per_second.is_some() {
            tokio::time::sleep(SLOW_BEAT).await;
        }
    }
}

/// Answers something that is no request we serve, and closes.
async fn refuse(mut stream: TcpStream, status: &str) -> io::Result<()> {
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// Reads and forgets until the client closes.
async fn until_gone(stream: &mut TcpStream, input: &mut Vec<u8>) -> io::Result<()> {
    loop {
        input.clear();
        if stream.read_buf(input).await? == 0 {
            return Ok(());
        }
    }
}

/// Appends a whole answer.
pub(super) fn write_answer(out: &mut Vec<u8>, status: &str, headers: &str, body: &[u8]) {
    for part in ["HTTP/1.1 ", status, "\r\nContent-Length: "] {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(body.len().to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(headers.as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_came() {
        let head = b"GET /a%2Fb?c=%252F&d HTTP/1.1\r\nHost: x\r\nRANGE:  bytes=1- \r\n\r\n";
        let request = Request::parse(head, b"").unwrap();
        assert_eq!((request.method, request.target), ("GET", "/a%2Fb?c=%252F&d"));
        assert_eq!(request.header("range"), Some("bytes=1-"));
        assert_eq!(request.header("if-match"), None);
        assert!(Request::parse(b"GET /\r\n\r\n", b"").is_none());
    }
}
