//! Calls of customers' webhooks.
//!
//! The address is a stranger's choice. So the host is resolved here, every address that it resolves to is checked, and the
//! connection goes to one of exactly those: a second resolution, which could say something else, never happens. TLS still
//! asks for the host's name. Nothing is followed, little is read, and a few seconds are all that one call gets.

mod address;
pub(crate) mod payload;
mod sign;

use std::{fmt, future::Future, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use farebox_core::{account::WebhookSecret, time::Timestamp};
use http::{Request, StatusCode, Uri, header, uri::Scheme};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::TlsConnector;

pub use address::AddressPolicy;

use crate::Outcome;

/// What the whole of a call may take: resolution, connection, TLS, question and answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// What one of several addresses may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// More addresses of a host are not tried.
const ADDRESSES_MAX: usize = 4;
/// More of an answer is not read. Only its status counts; the rest is read so that the other side can finish.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Longer addresses are not called.
const URL_BYTES_MAX: usize = 2_048;

/// What a host resolves to.
pub type Resolved = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// What webhooks are called with.
#[derive(Clone)]
pub struct Http {
    policy: AddressPolicy,
    resolve: Arc<dyn Fn(String, u16) -> Resolved + Send + Sync>,
    tls: TlsConnector,
}

/// One event for one webhook.
pub(crate) struct Call<'a> {
    /// The customer's address.
    pub(crate) url: &'a str,
    /// The alert.
    pub(crate) id: &'a str,
    /// What signs it.
    pub(crate) secrets: &'a [WebhookSecret],
    /// What it says.
    pub(crate) body: String,
    /// The time of this attempt.
    pub(crate) now: Timestamp,
}

/// Where a call goes, read from the customer's address.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    is_plain: bool,
    host: String,
    port: u16,
    /// As the `Host` header names it.
    authority: String,
    path: String,
    name: ServerName<'static>,
}

impl Http {
    /// Calls what the policy lets it, over TLS that trusts Mozilla's authorities, resolved by the system.
    ///
    /// # Panics
    /// Never: ring supports the protocol versions that are asked for.
    #[must_use]
    pub fn new(policy: AddressPolicy) -> Self {
        let roots = RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        Self {
            policy,
            resolve: Arc::new(|host, port| {
                Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
            }),
            tls: connector(roots),
        }
    }

    /// Trusts other authorities, for tests with a certificate of their own.
    #[must_use]
    pub fn trusting(mut self, roots: RootCertStore) -> Self {
        self.tls = connector(roots);
        self
    }

    /// Resolves otherwise, for tests with names of their own. What comes back is checked all the same.
    #[must_use]
    pub fn resolving(mut self, resolve: impl Fn(String, u16) -> Resolved + Send + Sync + 'static) -> Self {
        self.resolve = Arc::new(resolve);
        self
    }

    /// One attempt.
    pub(crate) async fn deliver(&self, call: Call<'_>) -> Outcome {
        let deadline = Instant::now() + CALL_TIMEOUT;
        let target = match Target::parse(call.url, self.policy) {
            Ok(target) => target,
            Err(why) => return Outcome::GaveUp(format!("the address {why}")),
        };
        let id = sign::id(call.id);
        let Some(signatures) = sign::signatures(call.secrets, &id, call.now.s(), &call.body) else {
            return Outcome::GaveUp("the customer has no secret to sign with".to_owned());
        };
        let request = Request::post(&target.path)
            .header(header::HOST, &target.authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("farebox/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", id)
            .header("webhook-timestamp", call.now.s())
            .header("webhook-signature", signatures)
            .body(Full::from(call.body));
        let Ok(request) = request else {
            return Outcome::GaveUp("the address fits in no request".to_owned());
        };
        let outcome = timeout_at(deadline, async {
            let addresses = match self.addresses(&target).await {
                Ok(addresses) => addresses,
                Err(outcome) => return outcome,
            };
            match self.exchange(&target, &addresses, request, deadline).await {
                Ok(status) => judge(status),
                Err(cause) => Outcome::Retry(cause),
            }
        });
        let timed_out = || Outcome::Retry(format!("no answer within {} s", CALL_TIMEOUT.as_secs()));
        outcome.await.unwrap_or_else(|_| timed_out())
    }

    /// What the host resolves to, if all of it may be called. One address that may not is enough to refuse: whoever mixes
    /// them is trying something.
    async fn addresses(&self, target: &Target) -> Result<Vec<SocketAddr>, Outcome> {
        let resolved = (self.resolve)(target.host.clone(), target.port).await;
        let mut addresses = resolved.map_err(|_| Outcome::Retry("the host does not resolve".to_owned()))?;
        if addresses.is_empty() {
            return Err(Outcome::Retry("the host has no address".to_owned()));
        }
        for address in &addresses {
            if let Err(kind) = self.policy.check(address.ip()) {
                return Err(Outcome::GaveUp(format!(
                    "the host is at an address that is not called: {kind}"
                )));
            }
            if target.is_plain && !address.ip().to_canonical().is_loopback() {
                return Err(Outcome::GaveUp("the address is not https".to_owned()));
            }
        }
        // A function without IPv6 fails there at once; one whose network drops it would wait.
        addresses.sort_by_key(SocketAddr::is_ipv6);
        addresses.truncate(ADDRESSES_MAX);
        Ok(addresses)
    }

    async fn exchange(
        &self,
        target: &Target,
        addresses: &[SocketAddr],
        request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<StatusCode, String> {
        let stream = connect(addresses).await?;
        if target.is_plain {
            return ask(stream, request, deadline).await;
        }
        let stream = self.tls.connect(target.name.clone(), stream).await;
        ask(stream.map_err(|e| format!("TLS failed: {e}"))?, request, deadline).await
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl Target {
    /// Reads a customer's address.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that never quotes it.
    fn parse(url: &str, policy: AddressPolicy) -> Result<Self, &'static str> {
        if url.len() > URL_BYTES_MAX {
            return Err("is too long");
        }
        let uri: Uri = url.parse().map_err(|_| "is not a URL")?;
        let is_plain = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => false,
            Some(scheme) if *scheme == Scheme::HTTP && policy == AddressPolicy::LoopbackToo => true,
            _ => return Err("is not https"),
        };
        let authority = uri.authority().ok_or("names no host")?;
        if authority.as_str().contains('@') {
            return Err("carries a user name");
        }
        let host = authority.host();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let name = ServerName::try_from(host.to_owned()).map_err(|_| "names no host")?;
        let port = match authority.port_u16() {
            Some(0) => return Err("names port 0"),
            Some(port) => port,
            // `https://host:` and a port that is no number are not the default port.
            None if authority.as_str().len() > authority.host().len() => return Err("names no port"),
            None if is_plain => 80,
            None => 443,
        };
        Ok(Self {
            is_plain,
            host: host.to_owned(),
            port,
            authority: authority.as_str().to_owned(),
            path: match uri.path_and_query().map_or("/", |path| path.as_str()) {
                // A query right behind the host fits in no request.
                path if path.starts_with('/') => path.to_owned(),
                query => format!("/{query}"),
            },
            name,
        })
    }
}

fn connector(roots: RootCertStore) -> TlsConnector {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap_or_else(|e| panic!("ring has TLS 1.2 and 1.3: {e}"))
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, String> {
    let mut cause = String::new();
    for &address in addresses {
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => cause = format!("no connection: {}", error.kind()),
            Err(_) => cause = "no connection: timed out".to_owned(),
        }
    }
    Err(cause)
}

/// Asks once over a connection that is closed afterwards.
async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
    deadline: Instant,
) -> Result<StatusCode, String> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(ANSWER_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| format!("no HTTP: {e}"))?;
    let mut driver = JoinSet::new(); // ends with this call
    driver.spawn(connection);
    let answer = sender
        .send_request(request)
        .await
        .map_err(|e| format!("no answer: {e}"))?;
    let status = answer.status();
    // The status has decided; how the rest goes changes nothing, not even if it never ends.
    let _ = timeout_at(deadline, drain(answer.into_body())).await;
    Ok(status)
}

