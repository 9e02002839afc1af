//! Which orders root takes, without any process being started.

use std::path::Path;

use std::collections::BTreeMap;

use pistat_protocol::{
    codec::encode,
    order::{CancelOrder, ControllerKey, Order},
};
use pistat_testkit::payload;

use super::*;
use crate::options::Policy;

struct Bench {
    runner: Runner,
    key: ControllerKey,
    session: Session,
    /// As if the runner had given it for the order.
    nonce: Nonce,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str| folder.path().join(name);
        let folders = Folders { state: of("state"), runtime: of("runtime"), configuration: of("etc") };
        for path in [folders.runs(), folders.runtime.clone()] {
            std::fs::create_dir_all(path).unwrap();
        }
        let key = ControllerKey::from_secret(&[4; 32]);
        let root = of("root");
        let pinned = Pinned { pi: "pi-1".parse().unwrap(), serial: None, controller_key: key.public() };
        pinned.save(&folders.state).unwrap();
        let settings = Settings { agent_uid: 0, policy: Policy::Controller, nice: 0 };
        let runner = Runner { folders, settings, root };
        let mut bench = Self {
            runner,
            key,
            session: Session::from_random([0; 16]),
            nonce: Nonce::from_random([7; 16]),
            _folder: folder,
        };
        bench.session = bench.ask_session();
        bench
    }

    fn ask_session(&self) -> Session {
        match self.runner.begin(Kind::AskSession, &[]).unwrap() {
            Begin::Answer(Kind::Session, text) => Session::try_from(String::from_utf8(text).unwrap()).unwrap(),
            _ => panic!("a session"),
        }
    }

    fn order(&self, n: u64) -> ExecuteOrder {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let run = RunId::from_parts(u64::try_from(now.as_millis()).unwrap() + n, [0; 10]);
        ExecuteOrder {
            task: "apt-upgrade".parse().unwrap(),
            root: true,
            nonce: Some(self.nonce.clone()),
            ..payload::order(&"pi-1".parse().unwrap(), run, &self.session, &["apt-get"])
        }
    }

    fn execute(&self, signed: &[u8]) -> Result<Begin, Refusal> {
        self.runner.execute(signed, &self.nonce, Duration::ZERO)
    }

    fn signed(&self, order: ExecuteOrder) -> Vec<u8> {
        encode(&self.key.sign(&Order::Execute(order)))
    }

    fn refusal(&self, order: ExecuteOrder) -> String {
        self.sentence(&self.signed(order))
    }

    fn sentence(&self, signed: &[u8]) -> String {
        match self.execute(signed) {
            Err(refusal) => refusal.to_string(),
            Ok(_) => panic!("it was taken"),
        }
    }
}

#[test]
fn a_signed_order_of_this_session_is_taken_once() {
    let bench = Bench::new();
    let signed = bench.signed(bench.order(1));
    let Ok(Begin::Run(_, claim)) = bench.execute(&signed) else { panic!("it is taken") };
    assert!(bench.sentence(&signed).contains("replay"), "while it runs");
    drop(claim);
    assert!(bench.sentence(&signed).contains("replay"), "and when it has ended");
    let next_session = Bench { session: bench.ask_session(), ..bench };
    let again = next_session.order(1);
    let run = match next_session.key.public().verify(&signed).unwrap() {
        VerifiedOrder::Execute(order) => order.get().run,
        _ => panic!("an order to run"),
    };
    assert!(next_session.refusal(ExecuteOrder { run, ..again }).contains("replay"), "signed anew for another session");
}

