//! Downloads against a server that says exact bytes.

use super::*;
use crate::config::SpoolConfig;
use crate::digest::Digest;
use crate::http::BaseUrl;
use crate::http::scripted::{Answer, Scripted, Then, answer};
use crate::spool::SpoolMemory;

const LINK: &str = "/bucket/key%2Fa?X-Amz-Signature=canary%252F+&n=%27x%27;y";
const ETAG: &str = "ETag: \"v1\"";

struct Fixture {
    _folder: tempfile::TempDir,
    spool: Spool,
    clients: HttpClients,
    config: HttpConfig,
    server: Scripted,
}

async fn fixture(answers: Vec<Answer>) -> Fixture {
    let server = Scripted::start(answers).await;
    let patience = Duration::from_millis(300);
    let config = HttpConfig {
        connect_timeout: patience,
        read_timeout: patience,
        max_attachment_bytes: 2 << 20,
        ..HttpConfig::default()
    };
    let clients = HttpClients::new(&config, &BaseUrl::parse("http://127.0.0.1:1/api").unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let limits = SpoolConfig { min_free_bytes: 0, memory_threshold_bytes: 64 << 10, ..SpoolConfig::default() };
    let spool = Spool::open(folder.path().join("run"), &limits, SpoolMemory::of(&limits)).unwrap();
    Fixture { _folder: folder, spool, clients, config, server }
}

impl Fixture {
    async fn get(&self, declared: Option<u64>) -> Result<Spooled, FetchError> {
        let link = SignedUrl::for_test(&self.server.url(LINK));
        let reservation = self.spool.reserve(declared).await.unwrap();
        let declared = Declared { size_bytes: declared };
        let result = fetch(&self.clients, link, &declared, &self.spool, reservation, &self.config).await;
        if let Err(error) = &result {
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("canary") && !shown.contains("bucket"), "{shown}");
            // A piece may still be on its way to the disk; its file goes when it is there.
            let left = || std::fs::read_dir(self.spool.folder()).unwrap().count();
            while left() > 0 && !matches!(error, FetchError::Mismatch { .. }) {
                tokio::task::yield_now().await;
            }
        }
        result
    }
}

async fn get(answers: Vec<Answer>, declared: Option<u64>) -> Result<Spooled, FetchError> {
    fixture(answers).await.get(declared).await
}

fn whole(body: &[u8]) -> Answer {
    answer("200 OK", &[ETAG], body)
}

fn part(body: &[u8], from: usize, headers: &[&str]) -> Answer {
    let range = format!("Content-Range: bytes {from}-{}/{}", body.len() - 1, body.len());
    answer("206 Partial Content", &[&[range.as_str()], headers].concat(), &body[from..])
}

fn body(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 + i / 251).to_le_bytes()[0]).collect()
}

#[tokio::test]
async fn the_storage_gets_the_exact_target_and_no_token() {
    let fixture = fixture(vec![whole(b"hello")]).await;
    let spooled = fixture.get(Some(5)).await.unwrap();
    assert_eq!((spooled.in_memory(), spooled.sha256()), (Some(&b"hello"[..]), Digest::of(b"hello")));
    let asked = fixture.server.asked().remove(0);
    assert!(asked.starts_with(&format!("GET {LINK} HTTP/1.1\r\n")), "{asked}");
    let asked = asked.to_lowercase();
    for absent in ["authorization", "referer", "cookie"] {
        assert!(!asked.contains(absent), "{asked}");
    }
    assert!(asked.contains("accept-encoding: identity"), "{asked}");
}

#[tokio::test]
async fn large_empty_chunked_and_encoded_bodies_come_as_they_are() {
    let large = body(1_500_000);
    assert_eq!(get(vec![whole(&large)], Some(1_500_000)).await.unwrap().sha256(), Digest::of(&large));
    assert_eq!(get(vec![whole(b"")], Some(0)).await.unwrap().size_bytes(), 0);
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let spooled = get(vec![Answer(chunked.to_vec(), Then::Keep)], None).await.unwrap();
    assert_eq!(spooled.in_memory(), Some(&b"abcde"[..]));
    let gzip = b"\x1f\x8b\x08\x00not really";
    let spooled = get(vec![answer("200 OK", &["Content-Encoding: gzip"], gzip)], None).await.unwrap();
    assert_eq!(spooled.in_memory(), Some(&gzip[..]));
}

