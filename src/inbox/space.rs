//! Admission: how much the inbox may hold, on disk and waiting in memory; and how much of it one team may.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::AppendError;
use crate::config::{InboxConfig, values};

/// What is free on the file system of a folder, in bytes.
pub(super) fn free_bytes(folder: &Path) -> io::Result<u64> {
    let status = rustix::fs::statvfs(folder)?;
    Ok(status.f_bavail.saturating_mul(status.f_frsize))
}

/// The bounds, and what is taken of them.
#[derive(Debug)]
pub(super) struct Space {
    max_bytes: u64,
    max_waiting_bytes: u64,
    max_waiting: usize,
    used: Mutex<Used>,
}

#[derive(Debug)]
struct Used {
    total: Use,
    teams: BTreeMap<u64, Use>,
    /// The number of the next team. None is given twice.
    next: u64,
}

/// What is taken, by all or by one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Use {
    /// On disk, or promised to be.
    pub(super) disk_bytes: u64,
    /// Of that, what waits to be written, in memory.
    pub(super) waiting_bytes: u64,
    /// How many records that are.
    pub(super) waiting: usize,
}

impl Space {
    pub(super) fn new(config: &InboxConfig) -> Self {
        Self {
            max_bytes: config.max_bytes,
            max_waiting_bytes: config.max_waiting_bytes,
            max_waiting: config.max_waiting,
            used: Mutex::new(Used { total: Use::default(), teams: BTreeMap::new(), next: 0 }),
        }
    }

    /// Counts one more team; gives its number.
    pub(super) fn join(&self) -> u64 {
        let mut used = self.used();
        let team = used.next;
        used.next += 1;
        used.teams.insert(team, Use::default());
        team
    }

    /// Counts a team no more, nor what it takes: what it leaves on disk is nobody's until it comes back.
    pub(super) fn leave(&self, team: u64) {
        let mut used = self.used();
        let own = used.own(team);
        used.change(team, |taken| {
            taken.disk_bytes -= own.disk_bytes;
            taken.waiting_bytes -= own.waiting_bytes;
            taken.waiting -= own.waiting;
        });
        used.teams.remove(&team);
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        // Sums are changed in one go, so that a panic elsewhere leaves them right.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What all teams take, and what one does.
    pub(super) fn usage(&self, team: u64) -> (Use, Use) {
        let used = self.used();
        (used.total, used.own(team))
    }

    /// What all teams take.
    pub(super) fn total(&self) -> Use {
        self.used().total
    }

    /// What one team may take on disk, in bytes: half, unless it is alone.
    pub(super) fn team_max_bytes(&self) -> u64 {
        if self.used().teams.len() > 1 { self.max_bytes / 2 } else { self.max_bytes }
    }

    /// Takes room for a record of at most `bytes`.
    pub(super) fn admit(self: &Arc<Self>, team: u64, bytes: u64) -> Result<Admission, AppendError> {
        let team_max_bytes = self.team_max_bytes();
        let mut used = self.used();
        let (total, own) = (used.total, used.own(team));
        let share = if used.teams.len() > 1 { 2 } else { 1 };
        for (disk_bytes, limit, whose) in
            [(total.disk_bytes, self.max_bytes, "may take"), (own.disk_bytes, team_max_bytes, "may take for one team")]
        {
            if disk_bytes.saturating_add(bytes) > limit {
                let limit = values::format_size(limit);
                return Err(AppendError::Full(format!(
                    "the inbox is full: it has reached the {limit} that it {whose} (inbox.max_size)"
                )));
            }
        }
        let (most_bytes, most) = (self.max_waiting_bytes, self.max_waiting);
        for (taken, most_bytes, most) in
            [(total, most_bytes, most), (own, most_bytes / share, most.div_ceil(usize::try_from(share).unwrap_or(1)))]
        {
            // The last one may reach beyond, or a large one would never be let in among many small ones.
            if taken.waiting >= most || taken.waiting_bytes >= most_bytes {
                return Err(AppendError::Overloaded);
            }
        }
        used.change(team, |taken| {
            taken.disk_bytes += bytes;
            taken.waiting_bytes += bytes;
            taken.waiting += 1;
        });
        Ok(Admission { space: Arc::clone(self), team, bytes, stored: false })
    }

    /// Counts what is on disk already.
    pub(super) fn occupy(&self, team: u64, bytes: u64) {
        self.used().change(team, |taken| taken.disk_bytes += bytes);
    }

    /// Gives back what was removed from the disk.
    pub(super) fn release(&self, team: u64, bytes: u64) {
        self.used().change(team, |taken| taken.disk_bytes = taken.disk_bytes.saturating_sub(bytes));
    }
}

impl Used {
    fn own(&self, team: u64) -> Use {
        self.teams.get(&team).copied().unwrap_or_default()
    }

