//! The catalog, the journal that it is made from, and what waits for a person.

use std::path::Path;

use crate::audit::mergeable;
use crate::catalog::{Catalog, CatalogPlace, Server, network_file_system, person_scope, team_scope};
use crate::clock::Clock;
use crate::config::Loaded;
use crate::model::{Location, Stream};
use crate::spool::Spool;
use crate::store::{Archive, Place, StoreError, WriterCatalog, nearest};

use super::super::fleet;
use super::super::pause::{AFTER_A_PAUSE, WITH_A_VALID_TOKEN};
use super::super::receipt::{number, size};
use super::super::session::{Session, catalog_place};
use super::super::{Global, output};
use super::place::{Found, disk};
use super::{Findings, told};

/// So many small segments of past days make opening an archive slow.
const MANY_SEGMENTS: usize = 200;
/// How long SQLite may check the catalog.
const CHECK_PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// Examines the catalog of an archive, and through it the archive's state. Gives both opened, where they are there.
pub(super) async fn examine(
    findings: &mut Findings,
    global: &Global,
    loaded: &Loaded,
    location: &Location,
    found: Found,
) -> Option<Session> {
    let uuid = match &found {
        Found::Archive(marker) => marker.archive_uuid.as_str(),
        Found::Nothing => "",
        Found::Unusable => {
            findings.skipped("catalog", "without an archive that can be opened it is not looked at", None);
            return None;
        }
    };
    let place = match catalog_place(&loaded.config, location, uuid) {
        Ok(place) => place,
        Err(error) => {
            findings.failed("catalog", &error);
            return None;
        }
    };
    let folder = match &place {
        CatalogPlace::Folder(folder) | CatalogPlace::Postgres { home: folder, .. } => folder.clone(),
    };
    writable(findings, &folder).await;
    if location.folder().is_none() {
        spool(findings, loaded, &folder);
    }
    let path = folder.join(Catalog::FILE_NAME);
    if matches!(place, CatalogPlace::Postgres { .. }) {
        let server = server(findings, &place).await?;
        if let Some(mode) = Server::unproven(&place) {
            let found = format!("{place}: any machine on the way can pass for this server ({mode})");
            findings.warning(
                "catalog",
                found,
                "add `sslmode=verify-full` and the server's `sslrootcert` to the address",
            );
        }
        if matches!(found, Found::Nothing) {
            findings.ok("catalog", format!("{server}; what is needed there is made with the archive"));
            return None;
        }
    } else if matches!(found, Found::Nothing) || !path.exists() {
        match network_file_system(&nearest(&folder)) {
            Some(kind) => findings.problem(
                "catalog",
                format!("it cannot be kept on a network file system ({kind}) at {}", folder.display()),
                "give --catalog a folder on a local disk",
            ),
            None => findings
                .ok("catalog", format!("there is none yet in {}; it is made when it is needed", folder.display())),
        }
        if let (Found::Archive(_), Ok(archive)) = (&found, open(loaded, location).await) {
            others_elsewhere(findings, &archive, None).await;
        }
        return None;
    }
    let session = match Session::open(global, loaded.clone(), false).await {
        Ok(session) => session,
        Err(error) => {
            unopened(findings, &place, &error);
            return None;
        }
    };
    match &place {
        CatalogPlace::Folder(_) => sound(findings, &session, &path).await,
        CatalogPlace::Postgres { .. } => at_work(findings, &session, &place).await,
    }
    others_elsewhere(findings, &session.archive, session.journal.catalog()).await;
    journal(findings, &session).await;
    if let Err(error) = state(findings, &session).await {
        findings.failed("catalog", &error);
    }
    Some(session)
}

async fn open(loaded: &Loaded, location: &Location) -> Result<Archive, StoreError> {
    let config = &loaded.config;
    Archive::open(&Place::of(location, &config.buckets, &config.http, &Clock::system())?).await
}

/// Tells of those who work on the archive with another catalog than `ours`, which may not be made yet.
async fn others_elsewhere(findings: &mut Findings, archive: &Archive, ours: Option<&WriterCatalog>) {
    match fleet::other_catalogs(archive, ours, Clock::system().now()).await {
        Ok(others) => {
            for other in others {
                findings.warning("catalog", other, fleet::ANOTHER_CATALOG);
            }
        }
        Err(error) => findings.failed("catalog", &error.into()),
    }
}

