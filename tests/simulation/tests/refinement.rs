//! Refinement: each conditional write, as DynamoDB runs it, is the rule as code says it.
//!
//! Random items meet random writes. The write is sent by the SDK to a real table; the rule beside it here says what must come
//! of it: refused, with the item as it was, or applied, with every attribute of the item after it. Both must agree.
//!
//! `REFINEMENT_STATES` is how many states there are (5,000 without it), `REFINEMENT_SEED` the first, and
//! `DYNAMODB_ENDPOINT` another DynamoDB than the embedded one: see `dynamodb-local.sh`.

#[path = "refinement/admission.rs"]
mod admission;
#[path = "refinement/table.rs"]
mod table;

use farebox_model::refinement::{item, rules};
use fastrand::Rng;

use crate::table::Table;

/// A slice that a debug build is through with in seconds.
const STATES: u64 = 5_000;

fn states() -> u64 {
    number("REFINEMENT_STATES").unwrap_or(STATES)
}

fn first_seed() -> u64 {
    number("REFINEMENT_SEED").unwrap_or(1)
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is no number: {text}")),
    )
}

#[tokio::test]
async fn every_write_to_counters_and_rows_is_its_rule() {
    let table = Table::open().await;
    let mut by_rule = std::collections::BTreeMap::<&str, [u64; 2]>::new();
    for seed in first_seed()..first_seed() + states() {
        let mut rng = Rng::with_seed(seed);
        let before = item(&mut rng);
        let case = rules::case(&mut rng, before.as_ref());
        let expected = (case.rule)(&before.clone().unwrap_or_default());
        let key = format!("state-{seed}");
        let found = table.run(&key, before.as_ref(), &case.write).await;
        let name = case.name;
        match (&expected, found) {
            (Some(after), Ok(found)) => assert_eq!(found, *after, "seed {seed}: {name} of {before:?}"),
            (None, Err(found)) => assert_eq!(found, before, "seed {seed}: {name} was refused"),
            (expected, found) => {
                panic!("seed {seed}: {name} of {before:?} must come to {expected:?}, came to {found:?}")
            }
        }
        let is_applied = expected.is_some();
        by_rule.entry(name).or_default()[usize::from(is_applied)] += 1;
    }
    // Each rule must have met both: a case that is always refused proves nothing.
    if states() >= STATES {
        for (name, [refused, applied]) in by_rule {
            // A grant adds to whatever is there.
            let is_met = applied > 0 && (refused > 0 || name == "grant");
            assert!(is_met, "{name}: {applied} applied, {refused} refused");
        }
    }
}
