//! Cost per sample, and per sample and browser, as a fleet grows: measured, and drawn as an SVG.

use std::{
    fmt::Write,
    path::Path,
    time::{Duration, Instant},
};

use pistat_sim::{Counts, Fleet};
use pistat_testkit::Stack;
use tokio::task::JoinSet;

use super::load::{Cost, list, seconds};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 30.0;
const BOTTOM: f64 = 50.0;

/// How many browsers look besides the first.
const MORE_BROWSERS: usize = 10;

/// What one more machine costs shows in these.
struct Point {
    machines: f64,
    /// Microseconds of the controller for one sample that one browser sees.
    sample: f64,
    /// How many more for each browser more.
    browser: f64,
}

pub async fn measure() {
    let mut points = Vec::new();
    println!("machines  samples/s  µs a sample  µs a sample and browser  resident MB");
    for machines in list("PISTAT_BENCH_MACHINES", &[10, 30, 100, 300, 1000, 3000, 10_000]) {
        // Small fleets sample faster, so that there is something to measure.
        let interval = Duration::from_secs_f64((machines as f64 / 1000.0).clamp(0.2, 5.0));
        let (mut stack, fleet) = super::fleet(machines, interval, Instant::now()).await;
        let mut browsers = JoinSet::new();
        look(&stack, &mut browsers, 1).await;
        let (sample, ..) = cost_of_a_sample(&mut stack, &fleet).await;
        look(&stack, &mut browsers, MORE_BROWSERS).await;
        let (with_more, rate, resident) = cost_of_a_sample(&mut stack, &fleet).await;
        let browser = (with_more - sample).max(0.0) / MORE_BROWSERS as f64;
        println!("{machines:>8}  {rate:>9.0}  {sample:>11.0}  {browser:>23.1}  {resident:>11.1}");
        points.push(Point { machines: machines as f64, sample, browser });
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/images/cost-per-sample.svg");
    std::fs::write(&file, svg(&points)).expect("the folder of the documentation's pictures is there");
    println!("drawn into docs/images/cost-per-sample.svg");
}

async fn look(stack: &Stack, browsers: &mut JoinSet<()>, count: usize) {
    for _ in 0..count {
        let mut feed = stack.feed().await;
        browsers.spawn(async move { while feed.text().await.is_some() {} });
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
}

/// Microseconds of the controller's processor time for a sample; samples a second; and its memory
/// in MB.
async fn cost_of_a_sample(stack: &mut Stack, fleet: &Fleet) -> (f64, f64, f64) {
    let time = Duration::from_secs(seconds(10));
    let (cost, samples) = (Cost::of(stack.process().id()), Counts::get(&fleet.counts().samples));
    tokio::time::sleep(time).await;
    let samples = (Counts::get(&fleet.counts().samples) - samples) as f64;
    let cost = cost.since();
    (cost.cpu_seconds * 1e6 / samples, samples / time.as_secs_f64(), cost.resident_mb)
}

fn svg(points: &[Point]) -> String {
    let most = points.iter().map(|point| point.sample).fold(1.0, f64::max) * 1.15;
    let x = |machines: f64| LEFT + (machines.log10() - 1.0) / 3.0 * (WIDTH - LEFT - RIGHT);
    let y = |micros: f64| HEIGHT - BOTTOM - micros / most * (HEIGHT - BOTTOM - 50.0);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"monospace\" font-size=\"13\" fill=\"#245c2e\">\n\
         <title>The controller's processor time for a sample, as a fleet grows</title>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#f4f7f0\"/>\n\
         <text x=\"{LEFT}\" y=\"20\">controller's processor time in µs: for each sample with one browser (green),</text>\n\
         <text x=\"{LEFT}\" y=\"36\">and for each browser more (brown)</text>\n"
    );
    for decade in [10.0, 100.0, 1000.0, 10_000.0] {
        label(&mut text, x(decade), HEIGHT - BOTTOM + 20.0, "middle", &format!("{decade}"));
    }
    label(&mut text, WIDTH / 2.0, HEIGHT - 10.0, "middle", "machines");
    for step in 0..=4 {
        let micros = most * f64::from(step) / 4.0;
        let at = y(micros);
        let _ = writeln!(text, "<path d=\"M{LEFT} {at:.0}H{:.0}\" stroke=\"#c9d6c0\"/>", WIDTH - RIGHT);
        label(&mut text, LEFT - 8.0, at + 4.0, "end", &format!("{micros:.0}"));
    }
    let of = |value: &dyn Fn(&Point) -> f64| -> Vec<(f64, f64)> {
        points.iter().map(|point| (x(point.machines), y(value(point)))).collect()
    };
    line(&mut text, &of(&|point| point.sample), "#1d7a34");
    line(&mut text, &of(&|point| point.browser), "#8a5a1f");
    text + "</svg>\n"
}

fn label(text: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let _ = writeln!(text, "<text x=\"{x:.0}\" y=\"{y:.0}\" text-anchor=\"{anchor}\">{words}</text>");
}

fn line(text: &mut String, points: &[(f64, f64)], colour: &str) {
    let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.0},{y:.0}")).collect();
    let path = path.join(" ");
    let _ = writeln!(text, "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>");
    for (x, y) in points {
        let _ = writeln!(text, "<circle cx=\"{x:.0}\" cy=\"{y:.0}\" r=\"3.5\" fill=\"{colour}\"/>");
    }
}
