//! The answers decode into `async-stripe`'s types, which are generated from Stripe's OpenAPI description.

use miniserde::{Deserialize, json};
use stripe_billing::{BillingMeter, BillingMeterEvent, BillingMeterEventAdjustment, BillingMeterEventSummary};
use stripe_shared::{
    CheckoutSession, CheckoutSessionStatus, Customer, Event, Invoice, InvoiceLineItem, Price, Product, Subscription,
    SubscriptionItem,
};
use stripe_types::List;

use crate::api::{Answer, Api, DAY, FEBRUARY_END, HOUR, START, id};

fn decodes<T: Deserialize>(answer: &Answer) -> T {
    assert_eq!(answer.status, 200, "{}", answer.body);
    match json::from_str(&answer.body) {
        Ok(object) => object,
        Err(_) => panic!("not a {}: {}", std::any::type_name::<T>(), answer.body),
    }
}

#[tokio::test]
async fn every_object_decodes() {
    let api = Api::start().await;
    let meter = api.meter().await;
    let customer = api.customer().await;
    let flat = api.price("unit_amount=2900").await;
    let tiers = "billing_scheme=tiered&tiers_mode=graduated&tiers[0][up_to]=10&tiers[0][unit_amount]=0&tiers[1][up_to]=inf&tiers[1][unit_amount_decimal]=0.5";
    let tiered = api.metered_price(&meter, tiers).await;
    let form = format!(
        "customer={customer}&items[0][price]={flat}&items[1][price]={tiered}&metadata[tier]=pro&expand[]=latest_invoice"
    );
    let subscription: Subscription = decodes(&api.post("/v1/subscriptions", &form).await);
    assert_eq!(subscription.items.data[0].current_period_end, FEBRUARY_END);
    let subscription = subscription.id.to_string();
    let event: BillingMeterEvent = decodes(&api.report(&customer, 25, "&identifier=a").await);
    assert_eq!(event.identifier, "a");
    api.report(&customer, 1, "&identifier=b").await.ok();
    let cancel = "event_name=api_calls&type=cancel&cancel[identifier]=b";
    let _: BillingMeterEventAdjustment = decodes(&api.post("/v1/billing/meter_event_adjustments", cancel).await);

    let _: BillingMeter = decodes(&api.get(&format!("/v1/billing/meters/{meter}")).await);
    let day = START - START % DAY;
    let path = format!(
        "/v1/billing/meters/{meter}/event_summaries?customer={customer}&start_time={day}&end_time={}",
        day + DAY
    );
    let summaries: List<BillingMeterEventSummary> = decodes(&api.get(&path).await);
    assert!((summaries.data[0].aggregated_value - 25.0).abs() < f64::EPSILON);
    let _: Customer = decodes(&api.get(&format!("/v1/customers/{customer}")).await);
    let price: Price = decodes(
        &api.get(&format!("/v1/prices/{tiered}?expand[]=tiers&expand[]=product"))
            .await,
    );
    assert_eq!(price.tiers.map(|tiers| tiers.len()), Some(2));
    let _: List<Product> = decodes(&api.get("/v1/products").await);
    let _: List<SubscriptionItem> = decodes(
        &api.get(&format!("/v1/subscription_items?subscription={subscription}"))
            .await,
    );
    let _: Invoice = decodes(
        &api.post("/v1/invoices/create_preview", &format!("subscription={subscription}"))
            .await,
    );

    api.set_clock(FEBRUARY_END);
    let invoices: List<Invoice> = decodes(&api.get(&format!("/v1/invoices?customer={customer}")).await);
    assert_eq!(invoices.data.len(), 2);
    let draft = id(&api.newest_invoice(&customer).await);
    let lines: List<InvoiceLineItem> = decodes(&api.get(&format!("/v1/invoices/{draft}/lines")).await);
    assert_eq!(
        lines.data.iter().map(|line| line.amount).collect::<Vec<_>>(),
        [2900, 0, 8]
    );
    let _: Subscription = decodes(&api.delete(&format!("/v1/subscriptions/{subscription}")).await);
    let events: List<Event> = decodes(&api.get("/v1/events?limit=100").await);
    assert!(events.data.len() > 10);
}

#[tokio::test]
async fn what_went_wrong_decodes_too() {
    let api = Api::start().await;
    let price = api.price("unit_amount=2900").await;
    let form = format!(
        "mode=subscription&success_url=https://a.example&line_items[0][price]={price}&line_items[0][quantity]=1"
    );
    let open: CheckoutSession = decodes(&api.post("/v1/checkout/sessions", &form).await);
    let url = open.url.expect("a url");
    let page = url.strip_prefix("http://localhost").expect("our address");
    api.post(page, "email=a@example.com").await;
    let path = format!(
        "/v1/checkout/sessions/{}?expand[]=line_items&expand[]=customer&expand[]=subscription&expand[]=invoice",
        open.id
    );
    let complete: CheckoutSession = decodes(&api.get(&path).await);
    assert_eq!(complete.status, Some(CheckoutSessionStatus::Complete));
    let customer = api.get("/v1/customers").await.ok()["data"][0]["id"].clone();
    let customer = customer.as_str().expect("an id");
    let subscription = complete.subscription.expect("a subscription").id().to_string();
    let path = format!("/v1/subscriptions/{subscription}");
    let change = "default_payment_method=pm_card_chargeCustomerFail";
    let _: Subscription = decodes(&api.post(&path, change).await);
    api.set_clock(FEBRUARY_END + HOUR);
    let _: List<Invoice> = decodes(&api.get(&format!("/v1/invoices?customer={customer}")).await);
    let _: Customer = decodes(&api.get(&format!("/v1/customers/{customer}")).await);
    api.standin.fail_next_finalizations(1);
    let pause =
        "default_payment_method=pm_card_visa&pause_collection[behavior]=void&pause_collection[resumes_at]=1999999999";
    let paused: Subscription = decodes(&api.post(&path, pause).await);
    assert!(paused.pause_collection.is_some());
    api.set_clock(FEBRUARY_END + 32 * DAY);
    let invoices: List<Invoice> = decodes(&api.get(&format!("/v1/invoices?customer={customer}")).await);
    assert!(invoices.data[0].last_finalization_error.is_some());
    let events: List<Event> = decodes(&api.get("/v1/events?limit=100").await);
    assert!(events.data.len() > 10);
}
