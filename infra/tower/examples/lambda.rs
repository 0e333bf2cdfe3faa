//! The same as a Lambda function behind a REST or an HTTP API, proxy integration. `cargo lambda watch` runs it locally.

use axum::{Extension, Router, routing::get};
use farebox_tower::{Caller, FareboxLayer};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    lambda_http::run(app()).await
}

pub(crate) fn app() -> Router {
    Router::new()
        .route("/v1/hello", get(hello))
        .layer(FareboxLayer::lambda())
}

async fn hello(caller: Option<Extension<Caller>>) -> String {
    match caller {
        Some(Extension(caller)) => format!("hello {} of tier {}", caller.customer(), caller.tier()),
        None => "hello".to_owned(),
    }
}
