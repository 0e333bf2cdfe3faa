//! What is read through the second API: thin events, and where they are sent.
//!
//! Source: <https://docs.stripe.com/api/v2/core/events/list>, <https://docs.stripe.com/api/v2/core/event-destinations/list>,
//! pages: <https://docs.stripe.com/api-v2-overview#list-pagination>.

use serde_json::{Value, json};

use crate::{
    state::State,
    wire::{error::ApiError, form::Params},
};

/// Where the list of thin events is.
const EVENTS: &str = "/v2/core/events";

impl State {
    /// Thin events, newest first, as they are sent: without their data.
    pub(crate) fn list_thin_events(&self, mut params: Params) -> Result<Value, ApiError> {
        let object = params.text("object_id")?;
        let types = params.texts("types")?;
        let limit = params.natural("limit")?.unwrap_or(20).clamp(1, 100);
        let page = params.natural("page")?.unwrap_or(0);
        params.finish()?;
        let (limit, from) = (limit as usize, page as usize);
        let mut rows = self
            .events
            .newest_first()
            .filter(|event| {
                event["object"] == "v2.core.event"
                    && object.as_ref().is_none_or(|id| event["related_object"]["id"] == **id)
                    && types
                        .as_ref()
                        .is_none_or(|types| types.iter().any(|kind| event["type"] == **kind))
            })
            .skip(from);
        let data: Vec<Value> = rows.by_ref().take(limit).map(without_data).collect();
        let page_url = |from: usize| {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("limit", &limit.to_string());
            query.append_pair("page", &from.to_string());
            if let Some(id) = &object {
                query.append_pair("object_id", id);
            }
            for (index, kind) in types.iter().flatten().enumerate() {
                query.append_pair(&format!("types[{index}]"), kind);
            }
            format!("{EVENTS}?{}", query.finish())
        };
        Ok(json!({
            "data": data,
            "next_page_url": rows.next().map(|_| page_url(from + limit)),
            "previous_page_url": (from > 0).then(|| page_url(from.saturating_sub(limit))),
        }))
    }

    /// There are none: who embeds the stand-in delivers thin events, too.
    pub(crate) fn list_event_destinations(&self, mut params: Params) -> Result<Value, ApiError> {
        params.ignore(&["include", "limit"]);
        params.finish()?;
        Ok(json!({ "data": [], "next_page_url": null, "previous_page_url": null }))
    }
}

fn without_data(event: &Value) -> Value {
    let mut sent = event.clone();
    if let Some(fields) = sent.as_object_mut() {
        fields.remove("data");
    }
    sent
}
