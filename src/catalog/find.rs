//! Finding attachments by what people remember of them: words, names, people, dates, hashes.
//!
//! One entry stands for one attachment of one message. An attachment of several messages is found once, with the newest
//! (or, in another order, the first) of its messages that matches.

mod entries;
mod glob;
mod indexes;
mod sql;
mod text;
mod tokens;

use serde::Serialize;

use super::engine::{Row, long_query as query, long_query_scalar as query_scalar};
use super::{ArchiveRow, Catalog, CatalogError, People, Result, State, TeamRow, at, json};
use crate::digest::Digest;
use crate::model::AttachmentKey;

pub(super) use entries::{forget, unsettle};
pub use glob::{GlobPattern, InvalidGlob};

/// Matches are counted up to this many.
const MAX_COUNT: u64 = 1_000;

/// What sorts the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FindSort {
    /// The day it was sent, the newest first.
    #[default]
    Date,
    /// The name, from A to Z.
    Name,
    /// The size, the largest first.
    Size,
    /// The sender's address, from A to Z.
    Sender,
}

/// What is asked for. Everything that is set must hold, and for one and the same message.
#[derive(Debug, Clone, Default)]
pub struct FindQuery {
    /// One team alone.
    pub team: Option<TeamRow>,
    /// Words of name, subject and people.
    pub words: Vec<String>,
    /// Words of the subject.
    pub subject: Option<String>,
    /// The name.
    pub name: Option<GlobPattern>,
    /// The first sender's address.
    pub sender: Option<GlobPattern>,
    /// The address of a receiver, or of a copied one.
    pub recipient: Option<GlobPattern>,
    /// The media type, as it was declared or as the bytes show it.
    pub content_type: Option<GlobPattern>,
    /// Sent at or after this second.
    pub since: Option<i64>,
    /// Sent before this second.
    pub until: Option<i64>,
    /// The conversation.
    pub conversation: Option<String>,
    /// The content, within these two, both included.
    pub digests: Option<(Digest, Digest)>,
    /// The place; `None` is any.
    pub state: Option<State>,
    /// More bytes than this.
    pub larger: Option<u64>,
    /// The order.
    pub sort: FindSort,
    /// The other way round.
    pub reverse: bool,
    /// Look at so many candidates, if there are more; `None`: as many as take about a tenth of a second.
    pub look: Option<u64>,
}

/// Where a page ended, so that the next one can begin behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown(pub i64);

/// A message that has an attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundMessage {
    /// Its id.
    pub id: Option<String>,
    /// Its conversation's slug.
    pub conversation_id: Option<String>,
    /// Its subject.
    pub subject: Option<String>,
    /// When it was sent, as it came.
    pub sent_at: Option<String>,
    /// Its people.
    #[serde(flatten)]
    pub people: People,
    /// The attachment's name in it.
    pub name: Option<String>,
    /// The declared media type.
    pub content_type: Option<String>,
    /// The declared size in bytes.
    pub declared_size: Option<u64>,
    /// Whether the body refers to the attachment.
    pub inline: bool,
}

/// One attachment that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The entry.
    #[serde(skip)]
    pub entry: i64,
    #[serde(skip)]
    attachment_row: i64,
    /// Its short id.
    pub id: String,
    /// Its team's `archive_key`.
    pub team: String,
    /// Its place.
    pub state: State,
    /// The bytes it has, where it was fetched.
    pub sha256: Option<Digest>,
    /// Their size.
    pub size_bytes: Option<u64>,
    /// The media type that those bytes show.
    pub sniffed_type: Option<String>,
    /// Rule or reason.
    pub reason: Option<String>,
    /// The message that matched.
    pub message: FoundMessage,
    /// All messages that have it, the newest first.
    pub messages: Vec<FoundMessage>,
}

/// One page of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FindPage {
    /// What was found.
    pub found: Vec<Found>,
    /// How many there are in all; counted up to 1,000, or to the limit.
    pub total: u64,
    /// Whether there are more than `total`.
    pub more: bool,
    /// Whether everything that could match was looked at, as far as it was counted. Else `total` is what was found so
    /// far, and `next` goes on with the look.
    pub complete: bool,
    /// Where the next page begins, if there is one.
    pub next: Option<Shown>,
}

