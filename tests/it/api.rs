//! `jellyjar api` against a server that says exact bytes: what is sent, what is printed, and how it ends.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::support::{Ended, Scripted, TOKEN, World, until};

/// Runs `jellyjar api` against these answers.
fn api(world: &World, answers: &[(&str, &str)], arguments: &[&str]) -> (Scripted, Ended) {
    let server = Scripted::start(answers);
    let mut command = world.command(&[&["api"], arguments].concat());
    command.env("JELLY_API_URL", server.base_url());
    let ended = world.start(command).wait();
    world.check(&ended);
    (server, ended)
}

/// The one request, which is `line` with `body`.
fn sent(server: &Scripted, line: &str, body: &Value) {
    let asked = server.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!((asked[0].line.as_str(), &asked[0].body), (line, body));
    assert!(asked[0].head.to_lowercase().contains(&format!("authorization: bearer {TOKEN}")), "{asked:?}");
}

const LABELS: &str = r#"[{"id":1,"name":"Bug","color":"cherry","new":[1]},{"id":2,"name":"Feature","color":"mint"}]"#;
const MEMBERS: &str =
    r#"[{"id":"42","name":"Michael Bluth","email":"michael@bluth.company","role":"owner","active":true}]"#;
const STAIR_CAR: &str = r#"{"id":"stair-car","subject":"Stair car incident","status":"open","assignees":[{"id":"42","email":"michael@bluth.company"}],"labels":[]}"#;

#[test]
fn lists_are_tables_or_the_services_own_json() {
    let world = World::new();
    let (server, ended) = api(&world, &[("200 OK", LABELS)], &["labels", "list"]);
    sent(&server, "GET /api/labels", &Value::Null);
    let lines: Vec<Vec<&str>> = ended.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines, [["ID", "NAME", "COLOR"], ["1", "Bug", "cherry"], ["2", "Feature", "mint"]]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");

    let (_, ended) = api(&world, &[("200 OK", LABELS)], &["labels", "list", "--json"]);
    assert_eq!(ended.json(), json!({"ok": true, "labels": serde_json::from_str::<Value>(LABELS).unwrap()}));
    let (server, ended) = api(&world, &[("200 OK", MEMBERS)], &["members"]);
    sent(&server, "GET /api/members", &Value::Null);
    assert!(ended.stdout.contains("michael@bluth.company  owner  yes"), "{}", ended.stdout);
    let mailboxes = r#"[{"id":7,"name":"Support"}]"#;
    let (server, ended) =
        api(&world, &[("200 OK", mailboxes), ("200 OK", MEMBERS)], &["mailboxes", "members", "support"]);
    assert_eq!(server.lines(), ["GET /api/mailboxes", "GET /api/mailboxes/7/members"]);
    assert!(ended.stdout.contains("Michael Bluth"), "{}", ended.stdout);
    for words in [&["mailboxes"][..], &["mailboxes", "list"]] {
        let (_, ended) = api(&world, &[("200 OK", mailboxes)], words);
        assert!(ended.code() == Some(0) && ended.stdout.contains("Support"), "{ended:?}");
    }
}

#[test]
fn conversations_are_listed_over_pages_as_far_as_wanted() {
    let world = World::new();
    let page = |from: usize, to: usize, next: &str| {
        let all: Vec<Value> = (from..to).map(|n| json!({"id": format!("c{n}"), "attachments_count": n})).collect();
        json!({"conversations": all, "next_cursor": if next.is_empty() { Value::Null } else { next.into() }})
            .to_string()
    };
    let (first, second) = (page(0, 100, "p2"), page(100, 120, "p3"));
    let answers = [("200 OK", LABELS), ("200 OK", &*first), ("200 OK", &*second)];
    let arguments = ["conversations", "list", "--status", "open", "--label", "bug", "--limit", "120", "--json"];
    let (server, ended) = api(&world, &answers, &arguments);
    assert_eq!(
        server.lines()[1..],
        [
            "GET /api/conversations?limit=100&status=open&label_id=1",
            "GET /api/conversations?limit=20&cursor=p2&status=open&label_id=1",
        ]
    );
    let told = ended.json();
    assert_eq!((told["conversations"].as_array().unwrap().len(), &told["next_cursor"]), (120, &json!("p3")));
    let (_, ended) = api(&world, &[("200 OK", &second)], &["conversations", "list", "--cursor", "p2", "--limit", "20"]);
    assert!(ended.stdout.contains("c119") && ended.stderr.contains("--cursor p3"), "{ended:?}");
    let (server, ended) = api(&world, &[("200 OK", LABELS)], &["conversations", "list", "--label", "Nope"]);
    assert_eq!((ended.code(), server.lines().len()), (Some(2), 1), "{ended:?}");
    assert!(ended.stderr.contains("no label \"Nope\""), "{}", ended.stderr);
}