#[tokio::test]
async fn redirects_are_followed_by_hand_up_to_the_limit() {
    let hop = || answer("307 Temporary", &["Location: /next%2F?x=%2b"], b"");
    let fixture = fixture([vec![hop(); 5], vec![whole(b"hello")]].concat()).await;
    assert_eq!(fixture.get(None).await.unwrap().size_bytes(), 5);
    assert!(fixture.server.asked()[5].starts_with("GET /next%2F?x=%2b HTTP/1.1\r\n"));
    let error = get(vec![hop(); 6], None).await.unwrap_err();
    assert!(matches!(error, FetchError::Redirect(_)), "{error}");
    let error = get(vec![answer("302 Found", &[], b"")], None).await.unwrap_err();
    assert!(matches!(error, FetchError::Redirect(_)), "{error}");
}

#[tokio::test]
async fn a_redirect_to_a_refused_address_is_not_followed() {
    for target in [
        "http://10.0.0.1/canary",
        "https://169.254.169.254/canary",
        "http://s.example/canary",
        "ftp://s.example/canary",
    ] {
        let location = format!("Location: {target}");
        let error = get(vec![answer("302 Found", &[&location], b"")], None).await.unwrap_err();
        assert!(matches!(error, FetchError::RefusedTarget(_)), "{error}");
        assert_eq!(error.decision(), Decision::RetryAfter(None));
    }
}

#[tokio::test]
async fn a_cut_body_is_continued_with_range_and_if_match() {
    for length in [1_000, 1_200_000] {
        let body = body(length);
        let (first, second) = (length / 3, length / 2);
        let answers = vec![
            whole(&body).cut(first, Then::Close),
            part(&body, first, &[ETAG]).cut(second - first, Then::Stall),
            part(&body, second, &[ETAG]),
        ];
        let fixture = fixture(answers).await;
        let spooled = fixture.get(Some(length as u64)).await.unwrap();
        assert_eq!((spooled.sha256(), spooled.size_bytes()), (Digest::of(&body), length as u64));
        let asked = fixture.server.asked();
        assert!(asked[1].contains(&format!("range: bytes={first}-\r\n")), "{}", asked[1]);
        assert!(asked[1].contains("if-match: \"v1\"\r\n"), "{}", asked[1]);
        assert!(asked[2].contains(&format!("range: bytes={second}-\r\n")), "{}", asked[2]);
        assert!(asked[2].starts_with(&format!("GET {LINK} ")));
    }
}

#[tokio::test]
async fn what_does_not_continue_the_same_file_begins_anew() {
    let (old, new) = (body(1_000), vec![7; 900]);
    let wrong_start = part(&old, 300, &[ETAG]);
    let other_version = part(&old, 400, &["ETag: \"v2\""]);
    let no_etag = part(&old, 400, &[]);
    let no_range = answer("206 Partial Content", &[ETAG], &old[400..]);
    let changed = answer("412 Precondition Failed", &[], b"");
    let past = answer("416 Range Not Satisfiable", &[], b"");
    for odd in [wrong_start, other_version, no_etag, no_range, changed, past] {
        let fixture = fixture(vec![whole(&old).cut(400, Then::Close), odd, whole(&new)]).await;
        let spooled = fixture.get(Some(900)).await.unwrap();
        assert_eq!(spooled.sha256(), Digest::of(&new));
        assert!(!fixture.server.asked()[2].contains("range:"));
    }
    // A server without ranges answers 200 with everything.
    let spooled = get(vec![whole(&old).cut(400, Then::Close), whole(&new)], Some(900)).await.unwrap();
    assert_eq!(spooled.sha256(), Digest::of(&new));
}

