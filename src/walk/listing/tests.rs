use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// How a scripted feed tells where its pages begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cursors {
    /// By the last entry that was shown.
    Keys,
    /// By how many were shown.
    Positions,
}

/// What happens between two requests. Numbers choose an entry.
#[derive(Debug, Clone)]
enum Event {
    /// Mail in a conversation that is there: it jumps to the top. `false`: at the same moment as the event before.
    Mail(usize, bool),
    /// A new conversation.
    New(bool),
    /// A conversation vanishes.
    Vanish(usize),
}

struct Feed {
    cursors: Cursors,
    page: usize,
    now_ms: i64,
    /// Newest first: when it last changed, its id, its version.
    entries: Vec<(i64, u32, u32)>,
    next_id: u32,
}

impl Feed {
    fn new(cursors: Cursors, page: usize, size: usize) -> Self {
        let mut feed = Self { cursors, page, now_ms: 1_000, entries: Vec::new(), next_id: 0 };
        for number in 0..size {
            feed.happen(&Event::New(number % 3 > 0));
        }
        feed
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::New(later) => {
                self.now_ms += i64::from(*later);
                self.insert(self.next_id, 0);
                self.next_id += 1;
            }
            Event::Mail(number, later) if !self.entries.is_empty() => {
                let (_, id, version) = self.entries.remove(number % self.entries.len());
                self.now_ms += i64::from(*later);
                self.insert(id, version + 1);
            }
            Event::Vanish(number) if !self.entries.is_empty() => {
                self.entries.remove(number % self.entries.len());
            }
            Event::Mail(..) | Event::Vanish(_) => {}
        }
    }

    fn insert(&mut self, id: u32, version: u32) {
        let place = self.entries.partition_point(|(at, other, _)| (*at, *other) > (self.now_ms, id));
        self.entries.insert(place, (self.now_ms, id, version));
    }

    /// A page, and the cursor of the next.
    fn page(&self, cursor: Option<&str>) -> (Vec<(i64, u32, u32)>, Option<String>) {
        let numbers: Vec<i64> = cursor.map_or(Vec::new(), |text| text.split(' ').map(|n| n.parse().unwrap()).collect());
        let start = match (self.cursors, &*numbers) {
            (_, []) => 0,
            (Cursors::Keys, [at, id]) => self.entries.partition_point(|(a, i, _)| (*a, i64::from(*i)) >= (*at, *id)),
            (_, rest) => usize::try_from(rest[0]).unwrap(),
        };
        let start = start.min(self.entries.len());
        let page = &self.entries[start..(start + self.page).min(self.entries.len())];
        let end = start + page.len();
        let next = (end < self.entries.len()).then(|| match self.cursors {
            Cursors::Keys => format!("{} {}", page[page.len() - 1].0, page[page.len() - 1].1),
            Cursors::Positions => end.to_string(),
        });
        (page.to_vec(), next)
    }
}

/// What a walk knows of entries: the version and the pass in which it was last met.
type Known = HashMap<u32, (u32, u64)>;

fn meet(known: &mut Known, (at, id, version): (i64, u32, u32), pass: u64) -> (Option<i64>, Met) {
    let met = match known.insert(id, (version, pass)) {
        None => Met::New,
        Some((before, _)) if before != version => Met::Changed,
        Some((_, before)) if before == pass => Met::Repeated,
        Some(_) => Met::Same,
    };
    (Some(at), met)
}

/// Walks to the end; gives what is known, what the feed was like at the last look at it, and the requests.
fn walk(feed: &mut Feed, listing: &mut Listing, events: &[Vec<Event>]) -> (Known, Vec<(i64, u32, u32)>, usize) {
    let (mut known, mut last, mut requests) = (Known::new(), feed.entries.clone(), 0);
    let mut events = events.iter();
    while let Some((status, cursor)) = listing.next() {
        let (page, next) = if status.is_some() {
            (Vec::new(), None)
        } else {
            last.clone_from(&feed.entries);
            feed.page(cursor)
        };
        let served_ms = feed.now_ms;
        feed.now_ms += SETTLED_MS;
        let entries: Vec<_> = page.into_iter().map(|entry| meet(&mut known, entry, listing.number)).collect();
        let shown = Shown { entries: &entries, next_cursor: next.as_deref(), served_ms };
        listing.shown(&shown).unwrap();
        requests += 1;
        assert!(requests < 20_000, "it does not end");
        for event in events.next().into_iter().flatten() {
            let may_vanish = feed.cursors == Cursors::Keys || listing.passes == 0;
            if may_vanish || !matches!(event, Event::Vanish(_)) {
                feed.happen(event);
            }
        }
    }
    (known, last, requests)
}

