//! A real browser with the dashboard in it, driven over the Chrome `DevTools` Protocol.
//!
//! The protocol is JSON over a WebSocket, and a test needs five of its verbs: so there is no driver
//! between test and browser to be installed or to break. What a person would see is asked of the
//! page itself.

use std::{
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Message, protocol::WebSocketConfig},
};

use crate::{
    process::Process,
    wait::{DEADLINE, eventually},
};

/// Names another browser than the first one found.
const VARIABLE: &str = "CHROMIUM";

/// Where browsers are.
const BROWSERS: [&str; 4] =
    ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome", "/usr/bin/google-chrome-stable"];

/// A page of a browser.
pub struct Dashboard {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    next_id: u64,
    /// Errors that the page logged or threw.
    errors: Vec<String>,
    _browser: Process,
    _profile: TempDir,
}

impl Dashboard {
    /// Opens an address in a new browser with a window of this size.
    ///
    /// # Panics
    /// The browser does not start, or the dashboard has not been built since its sources changed.
    pub async fn open(url: &str, size: (u32, u32)) -> Self {
        let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("../web");
        let built = newest(&web.join("dist"));
        assert!(built > newest(&web.join("src")), "web/dist is older than web/src: run `npm --prefix web run build`");
        let profile = tempfile::tempdir().expect("a temporary folder can be made");
        let mut browser = browser(profile.path(), size);
        let port = port(&mut browser).await;
        let endpoint = page_endpoint(port).await;
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let connected = tokio_tungstenite::connect_async_with_config(endpoint, Some(config), true).await;
        let (socket, _) = connected.expect("the browser accepts its debugger");
        let mut page = Self { socket, next_id: 1, errors: Vec::new(), _browser: browser, _profile: profile };
        page.call("Runtime.enable", json!({})).await;
        page.call("Page.enable", json!({})).await;
        let (width, height) = size;
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        page.call("Emulation.setDeviceMetricsOverride", metrics).await;
        page.go(url).await;
        page
    }

    /// Opens another address.
    pub async fn go(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url})).await;
    }

    /// The value of a JavaScript expression.
    ///
    /// # Panics
    /// It throws.
    pub async fn evaluate(&mut self, expression: &str) -> Value {
        let words = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let result = self.call("Runtime.evaluate", words).await;
        assert!(result.get("exceptionDetails").is_none(), "{expression} threw {result}");
        result["result"]["value"].clone()
    }

    /// Waits until the page shows a text somewhere.
    pub async fn shows(&mut self, text: &str) {
        self.until(&format!("the page shows {text:?}"), &format!("document.body.innerText.includes({})", json!(text)))
            .await;
    }

    /// Waits until an expression is true.
    pub async fn until(&mut self, what: &str, expression: &str) {
        eventually(what, DEADLINE, async || {
            let result = self.call("Runtime.evaluate", json!({"expression": expression, "returnByValue": true})).await;
            if result["result"]["value"] == json!(true) {
                return Ok(());
            }
            let seen = self.call("Runtime.evaluate", json!({"expression": "document.body?.innerText"})).await;
            Err(format!("{}; errors: {:?}", seen["result"]["value"].as_str().unwrap_or_default(), self.errors))
        })
        .await;
    }

    /// Clicks in the middle of the first element that a selector finds.
    ///
    /// # Panics
    /// There is none.
    pub async fn click(&mut self, selector: &str) {
        self.until(&format!("there is {selector}"), &format!("!!document.querySelector({})", json!(selector))).await;
        let at = self
            .evaluate(&format!(
                "(() => {{ const e = document.querySelector({}); e.scrollIntoView({{block: 'nearest'}}); const r = \
                 e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()",
                json!(selector)
            ))
            .await;
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({"type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event).await;
        }
    }

    /// Types a text where the focus is.
    pub async fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text})).await;
    }

    /// Presses a key, such as `Enter`.
    pub async fn press(&mut self, key: &str) {
        let code = match key {
            "Enter" => 13,
            "Tab" => 9,
            "Escape" => 27,
            "ArrowUp" => 38,
            _ => 0,
        };
        let text = if key == "Enter" { "\r" } else { "" };
        let down = json!({"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
        self.call("Input.dispatchKeyEvent", down).await;
        let up = json!({"type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": code});
        self.call("Input.dispatchKeyEvent", up).await;
    }

    /// A picture of the page as PNG.
    ///
    /// # Panics
    /// The browser makes none.
    pub async fn picture(&mut self) -> Vec<u8> {
        let result = self.call("Page.captureScreenshot", json!({"format": "png"})).await;
        STANDARD.decode(result["data"].as_str().unwrap_or_default()).expect("a picture is base64")
    }

    /// Errors that the page threw or logged.
    pub fn errors(&self) -> &[String] {
        &self.errors
    }

    /// Calls a method of the `DevTools` protocol.
    ///
    /// # Panics
    /// The browser does not answer.
    pub async fn call(&mut self, method: &str, params: Value) -> Value {
        let id = self.next_id;
        self.next_id += 1;
        let message = json!({"id": id, "method": method, "params": params}).to_string();
        self.socket.send(Message::text(message)).await.expect("the browser listens");
        let answer = tokio::time::timeout(DEADLINE, async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => {
                        let message: Value = serde_json::from_str(&text).expect("the browser speaks JSON");
                        if message["id"] == json!(id) {
                            return message;
                        }
                        self.note(&message);
                    }
                    Some(Ok(_)) => {}
                    other => panic!("the browser is gone: {other:?}"),
                }
            }
        });
        let answer = answer.await.unwrap_or_else(|_| panic!("the browser did not answer {method}"));
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.errors.push(params["exceptionDetails"].to_string()),
            Some("Runtime.consoleAPICalled") if params["type"] == "error" => {
                self.errors.push(params["args"].to_string());
            }
            _ => {}
        }
    }
}

