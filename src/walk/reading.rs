//! Reads the messages of listed conversations, page by page: each page is kept in the catalog before the next is asked
//! for, and ingested with others.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use jiff::Timestamp;
use tracing::warn;

use super::ask::Refused;
use super::notes::Going;
use super::{WAIT, WalkError, Walker, page};
use crate::catalog::{Known, State, ToRead};
use crate::ingest::Prepared;
use crate::jelly::{ApiError, Cursor, Id, Message, Received, Trail};
use crate::model::AttachmentKey;

/// Pages are ingested once there are so many, once they are so large together, or once the first has waited so long: each
/// time is a segment of the journal.
const BATCH_PAGES: u32 = 250;
const BATCH_BYTES: usize = 4 << 20;
const BATCH_WAIT: std::time::Duration = std::time::Duration::from_secs(5);
/// So many conversations in a row that cannot be read are no fault of theirs.
const FAILURES_IN_A_ROW: u32 = 10;
/// A conversation is tried so often in one reading.
const TRIES: u32 = 2;
/// Mail may be on its way for so long before it is there.
const LATE_MS: i64 = 60 * 60_000;
/// Messages of a page, where 100 are too large.
const FEWER: [u8; 2] = [10, 1];

/// What is done before pages are ingested, and what is left out of them.
#[derive(Clone, Copy)]
pub(super) struct Care<'a> {
    /// Messages that are younger than this, by the service's clock, are left out.
    pub(super) grace_ms: i64,
    /// Waits until what webhooks have brought is ingested.
    pub(super) webhooks_first: &'a (dyn Fn() -> futures::future::BoxFuture<'a, ()> + Send + Sync),
}

/// What pages brought that nobody knew and the rules accept, in messages that were sent since the sweep before.
#[derive(Debug, Default)]
pub(super) struct Brought {
    /// Attachments.
    pub(super) recovered: u64,
    /// When the oldest of the messages was sent.
    pub(super) oldest_ms: Option<i64>,
}

/// Where a reading is.
struct Reading {
    /// Conversations behind this row are next.
    after: i64,
    /// Those that could not be read more often are left.
    tries: u32,
    failures_in_a_row: u32,
    kept_pages: u32,
    kept_bytes: usize,
    first_kept: Option<Instant>,
}

impl Walker {
    /// Reads all that is to be read, and ingests it. Gives `false` where the walk is no longer asked for.
    pub(super) async fn read(&self, going: &mut Going, care: Option<Care<'_>>) -> Result<bool, WalkError> {
        let mut all = Brought::default();
        self.read_into(going, care, &mut all).await
    }

    /// The same, which adds what it brought to `all`.
    pub(super) async fn read_into(
        &self,
        going: &mut Going,
        care: Option<Care<'_>>,
        all: &mut Brought,
    ) -> Result<bool, WalkError> {
        // What an earlier life read and did not ingest.
        self.ingest(going, care, all).await?;
        self.catalog.forget_failures(going.walk.row).await?;
        let mut reading =
            Reading { after: 0, tries: 0, failures_in_a_row: 0, kept_pages: 0, kept_bytes: 0, first_kept: None };
        loop {
            if !self.is_wanted(going).await? {
                self.ingest(going, care, all).await?;
                return Ok(false);
            }
            let next = self.catalog.next_to_read(&going.walk, reading.after, reading.tries).await?;
            let Some(to_read) = next else {
                if reading.after > 0 {
                    // Behind us, others may have changed.
                    reading.after = 0;
                    continue;
                }
                reading.tries += 1;
                if reading.tries < TRIES {
                    continue;
                }
                break;
            };
            reading.after = to_read.row;
            self.wait_for_room(going, care, all, &mut reading).await?;
            self.read_conversation(going, care, to_read, &mut reading).await?;
            let has_waited = reading.first_kept.is_some_and(|first| first.elapsed() >= BATCH_WAIT);
            if reading.kept_pages >= BATCH_PAGES || reading.kept_bytes >= BATCH_BYTES || has_waited {
                self.ingest(going, care, all).await?;
                (reading.kept_pages, reading.kept_bytes, reading.first_kept) = (0, 0, None);
            }
        }
        self.ingest(going, care, all).await?;
        going.counts.failed = self.catalog.walk_totals(&going.walk).await?.failed;
        Ok(true)
    }

    /// Waits while too much is pending.
    async fn wait_for_room(
        &self,
        going: &mut Going,
        care: Option<Care<'_>>,
        all: &mut Brought,
        reading: &mut Reading,
    ) -> Result<(), WalkError> {
        while self.catalog.pending(self.team.row).await? > self.max_pending {
            self.ingest(going, care, all).await?;
            (reading.kept_pages, reading.kept_bytes, reading.first_kept) = (0, 0, None);
            if !self.is_wanted(going).await? {
                return Ok(());
            }
            // What waits cannot become less while nothing may be sent.
            self.asker.wait_for_leave().await?;
            tokio::time::sleep(WAIT).await;
        }
        Ok(())
    }

