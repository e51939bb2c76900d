//! Attachment ids: Rails-like signed ids that carry all that is needed to serve the file, so that the simulator keeps
//! no list of files and any dump works with any simulator of the same seed and team.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::content::Kind;

/// How many bytes of the HMAC an id ends with: as many as Rails' own SHA-1 digest has.
const DIGEST_BYTES: usize = 20;
/// What stands before the data in the signed JSON.
const HEAD: &str = r#"{"_rails":{"data":""#;
/// What stands after it.
const TAIL: &str = r#"","pur":"blob_id"}}"#;

/// One stored file: which attachment it is, and which bytes it has. Files with equal `kind`, `content` and
/// `size_bytes` are equal byte for byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Blob {
    /// The attachment's own number.
    pub(super) number: u64,
    /// How the bytes are made.
    pub(super) kind: Kind,
    /// Which bytes of that kind.
    pub(super) content: u64,
    /// The size that the dump declares.
    pub(super) size_bytes: u64,
}

impl Blob {
    /// The blob as `number.kind.content.size`.
    pub(super) fn to_text(self) -> String {
        format!("{}.{}.{}.{}", self.number, self.kind.code(), self.content, self.size_bytes)
    }

    /// Reads what [`Blob::to_text`] wrote.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let blob = Self {
            number: parts.next()?.parse().ok()?,
            kind: Kind::from_code(parts.next()?)?,
            content: parts.next()?.parse().ok()?,
            size_bytes: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(blob)
    }
}

/// Signs and verifies ids.
#[derive(Debug, Clone)]
pub(super) struct IdKey(Hmac<Sha256>);

/// A keyed HMAC for one use, derived from the seed.
pub(super) fn derive_key(seed: u64, purpose: &str, team: &str) -> Hmac<Sha256> {
    let secret = format!("jellyjar sim\0{seed}\0{purpose}\0{team}");
    // HMAC takes keys of any length (RFC 2104 §2), so this cannot fail.
    Hmac::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length")
}

impl IdKey {
    /// The key of one team in the world of one seed.
    pub(super) fn new(seed: u64, team: &str) -> Self {
        Self(derive_key(seed, "blob_id", team))
    }

    /// The id of a blob: base64 with its padding, `--`, hex digest.
    pub(super) fn mint(&self, blob: Blob) -> String {
        let mut id = STANDARD.encode(format!("{HEAD}{}{TAIL}", blob.to_text()));
        let digest = self.digest(&id);
        id.push_str("--");
        HEXLOWER.encode_append(&digest, &mut id);
        id
    }

    /// The blob of an id that this key signed; `None` for any other text.
    pub(super) fn verify(&self, id: &str) -> Option<Blob> {
        let (data, digest) = id.rsplit_once("--")?;
        let mut buffer = [0; DIGEST_BYTES * 2];
        HEXLOWER.encode_mut(&self.digest(data), &mut buffer);
        if digest.as_bytes() != buffer {
            return None;
        }
        let json = String::from_utf8(STANDARD.decode(data).ok()?).ok()?;
        Blob::parse(json.strip_prefix(HEAD)?.strip_suffix(TAIL)?)
    }

    fn digest(&self, data: &str) -> [u8; DIGEST_BYTES] {
        let mut mac = self.0.clone();
        mac.update(data.as_bytes());
        let mut digest = [0; DIGEST_BYTES];
        digest.copy_from_slice(&mac.finalize().into_bytes()[..DIGEST_BYTES]);
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(number: u64) -> Blob {
        Blob { number, kind: Kind::Pdf, content: 7, size_bytes: 16_384 }
    }

    #[test]
    fn an_id_looks_like_a_rails_signed_id_and_verifies() {
        let key = IdKey::new(1, "");
        let mut padded = 0;
        for number in [0, 12, 123, 1_000, 4_294_967_296] {
            let id = key.mint(blob(number));
            assert!(id.starts_with("eyJfcmFpbHMi"), "{id}");
            assert!((95..=130).contains(&id.len()), "{} bytes", id.len());
            assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'=' || byte == b'-'), "{id}");
            assert_eq!(key.verify(&id), Some(blob(number)));
            padded += u32::from(id.contains('='));
        }
        assert!(padded > 0, "some ids must hold padding, as Rails' do");
    }

    #[test]
    fn a_tampered_or_foreign_id_is_refused() {
        let key = IdKey::new(1, "");
        let id = key.mint(blob(1));
        for at in 0..id.len() {
            let mut bytes = id.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(key.verify(&String::from_utf8(bytes).unwrap()), None, "byte {at}");
        }
        for junk in ["", "--", "../etc/passwd", &id[..id.len() - 1], &id.to_uppercase(), &format!("{id}x")] {
            assert_eq!(key.verify(junk), None, "{junk}");
        }
        assert_eq!(IdKey::new(2, "").verify(&id), None, "another seed");
        assert_eq!(IdKey::new(1, "other").verify(&id), None, "another team");
    }
}
