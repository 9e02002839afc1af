//! The hub by itself, where what matters is what comes first.

use pistat_protocol::{account::Role, topic::Topics};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::*;
use crate::access::Access;
use crate::admission::Admission;
use crate::contract::{Attached, SubscribeRequest, WillFate};
use crate::events::Events;
use crate::limits::{Bounds, Limits};
use crate::message::{Clock, Draft};
use crate::outbox::Delivery;
use crate::packet::{MessageProperties, QoS};
use crate::store::Restored;

/// A hub that does not run yet.
struct Bench {
    hub: Hub,
    inputs: Inputs,
    front: Arc<Front>,
}

impl Bench {
    async fn new(limits: Limits) -> Self {
        let mut directory = Directory::new();
        for name in ["home", "other"] {
            let rules = vec!["#".to_owned()];
            directory.account(name.parse().unwrap(), Role::Viewer, Sha256::digest(name).into(), rules.clone(), rules);
        }
        let (sender, receiver) = spine::open().await.unwrap();
        let (commands, command_receiver) = mpsc::channel(COMMAND_CAPACITY);
        let (closed, closed_receiver) = mpsc::unbounded_channel();
        let (directory, directory_receiver) = watch::channel(Arc::new(directory));
        let counters = Arc::default();
        let front = Arc::new(Front {
            limits,
            access: Arc::new(Access::new(&Topics::default(), None)),
            events: Events::new(Arc::clone(&counters)).0,
            counters,
            clock: Clock::new(),
            spine: sender,
            commands,
            closed,
            directory,
            admission: Admission::default(),
            rates: Arc::default(),
            incomplete: Arc::default(),
            throttled_bytes: Arc::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let inputs = Inputs {
            spine: receiver,
            commands: command_receiver,
            closed: closed_receiver,
            directory: directory_receiver,
        };
        Self { hub: Hub::new(front.clone(), None, Restored::default()), inputs, front }
    }

    /// Connects a client whose session is kept for an hour.
    fn connect(&mut self, user: &str) -> Attached {
        let (reply, mut answer) = oneshot::channel();
        let secret = Secret::of(user.as_bytes());
        let identity = Arc::new(self.front.directory.borrow().identify(user, &secret).unwrap());
        self.hub.on_connect(Box::new(ConnectRequest {
            position: 0,
            identity,
            user_name: user.into(),
            secret,
            client_id: "client".into(),
            clean_start: false,
            session_expiry: 3600,
            will: None,
            peer: "127.0.0.1:1".parse().unwrap(),
            reply,
        }));
        answer.try_recv().unwrap().unwrap_or_else(|refusal| panic!("{refusal:?}"))
    }
}

fn frame(publisher: SessionId, topic: &str) -> Bytes {
    let properties = MessageProperties::default();
    let draft = Draft {
        publisher,
        topic,
        payload: b"x",
        qos: QoS::AtLeastOnce,
        retain: true,
        properties,
        stamp: None,
        now_ms: 0,
    };
    draft.seal()
}

#[tokio::test]
async fn what_a_client_said_before_it_went_counts_as_its_own() {
    let bounds = Bounds { sys_interval_seconds: 0, ..Bounds::default() };
    let limits = Limits { retained_messages: 10, bounds, ..Limits::default() };
    let mut bench = Bench::new(limits).await;
    for user in ["home", "other"] {
        let attached = bench.connect(user);
        bench.front.spine.publish(&mut vec![frame(attached.id, user)]).await.unwrap();
        // Dropping this is how a connection ends; the hub receives this before it has read what was
        // published.
        drop(attached);
    }
    let (front, hub) = (bench.front, tokio::spawn(bench.hub.run(bench.inputs)));
    let all_read = async {
        while front.counters.messages_accepted.get() < 2 || front.counters.clients_connected.get() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all_read).await.expect("the hub reads the log");
    assert_eq!((front.counters.retained_messages.get(), front.counters.retained_refused.get()), (2, 0));
    front.stop.cancel();
    hub.await.unwrap().unwrap().finish();
}

#[tokio::test]
async fn a_session_that_was_given_up_does_not_live_on_though_its_connection_ended_of_itself_meanwhile() {
    for is_stop in [false, true] {
        let mut bench = Bench::new(Limits::default()).await;
        let attached = bench.connect("home");
        bench.hub.end_session(attached.id, "it stands still");
        let message = Arc::new(Message::open(frame(SessionId::broker(), "t")).unwrap());
        let lost = Delivery { message, qos: QoS::AtLeastOnce, retain: false, identifiers: None, share: None };
        assert_eq!(attached.outbox.push(lost, 0, &mut Vec::new()).reliable_messages, 0);
        let closed = Closed {
            id: attached.id,
            position: 0,
            session_expiry: 3600,
            will: WillFate::Done,
            parked: Some(Box::default()),
        };
        if is_stop {
            bench.hub.keep_at_stop(closed);
            let kept = bench.hub.sessions.values().filter(|session| session.expiry_seconds > 0);
            assert_eq!(kept.count(), 0, "nothing of it may come back with the broker");
        } else {
            bench.hub.on_closed(closed);
            assert!(bench.hub.keys.is_empty(), "it would miss a message without knowing it");
        }
    }
}

#[tokio::test]
async fn requests_while_the_broker_stops_are_not_waited_for() {
    let mut bench = Bench::new(Limits::default()).await;
    let attached = bench.connect("home");
    let (reply, answer) = oneshot::channel();
    let (session, position) = (attached.id, 0);
    let request = SubscribeRequest { session, position, identifier: 0, filters: Vec::new(), reply };
    bench.front.commands.send(Command::Subscribe(request)).await.unwrap();
    bench.front.stop.cancel();
    let hub = tokio::spawn(bench.hub.run(bench.inputs));
    // As a session does: it notices the end when it has its reply, or knows that there will be
    // none.
    let session = tokio::spawn(async move {
        assert!(answer.await.is_err());
        drop(attached);
    });
    let stopped =
        tokio::time::timeout(LEAVE / 2, hub).await.expect("the hub does not wait for a reply that never comes");
    stopped.unwrap().unwrap().finish();
    session.await.unwrap();
}
