//! Admission: one conditional write decides a request and meters it.
//!
//! ```text
//!   demand + belief ──plan──▶ Attempt ──write──▶ applied ─────────────────▶ admitted, and metered by that very write
//!                               ▲                   │
//!                               │            condition failed,
//!                               │            brings the exact item
//!                               │                   ▼
//!                               └──the belief──── judge ──▶ denied until an exact time │ records changed: read again
//!                                  was wrong
//! ```
//!
//! DynamoDB has no `max()` and no arithmetic in conditions. Attribute names that carry the window and the bucket make every
//! roll-over implicit: a new window is an attribute that does not exist yet, so one expression without a branch serves the
//! first request of a window, a busy window, an idle customer and a new period alike.
//!
//! What is believed of a counter item is what it was when it was last seen. Units of a window only ever grow, so a belief is
//! a lower bound; a wrong one costs a second write, never a wrong decision, because the condition is checked by the table.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::{
    account::{Customer, Phase},
    expression::{Expression, Value},
    limit,
    tiers::{AtQuota, Limit, PlanId, Terms},
    time::{Bucket, Cycle, HOUR_S, Period, Timestamp},
};

/// How long a window's attribute stays after the window ended, so that a fast clock erases nobody's window.
const WINDOW_KEPT_MS: u64 = 10_000;
/// How long the previous period's count stays, for whoever still reads it.
const PERIOD_KEPT_S: u64 = 48 * HOUR_S;

/// The one item per customer and shard that every admission writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Random, given at creation; part of every ledger key.
    pub generation: String,
    /// Bumped by every change of keys, tier or period.
    pub auth_epoch: u64,
    /// The start of the newest sealed bucket.
    pub sealed: u64,
    /// Units by attribute name: windows `w…`, buckets `u…`, quotas `q…`.
    pub units: BTreeMap<String, u64>,
}

impl Counters {
    /// The units of an attribute; 0 if it does not exist.
    #[must_use]
    pub fn units_of(&self, name: &str) -> u64 {
        self.units.get(name).copied().unwrap_or(0)
    }
}

/// The attribute that counts a meter's units in a bucket: what is billed.
#[must_use]
pub fn bucket_attribute(bucket_start: u64, meter: &str) -> String {
    format!("u{bucket_start}.{meter}")
}

/// Reads a bucket attribute's name: the bucket's start and the meter.
#[must_use]
pub fn parse_bucket_attribute(name: &str) -> Option<(u64, &str)> {
    let (start, meter) = name.strip_prefix('u')?.split_once('.')?;
    Some((start.parse().ok()?, meter))
}

/// The attribute that counts a meter's units in a billing period, under one plan.
#[must_use]
pub fn quota_attribute(period_start: u64, meter: &str, plan: &PlanId) -> String {
    format!("q{period_start}.{meter}.{plan}")
}

fn window_attribute(rate: &Rate, index: u64) -> String {
    let window_ms = rate.limit.window_ms;
    match &rate.group {
        None => format!("w{window_ms}.{index}"),
        Some(group) => format!("w{window_ms}.{index}.{group}"),
    }
}

/// A limit and whom it counts: all routes, or one endpoint group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The limit.
    pub limit: Limit,
    /// The endpoint group; `None` is all routes.
    pub group: Option<String>,
}

/// An amount per billing period and what happens when it is used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The endpoint group that it counts; `None` is all of the meter's routes.
    pub group: Option<String>,
    /// Units included in the period; `None` is unlimited.
    pub included: Option<u64>,
    /// What happens beyond them.
    pub at_quota: AtQuota,
    /// The units that a spend cap leaves room for. Never exceeded by one.
    pub cap: Option<u64>,
}

/// One request, and everything that holds for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The time of the request.
    pub now: Timestamp,
    /// Whole units that it takes, at least 1.
    pub cost: u64,
    /// The meter that counts it.
    pub meter: String,
    /// The endpoint group it belongs to.
    pub group: Option<String>,
    /// What the customer pays: another plan has quotas of its own, as it has a price of its own.
    pub plan: PlanId,
    /// The epoch of the records that this was made from.
    pub auth_epoch: u64,
    /// The customer's billing periods.
    pub cycle: Cycle,
    /// All limits, each of which must hold.
    pub rates: Vec<Rate>,
    /// All quotas, each of which must hold: the meter's first.
    pub quotas: Vec<Quota>,
}

