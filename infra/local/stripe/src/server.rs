//! The HTTP side: keys, headers, locks and faults around the state machine.
//!
//! Source: <https://docs.stripe.com/api/authentication>, <https://docs.stripe.com/api/request_ids> and
//! <https://docs.stripe.com/rate-limits>.

use std::{
    collections::HashSet,
    future::Future,
    hash::Hash,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    FaultKind, Inner, StandIn,
    checkout::{LINK, PAGES},
    events::API_VERSION,
    state::{Call, Handled, Outage},
    wire::{error::ApiError, form::Params},
};

/// Requests larger than this are refused; Stripe's largest are far smaller.
const BODY_BYTES_MAX: usize = 1 << 20;

const CHECKOUT_SESSIONS: &str = "/v1/checkout/sessions";

const METER_EVENTS: &str = "/v1/billing/meter_events";

/// What is being worked on: a second request for the same waits for nothing, it is refused.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    /// Idempotency keys.
    keys: Held<String>,
    /// Meter and customer: "one concurrent call per customer per meter".
    subjects: Held<(String, String)>,
}

/// A set of things that are held.
#[derive(Debug)]
struct Held<T>(Mutex<HashSet<T>>);

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self(Mutex::new(HashSet::new()))
    }
}

impl<T: Clone + Eq + Hash> Held<T> {
    /// Holds a thing until the guard is dropped; `None` if it is held already.
    fn hold(&self, thing: T) -> Option<Holding<'_, T>> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Lazily: a guard that is made and dropped would release the one that holds.
        held.insert(thing.clone()).then(|| Holding { held: self, thing })
    }
}

struct Holding<'a, T: Eq + Hash> {
    held: &'a Held<T>,
    thing: T,
}

impl<T: Eq + Hash> Drop for Holding<'_, T> {
    fn drop(&mut self) {
        self.held
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.thing);
    }
}

/// The connection closes without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection was dropped, as asked for")]
struct Dropped;

/// A request, read.
struct Incoming {
    method: String,
    path: String,
    /// Query string and body.
    form: String,
    headers: HeaderMap,
}

impl Incoming {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// An answer before its headers.
struct Reply {
    status: u16,
    body: String,
    replayed: bool,
    lock_timeout: bool,
    html: bool,
    location: Option<String>,
}

impl Reply {
    fn error(error: &ApiError, request_id: &str) -> Self {
        Self {
            status: error.status,
            body: error.body(request_id).to_string(),
            replayed: false,
            lock_timeout: false,
            html: false,
            location: None,
        }
    }
}

impl From<Handled> for Reply {
    fn from(handled: Handled) -> Self {
        Self {
            status: handled.status,
            body: handled.body,
            replayed: handled.replayed,
            lock_timeout: false,
            html: false,
            location: None,
        }
    }
}

impl StandIn {
    /// The stand-in as a router, to be mounted in another server. A dropped connection (see [`FaultKind`]) then shows as an
    /// answer whose body breaks off; only [`StandIn::serve`] can close without an answer.
    pub fn router(&self) -> Router {
        let standin = self.clone();
        Router::new().fallback(move |request: Request<Body>| async move {
            match standin.answer(request).await {
                Ok(response) => response.map(Body::new),
                Err(Dropped) => Response::new(Body::new(BreaksOff)),
            }
        })
    }

    /// Serves plain HTTP/1.1 with keep-alive until `shutdown` resolves; then running requests are answered and connections close.
    ///
    /// # Errors
    /// When the listener fails for good; a connection that fails only ends itself.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future) -> io::Result<()> {
        let graceful = GracefulShutdown::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = &mut shutdown => break,
            };
            match accepted {
                Ok((stream, _)) => self.serve_connection(stream, &graceful),
                Err(error) if is_passing(&error) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(error) => return Err(error),
            }
        }
        drop(listener);
        graceful.shutdown().await;
        Ok(())
    }

    fn serve_connection(&self, stream: TcpStream, graceful: &GracefulShutdown) {
        let standin = self.clone();
        // Small answers must not wait for the peer's delayed acknowledgement; where it can't be set, they do.
        let _ = stream.set_nodelay(true);
        let service = hyper::service::service_fn(move |request| {
            let standin = standin.clone();
            async move { standin.answer(request).await }
        });
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A peer that went away and a drop that was asked for are no failure of ours.
            let _ = connection.await;
        });
    }

    async fn answer<B>(&self, request: Request<B>) -> Result<Response<Full<Bytes>>, Dropped>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let incoming = read(request).await.map_err(|_| Dropped)?;
        let inner = Arc::clone(&self.inner);
        // A task of its own: who hangs up while waiting does not stop what was asked for.
        let work = tokio::spawn(async move {
            let request_id = inner.core().next_request_id();
            let reply = inner.reply(&incoming, &request_id).await?;
            Ok(respond(reply, &incoming, &request_id))
        });
        work.await.unwrap_or(Err(Dropped))
    }
}

