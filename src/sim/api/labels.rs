//! Labels of the team and of conversations.

use jiff::Timestamp;

use super::super::state::State;
use super::super::team::{Label, Team};
use super::fields::Fields;
use super::{Done, Outcome, Refusal};

/// The colours; each is also there as `…-dark`.
const COLORS: [&str; 13] = [
    "gray",
    "cherry",
    "apricot",
    "pineapple",
    "gooseberry",
    "mint",
    "juniper",
    "blueberry",
    "huckleberry",
    "grape",
    "plum",
    "rhubarb",
    "strawberry",
];

/// Answers `GET /labels`.
pub(super) fn list(state: &State) -> Done {
    let changes = &*state.team.changes();
    Done::Ok(changes.people.sorted_labels().into_iter().map(Label::to_json).collect())
}

/// Answers `POST /labels`.
pub(super) fn create(state: &State, fields: &Fields) -> Outcome {
    let labels = &mut state.team.changes().people.labels;
    let mut errors = Vec::new();
    let name = fields.text("name").unwrap_or_default().trim();
    if name.is_empty() {
        errors.push("Name can't be blank".to_owned());
    } else if labels.iter().any(|label| label.name.to_lowercase() == name.to_lowercase()) {
        errors.push("Name has already been taken".to_owned());
    }
    let color = match fields.value("color") {
        None => COLORS[0],
        Some(color) => color.as_str().unwrap_or_default(),
    };
    if !COLORS.contains(&color.strip_suffix("-dark").unwrap_or(color)) {
        errors.push("Color is not included in the list".to_owned());
    }
    if !errors.is_empty() {
        return Err(Refusal::Invalid(errors));
    }
    let id = labels.iter().map(|label| label.id).max().unwrap_or(0) + 1;
    let label = Label { id, name: name.to_owned(), color: color.to_owned() };
    let shown = label.to_json();
    labels.push(label);
    Ok(Done::Created(shown))
}

/// Answers `POST /conversations/:id/labels`.
pub(super) fn add(state: &State, slug: &str, fields: &Fields, now: Timestamp) -> Outcome {
    let changes = &mut *state.team.changes();
    let mut conversation = state.conversation(changes, slug).ok_or(Refusal::NotFound)?;
    let id = fields.id("label_id")?.ok_or_else(|| Refusal::invalid("Label can't be blank"))?;
    if !changes.people.labels.iter().any(|label| label.id == id) {
        return Err(Refusal::NotFound);
    }
    if !conversation.labels.contains(&id) {
        conversation.labels.push(id);
        Team::change(changes, conversation.clone(), now);
    }
    Ok(Done::Created(changes.people.labels_json(&conversation.labels)))
}

/// Answers `DELETE /conversations/:id/labels/:label_id`.
pub(super) fn remove(state: &State, slug: &str, id: &str, now: Timestamp) -> Outcome {
    let changes = &mut *state.team.changes();
    let mut conversation = state.conversation(changes, slug).ok_or(Refusal::NotFound)?;
    let label = changes.people.labels.iter().find(|label| label.id.to_string() == id);
    let id = label.ok_or(Refusal::NotFound)?.id;
    if conversation.labels.contains(&id) {
        conversation.labels.retain(|label| *label != id);
        Team::change(changes, conversation.clone(), now);
    }
    Ok(Done::Ok(changes.people.labels_json(&conversation.labels)))
}
