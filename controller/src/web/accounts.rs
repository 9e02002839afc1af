//! Accounts, the join token and enrolments: what administrators do.

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::StatusCode,
};
use pistat_protocol::{
    account::{Account, Role},
    api::{Enrolment, EnrolmentToken, JoinTokenInfo, JoinTokenView, NewAccount, NewEnrolment, NewJoinToken, NewToken},
    id::{AccountName, PiId, TokenName},
};
use serde::Deserialize;

use super::{
    Web,
    problem::{Body, Path, Rejection},
};
use crate::{
    access::Caller,
    hub::{
        ask::{Ask, Refused, Rotation},
        people::lifetime,
    },
};

/// `GET /api/accounts`.
#[utoipa::path(
    get, path = "/api/accounts", operation_id = "accounts", tag = "accounts",
    responses((status = 200, description = "All accounts", body = Vec<Account>))
)]
pub(super) async fn list(State(web): State<Web>) -> Result<Json<Vec<Account>>, Refused> {
    web.ask(Ask::Accounts).await.map(Json)
}

/// `POST /api/accounts`: the token is in the answer, and nowhere else.
#[utoipa::path(
    post, path = "/api/accounts", operation_id = "addAccount", tag = "accounts",
    request_body = NewAccount,
    responses(
        (status = 201, description = "Its token, shown once", body = NewToken),
        (status = 409, description = "The name is taken"),
    )
)]
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
#[utoipa::path(
    delete, path = "/api/accounts/{name}", operation_id = "removeAccount", tag = "accounts",
    params(("name" = AccountName, Path, description = "Its name")),
    responses(
        (status = 204, description = "Removed, its sessions ended"),
        (status = 404, description = "There is no such account"),
        (status = 409, description = "The account admin cannot be removed"),
    )
)]
pub(super) async fn remove(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<AccountName>,
) -> Result<StatusCode, Refused> {
    web.ask(|reply| Ask::RemoveAccount(caller, name, reply)).await.map(|()| StatusCode::NO_CONTENT)
}

/// The optional body of `POST /api/accounts/{name}/rotate`.
#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Rotate {
    /// Another role.
    #[serde(default)]
    role: Option<Role>,
    /// How long it lasts from now on, such as `30d`; as long as before without it.
    #[serde(default)]
    expires: Option<String>,
}

impl Rotate {
    fn read(body: &[u8]) -> Result<Self, Refused> {
        if body.is_empty() { Ok(Self::default()) } else { serde_json::from_slice(body).map_err(Refused::bad) }
    }
}

/// Whether the body of a rotation can be read.
pub(super) fn reads_rotation(body: &[u8]) -> bool {
    Rotate::read(body).is_ok()
}

/// `POST /api/accounts/{name}/rotate`: a new token, and another role if the body names one.
#[utoipa::path(
    post, path = "/api/accounts/{name}/rotate", operation_id = "rotateAccount", tag = "accounts",
    params(("name" = AccountName, Path, description = "Its name")),
    request_body = Option<Rotate>,
    responses(
        (status = 200, description = "Its new token, shown once", body = NewToken),
        (status = 404, description = "There is no such account"),
        (status = 409, description = "The account admin keeps its role"),
    )
)]
pub(super) async fn rotate(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<AccountName>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<NewToken>, Rejection> {
    let Rotate { role, expires } = Rotate::read(&body?)?;
    let lifetime = expires.as_deref().map(lifetime).transpose().map_err(Refused::bad)?;
    let account = name.to_string();
    let token = web.ask(|reply| Ask::RotateAccount(caller, name, Rotation { role, lifetime }, reply)).await?;
    Ok(Json(NewToken { name: account, token }))
}

/// `GET /api/join-token`.
#[utoipa::path(
    get, path = "/api/join-token", operation_id = "joinToken", tag = "enrolment",
    responses(
        (status = 200, description = "The default token with which machines join", body = JoinTokenView),
        (status = 404, description = "The default token was removed"),
    )
)]
pub(super) async fn join_token(State(web): State<Web>) -> Result<Json<JoinTokenView>, Refused> {
    let token = web.ask(Ask::JoinToken).await?.to_string();
    Ok(Json(JoinTokenView { token }))
}

/// `POST /api/join-token/rotate`.
#[utoipa::path(
    post, path = "/api/join-token/rotate", operation_id = "rotateJoinToken", tag = "enrolment",
    responses((status = 200, description = "The new token; the old one has ended", body = JoinTokenView))
)]
pub(super) async fn rotate_join_token(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<JoinTokenView>, Refused> {
    let token = web.ask(|reply| Ask::RotateJoinToken(caller, reply)).await?.to_string();
    Ok(Json(JoinTokenView { token }))
}

/// `GET /api/join-tokens`.
#[utoipa::path(
    get, path = "/api/join-tokens", operation_id = "joinTokens", tag = "enrolment",
    responses((status = 200, description = "All join tokens, without their secrets", body = Vec<JoinTokenInfo>))
)]
pub(super) async fn join_tokens(State(web): State<Web>) -> Result<Json<Vec<JoinTokenInfo>>, Refused> {
    web.ask(Ask::JoinTokens).await.map(Json)
}

