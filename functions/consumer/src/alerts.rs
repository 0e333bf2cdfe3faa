//! Noticing thresholds: when what a customer's counter items have together reaches a share of the included units.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use farebox_aws::ledger::Alert;
use farebox_core::{id::CustomerId, ledger::thresholds_reached, message::UsageMessage};

use crate::{Deps, Error};

/// A counter item may hold back this part of the included units before its share is stored again.
const STEPS: u64 = 3_000;
/// How many customers' standings are remembered; then all are forgotten, which costs a few writes.
const REMEMBERED_MAX: usize = 10_000;

/// Whose units of what in which billing period (its start, unix seconds).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Topic {
    pub(crate) customer: CustomerId,
    pub(crate) meter: String,
    pub(crate) period: u64,
}

impl Topic {
    pub(crate) fn of(message: &UsageMessage) -> Self {
        Self {
            customer: message.customer.clone(),
            meter: message.meter.clone(),
            period: message.period,
        }
    }
}

/// Where a topic stands according to one batch of messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Units included in the period, and from which percentage on to warn: the newest message's.
    included: u64,
    warn_percent: u8,
    at: u64,
    /// Units of the period by shard: the largest that a message brought.
    shards: BTreeMap<u32, u64>,
}

impl Standing {
    /// Takes in a message of the topic; one without included units has no thresholds.
    pub(crate) fn fold(&mut self, message: &UsageMessage, included: u64) {
        let units = self.shards.entry(message.shard).or_default();
        *units = message.period_units.max(*units);
        if self.included == 0 || message.at >= self.at {
            (self.included, self.warn_percent, self.at) = (included, message.warn_percent, message.at);
        }
    }

    fn reached(&self, units: u64) -> Vec<u64> {
        thresholds_reached(units, self.included, self.warn_percent)
    }
}

/// What this process has stored already. Only a lower bound of what the table holds, and nothing that can't be lost.
#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<HashMap<Topic, Known>>);

#[derive(Clone, Debug, Default)]
struct Known {
    /// Units of the period that were stored, by shard.
    stored: BTreeMap<u32, u64>,
    /// The thresholds whose alert is stored, percent.
    noted: BTreeSet<u64>,
}

impl Known {
    /// Whether a shard's units are to be stored and summed up.
    ///
    /// What the other shards have grown meanwhile is not known here, so no share of the threshold is small enough to be left
    /// out for good: thirty shards can reach it together while each is far below. But each may lag a little. If none holds
    /// back more than a 3,000th of the included units, thirty of them are noticed at most one percent late; and a shard
    /// that reaches a threshold alone, as the only one always does, is noticed at once.
    fn is_behind(&self, standing: &Standing, shard: u32, units: u64) -> bool {
        let is_new = |percent: &u64| !self.noted.contains(percent);
        let grown = units.saturating_sub(self.stored.get(&shard).copied().unwrap_or(0));
        let is_any_left = standing.reached(u64::MAX).iter().any(is_new);
        is_any_left && (grown > standing.included / STEPS || standing.reached(units).iter().any(is_new))
    }
}

impl Memory {
    fn of(&self, topic: &Topic) -> Known {
        self.lock().get(topic).cloned().unwrap_or_default()
    }

    fn remember(&self, topic: &Topic, remember: impl FnOnce(&mut Known)) {
        let mut known = self.lock();
        if known.len() >= REMEMBERED_MAX && !known.contains_key(topic) {
            known.clear();
        }
        remember(known.entry(topic.clone()).or_default());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Topic, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stores what the shards have, and an alert for each threshold that all of them together have reached. `noted` takes the
/// alerts that were new, also if a later one fails.
pub(crate) async fn notice(
    deps: &Deps,
    memory: &Memory,
    topic: &Topic,
    standing: &Standing,
    noted: &mut Vec<Alert>,
) -> Result<(), Error> {
    let (customer, meter) = (topic.customer.as_str(), topic.meter.as_str());
    let known = memory.of(topic);
    let mut total = 0;
    let mut stored = Vec::new();
    for (&shard, &units) in &standing.shards {
        if known.is_behind(standing, shard, units) {
            total = deps
                .ledger
                .period_units(customer, meter, topic.period, shard, units)
                .await?
                .max(total);
            stored.push((shard, units));
        }
    }
    for percent in standing.reached(total) {
        if known.noted.contains(&percent) {
            continue;
        }
        let alert = Alert {
            customer: customer.to_owned(),
            meter: meter.to_owned(),
            percent,
            period: topic.period,
            units: total,
            included: standing.included,
        };
        if deps.ledger.note_alert(&alert).await? {
            tracing::info!(
                customer,
                meter,
                percent,
                units = total,
                included = standing.included,
                "threshold reached"
            );
            noted.push(alert);
        }
        memory.remember(topic, |known| {
            known.noted.insert(percent);
        });
    }
    // Last of all: a share that is remembered is not summed up again, so its alerts must be stored by then.
    memory.remember(topic, |known| {
        for (shard, units) in stored {
            let before = known.stored.entry(shard).or_default();
            *before = units.max(*before);
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Known, Standing};

    fn standing(included: u64) -> Standing {
        Standing {
            included,
            warn_percent: 80,
            ..Standing::default()
        }
    }

    #[test]
    fn thirty_shards_hold_back_at_most_one_percent() {
        let (standing, known) = (standing(9_000_000), Known::default());
        let held_back = (0..)
            .take_while(|&units| !known.is_behind(&standing, 0, units))
            .last()
            .unwrap_or(0);
        assert!(
            held_back > 0 && held_back * 30 * 100 <= standing.included,
            "{held_back}"
        );
    }

    #[test]
    fn nothing_is_held_back_of_few_units_or_at_a_threshold() {
        assert!(Known::default().is_behind(&standing(100), 0, 1));
        let known = Known {
            stored: [(0, 7_999_999)].into(),
            ..Known::default()
        };
        assert!(!known.is_behind(&standing(10_000_000), 0, 7_999_999));
        assert!(known.is_behind(&standing(10_000_000), 0, 8_000_000));
    }

    #[test]
    fn a_customer_beyond_every_threshold_costs_nothing_more() {
        let known = Known {
            noted: [80, 100, 120].into(),
            ..Known::default()
        };
        assert!(!known.is_behind(&standing(100), 0, 1_000));
    }
}
