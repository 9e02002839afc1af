//! The HTTP server: dashboard, API, feed, and MQTT over WebSocket, on one port.
//!
//! Every route stands in one of five tables below, by what it needs; what is in none does not
//! exist, and what is in one is described
//! ([`openapi`]): its path and method stand on its handler. Who asks is found out in one place
//! ([`login::authenticate`]), whether they may in one place ([`login::require`]), and from which
//! page in one place ([`origin::check`]).

mod accounts;
mod admission;
mod api;
mod assets;
mod console;
mod feed;
mod history;
mod install;
mod login;
mod metrics;
mod mqtt;
mod openapi;
mod origin;
mod output;
mod problem;
mod readers;
mod server;
mod sessions;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Extension, Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use pistat_broker::BrokerHandle;
use pistat_history::History;
use pistat_protocol::{account::Role, time::Timestamp};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use utoipa_axum::{router::OpenApiRouter, routes};

use self::problem::Rejection;
use self::{openapi::Description, origin::Origins};
use crate::{
    access::{Access, Caller, Uses},
    config::Config,
    hub::ask::{Ask, Refused, Reply},
    install::Downloads,
    own_address::OwnAddress,
    store::Reader,
};
pub(crate) use login::CookieNames;
pub(crate) use mqtt::LAST_WORDS;
pub(crate) use readers::Readers;
pub(crate) use server::{Listener, serve};

/// Whether one of the routes that take a query understands this one: the readers' door for fuzzing.
#[doc(hidden)]
pub fn read_query(query: &str) -> bool {
    let Ok(uri) = format!("/?{query}").parse() else { return false };
    let known = [api::reads_query(&uri), history::reads_query(&uri), output::reads_query(&uri)];
    known.contains(&true)
}

/// Whether the body of `POST /api/accounts/{name}/rotate` is understood: the reader's door for
/// fuzzing.
#[doc(hidden)]
pub fn read_rotation(body: &[u8]) -> bool {
    accounts::reads_rotation(body)
}

/// The largest body that is read; the largest real one, an account with many rules, has a few
/// kilobytes.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// The largest body that is read without a credential: a token or a code, to sign in.
const OPEN_BODY_BYTES: usize = 4 * 1024;

/// What every route has.
#[derive(Clone)]
pub(crate) struct Web {
    pub(crate) asks: mpsc::Sender<Ask>,
    pub(crate) access: watch::Receiver<Arc<Access>>,
    pub(crate) uses: watch::Receiver<Arc<Uses>>,
    pub(crate) cookie: CookieNames,
    pub(crate) readers: Arc<Readers>,
    pub(crate) broker: Option<BrokerHandle>,
    pub(crate) config: Arc<Config>,
    pub(crate) downloads: Arc<Downloads>,
    pub(crate) mqtt: Option<SocketAddr>,
    pub(crate) own_address: Arc<OwnAddress>,
    pub(crate) history: History,
    pub(crate) stop: CancellationToken,
    /// MQTT over WebSocket: these outlive the web server, and end with the broker.
    pub(crate) sockets: TaskTracker,
}

