//! Merging small segments of closed days into large ones. A new segment names those that it replaces, sorts after them
//! and is durable before the first of them is removed: a crash leaves both, which a reader merges, and the next run
//! removes what is left over. Lines are copied byte for byte.

use std::collections::HashSet;

use jiff::tz::TimeZone;
use serde::Serialize;

use super::{AuditError, Subject};
use crate::digest::Digest;
use crate::model::{SegmentHeader, SegmentRef, Stream};
use crate::store::{ArchiveLock, SegmentFile, segment_day};

/// Segments from this size on, in bytes, are left as they are.
const LARGE_BYTES: u64 = 16 << 20;
/// The usual size of a new segment, in bytes.
const TARGET_BYTES: u64 = 32 << 20;

/// What a compaction did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Compacted {
    /// Segments of the archive before.
    pub segments_before: u64,
    /// Segments of the archive now.
    pub segments_now: u64,
    /// Small segments that were merged into new ones.
    pub merged: u64,
    /// The new ones.
    pub written: u64,
    /// Segments that an earlier, interrupted compaction had replaced and not removed.
    pub left_over: u64,
    /// Segments that were left alone because something about them is wrong, and what.
    pub refused: Vec<Refused>,
}

/// Segments that were not merged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The key of the first one.
    pub key: String,
    /// Why.
    pub reason: String,
}

/// What to merge.
#[derive(Debug, Clone, Copy)]
pub struct CompactOptions {
    /// Change nothing.
    pub dry_run: bool,
    /// Merge the segments of the current day too.
    pub today: bool,
    /// A new segment has at most about so many bytes. It is made in memory.
    pub target_bytes: u64,
    /// Write so many new segments at most.
    pub steps: Option<u64>,
}

impl Default for CompactOptions {
    fn default() -> Self {
        Self { dry_run: false, today: false, target_bytes: TARGET_BYTES, steps: None }
    }
}

impl Compacted {
    /// This and what was done after it, as one.
    #[must_use]
    pub fn and(self, next: Self) -> Self {
        Self {
            segments_before: self.segments_before,
            segments_now: next.segments_now,
            merged: self.merged + next.merged,
            written: self.written + next.written,
            left_over: self.left_over + next.left_over,
            // What was refused once is refused again.
            refused: next.refused,
        }
    }
}

/// Merges the small segments of closed days. The catalog must have loaded the whole journal; it is told what was
/// replaced. Beside other writers and readers this is safe; two compactions at once would do the same work twice.
pub async fn compact(
    subject: &Subject,
    options: CompactOptions,
    mut lock: Option<&mut ArchiveLock>,
) -> Result<Compacted, AuditError> {
    let dry_run = options.dry_run;
    let mut done = Compacted::default();
    for stream in Stream::ALL {
        let files = subject.archive.segment_files(stream).await?;
        let seen = subject.catalog.segments(subject.archive_row).await?;
        done.segments_before += files.len() as u64;
        let (left_over, present): (Vec<SegmentFile>, Vec<SegmentFile>) =
            files.into_iter().partition(|file| seen.get(&file.key).is_some_and(|segment| segment.superseded));
        done.left_over += left_over.len() as u64;
        if !dry_run {
            subject.archive.remove_segments(left_over.into_iter().map(|file| file.key).collect()).await?;
        }
        let known: HashSet<Digest> = seen.values().map(|segment| segment.sha256).collect();
        let today = subject.clock.now().to_zoned(TimeZone::UTC).date();
        let loaded = |file: &SegmentFile| seen.get(&file.key).is_some_and(|segment| segment.loaded);
        let small = present.into_iter().filter(|file| is_small(file, today, options.today) && loaded(file));
        for group in groups(small, options.target_bytes) {
            if options.steps.is_some_and(|steps| done.written >= steps) {
                break;
            }
            if let Some(lock) = &mut lock {
                lock.renew(&subject.archive, &subject.clock).await?;
                subject.journal.heartbeat(false).await?;
            }
            match merge(subject, stream, &group, &seen, &known, dry_run).await? {
                Ok(()) => {
                    done.merged += group.len() as u64;
                    done.written += 1;
                }
                Err(refused) => done.refused.push(refused),
            }
        }
    }
    done.segments_now = done.segments_before - done.left_over - done.merged + done.written;
    Ok(done)
}

/// How many of these segments of one stream are small and of past days, so that a compaction may merge them.
pub fn mergeable(files: &[SegmentFile], now: jiff::Timestamp) -> usize {
    let today = now.to_zoned(TimeZone::UTC).date();
    files.iter().filter(|file| is_small(file, today, false)).count()
}

