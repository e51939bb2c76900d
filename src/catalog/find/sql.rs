//! The statements of `find`. What drives them is chosen here, by what is asked for, and kept by CROSS JOIN: SQLite knows
//! no figures of these tables.

use super::entries::first_id;
use super::{ArchiveRow, FindQuery, FindSort, GlobPattern, State, text};

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
            // Written out: only so do the partial indexes serve. The words are ours.
            self.of_attachment.push(format!("a.state = '{}'", state.as_str()));
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
                    self.of_entry
                        .push(format!("{{e}}.id IN (SELECT rowid FROM find_text WHERE find_text MATCH {words})"));
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
                Some(words) => {
                    Some(format!("{alias}.id IN (SELECT rowid FROM find_text WHERE find_text MATCH {words})"))
                }
                None => Some(condition.replace("{e}", alias)),
            })
            .collect()
    }

    /// Of the first entries that match, at most `limit`.
    pub(super) fn first(&self, limit: u64) -> Ready {
        self.ready(None, limit)
    }

    /// Of the entries that match and stand behind `position`, at most `limit`.
    pub(super) fn behind(&self, position: Position, limit: u64) -> Ready {
        self.ready(Some(position), limit)
    }

    fn ready(&self, behind: Option<Position>, limit: u64) -> Ready {
        let mut values = self.values.clone();
        let (before, after, order) = if self.descending { (">", "<", "DESC") } else { ("<", ">", "ASC") };
        let by_words = self.from.starts_with("find_text");
        let id = if by_words { "f.rowid" } else { "e.id" };
        let sorted = match self.key {
            Some(key) => format!("e.{key} {order}, e.id {order}"),
            None => format!("{id} {order}"),
        };
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
        if let Some(position) = behind {
            let key = position.keys.zip(self.key).map(|((name, sender, size), column)| {
                values.push(match self.sort {
                    FindSort::Sender => Value::Text(sender),
                    FindSort::Size => Value::Integer(size),
                    FindSort::Name | FindSort::Date => Value::Text(name),
                });
                (column, values.len())
            });
            conditions.push(match key {
                Some((column, number)) => format!("(e.{column}, e.id) {after} (?{number}, {})", position.id),
                None => format!("{id} {after} {}", position.id),
            });
        }
        let text = format!(
            "-- name: find
            SELECT group_concat(id) FROM
                (SELECT {id} AS id FROM {} WHERE {} ORDER BY {sorted} LIMIT {})",
            self.from,
            conditions.join("\n                    AND "),
            i64::try_from(limit).unwrap_or(i64::MAX)
        );
        Ready { text, values }
    }
}
