//! The control plane's records: who pays, and which keys open what.

use serde::{Deserialize, Serialize};

use crate::{
    id::CustomerId,
    key::Mode,
    tiers::{Overrides, Pattern},
    time::{Cycle, Timestamp},
};

/// Who pays: owns keys, a tier and a billing period.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Customer {
    /// The id.
    pub id: CustomerId,
    /// The name that people know.
    pub name: String,
    /// The tier's name in the catalog.
    pub tier: String,
    /// Which version of the catalog holds for the customer.
    pub catalog: u64,
    /// What was agreed with this customer.
    #[serde(default)]
    pub overrides: Overrides,
    /// The billing periods.
    pub cycle: Cycle,
    /// Bumped by every change of keys, tier or period, before the counter items learn of it.
    pub auth_epoch: u64,
    /// Suspended customers are refused whatever their key.
    #[serde(default)]
    pub is_suspended: bool,
    /// The customer in Stripe; usage of one without is counted but not reported.
    #[serde(default)]
    pub stripe_customer: Option<String>,
    /// The subscription in Stripe.
    #[serde(default)]
    pub stripe_subscription: Option<String>,
    /// The slot that the next generation of a counter item takes.
    pub next_slot: u32,
}

/// What the table knows of a key. Never the key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// The owner.
    pub customer: CustomerId,
    /// What the owner calls it.
    #[serde(default)]
    pub name: String,
    /// Brand, mode and four characters.
    pub prefix: String,
    /// The last four characters.
    pub last_four: String,
    /// Live or test.
    pub mode: Mode,
    /// The routes it opens, of those that the tier has; empty is all of them.
    #[serde(default)]
    pub scopes: Vec<Pattern>,
    /// When it was issued.
    pub created: Timestamp,
    /// From when on it is refused; a rotation sets this to the end of its grace.
    #[serde(default)]
    pub expires: Option<Timestamp>,
    /// Since when it is revoked. Nothing takes that back.
    #[serde(default)]
    pub revoked: Option<Timestamp>,
}

/// Why a known key does not open a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRefusal {
    /// It was revoked.
    Revoked,
    /// Its time, or the grace after a rotation, is over.
    Expired,
    /// It opens other routes only.
    OutOfScope,
}

impl KeyRecord {
    /// Whether the key opens a route at a time.
    ///
    /// # Errors
    /// [`KeyRefusal`] if it does not.
    pub fn check(&self, method: &str, path: &str, now: Timestamp) -> Result<(), KeyRefusal> {
        if self.revoked.is_some() {
            return Err(KeyRefusal::Revoked);
        }
        if self.expires.is_some_and(|expires| expires <= now) {
            return Err(KeyRefusal::Expired);
        }
        if !self.scopes.is_empty() && !self.scopes.iter().any(|scope| scope.matches(method, path)) {
            return Err(KeyRefusal::OutOfScope);
        }
        Ok(())
    }
}
