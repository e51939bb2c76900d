//! Filter rules, as flags and from the file: each skip tells its rule.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::{World, attachments, events};

/// Six messages, each with one attachment that differs in one thing.
fn mail() -> Vec<Value> {
    let mut mail = events(6, 1, (1000, 1000));
    attachments(&mut mail[0])[0]["inline"] = json!(true);
    attachments(&mut mail[0])[0]["content_type"] = json!("image/png");
    attachments(&mut mail[1])[0]["content_type"] = json!("application/pdf");
    attachments(&mut mail[2])[0]["filename"] = json!("Invitation.ICS");
    mail[3]["data"]["message"]["from"] = json!(["No Reply <no-reply@shop.example>"]);
    mail[4]["data"]["message"]["inbound"] = json!(false);
    mail[5]["data"]["message"]["sent_at"] = json!("2020-01-01T00:00:00Z");
    for (index, event) in mail.iter_mut().enumerate() {
        event["data"]["conversation"]["labels"] =
            json!([{"id": 1, "name": if index == 1 { "Invoices" } else { "Other" }}]);
        if index != 4 {
            event["data"]["message"]["inbound"] = json!(true);
        }
    }
    mail
}

fn id(event: &Value) -> String {
    event["data"]["message"]["attachments"][0]["id"].as_str().unwrap().to_owned()
}

/// Replays with these flags, and tells which messages' attachments were skipped, with their rules.
fn skipped(flags: &[&str], settings: &str) -> BTreeMap<usize, String> {
    let world = World::new();
    world.settings(settings);
    let mail = mail();
    world.dump(&mail);
    let receipt = world.replay_with(flags);
    assert!(receipt.ok, "{receipt:?}");
    let ledger = world.ledger();
    ledger.agrees_with(&receipt);
    assert_eq!(world.jelly.stats().exchanges, receipt.archived, "what is skipped costs nothing");
    let skipped = ledger.merged.values().filter(|outcome| outcome.kind == "skipped");
    skipped
        .map(|outcome| {
            let index = mail.iter().position(|event| id(event) == outcome.id).unwrap();
            (index, outcome.rule.clone().unwrap())
        })
        .collect()
}

#[test]
fn every_rule_skips_what_it_says_and_is_recorded() {
    let cases: [(&[&str], &str, &[usize]); 15] = [
        (&[], "", &[0]),
        (&["--inline", "keep"], "inline = \"keep\"", &[]),
        (&["--inline", "keep-non-images"], "inline = \"keep-non-images\"", &[0]),
        (&["--type", "application/pdf"], "content_types = [\"application/pdf\"]", &[0, 2, 3, 4, 5]),
        (&["--skip-type", "application/p*"], "skip_content_types = [\"application/p*\"]", &[0, 1]),
        (&["--name", "*.ics"], "names = [\"*.ics\"]", &[0, 1, 3, 4, 5]),
        (&["--skip-name", "*.ics"], "skip_names = [\"*.ics\"]", &[0, 2]),
        (&["--min-size", "2KiB"], "min_size = \"2 KiB\"", &[0, 1, 2, 3, 4, 5]),
        (&["--max-size", "999B"], "max_size = \"999 B\"", &[0, 1, 2, 3, 4, 5]),
        (&["--sender", "*@shop.example"], "senders = [\"*@shop.example\"]", &[0, 1, 2, 4, 5]),
        (&["--skip-sender", "no-reply@*"], "skip_senders = [\"no-reply@*\"]", &[0, 3]),
        (&["--direction", "inbound"], "direction = \"inbound\"", &[0, 4]),
        (&["--since", "2026-01-01"], "since = \"2026-01-01\"", &[0, 5]),
        (&["--until", "2021-01-01"], "until = \"2021-01-01\"", &[0, 1, 2, 3, 4]),
        (&["--label", "Invoices"], "labels = [\"Invoices\"]", &[0, 2, 3, 4, 5]),
    ];
    for (flags, file, expected) in cases {
        let by_flag = skipped(flags, "");
        assert_eq!(by_flag.keys().copied().collect::<Vec<_>>(), expected, "{flags:?}: {by_flag:?}");
        assert_eq!(skipped(&[], &format!("[filter]\n{file}\n")), by_flag, "{file}");
        let key = file.split(' ').next().unwrap();
        let told = by_flag.values().any(|rule| rule.contains(key));
        assert!(told || key.is_empty() || by_flag.is_empty(), "{key} in {by_flag:?}");
    }
}

