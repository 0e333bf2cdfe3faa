use farebox_core::{
    account::{Contact, Customer, Hold, Phase, Standing},
    tiers::{Interval, Overrides, PastDue, PlanId},
    time::{Cycle, Period},
};
use farebox_stripe::{Invoice, ItemChange, Subscription, SubscriptionItem};
use proptest::prelude::*;

use super::{Concern, SoldPlan, agree, former_items, heir, is_invoiced, tend_key, unpaid_since};

const DAY: u64 = 86_400;
const MONTH: Period = Period {
    start: 1_769_853_600,
    end: 1_772_272_800,
};
const NOW: u64 = MONTH.start + 10 * DAY;

fn plan(name: &str) -> PlanId {
    format!("{name}-00000000").parse().expect("a plan")
}

fn phase(name: &str, from: u64) -> Phase {
    Phase {
        from,
        tier: name.to_owned(),
        catalog: 1,
        overrides: Overrides::default(),
        plan: plan(name),
    }
}

fn sold(name: &str) -> SoldPlan {
    SoldPlan {
        phase: phase(name, 0),
        interval: Interval::Month,
    }
}

fn customer() -> Customer {
    Customer {
        id: "acme".to_owned().try_into().expect("an id"),
        name: "Acme".to_owned(),
        phases: vec![phase("pro", 0)],
        offered: None,
        ends: None,
        is_leaving: false,
        cycle: Cycle {
            anchor: MONTH.start,
            interval: Interval::Month,
            current: MONTH,
            cuts: Vec::new(),
        },
        auth_epoch: 7,
        is_suspended: false,
        standing: Standing::Good,
        grants: Vec::new(),
        contact: Contact::default(),
        stripe_customer: Some("cus_1".to_owned()),
        stripe_subscription: Some("sub_1".to_owned()),
        next_slot: 1,
    }
}

fn signed(s: u64) -> i64 {
    i64::try_from(s).expect("a second of this century")
}

fn item(id: &str, key: &str, is_metered: bool) -> SubscriptionItem {
    SubscriptionItem {
        id: id.to_owned(),
        price: format!("price_{key}"),
        lookup_key: Some(key.to_owned()),
        price_metadata: Default::default(),
        product: None,
        is_metered,
        created: signed(MONTH.start),
        current_period_start: signed(MONTH.start),
        current_period_end: signed(MONTH.end),
    }
}

fn subscription(plan_name: &str) -> Subscription {
    let plan = plan(plan_name);
    Subscription {
        id: "sub_1".to_owned(),
        status: "active".to_owned(),
        customer: "cus_1".to_owned(),
        items: vec![
            item("si_usage", &plan.event_name("api_calls"), true),
            item("si_base", &plan.base_lookup_key(), false),
        ],
        billing_cycle_anchor: signed(MONTH.start),
        cancel_at_period_end: false,
        cancel_at: None,
        created: signed(MONTH.start),
        trial_start: None,
        trial_end: None,
        ended_at: None,
        pause_collection: false,
        latest_invoice: None,
        livemode: false,
        metadata: Default::default(),
    }
}

fn invoice(status: &str, finalized_at: Option<u64>, period_end: u64) -> Invoice {
    Invoice {
        id: "in_1".to_owned(),
        status: Some(status.to_owned()),
        billing_reason: Some("subscription_cycle".to_owned()),
        subscription: Some("sub_1".to_owned()),
        customer: Some("cus_1".to_owned()),
        total: 0,
        amount_due: 0,
        amount_remaining: 0,
        attempt_count: 1,
        next_payment_attempt: None,
        finalized_at: finalized_at.map(signed),
        hosted_invoice_url: None,
        currency: "usd".to_owned(),
        period_start: 0,
        period_end: signed(period_end),
        lines: Vec::new(),
    }
}

