//! The event log: one object per change, in order, as webhooks and `GET /v1/events` show it.
//!
//! Source: <https://docs.stripe.com/api/events>; thin events: <https://docs.stripe.com/api/v2/core/events>.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::{
    calendar,
    ids::{Ids, Kind},
};

/// The API version of the objects that the stand-in renders.
pub const API_VERSION: &str = "2026-09-30.endive";

/// What caused a change: a request, or (`None`) the passing of time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cause {
    pub(crate) request_id: Option<String>,
    pub(crate) idempotency_key: Option<String>,
}

/// All events, oldest first.
#[derive(Debug, Default)]
pub(crate) struct EventLog {
    events: Vec<Value>,
    by_id: HashMap<String, usize>,
}

impl EventLog {
    /// A snapshot event: `object` as it is after the change, and `before` as it was, for an update.
    pub(crate) fn snapshot(
        &mut self,
        ids: &mut Ids,
        at: i64,
        cause: &Cause,
        kind: &str,
        object: Value,
        before: Option<&Value>,
    ) {
        let mut data = Map::new();
        if let Some(previous) = before.map(|before| previous_attributes(before, &object)) {
            data.insert("previous_attributes".into(), previous);
        }
        data.insert("object".into(), object);
        let id = ids.mint(Kind::Event);
        self.push(
            id.clone(),
            json!({
                "id": id,
                "object": "event",
                "api_version": API_VERSION,
                "created": at,
                "data": data,
                "livemode": false,
                "pending_webhooks": 0,
                "request": { "id": cause.request_id, "idempotency_key": cause.idempotency_key },
                "type": kind,
            }),
        );
    }

    /// The thin event about a meter event that was accepted and then found invalid.
    /// <https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage#handle-meter-event-errors>
    pub(crate) fn meter_error(
        &mut self,
        ids: &mut Ids,
        at: i64,
        meter: &str,
        code: &str,
        message: &str,
        identifier: &str,
    ) {
        let id = ids.mint(Kind::ThinEvent);
        let window = at - at.rem_euclid(10);
        self.push(
            id.clone(),
            json!({
                "id": id,
                "object": "v2.core.event",
                "context": null,
                "created": calendar::rfc3339(at),
                "data": {
                    "developer_message_summary": "There is 1 invalid event",
                    "reason": {
                        "error_count": 1,
                        "error_types": [{
                            "code": code,
                            "error_count": 1,
                            "sample_errors": [{ "error_message": message, "request": { "identifier": identifier } }],
                        }],
                    },
                    "validation_end": calendar::rfc3339(window + 10),
                    "validation_start": calendar::rfc3339(window),
                },
                "livemode": false,
                "reason": null,
                "related_object": { "id": meter, "type": "billing.meter", "url": format!("/v1/billing/meters/{meter}") },
                "type": "v1.billing.meter.error_report_triggered",
            }),
        );
    }

    fn push(&mut self, id: String, event: Value) {
        self.by_id.insert(id, self.events.len());
        self.events.push(event);
    }

    pub(crate) fn find(&self, id: &str) -> Option<&Value> {
        self.by_id.get(id).map(|at| &self.events[*at])
    }

    /// Newest first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &Value> {
        self.events.iter().rev()
    }

    /// Oldest first, without the first `cursor` ones.
    pub(crate) fn after(&self, cursor: usize) -> &[Value] {
        self.events.get(cursor..).unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }
}

/// The attributes that differ, with their former values.
fn previous_attributes(before: &Value, after: &Value) -> Value {
    let (Some(before), Some(after)) = (before.as_object(), after.as_object()) else {
        return json!({});
    };
    let changed = before.iter().filter(|(name, value)| after.get(*name) != Some(value));
    Value::Object(changed.map(|(name, value)| (name.clone(), value.clone())).collect())
}
