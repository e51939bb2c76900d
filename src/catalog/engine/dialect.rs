//! SQLite's words in PostgreSQL's. Statements keep to what both know: joins with `ON`, `CAST`, `IS NOT DISTINCT FROM`, aggregates
//! with casts. What is left here are words alone; functions that PostgreSQL lacks are made by its first migration.

/// Words, and what stands for them.
const WORDS: [(&str, &str); 15] = [
    ("BLOB", "BYTEA"),
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

/// What may follow the condition of a join.
const AFTER_CONDITION: [&str; 9] =
    ["CROSS JOIN", "FOR UPDATE", "GROUP BY", "JOIN", "LEFT JOIN", "LIMIT", "ON CONFLICT", "ORDER BY", "WHERE"];

/// Says a statement to PostgreSQL.
pub(super) fn postgres(sql: &str) -> String {
    let sql = look_ups(sql);
    let sql = sql.as_str();
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

/// Has SQLite's `CROSS JOIN table name ON condition` mean what it means there: each row of what stands before it is looked
/// up in the table, by an index. PostgreSQL would keep the order of a plain join as it is told to, and yet walk the table, or
/// all that one team has in it, for lack of knowledge of how much that is. An OFFSET is what its planner does not see through.
fn look_ups(sql: &str) -> String {
    let mut text = String::with_capacity(sql.len() + 256);
    let mut rest = sql;
    while let Some((before, after)) = rest.split_once("CROSS JOIN ") {
        text.push_str(before);
        rest = after;
        let Some((table, name, condition)) = table_join(after) else {
            text.push_str("CROSS JOIN ");
            continue;
        };
        let (condition, behind) = condition.split_at(end_of_condition(condition));
        text.extend(["CROSS JOIN LATERAL (SELECT * FROM ", table, " ", name, " WHERE ", condition.trim_end()]);
        text.extend([" OFFSET 0) ", name, " ON true "]);
        rest = behind;
    }
    text + rest
}

/// The table, its name in the statement, and all from the condition on, if it is a table that is joined here.
fn table_join(text: &str) -> Option<(&str, &str, &str)> {
    let (table, rest) = text.split_once(char::is_whitespace)?;
    let (name, rest) = rest.trim_start().split_once(char::is_whitespace)?;
    let condition = rest.trim_start().strip_prefix("ON")?.strip_prefix(char::is_whitespace)?;
    table.chars().all(|sign| is_part_of_word(sign) || sign == '.').then_some((table, name, condition))
}

/// How long the condition is with which a text begins.
fn end_of_condition(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut is_word = false;
    for (place, sign) in text.char_indices() {
        match sign {
            '(' => depth += 1,
            ')' if depth == 0 => return place,
            ')' => depth -= 1,
            _ if depth == 0 && !is_word && AFTER_CONDITION.iter().any(|word| text[place..].starts_with(word)) => {
                return place;
            }
            _ => {}
        }
        is_word = is_part_of_word(sign);
    }
    text.len()
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
    fn tables_are_looked_up_by_the_rows_before_them() {
        assert_eq!(
            postgres(
                "SELECT 1 FROM n CROSS JOIN messages m ON m.id = (n.i) AND m.x
                CROSS JOIN json_each(?) j ON true CROSS JOIN temp.seen s\nON s.id = m.id WHERE n.i < 3"
            ),
            "SELECT 1 FROM n JOIN LATERAL (SELECT * FROM messages m WHERE m.id = (n.i) AND m.x OFFSET 0) m ON true \
            JOIN json_values($1) j ON true JOIN LATERAL (SELECT * FROM pg_temp.seen s WHERE s.id = m.id OFFSET 0) s \
            ON true WHERE n.i < 3"
        );
        assert_eq!(
            postgres("SELECT (SELECT 1 FROM a CROSS JOIN b c ON c.i = a.i), 2"),
            "SELECT (SELECT 1 FROM a JOIN LATERAL (SELECT * FROM b c WHERE c.i = a.i OFFSET 0) c ON true ), 2"
        );
    }

    #[test]
    fn words_are_replaced_whole() {
        assert_eq!(
            postgres(
                "INSERT OR FAIL INTO temp.seen SELECT INTEGERS, attempt.x FROM (a) CROSS JOIN (b) ON true LIMIT -1"
            ),
            "INSERT INTO pg_temp.seen SELECT INTEGERS, attempt.x FROM (a) JOIN (b) ON true "
        );
        assert_eq!(postgres("SELECT value ->> 'i' FROM json_each(?)"), "SELECT value ->> 'i' FROM json_objects($1)");
        assert_eq!(postgres("INSERT OR IGNORE INTO a SELECT 1"), "INSERT INTO a SELECT 1 ON CONFLICT DO NOTHING");
        assert_eq!(postgres("SELECT value FROM json_each(?)"), "SELECT value FROM json_values($1)");
    }
}