/// Whether the catalog's folder may be written, or made.
async fn writable(findings: &mut Findings, folder: &Path) {
    let trial = Place::Folder(folder.to_owned()).try_out(false).await;
    if let Err(error) = trial.and_then(|trial| trial.written) {
        let (found, _) = told(&error.into());
        findings.problem("catalog", found, "check that you may write there, or give --catalog a folder of your own");
    }
}

/// The folder for downloads of an archive in a bucket.
fn spool(findings: &mut Findings, loaded: &Loaded, catalog: &Path) {
    let spool = &loaded.config.spool;
    let folder = spool.folder.as_deref().unwrap_or(catalog);
    if !spool.allow_tmpfs && Spool::is_in_memory(&nearest(folder)) {
        findings.problem(
            "spool",
            format!("{} is in memory (tmpfs), which large downloads would fill", folder.display()),
            "set `folder` under [spool] to a folder on a disk, or `allow_tmpfs = true`",
        );
    } else {
        findings.ok("spool", format!("downloads wait in {} until they are stored", folder.display()));
    }
    disk(findings, &loaded.config, folder);
}

/// Asks the server of a catalog in PostgreSQL whether one can be kept there; gives its description if so.
async fn server(findings: &mut Findings, place: &CatalogPlace) -> Option<String> {
    let server = match Server::ask(place).await {
        Ok(server) => server?,
        Err(error) => {
            unopened(findings, place, &error.into());
            return None;
        }
    };
    let Server { version, encoding, schema_version, missing, is_standby, is_read_only } = server;
    let tables =
        schema_version.map_or_else(|| "no tables yet".into(), |version| format!("tables of version {version}"));
    let found = format!("{place}: PostgreSQL {version}, {encoding}, {tables}");
    if encoding != "UTF8" {
        let advice =
            "make a database with `CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0`, and give its address";
        findings.problem("catalog", format!("{found}; this encoding cannot hold every text"), advice);
        return None;
    }
    if is_standby {
        let advice = "give the address of its primary, or a name that always leads there";
        findings.problem("catalog", format!("{found}; it is a standby, which cannot be written"), advice);
        return None;
    }
    if is_read_only {
        let advice = "let the server's owner set `default_transaction_read_only = off` for this role and this database, or give the \
                      address of a server that can be written";
        findings.problem("catalog", format!("{found}; transactions there are read-only"), advice);
        return None;
    }
    if !missing.is_empty() {
        let missing = missing.join(", ");
        let advice = format!("let the database's owner run `GRANT {missing} ON DATABASE … TO …`");
        findings.problem("catalog", format!("{found}; the role has not the right {missing} there"), advice);
        return None;
    }
    Some(found)
}

/// A catalog that cannot be opened.
fn unopened(findings: &mut Findings, place: &CatalogPlace, error: &anyhow::Error) {
    if matches!(place, CatalogPlace::Folder(_)) {
        return findings.failed("catalog", error);
    }
    let (found, advice) = told(error);
    findings.problem("catalog", found, advice.unwrap_or_else(|| SERVER_ADVICE.into()));
}

/// What is to be done where settings differ from those that were found here.
const SAME_SETTINGS: &str = "give all the same, as what becomes of an attachment depends on who takes it; `jellyjar config show` there \
    and here tells what differs";

/// What is to be done where PostgreSQL says what is wrong, and no more.
const SERVER_ADVICE: &str = "ask whoever looks after the server";

/// The catalog in PostgreSQL, as it is once this program has opened it.
async fn at_work(findings: &mut Findings, session: &Session, place: &CatalogPlace) {
    let Some(server) = server(findings, place).await else { return };
    let looking = async {
        let others = session.catalog.others_at_work(session.archive_row).await?;
        let at_work = match others.len() {
            0 => "no process works with it".into(),
            1 => "one process works with it".into(),
            many => format!("{many} processes work with it"),
        };
        findings.ok("catalog", format!("{server}; {at_work}"));
        for difference in fleet::differences(session, "doctor").await? {
            let (found, _) = told(&anyhow::Error::msg(difference));
            findings.warning("catalog", found, SAME_SETTINGS);
        }
        if others.iter().all(|other| other.role == fleet::RECEIVE) {
            let totals = session.catalog.team_totals(session.archive_row).await?;
            let pending: u64 = totals.iter().map(|team| team.states.pending).sum();
            if pending > 0 {
                let found = format!("{} are pending, and no worker is at work", number(pending));
                findings.warning("attachments", found, "start `jellyjar work`, or run `jellyjar retry` once");
            }
        }
        anyhow::Ok(())
    };
    if let Err(error) = looking.await {
        unopened(findings, place, &error);
    }
}

