//! Subscriptions: periods, changes, ends.

use chrono::DateTime;
use serde_json::Value;

use crate::api::{Api, DAY, FEBRUARY_END, HOUR, MARCH_END, START, id, lines};

fn at(text: &str) -> i64 {
    DateTime::parse_from_rfc3339(text).expect("a time").timestamp()
}

async fn period(api: &Api, subscription: &str) -> (i64, i64) {
    let item = api.get(&format!("/v1/subscriptions/{subscription}")).await.ok()["items"]["data"][0].clone();
    let time = |name: &str| item[name].as_i64().expect("a time");
    (time("current_period_start"), time("current_period_end"))
}

#[tokio::test]
async fn month_ends_clamp_from_the_anchor_day() {
    let api = Api::start().await;
    let price = api.price("unit_amount=100").await;
    let subscription = id(&api.subscribe(&api.customer().await, &[&price]).await);
    assert_eq!(period(&api, &subscription).await, (START, FEBRUARY_END));
    let bounds = [
        ("2027-02-28T10:17:23Z", "2027-03-31T10:17:23Z"),
        ("2027-03-31T10:17:23Z", "2027-04-30T10:17:23Z"),
        ("2027-04-30T10:17:23Z", "2027-05-31T10:17:23Z"),
        ("2028-01-31T10:17:23Z", "2028-02-29T10:17:23Z"),
        ("2028-02-29T10:17:23Z", "2028-03-31T10:17:23Z"),
    ];
    for (start, end) in bounds {
        api.set_clock(at(start));
        assert_eq!(period(&api, &subscription).await, (at(start), at(end)));
    }
    let shown = api.get(&format!("/v1/subscriptions/{subscription}")).await.ok();
    assert_eq!(shown["billing_cycle_anchor"], START);
    assert!(shown.get("current_period_end").is_none());
}

#[tokio::test]
async fn a_yearly_leap_day_comes_back() {
    let api = Api::start().await;
    let leap = at("2028-02-29T00:00:00Z");
    api.set_clock(leap);
    let form = "currency=usd&product_data[name]=API&recurring[interval]=year&unit_amount=100";
    let price = id(&api.post("/v1/prices", form).await.ok());
    let subscription = id(&api.subscribe(&api.customer().await, &[&price]).await);
    for (start, end) in [
        ("2029-02-28T00:00:00Z", "2030-02-28T00:00:00Z"),
        ("2032-02-29T00:00:00Z", "2033-02-28T00:00:00Z"),
    ] {
        api.set_clock(at(start));
        assert_eq!(period(&api, &subscription).await, (at(start), at(end)));
    }
}

#[tokio::test]
async fn metered_items_have_no_quantity() {
    let api = Api::start().await;
    let meter = api.meter().await;
    let price = api.metered_price(&meter, "unit_amount=1").await;
    let customer = api.customer().await;
    let error = api
        .post(
            "/v1/subscriptions",
            &format!("customer={customer}&items[0][price]={price}&items[0][quantity]=1"),
        )
        .await
        .error(400);
    assert_eq!(error["param"], "items[0][quantity]");
    let subscription = api.subscribe(&customer, &[&price]).await;
    assert!(subscription["items"]["data"][0].get("quantity").is_none());
    assert_eq!(
        subscription["items"]["data"][0]["price"]["recurring"]["meter"],
        meter.as_str()
    );
}

#[tokio::test]
async fn senseless_subscriptions_are_refused() {
    let api = Api::start().await;
    let customer = api.customer().await;
    let monthly = api.price("unit_amount=100").await;
    let once = id(&api
        .post("/v1/prices", "currency=usd&product_data[name]=A&unit_amount=1")
        .await
        .ok());
    let euro = id(&api
        .post(
            "/v1/prices",
            "currency=eur&product_data[name]=A&unit_amount=1&recurring[interval]=month",
        )
        .await
        .ok());
    let yearly = id(&api
        .post(
            "/v1/prices",
            "currency=usd&product_data[name]=A&unit_amount=1&recurring[interval]=year",
        )
        .await
        .ok());
    let before = api.standin.snapshot();
    let refused = async |rest: &str| {
        api.post("/v1/subscriptions", &format!("customer={customer}{rest}"))
            .await
            .status
    };
    assert_eq!(refused("").await, 400);
    assert_eq!(refused(&format!("&items[0][price]={once}")).await, 400);
    assert_eq!(refused("&items[0][price]=price_x").await, 404);
    assert_eq!(
        refused(&format!("&items[0][price]={monthly}&items[1][price]={monthly}")).await,
        400
    );
    assert_eq!(
        refused(&format!("&items[0][price]={monthly}&items[1][price]={euro}")).await,
        400
    );
    assert_eq!(
        refused(&format!("&items[0][price]={monthly}&items[1][price]={yearly}")).await,
        400
    );
    assert_eq!(
        refused(&format!(
            "&items[0][price]={monthly}&billing_cycle_anchor={}",
            START + 40 * DAY
        ))
        .await,
        400
    );
    assert_eq!(api.standin.snapshot(), before);
}