impl Inner {
    /// From the outside in: the key, the fault, the locks, the state, the disk.
    async fn reply(&self, incoming: &Incoming, request_id: &str) -> Result<Reply, Dropped> {
        if let Some(session) = incoming.path.strip_prefix(PAGES) {
            return Ok(self.page(incoming, session, request_id).await);
        }
        if let Err(error) = self.authenticate(incoming) {
            return Ok(Reply::error(&error, request_id));
        }
        let fault = self.faults.befall(&incoming.method, &incoming.path);
        let key = incoming.header("idempotency-key").filter(|_| incoming.method == "POST");
        match fault {
            Some(FaultKind::DropBeforeCommit) => return Err(Dropped),
            Some(FaultKind::RateLimited429) => {
                return Ok(Reply::error(&ApiError::rate_limited(), request_id));
            }
            Some(FaultKind::Conflict409) => {
                return Ok(Reply::error(&ApiError::key_in_use(key.unwrap_or_default()), request_id));
            }
            _ => {}
        }
        let key_held = key.map(|key| self.locks.keys.hold(key.to_owned()));
        if let (Some(key), Some(None)) = (key, &key_held) {
            return Ok(Reply::error(&ApiError::key_in_use(key), request_id));
        }
        let subject_held = self.subject(incoming).map(|subject| self.locks.subjects.hold(subject));
        if let Some(None) = subject_held {
            return Ok(Reply {
                lock_timeout: true,
                ..Reply::error(&ApiError::lock_timeout(), request_id)
            });
        }
        if let Some(FaultKind::Delay(ms)) = fault {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        let outage = match fault {
            Some(FaultKind::Error500BeforeCommit) => Some(Outage::BeforeCommit),
            Some(FaultKind::Error500AfterCommit) => Some(Outage::AfterCommit),
            _ => None,
        };
        let call = Call {
            method: incoming.method.clone(),
            path: incoming.path.clone(),
            form: incoming.form.clone(),
            key: key.map(str::to_owned),
            request_id: request_id.to_owned(),
            host: incoming
                .header("host")
                .filter(|_| [CHECKOUT_SESSIONS, LINK].contains(&incoming.path.as_str()))
                .map(str::to_owned),
            outage,
        };
        let mut reply = match self.commit(call).await {
            Some(handled) => Reply::from(handled),
            None => Reply::error(&ApiError::internal(), request_id),
        };
        match fault {
            Some(FaultKind::DropAfterCommit) => Err(Dropped),
            Some(FaultKind::Malformed) => {
                let middle = (0..=reply.body.len() / 2)
                    .rev()
                    .find(|at| reply.body.is_char_boundary(*at));
                reply.body.truncate(middle.unwrap_or(0));
                Ok(reply)
            }
            _ => Ok(reply),
        }
    }

    /// A checkout session's page, which knows no key: `GET` shows it, `POST` completes the session and leads on.
    async fn page(&self, incoming: &Incoming, session: &str, request_id: &str) -> Reply {
        let missing = || Reply::error(&ApiError::no_such("checkout.session", session, "session"), request_id);
        let trouble = match incoming.method.as_str() {
            "GET" => {
                let mut core = self.core();
                self.settle(&mut core);
                core.flush();
                None
            }
            "POST" => {
                let call = Call {
                    method: incoming.method.clone(),
                    path: incoming.path.clone(),
                    form: incoming.form.clone(),
                    key: None,
                    request_id: request_id.to_owned(),
                    host: None,
                    outage: None,
                };
                let reply = match self.commit(call).await {
                    Some(handled) => Reply::from(handled),
                    None => Reply::error(&ApiError::internal(), request_id),
                };
                let landing = self.core().state.landing_of(session);
                match landing {
                    Some(landing) if reply.status == 200 => {
                        return Reply {
                            status: 303,
                            location: Some(landing),
                            ..reply
                        };
                    }
                    _ if incoming
                        .header("accept")
                        .is_some_and(|kinds| kinds.contains("text/html")) =>
                    {
                        Some(reply)
                    }
                    _ => return reply,
                }
            }
            _ => return missing(),
        };
        let words = trouble.as_ref().map(|_| "That did not work. Please try again.");
        match self.core().state.checkout_page(session, words) {
            Some(body) => Reply {
                status: trouble.map_or(200, |reply| reply.status),
                body,
                html: true,
                ..missing()
            },
            None => missing(),
        }
    }

    /// Settles, handles the call, and waits until it is on disk. Nothing that another request may have seen is behind what is on
    /// disk: an answer waits for everything that was written before it. `None` if the journal can't be written.
    async fn commit(&self, call: Call) -> Option<Handled> {
        let (handled, flush) = {
            let mut core = self.core();
            if core.broken {
                return None;
            }
            let at = self.settle(&mut core);
            let handled = core.handle(call, at);
            if core.broken {
                return None;
            }
            (
                handled,
                core.journal
                    .as_ref()
                    .map(|journal| (journal.flushed(), journal.written())),
            )
        };
        if let Some((flushed, written)) = flush
            && !flushed.covers(written)
        {
            let wait = tokio::task::spawn_blocking(move || flushed.wait(written));
            if !matches!(wait.await, Ok(Ok(()))) {
                self.core().broken = true;
                return None;
            }
        }
        Some(handled)
    }

    /// The meter and customer of a meter event.
    fn subject(&self, incoming: &Incoming) -> Option<(String, String)> {
        if incoming.method != "POST" || incoming.path != METER_EVENTS {
            return None;
        }
        let params = Params::decode(&incoming.form).ok()?;
        self.core().state.meters.subject(params)
    }

    fn authenticate(&self, incoming: &Incoming) -> Result<(), ApiError> {
        let key = incoming
            .header("authorization")
            .and_then(secret_key)
            .filter(|key| !key.is_empty())
            .ok_or_else(ApiError::no_key)?;
        if self.secret_keys.is_empty() || self.secret_keys.contains(&key) {
            Ok(())
        } else {
            Err(ApiError::wrong_key(&key))
        }
    }
}

async fn read<B>(request: Request<B>) -> Result<Incoming, Box<dyn std::error::Error + Send + Sync>>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await?.to_bytes();
    let query = head.uri.query().unwrap_or_default();
    let body = String::from_utf8_lossy(&body);
    let form = match (query.is_empty(), body.is_empty()) {
        (true, _) => body.into_owned(),
        (false, true) => query.to_owned(),
        (false, false) => format!("{query}&{body}"),
    };
    Ok(Incoming {
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        form,
        headers: head.headers,
    })
}

