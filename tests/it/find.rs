//! `find`: by what people remember, page by page, and never with what a stranger put into a name.

use serde_json::{Value, json};

use crate::support::{Ended, World, attachments, events};

fn find(world: &World, arguments: &[&str]) -> Ended {
    world.run(&[&["find", "--archive", "archive"], arguments].concat())
}

/// The names that are found.
fn names(world: &World, arguments: &[&str]) -> Vec<String> {
    let ended = find(world, &[arguments, &["--json"]].concat());
    assert_eq!(ended.code(), Some(0), "{arguments:?}: {ended:?}");
    let found = ended.json();
    assert_eq!((&found["shown"], &found["more"]), (&found["total"], &false.into()), "{found}");
    let list = found["found"].as_array().unwrap();
    list.iter().map(|one| one["message"]["name"].as_str().unwrap().to_owned()).collect()
}

/// Four messages that differ in everything.
fn mail() -> Vec<Value> {
    let mut mail = events(4, 1, (1000, 1000));
    for (index, (name, subject, from, to)) in [
        ("Invoice 2026-11.pdf", "Your order", "Ann Lee <ann@acme.example>", "team@ours.example"),
        ("caf\u{e9} menu.pdf", "Lunch with O'Neil", "bob@shop.example", "team@ours.example"),
        ("scan.png", "Re: contract AND more", "carol@law.example", "Dan <dan@ours.example>"),
        ("logo.png", "Newsletter", "news@shop.example", "team@ours.example"),
    ]
    .into_iter()
    .enumerate()
    {
        attachments(&mut mail[index])[0]["filename"] = json!(name);
        attachments(&mut mail[index])[0]["inline"] = json!(name == "logo.png");
        let message = &mut mail[index]["data"]["message"];
        message["subject"] = json!(subject);
        message["from"] = json!([from]);
        message["to"] = json!([to]);
        message["sent_at"] = json!(format!("2026-0{}-01T12:00:00Z", index + 1));
    }
    mail
}

#[test]
fn attachments_are_found_by_what_people_remember() {
    let world = World::new();
    world.dump(&mail());
    assert_eq!(world.replay().archived, 3);
    let (invoice, cafe, scan) = ("Invoice 2026-11.pdf", "caf\u{e9} menu.pdf", "scan.png");
    let cases: [(&[&str], &[&str]); 18] = [
        (&[], &[scan, cafe, invoice]),
        (&["invo"], &[invoice]),
        (&["CAFE"], &[cafe]),
        (&["o'neil", "lunch"], &[cafe]),
        (&["contract AND ("], &[scan]),
        (&["\"*:^-)", "dan"], &[scan]),
        (&["dan", "--sender", "carol@*"], &[scan]),
        (&["--name", "*.PDF"], &[cafe, invoice]),
        (&["--name", "scan"], &[]),
        (&["--recipient", "dan@ours.example"], &[scan]),
        (&["--subject", "order"], &[invoice]),
        (&["--subject", "invoice"], &[]),
        (&["--since", "2026-02-01", "--until", "2026-03-01"], &[cafe]),
        (&["--state", "skipped"], &["logo.png"]),
        (&["--state", "any", "--type", "*/*", "--name", "*.png"], &["logo.png", scan]),
        (&["--larger", "999 B", "--sort", "name"], &[cafe, invoice, scan]),
        (&["--larger", "1000 B"], &[]),
        (&["--reverse", "--state", "any"], &[invoice, cafe, scan, "logo.png"]),
    ];
    for (arguments, found) in cases {
        assert_eq!(names(&world, arguments), found, "{arguments:?}");
    }
    assert_eq!(world.jelly.stats().exchanges, 3, "looking costs nothing");
}

#[test]
fn what_is_found_tells_everything_and_leads_to_the_bytes() {
    let world = World::new();
    world.dump(&mail());
    world.replay();
    let answer = find(&world, &["invoice", "--json"]).json();
    let one = &answer["found"][0];
    let digest = one["sha256"].as_str().unwrap();
    assert_eq!(one["key"], json!(format!("blobs/sha256/{}/{digest}", &digest[..2])));
    assert!(world.archive().join(one["key"].as_str().unwrap()).is_file());
    assert_eq!((&one["state"], &one["size_bytes"]), (&json!("archived"), &json!(1000)));
    assert_eq!(one["message"]["from"], json!(["Ann Lee <ann@acme.example>"]));
    assert_eq!((&one["message"], &one["messages"].as_array().unwrap().len()), (&one["messages"][0], &1));
    assert!(one["message"]["id"].is_string() && one["message"]["conversation_id"].is_string(), "{one}");
    let id = one["message"]["conversation_id"].as_str().unwrap();
    assert!(names(&world, &["--conversation", id]).contains(&"Invoice 2026-11.pdf".to_owned()));
    assert_eq!(names(&world, &["--sha256", &digest[..12]]), ["Invoice 2026-11.pdf"]);
    let got = world.run(&["get", one["id"].as_str().unwrap(), "-o", "out.pdf", "--archive", "archive"]);
    assert_eq!(got.code(), Some(0), "{got:?}");

    // The proof: this very file is archived, and another is not.
    let same = find(&world, &["--same-as", "out.pdf", "--json"]);
    assert_eq!((same.code(), &same.json()["archived"]), (Some(0), &json!(true)), "{same:?}");
    std::fs::write(world.path("other.pdf"), "other").unwrap();
    let other = find(&world, &["--same-as", "other.pdf", "--json"]);
    assert_eq!((other.code(), &other.json()["archived"]), (Some(1), &json!(false)), "{other:?}");
    std::fs::remove_file(world.archive().join(one["key"].as_str().unwrap())).unwrap();
    let lost = find(&world, &["--same-as", "out.pdf", "--json"]);
    assert_eq!((lost.code(), &lost.json()["archived"]), (Some(1), &json!(false)), "a name is no proof: {lost:?}");
    assert_eq!(find(&world, &["--same-as", "nowhere"]).code(), Some(2));
}

