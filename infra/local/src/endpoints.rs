//! Where the embedded services listen, for other processes: `GET /_farebox/endpoints` for the `farebox` command, and the
//! environment of the functions for `cargo lambda watch`.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde_json::{Value, json};

use crate::{
    System,
    sell::BRAND,
    services::STRIPE_KEY,
    system::{MAIL_FROM, OPERATOR_TOPIC},
    webhooks::{FIRST_KEY_SECRET, SIGNING_SECRET},
};

/// Everything that a second process needs to work on the same tables, queues and Stripe, at the same time of day. The keys
/// open nothing but the embedded services.
pub(crate) async fn endpoints(State(system): State<Arc<System>>) -> Json<Value> {
    let [dynamodb, sqs, stripe] = system.services.addresses.map(|address| format!("http://{address}"));
    let (tables, queues) = (system.tables(), system.queues());
    let outbox = system.services.outbox_address;
    Json(json!({
        "now_ms": system.clock().now().ms(),
        "region": system.services.settings.region,
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

impl System {
    /// The variables that the deployment template gives the functions, and those that Lambda does, with the embedded services
    /// in place of AWS and Stripe. Together they serve each of the functions. Secrets stand here themselves, not their ARNs.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let services = &self.services;
        let [dynamodb, sqs, stripe] = services.addresses.map(|address| format!("http://{address}"));
        let outbox = format!("http://{}", services.outbox_address);
        let credentials = &services.settings.credentials;
        let (tables, queues) = (self.tables(), self.queues());
        let variables: [(&str, &str); 20] = [
            ("AWS_REGION", &services.settings.region),
            ("AWS_ACCESS_KEY_ID", credentials.access_key_id()),
            ("AWS_SECRET_ACCESS_KEY", credentials.secret_access_key()),
            ("AWS_ENDPOINT_URL_DYNAMODB", &dynamodb),
            ("AWS_ENDPOINT_URL_SQS", &sqs),
            ("AWS_ENDPOINT_URL_SESV2", &outbox),
            ("AWS_ENDPOINT_URL_SNS", &outbox),
            ("ACCOUNTS_TABLE", &tables.accounts),
            ("COUNTERS_TABLE", &tables.counters),
            ("LEDGER_TABLE", &tables.ledger),
            ("USAGE_QUEUE_URL", &queues.usage),
            ("ALERT_QUEUE_URL", &queues.alerts),
            ("ALERT_TOPIC_ARN", OPERATOR_TOPIC),
            ("FIRST_KEY_SECRET", FIRST_KEY_SECRET),
            ("FORBIDDEN_STATUS_403", "false"),
            ("KEY_BRAND", BRAND),
            ("MAIL_FROM", MAIL_FROM),
            ("STRIPE_BASE_URL", &stripe),
            ("STRIPE_SECRET_KEY", STRIPE_KEY),
            ("STRIPE_WEBHOOK_SECRETS", SIGNING_SECRET),
        ];
        variables.map(|(name, value)| (name, value.to_owned())).into()
    }
}
