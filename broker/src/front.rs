//! What every part of the front door shares: limits, rules, counters, and the ways to hub and log.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::{Access, Directory};
use crate::admission::Admission;
use crate::contract::{Closed, Command};
use crate::events::Events;
use crate::incomplete::Incomplete;
use crate::limits::Limits;
use crate::message::Clock;
use crate::rates::Rates;
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
    /// Where each session reports its end. Unbounded, since `Drop` cannot wait: one message for
    /// each connection, whose number is bounded.
    pub(crate) closed: mpsc::UnboundedSender<Closed>,
    pub(crate) directory: watch::Sender<Arc<Directory>>,
    pub(crate) admission: Admission,
    /// How fast clients publish.
    pub(crate) rates: Arc<Rates>,
    /// How much of packets that are not complete each account holds.
    pub(crate) incomplete: Arc<Incomplete>,
    /// Bytes of unread input that are buffered for all throttled publishers.
    pub(crate) throttled_bytes: Arc<AtomicUsize>,
    /// Asks everything to stop.
    pub(crate) stop: CancellationToken,
    /// Every task that serves a connection, and the hub's small errands.
    pub(crate) tasks: TaskTracker,
}