/// What a look at some candidates gave.
struct Looked {
    entries: Vec<i64>,
    /// Set if there are candidates that were not looked at; with the place where to go on, if there is one.
    #[expect(clippy::option_option, reason = "a look among words that sorts cannot be gone on with")]
    stopped: Option<Option<Shown>>,
}

impl Catalog {
    /// Answers a query: at most `limit` attachments of `archive`, behind `after`. Finds what the index knows: see
    /// [`Catalog::index_messages`].
    pub async fn find(
        &self,
        archive: ArchiveRow,
        query: &FindQuery,
        after: Option<Shown>,
        limit: u64,
    ) -> Result<FindPage> {
        let is_postgres = self.connection().await.is_postgres();
        let Some(mut statement) = sql::Statement::of(archive, query, is_postgres) else {
            return Ok(FindPage { complete: true, ..FindPage::default() });
        };
        // A look at a million entries reads them in place, instead of copying each page.
        self.connection().await.sqlite_only("PRAGMA mmap_size = 2147418112").await.map_err(at("map_catalog"))?;
        if let Some(many) = statement.many_dates()
            && self.matching(&many).await?.is_empty()
        {
            statement.drive_by_date();
        }
        // One more than is told: then there are more.
        let cap = if after.is_some() { MAX_COUNT } else { MAX_COUNT.max(limit) } + 1;
        let all = self.look(&statement, None, cap).await?;
        let count = u64::try_from(all.entries.len()).unwrap_or(u64::MAX);
        let mut complete = all.stopped.is_none();
        let mut page = match after {
            None => all,
            Some(after) => {
                let position = self.position(after).await?;
                self.look(&statement, Some(&position), limit.saturating_add(1)).await?
            }
        };
        complete &= page.stopped.is_none();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let entries = &mut page.entries;
        let next =
            if entries.len() > limit && limit > 0 { Some(Shown(entries[limit - 1])) } else { page.stopped.flatten() };
        entries.truncate(limit);
        let mut found = Vec::with_capacity(entries.len());
        for part in entries.chunks(1_000) {
            found.extend(self.details(part).await?);
        }
        Ok(FindPage { found, total: count.min(cap - 1), more: count == cap, complete, next })
    }

    /// Looks at the candidates behind `behind`, as many as can be looked at in time.
    async fn look(&self, statement: &sql::Statement, behind: Option<&sql::Position>, limit: u64) -> Result<Looked> {
        let end = match statement.end_of_look(behind) {
            Some(end) => self.matching(&end).await?.first().copied(),
            None => None,
        };
        let end = match end {
            Some(id) => Some(self.position(Shown(id)).await?),
            None => None,
        };
        let entries = self.matching(&statement.matches(behind, end.as_ref(), limit)).await?;
        let is_full = u64::try_from(entries.len()).is_ok_and(|count| count >= limit);
        let in_order = statement.looks_in_order();
        // In order, what fills the page is what everything would have given.
        let stopped = end.filter(|_| !is_full || !in_order).map(|end| in_order.then_some(Shown(end.id)));
        Ok(Looked { entries, stopped })
    }

    /// The ids of the entries that match, in order.
    async fn matching(&self, statement: &sql::Ready) -> Result<Vec<i64>> {
        let mut connection = self.connection().await;
        let mut asked = query_scalar::<Option<String>>(statement.text.clone());
        for value in &statement.values {
            asked = match value {
                sql::Value::Integer(number) => asked.bind(*number),
                sql::Value::Text(text) => asked.bind(text.as_str()),
                sql::Value::Bytes(bytes) => asked.bind(bytes.as_slice()),
            };
        }
        // One row for all: a row each costs more than finding it.
        let found = if connection.is_postgres() {
            let mut transaction = connection.begin().await.map_err(at("begin_find"))?;
            // What is best depends on the words: they are to be known to it.
            transaction.run("SET LOCAL plan_cache_mode = force_custom_plan").await.map_err(at("plan_find"))?;
            let found = asked.fetch_one(&mut transaction).await.map_err(at("find"))?;
            transaction.commit().await.map_err(at("commit_find"))?;
            found
        } else {
            asked.fetch_one(&mut connection).await.map_err(at("find"))?
        };
        let ids = found.as_deref().unwrap_or_default().split_terminator(',');
        ids.map(|id| id.parse().map_err(|_| CatalogError::Impossible("find_entries.id".into()))).collect()
    }

