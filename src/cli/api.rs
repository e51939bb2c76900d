//! `jellyjar api`: every call of Jelly's API, one file a family.

mod access;
mod assign;
mod attachment;
mod comment;
mod contact;
mod conversations;
mod draft_reply;
mod label;
mod labels;
mod members;
mod messages;
mod print;
mod text;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::run::interrupted;
use super::{Global, INCOMPLETE, INTERRUPTED, TOKEN_REFUSED, output};
use crate::jelly::{ApiError, ApiRequest};
use access::Access;
use print::Plan;

/// The arguments of `jellyjar api`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar api members
  jellyjar api conversations list --status open --json
  jellyjar api label stair-car Bug --dry-run       show the request, and send nothing
  jellyjar api attachment - -o invoice.pdf         the id comes from standard input

With --json the answer is printed as Jelly gave it, beside \"ok\". Nothing that changes something is sent \
twice by itself. A request limit is waited for, as long as worker.max_wait allows; Ctrl-C ends the wait.")]
pub(super) struct ApiArgs {
    #[command(subcommand)]
    family: Family,
}

#[derive(Debug, Clone, Subcommand)]
enum Family {
    /// The team's labels
    Labels(labels::LabelsArgs),
    /// The team's active members
    Members(members::MembersArgs),
    /// The team's mailboxes, and who is in one
    Mailboxes(members::MailboxesArgs),
    /// Conversations, newest activity first, or one of them
    Conversations(conversations::ConversationsArgs),
    /// A conversation's messages, oldest first, or one of them
    Messages(messages::MessagesArgs),
    /// Write a comment, which the team alone sees
    Comment(comment::CommentArgs),
    /// Put a label on a conversation
    Label(label::LabelArgs),
    /// Take a label off a conversation
    Unlabel(label::UnlabelArgs),
    /// Assign a conversation to a member, who is notified by email and push
    Assign(assign::AssignArgs),
    /// End a member's assignment
    Unassign(assign::UnassignArgs),
    /// Draft a reply, for a person to look at and send
    DraftReply(draft_reply::DraftReplyArgs),
    /// People outside that the team writes with
    Contact(contact::ContactArgs),
    /// Download one attachment to a file
    Attachment(attachment::AttachmentArgs),
}

/// The option of everything that changes something.
#[derive(Debug, Clone, Args)]
struct DryRun {
    /// Print the request, and send nothing
    #[arg(long)]
    dry_run: bool,
}

/// What a call changes, before it is sent.
trait Change {
    /// The request as it would be sent, if only that is asked for.
    fn dry_run(&self) -> anyhow::Result<Option<ApiRequest>>;
}

/// Runs the command.
pub(super) async fn run(args: ApiArgs, global: &Global) -> anyhow::Result<ExitCode> {
    if let Some(plan) = planned(&args.family)? {
        return print::plan(&plan, global);
    }
    args.family.check(global)?;
    let access = Access::open(global).await?;
    let outcome = tokio::select! {
        outcome = call(args.family, &access, global) => outcome,
        () = interrupted() => {
            if access.is_changing() {
                output::note("Interrupted. Whether Jelly has done it is not known: look before you try again.");
            }
            Ok(ExitCode::from(INTERRUPTED))
        }
    };
    access.close().await;
    match outcome {
        Err(error) if matches!(error.downcast_ref::<ApiError>(), Some(ApiError::Unauthorized(_))) => {
            // As every command that Jelly turns away.
            output::fail(&error, global.json);
            Ok(ExitCode::from(TOKEN_REFUSED))
        }
        Err(error) if error.is::<ApiError>() => {
            output::fail(&error, global.json);
            Ok(ExitCode::from(INCOMPLETE))
        }
        other => other,
    }
}

/// What a dry run shows; `None` where something is to be sent.
fn planned(family: &Family) -> anyhow::Result<Option<Plan>> {
    let request = match family {
        Family::Labels(args) => args.dry_run(),
        Family::Comment(args) => args.dry_run(),
        Family::Label(args) => return Ok(args.plan()),
        Family::Unlabel(args) => return Ok(args.plan()),
        Family::Assign(args) => args.dry_run(),
        Family::Unassign(args) => return args.plan(),
        Family::DraftReply(args) => args.dry_run(),
        Family::Contact(args) => args.dry_run(),
        Family::Members(_)
        | Family::Mailboxes(_)
        | Family::Conversations(_)
        | Family::Messages(_)
        | Family::Attachment(_) => Ok(None),
    };
    Ok(request?.map(Plan::from))
}

impl Family {
    /// Refuses what cannot end well, before anything is opened or sent.
    fn check(&self, global: &Global) -> anyhow::Result<()> {
        match self {
            Self::Attachment(args) => args.check(global),
            _ => Ok(()),
        }
    }
}

async fn call(family: Family, access: &Access, global: &Global) -> anyhow::Result<ExitCode> {
    match family {
        Family::Labels(args) => labels::run(args, access, global).await,
        Family::Members(_) => members::run(access, global).await,
        Family::Mailboxes(args) => members::mailboxes(args, access, global).await,
        Family::Conversations(args) => conversations::run(args, access, global).await,
        Family::Messages(args) => messages::run(args, access, global).await,
        Family::Comment(args) => comment::run(args, access, global).await,
        Family::Label(args) => label::put_on(args, access, global).await,
        Family::Unlabel(args) => label::take_off(args, access, global).await,
        Family::Assign(args) => assign::assign(args, access, global).await,
        Family::Unassign(args) => assign::unassign(args, access, global).await,
        Family::DraftReply(args) => draft_reply::run(args, access, global).await,
        Family::Contact(args) => contact::run(args, access, global).await,
        Family::Attachment(args) => Box::pin(attachment::run(args, access, global)).await,
    }
}
