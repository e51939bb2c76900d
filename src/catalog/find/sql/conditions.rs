//! What a query asks of an entry and of its attachment, as conditions of SQL.

use super::{Statement, Value};
use crate::catalog::State;
use crate::catalog::find::entries::first_id;
use crate::catalog::find::glob::Postgres;
use crate::catalog::find::text::{Column, Words, phrases};
use crate::catalog::find::{FindQuery, GlobPattern};

impl Statement {
    /// Keeps a parameter, and gives its name.
    pub(super) fn value(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("?{}", self.values.len())
    }

    pub(super) fn attachment_conditions(&mut self, query: &FindQuery) {
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

    pub(super) fn entry_conditions(&mut self, query: &FindQuery) {
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
    pub(super) fn words(&mut self, query: &FindQuery) -> Option<Option<String>> {
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
