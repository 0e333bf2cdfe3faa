//! Checkout: Stripe's own page on which a customer subscribes and pays.

use std::collections::HashMap;

use serde::Deserialize;
use stripe_checkout::checkout_session::{
    CreateCheckoutSession, CreateCheckoutSessionLineItems, CreateCheckoutSessionSubscriptionData,
    RetrieveCheckoutSession,
};
use stripe_client_core::StripeRequest;
use stripe_shared::CheckoutSessionMode;

use crate::client::path_id;
use crate::{Client, Error, reference};

/// A visit to be: <https://docs.stripe.com/api/checkout/sessions/create>, in mode `subscription`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCheckout {
    /// Who subscribes.
    pub buyer: Buyer,
    /// Ours to fill: what tells the visit apart when it comes back.
    pub client_reference_id: Option<String>,
    /// What is sold.
    pub prices: Vec<CheckoutPrice>,
    /// Days before the first period is paid.
    pub trial_days: Option<u32>,
    /// Ours to fill; the session gets it and the subscription too.
    pub metadata: HashMap<String, String>,
    /// Where the customer goes afterwards. Stripe puts the session's id in the place of `{CHECKOUT_SESSION_ID}`.
    pub success_url: String,
    /// Where the customer goes instead.
    pub cancel_url: Option<String>,
}

/// Who subscribes on a Checkout page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Buyer {
    /// One whom Stripe knows: `cus_…`.
    Customer(String),
    /// Somebody new, with this address.
    Email(String),
    /// Somebody new, who will be asked.
    Anyone,
}

/// A price on a Checkout page: a quantity is required of a flat one, and refused of a metered one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckoutPrice {
    /// `price_…`, once.
    Flat(String),
    /// `price_…`, by usage.
    Metered(String),
}

/// A visit: <https://docs.stripe.com/api/checkout/sessions/object>.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct CheckoutSession {
    /// `cs_…`
    pub id: String,
    /// When it was opened, unix seconds.
    pub created: i64,
    /// Where the page is, while it is open.
    pub url: Option<String>,
    /// `open`, `complete`, `expired`. Complete doesn't mean paid.
    pub status: Option<String>,
    /// `paid`, `unpaid`, `no_payment_required`.
    pub payment_status: String,
    /// `cus_…`; of somebody new only once it is complete.
    #[serde(default, deserialize_with = "reference::optional")]
    pub customer: Option<String>,
    /// `sub_…`, once it is complete.
    #[serde(default, deserialize_with = "reference::optional")]
    pub subscription: Option<String>,
    /// Ours to fill on a session that we open. On one that somebody opened by a Payment Link it is what they wrote behind the
    /// link's address: <https://docs.stripe.com/payment-links/url-parameters>.
    pub client_reference_id: Option<String>,
    /// `plink_…`, if it was opened by a Payment Link.
    #[serde(default, deserialize_with = "reference::optional")]
    pub payment_link: Option<String>,
    /// Ours to fill; of a Payment Link's session, what the link has.
    #[serde(default, deserialize_with = "or_empty")]
    pub metadata: HashMap<String, String>,
}

impl Client {
    /// Opens a Checkout page, for 24 hours.
    ///
    /// # Errors
    /// [`Error::Rejected`] if a price or the customer is not there, or if a price is not of the kind that was said.
    pub async fn create_checkout_session(
        &self,
        new: &NewCheckout,
        idempotency_key: &str,
    ) -> Result<CheckoutSession, Error> {
        self.create(&new.request(), idempotency_key).await?.read()
    }

    /// A visit as it is now: <https://docs.stripe.com/api/checkout/sessions/retrieve>.
    ///
    /// # Errors
    /// [`Error::Rejected`] with 404 if there is none.
    pub async fn checkout_session(&self, id: &str) -> Result<CheckoutSession, Error> {
        self.get(RetrieveCheckoutSession::new(path_id(id)?).build())
            .await?
            .read()
    }
}

impl NewCheckout {
    fn request(&self) -> CreateCheckoutSession {
        let mut request = CreateCheckoutSession::new()
            .mode(CheckoutSessionMode::Subscription)
            .line_items(self.prices.iter().map(CheckoutPrice::parameter).collect::<Vec<_>>())
            .success_url(&self.success_url);
        request = match &self.buyer {
            Buyer::Customer(id) => request.customer(id),
            Buyer::Email(email) => request.customer_email(email),
            Buyer::Anyone => request,
        };
        if let Some(id) = &self.client_reference_id {
            request = request.client_reference_id(id);
        }
        if let Some(url) = &self.cancel_url {
            request = request.cancel_url(url);
        }
        let metadata = Some(self.metadata.clone()).filter(|metadata| !metadata.is_empty());
        if let Some(metadata) = metadata.clone() {
            request = request.metadata(metadata);
        }
        if metadata.is_some() || self.trial_days.is_some() {
            request = request.subscription_data(CreateCheckoutSessionSubscriptionData {
                metadata,
                trial_period_days: self.trial_days,
                ..CreateCheckoutSessionSubscriptionData::new()
            });
        }
        request
    }
}

impl CheckoutPrice {
    fn parameter(&self) -> CreateCheckoutSessionLineItems {
        let (price, quantity) = match self {
            Self::Flat(price) => (price, Some(1)),
            Self::Metered(price) => (price, None),
        };
        CreateCheckoutSessionLineItems {
            price: Some(price.clone()),
            quantity,
            ..CreateCheckoutSessionLineItems::new()
        }
    }
}

/// A session without metadata may say null.
fn or_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<HashMap<String, String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