impl Demand {
    /// What holds for a request that costs `cost` on `meter`. Limits and quotas of a sharded customer are split: shard `i`
    /// of `n` holds its n-th part, the first ones the remainder.
    #[must_use]
    pub fn new(
        subject: &Subject<'_>,
        meter: &str,
        group: Option<usize>,
        cost: u64,
        shard: u32,
        now: Timestamp,
    ) -> Self {
        let Subject {
            customer,
            phase,
            terms,
            slower,
        } = *subject;
        let granted = customer.granted(meter, now.s());
        let share = |units: u64| share(units, shard, terms.shards);
        let part = |limit: Limit| Limit {
            units: share(limit.units),
            ..limit
        };
        let policy = |at_quota: AtQuota| match at_quota {
            AtQuota::Throttle(limit) => AtQuota::Throttle(part(limit)),
            other => other,
        };
        let mut rates: Vec<Rate> = terms
            .limits
            .iter()
            .map(|&limit| Rate {
                limit: part(limit),
                group: None,
            })
            .collect();
        let mut quotas = vec![Quota {
            group: None,
            // A meter that the tier does not name includes nothing of its own and is not held by a quota.
            included: subject.included(meter, granted).map(share),
            at_quota: policy(terms.at_quota),
            cap: subject.cap(meter, granted).map(share),
        }];
        if let Some(limit) = slower {
            // It slows down and shuts nothing: a request that takes more than it holds passes once in a window.
            let limit = part(limit);
            let units = limit.units.max(cost);
            add_rate(&mut rates, Limit { units, ..limit }, &None);
        }
        let group = group.and_then(|index| terms.groups.get(index));
        if let Some(group) = group {
            rates.extend(group.limits.iter().map(|&limit| Rate {
                limit: part(limit),
                group: Some(group.name.clone()),
            }));
            if let Some(included) = group.included {
                quotas.push(Quota {
                    group: Some(group.name.clone()),
                    included: Some(share(included)),
                    at_quota: policy(group.at_quota),
                    cap: None,
                });
            }
        }
        let group = group.map(|group| group.name.clone());
        Self {
            now,
            cost,
            meter: meter.to_owned(),
            group,
            plan: phase.plan.clone(),
            auth_epoch: customer.auth_epoch,
            cycle: customer.cycle.clone(),
            rates,
            quotas,
        }
    }

    fn quota_attribute(&self, quota: &Quota, period: Period) -> String {
        match &quota.group {
            None => quota_attribute(period.start, &self.meter, &self.plan),
            Some(group) => format!("q{}@{group}.{}", period.start, self.plan),
        }
    }

    /// The limits that hold in a given state: the tier's, and the slower one of every quota that is used up. Two limits
    /// over the same window are one, the stricter.
    fn rates_at(&self, used: impl Fn(&Quota) -> u64) -> Vec<Rate> {
        let mut rates = self.rates.clone();
        for quota in &self.quotas {
            if let AtQuota::Throttle(limit) = quota.at_quota
                && quota.is_used_up(used(quota), self.cost)
            {
                add_rate(&mut rates, limit, &quota.group);
            }
        }
        rates
    }

    /// What holds of a limit without the slower ones of used up quotas, which end with the quota's period; `None` is nothing.
    fn own_rate(&self, rate: &Rate) -> Option<&Rate> {
        let is_same = |own: &&Rate| own.limit.window_ms == rate.limit.window_ms && own.group == rate.group;
        self.rates.iter().find(is_same)
    }
}

/// Adds a limit. Two limits over the same window are one, the stricter.
fn add_rate(rates: &mut Vec<Rate>, limit: Limit, group: &Option<String>) {
    match rates
        .iter_mut()
        .find(|rate| rate.limit.window_ms == limit.window_ms && rate.group == *group)
    {
        Some(rate) => rate.limit.units = rate.limit.units.min(limit.units),
        None => rates.push(Rate {
            limit,
            group: group.clone(),
        }),
    }
}

/// Whose request it is, and what holds for it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The customer.
    pub customer: &'a Customer,
    /// The phase that the request falls in.
    pub phase: &'a Phase,
    /// The terms of that phase.
    pub terms: &'a Terms,
    /// A limit that the customer's standing puts on top.
    pub slower: Option<Limit>,
}

