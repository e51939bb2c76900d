//! What a person types, as a full-text query that cannot fail: nothing in it is syntax.

use super::tokens::tokens;

/// Lexemes are cut to so many bytes; PostgreSQL takes no longer ones than 2,046.
const LEXEME_BYTES: usize = 1_000;
/// The lexemes of one entry together, of which PostgreSQL takes a mebibyte. Words behind them are not found.
const ENTRY_BYTES: usize = 900_000;

/// A column of the full-text index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Name,
    Subject,
    People,
}

impl Column {
    const ALL: [Self; 3] = [Self::Name, Self::Subject, Self::People];

    const fn sqlite(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Subject => "subject",
            Self::People => "people",
        }
    }

    /// What stands before each of its words in PostgreSQL, where the three are one.
    const fn mark(self) -> char {
        match self {
            Self::Name => 'n',
            Self::Subject => 's',
            Self::People => 'p',
        }
    }
}

/// Words that stand one behind the other, as they were typed: `o'neil` is two of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Phrase {
    pub(super) text: String,
    /// Whether the last word may go on.
    pub(super) is_beginning: bool,
}

/// A condition on words: one of several lists of phrases, all of which must be there. `None` is any column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) column: Option<Column>,
    pub(super) alternatives: Vec<Vec<Phrase>>,
}

/// All of these words; the last one may be the beginning of a longer word. `None` if there is no word in it.
pub(super) fn phrases(texts: &[String]) -> Option<Vec<Phrase>> {
    let is_word = |text: &&str| text.chars().any(char::is_alphanumeric);
    let words: Vec<&str> = texts.iter().flat_map(|text| text.split_whitespace()).filter(is_word).collect();
    let last = words.len().checked_sub(1)?;
    let phrases = words.iter().enumerate().map(|(index, word)| Phrase {
        text: (*word).to_owned(),
        // One letter begins too much to be of use.
        is_beginning: index == last && word.chars().filter(|sign| sign.is_alphanumeric()).nth(1).is_some(),
    });
    Some(phrases.collect())
}

impl Words {
    /// As FTS5 takes it: every phrase is quoted.
    pub(super) fn sqlite(&self) -> String {
        let alternatives: Vec<String> = self
            .alternatives
            .iter()
            .map(|phrases| {
                let quoted: Vec<String> = phrases.iter().map(Phrase::sqlite).collect();
                format!("({})", quoted.join(" AND "))
            })
            .collect();
        let any = alternatives.join(" OR ");
        self.column.map_or_else(|| format!("({any})"), |column| format!("({} : ({any}))", column.sqlite()))
    }

    /// As PostgreSQL takes it: a `tsquery`, and the phrases that it cannot tell whole. Of each of those, one of the
    /// patterns for LIKE must be in the entry's tokens. `None` if a phrase has no word, which nothing matches.
    pub(super) fn postgres(&self) -> Option<(String, Vec<Vec<String>>)> {
        let columns: Vec<Column> = self.column.map_or_else(|| Column::ALL.to_vec(), |column| vec![column]);
        let (mut alternatives, mut patterns) = (Vec::new(), Vec::new());
        for phrases in &self.alternatives {
            let of_phrases: Option<Vec<String>> = phrases
                .iter()
                .map(|phrase| {
                    let words = tokens(&phrase.text);
                    // Of alternatives, which come of globs, each phrase is one short word.
                    if words.len() > 1 || words.iter().any(|word| word.len() + 4 > LEXEME_BYTES) {
                        patterns.push(columns.iter().map(|column| phrase.pattern(*column, &words)).collect());
                    }
                    let each: Vec<String> = columns.iter().map(|column| phrase.lexemes(*column, &words)).collect();
                    (!words.is_empty()).then(|| format!("({})", each.join(" | ")))
                })
                .collect();
            alternatives.extend(of_phrases.map(|each| format!("({})", each.join(" & "))));
        }
        (!alternatives.is_empty()).then(|| (format!("({})", alternatives.join(" | ")), patterns))
    }
}

impl Phrase {
    fn sqlite(&self) -> String {
        // SQLite ends a query at a NUL.
        let text = self.text.replace('\0', " ").replace('"', "\"\"");
        format!("\"{text}\"{}", if self.is_beginning { " *" } else { "" })
    }