    /// Reads a conversation's messages to their end.
    async fn read_conversation(
        &self,
        going: &mut Going,
        care: Option<Care<'_>>,
        mut to_read: ToRead,
        reading: &mut Reading,
    ) -> Result<(), WalkError> {
        let slug = to_read.conversation.id.clone().unwrap_or_default();
        let Ok(id) = slug.parse::<Id>() else { return Ok(()) };
        let row = going.walk.row;
        let mut trail = Trail::default();
        let mut has_restarted = false;
        // Pages of an earlier reading have shown some.
        let mut has_messages = to_read.cursor.is_some();
        loop {
            let cursor = to_read.cursor.clone().and_then(|cursor| Cursor::try_from(cursor).ok());
            let got = self.page_of(&id, cursor.as_ref()).await;
            going.counts.message_requests += self.asker.take_requests();
            let (texts, next_cursor, served_ms) = match got {
                Ok(got) => got,
                // Kept from an earlier reading and no longer good, or lost its way once.
                Err(Refused::Invalid(_) | Refused::Circle) if !has_restarted => {
                    has_restarted = true;
                    self.catalog.forget_cursors(&to_read).await?;
                    trail = Trail::default();
                    to_read.cursor = None;
                    continue;
                }
                Err(Refused::Gone) if self.is_gone(&id, going).await? => {
                    going.counts.gone += 1;
                    self.catalog.forget_conversation(&to_read).await?;
                    reading.failures_in_a_row = 0;
                    return Ok(());
                }
                Err(Refused::Walk(error)) => return Err(error),
                Err(other) => {
                    let reason = match other {
                        Refused::Invalid(words) => format!("its cursors are refused ({words})"),
                        Refused::Circle => "its pages lead in a circle".into(),
                        Refused::TooLarge(reason) | Refused::Failed(reason) => reason,
                        Refused::Gone => "Jelly has the conversation, and says that there are no messages (404)".into(),
                        Refused::Walk(error) => error.to_string(),
                    };
                    return self.could_not_read(going, &to_read, &reason, reading).await;
                }
            };
            match trail.follow(texts.len(), next_cursor.as_ref()) {
                Ok(()) => {}
                Err(ApiError::CursorLoop { .. }) => {
                    self.catalog.forget_cursors(&to_read).await?;
                    return self.could_not_read(going, &to_read, "its pages lead in a circle", reading).await;
                }
                // The next try goes on behind those that were kept.
                Err(error) => return self.could_not_read(going, &to_read, &error.to_string(), reading).await,
            }
            has_messages |= !texts.is_empty();
            if let (None, false, Some(count @ 1..)) = (&next_cursor, has_messages, to_read.messages_count) {
                let reason = format!("it is listed with messages ({count}), and shows none");
                return self.could_not_read(going, &to_read, &reason, reading).await;
            }
            let upto = care.and_then(|care| Timestamp::from_millisecond(served_ms - care.grace_ms).ok());
            let (conversation, source) = (to_read.conversation.clone(), self.source.clone());
            let read = tokio::task::spawn_blocking(move || page::read(&texts, &conversation, upto, &source));
            let read = read.await.map_err(|_| WalkError::Interrupted)?;
            going.counts.unreadable += read.rejects.len() as u64;
            self.intake.keep_rejects(&read.rejects).await?;
            going.counts.messages += read.messages.len() as u64;
            let content = (!read.messages.is_empty()).then(|| page::content(read.messages));
            let next = next_cursor.as_ref().map(Cursor::as_str);
            going.counts.read += u64::from(next.is_none());
            let notes = going.notes();
            let at = (cursor.as_ref().map(Cursor::as_str), next);
            self.catalog.keep_page(row, &to_read, at, content.as_deref(), &notes).await?;
            if let Some(content) = content {
                reading.kept_pages += 1;
                reading.kept_bytes += content.len();
                reading.first_kept.get_or_insert_with(Instant::now);
            }
            reading.failures_in_a_row = 0;
            match next {
                Some(next) => to_read.cursor = Some(next.to_owned()),
                None => return Ok(()),
            }
        }
    }

    /// One page of messages: their texts, where the next begins, and the service's clock.
    async fn page_of(&self, id: &Id, cursor: Option<&Cursor>) -> Result<(Vec<String>, Option<Cursor>, i64), Refused> {
        let client = self.asker.client();
        let mut page = self.asker.ask(|| client.messages_page(id, cursor, None)).await;
        for fewer in FEWER {
            if matches!(page, Err(Refused::TooLarge(_))) {
                page = self.asker.ask(|| client.messages_page(id, cursor, Some(fewer))).await;
            }
        }
        let page = page?;
        let mut texts: Vec<String> = page.unreadable.iter().map(|one| one.raw.get().to_owned()).collect();
        for message in &page.entries {
            texts.push(if lacks_attachments(message) {
                match self.asker.ask(|| client.message(&message.id)).await {
                    Ok(whole) => whole.raw().get().to_owned(),
                    Err(Refused::Gone) => {
                        return Err(Refused::Failed("a message that its page lists is not there (404)".into()));
                    }
                    Err(other) => return Err(other),
                }
            } else {
                message.raw().get().to_owned()
            });
        }
        Ok((texts, page.next_cursor, self.served_ms(page.served_at)))
    }