impl Subject<'_> {
    /// Units included in the period, with what was granted besides; `None` is unlimited. A meter that the tier does not name
    /// includes nothing of its own and is not held by a quota.
    #[must_use]
    pub fn included(&self, meter: &str, granted: u64) -> Option<u64> {
        let included = self.terms.included.get(meter).copied().flatten()?;
        Some(included.saturating_add(granted))
    }

    /// The units that a spend cap leaves room for, with what was granted besides.
    #[must_use]
    pub fn cap(&self, meter: &str, granted: u64) -> Option<u64> {
        Some(self.terms.cap_units.get(meter)?.saturating_add(granted))
    }
}

impl Quota {
    fn is_used_up(&self, used: u64, cost: u64) -> bool {
        self.included
            .is_some_and(|included| used.saturating_add(cost) > included)
    }

    /// The units that may never be exceeded in the period: a blocked quota, a spend cap, and where the tier slows down the
    /// included units for as long as it has not.
    fn hard(&self, used: u64, cost: u64) -> Option<u64> {
        let included = match self.at_quota {
            AtQuota::Overage => None,
            AtQuota::Block => self.included,
            AtQuota::Throttle(_) if self.is_used_up(used, cost) => None,
            AtQuota::Throttle(_) => self.included,
        };
        match (included, self.cap) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

/// The part of a customer's units that one of its shards holds.
#[must_use]
pub fn share(units: u64, shard: u32, shards: u32) -> u64 {
    let shards = u64::from(shards.max(1));
    units / shards + u64::from(u64::from(shard) < units % shards)
}

/// A counter item as it was last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Belief {
    /// The item.
    pub counters: Counters,
    /// When it was seen.
    pub at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct WindowGuard {
    now: String,
    now_max: u64,
    previous: String,
    previous_max: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct QuotaGuard {
    name: String,
    max: Option<u64>,
}

/// One conditional write: what it adds, and under which condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The bucket that the units are counted in.
    pub bucket: Bucket,
    /// The billing period of that bucket.
    pub period: Period,
    cost: u64,
    auth_epoch: u64,
    unit: String,
    windows: Vec<WindowGuard>,
    quotas: Vec<QuotaGuard>,
    stale: Vec<String>,
}

/// Plans the write for a demand.
///
/// The table compares each of two attributes with a constant, the limit is on their weighed sum: whatever room there is
/// above the belief is split evenly between both, so that it holds for as long as possible that neither moved too far. What
/// is known for good — a previous window seen after it ended — gets no room, and the present window all of it.
///
/// # Errors
/// [`Denial`] if the request costs more than a limit ever holds.
pub fn plan(demand: &Demand, belief: Option<&Belief>) -> Result<Attempt, Denial> {
    let unseen = Belief::default();
    let Belief { counters, at } = belief.unwrap_or(&unseen);
    let bucket = demand.cycle.bucket_after_seal(demand.now.s(), counters.sealed);
    let period = demand.cycle.period_at(bucket.start);
    let used = |quota: &Quota| counters.units_of(&demand.quota_attribute(quota, period));

    let mut windows = Vec::with_capacity(demand.rates.len() + 1);
    for rate in demand.rates_at(used) {
        let Some(room) = rate.limit.units.checked_sub(demand.cost) else {
            let is_never = demand.own_rate(&rate).is_some_and(|own| own.limit.units < demand.cost);
            return Err(Denial {
                not_before: (!is_never).then_some(Timestamp::from_s(period.end)),
                ..Denial::never(&rate)
            });
        };
        let index = limit::window_index(rate.limit, demand.now);
        let now = window_attribute(&rate, index);
        let previous = window_attribute(&rate, index.saturating_sub(1));
        let now_seen = counters.units_of(&now);
        let previous_seen = counters.units_of(&previous);
        let is_previous_final = at.ms() >= index.saturating_mul(rate.limit.window_ms);
        let previous_max = if is_previous_final {
            previous_seen
        } else {
            let slack =
                room.saturating_sub(now_seen)
                    .saturating_sub(limit::carried(rate.limit, previous_seen, demand.now));
            previous_seen.saturating_add(limit::previous_max(rate.limit, slack / 2, demand.now))
        }
        .min(limit::previous_max(rate.limit, room, demand.now));
        let now_max = room.saturating_sub(limit::carried(rate.limit, previous_max, demand.now));
        windows.push(WindowGuard {
            now,
            now_max,
            previous,
            previous_max,
        });
    }

    let mut quotas = Vec::with_capacity(demand.quotas.len());
    for quota in &demand.quotas {
        let max = match quota.hard(used(quota), demand.cost) {
            None => None,
            Some(hard) => match hard.checked_sub(demand.cost) {
                Some(max) => Some(max),
                // Not one such request fits into a period: no write can say "less than nothing".
                None => return Err(Denial::quota(quota, hard, None)),
            },
        };
        quotas.push(QuotaGuard {
            name: demand.quota_attribute(quota, period),
            max,
        });
    }

    let unit = bucket_attribute(bucket.start, &demand.meter);
    let stale = stale_attributes(counters, demand.now, period);
    Ok(Attempt {
        bucket,
        period,
        cost: demand.cost,
        auth_epoch: demand.auth_epoch,
        unit,
        windows,
        quotas,
        stale,
    })
}

/// The window and quota attributes that nothing reads any more. Bucket attributes are never among them: only a frozen row
/// prunes its own.
fn stale_attributes(counters: &Counters, now: Timestamp, period: Period) -> Vec<String> {
    let is_stale = |name: &str| {
        if let Some(rest) = name.strip_prefix('w') {
            let mut parts = rest.split('.');
            let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok());
            let (Some(window_ms), Some(index)) = (number(), number()) else {
                return false;
            };
            // The window after it may still ask for it as its previous one.
            let asked_until = index.saturating_add(2).saturating_mul(window_ms);
            let ended = index.saturating_add(1).saturating_mul(window_ms);
            now.ms() >= asked_until && now.ms() > ended.saturating_add(WINDOW_KEPT_MS)
        } else if let Some(rest) = name.strip_prefix('q') {
            let start = rest
                .split(['.', '@'])
                .next()
                .and_then(|start| start.parse::<u64>().ok());
            start.is_some_and(|start| start < period.start) && now.s() > period.start.saturating_add(PERIOD_KEPT_S)
        } else {
            false
        }
    };
    counters.units.keys().filter(|name| is_stale(name)).cloned().collect()
}

impl Attempt {
    /// Whether the condition holds for an item: the twin of [`Attempt::expression`]'s condition.
    #[must_use]
    pub fn permits(&self, item: &Counters) -> bool {
        item.auth_epoch <= self.auth_epoch
            && item.sealed < self.bucket.start
            && self.windows.iter().all(|window| {
                item.units_of(&window.previous) <= window.previous_max && item.units_of(&window.now) <= window.now_max
            })
            && self
                .quotas
                .iter()
                .all(|quota| quota.max.is_none_or(|max| item.units_of(&quota.name) <= max))
    }

