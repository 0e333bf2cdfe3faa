//! The outbox: keeps what would leave the system, instead of sending it.
//!
//! | what | wire protocol | answers |
//! | --- | --- | --- |
//! | SES v2 `SendEmail` | `POST /v2/email/outbound-emails`, JSON | `{"MessageId": ..}` |
//! | SNS `Publish` | `POST /`, a form of the query protocol | XML |
//! | a customer's webhook | `POST /hooks/<name>` | 200 |
//!
//! It refuses what the services refuse of these calls, and fails on request, so that retries can be watched.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use farebox_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;

/// What came in before these many is forgotten.
const ENTRIES_MAX: usize = 10_000;

/// Something that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// When it came in.
    pub at: Timestamp,
    /// `email`, `operator` or `webhook`.
    pub channel: String,
    /// The address, the topic's ARN, or the name behind `/hooks/`.
    pub to: String,
    /// The subject of a mail or notice.
    pub subject: Option<String>,
    /// The plain text of a mail or notice.
    pub text: Option<String>,
    /// The HTML of a mail.
    pub html: Option<String>,
    /// The headers of the call, without what signs it for AWS.
    pub headers: BTreeMap<String, String>,
    /// The body of the call.
    pub body: String,
}

/// The outbox. Clones share what came in.
#[derive(Clone)]
pub struct Outbox {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    entries: VecDeque<Entry>,
    failures: HashMap<String, VecDeque<Failure>>,
    count: u64,
}

#[derive(Clone)]
struct Failure {
    status: StatusCode,
    code: String,
    message: String,
}

impl Outbox {
    /// An empty outbox that takes the time from a clock.
    pub fn new(clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self {
            inner: Arc::new(Inner {
                clock: Box::new(clock),
                kept: Mutex::default(),
            }),
        }
    }

