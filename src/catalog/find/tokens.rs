//! Words as SQLite's full-text index takes them out of a text (FTS5's `unicode61 remove_diacritics 2`), for PostgreSQL, whose
//! own parsers see other words.

mod unicode;

use std::collections::HashMap;
use std::sync::LazyLock;

use super::text::indexed;

/// Letters that stand for others.
static FOLDED: LazyLock<HashMap<char, char>> = LazyLock::new(|| {
    let marked = unicode::MARKED.iter().flat_map(|(letter, forms)| forms.chars().map(|form| (form, *letter)));
    marked.chain(unicode::OTHER_FORMS).collect()
});

/// The words of a text, in their order: runs of letters and digits, in lower case, without marks.
pub(super) fn tokens(text: &str) -> Vec<String> {
    let (mut tokens, mut token) = (Vec::new(), String::new());
    // A mark may belong to a word, but begins none.
    let mut is_within = false;
    for sign in indexed(text).chars() {
        if belongs_to_word(sign) {
            token.push(if sign.is_ascii() { sign } else { FOLDED.get(&sign).copied().unwrap_or(sign) });
            is_within = true;
        } else if !(is_within && is_mark(sign)) {
            is_within = false;
            if !token.is_empty() {
                tokens.push(std::mem::take(&mut token));
            }
        }
    }
    if !token.is_empty() {
        tokens.push(token);
    }
    tokens
}

fn belongs_to_word(sign: char) -> bool {
    sign.is_ascii_alphanumeric()
        || !sign.is_ascii() && unicode::BOUNDARIES.partition_point(|boundary| *boundary <= u32::from(sign)) % 2 == 1
}

fn is_mark(sign: char) -> bool {
    unicode::MARKS.iter().any(|(first, last)| (*first..=*last).contains(&u32::from(sign)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sqlx::{Connection as _, SqliteConnection};

    use super::*;

    /// The words that SQLite sees in each of these texts.
    fn of_sqlite(texts: &[String]) -> Vec<Vec<String>> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let rows: Vec<(i64, String)> = runtime.block_on(async {
            let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
            let tables = "CREATE VIRTUAL TABLE t USING fts5 (a, tokenize = 'unicode61 remove_diacritics 2');
                CREATE VIRTUAL TABLE v USING fts5vocab (t, 'instance')";
            sqlx::raw_sql(tables).execute(&mut connection).await.unwrap();
            sqlx::query("INSERT INTO t (rowid, a) SELECT key, value FROM json_each(?)")
                .bind(serde_json::to_string(texts).unwrap())
                .execute(&mut connection)
                .await
                .unwrap();
            sqlx::query_as("SELECT doc, term FROM v ORDER BY doc, offset").fetch_all(&mut connection).await.unwrap()
        });
        let mut words = vec![Vec::new(); texts.len()];
        for (text, word) in rows {
            words[usize::try_from(text).unwrap()].push(word);
        }
        words
    }

    #[test]
    fn every_sign_is_taken_as_sqlite_takes_it() {
        // A sign of each kind and boundary that there is: all of the first planes' beginnings, and samples of the rest.
        let signs = (0..0x3000_u32).chain((0x3000..0x2_0000).step_by(7)).chain((0x2_0000..0x11_0000).step_by(997));
        let near = unicode::BOUNDARIES.iter().flat_map(|boundary| [boundary - 1, *boundary, boundary + 1]);
        let texts: Vec<String> =
            signs.chain(near).filter_map(char::from_u32).map(|sign| indexed(&format!("x{sign}y {sign}"))).collect();
        for (text, expected) in texts.iter().zip(of_sqlite(&texts)) {
            assert_eq!(tokens(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn texts_are_cut_as_sqlite_cuts_them(texts in prop::collection::vec(r"(\PC|[a-z \-@.'\u{300}-\u{31b}éÄİſςΣ]){0,24}", 32)) {
            let texts: Vec<String> = texts.iter().map(|text| indexed(text)).collect();
            let words: Vec<Vec<String>> = texts.iter().map(|text| tokens(text)).collect();
            prop_assert_eq!(words, of_sqlite(&texts));
        }
    }
}
