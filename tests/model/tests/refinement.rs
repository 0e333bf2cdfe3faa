//! The expressions, as the model runs them, are the rules as code; `tests/simulation` asks DynamoDB the same.

use std::collections::BTreeMap;

use farebox_core::admission::{Judgement, judge, plan};
use farebox_model::{
    refinement::{admission, item, rules},
    table::run,
};
use fastrand::Rng;

/// A slice that takes a second; `REFINEMENT_STATES` asks for more.
fn states() -> u64 {
    let asked = std::env::var("REFINEMENT_STATES");
    asked.map_or(5_000, |states| states.parse().expect("REFINEMENT_STATES is a number"))
}

#[test]
fn every_write_to_counters_and_rows_is_its_rule() {
    let mut by_rule = BTreeMap::<&str, [u64; 2]>::new();
    for seed in 0..states() {
        let mut rng = Rng::with_seed(seed);
        let before = item(&mut rng).unwrap_or_default();
        let case = rules::case(&mut rng, Some(&before));
        let found = run(&case.write, &before);
        assert_eq!(found, (case.rule)(&before), "seed {seed}: {} of {before:?}", case.name);
        by_rule.entry(case.name).or_default()[usize::from(found.is_some())] += 1;
    }
    for (name, [refused, applied]) in by_rule {
        // A grant adds to whatever is there.
        let is_met = applied > 0 && (refused > 0 || name == "grant");
        assert!(is_met, "{name}: {applied} applied, {refused} refused");
    }
}

#[test]
fn the_write_that_admits_is_permits_and_apply_and_what_is_judged_is_what_happens_next() {
    let mut seen = [0u64; 4];
    for seed in 0..states() {
        let mut rng = Rng::with_seed(seed);
        let demand = admission::demand(&mut rng);
        let item = admission::counters_of(&mut rng, &demand);
        let belief = admission::belief(&mut rng, &item, &demand);
        let Ok(attempt) = plan(&demand, belief.as_ref()) else {
            continue;
        };
        let applied = |attempt: &farebox_core::admission::Attempt| {
            let found = run(&attempt.expression(), &admission::as_item(&item));
            let mut after = item.clone();
            attempt.apply(&mut after);
            let expected = attempt.permits(&item).then(|| admission::as_item(&after));
            assert_eq!(found, expected, "seed {seed}: {attempt:?} on {item:?}");
            found.is_some()
        };
        let is_full = admission::is_full(&demand, &item);
        let kind = if applied(&attempt) {
            assert!(!is_full, "seed {seed}: {attempt:?} was applied to {item:?}");
            0
        } else {
            match judge(&demand, &item) {
                Judgement::Stale => {
                    assert!(item.auth_epoch > demand.auth_epoch, "seed {seed}: {item:?}");
                    1
                }
                Judgement::Admissible(exact) => {
                    assert!(applied(&exact), "seed {seed}: {exact:?} on {item:?}");
                    assert!(!is_full, "seed {seed}: {exact:?} was applied to {item:?}");
                    2
                }
                Judgement::Denied(denial) => {
                    assert!(is_full, "seed {seed}: {denial:?} of {item:?} for {demand:?}");
                    3
                }
            }
        };
        seen[kind] += 1;
    }
    let is_met = seen.iter().all(|&cases| cases > 0);
    assert!(is_met, "admitted, stale, admissible, denied: {seen:?}");
}
