//! The way of bytes into the spool: in memory while small, else gathered into pieces that are hashed and written on
//! threads that may block.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::space::{memory_bytes, shrink_memory};
use super::sums::{Hashes, SumKind};
use super::{HEAD_BYTES, Reservation, Spool, SpoolError, SpoolHold, Spooled, SpooledBytes, TempFile};

/// How much is hashed and written at once. Two such pieces exist for each download: one fills while one is written.
const PIECE_BYTES: usize = 256 << 10;
/// What a body of unknown length gets in memory at first.
const FIRST_MEMORY_BYTES: u64 = 16 << 10;
/// How many pieces are written between two looks at the free space.
const PIECES_PER_CHECK: u64 = 64;

/// Takes the bytes of one download as they come. Dropping it removes everything.
pub struct SpoolWriter {
    spool: Spool,
    reservation: Reservation,
    size_bytes: u64,
    sink: Sink,
}

impl std::fmt::Debug for SpoolWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpoolWriter").field("size_bytes", &self.size_bytes).finish_non_exhaustive()
    }
}

enum Sink {
    Memory { buffer: Vec<u8>, permit: OwnedSemaphorePermit, hashes: Box<Hashes> },
    File { piece: Vec<u8>, head: Bytes, pieces: u64, work: Work },
}

/// Where the file and its sums are.
enum Work {
    /// Here.
    Idle(Box<FileState>, Vec<u8>),
    /// On a thread that may block.
    Busy(JoinHandle<Taken>),
    /// Gone with a failure that was reported.
    Failed,
}

/// What is left of a piece that was taken: the state, and the emptied buffer.
type Taken = Result<(Box<FileState>, Vec<u8>), SpoolError>;

struct FileState {
    spool: Spool,
    path: PathBuf,
    file: Option<TempFile>,
    hashes: Hashes,
    /// The bytes at the start of the next piece that are hashed already.
    hashed: usize,
}

impl FileState {
    /// Hashes and writes one piece, and gives its buffer back, empty.
    fn take(mut self: Box<Self>, mut piece: Vec<u8>) -> Taken {
        let failed = |error: &std::io::Error| SpoolError::io("write", &self.path, error);
        let file = match self.file.take() {
            Some(file) => file,
            None => TempFile::create(self.path.clone(), self.spool.clone()).map_err(|error| failed(&error))?,
        };
        file.file().write_all(&piece).map_err(|error| failed(&error))?;
        self.hashes.update(&piece[self.hashed.min(piece.len())..]);
        self.hashed = 0;
        self.file = Some(file);
        piece.clear();
        Ok((self, piece))
    }
}

impl Work {
    /// Waits for the piece before.
    async fn idle(&mut self) -> Taken {
        match std::mem::replace(self, Self::Failed) {
            Self::Idle(state, spare) => Ok((state, spare)),
            Self::Busy(task) => task.await.map_err(|_| SpoolError::Interrupted)?,
            Self::Failed => Err(SpoolError::Interrupted),
        }
    }
}

