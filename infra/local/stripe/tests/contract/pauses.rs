//! Trials without a payment method, and paused collection.

use serde_json::Value;

use crate::api::{Api, DAY, FEBRUARY_END, HOUR, START, id};

/// The types of the subscription's events, each with its time.
fn told(api: &Api) -> Vec<(i64, String)> {
    let events = api.standin.events_after(0).events;
    events
        .iter()
        .filter_map(|event| {
            let kind = event["type"].as_str()?.strip_prefix("customer.subscription.")?;
            Some((event["created"].as_i64()?, kind.to_owned()))
        })
        .collect()
}

fn event(at: i64, kind: &str) -> (i64, String) {
    (at, kind.to_owned())
}

/// A trial of some days that ends as `ending` says; the customer and the path of the subscription.
async fn trial(api: &Api, days: i64, ending: &str) -> (String, String) {
    let price = api.price("unit_amount=1000").await;
    let customer = api.customer().await;
    let form = format!(
        "customer={customer}&items[0][price]={price}&trial_period_days={days}
         &trial_settings[end_behavior][missing_payment_method]={ending}"
    );
    let made = api.post("/v1/subscriptions", &form).await.ok();
    assert_eq!(made["status"], "trialing");
    assert_eq!(made["trial_settings"]["end_behavior"]["missing_payment_method"], ending);
    (customer, format!("/v1/subscriptions/{}", id(&made)))
}

#[tokio::test]
async fn a_trial_that_ends_without_a_card_is_paused_and_resumed() {
    let api = Api::start().await;
    let (customer, path) = trial(&api, 14, "pause").await;
    let end = START + 14 * DAY;
    api.set_clock(end);
    assert_eq!(api.get(&path).await.ok()["status"], "paused");
    // "A paused subscription doesn't generate invoices."
    api.set_clock(end + 60 * DAY);
    let trial_invoice = api.newest_invoice(&customer).await;
    assert_eq!(
        (&trial_invoice["created"], &trial_invoice["total"]),
        (&START.into(), &0.into())
    );

    api.post(
        &format!("/v1/customers/{customer}"),
        "invoice_settings[default_payment_method]=pm_card_visa",
    )
    .await
    .ok();
    let resumed = api.post(&format!("{path}/resume"), "").await.ok();
    assert_eq!(
        (&resumed["status"], &resumed["billing_cycle_anchor"]),
        (&"active".into(), &(end + 60 * DAY).into())
    );
    let invoice = api.newest_invoice(&customer).await;
    assert_eq!((&invoice["status"], &invoice["total"]), (&"paid".into(), &1000.into()));
    assert_eq!(
        told(&api),
        [
            event(START, "created"),
            event(end - 3 * DAY, "trial_will_end"),
            event(end, "updated"),
            event(end, "paused"),
            event(end + 60 * DAY, "updated"),
            event(end + 60 * DAY, "resumed"),
        ]
    );
    assert_eq!(api.post(&format!("{path}/resume"), "").await.status, 400);
}

#[tokio::test]
async fn or_it_is_canceled() {
    let api = Api::start().await;
    let (_, path) = trial(&api, 2, "cancel").await;
    let end = START + 2 * DAY;
    api.set_clock(end);
    assert_eq!(api.get(&path).await.ok()["status"], "canceled");
    // Shorter than three days: announced at once.
    assert_eq!(
        told(&api),
        [
            event(START, "created"),
            event(START, "trial_will_end"),
            event(end, "deleted")
        ]
    );
}

#[tokio::test]
async fn or_its_invoice_is_made_and_not_paid() {
    let api = Api::start().await;
    let (customer, path) = trial(&api, 5, "create_invoice").await;
    api.set_clock(START + 5 * DAY + HOUR);
    assert_eq!(api.newest_invoice(&customer).await["status"], "open");
    assert_eq!(api.get(&path).await.ok()["status"], "past_due");
}

#[tokio::test]
async fn a_card_in_time_makes_it_active() {
    for ending in ["pause", "cancel", "create_invoice"] {
        let api = Api::start().await;
        let (customer, path) = trial(&api, 5, ending).await;
        api.post(&path, "default_payment_method=pm_card_visa").await.ok();
        api.set_clock(START + 5 * DAY + HOUR);
        assert_eq!(api.get(&path).await.ok()["status"], "active");
        assert_eq!(api.newest_invoice(&customer).await["status"], "paid");
    }
}

#[tokio::test]
async fn a_resumption_that_is_not_paid_is_past_due() {
    let api = Api::start().await;
    let (_, path) = trial(&api, 5, "pause").await;
    api.set_clock(START + 6 * DAY);
    assert_eq!(api.post(&format!("{path}/resume"), "").await.ok()["status"], "past_due");
}

/// A subscription at 1,000 a month whose collection is paused; its customer and its path.
async fn paused(api: &Api, pause: &str) -> (String, String) {
    let price = api.price("unit_amount=1000").await;
    let customer = api.customer().await;
    let path = format!("/v1/subscriptions/{}", id(&api.subscribe(&customer, &[&price]).await));
    api.post(&path, pause).await.ok();
    (customer, path)
}

#[tokio::test]
async fn paused_collection_keeps_gives_up_or_voids_invoices() {
    for (behavior, status) in [
        ("keep_as_draft", "draft"),
        ("mark_uncollectible", "uncollectible"),
        ("void", "void"),
    ] {
        let api = Api::start().await;
        let (customer, path) = paused(&api, &format!("pause_collection[behavior]={behavior}")).await;
        api.set_clock(FEBRUARY_END + HOUR);
        let shown = api.get(&path).await.ok();
        assert_eq!(shown["status"], "active");
        assert_eq!(shown["pause_collection"]["behavior"], behavior);
        let invoice = api.newest_invoice(&customer).await;
        assert_eq!(
            (&invoice["status"], &invoice["auto_advance"]),
            (&status.into(), &false.into())
        );
        assert_eq!(
            api.post(&path, "pause_collection=").await.ok()["pause_collection"],
            Value::Null
        );
        api.set_clock(FEBRUARY_END + 40 * DAY);
        assert_eq!(api.newest_invoice(&customer).await["status"], "paid");
        // What was made during the pause stays as it is.
        let path = format!("/v1/invoices/{}", id(&invoice));
        assert_eq!(api.get(&path).await.ok()["status"], status);
    }
}

#[tokio::test]
async fn collection_resumes_by_itself() {
    let api = Api::start().await;
    let resumes_at = FEBRUARY_END - DAY;
    let pause = format!("pause_collection[behavior]=void&pause_collection[resumes_at]={resumes_at}");
    let (customer, path) = paused(&api, &pause).await;
    api.set_clock(resumes_at - 1);
    assert_eq!(api.get(&path).await.ok()["pause_collection"]["resumes_at"], resumes_at);
    api.set_clock(FEBRUARY_END + HOUR);
    assert_eq!(api.get(&path).await.ok()["pause_collection"], Value::Null);
    assert_eq!(api.newest_invoice(&customer).await["status"], "paid");
    assert_eq!(told(&api)[2], event(resumes_at, "updated"));
}
