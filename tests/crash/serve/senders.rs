//! Senders: what Jelly does, many at once, over real sockets; and what they were told.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rustix::process::{Pid, Signal, kill_process};
use sha2::Sha256;

use crate::random::Random;
use crate::world::WEBHOOK_SECRET;

/// Senders at once.
const SENDERS: u64 = 8;
/// What no parser takes for an event: half of it, none of it, and no text at all.
const UNREADABLE: [&[u8]; 3] =
    [b"{\"event\": \"message.created\", \"data\": {\"mess", b"plain words", b"\xff\x00\xfe\x80 bytes"];
/// How much larger large bodies are, in bytes.
const LARGE: u64 = 600_000;

/// The webhooks of a world.
#[derive(Debug)]
pub(super) struct Letters {
    bodies: Vec<Vec<u8>>,
    signatures: Vec<String>,
}

impl Letters {
    /// Each line of a dump, some of them large; and some bodies that cannot be read.
    pub(super) fn of_dump(dump: &Path, seed: u64) -> Result<Self> {
        let mut random = Random::new(seed, 0x001e_77e5);
        let text = std::fs::read(dump)?;
        let mut bodies: Vec<Vec<u8>> = Vec::new();
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let mut body = line.to_owned();
            if random.one_in(24) {
                let filling = "x".repeat(usize::try_from(random.below(LARGE))?);
                let rest = body.strip_prefix(b"{").context("an event that is no object")?;
                body = [format!("{{\"filling\":\"{filling}\",").as_bytes(), rest].concat();
            }
            bodies.push(body);
        }
        bodies.extend(UNREADABLE.map(<[u8]>::to_vec));
        let signatures = bodies.iter().map(|body| sign(body)).collect::<Result<_>>()?;
        Ok(Self { bodies, signatures })
    }
}

/// Jelly's signature: hex HMAC-SHA256 of the raw body.
fn sign(body: &[u8]) -> Result<String> {
    let mut tag = Hmac::<Sha256>::new_from_slice(WEBHOOK_SECRET.as_bytes())?;
    tag.update(body);
    Ok(HEXLOWER.encode(&tag.finalize().into_bytes()))
}

/// What senders were told, in a life.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) acknowledged: u64,
    pub(super) unanswered: u64,
    pub(super) refused: u64,
}

/// The webhooks of one life: which wait to be posted, and which were acknowledged.
#[derive(Debug)]
pub(super) struct Load<'a> {
    letters: &'a Letters,
    waiting: Mutex<VecDeque<usize>>,
    acknowledged: Vec<AtomicU64>,
    counts: Mutex<Counts>,
    seed: u64,
    turns: AtomicU64,
}

/// What came of one request.
enum Answer {
    Status(u16),
    /// The connection broke, or was broken by this sender.
    None,
}

impl<'a> Load<'a> {
    pub(super) fn new(letters: &'a Letters, random: &mut Random) -> Self {
        let mut order: Vec<usize> = (0..letters.bodies.len()).collect();
        for place in (1..order.len()).rev() {
            order.swap(place, usize::try_from(random.below(place as u64 + 1)).unwrap_or(0));
        }
        Self {
            letters,
            waiting: Mutex::new(order.into()),
            acknowledged: letters.bodies.iter().map(|_| AtomicU64::new(0)).collect(),
            counts: Mutex::default(),
            seed: random.next(),
            turns: AtomicU64::new(0),
        }
    }

    /// How many were not acknowledged yet.
    pub(super) fn left(&self) -> usize {
        self.acknowledged.iter().filter(|count| count.load(Ordering::SeqCst) == 0).count()
    }

    pub(super) fn counts(&self) -> Counts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bodies, each with how often it was acknowledged.
    pub(super) fn bodies(&self) -> impl Iterator<Item = (&[u8], u64)> {
        let counts = self.acknowledged.iter().map(|count| count.load(Ordering::SeqCst));
        self.letters.bodies.iter().map(Vec::as_slice).zip(counts)
    }

    /// Whether a body cannot be read.
    pub(super) fn is_unreadable(body: &[u8]) -> bool {
        UNREADABLE.contains(&body)
    }

