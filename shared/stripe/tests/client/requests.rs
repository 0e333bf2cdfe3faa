//! What goes over the wire: the exact path, form and headers of each operation.

use std::collections::HashMap;

use farebox_stripe::{
    API_VERSION, Access, Area, Buyer, CheckoutPrice, CustomerUpdate, CycleAnchor, Error, Interval, ItemChange,
    MeterEvent, MissingPaymentMethod, NewCheckout, NewPrice, NewSubscription, PauseBehavior, PriceCost, PriceStep,
    Proration, SubscriptionUpdate, TiersMode, TrialEnd, UsagePriceSpec,
};

use crate::server::{KEY, Recorded, Server, ok, refusal};

const METER: &str = r#"{"id":"mtr_1","event_name":"api_calls","display_name":"API calls","status":"active"}"#;
const PRICE: &str = r#"{"id":"price_1","product":"prod_1","active":true,"currency":"usd"}"#;
const SUBSCRIPTION: &str = r#"{"id":"sub_1","status":"active","customer":"cus_1","billing_cycle_anchor":1795000000,
    "created":1795000000,"livemode":false,"items":{"data":[],"has_more":false}}"#;

pub(crate) fn event() -> MeterEvent {
    MeterEvent {
        event_name: "api_calls".to_owned(),
        stripe_customer: "cus_1".to_owned(),
        value: 25,
        identifier: "id1".to_owned(),
        timestamp: 1_795_000_020,
    }
}

