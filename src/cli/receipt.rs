//! The receipt that ends every run: where every attachment that was seen is now, and whether that adds up.

use std::time::Duration;

use serde::Serialize;

use super::output;
use crate::audit::Rechecked;
use crate::catalog::SeenTotals;
use crate::walk::Counts;

/// What was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Input {
    /// Units of Jelly content: messages, conversations, events.
    pub(super) payloads: u64,
    /// JSON values without Jelly content.
    pub(super) ignored: u64,
    /// Lines, or attachment entries in them, that could not be read.
    pub(super) rejected: u64,
}

/// What is said of requests where another process has done the work.
const OF_ANOTHER: &str = "by this command: the jellyjar that works on this archive makes the others";

/// The receipt. `attachments` are the distinct ids seen; each is in exactly one of the places below it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own that a script may ask for")]
pub(super) struct Receipt {
    #[serde(flatten)]
    pub(super) input: Input,
    pub(super) attachments: u64,
    pub(super) archived: u64,
    pub(super) known: u64,
    pub(super) skipped: u64,
    pub(super) failed: u64,
    pub(super) quarantined: u64,
    pub(super) erased: u64,
    pub(super) pending: u64,
    /// Attachments that earlier runs had left pending and this one has finished; not among `attachments`.
    pub(super) earlier: u64,
    /// Archived ones whose content was there already.
    pub(super) duplicates: u64,
    pub(super) bytes_fetched: u64,
    pub(super) bytes_stored: u64,
    pub(super) api_requests: u64,
    /// Whether another process has done the work: its requests and bytes are not among those above.
    pub(super) followed: bool,
    /// With `--check`: what a look at the known contents found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) check: Option<Rechecked>,
    pub(super) elapsed_seconds: f64,
    /// Whether the places sum up to the attachments.
    pub(super) adds_up: bool,
    /// Whether the catalog could not be asked for the places at the end: those above say nothing then.
    pub(super) totals_unknown: bool,
    pub(super) interrupted: bool,
    /// Whether a token was refused.
    pub(super) token_refused: bool,
    /// Of a backfill: what its walk has counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) walk: Option<Counts>,
    /// Whether everything that was asked for is done.
    pub(super) ok: bool,
    /// What kept the run from ending well, each a sentence.
    pub(super) notes: Vec<String>,
}

impl Receipt {
    /// Fills in the places from what the catalog knows now.
    pub(super) fn places(&mut self, seen: &SeenTotals) {
        self.totals_unknown = false;
        self.attachments = seen.attachments;
        self.known = seen.known;
        self.archived = seen.states.archived;
        self.skipped = seen.states.skipped;
        self.failed = seen.states.failed;
        self.quarantined = seen.states.quarantined;
        self.erased = seen.states.erased;
        self.pending = seen.states.pending;
    }

    /// Draws the conclusion.
    pub(super) fn close(&mut self, elapsed: Duration) {
        self.elapsed_seconds = (elapsed.as_secs_f64() * 1000.0).round() / 1000.0;
        let placed =
            self.archived + self.known + self.skipped + self.failed + self.quarantined + self.erased + self.pending;
        self.adds_up = placed == self.attachments && !self.totals_unknown;
        if !self.adds_up && !self.totals_unknown {
            self.notes.push(format!(
                "this receipt does not add up: {placed} attachments have a place, {} were seen; run `jellyjar verify`",
                self.attachments
            ));
        }
        let clean = self.failed + self.quarantined + self.pending + self.input.rejected == 0;
        self.ok = self.adds_up && clean && !self.interrupted && !self.token_refused && self.notes.is_empty();
    }

    /// The exit code that scripts can trust.
    pub(super) fn exit_code(&self) -> u8 {
        if self.interrupted {
            super::INTERRUPTED
        } else if self.token_refused {
            super::TOKEN_REFUSED
        } else if self.ok {
            super::DONE
        } else {
            super::INCOMPLETE
        }
    }

    /// Prints the receipt.
    pub(super) fn print(&self, as_json: bool) {
        if as_json {
            output::json(self);
        } else {
            output::line(self.text());
        }
    }

