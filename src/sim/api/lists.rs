//! The two lists that are paged: conversations, and the messages of one.

use std::sync::atomic::Ordering::Relaxed;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::super::corpus::mail::MAILBOXES;
use super::super::faults::Fault;
use super::super::http::Next;
use super::super::random::mix2;
use super::super::state::{Call, State};
use super::super::team::{Conversation, Filter, STATUSES};
use super::{Done, Outcome, Refusal, go_wrong, json as send, outcome};

/// How many entries a page has if no one asks for a number.
const DEFAULT_LIMIT: u64 = 25;
/// How many it has at most.
const MAX_LIMIT: u64 = 100;

const PAGE_FAULTS: [Fault; 8] = [
    Fault::Page429,
    Fault::Page500,
    Fault::PageHtml,
    Fault::PageReset,
    Fault::PageCut,
    Fault::PageLoop,
    Fault::PageVanish,
    Fault::PageRepeat,
];
const MESSAGES_FAULTS: [Fault; 6] = [
    Fault::Messages404,
    Fault::Messages429,
    Fault::Messages500,
    Fault::MessagesHtml,
    Fault::MessagesLoop,
    Fault::MessagesEmpty,
];

/// What a client asks of a list.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    limit: u64,
    /// The place that the cursor leads to.
    place: Option<u64>,
    filter: Filter,
}

/// Answers `GET /conversations`.
pub(super) fn conversations(state: &State, query: &str, out: &mut Vec<u8>) -> Next {
    state.counters.conversation_pages.fetch_add(1, Relaxed);
    let asked = state.count_call(Call::Page, 0);
    let fault = state.pick(&PAGE_FAULTS, 0, asked);
    let wanted = match wanted(state, query, 'c') {
        Ok(wanted) => wanted,
        Err(refusal) => return outcome(out, state.clock.now(), Err(refusal)),
    };
    if wanted.place.is_some() {
        let asked = state.count_call(Call::PageCursor, 0);
        if let Some(fault) = state.pick(&[Fault::Page422], 1, asked) {
            return go_wrong(state, fault, out);
        }
    }
    match fault {
        None | Some(Fault::PageLoop | Fault::PageVanish | Fault::PageRepeat) => {
            outcome(out, state.clock.now(), Ok(Done::Ok(conversation_page(state, &wanted, fault))))
        }
        Some(Fault::PageCut) => {
            let mut text = conversation_page(state, &wanted, None).to_string();
            // Cut within an ASCII name, so that what is left is still text.
            text.truncate(text.find("\"conversations\"").map_or(1, |at| at + 9));
            send(out, "200 OK", &text)
        }
        Some(fault) => go_wrong(state, fault, out),
    }
}

fn conversation_page(state: &State, wanted: &Wanted, fault: Option<Fault>) -> Value {
    let changes = &*state.team.changes();
    let below = wanted.place.unwrap_or(u64::MAX);
    let limit = usize::try_from(wanted.limit).unwrap_or(1);
    let (mut page, has_more) = state.team.page(changes, below, limit, &wanted.filter);
    let next = page.last().filter(|_| has_more).map(|last| last.rank);
    let next = if fault == Some(Fault::PageLoop) { Some(below) } else { next };
    if fault == Some(Fault::PageVanish) {
        let mut number = 0;
        page.retain(|_| {
            number += 1;
            number % 3 != 0
        });
    }
    if let (Some(Fault::PageRepeat), Some(place)) = (fault, wanted.place) {
        page.splice(0..0, state.team.above(changes, place, 3));
    }
    let api = state.team.api_url();
    let entries: Vec<_> =
        page.iter().map(|entry| entry_json(state, entry, entry.to_json(&changes.people, api))).collect();
    json!({ "conversations": entries, "next_cursor": next.map(|place| cursor('c', place)) })
}

/// An entry of the list, perhaps without its count.
fn entry_json(state: &State, conversation: &Conversation, mut shown: Value) -> Value {
    match state.pick(&[Fault::CountMissing, Fault::CountNull], conversation.number, 0) {
        Some(Fault::CountNull) => shown["attachments_count"] = Value::Null,
        Some(_) => drop(shown.as_object_mut().and_then(|fields| fields.remove("attachments_count"))),
        None => {}
    }
    shown
}

