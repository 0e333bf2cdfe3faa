//! Subscriptions: which prices a customer pays, and over which periods.

use std::collections::HashMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use stripe_billing::subscription::{
    CancelSubscription, CreateSubscription, CreateSubscriptionItems, CreateSubscriptionTrialSettings,
    CreateSubscriptionTrialSettingsEndBehavior, CreateSubscriptionTrialSettingsEndBehaviorMissingPaymentMethod,
    ListSubscription, ListSubscriptionStatus, ResumeSubscription, RetrieveSubscription, UpdateSubscription,
    UpdateSubscriptionBillingCycleAnchor, UpdateSubscriptionBillingCycleAnchorType, UpdateSubscriptionItems,
    UpdateSubscriptionPauseCollection, UpdateSubscriptionPauseCollectionBehavior, UpdateSubscriptionProrationBehavior,
    UpdateSubscriptionTrialEnd,
};
use stripe_client_core::{RequestBuilder, StripeMethod, StripeRequest};

use crate::answer::Accepted;
use crate::client::path_id;
use crate::list::{Listed, PAGE, Page, page_of};
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
    /// When it will end, in unix seconds: a date that was set, or the end of the period.
    pub cancel_at: Option<i64>,
    /// When it was created, in unix seconds.
    pub created: i64,
    /// When the trial began, in unix seconds.
    pub trial_start: Option<i64>,
    /// When the trial ends, in unix seconds.
    pub trial_end: Option<i64>,
    /// When it ended, in unix seconds.
    pub ended_at: Option<i64>,
    /// Whether its invoices are not collected for now; the status says nothing of it:
    /// <https://docs.stripe.com/billing/subscriptions/pause-payment>.
    pub pause_collection: bool,
    /// `in_…`, the newest.
    pub latest_invoice: Option<String>,
    /// Whether real money moves.
    pub livemode: bool,
    /// Ours to fill.
    pub metadata: HashMap<String, String>,
}

/// One price of a subscription. The billing period is here, not on the subscription:
/// <https://docs.stripe.com/changelog/basil/2025-03-31/deprecate-subscription-current-period-start-and-end>.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "ReadItem")]
pub struct SubscriptionItem {
    /// `si_…`
    pub id: String,
    /// `price_…`
    pub price: String,
    /// The price's lookup key: a price that was sold stays with its subscriptions, but its key may move to a newer one.
    pub lookup_key: Option<String>,
    /// The price's metadata: ours to fill.
    pub price_metadata: HashMap<String, String>,
    /// `prod_…`
    pub product: Option<String>,
    /// Whether a meter counts it.
    pub is_metered: bool,
    /// When it was added, in unix seconds.
    pub created: i64,
    /// Unix seconds.
    pub current_period_start: i64,
    /// Unix seconds; the first one of the next period.
    pub current_period_end: i64,
}

/// A subscription to be: <https://docs.stripe.com/api/subscriptions/create>. Its billing mode is `flexible`, the default since
/// 2025-09-30.clover: <https://docs.stripe.com/billing/subscriptions/billing-mode>.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewSubscription {
    /// `cus_…`
    pub customer: String,
    /// `price_…`, at most 20. No quantity is sent, as metered prices require; a flat price counts once.
    pub prices: Vec<String>,
    /// Days before the first period is paid.
    pub trial_days: Option<u32>,
    /// What happens at the end of the trial if there is nothing to pay with; Stripe's default is an invoice.
    pub trial_end_unpayable: Option<MissingPaymentMethod>,
    /// `pm_…`, attached to the customer; without one, the customer's own default pays.
    pub default_payment_method: Option<String>,
    /// Ours to fill.
    pub metadata: HashMap<String, String>,
}

/// What happens at the end of a trial if there is nothing to pay with:
/// <https://docs.stripe.com/billing/subscriptions/trials/free-trials#create-free-trials-without-payment>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingPaymentMethod {
    /// The subscription ends.
    Cancel,
    /// It goes on, with an invoice that fails.
    CreateInvoice,
    /// It waits, with status `paused`, for [`Client::resume_subscription`].
    Pause,
}

/// A change of a subscription: <https://docs.stripe.com/api/subscriptions/update>. What is left at its default stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionUpdate {
    /// Items that are not named stay.
    pub items: Vec<ItemChange>,
    /// What happens to the part of the period that is paid already. It is always sent.
    pub proration: Proration,
    /// The unix second at which the change counts as made; now by default.
    pub proration_date: Option<i64>,
    /// Whether it shall end with the present period; `false` takes that back.
    pub cancel_at_period_end: Option<bool>,
    /// Keys to set; an empty value takes the key away.
    pub metadata: HashMap<String, String>,
    /// Ends the trial, or moves its end and the billing cycle with it.
    pub trial_end: Option<TrialEnd>,
    /// Whether the billing cycle begins anew. Without it, Stripe keeps the cycle unless the interval changes or a free
    /// subscription becomes a paid one.
    pub billing_cycle_anchor: Option<CycleAnchor>,
}

