//! Stripe's events: what is believed, and what becomes of it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use farebox_aws::connect::{Clients, Settings};
use farebox_billing::{Books, CUSTOMER_KEY, Remedy};
use farebox_core::{
    account::{Customer, Standing},
    key::{ApiKey, Mode},
    ledger::RowState,
    tiers::Overrides,
    time::Timestamp,
};
use farebox_local::System;
use farebox_stripe::{
    Buyer, CheckoutPrice, CustomerUpdate, ItemChange, MissingPaymentMethod, NewCheckout, NewSubscription,
    SigningSecret, SubscriptionUpdate, sign,
};
use farebox_stripe_standin::{Fault, FaultKind};
use farebox_tests::{Answer, START_S, call, environment, sell, stripe as http, system, units};
use farebox_webhook::{Deps, FirstKeySecret, PATIENCE, Webhook};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

const TIERS: &str = "
tiers:
  pro: {price: 49/month, included_calls: 100/month, rate_limit: 1000/min, endpoints: [/v1/*], overage: $0.002/call, past_due: block after 2d}
  scale: {price: 99/month, included_calls: 200/month, rate_limit: 1000/min, endpoints: [/v2/*], overage: $0.001/call, past_due: throttle(1/min) after 2d}
  trial: {price: 19/month, included_calls: 100/month, rate_limit: 1000/min, endpoints: [/v3/*], overage: $0.01/call, trial_days: 14}";

const HOUR_S: u64 = 3_600;
const DAY_S: u64 = 86_400;
const EVENTS: &str = "/live/stripe/webhook";

fn secret(text: &str) -> SigningSecret {
    SigningSecret::new(text).expect("a secret")
}

/// A webhook with secrets of its own, over the same books.
fn webhook(books: &Books) -> Webhook {
    Webhook::new(deps(books))
}

fn deps(books: &Books) -> Deps {
    Deps {
        books: books.clone(),
        secrets: vec![secret("whsec_new"), secret("whsec_old")],
        first_key: FirstKeySecret::new("0123456789abcdef0123456789abcdef").expect("a secret"),
        brand: "fb".to_owned(),
        mode: Mode::Test,
        portal_url: Some("https://portal.example".to_owned()),
        patience: PATIENCE,
    }
}

async fn post(webhook: &Webhook, body: &[u8], signatures: &[&str], now_s: u64) -> (StatusCode, String) {
    let mut request = Request::post(EVENTS);
    for signature in signatures {
        request = request.header("Stripe-Signature", *signature);
    }
    let request = request.body(Bytes::copy_from_slice(body)).expect("a request");
    let response = webhook.handle(request, Timestamp::from_s(now_s)).await;
    (response.status(), response.into_body())
}

/// Sends an event as Stripe would.
async fn deliver(webhook: &Webhook, event: &Value, now_s: u64) -> (StatusCode, String) {
    let body = event.to_string();
    let signature = sign(body.as_bytes(), &secret("whsec_new"), now_s);
    post(webhook, body.as_bytes(), &[&signature], now_s).await
}

fn now_s(system: &System) -> u64 {
    system.clock().now().s()
}

async fn record(system: &System) -> Customer {
    let id = "acme".to_owned().try_into().expect("an id");
    system.books.customer(&id).await.expect("the record")
}

/// The record without what counts how often it was written.
async fn outcome(system: &System) -> Customer {
    Customer {
        auth_epoch: 0,
        ..record(system).await
    }
}

fn events(system: &System) -> Vec<Value> {
    system.services.stand_in.events_after(0).events
}

fn last_event(system: &System, kind: &str) -> Value {
    let found = events(system).into_iter().rev().find(|event| event["type"] == kind);
    found.unwrap_or_else(|| panic!("no {kind}"))
}

async fn pass(system: &System, until_s: u64) {
    system.run_until(Timestamp::from_s(until_s)).await.expect("time passes");
}

async fn request(system: &System, key: &str, path: &str) -> Answer {
    call(system, &environment(system, 0), key, path).await
}

fn code(answer: Answer) -> String {
    match answer {
        Answer::Admitted => "admitted".to_owned(),
        Answer::Denied(code, _) => code,
        Answer::Unauthorized => "unauthorized".to_owned(),
    }
}

/// Changes the base price of acme's subscription, as somebody at the dashboard would: nothing but that.
async fn change_base_price(system: &System, tier: &str) {
    let terms = system
        .control
        .terms_of(system.catalog.0, tier, &Overrides::default())
        .await
        .expect("terms");
    let prices = system.books.ensure_plan(&terms).await.expect("prices");
    let stripe = &system.services.stripe;
    let id = record(system).await.stripe_subscription.expect("subscribed");
    let subscription = stripe.subscription(&id).await.expect("the subscription");
    let base = subscription
        .items
        .iter()
        .find(|item| !item.is_metered)
        .expect("a base price");
    let update = SubscriptionUpdate {
        items: vec![ItemChange::Replace {
            item: base.id.clone(),
            price: prices.base,
        }],
        ..SubscriptionUpdate::default()
    };
    let key = format!("dashboard-{tier}-{}", now_s(system));
    stripe.update_subscription(&id, &update, &key).await.expect("updated");
}

async fn set_card(system: &System, method: &str) {
    let update = CustomerUpdate {
        default_payment_method: Some(method.to_owned()),
        ..CustomerUpdate::default()
    };
    let customer = record(system).await.stripe_customer.expect("in Stripe");
    let stripe = &system.services.stripe;
    stripe
        .update_customer(&customer, &update, method)
        .await
        .expect("updated");
}

/// What the outbox holds for a channel.
fn sent(system: &System, channel: &str) -> Vec<String> {
    let entries = system.services.outbox.entries().into_iter();
    let of = entries.filter(|entry| entry.channel == channel);
    of.map(|entry| {
        format!(
            "{}\n{}",
            entry.subject.unwrap_or_default(),
            entry.text.unwrap_or_default()
        )
    })
    .collect()
}

#[tokio::test]
async fn what_stripe_has_not_signed_just_now_is_refused_and_told_nothing() {
    let system = system(TIERS, 1).await;
    sell(&system, "pro").await;
    let before = record(&system).await;
    let webhook = webhook(&system.books);
    let body = last_event(&system, "customer.subscription.created").to_string();
    let (body, now) = (body.as_bytes(), START_S);
    let good = sign(body, &secret("whsec_new"), now);
    let v1 = good.split_once("v1=").expect("a signature").1;
    let mut changed = body.to_vec();
    changed[20] ^= 1;
    let refused = [
        (body, vec![]),
        (body, vec![String::new()]),
        (body, vec!["nonsense".to_owned()]),
        (body, vec![format!("v1={v1}")]),
        (body, vec![format!("t={now}")]),
        (body, vec![format!("t={now},v0={v1}")]),
        (body, vec![format!("t={now},v1={}", "0".repeat(64))]),
        (body, vec![format!("t={},v1={v1}", now + 1)]),
        (body, vec![sign(body, &secret("whsec_other"), now)]),
        (body, vec![sign(body, &secret("whsec_new"), now - 301)]),
        (body, vec![sign(body, &secret("whsec_new"), now + 301)]),
        (body, vec![good.clone(), good.clone()]),
        (&changed[..], vec![good.clone()]),
    ];
    for (body, signatures) in refused {
        let signatures: Vec<&str> = signatures.iter().map(String::as_str).collect();
        let answer = post(&webhook, body, &signatures, now).await;
        let expected = (StatusCode::BAD_REQUEST, r#"{"error":"invalid_signature"}"#.to_owned());
        assert_eq!(answer, expected, "{signatures:?}");
    }
    assert_eq!(record(&system).await, before);

    // Within the time, with the secret that is rolled, or among others: believed.
    let believed = [
        sign(body, &secret("whsec_new"), now - 300),
        sign(body, &secret("whsec_new"), now + 300),
        sign(body, &secret("whsec_old"), now),
        format!("t={now},v0=x,v1={},v1={v1}", "0".repeat(64)),
    ];
    for signature in believed {
        let (status, _) = post(&webhook, body, &[&signature], now).await;
        assert_eq!(status, StatusCode::OK, "{signature}");
    }
}

#[tokio::test]
async fn what_is_not_for_us_is_answered_as_the_table_says() {
    let system = system(TIERS, 1).await;
    sell(&system, "pro").await;
    let before = record(&system).await;
    let webhook = webhook(&system.books);
    let event = last_event(&system, "customer.subscription.created");
    let with = |path: &str, value: Value| {
        let mut event = event.clone();
        *event.pointer_mut(path).expect("there") = value;
        event
    };
    let mut connected = event.clone();
    connected["account"] = json!("acct_1");
    for (event, status, answer) in [
        (with("/livemode", json!(true)), 400, r#"{"error":"wrong_mode"}"#),
        (with("/type", json!("payout.paid")), 200, r#"{"status":"ignored"}"#),
        (
            with("/data/object/customer", json!("cus_nobody")),
            200,
            r#"{"status":"ignored"}"#,
        ),
        (connected, 200, r#"{"status":"ignored"}"#),
        (json!({"object": "event"}), 400, r#"{"error":"not_an_event"}"#),
        (json!([1, 2]), 400, r#"{"error":"not_an_event"}"#),
        (json!({"pad": "x".repeat(1 << 20)}), 413, r#"{"error":"too_large"}"#),
        (event.clone(), 200, r#"{"status":"done"}"#),
        (event.clone(), 200, r#"{"status":"known"}"#),
    ] {
        let got = deliver(&webhook, &event, START_S).await;
        assert_eq!((got.0.as_u16(), got.1.as_str()), (status, answer));
    }
    // A body that is too large is not even hashed: a bad signature makes no difference.
    let huge = vec![b'x'; 1 << 20];
    assert_eq!(
        post(&webhook, &huge, &["t=1,v1=0"], START_S).await.0,
        StatusCode::PAYLOAD_TOO_LARGE
    );

    for (method, path, status) in [
        (Method::GET, EVENTS, 405),
        (Method::PUT, EVENTS, 405),
        (Method::POST, "/welcome", 405),
        (Method::HEAD, "/welcome?session_id=cs_1", 405),
        (Method::GET, "/", 404),
        (Method::POST, "/stripe/webhook/more", 404),
        (Method::GET, "/welcome", 404),
        (Method::GET, "/welcome?session_id=cs_unknown", 404),
    ] {
        let request = Request::builder().method(method.clone()).uri(path).body(Bytes::new());
        let response = webhook
            .handle(request.expect("a request"), Timestamp::from_s(START_S))
            .await;
        assert_eq!(response.status().as_u16(), status, "{method} {path}");
    }
    assert_eq!(record(&system).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_deliveries_at_once_have_one_effect() {
    let system = system(TIERS, 1).await;
    sell(&system, "pro").await;
    system.deliver_events().await.expect("delivered");
    change_base_price(&system, "scale").await;
    let before = record(&system).await;
    let webhook = Arc::new(webhook(&system.books));
    let event = last_event(&system, "customer.subscription.updated");
    let now = now_s(&system);
    let deliveries: Vec<_> = (0..100)
        .map(|_| {
            let (webhook, event) = (webhook.clone(), event.clone());
            tokio::spawn(async move { deliver(&webhook, &event, now).await })
        })
        .collect();
    let mut taken = 0;
    for delivery in deliveries {
        match delivery.await.expect("no panic") {
            (StatusCode::OK, _) => taken += 1,
            (StatusCode::SERVICE_UNAVAILABLE, _) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(taken > 0);
    let (status, body) = deliver(&webhook, &event, now).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, r#"{"status":"known"}"#));

    let after = record(&system).await;
    assert_eq!(after.auth_epoch, before.auth_epoch + 1, "written once");
    let tiers: Vec<&str> = after.phases.iter().map(|phase| phase.tier.as_str()).collect();
    assert_eq!(tiers, ["pro", "scale"]);
    let id = after.stripe_subscription.expect("subscribed");
    let subscription = system.services.stripe.subscription(&id).await.expect("there");
    // The base price, the new plan's usage, and the old plan's for late reports.
    assert_eq!(subscription.items.len(), 3);
}

#[tokio::test]
async fn a_change_in_the_dashboard_is_in_force_at_the_next_request_and_both_plans_are_billed() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    let key = &sold.key;
    for _ in 0..110 {
        assert_eq!(request(&system, key, "/v1/x").await, Answer::Admitted);
    }
    assert_eq!(code(request(&system, key, "/v2/x").await), "not_in_tier");
    pass(&system, START_S + 600).await;
    change_base_price(&system, "scale").await;
    system.deliver_events().await.expect("delivered");
    for _ in 0..210 {
        assert_eq!(request(&system, key, "/v2/x").await, Answer::Admitted);
    }
    let period = sold.customer.cycle.current;
    let id = record(&system).await.stripe_subscription.expect("subscribed");
    let keys = || async {
        let subscription = system.services.stripe.subscription(&id).await.expect("there");
        let mut keys: Vec<String> = subscription
            .items
            .into_iter()
            .filter_map(|item| item.lookup_key)
            .collect();
        keys.sort();
        keys
    };
    let phases = record(&system).await.phases;
    let (pro, scale) = (&phases[0].plan, &phases[1].plan);
    let all = vec![
        pro.event_name("api_calls"),
        scale.event_name("api_calls"),
        scale.base_lookup_key(),
    ];
    let mut expected = all.clone();
    expected.sort();
    assert_eq!(keys().await, expected);

    // The period has ended, its invoice is a draft: the old plan's usage can still be reported.
    pass(&system, period.end + 60).await;
    assert_eq!(keys().await, expected);
    // It is final.
    pass(&system, period.end + 2 * HOUR_S).await;
    expected.retain(|key| *key != pro.event_name("api_calls"));
    assert_eq!(keys().await, expected);

    let customer = record(&system).await.stripe_customer.expect("in Stripe");
    let invoices = system.services.stripe.invoices(&customer).await.expect("invoices");
    let closing = invoices
        .iter()
        .find(|invoice| invoice.billing_reason.as_deref() == Some("subscription_cycle"))
        .expect("closed");
    let usage: i64 = closing
        .lines
        .iter()
        .filter(|line| {
            line.period_start < period.end as i64 && !line.description.as_deref().unwrap_or("").contains("time")
        })
        .map(|line| line.amount)
        .sum();
    // 10 units of pro at $0.002 and 10 of scale at $0.001.
    assert_eq!(usage, 2 + 1, "{:#?}", closing.lines);
}

/// A base price was changed in the dashboard, and Stripe does not take the metered price that goes with it: what is counted until
/// it does is of the old plan, whose price is there.
#[tokio::test]
async fn a_plan_begins_no_sooner_than_its_usage_has_a_price() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    pass(&system, START_S + 600).await;
    for _ in 0..110 {
        assert_eq!(request(&system, &sold.key, "/v1/x").await, Answer::Admitted);
    }
    change_base_price(&system, "scale").await;
    system.services.stand_in.misbehave(Fault {
        method: Some("POST".to_owned()),
        path_prefix: "/v1/subscriptions/".to_owned(),
        times: 1,
        kind: FaultKind::RateLimited429,
    });
    let event = last_event(&system, "customer.subscription.updated");
    let webhook = webhook(&system.books);
    let (status, _) = deliver(&webhook, &event, now_s(&system)).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(record(&system).await.phases.len(), 1);
    for _ in 0..10 {
        assert_eq!(request(&system, &sold.key, "/v1/x").await, Answer::Admitted);
    }
    // It comes again.
    let again = START_S + 1_200;
    system.clock().set(Timestamp::from_s(again));
    assert_eq!(deliver(&webhook, &event, again).await.1, r#"{"status":"done"}"#);
    let phases = record(&system).await.phases;
    assert_eq!((phases[1].tier.as_str(), phases[1].from), ("scale", again));
    for _ in 0..210 {
        assert_eq!(request(&system, &sold.key, "/v2/x").await, Answer::Admitted);
    }

    pass(&system, sold.customer.cycle.current.end + 2 * HOUR_S).await;
    let customer = sold.customer.stripe_customer.as_deref().expect("in Stripe");
    let stripe = &system.services.stripe;
    let invoices = stripe.invoices(customer).await.expect("invoices");
    let closing = invoices
        .iter()
        .find(|invoice| invoice.billing_reason.as_deref() == Some("subscription_cycle"))
        .expect("closed");
    for (phase, counted) in phases.iter().zip([120, 210]) {
        let terms = system
            .control
            .terms_of(phase.catalog, &phase.tier, &phase.overrides)
            .await
            .expect("terms");
        let prices = system.books.ensure_plan(&terms).await.expect("prices");
        let of_usage = |line: &&farebox_stripe::InvoiceLine| {
            prices
                .metered
                .values()
                .any(|price| line.price.as_deref() == Some(price))
        };
        let quantity: u64 = closing
            .lines
            .iter()
            .filter(of_usage)
            .filter_map(|line| line.quantity)
            .sum();
        assert_eq!(quantity, counted, "{}: {:#?}", phase.tier, closing.lines);
    }
}

/// The record was stored, and whoever stored it died before the counter items were told: any later event tells them.
#[tokio::test]
async fn an_event_that_changes_nothing_tells_the_counters_what_is_stored() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    system.deliver_events().await.expect("delivered");
    assert_eq!(request(&system, &sold.key, "/v1/x").await, Answer::Admitted);
    let seen = record(&system).await;
    let changed = Customer {
        is_suspended: true,
        auth_epoch: seen.auth_epoch + 1,
        ..seen.clone()
    };
    let accounts = &system.books.accounts;
    accounts
        .put_customer(&changed, Some(seen.auth_epoch), None)
        .await
        .expect("stored");
    assert_eq!(request(&system, &sold.key, "/v1/x").await, Answer::Admitted);
    let mut event = last_event(&system, "customer.subscription.created");
    event["id"] = json!("evt_later");
    let done = deliver(&webhook(&system.books), &event, now_s(&system)).await;
    assert_eq!(done.1, r#"{"status":"done"}"#);
    assert_eq!(record(&system).await, changed);
    assert_eq!(code(request(&system, &sold.key, "/v1/x").await), "customer_suspended");
}

/// Whoever pays twice is told apart by nobody but the operator.
#[tokio::test]
async fn a_second_subscription_of_a_customer_is_told_to_the_operator() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    system.deliver_events().await.expect("delivered");
    system.deliver_alerts().await.expect("delivered");
    assert_eq!(sent(&system, "operator"), Vec::<String>::new());
    let customer = sold.customer.stripe_customer.clone().expect("in Stripe");
    let terms = system
        .control
        .terms_of(system.catalog.0, "scale", &Overrides::default())
        .await;
    let prices = system.books.ensure_plan(&terms.expect("terms")).await.expect("prices");
    let new = NewSubscription {
        customer: customer.clone(),
        prices: prices.all().into_iter().map(str::to_owned).collect(),
        ..NewSubscription::default()
    };
    let second = system
        .services
        .stripe
        .subscribe(&new, "second")
        .await
        .expect("subscribed");
    system.deliver_events().await.expect("delivered");
    system.deliver_alerts().await.expect("delivered");
    let told = sent(&system, "operator");
    assert!(told.iter().any(|told| told.contains(&second.id)), "{told:?}");
    assert_eq!(
        record(&system).await.stripe_subscription,
        sold.customer.stripe_subscription
    );

    // By Checkout, too, before any event of the subscription's own.
    let before = sent(&system, "operator").len();
    check_out_as(&system, Buyer::Customer(customer), None, None).await;
    let event = last_event(&system, "checkout.session.completed");
    let done = deliver(&webhook(&system.books), &event, now_s(&system)).await;
    assert_eq!(done.1, r#"{"status":"done"}"#);
    system.deliver_alerts().await.expect("delivered");
    let told = sent(&system, "operator");
    assert_eq!(told.len(), before + 1, "{told:?}");
}

/// However the events of a life arrive once it is over, the record says what Stripe says.
#[tokio::test]
async fn any_order_of_events_ends_in_the_same_record() {
    let mut outcomes = Vec::new();
    for seed in 0..5u64 {
        let system = system(TIERS, 1).await;
        sell(&system, "pro").await;
        let at = |s: u64| system.clock().set(Timestamp::from_s(START_S + s));
        at(DAY_S);
        change_base_price(&system, "scale").await;
        at(2 * DAY_S);
        set_card(&system, "pm_card_chargeCustomerFail").await;
        at(31 * DAY_S);
        system.services.stand_in.settle();
        at(33 * DAY_S);
        let id = record(&system).await.stripe_subscription.expect("subscribed");
        let ending = SubscriptionUpdate {
            cancel_at_period_end: Some(true),
            ..SubscriptionUpdate::default()
        };
        system
            .services
            .stripe
            .update_subscription(&id, &ending, "end")
            .await
            .expect("updated");
        let mut life = events(&system);
        match seed {
            0 => {}
            1 => life.reverse(),
            seed => shuffle(&mut life, seed),
        }
        let webhook = webhook(&system.books);
        for event in &life {
            let (status, body) = deliver(&webhook, event, now_s(&system)).await;
            assert_eq!(status, StatusCode::OK, "{body} {event}");
        }
        let outcome = outcome(&system).await;
        assert!(
            matches!(outcome.standing, Standing::PastDue { .. }),
            "{:?}",
            outcome.standing
        );
        assert_eq!(outcome.ends, Some(outcome.cycle.current.end));
        assert_eq!(outcome.phase_at(now_s(&system)).tier, "scale");
        outcomes.push(outcome);
    }
    for other in &outcomes[1..] {
        assert_eq!(other, &outcomes[0]);
    }
}

fn shuffle(events: &mut [Value], seed: u64) {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for i in (1..events.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        events.swap(i, (state % (i as u64 + 1)) as usize);
    }
}

#[tokio::test]
async fn a_subscription_that_ends_lets_nobody_in_from_that_second_on() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    let stripe = &system.services.stripe;
    let id = sold.customer.stripe_subscription.clone().expect("subscribed");
    let end = sold.customer.cycle.current.end;
    let set = |ends: bool| SubscriptionUpdate {
        cancel_at_period_end: Some(ends),
        ..SubscriptionUpdate::default()
    };
    stripe.update_subscription(&id, &set(true), "1").await.expect("updated");
    system.deliver_events().await.expect("delivered");
    assert_eq!(record(&system).await.ends, Some(end));
    stripe
        .update_subscription(&id, &set(false), "2")
        .await
        .expect("updated");
    system.deliver_events().await.expect("delivered");
    assert_eq!(record(&system).await.ends, None);
    stripe.update_subscription(&id, &set(true), "3").await.expect("updated");
    system.deliver_events().await.expect("delivered");

    // To the second, though no event has said so yet; and the last usage is on the last invoice.
    pass(&system, end - 1).await;
    for _ in 0..200 {
        assert_eq!(request(&system, &sold.key, "/v1/x").await, Answer::Admitted);
    }
    system.clock().set(Timestamp::from_s(end));
    assert_eq!(code(request(&system, &sold.key, "/v1/x").await), "subscription_ended");
    pass(&system, end + 1).await;
    assert_eq!(record(&system).await.standing, Standing::Ended);
    assert_eq!(units(&system, &sold).await, (200, 200, 200));
    pass(&system, end + 2 * HOUR_S).await;
    let customer = sold.customer.stripe_customer.as_deref().expect("in Stripe");
    let invoices = stripe.invoices(customer).await.expect("invoices");
    assert_eq!((invoices[0].total, invoices[0].status.as_deref()), (20, Some("paid")));
    assert_eq!(code(request(&system, &sold.key, "/v1/x").await), "subscription_ended");
}

#[tokio::test]
async fn a_subscription_canceled_at_once_is_closed_at_the_next_request_and_another_is_taken_up() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    let stripe = &system.services.stripe;
    let id = sold.customer.stripe_subscription.clone().expect("subscribed");
    assert_eq!(request(&system, &sold.key, "/v1/x").await, Answer::Admitted);
    stripe
        .cancel_subscription(&id, true, false, "1")
        .await
        .expect("canceled");
    system.deliver_events().await.expect("delivered");
    assert_eq!(code(request(&system, &sold.key, "/v1/x").await), "subscription_ended");

    // A trial without anything to pay with, which is paused when it ends.
    let terms = system
        .control
        .terms_of(system.catalog.0, "trial", &Overrides::default())
        .await;
    let prices = system.books.ensure_plan(&terms.expect("terms")).await.expect("prices");
    let new = NewSubscription {
        customer: sold.customer.stripe_customer.clone().expect("in Stripe"),
        prices: prices.all().into_iter().map(str::to_owned).collect(),
        trial_days: Some(14),
        trial_end_unpayable: Some(MissingPaymentMethod::Pause),
        ..NewSubscription::default()
    };
    let new = stripe.subscribe(&new, "2").await.expect("subscribed");
    // Who was just refused may be refused once more within the same moment.
    pass(&system, START_S + 1).await;
    assert_eq!(record(&system).await.stripe_subscription, Some(new.id.clone()));
    assert_eq!(request(&system, &sold.key, "/v3/x").await, Answer::Admitted);

    pass(&system, START_S + 14 * DAY_S + 60).await;
    assert_eq!(record(&system).await.standing, Standing::Paused);
    assert_eq!(code(request(&system, &sold.key, "/v3/x").await), "subscription_paused");
    let resumed_at = START_S + 20 * DAY_S + 1_234;
    pass(&system, resumed_at).await;
    set_card(&system, "pm_card_visa").await;
    stripe.resume_subscription(&new.id, "3").await.expect("resumed");
    system.deliver_events().await.expect("delivered");
    let after = record(&system).await;
    assert_eq!(
        (after.standing, after.cycle.current.start),
        (Standing::Good, resumed_at)
    );
    assert_eq!(request(&system, &sold.key, "/v3/x").await, Answer::Admitted);
}

#[tokio::test]
async fn a_trial_is_announced_and_goes_over_into_the_first_paid_period() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "trial").await;
    let trial_end = START_S + 14 * DAY_S;
    assert_eq!(sold.customer.cycle.current.end, trial_end);
    pass(&system, trial_end - 3 * DAY_S + 60).await;
    let mails = sent(&system, "email");
    assert_eq!(mails.len(), 1, "{mails:?}");
    assert!(mails[0].contains("trial"), "{mails:?}");
    pass(&system, trial_end + 60).await;
    let after = record(&system).await;
    assert_eq!((after.standing, after.cycle.current.start), (Standing::Good, trial_end));
    for _ in 0..150 {
        assert_eq!(request(&system, &sold.key, "/v3/x").await, Answer::Admitted);
    }
    pass(&system, after.cycle.current.end + 2 * HOUR_S).await;
    let customer = after.stripe_customer.expect("in Stripe");
    let invoices = system.services.stripe.invoices(&customer).await.expect("invoices");
    assert_eq!(invoices[0].total, 1_900 + 50);
    assert_eq!(
        sent(&system, "email").len(),
        2,
        "80 and 100 percent are one mail: {:?}",
        sent(&system, "email")
    );
}

#[tokio::test]
async fn who_does_not_pay_has_the_grace_then_what_the_tier_says_and_all_of_it_once_it_is_paid() {
    for (tier, path, then) in [("pro", "/v1/x", "payment_overdue"), ("scale", "/v2/x", "rate_limited")] {
        let system = system(TIERS, 1).await;
        let sold = sell(&system, tier).await;
        set_card(&system, "pm_card_chargeCustomerFail").await;
        let final_at = sold.customer.cycle.current.end + HOUR_S;
        pass(&system, final_at + 7).await;
        // Counted from the invoice, whenever we hear of it.
        assert_eq!(
            record(&system).await.standing,
            Standing::PastDue { since: final_at },
            "{tier}"
        );
        let mails = sent(&system, "email");
        assert!(mails.iter().any(|mail| mail.contains("payment")), "{mails:?}");
        let over = final_at + 2 * DAY_S;
        for at in [final_at + 8, over - 1] {
            pass(&system, at).await;
            assert_eq!(request(&system, &sold.key, path).await, Answer::Admitted, "{tier}");
            assert_eq!(request(&system, &sold.key, path).await, Answer::Admitted, "{tier}");
        }
        pass(&system, over).await;
        let answers = [
            code(request(&system, &sold.key, path).await),
            code(request(&system, &sold.key, path).await),
        ];
        assert_eq!(answers[1], then, "{tier}");
        // The first retry fails, too: nobody's grace begins anew.
        pass(&system, final_at + 3 * DAY_S + 60).await;
        assert_eq!(
            record(&system).await.standing,
            Standing::PastDue { since: final_at },
            "{tier}"
        );

        set_card(&system, "pm_card_visa").await;
        let customer = sold.customer.stripe_customer.as_deref().expect("in Stripe");
        let stripe = &system.services.stripe;
        let invoices = stripe.invoices(customer).await.expect("invoices");
        let open = invoices
            .iter()
            .find(|invoice| invoice.status.as_deref() == Some("open"))
            .expect("open");
        stripe.pay_invoice(&open.id, "pay").await.expect("paid");
        system.deliver_events().await.expect("delivered");
        assert_eq!(record(&system).await.standing, Standing::Good, "{tier}");
        for _ in 0..3 {
            assert_eq!(request(&system, &sold.key, path).await, Answer::Admitted, "{tier}");
        }
    }
}

/// Nothing waits for the schedule: what was counted up to the last second is in Stripe when the event is answered.
#[tokio::test]
async fn a_new_invoice_has_all_of_its_period_at_once() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    let end = sold.customer.cycle.current.end;
    pass(&system, end - 1).await;
    for _ in 0..7 {
        assert_eq!(request(&system, &sold.key, "/v1/x").await, Answer::Admitted);
    }
    system.clock().set(Timestamp::from_s(end + 60));
    // Neither the schedule nor the queue has run since.
    system.deliver_events().await.expect("delivered");
    assert_eq!(units(&system, &sold).await, (7, 7, 7));
}

#[tokio::test]
async fn without_the_table_a_new_invoice_is_left_to_the_schedule_and_all_else_comes_again() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    system.deliver_events().await.expect("delivered");
    system
        .clock()
        .set(Timestamp::from_s(sold.customer.cycle.current.end + 60));
    let created = last_event(&system, "invoice.created");
    let updated = last_event(&system, "customer.subscription.updated");
    let gone = Clients::new(&Settings {
        dynamodb_endpoint: Some("http://127.0.0.1:1".to_owned()),
        ..system.services.settings.clone()
    });
    let tables = system.tables();
    let mut books = system.books.clone();
    books.accounts = farebox_aws::accounts::AccountTable::new(gone.clone(), tables.accounts.clone());
    books.counters = farebox_aws::counters::CounterTable::new(gone.clone(), tables.counters.clone());
    books.ledger = farebox_aws::ledger::LedgerTable::new(gone, tables.ledger.clone());
    let now = now_s(&system);
    let broken = webhook(&books);
    let (status, body) = deliver(&broken, &created, now).await;
    assert_eq!(
        (status.as_u16(), body.as_str()),
        (200, r#"{"status":"left to the schedule"}"#)
    );
    let (status, body) = deliver(&broken, &updated, now).await;
    assert_eq!((status.as_u16(), body.as_str()), (503, r#"{"status":"try again"}"#));
    // The operator knows of the one that does not come again.
    system.deliver_alerts().await.expect("delivered");
    let told = sent(&system, "operator");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("invoice.created"), "{told:?}");
    // Nothing was marked: with the table back, both are followed.
    let webhook = webhook(&system.books);
    for event in [&created, &updated] {
        assert_eq!(deliver(&webhook, event, now).await.1, r#"{"status":"done"}"#);
    }
}

#[tokio::test]
async fn an_invoice_that_can_not_be_made_final_is_told_to_the_operator() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    system.services.stand_in.fail_next_finalizations(1);
    pass(&system, sold.customer.cycle.current.end + 2 * HOUR_S).await;
    let told = sent(&system, "operator");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("in_") && told[0].contains("acme"), "{told:?}");
}

/// Whoever changes a tier writes down what is meant, then asks Stripe, and may die there.
#[tokio::test]
async fn a_change_that_nobody_finished_is_finished_as_it_was_agreed() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    let agreed = Overrides {
        limits: Some(vec![farebox_core::tiers::Limit {
            units: 1,
            window_ms: 60_000,
        }]),
        ..Overrides::default()
    };
    let offered = system
        .control
        .phase(0, "scale", system.catalog.0, agreed)
        .await
        .expect("a phase");
    system
        .control
        .change(&sold.customer.id, system.clock().now(), |customer| {
            customer.offered = Some(offered.clone());
            Ok(())
        })
        .await
        .expect("changed");
    change_base_price(&system, "scale").await;
    system.deliver_events().await.expect("delivered");
    let after = record(&system).await;
    assert_eq!(after.offered, None);
    assert_eq!(after.phase_at(now_s(&system)).overrides, offered.overrides);
    assert_eq!(request(&system, &sold.key, "/v2/x").await, Answer::Admitted);
    assert_eq!(code(request(&system, &sold.key, "/v2/x").await), "rate_limited");
}

#[tokio::test]
async fn a_deleted_customer_is_let_in_no_more() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    let customer = sold.customer.stripe_customer.clone().expect("in Stripe");
    assert_eq!(
        http(&system, "DELETE", &format!("/v1/customers/{customer}"), "")
            .await
            .0,
        200
    );
    system.deliver_events().await.expect("delivered");
    assert_eq!(record(&system).await.standing, Standing::Ended);
    assert_eq!(code(request(&system, &sold.key, "/v1/x").await), "subscription_ended");
}

#[tokio::test]
async fn a_report_that_stripe_could_not_count_is_parked_and_the_operator_told() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    // Somebody deleted the customer in Stripe, and the event of it is still on its way.
    system
        .control
        .change(&sold.customer.id, system.clock().now(), |customer| {
            customer.stripe_customer = Some("cus_gone".to_owned());
            Ok(())
        })
        .await
        .expect("changed");
    assert_eq!(request(&system, &sold.key, "/v1/x").await, Answer::Admitted);
    pass(&system, START_S + 2 * HOUR_S).await;
    let (rows, _) = system.control.ledger.scan().await.expect("readable");
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].state, RowState::Parked);
    let outcome = rows[0].outcome.as_deref().unwrap_or_default();
    assert!(outcome.contains("customer_not_found"), "{outcome}");
    let told = sent(&system, "operator");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains(&rows[0].key.identifier()), "{told:?}");
    // Told again, it is known, and the row stays as the operator leaves it.
    let webhook = webhook(&system.books);
    let event = last_event(&system, "v1.billing.meter.error_report_triggered");
    assert_eq!(
        deliver(&webhook, &event, now_s(&system)).await.1,
        r#"{"status":"known"}"#
    );
}

#[tokio::test]
async fn a_parked_row_of_a_customer_that_stripe_does_not_have_keeps_no_other_from_repair() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    let (id, now) = (&sold.customer.id, system.clock().now());
    let gone = |customer: &mut Customer| {
        customer.stripe_customer = Some("cus_gone".to_owned());
        Ok(())
    };
    system.control.change(id, now, gone).await.expect("changed");
    assert_eq!(request(&system, &sold.key, "/v1/x").await, Answer::Admitted);
    pass(&system, START_S + 2 * HOUR_S).await;
    let parked = system.books.parked().await.expect("readable");
    assert_eq!((parked.len(), parked[0].in_stripe), (1, None));
    let Remedy::Operator(said) = &parked[0].remedy else {
        panic!("{parked:?}")
    };
    assert!(said.contains("Stripe has no customer cus_gone"), "{said}");
}

#[tokio::test]
async fn what_stripe_refused_to_count_is_no_duplicate_when_it_is_sent_again() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    assert_eq!(request(&system, &sold.key, "/v1/x").await, Answer::Admitted);
    pass(&system, START_S + 2 * HOUR_S).await;
    assert_eq!(units(&system, &sold).await, (1, 1, 1));
    let webhook = webhook(&system.books);
    let mut identifiers = BTreeSet::new();
    for round in 1..=2 {
        let (rows, _) = system.control.ledger.scan().await.expect("readable");
        let report = rows[0].report.clone().expect("a report");
        // Stripe knows the identifier and has nothing under it.
        let form = format!(
            "event_name={}&type=cancel&cancel[identifier]={}",
            report.event_name, report.identifier
        );
        let (status, _) = http(&system, "POST", "/v1/billing/meter_event_adjustments", &form).await;
        assert_eq!(status, 200);
        let event = json!({
            "id": format!("evt_refused_{round}"), "object": "v2.core.event", "created": "2026-01-31T12:30:00Z", "livemode": false,
            "type": "v1.billing.meter.error_report_triggered", "related_object": {"id": "mtr_1", "type": "billing.meter"},
            "data": {"developer_message_summary": "1 invalid event", "reason": {"error_count": 1, "error_types": [{
                "code": "archived_meter", "error_count": 1,
                "sample_errors": [{"error_message": "archived", "request": {"identifier": report.identifier}}],
            }]}},
        });
        let (status, _) = deliver(&webhook, &event, now_s(&system)).await;
        assert_eq!(status, StatusCode::OK);
        let parked = system.books.parked().await.expect("readable");
        assert_eq!((parked.len(), parked[0].in_stripe), (1, Some(0)));
        assert!(identifiers.insert(report.identifier), "another one each time");
        // On the same day, while Stripe still knows the identifier.
        assert!(system.books.repair(&parked[0]).await.expect("repaired"));
        // The event comes once more, under another id: it is about what was refused, not about what is sent now.
        let mut again = event.clone();
        again["id"] = json!(format!("evt_again_{round}"));
        deliver(&webhook, &again, now_s(&system)).await;
        pass(&system, START_S + (2 + round) * HOUR_S).await;
        assert_eq!(units(&system, &sold).await, (1, 1, 1), "round {round}");
    }
}

#[tokio::test]
async fn an_invoice_that_is_not_followed_in_time_is_told_to_the_operator() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    assert_eq!(request(&system, &sold.key, "/v1/x").await, Answer::Admitted);
    pass(&system, sold.customer.cycle.current.end + 10).await;
    let mut event = last_event(&system, "invoice.created");
    event["id"] = json!("evt_slow");
    // Stripe takes the call and does not answer.
    system.services.stand_in.misbehave(Fault {
        method: None,
        path_prefix: "/v1/".to_owned(),
        times: u32::MAX,
        kind: FaultKind::Delay(3_000),
    });
    let hasty = Webhook::new(Deps {
        patience: Duration::from_millis(300),
        ..deps(&system.books)
    });
    let (status, said) = deliver(&hasty, &event, now_s(&system)).await;
    assert_eq!(
        (status, said.as_str()),
        (StatusCode::OK, r#"{"status":"left to the schedule"}"#)
    );
    system.deliver_alerts().await.expect("delivered");
    let told = sent(&system, "operator");
    assert!(told.iter().any(|text| text.contains("took too long")), "{told:?}");
}

/// Somebody completes a Checkout page. Returns the session's id.
async fn check_out(system: &System, reference: Option<&str>, metadata: Option<&str>) -> String {
    let buyer = Buyer::Email("ada@example.com".to_owned());
    check_out_as(system, buyer, reference, metadata).await
}

/// What `pro` is sold by: the base price, and the metered ones.
async fn prices_of_pro(system: &System) -> (String, Vec<String>) {
    let terms = system
        .control
        .terms_of(system.catalog.0, "pro", &Overrides::default())
        .await;
    let prices = system.books.ensure_plan(&terms.expect("terms")).await.expect("prices");
    (prices.base, prices.metered.into_values().collect())
}

async fn check_out_as(system: &System, buyer: Buyer, reference: Option<&str>, metadata: Option<&str>) -> String {
    let (base, metered) = prices_of_pro(system).await;
    let mut line_items = vec![CheckoutPrice::Flat(base)];
    line_items.extend(metered.into_iter().map(CheckoutPrice::Metered));
    let new = NewCheckout {
        buyer,
        client_reference_id: reference.map(str::to_owned),
        prices: line_items,
        trial_days: None,
        metadata: metadata
            .map(|id| (CUSTOMER_KEY.to_owned(), id.to_owned()))
            .into_iter()
            .collect(),
        success_url: "https://api.example/welcome?session_id={CHECKOUT_SESSION_ID}".to_owned(),
        cancel_url: None,
    };
    let key = format!("checkout-{reference:?}-{metadata:?}-{}", events(system).len());
    let session = system
        .services
        .stripe
        .create_checkout_session(&new, &key)
        .await
        .expect("a session");
    complete(system, &session.id).await;
    session.id
}

/// Somebody opens a Payment Link, with a reference that they wrote behind its address, and completes the page. Returns the
/// session's id.
async fn check_out_by_link(system: &System, reference: &str) -> String {
    let (base, metered) = prices_of_pro(system).await;
    let metered: String = metered
        .iter()
        .enumerate()
        .map(|(i, price)| format!("&line_items[{}][price]={price}", i + 1))
        .collect();
    let form = format!(
        "mode=subscription&success_url=https://api.example/welcome&customer_email=eve@example.com&\
         client_reference_id={reference}&line_items[0][price]={base}&line_items[0][quantity]=1{metered}"
    );
    let session = id_of(http(system, "POST", "/_standin/payment_link", &form).await);
    complete(system, &session).await;
    session
}

/// The customer presses the button of a session's page.
async fn complete(system: &System, session: &str) {
    let page = format!("/_standin/checkout/{session}");
    let (status, answer) = http(system, "POST", &page, "name=Ada").await;
    assert!((200..400).contains(&status), "{answer}");
}

/// The id of what Stripe answered.
fn id_of((status, answer): (u16, String)) -> String {
    assert_eq!(status, 200, "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let object: Value = serde_json::from_str(body).expect("JSON");
    object["id"].as_str().expect("an id").to_owned()
}

async fn welcome(webhook: &Webhook, session: &str, accept: &str) -> (u16, String) {
    let request = Request::get(format!("/live/welcome?session_id={session}")).header("accept", accept);
    let request = request.body(Bytes::new()).expect("a request");
    let response = webhook.handle(request, Timestamp::from_s(START_S)).await;
    assert_eq!(response.headers()["cache-control"], "no-store");
    (response.status().as_u16(), response.into_body())
}

#[tokio::test]
async fn who_buys_by_checkout_is_a_customer_and_sees_the_first_key_once() {
    let system = system(TIERS, 1).await;
    let webhook = webhook(&system.books);
    let session = check_out(&system, Some("acme"), None).await;
    let event = last_event(&system, "checkout.session.completed");
    for verdict in ["done", "known", "known"] {
        let (status, body) = deliver(&webhook, &event, START_S).await;
        assert_eq!((status.as_u16(), body), (200, format!("{{\"status\":\"{verdict}\"}}")));
    }
    let customer = record(&system).await;
    assert_eq!(
        (customer.name.as_str(), customer.phases[0].tier.as_str()),
        ("Ada", "pro")
    );
    assert_eq!(customer.contact.email.as_deref(), Some("ada@example.com"));
    assert_eq!(customer.standing, Standing::Good);
    let keys = system.books.accounts.keys(&customer.id).await.expect("readable");
    assert_eq!(keys.len(), 1);

    let (status, body) = welcome(&webhook, &session, "application/json").await;
    assert_eq!(status, 200);
    let shown: Value = serde_json::from_str(&body).expect("JSON");
    let key = shown["key"].as_str().expect("a key");
    assert_eq!(ApiKey::parse(key).expect("well-formed").hash(), keys[0].0);
    assert_eq!(request(&system, key, "/v1/x").await, Answer::Admitted);
    for accept in ["application/json", "text/html"] {
        let (status, body) = welcome(&webhook, &session, accept).await;
        assert_eq!(status, 410);
        assert!(!body.contains(key));
    }
    // A key that was revoked stays so, whatever comes again.
    let hash = keys[0].0;
    system
        .control
        .revoke_key(hash, system.clock().now())
        .await
        .expect("revoked");
    let mut again = event.clone();
    again["id"] = json!("evt_again");
    assert_eq!(deliver(&webhook, &again, START_S).await.1, r#"{"status":"done"}"#);
    assert_eq!(request(&system, key, "/v1/x").await, Answer::Unauthorized);
}

/// How many keys a customer has.
async fn keys(system: &System, customer: &str) -> usize {
    let customer = customer.to_owned().try_into().expect("an id");
    system.books.accounts.keys(&customer).await.expect("readable").len()
}

/// The key follows from the secret and the brand of today: a link from long ago must not yield another key than it once did.
#[tokio::test]
async fn an_old_link_yields_no_key_whatever_the_secret_and_the_brand_are_by_then() {
    let system = system(TIERS, 1).await;
    let before = webhook(&system.books);
    let after = Webhook::new(Deps {
        first_key: FirstKeySecret::new("another-secret-for-first-keys-01").expect("a secret"),
        brand: "other".to_owned(),
        ..deps(&system.books)
    });
    let shown = check_out(&system, Some("shown"), None).await;
    let unseen = check_out(&system, Some("unseen"), None).await;
    let event = last_event(&system, "checkout.session.completed");
    assert_eq!(event["data"]["object"]["id"], unseen.as_str());
    assert_eq!(welcome(&before, &shown, "application/json").await.0, 200);
    assert_eq!(welcome(&after, &shown, "application/json").await.0, 410);
    assert_eq!(keys(&system, "shown").await, 1);

    // Of the second one nobody has opened the page, and no event has come yet.
    let late = START_S + 30 * DAY_S + 1;
    system.clock().set(Timestamp::from_s(late));
    for session in [&shown, &unseen] {
        assert_eq!(welcome(&after, session, "application/json").await.0, 410);
    }
    assert_eq!(keys(&system, "shown").await, 1);
    assert_eq!(deliver(&after, &event, late).await.1, r#"{"status":"done"}"#);
    let customers = system.books.accounts.customers().await.expect("readable");
    let ids: Vec<String> = customers.iter().map(|customer| customer.id.to_string()).collect();
    assert_eq!(ids, ["shown", "unseen"]);
    assert_eq!(keys(&system, "unseen").await, 0);
}

#[tokio::test]
async fn a_first_key_waits_thirty_days_for_whoever_bought_it() {
    let system = system(TIERS, 1).await;
    let webhook = webhook(&system.books);
    let session = check_out(&system, Some("acme"), None).await;
    system.clock().set(Timestamp::from_s(START_S + 30 * DAY_S));
    let (status, body) = welcome(&webhook, &session, "application/json").await;
    assert_eq!(status, 200, "{body}");
}

#[tokio::test]
async fn a_session_that_was_shown_costs_stripe_no_call() {
    let system = system(TIERS, 1).await;
    let webhook = webhook(&system.books);
    let session = check_out(&system, Some("acme"), None).await;
    assert_eq!(welcome(&webhook, &session, "application/json").await.0, 200);
    // Whatever asks Stripe now gets no answer.
    system.services.stand_in.misbehave(Fault {
        method: None,
        path_prefix: "/v1/".to_owned(),
        times: u32::MAX,
        kind: FaultKind::Error500BeforeCommit,
    });
    assert_eq!(welcome(&webhook, "cs_test_unknown", "application/json").await.0, 503);
    assert_eq!(welcome(&webhook, &session, "application/json").await.0, 410);
}

#[tokio::test]
async fn a_page_that_stripe_keeps_waiting_says_so_in_time() {
    let system = system(TIERS, 1).await;
    let session = check_out(&system, Some("acme"), None).await;
    system.services.stand_in.misbehave(Fault {
        method: None,
        path_prefix: "/v1/checkout/sessions/".to_owned(),
        times: 1,
        kind: FaultKind::Delay(3_000),
    });
    let hasty = Webhook::new(Deps {
        patience: Duration::from_millis(300),
        ..deps(&system.books)
    });
    let request = Request::get(format!("/live/welcome?session_id={session}"));
    let request = request.body(Bytes::new()).expect("a request");
    let response = hasty.handle(request, Timestamp::from_s(START_S)).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "5");
    assert!(response.body().contains("not ready yet"), "{}", response.body());
    // Nothing was shown, so the same page shows it now.
    let webhook = webhook(&system.books);
    assert_eq!(welcome(&webhook, &session, "application/json").await.0, 200);
}

#[tokio::test]
async fn the_page_need_not_wait_for_the_event() {
    let system = system(TIERS, 1).await;
    let webhook = webhook(&system.books);
    let session = check_out(&system, None, None).await;
    let (status, body) = welcome(&webhook, &session, "text/html").await;
    assert_eq!(status, 200, "{body}");
    let key = body
        .split_once("<pre>")
        .and_then(|(_, rest)| rest.split_once("</pre>"))
        .expect("a key")
        .0;
    assert_eq!(request(&system, key, "/v1/x").await, Answer::Admitted);
    assert!(body.contains("https://portal.example"));
    let event = last_event(&system, "checkout.session.completed");
    assert_eq!(deliver(&webhook, &event, START_S).await.1, r#"{"status":"done"}"#);
    let customers = system.books.accounts.customers().await.expect("readable");
    assert_eq!(customers.len(), 1);
    // Without a name of ours, the customer has Stripe's.
    assert_eq!(Some(customers[0].id.to_string()), customers[0].stripe_customer);
}

#[tokio::test]
async fn a_name_that_somebody_else_pays_for_is_not_taken_over() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    let webhook = webhook(&system.books);
    check_out(&system, Some("acme"), None).await;
    let event = last_event(&system, "checkout.session.completed");
    assert_eq!(deliver(&webhook, &event, START_S).await.1, r#"{"status":"done"}"#);
    assert_eq!(record(&system).await.stripe_customer, sold.customer.stripe_customer);
    let keys = system.books.accounts.keys(&sold.customer.id).await.expect("readable");
    assert_eq!(keys.len(), 1, "acme's own");
    assert_eq!(system.books.accounts.customers().await.expect("readable").len(), 2);
    system.deliver_alerts().await.expect("delivered");
    assert_eq!(sent(&system, "operator").len(), 1);
}

/// The operator gives acme a tier, and nobody pays for it.
async fn invite_acme(system: &System) {
    use farebox_aws::control::NewCustomer;
    use farebox_core::{account::Contact, time::Cycle};
    let new = NewCustomer {
        id: "acme".to_owned().try_into().expect("an id"),
        name: "Acme".to_owned(),
        tier: "trial".to_owned(),
        catalog: system.catalog.0,
        overrides: Overrides::default(),
        cycle: Cycle::starting_at(START_S, Default::default()),
        contact: Contact::default(),
        stripe_customer: None,
        stripe_subscription: None,
    };
    let added = system.control.add_customer(new, system.clock().now()).await;
    added.expect("added");
}

#[tokio::test]
async fn a_reference_on_a_payment_link_names_nobody() {
    let system = system(TIERS, 1).await;
    invite_acme(&system).await;
    let before = record(&system).await;
    let webhook = webhook(&system.books);
    for reference in ["acme", "umbrella"] {
        check_out_by_link(&system, reference).await;
        let event = last_event(&system, "checkout.session.completed");
        assert_eq!(deliver(&webhook, &event, START_S).await.1, r#"{"status":"done"}"#);
    }
    assert_eq!(record(&system).await, before);
    assert_eq!(keys(&system, "acme").await, 0);
    let customers = system.books.accounts.customers().await.expect("readable");
    assert_eq!(customers.len(), 3);
    for customer in customers.iter().filter(|customer| customer.id.as_str() != "acme") {
        assert_eq!(Some(customer.id.as_str()), customer.stripe_customer.as_deref());
        assert_eq!(keys(&system, customer.id.as_str()).await, 1);
    }
    // Whoever opens a link writes what they like: the operator is not to be called for it.
    system.deliver_alerts().await.expect("delivered");
    assert_eq!(sent(&system, "operator"), Vec::<String>::new());
}

#[tokio::test]
async fn a_record_that_exists_is_given_away_by_metadata_alone() {
    let system = system(TIERS, 1).await;
    invite_acme(&system).await;
    let before = record(&system).await;
    let webhook = webhook(&system.books);
    let session = check_out(&system, Some("acme"), None).await;
    let (status, body) = welcome(&webhook, &session, "application/json").await;
    assert_eq!(status, 200, "{body}");
    let shown: Value = serde_json::from_str(&body).expect("JSON");
    assert!(
        shown["customer"].as_str().expect("an id").starts_with("cus_"),
        "{shown}"
    );
    assert_eq!(record(&system).await, before);
    assert_eq!(keys(&system, "acme").await, 0);
    system.deliver_alerts().await.expect("delivered");
    let told = sent(&system, "operator");
    assert!(told.len() == 1 && told[0].contains("metadata"), "{told:?}");

    check_out(&system, None, Some("acme")).await;
    let event = last_event(&system, "checkout.session.completed");
    assert_eq!(deliver(&webhook, &event, START_S).await.1, r#"{"status":"done"}"#);
    assert!(record(&system).await.stripe_customer.is_some());
    assert_eq!(keys(&system, "acme").await, 1);
}

/// Without a name of ours a buyer is called as Stripe calls them. Somebody else may have taken that for a name before.
#[tokio::test]
async fn who_took_the_name_that_stripe_gives_a_buyer_is_not_given_their_purchase() {
    let system = system(TIERS, 1).await;
    let webhook = webhook(&system.books);
    let buyer = id_of(http(&system, "POST", "/v1/customers", "email=ada@example.com").await);
    check_out(&system, Some(&buyer), None).await;
    let event = last_event(&system, "checkout.session.completed");
    assert_eq!(deliver(&webhook, &event, START_S).await.1, r#"{"status":"done"}"#);
    assert_eq!(keys(&system, &buyer).await, 1);

    check_out_as(&system, Buyer::Customer(buyer.clone()), None, None).await;
    let event = last_event(&system, "checkout.session.completed");
    let (status, _) = deliver(&webhook, &event, START_S).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(keys(&system, &buyer).await, 1);
    system.deliver_alerts().await.expect("delivered");
    let told = sent(&system, "operator");
    assert!(told.len() == 1 && told[0].contains("and the record"), "{told:?}");
}

#[tokio::test]
async fn a_record_without_stripe_is_bound_to_who_pays_for_it() {
    let system = system(TIERS, 1).await;
    invite_acme(&system).await;
    pass(&system, START_S + 5 * DAY_S).await;
    check_out(&system, Some("somebody-else"), Some("acme")).await;
    system.deliver_events().await.expect("delivered");
    let customer = record(&system).await;
    assert_eq!(customer.name, "Acme");
    assert_eq!(customer.phase_at(now_s(&system)).tier, "pro");
    assert_eq!(customer.cycle.current.start, START_S + 5 * DAY_S);
    assert!(customer.stripe_customer.is_some());
    assert_eq!(system.books.accounts.customers().await.expect("readable").len(), 1);
}

/// A rotation read the key, then somebody revoked it, then the rotation wrote what it had read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_does_not_undo_a_revocation() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    let hash = ApiKey::parse(&sold.key).expect("well-formed").hash();
    let accounts = &system.books.accounts;
    let (seen, mut key) = accounts.seen_key(hash).await.expect("readable").expect("a key");
    system
        .control
        .revoke_key(hash, system.clock().now())
        .await
        .expect("revoked");
    key.expires = Some(system.clock().now());
    assert!(!accounts.replace_key(hash, &seen, &key).await.expect("refused"));
    assert_eq!(request(&system, &sold.key, "/v1/x").await, Answer::Unauthorized);

    for _ in 0..10 {
        let new = farebox_aws::control::NewKey {
            brand: "fb".to_owned(),
            mode: Mode::Test,
            name: String::new(),
            scopes: Vec::new(),
            expires: None,
        };
        let now = system.clock().now();
        let issued = system
            .control
            .issue_key(&sold.customer.id, new, now)
            .await
            .expect("issued");
        let hash = issued.key.hash();
        let (rotated, revoked) = tokio::join!(
            system.control.rotate_key(hash, "fb", 60, now),
            system.control.revoke_key(hash, now)
        );
        // Who comes second finds the key revoked.
        drop(rotated);
        revoked.expect("revoked");
        let key = accounts.key(hash).await.expect("readable").expect("a key");
        assert_eq!(key.revoked, Some(now));
    }
}

/// Whoever stored a version died before it was the newest: it stood in the way of every later one.
#[tokio::test]
async fn a_catalog_that_nobody_made_the_newest_is_no_obstacle() {
    use aws_sdk_dynamodb::types::AttributeValue::S;
    let system = system(TIERS, 1).await;
    let accounts = &system.books.accounts;
    let (first, catalog) = &system.catalog;
    let [mut one, mut other] = [catalog.clone(), catalog.clone()];
    one.tiers.truncate(1);
    other.tiers.truncate(2);
    let leave = |version: u64| {
        let put = system.services.clients.dynamodb.put_item();
        put.table_name(&system.tables().accounts)
            .item("pk", S(format!("t#{version}")))
            .item("sk", S("catalog".to_owned()))
            .item("doc", S(serde_json::to_string(&one).expect("JSON")))
            .send()
    };
    leave(first + 1).await.expect("stored");
    assert_eq!(accounts.put_catalog(&other).await.expect("stored"), first + 2);
    assert_eq!(accounts.newest_catalog().await.expect("readable"), first + 2);
    leave(first + 3).await.expect("stored");
    assert_eq!(accounts.put_catalog(&one).await.expect("stored"), first + 3);
    assert_eq!(accounts.newest_catalog().await.expect("readable"), first + 3);
    assert_eq!(accounts.put_catalog(&one).await.expect("the same"), first + 3);
}

/// Somebody edited a record by hand, and put a secret where a list of them belongs.
#[tokio::test]
async fn a_record_that_can_not_be_read_is_not_quoted() {
    use aws_sdk_dynamodb::types::AttributeValue::S;
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "pro").await;
    let mut document = serde_json::to_value(&sold.customer).expect("JSON");
    document["contact"]["webhook_secrets"] = json!("whsec_planted");
    let put = system.services.clients.dynamodb.put_item();
    put.table_name(&system.tables().accounts)
        .item("pk", S("c#acme".to_owned()))
        .item("sk", S("customer".to_owned()))
        .item("doc", S(document.to_string()))
        .send()
        .await
        .expect("stored");
    let read = system.books.accounts.customer(&sold.customer.id).await;
    let error = read.expect_err("it can't be read").to_string();
    assert!(!error.contains("whsec_planted"), "{error}");
    assert!(error.contains("at line 1 column "), "{error}");
}
