//! What usage costs: the same amount that Stripe's invoice will show.

use thiserror::Error;

use super::{Step, UsagePrice};
use crate::money::{Money, UnitAmount};

/// An amount that does not fit 64 bits. No file within the bounds of `tiers.yaml` and no count of fifteen digits at
/// sensible prices gets there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the amount does not fit 64 bits")]
pub struct Overflow;

impl UsagePrice {
    /// The total that Stripe's invoice charges for `units` of a billing period, `included` ones being free (`None`: all).
    ///
    /// Found in Stripe's documentation (<https://docs.stripe.com/products-prices/manage-prices>, "Rounding"): the amount
    /// of an invoice *line* is the quantity times the decimal price, rounded after the multiplication; 0.05 × 30 = 1.5
    /// gives 2 cents. An older wording of the same page says "to the nearest whole cent", so a half goes up and less
    /// than a half goes down. Every line is rounded before the lines are summed. And on tiers
    /// (<https://docs.stripe.com/products-prices/pricing-models>, "Flat rates"): the flat amount of the first tier is
    /// charged even for a quantity of 0.
    ///
    /// Assumed, as no page says it: each tier of a graduated price is a line of its own, so each is rounded by itself.
    /// Should Stripe sum the tiers first, the difference is below one minor unit per tier.
    ///
    /// `Err` when the amount does not fit 64 bits.
    pub fn amount(&self, included: Option<u64>, units: u64) -> Result<Money, Overflow> {
        let steps = self.stripe_tiers(included);
        match self {
            Self::Volume(_) => volume(&steps, units),
            Self::PerUnit(_) | Self::Graduated(_) => graduated(&steps, units),
        }
    }

    /// The tiers of the metered price to create in Stripe, the free ones first: their mode is `volume` for a volume
    /// price and else `graduated`. A single tier without a bound and a flat amount is a plain `per_unit` price.
    ///
    /// Steps that end within the included units are left out: they are free.
    pub fn stripe_tiers(&self, included: Option<u64>) -> Vec<Step> {
        let free = |up_to| Step {
            up_to,
            unit: UnitAmount::default(),
            flat: Money(0),
        };
        let Some(included) = included else {
            return vec![free(None)];
        };
        let steps: &[Step] = match self {
            Self::PerUnit(unit) => &[Step {
                up_to: None,
                unit: *unit,
                flat: Money(0),
            }],
            Self::Graduated(steps) | Self::Volume(steps) => steps,
        };
        let first = (included > 0).then(|| free(Some(included)));
        let beyond = steps
            .iter()
            .filter(|step| step.up_to.is_none_or(|up_to| up_to > included));
        first.into_iter().chain(beyond.copied()).collect()
    }

    /// The largest N such that no n up to N costs more than `cap`; `u64::MAX` where the price never gets there.
    ///
    /// Where a flat amount alone is above the cap, no unit is within it and N is 0, though 0 units cost more too.
    pub fn units_within(&self, included: Option<u64>, cap: Money) -> u64 {
        // Within one step the amount only grows; from step to step a volume price may fall.
        let mut below = 0;
        for step in self.stripe_tiers(included) {
            let last = step.up_to.unwrap_or(u64::MAX);
            let fits = |units| self.amount(included, units).is_ok_and(|amount| amount <= cap);
            if !fits(last) {
                return last_that(below, last, fits);
            }
            below = below.max(last);
        }
        below
    }
}

/// The largest number from `low` on that `fits`, where all smaller ones above `low` fit too and `high` does not.
fn last_that(mut low: u64, mut high: u64, fits: impl Fn(u64) -> bool) -> u64 {
    while high.saturating_sub(low) > 1 {
        let middle = low + (high - low) / 2;
        if fits(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

fn graduated(steps: &[Step], units: u64) -> Result<Money, Overflow> {
    let mut total = Money(0);
    let mut below = 0;
    for (index, step) in steps.iter().enumerate() {
        // The first flat amount is due without any unit.
        if units <= below && index > 0 {
            break;
        }
        let last = step.up_to.unwrap_or(u64::MAX).min(units);
        let line = step.unit.times(last.saturating_sub(below)).ok_or(Overflow)?;
        total = total
            .checked_add(line)
            .and_then(|total| total.checked_add(step.flat))
            .ok_or(Overflow)?;
        below = last.max(below);
    }
    Ok(total)
}

fn volume(steps: &[Step], units: u64) -> Result<Money, Overflow> {
    let step = steps.iter().find(|step| step.up_to.is_none_or(|up_to| units <= up_to));
    let Some(step) = step else {
        return Ok(Money(0));
    };
    step.unit
        .times(units)
        .and_then(|line| line.checked_add(step.flat))
        .ok_or(Overflow)
}
