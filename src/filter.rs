//! Which attachments are kept. Decides on what a message declares; knows nothing of bytes or storage.
//!
//! What is not known never counts against a file: a silently missing file is worse than one too many. So a rule accepts
//! where its input is missing: no declared size, no declared type, no readable `sent_at`, no direction, no sender, or
//! no word on the conversation's labels. A missing name is the empty name.
//!
//! Patterns know `*`, `?`, `[a-z]` and `{a,b}`, without regard to case. They see a name as plain text: `*` also
//! matches `/` and `\`, and nothing in a name is special.

use std::borrow::Cow;

use globset::{GlobBuilder, GlobMatcher};
use jiff::Timestamp;

use crate::config::{FilterConfig, InlinePolicy, values};
use crate::model::{Attachment, Conversation, Direction, Message};

/// The most patterns of one rule.
const MAX_PATTERNS: usize = 1000;
/// The longest pattern, in bytes.
const MAX_PATTERN_BYTES: usize = 512;
/// The most `{` of one pattern: the matcher cannot bear groups within groups without end.
const MAX_PATTERN_GROUPS: usize = 16;
/// The longest text of a rule in a verdict, in characters.
const MAX_RULE_CHARS: usize = 120;
/// Extensions by which a file without a telling type counts as an image.
const IMAGE_EXTENSIONS: [&str; 18] = [
    "apng", "avif", "bmp", "emf", "emz", "gif", "heic", "heif", "ico", "jfif", "jpe", "jpeg", "jpg", "png", "svg",
    "tif", "tiff", "webp",
];

/// A rule that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}`: {problem}")]
pub struct FilterError {
    /// The setting within `[filter]`.
    pub key: &'static str,
    /// What is wrong with which value, and what to write instead.
    pub problem: String,
}

/// What the rules say of one attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is kept.
    Accept,
    /// It is not; the text names the setting and the value that decided.
    Skip(Cow<'static, str>),
}

/// Rules, ready to decide.
#[derive(Debug, Clone)]
pub struct Filter {
    inline: InlinePolicy,
    direction: Option<Direction>,
    since: Option<(Timestamp, String)>,
    until: Option<(Timestamp, String)>,
    min_size_bytes: Option<u64>,
    max_size_bytes: Option<u64>,
    content_types: Patterns,
    skip_content_types: Patterns,
    names: Patterns,
    skip_names: Patterns,
    senders: Patterns,
    skip_senders: Patterns,
    labels: Patterns,
    skip_labels: Patterns,
}

impl Filter {
    /// Makes rules of their settings.
    ///
    /// # Errors
    /// If a pattern or date cannot be read.
    pub fn compile(config: &FilterConfig) -> Result<Self, FilterError> {
        let moment = |key, text: &Option<String>| {
            text.as_ref()
                .map(|text| values::parse_moment(text).map(|moment| (moment, text.clone())))
                .transpose()
                .map_err(|problem| FilterError { key, problem })
        };
        let since = moment("since", &config.since)?;
        let until = moment("until", &config.until)?;
        if since.as_ref().zip(until.as_ref()).is_some_and(|(since, until)| since.0 >= until.0) {
            return Err(FilterError {
                key: "since",
                problem: "it is not before `until`: nothing could be kept".into(),
            });
        }
        if config.min_size.zip(config.max_size).is_some_and(|(least, most)| least > most) {
            return Err(FilterError {
                key: "min_size",
                problem: "it is above `max_size`: nothing could be kept".into(),
            });
        }
        Ok(Self {
            inline: config.inline,
            direction: config.direction,
            since,
            until,
            min_size_bytes: config.min_size.map(|size| size.as_u64()),
            max_size_bytes: config.max_size.map(|size| size.as_u64()),
            content_types: Patterns::compile("content_types", &config.content_types)?,
            skip_content_types: Patterns::compile("skip_content_types", &config.skip_content_types)?,
            names: Patterns::compile("names", &config.names)?,
            skip_names: Patterns::compile("skip_names", &config.skip_names)?,
            senders: Patterns::compile("senders", &config.senders)?,
            skip_senders: Patterns::compile("skip_senders", &config.skip_senders)?,
            labels: Patterns::literal("labels", &config.labels)?,
            skip_labels: Patterns::literal("skip_labels", &config.skip_labels)?,
        })
    }