/// A change of one item. A quantity is never sent: a metered price has none, a flat one counts once.
///
/// What a meter has counted so far in this period is billed at the old price when its item is replaced or removed; with
/// [`Proration::None`] it is never billed:
/// <https://docs.stripe.com/billing/subscriptions/usage-based/manage-billing-setup#update-prices-mid-cycle>.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemChange {
    /// Sells one more price.
    Add {
        /// `price_…`
        price: String,
    },
    /// Sells another price in its place.
    Replace {
        /// `si_…`
        item: String,
        /// `price_…`
        price: String,
    },
    /// Sells it no longer.
    Remove {
        /// `si_…`
        item: String,
        /// Forgets its usage. Stripe ignores that for a price with a meter.
        clear_usage: bool,
    },
}

/// What happens to the part of a period that is paid already: <https://docs.stripe.com/billing/subscriptions/prorations>.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proration {
    /// The difference is on the next invoice.
    #[default]
    CreateProrations,
    /// The difference is invoiced, and collected, at once.
    AlwaysInvoice,
    /// No difference is made, and usage of a metered price that goes is given away.
    None,
}

/// When a trial ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrialEnd {
    /// At once.
    Now,
    /// At this unix second.
    At(i64),
}

/// Where the billing cycle begins after a change:
/// <https://docs.stripe.com/billing/subscriptions/billing-cycle#changing>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CycleAnchor {
    /// With the change.
    Now,
    /// Where it began before.
    Unchanged,
}

