//! The flags for filter rules. A flag that is set replaces the file's value of that rule.

use bytesize::ByteSize;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};

use crate::config::{FilterConfig, InlinePolicy, Loaded, Origin, values};
use crate::model::Direction;

/// Which attachments are kept.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Filter rules")]
pub struct FilterArgs {
    /// What is done with files that the HTML body refers to
    #[arg(long, value_name = "POLICY", value_parser = inline_policies())]
    pub inline: Option<InlinePolicy>,
    /// Keep only these media types, like application/pdf or image/* (repeatable)
    #[arg(long = "type", value_name = "PATTERN")]
    pub content_types: Vec<String>,
    /// Skip these media types (repeatable)
    #[arg(long = "skip-type", value_name = "PATTERN")]
    pub skip_content_types: Vec<String>,
    /// Keep only files with these names, like *.pdf (repeatable)
    #[arg(long = "name", value_name = "PATTERN")]
    pub names: Vec<String>,
    /// Skip files with these names (repeatable)
    #[arg(long = "skip-name", value_name = "PATTERN")]
    pub skip_names: Vec<String>,
    /// Skip files that are declared smaller, like 4KiB
    #[arg(long, value_name = "SIZE", value_parser = values::parse_size)]
    pub min_size: Option<ByteSize>,
    /// Skip files that are declared larger, like 100MiB
    #[arg(long, value_name = "SIZE", value_parser = values::parse_size)]
    pub max_size: Option<ByteSize>,
    /// Keep only mail from these addresses, like *@supplier.example (repeatable)
    #[arg(long = "sender", value_name = "PATTERN")]
    pub senders: Vec<String>,
    /// Skip mail from these addresses (repeatable)
    #[arg(long = "skip-sender", value_name = "PATTERN")]
    pub skip_senders: Vec<String>,
    /// Keep only mail that went this way
    #[arg(long, value_name = "WAY", value_parser = directions())]
    pub direction: Option<Direction>,
    /// Keep only mail sent at or after this date (midnight UTC) or time
    #[arg(long, value_name = "DATE", value_parser = moment)]
    pub since: Option<String>,
    /// Keep only mail sent before this date (midnight UTC) or time
    #[arg(long, value_name = "DATE", value_parser = moment)]
    pub until: Option<String>,
    /// Keep only conversations with one of these labels (repeatable)
    #[arg(long = "label", value_name = "LABEL")]
    pub labels: Vec<String>,
    /// Skip conversations with one of these labels (repeatable)
    #[arg(long = "skip-label", value_name = "LABEL")]
    pub skip_labels: Vec<String>,
}

impl FilterArgs {
    /// Puts the flags that are set in place of the rules of a team or of all.
    pub fn apply(&self, filter: &mut FilterConfig) {
        fn replace<T: Clone>(value: &mut Option<T>, flag: Option<&T>) {
            if flag.is_some() {
                *value = flag.cloned();
            }
        }
        fn replace_list(value: &mut Vec<String>, flag: &[String]) {
            if !flag.is_empty() {
                flag.clone_into(value);
            }
        }
        filter.inline = self.inline.unwrap_or(filter.inline);
        replace_list(&mut filter.content_types, &self.content_types);
        replace_list(&mut filter.skip_content_types, &self.skip_content_types);
        replace_list(&mut filter.names, &self.names);
        replace_list(&mut filter.skip_names, &self.skip_names);
        replace(&mut filter.min_size, self.min_size.as_ref());
        replace(&mut filter.max_size, self.max_size.as_ref());
        replace_list(&mut filter.senders, &self.senders);
        replace_list(&mut filter.skip_senders, &self.skip_senders);
        replace(&mut filter.direction, self.direction.as_ref());
        replace(&mut filter.since, self.since.as_ref());
        replace(&mut filter.until, self.until.as_ref());
        replace_list(&mut filter.labels, &self.labels);
        replace_list(&mut filter.skip_labels, &self.skip_labels);
    }

    /// Puts the flags that are set in place of the rules of every team, and records where they came from.
    pub fn apply_to(&self, loaded: &mut Loaded) {
        self.apply(&mut loaded.config.filter);
        let mut sections = vec!["filter".to_owned()];
        for (name, team) in &mut loaded.config.teams {
            if let Some(filter) = &mut team.filter {
                self.apply(filter);
                sections.push(format!("teams.{name}.filter"));
            }
        }
        for (key, flag) in self.set_flags() {
            for section in &sections {
                loaded.sources.set(format!("{section}.{key}"), Origin::Flag(flag));
            }
        }
    }

