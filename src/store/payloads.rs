//! Copies of inboxes: accepted webhook bodies, as dumps that can be replayed, until they are no longer needed.

use bytes::Bytes;

use super::bucket::{Created, Purpose};
use super::keys::payloads_prefix;
use super::{Archive, Files, Result, in_folder};

impl Archive {
    /// Stores a copy under its key, durably, put-if-absent. `false` where something else stands there.
    pub async fn put_payloads(&self, key: &str, bytes: Bytes) -> Result<bool> {
        let stored = match &self.files {
            Files::Folder(folder) => {
                let (key, bytes) = (key.to_owned(), bytes.clone());
                in_folder(folder, move |folder| folder.put_if_absent(&key, &bytes)).await?
            }
            // It holds personal data, as messages do.
            Files::Bucket(bucket) => {
                bucket.put_if_absent(key, bytes.clone(), Purpose::Messages).await? != Created::Other
            }
        };
        // One that died after this step has left the same bytes.
        Ok(stored || self.read_key(key).await?.is_some_and(|found| *found == bytes))
    }

    /// The keys of all copies, in order of team and day.
    pub async fn payloads(&self) -> Result<Vec<String>> {
        let prefix = payloads_prefix();
        let mut keys: Vec<String> = match &self.files {
            Files::Folder(folder) => in_folder(folder, move |folder| folder.list(prefix)).await?,
            Files::Bucket(bucket) => bucket.list(prefix).await?.into_iter().map(|(key, _)| key).collect(),
        };
        keys.retain(|key| key.ends_with(".jsonl.zst"));
        keys.sort_unstable();
        Ok(keys)
    }

    /// Reads a copy whole, as it is stored; `None` where it is gone. It is as small as an inbox segment at most.
    pub async fn read_payloads(&self, key: &str) -> Result<Option<Bytes>> {
        self.read_key(key).await
    }

    /// Removes copies. Those that are gone are no error.
    pub async fn remove_payloads(&self, keys: Vec<String>) -> Result<()> {
        self.remove_segments(keys).await
    }
}
