//! Serves the stand-in on a port, with a clock that requests move.
//!
//! `cargo run -p farebox-stripe-standin --example serve -- [port] [journal]`
//!
//! `POST /_standin/clock` with `at=<unix seconds>` or `by=<seconds>` moves the clock and settles; `GET /_standin/clock` reads it;
//! `GET /_standin/snapshot` shows the totals. The clock begins at 2027-01-31T10:17:23Z.

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
use farebox_stripe_standin::{Options, StandIn};
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
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    announce(&format!("http://{}", listener.local_addr()?));
    let router = standin.router().merge(controls(&standin, &clock));
    axum::serve(listener, router).await?;
    Ok(())
}

fn controls(standin: &StandIn, clock: &Arc<AtomicI64>) -> Router {
    let shown = Arc::clone(clock);
    let moved = Arc::clone(clock);
    let (settling, shown_standin) = (standin.clone(), standin.clone());
    let set = move |form: String| async move {
        let number = |name: &str| {
            form.split('&').find_map(|pair| {
                pair.strip_prefix(name)?
                    .strip_prefix('=')?
                    .parse::<i64>()
                    .ok()
            })
        };
        match (number("at"), number("by")) {
            (Some(at), _) => moved.store(at, Ordering::SeqCst),
            (None, Some(by)) => {
                moved.fetch_add(by, Ordering::SeqCst);
            }
            (None, None) => return (StatusCode::BAD_REQUEST, "at or by, in seconds".to_owned()),
        }
        settling.settle();
        (StatusCode::OK, moved.load(Ordering::SeqCst).to_string())
    };
    Router::new()
        .route("/_standin/clock", post(set))
        .route(
            "/_standin/clock",
            get(move || async move { shown.load(Ordering::SeqCst).to_string() }),
        )
        .route(
            "/_standin/snapshot",
            get(move || async move { shown_standin.snapshot().to_string() }),
        )
}

#[expect(
    clippy::print_stdout,
    reason = "the caller reads the address from here"
)]
fn announce(address: &str) {
    println!("{address}");
}
