//! Who asks, and whether they may: the one place where requests get a caller.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    Extension, Json,
    body::Body as RawBody,
    extract::{ConnectInfo, State},
    http::{HeaderMap, HeaderValue, Request, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use pistat_protocol::{
    api::{Login, LoginLink, SESSION_KEY_HEADER, SignedIn},
    dashboard::Me,
    order::PublicKey,
};

use super::{Needs, Web, admission::Connection, problem::Body};
use crate::{
    access::{Caller, Credential, Use},
    hub::ask::{Ask, Browser, Refused, RefusedKind},
};

/// How long a browser keeps the cookie; the session itself ends on the server.
const COOKIE_SECONDS: u32 = 30 * 86_400;

/// The names of this controller's session cookie. Cookies know no ports, so two controllers on one
/// host need two names.
#[derive(Debug, Clone)]
pub(crate) struct CookieNames {
    plain: Arc<str>,
    /// Over https: a browser takes a cookie of this name only over https, only for the whole host,
    /// and for no other one
    /// (RFC 6265bis, section 4.1.3.2).
    secure: Arc<str>,
}

impl CookieNames {
    /// Of the controller with this key.
    pub(crate) fn of(key: &PublicKey) -> Self {
        let plain = format!("pistat_{}", key.key_id());
        Self { secure: format!("__Host-{plain}").into(), plain: plain.into() }
    }

    /// What `Set-Cookie` says.
    fn set(&self, is_https: bool, value: &str, seconds: u32) -> String {
        let (name, secure) = if is_https { (&self.secure, "; Secure") } else { (&self.plain, "") };
        format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}")
    }

    /// The values of the cookie in a request, that of https first. Another program of the host may
    /// have set one of its own beside ours.
    fn values<'h>(&self, headers: &'h HeaderMap) -> impl Iterator<Item = &'h str> {
        let lines = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let pairs: Vec<_> =
            lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('=')).collect();
        let named =
            |name: &Arc<str>| pairs.iter().filter(|(other, _)| **other == **name).map(|(_, value)| *value).collect();
        let (secure, plain): (Vec<_>, Vec<_>) = (named(&self.secure), named(&self.plain));
        secure.into_iter().chain(plain)
    }
}

/// Whether a browser reaches the controller over https: it says so itself where it sends an Origin,
/// which is ours as has been checked; else
/// `public_url` decides.
fn is_https(web: &Web, headers: &HeaderMap) -> bool {
    if web.config.http.tls.is_some() {
        return true;
    }
    let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
    let address = origin.or(web.config.http.public_url.as_deref());
    address.is_some_and(|address| address.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:")))
}

/// Who asks: by `Authorization: Bearer <token>`, else by the session's cookie and the key of its
/// page.
///
/// A header that is not a token of ours does not hide the session: a reverse proxy may add its own
/// credentials there.
pub(super) fn authenticate(web: &Web, headers: &HeaderMap) -> Option<Caller> {
    let (access, now) = (web.access.borrow(), super::now());
    let key = headers.get(SESSION_KEY_HEADER).map(|key| key.to_str().unwrap_or_default());
    let by_token = bearer(headers).and_then(|token| access.caller_by_token(token, now));
    by_token.or_else(|| web.cookie.values(headers).find_map(|cookie| access.caller_by_session(cookie, key, now)))
}

/// The token of `Authorization: Bearer`, which may be empty. The scheme's case does not count (RFC
/// 9110, section 11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| value.to_str().ok());
    let mut credentials = values.map(|value| value.trim().split_once(' ').unwrap_or((value.trim(), "")));
    credentials.find(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim())
}

