//! The rules as clients meet them: at connect, publish, subscribe and delivery, and when accounts
//! change.

use pistat_broker::BrokerEvent;
use pistat_protocol::account::Role;

use crate::setup::{Setup, directory, eventually, hash, with_bounds};
use pistat_testkit::{
    packet::{Connect, Message, Packet, Properties},
    raw::Client,
};

fn both() -> [bool; 2] {
    [false, true]
}

#[tokio::test]
async fn a_refused_publish_is_acknowledged_and_goes_nowhere() {
    let mut setup = Setup::start().await;
    let mut controller = setup.client(Connect::v5("c").user("controller")).await;
    controller.subscribe(&[("#", 2)]).await;
    for v5 in both() {
        let mut client = setup.client(Connect::of(v5, "x").user("viewer")).await;
        for qos in 0..3 {
            let expected = if v5 && qos > 0 { 0x87 } else { 0 };
            assert_eq!(client.publish(Message::new("pistat/pi-1/status", "offline", qos).retained()).await, expected);
        }
        client.ping().await;
    }
    assert_eq!(controller.until_now().await.iter().filter(|m| !m.topic.starts_with("fence")).count(), 0);
    assert_eq!(setup.statistics().publishes_refused, 6);
    let event = setup.event(|event| matches!(event, BrokerEvent::PublishRefused { .. })).await;
    assert!(
        matches!(event, BrokerEvent::PublishRefused { account, topic, .. } if account == "viewer" && topic == "pistat/pi-1/status")
    );
}

#[tokio::test]
async fn a_refused_will_refuses_the_connection() {
    let setup = Setup::start().await;
    for (user, topic, is_allowed) in [
        ("pi-1", "pistat/pi-1/status", true),
        ("pi-1", "pistat/pi-2/status", false),
        ("viewer", "homeassistant/status", false),
        ("operator", "homeassistant/status", true),
        ("operator", "pistat/controller/status", false),
        ("controller", "pistat/controller/status", true),
        ("home", "test/will", true),
        ("home", "pistat/pi-1/status", false),
    ] {
        for (v5, code) in [(false, 5), (true, 0x87)] {
            let connect = Connect::of(v5, "x").user(user).will(Message::new(topic, "offline", 1).retained());
            if is_allowed {
                setup.client(connect).await.disconnect().await;
            } else {
                assert_eq!(Client::refused(setup.address, &connect).await, code, "{user} {topic}");
            }
        }
    }
    // A joining machine leaves no will at all, not even on its own topic.
    let joining = Connect { password: Some("join".into()), ..Connect::v5("x").user("new-pi") };
    let connect = joining.will(Message::new("$pistat/enroll/new-pi/request", "", 0));
    assert_eq!(Client::refused(setup.address, &connect).await, 0x87);
}

#[tokio::test]
async fn wildcards_over_forbidden_topics_are_granted_and_bring_only_what_is_allowed() {
    let setup = Setup::start().await;
    let mut controller = setup.client(Connect::v5("c").user("controller")).await;
    let order = "pistat/pi-1/task/r/execute";
    for v5 in both() {
        let mut viewer = setup.client(Connect::of(v5, "x").user("viewer")).await;
        assert_eq!(viewer.subscribe(&[("#", 1), ("pistat/+/task/+/+", 1), ("$share/g/pistat/#", 1)]).await, [1, 1, 1]);
        let refused = if v5 { 0x87 } else { 0x80 };
        let filters =
            [order, "pistat/+/task/+/cancel", "$share/g/pistat/+/task/+/execute", "$pistat/#", "zigbee2mqtt/#"];
        for filter in filters {
            assert_eq!(viewer.subscribe(&[(filter, 1)]).await, [refused], "{filter}");
        }
        controller.publish(Message::new(order, "order", 1)).await;
        controller.publish(Message::new("pistat/pi-1/status", "online", 1)).await;
        let (first, second) = (viewer.message().await, viewer.message().await);
        assert_eq!((&*first.topic, &*second.topic), ("pistat/pi-1/status", "pistat/pi-1/status"));
        viewer.disconnect().await;
    }
    assert!(setup.statistics().deliveries_withheld >= 2);
}

