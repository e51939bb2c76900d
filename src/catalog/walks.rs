//! Walks over what Jelly lists: where each is, what it has met, and which conversations' messages are still to be read.

use std::str::FromStr;

use super::{Catalog, CatalogError, Result, TeamRow, at};
use crate::catalog::engine::{Connection, Row, long_query, query, query_scalar};
use crate::digest::Digest;
use crate::model::Conversation;

mod pages;
mod totals;

pub use pages::{KeptPage, ToRead};
pub use totals::WalkTotals;

/// The row id of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WalkRow(i64);

/// Why it walks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalkKind {
    /// A person asked for what came before.
    Backfill,
    /// The service looks for what no webhook brought.
    Sweep,
}

/// How far a walk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalkPhase {
    /// It lists conversations.
    Listing,
    /// All are listed; nobody has asked for more yet.
    Listed,
    /// It reads the messages of those that changed.
    Reading,
    /// All is read and ingested.
    Done,
}

/// The word of a variant in a row, and back.
macro_rules! words {
    ($type:ident, $column:literal, $($variant:ident $word:literal),+) => {
        impl $type {
            /// The word in rows and output.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl FromStr for $type {
            type Err = CatalogError;

            fn from_str(text: &str) -> Result<Self> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    other => Err(CatalogError::Impossible(format!("{}: {other:?}", $column))),
                }
            }
        }
    };
}

/// What of a walk is asked for. Who works on the catalog goes on with it so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalkWish {
    /// Nothing for now; it is kept.
    Nothing,
    /// The listing alone.
    Listing,
    /// All of it.
    All,
}

words!(WalkWish, "walks.wish", Nothing "nothing", Listing "listing", All "all");
words!(WalkKind, "walks.kind", Backfill "backfill", Sweep "sweep");
words!(WalkPhase, "walks.phase", Listing "listing", Listed "listed", Reading "reading", Done "done");

/// A walk as it is kept.
#[derive(Debug, Clone)]
pub struct Walk {
    /// Its row.
    pub row: WalkRow,
    /// Whose conversations.
    pub team: TeamRow,
    /// Why.
    pub kind: WalkKind,
    /// Which of them; with team and kind, which walk it is.
    pub filters: String,
    /// How far.
    pub phase: WalkPhase,
    /// What of it is asked for.
    pub wish: WalkWish,
    /// Where it is, as the walker wrote it.
    pub state: String,
    /// What it has counted, as the walker wrote it.
    pub counts: String,
}

/// What is written of a walk with each step.
#[derive(Debug, Clone)]
pub struct WalkNotes {
    /// Where it is.
    pub state: String,
    /// What it has counted.
    pub counts: String,
}

/// One conversation as a listing showed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalkEntry {
    /// Its fields; the id is there.
    pub conversation: Conversation,
    /// What changes when it does.
    pub fingerprint: i64,
    /// Whether its messages may hold attachments.
    pub may_hold: bool,
    /// Whether it is passed over unless it was listed before and has changed since.
    pub only_known: bool,
    /// How many messages it has.
    pub messages_count: Option<u64>,
    /// How many attachments.
    pub attachments_count: Option<u64>,
}

impl WalkEntry {
    /// What it is known by.
    fn key(&self) -> [u8; 16] {
        Digest::of(self.conversation.id.as_deref().unwrap_or_default().as_bytes()).short()
    }
}

/// How a walk has met an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// For the first time.
    New,
    /// Again, and it has changed.
    Changed,
    /// Again, as it was, for the first time in this pass.
    Same,
    /// Again, as it was, in the same pass.
    Repeated,
}

/// A count as a column.
fn column(count: Option<u64>) -> Option<i64> {
    count.map(|count| i64::try_from(count).unwrap_or(i64::MAX))
}

const WALKS: &str = "SELECT id, team_id, kind, filters, phase, wish, state, counts FROM walks";

fn walk(row: &Row) -> Result<Walk> {
    Ok(Walk {
        row: WalkRow(row.get(0)),
        team: TeamRow(row.get(1)),
        kind: row.get::<&str>(2).parse()?,
        filters: row.get(3),
        phase: row.get::<&str>(4).parse()?,
        wish: row.get::<&str>(5).parse()?,
        state: row.get(6),
        counts: row.get(7),
    })
}

/// Writes where a walk is, within a transaction.
async fn note(connection: &mut Connection, row: WalkRow, notes: &WalkNotes, now_ms: i64) -> Result<()> {
    query("-- name: note_walk\nUPDATE walks SET state = ?, counts = ?, updated_at = ? WHERE id = ?")
        .bind(&notes.state)
        .bind(&notes.counts)
        .bind(now_ms)
        .bind(row.0)
        .execute(connection)
        .await
        .map_err(at("note_walk"))?;
    Ok(())
}

