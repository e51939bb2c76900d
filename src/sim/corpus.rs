//! Dumps: what a team would have saved of its mail, deterministic by seed, with ids that a simulator of that seed and
//! team serves with exactly the bytes that are declared.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::content::Kind;
use super::ids::{Blob, IdKey};
use super::random::mix2;

mod mail;
mod realistic;

/// What a dump is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// A few hundred messages of a small company: several formats of dump, real files, awkward names.
    #[default]
    Realistic,
    /// One file of webhook events whose attachments are noise; a million messages take seconds.
    Plain,
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "realistic" => Ok(Self::Realistic),
            "plain" => Ok(Self::Plain),
            _ => Err(format!("{text:?} is no profile: there are \"realistic\" and \"plain\"")),
        }
    }
}

/// Which dump to write.
#[derive(Debug, Clone)]
pub struct CorpusConfig {
    /// The simulator's seed.
    pub seed: u64,
    /// The simulator's team.
    pub team: String,
    /// What the dump is like.
    pub profile: Profile,
    /// How many messages it has.
    pub messages: u64,
    /// `Plain`: how many attachments each message has.
    pub attachments_per_message: u64,
    /// `Plain`: how many different contents there are; 0 gives each attachment its own.
    pub contents: u64,
    /// `Plain`: the smallest and the largest attachment, in bytes.
    pub sizes: (u64, u64),
    /// `Plain`: the number of the first message. Dumps of different numbers have different messages and attachments.
    pub first_message: u64,
    /// What `url` fields begin with. A client must never send its token there.
    pub url_base: String,
}

impl Default for CorpusConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            team: String::new(),
            profile: Profile::Realistic,
            messages: 300,
            attachments_per_message: 1,
            contents: 0,
            sizes: (4 << 10, 64 << 10),
            first_message: 0,
            url_base: "https://app.letsjelly.com/api".into(),
        }
    }
}

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// The files, in order.
    pub files: Vec<PathBuf>,
    /// Messages, each counted once.
    pub messages: u64,
    /// Different attachment ids.
    pub attachments: u64,
    /// Those of them that are inline wherever they occur.
    pub inline: u64,
    /// Different contents among those that are not.
    pub contents: u64,
    /// The declared sizes of those that are not inline, together.
    pub bytes: u64,
}

/// Writes a dump into a folder, which is made if need be. Existing files of the same names are replaced.
pub fn write_dump(config: &CorpusConfig, folder: &Path) -> io::Result<Summary> {
    std::fs::create_dir_all(folder)?;
    match config.profile {
        Profile::Realistic => realistic::write(config, folder),
        Profile::Plain => {
            let path = folder.join("webhooks.jsonl");
            let mut out = BufWriter::with_capacity(1 << 20, File::create(&path)?);
            let mut summary = write_plain(config, &mut out)?;
            out.flush()?;
            summary.files.push(path);
            Ok(summary)
        }
    }
}

/// Writes the plain dump as JSON Lines: one webhook event for each message.
pub fn write_plain(config: &CorpusConfig, out: &mut impl Write) -> io::Result<Summary> {
    let ids = IdKey::new(config.seed, &config.team);
    let mut summary = Summary { messages: config.messages, ..Summary::default() };
    let mut seen = vec![false; usize::try_from(config.contents).map_err(io::Error::other)?];
    let mut line = Vec::with_capacity(4 << 10);
    let numbers = config.first_message..config.first_message.saturating_add(config.messages);
    for number in numbers {
        line.clear();
        let (day, hour, minute) = (1 + number / 1440 % 28, number / 60 % 24, number % 60);
        let count = config.attachments_per_message;
        let inbound = number % 4 != 0;
        let time = format!("2026-10-{day:02}T{hour:02}:{minute:02}:00Z");
        write!(
            line,
            "{{\"event\":\"new_message\",\"created_at\":\"{time}\",\"data\":{{\"message\":{{\"id\":\"m{number}\",\
             \"conversation_id\":\"c{conversation}\",\"subject\":\"Message {number}\",\"inbound\":{inbound},\
             \"sent_at\":\"{time}\",\"from\":[\"person{person}@customers.example\"],\"to\":[\"team@harbour.example\"],\
             \"cc\":[],\"text_body\":\"Please find the files attached.\",\"attachments_count\":{count},\"attachments\":[",
            conversation = number / 3,
            person = number % 97,
        )?;
        for index in 0..count {
            let blob = plain_blob(config, number * count + index);
            let fresh = match usize::try_from(blob.content).ok().and_then(|content| seen.get_mut(content)) {
                Some(seen) => !std::mem::replace(seen, true),
                None => true,
            };
            summary.contents += u64::from(fresh);
            summary.bytes += blob.size_bytes;
            let id = ids.mint(blob);
            write!(
                line,
                "{comma}{{\"id\":\"{id}\",\"filename\":\"file-{file}.bin\",\"content_type\":\"application/octet-stream\",\
                 \"byte_size\":{size},\"inline\":false,\"url\":\"{base}/attachments/{id}\"}}",
                comma = if index == 0 { "" } else { "," },
                file = blob.number,
                size = blob.size_bytes,
                base = config.url_base,
            )?;
        }
        writeln!(
            line,
            "]}},\"conversation\":{{\"id\":\"c{conversation}\",\"subject\":\"Message {number}\",\"labels\":[],\
             \"mailboxes\":[{{\"id\":1,\"name\":\"Support\"}}]}},\"is_new_conversation\":{is_new}}}}}",
            conversation = number / 3,
            is_new = number % 3 == 0,
        )?;
        out.write_all(&line)?;
    }
    summary.attachments = config.messages * config.attachments_per_message;
    Ok(summary)
}

/// The file of plain attachment `number`: the first ones go through all contents, the others repeat them.
fn plain_blob(config: &CorpusConfig, number: u64) -> Blob {
    let content = match config.contents {
        0 => number,
        contents if number < contents => number,
        contents => mix2(config.seed, number) % contents,
    };
    let (min, max) = config.sizes;
    let span = max.saturating_sub(min).saturating_add(1);
    let size_bytes = min + mix2(config.seed ^ 0x512e, content) % span;
    Blob { number, kind: Kind::Plain, content, size_bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_dump_declares_what_its_ids_stand_for() {
        let config = CorpusConfig {
            profile: Profile::Plain,
            messages: 50,
            attachments_per_message: 3,
            contents: 20,
            sizes: (10, 99),
            ..CorpusConfig::default()
        };
        let mut text = Vec::new();
        let summary = write_plain(&config, &mut text).unwrap();
        let ids = IdKey::new(1, "");
        let (mut contents, mut bytes, mut numbers) =
            (std::collections::HashSet::new(), 0, std::collections::HashSet::new());
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let event: serde_json::Value = serde_json::from_slice(line).unwrap();
            let attachments = event["data"]["message"]["attachments"].as_array().unwrap();
            assert_eq!(event["data"]["message"]["attachments_count"], attachments.len());
            for attachment in attachments {
                let blob = ids.verify(attachment["id"].as_str().unwrap()).unwrap();
                assert_eq!(attachment["byte_size"], blob.size_bytes);
                contents.insert((blob.content, blob.size_bytes));
                numbers.insert(blob.number);
                bytes += blob.size_bytes;
            }
        }
        assert_eq!((contents.len() as u64, bytes), (summary.contents, summary.bytes));
        assert_eq!((contents.len(), numbers.len(), summary.attachments), (20, 150, 150));
        let mut again = Vec::new();
        write_plain(&config, &mut again).unwrap();
        assert!(text == again, "a dump is a function of its configuration");
    }
}