#[test]
fn what_is_unsigned_altered_foreign_or_old_starts_nothing() {
    let bench = Bench::new();
    let good = bench.order(1);
    assert!(bench.execute(b"").is_err() && bench.execute(b"{\"kind\":\"execute\"}").is_err());
    let unsigned = encode(&Order::Execute(good.clone()));
    assert!(bench.execute(&unsigned).is_err());
    let mut altered = bench.key.sign(&Order::Execute(good.clone()));
    altered.payload = altered.payload.replace("apt-get", "apt-gat");
    assert!(bench.sentence(&encode(&altered)).contains("signature"));
    let stranger = ControllerKey::from_secret(&[5; 32]).sign(&Order::Execute(good.clone()));
    assert!(bench.sentence(&encode(&stranger)).contains("runner pin"), "it says what to do after another enrolment");
    let other = |change: &dyn Fn(&mut ExecuteOrder)| {
        let mut order = good.clone();
        change(&mut order);
        bench.refusal(order)
    };
    assert!(other(&|order| order.pi = "pi-2".parse().unwrap()).contains("pi-2"));
    assert!(other(&|order| order.session = Session::from_random([9; 16])).contains("session"));
    assert!(other(&|order| order.root = false).contains("does not ask for root"));
    assert!(other(&|order| order.argv.clear()).contains("no program"));
    let cancel = CancelOrder { pi: good.pi.clone(), run: good.run, session: good.session.clone() };
    assert!(bench.execute(&encode(&bench.key.sign(&Order::Cancel(cancel)))).is_err(), "a cancellation starts nothing");
    assert!(bench.execute(&bench.signed(good)).is_ok(), "and the good one is still taken");
}

#[test]
fn an_order_that_was_held_back_is_worth_nothing_in_the_next_session() {
    let bench = Bench::new();
    let held_back = bench.signed(bench.order(1));
    let next = bench.ask_session();
    assert_ne!(next, bench.session);
    assert!(bench.sentence(&held_back).contains("session"));
}

#[test]
fn after_a_boot_there_is_no_session_until_one_is_asked_for() {
    let bench = Bench::new();
    std::fs::remove_file(bench.runner.folders.session()).unwrap();
    assert!(bench.refusal(bench.order(1)).contains("no session"));
}

#[test]
fn an_order_is_taken_whatever_the_clocks_of_controller_and_machine_say() {
    const DAY: u64 = 86_400_000;
    let bench = Bench::new();
    // This machine says that its clock is right, and either of the two may have jumped.
    std::fs::create_dir_all(bench.runner.root.join("run/systemd/timesync")).unwrap();
    std::fs::write(bench.runner.root.join("run/systemd/timesync/synchronized"), "").unwrap();
    let now = bench.order(0).run.unix_milliseconds();
    for made in [now - 400 * DAY, now - 9 * DAY, now, now + 400 * DAY] {
        let order = ExecuteOrder { run: RunId::from_parts(made, [0; 10]), ..bench.order(0) };
        assert!(bench.execute(&bench.signed(order)).is_ok(), "made at {made}");
    }
}

/// Asks for a nonce with one order and answers it with another; what the runner makes of it, and
/// its nonce.
async fn prepare(bench: &Bench, first: &[u8], second: impl Fn(Nonce) -> Option<Vec<u8>>) -> Result<Begin, Refusal> {
    prepare_after(bench, first, Duration::ZERO, second).await
}

