//! Walks over what Jelly lists.
mod listing;
