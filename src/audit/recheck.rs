//! Looking whether what a run takes as known is still there, by its size alone: cheap where reading all of it is not.

use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use tracing::warn;

use super::{AuditError, Subject};
use crate::store::StoreError;

/// Contents that are asked for at once from the catalog.
const PAGE: usize = 2_000;

/// What a look at known contents found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Rechecked {
    /// Contents that were looked at, each once.
    pub checked: u64,
    /// Those that were missing or of another size.
    pub missing: u64,
    /// Those of them that are fetched again.
    pub requeued: u64,
}

/// Looks at every content that this run has seen and not fetched. What is missing, or has another size than was recorded,
/// is marked as damaged, and one of its attachments becomes pending; `requeued` is told then. The journal is not touched:
/// its line holds again when the bytes are back. Safe to drop.
pub async fn recheck(
    subject: &Subject,
    done: &mut Rechecked,
    mut requeued: impl FnMut() + Send,
) -> Result<(), AuditError> {
    subject.catalog.begin_recheck().await?;
    let mut after = None;
    loop {
        let page = subject.catalog.known_contents(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.sha256);
        let looks = page.into_iter().map(|content| {
            async move {
                let size = subject.archive.blob_size(content.sha256).await?;
                Ok::<_, StoreError>((content, size))
            }
            .boxed()
        });
        let mut looks = futures::stream::iter(looks).buffer_unordered(subject.archive.reads_at_once());
        while let Some((content, size)) = looks.try_next().await? {
            done.checked += 1;
            if size == Some(content.size_bytes) {
                continue;
            }
            done.missing += 1;
            match size {
                None => warn!(blob = %content.sha256, "missing from the archive"),
                Some(size) => warn!(blob = %content.sha256, size, expected = content.size_bytes, "of another size"),
            }
            if subject.catalog.lose_content(subject.archive_row, content).await? {
                done.requeued += 1;
                requeued();
            }
        }
    }
}
