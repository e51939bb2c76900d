//! What the commands that look at an archive have in common: opening it without a token, catching up with the journal,
//! and finding attachments by what a person typed.

use anyhow::Context as _;

use super::fleet;
use super::output::{printable, table};
use super::receipt::size;
use super::session::{Session, settings};
use super::{Global, UsageError};
use crate::catalog::{AttachmentRow, State};
use crate::digest::Digest;
use crate::model::{AttachmentId, AttachmentKey};

/// An archive that is looked at, and how current the look is.
pub(super) struct Look {
    pub(super) session: Session,
    /// Whether another process works on the archive now.
    pub(super) worker_running: bool,
    /// Why the catalog could not catch up with the journal, if it could not.
    pub(super) trouble: Option<String>,
}

impl Look {
    /// Opens the archive and loads what other writers have put in its journal, unless a worker runs, which does that
    /// itself. Needs no token.
    pub(super) async fn open(global: &Global) -> anyhow::Result<Self> {
        Self::of(Session::open(global, settings(&global.overrides(true))?, false).await?).await
    }

    /// The same for an archive that is open.
    pub(super) async fn of(session: Session) -> anyhow::Result<Self> {
        // Held for the moment of the load only; a worker that starts meanwhile waits for it.
        let lock = session.catalog.try_worker_lock().await.context("cannot lock the catalog")?;
        // Where many share a catalog, they are asked for; and each takes in its own part of the journal alone.
        let others = session.catalog.others_at_work(session.archive_row).await?;
        let worker_running = lock.is_none() || others.iter().any(|member| member.role != fleet::RECEIVE);
        let mut trouble = None;
        if lock.is_some() {
            let caught_up = async {
                session.reload().await?;
                session.journal.heartbeat(true).await?;
                anyhow::Ok(())
            };
            if let Err(error) = caught_up.await {
                trouble = Some(format!("{error:#}"));
            }
        }
        Ok(Self { session, worker_running, trouble })
    }

    /// Like [`Look::open`], for commands that cannot do with a catalog that is behind.
    pub(super) async fn open_current(global: &Global) -> anyhow::Result<Session> {
        let look = Self::open(global).await?;
        match look.trouble {
            None => Ok(look.session),
            Some(trouble) => Err(anyhow::anyhow!(trouble).context("cannot catch up with the archive's journal")),
        }
    }

    /// Says on standard error that what is shown may be old.
    pub(super) fn warn(&self) {
        if let Some(trouble) = &self.trouble {
            tracing::warn!("the catalog could not catch up with the journal, so this may be old: {trouble}");
        }
    }
}

/// The fewest characters of a short id that are taken.
const MIN_ID: usize = 4;
/// The fewest digits of a SHA-256 that are taken.
const MIN_DIGEST: usize = 6;
/// At most this many candidates are looked at.
const MAX_CANDIDATES: u64 = 500;

/// What a typed name can mean: a range of keys, a range of digests, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefix {
    keys: Option<(AttachmentKey, AttachmentKey)>,
    digests: Option<(Digest, Digest)>,
}

impl Prefix {
    /// Reads a short id, a SHA-256, or the beginning of either.
    pub(super) fn parse(text: &str) -> Result<Self, UsageError> {
        let text = text.trim().to_ascii_lowercase();
        let digits = text.strip_prefix("sha256:").unwrap_or(&text);
        let prefix = Self { keys: key_range(&text), digests: digest_range(digits) };
        if prefix.keys.is_none() && prefix.digests.is_none() {
            return Err(UsageError(format!(
                "{:?} names nothing: give a short id as `jellyjar failed` shows it (at least {MIN_ID} of its 16 \
                 characters), at least {MIN_DIGEST} hexadecimal digits of a SHA-256, or an attachment's whole id as Jelly \
                 shows it",
                named(&text)
            )));
        }
        Ok(prefix)
    }
}

fn key_range(text: &str) -> Option<(AttachmentKey, AttachmentKey)> {
    if !(MIN_ID..=16).contains(&text.len()) {
        return None;
    }
    let mut bits: u128 = 0;
    for byte in text.bytes() {
        // RFC 4648 §6, in lower case.
        let value = match byte {
            b'a'..=b'z' => byte - b'a',
            b'2'..=b'7' => byte - b'2' + 26,
            _ => return None,
        };
        bits = bits << 5 | u128::from(value);
    }
    let rest = 128 - 5 * text.len();
    let low = bits << rest;
    let high = low | (u128::MAX >> (128 - rest));
    Some((AttachmentKey::from_slice(&low.to_be_bytes())?, AttachmentKey::from_slice(&high.to_be_bytes())?))
}

pub(super) fn digest_range(text: &str) -> Option<(Digest, Digest)> {
    if !(MIN_DIGEST..=64).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let fill = |digit: &str| format!("{text}{}", digit.repeat(64 - text.len())).parse().ok();
    Some((fill("0")?, fill("f")?))
}

/// The attachments that a typed name can mean.
pub(super) async fn find(session: &Session, text: &str) -> anyhow::Result<Vec<AttachmentRow>> {
    let whole = find_whole(session, text.trim()).await?;
    if !whole.is_empty() {
        return Ok(whole);
    }
    let prefix = Prefix::parse(text)?;
    let mut found: Vec<AttachmentRow> = Vec::new();
    if let Some((low, high)) = prefix.keys {
        found = session.catalog.by_key_range(session.archive_row, low, high, MAX_CANDIDATES).await?;
    }
    if let Some((low, high)) = prefix.digests {
        let more = session.catalog.by_digest_range(session.archive_row, low, high, MAX_CANDIDATES).await?;
        found
            .extend(more.into_iter().filter(|row| !found.iter().any(|known| known.row == row.row)).collect::<Vec<_>>());
    }
    Ok(found)
}