#[tokio::test]
async fn an_agent_hears_only_its_own_orders() {
    let setup = Setup::start().await;
    let mut controller = setup.client(Connect::v5("c").user("controller")).await;
    let mut agent = setup.client(Connect::v5("pi-1").user("pi-1")).await;
    assert_eq!(agent.subscribe(&[("pistat/#", 1), ("pistat/pi-2/#", 1)]).await, [1, 0x87]);
    for topic in
        ["pistat/pi-2/task/r/execute", "pistat/pi-1/task/r/execute", "pistat/pi-2/status", "pistat/controller/key"]
    {
        controller.publish(Message::new(topic, topic, 1)).await;
    }
    let heard = [agent.message().await.text(), agent.message().await.text()];
    assert_eq!(heard, ["pistat/pi-1/task/r/execute", "pistat/controller/key"]);
}

#[tokio::test]
async fn retained_messages_that_became_forbidden_are_not_delivered() {
    let setup = Setup::start().await;
    let mut home = setup.v5("home").await;
    home.publish(Message::new("test/secret", "x", 1).retained()).await;
    let mut kept = setup.client(Connect::v5("kept").kept()).await;
    kept.subscribe(&[("test/#", 1)]).await;
    assert_eq!(kept.message().await.text(), "x");
    // The account loses its rules: its sessions end, and a new one is not told.
    let mut changed = directory();
    changed.account("home".parse().unwrap(), Role::Viewer, hash("home"), vec![], vec![]);
    setup.handle().set_directory(changed);
    assert_eq!(kept.closed().await, Some(0x87));
    let mut again = setup.client(Connect::v5("kept").kept()).await;
    assert!(!again.present);
    assert_eq!(again.subscribe(&[("test/#", 1), ("#", 1)]).await, [0x87, 1]);
    again.ping().await;
    assert!(again.early.iter().all(|message| message.topic != "test/secret"));
}

#[tokio::test]
async fn the_account_is_stamped_on_requests_and_cannot_be_forged() {
    let setup = Setup::start().await;
    let mut controller = setup.client(Connect::v5("c").user("controller")).await;
    controller.subscribe(&[("pistat/+/task/request", 2), ("test/#", 2)]).await;
    let forged = || {
        Properties::default().with_pair("pistat-account", "boss").with_pair("a", "b").with_pair("pistat-account", "x")
    };
    for v5 in both() {
        let mut operator = setup.client(Connect::of(v5, "x").user("operator")).await;
        let message = Message::new("pistat/@all/task/request", "uptime", 2).properties(forged());
        assert_eq!(operator.publish(message).await, 0);
        let pairs = controller.message().await.properties.pairs();
        let stamp = ("pistat-account".to_owned(), "operator".to_owned());
        assert_eq!(pairs, if v5 { vec![("a".into(), "b".into()), stamp] } else { vec![stamp] });
    }
    let mut home = setup.v5("home").await;
    home.publish(Message::new("test/x", "", 1).properties(forged())).await;
    assert_eq!(controller.message().await.properties.pairs(), [("a".into(), "b".into())]);
    // A will is a message like any other.
    let will = Message::new("pistat/pi-1/task/request", "reboot", 1).properties(forged());
    drop(setup.client(Connect::v5("will").user("boss").will(will)).await);
    assert_eq!(controller.message().await.properties.pairs()[1], ("pistat-account".into(), "boss".into()));
}

#[tokio::test]
async fn bad_credentials_are_refused_with_a_delay_and_good_ones_are_not_kept_waiting() {
    let limits = with_bounds(|b| b.refusal_delay_milliseconds = 50);
    let mut setup = Setup::with_limits(limits).await;
    let wrong = |v5| Connect { password: Some("wrong".into()), ..Connect::of(v5, "x") };
    assert_eq!(Client::refused(setup.address, &wrong(false)).await, 4);
    assert_eq!(Client::refused(setup.address, &wrong(true)).await, 0x86);
    let nobody = Connect { user: None, password: None, ..Connect::v5("x") };
    assert_eq!(Client::refused(setup.address, &nobody).await, 0x87);
    let mut pending = Vec::new();
    for _ in 0..8 {
        pending.push(Client::open(setup.address, &wrong(true)).await);
    }
    eventually("the attempts have been counted", || setup.statistics().credentials_refused == 11).await;
    // All of them wait by now; a good client does not.
    setup.v5("good").await.disconnect().await;
    let event = setup.event(|event| matches!(event, BrokerEvent::Refused { .. })).await;
    assert!(
        matches!(event, BrokerEvent::Refused { user_name, client_id, .. } if user_name == "home" && client_id == "x")
    );
    setup.broker.shutdown().await;
}

