//! Which contents are on their way to the archive, so that batches that are committed at once never store one twice.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::digest::Digest;

/// The contents that batches are storing now.
#[derive(Debug, Default)]
pub struct Writing {
    digests: Mutex<HashSet<Digest>>,
    ended: Notify,
}

/// The right to store some contents, until it is dropped.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    writing: &'a Writing,
    digests: Vec<Digest>,
}

impl Writing {
    /// Waits until nobody else stores any of `digests`, and claims all of them at once. Safe to drop while it waits.
    pub(super) async fn claim(&self, digests: Vec<Digest>) -> Claim<'_> {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.try_claim(&digests) {
                return Claim { writing: self, digests };
            }
            ended.await;
        }
    }

    fn try_claim(&self, digests: &[Digest]) -> bool {
        let mut claimed = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        let is_free = !digests.iter().any(|digest| claimed.contains(digest));
        if is_free {
            claimed.extend(digests);
        }
        is_free
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut claimed = self.writing.digests.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in &self.digests {
            claimed.remove(digest);
        }
        drop(claimed);
        self.writing.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn one_content_is_stored_by_one_batch_at_a_time() {
        let writing = Writing::default();
        let [one, two, three] = [b"1", b"2", b"3"].map(|text| Digest::of(text));
        let first = writing.claim(vec![one, two]).await;
        assert!(writing.claim(vec![three]).now_or_never().is_some());
        let mut second = Box::pin(writing.claim(vec![two, three]));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        let second = second.await;
        assert!(writing.claim(vec![three]).now_or_never().is_none(), "nothing is claimed by halves");
        drop(second);
        assert!(writing.claim(vec![one, two, three]).now_or_never().is_some());
    }
}