/// A POST to this path with exactly this form, under the key `k1`.
#[track_caller]
fn assert_post(request: &Recorded, path: &str, form: &[(&str, &str)]) {
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", path));
    assert_eq!(request.query(), []);
    assert_eq!(request.header("idempotency-key"), Some("k1"));
    assert_eq!(
        request.header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    assert_common(request);
    assert_eq!(request.form(), sorted(form));
}

#[track_caller]
fn assert_get(request: &Recorded, path: &str, query: &[(&str, &str)]) {
    assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", path));
    assert_eq!(request.form(), []);
    assert_eq!(request.header("idempotency-key"), None);
    assert_common(request);
    assert_eq!(request.query(), sorted(query));
}

#[track_caller]
fn assert_common(request: &Recorded) {
    assert_eq!(request.header("authorization"), Some(format!("Bearer {KEY}").as_str()));
    assert_eq!(request.header("stripe-version"), Some(API_VERSION));
    assert!(request.header("user-agent").unwrap().starts_with("farebox/"));
}

fn sorted(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut pairs: Vec<_> = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    pairs.sort();
    pairs
}

fn metadata() -> HashMap<String, String> {
    HashMap::from([("farebox".to_owned(), "a & b".to_owned())])
}

#[tokio::test]
async fn a_meter_event() {
    let server = Server::start([ok(r#"{"object":"billing.meter_event","identifier":"id1"}"#)]).await;
    server.client().report_meter_event(&event(), "k1").await.unwrap();
    assert_post(
        &server.request(),
        "/v1/billing/meter_events",
        &[
            ("event_name", "api_calls"),
            ("identifier", "id1"),
            ("payload[stripe_customer_id]", "cus_1"),
            ("payload[value]", "25"),
            ("timestamp", "1795000020"),
        ],
    );
}

#[tokio::test]
async fn event_summaries_name_start_and_end_rightly() {
    let server = Server::start([ok(r#"{"data":[],"has_more":false}"#)]).await;
    let sum = server
        .client()
        .event_summary("mtr_1", "cus_1", 1_795_000_020, 1_795_000_080)
        .await
        .unwrap();
    assert_eq!(sum, 0);
    assert_get(
        &server.request(),
        "/v1/billing/meters/mtr_1/event_summaries",
        &[
            ("customer", "cus_1"),
            ("start_time", "1795000020"),
            ("end_time", "1795000080"),
            ("limit", "100"),
        ],
    );
}

#[tokio::test]
async fn a_meter() {
    let server = Server::start([ok(METER)]).await;
    server
        .client()
        .create_meter("api_calls", "API calls", "k1")
        .await
        .unwrap();
    assert_post(
        &server.request(),
        "/v1/billing/meters",
        &[
            ("event_name", "api_calls"),
            ("display_name", "API calls"),
            ("default_aggregation[formula]", "sum"),
            ("customer_mapping[event_payload_key]", "stripe_customer_id"),
            ("customer_mapping[type]", "by_id"),
            ("value_settings[event_payload_key]", "value"),
        ],
    );
}

#[tokio::test]
async fn a_product_and_a_customer() {
    let server = Server::start([ok(r#"{"id":"prod_1","name":"Pro"}"#), ok(r#"{"id":"cus_1"}"#)]).await;
    let client = server.client();
    client.create_product("Pro", metadata(), "k1").await.unwrap();
    client
        .create_customer("Ada", Some("ada@example.com"), metadata(), "k1")
        .await
        .unwrap();
    let requests = server.requests();
    assert_post(
        &requests[0],
        "/v1/products",
        &[("name", "Pro"), ("metadata[farebox]", "a & b")],
    );
    assert_post(
        &requests[1],
        "/v1/customers",
        &[
            ("name", "Ada"),
            ("email", "ada@example.com"),
            ("metadata[farebox]", "a & b"),
        ],
    );
}

#[tokio::test]
async fn a_flat_price() {
    let server = Server::start([ok(PRICE)]).await;
    server
        .client()
        .create_flat_price("prod_1", "usd", 4_900, Interval::Year, "pro", "k1")
        .await
        .unwrap();
    assert_post(
        &server.request(),
        "/v1/prices",
        &[
            ("product", "prod_1"),
            ("currency", "usd"),
            ("unit_amount", "4900"),
            ("recurring[interval]", "year"),
            ("lookup_key", "pro"),
        ],
    );
}

#[tokio::test]
async fn a_price_per_unit() {
    let server = Server::start([ok(PRICE)]).await;
    let spec = UsagePriceSpec::PerUnit {
        unit_amount_decimal: "0.05".to_owned(),
    };
    let client = server.client();
    client
        .create_metered_price("prod_1", "usd", Interval::Month, "mtr_1", &spec, "calls", "k1")
        .await
        .unwrap();
    assert_post(
        &server.request(),
        "/v1/prices",
        &[
            ("product", "prod_1"),
            ("currency", "usd"),
            ("billing_scheme", "per_unit"),
            ("unit_amount_decimal", "0.05"),
            ("recurring[interval]", "month"),
            ("recurring[meter]", "mtr_1"),
            ("recurring[usage_type]", "metered"),
            ("lookup_key", "calls"),
        ],
    );
}

#[tokio::test]
async fn a_tiered_price() {
    for (mode, name) in [(TiersMode::Graduated, "graduated"), (TiersMode::Volume, "volume")] {
        let server = Server::start([ok(PRICE)]).await;
        let step = |up_to, unit: &str, flat_amount| PriceStep {
            up_to,
            unit_amount_decimal: unit.to_owned(),
            flat_amount,
        };
        let spec = UsagePriceSpec::Tiered {
            mode,
            steps: vec![step(Some(10_000), "0", None), step(None, "0.05", Some(100))],
        };
        let client = server.client();
        client
            .create_metered_price("prod_1", "eur", Interval::Month, "mtr_1", &spec, "calls", "k1")
            .await
            .unwrap();
        assert_post(
            &server.request(),
            "/v1/prices",
            &[
                ("product", "prod_1"),
                ("currency", "eur"),
                ("billing_scheme", "tiered"),
                ("tiers_mode", name),
                ("tiers[0][up_to]", "10000"),
                ("tiers[0][unit_amount_decimal]", "0"),
                ("tiers[1][up_to]", "inf"),
                ("tiers[1][unit_amount_decimal]", "0.05"),
                ("tiers[1][flat_amount]", "100"),
                ("recurring[interval]", "month"),
                ("recurring[meter]", "mtr_1"),
                ("recurring[usage_type]", "metered"),
                ("lookup_key", "calls"),
            ],
        );
    }
}

#[tokio::test]
async fn a_price_with_all_that_can_be_said_of_it() {
    let server = Server::start([ok(PRICE), ok(PRICE)]).await;
    let client = server.client();
    let flat = NewPrice {
        product: "prod_1".to_owned(),
        currency: "usd".to_owned(),
        interval: Interval::Month,
        cost: PriceCost::Flat { amount_minor: 4_900 },
        lookup_key: Some("pro".to_owned()),
        transfer_lookup_key: true,
        nickname: Some("Pro, monthly".to_owned()),
        metadata: metadata(),
    };
    client.create_price(&flat, "k1").await.unwrap();
    let metered = NewPrice {
        cost: PriceCost::Metered {
            meter: "mtr_1".to_owned(),
            spec: UsagePriceSpec::PerUnit {
                unit_amount_decimal: "0.05".to_owned(),
            },
        },
        lookup_key: None,
        transfer_lookup_key: false,
        nickname: None,
        ..flat
    };
    client.create_price(&metered, "k1").await.unwrap();
    let requests = server.requests();
    assert_post(
        &requests[0],
        "/v1/prices",
        &[
            ("product", "prod_1"),
            ("currency", "usd"),
            ("unit_amount", "4900"),
            ("recurring[interval]", "month"),
            ("lookup_key", "pro"),
            ("transfer_lookup_key", "true"),
            ("nickname", "Pro, monthly"),
            ("metadata[farebox]", "a & b"),
        ],
    );
    assert_post(
        &requests[1],
        "/v1/prices",
        &[
            ("product", "prod_1"),
            ("currency", "usd"),
            ("billing_scheme", "per_unit"),
            ("unit_amount_decimal", "0.05"),
            ("recurring[interval]", "month"),
            ("recurring[meter]", "mtr_1"),
            ("recurring[usage_type]", "metered"),
            ("metadata[farebox]", "a & b"),
        ],
    );
}

#[tokio::test]
async fn a_product_under_our_own_id() {
    let product = r#"{"id":"farebox_pro","name":"Pro","metadata":{"farebox":"1"}}"#;
    let taken = r#"{"code":"resource_already_exists","type":"invalid_request_error","message":"Product already exists.","param":"id"}"#;
    let server = Server::start([ok(product), refusal(400, taken), ok(product), ok(product)]).await;
    let client = server.client();
    client
        .create_product_with_id("farebox_pro", "Pro", metadata(), "k1")
        .await
        .unwrap();
    let error = client
        .create_product_with_id("farebox_pro", "Pro", HashMap::new(), "k1")
        .await
        .unwrap_err();
    assert!(error.already_exists() && !error.is_missing() && !error.retryable());
    let found = client.find_product("farebox_pro").await.unwrap().unwrap();
    assert_eq!(found.metadata["farebox"], "1");
    client
        .update_product("farebox_pro", "Pro", metadata(), "k1")
        .await
        .unwrap();
    let requests = server.requests();
    let form = [("id", "farebox_pro"), ("name", "Pro"), ("metadata[farebox]", "a & b")];
    assert_post(&requests[0], "/v1/products", &form);
    assert_post(&requests[1], "/v1/products", &form[..2]);
    assert_get(&requests[2], "/v1/products/farebox_pro", &[]);
    assert_post(&requests[3], "/v1/products/farebox_pro", &form[1..]);
}

#[tokio::test]
async fn prices_by_ten_lookup_keys_at_a_time() {
    let one = |id: &str| {
        format!(
            r#"{{"data":[{{"id":"{id}","product":"prod_1","active":true,"currency":"usd","nickname":"n","metadata":{{"k":"v"}}}}],"has_more":false}}"#
        )
    };
    let server = Server::start([ok(&one("price_1")), ok(&one("price_2"))]).await;
    let client = server.client();
    let keys: Vec<_> = (10..21).map(|i| format!("key{i}")).collect();
    let mut asked: Vec<_> = keys.iter().map(String::as_str).collect();
    asked.push("key10");
    let prices = client.prices_by_lookup_keys(&asked).await.unwrap();
    assert_eq!(
        prices.iter().map(|price| price.id.as_str()).collect::<Vec<_>>(),
        ["price_1", "price_2"]
    );
    assert_eq!(
        (prices[0].nickname.as_deref(), prices[0].metadata["k"].as_str()),
        (Some("n"), "v")
    );
    assert_eq!(client.prices_by_lookup_keys(&[]).await.unwrap(), []);
    let requests = server.requests();
    let names: Vec<_> = (0..10).map(|i| format!("lookup_keys[{i}]")).collect();
    let common = [("active", "true"), ("expand[0]", "data.tiers"), ("limit", "100")];
    let mut first = common.to_vec();
    first.extend(names.iter().map(String::as_str).zip(keys.iter().map(String::as_str)));
    assert_get(&requests[0], "/v1/prices", &first);
    let second = [common.as_slice(), &[("lookup_keys[0]", "key20")]].concat();
    assert_get(&requests[1], "/v1/prices", &second);
}

#[tokio::test]
async fn prices_of_a_product_and_all_meters() {
    let price = format!(r#"{{"data":[{PRICE}],"has_more":true}}"#);
    let meter = format!(r#"{{"data":[{METER}],"has_more":false}}"#);
    let server = Server::start([ok(&price), ok(r#"{"data":[],"has_more":false}"#), ok(&meter)]).await;
    let client = server.client();
    assert_eq!(client.prices_of_product("prod_1").await.unwrap().len(), 1);
    let meters = client.meters().await.unwrap();
    assert_eq!(
        (meters[0].event_name.as_str(), meters[0].display_name.as_str()),
        ("api_calls", "API calls")
    );
    let requests = server.requests();
    let query = [
        ("product", "prod_1"),
        ("active", "true"),
        ("expand[0]", "data.tiers"),
        ("limit", "100"),
    ];
    assert_get(&requests[0], "/v1/prices", &query);
    let next = [query.as_slice(), &[("starting_after", "price_1")]].concat();
    assert_get(&requests[1], "/v1/prices", &next);
    assert_get(
        &requests[2],
        "/v1/billing/meters",
        &[("status", "active"), ("limit", "100")],
    );
}

#[tokio::test]
async fn a_customer_is_read_and_changed() {
    let customer = r#"{"id":"cus_1","name":"Ada","email":null,"metadata":{"farebox":"1"},
        "invoice_settings":{"default_payment_method":{"id":"pm_1"}}}"#;
    let server = Server::start([ok(customer), ok(customer), ok(customer)]).await;
    let client = server.client();
    let found = client.customer("cus_1").await.unwrap().unwrap();
    assert_eq!((found.name.as_deref(), found.email.as_deref()), (Some("Ada"), None));
    assert_eq!(found.default_payment_method.as_deref(), Some("pm_1"));
    assert_eq!(found.metadata["farebox"], "1");
    let update = CustomerUpdate {
        name: Some("Ada".to_owned()),
        email: Some("ada@example.com".to_owned()),
        default_payment_method: Some("pm_1".to_owned()),
        metadata: metadata(),
    };
    client.update_customer("cus_1", &update, "k1").await.unwrap();
    let rename = CustomerUpdate {
        name: Some("Eve".to_owned()),
        ..CustomerUpdate::default()
    };
    client.update_customer("cus_1", &rename, "k1").await.unwrap();
    let requests = server.requests();
    assert_get(&requests[0], "/v1/customers/cus_1", &[]);
    assert_post(
        &requests[1],
        "/v1/customers/cus_1",
        &[
            ("name", "Ada"),
            ("email", "ada@example.com"),
            ("invoice_settings[default_payment_method]", "pm_1"),
            ("metadata[farebox]", "a & b"),
        ],
    );
    assert_post(&requests[2], "/v1/customers/cus_1", &[("name", "Eve")]);
}

/// Only Stripe's own word for it: an address that leads to another server answers 404 too.
#[tokio::test]
async fn what_is_absent_or_deleted_is_none() {
    let missing = r#"{"code":"resource_missing","type":"invalid_request_error","message":"No such customer: 'cus_1'","param":"id"}"#;
    let deleted = r#"{"id":"cus_1","object":"customer","deleted":true}"#;
    let elsewhere = r#"{"type":"invalid_request_error","message":"Unrecognized request URL"}"#;
    let server = Server::start([
        refusal(404, missing),
        ok(deleted),
        refusal(404, missing),
        refusal(404, elsewhere),
    ])
    .await;
    let client = server.client();
    assert_eq!(client.customer("cus_1").await.unwrap(), None);
    assert_eq!(client.customer("cus_1").await.unwrap(), None);
    assert_eq!(client.find_product("prod_1").await.unwrap(), None);
    assert!(matches!(
        client.find_product("prod_1").await,
        Err(Error::Rejected { status: 404, .. })
    ));
}

#[tokio::test]
async fn a_subscription_has_no_quantity() {
    let server = Server::start([ok(SUBSCRIPTION)]).await;
    let client = server.client();
    client
        .create_subscription("cus_1", &["price_1", "price_2"], Some(14), metadata(), "k1")
        .await
        .unwrap();
    assert_post(
        &server.request(),
        "/v1/subscriptions",
        &[
            ("customer", "cus_1"),
            ("items[0][price]", "price_1"),
            ("items[1][price]", "price_2"),
            ("trial_period_days", "14"),
            ("metadata[farebox]", "a & b"),
        ],
    );
}

#[tokio::test]
async fn a_subscription_whose_trial_may_end_unpayable() {
    for (unpayable, name) in [
        (MissingPaymentMethod::Cancel, "cancel"),
        (MissingPaymentMethod::CreateInvoice, "create_invoice"),
        (MissingPaymentMethod::Pause, "pause"),
    ] {
        let server = Server::start([ok(SUBSCRIPTION)]).await;
        let new = NewSubscription {
            customer: "cus_1".to_owned(),
            prices: vec!["price_1".to_owned()],
            trial_days: Some(14),
            trial_end_unpayable: Some(unpayable),
            default_payment_method: Some("pm_1".to_owned()),
            ..NewSubscription::default()
        };
        server.client().subscribe(&new, "k1").await.unwrap();
        assert_post(
            &server.request(),
            "/v1/subscriptions",
            &[
                ("customer", "cus_1"),
                ("items[0][price]", "price_1"),
                ("trial_period_days", "14"),
                ("trial_settings[end_behavior][missing_payment_method]", name),
                ("default_payment_method", "pm_1"),
            ],
        );
    }
}

#[tokio::test]
async fn a_changed_subscription() {
    let server = Server::start([ok(SUBSCRIPTION)]).await;
    let update = SubscriptionUpdate {
        items: vec![
            ItemChange::Add {
                price: "price_new".to_owned(),
            },
            ItemChange::Replace {
                item: "si_1".to_owned(),
                price: "price_other".to_owned(),
            },
            ItemChange::Remove {
                item: "si_2".to_owned(),
                clear_usage: false,
            },
            ItemChange::Remove {
                item: "si_3".to_owned(),
                clear_usage: true,
            },
        ],
        proration: Proration::AlwaysInvoice,
        proration_date: Some(1_795_000_020),
        cancel_at_period_end: Some(false),
        metadata: metadata(),
        trial_end: Some(TrialEnd::At(1_796_000_000)),
        billing_cycle_anchor: Some(CycleAnchor::Unchanged),
    };
    server
        .client()
        .update_subscription("sub_1", &update, "k1")
        .await
        .unwrap();
    assert_post(
        &server.request(),
        "/v1/subscriptions/sub_1",
        &[
            ("items[0][price]", "price_new"),
            ("items[1][id]", "si_1"),
            ("items[1][price]", "price_other"),
            ("items[2][id]", "si_2"),
            ("items[2][deleted]", "true"),
            ("items[3][id]", "si_3"),
            ("items[3][deleted]", "true"),
            ("items[3][clear_usage]", "true"),
            ("proration_behavior", "always_invoice"),
            ("proration_date", "1795000020"),
            ("cancel_at_period_end", "false"),
            ("metadata[farebox]", "a & b"),
            ("trial_end", "1796000000"),
            ("billing_cycle_anchor[type]", "unchanged"),
        ],
    );
}

#[tokio::test]
async fn what_is_not_changed_is_not_sent() {
    for (proration, name) in [
        (Proration::CreateProrations, "create_prorations"),
        (Proration::None, "none"),
    ] {
        let server = Server::start([ok(SUBSCRIPTION)]).await;
        let update = SubscriptionUpdate {
            proration,
            trial_end: Some(TrialEnd::Now),
            billing_cycle_anchor: Some(CycleAnchor::Now),
            ..SubscriptionUpdate::default()
        };
        let client = server.client();
        client.update_subscription("sub_1", &update, "k1").await.unwrap();
        assert_post(
            &server.request(),
            "/v1/subscriptions/sub_1",
            &[
                ("proration_behavior", name),
                ("trial_end", "now"),
                ("billing_cycle_anchor[type]", "now"),
            ],
        );
    }
}

#[tokio::test]
async fn an_ended_a_paused_and_a_resumed_subscription() {
    let server = Server::start((0..5).map(|_| ok(SUBSCRIPTION))).await;
    let client = server.client();
    client.cancel_subscription("sub_1", true, false, "k1").await.unwrap();
    client.resume_subscription("sub_1", "k1").await.unwrap();
    client
        .pause_collection("sub_1", PauseBehavior::KeepAsDraft, None, "k1")
        .await
        .unwrap();
    client
        .pause_collection("sub_1", PauseBehavior::Void, Some(1_796_000_000), "k1")
        .await
        .unwrap();
    client.resume_collection("sub_1", "k1").await.unwrap();
    let requests = server.requests();
    let cancel = &requests[0];
    assert_eq!(
        (cancel.method.as_str(), cancel.path.as_str()),
        ("DELETE", "/v1/subscriptions/sub_1")
    );
    assert_eq!(cancel.form(), sorted(&[("invoice_now", "true"), ("prorate", "false")]));
    assert_common(cancel);
    assert_post(&requests[1], "/v1/subscriptions/sub_1/resume", &[]);
    assert_post(
        &requests[2],
        "/v1/subscriptions/sub_1",
        &[("pause_collection[behavior]", "keep_as_draft")],
    );
    assert_post(
        &requests[3],
        "/v1/subscriptions/sub_1",
        &[
            ("pause_collection[behavior]", "void"),
            ("pause_collection[resumes_at]", "1796000000"),
        ],
    );
    assert_post(&requests[4], "/v1/subscriptions/sub_1", &[("pause_collection", "")]);
}

#[tokio::test]
async fn an_id_that_leads_elsewhere_is_not_sent() {
    let server = Server::start([]).await;
    let client = server.client();
    for id in ["", "../customers", "sub_1/resume", "sub_1?x"] {
        for error in [
            client.subscription(id).await.unwrap_err(),
            client
                .update_subscription(id, &SubscriptionUpdate::default(), "k1")
                .await
                .unwrap_err(),
            client.cancel_subscription(id, true, true, "k1").await.unwrap_err(),
            client.resume_collection(id, "k1").await.unwrap_err(),
        ] {
            assert!(matches!(error, Error::Invalid(_)), "{error:?}");
        }
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn subscriptions_of_a_customer() {
    let one = |id: &str| {
        format!(
            r#"{{"id":"{id}","status":"canceled","customer":{{"id":"cus_1"}},"billing_cycle_anchor":1,"created":1,
                "livemode":true,"latest_invoice":{{"id":"in_1"}},"pause_collection":null,"items":{{"data":[]}}}}"#
        )
    };
    let server = Server::start([
        ok(&format!(r#"{{"data":[{}],"has_more":true}}"#, one("sub_2"))),
        ok(&format!(r#"{{"data":[{}],"has_more":false}}"#, one("sub_1"))),
    ])
    .await;
    let subscriptions = server.client().subscriptions_of("cus_1").await.unwrap();
    let ids: Vec<_> = subscriptions.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids, ["sub_2", "sub_1"]);
    assert_eq!(subscriptions[0].latest_invoice.as_deref(), Some("in_1"));
    assert!(!subscriptions[0].pause_collection);
    let requests = server.requests();
    let query = [("customer", "cus_1"), ("status", "all"), ("limit", "100")];
    assert_get(&requests[0], "/v1/subscriptions", &query);
    let next = [query.as_slice(), &[("starting_after", "sub_2")]].concat();
    assert_get(&requests[1], "/v1/subscriptions", &next);
}

#[tokio::test]
async fn an_invoice_is_read_finalized_and_paid() {
    let invoice = r#"{"id":"in_1","total":10,"amount_due":10,"amount_remaining":0,"attempt_count":1,"currency":"usd",
        "period_start":1,"period_end":2,"lines":{"data":[]},"parent":{"subscription_details":{"subscription":"sub_1"}}}"#;
    let declined = r#"{"code":"card_declined","type":"card_error","message":"Your card was declined."}"#;
    let server = Server::start([ok(invoice), ok(invoice), ok(invoice), refusal(402, declined)]).await;
    let client = server.client();
    let read = client.invoice("in_1").await.unwrap();
    assert_eq!(
        (read.subscription.as_deref(), read.amount_remaining),
        (Some("sub_1"), 0)
    );
    client.finalize_invoice("in_1", "k1").await.unwrap();
    client.pay_invoice("in_1", "k1").await.unwrap();
    let error = client.pay_invoice("in_1", "k1").await.unwrap_err();
    assert!(matches!(error, Error::Rejected { status: 402, code: Some(code), .. } if code == "card_declined"));
    let requests = server.requests();
    assert_get(&requests[0], "/v1/invoices/in_1", &[]);
    assert_post(&requests[1], "/v1/invoices/in_1/finalize", &[]);
    assert_post(&requests[2], "/v1/invoices/in_1/pay", &[]);
}

#[tokio::test]
async fn a_checkout_session() {
    let open = r#"{"id":"cs_test_1","created":1769853600,"url":"https://checkout.stripe.com/c/1","status":"open","payment_status":"unpaid",
        "customer":null,"subscription":null,"client_reference_id":"acme","payment_link":null,"metadata":null}"#;
    let complete = r#"{"id":"cs_test_1","created":1769853600,"url":null,"status":"complete","payment_status":"paid","customer":{"id":"cus_1"},
        "subscription":"sub_1","client_reference_id":"acme","payment_link":"plink_1","metadata":{"farebox":"1"}}"#;
    let server = Server::start([ok(open), ok(open), ok(open), ok(complete)]).await;
    let client = server.client();
    let new = NewCheckout {
        buyer: Buyer::Customer("cus_1".to_owned()),
        client_reference_id: Some("acme".to_owned()),
        prices: vec![
            CheckoutPrice::Flat("price_1".to_owned()),
            CheckoutPrice::Metered("price_2".to_owned()),
        ],
        trial_days: Some(14),
        metadata: metadata(),
        success_url: "https://example.com/?session={CHECKOUT_SESSION_ID}".to_owned(),
        cancel_url: Some("https://example.com/prices".to_owned()),
    };
    let session = client.create_checkout_session(&new, "k1").await.unwrap();
    assert_eq!(session.url.as_deref(), Some("https://checkout.stripe.com/c/1"));
    assert_eq!((session.customer, session.subscription), (None, None));
    assert_eq!((session.created, session.payment_link), (1_769_853_600, None));
    let new = NewCheckout {
        buyer: Buyer::Email("ada@example.com".to_owned()),
        client_reference_id: None,
        trial_days: None,
        metadata: HashMap::new(),
        cancel_url: None,
        ..new
    };
    client.create_checkout_session(&new, "k1").await.unwrap();
    let new = NewCheckout {
        buyer: Buyer::Anyone,
        ..new
    };
    client.create_checkout_session(&new, "k1").await.unwrap();
    let session = client.checkout_session("cs_test_1").await.unwrap();
    assert_eq!(
        (session.customer.as_deref(), session.subscription.as_deref()),
        (Some("cus_1"), Some("sub_1"))
    );
    assert_eq!(
        (session.status.as_deref(), session.payment_status.as_str()),
        (Some("complete"), "paid")
    );
    assert_eq!(session.client_reference_id.as_deref(), Some("acme"));
    assert_eq!(session.payment_link.as_deref(), Some("plink_1"));
    assert_eq!(session.metadata["farebox"], "1");
    let requests = server.requests();
    let common = [
        ("mode", "subscription"),
        ("line_items[0][price]", "price_1"),
        ("line_items[0][quantity]", "1"),
        ("line_items[1][price]", "price_2"),
        ("success_url", "https://example.com/?session={CHECKOUT_SESSION_ID}"),
    ];
    let whole = [
        common.as_slice(),
        &[
            ("customer", "cus_1"),
            ("client_reference_id", "acme"),
            ("cancel_url", "https://example.com/prices"),
            ("metadata[farebox]", "a & b"),
            ("subscription_data[metadata][farebox]", "a & b"),
            ("subscription_data[trial_period_days]", "14"),
        ],
    ]
    .concat();
    assert_post(&requests[0], "/v1/checkout/sessions", &whole);
    let email = [common.as_slice(), &[("customer_email", "ada@example.com")]].concat();
    assert_post(&requests[1], "/v1/checkout/sessions", &email);
    assert_post(&requests[2], "/v1/checkout/sessions", &common);
    assert_get(&requests[3], "/v1/checkout/sessions/cs_test_1", &[]);
}

#[tokio::test]
async fn events_of_both_apis_and_the_endpoints() {
    let endpoint = r#"{"data":[{"id":"we_1","url":"https://example.com/stripe","enabled_events":["invoice.paid"],
        "api_version":null,"status":"enabled"}],"has_more":false}"#;
    let server = Server::start([
        ok(include_str!("../webhook/snapshot.json")),
        ok(include_str!("../webhook/thin_fetched.json")),
        ok(endpoint),
    ])
    .await;
    let client = server.client();
    assert_eq!(client.event("evt_1").await.unwrap().object_id(), Some("in_1"));
    let thin = client.thin_event("evt_test_2").await.unwrap();
    assert_eq!(thin.meter_errors.unwrap().error_count, 3);
    let endpoints = client.webhook_endpoints().await.unwrap();
    assert_eq!(
        (endpoints[0].id.as_str(), endpoints[0].status.as_str()),
        ("we_1", "enabled")
    );
    assert_eq!(
        (endpoints[0].url.as_str(), endpoints[0].api_version.as_deref()),
        ("https://example.com/stripe", None)
    );
    assert_eq!(endpoints[0].enabled_events, ["invoice.paid"]);
    let requests = server.requests();
    assert_get(&requests[0], "/v1/events/evt_1", &[]);
    assert_get(&requests[1], "/v2/core/events/evt_test_2", &[]);
    assert_get(&requests[2], "/v1/webhook_endpoints", &[("limit", "100")]);
}

#[tokio::test]
async fn lookups() {
    let empty = r#"{"data":[],"has_more":false}"#;
    let server = Server::start([ok(empty), ok(empty), ok(SUBSCRIPTION), ok(empty)]).await;
    let client = server.client();
    assert_eq!(client.find_meter("api_calls").await.unwrap(), None);
    assert_eq!(client.find_price("pro").await.unwrap(), None);
    client.subscription("sub_1").await.unwrap();
    assert_eq!(client.invoices("cus_1").await.unwrap(), []);
    let requests = server.requests();
    assert_get(
        &requests[0],
        "/v1/billing/meters",
        &[("status", "active"), ("limit", "100")],
    );
    assert_get(
        &requests[1],
        "/v1/prices",
        &[
            ("active", "true"),
            ("lookup_keys[0]", "pro"),
            ("expand[0]", "data.tiers"),
            ("limit", "1"),
        ],
    );
    assert_get(&requests[2], "/v1/subscriptions/sub_1", &[]);
    assert_get(&requests[3], "/v1/invoices", &[("customer", "cus_1"), ("limit", "100")]);
}

#[tokio::test]
async fn other_requests_of_async_stripe_go_over_the_same_client() {
    use stripe_client_core::{IdempotencyKey, RequestStrategy, StripeRequest};

    let server = Server::start([ok(r#"{"id":"prod_1","object":"product","deleted":true}"#)]).await;
    stripe_product::product::DeleteProduct::new("prod_1")
        .customize()
        .request_strategy(RequestStrategy::Idempotent(IdempotencyKey::new("k1").unwrap()))
        .account_id("acct_1".into())
        .send(&server.client())
        .await
        .unwrap();
    let request = server.request();
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("DELETE", "/v1/products/prod_1")
    );
    assert_eq!(request.header("idempotency-key"), Some("k1"));
    assert_eq!(request.header("stripe-account"), Some("acct_1"));
    assert_common(&request);
}

#[tokio::test]
async fn a_question_about_the_key_asks_for_one_object() {
    let server = Server::start([ok(r#"{"data":[],"has_more":false}"#)]).await;
    let access = server.client().access(Area::Prices).await.unwrap();
    assert_eq!(access, Access::Allowed);
    assert_get(&server.request(), "/v1/prices", &[("limit", "1")]);
}

#[tokio::test]
async fn what_a_restricted_key_lacks_is_named() {
    let refused = r#"{"type":"invalid_request_error","message":"The provided key 'rk_test_*1' does not have the required
        permissions for this endpoint on account 'acct_1'. Having the 'rak_invoice_read' permission would allow this request to
        continue."}"#
        .replace('\n', " ");
    let incomplete = r#"{"type":"invalid_request_error","message":"Missing required param: event_name."}"#;
    let unknown = r#"{"type":"invalid_request_error","message":"Invalid API Key provided: rk_test_*1"}"#;
    let answers = [refusal(403, &refused), refusal(400, incomplete), refusal(401, unknown)];
    let server = Server::start(answers).await;
    let client = server.client();
    let permission = Some("rak_invoice_read".to_owned());
    assert_eq!(
        client.access(Area::Invoices).await.unwrap(),
        Access::Denied { permission }
    );
    assert_eq!(client.access(Area::MeterEvents).await.unwrap(), Access::Allowed);
    assert_eq!(client.access(Area::Prices).await.unwrap(), Access::UnknownKey);
    let requests = server.requests();
    assert_get(&requests[0], "/v1/invoices", &[("limit", "1")]);
    // An event without the fields that it must have: it can't become one.
    assert_eq!(
        (requests[1].method.as_str(), requests[1].path.as_str()),
        ("POST", "/v1/billing/meter_events")
    );
    assert_eq!(requests[1].form(), []);
    assert_get(&requests[2], "/v1/prices", &[("limit", "1")]);
}

#[tokio::test]
async fn destinations_over_pages_and_how_long_invoices_stay_drafts() {
    let destination = |id: &str, next: &str| {
        format!(
            r#"{{"data":[{{"id":"{id}","enabled_events":["v1.billing.meter.no_meter_found"],"event_payload":"thin",
                "snapshot_api_version":null,"status":"enabled","webhook_endpoint":{{"url":"https://w.example/"}}}},
                {{"id":"{id}b","enabled_events":["*"],"event_payload":"snapshot","snapshot_api_version":"2026-09-30.endive",
                "status":"disabled","webhook_endpoint":null}}],"next_page_url":{next},"previous_page_url":null}}"#
        )
    };
    let next = r#""https://api.stripe.com/v2/core/event_destinations?limit=100&page=p2""#;
    let invoices = r#"{"data":[{"id":"in_2","billing_reason":"subscription_cycle","created":100,
        "automatically_finalizes_at":3700,"status_transitions":{"finalized_at":null}},{"id":"in_1","billing_reason":null,
        "created":50,"automatically_finalizes_at":null,"status_transitions":{"finalized_at":60}}],"has_more":true}"#;
    let pages = [
        ok(&destination("ed_1", next)),
        ok(&destination("ed_2", "null")),
        ok(invoices),
    ];
    let server = Server::start(pages).await;
    let client = server.client();
    let destinations = client.event_destinations().await.unwrap();
    let ids: Vec<&str> = destinations.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids, ["ed_1", "ed_1b", "ed_2", "ed_2b"]);
    assert_eq!(destinations[0].url.as_deref(), Some("https://w.example/"));
    assert_eq!(
        (destinations[1].url.as_deref(), destinations[1].event_payload.as_str()),
        (None, "snapshot")
    );
    let times = client.invoice_times().await.unwrap();
    assert_eq!(
        (times[0].created, times[0].automatically_finalizes_at),
        (100, Some(3_700))
    );
    assert_eq!(
        (times[1].finalized_at, times[1].billing_reason.as_deref()),
        (Some(60), None)
    );
    let requests = server.requests();
    let first = [("limit", "100"), ("include[0]", "webhook_endpoint.url")];
    assert_get(&requests[0], "/v2/core/event_destinations", &first);
    assert_get(
        &requests[1],
        "/v2/core/event_destinations",
        &[("limit", "100"), ("page", "p2")],
    );
    assert_get(&requests[2], "/v1/invoices", &[("limit", "100")]);
}