    /// The receipt as people read it.
    pub(super) fn text(&self) -> String {
        let mut rows: Vec<(&str, String, &str)> = vec![
            ("payloads", number(self.input.payloads), "messages, conversations and events that were read"),
            ("ignored", number(self.input.ignored), "JSON without Jelly content"),
            ("rejected", number(self.input.rejected), "could not be read: `jellyjar rejected` lists them"),
            ("", String::new(), ""),
            ("attachments", number(self.attachments), "distinct ids that were seen, of which"),
            ("  archived", number(self.archived), "since this run began"),
            ("  known", number(self.known), "archived before"),
            ("  skipped", number(self.skipped), "by the filter rules"),
            ("  failed", number(self.failed), "`jellyjar failed` tells why"),
            ("  quarantined", number(self.quarantined), "`jellyjar quarantined` tells why"),
            ("  erased", number(self.erased), "on request, before"),
            ("  pending", number(self.pending), "run the same command again to go on"),
            ("", String::new(), ""),
            ("earlier", number(self.earlier), "left pending by earlier runs, finished now; not counted above"),
            ("duplicates", number(self.duplicates), "archived, but the content was there already"),
            ("bytes fetched", size(self.bytes_fetched), ""),
            ("bytes stored", size(self.bytes_stored), ""),
            ("API requests", number(self.api_requests), if self.followed { OF_ANOTHER } else { "" }),
            ("elapsed", format!("{:.1} s", self.elapsed_seconds), ""),
        ];
        if let Some(check) = &self.check {
            let elapsed = rows.len() - 1;
            let more = [
                ("checked", number(check.checked), "known contents that were looked at"),
                ("  missing", number(check.missing), "gone or of another size: fetched again"),
            ];
            rows.splice(elapsed..elapsed, more);
        }
        if let Some(walk) = &self.walk {
            let more = [
                ("listed", number(walk.listed), "conversations of the team that fit"),
                ("  to look at", number(walk.conversations), "conversations with attachments"),
                ("  read", number(walk.read), "those of them that were new or changed"),
                ("  gone", number(walk.gone), "vanished before they were read"),
                ("  unread", number(walk.failed), "could not be read: run the same command again"),
                ("list requests", number(walk.list_requests), "pages of conversations, in all parts of this backfill"),
                ("page requests", number(walk.message_requests), "pages of messages"),
                ("", String::new(), ""),
            ];
            rows.splice(0..0, more);
        }
        if self.totals_unknown {
            rows.retain(|(label, ..)| !label.starts_with("  ") && !matches!(*label, "attachments" | "earlier"));
        }
        if self.followed {
            rows.retain(|(label, ..)| !matches!(*label, "duplicates" | "bytes fetched" | "bytes stored"));
        }
        rows.dedup_by(|row, before| row.0.is_empty() && before.0.is_empty());
        // Places that are empty and usually are need no line, but every number that counts is shown.
        rows.retain(|(label, value, _)| {
            value != "0"
                || !matches!(
                    *label,
                    "ignored"
                        | "rejected"
                        | "earlier"
                        | "  gone"
                        | "  unread"
                        | "  erased"
                        | "  failed"
                        | "  quarantined"
                        | "  pending"
                )
        });
        let width = rows.iter().map(|(_, value, _)| value.len()).max().unwrap_or(0);
        let mut text = String::new();
        for (label, value, meaning) in rows {
            let line = format!("{label:<14} {value:>width$}  {meaning}");
            text.push_str(line.trim_end());
            text.push('\n');
        }
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        text.push_str(&format!("{}\n", self.verdict()));
        text.trim_end().to_owned()
    }

    fn verdict(&self) -> String {
        if self.interrupted {
            return "Interrupted. Nothing is lost: run the same command again to go on.".into();
        }
        if self.token_refused {
            return "The API token is refused. Check it, then run the same command again.".into();
        }
        if self.totals_unknown {
            return "The totals are unknown. Nothing is lost: run the same command again, which knows what is archived.".into();
        }
        if !self.ok {
            return "Not everything is archived; see above.".into();
        }
        let nothing_new = self.archived == 0 && self.api_requests == 0 && !self.followed;
        if self.attachments == 0 && self.earlier == 0 {
            "There was no attachment to archive.".into()
        } else if nothing_new {
            "Everything was archived or decided before: no API request was made.".into()
        } else {
            "Everything is archived.".into()
        }
    }
}

/// A number with its thousands set apart.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size as people read it.
pub(super) fn size(bytes: u64) -> String {
    if bytes == 0 { "0".into() } else { bytesize::ByteSize(bytes).display().iec().to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_that_does_not_add_up_says_so_and_is_not_ok() {
        let mut receipt = Receipt { attachments: 3, archived: 2, ..Receipt::default() };
        receipt.close(Duration::from_secs(1));
        assert!(!receipt.adds_up && !receipt.ok);
        assert_eq!(receipt.exit_code(), 1);
        assert!(receipt.text().contains("does not add up"));
    }

    #[test]
    fn totals_that_are_unknown_are_told_as_such_and_not_as_nothing() {
        let mut receipt = Receipt { totals_unknown: true, api_requests: 806, ..Receipt::default() };
        receipt.close(Duration::from_secs(1));
        assert_eq!((receipt.adds_up, receipt.ok, receipt.exit_code()), (false, false, 1));
        let text = receipt.text();
        assert!(text.contains("806") && text.contains("The totals are unknown") && text.contains("again"), "{text}");
        assert!(!text.contains("archived ") && !text.contains("attachments ") && !text.contains("add up"), "{text}");
    }

    #[test]
    fn what_another_process_has_done_is_not_told_as_nothing() {
        let mut receipt = Receipt { attachments: 2, known: 2, ..Receipt::default() };
        receipt.close(Duration::from_secs(1));
        assert!(receipt.text().contains("bytes fetched") && receipt.text().contains("no API request was made"));
        receipt.followed = true;
        let text = receipt.text();
        assert!(text.contains(OF_ANOTHER), "{text}");
        assert!(!text.contains("bytes") && !text.contains("no API request was made"), "{text}");
    }

    #[test]
    fn numbers_are_set_apart_by_thousands() {
        assert_eq!([number(0), number(999), number(1000), number(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
    }
}
