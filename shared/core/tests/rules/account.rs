//! What a customer was sold, and what its standing does to a request.

use farebox_core::{
    account::{Contact, Customer, Grant, Hold, KeyRecord, KeyRefusal, Phase, Standing, WebhookSecret},
    key::Mode,
    ledger::Balance,
    tiers::{Interval, Limit, Overrides, PastDue, PastDuePolicy},
    time::{Cycle, HOUR_S, Timestamp},
};
use proptest::prelude::*;

/// 2026-01-31T10:00:00Z.
const START: u64 = 1_769_853_600;

fn phase(from: u64, tier: &str) -> Phase {
    Phase {
        from,
        tier: tier.to_owned(),
        catalog: 1,
        overrides: Overrides::default(),
        plan: format!("{tier}-00000000").parse().expect("a plan's name"),
    }
}

fn customer() -> Customer {
    Customer {
        id: "acme".to_owned().try_into().expect("an id"),
        name: "Acme".to_owned(),
        phases: vec![phase(0, "free")],
        offered: None,
        ends: None,
        is_leaving: false,
        cycle: Cycle::starting_at(START, Interval::Month),
        auth_epoch: 1,
        is_suspended: false,
        standing: Standing::Good,
        grants: Vec::new(),
        contact: Contact::default(),
        stripe_customer: None,
        stripe_subscription: None,
        next_slot: 1,
    }
}

#[test]
fn a_change_cuts_the_bucket_and_what_was_before_keeps_its_price() {
    let mut customer = customer();
    let change = START + 20 * 60;
    customer.begin(phase(change, "pro"), change).expect("taken");

    let before = customer.cycle.bucket_at(change - 1);
    let after = customer.cycle.bucket_at(change);
    assert_eq!((before.start, before.end), (START, change));
    assert_eq!((after.start, after.end), (change, START + HOUR_S));
    assert_eq!(customer.phase_at(before.start).tier, "free");
    assert_eq!(customer.phase_at(after.start).tier, "pro");
    assert_eq!(
        customer.cycle.period_at(change),
        customer.cycle.current,
        "the period goes on"
    );
}

#[test]
fn a_change_that_lies_ahead_begins_by_itself_and_can_be_dropped() {
    let mut customer = customer();
    let end = customer.cycle.current.end;
    customer.begin(phase(end, "small"), START).expect("taken");
    assert_eq!(customer.phase_at(end - 1).tier, "free");
    assert_eq!(customer.phase_at(end).tier, "small");
    assert_eq!(customer.phase_after(START).map(|phase| phase.from), Some(end));
    assert_eq!(customer.phase_after(end), None, "it has begun");
    assert_eq!(customer.phase_after(end - 1).map(|phase| phase.from), Some(end));

    // Another one in its place.
    customer.begin(phase(end, "large"), START + 1).expect("taken");
    assert_eq!(customer.phase_at(end).tier, "large");
    assert_eq!(customer.phases.len(), 2);

    assert!(customer.drop_change_ahead(START + 2));
    assert!(!customer.drop_change_ahead(START + 2));
    assert_eq!(customer.phase_at(end).tier, "free");
    assert_eq!(customer.cycle.cuts, Vec::<u64>::new());
}

#[test]
fn a_change_now_replaces_the_one_that_lies_ahead() {
    let mut customer = customer();
    let end = customer.cycle.current.end;
    customer.begin(phase(end, "small"), START).expect("taken");
    customer.begin(phase(START + 90, "pro"), START + 90).expect("taken");
    assert_eq!(customer.phase_at(end).tier, "pro");
    assert_eq!(customer.cycle.cuts, [START + 90]);
}

