//! `lock.json`: one compaction at a time. A courtesy, not a promise: storage has no locks that end with a process, so
//! whoever takes it over from one that seems dead must do no harm if it is not.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::bucket::{Created, Purpose};
use super::{Archive, Files, Result, StoreError, in_folder};
use crate::clock::Clock;
use crate::model::{FORMAT_VERSION, WriterId};

const KEY: &str = "lock.json";
/// A lock that was not renewed for so long, in minutes, belongs to a dead process.
const STALE_MINUTES: i64 = 5;
/// How often it is renewed, in seconds.
const RENEW_SECONDS: i64 = 60;

#[derive(Debug, Serialize, Deserialize)]
struct LockRecord {
    v: u32,
    purpose: String,
    writer_id: WriterId,
    taken_at: Timestamp,
}

impl LockRecord {
    fn text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec(self).expect("a struct of text and numbers always serialises");
        text.push(b'\n');
        text
    }
}

/// The right to do what only one process should do at a time.
#[derive(Debug)]
pub struct ArchiveLock(LockRecord);

impl ArchiveLock {
    /// Says that it is still needed; to be called every minute or so.
    pub async fn renew(&mut self, archive: &Archive, clock: &Clock) -> Result<()> {
        let now = clock.now();
        if now.duration_since(self.0.taken_at) < SignedDuration::from_secs(RENEW_SECONDS) {
            return Ok(());
        }
        self.0.taken_at = now;
        archive.replace(KEY, self.0.text()).await
    }

    /// Gives it back, unless somebody else has taken it over. One that is never given back ends by itself. May be repeated.
    pub async fn release(&self, archive: &Archive) -> Result<()> {
        if archive.held_lock().await?.is_none_or(|held| held.writer_id != self.0.writer_id) {
            return Ok(());
        }
        match &archive.files {
            Files::Folder(folder) => in_folder(folder, |folder| folder.remove(&[KEY.to_owned()])).await,
            Files::Bucket(bucket) => bucket.delete(&[KEY.to_owned()]).await,
        }
    }
}

impl Archive {
    /// Takes the archive's lock.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another process has it.
    pub async fn lock(&self, purpose: &str, writer_id: &WriterId, clock: &Clock) -> Result<ArchiveLock> {
        let now = clock.now();
        let record =
            LockRecord { v: FORMAT_VERSION, purpose: purpose.to_owned(), writer_id: writer_id.clone(), taken_at: now };
        if self.put_lock(record.text()).await? {
            return Ok(ArchiveLock(record));
        }
        match self.held_lock().await? {
            Some(held) if now.duration_since(held.taken_at).abs() < SignedDuration::from_mins(STALE_MINUTES) => {
                Err(StoreError::Locked { purpose: held.purpose, since: held.taken_at })
            }
            // Stale, unreadable, or gone meanwhile.
            _ => {
                self.replace(KEY, record.text()).await?;
                Ok(ArchiveLock(record))
            }
        }
    }

    /// The lock, if somebody holds it.
    async fn held_lock(&self) -> Result<Option<LockRecord>> {
        Ok(self.read_key(KEY).await?.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    async fn put_lock(&self, text: Vec<u8>) -> Result<bool> {
        match &self.files {
            Files::Folder(folder) => in_folder(folder, move |folder| folder.put_if_absent(KEY, &text)).await,
            Files::Bucket(bucket) => {
                Ok(bucket.put_if_absent(KEY, text.into(), Purpose::Record).await? != Created::Other)
            }
        }
    }
}