    fn lexemes(&self, column: Column, words: &[String]) -> String {
        let each: Vec<String> = words
            .iter()
            .enumerate()
            .map(|(index, word)| {
                let goes_on = if self.is_beginning && index + 1 == words.len() { ":*" } else { "" };
                // Words hold neither quotes nor backslashes.
                format!("'{}'{goes_on}", lexeme(column, word))
            })
            .collect();
        format!("({})", each.join(" & "))
    }

    fn pattern(&self, column: Column, words: &[String]) -> String {
        let marked: Vec<String> = words.iter().map(|word| format!("{}{word}", column.mark())).collect();
        format!("% {}{}%", marked.join(" "), if self.is_beginning { "" } else { " " })
    }
}

/// A word of a column as the index has it.
fn lexeme(column: Column, word: &str) -> String {
    let mut end = word.len().min(LEXEME_BYTES);
    while !word.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", column.mark(), &word[..end])
}

/// What PostgreSQL keeps of an entry: its tokens, each between spaces and behind the mark of its column; and its lexemes, if
/// they are not the same.
pub(super) fn postgres_entry(name: &str, subject: &str, people: &str) -> (String, Option<String>) {
    let (mut all, mut lexemes, mut is_cut) = (String::from(" "), String::from(" "), false);
    for (column, text) in [(Column::Name, name), (Column::Subject, subject), (Column::People, people)] {
        for token in tokens(text) {
            let lexeme = lexeme(column, &token);
            is_cut |= lexeme.len() <= token.len();
            all.extend([column.mark()]);
            all.push_str(&token);
            all.push(' ');
            if lexemes.len() + lexeme.len() + 1 > ENTRY_BYTES {
                is_cut = true;
            } else {
                lexemes.push_str(&lexeme);
                lexemes.push(' ');
            }
        }
    }
    (all, is_cut.then_some(lexemes))
}

/// Text from outside as it is indexed: in lower case, and without control characters, which `json_each` would drop.
pub(super) fn indexed(text: &str) -> String {
    text.chars().map(|sign| if sign.is_control() { ' ' } else { sign }).collect::<String>().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_of(text: &str) -> Option<Words> {
        Some(Words { column: None, alternatives: vec![phrases(&[text.to_owned()])?] })
    }

    fn query_of(text: &str) -> Option<String> {
        words_of(text).map(|words| words.sqlite())
    }

    #[test]
    fn every_word_is_quoted_and_the_last_may_go_on() {
        assert_eq!(query_of("annual report").unwrap(), r#"(("annual" AND "report" *))"#);
        assert_eq!(query_of(r#"o'neil AND ( "x"#).unwrap(), r#"(("o'neil" AND "AND" AND """x"))"#);
        assert_eq!(query_of("( * \"\" -"), None);
        assert_eq!(query_of("a\0b").unwrap(), "((\"a b\" *))");
    }

    #[test]
    fn phrases_are_told_by_lexemes_and_a_pattern() {
        let words = Words { column: Some(Column::Subject), ..words_of("O'Neil caf\u{e9}").unwrap() };
        let (query, patterns) = words.postgres().unwrap();
        assert_eq!(query, "(((('so' & 'sneil')) & (('scafe':*))))");
        assert_eq!(patterns, [["% so sneil %"]]);
        let (query, patterns) = words_of("ab").unwrap().postgres().unwrap();
        assert_eq!(query, "(((('nab':*) | ('sab':*) | ('pab':*))))");
        assert!(patterns.is_empty());
        assert_eq!(words_of("\u{24b6}").unwrap().postgres(), None, "a letter that is none to SQLite");
    }

    #[test]
    fn long_words_are_cut_where_postgresql_needs_it() {
        assert_eq!(postgres_entry("a-B.pdf", "", "x@y"), (" na nb npdf px py ".into(), None));
        let long = "\u{e4}\u{f8}".repeat(600);
        let (tokens, lexemes) = postgres_entry(&long, "b", "");
        let lexemes = lexemes.unwrap();
        assert!(tokens.len() > 1_200 && lexemes.len() < 1_010 && lexemes.ends_with(" sb "), "{}", lexemes.len());
        assert_eq!(words_of(&long).unwrap().postgres().unwrap().1.len(), 1);
        let (tokens, lexemes) = postgres_entry("", "", &"ab ".repeat(400_000));
        assert!(tokens.len() > 1_500_000 && lexemes.unwrap().len() <= ENTRY_BYTES);
    }

    #[test]
    fn control_characters_become_spaces() {
        assert_eq!(indexed("A\u{0}B\nÄ"), "a b ä");
    }
}
