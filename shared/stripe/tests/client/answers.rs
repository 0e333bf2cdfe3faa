//! What is read out of answers, which hold far more than we ask for.

use farebox_stripe::{Error, Interval, TiersMode};

use crate::server::{Server, ok};

#[tokio::test]
async fn sums_are_added_over_pages() {
    let server = Server::start([
        ok(r#"{"data":[{"id":"a","aggregated_value":10},{"id":"b","aggregated_value":5.0}],"has_more":true}"#),
        ok(r#"{"data":[{"id":"c","aggregated_value":7,"new":null}],"has_more":false}"#),
    ])
    .await;
    assert_eq!(
        server.client().event_summary("mtr_1", "cus_1", 0, 60).await.unwrap(),
        22
    );
    let cursor = ("starting_after".to_owned(), "b".to_owned());
    assert!(server.requests()[1].query().contains(&cursor));
}

#[tokio::test]
async fn a_sum_that_is_not_exact_is_refused() {
    for value in ["10.5", "-1", "9007199254740992", "1e17", "\"10\"", "null"] {
        let server = Server::start([ok(&format!(
            r#"{{"data":[{{"id":"a","aggregated_value":{value}}}],"has_more":false}}"#
        ))])
        .await;
        let error = server
            .client()
            .event_summary("mtr_1", "cus_1", 0, 60)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{value}: {error:?}");
    }
}

#[tokio::test]
async fn a_list_that_does_not_move_on_is_refused() {
    let page = r#"{"data":[{"id":"a","aggregated_value":1}],"has_more":true}"#;
    let empty = r#"{"data":[],"has_more":true}"#;
    for script in [vec![ok(page), ok(page)], vec![ok(page), ok(empty)], vec![ok(empty)]] {
        let error = Server::start(script)
            .await
            .client()
            .event_summary("mtr_1", "cus_1", 0, 60)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_meter_is_found_on_a_later_page() {
    let server = Server::start([
        ok(r#"{"data":[{"id":"mtr_1","event_name":"other","display_name":"Other","status":"active"}],"has_more":true}"#),
        ok(r#"{"data":[{"id":"mtr_2","event_name":"api_calls","display_name":"API calls","status":"active"}],"has_more":false}"#),
    ])
    .await;
    assert_eq!(
        server.client().find_meter("api_calls").await.unwrap().unwrap().id,
        "mtr_2"
    );
}

#[tokio::test]
async fn a_price_with_its_steps() {
    let server = Server::start([ok(include_str!("price.json"))]).await;
    let price = server.client().find_price("calls").await.unwrap().unwrap();
    assert_eq!(
        (price.id.as_str(), price.product.as_str(), price.currency.as_str()),
        ("price_1", "prod_1", "usd")
    );
    assert_eq!(price.tiers_mode, Some(TiersMode::Graduated));
    let recurring = price.recurring.unwrap();
    assert_eq!(
        (recurring.interval, recurring.meter.as_deref()),
        (Interval::Month, Some("mtr_1"))
    );
    let steps: Vec<_> = price
        .tiers
        .unwrap()
        .into_iter()
        .map(|step| (step.up_to, step.unit_amount_decimal, step.flat_amount))
        .collect();
    assert_eq!(
        steps,
        [
            (Some(10_000), "0".to_owned(), None),
            (None, "0.05".to_owned(), Some(100))
        ]
    );
}

#[tokio::test]
async fn the_period_is_that_of_the_items() {
    let server = Server::start([ok(include_str!("subscription.json"))]).await;
    let subscription = server.client().subscription("sub_1").await.unwrap();
    assert_eq!(
        (subscription.status.as_str(), subscription.customer.as_str()),
        ("active", "cus_1")
    );
    assert_eq!(subscription.billing_cycle_anchor, 1_795_000_000);
    assert_eq!(subscription.metadata["tier"], "pro");
    assert_eq!(
        (subscription.created, subscription.cancel_at),
        (1_795_000_000, Some(1_797_592_000))
    );
    assert_eq!((subscription.trial_start, subscription.trial_end), (None, None));
    assert_eq!(subscription.latest_invoice.as_deref(), Some("in_1"));
    assert!(subscription.pause_collection && !subscription.livemode);
    let prices: Vec<_> = subscription
        .items
        .iter()
        .map(|item| {
            (
                item.lookup_key.as_deref(),
                item.product.as_deref(),
                item.is_metered,
                item.created,
            )
        })
        .collect();
    assert_eq!(
        prices,
        [
            (Some("pro"), Some("prod_1"), false, 1_795_000_000),
            (None, Some("prod_1"), true, 1_795_000_000),
        ]
    );
    assert_eq!(subscription.items[0].price_metadata["farebox"], "base");
    let items: Vec<_> = subscription
        .items
        .iter()
        .map(|item| {
            (
                item.id.as_str(),
                item.price.as_str(),
                item.current_period_start,
                item.current_period_end,
            )
        })
        .collect();
    assert_eq!(
        items,
        [
            ("si_1", "price_flat", 1_795_000_000, 1_797_592_000),
            ("si_2", "price_calls", 1_795_000_000, 1_797_592_000),
        ]
    );
}

#[tokio::test]
async fn items_and_lines_that_did_not_fit_are_fetched() {
    let item = |id: &str| {
        format!(r#"{{"id":"{id}","price":{{"id":"p"}},"created":1,"current_period_start":1,"current_period_end":2}}"#)
    };
    let server = Server::start([
        ok(&format!(
            r#"{{"id":"sub_1","status":"active","customer":"cus_1","billing_cycle_anchor":1,
                "created":1,"livemode":false,"items":{{"data":[{}],"has_more":true}}}}"#,
            item("si_1")
        )),
        ok(&format!(r#"{{"data":[{}],"has_more":false}}"#, item("si_2"))),
    ])
    .await;
    assert_eq!(server.client().subscription("sub_1").await.unwrap().items.len(), 2);
    let second = &server.requests()[1];
    assert_eq!(second.path, "/v1/subscription_items");
    assert_eq!(
        second.query(),
        [
            ("limit".to_owned(), "100".to_owned()),
            ("starting_after".to_owned(), "si_1".to_owned()),
            ("subscription".to_owned(), "sub_1".to_owned()),
        ]
    );

    let line = |id: &str| format!(r#"{{"id":"{id}","amount":5,"period":{{"start":1,"end":2}}}}"#);
    let server = Server::start([
        ok(&format!(
            r#"{{"data":[{{"id":"in_1","total":10,"amount_due":10,"amount_remaining":10,"attempt_count":0,"currency":"usd","period_start":1,"period_end":2,
                "lines":{{"data":[{}],"has_more":true}}}}],"has_more":false}}"#,
            line("il_1")
        )),
        ok(&format!(r#"{{"data":[{}],"has_more":false}}"#, line("il_2"))),
    ])
    .await;
    assert_eq!(server.client().invoices("cus_1").await.unwrap()[0].lines.len(), 2);
    let second = &server.requests()[1];
    assert_eq!(second.path, "/v1/invoices/in_1/lines");
    assert_eq!(
        second.query(),
        [
            ("limit".to_owned(), "100".to_owned()),
            ("starting_after".to_owned(), "il_1".to_owned()),
        ]
    );
}

#[tokio::test]
async fn invoices_over_pages() {
    let second = r#"{"data":[{"id":"in_2","total":0,"amount_due":0,"amount_remaining":0,"attempt_count":0,"currency":"usd","period_start":1,"period_end":2,
        "status":null,"lines":{"data":[],"has_more":false}}],"has_more":false}"#;
    let server = Server::start([ok(include_str!("invoices.json")), ok(second)]).await;
    let invoices = server.client().invoices("cus_1").await.unwrap();
    assert_eq!(
        invoices.iter().map(|invoice| invoice.id.as_str()).collect::<Vec<_>>(),
        ["in_1", "in_2"]
    );
    let invoice = &invoices[0];
    assert_eq!(invoice.billing_reason.as_deref(), Some("subscription_cycle"));
    assert_eq!((invoice.status.as_deref(), invoice.total), (Some("paid"), 4_925));
    assert_eq!(invoice.subscription.as_deref(), Some("sub_1"));
    assert_eq!(
        (invoice.amount_due, invoice.amount_remaining, invoice.attempt_count),
        (4_925, 25, 2)
    );
    assert_eq!(
        (invoice.next_payment_attempt, invoice.finalized_at),
        (Some(1_797_800_000), Some(1_797_595_600))
    );
    assert_eq!(invoice.customer.as_deref(), Some("cus_1"));
    assert_eq!(
        invoice.hosted_invoice_url.as_deref(),
        Some("https://invoice.stripe.com/i/1")
    );
    assert_eq!(
        (invoices[1].next_payment_attempt, invoices[1].finalized_at),
        (None, None)
    );
    let line = &invoice.lines[1];
    assert_eq!((line.amount, line.quantity), (25, Some(500)));
    assert_eq!(
        (line.price.as_deref(), line.subscription_item.as_deref()),
        (Some("price_calls"), Some("si_2"))
    );
    assert_eq!((line.period_start, line.period_end), (1_795_000_000, 1_797_592_000));
}

#[tokio::test]
async fn a_success_that_is_not_ours_is_doubted() {
    for body in [
        "",
        "<html>",
        "{}",
        "[]",
        r#"{"identifier":"another"}"#,
        "{\"identifier\":\"id1\"",
    ] {
        let server = Server::start([ok(body)]).await;
        let error = server
            .client()
            .report_meter_event(&crate::requests::event(), "k1")
            .await
            .unwrap_err();
        assert!(
            matches!(&error, Error::Malformed { request_id: Some(id), .. } if id == "req_1"),
            "{body}: {error:?}"
        );
        assert!(error.retryable());
    }
}