#[tokio::test]
async fn a_download_that_keeps_breaking_is_given_up() {
    let body = body(1_000);
    let cuts = vec![
        whole(&body).cut(100, Then::Close),
        part(&body, 100, &[ETAG]).cut(100, Then::Close),
        part(&body, 200, &[ETAG]).cut(100, Then::Close),
        part(&body, 300, &[ETAG]).cut(100, Then::Close),
    ];
    let error = get(cuts, None).await.unwrap_err();
    assert!(matches!(error, FetchError::Broken { received_bytes: 400, afresh: false, .. }), "{error:?}");
    assert_eq!(error.decision(), Decision::RetryAfter(None));
}

#[tokio::test]
async fn without_a_strong_etag_a_cut_download_asks_for_a_fresh_link() {
    for etag in [&["ETag: W/\"v1\""][..], &[]] {
        let cut = answer("200 OK", etag, &body(100)).cut(50, Then::Close);
        let error = get(vec![cut], Some(100)).await.unwrap_err();
        assert_eq!(error.decision(), Decision::Reexchange, "{error}");
    }
    // A link that expired while the download went on.
    let expired = vec![whole(&body(100)).cut(50, Then::Close), answer("403 Forbidden", &[], b"<Error/>")];
    assert_eq!(get(expired, None).await.unwrap_err().decision(), Decision::Reexchange);
}

#[tokio::test]
async fn a_body_that_only_the_connection_ends_is_whole_if_it_is_long_enough() {
    let bare = |keep: usize| Answer(b"HTTP/1.1 200 OK\r\n\r\nhello"[..19 + keep].to_vec(), Then::Close);
    assert_eq!(get(vec![bare(5)], Some(5)).await.unwrap().size_bytes(), 5);
    assert_eq!(get(vec![bare(5)], None).await.unwrap().size_bytes(), 5);
    assert!(matches!(get(vec![bare(3)], Some(5)).await.unwrap_err(), FetchError::Broken { .. }));
}

#[tokio::test]
async fn every_declared_checksum_is_held_against_the_bytes() {
    let right = [
        "Content-MD5: XUFAKrxLKna5cZ2REBfFkg==",
        "x-amz-checksum-sha256: LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=",
        "x-amz-checksum-sha1: qvTGHdzF6KLavt4PO0gs2a6pQ00=",
        "x-amz-checksum-crc32: NhCmhg==",
        "x-amz-checksum-crc32c: mnG7TA==",
        "x-goog-hash: crc32c=mnG7TA==,md5=XUFAKrxLKna5cZ2REBfFkg==",
        "ETag: \"5d41402abc4b2a76b9719d911017c592\"",
    ];
    for header in right {
        get(vec![answer("200 OK", &[header], b"hello")], None).await.unwrap();
        let error = get(vec![answer("200 OK", &[header], b"Hello")], Some(5)).await.unwrap_err();
        assert_eq!(error.decision(), Decision::Quarantine, "{header}");
        let FetchError::Mismatch { spooled, facts } = error else { panic!("{header}") };
        assert_eq!(spooled.in_memory(), Some(&b"Hello"[..]));
        let name = header.split(':').next().unwrap();
        assert!(facts.to_lowercase().contains(&name.to_lowercase()), "{facts}");
    }
}

#[tokio::test]
async fn a_size_that_contradicts_the_message_is_a_mismatch_with_both_facts() {
    let FetchError::Mismatch { spooled, facts } = get(vec![whole(b"hello")], Some(6)).await.unwrap_err() else {
        panic!("expected a mismatch")
    };
    assert_eq!(spooled.size_bytes(), 5);
    assert!(facts.contains("6 bytes") && facts.contains('5'), "{facts}");
}

#[tokio::test]
async fn an_error_page_is_refused_unless_its_size_or_checksum_is_vouched_for() {
    let page = b"<!doctype html><title>Sign in</title>";
    let size = page.len() as u64;
    for declared in [None, Some(5_000)] {
        let error = get(vec![answer("200 OK", &[], page)], declared).await.unwrap_err();
        assert!(matches!(error, FetchError::ErrorPage { kind: "HTML", .. }), "{error}");
        assert_eq!(error.decision(), Decision::RetryAfter(None));
    }
    assert!(get(vec![answer("200 OK", &[], page)], Some(size)).await.is_ok(), "people attach HTML files");
    let sum = data_encoding::BASE64.encode(&<[u8; 16]>::from(<md5::Md5 as md5::Digest>::digest(page)));
    let header = format!("Content-MD5: {sum}");
    assert!(get(vec![answer("200 OK", &[&header], page)], None).await.is_ok());
}

