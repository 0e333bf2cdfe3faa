//! The rules that fields of a tier must keep together, for the file and for what was agreed with one customer alike.

use std::collections::{BTreeMap, BTreeSet};

use super::past_due::GRACE_S_MAX;
use super::pattern::{Decoded, Method, Pattern, Route};
use super::value::{ALERT_PERCENT_MAX, COUNT_MAX};
use super::{Access, AtQuota, Catalog, Custom, DEFAULT_METER, Limit, PastDuePolicy, Step, Tier, UsagePrice};
use crate::money::MONEY_MAX;

/// What one counter item carries in a minute: a DynamoDB partition takes 1,000 writes a second, with a fifth to spare.
pub(super) const UNITS_PER_MINUTE_MAX: u64 = 48_000;
/// The most counter items of one customer.
pub(super) const SHARDS_MAX: u32 = 30;
/// Each limit, group and meter has attributes in a counter item of 1 KB.
pub(super) const LIMITS_MAX: usize = 4;
pub(super) const GROUPS_MAX: usize = 4;
pub(super) const GROUP_LIMITS_MAX: usize = 2;
pub(super) const METERS_MAX: usize = 4;
/// More mails in one billing period are not read.
const ALERTS_MAX: usize = 8;
/// Stripe takes more, but nobody reads a longer price list.
const STEPS_MAX: usize = 20;

/// A broken rule.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) at: At,
    /// What to show as the value, where it is not what the file has there.
    pub(super) value: Option<String>,
    pub(super) problem: String,
}

/// The field that breaks a rule. `#n` at the end is the index in a list.
#[derive(Debug)]
pub(super) enum At {
    /// A field of the tier, `groups.search.rate_limit`.
    Tier(String),
    /// A field of the file, `weights`.
    File(String),
}

/// A field that could not be read: rules that need it are left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unsure {
    /// A pattern, weight or meter anywhere in the file.
    Routes,
    Included,
    Overage,
    AtQuota,
    Shards,
}

/// Checks the tier at `index`, or what it becomes with a customer's overrides.
pub(super) fn check(catalog: &Catalog, index: usize, tier: &Tier, unsure: &BTreeSet<Unsure>) -> Vec<Broken> {
    let mut check = Check {
        catalog,
        index,
        tier,
        unsure,
        broken: Vec::new(),
    };
    check.limits();
    check.prices();
    check.policy();
    check.alerts();
    if check.sure(&[Unsure::Routes]) {
        check.meters_used();
        check.weights();
        check.groups_open();
    }
    check.broken
}

struct Check<'a> {
    catalog: &'a Catalog,
    index: usize,
    tier: &'a Tier,
    unsure: &'a BTreeSet<Unsure>,
    broken: Vec<Broken>,
}

impl<'a> Check<'a> {
    fn sure(&self, fields: &[Unsure]) -> bool {
        fields.iter().all(|field| !self.unsure.contains(field))
    }

    fn report(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        self.broken.push(Broken {
            at: At::Tier(field.into()),
            value: None,
            problem: problem.into(),
        });
    }