    /// The place of an entry in every order. Where the entry itself is gone, because its message was seen again, the
    /// date is still known.
    async fn position(&self, after: Shown) -> Result<sql::Position> {
        let mut connection = self.connection().await;
        let row = query("-- name: find_position\nSELECT name, sender, size_bytes FROM find_entries WHERE id = $1")
            .bind(after.0)
            .fetch_optional(&mut connection)
            .await
            .map_err(at("find_position"))?;
        Ok(sql::Position { id: after.0, keys: row.map(|row| (row.get(0), row.get(1), row.get(2))) })
    }

    async fn details(&self, entries: &[i64]) -> Result<Vec<Found>> {
        let mut connection = self.connection().await;
        let rows = query(
            "-- name: find_details
            SELECT e.id, e.attachment_row, a.key, t.archive_key, a.state, a.sha256, a.size_bytes, a.sniffed_type,
                a.reason, m.message_id, m.conversation_id, m.subject, m.sent_at, m.people, m.sender, l.name,
                l.content_type, l.declared_size, l.inline
            FROM json_each($1) j CROSS JOIN find_entries e ON e.id = CAST(j.value AS INTEGER)
            CROSS JOIN attachments a ON a.id = e.attachment_row CROSS JOIN teams t ON t.id = a.team_id
            CROSS JOIN messages m ON m.id = e.message_row
            CROSS JOIN links l ON l.message_row = e.message_row AND l.place = e.place
            ORDER BY j.key",
        )
        .bind(json(&entries))
        .fetch_all(&mut connection)
        .await
        .map_err(at("find_details"))?;
        let mut found: Vec<Found> = rows.iter().map(read_found).collect::<Result<_>>()?;
        let attachments: Vec<i64> = found.iter().map(|one| one.attachment_row).collect();
        let rows = query(
            "-- name: find_messages
            SELECT e.attachment_row, m.message_id, m.conversation_id, m.subject, m.sent_at, m.people, m.sender, l.name,
                l.content_type, l.declared_size, l.inline
            FROM json_each($1) j CROSS JOIN find_entries e ON e.attachment_row = CAST(j.value AS INTEGER)
            CROSS JOIN messages m ON m.id = e.message_row
            CROSS JOIN links l ON l.message_row = e.message_row AND l.place = e.place
            ORDER BY e.id DESC",
        )
        .bind(json(&attachments))
        .fetch_all(&mut connection)
        .await
        .map_err(at("find_messages"))?;
        let places: std::collections::HashMap<i64, usize> =
            attachments.iter().enumerate().map(|(place, row)| (*row, place)).collect();
        for row in &rows {
            if let Some(place) = places.get(&row.get::<i64>(0)) {
                found[*place].messages.push(read_message(row, 1));
            }
        }
        Ok(found)
    }
}

fn read_found(row: &Row) -> Result<Found> {
    let key = AttachmentKey::from_slice(row.get(2));
    let sha256: Option<&[u8]> = row.get(5);
    Ok(Found {
        entry: row.get(0),
        attachment_row: row.get(1),
        id: key.ok_or_else(|| CatalogError::Impossible("attachments.key".into()))?.to_string(),
        team: row.get(3),
        state: row.get::<&str>(4).parse()?,
        sha256: sha256.and_then(|bytes| bytes.try_into().ok()).map(Digest::from_bytes),
        size_bytes: optional(row, 6),
        sniffed_type: row.get(7),
        reason: row.get(8),
        message: read_message(row, 9),
        messages: Vec::new(),
    })
}

fn read_message(row: &Row, from: usize) -> FoundMessage {
    FoundMessage {
        id: row.get(from),
        conversation_id: row.get(from + 1),
        subject: row.get(from + 2),
        sent_at: row.get(from + 3),
        people: People::read(
            row.get::<Option<String>>(from + 4).as_deref(),
            row.get::<Option<String>>(from + 5).as_deref(),
        ),
        name: row.get(from + 6),
        content_type: row.get(from + 7),
        declared_size: optional(row, from + 8),
        inline: row.get::<i64>(from + 9) != 0,
    }
}

fn optional(row: &Row, column: usize) -> Option<u64> {
    row.get::<Option<i64>>(column).and_then(|number| u64::try_from(number).ok())
}

#[cfg(test)]
mod tests;
