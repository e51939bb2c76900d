//! `jellyjar get`: an attachment's bytes, to a file or to standard output, proven while they stream.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use futures::StreamExt as _;
use serde::Serialize;

use super::look::{Look, ambiguous, find, nothing};
use super::receipt::size;
use super::session::Session;
use super::{DONE, Global, INCOMPLETE, UsageError, output};
use crate::catalog::{AttachmentRow, State};
use crate::digest::{Digest, Hasher};
use crate::store::ByteStream;

/// The arguments of `jellyjar get`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar get k3jx4… -o contract.pdf --archive /srv/archive
  jellyjar get 5d7a0c21 --archive /srv/archive | sha256sum
  jellyjar get k3jx4… --quarantined -o look.bin --archive /srv/archive

The bytes are hashed on the way. If they are not what was archived, nothing is written to FILE, and the \
exit code is 1. File names come from strangers, so none is ever taken from the mail.")]
pub(super) struct GetArgs {
    /// A short id or a SHA-256, or the beginning of either; or an attachment's whole id as Jelly shows it
    #[arg(value_name = "ID|SHA256")]
    id: String,
    /// The file to write; - is standard output, even if that is a terminal
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace FILE if it is there
    #[arg(long)]
    force: bool,
    /// Give quarantined bytes, which nobody has accepted
    #[arg(long)]
    quarantined: bool,
}

#[derive(Debug, Serialize)]
struct Answer {
    sha256: Digest,
    size_bytes: u64,
    path: String,
    quarantined: bool,
    ok: bool,
}

/// The bytes are not what their name says.
#[derive(Debug, thiserror::Error)]
#[error(
    "the archive's copy of {wanted} is damaged: its bytes hash to {found}; run `jellyjar verify --repair` to fetch it \
     again"
)]
struct Mismatch {
    wanted: Digest,
    found: Digest,
}

/// Runs the command.
pub(super) async fn run(args: GetArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let file = args.output.as_deref().filter(|path| path.as_os_str() != "-");
    if global.json && file.is_none() {
        return Err(UsageError("--json needs -o FILE: standard output has room for one of the two".into()).into());
    }
    if args.output.is_none() && io::stdout().is_terminal() {
        return Err(UsageError(
            "the bytes could harm your terminal; give -o FILE, or -o - to print them all the same".into(),
        )
        .into());
    }
    if let Some(path) = file {
        refuse_to_replace(path, args.force)?;
    }
    let look = Look::open(global).await?;
    look.warn();
    let session = look.session;
    let (sha256, quarantined) = choose(&args, &session).await?;
    let bytes = match session.archive.open_bytes(sha256, quarantined).await? {
        // Accepted for another attachment with the same bytes.
        None if quarantined => session.archive.open_bytes(sha256, false).await?,
        bytes => bytes,
    };
    let Some(bytes) = bytes else {
        let again = if quarantined { "`jellyjar retry --quarantined`" } else { "`jellyjar verify --repair`" };
        anyhow::bail!("the bytes of {sha256} are missing from the archive; run {again} to fetch them again");
    };
    let target = args.output.filter(|path| path.as_os_str() != "-");
    let force = args.force;
    let written = tokio::task::spawn_blocking(move || match target {
        Some(path) => to_file(bytes, sha256, &path, force).map(|size| Some((size, path))),
        None => to_stdout(bytes, sha256),
    })
    .await??;
    if let Some((size_bytes, path)) = written {
        let path = path.display().to_string();
        if global.json {
            output::json(&Answer { sha256, size_bytes, path, quarantined, ok: true });
        } else if !global.quiet {
            output::note(format!("{path}: {}, SHA-256 {sha256}", size(size_bytes)));
        }
    } else if !global.quiet && !io::stderr().is_terminal() {
        tracing::debug!(blob = %sha256, "written to standard output");
    }
    Ok(ExitCode::from(DONE))
}

/// The bytes that are meant, and whether they are quarantined.
async fn choose(args: &GetArgs, session: &Session) -> anyhow::Result<(Digest, bool)> {
    let found = find(session, &args.id).await?;
    let wanted = if args.quarantined { State::Quarantined } else { State::Archived };
    let usable = |row: &&AttachmentRow| row.state == wanted && row.sha256.is_some();
    let mut digests: Vec<Digest> = found.iter().filter(usable).filter_map(|row| row.sha256).collect();
    digests.sort_unstable();
    digests.dedup();
    let others_differ =
        found.iter().any(|row| row.sha256.is_none() || !digests.iter().any(|one| row.sha256 == Some(*one)));
    match (digests.as_slice(), found.as_slice()) {
        ([one], _) if !others_differ => Ok((*one, args.quarantined)),
        (_, []) => match args.id.trim().parse::<Digest>() {
            // A whole digest needs no catalog.
            Ok(digest) if session.archive.open_bytes(digest, args.quarantined).await?.is_some() => {
                Ok((digest, args.quarantined))
            }
            _ => Err(nothing(&args.id).into()),
        },
        (_, [row]) => Err(not_there(row)),
        ([], [row, ..]) if found.iter().all(|other| other.sha256.is_some() && other.sha256 == row.sha256) => {
            Err(not_there(row))
        }
        _ => Err(ambiguous(&args.id, &found).into()),
    }
}

