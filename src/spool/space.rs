//! Admission: how much may be spooled at once, on disk and in memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::{SpoolError, SpoolMemory};
use crate::config::SpoolConfig;

/// Disk space is handed out in pieces of this many bytes.
const DISK_UNIT: u64 = 4 << 10;
/// Memory is handed out in pieces of this many bytes.
const MEMORY_UNIT: u64 = 1 << 10;
/// What is reserved for a download of unknown size, and the least by which a reservation grows, in bytes.
const STEP: u64 = 1 << 20;

/// The bounds, and what is taken of them.
#[derive(Debug)]
pub(super) struct Space {
    folder: PathBuf,
    min_free_bytes: u64,
    disk: Arc<Semaphore>,
    disk_units: u32,
    memory: Arc<Semaphore>,
    /// Up to so many bytes a download of known size waits for memory, rather than go to the disk.
    memory_waits_bytes: u64,
    /// Bytes that were reserved and are not on the disk yet.
    promised: AtomicU64,
}

/// The units that hold `bytes`.
fn units(bytes: u64, unit: u64) -> u32 {
    u32::try_from(bytes.div_ceil(unit)).unwrap_or(u32::MAX)
}

impl Space {
    pub(super) fn new(folder: PathBuf, config: &SpoolConfig, memory: SpoolMemory) -> Self {
        let disk_units = units(config.max_bytes.max(STEP), DISK_UNIT);
        let memory_units = units(memory.max_bytes, MEMORY_UNIT);
        Self {
            folder,
            min_free_bytes: config.min_free_bytes,
            disk: Arc::new(Semaphore::new(disk_units as usize)),
            disk_units,
            memory: Arc::new(Semaphore::new(memory_units as usize)),
            memory_waits_bytes: if memory.waits { memory.threshold_bytes.min(memory.max_bytes) } else { 0 },
            promised: AtomicU64::new(0),
        }
    }

    /// What was reserved and is not on the disk yet, in bytes.
    #[cfg(test)]
    pub(super) fn promised_bytes(&self) -> u64 {
        self.promised.load(Ordering::Relaxed)
    }

    /// What downloads have taken of the disk's share, in bytes.
    pub(super) fn taken_bytes(&self) -> u64 {
        (self.disk_units as usize).saturating_sub(self.disk.available_permits()) as u64 * DISK_UNIT
    }

    /// Refuses when less than the promised bytes and the free space to be left are there.
    pub(super) fn check_free(&self) -> Result<(), SpoolError> {
        let status = rustix::fs::statvfs(&self.folder)
            .map_err(|error| SpoolError::io("ask for the free space of", &self.folder, &error.into()))?;
        let free_bytes = status.f_bavail.saturating_mul(status.f_frsize);
        let needed_bytes = self.min_free_bytes.saturating_add(self.promised.load(Ordering::Relaxed));
        if free_bytes < needed_bytes {
            return Err(SpoolError::DiskFull { folder: self.folder.clone(), free_bytes, needed_bytes });
        }
        Ok(())
    }

    /// Waits until `declared` bytes (1 MiB where unknown) fit. One that is larger than everything waits until it is
    /// alone.
    pub(super) async fn reserve(self: &Arc<Self>, declared: Option<u64>) -> Result<Reservation, SpoolError> {
        let wanted = units(declared.unwrap_or(STEP).max(1), DISK_UNIT).min(self.disk_units);
        let permit =
            Arc::clone(&self.disk).acquire_many_owned(wanted).await.map_err(|_| SpoolError::Full { size_bytes: 0 })?;
        let memory = match declared {
            // Whoever holds memory waits for nothing but to be stored.
            Some(bytes) if bytes > 0 && bytes <= self.memory_waits_bytes => {
                Arc::clone(&self.memory).acquire_many_owned(units(bytes, MEMORY_UNIT)).await.ok()
            }
            _ => None,
        };
        let mut reservation = Reservation { space: Arc::clone(self), permit, unwritten: 0, memory };
        reservation.promise(u64::from(wanted) * DISK_UNIT);
        self.check_free()?;
        Ok(reservation)
    }

    /// Takes memory for `bytes` if there is some at once.
    pub(super) fn try_memory(self: &Arc<Self>, bytes: u64) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.memory).try_acquire_many_owned(units(bytes, MEMORY_UNIT)).ok()
    }
}

/// The bytes that a memory permit stands for.
pub(super) fn memory_bytes(permit: &OwnedSemaphorePermit) -> u64 {
    permit.num_permits() as u64 * MEMORY_UNIT
}

/// Gives back the memory that `bytes` do not need.
pub(super) fn shrink_memory(permit: &mut OwnedSemaphorePermit, bytes: u64) {
    let surplus = permit.num_permits().saturating_sub(units(bytes, MEMORY_UNIT) as usize);
    drop(permit.split(surplus));
}

