//! The bytes of stored files: made when they are asked for, at any offset, never held whole when they are large.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use md5::{Digest as _, Md5};

use super::files;
use super::ids::Blob;
use super::random::mix2;
use super::state::lock;

/// Objects above this size look like multipart uploads: their `ETag` is no MD5 and they carry no checksum.
pub(super) const MULTIPART_BYTES: u64 = 8 << 20;
/// How many bytes are made at once.
pub(super) const PIECE_BYTES: u64 = 64 << 10;
/// How many bytes of whole small files are kept.
const CACHED_FILE_BYTES: usize = 16 << 20;
/// How many checksums are kept.
const CACHED_SUMS: usize = 50_000;

/// How the bytes of a file are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Noise of any size.
    Plain,
    /// A page of text. Like all that follow: a real file of that type, as large as it comes out.
    Pdf,
    /// An RGB image.
    Png,
    /// A gray image.
    Jpeg,
    /// A small gray image.
    Gif,
    /// A text document.
    Docx,
    /// A spreadsheet.
    Xlsx,
    /// An archive of three files.
    Zip,
    /// A table as text.
    Csv,
    /// Some lines of text.
    Text,
    /// A forwarded message.
    Eml,
    /// A calendar invitation.
    Ics,
    /// A drawing.
    Svg,
    /// A page.
    Html,
}

/// The kinds, their codes (usual extensions) and their media types.
pub(super) const KINDS: [(Kind, &str, &str); 14] = [
    (Kind::Plain, "bin", "application/octet-stream"),
    (Kind::Pdf, "pdf", "application/pdf"),
    (Kind::Png, "png", "image/png"),
    (Kind::Jpeg, "jpg", "image/jpeg"),
    (Kind::Gif, "gif", "image/gif"),
    (Kind::Docx, "docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    (Kind::Xlsx, "xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    (Kind::Zip, "zip", "application/zip"),
    (Kind::Csv, "csv", "text/csv"),
    (Kind::Text, "txt", "text/plain"),
    (Kind::Eml, "eml", "message/rfc822"),
    (Kind::Ics, "ics", "text/calendar"),
    (Kind::Svg, "svg", "image/svg+xml"),
    (Kind::Html, "html", "text/html"),
];

impl Kind {
    /// Its code in ids and keys, which is also the usual extension.
    pub(super) const fn code(self) -> &'static str {
        KINDS[self as usize].1
    }

    /// The media type that messages declare.
    pub(super) const fn media_type(self) -> &'static str {
        KINDS[self as usize].2
    }

    /// The media type under which the storage serves it: never one that a browser would run.
    pub(super) const fn served_type(self) -> &'static str {
        match self {
            Self::Svg | Self::Html => "application/octet-stream",
            _ => self.media_type(),
        }
    }

    /// The kind of a code.
    pub(super) fn from_code(code: &str) -> Option<Self> {
        KINDS.iter().find(|(_, known, _)| *known == code).map(|(kind, ..)| *kind)
    }
}

/// The bytes of one file.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// Noise, made on the way.
    Noise(u64),
    /// A small file; blanks follow where more is asked for than there is.
    Whole(Bytes),
}

