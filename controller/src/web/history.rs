//! History over HTTP: of one machine, of several, and as a file. All of it is read in the history's
//! own thread, one question at a time.

use std::{convert::Infallible, fmt::Write};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use pistat_history::{Query as Asked, Selector, Store, query::MAX_POINTS, tier::Tier};
use pistat_protocol::{
    history::{FleetHistory, MachineAnswer, MachineHistory},
    id::{PiId, Target},
    time::Timestamp,
};
use serde::Deserialize;
use tokio::sync::oneshot;
use utoipa::IntoParams;

use super::{
    Web,
    problem::{Path, Query},
};
use crate::{
    fleet::Now,
    hub::ask::{Ask, Refused},
};

/// The longest that the old form of the question goes back.
const MAX_SECONDS: u32 = 86_400;

/// Steps of an answer about one machine, and about several, if nothing is asked for.
const POINTS: u32 = 600;
const FLEET_POINTS: u32 = 100;

/// Machines that are asked about in one turn of the history's thread, so that samples get theirs.
const MACHINES_AT_ONCE: usize = 50;

/// What is asked for if no time is given: the last hour.
const HOUR_MILLISECONDS: i64 = 3_600_000;

impl Web {
    /// Does something with the history, in its thread.
    async fn history<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Store, Now) -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let (reply, answer) = oneshot::channel();
        let job = move |store: &mut Store, now: Now| drop(reply.send(read(store, now)));
        self.history.ask(job).map_err(Refused::unavailable)?;
        answer.await.map_err(|_| Refused::unavailable("the controller is stopping"))
    }

    /// Numbers about the history itself, and how many samples were dropped.
    pub(super) async fn history_numbers(&self) -> Result<(pistat_history::Numbers, u64), Refused> {
        let numbers = self.history(|store, _| store.numbers()).await?;
        Ok((numbers, self.history.dropped()))
    }
}

/// Whether the query of this request is understood: the reader's door for fuzzing.
pub(super) fn reads_query(uri: &axum::http::Uri) -> bool {
    Query::<OfMachine>::read(uri).is_ok_and(|Query(query)| query.asked(Timestamp::from_unix_milliseconds(0)).is_ok())
}

/// The query of `GET /api/pis/{pi}/history`. Without any of its first four it is asked in the old
/// form.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct OfMachine {
    /// From when on; an hour before `to` without it.
    from: Option<Timestamp>,
    /// Until when; now without it.
    to: Option<Timestamp>,
    /// At most so many steps.
    #[param(minimum = 2, maximum = 2000, default = 600)]
    points: Option<u32>,
    /// Names of series with commas between them, such as `cpu_percent,disk_used_percent[/]`; a name
    /// without an instance is all of them. All series without it.
    columns: Option<String>,
    /// The old form: the last so many seconds, at most a day, and seven series.
    #[param(minimum = 1, maximum = 86400)]
    seconds: Option<u32>,
}

impl OfMachine {
    fn is_old_form(&self) -> bool {
        self.from.is_none() && self.to.is_none() && self.points.is_none() && self.columns.is_none()
    }

    fn asked(&self, now: Timestamp) -> Result<Asked, Refused> {
        if self.seconds.is_some() {
            return Err(Refused::bad("seconds is the old form of this question: ask by from and to, or by seconds"));
        }
        let columns = self.columns.as_deref().map_or(Ok(Vec::new()), selectors)?;
        asked(self.from, self.to, self.points.unwrap_or(POINTS), columns, now)
    }
}

fn asked(
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    points: u32,
    columns: Vec<Selector>,
    now: Timestamp,
) -> Result<Asked, Refused> {
    let to = to.unwrap_or(now).unix_milliseconds();
    let from = from.map_or(to.saturating_sub(HOUR_MILLISECONDS), Timestamp::unix_milliseconds);
    if from >= to {
        return Err(Refused::bad("from is to be before to"));
    }
    if !(2..=MAX_POINTS).contains(&points) {
        return Err(Refused::bad(format!("points is between 2 and {MAX_POINTS}")));
    }
    Ok(Asked { from, to, points, columns })
}

fn selectors(text: &str) -> Result<Vec<Selector>, Refused> {
    let selector = |name: &str| {
        Selector::parse(name).ok_or_else(|| {
            let names: Vec<_> = pistat_history::series::METRICS.iter().map(|metric| metric.name).collect();
            Refused::bad(format!("there is no series {name:?}; there are {}", names.join(", ")))
        })
    };
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(selector).collect()
}

fn now() -> Timestamp {
    Now::get().wall
}

