//! What a month on AWS costs: an estimate from list prices, line by line.
//!
//! What API Gateway would cost anyway is kept apart from what Farebox adds, and what depends on calls from what is there
//! without any. No line is a price per hour of something that runs: nothing does. But secrets, alarms, metrics and a dashboard
//! have monthly prices, the schedule ticks, and Lambda polls the queues for as long as they exist.
//!
//! Where the number of requests is not certain, the larger one is taken; [`LEFT_OUT`] says what is not counted. Quantities
//! are thousandths and prices millionths of millionths of a dollar, in integers; an amount is rounded once, half up, to
//! a thousandth of a millionth.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// When the prices were last compared with what is published. List prices of the first volume tier; only API Gateway's
/// discounts are within anybody's reach, so only they are tiers here.
pub const PRICES_AS_OF: &str = "2026-06";

/// What an estimate does not count.
pub const LEFT_OUT: [&str; 8] = [
    "the back end behind the gateway",
    "Stripe's fees",
    "free tiers, which an account shares with everything else that runs in it",
    "mails (SES), operator messages (SNS), alert messages (SQS), and the bucket of the deployed code (S3)",
    "credits for failed requests, and usage that is reported afterwards: a few writes each",
    "repeated writes of a decision: below half of a limit there are none, at 80 % of it up to 5 %",
    "cold starts: the start of an environment is billed, about once an hour for each that is warm",
    "alert standings stored in the ledger, volume discounts beyond API Gateway's, restores, and taxes",
];

/// What the deployment template has of each. A test compares.
const ALARM_METRICS: u64 = 23;
/// Two of the template, and the one with the restricted Stripe key.
const SECRETS: u64 = 3;

/// What the functions write where nothing goes wrong. A metric is billed for the hours in which it is written, so whatever else
/// there is costs nothing until it happens. Of the authorizer, while there are calls:
pub const METRICS_OF_CALLS: [&str; 12] = [
    "decisions",
    "writes",
    "reads",
    "remembered",
    "usage_sent",
    "denials",
    "decisions_ok",
    "decisions_unauthorized",
    "decisions_rate_limited",
    "decisions_quota_exceeded",
    "decisions_not_in_tier",
    "decisions_no_such_route",
];
/// Of the consumer, while there are calls.
pub const METRICS_OF_USAGE: [&str; 4] = ["messages", "folded_rows", "sealed", "reported"];
/// Of the consumer, with every tick.
pub const METRICS_OF_TICKS: [&str; 1] = ["unreported_age_hours"];
/// Of the webhook and the notifier, while there are customers.
pub const METRICS_OF_CUSTOMERS: [&str; 3] = ["events_done", "events_ignored", "alerts_sent"];

/// AWS's month of 730 hours.
const MONTH_H: u64 = 730;
const MONTH_MINUTES: u64 = MONTH_H * 60;
const MONTH_S: u64 = MONTH_H * 3_600;
/// One tick in five minutes, one scan a day.
const TICKS: u64 = MONTH_MINUTES / 5;
const SCANS: u64 = MONTH_H.div_ceil(24);

const MIB: u128 = 1 << 20;
const GIB: u128 = 1 << 30;
const KIB: u128 = 1 << 10;

/// Consumers that read the usage queue at a time, as in the template. Each sees a batch a minute at most, unless it is full.
const CONSUMERS: u64 = 2;
/// Messages that fit into one invocation: 6 MB, at about 1.2 KB with what SQS says of each.
const BATCH_MESSAGES: u64 = 5_000;
/// Lambda long-polls a queue with five connections of twenty seconds each, messages or not
/// (<https://repost.aws/knowledge-center/sqs-high-charges>, <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html>).
const EMPTY_POLLS: u64 = 2 * 5 * MONTH_S / 20;
/// Messages that Lambda deletes at a time. How many it *receives* at a time depends on how fast they come; one is counted.
const DELETED_TOGETHER: u64 = 10;

/// Write units of a ledger row beside its folds: sealing and pruning the counter (2), freeze, claim, delivered and finish (4),
/// and the index of waiting rows: put, moved twice (two units each) and deleted (6)
/// (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/GSI.html#GSI.ThroughputConsiderations.Writes>).
const ROW_WRITES: u64 = 12;
/// The row, its customer and the balance of credits.
const ROW_READS: u64 = 3;
/// Months that ledger rows are kept at least; the storage is that of a deployment of this age.
const ROW_MONTHS: u64 = 18;
/// A row with its index entry, what DynamoDB adds to each, and a customer with keys and counter.
const ROW_BYTES: u128 = KIB;
const CUSTOMER_BYTES: u128 = 5 * KIB;

