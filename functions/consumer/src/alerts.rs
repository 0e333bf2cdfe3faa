//! Noticing thresholds: when what a customer's counter items have together reaches a share of the included units.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use farebox_aws::ledger::Alert;
use farebox_core::{alert::Occasion, id::CustomerId, ledger::thresholds_reached, message::UsageMessage, tiers::PlanId};

use crate::{Deps, Error};

/// A counter item may hold back this part of the included units before its share is stored again.
const STEPS: u64 = 3_000;
/// How many customers' standings are remembered; then all are forgotten, which costs a few writes.
const REMEMBERED_MAX: usize = 10_000;

/// Whose units of what under which plan in which billing period (its start, unix seconds).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Topic {
    pub(crate) customer: CustomerId,
    pub(crate) meter: String,
    pub(crate) plan: PlanId,
    pub(crate) period: u64,
}

impl Topic {
    pub(crate) fn of(message: &UsageMessage) -> Self {
        Self {
            customer: message.customer.clone(),
            meter: message.meter.clone(),
            plan: message.plan.clone(),
            period: message.period,
        }
    }
}

/// Where a topic stands according to one batch of messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Units included in the period, those that a spend cap leaves room for, and at which percentages of either the customer
    /// is alerted: the newest message's.
    included: Option<u64>,
    cap: Option<u64>,
    percents: Vec<u16>,
    at: u64,
    /// Units of the period by shard: the largest that a message brought.
    shards: BTreeMap<u32, u64>,
}

/// What a threshold is a share of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Share {
    Included,
    Cap,
}

impl Share {
    fn as_str(self) -> &'static str {
        match self {
            Self::Included => "quota",
            Self::Cap => "spend_cap",
        }
    }
}

/// A share, the units that it is, and a percentage of them: a cap that was raised, or units that were given, make a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Threshold {
    share: Share,
    of: u64,
    percent: u64,
}

impl Standing {
    /// Takes in a message of the topic.
    pub(crate) fn fold(&mut self, message: &UsageMessage) {
        let units = self.shards.entry(message.shard).or_default();
        *units = message.period_units.max(*units);
        if message.at >= self.at {
            self.included = message.included;
            self.cap = message.cap;
            self.percents.clone_from(&message.alert_percents);
            self.at = message.at;
        }
    }

    fn of(&self, share: Share) -> u64 {
        let of = match share {
            Share::Included => self.included,
            Share::Cap => self.cap,
        };
        of.unwrap_or(0)
    }

    /// A spend cap is never exceeded: beyond 100 percent there is nothing to reach.
    fn reached(&self, units: u64) -> Vec<Threshold> {
        let reached = |share| {
            let of = self.of(share);
            let percents = thresholds_reached(units, of, &self.percents).into_iter();
            percents.map(move |percent| Threshold { share, of, percent })
        };
        let cap = reached(Share::Cap).filter(|threshold| threshold.percent <= 100);
        reached(Share::Included).chain(cap).collect()
    }

    /// The smallest amount that thresholds are a share of.
    fn smallest(&self) -> u64 {
        let shares = [self.included, self.cap];
        shares
            .into_iter()
            .flatten()
            .filter(|&units| units > 0)
            .min()
            .unwrap_or(0)
    }
}

/// What this process has stored already. Only a lower bound of what the table holds, and nothing that can't be lost.
#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<HashMap<Topic, Known>>);

#[derive(Clone, Debug, Default)]
struct Known {
    /// Units of the period that were stored, by shard.
    stored: BTreeMap<u32, u64>,
    /// The thresholds whose alert is stored.
    noted: BTreeSet<Threshold>,
}

