#![doc = include_str!("../README.md")]

mod act;
mod answer;
mod checkout;
mod config;
mod first_key;
mod meter_errors;
mod welcome;

use std::time::Duration;

use bytes::Bytes;
use farebox_aws::{
    accounts::AccountTable, alerts::AlertQueue, connect::Clients, counters::CounterTable, ledger::LedgerTable,
    telemetry,
};
use farebox_billing::{Books, Clock};
use farebox_core::{key::Mode, time::Timestamp};
use farebox_stripe::{Event, SIGNATURE_TOLERANCE_S, SigningSecret, verify};
use http::{HeaderMap, Method, Request, Response};

pub use act::{snapshot_events, thin_events};
pub use config::Config;
pub use first_key::{BadSecret, FirstKeySecret};
pub use welcome::session_id;

use crate::answer::{Refusal, Verdict, answer, refuse};

/// The largest body that is looked at. Stripe's largest events stay far below it.
const BODY_BYTES_MAX: usize = 256 * 1024;
/// How long the work on one event, or on the page that shows a key, may take: a gateway in front of us gives up after 29 s, and Stripe not much later.
pub const PATIENCE: Duration = Duration::from_secs(24);
/// Where events are taken, whatever stage or prefix comes before it.
const EVENTS: &str = "/stripe/webhook";
/// Where a first key is shown.
const WELCOME: &str = "/welcome";

/// Everything that the webhook works with.
pub struct Deps {
    /// The tables, the queue, Stripe and the time.
    pub books: Books,
    /// The secrets of the endpoints: a signature with any of them is good.
    pub secrets: Vec<SigningSecret>,
    /// What first keys are made from.
    pub first_key: FirstKeySecret,
    /// The brand in front of keys.
    pub brand: String,
    /// Whether events and keys are of the live mode.
    pub mode: Mode,
    /// Where customers look after their keys.
    pub portal_url: Option<String>,
    /// After so long an event or the page is given up: [`PATIENCE`] in Lambda.
    pub patience: Duration,
}

impl Deps {
    /// Wires the tables, the queue and Stripe that the configuration names. Nothing is opened yet.
    ///
    /// # Errors
    /// [`farebox_stripe::Error::Invalid`] if Stripe can't be at the configured address.
    pub fn connect(config: Config, clients: &Clients, clock: Clock) -> Result<Self, farebox_stripe::Error> {
        let is_live = config.stripe.secret_key.is_live();
        Ok(Self {
            books: Books {
                accounts: AccountTable::new(clients.clone(), config.accounts_table),
                counters: CounterTable::new(clients.clone(), config.counters_table),
                ledger: LedgerTable::new(clients.clone(), config.ledger_table),
                alerts: AlertQueue::new(clients.clone(), config.alert_queue),
                stripe: farebox_stripe::Client::new(config.stripe)?,
                clock,
            },
            secrets: config.webhook_secrets,
            first_key: config.first_key_secret,
            brand: config.brand,
            mode: if is_live { Mode::Live } else { Mode::Test },
            portal_url: config.portal_url,
            patience: PATIENCE,
        })
    }
}

/// The webhook. It keeps nothing between requests.
pub struct Webhook {
    deps: Deps,
}

impl Webhook {
    /// A webhook that works with these.
    #[must_use]
    pub fn new(deps: Deps) -> Self {
        Self { deps }
    }

    /// Answers a request. `now` is what signatures are judged by. The table of answers is at the top of this page.
    pub async fn handle(&self, request: Request<Bytes>, now: Timestamp) -> Response<String> {
        let path = request.uri().path();
        if path.ends_with(EVENTS) {
            match *request.method() {
                Method::POST => self.receive(&request, now).await,
                _ => refuse(Refusal::Method("POST")),
            }
        } else if path.ends_with(WELCOME) {
            match *request.method() {
                // Not HEAD: a key is shown once, and somebody must see it.
                Method::GET => self.welcome(&request).await,
                _ => refuse(Refusal::Method("GET")),
            }
        } else {
            refuse(Refusal::NoSuchPath)
        }
    }

    /// An event: believed, read, worked on, answered.
    async fn receive(&self, request: &Request<Bytes>, now: Timestamp) -> Response<String> {
        match self.believe(request.headers(), request.body(), now) {
            Ok(event) => answer(self.work_on(&event, now).await),
            Err(refusal) => {
                telemetry::count("events_refused", 1);
                refuse(refusal)
            }
        }
    }

    /// Whether Stripe sent this, now and for us. What is not is told apart in the log, not in the answer.
    fn believe(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<Event, Refusal> {
        if body.len() > BODY_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        let mut signatures = headers.get_all("stripe-signature").iter();
        let header = match (signatures.next(), signatures.next()) {
            (Some(only), None) => only.to_str().unwrap_or_default(),
            _ => "",
        };
        verify(body, header, &self.deps.secrets, now.s(), SIGNATURE_TOLERANCE_S).map_err(|error| {
            tracing::warn!(%error, "an event was not believed");
            Refusal::Signature
        })?;
        let event = Event::parse(body).map_err(|error| {
            tracing::error!(%error, "a signed body is no event");
            Refusal::NotAnEvent
        })?;
        let is_live = self.deps.mode == Mode::Live;
        if event.livemode.is_some_and(|livemode| livemode != is_live) {
            tracing::error!(event = event.id, is_live, "an event of the other mode");
            return Err(Refusal::Mode);
        }
        Ok(event)
    }

    /// Whatever goes wrong is logged here and nowhere else.
    async fn work_on(&self, event: &Event, now: Timestamp) -> Verdict {
        let (id, kind) = (event.id.as_str(), event.kind.as_str());
        let verdict = match tokio::time::timeout(self.deps.patience, self.act(event, now)).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(error)) => {
                tracing::error!(event = id, kind, %error, "the event can't be followed");
                self.complain(event, &error.to_string(), act::is_passing(&error)).await;
                Verdict::Later
            }
            Err(_) => {
                tracing::error!(event = id, kind, "the event took too long");
                self.complain(event, "it took too long", true).await;
                Verdict::Later
            }
        };
        let verdict = match verdict {
            // An endpoint that fails delays the invoice up to 72 hours (<https://docs.stripe.com/billing/subscriptions/webhooks>),
            // and the schedule reports the same rows a little later.
            Verdict::Later if kind == act::INVOICE_CREATED => Verdict::Left,
            verdict => verdict,
        };
        tracing::info!(event = id, kind, verdict = verdict.word(), "event");
        telemetry::count(verdict.metric(), 1);
        verdict
    }
}
