//! `GET /_farebox/endpoints`: where the embedded services listen, for the `farebox` command in another process.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde_json::{Value, json};

use crate::{System, services::STRIPE_KEY};

/// Everything that a second process needs to work on the same tables, queues and Stripe, at the same time of day. The keys
/// open nothing but the embedded services.
pub(crate) async fn endpoints(State(system): State<Arc<System>>) -> Json<Value> {
    let [dynamodb, sqs, stripe] = system.services.addresses.map(|address| format!("http://{address}"));
    let (tables, queues) = (system.tables(), system.queues());
    let outbox = system.services.outbox_address;
    Json(json!({
        "now_ms": system.clock().now().ms(),
        "region": "us-east-1",
        "dynamodb": dynamodb,
        "sqs": sqs,
        "stripe": stripe,
        "stripe_secret_key": STRIPE_KEY,
        "outbox": format!("http://{outbox}"),
        "hooks": format!("http://{outbox}/hooks/<name>"),
        "tables": { "accounts": tables.accounts, "counters": tables.counters, "ledger": tables.ledger },
        "queues": {
            "usage": queues.usage, "usage_dead": queues.usage_dead,
            "alerts": queues.alerts, "alerts_dead": queues.alerts_dead,
        },
    }))
}
