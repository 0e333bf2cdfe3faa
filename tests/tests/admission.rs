//! Who gets in, over the real wire to the embedded DynamoDB.

use std::sync::atomic::Ordering::Relaxed;

use farebox_authorizer::{Authorizer, Deps};
use farebox_aws::{
    accounts::AccountTable,
    connect::{Clients, Settings},
    control::NewKey,
    counters::CounterTable,
    queue::UsageQueue,
};
use farebox_billing::{Offer, When};
use farebox_core::{
    key::{ApiKey, Mode},
    tiers::Overrides,
    time::Timestamp,
};
use farebox_local::System;
use farebox_tests::{Answer, START_S, call, counted, environment, event, sell, system, table_calls, units, writes};
use http::StatusCode;
use serde_json::json;
use tokio::net::TcpListener;

const LIMITED: &str = "tiers: {t: {price: 0, included_calls: unlimited, rate_limit: 50/min, endpoints: [/v1/*]}}";
const BLOCKED: &str = "tiers: {t: {price: 0, included_calls: 70/month, rate_limit: unlimited, endpoints: [/v1/*]}}";
const TWO: &str = "
tiers:
  small: {price: 0, included_calls: 2/month, rate_limit: 100/min, endpoints: [/v1/basic/*]}
  large: {price: 49/month, included_calls: 100/month, rate_limit: 100/min, endpoints: [/v1/*], overage: $0.002/call}";

async fn storm(tiers: &str) -> (u64, u64) {
    let system = system(tiers, 5).await;
    let sold = sell(&system, "t").await;
    let mut clients = Vec::new();
    for n in 0..64 {
        let (system, key) = (system.clone(), sold.key.clone());
        clients.push(tokio::spawn(async move {
            let authorizer = environment(&system, n % 5);
            let mut admitted = 0;
            for _ in 0..5 {
                admitted += u64::from(call(&system, &authorizer, &key, "/v1/x").await == Answer::Admitted);
            }
            admitted
        }));
    }
    let mut admitted = 0;
    for client in clients {
        admitted += client.await.expect("no client panics");
    }
    (admitted, counted(&system, &sold).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_clients_against_a_limit_get_exactly_the_limit() {
    assert_eq!(storm(LIMITED).await, (50, 50));
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_clients_against_a_blocked_quota_get_exactly_the_quota() {
    assert_eq!(storm(BLOCKED).await, (70, 70));
}

#[tokio::test]
async fn a_denial_costs_no_write_and_ends_exactly_when_it_says() {
    let system = system(LIMITED, 1).await;
    let sold = sell(&system, "t").await;
    let authorizer = environment(&system, 0);
    for _ in 0..50 {
        assert_eq!(call(&system, &authorizer, &sold.key, "/v1/x").await, Answer::Admitted);
    }
    assert_eq!(writes(&system), 50, "one write a decision");
    let Answer::Denied(code, retry_after) = call(&system, &authorizer, &sold.key, "/v1/x").await else {
        panic!("the 51st is denied")
    };
    assert_eq!(code, "rate_limited");
    let after_first_denial = writes(&system);

    let at = Timestamp::from_s(START_S + retry_after - 1);
    system.clock().set(at);
    assert!(matches!(
        call(&system, &authorizer, &sold.key, "/v1/x").await,
        Answer::Denied(_, 1)
    ));
    assert_eq!(
        writes(&system),
        after_first_denial,
        "a remembered denial writes nothing"
    );

    system.clock().set(Timestamp::from_s(START_S + retry_after));
    assert_eq!(call(&system, &authorizer, &sold.key, "/v1/x").await, Answer::Admitted);
}

#[tokio::test]
async fn malformed_keys_cost_no_table_call_and_are_unauthorized() {
    let system = system(LIMITED, 1).await;
    let sold = sell(&system, "t").await;
    let authorizer = environment(&system, 0);
    let mut cut = sold.key.clone();
    cut.pop();
    let long = "a".repeat(8_192);
    for key in [
        "",
        " ",
        "nonsense",
        "fb_live_\0",
        "fb_live_\r\nx-evil: 1",
        "schlüssel",
        &cut,
        &long,
    ] {
        assert_eq!(
            call(&system, &authorizer, key, "/v1/x").await,
            Answer::Unauthorized,
            "{key:?}"
        );
    }
    for bad in [
        "null",
        "{}",
        "[]",
        "7",
        r#"{"headers":null,"type":"TOKEN"}"#,
        r#"{"version":"2.0"}"#,
    ] {
        let event: serde_json::Value = serde_json::from_str(bad).expect("the case is JSON");
        assert!(authorizer.handle(&event, system.clock().now()).await.is_err(), "{bad}");
    }
    assert_eq!(table_calls(&system), 0);

    let unknown = ApiKey::new("fb", Mode::Live, [7; 32]).expect("a good brand");
    for _ in 0..20 {
        assert_eq!(
            call(&system, &authorizer, unknown.reveal(), "/v1/x").await,
            Answer::Unauthorized
        );
    }
    assert_eq!(table_calls(&system), 1, "an unknown key is looked up once");
}

#[tokio::test]
async fn an_http_api_is_told_no_where_a_rest_api_is_failed() {
    let system = system(LIMITED, 1).await;
    let sold = sell(&system, "t").await;
    let authorizer = environment(&system, 0);
    let ask = async |key: &str| {
        let event = json!({
            "version": "2.0", "type": "REQUEST", "rawPath": "/v1/x", "headers": { "x-api-key": key },
            "routeArn": "arn:aws:execute-api:us-east-1:000000000000:api/$default/GET/v1/x",
            "requestContext": { "http": { "method": "GET", "path": "/v1/x" }, "stage": "$default" },
        });
        let answer = authorizer.handle(&event, system.clock().now()).await;
        json!(answer.expect("an HTTP API answers a failure with 500"))
    };
    assert_eq!(ask(&sold.key).await["isAuthorized"], true);
    let unknown = ApiKey::new("fb", Mode::Live, [7; 32]).expect("a good brand");
    for key in ["", "nonsense", unknown.reveal()] {
        assert_eq!(
            ask(key).await,
            json!({ "isAuthorized": false, "context": {} }),
            "{key:?}"
        );
    }
    assert_eq!(authorizer.metrics().unauthorized.load(Relaxed), 3);
}

#[tokio::test]
async fn a_revoked_key_is_refused_from_the_next_request_and_a_sibling_keeps_working() {
    let system = system(LIMITED, 2).await;
    let sold = sell(&system, "t").await;
    let now = system.clock().now();
    let sibling = system
        .control
        .issue_key(
            &sold.customer.id,
            NewKey {
                brand: "fb".to_owned(),
                mode: Mode::Live,
                name: "second".to_owned(),
                scopes: Vec::new(),
                expires: None,
            },
            now,
        )
        .await
        .expect("a second key");
    for n in 0..2 {
        for key in [&sold.key, sibling.key.reveal()] {
            assert_eq!(
                call(&system, &environment(&system, n), key, "/v1/x").await,
                Answer::Admitted
            );
        }
    }
    let hash = ApiKey::parse(&sold.key).expect("a good key").hash();
    system.control.revoke_key(hash, now).await.expect("revoked");
    for n in 0..2 {
        // The sibling first: reading the records again for it must not let the revoked key through.
        assert_eq!(
            call(&system, &environment(&system, n), sibling.key.reveal(), "/v1/x").await,
            Answer::Admitted
        );
        assert_eq!(
            call(&system, &environment(&system, n), &sold.key, "/v1/x").await,
            Answer::Unauthorized
        );
    }
}

#[tokio::test]
async fn a_rotated_key_works_until_its_grace_is_over() {
    let system = system(LIMITED, 1).await;
    let sold = sell(&system, "t").await;
    let authorizer = environment(&system, 0);
    let hash = ApiKey::parse(&sold.key).expect("a good key").hash();
    let new = system
        .control
        .rotate_key(hash, "fb", 60, system.clock().now())
        .await
        .expect("rotated");
    assert_eq!(call(&system, &authorizer, &sold.key, "/v1/x").await, Answer::Admitted);
    system.clock().set(Timestamp::from_s(START_S + 60));
    assert_eq!(
        call(&system, &authorizer, &sold.key, "/v1/x").await,
        Answer::Unauthorized
    );
    assert_eq!(
        call(&system, &authorizer, new.key.reveal(), "/v1/x").await,
        Answer::Admitted
    );
}

#[tokio::test]
async fn an_upgrade_ends_a_denial_and_opens_routes_from_the_next_request() {
    let system = system(TWO, 1).await;
    let sold = sell(&system, "small").await;
    let authorizer = environment(&system, 0);
    for _ in 0..2 {
        assert_eq!(
            call(&system, &authorizer, &sold.key, "/v1/basic/x").await,
            Answer::Admitted
        );
    }
    let denied = call(&system, &authorizer, &sold.key, "/v1/basic/x").await;
    assert!(
        matches!(denied, Answer::Denied(ref code, _) if code == "quota_exceeded"),
        "{denied:?}"
    );
    assert!(
        matches!(call(&system, &authorizer, &sold.key, "/v1/x").await, Answer::Denied(ref code, _) if code == "not_in_tier")
    );

    system.clock().set(Timestamp::from_s(START_S + 1));
    let offer = Offer {
        tier: "large".to_owned(),
        catalog: system.catalog.0,
        overrides: Overrides::default(),
        when: When::Now,
    };
    system.books.change_tier(&sold.customer.id, offer).await.expect("moved");
    assert_eq!(
        call(&system, &authorizer, &sold.key, "/v1/basic/x").await,
        Answer::Admitted
    );
    assert_eq!(call(&system, &authorizer, &sold.key, "/v1/x").await, Answer::Admitted);
}

#[tokio::test]
async fn five_environments_at_eighty_percent_load_write_at_most_five_percent_more() {
    let system = system(
        "tiers: {t: {price: 0, included_calls: unlimited, rate_limit: 600/min, endpoints: [/v1/*]}}",
        5,
    )
    .await;
    let sold = sell(&system, "t").await;
    let start = START_S * 1_000;
    for n in 0..2_400u64 {
        system.clock().set(Timestamp::from_ms(start + n * 125)); // 8 a second: 480 a minute
        let authorizer = environment(&system, (n * 7 % 5) as usize);
        assert_eq!(
            call(&system, &authorizer, &sold.key, "/v1/x").await,
            Answer::Admitted,
            "request {n}"
        );
    }
    assert!(
        writes(&system) <= 2_400 * 105 / 100,
        "{} writes for 2400 decisions",
        writes(&system)
    );
}

#[tokio::test]
async fn a_denied_answer_has_no_null_and_says_when_to_come_back() {
    let system = system(BLOCKED, 1).await;
    let sold = sell(&system, "t").await;
    let authorizer = environment(&system, 0);
    for _ in 0..70 {
        call(&system, &authorizer, &sold.key, "/v1/x").await;
    }
    let answer = authorizer
        .handle(&event(&sold.key, "/v1/x"), system.clock().now())
        .await
        .expect("a policy");
    let answer = serde_json::to_value(answer).expect("JSON");
    let context = answer["context"].as_object().expect("a context");
    assert!(context.values().all(serde_json::Value::is_string), "{context:?}");
    assert!(answer.get("usageIdentifierKey").is_none());
    assert_eq!(context["code"], "quota_exceeded");
    let reset: u64 = context["quota_reset"]
        .as_str()
        .expect("text")
        .parse()
        .expect("a number");
    let retry_after: u64 = context["retry_after"]
        .as_str()
        .expect("text")
        .parse()
        .expect("a number");
    assert_eq!(START_S + retry_after, reset);
    assert_eq!(reset, sold.customer.cycle.current.end);
}

#[tokio::test]
async fn who_has_no_counter_item_is_not_let_in_until_it_is_made_anew() {
    use aws_sdk_dynamodb::types::AttributeValue;
    const BILLED: &str = "tiers: {t: {price: 0, included_calls: unlimited, rate_limit: unlimited, endpoints: [/v1/*]}}";
    let system = system(BILLED, 1).await;
    let sold = sell(&system, "t").await;
    let authorizer = environment(&system, 0);
    assert_eq!(call(&system, &authorizer, &sold.key, "/v1/x").await, Answer::Admitted);
    system.send_usage().await.expect("folded");
    let delete = system.services.clients.dynamodb.delete_item();
    let delete = delete.table_name("farebox-counters");
    let delete = delete.key("pk", AttributeValue::S(format!("{}#0", sold.customer.id)));
    delete.send().await.expect("deleted");
    // No limit would hold, and no revocation.
    let denied = Answer::Denied("unavailable".to_owned(), 1);
    for _ in 0..3 {
        assert_eq!(call(&system, &authorizer, &sold.key, "/v1/x").await, denied);
    }
    let (id, now) = (&sold.customer.id, system.clock().now());
    system
        .control
        .restore_counter(id, 7, now)
        .await
        .expect_err("the tier has one item");
    system.control.restore_counter(id, 0, now).await.expect("made anew");
    assert_eq!(call(&system, &authorizer, &sold.key, "/v1/x").await, Answer::Admitted);
    system
        .control
        .change(id, now, |customer| {
            customer.is_suspended = true;
            Ok(())
        })
        .await
        .expect("suspended");
    let denied = call(&system, &authorizer, &sold.key, "/v1/x").await;
    assert!(
        matches!(denied, Answer::Denied(ref code, _) if code == "customer_suspended"),
        "{denied:?}"
    );
    // What the lost item had counted was told by messages.
    system
        .run_until(Timestamp::from_s(START_S + 7_200))
        .await
        .expect("time passes");
    let (_, ledger, _) = units(&system, &sold).await;
    assert_eq!(ledger, 2);
}

/// An environment whose counter table answers every request that it is too busy.
async fn busy(system: &System) -> Authorizer {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let answer = || async {
        let error =
            r#"{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException","message":"busy"}"#;
        (StatusCode::BAD_REQUEST, error)
    };
    let table = axum::Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, table).await });
    let services = &system.services;
    let counters = Clients::new(&Settings {
        dynamodb_endpoint: Some(format!("http://{address}")),
        ..services.settings.clone()
    });
    Authorizer::new(Deps {
        accounts: AccountTable::new(services.clients.clone(), system.tables().accounts.clone()),
        counters: CounterTable::new(counters, system.tables().counters.clone()),
        queue: UsageQueue::new(services.clients.clone(), system.queues().usage.clone()),
        forbidden_403: false,
        usage_identifier_key: None,
    })
}

#[tokio::test]
async fn who_asks_for_more_than_a_table_can_count_is_not_let_in_for_nothing() {
    const BILLED: &str =
        "tiers: {t: {price: 0, included_calls: 5/month, rate_limit: unlimited, endpoints: [/v1/*], overage: $1/call}}";
    let system = system(BILLED, 1).await;
    let sold = sell(&system, "t").await;
    let authorizer = busy(&system).await;
    let denied = Answer::Denied("unavailable".to_owned(), 1);
    for n in 1..=3 {
        assert_eq!(call(&system, &authorizer, &sold.key, "/v1/x").await, denied);
        assert_eq!(authorizer.metrics().writes.load(Relaxed), 4 * n, "it is tried again");
    }
    assert_eq!(authorizer.metrics().ambiguous_total.load(Relaxed), 0);
    assert_eq!(
        call(&system, &environment(&system, 0), &sold.key, "/v1/x").await,
        Answer::Admitted
    );
    assert_eq!(counted(&system, &sold).await, 1);
}

/// Payload format 1.0 of an HTTP API looks like a REST API's event, but for its version. It has no usage plans whose missing key
/// could turn a request away, and a failure is its 500.
#[tokio::test]
async fn an_http_api_with_policies_lets_nobody_through_who_is_forbidden() {
    let system = system(TWO, 1).await;
    let sold = sell(&system, "small").await;
    let clients = &system.services.clients;
    let authorizer = Authorizer::new(Deps {
        accounts: AccountTable::new(clients.clone(), system.tables().accounts.clone()),
        counters: CounterTable::new(clients.clone(), system.tables().counters.clone()),
        queue: UsageQueue::new(clients.clone(), system.queues().usage.clone()),
        forbidden_403: true,
        usage_identifier_key: Some("present".to_owned()),
    });
    let ask = async |key: &str, path: &str, version: Option<&str>| {
        let mut event = event(key, path);
        if let Some(version) = version {
            event["version"] = json!(version);
        }
        let answer = authorizer.handle(&event, system.clock().now()).await.ok()?;
        let answer = serde_json::to_value(answer).expect("an answer is JSON");
        let effect = answer["policyDocument"]["Statement"][0]["Effect"].as_str();
        Some((
            effect.unwrap_or_default().to_owned(),
            answer["usageIdentifierKey"].as_str().map(str::to_owned),
        ))
    };
    let policy = |effect: &str, key: Option<&str>| Some((effect.to_owned(), key.map(str::to_owned)));
    let wrong = "fb_test_0000000000000000000000";
    for (key, path, of_rest, of_http) in [
        (
            sold.key.as_str(),
            "/v1/basic/x",
            policy("Allow", Some("present")),
            policy("Allow", None),
        ),
        (
            &sold.key,
            "/v1/large",
            policy("Allow", Some("farebox-forbidden")),
            policy("Deny", None),
        ),
        (wrong, "/v1/basic/x", None, policy("Deny", None)),
    ] {
        assert_eq!(ask(key, path, None).await, of_rest, "{path} of a REST API");
        assert_eq!(ask(key, path, Some("1.0")).await, of_http, "{path} of an HTTP API");
    }
}
