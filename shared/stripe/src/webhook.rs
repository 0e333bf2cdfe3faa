//! What Stripe sends to us: who signed it, and a narrow reading of it. <https://docs.stripe.com/webhooks>.
//!
//! An event is a trigger, never a state: it may come twice, late, out of order, and in the shape of any API version. So only what
//! names something is read here, and whoever acts on it asks Stripe again.

use std::collections::HashMap;

use chrono::DateTime;
use hmac::{Hmac, KeyInit, Mac};
use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer};
use sha2::Sha256;

use crate::Error;
use crate::answer::place;

/// How far a signature's time may lie from ours, in seconds: what Stripe's own libraries take.
pub const SIGNATURE_TOLERANCE_S: u64 = 300;

/// The secret of one endpoint, `whsec_…`; the prefix is part of it.
///
/// It has no `Debug`, `Display` or `Serialize`, so it can't reach a log:
///
/// ```compile_fail
/// println!("{:?}", farebox_stripe::SigningSecret::new("whsec_1").unwrap());
/// ```
#[derive(Clone)]
pub struct SigningSecret(String);

impl SigningSecret {
    /// Takes the secret as Stripe shows it.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is empty, which would make everybody's signature valid, or holds anything but visible ASCII.
    pub fn new(secret: impl Into<String>) -> Result<Self, Error> {
        let secret = secret.into();
        if secret.is_empty() || !secret.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::Invalid("a signing secret must be visible ASCII"));
        }
        Ok(Self(secret))
    }
}

/// Why a body is not believed. To the sender all of them are one 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The header is empty or absent.
    #[error("the signature is missing")]
    Missing,
    /// The header has not exactly one time, or no `v1` signature.
    #[error("the signature header can't be read")]
    Malformed,
    /// No signature was made over this body and time with any of the secrets.
    #[error("no signature matches")]
    NoMatch,
    /// Signed rightly, but longer ago than the tolerance: perhaps a replay.
    #[error("the signature is too old")]
    TooOld,
    /// Signed rightly, but further ahead than the tolerance: one of the clocks is wrong.
    #[error("the signature is of the future")]
    TooNew,
}

/// Whether Stripe sent exactly these bytes, now: <https://docs.stripe.com/webhooks/signature>.
///
/// One `v1` signature of the header must match one of the secrets; while a secret is rolled, Stripe signs with both. Signatures of
/// other schemes are not looked at. `now` is in unix seconds; a difference of exactly `tolerance_s` is still accepted, both ways.
/// The signature is judged before the time, so that only who knows a secret learns what our clock says.
///
/// # Errors
/// [`SignatureError`]: the body must not be read.
pub fn verify(
    body: &[u8],
    header: &str,
    secrets: &[SigningSecret],
    now: u64,
    tolerance_s: u64,
) -> Result<(), SignatureError> {
    let header = Header::parse(header)?;
    if !secrets.iter().any(|secret| header.is_signed_by(secret, body)) {
        return Err(SignatureError::NoMatch);
    }
    if now.saturating_sub(header.at) > tolerance_s {
        Err(SignatureError::TooOld)
    } else if header.at.saturating_sub(now) > tolerance_s {
        Err(SignatureError::TooNew)
    } else {
        Ok(())
    }
}

/// The header that Stripe would send with this body at `at`, in unix seconds. For the local system and for tests.
pub fn sign(body: &[u8], secret: &SigningSecret, at: u64) -> String {
    let at = at.to_string();
    let signature = mac(secret, &at, body).finalize().into_bytes();
    let hex: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={at},v1={hex}")
}

/// `t=1492774577,v1=5257a8…,v1=…,v0=…`
struct Header<'a> {
    at: u64,
    /// As it was written, for so it was signed.
    at_text: &'a str,
    /// Those that can be signatures at all: 32 bytes in hex.
    signatures: Vec<[u8; 32]>,
}

