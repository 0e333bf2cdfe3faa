//! The Lambda function: wires the notifier and runs it.

use std::{sync::Arc, time::SystemTime};

use farebox_aws::{
    connect::{Clients, Need, Settings},
    telemetry,
};
use farebox_core::time::Timestamp;
use farebox_notifier::{Config, Deps, Notifier};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    telemetry::start(|name| std::env::var(name).ok());
    if let Err(problem) = run().await {
        telemetry::give_up(&problem);
    }
}

async fn run() -> Result<(), Error> {
    let notifier = &start().await?;
    lambda_runtime::run(service_fn(|event: LambdaEvent<Value>| async move {
        telemetry::begin(&event.context.request_id);
        let answer = notifier.handle(event.payload).await;
        telemetry::flush("notifier", now());
        answer.map_err(Error::from)
    }))
    .await
}

async fn start() -> Result<Notifier, Error> {
    let read = |name: &str| std::env::var(name).ok();
    let (config, settings) = (Config::from_env(read)?, Settings::from_env(read)?);
    let needs = [
        Need::Accounts(&config.accounts_table),
        Need::Queue("ALERT_QUEUE_URL", &config.alert_queue_url),
    ];
    Clients::new(&settings).check(&needs).await?;
    Ok(Notifier::new(Deps::connect(config, &settings, Arc::new(now)))?)
}

fn now() -> Timestamp {
    let since_epoch = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_ms(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}