/// What agrees already stays byte for byte: nothing is written, no counter is told.
#[test]
fn nothing_to_change_changes_nothing() {
    let (customer, concerns) = agree(&customer(), &subscription("pro"), Some(&sold("pro")), None, NOW);
    assert_eq!((customer, concerns), (self::customer(), vec![]));
}

#[test]
fn another_base_price_begins_at_once_and_cuts_the_bucket() {
    let (customer, _) = agree(&customer(), &subscription("scale"), Some(&sold("scale")), None, NOW + 5);
    assert_eq!(customer.phases, [phase("pro", 0), phase("scale", NOW + 5)]);
    assert_eq!(customer.cycle.bucket_at(NOW + 5).start, NOW + 5);
    assert_eq!(customer.cycle.bucket_at(NOW + 4).end, NOW + 5);
}

#[test]
fn an_offer_begins_when_it_was_offered_for() {
    for (offered_from, begins) in [(0, NOW), (MONTH.end, MONTH.end)] {
        let mut seen = customer();
        seen.offered = Some(Phase {
            overrides: Overrides {
                limits: Some(Vec::new()),
                ..Overrides::default()
            },
            ..phase("scale", offered_from)
        });
        // As long as Stripe has the old price, nothing begins.
        let (waiting, _) = agree(&seen, &subscription("pro"), Some(&sold("pro")), None, NOW);
        assert_eq!(waiting, seen);
        let (begun, _) = agree(&seen, &subscription("scale"), Some(&sold("scale")), None, NOW);
        let offered = seen.offered.clone().expect("offered");
        assert_eq!(
            begun.phases[1],
            Phase {
                from: begins,
                ..offered
            }
        );
        assert_eq!(begun.offered, None);
        let (again, _) = agree(&begun, &subscription("scale"), Some(&sold("scale")), None, NOW + DAY);
        assert_eq!(again, begun);
    }
}

/// Units of the past must not change their price because of an offer that nobody took up in time: they were counted, and maybe
/// reported, under the plan before.
#[test]
fn an_offer_whose_time_has_passed_begins_now() {
    for offered_from in [MONTH.start - DAY, MONTH.start, NOW - 1, NOW] {
        let mut seen = customer();
        seen.offered = Some(phase("scale", offered_from));
        let mut changed = subscription("scale");
        let old = item("si_old", &plan("pro").event_name("api_calls"), true);
        changed.items.push(old);
        let (begun, _) = agree(&seen, &changed, Some(&sold("scale")), None, NOW);
        assert_eq!(begun.phases, [phase("pro", 0), phase("scale", NOW)]);
        // What was counted in this period under the old plan is not invoiced yet.
        assert_eq!(former_items(&begun, &changed), []);
    }
}

/// Stripe has the price of the plan in force: the change that waits for the period's end is none any more.
#[test]
fn a_change_ahead_that_stripe_took_back_is_dropped() {
    let mut seen = customer();
    seen.begin(phase("free", MONTH.end), NOW).expect("begins");
    let (waiting, _) = agree(&seen, &subscription("free"), Some(&sold("free")), None, NOW);
    assert_eq!(waiting, seen);
    let (back, _) = agree(&seen, &subscription("pro"), Some(&sold("pro")), None, NOW);
    assert_eq!(back, customer());

    // The same plan with another limit is still to come.
    let mut other_limit = customer();
    let ahead = Phase {
        overrides: Overrides {
            limits: Some(Vec::new()),
            ..Overrides::default()
        },
        ..phase("pro", MONTH.end)
    };
    other_limit.begin(ahead, NOW).expect("begins");
    let (after, _) = agree(&other_limit, &subscription("pro"), Some(&sold("pro")), None, NOW);
    assert_eq!(after, other_limit);
}

