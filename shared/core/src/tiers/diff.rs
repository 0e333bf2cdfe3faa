//! What changes from one catalog to the next, for who reads it before it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};

use super::plan::priced;
use super::{
    AtQuota, BasePrice, Catalog, Custom, DEFAULT_METER, Group, Limit, Overrides, Pattern, Step, Tier, UsagePrice,
};
use crate::money::{Currency, Money};

/// One tier that is not the same in two catalogs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierChange {
    /// The tier's name; empty where the change is one of the file as a whole.
    pub tier: String,
    /// What became of it.
    pub kind: TierChangeKind,
    /// One sentence for each field that changed, beginning with the tier: `pro: price 49/month → 59/month`. Values are
    /// written as in the file. Never empty.
    pub sentences: Vec<String>,
    /// Whether the plan id is another one afterwards, so that customers of the tier need other prices in Stripe. Where the
    /// tier leaves things `custom`, whether that can be so for one of them.
    pub is_money: bool,
}

/// What became of a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TierChangeKind {
    /// Weights, meters or the order of the tiers: the file as a whole.
    File,
    /// Only the new catalog has it.
    Added,
    /// Only the old catalog has it.
    Removed,
    /// Both have it, with other values.
    Changed,
}

impl Catalog {
    /// What `new` changes: first the file as a whole, then each tier that is added or changed in the order of `new`, then
    /// those that are removed. Empty when both say the same.
    pub fn diff(&self, new: &Self) -> Vec<TierChange> {
        let kept = new.tiers.iter().map(|tier| match self.tier(&tier.name) {
            Some(old) => changed((self.currency, old), (new.currency, tier)),
            None => Some(added(tier, new.currency)),
        });
        let removed = self.tiers.iter().filter(|tier| new.tier(&tier.name).is_none());
        file(self, new)
            .into_iter()
            .chain(kept.flatten())
            .chain(removed.map(removed_tier))
            .collect()
    }
}

impl Overrides {
    /// What is agreed, field by field as [`Catalog::diff`] writes it: `price 999/month`, `included 1000000`.
    pub fn sentences(&self, currency: Currency) -> Vec<String> {
        // Every field is named, so that a new one is not forgotten here.
        let Self {
            price: base,
            included: units,
            limits,
            overage,
            at_quota,
            spend_cap,
            alert_percents,
            past_due,
        } = self;
        let fields = [
            ("price", base.map(|base| price(&Custom::Fixed(base), currency))),
            (
                "included",
                units.as_ref().map(|units| included(&Custom::Fixed(units.clone()))),
            ),
            ("limits", limits.as_deref().map(limit_list)),
            (
                "overage",
                overage
                    .as_ref()
                    .map(|prices| by_meter(&written(prices, |meter, price| usage(meter, price, currency)))),
            ),
            ("at_quota", at_quota.map(policy)),
            (
                "spend_cap",
                spend_cap
                    .as_ref()
                    .map(|caps| by_meter(&written(caps, |_, cap| amount(*cap, currency)))),
            ),
            (
                "alerts_at",
                alert_percents
                    .as_deref()
                    .map(|percents| format!("[{}]", list(percents))),
            ),
            ("past_due", past_due.map(|past_due| past_due.to_string())),
        ];
        fields
            .into_iter()
            .filter_map(|(field, value)| Some(format!("{field} {}", value?)))
            .collect()
    }
}

impl Display for TierChange {
    /// One sentence per line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentences.join("\n"))
    }
}

fn added(tier: &Tier, currency: Currency) -> TierChange {
    let facts = [
        format!("price {}", price(&tier.price, currency)),
        format!("included {}", included(&tier.included)),
        format!("limits {}", limits(&tier.limits)),
        format!("endpoints [{}]", list(&tier.endpoints)),
    ];
    TierChange {
        tier: tier.name.clone(),
        kind: TierChangeKind::Added,
        sentences: vec![format!("{}: added: {}", tier.name, facts.join(", "))],
        is_money: true,
    }
}

