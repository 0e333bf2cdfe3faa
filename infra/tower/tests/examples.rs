//! The examples answer as their comments say.

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tower::ServiceExt;

#[path = "../examples/axum.rs"]
#[expect(dead_code, reason = "its main binds a port")]
mod server;

#[path = "../examples/lambda.rs"]
#[expect(dead_code, reason = "its main asks the Lambda runtime")]
mod function;

#[tokio::test]
async fn the_server_knows_its_caller() {
    let request = Request::get("/v1/hello")
        .header("x-farebox-customer", "acme")
        .header("x-farebox-tier", "pro")
        .header("x-farebox-limit", "100")
        .body(Body::empty())
        .unwrap();

    let response = server::app().oneshot(request).await.unwrap();

    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["x-ratelimit-limit"], "100");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "hello acme of tier pro");
}

#[tokio::test]
async fn the_function_knows_its_caller_and_believes_no_header() {
    let request = lambda_http::request::from_str(include_str!("fixtures/rest.json")).unwrap();
    let request = request.map(|_| Body::empty());
    let (mut parts, body) = request.into_parts();
    parts.uri = "/v1/hello".parse().unwrap();

    let response = function::app().oneshot(Request::from_parts(parts, body)).await.unwrap();

    assert_eq!(response.headers()["x-ratelimit-limit"], "100");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "hello acme of tier pro");
}
