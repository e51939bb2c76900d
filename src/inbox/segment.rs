//! Segments: the files of one team, how they are named, found again and removed.
//!
//! A segment's name is a ULID above all that the team had before, whatever the clock says: readers know by a position
//! what they have read. So the newest name is never forgotten: the segment that has it leaves an empty `.removed` behind.

use std::fmt;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::model::InvalidId;

const SEGMENT: &str = "jsonl";
const REMOVED: &str = "removed";
const TAKEN: &str = ".taken";

/// The name of a segment: a ULID, whose order is that of writing within a team.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SegmentId(Ulid);

impl SegmentId {
    /// When it was begun, in milliseconds since the Unix epoch: a hint, as names ascend even where clocks do not.
    pub fn began_at_ms(&self) -> i64 {
        i64::try_from(self.0.timestamp_ms()).unwrap_or(i64::MAX)
    }

    /// A name above `last`.
    pub(super) fn above(last: Option<Self>, now_ms: i64) -> io::Result<Self> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let made = Self(Ulid::from_parts(u64::try_from(now_ms).unwrap_or(0), u128::from_be_bytes(random)));
        match last {
            Some(last) if last >= made => {
                let next = u128::from(last.0).checked_add(1).ok_or_else(|| io::Error::other("no name is left"))?;
                Ok(Self(Ulid::from(next)))
            }
            _ => Ok(made),
        }
    }

    /// The segment's file in its team's folder.
    pub(super) fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{self}.{SEGMENT}"))
    }

    fn removed_path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{self}.{REMOVED}"))
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for SegmentId {
    type Err = InvalidId;

    /// Takes the one spelling that is written.
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let known = Ulid::from_string(text).ok().filter(|ulid| ulid.to_string() == text);
        known.map(Self).ok_or_else(|| InvalidId(format!("{text:?} is no name of an inbox segment")))
    }
}

impl TryFrom<String> for SegmentId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<SegmentId> for String {
    fn from(id: SegmentId) -> Self {
        id.to_string()
    }
}

/// A place in a team's inbox: what stands before it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The segment.
    pub segment: SegmentId,
    /// The bytes of it that were read.
    pub offset: u64,
}

/// A segment that gets no more records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedSegment {
    /// Its name.
    pub id: SegmentId,
    /// Its file.
    pub path: PathBuf,
    /// What of it counts, in bytes: whole, durable lines. What stands behind them is no record.
    pub bytes: u64,
}

impl ClosedSegment {
    /// Opens it, to be read up to the end of what counts.
    pub fn open(&self) -> io::Result<io::Take<File>> {
        Ok(io::Read::take(File::open(&self.path)?, self.bytes))
    }
}

/// What an earlier life left in a team's folder.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Segments with the bytes of their whole lines, in order.
    pub(super) segments: Vec<(SegmentId, u64)>,
    /// What stands behind the last whole line, in all of them, in bytes.
    pub(super) torn_bytes: u64,
    /// The highest name that was removed.
    pub(super) floor: Option<SegmentId>,
}

/// The segments and the removed names in a folder.
fn list(folder: &Path) -> io::Result<(Vec<SegmentId>, Vec<SegmentId>)> {
    let (mut segments, mut removed) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let name = path.file_stem().and_then(|stem| stem.to_str()?.parse::<SegmentId>().ok());
        let (Some(id), Some(kind)) = (name, path.extension()) else { continue };
        if kind == REMOVED {
            removed.push(id);
        } else if kind == SEGMENT && entry.file_type()?.is_file() {
            segments.push(id);
        }
    }
    segments.sort_unstable();
    removed.sort_unstable();
    Ok((segments, removed))
}

/// Writes down what of a team's folder has been taken over, for when nobody reads it any more. Where that is cut off, or
/// older than it might be, more counts as not taken over: no harm.
pub(super) fn note_taken(folder: &Path, upto: Position) -> io::Result<()> {
    std::fs::write(folder.join(TAKEN), serde_json::to_vec(&upto)?)
}

