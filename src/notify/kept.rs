//! What was told, in a file: so that a restart neither tells it again nor forgets to tell its end.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::board::Told;
use super::condition::{Condition, Kind};

const VERSION: u32 = 1;
/// The most that is read, in bytes.
const MAX_BYTES: u64 = 4 << 20;

#[derive(Serialize, Deserialize)]
struct Kept {
    v: u32,
    told: Vec<Line>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    condition: String,
    subject: String,
    since: Timestamp,
    told_at: Timestamp,
}

/// Reads the file. None is nothing; kinds that this program does not know are left out.
pub(super) fn read(path: &Path) -> io::Result<Vec<Told>> {
    let bytes = match fs::metadata(path) {
        Ok(metadata) if metadata.len() > MAX_BYTES => return Err(io::Error::other("it is too large to be ours")),
        Ok(_) => fs::read(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let kept: Kept = serde_json::from_slice(&bytes)?;
    if kept.v != VERSION {
        return Err(io::Error::other("another version of jellyjar wrote it"));
    }
    let told = kept.told.into_iter().filter_map(|line| {
        let condition = Condition::new(Kind::named(&line.condition)?, line.subject);
        Some(Told { condition, since_ms: line.since.as_millisecond(), last_ms: line.told_at.as_millisecond() })
    });
    Ok(told.collect())
}

/// Replaces the file: the old one or the new one is there whatever happens.
pub(super) fn write(path: &Path, told: &[Told]) -> io::Result<()> {
    let time = |ms| Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
    let told = told.iter().map(|told| Line {
        condition: told.condition.kind.name().to_owned(),
        subject: told.condition.subject.clone(),
        since: time(told.since_ms),
        told_at: time(told.last_ms),
    });
    let bytes = serde_json::to_vec(&Kept { v: VERSION, told: told.collect() })?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let temporary = path.with_extension("new");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_what_is_broken_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/notified.json");
        assert_eq!(read(&path).unwrap(), []);
        let told = [
            Told { condition: Condition::new(Kind::NotReady, "archive \"a\""), since_ms: 1, last_ms: 60_001 },
            Told { condition: Condition::new(Kind::Failed, "support"), since_ms: 5, last_ms: 6 },
        ];
        write(&path, &told).unwrap();
        write(&path, &told).unwrap();
        assert_eq!(read(&path).unwrap(), told);
        for text in ["", "{}", r#"{"v":2,"told":[]}"#, r#"{"v":1,"told":[{"condition":"x"}]}"#] {
            fs::write(&path, text).unwrap();
            assert!(read(&path).is_err(), "{text}");
        }
        let unknown = r#"{"v":1,"told":[{"condition":"later","subject":"x","since":"2026-01-01T00:00:00Z","told_at":"2026-01-01T00:00:00Z"}]}"#;
        fs::write(&path, unknown).unwrap();
        assert_eq!(read(&path).unwrap(), []);
    }
}
