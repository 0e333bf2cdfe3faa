//! Payments that fail: retries, statuses, and the way back.

use serde_json::Value;

use farebox_stripe_standin::AfterRetries;

use crate::api::{Api, DAY, FEBRUARY_END, HOUR, MARCH_END, START, id};

const FAILS: &str = "pm_card_chargeCustomerFail";

/// When a renewal is finalized and its payment attempted.
const ATTEMPTED: i64 = FEBRUARY_END + HOUR;

/// The types of the events from a cursor on.
fn kinds(api: &Api, cursor: usize) -> Vec<String> {
    let events = api.standin.events_after(cursor).events;
    events
        .iter()
        .map(|event| event["type"].as_str().expect("a type").to_owned())
        .collect()
}

fn cursor(api: &Api) -> usize {
    api.standin.events_after(0).cursor
}

async fn set_method(api: &Api, customer: &str, method: &str) {
    let form = format!("invoice_settings[default_payment_method]={method}");
    let shown = api.post(&format!("/v1/customers/{customer}"), &form).await.ok();
    assert_eq!(shown["invoice_settings"]["default_payment_method"], method);
}

async fn subscription(api: &Api, id: &str) -> Value {
    api.get(&format!("/v1/subscriptions/{id}")).await.ok()
}

/// A subscription at 1,000 a month whose renewal fails: the customer, the subscription and the open invoice.
async fn failing_renewal(api: &Api) -> (String, String, String) {
    let price = api.price("unit_amount=1000").await;
    let customer = api.customer().await;
    let made = id(&api.subscribe(&customer, &[&price]).await);
    set_method(api, &customer, FAILS).await;
    api.set_clock(ATTEMPTED - 1);
    api.standin.settle();
    let before = cursor(api);
    api.set_clock(ATTEMPTED);
    assert_eq!(
        kinds(api, before),
        [
            "invoice.finalized",
            "invoice.payment_failed",
            "customer.updated",
            "customer.subscription.updated",
        ]
    );
    let invoice = id(&api.newest_invoice(&customer).await);
    (customer, made, invoice)
}

#[tokio::test]
async fn a_renewal_that_fails_is_past_due_and_retried() {
    let api = Api::start().await;
    let (customer, made, invoice) = failing_renewal(&api).await;
    let shown = api.newest_invoice(&customer).await;
    assert_eq!(
        (&shown["status"], &shown["attempt_count"], &shown["attempted"]),
        (&"open".into(), &1.into(), &true.into())
    );
    assert_eq!(shown["next_payment_attempt"], ATTEMPTED + 3 * DAY);
    assert_eq!(
        (&shown["amount_paid"], &shown["amount_remaining"]),
        (&0.into(), &1000.into())
    );
    assert_eq!(subscription(&api, &made).await["status"], "past_due");
    let payer = api.get(&format!("/v1/customers/{customer}")).await.ok();
    assert_eq!(payer["delinquent"], true);

    // Neither the next second nor a new card brings the retry forward; the retry uses the new card.
    set_method(&api, &customer, "pm_card_visa").await;
    api.set_clock(ATTEMPTED + 3 * DAY - 1);
    assert_eq!(api.newest_invoice(&customer).await["status"], "open");
    let before = cursor(&api);
    api.set_clock(ATTEMPTED + 3 * DAY);
    assert_eq!(
        kinds(&api, before),
        [
            "invoice.paid",
            "invoice.payment_succeeded",
            "customer.updated",
            "customer.subscription.updated"
        ]
    );
    let paid = api.get(&format!("/v1/invoices/{invoice}")).await.ok();
    assert_eq!((&paid["status"], &paid["attempt_count"]), (&"paid".into(), &2.into()));
    assert!(paid["next_payment_attempt"].is_null());
    assert_eq!(subscription(&api, &made).await["status"], "active");
}

#[tokio::test]
async fn an_open_invoice_can_be_paid_with_another_card() {
    let api = Api::start().await;
    let (_, made, invoice) = failing_renewal(&api).await;
    let pay = format!("/v1/invoices/{invoice}/pay");
    let before = cursor(&api);
    let error = api.post(&pay, "").await.error(402);
    assert_eq!(
        (&error["type"], &error["code"], &error["decline_code"]),
        (&"card_error".into(), &"card_declined".into(), &"generic_decline".into())
    );
    // An attempt by hand is told, and moves no retry.
    assert_eq!(kinds(&api, before), ["invoice.payment_failed"]);
    let open = api.get(&format!("/v1/invoices/{invoice}")).await.ok();
    assert_eq!(
        (&open["attempt_count"], &open["next_payment_attempt"]),
        (&1.into(), &(ATTEMPTED + 3 * DAY).into())
    );

    let paid = api.post(&pay, "payment_method=pm_card_visa").await.ok();
    assert_eq!((&paid["status"], &paid["amount_paid"]), (&"paid".into(), &1000.into()));
    assert_eq!(subscription(&api, &made).await["status"], "active");
    assert_eq!(api.post(&pay, "").await.status, 400);
    // The card on file still fails.
    api.set_clock(MARCH_END + HOUR);
    assert_eq!(subscription(&api, &made).await["status"], "past_due");
}

