//! Reading conversations and messages: pages to walk, and single ones. All of it changes nothing, so that it can be
//! dropped at any time and repeated.

use futures::Stream;

use super::page::{MAX_PAGE_ENTRIES, walk};
use super::{ApiError, ApiRequest, Conversation, Cursor, Id, JellyClient, Message, Page, Received};

/// Which conversations are listed. All of them by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConversationFilter {
    /// Only those of this status: `open`, `archived`, `snoozed`, `spam` or `trash`.
    pub status: Option<String>,
    /// Only those with this label.
    pub label_id: Option<Id>,
    /// Only those in this mailbox.
    pub mailbox_id: Option<Id>,
    /// Entries of a page: 1 to 100, and 100 unless set. A page holds no texts of messages, so that less seldom helps.
    pub limit: Option<u8>,
}

impl ConversationFilter {
    fn limit(&self) -> u8 {
        limit(self.limit)
    }
}

/// A page's length within the service's bounds.
fn limit(wanted: Option<u8>) -> u8 {
    wanted.unwrap_or(MAX_PAGE_ENTRIES).clamp(1, MAX_PAGE_ENTRIES)
}

impl ApiRequest {
    /// A page of conversations.
    pub fn conversations(filter: &ConversationFilter, cursor: Option<&Cursor>) -> Self {
        Self::get("conversations", "page of conversations")
            .query("limit", Some(filter.limit()))
            .query("cursor", cursor)
            .query("status", filter.status.as_ref())
            .query("label_id", filter.label_id.as_ref())
            .query("mailbox_id", filter.mailbox_id.as_ref())
    }

    /// One conversation.
    pub fn conversation(id: &Id) -> Self {
        Self::get("conversations", "conversation").id(id)
    }

    /// A page of a conversation's messages.
    pub fn messages(conversation: &Id, cursor: Option<&Cursor>, entries: Option<u8>) -> Self {
        Self::get("conversations", "conversation")
            .id(conversation)
            .then("messages")
            .query("limit", Some(limit(entries)))
            .query("cursor", cursor)
    }

    /// One message.
    pub fn message(id: &Id) -> Self {
        Self::get("messages", "message").id(id)
    }
}

impl JellyClient {
    /// Walks the conversations that the filter names, newest activity first, from a cursor or the beginning. The feed
    /// moves meanwhile: a conversation that gets mail jumps to the top, so that entries come twice or are missed.
    /// One request for each page, none before it is asked for. After an error the stream ends; a walk from the last
    /// page's `next_cursor` goes on.
    ///
    /// ```no_run
    /// use futures::TryStreamExt as _;
    /// use jellyjar::jelly::{ApiError, ConversationFilter, JellyClient};
    ///
    /// async fn count_open(client: &JellyClient) -> Result<usize, ApiError> {
    ///     let filter = ConversationFilter { status: Some("open".into()), ..ConversationFilter::default() };
    ///     let mut pages = std::pin::pin!(client.conversations(filter, None));
    ///     let mut count = 0;
    ///     while let Some(page) = pages.try_next().await? {
    ///         count += page.entries.len();
    ///     }
    ///     Ok(count)
    /// }
    /// ```
    pub fn conversations(
        &self,
        filter: ConversationFilter,
        from: Option<Cursor>,
    ) -> impl Stream<Item = Result<Page<Conversation>, ApiError>> + Send + use<> {
        let client = self.clone();
        walk(from, move |cursor| {
            let (client, filter) = (client.clone(), filter.clone());
            async move { client.conversations_page(&filter, cursor.as_ref()).await }
        })
    }

