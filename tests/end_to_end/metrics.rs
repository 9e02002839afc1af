//! Prometheus: what `/metrics` says, as Prometheus' own tool and the Grafana dashboard of the
//! documentation read it.

use std::{
    collections::BTreeSet,
    io::Write,
    process::{Command, Stdio},
};

use pistat_testkit::{DEADLINE, Stack, broker::is_external, eventually};
use serde_json::{Value, json};

/// A page on which something has happened: a machine, a run that ended.
async fn page(stack: &Stack) -> String {
    let http = stack.http();
    http.post("/api/runs", json!({"task": "uptime", "target": "controller"})).await;
    eventually("the run and a sample are counted", DEADLINE, async || {
        let page = http.get("/metrics").await.body;
        let counted = page.contains("pistat_run_duration_seconds_count{task=\"uptime\"} 1")
            && page.contains("pistat_cpu_usage_ratio{pi=\"controller\"}");
        if counted { Ok(page) } else { Err(page) }
    })
    .await
}

/// The names of a page's families.
fn families(page: &str) -> BTreeSet<&str> {
    page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_own_tool_finds_nothing_to_mend() {
    let stack = Stack::start().await;
    let page = page(&stack).await;
    let least = if is_external() { 30 } else { 70 };
    assert!(families(&page).len() > least, "{page}");
    let mut tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed (Debian's package prometheus)");
    tool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_grafana_dashboard_asks_only_for_metrics_that_there_are() {
    let stack = Stack::start().await;
    let page = page(&stack).await;
    let families = families(&page);
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/grafana.json");
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let mut queries = Vec::new();
    collect(&dashboard, &mut queries);
    let names = queries.iter().flat_map(|query| names(query)).collect::<BTreeSet<_>>();
    assert!(queries.len() > 15 && names.len() > 15, "{queries:?}");
    // What another's broker does is not ours to tell.
    for name in names.into_iter().filter(|name| !(is_external() && name.starts_with("pistat_broker_"))) {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        assert!(families.contains(name) || families.contains(family), "{name} is asked for and not there");
    }
}

/// Every `expr` and variable query of a dashboard.
fn collect(value: &Value, queries: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "expr" || name == "definition" => queries.push(text.clone()),
                    other => collect(other, queries),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, queries)),
        _ => {}
    }
}

fn names(query: &str) -> impl Iterator<Item = &str> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("pistat_"))
}