fn is_small(file: &SegmentFile, today: jiff::civil::Date, with_today: bool) -> bool {
    file.size_bytes < LARGE_BYTES && segment_day(&file.key).is_some_and(|day| day < today || with_today)
}

/// Neighbours, up to the size of a new segment; one alone is left as it is.
fn groups(files: impl Iterator<Item = SegmentFile>, target_bytes: u64) -> Vec<Vec<SegmentFile>> {
    let mut groups: Vec<Vec<SegmentFile>> = Vec::new();
    let mut group_bytes = 0;
    for file in files {
        match groups.last_mut() {
            Some(group) if group_bytes + file.size_bytes <= target_bytes => {
                group_bytes += file.size_bytes;
                group.push(file);
            }
            _ => {
                group_bytes = file.size_bytes;
                groups.push(vec![file]);
            }
        }
    }
    groups.retain(|group| group.len() > 1);
    groups
}

async fn merge(
    subject: &Subject,
    stream: Stream,
    group: &[SegmentFile],
    seen: &std::collections::HashMap<String, crate::catalog::LoadedSegment>,
    known: &HashSet<Digest>,
    dry_run: bool,
) -> Result<Result<(), Refused>, AuditError> {
    let mut body = Vec::new();
    let mut supersedes: Vec<SegmentRef> = Vec::new();
    for file in group {
        let refuse = |reason: &str| {
            Ok(Err(Refused { key: file.key.clone(), reason: format!("{reason}; run `jellyjar verify`") }))
        };
        let Some(bytes) = subject.archive.read_segment(&file.key).await? else {
            return refuse("it is gone since it was listed");
        };
        let sha256 = Digest::of(&bytes);
        if seen.get(&file.key).is_none_or(|segment| segment.sha256 != sha256) {
            return refuse("it is not what it was when the catalog loaded it");
        }
        let Some(end) = memchr::memchr(b'\n', &bytes).filter(|_| bytes.last() == Some(&b'\n')) else {
            return refuse("its last line is cut off");
        };
        let Ok(header) = serde_json::from_slice::<SegmentHeader>(&bytes[..end]) else {
            return refuse("its first line is no header");
        };
        // Once both neighbours of a gap are merged, nobody could see it any more.
        if header.previous_sha256.is_some_and(|previous| !known.contains(&previous)) {
            return refuse("the segment before it in its writer's chain is missing");
        }
        body.extend_from_slice(&bytes[end + 1..]);
        // Also what it replaced itself: the chains of those writers lead through it.
        supersedes.extend(header.supersedes);
        supersedes.push(SegmentRef { key: file.key.clone(), sha256 });
    }
    if dry_run {
        return Ok(Ok(()));
    }
    let replaced = supersedes.clone();
    let (key, sha256) = subject.journal.append_merged(stream, supersedes, &body).await?;
    // In this order: a segment that counts as loaded is not asked again what it replaces.
    subject.catalog.supersede_segments(subject.archive_row, &replaced).await?;
    subject.catalog.remember_segment(subject.archive_row, &key, sha256).await?;
    let keys: Vec<String> = group.iter().map(|file| file.key.clone()).collect();
    subject.archive.remove_segments(keys).await?;
    Ok(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(key: &str, size_bytes: u64) -> SegmentFile {
        SegmentFile { key: key.into(), size_bytes }
    }

    #[test]
    fn small_segments_of_past_days_may_be_merged() {
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        let files = [
            file("messages/v1/2026/11/21/A.jsonl", 1),
            file("messages/v1/2026/11/21/B.jsonl", LARGE_BYTES),
            file("messages/v1/2026/11/22/C.jsonl", 1),
            file("messages/v1/nowhere.jsonl", 1),
        ];
        assert_eq!(mergeable(&files, now), 1);
    }

    #[test]
    fn neighbours_are_grouped_up_to_the_target_and_one_alone_is_left() {
        let mib = 1 << 20;
        let files = [file("a", 15 * mib), file("b", 15 * mib), file("c", 15 * mib)];
        let names = |groups: Vec<Vec<SegmentFile>>| -> Vec<Vec<String>> {
            groups.into_iter().map(|group| group.into_iter().map(|file| file.key).collect()).collect()
        };
        assert_eq!(names(groups(files.into_iter(), TARGET_BYTES)), [["a", "b"]]);
        assert!(groups([file("a", 1)].into_iter(), TARGET_BYTES).is_empty());
        let many = (0..10).map(|number| file(&number.to_string(), 7 * mib));
        assert_eq!(names(groups(many, TARGET_BYTES)).iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
    }
}
