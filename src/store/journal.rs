//! Segments of the journal: how they are written, chained and read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream::Fuse;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Map;
use tokio::sync::Mutex;

use super::keys::{segment_key, writer_key};
use super::{Archive, ByteStream, Result, StoreError};
use crate::clock::Clock;
use crate::digest::{Digest, Hasher};
use crate::model::{FORMAT_VERSION, SegmentHeader, SegmentRef, Stream, UnsupportedVersion, Versioned, WriterId};

/// `writers/<id>.json`: who writes, since when, and how far its two chains reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterRecord {
    /// The format's version.
    pub v: u32,
    /// Who.
    pub writer_id: WriterId,
    /// The program and its version.
    pub program: String,
    /// When it began to write.
    pub started_at: Timestamp,
    /// When this record was written.
    pub heartbeat_at: Timestamp,
    /// When it ended in good order.
    pub ended_at: Option<Timestamp>,
    /// The last segment of `messages/`.
    pub messages: Option<ChainEnd>,
    /// The last segment of `outcomes/`.
    pub outcomes: Option<ChainEnd>,
    /// The machine's name, which early versions did not tell; nor did they what follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Its process id there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<u32>,
    /// The catalog that it works with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalog: Option<WriterCatalog>,
}

/// Which catalog a writer works with. Writers on different ones share no leases, pauses and quotas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterCatalog {
    /// `sqlite` or `postgres`.
    pub engine: String,
    /// Random: the same for all who work with it, and for nobody else.
    pub id: String,
}

/// Where a writer works.
#[derive(Debug, Clone)]
pub struct WriterHome {
    /// The machine's name.
    pub host: String,
    /// Its process id there.
    pub process: u32,
    /// The catalog that it works with.
    pub catalog: WriterCatalog,
}

/// The end of a writer's chain of segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainEnd {
    /// The last segment's place, from 0.
    pub seq: u64,
    /// Its digest.
    pub sha256: Digest,
}

#[derive(Debug, Clone, Copy, Default)]
struct Chain {
    end: Option<ChainEnd>,
    broken: bool,
}

/// Appends segments to the journal in the name of one writer. Every segment names the one before it by digest.
#[derive(Debug)]
pub struct JournalWriter {
    archive: Arc<Archive>,
    clock: Clock,
    writer_id: WriterId,
    started_at: Timestamp,
    home: Option<WriterHome>,
    /// How often it began again.
    life: u64,
    messages: Mutex<Chain>,
    outcomes: Mutex<Chain>,
    /// Whether the record was written before any segment.
    announced: AtomicBool,
}

impl JournalWriter {
    /// Begins a new writer. Nothing is written yet.
    pub fn new(archive: Arc<Archive>, clock: Clock) -> Result<Self> {
        let writer_id = WriterId(ulid(&clock)?);
        let started_at = clock.now();
        Ok(Self {
            archive,
            clock,
            writer_id,
            started_at,
            home: None,
            life: 0,
            messages: Mutex::default(),
            outcomes: Mutex::default(),
            announced: AtomicBool::new(false),
        })
    }

    /// Goes on as the same writer with the archive opened anew, so that one process leaves one record however often it has
    /// to begin again. A new writer where `earlier` wrote to another archive, or where it is not known what became of its
    /// last segment. From here on `earlier` writes no more.
    pub async fn after(earlier: &Self, archive: Arc<Archive>, clock: Clock) -> Result<Self> {
        let new = Self::new(Arc::clone(&archive), clock)?;
        let (mut messages, mut outcomes) = (earlier.messages.lock().await, earlier.outcomes.lock().await);
        let is_whole = !std::mem::replace(&mut messages.broken, true) & !std::mem::replace(&mut outcomes.broken, true);
        if !is_whole || earlier.archive.uuid() != archive.uuid() {
            return Ok(new);
        }
        let chain = |end| Mutex::new(Chain { end, broken: false });
        Ok(Self {
            writer_id: earlier.writer_id.clone(),
            started_at: earlier.started_at,
            life: earlier.life + 1,
            messages: chain(messages.end),
            outcomes: chain(outcomes.end),
            announced: AtomicBool::new(earlier.announced.load(Ordering::Relaxed)),
            ..new
        })
    }

    /// Tells in its record from now on where it works.
    #[must_use]
    pub fn at_home(self, home: WriterHome) -> Self {
        Self { home: Some(home), ..self }
    }

    /// The catalog that it works with, if that is known.
    pub fn catalog(&self) -> Option<&WriterCatalog> {
        Some(&self.home.as_ref()?.catalog)
    }

    /// A name for what is this writer's alone, and this life's.
    pub fn scratch_name(&self) -> WriterId {
        if self.life == 0 { self.writer_id.clone() } else { WriterId(format!("{}-{}", self.writer_id, self.life)) }
    }

