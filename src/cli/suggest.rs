//! What people of other tools type, and what it is called here.

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Words for commands, and the commands that do that.
const WORDS: [(&[&str], &str); 13] = [
    (&["search", "ls", "list", "grep", "query", "show"], "find"),
    (&["sync", "archive", "import", "add", "backup", "run", "fetch", "pull", "ingest", "load"], "replay"),
    (&["check", "fsck", "scrub", "audit", "validate"], "verify"),
    (&["repair", "fix", "heal"], "verify --repair"),
    (&["download", "cat", "open", "read", "extract", "dump", "restore"], "get"),
    (&["init", "setup"], "config init"),
    (&["reindex", "recover"], "rebuild"),
    (&["errors", "failures"], "failed"),
    (&["continue", "unpause"], "resume"),
    (&["daemon", "server", "start", "listen", "worker", "webhook", "webhooks"], "serve"),
    (&["hold", "suspend", "stop"], "pause"),
    (&["stats", "info", "summary", "du"], "status"),
    (&["completion"], "completions"),
];

/// The command of ours that does what `word` means elsewhere.
fn meant(word: &str) -> Option<&'static str> {
    let word = word.to_lowercase();
    WORDS.iter().find(|(words, _)| words.contains(&word.as_str())).map(|(_, command)| *command)
}

/// Adds the right command to an error about a wrong one.
pub(super) fn explain(mut error: clap::Error) -> clap::Error {
    if error.kind() == ErrorKind::InvalidSubcommand
        && let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand)
        && let Some(command) = meant(word)
    {
        let tip = StyledStr::from(format!("here that is 'jellyjar {command}'"));
        // Instead of what merely looks alike.
        error.remove(ContextKind::SuggestedSubcommand);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    }
    error
}

/// What is wrong, and the tip if there is one, without the usage that people are shown.
pub(super) fn in_one_line(error: &clap::Error) -> String {
    let missing = [ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, ErrorKind::MissingSubcommand];
    if missing.contains(&error.kind()) {
        return "a command is missing; --help lists them".into();
    }
    let text = error.render().to_string();
    let words = text.split("\n\nUsage:").next().unwrap_or_default().split_whitespace();
    let line = words.collect::<Vec<_>>().join(" ");
    let line = line.split(" For more information, try").next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_word_leads_to_a_command_and_is_none_itself() {
        let cli = crate::cli::Cli::command();
        for (words, command) in WORDS {
            let mut found = &cli;
            for part in command.split(' ').filter(|part| !part.starts_with('-')) {
                found = found.find_subcommand(part).unwrap_or_else(|| panic!("{command}"));
            }
            for word in words {
                assert!(cli.find_subcommand(word).is_none(), "{word} is a command");
            }
        }
    }

    #[test]
    fn a_foreign_word_is_translated_and_a_typing_error_still_corrected() {
        let told = |word: &str| {
            explain(crate::cli::Cli::command().try_get_matches_from(["jellyjar", word]).unwrap_err()).to_string()
        };
        assert!(told("search").contains("jellyjar find"), "{}", told("search"));
        assert!(told("init").contains("jellyjar config init"), "{}", told("init"));
        assert!(told("replya").contains("'replay'"), "{}", told("replya"));
        assert!(told("listen").contains("jellyjar serve"), "{}", told("listen"));
        assert!(!told("frobnicate").contains("here that is"), "{}", told("frobnicate"));
    }
}
