//! The client: one call, one answer, no retries.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use stripe_client_core::{CustomizedStripeRequest, RequestBuilder, StripeClient, StripeMethod, StripeRequest};
use tokio::time::{Instant, timeout_at};

use crate::answer::{Accepted, Answer, Headers, is_busy};
use crate::pace::Pace;
use crate::transport::{Body, Pool, Transport, Unreachable};
use crate::{Config, Error};

const STRIPE_VERSION: HeaderName = HeaderName::from_static("stripe-version");
const STRIPE_ACCOUNT: HeaderName = HeaderName::from_static("stripe-account");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What Stripe allows: <https://docs.stripe.com/api/idempotent_requests>.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// Stripe, over one transport. Clones share it.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    transport: Box<dyn Transport>,
    base_url: String,
    authorization: HeaderValue,
    version: HeaderValue,
    pace: Option<Pace>,
    config: Config,
}

/// What one call may differ in.
#[derive(Default)]
struct Extras<'a> {
    idempotency_key: Option<&'a str>,
    account: Option<&'a str>,
    timeout: Option<Duration>,
}

impl Client {
    /// Makes a client over a pool of connections. None is opened yet.
    ///
    /// # Errors
    /// As [`Self::over`].
    pub fn new(config: Config) -> Result<Self, Error> {
        let pool = Pool::new(&config)?;
        Self::over(config, pool)
    }

    /// Makes a client over a transport.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the address or version can't be used, or if a live key would travel unencrypted.
    pub fn over(config: Config, transport: impl Transport + 'static) -> Result<Self, Error> {
        let base_url = base_url(&config)?;
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", config.secret_key.expose()))
            .map_err(|_| Error::Invalid("the secret key must be visible ASCII"))?;
        authorization.set_sensitive(true);
        let version = HeaderValue::try_from(&config.api_version).map_err(|_| Error::Invalid("the API version"))?;
        Ok(Self {
            inner: Arc::new(Inner {
                transport: Box::new(transport),
                base_url,
                authorization,
                version,
                pace: config.calls_per_second.map(Pace::new),
                config,
            }),
        })
    }

    /// Reads something: no idempotency key, since a GET changes nothing.
    pub(crate) async fn get(&self, request: RequestBuilder) -> Result<Accepted, Error> {
        self.ask(request).await?.accepted(self.secret())
    }

    /// As [`Self::get`], for a caller that looks at the refusal itself.
    pub(crate) async fn ask(&self, request: RequestBuilder) -> Result<Answer, Error> {
        self.call(request, Extras::default()).await
    }

