//! Draft replies and comments.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::state::State;
use super::super::team::{Team, seconds};
use super::fields::Fields;
use super::{Done, Outcome, Refusal};

/// Answers `POST /conversations/:id/draft_reply`. Nothing is sent: a person must do that.
pub(super) fn create(state: &State, slug: &str, fields: &Fields, now: Timestamp) -> Outcome {
    let changes = &mut *state.team.changes();
    let conversation = state.conversation(changes, slug).ok_or(Refusal::NotFound)?;
    let original = match fields.value("message_id") {
        Some(id) => {
            let id = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
            let message = state.team.message(changes, &id).filter(|message| message["conversation_id"] == slug);
            message.ok_or(Refusal::NotFound)?
        }
        None => {
            let last = conversation.messages_count.saturating_sub(1);
            let message = state.team.messages(changes, &conversation, last, 1).pop();
            message.ok_or_else(|| Refusal::invalid("Conversation has no message to reply to"))?
        }
    };
    let original_id = original["id"].as_str().unwrap_or_default().to_owned();
    if let Some(draft) = changes.drafts.get(&original_id) {
        return Err(Refusal::Conflict(draft.clone()));
    }
    let body = fields.text("body").ok_or_else(|| Refusal::invalid("Body can't be blank"))?;
    let sender = match fields.id("member_id")? {
        None => Value::Null,
        Some(id) => {
            let member = changes.people.active(|member| member.id == id).ok_or(Refusal::NotFound)?;
            json!({ "type": "member", "id": id.to_string(), "name": member.name, "email": member.email })
        }
    };
    let (to, cc) = (fields.addresses("to", "To")?, fields.addresses("cc", "Cc")?);
    // It is no part of what is shown, but must be right all the same.
    fields.addresses("bcc", "Bcc")?;

    // Whoever wrote is answered; a message of our own is followed up to the same people.
    let (ours, theirs) = if original["inbound"] == true { ("to", "from") } else { ("from", "to") };
    let subject = original["subject"].as_str().unwrap_or_default();
    let id = changes.next_draft_id();
    let draft = json!({
        "id": id,
        "conversation_id": slug,
        "subject": if subject.starts_with("Re: ") { subject.to_owned() } else { format!("Re: {subject}") },
        "inbound": false,
        "sent_at": null,
        "created_at": seconds(now),
        "url": format!("{}#message_{id}", conversation.url()),
        "from": original[ours],
        "to": to.map_or_else(|| original[theirs].clone(), Value::from),
        "cc": cc.unwrap_or_default(),
        "html_body": body,
        "text_body": "",
        "attachments_count": 0,
        "attachments": [],
        "sender": sender,
    });
    changes.drafts.insert(original_id, draft.clone());
    Team::change(changes, conversation, now);
    Ok(Done::Created(draft))
}

/// Answers `POST /conversations/:id/comments`.
pub(super) fn comment(state: &State, slug: &str, fields: &Fields, now: Timestamp) -> Outcome {
    let changes = &mut *state.team.changes();
    let mut conversation = state.conversation(changes, slug).ok_or(Refusal::NotFound)?;
    let body = fields.text("body").ok_or_else(|| Refusal::invalid("Body can't be blank"))?;
    conversation.comments_count += 1;
    let shown = json!({
        "id": format!("{slug}-{}", conversation.comments_count),
        "conversation_id": slug,
        "body": body,
        "created_at": seconds(now),
    });
    Team::change(changes, conversation, now);
    Ok(Done::Created(shown))
}
