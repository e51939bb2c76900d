//! `jellyjar api comment`: a word to the team.

use std::process::ExitCode;

use clap::Args;

use super::super::{DONE, Global, output};
use super::access::{Access, Repetition};
use super::print::{cell, document};
use super::text::Body;
use super::{Change, DryRun};
use crate::jelly::{ApiRequest, Id};

/// The arguments of `jellyjar api comment`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar api comment stair-car --body 'The files are archived.'
  date | jellyjar api comment stair-car --body-file -
  jellyjar api comment stair-car --body-file note.txt --dry-run")]
pub(super) struct CommentArgs {
    /// The conversation's slug, as in its address
    #[arg(value_name = "CONVERSATION")]
    conversation: Id,
    #[command(flatten)]
    body: Body,
    #[command(flatten)]
    dry_run: DryRun,
}

impl Change for CommentArgs {
    fn dry_run(&self) -> anyhow::Result<Option<ApiRequest>> {
        let request = || anyhow::Ok(ApiRequest::comment(&self.conversation, &self.body.read()?));
        self.dry_run.dry_run.then(request).transpose()
    }
}

pub(super) async fn run(args: CommentArgs, access: &Access, global: &Global) -> anyhow::Result<ExitCode> {
    let body = args.body.read()?;
    let comment = access.change(Repetition::Doubles, || access.client.comment(&args.conversation, &body)).await?;
    if global.json {
        document(&[("comment", comment.raw().get())]);
    } else {
        let id = comment.id.as_ref().map_or_else(String::new, |id| format!(" {}", cell(Some(id.as_str()))));
        output::line(format!("Wrote comment{id}, which the team alone sees."));
    }
    Ok(ExitCode::from(DONE))
}