/// Phases are forgotten after a while, and a year is longer than that: usage of a plan that no phase names any more is invoiced
/// at the year's end.
#[test]
fn items_of_a_forgotten_plan_stay_until_the_year_is_over() {
    let year = Period {
        start: MONTH.start,
        end: MONTH.start + 365 * DAY,
    };
    let mut seen = customer();
    seen.cycle = Cycle::starting_at(year.start, Interval::Year);
    seen.phases = vec![
        phase("scale", year.start + 60 * DAY),
        phase("free", year.start + 120 * DAY),
    ];
    let mut changed = subscription("free");
    let mut old = item("si_old", &plan("pro").event_name("api_calls"), true);
    // Of the year before: its own age tells nothing.
    old.created = signed(year.start - 100 * DAY);
    changed.items.push(old);
    for item in &mut changed.items {
        (item.current_period_start, item.current_period_end) = (signed(year.start), signed(year.end));
    }
    assert_eq!(former_items(&seen, &changed), []);

    // In the year after, whose start the oldest phase knows, it can go.
    for item in &mut changed.items {
        (item.current_period_start, item.current_period_end) = (signed(year.end), signed(year.end + 365 * DAY));
    }
    seen.cycle.current = Period {
        start: year.end,
        end: year.end + 365 * DAY,
    };
    let former = former_items(&seen, &changed);
    let ids: Vec<(&str, u64)> = former.iter().map(|(item, until)| (item.id.as_str(), *until)).collect();
    assert_eq!(ids, [("si_old", year.end)], "once the year's own invoice is final");
}

#[test]
fn a_change_of_items_is_named_by_all_of_it() {
    let add = |price: &str| ItemChange::Add {
        price: price.to_owned(),
    };
    let remove = |item: &str, clear_usage| ItemChange::Remove {
        item: item.to_owned(),
        clear_usage,
    };
    let key = |items: &[ItemChange]| tend_key("sub_1", items, NOW);
    let changes = [
        vec![add("a"), add("b")],
        vec![add("a"), add("c")],
        vec![add("a"), remove("b", false)],
        vec![add("a"), remove("b", true)],
        vec![remove("a", false), remove("b", false)],
    ];
    let mut keys: Vec<String> = changes.iter().map(|items| key(items)).collect();
    assert_eq!(keys[0], key(&[add("b"), add("a")]));
    assert_ne!(keys[0], tend_key("sub_1", &changes[0], NOW + 3_600));
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), changes.len());
}

#[test]
fn what_holds_already_is_offered_to_take_back_a_change_ahead() {
    let mut seen = customer();
    seen.begin(phase("free", MONTH.end), NOW).expect("begins");
    seen.offered = Some(phase("pro", 0));
    let (back, _) = agree(&seen, &subscription("pro"), Some(&sold("pro")), None, NOW);
    assert_eq!(back, customer());
}

#[test]
fn a_price_of_nobody_leaves_the_tier_and_tells() {
    let mut of_somebody = subscription("pro");
    of_somebody.items[1].lookup_key = None;
    let (after, concerns) = agree(&customer(), &of_somebody, None, None, NOW);
    assert_eq!(after, customer());
    let price = Some(of_somebody.items[1].price.clone());
    assert_eq!(concerns, [Concern::UnknownPlan { price }]);
}

#[test]
fn every_status_has_a_standing_and_an_unknown_one_leaves_it() {
    let since = MONTH.start + 3_600;
    for (status, standing) in [
        ("active", Standing::Good),
        ("trialing", Standing::Good),
        ("past_due", Standing::PastDue { since }),
        ("unpaid", Standing::Unpaid),
        ("incomplete", Standing::Incomplete),
        ("paused", Standing::Paused),
        ("canceled", Standing::Ended),
        ("incomplete_expired", Standing::Ended),
        ("sleeping", Standing::Good),
    ] {
        let mut subscription = subscription("pro");
        subscription.status = status.to_owned();
        let (after, concerns) = agree(&customer(), &subscription, Some(&sold("pro")), Some(since), NOW);
        assert_eq!(after.standing, standing, "{status}");
        assert_eq!(concerns.len(), usize::from(status == "sleeping"), "{status}");
    }
}

