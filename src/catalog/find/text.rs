//! What a person types, as a full-text query that cannot fail: every word is quoted, so that nothing in it is syntax.

/// The query that finds texts with all of these words; the last one may be the beginning of a longer word. `None` if
/// there is no word in it.
pub(super) fn query(texts: &[String]) -> Option<String> {
    let is_word = |text: &&str| text.chars().any(char::is_alphanumeric);
    let words: Vec<&str> = texts.iter().flat_map(|text| text.split_whitespace()).filter(is_word).collect();
    let last = words.len().checked_sub(1)?;
    let quoted: Vec<String> = words
        .iter()
        .enumerate()
        .map(|(index, word)| {
            // SQLite ends a query at a NUL.
            let word = word.replace('\0', " ").replace('"', "\"\"");
            // One letter begins too much to be of use.
            let is_beginning = index == last && word.chars().filter(|sign| sign.is_alphanumeric()).nth(1).is_some();
            format!("\"{word}\"{}", if is_beginning { " *" } else { "" })
        })
        .collect();
    Some(format!("({})", quoted.join(" AND ")))
}

/// Text from outside as it is indexed: in lower case, and without control characters, which `json_each` would drop.
pub(super) fn indexed(text: &str) -> String {
    text.chars().map(|sign| if sign.is_control() { ' ' } else { sign }).collect::<String>().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query_of(text: &str) -> Option<String> {
        query(&[text.to_owned()])
    }

    #[test]
    fn every_word_is_quoted_and_the_last_may_go_on() {
        assert_eq!(query_of("annual report").unwrap(), r#"("annual" AND "report" *)"#);
        assert_eq!(query_of(r#"o'neil AND ( "x"#).unwrap(), r#"("o'neil" AND "AND" AND """x")"#);
        assert_eq!(query_of("( * \"\" -"), None);
        assert_eq!(query_of("a\0b").unwrap(), "(\"a b\" *)");
    }

    #[test]
    fn control_characters_become_spaces() {
        assert_eq!(indexed("A\u{0}B\nÄ"), "a b ä");
    }
}