/// A place in the spool for one download. Given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    space: Arc<Space>,
    permit: OwnedSemaphorePermit,
    unwritten: u64,
    /// Memory that was waited for.
    memory: Option<OwnedSemaphorePermit>,
}

impl Reservation {
    fn promise(&mut self, bytes: u64) {
        self.unwritten += bytes;
        self.space.promised.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Memory for `bytes`: what was waited for, or what is there at once.
    pub(super) fn take_memory(&mut self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        match self.memory.take() {
            Some(held) if memory_bytes(&held) >= bytes => Some(held),
            _ => self.space.try_memory(bytes),
        }
    }

    fn keep_promise(&mut self, bytes: u64) {
        let kept = bytes.min(self.unwritten);
        self.unwritten -= kept;
        self.space.promised.fetch_sub(kept, Ordering::Relaxed);
    }

    /// The bytes that it stands for.
    fn reserved_bytes(&self) -> u64 {
        self.permit.num_permits() as u64 * DISK_UNIT
    }

    /// Makes sure of room for `size_bytes` in all. Never waits: two that wait for each other would stand still.
    pub(super) fn cover(&mut self, size_bytes: u64) -> Result<(), SpoolError> {
        let missing = size_bytes.saturating_sub(self.reserved_bytes());
        if missing == 0 || self.permit.num_permits() >= self.space.disk_units as usize {
            return Ok(());
        }
        let room = self.space.disk_units - u32::try_from(self.permit.num_permits()).unwrap_or(u32::MAX);
        // Room for some more, or for just this, or for all there is.
        for wanted in [missing.max(STEP), missing] {
            let wanted = units(wanted, DISK_UNIT).min(room);
            match Arc::clone(&self.space.disk).try_acquire_many_owned(wanted) {
                Ok(more) => {
                    self.permit.merge(more);
                    self.promise(u64::from(wanted) * DISK_UNIT);
                    return self.space.check_free();
                }
                Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {}
            }
        }
        Err(SpoolError::Full { size_bytes })
    }

    /// Notes that `bytes` more are on the disk.
    pub(super) fn written(&mut self, bytes: u64) {
        self.keep_promise(bytes);
    }

    /// Gives back what `size_bytes` do not need.
    pub(super) fn settle(&mut self, size_bytes: u64, on_disk: bool) {
        let surplus = self.permit.num_permits().saturating_sub(units(size_bytes.max(1), DISK_UNIT) as usize);
        drop(self.permit.split(surplus));
        let left = if on_disk { 0 } else { size_bytes };
        self.keep_promise(self.unwritten.saturating_sub(left));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.keep_promise(self.unwritten);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(config: &SpoolConfig) -> Arc<Space> {
        Arc::new(Space::new(std::env::temp_dir(), config, SpoolMemory::of(config)))
    }

    fn small() -> SpoolConfig {
        SpoolConfig { max_bytes: 4 << 20, min_free_bytes: 0, ..SpoolConfig::default() }
    }

    #[tokio::test]
    async fn a_file_larger_than_everything_passes_alone_and_holds_everything() {
        let space = space(&small());
        let mut huge = space.reserve(Some(1 << 40)).await.unwrap();
        assert_eq!(space.disk.available_permits(), 0);
        huge.cover(1 << 41).unwrap();
        drop(huge);
        assert_eq!(space.disk.available_permits(), 1024);
        assert_eq!(space.promised_bytes(), 0);
    }

    #[tokio::test]
    async fn a_reservation_grows_while_there_is_room_and_fails_without_waiting_when_there_is_none() {
        let space = space(&small());
        let mut growing = space.reserve(None).await.unwrap();
        let other = space.reserve(Some(1 << 20)).await.unwrap();
        growing.cover(3 << 20).unwrap();
        assert!(matches!(growing.cover((3 << 20) + 1), Err(SpoolError::Full { .. })));
        drop(other);
        growing.cover(5 << 20).unwrap();
    }

    #[tokio::test]
    async fn settling_gives_back_the_surplus() {
        let space = space(&small());
        let mut reservation = space.reserve(Some(2 << 20)).await.unwrap();
        reservation.settle(5_000, false);
        assert_eq!(space.disk.available_permits(), 1022);
        assert_eq!(space.promised_bytes(), 5_000);
        drop(reservation);
        assert_eq!(space.disk.available_permits(), 1024);
        assert_eq!(space.promised_bytes(), 0);
    }

    #[tokio::test]
    async fn too_little_free_space_is_refused_with_the_figures() {
        let space = space(&SpoolConfig { min_free_bytes: 1 << 60, ..small() });
        let error = space.reserve(Some(1)).await.unwrap_err();
        assert!(matches!(error, SpoolError::DiskFull { .. }), "{error}");
        assert_eq!(space.disk.available_permits(), 1024);
        assert_eq!(space.promised_bytes(), 0);
    }
}
