//! What lies in an archive, a folder at a time, for an audit.

use std::io;
use std::time::UNIX_EPOCH;

use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;

use super::folder::Folder;
use super::keys::is_segment;
use super::{Archive, Files, Result, StoreError, WriterRecord, in_folder};
use crate::digest::Digest;
use crate::model::Stream;

/// One file that has a blob's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobFile {
    /// Its name.
    pub digest: Digest,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its last change, in milliseconds since the Unix epoch.
    pub modified_ms: i64,
}

/// One segment of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentFile {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// One of the folders that hold blobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlobFolder {
    /// Its blobs, by name.
    pub blobs: Vec<BlobFile>,
    /// The keys of everything else in it.
    pub strangers: Vec<String>,
}

impl Archive {
    /// A stream's segments, in the order of their names.
    pub async fn segment_files(&self, stream: Stream) -> Result<Vec<SegmentFile>> {
        let mut found = match &self.files {
            Files::Folder(files) => {
                in_folder(files, move |files| {
                    let mut found = Vec::new();
                    for key in files.list(stream.prefix())? {
                        if let Some(size_bytes) = files.size(&key)? {
                            found.push(SegmentFile { key, size_bytes });
                        }
                    }
                    Ok(found)
                })
                .await?
            }
            Files::Bucket(bucket) => {
                let listed = bucket.list(stream.prefix()).await?;
                listed.into_iter().map(|(key, meta)| SegmentFile { key, size_bytes: meta.size }).collect()
            }
        };
        found.retain(|file| is_segment(&file.key));
        Ok(found)
    }

    /// Reads a small segment whole; `None` where there is none.
    pub async fn read_segment(&self, key: &str) -> Result<Option<bytes::Bytes>> {
        self.read_key(key).await
    }

    /// Removes segments that another one has replaced. Those that are gone are no error.
    pub async fn remove_segments(&self, keys: Vec<String>) -> Result<()> {
        match &self.files {
            Files::Folder(files) => in_folder(files, move |files| files.remove(&keys)).await,
            Files::Bucket(bucket) => bucket.delete(&keys).await,
        }
    }

    /// The files of `blobs/sha256/<prefix>/`.
    pub async fn blob_folder(&self, prefix: u8) -> Result<BlobFolder> {
        self.digest_folder(format!("blobs/sha256/{prefix:02x}"), Some(prefix)).await
    }

    /// The files of `quarantine/`.
    pub async fn quarantine_folder(&self) -> Result<BlobFolder> {
        self.digest_folder("quarantine".into(), None).await
    }

    /// What lies in `blobs/` beside the 256 folders.
    pub async fn blob_strangers(&self) -> Result<Vec<String>> {
        let mut strangers = Vec::new();
        let is_prefix =
            |name: &str| name.len() == 2 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        for folder in ["blobs", "blobs/sha256"] {
            for (name, is_folder) in self.entries(folder).await? {
                let ours = is_folder && if folder == "blobs" { name == "sha256" } else { is_prefix(&name) };
                if !ours {
                    strangers.push(format!("{folder}/{name}"));
                }
            }
        }
        Ok(strangers)
    }

    /// The writers' records, by key: what they say, or why that cannot be read.
    pub async fn writer_records(&self) -> Result<Vec<(String, std::result::Result<WriterRecord, String>)>> {
        let names = self.entries("writers").await?;
        let names = names.into_iter().filter(|(_, is_folder)| !is_folder);
        self.records_of(names.map(|(name, _)| format!("writers/{name}")).collect()).await
    }

    /// The records that were written since then, but for those that cannot be read.
    pub async fn writer_records_since(&self, since: Timestamp) -> Result<Vec<WriterRecord>> {
        let since_ms = since.as_millisecond();
        let keys = match &self.files {
            Files::Folder(files) => in_folder(files, move |files| written_since(files, "writers", since_ms)).await?,
            Files::Bucket(bucket) => {
                let mut listed = bucket.list("writers").await?;
                listed.retain(|(_, meta)| meta.last_modified.timestamp_millis() >= since_ms);
                listed.into_iter().map(|(key, _)| key).collect()
            }
        };
        let records = self.records_of(keys).await?;
        Ok(records.into_iter().filter_map(|(_, record)| record.ok()).collect())
    }

