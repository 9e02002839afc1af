//! The outbox by itself: order, bounds, who waits for whom.

use super::*;
use crate::message::{Draft, SessionId};
use crate::packet::MessageProperties;

fn delivery(text: &str, qos: u8) -> Delivery {
    let qos = QoS::from_repr(qos).unwrap();
    let properties = MessageProperties::default();
    let publisher = SessionId::broker();
    let draft = Draft {
        publisher,
        topic: "t",
        payload: text.as_bytes(),
        qos,
        retain: false,
        properties,
        stamp: None,
        now_ms: 0,
    };
    let message = Arc::new(Message::open(draft.seal()).unwrap());
    Delivery { message, qos, retain: false, identifiers: None, share: None }
}

fn outbox(qos0_bytes: usize, reliable_bytes: usize) -> Arc<Outbox> {
    Outbox::new(Bounds { qos0_bytes, reliable_bytes, paces_qos0: false })
}

fn drained(outbox: &Outbox, window: usize) -> Vec<String> {
    let mut texts = Vec::new();
    outbox.drain(window, |delivery| {
        texts.push(String::from_utf8_lossy(&delivery.message.payload()).into_owned());
        true
    });
    texts
}

fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

#[test]
fn messages_come_out_in_their_order_whatever_their_qos() {
    let outbox = outbox(10_000, 10_000);
    for (text, qos) in [("1", 0), ("2", 1), ("3", 2), ("4", 0)] {
        outbox.push(delivery(text, qos), 0, &mut Vec::new());
    }
    assert_eq!(drained(&outbox, 10), ["1", "2", "3", "4"]);
}

#[test]
fn a_full_window_holds_back_qos_1_and_lets_qos_0_pass() {
    let outbox = outbox(10_000, 10_000);
    for (text, qos) in [("1", 1), ("2", 1), ("3", 0)] {
        outbox.push(delivery(text, qos), 0, &mut Vec::new());
    }
    assert_eq!(drained(&outbox, 1), ["1", "3"]);
    assert!(outbox.poll_ready(true, false, &mut context()).is_pending());
    assert!(outbox.poll_ready(false, true, &mut context()).is_pending());
    assert_eq!(drained(&outbox, 1), ["2"]);
}

#[test]
fn nothing_overtakes_the_retained_messages_of_a_subscription() {
    let outbox = outbox(10_000, 10_000);
    outbox.push_retained([delivery("retained 1", 1), delivery("retained 2", 0)], &mut Vec::new());
    outbox.push(delivery("live", 0), 0, &mut Vec::new());
    assert_eq!(drained(&outbox, 0), [""; 0]);
    assert_eq!(drained(&outbox, 1), ["retained 1", "retained 2", "live"]);
}

#[test]
fn qos_0_drops_its_oldest_and_counts_and_keeps_the_newest_however_large() {
    let one = delivery("1", 0).cost();
    let outbox = outbox(2 * one, 10_000);
    let dropped: u64 = (1..=5).map(|n| outbox.push(delivery(&n.to_string(), 0), 0, &mut Vec::new()).dropped).sum();
    assert_eq!(dropped, 3);
    assert_eq!(drained(&outbox, 0), ["4", "5"]);
    let large = "x".repeat(10_000);
    assert_eq!(outbox.push(delivery(&large, 0), 0, &mut Vec::new()).dropped, 0);
    assert_eq!(drained(&outbox, 0), [large]);
}

#[test]
fn publishers_wait_above_half_of_the_bound_and_not_for_a_client_that_is_away() {
    let one = delivery("1", 1).cost();
    let outbox = outbox(10_000, 4 * one);
    for _ in 0..4 {
        outbox.push(delivery("1", 1), 0, &mut Vec::new());
    }
    assert!(outbox.poll_room(&mut context()).is_pending());
    drained(&outbox, 1);
    assert!(outbox.poll_room(&mut context()).is_pending());
    drained(&outbox, 1);
    assert!(outbox.poll_room(&mut context()).is_ready());
    outbox.push(delivery("1", 1), 0, &mut Vec::new());
    assert!(outbox.poll_room(&mut context()).is_pending());
    outbox.park();
    assert!(outbox.poll_room(&mut context()).is_ready());
    outbox.reopen();
    assert!(outbox.poll_room(&mut context()).is_pending());
    outbox.end(End::Revoked);
    assert!(outbox.poll_room(&mut context()).is_ready());
}

