//! The gateway: what a REST API with the authorizer attached does, with the gateway responses that a deployment has.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tower::ServiceExt;

use farebox_authorizer::Authorizer;
use farebox_core::time::Timestamp;

use crate::{
    Error, System, VirtualClock,
    endpoints::endpoints,
    webhooks::{EVENTS_PATH, WELCOME_PATH},
};

/// The definitions that the deployment template uses as well.
const GATEWAY_RESPONSES: &str = include_str!("../../gateway-responses.json");
/// What a REST API takes at most (<https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-execution-service-limits-table.html>).
const BODY_BYTES_MAX: usize = 10 * 1024 * 1024;
/// The routes of the sample API, the dearest first.
pub const SAMPLE_ROUTES: [(&str, &str); 4] = [
    ("GET", "/v1/admin/stats"),
    ("POST", "/v1/generate"),
    ("GET", "/v1/items"),
    ("GET", "/v1/basic/hello"),
];
/// The context's entries travel to the back end under this prefix, as a header mapping would send them.
const CONTEXT_HEADER: &str = "x-farebox-";
/// Which header a context entry becomes on a response.
const RESPONSE_HEADERS: [(&str, &str); 10] = [
    ("cost", "X-Farebox-Cost"),
    ("limit", "X-RateLimit-Limit"),
    ("remaining", "X-RateLimit-Remaining"),
    ("reset", "X-RateLimit-Reset"),
    ("warning", "X-RateLimit-Warning"),
    ("ratelimit", "RateLimit"),
    ("ratelimit_policy", "RateLimit-Policy"),
    ("quota_limit", "X-Quota-Limit"),
    ("quota_used", "X-Quota-Used"),
    ("quota_reset", "X-Quota-Reset"),
];

/// A gateway in front of the sample API.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    authorizers: Vec<Arc<Authorizer>>,
    turn: AtomicUsize,
    clock: VirtualClock,
    responses: BTreeMap<String, GatewayResponse>,
    docs_url: String,
    back_end: Router,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GatewayResponse {
    status_code: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Gateway {
    /// A gateway that asks these authorizer environments in turn.
    ///
    /// # Errors
    /// [`Error::Refused`] if the gateway responses are not readable.
    pub fn new(authorizers: Vec<Arc<Authorizer>>, clock: VirtualClock, docs_url: String) -> Result<Self, Error> {
        Ok(Self(Arc::new(Inner {
            authorizers,
            turn: AtomicUsize::new(0),
            clock,
            responses: serde_json::from_str(GATEWAY_RESPONSES).map_err(Error::refused)?,
            docs_url,
            back_end: sample_api(),
        })))
    }

    /// The authorizer environments.
    #[must_use]
    pub fn authorizers(&self) -> &[Arc<Authorizer>] {
        &self.0.authorizers
    }

    /// The gateway's routes: the API, and beside it the local system's own pages.
    pub fn router(&self, system: Arc<System>) -> Router {
        let pages = Router::new()
            .route("/_farebox/state", get(state))
            .route("/_farebox/clock", post(advance))
            .route("/_farebox/errors", get(errors))
            .route("/_farebox/endpoints", get(endpoints))
            .route("/_farebox/outbox", get(outbox))
            .route(EVENTS_PATH, any(webhook))
            .route(WELCOME_PATH, any(webhook))
            .with_state(system);
        Router::new().fallback(call).with_state(self.clone()).merge(pages)
    }

    async fn call(&self, mut request: Request) -> Response {
        let now = self.0.clock.now();
        let Some(authorizer) = self
            .0
            .authorizers
            .get(self.0.turn.fetch_add(1, Relaxed) % self.0.authorizers.len().max(1))
        else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        let event = authorizer_event(&request, now);
        let answer = authorizer.handle(&event, now).await;
        let response = match answer.ok().and_then(|answer| serde_json::to_value(answer).ok()) {
            None => self.gateway_response("UNAUTHORIZED", &Map::new()),
            Some(answer) => {
                let empty = Map::new();
                let context = answer["context"].as_object().unwrap_or(&empty);
                let allows = answer["policyDocument"]["Statement"][0]["Effect"] == "Allow";
                if answer.get("usageIdentifierKey").is_some() {
                    self.gateway_response("INVALID_API_KEY", context)
                } else if allows {
                    forward_context(request.headers_mut(), context);
                    match self.0.back_end.clone().oneshot(request).await {
                        Ok(response) => response,
                        Err(never) => match never {},
                    }
                } else {
                    self.gateway_response("ACCESS_DENIED", context)
                }
            }
        };
        // What the extension does on Lambda, after the response.
        let authorizer = authorizer.clone();
        tokio::spawn(async move { authorizer.flush(now, false).await });
        response
    }

    /// Renders a gateway response: static values in single quotes, mappings from the authorizer's context, and a body in
    /// which `$context.authorizer.x` is replaced. An entry that the context lacks sets no header.
    fn gateway_response(&self, kind: &str, context: &Map<String, Value>) -> Response {
        let Some(template) = self.0.responses.get(kind) else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        let entry = |name: &str| context.get(name).and_then(Value::as_str);
        let mut headers = HeaderMap::new();
        for (name, mapping) in &template.headers {
            let value = match mapping.strip_prefix("context.authorizer.") {
                Some(name) => entry(name),
                None => Some(mapping.trim_matches('\'')),
            };
            insert(&mut headers, name, value);
        }
        let mut body = template.body.replace("{docs_url}", &self.0.docs_url);
        for (name, value) in context {
            body = body.replace(
                &format!("$context.authorizer.{name}"),
                value.as_str().unwrap_or_default(),
            );
        }
        let status = StatusCode::from_u16(template.status_code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, headers, body).into_response()
    }
}

async fn call(State(gateway): State<Gateway>, request: Request) -> Response {
    gateway.call(request).await
}

/// The event of a REST API's REQUEST authorizer. A header value that is not text arrives with `?` in it, as no key has.
fn authorizer_event(request: &Request, now: Timestamp) -> Value {
    let mut headers = Map::new();
    for (name, value) in request.headers() {
        headers.insert(
            name.to_string(),
            Value::String(String::from_utf8_lossy(value.as_bytes()).into_owned()),
        );
    }
    let (method, path) = (request.method().as_str(), request.uri().path());
    json!({
        "type": "REQUEST",
        "methodArn": format!("arn:aws:execute-api:us-east-1:123456789012:local/live/{method}{path}"),
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": headers,
        "queryStringParameters": {},
        "pathParameters": { "proxy": path.trim_start_matches('/') },
        "stageVariables": {},
        "requestContext": {
            "path": format!("/live{path}"),
            "stage": "live",
            "httpMethod": method,
            "requestTimeEpoch": now.ms(),
            "identity": { "sourceIp": "127.0.0.1" },
        },
    })
}

/// Hands the context to the back end. What the caller sent under the same names is removed: nobody writes their own figures.
fn forward_context(headers: &mut HeaderMap, context: &Map<String, Value>) {
    let forged: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(CONTEXT_HEADER))
        .cloned()
        .collect();
    for name in forged {
        headers.remove(name);
    }
    for (name, value) in context {
        insert(
            headers,
            &format!("{CONTEXT_HEADER}{}", name.replace('_', "-")),
            value.as_str(),
        );
    }
}