    async fn records_of(
        &self,
        mut keys: Vec<String>,
    ) -> Result<Vec<(String, std::result::Result<WriterRecord, String>)>> {
        keys.retain(|key| key.strip_suffix(".json").is_some());
        let read = |key: String| {
            async move {
                let text = self.read_key(&key).await?;
                let record = text.map(|text| serde_json::from_slice(&text).map_err(|error| error.to_string()));
                Ok::<_, StoreError>((key, record))
            }
            .boxed()
        };
        let records: Vec<_> =
            futures::stream::iter(keys.into_iter().map(read)).buffered(self.reads_at_once()).try_collect().await?;
        Ok(records.into_iter().filter_map(|(key, record)| Some((key, record?))).collect())
    }

    async fn digest_folder(&self, folder: String, prefix: Option<u8>) -> Result<BlobFolder> {
        let bucket = match &self.files {
            Files::Folder(files) => {
                return in_folder(files, move |files| digest_folder(files, &folder, prefix)).await;
            }
            Files::Bucket(bucket) => bucket,
        };
        let mut found = BlobFolder::default();
        for (key, meta) in bucket.list(&folder).await? {
            let name = key.strip_prefix(&folder).and_then(|rest| rest.strip_prefix('/')).unwrap_or(&key);
            match blob_name(name, prefix) {
                Some(digest) => {
                    let modified_ms = meta.last_modified.timestamp_millis();
                    found.blobs.push(BlobFile { digest, size_bytes: meta.size, modified_ms });
                }
                None => found.strangers.push(key),
            }
        }
        Ok(found)
    }

    /// The names in a folder, in order, and whether each is a folder; none where the folder is missing.
    async fn entries(&self, folder: &'static str) -> Result<Vec<(String, bool)>> {
        match &self.files {
            Files::Folder(files) => in_folder(files, move |files| files.entries(folder)).await,
            Files::Bucket(bucket) => {
                let (objects, prefixes) = bucket.list_names(folder).await?;
                let mut names: Vec<(String, bool)> = objects.into_iter().map(|name| (name, false)).collect();
                names.extend(prefixes.into_iter().map(|name| (name, true)));
                names.sort_unstable();
                Ok(names)
            }
        }
    }
}

/// The digest that a name stands for, if it is one and belongs below `prefix`.
fn blob_name(name: &str, prefix: Option<u8>) -> Option<Digest> {
    let digest = name.parse::<Digest>().ok().filter(|digest| digest.to_hex() == name)?;
    prefix.is_none_or(|prefix| digest.as_bytes()[0] == prefix).then_some(digest)
}

/// The keys in a folder that were written since then.
fn written_since(files: &Folder, folder: &str, since_ms: i64) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (name, is_folder) in files.entries(folder)? {
        let key = format!("{folder}/{name}");
        let path = files.path(&key);
        match std::fs::metadata(&path) {
            Ok(metadata) if !is_folder && modified_ms(&metadata) >= since_ms => found.push(key),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("look at", &path)(error)),
        }
    }
    Ok(found)
}

fn modified_ms(metadata: &std::fs::Metadata) -> i64 {
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    modified.map_or(0, |age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
}

fn digest_folder(files: &Folder, folder: &str, prefix: Option<u8>) -> Result<BlobFolder> {
    let mut found = BlobFolder::default();
    for (name, is_folder) in files.entries(folder)? {
        let key = format!("{folder}/{name}");
        let Some(digest) = blob_name(&name, prefix).filter(|_| !is_folder) else {
            found.strangers.push(key);
            continue;
        };
        let path = files.path(&key);
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => {
                let modified_ms = modified_ms(&metadata);
                found.blobs.push(BlobFile { digest, size_bytes: metadata.len(), modified_ms });
            }
            Ok(_) => found.strangers.push(key),
            // Moved or deleted since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("look at", &path)(error)),
        }
    }
    Ok(found)
}
