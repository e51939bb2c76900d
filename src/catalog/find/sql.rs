//! The statements of `find`. What drives them is chosen here, by what is asked for, and kept by CROSS JOIN: SQLite knows
//! no figures of these tables. PostgreSQL does, and chooses itself whether words are looked up or dates are walked along.

use std::collections::HashSet;

use super::entries::first_id;
use super::glob::Postgres;
use super::text::{Column, Words, phrases};
use super::{ArchiveRow, FindQuery, FindSort, GlobPattern, State};

/// How many candidates are looked at, each in about a tenth of a second. In the order of dates, entries are read one behind
/// the other.
const LOOK_BY_DATE: u64 = 500_000;
/// Those that have the words are looked up one by one.
const LOOK_BY_WORDS: u64 = 50_000;
/// In another order they stand all over the table, and its pages are read again and again; and a few questions need another
/// table for each.
const LOOK_ELSEWHERE: u64 = 50_000;

/// A parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// A statement with its parameters, which gives the matching entries' ids in one text.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) text: String,
    pub(super) values: Vec<Value>,
}

impl Ready {
    /// Keeps the parameters that the text names. The others have one value, and none stands at the end: PostgreSQL keeps a
    /// prepared statement under its text, with the number and the types that its parameters had first.
    fn of(text: String, mut values: Vec<Value>) -> Self {
        let numbers = text.split('?').skip(1).filter_map(|rest| {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            rest[..digits].parse::<usize>().ok()
        });
        let named: HashSet<usize> = numbers.collect();
        values.truncate(named.iter().copied().max().unwrap_or(0));
        for (index, value) in values.iter_mut().enumerate() {
            if !named.contains(&(index + 1)) {
                *value = Value::Integer(0);
            }
        }
        Self { text, values }
    }
}

/// The place of an entry in every order: name, sender and size, where they are known.
#[derive(Debug)]
pub(super) struct Position {
    pub(super) id: i64,
    pub(super) keys: Option<(String, String, i64)>,
}

/// A query as SQL, but for the page.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own about the query")]
pub(super) struct Statement {
    is_postgres: bool,
    from: &'static str,
    /// Conditions on an entry, whose alias is written `{e}`.
    of_entry: Vec<String>,
    /// Conditions on its attachment.
    of_attachment: Vec<String>,
    values: Vec<Value>,
    /// What sorts, with `{e}` for the alias; none sorts by id.
    key: Option<&'static str>,
    sort: FindSort,
    descending: bool,
    /// Whether the driver may have more rows than can be looked at in time.
    may_be_many: bool,
    /// Whether each candidate costs a look at another table.
    is_dear: bool,
    /// How many candidates to look at, where that is said.
    look: Option<u64>,
}

impl Statement {
    /// Puts a query into SQL; `None` where nothing can match, as words were asked for and none is there.
    pub(super) fn of(archive: ArchiveRow, query: &FindQuery, is_postgres: bool) -> Option<Self> {
        let mut made = Self {
            is_postgres,
            from: "",
            of_entry: Vec::new(),
            of_attachment: Vec::new(),
            values: Vec::new(),
            key: match query.sort {
                FindSort::Date => None,
                FindSort::Size => Some("{e}.size_bytes"),
                FindSort::Name if is_postgres => Some("left({e}.name, 600)"),
                FindSort::Sender if is_postgres => Some("left({e}.sender, 600)"),
                FindSort::Name => Some("{e}.name"),
                FindSort::Sender => Some("{e}.sender"),
            },
            sort: query.sort,
            descending: matches!(query.sort, FindSort::Date | FindSort::Size) != query.reverse,
            may_be_many: true,
            is_dear: query.recipient.is_some() || matches!(query.state, Some(State::Skipped | State::Pending)),
            look: query.look,
        };
        let archive = made.value(Value::Integer(archive.0));
        // The plus keeps SQLite from driving by the team, which holds nearly everything; the array, PostgreSQL.
        made.of_attachment.push(if is_postgres {
            format!("+a.team_id = ANY (ARRAY(SELECT id FROM teams WHERE archive_id = {archive}))")
        } else {
            format!("+a.team_id IN (SELECT id FROM teams WHERE archive_id = {archive})")
        });
        made.attachment_conditions(query);
        made.entry_conditions(query);
        let words = made.words(query)?;
        made.choose_driver(query, words);
        Some(made)
    }

