//! Which work goes first.

/// Whether somebody waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// What came by webhook just now: it goes first, and part of the quota is kept for it.
    Live,
    /// Whatever comes in large numbers: replays, copies that are taken in again, listings.
    Bulk,
}

impl Lane {
    /// Both, the first first.
    pub const ALL: [Self; 2] = [Self::Live, Self::Bulk];
}
