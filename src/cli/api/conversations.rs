//! `jellyjar api conversations`: lists of them, and one with its messages.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::super::{DONE, Global, output};
use super::access::Access;
use super::labels::Named;
use super::members::mailbox_id;
use super::messages::rows;
use super::print::{cell, cells, count, cursor, document, list, raws};
use crate::jelly::{ApiError, Conversation, ConversationFilter, Cursor, Id, Page, Received, Trail};

/// The arguments of `jellyjar api conversations`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar api conversations list --status open
  jellyjar api conversations show stair-car")]
pub(super) struct ConversationsArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// Conversations, newest activity first
    #[command(after_help = "Examples:
  jellyjar api conversations list --status open --label Bug
  jellyjar api conversations list --mailbox Support --limit 500 --json
  jellyjar api conversations list --cursor eyJpZCI6NH0

Each page of up to 100 costs one request. Mail that comes meanwhile moves conversations, so that a long \
list can hold one twice or miss one.")]
    List(ListArgs),
    /// One conversation, with its messages
    #[command(after_help = "Examples:
  jellyjar api conversations show stair-car
  jellyjar api conversations show stair-car --json > stair-car.json     as `jellyjar replay` reads it, too")]
    Show {
        /// The conversation's slug, as in its address
        #[arg(value_name = "CONVERSATION")]
        conversation: Id,
    },
}

/// How much of a list is wanted.
#[derive(Debug, Clone, Args)]
pub(super) struct Extent {
    /// The most entries that are listed
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Begin where an earlier list ended
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<Cursor>,
}

#[derive(Debug, Clone, Args)]
struct ListArgs {
    /// Only those of this status
    #[arg(long, value_parser = ["open", "archived", "snoozed", "spam", "trash"])]
    status: Option<String>,
    /// Only those with this label, by id or name
    #[arg(long)]
    label: Option<Named>,
    /// Only those in this mailbox, by id or name
    #[arg(long)]
    mailbox: Option<Named>,
    #[command(flatten)]
    extent: Extent,
}

pub(super) async fn run(args: ConversationsArgs, access: &Access, global: &Global) -> anyhow::Result<ExitCode> {
    match args.what {
        What::List(args) => several(args, access, global).await?,
        What::Show { conversation } => one(&conversation, access, global).await?,
    }
    Ok(ExitCode::from(DONE))
}

/// Pages of a list as far as they are wanted: the page's length, the pages, and where the list goes on.
pub(super) async fn gather<T, F>(
    extent: &Extent,
    read: impl Fn(Option<Cursor>, u8) -> F,
) -> anyhow::Result<(Vec<Page<T>>, Option<Cursor>)>
where
    F: Future<Output = anyhow::Result<Page<T>>>,
{
    let mut left = extent.limit;
    let mut next = extent.cursor.clone();
    let mut pages: Vec<Page<T>> = Vec::new();
    let mut trail = Trail::from(next.as_ref());
    loop {
        let page = read(next.clone(), u8::try_from(left.min(100)).unwrap_or(100)).await?;
        left = left.saturating_sub(page.len() as u64);
        next.clone_from(&page.next_cursor);
        match (trail.follow(page.len(), next.as_ref()), &next) {
            (Err(error @ ApiError::EmptyPages { .. }), Some(next)) => {
                anyhow::bail!("{error}; go on behind them with --cursor {}", quoted(next))
            }
            (followed, _) => followed?,
        }
        pages.push(page);
        if next.is_none() || left == 0 {
            return Ok((pages, next));
        }
    }
}

/// Says what a list leaves out.
pub(super) fn tell_rest<T>(pages: &[Page<T>], next: Option<&Cursor>, access: &Access) {
    for entry in pages.iter().flat_map(|page| &page.unreadable) {
        tracing::warn!("an entry cannot be read, and --json shows it as it came: {}", entry.reason);
    }
    if let Some(next) = next {
        access.note(format!("There are more: --cursor {}", quoted(next)));
    }
}

