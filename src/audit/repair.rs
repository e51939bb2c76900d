//! Fetching missing or damaged bytes again, by any of the attachments that have them. Only bytes that hash to the
//! recorded digest are taken. Safe beside a worker: storing right bytes under their own name is idempotent.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use tracing::{info, warn};

use super::report::BrokenBytes;
use super::{AuditError, Subject};
use crate::archive::{Fetcher, TeamAccess};
use crate::catalog::{AttachmentRow, BlobState, State};
use crate::digest::Digest;
use crate::fetch::{Declared, FetchError, fetch};
use crate::http::Decision;
use crate::jelly::Permit;
use crate::model::{AttachmentId, Lane};
use crate::spool::Spooled;
use crate::store::{Put, StoreError, Stored, blob_key};

/// The way to Jelly, for a repair.
#[derive(Debug)]
pub struct RepairAccess<'a> {
    /// What fetches.
    pub fetcher: &'a Fetcher,
    /// The teams that have a token, by `archive_key`.
    pub teams: BTreeMap<String, &'a TeamAccess>,
    /// A folder for temporary files, in the archive's file system.
    pub scratch: PathBuf,
    /// The longest wait for a quota or a pause before giving up.
    pub max_wait: Duration,
}

/// Bytes that could not be repaired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unrepaired {
    /// Their digest.
    pub sha256: Digest,
    /// Why, for each attachment that was tried.
    pub reason: String,
}

/// What a repair did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// Bytes that are right again.
    pub repaired: Vec<Digest>,
    /// Bytes that are not.
    pub unrepaired: Vec<Unrepaired>,
    /// Whether a token was refused.
    pub token_refused: bool,
}

/// How often one attachment is asked for.
const ATTEMPTS: u32 = 4;
/// At most this many of the attachments that have the same bytes are tried.
const MAX_SOURCES: usize = 20;
/// The first wait between attempts; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// Why one attachment did not give the bytes.
enum Missed {
    /// Another attachment may.
    Reason(String),
    /// The team's token is refused.
    TokenRefused(String),
}

/// Repairs `broken`, one after the other.
pub async fn repair(
    subject: &Subject,
    access: &RepairAccess<'_>,
    broken: &[BrokenBytes],
) -> Result<Repaired, AuditError> {
    let mut done = Repaired::default();
    let mut refused: BTreeMap<String, String> = BTreeMap::new();
    for bytes in broken {
        match repair_one(subject, access, *bytes, &mut refused).await? {
            Ok(()) => {
                info!(blob = %bytes.sha256, "repaired");
                done.repaired.push(bytes.sha256);
            }
            Err(reason) => {
                warn!(blob = %bytes.sha256, error = %reason, "not repaired");
                done.unrepaired.push(Unrepaired { sha256: bytes.sha256, reason });
            }
        }
    }
    done.token_refused = !refused.is_empty();
    Ok(done)
}

async fn repair_one(
    subject: &Subject,
    access: &RepairAccess<'_>,
    broken: BrokenBytes,
    refused: &mut BTreeMap<String, String>,
) -> Result<Result<(), String>, AuditError> {
    let state = if broken.quarantine { State::Quarantined } else { State::Archived };
    let mut sources: Vec<AttachmentRow> = subject.catalog.by_digest(subject.archive_row, broken.sha256).await?;
    sources.retain(|row| row.state == state);
    let mut reasons = Vec::new();
    for row in sources.iter().take(MAX_SOURCES) {
        if let Some(reason) = refused.get(&row.team) {
            reasons.push(format!("{}: {reason}", row.id));
            continue;
        }
        let (Some(team), Ok(id)) = (access.teams.get(&row.team), row.attachment_id.clone().try_into()) else {
            reasons.push(format!("{}: team {} has no token here", row.id, row.team));
            continue;
        };
        match fetch_exactly(access, team, &id, broken).await {
            Ok(spooled) => {
                store(subject, access, broken, spooled).await?;
                return Ok(Ok(()));
            }
            Err(Missed::Reason(reason)) => reasons.push(format!("{}: {reason}", row.id)),
            Err(Missed::TokenRefused(reason)) => {
                reasons.push(format!("{}: {reason}", row.id));
                refused.insert(row.team.clone(), reason);
            }
        }
    }
    if reasons.is_empty() {
        return Ok(Err("the catalog knows no attachment that has these bytes; run `jellyjar rebuild`".into()));
    }
    reasons.dedup();
    Ok(Err(reasons.join("; ")))
}