#[tokio::test]
async fn a_trial_is_free_and_then_the_cycle_begins() {
    let api = Api::start().await;
    let meter = api.meter().await;
    let (flat, metered) = (
        api.price("unit_amount=2900").await,
        api.metered_price(&meter, "unit_amount=2").await,
    );
    let customer = api.customer().await;
    let form = format!("customer={customer}&items[0][price]={flat}&items[1][price]={metered}&trial_period_days=14");
    let subscription = api.post("/v1/subscriptions", &form).await.ok();
    assert_eq!(
        (&subscription["status"], &subscription["trial_end"]),
        (&"trialing".into(), &(START + 14 * DAY).into())
    );
    let first = api.newest_invoice(&customer).await;
    assert_eq!(
        (&first["total"], &lines(&first)[0].2),
        (&0.into(), &"Trial period for API".to_owned())
    );
    api.report(&customer, 1000, "").await.ok();

    api.set_clock(START + 14 * DAY);
    assert_eq!(
        api.get(&format!("/v1/subscriptions/{}", id(&subscription))).await.ok()["status"],
        "active"
    );
    assert_eq!(api.newest_invoice(&customer).await["total"], 2900);
    assert_eq!(
        period(&api, &id(&subscription)).await,
        (START + 14 * DAY, at("2027-03-14T10:17:23Z"))
    );
}

#[tokio::test]
async fn an_anchor_ahead_makes_a_short_first_period() {
    let api = Api::start().await;
    let price = api.price("unit_amount=2800").await;
    let customer = api.customer().await;
    // The whole interval is 14 January to 14 February, 31 days; 14 of them are left.
    let anchor = START + 14 * DAY;
    let form = format!("customer={customer}&items[0][price]={price}&billing_cycle_anchor={anchor}");
    let subscription = api.post("/v1/subscriptions", &form).await.ok();
    assert_eq!(period(&api, &id(&subscription)).await, (START, anchor));
    assert_eq!(api.newest_invoice(&customer).await["total"], (2800 * 14 + 15) / 31);
    api.set_clock(anchor);
    assert_eq!(api.newest_invoice(&customer).await["total"], 2800);
}

#[tokio::test]
async fn a_flat_price_change_is_prorated_to_the_second() {
    let api = Api::start().await;
    let (small, large) = (api.price("unit_amount=2800").await, api.price("unit_amount=5600").await);
    let customer = api.customer().await;
    let subscription = api.subscribe(&customer, &[&small]).await;
    let item = id(&subscription["items"]["data"][0]);
    let path = format!("/v1/subscriptions/{}", id(&subscription));
    // A quarter of the 28 days is over, and one second.
    api.set_clock(START + 7 * DAY + 1);
    let change = format!("items[0][id]={item}&items[0][price]={large}");
    let preview = api
        .post(
            "/v1/invoices/create_preview",
            &format!("subscription={}&subscription_details[items][0][id]={item}&subscription_details[items][0][price]={large}", id(&subscription)),
        )
        .await
        .ok();
    let changed = api.post(&path, &change).await.ok();
    assert_eq!(changed["items"]["data"][0]["price"]["id"], large.as_str());
    assert_eq!(api.newest_invoice(&customer).await["total"], 2800);
    api.set_clock(FEBRUARY_END + HOUR);
    let invoice = api.newest_invoice(&customer).await;
    // 2800 × 1814399 ÷ 2419200 = 2099.9988…, and twice that.
    assert_eq!(
        lines(&invoice),
        [
            (-2100, 1, "Unused time on API after 07 Feb 2027".to_owned()),
            (4200, 1, "Remaining time on API after 07 Feb 2027".to_owned()),
            (5600, 1, "1 × API (at $56.00 / month)".to_owned()),
        ]
    );
    assert_eq!(lines(&preview), lines(&invoice));
    assert_eq!(
        invoice["lines"]["data"][0]["parent"]["invoice_item_details"]["proration"],
        true
    );
}

