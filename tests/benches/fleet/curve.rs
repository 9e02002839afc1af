//! Cost per sample as a fleet grows, as an SVG.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use pistat_sim::Counts;

use super::load::{Cost, list, seconds};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 50.0;

pub async fn measure() {
    let mut points = Vec::new();
    for machines in list("PISTAT_BENCH_MACHINES", &[10, 30, 100, 300, 1000, 3000, 10_000]) {
        // Small fleets sample faster, so that there is something to measure.
        let interval = Duration::from_secs_f64((machines as f64 / 1000.0).clamp(0.2, 5.0));
        let (mut stack, fleet) = super::fleet(machines, interval, Instant::now()).await;
        let mut feed = stack.feed().await;
        let watching = tokio::spawn(async move { while feed.text().await.is_some() {} });
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (cost, samples) = (Cost::of(stack.process().id()), Counts::get(&fleet.counts().samples));
        tokio::time::sleep(Duration::from_secs(seconds(15))).await;
        let samples = Counts::get(&fleet.counts().samples) - samples;
        let cost = cost.since();
        let micros = cost.cpu_seconds * 1e6 / samples as f64;
        eprintln!("{machines:>6} machines: {samples} samples, {micros:.0} µs each, {:.1} MB", cost.resident_mb);
        points.push((machines as f64, micros));
        watching.abort();
    }
    println!("{}", svg(&points));
}

fn svg(points: &[(f64, f64)]) -> String {
    let most = points.iter().map(|(_, micros)| *micros).fold(1.0, f64::max) * 1.15;
    let x = |machines: f64| LEFT + (machines.log10() - 1.0) / 3.0 * (WIDTH - LEFT - 30.0);
    let y = |micros: f64| HEIGHT - BOTTOM - micros / most * (HEIGHT - BOTTOM - 30.0);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"monospace\" font-size=\"13\" fill=\"#245c2e\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#f4f7f0\"/>\n\
         <text x=\"{LEFT}\" y=\"20\">controller's processor time per sample, µs, one browser looking</text>\n"
    );
    for decade in [10.0, 100.0, 1000.0, 10_000.0] {
        let at = x(decade);
        let _ = writeln!(
            text,
            "<text x=\"{at:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{decade}</text>",
            HEIGHT - BOTTOM + 20.0
        );
    }
    let _ = writeln!(
        text,
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">machines</text>",
        WIDTH / 2.0,
        HEIGHT - 10.0
    );
    for step in 0..=4 {
        let micros = most * f64::from(step) / 4.0;
        let at = y(micros);
        let _ = writeln!(
            text,
            "<path d=\"M{LEFT} {at:.0}H{:.0}\" stroke=\"#c9d6c0\"/><text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{micros:.0}</text>",
            WIDTH - 30.0,
            LEFT - 8.0,
            at + 4.0
        );
    }
    let line: Vec<String> =
        points.iter().map(|(machines, micros)| format!("{:.0},{:.0}", x(*machines), y(*micros))).collect();
    let _ =
        writeln!(text, "<polyline points=\"{}\" fill=\"none\" stroke=\"#1d7a34\" stroke-width=\"2\"/>", line.join(" "));
    for point in line {
        let (x, y) = point.split_once(',').expect("a point has two numbers");
        let _ = writeln!(text, "<circle cx=\"{x}\" cy=\"{y}\" r=\"3.5\"/>");
    }
    text + "</svg>"
}
