//! Accounts, the join token and enrolments: what administrators do.

use axum::{Extension, Json, body::Bytes, extract::State, http::StatusCode};
use pistat_protocol::{
    account::{Account, Role},
    api::{Enrolment, JoinTokenView, NewAccount, NewEnrolment, NewToken},
    id::{AccountName, PiId},
};
use serde::Deserialize;

use super::{
    Web,
    problem::{Body, Path},
};
use crate::{
    access::Caller,
    hub::ask::{Ask, Refused},
};

/// `GET /api/accounts`.
pub(super) async fn list(State(web): State<Web>) -> Result<Json<Vec<Account>>, Refused> {
    web.ask(Ask::Accounts).await.map(Json)
}

/// `POST /api/accounts`: the token is in the answer, and nowhere else.
pub(super) async fn add(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Body(account): Body<NewAccount>,
) -> Result<(StatusCode, Json<NewToken>), Refused> {
    let name = account.name.to_string();
    let token = web.ask(|reply| Ask::AddAccount(caller, account, reply)).await?;
    Ok((StatusCode::CREATED, Json(NewToken { name, token })))
}

/// `DELETE /api/accounts/{name}`.
pub(super) async fn remove(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<AccountName>,
) -> Result<StatusCode, Refused> {
    web.ask(|reply| Ask::RemoveAccount(caller, name, reply)).await.map(|()| StatusCode::NO_CONTENT)
}

/// The optional body of `POST /api/accounts/{name}/rotate`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotate {
    #[serde(default)]
    role: Option<Role>,
}

/// `POST /api/accounts/{name}/rotate`: a new token, and another role if the body names one.
pub(super) async fn rotate(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<AccountName>,
    body: Bytes,
) -> Result<Json<NewToken>, Refused> {
    let Rotate { role } =
        if body.is_empty() { Rotate::default() } else { serde_json::from_slice(&body).map_err(Refused::bad)? };
    let account = name.to_string();
    let token = web.ask(|reply| Ask::RotateAccount(caller, name, role, reply)).await?;
    Ok(Json(NewToken { name: account, token }))
}

/// `GET /api/join-token`.
pub(super) async fn join_token(State(web): State<Web>) -> Result<Json<JoinTokenView>, Refused> {
    let token = web.ask(Ask::JoinToken).await?.to_string();
    Ok(Json(JoinTokenView { token }))
}

/// `POST /api/join-token/rotate`.
pub(super) async fn rotate_join_token(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<JoinTokenView>, Refused> {
    let token = web.ask(|reply| Ask::RotateJoinToken(caller, reply)).await?.to_string();
    Ok(Json(JoinTokenView { token }))
}

/// `GET /api/enrolments`.
pub(super) async fn enrolments(State(web): State<Web>) -> Result<Json<Vec<Enrolment>>, Refused> {
    web.ask(Ask::Enrolments).await.map(Json)
}

/// `POST /api/enrolments`: a single-use token for one pi-id.
pub(super) async fn add_agent(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Body(NewEnrolment { pi }): Body<NewEnrolment>,
) -> Result<(StatusCode, Json<NewToken>), Refused> {
    let name = pi.to_string();
    let token = web.ask(|reply| Ask::AddAgent(caller, pi, reply)).await?;
    Ok((StatusCode::CREATED, Json(NewToken { name, token })))
}

/// `POST /api/enrolments/{pi}/reset`.
pub(super) async fn reset_agent(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(pi): Path<PiId>,
) -> Result<StatusCode, Refused> {
    web.ask(|reply| Ask::ResetAgent(caller, pi, reply)).await.map(|()| StatusCode::NO_CONTENT)
}
