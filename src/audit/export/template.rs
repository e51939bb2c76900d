//! Layouts: a template makes the path of every file. The three that have names are templates too.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::names::{Limit, component, is_own, split_extension};
use crate::catalog::ExportRow;
use crate::digest::Digest;
use crate::filter;

/// A layout that cannot be used, why, and what can.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TemplateError(String);

/// The longest value of one field in UTF-16 units, so that a long subject leaves room for what stands behind it.
const FIELD_UNITS: usize = 60;
/// The deepest tree.
const MAX_FOLDERS: usize = 5;
/// What stands in the place of a date where a message has none.
const UNDATED: &str = "undated";

macro_rules! fields {
    ($($variant:ident $name:literal $meaning:literal)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        enum Field { $($variant),* }

        impl Field {
            const ALL: &[(Self, &'static str, &'static str)] = &[$((Self::$variant, $name, $meaning)),*];
        }
    };
}

fields! {
    Year "year" "year of the message, in UTC like all dates"
    Month "month" "month, 01 to 12"
    Day "day" "day, 01 to 31"
    Date "date" "date of the message, 2026-01-31"
    Time "time" "time of the message, 093000"
    Name "name" "the file's name"
    Stem "stem" "the file's name without its extension"
    Extension "extension" "its extension with the dot, or nothing"
    Subject "subject" "the message's subject"
    Sender "sender" "the sender's address"
    SenderDomain "sender_domain" "what stands behind its @"
    ConversationDate "conversation_date" "date of the conversation's first message with a file"
    ConversationSubject "conversation_subject" "that message's subject"
    ConversationId "conversation_id" "the conversation's id, or a short one where it is long"
    MessageId "message_id" "the message's id"
    Team "team" "the team's key"
    Id "id" "the attachment's short id"
    Hash "hash" "the first 12 digits of the SHA-256"
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Field(Field),
}

/// A layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
    /// The folders and, last, the file.
    components: Vec<Vec<Part>>,
}

/// What a conversation is called: by its first message that is known to have files.
#[derive(Debug, Clone, Default)]
pub(super) struct Conversation {
    pub(super) sent_ms: Option<i64>,
    pub(super) subject: Option<String>,
}

impl Template {
    /// Reads `conversation`, `sender`, `date`, or a template like `{year}/{sender_domain}/{date} {name}`.
    ///
    /// # Errors
    /// What is wrong, at which character, and what may stand there.
    pub fn parse(by: &str) -> Result<Self, TemplateError> {
        let text = match by.trim() {
            "conversation" => "{conversation_date} {conversation_subject} [{conversation_id}]/{name}",
            "sender" => "{sender}/{date} {name}",
            "date" => "{year}/{month}/{day}/{name}",
            text if text.contains(['{', '}']) => text,
            other => {
                return Err(TemplateError(format!(
                    "{other:?} is no layout; give conversation, sender, date, or a template with fields in braces, like \
                     \"{{year}}/{{sender_domain}}/{{date}} {{name}}\""
                )));
            }
        };
        if text.len() > 500 {
            return Err(TemplateError(format!("the template has {} bytes; 500 are allowed", text.len())));
        }
        let mut components = vec![Vec::new()];
        let mut characters = text.chars().enumerate().peekable();
        while let Some((at, character)) = characters.next() {
            let wrong = |what: String| TemplateError(format!("character {} of the template: {what}", at + 1));
            let parts = components.last_mut().expect("it begins with one and never shrinks");
            match character {
                '/' => {
                    if parts.is_empty() {
                        return Err(wrong("a folder without a name; leave out this /".into()));
                    }
                    components.push(Vec::new());
                }
                '{' => {
                    let name: String = std::iter::from_fn(|| characters.next_if(|(_, c)| !"{}/".contains(*c)))
                        .map(|(_, c)| c)
                        .collect();
                    if characters.next_if(|(_, c)| *c == '}').is_none() {
                        return Err(wrong("this { has no }; a field is written like {name}".into()));
                    }
                    let field = Field::ALL.iter().find(|(_, known, _)| *known == name.trim());
                    let (field, ..) = field.ok_or_else(|| {
                        let known: Vec<_> = Field::ALL.iter().map(|(_, name, _)| *name).collect();
                        wrong(format!("there is no field {{{name}}}; there are: {}", known.join(", ")))
                    })?;
                    parts.push(Part::Field(*field));
                }
                '}' => return Err(wrong("this } has no {; a field is written like {name}".into())),
                character => {
                    if component(&format!("a{character}a"), Limit::units(40)) != format!("a{character}a") {
                        return Err(wrong(format!("{character:?} cannot stand in names everywhere; take another")));
                    }
                    match parts.last_mut() {
                        Some(Part::Literal(literal)) => literal.push(character),
                        _ => parts.push(Part::Literal(character.into())),
                    }
                }
            }
        }
        if components.last().is_none_or(Vec::is_empty) {
            return Err(TemplateError(
                "the template ends with /; it needs the file's name behind it, like {name}".into(),
            ));
        }
        if components.len() > MAX_FOLDERS + 1 {
            let folders = components.len() - 1;
            return Err(TemplateError(format!("the template makes {folders} folders deep; {MAX_FOLDERS} are allowed")));
        }
        for parts in &components {
            if let [Part::Literal(literal)] = parts.as_slice()
                && component(literal, Limit::units(100)) != *literal
            {
                return Err(TemplateError(format!("{literal:?} cannot be a name everywhere; take another")));
            }
        }
        Ok(Self { text: text.to_owned(), components })
    }

