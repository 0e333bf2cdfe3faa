//! What happened, asked for instead of sent, and where Stripe sends it.

use serde::Deserialize;
use stripe_client_core::{RequestBuilder, StripeMethod};

use crate::client::path_id;
use crate::list::{Listed, page_of};
use crate::{Client, Error, Event};

/// Where Stripe sends snapshot events: <https://docs.stripe.com/api/webhook_endpoints/object>. Its secret is shown only once,
/// at its creation.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct WebhookEndpoint {
    /// `we_…`
    pub id: String,
    /// Where to.
    pub url: String,
    /// Which events; `*` for all of them.
    pub enabled_events: Vec<String>,
    /// The version whose shape the events have; the account's own if there is none.
    pub api_version: Option<String>,
    /// `enabled` or `disabled`.
    pub status: String,
}

impl Client {
    /// A snapshot event, with the object as it was; Stripe keeps it for 30 days:
    /// <https://docs.stripe.com/api/events/retrieve>.
    ///
    /// # Errors
    /// [`Error::Rejected`] with 404 if there is none.
    pub async fn event(&self, id: &str) -> Result<Event, Error> {
        let path = format!("/events/{}", path_id(id)?);
        self.get(RequestBuilder::new(StripeMethod::Get, path)).await?.read()
    }

    /// A thin event, with the data that was not sent along: <https://docs.stripe.com/api/v2/core/events/retrieve>. About a
    /// meter, that is [`Event::meter_errors`].
    ///
    /// # Errors
    /// [`Error::Rejected`] with 404 if there is none.
    pub async fn thin_event(&self, id: &str) -> Result<Event, Error> {
        let path = format!("/v2/core/events/{}", path_id(id)?);
        self.get(RequestBuilder::new(StripeMethod::Get, path)).await?.read()
    }

    /// Every webhook endpoint of the account: <https://docs.stripe.com/api/webhook_endpoints/list>. Destinations of thin events
    /// are not among them.
    ///
    /// # Errors
    /// As every call.
    pub async fn webhook_endpoints(&self) -> Result<Vec<WebhookEndpoint>, Error> {
        self.list(|after| page_of("/webhook_endpoints", &(), after)).await
    }
}

impl Listed for WebhookEndpoint {
    fn id(&self) -> &str {
        &self.id
    }
}
