//! Secrets by ARN, over Secrets Manager's wire protocol.

use std::net::SocketAddr;

use axum::{Json, Router, http::StatusCode, response::IntoResponse, routing::post};
use farebox_aws::{
    connect::Settings,
    secrets::{Environment, Wanted},
};
use serde_json::{Value, json};

const ARN: &str = "arn:aws:secretsmanager:us-east-1:123456789012:secret:farebox-AbCdEf";
const NEW: &str = "arn:aws:secretsmanager:us-east-1:123456789012:secret:new-AbCdEf";

/// Two versions of one secret, one of another, none of any other.
async fn get_secret_value(body: String) -> axum::response::Response {
    let asked: Value = serde_json::from_str(&body).expect("JSON 1.1");
    let (arn, stage) = (
        asked["SecretId"].as_str().unwrap_or_default(),
        asked["VersionStage"].as_str(),
    );
    let value = match (arn, stage) {
        (ARN, Some("AWSCURRENT")) => "whsec_new\n",
        (ARN, Some("AWSPREVIOUS")) => "whsec_old",
        (NEW, Some("AWSCURRENT")) => "whsec_first",
        _ => {
            let error = json!({ "__type": "ResourceNotFoundException", "message": "no such version" });
            return (StatusCode::BAD_REQUEST, Json(error)).into_response();
        }
    };
    Json(json!({ "ARN": arn, "Name": "farebox", "SecretString": value })).into_response()
}

async fn fetch(
    values: &[(&'static str, &str)],
    wanted: &[Wanted],
    endpoint: Option<String>,
) -> Result<Environment, String> {
    let settings = Settings {
        region: "us-east-1".to_owned(),
        credentials: aws_sdk_dynamodb::config::Credentials::new("local", "local", None, None, "local"),
        dynamodb_endpoint: None,
        sqs_endpoint: None,
    };
    let read = |name: &str| {
        values
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| (*value).to_owned())
    };
    Environment::fetch_from(&settings, endpoint, read, wanted).await
}

async fn server() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let router = Router::new().route("/", post(get_secret_value));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

#[tokio::test]
async fn two_live_versions_are_taken_and_one_where_there_is_only_one() {
    let endpoint = Some(format!("http://{}", server().await));
    let wanted = [Wanted::WithPrevious("A"), Wanted::WithPrevious("B"), Wanted::One("C")];
    let environment = fetch(&[("A", ARN), ("B", NEW), ("C", ARN)], &wanted, endpoint)
        .await
        .expect("fetched");
    assert_eq!(environment.read("A").as_deref(), Some("whsec_new,whsec_old"));
    assert_eq!(environment.read("B").as_deref(), Some("whsec_first"));
    assert_eq!(environment.read("C").as_deref(), Some("whsec_new"));
}

#[tokio::test]
async fn a_missing_secret_is_named_and_so_is_a_manager_that_does_not_answer() {
    let endpoint = Some(format!("http://{}", server().await));
    let other = ARN.replace("farebox", "other");
    let missing = fetch(&[("A", &other)], &[Wanted::One("A")], endpoint).await.err();
    let missing = missing.expect("it is missing");
    assert!(
        missing.contains("A: the secret") && missing.contains("ResourceNotFoundException"),
        "{missing}"
    );

    // A port that nobody listens on.
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port")
        .local_addr()
        .expect("an address");
    let silent = fetch(&[("A", ARN)], &[Wanted::One("A")], Some(format!("http://{closed}")))
        .await
        .err();
    assert!(
        silent
            .expect("nobody answers")
            .contains("A: Secrets Manager does not answer")
    );
}

#[tokio::test]
async fn a_value_that_is_no_arn_stands_as_it_is() {
    let nobody = Some("http://127.0.0.1:1".to_owned());
    fetch(&[("A", "sk_test_1")], &[Wanted::One("A"), Wanted::One("B")], nobody)
        .await
        .expect("nobody is asked");
}
