//! What an exchange can end with, and what is to be done about it.

use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use reqwest::Response;
use serde_json::Value;

use crate::http::{Decision, TransportFailure, classify, read_body, retry_after};

/// The wait after a 429 that names none.
const DEFAULT_WAIT: Duration = Duration::from_mins(1);
/// Up to this long a 429 speaks of the address's 5-minute window; beyond, of the team's day.
const LONGEST_WINDOW_WAIT: Duration = Duration::from_mins(5);
/// The most of the service's own words that a message repeats, in characters.
const MAX_WORDS: usize = 200;

/// Why an exchange gave no link. The texts are the service's own words, made safe to print; they hold no token, link
/// or raw id.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ExchangeError {
    /// 401.
    #[error("Jelly refused the API token ({0}); check the token, then run again")]
    Unauthorized(String),
    /// 403.
    #[error("Jelly refused access to this attachment (403: {0})")]
    Forbidden(String),
    /// 404.
    #[error("Jelly knows no such attachment (404: {0})")]
    NotFound(String),
    /// 404, but of the endpoint: the base URL is wrong.
    #[error("Jelly knows no such endpoint: the base URL is wrong; it ends with /api, as in the default")]
    WrongEndpoint,
    /// 422 and every other 4xx.
    #[error("Jelly rejected the request ({status}: {words})")]
    Unprocessable {
        /// The HTTP status.
        status: u16,
        /// What the service said.
        words: String,
    },
    /// 429.
    #[error("Jelly's request limit is reached; it asks to wait {} s ({words})", retry_after.as_secs())]
    RateLimited {
        /// How long to wait: one second to one day; a minute where the answer does not say.
        retry_after: Duration,
        /// What the service said.
        words: String,
    },
    /// 5xx.
    #[error("Jelly failed ({status}: {words})")]
    Server {
        /// The HTTP status.
        status: u16,
        /// What the service said.
        words: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// Neither a redirect to a link nor an error: a page, an empty success, a broken `Location`.
    #[error("Jelly answered with {0} where a redirect to the file was expected; is the base URL right?")]
    UnexpectedAnswer(String),
    /// The link, or the API itself, leads where the address rules forbid.
    #[error("the target is refused: {0}")]
    RefusedTarget(String),
    /// Nothing came in time.
    #[error("Jelly did not answer in time ({0})")]
    Timeout(String),
    /// No connection, or a reset.
    #[error("cannot reach Jelly ({0})")]
    Connection(String),
}

impl ExchangeError {
    /// What to do next.
    pub fn decision(&self) -> Decision {
        match self {
            Self::Unauthorized(_) => Decision::PauseTeam,
            Self::Forbidden(_) => Decision::ProbeMembers,
            Self::NotFound(_) => Decision::RetryGone,
            // Every request would end so: nothing is tried again until somebody has looked.
            Self::WrongEndpoint => Decision::HoldOff(Duration::from_mins(1)),
            Self::Unprocessable { .. } => Decision::Fail,
            Self::RateLimited { retry_after, .. } if *retry_after <= LONGEST_WINDOW_WAIT => {
                Decision::PauseEgressGroup(*retry_after)
            }
            Self::RateLimited { retry_after, .. } => Decision::PauseTeamFor(*retry_after),
            Self::Server { retry_after, .. } => Decision::RetryAfter(*retry_after),
            // All of these also come from what stands between us and Jelly (a login page, a name server): they pass.
            Self::UnexpectedAnswer(_) | Self::RefusedTarget(_) | Self::Timeout(_) | Self::Connection(_) => {
                Decision::RetryAfter(None)
            }
        }
    }

