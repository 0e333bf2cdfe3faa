//! From the entries of the context to headers and the caller. Nothing is copied unchecked.

use std::{borrow::Cow, sync::Arc};

use http::{HeaderName, HeaderValue};

/// Who calls, and what the request counts as. Put among the request's extensions by the layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    customer: Arc<str>,
    tier: Arc<str>,
    meter: Option<Arc<str>>,
    cost: Option<u64>,
}

impl Caller {
    /// A caller, for tests of handlers; `None` if customer, tier or meter are nothing that the authorizer would say.
    #[must_use]
    pub fn new(customer: &str, tier: &str, meter: Option<&str>, cost: Option<u64>) -> Option<Self> {
        let is_valid = is_customer(customer) && is_name(tier) && meter.is_none_or(is_name);
        is_valid.then(|| Self {
            customer: customer.into(),
            tier: tier.into(),
            meter: meter.map(Into::into),
            cost,
        })
    }

    /// The customer's id: 1 to 64 letters, digits, `_`, `-` or `.`.
    #[must_use]
    pub fn customer(&self) -> &str {
        &self.customer
    }

    /// The name of the tier that the request was admitted under.
    #[must_use]
    pub fn tier(&self) -> &str {
        &self.tier
    }

    /// What the request counts as; `None` where the gateway does not say.
    #[must_use]
    pub fn meter(&self) -> Option<&str> {
        self.meter.as_deref()
    }

    /// How many units of the meter the request takes; `None` where the gateway does not say.
    #[must_use]
    pub fn cost(&self) -> Option<u64> {
        self.cost
    }
}

/// An entry of the context: its name, the request header that may carry it, and what it becomes.
pub(crate) struct Entry {
    name: &'static str,
    header: &'static str,
    answer: HeaderName,
    shape: Shape,
}

#[derive(Clone, Copy)]
enum Shape {
    Number,
    Word,
    /// A Structured Fields list as the authorizer writes it: strings and numbers, no line breaks.
    Field,
}

const fn entry(name: &'static str, header: &'static str, answer: &'static str, shape: Shape) -> Entry {
    Entry {
        name,
        header,
        answer: HeaderName::from_static(answer),
        shape,
    }
}

/// The entries that become headers of the answer.
static ENTRIES: [Entry; 10] = [
    entry("limit", "x-farebox-limit", "x-ratelimit-limit", Shape::Number),
    entry(
        "remaining",
        "x-farebox-remaining",
        "x-ratelimit-remaining",
        Shape::Number,
    ),
    entry("reset", "x-farebox-reset", "x-ratelimit-reset", Shape::Number),
    entry("warning", "x-farebox-warning", "x-ratelimit-warning", Shape::Word),
    entry("ratelimit", "x-farebox-ratelimit", "ratelimit", Shape::Field),
    entry(
        "ratelimit_policy",
        "x-farebox-ratelimit-policy",
        "ratelimit-policy",
        Shape::Field,
    ),
    entry("quota_limit", "x-farebox-quota-limit", "x-quota-limit", Shape::Number),
    entry("quota_used", "x-farebox-quota-used", "x-quota-used", Shape::Number),
    entry("quota_reset", "x-farebox-quota-reset", "x-quota-reset", Shape::Number),
    entry("cost", "x-farebox-cost", "x-farebox-cost", Shape::Number),
];

/// A `RateLimit` field holds one item per limit of a tier; nobody has so many that they need more.
const FIELD_LENGTH_MAX: usize = 1_024;

/// The headers of the answer, without those whose entry is absent or malformed. Empty without allocating if there is none.
pub(crate) fn headers<'r>(
    lookup: impl Fn(&'static str, &'static str) -> Option<Cow<'r, str>>,
) -> Vec<(HeaderName, HeaderValue)> {
    let value = |entry: &Entry| shaped(entry.shape, &lookup(entry.name, entry.header)?);
    ENTRIES
        .iter()
        .filter_map(|entry| Some((entry.answer.clone(), value(entry)?)))
        .collect()
}

/// Who calls, if customer and tier are there and well-formed.
pub(crate) fn caller<'r>(lookup: impl Fn(&'static str, &'static str) -> Option<Cow<'r, str>>) -> Option<Caller> {
    let customer = lookup("customer", "x-farebox-customer")?;
    let tier = lookup("tier", "x-farebox-tier")?;
    let meter = lookup("meter", "x-farebox-meter").filter(|text| is_name(text));
    let cost = lookup("cost", "x-farebox-cost").and_then(|text| number(&text));
    Caller::new(&customer, &tier, meter.as_deref(), cost)
}

fn shaped(shape: Shape, text: &str) -> Option<HeaderValue> {
    match shape {
        Shape::Number => number(text).map(HeaderValue::from),
        Shape::Word => {
            let is_word = (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            is_word.then(|| HeaderValue::from_str(text).ok())?
        }
        Shape::Field => {
            let is_field =
                (1..=FIELD_LENGTH_MAX).contains(&text.len()) && text.bytes().all(|b| matches!(b, b' '..=b'~'));
            is_field.then(|| HeaderValue::from_str(text).ok())?
        }
    }
}

/// Digits only: `u64::from_str` would take a sign as well.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// As `farebox_core::id::CustomerId`.
fn is_customer(text: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    (1..=64).contains(&text.len()) && text.bytes().all(is_allowed)
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'!'..=b'~'))
}