#[test]
fn a_list_that_goes_on_without_entries_is_not_followed_for_ever() {
    let world = World::new();
    let pages: Vec<String> =
        (0..40).map(|n| json!({"conversations": [], "next_cursor": format!("p{n}")}).to_string()).collect();
    let answers: Vec<(&str, &str)> = pages.iter().map(|page| ("200 OK", page.as_str())).collect();
    let (server, ended) = api(&world, &answers, &["conversations", "list"]);
    assert_eq!((ended.code(), server.lines().len()), (Some(1), 10), "{ended:?}");
    assert!(ended.stderr.contains("10 pages in a row") && ended.stderr.contains("--cursor p9"), "{ended:?}");

    let some = json!({"conversations": [{"id": "c1"}], "next_cursor": null}).to_string();
    let answers = [&answers[..9], &[("200 OK", some.as_str())]].concat();
    let (_, ended) = api(&world, &answers, &["conversations", "list"]);
    assert!(ended.code() == Some(0) && ended.stdout.contains("c1"), "{ended:?}");
}

#[test]
fn conversations_and_messages_are_shown_without_what_moves_a_terminal() {
    let world = World::new();
    let message = json!({
        "id": 123, "subject": "Re: \u{1b}[2JStair car\u{202e}", "sent_at": "2026-01-02T03:04:05Z", "from": ["sally@sitwell.test"],
        "text_body": "first\u{9b}31m\nsecond\u{7}", "attachments": [{"id": "x", "filename": "in\u{1b}]0;voice.pdf", "byte_size": 2048}]
    });
    let conversation =
        json!({"id": "stair-car", "subject": "S\u{1b}[1m", "messages": [message], "labels": [{"name": "B\u{8}ug"}]});
    let shown = [
        (conversation.to_string(), ["conversations", "show", "stair-car"], "GET /api/conversations/stair-car"),
        (message.to_string(), ["messages", "show", "123"], "GET /api/messages/123"),
        (
            json!({"messages": [message], "next_cursor": null}).to_string(),
            ["messages", "list", "stair-car"],
            "GET /api/conversations/stair-car/messages?limit=100",
        ),
    ];
    for (body, arguments, line) in shown {
        let (server, ended) = api(&world, &[("200 OK", &body)], &arguments);
        sent(&server, line, &Value::Null);
        assert!(ended.stdout.contains("Stair car") && ended.code() == Some(0), "{ended:?}");
        let obeyed = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!ended.stdout.contains(obeyed), "{:?}", ended.stdout);
        let (_, as_json) = api(&world, &[("200 OK", &body)], &[&arguments[..], &["--json"]].concat());
        assert!(!as_json.stdout.contains(obeyed), "{:?}", as_json.stdout);
        assert!(as_json.json().to_string().contains("\\u001b[2JStair"), "what it means is kept");
    }
}

