//! Reads API tokens. Nothing here prints one.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Deserializer};

use super::ConfigError;
use crate::secret::Secret;

/// The most that is read of the file of a secret, in bytes; secrets are far shorter.
const MAX_FILE_BYTES: u64 = 16 << 10;

/// Says why a text, with the white space around it cut, cannot be a token; `None` if it can.
pub(super) fn problem(text: &str) -> Option<&'static str> {
    let text = text.trim();
    if text.is_empty() {
        Some("it is empty")
    } else if text.contains(['\n', '\r']) {
        Some("it has more than one line; write the token alone, without a name before it")
    } else if text.contains(char::is_whitespace) {
        Some("there is white space inside it; write the token alone, without `Bearer` or a name before it")
    } else if !text.chars().all(|c| c.is_ascii_graphic()) {
        Some("it has control or non-ASCII characters; copy the token again from Jelly")
    } else {
        None
    }
}

/// Reads a token file whole. Relative paths are taken from the working directory.
pub(super) fn read(team: &str, path: &Path) -> Result<Secret, ConfigError> {
    let text = read_text("token", team, path)?;
    match problem(text.expose()) {
        None => Ok(text),
        Some(problem) => {
            Err(ConfigError::BadSecret { what: "token", team: team.to_owned(), path: path.to_owned(), problem })
        }
    }
}

/// Reads the file of a secret whole, as text. `what` names the secret in errors.
pub(super) fn read_text(what: &'static str, team: &str, path: &Path) -> Result<Secret, ConfigError> {
    let unreadable = |source| ConfigError::ReadSecret { what, team: team.to_owned(), path: path.to_owned(), source };
    let bad = |problem| ConfigError::BadSecret { what, team: team.to_owned(), path: path.to_owned(), problem };
    read_alone(path).map_err(|unread| match unread {
        Unread::Io(source) => unreadable(source),
        Unread::Bad(problem) => bad(problem),
    })
}

/// Why a file does not give a secret.
pub(super) enum Unread {
    Io(io::Error),
    Bad(&'static str),
}

/// Reads a file that holds a secret alone, as text.
pub(super) fn read_alone(path: &Path) -> Result<Secret, Unread> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)).map_err(Unread::Io)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Unread::Bad("it is larger than any secret; name the file that holds the secret alone"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| Unread::Bad("it is not UTF-8 text; save it as plain text"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    Ok(Secret::new(text))
}

/// Whether others than the owner may read a regular file, and its mode. Pipes and devices have no say in it.
#[cfg(unix)]
pub(super) fn open_mode(path: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    let mode = metadata.permissions().mode() & 0o7777;
    (mode & 0o044 != 0).then_some(mode)
}

/// Whether others than the owner may read a file: not known here.
#[cfg(not(unix))]
pub(super) fn open_mode(_path: &Path) -> Option<u32> {
    None
}

/// Reads an inline `token`, whose errors must not repeat the value.
pub(super) fn inline<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    let toml::Value::String(text) = toml::Value::deserialize(deserializer)? else {
        return Err(serde::de::Error::custom(
            "a token is a text in quotes; better, put it in a file and set `token_file`",
        ));
    };
    match problem(&text) {
        Some(problem) => Err(serde::de::Error::custom(format!("this is no usable token: {problem}"))),
        None => Ok(Some(Secret::new(&text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_bytes(bytes: &[u8]) -> Result<Secret, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, bytes).unwrap();
        read("default", &path)
    }

    #[test]
    fn a_token_file_is_read_whole_and_trimmed() {
        for bytes in [&b"s3cret"[..], b"s3cret\n", b"  s3cret\r\n\n", "\u{feff}s3cret\n".as_bytes()] {
            assert_eq!(read_bytes(bytes).unwrap().expose(), "s3cret");
        }
    }

    #[test]
    fn a_token_file_without_a_usable_token_is_refused_without_showing_it() {
        let large = "hush".repeat(10_000);
        for bytes in [
            &b""[..],
            b" \n",
            b"hush\nhush",
            b"Bearer hush",
            b"hush\x00hush",
            b"hush\xff",
            "h\u{fc}sh-hush".as_bytes(),
            large.as_bytes(),
        ] {
            let error = read_bytes(bytes).unwrap_err();
            assert!(matches!(error, ConfigError::BadSecret { .. }), "{error:?}");
            assert!(!error.to_string().contains("hush"), "{error}");
            assert!(!format!("{error:?}").contains("hush"), "{error:?}");
        }
    }

    #[test]
    fn a_missing_token_file_is_named_with_its_team() {
        let error = read("support", Path::new("/nowhere/token")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/token") && error.contains("`support`"), "{error}");
    }
}