/// What the functions beside the authorizer take. Not measured on AWS.
const CONSUMER_MEMORY_MB: u128 = 512;
const BATCH_MS: u128 = 50;
const TICK_MS: u128 = 100;
const ROW_MS: u128 = 100;
const FOLD_MS: u128 = 1;
const SCAN_CUSTOMER_MS: u128 = 5;
/// What Stripe says of a customer in a month, and what the customer is told.
const STRIPE_EVENTS: u64 = 12;
const ALERTS: u64 = 4;
const EVENT_MS: u128 = 200;
/// Write units: the mark and the record in one transaction (two units each for each begun KB), and a bump of the counter.
const EVENT_WRITES: u64 = 6;
/// Write units: its note in the ledger, and for each of two channels that it begins and that it is done.
const ALERT_WRITES: u64 = 5;

/// The headers that Farebox adds to an answer, a line of metrics, a report to Stripe with its request.
const HEADER_BYTES: u128 = 400;
const METRIC_LINE_BYTES: u128 = 700;
const BATCH_LOG_BYTES: u128 = 1_000;
const REPORT_BYTES: u128 = 1_500;

/// Where the prices hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Region {
    /// US East (N. Virginia).
    #[default]
    #[serde(rename = "us-east-1")]
    UsEast1,
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("us-east-1")
    }
}

/// A month of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Input {
    /// Where it runs.
    pub region: Region,
    /// Calls that the gateway receives, at most 10¹². Each is one decision.
    pub calls: u64,
    /// The share of calls that are denied from memory: no write, but one read in 50 ms and environment at most.
    pub remembered_percent: u8,
    /// At most one usage message per row, second and environment. Without it, one per admitted call.
    pub coalescing: bool,
    /// What Lambda bills for a decision, milliseconds, 1 to 10,000; without the time that sending usage takes.
    pub decision_ms: u32,
    /// What Lambda bills in addition for each usage message sent after an answer, milliseconds, at most 10,000.
    pub send_ms: u32,
    /// Memory of the authorizer, 128 to 3,008 MB.
    pub memory_mb: u16,
    /// Environments of the authorizer that are warm at a time, 1 to 100,000.
    pub environments: u32,
    /// Customers, at most ten million; at least one if there are calls.
    pub customers: u32,
    /// Hours of the month in which a customer calls, 1 to 800.
    pub buckets: u16,
    /// Seconds of such an hour in which it does, 1 to 3,600: the fewer, the more messages are coalesced.
    pub active_seconds: u16,
    /// What the API answers, bytes, at most 10 MiB.
    pub response_bytes: u32,
    /// How often an environment of the authorizer writes its metrics, seconds; 0 for after each answer.
    pub metrics_every_s: u32,
    /// How many metrics of the authorizer have something to say, at most 1,000. A metric is billed for the hours in which it is
    /// written, and one without anything to say is not: ordinary traffic has those of [`METRICS_OF_CALLS`], each other kind of
    /// refusal is one more.
    pub call_metrics: u16,
}

impl Default for Input {
    /// Ten million calls of a hundred customers, of whom each calls in 200 hours, in ten minutes of each.
    fn default() -> Self {
        Self {
            region: Region::UsEast1,
            calls: 10_000_000,
            remembered_percent: 0,
            coalescing: true,
            decision_ms: 8,
            send_ms: 8,
            memory_mb: 256,
            environments: 2,
            customers: 100,
            buckets: 200,
            active_seconds: 600,
            response_bytes: 2_048,
            metrics_every_s: 10,
            call_metrics: METRICS_OF_CALLS.len() as u16,
        }
    }
}

/// A field of the [`Input`] is out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{field} must be {allowed}")]
pub struct BadInput {
    /// Which one.
    pub field: &'static str,
    /// What it may be.
    pub allowed: &'static str,
}

