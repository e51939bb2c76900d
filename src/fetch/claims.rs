//! What an answer's headers claim of its bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use data_encoding::HEXLOWER_PERMISSIVE;
use http::header::{ETAG, HeaderMap};

use crate::spool::{Spooled, SumKind};

/// One checksum that a header declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    header: &'static str,
    pub(super) kind: SumKind,
    value: Vec<u8>,
}

impl Claim {
    /// `None` where the bytes agree, else both facts.
    pub(super) fn contradiction(&self, spooled: &Spooled) -> Option<String> {
        let got = spooled.sum(self.kind)?;
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        (got != self.value).then(|| {
            format!("{} says {} {}, the bytes give {}", self.header, self.kind.name(), hex(&self.value), hex(got))
        })
    }
}

/// The checksum headers that carry base64 under a kind of their own.
const PLAIN: [(&str, SumKind); 6] = [
    ("content-md5", SumKind::Md5),
    ("x-amz-checksum-sha256", SumKind::Sha256),
    ("x-amz-checksum-sha1", SumKind::Sha1),
    ("x-amz-checksum-crc32", SumKind::Crc32),
    ("x-amz-checksum-crc32c", SumKind::Crc32c),
    ("x-amz-checksum-crc64nvme", SumKind::Crc64Nvme),
];

/// Every checksum of the whole body that `headers` declare and that can be understood.
pub(super) fn claims(headers: &HeaderMap) -> Vec<Claim> {
    let mut claims = Vec::new();
    let composite = header(headers, "x-amz-checksum-type").is_some_and(|kind| kind.eq_ignore_ascii_case("COMPOSITE"));
    for (name, kind) in PLAIN {
        if composite && name.starts_with("x-amz-") {
            continue;
        }
        // A composite sum ends with "-N", which is no base64 of the right length.
        if let Some(value) = header(headers, name).and_then(|text| decode(kind, text)) {
            claims.push(Claim { header: name, kind, value });
        }
    }
    // GCS may have unpacked what it stores packed; its sums, and the ETag, are of what it stores.
    let unpacked = header(headers, "x-goog-stored-content-encoding")
        .is_some_and(|coding| coding.to_ascii_lowercase().contains("gzip"));
    if unpacked {
        return claims;
    }
    for value in headers.get_all("x-goog-hash") {
        for item in value.to_str().unwrap_or_default().split(',') {
            let Some((name, text)) = item.trim().split_once('=') else { continue };
            let kind = match name.trim().to_ascii_lowercase().as_str() {
                "crc32c" => SumKind::Crc32c,
                "md5" => SumKind::Md5,
                _ => continue,
            };
            if let Some(value) = decode(kind, text.trim()) {
                claims.push(Claim { header: "x-goog-hash", kind, value });
            }
        }
    }
    if let Some(value) = md5_etag(headers) {
        claims.push(Claim { header: "ETag", kind: SumKind::Md5, value });
    }
    claims
}

/// The `ETag`, if it is strong (RFC 9110 §8.8.3).
pub(super) fn strong_etag(headers: &HeaderMap) -> Option<&http::HeaderValue> {
    let etag = headers.get(ETAG)?;
    let bytes = etag.as_bytes();
    (bytes.len() > 2 && bytes.starts_with(b"\"") && bytes.ends_with(b"\"")).then_some(etag)
}

/// The MD5 that an S3 `ETag` is, unless the object came in parts (`…-6`) or is encrypted with keys of its own.
fn md5_etag(headers: &HeaderMap) -> Option<Vec<u8>> {
    let kms = header(headers, "x-amz-server-side-encryption").is_some_and(|kind| kind.starts_with("aws:kms"));
    let customer = headers.contains_key("x-amz-server-side-encryption-customer-algorithm")
        || headers.contains_key("x-amz-server-side-encryption-customer-key-md5");
    if kms || customer {
        return None;
    }
    let etag = strong_etag(headers)?.to_str().ok()?;
    let hex = etag.strip_prefix('"')?.strip_suffix('"')?;
    if hex.len() != 32 {
        return None;
    }
    HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()
}

/// The one value of a header; `None` where there are several that differ.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    if values.any(|other| other != first) {
        return None;
    }
    first.to_str().ok().map(str::trim)
}

fn decode(kind: SumKind, text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok().filter(|value| value.len() == kind.length())
}

