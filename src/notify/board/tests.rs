//! Tests of what is told when.

use proptest::prelude::*;

use super::*;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const TIMING: Timing = Timing { delay: Duration::from_mins(1), repeat_every: Duration::from_hours(6) };

fn paused() -> Condition {
    Condition::new(Kind::TeamPaused, "support")
}

fn failed() -> Condition {
    Condition::new(Kind::Failed, "support")
}

/// The statuses, with counts, of what is due.
fn due(board: &mut Board, now_ms: i64) -> Vec<(Status, u64)> {
    board.due(TIMING, now_ms).into_iter().map(|message| (message.status, message.count)).collect()
}

#[test]
fn trouble_is_told_once_then_again_while_it_lasts_then_its_end() {
    let mut board = Board::default();
    for now in 0..5 {
        board.raise(paused(), "the token is refused", now);
        assert_eq!(due(&mut board, now), []);
    }
    assert_eq!(board.next_due_ms(TIMING), Some(MINUTE));
    assert_eq!(due(&mut board, MINUTE), [(Status::Trouble, 1)]);
    assert_eq!(board.troubles(), [paused()]);
    for now in [MINUTE + 1, HOUR, 6 * HOUR] {
        board.raise(paused(), "the token is refused", now);
        assert_eq!(due(&mut board, now), []);
    }
    assert_eq!(due(&mut board, 6 * HOUR + MINUTE), [(Status::Still, 1)]);
    assert!(board.clear(&paused(), 7 * HOUR));
    assert_eq!(board.troubles(), []);
    assert_eq!(due(&mut board, 7 * HOUR), []);
    let told = board.due(TIMING, 7 * HOUR + MINUTE);
    assert_eq!((told[0].status, told[0].since_ms, told.len()), (Status::Recovered, 0, 1));
    assert_eq!((due(&mut board, 99 * HOUR), board.next_due_ms(TIMING)), (vec![], None));
}

#[test]
fn what_comes_and_goes_within_the_delay_tells_nothing() {
    let mut board = Board::default();
    for now in (0..10 * MINUTE).step_by(30_000) {
        board.raise(paused(), "", now);
        assert_eq!(due(&mut board, now + 20_000), []);
        board.clear(&paused(), now + 20_000);
    }
    assert_eq!((due(&mut board, HOUR), board.next_due_ms(TIMING)), (vec![], None));
    // Once told, a short gap in it is no recovery, and what follows the gap is no news.
    board.raise(paused(), "", HOUR);
    assert_eq!(due(&mut board, HOUR + MINUTE), [(Status::Trouble, 1)]);
    for now in (HOUR + 2 * MINUTE..HOUR + 20 * MINUTE).step_by(60_000) {
        board.clear(&paused(), now);
        assert_eq!(due(&mut board, now + 30_000), []);
        board.raise(paused(), "", now + 30_000);
    }
    assert_eq!(due(&mut board, 2 * HOUR), []);
}

#[test]
fn what_happens_is_gathered_and_told_with_its_count() {
    let mut board = Board::default();
    for now in [0, 1, 50_000] {
        board.happened(failed(), 2, &format!("reason {now}"), now);
    }
    board.happened(failed(), 0, "nothing", 50_001);
    let told = board.due(TIMING, MINUTE);
    assert_eq!((told[0].status, told[0].count, told[0].detail.as_str()), (Status::Happened, 6, "reason 50000"));
    assert_eq!(told[0].title(), "6 attachments of team support failed for good");
    assert_eq!(board.troubles(), [], "what is over is no trouble");
    board.happened(failed(), 1, "", 2 * MINUTE);
    board.happened(failed(), 1, "", 5 * HOUR);
    assert_eq!(due(&mut board, 6 * HOUR), []);
    assert_eq!(due(&mut board, 6 * HOUR + MINUTE), [(Status::Happened, 2)]);
    // After a quiet time it is forgotten, and the next one is told soon again.
    assert_eq!((due(&mut board, 13 * HOUR), board.next_due_ms(TIMING)), (vec![], None));
    board.happened(failed(), 1, "", 20 * HOUR);
    assert_eq!(due(&mut board, 20 * HOUR + MINUTE), [(Status::Happened, 1)]);
}

