//! A stand-in on a socket, a clock that only the test moves, and a client that speaks plain HTTP.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use bytes::Bytes;
use farebox_stripe_standin::{Fault, FaultKind, Options, StandIn};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

/// 2027-01-31T10:17:23Z: the last day of a month, in the middle of a minute.
pub(crate) const START: i64 = 1_801_390_643;
pub(crate) const HOUR: i64 = 3600;
pub(crate) const DAY: i64 = 86_400;
/// 2027-02-28T10:17:23Z
pub(crate) const FEBRUARY_END: i64 = START + 28 * DAY;
/// 2027-03-31T10:17:23Z
pub(crate) const MARCH_END: i64 = FEBRUARY_END + 31 * DAY;

/// A running stand-in.
pub(crate) struct Api {
    pub(crate) standin: StandIn,
    clock: Arc<AtomicI64>,
    address: std::net::SocketAddr,
    _stop: oneshot::Sender<()>,
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("a JSON body")
    }

    /// The body of a 200.
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.json()
    }

    /// The `error` object of an answer with `status`.
    pub(crate) fn error(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.json()["error"].clone()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Api {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn journaled(journal: PathBuf) -> Self {
        Self::with(|options| options.journal = Some(journal)).await
    }

    pub(crate) async fn with(adjust: impl FnOnce(&mut Options)) -> Self {
        let clock = Arc::new(AtomicI64::new(START));
        let reading = Arc::clone(&clock);
        let mut options = Options::new(Arc::new(move || reading.load(Ordering::SeqCst)));
        adjust(&mut options);
        let standin = StandIn::open(options).expect("opens");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("has an address");
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(standin.clone().serve(listener, stopped));
        Self {
            standin,
            clock,
            address,
            _stop: stop,
        }
    }

    pub(crate) fn set_clock(&self, at: i64) {
        self.clock.store(at, Ordering::SeqCst);
    }

    pub(crate) fn now(&self) -> i64 {
        self.clock.load(Ordering::SeqCst)
    }

    pub(crate) fn misbehave(&self, path: &str, kind: FaultKind) {
        self.standin.misbehave(Fault {
            method: None,
            path_prefix: path.to_owned(),
            times: 1,
            kind,
        });
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "", &[]).await
    }

    pub(crate) async fn post(&self, path: &str, form: &str) -> Answer {
        self.call("POST", path, form, &[]).await
    }

    pub(crate) async fn post_with_key(&self, path: &str, form: &str, key: &str) -> Answer {
        self.call("POST", path, form, &[("idempotency-key", key)]).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, "", &[]).await
    }

    /// With the test key, unless `headers` carry another one.
    pub(crate) async fn call(&self, method: &str, path: &str, form: &str, headers: &[(&str, &str)]) -> Answer {
        self.try_call(method, path, form, headers).await.expect("an answer")
    }

    pub(crate) async fn try_call(
        &self,
        method: &str,
        path: &str,
        form: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answer, Box<dyn std::error::Error>> {
        let stream = TcpStream::connect(self.address).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            request = request.header("authorization", "Bearer sk_test_1234567890");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(form.replace(['\n', ' '], ""))))?;
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: String::from_utf8(body.to_vec())?,
        })
    }

    /// A `sum` meter for `api_calls`.
    pub(crate) async fn meter(&self) -> String {
        let form = "display_name=Calls&event_name=api_calls&default_aggregation[formula]=sum";
        id(&self.post("/v1/billing/meters", form).await.ok())
    }

    pub(crate) async fn customer(&self) -> String {
        id(&self.post("/v1/customers", "name=Acme&email=a@example.com").await.ok())
    }

    /// A monthly price in USD; `rest` says how much.
    pub(crate) async fn price(&self, rest: &str) -> String {
        let form = format!("currency=usd&product_data[name]=API&recurring[interval]=month&{rest}");
        id(&self.post("/v1/prices", &form).await.ok())
    }

    pub(crate) async fn metered_price(&self, meter: &str, rest: &str) -> String {
        self.price(&format!(
            "recurring[usage_type]=metered&recurring[meter]={meter}&{rest}"
        ))
        .await
    }

    pub(crate) async fn subscribe(&self, customer: &str, prices: &[&str]) -> Value {
        let items: String = prices
            .iter()
            .enumerate()
            .map(|(index, price)| format!("&items[{index}][price]={price}"))
            .collect();
        self.post("/v1/subscriptions", &format!("customer={customer}{items}"))
            .await
            .ok()
    }

    /// Reports `value` units; `rest` may add an identifier and a timestamp.
    pub(crate) async fn report(&self, customer: &str, value: i64, rest: &str) -> Answer {
        let form = format!("event_name=api_calls&payload[stripe_customer_id]={customer}&payload[value]={value}{rest}");
        self.post("/v1/billing/meter_events", &form).await
    }

    /// The amounts, quantities and descriptions of a customer's newest invoice.
    pub(crate) async fn newest_invoice(&self, customer: &str) -> Value {
        self.get(&format!("/v1/invoices?customer={customer}&limit=1"))
            .await
            .ok()["data"][0]
            .clone()
    }
}

pub(crate) fn id(object: &Value) -> String {
    object["id"].as_str().expect("an id").to_owned()
}

/// `(amount, quantity, description)` of each line.
pub(crate) fn lines(invoice: &Value) -> Vec<(i64, i64, String)> {
    invoice["lines"]["data"]
        .as_array()
        .expect("lines")
        .iter()
        .map(|line| {
            (
                line["amount"].as_i64().expect("an amount"),
                line["quantity"].as_i64().expect("a quantity"),
                line["description"].as_str().expect("a description").to_owned(),
            )
        })
        .collect()
}
