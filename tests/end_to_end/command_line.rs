//! The command line in a hostile folder, and how it shows the audit log.

use std::{
    io::Read,
    net::TcpListener,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use pistat_testkit::{
    DEADLINE, Stack,
    process::{Finished, run},
    programs::program,
};
use serde_json::{Value, json};

/// A listener that notices whether anything was sent to it.
struct Listener {
    port: u16,
    heard: Arc<AtomicBool>,
}

impl Listener {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, heard) = (listener.local_addr().unwrap().port(), Arc::new(AtomicBool::new(false)));
        let noticed = Arc::clone(&heard);
        // It ends with the test's process.
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut first = [0; 1];
                noticed.fetch_or(matches!(stream.read(&mut first), Ok(1)), Ordering::SeqCst);
            }
        });
        Self { port, heard }
    }

    fn has_heard(&self) -> bool {
        self.heard.load(Ordering::SeqCst)
    }
}

async fn pis(folder: &Path, words: &[&str], environment: &[(&str, &str)]) -> Finished {
    let mut command = Command::new(program("pistat"));
    command.arg("pis").args(words).current_dir(folder).env_clear().envs(environment.iter().copied());
    run("pistat", &mut command, DEADLINE).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_not_sent_where_only_a_file_of_the_current_folder_says() {
    let (folder, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let listener = Listener::start();
    let secret = home.path().join("admin.token");
    std::fs::write(&secret, "of-the-user\n").unwrap();
    std::fs::create_dir_all(folder.path().join("config")).unwrap();
    let config = |text: String| std::fs::write(folder.path().join("config/pistat.toml"), text).unwrap();
    let listen = format!("[http]\nlisten = \"127.0.0.1:{}\"\n", listener.port);
    config(listen.clone());
    let (file, state) = (secret.to_str().unwrap(), home.path().to_str().unwrap());
    type Given<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)]);
    let cases: [Given<'_>; 4] = [
        (&[], &[("PISTAT_TOKEN", "of-the-user")]),
        (&["--token-file", file], &[]),
        (&["--state", state], &[]),
        (&[], &[("PISTAT_STATE", state)]),
    ];
    for (words, environment) in cases {
        let said = pis(folder.path(), words, environment).await;
        assert_eq!(said.code, 64, "{words:?} {environment:?}: {said:?}");
        assert!(said.stderr.contains("--controller-url") && said.stderr.contains("config/pistat.toml"), "{said:?}");
    }
    // The folder's file names a state folder elsewhere, or has a link to the user's token.
    config(format!("state = {state:?}\n{listen}"));
    assert_eq!(pis(folder.path(), &[], &[]).await.code, 64);
    config(listen.clone());
    std::os::unix::fs::symlink(home.path(), folder.path().join("state")).unwrap();
    assert_eq!(pis(folder.path(), &[], &[]).await.code, 64);
    assert!(!listener.has_heard(), "nothing was sent");
    // What the user names is trusted, and so is a token that is the folder's own.
    let url = format!("http://127.0.0.1:{}", listener.port);
    assert_ne!(pis(folder.path(), &["--controller-url", &url, "--token-file", file], &[]).await.code, 64);
    assert!(listener.has_heard());
    let listener = Listener::start();
    config(format!("[http]\nlisten = \"127.0.0.1:{}\"\n", listener.port));
    assert_ne!(pis(folder.path(), &["--config", "config/pistat.toml", "--token-file", file], &[]).await.code, 64);
    assert!(listener.has_heard());
    let listener = Listener::start();
    config(format!("[http]\nlisten = \"127.0.0.1:{}\"\n", listener.port));
    std::fs::remove_file(folder.path().join("state")).unwrap();
    std::fs::create_dir(folder.path().join("state")).unwrap();
    std::fs::write(folder.path().join("state/admin.token"), "of-the-folder\n").unwrap();
    assert_ne!(pis(folder.path(), &[], &[]).await.code, 64);
    assert!(listener.has_heard());
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_filtered_say_utc_and_who_and_never_stop_silently() {
    let stack = Stack::builder().embedded().start().await;
    // Fewer of each account than are written at once before the rest is counted.
    for name in ["olga", "omar", "otto"] {
        let (operator, _) = stack.account(name, "operator").await;
        for number in 0..45 {
            let body = json!({"label": format!("{name} {number}")});
            assert_eq!(operator.send("PATCH", "/api/pis/controller", Some(body)).await.status, 200);
        }
    }
    let plain = stack.cli(&["events"]).await;
    assert_eq!(plain.stdout.lines().count(), 100);
    assert!(plain.stderr.contains("newest 100") && plain.stderr.contains("--limit"), "{}", plain.stderr);
    let line = plain.stdout.lines().last().unwrap();
    assert!(line.contains(" UTC") && line.contains("  otto  ") && line.contains("renamed to otto 44"), "{line}");
    let labels = stack.cli(&["events", "--kind", "label", "--limit", "0"]).await;
    assert_eq!((labels.stdout.lines().count(), labels.stderr.as_str()), (135, ""), "all, and nothing to remark");
    let count = async |words: &[&str]| {
        let said = stack.cli(&[&["--json", "events", "--limit", "0"], words].concat()).await;
        assert_eq!(said.code, 0, "{said:?}");
        serde_json::from_str::<Vec<Value>>(&said.stdout).unwrap().len()
    };
    assert_eq!(count(&["--account", "OLGA"]).await, 45);
    assert_eq!(count(&["--account", "admin", "--kind", "access"]).await, 3, "it made the accounts");
    assert_eq!(count(&["--pi", "otto 44", "--kind", "label"]).await, 135, "a machine by its label");
    assert_eq!(count(&["--pi", "no-such-pi"]).await, 0);
    assert_eq!(count(&["--since", "2026-01-01T00:00:00Z", "--kind", "label"]).await, 135);
    assert_eq!(count(&["--since", "2999-01-01T00:00:00Z"]).await, 0);
    assert_eq!(count(&["--since", "1h", "--kind", "label"]).await, 135);
    for wrong in [&["--kind", "gossip"][..], &["--since", "yesterday"], &["--limit", "-1"]] {
        assert_eq!(stack.cli(&[&["events"], wrong].concat()).await.code, 64, "{wrong:?}");
    }
    let reply = stack.http().get("/api/events?kind=gossip").await;
    assert_eq!(reply.problem().status, 400);
}
