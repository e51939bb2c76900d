//! `lock.json`: one compaction at a time. A courtesy, not a promise: storage has no locks that end with a process, so
//! whoever takes it over from one that seems dead must do no harm if it is not.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::bucket::{Created, Purpose};
use super::{Archive, Files, Result, StoreError, in_folder};
use crate::clock::Clock;
use crate::model::{FORMAT_VERSION, WriterId};

const KEY: &str = "lock.json";
/// A lock of this age, in minutes, belongs to a dead process.
const STALE_MINUTES: i64 = 60;

#[derive(Debug, Serialize, Deserialize)]
struct LockRecord {
    v: u32,
    purpose: String,
    writer_id: WriterId,
    taken_at: Timestamp,
}

/// The right to do what only one process should do at a time.
#[derive(Debug)]
pub struct ArchiveLock(());

impl ArchiveLock {
    /// Gives it back. One that is never given back ends by itself after an hour.
    pub async fn release(self, archive: &Archive) -> Result<()> {
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
        let mut text = serde_json::to_vec(&record).expect("a struct of text and numbers always serialises");
        text.push(b'\n');
        if self.put_lock(text.clone()).await? {
            return Ok(ArchiveLock(()));
        }
        let held = self.read_key(KEY).await?.and_then(|text| serde_json::from_slice::<LockRecord>(&text).ok());
        match held {
            Some(held) if now.duration_since(held.taken_at).abs() < SignedDuration::from_mins(STALE_MINUTES) => {
                Err(StoreError::Locked { purpose: held.purpose, since: held.taken_at })
            }
            // Stale, unreadable, or gone meanwhile.
            _ => {
                self.replace(KEY, text).await?;
                Ok(ArchiveLock(()))
            }
        }
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
