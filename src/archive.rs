//! One attachment from its lease to its outcome: exchange, fetch, check, and then, a batch at a time, store and record.

mod attempt;
mod commit;
mod hold;
mod token;
mod writing;

pub use attempt::{Fetcher, Finished, LOCAL_SCOPE, TeamAccess};
pub use commit::{CommitError, Committer, Tally};
pub use hold::Holds;
pub use token::OwnToken;
pub use writing::Writing;
