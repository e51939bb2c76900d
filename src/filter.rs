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
use crate::digest::Digest;
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
    identity: Digest,
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
            identity: Digest::of(format!("{config:?}").as_bytes()),
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

    /// Differs where the rules differ, for one version of the program.
    pub const fn identity(&self) -> Digest {
        self.identity
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
pub struct Patterns {
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
    /// Reads patterns with `*`, `?` and `{a,b}`, in which case does not count. `key` names them in errors.
    pub fn compile(key: &'static str, texts: &[String]) -> Result<Self, FilterError> {
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

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether one of them matches this text, which is in lower case.
    pub fn match_text(&self, lowercase: &str) -> bool {
        self.matching(lowercase).is_some()
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
pub fn essence(content_type: &str) -> String {
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
pub fn address(from: &str) -> String {
    let inner = from.rsplit_once('<').map_or(from, |(_, rest)| rest.split('>').next().unwrap_or(rest));
    inner.trim().to_lowercase()
}

/// Whether a payload told the conversation itself, and so its labels, and not merely its id.
fn tells_labels(conversation: &Conversation) -> bool {
    conversation.subject.is_some() || !conversation.labels.is_empty() || !conversation.mailboxes.is_empty()
}

#[cfg(test)]
mod tests;
