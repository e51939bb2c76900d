//! Changing conversations. Nothing here is ever sent twice by itself: where an answer is lost, the error says so
//! ([`ApiError::may_be_done`]), and each call tells whether it may be repeated.

use http::{Method, StatusCode};
use serde_json::json;

use super::answer::Answer;
use super::{ApiError, ApiRequest, Comment, Conversation, Id, JellyClient, Label, Message, Received, Written};

/// Whom a conversation is assigned to: a member of the team, by one of two names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assignee {
    /// By the id of the membership.
    Member(Id),
    /// By the address of the account.
    Email(String),
}

/// A draft of a reply, for a person to look at and send.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DraftReply {
    /// Its text, as HTML.
    pub body: String,
    /// Whose draft it is; nobody's unless set, so that anyone may take it.
    pub member_id: Option<Id>,
    /// The message that is replied to: the last one that was sent, unless set.
    pub message_id: Option<Id>,
    /// The receivers, instead of those that the message suggests.
    pub to: Option<String>,
    /// The copied receivers, instead of those that the message suggests.
    pub cc: Option<String>,
    /// The hidden receivers. An empty text also leaves out the team's own automatic one.
    pub bcc: Option<String>,
}

impl ApiRequest {
    /// `what` names everything that a 404 can mean.
    fn on(method: Method, conversation: &Id, last: &str, what: &'static str) -> Self {
        Self::new(method, "conversations", what).id(conversation).then(last)
    }

    /// A new comment.
    pub fn comment(conversation: &Id, body: &str) -> Self {
        Self::on(Method::POST, conversation, "comments", "conversation").body(json!({ "body": body }))
    }

    /// A label put on a conversation.
    pub fn add_label(conversation: &Id, label: &Id) -> Self {
        Self::on(Method::POST, conversation, "labels", "conversation or label").body(json!({ "label_id": label }))
    }

    /// A label taken off a conversation.
    pub fn remove_label(conversation: &Id, label: &Id) -> Self {
        Self::on(Method::DELETE, conversation, "labels", "conversation or label").id(label)
    }

    /// A conversation assigned to a member.
    pub fn assign(conversation: &Id, assignee: &Assignee) -> Self {
        let body = match assignee {
            Assignee::Member(id) => json!({ "member_id": id }),
            Assignee::Email(email) => json!({ "email": email }),
        };
        Self::on(Method::POST, conversation, "assignments", "conversation or member").body(body)
    }

    /// A conversation no longer assigned to a member.
    pub fn unassign(conversation: &Id, member: &Id) -> Self {
        Self::on(Method::DELETE, conversation, "assignments", "conversation or member").id(member)
    }

    /// A new draft of a reply.
    pub fn draft_reply(conversation: &Id, draft: &DraftReply) -> Self {
        Self::on(Method::POST, conversation, "draft_reply", "conversation, member or message")
            .body(json!({ "body": draft.body }))
            .field("member_id", draft.member_id.as_ref())
            .field("message_id", draft.message_id.as_ref())
            .field("to", draft.to.as_deref())
            .field("cc", draft.cc.as_deref())
            .field("bcc", draft.bcc.as_deref())
    }
}

impl JellyClient {
    /// Writes a comment, which the team alone sees. Not idempotent: a repetition writes a second one.
    ///
    /// ```no_run
    /// # use jellyjar::jelly::{ApiError, Id, JellyClient};
    /// async fn done(client: &JellyClient, slug: &Id) -> Result<(), ApiError> {
    ///     match client.comment(slug, "All attachments are archived.").await {
    ///         Err(error) if error.may_be_done() => Ok(()), // perhaps it is there: to be looked at, not repeated
    ///         other => other.map(drop),
    ///     }
    /// }
    /// ```
    pub async fn comment(&self, conversation: &Id, body: &str) -> Result<Received<Comment>, ApiError> {
        self.received(&self.json(&ApiRequest::comment(conversation, body)).await?, "a comment")
    }

