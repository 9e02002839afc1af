//! A broker for a test: a port of its own, accounts whose passwords are their names.

use std::net::SocketAddr;
use std::path::PathBuf;

use pistat_broker::{Broker, BrokerConfig, BrokerEvent, BrokerHandle, Directory, Limits, Statistics};
use pistat_protocol::account::Role;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::client::{Client, Connect, PATIENCE};

pub(crate) fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// `home` may use everything outside the prefix but `forbidden/#`; the rest are the contract's roles.
pub(crate) fn directory() -> Directory {
    let mut directory = Directory::new();
    directory.controller(hash("controller"));
    for (name, role) in [("viewer", Role::Viewer), ("operator", Role::Operator), ("boss", Role::Admin)] {
        directory.account(name.parse().unwrap(), role, hash(name), vec![], vec![]);
    }
    for name in ["home", "other"] {
        let rules = || ["test/#", "TopicA/#", "fence/#", "a/#", "$share/#", "+", "/#"].map(str::to_owned).to_vec();
        directory.account(name.parse().unwrap(), Role::Viewer, hash(name), rules(), rules());
    }
    for name in ["pi-1", "pi-2"] {
        directory.agent(name.parse().unwrap(), hash(name));
    }
    directory.join_token(hash("join"));
    directory.pi_join_token("pi-9".parse().unwrap(), hash("only-nine"));
    directory
}

/// A running broker.
pub(crate) struct Setup {
    pub(crate) broker: Broker,
    pub(crate) address: SocketAddr,
    pub(crate) events: mpsc::Receiver<BrokerEvent>,
}

impl Setup {
    pub(crate) async fn start() -> Self {
        Self::with(Limits::default(), None).await
    }

    pub(crate) async fn with_limits(limits: Limits) -> Self {
        Self::with(limits, None).await
    }

    pub(crate) async fn with(limits: Limits, state: Option<PathBuf>) -> Self {
        let listen = Some("127.0.0.1:0".parse().unwrap());
        let config = BrokerConfig { listen, state, limits, ..BrokerConfig::default() };
        let (broker, events) = Broker::start(config, directory()).await.unwrap();
        let address = broker.addresses().mqtt.unwrap();
        Self { broker, address, events }
    }

    pub(crate) fn handle(&self) -> BrokerHandle {
        self.broker.handle()
    }

    pub(crate) fn statistics(&self) -> Statistics {
        self.broker.handle().statistics()
    }

    pub(crate) async fn client(&self, connect: Connect) -> Client {
        Client::connect(self.address, &connect).await
    }

    pub(crate) async fn v311(&self, client_id: &str) -> Client {
        self.client(Connect::v311(client_id)).await
    }

    pub(crate) async fn v5(&self, client_id: &str) -> Client {
        self.client(Connect::v5(client_id)).await
    }

    /// Waits for an event.
    pub(crate) async fn event(&mut self, wanted: impl Fn(&BrokerEvent) -> bool) -> BrokerEvent {
        let search = async {
            loop {
                let event = self.events.recv().await.unwrap();
                if wanted(&event) {
                    return event;
                }
            }
        };
        tokio::time::timeout(PATIENCE, search).await.expect("the event did not come in time")
    }
}

/// Waits until something has become true.
pub(crate) async fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !is_true() {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