#[test]
fn every_change_sends_one_request_and_a_dry_run_none() {
    let world = World::new();
    std::fs::write(world.path("reply.html"), "<p>Thank you!</p>\n").unwrap();
    let contact = r#"{"id":42,"email":"alice@example.com"}"#;
    let draft = r#"{"id":"123","sent_at":null,"attachments":[]}"#;
    let assigned = "POST /api/conversations/stair-car/assignments";
    let drafted = "POST /api/conversations/stair-car/draft_reply";
    let cases: [(&[&str], &str, &str, Value); 11] = [
        (
            &["labels", "create", "On hold", "--color", "mint"],
            r#"{"id":3}"#,
            "POST /api/labels",
            json!({"name": "On hold", "color": "mint"}),
        ),
        (
            &["comment", "stair-car", "--body", "-x-"],
            r#"{"id":1}"#,
            "POST /api/conversations/stair-car/comments",
            json!({"body": "-x-"}),
        ),
        (&["label", "stair-car", "1"], "[]", "POST /api/conversations/stair-car/labels", json!({"label_id": 1})),
        (&["unlabel", "stair-car", "id:1"], "[]", "DELETE /api/conversations/stair-car/labels/1", Value::Null),
        (&["assign", "stair-car", "--email", "a@x"], STAIR_CAR, assigned, json!({"email": "a@x"})),
        (&["assign", "stair-car", "--member", "42"], STAIR_CAR, assigned, json!({"member_id": 42})),
        (
            &["unassign", "stair-car", "--member", "42"],
            STAIR_CAR,
            "DELETE /api/conversations/stair-car/assignments/42",
            Value::Null,
        ),
        (
            &["draft-reply", "stair-car", "--body-file", "reply.html"],
            draft,
            drafted,
            json!({"body": "<p>Thank you!</p>\n"}),
        ),
        (
            &["draft-reply", "stair-car", "--body", "x", "--member", "42", "--message", "9", "--bcc", ""],
            draft,
            drafted,
            json!({"body": "x", "member_id": 42, "message_id": 9, "bcc": ""}),
        ),
        (
            &["contact", "save", "alice@example.com", "--name", "Alice"],
            contact,
            "POST /api/contacts",
            json!({"email": "alice@example.com", "name": "Alice"}),
        ),
        (
            &["contact", "save", "alice@example.com", "--note", "", "--link", "Web=https://a/?b=c", "--no-labels"],
            contact,
            "POST /api/contacts",
            json!({"email": "alice@example.com", "note": "", "links": {"Web": "https://a/?b=c"}, "labels": []}),
        ),
    ];
    for (arguments, answer, line, body) in cases {
        let (server, ended) = api(&world, &[("201 Created", answer)], arguments);
        assert_eq!(ended.code(), Some(0), "{arguments:?}: {ended:?}");
        sent(&server, line, &body);

        let server = Scripted::start(&[]);
        let mut command = world.command(&[&["api"], arguments, &["--dry-run", "--json"]].concat());
        command.env("JELLY_API_URL", server.base_url()).env_remove("JELLY_API_TOKEN");
        let plan = world.start(command).wait();
        assert_eq!((plan.code(), server.asked().len()), (Some(0), 0), "{arguments:?}: {plan:?}");
        let told = plan.json();
        let (method, target) = line.split_once(' ').unwrap();
        let url = server.base_url().replace("/api", target);
        assert_eq!((&told["method"], &told["url"], &told["body"]), (&json!(method), &json!(url), &body), "{told}");
    }
}

