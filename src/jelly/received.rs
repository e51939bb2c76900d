//! What the service sent: read, and as it came.

use std::fmt;
use std::ops::Deref;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::refusal::{printable, without};
use super::{ApiError, JellyClient};

/// A value that was read, with the JSON text that it was read from, unchanged: what a payload's reader is to be given.
/// Dereferences to the value. `Debug` shows the size only.
#[derive(Clone)]
pub struct Received<T> {
    value: T,
    raw: Box<RawValue>,
}

impl<T> Received<T> {
    /// The text, exactly as the service wrote it.
    ///
    /// ```no_run
    /// # use jellyjar::jelly::{ApiError, Conversation, Received};
    /// fn keep(conversation: &Received<Conversation>) -> &[u8] {
    ///     conversation.raw().get().as_bytes()
    /// }
    /// ```
    pub fn raw(&self) -> &RawValue {
        &self.raw
    }
}

impl<T: DeserializeOwned> Received<T> {
    /// Reads a text.
    pub(super) fn read(raw: &RawValue) -> Result<Self, serde_json::Error> {
        Ok(Self { value: serde_json::from_str(raw.get())?, raw: raw.to_owned() })
    }
}

impl<T> Deref for Received<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> fmt::Debug for Received<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Received({} bytes)", self.raw.get().len())
    }
}

/// What a request that makes or changes something was answered with.
#[derive(Debug, Clone)]
pub struct Written<T> {
    /// Whether something was made, rather than there already. Each call tells what that means for it.
    pub is_new: bool,
    /// What is there now.
    pub resource: Received<T>,
}

impl JellyClient {
    /// Reads the one thing that an answer holds.
    pub(super) fn received<T: DeserializeOwned>(
        &self,
        raw: &RawValue,
        expected: &'static str,
    ) -> Result<Received<T>, ApiError> {
        Received::read(raw).map_err(|error| self.misread(&error, expected))
    }

    /// JSON of another shape than expected.
    pub(super) fn misread(&self, error: &serde_json::Error, expected: &'static str) -> ApiError {
        let found = format!("JSON that cannot be read ({})", self.reason(error));
        ApiError::UnexpectedAnswer { expected, found }
    }

    /// Why JSON could not be read. Such texts can repeat what stands in it.
    pub(super) fn reason(&self, error: &serde_json::Error) -> String {
        printable(&without(error.to_string(), &[self.token()]))
    }
}