impl<'a> Header<'a> {
    fn parse(header: &'a str) -> Result<Self, SignatureError> {
        if header.trim().is_empty() {
            return Err(SignatureError::Missing);
        }
        let (mut at_text, mut signatures, mut has_v1) = (None, Vec::new(), false);
        for part in header.split(',') {
            match part.trim().split_once('=') {
                Some(("t", text)) if at_text.is_none() => at_text = Some(text),
                Some(("t", _)) => return Err(SignatureError::Malformed),
                Some(("v1", text)) => {
                    has_v1 = true;
                    signatures.extend(unhex(text));
                }
                _ => {}
            }
        }
        let at_text = at_text
            .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))
            .ok_or(SignatureError::Malformed)?;
        let at = at_text.parse().map_err(|_| SignatureError::Malformed)?;
        if !has_v1 {
            return Err(SignatureError::Malformed);
        }
        Ok(Self {
            at,
            at_text,
            signatures,
        })
    }

    /// Compares in constant time: what differs must not show in how long it takes.
    fn is_signed_by(&self, secret: &SigningSecret, body: &[u8]) -> bool {
        let mac = mac(secret, self.at_text, body);
        self.signatures
            .iter()
            .any(|signature| mac.clone().verify_slice(signature).is_ok())
    }
}

fn mac(secret: &SigningSecret, at: &str, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.0.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(at.as_bytes());
    mac.update(b".");
    mac.update(body);
    mac
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let text: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Something happened: <https://docs.stripe.com/api/events/object> or, thin, <https://docs.stripe.com/api/v2/core/events/object>.
///
/// What is said of the object is a hint for where to look, taken at the time of the event and never to be acted upon itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `evt_…`; the same for every delivery of it.
    pub id: String,
    /// What happened: `customer.subscription.updated`, `v1.billing.meter.error_report_triggered`.
    pub kind: String,
    /// Unix seconds. Events of one object can carry the same one, and arrive in any order.
    pub created: i64,
    /// Whether real money moves; a thin event may not say.
    pub livemode: Option<bool>,
    /// `acct_…`, if it happened in another account than that of the endpoint (a thin event's `context`).
    pub account: Option<String>,
    /// How much of it Stripe sent.
    pub form: EventForm,
    /// The type of the object: `subscription`, `invoice`, `checkout.session`, `billing.meter`.
    pub object_kind: Option<String>,
    /// `client_reference_id` of a Checkout session: ours to fill.
    pub client_reference_id: Option<String>,
    /// Of the object: ours to fill.
    pub metadata: HashMap<String, String>,
    /// What is wrong with a meter's events, if the event is about that and its data came with it.
    pub meter_errors: Option<MeterErrorReport>,
    object_id: Option<String>,
    customer: Option<String>,
    subscription: Option<String>,
}

/// How much of an event Stripe sends: <https://docs.stripe.com/event-destinations#events-overview>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventForm {
    /// With the object as it was.
    Snapshot,
    /// With the object's id only.
    Thin,
}

/// The bytes are no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event can't be read: {what}")]
pub struct EventError {
    what: String,
}

impl Event {
    /// Reads a snapshot or a thin event. How long a body may be is the caller's to check, and its signature before that.
    ///
    /// # Errors
    /// [`EventError`] if the type, the id or the time of an event is not there. What only hints at an object can be absent or in
    /// a shape of another API version.
    pub fn parse(body: &[u8]) -> Result<Self, EventError> {
        let read: Read = serde_json::from_slice(body).map_err(|error| EventError { what: place(&error) })?;
        Ok(read.into())
    }

    /// The object that it is about; an upcoming invoice has no id.
    pub fn object_id(&self) -> Option<&str> {
        self.object_id.as_deref()
    }

    /// `cus_…`: whom the object belongs to, or the object itself.
    pub fn customer_id(&self) -> Option<&str> {
        self.customer.as_deref()
    }

