//! The hub at the start, with everything that the state folder held.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use pistat_broker::BrokerHandle;
use pistat_protocol::dashboard::{EventKind, Severity};
use tokio::sync::watch;

use super::{
    Hub, Recorder, agents, attempts, audit, commits, counters, feed::Feed, homeassistant, joining, lanes::Lanes,
    leftovers, outbox, republish, runs, schedule, sessions,
};
use crate::{
    access::{Access, SecretHash, Uses},
    catalogue::Catalogue,
    config::Config,
    fleet::{Fleet, Now},
    own_address::OwnAddress,
    runs::{KeptRuns, Runs},
    store::{Loaded, Store},
};

/// What the hub is made of.
pub(crate) struct HubParts {
    pub(crate) config: Arc<Config>,
    pub(crate) catalogue: Catalogue,
    pub(crate) store: Store,
    pub(crate) loaded: Loaded,
    pub(crate) broker: Option<BrokerHandle>,
    pub(crate) controller_secret: SecretHash,
    pub(crate) access: watch::Sender<Arc<Access>>,
    pub(crate) uses: watch::Sender<Arc<Uses>>,
    pub(crate) mqtt: Option<SocketAddr>,
    pub(crate) own_address: Arc<OwnAddress>,
    pub(crate) history: Recorder,
}

impl Hub {
    /// The hub at the start, with everything that the state folder held.
    pub(crate) fn new(parts: HubParts) -> Self {
        let HubParts {
            config,
            catalogue,
            store,
            loaded,
            broker,
            controller_secret,
            access,
            uses,
            mqtt,
            own_address,
            history,
        } = parts;
        let now = Now::get();
        // Whoever has an open run is known, whatever else was lost: what is not known is neither
        // offline nor silent, and its runs would never end.
        let busy = loaded.open_runs.iter().map(|(record, _)| record.run.pi.clone());
        let enrolled = loaded.access.agents().filter(|agent| agent.secret_sha256.is_some());
        let known: Vec<_> = enrolled.map(|agent| agent.pi.clone()).chain(busy).collect();
        let quota = joining::Quota::new(loaded.access.agents().filter_map(|agent| agent.enrolled_at), now);
        let mut republish = republish::Republish::default();
        republish.ended(loaded.retained_runs.iter().map(|record| record.run.clone()));
        let kept = KeptRuns {
            open: loaded.open_runs,
            retained: loaded.retained_runs,
            recent: loaded.recent_runs,
            requests: loaded.requests,
            groups: loaded.groups,
        };
        let newest_id = kept.recent.iter().map(|record| record.run.id.unix_milliseconds()).max();
        let mut hub = Self {
            topics: config.mqtt.topics.clone(),
            runs: Runs::new(kept, config.runs.per_machine as usize, config.runs.lost_after, now.monotonic),
            fleet: Fleet::new(loaded.given, known.into_iter(), now),
            schedules: schedule::Schedules::new(&catalogue, now.wall),
            announcer: homeassistant::announcer(&config, loaded.announced),
            catalogue,
            uses: sessions::UsesKept::new(&loaded.access, uses, now),
            access: Arc::new(loaded.access),
            access_watch: access,
            attempts: attempts::Attempts::default(),
            quota,
            controller_secret,
            key: loaded.key,
            join_token: loaded.join_token,
            lanes: Lanes::default(),
            agents: agents::Agents::default(),
            refused_reports: runs::RefusedReports::default(),
            commits: commits::Commits::new(store),
            outbox: outbox::Outbox::default(),
            feed: Feed::new(),
            history,
            audit: audit::Audit::new(loaded.events),
            followers: HashMap::new(),
            leftovers: leftovers::Leftovers::new(&loaded.prefixes, &config.mqtt.topics),
            republish,
            counters: counters::Counters::new(now.monotonic),
            last_id_milliseconds: newest_id.unwrap_or(0),
            broker,
            mqtt,
            own_address,
            config,
            now,
        };
        let last_alive = hub.audit.recent().front().map(|event| event.time);
        hub.event(
            EventKind::System,
            Severity::Info,
            None,
            None,
            None,
            format!("controller {} started", env!("CARGO_PKG_VERSION")),
        );
        for sentence in loaded.damaged {
            hub.event(EventKind::System, Severity::Error, None, None, None, sentence);
        }
        if let Some(last_alive) = last_alive {
            hub.tell_missed_schedules(last_alive);
        }
        if !loaded.prefixes.iter().any(|prefix| prefix == hub.topics.prefix()) {
            hub.remember_prefixes();
        }
        hub.report_unconfirmed_tags();
        hub.access_changed();
        hub
    }

    /// A sign-in link's code for the account `admin`, for the start-up message.
    pub(crate) fn first_code(&mut self) -> std::io::Result<String> {
        self.attempts.make_code(pistat_protocol::id::AccountName::admin(), self.now)
    }
}