#[test]
fn buckets_stay_cut_where_earlier_changes_cut_them() {
    let mut customer = customer();
    let (first, second) = (START + 600, START + 1_200);
    customer.begin(phase(first, "pro"), first).expect("taken");
    customer.begin(phase(second, "scale"), second).expect("taken");
    assert_eq!(customer.cycle.cuts, [first, second]);
    assert_eq!(customer.cycle.bucket_at(first - 1).end, first);
    assert_eq!(customer.cycle.bucket_at(first).end, second);

    // Once nothing that old is reported any more, a cut is as old as its phase.
    let later = START + 100 * 86_400;
    customer.cycle.current = customer.cycle.period_at(later);
    customer.begin(phase(later, "pro"), later).expect("taken");
    assert_eq!(customer.cycle.cuts, [later]);
    assert_eq!(customer.phases.len(), 2, "the one that held, and the one that begins");
}

#[test]
fn what_can_still_be_reported_keeps_its_price_for_forty_days() {
    let expected: [(u64, &[&str], usize); 3] = [
        (39, &["free", "pro", "scale", "large"], 3),
        (40, &["pro", "scale", "large"], 2),
        (41, &["scale", "large"], 1),
    ];
    for (days, tiers, cuts) in expected {
        let mut customer = customer();
        customer.begin(phase(START, "pro"), START).expect("taken");
        let later = START + days * 86_400;
        customer.cycle.current = customer.cycle.period_at(later);
        customer.begin(phase(START + 60, "scale"), later).expect("taken");
        customer.begin(phase(later, "large"), later).expect("taken");
        let kept: Vec<&str> = customer.phases.iter().map(|phase| phase.tier.as_str()).collect();
        assert_eq!(kept, tiers, "after {days} days");
        assert_eq!(customer.cycle.cuts.len(), cuts, "after {days} days");
    }
}

#[test]
fn old_phases_are_forgotten_and_too_many_changes_are_refused() {
    let mut customer = customer();
    for n in 1..64 {
        customer.begin(phase(START + n, "pro"), START + n).expect("taken");
    }
    assert!(customer.begin(phase(START + 100, "pro"), START + 100).is_err());
    let later = START + 71 * 86_400;
    customer.cycle.current = customer.cycle.period_at(later);
    customer
        .begin(phase(later, "pro"), later)
        .expect("two periods later there is room");
    assert!(customer.phases.len() < 5);
    assert_eq!(customer.phase_at(later - 1).tier, "pro");
}

#[test]
fn each_standing_does_what_it_says() {
    let limit = Limit {
        units: 5,
        window_ms: 60_000,
    };
    let throttle = PastDue {
        grace_s: 7 * 86_400,
        policy: PastDuePolicy::Throttle(limit),
    };
    let block = PastDue {
        policy: PastDuePolicy::Block,
        ..throttle
    };
    let hold = |standing, past_due: &PastDue, now| {
        let customer = Customer { standing, ..customer() };
        match customer.hold(past_due, now) {
            Hold::None => "in",
            Hold::Throttle(_) => "slower",
            Hold::Refuse(refusal) => refusal.code,
        }
    };
    let past_due = Standing::PastDue { since: START };
    let grace_ends = START + throttle.grace_s;
    assert_eq!(hold(Standing::Good, &block, START), "in");
    assert_eq!(hold(past_due, &block, grace_ends - 1), "in");
    assert_eq!(hold(past_due, &block, grace_ends), "payment_overdue");
    assert_eq!(hold(past_due, &throttle, grace_ends), "slower");
    assert_eq!(
        hold(Standing::Unpaid, &throttle, START),
        "slower",
        "Stripe has given up: no grace"
    );
    assert_eq!(hold(Standing::Incomplete, &throttle, START), "subscription_incomplete");
    assert_eq!(hold(Standing::Paused, &throttle, START), "subscription_paused");
    assert_eq!(hold(Standing::Ended, &throttle, START), "subscription_ended");

    let ending = Customer {
        ends: Some(START + 10),
        ..customer()
    };
    assert_eq!(ending.hold(&block, START + 9), Hold::None);
    assert!(matches!(ending.hold(&block, START + 10), Hold::Refuse(_)));
    let suspended = Customer {
        is_suspended: true,
        ..customer()
    };
    assert!(matches!(suspended.hold(&block, START), Hold::Refuse(refusal) if refusal.code == "customer_suspended"));
}

