//! `jellyjar api assign` and `jellyjar api unassign`: whose a conversation is.

use std::process::ExitCode;

use clap::Args;

use super::super::{DONE, Global, UsageError, output};
use super::access::{Access, Repetition};
use super::conversations::describe;
use super::print::{Plan, document};
use super::{Change, DryRun};
use crate::jelly::{ApiRequest, Assignee, Id};

#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
struct Person {
    /// The member, by the address of the account
    #[arg(long)]
    email: Option<String>,
    /// The member, by the id that `jellyjar api members` shows
    #[arg(long, value_name = "ID")]
    member: Option<Id>,
}

#[derive(Debug, Clone, Args)]
struct Subject {
    /// The conversation's slug, as in its address
    #[arg(value_name = "CONVERSATION")]
    conversation: Id,
    #[command(flatten)]
    person: Person,
    #[command(flatten)]
    dry_run: DryRun,
}

/// The arguments of `jellyjar api assign`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar api assign stair-car --email michael@bluth.company
  jellyjar api assign stair-car --member 42 --dry-run

Jelly NOTIFIES the person by email and push, unless the conversation is assigned to them already.")]
pub(super) struct AssignArgs {
    #[command(flatten)]
    subject: Subject,
}

/// The arguments of `jellyjar api unassign`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar api unassign stair-car --member 42
  jellyjar api unassign stair-car --email michael@bluth.company

An address costs one request more, to look it up. Nothing happens where there is no assignment.")]
pub(super) struct UnassignArgs {
    #[command(flatten)]
    subject: Subject,
}

impl Person {
    fn assignee(&self) -> anyhow::Result<Assignee> {
        match (&self.member, &self.email) {
            (Some(id), None) => Ok(Assignee::Member(id.clone())),
            (None, Some(email)) => Ok(Assignee::Email(email.clone())),
            _ => Err(UsageError("give either --email or --member".into()).into()),
        }
    }
}

impl Change for AssignArgs {
    fn dry_run(&self) -> anyhow::Result<Option<ApiRequest>> {
        let Subject { conversation, person, dry_run } = &self.subject;
        let request = || anyhow::Ok(ApiRequest::assign(conversation, &person.assignee()?));
        dry_run.dry_run.then(request).transpose()
    }
}

impl UnassignArgs {
    /// The requests as they would be sent, if only that is asked for.
    pub(super) fn plan(&self) -> anyhow::Result<Option<Plan>> {
        let Subject { conversation, person, dry_run } = &self.subject;
        let plan = || {
            anyhow::Ok(match person.assignee()? {
                Assignee::Member(id) => ApiRequest::unassign(conversation, &id).into(),
                Assignee::Email(email) => Plan {
                    request: ApiRequest::members(),
                    then: Some(format!(
                        "DELETE of the assignment of conversation {conversation} to the member with the address {email}, by the \
                         id that this list shows"
                    )),
                },
            })
        };
        dry_run.dry_run.then(plan).transpose()
    }
}

pub(super) async fn assign(args: AssignArgs, access: &Access, global: &Global) -> anyhow::Result<ExitCode> {
    let Subject { conversation, person, .. } = args.subject;
    let assignee = person.assignee()?;
    let assigned = access.change(Repetition::Harmless, || access.client.assign(&conversation, &assignee)).await?;
    if global.json {
        let newly = assigned.is_new.to_string();
        document(&[("assigned", &newly), ("conversation", assigned.resource.raw().get())]);
    } else {
        output::line(describe(&assigned.resource));
        access.note(if assigned.is_new {
            "Jelly notifies the person."
        } else {
            "It was assigned to the person already: nothing has changed, and nobody is notified."
        });
    }
    Ok(ExitCode::from(DONE))
}

pub(super) async fn unassign(args: UnassignArgs, access: &Access, global: &Global) -> anyhow::Result<ExitCode> {
    let Subject { conversation, person, .. } = args.subject;
    let member = match person.assignee()? {
        Assignee::Member(id) => id,
        Assignee::Email(email) => member_with(&email, access).await?,
    };
    let left = access.change(Repetition::Harmless, || access.client.unassign(&conversation, &member)).await?;
    if global.json {
        document(&[("conversation", left.raw().get())]);
    } else {
        output::line(describe(&left));
    }
    Ok(ExitCode::from(DONE))
}

/// The id of the active member with an address.
async fn member_with(email: &str, access: &Access) -> anyhow::Result<Id> {
    let members = access.ask(|| access.client.members()).await?;
    let of_account = |address: &Option<String>| address.as_deref().is_some_and(|one| one.eq_ignore_ascii_case(email));
    let found = members.iter().find(|member| of_account(&member.email));
    let found = found.map(|member| member.id.clone());
    let shown = output::printable(email, 80);
    Ok(found.ok_or_else(|| {
        UsageError(format!("no active member has the address {shown}; `jellyjar api members` shows all of them"))
    })?)
}