async fn sound(findings: &mut Findings, session: &Session, path: &Path) {
    let catalog = &session.catalog;
    let bytes = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let schema = catalog.schema_version().await.map_or_else(|_| "?".into(), |version| version.to_string());
    let worker = match catalog.try_lock_alone().await {
        Ok(None) => "another process works with it now",
        _ => "no other process works with it",
    };
    let found = format!("{}, {}, tables of version {schema}; {worker}", path.display(), size(bytes));
    match tokio::time::timeout(CHECK_PATIENCE, catalog.quick_check()).await {
        Ok(Ok(None)) => findings.ok("catalog", format!("{found}; SQLite finds it sound")),
        Ok(Ok(Some(wrong))) => {
            let advice = "run `jellyjar rebuild`, which makes it anew from the archive";
            findings.problem("catalog", format!("{found}; SQLite finds it damaged: {wrong}"), advice);
        }
        Ok(Err(error)) => findings.failed("catalog", &error.into()),
        Err(_) => findings.ok("catalog", format!("{found}; it is too large to be checked as a whole here")),
    }
}

async fn journal(findings: &mut Findings, session: &Session) {
    let (mut segments, mut bytes, mut small) = (0, 0, 0);
    for stream in Stream::ALL {
        match session.archive.segment_files(stream).await {
            Ok(files) => {
                small += mergeable(&files, session.clock.now());
                segments += files.len();
                bytes += files.iter().map(|file| file.size_bytes).sum::<u64>();
            }
            Err(error) => return findings.failed("journal", &error.into()),
        }
    }
    let found = format!("{} segments, {}", number(segments as u64), size(bytes));
    if small >= MANY_SEGMENTS {
        let advice = "run `jellyjar compact`, which merges them: an archive of few large ones opens faster";
        findings.warning("journal", format!("{found}; {} small ones of past days", number(small as u64)), advice);
    } else {
        findings.ok("journal", found);
    }
}

/// What waits for a person, as this catalog knows it.
async fn state(findings: &mut Findings, session: &Session) -> anyhow::Result<()> {
    let (catalog, archive) = (&session.catalog, session.archive_row);
    let (mut archived, mut failed, mut quarantined, mut pending) = (0, 0, 0, 0);
    for team in catalog.team_totals(archive).await? {
        archived += team.states.archived;
        failed += team.states.failed;
        quarantined += team.states.quarantined;
        pending += team.states.pending;
    }
    findings.ok("attachments", format!("{} are archived, {} pending", number(archived), number(pending)));
    let damaged = catalog.damaged_blobs(archive).await?;
    for (count, found, advice) in [
        (damaged, "contents are damaged or missing", "`jellyjar verify --repair` fetches them again"),
        (failed, "attachments failed", "`jellyjar failed` tells why, `jellyjar retry` tries them again"),
        (quarantined, "attachments are quarantined", "`jellyjar quarantined` tells why, `jellyjar accept` admits them"),
        (
            catalog.reject_count().await?,
            "pieces of input could not be read",
            "`jellyjar rejected` lists them; mend and replay them",
        ),
    ] {
        if count > 0 {
            findings.warning("attachments", format!("{} {found}", number(count)), advice);
        }
    }
    let keys = catalog.teams(archive).await?;
    for pause in catalog.pauses().await? {
        let by_person = pause.scope.starts_with("person:");
        let of = if by_person { person_scope } else { team_scope };
        let team = keys.iter().find(|(row, _)| of(*row) == pause.scope);
        if team.is_none() && (by_person || pause.scope.starts_with("team:")) {
            // Another archive's.
            continue;
        }
        let whose = team.map_or_else(|| pause.scope.clone(), |(_, key)| format!("team {key}"));
        if by_person {
            let advice = "`jellyjar resume` lets it go on";
            findings.warning("pause", format!("{whose} is paused by a person: {}", pause.reason), advice);
        } else if pause.until_ms == i64::MAX {
            findings.warning("pause", format!("{whose} is paused: {}", pause.reason), WITH_A_VALID_TOKEN);
        } else {
            let until = output::time(pause.until_ms);
            let found = format!("{whose} is paused until {until}: {}", pause.reason);
            findings.warning("pause", found, AFTER_A_PAUSE);
        }
    }
    Ok(())
}
