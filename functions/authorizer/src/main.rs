//! The authorizer on Lambda: wire, run, and send usage and metrics after each response.

mod extension;

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use farebox_authorizer::{Authorizer, Config, Deps};
use farebox_aws::{
    accounts::AccountTable,
    connect::{Clients, Need},
    counters::CounterTable,
    queue::UsageQueue,
    telemetry,
};
use farebox_core::time::Timestamp;
use lambda_runtime::{Diagnostic, Error, LambdaEvent, LambdaInvocation, Runtime, service_fn};
use serde_json::value::RawValue;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tower::{ServiceExt, layer::layer_fn};

use crate::extension::Extension;

/// Where the runtime logs an error that a handler returns. A key that opens nothing is one, for Lambda knows no other way to a 401,
/// and anybody can send a million of them: they are counted, and not written down one by one.
const ERRORS_OF_HANDLERS: &str = "lambda_runtime::layers::panic";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let read = |name: &str| std::env::var(name).ok();
    telemetry::start_without(read, Some(ERRORS_OF_HANDLERS));
    if let Err(problem) = run(read).await {
        telemetry::give_up(&problem);
    }
}

async fn run(read: impl Fn(&str) -> Option<String>) -> Result<(), Error> {
    let function = read("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_default();
    let authorizer = Arc::new(start(Config::from_env(&read)?).await?);
    let after = Arc::new(After {
        authorizer: authorizer.clone(),
        function,
    });

    // An internal extension keeps the environment awake until usage is sent, without making the caller wait for it.
    let (done, mut answered) = mpsc::unbounded_channel::<()>();
    let mut extension =
        Extension::register(&read("AWS_LAMBDA_RUNTIME_API").unwrap_or_default(), "farebox-usage").await?;
    let sender = after.clone();
    let mut extension = tokio::spawn(async move {
        loop {
            extension.next().await?;
            answered.recv().await;
            sender.flush(false).await;
        }
    });
    let handler = service_fn(move |event: LambdaEvent<Box<RawValue>>| {
        let authorizer = authorizer.clone();
        async move {
            telemetry::begin(&event.context.request_id);
            let mut event = serde_json::Deserializer::from_str(event.payload.get());
            let answer = authorizer.handle(&mut event, now()).await;
            answer.map_err(|unauthorized| Diagnostic {
                error_type: "Unauthorized".to_owned(),
                error_message: unauthorized.to_string(),
            })
        }
    });
    // Once Lambda has the response. Without the runtime's own tracing layer: it opens a span for each request, and no span is
    // recorded here.
    let tell = layer_fn(move |service: _| {
        let done = done.clone();
        ServiceExt::<LambdaInvocation>::map_response(service, move |()| {
            let _ = done.send(()); // the extension lives as long as the function
        })
    });
    // An environment with an extension is told before it ends, and given half a second
    // (<https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html#runtimes-lifecycle-shutdown>).
    let mut ends = signal(SignalKind::terminate())?;
    // A task of its own: what wakes `main` itself costs a system call each time.
    let mut runtime = tokio::spawn(Runtime::new(handler).layer(tell).run());
    tokio::select! {
        ended = &mut runtime => ended?,
        ended = &mut extension => ended?,
        _ = ends.recv() => {
            after.flush(true).await;
            Ok(())
        }
    }
}

async fn start(config: Config) -> Result<Authorizer, Error> {
    let clients = Clients::new(&config.aws);
    let needs = [
        Need::Accounts(&config.accounts_table),
        Need::Counters(&config.counters_table),
        Need::Queue("USAGE_QUEUE_URL", &config.usage_queue_url),
    ];
    clients.check(&needs).await?;
    let authorizer = Authorizer::new(Deps {
        accounts: AccountTable::new(clients.clone(), config.accounts_table),
        counters: CounterTable::new(clients.clone(), config.counters_table),
        queue: UsageQueue::new(clients, config.usage_queue_url),
        forbidden_403: config.forbidden_403,
        usage_identifier_key: config.usage_identifier_key,
    });
    authorizer.warm_up().await;
    Ok(authorizer)
}

/// What happens once the response has gone to the caller.
struct After {
    authorizer: Arc<Authorizer>,
    function: String,
}

impl After {
    async fn flush(&self, all: bool) {
        self.authorizer.flush(now(), all).await;
        let metrics = self.authorizer.metrics().due(now(), all);
        telemetry::write_metrics("authorizer", &self.function, now(), &metrics);
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_ms(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