/// How much the segments in a folder hold that was not taken over, as far as that was written down, in bytes; `None` where
/// there is none of it.
pub(super) fn left_in(folder: &Path) -> Option<u64> {
    let (segments, _) = list(folder).ok()?;
    let taken = std::fs::read(folder.join(TAKEN)).ok();
    let taken = taken.and_then(|text| serde_json::from_slice::<Position>(&text).ok());
    let left = |id: &SegmentId| {
        let path = id.path(folder);
        let size = std::fs::metadata(&path).map_or(0, |found| found.len());
        match taken {
            Some(upto) if upto.segment > *id => 0,
            // What stands behind its last whole line was never accepted, and is never read.
            Some(upto) if upto.segment == *id && upto.offset < size => {
                let end = File::open(&path).and_then(|file| whole_lines(&file, size)).unwrap_or(size);
                end.saturating_sub(upto.offset)
            }
            Some(upto) if upto.segment == *id => 0,
            _ => size,
        }
    };
    Some(segments.iter().map(left).sum()).filter(|left| *left > 0)
}

/// Looks what is in a team's folder, and makes what counts of it durable: what was written by a process that died may be
/// in memory only.
pub(super) fn find(folder: &Path) -> io::Result<Found> {
    let (segments, mut removed) = list(folder)?;
    let mut found = Found { floor: removed.pop(), ..Found::default() };
    for lower in removed {
        // Left by a crash; its only use was to be the highest.
        let _ = std::fs::remove_file(lower.removed_path(folder));
    }
    for id in segments {
        let path = id.path(folder);
        let file = File::open(&path)?;
        let size = file.metadata()?.len();
        let bytes = whole_lines(&file, size)?;
        file.sync_data()?;
        if bytes < size {
            found.torn_bytes += size - bytes;
            tracing::warn!(
                "the inbox segment {} has {} bytes behind its last whole record; they were never accepted and are left out",
                path.display(),
                size - bytes
            );
        }
        found.segments.push((id, bytes));
    }
    sync_folder(folder)?;
    Ok(found)
}

/// The length of a file up to its last line break.
fn whole_lines(file: &File, size: u64) -> io::Result<u64> {
    const STEP: u64 = 64 << 10;
    let mut end = size;
    while end > 0 {
        let start = end.saturating_sub(STEP);
        let mut bytes = vec![0; usize::try_from(end - start).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, start)?;
        if let Some(at) = memchr::memrchr(b'\n', &bytes) {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// The line breaks in the first bytes of a file.
pub(super) fn count_lines(path: &Path, bytes: u64) -> io::Result<u64> {
    let (mut file, mut piece, mut count) = (io::Read::take(File::open(path)?, bytes), vec![0; 64 << 10], 0);
    loop {
        match io::Read::read(&mut file, &mut piece)? {
            0 => return Ok(count),
            length => count += memchr::memchr_iter(b'\n', &piece[..length]).count() as u64,
        }
    }
}

/// Removes a segment; its name stays known, as the floor that is returned, if it is the highest that was removed.
pub(super) fn remove(folder: &Path, id: SegmentId, floor: Option<SegmentId>) -> io::Result<SegmentId> {
    let path = id.path(folder);
    if let Some(floor) = floor.filter(|floor| *floor > id) {
        return gone(std::fs::remove_file(path)).map(|()| floor);
    }
    let removed = id.removed_path(folder);
    match std::fs::rename(&path, &removed) {
        Ok(()) => {}
        // Somebody else took it away; its name is to stay known all the same.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    File::create(removed)?.set_len(0)?;
    if let Some(floor) = floor.filter(|floor| *floor != id) {
        gone(std::fs::remove_file(floor.removed_path(folder)))?;
    }
    Ok(id)
}

/// What is gone already needs not be removed.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes a folder, which is given as an absolute path, and its name durable. Also where it is there: whoever made it may
/// have died before. The name of one whose parent may not be looked into is somebody else's care.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    let Some(parent) = folder.parent() else { return Ok(()) };
    // Mail is for this program's eyes only.
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => sync_folder(parent),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => match sync_folder(parent) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            other => other,
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound && parent.parent().is_some() => {
            make_folder(parent)?;
            make_folder(folder)
        }
        Err(error) => Err(error),
    }
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
