//! Reading segments, as far as they can be read.

use super::{RESTORE, causes};
use crate::audit::AuditError;
use crate::audit::chain::Link;
use crate::audit::report::{FindingKind, Report};
use crate::model::{MessageLine, OutcomeLine, Stream, Versioned};
use crate::store::{Archive, SegmentReader, StoreError};

/// Lines that are compared in one step.
const BATCH_LINES: usize = 1_000;

/// The next lines of a segment, and whether they are the last. Lines that cannot be read are reported and left out;
/// `None` where the rest cannot be read at all.
pub(super) async fn batch<T: for<'de> serde::Deserialize<'de> + Versioned>(
    key: &str,
    reader: &mut SegmentReader,
    report: &mut Report,
) -> Result<Option<(Vec<T>, bool)>, AuditError> {
    let mut lines = Vec::new();
    while lines.len() < BATCH_LINES {
        match reader.next_line().await {
            Ok(Some(line)) => lines.push(line),
            Ok(None) => return Ok(Some((lines, true))),
            Err(StoreError::Damaged { reason, .. }) => {
                report.problem(FindingKind::SegmentDamaged, key, reason, RESTORE);
            }
            Err(error @ StoreError::Io { .. }) => {
                report.problem(FindingKind::SegmentDamaged, key, causes(&error), "see why it cannot be read");
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Some((lines, false)))
}

/// The place of one segment in its chain; `None` where it cannot be read.
pub(super) async fn read_link(archive: &Archive, key: &str) -> Option<Link> {
    #[derive(serde::Deserialize)]
    struct AnyLine {
        v: u32,
    }
    impl Versioned for AnyLine {
        fn version(&self) -> u32 {
            self.v
        }
    }
    let Ok(Some(mut reader)) = SegmentReader::open(archive, key).await else { return None };
    loop {
        match reader.next_line::<AnyLine>().await {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(_) => return None,
        }
    }
    let header = reader.header().clone();
    Some(Link {
        key: key.to_owned(),
        writer: header.writer_id,
        seq: header.seq,
        previous: header.previous_sha256,
        sha256: reader.finish(),
    })
}

/// The segments that cannot be read to their end, and why.
pub(in crate::audit) async fn unreadable(archive: &Archive) -> Result<Vec<(String, String)>, AuditError> {
    let mut found = Vec::new();
    for stream in Stream::ALL {
        for key in archive.segments(stream).await? {
            let whole = async {
                let Some(mut reader) = SegmentReader::open(archive, &key).await? else { return Ok(()) };
                match stream {
                    Stream::Messages => while reader.next_line::<MessageLine>().await?.is_some() {},
                    Stream::Outcomes => while reader.next_line::<OutcomeLine>().await?.is_some() {},
                }
                Ok::<_, StoreError>(())
            };
            match whole.await {
                Ok(()) => {}
                Err(StoreError::Damaged { reason, .. }) => found.push((key, reason)),
                Err(error @ StoreError::Io { .. }) => found.push((key, causes(&error))),
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(found)
}
