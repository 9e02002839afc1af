//! Who may do what, as tables and stories.

use std::net::IpAddr;

use super::{sessions::SESSION_MILLISECONDS, *};

fn time(milliseconds: i64) -> Timestamp {
    Timestamp::from_unix_milliseconds(milliseconds)
}

fn account(name: &str, role: Role, token: &str) -> AccountRecord {
    AccountRecord {
        name: name.parse().unwrap(),
        role,
        token_sha256: SecretHash::of(token),
        publish: Vec::new(),
        subscribe: Vec::new(),
        created_at: time(0),
        expires_at: None,
        lifetime_milliseconds: None,
        rotations: 0,
    }
}

fn with_account(role: Role) -> Access {
    let mut access = Access::default();
    access.apply(&AccessChange::PutAccount(account("Anna", role, "token")));
    access
}

fn sign_in(cookie: &str, token: &str, at: i64) -> AccessChange {
    let session = SessionRecord {
        account: "Anna".parse().unwrap(),
        created_at: time(at),
        key_sha256: Some(SecretHash::of(&format!("key of {cookie}"))),
        address: Some(IpAddr::from([192, 0, 2, 1])),
        user_agent: None,
    };
    AccessChange::PutSession { cookie: SecretHash::of(cookie), session, token: SecretHash::of(token) }
}

fn request(secret: &str) -> EnrollRequest {
    EnrollRequest {
        secret_sha256: String::from(SecretHash::of(secret)),
        nonce: "n".into(),
        serial: Some("s\n1".into()),
        label: None,
    }
}

fn enrolled(secret: &str) -> Access {
    let mut access = Access::default();
    let change = access.enrol(&"pi-1".parse().unwrap(), &request(secret), false, time(1)).unwrap().unwrap();
    access.apply(&change);
    access
}

#[test]
fn a_token_names_its_account_and_another_does_not() {
    let access = with_account(Role::Operator);
    assert_eq!(access.caller_by_token("token", time(0)).unwrap().role, Role::Operator);
    assert_eq!(access.caller_by_token("Token", time(0)), None);
    assert_eq!(access.caller_by_token("", time(0)), None);
}

#[test]
fn sessions_end_with_their_account_and_with_its_role() {
    for change in [
        AccessChange::RemoveAccount("anna".parse().unwrap()),
        AccessChange::PutAccount(account("Anna", Role::Viewer, "token")),
        AccessChange::PutAccount(account("Anna", Role::Operator, "other")),
        AccessChange::RemoveSession(SecretHash::of("cookie")),
    ] {
        let mut access = with_account(Role::Operator);
        access.apply(&sign_in("cookie", "token", 5));
        let caller = access.caller_by_session("cookie", Some("key of cookie"), time(6)).unwrap();
        assert!(access.still_holds(&caller, time(6)));
        access.apply(&change);
        assert_eq!(access.caller_by_session("cookie", Some("key of cookie"), time(6)), None, "{change:?}");
        assert!(!access.still_holds(&caller, time(6)), "{change:?}");
    }
}

#[test]
fn a_sign_in_that_was_decided_before_its_account_changed_is_none() {
    for change in [
        AccessChange::PutAccount(account("Anna", Role::Operator, "other")),
        AccessChange::RemoveAccount("anna".parse().unwrap()),
    ] {
        let mut access = with_account(Role::Operator);
        // Decided on what is in force, while the change is on its way to the disk before it.
        let decided = sign_in("cookie", "token", 5);
        access.apply(&change);
        access.apply(&decided);
        assert_eq!(access.caller_by_session("cookie", Some("key of cookie"), time(6)), None, "{change:?}");
        assert!(access.sessions.is_empty(), "{change:?}");
    }
}

#[test]
fn a_caller_by_token_ends_with_the_token() {
    let mut access = with_account(Role::Operator);
    let caller = access.caller_by_token("token", time(0)).unwrap();
    assert!(access.still_holds(&caller, time(6)));
    access.apply(&AccessChange::PutAccount(account("Anna", Role::Operator, "other")));
    assert!(!access.still_holds(&caller, time(6)));
}

