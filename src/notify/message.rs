//! One notification, and the forms that receivers take it in.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::condition::Condition;

/// What a notification says of its condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It has begun.
    Trouble,
    /// It lasts.
    Still,
    /// It is over.
    Recovered,
    /// It happened, once or more often.
    Happened,
}

impl Status {
    /// Its name, for machines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trouble => "trouble",
            Self::Still => "still",
            Self::Recovered => "recovered",
            Self::Happened => "happened",
        }
    }
}

/// One notification.
#[derive(Debug, Clone)]
pub struct Message {
    /// What it says of the condition.
    pub status: Status,
    /// The condition.
    pub condition: Condition,
    /// When it was made, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// When the trouble began, or the first of what it counts happened.
    pub since_ms: i64,
    /// How many happened; 1 for what lasts.
    pub count: u64,
    /// The reason, for people.
    pub detail: String,
}

impl Message {
    /// The sentence that it comes down to, without its full stop.
    pub fn title(&self) -> String {
        self.condition.title(self.status == Status::Recovered, self.count)
    }

    /// The JSON form. `dropped` is how many before it could not be kept for the receiver.
    pub(super) fn as_json(&self, id: &str, name: Option<&str>, dropped: u64) -> Value {
        json!({
            "v": 1,
            "id": id,
            "program": concat!("jellyjar ", env!("CARGO_PKG_VERSION")),
            "name": name,
            "status": self.status.name(),
            "condition": self.condition.kind.name(),
            "subject": self.condition.subject,
            "at": time(self.at_ms),
            "since": time(self.since_ms),
            "count": self.count,
            "title": self.title(),
            "detail": self.detail,
            "advice": self.advice(),
            "dropped": dropped,
        })
    }

    /// The form of Slack and its likes.
    pub(super) fn as_slack(&self, name: Option<&str>, dropped: u64) -> Value {
        let mark = match self.status {
            Status::Trouble => ":red_circle:",
            Status::Still => ":large_orange_circle:",
            Status::Recovered => ":large_green_circle:",
            Status::Happened => ":warning:",
        };
        let name = name.map(|name| format!(" ({})", escaped(name))).unwrap_or_default();
        let mut text = format!("{mark} *jellyjar{name}:* {}.", escaped(&self.title()));
        if matches!(self.status, Status::Still | Status::Recovered) {
            text.push_str(&format!(" It began at {}.", time(self.since_ms)));
        }
        if self.status != Status::Recovered && !self.detail.is_empty() {
            text.push_str(&format!("\n{}", escaped(&self.detail)));
        }
        if let Some(advice) = self.advice() {
            text.push_str(&format!("\n{}", escaped(advice)));
        }
        if dropped > 0 {
            text.push_str(&format!("\n{dropped} notifications before this one could not be delivered."));
        }
        json!({ "text": text })
    }

    fn advice(&self) -> Option<&'static str> {
        (self.status != Status::Recovered).then(|| self.condition.advice())
    }
}

/// A time to the second.
fn time(ms: i64) -> String {
    let at = Timestamp::from_second(ms.div_euclid(1000)).unwrap_or(Timestamp::UNIX_EPOCH);
    at.to_string()
}

/// Slack's three control characters ("Formatting text for app surfaces"): so that no name can make a link or call a
/// channel.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::Kind;

    fn message(status: Status, kind: Kind) -> Message {
        Message {
            status,
            condition: Condition::new(kind, "support"),
            at_ms: 1_795_000_000_999,
            since_ms: 1_794_996_400_000,
            count: 1,
            detail: "Jelly said <!channel> & 401".into(),
        }
    }

    #[test]
    fn the_json_form_says_everything() {
        let json = message(Status::Still, Kind::TeamPaused).as_json("01K", Some("Berlin"), 2);
        let text = serde_json::to_string_pretty(&json).unwrap();
        insta::assert_snapshot!(text.replace(env!("CARGO_PKG_VERSION"), "VERSION"), @r#"
        {
          "advice": "Webhooks are still taken in; nothing of the team is fetched meanwhile. If the token is refused, put a new one in its place.",
          "at": "2026-11-18T11:06:40Z",
          "condition": "team_paused",
          "count": 1,
          "detail": "Jelly said <!channel> & 401",
          "dropped": 2,
          "id": "01K",
          "name": "Berlin",
          "program": "jellyjar VERSION",
          "since": "2026-11-18T10:06:40Z",
          "status": "still",
          "subject": "support",
          "title": "team support is paused",
          "v": 1
        }
        "#);
    }

    #[test]
    fn the_slack_form_is_one_text_in_which_nothing_is_a_command() {
        let text = |status, kind| message(status, kind).as_slack(Some("a<b"), 0)["text"].as_str().unwrap().to_owned();
        insta::assert_snapshot!(text(Status::Trouble, Kind::TeamPaused), @r"
        :red_circle: *jellyjar (a&lt;b):* team support is paused.
        Jelly said &lt;!channel&gt; &amp; 401
        Webhooks are still taken in; nothing of the team is fetched meanwhile. If the token is refused, put a new one in its place.
        ");
        insta::assert_snapshot!(text(Status::Recovered, Kind::TeamPaused), @":large_green_circle: *jellyjar (a&lt;b):* team support is no longer paused. It began at 2026-11-18T10:06:40Z.");
        insta::assert_snapshot!(text(Status::Happened, Kind::Failed), @r"
        :warning: *jellyjar (a&lt;b):* an attachment of team support failed for good.
        Jelly said &lt;!channel&gt; &amp; 401
        `jellyjar failed` shows them; `jellyjar retry` tries again.
        ");
    }

    #[test]
    fn every_kind_has_words_of_its_own_that_name_the_subject() {
        let mut seen = std::collections::BTreeSet::new();
        for kind in Kind::ALL {
            assert_eq!(Kind::named(kind.name()), Some(kind));
            let condition = Condition::new(kind, "SUBJECT");
            for (is_over, count) in [(false, 1), (false, 3), (true, 1)] {
                if is_over && !kind.lasts() {
                    continue;
                }
                let title = condition.title(is_over, count);
                assert!(title.contains("SUBJECT") && !title.contains('{') && !title.ends_with('.'), "{title}");
                assert!(seen.insert(title.clone()) || kind.lasts() && count == 3, "{title} is there twice");
                assert!(kind.lasts() || count == 1 || title.contains('3'), "{title}");
            }
            assert!(condition.advice().ends_with('.'), "{}", condition.advice());
        }
    }
}
