//! Who works on a shared catalog: joining them, and telling of those whose settings differ.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::config::common_settings;
use super::output;
use super::session::Session;
use crate::catalog::{ArchiveRow, Catalog, CatalogError, Member};

/// The role of those who do everything.
pub(super) const SERVE: &str = "serve";
/// The role of those who archive nothing.
pub(super) const RECEIVE: &str = "receive";

/// How often a process that does not walk looks whether nobody does.
const LEAD_EVERY: Duration = Duration::from_secs(1);

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

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
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