    fn included(&self) -> Option<&'a BTreeMap<String, Option<u64>>> {
        match &self.tier.included {
            Custom::Fixed(included) if self.sure(&[Unsure::Included]) => Some(included),
            _ => None,
        }
    }

    /// Every limit of the tier with its field.
    fn all_limits(&self) -> Vec<(String, Limit)> {
        let mut limits = Vec::new();
        if let Custom::Fixed(fixed) = &self.tier.limits {
            limits.extend(
                fixed
                    .iter()
                    .enumerate()
                    .map(|(index, limit)| (format!("rate_limit#{index}"), *limit)),
            );
        }
        if let AtQuota::Throttle(limit) = self.tier.at_quota {
            limits.push(("at_quota".to_owned(), limit));
        }
        for group in &self.tier.groups {
            let path = format!("groups.{}", group.name);
            let own = group.limits.iter().enumerate();
            limits.extend(own.map(|(index, limit)| (format!("{path}.rate_limit#{index}"), *limit)));
            if let AtQuota::Throttle(limit) = group.at_quota {
                limits.push((format!("{path}.at_quota"), limit));
            }
        }
        limits
    }

    fn limits(&mut self) {
        let tier = self.tier;
        if let Custom::Fixed(limits) = &tier.limits {
            self.limit_list("rate_limit", limits, LIMITS_MAX);
        }
        for group in &tier.groups {
            self.limit_list(
                &format!("groups.{}.rate_limit", group.name),
                &group.limits,
                GROUP_LIMITS_MAX,
            );
        }
        let mut limits = self.all_limits();
        // Its limit may be below a request's weight, which then waits for the payment.
        if let PastDuePolicy::Throttle(limit) = tier.past_due.policy
            && !tier.past_due.is_default_policy()
        {
            limits.push(("past_due".to_owned(), limit));
        }
        for (field, limit) in limits {
            if let Some(problem) = limit.problem() {
                self.report(field, problem);
            } else if self.sure(&[Unsure::Shards]) {
                self.shards_carry(field, limit);
            }
        }
    }

    fn limit_list(&mut self, field: &str, limits: &[Limit], most: usize) {
        if limits.len() > most {
            self.report(field, format!("has {} limits: at most {most}", limits.len()));
        }
        for (index, limit) in limits.iter().enumerate() {
            if limits
                .iter()
                .take(index)
                .any(|earlier| earlier.window_ms == limit.window_ms)
            {
                self.report(
                    format!("{field}#{index}"),
                    "has the same window as another limit: keep the lower one",
                );
            }
        }
    }

    fn shards_carry(&mut self, field: String, limit: Limit) {
        let shards = u64::from(self.tier.shards.max(1));
        let needed = shards_needed(limit);
        if needed > u128::from(SHARDS_MAX) {
            let most = UNITS_PER_MINUTE_MAX * u64::from(SHARDS_MAX);
            self.report(
                field,
                format!("is more than {SHARDS_MAX} shards can carry, which is {most} a minute"),
            );
        } else if needed > u128::from(shards) {
            let problem = format!(
                "is more than {UNITS_PER_MINUTE_MAX} a minute for each counter item: the tier needs shards: {needed}"
            );
            self.report(field, problem);
        } else if limit.units < shards {
            self.report(
                field,
                format!("cannot be split over {shards} shards: each needs at least 1"),
            );
        }
    }

    fn prices(&mut self) {
        if !self.sure(&[Unsure::Overage]) {
            return;
        }
        let tier = self.tier;
        for (meter, price) in &tier.overage {
            let field = format!("overage.{meter}");
            if !self.is_meter(meter) {
                self.report(
                    &*field,
                    format!("names the meter {meter}, which the file does not have"),
                );
            }
            if let UsagePrice::Graduated(steps) | UsagePrice::Volume(steps) = price
                && let Some(problem) = steps_problem(steps)
            {
                self.report(field, problem);
                continue;
            }
            let Some(included) = self.included() else {
                continue;
            };
            if let Some(problem) = included_problem(price, included.get(meter).copied().unwrap_or(Some(0))) {
                self.report(field, problem);
            }
        }
        for (meter, cap) in &tier.spend_cap {
            let field = format!("spend_cap.{meter}");
            let Some(price) = tier.overage.get(meter) else {
                self.report(field, format!("caps the meter {meter}, which has no overage price"));
                continue;
            };
            if *cap > MONEY_MAX {
                self.report(&*field, "is too large: at most 12 digits of the minor unit");
            }
            let Some(included) = self.included() else {
                continue;
            };
            let included = included.get(meter).copied().unwrap_or(Some(0));
            if price.amount(included, 0).is_ok_and(|flat| flat > *cap) {
                self.report(field, "is below the flat amount that is due without any usage");
            }
        }
    }

    fn policy(&mut self) {
        let Some(included) = self.included() else {
            return;
        };
        for (meter, units) in included {
            if !self.is_meter(meter) {
                let problem = format!("names the meter {meter}, which the file does not have");
                self.report(format!("included_calls.{meter}"), problem);
            }
            if units.is_some_and(|units| units > COUNT_MAX) {
                self.report(
                    format!("included_calls.{meter}"),
                    "is too large: a count has at most 15 digits",
                );
            }
        }
        if !self.sure(&[Unsure::Overage, Unsure::AtQuota]) || self.tier.at_quota != AtQuota::Overage {
            return;
        }
        for meter in included
            .iter()
            .filter(|(_, units)| units.is_some())
            .map(|(meter, _)| meter)
        {
            if !self.tier.overage.contains_key(meter) {
                let problem = match self.tier.overage.len() {
                    0 => "bills what exceeds the quota, but no overage price is given".to_owned(),
                    _ => format!("bills what exceeds the quota, but {meter} has a quota and no overage price"),
                };
                self.report("at_quota", problem);
                return;
            }
        }
    }

    fn alerts(&mut self) {
        let percents = &self.tier.alert_percents;
        if percents.len() > ALERTS_MAX {
            self.report(
                "alerts_at",
                format!("has {} percentages: at most {ALERTS_MAX}", percents.len()),
            );
        }
        for (index, percent) in percents.iter().enumerate() {
            let problem = if !(1..=ALERT_PERCENT_MAX).contains(percent) {
                format!("is not a percentage from 1% to {ALERT_PERCENT_MAX}%")
            } else if percents
                .iter()
                .take(index)
                .filter(|earlier| *earlier == percent)
                .count()
                == 1
            {
                "names the same percentage twice: leave one out".to_owned()
            } else {
                continue;
            };
            // What is agreed was written nowhere that a message could quote.
            self.broken.push(Broken {
                at: At::Tier(format!("alerts_at#{index}")),
                value: Some(format!("{percent}%")),
                problem,
            });
        }
        if self.tier.past_due.grace_s > GRACE_S_MAX {
            self.report("past_due", "has a grace of more than 60 days");
        }
    }

    fn is_meter(&self, name: &str) -> bool {
        name == DEFAULT_METER || self.catalog.meters.iter().any(|(_, meter)| meter == name)
    }

    /// A meter that counts an open route must have a quota or a price, and a quota that lets something through.
    fn meters_used(&mut self) {
        let Some(included) = self.included() else {
            return;
        };
        if !self.sure(&[Unsure::Overage, Unsure::AtQuota]) {
            return;
        }
        for (meter, route) in self.open_meters() {
            let units = included.get(&meter).copied();
            if units == Some(Some(0)) && self.tier.at_quota == AtQuota::Block {
                let problem = format!("is 0 and at_quota is block, so {route} could never be admitted");
                self.report(format!("included_calls.{meter}"), problem);
            } else if units.is_none() && !self.tier.overage.contains_key(&meter) {
                let problem =
                    format!("says nothing of the meter {meter}, which counts {route}: add it, maybe as unlimited");
                self.report("included_calls", problem);
            }
        }
    }

    /// The meters that count a route of the tier, each with such a route.
    fn open_meters(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let meters: BTreeSet<&str> = self.catalog.meters.iter().map(|(_, meter)| meter.as_str()).collect();
        let probe = Probe::new(self.catalog);
        for endpoint in self.catalog.tiers.iter().flat_map(|tier| &tier.endpoints) {
            let meets = self
                .catalog
                .meters
                .iter()
                .filter_map(|(pattern, _)| pattern.meet(endpoint));
            for region in std::iter::once(endpoint.clone()).chain(meets) {
                if found.len() > meters.len() {
                    return found;
                }
                for access in probe.accesses(self.catalog, self.index, &region) {
                    if let Access::Open { meter, .. } = access
                        && !found.contains_key(meter)
                    {
                        found.insert(meter.to_owned(), region.to_string());
                    }
                }
            }
        }
        found
    }

    /// No open route may weigh more than a limit or a blocked quota on its way ever admits.
    fn weights(&mut self) {
        let ceilings = self.ceilings();
        let Some(lowest) = ceilings.iter().map(|ceiling| ceiling.units).min() else {
            return;
        };
        let tier = self.tier;
        let own = tier
            .weights
            .iter()
            .enumerate()
            .map(|(index, weight)| (weight, At::Tier(format!("weights#{index}"))));
        let file = self.catalog.weights.iter().enumerate();
        let file = file.map(|(index, weight)| (weight, At::File(format!("weights#{index}"))));
        let probe = Probe::new(self.catalog);
        for ((pattern, weight), at) in own.chain(file) {
            if *weight <= lowest {
                continue;
            }
            if let Some(ceiling) = self.exceeded(&probe, pattern, *weight, &ceilings) {
                let problem = format!(
                    "takes {weight} units, but tiers.{}.{} admits {} at most, so the request could never be admitted",
                    tier.name, ceiling.what, ceiling.units
                );
                self.broken.push(Broken {
                    at,
                    value: Some(pattern.to_string()),
                    problem,
                });
            }
        }
    }

    fn exceeded<'c>(
        &self,
        probe: &Probe,
        pattern: &Pattern,
        weight: u64,
        ceilings: &'c [Ceiling],
    ) -> Option<&'c Ceiling> {
        let endpoints = self.catalog.tiers.iter().flat_map(|tier| &tier.endpoints);
        for region in endpoints.filter_map(|endpoint| endpoint.meet(pattern)) {
            for access in probe.accesses(self.catalog, self.index, &region) {
                let Access::Open { meter, cost, group } = access else {
                    continue;
                };
                let holds = |ceiling: &&Ceiling| {
                    ceiling.units < cost
                        && ceiling.meter.as_deref().is_none_or(|one| one == meter)
                        && ceiling.group.is_none_or(|one| Some(one) == group)
                };
                // Another weight may be the one that decides here; it has its own turn.
                if cost == weight
                    && let Some(ceiling) = ceilings.iter().find(holds)
                {
                    return Some(ceiling);
                }
            }
        }
        None
    }

    /// What a request can't exceed, as far as it is known.
    fn ceilings(&self) -> Vec<Ceiling> {
        let mut ceilings = Vec::new();
        if !self.sure(&[Unsure::Shards, Unsure::AtQuota]) {
            return ceilings;
        }
        // A customer's limit is split over the counter items.
        let share = |units: u64| units / u64::from(self.tier.shards.max(1));
        for (field, limit) in self.all_limits() {
            let what = field.split('#').next().unwrap_or_default().to_owned();
            let group = self
                .tier
                .groups
                .iter()
                .position(|group| what.starts_with(&format!("groups.{}.", group.name)));
            ceilings.push(Ceiling {
                what,
                units: share(limit.units),
                meter: None,
                group,
            });
        }
        if let (Some(included), AtQuota::Block) = (self.included(), self.tier.at_quota) {
            for (meter, units) in included {
                if let Some(units) = units {
                    let what = "included_calls".to_owned();
                    ceilings.push(Ceiling {
                        what,
                        units: share(*units),
                        meter: Some(meter.clone()),
                        group: None,
                    });
                }
            }
        }
        for (index, group) in self.tier.groups.iter().enumerate() {
            if let (Some(units), AtQuota::Block) = (group.included, group.at_quota) {
                let what = format!("groups.{}.included_calls", group.name);
                ceilings.push(Ceiling {
                    what,
                    units: share(units),
                    meter: None,
                    group: Some(index),
                });
            }
        }
        ceilings
    }

    /// A group's pattern must be open to the tier, but for narrower patterns that other tiers name: those never reach
    /// the group.
    fn groups_open(&mut self) {
        let tier = self.tier;
        let probe = Probe::new(self.catalog);
        for group in &tier.groups {
            for (position, pattern) in group.endpoints.iter().enumerate() {
                let closed = probe.find_map(pattern, |route| match self.catalog.deciding(Some(self.index), route) {
                    None => Some(None),
                    Some(deciding) => {
                        let elsewhere = deciding.pattern.is_subset_of(pattern) && deciding.pattern != pattern;
                        (!deciding.is_open && !elsewhere).then_some(self.catalog.tiers.get(deciding.from))
                    }
                });
                let field = format!("groups.{}.endpoints#{position}", group.name);
                match closed {
                    None => {}
                    Some(None) => self.report(field, "is a route that no tier names"),
                    Some(Some(from)) => {
                        self.report(
                            field,
                            format!("is not open to the tier {}, only from {} on", tier.name, from.name),
                        );
                    }
                }
            }
        }
    }
}