fn browser(profile: &Path, (width, height): (u32, u32)) -> Process {
    let named = std::env::var(VARIABLE).ok();
    let found = named.or_else(|| BROWSERS.into_iter().find(|path| Path::new(path).exists()).map(str::to_owned));
    let program = found.unwrap_or_else(|| panic!("there is no Chromium: ./test installs it, {VARIABLE} names another"));
    let mut command = Command::new(program);
    command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
    command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio"]);
    command.args(["--remote-debugging-port=0", "--remote-allow-origins=*"]);
    command.arg(format!("--window-size={width},{height}")).arg(format!("--user-data-dir={}", profile.display()));
    Process::start("chromium", command.arg("about:blank")).quiet()
}

/// When a file of a folder was written last; `None` without a file.
fn newest(folder: &Path) -> Option<SystemTime> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let times = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => newest(&entry.path()),
        metadata => metadata.ok()?.modified().ok(),
    });
    times.max().flatten()
}

async fn port(browser: &mut Process) -> u16 {
    eventually("the browser says where it can be driven", DEADLINE, async || {
        let said = browser.stderr();
        let line = said.iter().find_map(|line| line.strip_prefix("DevTools listening on ws://127.0.0.1:"));
        let port = line.and_then(|rest| rest.split('/').next()).and_then(|port| port.parse().ok());
        port.ok_or_else(|| format!("{said:?} (ended: {:?})", browser.ended()))
    })
    .await
}

async fn page_endpoint(port: u16) -> String {
    let http = crate::Http::new(&format!("http://127.0.0.1:{port}"));
    eventually("the browser has a page", Duration::from_secs(20), async || {
        let pages: Vec<Value> = http.try_send("GET", "/json/list", None).await?.json();
        let page = pages.iter().find(|page| page["type"] == "page");
        let endpoint = page.and_then(|page| page["webSocketDebuggerUrl"].as_str()).map(str::to_owned);
        endpoint.ok_or_else(|| format!("{pages:?}"))
    })
    .await
}
