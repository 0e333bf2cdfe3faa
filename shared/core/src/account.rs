//! The control plane's records: who pays, and which keys open what.

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::{
    id::CustomerId,
    key::{KeyHash, Mode},
    ledger::Balance,
    tiers::{Limit, Overrides, PastDue, PastDuePolicy, Pattern, PlanId},
    time::{Cycle, Timestamp},
};

/// Who pays: owns keys, a tier and a billing period.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Customer {
    /// The id.
    pub id: CustomerId,
    /// The name that people know.
    pub name: String,
    /// What was sold, oldest first, never empty. The last one may lie ahead: a change that waits for the period's end.
    #[serde(deserialize_with = "not_empty")]
    pub phases: Vec<Phase>,
    /// A change that Stripe is being asked for: it begins once the subscription has its price. Written before Stripe is asked,
    /// so that whoever finds the price there knows what was agreed and when it begins (`from`; 0 is at once).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered: Option<Phase>,
    /// From when on nobody is let in, unix seconds: the subscription ends there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<u64>,
    /// The subscription is being ended at once, by us: nobody is let in, whatever their clock says. Only whoever sells a tier
    /// takes that back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_leaving: bool,
    /// The billing periods.
    pub cycle: Cycle,
    /// Bumped by every change of keys, tier or period, before the counter items learn of it.
    pub auth_epoch: u64,
    /// Suspended customers are refused whatever their key.
    #[serde(default)]
    pub is_suspended: bool,
    /// How the subscription stands.
    #[serde(default)]
    pub standing: Standing,
    /// Units that were given besides what the tier includes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<Grant>,
    /// Where alerts go.
    #[serde(default)]
    pub contact: Contact,
    /// The customer in Stripe; usage of one without is counted but not reported.
    #[serde(default)]
    pub stripe_customer: Option<String>,
    /// The subscription in Stripe.
    #[serde(default)]
    pub stripe_subscription: Option<String>,
    /// The slot that the next generation of a counter item takes.
    pub next_slot: u32,
}

fn not_empty<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<Phase>, D::Error> {
    let phases = Vec::deserialize(input)?;
    match phases.is_empty() {
        true => Err(D::Error::custom("phases is empty: a customer has at least one")),
        false => Ok(phases),
    }
}

/// What holds from a second on: a tier of a version of the catalog, and what was agreed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// The first second, where a bucket starts.
    pub from: u64,
    /// The tier's name in the catalog.
    pub tier: String,
    /// Which version of the catalog holds.
    pub catalog: u64,
    /// What was agreed with this customer.
    #[serde(default)]
    pub overrides: Overrides,
    /// What it costs: names the meters that its units are reported to.
    pub plan: PlanId,
}

/// How the subscription stands: Stripe's status, as far as it decides who gets in
/// (<https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses>).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Standing {
    /// `active` or `trialing`.
    #[default]
    Good,
    /// `past_due`: an invoice is not paid, and Stripe goes on trying.
    PastDue {
        /// Since when, unix seconds.
        since: u64,
    },
    /// `unpaid`: Stripe has given up trying. The grace is over.
    Unpaid,
    /// `incomplete`: the first invoice is not paid yet.
    Incomplete,
    /// `paused`: the trial ended without a way to pay.
    Paused,
    /// `canceled` or `incomplete_expired`.
    Ended,
}

/// Units that were given to a customer for one billing period: they raise what is included, and as many are taken off the
/// reports to Stripe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Names it, so that granting again changes nothing.
    pub id: String,
    /// The meter.
    pub meter: String,
    /// The units.
    pub units: u64,
    /// The start of the billing period, unix seconds.
    pub period: u64,
    /// The plan that was in force. Another plan includes what it includes: what is left of the units by then is still taken off
    /// the reports.
    pub plan: PlanId,
}

/// Where a customer's alerts go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Contact {
    /// Where mail goes.
    pub email: Option<String>,
    /// The https address that is called.
    pub webhook: Option<String>,
    /// What calls are signed with, newest first: while a secret is replaced there are two.
    pub webhook_secrets: Vec<WebhookSecret>,
}

/// A secret of the Standard Webhooks form, `whsec_` and base64
/// (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>). It is stored with the customer
/// and shown to nobody but its owner, once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WebhookSecret(String);

impl WebhookSecret {
    /// Takes a secret.
    #[must_use]
    pub fn new(secret: String) -> Self {
        Self(secret)
    }

    /// The secret, for signing or for showing it once.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WebhookSecret(..)")
    }
}

/// What a customer's standing does to its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Nothing.
    None,
    /// They are held to a slower limit besides.
    Throttle(Limit),
    /// They are refused.
    Refuse(Refusal),
}

/// Why a customer is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The word in the answer.
    pub code: &'static str,
    /// The sentence in the answer.
    pub message: &'static str,
}