impl Input {
    /// The ranges are wide enough for anybody, and keep every amount below 64 bits.
    fn check(&self) -> Result<(), BadInput> {
        let checks = [
            (self.calls <= 1_000_000_000_000, "calls", "at most 1,000,000,000,000"),
            (self.remembered_percent <= 100, "remembered_percent", "0 to 100"),
            (
                (1..=10_000).contains(&self.decision_ms),
                "decision_ms",
                "1 to 10,000 (the authorizer's time-out)",
            ),
            (self.send_ms <= 10_000, "send_ms", "at most 10,000"),
            ((128..=3_008).contains(&self.memory_mb), "memory_mb", "128 to 3,008"),
            (
                (1..=100_000).contains(&self.environments),
                "environments",
                "1 to 100,000",
            ),
            (self.customers <= 10_000_000, "customers", "at most 10,000,000"),
            (
                self.customers > 0 || self.calls == 0,
                "customers",
                "at least 1 if there are calls",
            ),
            ((1..=800).contains(&self.buckets), "buckets", "1 to 800"),
            (
                (1..=3_600).contains(&self.active_seconds),
                "active_seconds",
                "1 to 3,600",
            ),
            (
                self.response_bytes <= 10_485_760,
                "response_bytes",
                "at most 10,485,760",
            ),
            (self.call_metrics <= 1_000, "call_metrics", "at most 1,000"),
        ];
        match checks.into_iter().find(|(holds, ..)| !holds) {
            Some((_, field, allowed)) => Err(BadInput { field, allowed }),
            None => Ok(()),
        }
    }
}

/// Whose line it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// API Gateway without Farebox.
    Gateway,
    /// What Farebox adds, by calls. Nothing without any.
    Use,
    /// What Farebox adds without any call, by what is deployed and how many customers there are.
    Fixed,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gateway => "API Gateway itself",
            Self::Use => "Farebox, by use",
            Self::Fixed => "Farebox, without a call",
        })
    }
}

/// How much of something: thousandths of the price's unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Quantity {
    /// Thousandths.
    pub milli: u64,
}

impl fmt::Display for Quantity {
    /// `10,000,000` or `0.343`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!("{:03}", self.milli % 1_000);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        f.pad(&format!("{}{point}{fraction}", grouped(self.milli / 1_000)))
    }
}

/// A price of one unit, and how it is usually said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Price {
    /// Millionths of millionths of a dollar for one unit.
    pub pico: u64,
    /// How many units the price is published for.
    pub per: u64,
    /// What is counted.
    pub unit: &'static str,
    /// AWS's page.
    pub source: &'static str,
}

impl fmt::Display for Price {
    /// `$3.50 per million requests`, `$0.0000133334 per GB-second`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pico = u128::from(self.pico) * u128::from(self.per);
        let fraction = format!("{:012}", pico % PICO);
        let end = fraction.trim_end_matches('0').len().max(2);
        let many = match self.per {
            1 => String::new(),
            1_000_000 => "million ".to_owned(),
            per => format!("{} ", grouped(per)),
        };
        let dollars = pico / PICO;
        f.pad(&format!("${dollars}.{} per {many}{}", &fraction[..end], self.unit))
    }
}

/// US dollars, in thousandths of millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Amount {
    /// 10⁻⁹ dollars.
    pub nano: u64,
}

impl Amount {
    fn plus(self, other: Self) -> Self {
        let nano = self.nano.saturating_add(other.nano);
        Self { nano }
    }

    fn per_million(self, calls: u64) -> Option<Self> {
        let nano = (u128::from(self.nano) * 1_000_000).checked_div(u128::from(calls))?;
        u64::try_from(nano).ok().map(|nano| Self { nano })
    }
}

impl fmt::Display for Amount {
    /// `$12.34`; what is less than half a cent, but not nothing, is `<$0.01`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CENT: u64 = 10_000_000;
        let cents = self.nano.saturating_add(CENT / 2) / CENT;
        if cents == 0 && self.nano > 0 {
            return f.pad("<$0.01");
        }
        f.pad(&format!("${}.{:02}", grouped(cents / 100), cents % 100))
    }
}

/// One line of the bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Whose it is.
    pub part: Part,
    /// The AWS service, as the bill names it.
    pub service: &'static str,
    /// What it is for.
    pub item: &'static str,
    /// How much of it.
    pub quantity: Quantity,
    /// What one costs.
    pub price: Price,
    /// What all of it costs.
    pub amount: Amount,
}

