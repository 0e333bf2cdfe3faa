//! The write that admits: its condition and its update are what `Attempt` says of them, and what is judged by the item that a
//! refusal brings is what the table does next.

use farebox_aws::counters::{CounterTable, Outcome};
use farebox_core::admission::{Attempt, Counters, Judgement, judge, plan};
use farebox_model::refinement::admission::{as_item, belief, counters_of, demand, is_full};
use fastrand::Rng;

use crate::{first_seed, states, table::Table};

#[tokio::test]
async fn the_write_that_admits_is_permits_and_apply_and_a_refusal_is_judged_as_the_table_does() {
    let table = Table::open().await;
    let counters = CounterTable::new(table.clients.clone(), table.name.clone());
    let mut seen = [0u64; 4];
    for seed in first_seed()..first_seed() + states() {
        let mut rng = Rng::with_seed(seed);
        let demand = demand(&mut rng);
        let item = counters_of(&mut rng, &demand);
        let belief = belief(&mut rng, &item, &demand);
        let Ok(attempt) = plan(&demand, belief.as_ref()) else {
            continue;
        };
        let key = format!("counter-{seed}");
        table.put(&key, Some(&as_item(&item))).await;
        let is_full = is_full(&demand, &item);
        if send(&counters, &key, &attempt, &item, seed).await {
            assert!(!is_full, "seed {seed}: {attempt:?} was applied to {item:?}");
            seen[0] += 1;
            continue;
        }
        // The item that came with the refusal is the one that was there: the judgement is of it.
        match judge(&demand, &item) {
            Judgement::Stale => {
                seen[1] += 1;
                assert!(item.auth_epoch > demand.auth_epoch, "seed {seed}");
            }
            Judgement::Admissible(exact) => {
                seen[2] += 1;
                assert!(
                    send(&counters, &key, &exact, &item, seed).await,
                    "seed {seed}: {exact:?} on {item:?}"
                );
                assert!(!is_full, "seed {seed}: {exact:?} was applied to {item:?}");
            }
            Judgement::Denied(denial) => {
                seen[3] += 1;
                assert!(is_full, "seed {seed}: {denial:?} of {item:?} for {demand:?}");
            }
        }
    }
    assert!(
        seen.iter().all(|&cases| cases > 0),
        "admitted, stale, admissible, denied: {seen:?}"
    );
}

/// Sends an attempt by the shipped code; says whether it was applied, as it must be exactly if it is permitted.
async fn send(counters: &CounterTable, key: &str, attempt: &Attempt, item: &Counters, seed: u64) -> bool {
    let mut after = item.clone();
    attempt.apply(&mut after);
    match counters.admit(key, attempt.expression()).await {
        Outcome::Applied(found) => {
            assert!(attempt.permits(item), "seed {seed}: applied to {item:?}");
            assert_eq!(found, after, "seed {seed}: {attempt:?}");
            true
        }
        Outcome::ConditionFailed(found) => {
            assert!(!attempt.permits(item), "seed {seed}: refused by {item:?}");
            assert_eq!(found.as_ref(), Some(item), "seed {seed}: the item as it was");
            false
        }
        other => panic!("seed {seed}: {other:?}"),
    }
}