    /// `sub_…`: what the object belongs to, or the object itself.
    pub fn subscription_id(&self) -> Option<&str> {
        self.subscription.as_deref()
    }
}

/// Meter events that Stripe took and then could not count:
/// <https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api#handle-meter-event-errors>.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "ReadReport")]
pub struct MeterErrorReport {
    /// Stripe's sentence for the developer.
    pub summary: Option<String>,
    /// How many events were lost.
    pub error_count: u64,
    /// By reason.
    pub errors: Vec<MeterError>,
}

/// Meter events lost for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterError {
    /// `meter_event_customer_not_found`, `timestamp_too_far_in_past`, `no_meter`, …, or what Stripe adds.
    pub code: String,
    /// How many.
    pub error_count: u64,
    /// Some of them.
    pub samples: Vec<MeterErrorSample>,
}

/// One lost meter event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterErrorSample {
    /// What it was reported under. Stripe's reference calls it the request's idempotency key, its examples look like the event's
    /// identifier: compare it with both.
    pub identifier: Option<String>,
    /// Stripe's sentence for the developer.
    pub message: Option<String>,
}

/// Both forms, told apart by `object`.
#[derive(Deserialize)]
#[serde(tag = "object")]
enum Read {
    #[serde(rename = "event")]
    Snapshot(ReadSnapshot),
    #[serde(rename = "v2.core.event")]
    Thin(ReadThin),
}

#[derive(Deserialize)]
struct ReadSnapshot {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    created: i64,
    #[serde(default, deserialize_with = "lenient")]
    livemode: Option<bool>,
    #[serde(default, deserialize_with = "hint")]
    account: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    data: Data,
}

#[derive(Default, Deserialize)]
struct Data {
    #[serde(default, deserialize_with = "lenient")]
    object: Object,
}

/// What names something, in whichever object.
#[derive(Default, Deserialize)]
struct Object {
    #[serde(default, deserialize_with = "hint")]
    id: Option<String>,
    #[serde(default, deserialize_with = "hint")]
    object: Option<String>,
    #[serde(default, deserialize_with = "hint")]
    customer: Option<String>,
    /// Of a Checkout session; of an invoice before 2025-03-31.basil.
    #[serde(default, deserialize_with = "hint")]
    subscription: Option<String>,
    /// <https://docs.stripe.com/changelog/basil/2025-03-31/adds-new-parent-field-to-invoicing-objects>
    #[serde(default, deserialize_with = "lenient")]
    parent: Parent,
    #[serde(default, deserialize_with = "hint")]
    client_reference_id: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    metadata: HashMap<String, String>,
}

#[derive(Default, Deserialize)]
struct Parent {
    #[serde(default, deserialize_with = "lenient")]
    subscription_details: SubscriptionDetails,
}

#[derive(Default, Deserialize)]
struct SubscriptionDetails {
    #[serde(default, deserialize_with = "hint")]
    subscription: Option<String>,
}

#[derive(Deserialize)]
struct ReadThin {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(deserialize_with = "rfc3339")]
    created: i64,
    #[serde(default, deserialize_with = "lenient")]
    livemode: Option<bool>,
    #[serde(default, deserialize_with = "hint")]
    context: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    related_object: RelatedObject,
    #[serde(default, deserialize_with = "lenient")]
    data: Option<MeterErrorReport>,
}

#[derive(Default, Deserialize)]
struct RelatedObject {
    #[serde(default, deserialize_with = "hint")]
    id: Option<String>,
    #[serde(default, rename = "type", deserialize_with = "hint")]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct ReadReport {
    developer_message_summary: Option<String>,
    reason: ReadReason,
}

#[derive(Deserialize)]
struct ReadReason {
    #[serde(default, deserialize_with = "count")]
    error_count: u64,
    #[serde(default)]
    error_types: Vec<ReadError>,
}