/// Phases that ended longer ago, and before the running period, are forgotten: no row that old is reported any more.
const PHASES_KEPT_S: u64 = 40 * 86_400;
/// More changes of price than this within [`PHASES_KEPT_S`] are refused: each cuts a bucket and costs a report.
const PHASES_MAX: usize = 64;

/// The tier was changed too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tier was changed {PHASES_MAX} times within 40 days or one period; no further change is taken")]
pub struct ChangedTooOften;

impl Customer {
    /// What holds at a second.
    #[must_use]
    pub fn phase_at(&self, s: u64) -> &Phase {
        let after = self.phases.partition_point(|phase| phase.from <= s);
        // Before the first phase there was nobody to count for: units of a clock that is behind belong to the first one.
        &self.phases[after.saturating_sub(1)]
    }

    /// What is to hold after the phase of a second, if that is known already.
    #[must_use]
    pub fn phase_after(&self, s: u64) -> Option<&Phase> {
        self.phases.iter().find(|phase| phase.from > s)
    }

    /// Lets a phase begin, in place of whatever was to begin at or after it, and cuts the bucket there.
    ///
    /// # Errors
    /// [`ChangedTooOften`].
    pub fn begin(&mut self, phase: Phase, now_s: u64) -> Result<(), ChangedTooOften> {
        // Those of the running period are needed until it is invoiced, which may be a year.
        let forgotten = now_s.saturating_sub(PHASES_KEPT_S).min(self.cycle.current.start);
        while self.phases.get(1).is_some_and(|second| second.from <= forgotten) {
            self.phases.remove(0);
        }
        self.cycle.cuts.retain(|&cut| cut > forgotten && cut <= now_s);
        self.phases.retain(|known| known.from < phase.from);
        if self.phases.len() >= PHASES_MAX {
            return Err(ChangedTooOften);
        }
        self.cycle.cut(phase.from);
        self.phases.push(phase);
        Ok(())
    }

    /// Drops a change that lies ahead. Says whether there was one.
    pub fn drop_change_ahead(&mut self, now_s: u64) -> bool {
        let before = self.phases.len();
        self.phases.retain(|phase| phase.from <= now_s);
        self.cycle.cuts.retain(|&cut| cut <= now_s);
        self.phases.len() < before
    }

    /// What was given for the billing period and the plan of a second.
    #[must_use]
    pub fn granted(&self, meter: &str, s: u64) -> u64 {
        if self.grants.is_empty() {
            return 0;
        }
        let (period, plan) = (self.cycle.period_at(s), &self.phase_at(s).plan);
        let grants = self
            .grants
            .iter()
            .filter(|grant| grant.meter == meter && grant.plan == *plan && period.contains(grant.period));
        grants.fold(0, |sum, grant| sum.saturating_add(grant.units))
    }

    /// How much of a balance of given units a bucket may take. Units let more in for one plan in one period, and there they are taken
    /// off: other buckets leave as many as the grants of the same or a later period gave, and the plan's own as many as those of
    /// later ones. What its period has left over is anybody's.
    #[must_use]
    pub fn spendable(&self, meter: &str, bucket: u64, balance: Balance) -> u64 {
        let period = self.cycle.period_at(bucket);
        let kept_from = match self.granted(meter, bucket) {
            0 => period.start,
            _ => period.end,
        };
        let kept = self.grants.iter();
        let kept = kept.filter(|grant| grant.meter == meter && grant.period >= kept_from);
        balance
            .left()
            .saturating_sub(kept.fold(0, |sum, grant| sum.saturating_add(grant.units)))
    }

    /// What the customer's standing does to a request.
    #[must_use]
    pub fn hold(&self, past_due: &PastDue, now_s: u64) -> Hold {
        if self.is_suspended {
            return refuse("customer_suspended", "The account is suspended.");
        }
        if self.is_leaving || self.ends.is_some_and(|ends| ends <= now_s) {
            return refuse("subscription_ended", "The subscription has ended.");
        }
        let policy = match self.standing {
            Standing::Good => PastDuePolicy::Keep,
            Standing::PastDue { since } => past_due.at(since, now_s),
            Standing::Unpaid => past_due.policy,
            Standing::Incomplete => {
                return refuse("subscription_incomplete", "The first payment has not been made yet.");
            }
            Standing::Paused => return refuse("subscription_paused", "The subscription is paused."),
            Standing::Ended => return refuse("subscription_ended", "The subscription has ended."),
        };
        match policy {
            PastDuePolicy::Keep => Hold::None,
            PastDuePolicy::Throttle(limit) => Hold::Throttle(limit),
            PastDuePolicy::Block => refuse("payment_overdue", "An invoice has not been paid."),
        }
    }
}

fn refuse(code: &'static str, message: &'static str) -> Hold {
    Hold::Refuse(Refusal { code, message })
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

/// That a key was replaced by a rotation: no request asks for it, only whoever replaces it once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// The key that took its place.
    pub by: KeyHash,
    /// When the key would have expired by itself: what has its own place in [`KeyRecord::expires`] is the end of the grace.
    #[serde(default)]
    pub expires: Option<Timestamp>,
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
