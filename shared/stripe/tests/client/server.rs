//! A tiny HTTP server that records every request and answers from a script.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use farebox_stripe::{Client, Config, SecretKey};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// The key of every test; no text may ever show it.
pub(crate) const KEY: &str = "sk_test_51Secret";

/// What the server does with one request.
pub(crate) enum Script {
    /// Answers.
    Answer(u16, Vec<(&'static str, &'static str)>, String),
    /// Sends the head and the beginning of the body, then closes the connection.
    Cut(u16),
    /// Sends the head and the beginning of the body, then nothing more.
    Stall(u16),
    /// Never answers.
    Hold,
}

/// What the client sent.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: http::HeaderMap,
    query: String,
    body: String,
}

impl Recorded {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The form in the body, decoded and sorted: async-stripe writes maps in random order.
    pub(crate) fn form(&self) -> Vec<(String, String)> {
        pairs(&self.body)
    }

    pub(crate) fn query(&self) -> Vec<(String, String)> {
        pairs(&self.query)
    }
}

pub(crate) struct Server {
    pub(crate) url: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    script: Mutex<VecDeque<Script>>,
    requests: Mutex<Vec<Recorded>>,
    connections: AtomicUsize,
}

impl Server {
    pub(crate) async fn start(script: impl IntoIterator<Item = Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            script: Mutex::new(script.into_iter().collect()),
            ..State::default()
        });
        tokio::spawn(serve(listener, Arc::clone(&state)));
        Self { url, state }
    }

    /// A client of this server, with time-outs fit for a test.
    pub(crate) fn client(&self) -> Client {
        Client::new(config(&self.url)).unwrap()
    }

    pub(crate) fn requests(&self) -> Vec<Recorded> {
        self.state.requests.lock().unwrap().clone()
    }

    /// The only request.
    pub(crate) fn request(&self) -> Recorded {
        let requests = self.requests();
        assert_eq!(requests.len(), 1);
        requests[0].clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }
}

pub(crate) fn config(url: &str) -> Config {
    Config {
        base_url: url.to_owned(),
        call_timeout: Duration::from_secs(5),
        answer_bytes_max: 64 * 1024,
        ..Config::new(SecretKey::new(KEY).unwrap())
    }
}

/// 200 with this body.
pub(crate) fn ok(body: &str) -> Script {
    Script::Answer(200, vec![("request-id", "req_1")], body.to_owned())
}

/// An error in Stripe's envelope.
pub(crate) fn refusal(status: u16, error: &str) -> Script {
    Script::Answer(status, vec![("request-id", "req_1")], format!(r#"{{"error":{error}}}"#))
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        state.connections.fetch_add(1, Ordering::SeqCst);
        let state = Arc::clone(&state);
        let service = service_fn(move |request| respond(request, Arc::clone(&state)));
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

type Body = BoxBody<Bytes, std::io::Error>;

async fn respond(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    state.requests.lock().unwrap().push(Recorded {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        headers: head.headers,
        query: head.uri.query().unwrap_or_default().to_owned(),
        body: String::from_utf8(body.to_vec()).unwrap(),
    });
    let script = state
        .script
        .lock()
        .unwrap()
        .pop_front()
        .expect("more requests than the script knows");
    Ok(match script {
        Script::Answer(status, headers, body) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response
                .body(Full::from(body).map_err(|never| match never {}).boxed())
                .unwrap()
        }
        Script::Cut(status) => partial(status, false),
        Script::Stall(status) => partial(status, true),
        Script::Hold => std::future::pending().await,
    })
}

/// A body that begins, and then breaks or stalls.
fn partial(status: u16, stall: bool) -> Response<Body> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        sender
            .send(Ok(Frame::data(Bytes::from_static(b"{\"id\":"))))
            .await
            .unwrap();
        // Let the beginning leave before the end comes.
        tokio::time::sleep(Duration::from_millis(50)).await;
        if stall {
            std::future::pending::<()>().await;
        }
        drop(sender.send(Err(std::io::Error::other("cut"))).await);
    });
    let body = Receiver(receiver).boxed();
    Response::builder()
        .status(status)
        .header("request-id", "req_1")
        .body(body)
        .unwrap()
}

/// The channel as a body.
struct Receiver(tokio::sync::mpsc::Receiver<Result<Frame<Bytes>, std::io::Error>>);

impl hyper::body::Body for Receiver {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.0.poll_recv(cx)
    }
}

fn pairs(encoded: &str) -> Vec<(String, String)> {
    let mut pairs: Vec<_> = encoded
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').expect("a pair");
            (decode(name), decode(value))
        })
        .collect();
    pairs.sort();
    pairs
}

fn decode(text: &str) -> String {
    let text = text.replace('+', " ");
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}