/// The most units that something admits at once.
struct Ceiling {
    what: String,
    units: u64,
    meter: Option<String>,
    group: Option<usize>,
}

/// Asks of a pattern with few requests what holds for all that it matches. As the patterns of a file are nested or
/// apart, requests that no narrower pattern matches are all alike, but for their method and length.
struct Probe {
    segments_max: usize,
    /// The methods that the file names, and one that stands for all others.
    methods: Vec<&'static str>,
}

impl Probe {
    fn new(catalog: &Catalog) -> Self {
        let endpoints = catalog.tiers.iter().flat_map(|tier| {
            let groups = tier.groups.iter().flat_map(|group| &group.endpoints);
            tier.endpoints
                .iter()
                .chain(tier.weights.iter().map(|(pattern, _)| pattern))
                .chain(groups)
        });
        let meters = catalog.meters.iter().map(|(pattern, _)| pattern);
        let weights = catalog.weights.iter().map(|(pattern, _)| pattern);
        let (mut segments_max, mut named) = (0, BTreeSet::new());
        for pattern in endpoints.chain(meters).chain(weights) {
            segments_max = segments_max.max(pattern.segment_count());
            named.extend(pattern.method_name());
        }
        let other = Method::ALL
            .into_iter()
            .map(Method::name)
            .find(|method| !named.contains(method));
        Self {
            segments_max,
            methods: named.into_iter().chain(other).collect(),
        }
    }

