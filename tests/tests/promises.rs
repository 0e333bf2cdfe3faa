//! What a customer was promised, kept to the unit where plans, periods and clocks meet.

use std::sync::Arc;

use farebox_billing::{Offer, Sale, When};
use farebox_core::{
    account::{Contact, Customer, Standing},
    money::Money,
    tiers::{DEFAULT_METER, Overrides},
    time::Timestamp,
};
use farebox_local::{Sold, System};
use farebox_tests::{Answer, START_S, call, environment, event, sell, stripe, system};

const DAY_S: u64 = 86_400;

const TIERS: &str = "
tiers:
  free: {price: 0, included_calls: 10/month, rate_limit: unlimited, endpoints: [/v1/*]}
  pro: {price: 49/month, included_calls: 20/month, rate_limit: unlimited, endpoints: [/v1/*], overage: $0.10/call, trial_days: TRIAL}
  scale: {price: 99/month, included_calls: 30/month, rate_limit: unlimited, endpoints: [/v1/*], overage: $0.05/call}";

async fn start(trial_days: u32) -> Arc<System> {
    system(&TIERS.replace("TRIAL", &trial_days.to_string()), 1).await
}

async fn ask(system: &System, sold: &Sold) -> Answer {
    call(system, &environment(system, 0), &sold.key, "/v1/x").await
}

/// So many calls are let in, and the next one is not.
async fn are_let_in(system: &System, sold: &Sold, n: u64, then: &str) {
    for nth in 1..=n {
        assert_eq!(ask(system, sold).await, Answer::Admitted, "call {nth} of {n}");
    }
    let answer = ask(system, sold).await;
    assert!(matches!(&answer, Answer::Denied(code, _) if code == then), "{answer:?}");
}

async fn change(system: &System, tier: &str, when: When) -> Customer {
    let offer = Offer {
        tier: tier.to_owned(),
        catalog: system.catalog.0,
        overrides: Overrides::default(),
        when,
    };
    let id = "acme".to_owned().try_into().expect("an id");
    system.books.change_tier(&id, offer).await.expect("changed")
}

async fn record(system: &System) -> Customer {
    let id = "acme".to_owned().try_into().expect("an id");
    system.books.customer(&id).await.expect("there")
}

fn clock(system: &System, s: u64) {
    system.clock().set(Timestamp::from_s(s));
}

async fn run_until(system: &Arc<System>, s: u64) {
    system.run_until(Timestamp::from_s(s)).await.expect("runs");
}

/// What Stripe has counted for `acme`, by the tier whose plan names the meter.
async fn in_stripe(system: &System) -> Vec<(String, u64)> {
    let customer = record(system).await;
    let snapshot = system.services.stand_in.snapshot();
    let customers = snapshot["customers"].as_array().into_iter().flatten();
    let mut sums = Vec::new();
    for known in customers.filter(|known| known["id"].as_str() == customer.stripe_customer.as_deref()) {
        for (name, sum) in known["meters"].as_object().into_iter().flatten() {
            let tier = ["free", "pro", "scale"].into_iter().find(|tier| name.contains(tier));
            sums.push((tier.unwrap_or(name).to_owned(), sum.as_u64().unwrap_or(0)));
        }
    }
    sums.retain(|(_, sum)| *sum > 0);
    sums.sort_unstable();
    sums
}

fn sums(wanted: &[(&str, u64)]) -> Vec<(String, u64)> {
    wanted.iter().map(|&(tier, sum)| (tier.to_owned(), sum)).collect()
}

async fn update_subscription(system: &System, form: &str) {
    let subscription = record(system).await.stripe_subscription.expect("subscribed");
    let (status, answer) = stripe(system, "POST", &format!("/v1/subscriptions/{subscription}"), form).await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test]
async fn what_is_given_on_a_plan_is_not_taken_off_what_another_one_counted() {
    let system = start(0).await;
    let sold = sell(&system, "free").await;
    for _ in 0..8 {
        assert_eq!(ask(&system, &sold).await, Answer::Admitted);
    }
    clock(&system, START_S + 1_200);
    change(&system, "pro", When::Now).await;
    let id = &sold.customer.id;
    system.books.grant(id, DEFAULT_METER, 10, "sorry").await.expect("given");
    let capped = system.books.cap(id, DEFAULT_METER, Some(Money(100))).await;
    capped.expect("capped");
    // The hour before the change is reported first.
    run_until(&system, START_S + 7_200).await;
    assert_eq!(in_stripe(&system).await, sums(&[("free", 8)]));
    // 20 included, 10 given, and ten at ten cents.
    are_let_in(&system, &sold, 40, "spend_cap_reached").await;
    run_until(&system, START_S + 4 * 3_600).await;
    assert_eq!(in_stripe(&system).await, sums(&[("free", 8), ("pro", 30)]));
}

#[tokio::test]
async fn what_is_given_in_a_new_period_is_not_taken_off_the_last_hour_of_the_one_before() {
    let system = start(0).await;
    let sold = sell(&system, "pro").await;
    let end = sold.customer.cycle.current.end;
    run_until(&system, end - 600).await;
    for _ in 0..7 {
        assert_eq!(ask(&system, &sold).await, Answer::Admitted);
    }
    run_until(&system, end + 60).await;
    let id = &sold.customer.id;
    system.books.grant(id, DEFAULT_METER, 5, "sorry").await.expect("given");
    run_until(&system, end + 7_200).await;
    assert_eq!(in_stripe(&system).await, sums(&[("pro", 7)]));
    for _ in 0..6 {
        assert_eq!(ask(&system, &sold).await, Answer::Admitted);
    }
    run_until(&system, end + 4 * 3_600).await;
    assert_eq!(in_stripe(&system).await, sums(&[("pro", 7 + 6 - 5)]));
}

#[tokio::test]
async fn the_hundred_and_first_grant_of_a_period_gives_nothing() {
    let system = start(0).await;
    let sold = sell(&system, "pro").await;
    let id = &sold.customer.id;
    let give = async |n: u32| system.books.grant(id, DEFAULT_METER, 1, &format!("g{n}")).await;
    for n in 0..100 {
        give(n).await.expect("given");
    }
    let error = give(100).await.expect_err("too many").to_string();
    assert!(error.contains("give more at once"), "{error}");
    give(99).await.expect("that one was given");
    let balance = system.control.ledger.balance(id, DEFAULT_METER).await;
    assert_eq!(balance.expect("readable").granted, 100);
}

#[tokio::test]
async fn a_customers_own_cap_goes_with_a_change_that_is_made_in_stripe() {
    let system = start(0).await;
    let sold = sell(&system, "pro").await;
    let id = &sold.customer.id;
    let capped = system.books.cap(id, DEFAULT_METER, Some(Money(100))).await;
    capped.expect("capped");
    clock(&system, START_S + 60);
    let terms = system
        .control
        .terms_of(system.catalog.0, "scale", &Overrides::default())
        .await;
    let prices = system
        .books
        .ensure_plan(&terms.expect("a tier"))
        .await
        .expect("its prices");
    let subscription = sold.customer.stripe_subscription.as_deref().expect("subscribed");
    let subscription = system.services.stripe.subscription(subscription).await.expect("there");
    let is_base = |item: &&farebox_stripe::SubscriptionItem| !item.is_metered;
    let base = subscription.items.iter().find(is_base).expect("a base price");
    let form = format!(
        "items[0][id]={}&items[0][price]={}&proration_behavior=none",
        base.id, prices.base
    );
    update_subscription(&system, &form).await;
    run_until(&system, START_S + 120).await;
    assert_eq!(record(&system).await.phase_at(START_S + 120).tier, "scale");
    // 30 included, and twenty at five cents.
    are_let_in(&system, &sold, 50, "spend_cap_reached").await;
}

#[tokio::test]
async fn a_change_that_waits_begins_when_its_trial_is_ended_early() {
    for (waits, then) in [("scale", "scale"), ("free", "free")] {
        let system = start(14).await;
        let sold = sell(&system, "pro").await;
        clock(&system, START_S + 3 * DAY_S);
        let customer = change(&system, waits, When::PeriodEnd).await;
        let ahead = customer.phase_after(START_S + 3 * DAY_S).expect("a change ahead");
        assert_eq!(ahead.from, START_S + 14 * DAY_S);
        let ended = START_S + 5 * DAY_S;
        clock(&system, ended);
        update_subscription(&system, "trial_end=now").await;
        run_until(&system, ended + 120).await;
        let customer = record(&system).await;
        assert_eq!(customer.phase_at(ended + 120).tier, then);
        assert_eq!(customer.phase_after(ended + 120), None);
        assert_eq!(customer.cycle.current.start, ended);
        assert_eq!(ask(&system, &sold).await, Answer::Admitted);
    }
}

#[tokio::test]
async fn a_change_that_waits_goes_on_waiting_when_its_trial_is_extended() {
    let system = start(14).await;
    sell(&system, "pro").await;
    change(&system, "scale", When::PeriodEnd).await;
    let end = START_S + 20 * DAY_S;
    clock(&system, START_S + 5 * DAY_S);
    update_subscription(&system, &format!("trial_end={end}")).await;
    run_until(&system, START_S + 5 * DAY_S + 120).await;
    run_until(&system, START_S + 15 * DAY_S).await;
    let customer = record(&system).await;
    assert_eq!(customer.phase_at(START_S + 15 * DAY_S).tier, "pro");
    assert_eq!(
        customer.phase_after(START_S + 15 * DAY_S).map(|ahead| ahead.from),
        Some(end)
    );
    run_until(&system, end + 120).await;
    assert_eq!(record(&system).await.phase_at(end + 120).tier, "scale");
}

#[tokio::test]
async fn whoever_leaves_at_once_is_billed_for_what_a_clock_ahead_counted_in_the_next_hour() {
    let system = start(0).await;
    let sold = sell(&system, "pro").await;
    let now_s = START_S + 3_599;
    clock(&system, now_s);
    let ahead = Timestamp::from_s(now_s + 2);
    let answer = environment(&system, 0).handle(&event(&sold.key, "/v1/x"), ahead).await;
    assert_eq!(answer.expect("let in").code(), "ok");
    system
        .books
        .cancel(&sold.customer.id, When::Now)
        .await
        .expect("cancelled");
    assert_eq!(in_stripe(&system).await, sums(&[("pro", 1)]));
    assert_eq!(record(&system).await.standing, Standing::Ended);
}

#[tokio::test]
async fn whoever_was_deleted_in_stripe_can_be_sold_a_tier_again() {
    let system = start(0).await;
    let sold = sell(&system, "pro").await;
    let former = sold.customer.stripe_customer.clone().expect("in Stripe");
    let (status, answer) = stripe(&system, "DELETE", &format!("/v1/customers/{former}"), "").await;
    assert_eq!(status, 200, "{answer}");
    run_until(&system, START_S + 120).await;
    assert_eq!(record(&system).await.standing, Standing::Ended);
    let sale = Sale {
        id: sold.customer.id.clone(),
        name: "acme".to_owned(),
        tier: "scale".to_owned(),
        catalog: system.catalog.0,
        overrides: Overrides::default(),
        contact: Contact::default(),
        trial_days: None,
    };
    let customer = system.books.sell(sale).await.expect("sold again");
    assert_ne!(customer.stripe_customer, Some(former));
    assert_eq!(ask(&system, &sold).await, Answer::Admitted);
    run_until(&system, START_S + 7_200).await;
    assert_eq!(in_stripe(&system).await, sums(&[("scale", 1)]));
}
