//! The people of a message, as the catalog keeps them in one column.

use serde::{Deserialize, Serialize};

use crate::model::Message;

/// The addresses of a message, as they came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct People {
    /// The senders.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
    /// The receivers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<String>,
    /// The copied receivers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cc: Vec<String>,
}

impl People {
    /// Those of a message as a column; `None` where it names nobody.
    pub fn column(message: &Message) -> Option<String> {
        #[derive(Serialize)]
        struct Column<'a> {
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            from: &'a [String],
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            to: &'a [String],
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            cc: &'a [String],
        }
        let Message { from, to, cc, .. } = message;
        let nobody = from.is_empty() && to.is_empty() && cc.is_empty();
        (!nobody).then(|| serde_json::to_string(&Column { from, to, cc }).expect("lists of texts always serialise"))
    }

    /// Reads the column. A row of an older program has the first sender alone, in a column of its own.
    pub fn read(column: Option<&str>, sender: Option<&str>) -> Self {
        column
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_else(|| Self { from: sender.map(str::to_owned).into_iter().collect(), ..Self::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_column_gives_back_the_people() {
        let message = Message { from: vec!["a\"\u{0}\n".into()], cc: vec!["c".into()], ..Message::default() };
        let column = People::column(&message);
        let people = People::read(column.as_deref(), None);
        assert_eq!((people.from, people.to, people.cc), (message.from, message.to, message.cc));
        assert_eq!(People::column(&Message::default()), None);
    }

    #[test]
    fn a_row_of_an_older_program_has_its_sender() {
        assert_eq!(People::read(None, Some("a")).from, ["a"]);
    }
}
