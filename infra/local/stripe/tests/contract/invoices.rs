//! What a period comes to: arithmetic, lines, grace.

use serde_json::Value;

use crate::api::{Api, FEBRUARY_END, HOUR, MARCH_END, START, id, lines};

/// Reports `usage` in the first period and gives the finalized invoice of its end.
async fn billed(rest: &str, usage: &[i64]) -> Value {
    let api = Api::start().await;
    let meter = api.meter().await;
    let price = api.metered_price(&meter, rest).await;
    let customer = api.customer().await;
    api.subscribe(&customer, &[&price]).await;
    for value in usage {
        api.report(&customer, *value, "").await.ok();
    }
    api.set_clock(FEBRUARY_END + HOUR);
    let invoice = api.newest_invoice(&customer).await;
    assert_eq!(
        (&invoice["status"], &invoice["billing_reason"]),
        (&"paid".into(), &"subscription_cycle".into())
    );
    invoice
}

fn line(amount: i64, quantity: i64, description: &str) -> (i64, i64, String) {
    (amount, quantity, description.to_owned())
}

#[tokio::test]
async fn sub_cent_prices_round_half_up_per_line() {
    // The documented example: 0.05 × 30 = 1.5, "which is then rounded up to 2 cents".
    let invoice = billed("unit_amount_decimal=0.05", &[10, 20]).await;
    assert_eq!(lines(&invoice), [line(2, 30, "30 × API (at $0.0005 / month)")]);
    assert_eq!(lines(&billed("unit_amount_decimal=0.05", &[29]).await)[0].0, 1);
    assert_eq!(
        lines(&billed("unit_amount_decimal=0.000000000001", &[499_999_999_999]).await)[0].0,
        0
    );
    assert_eq!(
        lines(&billed("unit_amount_decimal=0.000000000001", &[500_000_000_000]).await)[0].0,
        1
    );
    assert_eq!(
        lines(&billed("unit_amount_decimal=0.1", &[99_999_999_999_995]).await)[0].0,
        10_000_000_000_000
    );
}

const GRADUATED: &str = "billing_scheme=tiered&tiers_mode=graduated
    &tiers[0][up_to]=1000&tiers[0][unit_amount]=0&tiers[0][flat_amount]=900
    &tiers[1][up_to]=2000&tiers[1][unit_amount_decimal]=3.6
    &tiers[2][up_to]=inf&tiers[2][unit_amount_decimal]=0.25";

#[tokio::test]
async fn graduated_prices_make_a_line_per_tier_reached() {
    let invoice = billed(GRADUATED, &[1031]).await;
    let expected = [
        line(0, 1000, "1000 × API (Tier 1 at $0.00 / month)"),
        line(900, 0, "API (Tier 1 at $9.00 / month)"),
        line(112, 31, "31 × API (Tier 2 at $0.036 / month)"),
    ];
    assert_eq!(lines(&invoice), expected);
    assert_eq!(
        (&invoice["total"], &invoice["amount_paid"], &invoice["amount_remaining"]),
        (&1012.into(), &1012.into(), &0.into())
    );
    assert_eq!(lines(&billed(GRADUATED, &[1000]).await).len(), 2);
    assert_eq!(lines(&billed(GRADUATED, &[2000]).await).len(), 3);
    let third = billed(GRADUATED, &[2002]).await;
    assert_eq!(lines(&third)[3], line(1, 2, "2 × API (Tier 3 at $0.0025 / month)"));
    assert_eq!(third["total"], 900 + 3600 + 1);
    assert_eq!(billed(GRADUATED, &[]).await["total"], 900);
}

#[tokio::test]
async fn volume_prices_bill_everything_at_the_tier_reached() {
    // The table of Stripe's documentation on tiered pricing, in fonts.
    let fonts = "billing_scheme=tiered&tiers_mode=volume
        &tiers[0][up_to]=5&tiers[0][unit_amount]=700&tiers[1][up_to]=10&tiers[1][unit_amount]=650&tiers[2][up_to]=inf&tiers[2][unit_amount]=600";
    for (usage, total) in [(0, 0), (1, 700), (5, 3500), (6, 3900), (20, 12000), (25, 15000)] {
        let invoice = billed(fonts, &[usage]).await;
        assert_eq!(lines(&invoice).len(), 1);
        assert_eq!(invoice["total"], total, "{usage}");
    }
}

