//! Money: whole minor units for what is charged, exact decimals for what one unit costs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The largest amount that a file may name, in minor units. Stripe charges at most eight digits in most currencies and
/// twelve in a few; nothing above is a price.
pub const MONEY_MAX: Money = Money(999_999_999_999);

/// Stored places of a [`UnitAmount`].
const PICO_PLACES: u32 = 12;
/// One minor unit in pico.
const PICO: u128 = 1_000_000_000_000;

/// An ISO 4217 currency in Stripe's spelling, lower case: `usd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

/// Stripe's two-decimal presentment currencies (<https://docs.stripe.com/currencies>).
const TWO_DECIMALS: &[u8] = b"aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bmd bnd bob brl bsd bwp byn bzd \
    cad cdf chf cny cop crc cve czk dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gtq gyd hkd hnl hrk htg huf idr ils \
    inr jmd kes kgs khr kyd kzt lak lbp lkr lrd lsl mad mdl mkd mmk mnt mop mro mur mvr mwk mxn myr mzn nad ngn nio nok \
    npr nzd pab pen pgk php pkr pln qar ron rsd rub sar sbd scr sek sgd shp sle sll sos srd std szl thb tjs top try ttd \
    twd tzs uah usd uyu uzs wst xcd yer zar zmw";
/// Currencies without a minor unit (<https://docs.stripe.com/currencies#zero-decimal>).
const ZERO_DECIMALS: &[u8] = b"bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf";
/// Currencies whose charges must be multiples of 10 or 100 of the API's unit: a rounded line of usage would be refused.
const UNEVEN: &[u8] = b"bhd isk jod kwd omr tnd ugx";
/// Currencies that people write with `$`.
const DOLLARS: &[u8] = b"aud bbd bmd bnd bsd bzd cad fjd gyd hkd jmd kyd lrd nad nzd sbd sgd srd ttd twd usd xcd";

fn lists(list: &[u8], code: [u8; 3]) -> bool {
    list.split(|byte| *byte == b' ').any(|listed| listed == code)
}

impl Currency {
    /// The US dollar, the default of a `tiers.yaml`.
    pub const USD: Self = Self(*b"usd");

    /// The code in lower case, as Stripe spells it.
    pub fn code(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or("???")
    }

    /// How many decimal places the minor unit has: 2 for cents, 0 where there is none.
    pub fn decimals(self) -> u32 {
        if lists(ZERO_DECIMALS, self.0) { 0 } else { 2 }
    }

    /// Whether `symbol` (`$`, `€`, `£`, `¥`) may stand for this currency.
    pub fn has_symbol(self, symbol: char) -> bool {
        match symbol {
            '$' => lists(DOLLARS, self.0),
            '€' => &self.0 == b"eur",
            '£' => &self.0 == b"gbp",
            '¥' => lists(b"jpy cny", self.0),
            _ => false,
        }
    }

    /// The symbol that nobody takes for another currency; of all the dollars only the US one.
    fn own_symbol(self) -> Option<char> {
        match &self.0 {
            b"usd" => Some('$'),
            b"eur" => Some('€'),
            b"gbp" => Some('£'),
            b"jpy" => Some('¥'),
            _ => None,
        }
    }

    /// `$` before the number, or ` CAD` after it.
    fn mark(self, number: &str) -> String {
        match self.own_symbol() {
            Some(symbol) => format!("{symbol}{number}"),
            None => format!("{number} {}", self.code().to_ascii_uppercase()),
        }
    }
}

impl Default for Currency {
    fn default() -> Self {
        Self::USD
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// Why a text is no currency that Farebox can bill in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CurrencyError {
    /// Not among Stripe's currencies.
    #[error("is not a currency that Stripe charges in: write an ISO code like usd")]
    Unknown,
    /// Stripe refuses charges in it that are not multiples of 10 or 100, so usage can't be billed exactly.
    #[error("cannot be used: Stripe charges it in rounded steps only, so usage could not be billed exactly")]
    Uneven,
}

impl FromStr for Currency {
    type Err = CurrencyError;

    /// Takes the code in either case. `Err` when Stripe has no such currency, or charges it in rounded steps only.
    fn from_str(text: &str) -> Result<Self, CurrencyError> {
        let code: [u8; 3] = text
            .to_ascii_lowercase()
            .into_bytes()
            .try_into()
            .map_err(|_| CurrencyError::Unknown)?;
        if lists(UNEVEN, code) {
            return Err(CurrencyError::Uneven);
        }
        if !lists(TWO_DECIMALS, code) && !lists(ZERO_DECIMALS, code) {
            return Err(CurrencyError::Unknown);
        }
        Ok(Self(code))
    }
}

impl TryFrom<String> for Currency {
    type Error = CurrencyError;

    fn try_from(text: String) -> Result<Self, CurrencyError> {
        text.parse()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.code().to_owned()
    }
}

/// An amount in the currency's minor unit (cents for `usd`). Never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Money(pub u64);

impl Money {
    /// For people: `$49.00`, `¥500`, `49.00 CAD`.
    pub fn display(self, currency: Currency) -> String {
        let places = currency.decimals();
        currency.mark(&fixed(u128::from(self.0), places, places))
    }

