//! Tests of the rules, one by one.

use super::*;

fn filter(toml: &str) -> Filter {
    Filter::compile(&toml::from_str(toml).unwrap()).unwrap()
}

fn attachment() -> Attachment {
    Attachment {
        id: "a1".to_owned().try_into().unwrap(),
        name: Some("Report.PDF".into()),
        content_type: Some("application/pdf".into()),
        size_bytes: Some(1024),
        inline: false,
    }
}

fn named(name: &str) -> Attachment {
    Attachment { name: Some(name.into()), ..attachment() }
}

fn typed(content_type: Option<&str>) -> Attachment {
    Attachment { content_type: content_type.map(Into::into), ..attachment() }
}

fn rule_for(toml: &str, message: &Message, attachment: &Attachment) -> Option<String> {
    match filter(toml).decide(message, attachment) {
        Verdict::Accept => None,
        Verdict::Skip(rule) => Some(rule.into_owned()),
    }
}

fn file_rule(toml: &str, attachment: &Attachment) -> Option<String> {
    rule_for(toml, &Message::default(), attachment)
}

fn message_rule(toml: &str, message: &Message) -> Option<String> {
    rule_for(toml, message, &attachment())
}

#[test]
fn without_rules_all_but_inline_files_are_kept() {
    assert_eq!(file_rule("", &attachment()), None);
    assert_eq!(file_rule("", &Attachment { inline: true, ..attachment() }).as_deref(), Some("inline"));
    assert_eq!(file_rule("inline = \"keep\"", &Attachment { inline: true, ..attachment() }), None);
}

#[test]
fn keep_non_images_decides_by_type_and_then_by_extension() {
    for (content_type, name, kept) in [
        (Some("application/pdf"), "logo.png", true),
        (Some("IMAGE/PNG; name=x"), "report.pdf", false),
        (Some("application/octet-stream"), "logo.PNG", false),
        (Some("application/octet-stream"), "report.pdf", true),
        (Some(""), "photo.jpeg ", false),
        (None, "photo.jpeg", false),
        (None, "report", true),
        (None, "", true),
    ] {
        let file = Attachment { inline: true, ..typed(content_type) };
        let file = Attachment { name: Some(name.into()), ..file };
        let rule = file_rule("inline = \"keep-non-images\"", &file);
        assert_eq!(rule.is_none(), kept, "{content_type:?} {name}: {rule:?}");
    }
}

#[test]
fn types_are_compared_without_case_and_parameters() {
    let rules = "content_types = [\"application/PDF\", \"image/*\"]";
    assert_eq!(file_rule(rules, &typed(Some("Application/Pdf; name=\"a;b\""))), None);
    assert_eq!(file_rule(rules, &typed(Some("image/svg+xml"))), None);
    let rule = file_rule(rules, &typed(Some("application/zip")));
    assert_eq!(rule.as_deref(), Some("content_types=application/PDF,image/*"));
    assert_eq!(file_rule(rules, &typed(None)), None);
    let rule = file_rule("skip_content_types = [\"text/*\"]", &typed(Some("text/calendar")));
    assert_eq!(rule.as_deref(), Some("skip_content_types=text/*"));
}

#[test]
fn names_are_compared_as_plain_text_without_case() {
    for name in
        ["report.pdf", "REPORT.PDF", "a/b.pdf", "..\\..\\x.pdf", "/etc/.pdf", "{a,b}.pdf", "a\nb.pdf", "übung [1].pdf"]
    {
        assert_eq!(file_rule("names = [\"*.pdf\"]", &named(name)), None, "{name}");
    }
    for name in ["report.pdf/", "report.pdf/.", "report.pdf ", "pdf", "", "x.pdfx"] {
        assert_eq!(file_rule("names = [\"*.pdf\"]", &named(name)).as_deref(), Some("names=*.pdf"), "{name}");
    }
    assert_eq!(file_rule("skip_names = [\"ÉTÉ*\"]", &named("été.txt")).as_deref(), Some("skip_names=ÉTÉ*"));
    assert_eq!(file_rule("skip_names = [\"*.{ics,vcf}\"]", &named("a.vcf")).as_deref(), Some("skip_names=*.{ics,vcf}"));
    let nameless = Attachment { name: None, ..attachment() };
    assert!(file_rule("names = [\"*.pdf\"]", &nameless).is_some());
    assert_eq!(file_rule("names = [\"*\"]", &nameless), None);
}

#[test]
fn sizes_are_inclusive_and_an_unknown_size_is_accepted() {
    let rules = "min_size = \"1 KiB\"\nmax_size = \"10 MiB\"";
    let sized = |size_bytes| file_rule(rules, &Attachment { size_bytes, ..attachment() });
    assert_eq!(sized(Some(1023)).as_deref(), Some("min_size=1 KiB"));
    assert_eq!(sized(Some(1024)), None);
    assert_eq!(sized(Some(10 << 20)), None);
    assert_eq!(sized(Some((10 << 20) + 1)).as_deref(), Some("max_size=10 MiB"));
    assert_eq!(sized(None), None);
}