    /// The rules that are set, each with its flag.
    fn set_flags(&self) -> Vec<(&'static str, &'static str)> {
        let all = [
            (self.inline.is_some(), "inline", "--inline"),
            (!self.content_types.is_empty(), "content_types", "--type"),
            (!self.skip_content_types.is_empty(), "skip_content_types", "--skip-type"),
            (!self.names.is_empty(), "names", "--name"),
            (!self.skip_names.is_empty(), "skip_names", "--skip-name"),
            (self.min_size.is_some(), "min_size", "--min-size"),
            (self.max_size.is_some(), "max_size", "--max-size"),
            (!self.senders.is_empty(), "senders", "--sender"),
            (!self.skip_senders.is_empty(), "skip_senders", "--skip-sender"),
            (self.direction.is_some(), "direction", "--direction"),
            (self.since.is_some(), "since", "--since"),
            (self.until.is_some(), "until", "--until"),
            (!self.labels.is_empty(), "labels", "--label"),
            (!self.skip_labels.is_empty(), "skip_labels", "--skip-label"),
        ];
        all.into_iter().filter(|(is_set, ..)| *is_set).map(|(_, key, flag)| (key, flag)).collect()
    }
}

fn moment(text: &str) -> Result<String, String> {
    values::parse_moment(text).map(|_| text.trim().to_owned())
}

fn inline_policies() -> impl clap::builder::TypedValueParser<Value = InlinePolicy> {
    PossibleValuesParser::new(["skip", "keep-non-images", "keep"]).map(|text| match text.as_str() {
        "keep" => InlinePolicy::Keep,
        "keep-non-images" => InlinePolicy::KeepNonImages,
        _ => InlinePolicy::Skip,
    })
}

fn directions() -> impl clap::builder::TypedValueParser<Value = Direction> {
    PossibleValuesParser::new(["inbound", "outbound"]).map(|text| match text.as_str() {
        "outbound" => Direction::Outbound,
        _ => Direction::Inbound,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::{Environment, Overrides, load};

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        filter: FilterArgs,
    }

    fn parse(arguments: &[&str]) -> Result<FilterArgs, clap::Error> {
        Command::try_parse_from(["x"].iter().chain(arguments)).map(|command| command.filter)
    }

    /// Every flag, with a value that is none of the defaults.
    const ALL: [(&str, &str); 14] = [
        ("--inline", "keep"),
        ("--type", "application/pdf"),
        ("--skip-type", "text/*"),
        ("--name", "*.pdf"),
        ("--skip-name", "*.ics"),
        ("--min-size", "1KiB"),
        ("--max-size", "1 MiB"),
        ("--sender", "*@a"),
        ("--skip-sender", "*@b"),
        ("--direction", "outbound"),
        ("--since", "2026-01-01"),
        ("--until", "2026-02-01T00:00:00Z"),
        ("--label", "Invoices"),
        ("--skip-label", "Spam"),
    ];

    #[test]
    fn each_flag_changes_the_one_rule_that_it_claims_to() {
        for (flag, value) in ALL {
            let args = parse(&[flag, value]).unwrap();
            let [(key, claimed)] = args.set_flags()[..] else { panic!("{flag}") };
            assert_eq!(claimed, flag);
            let mut filter = FilterConfig::default();
            args.apply(&mut filter);
            let (changed, before) = (format!("{filter:#?}"), format!("{:#?}", FilterConfig::default()));
            let first = changed.lines().zip(before.lines()).find(|(a, b)| a != b).unwrap().0;
            assert!(first.trim().starts_with(&format!("{key}: ")), "{flag}: {first}");
        }
    }

    #[test]
    fn a_flag_replaces_the_value_of_the_file_and_leaves_the_others() {
        let mut filter =
            FilterConfig { names: vec!["*.doc".into()], labels: vec!["Bug".into()], ..FilterConfig::default() };
        parse(&["--name", "*.pdf", "--name", "*.txt"]).unwrap().apply(&mut filter);
        assert_eq!(filter.names, ["*.pdf", "*.txt"]);
        assert_eq!(filter.labels, ["Bug"]);
    }

    #[test]
    fn flags_hold_for_teams_with_rules_of_their_own_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        std::fs::write(&path, "[teams.a.filter]\nnames = [\"*.doc\"]\n[teams.b]\n").unwrap();
        let overrides = Overrides { config: Some(path), ..Overrides::default() };
        let mut loaded = load(&overrides, &Environment::default()).unwrap();
        parse(&["--inline", "keep"]).unwrap().apply_to(&mut loaded);
        for team in ["a", "b"] {
            assert_eq!(loaded.config.filter_for(team).inline, InlinePolicy::Keep);
        }
        assert_eq!(loaded.config.filter_for("a").names, ["*.doc"]);
        assert_eq!(loaded.sources.of("teams.a.filter.inline"), Origin::Flag("--inline"));
        assert_eq!(loaded.sources.of("teams.a.filter.names"), Origin::File { line: 2 });
    }

    #[test]
    fn a_bad_value_is_refused_with_advice() {
        for (flag, value, advice) in [
            ("--since", "soon", "2026-01-31"),
            ("--max-size", "lots", "10 MiB"),
            ("--inline", "maybe", "keep-non-images"),
            ("--direction", "up", "outbound"),
        ] {
            let error = parse(&[flag, value]).unwrap_err().to_string();
            assert!(error.contains(advice), "{error}");
        }
    }
}