    /// Whether a conversation whose messages are not there (404) is gone itself. A 404 that passes must cost nothing.
    async fn is_gone(&self, id: &Id, going: &mut Going) -> Result<bool, WalkError> {
        let client = self.asker.client();
        let asked = self.asker.ask(|| client.conversation(id)).await;
        going.counts.message_requests += self.asker.take_requests();
        match asked {
            Err(Refused::Walk(error)) => Err(error),
            asked => Ok(matches!(asked, Err(Refused::Gone))),
        }
    }

    /// Leaves a conversation for later; too many in a row are an outage.
    async fn could_not_read(
        &self,
        going: &Going,
        to_read: &ToRead,
        reason: &str,
        reading: &mut Reading,
    ) -> Result<(), WalkError> {
        warn!(team = %self.team.key, error = %reason, "a conversation cannot be read; the others go on");
        self.catalog.failed_to_read(going.walk.row, to_read).await?;
        reading.failures_in_a_row += 1;
        if reading.failures_in_a_row >= FAILURES_IN_A_ROW {
            return Err(WalkError::Unanswered(format!("{FAILURES_IN_A_ROW} conversations in a row: {reason}")));
        }
        Ok(())
    }

    /// Adds to `all` what is a gap: older messages of the same conversations are what a backfill would have brought.
    async fn tell_gap(
        &self,
        going: &Going,
        known: &HashMap<AttachmentKey, Known>,
        sent: &[(AttachmentKey, Option<i64>)],
        all: &mut Brought,
    ) -> Result<(), WalkError> {
        let since_ms = going.state.listing.floor_ms().map_or(i64::MIN, |floor| floor - LATE_MS);
        let is_new =
            |(key, at): &&(AttachmentKey, Option<i64>)| !known.contains_key(key) && at.is_none_or(|at| at >= since_ms);
        let new: HashMap<AttachmentKey, Option<i64>> = sent.iter().filter(is_new).copied().collect();
        let keys: Vec<AttachmentKey> = new.keys().copied().collect();
        let now = self.catalog.known(self.team.row, &keys).await?;
        let accepted = new.iter().filter(|(key, _)| now.get(key).is_some_and(|known| known.state != State::Skipped));
        for (_, at) in accepted {
            all.recovered += 1;
            all.oldest_ms = all.oldest_ms.into_iter().chain(*at).min();
        }
        Ok(())
    }

    /// Ingests what was read and kept. Repeating it changes nothing.
    async fn ingest(&self, going: &mut Going, care: Option<Care<'_>>, all: &mut Brought) -> Result<(), WalkError> {
        let mut is_first = true;
        loop {
            let pages = self.catalog.kept_pages(going.walk.row, BATCH_PAGES, BATCH_BYTES).await?;
            let Some(last) = pages.last() else { return Ok(()) };
            if let Some(care) = care.filter(|_| std::mem::take(&mut is_first)) {
                (care.webhooks_first)().await;
            }
            let mut prepared = Prepared::new(self.clock.now());
            let mut sent: Vec<(AttachmentKey, Option<i64>)> = Vec::new();
            for page in &pages {
                let payload = page::payload(&page.content).map_err(|error| {
                    WalkError::Unreadable(format!("{error}; remove the catalog, which is made anew from the archive"))
                })?;
                for message in &payload.messages {
                    let sent_ms = message.sent_at.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
                    let sent_ms = sent_ms.map(Timestamp::as_millisecond);
                    let keys = message.attachments.iter().map(|one| AttachmentKey::new(&self.team.key, &one.id));
                    sent.extend(keys.map(|key| (key, sent_ms)));
                }
                prepared.push(&self.team, &payload);
            }
            let keys: HashSet<AttachmentKey> = sent.iter().map(|(key, _)| *key).collect();
            let keys: Vec<AttachmentKey> = keys.into_iter().collect();
            let known = self.catalog.known(self.team.row, &keys).await?;
            let taken = self.intake.take(&self.team, prepared).await?;
            let is_archived = |key| known.get(key).is_some_and(|known| known.state == State::Archived);
            let met: Vec<(AttachmentKey, bool)> = keys.iter().map(|key| (*key, is_archived(key))).collect();
            going.counts.enqueued += taken.enqueued;
            going.counts.skipped += taken.skipped;
            self.catalog.pages_ingested(going.walk.row, self.team.row, last.row, &met, &going.notes()).await?;
            if taken.enqueued > 0 {
                if care.is_some() {
                    self.tell_gap(going, &known, &sent, all).await?;
                }
                (self.enqueued)(taken.enqueued);
            }
        }
    }
}

/// Whether a message says that it has attachments and shows none.
fn lacks_attachments(message: &Received<Message>) -> bool {
    message.attachments.is_empty() && message.attachments_count.is_some_and(|count| count > 0)
}