#[test]
fn a_session_needs_its_cookie_and_its_key_and_the_cookie_alone_says_so() {
    let mut access = with_account(Role::Operator);
    access.apply(&sign_in("cookie", "token", 5));
    access.apply(&sign_in("other", "token", 5));
    let by = |cookie, key| access.caller_by_session(cookie, key, time(6)).map(|caller| caller.credential);
    let (cookie, hash) = ("cookie", SecretHash::of("cookie"));
    assert_eq!(by(cookie, Some("key of cookie")), Some(Credential::Session(hash)));
    assert_eq!(by(cookie, None), Some(Credential::Cookie(hash)));
    for wrong in ["", "key of other", "cookie", "token"] {
        assert_eq!(by(cookie, Some(wrong)), None, "{wrong}");
    }
    assert_eq!(by("another", Some("key of cookie")), None);
    let half = access.caller_by_session(cookie, None, time(6)).unwrap();
    assert_eq!(half.session(), None, "the cookie alone is not a session");
    assert_eq!(access.with_key(&half, "key of other"), None);
    let whole = access.with_key(&half, "key of cookie").unwrap();
    assert_eq!(whole.session(), Some(hash));
    assert_eq!(access.with_key(&whole, "key of cookie"), None, "only a cookie is to be completed");
}

#[test]
fn sessions_run_out_and_none_ends_another() {
    let mut access = with_account(Role::Viewer);
    for n in 0..100 {
        access.apply(&sign_in(&n.to_string(), "token", n));
    }
    let anna = "ANNA".parse().unwrap();
    assert_eq!(access.session_count(&anna, time(100)), 100);
    for n in 0..100 {
        assert!(access.caller_by_session(&n.to_string(), None, time(100)).is_some(), "{n}");
    }
    let end = time(99 + SESSION_MILLISECONDS);
    assert_eq!(access.caller_by_session("99", Some("key of 99"), end), None);
    assert!(access.differs(time(100), end) && !access.differs(time(100), time(101)));
    access.apply(&sign_in("new", "token", 99 + SESSION_MILLISECONDS));
    assert_eq!(access.sessions.len(), 1, "what has run out is not kept");
}

#[test]
fn sessions_are_listed_for_their_account_and_for_administrators_and_ended_by_name() {
    let mut access = with_account(Role::Operator);
    access.apply(&AccessChange::PutAccount(account("boss", Role::Admin, "b")));
    access.apply(&AccessChange::PutAccount(account("vera", Role::Viewer, "v")));
    access.apply(&sign_in("cookie", "token", 5));
    access.apply(&sign_in("second", "token", 6));
    let mut uses = Uses::default();
    let anna = access.caller_by_session("cookie", Some("key of cookie"), time(7)).unwrap();
    uses.note(anna.credential_hash(), Use { at: time(7), from: IpAddr::from([192, 0, 2, 9]) });
    let seen = |access: &Access, caller: &Caller| -> Vec<_> {
        let views = access.sessions(caller, &uses, time(8));
        views.into_iter().map(|view| (view.created_at, view.address.unwrap(), view.last_used, view.current)).collect()
    };
    let both = [(time(6), "192.0.2.1".to_owned(), None, false), (time(5), "192.0.2.9".to_owned(), Some(time(7)), true)];
    assert_eq!(seen(&access, &anna), both);
    let token = |token| access.caller_by_token(token, time(7)).unwrap();
    let (boss, vera) = (token("b"), token("v"));
    assert_eq!(seen(&access, &boss).len(), 2);
    assert_eq!(seen(&access, &vera), []);
    let name = access.sessions(&anna, &uses, time(8))[1].id.clone();
    assert!(access.session_named(&vera, &name).is_none() && access.session_named(&boss, "").is_none());
    let (cookie, _) = access.session_named(&anna, &name).unwrap();
    access.apply(&AccessChange::RemoveSession(cookie));
    assert!(!access.still_holds(&anna, time(8)));
    access.apply(&AccessChange::RemoveSessions("anna".parse().unwrap()));
    assert_eq!(seen(&access, &boss), []);
}

#[test]
fn an_account_ends_by_its_own_time_with_its_token_and_its_sessions() {
    let mut access = Access::default();
    let mut anna = account("Anna", Role::Operator, "token");
    anna.expire_after(Some(std::time::Duration::from_secs(60)), time(0));
    access.apply(&AccessChange::PutAccount(anna.clone()));
    access.apply(&sign_in("cookie", "token", 5));
    let by_token = access.caller_by_token("token", time(59_999)).unwrap();
    let by_session = access.caller_by_session("cookie", Some("key of cookie"), time(59_999)).unwrap();
    assert!(access.differs(time(59_999), time(60_000)));
    for caller in [by_token, by_session] {
        assert!(access.still_holds(&caller, time(59_999)) && !access.still_holds(&caller, time(60_000)), "{caller:?}");
    }
    assert_eq!(access.caller_by_token("token", time(60_000)), None);
    assert_eq!(access.caller_by_session("cookie", None, time(60_000)), None);
    anna.expire_after(anna.lifetime(), time(100_000));
    assert_eq!(anna.expires_at, Some(time(160_000)), "a new token lasts as long again");
}

