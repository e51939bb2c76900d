//! Dumps that fit the simulator, as JSON that a test may bend before it is written.

use std::collections::BTreeSet;
use std::path::Path;

use jellyjar::sim::corpus::{CorpusConfig, Profile, write_plain};
use serde_json::Value;

/// Webhook events of `messages` messages with `each` attachments of `sizes` bytes, none of them inline.
pub(crate) fn events(messages: u64, each: u64, sizes: (u64, u64)) -> Vec<Value> {
    events_from(0, messages, each, sizes)
}

/// The same, with messages that are numbered from `first`: others than those of other numbers.
pub(crate) fn events_from(first: u64, messages: u64, each: u64, sizes: (u64, u64)) -> Vec<Value> {
    let config = CorpusConfig {
        profile: Profile::Plain,
        messages,
        attachments_per_message: each,
        sizes,
        first_message: first,
        ..CorpusConfig::default()
    };
    let mut text = Vec::new();
    write_plain(&config, &mut text).unwrap();
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// The attachments of an event, to be changed.
pub(crate) fn attachments(event: &mut Value) -> &mut Vec<Value> {
    event["data"]["message"]["attachments"].as_array_mut().unwrap()
}

/// Every attachment id in `events`.
pub(crate) fn ids(events: &[Value]) -> BTreeSet<String> {
    let lists = events.iter().filter_map(|event| event["data"]["message"]["attachments"].as_array());
    lists.flatten().filter_map(|attachment| attachment["id"].as_str()).map(str::to_owned).collect()
}

/// JSON Lines.
pub(crate) fn lines(events: &[Value]) -> String {
    events.iter().flat_map(|event| [event.to_string(), "\n".to_owned()]).collect()
}

/// Writes JSON Lines to a file, whose folder is made.
pub(crate) fn write_lines(path: &Path, events: &[Value]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, lines(events)).unwrap();
}
