//! Faults: what was done, and what the caller sees.

use std::time::Duration;

use farebox_stripe_standin::{Fault, FaultKind};

use crate::api::Api;

async fn customers(api: &Api) -> usize {
    api.get("/v1/customers").await.ok()["data"]
        .as_array()
        .expect("data")
        .len()
}

#[tokio::test]
async fn a_dropped_connection_has_no_answer() {
    for (kind, done) in [(FaultKind::DropBeforeCommit, 0), (FaultKind::DropAfterCommit, 1)] {
        let api = Api::start().await;
        api.misbehave("/v1/customers", kind);
        assert!(
            api.try_call("POST", "/v1/customers", "name=A", &[("idempotency-key", "k")])
                .await
                .is_err()
        );
        assert_eq!(customers(&api).await, done);
        let answer = api.post_with_key("/v1/customers", "name=A", "k").await;
        assert_eq!(answer.header("idempotent-replayed").is_some(), done == 1);
        assert_eq!(customers(&api).await, 1);
    }
}

#[tokio::test]
async fn refusals_leave_no_trace() {
    for (kind, status) in [(FaultKind::RateLimited429, 429), (FaultKind::Conflict409, 409)] {
        let api = Api::start().await;
        api.misbehave("/v1/customers", kind);
        api.post_with_key("/v1/customers", "name=A", "k").await.error(status);
        assert_eq!(customers(&api).await, 0);
        api.post_with_key("/v1/customers", "name=A", "k").await.ok();
    }
}

#[tokio::test]
async fn a_malformed_answer_was_done() {
    let api = Api::start().await;
    api.misbehave("/v1/customers", FaultKind::Malformed);
    let answer = api.post("/v1/customers", "name=A").await;
    assert_eq!(answer.status, 200);
    assert!(serde_json::from_str::<serde_json::Value>(&answer.body).is_err());
    assert_eq!(customers(&api).await, 1);
}

#[tokio::test]
async fn a_fault_befalls_what_it_names_as_often_as_it_says() {
    let api = Api::start().await;
    api.standin.misbehave(Fault {
        method: Some("POST".to_owned()),
        path_prefix: "/v1/customers".to_owned(),
        times: 2,
        kind: FaultKind::RateLimited429,
    });
    assert_eq!(api.get("/v1/customers").await.status, 200);
    assert_eq!(api.post("/v1/products", "name=A").await.status, 200);
    assert_eq!(api.post("/v1/customers", "name=A").await.status, 429);
    assert_eq!(api.post("/v1/customers", "name=A").await.status, 429);
    assert_eq!(api.post("/v1/customers", "name=A").await.status, 200);
}

#[tokio::test]
async fn a_caller_that_gives_up_waiting_is_served_all_the_same() {
    let api = Api::start().await;
    api.misbehave("/v1/customers", FaultKind::Delay(200));
    let impatient = tokio::time::timeout(Duration::from_millis(50), api.post("/v1/customers", "name=A"));
    assert!(impatient.await.is_err());
    assert_eq!(customers(&api).await, 0);
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(customers(&api).await, 1);
}