    /// Keeps a parameter, and gives its name.
    fn value(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("?{}", self.values.len())
    }

    fn attachment_conditions(&mut self, query: &FindQuery) {
        if let Some(team) = query.team {
            let team = self.value(Value::Integer(team.0));
            self.of_attachment.push(format!("+a.team_id = {team}"));
        }
        if let Some(state) = query.state {
            self.of_attachment.push(format!("a.state = '{}'", state.as_str()));
            if matches!(state, State::Failed | State::Quarantined) {
                // As the partial index has it: only so does it serve.
                self.of_attachment.push("a.state IN ('failed', 'quarantined')".into());
            }
        }
        if let Some((low, high)) = query.digests {
            let low = self.value(Value::Bytes(low.as_bytes().to_vec()));
            let high = self.value(Value::Bytes(high.as_bytes().to_vec()));
            self.of_attachment.push(format!("a.sha256 BETWEEN {low} AND {high}"));
        }
    }

    fn entry_conditions(&mut self, query: &FindQuery) {
        if let Some(since) = query.since {
            self.of_entry.push(format!("{{e}}.id >= {}", first_id(since)));
        }
        if let Some(until) = query.until {
            // What has no date is not before any.
            self.of_entry.push(format!("{{e}}.id >= {} AND {{e}}.id < {}", first_id(1), first_id(until)));
        }
        if let Some(larger) = query.larger {
            self.of_entry.push(format!("{{e}}.size_bytes > {}", i64::try_from(larger).unwrap_or(i64::MAX)));
        }
        if let Some(conversation) = &query.conversation {
            let conversation = self.value(Value::Text(conversation.clone()));
            self.of_entry.push(format!("{{e}}.conversation_id = {conversation}"));
        }
        for (pattern, columns) in [
            (&query.name, &["{e}.name"][..]),
            (&query.sender, &["{e}.sender"]),
            (&query.content_type, &["{e}.content_type", "{e}.sniffed_type"]),
        ] {
            if let Some(pattern) = pattern {
                let condition = self.globs(pattern, |glob| {
                    columns.iter().map(|column| glob.matches(column)).collect::<Vec<_>>().join(" OR ")
                });
                self.of_entry.push(condition);
            }
        }
        if let Some(pattern) = &query.recipient {
            // An address may stand alone, or behind a name. Letters beyond ASCII are compared as they are.
            let (value, receivers) = if self.is_postgres {
                ("p.value COLLATE \"C\"", "receivers(m.people) p ON true")
            } else {
                ("p.value", "json_each(m.people) k ON k.key IN ('to', 'cc') CROSS JOIN json_each(k.value) p ON true")
            };
            let condition = self.globs(pattern, |glob| {
                let alone = glob.matches(&format!("lower(trim({value}))"));
                format!("{alone} OR {}", glob.matches_in_brackets(&format!("lower({value})")))
            });
            self.of_entry.push(format!(
                "EXISTS (SELECT 1 FROM messages m CROSS JOIN {receivers} WHERE m.id = {{e}}.message_row AND ({condition}))"
            ));
        }
    }

    fn globs(&mut self, pattern: &GlobPattern, condition: impl Fn(&Glob) -> String) -> String {
        let (kind, globs) = if self.is_postgres {
            match pattern.postgres() {
                Postgres::Like(globs) => (&LIKE, globs),
                Postgres::Regular(globs) => (&REGULAR, globs),
            }
        } else {
            (&GLOB, pattern.sqlite())
        };
        let each: Vec<String> = globs
            .into_iter()
            .map(|glob| {
                let parameter = self.value(Value::Text(glob));
                condition(&Glob { kind, parameter })
            })
            .collect();
        format!("({})", each.join(" OR "))
    }

