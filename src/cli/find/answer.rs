//! What `find` answers, for programs and for people.

use serde::Serialize;

use super::{FindArgs, cursor_text};
use crate::catalog::{FindPage, Found, GlobPattern, State};
use crate::cli::output;
use crate::cli::receipt::{number, size};
use crate::digest::Digest;
use crate::store::{blob_key, quarantine_key};

#[derive(Debug, Serialize)]
struct FoundAnswer {
    #[serde(flatten)]
    found: Found,
    /// The key of its bytes in the archive.
    key: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Answer {
    ok: bool,
    /// How many match in all, counted up to 1,000 or to the limit.
    total: u64,
    /// Whether there are more than `total`.
    more: bool,
    /// Whether everything was looked at; else `total` is what was found so far.
    complete: bool,
    shown: usize,
    /// The `--after` of the next page.
    next: Option<String>,
    /// With `--same-as`: the file's hash, and whether its bytes are in the archive.
    #[serde(flatten)]
    same: Option<Same>,
    found: Vec<FoundAnswer>,
}

#[derive(Debug, Serialize)]
pub(super) struct Same {
    pub(super) sha256: Digest,
    pub(super) archived: bool,
}

/// The answer for programs.
pub(super) fn answer(page: FindPage, same: Option<Same>, ok: bool) -> Answer {
    Answer {
        ok,
        total: page.total,
        more: page.more,
        complete: page.complete,
        shown: page.found.len(),
        next: page.next.map(cursor_text),
        same,
        found: page
            .found
            .into_iter()
            .map(|found| {
                let key = found.sha256.map(match found.state {
                    State::Quarantined => quarantine_key,
                    _ => blob_key,
                });
                FoundAnswer { found, key }
            })
            .collect(),
    }
}

/// The answer for people.
pub(super) fn text(args: &FindArgs, page: &FindPage, same: Option<&Same>) -> String {
    let mut out = match same {
        Some(same) if same.archived => format!("These bytes are archived: SHA-256 {}.\n\n", same.sha256),
        Some(same) if page.total > 0 => format!(
            "These bytes were archived, and are missing from the archive; run `jellyjar verify --repair`: SHA-256 {}.\n\n",
            same.sha256
        ),
        Some(same) => return format!("These bytes are not archived: SHA-256 {}.", same.sha256),
        None => String::new(),
    };
    if page.found.is_empty() {
        out.push_str(match (page.complete, args.after) {
            (false, _) => "Nothing found so far.",
            (true, Some(_)) => "Nothing follows.",
            (true, None) => "Nothing matches.",
        });
        out.push_str(&unfinished(page));
        out.push_str(&hint(args));
        return out;
    }
    let show_state = args.state == "any";
    let mut head = vec!["ID", "SENT", "SIZE", "TYPE", "NAME", "SENDER", "SUBJECT"];
    if show_state {
        head.insert(1, "STATE");
    }
    let rows = page.found.iter().map(|one| {
        let message = &one.message;
        let text = |text: Option<&str>, chars| output::printable(text.unwrap_or("-"), chars);
        let declared = message.content_type.as_deref();
        let mut row = vec![
            one.id.clone(),
            text(message.sent_at.as_deref().map(|sent| sent.get(..10).unwrap_or(sent)), 10),
            one.size_bytes.or(message.declared_size).map_or_else(|| "-".into(), size),
            text(one.sniffed_type.as_deref().or(declared), 30),
            text(message.name.as_deref(), 50),
            text(message.people.from.first().map(String::as_str), 40),
            text(message.subject.as_deref(), 50),
        ];
        if show_state {
            row.insert(1, one.state.as_str().to_owned());
        }
        row
    });
    out.push_str(&output::table(&head, rows));
    let total = match (page.more, page.complete) {
        (true, _) => format!("more than {}", number(page.total)),
        (false, true) => number(page.total),
        (false, false) => format!("at least {}", number(page.total)),
    };
    out.push_str(&format!("\n\n{} of {total} shown", number(page.found.len() as u64)));
    match page.next {
        Some(next) => out.push_str(&format!("; --after {} shows the next.", cursor_text(next))),
        None => out.push('.'),
    }
    out.push_str(" `jellyjar get ID -o FILE` gives a file.");
    out.push_str(&unfinished(page));
    out
}

/// Says that not everything was looked at, and how to go on.
fn unfinished(page: &FindPage) -> String {
    match page.next {
        _ if page.complete => String::new(),
        Some(next) => {
            format!("\nNot everything was looked at: --after {} goes on, --all looks at everything.", cursor_text(next))
        }
        None => {
            "\nNot everything was looked at, only the newest that have these words: --all looks at everything.".into()
        }
    }
}

/// Why nothing may have been found.
fn hint(args: &FindArgs) -> String {
    let literal = |pattern: &Option<GlobPattern>| pattern.as_ref().is_some_and(GlobPattern::is_literal);
    let mut hints = Vec::new();
    for (pattern, flag, example) in [
        (&args.name, "--name", "*invoice*"),
        (&args.sender, "--sender", "*@acme.com"),
        (&args.recipient, "--recipient", "*@acme.com"),
        (&args.content_type, "--type", "image/*"),
    ] {
        if literal(pattern) {
            hints.push(format!("{flag} must match the whole text: '{example}' is a pattern"));
        }
    }
    if args.state == "archived" && args.same_as.is_none() {
        hints.push("--state any looks beyond what is archived".into());
    }
    hints.iter().fold(String::new(), |text, hint| text + &format!("\n{hint}."))
}