#[derive(Deserialize)]
struct ReadError {
    code: String,
    #[serde(default, deserialize_with = "count")]
    error_count: u64,
    #[serde(default)]
    sample_errors: Vec<ReadSample>,
}

#[derive(Deserialize)]
struct ReadSample {
    error_message: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    request: ReadRequest,
}

#[derive(Default, Deserialize)]
struct ReadRequest {
    identifier: Option<String>,
}

impl From<Read> for Event {
    fn from(read: Read) -> Self {
        match read {
            Read::Snapshot(read) => read.into(),
            Read::Thin(read) => read.into(),
        }
    }
}

impl From<ReadSnapshot> for Event {
    fn from(read: ReadSnapshot) -> Self {
        let object = read.data.object;
        let itself = |kind: &str| object.id.clone().filter(|_| object.object.as_deref() == Some(kind));
        Self {
            customer: itself("customer").or(object.customer),
            subscription: itself("subscription")
                .or(object.parent.subscription_details.subscription)
                .or(object.subscription),
            id: read.id,
            kind: read.kind,
            created: read.created,
            livemode: read.livemode,
            account: read.account,
            form: EventForm::Snapshot,
            object_kind: object.object,
            client_reference_id: object.client_reference_id,
            metadata: object.metadata,
            meter_errors: None,
            object_id: object.id,
        }
    }
}

impl From<ReadThin> for Event {
    fn from(read: ReadThin) -> Self {
        let RelatedObject { id, kind } = read.related_object;
        let itself = |of: &str| id.clone().filter(|_| kind.as_deref() == Some(of));
        Self {
            customer: itself("customer"),
            subscription: itself("subscription"),
            id: read.id,
            kind: read.kind,
            created: read.created,
            livemode: read.livemode,
            account: read.context,
            form: EventForm::Thin,
            object_kind: kind,
            client_reference_id: None,
            metadata: HashMap::new(),
            meter_errors: read.data,
            object_id: id,
        }
    }
}

impl From<ReadReport> for MeterErrorReport {
    fn from(read: ReadReport) -> Self {
        Self {
            summary: read.developer_message_summary,
            error_count: read.reason.error_count,
            errors: read.reason.error_types.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<ReadError> for MeterError {
    fn from(read: ReadError) -> Self {
        Self {
            code: read.code,
            error_count: read.error_count,
            samples: read
                .sample_errors
                .into_iter()
                .map(|sample| MeterErrorSample {
                    identifier: sample.request.identifier,
                    message: sample.error_message,
                })
                .collect(),
        }
    }
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Read::deserialize(deserializer).map(Into::into)
    }
}

/// A value, or nothing if it has a shape that we don't know.
fn lenient<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Lenient<T> {
        Known(T),
        Unknown(IgnoredAny),
    }
    Ok(match Lenient::deserialize(deserializer)? {
        Lenient::Known(value) => value,
        Lenient::Unknown(_) => T::default(),
    })
}

/// An id, or the id of the object that stands in its place, or nothing.
fn hint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Hint {
        Id(String),
        Object { id: String },
        Unknown(IgnoredAny),
    }
    Ok(match Hint::deserialize(deserializer)? {
        Hint::Id(id) | Hint::Object { id } => Some(id),
        Hint::Unknown(_) => None,
    })
}

/// v2 writes times as text, to the millisecond.
fn rfc3339<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let text = String::deserialize(deserializer)?;
    DateTime::parse_from_rfc3339(&text)
        .map(|time| time.timestamp())
        .map_err(|_| D::Error::custom("no RFC 3339 time"))
}

/// v2 writes large integers as text: <https://docs.stripe.com/api-v2-overview>.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Count {
        Number(u64),
        Text(String),
    }
    match Count::deserialize(deserializer)? {
        Count::Number(count) => Ok(count),
        Count::Text(text) => text.parse().map_err(|_| D::Error::custom("no count")),
    }
}
