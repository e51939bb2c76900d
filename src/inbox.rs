//! The inbox: accepted webhooks, durable, until they are archived. It needs neither catalog nor archive nor Jelly to be
//! up, as Jelly never sends a webhook twice. Knows what an inbox record is, not what a body means.
//!
//! Each team has a folder of segments, files of lines (`source::inbox_line`), and a writer of its own, so that none waits
//! for another: `writer` makes records durable many at once, `team` knows what waits and what is there, `segment` names,
//! finds and removes files, `reader` reads them in order, `space` keeps the bounds, `status` tells.

mod error;
mod identity;
mod reader;
mod segment;
mod space;
mod status;
mod team;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use rustix::fs::{FlockOperation, flock};
use tokio::sync::watch;

pub use error::{AppendError, OpenError, ReadError};
pub use identity::InboxId;
pub use reader::{Batch, Reader};
pub use segment::{ClosedSegment, Position, SegmentId};
pub use status::{InboxStatus, TeamStatus};

use crate::clock::Clock;
use crate::config::InboxConfig;
use crate::model::TeamKey;
use crate::spool::Spool;
use space::Space;
use team::{Common, Team};

/// The inboxes of all teams. Cheap to clone. When the last clone is dropped, what waits is written still, but nobody
/// waits for that; [`Inboxes::close`] does.
#[derive(Debug, Clone)]
pub struct Inboxes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    common: Arc<Common>,
    teams: RwLock<BTreeMap<String, Arc<Team>>>,
    /// Folders of teams that are not configured any more, and are not looked after.
    strangers: Mutex<Vec<Stranger>>,
}

/// A folder that belongs to no configured team, with webhooks that are not known to be taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// Its name, which was that of a team.
    pub team: String,
    /// The folder.
    pub folder: PathBuf,
    /// What its segments hold of them, in bytes. Some of it may have been archived, if a process died.
    pub bytes: u64,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.teams.get_mut().unwrap_or_else(PoisonError::into_inner).values().for_each(|team| team.stop());
    }
}

impl Inboxes {
    /// Opens the inboxes of `teams` in `folder`, which is made if need be, and takes its lock. Blocks.
    pub fn open(config: &InboxConfig, folder: &Path, teams: &[String], clock: Clock) -> Result<Self, OpenError> {
        let folder = std::path::absolute(folder).map_err(OpenError::io("find", folder))?;
        segment::make_folder(&folder).map_err(OpenError::io("make the folder", &folder))?;
        if !config.allow_tmpfs && Spool::is_in_memory(&folder) {
            return Err(OpenError::InMemory(folder));
        }
        let lock = lock(&folder)?;
        let space = Arc::new(Space::new(config));
        let common = Arc::new(Common { config: config.clone(), folder, clock, space, _lock: lock });
        let inboxes = Self(Arc::new(Inner { common, teams: RwLock::default(), strangers: Mutex::default() }));
        inboxes.add(teams)?;
        inboxes.look_for_strangers()?;
        Ok(inboxes)
    }

    /// Opens the inboxes of those of `teams` that have none yet. After an error none of them is there. One that
    /// [`Inboxes::keep`] closes must be closed before it is opened again. Blocks.
    pub fn add(&self, teams: &[String]) -> Result<(), OpenError> {
        let mut opened = BTreeMap::new();
        for name in teams.iter().filter(|name| !self.teams().contains_key(*name)) {
            // Such a name cannot lead out of the folder, nor be that of the lock.
            name.parse::<TeamKey>().map_err(|_| OpenError::TeamName(name.clone()))?;
            opened.insert(name.clone(), Arc::new(Team::open(name, &self.0.common)?));
        }
        self.0.teams.write().unwrap_or_else(PoisonError::into_inner).append(&mut opened);
        Ok(())
    }

    /// Closes the inboxes of all teams but these: they take no more records, and what waits is written first. Their
    /// folders stay as they are. To be called once nobody reads them any more.
    pub async fn keep(&self, teams: &[String]) {
        let gone: Vec<Arc<Team>> =
            self.teams().iter().filter(|(name, _)| !teams.contains(name)).map(|(_, team)| Arc::clone(team)).collect();
        for team in gone {
            team.stop();
            team.stopped().await;
            self.0.teams.write().unwrap_or_else(PoisonError::into_inner).remove(&team.name);
        }
    }

    /// Looks for folders of no team that hold what is not known to be taken over, of which [`Inboxes::status`] tells; new
    /// ones are logged. Blocks.
    pub fn look_for_strangers(&self) -> Result<(), OpenError> {
        // Not under the lock: a disk that does not answer must not hold up those who append.
        let teams = self.teams().clone();
        let found = strangers(&self.0.common.folder, &teams)?;
        let mut strangers = self.strangers();
        for one in found.iter().filter(|one| !strangers.iter().any(|known| known.team == one.team)) {
            tracing::warn!(
                team = %one.team,
                "the inbox folder {} belongs to no configured team; {} of accepted webhooks in it are not archived",
                one.folder.display(),
                bytesize::ByteSize(one.bytes)
            );
        }
        *strangers = found;
        Ok(())
    }

