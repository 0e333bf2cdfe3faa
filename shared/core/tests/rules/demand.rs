//! What holds for one request of one customer, and what is told of it: shards, groups, caps, slower limits.

use farebox_core::{
    account::{Contact, Customer, Grant, Phase, Standing as Account},
    admission::{
        Belief, Counters, Demand, Denial, DenialReason, Judgement, Outage, Quota, Rate, Standing, Subject, judge,
        on_outage, plan, share, standing,
    },
    answer,
    tiers::{AtQuota, Catalog, Interval, Limit, Overrides, Terms},
    time::{Cycle, HOUR_S, Timestamp},
};
use proptest::prelude::*;

const FULL: &str = include_str!("fixtures/full.yaml");
/// 2026-01-31T10:00:00Z, where a minute and an hour begin.
const START: u64 = 1_769_853_600;
const NOW: Timestamp = Timestamp::from_s(START);

fn terms(tier: &str) -> Terms {
    let catalog = Catalog::from_yaml(FULL, "tiers.yaml").unwrap_or_else(|errors| panic!("{errors}"));
    catalog.terms(tier, &Overrides::default()).expect("a whole tier")
}

fn customer(terms: &Terms) -> Customer {
    Customer {
        id: "acme".to_owned().try_into().expect("an id"),
        name: String::new(),
        phases: vec![Phase {
            from: 0,
            tier: terms.tier.clone(),
            catalog: 1,
            overrides: Overrides::default(),
            plan: terms.plan(),
        }],
        offered: None,
        ends: None,
        is_leaving: false,
        cycle: Cycle::starting_at(START, Interval::Month),
        auth_epoch: 7,
        is_suspended: false,
        standing: Account::Good,
        grants: Vec::new(),
        contact: Contact::default(),
        stripe_customer: None,
        stripe_subscription: None,
        next_slot: 1,
    }
}

/// A request of a customer of this tier, on a meter and in a group.
fn demand(tier: &str, (meter, group): (&str, Option<&str>), cost: u64, shard: u32) -> Demand {
    let terms = terms(tier);
    demand_of(&customer(&terms), &terms, (meter, group), cost, shard, None)
}

fn demand_of(
    customer: &Customer,
    terms: &Terms,
    (meter, group): (&str, Option<&str>),
    cost: u64,
    shard: u32,
    slower: Option<Limit>,
) -> Demand {
    let subject = Subject {
        customer,
        phase: &customer.phases[0],
        terms,
        slower,
    };
    let group = group.map(|name| {
        terms
            .groups
            .iter()
            .position(|group| group.name == name)
            .expect("a group")
    });
    Demand::new(&subject, meter, group, cost, shard, NOW)
}

fn per(units: u64, s: u64) -> Limit {
    Limit {
        units,
        window_ms: s * 1_000,
    }
}

fn all(limit: Limit) -> Rate {
    Rate { limit, group: None }
}

fn item(units: &[(String, u64)]) -> Counters {
    Counters {
        generation: "g".to_owned(),
        auth_epoch: 7,
        sealed: 0,
        units: units.iter().cloned().collect(),
    }
}

fn window(s: u64, back: u64, group: &str) -> String {
    let index = START / s - back;
    format!(
        "w{}.{index}{}{group}",
        s * 1_000,
        if group.is_empty() { "" } else { "." }
    )
}

fn quota_name(demand: &Demand) -> String {
    format!("q{START}.{}.{}", demand.meter, demand.plan)
}

