//! The Lambda function: wires the webhook and runs it.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use farebox_aws::{
    connect::{Clients, Settings},
    secrets::{Environment, Wanted},
};
use farebox_core::time::Timestamp;
use farebox_webhook::{Config, Deps, Webhook};
use lambda_http::{Body, Error, Request, run, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing::Level::INFO)
        .init();
    let settings = Settings::from_env(|name| std::env::var(name).ok())?;
    let wanted = [
        Wanted::One("STRIPE_SECRET_KEY"),
        Wanted::WithPrevious("STRIPE_WEBHOOK_SECRETS"),
        Wanted::One("FIRST_KEY_SECRET"),
    ];
    let environment = Environment::fetch(&settings, &wanted).await?;
    let clients = Clients::new(&settings);
    let config = Config::from_env(|name| environment.read(name))?;
    let webhook = &Webhook::new(Deps::connect(config, &clients, Arc::new(now))?);
    run(service_fn(|request: Request| async move {
        let request = request.map(|body| Bytes::copy_from_slice(&body));
        Ok::<_, Error>(webhook.handle(request, now()).await.map(Body::Text))
    }))
    .await
}

fn now() -> Timestamp {
    let since_epoch = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_ms(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}
