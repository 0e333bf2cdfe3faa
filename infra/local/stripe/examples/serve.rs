//! Serves the stand-in on a port, and a clock that requests move on the next one.
//!
//! `cargo run -p farebox-stripe-standin --example serve -- [port] [journal]`
//!
//! It prints both addresses, a line each. On the second, `POST /_standin/clock` with `at=<unix seconds>` or `by=<seconds>` moves
//! the clock and settles, `GET /_standin/clock` reads it, `GET /_standin/snapshot` shows the totals,
//! `POST /_standin/finalization_failure` makes the next finalization of an invoice fail, and `POST /_standin/fault` with
//! `<kind>=<path>` lets a fault befall the next POST to a path: `drop` (after it was done), `rate_limit`, or `delay` (by two
//! seconds). The clock begins at 2027-01-31T10:17:23Z. Port 0 chooses free ports.

use std::{
    error::Error,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use axum::{
    Router,
    http::StatusCode,
    routing::{get, post},
};
use farebox_stripe_standin::{Fault, FaultKind, Options, StandIn};
use tokio::net::TcpListener;

const BEGINNING: i64 = 1_801_390_643;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().map_or(Ok(12111), |port| port.parse())?;
    let clock = Arc::new(AtomicI64::new(BEGINNING));
    let reading = Arc::clone(&clock);
    let standin = StandIn::open(Options {
        journal: arguments.next().map(PathBuf::from),
        ..Options::new(Arc::new(move || reading.load(Ordering::SeqCst)))
    })?;
    let api = TcpListener::bind(("127.0.0.1", port)).await?;
    let controls_port = if port == 0 { 0 } else { port + 1 };
    let controls = TcpListener::bind(("127.0.0.1", controls_port)).await?;
    announce(&format!("http://{}", api.local_addr()?));
    announce(&format!("http://{}", controls.local_addr()?));
    let router = controls_router(&standin, &clock);
    tokio::select! {
        served = standin.serve(api, std::future::pending::<()>()) => served?,
        served = axum::serve(controls, router) => served?,
    }
    Ok(())
}

fn controls_router(standin: &StandIn, clock: &Arc<AtomicI64>) -> Router {
    let (shown, moved) = (Arc::clone(clock), Arc::clone(clock));
    let (settling, counting, misbehaving) = (standin.clone(), standin.clone(), standin.clone());
    let failing = standin.clone();
    let set = async move |form: String| {
        match form
            .split_once('=')
            .map(|(name, seconds)| (name, seconds.parse::<i64>()))
        {
            Some(("at", Ok(at))) => moved.store(at, Ordering::SeqCst),
            Some(("by", Ok(by))) => {
                moved.fetch_add(by, Ordering::SeqCst);
            }
            _ => return (StatusCode::BAD_REQUEST, "at or by, in seconds".to_owned()),
        }
        settling.settle();
        (StatusCode::OK, moved.load(Ordering::SeqCst).to_string())
    };
    let fail_next = async move |form: String| {
        let (kind, path) = form.split_once('=').unwrap_or_default();
        let kind = match kind {
            "drop" => FaultKind::DropAfterCommit,
            "rate_limit" => FaultKind::RateLimited429,
            "delay" => FaultKind::Delay(2_000),
            _ => return StatusCode::BAD_REQUEST,
        };
        misbehaving.misbehave(Fault {
            method: Some("POST".to_owned()),
            path_prefix: path.to_owned(),
            times: 1,
            kind,
        });
        StatusCode::OK
    };
    Router::new()
        .route("/_standin/clock", post(set))
        .route(
            "/_standin/clock",
            get(async move || shown.load(Ordering::SeqCst).to_string()),
        )
        .route("/_standin/snapshot", get(async move || counting.snapshot().to_string()))
        .route("/_standin/fault", post(fail_next))
        .route(
            "/_standin/finalization_failure",
            post(async move || failing.fail_next_finalizations(1)),
        )
}

#[expect(clippy::print_stdout, reason = "the caller reads the addresses from here")]
fn announce(address: &str) {
    println!("{address}");
}
