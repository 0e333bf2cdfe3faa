//! The demo: four days of real traffic through the gateway, with two customers changing their tier on the way; then the end of
//! the billing period, which one customer pays late; then the audit.

use std::{
    collections::{BTreeMap, HashMap},
    io::Read,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use farebox_aws::counters;
use farebox_billing::{Offer, When};
use farebox_core::{
    account::Standing,
    admission::quota_attribute,
    id::CustomerId,
    ledger::Row,
    money::Money,
    tiers::{DEFAULT_METER, Overrides},
    time::Timestamp,
};
use farebox_stripe::CustomerUpdate;
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
/// 2015-05-18T12:34:56Z: in the middle of an hour, so that its bucket is cut.
const UPGRADE_S: u64 = 1_431_952_496;
/// The busiest customers of these tiers upgrade to the others.
const UPGRADES: [(&str, &str); 2] = [("free", "pro"), ("pro", "scale")];
/// The second busiest customer of this tier has a card that fails, and pays a day later.
const LATE_TIER: &str = "business";
const LATE_S: u64 = 24 * 3_600;

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

/// A mail or call that left the system.
#[derive(Clone, Debug, Serialize)]
pub struct SentAlert {
    /// When, unix seconds.
    pub at: u64,
    /// The same for people: `2015-05-18 12:34`, UTC.
    pub time: String,
    /// `email`, `webhook` or `operator`.
    pub channel: String,
    /// Who it went to.
    pub to: String,
    /// What it says, in a line.
    pub subject: String,
}

/// What the demo found.
#[derive(Clone, Debug, Serialize)]
pub struct DemoReport {
    /// What happened besides the traffic, a sentence each.
    pub stories: Vec<String>,
    /// The alerts that were sent, oldest first.
    pub alerts: Vec<SentAlert>,
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
    let mut stories = Vec::new();
    let late = busiest_of(&lines, &sellers, LATE_TIER, 1);
    fail_card(&system, &sellers[&late].sold, true).await?;
    for line in &lines {
        if line.at >= UPGRADE_S && stories.is_empty() {
            for (from, to) in UPGRADES {
                let customer = busiest_of(&lines, &sellers, from, 0);
                stories.push(upgrade(&system, &customer, from, to).await?);
            }
        }
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
    stories.push(pay_late(&system, &sellers[&late].sold, end + AFTER_CLOSE_S + LATE_S).await?);
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
    let entries = system.services.outbox.entries().into_iter();
    let mut alerts: Vec<SentAlert> = entries
        .map(|entry| SentAlert {
            at: entry.at.s(),
            time: minute(entry.at.s()),
            channel: entry.channel,
            to: entry.to,
            subject: entry.subject.unwrap_or_default(),
        })
        .collect();
    // Those of one batch are delivered side by side: the lower threshold first, for people.
    let percent = |alert: &SentAlert| {
        alert
            .subject
            .split(['%', ' '])
            .find_map(|word| word.parse::<u64>().ok())
    };
    alerts.sort_by(|a, b| (a.at, &a.to, percent(a)).cmp(&(b.at, &b.to, percent(b))));
    Ok(DemoReport {
        stories,
        alerts,
        customers,
        totals,
        stripe_meter_events: system.services.stand_in.snapshot()["meter_events"]["accepted"]
            .as_u64()
            .unwrap_or(0),
        table_writes_per_decision: round(writes as f64 / decisions.max(1) as f64),
        seconds: round(began.elapsed().as_secs_f64()),
    })
}

/// The n-th busiest customer of a tier, counted from 0.
fn busiest_of(lines: &[LogLine], sellers: &BTreeMap<String, Seller>, tier: &str, n: usize) -> String {
    let calls = |address: &str| lines.iter().filter(|line| line.address == address).count();
    let of_tier = sellers.iter().filter(|(_, seller)| seller.result.tier == tier);
    let mut addresses: Vec<(usize, &String)> = of_tier.map(|(address, _)| (calls(address), address)).collect();
    addresses.sort_by(|a, b| b.cmp(a));
    addresses
        .get(n)
        .map(|(_, address)| (*address).clone())
        .unwrap_or_default()
}

/// A customer changes its tier in the middle of an hour and of its month.
async fn upgrade(system: &Arc<System>, customer: &str, from: &str, to: &str) -> Result<String, Error> {
    system.run_until(Timestamp::from_s(UPGRADE_S)).await?;
    let id = CustomerId::try_from(customer.to_owned()).map_err(Error::refused)?;
    let offer = Offer {
        tier: to.to_owned(),
        catalog: system.catalog.0,
        overrides: Overrides::default(),
        when: When::Now,
    };
    system.books.change_tier(&id, offer).await?;
    Ok(format!("{} {customer} upgraded from {from} to {to}", minute(UPGRADE_S)))
}

/// Gives a customer a card that fails, or one that works: test cards of
/// <https://docs.stripe.com/testing#declined-payments>.
async fn fail_card(system: &System, sold: &Sold, fails: bool) -> Result<(), Error> {
    let card = if fails {
        "pm_card_chargeCustomerFail"
    } else {
        "pm_card_visa"
    };
    let update = CustomerUpdate {
        default_payment_method: Some(card.to_owned()),
        ..CustomerUpdate::default()
    };
    let in_stripe = sold.customer.stripe_customer.as_deref().unwrap_or_default();
    let key = format!("demo-{in_stripe}-{card}");
    system.services.stripe.update_customer(in_stripe, &update, &key).await?;
    Ok(())
}

/// The customer's invoice has failed by now; it pays at `at`, with another card.
async fn pay_late(system: &Arc<System>, sold: &Sold, at: u64) -> Result<String, Error> {
    let standing = async || Ok::<_, Error>(system.books.customer(&sold.customer.id).await?.standing);
    let before = standing().await?;
    system.run_until(Timestamp::from_s(at)).await?;
    fail_card(system, sold, false).await?;
    let in_stripe = sold.customer.stripe_customer.as_deref().unwrap_or_default();
    for invoice in system.services.stripe.invoices(in_stripe).await? {
        if invoice.status.as_deref() == Some("open") {
            let key = format!("demo-{}-paid", invoice.id);
            system.services.stripe.pay_invoice(&invoice.id, &key).await?;
        }
    }
    system.run_until(Timestamp::from_s(at + 600)).await?;
    let after = standing().await?;
    if !matches!(before, Standing::PastDue { .. }) || after != Standing::Good {
        return Err(Error::refused(format!(
            "the late payer stood {before:?}, then {after:?}"
        )));
    }
    Ok(format!(
        "{} {} paid an invoice that had failed, and was served all the while",
        minute(at),
        sold.customer.id
    ))
}

/// A time for people: `2015-05-18 12:34`.
fn minute(s: u64) -> String {
    let time = i64::try_from(s)
        .ok()
        .and_then(|s| chrono::DateTime::from_timestamp(s, 0));
    time.map(|time| time.format("%Y-%m-%d %H:%M").to_string())
        .unwrap_or_default()
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
        let result = CustomerResult {
            customer: address.to_owned(),
            tier: tier.name.clone(),
            ..CustomerResult::default()
        };
        sellers.insert(
            address.to_owned(),
            Seller {
                sold,
                result,
                admitted_units: 0,
            },
        );
    }
    Ok(sellers)
}

/// Compares what the caller saw, the counter, the ledger, Stripe's sum and the invoice of one customer, each plan that it had
/// in the period by itself.
async fn audit(system: &System, seller: Seller, rows: &[Row]) -> Result<CustomerResult, Error> {
    let Seller {
        sold,
        mut result,
        admitted_units,
    } = seller;
    let period = sold.customer.cycle.current;
    let customer = system.books.customer(&sold.customer.id).await?;
    let stripe = &system.services.stripe;
    let in_stripe = customer.stripe_customer.as_deref().unwrap_or_default();
    let second = |s: u64| i64::try_from(s).unwrap_or(i64::MAX);
    let (mut expected, mut difference) = (0, 0);
    let mut before: Option<(u64, Money)> = None;
    for phase in customer.phases.iter().filter(|phase| phase.from < period.end) {
        let control = &system.control;
        let terms = control.terms_of(phase.catalog, &phase.tier, &phase.overrides).await?;
        let mut counted = 0;
        for shard in 0..terms.shards {
            let item = control.counters.read(&counters::key(&customer.id, shard)).await?;
            let name = quota_attribute(period.start, DEFAULT_METER, &phase.plan);
            counted += item.map_or(0, |item| item.units_of(&name));
        }
        let is_of_plan = |row: &&Row| {
            let bucket = row.key.bucket;
            row.key.customer == customer.id && period.contains(bucket) && customer.phase_at(bucket).plan == phase.plan
        };
        let in_ledger: u64 = rows.iter().filter(is_of_plan).map(|row| row.units).sum();
        let mut shown = 0;
        if let Some(meter) = stripe.find_meter(&phase.plan.event_name(DEFAULT_METER)).await? {
            shown = stripe
                .event_summary(&meter.id, in_stripe, second(period.start), second(period.end))
                .await?;
        }
        let too_much = |_| Error::refused("amount overflows");
        expected += second(terms.usage_amount(DEFAULT_METER, counted).map_err(too_much)?.0);
        if let Some((_, old)) = before {
            // What is left of the period is credited at the old base price and charged at the new one.
            let (left, whole) = (period.end - phase.from, period.end - period.start);
            expected += share(terms.price.amount, left, whole) - share(old, left, whole);
        }
        before = Some((phase.from, terms.price.amount));
        result.counted_units += counted;
        result.ledger_units += in_ledger;
        result.stripe_units += shown;
        difference += counted.abs_diff(in_ledger) + in_ledger.abs_diff(shown);
    }
    // The next period's base price is paid in advance.
    expected += before.map_or(0, |(_, base)| second(base.0));
    let invoices = stripe.invoices(in_stripe).await?;
    let closing = invoices.iter().find(|invoice| {
        invoice.billing_reason.as_deref() == Some("subscription_cycle") && invoice.status.as_deref() == Some("paid")
    });
    result.invoice_total_cents = closing.map_or(0, |invoice| invoice.total);
    result.difference = admitted_units.abs_diff(result.counted_units)
        + difference
        + expected.abs_diff(result.invoice_total_cents)
        + u64::from(closing.is_none());
    if customer.phases.len() > 1 {
        let tiers: Vec<&str> = customer.phases.iter().map(|phase| phase.tier.as_str()).collect();
        result.tier = tiers.join(" > ");
    }
    Ok(result)
}

/// A part of an amount, rounded half up: how Stripe prorates to the second
/// (<https://docs.stripe.com/billing/subscriptions/prorations>).
fn share(amount: Money, part: u64, whole: u64) -> i64 {
    let (amount, part, whole) = (u128::from(amount.0), u128::from(part), u128::from(whole.max(1)));
    i64::try_from((amount * part * 2 + whole) / (2 * whole)).unwrap_or(i64::MAX)
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
