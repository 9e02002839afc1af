//! Who asks, and whether they may: the one place where requests get a caller.

use std::net::{IpAddr, SocketAddr};

use axum::{
    Extension, Json,
    body::Body as RawBody,
    extract::{ConnectInfo, State},
    http::{HeaderMap, HeaderValue, Request, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use pistat_protocol::{
    account::Role,
    api::{Login, LoginLink},
    dashboard::Me,
    time::Timestamp,
};

use super::{Web, admission::Visitor, problem::Body};
use crate::{
    access::Caller,
    hub::ask::{Ask, Refused},
};

/// The name of the session's cookie.
const COOKIE: &str = "pistat_session";

/// How long a browser keeps the cookie; the session itself ends on the server.
const COOKIE_SECONDS: u32 = 30 * 86_400;

/// Who asks: by `Authorization: Bearer <token>`, else by the session's cookie.
///
/// A header that is not a token of ours does not hide the session: a reverse proxy may add its own credentials there.
pub(super) fn authenticate(web: &Web, headers: &HeaderMap) -> Option<Caller> {
    let access = web.access.borrow();
    let now: Timestamp = std::time::SystemTime::now().into();
    let by_token = bearer(headers).and_then(|token| access.caller_by_token(token));
    by_token.or_else(|| access.caller_by_session(cookie(headers)?, now))
}

/// The token of `Authorization: Bearer`, which may be empty. The scheme's case does not count (RFC 9110, section 11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| value.to_str().ok());
    let mut credentials = values.map(|value| value.trim().split_once(' ').unwrap_or((value.trim(), "")));
    credentials.find(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim())
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

/// Lets a request through if its caller has at least this role.
pub(super) async fn require(web: Web, role: Role, mut request: Request<RawBody>, next: Next) -> Response {
    let Some(caller) = authenticate(&web, request.headers()) else {
        let tried = bearer(request.headers()).is_some();
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        return unknown(&web, tried, peer).await.into_response();
    };
    if let Some(visitor) = request.extensions().get::<Visitor>() {
        visitor.let_in();
    }
    if caller.role < role {
        let detail = format!("this needs the role {role}; {} has the role {}", caller.account, caller.role);
        return Refused::forbidden(detail).into_response();
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// Nobody who is known: credentials that are wrong (and not merely missing) are answered slowly.
async fn unknown(web: &Web, tried: bool, peer: Option<IpAddr>) -> Refused {
    if tried {
        wait_after_bad_credentials(web, peer).await;
        return unauthorised("this token is not valid (any more): `pistat account rotate <name>` makes a new one");
    }
    unauthorised(
        "sign in first: by the link that the controller printed, by one from `pistat login`, or with an account's token",
    )
}

fn unauthorised(detail: &str) -> Refused {
    Refused { status: 401, detail: detail.into() }
}

async fn wait_after_bad_credentials(web: &Web, peer: Option<IpAddr>) {
    if let Some(peer) = peer
        && let Ok(delay) = web.ask(|reply| Ask::BadCredentials(peer, reply)).await
    {
        tokio::time::sleep(delay).await;
    }
}

/// `POST /api/login`.
#[utoipa::path(
    post, path = "/api/login", operation_id = "login", tag = "accounts",
    request_body = Login,
    responses(
        (status = 200, description = "Signed in: the cookie is the session", body = Me),
        (status = 401, description = "The code or token is not valid (any more)"),
    )
)]
pub(super) async fn login(
    State(web): State<Web>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Body(login): Body<Login>,
) -> Result<Response, Refused> {
    match web.ask(|reply| Ask::SignIn(login, reply)).await {
        Ok((caller, cookie)) => {
            let me = Me { account: caller.account, role: caller.role };
            let secure = if web.config.http.tls.is_some() { "; Secure" } else { "" };
            let value =
                format!("{COOKIE}={cookie}; Path=/; HttpOnly; SameSite=Strict; Max-Age={COOKIE_SECONDS}{secure}");
            let mut response = Json(me).into_response();
            let value = HeaderValue::from_str(&value).map_err(Refused::unavailable)?;
            response.headers_mut().insert(header::SET_COOKIE, value);
            Ok(response)
        }
        Err(refused) => {
            if refused.status == 401 {
                wait_after_bad_credentials(&web, Some(peer.ip())).await;
            }
            Err(refused)
        }
    }
}

/// `POST /api/logout`.
#[utoipa::path(
    post, path = "/api/logout", operation_id = "logout", tag = "accounts",
    responses((status = 204, description = "Signed out"))
)]
pub(super) async fn logout(State(web): State<Web>, Extension(caller): Extension<Caller>) -> Result<Response, Refused> {
    if let Some(session) = caller.session() {
        web.ask(|reply| Ask::SignOut(session, reply)).await?;
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    let value = format!("{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0");
    response.headers_mut().insert(header::SET_COOKIE, HeaderValue::from_str(&value).map_err(Refused::unavailable)?);
    Ok(response)
}

/// `GET /api/me`.
#[utoipa::path(
    get, path = "/api/me", operation_id = "me", tag = "accounts",
    responses((status = 200, description = "Who asks", body = Me))
)]
pub(super) async fn me(Extension(caller): Extension<Caller>) -> Json<Me> {
    Json(Me { account: caller.account, role: caller.role })
}

/// `POST /api/login-links`.
#[utoipa::path(
    post, path = "/api/login-links", operation_id = "loginLink", tag = "accounts",
    responses((status = 200, description = "A new single-use code", body = LoginLink))
)]
pub(super) async fn link(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<LoginLink>, Refused> {
    let (code, expires_at) = web.ask(|reply| Ask::LoginLink(caller, reply)).await?;
    Ok(Json(LoginLink { code, controller_url: web.own_address.elsewhere(), expires_at }))
}