impl SpoolWriter {
    /// Opens a writer; `expected` decides between memory and file, `kinds` are computed beside the SHA-256.
    pub(super) fn new(spool: Spool, mut reservation: Reservation, expected: Option<u64>, kinds: &[SumKind]) -> Self {
        let hashes = Hashes::new(kinds);
        let threshold = spool.threshold_bytes();
        let first = expected.unwrap_or(FIRST_MEMORY_BYTES.min(threshold));
        let memory = if first <= threshold { reservation.take_memory(first) } else { None };
        let sink = match memory {
            Some(permit) => {
                // Bounded by the threshold.
                let capacity = expected.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0);
                Sink::Memory { buffer: Vec::with_capacity(capacity), permit, hashes: Box::new(hashes) }
            }
            None => Sink::file(&spool, hashes, Vec::new()),
        };
        Self { spool, reservation, size_bytes: 0, sink }
    }

    /// The bytes taken so far.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Takes the next bytes. After an error, and when dropped half-way, the writer is of no more use.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), SpoolError> {
        self.size_bytes += bytes.len() as u64;
        self.reservation.cover(self.size_bytes)?;
        if let Sink::Memory { buffer, permit, hashes } = &mut self.sink {
            if stays_in_memory(&self.spool, permit, self.size_bytes) {
                hashes.update(bytes);
                buffer.extend_from_slice(bytes);
                return Ok(());
            }
            self.spill();
        }
        while !bytes.is_empty() {
            let Sink::File { piece, .. } = &mut self.sink else { return Err(SpoolError::Interrupted) };
            let (now, later) = bytes.split_at(bytes.len().min(PIECE_BYTES.saturating_sub(piece.len())));
            if piece.capacity() - piece.len() < now.len() {
                // By doubling, up to a whole piece: a small body that finds the memory taken needs no more than itself.
                piece.reserve_exact(piece.len().max(now.len()).min(PIECE_BYTES - piece.len()));
            }
            piece.extend_from_slice(now);
            bytes = later;
            if piece.len() >= PIECE_BYTES {
                self.submit().await?;
            }
        }
        Ok(())
    }

    /// Ends the stream: the sums are complete, and all bytes are in memory or handed to the system.
    pub async fn finish(mut self) -> Result<Spooled, SpoolError> {
        if matches!(self.sink, Sink::File { .. }) {
            self.submit().await?;
        }
        let Self { mut reservation, size_bytes, sink, .. } = self;
        match sink {
            Sink::Memory { mut buffer, mut permit, hashes } => {
                buffer.shrink_to_fit();
                shrink_memory(&mut permit, size_bytes);
                reservation.settle(size_bytes, false);
                let bytes = Bytes::from(buffer);
                let head = bytes.slice(..bytes.len().min(HEAD_BYTES));
                let hold = SpoolHold { _reservation: reservation, _memory: Some(permit) };
                Ok(Spooled::new(SpooledBytes::Memory(bytes), size_bytes, head, hashes.finish(), hold))
            }
            Sink::File { head, mut work, .. } => {
                let (state, _) = work.idle().await?;
                reservation.settle(size_bytes, true);
                let FileState { file, hashes, .. } = *state;
                let file = file.ok_or(SpoolError::Interrupted)?;
                let hold = SpoolHold { _reservation: reservation, _memory: None };
                Ok(Spooled::new(SpooledBytes::File(file), size_bytes, head, hashes.finish(), hold))
            }
        }
    }

    /// Forgets the bytes and begins anew in the same place.
    pub(crate) fn restart(self, expected: Option<u64>, kinds: &[SumKind]) -> Self {
        let Self { spool, reservation, sink, .. } = self;
        // Its memory must be free before it is asked for again.
        drop(sink);
        Self::new(spool, reservation, expected, kinds)
    }

    /// Moves what is in memory to a file that is written from now on.
    fn spill(&mut self) {
        let placeholder = Sink::File { piece: Vec::new(), head: Bytes::new(), pieces: 0, work: Work::Failed };
        self.sink = match std::mem::replace(&mut self.sink, placeholder) {
            Sink::Memory { buffer, hashes, .. } => Sink::file(&self.spool, *hashes, buffer),
            file @ Sink::File { .. } => file,
        };
    }

    /// Hands the gathered piece to a thread that may block, once the piece before it is done.
    async fn submit(&mut self) -> Result<(), SpoolError> {
        let Sink::File { piece, head, pieces, work } = &mut self.sink else { return Ok(()) };
        let (state, spare) = work.idle().await?;
        if *pieces == 0 {
            *head = Bytes::copy_from_slice(&piece[..piece.len().min(HEAD_BYTES)]);
        }
        *pieces += 1;
        if pieces.is_multiple_of(PIECES_PER_CHECK) {
            self.spool.space().check_free()?;
        }
        self.reservation.written(piece.len() as u64);
        let full = std::mem::replace(piece, spare);
        *work = Work::Busy(tokio::task::spawn_blocking(move || state.take(full)));
        Ok(())
    }
}

impl Sink {
    /// A file that begins with bytes that are hashed already.
    fn file(spool: &Spool, hashes: Hashes, begin: Vec<u8>) -> Self {
        let state =
            FileState { spool: spool.clone(), path: spool.next_path(), file: None, hashes, hashed: begin.len() };
        Self::File { piece: begin, head: Bytes::new(), pieces: 0, work: Work::Idle(Box::new(state), Vec::new()) }
    }
}

/// Whether `size_bytes` may be held in memory; takes the memory.
fn stays_in_memory(spool: &Spool, permit: &mut OwnedSemaphorePermit, size_bytes: u64) -> bool {
    let held = memory_bytes(permit);
    if size_bytes > spool.threshold_bytes() {
        return false;
    }
    if size_bytes <= held {
        return true;
    }
    // Doubling, as the buffer does.
    let wanted = size_bytes.max(held * 2).min(spool.threshold_bytes().max(size_bytes));
    match Arc::clone(spool.space()).try_memory(wanted - held) {
        Some(more) => {
            permit.merge(more);
            true
        }
        None => false,
    }
}
