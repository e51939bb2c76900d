//! The index of `find`, filled behind the ingest: in steps, each one transaction, from the messages that it does not
//! know yet. A message that was seen again counts as it was seen last.

mod write;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::indexes::{drop_deferred, make_deferred};
use super::text::indexed;
use crate::catalog::engine::{Connection, long_query as query, long_query_scalar as query_scalar};
use crate::catalog::{Catalog, People, Result, at, json};
use crate::filter::{address, essence};

/// Messages that are indexed in one transaction: it holds the catalog for about a tenth of a second.
const STEP_MESSAGES: i64 = 5_000;
/// From so many unknown messages on, if they are more than the index knows, it is filled without some of its indexes.
const BULK_MESSAGES: i64 = 50_000;
/// How long to wait for another that writes to the index, between two looks.
const TURN_WAIT: Duration = Duration::from_millis(50);
/// The part of an entry's id that is a number.
const NUMBER_BITS: u32 = 30;

/// The last second that an id can tell, in the year 2242.
const LAST_SECOND: i64 = (1 << 33) - 1;

/// The ids of entries that were sent in or after this second begin here. What has no date comes before all.
pub(super) fn first_id(second: i64) -> i64 {
    second.clamp(0, LAST_SECOND) << NUMBER_BITS
}

#[derive(Debug, Clone)]
struct Entry {
    id: i64,
    attachment_row: i64,
    message_row: i64,
    place: i64,
    name: String,
    sender: String,
    content_type: String,
    sniffed_type: Option<String>,
    size_bytes: i64,
    conversation_id: Option<String>,
    settled: bool,
    subject: String,
    people: String,
    second: i64,
}

/// One message of one attachment: its id, or its row where it has none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Identity {
    Id(String),
    Row(i64),
}

/// The entries of one attachment, by message: those that are there, and those that come.
#[derive(Debug, Default)]
struct OfAttachment {
    there: BTreeMap<Identity, i64>,
    coming: BTreeMap<Identity, Entry>,
}

/// Empties the index; the next step begins anew.
pub(in crate::catalog) async fn forget(connection: &mut Connection) -> Result<()> {
    wait_for_turn(connection).await?;
    for statement in [
        "-- name: forget_find_entries\nDELETE FROM find_entries",
        connection.pick(
            "-- name: forget_find_text\nINSERT INTO find_text (find_text) VALUES ('delete-all')",
            "-- name: forget_find_text\nDELETE FROM find_text",
        ),
        "-- name: forget_find_progress\nUPDATE find_progress SET message_row = 0, entries = 0",
    ] {
        query(statement).execute(&mut *connection).await.map_err(at("forget_find"))?;
    }
    Ok(())
}

/// Notes that size and type of these attachments' entries may change.
pub(in crate::catalog) async fn unsettle(connection: &mut Connection, rows: &str) -> Result<()> {
    wait_for_turn(connection).await?;
    query(
        "-- name: unsettle_find_entries
        UPDATE find_entries SET settled = 0
        WHERE attachment_row IN (SELECT CAST(value AS INTEGER) FROM json_each($1))",
    )
    .bind(rows)
    .execute(connection)
    .await
    .map_err(at("unsettle_find_entries"))?;
    Ok(())
}

/// Who writes to the index does so alone, until the end of the transaction. SQLite has one writer anyway.
async fn wait_for_turn(connection: &mut Connection) -> Result<()> {
    if connection.is_postgres() {
        query("-- name: wait_for_find\nSELECT pg_advisory_xact_lock(7307498803)")
            .execute(connection)
            .await
            .map_err(at("wait_for_find"))?;
    }
    Ok(())
}

/// The same, but `false` at once where another writes: to be tried again, while this connection does something else.
async fn takes_turn(connection: &mut Connection) -> Result<bool> {
    if !connection.is_postgres() {
        return Ok(true);
    }
    query_scalar("-- name: take_find\nSELECT pg_try_advisory_xact_lock(7307498803)")
        .fetch_one(connection)
        .await
        .map_err(at("take_find"))
}

