//! Who works on a shared catalog: joining them, and telling of those whose settings differ, and of those who work on the same
//! archive with another catalog.

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::config::common_settings;
use super::output;
use super::session::Session;
use crate::catalog::{ArchiveRow, Catalog, CatalogError, Member};
use crate::store::{Archive, StoreError, WriterCatalog, WriterHome, WriterRecord};

/// The role of those who do everything.
pub(super) const SERVE: &str = "serve";
/// The role of those who archive nothing.
pub(super) const RECEIVE: &str = "receive";

/// How often a process that does not walk looks whether nobody does.
const LEAD_EVERY: Duration = Duration::from_secs(1);

/// A writer gives a sign of life every 30 s; clocks may be some way apart.
const ALIVE: SignedDuration = SignedDuration::from_mins(3);

/// Joins those who work on the session's archive, and warns of others whose settings differ.
pub(super) async fn join(session: &Session, role: &str) -> anyhow::Result<()> {
    if !session.catalog.is_shared() {
        return Ok(());
    }
    session.catalog.join(session.archive_row, &member(session, role)).await?;
    for difference in differences(session, role).await? {
        tracing::warn!("{difference}");
    }
    Ok(())
}

/// Whether others take webhooks for a shared archive.
pub(super) async fn takes_webhooks(catalog: &Catalog, archive: ArchiveRow) -> Result<bool, CatalogError> {
    let others = catalog.others_at_work(archive).await?;
    Ok(others.iter().any(|other| other.role == SERVE || other.role == RECEIVE))
}

/// Waits until this process is the one that walks for the archive. Who works on a catalog of its own is that at once.
pub(super) async fn lead_walks(session: &Session) -> anyhow::Result<()> {
    while !session.catalog.try_walk_lock(session.archive_row).await? {
        tokio::time::sleep(LEAD_EVERY).await;
    }
    Ok(())
}

/// Those who work on a session's archive beside this process, in a few words; empty where nobody knows of any.
pub(super) async fn names(session: &Session) -> Result<String, CatalogError> {
    let others = session.catalog.others_at_work(session.archive_row).await?;
    let names = others.iter().map(|other| format!("process {} on {} ({})", other.process, other.host, other.role));
    Ok(names.collect::<Vec<_>>().join(", "))
}

/// What others have set otherwise than this process, one sentence for each of them.
pub(super) async fn differences(session: &Session, role: &str) -> anyhow::Result<Vec<String>> {
    let ours = member(session, role);
    let others = session.catalog.others_at_work(session.archive_row).await?;
    let differing = others.iter().filter_map(|other| {
        let names = other.differing_from(&ours);
        (!names.is_empty()).then(|| {
            format!(
                "process {} on {} ({}) works on the same archive with other settings: {}; give all the same",
                other.process,
                other.host,
                other.role,
                names.join(", ")
            )
        })
    });
    Ok(differing.collect())
}

/// One of those who work on an archive, as `status` shows it.
#[derive(Debug, Serialize)]
pub(super) struct AtWork {
    role: String,
    host: String,
    process: u32,
    program: String,
    since: String,
    /// The settings that should be the same for all, and are not those that `status` has found.
    differing: Vec<String>,
}

impl fmt::Display for AtWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, host, process, program, since, differing } = self;
        write!(f, "{role} on {host}, process {process}, version {program}, since {since}")?;
        if differing.is_empty() { Ok(()) } else { write!(f, "; other settings than here: {}", differing.join(", ")) }
    }
}

/// Those who work on a session's archive beside this process, where its catalog is shared.
pub(super) async fn at_work(session: &Session) -> anyhow::Result<Vec<AtWork>> {
    let ours = member(session, "");
    let others = session.catalog.others_at_work(session.archive_row).await?;
    let shown = others.into_iter().map(|other| AtWork {
        differing: other.differing_from(&ours),
        since: output::time(other.started_at_ms),
        role: other.role,
        host: other.host,
        process: other.process,
        program: other.program,
    });
    Ok(shown.collect())
}

/// How others are told of this process.
pub(super) fn this_process() -> String {
    format!("process {} on {}", std::process::id(), host())
}

