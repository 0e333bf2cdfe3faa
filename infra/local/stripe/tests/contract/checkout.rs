//! Checkout sessions, from their creation to the page's button.

use serde_json::{Value, json};

use crate::api::{Api, DAY, START, id};

/// A session for a flat and a metered price; the session and the two prices.
async fn session(api: &Api, rest: &str) -> (Value, String, String) {
    let meter = api.meter().await;
    let (flat, metered) = (
        api.price("unit_amount=1000").await,
        api.metered_price(&meter, "unit_amount=2").await,
    );
    let form = format!(
        "mode=subscription&line_items[0][price]={flat}&line_items[0][quantity]=2&line_items[1][price]={metered}
         &success_url=https://app.example/done?session={{CHECKOUT_SESSION_ID}}&cancel_url=https://app.example/plans{rest}"
    );
    (api.post("/v1/checkout/sessions", &form).await.ok(), flat, metered)
}

/// The path of a session's page.
fn page(session: &Value) -> String {
    let url = session["url"].as_str().expect("a url");
    url.strip_prefix("http://localhost").expect("our address").to_owned()
}

/// Presses the button, without a key.
async fn press(api: &Api, session: &Value, form: &str) -> crate::api::Answer {
    api.call("POST", &page(session), form, &[("authorization", "")]).await
}

