//! The dashboard in a real browser: terminal, stats and logs mirror the same data.

use pistat_testkit::{Dashboard, Stack};
use serde_json::json;

/// The size of the picture in README.
const DESK: (u32, u32) = (1600, 1000);

/// The size of a phone.
const PHONE: (u32, u32) = (390, 844);

async fn signed_in(stack: &Stack, size: (u32, u32)) -> Dashboard {
    let link: pistat_protocol::api::LoginLink = stack.http().send("POST", "/api/login-links", None).await.json();
    let mut page = Dashboard::open(&format!("{}/#login={}", stack.said.http, link.code), size).await;
    page.until("machines are shown", "!!document.querySelector('[data-pi]')").await;
    page
}

fn terminal_shows(text: &str) -> String {
    let rows = "[...document.querySelectorAll('.xterm-rows > div')].map(row => row.textContent).join('\\n')";
    // Long lines wrap: what is sought may be torn.
    format!("{rows}.replace(/\\u00a0/g, ' ').replace(/\\n/g, '').includes({})", json!(text))
}

async fn types(page: &mut Dashboard, line: &str) {
    page.until("the terminal is ready", &terminal_shows("pistat>")).await;
    page.evaluate("document.querySelector('.terminal-host textarea').focus()").await;
    page.write(line).await;
    page.press("Enter").await;
}

