//! People who write to the team.

use serde_json::{Value, json};

use super::super::corpus::mail::CONTACTS;
use super::super::random::mix;
use super::Label;

/// A link on a contact.
#[derive(Debug, Clone)]
pub(in crate::sim) struct Link {
    pub(in crate::sim) title: String,
    pub(in crate::sim) url: String,
}

/// A contact.
#[derive(Debug, Clone)]
pub(in crate::sim) struct Contact {
    /// Its id in answers to who saves it; who looks it up gets another, as with the service.
    id: u64,
    email: String,
    pub(in crate::sim) name: Option<String>,
    pub(in crate::sim) note: Option<String>,
    pub(in crate::sim) links: Vec<Link>,
    /// The ids of its labels.
    pub(in crate::sim) labels: Vec<u64>,
}

impl Contact {
    fn new(id: u64, email: &str, name: Option<&str>) -> Self {
        let name = name.map(str::to_owned);
        Self { id, email: email.to_owned(), name, note: None, links: Vec::new(), labels: Vec::new() }
    }

    /// The contact as it is found.
    pub(in crate::sim) fn to_found_json(&self) -> Value {
        let slug = format!("ct{:08x}", mix(self.id) >> 32);
        let url = format!("https://app.letsjelly.com/contacts/{slug}");
        json!({ "id": slug, "name": self.name, "email": self.email, "url": url })
    }

    /// The contact as it is saved.
    pub(in crate::sim) fn to_saved_json(&self, labels: &[Label]) -> Value {
        let label = |id: &u64| labels.iter().find(|label| label.id == *id);
        let labels = self.labels.iter().filter_map(label);
        json!({
            "id": self.id,
            "email": self.email,
            "name": self.name,
            "note": self.note,
            "links": self.links.iter().map(|link| json!({ "title": link.title, "url": link.url })).collect::<Value>(),
            "labels": labels.map(|label| json!({ "name": label.name, "color": label.color })).collect::<Value>(),
        })
    }
}

/// The contacts of the team.
#[derive(Debug)]
pub(in crate::sim) struct Contacts(Vec<Contact>);

impl Default for Contacts {
    fn default() -> Self {
        Self((1..).zip(CONTACTS).map(|(id, (name, email))| Contact::new(id, email, Some(name))).collect())
    }
}

impl Contacts {
    /// The contact with an address, whatever its case.
    pub(in crate::sim) fn find(&self, email: &str) -> Option<&Contact> {
        self.0.iter().find(|contact| contact.email.eq_ignore_ascii_case(email))
    }

    /// The contact with an address, which is added if need be; and whether it was.
    pub(in crate::sim) fn find_or_add(&mut self, email: &str) -> (&mut Contact, bool) {
        let found = self.0.iter().position(|contact| contact.email.eq_ignore_ascii_case(email));
        let index = found.unwrap_or(self.0.len());
        if found.is_none() {
            self.0.push(Contact::new(self.0.len() as u64 + 1, email, None));
        }
        (&mut self.0[index], found.is_none())
    }
}
