//! A request as data: what is sent, and what a dry run shows of it.

use http::Method;
use serde_json::Value;
use url::Url;

use super::{ApiError, Id, JellyClient, encoded};

/// One request of the API before it is sent. Holds no token.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiRequest {
    pub(super) method: Method,
    /// Percent-encoded already.
    segments: Vec<String>,
    query: Vec<(&'static str, String)>,
    pub(super) body: Option<Value>,
    /// What it asks for, as errors name it.
    pub(super) what: &'static str,
}

impl ApiRequest {
    pub(super) fn new(method: Method, first: &str, what: &'static str) -> Self {
        Self { method, segments: vec![first.to_owned()], query: Vec::new(), body: None, what }
    }

    pub(super) fn post(first: &str, what: &'static str) -> Self {
        Self::new(Method::POST, first, what)
    }

    pub(super) fn get(first: &str, what: &'static str) -> Self {
        Self::new(Method::GET, first, what)
    }

    /// Adds an id to the path.
    pub(super) fn id(mut self, id: &Id) -> Self {
        self.segments.push(encoded(id.as_str()));
        self
    }

    /// Adds a fixed word to the path.
    pub(super) fn then(mut self, segment: &str) -> Self {
        self.segments.push(segment.to_owned());
        self
    }

    /// Adds a parameter to the query, where there is a value.
    pub(super) fn query(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        self.query.extend(value.map(|value| (name, value.to_string())));
        self
    }

    /// Sets what is sent with it.
    pub(super) fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// Adds a field to what is sent with it, where there is a value.
    pub(super) fn field(mut self, name: &'static str, value: Option<impl Into<Value>>) -> Self {
        if let (Some(Value::Object(fields)), Some(value)) = (&mut self.body, value) {
            fields.insert(name.to_owned(), value.into());
        }
        self
    }

    /// The method: `GET`, `POST` or `DELETE`.
    pub fn method(&self) -> &str {
        self.method.as_str()
    }

    /// The JSON that is sent with it.
    pub fn json(&self) -> Option<&Value> {
        self.body.as_ref()
    }

    /// Path and query, below the path of the base URL: `/labels`.
    ///
    /// ```
    /// use jellyjar::jelly::{ApiRequest, Id};
    /// let request = ApiRequest::conversation(&Id::try_from("stair-car".to_owned())?);
    /// assert_eq!((request.method(), request.path().as_str()), ("GET", "/conversations/stair-car"));
    /// # Ok::<(), jellyjar::model::InvalidId>(())
    /// ```
    pub fn path(&self) -> String {
        let path: String = self.segments.iter().flat_map(|segment| ["/", segment]).collect();
        if self.query.is_empty() {
            return path;
        }
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.query).finish();
        format!("{path}?{query}")
    }
}

impl JellyClient {
    /// The URL of a request.
    pub(super) fn url_of(&self, request: &ApiRequest) -> Result<Url, ApiError> {
        let segments: Vec<&str> = request.segments.iter().map(String::as_str).collect();
        let mut url = self.url(&segments)?;
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&request.query);
        }
        Ok(url)
    }
}