/// Answers `GET /conversations/:id/messages`.
pub(super) fn messages(state: &State, slug: &str, query: &str, out: &mut Vec<u8>) -> Next {
    state.counters.message_pages.fetch_add(1, Relaxed);
    let conversation = state.conversation(&state.team.changes(), slug);
    let Some(conversation) = conversation else {
        return outcome(out, state.clock.now(), Err(Refusal::NotFound));
    };
    let subject = conversation.number;
    let asked = state.count_call(Call::Messages, subject);
    let fault = state.pick(&MESSAGES_FAULTS, subject, asked);
    let wanted = match wanted(state, query, 'm') {
        Ok(wanted) => wanted,
        Err(refusal) => return outcome(out, state.clock.now(), Err(refusal)),
    };
    if wanted.place.is_some() {
        let asked = state.count_call(Call::MessagesCursor, subject);
        if let Some(fault) = state.pick(&[Fault::Messages422], subject, asked) {
            return go_wrong(state, fault, out);
        }
    }
    match fault {
        None | Some(Fault::MessagesLoop) => {
            outcome(out, state.clock.now(), message_page(state, slug, &wanted, fault.is_some()))
        }
        Some(Fault::MessagesEmpty) => {
            let page = json!({ "messages": [], "next_cursor": null });
            outcome(out, state.clock.now(), Ok(Done::Ok(page)))
        }
        Some(fault) => go_wrong(state, fault, out),
    }
}

fn message_page(state: &State, slug: &str, wanted: &Wanted, is_loop: bool) -> Outcome {
    let changes = &*state.team.changes();
    let conversation = state.conversation(changes, slug).ok_or(Refusal::NotFound)?;
    let from = wanted.place.unwrap_or(0);
    let messages = state.team.messages(changes, &conversation, from, wanted.limit);
    let end = from + messages.len() as u64;
    let next = if is_loop { Some(from) } else { (end < conversation.messages_count).then_some(end) };
    Ok(Done::Ok(json!({ "messages": messages, "next_cursor": next.map(|place| cursor('m', place)) })))
}

/// Reads a query.
fn wanted(state: &State, query: &str, list: char) -> Result<Wanted, Refusal> {
    let mut wanted = Wanted { limit: DEFAULT_LIMIT, ..Wanted::default() };
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            _ if value.is_empty() => {}
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
                wanted.limit = limit.ok_or_else(|| Refusal::invalid("Limit must be between 1 and 100"))?;
            }
            "cursor" => wanted.place = Some(place(list, &value).ok_or_else(invalid_cursor)?),
            "status" if list == 'c' => {
                let status = STATUSES.into_iter().find(|status| *status == value);
                wanted.filter.status =
                    Some(status.ok_or_else(|| Refusal::invalid("Status is not included in the list"))?);
            }
            "label_id" if list == 'c' => {
                let id = value.parse().ok();
                let changes = state.team.changes();
                let id = id.filter(|id| changes.people.labels.iter().any(|label| label.id == *id));
                wanted.filter.label = Some(id.ok_or(Refusal::NotFound)?);
            }
            "mailbox_id" if list == 'c' => {
                let id = value.parse().ok();
                let id = id.filter(|id| MAILBOXES.iter().any(|(known, _)| u64::from(*known) == *id));
                wanted.filter.mailbox = Some(id.ok_or(Refusal::NotFound)?);
            }
            _ => {}
        }
    }
    Ok(wanted)
}

/// What a cursor that is none is answered.
pub(super) fn invalid_cursor() -> Refusal {
    Refusal::invalid("Cursor is invalid")
}

/// A cursor that leads to a place of a list. It holds `+`, `/` and `=`, which a query must encode.
fn cursor(list: char, place: u64) -> String {
    let mut bytes = vec![0xfb, 0xff, 0xbf];
    bytes.extend(format!("{list}{place}.{:x}", mix2(0xc0, place)).into_bytes());
    STANDARD.encode(bytes)
}

/// The place that a cursor of that list leads to.
fn place(list: char, text: &str) -> Option<u64> {
    let bytes = STANDARD.decode(text).ok()?;
    let inner = std::str::from_utf8(bytes.strip_prefix(&[0xfb, 0xff, 0xbf])?).ok()?;
    let place = inner.strip_prefix(list)?.split_once('.')?.0.parse().ok()?;
    (cursor(list, place) == text).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_back_to_its_place_and_nothing_else_does() {
        for number in [0, 1, 99, 100_000, u64::MAX] {
            let text = cursor('c', number);
            assert!(text.starts_with("+/+/"), "{text} must need encoding");
            assert_eq!(place('c', &text), Some(number));
            assert_eq!(place('m', &text), None, "a cursor of another list");
            assert_eq!(place('c', &text[1..]), None);
        }
        assert!([cursor('c', 1), cursor('c', 10), cursor('c', 100)].iter().any(|text| text.ends_with('=')));
        for junk in ["", "x", "+/+/", "null", "0", "YzE="] {
            assert_eq!(place('c', junk), None, "{junk}");
        }
    }
}
