//! Checksums that are computed while bytes stream: SHA-256 always, others where an answer names them.

use md5::Digest as _;

use crate::digest::{Digest, Hasher};

/// A kind of checksum that storage services declare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SumKind {
    /// SHA-256.
    Sha256,
    /// SHA-1.
    Sha1,
    /// MD5.
    Md5,
    /// CRC-32 (ISO-HDLC).
    Crc32,
    /// CRC-32C (Castagnoli).
    Crc32c,
    /// CRC-64/NVME.
    Crc64Nvme,
}

impl SumKind {
    /// Its name, as people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA-256",
            Self::Sha1 => "SHA-1",
            Self::Md5 => "MD5",
            Self::Crc32 => "CRC-32",
            Self::Crc32c => "CRC-32C",
            Self::Crc64Nvme => "CRC-64/NVME",
        }
    }

    /// The length of a value, in bytes.
    pub fn length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha1 => 20,
            Self::Md5 => 16,
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
        }
    }
}

/// The sums of a stream so far.
pub(super) struct Hashes {
    sha256: Hasher,
    extra: Vec<(SumKind, Running)>,
}

enum Running {
    Sha1(sha1::Sha1),
    Md5(md5::Md5),
    Crc(crc_fast::Digest),
}

impl Hashes {
    /// Computes SHA-256 and each of `kinds` once.
    pub(super) fn new(kinds: &[SumKind]) -> Self {
        let mut extra: Vec<(SumKind, Running)> = Vec::new();
        for kind in kinds {
            if extra.iter().any(|(known, _)| known == kind) {
                continue;
            }
            let crc = |algorithm| Running::Crc(crc_fast::Digest::new(algorithm));
            let running = match kind {
                SumKind::Sha256 => continue,
                SumKind::Sha1 => Running::Sha1(sha1::Sha1::new()),
                SumKind::Md5 => Running::Md5(md5::Md5::new()),
                SumKind::Crc32 => crc(crc_fast::CrcAlgorithm::Crc32IsoHdlc),
                SumKind::Crc32c => crc(crc_fast::CrcAlgorithm::Crc32Iscsi),
                SumKind::Crc64Nvme => crc(crc_fast::CrcAlgorithm::Crc64Nvme),
            };
            extra.push((*kind, running));
        }
        Self { sha256: Hasher::default(), extra }
    }

    /// Takes the next bytes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        for (_, running) in &mut self.extra {
            match running {
                Running::Sha1(sum) => sum.update(bytes),
                Running::Md5(sum) => sum.update(bytes),
                Running::Crc(sum) => sum.update(bytes),
            }
        }
    }

    /// The digest, and the other sums as the bytes that headers carry in base64 (CRCs big-endian).
    pub(super) fn finish(self) -> (Digest, Vec<(SumKind, Vec<u8>)>) {
        let extra = self.extra.into_iter().map(|(kind, running)| {
            let value = match running {
                Running::Sha1(sum) => sum.finalize().to_vec(),
                Running::Md5(sum) => sum.finalize().to_vec(),
                Running::Crc(sum) => sum.finalize().to_be_bytes()[8 - kind.length()..].to_vec(),
            };
            (kind, value)
        });
        (self.sha256.finish(), extra.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_gives_its_published_check_value() {
        // The check values of "123456789": RFC 3720 B.4 and the CRC catalogue; RFC 1321 and RFC 3174 style sums.
        let kinds = [SumKind::Sha256, SumKind::Sha1, SumKind::Md5, SumKind::Crc32, SumKind::Crc32c, SumKind::Crc64Nvme];
        let mut hashes = Hashes::new(&[&kinds[..], &kinds[..]].concat());
        hashes.update(b"1234");
        hashes.update(b"56789");
        let (digest, sums) = hashes.finish();
        assert_eq!(digest, Digest::of(b"123456789"));
        let text = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let sums: Vec<_> = sums.iter().map(|(kind, value)| (kind.name(), text(value))).collect();
        assert_eq!(
            sums,
            [
                ("SHA-1", "f7c3bc1d808e04732adf679965ccc34ca7ae3441".to_owned()),
                ("MD5", "25f9e794323b453885f5181f1b624d0b".to_owned()),
                ("CRC-32", "cbf43926".to_owned()),
                ("CRC-32C", "e3069283".to_owned()),
                ("CRC-64/NVME", "ae8b14860a799888".to_owned()),
            ]
        );
    }
}