#[tokio::test]
async fn prorations_can_be_left_out_or_invoiced_at_once() {
    for (behavior, at_once) in [("none", 2800), ("always_invoice", 1400)] {
        let api = Api::start().await;
        let (small, large) = (api.price("unit_amount=2800").await, api.price("unit_amount=5600").await);
        let customer = api.customer().await;
        let subscription = api.subscribe(&customer, &[&small]).await;
        let item = id(&subscription["items"]["data"][0]);
        api.set_clock(START + 14 * DAY);
        let form = format!("items[0][id]={item}&items[0][price]={large}&proration_behavior={behavior}");
        api.post(&format!("/v1/subscriptions/{}", id(&subscription)), &form)
            .await
            .ok();
        assert_eq!(api.newest_invoice(&customer).await["total"], at_once, "{behavior}");
        api.set_clock(FEBRUARY_END);
        assert_eq!(api.newest_invoice(&customer).await["total"], 5600, "{behavior}");
    }
}

#[tokio::test]
async fn a_downgrade_leaves_credit_that_the_next_invoices_consume() {
    let api = Api::start().await;
    let (small, large) = (api.price("unit_amount=100").await, api.price("unit_amount=2800").await);
    let customer = api.customer().await;
    let subscription = api.subscribe(&customer, &[&large]).await;
    let item = id(&subscription["items"]["data"][0]);
    api.set_clock(START + 14 * DAY);
    let form = format!("items[0][id]={item}&items[0][price]={small}&proration_behavior=always_invoice");
    api.post(&format!("/v1/subscriptions/{}", id(&subscription)), &form)
        .await
        .ok();
    let credit = api.newest_invoice(&customer).await;
    assert_eq!(
        (&credit["total"], &credit["amount_due"], &credit["ending_balance"]),
        (&(-1350).into(), &0.into(), &(-1350).into())
    );
    assert_eq!(
        api.get(&format!("/v1/customers/{customer}")).await.ok()["balance"],
        -1350
    );
    api.set_clock(FEBRUARY_END + HOUR);
    let next = api.newest_invoice(&customer).await;
    assert_eq!(
        (&next["total"], &next["amount_due"], &next["starting_balance"]),
        (&100.into(), &0.into(), &(-1350).into())
    );
    assert_eq!(
        api.get(&format!("/v1/customers/{customer}")).await.ok()["balance"],
        -1250
    );
}

#[tokio::test]
async fn a_metered_price_that_is_replaced_bills_what_was_used_so_far() {
    for (mode, first) in [("flexible", 10 * 3), ("classic", 0)] {
        let api = Api::start().await;
        let meter = api.meter().await;
        let (old, new) = (
            api.metered_price(&meter, "unit_amount=3").await,
            api.metered_price(&meter, "unit_amount=7").await,
        );
        let customer = api.customer().await;
        let form = format!("customer={customer}&items[0][price]={old}&billing_mode[type]={mode}");
        let subscription = api.post("/v1/subscriptions", &form).await.ok();
        api.report(&customer, 10, "").await.ok();
        api.set_clock(START + DAY);
        let item = id(&subscription["items"]["data"][0]);
        let change = format!("items[0][id]={item}&items[0][price]={new}");
        api.post(&format!("/v1/subscriptions/{}", id(&subscription)), &change)
            .await
            .ok();
        api.report(&customer, 5, "").await.ok();
        api.set_clock(FEBRUARY_END + HOUR);
        assert_eq!(api.newest_invoice(&customer).await["total"], first + 5 * 7, "{mode}");
    }
}

#[tokio::test]
async fn another_interval_begins_a_new_cycle() {
    let api = Api::start().await;
    let monthly = api.price("unit_amount=2800").await;
    let yearly = id(&api
        .post(
            "/v1/prices",
            "currency=usd&product_data[name]=A&unit_amount=30000&recurring[interval]=year",
        )
        .await
        .ok());
    let customer = api.customer().await;
    let subscription = api.subscribe(&customer, &[&monthly]).await;
    let now = START + 14 * DAY;
    api.set_clock(now);
    let form = format!(
        "items[0][id]={}&items[0][price]={yearly}",
        id(&subscription["items"]["data"][0])
    );
    let changed = api
        .post(&format!("/v1/subscriptions/{}", id(&subscription)), &form)
        .await
        .ok();
    assert_eq!(changed["billing_cycle_anchor"], now);
    assert_eq!(period(&api, &id(&subscription)).await, (now, now + 365 * DAY));
    let invoice = api.newest_invoice(&customer).await;
    assert_eq!(
        (&invoice["total"], &invoice["status"]),
        (&(30000 - 1400).into(), &"paid".into())
    );
}

