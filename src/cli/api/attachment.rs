//! `jellyjar api attachment`: one attachment from Jelly to a file, by the way that archiving takes.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::super::get::{refuse_to_replace, write_file};
use super::super::receipt::size;
use super::super::{DONE, Global, UsageError, output};
use super::access::Access;
use super::print::document;
use super::text;
use crate::fetch::{Declared, FetchError, fetch};
use crate::http::Decision;
use crate::model::AttachmentId;
use crate::spool::{Spool, SpoolMemory, Spooled, SpooledBytes};

/// How often a fresh link is asked for after a dead one.
const FRESH_LINKS: u32 = 2;

/// The arguments of `jellyjar api attachment`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar api attachment eyJfcmFpbHMi… -o invoice.pdf
  jellyjar api attachment - -o invoice.pdf --force      the id comes from standard input

The id stands in the message, as `jellyjar api messages show --json` gives it. The bytes are checked \
against every size and checksum that the storage declares; FILE appears only when all of them are there. \
To keep them in the archive, give the message to `jellyjar replay`.")]
pub(super) struct AttachmentArgs {
    /// The attachment's id; - reads it from standard input
    #[arg(value_name = "ID")]
    id: String,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Replace FILE if it is there
    #[arg(long)]
    force: bool,
}

impl AttachmentArgs {
    /// Refuses what cannot end well, before a request is spent.
    pub(super) fn check(&self, _global: &Global) -> anyhow::Result<()> {
        if self.output == Path::new("-") {
            return Err(UsageError("give a file: what is not whole yet goes nowhere else".into()).into());
        }
        refuse_to_replace(&self.output, self.force)?;
        if !folder_of(&self.output).is_dir() {
            return Err(UsageError(format!("there is no folder {}", folder_of(&self.output).display())).into());
        }
        Ok(())
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Where the download is until it is whole. Goes with the command, however that ends.
struct SpoolFolder(PathBuf);

impl Drop for SpoolFolder {
    fn drop(&mut self) {
        // Gone already, where all went well.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) async fn run(args: AttachmentArgs, access: &Access, global: &Global) -> anyhow::Result<ExitCode> {
    let id = if args.id == "-" { text::from(Path::new("-"))?.trim().to_owned() } else { args.id };
    let id = AttachmentId::try_from(id).map_err(|error| UsageError(error.to_string()))?;
    let folder = SpoolFolder(folder_of(&args.output).join(format!(".jellyjar-{}.part", std::process::id())));
    let memory = SpoolMemory::of(&access.config.spool);
    let spool = Spool::open(folder.0.clone(), &access.config.spool, memory)?;
    let spooled = download(&id, access, &spool).await?;
    let (sha256, size_bytes) = (spooled.sha256(), spooled.size_bytes());
    let (path, force) = (args.output.clone(), args.force);
    tokio::task::spawn_blocking(move || place(spooled, &path, force)).await??;
    let path = args.output.display().to_string();
    if global.json {
        let text = |text: &str| serde_json::Value::from(text).to_string();
        document(&[
            ("path", &text(&path)),
            ("size_bytes", &size_bytes.to_string()),
            ("sha256", &text(&sha256.to_string())),
        ]);
    } else {
        access.note(format!("{}: {}, SHA-256 {sha256}", output::printable(&path, 500), size(size_bytes)));
    }
    Ok(ExitCode::from(DONE))
}

/// Exchanges the id and follows the link at once; a link that died is replaced by a fresh one.
async fn download(id: &AttachmentId, access: &Access, spool: &Spool) -> anyhow::Result<Spooled> {
    let mut fresh_links = 0;
    loop {
        // Room comes before the exchange: the link lives for minutes only.
        let reservation = spool.reserve(None).await?;
        let link = access.ask(|| access.client.link_to(id)).await?;
        let declared = Declared::default();
        match fetch(&access.clients, link, &declared, spool, reservation, &access.config.http).await {
            Err(error) if error.decision() == Decision::Reexchange && fresh_links < FRESH_LINKS => fresh_links += 1,
            Err(FetchError::Mismatch { facts, .. }) => {
                anyhow::bail!("what came contradicts what the storage declares ({facts}); nothing is written");
            }
            other => return Ok(other?),
        }
    }
}

/// Gives the bytes their name, once they are synced.
fn place(spooled: Spooled, path: &Path, force: bool) -> anyhow::Result<()> {
    let stem = spooled.sha256().to_hex()[..16].to_owned();
    let (bytes, _, size_bytes, _hold) = spooled.into_parts();
    write_file(path, &stem, force, |file| {
        match &bytes {
            SpooledBytes::Memory(bytes) => file.write_all(bytes),
            SpooledBytes::File(temporary) => {
                File::open(temporary.path()).and_then(|mut from| io::copy(&mut from, file)).map(drop)
            }
        }
        .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(size_bytes)
    })
    .map(drop)
}
