//! `jellyjar api draft-reply`: a reply for a person to look at and send.

use std::process::ExitCode;

use clap::Args;

use super::super::{DONE, Global, output};
use super::access::{Access, Repetition};
use super::messages::describe;
use super::print::document;
use super::text::Body;
use super::{Change, DryRun};
use crate::jelly::{ApiRequest, DraftReply, Id};

/// The arguments of `jellyjar api draft-reply`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar api draft-reply stair-car --body '<p>Thank you!</p>'
  jellyjar api draft-reply stair-car --body-file reply.html --member 42
  jellyjar api draft-reply stair-car --body-file - --cc sally@sitwell.test --dry-run

The text is HTML. Nothing is sent to anyone until a person sends it in Jelly. Where there is a draft \
already, it stays as it is and is shown.")]
pub(super) struct DraftReplyArgs {
    /// The conversation's slug, as in its address
    #[arg(value_name = "CONVERSATION")]
    conversation: Id,
    #[command(flatten)]
    body: Body,
    /// Whose draft it is [default: anyone may take it]
    #[arg(long, value_name = "ID")]
    member: Option<Id>,
    /// The message that is replied to [default: the last one that was sent]
    #[arg(long, value_name = "ID")]
    message: Option<Id>,
    /// The receiver, instead of the suggested one
    #[arg(long, value_name = "ADDRESS")]
    to: Option<String>,
    /// Who gets a copy, instead of those suggested
    #[arg(long, value_name = "ADDRESS")]
    cc: Option<String>,
    /// Who gets a hidden copy; an empty text also leaves out the team's own
    #[arg(long, value_name = "ADDRESS")]
    bcc: Option<String>,
    #[command(flatten)]
    dry_run: DryRun,
}

impl DraftReplyArgs {
    fn draft(&self) -> anyhow::Result<DraftReply> {
        Ok(DraftReply {
            body: self.body.read()?,
            member_id: self.member.clone(),
            message_id: self.message.clone(),
            to: self.to.clone(),
            cc: self.cc.clone(),
            bcc: self.bcc.clone(),
        })
    }
}

impl Change for DraftReplyArgs {
    fn dry_run(&self) -> anyhow::Result<Option<ApiRequest>> {
        let request = || anyhow::Ok(ApiRequest::draft_reply(&self.conversation, &self.draft()?));
        self.dry_run.dry_run.then(request).transpose()
    }
}

pub(super) async fn run(args: DraftReplyArgs, access: &Access, global: &Global) -> anyhow::Result<ExitCode> {
    let draft = args.draft()?;
    // A second one for the same message is refused by the service.
    let written = access.change(Repetition::Harmless, || access.client.draft_reply(&args.conversation, &draft)).await?;
    if global.json {
        let created = written.is_new.to_string();
        document(&[("created", &created), ("draft", written.resource.raw().get())]);
    } else {
        output::line(describe(&written.resource));
        access.note(if written.is_new {
            "The draft waits in Jelly; nothing is sent until a person sends it."
        } else {
            "There was a draft already. It is shown as it is; yours was not taken."
        });
    }
    Ok(ExitCode::from(DONE))
}