/// `GET /api/pis/{pi}/history`.
#[utoipa::path(
    get, path = "/api/pis/{pi}/history", operation_id = "history", tag = "history",
    params(("pi" = PiId, Path, description = "Its pi-id"), OfMachine),
    responses(
        (status = 200, description = "What it measured, in columns", body = MachineAnswer),
        (status = 404, description = "There is no such machine"),
    )
)]
pub(super) async fn of_machine(
    State(web): State<Web>,
    Path(pi): Path<PiId>,
    Query(query): Query<OfMachine>,
) -> Result<Json<MachineAnswer>, Refused> {
    if query.is_old_form() {
        let seconds = query.seconds.unwrap_or(3600);
        if !(1..=MAX_SECONDS).contains(&seconds) {
            return Err(Refused::bad(format!("seconds is between 1 and {MAX_SECONDS}")));
        }
        web.ask(|reply| Ask::Target(Target::Pi(pi.clone()), reply)).await?;
        let answer = web.history(move |store, now| store.last_seconds(&pi, seconds, now)).await?;
        return Ok(Json(MachineAnswer::Seconds(answer)));
    }
    let asked = query.asked(now())?;
    web.ask(|reply| Ask::Target(Target::Pi(pi.clone()), reply)).await?;
    web.history(move |store, now| store.answer(&pi, &asked, now)).await.map(MachineAnswer::Steps).map(Json)
}

/// The query of `GET /api/history`.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct OfFleet {
    /// One series, such as `cpu_percent` or `disk_used_percent[/]`.
    column: String,
    /// A machine, `@tag` or `@all`.
    #[param(value_type = String, default = "@all")]
    target: Option<Target>,
    /// From when on; an hour before `to` without it.
    from: Option<Timestamp>,
    /// Until when; now without it.
    to: Option<Timestamp>,
    /// At most so many steps.
    #[param(minimum = 2, maximum = 2000, default = 100)]
    points: Option<u32>,
}

/// `GET /api/history`.
#[utoipa::path(
    get, path = "/api/history", operation_id = "fleetHistory", tag = "history",
    params(OfFleet),
    responses(
        (status = 200, description = "What these machines measured of one series", body = FleetHistory),
        (status = 404, description = "There is no such machine"),
    )
)]
pub(super) async fn of_fleet(
    State(web): State<Web>,
    Query(query): Query<OfFleet>,
) -> Result<Json<FleetHistory>, Refused> {
    let columns = selectors(&query.column)?;
    if columns.len() != 1 {
        return Err(Refused::bad("column is the name of one series"));
    }
    let asked = asked(query.from, query.to, query.points.unwrap_or(FLEET_POINTS), columns, now())?;
    let target = query.target.unwrap_or(Target::All);
    let pis = web.ask(|reply| Ask::Target(target, reply)).await?;
    let mut all: Option<FleetHistory> = None;
    for some in pis.chunks(MACHINES_AT_ONCE).chain(pis.is_empty().then_some(&[][..])) {
        let (some, asked) = (some.to_vec(), asked.clone());
        let part = web.history(move |store, now| store.compare(some.iter(), &asked, now)).await?;
        match &mut all {
            Some(all) => all.machines.extend(part.machines),
            None => all = Some(part),
        }
    }
    all.map(Json).ok_or_else(|| Refused::unavailable("the controller is stopping"))
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// A line for each machine, time and series.
    Csv,
    /// `OpenMetrics` text with times.
    OpenMetrics,
}

/// How fine a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Resolution {
    /// Ten seconds.
    Fine,
    /// A minute.
    Minute,
    /// A quarter of an hour.
    Quarter,
}

/// The query of `GET /api/history/export`.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Export {
    /// The form of the file.
    #[param(inline)]
    format: Option<Format>,
    /// How fine; a minute without it.
    #[param(inline)]
    resolution: Option<Resolution>,
    /// A machine, `@tag` or `@all`.
    #[param(value_type = String, default = "@all")]
    target: Option<Target>,
    /// From when on; an hour before `to` without it.
    from: Option<Timestamp>,
    /// Until when; now without it.
    to: Option<Timestamp>,
    /// Names of series with commas between them; all without it.
    columns: Option<String>,
}

