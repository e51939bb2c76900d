//! Which archive was at a place, as this machine remembers: so that the empty folder under a disk that is not mounted is
//! not taken for a new place. An archive that is a folder takes its catalog with it when it goes; so the record is in the
//! state home, a small file for each place.

use std::io::Write as _;
use std::path::PathBuf;

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
    noted_at: Timestamp,
}

/// What is remembered of one place.
#[derive(Debug)]
pub(super) struct KnownPlace {
    place: String,
    file: PathBuf,
}

impl KnownPlace {
    /// The place of a location; `None` where there is no state home, and so no memory.
    pub(super) fn of(config: &Config, location: &Location) -> Option<Self> {
        let place = match location {
            Location::Folder(root) => std::path::absolute(root).ok()?.display().to_string(),
            // The same name at another server is another place.
            Location::Bucket(bucket) => {
                let buckets = &config.buckets;
                let endpoints = [&buckets.s3.endpoint, &buckets.gcs.endpoint, &buckets.azure.endpoint];
                endpoints.into_iter().flatten().fold(bucket.to_string(), |text, endpoint| format!("{text} {endpoint}"))
            }
        };
        let name = Digest::of(place.as_bytes()).to_string();
        let file = config.state_home.as_ref()?.join("jellyjar/places").join(format!("{}.json", &name[..32]));
        Some(Self { place, file })
    }

    /// Refuses to make a new archive where one was before.
    pub(super) fn refuse_new(&self) -> Result<(), UsageError> {
        let Some(Record { archive_uuid, noted_at, .. }) = self.read() else { return Ok(()) };
        Err(UsageError(format!(
            "there is no archive at {}, where the archive {archive_uuid} was (since {noted_at:.0}); bring it back: mount its \
             disk, or correct --archive. To begin a new one there all the same, remove {}",
            self.place,
            self.file.display()
        )))
    }

    /// Remembers which archive is there. What cannot be written down is only not known later.
    pub(super) fn note(&self, archive_uuid: &str, now: Timestamp) {
        if self.read().is_some_and(|known| known.archive_uuid == archive_uuid) {
            return;
        }
        let record =
            Record { v: VERSION, place: self.place.clone(), archive_uuid: archive_uuid.to_owned(), noted_at: now };
        if let Err(error) = self.write(&record) {
            tracing::debug!(%error, "which archive is at {} is not remembered in {}", self.place, self.file.display());
        }
    }

    /// A record that cannot be read is none: it must never keep anybody from an archive that is there.
    fn read(&self) -> Option<Record> {
        let text = std::fs::read(&self.file).ok()?;
        serde_json::from_slice::<Record>(&text).ok().filter(|record| record.v == VERSION && record.place == self.place)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_remembered_by_where_it_is_and_a_broken_record_is_none() {
        let home = tempfile::tempdir().unwrap();
        let config = Config { state_home: Some(home.path().to_owned()), ..Config::default() };
        let place = |path: &str| KnownPlace::of(&config, &Location::Folder(path.into())).unwrap();
        assert!(place("/srv/a").refuse_new().is_ok());
        place("/srv/a").note("uuid-1", Timestamp::UNIX_EPOCH);
        let refused = place("/srv/a/.").refuse_new().unwrap_err().to_string();
        let file = place("/srv/a").file;
        assert!(refused.contains("uuid-1") && refused.contains(file.to_str().unwrap()), "{refused}");
        assert!(place("/srv/b").refuse_new().is_ok());
        std::fs::write(&file, "{").unwrap();
        assert!(place("/srv/a").refuse_new().is_ok());
        place("/srv/a").note("uuid-2", Timestamp::UNIX_EPOCH);
        assert!(place("/srv/a").refuse_new().unwrap_err().to_string().contains("uuid-2"));
        std::fs::remove_file(&file).unwrap();
        assert!(place("/srv/a").refuse_new().is_ok());
        assert!(KnownPlace::of(&Config::default(), &Location::Folder("/srv/a".into())).is_none());
    }
}
