//! Webhook endpoints: stored, and asked for by who delivers.
//!
//! Source: <https://docs.stripe.com/api/webhook_endpoints>.

use serde_json::{Value, json};

use crate::{
    catalog::{Metadata, merge},
    ids::Kind,
    state::State,
    table::Object,
    wire::{error::ApiError, form::Params, list::Page},
};

/// Where events are sent.
#[derive(Debug, Clone)]
pub(crate) struct WebhookEndpoint {
    id: String,
    url: String,
    enabled_events: Vec<String>,
    api_version: Option<String>,
    description: Option<String>,
    disabled: bool,
    secret: String,
    metadata: Metadata,
    created: i64,
    deleted: bool,
}

impl Object for WebhookEndpoint {
    const NOUN: &'static str = "webhook endpoint";

    fn id(&self) -> &str {
        &self.id
    }
}

impl WebhookEndpoint {
    fn render(&self) -> Value {
        json!({
            "id": self.id,
            "object": "webhook_endpoint",
            "api_version": self.api_version,
            "application": null,
            "created": self.created,
            "description": self.description,
            "enabled_events": self.enabled_events,
            "livemode": false,
            "metadata": self.metadata,
            "status": if self.disabled { "disabled" } else { "enabled" },
            "url": self.url,
        })
    }

    /// The secret is "only returned at creation".
    fn render_with_secret(&self) -> Value {
        let mut rendered = self.render();
        rendered["secret"] = self.secret.as_str().into();
        rendered
    }
}

impl State {
    pub(crate) fn create_webhook_endpoint(&mut self, mut params: Params, at: i64) -> Result<Value, ApiError> {
        let url = params.required("url")?;
        let enabled_events = params
            .texts("enabled_events")?
            .ok_or_else(|| ApiError::missing("enabled_events"))?;
        let api_version = params.text("api_version")?;
        let description = params.text("description")?;
        let pairs = params.pairs("metadata")?;
        params.ignore(&["connect"]);
        params.finish()?;
        let mut metadata = Metadata::new();
        merge(&mut metadata, pairs);
        let id = self.ids.mint(Kind::WebhookEndpoint);
        let endpoint = WebhookEndpoint {
            secret: Kind::WebhookSecret.shape(id.as_bytes()),
            id,
            url,
            enabled_events,
            api_version,
            description,
            disabled: false,
            metadata,
            created: at,
            deleted: false,
        };
        let rendered = endpoint.render_with_secret();
        self.webhook_endpoints.put(endpoint);
        Ok(rendered)
    }

    fn webhook_endpoint(&self, id: &str) -> Result<&WebhookEndpoint, ApiError> {
        let endpoint = self.webhook_endpoints.get(id, "id")?;
        if endpoint.deleted {
            return Err(ApiError::no_such(WebhookEndpoint::NOUN, id, "id"));
        }
        Ok(endpoint)
    }

    pub(crate) fn update_webhook_endpoint(&mut self, id: &str, mut params: Params) -> Result<Value, ApiError> {
        let mut endpoint = self.webhook_endpoint(id)?.clone();
        if let Some(url) = params.text("url")? {
            endpoint.url = url;
        }
        if let Some(enabled_events) = params.texts("enabled_events")? {
            endpoint.enabled_events = enabled_events;
        }
        if let Some(description) = params.settable("description")? {
            endpoint.description = description;
        }
        if let Some(disabled) = params.boolean("disabled")? {
            endpoint.disabled = disabled;
        }
        merge(&mut endpoint.metadata, params.pairs("metadata")?);
        params.finish()?;
        let rendered = endpoint.render();
        self.webhook_endpoints.put(endpoint);
        Ok(rendered)
    }

    pub(crate) fn delete_webhook_endpoint(&mut self, id: &str, params: Params) -> Result<Value, ApiError> {
        params.finish()?;
        let mut endpoint = self.webhook_endpoint(id)?.clone();
        endpoint.deleted = true;
        self.webhook_endpoints.put(endpoint);
        Ok(json!({ "id": id, "object": "webhook_endpoint", "deleted": true }))
    }

    pub(crate) fn retrieve_webhook_endpoint(&self, id: &str, params: Params) -> Result<Value, ApiError> {
        params.finish()?;
        self.webhook_endpoint(id).map(WebhookEndpoint::render)
    }

    pub(crate) fn list_webhook_endpoints(&self, mut params: Params) -> Result<Value, ApiError> {
        let page = Page::take(&mut params)?;
        params.finish()?;
        page.cut(
            self.webhook_endpoints
                .newest_first(None)
                .filter(|endpoint| !endpoint.deleted),
            |endpoint| endpoint.id(),
            |endpoint| endpoint.render(),
            WebhookEndpoint::NOUN,
            "/v1/webhook_endpoints",
        )
    }

    /// Those that are enabled, oldest first, with their secrets.
    pub(crate) fn destinations(&self) -> Vec<Value> {
        let enabled = self
            .webhook_endpoints
            .iter()
            .filter(|endpoint| !endpoint.deleted && !endpoint.disabled);
        enabled.map(WebhookEndpoint::render_with_secret).collect()
    }
}
