//! The senders of `benches/webhooks`: signed webhooks at a fixed rate, and clients that trickle.
//!
//! An open loop: each webhook has a time at which it is due, whatever the server does, and its latency counts from then,
//! so that a stall shows in all that it delays. Each carries one attachment with an id of its own, which `jellyjar sim`
//! serves. HTTP is written by hand, on one thread: whoever measures must leave the processors to what is measured.

#![expect(clippy::future_not_send, reason = "all of it runs on one thread")]

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Parser;
use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jellyjar::sim::corpus::{CorpusConfig, Profile, write_plain};
use sha2::Sha256;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, sleep_until, timeout, timeout_at};

/// An answer that takes longer is none.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How often a slow client sends something.
const TRICKLE_EVERY: Duration = Duration::from_millis(500);
/// What a slow client of the third kind sends at once, and what it declares.
const AT_ONCE: usize = 256 << 10;
const DECLARED: usize = 1 << 20;
/// Where the plain dump has a message's text.
const TEXT: &[u8] = b"Please find the files attached.";
/// What mail is like once it is JSON: line breaks, quotes, and few other escapes.
const FILLER: &[u8] = br#" Dear all,\n\nthank you for the \"quick\" answer; the figures are below, and the rest comes on Monday.\n> On Friday somebody wrote:\n> could you send the invoice again?\n"#;

/// Posts webhooks to a service and tells, as one JSON object, how that went.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where the service takes webhooks.
    #[arg(long)]
    address: SocketAddr,
    /// The path that they are posted to.
    #[arg(long, default_value = "/webhooks/default")]
    path: String,
    /// The signing secret, of this bench alone.
    #[arg(long)]
    secret: String,
    /// Webhooks in a second.
    #[arg(long)]
    rate: u64,
    /// For so long.
    #[arg(long)]
    seconds: u64,
    /// The size of a body, in bytes.
    #[arg(long)]
    size: usize,
    /// Connections that are kept open. A webhook that finds none free waits, and that counts.
    #[arg(long)]
    connections: usize,
    /// Clients that trickle meanwhile: a third each heads, bodies, and bodies of which much came at once.
    #[arg(long, default_value_t = 0)]
    slow: usize,
    /// Where to write what became of each webhook: one character each, `2` where it was acknowledged.
    #[arg(long)]
    outcomes: PathBuf,
}

/// What became of one webhook.
struct Sent {
    /// The answer's status; 0 without one.
    status: u16,
    /// From the time at which it was due.
    latency: Duration,
}

/// The load, shared by its connections, which all are on one thread.
struct Load {
    arguments: Arguments,
    start: Instant,
    total: u64,
    next: Cell<u64>,
    sent: RefCell<Vec<Option<Sent>>>,
    /// How late webhooks were sent though a connection was free: this program's own fault.
    late: RefCell<Vec<Duration>>,
    key: Hmac<Sha256>,
}

impl Load {
    fn due(&self, number: u64) -> Instant {
        self.start + Duration::from_nanos(number * 1_000_000_000 / self.arguments.rate)
    }

    /// A whole request, with a body of the wanted size.
    fn request(&self, number: u64) -> Vec<u8> {
        let config = CorpusConfig {
            profile: Profile::Plain,
            messages: 1,
            first_message: number,
            sizes: (1 << 10, 4 << 10),
            ..CorpusConfig::default()
        };
        let mut event = Vec::with_capacity(2 << 10);
        write_plain(&config, &mut event).expect("writing into memory does not fail");
        event.pop();
        let at = memchr::memmem::find(&event, TEXT).expect("a plain event has this text") + TEXT.len();
        let mut missing = self.arguments.size.saturating_sub(event.len());
        let mut body = Vec::with_capacity(self.arguments.size);
        body.extend_from_slice(&event[..at]);
        while missing >= FILLER.len() {
            body.extend_from_slice(FILLER);
            missing -= FILLER.len();
        }
        body.extend(std::iter::repeat_n(b'.', missing));
        body.extend_from_slice(&event[at..]);
        let mut mac = self.key.clone();
        mac.update(&body);
        let signature = HEXLOWER.encode(&mac.finalize().into_bytes());
        let (path, length) = (&self.arguments.path, body.len());
        let mut request = Vec::with_capacity(length + 256);
        request.extend_from_slice(
            format!(
                "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
                 x-jelly-signature: {signature}\r\n\r\n"
            )
            .as_bytes(),
        );
        request.extend_from_slice(&body);
        request
    }

