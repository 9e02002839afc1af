//! What a new machine fetches: the install script and the agents, open to everybody and vouched for
//! by one checksum.
//!
//! `packaging/test-install` runs the whole command as root in a system made for it; here it goes as
//! far as it can without being root.

use std::{
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::Path,
    process::Command,
};

use pistat_protocol::{
    api::Installation,
    order::{hex, sha256},
};
use pistat_testkit::{
    DEADLINE, Http, Port, Process, Stack,
    process::{Finished, run},
    programs::program,
};

use crate::access::on_a_terminal;

/// All names under which agents are handed out.
const TARGETS: [&str; 4] = ["aarch64", "armv7", "armv6", "x86_64"];

/// A program for a processor, as far as a controller looks at it: an ELF header, and a few bytes
/// that do not run.
fn agent_for(target: &str) -> Vec<u8> {
    let (class, machine) = match target {
        "aarch64" => (2, 0xb7),
        "x86_64" => (2, 0x3e),
        _ => (1, 0x28),
    };
    let header = [0x7f, b'E', b'L', b'F', class, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, machine, 0];
    [&header[..], format!("an agent for {target}\n").as_bytes()].concat()
}

/// A controller with agents for all processors but the last.
fn write_agents(folder: &Path) {
    for target in &TARGETS[..3] {
        std::fs::write(folder.join(format!("pistat-agent-{target}")), agent_for(target)).unwrap();
    }
}

async fn stack_with_agents(folder: &Path) -> Stack {
    write_agents(folder);
    Stack::builder().config(&format!("[http]\ndownloads = {:?}\n", folder.display())).start().await
}

