//! What holds for one customer: the tier, with what was agreed in place of every `custom`.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::check::{At, check};
use super::{AtQuota, Catalog, Custom, Overflow, Overrides, Terms, Tier};
use crate::money::{MONEY_MAX, Money};

/// Why a customer has no terms.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TermsError {
    /// The catalog has no such tier.
    #[error("no tier {name:?}: there are {}", known.join(", "))]
    UnknownTier {
        /// The name that was asked for.
        name: String,
        /// Every tier of the catalog, lowest first.
        known: Vec<String>,
    },
    /// The tier leaves fields to an agreement that the overrides do not hold.
    #[error("tier {tier} needs an agreement on {}", fields.join(", "))]
    Open {
        /// The tier.
        tier: String,
        /// The fields of [`Overrides`] that are missing.
        fields: Vec<&'static str>,
    },
    /// The tier and the overrides together break rules of the file.
    #[error("tier {tier} with its overrides: {}", problems.join("; "))]
    Broken {
        /// The tier.
        tier: String,
        /// Each broken rule, beginning with the field.
        problems: Vec<String>,
    },
}

impl Catalog {
    /// What holds for a customer of `tier` with these overrides.
    ///
    /// A present override replaces the tier's field as a whole. Overage prices without an `at_quota` of their own bring
    /// the file's default with them: if the tier had no overage price and blocked, it now bills.
    ///
    /// `Err` when the catalog has no such tier, when a `custom` field is left open, or when the result breaks a rule that
    /// the file must keep too.
    pub fn terms(&self, tier: &str, overrides: &Overrides) -> Result<Terms, TermsError> {
        let Some((index, tier)) = self.tiers.iter().enumerate().find(|(_, known)| known.name == tier) else {
            let known = self.tiers.iter().map(|tier| tier.name.clone()).collect();
            return Err(TermsError::UnknownTier {
                name: tier.to_owned(),
                known,
            });
        };
        let agreed = agreed(tier, overrides);
        let (Custom::Fixed(price), Custom::Fixed(included), Custom::Fixed(limits)) =
            (&agreed.price, &agreed.included, &agreed.limits)
        else {
            return Err(TermsError::Open {
                tier: tier.name.clone(),
                fields: open_fields(&agreed),
            });
        };
        let mut problems = period_problems(tier, overrides);
        if price.amount > MONEY_MAX {
            problems.push("price is too large: at most 12 digits of the minor unit".to_owned());
        }
        problems.extend(check(self, index, &agreed, &BTreeSet::new()).into_iter().map(|broken| {
            let (At::Tier(field) | At::File(field)) = broken.at;
            let field = field.split('#').next().unwrap_or_default();
            match broken.value {
                Some(value) => format!("{field}: {value:?} {}", broken.problem),
                None => format!("{field} {}", broken.problem),
            }
        }));
        if !problems.is_empty() {
            return Err(TermsError::Broken {
                tier: tier.name.clone(),
                problems,
            });
        }
        Ok(Terms {
            tier: agreed.name.clone(),
            currency: self.currency,
            price: *price,
            included: included.clone(),
            limits: limits.clone(),
            cap_units: cap_units(&agreed, included),
            overage: agreed.overage.clone(),
            at_quota: agreed.at_quota,
            shards: agreed.shards,
            warn_percent: agreed.warn_percent,
            past_due: agreed.past_due.over(agreed.shards),
            trial_days: agreed.trial_days,
            alert_percents: agreed.alert_percents,
            spend_cap: agreed.spend_cap,
            groups: agreed.groups,
            support: agreed.support,
            sla: agreed.sla,
        })
    }
}

impl Terms {
    /// What the usage of a meter costs in a billing period: 0 where it has no overage price. `Err` when the amount does
    /// not fit 64 bits.
    pub fn usage_amount(&self, meter: &str, units: u64) -> Result<Money, Overflow> {
        match self.overage.get(meter) {
            Some(price) => price.amount(self.included_units(meter), units),
            None => Ok(Money(0)),
        }
    }

    /// The included units of a meter: `None` is unlimited, and a meter that is not named includes nothing.
    pub fn included_units(&self, meter: &str) -> Option<u64> {
        self.included.get(meter).copied().unwrap_or(Some(0))
    }
}

/// The tier with the overrides in place.
fn agreed(tier: &Tier, overrides: &Overrides) -> Tier {
    let mut agreed = tier.clone();
    if let Some(price) = overrides.price {
        agreed.price = Custom::Fixed(price);
    }
    if let Some(included) = &overrides.included {
        agreed.included = Custom::Fixed(included.clone());
    }
    if let Some(limits) = &overrides.limits {
        agreed.limits = Custom::Fixed(limits.clone());
    }
    if let Some(overage) = &overrides.overage {
        if tier.overage.is_empty() && tier.at_quota == AtQuota::Block && !overage.is_empty() {
            agreed.at_quota = AtQuota::Overage;
        }
        agreed.overage = overage.clone();
    }
    if let Some(at_quota) = overrides.at_quota {
        agreed.at_quota = at_quota;
    }
    if let Some(spend_cap) = &overrides.spend_cap {
        agreed.spend_cap = spend_cap.clone();
    }
    if let Some(percents) = &overrides.alert_percents {
        agreed.alert_percents = percents.clone();
        agreed.alert_percents.sort_unstable();
    }
    if let Some(past_due) = overrides.past_due {
        agreed.past_due = past_due;
    }
    agreed
}

fn open_fields(tier: &Tier) -> Vec<&'static str> {
    let open = [
        ("price", tier.price == Custom::Custom),
        ("included", tier.included == Custom::Custom),
        ("limits", tier.limits == Custom::Custom),
    ];
    open.into_iter()
        .filter(|(_, is_open)| *is_open)
        .map(|(field, _)| field)
        .collect()
}

/// The tier's quotas and caps are of the period that the file writes behind them; another period needs others.
fn period_problems(tier: &Tier, overrides: &Overrides) -> Vec<String> {
    let of_price = match &tier.price {
        Custom::Fixed(price) => Some(price.interval),
        Custom::Custom => None,
    };
    let (Some(listed), Some(agreed)) = (tier.interval.or(of_price), &overrides.price) else {
        return Vec::new();
    };
    let agreed = agreed.interval;
    if listed == agreed {
        return Vec::new();
    }
    let mut problems = Vec::new();
    let mut refuse = |what: &str, then: &str| {
        problems.push(format!(
            "price is per {agreed}, but the tier's {what} is per {listed}: {then}"
        ));
    };
    if overrides.included.is_none() && tier.included != Custom::Custom {
        refuse("quota", "agree on included too");
    }
    if overrides.spend_cap.is_none() && !tier.spend_cap.is_empty() {
        refuse("spend cap", "agree on spend_cap too");
    }
    for group in tier.groups.iter().filter(|group| group.included.is_some()) {
        refuse(
            &format!("quota of the group {}", group.name),
            "list a tier for that period",
        );
    }
    problems
}

fn cap_units(tier: &Tier, included: &BTreeMap<String, Option<u64>>) -> BTreeMap<String, u64> {
    let caps = tier.spend_cap.iter().filter_map(|(meter, cap)| {
        let included = included.get(meter).copied().unwrap_or(Some(0));
        Some((meter.clone(), tier.overage.get(meter)?.units_within(included, *cap)))
    });
    caps.collect()
}