    /// Who writes.
    pub fn writer_id(&self) -> &WriterId {
        &self.writer_id
    }

    fn chain(&self, stream: Stream) -> &Mutex<Chain> {
        match stream {
            Stream::Messages => &self.messages,
            Stream::Outcomes => &self.outcomes,
        }
    }

    /// Writes `lines` as the next segment of `stream`; it is durable, name and all, when this returns its key and
    /// digest. After an error this writer writes no more: the segment may or may not be there.
    pub async fn append<T: Serialize + Sync>(&self, stream: Stream, lines: &[T]) -> Result<(String, Digest)> {
        let mut body = Vec::with_capacity(256 * lines.len());
        for line in lines {
            write_line(&mut body, line);
        }
        self.append_merged(stream, Vec::new(), &body).await
    }

    /// Like [`JournalWriter::append`], with whole lines as they are, in place of the segments `supersedes`.
    pub async fn append_merged(
        &self,
        stream: Stream,
        supersedes: Vec<SegmentRef>,
        body: &[u8],
    ) -> Result<(String, Digest)> {
        let mut chain = self.chain(stream).lock().await;
        if chain.broken {
            return Err(StoreError::Broken);
        }
        if chain.end.is_none() {
            // Before the first segment, so that a reader can tell who wrote a chain and whether it ended well.
            self.heartbeat_with(None, None, None).await?;
        }
        let header = SegmentHeader {
            v: FORMAT_VERSION,
            kind: "segment".into(),
            stream,
            writer_id: self.writer_id.clone(),
            seq: chain.end.map_or(0, |end| end.seq + 1),
            previous_sha256: chain.end.map(|end| end.sha256),
            supersedes,
            extra: Map::new(),
        };
        let mut bytes = Vec::with_capacity(body.len() + 512 + 160 * header.supersedes.len());
        write_line(&mut bytes, &header);
        bytes.extend_from_slice(body);
        let digest = Digest::of(&bytes);
        let key = segment_key(stream, self.clock.now(), &ulid(&self.clock)?);
        chain.broken = true;
        if !self.archive.put_segment(stream, &key, bytes).await? {
            return Err(StoreError::Damaged { key, reason: "its random name is taken".into() });
        }
        chain.broken = false;
        chain.end = Some(ChainEnd { seq: header.seq, sha256: digest });
        Ok((key, digest))
    }

    /// Writes this writer's record into a bucket before anything else, so that one that cannot be written is known before
    /// a request is spent; and finds out whether it keeps a put-if-absent. A folder is told with the first segment. One
    /// that goes on tells so: its earlier life may have said that it has ended.
    pub async fn announce(&self) -> Result<()> {
        let Some(bucket) = self.archive.bucket() else { return self.heartbeat(false).await };
        let (messages, outcomes) = (self.messages.lock().await.end, self.outcomes.lock().await.end);
        let text = self.record_text(messages, outcomes, None);
        bucket.probe(&writer_key(&self.writer_id), text.into()).await?;
        self.announced.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Tells the archive that this writer lives, and how far its chains reach. Nothing is written before the first
    /// segment is.
    pub async fn heartbeat(&self, ended: bool) -> Result<()> {
        let (messages, outcomes) = (*self.messages.lock().await, *self.outcomes.lock().await);
        let may_have_written = messages.broken || outcomes.broken;
        let (messages, outcomes) = (messages.end, outcomes.end);
        if messages.is_none() && outcomes.is_none() {
            return match self.archive.bucket() {
                // It has written nothing, so nobody needs to know of it.
                Some(bucket) if ended && !may_have_written && self.announced.swap(false, Ordering::Relaxed) => {
                    bucket.delete(&[writer_key(&self.writer_id)]).await.or_else(|error| {
                        tracing::debug!(error = %error, "the record of a writer that wrote nothing stays");
                        Ok(())
                    })
                }
                _ => Ok(()),
            };
        }
        self.heartbeat_with(messages, outcomes, ended.then(|| self.clock.now())).await
    }

    async fn heartbeat_with(
        &self,
        messages: Option<ChainEnd>,
        outcomes: Option<ChainEnd>,
        ended_at: Option<Timestamp>,
    ) -> Result<()> {
        let text = self.record_text(messages, outcomes, ended_at);
        self.archive.replace(&writer_key(&self.writer_id), text).await
    }

    fn record_text(
        &self,
        messages: Option<ChainEnd>,
        outcomes: Option<ChainEnd>,
        ended_at: Option<Timestamp>,
    ) -> Vec<u8> {
        let record = WriterRecord {
            v: FORMAT_VERSION,
            writer_id: self.writer_id.clone(),
            program: concat!("jellyjar ", env!("CARGO_PKG_VERSION")).into(),
            started_at: self.started_at,
            heartbeat_at: self.clock.now(),
            ended_at,
            messages,
            outcomes,
            host: self.home.as_ref().map(|home| home.host.clone()),
            process: self.home.as_ref().map(|home| home.process),
            catalog: self.catalog().cloned(),
        };
        let mut text = serde_json::to_vec(&record).expect("a struct of text and numbers always serialises");
        text.push(b'\n');
        text
    }
}

/// Appends a value as one line of JSON.
fn write_line<T: Serialize>(bytes: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(&mut *bytes, value).expect("journal lines are plain structs and always serialise");
    bytes.push(b'\n');
}

/// A new ULID: 48 bits of milliseconds, 80 random bits.
fn ulid(clock: &Clock) -> Result<String> {
    let random = u128::from_be_bytes(super::marker::random_bytes()?);
    let milliseconds = u64::try_from(clock.now_ms()).unwrap_or(0);
    Ok(ulid::Ulid::from_parts(milliseconds, random).to_string())
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

/// The longest line of a segment, in bytes: a message with very many attachments.
const MAX_LINE_BYTES: usize = 1 << 30;

/// Reads one segment line by line, hashing as it goes.
pub struct SegmentReader {
    key: String,
    header: SegmentHeader,
    lines: Lines,
    number: u64,
}

/// Cuts a stream of bytes into lines.
struct Lines {
    stream: Fuse<ByteStream>,
    hasher: Hasher,
    /// What was read and not yet given out.
    buffer: BytesMut,
}

impl Lines {
    /// The next line with its newline; the rest where there is none; empty at the end.
    async fn next(&mut self, key: &str) -> Result<Bytes> {
        let mut searched = 0;
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer[searched..]) {
                return Ok(self.buffer.split_to(searched + end + 1).freeze());
            }
            searched = self.buffer.len();
            if searched > MAX_LINE_BYTES {
                return Err(StoreError::Damaged { key: key.to_owned(), reason: "a line of it has no end".into() });
            }
            match self.stream.next().await {
                Some(chunk) => {
                    let chunk = chunk?;
                    self.hasher.update(&chunk);
                    self.buffer.extend_from_slice(&chunk);
                }
                None => return Ok(std::mem::take(&mut self.buffer).freeze()),
            }
        }
    }
}

