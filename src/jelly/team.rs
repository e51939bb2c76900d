//! What a team has: labels, members and mailboxes. Reading changes nothing, so that it can be dropped and repeated.

use serde_json::json;

use super::{ApiError, ApiRequest, Id, JellyClient, Label, Mailbox, Member, Received};

impl ApiRequest {
    /// The team's labels.
    pub fn labels() -> Self {
        Self::get("labels", "list of labels")
    }

    /// A new label.
    pub fn create_label(name: &str, color: Option<&str>) -> Self {
        Self::post("labels", "label").body(json!({ "name": name })).field("color", color)
    }

    /// The team's active members.
    pub fn members() -> Self {
        Self::get("members", "list of members")
    }

    /// The team's mailboxes.
    pub fn mailboxes() -> Self {
        Self::get("mailboxes", "list of mailboxes")
    }

    /// The members of a mailbox.
    pub fn mailbox_members(mailbox: &Id) -> Self {
        Self::get("mailboxes", "mailbox").id(mailbox).then("members")
    }
}

impl JellyClient {
    /// Lists the team's labels, sorted by name.
    ///
    /// ```no_run
    /// # use jellyjar::jelly::{ApiError, JellyClient};
    /// async fn is_known(client: &JellyClient, name: &str) -> Result<bool, ApiError> {
    ///     Ok(client.labels().await?.iter().any(|label| label.name.as_deref() == Some(name)))
    /// }
    /// ```
    pub async fn labels(&self) -> Result<Vec<Received<Label>>, ApiError> {
        self.list(&ApiRequest::labels(), "labels").await
    }

    /// Makes a label. Its name must be new in the team, or the answer is [`ApiError::Invalid`]; so this is not
    /// idempotent, but a repetition cannot make a second one. Never sent twice by itself.
    ///
    /// ```no_run
    /// # use jellyjar::jelly::{ApiError, Id, JellyClient};
    /// async fn bug(client: &JellyClient) -> Result<Option<Id>, ApiError> {
    ///     Ok(client.create_label("Bug", Some("cherry")).await?.id.clone())
    /// }
    /// ```
    pub async fn create_label(&self, name: &str, color: Option<&str>) -> Result<Received<Label>, ApiError> {
        self.received(&self.json(&ApiRequest::create_label(name, color)).await?, "a label")
    }

    /// Lists the team's active members.
    ///
    /// ```no_run
    /// # use jellyjar::jelly::{ApiError, Id, JellyClient};
    /// async fn id_of(client: &JellyClient, email: &str) -> Result<Option<Id>, ApiError> {
    ///     let members = client.members().await?;
    ///     Ok(members.iter().find(|member| member.email.as_deref() == Some(email)).map(|member| member.id.clone()))
    /// }
    /// ```
    pub async fn members(&self) -> Result<Vec<Received<Member>>, ApiError> {
        self.list(&ApiRequest::members(), "members").await
    }

    /// Lists the team's mailboxes.
    ///
    /// ```no_run
    /// # use jellyjar::jelly::{ApiError, JellyClient};
    /// async fn addresses(client: &JellyClient) -> Result<Vec<String>, ApiError> {
    ///     Ok(client.mailboxes().await?.iter().filter_map(|mailbox| mailbox.email.clone()).collect())
    /// }
    /// ```
    pub async fn mailboxes(&self) -> Result<Vec<Received<Mailbox>>, ApiError> {
        self.list(&ApiRequest::mailboxes(), "mailboxes").await
    }

    /// Lists the members of a mailbox.
    ///
    /// ```no_run
    /// # use jellyjar::jelly::{ApiError, Id, JellyClient};
    /// async fn count(client: &JellyClient, mailbox: &Id) -> Result<usize, ApiError> {
    ///     Ok(client.mailbox_members(mailbox).await?.len())
    /// }
    /// ```
    pub async fn mailbox_members(&self, mailbox: &Id) -> Result<Vec<Received<Member>>, ApiError> {
        self.list(&ApiRequest::mailbox_members(mailbox), "members").await
    }
}
