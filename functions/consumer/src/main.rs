//! The Lambda function: wires the consumer and runs it.

use std::{sync::Arc, time::SystemTime};

use farebox_aws::connect::{Clients, Settings};
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
    let read = |name: &str| std::env::var(name).ok();
    let clients = Clients::new(&Settings::from_env(read)?);
    let consumer = &Consumer::new(Deps::connect(Config::from_env(read)?, &clients, Arc::new(now))?);
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