/// What becomes of the invoices of a subscription that is not collected:
/// <https://docs.stripe.com/billing/subscriptions/pause-payment>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseBehavior {
    /// They wait as drafts: the service is paid later.
    KeepAsDraft,
    /// They count as a loss.
    MarkUncollectible,
    /// They are void: the service is free.
    Void,
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
        let new = NewSubscription {
            customer: customer.to_owned(),
            prices: price_ids.iter().map(|&price| price.to_owned()).collect(),
            trial_days,
            metadata,
            ..NewSubscription::default()
        };
        self.subscribe(&new, idempotency_key).await
    }

    /// Subscribes a customer.
    ///
    /// # Errors
    /// [`Error::Rejected`] if the customer has nothing to pay with and the first period isn't free.
    pub async fn subscribe(&self, new: &NewSubscription, idempotency_key: &str) -> Result<Subscription, Error> {
        let accepted = self.create(&new.request(), idempotency_key).await?;
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

    /// Every subscription that a customer has or had, newest first: <https://docs.stripe.com/api/subscriptions/list>.
    ///
    /// # Errors
    /// As every call.
    pub async fn subscriptions_of(&self, customer: &str) -> Result<Vec<Subscription>, Error> {
        let read: Vec<Read> = self
            .list(|after| {
                let mut request = ListSubscription::new()
                    .customer(customer)
                    .status(ListSubscriptionStatus::All)
                    .limit(PAGE);
                if let Some(after) = after {
                    request = request.starting_after(after);
                }
                request.build()
            })
            .await?;
        let mut subscriptions = Vec::with_capacity(read.len());
        for subscription in read {
            subscriptions.push(self.with_items(subscription).await?);
        }
        Ok(subscriptions)
    }

    /// Changes a subscription, all at once or not at all.
    ///
    /// # Errors
    /// [`Error::Rejected`] if it has ended, or if an item or a price is not there.
    pub async fn update_subscription(
        &self,
        id: &str,
        update: &SubscriptionUpdate,
        idempotency_key: &str,
    ) -> Result<Subscription, Error> {
        let accepted = self.create(&update.request(path_id(id)?), idempotency_key).await?;
        self.read_subscription(&accepted).await
    }

    /// Ends a subscription now: <https://docs.stripe.com/api/subscriptions/cancel>. `invoice_now` bills the usage and the
    /// prorations that no invoice holds yet; without it they are lost with the period. `prorate` credits the rest of the period.
    ///
    /// # Errors
    /// [`Error::Rejected`] with 404 if it has ended already: Stripe takes no notice of the key of a DELETE, so a second call
    /// meets what the first one did.
    pub async fn cancel_subscription(
        &self,
        id: &str,
        invoice_now: bool,
        prorate: bool,
        idempotency_key: &str,
    ) -> Result<Subscription, Error> {
        let request = CancelSubscription::new(path_id(id)?)
            .invoice_now(invoice_now)
            .prorate(prorate);
        let accepted = self.create(&request, idempotency_key).await?;
        self.read_subscription(&accepted).await
    }

    /// Goes on with a subscription whose status is `paused`, in a new billing cycle that begins now. If that makes an invoice, the
    /// status changes only when it is paid or fails: <https://docs.stripe.com/api/subscriptions/resume>.
    ///
    /// # Errors
    /// [`Error::Rejected`] if it isn't paused.
    pub async fn resume_subscription(&self, id: &str, idempotency_key: &str) -> Result<Subscription, Error> {
        let request = ResumeSubscription::new(path_id(id)?);
        let accepted = self.create(&request, idempotency_key).await?;
        self.read_subscription(&accepted).await
    }

    /// Stops collecting a subscription's invoices until [`Self::resume_collection`] or `resumes_at`, in unix seconds:
    /// <https://docs.stripe.com/billing/subscriptions/pause-payment>.
    ///
    /// # Errors
    /// [`Error::Rejected`] if it has ended.
    pub async fn pause_collection(
        &self,
        id: &str,
        behavior: PauseBehavior,
        resumes_at: Option<i64>,
        idempotency_key: &str,
    ) -> Result<Subscription, Error> {
        let pause = UpdateSubscriptionPauseCollection {
            resumes_at,
            ..UpdateSubscriptionPauseCollection::new(behavior.parameter())
        };
        let request = UpdateSubscription::new(path_id(id)?).pause_collection(pause);
        let accepted = self.create(&request, idempotency_key).await?;
        self.read_subscription(&accepted).await
    }

    /// Collects a subscription's invoices again; those that were kept as drafts stay drafts.
    ///
    /// # Errors
    /// [`Error::Rejected`] if it has ended.
    pub async fn resume_collection(&self, id: &str, idempotency_key: &str) -> Result<Subscription, Error> {
        /// async-stripe can't send the empty text that unsets it.
        #[derive(Serialize)]
        struct Unset {
            pause_collection: &'static str,
        }
        let request = RequestBuilder::new(StripeMethod::Post, format!("/subscriptions/{}", path_id(id)?))
            .form(&Unset { pause_collection: "" });
        let accepted = self.change(request, idempotency_key).await?;
        self.read_subscription(&accepted).await
    }

    async fn read_subscription(&self, accepted: &Accepted) -> Result<Subscription, Error> {
        self.with_items(accepted.read()?).await
    }

    /// A subscription shows only its first items.
    async fn with_items(&self, read: Read) -> Result<Subscription, Error> {
        #[derive(Serialize)]
        struct Of<'a> {
            subscription: &'a str,
        }
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
            cancel_at: read.cancel_at,
            created: read.created,
            trial_start: read.trial_start,
            trial_end: read.trial_end,
            ended_at: read.ended_at,
            pause_collection: read.pause_collection.is_some(),
            latest_invoice: read.latest_invoice,
            livemode: read.livemode,
            metadata: read.metadata,
        })
    }
}

impl NewSubscription {
    fn request(&self) -> CreateSubscription {
        let items: Vec<_> = self
            .prices
            .iter()
            .map(|price| CreateSubscriptionItems {
                price: Some(price.clone()),
                ..CreateSubscriptionItems::new()
            })
            .collect();
        let mut request = CreateSubscription::new().customer(&self.customer).items(items);
        if let Some(days) = self.trial_days {
            request = request.trial_period_days(days);
        }
        if let Some(unpayable) = self.trial_end_unpayable {
            request = request.trial_settings(CreateSubscriptionTrialSettings::new(
                CreateSubscriptionTrialSettingsEndBehavior {
                    missing_payment_method: Some(unpayable.parameter()),
                    ..CreateSubscriptionTrialSettingsEndBehavior::new()
                },
            ));
        }
        if let Some(method) = &self.default_payment_method {
            request = request.default_payment_method(method);
        }
        if !self.metadata.is_empty() {
            request = request.metadata(self.metadata.clone());
        }
        request
    }
}

impl MissingPaymentMethod {
    fn parameter(self) -> CreateSubscriptionTrialSettingsEndBehaviorMissingPaymentMethod {
        match self {
            Self::Cancel => CreateSubscriptionTrialSettingsEndBehaviorMissingPaymentMethod::Cancel,
            Self::CreateInvoice => CreateSubscriptionTrialSettingsEndBehaviorMissingPaymentMethod::CreateInvoice,
            Self::Pause => CreateSubscriptionTrialSettingsEndBehaviorMissingPaymentMethod::Pause,
        }
    }
}

