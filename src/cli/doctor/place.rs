//! The archive's place: whether it is there, and what may be done in it.

use crate::catalog::file_system;
use crate::clock::Clock;
use crate::config::Config;
use crate::model::Location;
use crate::spool::Spool;
use crate::store::{BucketError, Fault, Marker, Place, Result, StoreError, Trial};

use super::super::output;
use super::super::receipt::size;
use super::Findings;

/// What is known of an archive after its place was examined.
#[derive(Debug)]
pub(super) enum Found {
    /// It is there.
    Archive(Marker),
    /// There is none yet.
    Nothing,
    /// That cannot be told, or it cannot be used.
    Unusable,
}

/// Examines the place of an archive.
pub(super) async fn examine(findings: &mut Findings, config: &Config, location: &Location, clock: &Clock) -> Found {
    let place = match Place::of(location, &config.buckets, &config.http, clock) {
        Ok(place) => place,
        Err(error) => {
            findings.failed("archive", &error.into());
            return Found::Unusable;
        }
    };
    let found = match place.marker().await {
        Ok(Some(marker)) => {
            let made = output::time(marker.created_at.as_millisecond());
            let text = format!("{place}: {} of format {}, made {made}", marker.archive_uuid, marker.format_version);
            findings.ok("archive", text);
            Found::Archive(marker)
        }
        Ok(None) => nothing(findings, &place).await,
        Err(error) => {
            let hopeless = is_hopeless(&error);
            findings.failed("archive", &error.into());
            if hopeless {
                findings.skipped("write", format!("what may be done in {place} cannot be tried"), None);
                return Found::Unusable;
            }
            Found::Unusable
        }
    };
    match place.try_out(matches!(found, Found::Archive(_))).await {
        Ok(trial) => report(findings, &place, trial, clock),
        Err(error) => findings.failed("write", &error.into()),
    }
    match location {
        Location::Folder(root) => disk(findings, config, root),
        Location::Bucket(_) => uploads(findings, &place).await,
    }
    found
}

async fn nothing(findings: &mut Findings, place: &Place) -> Found {
    match place.is_free().await {
        Ok(true) => {
            findings.ok("archive", format!("{place}: there is none yet, and `jellyjar replay` will make it"));
            Found::Nothing
        }
        Ok(false) => {
            findings.failed("archive", &StoreError::NotAnArchive { place: place.to_string() }.into());
            Found::Unusable
        }
        Err(error) => {
            findings.failed("archive", &error.into());
            Found::Unusable
        }
    }
}

/// Whether no other request would fare better.
fn is_hopeless(error: &StoreError) -> bool {
    match error {
        StoreError::Bucket(BucketError { fault, .. }) => !matches!(fault, Fault::Permission | Fault::Refused),
        // Nothing is written where a newer program works, nor where no folder can be.
        StoreError::Unsupported { .. } | StoreError::NotAFolder { .. } => true,
        _ => false,
    }
}

fn report(findings: &mut Findings, place: &Place, trial: Trial, clock: &Clock) {
    let Trial { place: tried, written, read, conditional, listed, stored_at, deleted } = trial;
    match written {
        Ok(()) => findings.ok("write", format!("a new file can be written in {tried}")),
        Err(error) => findings.failed("write", &error.into()),
    }
    step(findings, "read", read, "what is written can be read back", |findings| {
        let found = "what was written came back changed, or not at all";
        findings.problem("read", found, "this storage is not to be trusted with an archive; try another");
    });
    let kept = "a second put under the same name is refused, as it must be";
    step(findings, "put-if-absent", conditional, kept, |findings| {
        let found = "a second put under the same name is not refused";
        match place {
            Place::Bucket(_) => findings.warning(
                "put-if-absent",
                format!("{found}: the server knows no such condition, and of two that store at once the last one wins"),
                "let only one jellyjar at a time work on this archive, or use a server with conditional writes",
            ),
            Place::Folder(_) => findings.problem(
                "put-if-absent",
                found,
                "this file system is not fit for an archive; use a local one, such as ext4 or XFS",
            ),
        }
    });
    step(findings, "list", listed, "what is there is listed", |findings| {
        let found = "what had just been written was not listed";
        findings.problem("list", found, "this storage is not consistent, and not fit for an archive; try another");
    });
    match deleted {
        None => {}
        Some(Ok(())) => findings.ok("delete", "what was written for this check is deleted again"),
        Some(Err(error)) => {
            let (found, advice) = super::told(&error.into());
            let advice = advice.map(|advice| format!("{advice}; ")).unwrap_or_default();
            findings.warning(
                "delete",
                found,
                format!("{advice}archiving needs no deletion, but `accept` and `compact` do; the file may be deleted by hand"),
            );
        }
    }
    if let Some(stored_at) = stored_at {
        findings.clock("the archive's storage", stored_at, clock.now());
    }
}

fn step(
    findings: &mut Findings,
    name: &'static str,
    outcome: Option<Result<bool>>,
    good: &str,
    bad: impl FnOnce(&mut Findings),
) {
    match outcome {
        None => {}
        Some(Ok(true)) => findings.ok(name, good),
        Some(Ok(false)) => bad(findings),
        Some(Err(error)) => findings.failed(name, &error.into()),
    }
}

async fn uploads(findings: &mut Findings, place: &Place) {
    let name = "uploads";
    match tokio::time::timeout(super::PATIENCE, place.unfinished_uploads()).await {
        Ok(Some(0)) => findings.ok(name, "no upload was left unfinished"),
        Ok(Some(count)) => findings.warning(
            name,
            format!("{count} uploads in parts were begun and not finished; some may be under way"),
            "the next run aborts its own and those older than two days; a lifecycle rule of the bucket \
             (AbortIncompleteMultipartUpload) clears the rest",
        ),
        Ok(None) | Err(_) => findings.skipped(
            name,
            "the server does not list unfinished uploads",
            Some("let a lifecycle rule of the bucket abort them after a few days"),
        ),
    }
}

/// The file system of a folder, and the space that is left on it.
pub(super) fn disk(findings: &mut Findings, config: &Config, folder: &std::path::Path) {
    let Some(there) = folder.ancestors().find(|folder| folder.exists()) else { return };
    let there = if there.as_os_str().is_empty() { std::path::Path::new(".") } else { there };
    let kind = file_system(there).unwrap_or_else(|| "of unknown type".into());
    let status = match rustix::fs::statvfs(there) {
        Ok(status) => status,
        Err(error) => {
            let error = std::io::Error::from(error);
            return findings
                .failed("disk", &anyhow::anyhow!("cannot look at the disk of {}: {error}", there.display()));
        }
    };
    let free_bytes = status.f_bavail.saturating_mul(status.f_frsize);
    let least = config.spool.min_free_bytes;
    let found = format!("{} on the disk of {} ({kind}) are free", size(free_bytes), there.display());
    if Spool::is_in_memory(there) {
        let advice = "what is there is gone after a restart; choose a folder on a disk";
        findings.warning("disk", format!("{}: the file system is in memory", there.display()), advice);
    }
    if free_bytes < least {
        let advice = "free some, or lower `min_free` under [spool]";
        findings.problem("disk", format!("{found}, less than the {} that are to be left", size(least)), advice);
    } else {
        findings.ok("disk", found);
    }
}