#[test]
fn the_end_comes_before_everything_and_its_first_reason_counts() {
    let outbox = outbox(10_000, 10_000);
    outbox.push(delivery("1", 0), 0, &mut Vec::new());
    assert!(outbox.end(End::TakenOver { clean_start: false }));
    assert!(!outbox.end(End::TooSlow));
    assert!(matches!(outbox.poll_ready(true, true, &mut context()), Poll::Ready(Ready::End(End::TakenOver { .. }))));
    // The next connection of the session finds its messages, but not those of QoS 0.
    outbox.push(delivery("2", 1), 0, &mut Vec::new());
    outbox.park();
    outbox.reopen();
    assert_eq!(drained(&outbox, 10), ["2"]);
    // A session that dies with its connection takes nothing more.
    outbox.end(End::TooSlow);
    outbox.push(delivery("3", 1), 0, &mut Vec::new());
    assert_eq!(drained(&outbox, 10), [""; 0]);
}

#[test]
fn a_closed_outbox_says_what_was_lost() {
    let outbox = outbox(10_000, 10_000);
    for qos in [0, 1, 2] {
        outbox.push(delivery("x", qos), 0, &mut Vec::new());
    }
    assert_eq!(outbox.close(), 2);
    assert_eq!(outbox.load().messages, 0);
}

#[test]
fn publishers_wait_for_qos_0_until_a_timeout_and_again_once_it_has_caught_up() {
    let one = delivery("1", 0).cost();
    let outbox = Outbox::new(Bounds { qos0_bytes: 4 * one, reliable_bytes: 10_000, paces_qos0: true });
    let push = || outbox.push(delivery("1", 0), 12 * one, &mut Vec::new());
    assert!(!push().is_qos0_long && !push().is_qos0_long && push().is_qos0_long);
    assert!(outbox.poll_room(&mut context()).is_pending());
    // While they wait, what they had under way is not lost.
    assert_eq!((0..13).map(|_| push().dropped).sum::<u64>(), 0);
    outbox.mark_slow();
    assert!(outbox.poll_room(&mut context()).is_ready());
    let pushed = push();
    assert_eq!((pushed.dropped, pushed.is_qos0_long), (13, false));
    assert_eq!(drained(&outbox, 0).len(), 4);
    assert!(!push().is_qos0_long && !push().is_qos0_long && push().is_qos0_long);
    // A late timeout does not mark a client slow that has caught up.
    drained(&outbox, 0);
    outbox.mark_slow();
    assert!((0..3).map(|_| push()).any(|pushed| pushed.is_qos0_long));
}

#[test]
fn a_client_that_has_caught_up_is_known_to_have_whatever_came_since() {
    let one = delivery("1", 1).cost();
    let outbox = outbox(10_000, 4 * one);
    let fill = || {
        for _ in 0..5 {
            outbox.push(delivery("1", 1), 0, &mut Vec::new());
        }
    };
    fill();
    drained(&outbox, 2);
    assert_eq!(outbox.load().caught_up, 0);
    drained(&outbox, 1);
    fill();
    assert_eq!((outbox.load().caught_up, outbox.load().reliable_messages), (1, 7));
}

#[test]
fn a_revoked_session_stays_revoked_whatever_ended_the_connection_first() {
    let outbox = outbox(10_000, 10_000);
    assert!(outbox.end(End::TakenOver { clean_start: false }) && !outbox.is_given_up());
    assert!(!outbox.end(End::TooSlow) && !outbox.is_given_up(), "the first reason counts");
    assert!(!outbox.end(End::Revoked) && outbox.is_revoked() && outbox.is_given_up());
    assert!(!outbox.end(End::ShuttingDown) && outbox.is_revoked());
}
