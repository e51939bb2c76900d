//! A team's mail, deterministic by seed: as dumps, and as the API lists it. Its ids are such that a simulator of that
//! seed and team serves them with exactly the bytes that are declared.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub(super) mod mail;
pub(super) mod plain;
pub(super) mod realistic;

pub use plain::write as write_plain;

/// What the mail is like.
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

/// Which mail a team has.
#[derive(Debug, Clone)]
pub struct CorpusConfig {
    /// The simulator's seed.
    pub seed: u64,
    /// The simulator's team.
    pub team: String,
    /// What the mail is like.
    pub profile: Profile,
    /// How many messages there are.
    pub messages: u64,
    /// `Plain`: how many messages each conversation has; at least one.
    pub messages_per_conversation: u64,
    /// `Plain`: of 100 conversations, how many have attachments.
    pub with_files_percent: u64,
    /// `Plain`: how many attachments each message of those conversations has.
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
            messages_per_conversation: 3,
            with_files_percent: 100,
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
            let mut summary = plain::write(config, &mut out)?;
            out.flush()?;
            summary.files.push(path);
            Ok(summary)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ids::IdKey;
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
