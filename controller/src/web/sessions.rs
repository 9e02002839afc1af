//! Signed-in browsers: listed and ended, by whom they belong to and by administrators.

use axum::{Extension, Json, extract::State, http::StatusCode};
use pistat_protocol::{api::SessionView, id::AccountName};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Web,
    problem::{Path, Query},
};
use crate::{
    access::Caller,
    hub::ask::{Ask, Refused},
};

/// `GET /api/sessions`: one's own; an administrator's are all.
#[utoipa::path(
    get, path = "/api/sessions", operation_id = "sessions", tag = "accounts",
    responses((status = 200, description = "The caller's sessions, newest first; those of all accounts for an administrator", body = Vec<SessionView>))
)]
pub(super) async fn list(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<SessionView>>, Refused> {
    web.ask(|reply| Ask::Sessions(caller, reply)).await.map(Json)
}

/// The query of `DELETE /api/sessions`.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct AccountQuery {
    /// Whose sessions end.
    account: AccountName,
}

/// `DELETE /api/sessions?account=`: all sessions of an account.
#[utoipa::path(
    delete, path = "/api/sessions", operation_id = "endSessions", tag = "accounts",
    params(AccountQuery),
    responses(
        (status = 204, description = "All sessions of the account have ended; its token is as it was"),
        (status = 404, description = "There is no such account"),
    )
)]
pub(super) async fn end_all(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Query(AccountQuery { account }): Query<AccountQuery>,
) -> Result<StatusCode, Refused> {
    web.ask(|reply| Ask::EndSessions(caller, account, reply)).await.map(|()| StatusCode::NO_CONTENT)
}

/// `DELETE /api/sessions/{id}`.
#[utoipa::path(
    delete, path = "/api/sessions/{id}", operation_id = "endSession", tag = "accounts",
    params(("id" = String, Path, description = "Its id, as the list has it")),
    responses(
        (status = 204, description = "The session has ended"),
        (status = 404, description = "There is no such session, or the caller may not end it"),
    )
)]
pub(super) async fn end(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<StatusCode, Refused> {
    web.ask(|reply| Ask::EndSession(caller, id, reply)).await.map(|()| StatusCode::NO_CONTENT)
}
