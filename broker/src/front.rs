//! What every part of the front door shares: limits, rules, counters, and the ways to hub and log.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::{Access, Directory};
use crate::admission::Admission;
use crate::events::Events;
use crate::hub::{Closed, Command};
use crate::limits::Limits;
use crate::message::Clock;
use crate::rates::Rates;
use crate::session::KeptInAll;
use crate::spine;
use crate::statistics::Counters;

/// Shared by every connection; everything in it is a handle or never changes.
pub(crate) struct Front {
    pub(crate) limits: Limits,
    pub(crate) access: Arc<Access>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) events: Events,
    pub(crate) clock: Clock,
    pub(crate) spine: spine::Sender,
    pub(crate) commands: mpsc::Sender<Command>,
    /// Where each session says that it has ended. Unbounded, since whoever is dropped cannot wait: one word for each connection, whose number is bounded.
    pub(crate) closed: mpsc::UnboundedSender<Closed>,
    pub(crate) directory: watch::Sender<Arc<Directory>>,
    pub(crate) admission: Admission,
    /// How fast clients publish.
    pub(crate) rates: Arc<Rates>,
    /// What waits for clients that are held up.
    pub(crate) kept_in_all: Arc<KeptInAll>,
    /// Asks everything to stop.
    pub(crate) stop: CancellationToken,
    /// Every task that serves a connection, and the hub's small errands.
    pub(crate) tasks: TaskTracker,
}
