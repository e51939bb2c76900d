//! Which attachments an export gives, and in which order: the same for every catalog of one archive.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use jiff::Timestamp;

use super::{ExportError, ExportOptions, ExportProgress};
use crate::audit::Subject;
use crate::catalog::{ExportConversation, ExportPlace, ExportRow};
use crate::digest::{Digest, Hasher};

/// Chooses the attachments and gives each its place in the order.
pub(super) async fn stage(
    subject: &Subject,
    options: &ExportOptions,
    progress: &ExportProgress,
) -> Result<(), ExportError> {
    let by_conversation = options.template.is_by_conversation();
    let mut after = (i64::MIN, i64::MIN);
    while !progress.stop.load(Ordering::Relaxed) {
        let rows = subject.catalog.export_rows(subject.archive_row, after, 2000).await?;
        let Some(last) = rows.last() else { break };
        after = (last.message_row, last.place);
        let mut places = Vec::new();
        let mut conversations: HashMap<[u8; 16], ExportConversation> = HashMap::new();
        for row in &rows {
            let sent_ms = sent_ms(row);
            let order = order(row, sent_ms);
            let conversation = by_conversation.then(|| {
                conversation_id(&row.team, row.conversation_id.as_deref(), row.message_id.as_deref())
                    .unwrap_or(row.line_digest)
            });
            // Of all its messages, so that the folder's name does not hang on what is selected.
            if let Some(id) = conversation
                && conversations.get(&id).is_none_or(|known| order < known.order)
            {
                let (order, subject) = (order.clone(), row.subject.clone());
                conversations.insert(id, ExportConversation { id, order, sent_ms, subject, folder: None });
            }
            if options.selection.takes(row, sent_ms) {
                places.push(ExportPlace {
                    id: place_id(row, conversation),
                    order,
                    link: (row.message_row, row.place),
                    sha256: row.sha256,
                    size_bytes: row.size_bytes,
                    conversation,
                });
            }
        }
        let conversations: Vec<_> = conversations.into_values().collect();
        subject.catalog.stage_export(&places, &conversations).await?;
    }
    Ok(())
}

/// When a message was sent, if that can be read.
pub(super) fn sent_ms(row: &ExportRow) -> Option<i64> {
    row.sent_at.as_deref()?.trim().parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}

fn first_16(digest: Digest) -> [u8; 16] {
    std::array::from_fn(|at| digest.as_bytes()[at])
}

/// By date, those without one last; then by message, by its line, by the place in it: all of them the same in every
/// catalog of the archive.
fn order(row: &ExportRow, sent_ms: Option<i64>) -> Vec<u8> {
    let mut order = Vec::with_capacity(60);
    order.extend((sent_ms.unwrap_or(i64::MAX).cast_unsigned() ^ 1 << 63).to_be_bytes());
    order.extend(&Digest::of(row.message_id.as_deref().unwrap_or_default().as_bytes()).as_bytes()[..8]);
    order.extend(row.line_digest);
    order.extend(row.place.to_be_bytes());
    order.extend(row.key.as_bytes());
    order
}

/// What makes a conversation one; a message without one is its own.
pub(super) fn conversation_id(team: &str, conversation: Option<&str>, message: Option<&str>) -> Option<[u8; 16]> {
    let (kind, id) = conversation.map(|id| ("c", id)).or(message.map(|id| ("m", id)))?;
    Some(first_16(Digest::of(format!("{team}\0{kind}\0{id}").as_bytes())))
}

/// What makes a place one: the attachment, its bytes and, where that matters, its conversation.
fn place_id(row: &ExportRow, conversation: Option<[u8; 16]>) -> [u8; 16] {
    let mut hasher = Hasher::default();
    hasher.update(row.team.as_bytes());
    hasher.update(&[0]);
    hasher.update(row.key.as_bytes());
    hasher.update(row.sha256.as_bytes());
    hasher.update(&conversation.unwrap_or_default());
    first_16(hasher.finish())
}