impl Source {
    /// Appends `count` bytes from `offset`.
    pub(super) fn fill(&self, offset: u64, count: u64, out: &mut Vec<u8>) {
        let start = out.len();
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        match self {
            Self::Noise(key) => {
                let lead = usize::try_from(offset % 8).unwrap_or(0);
                out.resize(start + lead + count, 0);
                let mut word = key.wrapping_add((offset / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                for chunk in out[start..].chunks_mut(8) {
                    let noise = (word ^ (word >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                    chunk.copy_from_slice(&(noise ^ (noise >> 32)).to_le_bytes()[..chunk.len()]);
                    word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
                }
                if lead > 0 {
                    out.drain(start..start + lead);
                }
                if offset == 0 && count > 0 {
                    // No text begins like this, so noise never passes for a page.
                    out[start] |= 0x80;
                }
            }
            Self::Whole(bytes) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                let to = from.saturating_add(count).min(bytes.len());
                out.extend_from_slice(&bytes[from..to]);
                out.resize(start + count, b' ');
            }
        }
    }
}

/// What the storage says about the bytes of an object.
#[derive(Debug)]
pub(super) struct Sums {
    /// The entity tag, with its quotes.
    pub(super) etag: String,
    /// Header lines with a checksum, each ended; none for most objects.
    pub(super) checksums: String,
}

/// Whole files that are kept.
#[derive(Debug, Default)]
struct Files {
    by_content: HashMap<(Kind, u64), Bytes>,
    held_bytes: usize,
}

/// Makes files and remembers what was costly to make.
#[derive(Debug)]
pub(super) struct Contents {
    seed: u64,
    with_checksums: bool,
    files: Mutex<Files>,
    sums: Mutex<HashMap<(Kind, u64, u64), Arc<Sums>>>,
}

impl Contents {
    /// The files of one seed. `with_checksums` lets three objects in four carry a checksum header beside the `ETag`.
    pub(super) fn new(seed: u64, with_checksums: bool) -> Self {
        Self { seed, with_checksums, files: Mutex::default(), sums: Mutex::default() }
    }

    /// The bytes of a blob.
    pub(super) fn source(&self, blob: Blob) -> Source {
        if blob.kind == Kind::Plain {
            return Source::Noise(mix2(self.seed, blob.content));
        }
        let name = (blob.kind, blob.content);
        if let Some(bytes) = lock(&self.files).by_content.get(&name) {
            return Source::Whole(bytes.clone());
        }
        let bytes = Bytes::from(files::make(blob.kind, self.seed, blob.content));
        let mut files = lock(&self.files);
        if files.held_bytes + bytes.len() > CACHED_FILE_BYTES {
            *files = Files::default();
        }
        if files.by_content.insert(name, bytes.clone()).is_none() {
            files.held_bytes += bytes.len();
        }
        Source::Whole(bytes)
    }

    /// The entity tag and checksums of the first `size_bytes` of a blob's bytes.
    pub(super) fn sums(&self, blob: Blob, source: &Source, size_bytes: u64) -> Arc<Sums> {
        let name = (blob.kind, blob.content, size_bytes);
        if let Some(sums) = lock(&self.sums).get(&name) {
            return Arc::clone(sums);
        }
        let sums = Arc::new(self.compute(blob, source, size_bytes));
        let mut held = lock(&self.sums);
        if held.len() >= CACHED_SUMS {
            held.clear();
        }
        held.insert(name, Arc::clone(&sums));
        sums
    }

    fn compute(&self, blob: Blob, source: &Source, size_bytes: u64) -> Sums {
        let draw = mix2(self.seed ^ 0x5eed, mix2(blob.content, blob.kind as u64));
        if size_bytes > MULTIPART_BYTES {
            let (high, low) = (draw, mix2(draw, 1));
            let etag = format!("\"{high:016x}{low:016x}-{}\"", size_bytes.div_ceil(MULTIPART_BYTES));
            return Sums { etag, checksums: String::new() };
        }
        let style = if self.with_checksums { draw % 4 } else { 0 };
        let (mut md5, mut sha256, mut crc32c) =
            (Md5::new(), crate::digest::Hasher::default(), crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi));
        let (mut at, mut piece) = (0, Vec::new());
        while at < size_bytes {
            let count = PIECE_BYTES.min(size_bytes - at);
            piece.clear();
            source.fill(at, count, &mut piece);
            md5.update(&piece);
            match style {
                1 => sha256.update(&piece),
                3 => crc32c.update(&piece),
                _ => {}
            }
            at += count;
        }
        let md5 = md5.finalize();
        let md5_base64 = STANDARD.encode(md5);
        let checksums = match style {
            1 => format!("x-amz-checksum-sha256: {}\r\n", STANDARD.encode(sha256.finish().as_bytes())),
            2 => format!("Content-MD5: {md5_base64}\r\n"),
            3 => {
                let crc = u32::try_from(crc32c.finalize() & 0xffff_ffff).unwrap_or(0);
                format!(
                    "x-goog-hash: crc32c={}\r\nx-goog-hash: md5={md5_base64}\r\n",
                    STANDARD.encode(crc.to_be_bytes())
                )
            }
            _ => String::new(),
        };
        Sums { etag: format!("\"{}\"", HEXLOWER.encode(&md5)), checksums }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_in_the_order_of_the_enum() {
        for (index, (kind, code, _)) in KINDS.iter().enumerate() {
            assert_eq!(*kind as usize, index);
            assert_eq!(Kind::from_code(code), Some(*kind));
        }
    }

    #[test]
    fn any_range_of_noise_equals_that_part_of_the_whole() {
        let source = Source::Noise(42);
        let mut whole = Vec::new();
        source.fill(0, 1000, &mut whole);
        assert_eq!(whole.len(), 1000);
        for (offset, count) in [(0, 0), (0, 1), (1, 1), (7, 2), (8, 8), (13, 500), (999, 1)] {
            let mut part = b"before".to_vec();
            source.fill(offset, count, &mut part);
            let (from, to) = (usize::try_from(offset).unwrap(), usize::try_from(offset + count).unwrap());
            assert_eq!(&part[6..], &whole[from..to], "{offset} + {count}");
        }
        let distinct: std::collections::HashSet<_> = whole.chunks(8).collect();
        assert_eq!(distinct.len(), 125, "noise must not repeat");
    }

    #[test]
    fn every_kind_of_checksum_occurs_and_an_etag_is_the_md5() {
        let contents = Contents::new(1, true);
        let (mut sha256, mut md5, mut goog) = (0, 0, 0);
        for content in 0..64 {
            let blob = Blob { number: 0, kind: Kind::Plain, content, size_bytes: 3 };
            let source = contents.source(blob);
            let sums = contents.sums(blob, &source, 3);
            let mut bytes = Vec::new();
            source.fill(0, 3, &mut bytes);
            assert_eq!(sums.etag, format!("\"{}\"", HEXLOWER.encode(&Md5::digest(&bytes))));
            sha256 += u32::from(sums.checksums.contains("x-amz-checksum-sha256"));
            md5 += u32::from(sums.checksums.contains("Content-MD5"));
            goog += u32::from(sums.checksums.contains("crc32c="));
        }
        assert!(sha256 > 0 && md5 > 0 && goog > 0, "{sha256} {md5} {goog}");
    }

    #[test]
    fn a_large_object_has_a_multipart_etag() {
        let blob = Blob { number: 0, kind: Kind::Plain, content: 1, size_bytes: 48 << 20 };
        let contents = Contents::new(1, true);
        let sums = contents.sums(blob, &contents.source(blob), blob.size_bytes);
        assert!(sums.etag.ends_with("-6\""), "{}", sums.etag);
    }
}