async fn shell(folder: &Path, command: &str) -> Finished {
    let mut shell = Command::new("sh");
    shell.env_clear().env("PATH", format!("{}:/usr/bin:/bin", folder.display())).env("TMPDIR", folder);
    run("sh", shell.current_dir(folder).args(["-c", command]), DEADLINE).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_agent_can_be_fetched_by_anybody_with_its_checksum() {
    let folder = tempfile::tempdir().unwrap();
    let stack = stack_with_agents(folder.path()).await;
    for target in &TARGETS[..3] {
        let reply = stack.anonymous().get(&format!("/download/{target}")).await;
        assert_eq!((reply.status, &*reply.body), (200, &*String::from_utf8_lossy(&agent_for(target))));
        assert_eq!(reply.content_type, "application/octet-stream");
        let sum = stack.anonymous().get(&format!("/download/{target}.sha256")).await;
        assert_eq!(sum.body, format!("{}  pistat-agent-{target}\n", hex(&sha256(&agent_for(target)))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_not_there_is_told_with_where_it_would_be() {
    let folder = tempfile::tempdir().unwrap();
    let stack = stack_with_agents(folder.path()).await;
    std::fs::remove_file(folder.path().join("pistat-agent-armv6")).unwrap();
    for path in ["/download/armv6", "/download/armv6.sha256"] {
        let problem = stack.anonymous().get(path).await.problem();
        assert_eq!(problem.status, 404);
        let told = ["pistat-agent-armv6", "http.downloads", "packaging/build armv6"];
        assert!(told.iter().all(|part| problem.detail.contains(part)), "{}", problem.detail);
        // Strangers need not know where this controller keeps things.
        assert!(!problem.detail.contains(folder.path().to_str().unwrap()), "{}", problem.detail);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_never_offered_to_another_processor() {
    let folder = tempfile::tempdir().unwrap();
    let stack = stack_with_agents(folder.path()).await;
    std::fs::write(folder.path().join("pistat-agent-aarch64"), agent_for("x86_64")).unwrap();
    stack.anonymous().get("/download/aarch64").await.problem();
    let script = stack.anonymous().get("/install.sh").await.body;
    assert!(script.contains("\narmv7 ") && !script.contains("\naarch64 "), "{script}");
    let installation: Installation = stack.http().get("/api/installation").await.json();
    let shown = installation.agents.iter().map(|agent| (&*agent.architecture, agent.available));
    // The last is there if the agent beside the controller is a release build.
    let is_available = |name: &str| installation.architectures.iter().any(|architecture| architecture == name);
    let expected = [("aarch64", false), ("armv7", true), ("armv6", true), ("x86_64", is_available("x86_64"))];
    assert_eq!(shown.collect::<Vec<_>>(), expected);
    assert_eq!(installation.agents_folder, folder.path().to_str().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_from_outside_never_becomes_a_path() {
    let folder = tempfile::tempdir().unwrap();
    let agents = folder.path().join("agents");
    std::fs::create_dir(&agents).unwrap();
    std::fs::write(folder.path().join("secret"), "secret").unwrap();
    std::fs::write(agents.join("pistat-agent-"), "secret").unwrap();
    let stack = stack_with_agents(&agents).await;
    for name in [
        "..%2Fsecret",
        "%2e%2e%2fsecret",
        "x%2F..%2F..%2Fsecret",
        "aarch64%2F..%2F..%2Fsecret",
        "aarch64%00",
        ".sha256",
        "%20",
        "AARCH64",
        "riscv64",
        "armv6.sha256.sha256",
    ] {
        let reply = stack.anonymous().get(&format!("/download/{name}")).await;
        assert!(matches!(reply.status, 400 | 404), "{name}: {reply:?}");
        reply.problem();
    }
    for path in ["/download", "/download/", "/download/aarch64/more", "/install.sh/.."] {
        let reply = stack.anonymous().get(path).await;
        assert!(!reply.body.contains("secret") && reply.status != 500, "{path}: {reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_script_is_vouched_for_and_vouches_for_every_agent() {
    let folder = tempfile::tempdir().unwrap();
    let stack = stack_with_agents(folder.path()).await;
    let script = stack.anonymous().get("/install.sh").await;
    assert_eq!((script.status, &*script.content_type), (200, "text/x-shellscript; charset=utf-8"));
    let told: Installation = stack.http().get("/api/installation").await.json();
    assert_eq!(told.script_sha256, hex(&sha256(script.body.as_bytes())));
    assert_eq!(told.controller_url, stack.said.http, "it listens there alone");
    for target in &TARGETS[..3] {
        assert!(told.architectures.iter().any(|name| name == target), "{told:?}");
        let sum = hex(&sha256(&agent_for(target)));
        assert!(script.body.contains(&format!("\n{target} {sum}\n")), "{target}");
    }
    // An agent that is replaced changes the script, and so what vouches for it.
    std::fs::write(folder.path().join("pistat-agent-armv6"), agent_for("armv6, another")).unwrap();
    let then: Installation = stack.http().get("/api/installation").await.json();
    assert_ne!(then.script_sha256, told.script_sha256);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_was_changed_on_its_way_is_not_started() {
    let folder = tempfile::tempdir().unwrap();
    write_agents(folder.path());
    let port = Port::claim();
    let address = port.address().to_string();
    let mut command = Command::new(program("pistat"));
    command.args(["serve", "--http", &address, "--mqtt", "127.0.0.1:0"]).current_dir(folder.path());
    command.env_clear().env("PISTAT_HTTP__DOWNLOADS", folder.path());
    // The command has a secret in it, so it is printed to a terminal only.
    let lines = on_a_terminal(&mut command, "--pi-id pi-1");
    let shown = lines.iter().find_map(|line| line.strip_prefix("  add a Pi    "));
    let right = shown.expect("the command that adds a Pi").trim().to_owned();
    let mut controller = Process::start("pistat", &mut command);
    controller.line("how a Pi is added", DEADLINE, |line| line.contains("add a Pi").then_some(())).await;
    let secret = |name: &str| std::fs::read_to_string(folder.path().join("state").join(name)).unwrap();
    let http = Http::new(&format!("http://{address}")).bearer(&secret("admin.token"));
    let told: Installation = http.get("/api/installation").await.json();
    let wrong = right.replace(&told.script_sha256, &"0".repeat(64));
    assert_ne!(right, wrong, "the command names the checksum");
    // Stands for sudo, and shows what it was asked to start and what came on standard input.
    let sudo = folder.path().join("sudo");
    std::fs::write(&sudo, "#!/bin/sh\nprintf 'started %s\\n' \"$*\"\ncat\n").unwrap();
    std::fs::set_permissions(&sudo, PermissionsExt::from_mode(0o755)).unwrap();
    let refused = shell(folder.path(), &wrong).await;
    assert!(refused.code != 0 && !refused.stdout.contains("started"), "{refused:?}");
    let started = shell(folder.path(), &right).await;
    assert_eq!(started.code, 0, "{started:?}");
    let (words, input) = started.stdout.split_once("started ").unwrap().1.split_once('\n').unwrap();
    assert!(words.contains("--pi-id pi-1") && words.contains("--label Rack Pi 1"), "{words}");
    let token = secret("join.token");
    assert_eq!(input.trim(), token.trim());
    assert!(!words.contains(token.trim()), "the token is in no argument: {words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_script_says_what_it_needs_before_it_changes_anything() {
    let folder = tempfile::tempdir().unwrap();
    let stack = stack_with_agents(folder.path()).await;
    let script = stack.anonymous().get("/install.sh").await.body;
    std::fs::write(folder.path().join("install.sh"), script).unwrap();
    let url = &stack.said.http;
    for (words, code, part) in [
        (String::new(), 64, "--controller-url is missing"),
        (format!("--controller-url {url}"), 64, "--pi-id is missing"),
        (format!("--controller-url {url} --pi-id 'garage door'"), 64, "letters, digits"),
        ("--controller-url mqtt://broker --pi-id pi-1".into(), 64, "http(s)://"),
        (format!("--controller-url {url} --pi-id pi-1 --label"), 64, "needs a value"),
        (format!("--controller-url {url} --pi-id pi-1 --ca /nonexistent"), 64, "cannot be read"),
        ("--frobnicate".into(), 64, "not understood"),
    ] {
        let told = shell(folder.path(), &format!("sh install.sh {words} </dev/null")).await;
        assert!(told.code == code && told.stderr.contains(part), "{words}: {told:?}");
    }
    let odd = shell(folder.path(), &format!("echo 'a b' | sh install.sh --controller-url {url} --pi-id pi-1")).await;
    assert!(odd.code == 64 && odd.stderr.contains("not a join token"), "{odd:?}");
    if !rustix::process::geteuid().is_root() {
        let told = shell(folder.path(), &format!("sh install.sh --controller-url {url} --pi-id pi-1 </dev/null")).await;
        assert!(told.code == 77 && told.stderr.contains("sudo"), "{told:?}");
    }
}

/// The functions of the script, with these lines after them.
async fn with_the_functions(folder: &Path, lines: &str) -> Finished {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/install.sh");
    let script = std::fs::read_to_string(script).unwrap();
    let functions = script.trim_end().strip_suffix("\nmain \"$@\"").expect("the script ends with its call");
    std::fs::write(folder.join("functions.sh"), functions).unwrap();
    shell(folder, &format!(". ./functions.sh\ntemporary=$PWD\n{lines}")).await
}

#[tokio::test]
async fn the_agent_is_one_for_the_programs_of_a_machine_and_not_for_its_kernel() {
    let folder = tempfile::tempdir().unwrap();
    for (kernel, bits, expected) in [
        ("aarch64", "64", "aarch64"),
        ("aarch64", "32", "armv7 armv6"),
        ("armv6l", "32", "armv6"),
        ("x86_64", "64", "x86_64"),
        ("x86_64", "32", ""),
        ("riscv64", "64", ""),
    ] {
        let told = format!("uname() {{ echo {kernel}; }}\ngetconf() {{ echo {bits}; }}\narchitectures");
        let told = with_the_functions(folder.path(), &told).await;
        assert_eq!((&*told.stdout, told.code), (expected, if expected.is_empty() { 69 } else { 0 }), "{told:?}");
        // Where getconf is missing, dpkg knows.
        let architecture = if bits == "32" { "armhf" } else { "arm64" };
        let stubs = format!(
            "uname() {{ echo {kernel}; }}\nhave() {{ false; }}\ndpkg() {{ echo {architecture}; }}\narchitectures"
        );
        assert_eq!(with_the_functions(folder.path(), &stubs).await.stdout, expected, "{kernel} {bits}");
    }
}

/// The script's installation of a program for this processor: the controller offers `offers`, and
/// `/download` has `program`.
async fn installing(folder: &Path, machine: &str, offers: &str, program: &str) -> Finished {
    std::fs::write(folder.join("served"), program).unwrap();
    let stubs = format!(
        "uname() {{ echo {machine}; }}\ngetconf() {{ echo 64; }}\nis_packaged() {{ false; }}\nprogram=$PWD/agent url=http://c\n\
         checksums() {{ for name in {offers}; do echo \"$name $(sha256sum <served | cut -d' ' -f1)\"; done; }}\n\
         fetch() {{ cp served \"$2\"; }}\ninstall_program"
    );
    with_the_functions(folder, &stubs).await
}

#[tokio::test]
async fn a_machine_for_which_there_is_no_agent_is_told_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let refused = installing(folder.path(), "aarch64", "x86_64", "").await;
    assert_eq!(refused.code, 69, "{refused:?}");
    for part in ["it has: x86_64", "packaging/build aarch64", "agents/ of its state folder", "cargo build --release"] {
        assert!(refused.stderr.contains(part), "{part}: {refused:?}");
    }
    assert!(!folder.path().join("agent").exists());
    let none = installing(folder.path(), "armv6l", "", "").await;
    assert!(none.code == 69 && none.stderr.contains("it has: none"), "{none:?}");
    let unknown = installing(folder.path(), "riscv64", "x86_64", "").await;
    assert_eq!((unknown.code, unknown.stderr.matches("pistat-install:").count()), (69, 1), "{unknown:?}");
}

#[tokio::test]
async fn an_agent_that_does_not_start_here_is_not_installed() {
    let folder = tempfile::tempdir().unwrap();
    let installed = folder.path().join("agent");
    std::fs::write(&installed, "the agent before").unwrap();
    let newer = "#!/bin/sh\necho \"version 'GLIBC_2.99' not found\" >&2\nexit 1\n";
    let refused = installing(folder.path(), "x86_64", "x86_64", newer).await;
    assert_eq!(refused.code, 69, "{refused:?}");
    for part in ["GLIBC_2.99", "packaging/build x86_64", "Nothing was installed"] {
        assert!(refused.stderr.contains(part), "{part}: {refused:?}");
    }
    assert_eq!(std::fs::read_to_string(&installed).unwrap(), "the agent before");
    assert!(!folder.path().join("agent.candidate").exists());
    let starts = "#!/bin/sh\n[ \"$1\" = --version ]\n";
    let done = installing(folder.path(), "x86_64", "x86_64", starts).await;
    assert_eq!((done.code, std::fs::read_to_string(&installed).unwrap().as_str()), (0, starts), "{done:?}");
}

/// `cargo run` builds one program: its runner, `.cargo/run`, builds the agent that the controller
/// hands out.
#[tokio::test]
async fn before_a_release_build_of_the_controller_starts_the_agent_is_built() {
    let runner = concat!(env!("CARGO_MANIFEST_DIR"), "/../.cargo/run");
    let folder = tempfile::tempdir().unwrap();
    let script = |path: &Path, text: &str| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    };
    let cargo = folder.path().join("cargo");
    for (program, is_built) in [
        ("release/pistat", true),
        ("debug/pistat", false),
        ("release/pistat-sim", false),
        ("release/deps/end_to_end-0123", false),
        ("aarch64-unknown-linux-gnu/release/pistat", false),
    ] {
        let path = folder.path().join("a target").join(program);
        script(&path, "echo \"started $*\"");
        for cargo_fails in [false, true] {
            script(
                &cargo,
                if cargo_fails { "exit 101" } else { "echo \"built $* in ${CARGO_PKG_NAME-nothing}${OUT_DIR-}\"" },
            );
            let mut command = Command::new(runner);
            command
                .env("CARGO", &cargo)
                .env("CARGO_PKG_NAME", "pistat")
                .env("OUT_DIR", "/x")
                .arg(&path)
                .args(["a", "b c"]);
            let finished = run("the runner", &mut command, DEADLINE).await;
            let (built, started) = finished.stdout.split_once("started").unwrap_or_else(|| panic!("{finished:?}"));
            assert_eq!((finished.code, started.trim()), (0, "a b c"), "{program}");
            assert_eq!(built.contains("--bin pistat-agent in nothing"), is_built && !cargo_fails, "{program}: {built}");
            assert_eq!(finished.stderr.contains("was not built"), is_built && cargo_fails, "{program}: {finished:?}");
        }
    }
}

#[tokio::test]
async fn what_was_not_written_whole_is_not_put_in_place() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("target"), "old").unwrap();
    std::fs::write(folder.path().join("fetched"), "the whole program").unwrap();
    for full_disk in ["cp() { head -c 3 \"$1\" >\"$2\"; }", "cat() { head -c 3; false; }", "mv() { false; }"] {
        let put = format!("{full_disk}\nput \"$PWD/target\" 755 <fetched || true");
        let told = with_the_functions(folder.path(), &put).await;
        assert!(told.code == 73 && told.stderr.contains("cannot be written"), "{full_disk}: {told:?}");
        assert_eq!(std::fs::read_to_string(folder.path().join("target")).unwrap(), "old", "{full_disk}");
        assert!(!folder.path().join("target.new").exists(), "{full_disk}");
    }
    let told = with_the_functions(folder.path(), "put \"$PWD/target\" 755 <fetched || true").await;
    assert_eq!((told.code, &*told.stderr), (0, ""));
    assert_eq!(std::fs::read_to_string(folder.path().join("target")).unwrap(), "the whole program");
}

#[tokio::test]
async fn an_agent_that_is_not_let_in_is_told_and_nothing_of_the_token_stays() {
    let folder = tempfile::tempdir().unwrap();
    let lines = "has_systemd() { false; }\nchown() { :; }\nstate=$PWD/state token=secret\n\
        as_agent() { said=$1; shift; echo \"no connection: $*\" >\"$said\"; return 75; }\nenroll";
    let told = with_the_functions(folder.path(), lines).await;
    assert_eq!(told.code, 75, "{told:?}");
    assert!(told.stderr.contains("no connection: enroll --state"), "the agent is asked to enrol and to end: {told:?}");
}

#[tokio::test]
async fn the_root_runner_is_told_its_controller_by_root_alone() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["etc", "runner", "state"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    // What the agent's user wrote is there each time, and counts for nothing.
    std::fs::write(folder.path().join("state/credential.json"), "{}").unwrap();
    let agent = folder.path().join("agent");
    std::fs::write(&agent, "#!/bin/sh\necho \"$*\"\n").unwrap();
    std::fs::set_permissions(&agent, PermissionsExt::from_mode(0o755)).unwrap();
    let lines = "has_systemd() { true; }\nsystemctl() { :; }\nconfig=$PWD/etc/agent.toml state=$PWD/state \
        runner_state=$PWD/runner root_tasks=yes pi=pi-1 agent=$PWD/agent\n";
    let pin =
        async |before: &str| with_the_functions(folder.path(), &format!("{lines}{before}\npin_runner\nstart")).await;
    let refused = pin("").await;
    assert!(refused.code == 78 && refused.stderr.contains("--fingerprint"), "{refused:?}");
    assert!(!refused.stdout.contains("runner pin"), "{refused:?}");
    let by_token = pin("token=secret.FINGER").await;
    assert!(by_token.stdout.contains("--pi-id pi-1 --fingerprint FINGER --replace\n"), "{by_token:?}");
    std::fs::write(folder.path().join("etc/controller.fingerprint"), "NOTED\n").unwrap();
    let by_note = pin("").await;
    assert!(by_note.stdout.contains("--pi-id pi-1 --fingerprint NOTED\n") && by_note.code == 0, "{by_note:?}");
    std::fs::write(folder.path().join("runner/controller.json"), "{}").unwrap();
    let kept = pin("").await;
    assert!(kept.code == 0 && !kept.stdout.contains("runner pin"), "{kept:?}");
}

#[tokio::test]
async fn removing_leaves_nothing_of_the_agent_and_the_rest_alone() {
    let folder = tempfile::tempdir().unwrap();
    let of = |path: &str| folder.path().join("machine").join(path);
    for path in [
        "etc/pistat/agent.toml",
        "etc/pistat/ca.pem",
        "etc/pistat/join.token",
        "etc/pistat/runner.toml",
        "etc/pistat/controller.fingerprint",
        "units/pistat-agent.service",
        "units/pistat-agent.service.d/override.conf",
        "units/pistat-runner.socket.d/override.conf",
        "units/pistat-runner@.service",
        "units/others.service",
        "state/credential.json",
        "runner/controller.json",
        "run/socket",
        "bin/pistat-agent",
    ] {
        std::fs::create_dir_all(of(path).parent().unwrap()).unwrap();
        std::fs::write(of(path), "x").unwrap();
    }
    let lines = "has_systemd() { false; }\nis_packaged() { false; }\nid() { false; }\ncd machine\n\
        config=$PWD/etc/pistat/agent.toml units=$PWD/units state=$PWD/state program=$PWD/bin/pistat-agent\n\
        runner_state=$PWD/runner runner_sockets=$PWD/run\nremove >&2\nfind . -type f; find etc";
    let told = with_the_functions(folder.path(), lines).await;
    assert_eq!((&*told.stdout, told.code), ("./units/others.service\netc", 0), "{told:?}");
}

/// What systemd hears until this word.
fn hear_until(systemd: &UnixDatagram, word: &str) {
    let mut buffer = [0; 512];
    loop {
        let length = systemd.recv(&mut buffer).unwrap_or_else(|error| panic!("{word}: {error}"));
        if String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line == word) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_hears_that_the_controller_is_ready_that_its_hub_lives_and_that_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&socket).unwrap();
    systemd.set_read_timeout(Some(DEADLINE)).unwrap();
    let builder = Stack::builder().environment("NOTIFY_SOCKET", socket.to_str().unwrap());
    let mut stack = builder.environment("WATCHDOG_USEC", "400000").start().await;
    for word in ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"] {
        hear_until(&systemd, word);
    }
    assert_eq!(stack.stop().await, 0);
    hear_until(&systemd, "STOPPING=1");
}
