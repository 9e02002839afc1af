//! Behind a reverse proxy: the blocks of `docs/operations.md` as they stand, but for addresses and
//! certificates. `./test` installs both.

use std::{path::Path, process::Command};

use pistat_protocol::{api::SignedIn, dashboard::MachineStatus};
use pistat_testkit::{DEADLINE, Port, Process, Stack, eventually, pages::blocks, process::run, programs::program};

/// The block of a language on the page about operations.
fn block(language: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let found = blocks(&std::fs::read_to_string(page).unwrap()).into_iter().find(|block| block.language == language);
    found.unwrap_or_else(|| panic!("the page has no {language} block")).text
}

/// Servers are not on everybody's search path.
fn search_path() -> String {
    format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap())
}

/// A controller with a certificate for its proxy.
struct House {
    stack: Stack,
    port: Port,
}

impl House {
    async fn build() -> Self {
        Self::build_with(|_| String::new()).await
    }

    /// With a configuration that may know the proxy's port.
    async fn build_with(config: impl FnOnce(&Port) -> String) -> Self {
        let port = Port::claim();
        let stack = Stack::builder().embedded().config(&config(&port)).start().await;
        let mut command = Command::new(program("pistat"));
        command.args(["tls", "init", "--name", "127.0.0.1", "--dir", "tls"]).current_dir(stack.folder()).env_clear();
        let said = run("pistat tls init", &mut command, DEADLINE).await;
        assert_eq!(said.code, 0, "{said:?}");
        Self { stack, port }
    }