    /// What the write makes of an item: the twin of [`Attempt::expression`]'s update.
    pub fn apply(&self, item: &mut Counters) {
        for name in self.counted() {
            let units = item.units.entry(name.clone()).or_insert(0);
            *units = units.saturating_add(self.cost);
        }
        for name in &self.stale {
            item.units.remove(name);
        }
    }

    fn counted(&self) -> impl Iterator<Item = &String> {
        let windows = self.windows.iter().map(|window| &window.now);
        std::iter::once(&self.unit)
            .chain(windows)
            .chain(self.quotas.iter().map(|quota| &quota.name))
    }

    /// The write. An item that does not exist fails the condition: admission never creates one.
    #[must_use]
    pub fn expression(&self) -> Expression {
        let mut write = Expression::new("SET ", "auth_epoch <= :epoch AND sealed < :bucket")
            .value(":epoch", self.auth_epoch)
            .value(":bucket", self.bucket.start)
            .value(":zero", 0)
            .value(":cost", self.cost);
        // Writing to a `String` can not fail.
        for (i, name) in self.counted().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            let _ = write!(write.update, "{comma}#n{i} = if_not_exists(#n{i}, :zero) + :cost");
            write.names.push((format!("#n{i}"), name.clone()));
        }
        for (i, name) in self.stale.iter().enumerate() {
            let _ = write!(write.update, "{} #s{i}", if i == 0 { " REMOVE" } else { "," });
            write.names.push((format!("#s{i}"), name.clone()));
        }
        let windows = self.windows.len();
        for (i, window) in self.windows.iter().enumerate() {
            let n = i + 1; // #n0 is the bucket
            let _ = write!(
                write.condition,
                " AND (attribute_not_exists(#p{i}) OR #p{i} <= :p{i}) AND (attribute_not_exists(#n{n}) OR #n{n} <= :w{i})"
            );
            write.names.push((format!("#p{i}"), window.previous.clone()));
            write.values.push((format!(":p{i}"), Value::N(window.previous_max)));
            write.values.push((format!(":w{i}"), Value::N(window.now_max)));
        }
        for (i, max) in self
            .quotas
            .iter()
            .enumerate()
            .filter_map(|(i, quota)| Some((i, quota.max?)))
        {
            let n = 1 + windows + i;
            let _ = write!(write.condition, " AND (attribute_not_exists(#n{n}) OR #n{n} <= :q{i})");
            write.values.push((format!(":q{i}"), Value::N(max)));
        }
        write
    }