async fn drain(mut body: Incoming) {
    let mut left = ANSWER_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(rest) if rest > 0 => left = rest,
            _ => return,
        }
    }
}

/// As the standard has it: 2xx is success, 410 asks for no more, anything else is a failure that may pass.
fn judge(status: StatusCode) -> Outcome {
    match status.as_u16() {
        200..=299 => Outcome::Sent,
        410 => Outcome::GaveUp("the webhook answered 410: it wants no more".to_owned()),
        300..=399 => Outcome::Retry(format!(
            "the webhook answered {}: redirects are not followed",
            status.as_u16()
        )),
        _ => Outcome::Retry(format!("the webhook answered {}", status.as_u16())),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        AddressPolicy::{LoopbackToo, PublicOnly},
        Target,
    };

    #[test]
    fn addresses_are_read_as_they_will_be_called() {
        let target = Target::parse("https://hooks.example/a/b?c=d#e", PublicOnly).unwrap();
        assert_eq!(
            (target.host.as_str(), target.port, target.is_plain),
            ("hooks.example", 443, false)
        );
        assert_eq!(
            (target.authority.as_str(), target.path.as_str()),
            ("hooks.example", "/a/b?c=d")
        );

        let target = Target::parse("https://[2606:4700::1111]:8443", PublicOnly).unwrap();
        assert_eq!((target.host.as_str(), target.port), ("2606:4700::1111", 8443));
        assert_eq!(
            (target.authority.as_str(), target.path.as_str()),
            ("[2606:4700::1111]:8443", "/")
        );

        let target = Target::parse("https://hooks.example?token=x", PublicOnly).unwrap();
        assert_eq!(
            (target.authority.as_str(), target.path.as_str()),
            ("hooks.example", "/?token=x")
        );
        assert!(http::Request::post(&target.path).body(()).is_ok());

        assert_eq!(Target::parse("http://localhost/x", LoopbackToo).unwrap().port, 80);
    }

    #[test]
    fn what_is_no_https_address_is_refused_without_being_quoted() {
        let long = format!("https://hooks.example/{}", "x".repeat(2_100));
        for (url, why) in [
            ("http://hooks.example/", "is not https"),
            ("ftp://hooks.example/", "is not https"),
            ("file:///etc/passwd", "is not"),
            ("hooks.example", "is not https"),
            ("/hooks", "is not https"),
            ("", "is not a URL"),
            ("https://", "is not a URL"),
            ("https:///x", "is not a URL"),
            ("https://a b/", "is not a URL"),
            ("https://hooks.example\r\nx: y/", "is not a URL"),
            ("https://user:secret@hooks.example/", "carries a user name"),
            ("https://hooks.example@10.0.0.1/", "carries a user name"),
            ("https://hooks.example:0/", "names port 0"),
            ("https://hooks.example:/", "names no port"),
            ("https://hooks.example:70000/", "names no port"),
            ("https://b\u{fc}cher.example/", "is not a URL"),
            ("https://-/", "names no host"),
            ("https://[fe80::1%25eth0]/", "names no host"),
            (long.as_str(), "is too long"),
        ] {
            let refused = Target::parse(url, PublicOnly).err().unwrap_or("let through");
            assert!(refused.starts_with(why), "{url}: {refused}, expected {why}");
        }
    }
}