    /// Reads an answer that is not the expected one; `secrets` are cut from what it says.
    pub(super) async fn from_answer(mut response: Response, now: Timestamp, secrets: &[&str]) -> Self {
        let status = response.status();
        let wait = retry_after(response.headers(), now);
        let body = read_body(&mut response).await;
        let is_page = body.trim_ascii_start().starts_with(b"<");
        let words = words(&body, secrets);
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthorized(words),
            StatusCode::FORBIDDEN => Self::Forbidden(words),
            // The service tells the two apart, and always answers in JSON.
            StatusCode::NOT_FOUND if words.eq_ignore_ascii_case("endpoint not found") => Self::WrongEndpoint,
            StatusCode::NOT_FOUND if is_page => Self::UnexpectedAnswer("status 404 and a page".into()),
            StatusCode::NOT_FOUND => Self::NotFound(words),
            StatusCode::TOO_MANY_REQUESTS => Self::RateLimited { retry_after: wait.unwrap_or(DEFAULT_WAIT), words },
            StatusCode::REQUEST_TIMEOUT => Self::Timeout(format!("408: {words}")),
            _ if status.is_client_error() => Self::Unprocessable { status: status.as_u16(), words },
            _ if status.is_server_error() => Self::Server { status: status.as_u16(), words, retry_after: wait },
            _ => Self::UnexpectedAnswer(format!("status {} ({words})", status.as_u16())),
        }
    }
}

impl From<reqwest::Error> for ExchangeError {
    fn from(error: reqwest::Error) -> Self {
        let (kind, text) = classify(error);
        match kind {
            TransportFailure::Refused => Self::RefusedTarget(text),
            TransportFailure::Timeout => Self::Timeout(text),
            TransportFailure::Connection => Self::Connection(text),
        }
    }
}

/// What the service says in an error body (`{"error": …}` or `{"errors": […]}`), made safe to print.
fn words(body: &[u8], secrets: &[&str]) -> String {
    let text = match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(mut fields)) => match fields.remove("error").or_else(|| fields.remove("errors")) {
            Some(Value::String(text)) => text,
            Some(Value::Array(texts)) => texts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; "),
            _ => "no error message".to_owned(),
        },
        Ok(_) => "no error message".to_owned(),
        Err(_) if body.is_empty() => "no body".to_owned(),
        Err(_) => "the body is not JSON".to_owned(),
    };
    // A secret of a few signs is a word like any other.
    let cut = |text: String, secret: &&str| if secret.len() < 4 { text } else { text.replace(secret, "[cut]") };
    printable(&secrets.iter().fold(text, cut))
}

/// At most 200 printable characters; words that look like links or tokens (long, without a space) are cut out.
fn printable(text: &str) -> String {
    let secretive = |word: &str| word.contains("://") || word.contains("eyJ") || word.len() > 40 || word.contains("--");
    let safe = |c: char| {
        !c.is_control()
            && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    let mut words: Vec<String> = Vec::new();
    let mut after_bearer = false;
    for word in text.split_whitespace() {
        let cut = after_bearer || secretive(word);
        after_bearer = word.eq_ignore_ascii_case("bearer") || word.eq_ignore_ascii_case("basic");
        words.push(if cut { "[cut]".to_owned() } else { word.chars().filter(|c| safe(*c)).collect() });
    }
    words.join(" ").chars().take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_error_shapes_are_read() {
        assert_eq!(words(br#"{"error":"Invalid API token"}"#, &[]), "Invalid API token");
        assert_eq!(words(br#"{"errors":["Name can't be blank","Too long"]}"#, &[]), "Name can't be blank; Too long");
        assert_eq!(words(b"<html>", &[]), "the body is not JSON");
        assert_eq!(words(b"", &[]), "no body");
        assert_eq!(words(br#"{"error":7}"#, &[]), "no error message");
        assert_eq!(words(b"[]", &[]), "no error message");
        assert_eq!(words(br#"{"error":"no file id-77."}"#, &["id-77", "n"]), "no file [cut].");
    }

    #[test]
    fn the_services_words_are_made_safe_to_print() {
        let text =
            printable("a\u{1b}[31m b\u{202e} see https://x.example/?sig=1 eyJfcmFpbHMi Authorization: Bearer t0k");
        assert_eq!(text, "a[31m b see [cut] [cut] Authorization: Bearer [cut]");
        assert_eq!(printable(&"word ".repeat(100)).chars().count(), 200);
        assert_eq!(printable(&"x".repeat(41)), "[cut]");
    }

    #[test]
    fn a_long_wait_is_the_teams_day_and_a_short_one_the_window() {
        let limited =
            |seconds| ExchangeError::RateLimited { retry_after: Duration::from_secs(seconds), words: String::new() };
        assert_eq!(limited(300).decision(), Decision::PauseEgressGroup(Duration::from_mins(5)));
        assert_eq!(limited(301).decision(), Decision::PauseTeamFor(Duration::from_secs(301)));
    }
}
