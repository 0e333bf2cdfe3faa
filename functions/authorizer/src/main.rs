//! The authorizer on Lambda: wire, run, and send usage after each response.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use farebox_authorizer::{Authorizer, Config, Deps};
use farebox_aws::{accounts::AccountTable, connect::Clients, counters::CounterTable, queue::UsageQueue};
use farebox_core::time::Timestamp;
use lambda_extension::{Extension, LambdaEvent as ExtensionEvent, NextEvent};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use tokio::sync::{Mutex, mpsc};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    tracing_subscriber::fmt()
        .json()
        .with_current_span(false)
        .without_time()
        .init();
    let config = Config::from_env(|name| std::env::var(name).ok())?;
    let clients = Clients::new(&config.aws);
    let authorizer = Arc::new(Authorizer::new(Deps {
        accounts: AccountTable::new(clients.clone(), config.accounts_table),
        counters: CounterTable::new(clients.clone(), config.counters_table),
        queue: UsageQueue::new(clients, config.usage_queue_url),
        forbidden_403: config.forbidden_403,
        usage_identifier_key: config.usage_identifier_key,
    }));
    authorizer.warm_up().await;

    // An internal extension keeps the environment awake until usage is sent, without making the caller wait for it.
    let (done, waiting) = mpsc::unbounded_channel::<()>();
    let waiting = Arc::new(Mutex::new(waiting));
    let sender = authorizer.clone();
    let extension = Extension::new()
        .with_extension_name("farebox-usage")
        .with_events(&["INVOKE"])
        .with_events_processor(lambda_extension::service_fn(move |event: ExtensionEvent| {
            let (sender, waiting) = (sender.clone(), waiting.clone());
            async move {
                if matches!(event.next, NextEvent::Invoke(_)) {
                    waiting.lock().await.recv().await;
                    sender.flush(now(), false).await;
                }
                Ok::<_, lambda_extension::Error>(())
            }
        }))
        .register()
        .await?;
    let handler = service_fn(move |event: LambdaEvent<serde_json::Value>| {
        let (authorizer, done) = (authorizer.clone(), done.clone());
        async move {
            let answer = authorizer.handle(&event.payload, now()).await;
            let _ = done.send(()); // the extension lives as long as the function
            answer.map_err(|unauthorized| lambda_runtime::Diagnostic {
                error_type: "Unauthorized".to_owned(),
                error_message: unauthorized.to_string(),
            })
        }
    });
    tokio::try_join!(lambda_runtime::run(handler), extension.run())?;
    Ok(())
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_ms(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
