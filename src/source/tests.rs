//! The reader as a whole: every format, every way to be broken.

use std::io::Write as _;

use proptest::prelude::*;

use super::*;
use crate::model::Direction;

/// Gives out at most `step` bytes a read.
struct Trickle<'a>(&'a [u8], usize);

impl Read for Trickle<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let length = self.0.len().min(target.len()).min(self.1);
        target[..length].copy_from_slice(&self.0[..length]);
        self.0 = &self.0[length..];
        Ok(length)
    }
}

fn items_within(text: &[u8], step: usize, max_payload_bytes: usize) -> Vec<Item> {
    let mut items = Vec::new();
    let _never_breaks = read_from(
        "x",
        Trickle(text, step),
        &SourceConfig { max_payload_bytes, ..SourceConfig::default() },
        None,
        &mut |item| {
            items.push(item);
            ControlFlow::Continue(())
        },
    );
    items
}

fn items(text: impl AsRef<[u8]>) -> Vec<Item> {
    let text = text.as_ref();
    let whole = items_within(text, usize::MAX, 1 << 20);
    if text.len() < 10_000 {
        assert_eq!(items_within(text, 1, 1 << 20), whole, "byte by byte must give the same");
    }
    whole
}

/// The items in short: attachment ids of payloads, `-` for ignored, `!line` for rejects.
fn brief(items: &[Item]) -> Vec<String> {
    let one = |item: &Item| match item {
        Item::Payload(payload) => {
            let ids = payload.messages.iter().flat_map(|message| &message.attachments).map(|a| a.id.as_str());
            format!("({})", ids.collect::<Vec<_>>().join(" "))
        }
        Item::Known => "=".into(),
        Item::Ignored(_) => "-".into(),
        Item::Rejected(reject) => format!("!{}", reject.position.line),
    };
    items.iter().map(one).collect()
}

fn reasons(items: &[Item]) -> Vec<&str> {
    let reason = |item: &'_ Item| matches!(item, Item::Rejected(_));
    items
        .iter()
        .filter(|item| reason(item))
        .map(|item| if let Item::Rejected(reject) = item { reject.reason.as_str() } else { "" })
        .collect()
}

fn payload(text: &str) -> Payload {
    match items(text).as_slice() {
        [Item::Payload(payload)] => payload.clone(),
        other => panic!("not one payload: {other:?}"),
    }
}

fn message(id: &str) -> String {
    format!(r#"{{"id":"m","inbound":true,"attachments":[{{"id":"{id}","filename":"f.pdf"}}]}}"#)
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zst(text: &[u8]) -> Vec<u8> {
    zstd::encode_all(text, 1).unwrap()
}

#[test]
fn an_envelope_gives_its_message_in_its_conversation() {
    let read = payload(
        r#"{"event":"new_message","created_at":"2024-01-15T10:30:00Z","data":{"message":{"id":7,"subject":5,"from":["A <a@x>"],
        "to":"b@x","cc":[{"name":"C","email":"c@x"}],"inbound":"false","sent_at":null,"created_at":"2024","html_body":"<p>",
        "attachments":[{"id":"a1","filename":"x","content_type":"t","byte_size":"12","inline":null},{"id":2,"byte_size":-1,"inline":"true"}]},
        "conversation":{"id":"slug","subject":"S","labels":[{"id":1,"name":"Bug"},"Two"],"mailboxes":[{"name":"Box"}]}}}"#,
    );
    let message = &read.messages[0];
    assert_eq!((message.id.as_deref(), message.subject.as_deref()), (Some("7"), Some("5")));
    assert_eq!((&message.from[0], &message.to[0], &message.cc[0]), (&"A <a@x>".into(), &"b@x".into(), &"c@x".into()));
    assert_eq!((message.direction, message.sent_at.as_deref()), (Some(Direction::Outbound), Some("2024")));
    let conversation = message.conversation.as_ref().unwrap();
    assert_eq!(
        (conversation.id.as_deref(), &conversation.labels[..]),
        (Some("slug"), &["Bug".into(), "Two".into()][..])
    );
    assert_eq!(conversation.mailboxes, ["Box"]);
    let [first, second] = &message.attachments[..] else { panic!("two attachments") };
    assert_eq!((first.id.as_str(), first.size_bytes, first.inline), ("a1", Some(12), false));
    assert_eq!((second.id.as_str(), second.size_bytes, second.inline), ("2", None, true));
}

