//! Where an archive is: a folder, or a prefix of a bucket.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The kinds of object storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Provider {
    /// Amazon S3, or a server that speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

impl Provider {
    /// The scheme of its URLs, without `://`.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gs",
            Self::Azure => "az",
        }
    }
}

/// A bucket (a container, in Azure's words) and the prefix below which an archive lies.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BucketLocation {
    /// Whose protocol it speaks.
    pub provider: Provider,
    /// The bucket's name.
    pub bucket: String,
    /// The prefix without slashes at its ends; empty for the whole bucket.
    pub prefix: String,
}

impl fmt::Display for BucketLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.provider.scheme(), self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

/// Where an archive is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Location {
    /// A folder of a local file system.
    Folder(PathBuf),
    /// A prefix of a bucket.
    Bucket(BucketLocation),
}

impl Location {
    /// The folder, if it is one.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(path) => Some(path),
            Self::Bucket(_) => None,
        }
    }

    /// The bucket, if it is one.
    pub fn bucket(&self) -> Option<&BucketLocation> {
        match self {
            Self::Folder(_) => None,
            Self::Bucket(bucket) => Some(bucket),
        }
    }

    /// The folder, if it is one, to be changed.
    pub fn folder_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::Folder(path) => Some(path),
            Self::Bucket(_) => None,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(f),
            Self::Bucket(bucket) => bucket.fmt(f),
        }
    }
}

/// Why a text names no place for an archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidLocation(String);

impl FromStr for Location {
    type Err = InvalidLocation;

    /// Reads `s3://BUCKET/PREFIX`, `gs://…`, `az://…`, or a folder's path.
    fn from_str(text: &str) -> Result<Self, InvalidLocation> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return if text.trim().is_empty() || text.contains('\0') {
                Err(InvalidLocation(
                    "it is empty, or no path; name a folder or a bucket, like \"s3://bucket/prefix\"".into(),
                ))
            } else {
                Ok(Self::Folder(PathBuf::from(text)))
            };
        };
        let provider = match scheme.to_ascii_lowercase().as_str() {
            "s3" | "s3a" => Provider::S3,
            "gs" | "gcs" => Provider::Gcs,
            "az" | "azure" | "abfs" | "abfss" => Provider::Azure,
            _ => {
                return Err(InvalidLocation(format!(
                    "{scheme:?} is no kind of place that is known; write a folder's path, s3://BUCKET/PREFIX, \
                     gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
                )));
            }
        };
        // Nothing of it is repeated from here on: a query may be somebody's signature.
        if rest.contains(['?', '#', '@', '\\']) || rest.chars().any(char::is_control) {
            return Err(InvalidLocation(
                "a bucket's place is written s3://BUCKET/PREFIX, without keys, users or queries in it; credentials come \
                 from the environment, from profile files or from the machine's role"
                    .into(),
            ));
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '$');
        if bucket.is_empty() || bucket.len() > 255 || !bucket.chars().all(named) {
            return Err(InvalidLocation(format!("{bucket:?} is no name of a bucket; write s3://BUCKET/PREFIX")));
        }
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        // What the providers' clients would have to escape is refused, so that keys are the same in every tool.
        let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.=+@!,'() &$:;".contains(c);
        if prefix.split('/').any(|part| matches!(part, "." | ".."))
            || prefix.starts_with('/')
            || prefix.contains("//")
            || prefix.len() > 512
            || !prefix.chars().all(plain)
        {
            return Err(InvalidLocation(
                "the prefix has an empty part, `.` or `..` in it, characters other than plain letters, digits and common \
                 signs, or more than 512 bytes; write one like \"mail/team\""
                    .into(),
            ));
        }
        Ok(Self::Bucket(BucketLocation { provider, bucket: bucket.into(), prefix: prefix.into() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_and_folders_are_told_apart_and_written_as_they_were() {
        for (text, canonical) in [
            ("s3://mail", "s3://mail"),
            ("s3://mail/", "s3://mail"),
            ("S3://mail/a/b/", "s3://mail/a/b"),
            ("gs://mail/a", "gs://mail/a"),
            ("az://mail/a b", "az://mail/a b"),
        ] {
            let location: Location = text.parse().unwrap();
            assert!(location.folder().is_none());
            assert_eq!(location.to_string(), canonical);
        }
        let folder: Location = "/srv/s3:/archive".parse().unwrap();
        assert_eq!(folder.folder(), Some(Path::new("/srv/s3:/archive")));
    }

    #[test]
    fn what_names_no_place_is_refused_and_no_key_is_repeated() {
        for text in [
            "",
            "  ",
            "s3://",
            "s3:///prefix",
            "s3://a/../b",
            "s3://a//b",
            "s3://a/b*",
            "s3://a/100%",
            "s3://a/ä",
            "ftp://a",
            "file:///a",
            "s3://b\u{7}",
        ] {
            assert!(text.parse::<Location>().is_err(), "{text:?}");
        }
        let error = "s3://AKIA:hush@bucket/x".parse::<Location>().unwrap_err().to_string();
        assert!(!error.contains("hush"), "{error}");
    }
}
