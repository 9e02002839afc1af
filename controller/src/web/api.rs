//! The REST API: machines, tasks, runs and events.

use axum::{
    Extension, Json,
    extract::State,
    http::{StatusCode, Uri, header},
    response::IntoResponse,
};
use pistat_protocol::{
    api::{AcceptedRuns, GroupOptions, NewRun, PatchMachine},
    dashboard::{Event, EventKind, Group, Machine, Run},
    id::{PiId, RunId, TaskId},
    task::{RunState, TaskView},
    time::Timestamp,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Web,
    openapi::Description,
    problem::{Body, Path, Query},
};
use crate::{
    access::Caller,
    hub::ask::{Ask, Refused},
    store::{EventQuery, RunQuery},
};

/// How many runs or events one answer has, if nothing is asked for, and at most.
const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;

/// `GET /healthz`: the hub answers.
#[utoipa::path(
    get, path = "/healthz", operation_id = "healthz", tag = "controller",
    responses((status = 200, description = "The controller answers", body = String, content_type = "text/plain"))
)]
pub(super) async fn healthz(State(web): State<Web>) -> Result<&'static str, Refused> {
    web.ask(Ask::Tasks).await.map(|_| "ok\n")
}

/// `GET /api/openapi.json`.
#[utoipa::path(
    get, path = "/api/openapi.json", operation_id = "openapi", tag = "controller",
    responses((status = 200, description = "This description", body = serde_json::Value))
)]
pub(super) async fn openapi(Extension(description): Extension<Description>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], description.0)
}

/// `GET /api/pis`.
#[utoipa::path(
    get, path = "/api/pis", operation_id = "machines", tag = "machines",
    responses((status = 200, description = "All machines, the controller's own first", body = Vec<Machine>))
)]
pub(super) async fn machines(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<Machine>>, Refused> {
    web.ask(|reply| Ask::Machines(caller, reply)).await.map(Json)
}

/// `GET /api/pis/{pi}`.
#[utoipa::path(
    get, path = "/api/pis/{pi}", operation_id = "machine", tag = "machines",
    params(("pi" = PiId, Path, description = "Its pi-id")),
    responses(
        (status = 200, description = "The machine", body = Machine),
        (status = 404, description = "There is no such machine"),
    )
)]
pub(super) async fn machine(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(pi): Path<PiId>,
) -> Result<Json<Machine>, Refused> {
    web.ask(|reply| Ask::Machine(caller, pi, reply)).await.map(Json)
}

/// `PATCH /api/pis/{pi}`.
#[utoipa::path(
    patch, path = "/api/pis/{pi}", operation_id = "patchMachine", tag = "machines",
    params(("pi" = PiId, Path, description = "Its pi-id")),
    request_body = PatchMachine,
    responses(
        (status = 200, description = "The machine, changed", body = Machine),
        (status = 404, description = "There is no such machine"),
    )
)]
pub(super) async fn patch(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(pi): Path<PiId>,
    Body(patch): Body<PatchMachine>,
) -> Result<Json<Machine>, Refused> {
    web.ask(|reply| Ask::Patch(caller, pi, patch, reply)).await.map(Json)
}

/// `DELETE /api/pis/{pi}`.
#[utoipa::path(
    delete, path = "/api/pis/{pi}", operation_id = "forgetMachine", tag = "machines",
    params(("pi" = PiId, Path, description = "Its pi-id")),
    responses(
        (status = 204, description = "Forgotten: revoked, disconnected, its topics cleared"),
        (status = 404, description = "There is no such machine"),
        (status = 409, description = "The controller's own machine cannot be forgotten"),
    )
)]
pub(super) async fn forget(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(pi): Path<PiId>,
) -> Result<StatusCode, Refused> {
    web.ask(|reply| Ask::Forget(caller, pi, reply)).await.map(|()| StatusCode::NO_CONTENT)
}

/// `GET /api/tasks`.
#[utoipa::path(
    get, path = "/api/tasks", operation_id = "tasks", tag = "tasks",
    responses((status = 200, description = "The catalogue", body = Vec<TaskView>))
)]
pub(super) async fn tasks(State(web): State<Web>) -> Result<Json<Vec<TaskView>>, Refused> {
    web.ask(Ask::Tasks).await.map(Json)
}

/// `POST /api/runs`.
#[utoipa::path(
    post, path = "/api/runs", operation_id = "run", tag = "runs",
    request_body = NewRun,
    responses(
        (status = 202, description = "Accepted: everything that is named is on the disk", body = AcceptedRuns),
        (status = 404, description = "There is no such task or machine, or nobody has the tag"),
        (status = 409, description = "It cannot run there, or needs a confirmation"),
    )
)]
pub(super) async fn start(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<NewRun>,
) -> Result<(StatusCode, Json<AcceptedRuns>), Refused> {
    check_group(request.group)?;
    let accepted = web.ask(|reply| Ask::Run(caller, request, reply)).await?;
    Ok((StatusCode::ACCEPTED, Json(accepted)))
}