    /// The condition that an entry has the words that are asked for, with `{f}` for the index's alias, if one is of use;
    /// `None` where nothing can match.
    #[expect(clippy::option_option, reason = "no words are asked for, or none of them is one")]
    fn words(&mut self, query: &FindQuery) -> Option<Option<String>> {
        let mut parts = Vec::new();
        if !query.words.is_empty() {
            parts.push(Words { column: None, alternatives: vec![phrases(&query.words)?] });
        }
        if let Some(subject) = &query.subject {
            let phrases = phrases(std::slice::from_ref(subject))?;
            parts.push(Words { column: Some(Column::Subject), alternatives: vec![phrases] });
        }
        for (pattern, column) in
            [(&query.name, Column::Name), (&query.sender, Column::People), (&query.recipient, Column::People)]
        {
            if let Some(alternatives) = pattern.as_ref().and_then(GlobPattern::words) {
                parts.push(Words { column: Some(column), alternatives });
            }
        }
        if parts.is_empty() {
            return Some(None);
        }
        if !self.is_postgres {
            let each: Vec<String> = parts.iter().map(Words::sqlite).collect();
            let words = self.value(Value::Text(each.join(" AND ")));
            return Some(Some(format!("{{f}}.find_text MATCH {words}")));
        }
        let parts: Vec<(String, Vec<Vec<String>>)> = parts.iter().map(Words::postgres).collect::<Option<_>>()?;
        let each: Vec<&str> = parts.iter().map(|(lexemes, _)| lexemes.as_str()).collect();
        let words = self.value(Value::Text(each.join(" & ")));
        let mut conditions = vec![format!("{{f}}.words @@ CAST({words} AS TSQUERY)")];
        for patterns in parts.into_iter().flat_map(|(_, phrases)| phrases) {
            let any: Vec<String> = patterns
                .into_iter()
                .map(|pattern| format!("{{f}}.tokens LIKE {}", self.value(Value::Text(pattern))))
                .collect();
            conditions.push(format!("({})", any.join(" OR ")));
        }
        Some(Some(conditions.join(" AND ")))
    }

    fn choose_driver(&mut self, query: &FindQuery, words: Option<String>) {
        let few = query.digests.is_some() || matches!(query.state, Some(State::Failed | State::Quarantined));
        let few_entries = query.conversation.is_some();
        self.may_be_many = query.look != Some(u64::MAX) && !few && !few_entries;
        match words {
            // The full-text index gives its rows by id, so the first page of a date needs no sorting.
            Some(words) if !few && !few_entries => {
                self.from = if self.is_postgres {
                    "find_text f CROSS JOIN find_entries e ON e.id = f.id
                    CROSS JOIN attachments a ON a.id = e.attachment_row"
                } else {
                    "find_text f CROSS JOIN find_entries e ON e.id = f.rowid
                    CROSS JOIN attachments a ON a.id = e.attachment_row"
                };
                self.of_attachment.push(words.replace("{f}", "f"));
                let dates: Vec<String> = self
                    .of_entry
                    .iter()
                    .filter(|condition| condition.starts_with("{e}.id "))
                    .map(|condition| condition.replace("{e}.id", self.text_id()))
                    .collect();
                self.of_attachment.extend(dates);
                self.of_entry.push(format!("{{match}} {words}"));
            }
            words => {
                self.from = if few {
                    "attachments a CROSS JOIN find_entries e ON e.attachment_row = a.id"
                } else {
                    "find_entries e CROSS JOIN attachments a ON a.id = e.attachment_row"
                };
                if let Some(words) = words {
                    self.of_entry.push(self.has_words("{e}", &words));
                }
            }
        }
    }

    /// The conditions on an entry with this alias.
    fn entry(&self, alias: &str) -> Vec<String> {
        let is_driver = alias == "e";
        self.of_entry
            .iter()
            .filter_map(|condition| match condition.strip_prefix("{match} ") {
                // The driver has it already.
                Some(_) if is_driver => None,
                Some(words) => Some(self.has_words(alias, words)),
                None => Some(condition.replace("{e}", alias)),
            })
            .collect()
    }

