//! What a seed stands for: customers, environments, weather, and what happens when.

use farebox_core::time::{HOUR_S, Timestamp};
use fastrand::Rng;

use crate::wire::{Outage, Service, Weather};

/// The tiers that are sold: one of every policy at the quota, and two that are spread over counter items.
pub(crate) const TIERS: &str = "
weights: {/v1/heavy: 7}
tiers:
  free: {price: 0, included_calls: 60/month, rate_limit: 30/min, endpoints: [/v1/basic]}
  block: {price: 9/month, included_calls: 150/month, rate_limit: 200/min, shards: 2, endpoints: [/v1/basic, /v1/heavy]}
  slow: {price: 5/month, included_calls: 80/month, rate_limit: 40/min, at_quota: throttle(8/min), endpoints: [/v1/basic, /v1/heavy]}
  pro: {price: 49/month, included_calls: 100/month, rate_limit: [120/min, 30/s], overage: $0.002/call, endpoints: [/v1/basic, /v1/heavy]}
  capped: {price: 19/month, included_calls: 40/month, rate_limit: 100/min, overage: $0.01/call, spend_cap: $1/month, endpoints: [/v1/basic, /v1/heavy]}
  wide: {price: 99/month, included_calls: 500/month, rate_limit: 3000/min, shards: 3, overage: $0.001/call, endpoints: [/v1/basic, /v1/heavy, /v1/full]}";

/// Their names, lowest first.
pub(crate) const TIER_NAMES: [&str; 6] = ["free", "block", "slow", "pro", "capped", "wide"];

/// The routes and what they cost. The last one is open to the highest tier only.
pub(crate) const ROUTES: [(&str, u64); 3] = [("/v1/basic", 1), ("/v1/heavy", 7), ("/v1/full", 1)];

/// Starts of the first period, unix seconds: months of every length, anchors on the 31st, a leap day, a mid-hour edge.
const STARTS: [u64; 6] = [
    1_769_853_600, // 2026-01-31T10:00:00Z
    1_769_855_723, // 2026-01-31T10:35:23Z
    1_790_805_600, // 2026-09-30T22:00:00Z
    1_835_343_000, // 2028-02-28T08:30:00Z
    1_834_646_399, // 2028-02-20T06:59:59Z
    1_798_758_000, // 2026-12-31T23:00:00Z
];

/// What a run does.
pub(crate) struct Scenario {
    pub(crate) start: Timestamp,
    /// Traffic begins so long before the first period's end, and goes on for so long.
    pub(crate) before_edge_ms: u64,
    pub(crate) length_ms: u64,
    /// How far the clock of each environment is off, in milliseconds.
    pub(crate) skews_ms: Vec<i64>,
    /// The tier of each customer, and how many milliseconds after the start it is sold.
    pub(crate) customers: Vec<(usize, u64)>,
    pub(crate) requests: Vec<Planned>,
    pub(crate) actions: Vec<(u64, Action)>,
    pub(crate) weather: Weather,
    /// Of a thousand messages, how many get lost, and how many come twice.
    pub(crate) lost_permille: u64,
    pub(crate) twice_permille: u64,
    /// Whether the extension is asked to send after a request, of a thousand.
    pub(crate) flush_permille: u64,
    /// Of a thousand invocations, how many are killed on the way.
    pub(crate) killed_permille: u64,
}

/// A request: when (milliseconds after traffic begins), whose, which route, to which environment.
#[derive(Clone, Copy)]
pub(crate) struct Planned {
    pub(crate) at_ms: u64,
    pub(crate) customer: usize,
    pub(crate) route: usize,
    pub(crate) environment: usize,
}

/// What the operator, or a machine, does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    ChangeTier {
        customer: usize,
        tier: usize,
        now: bool,
    },
    Revoke {
        customer: usize,
    },
    Suspend {
        customer: usize,
    },
    Resume {
        customer: usize,
    },
    Grant {
        customer: usize,
        units: u64,
    },
    Cancel {
        customer: usize,
        now: bool,
    },
    /// Stripe's next 500 is remembered with its idempotency key.
    StoredFault,
    /// An environment dies with what it has not sent; another takes its place.
    ColdStart {
        environment: usize,
    },
    Scan,
}