#[test]
fn an_event_that_brings_mail_without_a_message_is_rejected_and_no_other_event() {
    let without = "the event new_message carries no message";
    let event = |event: &str, data: &str| format!(r#"{{"event":"{event}","data":{data}}}"#);
    for data in ["{}", r#"{"message":null}"#, r#"{"conversation":{"id":"c"}}"#, r#"{"messages":[]}"#] {
        let read = items(event("new_message", data));
        assert!(matches!(&read[..], [Item::Rejected(one)] if one.reason == without), "{data}: {read:?}");
        let read = items(event("assigned", data));
        assert!(matches!(&read[..], [Item::Payload(_)]), "{data}: {read:?}");
    }
    // A log line may be about anything; what somebody has signed may not.
    for text in [r#"{"event":"new_message"}"#, r#"{"event":"new_message","data":null}"#] {
        assert!(matches!(&items(text)[..], [Item::Ignored(_)]), "{text}");
        let line = inbox_line("default", jiff::Timestamp::UNIX_EPOCH, "webhook", text.as_bytes());
        let read = items(std::str::from_utf8(&line).unwrap());
        assert!(matches!(&read[..], [Item::Rejected(one)] if one.reason == without), "{text}: {read:?}");
    }
}

#[test]
fn sizes_that_are_no_whole_number_below_two_to_the_63_are_unknown() {
    for (size, expected) in [
        ("1.5", None),
        ("9223372036854775808", None),
        ("9223372036854775807", Some(i64::MAX as u64)),
        ("1e3", None),
        ("null", None),
        ("\"\"", None),
    ] {
        let read = payload(&format!(r#"{{"id":1,"attachments":[{{"id":"a","byte_size":{size}}}]}}"#));
        assert_eq!(read.messages[0].attachments[0].size_bytes, expected, "{size}");
    }
}

#[test]
fn every_shape_of_content_is_found() {
    let (a, b) = (message("a"), message("b"));
    let quoted = serde_json::to_string(&a).unwrap();
    for (text, expected) in [
        (a.clone(), vec!["(a)"]),
        (r#"{"attachments":[{"id":"a"}],"subject":"legacy"}"#.into(), vec!["(a)"]),
        (format!(r#"{{"messages":[{a},{b}],"next_cursor":"c"}}"#), vec!["(a)", "(b)"]),
        (format!(r#"{{"id":"c","messages":[{a},{b}]}}"#), vec!["(a b)"]),
        (r#"{"conversations":[{"id":"c","subject":"s"}],"next_cursor":null}"#.into(), vec!["()"]),
        (format!(r#"{{"conversations":[{{"id":"c","messages":[{a}]}}]}}"#), vec!["(a)"]),
        (format!("[{a},1,{b}]"), vec!["(a)", "-", "(b)"]),
        (format!(r#"{{"level":"info","whatever":{{"x":[{a}]}}}}"#), vec!["(a)"]),
        (format!(r#"{{"level":"info","message":{quoted}}}"#), vec!["(a)"]),
        (format!(r#"{{"event":"http","request":{{"body":{quoted}}}}}"#), vec!["(a)"]),
        (format!(r#"{{"log":"{{\"body\":{}}}"}}"#, quoted.replace('\\', r"\\").replace('"', r#"\""#)), vec!["(a)"]),
        (r#"{"a":{"b":{"c":{"d":{"e":{"f":{"id":1,"attachments":[]}}}}}}}"#.into(), vec!["()"]),
        (format!("{}{a}{}", r#"{"a":"#.repeat(30), "}".repeat(30)), vec!["(a)"]),
        // Too deep to be searched, but not to be missed.
        (format!("{}{a}{}", r#"{"a":"#.repeat(60), "}".repeat(60)), vec!["!1"]),
        (r#"{"event":"comment_added","created_at":"t","data":{"comment":{"id":1,"body":"hi"}}}"#.into(), vec!["()"]),
        (r#"{"event":"of_the_future","created_at":"t","data":{}}"#.into(), vec!["()"]),
        (r#"{"id":1,"name":"nothing of ours"}"#.into(), vec!["-"]),
        (r#"{"id":1,"attachments":null,"inbound":true}"#.into(), vec!["()"]),
        ("12".into(), vec!["-"]),
        (String::new(), vec![]),
        ("\u{feff}".to_owned() + &a, vec!["(a)"]),
        (format!("\r\n{a}\r\n\r\n{b}\r\n"), vec!["(a)", "(b)"]),
        (r#"{"body":"{\"id\":1,\"attachments\":[{\"id\":\"a"}"#.into(), vec!["-"]),
        (r#"{"body":"{\"id\":1,\"attachments\":[{\"i"}"#.into(), vec!["!1"]),
    ] {
        let read = items(&text);
        let expected = if text.contains(r#"\"a"}"#) { vec!["!1"] } else { expected };
        assert_eq!(brief(&read), expected, "{text}");
    }
}

#[test]
fn the_conversation_reaches_its_messages_and_an_id_alone_is_enough() {
    let read = payload(r#"{"id":"c","labels":["L"],"messages":[{"id":1},{"id":2,"attachments":[{"id":""}]}]}"#);
    assert!(read.messages.iter().all(|message| message.conversation.as_ref().unwrap().labels == ["L"]));
    assert_eq!(read.bad_attachments, ["messages[1].attachments[0]: attachment id is empty"]);
    let read = payload(r#"{"id":1,"conversation_id":5,"attachments":[]}"#);
    assert_eq!(read.messages[0].conversation.as_ref().unwrap().id.as_deref(), Some("5"));
}

#[test]
fn single_bad_attachments_leave_the_rest_alone() {
    let long = "x".repeat(4097);
    let read = payload(&format!(
        r#"{{"id":1,"attachments":[{{}},{{"id":null}},{{"id":""}},{{"id":".."}},{{"id":"{long}"}},{{"id":true}},5,{{"id":"\ud800"}},{{"id":"../\u0000?%2f","filename":"\ud800.pdf"}}]}}"#
    ));
    assert_eq!(read.bad_attachments.len(), 8, "{:?}", read.bad_attachments);
    assert!(read.bad_attachments[3].starts_with("attachments[3]: "));
    assert_eq!(read.messages[0].attachments[0].id.as_str(), "../\0?%2f");
    assert_eq!(read.messages[0].attachments[0].name.as_deref(), Some("\u{fffd}.pdf"));
}

#[test]
fn a_repeated_key_that_is_read_rejects_its_unit_alone() {
    let read = items(format!(
        "{}\n{{\"id\":1,\"attachments\":[],\"attachm\\u0065nts\":[]}}\n{{\"id\":1,\"x\":1,\"x\":2,\"inbound\":true}}\n",
        r#"{"id":1,"attachments":[{"id":"a","id":"b"}]}"#
    ));
    assert_eq!(brief(&read), ["!1", "!2", "()"]);
    assert_eq!(reasons(&read), ["attachments[0]: duplicate field `id`", "duplicate field `attachments`"]);
}

#[test]
fn a_bad_line_is_rejected_where_it_stands_and_reading_goes_on() {
    let (a, b) = (message("a"), message("b"));
    for (middle, expected) in [
        ("not json", vec!["(a)", "!2", "(b)"]),
        ("{\"id\":1,\"attachments\":[{\"id\":\"c", vec!["(a)", "!2", "(b)"]),
        ("{\"id\":1,\"attachments\":[", vec!["(a)", "!2", "(b)"]),
        ("{\"id\":1,\"attachments\":", vec!["(a)", "!2", "(b)"]),
        ("[", vec!["(a)", "(b)", "!2"]),
        ("{\"a\":tru}", vec!["(a)", "!2", "(b)"]),
        ("{\"a\":1}}", vec!["(a)", "-", "!2", "(b)"]),
        ("2026-01-01 INFO started", vec!["(a)", "!2", "(b)"]),
        ("bad\nworse", vec!["(a)", "!2", "!3", "(b)"]),
        ("\0\0\0\0{\"id\":1,\"attachments\":[{\"id\":\"c\"}]}", vec!["(a)", "!2", "(c)", "(b)"]),
    ] {
        let read = items(format!("{a}\n{middle}\n{b}\n"));
        assert_eq!(brief(&read), expected, "{middle}");
    }
    let read = items(format!("{a}\n\n {{\"token\":\"s3cret\",x}}\n"));
    let Item::Rejected(reject) = &read[1] else { panic!("a reject") };
    assert_eq!((reject.position.line, reject.position.byte_offset), (3, a.len() as u64 + 3));
    assert_eq!(reject.excerpt, r#"{"token":"[cut]",x}"#);
}

#[test]
fn invalid_utf8_costs_its_unit_alone() {
    let mut text = format!("[{},", message("a")).into_bytes();
    text.extend(b"{\"id\":1,\"html_body\":\"\xff\",\"attachments\":[]},");
    text.extend(format!("{}]", message("b")).bytes());
    assert_eq!(brief(&items(text)), ["(a)", "!1", "(b)"]);
}

#[test]
fn one_broken_element_does_not_cost_its_list() {
    let (a, b) = (message("a"), message("b"));
    assert_eq!(brief(&items(format!("[{a},{{\"x\":tru}},{b}]"))), ["(a)", "!1", "(b)"]);
    assert_eq!(brief(&items(format!("[\n{a},\n{{\"x\":tru}},\n{b}\n]\n{a}"))), ["(a)", "!3", "(b)", "(a)"]);
    assert_eq!(brief(&items(format!("[\n{a},\n{{\"x\":\"cut\n{b}\n]\n"))), ["(a)", "!3", "(b)"]);
    let pretty: serde_json::Value = serde_json::from_str(&format!("[{a},{a},{b}]")).unwrap();
    let pretty = serde_json::to_string_pretty(&pretty).unwrap().replacen("\"inbound\": true", "\"inbound\": tru", 1);
    assert_eq!(brief(&items(&pretty)), ["!2", "(a)", "(b)"]);
    assert_eq!(brief(&items(format!("[{a}\n"))), ["(a)", "!1"]);
    assert_eq!(brief(&items(format!("[{a},]"))), ["(a)", "!1"]);
}

#[test]
fn what_is_no_text_is_one_reject() {
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    png.extend((0..50_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[2]));
    assert_eq!(brief(&items(&png)), ["!1"]);
    assert_eq!(brief(&items(b"\xff\xfe{\0}\0")), ["!1"]);
    assert!(reasons(&items(b"\xfe\xff\0{\0}"))[0].contains("UTF-16"));
    let prose = "Some words.\n".repeat(5000);
    assert_eq!(items(&prose).len(), 101);
    assert!(reasons(&items(&prose))[100].contains("4899 more places up to line 5000"));
}

#[test]
fn a_record_of_an_inbox_may_be_larger_than_what_is_in_it() {
    let body = format!(r#"{{"id":"m","html_body":"{}","attachments":[{{"id":"x"}}]}}"#, r#"\""#.repeat(450));
    let line = inbox_line("default", jiff::Timestamp::UNIX_EPOCH, "webhook", body.as_bytes());
    assert!(body.len() < 1000 && line.len() > 1100, "{} {}", body.len(), line.len());
    for step in [1, 7, usize::MAX] {
        for (max_record_bytes, expected) in [(inbox_line_bound("default", "webhook", 1000), "(x)"), (0, "!1")] {
            let config = SourceConfig { max_payload_bytes: 1000, max_record_bytes };
            let mut found = Vec::new();
            let _never_breaks = read_from("x", Trickle(&line, step), &config, None, &mut |item| {
                found.push(item);
                ControlFlow::Continue(())
            });
            assert_eq!(brief(&found), [expected], "{max_record_bytes}");
        }
    }
}

#[test]
fn a_unit_above_the_limit_is_rejected_and_the_next_is_read() {
    let big = format!(r#"{{"id":1,"html_body":"{}","attachments":[{{"id":"x"}}]}}"#, "y".repeat(5000));
    let (a, b) = (message("a"), message("b"));
    for text in [format!("{a}\n{big}\n{b}"), format!("[{a},{big},{b}]"), format!("{a}{big}{b}")] {
        for step in [1, 7, usize::MAX] {
            let read = items_within(text.as_bytes(), step, 1000);
            assert_eq!(read.len(), 3);
            assert!(reasons(&read)[0].contains("larger than 1000 bytes"));
            assert!(brief(&read)[2] == "(b)" && brief(&read)[0] == "(a)");
        }
    }
}

#[test]
fn a_page_above_the_limit_is_taken_apart_but_a_conversation_is_not() {
    let list = vec![message("a"); 1000].join(",");
    for step in [13, usize::MAX] {
        let page = format!(r#"{{"x":1,"messages":[{list}],"next_cursor":{{"y":[1]}}}}{}"#, message("b"));
        let read = items_within(page.as_bytes(), step, 1000);
        assert_eq!(read.len(), 1001);
        assert!(read.iter().all(|item| matches!(item, Item::Payload(_))));
        let conversation = format!(r#"{{"id":"c","messages":[{list}]}}"#);
        assert_eq!(brief(&items_within(conversation.as_bytes(), step, 1000)), ["!1"]);
    }
}

#[test]
fn hostile_nesting_takes_linear_time_and_bounded_rejects() {
    assert_eq!(brief(&items("[".repeat(1_000_000))), ["!1"]);
    assert_eq!(brief(&items("{\"a\":".repeat(1_000_000))), ["!1"]);
    for line in ["[\n", "{\"a\":\n", "{\n", "\"\n", "{\"a\":[1,\n"] {
        let read = items(line.repeat(20_000));
        assert!(!read.is_empty() && read.len() <= 102, "{line:?}: {}", read.len());
    }
    let many = "tru,".repeat(200_000);
    assert!(items(format!("[{many}1]")).len() < 110);
}

#[test]
fn compressed_sources_count_as_far_as_they_go() {
    let text = format!("{}\n{}\n", message("a"), message("b")).into_bytes();
    for compress in [gzip, zst] {
        let packed = compress(&text);
        assert_eq!(brief(&items(&packed)), ["(a)", "(b)"]);
        assert_eq!(brief(&items([&packed[..], &packed[..]].concat())), ["(a)", "(b)", "(a)", "(b)"]);
        assert_eq!(brief(&items(compress(&packed))), ["(a)", "(b)"]);
        let read = items([&packed[..], b"garbage"].concat());
        assert_eq!(brief(&read), ["(a)", "(b)", "!3"]);
        assert_eq!(reasons(&items(&packed[..packed.len() - 3])).len(), 1);
        let mut long = Vec::new();
        for index in 0..20_000 {
            long.extend(message(&format!("id-{}", index * 7919 % 10_007)).into_bytes());
            long.push(b'\n');
        }
        let packed = compress(&long);
        let read = items(&packed[..packed.len() / 2]);
        assert!(read.len() > 5_000 && reasons(&read).len() == 1, "{} {:?}", read.len(), reasons(&read));
    }
    let mut damaged = gzip(&text);
    let sum = damaged.len() - 6;
    damaged[sum] ^= 1;
    assert_eq!(brief(&items(&damaged)), ["(a)", "(b)", "!3"]);
    assert_eq!(brief(&items([gzip(&text), vec![0; 512]].concat())), ["(a)", "(b)"]);
    assert_eq!(brief(&items(gzip(&gzip(&gzip(&text))))).len(), 1);
}

#[test]
fn an_inbox_record_is_checked_and_names_its_team() {
    let at = jiff::Timestamp::UNIX_EPOCH;
    let line = inbox_line("blue", at, "webhook", message("a\u{e9}").as_bytes());
    assert!(line.ends_with(b"\"}\n"));
    let Item::Payload(read) = &items(&line)[0] else { panic!("a payload") };
    assert_eq!((read.team.as_deref(), read.messages[0].attachments[0].id.as_str()), (Some("blue"), "a\u{e9}"));
    let mut damaged = line.clone();
    let at_id = line.windows(3).position(|bytes| bytes == b"pdf").unwrap();
    damaged[at_id] = b'q';
    assert!(reasons(&items(&damaged))[0].contains("crc is wrong"));
    let newer = String::from_utf8(line).unwrap().replacen("\"v\":1", "\"v\":2", 1);
    assert!(reasons(&items(newer))[0].contains("newer"));
    assert!(reasons(&items(inbox_line("t", at, "webhook", b"{\"x\":\"\xff\"}")))[0].contains("no UTF-8"));
    assert!(reasons(&items(inbox_line("t", at, "webhook", b"hello")))[0].contains("no JSON"));
    let object = format!(r#"{{"v":1,"team":"t","received_at":"x","source":"s","body":{}}}"#, message("a"));
    assert_eq!(brief(&items(object)), ["(a)"]);
    for body in ["\"".repeat(1000), "\u{1}\n".repeat(500), "plain".repeat(200), String::new()] {
        let line = inbox_line("blue", at, "webhook", body.as_bytes());
        assert!(line.len() <= inbox_line_bound("blue", "webhook", body.len()), "{} bytes", line.len());
    }
    // Escapes would make a line twice as long, so its body is base64.
    let quotes = message(&"\\\"".repeat(500));
    let line = inbox_line("blue", at, "webhook", quotes.as_bytes());
    assert!(line.windows(15).any(|bytes| bytes == b"\"body_base64\":\""));
    assert_eq!(brief(&items(&line)), [format!("({})", "\"".repeat(500))]);
    // RFC 3720, B.4: the checksum of 32 zero bytes.
    assert_eq!(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &[0; 32]), 0x8a91_36aa);
}

#[test]
fn excerpts_keep_secrets_to_themselves() {
    for (text, secret) in [
        (r#"{"Authorization":"Bearer abc.def"}"#, "abc"),
        (r#"{\"api_token\":\"hunter2\"}"#, "hunter2"),
        ("GET https://x.example/f?X-Amz-Signature=abcd HTTP", "abcd"),
        ("https://user:hunter2@x.example/", "hunter2"),
        ("password=hunter2&x=1", "hunter2"),
        ("authorization: bearer hunter2", "hunter2"),
        ("id eyJfcmFpbHMiOnsiZGF0YSI6MX19--0123456789abcdef x", "eyJf"),
    ] {
        let shown = excerpt::excerpt(text.as_bytes());
        assert!(!shown.contains(secret) && shown.contains("[cut]"), "{shown}");
    }
    assert_eq!(excerpt::excerpt(b"a\x1b[31m\xff\nb"), "a [31m\u{fffd} b");
    assert_eq!(excerpt::excerpt("\u{e9} ".repeat(500).as_bytes()).chars().count(), 120);
}

#[test]
fn folders_are_walked_in_order_and_report_what_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let write = |name: &str, id: &str| std::fs::write(path(name), message(id)).unwrap();
    std::fs::create_dir_all(path("b/.hidden")).unwrap();
    write("a.log", "a");
    write("b/b", "b");
    write("b/.hidden/x", "x");
    write("c.json", "c");
    std::os::unix::fs::symlink(folder.path(), path("b/loop")).unwrap();
    std::os::unix::fs::symlink("nowhere", path("broken")).unwrap();
    std::os::unix::fs::symlink("a.log", path("link")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let all = |argument: &str| {
        let mut read_items = Vec::new();
        for input in resolve(&[argument.to_owned()]).unwrap() {
            let _never_breaks = read(&input, &SourceConfig::default(), None, &mut |item| {
                read_items.push(item);
                ControlFlow::Continue(())
            });
            assert_eq!(input.total_bytes().unwrap_or(0), input.read_bytes());
        }
        brief(&read_items)
    };
    let root = folder.path().to_str().unwrap();
    assert_eq!(all(root), ["(a)", "(b)", "!1", "(c)", "!1", "(a)"]);
    assert_eq!(all(&format!("{root}/*.json")), ["(c)"]);
    assert!(matches!(resolve(&[format!("{root}/*.txt")]), Err(SourceError::NoMatch(_))));
    assert!(matches!(resolve(&[format!("{root}/none")]), Err(SourceError::Missing(_))));
    assert!(matches!(resolve(&[format!("{root}/[")]), Err(SourceError::Pattern { .. })));
    assert_eq!(resolve(&["-".into(), "-".into()]).unwrap().len(), 1);
}

#[test]
fn a_fifo_that_is_named_is_read_as_a_stream() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let inputs = resolve(&[path.to_str().unwrap().to_owned()]).unwrap();
    let writer = std::thread::spawn(move || std::fs::write(path, message("a")).unwrap());
    let mut read_items = Vec::new();
    let _never_breaks = read(&inputs[0], &SourceConfig::default(), None, &mut |item| {
        read_items.push(item);
        ControlFlow::Continue(())
    });
    writer.join().unwrap();
    assert_eq!(brief(&read_items), ["(a)"]);
}

#[test]
fn a_sink_that_breaks_stops_the_reading() {
    let mut count = 0;
    let flow = read_from("x", &b"1\n2\n3\n"[..], &SourceConfig::default(), None, &mut |_| {
        count += 1;
        if count == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((flow, count), (ControlFlow::Break(()), 2));
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let key =
            prop_oneof![Just("id".to_owned()), Just("attachments".into()), Just("messages".into()), any::<String>()];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..5).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn document() -> impl Strategy<Value = serde_json::Value> {
    let fields = prop::collection::vec((any::<String>(), json()), 0..5);
    (fields, any::<Option<String>>()).prop_map(|(fields, id)| {
        let mut object: serde_json::Map<_, _> = fields.into_iter().collect();
        if let Some(id) = id {
            object.insert("inbound".into(), true.into());
            object.insert("attachments".into(), serde_json::json!([{ "id": id }]));
        }
        object.into()
    })
}

/// The items without their positions.
fn contents(items: Vec<Item>) -> Vec<String> {
    items
        .into_iter()
        .map(|item| match item {
            Item::Payload(payload) => format!("{:?} {:?}", payload.messages, payload.bad_attachments),
            Item::Ignored(_) => "ignored".into(),
            Item::Rejected(reject) => reject.reason,
            Item::Known => "known".into(),
        })
        .collect()
}

proptest! {
    #[test]
    fn every_way_of_writing_gives_the_same(documents in prop::collection::vec(document(), 0..6), step in 1_usize..40) {
        let lines: Vec<String> = documents.iter().map(ToString::to_string).collect();
        let pretty: Vec<String> = documents.iter().map(|d| serde_json::to_string_pretty(d).unwrap()).collect();
        let expected = contents(items_within(lines.join("\n").as_bytes(), usize::MAX, 1 << 20));
        prop_assert!(expected.len() >= documents.len());
        let list = serde_json::to_string_pretty(&documents).unwrap();
        for text in [lines.concat(), lines.join("\r\n"), pretty.join("\n"), pretty.concat(), format!("[{}]", lines.join(",")), list] {
            for text in [text.as_bytes().to_vec(), gzip(text.as_bytes()), zst(text.as_bytes())] {
                prop_assert_eq!(&contents(items_within(&text, step, 1 << 20)), &expected);
            }
        }
    }

    #[test]
    fn garbage_never_panics_and_reads_the_same_in_pieces(
        pieces in prop::collection::vec(prop_oneof![
            prop::sample::select(vec!["{", "}", "[", "]", ",", ":", "\"", "\\", "\n", "\"id\"", "\"attachments\":[", "1", "-", "tru",
                "true", "{\"messages\":[", "\0", "{\"id\":1,\"inbound\":1}", "\\ud800", " ", "\r\n", "token=", "://a@?", "Bearer "])
                .prop_map(|s| s.as_bytes().to_vec()),
            prop::collection::vec(any::<u8>(), 0..4),
        ], 0..60),
        step in 1_usize..9,
        limit in 1_usize..60,
    ) {
        let text = pieces.concat();
        prop_assert_eq!(items_within(&text, step, limit), items_within(&text, usize::MAX, limit));
    }

    #[test]
    fn the_scanner_agrees_with_serde_json(value in json(), cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let text = value.to_string();
        prop_assert_eq!(scan::check(&text), Ok(()));
        let mut damaged = text.into_bytes();
        let at = cut.index(damaged.len());
        damaged[at] = byte;
        if let Ok(damaged) = std::str::from_utf8(&damaged) {
            let theirs = serde_json::from_str::<&serde_json::value::RawValue>(damaged).is_ok();
            prop_assert_eq!(scan::check(damaged).is_ok(), theirs, "{}", damaged);
        }
    }

    #[test]
    fn strings_come_out_as_serde_json_reads_them(text in any::<String>()) {
        let units: Vec<String> = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        let escaped = format!("\"{}\"", units.concat());
        prop_assert_eq!(&value::unescape(&escaped).content, &text);
        let literal = serde_json::to_string(&text).unwrap();
        prop_assert_eq!(&value::unescape(&literal).content, &text);
    }
}

/// Knows some lines, and gives each an id of its length.
struct Remembered(Vec<String>);

impl Memory for Remembered {
    fn recall(&mut self, texts: &[&[u8]]) -> Vec<(TextId, bool)> {
        let is_known = |text: &[u8]| self.0.iter().any(|known| known.as_bytes() == text);
        texts.iter().map(|text| ([u8::try_from(text.len() % 251).unwrap(); 16], is_known(text))).collect()
    }
}

/// What is read of a text by somebody who remembers lines: in short, and the ids of texts.
fn read_by(known: &[&str], text: &str, step: usize) -> (Vec<String>, Vec<Option<TextId>>) {
    let mut memory = Remembered(known.iter().map(|text| (*text).to_owned()).collect());
    let mut items = Vec::new();
    let config = SourceConfig { max_payload_bytes: 1 << 20, ..SourceConfig::default() };
    let _never_breaks = read_from("x", Trickle(text.as_bytes(), step), &config, Some(&mut memory), &mut |item| {
        items.push(item);
        ControlFlow::Continue(())
    });
    let text_of = |item: &Item| if let Item::Payload(payload) = item { Some(payload.text) } else { None };
    (brief(&items), items.iter().filter_map(text_of).collect())
}

#[test]
fn lines_that_were_taken_in_before_are_left_out() {
    let [a, b, c] = ["a", "b", "c"].map(message);
    let id = Some([u8::try_from(a.len() % 251).unwrap(); 16]);
    let text = format!("{a}\n{b}\r\n\n{a}\n{c}\n{b}\n");
    for step in [usize::MAX, 4096] {
        assert_eq!(read_by(&[&b], &text, step), (["(a)", "=", "(a)", "(c)", "="].map(Into::into).into(), vec![id; 3]));
        assert_eq!(read_by(&[], &text, step).0, ["(a)", "(b)", "(a)", "(c)", "(b)"]);
        assert_eq!(read_by(&[&a, &b, &c], &text, step).0, ["="; 5]);
    }
}

#[test]
fn only_a_whole_line_of_its_own_is_known_by_its_text() {
    let [a, b] = ["a", "b"].map(message);
    // In a list, in another value, with something beside it, without its line break.
    for (text, read) in [
        (format!("[\n{a}\n,\n{b}\n]\n"), vec!["(a)", "(b)"]),
        (format!("{{\"messages\":[\n{a}\n]}}\n"), vec!["(a)"]),
        (format!(" {a}\n"), vec!["(a)"]),
        (format!("{a} {b}\n"), vec!["(a)", "(b)"]),
        (a.clone(), vec!["(a)"]),
    ] {
        let (items, texts) = read_by(&[&a, &b], &text, usize::MAX);
        assert_eq!(items, read, "{text}");
        assert!(texts.iter().all(Option::is_none), "{text}: {texts:?}");
    }
    // A value of several messages, or with a reject in it, is looked at each time.
    let page = format!("{{\"messages\":[{a},{b}]}}\n");
    assert_eq!(read_by(&[], &page, usize::MAX).1, [None, None]);
    let bad = "{\"id\":\"m\",\"inbound\":true,\"attachments\":[7,{\"id\":\"a\"}]}\n";
    assert_eq!(read_by(&[], bad, usize::MAX).1, [None]);
    // What stands deeper than a broken value is taken for a part of it; what follows it is a line again.
    let broken = format!("{{\"x\": [1 2,\n  {a}\n{b}\n");
    assert_eq!(read_by(&[&a, &b], &broken, usize::MAX).0, ["!1", "(a)", "="]);
}