#[test]
fn a_grace_is_told_in_days_and_where_it_is_none_of_whole_ones_in_seconds() {
    let told = |grace_s| {
        let policy = PastDuePolicy::Block;
        PastDue { grace_s, policy }.to_string()
    };
    assert_eq!(told(0), "block after 0d");
    assert_eq!(told(7 * 86_400), "block after 7d");
    assert_eq!(told(86_401), "block after 86401s");
}

#[test]
fn whoever_leaves_at_once_is_refused_whatever_the_clock_says() {
    let keep = PastDue {
        policy: PastDuePolicy::Keep,
        grace_s: 0,
    };
    let leaving = Customer {
        ends: Some(START),
        is_leaving: true,
        ..customer()
    };
    assert!(matches!(leaving.hold(&keep, START - 300), Hold::Refuse(refusal) if refusal.code == "subscription_ended"));
}

#[test]
fn a_record_without_a_phase_is_refused_when_it_is_read() {
    let mut record = serde_json::to_value(customer()).expect("a record is JSON");
    record["phases"] = serde_json::json!([]);
    let error = serde_json::from_value::<Customer>(record).expect_err("refused");
    assert_eq!(error.to_string(), "phases is empty: a customer has at least one");
}

#[test]
fn a_grant_counts_for_its_meter_and_its_period_only() {
    let mut customer = customer();
    customer.grants.push(Grant {
        id: "sorry".to_owned(),
        meter: "api_calls".to_owned(),
        units: 500,
        period: customer.cycle.current.start,
        plan: customer.phases[0].plan.clone(),
    });
    assert_eq!(customer.granted("api_calls", START), 500);
    assert_eq!(customer.granted("tokens", START), 0);
    assert_eq!(customer.granted("api_calls", customer.cycle.current.end), 0);
    customer.begin(phase(START + 60, "pro"), START + 60).expect("taken");
    assert_eq!(
        customer.granted("api_calls", START + 60),
        0,
        "another plan includes what it includes"
    );
}

#[test]
fn a_phase_of_the_running_period_is_not_forgotten_before_it_is_invoiced() {
    let mut customer = Customer {
        cycle: Cycle::starting_at(START, Interval::Year),
        ..customer()
    };
    let (march, june) = (START + 60 * 86_400, START + 150 * 86_400);
    customer.begin(phase(march, "pro"), march).expect("taken");
    customer.begin(phase(june, "scale"), june).expect("taken");
    assert_eq!(customer.phase_at(march - 1).tier, "free");
}

#[test]
fn a_webhook_secret_is_not_shown_by_debug() {
    let customer = Customer {
        contact: Contact {
            webhook_secrets: vec![WebhookSecret::new("whsec_planted".to_owned())],
            ..Contact::default()
        },
        ..customer()
    };
    let shown = format!("{customer:?}");
    assert!(!shown.contains("planted"));
    assert!(shown.contains("WebhookSecret(..)"), "that there is one is shown");
    assert_eq!(customer.contact.webhook_secrets[0].reveal(), "whsec_planted");
}

#[test]
fn a_key_opens_what_its_scopes_name_until_it_expires_or_is_revoked() {
    let now = Timestamp::from_s(START);
    let key = KeyRecord {
        customer: "acme".to_owned().try_into().expect("an id"),
        name: String::new(),
        prefix: "fb_live_abcd".to_owned(),
        last_four: "wxyz".to_owned(),
        mode: Mode::Live,
        scopes: Vec::new(),
        created: now,
        expires: None,
        revoked: None,
    };
    assert_eq!(key.check("GET", "/v1/reports", now), Ok(()), "no scopes: every route");

    let scoped = KeyRecord {
        scopes: vec![
            "GET /v1/reports".parse().expect("a route"),
            "GET /v1/users/*".parse().expect("a route"),
        ],
        ..key.clone()
    };
    assert_eq!(scoped.check("GET", "/v1/reports", now), Ok(()));
    assert_eq!(scoped.check("GET", "/v1/users/7", now), Ok(()));
    assert_eq!(scoped.check("POST", "/v1/reports", now), Err(KeyRefusal::OutOfScope));

    let expiring = KeyRecord {
        expires: Some(Timestamp::from_s(START + 1)),
        ..key.clone()
    };
    assert_eq!(expiring.check("GET", "/", now), Ok(()));
    assert_eq!(
        expiring.check("GET", "/", Timestamp::from_s(START + 1)),
        Err(KeyRefusal::Expired),
        "at that very moment"
    );

    let revoked = KeyRecord {
        revoked: Some(Timestamp::from_s(START + 60)),
        ..key
    };
    assert_eq!(
        revoked.check("GET", "/", now),
        Err(KeyRefusal::Revoked),
        "a clock that is behind opens nothing"
    );
}

