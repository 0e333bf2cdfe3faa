//! The promises of admission, on random demands and random counter items.

use farebox_core::{
    admission::{Belief, Counters, Demand, Judgement, Quota, Rate, judge, plan},
    tiers::{AtQuota, Interval, Limit},
    time::{Cycle, Timestamp},
};
use proptest::prelude::*;

const NOW_MS: u64 = 1_769_853_600_000;

fn demand(now_ms: u64, cost: u64, limits: &[(u64, u64)], quota: Option<u64>, policy: AtQuota) -> Demand {
    let rates = limits.iter().map(|&(units, s)| Rate {
        limit: Limit {
            units,
            window_ms: s * 1_000,
        },
        group: None,
    });
    Demand {
        now: Timestamp::from_ms(now_ms),
        cost,
        meter: "api_calls".to_owned(),
        group: None,
        plan: "pro-00000000".parse().expect("a plan's name"),
        auth_epoch: 3,
        cycle: Cycle::starting_at(1_769_000_000, Interval::Month),
        rates: rates.collect(),
        quotas: vec![Quota {
            group: None,
            included: quota,
            at_quota: policy,
            cap: None,
        }],
    }
}

fn policy() -> impl Strategy<Value = AtQuota> {
    prop_oneof![
        Just(AtQuota::Overage),
        Just(AtQuota::Block),
        (1u64..20).prop_map(|units| AtQuota::Throttle(Limit {
            units,
            window_ms: 60_000
        })),
    ]
}

/// What real traffic leaves behind: requests at random distances, each admitted or denied by the exact item.
fn served(
    requests: &[(u64, u64)],
    limits: &[(u64, u64)],
    quota: Option<u64>,
    policy: AtQuota,
) -> (Counters, u64, Vec<(u64, u64)>) {
    let mut item = Counters {
        generation: "g".to_owned(),
        auth_epoch: 3,
        ..Counters::default()
    };
    let (mut now, mut admitted) = (NOW_MS, Vec::new());
    for &(gap, cost) in requests {
        now += gap;
        if let Judgement::Admissible(attempt) = judge(&demand(now, cost, limits, quota, policy), &item) {
            attempt.apply(&mut item);
            admitted.push((now, cost));
        }
    }
    (item, now, admitted)
}

proptest! {
    #[test]
    fn denied_strictly_before_not_before_and_admitted_exactly_at_it(
        requests in prop::collection::vec((0u64..4_000, 1u64..4), 0..120),
        limits in prop::collection::vec((4u64..40, 1u64..90), 1..3),
        quota in prop::option::of(10u64..200),
        policy in policy(),
    ) {
        let (item, now, _) = served(&requests, &limits, quota, policy);
        let at = |ms| judge(&demand(ms, 1, &limits, quota, policy), &item);
        if let Judgement::Denied(denial) = at(now) {
            let not_before = denial.not_before.expect("cost 1 fits every limit").ms();
            prop_assert!(not_before > now);
            prop_assert!(matches!(at(not_before - 1), Judgement::Denied(_)), "denied until then");
            prop_assert!(matches!(at(not_before), Judgement::Admissible(_)), "admitted at it");
        }
    }

    #[test]
    fn whatever_is_believed_the_condition_never_permits_what_the_exact_item_denies(
        requests in prop::collection::vec((0u64..4_000, 1u64..4), 0..120),
        seen in 0usize..120,
        limits in prop::collection::vec((4u64..40, 1u64..90), 1..3),
        quota in prop::option::of(10u64..200),
        policy in policy(),
        cost in 1u64..4,
    ) {
        let (item, now, _) = served(&requests, &limits, quota, policy);
        let (old, old_now, _) = served(&requests[..seen.min(requests.len())], &limits, quota, policy);
        let demand = demand(now, cost, &limits, quota, policy);
        let exact = judge(&demand, &item);
        let belief = Belief { counters: old, at: Timestamp::from_ms(old_now) };
        for belief in [None, Some(&belief)] {
            if let Ok(attempt) = plan(&demand, belief)
                && attempt.permits(&item)
            {
                // A throttled tier may be planned by its faster limit only while its quota is not used up, which the
                // condition itself asks.
                prop_assert!(matches!(exact, Judgement::Admissible(_)), "{attempt:?} {exact:?}");
            }
        }
        if let Judgement::Admissible(attempt) = exact {
            prop_assert!(attempt.permits(&item), "an exact plan is permitted by its own item");
        }
    }

    #[test]
    fn no_window_that_starts_with_the_clock_holds_more_than_its_limit(
        requests in prop::collection::vec((0u64..2_000, 1u64..4), 0..200),
        limits in prop::collection::vec((4u64..40, 1u64..30), 1..3),
    ) {
        let (_, _, admitted) = served(&requests, &limits, None, AtQuota::Overage);
        for &(units, s) in &limits {
            for &(start, _) in &admitted {
                let window = start / (s * 1_000);
                let inside = admitted.iter().filter(|(at, _)| at / (s * 1_000) == window).map(|(_, cost)| cost);
                prop_assert!(inside.sum::<u64>() <= units);
            }
        }
    }

    #[test]
    fn a_blocked_quota_is_never_exceeded_by_one_unit(
        requests in prop::collection::vec((0u64..2_000, 1u64..4), 0..200),
        quota in 5u64..60,
    ) {
        let (_, _, admitted) = served(&requests, &[(1_000, 60)], Some(quota), AtQuota::Block);
        prop_assert!(admitted.iter().map(|(_, cost)| cost).sum::<u64>() <= quota);
    }
}

#[test]
fn a_sealed_bucket_takes_no_more_units_and_the_period_is_that_of_the_bucket() {
    let demand = demand(NOW_MS, 1, &[(10, 60)], None, AtQuota::Overage);
    let bucket = demand.cycle.bucket_at(demand.now.s());
    let item = Counters {
        generation: "g".to_owned(),
        auth_epoch: 3,
        sealed: bucket.start,
        ..Counters::default()
    };
    let unsealed = plan(&demand, None).expect("one unit fits");
    assert!(!unsealed.permits(&item), "a clock behind the seal is refused");
    let Judgement::Admissible(next) = judge(&demand, &item) else {
        panic!("the next bucket is open")
    };
    assert_eq!(next.bucket.start, bucket.end);
    assert!(next.permits(&item));
}

#[test]
fn a_newer_epoch_on_the_item_asks_for_the_records_again() {
    let demand = demand(NOW_MS, 1, &[(10, 60)], None, AtQuota::Overage);
    let item = Counters {
        generation: "g".to_owned(),
        auth_epoch: 4,
        ..Counters::default()
    };
    assert_eq!(judge(&demand, &item), Judgement::Stale);
    assert!(!plan(&demand, None).expect("one unit fits").permits(&item));
}
