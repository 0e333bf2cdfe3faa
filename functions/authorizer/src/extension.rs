//! An internal extension (<https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html>): Lambda freezes an
//! environment only when the extension, too, has asked for the next event.
//!
//! Two requests over one connection, and nothing is read from an event but that there is one. The crate `lambda-extension` would
//! bring a web server for logs and telemetry that this never starts, and parse what this does not look at, once per request.

use std::fmt;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

const NAME: HeaderName = HeaderName::from_static("lambda-extension-name");
const IDENTIFIER: HeaderName = HeaderName::from_static("lambda-extension-identifier");

/// A registered extension.
pub(crate) struct Extension {
    connection: SendRequest<Full<Bytes>>,
    host: HeaderValue,
    next: Uri,
    identifier: HeaderValue,
}

/// The Extensions API did not do what was asked.
#[derive(Debug)]
pub(crate) struct ExtensionError(String);

impl fmt::Display for ExtensionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the Extensions API: {}", self.0)
    }
}

impl std::error::Error for ExtensionError {}

fn failed(error: impl fmt::Display) -> ExtensionError {
    ExtensionError(error.to_string())
}

impl Extension {
    /// Registers for invocations. `api` is what stands in `AWS_LAMBDA_RUNTIME_API`: host and port on Lambda, a URL with a path
    /// below `cargo lambda watch`.
    pub(crate) async fn register(api: &str, name: &'static str) -> Result<Self, ExtensionError> {
        let (address, base) = api.strip_prefix("http://").map_or((api, ""), split_path);
        let uri = |path: &str| Uri::try_from(format!("{base}/2020-01-01/extension/{path}")).map_err(failed);
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let (connection, driver) = handshake(TokioIo::new(stream)).await.map_err(failed)?;
        tokio::spawn(driver);
        let mut extension = Self {
            connection,
            host: HeaderValue::try_from(address).map_err(failed)?,
            next: uri("event/next")?,
            identifier: HeaderValue::from_static(""),
        };
        let body = Bytes::from_static(br#"{"events":["INVOKE"]}"#);
        let answer = extension
            .call(
                Method::POST,
                uri("register")?,
                body,
                NAME,
                HeaderValue::from_static(name),
            )
            .await?;
        let identifier = answer.headers().get(IDENTIFIER).cloned();
        extension.identifier = identifier.ok_or_else(|| failed("no identifier"))?;
        answer.collect().await.map_err(failed)?;
        Ok(extension)
    }

    /// Until the next invocation begins.
    pub(crate) async fn next(&mut self) -> Result<(), ExtensionError> {
        let (uri, identifier) = (self.next.clone(), self.identifier.clone());
        let answer = self
            .call(Method::GET, uri, Bytes::new(), IDENTIFIER, identifier)
            .await?;
        answer.collect().await.map_err(failed)?;
        Ok(())
    }

    async fn call(
        &mut self,
        method: Method,
        uri: Uri,
        body: Bytes,
        name: HeaderName,
        value: HeaderValue,
    ) -> Result<Response<Incoming>, ExtensionError> {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::HOST, &self.host)
            .header(name, value)
            .body(Full::new(body))
            .map_err(failed)?;
        self.connection.ready().await.map_err(failed)?;
        let answer = self.connection.send_request(request).await.map_err(failed)?;
        match answer.status() {
            StatusCode::OK => Ok(answer),
            status => Err(failed(status)),
        }
    }
}

/// Host and port, and the path without a slash at its end.
fn split_path(url: &str) -> (&str, &str) {
    let (address, path) = url.split_at(url.find('/').unwrap_or(url.len()));
    (address, path.trim_end_matches('/'))
}