#[tokio::test]
async fn transformed_quantities_are_billed_in_packages() {
    let rest = "unit_amount=1000&transform_quantity[divide_by]=60&transform_quantity[round]";
    // "If a customer rents the car for 150 minutes, that customer is charged 30 USD for 3 hours."
    assert_eq!(billed(&format!("{rest}=up"), &[150]).await["total"], 3000);
    assert_eq!(billed(&format!("{rest}=down"), &[150]).await["total"], 2000);
}

#[tokio::test]
async fn negative_usage_reduces_and_never_pays_back() {
    assert_eq!(lines(&billed("unit_amount=10", &[5, -2]).await)[0].1, 3);
    assert_eq!(lines(&billed("unit_amount=10", &[5, -9]).await)[0].1, 0);
}

#[tokio::test]
async fn a_cycle_bills_the_flat_price_ahead_and_the_usage_behind() {
    let api = Api::start().await;
    let meter = api.meter().await;
    let (flat, metered) = (
        api.price("unit_amount=2900").await,
        api.metered_price(&meter, "unit_amount=2").await,
    );
    let customer = api.customer().await;
    let subscription = api.subscribe(&customer, &[&flat, &metered]).await;
    let first = api.newest_invoice(&customer).await;
    assert_eq!(
        (&first["billing_reason"], &first["status"], &first["total"]),
        (&"subscription_create".into(), &"paid".into(), &2900.into())
    );

    // The first and the last second of the period count, the second after it does not.
    for (at, value) in [(START, 1), (FEBRUARY_END - 1, 10), (FEBRUARY_END, 100)] {
        api.set_clock(at);
        api.report(&customer, value, "").await.ok();
    }
    let draft = api.newest_invoice(&customer).await;
    assert_eq!(
        (&draft["status"], &draft["total"], &draft["number"]),
        (&"draft".into(), &(2900 + 22).into(), &Value::Null)
    );
    assert_eq!(
        (&draft["period_start"], &draft["period_end"]),
        (&START.into(), &FEBRUARY_END.into())
    );
    assert_eq!(draft["automatically_finalizes_at"], FEBRUARY_END + HOUR);

    // What comes during the grace still counts.
    api.set_clock(FEBRUARY_END + HOUR - 1);
    api.report(&customer, 5, &format!("&timestamp={}", FEBRUARY_END - 30))
        .await
        .ok();
    api.set_clock(FEBRUARY_END + HOUR);
    let paid = api.newest_invoice(&customer).await;
    assert_eq!(
        lines(&paid),
        [
            line(2900, 1, "1 × API (at $29.00 / month)"),
            line(32, 16, "16 × API (at $0.02 / month)")
        ]
    );
    assert_eq!((&paid["status"], &paid["amount_paid"]), (&"paid".into(), &2932.into()));
    assert_eq!(paid["status_transitions"]["finalized_at"], FEBRUARY_END + HOUR);
    assert!(paid["number"].as_str().expect("a number").ends_with("-0002"));
    let data = &paid["lines"]["data"];
    assert_eq!(data[0]["period"]["end"], MARCH_END);
    assert_eq!(
        (&data[1]["period"]["start"], &data[1]["period"]["end"]),
        (&START.into(), &FEBRUARY_END.into())
    );
    assert_eq!(data[1]["pricing"]["price_details"]["price"], metered.as_str());
    assert_eq!(
        data[1]["parent"]["subscription_item_details"]["subscription"],
        subscription["id"]
    );

    // After it, nothing does.
    api.report(&customer, 7, &format!("&timestamp={}", FEBRUARY_END - 30))
        .await
        .ok();
    assert_eq!(api.newest_invoice(&customer).await["total"], 2932);
    let listed = api.get(&format!("/v1/invoices/{}/lines?limit=1", id(&paid))).await.ok();
    assert_eq!(
        (&listed["data"][0]["id"], &listed["has_more"]),
        (&data[0]["id"], &true.into())
    );
}