    /// The bucket's cumulative units after the write, from the item that it returned.
    #[must_use]
    pub fn bucket_units(&self, item: &Counters) -> u64 {
        item.units_of(&self.unit)
    }

    /// The period's cumulative units of the meter after the write.
    #[must_use]
    pub fn period_units(&self, item: &Counters) -> u64 {
        self.quotas.first().map_or(0, |quota| item.units_of(&quota.name))
    }
}

/// Why a request is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DenialReason {
    /// A limit is used up.
    RateLimit(Rate),
    /// The included units are used up and the tier blocks.
    QuotaExceeded {
        /// The endpoint group whose units they are; `None` is all of the meter's routes.
        group: Option<String>,
        /// The units that were included.
        included: u64,
    },
    /// The spend cap is reached.
    SpendCap,
    /// The request takes more units than its limit or quota ever holds.
    CostTooHigh {
        /// The most that one request can take.
        units_max: u64,
    },
}

/// A denial: a value, not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Why.
    pub reason: DenialReason,
    /// The first moment at which the same request is admitted if nobody else takes units; `None` is never.
    pub not_before: Option<Timestamp>,
}

impl Denial {
    fn never(rate: &Rate) -> Self {
        Self {
            reason: DenialReason::CostTooHigh {
                units_max: rate.limit.units,
            },
            not_before: None,
        }
    }

    fn quota(quota: &Quota, hard: u64, not_before: Option<Timestamp>) -> Self {
        let reason = match not_before {
            None if hard > 0 => DenialReason::CostTooHigh { units_max: hard },
            // Where units beyond the included ones are billed, only the cap is hard.
            _ if quota.at_quota != AtQuota::Overage && quota.included == Some(hard) => DenialReason::QuotaExceeded {
                group: quota.group.clone(),
                included: hard,
            },
            _ => DenialReason::SpendCap,
        };
        Self { reason, not_before }
    }
}

/// What an exact item says of a demand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The records changed since the demand was made from them: read them again and decide again.
    Stale,
    /// This write is permitted by the item that was judged.
    Admissible(Attempt),
    /// Denied, and until when.
    Denied(Denial),
}

/// Judges a demand by the exact item, as a failed condition brings it.
#[must_use]
pub fn judge(demand: &Demand, item: &Counters) -> Judgement {
    if item.auth_epoch > demand.auth_epoch {
        return Judgement::Stale;
    }
    let belief = Belief {
        counters: item.clone(),
        at: demand.now,
    };
    let attempt = match plan(demand, Some(&belief)) {
        Ok(attempt) => attempt,
        Err(denial) => return Judgement::Denied(denial),
    };
    let used = |quota: &Quota| item.units_of(&demand.quota_attribute(quota, attempt.period));

    let mut denial: Option<Denial> = None;
    let mut hold = |candidate: Denial| {
        // "Never" is later than any time.
        let later = |a: Option<Timestamp>, b: Option<Timestamp>| b.is_some() && a.is_none_or(|a| Some(a) > b);
        if denial
            .as_ref()
            .is_none_or(|held| later(candidate.not_before, held.not_before))
        {
            denial = Some(candidate);
        }
    };
    for rate in demand.rates_at(used) {
        let count = |index| item.units_of(&window_attribute(&rate, index));
        let earliest = |limit| limit::earliest(limit, demand.cost, demand.now, count);
        let time = match demand.own_rate(&rate) {
            Some(own) if *own == rate => earliest(rate.limit),
            own => {
                let alone = own.map_or(Some(demand.now), |own| earliest(own.limit));
                let after = alone.map(|time| time.max(Timestamp::from_s(attempt.period.end)));
                earliest(rate.limit).into_iter().chain(after).min()
            }
        };
        match time {
            Some(time) if time == demand.now => {}
            Some(time) => hold(Denial {
                reason: DenialReason::RateLimit(rate),
                not_before: Some(time),
            }),
            None => hold(Denial::never(&rate)),
        }
    }
    for quota in &demand.quotas {
        let used = used(quota);
        if let Some(hard) = quota.hard(used, demand.cost)
            && used.saturating_add(demand.cost) > hard
        {
            hold(Denial::quota(quota, hard, Some(Timestamp::from_s(attempt.period.end))));
        }
    }
    match denial {
        Some(denial) => Judgement::Denied(denial),
        None => Judgement::Admissible(attempt),
    }
}