/// None at a time would wait for ever.
fn check_group(group: Option<GroupOptions>) -> Result<(), Refused> {
    let counts = group.map(|group| [("at_once", group.at_once), ("stop_after", group.stop_after)]);
    match counts.into_iter().flatten().find(|(_, count)| *count == Some(0)) {
        Some((name, _)) => Err(Refused::bad(format!("{name} is a whole number from 1, or left out"))),
        None => Ok(()),
    }
}

/// The query of `GET /api/runs`.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct RunsQuery {
    /// Only those of this machine.
    pi: Option<PiId>,
    /// Only those of this task.
    task: Option<TaskId>,
    /// Only those in this state.
    state: Option<RunState>,
    /// Only those of this group.
    group: Option<RunId>,
    /// How many, at most 1000.
    limit: Option<u32>,
    /// Only those before this one.
    before: Option<RunId>,
}

/// `GET /api/runs?pi=&task=&state=&group=&limit=&before=`, newest first.
#[utoipa::path(
    get, path = "/api/runs", operation_id = "runs", tag = "runs",
    params(RunsQuery),
    responses((status = 200, description = "Runs, newest first", body = Vec<Run>))
)]
pub(super) async fn runs(State(web): State<Web>, Query(query): Query<RunsQuery>) -> Result<Json<Vec<Run>>, Refused> {
    let query = RunQuery {
        pi: query.pi.map(Into::into),
        task: query.task.map(Into::into),
        state: query.state.map(|state| state.as_str().into()),
        group: query.group,
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
#[utoipa::path(
    get, path = "/api/runs/{run}", operation_id = "runById", tag = "runs",
    params(("run" = RunId, Path, description = "Its id")),
    responses(
        (status = 200, description = "The run, as it is now or as it ended", body = Run),
        (status = 404, description = "There is no such run"),
    )
)]
pub(super) async fn run(State(web): State<Web>, Path(id): Path<RunId>) -> Result<Json<Run>, Refused> {
    find_run(&web, id).await.map(Json)
}

/// `POST /api/runs/{run}/cancel`, also for a group.
#[utoipa::path(
    post, path = "/api/runs/{run}/cancel", operation_id = "cancel", tag = "runs",
    params(("run" = RunId, Path, description = "The id of a run or of a group")),
    responses(
        (status = 202, description = "Asked to end"),
        (status = 404, description = "There is no such run"),
        (status = 409, description = "It has already ended"),
    )
)]
pub(super) async fn cancel(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<RunId>,
) -> Result<StatusCode, Refused> {
    web.ask(|reply| Ask::Cancel(caller, id, reply)).await.map(|()| StatusCode::ACCEPTED)
}

/// `GET /api/groups/{group}`.
#[utoipa::path(
    get, path = "/api/groups/{group}", operation_id = "group", tag = "runs",
    params(("group" = RunId, Path, description = "Its id")),
    responses(
        (status = 200, description = "The group and the states of its runs", body = Group),
        (status = 404, description = "There is no such group"),
    )
)]
pub(super) async fn group(State(web): State<Web>, Path(id): Path<RunId>) -> Result<Json<Group>, Refused> {
    web.ask(|reply| Ask::Group(id, reply)).await.map(Json)
}

/// The query of `GET /api/events`.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    /// How many, at most 1000.
    limit: Option<u32>,
    /// Only those before this sequence number.
    before: Option<u64>,
    /// Only those of this time and later, RFC 3339.
    #[param(value_type = Option<String>)]
    since: Option<Timestamp>,
    /// Only those of this machine.
    pi: Option<PiId>,
    /// Only those of this account.
    account: Option<String>,
    /// Only those of this kind.
    kind: Option<EventKind>,
}

/// Whether one of the queries of this file can be read.
pub(super) fn reads_query(uri: &Uri) -> bool {
    let known = [Query::<RunsQuery>::read(uri).is_ok(), Query::<EventsQuery>::read(uri).is_ok()];
    known.contains(&true)
}

/// `GET /api/events`, newest first.
#[utoipa::path(
    get, path = "/api/events", operation_id = "events", tag = "controller",
    params(EventsQuery),
    responses((status = 200, description = "The audit log, newest first", body = Vec<Event>))
)]
pub(super) async fn events(
    State(web): State<Web>,
    Query(query): Query<EventsQuery>,
) -> Result<Json<Vec<Event>>, Refused> {
    let EventsQuery { limit, before, since, pi, account, kind } = query;
    let limit = limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    let query = EventQuery { before, since, pi, account, kind };
    web.read(move |reader| reader.events(&query, limit)).await.map(Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_which_none_may_start_is_refused() {
        let group = |at_once, stop_after| Some(GroupOptions { at_once, stop_after, canary: false });
        for good in [None, group(None, None), group(Some(1), Some(1))] {
            assert!(check_group(good).is_ok(), "{good:?}");
        }
        for (bad, name) in [(group(Some(0), None), "at_once"), (group(Some(1), Some(0)), "stop_after")] {
            assert!(check_group(bad).is_err_and(
                |refused| refused.kind == crate::hub::ask::RefusedKind::Invalid && refused.detail.contains(name)
            ));
        }
    }
}
