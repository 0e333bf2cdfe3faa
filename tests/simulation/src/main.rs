//! `cargo run --release -p farebox-simulation -- --seeds 10000`

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    thread,
    time::Instant,
};

use farebox_simulation::{Options, Outcome, Traced, run};
use mimalloc::MiMalloc;

/// A run is small texts made and dropped: a fifth of its time goes to the system's allocator.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const USAGE: &str = "\
farebox-simulation [--seeds N] [--from SEED] [--requests N] [--jobs N]   many seeds over all cores
farebox-simulation --seed SEED [--requests N]                            one seed, with its trace";

/// What is asked for.
struct Arguments {
    seeds: u64,
    from: u64,
    seed: Option<u64>,
    jobs: usize,
    options: Options,
}

fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        let _ = writeln!(io::stderr(), "{USAGE}");
        return ExitCode::from(64);
    };
    let is_right = match arguments.seed {
        Some(seed) => one(seed, arguments.options),
        None => many(&arguments),
    };
    match is_right {
        Ok(true) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn arguments() -> Option<Arguments> {
    let mut arguments = Arguments {
        seeds: 100,
        from: 0,
        seed: None,
        jobs: thread::available_parallelism().map_or(1, usize::from),
        options: Options::default(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let number: u64 = words.next()?.parse().ok()?;
        let size = usize::try_from(number).ok()?;
        match word.as_str() {
            "--seeds" => arguments.seeds = number,
            "--from" => arguments.from = number,
            "--seed" => arguments.seed = Some(number),
            "--jobs" => arguments.jobs = size.max(1),
            "--requests" => arguments.options.requests = size,
            _ => return None,
        }
    }
    Some(arguments)
}

/// One seed, with the text of its trace.
fn one(seed: u64, options: Options) -> io::Result<bool> {
    let outcome = run(
        seed,
        Options {
            trace: Traced::Text,
            ..options
        },
    );
    let mut out = io::stdout().lock();
    for line in &outcome.lines {
        writeln!(out, "{line}")?;
    }
    show(&mut out, &outcome)?;
    Ok(outcome.violations.is_empty())
}

fn many(arguments: &Arguments) -> io::Result<bool> {
    let next = AtomicU64::new(arguments.from);
    let end = arguments.from.saturating_add(arguments.seeds);
    let began = Instant::now();
    let done = AtomicU64::new(0);
    let work = || {
        let mut sum = Outcome::default();
        let mut broken = 0u64;
        loop {
            let seed = next.fetch_add(1, SeqCst);
            if seed >= end {
                return (sum, broken);
            }
            let outcome = run(seed, arguments.options);
            if !outcome.violations.is_empty() {
                broken += 1;
                let _ = show(&mut io::stdout().lock(), &outcome);
            }
            add(&mut sum, &outcome);
            let done = done.fetch_add(1, SeqCst) + 1;
            if done.is_multiple_of(100) {
                let rate = done as f64 / began.elapsed().as_secs_f64();
                let _ = writeln!(io::stderr(), "{done} seeds, {rate:.2} seeds/s");
            }
        }
    };
    let (sum, broken) = thread::scope(|scope| {
        let workers: Vec<_> = (0..arguments.jobs).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .fold((Outcome::default(), 0), |(mut sum, broken), worker| {
                let (part, more) = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                add(&mut sum, &part);
                (sum, broken + more)
            })
    });
    let seconds = began.elapsed().as_secs_f64();
    let rate = arguments.seeds as f64 / seconds;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "seeds {} to {}: {broken} broken, {seconds:.0} s, {rate:.2} seeds/s",
        arguments.from,
        end - 1
    )?;
    totals(&mut out, &sum)?;
    Ok(broken == 0)
}

fn add(sum: &mut Outcome, outcome: &Outcome) {
    sum.calls += outcome.calls;
    sum.admitted += outcome.admitted;
    sum.counted += outcome.counted;
    sum.reported += outcome.reported;
    sum.given += outcome.given;
    sum.unknown += outcome.unknown;
    sum.uncounted += outcome.uncounted;
    sum.wire = (sum.wire.0 + outcome.wire.0, sum.wire.1 + outcome.wire.1);
}

fn totals(out: &mut impl Write, sum: &Outcome) -> io::Result<()> {
    let (wire, troubled) = sum.wire;
    writeln!(
        out,
        "{} requests, {} units admitted, {} of them said to be uncounted, {} counted, {} in Stripe, {} given; \
         {} counting writes of unknown outcome; {wire} wire requests, {troubled} in trouble",
        sum.calls, sum.admitted, sum.uncounted, sum.counted, sum.reported, sum.given, sum.unknown
    )
}

fn show(out: &mut impl Write, outcome: &Outcome) -> io::Result<()> {
    writeln!(
        out,
        "seed {}: {} events, {}",
        outcome.seed, outcome.events, outcome.digest
    )?;
    totals(out, outcome)?;
    for violation in &outcome.violations {
        writeln!(out, "  VIOLATION {violation}")?;
    }
    Ok(())
}
