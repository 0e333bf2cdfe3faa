//! What the scenarios share: a running system, a customer on given tiers, and calls as a gateway makes them.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use farebox_authorizer::Authorizer;
use farebox_core::{
    account::Customer,
    admission::quota_attribute,
    tiers::{DEFAULT_METER, Overrides},
    time::Timestamp,
};
use farebox_local::{Options, Sold, System, VirtualClock};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// 2026-01-31T10:00:00Z: a month end, so that periods clamp.
pub const START_S: u64 = 1_769_853_600;

/// A running system on a standing clock.
pub async fn system(tiers: &str, environments: usize) -> Arc<System> {
    let clock = VirtualClock::standing(Timestamp::from_s(START_S));
    let options = Options {
        tiers: tiers.to_owned(),
        clock,
        environments,
        ..Options::new()
    };
    System::start(options).await.expect("the local system starts")
}

/// Sells a tier to `acme`.
pub async fn sell(system: &System, tier: &str) -> Sold {
    system
        .sell("acme", tier, Overrides::default())
        .await
        .expect("the tier is sold")
}

/// How a call was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Let through.
    Admitted,
    /// Refused with this code, to be retried after so many seconds.
    Denied(String, u64),
    /// The exact error that API Gateway turns into 401.
    Unauthorized,
}

/// The event of a REST API.
#[must_use]
pub fn event(key: &str, path: &str) -> Value {
    json!({
        "type": "REQUEST", "methodArn": "arn:aws:execute-api:eu-central-1:123456789012:a/live/GET/x",
        "httpMethod": "GET", "path": path, "headers": { "X-Api-Key": key }, "requestContext": { "stage": "live" },
    })
}

/// One call through an authorizer environment at the clock's time.
pub async fn call(system: &System, authorizer: &Authorizer, key: &str, path: &str) -> Answer {
    let Ok(response) = authorizer.handle(&event(key, path), system.clock().now()).await else {
        return Answer::Unauthorized;
    };
    let response = serde_json::to_value(response).expect("an answer is JSON");
    if response["policyDocument"]["Statement"][0]["Effect"] == "Allow" && response.get("usageIdentifierKey").is_none() {
        return Answer::Admitted;
    }
    let text = |name: &str| response["context"][name].as_str().unwrap_or_default().to_owned();
    Answer::Denied(text("code"), text("retry_after").parse().unwrap_or(0))
}

/// A request to the stand-in for Stripe that the client has no call for: status and answer.
pub async fn stripe(system: &System, method: &str, path: &str, form: &str) -> (u16, String) {
    let address = system.services.addresses[2];
    let mut socket = TcpStream::connect(address).await.expect("connected");
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer sk_test_local\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{form}",
        form.len()
    );
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("answered");
    let status = answer
        .get(9..12)
        .and_then(|status| status.parse().ok())
        .expect("a status");
    (status, answer)
}

/// One environment of the system.
#[must_use]
pub fn environment(system: &System, n: usize) -> Arc<Authorizer> {
    system.gateway.authorizers()[n].clone()
}

/// Conditional writes that all environments made.
#[must_use]
pub fn writes(system: &System) -> u64 {
    system
        .gateway
        .authorizers()
        .iter()
        .map(|authorizer| authorizer.metrics().writes.load(Relaxed))
        .sum()
}

/// Table calls, reads and writes, that all environments made.
#[must_use]
pub fn table_calls(system: &System) -> u64 {
    let reads: u64 = system
        .gateway
        .authorizers()
        .iter()
        .map(|a| a.metrics().reads.load(Relaxed))
        .sum();
    reads + writes(system)
}

/// The counter's units of a customer's first period.
pub async fn counted(system: &System, sold: &Sold) -> u64 {
    let period = sold.customer.cycle.current;
    let item = system
        .control
        .counters
        .read(&format!("{}#0", sold.customer.id))
        .await
        .expect("the counter is readable");
    let plan = &sold.customer.phase_at(period.start).plan;
    item.map_or(0, |item| {
        item.units_of(&quota_attribute(period.start, DEFAULT_METER, plan))
    })
}

/// The counter's, the ledger's and Stripe's units of a customer's first period.
pub async fn units(system: &System, sold: &Sold) -> (u64, u64, u64) {
    let period = sold.customer.cycle.current;
    let (rows, _) = system.control.ledger.scan().await.expect("the ledger is readable");
    let of = |row: &&farebox_core::ledger::Row| row.key.customer == sold.customer.id && period.contains(row.key.bucket);
    let ledger = rows.iter().filter(of).map(|row| row.units).sum();
    let stripe = &system.services.stripe;
    let meter = stripe
        .find_meter(&sold.customer.phase_at(period.start).plan.event_name(DEFAULT_METER))
        .await
        .expect("stripe answers")
        .expect("the meter exists");
    let customer = sold
        .customer
        .stripe_customer
        .as_deref()
        .expect("the customer is in Stripe");
    let end = system.clock().now().s() / 60 * 60;
    let in_stripe = stripe
        .event_summary(&meter.id, customer, period.start as i64, end as i64)
        .await;
    (counted(system, sold).await, ledger, in_stripe.expect("stripe answers"))
}

/// Every item of a table as it lies there, sorted.
///
/// # Panics
/// If the table can't be read.
pub async fn items(system: &System, table: &str) -> Vec<String> {
    let scan = system.services.clients.dynamodb.scan().table_name(table);
    let items = scan
        .into_paginator()
        .items()
        .send()
        .collect::<Result<Vec<_>, _>>()
        .await;
    let items = items.expect("the table is readable").into_iter();
    let mut items: Vec<String> = items
        .map(|item| format!("{:?}", item.into_iter().collect::<BTreeMap<_, _>>()))
        .collect();
    items.sort_unstable();
    items
}

/// Whatever the tables, the outbox and Stripe hold in which a customer is named. Where two of these are equal, nothing of the
/// customer changed.
///
/// # Panics
/// If a table can't be read.
pub async fn held(system: &System, customer: &Customer) -> Vec<String> {
    let tables = system.tables();
    let mut all = Vec::new();
    for table in [&tables.accounts, &tables.counters, &tables.ledger] {
        all.extend(items(system, table).await);
    }
    all.extend(
        system
            .services
            .outbox
            .entries()
            .iter()
            .map(|entry| format!("{entry:?}")),
    );
    let in_stripe = system.services.stand_in.snapshot();
    for kind in ["customers", "subscriptions", "invoices"] {
        let entries = in_stripe[kind].as_array().cloned().unwrap_or_default();
        all.extend(entries.iter().map(Value::to_string));
    }
    let names = [
        Some(customer.id.as_str()),
        customer.stripe_customer.as_deref(),
        customer.stripe_subscription.as_deref(),
    ];
    all.retain(|text| names.into_iter().flatten().any(|name| text.contains(name)));
    all
}