/// Asks for one attachment until it gives the recorded bytes, or cannot.
async fn fetch_exactly(
    access: &RepairAccess<'_>,
    team: &TeamAccess,
    id: &AttachmentId,
    broken: BrokenBytes,
) -> Result<Spooled, Missed> {
    let fetcher = access.fetcher;
    let mut last = String::new();
    let mut wait = FIRST_WAIT;
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(wait).await;
            wait = wait.saturating_mul(2);
        }
        let permit = await_permission(access, team).await?;
        let decision = match one_attempt(fetcher, team, permit, id, broken).await {
            Ok(spooled) => return Ok(spooled),
            Err((decision, reason)) => {
                last = reason;
                decision
            }
        };
        match decision {
            Decision::Fail | Decision::RetryGone => return Err(Missed::Reason(last)),
            Decision::PauseTeam => return Err(Missed::TokenRefused(last)),
            Decision::ProbeMembers => {
                return Err(match team.client.probe_members().await {
                    Ok(false) => Missed::TokenRefused(last),
                    _ => Missed::Reason(last),
                });
            }
            Decision::RetryAfter(asked) => wait = wait.max(asked.unwrap_or_default()),
            Decision::PauseTeamFor(asked) | Decision::PauseEgressGroup(asked) | Decision::HoldOff(asked) => {
                wait = wait.max(asked);
            }
            Decision::Reexchange | Decision::Quarantine => {}
        }
        if wait > access.max_wait {
            return Err(Missed::Reason(format!("{last}; that is too long to wait for now")));
        }
    }
    Err(Missed::Reason(format!("{last} (attempt {ATTEMPTS}, the last)")))
}

/// Waits until neither a pause nor the quota keeps the team from one request, which is then taken.
async fn await_permission(access: &RepairAccess<'_>, team: &TeamAccess) -> Result<Permit, Missed> {
    let fetcher = access.fetcher;
    loop {
        let now = fetcher.clock.now();
        let wait = if let Some(pause) = team.held(&fetcher.holds, Lane::Bulk, now.as_millisecond()) {
            if pause.is_of_refused_token() {
                return Err(Missed::TokenRefused(pause.reason));
            }
            if pause.is_by_person() {
                let reason = format!("the team is paused: {}; `jellyjar resume` lets it go on", pause.reason);
                return Err(Missed::Reason(reason));
            }
            Duration::from_millis(pause.until_ms.saturating_sub(now.as_millisecond()).max(1).unsigned_abs())
        } else {
            match team.client.permit(Lane::Bulk).await {
                Ok(permit) => return Ok(permit),
                Err(error) => error.wait().ok_or_else(|| Missed::Reason(error.to_string()))?,
            }
        };
        if wait > access.max_wait {
            let seconds = wait.as_secs();
            return Err(Missed::Reason(format!("requests pause for another {seconds} s; run this again after that")));
        }
        info!(wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), "waiting for leave to send requests");
        tokio::time::sleep(wait).await;
    }
}

async fn one_attempt(
    fetcher: &Fetcher,
    team: &TeamAccess,
    permit: Permit,
    id: &AttachmentId,
    broken: BrokenBytes,
) -> Result<Spooled, (Decision, String)> {
    let reservation =
        fetcher.spool.reserve(Some(broken.size_bytes)).await.map_err(|error| (error.decision(), error.to_string()))?;
    let link = team.client.exchange(permit, id).await.map_err(|error| (error.decision(), error.to_string()))?;
    let declared = Declared { size_bytes: Some(broken.size_bytes) };
    let outcome = fetch(&fetcher.clients, link, &declared, &fetcher.spool, reservation, &fetcher.http).await;
    let spooled = match outcome {
        Ok(spooled) => spooled,
        // The recorded digest is what counts here, whatever else was declared.
        Err(FetchError::Mismatch { spooled, .. }) if spooled.sha256() == broken.sha256 => *spooled,
        Err(error) => return Err((error.decision(), error.to_string())),
    };
    if spooled.sha256() == broken.sha256 {
        return Ok(spooled);
    }
    let found = spooled.sha256();
    Err((Decision::Quarantine, format!("Jelly gives other bytes now: they hash to {found}, not to what was archived")))
}

async fn store(
    subject: &Subject,
    access: &RepairAccess<'_>,
    broken: BrokenBytes,
    spooled: Spooled,
) -> Result<(), AuditError> {
    let (bytes, digest, size_bytes, hold) = spooled.into_parts();
    let put = Put { digest, size_bytes, bytes, quarantine: broken.quarantine };
    let stored = subject.archive.put(&access.scratch, vec![put]).await?;
    drop(hold);
    match stored.into_iter().next() {
        Some(Stored::AlreadyThere) => info!(blob = %broken.sha256, "somebody else has put it right meanwhile"),
        Some(Stored::Blocked(reason)) => {
            return Err(StoreError::Damaged { key: blob_key(broken.sha256), reason }.into());
        }
        _ => {}
    }
    if !broken.quarantine {
        let (sha256, size) = (broken.sha256, broken.size_bytes);
        subject.catalog.set_blob_state(subject.archive_row, sha256, size, BlobState::Durable).await?;
    }
    Ok(())
}