fn denial(demand: &Demand, item: &Counters) -> (DenialReason, Option<u64>) {
    match judge(demand, item) {
        Judgement::Denied(denial) => (denial.reason, denial.not_before.map(Timestamp::ms)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_shard_holds_its_part_of_limits_quotas_and_caps() {
    // Of an odd number the first shard has one more.
    let whole = demand("team", ("api_calls", Some("search")), 1, 0);
    let part = |units| share(units, 0, 2);
    assert_eq!(
        whole.rates,
        [
            all(per(part(100), 60)),
            all(per(part(1_000), 3_600)),
            Rate {
                limit: per(3, 1),
                group: Some("search".to_owned())
            }
        ]
    );
    assert_eq!(
        whole.quotas,
        [
            Quota {
                group: None,
                included: Some(25_000),
                at_quota: AtQuota::Overage,
                cap: Some(50_000)
            },
            Quota {
                group: Some("search".to_owned()),
                included: Some(50),
                at_quota: AtQuota::Block,
                cap: None
            }
        ]
    );
    assert_eq!(whole.auth_epoch, 7);
    let second = demand("team", ("api_calls", Some("search")), 1, 1);
    assert_eq!(second.rates[2].limit, per(2, 1));
    let slow = demand("team", ("api_calls", Some("slow")), 1, 0);
    assert_eq!(slow.quotas[1].at_quota, AtQuota::Throttle(per(1, 60)), "of 2 a minute");
    assert_eq!(slow.rates.len(), 2, "the group has no limit of its own");
}

#[test]
fn a_grant_makes_room_in_the_quota_and_below_the_cap() {
    let terms = terms("team");
    let mut customer = customer(&terms);
    customer.grants.push(Grant {
        id: "sorry".to_owned(),
        meter: "api_calls".to_owned(),
        units: 1_000,
        period: START,
        plan: terms.plan(),
    });
    let quota = &demand_of(&customer, &terms, ("api_calls", None), 1, 0, None).quotas[0];
    assert_eq!((quota.included, quota.cap), (Some(25_500), Some(50_500)));
    let other = &demand_of(&customer, &terms, ("tokens", None), 1, 0, None).quotas[0];
    assert_eq!(other.included, Some(0), "another meter");
}

#[test]
fn what_is_unlimited_or_not_named_is_held_by_no_quota() {
    let unlimited = demand("big", ("api_calls", None), 1, 0);
    assert_eq!((unlimited.quotas[0].included, unlimited.quotas[0].cap), (None, None));
    let unnamed = demand("big", ("tokens", None), 1, 0);
    assert_eq!(unnamed.quotas[0].included, None);
}

#[test]
fn a_standings_slower_limit_lets_a_large_request_pass_once_in_a_window() {
    let terms = terms("start");
    let customer = customer(&terms);
    let slowed = |cost, slower| demand_of(&customer, &terms, ("api_calls", None), cost, 0, Some(slower)).rates;
    let tier = [all(per(60, 60)), all(per(5, 10))];
    assert_eq!(slowed(1, per(20, 3_600)), [&tier[..], &[all(per(20, 3_600))]].concat());
    assert_eq!(slowed(50, per(20, 3_600))[2], all(per(50, 3_600)));
    // Over a window that the tier limits already, the stricter of both.
    assert_eq!(slowed(1, per(20, 60)), [all(per(20, 60)), all(per(5, 10))]);
    assert_eq!(slowed(1, per(70, 60)), tier);
}

#[test]
fn what_a_used_up_quota_adds_ends_with_the_quotas_period() {
    const DAY_S: u64 = 86_400;
    let mut terms = terms("start");
    terms.at_quota = AtQuota::Throttle(per(1, DAY_S));
    let end = customer(&terms).cycle.period_at(START).end;
    let now = Timestamp::from_s(end - 3_600);
    let mut denied_until = |limits: &[Limit], cost| {
        terms.limits = limits.to_vec();
        let customer = customer(&terms);
        let subject = Subject {
            customer: &customer,
            phase: &customer.phases[0],
            terms: &terms,
            slower: None,
        };
        let request = Demand::new(&subject, "api_calls", None, cost, 0, now);
        let today = format!("w{}.{}", DAY_S * 1_000, now.s() / DAY_S);
        denial(&request, &item(&[(quota_name(&request), 1_000), (today, 1)])).1
    };
    assert_eq!(denied_until(&[per(5, 60)], 1), Some(end * 1_000));
    assert_eq!(
        denied_until(&[], 5),
        Some(end * 1_000),
        "more than the slower limit ever holds"
    );
    // The tier's own limit over the same window stays.
    let own = denied_until(&[per(1, DAY_S)], 1).expect("at some time");
    assert!(own > end * 1_000, "{own}");
    assert_eq!(denied_until(&[per(2, DAY_S)], 1), Some(end * 1_000), "it has room");
    assert_eq!(denied_until(&[per(2, DAY_S)], 5), None, "never");
}

#[test]
fn a_used_up_quota_slows_down_instead_of_its_group_or_tier() {
    let request = demand("start", ("api_calls", None), 1, 0);
    let used = |units| item(&[(quota_name(&request), units), (window(60, 0, ""), 5)]);
    assert!(matches!(judge(&request, &used(998)), Judgement::Admissible(_)));
    assert!(
        matches!(judge(&request, &used(999)), Judgement::Admissible(_)),
        "the last one included"
    );
    // Five a minute are taken already.
    let (reason, not_before) = denial(&request, &used(1_000));
    assert_eq!(reason, DenialReason::RateLimit(all(per(5, 60))));
    let fifth_of_the_next_minute = (START + 60) * 1_000 + 12_000;
    assert_eq!(not_before, Some(fifth_of_the_next_minute));

    let slow = demand("team", ("api_calls", Some("slow")), 1, 0);
    let group_quota = format!("q{START}@slow.{}", slow.plan);
    let busy = item(&[(group_quota, 5), (window(60, 0, "slow"), 1)]);
    let (reason, _) = denial(&slow, &busy);
    assert_eq!(
        reason,
        DenialReason::RateLimit(Rate {
            limit: per(1, 60),
            group: Some("slow".to_owned())
        })
    );
}

#[test]
fn of_several_denials_the_one_that_lasts_longest_is_told() {
    let request = demand("team", ("api_calls", Some("search")), 1, 0);
    let end = request.cycle.current.end * 1_000;
    let full = |more: &[(String, u64)]| item(&[&[(window(60, 0, ""), 50)], more].concat());
    let minute = denial(&request, &full(&[])).0;
    assert_eq!(minute, DenialReason::RateLimit(all(per(50, 60))));
    let hour = denial(&request, &full(&[(window(3_600, 0, ""), 500)])).0;
    assert_eq!(hour, DenialReason::RateLimit(all(per(500, 3_600))));
    let search = (format!("q{START}@search.{}", request.plan), 50);
    assert_eq!(
        denial(&request, &full(&[search])),
        (
            DenialReason::QuotaExceeded {
                group: Some("search".to_owned()),
                included: 50
            },
            Some(end)
        )
    );
    let cap = (quota_name(&request), 50_000);
    assert_eq!(
        denial(&request, &full(std::slice::from_ref(&cap))),
        (DenialReason::SpendCap, Some(end))
    );
    let below = (cap.0, 49_999);
    assert!(matches!(judge(&request, &item(&[below])), Judgement::Admissible(_)));
}

/// Which of two is told may not depend on their order.
#[test]
fn a_denial_that_never_ends_is_told_before_one_that_does() {
    let never = (DenialReason::CostTooHigh { units_max: 3 }, None);
    for is_first in [true, false] {
        let mut request = demand("team", ("api_calls", Some("search")), 4, 0);
        if is_first {
            request.rates.reverse();
        }
        assert_eq!(denial(&request, &item(&[(window(60, 0, ""), 50)])), never);
    }
    for is_first in [true, false] {
        // Both quotas are used up and end with the period: the meter's own is told.
        let mut request = demand("team", ("api_calls", Some("search")), 1, 0);
        request.quotas[0].at_quota = AtQuota::Block;
        let search = format!("q{START}@search.{}", request.plan);
        let full = item(&[(search, 50), (quota_name(&request), 50_000)]);
        if is_first {
            request.quotas.reverse();
        }
        let (group, included) = (
            request.quotas[0].group.clone(),
            request.quotas[0].included.expect("a quota"),
        );
        assert_eq!(
            denial(&request, &full).0,
            DenialReason::QuotaExceeded { group, included }
        );
    }
}

#[test]
fn a_cap_that_is_no_larger_than_the_quota_is_told_as_a_cap_where_more_is_billed() {
    let mut request = demand("team", ("api_calls", None), 1, 0);
    request.quotas[0].cap = request.quotas[0].included;
    let full = item(&[(quota_name(&request), 25_000)]);
    assert_eq!(denial(&request, &full).0, DenialReason::SpendCap);
    request.quotas[0].at_quota = AtQuota::Block;
    assert_eq!(
        denial(&request, &full).0,
        DenialReason::QuotaExceeded {
            group: None,
            included: 25_000
        }
    );
    request.quotas[0].cap = Some(20_000);
    assert_eq!(denial(&request, &full).0, DenialReason::SpendCap, "the smaller of both");
}

#[test]
fn a_request_that_never_fits_is_told_what_would() {
    let too_fast = demand("team", ("api_calls", Some("search")), 4, 0);
    assert_eq!(
        denial(&too_fast, &item(&[])),
        (DenialReason::CostTooHigh { units_max: 3 }, None)
    );
    let mut too_large = demand("team", ("api_calls", Some("search")), 51, 0);
    too_large.rates.clear();
    assert_eq!(
        denial(&too_large, &item(&[])),
        (DenialReason::CostTooHigh { units_max: 50 }, None)
    );
    // A period that includes nothing is not a request that is too large.
    too_large.quotas[1].included = Some(0);
    assert_eq!(
        denial(&too_large, &item(&[])),
        (
            DenialReason::QuotaExceeded {
                group: Some("search".to_owned()),
                included: 0
            },
            None
        )
    );
    too_large.quotas[1].included = Some(51);
    assert!(matches!(judge(&too_large, &item(&[])), Judgement::Admissible(_)));
}

#[test]
fn a_write_is_counted_in_its_bucket_its_windows_and_its_quotas() {
    let request = demand("team", ("api_calls", Some("search")), 3, 0);
    let attempt = plan(&request, None).expect("it fits");
    let mut after = item(&[]);
    attempt.apply(&mut after);
    let search = format!("q{START}@search.{}", request.plan);
    let bucket = format!("u{START}.api_calls");
    for name in [
        &bucket,
        &quota_name(&request),
        &search,
        &window(60, 0, ""),
        &window(3_600, 0, ""),
        &window(1, 0, "search"),
    ] {
        assert_eq!(after.units_of(name), 3, "{name}");
    }
    assert_eq!(after.units.len(), 6);
    assert_eq!((attempt.bucket_units(&after), attempt.period_units(&after)), (3, 3));
    after.units.insert(bucket, 40);
    after.units.insert(quota_name(&request), 900);
    assert_eq!((attempt.bucket_units(&after), attempt.period_units(&after)), (40, 900));
}

#[test]
fn what_may_have_moved_since_it_was_seen_gets_the_room_that_there_is() {
    let request = Demand {
        rates: vec![all(per(100, 60))],
        quotas: Vec::new(),
        ..demand("start", ("api_calls", None), 1, 0)
    };
    let seen = |seconds_ago, units: &[(String, u64)]| Belief {
        counters: item(units),
        at: Timestamp::from_s(START - seconds_ago),
    };
    let permits = |belief: &Belief, previous, now| {
        let attempt = plan(&request, Some(belief)).expect("it fits");
        attempt.permits(&item(&[(window(60, 1, ""), previous), (window(60, 0, ""), now)]))
    };
    // Seen in this minute: the last one is over and has 10 for good, all of the rest is for this one.
    let fresh = seen(0, &[(window(60, 1, ""), 10)]);
    assert!(permits(&fresh, 10, 89));
    assert!(!permits(&fresh, 10, 90));
    assert!(!permits(&fresh, 11, 0));
    // Seen in the last minute: of the 89 that are free each minute gets half.
    let old = seen(1, &[(window(60, 1, ""), 10)]);
    assert!(permits(&old, 54, 45));
    assert!(!permits(&old, 55, 0));
    assert!(!permits(&old, 10, 46));
    // Never seen: as if nothing had been there.
    let unseen = plan(&request, None).expect("it fits");
    let believed = seen(START, &[]);
    assert_eq!(unseen, plan(&request, Some(&believed)).expect("it fits"));
    assert!(permits(&believed, 49, 50) && !permits(&believed, 50, 0) && !permits(&believed, 0, 51));
}

#[test]
fn windows_and_quotas_leave_the_item_once_nobody_asks_for_them() {
    // The next period, which is two days and a second old.
    let mut request = demand("start", ("api_calls", None), 1, 0);
    let period = request.cycle.period_at(request.cycle.current.end);
    let removed = |request: &Demand, name: String| {
        let believed = Belief {
            counters: item(&[(name.clone(), 1)]),
            at: request.now,
        };
        let mut after = believed.counters.clone();
        plan(request, Some(&believed)).expect("it fits").apply(&mut after);
        !after.units.contains_key(&name)
    };
    request.now = Timestamp::from_s(period.start + 48 * HOUR_S + 1);
    assert!(removed(&request, quota_name(&request)));
    assert!(removed(&request, format!("q{START}@search.{}", request.plan)));
    assert!(!removed(
        &request,
        format!("q{}.api_calls.other-00000000", period.start)
    ));
    assert!(
        !removed(&request, format!("u{START}.api_calls")),
        "only a frozen row prunes its own"
    );
    assert!(!removed(&request, "something else".to_owned()));
    for name in ["w60000", "w60000.x", "wx.1", "q", "qx.api_calls"] {
        assert!(!removed(&request, name.to_owned()), "{name}");
    }
    request.now = Timestamp::from_s(period.start + 48 * HOUR_S);
    assert!(
        !removed(&request, quota_name(&request)),
        "whoever is two days behind still reads it"
    );

    // A minute is asked for until the next one is over.
    let name = || "w60000.100".to_owned();
    let at = |request: &mut Demand, ms| {
        request.now = Timestamp::from_ms(ms);
        removed(request, name())
    };
    assert!(!at(&mut request, 102 * 60_000 - 1));
    assert!(at(&mut request, 102 * 60_000));
    // And a short window for ten seconds more, in which a slow clock may still write it.
    let short = |request: &mut Demand, ms| {
        request.now = Timestamp::from_ms(ms);
        removed(request, "w1000.100".to_owned())
    };
    assert!(!short(&mut request, 111_000));
    assert!(short(&mut request, 111_001));
}

#[test]
fn a_caller_is_told_what_is_left_of_every_limit_that_holds() {
    let mut request = demand("start", ("api_calls", None), 1, 0);
    request.now = Timestamp::from_ms(START * 1_000 + 15_000);
    let ten = |back| format!("w10000.{}", START / 10 + 1 - back);
    let told = standing(
        &request,
        &item(&[
            (window(60, 1, ""), 20),
            (window(60, 0, ""), 7),
            (ten(0), 1),
            (ten(1), 3),
            (quota_name(&request), 300),
        ]),
        None,
    );
    let of = |units, s| {
        told.rates
            .iter()
            .find(|known| known.rate == all(per(units, s)))
            .expect("a limit")
    };
    // Three quarters of the last minute's 20 are still inside; of the last ten seconds' 3 a half, rounded up.
    assert_eq!(of(60, 60).remaining, 60 - 7 - 15);
    assert_eq!(of(60, 60).reset, Timestamp::from_s(START + 60));
    assert_eq!(of(5, 10).remaining, 5 - 1 - 2);
    assert_eq!(of(5, 10).reset, Timestamp::from_s(START + 20));
    assert_eq!((told.quota.included, told.quota.used), (Some(1_000), 300));
    assert_eq!(told.quota.reset.s(), request.cycle.current.end);

    // Sealed early: what counts is the bucket that is open, and its period.
    let late = Counters {
        sealed: request.cycle.current.end - HOUR_S,
        ..item(&[])
    };
    let next = request.cycle.period_at(request.cycle.current.end);
    assert_eq!(standing(&request, &late, None).quota.reset.s(), next.end);
}

#[test]
fn a_caller_who_is_denied_is_told_of_what_denied() {
    // A minute that was full at its end still counts in the next one.
    let request = demand("team", ("api_calls", None), 1, 0);
    let full = item(&[(window(60, 0, ""), 50), (quota_name(&request), 7)]);
    let Judgement::Denied(denied) = judge(&request, &full) else {
        panic!("it is full")
    };
    let admitted_at = denied.not_before.expect("at some time");
    let of = |told: &Standing, units| {
        let known = told.rates.iter().find(|known| known.rate.limit.units == units);
        known.expect("a limit").clone()
    };
    let told = standing(&request, &full, Some(&denied));
    assert!(admitted_at > Timestamp::from_s(START + 60));
    assert_eq!(of(&told, 50).reset, admitted_at);
    assert_eq!(
        of(&told, 500).reset,
        of(&standing(&request, &full, None), 500).reset,
        "others end when they do"
    );
    assert_eq!((told.quota.included, told.quota.used), (Some(25_000), 7));
    assert_eq!(message(&denied, &told), "The limit of 50 per 60 s is used up.");

    let search = demand("team", ("api_calls", Some("search")), 2, 0);
    let full = item(&[
        (format!("q{START}@search.{}", search.plan), 49),
        (quota_name(&search), 60),
    ]);
    let Judgement::Denied(denied) = judge(&search, &full) else {
        panic!("it is full")
    };
    let told = standing(&search, &full, Some(&denied));
    assert_eq!((told.quota.included, told.quota.used), (Some(50), 49));
    assert_eq!(
        message(&denied, &told),
        "Of the 50 units on search of this billing period are 1 left, and the request takes more."
    );
    let used = standing(
        &search,
        &item(&[(format!("q{START}@search.{}", search.plan), 50)]),
        Some(&denied),
    );
    assert_eq!(
        message(&denied, &used),
        "The 50 units on search of this billing period are used up."
    );

    let costly = demand("team", ("api_calls", None), 20, 0);
    let nearly = item(&[(window(60, 0, ""), 35)]);
    let Judgement::Denied(denied) = judge(&costly, &nearly) else {
        panic!("it takes more than is left")
    };
    assert_eq!(
        message(&denied, &standing(&costly, &nearly, Some(&denied))),
        "Of the limit of 50 per 60 s are 15 left, and the request takes more."
    );
}

fn message(denial: &Denial, told: &Standing) -> String {
    let context = answer::denied(denial, told, 80, Timestamp::from_s(START));
    let message = context.into_iter().find(|(name, _)| *name == "message");
    message.expect("a message").1
}

#[test]
fn only_what_may_never_be_exceeded_is_closed_when_the_table_does_not_answer() {
    for (tier, outage) in [("start", Outage::Open), ("team", Outage::Closed), ("big", Outage::Open)] {
        assert_eq!(on_outage(&demand(tier, ("api_calls", None), 1, 0)), outage, "{tier}");
    }
    let mut request = demand("team", ("api_calls", Some("search")), 1, 0);
    request.quotas[0].cap = None;
    assert_eq!(on_outage(&request), Outage::Closed, "the group blocks");
    request.quotas[1].included = None;
    assert_eq!(on_outage(&request), Outage::Open, "blocks at nothing");
}

proptest! {
    #[test]
    fn the_shards_hold_all_units_and_none_has_two_more_than_another(units: u64, shards in 0u32..40) {
        let parts: Vec<u64> = (0..shards.max(1)).map(|shard| share(units, shard, shards)).collect();
        prop_assert_eq!(parts.iter().map(|&part| u128::from(part)).sum::<u128>(), u128::from(units));
        let (least, most) = (parts.iter().min().expect("one"), parts.iter().max().expect("one"));
        prop_assert!(most - least <= 1);
    }
}
