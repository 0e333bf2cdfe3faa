//! What the key may do, and what time it is at Stripe: questions that change nothing.

use std::collections::BTreeMap;

use stripe_client_core::{RequestBuilder, StripeMethod};

use crate::{Client, Error};

/// A kind of object that Farebox reads and writes, as the list of a restricted key's permissions names it:
/// <https://docs.stripe.com/keys/restricted-api-keys>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// Meters and their sums.
    Meters,
    /// Events of meters, which can only be written.
    MeterEvents,
    /// Products.
    Products,
    /// Prices.
    Prices,
    /// Customers.
    Customers,
    /// Subscriptions.
    Subscriptions,
    /// Invoices.
    Invoices,
    /// Checkout sessions.
    CheckoutSessions,
    /// Events.
    Events,
}

impl Area {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Meters,
        Self::MeterEvents,
        Self::Products,
        Self::Prices,
        Self::Customers,
        Self::Subscriptions,
        Self::Invoices,
        Self::CheckoutSessions,
        Self::Events,
    ];

    /// What people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Meters => "Meters",
            Self::MeterEvents => "Meter events",
            Self::Products => "Products",
            Self::Prices => "Prices",
            Self::Customers => "Customers",
            Self::Subscriptions => "Subscriptions",
            Self::Invoices => "Invoices",
            Self::CheckoutSessions => "Checkout Sessions",
            Self::Events => "Events",
        }
    }

    /// Whether Farebox writes there; writing includes reading.
    #[must_use]
    pub fn is_written(self) -> bool {
        !matches!(self, Self::Events)
    }

    /// Asks for one object; or, where there is nothing to read, sends what can't be accepted.
    fn question(self) -> RequestBuilder {
        let one = |path: &str| RequestBuilder::new(StripeMethod::Get, path).query(&BTreeMap::from([("limit", 1)]));
        match self {
            Self::Meters => one("/billing/meters"),
            // Without the two fields that an event must have it can't become one; a key that may not send is told so.
            Self::MeterEvents => RequestBuilder::new(StripeMethod::Post, "/billing/meter_events"),
            Self::Products => one("/products"),
            Self::Prices => one("/prices"),
            Self::Customers => one("/customers"),
            Self::Subscriptions => one("/subscriptions"),
            Self::Invoices => one("/invoices"),
            Self::CheckoutSessions => one("/checkout/sessions"),
            Self::Events => one("/events"),
        }
    }
}

/// What Stripe said to a question of [`Client::access`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// The key may ask.
    Allowed,
    /// It may not.
    Denied {
        /// The permission that would allow it, `rak_…`, if Stripe names one.
        permission: Option<String>,
    },
    /// There is no such key, or not any more.
    UnknownKey,
}

impl Client {
    /// Whether the key may use an area, as far as that shows without changing anything: writing is not tried, but for meter
    /// events.
    ///
    /// # Errors
    /// If Stripe can't be reached or fails.
    pub async fn access(&self, area: Area) -> Result<Access, Error> {
        match self.ask(area.question()).await?.accepted(self.secret()) {
            Ok(_) | Err(Error::Rejected { status: 400 | 404, .. }) => Ok(Access::Allowed),
            Err(Error::Rejected { status: 401, .. }) => Ok(Access::UnknownKey),
            Err(Error::Rejected {
                status: 403, message, ..
            }) => Ok(Access::Denied {
                permission: permission(&message),
            }),
            Err(error) => Err(error),
        }
    }

    /// What time it is at Stripe, as the `Date` of an answer says; `None` if it has none.
    ///
    /// # Errors
    /// If Stripe can't be reached.
    pub async fn date(&self) -> Result<Option<String>, Error> {
        Ok(self.ask(Area::Meters.question()).await?.headers.date)
    }
}

/// The permission that a refusal names: "Having the 'rak_…' permission would allow this request to continue."
fn permission(message: &str) -> Option<String> {
    let from = &message[message.find("rak_")?..];
    let end = from.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    Some(from[..end.unwrap_or(from.len())].to_owned())
}

#[cfg(test)]
mod tests {
    use super::permission;

    #[test]
    fn a_refusal_names_the_permission() {
        let message = "The provided key 'rk_test_*1' does not have the required permissions for this endpoint on account \
                       'acct_1'. Having the 'rak_subscription_read' permission would allow this request to continue.";
        assert_eq!(permission(message).as_deref(), Some("rak_subscription_read"));
        assert_eq!(
            permission("The required permissions are not available for use by restricted keys."),
            None
        );
        assert_eq!(permission("rak_a"), Some("rak_a".to_owned()));
    }
}