#[test]
fn after_a_restart_nothing_is_told_twice_and_an_end_is_told_all_the_same() {
    let mut before = Board::default();
    before.raise(paused(), "", 0);
    before.raise(Condition::new(Kind::NotReady, "archive"), "", 0);
    before.happened(failed(), 1, "", 0);
    assert_eq!(before.take_changes(), None);
    assert_eq!(before.due(TIMING, MINUTE).len(), 3);
    let told = before.take_changes().unwrap();
    assert_eq!((told.len(), before.take_changes()), (3, None));

    let mut after = Board::default();
    after.restore(told, 10 * MINUTE);
    after.raise(paused(), "still refused", 11 * MINUTE);
    after.happened(failed(), 1, "", 11 * MINUTE);
    assert_eq!(due(&mut after, 24 * MINUTE), []);
    assert_eq!(after.troubles().len(), 2);
    // Nobody raised the archive again.
    let told = after.due(TIMING, 25 * MINUTE);
    assert_eq!((told.len(), told[0].status, told[0].condition.subject.as_str()), (1, Status::Recovered, "archive"));
    assert_eq!(due(&mut after, 6 * HOUR + MINUTE), [(Status::Still, 1), (Status::Happened, 1)]);
}

#[test]
fn the_troubles_of_a_kind_can_be_set_together() {
    let mut board = Board::default();
    let late = |name: &str| (name.to_owned(), String::new());
    board.set_all(Kind::Hanging, vec![late("worker"), late("inbox")], 0);
    board.raise(paused(), "", 0);
    assert_eq!(due(&mut board, MINUTE).len(), 3);
    board.set_all(Kind::Hanging, vec![late("inbox")], MINUTE);
    let told = board.due(TIMING, 2 * MINUTE);
    assert_eq!((told.len(), told[0].title().as_str()), (1, "the worker is alive again"));
}

#[test]
fn a_clock_that_is_set_back_keeps_nothing_waiting() {
    let mut board = Board::default();
    board.raise(paused(), "", 1000 * HOUR);
    assert_eq!(due(&mut board, 0), []);
    assert_eq!(due(&mut board, MINUTE), [(Status::Trouble, 1)]);
}

#[test]
fn the_board_and_its_details_are_bounded() {
    let mut board = Board::default();
    for number in 0..5_000 {
        board.raise(Condition::new(Kind::NotReady, number.to_string()), &"x\n".repeat(5_000), 0);
    }
    let told = board.due(TIMING, MINUTE);
    assert_eq!(told.len(), MAX_CONDITIONS);
    assert!(told.iter().all(|message| message.detail.chars().count() <= MAX_DETAIL && !message.detail.contains('\n')));
}

proptest! {
    #[test]
    fn messages_alternate_and_are_never_closer_than_the_delay(
        steps in proptest::collection::vec((0i64..200_000, any::<bool>()), 1..300)
    ) {
        let mut board = Board::default();
        let (mut now, mut told) = (0, Vec::new());
        for (step, in_trouble) in steps {
            now += step;
            if in_trouble { board.raise(paused(), "", now) } else { board.clear(&paused(), now); }
            told.extend(due(&mut board, now).into_iter().map(|(status, _)| (status, now)));
        }
        for pair in told.windows(2) {
            prop_assert!(pair[1].1 - pair[0].1 >= MINUTE || pair[0].0 == Status::Recovered);
            prop_assert_eq!(pair[0].0 == Status::Recovered, pair[1].0 == Status::Trouble);
        }
        prop_assert!(told.first().is_none_or(|(status, _)| *status == Status::Trouble));
    }
}
