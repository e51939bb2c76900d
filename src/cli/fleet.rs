//! Who works on a shared catalog: joining them, and telling of those whose settings differ.

use std::time::Duration;

use super::config::common_settings;
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

fn member(session: &Session, role: &str) -> Member {
    let teams: Vec<&str> = session.teams.keys().map(String::as_str).collect();
    Member {
        writer_id: session.journal.writer_id().0.clone(),
        role: role.to_owned(),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        process: std::process::id(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        settings: common_settings(&session.config, &teams),
    }
}