impl SubscriptionUpdate {
    fn request(&self, id: &str) -> UpdateSubscription {
        let mut request = UpdateSubscription::new(id).proration_behavior(self.proration.parameter());
        if !self.items.is_empty() {
            request = request.items(self.items.iter().map(ItemChange::parameter).collect::<Vec<_>>());
        }
        if let Some(date) = self.proration_date {
            request = request.proration_date(date);
        }
        if let Some(cancel) = self.cancel_at_period_end {
            request = request.cancel_at_period_end(cancel);
        }
        if !self.metadata.is_empty() {
            request = request.metadata(self.metadata.clone());
        }
        if let Some(end) = self.trial_end {
            request = request.trial_end(match end {
                TrialEnd::Now => UpdateSubscriptionTrialEnd::Now,
                TrialEnd::At(second) => UpdateSubscriptionTrialEnd::Timestamp(second),
            });
        }
        if let Some(anchor) = self.billing_cycle_anchor {
            request = request.billing_cycle_anchor(UpdateSubscriptionBillingCycleAnchor::new(match anchor {
                CycleAnchor::Now => UpdateSubscriptionBillingCycleAnchorType::Now,
                CycleAnchor::Unchanged => UpdateSubscriptionBillingCycleAnchorType::Unchanged,
            }));
        }
        request
    }
}

impl ItemChange {
    fn parameter(&self) -> UpdateSubscriptionItems {
        let none = UpdateSubscriptionItems::new();
        match self {
            Self::Add { price } => UpdateSubscriptionItems {
                price: Some(price.clone()),
                ..none
            },
            Self::Replace { item, price } => UpdateSubscriptionItems {
                id: Some(item.clone()),
                price: Some(price.clone()),
                ..none
            },
            Self::Remove { item, clear_usage } => UpdateSubscriptionItems {
                id: Some(item.clone()),
                deleted: Some(true),
                clear_usage: clear_usage.then_some(true),
                ..none
            },
        }
    }
}

impl Proration {
    fn parameter(self) -> UpdateSubscriptionProrationBehavior {
        match self {
            Self::CreateProrations => UpdateSubscriptionProrationBehavior::CreateProrations,
            Self::AlwaysInvoice => UpdateSubscriptionProrationBehavior::AlwaysInvoice,
            Self::None => UpdateSubscriptionProrationBehavior::None,
        }
    }
}

impl PauseBehavior {
    fn parameter(self) -> UpdateSubscriptionPauseCollectionBehavior {
        match self {
            Self::KeepAsDraft => UpdateSubscriptionPauseCollectionBehavior::KeepAsDraft,
            Self::MarkUncollectible => UpdateSubscriptionPauseCollectionBehavior::MarkUncollectible,
            Self::Void => UpdateSubscriptionPauseCollectionBehavior::Void,
        }
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
    cancel_at: Option<i64>,
    created: i64,
    trial_start: Option<i64>,
    trial_end: Option<i64>,
    ended_at: Option<i64>,
    pause_collection: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "reference::optional")]
    latest_invoice: Option<String>,
    livemode: bool,
    #[serde(default)]
    metadata: HashMap<String, String>,
}

#[derive(Deserialize)]
struct ReadItem {
    id: String,
    price: ReadPrice,
    created: i64,
    current_period_start: i64,
    current_period_end: i64,
}

/// The price within an item; [`crate::Price`] wants more of one.
#[derive(Deserialize)]
struct ReadPrice {
    id: String,
    lookup_key: Option<String>,
    #[serde(default)]
    metadata: HashMap<String, String>,
    #[serde(default, deserialize_with = "reference::optional")]
    product: Option<String>,
    recurring: Option<ReadRecurring>,
}

#[derive(Deserialize)]
struct ReadRecurring {
    usage_type: String,
}

impl From<ReadItem> for SubscriptionItem {
    fn from(read: ReadItem) -> Self {
        let ReadPrice {
            id: price,
            lookup_key,
            metadata: price_metadata,
            product,
            recurring,
        } = read.price;
        Self {
            id: read.id,
            price,
            lookup_key,
            price_metadata,
            product,
            is_metered: recurring.is_some_and(|recurring| recurring.usage_type == "metered"),
            created: read.created,
            current_period_start: read.current_period_start,
            current_period_end: read.current_period_end,
        }
    }
}

impl Listed for Read {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Listed for SubscriptionItem {
    fn id(&self) -> &str {
        &self.id
    }
}