    fn find_map<T>(&self, pattern: &Pattern, ask: impl Fn(&Route<'_>) -> Option<T>) -> Option<T> {
        pattern
            .examples(self.segments_max, &self.methods)
            .find_map(|(method, path)| {
                let path = Decoded::new(&path)?;
                ask(&Route::new(method, &path)?)
            })
    }

    fn accesses<'c>(&self, catalog: &'c Catalog, index: usize, pattern: &Pattern) -> Vec<Access<'c>> {
        let examples = pattern.examples(self.segments_max, &self.methods);
        examples
            .map(|(method, path)| match Decoded::new(&path) {
                Some(path) => Route::new(method, &path)
                    .map_or(Access::NoSuchRoute, |route| catalog.access_route(Some(index), &route)),
                None => Access::NoSuchRoute,
            })
            .collect()
    }
}

/// How many counter items the limit takes, its share of each being what one carries.
fn shards_needed(limit: Limit) -> u128 {
    let rate = u128::from(limit.units) * 60_000;
    rate.div_ceil(u128::from(UNITS_PER_MINUTE_MAX) * u128::from(limit.window_ms.max(1)))
}

fn steps_problem(steps: &[Step]) -> Option<String> {
    let Some((last, bounded)) = steps.split_last() else {
        return Some("has no steps".to_owned());
    };
    if steps.len() > STEPS_MAX {
        return Some(format!("has {} steps: at most {STEPS_MAX}", steps.len()));
    }
    if last.up_to.is_some() {
        return Some("ends with a bound: the last step must have no up_to".to_owned());
    }
    let mut below = 0;
    for (index, step) in bounded.iter().enumerate() {
        match step.up_to {
            None => {
                return Some(format!(
                    "has no up_to in step {}: only the last step may leave it out",
                    index + 1
                ));
            }
            Some(up_to) if up_to > COUNT_MAX => {
                return Some("has an up_to of more than 15 digits".to_owned());
            }
            Some(up_to) if up_to <= below => {
                return Some(format!(
                    "has steps out of order: up_to {up_to} must be more than {below}"
                ));
            }
            Some(up_to) => below = up_to,
        }
    }
    steps
        .iter()
        .any(|step| step.flat > MONEY_MAX)
        .then(|| "has a flat amount of more than 12 digits".to_owned())
}

fn included_problem(price: &UsagePrice, included: Option<u64>) -> Option<String> {
    match (price, included) {
        (_, None) => Some("would never be charged: the included units are unlimited".to_owned()),
        (UsagePrice::Volume(_), Some(included)) if included > 0 => Some(format!(
            "prices every unit by volume, so {included} units can't be included for free: include 0, or use graduated"
        )),
        (UsagePrice::Graduated(steps), Some(included)) => {
            let within = steps
                .iter()
                .filter_map(|step| step.up_to)
                .find(|up_to| *up_to <= included)?;
            Some(format!(
                "has a step up to {within} within the {included} included units: bounds count the included units too"
            ))
        }
        _ => None,
    }
}