impl Catalog {
    /// The walk of this team, kind and filters.
    pub async fn find_walk(&self, team: TeamRow, kind: WalkKind, filters: &str) -> Result<Option<Walk>> {
        let mut connection = self.connection().await;
        let sql = format!("-- name: find_walk\n{WALKS} WHERE team_id = ? AND kind = ? AND filters = ?");
        let row = query(sql)
            .bind(team.0)
            .bind(kind.as_str())
            .bind(filters)
            .fetch_optional(&mut connection)
            .await
            .map_err(at("find_walk"))?;
        row.as_ref().map(walk).transpose()
    }

    /// A walk as it is now.
    pub async fn walk(&self, row: WalkRow) -> Result<Walk> {
        let mut connection = self.connection().await;
        let sql = format!("-- name: walk\n{WALKS} WHERE id = ?");
        let found = query(sql).bind(row.0).fetch_one(&mut connection).await.map_err(at("walk"))?;
        walk(&found)
    }

    /// The backfills of a team that are to be gone on with, the first asked for first.
    pub async fn wanted_walks(&self, team: TeamRow) -> Result<Vec<Walk>> {
        let mut connection = self.connection().await;
        let sql = format!(
            "-- name: wanted_walks\n{WALKS} WHERE team_id = ? AND kind = 'backfill'
            AND (wish = 'all' AND phase <> 'done' OR wish = 'listing' AND phase = 'listing') ORDER BY id"
        );
        let rows = query(sql).bind(team.0).fetch_all(&mut connection).await.map_err(at("wanted_walks"))?;
        rows.iter().map(walk).collect()
    }

    /// All walks of a team.
    pub async fn walks(&self, team: TeamRow) -> Result<Vec<Walk>> {
        let mut connection = self.connection().await;
        let sql = format!("-- name: walks\n{WALKS} WHERE team_id = ? ORDER BY id");
        let rows = query(sql).bind(team.0).fetch_all(&mut connection).await.map_err(at("walks"))?;
        rows.iter().map(walk).collect()
    }

    /// Begins a walk, anew where it was there: what it had met is forgotten. What was read stays read. While all of it is
    /// asked for, a wish for the listing alone lowers nothing.
    pub async fn begin_walk(
        &self,
        team: TeamRow,
        kind: WalkKind,
        filters: &str,
        wish: WalkWish,
        notes: &WalkNotes,
    ) -> Result<WalkRow> {
        let now_ms = self.clock.now_ms();
        let mut connection = self.connection().await;
        let mut transaction = connection.begin().await.map_err(at("begin_walk"))?;
        let id: i64 = query_scalar(
            "-- name: begin_walk
            INSERT INTO walks (team_id, kind, filters, phase, wish, state, counts, updated_at)
            VALUES (?, ?, ?, 'listing', ?, ?, ?, ?)
            ON CONFLICT (team_id, kind, filters) DO UPDATE SET phase = excluded.phase,
                wish = CASE WHEN walks.wish = 'all' AND walks.phase <> 'done' AND excluded.wish = 'listing' THEN 'all'
                    ELSE excluded.wish END,
                state = excluded.state, counts = excluded.counts, updated_at = excluded.updated_at
            RETURNING id",
        )
        .bind(team.0)
        .bind(kind.as_str())
        .bind(filters)
        .bind(wish.as_str())
        .bind(&notes.state)
        .bind(&notes.counts)
        .bind(now_ms)
        .fetch_one(&mut transaction)
        .await
        .map_err(at("begin_walk"))?;
        for forget in [
            "-- name: forget_walk_entries\nDELETE FROM walk_entries WHERE walk_id = ?",
            "-- name: forget_walk_attachments\nDELETE FROM walk_attachments WHERE walk_id = ?",
        ] {
            long_query(forget).bind(id).execute(&mut transaction).await.map_err(at("begin_walk"))?;
        }
        transaction.commit().await.map_err(at("begin_walk"))?;
        Ok(WalkRow(id))
    }

    /// Says what of a walk is asked for. A wish for the listing alone lowers none for all of it: who has that one may wait
    /// for the end.
    pub async fn want_walk(&self, row: WalkRow, wish: WalkWish) -> Result<()> {
        let mut connection = self.connection().await;
        let query = query(match wish {
            WalkWish::Listing => "-- name: want_listing\nUPDATE walks SET wish = ? WHERE id = ? AND wish <> 'all'",
            WalkWish::Nothing | WalkWish::All => "-- name: want_walk\nUPDATE walks SET wish = ? WHERE id = ?",
        });
        query.bind(wish.as_str()).bind(row.0).execute(&mut connection).await.map_err(at("want_walk"))?;
        Ok(())
    }

    /// Takes back the wish for the listing alone; one for all of a walk stays.
    pub async fn unwant_listing(&self, row: WalkRow) -> Result<()> {
        let mut connection = self.connection().await;
        query("-- name: unwant_listing\nUPDATE walks SET wish = 'nothing' WHERE id = ? AND wish = 'listing'")
            .bind(row.0)
            .execute(&mut connection)
            .await
            .map_err(at("unwant_listing"))?;
        Ok(())
    }