    /// The sum, or `None` beyond 64 bits.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// Reads a plain decimal of the major unit: `49`, `49.50`. `Err` when it is no such number, or finer than the minor
    /// unit, or above [`MONEY_MAX`].
    pub fn from_decimal(text: &str, currency: Currency) -> Result<Self, DecimalError> {
        let minor = decimal(text, currency.decimals())?;
        if minor > MONEY_MAX.0 {
            Err(DecimalError::TooLarge)
        } else {
            Ok(Self(minor))
        }
    }
}

/// What one unit costs: an exact decimal of the minor unit with up to twelve places, as in Stripe's
/// `unit_amount_decimal` (<https://docs.stripe.com/api/prices/object>). `$0.002` is 0.2 cents, stored as 200_000_000_000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UnitAmount {
    /// Millionths of millionths of the minor unit.
    pub pico: u64,
}

impl UnitAmount {
    /// Reads a plain decimal of the major unit: `0.002` of a dollar is 0.2 cents. `Err` when it is no such number, has
    /// more than twelve places of the minor unit, or does not fit (about 18 million minor units).
    pub fn from_decimal(text: &str, currency: Currency) -> Result<Self, DecimalError> {
        decimal(text, PICO_PLACES + currency.decimals()).map(|pico| Self { pico })
    }

    /// For people, in the major unit and with as many places as it takes: `$0.002`, `$1.50`.
    pub fn display(self, currency: Currency) -> String {
        let places = PICO_PLACES + currency.decimals();
        currency.mark(&fixed(u128::from(self.pico), places, currency.decimals()))
    }

    /// The price of so many units, rounded half up to the minor unit; `None` beyond 64 bits.
    pub fn times(self, units: u64) -> Option<Money> {
        let exact = u128::from(self.pico) * u128::from(units);
        let minor = exact.checked_add(PICO / 2)? / PICO;
        u64::try_from(minor).ok().map(Money)
    }
}

impl fmt::Display for UnitAmount {
    /// The decimal of minor units that Stripe's `unit_amount_decimal` takes: `0.2` for a fifth of a cent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&fixed(u128::from(self.pico), PICO_PLACES, 0))
    }
}

impl FromStr for UnitAmount {
    type Err = DecimalError;

    /// Reads the decimal of minor units that Stripe shows as `unit_amount_decimal`.
    fn from_str(text: &str) -> Result<Self, DecimalError> {
        decimal(text, PICO_PLACES).map(|pico| Self { pico })
    }
}

/// Why a text is no decimal that can be kept exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecimalError {
    /// Something other than digits, a point and digits.
    #[error("is not a plain decimal number")]
    NotANumber,
    /// A sign.
    #[error("is negative")]
    Negative,
    /// Finer than can be kept.
    #[error("has too many decimal places")]
    TooFine,
    /// Larger than can be kept.
    #[error("is too large")]
    TooLarge,
}

/// `text` times ten to the power of `places`, exactly. Commas may group the whole part in threes, underscores anywhere
/// between its digits.
fn decimal(text: &str, places: u32) -> Result<u64, DecimalError> {
    if text.starts_with('-') {
        return Err(DecimalError::Negative);
    }
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
        Some(_) => return Err(DecimalError::NotANumber),
        None => (text, ""),
    };
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(DecimalError::NotANumber);
    }
    let whole = digits(whole).ok_or(DecimalError::NotANumber)?;
    let fraction = fraction.trim_end_matches('0');
    let missing = u32::try_from(fraction.len())
        .ok()
        .and_then(|length| places.checked_sub(length));
    let missing = missing.ok_or(DecimalError::TooFine)?;
    let mut value: u64 = 0;
    let zeros = std::iter::repeat_n(b'0', missing as usize);
    for digit in whole.bytes().chain(fraction.bytes()).chain(zeros) {
        value = value
            .checked_mul(10)
            .and_then(|value| value.checked_add(u64::from(digit - b'0')))
            .ok_or(DecimalError::TooLarge)?;
    }
    Ok(value)
}

/// The digits of a whole number without its grouping, or `None` when it is something else. `1,00` is refused: it may be
/// a European decimal.
pub(crate) fn digits(text: &str) -> Option<String> {
    let grouped = text.contains(',');
    if grouped {
        let mut groups = text.split(',');
        let first = groups.next()?;
        if !(1..=3).contains(&first.len()) || groups.any(|group| group.len() != 3) || text.contains('_') {
            return None;
        }
    }
    let separator = |byte: &u8| *byte == b',' || *byte == b'_';
    let bytes = text.as_bytes();
    if bytes.first().is_none_or(|byte| !byte.is_ascii_digit()) || bytes.last().is_none_or(separator) {
        return None;
    }
    if !bytes.iter().all(|byte| byte.is_ascii_digit() || separator(byte)) || text.contains("__") {
        return None;
    }
    Some(text.chars().filter(char::is_ascii_digit).collect())
}

/// `value` divided by ten to the power of `places`, written with at least `keep` places and no trailing zeros beyond.
fn fixed(value: u128, places: u32, keep: u32) -> String {
    let (places, keep) = (places as usize, keep as usize);
    let mut text = format!("{value:0>width$}", width = places + 1);
    let mut fraction = text.split_off(text.len() - places);
    while fraction.len() > keep && fraction.ends_with('0') {
        fraction.pop();
    }
    if fraction.is_empty() {
        text
    } else {
        format!("{text}.{fraction}")
    }
}