/// Sums of the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// What API Gateway costs without Farebox.
    pub gateway: Amount,
    /// What Farebox adds by use.
    pub farebox_use: Amount,
    /// What Farebox adds without a call.
    pub farebox_fixed: Amount,
    /// What Farebox adds.
    pub farebox: Amount,
    /// All of it.
    pub all: Amount,
}

/// A month's bill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// What it is an estimate of.
    pub input: Input,
    /// See [`PRICES_AS_OF`].
    pub prices_as_of: &'static str,
    /// The lines, by [`Part`]. Those of the gateway and of use are absent without calls.
    pub lines: Vec<Line>,
    /// The month.
    pub month: Totals,
    /// A million decisions of that month; `None` without any.
    pub per_million: Option<Totals>,
    /// See [`LEFT_OUT`].
    pub left_out: &'static [&'static str],
}

/// Estimates a month.
///
/// # Errors
/// [`BadInput`] if a field is out of range.
pub fn estimate(input: &Input) -> Result<Estimate, BadInput> {
    input.check()?;
    let traffic = Traffic::of(input);
    let mut bill = Bill::default();
    gateway(&mut bill, input);
    authorizer(&mut bill, input, &traffic);
    counters_and_ledger(&mut bill, input, &traffic);
    queue_and_consumer(&mut bill, &traffic);
    watching(&mut bill, input, &traffic);
    without_a_call(&mut bill, input);
    let mut lines = bill.lines;
    lines.sort_by_key(|line| line.part); // stable: in the order above within a part
    let month = totals(&lines);
    let per_million = |amount: Amount| amount.per_million(input.calls);
    let per_million = per_million(month.gateway).and_then(|gateway| {
        Some(Totals {
            gateway,
            farebox_use: per_million(month.farebox_use)?,
            farebox_fixed: per_million(month.farebox_fixed)?,
            farebox: per_million(month.farebox)?,
            all: per_million(month.all)?,
        })
    });
    Ok(Estimate {
        input: input.clone(),
        prices_as_of: PRICES_AS_OF,
        lines,
        month,
        per_million,
        left_out: &LEFT_OUT,
    })
}

/// What the calls of a month become.
struct Traffic {
    /// Decisions from memory.
    remembered: u64,
    /// Decisions that write. All are taken for admissions, which is the dearer case.
    writes: u64,
    /// Ledger rows: customers times hours, if there are as many decisions.
    rows: u64,
    /// Usage messages.
    messages: u64,
    /// Invocations of the consumer for them.
    batches: u64,
    /// Writes by which they reach the ledger: at most one per row, minute and consumer.
    folds: u64,
    /// Environments of the authorizer that started: about one an hour takes the place of another.
    starts: u64,
}

impl Traffic {
    fn of(input: &Input) -> Self {
        let remembered = narrow(times(input.calls, u64::from(input.remembered_percent)) / 100);
        let writes = input.calls - remembered;
        let rows = writes.min(u64::from(input.customers) * u64::from(input.buckets));
        let messages = if input.coalescing {
            coalesced(writes, rows, input)
        } else {
            writes
        };
        Self {
            remembered,
            writes,
            rows,
            messages,
            batches: messages.min(MONTH_MINUTES * CONSUMERS) + messages / BATCH_MESSAGES,
            folds: messages.min(rows * 60 * CONSUMERS),
            starts: input.calls.min(u64::from(input.environments) * MONTH_H),
        }
    }
}

/// Calls at random moments of the active seconds, w of them in s. After a message an environment is silent about the row for a
/// second and then waits s/w for the next call, so it sends one in 1 + s/w seconds: w·s / (s + w) in all. The first of
/// each row is always sent.
fn coalesced(writes: u64, rows: u64, input: &Input) -> u64 {
    let seconds = u128::from(rows) * u128::from(input.active_seconds) * u128::from(input.environments);
    let calls = u128::from(writes);
    let sent = (calls * seconds).div_ceil((calls + seconds).max(1));
    narrow(sent).max(rows)
}

fn gateway(bill: &mut Bill, input: &Input) {
    let mut left = input.calls;
    for (item, tier, price) in REST_API_TIERS {
        let requests = left.min(tier);
        bill.count(Part::Gateway, "API Gateway", item, requests, price);
        left -= requests;
    }
    let answers = u128::from(input.calls) * u128::from(input.response_bytes);
    bill.bytes(
        Part::Gateway,
        "Data transfer",
        "answers to the internet",
        answers,
        DATA_OUT,
    );
}

