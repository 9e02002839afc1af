//! The catalogue: which tasks may run, with which arguments, where and by whom.
//!
//! [`Catalogue::check`] is the only maker of an [`ApprovedTask`], and only an [`ApprovedTask`] can
//! be signed: what the catalogue does not describe cannot leave the controller. It refuses shells:
//! a command is an argv, and an argument never becomes more than one element of it.

mod approved;
pub mod argument;
mod check;
mod command;
mod parse;
mod parse_argument;
mod refusal;
mod task;

pub use approved::ApprovedTask;
pub use check::{Ask, MachineFacts};
pub use refusal::{Refusal, RefusalKind};
pub use task::{Catalogue, SHIPPED, Task};
