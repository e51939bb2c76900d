//! Who a team's folder is: a name of its own, made with it. A position counts in the folder alone in which it was read:
//! where that was lost, and the clock was set back, segments of a new one might sort below it.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use ulid::Ulid;

use super::segment::sync_folder;

const FILE: &str = ".identity";

/// The name of a team's folder, for as long as it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboxId(Ulid);

impl InboxId {
    /// The name in a folder that is locked; one that has none is given one, durably.
    pub(super) fn of(folder: &Path, now_ms: i64) -> io::Result<Self> {
        let path = folder.join(FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                // Damaged, it is nobody's: what was read there is read again, which changes nothing.
                if let Ok(id) = Ulid::from_string(text.trim_end()) {
                    return Ok(Self(id));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let id = Self::random(now_ms)?;
        let new = folder.join(format!("{FILE}.new"));
        let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(format!("{id}\n").as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        sync_folder(folder)?;
        Ok(id)
    }

    /// A name that nobody has had.
    pub(super) fn random(now_ms: i64) -> io::Result<Self> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        Ok(Self(Ulid::from_parts(u64::try_from(now_ms).unwrap_or(0), u128::from_be_bytes(random))))
    }
}

impl fmt::Display for InboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
