//! The demo: four days of real traffic through the gateway, then the end of the billing period, then the audit.

use std::{
    collections::{BTreeMap, HashMap},
    io::Read,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use farebox_aws::counters;
use farebox_core::{
    admission::quota_attribute,
    ledger::Row,
    tiers::{DEFAULT_METER, Overrides, Terms},
    time::Timestamp,
};
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde::Serialize;

use crate::{Error, Options, Sold, System, VirtualClock};

/// The tiers of the demo.
pub const DEMO_TIERS: &str = include_str!("../demo.tiers.yaml");
const LOG: &[u8] = include_bytes!("../apache_access.log.gz");
/// So many of the busiest addresses become customers.
const CUSTOMERS: usize = 60;
/// Authorizer environments that serve in turn, each with a memory of its own.
const ENVIRONMENTS: usize = 3;
/// 2015-05-17T10:00:00Z: five minutes before the first request.
const START_S: u64 = 1_431_856_800;
/// Draft invoices wait an hour; another for the schedule.
const AFTER_CLOSE_S: u64 = 2 * 3_600;

/// How far the demo is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Requests sent.
    pub done: usize,
    /// Requests in all.
    pub total: usize,
}

/// One customer's month.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CustomerResult {
    /// The customer, or `total`.
    pub customer: String,
    /// Its tier, or `all`.
    pub tier: String,
    /// Requests that it sent.
    pub requests: u64,
    /// Requests that were admitted.
    pub admitted: u64,
    /// Requests that were denied, by the `code` of the answer.
    pub denied: BTreeMap<String, u64>,
    /// Units on the counter.
    pub counted_units: u64,
    /// Units in the ledger.
    pub ledger_units: u64,
    /// Units that Stripe summed up.
    pub stripe_units: u64,
    /// What the invoice of the period says, in the smallest unit of the currency.
    pub invoice_total_cents: i64,
    /// The sum of all differences: what callers were told against the counter, the counter against the ledger, the ledger
    /// against Stripe, and the price of the counted units against the invoice. 0, or something is wrong.
    pub difference: u64,
}

/// What the demo found.
#[derive(Clone, Debug, Serialize)]
pub struct DemoReport {
    /// Every customer.
    pub customers: Vec<CustomerResult>,
    /// The sums.
    pub totals: CustomerResult,
    /// Meter events that Stripe took.
    pub stripe_meter_events: u64,
    /// Conditional writes to counter items for each request.
    pub table_writes_per_decision: f64,
    /// How long it took.
    pub seconds: f64,
}

struct LogLine {
    at: u64,
    address: String,
    method: String,
    target: String,
}

struct Seller {
    sold: Sold,
    terms: Terms,
    result: CustomerResult,
    admitted_units: u64,
}

/// Runs the demo.
///
/// # Errors
/// [`Error`] if a part of the system fails. A difference is no error: it is in the report.
pub async fn replay(mut progress: impl FnMut(Progress)) -> Result<DemoReport, Error> {
    let began = Instant::now();
    let lines = traffic()?;
    let system = System::start(Options {
        tiers: DEMO_TIERS.to_owned(),
        clock: VirtualClock::standing(Timestamp::from_s(START_S)),
        environments: ENVIRONMENTS,
        ..Options::new()
    })
    .await?;
    let mut sellers = sell_to_busiest(&system, &lines).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .map_err(Error::io("listen"))?;
    let address = listener.local_addr().map_err(Error::io("listen"))?;
    let router = system.gateway.router(system.clone());
    let server = tokio::spawn(async move { axum::serve(listener, router).await });

    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<hyper::body::Bytes>>();
    let total = lines.iter().filter(|line| sellers.contains_key(&line.address)).count();
    let mut done = 0;
    for line in &lines {
        let Some(seller) = sellers.get_mut(&line.address) else {
            continue;
        };
        let now = Timestamp::from_s(line.at);
        if now.s() / 300 > system.clock().now().s() / 300 {
            system.run_until(now).await?;
        }
        system.clock().set(now);
        let request = axum::http::Request::builder()
            .method(line.method.as_str())
            .uri(format!("http://{address}{}", line.target))
            .header("x-api-key", &seller.sold.key)
            .body(Empty::new())
            .map_err(Error::refused)?;
        let response = client.request(request).await.map_err(Error::refused)?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(Error::refused)?.to_bytes();
        seller.result.requests += 1;
        if head.status.is_success() {
            seller.result.admitted += 1;
            let cost = head
                .headers
                .get("x-farebox-cost")
                .and_then(|cost| cost.to_str().ok()?.parse().ok());
            seller.admitted_units += cost.unwrap_or(1);
        } else {
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            let code = body["code"]
                .as_str()
                .map_or_else(|| head.status.as_str().to_owned(), str::to_owned);
            *seller.result.denied.entry(code).or_insert(0) += 1;
        }
        done += 1;
        progress(Progress { done, total });
    }

    let end = sellers
        .values()
        .map(|seller| seller.sold.customer.cycle.current.end)
        .max()
        .unwrap_or(START_S);
    system.run_until(Timestamp::from_s(end + AFTER_CLOSE_S)).await?;
    let (rows, _) = system.control.ledger.scan().await?;
    let mut customers = Vec::new();
    for (_, seller) in sellers {
        customers.push(audit(&system, seller, &rows).await?);
    }
    customers.sort_by(|a, b| a.customer.cmp(&b.customer));
    let all = CustomerResult {
        customer: "total".to_owned(),
        tier: "all".to_owned(),
        ..CustomerResult::default()
    };
    let totals = customers.iter().fold(all, sum);
    server.abort();
    let metrics = |read: fn(&farebox_authorizer::Metrics) -> u64| -> u64 {
        system
            .gateway
            .authorizers()
            .iter()
            .map(|authorizer| read(authorizer.metrics()))
            .sum()
    };
    let writes = metrics(|metrics| metrics.writes.load(Relaxed));
    let decisions = metrics(|metrics| metrics.decisions.load(Relaxed));
    Ok(DemoReport {
        customers,
        totals,
        stripe_meter_events: system.services.stand_in.snapshot()["meter_events"]["accepted"]
            .as_u64()
            .unwrap_or(0),
        table_writes_per_decision: round(writes as f64 / decisions.max(1) as f64),
        seconds: round(began.elapsed().as_secs_f64()),
    })
}