/// `POST /api/join-tokens`: the token is in the answer, and nowhere else.
#[utoipa::path(
    post, path = "/api/join-tokens", operation_id = "addJoinToken", tag = "enrolment",
    request_body = NewJoinToken,
    responses(
        (status = 201, description = "The token, shown once", body = NewToken),
        (status = 409, description = "The name is taken, or there are as many as there may be"),
    )
)]
pub(super) async fn add_join_token(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Body(token): Body<NewJoinToken>,
) -> Result<(StatusCode, Json<NewToken>), Refused> {
    let name = token.name.to_string();
    let token = web.ask(|reply| Ask::AddJoinToken(caller, token, reply)).await?;
    Ok((StatusCode::CREATED, Json(NewToken { name, token })))
}

/// `DELETE /api/join-tokens/{name}`: it lets in no machine any more; those that joined stay.
#[utoipa::path(
    delete, path = "/api/join-tokens/{name}", operation_id = "removeJoinToken", tag = "enrolment",
    params(("name" = TokenName, Path, description = "Its name")),
    responses(
        (status = 204, description = "It lets in no machine any more"),
        (status = 404, description = "There is no such token"),
    )
)]
pub(super) async fn remove_join_token(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<TokenName>,
) -> Result<StatusCode, Refused> {
    web.ask(|reply| Ask::RemoveJoinToken(caller, name, reply)).await.map(|()| StatusCode::NO_CONTENT)
}

/// `GET /api/enrolments`.
#[utoipa::path(
    get, path = "/api/enrolments", operation_id = "enrolments", tag = "enrolment",
    responses((status = 200, description = "Machines that may connect", body = Vec<Enrolment>))
)]
pub(super) async fn enrolments(State(web): State<Web>) -> Result<Json<Vec<Enrolment>>, Refused> {
    web.ask(Ask::Enrolments).await.map(Json)
}

/// `POST /api/enrolments`: a single-use token for one pi-id.
#[utoipa::path(
    post, path = "/api/enrolments", operation_id = "addAgent", tag = "enrolment",
    request_body = NewEnrolment,
    responses(
        (status = 201, description = "A token that works once, for this machine", body = EnrolmentToken),
        (status = 409, description = "The name is taken"),
    )
)]
pub(super) async fn add_agent(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Body(NewEnrolment { pi }): Body<NewEnrolment>,
) -> Result<(StatusCode, Json<EnrolmentToken>), Refused> {
    let (name, controller_url) = (pi.to_string(), web.own_address.of_agent(pi.as_str()));
    let token = web.ask(|reply| Ask::AddAgent(caller, pi, reply)).await?;
    Ok((StatusCode::CREATED, Json(EnrolmentToken { name, token, controller_url })))
}

/// `DELETE /api/enrolments/{pi}`: the same as forgetting the machine.
#[utoipa::path(
    delete, path = "/api/enrolments/{pi}", operation_id = "removeAgent", tag = "enrolment",
    params(("pi" = PiId, Path, description = "Its pi-id")),
    responses(
        (status = 204, description = "Revoked, disconnected, its topics cleared"),
        (status = 404, description = "There is no such machine"),
        (status = 409, description = "The controller's own machine cannot be forgotten"),
    )
)]
pub(super) async fn remove_agent(
    web: State<Web>,
    caller: Extension<Caller>,
    pi: Path<PiId>,
) -> Result<StatusCode, Refused> {
    super::api::forget(web, caller, pi).await
}

/// `POST /api/enrolments/{pi}/reset`.
#[utoipa::path(
    post, path = "/api/enrolments/{pi}/reset", operation_id = "resetAgent", tag = "enrolment",
    params(("pi" = PiId, Path, description = "Its pi-id")),
    responses(
        (status = 200, description = "A token for one new enrolment of this machine", body = EnrolmentToken),
        (status = 404, description = "There is no such machine"),
    )
)]
pub(super) async fn reset_agent(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(pi): Path<PiId>,
) -> Result<Json<EnrolmentToken>, Refused> {
    let (name, controller_url) = (pi.to_string(), web.own_address.of_agent(pi.as_str()));
    let token = web.ask(|reply| Ask::ResetAgent(caller, pi, reply)).await?;
    Ok(Json(EnrolmentToken { name, token, controller_url }))
}
