//! Keys, headers, errors, pages, expansion.

use crate::api::{Api, id};

#[tokio::test]
async fn a_key_is_needed_and_checked() {
    let api = Api::with(|options| options.secret_keys = vec!["sk_test_right".to_owned()]).await;
    let none = api.call("GET", "/v1/customers", "", &[("authorization", "")]).await;
    assert!(
        none.error(401)["message"]
            .as_str()
            .expect("text")
            .starts_with("You did not provide an API key.")
    );
    let wrong = api
        .call(
            "GET",
            "/v1/customers",
            "",
            &[("authorization", "Bearer sk_test_wrong_9999")],
        )
        .await;
    assert_eq!(
        wrong.error(401)["message"],
        "Invalid API Key provided: sk_test_******9999"
    );
    for right in ["Bearer sk_test_right", "Basic c2tfdGVzdF9yaWdodDo="] {
        assert_eq!(
            api.call("GET", "/v1/customers", "", &[("authorization", right)])
                .await
                .status,
            200
        );
    }
}

#[tokio::test]
async fn each_answer_has_its_headers() {
    let api = Api::start().await;
    let headers = [("stripe-version", "2025-03-31.basil"), ("idempotency-key", "k1")];
    let answer = api.call("POST", "/v1/customers", "name=A", &headers).await;
    assert!(answer.header("request-id").expect("an id").starts_with("req_"));
    assert_eq!(answer.header("stripe-version"), Some("2025-03-31.basil"));
    assert_eq!(answer.header("idempotency-key"), Some("k1"));
    assert_eq!(answer.header("idempotent-replayed"), None);
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn errors_name_their_parameter() {
    let api = Api::start().await;
    let unknown_url = api.get("/v1/nothing").await.error(404);
    assert!(
        unknown_url["message"]
            .as_str()
            .expect("text")
            .starts_with("Unrecognized request URL (GET: /v1/nothing).")
    );

    let unknown = api.post("/v1/customers", "name=A&foo=1").await.error(400);
    assert_eq!(unknown["code"], "parameter_unknown");
    assert_eq!(unknown["param"], "foo");
    assert_eq!(unknown["message"], "Received unknown parameter: foo");
    assert_eq!(unknown["type"], "invalid_request_error");
    assert_eq!(
        unknown["doc_url"],
        "https://stripe.com/docs/error-codes/parameter-unknown"
    );
    assert!(unknown["request_log_url"].is_string());

    let missing = api.post("/v1/products", "").await.error(400);
    assert_eq!(
        (&missing["code"], &missing["param"]),
        (&"parameter_missing".into(), &"name".into())
    );
    assert_eq!(missing["message"], "Missing required param: name.");

    let integer = api.get("/v1/customers?limit=many").await.error(400);
    assert_eq!(
        (&integer["code"], &integer["param"]),
        (&"parameter_invalid_integer".into(), &"limit".into())
    );
    assert_eq!(integer["message"], "Invalid integer: many");

    let word = api.get("/v1/invoices?status=lost").await.error(400);
    assert_eq!(
        word["message"],
        "Invalid status: must be one of draft, open, paid, uncollectible, or void"
    );

    let absent = api.get("/v1/customers/cus_x").await.error(404);
    assert_eq!(absent["code"], "resource_missing");
    assert_eq!(absent["message"], "No such customer: 'cus_x'");
}

#[tokio::test]
async fn lists_go_newest_first_in_pages() {
    let api = Api::start().await;
    let mut ids = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        ids.push(id(&api.post("/v1/customers", &format!("name={name}")).await.ok()));
    }
    let of =
        |page: &serde_json::Value| -> Vec<String> { page["data"].as_array().expect("data").iter().map(id).collect() };
    let first = api.get("/v1/customers?limit=2").await.ok();
    assert_eq!(of(&first), [ids[4].clone(), ids[3].clone()]);
    assert_eq!(
        (&first["has_more"], &first["url"], &first["object"]),
        (&true.into(), &"/v1/customers".into(), &"list".into())
    );
    let second = api
        .get(&format!("/v1/customers?limit=3&starting_after={}", ids[3]))
        .await
        .ok();
    assert_eq!(of(&second), [ids[2].clone(), ids[1].clone(), ids[0].clone()]);
    assert_eq!(second["has_more"], false);
    let back = api
        .get(&format!("/v1/customers?limit=2&ending_before={}", ids[1]))
        .await
        .ok();
    assert_eq!(of(&back), [ids[3].clone(), ids[2].clone()]);
    assert_eq!(back["has_more"], true);
    assert_eq!(api.get("/v1/customers?limit=101").await.error(400)["param"], "limit");
}

#[tokio::test]
async fn ids_expand_into_objects() {
    let api = Api::start().await;
    let customer = api.customer().await;
    let price = api.price("unit_amount=1000").await;
    let subscription = api
        .post(
            "/v1/subscriptions",
            &format!(
                "customer={customer}&items[0][price]={price}&expand[]=latest_invoice&expand[]=items.data.price.product"
            ),
        )
        .await
        .ok();
    assert_eq!(subscription["latest_invoice"]["status"], "paid");
    assert_eq!(subscription["items"]["data"][0]["price"]["product"]["name"], "API");
    let error = api.get("/v1/customers?expand[]=data.secrets").await.error(400);
    assert_eq!(error["message"], "This property cannot be expanded (secrets).");
}

#[tokio::test]
async fn a_deleted_customer_is_a_tombstone() {
    let api = Api::start().await;
    let customer = api.customer().await;
    assert_eq!(
        api.delete(&format!("/v1/customers/{customer}")).await.ok()["deleted"],
        true
    );
    assert_eq!(
        api.get(&format!("/v1/customers/{customer}")).await.ok()["deleted"],
        true
    );
    assert_eq!(
        api.post(&format!("/v1/customers/{customer}"), "name=B")
            .await
            .error(404)["code"],
        "resource_missing"
    );
    assert_eq!(api.get("/v1/customers").await.ok()["data"], serde_json::json!([]));
}

#[tokio::test]
async fn each_change_is_an_event() {
    let api = Api::start().await;
    let customer = api.customer().await;
    api.post(&format!("/v1/customers/{customer}"), "name=Better").await.ok();
    let events = api.get("/v1/events?type=customer.*").await.ok();
    assert_eq!(events["data"][0]["type"], "customer.updated");
    assert_eq!(
        events["data"][0]["data"]["previous_attributes"],
        serde_json::json!({ "name": "Acme" })
    );
    assert_eq!(events["data"][0]["data"]["object"]["name"], "Better");
    assert!(events["data"][0]["request"]["id"].is_string());
    let event = api.get(&format!("/v1/events/{}", id(&events["data"][1]))).await.ok();
    assert_eq!(event["type"], "customer.created");

    let page = api.standin.events_after(0);
    assert_eq!(page.cursor, 2);
    assert!(api.standin.events_after(page.cursor).events.is_empty());
}