#[test]
fn an_end_in_stripe_is_ours_and_goes_when_it_is_taken_back() {
    let mut ending = subscription("pro");
    ending.cancel_at_period_end = true;
    let (after, _) = agree(&customer(), &ending, Some(&sold("pro")), None, NOW);
    assert_eq!(after.ends, Some(MONTH.end));
    ending.cancel_at = Some(signed(NOW + DAY));
    let (after, _) = agree(&after, &ending, Some(&sold("pro")), None, NOW);
    assert_eq!(after.ends, Some(NOW + DAY));
    let (after, _) = agree(&after, &subscription("pro"), Some(&sold("pro")), None, NOW);
    assert_eq!(after.ends, None);
}

/// Cancelling at once first lets nobody in, then reports, then asks Stripe: an event in between must not open the door again.
#[test]
fn whoever_is_ending_a_subscription_is_not_undone() {
    let mut seen = customer();
    seen.ends = Some(NOW - 60);
    seen.is_leaving = true;
    let mut ending = subscription("pro");
    ending.cancel_at_period_end = true;
    for subscription in [subscription("pro"), ending] {
        // Whoever looks may have a clock that is behind.
        for now in [NOW, NOW - 90] {
            let (after, _) = agree(&seen, &subscription, Some(&sold("pro")), None, now);
            assert_eq!((after.ends, after.is_leaving), (Some(NOW - 60), true));
        }
    }
    let (after, _) = agree(&seen, &subscription("pro"), Some(&sold("pro")), None, NOW);
    // It never happened: the next period is paid.
    let mut next = subscription("pro");
    for item in &mut next.items {
        item.current_period_start = signed(MONTH.end);
        item.current_period_end = signed(MONTH.end + 31 * DAY);
    }
    let (after, _) = agree(&after, &next, Some(&sold("pro")), None, MONTH.end + 60);
    assert_eq!((after.ends, after.is_leaving), (None, false));
}

/// Taken back seconds before the end, and followed seconds after it.
#[test]
fn an_end_in_the_middle_of_a_period_that_was_taken_back_locks_nobody_out() {
    let mut ending = subscription("pro");
    ending.cancel_at = Some(signed(NOW));
    let (seen, _) = agree(&customer(), &ending, Some(&sold("pro")), None, NOW - DAY);
    assert_eq!(seen.ends, Some(NOW));
    let (after, _) = agree(&seen, &subscription("pro"), Some(&sold("pro")), None, NOW + 3);
    assert_eq!(after.ends, None);
}

#[test]
fn a_new_anchor_leaves_buckets_cut_where_they_were() {
    let mut anew = subscription("pro");
    let from = NOW + 1_234;
    anew.billing_cycle_anchor = signed(from);
    for item in &mut anew.items {
        item.current_period_start = signed(from);
        item.current_period_end = signed(from + 28 * DAY);
    }
    let mut seen = customer();
    // Periods that don't start on the hour.
    seen.cycle = Cycle::starting_at(MONTH.start + 700, Interval::Month);
    let before = seen.cycle.bucket_at(MONTH.start + 700);
    let (after, _) = agree(&seen, &anew, Some(&sold("pro")), None, from + 10);
    assert_eq!(after.cycle.bucket_at(MONTH.start + 700), before);
    assert_eq!(after.cycle.bucket_at(from).start, from);
    assert_eq!(after.cycle.bucket_at(from - 1).end, from);
}

/// The grace begins with the first of the invoices that are unpaid in a row, whenever we notice and however many follow.
#[test]
fn unpaid_since_the_first_of_the_newest_unpaid_invoices() {
    let (day1, day2, day3) = (MONTH.start, MONTH.start + DAY, MONTH.start + 2 * DAY);
    let newest_first = [
        invoice("draft", None, 4),
        invoice("open", Some(day3), 3),
        invoice("void", Some(day3), 3),
        invoice("open", Some(day2), 2),
        invoice("paid", Some(day1), 1),
        invoice("open", Some(1), 0),
    ];
    assert_eq!(unpaid_since(&newest_first, "sub_1"), Some(day2));
    assert_eq!(unpaid_since(&newest_first[4..], "sub_1"), None);
    assert_eq!(unpaid_since(&newest_first, "sub_2"), None);
}

