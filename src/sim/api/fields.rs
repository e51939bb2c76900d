//! The fields of a request's body.

use serde_json::{Map, Value};

use super::super::http::Request;
use super::Refusal;

/// A JSON object that a client sent.
#[derive(Debug, Default)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a body. One that is not declared as JSON has no fields, so that what is required in it is blank.
    pub(super) fn read(request: &Request<'_>) -> Result<Self, Refusal> {
        let media_type = request.header("content-type").and_then(|value| value.split(';').next()).unwrap_or_default();
        if !media_type.trim().eq_ignore_ascii_case("application/json") || request.body.is_empty() {
            return Ok(Self::default());
        }
        match serde_json::from_slice(request.body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(Refusal::invalid("Request body must be a JSON object")),
            Err(_) => Err(Refusal::invalid("Request body is not valid JSON")),
        }
    }

    /// A field, also when it is null; `None` if it was not sent.
    pub(super) fn sent(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// A field that is neither missing nor null.
    pub(super) fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// A text; anything else than text, and one of blanks, is none.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.value(name)?.as_str().filter(|text| !text.trim().is_empty())
    }

    /// An id, sent as a number or as text; 404 for what cannot be one.
    pub(super) fn id(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let id = value.as_u64().or_else(|| value.as_str()?.parse().ok());
        id.map(Some).ok_or(Refusal::NotFound)
    }

    /// Addresses, sent as one text or as an array of them.
    pub(super) fn addresses(&self, name: &str, title: &str) -> Result<Option<Vec<String>>, Refusal> {
        let wrong = || Refusal::invalid(format!("{title} is invalid"));
        let texts: Vec<&Value> = match self.value(name) {
            None => return Ok(None),
            Some(Value::Array(values)) => values.iter().collect(),
            Some(value) => vec![value],
        };
        let address = |value: &Value| {
            value.as_str().map(str::trim).filter(|text| is_address(text)).map(str::to_owned).ok_or_else(wrong)
        };
        texts.into_iter().map(address).collect::<Result<_, _>>().map(Some)
    }
}

/// Whether a text looks like an email address, perhaps with a name before it.
pub(super) fn is_address(text: &str) -> bool {
    let bare = match text.rsplit_once('<') {
        Some((_, rest)) => rest.strip_suffix('>').unwrap_or_default(),
        None => text,
    };
    let has_blank = bare.contains(|sign: char| sign.is_whitespace() || sign.is_control());
    bare.split_once('@')
        .is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@') && !has_blank)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_other_text() {
        for good in ["a@b", "Zoë <zoe@b.example>", "a+b@c.example"] {
            assert!(is_address(good), "{good}");
        }
        for bad in ["", "a", "@", "a@", "@b", "a b@c", "a@b@c", "Name <a@b", "a@b\n.example"] {
            assert!(!is_address(bad), "{bad:?}");
        }
    }

    #[test]
    fn ids_come_as_numbers_or_text() {
        let fields = Fields(serde_json::from_str(r#"{"a":42,"b":"42","c":null,"d":"x","e":-1}"#).unwrap());
        assert_eq!((fields.id("a").unwrap(), fields.id("b").unwrap()), (Some(42), Some(42)));
        assert_eq!((fields.id("c").unwrap(), fields.id("z").unwrap()), (None, None));
        assert!(fields.id("d").is_err() && fields.id("e").is_err());
    }
}