    fn by_words(&self) -> bool {
        self.from.starts_with("find_text")
    }

    fn id(&self) -> &'static str {
        if self.by_words() { self.text_id() } else { "e.id" }
    }

    fn text_id(&self) -> &'static str {
        if self.is_postgres { "f.id" } else { "f.rowid" }
    }

    /// The condition that one entry has these words. It asks by id, as the list of all that have them may be long.
    fn has_words(&self, alias: &str, words: &str) -> String {
        let id = if self.is_postgres { "id" } else { "rowid" };
        format!("EXISTS (SELECT 1 FROM find_text x WHERE {} AND x.{id} = {alias}.id)", words.replace("{f}", "x"))
    }

    /// What sorts an entry with this alias.
    fn key_of(&self, alias: &str) -> Option<String> {
        self.key.map(|key| key.replace("{e}", alias))
    }

    fn sorted(&self) -> String {
        let order = if self.descending { "DESC" } else { "ASC" };
        let id = self.id();
        self.key_of("e").map_or_else(|| format!("{id} {order}"), |key| format!("{key} {order}, e.id {order}"))
    }

    /// Whether candidates are looked at in the order of the answer. Words have no other order than that of dates: the
    /// newest are looked at, and sorted.
    pub(super) fn looks_in_order(&self) -> bool {
        !self.by_words() || self.key.is_none()
    }

    /// Looks for the last candidate behind `behind` that is to be looked at; finds none if all are few.
    pub(super) fn end_of_look(&self, behind: Option<&Position>) -> Option<Ready> {
        self.may_be_many.then(|| {
            let usual = match self.key {
                _ if self.is_dear => LOOK_ELSEWHERE,
                _ if self.by_words() => LOOK_BY_WORDS,
                Some(_) => LOOK_ELSEWHERE,
                None => LOOK_BY_DATE,
            };
            let in_order = self.looks_in_order();
            let sorted = if in_order { self.sorted() } else { format!("{} DESC", self.text_id()) };
            self.candidates(
                behind.filter(|_| in_order),
                &sorted,
                self.look.unwrap_or(usual),
                self.key.is_none() || self.by_words(),
            )
        })
    }

    /// Looks whether the dates that are asked for hold too much to sort; to be used only where it has dates, no words,
    /// and another order.
    pub(super) fn many_dates(&self) -> Option<Ready> {
        let has_dates = self.of_entry.iter().any(|condition| condition.starts_with("{e}.id "));
        let is_of_use = self.may_be_many && has_dates && !self.by_words() && self.key.is_some();
        is_of_use.then(|| self.candidates(None, "e.id", self.look.unwrap_or(LOOK_BY_WORDS), true))
    }

    /// Reads the dates that are asked for, and sorts what matches.
    pub(super) fn drive_by_date(&mut self) {
        self.may_be_many = false;
        self.from = "find_entries e NOT INDEXED CROSS JOIN attachments a ON a.id = e.attachment_row";
    }

    fn candidates(&self, behind: Option<&Position>, sorted: &str, skipped: u64, with_dates: bool) -> Ready {
        let (mut values, id) = (self.values.clone(), self.id());
        let mut conditions = vec!["true".to_owned()];
        if self.by_words() {
            let of_words = self.of_attachment.iter().filter(|condition| condition.starts_with("f."));
            conditions.extend(of_words.cloned());
        } else if with_dates {
            let dates = self.of_entry.iter().filter(|condition| condition.starts_with("{e}.id "));
            conditions.extend(dates.map(|condition| condition.replace("{e}", "e")));
        }
        conditions.extend(behind.map(|position| self.beside(position, self.after(), &mut values)));
        let text = format!(
            "-- name: find_end
            SELECT group_concat(CAST(id AS TEXT), ',') FROM (SELECT {id} AS id FROM {} WHERE {} ORDER BY {sorted} LIMIT 1 OFFSET {skipped}) last",
            if self.by_words() { "find_text f" } else { "find_entries e" },
            conditions.join(" AND "),
        );
        Ready::of(text, values)
    }

    fn after(&self) -> &'static str {
        if self.descending { "<" } else { ">" }
    }

    /// The condition that an entry stands on that side of `position`.
    fn beside(&self, position: &Position, sign: &str, values: &mut Vec<Value>) -> String {
        match self.key_of("e").zip(position.keys.as_ref()) {
            Some((key, (name, sender, size))) => {
                values.push(match self.sort {
                    FindSort::Sender => Value::Text(sender.clone()),
                    FindSort::Size => Value::Integer(*size),
                    FindSort::Name | FindSort::Date => Value::Text(name.clone()),
                });
                let mut value = format!("?{}", values.len());
                if key.starts_with("left(") {
                    value = format!("left({value}, 600)");
                }
                format!("({key}, e.id) {sign} ({value}, {})", position.id)
            }
            None => format!("{} {sign} {}", self.id(), position.id),
        }
    }

    /// Of the entries that match, stand behind `behind`, and not behind `end`: at most `limit`.
    pub(super) fn matches(&self, behind: Option<&Position>, end: Option<&Position>, limit: u64) -> Ready {
        let mut values = self.values.clone();
        let before = if self.descending { ">" } else { "<" };
        let mut conditions = self.of_attachment.clone();
        conditions.extend(self.entry("e"));
        // An attachment of several messages is shown with the first that matches.
        let is_before = match self.key_of("o").zip(self.key_of("e")) {
            Some((other, this)) => format!("({other}, o.id) {before} ({this}, e.id)"),
            None => format!("o.id {before} e.id"),
        };
        let mut other = vec!["o.attachment_row = e.attachment_row".to_owned(), is_before];
        other.extend(self.entry("o"));
        conditions
            .push(format!("(e.shared = 0 OR NOT EXISTS (SELECT 1 FROM find_entries o WHERE {}))", other.join(" AND ")));
        conditions.extend(behind.map(|position| self.beside(position, self.after(), &mut values)));
        conditions.extend(end.map(|position| {
            if self.looks_in_order() {
                self.beside(position, if self.descending { ">=" } else { "<=" }, &mut values)
            } else {
                format!("{} >= {}", self.text_id(), position.id)
            }
        }));
        let text = format!(
            "-- name: find
            SELECT group_concat(CAST(id AS TEXT), ',') FROM
                (SELECT {} AS id FROM {} WHERE {} ORDER BY {} LIMIT {}) found",
            self.id(),
            self.from,
            conditions.join("\n                    AND "),
            self.sorted(),
            i64::try_from(limit).unwrap_or(i64::MAX)
        );
        Ready::of(text, values)
    }
}