fn panel_shows(panel: &str, text: &str) -> String {
    format!(
        "(document.querySelector('[data-panel={panel}]')?.innerText ?? '').toLowerCase().includes({})",
        json!(text.to_lowercase())
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sign_in_link_of_the_command_line_opens_a_dashboard_with_the_controllers_own_cpu_and_ram() {
    let stack = Stack::start().await;
    let link = stack.cli(&["login"]).await.stdout;
    let mut page = Dashboard::open(link.trim(), DESK).await;
    page.until("the controller's card", "!!document.querySelector('[data-pi=controller]')").await;
    page.until("its CPU and RAM", "/\\d+\\s*%/.test(document.querySelector('[data-pi=controller]').innerText)").await;
    let address = page.evaluate("location.href").await;
    assert!(!address.as_str().unwrap().contains("login"), "the code leaves the address: {address}");
    assert_eq!(page.errors(), Vec::<String>::new());
}

/// What a controller answers to a browser that asks for one of its files.
async fn file(stack: &Stack, path: &str, asked: &[(&'static str, String)]) -> ureq::http::Response<Vec<u8>> {
    let mut request = ureq::http::Request::builder().uri(format!("{}{path}", stack.said.http));
    for (name, value) in asked {
        request = request.header(*name, value);
    }
    let request = request.body(()).unwrap();
    let ask = move || {
        let client: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let (head, mut body) = client.run(request).unwrap().into_parts();
        ureq::http::Response::from_parts(head, body.read_to_vec().unwrap())
    };
    tokio::task::spawn_blocking(ask).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_controllers_files_have_the_tested_policy_and_come_compressed_and_cached_by_their_hash() {
    let stack = Stack::start().await;
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../web/README.md")).unwrap();
    let policy = readme.lines().find(|line| line.starts_with("default-src ")).expect("the README names the policy");
    let header = |reply: &ureq::http::Response<Vec<u8>>, name: &str| {
        reply.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    for path in ["/", "/api/me", "/no-such-page"] {
        assert_eq!(header(&file(&stack, path, &[]).await, "content-security-policy"), policy, "{path}");
    }
    let page = file(&stack, "/", &[]).await;
    let html = String::from_utf8(page.body().clone()).unwrap();
    let script = html
        .split('"')
        .find(|word| word.contains("assets/app-") && word.ends_with(".js"))
        .expect("the page has a script");
    let path = format!("/{}", script.trim_start_matches(['.', '/']));
    let plain = file(&stack, &path, &[("accept-encoding", "identity".into())]).await;
    assert_eq!(header(&plain, "content-encoding"), "");
    assert_eq!(header(&plain, "cache-control"), "public, max-age=31536000, immutable");
    for (accepted, sent) in [("gzip, deflate, br", "br"), ("gzip", "gzip")] {
        let reply = file(&stack, &path, &[("accept-encoding", accepted.into())]).await;
        assert_eq!(
            (header(&reply, "content-encoding").as_str(), header(&reply, "vary").as_str()),
            (sent, "accept-encoding")
        );
        assert!(reply.body().len() * 2 < plain.body().len(), "{sent} is worth its name");
        let tag = header(&reply, "etag");
        let again = file(&stack, &path, &[("accept-encoding", accepted.into()), ("if-none-match", tag)]).await;
        assert_eq!((again.status().as_u16(), again.body().len()), (304, 0));
    }
    // The page itself is asked for again each time, or a new version would not be seen.
    assert_eq!(header(&page, "cache-control"), "no-cache");
}

#[tokio::test(flavor = "multi_thread")]
async fn terminal_stats_and_logs_mirror_the_same_data() {
    let stack = Stack::start().await;
    let _agent = stack.agent("pi-1").label("Rack Pi 1").online(&stack.http()).await;
    let mut page = signed_in(&stack, DESK).await;
    page.until("the card has the label", &panel_shows("stats", "Rack Pi 1")).await;
    types(&mut page, "task run uptime pi-1").await;
    page.until("the terminal shows the output", &terminal_shows("load average")).await;
    page.until("the logs show the run", &panel_shows("logs", "uptime")).await;
    page.until("the logs name the machine", &panel_shows("logs", "Rack Pi 1")).await;
    // Renamed in the terminal, renamed everywhere.
    types(&mut page, "assign name \"Rack Pi 1\" \"Attic\"").await;
    page.until("the card has the new label", &panel_shows("stats", "Attic")).await;
    page.until("the logs tell it", &panel_shows("logs", "Attic")).await;
    types(&mut page, "task list").await;
    page.until("the catalogue", &terminal_shows("both-streams")).await;
    assert_eq!(page.errors(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_mosquitto_pub_asks_for_appears_in_terminal_and_logs() {
    let stack = Stack::start().await;
    let _agent = stack.agent("pi-1").label("Rack Pi 1").online(&stack.http()).await;
    let mut page = signed_in(&stack, DESK).await;
    page.until("the terminal is ready", &terminal_shows("pistat>")).await;
    let request = r#"{"task":"echo","args":{"text":"hello from mosquitto"}}"#;
    stack.mosquitto().publish(&["-t", "pistat/pi-1/task/request", "-m", request, "-q", "1"]).await;
    page.until("the terminal shows the output", &terminal_shows("hello from mosquitto")).await;
    page.until("the logs show the run", &panel_shows("logs", "echo")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_move_by_themselves() {
    let stack = Stack::start().await;
    let mut agent = stack.fake_agent("pi-1").await;
    agent.sample(1.0).await;
    let mut page = signed_in(&stack, DESK).await;
    for percent in [11_u8, 47, 83, 29] {
        agent.sample(percent.into()).await;
        // No reload, no click: the card follows the samples.
        let shown = format!("document.querySelector('[data-pi=pi-1]')?.innerText.includes('{percent}%')");
        page.until(&format!("the card shows {percent} %"), &shown).await;
    }
    // Between two of them it moves: what is neither the one nor the other is seen. A page that had
    // no time for a step tries again.
    let watch = "window.between = 0; new MutationObserver(() => { \
                   const shown = parseInt(document.querySelector('[data-pi=pi-1] .value').innerText); \
                   if (shown > 12 && shown < 88) window.between += 1; \
                 }).observe(document.querySelector('[data-pi=pi-1]'), {subtree: true, childList: true, characterData: true})";
    agent.sample(90.0).await;
    page.until("the card shows 90 %", "document.querySelector('[data-pi=pi-1] .value').innerText === '90%'").await;
    page.evaluate(watch).await;
    for percent in [10_u8, 90].into_iter().cycle().take(20) {
        agent.sample(percent.into()).await;
        let shown = format!("document.querySelector('[data-pi=pi-1] .value').innerText === '{percent}%'");
        page.until(&format!("the card shows {percent} %"), &shown).await;
        if page.evaluate("window.between").await != json!(0) {
            return;
        }
    }
    panic!("the value jumps from one sample to the next");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_dies_is_shown_offline_without_a_reload() {
    let stack = Stack::start().await;
    let mut agent = stack.agent("pi-1").label("Rack Pi 1").online(&stack.http()).await;
    let mut page = signed_in(&stack, DESK).await;
    page.until("the card", "!!document.querySelector('[data-pi=pi-1]')").await;
    agent.kill();
    page.until("offline", "document.querySelector('[data-pi=pi-1]').innerText.toLowerCase().includes('offline')").await;
    agent.restart();
    page.until("online", "!document.querySelector('[data-pi=pi-1]').innerText.toLowerCase().includes('offline')").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_comes_back_by_itself_after_the_controller_was_killed() {
    let mut stack = Stack::start().await;
    let _agent = stack.agent("pi-1").label("Rack Pi 1").online(&stack.http()).await;
    let mut page = signed_in(&stack, DESK).await;
    page.until("the card", "!!document.querySelector('[data-pi=pi-1]')").await;
    stack.kill();
    stack.restart().await;
    types(&mut page, "task run echo text=again").await;
    page.until("a command works again", &terminal_shows("again")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_of_a_task_is_untrusted_text() {
    let stack = Stack::start().await;
    let http = stack.http();
    let hostile = "<img src=x onerror=window.pwned=1><script>window.pwned=1</script>";
    let _agent = stack.agent("pi-1").label(hostile).online(&http).await;
    let mut page = signed_in(&stack, DESK).await;
    http.send("PATCH", "/api/pis/pi-1", Some(json!({"assignment": hostile}))).await;
    types(&mut page, &format!("task run echo pi-1 \"text={hostile}\"")).await;
    page.until("the terminal shows it as text", &terminal_shows("onerror=window.pwned=1")).await;
    page.until("the card shows it as text", &panel_shows("stats", "onerror")).await;
    assert_eq!(page.evaluate("window.pwned === undefined").await, json!(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_shows_the_fleet_without_scrolling_sideways() {
    let stack = Stack::start().await;
    let _agent = stack.agent("pi-1").label("Rack Pi 1").online(&stack.http()).await;
    let mut page = signed_in(&stack, PHONE).await;
    page.until("the card", "!!document.querySelector('[data-pi=pi-1]')").await;
    let width = page.evaluate("document.documentElement.scrollWidth").await;
    assert!(width.as_u64().is_some_and(|width| width <= u64::from(PHONE.0)), "{width}");
    assert!(page.picture().await.len() > 10_000, "a picture of something");
}