    fn teams(&self) -> RwLockReadGuard<'_, BTreeMap<String, Arc<Team>>> {
        self.0.teams.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn strangers(&self) -> MutexGuard<'_, Vec<Stranger>> {
        self.0.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.0.common.folder
    }

    /// Adds a webhook's body to a team's inbox; it is durable when this returns `Ok`. `source` says where it came from
    /// (`webhook`). Bodies that are given one after the other are read in that order. If this is dropped, the record may
    /// be written or not.
    pub async fn append(&self, team: &str, source: &str, body: Bytes) -> Result<(), AppendError> {
        let known = self.teams().get(team).map(Arc::clone);
        known.ok_or_else(|| AppendError::UnknownTeam(team.to_owned()))?.append(source, body).await
    }

    /// Who a team's folder is. A position that was read in another one says nothing of this one.
    pub fn identity(&self, team: &str) -> Result<InboxId, ReadError> {
        Ok(self.team(team)?.identity)
    }

    /// How many whole lines stand before a position, in its segment. Blocks.
    pub fn lines_before(&self, team: &str, position: Position) -> Result<u64, ReadError> {
        let path = position.segment.path(&self.team(team)?.folder);
        let lines = segment::count_lines(&path, position.offset);
        lines.map_err(|source| ReadError::Read { path, offset: position.offset, source })
    }

    /// Reads a team's inbox behind `from`, or from its beginning. To be called with the position of an earlier life before
    /// anything is appended.
    pub fn reader(&self, team: &str, from: Option<Position>) -> Result<Reader, ReadError> {
        let team = self.team(team)?;
        team.knows(from);
        Ok(Reader::new(team, from))
    }

    /// Notes what of a team's inbox has been taken over for good. It only serves [`Inboxes::status`] and
    /// [`Inboxes::finished`]; keeping the position over a restart is the caller's.
    pub fn consumed(&self, team: &str, upto: Position) -> Result<(), ReadError> {
        self.team(team)?.state().consumed = Some(upto);
        Ok(())
    }

    /// Whether records of a team are durable that have not been taken over, as [`Inboxes::consumed`] tells.
    pub fn is_behind(&self, team: &str) -> Result<bool, ReadError> {
        let team = self.team(team)?;
        let state = team.state();
        Ok(state.readable(state.consumed).is_some())
    }

    /// The segments of a team that get no more records, in order.
    pub fn segments(&self, team: &str) -> Result<Vec<ClosedSegment>, ReadError> {
        Ok(self.team(team)?.closed())
    }

    /// Those of [`Inboxes::segments`] that have been taken over to their end, as [`Inboxes::consumed`] tells: what may be
    /// removed once it is copied.
    pub fn finished(&self, team: &str) -> Result<Vec<ClosedSegment>, ReadError> {
        let team = self.team(team)?;
        let consumed = team.state().consumed;
        let end = |segment: &ClosedSegment| Position { segment: segment.id, offset: segment.bytes };
        Ok(team.closed().into_iter().filter(|segment| consumed.is_some_and(|upto| end(segment) <= upto)).collect())
    }

    /// Tells of every change of a team's inbox: new durable records, a segment that was closed.
    pub fn changes(&self, team: &str) -> Result<watch::Receiver<u64>, ReadError> {
        Ok(self.team(team)?.changes())
    }

    /// Removes a closed segment. One that is not there is no error. Blocks.
    pub fn remove(&self, team: &str, segment: SegmentId) -> Result<(), ReadError> {
        self.team(team)?.remove(segment)
    }

    /// Has the writers look at once whether segments are to be closed for their age, and whether what has failed works
    /// again. They do so by themselves, too.
    pub fn check(&self) {
        self.teams().values().for_each(|team| team.poke());
    }

    /// Refuses further records, and waits until those that wait are answered. All segments are closed then. The lock
    /// ends with the last clone.
    pub async fn close(&self) {
        let teams: Vec<Arc<Team>> = self.teams().values().map(Arc::clone).collect();
        for team in &teams {
            team.stop();
        }
        for team in teams {
            team.stopped().await;
        }
    }

    fn team(&self, name: &str) -> Result<Arc<Team>, ReadError> {
        self.teams().get(name).map(Arc::clone).ok_or_else(|| ReadError::UnknownTeam(name.to_owned()))
    }
}

/// Takes the right to a folder, which one process has at a time. It ends with the file, or the process.
fn lock(folder: &Path) -> Result<File, OpenError> {
    let path = folder.join(".lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(OpenError::io("open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => Err(OpenError::Locked(folder.to_owned())),
        Err(error) => Err(OpenError::io("lock", &path)(error.into())),
    }
}

/// Folders with segments that belong to none of the teams.
fn strangers(folder: &Path, teams: &BTreeMap<String, Arc<Team>>) -> Result<Vec<Stranger>, OpenError> {
    let failed = || OpenError::io("look into the folder", folder);
    let mut strangers = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let team = entry.file_name().to_string_lossy().into_owned();
        if !teams.contains_key(&team) && entry.file_type().map_err(failed())?.is_dir() {
            let folder = entry.path();
            if let Some(bytes) = segment::left_in(&folder) {
                strangers.push(Stranger { team, folder, bytes });
            }
        }
    }
    strangers.sort_unstable_by(|one, other| one.team.cmp(&other.team));
    Ok(strangers)
}