#[test]
fn a_use_is_news_once_a_minute_and_only_those_of_known_credentials_are_kept() {
    let mut access = with_account(Role::Viewer);
    let (token, gone) = (SecretHash::of("token"), SecretHash::of("gone"));
    let (mut uses, from) = (Uses::default(), IpAddr::from([192, 0, 2, 1]));
    assert!(uses.is_due(&token, time(0)));
    uses.note(token, Use { at: time(100_000), from });
    uses.note(gone, Use { at: time(100_000), from });
    for (now, due) in [(100_000, false), (159_999, false), (160_000, true), (39_999, true)] {
        assert_eq!(uses.is_due(&token, time(now)), due, "{now}");
    }
    access.apply(&AccessChange::Used(uses));
    assert!(access.uses().last(&token).is_some() && access.uses().last(&gone).is_none());
    let text = serde_json::to_string(&access).unwrap();
    assert_eq!(serde_json::from_str::<Access>(&text).unwrap(), access);
}

#[test]
fn sessions_from_before_there_were_keys_are_dropped() {
    let hash = String::from(SecretHash::of("cookie"));
    let old = serde_json::json!({"sessions": {hash: {"account": "Anna", "created_at": "2026-12-01T00:00:00Z"}}});
    let mut access: Access = serde_json::from_value(old).unwrap();
    access.apply(&AccessChange::PutAccount(account("berta", Role::Viewer, "b")));
    assert_eq!((access.drop_sessions_without_key(), access.sessions.len()), (1, 0));
}

#[test]
fn machines_and_accounts_share_one_namespace_without_case() {
    let access = with_account(Role::Viewer);
    let taken =
        |name: &str| access.check_new_account(&name.parse().unwrap(), |machine| machine.eq_ignore_ascii_case("pi-1"));
    assert!(matches!(taken("ANNA"), Err(AccessRefusal::Taken(_))));
    assert!(matches!(taken("PI-1"), Err(AccessRefusal::Taken(_))));
    assert!(matches!(taken("Controller"), Err(AccessRefusal::Reserved(_))));
    assert_eq!(taken("berta"), Ok(()));
    assert!(matches!(
        access.enrol(&"anna".parse().unwrap(), &request("a"), false, time(0)),
        Err(AccessRefusal::Taken(_))
    ));
    assert!(matches!(
        access.enrol(&"Pistat".parse().unwrap(), &request("a"), false, time(0)),
        Err(AccessRefusal::Reserved(_))
    ));
    assert!(matches!(
        enrolled("a").enrol(&"PI-1".parse().unwrap(), &request("a"), false, time(0)),
        Err(AccessRefusal::Taken(_))
    ));
}

#[test]
fn an_enrolment_may_be_repeated_but_not_taken_over() {
    let mut access = enrolled("a");
    let pi: PiId = "pi-1".parse().unwrap();
    assert_eq!(access.enrol(&pi, &request("a"), false, time(2)), Ok(None));
    assert_eq!(access.enrol(&pi, &request("b"), false, time(2)), Err(AccessRefusal::Enrolled(pi.clone())));
    // An earlier version opened a machine to every join token: such a record opens nothing.
    access.apply(&AccessChange::PutAgent(AgentRecord { open: true, ..access.agent("pi-1").unwrap().clone() }));
    assert_eq!(access.enrol(&pi, &request("b"), false, time(2)), Err(AccessRefusal::Enrolled(pi.clone())));
    let own = Some(SecretHash::of("its own token"));
    access.apply(&AccessChange::PutAgent(AgentRecord { token_sha256: own, ..access.agent("pi-1").unwrap().clone() }));
    assert_eq!(access.enrol(&pi, &request("b"), false, time(2)), Err(AccessRefusal::OwnToken(pi.clone())));
    let change = access.enrol(&pi, &request("b"), true, time(2)).unwrap().unwrap();
    access.apply(&change);
    assert_eq!(access.enrol(&pi, &request("c"), false, time(2)), Err(AccessRefusal::Enrolled(pi)));
    assert_eq!(access.agent("PI-1").unwrap().serial.as_deref(), Some("s1"));
}

#[test]
fn the_file_keeps_everything_and_no_secret() {
    let mut access = enrolled("secret-a");
    access.apply(&AccessChange::PutAccount(account("Anna", Role::Viewer, "secret-b")));
    let text = serde_json::to_string(&access).unwrap();
    assert!(!text.contains("secret-a") && !text.contains("secret-b"));
    assert_eq!(serde_json::from_str::<Access>(&text).unwrap(), access);
}