    /// The template in full.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether files are laid out by their conversations: then an attachment has a place in each of its own.
    pub(super) fn is_by_conversation(&self) -> bool {
        let by = [Field::ConversationDate, Field::ConversationSubject, Field::ConversationId];
        self.components.iter().flatten().any(|part| matches!(part, Part::Field(field) if by.contains(field)))
    }

    /// Whether each conversation has one folder, whose name stays once it is given.
    pub(super) fn has_conversation_folder(&self) -> bool {
        self.components.len() == 2
            && self.components[0].contains(&Part::Field(Field::ConversationId))
            && self.components[0].iter().all(|part| match part {
                Part::Literal(_) => true,
                Part::Field(field) => matches!(
                    field,
                    Field::ConversationId | Field::ConversationDate | Field::ConversationSubject | Field::Team
                ),
            })
    }

    /// The folders, joined by `/`, and the file's name; each safe on its own.
    pub(super) fn render(
        &self,
        row: &ExportRow,
        sent_ms: Option<i64>,
        conversation: &Conversation,
    ) -> (String, String) {
        let values = Values { row, sent: sent_ms.and_then(civil), conversation };
        let depth = self.components.len() - 1;
        let mut folders = String::new();
        for parts in &self.components[..depth] {
            let mut name = component(&values.join(parts), Limit::folder(depth));
            if folders.is_empty() && is_own(&name) {
                name.push('_');
            }
            if !folders.is_empty() {
                folders.push('/');
            }
            folders.push_str(&name);
        }
        let name = component(&values.join(&self.components[depth]), Limit::file(&folders));
        (folders, name)
    }

    /// The fields and their meanings, one a line.
    pub fn help() -> String {
        let line = |(_, name, meaning): &(Field, &str, &str)| format!("  {:<24}{meaning}\n", format!("{{{name}}}"));
        Field::ALL.iter().map(line).collect()
    }
}

struct Values<'a> {
    row: &'a ExportRow,
    sent: Option<DateTime>,
    conversation: &'a Conversation,
}

impl Values<'_> {
    fn join(&self, parts: &[Part]) -> String {
        parts
            .iter()
            .map(|part| match part {
                Part::Literal(text) => text.clone(),
                Part::Field(field) => self.value(*field),
            })
            .collect()
    }

    fn value(&self, field: Field) -> String {
        let row = self.row;
        let dated = |format: &str| match self.sent {
            Some(sent) => sent.strftime(format).to_string(),
            None => UNDATED.to_owned(),
        };
        let name = row.name.as_deref().filter(|name| !name.trim().is_empty()).unwrap_or("unnamed");
        match field {
            Field::Year => dated("%Y"),
            Field::Month => dated("%m"),
            Field::Day => dated("%d"),
            Field::Date => dated("%Y-%m-%d"),
            Field::Time => dated("%H%M%S"),
            // As long as it may be: the path's limit cuts it, with its extension kept.
            Field::Name => component(name, Limit::units(200)),
            Field::Stem => split_extension(&component(name, Limit::units(200))).0.to_owned(),
            Field::Extension => split_extension(&component(name, Limit::units(200))).1.to_owned(),
            Field::Subject => short(row.subject.as_deref(), "no subject"),
            Field::Sender => short(self.sender().as_deref(), "unknown sender"),
            Field::SenderDomain => {
                let sender = self.sender();
                short(sender.as_deref().and_then(|sender| Some(sender.rsplit_once('@')?.1)), "unknown sender")
            }
            Field::ConversationDate => {
                let sent = self.conversation.sent_ms.and_then(civil);
                sent.map_or_else(|| UNDATED.to_owned(), |sent| sent.strftime("%Y-%m-%d").to_string())
            }
            Field::ConversationSubject => short(self.conversation.subject.as_deref(), "no subject"),
            Field::ConversationId => short_id(row.conversation_id.as_deref().or(row.message_id.as_deref())),
            Field::MessageId => short_id(row.message_id.as_deref()),
            Field::Team => row.team.clone(),
            Field::Id => row.key.to_string(),
            Field::Hash => row.sha256.to_hex()[..12].to_owned(),
        }
    }

    fn sender(&self) -> Option<String> {
        self.row.sender.as_deref().map(filter::address).filter(|sender| !sender.is_empty())
    }
}