/// Whether a `Content-Range` (RFC 9110 §14.4) continues a body of `total` bytes at `start`; where `total` is unknown,
/// any will do.
pub(super) fn continues_at(content_range: &str, start: u64, total: Option<u64>) -> bool {
    let number = |text: &str| {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) { None } else { text.parse::<u64>().ok() }
    };
    let read = || {
        let (unit, rest) = content_range.trim().split_once(' ')?;
        let (range, length) = rest.trim().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last, length) = (number(first)?, number(last)?, number(length)?);
        let sound = unit.eq_ignore_ascii_case("bytes") && first <= last && last < length;
        Some(sound && first == start && total.is_none_or(|total| total == length))
    };
    read().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pairs: &[(&'static str, &str)]) -> Vec<(&'static str, SumKind)> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        claims(&headers).into_iter().map(|claim| (claim.header, claim.kind)).collect()
    }

    const MD5: &str = "1B2M2Y8AsgTpgAmY7PhCfg==";
    const ETAG: &str = "\"d41d8cd98f00b204e9800998ecf8427e\"";

    #[test]
    fn every_services_checksums_are_read() {
        assert_eq!(read(&[("content-md5", MD5)]), [("content-md5", SumKind::Md5)]);
        assert_eq!(
            read(&[("x-goog-hash", "crc32c=AAAAAA==, md5=1B2M2Y8AsgTpgAmY7PhCfg==")]),
            [("x-goog-hash", SumKind::Crc32c), ("x-goog-hash", SumKind::Md5)]
        );
        assert_eq!(
            read(&[("x-goog-hash", "crc32c=AAAAAA=="), ("x-goog-hash", "md5=1B2M2Y8AsgTpgAmY7PhCfg==")]).len(),
            2
        );
        assert_eq!(
            read(&[("x-amz-checksum-crc64nvme", "AAAAAAAAAAA="), ("x-amz-checksum-crc32", "AAAAAA==")]).len(),
            2
        );
        assert_eq!(read(&[("etag", ETAG)]), [("ETag", SumKind::Md5)]);
        assert_eq!(read(&[("etag", ETAG), ("x-amz-server-side-encryption", "AES256")]).len(), 1);
    }

    #[test]
    fn what_is_no_checksum_of_the_whole_body_is_left_alone() {
        for pairs in [
            &[("x-amz-checksum-sha256", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=-3")][..],
            &[("x-amz-checksum-crc32", "AAAAAA=="), ("x-amz-checksum-type", "COMPOSITE")],
            &[("x-goog-hash", "crc32c=AAAAAA=="), ("x-goog-stored-content-encoding", "gzip"), ("etag", ETAG)],
            &[("etag", "\"d41d8cd98f00b204e9800998ecf8427e-6\"")],
            &[("etag", "W/\"d41d8cd98f00b204e9800998ecf8427e\"")],
            &[("etag", "d41d8cd98f00b204e9800998ecf8427e")],
            &[("etag", "\"0x8DB1234567890AB\"")],
            &[("etag", ETAG), ("x-amz-server-side-encryption", "aws:kms")],
            &[("etag", ETAG), ("x-amz-server-side-encryption", "aws:kms:dsse")],
            &[("etag", ETAG), ("x-amz-server-side-encryption-customer-algorithm", "AES256")],
            &[("content-md5", "short")],
            &[("content-md5", MD5), ("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==")],
            &[("x-goog-hash", "sha9=AAAA,,=,md5")],
        ] {
            assert_eq!(read(pairs), [], "{pairs:?}");
        }
    }

    #[test]
    fn only_the_exact_continuation_is_accepted() {
        assert!(continues_at("bytes 5-9/10", 5, Some(10)));
        assert!(continues_at("bytes 5-7/10", 5, Some(10)));
        assert!(continues_at("bytes 5-9/10", 5, None));
        for bad in [
            "bytes 4-9/10",
            "bytes 5-9/11",
            "bytes 5-9/*",
            "bytes */10",
            "bytes 9-5/10",
            "bytes 5-10/10",
            "5-9/10",
            "bytes +5-9/10",
            "",
        ] {
            assert!(!continues_at(bad, 5, Some(10)), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_header_text_panics(hash in "[ -~]{0,60}", range in "[ -~]{0,40}", etag in "[ -~]{0,40}") {
            let mut headers = HeaderMap::new();
            headers.insert("x-goog-hash", hash.parse().unwrap());
            headers.insert("content-md5", hash.parse().unwrap());
            headers.insert(http::header::ETAG, etag.parse().unwrap());
            let _ = claims(&headers);
            let _ = continues_at(&range, 5, Some(10));
        }

        #[test]
        fn a_well_formed_range_continues_exactly_where_it_starts(start in 0u64..1000, length in 1u64..1000, other in 0u64..2000) {
            let total = start + length;
            let text = format!("bytes {start}-{}/{total}", total - 1);
            prop_assert_eq!(continues_at(&text, other, Some(total)), other == start);
        }
    }
}