#[test]
fn names_are_looked_up_before_anything_is_changed() {
    let world = World::new();
    let answers = [("200 OK", LABELS), ("201 Created", r#"[{"id":2,"name":"Feature"}]"#)];
    let (server, _) = api(&world, &answers, &["label", "stair-car", "Feature"]);
    assert_eq!(server.lines(), ["GET /api/labels", "POST /api/conversations/stair-car/labels"]);
    assert_eq!(server.asked()[1].body, json!({"label_id": 2}));
    let answers = [("200 OK", MEMBERS), ("200 OK", STAIR_CAR)];
    let (server, _) = api(&world, &answers, &["unassign", "stair-car", "--email", "Michael@Bluth.company"]);
    assert_eq!(server.lines()[1], "DELETE /api/conversations/stair-car/assignments/42");
    let (server, ended) = api(&world, &answers, &["unassign", "stair-car", "--email", "gob@bluth.company"]);
    assert_eq!((ended.code(), server.lines().len()), (Some(2), 1), "{ended:?}");

    let dry_run = ["unassign", "stair-car", "--email", "gob@bluth.company", "--dry-run"];
    let (server, ended) = api(&world, &[], &dry_run);
    assert_eq!((ended.code(), server.asked().len()), (Some(0), 0), "{ended:?}");
    assert_eq!(ended.stdout, format!("GET {}/members\n", server.base_url()));
    assert!(ended.stderr.contains("DELETE") && ended.stderr.contains("gob@bluth.company"), "{ended:?}");
    let (server, ended) = api(&world, &[], &[&dry_run[..], &["--json"]].concat());
    let (told, url) = (ended.json(), format!("{}/members", server.base_url()));
    assert_eq!((&told["method"], &told["url"]), (&json!("GET"), &json!(url)), "{told}");
    assert!(told["then"].as_str().unwrap().contains("DELETE"), "{told}");
    let (_, ended) = api(&world, &[], &["unlabel", "stair-car", "Bug", "--dry-run", "--json"]);
    let told = ended.json();
    assert!(told["url"].as_str().unwrap().ends_with("/api/labels") && told["method"] == "GET", "{told}");
    assert!(told["then"].as_str().unwrap().starts_with("DELETE of the label of conversation stair-car"), "{told}");
}

#[test]
fn a_text_comes_from_standard_input_and_an_empty_one_is_refused() {
    let world = World::new();
    for arguments in [["--body-file", "-"], ["--body", "-"]] {
        let server = Scripted::start(&[("201 Created", r#"{"id":1}"#)]);
        let mut command = world.command(&[&["api", "comment", "stair-car"][..], &arguments].concat());
        command.env("JELLY_API_URL", server.base_url());
        let mut process = world.start_with_stdin(command);
        process.stdin().write_all("gr\u{fc}\u{df}e\n".as_bytes()).unwrap();
        assert_eq!(process.wait().code(), Some(0));
        sent(&server, "POST /api/conversations/stair-car/comments", &json!({"body": "gr\u{fc}\u{df}e\n"}));
    }
    for arguments in [&["--body", " "][..], &["--body-file", "-"], &["--body-file", "nowhere"], &[]] {
        let (server, ended) = api(&world, &[], &[&["comment", "stair-car"], arguments].concat());
        assert_eq!((ended.code(), server.asked().len()), (Some(2), 0), "{arguments:?}: {ended:?}");
    }
}

#[test]
fn what_was_there_already_is_said_and_is_no_failure() {
    let world = World::new();
    let (_, ended) = api(&world, &[("200 OK", STAIR_CAR)], &["assign", "stair-car", "--member", "42"]);
    assert!(ended.code() == Some(0) && ended.stderr.contains("nobody is notified"), "{ended:?}");
    let mine = r#"{"id":"7","text_body":"my own words"}"#;
    let arguments = ["draft-reply", "stair-car", "--body", "x"];
    let (_, ended) = api(&world, &[("409 Conflict", mine)], &arguments);
    assert!(ended.code() == Some(0) && ended.stderr.contains("yours was not taken"), "{ended:?}");
    assert!(ended.stdout.contains("my own words"), "{ended:?}");
    let (_, ended) = api(&world, &[("409 Conflict", mine)], &[&arguments[..], &["--json"]].concat());
    assert_eq!((&ended.json()["created"], &ended.json()["draft"]["id"]), (&json!(false), &json!("7")));
}

#[test]
fn failures_end_with_the_codes_of_the_other_commands_and_say_what_to_do() {
    let world = World::new();
    let refused = r#"{"error":"Invalid API token"}"#;
    let cases = [
        ("401 Unauthorized", refused, 3, "check the token"),
        ("404 Not Found", r#"{"error":"Resource not found"}"#, 1, "no such contact"),
        ("404 Not Found", r#"{"error":"Endpoint not found"}"#, 1, "base URL"),
        (
            "422 Unprocessable",
            r#"{"errors":["Email can't be blank","Too odd\u001b"]}"#,
            1,
            "Email can't be blank; Too odd",
        ),
        ("500 Oops", r#"{"error":"Internal server error"}"#, 1, "Internal server error"),
        ("200 OK", "<html>", 1, "a page (HTML or XML)"),
        ("302 Found\r\nLocation: http://127.0.0.1:9/x-canary", "", 1, "status 302"),
    ];
    for (status, body, code, hint) in cases {
        let (server, ended) = api(&world, &[(status, body)], &["contact", "show", "alice@example.com"]);
        assert_eq!((ended.code(), server.asked().len()), (Some(code), 1), "{status}: {ended:?}");
        assert!(ended.stderr.contains(hint) && !ended.stderr.contains("canary"), "{}", ended.stderr);
        let (_, as_json) = api(&world, &[(status, body)], &["contact", "show", "alice@example.com", "--json"]);
        assert_eq!((as_json.code(), &as_json.json()["ok"]), (Some(code), &json!(false)), "{status}");
    }
    let mut command = world.command(&["api", "members"]);
    command.env_remove("JELLY_API_TOKEN");
    let ended = world.start(command).wait();
    assert!(ended.code() == Some(2) && ended.stderr.contains("JELLY_API_TOKEN"), "{ended:?}");
    for arguments in [&["conversations", "show", ".."][..], &["label", "", "1"], &["assign", "x"], &["nothing"]] {
        let (_, ended) = api(&world, &[], arguments);
        assert_eq!(ended.code(), Some(2), "{arguments:?}: {ended:?}");
    }
}

#[test]
fn a_lost_answer_is_told_and_the_change_is_not_sent_again() {
    let world = World::new();
    let (server, ended) = api(&world, &[], &["comment", "stair-car", "--body", "once"]);
    assert_eq!((ended.code(), server.asked().len()), (Some(1), 1), "{ended:?}");
    assert!(ended.stderr.contains("look before you run the same again"), "{}", ended.stderr);
    let (_, ended) = api(&world, &[], &["label", "stair-car", "1"]);
    assert!(ended.stderr.contains("run the same again, which does no harm"), "{}", ended.stderr);
}

#[test]
fn a_request_limit_is_waited_for_within_bounds_and_can_be_stopped() {
    let world = World::new();
    let limited = ("429 Slow\r\nRetry-After: 1", "{}");
    let (server, ended) = api(&world, &[limited, ("200 OK", "[]")], &["labels", "list"]);
    assert_eq!((ended.code(), server.lines().len()), (Some(0), 2), "{ended:?}");
    assert!(ended.stderr.contains("waiting 1 s (Ctrl-C stops)"), "{}", ended.stderr);
    let day = ("429 Slow\r\nRetry-After: 86400", "{}");
    let (server, ended) = api(&world, &[day], &["labels", "list"]);
    assert_eq!((ended.code(), server.lines().len()), (Some(1), 1), "{ended:?}");
    assert!(ended.stderr.contains("worker.max_wait"), "{}", ended.stderr);
    // A date that is past asks for no wait at all; each is longer than the one before all the same.
    world.settings("worker.max_wait = \"2s\"\n");
    let past = ("429 Slow\r\nRetry-After: Sun, 06 Nov 1994 08:49:37 GMT", "{}");
    let (server, ended) = api(&world, &[past; 4], &["labels", "list"]);
    assert_eq!((ended.code(), server.lines().len()), (Some(1), 2), "{ended:?}");
    world.settings("");

    let server = Scripted::start(&[("429 Slow\r\nRetry-After: 250", "{}")]);
    let mut command = world.command(&["api", "labels", "list"]);
    command.env("JELLY_API_URL", server.base_url());
    let process = world.start(command);
    until("the wait is shown", || process.stderr().contains("Ctrl-C stops"));
    process.interrupt();
    assert_eq!(process.wait().code(), Some(130));
}

#[test]
fn the_teams_archive_keeps_the_count_of_requests_and_a_persons_pause_holds() {
    let world = World::new();
    world.dump(&crate::support::events(1, 1, (5, 5)));
    world.replay();
    world.settings("[quota]\nrequests_per_day = 3\nrequests_per_window = 100");
    let labels = ["labels", "list", "--archive", "archive"];
    for _ in 0..3 {
        assert_eq!(api(&world, &[("200 OK", "[]")], &labels).1.code(), Some(0));
    }
    let (server, ended) = api(&world, &[("200 OK", "[]")], &labels);
    assert_eq!((ended.code(), server.asked().len()), (Some(1), 0), "{ended:?}");
    assert!(ended.stderr.contains("the request quota is used up"), "{}", ended.stderr);
    world.settings("");
    world.run(&["pause", "--archive", "archive"]);
    let (server, ended) = api(&world, &[("200 OK", "[]")], &labels);
    assert!(ended.code() == Some(1) && ended.stderr.contains("jellyjar resume"), "{ended:?}");
    assert_eq!(server.asked().len(), 0);
}

#[test]
fn an_attachment_is_fetched_checked_and_named_only_when_it_is_whole() {
    let world = World::new();
    let mut mail = crate::support::events(2, 1, (300_000, 300_000));
    let id = |event: &mut Value| crate::support::attachments(event)[0]["id"].as_str().unwrap().to_owned();
    let ids: Vec<String> = mail.iter_mut().map(id).collect();
    let fetch = |more: &[&str]| {
        let ended = world.start(world.command(&[&["api", "attachment", &ids[0], "-o", "a.bin"], more].concat())).wait();
        world.check(&ended);
        ended
    };
    let ended = fetch(&["--json"]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let bytes = std::fs::read(world.path("a.bin")).unwrap();
    assert_eq!((bytes.len(), &ended.json()["size_bytes"]), (300_000, &json!(300_000)));
    world.dump(&mail[..1]);
    world.replay();
    let stored = ended.json()["sha256"].as_str().unwrap().to_owned();
    assert!(world.archive().join(format!("blobs/sha256/{}/{stored}", &stored[..2])).exists());

    let again = fetch(&[]);
    assert!(again.code() == Some(2) && again.stderr.contains("--force"), "{again:?}");
    std::fs::write(world.path("a.bin"), "old").unwrap();
    world.jelly.set_faults("truncate=1");
    assert_eq!(fetch(&["--force"]).code(), Some(1));
    assert_eq!(std::fs::read(world.path("a.bin")).unwrap(), b"old", "a broken download replaces nothing");
    world.jelly.set_faults("");
    assert_eq!(fetch(&["--force"]).code(), Some(0));
    assert_eq!(std::fs::read(world.path("a.bin")).unwrap(), bytes);

    let mut process = world.start_with_stdin(world.command(&["api", "attachment", "-", "-o", "b.bin"]));
    process.stdin().write_all(format!("{}\n", ids[1]).as_bytes()).unwrap();
    assert_eq!(process.wait().code(), Some(0));
    let left: Vec<_> = std::fs::read_dir(world.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains(".part")), "{left:?}");
}