    /// Decides on one attachment of a message. The first rule that does not accept is named.
    pub fn decide(&self, message: &Message, attachment: &Attachment) -> Verdict {
        let skip = self.skip_by_file(attachment).or_else(|| self.skip_by_message(message));
        skip.map_or(Verdict::Accept, Verdict::Skip)
    }

    fn skip_by_file(&self, attachment: &Attachment) -> Option<Cow<'static, str>> {
        let content_type = attachment.content_type.as_deref().map(essence).filter(|text| !text.is_empty());
        let name = attachment.name.as_deref().unwrap_or_default().to_lowercase();
        if attachment.inline {
            match self.inline {
                InlinePolicy::Skip => return Some("inline".into()),
                InlinePolicy::KeepNonImages if is_image(content_type.as_deref(), &name) => {
                    return Some("inline=keep-non-images".into());
                }
                InlinePolicy::KeepNonImages | InlinePolicy::Keep => {}
            }
        }
        if let Some(content_type) = content_type {
            let values = [content_type];
            let skip = self.content_types.keeps_none(&values).or_else(|| self.skip_content_types.skips_any(&values));
            if skip.is_some() {
                return skip;
            }
        }
        let names = [name];
        let skip = self.names.keeps_none(&names).or_else(|| self.skip_names.skips_any(&names));
        if skip.is_some() {
            return skip;
        }
        let size = attachment.size_bytes?;
        if let Some(least) = self.min_size_bytes.filter(|least| size < *least) {
            return Some(format!("min_size={}", values::format_size(least)).into());
        }
        let most = self.max_size_bytes.filter(|most| size > *most)?;
        Some(format!("max_size={}", values::format_size(most)).into())
    }

    fn skip_by_message(&self, message: &Message) -> Option<Cow<'static, str>> {
        if let (Some(wanted), Some(direction)) = (self.direction, message.direction)
            && wanted != direction
        {
            return Some(match wanted {
                Direction::Inbound => "direction=inbound".into(),
                Direction::Outbound => "direction=outbound".into(),
            });
        }
        if let Some(sent_at) = message.sent_at.as_deref().and_then(|text| text.trim().parse::<Timestamp>().ok()) {
            if let Some((_, text)) = self.since.as_ref().filter(|(since, _)| sent_at < *since) {
                return Some(format!("since={text}").into());
            }
            if let Some((_, text)) = self.until.as_ref().filter(|(until, _)| sent_at >= *until) {
                return Some(format!("until={text}").into());
            }
        }
        let senders: Vec<_> = message.from.iter().map(|from| address(from)).filter(|text| !text.is_empty()).collect();
        if !senders.is_empty() {
            let skip = self.senders.keeps_none(&senders).or_else(|| self.skip_senders.skips_any(&senders));
            if skip.is_some() {
                return skip;
            }
        }
        let conversation = message.conversation.as_ref().filter(|conversation| tells_labels(conversation))?;
        let labels: Vec<_> = conversation.labels.iter().map(|label| label.trim().to_lowercase()).collect();
        self.labels.keeps_none(&labels).or_else(|| self.skip_labels.skips_any(&labels))
    }
}

/// Patterns of one setting.
#[derive(Debug, Clone)]
struct Patterns {
    key: &'static str,
    patterns: Vec<(Pattern, String)>,
}

#[derive(Debug, Clone)]
enum Pattern {
    Glob(GlobMatcher),
    Literal(String),
}

impl Pattern {
    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Glob(glob) => glob.is_match(value),
            Self::Literal(text) => text == value,
        }
    }
}

impl Patterns {
    fn compile(key: &'static str, texts: &[String]) -> Result<Self, FilterError> {
        Self::make(key, texts, |text| {
            // Both sides are lowercased as text: the matcher itself folds the case of ASCII alone.
            GlobBuilder::new(&text.trim().to_lowercase())
                .literal_separator(false)
                .backslash_escape(true)
                .build()
                .map(|glob| Pattern::Glob(glob.compile_matcher()))
                .map_err(|error| format!("the pattern {text:?} cannot be read: {}", error.kind()))
        })
    }

    fn literal(key: &'static str, texts: &[String]) -> Result<Self, FilterError> {
        Self::make(key, texts, |text| Ok(Pattern::Literal(text.trim().to_lowercase())))
    }