#[test]
fn items_of_a_former_plan_stay_until_their_last_usage_is_invoiced() {
    let mut seen = customer();
    seen.begin(phase("scale", NOW), NOW).expect("begins");
    let mut changed = subscription("scale");
    let old = item("si_old", &plan("pro").event_name("api_calls"), true);
    changed.items.push(old);
    changed.items.push(SubscriptionItem {
        lookup_key: Some("somebody_else_metered".to_owned()),
        ..item("si_else", "x", true)
    });
    assert_eq!(former_items(&seen, &changed), []);

    for item in &mut changed.items {
        item.current_period_start = signed(MONTH.end);
        item.current_period_end = signed(MONTH.end + 31 * DAY);
    }
    let (next, _) = agree(&seen, &changed, Some(&sold("scale")), None, MONTH.end);
    let former = former_items(&next, &changed);
    let ids: Vec<(&str, u64)> = former.iter().map(|(item, until)| (item.id.as_str(), *until)).collect();
    assert_eq!(ids, [("si_old", MONTH.end)]);

    let now = MONTH.end + 3_600;
    for (invoices, is_over) in [
        (vec![], false),
        (vec![invoice("draft", None, MONTH.end)], false),
        (vec![invoice("open", Some(now), MONTH.end)], true),
        (vec![invoice("paid", Some(now), MONTH.start)], false),
    ] {
        assert_eq!(is_invoiced(MONTH.end, &invoices, "sub_1", now), is_over, "{invoices:?}");
    }
    assert!(is_invoiced(MONTH.end, &[], "sub_1", MONTH.end + 4 * DAY));

    // Offered again, or back in force: it stays.
    let mut offered = next.clone();
    offered.offered = Some(phase("pro", 0));
    assert_eq!(former_items(&offered, &changed), []);
}

#[test]
fn the_heir_is_the_one_that_lets_most_through() {
    let of = |id: &str, status: &str, created: u64| Subscription {
        id: id.to_owned(),
        status: status.to_owned(),
        created: signed(created),
        ..subscription("pro")
    };
    let mut of_others = of("sub_others", "active", 9);
    of_others.items.truncate(1);
    let all = [
        of("sub_ended", "canceled", 8),
        of_others,
        of("sub_late", "past_due", 7),
        of("sub_old", "active", 3),
        of("sub_new", "trialing", 4),
    ];
    let heir = |n: usize| heir(all[..n].to_vec()).map(|subscription| subscription.id);
    assert_eq!(heir(5).as_deref(), Some("sub_new"));
    assert_eq!(heir(4).as_deref(), Some("sub_old"));
    assert_eq!(heir(3).as_deref(), Some("sub_late"));
    assert_eq!(heir(2), None);
}

fn any_subscription() -> impl Strategy<Value = Subscription> {
    let statuses = [
        "active",
        "trialing",
        "past_due",
        "unpaid",
        "incomplete",
        "paused",
        "canceled",
        "incomplete_expired",
        "sleeping",
    ];
    (
        prop::sample::select(statuses.to_vec()),
        prop::sample::select(vec!["pro", "scale", "free"]),
        prop::option::of(0..60 * DAY),
        any::<bool>(),
        0..90 * DAY,
        0..40 * DAY,
        any::<bool>(),
    )
        .prop_map(|(status, name, cancel, at_period_end, start, created, moves)| {
            let mut subscription = subscription(name);
            subscription.status = status.to_owned();
            subscription.cancel_at_period_end = at_period_end;
            subscription.cancel_at = cancel.map(|s| signed(MONTH.start + s));
            if status == "canceled" {
                subscription.ended_at = subscription.cancel_at;
            }
            let start = MONTH.start + if moves { start } else { 0 };
            if moves {
                subscription.billing_cycle_anchor = signed(start);
            }
            for item in &mut subscription.items {
                item.created = signed(MONTH.start + created);
                item.current_period_start = signed(start);
                item.current_period_end = signed(start + 30 * DAY);
            }
            subscription
        })
}

