//! Lists, whole or cut into pages.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use futures::Stream;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::answer::Answer;
use super::{ApiError, ApiRequest, JellyClient, Received};
use crate::model::InvalidId;

/// The most entries of a page, and what is asked for unless less is wanted.
pub const MAX_PAGE_ENTRIES: u8 = 100;

/// Where a list goes on: opaque, and fit to be kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cursor(String);

impl Cursor {
    /// The longest cursor that is accepted, in bytes: it must fit a request's URL.
    pub const MAX_BYTES: usize = 4096;

    /// The cursor as the service wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Cursor {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        if text.is_empty() || text.len() > Self::MAX_BYTES {
            let length = text.len();
            return Err(InvalidId(format!("the cursor is {length} bytes long; 1 to {} are allowed", Self::MAX_BYTES)));
        }
        Ok(Self(text))
    }
}

impl std::str::FromStr for Cursor {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        text.to_owned().try_into()
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> Self {
        cursor.0
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One page of a list.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// Where it began; `None` is the list's beginning.
    pub cursor: Option<Cursor>,
    /// Its entries, in order.
    pub entries: Vec<Received<T>>,
    /// The entries that could not be read. A payload's reader may be able to: hand it their text all the same.
    pub unreadable: Vec<Unreadable>,
    /// Where the next page begins; `None` at the end. To go on later, keep this once the entries are dealt with.
    pub next_cursor: Option<Cursor>,
    /// The service's clock, to the second, where the answer shows it.
    pub served_at: Option<Timestamp>,
}

impl<T> Page<T> {
    /// How many entries it has, whether they could be read or not.
    pub fn len(&self) -> usize {
        self.entries.len() + self.unreadable.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An entry of a list that could not be read.
#[derive(Clone)]
pub struct Unreadable {
    /// Its text, exactly as the service wrote it.
    pub raw: Box<RawValue>,
    /// Why; safe to print.
    pub reason: String,
}

impl fmt::Debug for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unreadable({} bytes: {})", self.raw.get().len(), self.reason)
    }
}

impl JellyClient {
    /// Reads one page of a list that stands under `key`; `asked` entries were asked for.
    pub(super) async fn page<T: DeserializeOwned>(
        &self,
        request: &ApiRequest,
        key: &'static str,
        cursor: Option<&Cursor>,
        asked: u8,
    ) -> Result<Page<T>, ApiError> {
        let Answer { status, json, served_at } = self.call(request).await?;
        let json = json.ok_or(ApiError::NotJson { status: status.as_u16(), found: "an empty body" })?;
        let unexpected = |found: String| ApiError::UnexpectedAnswer { expected: "a page of a list", found };
        let fields: BTreeMap<String, &RawValue> =
            serde_json::from_str(json.get()).map_err(|error| self.misread(&error, "a page of a list"))?;
        let entries = fields.get(key).ok_or_else(|| unexpected(format!("JSON without {key:?}")))?;
        let entries: Vec<&RawValue> =
            serde_json::from_str(entries.get()).map_err(|error| self.misread(&error, "a page of a list"))?;
        let next_cursor = match fields.get("next_cursor").map(|raw| serde_json::from_str::<Value>(raw.get())) {
            None if entries.len() >= usize::from(asked) => {
                // Taken for the last page, everything behind it would be lost without a word.
                return Err(unexpected("a full page without \"next_cursor\"".into()));
            }
            None | Some(Ok(Value::Null)) => None,
            Some(Ok(Value::String(text))) if text.is_empty() => None,
            Some(Ok(Value::String(text))) => Some(Cursor::try_from(text)?),
            Some(Ok(Value::Number(number))) => Some(Cursor::try_from(number.to_string())?),
            Some(_) => return Err(unexpected("a \"next_cursor\" that is neither text nor null".into())),
        };
        if next_cursor.is_some() && next_cursor.as_ref() == cursor {
            return Err(ApiError::CursorLoop { pages: 1 });
        }
        let cursor = cursor.cloned();
        let mut page = Page { cursor, entries: Vec::new(), unreadable: Vec::new(), next_cursor, served_at };
        for raw in entries {
            match Received::read(raw) {
                Ok(entry) => page.entries.push(entry),
                Err(error) => {
                    page.unreadable.push(Unreadable { raw: raw.to_owned(), reason: self.reason(&error) });
                }
            }
        }
        Ok(page)
    }