#[test]
fn a_flag_goes_over_the_file() {
    assert_eq!(skipped(&["--inline", "keep"], "[filter]\ninline = \"skip\"\n").len(), 0);
}

#[test]
fn what_one_message_shows_inline_and_another_does_not_is_archived() {
    let mut mail = events(2, 1, (100, 100));
    let shared = attachments(&mut mail[0])[0].clone();
    *attachments(&mut mail[1]) = vec![shared];
    for inline_first in [true, false] {
        attachments(&mut mail[0])[0]["inline"] = json!(inline_first);
        attachments(&mut mail[1])[0]["inline"] = json!(!inline_first);
        let together = World::new();
        together.dump(&mail);
        let receipt = together.replay();
        assert_eq!((receipt.attachments, receipt.archived, receipt.skipped), (1, 1, 0), "{receipt:?}");

        // The same in two runs: an accepting message revives what was skipped, and a skip never undoes an archiving.
        let apart = World::new();
        apart.dump(&mail[..1]);
        let receipt = apart.replay();
        assert_eq!(receipt.archived, u64::from(!inline_first), "{receipt:?}");
        apart.dump(&mail[1..]);
        let receipt = apart.replay();
        assert_eq!(receipt.archived + receipt.known, 1, "{receipt:?}");
        assert_eq!((apart.jelly.stats().exchanges, apart.ledger().count("archived")), (1, 1));
        apart.lose_catalog();
        assert_eq!((apart.replay().known, apart.jelly.stats().exchanges), (1, 1));
    }
}

#[test]
fn what_was_skipped_is_archived_once_the_rules_allow_it() {
    let world = World::new();
    world.dump(&mail());
    assert_eq!(world.replay_with(&["--type", "application/pdf"]).archived, 1);
    let receipt = world.replay();
    assert_eq!((receipt.known, receipt.archived, receipt.skipped), (1, 4, 1), "{receipt:?}");
    world.ledger().agrees_with(&receipt);
}

#[test]
fn texts_that_were_replayed_before_are_judged_anew_by_other_rules() {
    let world = World::new();
    world.dump(&mail());
    let pdf = ["--type", "application/pdf"];
    let first = world.replay_with(&pdf);
    // The same texts by the same rules: nothing new, and the same account of it.
    let again = world.replay_with(&pdf);
    assert_eq!((again.known, again.skipped, again.archived), (first.archived, first.skipped, 0), "{again:?}");
    assert_eq!((again.payloads, again.attachments), (first.payloads, first.attachments));
    let exchanges = world.jelly.stats().exchanges;
    let receipt = world.replay();
    assert_eq!((receipt.known, receipt.archived, receipt.skipped), (1, 4, 1), "{receipt:?}");
    assert_eq!(world.jelly.stats().exchanges, exchanges + 4);
    world.ledger().agrees_with(&receipt);
    let receipt = world.replay_with(&pdf);
    assert_eq!((receipt.known, receipt.archived, receipt.skipped), (5, 0, 1), "{receipt:?}");
    // A catalog that is made anew remembers no text, and none is missing.
    world.lose_catalog();
    for _ in 0..2 {
        let receipt = world.replay();
        assert_eq!((receipt.known, receipt.archived, receipt.skipped), (5, 0, 1), "{receipt:?}");
    }
    assert_eq!(world.jelly.stats().exchanges, exchanges + 4);
}
