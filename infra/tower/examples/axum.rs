//! An axum server behind an HTTP integration of API Gateway that maps `x-farebox-*` request headers:
//! `cargo run -p farebox-tower --example axum`, then
//! `curl -i -H 'x-farebox-customer: acme' -H 'x-farebox-tier: pro' -H 'x-farebox-limit: 100' http://127.0.0.1:3000/v1/hello`.

use axum::{Extension, Router, routing::get};
use farebox_tower::{Caller, FareboxLayer};
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    // Loopback: nobody but what runs on this machine reaches it, as the layer's promise asks for.
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    axum::serve(listener, app()).await
}

pub(crate) fn app() -> Router {
    Router::new()
        .route("/v1/hello", get(hello))
        .layer(FareboxLayer::gateway_headers())
}

async fn hello(caller: Option<Extension<Caller>>) -> String {
    match caller {
        Some(Extension(caller)) => format!("hello {} of tier {}", caller.customer(), caller.tier()),
        None => "hello".to_owned(),
    }
}
