//! Contacts: people outside that the team writes with.

use serde_json::{Map, Value, json};

use super::{ApiError, ApiRequest, Contact, JellyClient, Received, Written};

/// What is to be known of a contact. What is `None` stays as it is; a note, links or labels that are given REPLACE all
/// that is there of their kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContactChange {
    /// The address, which tells contacts apart.
    pub email: String,
    /// The name.
    pub name: Option<String>,
    /// The note, which may hold HTML: replaces the one that is there.
    pub note: Option<String>,
    /// Titles and URLs: replace all links that are there. Of several with one title, the last counts.
    pub links: Option<Vec<(String, String)>>,
    /// Names of labels of the team: replace all labels that are there.
    pub labels: Option<Vec<String>>,
}

impl ApiRequest {
    /// The contact with an address.
    pub fn contact(email: &str) -> Self {
        Self::get("contacts", "contact").then("for_email").query("email", Some(email))
    }

    /// A contact made or changed.
    pub fn save_contact(change: &ContactChange) -> Self {
        let links = change.links.as_ref().map(|links| {
            links.iter().map(|(title, url)| (title.clone(), Value::from(url.as_str()))).collect::<Map<_, _>>()
        });
        Self::post("contacts", "contact")
            .body(json!({ "email": change.email }))
            .field("name", change.name.as_deref())
            .field("note", change.note.as_deref())
            .field("links", links)
            .field("labels", change.labels.clone())
    }
}

impl JellyClient {
    /// Looks up the contact with an address; [`ApiError::NotFound`] if there is none.
    ///
    /// ```no_run
    /// # use jellyjar::jelly::{ApiError, JellyClient};
    /// async fn name_of(client: &JellyClient, email: &str) -> Result<Option<String>, ApiError> {
    ///     match client.contact(email).await {
    ///         Err(ApiError::NotFound { .. }) => Ok(None),
    ///         other => Ok(other?.name.clone()),
    ///     }
    /// }
    /// ```
    pub async fn contact(&self, email: &str) -> Result<Received<Contact>, ApiError> {
        self.received(&self.json(&ApiRequest::contact(email)).await?, "a contact")
    }

    /// Makes the contact with an address, or changes the one that is there (`is_new` tells which). Idempotent: the
    /// same call again changes nothing more.
    ///
    /// ```no_run
    /// # use jellyjar::jelly::{ApiError, ContactChange, JellyClient};
    /// async fn rename(client: &JellyClient) -> Result<bool, ApiError> {
    ///     let name = Some("Alice Smith".to_owned());
    ///     // Note, links and labels stay as they are.
    ///     let change = ContactChange { email: "alice@example.com".into(), name, ..ContactChange::default() };
    ///     Ok(client.save_contact(&change).await?.is_new)
    /// }
    /// ```
    pub async fn save_contact(&self, change: &ContactChange) -> Result<Written<Contact>, ApiError> {
        self.written(&ApiRequest::save_contact(change), "a contact").await
    }
}
