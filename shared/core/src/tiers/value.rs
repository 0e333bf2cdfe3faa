//! The values of the file as texts: rates, counts, periods, amounts.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::{Interval, Limit};
use crate::money::{Currency, DecimalError, Money, UnitAmount, digits};

/// The largest count: Stripe's meter events take at most fifteen digits.
pub(super) const COUNT_MAX: u64 = 999_999_999_999_999;
/// The largest percentage to alert at: ten times what is included.
pub(super) const ALERT_PERCENT_MAX: u16 = 1_000;
/// The shortest and longest window of a limit.
const WINDOW_MS_MIN: u64 = 1_000;
const WINDOW_MS_MAX: u64 = 86_400_000;

/// Why a text is no rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct LimitError(&'static str);

const NOT_A_RATE: LimitError = LimitError("is not a rate limit: write a number per s, min, h or day, like 100/min");

impl Limit {
    /// What is absurd about the limit, if anything is.
    pub(super) fn problem(&self) -> Option<&'static str> {
        if self.units == 0 {
            Some("admits nothing: a rate limit is at least 1")
        } else if self.units > COUNT_MAX {
            Some("is too large: a count has at most 15 digits")
        } else if !(WINDOW_MS_MIN..=WINDOW_MS_MAX).contains(&self.window_ms) {
            Some("has a window that is not between a second and a day")
        } else {
            None
        }
    }
}

impl FromStr for Limit {
    type Err = LimitError;

    /// Reads `100/min`, `20/s`, `5 / 10s`. Units of time: `s sec second min minute h hour day`, with or without a plural
    /// `s`. `Err` also for nothing (`0/s`) and for a window that is not between a second and a day.
    fn from_str(text: &str) -> Result<Self, LimitError> {
        let (units, window) = text.split_once('/').ok_or(NOT_A_RATE)?;
        let (units, window) = (units.trim(), window.trim());
        let letters = window.find(|char: char| !char.is_ascii_digit()).ok_or(NOT_A_RATE)?;
        let (times, unit) = window.split_at(letters);
        let unit_ms = match unit.trim_start() {
            "s" | "sec" | "secs" | "second" | "seconds" => 1_000,
            "min" | "mins" | "minute" | "minutes" => 60_000,
            "h" | "hour" | "hours" => 3_600_000,
            "day" | "days" => 86_400_000,
            _ => return Err(NOT_A_RATE),
        };
        let times: u64 = if times.is_empty() {
            1
        } else {
            times.parse().map_err(|_| NOT_A_RATE)?
        };
        let units = count(units).map_err(|problem| match problem {
            NOT_A_COUNT => NOT_A_RATE,
            problem => LimitError(problem),
        })?;
        let limit = Self {
            units,
            window_ms: times.saturating_mul(unit_ms),
        };
        match limit.problem() {
            Some(problem) => Err(LimitError(problem)),
            None => Ok(limit),
        }
    }
}

impl fmt::Display for Limit {
    /// As the file spells it: `100/min`, `5/10s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(86_400_000, "day"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")];
        match units
            .into_iter()
            .find(|(ms, _)| self.window_ms > 0 && self.window_ms.is_multiple_of(*ms))
        {
            Some((ms, unit)) if self.window_ms == ms => write!(f, "{}/{unit}", self.units),
            Some((ms, unit)) => write!(f, "{}/{}{unit}", self.units, self.window_ms / ms),
            None => write!(f, "{}/{}ms", self.units, self.window_ms),
        }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Month => "month",
            Self::Year => "year",
        })
    }
}

const NOT_A_COUNT: &str = "is not a count: write a whole number, like 50000";

/// A whole number, maybe grouped: `50000`, `50_000`, `50,000`.
pub(super) fn count(text: &str) -> Result<u64, &'static str> {
    if text.starts_with('-') {
        return Err("is negative");
    }
    let digits = digits(text).ok_or(NOT_A_COUNT)?;
    match digits.parse() {
        Ok(count) if count <= COUNT_MAX => Ok(count),
        _ => Err("is too large: a count has at most 15 digits"),
    }
}

/// Splits `50000/month` into the amount and its period, if it names one.
fn per_interval(text: &str) -> Result<(&str, Option<Interval>), &'static str> {
    match text.split_once('/') {
        None => Ok((text.trim(), None)),
        Some((amount, interval)) => match interval.trim() {
            "month" => Ok((amount.trim(), Some(Interval::Month))),
            "year" => Ok((amount.trim(), Some(Interval::Year))),
            _ => Err("has a period that is neither month nor year"),
        },
    }
}

