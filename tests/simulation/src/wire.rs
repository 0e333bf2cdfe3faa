//! The network: every request of the SDK's and of the Stripe client's, its way there and back, and what befalls it.
//!
//! Nothing here is a socket or a thread. A request travels for a time that the seed decides, is worked on in one step, and its
//! answer travels back; whoever waits for it is woken by tokio's clock, which jumps from one such moment to the next. So the
//! seed decides which handler's next step runs.

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn},
    orchestrator::HttpRequest,
    result::ConnectorError,
};
use aws_smithy_types::retry::ErrorKind;
use axum::Router;
use bytes::Bytes;
use farebox_core::time::Timestamp;
use farebox_stripe::{Body, Sent, Transport, Unreachable};
use farebox_stripe_standin::{Fault, FaultKind, StandIn};
use fastrand::Rng;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio::{sync::oneshot, time::Instant};
use tower::ServiceExt;

use crate::{
    audit::{Audit, Call, Table},
    queue::Queues,
    sabotage::Sabotage,
    store::{self, Answer, Store},
    trace::{Trace, canonical, sorted_form},
};

tokio::task_local! {
    /// The request of a customer's that the present task works on.
    pub(crate) static CALL: usize;
}

/// Who talks to the services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Actor {
    /// An environment of the authorizer.
    Authorizer(usize),
    /// A worker of the consumer.
    Consumer(usize),
    /// The webhook.
    Webhook,
    /// The control plane.
    Operator,
    /// The audit at the end: nothing ever befalls it.
    Auditor,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authorizer(n) => write!(f, "authorizer{n}"),
            Self::Consumer(n) => write!(f, "consumer{n}"),
            Self::Webhook => f.write_str("webhook"),
            Self::Operator => f.write_str("operator"),
            Self::Auditor => f.write_str("auditor"),
        }
    }
}

/// What is talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Table,
    Queue,
    Stripe,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fate {
    /// It arrives and is answered.
    #[default]
    Answered,
    /// The connection is refused: not a byte was sent.
    Refused,
    /// The connection breaks on the way there: nothing was done.
    LostThere,
    /// The connection breaks on the way back: it was done.
    LostBack,
    /// It never arrives, and nobody says so.
    Silence,
    /// It arrives and is done long after everybody stopped to wait.
    LateThere,
    /// It is done, and the answer comes long after everybody stopped to wait.
    LateBack,
    /// Refused for being too many.
    Throttled,
    /// A 500, and nothing was done.
    FaultBefore,
    /// A 500, though it was done.
    FaultAfter,
    /// It was done, and the answer is cut off.
    Garbled,
}

const TROUBLE: [Fate; 10] = [
    Fate::Refused,
    Fate::LostThere,
    Fate::LostBack,
    Fate::Silence,
    Fate::LateThere,
    Fate::LateBack,
    Fate::Throttled,
    Fate::FaultBefore,
    Fate::FaultAfter,
    Fate::Garbled,
];

/// A request's way.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    fate: Fate,
    there: Duration,
    back: Duration,
}

/// A span of time in which hardly anything of a service works.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outage {
    pub(crate) service: Service,
    pub(crate) from: Timestamp,
    pub(crate) until: Timestamp,
}

/// How bad the network is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weather {
    /// Of a thousand requests, how many meet trouble.
    pub(crate) trouble_permille: u64,
    /// Of a thousand requests, how many are slow.
    pub(crate) slow_permille: u64,
    pub(crate) outages: Vec<Outage>,
}

impl Weather {
    pub(crate) fn is_calm(&self) -> bool {
        self.trouble_permille == 0 && self.slow_permille == 0 && self.outages.is_empty()
    }
}

/// The virtual time: tokio's clock, counted from a moment of the calendar.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time {
    epoch_ms: u64,
    zero: Instant,
}

