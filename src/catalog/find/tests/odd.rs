//! What both engines must see alike, and what happens where several work at one index.

use sqlx::Connection as _;

use super::super::text::{Words, phrases};
use super::*;
use crate::catalog::open::test::is_postgres;

#[test]
fn names_and_addresses_with_odd_characters_are_found_as_they_are() {
    run(async {
        let world = World::new().await;
        let to = |text: &str| Mail { to: text.into(), ..mail(text, "x") };
        world
            .take(&[
                mail("a", "a\0b%_\\c.pdf"),
                mail("b", "a-b---c.pdf"),
                to("Zoe <ZOE@x.example>"),
                to("n\0ul@n.example"),
                to("back\\u0000slash@y.example"),
                to("\u{c4}nn@z.example"),
                Mail { subject: format!("{} end", "long".repeat(2_000)), ..mail("l", &"n".repeat(9_000)) },
            ])
            .await;
        world.index().await;
        let name = |text: &str| FindQuery { name: Some(glob(text)), ..FindQuery::default() };
        assert_eq!(world.names(name("a?b%_\\\\c.*")).await, ["a\0b%_\\c.pdf"]);
        assert_eq!(world.names(name("a[!x]b[%\\-][_-][\\\\-]c.pdf")).await.len(), 2);
        assert_eq!(world.names(name("a?b__*")).await, [""; 0]);
        assert_eq!(world.names(name("nnn*n")).await.len(), 1);
        let receivers = |text: &str| FindQuery { recipient: Some(glob(text)), ..FindQuery::default() };
        for (pattern, count) in [
            ("zoe@x.example", 1),
            ("z[o]e@?.*", 1),
            ("back\\\\u0000slash@y.example", 1),
            ("\u{e4}nn@z.example", 0),
            ("?nn@z.example", 1),
            ("bob@b.exampl[a-e]", 3),
            ("nobody@*", 0),
        ] {
            assert_eq!(world.names(receivers(pattern)).await.len(), count, "{pattern}");
        }
        for (text, count) in [(&*"long".repeat(2_000), 1), (&"long".repeat(1_999), 1), ("end", 1), ("\0", 0)] {
            assert_eq!(world.names(words(text)).await.len(), count, "{}", text.len());
        }
        assert_eq!(world.names(words(&format!("{} end", "long".repeat(1_999)))).await.len(), 0);
        for sort in [FindSort::Name, FindSort::Sender] {
            let page = world.page(&FindQuery { sort, ..FindQuery::default() }, None, 1).await;
            assert_eq!(world.page(&FindQuery { sort, ..FindQuery::default() }, page.next, 9).await.found.len(), 6);
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    /// Each engine's index gives what SQLite's full-text index gives of the same texts.
    #[test]
    fn words_find_what_sqlites_index_finds(
        texts in prop::collection::vec(prop::array::uniform3(r"[abéÀ़ '.@%-]{0,10}"), 30),
        asked in prop::collection::vec((r"[abeéa '.@-]{1,7}", any::<bool>()), 60),
    ) {
        run(async {
            let world = World::new().await;
            let mails: Vec<Mail> = texts
                .iter()
                .enumerate()
                .map(|(index, [name, subject, to])| Mail {
                    subject: subject.clone(),
                    to: to.clone(),
                    sender: "zz".into(),
                    ..mail(&format!("m{index}"), &format!("{name} n{index}"))
                })
                .collect();
            world.take(&mails).await;
            world.index().await;
            let mut reference = sqlx::SqliteConnection::connect("sqlite::memory:").await.unwrap();
            let table = "CREATE VIRTUAL TABLE t USING fts5
                (name, subject, people, tokenize = 'unicode61 remove_diacritics 2')";
            sqlx::raw_sql(table).execute(&mut reference).await.unwrap();
            for one in &mails {
                sqlx::query("INSERT INTO t VALUES (?, ?, ?)")
                    .bind(&one.name)
                    .bind(&one.subject)
                    .bind(format!("zz {}", one.to))
                    .execute(&mut reference)
                    .await
                    .unwrap();
            }
            for (text, of_subject) in asked {
                let query = if of_subject {
                    FindQuery { subject: Some(text.clone()), ..FindQuery::default() }
                } else {
                    words(&text)
                };
                let mut names = world.names(query).await;
                names.sort();
                let Some(phrases) = phrases(std::slice::from_ref(&text)) else {
                    assert_eq!(names, [""; 0]);
                    continue;
                };
                let column = of_subject.then_some(super::super::text::Column::Subject);
                let query = Words { column, alternatives: vec![phrases] }.sqlite();
                let expected: Vec<String> = sqlx::query_scalar("SELECT name FROM t WHERE t MATCH ? ORDER BY name")
                    .bind(query)
                    .fetch_all(&mut reference)
                    .await
                    .unwrap();
                assert_eq!(names, expected, "{text:?}");
            }
        });
    }
}

#[test]
fn two_who_index_at_once_take_in_everything_once() {
    run(async {
        let world = World::new().await;
        let mails: Vec<Mail> = (0..40).map(|number| mail(&format!("a{number}"), &format!("{number}.pdf"))).collect();
        world.take(&mails).await;
        let clock = Clock::fixed("2026-11-22T10:00:00Z".parse().unwrap());
        let other = Catalog::open(world.folder.path(), clock).await.unwrap();
        let all = async |catalog: &Catalog| {
            while catalog.index_messages().await.unwrap() {}
            catalog.settle_entries(1_000, true).await.unwrap();
        };
        futures::join!(all(&world.catalog), all(&other));
        assert_eq!(world.page(&words("pdf"), None, 100).await.found.len(), 40);
    });
}

#[test]
fn a_message_that_is_committed_late_is_not_passed_over() {
    // SQLite has one writer: there is no such message.
    if !is_postgres() {
        return;
    }
    run(async {
        let world = World::new().await;
        let clock = Clock::fixed("2026-11-22T10:00:00Z".parse().unwrap());
        let slow = Catalog::open(world.folder.path(), clock).await.unwrap();
        let late = "INSERT INTO messages (team_id, line_digest) VALUES (1, 'late')";
        // As whoever takes the connection next would undo it, it is held.
        let mut held = slow.connection().await;
        held.enter().await.unwrap();
        held.run(late).await.unwrap();
        world.take(&[mail("a", "a.pdf")]).await;
        while world.catalog.index_messages().await.unwrap() {}
        assert_eq!(world.names(words("pdf")).await, [""; 0]);
        held.commit().await.unwrap();
        world.index().await;
        assert_eq!(world.names(words("pdf")).await, ["a.pdf"]);
        assert_eq!(world.catalog.unindexed_messages().await.unwrap(), 0);
    });
}
