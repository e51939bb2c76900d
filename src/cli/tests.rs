//! Every command's help has examples, and each of them can be typed as it stands.

use clap::CommandFactory as _;

use super::Cli;

/// Every command, with its name.
fn commands(command: &clap::Command, name: &str, found: &mut Vec<(String, String)>) {
    for one in command.get_subcommands().filter(|one| one.get_name() != "help") {
        commands(one, &format!("{name} {}", one.get_name()), found);
    }
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    found.push((name.to_owned(), help));
}

/// The arguments of the call of jellyjar in a line of examples, as a shell would give them.
fn arguments(line: &str) -> Option<Vec<String>> {
    let line = line.strip_prefix("  ")?;
    // Two spaces begin what explains the example.
    let line = line.find("  ").map_or(line, |end| &line[..end]);
    let begin = if line.starts_with("jellyjar ") { 0 } else { line.find("| jellyjar ")? + 2 };
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for sign in line[begin..].chars() {
        match (sign, quote) {
            (sign, Some(open)) if sign == open => quote = None,
            ('\'' | '"', None) => quote = Some(sign),
            ('|' | '>', None) => break,
            (' ', None) => words.extend((!word.is_empty()).then(|| std::mem::take(&mut word))),
            (sign, _) => word.push(sign),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    Some(words)
}

#[test]
fn every_command_has_examples_and_each_can_be_typed() {
    let mut found = Vec::new();
    commands(&Cli::command(), "jellyjar", &mut found);
    assert!(found.len() > 18, "{}", found.len());
    for (name, help) in found {
        let examples = help.strip_prefix("Examples:\n").unwrap_or_else(|| panic!("{name} has no examples"));
        let lines = examples.lines().take_while(|line| line.starts_with("  "));
        let calls: Vec<_> = lines.filter_map(|line| Some((line, arguments(line)?))).collect();
        assert!(calls.iter().any(|(_, call)| call.join(" ").starts_with(&name)), "{name}: no example is of itself");
        for (line, call) in calls {
            if let Err(error) = Cli::command().try_get_matches_from(&call) {
                panic!("{name}: {line}\n{call:?}\n{error}");
            }
        }
    }
}

#[test]
fn the_command_tree_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn a_line_is_split_as_a_shell_does_it() {
    let words = |line: &str| arguments(line).unwrap();
    assert_eq!(words("  zcat a.gz | jellyjar replay - --json"), ["jellyjar", "replay", "-", "--json"]);
    assert_eq!(words("  jellyjar find --larger '10 MiB' > x   why"), ["jellyjar", "find", "--larger", "10 MiB"]);
    assert_eq!(arguments("  export X=…"), None);
}