    /// Posts what waits until nothing does, or nobody answers. The sender that sees acknowledgement `kill_at` kills the
    /// process at once.
    pub(super) fn post_all(&self, address: &str, kill_at: Option<(u64, Pid)>) -> Result<()> {
        let (seen, gone) = (AtomicU64::new(0), AtomicBool::new(false));
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        std::thread::scope(|scope| {
            let senders: Vec<_> = (0..SENDERS)
                .map(|number| {
                    let (seen, gone) = (&seen, &gone);
                    let random = Random::new(self.seed ^ turn, number);
                    scope.spawn(move || self.post_some(address, number, random, kill_at, seen, gone))
                })
                .collect();
            for sender in senders {
                sender.join().map_err(|_| anyhow::anyhow!("a sender fell over"))??;
            }
            Ok(())
        })
    }

    fn post_some(
        &self,
        address: &str,
        number: u64,
        mut random: Random,
        kill_at: Option<(u64, Pid)>,
        seen: &AtomicU64,
        gone: &AtomicBool,
    ) -> Result<()> {
        // Half of the senders keep their connections.
        let keeps = number.is_multiple_of(2);
        let mut connection: Option<TcpStream> = None;
        while !gone.load(Ordering::SeqCst) {
            let next = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(letter) = next else { return Ok(()) };
            let requeue = || self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(letter);
            let stream = match connection.take() {
                Some(stream) => stream,
                None => match TcpStream::connect(address) {
                    Ok(stream) => stream,
                    Err(_) => {
                        requeue();
                        gone.store(true, Ordering::SeqCst);
                        return Ok(());
                    }
                },
            };
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
            let cut = random.one_in(12);
            let answer = self.post(&stream, address, letter, keeps, cut, &mut random);
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            match answer {
                Answer::Status(200) => {
                    counts.acknowledged += 1;
                    drop(counts);
                    self.acknowledged[letter].fetch_add(1, Ordering::SeqCst);
                    let seen = 1 + seen.fetch_add(1, Ordering::SeqCst);
                    if let Some((at, pid)) = kill_at
                        && seen == at
                    {
                        kill_process(pid, Signal::KILL)?;
                    }
                    // Jelly may send one again.
                    if random.one_in(16) {
                        requeue();
                    }
                    connection = keeps.then_some(stream);
                }
                Answer::Status(503) => {
                    counts.refused += 1;
                    drop(counts);
                    requeue();
                    std::thread::sleep(Duration::from_millis(5));
                }
                Answer::Status(status) => {
                    drop(counts);
                    bail!("a signed webhook was answered with {status}");
                }
                Answer::None => {
                    counts.unanswered += 1;
                    drop(counts);
                    requeue();
                }
            }
        }
        Ok(())
    }

    /// Posts one, or a part of it, and reads the answer.
    fn post(
        &self,
        mut stream: &TcpStream,
        host: &str,
        letter: usize,
        keeps: bool,
        cut: bool,
        random: &mut Random,
    ) -> Answer {
        let body = &self.letters.bodies[letter];
        let head = format!(
            "POST /webhooks/default HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             x-jelly-signature: {}\r\nconnection: {}\r\n\r\n",
            body.len(),
            self.letters.signatures[letter],
            if keeps { "keep-alive" } else { "close" }
        );
        let request = [head.as_bytes(), body].concat();
        if cut {
            // The whole of it may have arrived; then it may be kept, and nobody hears of it.
            let part = usize::try_from(random.below(request.len() as u64 + 1)).unwrap_or(0);
            let _ = stream.write_all(&request[..part]);
            return Answer::None;
        }
        if stream.write_all(&request).is_err() {
            return Answer::None;
        }
        let mut answer = Vec::new();
        let mut piece = [0; 1024];
        loop {
            match stream.read(&mut piece) {
                Ok(0) | Err(_) => return Answer::None,
                Ok(length) => answer.extend_from_slice(&piece[..length]),
            }
            let text = String::from_utf8_lossy(&answer);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let lines = head.to_ascii_lowercase();
            let length = lines.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            if body.len() >= length.unwrap_or(0) {
                let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
                return status.map_or(Answer::None, Answer::Status);
            }
        }
    }
}