fn any_customer() -> impl Strategy<Value = Customer> {
    let names = || prop::sample::select(vec!["pro", "scale", "free"]);
    let offered = prop::option::of((names(), prop::sample::select(vec![0, MONTH.end])));
    let ends = prop::option::of((0..60 * DAY, any::<bool>()));
    (names(), prop::option::of((names(), 1..9 * DAY)), offered, ends).prop_map(|(first, second, offered, ends)| {
        let mut customer = customer();
        customer.phases = vec![phase(first, 0)];
        if let Some((name, after)) = second.filter(|(name, _)| *name != first) {
            customer
                .begin(phase(name, MONTH.start + after), MONTH.start + after)
                .expect("begins");
        }
        customer.offered = offered.map(|(name, from)| phase(name, from));
        customer.ends = ends.map(|(s, _)| MONTH.start + s);
        customer.is_leaving = ends.is_some_and(|(_, is_leaving)| is_leaving);
        customer
    })
}

fn is_sorted(of: &[u64]) -> bool {
    of.windows(2).all(|pair| pair[0] < pair[1])
}

proptest! {
    /// However often, and whenever, the same subscription is looked at: the first look settles it. So neither duplicates nor
    /// the order of events can show in the record, only how the subscription stands in the end.
    #[test]
    fn looking_again_changes_nothing(
        seen in any_customer(), subscription in any_subscription(), unpaid in prop::option::of(0..60 * DAY), later in 0..80 * DAY,
    ) {
        let name = super::base_plan(&subscription).expect("a plan").to_string();
        let sold = sold(name.split('-').next().unwrap_or_default());
        let unpaid = unpaid.map(|s| MONTH.start + s);
        let (once, concerns) = agree(&seen, &subscription, Some(&sold), unpaid, NOW);
        let (twice, same) = agree(&once, &subscription, Some(&sold), unpaid, NOW + later);
        prop_assert_eq!(concerns, same);
        prop_assert_eq!(&twice, &once);
    }

    #[test]
    fn the_record_stays_sound_and_says_what_stripe_says(
        seen in any_customer(), subscription in any_subscription(),
    ) {
        let plan = super::base_plan(&subscription).expect("a plan");
        let sold = sold(plan.as_str().split('-').next().unwrap_or_default());
        let (after, _) = agree(&seen, &subscription, Some(&sold), Some(MONTH.start), NOW);
        prop_assert!(is_sorted(&after.phases.iter().map(|phase| phase.from).collect::<Vec<_>>()));
        prop_assert!(is_sorted(&after.cycle.cuts));
        let current = super::period(&subscription).expect("a period");
        prop_assert_eq!(after.cycle.period_at(current.start), current);
        prop_assert_eq!(after.cycle.period_at(current.end - 1), current);
        // What was counted keeps its price.
        prop_assert_eq!(&after.phase_at(NOW - 1).plan, &seen.phase_at(NOW - 1).plan);
        let has_ended = matches!(subscription.status.as_str(), "canceled" | "incomplete_expired");
        if !has_ended {
            let last = after.phases.last().expect("a phase");
            let is_sold = last.plan == plan || after.phase_at(NOW).plan == plan;
            prop_assert!(is_sold, "{:?} lacks {}", after.phases, plan);
        }
        let refused = matches!(after.hold(&PastDue::default(), NOW), Hold::Refuse(_));
        let must_refuse = has_ended
            || matches!(subscription.status.as_str(), "incomplete" | "paused")
            || after.is_leaving
            || after.ends.is_some_and(|ends| ends <= NOW);
        prop_assert_eq!(refused, must_refuse);
    }
}
