//! Contacts: found by their address, created or updated.

use serde_json::Value;
use url::form_urlencoded;

use super::super::state::State;
use super::super::team::{Label, Link};
use super::fields::{Fields, is_address};
use super::{Done, Outcome, Refusal};

/// Answers `GET /contacts/for_email`.
pub(super) fn find(state: &State, query: &str) -> Outcome {
    let email = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "email");
    let email = email.map(|(_, email)| email.trim().to_owned()).filter(|email| !email.is_empty());
    let email = email.ok_or_else(|| Refusal::invalid("Email can't be blank"))?;
    let changes = &*state.team.changes();
    let contact = changes.contacts.find(&email).ok_or(Refusal::NotFound)?;
    Ok(Done::Ok(contact.to_found_json()))
}

/// Answers `POST /contacts`. What is wrong is said before anything changes.
pub(super) fn save(state: &State, fields: &Fields) -> Outcome {
    let changes = &mut *state.team.changes();
    let mut errors = Vec::new();
    let email = fields.text("email").unwrap_or_default().trim();
    if email.is_empty() {
        errors.push("Email can't be blank".to_owned());
    } else if !is_address(email) || email.contains('<') {
        errors.push("Email is invalid".to_owned());
    }
    let mut keep = |read: Result<_, Vec<String>>| read.map_err(|wrong| errors.extend(wrong)).ok();
    let links = fields.sent("links").and_then(|value| keep(links(value).map(Sent::Links)));
    let labels = fields.sent("labels").and_then(|value| keep(labels(value, &changes.people.labels).map(Sent::Labels)));
    if !errors.is_empty() {
        return Err(Refusal::Invalid(errors));
    }

    let (contact, is_new) = changes.contacts.find_or_add(email);
    if fields.sent("name").is_some() {
        contact.name = fields.text("name").map(str::to_owned);
    }
    if fields.sent("note").is_some() {
        contact.note = fields.text("note").map(str::to_owned);
    }
    for sent in links.into_iter().chain(labels) {
        match sent {
            Sent::Links(links) => contact.links = links,
            Sent::Labels(labels) => contact.labels = labels,
        }
    }
    let shown = contact.to_saved_json(&changes.people.labels);
    Ok(if is_new { Done::Created(shown) } else { Done::Ok(shown) })
}

/// What replaces all that there is.
enum Sent {
    Links(Vec<Link>),
    Labels(Vec<u64>),
}

/// Links, from titles to URLs; null is none.
fn links(value: &Value) -> Result<Vec<Link>, Vec<String>> {
    let wrong = || vec!["Links must be an object of titles and URLs".to_owned()];
    let links = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Object(links) => links,
        _ => return Err(wrong()),
    };
    let link = |(title, url): (&String, &Value)| {
        url.as_str().map(|url| Link { title: title.clone(), url: url.to_owned() }).ok_or_else(wrong)
    };
    links.iter().map(link).collect()
}

/// The ids of labels by their names, which must be there; null is none.
fn labels(value: &Value, known: &[Label]) -> Result<Vec<u64>, Vec<String>> {
    let names = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(names) if names.iter().all(Value::is_string) => names,
        _ => return Err(vec!["Labels must be an array of names".to_owned()]),
    };
    let (mut ids, mut missing) = (Vec::new(), Vec::new());
    for name in names.iter().filter_map(Value::as_str) {
        match known.iter().find(|label| label.name.to_lowercase() == name.trim().to_lowercase()) {
            Some(label) => ids.push(label.id),
            None => missing.push(format!("Label {name:?} does not exist")),
        }
    }
    if missing.is_empty() { Ok(ids) } else { Err(missing) }
}
