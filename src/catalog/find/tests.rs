//! The index follows the catalog, and answers are what a plain look at every entry would give.

mod odd;

use proptest::prelude::*;

use super::*;
use crate::catalog::Journaled;
use crate::catalog::{IngestMessage, IngestReference};
use crate::clock::Clock;
use crate::model::{Attachment, AttachmentId, Conversation, Message, MessageLine, TeamKey};

struct World {
    catalog: Catalog,
    archive: ArchiveRow,
    team: TeamRow,
    key: TeamKey,
    folder: tempfile::TempDir,
}

/// One message with one attachment.
#[derive(Debug, Clone)]
struct Mail {
    attachment: String,
    message: Option<String>,
    name: String,
    subject: String,
    sender: String,
    to: String,
    day: u32,
    size: u64,
    skipped: bool,
}

fn mail(attachment: &str, name: &str) -> Mail {
    Mail {
        attachment: attachment.into(),
        message: Some(format!("m-{attachment}")),
        name: name.into(),
        subject: "Hello".into(),
        sender: "Ann <ann@a.example>".into(),
        to: "bob@b.example".into(),
        day: 1,
        size: 100,
        skipped: false,
    }
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let catalog =
            Catalog::open(folder.path(), Clock::fixed("2026-11-22T10:00:00Z".parse().unwrap())).await.unwrap();
        let archive = catalog.bind_archive("u", "/a").await.unwrap();
        let key: TeamKey = "default".parse().unwrap();
        let team = catalog.bind_team(archive, &key).await.unwrap();
        Self { catalog, archive, team, key, folder }
    }

    async fn take(&self, mails: &[Mail]) {
        for mail in mails {
            let mut digest = [0; 16];
            digest.copy_from_slice(&Digest::of(format!("{mail:?}").as_bytes()).as_bytes()[..16]);
            let id: AttachmentId = mail.attachment.clone().try_into().unwrap();
            let attachment = Attachment {
                id: id.clone(),
                name: Some(mail.name.clone()),
                content_type: Some("Application/PDF; x=1".into()),
                size_bytes: Some(mail.size),
                inline: false,
            };
            let message = Message {
                id: mail.message.clone(),
                subject: Some(mail.subject.clone()),
                from: vec![mail.sender.clone()],
                to: vec![mail.to.clone()],
                sent_at: Some(format!("2026-01-{:02}T00:00:00Z", mail.day)),
                conversation: Some(Conversation { id: Some(format!("c{}", mail.day)), ..Conversation::default() }),
                attachments: vec![attachment],
                ..Message::default()
            };
            let reference = IngestReference {
                key: AttachmentKey::new(&self.key, &id),
                skip_rule: mail.skipped.then(|| "inline".into()),
            };
            let line = MessageLine::new(self.key.clone(), jiff::Timestamp::UNIX_EPOCH, message);
            let message = IngestMessage { line_digest: digest, line, references: vec![reference] };
            self.catalog.ingest(self.team, &[message], &Journaled::of(self.archive, 1, "w")).await.unwrap();
        }
    }

    async fn index(&self) {
        while self.catalog.index_messages().await.unwrap() {}
        self.catalog.settle_entries(1_000_000, false).await.unwrap();
    }

    async fn page(&self, query: &FindQuery, after: Option<Shown>, limit: u64) -> FindPage {
        self.catalog.find(self.archive, query, after, limit).await.unwrap()
    }

    async fn names(&self, query: FindQuery) -> Vec<String> {
        let page = self.page(&query, None, 100).await;
        assert_eq!(page.total, page.found.len() as u64);
        page.found.into_iter().map(|one| one.message.name.unwrap()).collect()
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn words(text: &str) -> FindQuery {
    FindQuery { words: vec![text.into()], ..FindQuery::default() }
}

fn glob(text: &str) -> GlobPattern {
    GlobPattern::parse(text).unwrap()
}

#[test]
fn words_are_found_in_names_subjects_and_people_whatever_their_case_and_accents() {
    run(async {
        let world = World::new().await;
        let subject = Mail { subject: "Facture d\u{e9}finitive O'Neil".into(), ..mail("b", "2.pdf") };
        world
            .take(&[mail("a", "Invoice-2026.pdf"), subject, Mail { to: "carol@c.example".into(), ..mail("c", "3") }])
            .await;
        world.index().await;
        for (text, found) in [
            ("invoice", &["Invoice-2026.pdf"][..]),
            ("2026 INVO", &["Invoice-2026.pdf"]),
            ("definitive", &["2.pdf"]),
            ("o'neil", &["2.pdf"]),
            ("o'neil AND (", &[]),
            ("carol", &["3"]),
            ("ann pdf", &["2.pdf", "Invoice-2026.pdf"]),
            ("voice", &[]),
            ("(", &[]),
        ] {
            let mut names = world.names(words(text)).await;
            names.sort();
            assert_eq!(names, found, "{text}");
        }
        let subject = |text: &str| FindQuery { subject: Some(text.into()), ..FindQuery::default() };
        assert_eq!(world.names(subject("definit")).await, ["2.pdf"]);
        assert_eq!(world.names(subject("invoice")).await, [""; 0]);
    });
}

#[test]
fn every_condition_chooses_what_it_says() {
    run(async {
        let world = World::new().await;
        world
            .take(&[
                Mail { day: 1, size: 10, ..mail("a", "Invoice.PDF") },
                Mail { day: 2, size: 20, sender: "x@acme.com".into(), ..mail("b", "voice[1].wav") },
                Mail { day: 3, size: 30, to: "Dan <DAN@d.example>".into(), ..mail("c", "caf\u{e9}.pdf") },
                Mail { day: 4, skipped: true, ..mail("d", "logo.png") },
            ])
            .await;
        world.index().await;
        let any = FindQuery::default;
        for (query, found) in [
            (any(), &["logo.png", "caf\u{e9}.pdf", "voice[1].wav", "Invoice.PDF"][..]),
            (FindQuery { name: Some(glob("*.pdf")), ..any() }, &["caf\u{e9}.pdf", "Invoice.PDF"]),
            (FindQuery { name: Some(glob("*voice*")), ..any() }, &["voice[1].wav", "Invoice.PDF"]),
            (FindQuery { name: Some(glob(r"voice\[?\].{wav,mp3}")), ..any() }, &["voice[1].wav"]),
            (FindQuery { name: Some(glob("CAF\u{c9}.*")), ..any() }, &["caf\u{e9}.pdf"]),
            (FindQuery { sender: Some(glob("*@acme.com")), ..any() }, &["voice[1].wav"]),
            (FindQuery { sender: Some(glob("acme.com")), ..any() }, &[]),
            (FindQuery { recipient: Some(glob("dan@*")), ..any() }, &["caf\u{e9}.pdf"]),
            (
                FindQuery {
                    content_type: Some(glob("application/pdf")),
                    larger: Some(20),
                    state: Some(State::Pending),
                    ..any()
                },
                &["caf\u{e9}.pdf"],
            ),
            (FindQuery { since: Some(1_767_312_000), until: Some(1_767_398_400), ..any() }, &["voice[1].wav"]),
            (FindQuery { conversation: Some("c3".into()), ..any() }, &["caf\u{e9}.pdf"]),
            (FindQuery { state: Some(State::Skipped), ..any() }, &["logo.png"]),
            (FindQuery { state: Some(State::Failed), ..words("logo") }, &[]),
            (FindQuery { conversation: Some("c4".into()), ..words("logo") }, &["logo.png"]),
            (
                FindQuery { sort: FindSort::Name, ..any() },
                &["caf\u{e9}.pdf", "Invoice.PDF", "logo.png", "voice[1].wav"],
            ),
            (
                FindQuery { sort: FindSort::Size, larger: Some(0), ..any() },
                &["logo.png", "caf\u{e9}.pdf", "voice[1].wav", "Invoice.PDF"],
            ),
            (
                FindQuery { sort: FindSort::Date, reverse: true, ..any() },
                &["Invoice.PDF", "voice[1].wav", "caf\u{e9}.pdf", "logo.png"],
            ),
        ] {
            assert_eq!(world.names(query.clone()).await, found, "{query:?}");
        }
    });
}

#[test]
fn an_attachment_of_several_messages_is_found_once_by_each_of_them() {
    run(async {
        let world = World::new().await;
        let old = Mail { subject: "First".into(), day: 1, message: Some("m1".into()), ..mail("a", "a.pdf") };
        let new = Mail { subject: "Second".into(), day: 9, message: Some("m2".into()), ..mail("a", "b.pdf") };
        world.take(&[old.clone(), mail("z", "z.pdf")]).await;
        world.index().await;
        world.take(&[new]).await;
        world.index().await;
        assert_eq!(world.names(words("first")).await, ["a.pdf"]);
        assert_eq!(world.names(words("second")).await, ["b.pdf"]);
        for sort in [FindSort::Date, FindSort::Name, FindSort::Size, FindSort::Sender] {
            for query in [FindQuery { sort, ..FindQuery::default() }, FindQuery { sort, ..words("pdf") }] {
                assert_eq!(world.page(&query, None, 9).await.total, 2, "{query:?}");
            }
        }
        let page = world.page(&words("first"), None, 9).await;
        let subjects: Vec<_> = page.found[0].messages.iter().map(|one| one.subject.clone().unwrap()).collect();
        assert_eq!(subjects, ["Second", "First"], "all of its messages are told, the newest first");

        // The same message, seen again with another subject: the older line counts no more.
        world.take(&[Mail { subject: "Third".into(), ..old }]).await;
        world.index().await;
        assert_eq!(world.names(words("first")).await, [""; 0]);
        assert_eq!(world.names(words("third")).await, ["a.pdf"]);
        assert_eq!(world.page(&FindQuery::default(), None, 9).await.total, 2);
    });
}

#[test]
fn what_is_forgotten_is_found_again_after_it_is_loaded_anew() {
    run(async {
        let world = World::new().await;
        world.take(&[mail("a", "a.pdf")]).await;
        world.index().await;
        let folder = world.catalog.folder().to_owned();
        let lock = Catalog::worker_lock_in(&folder).unwrap().unwrap();
        world.catalog.forget_archive(world.archive, &lock).await.unwrap();
        assert_eq!(world.names(words("pdf")).await, [""; 0]);
        world.take(&[mail("b", "b.pdf")]).await;
        world.index().await;
        assert_eq!(world.names(words("pdf")).await, ["b.pdf"]);
    });
}

#[test]
fn a_row_of_an_older_program_is_found_by_its_sender() {
    run(async {
        let world = World::new().await;
        world.take(&[mail("a", "a.pdf")]).await;
        query("UPDATE messages SET people = NULL").execute(&mut *world.catalog.connection().await).await.unwrap();
        world.index().await;
        assert_eq!(world.names(words("ann")).await, ["a.pdf"]);
        assert_eq!(world.names(words("bob")).await, [""; 0]);
    });
}

#[test]
fn a_look_that_stops_says_so_and_goes_on_where_it_stopped() {
    run(async {
        let world = World::new().await;
        let mails: Vec<Mail> = (1..=20_u32)
            .map(|day| {
                let name = if day % 7 == 0 { "rare.png".into() } else { format!("n{day}.pdf") };
                Mail { day, size: u64::from(day * 37 % 20), ..mail(&format!("a{day}"), &name) }
            })
            .collect();
        world.take(&mails).await;
        world.index().await;
        let rare =
            || FindQuery { content_type: Some(glob("*pdf")), name: Some(glob("*are.p*")), ..FindQuery::default() };
        for sort in [FindSort::Date, FindSort::Name, FindSort::Size, FindSort::Sender] {
            for (reverse, by_words) in [(false, false), (true, false), (false, true), (true, true)] {
                let words = if by_words { vec!["ann".into()] } else { vec![] };
                let query = FindQuery { words, sort, reverse, ..rare() };
                let whole = world.page(&query, None, 100).await;
                assert!(whole.complete && whole.total == 2, "{query:?}");
                let ids = |page: &FindPage| page.found.iter().map(|one| one.id.clone()).collect::<Vec<_>>();
                let bounded = FindQuery { look: Some(3), ..query };
                let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
                loop {
                    let page = world.page(&bounded, after, 1).await;
                    assert!(!page.complete, "{bounded:?}");
                    seen.extend(ids(&page));
                    after = page.next;
                    pages += 1;
                    if after.is_none() {
                        break;
                    }
                }
                if by_words && sort != FindSort::Date {
                    // Days 17 to 20 alone were looked at.
                    assert_eq!((seen.len(), pages), (0, 1), "{bounded:?}");
                } else {
                    assert_eq!(seen, ids(&whole), "{bounded:?}");
                    assert!(pages > 4, "{bounded:?}");
                }
            }
        }
        // A few days are sorted whole, however much there is besides.
        let (since, until) = (Some(1_767_225_600 + 5 * 86_400), Some(1_767_225_600 + 8 * 86_400));
        let days = FindQuery { since, until, sort: FindSort::Size, look: Some(3), ..FindQuery::default() };
        let page = world.page(&days, None, 100).await;
        assert_eq!((page.total, page.complete), (3, true));
        // Who fills the page needs no more.
        let page = world.page(&FindQuery { look: Some(3), ..FindQuery::default() }, None, 2).await;
        assert_eq!((page.found.len(), page.complete), (2, false), "it was not counted");
        assert!(world.page(&FindQuery { look: Some(u64::MAX), ..rare() }, None, 1).await.complete);
    });
}

#[test]
fn indexes_that_a_large_fill_left_out_are_made() {
    run(async {
        let world = World::new().await;
        world.take(&[mail("a", "a.pdf")]).await;
        let indexes = || async {
            let mut connection = world.catalog.connection().await;
            let all = connection.pick(
                "SELECT group_concat(name || sql, ',') FROM (SELECT name, sql FROM sqlite_schema
                    WHERE tbl_name = 'find_entries' ORDER BY name)",
                "SELECT group_concat(indexdef, ',') FROM (SELECT indexdef FROM pg_indexes
                    WHERE tablename LIKE 'find%' ORDER BY indexname) i",
            );
            query_scalar::<String>(all)
                .fetch_one(&mut connection)
                .await
                .unwrap()
                .split_whitespace()
                .collect::<String>()
                .replace("IFNOTEXISTS", "")
        };
        let before = indexes().await;
        let drops = "DROP INDEX find_entries_name; DROP INDEX find_entries_sender; DROP INDEX find_entries_size;
            DROP INDEX find_entries_conversation";
        world.catalog.connection().await.run(drops).await.unwrap();
        if crate::catalog::open::test::is_postgres() {
            world.catalog.connection().await.run("DROP INDEX find_text_words").await.unwrap();
        }
        world.index().await;
        assert_eq!(indexes().await, before);
        assert_eq!(world.names(FindQuery { sort: FindSort::Name, ..words("pdf") }).await, ["a.pdf"]);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Pages of any length, in any order, give each attachment once; more mail that comes meanwhile changes nothing of
    /// what is still to be shown.
    #[test]
    fn pages_give_everything_once_and_in_order(
        mails in prop::collection::vec((0..8_u8, 0..4_u8, 0..4_u8, 1..5_u32, 0..3_u64), 1..20),
        length in 1..6_u64,
        sort in prop::sample::select(vec![FindSort::Date, FindSort::Name, FindSort::Size, FindSort::Sender]),
        reverse: bool,
        by_words: bool,
    ) {
        run(async {
            let world = World::new().await;
            let mails: Vec<Mail> = mails
                .into_iter()
                .map(|(attachment, message, name, day, size)| Mail {
                    message: Some(format!("m{message}-{day}")),
                    day,
                    size,
                    sender: format!("{name}@x"),
                    ..mail(&format!("a{attachment}"), &format!("n{name}.pdf"))
                })
                .collect();
            world.take(&mails).await;
            world.index().await;
            let query = FindQuery { sort, reverse, words: if by_words { vec!["pdf".into()] } else { vec![] }, ..FindQuery::default() };
            let whole = world.page(&query, None, 100).await;
            let mut ids: Vec<_> = whole.found.iter().map(|one| one.id.clone()).collect();
            let (mut paged, mut after) = (Vec::new(), None);
            loop {
                let page = world.page(&query, after, length).await;
                assert_eq!(page.total, whole.total);
                paged.extend(page.found.iter().map(|one| one.id.clone()));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(paged, ids);
            ids.sort();
            ids.dedup();
            let mut expected: Vec<_> = mails
                .iter()
                .map(|mail| AttachmentKey::new(&world.key, &mail.attachment.clone().try_into().unwrap()).to_string())
                .collect();
            expected.sort();
            expected.dedup();
            assert_eq!(ids, expected);
        });
    }
}
