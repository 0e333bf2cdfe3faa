//! Subscriptions: which prices a customer pays, and over which periods.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use stripe_billing::subscription::{CreateSubscription, CreateSubscriptionItems, RetrieveSubscription};
use stripe_client_core::StripeRequest;

use crate::answer::Accepted;
use crate::client::path_id;
use crate::list::{Listed, Page, page_of};
use crate::{Client, Error, reference};

/// Who pays which prices: <https://docs.stripe.com/api/subscriptions/object>.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// `sub_…`
    pub id: String,
    /// `trialing`, `active`, `past_due`, `canceled`, `unpaid`, `incomplete`, `incomplete_expired`, `paused`, or what Stripe
    /// adds.
    pub status: String,
    /// `cus_…`
    pub customer: String,
    /// One per price, all of them.
    pub items: Vec<SubscriptionItem>,
    /// The unix second from which all periods are counted; month ends clamp from its day.
    pub billing_cycle_anchor: i64,
    /// Whether it ends with the present period.
    pub cancel_at_period_end: bool,
    /// When the trial ends, in unix seconds.
    pub trial_end: Option<i64>,
    /// When it ended, in unix seconds.
    pub ended_at: Option<i64>,
    /// Ours to fill.
    pub metadata: HashMap<String, String>,
}

/// One price of a subscription. The billing period is here, not on the subscription:
/// <https://docs.stripe.com/changelog/basil/2025-03-31/deprecate-subscription-current-period-start-and-end>.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SubscriptionItem {
    /// `si_…`
    pub id: String,
    /// `price_…`
    #[serde(deserialize_with = "reference::id")]
    pub price: String,
    /// Unix seconds.
    pub current_period_start: i64,
    /// Unix seconds; the first one of the next period.
    pub current_period_end: i64,
}

impl Client {
    /// Subscribes a customer. No quantity is sent, as metered prices require; a flat price counts once.
    ///
    /// # Errors
    /// [`Error::Rejected`] if the customer has nothing to pay with and the first period isn't free.
    pub async fn create_subscription(
        &self,
        customer: &str,
        price_ids: &[&str],
        trial_days: Option<u32>,
        metadata: HashMap<String, String>,
        idempotency_key: &str,
    ) -> Result<Subscription, Error> {
        let items: Vec<_> = price_ids
            .iter()
            .map(|&price| CreateSubscriptionItems {
                price: Some(price.to_owned()),
                ..CreateSubscriptionItems::new()
            })
            .collect();
        let mut request = CreateSubscription::new().customer(customer).items(items);
        if let Some(days) = trial_days {
            request = request.trial_period_days(days);
        }
        if !metadata.is_empty() {
            request = request.metadata(metadata);
        }
        let accepted = self.create(&request, idempotency_key).await?;
        self.read_subscription(&accepted).await
    }

    /// A subscription as it is now.
    ///
    /// # Errors
    /// [`Error::Rejected`] with 404 if there is none.
    pub async fn subscription(&self, id: &str) -> Result<Subscription, Error> {
        let accepted = self.get(RetrieveSubscription::new(path_id(id)?).build()).await?;
        self.read_subscription(&accepted).await
    }

    async fn read_subscription(&self, accepted: &Accepted) -> Result<Subscription, Error> {
        #[derive(Serialize)]
        struct Of<'a> {
            subscription: &'a str,
        }
        let read: Read = accepted.read()?;
        let of = Of { subscription: &read.id };
        let items = self
            .rest(read.items, |after| page_of("/subscription_items", &of, after))
            .await?;
        Ok(Subscription {
            items,
            id: read.id,
            status: read.status,
            customer: read.customer,
            billing_cycle_anchor: read.billing_cycle_anchor,
            cancel_at_period_end: read.cancel_at_period_end,
            trial_end: read.trial_end,
            ended_at: read.ended_at,
            metadata: read.metadata,
        })
    }
}

/// The answer, whose items are a first page.
#[derive(Deserialize)]
struct Read {
    id: String,
    status: String,
    #[serde(deserialize_with = "reference::id")]
    customer: String,
    items: Page<SubscriptionItem>,
    billing_cycle_anchor: i64,
    #[serde(default)]
    cancel_at_period_end: bool,
    trial_end: Option<i64>,
    ended_at: Option<i64>,
    #[serde(default)]
    metadata: HashMap<String, String>,
}

impl Listed for SubscriptionItem {
    fn id(&self) -> &str {
        &self.id
    }
}
