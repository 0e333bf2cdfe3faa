//! Idempotency keys.

use std::time::Duration;

use farebox_stripe_standin::FaultKind;

use crate::api::{Api, DAY, START};

#[tokio::test]
async fn the_first_result_is_replayed_byte_for_byte() {
    let api = Api::start().await;
    let first = api.post_with_key("/v1/customers", "name=A&email=b", "k").await;
    api.set_clock(START + DAY - 1);
    let again = api.post_with_key("/v1/customers", "email=b&name=A", "k").await;
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_ne!(again.header("request-id"), first.header("request-id"));
    api.set_clock(START + DAY);
    let new = api.post_with_key("/v1/customers", "name=A&email=b", "k").await;
    assert_ne!(new.body, first.body);
    assert_eq!(
        api.get("/v1/customers").await.ok()["data"]
            .as_array()
            .expect("data")
            .len(),
        2
    );
}

#[tokio::test]
async fn a_500_is_replayed_too() {
    for (kind, customers) in [
        (FaultKind::Error500BeforeCommit, 0),
        (FaultKind::Error500AfterCommit, 1),
    ] {
        let api = Api::start().await;
        api.misbehave("/v1/customers", kind);
        let failed = api.post_with_key("/v1/customers", "name=A", "k").await;
        assert_eq!(failed.error(500)["type"], "api_error");
        let again = api.post_with_key("/v1/customers", "name=A", "k").await;
        assert_eq!((again.status, &again.body), (500, &failed.body));
        let count = async || {
            api.get("/v1/customers").await.ok()["data"]
                .as_array()
                .expect("data")
                .len()
        };
        assert_eq!(count().await, customers);
        api.post_with_key("/v1/customers", "name=A", "k2").await.ok();
        assert_eq!(count().await, customers + 1);
    }
}

#[tokio::test]
async fn a_key_belongs_to_one_request() {
    let api = Api::start().await;
    api.post_with_key("/v1/customers", "name=A", "k").await.ok();
    let other = api.post_with_key("/v1/customers", "name=B", "k").await.error(400);
    assert_eq!(other["type"], "idempotency_error");
    assert!(
        other["message"]
            .as_str()
            .expect("text")
            .starts_with("Keys for idempotent requests can only be used with the same parameters")
    );
    let elsewhere = api.post_with_key("/v1/products", "name=A", "k").await.error(400);
    assert_eq!(elsewhere["type"], "idempotency_error");
}

#[tokio::test]
async fn failed_validation_is_not_kept_and_a_refusal_is() {
    let api = Api::start().await;
    assert_eq!(
        api.post_with_key("/v1/customers", "name=A&foo=1", "k").await.status,
        400
    );
    api.post_with_key("/v1/customers", "name=A", "k").await.ok();

    api.meter().await;
    let event = "event_name=api_calls&identifier=i&payload[stripe_customer_id]=cus_x&payload[value]=1";
    api.post("/v1/billing/meter_events", event).await.ok();
    let refused = api.post_with_key("/v1/billing/meter_events", event, "k2").await;
    assert_eq!(refused.status, 400);
    let again = api.post_with_key("/v1/billing/meter_events", event, "k2").await;
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.body, refused.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_in_flight_is_refused() {
    let api = Api::start().await;
    api.misbehave("/v1/customers", FaultKind::Delay(400));
    let slow = api.post_with_key("/v1/customers", "name=A", "k");
    let during = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let error = api.post_with_key("/v1/customers", "name=A", "k").await.error(409);
        assert_eq!(error["code"], "idempotency_key_in_use");
    };
    let (slow, ()) = tokio::join!(slow, during);
    let again = api.post_with_key("/v1/customers", "name=A", "k").await;
    assert_eq!(again.body, slow.body);
}

#[tokio::test]
async fn keys_mean_nothing_to_get_and_delete() {
    let api = Api::start().await;
    let customer = api.customer().await;
    let headers = [("idempotency-key", "k")];
    let path = format!("/v1/customers/{customer}");
    assert_eq!(api.call("GET", &path, "", &headers).await.status, 200);
    assert_eq!(api.call("DELETE", &path, "", &headers).await.status, 200);
    assert_eq!(api.call("DELETE", &path, "", &headers).await.status, 404);
}
