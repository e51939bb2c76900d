//! The gate of an object store: an HTTP server that stands before it, counts what is asked, and lets what a test names
//! go wrong.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::service::S3Service;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

/// What is behind a gate.
#[derive(Clone)]
pub(crate) enum Behind {
    /// A server at this address.
    Server(SocketAddr),
    /// An S3 of this process.
    S3(S3Service),
    /// The same, as a stand-in for GCS: protocol-shaped, not GCS.
    GcsShaped(S3Service),
}

/// What happens to a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mishap {
    /// It is lost: the connection ends, and the store has not seen it.
    CutBefore,
    /// Its answer is lost: the store has done as it was asked, and the connection ends.
    CutAfter,
    /// The store has done as it was asked, and its answer takes so long.
    Late(Duration),
    /// It is refused, and the store has not seen it.
    Refused(Refusal),
    /// The store does not look at the request's condition: where that does not hold, it says that all is well.
    Unconditional,
}

/// Refusals of S3, <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refusal {
    AccessDenied,
    AuthorizationHeaderMalformed,
    ConditionalRequestConflict,
    ExpiredToken,
    NoSuchBucket,
    NoSuchUpload,
    PermanentRedirect,
    RequestTimeTooSkewed,
    SlowDown,
}

impl Refusal {
    fn answer(self) -> Response<Full<Bytes>> {
        let (status, message) = match self {
            Self::AccessDenied => (403, "Access Denied"),
            Self::AuthorizationHeaderMalformed => (400, "The authorization header is malformed; the region is wrong."),
            Self::NoSuchUpload => (404, "The upload may have been aborted or completed."),
            Self::NoSuchBucket => (404, "The specified bucket does not exist"),
            Self::ConditionalRequestConflict => (409, "A conflicting operation occurred during processing."),
            Self::ExpiredToken => (400, "The provided token has expired."),
            Self::PermanentRedirect => (301, "The bucket must be addressed using the specified endpoint."),
            Self::RequestTimeTooSkewed => {
                (403, "The difference between the request time and the server's is too large.")
            }
            Self::SlowDown => (503, "Please reduce your request rate."),
        };
        let more =
            if matches!(self, Self::AuthorizationHeaderMalformed) { "<Region>eu-central-1</Region>" } else { "" };
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{self:?}</Code><Message>{message}</Message>{more}</Error>"
        );
        let mut answer = Response::new(Full::from(body));
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        if matches!(self, Self::PermanentRedirect) {
            answer.headers_mut().insert("x-amz-bucket-region", HeaderValue::from_static("eu-central-1"));
        }
        answer
    }
}

/// Which requests go wrong, and how.
#[derive(Debug)]
struct Rule {
    method: Method,
    key: String,
    /// Which of those that fit, counted from 1.
    which: RangeInclusive<usize>,
    mishap: Mishap,
    seen: usize,
}

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Passed {
    pub(crate) method: Method,
    /// With the query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
}

impl Passed {
    /// A header, which must be signed.
    pub(crate) fn signed(&self, name: &str) -> Option<&str> {
        let value = self.headers.get(name)?.to_str().unwrap();
        let signature = self.headers[header::AUTHORIZATION].to_str().unwrap();
        let (_, names) = signature.split_once("SignedHeaders=").unwrap();
        let names = names.split(',').next().unwrap();
        assert!(names.split(';').any(|signed| signed == name), "{name} is not signed: {signature}");
        Some(value)
    }
}

/// What has passed, and what is to go wrong.
#[derive(Debug, Default)]
struct Book {
    rules: Vec<Rule>,
    passed: Vec<Passed>,
}

/// See the module. Dropping it closes it.
pub(crate) struct Gate {
    address: SocketAddr,
    book: Arc<Mutex<Book>>,
    runtime: Option<Runtime>,
}