proptest! {
    /// However a month is cut, its buckets follow each other without a gap and none is longer than an hour.
    #[test]
    fn cut_buckets_partition_time(cuts in prop::collection::vec(0u64..40 * HOUR_S, 0..12), at in 0u64..40 * HOUR_S) {
        let mut cycle = Cycle::starting_at(START + 777, Interval::Month);
        for cut in &cuts {
            cycle.cut(START + cut);
        }
        let bucket = cycle.bucket_at(START + at);
        prop_assert!(bucket.start <= START + at && START + at < bucket.end);
        prop_assert!(bucket.end - bucket.start <= HOUR_S);
        prop_assert_eq!(cycle.bucket_at(bucket.start), bucket);
        prop_assert_eq!(cycle.bucket_at(bucket.end - 1), bucket);
        prop_assert_eq!(cycle.bucket_at(bucket.end).start, bucket.end);
        prop_assert!(cuts.iter().all(|cut| START + cut <= bucket.start || START + cut >= bucket.end));
        // A sealed bucket is never entered again.
        prop_assert!(cycle.bucket_after_seal(START + at, bucket.start).start > bucket.start);
    }

    /// Whatever was given is taken off once: never more than there is, never more than a bucket has. What is given for a plan and a
    /// period is taken off there, whatever is used elsewhere.
    #[test]
    fn a_balance_is_taken_exactly_once(
        left_over in 0u64..300,
        before in prop::collection::vec(0u64..100, 0..5),
        granted in 1u64..1_000,
        buckets in prop::collection::vec((any::<bool>(), 0u64..100), 0..30),
    ) {
        let mut customer = customer();
        let period = customer.cycle.current;
        let upgrade = period.start + 480 * HOUR_S;
        customer.begin(phase(upgrade, "pro"), period.start).expect("a few changes");
        let id = "sorry".to_owned();
        let meter = "api_calls".to_owned();
        customer.grants.push(Grant { id, meter, units: granted, period: period.start, plan: customer.phases[0].plan.clone() });
        let mut balance = Balance { granted: left_over + granted, taken: 0 };
        let mut freeze = |at, units: u64| {
            let credit = customer.spendable("api_calls", at, balance).min(units);
            balance.taken += credit;
            units - credit
        };
        // Late rows of the period before, then buckets of either plan.
        let billed_before: u64 = before.iter().map(|&units| freeze(period.start - HOUR_S, units)).sum();
        let (mut own, mut billed, mut elsewhere) = (0, 0, 0);
        for (n, &(is_own, units)) in buckets.iter().enumerate() {
            let hour = n as u64 * HOUR_S;
            if is_own {
                own += units;
                billed += freeze(period.start + hour, units);
            } else {
                elsewhere += units - freeze(upgrade + hour, units);
            }
        }
        prop_assert!(balance.taken <= balance.granted);
        prop_assert!(billed <= own.saturating_sub(granted), "{billed} of {own} billed");
        let used_before: u64 = before.iter().sum();
        prop_assert_eq!(billed_before, used_before.saturating_sub(left_over));
        prop_assert!(elsewhere + used_before - billed_before <= left_over);
        // Once the period is over, what is left is anybody's.
        prop_assert_eq!(customer.spendable("api_calls", period.end, balance), balance.left());
    }
}