/// Lets a request through if its caller has what it needs.
pub(super) async fn require(web: Web, needs: Needs, mut request: Request<RawBody>, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let Some(caller) = authenticate(&web, request.headers()) else {
        let tried = bearer(request.headers()).is_some();
        return unknown(&web, tried, peer).await.into_response();
    };
    let is_half = matches!(caller.credential, Credential::Cookie(_));
    if is_half && needs != Needs::Cookie {
        return unauthorised(
            "the session's cookie alone is not enough, since a browser sends it to every port of this host: sign in again on \
             this page; a program uses an account's token",
        )
        .into_response();
    }
    if let Some(connection) = request.extensions().get::<Connection>().filter(|_| !is_half) {
        connection.mark_authenticated();
    }
    if let Needs::Role(role) = needs
        && caller.role < role
    {
        let detail = format!("this needs the role {role}; {} has the role {}", caller.account, caller.role);
        return Refused::forbidden(detail).into_response();
    }
    if !is_half {
        note_use(&web, &caller, peer);
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// Reports the use of a credential to the hub, once a minute at most.
pub(super) fn note_use(web: &Web, caller: &Caller, peer: Option<IpAddr>) {
    let (credential, at) = (caller.credential_hash(), super::now());
    if let Some(from) = peer
        && web.uses.borrow().is_due(&credential, at)
    {
        // A hub that is busy learns of it by the next request.
        let _ = web.asks.try_send(Ask::Used(credential, Use { at, from }));
    }
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
    Refused::unauthenticated(detail)
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
        (status = 200, description = "Signed in: the cookie and the key together are the session", body = SignedIn),
        (status = 401, description = "The code or token is not valid (any more)"),
        (status = 409, description = "The account has as many sessions as it may have"),
    )
)]
pub(super) async fn login(
    State(web): State<Web>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Body(login): Body<Login>,
) -> Result<Response, Refused> {
    let user_agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let browser = Browser { address: peer.ip(), user_agent };
    match web.ask(|reply| Ask::SignIn(login, browser, reply)).await {
        Ok(session) => {
            let Caller { account, role, .. } = session.caller;
            let mut response = Json(SignedIn { account, role, session_key: session.key }).into_response();
            let value = web.cookie.set(is_https(&web, &headers), &session.cookie, COOKIE_SECONDS);
            let value = HeaderValue::from_str(&value).map_err(Refused::unavailable)?;
            response.headers_mut().insert(header::SET_COOKIE, value);
            Ok(response)
        }
        Err(refused) => {
            if refused.kind == RefusedKind::Unauthenticated {
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
pub(super) async fn logout(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    if let Some(session) = caller.session() {
        web.ask(|reply| Ask::SignOut(session, reply)).await?;
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    let value = web.cookie.set(is_https(&web, &headers), "", 0);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> CookieNames {
        CookieNames { plain: "pistat_k".into(), secure: "__Host-pistat_k".into() }
    }

    #[test]
    fn the_cookie_is_secure_and_bound_to_its_host_over_https() {
        let common = "Path=/; HttpOnly; SameSite=Strict; Max-Age=9";
        assert_eq!(names().set(false, "v", 9), format!("pistat_k=v; {common}"));
        assert_eq!(names().set(true, "v", 9), format!("__Host-pistat_k=v; {common}; Secure"));
    }

    #[test]
    fn every_cookie_of_our_names_is_tried_that_of_https_first_and_no_other() {
        let mut headers = HeaderMap::new();
        for line in ["a=1; pistat_k=p1;  pistat_other=x; pistat_session=old", "pistat_k=p2; __Host-pistat_k=s; bad"] {
            headers.append(header::COOKIE, HeaderValue::from_static(line));
        }
        assert_eq!(names().values(&headers).collect::<Vec<_>>(), ["s", "p1", "p2"]);
    }

    #[test]
    fn a_token_is_read_with_its_scheme_in_any_case_beside_other_credentials() {
        for (lines, token) in [
            (&["Bearer abc"][..], Some("abc")),
            (&["bearer abc"], Some("abc")),
            (&["BEARER  abc "], Some("abc")),
            (&["Basic aG91c2U="], None),
            (&["Basic aG91c2U=", "bearer abc"], Some("abc")),
            (&["Bearerabc"], None),
            (&["Bearer"], Some("")),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::AUTHORIZATION, HeaderValue::from_static(line));
            }
            assert_eq!(bearer(&headers), token, "{lines:?}");
        }
    }
}