#[tokio::test]
async fn a_jump_settles_each_period_at_its_own_time() {
    let api = Api::start().await;
    let meter = api.meter().await;
    let price = api.metered_price(&meter, "unit_amount=1").await;
    let customer = api.customer().await;
    api.subscribe(&customer, &[&price]).await;
    api.report(&customer, 8, "").await.ok();
    api.set_clock(MARCH_END + HOUR);
    let invoices = api.get(&format!("/v1/invoices?customer={customer}")).await.ok()["data"].clone();
    let shown: Vec<(i64, i64, i64)> = invoices
        .as_array()
        .expect("invoices")
        .iter()
        .map(|invoice| {
            let number = |value: &Value| value.as_i64().expect("a number");
            (
                number(&invoice["created"]),
                number(&invoice["total"]),
                number(&invoice["status_transitions"]["paid_at"]),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            (MARCH_END, 0, MARCH_END + HOUR),
            (FEBRUARY_END, 8, FEBRUARY_END + HOUR),
            (START, 0, START)
        ]
    );
    let kinds: Vec<String> = api
        .standin
        .events_after(0)
        .events
        .iter()
        .filter(|event| event["type"].as_str().is_some_and(|kind| kind.starts_with("invoice.")))
        .map(|event| format!("{} {}", event["created"], event["type"].as_str().expect("a type")))
        .collect();
    let expected: Vec<String> = [
        (START, START),
        (FEBRUARY_END, FEBRUARY_END + HOUR),
        (MARCH_END, MARCH_END + HOUR),
    ]
    .iter()
    .flat_map(|(created, paid)| {
        [
            format!("{created} invoice.created"),
            format!("{paid} invoice.finalized"),
            format!("{paid} invoice.paid"),
            format!("{paid} invoice.payment_succeeded"),
        ]
    })
    .collect();
    assert_eq!(kinds, expected);
}

#[tokio::test]
async fn a_preview_is_the_next_invoice_and_changes_nothing() {
    let api = Api::start().await;
    let meter = api.meter().await;
    let (flat, metered) = (
        api.price("unit_amount=2900").await,
        api.metered_price(&meter, "unit_amount=2").await,
    );
    let customer = api.customer().await;
    let subscription = api.subscribe(&customer, &[&flat, &metered]).await;
    api.report(&customer, 50, "").await.ok();
    let before = api.standin.snapshot();
    let preview = api
        .post("/v1/invoices/create_preview", &format!("customer={customer}"))
        .await
        .ok();
    assert!(id(&preview).starts_with("upcoming_in_"));
    assert_eq!((&preview["total"], &preview["status"]), (&3000.into(), &"draft".into()));
    let by_id = api
        .post(
            "/v1/invoices/create_preview",
            &format!("subscription={}", id(&subscription)),
        )
        .await
        .ok();
    assert_eq!(by_id["lines"], preview["lines"]);
    assert_eq!(api.standin.snapshot(), before);

    let stranger = api.customer().await;
    let none = api
        .post("/v1/invoices/create_preview", &format!("customer={stranger}"))
        .await
        .error(404);
    assert_eq!(none["code"], "invoice_upcoming_none");
}

#[tokio::test]
async fn a_draft_can_be_held_back_and_finalized_by_hand() {
    let api = Api::start().await;
    let price = api.price("unit_amount=100").await;
    let customer = api.customer().await;
    api.subscribe(&customer, &[&price]).await;
    api.set_clock(FEBRUARY_END);
    let draft = id(&api.newest_invoice(&customer).await);
    api.post(&format!("/v1/invoices/{draft}"), "auto_advance=false")
        .await
        .ok();
    api.set_clock(FEBRUARY_END + 5 * HOUR);
    assert_eq!(api.get(&format!("/v1/invoices/{draft}")).await.ok()["status"], "draft");
    assert_eq!(
        api.post(&format!("/v1/invoices/{draft}/finalize"), "").await.ok()["status"],
        "paid"
    );
    assert_eq!(
        api.post(&format!("/v1/invoices/{draft}/finalize"), "").await.error(400)["code"],
        "invoice_not_editable"
    );
}
