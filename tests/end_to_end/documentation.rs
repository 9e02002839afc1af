//! Every command of the documentation is run as it stands, on a controller with the configuration
//! that ships and one Pi.
//!
//! Only what differs from a real house is replaced: the ports, the host's name, `ACCOUNT` (admin),
//! `TOKEN` (the join token), what cargo would build once more, and the size of the simulated fleet.

use std::{
    collections::BTreeSet,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use pistat_protocol::dashboard::MachineStatus;
use pistat_testkit::{
    Agent, DEADLINE, Process, Stack, eventually,
    pages::{Block, blocks, section},
    process::run,
    programs::program,
};
use rustix::process::{Pid, Signal, kill_process_group};

/// How the simulated fleet is started from source.
const SIMULATOR: &str = "cargo run --release -p pistat-sim --";

/// How long a command that ends may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Languages of blocks that people type in. Those that are not run must be called by the name of
/// one that is.
const COMMANDS: [&str; 6] = ["sh", "terminal", "bash", "shell", "console", "zsh"];

/// Each page has a test of its own; whatever page is not named here shares one.
macro_rules! pages {
    ($($test:ident: $page:literal,)*) => {
        const PAGES: &[&str] = &[$($page),*];
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                try_page($page).await;
            }
        )*
    };
}

