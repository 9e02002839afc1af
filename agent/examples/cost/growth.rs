//! Whether the program that ships grows, over as many samples as it takes in days.
//!
//! No agent samples more often than five times a second, so a hundred thousand samples would take
//! six hours. Its interval is therefore shortened where no flag reaches: in its memory, by the
//! nanoseconds of a number that nothing else has. What runs is the binary itself, connected, with
//! all it does.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    time::Duration,
};

use pistat_protocol::{stats::Sample, topic::Topic};
use pistat_testkit::Controller;

use super::{Owned, Result, Usage, WARM_UP, megabytes, start_agent};

/// What the agent is started with, and the nanoseconds of it.
const MARKED: (&str, u32) = ("0.234567891", 234_567_891);

/// As often as the kernel tells processes of its clock (`USER_HZ`): each sample has a load to tell.
const SHORTENED: Duration = Duration::from_millis(10);

/// How much the agent may grow after the first tenth: four pages.
const LIMIT_KB: i64 = 16;

/// Takes so many samples and tells ten times what the agent keeps.
pub(crate) async fn growth(binary: &str, folder: &Path, controller: &mut Controller, samples: u64) -> Result<()> {
    let agent = start_agent(binary, folder, controller, MARKED.0)?;
    tokio::time::sleep(WARM_UP).await;
    let (mut first, mut before, mut told) = (None, None, 0);
    println!("{:>9} {:>8} {:>8} {:>13}", "samples", "PSS kB", "growth", "written B");
    loop {
        let message = controller.next().await;
        if !matches!(message.topic, Topic::Stats(_)) {
            continue;
        }
        let sample: Sample = message.json();
        let Some(first) = first else {
            shorten(&agent)?;
            first = Some(sample.seq);
            continue;
        };
        // By the agent's own count: none is overlooked.
        let taken = sample.seq - first;
        if taken < told + samples / 10 {
            continue;
        }
        told = taken;
        let usage = Usage::of(agent.0.id());
        let (pss, written) = *before.get_or_insert((usage.pss / 1024, usage.written));
        let growth = (usage.pss / 1024).cast_signed() - pss.cast_signed();
        println!("{taken:>9} {:>8} {growth:>+8} {:>13}", usage.pss / 1024, usage.written - written);
        if taken < samples {
            continue;
        }
        println!("RSS {:.2} MB", megabytes(usage.rss));
        return if growth > LIMIT_KB {
            Err(format!("it grows: {growth} kB, {LIMIT_KB} are allowed").into())
        } else {
            Ok(())
        };
    }
}

/// Writes the shorter interval over each marked one in the agent's memory.
fn shorten(agent: &Owned) -> Result<()> {
    let pid = agent.0.id();
    let memory = File::options().read(true).write(true).open(format!("/proc/{pid}/mem"))?;
    let marked = MARKED.1.to_ne_bytes();
    let mut found = 0;
    for line in fs::read_to_string(format!("/proc/{pid}/maps"))?.lines() {
        let mut words = line.split_whitespace();
        let (Some(range), Some("rw-p")) = (words.next(), words.next()) else { continue };
        let (start, end) = range.split_once('-').ok_or("a range of addresses has two ends")?;
        let (start, end) = (u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?);
        let mut bytes = vec![0; usize::try_from(end - start)?];
        memory.read_exact_at(&mut bytes, start)?;
        for (word, at) in bytes.chunks_exact(marked.len()).zip((start..).step_by(marked.len())) {
            if word == marked {
                memory.write_all_at(&SHORTENED.subsec_nanos().to_ne_bytes(), at)?;
                found += 1;
            }
        }
    }
    if found == 0 { Err("the agent's interval was not found in its memory".into()) } else { Ok(()) }
}