impl SegmentReader {
    /// Opens a segment and reads its header; `None` where there is no such segment.
    pub async fn open(archive: &Archive, key: &str) -> Result<Option<Self>> {
        let Some(stream) = archive.open_key(key).await? else { return Ok(None) };
        let mut lines = Lines { stream: stream.fuse(), hasher: Hasher::default(), buffer: BytesMut::new() };
        let line = lines.next(key).await?;
        let damaged = |reason: String| StoreError::Damaged { key: key.to_owned(), reason };
        let version: Version =
            serde_json::from_slice(&line).map_err(|error| damaged(format!("line 1 is no header: {error}")))?;
        if version.v > FORMAT_VERSION {
            return Err(StoreError::Unsupported { place: key.to_owned(), source: UnsupportedVersion(version.v) });
        }
        let header: SegmentHeader =
            serde_json::from_slice(&line).map_err(|error| damaged(format!("line 1 is no header: {error}")))?;
        if header.kind != "segment" || line.last() != Some(&b'\n') {
            return Err(damaged("line 1 is no whole header".into()));
        }
        Ok(Some(Self { key: key.to_owned(), header, lines, number: 1 }))
    }

    /// Its header.
    pub fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// The next line; `None` at the end.
    pub async fn next_line<T: for<'de> Deserialize<'de> + Versioned>(&mut self) -> Result<Option<T>> {
        let line = self.lines.next(&self.key).await?;
        if line.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        let damaged = |reason: String| StoreError::Damaged { key: self.key.clone(), reason };
        if line.last() != Some(&b'\n') {
            return Err(damaged(format!("line {} is cut off", self.number)));
        }
        let unsupported =
            |version| StoreError::Unsupported { place: self.key.clone(), source: UnsupportedVersion(version) };
        match serde_json::from_slice::<T>(&line) {
            Ok(line) if line.version() > FORMAT_VERSION => Err(unsupported(line.version())),
            Ok(line) => Ok(Some(line)),
            Err(error) => match serde_json::from_slice::<Version>(&line) {
                Ok(Version { v }) if v > FORMAT_VERSION => Err(unsupported(v)),
                _ => Err(damaged(format!("line {}: {error}", self.number))),
            },
        }
    }

    /// Reads to the end without looking at the lines.
    pub async fn skip_lines(&mut self) -> Result<()> {
        while !self.lines.next(&self.key).await?.is_empty() {}
        Ok(())
    }

    /// The digest of the whole segment, once every line is read.
    pub fn finish(self) -> Digest {
        self.lines.hasher.finish()
    }
}

impl std::fmt::Debug for SegmentReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentReader").field("key", &self.key).field("line", &self.number).finish_non_exhaustive()
    }
}