impl Time {
    pub(crate) fn starting_at(start: Timestamp) -> Self {
        Self {
            epoch_ms: start.ms(),
            zero: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        let passed = u64::try_from(self.zero.elapsed().as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_ms(self.epoch_ms.saturating_add(passed))
    }

    pub(crate) async fn until(&self, moment: Timestamp) {
        tokio::time::sleep(Duration::from_millis(moment.ms_since(self.now()))).await;
    }
}

/// The network with everything behind it. Clones share it.
#[derive(Clone)]
pub(crate) struct Wire(Arc<Inner>);

struct Inner {
    time: Time,
    store: Store,
    stand_in: StandIn,
    stripe: Router,
    state: Mutex<State>,
}

/// What moves.
pub(crate) struct State {
    rng: Rng,
    pub(crate) weather: Weather,
    pub(crate) sabotage: Option<Sabotage>,
    pub(crate) queues: Queues,
    pub(crate) audit: Audit,
    pub(crate) trace: Trace,
    pub(crate) requests: u64,
    pub(crate) troubled: u64,
    /// When Stripe last did a change of a subscription whose caller had given it up: it undoes what was changed since, and Stripe's
    /// updates know no condition that could prevent that.
    pub(crate) changed_late: Option<Timestamp>,
    attempts: u64,
}

/// A request that did not end in an answer.
enum Broken {
    Refused,
    Reset,
}

impl Wire {
    pub(crate) fn new(seed: u64, time: Time, stand_in: StandIn, sabotage: Option<Sabotage>, trace: Trace) -> Self {
        Self(Arc::new(Inner {
            time,
            store: Store::new(),
            stripe: stand_in.router(),
            stand_in,
            state: Mutex::new(State {
                rng: Rng::with_seed(seed),
                weather: Weather::default(),
                sabotage,
                queues: Queues::default(),
                audit: Audit::default(),
                trace,
                requests: 0,
                troubled: 0,
                changed_late: None,
                attempts: 0,
            }),
        }))
    }

    pub(crate) fn time(&self) -> Time {
        self.0.time
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.0.time.now()
    }

    pub(crate) fn stand_in(&self) -> &StandIn {
        &self.0.stand_in
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes something of a request.
    fn of_call(&self, call: usize, note: impl FnOnce(&mut Call)) {
        if let Some(call) = self.state().audit.calls.get_mut(call) {
            note(call);
        }
    }

    pub(crate) fn note(&self, who: impl fmt::Display, what: &str, details: &str) {
        let at = self.now().ms();
        self.state().trace.note(at, &who.to_string(), what, details);
    }

    /// What is to be seen of a request or an answer, if anybody looks.
    fn shown(&self, text: impl FnOnce() -> String) -> String {
        if self.state().trace.is_kept() {
            text()
        } else {
            String::new()
        }
    }

    /// An actor's HTTP client for AWS.
    pub(crate) fn aws(&self, actor: Actor) -> SharedHttpClient {
        let connector = SharedHttpConnector::new(Line {
            wire: self.clone(),
            actor,
        });
        http_client_fn(move |_, _| connector.clone())
    }

    /// An actor's way to Stripe.
    pub(crate) fn stripe(&self, actor: Actor) -> Line {
        Line {
            wire: self.clone(),
            actor,
        }
    }

    /// Decides what becomes of a request, and how long it travels there and back.
    fn fate(&self, actor: Actor, service: Service) -> Way {
        let now = self.now();
        let mut state = self.state();
        state.requests += 1;
        if actor == Actor::Auditor {
            return Way::default();
        }
        let is_slow = state.rng.u64(..1_000) < state.weather.slow_permille;
        let mut travel = || {
            let ms = if is_slow {
                state.rng.u64(20..1_600)
            } else {
                state.rng.u64(1..6)
            };
            Duration::from_millis(ms)
        };
        let mut way = Way {
            fate: Fate::Answered,
            there: travel(),
            back: travel(),
        };
        let is_out = |outage: &Outage| outage.service == service && (outage.from..outage.until).contains(&now);
        let permille = if state.weather.outages.iter().any(is_out) {
            970
        } else {
            state.weather.trouble_permille
        };
        if state.rng.u64(..1_000) >= permille {
            return way;
        }
        state.troubled += 1;
        way.fate = TROUBLE[state.rng.usize(..TROUBLE.len())];
        // Nobody waits longer than 3 s for a table or queue, or 30 s for Stripe.
        let late = Duration::from_secs(match service {
            Service::Table | Service::Queue => state.rng.u64(4..600),
            Service::Stripe => state.rng.u64(31..1_200),
        });
        match way.fate {
            Fate::LateThere | Fate::Silence => way.there = late,
            Fate::LateBack => way.back = late,
            _ => {}
        }
        way
    }

    /// A request's way. What it does it does even if nobody waits for it any more.
    async fn exchange(
        &self,
        actor: Actor,
        service: Service,
        what: &str,
        shown: String,
        work: impl Future<Output = Answer> + Send + 'static,
    ) -> Result<Answer, Broken> {
        let Way { fate, there, back } = self.fate(actor, service);
        let at = self.now().ms();
        let note = format!("{what} {fate:?}");
        self.state().trace.note(at, &actor.to_string(), &note, &shown);
        let busy = match service {
            Service::Table => Answer::error(400, "ProvisionedThroughputExceededException"),
            Service::Queue => Answer::error(400, "ThrottlingException"),
            Service::Stripe => stripe_error(429, "rate_limit"),
        };
        let fault = match service {
            Service::Stripe => stripe_error(500, "api_error"),
            Service::Table | Service::Queue => Answer::error(500, "InternalServerError"),
        };
        let (tell, told) = oneshot::channel();
        let wire = self.clone();
        let what = what.to_owned();
        tokio::spawn(async move {
            tokio::time::sleep(there).await;
            let outcome = match fate {
                Fate::Refused => Err(Broken::Refused),
                Fate::LostThere | Fate::Silence => Err(Broken::Reset),
                Fate::Throttled => Ok(busy),
                Fate::FaultBefore => Ok(fault),
                Fate::Answered
                | Fate::LostBack
                | Fate::LateThere
                | Fate::LateBack
                | Fate::FaultAfter
                | Fate::Garbled => {
                    let answer = work.await;
                    if fate == Fate::LateThere && what.starts_with("POST /v1/subscriptions/") {
                        wire.state().changed_late = Some(wire.now());
                    }
                    let details = wire.shown(|| match what.as_str() {
                        // The embedded table tells the machine's time.
                        "CreateTable" => answer.status.to_string(),
                        _ => format!("{} {}", answer.status, canonical(&answer.body)),
                    });
                    wire.note(actor, &format!("{what} done"), &details);
                    match fate {
                        Fate::LostBack => Err(Broken::Reset),
                        Fate::FaultAfter => Ok(fault),
                        Fate::Garbled => Ok(half(answer)),
                        _ => Ok(answer),
                    }
                }
            };
            tokio::time::sleep(back).await;
            // Who has stopped to wait is not told.
            let _ = tell.send(outcome);
        });
        told.await.unwrap_or(Err(Broken::Reset))
    }

    /// A request to a table, in one step.
    fn work_on_table(&self, actor: Actor, operation: &str, body: &str, call: Option<usize>) -> Answer {
        if !matches!(operation, "UpdateItem" | "TransactWriteItems") {
            return self.0.store.answer(operation, body);
        }
        let mut request: Value = serde_json::from_str(body).unwrap_or_default();
        let sabotage = self.state().sabotage;
        if let Some(answer) = sabotage.and_then(|sabotage| sabotage.instead(operation, &mut request, &self.0.store)) {
            return answer;
        }
        let body = match sabotage {
            Some(_) => request.to_string(),
            None => body.to_owned(),
        };
        let answer = self.0.store.answer(operation, &body);
        if answer.status == 200 {
            self.watch(actor, operation, &request, &answer, call);
        }
        answer
    }

    /// Shows the auditor every item that a request wrote.
    fn watch(&self, actor: Actor, operation: &str, request: &Value, answer: &Answer, call: Option<usize>) {
        let call = call.filter(|_| matches!(actor, Actor::Authorizer(_)));
        let written: Vec<&Value> = match operation {
            "UpdateItem" => vec![request],
            _ => {
                let items = request["TransactItems"].as_array().into_iter().flatten();
                items.filter_map(|item| item.get("Update")).collect()
            }
        };
        for write in written {
            let table = Table::of(&write["TableName"]);
            if table == Table::Accounts {
                continue;
            }
            let item = if write["ReturnValues"] == "ALL_NEW" {
                let mut answer: Value = serde_json::from_str(&answer.body).unwrap_or_default();
                answer["Attributes"].take()
            } else {
                self.0.store.item(&write["TableName"], &write["Key"])
            };
            self.state().audit.wrote(table, &item, call);
        }
    }
}

/// An actor's line into the network.
#[derive(Clone)]
pub(crate) struct Line {
    wire: Wire,
    actor: Actor,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Line({})", self.actor)
    }
}

impl HttpConnector for Line {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (operation, body) = store::read(&request);
        let is_queue = request
            .headers()
            .get("x-amz-target")
            .unwrap_or_default()
            .starts_with("AmazonSQS");
        let call = CALL.try_with(|call| *call).ok();
        let Line { wire, actor } = self.clone();
        HttpConnectorFuture::new(async move {
            let shown = wire.shown(|| canonical(&body));
            let is_admission = matches!(actor, Actor::Authorizer(_)) && operation == "UpdateItem";
            let service = if is_queue { Service::Queue } else { Service::Table };
            let (behind, what) = (wire.clone(), operation.clone());
            let work = async move {
                if is_queue {
                    let request = serde_json::from_str(&body).unwrap_or_default();
                    behind.state().queues.answer(&operation, &request)
                } else {
                    behind.work_on_table(actor, &operation, &body, call)
                }
            };
            let call = call.filter(|_| is_admission);
            if let Some(call) = call {
                wire.of_call(call, |call| call.writes += 1);
            }
            // If the SDK stops to wait, nobody knows how it ended.
            let mut doubt = Doubt {
                wire: wire.clone(),
                call,
            };
            let outcome = wire.exchange(actor, service, &what, shown, work).await;
            let is_known = |outcome: &Result<Answer, Broken>| match outcome {
                Ok(answer) => matches!(answer.status, 200 | 400) && is_json(&answer.body),
                Err(Broken::Refused) => true,
                Err(Broken::Reset) => false,
            };
            if doubt.call.is_some() && is_known(&outcome) {
                doubt.call = None;
            }
            let is_answered = |answer: &Answer| matches!(answer.status, 200 | 400) && is_json(&answer.body);
            if let (Some(call), Ok(answer)) = (call, &outcome)
                && is_answered(answer)
            {
                wire.of_call(call, |call| call.answered += 1);
            }
            match outcome {
                Ok(answer) => store::respond(answer),
                Err(Broken::Refused) => Err(ConnectorError::io(
                    io::Error::from(io::ErrorKind::ConnectionRefused).into(),
                )),
                Err(Broken::Reset) => Err(ConnectorError::other(
                    io::Error::from(io::ErrorKind::ConnectionReset).into(),
                    Some(ErrorKind::TransientError),
                )),
            }
        })
    }
}

/// Counts the counting write as one of unknown outcome, unless it turned out otherwise.
struct Doubt {
    wire: Wire,
    call: Option<usize>,
}

impl Drop for Doubt {
    fn drop(&mut self) {
        if let Some(call) = self.call {
            self.wire.of_call(call, |call| call.unknown += 1);
        }
    }
}

impl Transport for Line {
    fn send(&self, request: Request<Full<Bytes>>) -> Sent<'_> {
        Box::pin(async move {
            let Line { wire, actor } = self.clone();
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let what = format!("{} {}", head.method, head.uri.path());
            let form = format!(
                "{}&{}",
                head.uri.query().unwrap_or_default(),
                String::from_utf8_lossy(&body)
            );
            let shown = wire.shown(|| sorted_form(&form));
            let attempt = {
                let mut state = wire.state();
                state.attempts += 1;
                state.attempts
            };
            let sabotage = wire.state().sabotage;
            let request = Request::from_parts(head, Full::new(body));
            let request = match sabotage {
                Some(sabotage) => sabotage.reword(request, attempt).await,
                None => request,
            };
            let router = wire.0.stripe.clone();
            let work = async move {
                let answer = match router.oneshot(request.map(axum::body::Body::new)).await {
                    Ok(answer) => answer,
                    Err(never) => match never {},
                };
                let status = answer.status().as_u16();
                let body = answer
                    .into_body()
                    .collect()
                    .await
                    .map(|body| body.to_bytes())
                    .unwrap_or_default();
                let body = String::from_utf8_lossy(&body).into_owned();
                let body = sabotage.map_or(body.clone(), |sabotage| sabotage.answer_as_asked(body));
                Answer { status, body }
            };
            match wire.exchange(actor, Service::Stripe, &what, shown, work).await {
                Ok(answer) => {
                    let body = Full::new(Bytes::from(answer.body)).map_err(|never| match never {});
                    let mut response = Response::new(Body::new(body));
                    *response.status_mut() = http::StatusCode::from_u16(answer.status).unwrap_or_default();
                    Ok(response)
                }
                Err(broken) => Err(Unreachable {
                    sent: matches!(broken, Broken::Reset),
                    cause: "simulated".to_owned(),
                }),
            }
        })
    }
}

impl Wire {
    /// Stripe remembers the next failure of a meter event for its idempotency key, as it does with every 500.
    pub(crate) fn store_next_fault(&self) {
        self.0.stand_in.misbehave(Fault {
            method: Some("POST".to_owned()),
            path_prefix: "/v1/billing/meter_events".to_owned(),
            times: 1,
            kind: FaultKind::Error500BeforeCommit,
        });
    }
}

fn is_json(body: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(body).is_ok()
}

fn stripe_error(status: u16, kind: &str) -> Answer {
    Answer {
        status,
        body: serde_json::json!({ "error": { "type": kind, "message": "simulated" } }).to_string(),
    }
}

/// The first half of an answer.
fn half(answer: Answer) -> Answer {
    let middle = (0..=answer.body.len() / 2)
        .rev()
        .find(|&at| answer.body.is_char_boundary(at));
    Answer {
        body: answer.body[..middle.unwrap_or(0)].to_owned(),
        ..answer
    }
}