/// A cursor, fit for a terminal and to be typed into a shell, with nothing cut.
fn quoted(cursor: &Cursor) -> String {
    let text = output::printable(cursor.as_str(), Cursor::MAX_BYTES);
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=_.:-".contains(&byte));
    if plain { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// All entries of pages, as JSON.
pub(super) fn as_json<T>(pages: &[Page<T>]) -> String {
    list(
        pages.iter().flat_map(|page| raws(&page.entries).chain(page.unreadable.iter().map(|entry| entry.raw.as_ref()))),
    )
}

async fn several(args: ListArgs, access: &Access, global: &Global) -> anyhow::Result<()> {
    let label_id = match &args.label {
        Some(label) => Some(label.label(access).await?),
        None => None,
    };
    let mailbox_id = match &args.mailbox {
        Some(mailbox) => Some(mailbox_id(mailbox, access).await?),
        None => None,
    };
    let filter = ConversationFilter { status: args.status, label_id, mailbox_id, limit: None };
    let (pages, next) = gather(&args.extent, |cursor, limit| {
        let filter = ConversationFilter { limit: Some(limit), ..filter.clone() };
        async move { access.ask(|| access.client.conversations_page(&filter, cursor.as_ref())).await }
    })
    .await?;
    if global.json {
        document(&[("conversations", &as_json(&pages)), ("next_cursor", &cursor(next.as_ref()))]);
        return Ok(());
    }
    let row = |one: &Received<Conversation>| {
        vec![
            cell(Some(one.id.as_str())),
            cell(one.status.as_deref()),
            count(one.messages_count),
            count(one.attachments_count),
            cell(one.last_message_at.as_deref()),
            cell(one.subject.as_deref()),
        ]
    };
    let rows: Vec<_> = pages.iter().flat_map(|page| &page.entries).map(row).collect();
    if rows.is_empty() {
        access.note("There are no such conversations.");
    } else {
        let head = ["ID", "STATUS", "MESSAGES", "ATTACHMENTS", "LAST MESSAGE", "SUBJECT"];
        output::line(output::table(&head, rows));
    }
    tell_rest(&pages, next.as_ref(), access);
    Ok(())
}

async fn one(id: &Id, access: &Access, global: &Global) -> anyhow::Result<()> {
    let conversation = access.ask(|| access.client.conversation(id)).await?;
    if global.json {
        document(&[("conversation", conversation.raw().get())]);
        return Ok(());
    }
    output::line(describe(&conversation));
    if !conversation.messages.is_empty() {
        output::line(format!("\n{}", rows(conversation.messages.iter())));
    }
    Ok(())
}

/// A conversation's own fields, one a line.
pub(super) fn describe(conversation: &Conversation) -> String {
    let labels = cells(conversation.labels.iter().map(|label| label.name.as_deref()));
    let mailboxes = cells(conversation.mailboxes.iter().map(|mailbox| mailbox.name.as_deref()));
    let assignees = conversation.assignees.iter().map(|member| member.email.as_deref().or(member.name.as_deref()));
    [
        format!("Conversation  {}", cell(Some(conversation.id.as_str()))),
        format!("Subject       {}", cell(conversation.subject.as_deref())),
        format!("Status        {}", cell(conversation.status.as_deref())),
        format!("Labels        {labels}"),
        format!("Mailboxes     {mailboxes}"),
        format!("Assigned to   {}", cells(assignees)),
    ]
    .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_can_be_typed_into_a_shell_whatever_is_in_it() {
        let shown = |text: &str| quoted(&text.parse().unwrap());
        assert_eq!(shown("+/Yz=="), "+/Yz==");
        assert_eq!(shown("a b'; rm -rf $HOME\u{1b}"), "'a b'\\''; rm -rf $HOME\u{fffd}'");
    }
}
