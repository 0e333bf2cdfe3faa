//! Lambda as a function sees it: the Runtime API
//! (<https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>) and as much of the Extensions API
//! (<https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html>) as an internal extension asks for.
//!
//! An invocation begins when the runtime and the extension both wait for one, as on Lambda: what the extension does after a
//! response is never inside the next caller's time.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderName, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::{
    net::TcpListener,
    sync::{Notify, oneshot},
    task::JoinHandle,
};

/// A running emulator for one function.
pub(crate) struct Emulator {
    pub(crate) address: SocketAddr,
    lambda: Arc<Lambda>,
    server: JoinHandle<()>,
}

/// How an invocation ended.
pub(crate) struct Answer {
    /// From the event to the whole response.
    pub(crate) took: Duration,
    /// The response, or the error.
    pub(crate) body: Bytes,
    /// Whether it is an error.
    pub(crate) is_error: bool,
}

#[derive(Default)]
struct Lambda {
    waiting: Mutex<Waiting>,
    moved: Notify,
}

#[derive(Default)]
struct Waiting {
    runtime: Option<oneshot::Sender<(u64, Bytes)>>,
    has_extension: bool,
    extension: Option<oneshot::Sender<u64>>,
    caller: Option<oneshot::Sender<(Instant, Bytes, bool)>>,
    invocations: u64,
}

impl Emulator {
    pub(crate) async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let lambda = Arc::new(Lambda::default());
        let router = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/response", post(respond))
            .route("/2018-06-01/runtime/invocation/{id}/error", post(fail))
            .route("/2020-01-01/extension/register", post(register))
            .route("/2020-01-01/extension/event/next", get(next_event))
            .with_state(lambda.clone());
        let server = tokio::spawn(async move {
            let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
                let _ = stream.set_nodelay(true);
            });
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self {
            address,
            lambda,
            server,
        })
    }

    /// Until the function has initialized, or is done with the last invocation.
    pub(crate) async fn ready(&self) {
        loop {
            let moved = self.lambda.moved.notified();
            if self.lambda.waiting().is_ready() {
                return;
            }
            moved.await;
        }
    }

    /// One invocation.
    pub(crate) async fn invoke(&self, event: &Bytes) -> Result<Answer, String> {
        self.ready().await;
        let (sender, answered) = oneshot::channel();
        let (runtime, extension, id) = {
            let mut waiting = self.lambda.waiting();
            waiting.caller = Some(sender);
            waiting.invocations += 1;
            (waiting.runtime.take(), waiting.extension.take(), waiting.invocations)
        };
        let began = Instant::now();
        runtime
            .and_then(|runtime| runtime.send((id, event.clone())).ok())
            .ok_or("the function went away")?;
        if let Some(extension) = extension {
            let _ = extension.send(id);
        }
        let (at, body, is_error) = answered.await.map_err(|_| "the function did not answer")?;
        Ok(Answer {
            took: at.duration_since(began),
            body,
            is_error,
        })
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Waiting {
    fn is_ready(&self) -> bool {
        self.runtime.is_some() && (!self.has_extension || self.extension.is_some())
    }
}

impl Lambda {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered(&self, body: Bytes, is_error: bool) -> StatusCode {
        let at = Instant::now();
        if let Some(caller) = self.waiting().caller.take() {
            let _ = caller.send((at, body, is_error));
        }
        StatusCode::ACCEPTED
    }
}

fn request_id(n: u64) -> String {
    format!("5e8ff1f2-0001-4f1b-9c00-{n:012}")
}

async fn next(State(lambda): State<Arc<Lambda>>) -> Response {
    let (sender, event) = oneshot::channel();
    lambda.waiting().runtime = Some(sender);
    lambda.moved.notify_waiters();
    let Ok((id, event)) = event.await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let headers = [
        ("lambda-runtime-aws-request-id", request_id(id)),
        ("lambda-runtime-deadline-ms", "4000000000000".to_owned()),
        (
            "lambda-runtime-invoked-function-arn",
            "arn:aws:lambda:us-east-1:123456789012:function:bench".to_owned(),
        ),
        (
            "lambda-runtime-trace-id",
            "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=0".to_owned(),
        ),
    ];
    (
        headers.map(|(name, value)| (HeaderName::from_static(name), value)),
        event,
    )
        .into_response()
}

async fn respond(State(lambda): State<Arc<Lambda>>, Path(_): Path<String>, body: Bytes) -> StatusCode {
    lambda.answered(body, false)
}

async fn fail(State(lambda): State<Arc<Lambda>>, Path(_): Path<String>, body: Bytes) -> StatusCode {
    lambda.answered(body, true)
}

async fn register(State(lambda): State<Arc<Lambda>>) -> Response {
    lambda.waiting().has_extension = true;
    let headers = [("lambda-extension-identifier", "00000000-0000-4000-8000-000000000001")];
    let body = r#"{"functionName":"bench","functionVersion":"$LATEST","handler":"bootstrap"}"#;
    (headers, body).into_response()
}

async fn next_event(State(lambda): State<Arc<Lambda>>) -> Response {
    let (sender, event) = oneshot::channel();
    lambda.waiting().extension = Some(sender);
    lambda.moved.notify_waiters();
    let Ok(id) = event.await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let id = request_id(id);
    let body = format!(
        r#"{{"eventType":"INVOKE","deadlineMs":4000000000000,"requestId":"{id}","invokedFunctionArn":"arn:aws:lambda:us-east-1:123456789012:function:bench","tracing":{{"type":"X-Amzn-Trace-Id","value":"Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700"}}}}"#
    );
    body.into_response()
}