#[tokio::test]
async fn a_completed_session_makes_a_customer_and_a_subscription() {
    let api = Api::start().await;
    let rest = "&customer_email=new@example.com&client_reference_id=acct_7&metadata[a]=session
                &subscription_data[metadata][account]=7";
    let (open, flat, metered) = session(&api, rest).await;
    assert_eq!(
        (&open["status"], &open["payment_status"], &open["amount_total"]),
        (&"open".into(), &"unpaid".into(), &2000.into())
    );
    assert_eq!(open["expires_at"], START + DAY);
    assert!(open["customer"].is_null() && open["subscription"].is_null());

    let shown = api.call("GET", &page(&open), "", &[("authorization", "")]).await;
    assert_eq!(shown.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(
        shown.body.contains("<button>") && shown.body.contains("$20.00"),
        "{}",
        shown.body
    );

    let cursor = api.standin.events_after(0).cursor;
    let pressed = press(&api, &open, "").await;
    let landing = format!("https://app.example/done?session={}", id(&open));
    assert_eq!(
        (pressed.status, pressed.header("location")),
        (303, Some(landing.as_str()))
    );

    let path = format!("/v1/checkout/sessions/{}", id(&open));
    let complete = api
        .get(&format!("{path}?expand[]=subscription&expand[]=line_items"))
        .await
        .ok();
    assert_eq!(
        (&complete["status"], &complete["payment_status"], &complete["url"]),
        (&"complete".into(), &"paid".into(), &Value::Null)
    );
    assert_eq!(complete["client_reference_id"], "acct_7");
    assert_eq!(complete["metadata"], json!({ "a": "session" }));
    assert_eq!(complete["customer_details"]["email"], "new@example.com");
    let subscription = &complete["subscription"];
    assert_eq!(subscription["status"], "active");
    assert_eq!(subscription["metadata"], json!({ "account": "7" }));
    assert_eq!(subscription["default_payment_method"], "pm_card_visa");
    let prices: Vec<&Value> = [0, 1]
        .map(|item| &subscription["items"]["data"][item]["price"]["id"])
        .to_vec();
    assert_eq!(prices, [flat.as_str(), metered.as_str()]);
    assert_eq!(complete["line_items"]["data"][0]["quantity"], 2);
    let listed = api.get(&format!("{path}/line_items")).await.ok();
    assert_eq!(listed["data"], complete["line_items"]["data"]);
    let customer = complete["customer"].as_str().expect("a customer");
    assert_eq!(
        api.get(&format!("/v1/customers/{customer}")).await.ok()["email"],
        "new@example.com"
    );

    let events = api.standin.events_after(cursor).events;
    let last = events.last().expect("events");
    assert_eq!(last["type"], "checkout.session.completed");
    assert_eq!(last["data"]["object"]["subscription"], subscription["id"]);
    assert!(last["request"]["id"].is_null());

    // The button pressed twice.
    assert_eq!(press(&api, &open, "").await.status, 303);
    let made = api.get("/v1/subscriptions").await.ok();
    assert_eq!(made["data"].as_array().map(Vec::len), Some(1));
    let found = api
        .get(&format!("/v1/checkout/sessions?subscription={}", id(subscription)))
        .await
        .ok();
    assert_eq!(found["data"][0]["id"], open["id"]);
}

#[tokio::test]
async fn a_session_of_a_payment_link_names_the_link() {
    let api = Api::start().await;
    let (plain, flat, _) = session(&api, "").await;
    assert!(plain["payment_link"].is_null());
    let form = format!(
        "mode=subscription&success_url=https://a.example&line_items[0][price]={flat}&line_items[0][quantity]=1
         &client_reference_id=anybody"
    );
    let open = api.post("/_standin/payment_link", &form).await.ok();
    let link = open["payment_link"].as_str().expect("a link");
    assert!(link.starts_with("plink_"), "{link}");
    assert_eq!(press(&api, &open, "email=b@example.com").await.status, 303);
    let complete = api.get(&format!("/v1/checkout/sessions/{}", id(&open))).await.ok();
    assert_eq!(
        (
            &complete["status"],
            &complete["payment_link"],
            &complete["client_reference_id"]
        ),
        (&"complete".into(), &link.into(), &"anybody".into())
    );
    assert_eq!(complete["created"], START);
}

#[tokio::test]
async fn an_existing_customer_may_try_without_paying() {
    let api = Api::start().await;
    let customer = api.customer().await;
    let rest =
        format!("&customer={customer}&subscription_data[trial_period_days]=14&payment_method_collection=if_required");
    let (open, ..) = session(&api, &rest).await;
    assert_eq!(open["amount_total"], 0);
    press(&api, &open, "").await;
    let complete = api.get(&format!("/v1/checkout/sessions/{}", id(&open))).await.ok();
    assert_eq!(
        (&complete["payment_status"], &complete["customer"]),
        (&"no_payment_required".into(), &customer.as_str().into())
    );
    let made = api.get(&format!("/v1/subscriptions?customer={customer}")).await.ok();
    assert_eq!(made["data"][0]["status"], "trialing");
    assert!(made["data"][0]["default_payment_method"].is_null());
}

#[tokio::test]
async fn a_card_that_declines_leaves_the_session_open() {
    let api = Api::start().await;
    let (open, ..) = session(&api, "").await;
    let error = press(&api, &open, "payment_method=pm_card_chargeCustomerFail")
        .await
        .error(402);
    assert_eq!(error["code"], "card_declined");
    assert_eq!(api.get("/v1/customers").await.ok()["data"], json!([]));
    assert_eq!(press(&api, &open, "email=b@example.com").await.status, 303);
}

#[tokio::test]
async fn sessions_expire_after_a_day_or_on_request() {
    let api = Api::start().await;
    let (first, ..) = session(&api, "").await;
    let path = |session: &Value| format!("/v1/checkout/sessions/{}", id(session));
    let expire = format!("{}/expire", path(&first));
    assert_eq!(api.post(&expire, "").await.ok()["status"], "expired");
    assert_eq!(api.post(&expire, "").await.status, 400);
    assert_eq!(
        press(
            &api,
            &json!({ "url": format!("http://localhost/_standin/checkout/{}", id(&first)) }),
            ""
        )
        .await
        .status,
        400
    );
    let form = "mode=subscription&success_url=https://a.example&line_items[0][quantity]=1&line_items[0][price]=";
    let price = api.price("unit_amount=1").await;
    let second = api.post("/v1/checkout/sessions", &format!("{form}{price}")).await.ok();
    api.set_clock(START + DAY - 1);
    assert_eq!(api.get(&path(&second)).await.ok()["status"], "open");
    api.set_clock(START + DAY);
    assert_eq!(api.get(&path(&second)).await.ok()["status"], "expired");
    let events = api.get("/v1/events?type=checkout.session.expired").await.ok();
    assert_eq!(events["data"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn senseless_sessions_are_refused() {
    let api = Api::start().await;
    let price = api.price("unit_amount=1").await;
    let refused = async |rest: &str| api.post("/v1/checkout/sessions", rest).await.error(400)["param"].clone();
    let whole = format!("mode=subscription&success_url=https://a.example&line_items[0][price]={price}");
    assert_eq!(refused("success_url=https://a.example").await, "mode");
    assert_eq!(refused("mode=subscription").await, "success_url");
    assert_eq!(
        refused("mode=subscription&success_url=https://a.example").await,
        "line_items"
    );
    assert_eq!(refused(&whole).await, "line_items[0][quantity]");
    let both = format!("{whole}&line_items[0][quantity]=1&customer=cus_1&customer_email=a@example.com");
    assert_eq!(refused(&both).await, "customer_email");
    let unknown = api
        .post("/v1/checkout/sessions", &format!("{whole}x&line_items[0][quantity]=1"))
        .await;
    assert_eq!(unknown.status, 404);
}
