//! Who a conversation is assigned to.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::state::State;
use super::super::team::{Conversation, People, Team};
use super::fields::Fields;
use super::{Done, Outcome, Refusal};

/// Answers `POST /conversations/:id/assignments`.
pub(super) fn assign(state: &State, slug: &str, fields: &Fields, now: Timestamp) -> Outcome {
    let changes = &mut *state.team.changes();
    let mut conversation = state.conversation(changes, slug).ok_or(Refusal::NotFound)?;
    let member = match (fields.id("member_id")?, fields.text("email")) {
        (Some(id), None) => changes.people.active(|member| member.id == id),
        (None, Some(email)) => changes.people.active(|member| member.email.eq_ignore_ascii_case(email.trim())),
        _ => return Err(Refusal::invalid("Provide exactly one of member_id or email")),
    };
    let id = member.ok_or(Refusal::NotFound)?.id;
    if conversation.assignees.contains(&id) {
        return Ok(Done::Ok(short(&conversation, &changes.people)));
    }
    conversation.assignees.push(id);
    let shown = short(&conversation, &changes.people);
    Team::change(changes, conversation, now);
    Ok(Done::Created(shown))
}

/// Answers `DELETE /conversations/:id/assignments/:member_id`.
pub(super) fn unassign(state: &State, slug: &str, id: &str, now: Timestamp) -> Outcome {
    let changes = &mut *state.team.changes();
    let mut conversation = state.conversation(changes, slug).ok_or(Refusal::NotFound)?;
    let member = changes.people.members.iter().find(|member| member.id.to_string() == id);
    let id = member.ok_or(Refusal::NotFound)?.id;
    if conversation.assignees.contains(&id) {
        conversation.assignees.retain(|assignee| *assignee != id);
        Team::change(changes, conversation.clone(), now);
    }
    Ok(Done::Ok(short(&conversation, &changes.people)))
}

/// A conversation with the few fields that these answers have.
fn short(conversation: &Conversation, people: &People) -> Value {
    json!({
        "id": conversation.slug,
        "subject": conversation.subject,
        "status": conversation.status,
        "assignees": people.assignees_json(&conversation.assignees),
        "labels": people.labels_json(&conversation.labels),
    })
}
