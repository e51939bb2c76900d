//! `jellyjar api messages`: those of a conversation, and one.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::super::receipt::size;
use super::super::{DONE, Global, output};
use super::access::Access;
use super::conversations::{Extent, as_json, gather, tell_rest};
use super::print::{cell, cells, count, cursor, document};
use crate::jelly::{Id, Message, MessageAttachment};

/// The longest message text that a terminal is shown, in characters.
const MAX_TEXT: usize = 20_000;

/// The arguments of `jellyjar api messages`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar api messages list stair-car
  jellyjar api messages show 123 --json")]
pub(super) struct MessagesArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// A conversation's messages, oldest first
    #[command(after_help = "Examples:
  jellyjar api messages list stair-car
  jellyjar api messages list stair-car --limit 1000 --json")]
    List {
        /// The conversation's slug, as in its address
        #[arg(value_name = "CONVERSATION")]
        conversation: Id,
        #[command(flatten)]
        extent: Extent,
    },
    /// One message
    #[command(after_help = "Examples:
  jellyjar api messages show 123
  jellyjar api messages show 123 --json           with the ids of its attachments")]
    Show {
        /// The message's id
        #[arg(value_name = "MESSAGE")]
        message: Id,
    },
}

pub(super) async fn run(args: MessagesArgs, access: &Access, global: &Global) -> anyhow::Result<ExitCode> {
    match args.what {
        What::List { conversation, extent } => {
            let (pages, next) =
                gather(&extent, |cursor, limit| {
                    let conversation = conversation.clone();
                    async move {
                        access.ask(|| access.client.messages_page(&conversation, cursor.as_ref(), Some(limit))).await
                    }
                })
                .await?;
            if global.json {
                document(&[("messages", &as_json(&pages)), ("next_cursor", &cursor(next.as_ref()))]);
            } else {
                let messages: Vec<&Message> =
                    pages.iter().flat_map(|page| &page.entries).map(std::ops::Deref::deref).collect();
                if messages.is_empty() {
                    access.note("The conversation has no messages.");
                } else {
                    output::line(rows(messages));
                }
                tell_rest(&pages, next.as_ref(), access);
            }
        }
        What::Show { message } => {
            let message = access.ask(|| access.client.message(&message)).await?;
            if global.json {
                document(&[("message", message.raw().get())]);
            } else {
                output::line(describe(&message));
            }
        }
    }
    Ok(ExitCode::from(DONE))
}

/// A table of messages.
pub(super) fn rows<'a>(messages: impl IntoIterator<Item = &'a Message>) -> String {
    let row = |message: &Message| {
        let sender = message.sender.as_ref().and_then(|sender| sender.email.as_deref());
        let attachments = message.attachments_count.or(Some(message.attachments.len() as u64));
        vec![
            cell(Some(message.id.as_str())),
            cell(message.sent_at.as_deref()),
            cell(message.from.first().map(String::as_str).or(sender)),
            count(attachments),
            cell(message.subject.as_deref()),
        ]
    };
    output::table(&["ID", "SENT", "FROM", "ATTACHMENTS", "SUBJECT"], messages.into_iter().map(row))
}

/// A message, for reading.
pub(super) fn describe(message: &Message) -> String {
    let addresses = |list: &[String]| cells(list.iter().map(|address| Some(address.as_str())));
    let mut lines = vec![
        format!("Message  {}", cell(Some(message.id.as_str()))),
        format!("Subject  {}", cell(message.subject.as_deref())),
        format!("Sent     {}", message.sent_at.as_deref().map_or("a draft".into(), |sent| cell(Some(sent)))),
        format!("From     {}", addresses(&message.from)),
        format!("To       {}", addresses(&message.to)),
    ];
    if !message.cc.is_empty() {
        lines.push(format!("Cc       {}", addresses(&message.cc)));
    }
    if !message.attachments.is_empty() {
        lines.push(String::new());
        let row = |one: &MessageAttachment| {
            let inline = if one.inline == Some(true) { "inline" } else { "" };
            vec![
                cell(one.filename.as_deref()),
                cell(one.content_type.as_deref()),
                one.byte_size.map_or_else(|| "-".into(), size),
                inline.into(),
            ]
        };
        lines.push(output::table(&["ATTACHMENT", "TYPE", "SIZE", ""], message.attachments.iter().map(row)));
    }
    let text = message.text_body.as_deref().filter(|text| !text.trim().is_empty());
    if let Some(text) = text.or(message.html_body.as_deref()) {
        lines.push(String::new());
        // Lines are the message's own; everything else that moves a terminal is not.
        let text: String = text.chars().take(MAX_TEXT).collect();
        lines.extend(text.lines().map(|line| output::printable(line, MAX_TEXT)));
    }
    lines.join("\n")
}
