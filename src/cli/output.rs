//! Where results and errors are printed: results on standard output, everything else on standard error.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use super::{INCOMPLETE, USAGE, UsageError};
use crate::catalog::CatalogError;
use crate::config::ConfigError;
use crate::http::HttpError;
use crate::store::{BucketError, Fault, StoreError};

/// Whether a result could not be printed.
static UNPRINTED: AtomicBool = AtomicBool::new(false);

/// Prints one line (or block) of a result. A closed pipe is no error: the reader has had enough. Any other makes the
/// program end with an exit code of its own (see [`settle`]).
pub(super) fn line(text: impl AsRef<str>) {
    let mut out = std::io::stdout().lock();
    let written =
        out.write_all(text.as_ref().as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            note(format!("error: cannot write the result: {error}"));
            UNPRINTED.store(true, Ordering::Relaxed);
        }
        _ => {}
    }
}

/// The exit code, seen whether the result could be printed: a script must not take silence for success.
pub(super) fn settle(code: ExitCode) -> ExitCode {
    let unprinted = UNPRINTED.load(Ordering::Relaxed) && code == ExitCode::SUCCESS;
    if unprinted { ExitCode::from(INCOMPLETE) } else { code }
}

/// Prints one line to people, on standard error.
pub(super) fn note(text: impl AsRef<str>) {
    let _ = writeln!(std::io::stderr().lock(), "{}", text.as_ref());
}

/// Prints a result as one JSON object.
pub(super) fn json(value: &impl Serialize) {
    line(serde_json::to_string(value).unwrap_or_else(|error| format!("{{\"ok\":false,\"error\":\"{error}\"}}")));
}

/// Says why the program could not do what was asked, and gives the exit code for it.
pub(super) fn fail(error: &anyhow::Error, as_json: bool) -> ExitCode {
    if as_json {
        json(&serde_json::json!({ "ok": false, "error": format!("{error:#}") }));
    } else {
        note(format!("error: {error:#}"));
    }
    ExitCode::from(if is_usage(error) { USAGE } else { INCOMPLETE })
}

/// Whether an error is one of arguments or settings, rather than of the work.
pub(super) fn is_usage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<UsageError>()
            || cause.is::<ConfigError>()
            || cause.is::<HttpError>()
            || cause.is::<crate::filter::FilterError>()
            || cause.is::<crate::source::SourceError>()
            || matches!(
                cause.downcast_ref::<CatalogError>(),
                Some(
                    CatalogError::Newer { .. }
                        | CatalogError::Foreign { .. }
                        | CatalogError::OtherArchive { .. }
                        | CatalogError::ReadOnly { .. }
                        | CatalogError::NetworkFileSystem { .. }
                        | CatalogError::Open { .. }
                        | CatalogError::Backup { .. }
                )
            )
            || cause.downcast_ref::<BucketError>().is_some_and(is_refused)
            // As transparent as it is, it hides what it holds from the chain.
            || matches!(cause.downcast_ref::<StoreError>(), Some(StoreError::Bucket(error)) if is_refused(error))
            || matches!(
                cause.downcast_ref::<StoreError>(),
                Some(
                    StoreError::NotAnArchive { .. }
                        | StoreError::NotAFolder { .. }
                        | StoreError::Absent { .. }
                        | StoreError::Unsupported { .. }
                )
            )
    })
}

/// Whether a bucket is not there, or not for these credentials, rather than in trouble.
fn is_refused(error: &BucketError) -> bool {
    !matches!(error.fault, Fault::Unreachable | Fault::Refused)
}

/// Text from outside, fit for a terminal: control characters become visible, long text is cut.
pub(super) fn printable(text: &str, max_chars: usize) -> String {
    let mut out = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == max_chars {
            out.push('…');
            break;
        }
        // Bidirectional controls and zero-width characters can make one name look like another.
        let hidden = matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
        if character.is_control() || hidden {
            out.push('\u{fffd}');
        } else {
            out.push(character);
        }
    }
    out
}

/// A time as people read it: UTC, to the second.
pub(super) fn time(milliseconds: i64) -> String {
    jiff::Timestamp::from_millisecond(milliseconds)
        .map_or_else(|_| "?".into(), |time| time.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// A plain table with a head.
pub(super) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(head.to_vec());
    for row in rows {
        table.add_row(row);
    }
    table.trim_fmt()
}
