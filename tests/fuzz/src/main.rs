//! `pistat-fuzz <target|all> <executions> [seed]`: feeds a target with mutations of its corpus, and says what became of them.

use std::{process::ExitCode, time::Instant};

use pistat_fuzz::{
    corpus,
    mutate::{Dice, mutate},
    targets,
};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (Some(name), Some(Ok(executions))) = (words.first(), words.get(1).map(|text| text.parse::<u64>())) else {
        eprintln!("usage: pistat-fuzz <target|all> <executions> [seed]");
        return ExitCode::from(64);
    };
    let seed = words.get(2).and_then(|text| text.parse().ok()).unwrap_or(1);
    let chosen: Vec<_> = targets::ALL.iter().filter(|target| name == "all" || name == target.name).collect();
    if chosen.is_empty() {
        eprintln!("there is no target {name}: it is one of {:?}, or all", targets::ALL.map(|target| target.name));
        return ExitCode::from(64);
    }
    for target in chosen {
        if let Err(error) = feed(target, executions, seed) {
            eprintln!("{}: {error}", target.name);
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn feed(target: &pistat_fuzz::Target, executions: u64, seed: u64) -> std::io::Result<()> {
    let corpus = corpus(target.name)?;
    let (mut dice, mut input, mut understood) = (Dice(seed), Vec::new(), 0_u64);
    let started = Instant::now();
    for _ in 0..executions {
        mutate(&mut dice, &corpus, &mut input);
        understood += u64::from((target.read)(&input));
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{:<10} {executions} executions, seed {seed}: no promise broken; {understood} inputs made sense; {seconds:.0} s",
        target.name
    );
    Ok(())
}
