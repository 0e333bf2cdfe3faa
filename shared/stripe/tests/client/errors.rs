//! Each status, as what the caller does next.

use std::time::Duration;

use farebox_stripe::{Client, Error, MeterEvent};

use crate::requests::event;
use crate::server::{Script, Server, refusal};

async fn report(script: Script) -> Error {
    Server::start([script])
        .await
        .client()
        .report_meter_event(&event(), "k1")
        .await
        .unwrap_err()
}

fn with_headers(status: u16, headers: &[(&'static str, &'static str)], error: &str) -> Script {
    let mut all = vec![("request-id", "req_1")];
    all.extend_from_slice(headers);
    Script::Answer(status, all, format!(r#"{{"error":{error}}}"#))
}

#[tokio::test]
async fn a_known_identifier_means_delivered() {
    for error in [
        // As v1 answers: no code.
        r#"{"message":"An event already exists with identifier id1.","type":"invalid_request_error"}"#,
        r#"{"message":"An event already exists with identifier id1.","param":"identifier","type":"invalid_request_error",
            "request_log_url":"https://dashboard.stripe.com/test/logs/req_1"}"#,
        // As v2 answers, should v1 adopt it.
        r#"{"code":"duplicate_meter_event","message":"A meter event with this identifier exists.","type":"invalid_request_error"}"#,
    ] {
        let error = report(with_headers(400, &[("stripe-should-retry", "false")], error)).await;
        assert_eq!(
            error,
            Error::Duplicate {
                request_id: Some("req_1".to_owned())
            }
        );
        assert!(!error.retryable());
    }
}

#[tokio::test]
async fn nothing_else_is_taken_for_delivered() {
    let known = "An event already exists with identifier id1.";
    for (status, error) in [
        (400, r#"{"message":"An event already exists with identifier id12.","type":"invalid_request_error"}"#.to_owned()),
        (400, r#"{"message":"An event already exists with identifier id1.b.","type":"invalid_request_error"}"#.to_owned()),
        (400, r#"{"message":"No meter found with event_name api_calls.","type":"invalid_request_error"}"#.to_owned()),
        (400, r#"{"message":"The timestamp is too far in the past.","param":"timestamp","type":"invalid_request_error"}"#.to_owned()),
        (400, r#"{"code":"archived_meter","message":"The meter is archived.","type":"invalid_request_error"}"#.to_owned()),
        (400, r#"{"message":"Keys for idempotent requests can only be used with the same parameters they were first used with.","type":"idempotency_error"}"#.to_owned()),
        (400, format!(r#"{{"message":"{known}","type":"idempotency_error"}}"#)),
        (400, format!(r#"{{"message":"{known}"}}"#)),
        (400, format!(r#"{{"message":"Not true: {known}","type":"invalid_request_error"}}"#)),
        (404, format!(r#"{{"message":"{known}","type":"invalid_request_error"}}"#)),
        (402, r#"{"code":"duplicate_meter_event","type":"invalid_request_error"}"#.to_owned()),
    ] {
        let rejected = report(refusal(status, &error)).await;
        assert!(matches!(rejected, Error::Rejected { .. }), "{status} {error}: {rejected:?}");
        assert!(!rejected.retryable());
    }
    let error = format!(r#"{{"message":"{known}","type":"invalid_request_error"}}"#);
    assert!(matches!(report(refusal(409, &error)).await, Error::Busy { .. }));
    assert!(matches!(report(refusal(500, &error)).await, Error::ServerFault { .. }));
}

/// The report was parked for the operator, though Stripe had it.
#[tokio::test]
async fn a_400_that_is_cut_short_may_have_been_the_one_that_says_known() {
    let odd = r#"{"error":"An event already exists with identifier id1."}"#;
    for body in [r#"{"error":{"message":"An event already ex"#, odd, "", "<html>"] {
        let error = report(Script::Answer(400, vec![], body.to_owned())).await;
        assert!(
            matches!(error, Error::Malformed { .. }) && error.retryable(),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn only_a_meter_event_can_be_a_duplicate() {
    let error = r#"{"message":"An event already exists with identifier id1.","type":"invalid_request_error"}"#;
    let server = Server::start([refusal(400, error)]).await;
    let error = server.client().create_meter("id1", "id1", "k1").await.unwrap_err();
    assert!(matches!(error, Error::Rejected { .. }), "{error:?}");
}

#[tokio::test]
async fn busy_keeps_the_key() {
    let error = report(with_headers(
        429,
        &[("retry-after", "7"), ("stripe-should-retry", "true")],
        r#"{"code":"rate_limit","message":"Slow down.","type":"invalid_request_error"}"#,
    ))
    .await;
    assert!(error.retryable());
    assert_eq!(error.to_string(), "stripe is busy: 429 rate_limit [req_1]");
    assert_eq!(
        error,
        Error::Busy {
            status: 429,
            code: Some("rate_limit".to_owned()),
            retry_after: Some(Duration::from_secs(7)),
            should_retry: Some(true),
            request_id: Some("req_1".to_owned()),
        }
    );
    for status in [409, 429] {
        assert!(matches!(
            report(Script::Answer(status, vec![], String::new())).await,
            Error::Busy {
                code: None,
                retry_after: None,
                request_id: None,
                ..
            }
        ));
    }
    // Stripe's word stands above the status.
    let error = report(with_headers(400, &[("stripe-should-retry", "true")], "{}")).await;
    assert!(matches!(error, Error::Busy { status: 400, .. }), "{error:?}");
}

#[tokio::test]
async fn a_received_5xx_moves_the_key_on() {
    for status in [500, 502, 503, 504] {
        let error = report(Script::Answer(status, vec![], "<html>bad gateway</html>".to_owned())).await;
        assert!(
            matches!(
                error,
                Error::ServerFault {
                    replayed: false,
                    should_retry: None,
                    ..
                }
            ),
            "{error:?}"
        );
        assert!(error.retryable());
    }
    let error = report(with_headers(
        500,
        &[("idempotent-replayed", "true"), ("stripe-should-retry", "false")],
        r#"{"type":"api_error","message":"Sorry."}"#,
    ))
    .await;
    assert_eq!(error.to_string(), "stripe failed: 500 (replayed) [req_1]");
    assert!(matches!(
        error,
        Error::ServerFault {
            replayed: true,
            should_retry: Some(false),
            ..
        }
    ));
}

#[tokio::test]
async fn a_rejection_says_what_and_where() {
    let error = report(refusal(
        400,
        r#"{"code":"parameter_unknown","param":"foo","message":"Received unknown parameter: foo","type":"invalid_request_error"}"#,
    ))
    .await;
    assert_eq!(
        error.to_string(),
        "stripe rejected the call: 400 parameter_unknown: Received unknown parameter: foo (parameter foo) [req_1]"
    );
    // The type stands in for a code that is absent.
    let error = report(refusal(
        401,
        r#"{"message":"Invalid API Key","type":"invalid_request_error"}"#,
    ))
    .await;
    assert!(matches!(&error, Error::Rejected { status: 401, code: Some(code), .. } if code == "invalid_request_error"));
    // A refusal that is not Stripe's own is one all the same, and its body stays out of the error.
    let error = report(Script::Answer(403, vec![], "<html>private</html>".to_owned())).await;
    assert!(
        matches!(
            &error,
            Error::Rejected {
                status: 403,
                code: None,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(!format!("{error} {error:?}").contains("private"));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let error = report(Script::Answer(
        302,
        vec![("location", "http://127.0.0.1:1/")],
        String::new(),
    ))
    .await;
    assert!(matches!(error, Error::Malformed { .. }), "{error:?}");
}

#[tokio::test]
async fn what_cannot_be_sent_is_not_sent() {
    async fn invalid<T: std::fmt::Debug>(call: impl Future<Output = Result<T, Error>>) {
        let error = call.await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error:?}");
        assert!(!error.retryable());
    }
    let server = Server::start([]).await;
    let client: Client = server.client();
    for key in ["", "two words", "line\nend", "é", &"k".repeat(256)] {
        invalid(client.report_meter_event(&event(), key)).await;
    }
    let changed = |change: fn(&mut MeterEvent)| {
        let mut event = event();
        change(&mut event);
        event
    };
    for event in [
        changed(|event| event.value = 1_000_000_000_000_000),
        changed(|event| event.identifier.clear()),
        changed(|event| event.identifier = "i".repeat(101)),
    ] {
        invalid(client.report_meter_event(&event, "k1")).await;
    }
    for id in ["", "sub_1/items", "..", "sub_1?x", "sub 1"] {
        invalid(client.subscription(id)).await;
        invalid(client.event_summary(id, "cus_1", 0, 60)).await;
    }
    assert_eq!(server.requests().len(), 0);
}