/// How an engine says that a text is like a pattern.
#[derive(Debug)]
struct Kind {
    operator: &'static str,
    /// What stands before and behind a pattern that is the whole text, and one that is in angle brackets.
    whole: (&'static str, &'static str),
    bracketed: (&'static str, &'static str),
}

const GLOB: Kind = Kind { operator: "GLOB", whole: ("", ""), bracketed: ("*<", ">*") };
const LIKE: Kind = Kind { operator: "LIKE", whole: ("", ""), bracketed: ("%<", ">%") };
const REGULAR: Kind = Kind { operator: "~", whole: ("^", "$"), bracketed: ("<", ">") };

/// A pattern that is a parameter.
struct Glob {
    kind: &'static Kind,
    parameter: String,
}

impl Glob {
    fn matches(&self, text: &str) -> String {
        self.says(text, self.kind.whole)
    }

    fn matches_in_brackets(&self, text: &str) -> String {
        self.says(text, self.kind.bracketed)
    }

    fn says(&self, text: &str, (before, behind): (&str, &str)) -> String {
        let Self { kind, parameter } = self;
        if before.is_empty() {
            return format!("{text} {} {parameter}", kind.operator);
        }
        format!("{text} {} ('{before}' || {parameter} || '{behind}')", kind.operator)
    }
}