/// A value of a field, cut.
fn short(text: Option<&str>, otherwise: &str) -> String {
    match text.map(str::trim).filter(|text| !text.is_empty()) {
        Some(text) => component(text, Limit::units(FIELD_UNITS)),
        None => otherwise.to_owned(),
    }
}

/// An id as it is while it is short and plain, else the beginning of its hash.
fn short_id(id: Option<&str>) -> String {
    let plain = |id: &&str| {
        (1..=16).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    match id {
        None => "none".into(),
        Some(id) if plain(&id) => id.to_owned(),
        Some(id) => Digest::of(id.as_bytes()).to_hex()[..12].to_owned(),
    }
}

/// The time in UTC, if its year has four digits.
fn civil(ms: i64) -> Option<DateTime> {
    let civil = TimeZone::UTC.to_datetime(Timestamp::from_millisecond(ms).ok()?);
    (civil.year() >= 0).then_some(civil)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::AttachmentKey;

    fn row() -> ExportRow {
        ExportRow {
            message_row: 1,
            place: 0,
            key: AttachmentKey::from_slice(&[7; 16]).unwrap(),
            team: "default".into(),
            sha256: Digest::of(b"x"),
            size_bytes: 1,
            sniffed_type: None,
            archived_at_ms: 0,
            name: Some("In/voice.PDF".into()),
            content_type: None,
            subject: Some("Re: a/b".into()),
            sender: Some("Ann <Ann@Example.org>".into()),
            sent_at: None,
            message_id: Some("42".into()),
            conversation_id: Some("c1".into()),
            line_digest: [0; 16],
        }
    }

    fn render(by: &str) -> String {
        let conversation = Conversation { sent_ms: Some(0), subject: Some("Offer".into()) };
        let (folders, name) = Template::parse(by).unwrap().render(&row(), Some(1_790_000_000_000), &conversation);
        format!("{folders}|{name}")
    }

    #[test]
    fn layouts_and_templates_make_paths() {
        assert_eq!(render("conversation"), "1970-01-01 Offer [c1]|In_voice.PDF");
        assert_eq!(render("sender"), "ann@example.org|2026-09-21 In_voice.PDF");
        assert_eq!(render("date"), "2026/09/21|In_voice.PDF");
        assert_eq!(
            render("{year}/{sender_domain}/{date} {subject} - {stem}{extension}"),
            "2026/example.org|2026-09-21 Re_ a_b - In_voice.PDF"
        );
        assert_eq!(render("manifest.csv/{hash}"), "manifest.csv_|2d711642b726");
    }

    #[test]
    fn only_slashes_of_the_template_make_folders() {
        let mut row = row();
        row.subject = Some("../../x/y\\z".into());
        row.name = Some("../a".into());
        let conversation = Conversation::default();
        let (folders, name) = Template::parse("{subject}/{date}/{name}").unwrap().render(&row, None, &conversation);
        assert_eq!((folders.as_str(), name.as_str()), ("_.._x_y_z/undated", "_a"));
    }

    #[test]
    fn a_template_that_cannot_be_used_is_refused_with_its_place() {
        for (text, expected) in [
            ("{nam}", "character 1 of the template: there is no field {nam}; there are: year, month"),
            ("{year}/{name", "character 8"),
            ("{year}}", "character 7"),
            ("/{name}", "character 1"),
            ("{year}//{name}", "character 8"),
            ("{year}/", "ends with /"),
            ("{year}/../{name}", "\"..\" cannot be a name"),
            ("{year}/NUL/{name}", "\"NUL\" cannot be a name"),
            ("{year}: {name}", "character 7 of the template: ':'"),
            ("{year}\\{name}", "character 7"),
            ("month", "no layout"),
            ("{day}/{day}/{day}/{day}/{day}/{day}/{day}/{day}/{name}", "5 are allowed"),
        ] {
            let error = Template::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