/// As [`prepare`], with an answer that comes after a time.
async fn prepare_after(
    bench: &Bench,
    first: &[u8],
    time: Duration,
    second: impl Fn(Nonce) -> Option<Vec<u8>>,
) -> Result<Begin, Refusal> {
    let (own, other) = UnixStream::pair().unwrap();
    let (mut wire, mut agent) = (Wire::new(own), Wire::new(other));
    let answer = async {
        let Some((Kind::Nonce, nonce)) = agent.frame().await.unwrap() else { panic!("a nonce") };
        let nonce = Nonce::try_from(String::from_utf8(nonce.into()).unwrap()).unwrap();
        tokio::time::sleep(time).await;
        if let Some(signed) = second(nonce) {
            agent.push(Kind::Execute, &signed);
            agent.flush().await.unwrap();
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        begun = bench.runner.prepare(&mut wire, first) => begun,
        () = answer => unreachable!("it waits for ever"),
    }
}

fn sentence_of(begun: Result<Begin, Refusal>) -> String {
    begun.err().map(|refusal| refusal.to_string()).unwrap_or_default()
}

#[tokio::test]
async fn an_order_starts_only_when_it_comes_back_with_the_runners_nonce_and_only_once() {
    let bench = Bench::new();
    let order = bench.order(1);
    let with = |nonce: Option<Nonce>| bench.signed(ExecuteOrder { nonce, ..order.clone() });
    let first = with(None);
    assert!(
        sentence_of(bench.runner.begin(Kind::Execute, &first)).contains("no nonce"),
        "without having asked for one"
    );
    assert!(sentence_of(prepare(&bench, &first, |_| Some(with(None))).await).contains("no nonce"));
    let other = Nonce::from_random([1; 16]);
    assert!(sentence_of(prepare(&bench, &first, |_| Some(with(Some(other.clone())))).await).contains("another nonce"));
    let foreign = |nonce| {
        Some(bench.signed(ExecuteOrder { session: Session::from_random([9; 16]), nonce: Some(nonce), ..order.clone() }))
    };
    assert!(sentence_of(prepare(&bench, &first, foreign).await).contains("session"));
    assert!(matches!(prepare(&bench, &first, |nonce| Some(with(Some(nonce)))).await, Ok(Begin::Run(..))));
    assert!(sentence_of(prepare(&bench, &first, |nonce| Some(with(Some(nonce)))).await).contains("replay"));
    let forged = ControllerKey::from_secret(&[66; 32]).sign(&Order::Execute(bench.order(2)));
    let asked = prepare(&bench, &encode(&forged), |_| panic!("no nonce for what is not signed")).await;
    assert!(sentence_of(asked).contains("signature"));
}

#[tokio::test(start_paused = true)]
async fn a_nonce_that_is_not_used_in_time_is_gone() {
    let bench = Bench::new();
    let (order, old) = (bench.order(1), std::cell::RefCell::new(None));
    let first = bench.signed(ExecuteOrder { nonce: None, ..order.clone() });
    let kept = |nonce| {
        old.replace(Some(nonce));
        None
    };
    assert!(matches!(prepare(&bench, &first, kept).await, Ok(Begin::Nothing)), "nobody is waited for");
    let late = bench.signed(ExecuteOrder { nonce: old.take(), ..order.clone() });
    assert!(sentence_of(prepare(&bench, &first, |_| Some(late.clone())).await).contains("another nonce"));
    let with = |nonce| Some(bench.signed(ExecuteOrder { nonce: Some(nonce), ..order.clone() }));
    let moment = Duration::from_millis(1);
    let too_late = prepare_after(&bench, &first, ROOT_NONCE_LIFETIME + moment, with).await;
    assert!(matches!(too_late, Ok(Begin::Nothing)), "the right order, too late");
    // A machine that was suspended meanwhile: no timer ran, but the time went on.
    let own = with(bench.nonce.clone()).unwrap();
    let aged = |age| bench.runner.execute(&own, &bench.nonce, age);
    assert!(sentence_of(aged(ROOT_NONCE_LIFETIME + moment)).contains("too late"));
    assert!(matches!(aged(ROOT_NONCE_LIFETIME), Ok(Begin::Run(..))), "just in time");
}

#[test]
fn a_cloned_card_is_not_believed() {
    let bench = Bench::new();
    let folder = &bench.runner.folders.state;
    let pinned = Pinned { serial: Some("1000000012345678".into()), ..Pinned::load(folder).unwrap() };
    pinned.save(folder).unwrap();
    assert!(bench.refusal(bench.order(1)).contains("another board"));
}

#[test]
fn roots_own_policy_comes_last_and_wins() {
    let mut bench = Bench::new();
    bench.runner.settings.policy = Policy::Listed(BTreeMap::from([("reboot".parse().unwrap(), None)]));
    assert!(bench.refusal(bench.order(1)).contains("not among"));
}

#[test]
fn only_a_signed_cancellation_of_this_run_counts() {
    let bench = Bench::new();
    let order = bench.order(1);
    let cancel = CancelOrder { pi: order.pi.clone(), run: order.run, session: order.session.clone() };
    let sign = |key: &ControllerKey, cancel: &CancelOrder| encode(&key.sign(&Order::Cancel(cancel.clone())));
    let other = |cancel: CancelOrder| bench.runner.admit_cancel(&sign(&bench.key, &cancel), order.run).is_err();
    assert!(bench.runner.admit_cancel(&sign(&bench.key, &cancel), order.run).is_ok());
    assert!(bench.runner.admit_cancel(&sign(&ControllerKey::from_secret(&[6; 32]), &cancel), order.run).is_err());
    assert!(other(CancelOrder { run: bench.order(2).run, ..cancel.clone() }));
    assert!(other(CancelOrder { session: Session::from_random([9; 16]), ..cancel.clone() }));
    assert!(other(CancelOrder { pi: "pi-2".parse().unwrap(), ..cancel }));
}

#[test]
fn a_run_that_nobody_started_is_not_known() {
    let bench = Bench::new();
    let run = bench.order(1).run;
    let ask = |run: &str| bench.runner.begin(Kind::Attach, run.as_bytes());
    assert!(matches!(ask(&run.to_string()), Ok(Begin::Answer(Kind::Unknown, _))));
    assert!(ask("../../etc/passwd").is_err());
    let claim = bench.runner.claim(run).unwrap();
    assert!(matches!(ask(&run.to_string()), Ok(Begin::Answer(Kind::Busy, _))));
    drop(claim);
    Ledger::new(&bench.runner.folders.state).enter(run).unwrap();
    assert!(matches!(ask(&run.to_string()), Ok(Begin::Answer(Kind::Done, _))));
}

/// A state folder of the agent's user, enrolled as this machine with the controller of this secret.
fn enrolled_agent(pi: &str, secret: u8) -> (tempfile::TempDir, String) {
    let agent = tempfile::tempdir().unwrap();
    let fingerprint = enrol(agent.path(), pi, secret);
    (agent, fingerprint)
}

fn enrol(agent: &Path, pi: &str, secret: u8) -> String {
    let mut credential = crate::credential::Credential::generate(pi.parse().unwrap(), None).unwrap();
    let key = ControllerKey::from_secret(&[secret; 32]).public();
    credential.controller_key = Some(key.clone());
    credential.save(agent).unwrap();
    key.fingerprint()
}

fn try_pin(bench: &Bench, agent: &Path, words: &[&str]) -> Result<(), String> {
    let folder = std::fs::canonicalize(agent).unwrap();
    let words = ["runner", "pin", "--agent-state", folder.to_str().unwrap()].into_iter().chain(words.iter().copied());
    match <Words as clap::Parser>::try_parse_from(words).unwrap().command {
        Some(Command::Pin(pin)) => pin.run(&bench.runner.folders.state),
        None => panic!("a pinning"),
    }
}

fn pinned(bench: &Bench) -> String {
    Pinned::load(&bench.runner.folders.state).unwrap().to_string()
}

#[test]
fn nothing_is_pinned_without_a_fingerprint_or_explicit_trust_in_the_agents_user() {
    let bench = Bench::new();
    std::fs::remove_dir_all(&bench.runner.folders.state).unwrap();
    let (agent, fingerprint) = enrolled_agent("pi-7", 8);
    let refused = try_pin(&bench, agent.path(), &[]).unwrap_err();
    assert!(refused.contains("--fingerprint") && refused.contains("--trust-agent"), "{refused}");
    assert!(try_pin(&bench, agent.path(), &["--fingerprint", "another"]).unwrap_err().contains("which is another"));
    let other_name = try_pin(&bench, agent.path(), &["--fingerprint", &fingerprint, "--pi-id", "pi-8"]);
    assert!(other_name.unwrap_err().contains("enrolled as pi-7, not as pi-8"));
    assert!(matches!(Pinned::load(&bench.runner.folders.state), Err(TrustError::NotPinned)));
    try_pin(&bench, agent.path(), &["--fingerprint", &fingerprint, "--pi-id", "pi-7"]).unwrap();
    assert!(pinned(&bench).contains("pi-7") && pinned(&bench).contains(&fingerprint));
    std::fs::remove_dir_all(&bench.runner.folders.state).unwrap();
    try_pin(&bench, agent.path(), &["--trust-agent"]).unwrap();
    assert!(pinned(&bench).contains(&fingerprint));
}

#[test]
fn what_is_pinned_is_replaced_only_on_request() {
    let bench = Bench::new();
    let (agent, fingerprint) = enrolled_agent("pi-1", 4);
    try_pin(&bench, agent.path(), &["--fingerprint", &fingerprint]).unwrap();
    let before = pinned(&bench);
    for (pi, secret) in [("pi-1", 66), ("pi-2", 4)] {
        let other = enrol(agent.path(), pi, secret);
        for words in [&["--trust-agent"][..], &["--fingerprint", &other]] {
            let refused = try_pin(&bench, agent.path(), words).unwrap_err();
            assert!(
                refused.contains("--replace") && refused.contains(&before) && refused.contains(&other),
                "{refused}"
            );
            assert_eq!(pinned(&bench), before, "{words:?}");
        }
    }
    let other = enrol(agent.path(), "pi-1", 66);
    try_pin(&bench, agent.path(), &["--fingerprint", &other, "--replace"]).unwrap();
    assert!(pinned(&bench).contains(&other));
    std::fs::write(bench.runner.folders.state.join("controller.json"), "{").unwrap();
    assert!(try_pin(&bench, agent.path(), &["--trust-agent"]).unwrap_err().contains("--replace"), "a damaged one, too");
}

#[test]
fn a_credential_that_the_agents_user_made_a_link_a_fifo_or_endless_is_refused_at_once() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let bench = Bench::new();
    let (elsewhere, fingerprint) = enrolled_agent("pi-1", 4);
    let agent = tempfile::tempdir().unwrap();
    let file = agent.path().join("credential.json");
    let make: [(&str, &dyn Fn()); 3] = [
        ("symbolic link", &|| std::os::unix::fs::symlink(elsewhere.path().join("credential.json"), &file).unwrap()),
        ("not a regular file", &|| mknodat(CWD, &file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap()),
        ("more than", &|| std::fs::File::create(&file).unwrap().set_len(1 << 40).unwrap()),
    ];
    for (why, make) in make {
        make();
        // A FIFO would hold an opening up for ever, and the end of time is the test's limit.
        let refused = try_pin(&bench, agent.path(), &["--fingerprint", &fingerprint]).unwrap_err();
        assert!(refused.contains(why), "{refused}");
        std::fs::remove_file(&file).unwrap();
    }
    assert!(try_pin(&bench, agent.path(), &["--trust-agent"]).unwrap_err().contains("not enrolled yet"));
}

#[test]
fn the_advice_after_a_foreign_signature_does_not_lead_to_the_key_that_signed_it() {
    let bench = Bench::new();
    let forged = ControllerKey::from_secret(&[66; 32]).sign(&Order::Execute(bench.order(1)));
    let advice = bench.sentence(&encode(&forged));
    assert!(
        advice.contains("--replace") && advice.contains("--fingerprint") && advice.contains("Do nothing unless"),
        "{advice}"
    );
    assert!(!bench.refusal(ExecuteOrder { pi: "pi-2".parse().unwrap(), ..bench.order(2) }).contains("pin"));
}

#[test]
fn the_documentation_names_every_flag_of_pinning() {
    let page = include_str!("../../../docs/configuration.md");
    let (_, section) = page.split_once("\n## The root runner\n").unwrap();
    let words = <Words as clap::CommandFactory>::command();
    let flags: Vec<_> = words.find_subcommand("pin").unwrap().get_arguments().filter_map(clap::Arg::get_long).collect();
    assert!(flags.len() > 2, "{flags:?}");
    for flag in flags {
        let is_named = [' ', '`'].iter().any(|end| section.contains(&format!("\n| `--{flag}{end}")));
        assert!(is_named, "docs/configuration.md does not name --{flag}");
    }
}