fn respond(reply: Reply, incoming: &Incoming, request_id: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(reply.body)));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    let content_type = if reply.html {
        "text/html; charset=utf-8"
    } else {
        "application/json"
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Some(location) = reply.location.and_then(|url| HeaderValue::try_from(url).ok()) {
        headers.insert(header::LOCATION, location);
    }
    let version = incoming.headers.get("stripe-version").cloned();
    headers.insert(
        "stripe-version",
        version.unwrap_or(HeaderValue::from_static(API_VERSION)),
    );
    if let Ok(request_id) = HeaderValue::from_str(request_id) {
        headers.insert("request-id", request_id);
    }
    if let Some(key) = incoming
        .headers
        .get("idempotency-key")
        .filter(|_| incoming.method == "POST")
    {
        headers.insert("idempotency-key", key.clone());
    }
    if reply.replayed {
        headers.insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    // "stripe-should-retry" tells the SDKs more than the status does.
    let should_retry = match reply.status {
        _ if reply.lock_timeout => Some("true"),
        400 => Some("false"),
        409 => Some("true"),
        _ => None,
    };
    if let Some(should_retry) = should_retry {
        headers.insert("stripe-should-retry", HeaderValue::from_static(should_retry));
    }
    response
}

/// The key of `Bearer sk_…` or of Basic authentication, where it is the user name.
fn secret_key(authorization: &str) -> Option<String> {
    let (scheme, rest) = authorization.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.to_owned());
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let pair = String::from_utf8(base64(rest)?).ok()?;
        let user = pair.split_once(':').map_or(pair.as_str(), |(user, _)| user);
        return Some(user.to_owned());
    }
    None
}

/// Standard base64, padded or not.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

/// A failure to accept that passes: the peer gave up, or too many files are open.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    ) || matches!(error.raw_os_error(), Some(23 | 24))
}

/// A body that fails at once.
struct BreaksOff;

impl http_body::Body for BreaksOff {
    type Data = Bytes;
    type Error = Dropped;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Dropped>>> {
        std::task::Poll::Ready(Some(Err(Dropped)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_comes_as_bearer_or_as_basic_user() {
        assert_eq!(secret_key("Bearer sk_test_1").as_deref(), Some("sk_test_1"));
        assert_eq!(secret_key("Basic c2tfdGVzdF8xOg==").as_deref(), Some("sk_test_1"));
        assert_eq!(secret_key("Digest x"), None);
    }
}
