//! Links between message lines and attachments.

use super::{count_column, size_column};
use crate::catalog::engine::{Connection, Query, query};
use crate::catalog::rows::{chunks, values};
use crate::catalog::{Result, TeamRow, at};
use crate::model::{Attachment, AttachmentKey};

/// An attachment of a message to link.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link<'a> {
    /// The message's line.
    pub(super) digest: &'a [u8; 16],
    pub(super) key: AttachmentKey,
    /// The rows of message and attachment, if both are new.
    pub(super) rows: Option<(i64, i64)>,
    pub(super) place: usize,
    pub(super) attachment: &'a Attachment,
}

/// Puts links where they are missing.
pub(super) async fn insert(connection: &mut Connection, team: TeamRow, links: Vec<Link<'_>>) -> Result<()> {
    let (new, others): (Vec<Link<'_>>, Vec<Link<'_>>) = links.into_iter().partition(|link| link.rows.is_some());
    insert_new(connection, &new).await?;
    insert_known(connection, team, &others).await
}

/// Links new messages to new attachments, which have no links yet: no row must be looked for.
async fn insert_new(connection: &mut Connection, links: &[Link<'_>]) -> Result<()> {
    for chunk in chunks(links) {
        let sql = format!(
            "-- name: ingest_new_links
            INSERT OR FAIL INTO links (message_row, attachment_row, place, name, content_type, declared_size, inline)
            VALUES {}",
            values(chunk.len(), 7)
        );
        let mut query = query(sql);
        for link in chunk {
            let (message, attachment) = link.rows.unzip();
            query = bind_link(query.bind(message).bind(attachment), link);
        }
        query.execute(&mut *connection).await.map_err(at("ingest_new_links"))?;
    }
    Ok(())
}

/// Links messages to attachments that have rows, where they are not linked.
async fn insert_known(connection: &mut Connection, team: TeamRow, links: &[Link<'_>]) -> Result<()> {
    for chunk in chunks(links) {
        let sql = format!(
            "-- name: ingest_links
            INSERT OR FAIL INTO links (message_row, attachment_row, place, name, content_type, declared_size, inline)
            SELECT m.id, a.id, v.column3, v.column4, v.column5, v.column6, v.column7
            FROM (SELECT ? AS team_id) shared CROSS JOIN (VALUES {}) v ON true
            CROSS JOIN messages m ON m.team_id = shared.team_id AND m.line_digest = v.column1
            CROSS JOIN attachments a ON a.team_id = shared.team_id AND a.key = v.column2
            WHERE true
            ON CONFLICT (message_row, place) DO NOTHING",
            values(chunk.len(), 7)
        );
        let mut query = query(sql).bind(team.0);
        for link in chunk {
            query = bind_link(query.bind(&link.digest[..]).bind(&link.key.as_bytes()[..]), link);
        }
        query.execute(&mut *connection).await.map_err(at("ingest_links"))?;
    }
    Ok(())
}

/// The columns of a link that the message's line tells.
fn bind_link<'q>(query: Query<'q>, link: &'q Link<'_>) -> Query<'q> {
    query
        .bind(count_column(link.place))
        .bind(link.attachment.name.as_deref())
        .bind(link.attachment.content_type.as_deref())
        .bind(size_column(link.attachment.size_bytes))
        .bind(link.attachment.inline)
}
