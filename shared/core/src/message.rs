//! The usage message: a hint that a counter moved. Its values are cumulative, so that losing, repeating or reordering
//! messages changes nothing; the counter is the truth.

use serde::{Deserialize, Serialize};

use crate::{
    id::{CustomerId, Generation, is_meter_name},
    tiers::PlanId,
};

/// The only version there is. Another one is refused, not guessed at.
pub const VERSION: u32 = 1;
/// Stripe takes values of at most 15 digits
/// (<https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api>).
pub const UNITS_MAX: u64 = 999_999_999_999_999;

/// Where one counter's bucket stood after an admission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageMessage {
    /// [`VERSION`].
    pub v: u32,
    /// Whose counter.
    pub customer: CustomerId,
    /// Which of the customer's counter items.
    pub shard: u32,
    /// Which life of that item.
    pub generation: Generation,
    /// The meter.
    pub meter: String,
    /// The bucket's start, unix seconds.
    pub bucket: u64,
    /// The bucket's end, unix seconds.
    pub bucket_end: u64,
    /// Units of the bucket so far.
    pub units: u64,
    /// The billing period's start, unix seconds.
    pub period: u64,
    /// What the customer pays: thresholds are those of one plan.
    pub plan: PlanId,
    /// Units of the billing period under this plan so far, of this counter item.
    pub period_units: u64,
    /// Units included in the period for the customer as a whole; absent is unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub included: Option<u64>,
    /// Units that a spend cap leaves room for, for the customer as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<u64>,
    /// At which percentages of both the customer is alerted.
    pub alert_percents: Vec<u16>,
    /// When the authorizer sent it, unix milliseconds.
    pub at: u64,
}

/// Why a message can't be used. It goes to the dead-letter queue; none of its content is quoted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// Not JSON of the right shape.
    #[error("not a usage message: {0}")]
    Shape(String),
    /// A version that this build does not know.
    #[error("usage message version {0} is not known; this build reads version {VERSION}")]
    Version(u64),
    /// A field outside its range.
    #[error("usage message field {0} is out of range")]
    Range(&'static str),
}

impl UsageMessage {
    /// Reads and checks a message body.
    ///
    /// # Errors
    /// [`BadMessage`] if it is not one, or not plausible.
    pub fn parse(body: &str) -> Result<Self, BadMessage> {
        #[derive(Deserialize)]
        struct Version {
            v: u64,
        }
        // serde_json's error names line, column and what was expected, and may quote a value: keep only the place.
        let shape = |e: serde_json::Error| {
            BadMessage::Shape(format!(
                "{:?} error at line {} column {}",
                e.classify(),
                e.line(),
                e.column()
            ))
        };
        let Version { v } = serde_json::from_str(body).map_err(shape)?;
        if v != u64::from(VERSION) {
            return Err(BadMessage::Version(v));
        }
        let message: Self = serde_json::from_str(body).map_err(shape)?;
        message.check()?;
        Ok(message)
    }

    fn check(&self) -> Result<(), BadMessage> {
        let hour = self.bucket - self.bucket % crate::time::HOUR_S;
        let checks = [
            ("meter", is_meter_name(&self.meter)),
            ("shard", self.shard < 1_000),
            ("bucket", self.bucket < 253_402_300_800),
            (
                "bucket_end",
                self.bucket_end > self.bucket && self.bucket_end <= hour.saturating_add(crate::time::HOUR_S),
            ),
            ("units", self.units <= UNITS_MAX),
            ("period", self.period <= self.bucket),
            ("period_units", self.period_units <= UNITS_MAX),
            ("alert_percents", self.alert_percents.len() <= 16),
        ];
        match checks.into_iter().find(|(_, holds)| !holds) {
            Some((field, _)) => Err(BadMessage::Range(field)),
            None => Ok(()),
        }
    }

    /// The message as the queue carries it.
    #[must_use]
    pub fn to_body(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() // no map keys, no floats: it can not fail
    }
}
