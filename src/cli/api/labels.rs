//! `jellyjar api labels`: the team's labels.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::super::{DONE, Global, UsageError, output};
use super::access::{Access, Repetition};
use super::print::{cell, document, list, raws};
use super::{Change, DryRun};
use crate::jelly::{ApiRequest, Id, Label, Received};

/// The arguments of `jellyjar api labels`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar api labels list
  jellyjar api labels create Bug --color cherry")]
pub(super) struct LabelsArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// All labels, sorted by name
    #[command(after_help = "Examples:\n  jellyjar api labels list --json")]
    List,
    /// Make a label; its name must be new in the team
    #[command(after_help = "Examples:
  jellyjar api labels create Important --color cherry
  jellyjar api labels create 'On hold' --dry-run

Jelly's colors: gray, cherry, apricot, pineapple, gooseberry, mint, juniper, blueberry, huckleberry, \
grape, plum, rhubarb and strawberry, each also as cherry-dark and so on.")]
    Create(CreateArgs),
}

#[derive(Debug, Clone, Args)]
struct CreateArgs {
    /// The label's name
    name: String,
    /// Its color, by Jelly's name for it
    #[arg(long)]
    color: Option<String>,
    #[command(flatten)]
    dry_run: DryRun,
}

impl Change for LabelsArgs {
    fn dry_run(&self) -> anyhow::Result<Option<ApiRequest>> {
        Ok(match &self.what {
            What::Create(args) if args.dry_run.dry_run => {
                Some(ApiRequest::create_label(&args.name, args.color.as_deref()))
            }
            _ => None,
        })
    }
}

pub(super) async fn run(args: LabelsArgs, access: &Access, global: &Global) -> anyhow::Result<ExitCode> {
    match args.what {
        What::List => {
            let labels = access.ask(|| access.client.labels()).await?;
            show(&labels, "The team has no labels.", access, global);
        }
        What::Create(args) => {
            // A taken name is refused, so that a repetition makes no second one.
            let label = access
                .change(Repetition::Harmless, || access.client.create_label(&args.name, args.color.as_deref()))
                .await?;
            if global.json {
                document(&[("label", label.raw().get())]);
            } else {
                output::line(format!(
                    "Made label {}, with id {}.",
                    cell(label.name.as_deref()),
                    cell(label.id.as_ref().map(Id::as_str))
                ));
            }
        }
    }
    Ok(ExitCode::from(DONE))
}

/// Prints labels.
pub(super) fn show(labels: &[Received<Label>], none: &str, access: &Access, global: &Global) {
    if global.json {
        document(&[("labels", &list(raws(labels)))]);
    } else if labels.is_empty() {
        access.note(none);
    } else {
        let row = |label: &Received<Label>| {
            vec![cell(label.id.as_ref().map(Id::as_str)), cell(label.name.as_deref()), cell(label.color.as_deref())]
        };
        output::line(output::table(&["ID", "NAME", "COLOR"], labels.iter().map(row)));
    }
}

/// A label as a person names it: by its id, where that is a number or begins with `id:`, or by its name, which may begin
/// with `name:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Named {
    Id(Id),
    Name(String),
}

impl std::str::FromStr for Named {
    type Err = crate::model::InvalidId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(id) = text.strip_prefix("id:") {
            return Ok(Self::Id(id.parse()?));
        }
        if let Some(name) = text.strip_prefix("name:") {
            return Ok(Self::Name(name.to_owned()));
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self::Id(text.parse()?));
        }
        Ok(Self::Name(text.to_owned()))
    }
}

impl Named {
    /// The id; a name is looked up, which costs one request.
    pub(super) async fn label(&self, access: &Access) -> anyhow::Result<Id> {
        let name = match self {
            Self::Id(id) => return Ok(id.clone()),
            Self::Name(name) => name,
        };
        let labels = access.ask(|| access.client.labels()).await?;
        let known = labels.iter().map(|label| (label.id.as_ref(), label.name.as_deref()));
        Ok(choose(name, known, "label", "`jellyjar api labels list`")?)
    }
}

/// The id of what is called `name`: exactly, else without regard to case, else by an id that is no number.
pub(super) fn choose<'a>(
    name: &str,
    known: impl Iterator<Item = (Option<&'a Id>, Option<&'a str>)> + Clone,
    what: &str,
    list: &str,
) -> Result<Id, UsageError> {
    let lower = name.to_lowercase();
    let exact = known.clone().filter(|(_, known)| *known == Some(name));
    let alike = known.clone().filter(|(_, known)| known.is_some_and(|known| known.to_lowercase() == lower));
    let by_id = known.filter(|(id, _)| id.is_some_and(|id| id.as_str() == name));
    let shown = output::printable(name, 80);
    for found in [exact.collect::<Vec<_>>(), alike.collect(), by_id.collect()] {
        match found.as_slice() {
            [] => {}
            [(Some(id), _)] => return Ok((*id).clone()),
            _ => {
                return Err(UsageError(format!(
                    "{shown:?} names more than one {what}; give id:ID, as {list} shows it"
                )));
            }
        }
    }
    Err(UsageError(format!("there is no {what} {shown:?}; {list} shows what there is")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ids_and_words_are_names_unless_said_otherwise() {
        let id = |text: &str| Named::Id(text.parse().unwrap());
        assert_eq!("12".parse::<Named>().unwrap(), id("12"));
        assert_eq!("id:a b".parse::<Named>().unwrap(), id("a b"));
        assert_eq!("name:12".parse::<Named>().unwrap(), Named::Name("12".into()));
        assert_eq!("Bug 1".parse::<Named>().unwrap(), Named::Name("Bug 1".into()));
        assert!("id:".parse::<Named>().is_err());
    }

    #[test]
    fn a_name_is_found_exactly_before_alike_and_never_guessed() {
        let ids: Vec<Id> = ["1", "2", "3", "x"].iter().map(|id| id.parse().unwrap()).collect();
        let names = [Some("Bug"), Some("bug"), Some("Feature"), None];
        let find = |name: &str| choose(name, ids.iter().map(Some).zip(names), "label", "the list");
        assert_eq!(find("bug").unwrap(), ids[1]);
        assert_eq!(find("feature").unwrap(), ids[2]);
        assert_eq!(find("x").unwrap(), ids[3]);
        assert!(find("BUG").unwrap_err().to_string().contains("more than one label"));
        assert!(find("other").unwrap_err().to_string().contains("no label \"other\""));
    }
}