    /// Reads one page of conversations: for a walk that keeps its cursor and goes on later. A cursor that the service
    /// does not know is [`ApiError::Invalid`]; one that leads to itself is [`ApiError::CursorLoop`].
    ///
    /// ```no_run
    /// # use jellyjar::jelly::{ApiError, ConversationFilter, Cursor, JellyClient};
    /// async fn step(client: &JellyClient, kept: Option<Cursor>) -> Result<Option<Cursor>, ApiError> {
    ///     let page = client.conversations_page(&ConversationFilter::default(), kept.as_ref()).await?;
    ///     for conversation in &page.entries {
    ///         println!("{} has {:?} attachments", conversation.id, conversation.attachments_count);
    ///     }
    ///     Ok(page.next_cursor)
    /// }
    /// ```
    pub async fn conversations_page(
        &self,
        filter: &ConversationFilter,
        cursor: Option<&Cursor>,
    ) -> Result<Page<Conversation>, ApiError> {
        self.page(&ApiRequest::conversations(filter, cursor), "conversations", cursor, filter.limit()).await
    }

    /// Reads one conversation with its messages. Its text is a payload as it stands.
    ///
    /// ```no_run
    /// # use jellyjar::jelly::{ApiError, Id, JellyClient};
    /// async fn subject(client: &JellyClient, slug: &Id) -> Result<Option<String>, ApiError> {
    ///     let conversation = client.conversation(slug).await?;
    ///     println!("{} messages in {} bytes", conversation.messages.len(), conversation.raw().get().len());
    ///     Ok(conversation.subject.clone())
    /// }
    /// ```
    pub async fn conversation(&self, id: &Id) -> Result<Received<Conversation>, ApiError> {
        let request = ApiRequest::conversation(id);
        self.received(&self.json(&request).await?, "a conversation")
    }

    /// Walks the messages of a conversation, oldest first, as [`JellyClient::conversations`] walks those.
    ///
    /// ```no_run
    /// use futures::TryStreamExt as _;
    /// use jellyjar::jelly::{ApiError, Id, JellyClient};
    ///
    /// async fn with_attachments(client: &JellyClient, slug: Id) -> Result<usize, ApiError> {
    ///     let pages: Vec<_> = client.messages(slug, None).try_collect().await?;
    ///     Ok(pages.iter().flat_map(|page| &page.entries).filter(|message| !message.attachments.is_empty()).count())
    /// }
    /// ```
    pub fn messages(
        &self,
        conversation: Id,
        from: Option<Cursor>,
    ) -> impl Stream<Item = Result<Page<Message>, ApiError>> + Send + use<> {
        let client = self.clone();
        walk(from, move |cursor| {
            let (client, conversation) = (client.clone(), conversation.clone());
            async move { client.messages_page(&conversation, cursor.as_ref(), None).await }
        })
    }

    /// Reads one page of a conversation's messages, oldest first; `entries` are 1 to 100, and 100 unless set. Less may
    /// help where [`ApiError::TooLarge`] says so.
    ///
    /// ```no_run
    /// # use jellyjar::jelly::{ApiError, Id, JellyClient};
    /// async fn first(client: &JellyClient, slug: &Id) -> Result<Option<Id>, ApiError> {
    ///     let page = client.messages_page(slug, None, Some(1)).await?;
    ///     Ok(page.entries.first().map(|message| message.id.clone()))
    /// }
    /// ```
    pub async fn messages_page(
        &self,
        conversation: &Id,
        cursor: Option<&Cursor>,
        entries: Option<u8>,
    ) -> Result<Page<Message>, ApiError> {
        let request = ApiRequest::messages(conversation, cursor, entries);
        self.page(&request, "messages", cursor, limit(entries)).await
    }

    /// Reads one message. Its text is a payload as it stands.
    ///
    /// ```no_run
    /// # use jellyjar::jelly::{ApiError, Id, JellyClient};
    /// async fn senders(client: &JellyClient, id: &Id) -> Result<Vec<String>, ApiError> {
    ///     Ok(client.message(id).await?.from.clone())
    /// }
    /// ```
    pub async fn message(&self, id: &Id) -> Result<Received<Message>, ApiError> {
        let request = ApiRequest::message(id);
        self.received(&self.json(&request).await?, "a message")
    }
}
