//! Reading a team's inbox in order, from a position on.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::team::Team;
use super::{Position, ReadError};

/// Whole lines of a team's inbox that are durable.
#[derive(Clone, PartialEq, Eq)]
pub struct Batch {
    /// The lines, each with its line break.
    pub bytes: Bytes,
    /// Where they begin.
    pub start: Position,
    /// Where they end, which is where reading goes on.
    pub end: Position,
}

impl fmt::Debug for Batch {
    /// Shows the place only: what people write to each other is not for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} to byte {}", self.start, self.end.offset)
    }
}

/// Reads a team's inbox. It gives what is durable and nothing else, in the order in which it was written.
#[derive(Debug)]
pub struct Reader {
    team: Arc<Team>,
    position: Option<Position>,
    changes: watch::Receiver<u64>,
}

impl Reader {
    pub(super) fn new(team: Arc<Team>, position: Option<Position>) -> Self {
        let changes = team.changes();
        Self { team, position, changes }
    }

    /// What was read so far; `None` before anything was.
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    /// Gives the next lines, `max_bytes` at most, or one line that is longer; never of two segments at once. Waits while
    /// there are none. Safe to drop while it waits. After an error it can be called again.
    pub async fn next(&mut self, max_bytes: usize) -> Result<Batch, ReadError> {
        loop {
            self.changes.mark_unchanged();
            let Some((id, offset, end)) = self.team.readable(self.position) else {
                // The sender lives as long as the team, which this reader holds.
                let _ = self.changes.changed().await;
                continue;
            };
            let path = id.path(&self.team.folder);
            let read = {
                let path = path.clone();
                tokio::task::spawn_blocking(move || read_lines(&File::open(path)?, offset, end, max_bytes))
            };
            let bytes = match read.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok(bytes) => Bytes::from(bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.team.forget(id);
                    continue;
                }
                Err(source) => return Err(ReadError::Read { path, offset, source }),
            };
            let start = Position { segment: id, offset };
            let end = Position { segment: id, offset: offset + bytes.len() as u64 };
            self.position = Some(end);
            return Ok(Batch { bytes, start, end });
        }
    }
}

/// Reads whole lines between two places of a file.
fn read_lines(file: &File, offset: u64, end: u64, max_bytes: usize) -> io::Result<Vec<u8>> {
    let left = usize::try_from(end - offset).map_err(io::Error::other)?;
    let mut wanted = max_bytes.max(1).min(left);
    let mut bytes = Vec::new();
    loop {
        let known = bytes.len();
        bytes.resize(wanted, 0);
        file.read_exact_at(&mut bytes[known..], offset + known as u64)?;
        // A line that is longer than wanted comes alone.
        let found = if known == 0 { memchr::memrchr(b'\n', &bytes) } else { memchr::memchr(b'\n', &bytes[known..]) };
        match found {
            Some(at) => {
                bytes.truncate(known + at + 1);
                return Ok(bytes);
            }
            None if wanted == left => return Ok(bytes),
            None => wanted = wanted.saturating_mul(2).min(left),
        }
    }
}
