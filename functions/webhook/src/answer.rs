//! What is answered: a status and a short word.

use http::{Response, StatusCode, header};

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Its effect is stored.
    Done,
    /// Its effect was stored before.
    Known,
    /// It is about nothing or nobody of ours.
    Ignored,
    /// It could not be worked on now, and the schedule does the same later.
    Left,
    /// It could not be worked on now: Stripe shall send it again.
    Later,
}

impl Verdict {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Known => "known",
            Self::Ignored => "ignored",
            Self::Left => "left to the schedule",
            Self::Later => "try again",
        }
    }

    /// The metric that counts it.
    pub(crate) fn metric(self) -> &'static str {
        match self {
            Self::Done => "events_done",
            Self::Known => "events_known",
            Self::Ignored => "events_ignored",
            Self::Left => "events_left",
            Self::Later => "events_to_come_again",
        }
    }
}

/// Why a request is not worked on at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The body is larger than any event.
    TooLarge,
    /// Missing, malformed, wrong, too old or of the future: to the sender all the same.
    Signature,
    /// Signed, but no event.
    NotAnEvent,
    /// An event of the live mode in the test mode, or the other way round.
    Mode,
    /// Another method than this one.
    Method(&'static str),
    /// Nothing is here.
    NoSuchPath,
    /// No session that shows a key.
    NoSuchSession,
    /// The key was shown already.
    ShownAlready,
    /// The key can't be shown now.
    NotNow,
}

pub(crate) fn answer(verdict: Verdict) -> Response<String> {
    let status = match verdict {
        Verdict::Done | Verdict::Known | Verdict::Ignored | Verdict::Left => StatusCode::OK,
        Verdict::Later => StatusCode::SERVICE_UNAVAILABLE,
    };
    json(status, format!(r#"{{"status":"{}"}}"#, verdict.word()))
}

pub(crate) fn refuse(refusal: Refusal) -> Response<String> {
    let (status, code) = refusal.status();
    let mut response = json(status, format!(r#"{{"error":"{code}"}}"#));
    if let Refusal::Method(allowed) = refusal {
        response
            .headers_mut()
            .insert(header::ALLOW, header::HeaderValue::from_static(allowed));
    }
    response
}

impl Refusal {
    pub(crate) fn status(self) -> (StatusCode, &'static str) {
        match self {
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::Signature => (StatusCode::BAD_REQUEST, "invalid_signature"),
            Self::NotAnEvent => (StatusCode::BAD_REQUEST, "not_an_event"),
            Self::Mode => (StatusCode::BAD_REQUEST, "wrong_mode"),
            Self::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::NoSuchPath => (StatusCode::NOT_FOUND, "not_found"),
            Self::NoSuchSession => (StatusCode::NOT_FOUND, "no_such_session"),
            Self::ShownAlready => (StatusCode::GONE, "shown_already"),
            Self::NotNow => (StatusCode::SERVICE_UNAVAILABLE, "try_again"),
        }
    }
}

pub(crate) fn json(status: StatusCode, body: String) -> Response<String> {
    page(status, "application/json", body)
}

/// Nothing that is answered here is to be kept or framed by anybody, nor told to the next page.
pub(crate) fn page(status: StatusCode, content_type: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        ),
    ] {
        response
            .headers_mut()
            .insert(name, header::HeaderValue::from_static(value));
    }
    response
}