impl Gate {
    /// Opens one before `behind`.
    pub(crate) fn before(behind: Behind) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let book = Arc::<Mutex<Book>>::default();
        let watched = Arc::clone(&book);
        runtime.spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (behind, book) = (behind.clone(), Arc::clone(&watched));
                tokio::spawn(async move {
                    let service = service_fn(|request| pass(&behind, &book, request));
                    // A client that goes away, and an answer that is lost, end the connection.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, book, runtime: Some(runtime) }
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets requests go wrong: of those with this method whose path and query hold `key`, those with these numbers,
    /// which are counted from 1 and from now on.
    pub(crate) fn spoil(&self, method: Method, key: &str, which: RangeInclusive<usize>, mishap: Mishap) {
        let rule = Rule { method, key: key.to_owned(), which, mishap, seen: 0 };
        self.book.lock().unwrap().rules.push(rule);
    }

    /// Lets nothing go wrong any more, and counts anew.
    pub(crate) fn reset(&self) {
        *self.book.lock().unwrap() = Book::default();
    }

    /// How many requests with this method came whose path and query hold `key`.
    pub(crate) fn count(&self, method: &Method, key: &str) -> usize {
        let book = self.book.lock().unwrap();
        book.passed.iter().filter(|one| one.method == method && one.path.contains(key)).count()
    }

    /// All requests that came since it was reset.
    pub(crate) fn passed(&self) -> Vec<Passed> {
        self.book.lock().unwrap().passed.clone()
    }

    /// Runs asynchronous code of a test.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.as_ref().expect("only dropping takes it").block_on(future)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // Not in the way of requests that are late.
        self.runtime.take().expect("only dropping takes it").shutdown_background();
    }
}

impl Book {
    /// Notes a request, and says what is to become of it.
    fn enter(&mut self, method: &Method, path: &str, headers: &HeaderMap) -> Option<Mishap> {
        self.passed.push(Passed { method: method.clone(), path: path.to_owned(), headers: headers.clone() });
        let mut mishap = None;
        for rule in self.rules.iter_mut().filter(|rule| rule.method == *method && path.contains(&rule.key)) {
            rule.seen += 1;
            if rule.which.contains(&rule.seen) {
                mishap = mishap.or(Some(rule.mishap));
            }
        }
        mishap
    }
}

/// An answer that is not given.
#[derive(Debug, thiserror::Error)]
#[error("lost")]
struct Lost;

async fn pass(behind: &Behind, book: &Mutex<Book>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Lost> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let mishap = book.lock().unwrap().enter(request.method(), path, request.headers());
    // All of it is read first, so that what is cut is never the request.
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Lost)?.to_bytes();
    match mishap {
        Some(Mishap::CutBefore) => return Err(Lost),
        Some(Mishap::Refused(refusal)) => return Ok(refusal.answer()),
        _ => {}
    }
    let mut answer = ask(behind, Request::from_parts(parts, body)).await?;
    match mishap {
        Some(Mishap::Unconditional) if answer.status() == StatusCode::PRECONDITION_FAILED => {
            answer = Response::new(Full::default());
            answer.headers_mut().insert(header::ETAG, HeaderValue::from_static("\"whatever\""));
        }
        Some(Mishap::CutAfter) => return Err(Lost),
        Some(Mishap::Late(delay)) => tokio::time::sleep(delay).await,
        _ => {}
    }
    Ok(answer)
}

async fn ask(behind: &Behind, mut request: Request<Bytes>) -> Result<Response<Full<Bytes>>, Lost> {
    match behind {
        Behind::Server(address) => {
            let stream = TcpStream::connect(address).await.map_err(|_| Lost)?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|_| Lost)?;
            tokio::spawn(connection);
            // The host stays what the client has signed.
            whole(sender.send_request(request.map(Full::new)).await.map_err(|_| Lost)?).await
        }
        Behind::S3(service) => in_process(service, request).await,
        Behind::GcsShaped(service) => {
            // Google's tokens are no signatures of S3.
            request.headers_mut().remove(header::AUTHORIZATION);
            rename(request.headers_mut(), "x-goog-", "x-amz-");
            if request.headers_mut().remove("x-amz-if-generation-match").is_some_and(|generation| generation == "0") {
                request.headers_mut().insert(header::IF_NONE_MATCH, HeaderValue::from_static("*"));
            }
            let mut answer = in_process(service, request).await?;
            rename(answer.headers_mut(), "x-amz-", "x-goog-");
            Ok(answer)
        }
    }
}

/// Asks an S3 of this process. It looks, and then it writes: here nothing comes in between, as a condition promises.
async fn in_process(service: &S3Service, request: Request<Bytes>) -> Result<Response<Full<Bytes>>, Lost> {
    static CONDITION: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let is_conditional = request.headers().contains_key(header::IF_NONE_MATCH);
    let _alone = if is_conditional { Some(CONDITION.lock().await) } else { None };
    whole(service.call(request.map(s3s::Body::from)).await.map_err(|_| Lost)?).await
}

/// Gives all headers that begin with `from` the beginning `to`.
fn rename(headers: &mut HeaderMap, from: &str, to: &str) {
    let old: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with(from)).cloned().collect();
    for name in old {
        let value = headers.remove(&name).expect("it was just listed");
        let name = name.as_str().replacen(from, to, 1);
        headers.insert(HeaderName::try_from(name).unwrap(), value);
    }
}

/// Reads an answer to its end.
async fn whole<B>(answer: Response<B>) -> Result<Response<Full<Bytes>>, Lost>
where
    B: hyper::body::Body<Data = Bytes>,
{
    let (mut parts, body) = answer.into_parts();
    let body = body.collect().await.map_err(|_| Lost)?.to_bytes();
    // How this connection frames the answer is its own matter.
    parts.headers.remove(header::TRANSFER_ENCODING);
    parts.headers.remove(header::CONNECTION);
    Ok(Response::from_parts(parts, Full::new(body)))
}