/// `GET /api/history/export`.
#[utoipa::path(
    get, path = "/api/history/export", operation_id = "exportHistory", tag = "history",
    params(Export),
    responses(
        (status = 200, description = "What these machines measured, as text", content(
            (String = "text/csv; charset=utf-8"),
            (String = "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        )),
        (status = 404, description = "There is no such machine"),
    )
)]
pub(super) async fn export(State(web): State<Web>, Query(query): Query<Export>) -> Result<Response, Refused> {
    let columns = query.columns.as_deref().map_or(Ok(Vec::new()), selectors)?;
    let asked = asked(query.from, query.to, MAX_POINTS, columns, now())?;
    let tier = match query.resolution.unwrap_or(Resolution::Minute) {
        Resolution::Fine => Tier::Fine,
        Resolution::Minute => Tier::Minute,
        Resolution::Quarter => Tier::Quarter,
    };
    let target = query.target.unwrap_or(Target::All);
    let pis = web.ask(|reply| Ask::Target(target, reply)).await?;
    let format = query.format.unwrap_or(Format::Csv);
    let (kind, head, end) = match format {
        Format::Csv => ("text/csv; charset=utf-8", "time,pi,series,unit,mean,min,max\n", ""),
        Format::OpenMetrics => ("application/openmetrics-text; version=1.0.0; charset=utf-8", "", "# EOF\n"),
    };
    let parts = Parts { web, pis, tier, next: (0, asked.from), asked };
    let body = stream::unfold(Some(parts), move |parts| async move {
        let mut parts = parts?;
        match parts.next().await {
            Some((pi, part)) => Some((text(format, &pi, &part), Some(parts))),
            None => Some((end.to_owned(), None)),
        }
    });
    let body =
        futures_util::StreamExt::map(futures_util::StreamExt::chain(stream::iter([head.to_owned()]), body), |text| {
            Ok::<_, Infallible>(Bytes::from(text))
        });
    Ok(([(header::CONTENT_TYPE, kind)], Body::from_stream(body)).into_response())
}

/// A file in parts: machine by machine, each of as many steps as one answer has.
struct Parts {
    web: Web,
    pis: Vec<PiId>,
    tier: Tier,
    asked: Asked,
    /// The next machine, and the time that comes next.
    next: (usize, i64),
}

impl Parts {
    async fn next(&mut self) -> Option<(PiId, MachineHistory)> {
        let pi = self.pis.get(self.next.0)?.clone();
        let (from, tier) = (self.next.1, self.tier);
        let to = (from + i64::from(MAX_POINTS - 1) * tier.step_milliseconds()).min(self.asked.to);
        self.next = if to < self.asked.to { (self.next.0, to) } else { (self.next.0 + 1, self.asked.from) };
        let asked = Asked { from, to, ..self.asked.clone() };
        let of = pi.clone();
        // A file that ends early has no end mark; its reader sees that.
        let part = self.web.history(move |store, _| store.steps(&of, &asked, tier)).await.ok()?;
        Some((pi, part))
    }
}

fn text(format: Format, pi: &PiId, part: &MachineHistory) -> String {
    let mut text = String::new();
    let start = part.start.unix_milliseconds();
    for (name, column) in &part.columns {
        let steps = column.mean.iter().zip(&column.min).zip(&column.max).zip(0_i64..);
        for (((mean, min), max), step) in steps {
            let (Some(mean), Some(min), Some(max)) = (mean, min, max) else { continue };
            let at = start + step * i64::from(part.step_seconds) * 1000;
            let _ = match format {
                Format::Csv => {
                    let time = Timestamp::from_unix_milliseconds(at);
                    writeln!(text, "{time},{pi},{},{},{mean},{min},{max}", csv(name), csv(&column.unit))
                }
                Format::OpenMetrics => open_metrics(&mut text, pi, name, *mean, at),
            };
        }
    }
    text
}

fn open_metrics(text: &mut String, pi: &PiId, name: &str, mean: f32, at: i64) -> std::fmt::Result {
    let (metric, instance) = name.strip_suffix(']').and_then(|name| name.split_once('[')).unwrap_or((name, ""));
    let instance = instance.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let label = if instance.is_empty() { String::new() } else { format!(",instance=\"{instance}\"") };
    writeln!(text, "pistat_history_{metric}{{pi=\"{pi}\"{label}}} {mean} {}.{:03}", at / 1000, at % 1000)
}

/// A field of a CSV file: quoted where it has to be.
fn csv(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pistat_protocol::history::Column;

    use super::*;

    #[test]
    fn a_file_has_a_line_for_each_known_step_and_names_from_outside_stay_names() {
        let column = Column {
            unit: "%".into(),
            mean: vec![Some(1.5), None],
            min: vec![Some(1.0), None],
            max: vec![Some(2.0), None],
        };
        let part = MachineHistory {
            start: Timestamp::from_unix_milliseconds(60_000),
            step_seconds: 60,
            columns: BTreeMap::from([("disk_used_percent[/a\",b]".to_owned(), column)]),
            known: Vec::new(),
        };
        let pi = "pi-1".parse().unwrap();
        assert_eq!(
            text(Format::Csv, &pi, &part),
            "1970-01-01T00:01:00.000Z,pi-1,\"disk_used_percent[/a\"\",b]\",%,1.5,1,2\n"
        );
        assert_eq!(
            text(Format::OpenMetrics, &pi, &part),
            "pistat_history_disk_used_percent{pi=\"pi-1\",instance=\"/a\\\",b\"} 1.5 60.000\n"
        );
    }
}