#[tokio::test]
async fn after_the_last_retry_the_subscription_is_canceled() {
    let api = Api::start().await;
    let (_, made, invoice) = failing_renewal(&api).await;
    for (day, attempts) in [(3, 2), (8, 3)] {
        api.set_clock(ATTEMPTED + day * DAY);
        let shown = api.get(&format!("/v1/invoices/{invoice}")).await.ok();
        assert_eq!(shown["attempt_count"], attempts);
    }
    assert_eq!(subscription(&api, &made).await["status"], "past_due");
    let before = cursor(&api);
    api.set_clock(ATTEMPTED + 15 * DAY);
    assert_eq!(
        kinds(&api, before),
        ["invoice.payment_failed", "customer.subscription.deleted"]
    );
    let ended = subscription(&api, &made).await;
    assert_eq!(
        (&ended["status"], &ended["cancellation_details"]["reason"]),
        (&"canceled".into(), &"payment_failed".into())
    );
    let shown = api.get(&format!("/v1/invoices/{invoice}")).await.ok();
    assert_eq!((&shown["status"], &shown["attempt_count"]), (&"open".into(), &4.into()));
    assert!(shown["next_payment_attempt"].is_null());
}

#[tokio::test]
async fn or_it_becomes_unpaid_and_its_invoices_stay_drafts() {
    let api = Api::with(|options| options.after_retries = AfterRetries::MarkUnpaid).await;
    let (customer, made, _) = failing_renewal(&api).await;
    api.set_clock(ATTEMPTED + 15 * DAY);
    assert_eq!(subscription(&api, &made).await["status"], "unpaid");
    api.set_clock(MARCH_END + 5 * DAY);
    let held = api.newest_invoice(&customer).await;
    assert_eq!(
        (&held["status"], &held["auto_advance"]),
        (&"draft".into(), &false.into())
    );
    let pay = format!("/v1/invoices/{}/pay", id(&held));
    assert_eq!(
        api.post(&pay, "payment_method=pm_card_visa").await.ok()["status"],
        "paid"
    );
    assert_eq!(subscription(&api, &made).await["status"], "active");
}

#[tokio::test]
async fn or_it_stays_past_due() {
    let api = Api::with(|options| options.after_retries = AfterRetries::LeavePastDue).await;
    let (customer, made, _) = failing_renewal(&api).await;
    api.set_clock(MARCH_END + HOUR);
    assert_eq!(subscription(&api, &made).await["status"], "past_due");
    assert_eq!(api.newest_invoice(&customer).await["attempt_count"], 1);
}

/// A new customer's answer to a first payment that fails.
async fn first_payment_fails(api: &Api, rest: &str) -> (String, crate::api::Answer) {
    let price = api.price("unit_amount=1000").await;
    let customer = api.customer().await;
    set_method(api, &customer, FAILS).await;
    let form = format!("customer={customer}&items[0][price]={price}{rest}");
    (customer, api.post("/v1/subscriptions", &form).await)
}

#[tokio::test]
async fn a_first_payment_that_fails_leaves_the_subscription_incomplete() {
    for rest in [
        "",
        "&payment_behavior=allow_incomplete",
        "&payment_behavior=default_incomplete",
    ] {
        let api = Api::start().await;
        let (customer, answer) = first_payment_fails(&api, rest).await;
        let made = answer.ok();
        assert_eq!(made["status"], "incomplete");
        let invoice = api.newest_invoice(&customer).await;
        assert_eq!(
            (&invoice["status"], &invoice["attempt_count"]),
            (&"open".into(), &1.into())
        );
        assert!(
            invoice["next_payment_attempt"].is_null(),
            "the customer is there to try again"
        );
        let item = &made["items"]["data"][0]["id"];
        let path = format!("/v1/subscriptions/{}", id(&made));
        let change = format!("items[0][id]={}&items[0][quantity]=2", item.as_str().expect("an id"));
        assert_eq!(api.post(&path, &change).await.status, 400);

        api.set_clock(START + 23 * HOUR - 1);
        api.standin.settle();
        assert_eq!(api.get(&path).await.ok()["status"], "incomplete");
        let before = cursor(&api);
        api.set_clock(START + 23 * HOUR);
        assert_eq!(kinds(&api, before), ["customer.subscription.updated", "invoice.voided"]);
        assert_eq!(api.get(&path).await.ok()["status"], "incomplete_expired");
        api.set_clock(MARCH_END);
        assert_eq!(api.newest_invoice(&customer).await["id"], invoice["id"]);
    }
}

#[tokio::test]
async fn an_incomplete_subscription_is_active_once_it_is_paid() {
    let api = Api::start().await;
    let (customer, answer) = first_payment_fails(&api, "").await;
    let made = id(&answer.ok());
    let before = cursor(&api);
    let path = format!("/v1/invoices/{}/pay", id(&api.newest_invoice(&customer).await));
    api.post(&path, "payment_method=pm_card_visa").await.ok();
    assert_eq!(
        kinds(&api, before),
        [
            "invoice.paid",
            "invoice.payment_succeeded",
            "customer.updated",
            "customer.subscription.updated"
        ]
    );
    assert_eq!(subscription(&api, &made).await["status"], "active");
    api.set_clock(START + 2 * DAY);
    assert_eq!(subscription(&api, &made).await["status"], "active");
}

