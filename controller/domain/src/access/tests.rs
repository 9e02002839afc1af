//! Who may do what, as tables and stories.

use super::*;

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
    }
}

fn with_account(role: Role) -> Access {
    let mut access = Access::default();
    access.apply(&AccessChange::PutAccount(account("Anna", role, "token")));
    access
}

fn sign_in(cookie: &str, token: &str, at: i64) -> AccessChange {
    let session = SessionRecord { account: "Anna".parse().unwrap(), created_at: time(at) };
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
    let change = access.enrol(&"pi-1".parse().unwrap(), &request(secret), time(1)).unwrap().unwrap();
    access.apply(&change);
    access
}

#[test]
fn a_token_names_its_account_and_another_does_not() {
    let access = with_account(Role::Operator);
    assert_eq!(access.caller_by_token("token").unwrap().role, Role::Operator);
    assert_eq!(access.caller_by_token("Token"), None);
    assert_eq!(access.caller_by_token(""), None);
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
        let caller = access.caller_by_session("cookie", time(6)).unwrap();
        assert!(access.still_holds(&caller));
        access.apply(&change);
        assert_eq!(access.caller_by_session("cookie", time(6)), None, "{change:?}");
        assert!(!access.still_holds(&caller), "{change:?}");
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
        assert_eq!(access.caller_by_session("cookie", time(6)), None, "{change:?}");
        assert!(access.sessions.is_empty(), "{change:?}");
    }
}

#[test]
fn a_caller_by_token_ends_with_the_token() {
    let mut access = with_account(Role::Operator);
    let caller = access.caller_by_token("token").unwrap();
    assert!(access.still_holds(&caller));
    access.apply(&AccessChange::PutAccount(account("Anna", Role::Operator, "other")));
    assert!(!access.still_holds(&caller));
}

#[test]
fn sessions_run_out_and_are_bounded() {
    let mut access = with_account(Role::Viewer);
    for n in 0..100 {
        access.apply(&sign_in(&n.to_string(), "token", n));
    }
    assert_eq!(access.sessions.len(), MAX_SESSIONS_PER_ACCOUNT);
    assert!(access.caller_by_session("99", time(100)).is_some());
    assert_eq!(access.caller_by_session("99", time(100 + SESSION_MILLISECONDS)), None);
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
    assert!(matches!(access.enrol(&"anna".parse().unwrap(), &request("a"), time(0)), Err(AccessRefusal::Taken(_))));
    assert!(matches!(
        access.enrol(&"Pistat".parse().unwrap(), &request("a"), time(0)),
        Err(AccessRefusal::Reserved(_))
    ));
    assert!(matches!(
        enrolled("a").enrol(&"PI-1".parse().unwrap(), &request("a"), time(0)),
        Err(AccessRefusal::Taken(_))
    ));
}

#[test]
fn an_enrolment_may_be_repeated_but_not_taken_over() {
    let mut access = enrolled("a");
    let pi: PiId = "pi-1".parse().unwrap();
    assert_eq!(access.enrol(&pi, &request("a"), time(2)), Ok(None));
    assert_eq!(access.enrol(&pi, &request("b"), time(2)), Err(AccessRefusal::Enrolled(pi.clone())));
    let reset = AgentRecord { open: true, ..access.agent("pi-1").unwrap().clone() };
    access.apply(&AccessChange::PutAgent(reset));
    let change = access.enrol(&pi, &request("b"), time(2)).unwrap().unwrap();
    access.apply(&change);
    assert_eq!(access.enrol(&pi, &request("c"), time(2)), Err(AccessRefusal::Enrolled(pi)));
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