    fn make(
        key: &'static str,
        texts: &[String],
        compile: impl Fn(&str) -> Result<Pattern, String>,
    ) -> Result<Self, FilterError> {
        let blame = |problem| FilterError { key, problem };
        if texts.len() > MAX_PATTERNS {
            return Err(blame(format!("{} entries are too many; {MAX_PATTERNS} are allowed", texts.len())));
        }
        let compile = |text: &String| {
            if text.trim().is_empty() {
                return Err("there is an empty entry; take it out, for it matches nothing".to_owned());
            }
            if text.len() > MAX_PATTERN_BYTES {
                return Err(format!("an entry is {} bytes long; {MAX_PATTERN_BYTES} are allowed", text.len()));
            }
            if text.matches('{').count() > MAX_PATTERN_GROUPS {
                return Err(format!("the pattern {text:?} has too many {{; {MAX_PATTERN_GROUPS} are allowed"));
            }
            Ok((compile(text)?, text.clone()))
        };
        Ok(Self { key, patterns: texts.iter().map(compile).collect::<Result<_, _>>().map_err(blame)? })
    }

    /// The rule's text if there are patterns and no value matches one.
    fn keeps_none(&self, values: &[String]) -> Option<Cow<'static, str>> {
        if self.patterns.is_empty() || values.iter().any(|value| self.matching(value).is_some()) {
            return None;
        }
        let texts: Vec<_> = self.patterns.iter().take(MAX_RULE_CHARS).map(|(_, text)| text.as_str()).collect();
        Some(rule(self.key, &texts.join(",")))
    }

    /// The rule's text if some value matches a pattern.
    fn skips_any(&self, values: &[String]) -> Option<Cow<'static, str>> {
        values.iter().find_map(|value| self.matching(value)).map(|text| rule(self.key, text))
    }

    fn matching(&self, value: &str) -> Option<&str> {
        self.patterns.iter().find(|(pattern, _)| pattern.matches(value)).map(|(_, text)| text.as_str())
    }
}

/// Words a rule, cut to a length that journals can bear.
fn rule(key: &str, value: &str) -> Cow<'static, str> {
    let whole = format!("{key}={value}");
    match whole.char_indices().nth(MAX_RULE_CHARS) {
        Some((end, _)) => format!("{}…", &whole[..end]).into(),
        None => whole.into(),
    }
}

/// A media type without its parameters, lowercase.
fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_lowercase()
}

/// Whether a file counts as an image: by its type, or by its name where the type tells nothing.
fn is_image(content_type: Option<&str>, lowercase_name: &str) -> bool {
    match content_type {
        Some(content_type) if content_type != "application/octet-stream" => content_type.starts_with("image/"),
        _ => lowercase_name.trim().rsplit_once('.').is_some_and(|(_, extension)| IMAGE_EXTENSIONS.contains(&extension)),
    }
}

/// The address in `Name <address>` or in plain text, lowercase.
fn address(from: &str) -> String {
    let inner = from.rsplit_once('<').map_or(from, |(_, rest)| rest.split('>').next().unwrap_or(rest));
    inner.trim().to_lowercase()
}

/// Whether a payload told the conversation itself, and so its labels, and not merely its id.
fn tells_labels(conversation: &Conversation) -> bool {
    conversation.subject.is_some() || !conversation.labels.is_empty() || !conversation.mailboxes.is_empty()
}

#[cfg(test)]
mod tests {
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
        for name in [
            "report.pdf",
            "REPORT.PDF",
            "a/b.pdf",
            "..\\..\\x.pdf",
            "/etc/.pdf",
            "{a,b}.pdf",
            "a\nb.pdf",
            "übung [1].pdf",
        ] {
            assert_eq!(file_rule("names = [\"*.pdf\"]", &named(name)), None, "{name}");
        }
        for name in ["report.pdf/", "report.pdf/.", "report.pdf ", "pdf", "", "x.pdfx"] {
            assert_eq!(file_rule("names = [\"*.pdf\"]", &named(name)).as_deref(), Some("names=*.pdf"), "{name}");
        }
        assert_eq!(file_rule("skip_names = [\"ÉTÉ*\"]", &named("été.txt")).as_deref(), Some("skip_names=ÉTÉ*"));
        assert_eq!(
            file_rule("skip_names = [\"*.{ics,vcf}\"]", &named("a.vcf")).as_deref(),
            Some("skip_names=*.{ics,vcf}")
        );
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
        let from = |from: &[&str]| Message {
            from: from.iter().map(|text| (*text).to_owned()).collect(),
            ..Message::default()
        };
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
}
