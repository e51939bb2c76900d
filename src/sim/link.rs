//! Signed links: minted at an exchange, verified byte for byte by the storage, dead after their time.

use std::fmt::Write as _;

use data_encoding::HEXLOWER;
use hmac::{Hmac, Mac as _};
use jiff::Timestamp;
use sha2::Sha256;

use super::ids::{Blob, derive_key};
use super::random::{Random, mix2};

const BUCKET: &str = "/jelly-sim-attachments/";
const SIGNATURE: &str = "&X-Amz-Signature=";
const EXPIRES: &str = "&X-Sim-Expires-Ms=";
/// One unit of the opaque security token, with percent-encoding of its own.
const TOKEN_UNIT_BYTES: usize = 8;

/// Why the storage refuses a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not, byte for byte, a link that was given out for this method and host.
    Signature,
    /// Its time is over.
    Expired,
}

/// Mints and verifies links.
#[derive(Debug)]
pub(super) struct LinkKey {
    key: Hmac<Sha256>,
    seed: u64,
    filler: String,
}

impl LinkKey {
    /// The storage's key in the world of one seed.
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed, 0x11e7);
        let mut filler = String::new();
        for _ in 0..800 {
            let _ = write!(filler, "{:05x}%2{}", random.below(1 << 20), ['B', 'F'][usize::from(random.chance(50))]);
        }
        Self { key: derive_key(seed, "storage link", ""), seed, filler }
    }

    /// Appends path and query of a fresh link that dies at `expires_ms` (Unix milliseconds). No two `nonce`s give the
    /// same link.
    pub(super) fn mint(&self, blob: Blob, host: &str, now: Timestamp, expires_ms: i64, nonce: u64, out: &mut String) {
        let start = out.len();
        let draw = mix2(self.seed ^ blob.number, nonce);
        // Most links are short; one in sixteen is as long as the longest that were seen.
        let units = if draw.is_multiple_of(16) { 600 + draw % 200 } else { 8 + draw % 100 };
        let units = usize::try_from(units).unwrap_or(8);
        let seconds = expires_ms.saturating_sub(now.as_millisecond()).max(0) / 1000;
        let date = now.strftime("%Y%m%d");
        let time = now.strftime("%Y%m%dT%H%M%SZ");
        let _ = write!(
            out,
            "{BUCKET}{key}?response-content-disposition=attachment%3B%20filename%3D%22Caf%3F%20{number}.{code}%22%3B%20\
             filename%2A%3DUTF-8%27%27Caf%25C3%25A9%2520{number}%2520%252B%2520%25E2%2582%25AC.{code}\
             &response-content-type=application%2Foctet-stream&X-Amz-Algorithm=AWS4-HMAC-SHA256\
             &X-Amz-Credential=SIMULATED%2F{date}%2Feu-central-1%2Fs3%2Faws4_request&X-Amz-Date={time}\
             &X-Amz-Expires={seconds}&X-Amz-Security-Token={draw:016x}{token}%3D%3D&X-Amz-SignedHeaders=host\
             &x-id=GetObject&X-Sim-Nonce={nonce}{EXPIRES}{expires_ms}",
            key = blob.to_text(),
            number = blob.number,
            code = blob.kind.code(),
            token = &self.filler[..units * TOKEN_UNIT_BYTES],
        );
        let signature = self.signature("GET", host, &out[start..]);
        out.push_str(SIGNATURE);
        out.push_str(&signature);
    }

    /// The blob that a request target gives access to.
    pub(super) fn verify(&self, method: &str, host: &str, target: &str, now_ms: i64) -> Result<Blob, Refusal> {
        let (signed, signature) = target.rsplit_once(SIGNATURE).ok_or(Refusal::Signature)?;
        if self.signature(method, host, signed) != signature {
            return Err(Refusal::Signature);
        }
        let key = signed.strip_prefix(BUCKET).and_then(|rest| rest.split_once('?')).map(|(key, _)| key);
        let blob = key.and_then(Blob::parse).ok_or(Refusal::Signature)?;
        let expires_ms = signed.rsplit_once(EXPIRES).and_then(|(_, text)| text.parse::<i64>().ok());
        if expires_ms.is_none_or(|expires_ms| now_ms >= expires_ms) {
            return Err(Refusal::Expired);
        }
        Ok(blob)
    }

    fn signature(&self, method: &str, host: &str, signed: &str) -> String {
        let mut mac = self.key.clone();
        for part in [method, host, signed] {
            mac.update(part.as_bytes());
            mac.update(b"\n");
        }
        HEXLOWER.encode(&mac.finalize().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::super::content::Kind;
    use super::*;

    const HOST: &str = "127.0.0.1:9000";
    const BLOB: Blob = Blob { number: 5, kind: Kind::Pdf, content: 6, size_bytes: 7 };

    fn link(key: &LinkKey, nonce: u64) -> String {
        let mut target = String::new();
        key.mint(BLOB, HOST, Timestamp::UNIX_EPOCH, 300_000, nonce, &mut target);
        target
    }

    #[test]
    fn a_link_works_until_it_expires() {
        let key = LinkKey::new(1);
        let target = link(&key, 0);
        assert_eq!(key.verify("GET", HOST, &target, 299_999), Ok(BLOB));
        assert_eq!(key.verify("GET", HOST, &target, 300_000), Err(Refusal::Expired));
    }

    #[test]
    fn any_changed_byte_breaks_the_signature() {
        let key = LinkKey::new(1);
        let target = link(&key, 1);
        for at in 0..target.len() {
            let mut bytes = target.clone().into_bytes();
            bytes[at] = if bytes[at] == b'1' { b'2' } else { b'1' };
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(key.verify("GET", HOST, &changed, 0), Err(Refusal::Signature), "byte {at}");
        }
        for changed in [target.replace("%2B", "%2b"), target.replace("%20", "+"), target.replace("%25C3", "%C3")] {
            assert_ne!(changed, target);
            assert_eq!(key.verify("GET", HOST, &changed, 0), Err(Refusal::Signature));
        }
        assert_eq!(key.verify("HEAD", HOST, &target, 0), Err(Refusal::Signature));
        assert_eq!(key.verify("GET", "localhost:9000", &target, 0), Err(Refusal::Signature));
        assert_eq!(LinkKey::new(2).verify("GET", HOST, &target, 0), Err(Refusal::Signature));
    }

    #[test]
    fn links_differ_and_vary_in_length() {
        let key = LinkKey::new(1);
        let links: Vec<_> = (0..200).map(|nonce| link(&key, nonce)).collect();
        let distinct: std::collections::HashSet<_> = links.iter().collect();
        assert_eq!(distinct.len(), 200);
        assert!(links.iter().all(|link| (400..7000).contains(&link.len())));
        assert!(links.iter().any(|link| link.len() > 5000) && links.iter().any(|link| link.len() < 1000));
    }
}
