//! Newtypes for every id, so that none is taken for another.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// An id that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidId(pub String);

/// A team's immutable name in keys and journal lines (`archive_key`). At most 64 of `A-Z a-z 0-9 . _ -`, not
/// beginning with a dot, so that it is safe as one segment of any key or path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TeamKey(String);

impl TeamKey {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TeamKey {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if text.is_empty() || text.len() > 64 || text.starts_with('.') || !text.chars().all(safe) {
            return Err(InvalidId(format!(
                "team key {text:?} is not usable: 1 to 64 letters, digits, '.', '_' or '-', not beginning with '.'"
            )));
        }
        Ok(Self(text))
    }
}

impl FromStr for TeamKey {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        text.to_owned().try_into()
    }
}

impl From<TeamKey> for String {
    fn from(key: TeamKey) -> Self {
        key.0
    }
}

impl fmt::Display for TeamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The stable, opaque id under which Jelly gives out an attachment. Never printed: `Debug` shows its length only.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AttachmentId(String);

impl AttachmentId {
    /// The longest id that is accepted, in bytes; the service's own are 95 to 130.
    pub const MAX_BYTES: usize = 4096;

    /// The id as Jelly wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AttachmentId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        if text.is_empty() {
            return Err(InvalidId("attachment id is empty".into()));
        }
        if text.len() > Self::MAX_BYTES {
            return Err(InvalidId(format!(
                "attachment id is {} bytes long; {} are allowed",
                text.len(),
                Self::MAX_BYTES
            )));
        }
        if text == "." || text == ".." {
            // RFC 3986 §5.2.4: a dot segment would be removed from the request path, encoded or not.
            return Err(InvalidId("attachment id is a dot segment, which no URL can carry".into()));
        }
        Ok(Self(text))
    }
}

impl From<AttachmentId> for String {
    fn from(id: AttachmentId) -> Self {
        id.0
    }
}

impl fmt::Debug for AttachmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AttachmentId({} bytes)", self.0.len())
    }
}

/// The compact key of (team, attachment id): the first 16 bytes of SHA-256 over the team key, a NUL byte and the id.
/// Displays as the short id, its first 80 bits in base32 (16 characters), which names an attachment to people.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttachmentKey([u8; 16]);

impl AttachmentKey {
    /// Derives the key.
    pub fn new(team: &TeamKey, id: &AttachmentId) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(team.as_str().as_bytes());
        hasher.update([0]);
        hasher.update(id.as_str().as_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&hasher.finalize()[..16]);
        Self(key)
    }

    /// Wraps stored bytes; `None` unless there are 16.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }

    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The bytes as 32 lowercase hex digits.
    pub fn to_hex(&self) -> String {
        HEXLOWER.encode(&self.0)
    }
}

impl fmt::Display for AttachmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD.encode(&self.0[..10]).to_ascii_lowercase())
    }
}

impl fmt::Debug for AttachmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One run of a program that writes to an archive: a ULID in text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WriterId(pub String);

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