#[tokio::test]
async fn removed_rotated_and_demoted_accounts_end_at_once_and_others_stay() {
    let mut setup = Setup::start().await;
    let mut clients = Vec::new();
    for user in ["viewer", "operator", "boss", "home", "pi-1", "pi-2", "controller"] {
        clients.push((user, setup.client(Connect::v5("x").user(user)).await));
    }
    let mut changed = directory();
    changed.account("operator".parse().unwrap(), Role::Viewer, hash("operator"), vec![], vec![]);
    changed.account("viewer".parse().unwrap(), Role::Operator, hash("viewer"), vec![], vec![]);
    changed.account("home".parse().unwrap(), Role::Viewer, hash("rotated"), vec![], vec![]);
    changed.agent("pi-1".parse().unwrap(), hash("reset"));
    setup.handle().set_directory(changed);
    for (user, client) in &mut clients {
        if ["operator", "home", "pi-1"].contains(user) {
            assert_eq!(client.closed().await, Some(0x87), "{user}");
        } else {
            client.ping().await;
        }
    }
    // A promotion counts for the connection that is there.
    let (_, viewer) = &mut clients[0];
    assert_eq!(viewer.publish(Message::new("pistat/pi-1/task/request", "uptime", 1)).await, 0);
    let ended = setup.event(|event| matches!(event, BrokerEvent::SessionEnded { .. })).await;
    assert!(matches!(ended, BrokerEvent::SessionEnded { reason, .. } if reason.contains("removed or changed")));
}

#[tokio::test]
async fn a_joining_machine_can_enroll_and_nothing_else() {
    let setup = Setup::start().await;
    let mut controller = setup.client(Connect::v5("c").user("controller")).await;
    controller.subscribe(&[("$pistat/enroll/+/request", 1)]).await;
    let connect = Connect { password: Some("join.fingerprint".into()), ..Connect::v5("pi-1").user("pi-1") };
    let mut agent = setup.client(Connect::v5("pi-1").user("pi-1")).await;
    // The enrolled agent of that name is not disturbed: it is another session.
    let mut joining = setup.client(connect).await;
    agent.ping().await;
    let filters =
        [("$pistat/enroll/pi-1/response", 1), ("$pistat/enroll/pi-2/response", 1), ("pistat/pi-1/settings", 1)];
    assert_eq!(joining.subscribe(&filters).await, [1, 0x87, 0x87]);
    assert_eq!(joining.publish(Message::new("$pistat/enroll/pi-1/request", "hello", 1)).await, 0);
    assert_eq!(joining.publish(Message::new("$pistat/enroll/pi-2/request", "hello", 1)).await, 0x87);
    assert_eq!(joining.publish(Message::new("pistat/pi-1/status", "online", 1)).await, 0x87);
    assert_eq!(controller.message().await.topic, "$pistat/enroll/pi-1/request");
    controller.publish(Message::new("$pistat/enroll/pi-1/response", "welcome", 1)).await;
    assert_eq!(joining.message().await.text(), "welcome");
}

/// As everybody else, but `boss` only looks from now on.
fn without_boss() -> pistat_broker::Directory {
    let mut changed = directory();
    changed.account("boss".parse().unwrap(), Role::Viewer, hash("boss"), vec![], vec![]);
    changed
}

#[tokio::test]
async fn whoever_was_sent_away_leaves_no_will() {
    let will = |delay: u32| {
        let properties = Properties::default().with(24, &delay.to_be_bytes());
        Message::new("pistat/pi-1/task/request", "reboot", 1).properties(properties)
    };
    for delay in [0, 3600] {
        let setup = Setup::start().await;
        let mut controller = setup.client(Connect::v5("c").user("controller")).await;
        controller.subscribe(&[("pistat/+/task/request", 1)]).await;
        let mut boss = setup.client(Connect::v5("boss").user("boss").kept().will(will(delay))).await;
        if delay == 0 {
            setup.handle().set_directory(without_boss());
            assert_eq!(boss.closed().await, Some(0x87));
        } else {
            // Its will waits already.
            drop(boss);
            eventually("it is away", || setup.statistics().clients_connected == 1).await;
            setup.handle().set_directory(without_boss());
        }
        eventually("its session is gone", || setup.statistics().clients_connected == 1).await;
        let again = setup.client(Connect::v5("boss").user("boss").kept()).await;
        assert!(!again.present);
        assert_eq!(controller.until_now().await, [], "a delay of {delay} seconds");
    }
}

