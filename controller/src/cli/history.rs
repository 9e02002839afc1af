//! `pistat history`: what a machine measured, as a table or as CSV.

use std::fmt::Write;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use pistat_protocol::{
    dashboard::Machine,
    history::{Column, MachineHistory},
    time::Timestamp,
};

use super::{args, client::Client, console::Console, failure::Failure, machines::now};
use crate::terminal::View;

pub(super) fn print(client: &Client, console: &mut Console<'_>, asked: &args::History) -> Result<(), Failure> {
    let machines: Vec<Machine> = client.get("/api/pis")?;
    let view = View { machines: &machines, tasks: &[], runs: &[] };
    let pi = view.machine(&asked.pi).map_err(Failure::Refused)?.id.clone();
    let to = asked.to.unwrap_or_else(now);
    let from = asked.from.unwrap_or_else(|| Timestamp::from_unix_milliseconds(to.unix_milliseconds() - 3_600_000));
    let mut query = format!("from={from}&to={to}&points={}", asked.points);
    if !asked.columns.is_empty() {
        let names = asked.columns.join(",");
        let _ = write!(query, "&columns={}", utf8_percent_encode(&names, NON_ALPHANUMERIC));
    }
    let history: MachineHistory = client.get(&format!("/api/pis/{pi}/history?{query}"))?;
    if asked.csv { console.print(&csv(&history)) } else { console.show(&history, |history, _| table(history)) }
}

/// The time of each step, and the columns' values there.
fn rows(history: &MachineHistory) -> impl Iterator<Item = (Timestamp, Vec<Option<f32>>)> {
    let steps = history.columns.values().map(|column| column.mean.len()).max().unwrap_or(0);
    let start = history.start.unix_milliseconds();
    let values = |step: usize, pick: fn(&Column) -> &Vec<Option<f32>>| -> Vec<Option<f32>> {
        history.columns.values().map(|column| pick(column).get(step).copied().flatten()).collect()
    };
    (0..steps).zip(0_i64..).filter_map(move |(step, number)| {
        let row = values(step, |column| &column.mean);
        let time = Timestamp::from_unix_milliseconds(start + number * i64::from(history.step_seconds) * 1000);
        row.iter().any(Option::is_some).then_some((time, row))
    })
}

fn shown(value: Option<f32>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// Names may come from a machine, such as those of its disks, and go to a terminal.
fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A line for each step of which anything is known: its mean of each series.
fn csv(history: &MachineHistory) -> String {
    let quoted = |name: &String| format!("\"{}\"", printable(name).replace('"', "\"\""));
    let names: Vec<_> = history.columns.keys().map(quoted).collect();
    let mut text = format!("time,{}\n", names.join(","));
    for (time, row) in rows(history) {
        let row: Vec<_> = row.into_iter().map(shown).collect();
        let _ = writeln!(text, "{time},{}", row.join(","));
    }
    text
}

/// For people: each series with its mean, its extremes and its newest value.
fn table(history: &MachineHistory) -> String {
    if history.columns.is_empty() {
        return "Nothing is known of this time\n".to_owned();
    }
    let name_of = |(name, column): (&String, &Column)| format!("{name} {}", column.unit).trim().to_owned();
    let names: Vec<String> = history.columns.iter().map(name_of).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let mut text = format!("{:width$}  {:>14} {:>14} {:>14} {:>14}\n", "series", "mean", "min", "max", "newest");
    for (name, column) in names.iter().zip(history.columns.values()) {
        let means = || column.mean.iter().flatten();
        #[expect(clippy::cast_precision_loss, reason = "at most 2000 steps")]
        let mean = means().sum::<f32>() / means().count().max(1) as f32;
        let least = column.min.iter().flatten().copied().reduce(f32::min);
        let largest = column.max.iter().flatten().copied().reduce(f32::max);
        let (least, largest, newest) = (shown(least), shown(largest), shown(means().next_back().copied()));
        let name = printable(name);
        let _ = writeln!(text, "{name:width$}  {mean:>14.2} {least:>14} {largest:>14} {newest:>14}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn history() -> MachineHistory {
        let column = |mean: Vec<Option<f32>>| Column { unit: "%".into(), min: mean.clone(), max: mean.clone(), mean };
        MachineHistory {
            start: Timestamp::from_unix_milliseconds(0),
            step_seconds: 60,
            columns: BTreeMap::from([
                ("cpu_percent".to_owned(), column(vec![Some(1.5), None, Some(3.5)])),
                ("disk_used_percent[/a\"\u{1b}]".to_owned(), column(vec![None, None, Some(7.0)])),
            ]),
            known: Vec::new(),
        }
    }

    #[test]
    fn csv_has_the_steps_of_which_anything_is_known() {
        let expected = "time,\"cpu_percent\",\"disk_used_percent[/a\"\"?]\"\n\
                        1970-01-01T00:00:00.000Z,1.5,\n1970-01-01T00:02:00.000Z,3.5,7\n";
        assert_eq!(csv(&history()), expected);
    }

    #[test]
    fn the_table_has_mean_extremes_and_the_newest_value_and_no_control_characters() {
        let text = table(&history());
        let words: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(words, ["cpu_percent", "%", "2.50", "1.5", "3.5", "3.5"]);
        assert!(!text.contains('\u{1b}'));
    }
}
