//! Which archive was in a folder, and on which disk, as this machine remembers: so that the empty folder under a disk that
//! is not mounted is not taken for a new place. Where the disk is there and the archive is not, somebody has removed it. An
//! archive takes its catalog with it when it goes; so the record is in the state home, a small file for each place.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::UsageError;
use crate::config::Config;
use crate::digest::Digest;
use crate::model::Location;

const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    v: u32,
    place: String,
    archive_uuid: String,
    /// The number of the disk, which lasts until it is mounted anew.
    device: u64,
    noted_at: Timestamp,
}

/// What is remembered of one place.
#[derive(Debug)]
pub(super) struct KnownPlace {
    place: PathBuf,
    file: PathBuf,
}

impl KnownPlace {
    /// The place of a location; `None` for a bucket, which does not go away unnoticed, and where there is no state home, and
    /// so no memory.
    pub(super) fn of(config: &Config, location: &Location) -> Option<Self> {
        let Location::Folder(root) = location else { return None };
        let place = std::path::absolute(root).ok()?;
        let name = Digest::of(place.as_os_str().as_encoded_bytes()).to_string();
        let file = config.state_home.as_ref()?.join("jellyjar/places").join(format!("{}.json", &name[..32]));
        Some(Self { place, file })
    }

    /// Refuses to make a new archive where one was before on another disk than is there now.
    pub(super) fn refuse_new(&self) -> Result<(), UsageError> {
        let Some(Record { archive_uuid, device, noted_at, .. }) = self.read() else { return Ok(()) };
        if device_of(&self.place) == Some(device) {
            return Ok(());
        }
        Err(UsageError(format!(
            "there is no archive at {}, where the archive {archive_uuid} was (since {noted_at:.0}), on another disk than the \
             one that is there now; bring it back: mount its disk, or correct --archive. To begin a new one there all the \
             same, remove {}",
            self.place.display(),
            self.file.display()
        )))
    }

    /// Remembers which archive is there. What cannot be written down is only not known later.
    pub(super) fn note(&self, archive_uuid: &str, now: Timestamp) {
        let Some(device) = device_of(&self.place) else { return };
        if self.read().is_some_and(|known| known.archive_uuid == archive_uuid && known.device == device) {
            return;
        }
        let (place, archive_uuid) = (self.place.display().to_string(), archive_uuid.to_owned());
        let record = Record { v: VERSION, place, archive_uuid, device, noted_at: now };
        if let Err(error) = self.write(&record) {
            tracing::debug!(%error, "which archive is at {} is not remembered in {}", record.place, self.file.display());
        }
    }

    /// A record that cannot be read is none: it must never keep anybody from an archive that is there.
    fn read(&self) -> Option<Record> {
        let text = std::fs::read(&self.file).ok()?;
        serde_json::from_slice::<Record>(&text).ok().filter(|record| record.v == VERSION)
    }

    fn write(&self, record: &Record) -> std::io::Result<()> {
        let folder = self.file.parent().ok_or_else(|| std::io::Error::other("it has no folder"))?;
        std::fs::create_dir_all(folder)?;
        // Of two processes each has its own.
        let temporary = self.file.with_extension(format!("{}.new", std::process::id()));
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &self.file)?;
        std::fs::File::open(folder)?.sync_all()
    }
}

/// The number of the disk that a path is on, or would be.
fn device_of(path: &Path) -> Option<u64> {
    path.ancestors().find_map(|path| path.metadata().ok()).map(|metadata| metadata.dev())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_refused_on_another_disk_alone_and_a_broken_record_is_none() {
        let home = tempfile::tempdir().unwrap();
        let config = Config { state_home: Some(home.path().to_owned()), ..Config::default() };
        let folder = home.path().join("disk/archive");
        let place = |path: &Path| KnownPlace::of(&config, &Location::Folder(path.into())).unwrap();
        assert!(place(&folder).refuse_new().is_ok());
        place(&folder).note("uuid-1", Timestamp::UNIX_EPOCH);
        // The disk is there, and the archive was removed.
        assert!(place(&folder).refuse_new().is_ok());

        let file = place(&folder).file;
        let mut elsewhere = place(&folder).read().unwrap();
        elsewhere.device += 1;
        place(&folder).write(&elsewhere).unwrap();
        let refused = place(&folder.join(".")).refuse_new().unwrap_err().to_string();
        assert!(refused.contains("uuid-1") && refused.contains(file.to_str().unwrap()), "{refused}");
        assert!(place(&home.path().join("b")).refuse_new().is_ok());
        // An archive that is there is remembered where it is.
        place(&folder).note("uuid-2", Timestamp::UNIX_EPOCH);
        assert!(place(&folder).refuse_new().is_ok());

        std::fs::write(&file, "{").unwrap();
        assert!(place(&folder).refuse_new().is_ok());
        assert!(KnownPlace::of(&Config::default(), &Location::Folder(folder)).is_none());
    }
}
