//! An answer, and what it says about the call: <https://docs.stripe.com/error-low-level>.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Error;

/// A text of Stripe's is cut here before it reaches an error.
const TEXT_CHARS_MAX: usize = 500;

/// One answer of Stripe's, read to its end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: Headers,
    pub(crate) body: Bytes,
}

/// The headers that an error keeps.
#[derive(Clone, Default)]
pub(crate) struct Headers {
    pub(crate) request_id: Option<String>,
    replayed: bool,
    should_retry: Option<bool>,
    retry_after: Option<Duration>,
    /// Stripe's clock: <https://www.rfc-editor.org/rfc/rfc9110#field.date>.
    pub(crate) date: Option<String>,
}

/// The error object, as far as we read it: <https://docs.stripe.com/api/errors>.
#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(rename = "type")]
    kind: Option<String>,
    code: Option<String>,
    param: Option<String>,
    message: Option<String>,
}

impl Answer {
    /// The body of a success, or what the status says.
    ///
    /// `secret` is blanked out of every text that is kept.
    pub(crate) fn accepted(self, secret: &str) -> Result<Accepted, Error> {
        if self.status.is_success() {
            return Ok(Accepted {
                body: self.body,
                request_id: self.headers.request_id,
            });
        }
        let status = self.status.as_u16();
        let Refusal {
            kind,
            code,
            param,
            message,
        } = self.refusal().unwrap_or_default();
        let Headers {
            request_id,
            replayed,
            should_retry,
            retry_after,
            ..
        } = self.headers;
        let clean = |text: Option<String>| text.map(|text| quote(&text, secret));
        let code = clean(code);
        if is_busy(self.status) || (self.status.is_client_error() && should_retry == Some(true)) {
            Err(Error::Busy {
                status,
                code,
                retry_after,
                should_retry,
                request_id,
            })
        } else if self.status.is_server_error() {
            Err(Error::ServerFault {
                status,
                code,
                replayed,
                should_retry,
                request_id,
            })
        } else if self.status == StatusCode::BAD_REQUEST && message.is_none() && kind.is_none() {
            // Cut short, or not Stripe's: it may have been the one that says that Stripe has the event already.
            Err(Error::Malformed {
                what: "a 400 that holds no error of stripe's".to_owned(),
                request_id,
            })
        } else if self.status.is_client_error() {
            let message = clean(message).unwrap_or_else(|| "the answer holds no error of stripe's".to_owned());
            Err(Error::Rejected {
                status,
                code: code.or(clean(kind)),
                param: clean(param),
                message,
                request_id,
            })
        } else {
            Err(Error::Malformed {
                what: format!("unexpected status {status}"),
                request_id,
            })
        }
    }

    /// Whether Stripe refused a meter event because it holds one with this identifier.
    ///
    /// v1 answers 400 `invalid_request_error`, in practice without a code, and `An event already exists with identifier X.`;
    /// that text is the only mark. The code `duplicate_meter_event` is v2's
    /// (<https://docs.stripe.com/api/v2/billing-meter>) and believed too, should v1 adopt it.
    pub(crate) fn is_duplicate_of(&self, identifier: &str) -> bool {
        if self.status != StatusCode::BAD_REQUEST {
            return false;
        }
        let Some(Refusal {
            kind, code, message, ..
        }) = self.refusal()
        else {
            return false;
        };
        if kind.as_deref().is_some_and(|kind| kind != "invalid_request_error") {
            return false;
        }
        match code.as_deref() {
            Some("duplicate_meter_event") => true,
            _ => kind.is_some() && message.is_some_and(|message| says_known(&message, identifier)),
        }
    }

    fn refusal(&self) -> Option<Refusal> {
        #[derive(Deserialize)]
        struct Envelope {
            error: Refusal,
        }
        serde_json::from_slice::<Envelope>(&self.body)
            .ok()
            .map(|envelope| envelope.error)
    }
}

/// A success, not read yet.
pub(crate) struct Accepted {
    pub(crate) body: Bytes,
    pub(crate) request_id: Option<String>,
}

impl Accepted {
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| self.doubt(place(&error)))
    }

    pub(crate) fn doubt(&self, what: impl Into<String>) -> Error {
        Error::Malformed {
            what: what.into(),
            request_id: self.request_id.clone(),
        }
    }
}

impl Headers {
    pub(crate) fn read(headers: &HeaderMap, secret: &str) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            request_id: text("request-id").map(|id| quote(id, secret)),
            replayed: text("idempotent-replayed") == Some("true"),
            should_retry: text("stripe-should-retry").and_then(|value| value.parse().ok()),
            retry_after: text("retry-after")
                .and_then(|value| value.parse().ok())
                .map(Duration::from_secs),
            date: text("date").map(str::to_owned),
        }
    }
}

/// The statuses that mean "not applied, ask again": a conflicting or a surplus call.
pub(crate) fn is_busy(status: StatusCode) -> bool {
    status == StatusCode::CONFLICT || status == StatusCode::TOO_MANY_REQUESTS
}

/// What serde_json found, without the value that it found: that is a piece of the body.
pub(crate) fn place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if text.starts_with("missing field") {
        return text;
    }
    let (kind, line, column) = (error.classify(), error.line(), error.column());
    format!("unexpected json ({kind:?}) at line {line} column {column}")
}

/// A text that may be logged: short, and without the key, which Stripe or something between us might repeat.
fn quote(text: &str, secret: &str) -> String {
    text.replace(secret, "[secret key]")
        .chars()
        .take(TEXT_CHARS_MAX)
        .collect()
}

/// Whether `message` is the sentence about a known identifier, and about exactly this one.
fn says_known(message: &str, identifier: &str) -> bool {
    const QUOTES: [char; 3] = ['\'', '"', '`'];
    let Some(named) = message.strip_prefix("An event already exists with identifier ") else {
        return false;
    };
    let Some(rest) = named.trim_start_matches(QUOTES).strip_prefix(identifier) else {
        return false;
    };
    let rest = rest.trim_start_matches(QUOTES);
    // The identifier must end here: a full stop counts only as the end of the sentence.
    let rest = rest.strip_prefix('.').unwrap_or(rest);
    !identifier.is_empty() && (rest.is_empty() || rest.starts_with(char::is_whitespace))
}

#[cfg(test)]
mod tests {
    use super::says_known;

    #[test]
    fn the_sentence_must_name_our_identifier_whole() {
        for known in ["a1", "a1.", "'a1'.", "\"a1\"", "a1. See the docs."] {
            assert!(
                says_known(&format!("An event already exists with identifier {known}"), "a1"),
                "{known}"
            );
        }
        for other in ["a12.", "a1.b", "a1-2", "b", "", "A1."] {
            assert!(
                !says_known(&format!("An event already exists with identifier {other}"), "a1"),
                "{other}"
            );
        }
        assert!(says_known("An event already exists with identifier a.b..", "a.b."));
        assert!(!says_known("An event already exists with identifier .", ""));
        assert!(!says_known("No event already exists with identifier a1.", "a1"));
        assert!(!says_known("A meter already exists with event_name a1.", "a1"));
    }
}
