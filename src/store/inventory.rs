//! What lies in an archive, a folder at a time, for an audit.

use std::io;
use std::time::UNIX_EPOCH;

use super::{Archive, Result, StoreError, WriterRecord};
use crate::digest::Digest;

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

/// One of the folders that hold blobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlobFolder {
    /// Its blobs, by name.
    pub blobs: Vec<BlobFile>,
    /// The keys of everything else in it.
    pub strangers: Vec<String>,
}

impl Archive {
    /// The files of `blobs/sha256/<prefix>/`.
    pub fn blob_folder(&self, prefix: u8) -> Result<BlobFolder> {
        self.digest_folder(&format!("blobs/sha256/{prefix:02x}"), |digest| digest.as_bytes()[0] == prefix)
    }

    /// The files of `quarantine/`.
    pub fn quarantine_folder(&self) -> Result<BlobFolder> {
        self.digest_folder("quarantine", |_| true)
    }

    /// What lies in `blobs/` beside the 256 folders.
    pub fn blob_strangers(&self) -> Result<Vec<String>> {
        let mut strangers = Vec::new();
        let is_prefix =
            |name: &str| name.len() == 2 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        for folder in ["blobs", "blobs/sha256"] {
            for (name, is_folder) in self.entries(folder)? {
                let ours = is_folder && if folder == "blobs" { name == "sha256" } else { is_prefix(&name) };
                if !ours {
                    strangers.push(format!("{folder}/{name}"));
                }
            }
        }
        Ok(strangers)
    }

    /// The writers' records, by key: what they say, or why that cannot be read.
    pub fn writer_records(&self) -> Result<Vec<(String, std::result::Result<WriterRecord, String>)>> {
        let mut records = Vec::new();
        for (name, is_folder) in self.entries("writers")? {
            let key = format!("writers/{name}");
            if is_folder || name.strip_suffix(".json").is_none() {
                continue;
            }
            let path = self.folder.path(&key);
            let text = std::fs::read(&path).map_err(StoreError::io("read", &path))?;
            records.push((key, serde_json::from_slice(&text).map_err(|error| error.to_string())));
        }
        Ok(records)
    }

    fn digest_folder(&self, folder: &str, belongs: impl Fn(Digest) -> bool) -> Result<BlobFolder> {
        let mut found = BlobFolder::default();
        for (name, is_folder) in self.entries(folder)? {
            let key = format!("{folder}/{name}");
            let digest = name.parse::<Digest>().ok().filter(|digest| digest.to_hex() == name && belongs(*digest));
            let Some(digest) = digest.filter(|_| !is_folder) else {
                found.strangers.push(key);
                continue;
            };
            let path = self.folder.path(&key);
            match std::fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() => {
                    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                    let modified_ms = modified.map_or(0, |age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
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

    /// The names in a folder, in order, and whether each is a folder; none where the folder is missing.
    fn entries(&self, folder: &str) -> Result<Vec<(String, bool)>> {
        let path = self.folder.path(folder);
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(StoreError::io("list", &path)(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(StoreError::io("list", &path))?;
            let is_folder = entry.file_type().map_err(StoreError::io("look at", &path))?.is_dir();
            names.push((entry.file_name().to_string_lossy().into_owned(), is_folder));
        }
        names.sort_unstable();
        Ok(names)
    }
}