    /// One connection: it takes the next webhook, waits until that is due, and posts it; until none is left.
    async fn connection(&self) {
        let mut stream = None;
        loop {
            let number = self.next.get();
            if number >= self.total {
                return;
            }
            self.next.set(number + 1);
            let request = self.request(number);
            let due = self.due(number);
            if Instant::now() < due {
                sleep_until(due.into()).await;
                self.late.borrow_mut().push(due.elapsed());
            }
            let answered = timeout(ANSWER_WITHIN, post(&mut stream, self.arguments.address, &request)).await;
            let status = answered.ok().flatten().unwrap_or(0);
            if status == 0 {
                stream = None;
            }
            let place = usize::try_from(number).expect("there are as many places as webhooks");
            self.sent.borrow_mut()[place] = Some(Sent { status, latency: due.elapsed() });
        }
    }
}

/// Posts a request on a connection that is open, or a new one. Gives the status; nothing where the connection broke.
async fn post(kept: &mut Option<TcpStream>, address: SocketAddr, request: &[u8]) -> Option<u16> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect(address).await.ok()?;
            stream.set_nodelay(true).ok()?;
            stream
        }
    };
    stream.write_all(request).await.ok()?;
    let (mut answer, mut filled) = ([0; 2048], 0);
    loop {
        let count = stream.read(&mut answer[filled..]).await.ok().filter(|count| *count > 0)?;
        filled += count;
        let Some(end) = memchr::memmem::find(&answer[..filled], b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&answer[..end]).ok()?.to_ascii_lowercase();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let length: usize = head.split("\r\ncontent-length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
        while filled < end + 4 + length {
            filled += stream.read(&mut answer[filled..]).await.ok().filter(|count| *count > 0)?;
        }
        if !head.contains("\r\nconnection: close") {
            *kept = Some(stream);
        }
        return Some(status);
    }
}

/// How clients trickle.
#[derive(Debug, Clone, Copy)]
enum Slow {
    Head,
    Body,
    /// Much of it at once, and the rest slowly: it holds memory.
    LargeBody,
}

impl Slow {
    const ALL: [Self; 3] = [Self::Head, Self::Body, Self::LargeBody];

    const fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Body => "body",
            Self::LargeBody => "large body",
        }
    }

    /// What it sends at once.
    fn first(self, path: &str) -> Vec<u8> {
        let head = format!("POST {path} HTTP/1.1\r\nhost: bench\r\n");
        let with_length = |length: usize| format!("{head}content-length: {length}\r\n\r\n").into_bytes();
        match self {
            Self::Head => [head.as_bytes(), b"x-slow: "].concat(),
            Self::Body => with_length(8 << 10),
            Self::LargeBody => [with_length(DECLARED), vec![b'x'; AT_ONCE]].concat(),
        }
    }
}

/// One slow client: it comes, trickles until it is cut, and comes again, until `end`. Gives the times that it was cut
/// after; one that was not cut is not among them, but tells its kind's `open` count.
async fn trickle(kind: Slow, address: SocketAddr, path: Rc<str>, end: Instant) -> (Slow, Vec<Duration>, bool) {
    let mut lives = Vec::new();
    while Instant::now() < end {
        let began = Instant::now();
        let Ok(mut stream) = TcpStream::connect(address).await else {
            sleep(TRICKLE_EVERY).await;
            continue;
        };
        let (mut answer, first) = ([0; 512], kind.first(&path));
        let (mut reader, mut writer) = stream.split();
        let send = async {
            // Whatever breaks here is seen by the reader.
            let mut sent = writer.write_all(&first).await;
            while sent.is_ok() {
                sleep(TRICKLE_EVERY).await;
                sent = writer.write_all(b"x").await;
            }
            std::future::pending::<()>().await;
        };
        let cut = async {
            tokio::select! {
                _ = reader.read(&mut answer) => {}
                () = send => {}
            }
        };
        if timeout_at(end.into(), cut).await.is_err() {
            return (kind, lives, began.elapsed() > Duration::from_secs(1));
        }
        lives.push(began.elapsed());
    }
    (kind, lives, false)
}

