//! `jellyjar api members` and `jellyjar api mailboxes`: who and what a team has.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::super::{DONE, Global, output};
use super::access::Access;
use super::labels::{Named, choose};
use super::print::{cell, document, list, raws};
use crate::jelly::{Id, Mailbox, Member, Received};

/// The arguments of `jellyjar api members`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar api members
  jellyjar api members --team berlin --json")]
pub(super) struct MembersArgs {}

/// The arguments of `jellyjar api mailboxes`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar api mailboxes list
  jellyjar api mailboxes members 7")]
pub(super) struct MailboxesArgs {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// All mailboxes of the team, as without a word
    #[command(after_help = "Examples:\n  jellyjar api mailboxes list\n  jellyjar api mailboxes list --json")]
    List,
    /// Who is in a mailbox
    #[command(after_help = "Examples:\n  jellyjar api mailboxes members 7\n  jellyjar api mailboxes members Support")]
    Members {
        /// The mailbox, by id or name
        #[arg(value_name = "MAILBOX")]
        mailbox: Named,
    },
}

pub(super) async fn run(access: &Access, global: &Global) -> anyhow::Result<ExitCode> {
    let members = access.ask(|| access.client.members()).await?;
    show(&members, "The team has no active members.", access, global);
    Ok(ExitCode::from(DONE))
}

pub(super) async fn mailboxes(args: MailboxesArgs, access: &Access, global: &Global) -> anyhow::Result<ExitCode> {
    if let Some(What::Members { mailbox }) = args.what {
        let mailbox = mailbox_id(&mailbox, access).await?;
        let members = access.ask(|| access.client.mailbox_members(&mailbox)).await?;
        show(&members, "The mailbox has no members.", access, global);
        return Ok(ExitCode::from(DONE));
    }
    let mailboxes = access.ask(|| access.client.mailboxes()).await?;
    if global.json {
        document(&[("mailboxes", &list(raws(&mailboxes)))]);
    } else if mailboxes.is_empty() {
        access.note("The team has no mailboxes.");
    } else {
        let row = |one: &Received<Mailbox>| {
            vec![cell(Some(one.id.as_str())), cell(one.name.as_deref()), cell(one.email.as_deref())]
        };
        output::line(output::table(&["ID", "NAME", "EMAIL"], mailboxes.iter().map(row)));
    }
    Ok(ExitCode::from(DONE))
}

/// The id of a mailbox; a name is looked up, which costs one request.
pub(super) async fn mailbox_id(named: &Named, access: &Access) -> anyhow::Result<Id> {
    let name = match named {
        Named::Id(id) => return Ok(id.clone()),
        Named::Name(name) => name,
    };
    let mailboxes = access.ask(|| access.client.mailboxes()).await?;
    let known = mailboxes.iter().map(|mailbox| (Some(&mailbox.id), mailbox.name.as_deref()));
    Ok(choose(name, known, "mailbox", "`jellyjar api mailboxes`")?)
}

fn show(members: &[Received<Member>], none: &str, access: &Access, global: &Global) {
    if global.json {
        document(&[("members", &list(raws(members)))]);
    } else if members.is_empty() {
        access.note(none);
    } else {
        let row = |one: &Received<Member>| {
            let active = one.active.map_or("-", |active| if active { "yes" } else { "no" });
            vec![
                cell(Some(one.id.as_str())),
                cell(one.name.as_deref()),
                cell(one.email.as_deref()),
                cell(one.role.as_deref()),
                active.to_owned(),
            ]
        };
        output::line(output::table(&["ID", "NAME", "EMAIL", "ROLE", "ACTIVE"], members.iter().map(row)));
    }
}