/// Figures for people: four places.
fn round(n: f64) -> f64 {
    (n * 10_000.0).round() / 10_000.0
}

/// The log in the order of time.
fn traffic() -> Result<Vec<LogLine>, Error> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(LOG)
        .read_to_string(&mut text)
        .map_err(Error::io("unpack the access log"))?;
    let mut lines: Vec<LogLine> = text.lines().filter_map(parse_line).collect();
    lines.sort_by_key(|line| line.at);
    Ok(lines)
}

/// `address - - [17/May/2015:10:05:03 +0000] "GET /path HTTP/1.1" …`
fn parse_line(line: &str) -> Option<LogLine> {
    let (address, rest) = line.split_once(' ')?;
    let (_, rest) = rest.split_once('[')?;
    let (time, rest) = rest.split_once(']')?;
    let (_, rest) = rest.split_once('"')?;
    let mut request = rest.split_once('"')?.0.split(' ');
    let at = chrono::DateTime::parse_from_str(time, "%d/%b/%Y:%H:%M:%S %z")
        .ok()?
        .timestamp();
    let (method, target) = (request.next()?.to_owned(), request.next()?.to_owned());
    Some(LogLine {
        at: u64::try_from(at).ok()?,
        address: address.to_owned(),
        method,
        target,
    })
}

/// Each of the busiest addresses buys a tier, in turn over all of them.
async fn sell_to_busiest(system: &Arc<System>, lines: &[LogLine]) -> Result<BTreeMap<String, Seller>, Error> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for line in lines {
        *counts.entry(&line.address).or_insert(0) += 1;
    }
    let mut busiest: Vec<(&str, usize)> = counts.into_iter().collect();
    busiest.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let mut sellers = BTreeMap::new();
    let tiers = &system.catalog.1.tiers;
    for ((address, _), tier) in busiest.into_iter().take(CUSTOMERS).zip(tiers.iter().cycle()) {
        let sold = system.sell(address, &tier.name, Overrides::default()).await?;
        let terms = system.control.terms(&sold.customer, system.clock().now()).await?;
        let result = CustomerResult {
            customer: address.to_owned(),
            tier: tier.name.clone(),
            ..CustomerResult::default()
        };
        sellers.insert(
            address.to_owned(),
            Seller {
                sold,
                terms,
                result,
                admitted_units: 0,
            },
        );
    }
    Ok(sellers)
}

/// Compares what the caller saw, the counter, the ledger, Stripe's sum and the invoice of one customer.
async fn audit(system: &System, seller: Seller, rows: &[Row]) -> Result<CustomerResult, Error> {
    let Seller {
        sold,
        terms,
        mut result,
        admitted_units,
    } = seller;
    let customer = &sold.customer;
    let period = customer.cycle.current;
    let plan = &customer.phase_at(period.start).plan;
    let stripe = &system.services.stripe;
    for shard in 0..terms.shards {
        let item = system
            .control
            .counters
            .read(&counters::key(&customer.id, shard))
            .await?;
        let name = quota_attribute(period.start, DEFAULT_METER, plan);
        result.counted_units += item.map_or(0, |item| item.units_of(&name));
    }
    let own = rows
        .iter()
        .filter(|row| row.key.customer == customer.id && period.contains(row.key.bucket));
    result.ledger_units = own.map(|row| row.units).sum();

    let in_stripe = customer.stripe_customer.as_deref().unwrap_or_default();
    if let Some(meter) = stripe.find_meter(&plan.event_name(DEFAULT_METER)).await? {
        let second = |s: u64| i64::try_from(s).unwrap_or(i64::MAX);
        result.stripe_units = stripe
            .event_summary(&meter.id, in_stripe, second(period.start), second(period.end))
            .await?;
    }
    let invoices = stripe.invoices(in_stripe).await?;
    let closing = invoices.iter().find(|invoice| {
        invoice.billing_reason.as_deref() == Some("subscription_cycle") && invoice.status.as_deref() == Some("paid")
    });
    result.invoice_total_cents = closing.map_or(0, |invoice| invoice.total);

    let usage = terms
        .usage_amount(DEFAULT_METER, result.counted_units)
        .map_err(|_| Error::refused("amount overflows"))?;
    let expected = i64::try_from(usage.0 + terms.price.amount.0).map_err(Error::refused)?;
    let missing_invoice = u64::from(closing.is_none());
    result.difference = admitted_units.abs_diff(result.counted_units)
        + result.counted_units.abs_diff(result.ledger_units)
        + result.ledger_units.abs_diff(result.stripe_units)
        + expected.abs_diff(result.invoice_total_cents)
        + missing_invoice;
    Ok(result)
}

fn sum(mut total: CustomerResult, one: &CustomerResult) -> CustomerResult {
    total.requests += one.requests;
    total.admitted += one.admitted;
    for (code, count) in &one.denied {
        *total.denied.entry(code.clone()).or_insert(0) += count;
    }
    total.counted_units += one.counted_units;
    total.ledger_units += one.ledger_units;
    total.stripe_units += one.stripe_units;
    total.invoice_total_cents += one.invoice_total_cents;
    total.difference += one.difference;
    total
}
