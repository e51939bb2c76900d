//! Judging by changed rules what the journal has shown: it holds every input of a rule, so no dump is needed.

use std::collections::{HashMap, HashSet};

use super::{AttachmentRef, Intake, ReloadError, Team};
use crate::catalog::IngestReference;
use crate::model::{Message, MessageLine, Stream, TeamKey};
use crate::store::SegmentReader;

/// Attachments that are judged in one statement.
const BATCH_REFERENCES: usize = 4_000;
/// How often the journal is listed, at most, while compaction moves segments.
const PASSES: usize = 5;

impl Intake {
    /// Reads every message line of the journal, and notes in the catalog what the rules say of its attachments: see
    /// [`Catalog::judged`](crate::catalog::Catalog::judged). Lines of teams without rules (`None`) are left out. Gives
    /// how many lines were judged.
    pub async fn judge(&self, rules: &(dyn Fn(&TeamKey) -> Option<Team> + Send + Sync)) -> Result<u64, ReloadError> {
        self.catalog.begin_judging().await?;
        let mut lines = 0;
        let mut waiting: HashMap<TeamKey, (Team, Vec<IngestReference>)> = HashMap::new();
        let mut read: HashSet<String> = HashSet::new();
        for _ in 0..PASSES {
            let mut gone = false;
            for key in self.archive.segments(Stream::Messages).await? {
                if read.contains(&key) {
                    continue;
                }
                let Some(mut reader) = SegmentReader::open(&self.archive, &key).await? else {
                    // Compaction has removed it since it was listed; the next listing has what replaces it.
                    gone = true;
                    continue;
                };
                while let Some(line) = reader.next_line::<MessageLine>().await? {
                    if !waiting.contains_key(&line.team)
                        && let Some(mut team) = rules(&line.team)
                    {
                        team.row = self.catalog.bind_team(self.archive_row, &line.team).await?;
                        waiting.insert(line.team.clone(), (team, Vec::new()));
                    }
                    let Some((team, references)) = waiting.get_mut(&line.team) else { continue };
                    let message: Message = line.into_message();
                    references.extend(AttachmentRef::of(team, &message).into_iter().map(|one| one.reference));
                    lines += 1;
                    if references.len() >= BATCH_REFERENCES {
                        self.catalog.judge(team.row, references).await?;
                        references.clear();
                    }
                }
                read.insert(key);
            }
            if !gone {
                break;
            }
        }
        for (team, references) in waiting.values().filter(|(_, references)| !references.is_empty()) {
            self.catalog.judge(team.row, references).await?;
        }
        Ok(lines)
    }
}
