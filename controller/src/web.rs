//! The HTTP server: dashboard, API, feed, and MQTT over WebSocket, on one port.
//!
//! Every route stands in one of four tables below, by the least role that may use it; what is in none does not exist. Who asks is found out in one place
//! ([`login::authenticate`]), and whether they may in one place ([`login::require`]).

mod accounts;
mod api;
mod assets;
mod console;
mod feed;
mod install;
mod login;
mod metrics;
mod mqtt;
mod output;
mod problem;
mod server;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::Response,
    routing::{delete, get, post},
};
use pistat_broker::BrokerHandle;
use pistat_protocol::account::Role;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    access::Access,
    config::Config,
    hub::ask::{Ask, Refused, Reply},
    install::Downloads,
    store::Reader,
};
pub(crate) use server::{Listener, serve};

/// The largest body that is read; the largest real one, an account with many rules, has a few kilobytes.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// How many readers of the register are open at a time: reading is quick, and a Pi has few cores.
const READERS: usize = 4;

/// What every route has.
#[derive(Clone)]
pub(crate) struct Web {
    pub(crate) asks: mpsc::Sender<Ask>,
    pub(crate) access: watch::Receiver<Arc<Access>>,
    pub(crate) readers: Arc<Readers>,
    pub(crate) broker: Option<BrokerHandle>,
    pub(crate) config: Arc<Config>,
    pub(crate) downloads: Arc<Downloads>,
    pub(crate) mqtt: Option<SocketAddr>,
    pub(crate) stop: CancellationToken,
}

impl Web {
    /// Asks the hub.
    pub(crate) async fn ask<T>(&self, ask: impl FnOnce(Reply<T>) -> Ask) -> Result<T, Refused> {
        let (reply, answer) = oneshot::channel();
        let gone = || Refused::unavailable("the controller is stopping");
        self.asks.send(ask(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Reads from the register, on a thread that may wait for the disk.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Refused> {
        let readers = Arc::clone(&self.readers);
        let failed =
            |error: &dyn std::fmt::Display| Refused::unavailable(format!("the register cannot be read: {error}"));
        let _permit = self.readers.permits.acquire().await.map_err(|error| failed(&error))?;
        let result = tokio::task::spawn_blocking(move || readers.with(read)).await;
        result.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
    }
}

/// Readers of the register that nobody uses now.
pub(crate) struct Readers {
    idle: Mutex<Vec<Reader>>,
    permits: Semaphore,
}

impl Readers {
    /// As many readers as may read at a time.
    pub(crate) fn open(
        open: impl Fn() -> Result<Reader, crate::store::StoreError>,
    ) -> Result<Self, crate::store::StoreError> {
        let idle = (0..READERS).map(|_| open()).collect::<Result<_, _>>()?;
        Ok(Self { idle: Mutex::new(idle), permits: Semaphore::new(READERS) })
    }

    fn with<T>(&self, read: impl FnOnce(&Reader) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let take = || self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let reader = take().pop().expect("there are as many readers as permits");
        let result = read(&reader);
        take().push(reader);
        result
    }
}

/// What anybody may ask for.
fn open_routes() -> Router<Web> {
    Router::new()
        .route("/healthz", get(api::healthz))
        .route("/api/login", post(login::login))
        .route("/mqtt", get(mqtt::connect))
        .route("/install.sh", get(install::script))
        .route("/download/{target}", get(install::download))
        .fallback(assets::asset)
}

/// What any account may see.
fn viewer_routes() -> Router<Web> {
    Router::new()
        .route("/metrics", get(metrics::metrics))
        .route("/api/openapi.json", get(api::openapi))
        .route("/api/me", get(login::me))
        .route("/api/logout", post(login::logout))
        .route("/api/ws", get(feed::connect))
        .route("/api/pis", get(api::machines))
        .route("/api/pis/{pi}", get(api::machine))
        .route("/api/pis/{pi}/history", get(api::history))
        .route("/api/tasks", get(api::tasks))
        .route("/api/runs", get(api::runs))
        .route("/api/runs/{run}", get(api::run))
        .route("/api/runs/{run}/output", get(output::output))
        .route("/api/groups/{group}", get(api::group))
        .route("/api/events", get(api::events))
}

/// What operators may do.
fn operator_routes() -> Router<Web> {
    Router::new()
        .route("/api/pis/{pi}", axum::routing::patch(api::patch))
        .route("/api/runs", post(api::start))
        .route("/api/runs/{run}/cancel", post(api::cancel))
}

/// What administrators may do.
fn admin_routes() -> Router<Web> {
    Router::new()
        .route("/api/pis/{pi}", delete(api::forget))
        .route("/api/login-links", post(login::link))
        .route("/api/accounts", get(accounts::list).post(accounts::add))
        .route("/api/accounts/{name}", delete(accounts::remove))
        .route("/api/accounts/{name}/rotate", post(accounts::rotate))
        .route("/api/join-token", get(accounts::join_token))
        .route("/api/join-token/rotate", post(accounts::rotate_join_token))
        .route("/api/installation", get(install::installation))
        .route("/api/enrolments", get(accounts::enrolments).post(accounts::add_agent))
        .route("/api/enrolments/{pi}", delete(api::forget))
        .route("/api/enrolments/{pi}/reset", post(accounts::reset_agent))
}

/// All routes.
pub(crate) fn router(web: Web) -> Router {
    let guarded = |routes: Router<Web>, role: Role| {
        let state = web.clone();
        routes.route_layer(middleware::from_fn(move |request: Request, next: Next| {
            login::require(state.clone(), role, request, next)
        }))
    };
    open_routes()
        .merge(guarded(viewer_routes(), Role::Viewer))
        .merge(guarded(operator_routes(), Role::Operator))
        .merge(guarded(admin_routes(), Role::Admin))
        .method_not_allowed_fallback(|| async {
            Refused { status: 405, detail: "this address does not take that method".into() }
        })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
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
        return axum::response::IntoResponse::into_response(Refused {
            status: 415,
            detail: "send JSON with content-type: application/json".into(),
        });
    }
    response
}
