//! Hours of traffic on a bad network: several environments of the real authorizer, with a share of their calls to the table and
//! the queue dropped before or after they were done. Memory must stay where it is, every count must agree, and nobody is let through
//! beyond a quota that was reached.

use std::time::{Duration, Instant};

use axum::body::Bytes;
use farebox_core::{tiers::DEFAULT_METER, time::Timestamp};
use farebox_local::Sold;

use crate::{
    Arguments, contestants,
    function::Function,
    proxy::{self, Tap},
    report::at,
    store::{self, Store},
};

/// Environments that serve at the same time.
const ENVIRONMENTS: usize = 2;
/// Customers, half of them of a tier that bills, and a quarter of each tier that blocks.
const CUSTOMERS: usize = 40;
/// How often figures are taken.
const SAMPLE: Duration = Duration::from_secs(60);
/// By so much, in KiB, an environment may grow over the second half: what is warmed up does not grow. In an hour of 100 decisions a
/// second this is three bytes for each.
const DRIFT_MAX_KIB: u64 = 512;

/// How the requests of a customer were answered.
#[derive(Clone, Copy, Default)]
struct Answers {
    /// Let through and counted.
    counted: u64,
    /// Answered while nobody knew, or certainly not, whether it was counted: each may be one unit more on the counter.
    unsure: u64,
    /// Denied with a figure.
    denied: u64,
}

/// What one environment saw.
struct Served {
    answers: Vec<Answers>,
    /// Time inside of the function, less what its calls to the table took.
    own: Vec<Duration>,
    rss_kib: Vec<u64>,
    decisions: u64,
}

/// Runs for so many minutes, with so many of a thousand calls failing.
pub(crate) async fn run(arguments: &Arguments, minutes: u64, per_mille: u32, pause: Duration) -> Result<(), String> {
    let store = Store::start(store::SOAK_TIERS, "billed").await?;
    let mut customers = vec![];
    for n in 0..CUSTOMERS {
        customers.push(store.sell(&format!("customer{n}"), tier_of(n)).await?);
    }
    let authorizer = contestants(arguments, &store).swap_remove(0).program;
    let events = customers
        .iter()
        .map(|sold| store::event(&sold.key))
        .collect::<Result<Vec<Bytes>, String>>()?;

    println!("{minutes} min, {ENVIRONMENTS} environments, {CUSTOMERS} customers, {per_mille} of 1000 calls fail");
    let until = Instant::now() + Duration::from_secs(minutes * 60);
    let mut serving = tokio::task::JoinSet::new();
    for n in 0..ENVIRONMENTS {
        let [dynamodb, sqs] = store.addresses();
        let tap = Tap::failing(per_mille, n as u64 + 1);
        let table = proxy::between(dynamodb, tap.clone()).await.map_err(|e| e.to_string())?;
        let queue = proxy::between(sqs, Tap::failing(per_mille, n as u64 + 101)).await;
        let queue = queue.map_err(|e| e.to_string())?;
        let program = authorizer.with(&[
            ("AWS_ENDPOINT_URL_DYNAMODB", &format!("http://{table}")),
            ("AWS_ENDPOINT_URL_SQS", &format!("http://{queue}")),
        ]);
        let function = Function::start(&program, &arguments.out.join(format!("soak{n}.log"))).await?;
        serving.spawn(serve(function, events.clone(), tap, until, (n, pause)));
    }
    let system = store.system.clone();
    let folding = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            if let Err(error) = system.pump().await {
                eprintln!("soak: {error}");
            }
        }
    });
    let mut served = Vec::new();
    while let Some(ended) = serving.join_next().await {
        served.push(ended.map_err(|e| e.to_string())??);
    }
    folding.abort();
    let _ = folding.await;
    samples(&served);
    for served in &served {
        stays(&served.rss_kib)?;
    }

    let mut answers = vec![Answers::default(); customers.len()];
    for served in &served {
        for (sum, of) in answers.iter_mut().zip(&served.answers) {
            sum.counted += of.counted;
            sum.unsure += of.unsure;
            sum.denied += of.denied;
        }
    }
    check(&store, &customers, &answers).await?;
    let decisions: u64 = served.iter().map(|served| served.decisions).sum();
    let own: Vec<Duration> = served.iter().flat_map(|served| served.own.iter().copied()).collect();
    println!(
        "\n{decisions} decisions, {:.0} a second; without the table: p50 {:.2} ms, p99 {:.2} ms",
        decisions as f64 / (minutes * 60) as f64,
        at(&own, 50),
        at(&own, 99),
    );
    Ok(())
}

fn tier_of(n: usize) -> &'static str {
    match n % 4 {
        1 => "small",
        3 => "blocked",
        _ => "billed",
    }
}

/// What a customer may use at most, if its tier blocks.
fn quota_of(n: usize) -> Option<u64> {
    let quota = store::SOAK_QUOTAS.into_iter().find(|(tier, _)| *tier == tier_of(n));
    quota.map(|(_, units)| units)
}

