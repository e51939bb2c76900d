//! `jellyjar api label` and `jellyjar api unlabel`: the labels of a conversation.

use std::process::ExitCode;

use clap::Args;

use super::super::{DONE, Global, output};
use super::DryRun;
use super::access::{Access, Repetition};
use super::labels::{Named, show};
use super::print::{Plan, cell, document, list, raws};
use crate::jelly::{ApiRequest, Id};

#[derive(Debug, Clone, Args)]
struct Subject {
    /// The conversation's slug, as in its address
    #[arg(value_name = "CONVERSATION")]
    conversation: Id,
    /// The label, by id or name; id:12 or name:12 where that is not clear
    #[arg(value_name = "LABEL")]
    label: Named,
    #[command(flatten)]
    dry_run: DryRun,
}

/// The arguments of `jellyjar api label`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar api label stair-car Bug
  jellyjar api label stair-car 3 --dry-run

A name costs one request more, to look it up. A label that is there already stays there once.")]
pub(super) struct LabelArgs {
    #[command(flatten)]
    subject: Subject,
}

/// The arguments of `jellyjar api unlabel`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar api unlabel stair-car Bug
  jellyjar api unlabel stair-car id:3")]
pub(super) struct UnlabelArgs {
    #[command(flatten)]
    subject: Subject,
}

impl Subject {
    /// `to_do` says what follows where the label is to be looked up.
    fn plan(&self, request: impl Fn(&Id, &Id) -> ApiRequest, to_do: &str) -> Option<Plan> {
        let plan = || match &self.label {
            Named::Id(id) => request(&self.conversation, id).into(),
            Named::Name(name) => Plan {
                request: ApiRequest::labels(),
                then: Some(format!(
                    "{to_do} conversation {}, by the id that this list shows for {name}",
                    self.conversation
                )),
            },
        };
        self.dry_run.dry_run.then(plan)
    }
}

impl LabelArgs {
    /// The requests as they would be sent, if only that is asked for.
    pub(super) fn plan(&self) -> Option<Plan> {
        self.subject.plan(ApiRequest::add_label, "POST of the label to")
    }
}

impl UnlabelArgs {
    /// The requests as they would be sent, if only that is asked for.
    pub(super) fn plan(&self) -> Option<Plan> {
        self.subject.plan(ApiRequest::remove_label, "DELETE of the label of")
    }
}

pub(super) async fn put_on(args: LabelArgs, access: &Access, global: &Global) -> anyhow::Result<ExitCode> {
    let Subject { conversation, label, .. } = args.subject;
    let label = label.label(access).await?;
    let labels = access.change(Repetition::Harmless, || access.client.add_label(&conversation, &label)).await?;
    show(&labels, "Jelly shows no labels on the conversation.", access, global);
    Ok(ExitCode::from(DONE))
}

pub(super) async fn take_off(args: UnlabelArgs, access: &Access, global: &Global) -> anyhow::Result<ExitCode> {
    let Subject { conversation, label, .. } = args.subject;
    let label = label.label(access).await?;
    let left = access.change(Repetition::Harmless, || access.client.remove_label(&conversation, &label)).await?;
    if global.json {
        let labels = left.map_or_else(|| "null".to_owned(), |left| list(raws(&left)));
        document(&[("labels", &labels)]);
    } else {
        output::line(format!("Label {} is off {}.", cell(Some(label.as_str())), cell(Some(conversation.as_str()))));
    }
    Ok(ExitCode::from(DONE))
}