fn authorizer(bill: &mut Bill, input: &Input, traffic: &Traffic) {
    bill.count(Part::Use, "Lambda", "authorizer, requests", input.calls, LAMBDA_REQUEST);
    let deciding = times(input.calls, u64::from(input.decision_ms));
    let sending = times(traffic.messages, u64::from(input.send_ms));
    let memory = u128::from(input.memory_mb);
    bill.mb_ms(Part::Use, "authorizer, deciding", deciding * memory);
    bill.mb_ms(Part::Use, "authorizer, sending usage", sending * memory);
    let headers = times(input.calls, 1) * HEADER_BYTES + times(traffic.rows, 1) * REPORT_BYTES;
    bill.bytes(
        Part::Use,
        "Data transfer",
        "headers of Farebox, reports to Stripe",
        headers,
        DATA_OUT,
    );
}

fn counters_and_ledger(bill: &mut Bill, input: &Input, traffic: &Traffic) {
    let service = "DynamoDB";
    bill.count(Part::Use, service, "decisions, one write each", traffic.writes, WRITE);
    let rows = traffic.folds + traffic.rows * ROW_WRITES;
    bill.count(Part::Use, service, "ledger and sealing, writes", rows, WRITE);
    // A denial from memory is confirmed by a read when the last one is 50 ms old; an environment that starts reads a catalog,
    // and key and customer of whomever it meets.
    let confirmations = traffic.remembered.min(u64::from(input.environments) * 20 * MONTH_S);
    let met = traffic.starts * (2 * u64::from(input.customers) + 2);
    let records = met.min(input.calls.saturating_mul(3));
    let reads = confirmations + records + traffic.rows * ROW_READS;
    bill.count(Part::Use, service, "keys, customers and rows, reads", reads, READ);
    let kept = times(traffic.rows, ROW_MONTHS) * ROW_BYTES;
    bill.bytes(Part::Use, service, "18 months of ledger, storage", kept, STORAGE);
    bill.bytes(
        Part::Use,
        service,
        "18 months of ledger, point-in-time recovery",
        kept,
        RECOVERY,
    );
}

fn queue_and_consumer(bill: &mut Bill, traffic: &Traffic) {
    let requests = 2 * traffic.messages + traffic.messages.div_ceil(DELETED_TOGETHER);
    bill.count(
        Part::Use,
        "SQS",
        "usage messages, sent, received and deleted",
        requests,
        SQS_REQUEST,
    );
    bill.count(
        Part::Use,
        "Lambda",
        "consumer, requests",
        traffic.batches,
        LAMBDA_REQUEST,
    );
    let ms = u128::from(traffic.batches) * BATCH_MS
        + u128::from(traffic.folds) * FOLD_MS
        + u128::from(traffic.rows) * ROW_MS;
    bill.mb_ms(Part::Use, "consumer, folding and reporting", ms * CONSUMER_MEMORY_MB);
}

fn watching(bill: &mut Bill, input: &Input, traffic: &Traffic) {
    let service = "CloudWatch";
    let lines = match MONTH_S.checked_div(u64::from(input.metrics_every_s)) {
        None => input.calls,
        Some(lines) => input.calls.min(lines * u64::from(input.environments)),
    };
    let logged = u128::from(lines) * METRIC_LINE_BYTES + u128::from(traffic.batches) * BATCH_LOG_BYTES;
    bill.bytes(Part::Use, service, "logs of calls, taken in", logged, LOGS);
    bill.bytes(Part::Use, service, "logs of calls, kept for a month", logged, LOGS_KEPT);
    let metrics = if input.calls > 0 {
        u64::from(input.call_metrics) + METRICS_OF_USAGE.len() as u64
    } else {
        0
    };
    bill.count(Part::Use, service, "metrics of calls", metrics, METRIC);
}

