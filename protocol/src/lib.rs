//! What travels.
pub mod id;
pub mod topic;
