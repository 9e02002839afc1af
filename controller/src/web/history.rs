//! History over HTTP: of one machine, of several, and as a file. All of it is read in the history's
//! own thread, one question at a time.

use std::{fmt::Write, io};

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

/// Steps of an answer about several, of all machines together: it stands in memory as a whole.
const FLEET_STEPS: usize = 1_000_000;

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
    if !columns.iter().all(Selector::is_one) {
        let name = &query.column;
        return Err(Refused::bad(format!("{name} has several series: say which, such as {name}[0] or {name}[/]")));
    }
    let mut asked = asked(query.from, query.to, query.points.unwrap_or(FLEET_POINTS), columns, now())?;
    let target = query.target.unwrap_or(Target::All);
    let pis = web.ask(|reply| Ask::Target(target, reply)).await?;
    asked.points = bounded(asked.points, pis.len());
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

/// As many steps as were asked for, but no more of all machines together than fit.
fn bounded(points: u32, machines: usize) -> u32 {
    let most = u32::try_from(FLEET_STEPS / machines.max(1)).unwrap_or(u32::MAX);
    points.min(most.max(2))
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
            Ok(Some((pi, part))) => Some((Ok(text(format, &pi, &part)), Some(parts))),
            Ok(None) => Some((Ok(end.to_owned()), None)),
            // The response breaks off: a file that ends early must not look whole.
            Err(refused) => Some((Err(io::Error::other(refused.detail)), None)),
        }
    });
    let body = futures_util::StreamExt::chain(stream::iter([Ok(head.to_owned())]), body);
    let body = futures_util::StreamExt::map(body, |text| text.map(Bytes::from));
    Ok(([(header::CONTENT_TYPE, kind)], Body::from_stream(body)).into_response())
}

/// A file in parts: machine by machine, a block of steps at a time.
struct Parts {
    web: Web,
    pis: Vec<PiId>,
    tier: Tier,
    asked: Asked,
    /// The next machine, and the time that comes next.
    next: (usize, i64),
}

impl Parts {
    async fn next(&mut self) -> Result<Option<(PiId, MachineHistory)>, Refused> {
        while let Some(pi) = self.pis.get(self.next.0).cloned() {
            let (of, asked, from, tier) = (pi.clone(), self.asked.clone(), self.next.1, self.tier);
            match self.web.history(move |store, _| part(store, &of, asked, from, tier)).await? {
                Some((to, part)) => {
                    self.next.1 = to;
                    return Ok(Some((pi, part)));
                }
                None => self.next = (self.next.0 + 1, self.asked.from),
            }
        }
        Ok(None)
    }
}

/// The next block of a machine of which anything is known, from a time on, and when it ends: of
/// long times nearly all may be unknown.
fn part(store: &mut Store, pi: &PiId, asked: Asked, from: i64, tier: Tier) -> Option<(i64, MachineHistory)> {
    let from = store.next_known(pi, tier, from)?.max(from);
    let to = tier.block_end_milliseconds(from).min(asked.to);
    (from < to).then(|| (to, store.steps(pi, &Asked { from, to, ..asked }, tier)))
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
    fn an_answer_about_many_machines_has_fewer_steps() {
        let table = [(2000, 0, 2000), (2000, 500, 2000), (600, 1000, 600), (2000, 10_000, 100), (2000, 1 << 40, 2)];
        for (points, machines, expected) in table {
            assert_eq!(bounded(points, machines), expected, "{machines}");
        }
    }

    #[test]
    fn a_file_about_ten_thousand_years_is_made_of_what_is_known() {
        let (folder, now, pi) = (tempfile::tempdir().unwrap(), Now::get(), "pi-1".parse().unwrap());
        let settings = crate::config::History::default().settings();
        let (mut store, _) = Store::open(&folder.path().join("history.db"), settings, now).unwrap();
        let mut sample = pistat_protocol::stats::Sample::new(now.wall, true, 0);
        sample.cpu_percent = Some(50.0);
        store.live(&pi, &sample, now);
        let year = 31_556_952_000;
        let asked = Asked { from: -1970 * year, to: 8029 * year, points: MAX_POINTS, columns: Vec::new() };
        for tier in Tier::ALL {
            let (to, part) = super::part(&mut store, &pi, asked.clone(), asked.from, tier).unwrap();
            assert!(
                part.columns["cpu_percent"].mean.contains(&Some(50.0)) && part.columns["cpu_percent"].mean.len() <= 360
            );
            assert_eq!(super::part(&mut store, &pi, asked.clone(), to, tier), None);
        }
    }

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