fn removed_tier(tier: &Tier) -> TierChange {
    TierChange {
        tier: tier.name.clone(),
        kind: TierChangeKind::Removed,
        sentences: vec![format!("{}: removed", tier.name)],
        is_money: true,
    }
}

/// What holds for every tier.
fn file(old: &Catalog, new: &Catalog) -> Option<TierChange> {
    let mut facts = Facts::default();
    facts.routes("meters", &old.meters, &new.meters);
    facts.routes("weights", &old.weights, &new.weights);
    let order = |catalog: &Catalog, other: &Catalog| {
        let names = catalog.tiers.iter().map(|tier| tier.name.clone());
        names.filter(|name| other.tier(name).is_some()).collect::<Vec<_>>()
    };
    facts.value("order of tiers", list(&order(old, new)), list(&order(new, old)));
    (!facts.0.is_empty()).then(|| TierChange {
        tier: String::new(),
        kind: TierChangeKind::File,
        sentences: facts.0,
        is_money: false,
    })
}

fn changed((old_currency, old): (Currency, &Tier), (new_currency, new): (Currency, &Tier)) -> Option<TierChange> {
    let sentences = facts((old_currency, old), (new_currency, new)).0;
    (!sentences.is_empty()).then(|| TierChange {
        tier: new.name.clone(),
        kind: TierChangeKind::Changed,
        sentences: sentences.iter().map(|fact| format!("{}: {fact}", new.name)).collect(),
        is_money: money(old, old_currency) != money(new, new_currency),
    })
}

/// What the plan id is the hash of, as far as the tier says it.
fn money(tier: &Tier, currency: Currency) -> String {
    let (base, included) = (fixed(&tier.price), fixed(&tier.included));
    priced(&tier.name, currency, base, included, &tier.overage)
}

fn fixed<T>(value: &Custom<T>) -> Option<&T> {
    match value {
        Custom::Fixed(value) => Some(value),
        Custom::Custom => None,
    }
}

fn facts((old_currency, old): (Currency, &Tier), (new_currency, new): (Currency, &Tier)) -> Facts {
    let mut facts = Facts::default();
    // Every field is named, so that a new one is not forgotten here.
    let Tier {
        name: _,
        price: old_price,
        interval: old_interval,
        included: old_included,
        limits: old_limits,
        endpoints,
        overage,
        at_quota,
        spend_cap,
        trial_days,
        shards,
        weights,
        warn_percent,
        alert_percents,
        past_due,
        groups,
        support,
        sla,
    } = old;
    facts.value("currency", old_currency, new_currency);
    facts.value("price", price(old_price, old_currency), price(&new.price, new_currency));
    // A listed price says its period itself.
    if let (Custom::Custom, Custom::Custom, Some(old), Some(new)) = (old_price, &new.price, old_interval, new.interval)
    {
        facts.value("billing period", old, new);
    }
    match (old_included, &new.included) {
        (Custom::Fixed(old), Custom::Fixed(new)) => facts.meters("included", old, new, |units| quota(*units)),
        (old, new) => facts.value("included", included(old), included(new)),
    }
    facts.value("limits", limits(old_limits), limits(&new.limits));
    facts.set("endpoints", endpoints, &new.endpoints);
    let old_usage = written(overage, |meter, price| usage(meter, price, old_currency));
    let new_usage = written(&new.overage, |meter, price| usage(meter, price, new_currency));
    facts.meters("overage", &old_usage, &new_usage, String::clone);
    facts.value("at_quota", policy(*at_quota), policy(new.at_quota));
    let old_caps = written(spend_cap, |_, cap| amount(*cap, old_currency));
    let new_caps = written(&new.spend_cap, |_, cap| amount(*cap, new_currency));
    facts.meters("spend_cap", &old_caps, &new_caps, String::clone);
    facts.value("trial_days", trial_days, new.trial_days);
    facts.value("shards", shards, new.shards);
    facts.routes("weights", weights, &new.weights);
    facts.value("warn_at", format!("{warn_percent}%"), format!("{}%", new.warn_percent));
    let percents = |percents: &[u16]| format!("[{}]", list(percents));
    facts.value("alerts_at", percents(alert_percents), percents(&new.alert_percents));
    facts.value("past_due", past_due, new.past_due);
    facts.groups(groups, &new.groups);
    facts.value("support", or_none(support.as_ref()), or_none(new.support.as_ref()));
    facts.value("sla", or_none(sla.as_ref()), or_none(new.sla.as_ref()));
    facts
}

