//! `jellyjar.json`, which makes a folder or prefix an archive.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Archive, Folder, Place, Result, StoreError, trial};
use crate::clock::Clock;
use crate::model::{FORMAT_VERSION, UnsupportedVersion};

/// `jellyjar.json`: what makes a folder or prefix an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The version of the layout.
    pub format_version: u32,
    /// The archive's identity, wherever it is moved.
    pub archive_uuid: String,
    /// When it was made.
    pub created_at: jiff::Timestamp,
}

/// The marker of a new archive, as text.
pub(super) fn new_marker(clock: &Clock) -> Result<Vec<u8>> {
    let marker = Marker { format_version: FORMAT_VERSION, archive_uuid: random_uuid()?, created_at: clock.now() };
    let mut text = serde_json::to_vec_pretty(&marker).expect("a struct of text and numbers always serialises");
    text.push(b'\n');
    Ok(text)
}

/// Makes a folder an archive.
pub(super) fn make_folder_archive(root: &Path, marker: &[u8]) -> Result<()> {
    std::fs::create_dir_all(root).map_err(StoreError::io("make the folder", root))?;
    if !trial::only_ours(root)? {
        return Err(StoreError::NotAnArchive { place: root.display().to_string() });
    }
    let folder = Folder::open(root)?;
    if let Some(parent) = root.parent() {
        Folder::sync_folder(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?;
    }
    folder.put_if_absent(Archive::MARKER, marker).map(|_| ())
}

pub(super) async fn read_marker(place: &Place) -> Result<Option<Marker>> {
    let text = match place {
        Place::Folder(root) => {
            let path = root.join(Archive::MARKER);
            match tokio::fs::read(&path).await {
                Ok(text) => text.into(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                    return Err(StoreError::NotAFolder { path: root.clone() });
                }
                Err(error) => return Err(StoreError::io("read", &path)(error)),
            }
        }
        Place::Bucket(bucket) => match bucket.read(Archive::MARKER).await? {
            Some(text) => text,
            None => return Ok(None),
        },
    };
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    let damaged =
        |error: serde_json::Error| StoreError::Damaged { key: Archive::MARKER.into(), reason: error.to_string() };
    let version: Version = serde_json::from_slice(&text).map_err(damaged)?;
    if version.format_version > FORMAT_VERSION {
        let source = UnsupportedVersion(version.format_version);
        return Err(StoreError::Unsupported { place: place.to_string(), source });
    }
    serde_json::from_slice(&text).map(Some).map_err(damaged)
}

/// A random (version 4) UUID, RFC 9562 §5.4.
fn random_uuid() -> Result<String> {
    let mut bytes = random_bytes()?;
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = data_encoding::HEXLOWER.encode(&bytes);
    Ok(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

pub(super) fn random_bytes() -> Result<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| StoreError::io("read random bytes from", Path::new("the system"))(io::Error::other(error)))?;
    Ok(bytes)
}
