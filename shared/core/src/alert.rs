//! The alert message: everything that a delivery says, as it stood when the occasion was noticed. Whoever delivers it, however
//! late or often, says the same and never looks up how things stand by then.

use serde::{Deserialize, Serialize};

use crate::{
    account::Customer,
    id::CustomerId,
    money::{Currency, Money},
    time::{Period, Timestamp},
};

/// The only version there is. Another one is refused, not guessed at.
pub const VERSION: u32 = 1;

/// One occasion to tell somebody something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlertMessage {
    /// [`VERSION`].
    pub v: u32,
    /// Names the occasion. Each channel is decided on once per id.
    pub id: String,
    /// When it was noticed.
    pub at: Timestamp,
    /// The customer it is about, with the addresses that held then; `None` where it is about no single one.
    #[serde(default)]
    pub customer: Option<Recipient>,
    /// What happened.
    pub occasion: Occasion,
}

/// A customer as an alert reaches it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// The customer.
    pub id: CustomerId,
    /// The name that people know.
    pub name: String,
    /// Where mail goes; `None` sends none.
    #[serde(default)]
    pub email: Option<String>,
    /// The address of the customer's webhook; `None` calls none. Its signing secret is not part of the message.
    #[serde(default)]
    pub webhook: Option<String>,
}

impl Recipient {
    /// The customer as it can be reached now.
    #[must_use]
    pub fn of(customer: &Customer) -> Self {
        Self {
            id: customer.id.clone(),
            name: customer.name.clone(),
            email: customer.contact.email.clone(),
            webhook: customer.contact.webhook.clone(),
        }
    }
}

/// What happened. Everything but [`Occasion::Operator`] is told to the customer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Occasion {
    /// A share of the included units is used.
    QuotaThreshold {
        /// The tier.
        tier: String,
        /// The meter.
        meter: String,
        /// The threshold, percent of the included units.
        percent: u64,
        /// Units of the billing period when it was noticed.
        units: u64,
        /// The included units.
        included: u64,
        /// The billing period.
        period: Period,
        /// What happens beyond the included units: `overage`, `throttle` or `block`.
        at_quota: String,
    },
    /// A share of the spend cap is used.
    SpendCap {
        /// The tier.
        tier: String,
        /// The meter.
        meter: String,
        /// The threshold, percent of the units that the cap leaves room for.
        percent: u64,
        /// Units of the billing period when it was noticed.
        units: u64,
        /// The units that the cap leaves room for.
        cap_units: u64,
        /// The cap.
        cap: Money,
        /// Its currency.
        currency: Currency,
        /// The billing period.
        period: Period,
    },
    /// An invoice could not be collected.
    PaymentFailed {
        /// The invoice in Stripe.
        invoice: String,
        /// What is left to pay, in the smallest unit of the currency.
        amount_due: i64,
        /// The currency's code.
        currency: String,
        /// How many attempts there were.
        attempts: u64,
        /// When Stripe tries again, unix seconds.
        next_attempt: Option<u64>,
        /// Where the customer can pay.
        pay_url: Option<String>,
        /// What happens if it stays unpaid: `keep`, `throttle` or `block`.
        policy: String,
        /// From when on, unix seconds.
        policy_from: u64,
    },
    /// A trial ends soon.
    TrialEnding {
        /// The tier.
        tier: String,
        /// When, unix seconds.
        trial_end: u64,
    },
    /// A key is about to expire.
    KeyExpiring {
        /// What its owner calls it.
        name: String,
        /// Brand, mode and four characters.
        prefix: String,
        /// The last four characters.
        last_four: String,
        /// When, unix seconds.
        expires: u64,
    },
    /// Something that only the operator can settle.
    Operator {
        /// A word that stands for the kind of problem: `row_parked`, `meter_error`, `invoice_not_finalized`, …
        problem: String,
        /// One sentence that says what happened and what to do.
        text: String,
        /// Names and figures.
        details: std::collections::BTreeMap<String, String>,
    },
}

impl Occasion {
    /// The word for the kind, as the message carries it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::QuotaThreshold { .. } => "quota_threshold",
            Self::SpendCap { .. } => "spend_cap",
            Self::PaymentFailed { .. } => "payment_failed",
            Self::TrialEnding { .. } => "trial_ending",
            Self::KeyExpiring { .. } => "key_expiring",
            Self::Operator { .. } => "operator",
        }
    }

    /// Whether it is told to the operator instead of the customer.
    #[must_use]
    pub fn is_for_operator(&self) -> bool {
        matches!(self, Self::Operator { .. })
    }
}

/// Why a message can't be used. It goes to the dead-letter queue; none of its content is quoted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAlert {
    /// Not JSON of the right shape.
    #[error("not an alert message: {0}")]
    Shape(String),
    /// A version that this build does not know.
    #[error("alert message version {0} is not known; this build reads version {VERSION}")]
    Version(u64),
}

impl AlertMessage {
    /// Reads a message body.
    ///
    /// # Errors
    /// [`BadAlert`] if it is not one.
    pub fn parse(body: &str) -> Result<Self, BadAlert> {
        #[derive(Deserialize)]
        struct Version {
            v: u64,
        }
        // serde_json's error may quote a value: keep only the place.
        let shape = |e: serde_json::Error| {
            BadAlert::Shape(format!(
                "{:?} error at line {} column {}",
                e.classify(),
                e.line(),
                e.column()
            ))
        };
        let Version { v } = serde_json::from_str(body).map_err(shape)?;
        if v != u64::from(VERSION) {
            return Err(BadAlert::Version(v));
        }
        serde_json::from_str(body).map_err(shape)
    }

    /// The message as the queue carries it.
    #[must_use]
    pub fn to_body(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() // no map with other than text keys, no floats: it can not fail
    }
}