async fn serve(
    function: Function,
    events: Vec<Bytes>,
    tap: Tap,
    until: Instant,
    (seed, pause): (usize, Duration),
) -> Result<Served, String> {
    let mut served = Served {
        answers: vec![Answers::default(); events.len()],
        own: Vec::new(),
        rss_kib: Vec::new(),
        decisions: 0,
    };
    let mut next_sample = Instant::now() + SAMPLE;
    let mut n = seed;
    while Instant::now() < until {
        // A stride that shares no factor with the number of customers visits all of them.
        n = (n + 7) % events.len();
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        tap.take_spent();
        let answer = function.invoke(&events[n]).await?;
        let spent = tap.take_spent();
        served.own.push(answer.took.saturating_sub(spent));
        served.decisions += 1;
        let body = String::from_utf8_lossy(&answer.body);
        let has_code = |code: &str| body.contains(&format!(r#""code":"{code}""#));
        let answers = &mut served.answers[n];
        if has_code("ok") {
            answers.counted += 1;
        } else if has_code("uncounted") || has_code("unavailable") {
            answers.unsure += 1;
        } else if has_code("rate_limited") || has_code("quota_exceeded") {
            answers.denied += 1;
        } else {
            return Err(format!("an answer that nobody expects: {body}"));
        }
        if Instant::now() >= next_sample {
            next_sample += SAMPLE;
            served.rss_kib.push(function.rss_kib());
        }
    }
    function.rest().await;
    function.end().await;
    Ok(served)
}

fn samples(served: &[Served]) {
    println!("| minute | KiB resident in each environment |\n| ---: | --- |");
    let minutes = served.iter().map(|served| served.rss_kib.len()).min().unwrap_or(0);
    for minute in 0..minutes {
        let rss: Vec<String> = served.iter().map(|served| served.rss_kib[minute].to_string()).collect();
        println!("| {} | {} |", minute + 1, rss.join(", "));
    }
}

/// Memory does not grow any more in the second half.
fn stays(rss_kib: &[u64]) -> Result<(), String> {
    let half = &rss_kib[rss_kib.len() / 2..];
    if half.len() < 2 {
        println!("too short to judge memory by: give it five minutes or more");
        return Ok(());
    }
    let (first, most) = (half[0], half.iter().copied().max().unwrap_or(0));
    if first == 0 || most > first + DRIFT_MAX_KIB {
        return Err(format!(
            "{first} KiB resident at half time, up to {most} after it: more than {DRIFT_MAX_KIB} KiB of growth"
        ));
    }
    Ok(())
}

/// What was let through is counted; what is counted beyond that are writes of which nobody knew. Then time passes, and the
/// ledger and Stripe have what was counted.
async fn check(store: &Store, customers: &[Sold], answers: &[Answers]) -> Result<(), String> {
    let system = &store.system;
    let mut counted = Vec::new();
    for (n, (sold, answers)) in customers.iter().zip(answers).enumerate() {
        let units = store.counted(sold).await?;
        if quota_of(n).is_some_and(|quota| units > quota) {
            return Err(format!("{}: {units} units, more than the quota", sold.customer.id));
        }
        if units < answers.counted || units > answers.counted + answers.unsure {
            return Err(format!(
                "{}: {} answers were counted, {} unsure, and the counter has {units}",
                sold.customer.id, answers.counted, answers.unsure
            ));
        }
        counted.push(units);
    }
    if answers.iter().all(|answers| answers.denied == 0) {
        return Err("nobody was denied: no quota was reached".to_owned());
    }
    let later = Timestamp::from_s(system.clock().now().s() + 2 * 3_600);
    system.run_until(later).await.map_err(|e| e.to_string())?;
    system.consumer.scan().await.map_err(|e| e.to_string())?;
    let later = Timestamp::from_s(later.s() + 3_600);
    system.run_until(later).await.map_err(|e| e.to_string())?;
    let (rows, _) = system.books.ledger.scan().await.map_err(|e| e.to_string())?;
    for (sold, units) in customers.iter().zip(&counted) {
        let customer = &sold.customer;
        let in_ledger: u64 = rows
            .iter()
            .filter(|row| row.key.customer == customer.id)
            .map(|row| row.units)
            .sum();
        let in_stripe = in_stripe(store, sold).await?;
        if in_ledger != *units || in_stripe != *units {
            return Err(format!(
                "{}: the counter has {units}, the ledger {in_ledger}, Stripe {in_stripe}",
                customer.id
            ));
        }
    }
    let sum = |of: fn(&Answers) -> u64| answers.iter().map(of).sum::<u64>();
    println!(
        "\n{} units on the counters, in the ledger and in Stripe: difference 0. Answers: {} counted, {} denied, {} unsure, of \
         which {} were counted.",
        counted.iter().sum::<u64>(),
        sum(|answers| answers.counted),
        sum(|answers| answers.denied),
        sum(|answers| answers.unsure),
        counted.iter().sum::<u64>() - sum(|answers| answers.counted),
    );
    Ok(())
}

async fn in_stripe(store: &Store, sold: &Sold) -> Result<u64, String> {
    let stripe = &store.system.books.stripe;
    let customer = &sold.customer;
    let event_name = customer
        .phase_at(customer.cycle.current.start)
        .plan
        .event_name(DEFAULT_METER);
    let meter = stripe.find_meter(&event_name).await.map_err(|e| e.to_string())?;
    let meter = meter.ok_or("the meter is missing")?;
    let id = customer
        .stripe_customer
        .as_deref()
        .ok_or("the customer is not in Stripe")?;
    let minute = |s: u64| i64::try_from(s / 60 * 60).unwrap_or(i64::MAX);
    let (from, to) = (customer.cycle.current.start, store.system.clock().now().s());
    let sum = stripe.event_summary(&meter.id, id, minute(from), minute(to)).await;
    sum.map_err(|e| e.to_string())
}