pages! {
    the_commands_of_readme: "README.md",
    the_commands_of_benchmarks: "docs/benchmarks.md",
    the_commands_of_configuration: "docs/configuration.md",
    the_commands_of_hardware: "docs/hardware.md",
    the_commands_of_install: "docs/install.md",
    the_commands_of_mqtt: "docs/mqtt.md",
    the_commands_of_operations: "docs/operations.md",
    the_commands_of_scaling: "docs/scaling.md",
    the_commands_of_security: "docs/security.md",
    the_commands_of_tasks: "docs/tasks.md",
    the_commands_of_terminal: "docs/terminal.md",
    the_commands_of_troubleshooting: "docs/troubleshooting.md",
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_every_other_page() {
    let found = std::fs::read_dir(repository().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let found: BTreeSet<String> = found
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| format!("docs/{}", path.file_name().unwrap().to_str().unwrap()))
        .collect();
    assert!(PAGES[1..].iter().all(|page| found.contains(*page)), "{PAGES:?} of {found:?}");
    for page in found.iter().filter(|page| !PAGES.contains(&page.as_str())) {
        try_page(page).await;
    }
}

/// Another place than that would keep the new program, and the old one would come back.
#[test]
fn the_upgrade_from_source_replaces_the_program_that_the_unit_starts() {
    let read = |file: &str| std::fs::read_to_string(repository().join(file)).unwrap();
    let unit = read("packaging/systemd/pistat.service");
    let started = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")?.split(' ').next()).unwrap();
    let page = read("docs/operations.md");
    let installing = section(&page, "Upgrade").lines().filter(|line| line.starts_with("sudo install "));
    assert_eq!(installing.collect::<Vec<_>>(), [format!("sudo install target/release/pistat {started}")]);
}

/// On a machine that has nothing: `./test` ends before it does anything.
#[tokio::test]
async fn the_test_command_installs_nothing_as_root_unasked() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["bash", "dirname", "env", "mkdir", "tail"] {
        let found = ["/usr/bin", "/bin"].map(|bin| Path::new(bin).join(name)).into_iter().find(|path| path.exists());
        symlink(found.expect("every system has it"), folder.path().join(name)).unwrap();
    }
    // Stands for installing: without apt-get, it says that it cannot.
    for (words, ci, part) in [
        (&["checks"][..], None, "./test --install"),
        (&["checks"], Some("false"), "./test --install"),
        (&["checks", "--install"], None, "could not install"),
        (&["checks"], Some("true"), "could not install"),
    ] {
        let mut command = Command::new(repository().join("test"));
        command
            .args(words)
            .env_clear()
            .env("PATH", folder.path())
            .env("CARGO_TARGET_DIR", folder.path().join("target"));
        command.envs(ci.map(|ci| ("CI", ci)));
        let ended = run("./test", &mut command, DEADLINE).await;
        assert_eq!(ended.code, 69, "{words:?}: {ended:?}");
        assert!(ended.stderr.contains(part) && ended.stderr.contains("mosquitto"), "{words:?}: {ended:?}");
    }
    let mut command = Command::new(repository().join("test"));
    let unknown = run("./test", command.arg("everything").env("CARGO_TARGET_DIR", folder.path()), DEADLINE).await;
    assert!(unknown.code == 64 && unknown.stderr.contains("everything is not a part"), "{unknown:?}");
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A house in which the commands of a page can be run.
struct House {
    stack: Stack,
    agent: Option<Agent>,
    /// The agent of a page that shows how one is started.
    shown_agent: Option<Process>,
    page: String,
}

async fn try_page(page: &str) {
    let text = std::fs::read_to_string(repository().join(page)).unwrap();
    let blocks = blocks(&text);
    let typed = |block: &&Block| COMMANDS.contains(&block.language.as_str());
    let mut house: Option<House> = None;
    let (mut tried, mut skipped) = (0, 0);
    for block in blocks.iter().filter(typed) {
        if let Some(why) = &block.skip {
            eprintln!("{page}:{} is not run: {why}", block.line);
            skipped += 1;
            continue;
        }
        if house.is_none() {
            house = Some(House::build(page).await);
        }
        let house = house.as_mut().expect("it has just been built");
        match block.language.as_str() {
            "sh" => house.run(block).await,
            "terminal" => house.type_in(block).await,
            other => panic!("{page}:{}: {other} is not run: call it sh or terminal", block.line),
        }
        tried += 1;
    }
    eprintln!("{page}: {tried} blocks run, {skipped} not");
}

impl House {
    async fn build(page: &str) -> Self {
        let shipped = std::fs::read_to_string(repository().join("config/tasks.toml")).unwrap();
        let stack = Stack::builder().embedded().catalogue(&shipped).start().await;
        let http = stack.http();
        let agent = stack.agent("pi-1").label("Rack Pi 1").online(&http).await;
        let tagged = stack.cli(&["tag", "add", "pi-1", "camera"]).await;
        assert_eq!(tagged.code, 0, "{tagged:?}");
        let folder = stack.folder();
        // As in a clone: the configuration that ships beside the state.
        std::fs::create_dir(folder.join("config")).unwrap();
        for file in ["pistat.toml", "agent.toml"] {
            std::fs::copy(repository().join("config").join(file), folder.join("config").join(file)).unwrap();
        }
        symlink(folder.join("tasks.toml"), folder.join("config/tasks.toml")).unwrap();
        symlink(repository().join("docs"), folder.join("docs")).unwrap();
        let bin = folder.join("bin");
        std::fs::create_dir(&bin).unwrap();
        for name in ["pistat", "pistat-agent"] {
            symlink(program(name), bin.join(name)).unwrap();
        }
        // The port that everybody has by default is this controller's.
        for name in ["mosquitto_pub", "mosquitto_sub", "mosquitto_rr"] {
            let script = format!("#!/bin/sh\nPATH=${{PATH#*:}} exec {name} -p {} \"$@\"\n", stack.said.mqtt.port());
            std::fs::write(bin.join(name), script).unwrap();
            std::fs::set_permissions(bin.join(name), PermissionsExt::from_mode(0o755)).unwrap();
        }
        Self { stack, agent: Some(agent), shown_agent: None, page: page.to_owned() }
    }

    /// The text with this house's names.
    fn here(&self, text: &str) -> String {
        let http = self.stack.said.http_address.to_string();
        let join_token = format!("--token-file {}", self.stack.state().join("join.token").display());
        let mut text = text.replace("ACCOUNT", "admin").replace("--token-file join.token", &join_token);
        for host in ["controller-host", "localhost", "127.0.0.1"] {
            text = text.replace(&format!("{host}:8000"), &http);
            text = text.replace(&format!("{host}:1883"), &self.stack.said.mqtt.to_string());
        }
        if text.contains(SIMULATOR) {
            let built = format!("{} --mqtt {}", program("pistat-sim").display(), self.stack.said.mqtt);
            text = text.replace(SIMULATOR, &built).replace("--machines 1000", "--machines 25");
        }
        text.replace("controller-host", "127.0.0.1")
    }

    fn command(&self, block: &Block) -> Command {
        let folder = self.stack.folder();
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", &self.here(&block.text)]).current_dir(folder).env_clear();
        command.env("PATH", format!("{}:{path}", folder.join("bin").display())).env("HOME", folder);
        command.env("PISTAT_CONTROLLER_URL", &self.stack.said.http).env("PISTAT_TOKEN", self.stack.admin_token());
        command.env("PISTAT_AGENT_STATE", folder.join("shown-agent"));
        command
    }

    /// The page's own agent takes the place of ours, from its first start on.
    async fn make_way(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.stop().await;
            let removed = self.stack.cli(&["agent", "remove", "pi-1"]).await;
            assert_eq!(removed.code, 0, "{removed:?}");
        }
    }

    async fn run(&mut self, block: &Block) {
        let place = format!("{}:{}", self.page, block.line);
        let mut command = self.command(block);
        let Some(text) = &block.until else {
            let said = run(&place, &mut command, LIMIT).await;
            assert_eq!(said.code, 0, "{place} failed\n{}\n{}\n{}", block.text, said.stdout, said.stderr);
            return;
        };
        let is_agent = block.text.starts_with("pistat-agent");
        if is_agent {
            self.make_way().await;
        }
        let mut process = Process::start(&place, &mut command);
        eventually(&format!("{place} says {text:?}"), DEADLINE, async || {
            let said = [process.stdout(), process.stderr()].concat();
            let ended = process.ended();
            assert!(ended.is_none_or(|status| status.success()), "{place} failed: {said:?}");
            if said.iter().any(|line| line.contains(text)) { Ok(()) } else { Err(format!("{said:?}")) }
        })
        .await;
        if is_agent {
            let http = self.stack.http();
            eventually("the machine of the page is online", DEADLINE, async || {
                let machine = http.machine("pi-1").await?;
                if machine.status == MachineStatus::Online { Ok(()) } else { Err(format!("{machine:?}")) }
            })
            .await;
            self.shown_agent = Some(process);
            return;
        }
        let group = i32::try_from(process.id()).ok().and_then(Pid::from_raw).expect("a child has a positive id");
        // Not TERM: the handler of `mosquitto_sub` takes locks, and may then never end.
        // It may have ended by itself.
        let _ = kill_process_group(group, Signal::KILL);
        process.exit_code(DEADLINE).await;
    }

    async fn type_in(&mut self, block: &Block) {
        let mut feed = self.stack.feed().await;
        for line in block.text.lines().map(|line| line.split(" #").next().unwrap_or(line).trim()) {
            if line.is_empty() {
                continue;
            }
            let answer = feed.command(line).await;
            assert!(answer.ok, "{}:{}: {line}: {answer:?}", self.page, block.line);
            for run in answer.runs {
                // What was started ends or can be ended: nothing of one page is left for the next
                // line.
                self.stack.http().send("POST", &format!("/api/runs/{run}/cancel"), None).await;
            }
        }
    }
}
