//! Stripe's deliveries: the stand-in's events, signed, in order, and again until they are taken.

use std::path::PathBuf;

use axum::body::Bytes;
use farebox_billing::Books;
use farebox_core::{key::Mode, time::Timestamp};
use farebox_stripe::{SigningSecret, sign};
use farebox_stripe_standin::StandIn;
use farebox_webhook::{Deps, FirstKeySecret, Webhook};
use http::{Request, Response};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::{Error, sell::BRAND, system::write_whole};

/// Where the gateway mounts the webhook.
pub(crate) const EVENTS_PATH: &str = "/_farebox/stripe/webhook";
/// Where the gateway shows first keys.
pub(crate) const WELCOME_PATH: &str = "/_farebox/welcome";
/// They open nothing but the embedded services.
pub(crate) const SIGNING_SECRET: &str = "whsec_local";
pub(crate) const FIRST_KEY_SECRET: &str = "first-keys-of-the-local-system-only";
/// How often an event is sent at once, and how often in all.
const TRIES_AT_ONCE: u32 = 3;
const TRIES_MAX: u32 = 30;
/// Events can cause others. More than these many in a row cause themselves.
const ROUNDS_MAX: usize = 100;

/// The webhook, and what Stripe would still have to deliver to it.
pub struct Webhooks {
    webhook: Webhook,
    secret: SigningSecret,
    file: Option<PathBuf>,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    /// The events before it were sent.
    cursor: usize,
    /// Those that were not taken: where each stands, how often it was sent, and the event.
    failed: Vec<(usize, u32, Value)>,
}

impl Webhooks {
    /// A webhook over these books. `file` keeps over restarts what was delivered.
    ///
    /// # Errors
    /// [`Error`] if the file is not one of ours.
    pub(crate) fn new(books: Books, file: Option<PathBuf>) -> Result<Self, Error> {
        let secret = SigningSecret::new(SIGNING_SECRET)?;
        let cursor = match file.as_deref().map(std::fs::read_to_string) {
            Some(Ok(text)) => text.trim().parse().map_err(Error::refused)?,
            // Whatever is delivered again is known.
            _ => 0,
        };
        Ok(Self {
            webhook: Webhook::new(Deps {
                books,
                secrets: vec![secret.clone()],
                first_key: FirstKeySecret::new(FIRST_KEY_SECRET).map_err(Error::refused)?,
                brand: BRAND.to_owned(),
                mode: Mode::Test,
                portal_url: None,
                patience: farebox_webhook::PATIENCE,
            }),
            secret,
            file,
            pending: Mutex::new(Pending {
                cursor,
                failed: Vec::new(),
            }),
        })
    }

    /// What the gateway hands a request to.
    pub async fn handle(&self, request: Request<Bytes>, now: Timestamp) -> Response<String> {
        self.webhook.handle(request, now).await
    }

    /// Sends an event as Stripe would, and returns the answer.
    ///
    /// # Errors
    /// [`Error::Refused`] if no request can be made of it.
    pub async fn send(&self, event: &Value, now: Timestamp) -> Result<Response<String>, Error> {
        let body = delivered(event);
        let request = Request::post(EVENTS_PATH)
            .header("stripe-signature", sign(body.as_bytes(), &self.secret, now.s()))
            .body(Bytes::from(body))
            .map_err(Error::refused)?;
        Ok(self.handle(request, now).await)
    }

    /// Delivers whatever the stand-in has to tell, also what that causes, and returns how many events were taken. One that is not
    /// taken does not keep the others back; it comes again with the next call.
    ///
    /// # Errors
    /// [`Error::Io`] if the place can't be kept.
    pub async fn deliver(&self, stand_in: &StandIn, now: Timestamp) -> Result<u64, Error> {
        let mut pending = self.pending.lock().await;
        let mut taken = 0;
        for (at, tries, event) in std::mem::take(&mut pending.failed) {
            taken += self.try_to_send(&mut pending, at, tries, event, now).await?;
        }
        for _ in 0..ROUNDS_MAX {
            let page = stand_in.events_after(pending.cursor);
            if page.events.is_empty() {
                break;
            }
            for (at, event) in (pending.cursor..).zip(page.events) {
                taken += self.try_to_send(&mut pending, at, 0, event, now).await?;
            }
            pending.cursor = page.cursor;
        }
        if let Some(file) = &self.file {
            let oldest = pending.failed.iter().map(|(at, ..)| *at).min();
            write_whole(file, &oldest.unwrap_or(pending.cursor).to_string())?;
        }
        Ok(taken)
    }

    async fn try_to_send(
        &self,
        pending: &mut Pending,
        at: usize,
        tries: u32,
        event: Value,
        now: Timestamp,
    ) -> Result<u64, Error> {
        for _ in 0..TRIES_AT_ONCE {
            if self.send(&event, now).await?.status().is_success() {
                return Ok(1);
            }
        }
        if tries + TRIES_AT_ONCE < TRIES_MAX {
            pending.failed.push((at, tries + TRIES_AT_ONCE, event));
        } else {
            tracing::error!(event = %event["id"], kind = %event["type"], "an event was never taken");
        }
        Ok(0)
    }
}

/// The body of the delivery: a thin event comes without its data.
fn delivered(event: &Value) -> String {
    let mut event = event.clone();
    if event["object"] == "v2.core.event"
        && let Some(fields) = event.as_object_mut()
    {
        fields.remove("data");
    }
    event.to_string()
}