#[tokio::test]
async fn every_storage_status_has_its_decision() {
    for (status, headers, decision) in [
        ("403 F", &[][..], Decision::Reexchange),
        ("404 N", &[], Decision::Reexchange),
        ("410 G", &[], Decision::Reexchange),
        ("400 B", &[], Decision::Reexchange),
        ("500 E", &[], Decision::RetryAfter(None)),
        ("503 S", &["Retry-After: 4"], Decision::RetryAfter(Some(Duration::from_secs(4)))),
        ("429 S", &["Retry-After: 4"], Decision::RetryAfter(Some(Duration::from_secs(4)))),
        (
            "503 S",
            &["Retry-After: Sun, 22 Nov 2026 00:01:30 GMT", "Date: Sun, 22 Nov 2026 00:01:00 GMT"],
            Decision::RetryAfter(Some(Duration::from_secs(30))),
        ),
        ("204 N", &[], Decision::RetryAfter(None)),
        ("206 P", &[], Decision::RetryAfter(None)),
        ("418 T", &[], Decision::RetryAfter(None)),
    ] {
        let error = get(vec![answer(status, headers, b"")], None).await.unwrap_err();
        assert_eq!(error.decision(), decision, "{status}: {error}");
    }
    let silent = get(vec![Answer(Vec::new(), Then::Stall)], None).await.unwrap_err();
    assert!(matches!(silent, FetchError::Timeout(_)), "{silent}");
    let dropped = get(vec![Answer(Vec::new(), Then::Close)], None).await.unwrap_err();
    assert!(matches!(dropped, FetchError::Connection(_)), "{dropped}");
}

#[tokio::test]
async fn more_than_the_limit_is_not_fetched_announced_or_not() {
    let announced = answer("200 OK", &[], &[]).0;
    let announced = String::from_utf8(announced).unwrap().replace("Length: 0", "Length: 999999999");
    let error = get(vec![Answer(announced.into_bytes(), Then::Stall)], None).await.unwrap_err();
    assert!(matches!(error, FetchError::TooLarge { .. }), "{error}");
    let endless = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![0; 3 << 20]].concat();
    let error = get(vec![Answer(endless, Then::Stall)], None).await.unwrap_err();
    assert!(matches!(error, FetchError::TooLarge { .. }), "{error}");
    assert_eq!(error.decision(), Decision::Fail);
}

#[tokio::test]
async fn a_refusal_of_a_link_that_could_not_be_sent_exactly_says_so() {
    let refused = || answer("403 Forbidden", &[], b"<Error/>");
    let hop = |location: &str| answer("302 Found", &[&format!("Location: {location}")], b"");
    let error = get(vec![hop("/a?b='c'"), refused()], None).await.unwrap_err();
    assert!(error.to_string().contains("percent-encoded"), "{error}");
    let error = get(vec![hop("/a?b=%27c%27"), refused()], None).await.unwrap_err();
    assert!(!error.to_string().contains("percent-encoded"), "{error}");
}

#[tokio::test]
async fn downloads_at_once_keep_apart() {
    let bodies: Vec<_> = (0..12).map(|i| body(50_000 + i * 40_000)).collect();
    let fixture = fixture(Vec::new()).await;
    let downloads = bodies.iter().map(|body| {
        let fixture = &fixture;
        async move {
            let server = Scripted::start(vec![whole(body)]).await;
            let link = SignedUrl::for_test(&server.url(LINK));
            let reservation = fixture.spool.reserve(None).await.unwrap();
            let declared = Declared { size_bytes: Some(body.len() as u64) };
            fetch(&fixture.clients, link, &declared, &fixture.spool, reservation, &fixture.config).await.unwrap()
        }
    });
    for (spooled, body) in futures::future::join_all(downloads).await.iter().zip(&bodies) {
        assert_eq!(spooled.sha256(), Digest::of(body));
    }
}