/// `50000/month`, a plain number, or `unlimited` (`None`).
pub(super) fn quota(text: &str) -> Result<(Option<u64>, Option<Interval>), String> {
    let (amount, interval) = per_interval(text)?;
    if amount == "unlimited" {
        return Ok((None, interval));
    }
    match count(amount) {
        Ok(count) => Ok((Some(count), interval)),
        Err(NOT_A_COUNT) => Err("is not a quota: write a number like 50000/month, unlimited or custom".to_owned()),
        Err(problem) => Err(problem.to_owned()),
    }
}

/// `$49.50/month`, `490/year`, `49`.
pub(super) fn money(text: &str, currency: Currency) -> Result<(Money, Option<Interval>), String> {
    let (amount, interval) = per_interval(text)?;
    Ok((flat(amount, currency)?, interval))
}

/// `$5`, without a period.
pub(super) fn flat(text: &str, currency: Currency) -> Result<Money, String> {
    Money::from_decimal(amount(text, currency)?, currency).map_err(|error| match error {
        DecimalError::NotANumber => "is not an amount: write a number like $49.50".to_owned(),
        DecimalError::TooFine => format!("is finer than the minor unit of {currency}"),
        DecimalError::TooLarge => "is too large: at most 12 digits of the minor unit".to_owned(),
        DecimalError::Negative => "is negative".to_owned(),
    })
}

/// `$0.002/call`: the price of a unit, and the unit if it is named.
pub(super) fn unit_price(text: &str, currency: Currency) -> Result<(UnitAmount, Option<&str>), String> {
    let (price, unit) = match text.split_once('/') {
        Some((price, unit)) => (price.trim(), Some(unit.trim())),
        None => (text.trim(), None),
    };
    let price = UnitAmount::from_decimal(amount(price, currency)?, currency).map_err(|error| match error {
        DecimalError::NotANumber => "is not a unit price: write an amount like $0.002/call".to_owned(),
        DecimalError::TooFine => "has more than 12 decimal places of the minor unit".to_owned(),
        DecimalError::TooLarge => "is too large for a unit price".to_owned(),
        DecimalError::Negative => "is negative".to_owned(),
    })?;
    Ok((price, unit))
}

/// The number of an amount that may carry a symbol or a currency code, before or after.
fn amount(text: &str, currency: Currency) -> Result<&str, String> {
    let text = text.trim();
    let first = text.chars().next();
    if let Some(symbol) = first.filter(|char| "$€£¥".contains(*char)) {
        if !currency.has_symbol(symbol) {
            return Err(format!("is in {symbol}, but the file's currency is {currency}"));
        }
        return Ok(text[symbol.len_utf8()..].trim_start());
    }
    let is_letter = |char: char| char.is_ascii_alphabetic();
    let number = text.trim_start_matches(is_letter);
    let (code, number) = if number.len() < text.len() {
        (&text[..text.len() - number.len()], number.trim_start())
    } else {
        let number = text.trim_end_matches(is_letter);
        (&text[number.len()..], number.trim_end())
    };
    match code.parse::<Currency>() {
        // Letters that are no code are left to the number's parser to refuse.
        Err(_) => Ok(text),
        Ok(named) if named == currency => Ok(number),
        Ok(named) => Err(format!("is in {named}, but the file's currency is {currency}")),
    }
}

/// The limit of `throttle(5/min)`; `None` for what is no throttle at all.
pub(super) fn throttle(text: &str) -> Option<Result<Limit, LimitError>> {
    let limit = text.strip_prefix("throttle")?.trim_start();
    Some(limit.strip_prefix('(')?.strip_suffix(')')?.trim().parse())
}

/// `120%` or `120`.
pub(super) fn alert_percent(text: &str) -> Result<u16, &'static str> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    match digits(number).and_then(|digits| digits.parse().ok()) {
        Some(percent @ 1..=ALERT_PERCENT_MAX) => Ok(percent),
        _ => Err("is not a percentage to alert at: write a whole number from 1% to 1000%"),
    }
}

/// `80%` or `80`.
pub(super) fn percent(text: &str) -> Result<u8, &'static str> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    match digits(number).and_then(|digits| digits.parse().ok()) {
        Some(percent @ 1..=100) => Ok(percent),
        _ => Err("is not a percentage: write a whole number from 1% to 100%"),
    }
}
