//! The Lambda function: wires the webhook and runs it.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use farebox_aws::{
    connect::{Clients, Need, Settings},
    secrets::{Environment, Wanted},
    telemetry,
};
use farebox_core::time::Timestamp;
use farebox_webhook::{Config, Deps, Webhook};
use lambda_http::{Body, Error, Request, RequestExt as _, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    telemetry::start(|name| std::env::var(name).ok());
    if let Err(problem) = run().await {
        telemetry::give_up(&problem);
    }
}

async fn run() -> Result<(), Error> {
    let webhook = &start().await?;
    lambda_http::run(service_fn(|request: Request| async move {
        telemetry::begin(&request.lambda_context().request_id);
        let request = request.map(|body| Bytes::copy_from_slice(&body));
        let answer = webhook.handle(request, now()).await;
        telemetry::flush("webhook", now());
        Ok::<_, Error>(answer.map(Body::Text))
    }))
    .await
}

async fn start() -> Result<Webhook, Error> {
    let settings = Settings::from_env(|name| std::env::var(name).ok())?;
    let wanted = [
        Wanted::One("STRIPE_SECRET_KEY"),
        Wanted::WithPrevious("STRIPE_WEBHOOK_SECRETS"),
        Wanted::One("FIRST_KEY_SECRET"),
    ];
    let environment = Environment::fetch(&settings, &wanted).await?;
    let clients = Clients::new(&settings);
    let config = Config::from_env(|name| environment.read(name))?;
    let needs = [
        Need::Accounts(&config.accounts_table),
        Need::Counters(&config.counters_table),
        Need::Ledger(&config.ledger_table),
        Need::Queue("ALERT_QUEUE_URL", &config.alert_queue),
    ];
    clients.check(&needs).await?;
    Ok(Webhook::new(Deps::connect(config, &clients, Arc::new(now))?))
}

fn now() -> Timestamp {
    let since_epoch = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_ms(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}
