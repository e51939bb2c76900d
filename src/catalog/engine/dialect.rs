//! SQLite's words in PostgreSQL's. Statements keep to what both know: joins with `ON`, `CAST`, `IS NOT DISTINCT FROM`, aggregates
//! with casts. What is left here are words alone; functions that PostgreSQL lacks are made by its first migration.

/// Words, and what stands for them.
const WORDS: [(&str, &str); 15] = [
    ("BLOB", "BYTEA"),
    // SQLite joins in the order in which a statement names its tables; PostgreSQL does so for JOIN as it is told to by
    // `join_collapse_limit`.
    ("COLLATE BINARY", "COLLATE \"C\""),
    ("CROSS JOIN", "JOIN"),
    // An index is where its table is.
    ("INDEX IF NOT EXISTS temp.", "INDEX IF NOT EXISTS "),
    ("INDEX temp.", "INDEX "),
    ("INSERT OR FAIL", "INSERT"),
    ("INSERT OR IGNORE", "INSERT"),
    ("INTEGER", "BIGINT"),
    ("LIMIT -1", ""),
    ("NOT INDEXED", ""),
    ("UPDATE OR FAIL", "UPDATE"),
    ("WITHOUT ROWID", ""),
    ("group_concat", "string_agg"),
    // Elements that are objects, and those that are numbers or texts.
    ("json_each", "json_values"),
    ("temp.", "pg_temp."),
];

/// Says a statement to PostgreSQL.
pub(super) fn postgres(sql: &str) -> String {
    let has_objects = sql.contains("value ->>");
    let mut text = String::with_capacity(sql.len() + 64);
    let is_ignoring = sql.contains("INSERT OR IGNORE");
    let mut parameters = 0;
    let mut rest = sql;
    let mut is_word = false;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\'' => rest[1..].find('\'').map_or(rest.len(), |end| end + 2),
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '?' => {
                let digits = rest[1..].bytes().take_while(u8::is_ascii_digit).count();
                text.push('$');
                if digits == 0 {
                    parameters += 1;
                    text.push_str(&parameters.to_string());
                } else {
                    text.push_str(&rest[1..=digits]);
                }
                rest = &rest[1 + digits..];
                is_word = false;
                continue;
            }
            _ => first.len_utf8(),
        };
        let word = WORDS.iter().filter(|_| !is_word).find(|(word, _)| {
            rest.strip_prefix(word).is_some_and(|behind| word.ends_with('.') || !behind.starts_with(is_part_of_word))
        });
        if let Some((word, replaced)) = word {
            text.push_str(if *word == "json_each" && has_objects { "json_objects" } else { replaced });
            rest = &rest[word.len()..];
            is_word = !word.ends_with('.');
            continue;
        }
        text.push_str(&rest[..length]);
        rest = &rest[length..];
        is_word = is_part_of_word(first);
    }
    if is_ignoring {
        text.push_str(" ON CONFLICT DO NOTHING");
    }
    text
}

fn is_part_of_word(sign: char) -> bool {
    sign.is_ascii_alphanumeric() || sign == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_numbered_and_texts_are_left_alone() {
        assert_eq!(postgres("SELECT ?, 'a?b', ? -- why?\n, ?2"), "SELECT $1, 'a?b', $2 -- why?\n, $2");
    }

    #[test]
    fn words_are_replaced_whole() {
        assert_eq!(
            postgres("INSERT OR FAIL INTO temp.seen SELECT INTEGERS, attempt.x FROM a CROSS JOIN b ON true LIMIT -1"),
            "INSERT INTO pg_temp.seen SELECT INTEGERS, attempt.x FROM a JOIN b ON true "
        );
        assert_eq!(postgres("SELECT value ->> 'i' FROM json_each(?)"), "SELECT value ->> 'i' FROM json_objects($1)");
        assert_eq!(postgres("INSERT OR IGNORE INTO a SELECT 1"), "INSERT INTO a SELECT 1 ON CONFLICT DO NOTHING");
        assert_eq!(postgres("SELECT value FROM json_each(?)"), "SELECT value FROM json_values($1)");
    }
}
