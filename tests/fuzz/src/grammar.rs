//! The small texts of files and of the command line: amounts, limits, routes, names.

use std::{fmt::Display, str::FromStr};

use farebox_core::{
    id::{CustomerId, Generation},
    money::{Currency, MONEY_MAX, Money, UnitAmount},
    tiers::{Limit, PastDue, Pattern, PlanId},
};

use crate::text;

/// What can be read is printed so that it reads as the same.
pub(crate) fn grammar(data: &[u8]) {
    let Some(text) = text(data) else { return };
    reads_back::<Limit>(text);
    reads_back::<PastDue>(text);
    reads_back::<Pattern>(text);
    reads_back::<PlanId>(text);
    reads_back::<Currency>(text);
    reads_back::<UnitAmount>(text);
    named::<CustomerId>(text);
    named::<Generation>(text);
    for currency in ["usd", "jpy"] {
        if let Ok(currency) = currency.parse() {
            amounts(text, currency);
        }
    }
}

fn reads_back<T: FromStr + Display + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let printed = value.to_string();
        assert!(
            printed.parse::<T>().is_ok_and(|read| read == value),
            "{text:?} is printed as {printed:?}"
        );
    }
}

fn named<T: TryFrom<String> + Display>(text: &str) {
    if let Ok(name) = T::try_from(text.to_owned()) {
        assert_eq!(name.to_string(), text);
        assert!(!text.contains('#'), "{text:?} would end a part of a table key");
    }
}

/// Money is what was written, to the last place, and never more than it may be.
fn amounts(text: &str, currency: Currency) {
    if let Ok(money) = Money::from_decimal(text, currency) {
        assert!(money <= MONEY_MAX);
        assert_eq!(
            Money::from_decimal(&bare(&money.display(currency)), currency),
            Ok(money)
        );
    }
    if let Ok(amount) = UnitAmount::from_decimal(text, currency) {
        assert_eq!(
            UnitAmount::from_decimal(&bare(&amount.display(currency)), currency),
            Ok(amount)
        );
        assert_eq!(amount.times(0), Some(Money(0)));
        let ten = amount.times(10).map(|money| money.0);
        assert!(
            ten.is_none_or(|ten| u128::from(ten) * 1_000_000_000_000 <= u128::from(amount.pico) * 10 + 500_000_000_000)
        );
    }
}

/// Without the sign of the currency.
fn bare(text: &str) -> String {
    text.chars()
        .filter(|char| char.is_ascii_digit() || *char == '.')
        .collect()
}