/// What changed, each as `field old → new`, `field + value` or `field - value`.
#[derive(Default)]
struct Facts(Vec<String>);

impl Facts {
    fn value(&mut self, field: &str, old: impl Display, new: impl Display) {
        let (old, new) = (old.to_string(), new.to_string());
        if old != new {
            self.0.push(format!("{field} {old} → {new}"));
        }
    }

    fn set(&mut self, field: &str, old: &[Pattern], new: &[Pattern]) {
        let added = new.iter().filter(|pattern| !old.contains(pattern));
        self.0.extend(added.map(|pattern| format!("{field} + {pattern}")));
        let removed = old.iter().filter(|pattern| !new.contains(pattern));
        self.0.extend(removed.map(|pattern| format!("{field} - {pattern}")));
    }

    /// What a mapping by meter says of each; the meter is named unless there is only the default one.
    fn meters<T>(
        &mut self,
        field: &str,
        old: &BTreeMap<String, T>,
        new: &BTreeMap<String, T>,
        write: impl Fn(&T) -> String,
    ) {
        let meters: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let is_plain = meters.iter().all(|meter| *meter == DEFAULT_METER);
        for meter in meters {
            let value = |of: &BTreeMap<String, T>| or_none(of.get(meter).map(&write).as_ref());
            let field = if is_plain {
                field.to_owned()
            } else {
                format!("{field}.{meter}")
            };
            self.value(&field, value(old), value(new));
        }
    }

    /// What a mapping by route says of each.
    fn routes<T: Display>(&mut self, field: &str, old: &[(Pattern, T)], new: &[(Pattern, T)]) {
        let value = |of: &[(Pattern, T)], pattern: &Pattern| {
            let found = of.iter().find(|(other, _)| other == pattern);
            found.map(|(_, value)| value.to_string())
        };
        for (pattern, new) in new {
            match value(old, pattern) {
                Some(old) => self.value(&format!("{field} {pattern}:"), old, new),
                None => self.0.push(format!("{field} + {pattern}: {new}")),
            }
        }
        let removed = old.iter().filter(|(pattern, _)| value(new, pattern).is_none());
        self.0
            .extend(removed.map(|(pattern, value)| format!("{field} - {pattern}: {value}")));
    }

    fn groups(&mut self, old: &[Group], new: &[Group]) {
        for group in new {
            let Group {
                name,
                endpoints,
                limits,
                included,
                at_quota,
            } = group;
            let Some(old) = old.iter().find(|old| old.name == *name) else {
                self.0.push(format!("groups + {}", group_text(group)));
                continue;
            };
            let field = |field: &str| format!("groups.{name}.{field}");
            self.set(&field("endpoints"), &old.endpoints, endpoints);
            self.value(&field("limits"), limit_list(&old.limits), limit_list(limits));
            self.value(&field("included"), quota(old.included), quota(*included));
            self.value(&field("at_quota"), policy(old.at_quota), policy(*at_quota));
        }
        let removed = old.iter().filter(|old| new.iter().all(|group| group.name != old.name));
        self.0.extend(removed.map(|group| format!("groups - {}", group.name)));
    }
}

fn written<T>(values: &BTreeMap<String, T>, write: impl Fn(&str, &T) -> String) -> BTreeMap<String, String> {
    let values = values.iter();
    values
        .map(|(meter, value)| (meter.clone(), write(meter, value)))
        .collect()
}

