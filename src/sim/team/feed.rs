//! The feed: all conversations, those with the newest mail first. It moves while it is paged: a page begins below the
//! place where the one before ended, so that a conversation which jumps to the top meanwhile is missed.

use super::{Changes, Conversation, Team};

/// Which conversations are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::sim) struct Filter {
    /// Those of this status.
    pub(in crate::sim) status: Option<&'static str>,
    /// Those with this label.
    pub(in crate::sim) label: Option<u64>,
    /// Those in this mailbox.
    pub(in crate::sim) mailbox: Option<u64>,
}

impl Filter {
    fn admits(&self, conversation: &Conversation) -> bool {
        self.status.is_none_or(|status| status == conversation.status)
            && self.label.is_none_or(|label| conversation.labels.contains(&label))
            && self.mailbox.is_none_or(|mailbox| conversation.mailboxes.contains(&mailbox))
    }
}

impl Team {
    /// The next `limit` conversations below a place in the feed, and whether there are more.
    pub(in crate::sim) fn page(
        &self,
        changes: &Changes,
        below: u64,
        limit: usize,
        filter: &Filter,
    ) -> (Vec<Conversation>, bool) {
        let mut page: Vec<_> = self
            .feed(changes, below)
            .filter_map(|number| self.numbered(changes, number))
            .filter(|conversation| filter.admits(conversation))
            .take(limit + 1)
            .collect();
        let has_more = page.len() > limit;
        page.truncate(limit);
        (page, has_more)
    }

    /// The conversations just above a place, the highest first.
    pub(in crate::sim) fn above(&self, changes: &Changes, from: u64, count: u64) -> Vec<Conversation> {
        let mut found: Vec<_> = (from..from.saturating_add(count))
            .filter_map(|rank| changes.moved.get(&rank).copied().or_else(|| (rank < self.mail().len()).then_some(rank)))
            .filter_map(|number| self.numbered(changes, number))
            .collect();
        found.reverse();
        found
    }

    /// The numbers of the conversations below a place, from there on down.
    fn feed<'a>(&self, changes: &'a Changes, below: u64) -> impl Iterator<Item = u64> + use<'a> {
        let moved = changes.moved.range(..below).rev().map(|(_, number)| *number);
        let rest = (0..below.min(self.mail().len())).rev();
        // Who has moved is no longer at its old place.
        let has_moved = |number: &u64| changes.conversations.get(number).is_some_and(|now| now.rank != *number);
        moved.chain(rest.filter(move |number| !has_moved(number)))
    }
}