    /// Answers on a socket until the task is dropped.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn serve(self, listener: TcpListener) -> io::Result<()> {
        axum::serve(listener, self.router()).await
    }

    fn router(self) -> Router {
        Router::new()
            .route("/", post(publish))
            .route("/v2/email/outbound-emails", post(send_email))
            .route("/hooks/{name}", post(hook))
            .with_state(self)
    }

    /// What came in, oldest first.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.kept().entries.iter().cloned().collect()
    }

    /// Lets the next `n` calls of a channel (`email`, `operator`, `webhook`) fail with a status. They are not kept.
    pub fn fail_next(&self, channel: &str, n: usize, status: u16) {
        let code = match status {
            400 if channel == "email" => "BadRequestException",
            400 => "InvalidParameter",
            403 => "AccessDeniedException",
            404 => "NotFoundException",
            429 => "TooManyRequestsException",
            _ => "InternalFailure",
        };
        self.fail_next_as(channel, n, status, code, "as was asked for");
    }

    /// As [`Self::fail_next`], with AWS's error code and message.
    pub fn fail_next_as(&self, channel: &str, n: usize, status: u16, code: &str, message: &str) {
        let failure = Failure {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            code: code.to_owned(),
            message: message.to_owned(),
        };
        let mut kept = self.kept();
        let failures = kept.failures.entry(channel.to_owned()).or_default();
        failures.extend(std::iter::repeat_n(failure, n));
    }

    /// Keeps an entry, unless the channel is to fail; the entry's number.
    fn keep(&self, entry: Entry) -> Result<u64, Failure> {
        let mut kept = self.kept();
        let failure = kept.failures.get_mut(&entry.channel).and_then(VecDeque::pop_front);
        if let Some(failure) = failure {
            return Err(failure);
        }
        if kept.entries.len() == ENTRIES_MAX {
            kept.entries.pop_front();
        }
        kept.entries.push_back(entry);
        kept.count += 1;
        Ok(kept.count)
    }

    fn entry(&self, channel: &str, to: &str, headers: &HeaderMap, body: &str) -> Entry {
        let is_ours = |name: &str| name == "authorization" || name.starts_with("x-amz");
        let pair = |(name, value): (&header::HeaderName, &header::HeaderValue)| {
            (
                name.as_str().to_owned(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        };
        Entry {
            at: (self.inner.clock)(),
            channel: channel.to_owned(),
            to: to.to_owned(),
            subject: None,
            text: None,
            html: None,
            headers: headers.iter().map(pair).filter(|(name, _)| !is_ours(name)).collect(),
            body: body.to_owned(),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.inner.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox")
            .field("entries", &self.kept().entries.len())
            .finish()
    }
}

/// What `SendEmail` is sent for simple content
/// (<https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html>).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SendEmail {
    from_email_address: String,
    destination: Destination,
    content: Content,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Destination {
    to_addresses: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Content {
    simple: Simple,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Simple {
    subject: Text,
    body: Body,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Body {
    text: Option<Text>,
    html: Option<Text>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Text {
    data: String,
}

async fn send_email(State(outbox): State<Outbox>, headers: HeaderMap, body: Bytes) -> Response {
    let body = String::from_utf8_lossy(&body);
    let sent = read_email(&body).and_then(|call| {
        let entry = Entry {
            subject: Some(call.content.simple.subject.data),
            text: call.content.simple.body.text.map(|text| text.data),
            html: call.content.simple.body.html.map(|html| html.data),
            ..outbox.entry("email", &call.destination.to_addresses.join(", "), &headers, &body)
        };
        outbox.keep(entry)
    });
    match sent {
        Ok(n) => axum::Json(json!({ "MessageId": format!("{n:060x}") })).into_response(),
        Err(failure) => (
            failure.status,
            [("x-amzn-errortype", failure.code)],
            axum::Json(json!({ "message": failure.message })),
        )
            .into_response(),
    }
}

fn read_email(body: &str) -> Result<SendEmail, Failure> {
    let call: SendEmail =
        serde_json::from_str(body).map_err(|e| bad("BadRequestException", format!("not a simple mail: {e}")))?;
    let is_address = |address: &str| address.contains('@') && !address.contains(['\r', '\n']);
    let to = &call.destination.to_addresses;
    if !is_address(&call.from_email_address) || to.is_empty() || !to.iter().all(|to| is_address(to)) {
        return Err(bad("BadRequestException", "Missing final '@domain'"));
    }
    Ok(call)
}

async fn publish(State(outbox): State<Outbox>, headers: HeaderMap, body: Bytes) -> Response {
    let body = String::from_utf8_lossy(&body);
    let published = read_notice(&body).and_then(|form| {
        let field = |name: &str| form.get(name).cloned();
        let entry = Entry {
            subject: field("Subject"),
            text: field("Message"),
            ..outbox.entry("operator", &field("TopicArn").unwrap_or_default(), &headers, &body)
        };
        outbox.keep(entry)
    });
    let (status, xml) = match published {
        Ok(n) => (
            StatusCode::OK,
            format!(
                "<PublishResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><PublishResult><MessageId>{n:032x}\
                 </MessageId></PublishResult><ResponseMetadata><RequestId>{n:032x}</RequestId></ResponseMetadata>\
                 </PublishResponse>"
            ),
        ),
        Err(failure) => (
            failure.status,
            format!(
                "<ErrorResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><Error><Type>Sender</Type><Code>{}\
                 </Code><Message>{}</Message></Error><RequestId>0</RequestId></ErrorResponse>",
                failure.code, failure.message
            ),
        ),
    };
    (status, [(header::CONTENT_TYPE, "text/xml")], xml).into_response()
}

fn read_notice(body: &str) -> Result<BTreeMap<String, String>, Failure> {
    let form = form(body);
    if form.get("Action").map(String::as_str) != Some("Publish") {
        return Err(bad("InvalidAction", "only Publish is known here"));
    }
    if !form.contains_key("TopicArn") || form.get("Message").is_none_or(String::is_empty) {
        return Err(bad("InvalidParameter", "Invalid parameter: TopicArn or Message"));
    }
    let is_subject = |subject: &String| {
        (1..100).contains(&subject.len()) && subject.bytes().all(|byte| (0x20..0x7f).contains(&byte))
    };
    if form.get("Subject").is_some_and(|subject| !is_subject(subject)) {
        return Err(bad("InvalidParameter", "Invalid parameter: Subject"));
    }
    Ok(form)
}

async fn hook(State(outbox): State<Outbox>, Path(name): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    let body = String::from_utf8_lossy(&body);
    match outbox.keep(outbox.entry("webhook", &name, &headers, &body)) {
        Ok(_) => StatusCode::OK.into_response(),
        Err(failure) => (failure.status, failure.message).into_response(),
    }
}

fn bad(code: &str, message: impl Into<String>) -> Failure {
    Failure {
        status: StatusCode::BAD_REQUEST,
        code: code.to_owned(),
        message: message.into(),
    }
}

/// The pairs of `application/x-www-form-urlencoded`.
fn form(body: &str) -> BTreeMap<String, String> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    };
    body.split('&').filter(|part| !part.is_empty()).map(pair).collect()
}

fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.first_chunk::<2>().and_then(|two| str::from_utf8(two).ok());
        let escaped = hex.and_then(|two| u8::from_str_radix(two, 16).ok());
        let (byte, left) = match (byte, escaped) {
            (b'%', Some(escaped)) => (escaped, &after[2..]),
            (b'+', _) => (b' ', after),
            (byte, _) => (byte, after),
        };
        bytes.push(byte);
        rest = left;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