    /// Changes both sums; neither for a team that is not counted any more.
    fn change(&mut self, team: u64, change: impl Fn(&mut Use)) {
        if let Some(own) = self.teams.get_mut(&team) {
            change(own);
            change(&mut self.total);
        }
    }
}

/// The room that one record takes while it waits. Dropped, it gives back all, or all but the disk space of what was
/// stored.
#[derive(Debug)]
pub(super) struct Admission {
    space: Arc<Space>,
    team: u64,
    bytes: u64,
    stored: bool,
}

impl Admission {
    /// Gives back what a record of `bytes` does not need.
    pub(super) fn shrink(&mut self, bytes: u64) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        self.space.used().change(self.team, |taken| {
            taken.disk_bytes -= surplus;
            taken.waiting_bytes -= surplus;
        });
    }

    /// The record is on the disk, and stays there.
    pub(super) fn stored(mut self) {
        self.stored = true;
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let (bytes, stored) = (self.bytes, self.stored);
        self.space.used().change(self.team, |taken| {
            taken.waiting_bytes -= bytes;
            taken.waiting -= 1;
            taken.disk_bytes -= if stored { 0 } else { bytes };
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(teams: u64) -> Arc<Space> {
        let config = InboxConfig { max_bytes: 1000, max_waiting_bytes: 100, max_waiting: 4, ..InboxConfig::default() };
        let space = Arc::new(Space::new(&config));
        (0..teams).for_each(|team| assert_eq!(space.join(), team));
        space
    }

    #[test]
    fn a_team_that_leaves_gives_its_room_to_the_others() {
        let space = space(2);
        space.occupy(0, 300);
        let held = space.admit(0, 50).unwrap();
        space.occupy(1, 400);
        space.leave(0);
        assert_eq!((space.total().disk_bytes, space.total().waiting, space.team_max_bytes()), (400, 0, 1000));
        // What was promised to it changes no sum any more.
        drop(held);
        space.release(0, 300);
        assert_eq!(space.total().disk_bytes, 400);
        assert_eq!(space.join(), 2);
        assert_eq!(space.team_max_bytes(), 500);
    }

    #[test]
    fn one_record_may_reach_beyond_what_may_wait_if_the_disk_has_room() {
        let space = space(1);
        let small = space.admit(0, 90).unwrap();
        let large = space.admit(0, 800).unwrap();
        assert_eq!(space.admit(0, 1).unwrap_err(), AppendError::Overloaded);
        assert!(matches!(space.admit(0, 111), Err(AppendError::Full(_))));
        drop((small, large));
        assert_eq!(space.total().disk_bytes, 0);
        assert!(matches!(space.admit(0, 1001), Err(AppendError::Full(_))));
    }

    #[test]
    fn what_was_stored_keeps_its_place_on_the_disk_until_it_is_released() {
        let space = space(1);
        let mut admission = space.admit(0, 90).unwrap();
        admission.shrink(60);
        admission.stored();
        let used = space.total();
        assert_eq!((used.disk_bytes, used.waiting_bytes, used.waiting), (60, 0, 0));
        space.release(0, 60);
        assert_eq!(space.total().disk_bytes, 0);
    }

    #[test]
    fn no_team_takes_more_than_half_where_there_are_several() {
        let space = space(2);
        space.occupy(0, 480);
        let error = space.admit(0, 21).unwrap_err().to_string();
        assert!(error.contains("500 B that it may take for one team (inbox.max_size)"), "{error}");
        let held: Vec<_> = (0..2).map(|_| space.admit(0, 1).unwrap()).collect();
        assert_eq!(space.admit(0, 1).unwrap_err(), AppendError::Overloaded);
        assert!(space.admit(1, 500).is_ok());
        drop(held);
        assert!(space.admit(0, 20).is_ok());
    }
}