fn not_there(row: &AttachmentRow) -> anyhow::Error {
    let why = output::printable(row.reason.as_deref().unwrap_or("no reason was kept"), 300);
    let id = &row.id;
    let text = match row.state {
        State::Archived => format!("{id} is archived, not quarantined; leave out --quarantined"),
        State::Quarantined => format!(
            "{id} is quarantined ({why}); add --quarantined to look at its bytes, or admit them with `jellyjar accept {id}`"
        ),
        State::Failed => format!("{id} has no bytes: it failed ({why}); `jellyjar retry {id}` tries it again"),
        State::Pending => format!("{id} has no bytes yet: it is pending; `jellyjar retry` finishes what is pending"),
        State::Skipped => format!("{id} has no bytes: it was skipped by the rule {why:?}"),
        State::Erased => format!("{id} was erased on request"),
    };
    anyhow::anyhow!(text)
}

/// Copies and hashes. Gives the size, once the bytes are proven.
fn copy(mut from: ByteStream, wanted: Digest, to: &mut dyn Write) -> anyhow::Result<u64> {
    let runtime = tokio::runtime::Handle::current();
    let mut hasher = Hasher::default();
    let mut size = 0u64;
    while let Some(chunk) = runtime.block_on(from.next()) {
        let chunk = chunk.context("cannot read the archive's copy")?;
        hasher.update(&chunk);
        to.write_all(&chunk)?;
        size += chunk.len() as u64;
    }
    let found = hasher.finish();
    if found != wanted {
        return Err(Mismatch { wanted, found }.into());
    }
    Ok(size)
}

fn to_stdout(bytes: ByteStream, wanted: Digest) -> anyhow::Result<Option<(u64, PathBuf)>> {
    let mut out = io::stdout().lock();
    let copied = copy(bytes, wanted, &mut out).and_then(|size| Ok(out.flush().map(|()| size)?));
    match copied {
        Ok(_) => Ok(None),
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => {
            // The reader has had enough; whether the rest is right was not asked.
            std::process::exit(i32::from(INCOMPLETE));
        }
        Err(error) => Err(error),
    }
}

/// Refuses a path that cannot become a file, or is one already and may not be replaced.
pub(super) fn refuse_to_replace(path: &Path, force: bool) -> Result<(), UsageError> {
    if path.is_dir() {
        return Err(UsageError(format!("{} is a folder; give a file", path.display())));
    }
    if let Ok(there) = path.symlink_metadata() {
        if !there.is_file() {
            return Err(UsageError(format!(
                "{} is no regular file, and is not replaced; give another",
                path.display()
            )));
        }
        if !force {
            return Err(UsageError(format!("{} is there already; --force replaces it", path.display())));
        }
    }
    Ok(())
}

/// Writes the bytes, proven, to `path`.
fn to_file(bytes: ByteStream, wanted: Digest, path: &Path, force: bool) -> anyhow::Result<u64> {
    write_file(path, &wanted.to_hex()[..16], force, |file| {
        copy(bytes, wanted, file).map_err(|error| {
            if error.is::<io::Error>() { error.context(format!("cannot write {}", path.display())) } else { error }
        })
    })
}

/// Writes a temporary file beside `path` and gives it the name when `fill` is done with it and it is synced.
pub(super) fn write_file(
    path: &Path,
    stem: &str,
    force: bool,
    fill: impl FnOnce(&mut File) -> anyhow::Result<u64>,
) -> anyhow::Result<u64> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().with_context(|| format!("{} names no file", path.display()))?;
    let part = folder.join(format!(".{stem}-{}.part", std::process::id()));
    let _ = std::fs::remove_file(&part);
    let outcome = (|| {
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .open(&part)
            .with_context(|| format!("cannot write in {}", folder.display()))?;
        let size = fill(&mut file)?;
        file.sync_all().with_context(|| format!("cannot write {}", path.display()))?;
        let target = folder.join(name);
        if force {
            std::fs::rename(&part, &target).with_context(|| format!("cannot name {}", path.display()))?;
        } else {
            // A hard link is put-if-absent: whoever made the file meanwhile keeps it.
            match std::fs::hard_link(&part, &target) {
                Ok(()) => std::fs::remove_file(&part)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(UsageError(format!("{} is there already; --force replaces it", path.display())).into());
                }
                // No hard links there (FAT, some network shares).
                Err(_) => {
                    std::fs::rename(&part, &target).with_context(|| format!("cannot name {}", path.display()))?;
                }
            }
        }
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .with_context(|| format!("cannot sync {}", folder.display()))?;
        Ok(size)
    })();
    if outcome.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    outcome
}
