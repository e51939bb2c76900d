//! Whether the journal's chains are whole: every segment names the one before it by digest, and every writer's record
//! says how far its chains reach.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::digest::Digest;
use crate::model::{Stream, WriterId};
use crate::store::ChainEnd;

/// One segment's place in its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) key: String,
    pub(super) writer: WriterId,
    pub(super) seq: u64,
    pub(super) previous: Option<Digest>,
    pub(super) sha256: Digest,
}

/// What is wrong with a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ChainFault {
    /// Segments are gone: places `from` up to, not including, `to`.
    Missing { writer: WriterId, from: u64, to: u64 },
    /// Two segments claim one place.
    Fork { keys: [String; 2], seq: u64 },
    /// The segment `key` is not what the next one, or its writer's record, says it was.
    Altered { key: String },
    /// A writer has segments and no record.
    NoRecord { writer: WriterId },
}

/// How far a writer's chain of one stream reaches, by its record.
pub(super) type Ends = HashMap<WriterId, Option<ChainEnd>>;

/// Checks the chains of one stream. A superseded segment may be missing.
pub(super) fn check(links: Vec<Link>, ends: &Ends, superseded: &HashSet<Digest>) -> Vec<ChainFault> {
    let mut faults = Vec::new();
    let mut chains: BTreeMap<String, Vec<Link>> = BTreeMap::new();
    for link in links {
        chains.entry(link.writer.0.clone()).or_default().push(link);
    }
    for (writer, end) in ends {
        if let (Some(end), false) = (end, chains.contains_key(&writer.0))
            && !superseded.contains(&end.sha256)
        {
            faults.push(ChainFault::Missing { writer: writer.clone(), from: 0, to: end.seq + 1 });
        }
    }
    for (writer, mut chain) in chains {
        let writer = WriterId(writer);
        chain.sort_by(|a, b| (a.seq, &a.key).cmp(&(b.seq, &b.key)));
        let mut before: Option<&Link> = None;
        for link in &chain {
            if let Some(before) = before.filter(|before| before.seq == link.seq) {
                faults.push(ChainFault::Fork { keys: [before.key.clone(), link.key.clone()], seq: link.seq });
                continue;
            }
            let expected = before.map_or(0, |before| before.seq + 1);
            let replaced = link.previous.is_some_and(|previous| superseded.contains(&previous));
            if link.seq > expected {
                if !replaced {
                    faults.push(ChainFault::Missing { writer: writer.clone(), from: expected, to: link.seq });
                }
            } else if link.previous != before.map(|before| before.sha256) {
                let key = before.map_or(&link.key, |before| &before.key).clone();
                faults.push(ChainFault::Altered { key });
            }
            before = Some(link);
        }
        match ends.get(&writer) {
            None => faults.push(ChainFault::NoRecord { writer }),
            Some(None) => {}
            Some(Some(end)) => match chain.iter().find(|link| link.seq == end.seq) {
                _ if superseded.contains(&end.sha256) => {}
                Some(link) if link.sha256 == end.sha256 => {}
                Some(link) => faults.push(ChainFault::Altered { key: link.key.clone() }),
                None => {
                    let from = chain.last().map_or(0, |last| last.seq + 1);
                    // A gap before a later segment is told above.
                    if from <= end.seq {
                        faults.push(ChainFault::Missing { writer, from, to: end.seq + 1 });
                    }
                }
            },
        }
    }
    // An altered segment is noticed by its successor and by the record; once is enough.
    let mut told = HashSet::new();
    faults.retain(|fault| match fault {
        ChainFault::Altered { key } => told.insert(key.clone()),
        _ => true,
    });
    faults
}

/// The ends that a record names for a stream.
pub(super) fn end_of(record: &crate::store::WriterRecord, stream: Stream) -> Option<ChainEnd> {
    match stream {
        Stream::Messages => record.messages,
        Stream::Outcomes => record.outcomes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn writer() -> WriterId {
        WriterId("w".into())
    }

    /// A whole chain of `length` segments and its record.
    fn chain(length: u64) -> (Vec<Link>, Ends) {
        let links: Vec<Link> = (0..length)
            .map(|seq| Link {
                key: format!("k{seq}"),
                writer: writer(),
                seq,
                previous: seq.checked_sub(1).map(|before| digest(&before.to_string())),
                sha256: digest(&seq.to_string()),
            })
            .collect();
        let end = links.last().map(|last| ChainEnd { seq: last.seq, sha256: last.sha256 });
        (links, HashMap::from([(writer(), end)]))
    }

    fn faults(links: Vec<Link>, ends: &Ends) -> Vec<ChainFault> {
        check(links, ends, &HashSet::new())
    }

    #[test]
    fn a_whole_chain_has_no_fault_in_any_order() {
        let (mut links, ends) = chain(5);
        links.reverse();
        assert_eq!(faults(links, &ends), []);
    }

    #[test]
    fn a_missing_segment_is_found_at_the_start_in_the_middle_and_at_the_end() {
        for (missing, from, to) in [(0, 0, 1), (2, 2, 3), (4, 4, 5)] {
            let (mut links, ends) = chain(5);
            links.remove(missing);
            assert_eq!(faults(links, &ends), [ChainFault::Missing { writer: writer(), from, to }]);
        }
    }

    #[test]
    fn a_chain_that_is_gone_as_a_whole_is_found_by_its_record() {
        let (_, ends) = chain(3);
        assert_eq!(faults(Vec::new(), &ends), [ChainFault::Missing { writer: writer(), from: 0, to: 3 }]);
    }

    #[test]
    fn an_altered_segment_is_found_by_the_next_one_or_by_the_record_and_told_once() {
        for altered in 0..5 {
            let (mut links, ends) = chain(5);
            links[altered].sha256 = digest("altered");
            assert_eq!(faults(links, &ends), [ChainFault::Altered { key: format!("k{altered}") }]);
        }
    }

    #[test]
    fn two_segments_in_one_place_are_a_fork() {
        let (mut links, ends) = chain(3);
        links.push(Link { key: "z".into(), ..links[1].clone() });
        assert_eq!(faults(links, &ends), [ChainFault::Fork { keys: ["k1".into(), "z".into()], seq: 1 }]);
    }

    #[test]
    fn segments_without_a_record_are_told_and_a_record_from_before_the_end_is_no_fault() {
        let (links, _) = chain(2);
        assert_eq!(faults(links.clone(), &Ends::new()), [ChainFault::NoRecord { writer: writer() }]);
        assert_eq!(faults(links, &HashMap::from([(writer(), None)])), []);
    }

    #[test]
    fn a_superseded_segment_may_be_gone() {
        let (mut links, ends) = chain(4);
        let (gone, last) = (links.remove(1), links.pop().unwrap());
        assert_eq!(check(links, &ends, &HashSet::from([gone.sha256, last.sha256])), []);
    }
}
