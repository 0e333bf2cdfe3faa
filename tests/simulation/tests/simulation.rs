//! A slice of the long mode, the proof that a seed is a run, and the proof that a broken rule shows.

use std::{
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    thread,
};

use farebox_simulation::{Options, Outcome, Sabotage, Traced, run};

/// Seeds of the slice, each with this many requests; `SIMULATION_SEEDS` asks for another number of them.
const SEEDS: u64 = 16;
const REQUESTS: usize = 150;

fn seeds() -> u64 {
    let asked = std::env::var("SIMULATION_SEEDS");
    asked.map_or(SEEDS, |seeds| seeds.parse().expect("SIMULATION_SEEDS is a number"))
}

fn options() -> Options {
    Options {
        requests: REQUESTS,
        ..Options::default()
    }
}

/// Runs seeds on all cores.
fn run_all(seeds: impl Iterator<Item = u64>, options: Options) -> Vec<Outcome> {
    let seeds: Vec<u64> = seeds.collect();
    let next = AtomicU64::new(0);
    let work = || {
        let mut outcomes = Vec::new();
        while let Some(&seed) = seeds.get(usize::try_from(next.fetch_add(1, SeqCst)).unwrap_or(usize::MAX)) {
            outcomes.push(run(seed, options));
        }
        outcomes
    };
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let mut outcomes: Vec<Outcome> = thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        let join = |worker: thread::ScopedJoinHandle<'_, Vec<Outcome>>| worker.join().expect("a run ends");
        workers.into_iter().flat_map(join).collect()
    });
    outcomes.sort_by_key(|outcome| outcome.seed);
    outcomes
}

#[test]
fn every_seed_of_the_slice_is_right_to_the_unit() {
    let outcomes = run_all(0..seeds(), options());
    for outcome in &outcomes {
        let seed = outcome.seed;
        assert!(
            outcome.violations.is_empty(),
            "--requests {REQUESTS} --seed {seed}: {:#?}",
            outcome.violations
        );
        assert_eq!(outcome.counted, outcome.reported + outcome.given, "--seed {seed}");
        assert_eq!(outcome.calls, REQUESTS as u64, "--seed {seed}");
    }
    if seeds() < SEEDS {
        return;
    }
    // The slice must have had something to be right about.
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    assert!(sum(|outcome| outcome.reported) > 1_000);
    assert!(sum(|outcome| outcome.unknown) > 0);
    assert!(sum(|outcome| outcome.wire.1) > 100);
}

#[test]
fn a_seed_is_a_run_byte_for_byte() {
    let seeds = [3, 7, 11];
    let traced = Options {
        trace: Traced::Digest,
        ..options()
    };
    let (first, second) = (run_all(seeds.into_iter(), traced), run_all(seeds.into_iter(), traced));
    for (first, second) in first.iter().zip(&second) {
        assert_eq!(first.events, second.events, "seed {}", first.seed);
        assert_eq!(first.digest, second.digest, "seed {}", first.seed);
    }
    assert_ne!(first[0].digest, first[1].digest, "another seed is another run");
    // Whether anybody looks changes nothing.
    for (traced, unseen) in first.iter().zip(run_all(seeds.into_iter(), options())) {
        assert_eq!(traced.events, unseen.events, "seed {}", traced.seed);
        assert_eq!((traced.wire, traced.counted), (unseen.wire, unseen.counted));
        assert_eq!(unseen.digest, "");
    }
}

/// The first seeds show it: were it found by luck alone, it would not be found in the long mode either.
fn is_caught(sabotage: Sabotage, told: &str) {
    let broken = Options {
        sabotage: Some(sabotage),
        ..options()
    };
    for from in (0..60).step_by(4) {
        let outcomes = run_all(from..from + 4, broken);
        if outcomes
            .iter()
            .flat_map(|outcome| &outcome.violations)
            .any(|violation| violation.contains(told))
        {
            return;
        }
    }
    panic!("{sabotage:?} is not caught by 60 seeds");
}

#[test]
fn a_table_that_admits_into_sealed_buckets_is_caught() {
    is_caught(Sabotage::AdmitsIntoSealedBuckets, "sealed up to");
}

#[test]
fn a_table_that_ignores_quotas_is_caught() {
    is_caught(Sabotage::IgnoresQuotas, "are the most");
}

#[test]
fn a_table_that_forgets_bumps_is_caught() {
    is_caught(Sabotage::ForgetsBumps, "was let in");
}

#[test]
fn a_table_that_folds_into_any_row_is_caught() {
    is_caught(Sabotage::FoldsIntoAnyRow, "row");
}

#[test]
fn retries_of_the_counting_write_are_caught() {
    is_caught(Sabotage::RetriesTheCountingWrite, "was counted 2 times");
}

#[test]
fn identifiers_with_an_attempt_number_are_caught() {
    is_caught(Sabotage::NumbersTheAttempts, "Stripe has");
}
