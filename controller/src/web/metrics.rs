//! `/metrics`: the fleet, the runs, the broker and the controller itself, in the Prometheus text
//! format (version 0.0.4).
//!
//! Names are stable, in base units (ratios from 0 to 1, bytes, seconds), and carry the machine as
//! `pi`; its label and what it is are in `pistat_machine_info`. What a machine does not report has
//! no series, and values of a machine that is not online are left out rather than repeated.

mod broker;
mod controller;
mod fleet;
mod history;
mod page;
mod runs;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use self::page::Page;
use super::Web;
use crate::hub::ask::{Ask, Numbers, Refused};

/// `GET /metrics`.
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "controller",
    responses(
        (status = 200, description = "Metrics in the Prometheus text format", body = String, content_type = "text/plain; version=0.0.4; charset=utf-8"),
    )
)]
pub(super) async fn metrics(State(web): State<Web>) -> Result<Response, Refused> {
    let numbers = web.ask(Ask::Numbers).await?;
    let mut page = page(&numbers);
    // The fleet's numbers matter more: a history that is busy or has ended is left out.
    if let Ok((numbers, dropped)) = web.history_numbers().await {
        history::write(&mut page, &numbers, dropped);
    }
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page.text()).into_response())
}

fn page(numbers: &Numbers) -> Page {
    let mut page = Page::default();
    fleet::write(&mut page, &numbers.machines);
    runs::write(&mut page, numbers);
    controller::write(&mut page, numbers);
    if let Some(statistics) = &numbers.broker {
        broker::write(&mut page, statistics);
    }
    page
}