#[test]
fn senders_match_on_the_address_alone() {
    let from =
        |from: &[&str]| Message { from: from.iter().map(|text| (*text).to_owned()).collect(), ..Message::default() };
    let rules = "senders = [\"*@Supplier.example\"]";
    for sender in [
        "ann@supplier.example",
        "Ann <Ann@SUPPLIER.example>",
        "\"<x@y>\" <ann@supplier.example>",
        "Ann <ann@supplier.example",
    ] {
        assert_eq!(message_rule(rules, &from(&[sender])), None, "{sender}");
    }
    assert_eq!(message_rule(rules, &from(&["bob@other.example", "ann@supplier.example"])), None);
    assert_eq!(message_rule(rules, &from(&[])), None);
    let spoofed = from(&["\"ann@supplier.example\" <eve@evil.example>"]);
    assert_eq!(message_rule(rules, &spoofed).as_deref(), Some("senders=*@Supplier.example"));
    let rules = "skip_senders = [\"no-reply@*\"]";
    assert_eq!(message_rule(rules, &from(&["a@b", "X <no-reply@c>"])).as_deref(), Some("skip_senders=no-reply@*"));
}

#[test]
fn dates_bound_what_is_known_to_be_outside() {
    let rules = "since = 2026-01-01\nuntil = \"2026-02-01T00:00:00+01:00\"";
    let sent = |text: &str| message_rule(rules, &Message { sent_at: Some(text.into()), ..Message::default() });
    assert_eq!(sent("2025-12-31T23:59:59Z").as_deref(), Some("since=2026-01-01"));
    assert_eq!(sent("2026-01-01T00:00:00Z"), None);
    assert_eq!(sent("2026-01-01T00:30:00+01:00").as_deref(), Some("since=2026-01-01"));
    assert_eq!(sent("2026-01-31T22:59:59.999Z"), None);
    assert_eq!(sent("2026-01-31T23:00:00Z").as_deref(), Some("until=2026-02-01T00:00:00+01:00"));
    assert_eq!(sent("last week"), None);
    assert_eq!(message_rule(rules, &Message::default()), None);
}

#[test]
fn direction_keeps_what_went_that_way_or_is_not_known() {
    let went = |direction| message_rule("direction = \"inbound\"", &Message { direction, ..Message::default() });
    assert_eq!(went(Some(Direction::Inbound)), None);
    assert_eq!(went(Some(Direction::Outbound)).as_deref(), Some("direction=inbound"));
    assert_eq!(went(None), None);
}

#[test]
fn labels_match_whole_and_without_case_where_the_conversation_is_known() {
    let labelled = |labels: &[&str]| Message {
        conversation: Some(Conversation {
            subject: Some("Hello".into()),
            labels: labels.iter().map(|text| (*text).to_owned()).collect(),
            ..Conversation::default()
        }),
        ..Message::default()
    };
    let rules = "labels = [\"invoices\", \"*\"]";
    assert_eq!(message_rule(rules, &labelled(&["Bug", "Invoices"])), None);
    assert_eq!(message_rule(rules, &labelled(&["Bug"])).as_deref(), Some("labels=invoices,*"));
    assert_eq!(message_rule(rules, &labelled(&[])).as_deref(), Some("labels=invoices,*"));
    assert_eq!(message_rule(rules, &Message::default()), None);
    let bare = Conversation { id: Some("c1".into()), ..Conversation::default() };
    assert_eq!(message_rule(rules, &Message { conversation: Some(bare), ..Message::default() }), None);
    assert_eq!(message_rule("skip_labels = [\"spam\"]", &labelled(&["SPAM"])).as_deref(), Some("skip_labels=spam"));
}

#[test]
fn a_bad_rule_is_refused_with_its_key_and_pattern() {
    for (config, key, part) in [
        (FilterConfig { names: vec!["[a".into()], ..FilterConfig::default() }, "names", "\"[a\""),
        (FilterConfig { skip_senders: vec!["{a,b".into()], ..FilterConfig::default() }, "skip_senders", "\"{a,b\""),
        (FilterConfig { since: Some("soon".into()), ..FilterConfig::default() }, "since", "\"soon\""),
        (
            FilterConfig {
                since: Some("2026-02-01".into()),
                until: Some("2026-01-01".into()),
                ..FilterConfig::default()
            },
            "since",
            "`until`",
        ),
        (FilterConfig { labels: vec![" ".into()], ..FilterConfig::default() }, "labels", "empty"),
        (FilterConfig { names: vec!["x".repeat(513)], ..FilterConfig::default() }, "names", "513"),
    ] {
        let error = Filter::compile(&config).unwrap_err();
        assert_eq!(error.key, key);
        assert!(error.to_string().contains(part), "{error}");
    }
}

proptest::proptest! {
    #[test]
    fn no_pattern_and_no_name_makes_it_panic(pattern in "[-a-cé*?{},!\\[\\]\\\\/^]{1,40}", name in "\\PC{0,20}") {
        let config = FilterConfig { names: vec![pattern], ..FilterConfig::default() };
        if let Ok(filter) = Filter::compile(&config) {
            filter.decide(&Message::default(), &named(&name));
        }
    }
}

#[test]
fn a_pattern_of_endless_groups_is_refused() {
    let pattern = format!("{}a{}", "{".repeat(200), "}".repeat(200));
    let config = FilterConfig { names: vec![pattern], ..FilterConfig::default() };
    assert!(Filter::compile(&config).is_err());
}

#[test]
fn a_rule_in_a_verdict_is_cut_to_a_bearable_length() {
    let names: Vec<_> = (0..100).map(|n| format!("é-{n}-*.pdf")).collect();
    let config = FilterConfig { names, ..FilterConfig::default() };
    let Verdict::Skip(rule) = Filter::compile(&config).unwrap().decide(&Message::default(), &attachment()) else {
        panic!("it was accepted");
    };
    assert_eq!(rule.chars().count(), MAX_RULE_CHARS + 1);
    assert!(rule.starts_with("names=é-0-*.pdf,"));
}
