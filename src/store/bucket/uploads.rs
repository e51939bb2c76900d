//! Uploads in parts that were begun and never finished, as an S3 server lists them: the client library has no such call.

use std::sync::Arc;

use jiff::Timestamp;
use object_store::ClientOptions;
use object_store::aws::{AmazonS3, AwsAuthorizer, AwsCredentialProvider};
use object_store::client::{HttpClient, HttpConnector as _, HttpRequest, HttpRequestBody, ReqwestConnector};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::BucketError;
use crate::config::BucketSettings;
use crate::model::BucketLocation;

/// What a query may hold unescaped: RFC 3986's unreserved characters, as AWS signs them.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// At most so many pages are read: a bucket with more unfinished uploads wants a lifecycle rule.
const MAX_PAGES: usize = 100;

/// How often a page is asked for.
const TRIES: u32 = 3;

/// What a server says of unfinished uploads.
#[derive(Debug)]
pub(super) enum Listed {
    /// These there are.
    Uploads(Vec<Upload>),
    /// It has no such list, or not for us.
    Never,
    /// It could not be asked this time.
    NotNow,
}

/// Why a page was not given.
struct Refused {
    reason: String,
    for_good: bool,
}

impl Refused {
    fn now<E: std::fmt::Display>(reason: E) -> Self {
        Self { reason: reason.to_string(), for_good: false }
    }
}

/// One unfinished upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Upload {
    /// The key in the bucket, prefix and all.
    pub(super) key: String,
    /// The upload's id.
    pub(super) id: String,
    /// When it was begun.
    pub(super) begun: Option<Timestamp>,
}

/// Lists unfinished uploads.
pub(super) struct S3Uploads {
    client: HttpClient,
    credentials: AwsCredentialProvider,
    region: String,
    bucket_url: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    #[serde(default)]
    is_truncated: bool,
    next_key_marker: Option<String>,
    next_upload_id_marker: Option<String>,
    #[serde(default, rename = "Upload")]
    uploads: Vec<PageUpload>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PageUpload {
    key: String,
    upload_id: String,
    initiated: Option<String>,
}

impl S3Uploads {
    pub(super) fn new(
        location: &BucketLocation,
        settings: &BucketSettings,
        store: &AmazonS3,
        client: &ClientOptions,
    ) -> Result<Self, BucketError> {
        let client = ReqwestConnector::default()
            .connect(client)
            .map_err(|error| BucketError::new("open", location.to_string(), &error))?;
        let options = settings.options(location);
        let option =
            |name: &str| options.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| value.expose());
        let region = option("aws_region").unwrap_or("us-east-1").to_owned();
        let bucket = &location.bucket;
        // With the bucket's name in the host, an endpoint has it already.
        let bucket_url = match (option("aws_endpoint"), settings.is_path_style(location)) {
            (Some(endpoint), true) => format!("{}/{bucket}", endpoint.trim_end_matches('/')),
            (Some(endpoint), false) => endpoint.trim_end_matches('/').to_owned(),
            (None, true) => format!("https://s3.{region}.amazonaws.com/{bucket}"),
            (None, false) => format!("https://{bucket}.s3.{region}.amazonaws.com"),
        };
        Ok(Self { client, credentials: Arc::clone(store.credentials()), region, bucket_url })
    }

    /// The unfinished uploads whose keys begin with `prefix`.
    pub(super) async fn list(&self, prefix: &str) -> Listed {
        let mut uploads = Vec::new();
        let mut markers = None;
        for _ in 0..MAX_PAGES {
            let page = match self.page_in_the_end(prefix, markers.as_ref()).await {
                Ok(page) => page,
                Err(Refused { reason, for_good }) => {
                    tracing::debug!(reason, "unfinished uploads cannot be listed");
                    return if for_good { Listed::Never } else { Listed::NotNow };
                }
            };
            uploads.extend(page.uploads.into_iter().map(|upload| Upload {
                key: upload.key,
                id: upload.upload_id,
                begun: upload.initiated.and_then(|begun| begun.parse().ok()),
            }));
            match (page.is_truncated, page.next_key_marker, page.next_upload_id_marker) {
                (true, Some(key), id) => markers = Some((key, id.unwrap_or_default())),
                _ => break,
            }
        }
        // Not every server looks at the prefix.
        uploads.retain(|upload| upload.key.starts_with(prefix));
        Listed::Uploads(uploads)
    }

    async fn page_in_the_end(&self, prefix: &str, markers: Option<&(String, String)>) -> Result<Page, Refused> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.page(prefix, markers).await {
                Err(Refused { for_good: false, .. }) if tries < TRIES => {
                    tokio::time::sleep(super::pause_before(tries)).await;
                }
                page => return page,
            }
        }
    }

    async fn page(&self, prefix: &str, markers: Option<&(String, String)>) -> Result<Page, Refused> {
        let escaped = |text: &str| utf8_percent_encode(text, QUERY).to_string();
        // In the order of names, in which they are signed.
        let mut query = String::new();
        if let Some((key, _)) = markers {
            query.push_str(&format!("key-marker={}&", escaped(key)));
        }
        query.push_str(&format!("prefix={}", escaped(prefix)));
        if let Some((_, id)) = markers {
            query.push_str(&format!("&upload-id-marker={}", escaped(id)));
        }
        let url = format!("{}/?{query}&uploads=", self.bucket_url);
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = url.parse().map_err(Refused::now)?;
        let credential = self.credentials.get_credential().await.map_err(Refused::now)?;
        AwsAuthorizer::new(&credential, "s3", &self.region).try_authorize(&mut request, None).map_err(Refused::now)?;
        let response = self.client.execute(request).await.map_err(Refused::now)?;
        let status = response.status();
        let body = response.into_body().bytes().await.map_err(Refused::now)?;
        if !status.is_success() {
            let for_good = matches!(status.as_u16(), 400 | 403 | 404 | 405 | 501);
            return Err(Refused { reason: format!("status {status}"), for_good });
        }
        quick_xml::de::from_reader(body.as_ref()).map_err(Refused::now)
    }
}

impl std::fmt::Debug for S3Uploads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Uploads").field("bucket_url", &self.bucket_url).finish_non_exhaustive()
    }
}
