//! A run's output, stored and live. A follower reads what is stored at its own pace: it never slows
//! the run, and never costs memory.

use std::fmt::Write;

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::State,
    http::{Uri, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use pistat_protocol::{dashboard::OutputPiece, id::RunId};
use serde::Deserialize;
use tokio::sync::watch;
use utoipa::IntoParams;

use super::{
    Web, api,
    problem::{Path, Query},
};
use crate::{
    access::Caller,
    hub::ask::{Ask, Progress, Refused},
    store::Cursor,
};

/// Somebody's place in the output of a run.
pub(super) struct Follower {
    web: Web,
    run: RunId,
    cursor: Cursor,
    progress: watch::Receiver<Progress>,
}

impl Follower {
    /// Begins at a chunk.
    pub(super) async fn new(web: &Web, run: RunId, from: u64) -> Result<Self, Refused> {
        // Subscribed first, so that nothing is missed between reading and waiting.
        let progress = web.ask(|reply| Ask::Follow(run, reply)).await?;
        let mut follower = Self { web: web.clone(), run, cursor: Cursor::default(), progress };
        while follower.cursor.seq < from {
            if follower.page().await?.is_empty() {
                break;
            }
        }
        Ok(follower)
    }

    /// The next stored pieces; empty when there are no more yet.
    async fn page(&mut self) -> Result<Vec<OutputPiece>, Refused> {
        let (run, cursor) = (self.run, self.cursor);
        let (pieces, cursor) = self.web.read(move |reader| reader.output(run, cursor)).await?;
        self.cursor = cursor;
        Ok(pieces)
    }

    /// The next pieces, waiting for them if need be; `None` when the run is final and everything
    /// was given.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<OutputPiece>>, Refused> {
        loop {
            // Looked at before reading: what is stored when a run is final is all that there will
            // be.
            let is_final = self.progress.borrow_and_update().is_final;
            let pieces = self.page().await?;
            if !pieces.is_empty() {
                return Ok(Some(pieces));
            }
            if is_final || self.progress.changed().await.is_err() {
                return if is_final { Ok(None) } else { self.last().await };
            }
        }
    }

    /// The hub let go of the run: what is stored now is the rest.
    async fn last(&mut self) -> Result<Option<Vec<OutputPiece>>, Refused> {
        let pieces = self.page().await?;
        Ok(if pieces.is_empty() { None } else { Some(pieces) })
    }
}

/// The query of `GET /api/runs/{run}/output`.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct OutputQuery {
    /// Wait for more until the run ends.
    #[serde(default)]
    follow: bool,
}

/// Whether the query of this file can be read.
pub(super) fn reads_query(uri: &Uri) -> bool {
    Query::<OutputQuery>::read(uri).is_ok()
}

/// `GET /api/runs/{run}/output?follow=`: text, with a mark where bytes are missing.
#[utoipa::path(
    get, path = "/api/runs/{run}/output", operation_id = "output", tag = "runs",
    params(("run" = RunId, Path, description = "Its id"), OutputQuery),
    responses(
        (status = 200, description = "What it printed, with a mark where bytes are missing", body = String, content_type = "text/plain; charset=utf-8"),
        (status = 404, description = "There is no such run"),
    )
)]
pub(super) async fn output(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<RunId>,
    Query(query): Query<OutputQuery>,
) -> Result<Response, Refused> {
    api::find_run(&web, id).await?;
    let follower = Follower::new(&web, id, 0).await?;
    let pages = stream::unfold(Some((follower, caller)), move |reader| next_page(reader, query.follow));
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from_stream(pages)).into_response())
}

/// Whose answer it is, and where in it.
type Reader = (Follower, Caller);

/// The next page for a reader who takes it, until the run ends or (without `follow`) there are no
/// more. It ends in the middle for a reader who is not who it was any more, and the connection with
/// it, so that nobody takes it for the whole output.
async fn next_page(reader: Option<Reader>, follow: bool) -> Option<(Result<Bytes, Refused>, Option<Reader>)> {
    let (mut follower, caller) = reader?;
    let web = follower.web.clone();
    let page = async { if follow { follower.next().await } else { follower.last().await } };
    let page = tokio::select! {
        biased;
        () = web.stop.cancelled() => return None,
        () = web.revoked(&caller) => Err(Refused::forbidden(format!("{} is not who it was", caller.account))),
        page = page => page,
    };
    match page {
        Ok(Some(pieces)) => Some((Ok(text(&pieces).into()), Some((follower, caller)))),
        Ok(None) => None,
        Err(refused) => Some((Err(refused), None)),
    }
}

fn text(pieces: &[OutputPiece]) -> String {
    let mut text = String::with_capacity(pieces.iter().map(|piece| piece.data.len()).sum());
    for piece in pieces {
        if piece.gap_bytes > 0 {
            let _ = write!(text, "\n[… {} bytes left out …]\n", piece.gap_bytes);
        }
        text.push_str(&piece.data);
    }
    text
}
