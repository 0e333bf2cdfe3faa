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

/// Where Stripe sends events of either form: <https://docs.stripe.com/api/v2/core/event-destinations/object>.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "ReadDestination")]
pub struct EventDestination {
    /// `ed_…`
    pub id: String,
    /// Where to, if that is an address.
    pub url: Option<String>,
    /// Which events; `*` for all of them.
    pub enabled_events: Vec<String>,
    /// `snapshot` or `thin`.
    pub event_payload: String,
    /// The version whose shape snapshots have.
    pub snapshot_api_version: Option<String>,
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

    /// Every event destination of the account: <https://docs.stripe.com/api/v2/core/event-destinations/list>.
    ///
    /// # Errors
    /// As every call.
    pub async fn event_destinations(&self) -> Result<Vec<EventDestination>, Error> {
        #[derive(Deserialize)]
        struct Page {
            data: Vec<EventDestination>,
            next_page_url: Option<String>,
        }
        let mut path = "/v2/core/event_destinations?limit=100&include[0]=webhook_endpoint.url".to_owned();
        let mut destinations = Vec::new();
        loop {
            let accepted = self.get(RequestBuilder::new(StripeMethod::Get, &path)).await?;
            let page: Page = accepted.read()?;
            destinations.extend(page.data);
            match page.next_page_url {
                None => return Ok(destinations),
                // The next page is named by its path, or by its whole address.
                Some(next) => match next.find("/v2/").map(|at| next[at..].to_owned()) {
                    Some(next) if next != path => path = next,
                    _ => return Err(accepted.doubt("a list does not move on")),
                },
            }
        }
    }
}

#[derive(Deserialize)]
struct ReadDestination {
    id: String,
    enabled_events: Vec<String>,
    event_payload: String,
    snapshot_api_version: Option<String>,
    status: String,
    webhook_endpoint: Option<ReadEndpoint>,
}

#[derive(Deserialize)]
struct ReadEndpoint {
    url: Option<String>,
}

impl From<ReadDestination> for EventDestination {
    fn from(read: ReadDestination) -> Self {
        Self {
            id: read.id,
            url: read.webhook_endpoint.and_then(|endpoint| endpoint.url),
            enabled_events: read.enabled_events,
            event_payload: read.event_payload,
            snapshot_api_version: read.snapshot_api_version,
            status: read.status,
        }
    }
}

impl Listed for WebhookEndpoint {
    fn id(&self) -> &str {
        &self.id
    }
}