fn member(session: &Session, role: &str) -> Member {
    let teams: Vec<&str> = session.teams.keys().map(String::as_str).collect();
    Member {
        writer_id: session.journal.writer_id().0.clone(),
        role: role.to_owned(),
        host: host(),
        process: std::process::id(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        // The catalog's clock says when it joins.
        started_at_ms: 0,
        settings: common_settings(&session.config, &teams),
    }
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Where this process works, for its record in the archive.
pub(super) async fn home(catalog: &Catalog, archive: ArchiveRow) -> Result<WriterHome, CatalogError> {
    let engine = if catalog.is_shared() { "postgres" } else { "sqlite" };
    let catalog = WriterCatalog { engine: engine.into(), id: catalog.id_for(archive).await? };
    Ok(WriterHome { host: host(), process: std::process::id(), catalog })
}

/// What those who work on the same archive with another catalog are to be told of.
pub(super) const ANOTHER_CATALOG: &str = "the archive stays right, but leases, pauses and quotas are not shared, so that the \
     same may be fetched twice and the quota be exceeded; give all the same `catalog`, or stop one of them";

/// Those who have been at work on an archive just now with another catalog than `ours`, by what their records in the archive
/// say; those of early versions say nothing. Each as a clause.
pub(super) async fn other_catalogs(
    archive: &Archive,
    ours: Option<&WriterCatalog>,
    now: Timestamp,
) -> Result<Vec<String>, StoreError> {
    // The storage has a clock of its own.
    let since = now - ALIVE * 2;
    let records = archive.writer_records_since(since).await?;
    Ok(records.iter().filter_map(|record| of_another_catalog(record, ours, now)).collect())
}

fn of_another_catalog(record: &WriterRecord, ours: Option<&WriterCatalog>, now: Timestamp) -> Option<String> {
    let theirs = record.catalog.as_ref().filter(|theirs| ours.is_none_or(|ours| ours.id != theirs.id))?;
    if record.ended_at.is_some() || now.duration_since(record.heartbeat_at) > ALIVE {
        return None;
    }
    let engine = match theirs.engine.as_str() {
        "postgres" => "PostgreSQL",
        "sqlite" => "SQLite",
        other => other,
    };
    Some(format!(
        "process {} on {} (writer {}, last heard of at {}) works on the same archive with another catalog ({engine})",
        record.process.map_or_else(|| "?".to_owned(), |process| process.to_string()),
        record.host.as_deref().unwrap_or("an unknown machine"),
        record.writer_id,
        output::time(record.heartbeat_at.as_millisecond()),
    ))
}

/// Those who work on a session's archive with another catalog. That this cannot be told holds up no work.
pub(super) async fn others_elsewhere(session: &Session) -> Vec<String> {
    let found = other_catalogs(&session.archive, session.journal.catalog(), session.clock.now()).await;
    found.unwrap_or_else(|error| {
        tracing::debug!("whether others use another catalog cannot be told: {error}");
        Vec::new()
    })
}

/// Warns of those who work on a session's archive with another catalog.
pub(super) async fn warn_of_other_catalogs(session: &Session) {
    for other in others_elsewhere(session).await {
        tracing::warn!("{other}: {ANOTHER_CATALOG}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WriterId;

    #[test]
    fn who_works_with_another_catalog_is_told_while_it_lives() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let catalog = |id: &str| WriterCatalog { engine: "sqlite".into(), id: id.into() };
        let record = WriterRecord {
            v: 1,
            writer_id: WriterId("01ABC".into()),
            program: "jellyjar".into(),
            started_at: now,
            heartbeat_at: now - ALIVE,
            ended_at: None,
            messages: None,
            outcomes: None,
            host: Some("desk".into()),
            process: Some(7),
            catalog: Some(catalog("theirs")),
        };
        let told =
            |record: &WriterRecord, ours: Option<&str>| of_another_catalog(record, ours.map(catalog).as_ref(), now);
        for ours in [Some("ours"), None] {
            let text = told(&record, ours).unwrap();
            assert!(text.contains("process 7 on desk (writer 01ABC") && text.contains("(SQLite)"), "{text}");
        }
        assert_eq!(told(&record, Some("theirs")), None, "the same");
        let old = WriterRecord { heartbeat_at: now - ALIVE - SignedDuration::from_secs(1), ..record.clone() };
        assert_eq!(told(&old, Some("ours")), None, "dead");
        let ahead = WriterRecord { heartbeat_at: now + ALIVE, ..record.clone() };
        assert!(told(&ahead, Some("ours")).is_some(), "its clock is ahead");
        let ended = WriterRecord { ended_at: Some(now), ..record.clone() };
        assert_eq!(told(&ended, Some("ours")), None, "ended");
        assert_eq!(told(&WriterRecord { catalog: None, ..record }, Some("ours")), None, "of an early version");
    }
}
