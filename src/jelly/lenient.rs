//! Reads fields as they come: numbers where text is documented and the reverse, `null`, or nothing. What cannot be
//! understood counts as missing; the text as it came is kept beside it.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Text; numbers and booleans as they were written.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(text_of(&Value::deserialize(deserializer)?))
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A boolean, as such, as a word or as 0 or 1.
pub(super) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    let text = text_of(&Value::deserialize(deserializer)?);
    Ok(text.and_then(|text| match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }))
}

/// A whole number that is not negative.
pub(super) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(text_of(&Value::deserialize(deserializer)?).and_then(|text| text.trim().parse().ok()))
}

/// A value of its own shape.
pub(super) fn one<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).ok())
}

/// The elements of a list that can be read; a single value counts as a list of one.
pub(super) fn list<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(each(deserializer)?.into_iter().filter_map(|element| serde_json::from_value(element).ok()).collect())
}

/// Addresses: text, or objects with an `email`, an `address` or a `name`.
pub(super) fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let address = |value: Value| match &value {
        Value::Object(fields) => ["email", "address", "name"].iter().find_map(|key| text_of(fields.get(*key)?)),
        other => text_of(other),
    };
    Ok(each(deserializer)?.into_iter().filter_map(address).filter(|text| !text.is_empty()).collect())
}

fn each<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Value>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Null => Vec::new(),
        Value::Array(elements) => elements,
        single => vec![single],
    })
}