    /// Reads something that may be absent, or deleted: of some objects Stripe then keeps a stub.
    pub(crate) async fn find<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<Option<T>, Error> {
        #[derive(Deserialize)]
        struct Stub {
            #[serde(default)]
            deleted: bool,
        }
        match self.get(request).await {
            Ok(accepted) if accepted.read::<Stub>()?.deleted => Ok(None),
            Ok(accepted) => accepted.read().map(Some),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates something, at most once per idempotency key.
    pub(crate) async fn create(&self, request: &impl StripeRequest, idempotency_key: &str) -> Result<Accepted, Error> {
        self.change(request.build(), idempotency_key).await
    }

    /// Changes something, at most once per idempotency key; Stripe ignores the key of a DELETE.
    pub(crate) async fn change(&self, request: RequestBuilder, idempotency_key: &str) -> Result<Accepted, Error> {
        self.write(request, idempotency_key).await?.accepted(self.secret())
    }

    /// As [`Self::create`], for a caller that looks at the refusal itself.
    pub(crate) async fn post(&self, request: &impl StripeRequest, idempotency_key: &str) -> Result<Answer, Error> {
        self.write(request.build(), idempotency_key).await
    }

    async fn write(&self, request: RequestBuilder, idempotency_key: &str) -> Result<Answer, Error> {
        let extras = Extras {
            idempotency_key: Some(idempotency_key),
            ..Extras::default()
        };
        self.call(request, extras).await
    }

    pub(crate) fn secret(&self) -> &str {
        self.inner.config.secret_key.expose()
    }

    /// One call: send it, and read its answer before the deadline.
    async fn call(&self, request: RequestBuilder, extras: Extras<'_>) -> Result<Answer, Error> {
        if let Some(pace) = &self.inner.pace {
            pace.wait().await;
        }
        let deadline = Instant::now() + extras.timeout.unwrap_or(self.inner.config.call_timeout);
        let request = self.request(request, &extras)?;
        let response = match timeout_at(deadline, self.inner.transport.send(request)).await {
            Ok(response) => response?,
            Err(_) => return Err(timed_out()),
        };
        self.answer(response, deadline).await
    }

    fn request(&self, request: RequestBuilder, extras: &Extras<'_>) -> Result<Request<Full<Bytes>>, Error> {
        let RequestBuilder {
            query,
            body,
            path,
            method,
        } = request;
        let query = query
            .filter(|query| !query.is_empty())
            .map(|query| format!("?{query}"))
            .unwrap_or_default();
        let mut request = Request::builder()
            .method(match method {
                StripeMethod::Get => Method::GET,
                StripeMethod::Post => Method::POST,
                StripeMethod::Delete => Method::DELETE,
            })
            .uri(format!("{}{}{path}{query}", self.inner.base_url, version_prefix(&path)))
            .header(AUTHORIZATION, self.inner.authorization.clone())
            .header(STRIPE_VERSION, self.inner.version.clone())
            .header(USER_AGENT, concat!("farebox/", env!("CARGO_PKG_VERSION")));
        if let Some(key) = extras.idempotency_key {
            request = request.header(IDEMPOTENCY_KEY, idempotency_key(key)?);
        }
        if let Some(account) = extras.account {
            request = request.header(STRIPE_ACCOUNT, account);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        let body = Full::from(body.unwrap_or_default());
        request
            .body(body)
            .map_err(|_| Error::Invalid("an argument fits in no address or header"))
    }

    /// Reads the answer to its end, or as much of it as decides.
    async fn answer(&self, response: Response<Body>, deadline: Instant) -> Result<Answer, Error> {
        let (head, body) = response.into_parts();
        let status = head.status;
        let headers = Headers::read(&head.headers, self.secret());
        let body = Limited::new(body, self.inner.config.answer_bytes_max).collect();
        let body = match timeout_at(deadline, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            // These statuses decide alone; above all a received 5xx is stored, however its body was cut.
            _ if status.is_server_error() || is_busy(status) => Bytes::new(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                if status.is_success() {
                    let what = format!("longer than {} bytes", self.inner.config.answer_bytes_max);
                    return Err(Error::Malformed {
                        what,
                        request_id: headers.request_id,
                    });
                }
                Bytes::new()
            }
            Ok(Err(error)) => {
                return Err(Error::Unreachable {
                    sent: true,
                    cause: error.to_string(),
                });
            }
            Err(_) => return Err(timed_out()),
        };
        Ok(Answer { status, headers, body })
    }
}

/// Lets every request of async-stripe be sent with `.send(&client)`, over our pool, once: a strategy that retries is not
/// followed, since retrying is the ledger's decision.
impl StripeClient for Client {
    type Err = Error;

    async fn execute(&self, request: CustomizedStripeRequest) -> Result<Bytes, Error> {
        let (request, overrides) = request.into_pieces();
        let key = overrides.request_strategy.and_then(|strategy| strategy.get_key());
        let extras = Extras {
            idempotency_key: key.as_ref().map(|key| key.as_str()),
            account: overrides.account_id.as_ref().map(|account| account.as_str()),
            timeout: overrides.timeout,
        };
        Ok(self.call(request, extras).await?.accepted(self.secret())?.body)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("base_url", &self.inner.base_url)
            .finish_non_exhaustive()
    }
}

/// async-stripe leaves out the `/v1` of a path; a path of the second API says where it belongs.
fn version_prefix(path: &str) -> &'static str {
    if path.starts_with("/v2/") { "" } else { "/v1" }
}

/// The address without a slash at its end.
fn base_url(config: &Config) -> Result<String, Error> {
    const NO_ADDRESS: Error = Error::Invalid("the base URL must be http(s)://host[:port]");
    let url = config.base_url.trim_end_matches('/');
    let uri: Uri = url.parse().map_err(|_| NO_ADDRESS)?;
    if uri.host().is_none() || uri.query().is_some() || !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(NO_ADDRESS);
    }
    if uri.scheme_str() == Some("http") && config.secret_key.is_live() {
        return Err(Error::Invalid("a live key never travels over plain http"));
    }
    Ok(url.to_owned())
}

fn idempotency_key(key: &str) -> Result<HeaderValue, Error> {
    if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX || !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Error::Invalid(
            "an idempotency key is 1 to 255 visible ASCII characters",
        ));
    }
    HeaderValue::from_str(key).map_err(|_| Error::Invalid("an idempotency key is 1 to 255 visible ASCII characters"))
}

/// An identifier that may stand in a path without changing where it leads.
pub(crate) fn path_id(id: &str) -> Result<&str, Error> {
    if !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
        Ok(id)
    } else {
        Err(Error::Invalid("an id of stripe's holds only letters, digits, _ and -"))
    }
}

impl From<Unreachable> for Error {
    fn from(Unreachable { sent, cause }: Unreachable) -> Self {
        Self::Unreachable { sent, cause }
    }
}

/// The deadline may pass while connecting, but we don't know: the outcome counts as unknown.
fn timed_out() -> Error {
    Error::Unreachable {
        sent: true,
        cause: "timed out".to_owned(),
    }
}
