#![doc = include_str!("../README.md")]

mod catalogue;
mod change;
mod concurrent;
mod follow;
mod reconcile;
mod repair;
mod reporter;

use std::sync::Arc;

use farebox_aws::{
    accounts::AccountTable, alerts::AlertQueue, control::Control, counters::CounterTable, ledger::LedgerTable,
};
use farebox_core::{
    account::Customer,
    alert::{AlertMessage, Occasion, Recipient, VERSION},
    time::Timestamp,
};

pub use catalogue::{CataloguePlan, Making, Mismatch, PlanPrices, Staying, TierPlan};
pub use change::{CUSTOMER_KEY, Offer, Sale, When, check_grant_id, check_meter, keep_caps};
pub use concurrent::each;
pub use follow::{Concern, Followed, SoldPlan, agree, base_plan, period, unpaid_since};
pub use reconcile::{Asked, InvoiceCheck, Reconciler, Reconciliation, RowCheck, SumCheck};
pub use repair::{Parked, Remedy};
pub use reporter::{TickReport, rows};

/// Where the time comes from.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The tables, Stripe and the time: what billing works with.
#[derive(Clone)]
pub struct Books {
    /// Customers, keys and catalogs.
    pub accounts: AccountTable,
    /// Counter items.
    pub counters: CounterTable,
    /// Ledger rows, balances and alerts.
    pub ledger: LedgerTable,
    /// Where alerts are sent to be delivered.
    pub alerts: AlertQueue,
    /// Stripe.
    pub stripe: farebox_stripe::Client,
    /// The time.
    pub clock: Clock,
}

/// What kept billing from its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A table did not answer, refused, or holds what this build does not write.
    #[error(transparent)]
    Table(#[from] farebox_aws::Error),
    /// Stripe did not answer, or refused.
    #[error("stripe: {0}")]
    Stripe(#[from] farebox_stripe::Error),
    /// A row is in a state that no rule leads to. Nothing was done with it.
    #[error("row {row}: {problem}")]
    Row {
        /// The row.
        row: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// What was asked for can't be done, and why.
    #[error("{0}")]
    Refused(String),
}

impl Books {
    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The control plane over the same tables.
    #[must_use]
    pub fn control(&self) -> Control {
        Control {
            accounts: self.accounts.clone(),
            counters: self.counters.clone(),
            ledger: self.ledger.clone(),
        }
    }

    /// Sends an alert about a customer, or about no single one. The id names the occasion: sending it again is harmless.
    ///
    /// # Errors
    /// [`Error::Table`] if the queue did not take it.
    pub async fn alert(&self, id: String, customer: Option<&Customer>, occasion: Occasion) -> Result<(), Error> {
        let message = AlertMessage {
            v: VERSION,
            id,
            at: self.now(),
            customer: customer.map(Recipient::of),
            occasion,
        };
        Ok(self.alerts.send(&message).await?)
    }
}
