//! What the terms cost: the metered prices as Stripe has them, and a name for all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{BasePrice, DEFAULT_METER, Interval, Step, Terms, UsagePrice};
use crate::money::{Currency, Money, UnitAmount};

/// Digits of the hash in a [`PlanId`].
const HASH_DIGITS: usize = 8;
/// A tier's name of 32, a dash and the digits.
const PLAN_BYTES_MAX: usize = 41;

/// The name of what terms cost: `<tier>-<8 hexadecimal digits>`, as in `pro-5f0c2a91`. Lower-case letters, digits, `_` and
/// `-`, at most 41.
///
/// Terms of the same tier that cost the same have the same id, whoever they hold for, and whatever else they say; others
/// have another one. The digits are the first of the SHA-256 over this text, each line of which ends with a line feed:
///
/// ```text
/// farebox plan 1
/// tier pro
/// currency usd
/// base 4900 month
/// meter api_calls included 50000 graduated
/// step 50000 0 0
/// step inf 0.2 0
/// ```
///
/// `base` is the base price in the currency's minor unit and its period. A `meter` line stands for each meter that has an
/// overage price, in alphabetical order, with its included units and the mode of its [`MeteredPrice`]; the `step` lines
/// below it are the steps of that price: the last unit or `inf`, the price of a unit in minor units without trailing
/// zeros, and the flat amount in minor units. A meter without an overage price is not there: every unit of it is free,
/// whatever is included.
///
/// Eight digits are enough to tell the prices of one tier apart, not to keep out somebody who looks for two that agree:
/// whoever finds a price in Stripe by its id compares it with [`Terms::stripe_price`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PlanId(String);

/// A text that can't be the name of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a plan is 1 to 41 lower-case letters, digits, '_' or '-'")]
pub struct PlanIdError;

/// The price of one meter, as Stripe takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeteredPrice {
    /// Which units a step prices.
    pub mode: PriceMode,
    /// The steps, of which the last one alone has no bound. [`PriceMode::PerUnit`] has exactly one, without a flat amount.
    pub steps: Vec<Step>,
}

/// Which units a step prices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PriceMode {
    /// There is one price for every unit: Stripe's `billing_scheme` is `per_unit`.
    PerUnit,
    /// Each unit costs what its own step says: `tiers_mode` is `graduated`.
    Graduated,
    /// All units cost what the step says that the total falls in: `tiers_mode` is `volume`.
    Volume,
}

impl PlanId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The event name of the plan's meter in Stripe, and the lookup key of its metered price:
    /// `farebox_<meter>_<plan>`, at most 70 bytes. Stripe takes 100 in an event name and 200 in a lookup key.
    pub fn event_name(&self, meter: &str) -> String {
        format!("farebox_{meter}_{self}")
    }

    /// The lookup key of the plan's base price in Stripe. (That is why no meter is called `base`.)
    pub fn base_lookup_key(&self) -> String {
        format!("farebox_base_{self}")
    }
}

impl FromStr for PlanId {
    type Err = PlanIdError;

    /// `Err` for what is not `[a-z0-9_-]{1,41}`.
    fn from_str(text: &str) -> Result<Self, PlanIdError> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for PlanId {
    type Error = PlanIdError;

    fn try_from(text: String) -> Result<Self, PlanIdError> {
        let is_fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
        if (1..=PLAN_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_fine) {
            Ok(Self(text))
        } else {
            Err(PlanIdError)
        }
    }
}

impl From<PlanId> for String {
    fn from(plan: PlanId) -> Self {
        plan.0
    }
}

impl fmt::Display for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Terms {
    /// The name of what the terms cost.
    pub fn plan(&self) -> PlanId {
        let Terms {
            tier,
            currency,
            price,
            included,
            overage,
            ..
        } = self;
        let text = priced(tier, *currency, Some(price), Some(included), overage);
        let mut hash = String::new();
        for byte in Sha256::digest(text.as_bytes()).iter().take(HASH_DIGITS / 2) {
            // Writing to a text does not fail.
            let _ = write!(hash, "{byte:02x}");
        }
        PlanId(format!("{tier}-{hash}"))
    }

    /// Every meter that the terms name, and [`DEFAULT_METER`], in alphabetical order.
    pub fn meters(&self) -> Vec<String> {
        let named = self.included.keys().chain(self.overage.keys());
        let named = named.chain(self.spend_cap.keys()).map(String::as_str);
        let meters: BTreeSet<&str> = named.chain([DEFAULT_METER]).collect();
        meters.into_iter().map(str::to_owned).collect()
    }

    /// The metered price to create in Stripe for a meter, and to compare with what Stripe has: 0 for every unit where the
    /// meter has no overage price.
    pub fn stripe_price(&self, meter: &str) -> MeteredPrice {
        match self.overage.get(meter) {
            Some(price) => price.metered(self.included_units(meter)),
            None => MeteredPrice::free(),
        }
    }
}

impl MeteredPrice {
    fn free() -> Self {
        Self {
            mode: PriceMode::PerUnit,
            steps: vec![Step {
                up_to: None,
                unit: UnitAmount::default(),
                flat: Money(0),
            }],
        }
    }
}

impl UsagePrice {
    fn metered(&self, included: Option<u64>) -> MeteredPrice {
        let steps = self.stripe_tiers(included);
        let mode = match (self, steps.as_slice()) {
            (_, [only]) if only.up_to.is_none() && only.flat == Money(0) => PriceMode::PerUnit,
            (Self::Volume(_), _) => PriceMode::Volume,
            (Self::PerUnit(_) | Self::Graduated(_), _) => PriceMode::Graduated,
        };
        MeteredPrice { mode, steps }
    }
}

impl PriceMode {
    fn word(self) -> &'static str {
        match self {
            Self::PerUnit => "per_unit",
            Self::Graduated => "graduated",
            Self::Volume => "volume",
        }
    }
}

/// The text that a [`PlanId`] is the hash of. `None` is what a tier leaves to each agreement.
pub(super) fn priced(
    tier: &str,
    currency: Currency,
    base: Option<&BasePrice>,
    included: Option<&BTreeMap<String, Option<u64>>>,
    overage: &BTreeMap<String, UsagePrice>,
) -> String {
    let base = match base {
        Some(BasePrice { amount, interval }) => format!("{} {}", amount.0, period(*interval)),
        None => "custom".to_owned(),
    };
    let mut lines = vec![
        "farebox plan 1".to_owned(),
        format!("tier {tier}"),
        format!("currency {}", currency.code()),
        format!("base {base}"),
    ];
    for (meter, price) in overage {
        let (units, written) = match included {
            None => (Some(0), "custom".to_owned()),
            Some(included) => match included.get(meter).copied().unwrap_or(Some(0)) {
                None => (None, "unlimited".to_owned()),
                Some(units) => (Some(units), units.to_string()),
            },
        };
        let MeteredPrice { mode, steps } = price.metered(units);
        lines.push(format!("meter {meter} included {written} {}", mode.word()));
        lines.extend(steps.iter().map(|step| {
            let up_to = step.up_to.map_or("inf".to_owned(), |up_to| up_to.to_string());
            format!("step {up_to} {} {}", step.unit, step.flat.0)
        }));
    }
    lines.join("\n") + "\n"
}

/// Apart from how an interval is displayed, as the hash must not change with it.
fn period(interval: Interval) -> &'static str {
    match interval {
        Interval::Month => "month",
        Interval::Year => "year",
    }
}
