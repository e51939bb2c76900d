//! The inbox record (v1): one accepted webhook body as one line. The one place that knows its format.
//!
//! `{"v":1,"team":…,"received_at":…,"source":…,"body":…,"crc":"xxxxxxxx"}`: `body` is the body as a string, or
//! `body_base64` its base64 where it is no UTF-8 or base64 is shorter (which bounds a line's length); `crc` is the last
//! field, CRC32C (RFC 3720) over all bytes of the line before `,"crc":`, in eight lowercase hexadecimal digits.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc_fast::CrcAlgorithm;

use super::fields::{Key, Object};

/// The version that is written, and the newest that is read.
const VERSION: u64 = 1;
/// What stands before the checksum.
const CRC: &str = r#","crc":"#;
const KEYS: &[Key] = &[Key::V, Key::Team, Key::ReceivedAt, Key::Body, Key::BodyBase64, Key::Crc];

/// Makes the line of one accepted body, line break included. `source` says where it came from (`webhook`).
pub fn inbox_line(team: &str, received_at: jiff::Timestamp, source: &str, body: &[u8]) -> Vec<u8> {
    let mut line = Vec::with_capacity(inbox_line_bound(team, source, body.len()));
    let quoted = |line: &mut Vec<u8>, text: &str| {
        serde_json::to_writer(line, text).expect("writing a text as JSON into memory cannot fail");
    };
    line.extend_from_slice(format!(r#"{{"v":{VERSION},"team":"#).as_bytes());
    quoted(&mut line, team);
    line.extend_from_slice(format!(r#","received_at":"{received_at}","source":"#).as_bytes());
    quoted(&mut line, source);
    match std::str::from_utf8(body).ok().filter(|text| quoted_length(text) <= base64_length(text.len())) {
        Some(text) => {
            line.extend_from_slice(br#","body":"#);
            quoted(&mut line, text);
        }
        None => {
            line.extend_from_slice(br#","body_base64":""#);
            let start = line.len();
            line.resize(start + base64_length(body.len()), 0);
            let encoded = STANDARD.encode_slice(body, &mut line[start..]);
            line.truncate(start + encoded.expect("room was made for the whole text"));
            line.push(b'"');
        }
    }
    let crc = crc32c(&line);
    line.extend_from_slice(format!("{CRC}\"{crc:08x}\"}}\n").as_bytes());
    line
}

/// The most bytes that [`inbox_line`] makes of a body of `body_bytes`.
pub fn inbox_line_bound(team: &str, source: &str, body_bytes: usize) -> usize {
    // The rest: names of fields, a time, a checksum. An escape makes at most 6 bytes of one.
    let rest = 192 + 6 * (team.len() + source.len());
    base64_length(body_bytes).saturating_add(rest)
}

/// Whether a line begins as those do that [`inbox_line`] makes.
pub(super) fn is_record(line: &[u8]) -> bool {
    line.starts_with(br#"{"v":1,"team":"#)
}

/// When the webhook of a line came that [`inbox_line`] made; `None` for any other line.
pub fn inbox_received_at(line: &[u8]) -> Option<jiff::Timestamp> {
    const FIELD: &[u8] = br#","received_at":""#;
    // The team's name before it is short, and has no quotes.
    let head = &line[..line.len().min(512)];
    let rest = &head[memchr::memmem::find(head, FIELD)? + FIELD.len()..];
    let end = memchr::memchr(b'"', rest)?;
    std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
}

/// The length of a text as a JSON string, without its quotes.
fn quoted_length(text: &str) -> usize {
    let escape = |byte: u8| match byte {
        b'"' | b'\\' | 0x08 | 0x09 | 0x0a | 0x0c | 0x0d => 1,
        0..0x20 => 5,
        _ => 0,
    };
    text.bytes().fold(text.len(), |length, byte| length.saturating_add(escape(byte)))
}

/// The length of the base64 of so many bytes.
fn base64_length(bytes: usize) -> usize {
    bytes.div_ceil(3).saturating_mul(4)
}

/// What a record carries.
#[derive(Debug)]
pub(super) struct Body {
    /// The team it names.
    pub(super) team: Option<String>,
    /// The body, where it was text; otherwise it stands under `body`.
    pub(super) text: Option<String>,
}

/// Checks a record and takes its body out.
pub(super) fn read(record: &Object<'_>) -> Result<Body, String> {
    record.require_single(KEYS)?;
    let version = record.text(Key::V).and_then(|version| version.parse::<u64>().ok());
    match version {
        Some(1..=VERSION) => {}
        Some(version) if version > VERSION => {
            return Err(format!(
                "inbox record version {version} is newer than this jellyjar understands ({VERSION}); install a newer jellyjar"
            ));
        }
        _ => return Err("the inbox record's version is no whole number from 1".into()),
    }
    verify(record)?;
    let team = record.text(Key::Team).ok_or("the inbox record names no team")?;
    let text = match (record.get(Key::Body), record.get(Key::BodyBase64)) {
        (Some(body), _) if body.is_object() || body.is_array() => None,
        (Some(body), _) => Some(body.string().ok_or("the inbox record's body is no text")?.content.into_owned()),
        (None, Some(encoded)) => {
            let encoded = encoded.string().ok_or("the inbox record's body_base64 is no text")?;
            let bytes = STANDARD
                .decode(encoded.content.as_bytes())
                .map_err(|error| format!("the inbox record's body_base64 cannot be decoded: {error}"))?;
            Some(String::from_utf8(bytes).map_err(|_| "the inbox record's body is no UTF-8")?)
        }
        (None, None) => return Err("the inbox record has no body".into()),
    };
    Ok(Body { team: Some(team), text })
}

/// Checks `crc` where it is the last field, as it is written. A record that another program wrote anew (with other
/// white space or order) cannot be checked, and counts.
fn verify(record: &Object<'_>) -> Result<(), String> {
    if !record.has(Key::Crc) {
        return Ok(());
    }
    let line = record.value().text();
    let Some((covered, rest)) = line.rsplit_once(CRC) else { return Ok(()) };
    let Some(crc) = rest.strip_suffix('}').map(str::trim_ascii) else { return Ok(()) };
    let is_last = crc.len() <= 16 && !crc.contains([',', ':', '{', '}']);
    if is_last && crc != format!("\"{:08x}\"", crc32c(covered.as_bytes())) {
        return Err("the inbox record's crc is wrong: it was damaged after it was written".into());
    }
    Ok(())
}

fn crc32c(bytes: &[u8]) -> u32 {
    // A CRC32C has 32 bits; the crate gives every checksum as 64.
    u32::try_from(crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes)).unwrap_or_default()
}