fn unknown(known: &Known, feed: &[(i64, u32, u32)]) -> Vec<u32> {
    let is_known = |(_, id, version): &(i64, u32, u32)| known.get(id).is_some_and(|(known, _)| known == version);
    feed.iter().filter(|entry| !is_known(entry)).map(|(_, id, _)| *id).collect()
}

fn events() -> impl Strategy<Value = Vec<Vec<Event>>> {
    let event = prop_oneof![
        4 => (any::<usize>(), any::<bool>()).prop_map(|(number, later)| Event::Mail(number, later)),
        2 => any::<bool>().prop_map(Event::New),
        2 => any::<usize>().prop_map(Event::Vanish),
    ];
    prop::collection::vec(prop::collection::vec(event, 0..4), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn however_the_feed_moves_nothing_is_missed_that_was_there_at_the_last_look(
        positions in any::<bool>(), page in 1_usize..6, size in 0_usize..40, events in events(),
    ) {
        let cursors = if positions { Cursors::Positions } else { Cursors::Keys };
        let mut feed = Feed::new(cursors, page, size);
        // With positions, what vanishes moves the rest up: only another pass finds what was passed over.
        let mut listing = Listing::to_rest(None, None, positions);
        let (known, last, _) = walk(&mut feed, &mut listing, &events);
        prop_assert!(!listing.is_unsettled);
        prop_assert_eq!(unknown(&known, &last), Vec::<u32>::new());
    }

    #[test]
    fn what_changed_since_a_sweep_began_is_found_by_it_or_by_the_next(
        page in 1_usize..6, size in 1_usize..40, before in events(), during in events(),
    ) {
        let mut feed = Feed::new(Cursors::Keys, page, size);
        let (mut known, _, _) = walk(&mut feed, &mut Listing::to_rest(None, None, false), &[]);
        let mut floor = feed.entries[0].0;
        before.iter().flatten().for_each(|event| feed.happen(event));
        for events in [&during[..], &[]] {
            let mut listing = Listing::down_to(Some(floor), &[]);
            let (met, _, _) = walk(&mut feed, &mut listing, events);
            known.extend(met);
            floor = listing.began_ms.unwrap_or(floor).max(floor);
        }
        prop_assert_eq!(unknown(&known, &feed.entries), Vec::<u32>::new());
    }
}

#[test]
fn a_still_feed_costs_one_request_a_page_and_one_to_see_that_it_is_still() {
    let mut feed = Feed::new(Cursors::Keys, 100, 10_000);
    let (known, last, requests) = walk(&mut feed, &mut Listing::to_rest(None, None, false), &[]);
    assert_eq!((unknown(&known, &last), requests), (vec![], 100 + 1 + STATUSES.len()));
}

#[test]
fn a_sweep_of_a_still_feed_costs_one_request() {
    let mut feed = Feed::new(Cursors::Positions, 100, 10_000);
    let floor = feed.entries[0].0;
    let (_, _, requests) = walk(&mut feed, &mut Listing::down_to(Some(floor), &[]), &[]);
    assert_eq!(requests, 1);
}

#[test]
fn entries_that_come_twice_bring_another_pass() {
    let mut feed = Feed::new(Cursors::Positions, 10, 100);
    // A new conversation pushes one down to the second page; then one vanishes, so that another is passed over.
    let events = [vec![Event::New(true)], vec![Event::Vanish(0), Event::Vanish(0)]];
    let mut listing = Listing::to_rest(None, None, false);
    let (known, last, _) = walk(&mut feed, &mut listing, &events);
    assert_eq!(unknown(&known, &last), Vec::<u32>::new());
    // The second pass found it, so there was a third, which found nothing.
    assert_eq!(listing.number, 1 + 3 * 2 + STATUSES.len() as u64 - 1 + 1);
}

/// A listing, given pages by hand: entries as (time, how met).
fn show(listing: &mut Listing, entries: &[(i64, Met)], next: Option<&str>) -> Result<(), Stuck> {
    let entries: Vec<_> = entries.iter().map(|(at, met)| (Some(*at), *met)).collect();
    listing.shown(&Shown { entries: &entries, next_cursor: next, served_ms: 1_000 })
}

#[test]
fn a_circle_is_walked_from_the_top_again_and_then_told() {
    let mut listing = Listing::to_rest(None, None, false);
    let page = [(9, Met::New), (8, Met::New)];
    for time in 1..=MAX_RESTARTS {
        show(&mut listing, &page, Some("a")).unwrap();
        assert_eq!(listing.next(), Some((None, Some("a"))));
        let again = show(&mut listing, &page, Some("a"));
        assert_eq!(again.is_err(), time == MAX_RESTARTS);
        assert!(again.is_err() || listing.next() == Some((None, None)));
    }
}

#[test]
fn pages_that_never_end_with_cursors_that_are_always_new_are_a_circle_too() {
    let mut listing = Listing::to_rest(None, None, false);
    let stuck = (0..1_000).find_map(|number| {
        let met = if number == 0 { Met::New } else { Met::Repeated };
        show(&mut listing, &[(9, met)], Some(&number.to_string())).err()
    });
    assert_eq!(stuck, Some(Stuck::Circle));
}

#[test]
fn a_refused_cursor_begins_at_the_top_and_an_unknown_status_is_passed_over() {
    let mut listing = Listing::to_rest(None, None, false);
    assert_eq!(listing.refused("no"), Ok(false));
    show(&mut listing, &[(9, Met::New)], Some("a")).unwrap();
    assert_eq!(listing.refused("old cursor"), Ok(true));
    assert_eq!(listing.next(), Some((None, None)));
    show(&mut listing, &[(9, Met::Same)], None).unwrap();
    show(&mut listing, &[(9, Met::Same)], None).unwrap();
    assert_eq!(listing.next(), Some((Some("open"), None)));
    assert_eq!(listing.refused("unknown status"), Ok(true));
    assert_eq!(listing.next(), Some((Some("archived"), None)));
}

#[test]
fn a_status_that_the_feed_does_not_show_is_walked_and_what_came_meanwhile_is_no_sign_of_it() {
    let mut listing = Listing::to_rest(None, None, false);
    show(&mut listing, &[(9, Met::New)], None).unwrap();
    show(&mut listing, &[(9, Met::Same)], None).unwrap();
    // It came after the last round.
    show(&mut listing, &[(10, Met::New)], Some("b")).unwrap();
    assert_eq!(listing.next(), Some((Some("archived"), None)));
    show(&mut listing, &[(8, Met::New)], Some("b")).unwrap();
    assert_eq!(listing.next(), Some((Some("archived"), Some("b"))));
    show(&mut listing, &[(7, Met::New)], None).unwrap();
    show(&mut listing, &[(8, Met::Same), (7, Met::Same)], None).unwrap();
    assert_eq!((listing.next(), &*listing.apart), (Some((Some("snoozed"), None)), &["archived".to_owned()][..]));
}

#[test]
fn times_of_the_future_hide_nothing() {
    let mut listing = Listing::to_rest(None, None, false);
    show(&mut listing, &[(1_000_000, Met::New), (990, Met::New)], None).unwrap();
    // The round ends where the service's clock was, not in that future.
    show(&mut listing, &[(1_000_000, Met::Same), (1_001, Met::New), (1_000, Met::New)], Some("a")).unwrap();
    assert_eq!(listing.next(), Some((None, Some("a"))));
}

#[test]
fn a_listing_that_was_kept_goes_on_where_it_was() {
    let mut listing = Listing::to_rest(Some("open"), Some(3), true);
    show(&mut listing, &[(9, Met::New)], Some("a")).unwrap();
    let kept = serde_json::to_string(&listing).unwrap();
    let again: Listing = serde_json::from_str(&kept).unwrap();
    assert_eq!(again.next(), Some((Some("open"), Some("a"))));
    assert_eq!(serde_json::to_string(&again).unwrap(), kept);
}