impl Scenario {
    /// What a seed stands for.
    pub(crate) fn of(seed: u64, requests: usize) -> Self {
        let mut rng = Rng::with_seed(seed);
        let rng = &mut rng;
        let start = Timestamp::from_s(STARTS[rng.usize(..STARTS.len())]);
        let before_edge_ms = rng.u64(1..10) * HOUR_S * 1_000 + rng.u64(..3_600_000);
        let length_ms = before_edge_ms + rng.u64(1..6) * HOUR_S * 1_000;
        let skews_ms: Vec<i64> = (0..rng.usize(2..6)).map(|_| skew(rng)).collect();
        let count = rng.usize(3..7);
        let customers: Vec<(usize, u64)> = (0..count)
            .map(|i| {
                let tier = if i < 2 {
                    [3, 1][i]
                } else {
                    rng.usize(..TIER_NAMES.len())
                };
                (tier, if rng.bool() { 0 } else { rng.u64(..7_200_000) })
            })
            .collect();
        Self {
            start,
            before_edge_ms,
            length_ms,
            requests: traffic(rng, requests, length_ms, count, skews_ms.len()),
            actions: actions(rng, length_ms, count, skews_ms.len()),
            weather: weather(rng, Timestamp::from_ms(0), length_ms),
            lost_permille: pick(rng, &[0, 0, 50, 300, 1_000]),
            twice_permille: pick(rng, &[0, 50, 300]),
            flush_permille: pick(rng, &[1_000, 500, 50]),
            killed_permille: pick(rng, &[0, 0, 20, 150]),
            skews_ms,
            customers,
        }
    }
}

fn pick(rng: &mut Rng, of: &[u64]) -> u64 {
    of[rng.usize(..of.len())]
}

/// Mostly as clocks are, sometimes minutes off, and now and then two buckets.
fn skew(rng: &mut Rng) -> i64 {
    let most = match rng.u64(..10) {
        0..=3 => 100,
        4..=6 => 2_000,
        7..=8 => 5 * 60_000,
        _ => 2 * 3_600_000,
    };
    rng.i64(-most..=most)
}

/// Bursts, so that requests meet, and pauses, so that connections idle.
fn traffic(rng: &mut Rng, requests: usize, length_ms: u64, customers: usize, environments: usize) -> Vec<Planned> {
    let mut planned = Vec::with_capacity(requests);
    while planned.len() < requests {
        let from = rng.u64(..length_ms);
        let width = pick(rng, &[30, 1_000, 60_000, 600_000]);
        let favourite = rng.usize(..customers);
        for _ in 0..rng.usize(1..40).min(requests - planned.len()) {
            let customer = if rng.u64(..10) < 7 {
                favourite
            } else {
                rng.usize(..customers)
            };
            planned.push(Planned {
                at_ms: (from + rng.u64(..width)).min(length_ms),
                customer,
                route: [0, 0, 0, 0, 0, 1, 1, 2][rng.usize(..8)],
                environment: rng.usize(..environments),
            });
        }
    }
    planned.sort_by_key(|planned| planned.at_ms);
    planned
}

fn actions(rng: &mut Rng, length_ms: u64, customers: usize, environments: usize) -> Vec<(u64, Action)> {
    let mut actions = Vec::new();
    for _ in 0..rng.usize(..10) {
        let (at, customer) = (rng.u64(..length_ms), rng.usize(..customers));
        match rng.u64(..12) {
            0..=3 => actions.push((
                at,
                Action::ChangeTier {
                    customer,
                    tier: rng.usize(..TIER_NAMES.len()),
                    now: rng.u64(..4) > 0,
                },
            )),
            4..=5 => actions.push((at, Action::Revoke { customer })),
            6 => {
                actions.push((at, Action::Suspend { customer }));
                actions.push((at + rng.u64(..3_600_000), Action::Resume { customer }));
            }
            7..=8 => actions.push((
                at,
                Action::Grant {
                    customer,
                    units: rng.u64(1..60),
                },
            )),
            9 => actions.push((
                at,
                Action::Cancel {
                    customer,
                    now: rng.bool(),
                },
            )),
            _ => actions.push((at, Action::StoredFault)),
        }
    }
    for _ in 0..rng.usize(..5) {
        let environment = rng.usize(..environments);
        actions.push((rng.u64(..length_ms), Action::ColdStart { environment }));
    }
    for _ in 0..rng.usize(1..3) {
        actions.push((rng.u64(..length_ms), Action::Scan));
    }
    actions.sort_by_key(|(at, _)| *at);
    actions
}

/// Outages are given as milliseconds after traffic begins; the run moves them to the calendar.
fn weather(rng: &mut Rng, zero: Timestamp, length_ms: u64) -> Weather {
    let mut outages = Vec::new();
    let mut outage = |rng: &mut Rng, service, longest_ms: u64| {
        let from = rng.u64(..length_ms);
        outages.push(Outage {
            service,
            from: zero.plus_ms(from),
            until: zero.plus_ms(from + rng.u64(..longest_ms)),
        });
    };
    if rng.bool() {
        // Now and then longer than Stripe remembers an identifier.
        let longest = pick(rng, &[20 * 60_000, 3 * 3_600_000, 26 * 3_600_000]);
        outage(rng, Service::Stripe, longest);
    }
    if rng.u64(..3) == 0 {
        let longest = pick(rng, &[10_000, 300_000]);
        outage(rng, Service::Table, longest);
    }
    if rng.u64(..3) == 0 {
        outage(rng, Service::Queue, 1_800_000);
    }
    Weather {
        trouble_permille: pick(rng, &[0, 5, 20, 80]),
        slow_permille: pick(rng, &[0, 20, 200]),
        outages,
    }
}
