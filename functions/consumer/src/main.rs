//! The Lambda function: wires the consumer and runs it.

use std::{sync::Arc, time::SystemTime};

use farebox_aws::{
    connect::{Clients, Settings},
    secrets::{Environment, Wanted},
};
use farebox_consumer::{Config, Consumer, Deps};
use farebox_core::time::Timestamp;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing::Level::INFO)
        .init();
    let settings = Settings::from_env(|name| std::env::var(name).ok())?;
    let environment = Environment::fetch(&settings, &[Wanted::One("STRIPE_SECRET_KEY")]).await?;
    let clients = Clients::new(&settings);
    let config = Config::from_env(|name| environment.read(name))?;
    let consumer = &Consumer::new(Deps::connect(config, &clients, Arc::new(now))?);
    run(service_fn(|event: LambdaEvent<Value>| async move {
        consumer.handle(event.payload).await.map_err(Error::from)
    }))
    .await
}

fn now() -> Timestamp {
    let since_epoch = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_ms(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}