/// The last message that can be indexed, as none can come any more below it; `None` if that cannot be told now.
async fn last_settled(connection: &mut Connection) -> Result<Option<i64>> {
    if !connection.is_postgres() {
        return Ok(Some(i64::MAX));
    }
    query_scalar("-- name: last_settled\nSELECT last_settled_message()")
        .fetch_one(connection)
        .await
        .map_err(at("last_settled"))
}

impl Catalog {
    /// About how many messages the index of `find` does not know yet.
    pub async fn unindexed_messages(&self) -> Result<u64> {
        let mut connection = self.connection().await;
        let count: i64 = query_scalar(
            "-- name: unindexed_messages
            SELECT (SELECT coalesce(max(id), 0) FROM messages) - message_row FROM find_progress",
        )
        .fetch_one(&mut connection)
        .await
        .map_err(at("unindexed_messages"))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Takes the next messages into the index of `find`, or makes an index that a large fill left out, in one
    /// transaction. Gives whether there may be more to do.
    pub async fn index_messages(&self) -> Result<bool> {
        let unknown = self.unindexed_messages().await?;
        let mut connection = self.connection().await;
        let settled = if unknown == 0 { Some(0) } else { last_settled(&mut connection).await? };
        // Whoever adds messages for so long leaves them to the next look.
        let Some(settled) = settled else { return Ok(false) };
        let mut transaction = connection.begin().await.map_err(at("begin_index"))?;
        if !takes_turn(&mut transaction).await? {
            transaction.commit().await.map_err(at("commit_index"))?;
            drop(connection);
            tokio::time::sleep(TURN_WAIT).await;
            return Ok(true);
        }
        let has_more = if unknown == 0 {
            make_deferred(&mut transaction).await?
        } else {
            index_step(&mut transaction, unknown, settled).await?
        };
        transaction.commit().await.map_err(at("commit_index"))?;
        Ok(has_more)
    }

    /// Brings size and type of entries up to date whose attachments have their place by now; at most `limit` are looked
    /// at. With `seen`, also those that this run has met.
    pub async fn settle_entries(&self, limit: u64, seen: bool) -> Result<()> {
        loop {
            let mut connection = self.connection().await;
            let mut transaction = connection.begin().await.map_err(at("begin_settle"))?;
            let has_turn = takes_turn(&mut transaction).await?;
            if has_turn {
                settle(&mut transaction, limit, seen).await?;
            }
            transaction.commit().await.map_err(at("commit_settle"))?;
            if has_turn {
                return Ok(());
            }
            drop(connection);
            tokio::time::sleep(TURN_WAIT).await;
        }
    }
}

/// Indexes the next messages up to `settled`; `false` if there are none.
async fn index_step(connection: &mut Connection, unknown: u64, settled: i64) -> Result<bool> {
    let progress = query("-- name: find_progress\nSELECT message_row, entries FROM find_progress")
        .fetch_one(connection)
        .await
        .map_err(at("find_progress"))?;
    let (from, mut number): (i64, i64) = (progress.get(0), progress.get(1));
    let unknown = i64::try_from(unknown).unwrap_or(i64::MAX);
    if unknown > BULK_MESSAGES.max(from) && drop_deferred(connection).await? {
        return Ok(true);
    }
    let last: Option<i64> = query_scalar(
        "-- name: last_of_step
        SELECT max(id) FROM (SELECT id FROM messages WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $3) step",
    )
    .bind(from)
    .bind(settled)
    .bind(STEP_MESSAGES)
    .fetch_one(connection)
    .await
    .map_err(at("last_of_step"))?;
    let Some(last) = last else { return Ok(false) };
    let mut attachments = coming(connection, from, last).await?;
    there(connection, &mut attachments).await?;
    write::write(connection, &mut attachments, &mut number).await?;
    query("-- name: keep_find_progress\nUPDATE find_progress SET message_row = $1, entries = $2")
        .bind(last)
        .bind(number)
        .execute(connection)
        .await
        .map_err(at("keep_find_progress"))?;
    Ok(true)
}

async fn settle(connection: &mut Connection, limit: u64, seen: bool) -> Result<()> {
    if seen {
        query(
            "-- name: unsettle_seen
            UPDATE find_entries SET settled = 0 WHERE settled = 1 AND attachment_row IN
                (SELECT attachment_row FROM temp.seen WHERE known = 0)",
        )
        .execute(connection)
        .await
        .map_err(at("unsettle_seen"))?;
    }
    query(
        "-- name: settle_entries
        UPDATE find_entries SET settled = 1, sniffed_type = a.sniffed_type,
            size_bytes = coalesce(a.size_bytes, a.declared_size, -1)
        FROM (SELECT id AS entry, attachment_row AS attachment FROM find_entries WHERE settled = 0 LIMIT $1) u
        CROSS JOIN attachments a ON a.id = u.attachment AND a.state IN ('archived', 'skipped', 'erased')
        WHERE find_entries.id = u.entry",
    )
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .execute(connection)
    .await
    .map_err(at("settle_entries"))?;
    Ok(())
}

/// What the messages above `from`, up to `last`, bring.
async fn coming(connection: &mut Connection, from: i64, last: i64) -> Result<HashMap<i64, OfAttachment>> {
    let rows = query(
        "-- name: messages_to_index
        SELECT m.id, m.message_id, m.subject, m.sender, m.people, m.sent_at, m.conversation_id, l.place,
            l.attachment_row, l.name, l.content_type, a.state, a.sniffed_type,
            coalesce(a.size_bytes, a.declared_size, l.declared_size, -1)
        FROM messages m CROSS JOIN links l ON l.message_row = m.id CROSS JOIN attachments a ON a.id = l.attachment_row
        WHERE m.id > $1 AND m.id <= $2 ORDER BY m.id, l.place DESC",
    )
    .bind(from)
    .bind(last)
    .fetch_all(connection)
    .await
    .map_err(at("messages_to_index"))?;
    let mut attachments: HashMap<i64, OfAttachment> = HashMap::with_capacity(rows.len());
    for row in &rows {
        let text = |column: usize| row.get::<Option<String>>(column);
        let message_row: i64 = row.get(0);
        let people = People::read(text(4).as_deref(), text(3).as_deref());
        let sent = text(5).and_then(|text| text.trim().parse::<jiff::Timestamp>().ok());
        let everyone: Vec<&str> =
            [&people.from, &people.to, &people.cc].into_iter().flatten().map(String::as_str).collect();
        let entry = Entry {
            id: 0,
            attachment_row: row.get(8),
            message_row,
            place: row.get(7),
            name: indexed(&text(9).unwrap_or_default()),
            sender: indexed(&address(&text(3).unwrap_or_default())),
            content_type: indexed(&essence(&text(10).unwrap_or_default())),
            sniffed_type: text(12),
            size_bytes: row.get(13),
            conversation_id: text(6),
            settled: matches!(text(11).as_deref(), Some("archived" | "skipped" | "erased")),
            subject: indexed(&text(2).unwrap_or_default()),
            people: indexed(&everyone.join("\n")),
            second: sent.map_or(0, |sent| sent.as_second().clamp(0, LAST_SECOND)),
        };
        let identity = text(1).map_or(Identity::Row(message_row), Identity::Id);
        // In the order of the rows: the last line of a message counts.
        attachments.entry(entry.attachment_row).or_default().coming.insert(identity, entry);
    }
    Ok(attachments)
}

/// Finds the entries that those attachments have already.
async fn there(connection: &mut Connection, attachments: &mut HashMap<i64, OfAttachment>) -> Result<()> {
    let rows: Vec<i64> = attachments.keys().copied().collect();
    let found = query(
        "-- name: entries_of
        SELECT e.id, e.attachment_row, e.message_row, m.message_id
        FROM json_each($1) j CROSS JOIN find_entries e ON e.attachment_row = CAST(j.value AS INTEGER)
        CROSS JOIN messages m ON m.id = e.message_row",
    )
    .bind(json(&rows))
    .fetch_all(connection)
    .await
    .map_err(at("entries_of"))?;
    for row in &found {
        let (attachment_row, message_row): (i64, i64) = (row.get(1), row.get(2));
        let identity = row.get::<Option<String>>(3).map_or(Identity::Row(message_row), Identity::Id);
        if let Some(attachment) = attachments.get_mut(&attachment_row) {
            attachment.there.insert(identity, row.get(0));
        }
    }
    Ok(())
}
