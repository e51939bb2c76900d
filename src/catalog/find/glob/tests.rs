//! Patterns and what the two engines make of them.

use proptest::prelude::*;

use super::super::text::Words;
use super::*;

fn matches(pattern: &GlobPattern, text: &str) -> bool {
    pattern.alternatives.iter().any(|pieces| matches_from(pieces, &text.chars().collect::<Vec<_>>()))
}

fn matches_from(pieces: &[Piece], text: &[char]) -> bool {
    match pieces.split_first() {
        None => text.is_empty(),
        Some((Piece::Many, rest)) => (0..=text.len()).any(|skip| matches_from(rest, &text[skip..])),
        Some((piece, rest)) => text.split_first().is_some_and(|(sign, text)| {
            let fits = match piece {
                Piece::Literal(literal) => literal == sign,
                Piece::One | Piece::Many => true,
                Piece::Class { negated, ranges } => {
                    ranges.iter().any(|(low, high)| low <= sign && sign <= high) != *negated
                }
            };
            fits && matches_from(rest, text)
        }),
    }
}

#[test]
fn a_choice_of_nothing_is_none() {
    for (pattern, matched, unmatched) in
        [("{a,}", "a", ""), ("{{}a,}", "a", ""), ("a{}", "a", ""), ("{{},{a,b}}c", "bc", "c")]
    {
        let (ours, rules) =
            (GlobPattern::parse(pattern).unwrap(), globset::Glob::new(pattern).unwrap().compile_matcher());
        assert!(matches(&ours, matched) && rules.is_match(matched), "{pattern}");
        assert!(!matches(&ours, unmatched) && !rules.is_match(unmatched), "{pattern}");
    }
}

proptest! {
    #[test]
    fn patterns_match_what_the_rules_patterns_match(
        pattern in r"[ab.*?\[\]{},!^\-\\]{0,9}",
        text in r"[ab.*?\[\]{},!^\-\\]{0,6}",
    ) {
        let rules = globset::GlobBuilder::new(&pattern).literal_separator(false).backslash_escape(true).build();
        // Recursive wildcards have a meaning of their own there only beside `/`, which stands in no such name.
        match (GlobPattern::parse(&pattern), rules) {
            (Ok(ours), Ok(rules)) => prop_assert_eq!(matches(&ours, &text), rules.compile_matcher().is_match(&text)),
            (Err(_), Ok(rules)) => prop_assert!(pattern.contains('{') || pattern.contains('['), "{}", rules.glob()),
            _ => {}
        }
    }

    #[test]
    fn sqlite_matches_as_we_do(pattern in r"[ab.*?\[\]{},!^\-\\_`\]]{0,9}", texts in prop::collection::vec(r"[ab.*?\[\]{},!^\-\\_`]{0,6}", 8)) {
        let Ok(ours) = GlobPattern::parse(&pattern) else { return Ok(()) };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let found: Vec<bool> = runtime.block_on(async {
            use sqlx::Connection as _;
            let mut connection = sqlx::SqliteConnection::connect("sqlite::memory:").await.unwrap();
            let mut found = Vec::new();
            for text in &texts {
                let mut any = false;
                for glob in ours.sqlite() {
                    any |= sqlx::query_scalar::<_, bool>("SELECT $1 GLOB $2").bind(text).bind(glob).fetch_one(&mut connection).await.unwrap();
                }
                found.push(any);
            }
            found
        });
        let expected: Vec<bool> = texts.iter().map(|text| matches(&ours, text)).collect();
        prop_assert_eq!(found, expected, "{:?}", ours.sqlite());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    #[allow(clippy::disallowed_methods, reason = "which server tests have is no setting")]
    fn postgresql_matches_as_we_do(
        patterns in prop::collection::vec(r"[ab.*?\[\]{},!^\-\\_%é]{0,9}", 8),
        texts in prop::collection::vec(r"[ab.*?\[\]{},!^\-\\_%é]{0,6}", 8),
    ) {
        // Without its server there is nothing to compare with.
        let Ok(server) = std::env::var("JELLYJAR_TEST_POSTGRES") else { return Ok(()) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            use sqlx::Connection as _;
            let mut connection = sqlx::PgConnection::connect(&server).await.unwrap();
            for ours in patterns.iter().filter_map(|pattern| GlobPattern::parse(pattern).ok()) {
                let (sql, globs) = match ours.postgres() {
                    Postgres::Like(globs) => ("SELECT $1 LIKE $2", globs),
                    Postgres::Regular(globs) => ("SELECT $1 ~ ('^' || $2 || '$')", globs),
                };
                for text in &texts {
                    let mut any = false;
                    for glob in &globs {
                        any |= sqlx::query_scalar::<_, bool>(sql).bind(text).bind(glob).fetch_one(&mut connection).await.unwrap();
                    }
                    assert_eq!(any, matches(&ours, text), "{globs:?} {text:?}");
                }
            }
        });
    }
}

#[test]
fn words_are_told_where_their_ends_are_certain() {
    let words = |text: &str| {
        let alternatives = GlobPattern::parse(text).unwrap().words()?;
        Some(Words { column: None, alternatives }.sqlite())
    };
    assert_eq!(words("*.pdf").as_deref(), Some("((\"pdf\"))"));
    assert_eq!(words("Invoice*").as_deref(), Some("((\"invoice\" *))"));
    assert_eq!(words("*@acme.com").as_deref(), Some("((\"acme\" AND \"com\"))"));
    assert_eq!(words("*.{jpg,png}").as_deref(), Some("((\"jpg\") OR (\"png\"))"));
    assert_eq!(words("*voice*"), None);
    assert_eq!(words("*.{jpg,*}"), None);
    assert_eq!(words("caf\u{e9}"), None);
}

#[test]
fn what_cannot_be_read_is_refused() {
    for text in ["[a", "{a", "a}", "\\", "[z-a]", "{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}"] {
        assert!(GlobPattern::parse(text).is_err(), "{text}");
    }
    assert!(GlobPattern::parse("a.pdf").unwrap().is_literal());
    assert!(!GlobPattern::parse("*.pdf").unwrap().is_literal());
}