/// What is said of each meter; the meter is named unless there is only the default one.
fn by_meter(values: &BTreeMap<String, String>) -> String {
    match (values.len(), values.get(DEFAULT_METER)) {
        (0, _) => "none".to_owned(),
        (1, Some(value)) => value.clone(),
        _ => {
            let meters: Vec<String> = values
                .iter()
                .map(|(meter, value)| format!("{meter}: {value}"))
                .collect();
            format!("{{{}}}", meters.join(", "))
        }
    }
}

fn or_none(text: Option<&String>) -> String {
    text.map_or("none", String::as_str).to_owned()
}

fn list<T: Display>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

/// `49`, `49.50`: the number alone, as the file has one currency.
fn amount(amount: Money, currency: Currency) -> String {
    let text = number(&amount.display(currency)).to_owned();
    match text.strip_suffix(".00") {
        Some(whole) => whole.to_owned(),
        None => text,
    }
}

/// Without the symbol or code.
fn number(displayed: &str) -> &str {
    displayed.trim_matches(|char: char| !char.is_ascii_digit())
}

fn price(price: &Custom<BasePrice>, currency: Currency) -> String {
    match price {
        Custom::Fixed(price) => format!("{}/{}", amount(price.amount, currency), price.interval),
        Custom::Custom => "custom".to_owned(),
    }
}

fn quota(units: Option<u64>) -> String {
    units.map_or("unlimited".to_owned(), |units| units.to_string())
}

fn included(included: &Custom<BTreeMap<String, Option<u64>>>) -> String {
    let Custom::Fixed(included) = included else {
        return "custom".to_owned();
    };
    match (included.len(), included.get(DEFAULT_METER)) {
        (1, Some(units)) => quota(*units),
        _ => {
            let meters = included.iter();
            let meters: Vec<String> = meters
                .map(|(meter, units)| format!("{meter}: {}", quota(*units)))
                .collect();
            format!("{{{}}}", meters.join(", "))
        }
    }
}

fn limits(limits: &Custom<Vec<Limit>>) -> String {
    match limits {
        Custom::Fixed(limits) => limit_list(limits),
        Custom::Custom => "custom".to_owned(),
    }
}

fn limit_list(limits: &[Limit]) -> String {
    match limits {
        [] => "unlimited".to_owned(),
        [only] => only.to_string(),
        _ => format!("[{}]", list(limits)),
    }
}

fn policy(at_quota: AtQuota) -> String {
    match at_quota {
        AtQuota::Overage => "overage".to_owned(),
        AtQuota::Throttle(limit) => format!("throttle({limit})"),
        AtQuota::Block => "block".to_owned(),
    }
}

fn usage(meter: &str, price: &UsagePrice, currency: Currency) -> String {
    let unit = |step: &Step| number(&step.unit.display(currency)).to_owned();
    let steps = |steps: &[Step]| {
        let steps: Vec<String> = steps
            .iter()
            .map(|step| {
                let up_to = step.up_to.map(|up_to| format!("up_to: {up_to}"));
                let flat = (step.flat > Money(0)).then(|| format!("flat: {}", amount(step.flat, currency)));
                let parts = [up_to, Some(format!("unit: {}", unit(step))), flat];
                format!("{{{}}}", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
            })
            .collect();
        format!("[{}]", steps.join(", "))
    };
    match price {
        UsagePrice::PerUnit(price) => {
            let unit = if meter == DEFAULT_METER { "call" } else { "unit" };
            format!("{}/{unit}", number(&price.display(currency)))
        }
        UsagePrice::Graduated(own) => format!("{{graduated: {}}}", steps(own)),
        UsagePrice::Volume(own) => format!("{{volume: {}}}", steps(own)),
    }
}

fn group_text(group: &Group) -> String {
    format!(
        "{}: included {}, limits {}, endpoints [{}], at_quota {}",
        group.name,
        quota(group.included),
        limit_list(&group.limits),
        list(&group.endpoints),
        policy(group.at_quota)
    )
}
