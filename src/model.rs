//! The vocabulary: ids, messages as they were seen, and the lines of the journal. Plain data; no I/O.

mod ids;
mod journal;
mod lane;
mod location;
mod message;

pub use ids::{AttachmentId, AttachmentKey, InvalidId, TeamKey, WriterId};
pub use journal::{
    FORMAT_VERSION, MessageLine, OutcomeKind, OutcomeLine, SegmentHeader, SegmentRef, Stream, UnsupportedVersion,
    Versioned,
};
pub use lane::Lane;
pub use location::{BucketLocation, InvalidLocation, Location, Provider};
pub use message::{Attachment, Conversation, Direction, Message, Payload, Position, Reject};
