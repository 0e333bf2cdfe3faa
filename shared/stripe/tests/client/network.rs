//! The network at its worst, and the pool at its best.

use std::time::{Duration, Instant};

use farebox_stripe::{Client, Config, Error};
use tokio::net::TcpListener;

use crate::requests::event;
use crate::server::{Script, Server, config, ok};

const TAKEN: &str = r#"{"identifier":"id1"}"#;

fn impatient(url: &str) -> Client {
    Client::new(Config {
        call_timeout: Duration::from_millis(200),
        ..config(url)
    })
    .unwrap()
}

#[tokio::test]
async fn a_refused_connection_sent_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = Client::new(config(&url))
        .unwrap()
        .report_meter_event(&event(), "k1")
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unreachable { sent: false, .. }), "{error:?}");
    assert!(
        error
            .to_string()
            .starts_with("stripe was not reached (nothing sent): client error (Connect): tcp connect error")
    );
    assert!(error.retryable());
}

#[tokio::test]
async fn a_failed_tls_handshake_sent_nothing() {
    // A plain HTTP server is no TLS server.
    let server = Server::start([]).await;
    let url = server.url.replace("http://", "https://");
    let error = Client::new(config(&url))
        .unwrap()
        .report_meter_event(&event(), "k1")
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unreachable { sent: false, .. }), "{error:?}");
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn a_closed_connection_leaves_the_outcome_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // Reads the request and hangs up.
        tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 4_096])
            .await
            .unwrap();
    });
    let error = Client::new(config(&url))
        .unwrap()
        .report_meter_event(&event(), "k1")
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unreachable { sent: true, .. }), "{error:?}");
}

#[tokio::test]
async fn an_answer_held_back_times_out_with_the_outcome_unknown() {
    for script in [Script::Hold, Script::Stall(200), Script::Stall(400)] {
        let server = Server::start([script]).await;
        let begun = Instant::now();
        let error = impatient(&server.url)
            .report_meter_event(&event(), "k1")
            .await
            .unwrap_err();
        assert_eq!(
            error,
            Error::Unreachable {
                sent: true,
                cause: "timed out".to_owned()
            }
        );
        assert!(begun.elapsed() < Duration::from_secs(2));
        assert_eq!(server.requests().len(), 1, "asked again on its own");
    }
}

#[tokio::test]
async fn a_body_cut_short_leaves_the_outcome_unknown() {
    // Even a 400: it may be the one that means delivered.
    for status in [200, 400] {
        let server = Server::start([Script::Cut(status)]).await;
        let error = server.client().report_meter_event(&event(), "k1").await.unwrap_err();
        assert!(
            matches!(error, Error::Unreachable { sent: true, .. }),
            "{status}: {error:?}"
        );
    }
}

#[tokio::test]
async fn a_received_5xx_or_429_counts_however_its_body_ends() {
    for script in [Script::Cut, Script::Stall] {
        let server = Server::start([script(500), script(429)]).await;
        let client = impatient(&server.url);
        let error = client.report_meter_event(&event(), "k1").await.unwrap_err();
        assert!(
            matches!(
                &error,
                Error::ServerFault {
                    status: 500,
                    request_id: Some(_),
                    ..
                }
            ),
            "{error:?}"
        );
        let error = client.report_meter_event(&event(), "k1").await.unwrap_err();
        assert!(matches!(error, Error::Busy { status: 429, .. }), "{error:?}");
    }
}

#[tokio::test]
async fn an_oversize_answer_is_not_read() {
    let big = format!(r#"{{"identifier":"id1","x":"{}"}}"#, "x".repeat(70_000));
    for (status, of) in [
        (200, "malformed"),
        (400, "malformed"),
        (403, "rejected"),
        (500, "fault"),
    ] {
        let server = Server::start([Script::Answer(status, vec![], big.clone())]).await;
        let error = server.client().report_meter_event(&event(), "k1").await.unwrap_err();
        let is = match error {
            Error::Malformed { .. } => "malformed",
            Error::Rejected { .. } => "rejected",
            Error::ServerFault { .. } => "fault",
            _ => "something else",
        };
        assert_eq!(is, of);
    }
}

#[tokio::test]
async fn calls_share_one_connection() {
    let rejected = || Script::Answer(400, vec![], r#"{"error":{}}"#.to_owned());
    let server = Server::start([ok(TAKEN), rejected(), ok(TAKEN), ok(TAKEN)]).await;
    let client = server.client();
    client.report_meter_event(&event(), "k1").await.unwrap();
    client.report_meter_event(&event(), "k2").await.unwrap_err();
    client.clone().report_meter_event(&event(), "k3").await.unwrap();
    client.report_meter_event(&event(), "k4").await.unwrap();
    assert_eq!((server.requests().len(), server.connections()), (4, 1));
}

#[tokio::test]
async fn a_connection_that_idled_too_long_is_replaced() {
    let server = Server::start([ok(TAKEN), ok(TAKEN)]).await;
    let client = Client::new(Config {
        idle_timeout: Duration::from_millis(50),
        ..config(&server.url)
    })
    .unwrap();
    client.report_meter_event(&event(), "k1").await.unwrap();
    tokio::time::sleep(Duration::from_millis(150)).await;
    client.report_meter_event(&event(), "k2").await.unwrap();
    assert_eq!(server.connections(), 2);
}