fn insert(headers: &mut HeaderMap, name: &str, value: Option<&str>) {
    if let Some(value) = value
        && let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value))
    {
        headers.insert(name, value);
    }
}

/// The sample API, behind the layer that puts the figures on its responses.
fn sample_api() -> Router {
    let item = |id: u32, name: &str| json!({ "id": id, "name": name });
    Router::new()
        .route("/v1/basic/hello", get(|| async { Json(json!({ "message": "hello" })) }))
        .route(
            "/v1/items",
            get(move || async move { Json(json!({ "items": [item(1, "ticket"), item(2, "turnstile")] })) }),
        )
        .route(
            "/v1/generate",
            post(|| async { Json(json!({ "text": "one generated answer" })) }),
        )
        .route(
            "/v1/admin/stats",
            get(|| async { Json(json!({ "uptime_percent": "99.9" })) }),
        )
        .fallback(|request: Request| async move { Json(json!({ "path": request.uri().path() })) })
        .layer(middleware::from_fn(response_headers))
}

/// Copies the figures from the request's context to the response's headers.
async fn response_headers(request: Request, next: Next) -> Response {
    let figures: Vec<_> = RESPONSE_HEADERS
        .iter()
        .filter_map(|(entry, header)| {
            let name = format!("{CONTEXT_HEADER}{}", entry.replace('_', "-"));
            Some((*header, request.headers().get(name)?.to_str().ok()?.to_owned()))
        })
        .collect();
    let mut response = next.run(request).await;
    for (header, value) in figures {
        insert(response.headers_mut(), header, Some(&value));
    }
    response
}

/// What left the system: mails, calls of customers' webhooks, and what the operator was told.
async fn outbox(State(system): State<Arc<System>>) -> Json<serde_json::Value> {
    Json(json!({ "sent": system.services.outbox.entries() }))
}

async fn state(State(system): State<Arc<System>>) -> Response {
    match system.state().await {
        Ok(state) => Json(state).into_response(),
        Err(error) => failed(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    advance_seconds: u64,
}

async fn advance(State(system): State<Arc<System>>, body: Body) -> Response {
    const YEAR_S: u64 = 366 * 86_400;
    let bytes = to_bytes(body, BODY_BYTES_MAX).await.unwrap_or_default();
    let advance = match serde_json::from_slice::<Advance>(&bytes) {
        Ok(advance) if advance.advance_seconds <= YEAR_S => advance,
        _ => {
            let expected = format!("send {{\"advance_seconds\": n}} with a whole number from 0 to {YEAR_S}");
            return failed(StatusCode::BAD_REQUEST, &expected);
        }
    };
    let target = system.clock().now().plus_ms(advance.advance_seconds * 1_000);
    match system.run_until(target).await {
        Ok(ticks) => Json(json!({ "now": system.clock().now().s(), "ticks": ticks })).into_response(),
        Err(error) => failed(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// Stripe's webhook, and the page behind Checkout.
async fn webhook(State(system): State<Arc<System>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let request = Request::from_parts(parts, body);
    system
        .webhooks
        .handle(request, system.clock().now())
        .await
        .into_response()
}

async fn errors() -> &'static str {
    "401\n\
     unauthorized             the key is missing, malformed, unknown, revoked or expired\n\
     \n\
     429 by the limits; retry after Retry-After seconds\n\
     rate_limited             a limit is used up\n\
     quota_exceeded           the units of the billing period are used up and the tier blocks\n\
     spend_cap_reached        the customer's spend cap for the billing period is reached\n\
     cost_too_high            one request takes more units than a limit ever holds\n\
     unavailable              the request could not be counted: try again in a second\n\
     \n\
     403 by the route\n\
     not_in_tier              the route is part of a higher tier\n\
     out_of_scope             the key opens other routes only\n\
     no_such_route            no tier has the route\n\
     \n\
     403 by how the customer stands\n\
     customer_suspended       the account is suspended\n\
     payment_overdue          an invoice stayed unpaid beyond its grace and the tier blocks then\n\
     subscription_incomplete  the first payment has not been made yet\n\
     subscription_paused      the trial ended without a way to pay\n\
     subscription_ended       the subscription has ended\n"
}

fn failed(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "error": message }))).into_response()
}
