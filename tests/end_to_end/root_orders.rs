//! Orders for the root runner: signed with its nonce when they are sent, and not believed to have
//! ended before they can start nothing any more.

use std::time::Duration;

use pistat_protocol::{
    codec::encode,
    status::{Nonce, ROOT_NONCE_LIFETIME},
    task::RunState,
    topic::Topic,
};
use pistat_testkit::{DEADLINE, Stack, eventually, fake_agent::FakeAgent, steadily};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_root_run_is_signed_again_with_the_runners_nonce_and_counts_as_cancelled_only_when_that_has_expired() {
    let stack = Stack::start().await;
    let http = stack.http();
    let mut identity = stack.door().identity("pi-1").await.unwrap();
    identity.info.runner = true;
    let mut agent: FakeAgent = identity.connect().await;
    eventually("the controller knows of the runner", DEADLINE, async || {
        let machine = http.machine("pi-1").await?;
        machine.info.as_ref().filter(|info| info.runner).map(drop).ok_or_else(|| format!("{machine:?}"))
    })
    .await;
    let run = http.start_run("needs-root", "pi-1", json!({})).await;
    let (first, _) = agent.order().await;
    assert!(first.root && first.nonce.is_none());
    let nonce = Nonce::from_random([5; 16]);
    let asks = json!({"state": "dispatched", "boot_id": "x", "nonce": nonce.as_str()});
    agent.publish(&Topic::Report(agent.pi().clone(), run), encode(&asks), false).await;
    let (second, _) = agent.order().await;
    assert_eq!((second.nonce, second.run, &second.argv), (Some(nonce), run, &first.argv));
    // An agent whose user was taken over keeps that order, and says what the administrator wants to
    // hear.
    http.post(&format!("/api/runs/{run}/cancel"), json!({})).await;
    agent.report(run, RunState::Cancelled, None, None).await;
    steadily("not cancelled yet", ROOT_NONCE_LIFETIME / 4, async || {
        let state = http.run(run).await?.state;
        if state.is_final() { Err(state.to_string()) } else { Ok(()) }
    })
    .await;
    assert_eq!(http.ended(run, DEADLINE + Duration::from_secs(10)).await.state, RunState::Cancelled);
}
