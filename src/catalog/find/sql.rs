//! The statements of `find`. What drives them is chosen here, by what is asked for, and kept by CROSS JOIN: SQLite knows
//! no figures of these tables.

use super::entries::first_id;
use super::{ArchiveRow, FindQuery, FindSort, GlobPattern, State, text};

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

/// The place of an entry in every order: name, sender and size, where they are known.
#[derive(Debug)]
pub(super) struct Position {
    pub(super) id: i64,
    pub(super) keys: Option<(String, String, i64)>,
}

/// A query as SQL, but for the page.
#[derive(Debug)]
pub(super) struct Statement {
    from: &'static str,
    /// Conditions on an entry, whose alias is written `{e}`.
    of_entry: Vec<String>,
    /// Conditions on its attachment.
    of_attachment: Vec<String>,
    values: Vec<Value>,
    /// The column that sorts, without its alias; none sorts by id.
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
    pub(super) fn of(archive: ArchiveRow, query: &FindQuery) -> Option<Self> {
        let mut made = Self {
            from: "",
            of_entry: Vec::new(),
            of_attachment: Vec::new(),
            values: Vec::new(),
            key: match query.sort {
                FindSort::Date => None,
                FindSort::Name => Some("name"),
                FindSort::Size => Some("size_bytes"),
                FindSort::Sender => Some("sender"),
            },
            sort: query.sort,
            descending: matches!(query.sort, FindSort::Date | FindSort::Size) != query.reverse,
            may_be_many: true,
            is_dear: query.recipient.is_some() || matches!(query.state, Some(State::Skipped | State::Pending)),
            look: query.look,
        };
        let archive = made.value(Value::Integer(archive.0));
        // The plus keeps SQLite from driving by the team, which holds nearly everything.
        made.of_attachment.push(format!("+a.team_id IN (SELECT id FROM teams WHERE archive_id = {archive})"));
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
                    columns.iter().map(|column| format!("{column} GLOB {glob}")).collect::<Vec<_>>().join(" OR ")
                });
                self.of_entry.push(condition);
            }
        }
        if let Some(pattern) = &query.recipient {
            // An address may stand alone, or behind a name.
            let condition = self.globs(pattern, |glob| {
                format!("lower(trim(p.value)) GLOB {glob} OR lower(p.value) GLOB '*<' || {glob} || '>*'")
            });
            self.of_entry.push(format!(
                "EXISTS (SELECT 1 FROM messages m CROSS JOIN json_each(m.people) k CROSS JOIN json_each(k.value) p
                    WHERE m.id = {{e}}.message_row AND k.key IN ('to', 'cc') AND ({condition}))"
            ));
        }
    }

    fn globs(&mut self, pattern: &GlobPattern, condition: impl Fn(&str) -> String) -> String {
        let each: Vec<String> = pattern
            .sqlite()
            .into_iter()
            .map(|glob| {
                let glob = self.value(Value::Text(glob));
                condition(&glob)
            })
            .collect();
        format!("({})", each.join(" OR "))
    }

    /// The full-text query, as a parameter, if one is of use; `None` where nothing can match.
    #[expect(clippy::option_option, reason = "no words are asked for, or none of them is one")]
    fn words(&mut self, query: &FindQuery) -> Option<Option<String>> {
        let mut parts = Vec::new();
        if !query.words.is_empty() {
            parts.push(text::query(&query.words)?);
        }
        if let Some(subject) = &query.subject {
            parts.push(format!("(subject : {})", text::query(std::slice::from_ref(subject))?));
        }
        for (pattern, column) in [(&query.name, "name"), (&query.sender, "people"), (&query.recipient, "people")] {
            if let Some(words) = pattern.as_ref().and_then(GlobPattern::words) {
                parts.push(format!("({column} : {words})"));
            }
        }
        if parts.is_empty() {
            return Some(None);
        }
        Some(Some(self.value(Value::Text(parts.join(" AND ")))))
    }

    fn choose_driver(&mut self, query: &FindQuery, words: Option<String>) {
        let few = query.digests.is_some() || matches!(query.state, Some(State::Failed | State::Quarantined));
        let few_entries = query.conversation.is_some();
        self.may_be_many = query.look != Some(u64::MAX) && !few && !few_entries;
        match words {
            // The full-text index gives its rows by id, so the first page of a date needs no sorting.
            Some(words) if !few && !few_entries => {
                self.from = "find_text f CROSS JOIN find_entries e ON e.id = f.rowid
                    CROSS JOIN attachments a ON a.id = e.attachment_row";
                self.of_attachment.push(format!("f.find_text MATCH {words}"));
                let dates: Vec<String> = self
                    .of_entry
                    .iter()
                    .filter(|condition| condition.starts_with("{e}.id "))
                    .map(|condition| condition.replace("{e}.id", "f.rowid"))
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
                    self.of_entry.push(has_words("{e}", &words));
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
                Some(words) => Some(has_words(alias, words)),
                None => Some(condition.replace("{e}", alias)),
            })
            .collect()
    }

    fn by_words(&self) -> bool {
        self.from.starts_with("find_text")
    }

    fn id(&self) -> &'static str {
        if self.by_words() { "f.rowid" } else { "e.id" }
    }

    fn sorted(&self) -> String {
        let order = if self.descending { "DESC" } else { "ASC" };
        let id = self.id();
        self.key.map_or_else(|| format!("{id} {order}"), |key| format!("e.{key} {order}, e.id {order}"))
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
            let sorted = if in_order { self.sorted() } else { "f.rowid DESC".into() };
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
        let mut conditions = vec!["TRUE".to_owned()];
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
            SELECT group_concat(id) FROM (SELECT {id} AS id FROM {} WHERE {} ORDER BY {sorted} LIMIT 1 OFFSET {skipped})",
            if self.by_words() { "find_text f" } else { "find_entries e" },
            conditions.join(" AND "),
        );
        Ready { text, values }
    }

    fn after(&self) -> &'static str {
        if self.descending { "<" } else { ">" }
    }

    /// The condition that an entry stands on that side of `position`.
    fn beside(&self, position: &Position, sign: &str, values: &mut Vec<Value>) -> String {
        match self.key.zip(position.keys.as_ref()) {
            Some((column, (name, sender, size))) => {
                values.push(match self.sort {
                    FindSort::Sender => Value::Text(sender.clone()),
                    FindSort::Size => Value::Integer(*size),
                    FindSort::Name | FindSort::Date => Value::Text(name.clone()),
                });
                format!("(e.{column}, e.id) {sign} (?{}, {})", values.len(), position.id)
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
        let is_before = match self.key {
            Some(key) => format!("(o.{key}, o.id) {before} (e.{key}, e.id)"),
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
                format!("f.rowid >= {}", position.id)
            }
        }));
        let text = format!(
            "-- name: find
            SELECT group_concat(id) FROM
                (SELECT {} AS id FROM {} WHERE {} ORDER BY {} LIMIT {})",
            self.id(),
            self.from,
            conditions.join("\n                    AND "),
            self.sorted(),
            i64::try_from(limit).unwrap_or(i64::MAX)
        );
        Ready { text, values }
    }
}

/// The condition that one entry has these words. It asks by id, as the list of all that have them may be long.
fn has_words(alias: &str, words: &str) -> String {
    format!("EXISTS (SELECT 1 FROM find_text x WHERE x.find_text MATCH {words} AND x.rowid = {alias}.id)")
}