    fn start(&self, name: &str, arguments: &[&str], config: &str) -> Process {
        let folder = self.stack.folder();
        std::fs::write(folder.join("proxy.conf"), config).unwrap();
        let mut command = Command::new(name);
        command.args(arguments).current_dir(folder).env("PATH", search_path()).env("HOME", folder);
        Process::start(name, &mut command)
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    fn curl(&self, words: &[&str]) -> Command {
        let mut command = Command::new("curl");
        command.args(["--silent", "--http1.1", "--max-time", "3", "--cacert"]);
        command.arg(self.stack.folder().join("tls/ca.pem")).args(words);
        command
    }

    async fn passes_requests_on(&self) {
        eventually("the proxy passes requests on", DEADLINE, async || {
            let healthz = format!("{}/healthz", self.url());
            let said = run("curl", &mut self.curl(&["--fail", &healthz]), DEADLINE).await;
            if said.code == 0 { Ok(()) } else { Err(format!("{said:?}")) }
        })
        .await;
    }

    /// Signs in as a page of this origin: the whole answer.
    async fn sign_in(&self, origin: &str) -> String {
        let (origin, body) = (format!("Origin: {origin}"), format!("{{\"token\": \"{}\"}}", self.stack.admin_token()));
        let json = "Content-Type: application/json";
        let login = format!("{}/api/login", self.url());
        let words = ["-i", "-H", &origin, "-H", json, "-H", "Sec-Fetch-Site: same-origin", "--data", &body, &login];
        run("curl", &mut self.curl(&words), DEADLINE).await.stdout
    }

    /// A browser signs in and acts, beside the proxy's own password; a page of another origin does
    /// not.
    async fn holds_a_session(&self) {
        let url = self.url();
        let answer = self.sign_in(&url).await;
        let cookie =
            answer.lines().find_map(|line| line.strip_prefix("set-cookie: ").or(line.strip_prefix("Set-Cookie: ")));
        let cookie = cookie.unwrap_or_else(|| panic!("{answer}"));
        assert!(cookie.starts_with("__Host-pistat_") && cookie.contains("; Secure"), "{cookie}");
        let body = answer.rsplit("\r\n\r\n").next().unwrap();
        let session: SignedIn = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
        let (cookie, key) = (
            format!("Cookie: {}", cookie.split(';').next().unwrap()),
            format!("Pistat-Session-Key: {}", session.session_key),
        );
        for (origin, status) in [(&*url, "200"), ("https://evil.example", "403"), ("https://127.0.0.1", "403")] {
            let (origin, links) = (format!("Origin: {origin}"), format!("{url}/api/login-links"));
            let words = ["-i", "-X", "POST", "-u", "house:secret", "-H", &origin, "-H", &cookie, "-H", &key, &links];
            let said = run("curl", &mut self.curl(&words), DEADLINE).await.stdout;
            assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{origin}: {said}");
            assert!(status == "200" || said.contains("expected was"), "{origin}: {said}");
        }
        assert!(self.sign_in("https://evil.example").await.starts_with("HTTP/1.1 403 "));
    }

    /// Everything that goes through a proxy: pages, the feed with its check of the origin, MQTT of
    /// an agent, the command line.
    async fn carries_everything(&self) {
        let folder = self.stack.folder();
        let (url, ca) = (self.url(), folder.join("tls/ca.pem"));
        let curl = |words: &[&str]| self.curl(words);
        self.passes_requests_on().await;
        self.holds_a_session().await;
        let (origin, token) = (format!("Origin: {url}"), format!("Authorization: Bearer {}", self.stack.admin_token()));
        let upgrade = [
            "-i",
            "-N",
            "-H",
            "Connection: Upgrade",
            "-H",
            "Upgrade: websocket",
            "-H",
            "Sec-WebSocket-Version: 13",
            "-H",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "-H",
            &origin,
            "-H",
            &token,
            &format!("{url}/api/ws"),
        ]
        .map(str::to_owned);
        // It stays open until curl's time is up.
        let said = run("curl", &mut curl(&upgrade.each_ref().map(String::as_str)), DEADLINE).await;
        assert!(said.stdout.starts_with("HTTP/1.1 101 "), "the feed is passed on: {said:?}");
        let http = self.stack.http();
        let agent = self.stack.agent("pi-1").url(&url).flag("--ca", ca.to_str().unwrap()).online(&http).await;
        assert_eq!(http.machine(agent.pi()).await.unwrap().status, MachineStatus::Online);
        let mut command = Command::new(program("pistat"));
        command.args(["task", "run", "uptime", "pi-1", "--controller-url", &url, "--ca"]).arg(&ca).env_clear();
        command.arg("--token-file").arg(self.stack.state().join("admin.token"));
        let said = run("pistat", &mut command, DEADLINE).await;
        assert!(said.code == 0 && said.stdout.contains("load average"), "{said:?}");
    }
}

/// nginx as documented, but for what `change` does to its block.
fn nginx(house: &House, change: impl FnOnce(String) -> String) -> Process {
    let folder = house.stack.folder().display().to_string();
    let server = change(block("nginx"))
        .replace("listen 443", &format!("listen 127.0.0.1:{}", house.port))
        .replace("/etc/ssl/pis.pem", "tls/server.pem")
        .replace("/etc/ssl/pis-key.pem", "tls/server-key.pem")
        .replace("127.0.0.1:8000", &house.stack.said.http_address.to_string());
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|what| format!("{what}_temp_path {folder}/{what};\n"))
        .collect();
    let config = format!(
        "daemon off;\nmaster_process off;\nerror_log stderr;\npid {folder}/nginx.pid;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}{server}}}\n"
    );
    let config = config.replace("tls/", &format!("{folder}/tls/"));
    house.start("nginx", &["-c", &format!("{folder}/proxy.conf")], &config)
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_as_documented_passes_pages_the_feed_and_mqtt() {
    let house = House::build().await;
    let _nginx = nginx(&house, |block| block);
    house.carries_everything().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_rewrites_the_host_needs_the_public_url_and_the_refusal_says_so() {
    // Without the line, nginx sends the address that it was told to pass requests to.
    let rewriting = |block: String| block.replace("proxy_set_header Host $http_host;", "");
    let unknown = House::build().await;
    let _nginx = nginx(&unknown, rewriting);
    unknown.passes_requests_on().await;
    let refused = unknown.sign_in(&unknown.url()).await;
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
    for words in [&*unknown.url(), &unknown.stack.said.http_address.to_string(), "http.public_url", "Host header"] {
        assert!(refused.contains(words), "{words}: {refused}");
    }
    let known = House::build_with(|port| format!("[http]\npublic_url = \"https://127.0.0.1:{port}\"\n")).await;
    let _nginx = nginx(&known, rewriting);
    known.passes_requests_on().await;
    known.holds_a_session().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caddy_as_documented_passes_pages_the_feed_and_mqtt() {
    let house = House::build().await;
    let site =
        format!("https://127.0.0.1:{} {{\n  bind 127.0.0.1\n  tls tls/server.pem tls/server-key.pem", house.port);
    let config = block("caddyfile")
        .replace("pis.example.org {", &site)
        .replace("127.0.0.1:8000", &house.stack.said.http_address.to_string());
    let config = format!("{{\n  admin off\n  auto_https disable_redirects\n}}\n{config}");
    let _caddy = house.start("caddy", &["run", "--config", "proxy.conf", "--adapter", "caddyfile"], &config);
    house.carries_everything().await;
}