/// What is there while nobody calls.
fn without_a_call(bill: &mut Bill, input: &Input) {
    let fixed = Part::Fixed;
    let customers = u64::from(input.customers);
    bill.count(fixed, "CloudWatch", "alarms", ALARM_METRICS, ALARM);
    bill.count(fixed, "CloudWatch", "dashboard", 1, DASHBOARD);
    let of_customers = if customers > 0 { METRICS_OF_CUSTOMERS.len() } else { 0 };
    let metrics = (METRICS_OF_TICKS.len() + of_customers) as u64;
    bill.count(fixed, "CloudWatch", "metrics of ticks and customers", metrics, METRIC);
    let logged = u128::from(TICKS + SCANS) * BATCH_LOG_BYTES;
    bill.bytes(fixed, "CloudWatch", "logs of ticks, taken in", logged, LOGS);
    bill.count(fixed, "Secrets Manager", "secrets", SECRETS, SECRET);
    bill.count(
        fixed,
        "Secrets Manager",
        "looking them up",
        SECRETS * MONTH_H,
        SECRET_CALL,
    );
    bill.count(fixed, "SQS", "polling of two empty queues", EMPTY_POLLS, SQS_REQUEST);
    bill.count(fixed, "EventBridge", "ticks and scans", TICKS + SCANS, SCHEDULED);
    bill.count(
        fixed,
        "Lambda",
        "ticks and scans, requests",
        TICKS + SCANS,
        LAMBDA_REQUEST,
    );
    let scanning = u128::from(SCANS) * u128::from(customers) * SCAN_CUSTOMER_MS;
    let ms = u128::from(TICKS) * TICK_MS + scanning;
    bill.mb_ms(fixed, "ticks and scans, duration", ms * CONSUMER_MEMORY_MB);
    // A tick asks four partitions of the index twice, half a unit each, if they are empty; a scan reads what customers have.
    let scanned = u128::from(SCANS) * (u128::from(customers) * CUSTOMER_BYTES).div_ceil(8 * KIB);
    let reads = TICKS * 4 + narrow(scanned);
    bill.count(fixed, "DynamoDB", "ticks and scans, reads", reads, READ);
    let stored = u128::from(customers) * CUSTOMER_BYTES;
    bill.bytes(fixed, "DynamoDB", "customers, storage", stored, STORAGE);
    bill.bytes(fixed, "DynamoDB", "customers, point-in-time recovery", stored, RECOVERY);
    let events = customers * STRIPE_EVENTS;
    bill.count(
        fixed,
        "API Gateway",
        "HTTP API, Stripe's events",
        events,
        HTTP_API_REQUEST,
    );
    let alerts = customers * ALERTS;
    let writes = events * EVENT_WRITES + alerts * ALERT_WRITES;
    bill.count(fixed, "DynamoDB", "Stripe's events and alerts, writes", writes, WRITE);
    let invocations = events + alerts;
    bill.count(
        fixed,
        "Lambda",
        "webhook and notifier, requests",
        invocations,
        LAMBDA_REQUEST,
    );
    let ms = u128::from(invocations) * EVENT_MS;
    bill.mb_ms(fixed, "webhook and notifier, duration", ms * CONSUMER_MEMORY_MB);
}

#[derive(Default)]
struct Bill {
    lines: Vec<Line>,
}

impl Bill {
    fn count(&mut self, part: Part, service: &'static str, item: &'static str, count: u64, price: Price) {
        self.add(part, service, item, times(count, 1_000), price);
    }

    fn bytes(&mut self, part: Part, service: &'static str, item: &'static str, bytes: u128, price: Price) {
        self.add(part, service, item, (bytes * 1_000).div_ceil(GIB), price);
    }

    /// `mb_ms`: megabytes times milliseconds.
    fn mb_ms(&mut self, part: Part, item: &'static str, mb_ms: u128) {
        self.add(part, "Lambda", item, mb_ms.div_ceil(GIB / MIB), GB_SECOND);
    }

    /// `milli`: thousandths of the price's unit.
    fn add(&mut self, part: Part, service: &'static str, item: &'static str, milli: u128, price: Price) {
        if milli == 0 {
            return;
        }
        let nano = (milli * u128::from(price.pico) + 500_000) / 1_000_000;
        self.lines.push(Line {
            part,
            service,
            item,
            quantity: Quantity { milli: narrow(milli) },
            price,
            amount: Amount { nano: narrow(nano) },
        });
    }
}

