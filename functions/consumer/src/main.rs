//! The Lambda function: wires the consumer and runs it.

use std::{sync::Arc, time::SystemTime};

use farebox_aws::{
    connect::{Clients, Need, Settings},
    secrets::{Environment, Wanted},
    telemetry,
};
use farebox_consumer::{Config, Consumer, Deps};
use farebox_core::time::Timestamp;
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
    let consumer = &start().await?;
    lambda_runtime::run(service_fn(|event: LambdaEvent<Value>| async move {
        telemetry::begin(&event.context.request_id);
        let answer = consumer.handle(event.payload).await;
        telemetry::flush("consumer", now());
        answer.map_err(Error::from)
    }))
    .await
}

async fn start() -> Result<Consumer, Error> {
    let settings = Settings::from_env(|name| std::env::var(name).ok())?;
    let environment = Environment::fetch(&settings, &[Wanted::One("STRIPE_SECRET_KEY")]).await?;
    let clients = Clients::new(&settings);
    let config = Config::from_env(|name| environment.read(name))?;
    let needs = [
        Need::Accounts(&config.accounts_table),
        Need::Counters(&config.counters_table),
        Need::Ledger(&config.ledger_table),
        Need::Queue("ALERT_QUEUE_URL", &config.alert_queue),
    ];
    clients.check(&needs).await?;
    Ok(Consumer::new(Deps::connect(config, &clients, Arc::new(now))?))
}

fn now() -> Timestamp {
    let since_epoch = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_ms(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}