/// The value below which `share` of them are, in milliseconds. They are sorted.
fn quantile(sorted: &[Duration], share: f64) -> Option<f64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a rank")]
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    let found = sorted.get(rank.max(1) - 1)?;
    Some((found.as_secs_f64() * 1e6).round() / 1e3)
}

fn latencies(mut all: Vec<Duration>) -> serde_json::Value {
    all.sort_unstable();
    serde_json::json!({
        "p50_ms": quantile(&all, 0.5), "p90_ms": quantile(&all, 0.9), "p99_ms": quantile(&all, 0.99),
        "p999_ms": quantile(&all, 0.999), "max_ms": quantile(&all, 1.0),
    })
}

#[expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "its figures go to standard output, rounded")]
async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let total = arguments.rate * arguments.seconds;
    let load = Rc::new(Load {
        start: Instant::now() + Duration::from_millis(100),
        total,
        next: Cell::new(0),
        sent: RefCell::new((0..total).map(|_| None).collect()),
        late: RefCell::default(),
        key: Hmac::new_from_slice(arguments.secret.as_bytes())?,
        arguments,
    });
    let arguments = &load.arguments;
    let (mut senders, mut slow) = (JoinSet::new(), JoinSet::new());
    let path: Rc<str> = arguments.path.as_str().into();
    let end = load.start + Duration::from_secs(arguments.seconds);
    for number in 0..arguments.slow {
        slow.spawn_local(trickle(Slow::ALL[number % 3], arguments.address, Rc::clone(&path), end));
    }
    for _ in 0..arguments.connections {
        let load = Rc::clone(&load);
        senders.spawn_local(async move { load.connection().await });
    }
    while let Some(ended) = senders.join_next().await {
        ended?;
    }
    let took = load.start.elapsed();
    let mut trickled = serde_json::Map::new();
    while let Some(ended) = slow.join_next().await {
        let (kind, lives, open) = ended?;
        let told =
            trickled.entry(kind.name()).or_insert_with(|| serde_json::json!({"cut": 0, "open": 0, "longest_s": 0.0}));
        let longest = lives.iter().max().map_or(0.0, Duration::as_secs_f64);
        told["cut"] = (told["cut"].as_u64().unwrap_or(0) + lives.len() as u64).into();
        told["open"] = (told["open"].as_u64().unwrap_or(0) + u64::from(open)).into();
        told["longest_s"] = told["longest_s"].as_f64().unwrap_or(0.0).max(longest).into();
    }

    let sent = load.sent.borrow();
    let sent: Vec<&Sent> = sent.iter().flatten().collect();
    let outcomes: Vec<u8> = sent.iter().map(|one| b'0' + u8::try_from(one.status / 100).unwrap_or(9)).collect();
    std::fs::write(&arguments.outcomes, &outcomes)?;
    let mut statuses = serde_json::Map::new();
    for one in &sent {
        let count = statuses.entry(one.status.to_string()).or_insert_with(|| 0.into());
        *count = (count.as_u64().unwrap_or(0) + 1).into();
    }
    let tenth = sent.len().div_ceil(10).max(1);
    let by_tenth: Vec<_> = sent
        .chunks(tenth)
        .map(|part| latencies(part.iter().map(|one| one.latency).collect())["p99_ms"].clone())
        .collect();
    let figures = serde_json::json!({
        "webhooks": sent.len(), "seconds": took.as_secs_f64(),
        "per_second": (sent.len() as f64 / took.as_secs_f64()).round(), "answers": statuses,
        "latency": latencies(sent.iter().map(|one| one.latency).collect()), "p99_by_tenth_ms": by_tenth,
        "own_lateness": latencies(load.late.take()), "slow": trickled,
    });
    println!("{figures}");
    Ok(())
}

fn main() -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, run(Arguments::parse()))?;
    Ok(ExitCode::SUCCESS)
}