    /// Puts a label on a conversation, and gives all that it has then. Idempotent: a label is on it once.
    ///
    /// ```no_run
    /// # use jellyjar::jelly::{ApiError, Id, JellyClient};
    /// async fn tag(client: &JellyClient, slug: &Id, label: &Id) -> Result<usize, ApiError> {
    ///     Ok(client.add_label(slug, label).await?.len())
    /// }
    /// ```
    pub async fn add_label(&self, conversation: &Id, label: &Id) -> Result<Vec<Received<Label>>, ApiError> {
        self.list(&ApiRequest::add_label(conversation, label), "labels").await
    }

    /// Takes a label off a conversation, and gives those that are left, where the answer tells (the vendor's page does
    /// not say that it does). Idempotent in its effect; a repetition may be answered with 404.
    ///
    /// ```no_run
    /// # use jellyjar::jelly::{ApiError, Id, JellyClient};
    /// async fn untag(client: &JellyClient, slug: &Id, label: &Id) -> Result<(), ApiError> {
    ///     client.remove_label(slug, label).await.map(drop)
    /// }
    /// ```
    pub async fn remove_label(&self, conversation: &Id, label: &Id) -> Result<Option<Vec<Received<Label>>>, ApiError> {
        let request = ApiRequest::remove_label(conversation, label);
        match self.call(&request).await? {
            Answer { status: StatusCode::CONFLICT, json: Some(json), .. } => Err(self.conflict(&json, &request)),
            // It is done; an answer of another shape takes nothing of that back.
            Answer { json, .. } => Ok(json.and_then(|json| self.list_of(&json, "labels", "a list of labels").ok())),
        }
    }

    /// Assigns a conversation to a member, who is notified by email and push. Idempotent: whoever is assigned already
    /// is not notified again, and `is_new` is false.
    ///
    /// ```no_run
    /// # use jellyjar::jelly::{ApiError, Assignee, Id, JellyClient};
    /// async fn to_michael(client: &JellyClient, slug: &Id) -> Result<bool, ApiError> {
    ///     let michael = Assignee::Email("michael@bluth.company".into());
    ///     Ok(client.assign(slug, &michael).await?.is_new)
    /// }
    /// ```
    pub async fn assign(&self, conversation: &Id, assignee: &Assignee) -> Result<Written<Conversation>, ApiError> {
        self.written(&ApiRequest::assign(conversation, assignee), "a conversation").await
    }

    /// Ends a member's assignment. Idempotent: nothing happens where there is none.
    ///
    /// ```no_run
    /// # use jellyjar::jelly::{ApiError, Id, JellyClient};
    /// async fn is_free(client: &JellyClient, slug: &Id, member: &Id) -> Result<bool, ApiError> {
    ///     Ok(client.unassign(slug, member).await?.assignees.is_empty())
    /// }
    /// ```
    pub async fn unassign(&self, conversation: &Id, member: &Id) -> Result<Received<Conversation>, ApiError> {
        self.received(&self.json(&ApiRequest::unassign(conversation, member)).await?, "a conversation")
    }

    /// Drafts a reply. Nothing is sent until a person sends it. Where there is a draft for that message already, that
    /// one comes back unchanged (the service's 409) and `is_new` is false; so a repetition makes no second one.
    ///
    /// ```no_run
    /// # use jellyjar::jelly::{ApiError, DraftReply, Id, JellyClient};
    /// async fn thank(client: &JellyClient, slug: &Id) -> Result<Id, ApiError> {
    ///     let draft = DraftReply { body: "<p>Thank you!</p>".into(), ..DraftReply::default() };
    ///     Ok(client.draft_reply(slug, &draft).await?.resource.id.clone())
    /// }
    /// ```
    pub async fn draft_reply(&self, conversation: &Id, draft: &DraftReply) -> Result<Written<Message>, ApiError> {
        let request = ApiRequest::draft_reply(conversation, draft);
        let (status, json) = self.json_or_conflict(&request).await?;
        let is_new = status != StatusCode::CONFLICT;
        match self.received(&json, "a draft") {
            Ok(resource) => Ok(Written { is_new, resource }),
            Err(error) if is_new => Err(error),
            // There is something, though no message that can be read.
            Err(_) => Err(self.conflict(&json, &request)),
        }
    }
}
