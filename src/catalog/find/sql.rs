//! The statements of `find`. What drives them is chosen here, by what is asked for, and kept by CROSS JOIN: SQLite knows
//! no figures of these tables. PostgreSQL does, and chooses itself whether words are looked up or dates are walked along.

mod conditions;

use std::collections::HashSet;

use super::{ArchiveRow, FindQuery, FindSort, State};

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