    /// Takes a walk to a phase, and notes where it is. A walk that is done needs no memory of what it met; a sweep keeps
    /// what it could not read.
    pub async fn change_walk(&self, row: WalkRow, phase: WalkPhase, notes: &WalkNotes) -> Result<()> {
        let mut connection = self.connection().await;
        let mut transaction = connection.begin().await.map_err(at("change_walk"))?;
        note(&mut transaction, row, notes, self.clock.now_ms()).await?;
        query("-- name: change_walk\nUPDATE walks SET phase = ? WHERE id = ?")
            .bind(phase.as_str())
            .bind(row.0)
            .execute(&mut transaction)
            .await
            .map_err(at("change_walk"))?;
        if phase == WalkPhase::Done {
            long_query(
                "-- name: forget_read_entries
                DELETE FROM walk_entries WHERE walk_id = ? AND NOT EXISTS (
                    SELECT 1 FROM conversations c JOIN walks w ON w.id = walk_entries.walk_id
                    WHERE c.team_id = w.team_id AND c.key = walk_entries.key AND c.done IS DISTINCT FROM c.seen)",
            )
            .bind(row.0)
            .execute(&mut transaction)
            .await
            .map_err(at("forget_read_entries"))?;
        }
        transaction.commit().await.map_err(at("change_walk"))
    }

    /// Takes in one page of a listing: notes the entries, and in the same transaction where the walk goes on, which
    /// `settle` tells from how each entry was met.
    pub async fn list_page(
        &self,
        row: WalkRow,
        team: TeamRow,
        pass: u64,
        entries: &[WalkEntry],
        settle: impl FnOnce(&[Met]) -> WalkNotes + Send,
    ) -> Result<()> {
        let pass = column(Some(pass)).unwrap_or_default();
        let mut connection = self.connection().await;
        let mut transaction = connection.begin().await.map_err(at("begin_list_page"))?;
        let mut met = Vec::with_capacity(entries.len());
        for entry in entries {
            met.push(meet(&mut transaction, row, team, pass, entry).await?);
        }
        note(&mut transaction, row, &settle(&met), self.clock.now_ms()).await?;
        transaction.commit().await.map_err(at("commit_list_page"))
    }
}

/// Notes one entry, within a transaction.
async fn meet(connection: &mut Connection, row: WalkRow, team: TeamRow, pass: i64, entry: &WalkEntry) -> Result<Met> {
    let key = entry.key();
    let known = query("-- name: walk_entry\nSELECT pass, fingerprint FROM walk_entries WHERE walk_id = ? AND key = ?")
        .bind(row.0)
        .bind(&key[..])
        .fetch_optional(&mut *connection)
        .await
        .map_err(at("walk_entry"))?;
    let met = match known.map(|known| (known.get::<i64>(0), known.get::<i64>(1))) {
        None => Met::New,
        Some((_, fingerprint)) if fingerprint != entry.fingerprint => Met::Changed,
        Some((before, _)) if before == pass => return Ok(Met::Repeated),
        Some(_) => Met::Same,
    };
    if entry.may_hold && !see(connection, team, &key, entry).await? {
        return Ok(Met::Same);
    }
    if entry.only_known && !entry.may_hold {
        return Ok(Met::Same);
    }
    query(
        "-- name: meet_entry
        INSERT INTO walk_entries (walk_id, key, pass, fingerprint) VALUES (?, ?, ?, ?)
        ON CONFLICT (walk_id, key) DO UPDATE SET pass = excluded.pass, fingerprint = excluded.fingerprint, failures = 0",
    )
    .bind(row.0)
    .bind(&key[..])
    .bind(pass)
    .bind(entry.fingerprint)
    .execute(connection)
    .await
    .map_err(at("meet_entry"))?;
    Ok(met)
}

/// Notes a conversation that may hold attachments; gives whether it is to be counted as met.
async fn see(connection: &mut Connection, team: TeamRow, key: &[u8; 16], entry: &WalkEntry) -> Result<bool> {
    const UPDATE: &str = "-- name: see_again
        UPDATE conversations SET fields = ?, seen = ?, messages_count = ?, attachments_count = ?
        WHERE team_id = ? AND key = ? AND seen <> ?";
    const UPSERT: &str = "-- name: see_conversation
        INSERT INTO conversations (fields, seen, messages_count, attachments_count, team_id, key)
        VALUES (?, ?, ?, ?, ?, ?)
        ON CONFLICT (team_id, key) DO UPDATE SET fields = excluded.fields, seen = excluded.seen,
            messages_count = excluded.messages_count, attachments_count = excluded.attachments_count";
    let query = query(if entry.only_known { UPDATE } else { UPSERT })
        .bind(serde_json::to_string(&entry.conversation).expect("a conversation always serialises"))
        .bind(entry.fingerprint)
        .bind(column(entry.messages_count))
        .bind(column(entry.attachments_count))
        .bind(team.0)
        .bind(&key[..]);
    let query = if entry.only_known { query.bind(entry.fingerprint) } else { query };
    let done = query.execute(connection).await.map_err(at("see_conversation"))?;
    Ok(done.rows_affected() > 0)
}

#[cfg(test)]
mod tests;
