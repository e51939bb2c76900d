//! Turns and slots without any work.

use super::*;

const A: TeamRow = TeamRow(1);
const B: TeamRow = TeamRow(2);
const C: TeamRow = TeamRow(3);

/// Turns in which so many of each lane of each team wait.
fn turns(slots: Slots, waiting: &[(TeamRow, Lane, usize)]) -> Turns<usize> {
    let mut teams: Vec<TeamRow> = waiting.iter().map(|(team, ..)| *team).collect();
    teams.sort_unstable();
    teams.dedup();
    let mut turns = Turns::new(&teams, slots);
    for (team, lane, count) in waiting {
        let place = turns.lines().iter().position(|line| line.team == *team && line.lane == *lane).unwrap();
        turns.line(place).queue.extend(0..*count);
    }
    turns
}

/// Starts what may be started: how many of each.
fn start_all(turns: &mut Turns<usize>) -> Vec<(TeamRow, Lane)> {
    std::iter::from_fn(|| turns.start()).map(|(team, lane, _)| (team, lane)).collect()
}

fn count(started: &[(TeamRow, Lane)], team: TeamRow, lane: Lane) -> usize {
    started.iter().filter(|one| **one == (team, lane)).count()
}

#[test]
fn live_work_goes_first_and_bulk_work_leaves_it_a_quarter_of_the_slots() {
    let mut turns = turns(Slots::new(8, 1, true), &[(A, Lane::Bulk, 100)]);
    assert_eq!(start_all(&mut turns).len(), 6);
    turns.line(0).queue.extend(0..100);
    assert_eq!(start_all(&mut turns), [(A, Lane::Live); 2]);
    // Whatever ends is followed by live work, until there is none.
    turns.ended(A, Lane::Bulk);
    turns.ended(A, Lane::Bulk);
    assert_eq!(start_all(&mut turns), [(A, Lane::Live); 2]);
    turns.line(0).queue.clear();
    for _ in 0..4 {
        turns.ended(A, Lane::Live);
    }
    assert_eq!(start_all(&mut turns), [(A, Lane::Bulk); 2]);
}

#[test]
fn where_nothing_is_kept_bulk_work_has_all_slots() {
    for (slots, started) in [(Slots::new(8, 1, false), 8), (Slots::new(1, 1, true), 1), (Slots::new(2, 1, true), 1)] {
        assert_eq!(start_all(&mut turns(slots, &[(A, Lane::Bulk, 100)])).len(), started, "{slots:?}");
    }
}

#[test]
fn teams_take_turns_however_much_one_of_them_has() {
    let mut turns = turns(Slots::new(8, 2, true), &[(A, Lane::Live, 1000), (B, Lane::Live, 2)]);
    let started = start_all(&mut turns);
    assert_eq!(started[..4], [(A, Lane::Live), (B, Lane::Live), (A, Lane::Live), (B, Lane::Live)]);
    assert_eq!(count(&started, A, Lane::Live), 6);
}

#[test]
fn teams_that_hang_leave_every_other_some_slots() {
    for total in [4, 8, 32] {
        let mut turns =
            turns(Slots::new(total, 3, true), &[(A, Lane::Live, 100), (B, Lane::Live, 0), (C, Lane::Live, 0)]);
        // Nothing of it ever ends.
        let quarter = total / 4;
        assert_eq!(start_all(&mut turns).len(), total - quarter);
        turns.line(1).queue.extend(0..100);
        let second = start_all(&mut turns);
        assert!(!second.is_empty(), "of {total}");
        turns.line(2).queue.extend(0..100);
        let third = start_all(&mut turns);
        // With four slots there is one for the two others.
        assert_eq!(third.is_empty(), quarter < 2, "of {total}");
        assert_eq!(second.len() + third.len(), quarter, "of {total}");
    }
}

#[test]
fn bulk_work_of_a_team_that_hangs_delays_neither_its_own_webhooks_nor_others() {
    let mut turns = turns(Slots::new(32, 2, true), &[(A, Lane::Bulk, 100), (B, Lane::Live, 0)]);
    assert_eq!(start_all(&mut turns).len(), 16);
    turns.line(0).queue.extend(0..100);
    assert_eq!(start_all(&mut turns), [(A, Lane::Live); 8]);
    turns.line(1).queue.extend(0..100);
    assert_eq!(start_all(&mut turns), [(B, Lane::Live); 8]);
}

#[test]
fn with_more_teams_than_slots_each_gets_its_turn() {
    let teams: Vec<TeamRow> = (1..=10).map(TeamRow).collect();
    let waiting: Vec<_> = teams.iter().map(|team| (*team, Lane::Live, 3)).collect();
    let mut turns = turns(Slots::new(4, 10, true), &waiting);
    let mut started = Vec::new();
    while turns.waiting() > 0 {
        let now = start_all(&mut turns);
        assert!(!now.is_empty());
        for (team, lane) in now {
            turns.ended(team, lane);
            started.push(team);
        }
    }
    assert_eq!(started[..10], teams[..]);
}

#[test]
fn what_came_into_the_live_lane_is_started_next() {
    let mut turns = turns(Slots::new(8, 1, true), &[(A, Lane::Bulk, 3), (A, Lane::Live, 1)]);
    turns.promote(A, vec![7, 8]);
    assert_eq!(turns.start(), Some((A, Lane::Live, 7)));
    assert_eq!(turns.start(), Some((A, Lane::Live, 8)));
    assert_eq!(turns.start(), Some((A, Lane::Live, 0)));
}