/// The attachments whose id Jelly shows so, of any team of the archive.
async fn find_whole(session: &Session, text: &str) -> anyhow::Result<Vec<AttachmentRow>> {
    let mut found = Vec::new();
    let Ok(id) = AttachmentId::try_from(text.to_owned()) else { return Ok(found) };
    for (_, team) in session.catalog.teams(session.archive_row).await? {
        let key = AttachmentKey::new(&team, &id);
        found.extend(session.catalog.by_key_range(session.archive_row, key, key, MAX_CANDIDATES).await?);
    }
    Ok(found)
}

/// A typed name, for people. What is too long for a short id or a digest is an id of Jelly's, which nothing prints.
fn named(name: &str) -> String {
    printable(name, if name.len() > 64 { 8 } else { 64 })
}

/// The attachments in `state` that the typed names mean: each must mean one attachment, or one content. Gives those in
/// the state, and those that are elsewhere.
pub(super) async fn find_all(
    session: &Session,
    names: &[String],
    states: &[State],
) -> anyhow::Result<(Vec<AttachmentRow>, Vec<AttachmentRow>)> {
    let (mut wanted, mut elsewhere): (Vec<AttachmentRow>, Vec<AttachmentRow>) = (Vec::new(), Vec::new());
    for name in names {
        let found = find(session, name).await?;
        let one_content = found.first().is_some_and(|first| {
            let is_digest = first.sha256.is_some_and(|sha256| sha256.to_hex().starts_with(&name.to_ascii_lowercase()));
            is_digest && found.iter().all(|row| row.sha256 == first.sha256)
        });
        if found.is_empty() {
            return Err(nothing(name).into());
        }
        if found.len() > 1 && !one_content {
            return Err(ambiguous(name, &found).into());
        }
        for row in found {
            let list = if states.contains(&row.state) { &mut wanted } else { &mut elsewhere };
            if !list.iter().any(|known| known.row == row.row) {
                list.push(row);
            }
        }
    }
    Ok((wanted, elsewhere))
}

/// No attachment has that name.
pub(super) fn nothing(name: &str) -> UsageError {
    UsageError(format!(
        "no attachment or content of this archive begins with {:?}; `jellyjar failed`, `quarantined` and the \
         journal in the archive show what there is",
        named(name)
    ))
}

/// Several attachments have that name.
pub(super) fn ambiguous(name: &str, found: &[AttachmentRow]) -> UsageError {
    let shown = found.iter().take(10).map(|row| {
        vec![
            format!("  {}", row.id),
            row.state.as_str().to_owned(),
            row.sha256.map(|sha256| sha256.to_hex()).unwrap_or_default(),
            row.size_bytes.or(row.declared_size).map(size).unwrap_or_default(),
            printable(row.name.as_deref().unwrap_or(""), 40),
        ]
    });
    let more = if found.len() > 10 { format!("\n  … and {} more", found.len() - 10) } else { String::new() };
    UsageError(format!(
        "{:?} can mean {} attachments; give more of the id:\n{}{more}",
        named(name),
        found.len(),
        table(&["  ID", "STATE", "SHA-256", "SIZE", "NAME"], shown)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> AttachmentKey {
        AttachmentKey::new(&"default".parse().unwrap(), &text.to_owned().try_into().unwrap())
    }

    #[test]
    fn every_prefix_of_a_short_id_holds_its_key_and_a_changed_one_does_not() {
        let key = key("some attachment");
        let short = key.to_string();
        for length in MIN_ID..=16 {
            let (low, high) = key_range(&short[..length]).unwrap();
            assert!(low <= key && key <= high, "{length}");
            let mut other = short.as_bytes()[..length].to_vec();
            let last = other.len() - 1;
            other[last] = if other[last] == b'a' { b'b' } else { b'a' };
            let (low, high) = key_range(std::str::from_utf8(&other).unwrap()).unwrap();
            assert!(key < low || high < key, "{length}");
        }
    }

    #[test]
    fn a_whole_short_id_spans_exactly_the_keys_that_show_it() {
        let (low, high) = key_range(&key("x").to_string()).unwrap();
        assert_eq!(low.as_bytes()[..10], high.as_bytes()[..10]);
        assert_eq!((low.as_bytes()[10], high.as_bytes()[10]), (0, 0xff));
    }

    #[test]
    fn prefixes_that_are_too_short_or_of_other_letters_are_refused() {
        for text in ["", "abc", "ab1c", "../..", "zzzzzzzzzzzzzzzzz", "\u{1b}[31m", "abcd efgh"] {
            assert!(Prefix::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(Prefix::parse("12345").ok(), None);
        let digits = Prefix::parse("SHA256:ABCDEF").unwrap();
        assert!(digits.keys.is_none() && digits.digests.is_some());
        let both = Prefix::parse("abcdef").unwrap();
        assert!(both.keys.is_some() && both.digests.is_some());
    }

    #[test]
    fn a_digest_prefix_holds_the_digest_at_even_and_odd_lengths() {
        let digest = Digest::of(b"x");
        for length in MIN_DIGEST..=64 {
            let (low, high) = digest_range(&digest.to_hex()[..length]).unwrap();
            assert!(low <= digest && digest <= high);
        }
        assert_eq!(digest_range(&digest.to_hex()), Some((digest, digest)));
    }
}
