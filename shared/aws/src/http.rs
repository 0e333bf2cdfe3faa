//! The one HTTP client under every AWS client: HTTP/1.1 over rustls with ring, trusting Mozilla's roots.
//!
//! The SDK's own client would do. Ours costs less where it counts: the roots are compiled in as they are needed, where the
//! SDK's reads and parses the machine's whole bundle at every cold start, and there is no second HTTP version, proxy matcher
//! or pool manager to carry and to start.

use std::{error::Error as StdError, time::Duration};

use aws_smithy_runtime_api::client::{
    http::{HttpConnector as Connector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn},
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
};
use aws_smithy_types::{body::SdkBody, retry::ErrorKind};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connect, HttpConnector},
    },
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

/// How long opening a TCP connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// The variable that every AWS SDK reads for certificates to trust in place of the built-in ones
/// (<https://docs.aws.amazon.com/sdkref/latest/guide/feature-gen-config.html>): a proxy that looks into TLS, or a test.
const CA_BUNDLE: &str = "AWS_CA_BUNDLE";

/// One HTTP client for clients with these endpoints: with TLS, unless every one of them is plain `http://`.
pub fn http_client<'a>(endpoints: impl IntoIterator<Item = &'a Option<String>>) -> SharedHttpClient {
    let is_plain = |url: &Option<String>| url.as_deref().is_some_and(|url| url.starts_with("http://"));
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_MAX));
    if endpoints.into_iter().all(is_plain) {
        shared(tcp)
    } else {
        tcp.enforce_http(false);
        shared(with_tls(tcp))
    }
}

fn with_tls(tcp: HttpConnector) -> HttpsConnector<HttpConnector> {
    let provider = rustls::crypto::ring::default_provider();
    #[expect(clippy::expect_used, reason = "ring's own suites are of TLS 1.2 and 1.3")]
    let config = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.3");
    HttpsConnectorBuilder::new()
        .with_tls_config(config.with_root_certificates(roots()).with_no_client_auth())
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp)
}

fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    match std::env::var_os(CA_BUNDLE) {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => match CertificateDer::pem_file_iter(&path) {
            Ok(certificates) => {
                roots.add_parsable_certificates(certificates.filter_map(Result::ok));
            }
            Err(error) => tracing::error!(%error, "{CA_BUNDLE} can't be read: nothing is trusted"),
        },
    }
    roots
}

fn shared<C>(connector: C) -> SharedHttpClient
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let pool = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .build(connector);
    let connector = SharedHttpConnector::new(Pool(pool));
    http_client_fn(move |_, _| connector.clone())
}

struct Pool<C>(Client<C, SdkBody>);

impl<C> std::fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pool")
    }
}

impl<C> Connector for Pool<C>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into()))),
        };
        // The pool asks a second time on its own only if the first connection was found closed before a byte was written.
        let answer = self.0.request(request);
        HttpConnectorFuture::new(async move {
            match answer.await {
                Ok(answer) => HttpResponse::try_from(answer.map(SdkBody::from_body_1_x))
                    .map_err(|error| ConnectorError::other(error.into(), None)),
                Err(error) => Err(classify(error)),
            }
        })
    }
}

/// What the SDK is told of a failed call: whether trying again may help.
fn classify(error: hyper_util::client::legacy::Error) -> ConnectorError {
    let hyper = source::<hyper::Error>(&error);
    if hyper.is_some_and(hyper::Error::is_timeout) {
        ConnectorError::timeout(error.into())
    } else if hyper.is_some_and(hyper::Error::is_user) {
        ConnectorError::user(error.into())
    } else if hyper.is_some_and(hyper::Error::is_incomplete_message) {
        ConnectorError::other(error.into(), Some(ErrorKind::TransientError))
    } else if error.is_connect()
        || hyper.is_some_and(|hyper| hyper.is_closed() || hyper.is_canceled())
        || source::<std::io::Error>(&error).is_some()
    {
        ConnectorError::io(error.into())
    } else {
        ConnectorError::other(error.into(), None)
    }
}

fn source<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    std::iter::successors(Some(error), |&error| error.source()).find_map(|error| error.downcast_ref())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::SeqCst},
        },
        thread,
    };

    use aws_sdk_dynamodb::{config::Credentials, types::AttributeValue};

    use crate::connect::{Clients, Settings};

    /// A store on a thread of its own that answers every call with an item; says how many connections there were.
    fn store() -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, SeqCst);
                thread::spawn(move || {
                    let (mut stream, mut seen, mut buffer) = (stream, Vec::new(), [0; 4_096]);
                    while let Ok(n @ 1..) = stream.read(&mut buffer) {
                        seen.extend_from_slice(&buffer[..n]);
                        if seen.ends_with(b"}") {
                            seen.clear();
                            let body = r#"{"Item":{"pk":{"S":"a"}}}"#;
                            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                            stream.write_all(answer.as_bytes()).unwrap();
                        }
                    }
                });
            }
        });
        (format!("http://{address}"), connections)
    }

    #[tokio::test]
    async fn calls_in_a_row_share_one_connection() {
        let (endpoint, connections) = store();
        let clients = Clients::new(&Settings {
            region: "eu-central-1".to_owned(),
            credentials: Credentials::new("AKIDEXAMPLE", "secret", None, None, "test"),
            dynamodb_endpoint: Some(endpoint.clone()),
            sqs_endpoint: Some(endpoint),
        });
        for _ in 0..50 {
            let read = clients.dynamodb.get_item().table_name("t");
            let answer = read.key("pk", AttributeValue::S("a".to_owned())).send().await.unwrap();
            assert!(answer.item.is_some());
        }
        assert_eq!(connections.load(SeqCst), 1);
    }
}