#[tokio::test]
async fn or_the_request_is_refused_and_nothing_is_made() {
    let api = Api::start().await;
    let (customer, answer) = first_payment_fails(&api, "&payment_behavior=error_if_incomplete").await;
    assert_eq!(answer.error(402)["code"], "card_declined");
    let listed = api
        .get(&format!("/v1/subscriptions?customer={customer}&status=all"))
        .await
        .ok();
    assert_eq!(listed["data"], serde_json::json!([]));
    assert_eq!(api.get("/v1/invoices").await.ok()["data"], serde_json::json!([]));
}

#[tokio::test]
async fn an_upgrade_that_fails_is_done_and_past_due_or_refused() {
    let api = Api::start().await;
    let (small, large) = (api.price("unit_amount=1000").await, api.price("unit_amount=9000").await);
    let customer = api.customer().await;
    let made = api.subscribe(&customer, &[&small]).await;
    set_method(&api, &customer, FAILS).await;
    let path = format!("/v1/subscriptions/{}", id(&made));
    let change = format!(
        "items[0][id]={}&items[0][price]={large}&proration_behavior=always_invoice",
        made["items"]["data"][0]["id"].as_str().expect("an id")
    );
    let refused = format!("{change}&payment_behavior=error_if_incomplete");
    assert_eq!(api.post(&path, &refused).await.error(402)["code"], "card_declined");
    assert_eq!(api.get(&path).await.ok()["items"], made["items"]);
    let changed = api.post(&path, &change).await.ok();
    assert_eq!(changed["status"], "past_due");
    assert_eq!(changed["items"]["data"][0]["price"]["id"], large.as_str());
}

#[tokio::test]
async fn nothing_to_pay_is_always_paid_and_a_subscriptions_own_card_comes_first() {
    let api = Api::start().await;
    let (free, paid) = (api.price("unit_amount=0").await, api.price("unit_amount=500").await);
    let customer = api.customer().await;
    set_method(&api, &customer, FAILS).await;
    assert_eq!(api.subscribe(&customer, &[&free]).await["status"], "active");
    let form = format!("customer={customer}&items[0][price]={paid}&default_payment_method=pm_card_visa");
    assert_eq!(api.post("/v1/subscriptions", &form).await.ok()["status"], "active");
    // A card that declines already when it is attached.
    let form = "invoice_settings[default_payment_method]=pm_card_visa_chargeDeclined";
    let path = format!("/v1/customers/{customer}");
    assert_eq!(api.post(&path, form).await.error(402)["code"], "card_declined");
}

#[tokio::test]
async fn a_debt_can_be_given_up() {
    let api = Api::start().await;
    let (_, made, invoice) = failing_renewal(&api).await;
    let given_up = api
        .post(&format!("/v1/invoices/{invoice}/mark_uncollectible"), "")
        .await
        .ok();
    assert_eq!(
        (&given_up["status"], &given_up["next_payment_attempt"]),
        (&"uncollectible".into(), &Value::Null)
    );
    assert_eq!(subscription(&api, &made).await["status"], "active");
}

#[tokio::test]
async fn a_finalization_can_be_made_to_fail() {
    let api = Api::start().await;
    let price = api.price("unit_amount=1000").await;
    let customer = api.customer().await;
    api.subscribe(&customer, &[&price]).await;
    api.standin.fail_next_finalizations(1);
    api.set_clock(FEBRUARY_END);
    api.standin.settle();
    let before = cursor(&api);
    api.set_clock(FEBRUARY_END + HOUR);
    assert_eq!(kinds(&api, before), ["invoice.finalization_failed"]);
    let draft = api.newest_invoice(&customer).await;
    assert_eq!(draft["status"], "draft");
    assert_eq!(
        draft["last_finalization_error"]["code"],
        "customer_tax_location_invalid"
    );
    let finalized = api
        .post(&format!("/v1/invoices/{}/finalize", id(&draft)), "")
        .await
        .ok();
    assert_eq!(finalized["status"], "paid");
    assert!(finalized["last_finalization_error"].is_null());
}

#[tokio::test]
async fn a_deleted_customer_is_not_asked_again() {
    let api = Api::start().await;
    let (customer, made, invoice) = failing_renewal(&api).await;
    let before = cursor(&api);
    api.delete(&format!("/v1/customers/{customer}")).await.ok();
    assert_eq!(
        kinds(&api, before),
        ["customer.subscription.deleted", "customer.deleted"]
    );
    assert_eq!(subscription(&api, &made).await["status"], "canceled");
    let left = api.get(&format!("/v1/invoices/{invoice}")).await.ok();
    assert_eq!(
        (&left["status"], &left["next_payment_attempt"]),
        (&"open".into(), &Value::Null)
    );
    let before = cursor(&api);
    api.set_clock(ATTEMPTED + 60 * DAY);
    assert_eq!(kinds(&api, before), [""; 0]);
}
