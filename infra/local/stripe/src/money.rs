//! Exact money: amounts in 10⁻¹² of a currency's minor unit, and Stripe's one rounding step.

use std::fmt;

/// 10⁻¹² minor units in one minor unit: `unit_amount_decimal` has at most 12 decimal places.
const SCALE: i128 = 1_000_000_000_000;

/// An amount in 10⁻¹² of a minor unit, never a float.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Decimal(i128);

impl Decimal {
    /// Whole minor units.
    pub(crate) fn whole(minor: i64) -> Self {
        Self(i128::from(minor) * SCALE)
    }

    /// A decimal string of at most 12 places and at most 12 digits before the point; no sign, no exponent.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() && fraction.is_empty()
            || whole.len() > 12
            || fraction.len() > 12
            || !digits(whole)
            || !digits(fraction)
        {
            return None;
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let fraction: i128 = format!("{fraction:0<12}").parse().ok()?;
        Some(Self(whole * SCALE + fraction))
    }

    /// The minor units, if they are whole: what `unit_amount` shows.
    pub(crate) fn as_whole(self) -> Option<i64> {
        (self.0 % SCALE == 0)
            .then(|| i64::try_from(self.0 / SCALE).ok())
            .flatten()
    }

    /// `self × quantity`, rounded once, half away from zero, to minor units. Rounding occurs on the line item: 0.05 × 30 is 2.
    /// <https://docs.stripe.com/billing/subscriptions/decimal-amounts#rounding>
    pub(crate) fn times(self, quantity: i64) -> i64 {
        let exact = self.0.saturating_mul(i128::from(quantity));
        round_half_away(exact, SCALE)
    }
}

impl fmt::Display for Decimal {
    /// As `unit_amount_decimal` shows it: no trailing zeros, no point if whole.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0 / SCALE, self.0 % SCALE);
        if fraction == 0 {
            return write!(f, "{whole}");
        }
        let fraction = format!("{fraction:012}");
        write!(f, "{whole}.{}", fraction.trim_end_matches('0'))
    }
}

/// `amount × part ÷ whole`, rounded half away from zero: a proration to the second.
/// <https://docs.stripe.com/billing/subscriptions/prorations>
pub(crate) fn prorate(amount: i64, part: i64, whole: i64) -> i64 {
    if whole <= 0 {
        return amount;
    }
    round_half_away(i128::from(amount) * i128::from(part), i128::from(whole))
}

fn round_half_away(dividend: i128, divisor: i128) -> i64 {
    let quotient = dividend / divisor;
    let remainder = (dividend % divisor).abs();
    let away = if remainder.saturating_mul(2) >= divisor {
        dividend.signum()
    } else {
        0
    };
    i64::try_from(quotient + away).unwrap_or(if dividend < 0 { i64::MIN } else { i64::MAX })
}

/// Currencies without a minor unit. <https://docs.stripe.com/currencies#zero-decimal>
const ZERO_DECIMAL: [&str; 16] = [
    "bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "ugx", "vnd", "vuv", "xaf", "xof", "xpf",
];

/// A unit price as invoice descriptions show it: `$9.00`, `$0.036`.
pub(crate) fn shown(amount: Decimal, currency: &str) -> String {
    let symbol = match currency {
        "usd" => "$".to_owned(),
        "eur" => "€".to_owned(),
        "gbp" => "£".to_owned(),
        "jpy" => "¥".to_owned(),
        other => format!("{} ", other.to_uppercase()),
    };
    if ZERO_DECIMAL.contains(&currency) {
        return format!("{symbol}{amount}");
    }
    let major = SCALE * 100;
    let fraction = format!("{:014}", amount.0 % major);
    let kept = fraction.trim_end_matches('0').len().max(2);
    format!("{symbol}{}.{}", amount.0 / major, &fraction[..kept])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).expect("a decimal")
    }

    #[test]
    fn the_documented_example_rounds_up() {
        assert_eq!(decimal("0.05").times(30), 2);
        assert_eq!(decimal("0.05").times(29), 1);
    }

    #[test]
    fn twelve_places_are_exact() {
        assert_eq!(decimal("0.000000000001").times(499_999_999_999), 0);
        assert_eq!(decimal("0.000000000001").times(500_000_000_000), 1);
        assert_eq!(Decimal::parse("0.0000000000001"), None);
        assert_eq!(Decimal::parse("-1"), None);
        assert_eq!(Decimal::parse("."), None);
        assert_eq!(decimal("105.50").to_string(), "105.5");
        assert_eq!(decimal("5.0").as_whole(), Some(5));
    }

    #[test]
    fn descriptions_show_sub_cent_prices() {
        assert_eq!(shown(decimal("3.6"), "usd"), "$0.036");
        assert_eq!(shown(decimal("900"), "usd"), "$9.00");
        assert_eq!(shown(decimal("900"), "jpy"), "¥900");
    }

    #[test]
    fn credits_round_as_charges_do() {
        assert_eq!(prorate(1, 1, 2), 1);
        assert_eq!(prorate(-1, 1, 2), -1);
        assert_eq!(prorate(3000, 10, 30), 1000);
    }
}
