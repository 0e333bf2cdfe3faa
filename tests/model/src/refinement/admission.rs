//! Random requests, random counter items, and what somebody may believe of them.

use farebox_core::{
    admission::{Belief, Counters, Demand, Quota, Rate},
    expression::Value,
    tiers::{AtQuota, Interval, Limit},
    time::{Cycle, HOUR_S, Timestamp},
};
use fastrand::Rng;

use super::Item;

const NOW_MS: u64 = 1_769_853_600_000;
const ANCHOR_S: u64 = 1_769_000_000;
const PLAN: &str = "pro-00000000";

/// Whether a limit or a quota has no room, told without the code that judges: from what is counted and the rule's own words.
#[must_use]
pub fn is_full(demand: &Demand, item: &Counters) -> bool {
    let bucket = demand.cycle.bucket_after_seal(demand.now.s(), item.sealed);
    let period = demand.cycle.period_at(bucket.start).start;
    let used = item.units_of(&format!("q{period}.api_calls.{PLAN}"));
    let quota = &demand.quotas[0];
    let is_over = |most: u64| used + demand.cost > most;
    let is_blocked = match quota.at_quota {
        AtQuota::Block => quota.included.is_some_and(is_over),
        AtQuota::Overage | AtQuota::Throttle(_) => false,
    };
    let slower = match quota.at_quota {
        AtQuota::Throttle(limit) if quota.included.is_some_and(is_over) => Some(limit),
        _ => None,
    };
    let has_no_room = |limit: Limit| {
        let index = demand.now.ms() / limit.window_ms;
        let units = |index: u64| item.units_of(&format!("w{}.{index}", limit.window_ms));
        let left = limit.window_ms - demand.now.ms() % limit.window_ms;
        let carried = (units(index - 1) * left).div_ceil(limit.window_ms);
        units(index) + carried + demand.cost > limit.units
    };
    let limits = demand.rates.iter().map(|rate| rate.limit).chain(slower);
    is_blocked || quota.cap.is_some_and(is_over) || limits.into_iter().any(has_no_room)
}

/// A random request on random terms.
#[must_use]
pub fn demand(rng: &mut Rng) -> Demand {
    let windows = [1_000, 60_000, 3_600_000];
    let first = rng.usize(..3);
    let rates = (0..rng.usize(..3)).map(|i| Rate {
        limit: Limit {
            units: rng.u64(4..40),
            window_ms: windows[(first + i) % 3],
        },
        group: None,
    });
    let rates: Vec<Rate> = rates.collect();
    let at_quota = match rng.u64(..3) {
        0 => AtQuota::Overage,
        1 => AtQuota::Block,
        _ => AtQuota::Throttle(Limit {
            units: rng.u64(4..20),
            window_ms: 60_000,
        }),
    };
    let mut cycle = Cycle::starting_at(ANCHOR_S, Interval::Month);
    if rng.bool() {
        cycle.cut(NOW_MS / 1_000 + rng.u64(..2 * HOUR_S) - HOUR_S);
    }
    Demand {
        now: Timestamp::from_ms(NOW_MS + rng.u64(..7_200_000) - 3_600_000),
        cost: rng.u64(1..4),
        meter: "api_calls".to_owned(),
        group: None,
        plan: PLAN.parse().expect("a plan's name"),
        auth_epoch: rng.u64(2..5),
        cycle,
        rates,
        quotas: vec![Quota {
            group: None,
            included: rng.bool().then(|| rng.u64(5..60)),
            at_quota,
            cap: (rng.u64(..4) == 0).then(|| rng.u64(5..90)),
        }],
    }
}

/// A counter item as traffic leaves it, and as nobody would: any attribute may be there or not.
#[must_use]
pub fn counters_of(rng: &mut Rng, demand: &Demand) -> Counters {
    let now = demand.now.s();
    let hour = now - now % HOUR_S;
    let mut item = Counters {
        generation: "0123456789abcdef-0".to_owned(),
        auth_epoch: rng.u64(2..5).min(demand.auth_epoch + u64::from(rng.u64(..4) == 0)),
        sealed: hour + HOUR_S * rng.u64(..3) - HOUR_S * 2,
        units: Default::default(),
    };
    let mut put = |rng: &mut Rng, name: String, most: u64| {
        if rng.u64(..3) > 0 {
            item.units.insert(name, rng.u64(..most));
        }
    };
    for window_ms in [1_000, 60_000, 3_600_000] {
        let index = demand.now.ms() / window_ms;
        for back in [0, 1, 2, 30] {
            put(rng, format!("w{window_ms}.{}", index - back), 24);
        }
    }
    for bucket in [hour - HOUR_S, hour, hour + HOUR_S] {
        put(rng, format!("u{bucket}.api_calls"), 100);
    }
    put(rng, format!("q{ANCHOR_S}.api_calls.{PLAN}"), 70);
    item
}

/// Nothing, the item itself, or what it was a while ago: units only ever grow.
#[must_use]
pub fn belief(rng: &mut Rng, item: &Counters, demand: &Demand) -> Option<Belief> {
    let mut counters = item.clone();
    match rng.u64(..4) {
        0 => return None,
        1 => {}
        _ => {
            for units in counters.units.values_mut() {
                *units -= rng.u64(..=*units);
            }
            counters.sealed -= HOUR_S * rng.u64(..2);
            counters.auth_epoch -= rng.u64(..2);
        }
    }
    let at = Timestamp::from_ms(demand.now.ms() - rng.u64(..120_000));
    Some(Belief { counters, at })
}

/// The item as the table has it.
#[must_use]
pub fn as_item(counters: &Counters) -> Item {
    let mut item = Item::from([
        ("generation".to_owned(), Value::from(counters.generation.as_str())),
        ("auth_epoch".to_owned(), Value::N(counters.auth_epoch)),
        ("sealed".to_owned(), Value::N(counters.sealed)),
    ]);
    item.extend(
        counters
            .units
            .iter()
            .map(|(name, &units)| (name.clone(), Value::N(units))),
    );
    item
}
