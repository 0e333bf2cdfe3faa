//! How a request travels to Stripe: over one pool of connections, or whatever else carries HTTP.

use std::error::Error as _;
use std::io;
use std::pin::Pin;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as PoolError};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::{Config, Error};

/// The body of an answer, as it comes in; it may break off.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// An answer that is still to come.
pub type Sent<'a> = Pin<Box<dyn Future<Output = Result<Response<Body>, Unreachable>> + Send + 'a>>;

/// Carries one request to Stripe, once, and brings its answer. Deadlines are kept by who asks.
pub trait Transport: Send + Sync {
    /// Sends a request.
    fn send(&self, request: Request<Full<Bytes>>) -> Sent<'_>;
}

/// No answer came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// Whether Stripe may have received the request all the same.
    pub sent: bool,
    /// What the network said.
    pub cause: String,
}

/// HTTP/1.1 over TLS, trusting Mozilla's roots.
pub(crate) struct Pool(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Pool {
    /// Opens no connection yet.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(config.connect_timeout));
        tcp.enforce_http(false);
        let tls = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
            .map_err(|_| Error::Invalid("the TLS provider has no usable cipher"))?
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Self(
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(config.idle_timeout)
                .pool_max_idle_per_host(config.idle_connections_max)
                .build(tls),
        ))
    }
}

impl Transport for Pool {
    fn send(&self, request: Request<Full<Bytes>>) -> Sent<'_> {
        // The pool asks a second time on its own only if the first connection was found closed before a byte was written.
        let answer = self.0.request(request);
        Box::pin(async move {
            match answer.await {
                Ok(answer) => Ok(answer.map(|body| body.map_err(io::Error::other).boxed_unsync())),
                Err(error) => Err(unreachable(&error)),
            }
        })
    }
}

fn unreachable(error: &PoolError) -> Unreachable {
    let mut cause = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        cause = format!("{cause}: {inner}");
        source = inner.source();
    }
    // Only a connection that never came about proves that nothing was sent.
    Unreachable {
        sent: !error.is_connect(),
        cause,
    }
}
