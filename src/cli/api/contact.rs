//! `jellyjar api contact`: people outside that the team writes with.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::super::{DONE, Global, UsageError, output};
use super::access::{Access, Repetition};
use super::print::{cell, cells, document};
use super::{Change, DryRun, text};
use crate::jelly::{ApiRequest, Contact, ContactChange, Id};

/// The arguments of `jellyjar api contact`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar api contact show alice@example.com
  jellyjar api contact save alice@example.com --name 'Alice Smith'")]
pub(super) struct ContactArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// The contact with an address
    #[command(after_help = "Examples:\n  jellyjar api contact show alice@example.com --json")]
    Show {
        /// The address
        email: String,
    },
    /// Make a contact, or change the one with this address
    #[command(after_help = "Examples:
  jellyjar api contact save alice@example.com --name 'Alice Smith'
  jellyjar api contact save alice@example.com --label VIP --label Partner --dry-run
  jellyjar api contact save alice@example.com --link Website=https://alice.example.com
  jellyjar api contact save alice@example.com --no-links

What is not named stays as it is. A note, links or labels that are named REPLACE all that is there of \
their kind: to add one, name the others too. The contact's page in Jelly has them; `contact show` may not.")]
    Save(SaveArgs),
}

#[derive(Debug, Clone, Args)]
struct SaveArgs {
    /// The address
    email: String,
    /// The name
    #[arg(long)]
    name: Option<String>,
    /// Replace the note, which may hold HTML
    #[arg(long, value_name = "TEXT", conflicts_with = "note_file", allow_hyphen_values = true)]
    note: Option<String>,
    /// Replace the note by what a file holds; - is standard input
    #[arg(long, value_name = "FILE")]
    note_file: Option<PathBuf>,
    /// Replace all links by these
    #[arg(long = "link", value_name = "TITLE=URL", value_parser = link)]
    links: Vec<(String, String)>,
    /// Remove all links
    #[arg(long, conflicts_with = "links")]
    no_links: bool,
    /// Replace all labels by these, which the team must have
    #[arg(long = "label", value_name = "NAME")]
    labels: Vec<String>,
    /// Remove all labels
    #[arg(long, conflicts_with = "labels")]
    no_labels: bool,
    #[command(flatten)]
    dry_run: DryRun,
}

fn link(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((title, url)) if !title.trim().is_empty() && !url.trim().is_empty() => {
            Ok((title.trim().to_owned(), url.trim().to_owned()))
        }
        _ => Err("write it as TITLE=URL, like Website=https://alice.example.com".into()),
    }
}

impl SaveArgs {
    fn change(&self) -> anyhow::Result<ContactChange> {
        let note = match &self.note_file {
            Some(path) => Some(text::from(path)?),
            None => self.note.clone(),
        };
        for (index, (title, _)) in self.links.iter().enumerate() {
            if self.links[..index].iter().any(|(other, _)| other == title) {
                return Err(UsageError(format!("two links are called {title:?}; Jelly keeps one of a title")).into());
            }
        }
        Ok(ContactChange {
            email: self.email.clone(),
            name: self.name.clone(),
            note,
            links: (self.no_links || !self.links.is_empty()).then(|| self.links.clone()),
            labels: (self.no_labels || !self.labels.is_empty()).then(|| self.labels.clone()),
        })
    }
}

impl Change for ContactArgs {
    fn dry_run(&self) -> anyhow::Result<Option<ApiRequest>> {
        match &self.what {
            What::Save(args) if args.dry_run.dry_run => Ok(Some(ApiRequest::save_contact(&args.change()?))),
            _ => Ok(None),
        }
    }
}

pub(super) async fn run(args: ContactArgs, access: &Access, global: &Global) -> anyhow::Result<ExitCode> {
    match args.what {
        What::Show { email } => {
            let contact = access.ask(|| access.client.contact(&email)).await?;
            if global.json {
                document(&[("contact", contact.raw().get())]);
            } else {
                output::line(describe(&contact));
            }
        }
        What::Save(args) => {
            let change = args.change()?;
            let saved = access.change(Repetition::Harmless, || access.client.save_contact(&change)).await?;
            if global.json {
                let created = saved.is_new.to_string();
                document(&[("created", &created), ("contact", saved.resource.raw().get())]);
            } else {
                output::line(describe(&saved.resource));
                access.note(if saved.is_new {
                    "The contact is new."
                } else {
                    "The contact was there, and is changed."
                });
            }
        }
    }
    Ok(ExitCode::from(DONE))
}

/// A contact, one field a line.
fn describe(contact: &Contact) -> String {
    let mut lines = vec![
        format!("Contact  {}", cell(contact.id.as_ref().map(Id::as_str))),
        format!("Email    {}", cell(contact.email.as_deref())),
        format!("Name     {}", cell(contact.name.as_deref())),
    ];
    let labels = cells(contact.labels.iter().map(|label| label.name.as_deref()));
    lines.extend((!contact.labels.is_empty()).then(|| format!("Labels   {labels}")));
    for link in &contact.links {
        lines.push(format!("Link     {}: {}", cell(link.title.as_deref()), cell(link.url.as_deref())));
    }
    let note = contact.note.as_deref().filter(|note| !note.is_empty());
    lines.extend(note.map(|note| format!("Note     {}", output::printable(note, 500))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_has_a_title_and_a_url_that_may_hold_more_equal_signs() {
        assert_eq!(link("Web=https://a/?b=c").unwrap(), ("Web".into(), "https://a/?b=c".into()));
        for bad in ["https://a", "=https://a", "Web="] {
            assert!(link(bad).is_err(), "{bad}");
        }
    }
}