impl Known {
    /// Whether a shard's units are to be stored and summed up.
    ///
    /// What the other shards have grown meanwhile is not known here, so no share of the threshold is small enough to be left
    /// out for good: thirty shards can reach it together while each is far below. But each may lag a little. If none holds
    /// back more than a 3,000th of the included units, thirty of them are noticed at most one percent late; and a shard
    /// that reaches a threshold alone, as the only one always does, is noticed at once.
    fn is_behind(&self, standing: &Standing, shard: u32, units: u64) -> bool {
        let is_new = |threshold: &Threshold| !self.noted.contains(threshold);
        let grown = units.saturating_sub(self.stored.get(&shard).copied().unwrap_or(0));
        let is_any_left = standing.reached(u64::MAX).iter().any(is_new);
        is_any_left && (grown > standing.smallest() / STEPS || standing.reached(units).iter().any(is_new))
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

/// Stores what the shards have, and sends and stores an alert where all of them together have reached a threshold. `noted`
/// takes the alerts that were new, also if a later one fails.
///
/// On a jump over several thresholds only the highest is sent. It is sent before it is stored: whoever dies in between sends
/// it again under the same id, and each id is delivered once.
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
                .books
                .ledger
                .period_units(customer, meter, &topic.plan, topic.period, shard, units)
                .await?
                .max(total);
            stored.push((shard, units));
        }
    }
    for share in [Share::Included, Share::Cap] {
        let reached = standing
            .reached(total)
            .into_iter()
            .filter(|threshold| threshold.share == share);
        let mut new = Vec::new();
        for threshold in reached.filter(|threshold| !known.noted.contains(threshold)) {
            let alert = Alert {
                customer: customer.to_owned(),
                of: share.as_str().to_owned(),
                plan: topic.plan.to_string(),
                meter: meter.to_owned(),
                percent: threshold.percent,
                period: topic.period,
                units: total,
                included: threshold.of,
            };
            if deps.books.ledger.is_noted(&alert).await? {
                memory.remember(topic, |known| {
                    known.noted.insert(threshold);
                });
            } else {
                new.push((threshold, alert));
            }
        }
        if let Some((_, highest)) = new.last() {
            send(deps, topic, share, highest).await?;
        }
        for (threshold, alert) in new {
            if deps.books.ledger.note_alert(&alert).await? {
                tracing::info!(
                    customer,
                    meter,
                    of = alert.of,
                    percent = alert.percent,
                    units = total,
                    included = alert.included,
                    "threshold reached"
                );
                noted.push(alert);
            }
            memory.remember(topic, |known| {
                known.noted.insert(threshold);
            });
        }
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

/// Sends an alert as things stand now; whoever delivers it says just that.
async fn send(deps: &Deps, topic: &Topic, share: Share, alert: &Alert) -> Result<(), Error> {
    let Some(customer) = deps.books.accounts.customer(&topic.customer).await? else {
        return Ok(()); // nobody to tell
    };
    let now = deps.now();
    let phase = customer.phases.iter().rev().find(|phase| phase.plan == topic.plan);
    let phase = phase.unwrap_or_else(|| customer.phase_at(now.s())).clone();
    let terms = deps
        .books
        .control()
        .terms_of(phase.catalog, &phase.tier, &phase.overrides)
        .await?;
    let period = customer.cycle.period_at(topic.period);
    let occasion = match share {
        Share::Included => Occasion::QuotaThreshold {
            tier: phase.tier,
            meter: topic.meter.clone(),
            percent: alert.percent,
            units: alert.units,
            included: alert.included,
            period,
            at_quota: terms.at_quota.as_str().to_owned(),
        },
        Share::Cap => Occasion::SpendCap {
            tier: phase.tier,
            meter: topic.meter.clone(),
            percent: alert.percent,
            units: alert.units,
            cap_units: alert.included,
            cap: terms.spend_cap.get(&topic.meter).copied().unwrap_or_default(),
            currency: terms.currency,
            period,
        },
    };
    Ok(deps.books.alert(alert.id(), Some(&customer), occasion).await?)
}

#[cfg(test)]
mod tests {
    use super::{Known, Share, Standing, Threshold};

    fn standing(included: u64) -> Standing {
        Standing {
            included: Some(included),
            percents: vec![80, 100, 120],
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
            held_back > 0 && held_back * 30 * 100 <= standing.smallest(),
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
            noted: [80, 100, 120].map(of_100).into(),
            ..Known::default()
        };
        assert!(!known.is_behind(&standing(100), 0, 1_000));
    }

    #[test]
    fn a_larger_amount_is_told_of_anew() {
        let known = Known {
            noted: [80, 100, 120].map(of_100).into(),
            ..Known::default()
        };
        assert!(known.is_behind(&standing(200), 0, 1_000));
        let capped = |cap| Standing {
            cap: Some(cap),
            ..standing(100)
        };
        let new = |cap| {
            capped(cap)
                .reached(160)
                .into_iter()
                .any(|new| !known.noted.contains(&new))
        };
        assert!(new(200), "80 percent of the cap");
        assert!(!new(1_000));
    }

    fn of_100(percent: u64) -> Threshold {
        Threshold {
            share: Share::Included,
            of: 100,
            percent,
        }
    }
}