#[test]
fn pages_show_everything_once() {
    let world = World::new();
    world.dump(&events(23, 1, (10, 20)));
    world.replay();
    for sort in ["date", "name", "size", "sender"] {
        let (mut seen, mut after) = (Vec::new(), None::<String>);
        loop {
            let mut arguments = vec!["--sort", sort, "--limit", "5", "--json"];
            arguments.extend(after.as_deref().map(|after| ["--after", after]).into_iter().flatten());
            let page = find(&world, &arguments).json();
            assert_eq!(page["total"], 23, "{page}");
            seen.extend(page["found"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()));
            match page["next"].as_str() {
                Some(next) => after = Some(next.to_owned()),
                None => break,
            }
        }
        assert_eq!(seen.len(), 23, "{sort}");
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 23, "{sort}");
    }
    let text = find(&world, &["--limit", "5"]).stdout;
    assert!(text.contains("5 of 23 shown; --after "), "{text}");
}

#[test]
fn a_hostile_name_cannot_reach_the_terminal() {
    let world = World::new();
    let mut mail = events(1, 1, (10, 10));
    attachments(&mut mail[0])[0]["filename"] = json!("a\u{1b}]0;x\u{7}\u{202e}fdp.exe\u{0}\n");
    mail[0]["data"]["message"]["subject"] = json!("s\u{1b}[2J\u{200f}");
    mail[0]["data"]["message"]["from"] = json!(["\u{9b}31m <x@y>"]);
    world.dump(&mail);
    world.replay();
    let text = find(&world, &["fdp"]).stdout;
    assert!(text.contains("fdp.exe"), "{text}");
    let bad = |sign: char| sign.is_control() && sign != '\n' || matches!(sign, '\u{200f}' | '\u{202e}');
    assert!(!text.chars().any(bad), "{text:?}");
}

#[test]
fn a_message_that_is_seen_again_and_a_lost_catalog_change_nothing() {
    let world = World::new();
    let mut mail = mail();
    world.dump(&mail);
    world.replay();
    mail[0]["data"]["conversation"]["labels"] = json!([{"id": 9, "name": "New label"}]);
    mail[0]["data"]["message"]["subject"] = json!("Another subject");
    world.dump(&mail);
    world.replay();
    assert_eq!(names(&world, &["order"]), [""; 0], "the line that was seen last counts");
    assert_eq!(names(&world, &["another"]), ["Invoice 2026-11.pdf"]);
    assert_eq!(names(&world, &[]).len(), 3);
    world.lose_catalog();
    assert_eq!(names(&world, &[]).len(), 3, "it is loaded and indexed by find itself");
    world.run(&["rebuild", "--archive", "archive"]);
    assert_eq!(names(&world, &["dan"]), ["scan.png"]);
}

#[test]
fn mistakes_are_told_with_a_way_out() {
    let world = World::new();
    world.dump(&mail());
    world.replay();
    for (arguments, word) in [
        (&["--since", "soon"][..], "2026-01-31"),
        (&["--name", "[a"], "without its ]"),
        (&["--sha256", "xyz"], "hexadecimal"),
        (&["--after", "?"], "page before"),
        (&["--larger", "lots"], "10 MiB"),
        (&["--limit", "0"], "1.."),
        (&["--same-as", "dump"], "folder"),
    ] {
        let ended = find(&world, arguments);
        assert_eq!(ended.code(), Some(2), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(word), "{arguments:?}: {}", ended.stderr);
    }
    let none = find(&world, &["--name", "invoice"]);
    assert_eq!(none.code(), Some(0));
    assert!(none.stdout.contains("whole text") && none.stdout.contains("--state any"), "{none:?}");
    let wrong = world.run(&["search", "x"]);
    assert!(wrong.stderr.contains("jellyjar find"), "{wrong:?}");
}
