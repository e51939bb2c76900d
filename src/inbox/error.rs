//! What can go wrong with the inbox, in words for people.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::SegmentId;

/// Why the inbox cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the inbox {} is in use by another `jellyjar serve`; stop that one, or give this one a folder of its own \
             (inbox.folder)", .0.display())]
    Locked(PathBuf),
    /// It would be in memory.
    #[error("the inbox {} would be in memory (tmpfs), where accepted webhooks do not survive a crash; set `folder` under \
             [inbox] to a folder on a disk, or `allow_tmpfs` if that is meant", .0.display())]
    InMemory(PathBuf),
    /// A team's name is no safe name of a folder.
    #[error("the team {0:?} cannot have an inbox: its name is no name of a folder")]
    TeamName(String),
    /// The system refused something.
    #[error("cannot {action} {} for the inbox", .path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl OpenError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// Why a webhook was not accepted. It may be in the inbox nevertheless after [`AppendError::Failed`] and
/// [`AppendError::TimedOut`]; taking it in twice does no harm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The inbox was opened without this team.
    #[error("the inbox knows no team {0:?}")]
    UnknownTeam(String),
    /// More wait to be written than may; soon there is room again.
    #[error("too many webhooks wait to be written to the inbox (inbox.max_waiting, inbox.max_waiting_size)")]
    Overloaded,
    /// There is no room on the disk, or none of what the inbox may take.
    #[error("{0}")]
    Full(String),
    /// The system refused to write.
    #[error("cannot {action} {}: {reason}", .path.display())]
    Failed {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's answer.
        reason: String,
    },
    /// The disk did not answer in time.
    #[error("the inbox was not written within {0:?} (inbox.write_timeout); is its disk overloaded or gone?")]
    TimedOut(Duration),
    /// The inbox was closed.
    #[error("the inbox is closed")]
    Closed,
}

impl AppendError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Failed { action, path, reason: error.to_string() }
    }

    /// When the sender should come again.
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::Overloaded => Duration::from_secs(1),
            Self::Failed { .. } | Self::TimedOut(_) | Self::Closed => Duration::from_secs(5),
            Self::Full(_) | Self::UnknownTeam(_) => Duration::from_mins(1),
        }
    }
}

/// Why a segment cannot be read or removed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The inbox was opened without this team.
    #[error("the inbox knows no team {0:?}")]
    UnknownTeam(String),
    /// The system refused to read.
    #[error("cannot read the inbox segment {} at byte {offset}; reading goes on once that works, or once the file is \
             moved away", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// The system's answer.
        source: io::Error,
    },
    /// The system refused to remove it.
    #[error("cannot remove the inbox segment {}", .path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It may still grow.
    #[error("the inbox segment {0} is still written to and is not removed")]
    Open(SegmentId),
}