async fn with_usage() -> (Api, String, String) {
    let api = Api::start().await;
    let meter = api.meter().await;
    let (flat, metered) = (
        api.price("unit_amount=2900").await,
        api.metered_price(&meter, "unit_amount=2").await,
    );
    let customer = api.customer().await;
    let subscription = id(&api.subscribe(&customer, &[&flat, &metered]).await);
    api.report(&customer, 50, "").await.ok();
    (api, customer, subscription)
}

#[tokio::test]
async fn cancel_at_period_end_bills_the_usage_and_nothing_ahead() {
    let (api, customer, subscription) = with_usage().await;
    let form = "cancel_at_period_end=true";
    let canceling = api.post(&format!("/v1/subscriptions/{subscription}"), form).await.ok();
    assert_eq!(
        (&canceling["status"], &canceling["cancel_at"]),
        (&"active".into(), &FEBRUARY_END.into())
    );
    api.set_clock(FEBRUARY_END + HOUR);
    let ended = api.get(&format!("/v1/subscriptions/{subscription}")).await.ok();
    assert_eq!(
        (&ended["status"], &ended["ended_at"]),
        (&"canceled".into(), &FEBRUARY_END.into())
    );
    let last = api.newest_invoice(&customer).await;
    assert_eq!((&last["total"], &last["status"]), (&100.into(), &"paid".into()));
    api.set_clock(MARCH_END + HOUR);
    assert_eq!(api.newest_invoice(&customer).await["id"], last["id"]);
    let kinds: Vec<Value> = api
        .standin
        .events_after(0)
        .events
        .iter()
        .map(|event| event["type"].clone())
        .collect();
    assert!(kinds.contains(&"customer.subscription.deleted".into()));
    assert_eq!(
        api.get(&format!("/v1/subscriptions?customer={customer}")).await.ok()["data"],
        serde_json::json!([])
    );
    assert_eq!(
        api.get(&format!("/v1/subscriptions?customer={customer}&status=all"))
            .await
            .ok()["data"][0]["id"],
        subscription.as_str()
    );
}

#[tokio::test]
async fn an_immediate_cancel_bills_usage_only_when_asked() {
    for (form, total) in [("", 2900), ("?invoice_now=true", 100)] {
        let (api, customer, subscription) = with_usage().await;
        api.set_clock(START + 14 * DAY);
        let canceled = api
            .delete(&format!("/v1/subscriptions/{subscription}{form}"))
            .await
            .ok();
        assert_eq!(
            (&canceled["status"], &canceled["ended_at"]),
            (&"canceled".into(), &(START + 14 * DAY).into())
        );
        api.set_clock(START + 14 * DAY + HOUR);
        assert_eq!(api.newest_invoice(&customer).await["total"], total);
        assert_eq!(
            api.delete(&format!("/v1/subscriptions/{subscription}")).await.status,
            404
        );
    }
}

#[tokio::test]
async fn items_can_be_added_changed_and_removed() {
    let api = Api::start().await;
    let meter = api.meter().await;
    let (flat, metered) = (
        api.price("unit_amount=2800").await,
        api.metered_price(&meter, "unit_amount=2").await,
    );
    let customer = api.customer().await;
    let subscription = id(&api.subscribe(&customer, &[&flat]).await);
    api.report(&customer, 100, "").await.ok();
    api.set_clock(START + 14 * DAY);
    let added = api
        .post(
            "/v1/subscription_items",
            &format!("subscription={subscription}&price={metered}"),
        )
        .await
        .ok();
    api.report(&customer, 7, "").await.ok();
    let items = api
        .get(&format!("/v1/subscription_items?subscription={subscription}"))
        .await
        .ok();
    assert_eq!(items["data"].as_array().expect("items").len(), 2);
    let seats = format!("/v1/subscription_items/{}", id(&items["data"][0]));
    assert_eq!(api.post(&seats, "quantity=3").await.ok()["quantity"], 3);
    api.set_clock(FEBRUARY_END + HOUR);
    let invoice = api.newest_invoice(&customer).await;
    // Half a month of two more seats, three seats ahead, and the seven units since the meter's price came.
    assert_eq!(invoice["total"], (3 - 1) * 1400 + 3 * 2800 + 14);
    assert_eq!(
        api.delete(&format!("/v1/subscription_items/{}", id(&added))).await.ok()["deleted"],
        true
    );
    assert_eq!(
        api.get(&format!("/v1/subscription_items/{}", id(&added))).await.status,
        404
    );
}
