use std::path::Path;

use super::*;
use crate::catalog::Journaled;
use crate::catalog::{ArchiveRow, IngestMessage, IngestReference};
use crate::clock::Clock;
use crate::model::{Attachment, Message, MessageLine, OutcomeKind, OutcomeLine, TeamKey, WriterId};

fn key() -> TeamKey {
    "default".parse().unwrap()
}

fn digest(number: u8) -> [u8; 16] {
    [number; 16]
}

fn rules(text: &str) -> RulesId {
    RulesId::new(Digest::of(text.as_bytes()))
}

/// A line with the attachments `numbers`, of which those above 100 are skipped.
fn message(line: u8, numbers: &[u8]) -> IngestMessage {
    let attachments: Vec<Attachment> = numbers
        .iter()
        .map(|number| Attachment {
            id: format!("a{number}").try_into().unwrap(),
            name: None,
            content_type: None,
            size_bytes: None,
            inline: false,
        })
        .collect();
    let references = attachments.iter().zip(numbers).map(|(attachment, number)| IngestReference {
        key: AttachmentKey::new(&key(), &attachment.id),
        skip_rule: (*number > 100).then(|| "inline".to_owned()),
    });
    let references = references.collect();
    let message = Message { attachments, ..Message::default() };
    IngestMessage {
        line_digest: digest(line),
        line: MessageLine::new(key(), jiff::Timestamp::UNIX_EPOCH, message),
        references,
    }
}

struct Fixture {
    catalog: Catalog,
    archive: ArchiveRow,
    team: TeamRow,
}

impl Fixture {
    /// Two lines: attachments 1 and 2; 3 and (skipped) 103.
    async fn new(folder: &Path) -> Self {
        let catalog = Catalog::open(folder, Clock::system()).await.unwrap();
        let archive = catalog.bind_archive("uuid", "here").await.unwrap();
        let team = catalog.bind_team(archive, &key()).await.unwrap();
        let messages = [message(1, &[1, 2]), message(2, &[3, 103])];
        catalog.ingest(team, &messages, &Journaled::of(archive, 1, "w")).await.unwrap();
        drop(catalog);
        // Another run, which has seen nothing.
        let catalog = Catalog::open(folder, Clock::system()).await.unwrap();
        Self { catalog, archive, team }
    }

    async fn remember(&self, rules: RulesId, lines: &[(u8, u8)], skipped: &[(u8, u8)]) {
        let key_of = |number: &u8| AttachmentKey::new(&key(), &format!("a{number}").try_into().unwrap());
        let mut texts = TakenTexts {
            bare: vec![digest(90)],
            lines: lines.iter().map(|(text, line)| (digest(*text), digest(*line))).collect(),
            skipped: skipped.iter().map(|(text, number)| (digest(*text), key_of(number))).collect(),
        };
        self.catalog.remember_texts(self.team, rules, &mut texts).await.unwrap();
    }

    async fn meet(&self, rules: RulesId, texts: &[u8]) -> Vec<bool> {
        let digests: Vec<[u8; 16]> = texts.iter().map(|text| digest(*text)).collect();
        self.catalog.meet_texts(rules, &digests).await.unwrap()
    }

    async fn archive(&self, number: u8) {
        let line = OutcomeLine {
            v: crate::model::FORMAT_VERSION,
            kind: OutcomeKind::Archived,
            team: key(),
            attachment_id: format!("a{number}").try_into().unwrap(),
            generation: 5,
            writer_id: WriterId("w".into()),
            at: jiff::Timestamp::UNIX_EPOCH,
            sha256: Some(Digest::of(&[number])),
            size_bytes: Some(1),
            sniffed_type: None,
            rule: None,
            reason: None,
            extra: serde_json::Map::new(),
        };
        self.catalog.load_outcomes(self.archive, &key(), &[line]).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_taken_in_is_known_by_its_text_and_seen() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Fixture::new(folder.path()).await;
    let mine = rules("mine");
    fixture.archive(1).await;
    // Text 10 holds both lines, text 11 the first.
    fixture.remember(mine, &[(10, 1), (10, 2), (11, 1)], &[(10, 103)]).await;
    assert_eq!(fixture.meet(mine, &[12, 11, 90, 12]).await, [false, true, true, false]);
    let seen = fixture.catalog.seen_totals().await.unwrap();
    assert_eq!((seen.attachments, seen.known, seen.states.pending), (2, 1, 1));
    assert_eq!(fixture.meet(mine, &[10]).await, [true]);
    let seen = fixture.catalog.seen_totals().await.unwrap();
    assert_eq!((seen.attachments, seen.known, seen.states.pending, seen.states.skipped), (4, 1, 2, 1));
}

#[tokio::test]
async fn what_other_rules_skipped_must_be_looked_at_again() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Fixture::new(folder.path()).await;
    let (mine, others) = (rules("mine"), rules("others"));
    fixture.remember(mine, &[(10, 2)], &[(10, 103)]).await;
    assert_eq!(fixture.meet(others, &[10]).await, [false], "other rules have not judged it");
    assert_eq!(fixture.catalog.seen_totals().await.unwrap().attachments, 0);
    // They accept what is skipped: whoever takes it in revives it.
    fixture.remember(others, &[(10, 2)], &[]).await;
    assert_eq!(fixture.meet(others, &[10]).await, [false]);
    assert_eq!(fixture.meet(mine, &[10]).await, [false], "one set of rules is remembered");
    fixture.archive(103).await;
    assert_eq!(fixture.meet(others, &[10]).await, [true]);
}

#[tokio::test]
async fn a_line_that_is_missing_makes_no_text_known() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Fixture::new(folder.path()).await;
    fixture.remember(rules("mine"), &[(10, 77)], &[]).await;
    assert_eq!(fixture.meet(rules("mine"), &[10]).await, [false]);
}

#[tokio::test]
async fn texts_are_forgotten_with_what_they_lead_to() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Fixture::new(folder.path()).await;
    let mine = rules("mine");
    fixture.remember(mine, &[(10, 1)], &[]).await;
    let lock = fixture.catalog.try_worker_lock().await.unwrap().unwrap();
    fixture.catalog.forget_archive(fixture.archive, &lock).await.unwrap();
    assert_eq!(fixture.meet(mine, &[10, 90]).await, [false, false]);
}

#[tokio::test]
async fn many_texts_are_met_in_one_go() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Fixture::new(folder.path()).await;
    let mine = rules("mine");
    let text = |number: u32| -> [u8; 16] {
        let mut text = [0; 16];
        text[..4].copy_from_slice(&number.to_be_bytes());
        text
    };
    let mut texts =
        TakenTexts { lines: (0..9000).map(|number| (text(number), digest(1))).collect(), ..Default::default() };
    fixture.catalog.remember_texts(fixture.team, mine, &mut texts).await.unwrap();
    let digests: Vec<[u8; 16]> = (0..9001).rev().map(text).collect();
    let known = fixture.catalog.meet_texts(mine, &digests).await.unwrap();
    assert_eq!((known[0], known[1..].iter().filter(|known| **known).count()), (false, 9000));
    assert_eq!(fixture.catalog.seen_totals().await.unwrap().attachments, 2);
}
