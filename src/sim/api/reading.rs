//! Calls that read one thing, or a short list.

use serde_json::{Value, json};

use super::super::corpus::mail::MAILBOXES;
use super::super::state::State;
use super::{Done, Outcome, Refusal};

/// Answers `GET /mailboxes`.
pub(super) fn mailboxes() -> Done {
    Done::Ok(MAILBOXES.iter().map(|(id, name)| json!({ "id": id, "name": name })).collect())
}

/// Answers `GET /mailboxes/:id/members`. Everyone sees every mailbox: nothing is known of how a team divides them.
pub(super) fn mailbox_members(state: &State, id: &str) -> Outcome {
    if !MAILBOXES.iter().any(|(known, _)| known.to_string() == id) {
        return Err(Refusal::NotFound);
    }
    Ok(Done::Ok(state.team.changes().people.members_json()))
}

/// Answers `GET /conversations/:id`.
pub(super) fn conversation(state: &State, slug: &str) -> Outcome {
    let changes = &*state.team.changes();
    let conversation = state.conversation(changes, slug).ok_or(Refusal::NotFound)?;
    let mut shown = conversation.to_json(&changes.people, state.team.api_url());
    shown["messages"] = Value::Array(state.team.messages(changes, &conversation, 0, u64::MAX));
    Ok(Done::Ok(shown))
}

/// Answers `GET /messages/:id`.
pub(super) fn message(state: &State, id: &str) -> Outcome {
    let changes = &*state.team.changes();
    let message = state.team.message(changes, id).ok_or(Refusal::NotFound)?;
    let is_there = |slug: &str| state.conversation(changes, slug).is_some();
    if message["conversation_id"].as_str().is_none_or(is_there) {
        Ok(Done::Ok(message))
    } else {
        Err(Refusal::NotFound)
    }
}
