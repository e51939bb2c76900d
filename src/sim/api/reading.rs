//! Calls that read one thing, or a short list.

use serde_json::{Value, json};

use super::super::corpus::mail::MAILBOXES;
use super::super::state::State;
use super::super::team::Label;
use super::{Done, Outcome, Refusal};

/// Whether there is such a call.
pub(super) fn is_known(method: &str, parts: &[&str]) -> bool {
    method == "GET"
        && matches!(parts, ["labels" | "mailboxes"] | ["mailboxes", _, "members"] | ["conversations" | "messages", _])
}

/// Answers it.
pub(super) fn read(state: &State, parts: &[&str]) -> Outcome {
    let changes = &*state.team.changes();
    let people = &changes.people;
    let found = match parts {
        ["labels"] => people.sorted_labels().into_iter().map(Label::to_json).collect(),
        ["mailboxes"] => MAILBOXES.iter().map(|(id, name)| json!({ "id": id, "name": name })).collect(),
        // Everyone sees every mailbox: nothing is known of how a team divides them.
        ["mailboxes", id, "members"] if MAILBOXES.iter().any(|(known, _)| known.to_string() == **id) => {
            people.members_json()
        }
        ["conversations", slug] => {
            let conversation = state.team.conversation(changes, slug).ok_or(Refusal::NotFound)?;
            let mut shown = conversation.to_json(people, state.team.api_url());
            shown["messages"] = Value::Array(state.team.messages(changes, &conversation, 0, u64::MAX));
            shown
        }
        ["messages", id] => state.team.message(changes, id).ok_or(Refusal::NotFound)?,
        ["mailboxes", ..] => return Err(Refusal::NotFound),
        _ => return Err(Refusal::NoEndpoint),
    };
    Ok(Done::Ok(found))
}
