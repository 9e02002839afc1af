//! The REST API: machines, tasks, runs and events.

use axum::{
    Extension, Json,
    extract::State,
    http::{StatusCode, header},
};
use pistat_protocol::{
    api::{AcceptedRuns, History, NewRun, PatchMachine},
    dashboard::{Event, Group, Machine, Run},
    id::{PiId, RunId},
    task::{RunState, TaskView},
};
use serde::Deserialize;

use super::{
    Web,
    problem::{Body, Path, Query},
};
use crate::{
    access::Caller,
    hub::ask::{Ask, Refused},
    store::RunQuery,
};

/// How many runs or events one answer has, if nothing is asked for, and at most.
const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;

/// The longest history that is kept.
const MAX_HISTORY_SECONDS: u32 = 86_400;

/// `GET /healthz`: the hub answers.
pub(super) async fn healthz(State(web): State<Web>) -> Result<&'static str, Refused> {
    web.ask(Ask::Tasks).await.map(|_| "ok\n")
}

/// The API, described (OpenAPI 3.1). A test holds its paths against the routes.
const OPENAPI: &str = include_str!("openapi.json");

/// `GET /api/openapi.json`.
pub(super) async fn openapi() -> ([(header::HeaderName, &'static str); 1], &'static str) {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

/// `GET /api/pis`.
pub(super) async fn machines(State(web): State<Web>) -> Result<Json<Vec<Machine>>, Refused> {
    web.ask(Ask::Machines).await.map(Json)
}

/// `GET /api/pis/{pi}`.
pub(super) async fn machine(State(web): State<Web>, Path(pi): Path<PiId>) -> Result<Json<Machine>, Refused> {
    web.ask(|reply| Ask::Machine(pi, reply)).await.map(Json)
}

/// The query of `GET /api/pis/{pi}/history`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    #[serde(default = "hour")]
    seconds: u32,
}

fn hour() -> u32 {
    3600
}

/// `GET /api/pis/{pi}/history?seconds=`.
pub(super) async fn history(
    State(web): State<Web>,
    Path(pi): Path<PiId>,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<History>, Refused> {
    if query.seconds == 0 || query.seconds > MAX_HISTORY_SECONDS {
        return Err(Refused::bad(format!("seconds is between 1 and {MAX_HISTORY_SECONDS}")));
    }
    web.ask(|reply| Ask::History(pi, query.seconds, reply)).await.map(Json)
}

/// `PATCH /api/pis/{pi}`.
pub(super) async fn patch(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(pi): Path<PiId>,
    Body(patch): Body<PatchMachine>,
) -> Result<Json<Machine>, Refused> {
    web.ask(|reply| Ask::Patch(caller, pi, patch, reply)).await.map(Json)
}

/// `DELETE /api/pis/{pi}`, `DELETE /api/enrolments/{pi}`.
pub(super) async fn forget(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(pi): Path<PiId>,
) -> Result<StatusCode, Refused> {
    web.ask(|reply| Ask::Forget(caller, pi, reply)).await.map(|()| StatusCode::NO_CONTENT)
}

/// `GET /api/tasks`.
pub(super) async fn tasks(State(web): State<Web>) -> Result<Json<Vec<TaskView>>, Refused> {
    web.ask(Ask::Tasks).await.map(Json)
}

/// `POST /api/runs`.
pub(super) async fn start(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<NewRun>,
) -> Result<(StatusCode, Json<AcceptedRuns>), Refused> {
    let accepted = web.ask(|reply| Ask::Run(caller, request, reply)).await?;
    Ok((StatusCode::ACCEPTED, Json(accepted)))
}

/// The query of `GET /api/runs`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunsQuery {
    pi: Option<PiId>,
    task: Option<pistat_protocol::id::TaskId>,
    state: Option<RunState>,
    limit: Option<u32>,
    before: Option<RunId>,
}

/// `GET /api/runs?pi=&task=&state=&limit=&before=`, newest first.
pub(super) async fn runs(State(web): State<Web>, Query(query): Query<RunsQuery>) -> Result<Json<Vec<Run>>, Refused> {
    let query = RunQuery {
        pi: query.pi.map(Into::into),
        task: query.task.map(Into::into),
        state: query.state.map(|state| state.as_str().into()),
        before: query.before,
        limit: query.limit.unwrap_or(PAGE).clamp(1, MAX_PAGE),
    };
    let records = web.read(move |reader| reader.runs(&query)).await?;
    Ok(Json(records.into_iter().map(|record| record.run).collect()))
}

/// One run: as it is now, or as it ended.
pub(super) async fn find_run(web: &Web, id: RunId) -> Result<Run, Refused> {
    if let Some(run) = web.ask(|reply| Ask::OpenRun(id, reply)).await? {
        return Ok(run);
    }
    let record = web.read(move |reader| reader.run(id)).await?;
    record
        .map(|record| record.run)
        .ok_or_else(|| Refused::missing(format!("there is no run {id} (any more); `runs` shows the newest")))
}

/// `GET /api/runs/{run}`.
pub(super) async fn run(State(web): State<Web>, Path(id): Path<RunId>) -> Result<Json<Run>, Refused> {
    find_run(&web, id).await.map(Json)
}

/// `POST /api/runs/{run}/cancel`, also for a group.
pub(super) async fn cancel(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<RunId>,
) -> Result<StatusCode, Refused> {
    web.ask(|reply| Ask::Cancel(caller, id, reply)).await.map(|()| StatusCode::ACCEPTED)
}

/// `GET /api/groups/{group}`.
pub(super) async fn group(State(web): State<Web>, Path(id): Path<RunId>) -> Result<Json<Group>, Refused> {
    web.ask(|reply| Ask::Group(id, reply)).await.map(Json)
}

/// The query of `GET /api/events`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    limit: Option<u32>,
    before: Option<u64>,
}

/// `GET /api/events?limit=&before=`, newest first.
pub(super) async fn events(
    State(web): State<Web>,
    Query(query): Query<EventsQuery>,
) -> Result<Json<Vec<Event>>, Refused> {
    let limit = query.limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    web.read(move |reader| reader.events(query.before, limit)).await.map(Json)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_is_described_and_nothing_else_is() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        let described: BTreeSet<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
        let source = include_str!("../web.rs");
        let routes: BTreeSet<&str> =
            source.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(routes.len() > 20);
        assert_eq!(described, routes);
    }
}
