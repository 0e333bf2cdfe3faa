//! The Lambda function: wires the notifier and runs it.

use std::{sync::Arc, time::SystemTime};

use farebox_aws::connect::Settings;
use farebox_core::time::Timestamp;
use farebox_notifier::{Config, Deps, Notifier};
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing::Level::INFO)
        .init();
    let read = |name: &str| std::env::var(name).ok();
    let deps = Deps::connect(Config::from_env(read)?, &Settings::from_env(read)?, Arc::new(now));
    let notifier = &Notifier::new(deps)?;
    run(service_fn(|event: LambdaEvent<Value>| async move {
        notifier.handle(event.payload).await.map_err(Error::from)
    }))
    .await
}

fn now() -> Timestamp {
    let since_epoch = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_ms(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}
