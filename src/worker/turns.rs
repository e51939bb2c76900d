//! Whose turn it is: what waits to be started, in one queue for each lane of each team, and which slots stay free for
//! others. It knows neither leases nor time.

use std::collections::VecDeque;

use crate::catalog::TeamRow;
use crate::model::Lane;

/// The slots in which work runs, and those of them that are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slots {
    /// All of them.
    pub(super) total: usize,
    /// So many stay free of bulk work.
    pub(super) for_live: usize,
    /// So many stay free of any one team's work, as long as others have less than `for_each_team` at work.
    pub(super) for_others: usize,
    /// So many every team can have, as far as there are some.
    pub(super) for_each_team: usize,
}

impl Slots {
    /// A quarter, at least one, is kept: for live work, where that is wanted, and once more for other teams, where there
    /// are some. A lone slot is everybody's.
    pub(super) fn new(total: usize, teams: usize, keep_for_live: bool) -> Self {
        let quarter = if total > 1 { (total / 4).max(1) } else { 0 };
        let for_others = if teams > 1 { quarter } else { 0 };
        Self {
            total,
            for_live: if keep_for_live { quarter } else { 0 },
            for_others,
            for_each_team: if teams > 1 { (for_others / (teams - 1)).max(1) } else { 0 },
        }
    }
}

/// One lane of one team.
#[derive(Debug)]
pub(super) struct Line<T> {
    pub(super) team: TeamRow,
    pub(super) lane: Lane,
    pub(super) queue: VecDeque<T>,
    /// Whether there may be something to claim; `false` once all that was due was claimed, until something changes.
    pub(super) ask: bool,
    running: usize,
}

/// What waits, and how much runs.
#[derive(Debug)]
pub(super) struct Turns<T> {
    slots: Slots,
    /// The live ones of all teams, then the bulk ones, both in the order of the teams.
    lines: Vec<Line<T>>,
    teams: usize,
    /// The team whose turn it is next, in each lane.
    next: [usize; 2],
}

impl<T> Turns<T> {
    /// Nothing waits, and all lines ask.
    pub(super) fn new(teams: &[TeamRow], slots: Slots) -> Self {
        let line = |lane, team: &TeamRow| Line { team: *team, lane, queue: VecDeque::new(), ask: true, running: 0 };
        let lines = Lane::ALL.into_iter().flat_map(|lane| teams.iter().map(move |team| line(lane, team))).collect();
        Self { slots, lines, teams: teams.len(), next: [0; 2] }
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.lines.iter().map(|line| line.queue.len()).sum()
    }

    /// All that wait.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.lines.iter().flat_map(|line| &line.queue)
    }

    /// All lines, the live ones first.
    pub(super) fn lines(&self) -> &[Line<T>] {
        &self.lines
    }

    /// A line by its place in [`Turns::lines`].
    pub(super) fn line(&mut self, place: usize) -> &mut Line<T> {
        &mut self.lines[place]
    }

    /// The places of all lines in the order in which they get leases: live ones first, and of each lane first the team
    /// whose turn it is.
    pub(super) fn places(&self) -> Vec<usize> {
        (0..Lane::ALL.len())
            .flat_map(|lane| (0..self.teams).map(move |turn| (lane, turn)))
            .map(|(lane, turn)| lane * self.teams + (self.next[lane] + turn) % self.teams)
            .collect()
    }

    /// Something changed: all lines ask again.
    pub(super) fn ask_all(&mut self) {
        for line in &mut self.lines {
            line.ask = true;
        }
    }

    /// Puts what came into the live lane since to the front of its team's.
    pub(super) fn promote(&mut self, team: TeamRow, promoted: Vec<T>) {
        if let Some(line) = self.lines.iter_mut().find(|line| line.team == team && line.lane == Lane::Live) {
            for one in promoted.into_iter().rev() {
                line.queue.push_front(one);
            }
        }
    }

    /// What is to be started now: live work before bulk work, and one team after the other. It counts as running until
    /// [`Turns::ended`].
    pub(super) fn start(&mut self) -> Option<(TeamRow, Lane, T)> {
        let place = self.places().into_iter().find(|place| self.may_start(*place))?;
        let line = &mut self.lines[place];
        let one = line.queue.pop_front()?;
        line.running += 1;
        let (team, lane) = (line.team, line.lane);
        self.next[place / self.teams] = (place % self.teams + 1) % self.teams;
        Some((team, lane, one))
    }

    fn may_start(&self, place: usize) -> bool {
        let Line { lane, queue, .. } = &self.lines[place];
        let Slots { total, for_live, for_others, for_each_team } = self.slots;
        let free = total.saturating_sub(self.lines.iter().map(|line| line.running).sum());
        if queue.is_empty() || free == 0 {
            return false;
        }
        let own = place % self.teams;
        let running = |team: usize| self.lines[team].running + self.lines[self.teams + team].running;
        let kept_for_others = if running(own) < for_each_team {
            0
        } else {
            let missing = |team| for_each_team.saturating_sub(running(team));
            (0..self.teams).filter(|team| *team != own).map(missing).sum::<usize>().min(for_others)
        };
        let kept_for_live = if *lane == Lane::Bulk { for_live } else { 0 };
        free > kept_for_others + kept_for_live
    }

    /// Counts one as no longer running.
    pub(super) fn ended(&mut self, team: TeamRow, lane: Lane) {
        if let Some(line) = self.lines.iter_mut().find(|line| line.team == team && line.lane == lane) {
            line.running = line.running.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests;