/// Where a caller stands after a decision, for headers and the back end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// One for each limit that holds.
    pub rates: Vec<RateStanding>,
    /// The meter's quota, or the endpoint group's that denied.
    pub quota: QuotaStanding,
}

/// Where a caller stands with one limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateStanding {
    /// The limit.
    pub rate: Rate,
    /// Units that would be admitted right now.
    pub remaining: u64,
    /// When the present window ends; of the limit that denied no sooner than the same request is admitted.
    pub reset: Timestamp,
}

/// Where a caller stands with the quota of the billing period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaStanding {
    /// Included units; `None` is unlimited.
    pub included: Option<u64>,
    /// Units admitted in the period.
    pub used: u64,
    /// When the period ends.
    pub reset: Timestamp,
}

/// Where a caller stands, by the item as it is now known, and after a denial if there was one.
#[must_use]
pub fn standing(demand: &Demand, item: &Counters, denial: Option<&Denial>) -> Standing {
    let bucket = demand.cycle.bucket_after_seal(demand.now.s(), item.sealed);
    let period = demand.cycle.period_at(bucket.start);
    let used = |quota: &Quota| item.units_of(&demand.quota_attribute(quota, period));
    let rates = demand
        .rates_at(used)
        .into_iter()
        .map(|rate| {
            let index = limit::window_index(rate.limit, demand.now);
            let previous = item.units_of(&window_attribute(&rate, index.saturating_sub(1)));
            let taken = item
                .units_of(&window_attribute(&rate, index))
                .saturating_add(limit::carried(rate.limit, previous, demand.now));
            let window_end = demand.now.plus_ms(limit::ms_left(rate.limit, demand.now));
            // Part of the present window still counts in the next one.
            let admitted_at = denial
                .filter(|denial| matches!(&denial.reason, DenialReason::RateLimit(denied_by) if *denied_by == rate))
                .and_then(|denial| denial.not_before);
            RateStanding {
                remaining: rate.limit.units.saturating_sub(taken),
                reset: admitted_at.map_or(window_end, |time| time.max(window_end)),
                rate,
            }
        })
        .collect();
    let of_group = denial.and_then(|denial| match &denial.reason {
        DenialReason::QuotaExceeded { group, .. } => demand.quotas.iter().find(|quota| quota.group == *group),
        _ => None,
    });
    let told = of_group.or(demand.quotas.first());
    Standing {
        rates,
        quota: QuotaStanding {
            included: told.and_then(|quota| quota.included),
            used: told.map_or(0, used),
            reset: Timestamp::from_s(period.end),
        },
    }
}

/// What happens to a request when the table's answer is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// Admit: the tier bills or slows down, and nothing is ever billed that was not counted.
    Open,
    /// Deny: the tier promised its owner that a quota or a spend cap is never exceeded, not by one unit.
    Closed,
}

/// The one place that chooses open or closed.
#[must_use]
pub fn on_outage(demand: &Demand) -> Outage {
    let is_hard =
        |quota: &Quota| quota.cap.is_some() || (quota.included.is_some() && matches!(quota.at_quota, AtQuota::Block));
    if demand.quotas.iter().any(is_hard) {
        Outage::Closed
    } else {
        Outage::Open
    }
}