fn totals(lines: &[Line]) -> Totals {
    let sum = |part: Part| {
        let of_part = lines.iter().filter(|line| line.part == part);
        of_part.fold(Amount::default(), |sum, line| sum.plus(line.amount))
    };
    let (gateway, farebox_use, farebox_fixed) = (sum(Part::Gateway), sum(Part::Use), sum(Part::Fixed));
    let farebox = farebox_use.plus(farebox_fixed);
    Totals {
        gateway,
        farebox_use,
        farebox_fixed,
        farebox,
        all: gateway.plus(farebox),
    }
}

fn times(a: u64, b: u64) -> u128 {
    u128::from(a) * u128::from(b)
}

/// [`Input::check`] keeps everything far below 64 bits; a test has the largest input.
fn narrow(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// `1,234,567`.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

// ---- The price table. us-east-1, as of `PRICES_AS_OF`.

/// One dollar.
const PICO: u128 = 1_000_000_000_000;

const fn price(pico: u64, per: u64, unit: &'static str, source: &'static str) -> Price {
    Price {
        pico,
        per,
        unit,
        source,
    }
}

const fn per_million(micro: u64, unit: &'static str, source: &'static str) -> Price {
    price(micro, 1_000_000, unit, source)
}

const API_GATEWAY: &str = "https://aws.amazon.com/api-gateway/pricing/";
const LAMBDA: &str = "https://aws.amazon.com/lambda/pricing/";
const DYNAMODB: &str = "https://aws.amazon.com/dynamodb/pricing/on-demand/";
const SQS: &str = "https://aws.amazon.com/sqs/pricing/";
const CLOUDWATCH: &str = "https://aws.amazon.com/cloudwatch/pricing/";
const SECRETS_MANAGER: &str = "https://aws.amazon.com/secrets-manager/pricing/";
const EVENTBRIDGE: &str = "https://aws.amazon.com/eventbridge/pricing/";
const EC2: &str = "https://aws.amazon.com/ec2/pricing/on-demand/#Data_Transfer";

/// How many requests a tier has, and what they cost.
const REST_API_TIERS: [(&str, u64, Price); 4] = [
    (
        "REST API, first 333 million requests",
        333_000_000,
        per_million(3_500_000, "requests", API_GATEWAY),
    ),
    (
        "REST API, next 667 million requests",
        667_000_000,
        per_million(2_800_000, "requests", API_GATEWAY),
    ),
    (
        "REST API, next 19 billion requests",
        19_000_000_000,
        per_million(2_380_000, "requests", API_GATEWAY),
    ),
    (
        "REST API, requests over 20 billion",
        u64::MAX,
        per_million(1_510_000, "requests", API_GATEWAY),
    ),
];
const HTTP_API_REQUEST: Price = per_million(1_000_000, "requests", API_GATEWAY);
const LAMBDA_REQUEST: Price = per_million(200_000, "requests", LAMBDA);
/// arm64.
const GB_SECOND: Price = price(13_333_400, 1, "GB-second", LAMBDA);
/// Since November 2024; it was twice as much before.
const WRITE: Price = per_million(625_000, "write units", DYNAMODB);
/// Since November 2024; it was twice as much before.
const READ: Price = per_million(125_000, "read units", DYNAMODB);
const STORAGE: Price = price(250_000_000_000, 1, "GB-month", DYNAMODB);
const RECOVERY: Price = price(200_000_000_000, 1, "GB-month", DYNAMODB);
const SQS_REQUEST: Price = per_million(400_000, "requests", SQS);
const LOGS: Price = price(500_000_000_000, 1, "GB", CLOUDWATCH);
const LOGS_KEPT: Price = price(30_000_000_000, 1, "GB-month", CLOUDWATCH);
const METRIC: Price = price(300_000_000_000, 1, "metric", CLOUDWATCH);
const ALARM: Price = price(100_000_000_000, 1, "alarm metric", CLOUDWATCH);
const DASHBOARD: Price = price(3_000_000_000_000, 1, "dashboard", CLOUDWATCH);
const SECRET: Price = price(400_000_000_000, 1, "secret", SECRETS_MANAGER);
const SECRET_CALL: Price = price(5_000_000, 10_000, "calls", SECRETS_MANAGER);
const SCHEDULED: Price = per_million(1_000_000, "invocations", EVENTBRIDGE);
const DATA_OUT: Price = price(90_000_000_000, 1, "GB", EC2);