    /// Reads a list that comes whole: bare, or as the field `key` of an object.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        request: &ApiRequest,
        key: &'static str,
    ) -> Result<Vec<Received<T>>, ApiError> {
        self.list_of(&self.json(request).await?, key, request.what)
    }

    /// The same, of an answer that is there.
    pub(super) fn list_of<T: DeserializeOwned>(
        &self,
        json: &RawValue,
        key: &'static str,
        expected: &'static str,
    ) -> Result<Vec<Received<T>>, ApiError> {
        let misread = |error: serde_json::Error| self.misread(&error, expected);
        let unexpected = |found: String| ApiError::UnexpectedAnswer { expected, found };
        let mut text = json.get();
        if text.starts_with('{') {
            let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text).map_err(misread)?;
            if fields.get("next_cursor").is_some_and(|next| next.get() != "null") {
                return Err(unexpected("a list in pages".into()));
            }
            text = fields.get(key).ok_or_else(|| unexpected(format!("JSON without {key:?}")))?.get();
        }
        let entries: Vec<&RawValue> = serde_json::from_str(text).map_err(misread)?;
        entries.into_iter().map(|raw| self.received(raw, expected)).collect()
    }
}

/// Follows a list, and notices where it leads nowhere. That cursors differ does not tell that anything comes, and each page costs
/// a request.
#[derive(Debug, Default)]
pub struct Trail {
    /// Fingerprints of the cursors so far.
    seen: HashSet<u64>,
    pages: u64,
    /// Pages without an entry since the last with one.
    empty: u64,
}

impl Trail {
    /// After so many pages in a row without an entry a list is not gone on with.
    pub const MOST_EMPTY_PAGES: u64 = 10;

    /// The trail of a list that begins at a cursor, or at its beginning.
    pub fn from(start: Option<&Cursor>) -> Self {
        Self { seen: start.map(fingerprint).into_iter().collect(), ..Self::default() }
    }

    /// Takes a page of so many entries, readable or not, and where the next one begins.
    ///
    /// # Errors
    /// [`ApiError::CursorLoop`] where that was read before; [`ApiError::EmptyPages`] after too many pages without an entry.
    pub fn follow(&mut self, entries: usize, next: Option<&Cursor>) -> Result<(), ApiError> {
        self.pages += 1;
        self.empty = if entries == 0 { self.empty + 1 } else { 0 };
        let Some(next) = next else { return Ok(()) };
        if !self.seen.insert(fingerprint(next)) {
            return Err(ApiError::CursorLoop { pages: self.pages });
        }
        if self.empty >= Self::MOST_EMPTY_PAGES {
            return Err(ApiError::EmptyPages { pages: self.empty });
        }
        Ok(())
    }
}

/// Walks pages from `start` to the end of the list, one request each, as they are asked for. Ends after an error; a new
/// walk from the last page's `next_cursor` goes on where it broke.
pub(super) fn walk<T, R>(
    start: Option<Cursor>,
    read: impl Fn(Option<Cursor>) -> R + Send,
) -> impl Stream<Item = Result<Page<T>, ApiError>> + Send
where
    T: Send,
    R: Future<Output = Result<Page<T>, ApiError>> + Send,
{
    let trail = Trail::from(start.as_ref());
    futures::stream::try_unfold((Some(start), trail, read), |(cursor, mut trail, read)| async move {
        let Some(cursor) = cursor else { return Ok(None) };
        let page = read(cursor).await?;
        trail.follow(page.len(), page.next_cursor.as_ref())?;
        let next = page.next_cursor.clone().map(Some);
        Ok(Some((page, (next, trail, read))))
    })
}

/// What is kept of a cursor to know it again.
fn fingerprint(cursor: &Cursor) -> u64 {
    let mut hasher = DefaultHasher::new();
    cursor.hash(&mut hasher);
    hasher.finish()
}
