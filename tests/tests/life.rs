//! A customer's life: it changes its tier in the middle of a month, is given units, is capped, and leaves.

use std::sync::Arc;

use farebox_aws::control::NewKey;
use farebox_billing::{Offer, Sale, When};
use farebox_core::{
    account::{Contact, Customer, Standing},
    key::Mode,
    money::Money,
    tiers::{Catalog, DEFAULT_METER, Overrides},
    time::{Period, Timestamp},
};
use farebox_local::{Sold, System};
use farebox_stripe::{Invoice, MeterEvent};
use farebox_stripe_standin::{Fault, FaultKind};
use farebox_tests::{Answer, START_S, call, environment, sell, system, units};

const TIERS: &str = "
tiers:
  free: {price: 0, included_calls: 10/month, rate_limit: unlimited, endpoints: [/v1/*]}
  pro: {price: 49/month, included_calls: 20/month, rate_limit: unlimited, endpoints: [/v1/*], overage: $0.10/call}
  scale: {price: 99/month, included_calls: 30/month, rate_limit: unlimited, endpoints: [/v1/*], overage: $0.05/call}
  yearly: {price: 990/year, included_calls: 300/year, rate_limit: unlimited, endpoints: [/v1/*], overage: $0.05/call}";

async fn calls(system: &System, sold: &Sold, n: usize) {
    for _ in 0..n {
        let answer = call(system, &environment(system, 0), &sold.key, "/v1/x").await;
        assert_eq!(answer, Answer::Admitted);
    }
}

async fn change(system: &System, tier: &str, when: When) {
    let offer = Offer {
        tier: tier.to_owned(),
        catalog: system.catalog.0,
        overrides: Overrides::default(),
        when,
    };
    let id = "acme".to_owned().try_into().expect("an id");
    system.books.change_tier(&id, offer).await.expect("changed");
}

fn clock(system: &System, s: u64) {
    system.clock().set(Timestamp::from_s(s));
}

async fn run_until(system: &Arc<System>, s: u64) {
    system.run_until(Timestamp::from_s(s)).await.expect("runs");
}

/// All invoices of a customer.
async fn invoices(system: &System, sold: &Sold) -> Vec<Invoice> {
    let in_stripe = sold.customer.stripe_customer.as_deref().expect("in Stripe");
    let invoices = system.services.stripe.invoices(in_stripe).await;
    invoices.expect("stripe answers")
}

async fn invoice(system: &System, sold: &Sold, reason: &str) -> Invoice {
    let invoices = invoices(system, sold).await;
    let found = invoices
        .into_iter()
        .find(|invoice| invoice.billing_reason.as_deref() == Some(reason));
    found.expect("the invoice is there")
}

/// What the invoice charges for usage: (units, amount) of each line that has a price for units.
fn usage(invoice: &Invoice) -> Vec<(u64, i64)> {
    let is_usage = |text: &str| !text.contains("Remaining time") && !text.contains("Unused time");
    let lines = invoice
        .lines
        .iter()
        .filter(|line| line.description.as_deref().is_none_or(is_usage));
    let mut lines: Vec<(u64, i64)> = lines.map(|line| (line.quantity.unwrap_or(0), line.amount)).collect();
    lines.sort_unstable();
    lines
}

#[tokio::test]
async fn units_before_an_upgrade_cost_what_they_did_and_units_after_it_what_they_do() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    clock(&system, START_S + 1_200);
    calls(&system, &sold, 25).await; // five beyond the included ones
    clock(&system, START_S + 1_234);
    change(&system, "scale", When::Now).await;
    calls(&system, &sold, 33).await; // three beyond
    let end = sold.customer.cycle.current.end;
    run_until(&system, end + 7_200).await;

    let closing = invoice(&system, &sold, "subscription_cycle").await;
    let usage = usage(&closing);
    assert!(usage.contains(&(5, 50)), "five at ten cents: {usage:?}");
    assert!(usage.contains(&(3, 15)), "three at five cents: {usage:?}");
    // 99 dollars ahead, what is left of the month at the new price less the same at the old one, and the usage.
    let whole = i128::from(end - START_S);
    let left = i128::from(end - START_S - 1_234);
    let share = |amount: i128| i64::try_from((amount * left * 2 + whole) / (2 * whole)).expect("an amount");
    assert_eq!(closing.total, 9_900 + share(9_900) - share(4_900) + 50 + 15);

    // The old plan's metered price has gone by the next month.
    run_until(&system, end + 5 * 86_400).await;
    let customer = system.books.customer(&sold.customer.id).await.expect("there");
    let subscription = customer.stripe_subscription.as_deref().expect("subscribed");
    let subscription = system
        .services
        .stripe
        .subscription(subscription)
        .await
        .expect("stripe answers");
    let plan = &customer.phase_at(end).plan;
    for item in &subscription.items {
        let key = item.lookup_key.as_deref().unwrap_or_default();
        assert!(key.ends_with(plan.as_str()), "{key} is left of another plan");
    }
}

#[tokio::test]
async fn going_there_and_back_counts_the_included_units_once() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    clock(&system, START_S + 600);
    calls(&system, &sold, 15).await;
    clock(&system, START_S + 700);
    change(&system, "scale", When::Now).await;
    calls(&system, &sold, 2).await;
    clock(&system, START_S + 800);
    change(&system, "pro", When::Now).await;
    calls(&system, &sold, 15).await; // thirty in all, ten beyond the twenty
    run_until(&system, sold.customer.cycle.current.end + 7_200).await;
    let usage = usage(&invoice(&system, &sold, "subscription_cycle").await);
    assert!(usage.contains(&(10, 100)), "{usage:?}");
    assert!(
        !usage.iter().any(|&(_, amount)| amount == 50 || amount == 10),
        "{usage:?}"
    );
}

#[tokio::test]
async fn a_quota_is_of_the_plan_and_an_upgrade_begins_a_new_one() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "free").await;
    calls(&system, &sold, 10).await;
    let denied = call(&system, &environment(&system, 0), &sold.key, "/v1/x").await;
    assert!(
        matches!(denied, Answer::Denied(ref code, _) if code == "quota_exceeded"),
        "{denied:?}"
    );
    clock(&system, START_S + 60);
    change(&system, "pro", When::Now).await;
    calls(&system, &sold, 21).await;
    // Back again, there is nothing left of the free units.
    clock(&system, START_S + 120);
    change(&system, "free", When::Now).await;
    let denied = call(&system, &environment(&system, 0), &sold.key, "/v1/x").await;
    assert!(
        matches!(denied, Answer::Denied(ref code, _) if code == "quota_exceeded"),
        "{denied:?}"
    );
    run_until(&system, sold.customer.cycle.current.end + 7_200).await;
    let usage = usage(&invoice(&system, &sold, "subscription_cycle").await);
    assert!(usage.contains(&(1, 10)), "one beyond pro's twenty: {usage:?}");
}

#[tokio::test]
async fn a_downgrade_waits_for_the_periods_end_and_begins_there_to_the_second() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "scale").await;
    change(&system, "pro", When::PeriodEnd).await;
    let end = sold.customer.cycle.current.end;
    let tier_at = async |s| {
        let customer = system.books.customer(&sold.customer.id).await.expect("there");
        customer.phase_at(s).tier.clone()
    };
    assert_eq!(tier_at(end - 1).await, "scale");
    assert_eq!(tier_at(end).await, "pro");

    run_until(&system, end - 1).await;
    calls(&system, &sold, 31).await; // one beyond scale's thirty
    clock(&system, end);
    calls(&system, &sold, 22).await; // two beyond pro's twenty, in the next period
    run_until(&system, end + 7_200).await;
    let closing = invoice(&system, &sold, "subscription_cycle").await;
    assert!(usage(&closing).contains(&(1, 5)), "{:?}", usage(&closing));
    assert_eq!(closing.total, 4_900 + 5, "the new base price ahead, nothing prorated");

    let next = system
        .books
        .customer(&sold.customer.id)
        .await
        .expect("there")
        .cycle
        .period_at(end)
        .end;
    run_until(&system, next + 7_200).await;
    let invoices = invoices(&system, &sold).await;
    let totals: Vec<i64> = invoices.iter().map(|invoice| invoice.total).collect();
    assert!(totals.contains(&(4_900 + 20)), "{totals:?}");
}

#[tokio::test]
async fn a_change_that_waits_can_be_taken_back() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "scale").await;
    change(&system, "pro", When::PeriodEnd).await;
    clock(&system, START_S + 60);
    change(&system, "scale", When::Now).await;
    let end = sold.customer.cycle.current.end;
    run_until(&system, end + 7_200).await;
    assert_eq!(invoice(&system, &sold, "subscription_cycle").await.total, 9_900);
}

#[tokio::test]
async fn whoever_leaves_at_once_is_billed_to_the_unit_and_not_let_in_again() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    clock(&system, START_S + 5_000);
    calls(&system, &sold, 27).await;
    let id = &sold.customer.id;
    system.books.cancel(id, When::Now).await.expect("cancelled");
    // A clock that is behind opens nothing: nobody would bill it.
    clock(&system, START_S + 4_990);
    let denied = call(&system, &environment(&system, 0), &sold.key, "/v1/x").await;
    assert!(
        matches!(denied, Answer::Denied(ref code, _) if code == "subscription_ended"),
        "{denied:?}"
    );
    clock(&system, START_S + 5_000);
    let denied = call(&system, &environment(&system, 0), &sold.key, "/v1/x").await;
    assert!(
        matches!(denied, Answer::Denied(ref code, _) if code == "subscription_ended"),
        "{denied:?}"
    );
    run_until(&system, START_S + 5_000 + 7_200).await;
    let last = system
        .services
        .stripe
        .invoices(sold.customer.stripe_customer.as_deref().expect("in Stripe"))
        .await;
    let last = last.expect("stripe answers");
    assert!(last.iter().any(|invoice| usage(invoice).contains(&(7, 70))), "{last:?}");
    assert_eq!(
        system.books.customer(id).await.expect("there").standing,
        Standing::Ended
    );
    // Again: nothing happens.
    system.books.cancel(id, When::Now).await.expect("still cancelled");
}

/// A customer with 27 calls that wants to leave at once while Stripe takes no usage, and what it is told.
async fn cannot_leave() -> (Arc<System>, Sold, String) {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    clock(&system, START_S + 5_000);
    calls(&system, &sold, 27).await;
    system.services.stand_in.misbehave(Fault {
        method: None,
        path_prefix: "/v1/billing/meter_events".to_owned(),
        times: u32::MAX,
        kind: FaultKind::RateLimited429,
    });
    let said = cancel_refused(&system, &sold).await;
    (system, sold, said)
}

/// Why a customer can't leave at once.
async fn cancel_refused(system: &System, sold: &Sold) -> String {
    let refused = system.books.cancel(&sold.customer.id, When::Now).await;
    refused.expect_err("not yet").to_string()
}

#[tokio::test]
async fn leaving_at_once_while_stripe_is_down_says_when_to_try_again() {
    let (system, sold, mut said) = cannot_leave().await;
    let id = &sold.customer.id;
    assert!(said.ends_with(" is still sending: try again in a minute"), "{said}");
    // Each attempt that fails makes the next wait longer; the words follow it.
    let mut s = START_S + 5_000;
    for _ in 0..8 {
        s += 1_800;
        clock(&system, s);
        said = cancel_refused(&system, &sold).await;
    }
    let told = said.rsplit_once("try again in ").expect("it says when").1;
    let told: u64 = told
        .strip_suffix(" minutes")
        .expect("minutes")
        .parse()
        .expect("a number");
    assert!((2..=5).contains(&told), "{said}");
    system.services.stand_in.behave();
    clock(&system, s + told * 60);
    system.books.cancel(id, When::Now).await.expect("when it said");
}

/// The bucket was sealed before it was over, when nobody knew who else would count in it.
#[tokio::test]
async fn whoever_leaves_at_once_before_a_day_without_stripe_is_billed_all_the_same() {
    let (system, sold, _) = cannot_leave().await;
    let id = &sold.customer.id;
    run_until(&system, START_S + 26 * 3_600).await;
    system.services.stand_in.behave();
    run_until(&system, START_S + 27 * 3_600).await;
    assert_eq!(units(&system, &sold).await, (27, 27, 27));
    system.books.cancel(id, When::Now).await.expect("cancelled");
    let all = invoices(&system, &sold).await;
    assert!(all.iter().any(|invoice| usage(invoice).contains(&(7, 70))), "{all:?}");
}

#[tokio::test]
async fn whoever_could_not_leave_at_once_and_then_leaves_at_the_periods_end_is_let_in_until_then() {
    let (system, sold, _) = cannot_leave().await;
    let id = &sold.customer.id;
    system.services.stand_in.behave();
    let later = system.books.cancel(id, When::PeriodEnd).await;
    later.expect("at the period's end");
    // What is paid is served, and what is served is billed.
    calls(&system, &sold, 3).await;
    let end = sold.customer.cycle.current.end;
    run_until(&system, end + 7_200).await;
    let all = invoices(&system, &sold).await;
    assert!(all.iter().any(|invoice| usage(invoice).contains(&(10, 100))), "{all:?}");
    let denied = call(&system, &environment(&system, 0), &sold.key, "/v1/x").await;
    assert!(
        matches!(denied, Answer::Denied(ref code, _) if code == "subscription_ended"),
        "{denied:?}"
    );
}

#[tokio::test]
async fn a_quota_that_is_divided_is_not_divided_anew_within_its_period() {
    let tiers = |shards: u32| {
        format!(
            "tiers: {{t: {{price: 0, included_calls: 8/month, rate_limit: unlimited, endpoints: [/v1/*], shards: {shards}}}}}"
        )
    };
    let system = system(&tiers(2), 1).await;
    let sold = sell(&system, "t").await;
    calls(&system, &sold, 8).await;
    let other = Catalog::from_yaml(&tiers(4), "tiers.yaml").expect("a catalog");
    let catalog = system.control.accounts.put_catalog(&other).await.expect("stored");
    let offer = |when| Offer {
        tier: "t".to_owned(),
        catalog,
        overrides: Overrides::default(),
        when,
    };
    let id = &sold.customer.id;
    let now = system.books.change_tier(id, offer(When::Now)).await;
    assert_eq!(
        now.expect_err("it would give units away").to_string(),
        "acme has a quota or a cap that is divided among 2 shards: change to 4 shards at the period's end"
    );
    let later = system.books.change_tier(id, offer(When::PeriodEnd)).await;
    later.expect("where the quota begins anew");
    for _ in 0..8 {
        let denied = call(&system, &environment(&system, 0), &sold.key, "/v1/x").await;
        assert!(
            matches!(denied, Answer::Denied(ref code, _) if code == "quota_exceeded"),
            "{denied:?}"
        );
    }
    run_until(&system, sold.customer.cycle.current.end + 1).await;
    let mut admitted = 0;
    for _ in 0..16 {
        admitted += u64::from(call(&system, &environment(&system, 0), &sold.key, "/v1/x").await == Answer::Admitted);
    }
    assert_eq!(admitted, 8);
}

#[tokio::test]
async fn whoever_leaves_at_the_periods_end_is_let_in_until_then_and_billed_for_it() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    system
        .books
        .cancel(&sold.customer.id, When::PeriodEnd)
        .await
        .expect("cancelled");
    let end = sold.customer.cycle.current.end;
    run_until(&system, end - 1).await;
    calls(&system, &sold, 21).await;
    clock(&system, end);
    let denied = call(&system, &environment(&system, 0), &sold.key, "/v1/x").await;
    assert!(
        matches!(denied, Answer::Denied(ref code, _) if code == "subscription_ended"),
        "{denied:?}"
    );
    run_until(&system, end + 7_200).await;
    let invoices = invoices(&system, &sold).await;
    assert!(
        invoices.iter().any(|invoice| usage(invoice).contains(&(1, 10))),
        "{invoices:?}"
    );
}

#[tokio::test]
async fn given_units_are_not_billed_and_giving_them_again_changes_nothing() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    let id = &sold.customer.id;
    for _ in 0..3 {
        system
            .books
            .grant(id, DEFAULT_METER, 4, "sorry-1")
            .await
            .expect("given");
    }
    calls(&system, &sold, 27).await; // seven beyond the twenty, four of them given
    run_until(&system, sold.customer.cycle.current.end + 7_200).await;
    let usage = usage(&invoice(&system, &sold, "subscription_cycle").await);
    assert!(usage.contains(&(3, 30)), "{usage:?}");
    let (rows, _) = system.control.ledger.scan().await.expect("readable");
    let (units, credit): (u64, u64) = rows
        .iter()
        .fold((0, 0), |sum, row| (sum.0 + row.units, sum.1 + row.credit));
    assert_eq!((units, credit), (27, 4), "the ledger keeps both figures");
}

#[tokio::test]
async fn given_units_open_a_quota_that_blocks() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "free").await;
    calls(&system, &sold, 10).await;
    clock(&system, START_S + 60);
    system
        .books
        .grant(&sold.customer.id, DEFAULT_METER, 2, "sorry-2")
        .await
        .expect("given");
    calls(&system, &sold, 2).await;
    let denied = call(&system, &environment(&system, 0), &sold.key, "/v1/x").await;
    assert!(
        matches!(denied, Answer::Denied(ref code, _) if code == "quota_exceeded"),
        "{denied:?}"
    );
}

#[tokio::test]
async fn a_grant_of_an_earlier_period_is_not_given_again() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "free").await;
    let id = &sold.customer.id;
    let give = async |units, grant| system.books.grant(id, DEFAULT_METER, units, grant).await;
    give(4, "sorry").await.expect("given");
    let error = give(5, "sorry").await.expect_err("refused").to_string();
    assert!(error.contains("gave acme 4 units of api_calls: another"), "{error}");

    run_until(&system, sold.customer.cycle.current.end + 7_200).await;
    // The record forgets what ended, the ledger does not.
    give(1, "another").await.expect("given");
    let error = give(4, "sorry").await.expect_err("refused").to_string();
    assert!(error.contains("in an earlier billing period"), "{error}");
    let customer = system.books.customer(id).await.expect("there");
    assert_eq!(customer.granted(DEFAULT_METER, system.clock().now().s()), 1);
    let balance = system.control.ledger.balance(id, DEFAULT_METER).await;
    assert_eq!(balance.expect("readable").granted, 5);
}

#[tokio::test]
async fn stripe_sends_invoices_where_alerts_go() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    let id = &sold.customer.id;
    for email in [Some("new@acme.example".to_owned()), None] {
        // A second time: nothing is different.
        for _ in 0..2 {
            let changed = system
                .books
                .contact(id, |contact| contact.email.clone_from(&email))
                .await;
            assert_eq!(changed.expect("changed").contact.email, email);
            let in_stripe = sold.customer.stripe_customer.as_deref().expect("in Stripe");
            let in_stripe = system
                .services
                .stripe
                .customer(in_stripe)
                .await
                .expect("stripe answers");
            assert_eq!(
                in_stripe.expect("there").email.unwrap_or_default(),
                email.clone().unwrap_or_default()
            );
        }
    }
}

#[tokio::test]
async fn a_cap_holds_from_the_next_request_on_and_can_be_taken_away() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    calls(&system, &sold, 21).await;
    clock(&system, START_S + 60);
    let id = &sold.customer.id;
    system
        .books
        .cap(id, DEFAULT_METER, Some(Money(30)))
        .await
        .expect("capped");
    calls(&system, &sold, 2).await; // three beyond the included: thirty cents
    let denied = call(&system, &environment(&system, 0), &sold.key, "/v1/x").await;
    assert!(
        matches!(denied, Answer::Denied(ref code, _) if code == "spend_cap_reached"),
        "{denied:?}"
    );
    clock(&system, START_S + 120);
    system.books.cap(id, DEFAULT_METER, None).await.expect("uncapped");
    calls(&system, &sold, 1).await;
}

#[tokio::test]
async fn a_tier_of_another_interval_is_refused_in_a_sentence() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    let offer = Offer {
        tier: "yearly".to_owned(),
        catalog: system.catalog.0,
        overrides: Overrides::default(),
        when: When::Now,
    };
    let error = system
        .books
        .change_tier(&sold.customer.id, offer)
        .await
        .expect_err("refused");
    assert_eq!(
        error.to_string(),
        "yearly is billed per year, acme is billed per month: cancel at the period's end and sell it the tier then"
    );
}

#[tokio::test]
async fn on_a_jump_only_the_highest_threshold_is_told_and_each_once() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    calls(&system, &sold, 22).await; // 110 percent before anybody looks
    system.send_usage().await.expect("sent");
    system.deliver_alerts().await.expect("delivered");
    let subjects = || -> Vec<String> {
        let entries = system.services.outbox.entries().into_iter();
        entries.filter_map(|entry| entry.subject).collect()
    };
    assert_eq!(subjects().len(), 1, "{:?}", subjects());
    calls(&system, &sold, 2).await; // 120 percent
    system.send_usage().await.expect("sent");
    system.send_usage().await.expect("sent");
    system.deliver_alerts().await.expect("delivered");
    assert_eq!(subjects().len(), 2, "{:?}", subjects());
}

#[tokio::test]
async fn the_owner_of_a_key_that_expires_soon_is_told_once() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    let id = &sold.customer.id;
    for (name, days) in [("soon", 6), ("later", 30)] {
        let new = NewKey {
            brand: "fb".to_owned(),
            mode: Mode::Test,
            name: name.to_owned(),
            scopes: Vec::new(),
            expires: Some(Timestamp::from_s(START_S + days * 86_400)),
        };
        system
            .control
            .issue_key(id, new, system.clock().now())
            .await
            .expect("issued");
    }
    for _ in 0..2 {
        let report = system.consumer.scan().await.expect("a scan");
        assert_eq!(report.expiring_keys, 1);
        system.deliver_alerts().await.expect("delivered");
    }
    let sent = system.services.outbox.entries();
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert!(
        sent[0].text.as_deref().is_some_and(|text| text.contains("soon")),
        "{sent:?}"
    );
}

#[tokio::test]
async fn whoever_gets_close_to_a_spend_cap_is_told() {
    let capped = TIERS.replace("overage: $0.10/call}", "overage: $0.10/call, spend_cap: $1/month}");
    let system = system(&capped, 1).await;
    let sold = sell(&system, "pro").await;
    calls(&system, &sold, 30).await; // twenty included and ten beyond: a dollar
    system.send_usage().await.expect("sent");
    system.deliver_alerts().await.expect("delivered");
    let subjects: Vec<String> = system
        .services
        .outbox
        .entries()
        .into_iter()
        .filter_map(|entry| entry.subject)
        .collect();
    assert!(subjects.iter().any(|subject| subject.contains("$1.00")), "{subjects:?}");
}

#[tokio::test]
async fn a_parked_row_is_told_to_the_operator() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    calls(&system, &sold, 1).await;
    system.send_usage().await.expect("sent");
    // Nobody ticks for 36 days: Stripe would not take the row any more.
    clock(&system, START_S + 36 * 86_400);
    system.consumer.tick().await.expect("a tick");
    system.deliver_alerts().await.expect("delivered");
    let sent = system.services.outbox.entries();
    let is_told = |entry: &farebox_local::Entry| {
        entry.channel == "operator" && entry.text.as_deref().is_some_and(|text| text.contains("acme"))
    };
    assert!(sent.iter().any(is_told), "{sent:?}");
}

/// What is left of the period from `at` on, of an amount.
fn left_of(amount: i64, sold: &Sold, at: u64) -> i64 {
    let period = sold.customer.cycle.current;
    let (left, whole) = (i128::from(period.end - at), i128::from(period.end - period.start));
    i64::try_from((i128::from(amount) * left * 2 + whole) / (2 * whole)).expect("an amount")
}

#[tokio::test]
async fn a_change_now_is_prorated_from_what_was_paid_and_not_from_what_was_to_come() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "scale").await;
    clock(&system, START_S + 3_600);
    change(&system, "free", When::PeriodEnd).await;
    clock(&system, START_S + 7_200);
    change(&system, "pro", When::Now).await;
    run_until(&system, sold.customer.cycle.current.end + 7_200).await;
    let at = START_S + 7_200;
    let expected = 4_900 + left_of(4_900, &sold, at) - left_of(9_900, &sold, at);
    assert_eq!(invoice(&system, &sold, "subscription_cycle").await.total, expected);
}

#[tokio::test]
async fn whoever_leaves_while_a_downgrade_waits_is_credited_what_was_paid() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "scale").await;
    change(&system, "free", When::PeriodEnd).await;
    let at = START_S + 86_400;
    clock(&system, at);
    system
        .books
        .cancel(&sold.customer.id, When::Now)
        .await
        .expect("cancelled");
    run_until(&system, at + 7_200).await;
    let invoices = invoices(&system, &sold).await;
    assert!(
        invoices
            .iter()
            .any(|invoice| invoice.total == -left_of(9_900, &sold, at)),
        "{invoices:?}"
    );
}

#[tokio::test]
async fn a_cap_goes_with_its_customer_and_a_grant_does_not_lift_it_twice() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    let id = &sold.customer.id;
    system.books.grant(id, DEFAULT_METER, 10, "g").await.expect("given");
    system
        .books
        .cap(id, DEFAULT_METER, Some(Money(100)))
        .await
        .expect("capped");
    calls(&system, &sold, 40).await; // 20 included, 10 given, 10 at ten cents
    clock(&system, START_S + 60);
    change(&system, "scale", When::Now).await;
    calls(&system, &sold, 50).await; // 30 included, 20 at five cents
    let denied = call(&system, &environment(&system, 0), &sold.key, "/v1/x").await;
    assert!(
        matches!(denied, Answer::Denied(ref code, _) if code == "spend_cap_reached"),
        "{denied:?}"
    );
    run_until(&system, sold.customer.cycle.current.end + 7_200).await;
    let usage = usage(&invoice(&system, &sold, "subscription_cycle").await);
    assert!(usage.contains(&(10, 100)) && usage.contains(&(20, 100)), "{usage:?}");
}

#[tokio::test]
async fn whoever_has_left_can_be_sold_a_tier_again() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    let id = &sold.customer.id;
    system.books.cancel(id, When::Now).await.expect("cancelled");
    clock(&system, START_S + 100);
    let sale = Sale {
        id: id.clone(),
        name: "Acme".to_owned(),
        tier: "scale".to_owned(),
        catalog: system.catalog.0,
        overrides: Overrides::default(),
        contact: Contact::default(),
        trial_days: None,
    };
    let customer = system.books.sell(sale.clone()).await.expect("sold again");
    assert_eq!(customer.standing, Standing::Good);
    assert!(system.books.sell(sale).await.is_err(), "it is a customer by now");
    calls(&system, &sold, 31).await;
    run_until(&system, customer.cycle.current.end + 7_200).await;
    let usage = usage(&invoice(&system, &sold, "subscription_cycle").await);
    assert!(usage.contains(&(1, 5)), "{usage:?}");
}

#[tokio::test]
async fn whoever_was_to_leave_and_is_sold_a_tier_stays() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    system
        .books
        .cancel(&sold.customer.id, When::PeriodEnd)
        .await
        .expect("cancelled");
    clock(&system, START_S + 60);
    change(&system, "pro", When::Now).await;
    let end = sold.customer.cycle.current.end;
    run_until(&system, end + 7_200).await;
    calls(&system, &sold, 1).await;
}

/// The period before the running one, as it is worked out from the record.
fn previous(customer: &Customer, now_s: u64) -> Period {
    let current = customer.cycle.period_at(now_s);
    customer.cycle.period_at(current.start - 1)
}

/// Compares a period with Stripe and the invoice. What was counted and the difference, by meter.
async fn reconciled(system: &System, sold: &Sold, period: impl Fn(&Customer) -> Period) -> Vec<(u64, u64)> {
    let customer = system.books.customer(&sold.customer.id).await.expect("there");
    let reconciler = system.books.reconciler().await.expect("readable");
    let asked = farebox_billing::Asked {
        invoice: true,
        ..farebox_billing::Asked::default()
    };
    let found = reconciler.customer(&customer, period(&customer), asked).await;
    let found = found.expect("reconciled");
    assert_eq!(found.problems, [""; 0]);
    assert_eq!(
        found.difference,
        found.sums.iter().map(|sum| sum.difference).sum::<u64>()
    );
    found.sums.iter().map(|sum| (sum.counted, sum.difference)).collect()
}

#[tokio::test]
async fn what_somebody_reports_for_a_customer_without_usage_is_a_difference() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    let current = |customer: &Customer| customer.cycle.current;
    assert_eq!(reconciled(&system, &sold, current).await, []);
    let event = MeterEvent {
        event_name: sold.customer.phases[0].plan.event_name(DEFAULT_METER),
        stripe_customer: sold.customer.stripe_customer.clone().expect("in Stripe"),
        value: 1_000,
        identifier: "somebody-else".to_owned(),
        timestamp: i64::try_from(START_S + 60).expect("a time"),
    };
    let sent = system.services.stripe.report_meter_event(&event, "somebody-else").await;
    sent.expect("Stripe takes it");
    clock(&system, START_S + 7_200);
    assert_eq!(reconciled(&system, &sold, current).await, [(0, 1_000)]);
}

#[tokio::test]
async fn a_period_that_begins_in_an_hours_last_minute_reconciles() {
    let system = system(TIERS, 1).await;
    let begin = START_S + 3_600 - 30;
    clock(&system, begin);
    let sold = sell(&system, "pro").await;
    assert_eq!(sold.customer.cycle.current.start, begin);
    calls(&system, &sold, 22).await;
    run_until(&system, sold.customer.cycle.current.end + 3).await;
    // In the half minute that the new period has of the hour.
    calls(&system, &sold, 5).await;
    let now = sold.customer.cycle.current.end + 5 * 86_400;
    run_until(&system, now).await;
    assert_eq!(
        reconciled(&system, &sold, |customer| previous(customer, now)).await,
        [(22, 0)]
    );
    let current = |customer: &Customer| customer.cycle.period_at(now);
    assert_eq!(reconciled(&system, &sold, current).await, [(5, 0)]);
}

#[tokio::test]
async fn a_price_that_is_archived_still_bills_and_reconciles() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    calls(&system, &sold, 27).await;
    let name = sold.customer.phases[0].plan.event_name(DEFAULT_METER);
    let price = system
        .services
        .stripe
        .find_price(&name)
        .await
        .expect("answers")
        .expect("a price");
    let archived = farebox_tests::stripe(&system, "POST", &format!("/v1/prices/{}", price.id), "active=false").await;
    assert_eq!(archived.0, 200, "{}", archived.1);
    assert_eq!(system.services.stripe.find_price(&name).await.expect("answers"), None);
    let now = sold.customer.cycle.current.end + 5 * 86_400;
    run_until(&system, now).await;
    assert_eq!(
        reconciled(&system, &sold, |customer| previous(customer, now)).await,
        [(27, 0)]
    );
}

#[tokio::test]
async fn usage_in_a_trial_is_free_and_reconciles() {
    let tiers = TIERS.replace("overage: $0.10/call}", "overage: $0.10/call, trial_days: 7}");
    let system = system(&tiers, 1).await;
    let sold = sell(&system, "pro").await;
    calls(&system, &sold, 25).await;
    let trial = sold.customer.cycle.current;
    assert_eq!(trial.end, START_S + 7 * 86_400);
    let now = trial.end + 5 * 86_400;
    run_until(&system, now).await;
    assert_eq!(reconciled(&system, &sold, |_| trial).await, [(25, 0)]);
    // As the command asks for it: worked out back from the anchor that the trial's end has set.
    assert_eq!(
        reconciled(&system, &sold, |customer| previous(customer, now)).await,
        [(25, 0)]
    );
}
