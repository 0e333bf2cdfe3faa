//! After Stripe was gone for an hour: every customer has usage that is not reported. How many ticks, calls and seconds until
//! Stripe has all of it, at the pace that the consumer keeps with a live key.

use std::time::Instant;

use axum::body::Bytes;
use farebox_billing::Books;
use farebox_core::{tiers::Overrides, time::Timestamp};
use farebox_local::{Options, System};
use farebox_stripe::{CALLS_PER_SECOND_LIVE, Client, Config, SecretKey};
use farebox_stripe_standin::{Fault, FaultKind};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::store;

const TIERS: &str = "tiers:\n  pro: {price: 49/month, included_calls: 50000/month, rate_limit: 100/min, endpoints: [/v1/*], \
                     support: email, overage: $0.002/call}\n";
/// The schedule.
const TICK_S: u64 = 300;
/// How long Stripe is gone.
const OUTAGE_S: u64 = 3_600;
/// So soon after that everything is to be in Stripe, for each so many customers.
const BACK_WITHIN_S: u64 = 600;
const CUSTOMERS: u64 = 10_000;
/// Customers who are sold to at a time.
const SALES: usize = 16;

/// Runs it with so many customers, on the machine's clock, which jumps from tick to tick.
pub(crate) async fn run(customers: usize) -> Result<(), String> {
    let options = Options {
        tiers: TIERS.to_owned(),
        ..Options::new()
    };
    let system = System::start(options).await.map_err(|e| e.to_string())?;
    let books = paced(&system)?;
    eprintln!("selling to {customers} customers");
    for event in sell(&system, customers).await? {
        let event: Value = serde_json::from_slice(&event).map_err(|e| e.to_string())?;
        let answer = system.gateway.authorizers()[0]
            .handle(&event, system.clock().now())
            .await;
        answer.map_err(|e| e.to_string())?;
    }
    system.send_usage().await.map_err(|e| e.to_string())?;

    system.services.stand_in.misbehave(Fault {
        method: None,
        path_prefix: "/v1/".to_owned(),
        times: u32::MAX,
        kind: FaultKind::DropBeforeCommit,
    });
    let due = books.ledger.next_due().await.map_err(|e| e.to_string())?;
    move_to(&system, due.ok_or("nothing is due")?);
    println!("| | minutes after Stripe is back | rows reported | attempts without an answer | s |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    let gone = system.clock().now().s();
    while system.clock().now().s() < gone + OUTAGE_S {
        tick(&books, "gone", "–").await?;
        move_to(&system, system.clock().now().s() + 1);
    }
    system.services.stand_in.behave();
    let back = system.clock().now().s();
    let within = BACK_WITHIN_S * (customers as u64).div_ceil(CUSTOMERS).max(1);
    let mut reported = 0;
    while reported < customers {
        if system.clock().now().s() > back + within {
            return Err(format!(
                "{reported} of {customers} rows are reported {} min after Stripe was back",
                within / 60
            ));
        }
        let minutes = format!("{:.1}", (system.clock().now().s() - back) as f64 / 60.0);
        reported += tick(&books, "back", &minutes).await?;
        if reported < customers {
            move_to(&system, system.clock().now().s() + 1);
        }
    }
    let took = system.clock().now().s() - back;
    if took > within {
        return Err(format!("all of it was there after {took} s, later than {within} s"));
    }
    let in_stripe = in_stripe(&system)?;
    if in_stripe != customers as u64 {
        return Err(format!("{customers} units were admitted, Stripe has {in_stripe}"));
    }
    println!(
        "\n{customers} customers, {in_stripe} units in Stripe: difference 0. All of it was there {:.1} min after Stripe was \
         back, with at most {CALLS_PER_SECOND_LIVE} calls a second.",
        took as f64 / 60.0
    );
    Ok(())
}

/// The books as the consumer has them with a live key.
fn paced(system: &System) -> Result<Books, String> {
    let key = SecretKey::new("sk_test_local").map_err(|e| e.to_string())?;
    let config = Config {
        base_url: format!("http://{}", system.services.addresses[2]),
        calls_per_second: Some(CALLS_PER_SECOND_LIVE),
        ..Config::new(key).paced()
    };
    Ok(Books {
        stripe: Client::new(config).map_err(|e| e.to_string())?,
        ..system.books.clone()
    })
}

async fn sell(system: &std::sync::Arc<System>, customers: usize) -> Result<Vec<Bytes>, String> {
    let mut selling = JoinSet::new();
    let mut events = Vec::with_capacity(customers);
    for n in 0..customers {
        if selling.len() >= SALES {
            events.extend(sold(selling.join_next().await)?);
        }
        let system = system.clone();
        selling.spawn(async move {
            let sold = system.sell(&format!("customer{n}"), "pro", Overrides::default()).await;
            store::event(&sold.map_err(|e| e.to_string())?.key)
        });
    }
    while let Some(ended) = selling.join_next().await {
        events.extend(sold(Some(ended))?);
    }
    Ok(events)
}

fn sold(ended: Option<Result<Result<Bytes, String>, tokio::task::JoinError>>) -> Result<Option<Bytes>, String> {
    ended.transpose().map_err(|e| e.to_string())?.transpose()
}

/// One tick of the schedule; returns how many rows it reported.
async fn tick(books: &Books, stripe: &str, minutes: &str) -> Result<usize, String> {
    let began = Instant::now();
    let report = books.tick().await.map_err(|e| e.to_string())?;
    println!(
        "| {stripe} | {minutes} | {} | {} | {:.0} |",
        report.reported,
        report.retried,
        began.elapsed().as_secs_f64()
    );
    usize::try_from(report.reported).map_err(|e| e.to_string())
}

/// To the first tick from a second on.
fn move_to(system: &System, second: u64) {
    system.clock().set(Timestamp::from_s(second.div_ceil(TICK_S) * TICK_S));
}

/// The units of all customers and meters.
fn in_stripe(system: &System) -> Result<u64, String> {
    let snapshot = system.services.stand_in.snapshot();
    let customers = snapshot["customers"].as_array().ok_or("no customers")?;
    let totals = customers
        .iter()
        .flat_map(|customer| customer["meters"].as_object())
        .flatten();
    totals
        .map(|(_, total)| {
            total
                .as_u64()
                .or_else(|| total.as_str()?.parse().ok())
                .ok_or(format!("{total} units"))
        })
        .sum()
}