impl Web {
    /// Asks the hub.
    pub(crate) async fn ask<T>(&self, ask: impl FnOnce(Reply<T>) -> Ask) -> Result<T, Refused> {
        let (reply, answer) = oneshot::channel();
        let gone = || Refused::unavailable("the controller is stopping");
        self.asks.send(ask(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Resolves when a caller is not who it was any more: removed, rotated, demoted, signed out.
    /// What it has opened ends then.
    pub(crate) async fn revoked(&self, caller: &Caller) {
        let revoked = self.access.clone().wait_for(|access| !access.still_holds(caller, now())).await.is_ok();
        if !revoked {
            // There is no hub any more, so the controller is stopping, which ends everything in its
            // own way.
            std::future::pending::<()>().await;
        }
    }

    /// Reads from the register, on a thread that may wait for the disk.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Refused> {
        self.readers.read(read).await
    }
}

/// The clock, for what ends by its own time.
fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}

/// What anybody may ask for.
fn open_routes() -> OpenApiRouter<Web> {
    OpenApiRouter::new()
        .routes(routes!(api::healthz))
        .routes(routes!(login::login))
        .routes(routes!(mqtt::connect))
        .routes(routes!(install::script))
        .routes(routes!(install::download))
        .layer(DefaultBodyLimit::max(OPEN_BODY_BYTES))
}

/// What a session's cookie is enough for: who is signed in, and a feed, whose first message then is
/// the session's key.
fn cookie_routes() -> OpenApiRouter<Web> {
    OpenApiRouter::new().routes(routes!(login::me)).routes(routes!(feed::connect))
}

/// What any account may see.
fn viewer_routes() -> OpenApiRouter<Web> {
    OpenApiRouter::new()
        .routes(routes!(metrics::metrics))
        .routes(routes!(api::openapi))
        .routes(routes!(login::logout))
        .routes(routes!(sessions::list, sessions::end_all))
        .routes(routes!(sessions::end))
        .routes(routes!(api::machines))
        .routes(routes!(api::machine))
        .routes(routes!(history::of_machine))
        .routes(routes!(history::of_fleet))
        .routes(routes!(history::export))
        .routes(routes!(api::tasks))
        .routes(routes!(api::runs))
        .routes(routes!(api::run))
        .routes(routes!(output::output))
        .routes(routes!(api::group))
        .routes(routes!(api::events))
}

/// What operators may do.
fn operator_routes() -> OpenApiRouter<Web> {
    OpenApiRouter::new().routes(routes!(api::patch)).routes(routes!(api::start)).routes(routes!(api::cancel))
}

/// What administrators may do.
fn admin_routes() -> OpenApiRouter<Web> {
    OpenApiRouter::new()
        .routes(routes!(api::forget))
        .routes(routes!(login::link))
        .routes(routes!(accounts::list, accounts::add))
        .routes(routes!(accounts::remove))
        .routes(routes!(accounts::rotate))
        .routes(routes!(accounts::join_token))
        .routes(routes!(accounts::rotate_join_token))
        .routes(routes!(accounts::join_tokens, accounts::add_join_token))
        .routes(routes!(accounts::remove_join_token))
        .routes(routes!(install::installation))
        .routes(routes!(accounts::enrolments, accounts::add_agent))
        .routes(routes!(accounts::remove_agent))
        .routes(routes!(accounts::reset_agent))
}

/// What a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Nothing.
    Nothing,
    /// A viewer's credential; a session's cookie is enough.
    Cookie,
    /// A credential of this role; of a session, both secrets.
    Role(Role),
}

/// The routes that need the same.
type Table = (Needs, Router<Web>);

/// The routes by what they need, and the description of them all.
fn tables() -> (Vec<Table>, Description) {
    let tables = [
        (Needs::Nothing, open_routes()),
        (Needs::Cookie, cookie_routes()),
        (Needs::Role(Role::Viewer), viewer_routes()),
        (Needs::Role(Role::Operator), operator_routes()),
        (Needs::Role(Role::Admin), admin_routes()),
    ];
    let (mut routers, mut described) = (Vec::new(), Vec::new());
    for (needs, table) in tables {
        let (router, api) = table.split_for_parts();
        routers.push((needs, router));
        described.push((needs, api));
    }
    (routers, openapi::description(described))
}

/// All routes.
pub(crate) fn router(web: Web) -> Router {
    let guarded = |routes: Router<Web>, needs: Needs| {
        let state = web.clone();
        routes.route_layer(middleware::from_fn(move |request: Request, next: Next| {
            login::require(state.clone(), needs, request, next)
        }))
    };
    let (tables, description) = tables();
    let origins = Origins::new(web.config.http.public_url.as_deref());
    let all = tables.into_iter().fold(Router::new().fallback(assets::asset), |all, (needs, routes)| match needs {
        Needs::Nothing => all.merge(routes),
        needs => all.merge(guarded(routes, needs)),
    });
    all.method_not_allowed_fallback(|| async {
        Rejection::new(StatusCode::METHOD_NOT_ALLOWED, "this address does not take that method")
    })
    .layer(Extension(description))
    .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
    .layer(middleware::from_fn(move |request: Request, next: Next| origin::check(origins.clone(), request, next)))
    .layer(middleware::map_response(with_headers))
    .with_state(web)
}

/// Headers of every answer: nothing is framed, guessed, referred or fetched from elsewhere.
async fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let fixed: [(HeaderName, &str); 6] = [
        (header::CONTENT_SECURITY_POLICY, assets::CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        let detail = "send JSON with content-type: application/json";
        return Rejection::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail).into_response();
    }
    response
}
