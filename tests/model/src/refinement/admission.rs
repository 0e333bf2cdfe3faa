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
const GROUP: &str = "search";

/// Whether a limit or a quota has no room, told without the code that judges: from what is counted and the rule's own words.
#[must_use]
pub fn is_full(demand: &Demand, item: &Counters) -> bool {
    let bucket = demand.cycle.bucket_after_seal(demand.now.s(), item.sealed);
    let period = demand.cycle.period_at(bucket.start).start;
    let used = |quota: &Quota| {
        let whose = match &quota.group {
            None => ".api_calls".to_owned(),
            Some(group) => format!("@{group}"),
        };
        item.units_of(&format!("q{period}{whose}.{PLAN}"))
    };
    let is_over = |quota: &Quota, most: u64| used(quota) + demand.cost > most;
    let is_used_up = |quota: &Quota| quota.included.is_some_and(|included| is_over(quota, included));
    let is_shut = |quota: &Quota| {
        let is_blocked = quota.at_quota == AtQuota::Block && is_used_up(quota);
        is_blocked || quota.cap.is_some_and(|cap| is_over(quota, cap))
    };
    let slower = |quota: &Quota| match quota.at_quota {
        AtQuota::Throttle(limit) if is_used_up(quota) => Some(Rate {
            limit,
            group: quota.group.clone(),
        }),
        _ => None,
    };
    let has_no_room = |Rate { limit, group }: Rate| {
        let index = demand.now.ms() / limit.window_ms;
        let units = |index: u64| item.units_of(&window(limit.window_ms, index, group.as_deref()));
        let left = limit.window_ms - demand.now.ms() % limit.window_ms;
        let carried = (units(index - 1) * left).div_ceil(limit.window_ms);
        units(index) + carried + demand.cost > limit.units
    };
    let slower = demand.quotas.iter().filter_map(slower);
    demand.quotas.iter().any(is_shut) || demand.rates.iter().cloned().chain(slower).any(has_no_room)
}

fn window(window_ms: u64, index: u64, group: Option<&str>) -> String {
    match group {
        None => format!("w{window_ms}.{index}"),
        Some(group) => format!("w{window_ms}.{index}.{group}"),
    }
}

fn at_quota(rng: &mut Rng) -> AtQuota {
    match rng.u64(..3) {
        0 => AtQuota::Overage,
        1 => AtQuota::Block,
        _ => AtQuota::Throttle(Limit {
            units: rng.u64(4..20),
            window_ms: 60_000,
        }),
    }
}

/// A random request on random terms.
#[must_use]
pub fn demand(rng: &mut Rng) -> Demand {
    let windows = [1_000, 60_000, 3_600_000];
    let first = rng.usize(..3);
    let group = rng.bool().then(|| GROUP.to_owned());
    let rates = (0..rng.usize(..3)).map(|i| Rate {
        limit: Limit {
            units: rng.u64(4..40),
            window_ms: windows[(first + i) % 3],
        },
        group: group.clone().filter(|_| rng.bool()),
    });
    let rates: Vec<Rate> = rates.collect();
    let mut quotas = vec![Quota {
        group: None,
        included: rng.bool().then(|| rng.u64(5..60)),
        at_quota: at_quota(rng),
        cap: (rng.u64(..4) == 0).then(|| rng.u64(5..90)),
    }];
    if group.is_some() && rng.bool() {
        quotas.push(Quota {
            group: group.clone(),
            included: Some(rng.u64(5..60)),
            at_quota: at_quota(rng),
            cap: None,
        });
    }
    let mut cycle = Cycle::starting_at(ANCHOR_S, Interval::Month);
    if rng.bool() {
        cycle.cut(NOW_MS / 1_000 + rng.u64(..2 * HOUR_S) - HOUR_S);
    }
    Demand {
        now: Timestamp::from_ms(NOW_MS + rng.u64(..7_200_000) - 3_600_000),
        cost: rng.u64(1..4),
        meter: "api_calls".to_owned(),
        group,
        plan: PLAN.parse().expect("a plan's name"),
        auth_epoch: rng.u64(2..5),
        cycle,
        rates,
        quotas,
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
            for group in [None, Some(GROUP)] {
                put(rng, window(window_ms, index - back, group), 24);
            }
        }
    }
    for bucket in [hour - HOUR_S, hour, hour + HOUR_S] {
        put(rng, format!("u{bucket}.api_calls"), 100);
    }
    put(rng, format!("q{ANCHOR_S}.api_calls.{PLAN}"), 70);
    put(rng, format!("q{ANCHOR_S}@{GROUP}.{PLAN}"), 70);
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