#[tokio::test]
async fn a_will_from_before_a_restart_is_of_no_account_that_may_not_leave_it_now() {
    let folder = tempfile::tempdir().unwrap();
    let limits = || with_bounds(|b| b.will_grace_seconds = 1);
    let setup = Setup::with(limits(), Some(folder.path().to_owned())).await;
    let request = Message::new("pistat/pi-1/task/request", "reboot", 1);
    let _boss = setup.client(Connect::v5("boss").user("boss").will(request)).await;
    let _home = setup.client(Connect::v5("home").will(Message::new("test/will", "gone", 1))).await;
    setup.broker.shutdown().await;
    let setup = Setup::with_directory(limits(), Some(folder.path().to_owned()), without_boss()).await;
    let mut controller = setup.client(Connect::v5("c").user("controller")).await;
    controller.subscribe(&[("test/will", 1), ("pistat/+/task/request", 1)]).await;
    assert_eq!(controller.message().await.text(), "gone");
    assert_eq!(controller.until_now().await, []);
}

/// The old connection is given a moment for its last words, which it does not take; meanwhile the
/// account changes.
#[tokio::test]
async fn who_waits_for_a_session_while_the_account_changes_does_not_get_it() {
    let setup = Setup::start().await;
    let mut old = setup.client(Connect::v5("same").kept()).await;
    old.subscribe(&[("test/#", 0)]).await;
    let mut publisher = setup.client(Connect::v5("p").user("quiet")).await;
    for _ in 0..40 {
        publisher.publish(Message::new("test/x", &"x".repeat(500_000), 0)).await;
    }
    publisher.ping().await;
    let mut waiting = Client::open(setup.address, &Connect::v5("same").kept()).await;
    eventually("it waits", || setup.statistics().takeovers == 1).await;
    let mut changed = directory();
    changed.account("home".parse().unwrap(), Role::Viewer, hash("rotated"), vec![], vec![]);
    setup.handle().set_directory(changed.clone());
    assert!(matches!(waiting.next().await, Packet::ConnAck { code: 0x87, .. }));
    let rotated = Connect { password: Some("rotated".into()), ..Connect::v5("same").kept() };
    assert!(!setup.client(rotated).await.present);
    drop(old);
}

#[tokio::test]
async fn a_token_that_has_ended_ends_its_connections_but_the_one_that_waits_for_the_answer_to_its_enrolment() {
    let setup = Setup::with_limits(with_bounds(|b| b.connect_seconds = 1)).await;
    let mut controller = setup.client(Connect::v5("c").user("controller")).await;
    controller.subscribe(&[("$pistat/enroll/+/request", 1)]).await;
    let join = |client_id: &str, user: &str, token: &str| Connect {
        password: Some(token.into()),
        ..Connect::v5(client_id).user(user)
    };
    let request = |secret: &str| {
        let text = format!(r#"{{"secret_sha256":"{}","nonce":"n"}}"#, pistat_protocol::order::secret_sha256(secret));
        Message::new("$pistat/enroll/pi-9/request", &text, 1)
    };
    let mut joining = setup.client(join("own", "pi-9", "only-nine")).await;
    joining.subscribe(&[("$pistat/enroll/pi-9/response", 1)]).await;
    // Others that came with the same token, or with the token of everybody under the name of a
    // machine that is enrolled.
    let mut others = [
        setup.client(join("other", "pi-9", "only-nine")).await,
        setup.client(join("silent", "pi-9", "only-nine")).await,
        setup.client(join("enrolled", "pi-1", "join")).await,
    ];
    assert_eq!(joining.publish(request("of-nine")).await, 0);
    assert_eq!(others[0].publish(request("of-another")).await, 0);
    for _ in 0..2 {
        controller.message().await;
    }
    let enrolled = || {
        let mut directory = pistat_broker::Directory::new();
        directory.controller(hash("controller"));
        directory.agent("pi-1".parse().unwrap(), hash("pi-1"));
        directory.agent("pi-9".parse().unwrap(), hash("of-nine"));
        directory
    };
    setup.handle().set_directory(enrolled());
    for other in &mut others {
        assert_eq!(other.closed().await, Some(0x87));
    }
    controller.publish(Message::new("$pistat/enroll/pi-9/response", "welcome", 1)).await;
    assert_eq!(joining.message().await.text(), "welcome");
    // With the answer it comes back as what it is now; whoever stays is ended too.
    assert_eq!(joining.closed().await, Some(0x87));
}
