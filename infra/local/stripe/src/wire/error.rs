//! Stripe's error shape and the errors that every endpoint shares.
//!
//! Source: <https://docs.stripe.com/api/errors> and <https://docs.stripe.com/error-codes>.

use serde_json::{Map, Value, json};

/// An error as Stripe answers it.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    kind: &'static str,
    code: Option<&'static str>,
    message: String,
    param: Option<String>,
    decline_code: Option<&'static str>,
    /// Whether the state changed all the same: a payment that failed is an attempt.
    pub(crate) recorded: bool,
    /// Whether the idempotency layer keeps this result. Results are kept "only after the execution of an endpoint
    /// begins": a parameter that fails validation and a conflict with a running request are not.
    /// <https://docs.stripe.com/api/idempotent_requests>
    pub(crate) kept: bool,
}

impl ApiError {
    fn new(status: u16, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            code: None,
            message: message.into(),
            param: None,
            decline_code: None,
            recorded: false,
            kept: false,
        }
    }

    /// A parameter that is not as the endpoint wants it; the endpoint did not begin.
    pub(crate) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(400, "invalid_request_error", message).param(param)
    }

    /// A request that is well formed, but that the present state refuses. The endpoint did begin.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self {
            kept: true,
            ..Self::new(400, "invalid_request_error", message)
        }
    }

    /// What Stripe could do and this stand-in can't. Never Stripe's own words.
    pub(crate) fn unsupported(what: &str) -> Self {
        Self::refused(format!("The stand-in does not support {what}.")).code("standin_unsupported")
    }

    /// <https://docs.stripe.com/declines/codes>
    pub(crate) fn card_declined() -> Self {
        Self {
            kept: true,
            decline_code: Some("generic_decline"),
            ..Self::new(402, "card_error", "Your card was declined.")
        }
        .code("card_declined")
    }

    pub(crate) fn no_method() -> Self {
        Self::refused(
            "This customer has no attached payment source or default payment method. \
             Please consider adding a default payment method.",
        )
        .code("resource_missing")
    }

    pub(crate) fn missing(param: &str) -> Self {
        Self::invalid(param, format!("Missing required param: {param}.")).code("parameter_missing")
    }

    pub(crate) fn unknown_parameters(params: &[String]) -> Self {
        let plural = if params.len() == 1 { "" } else { "s" };
        let error = Self::new(
            400,
            "invalid_request_error",
            format!("Received unknown parameter{plural}: {}", params.join(", ")),
        )
        .code("parameter_unknown");
        match params.first() {
            Some(first) => error.param(first),
            None => error,
        }
    }

    pub(crate) fn empty(param: &str) -> Self {
        Self::invalid(
            param,
            format!(
                "You passed an empty string for '{param}'. We assume empty values are an attempt to unset a parameter; \
                 however '{param}' cannot be unset. You should remove '{param}' from your request or supply a non-empty value."
            ),
        )
        .code("parameter_invalid_empty")
    }

    /// `noun` is the object's type as Stripe spells it in the message: `customer`, `price`, `billing meter` …
    pub(crate) fn no_such(noun: &str, id: &str, param: &str) -> Self {
        Self {
            status: 404,
            ..Self::refused(format!("No such {noun}: '{id}'"))
        }
        .code("resource_missing")
        .param(param)
    }

    pub(crate) fn unrecognized_url(method: &str, path: &str) -> Self {
        Self::new(
            404,
            "invalid_request_error",
            format!(
                "Unrecognized request URL ({method}: {path}). Please see https://stripe.com/docs or we can help at https://support.stripe.com/."
            ),
        )
    }

    pub(crate) fn no_key() -> Self {
        Self::new(
            401,
            "invalid_request_error",
            "You did not provide an API key. You need to provide your API key in the Authorization header, using Bearer auth \
             (e.g. 'Authorization: Bearer YOUR_SECRET_KEY'). See https://stripe.com/docs/api#authentication for details, or we can help at https://support.stripe.com/.",
        )
    }

    /// `key` is shown with all but its prefix and its last four characters hidden, as Stripe shows it.
    pub(crate) fn wrong_key(key: &str) -> Self {
        let shown = match (key.get(..8), key.len().checked_sub(4).and_then(|at| key.get(at..))) {
            (Some(head), Some(tail)) if key.len() > 12 => {
                format!("{head}{}{tail}", "*".repeat(key.len() - 12))
            }
            _ => "*".repeat(key.len()),
        };
        Self::new(
            401,
            "invalid_request_error",
            format!("Invalid API Key provided: {shown}"),
        )
    }

    /// A second call for an object that another call holds; also one concurrent meter event per customer and meter.
    /// <https://docs.stripe.com/rate-limits#object-lock-timeouts>
    pub(crate) fn lock_timeout() -> Self {
        Self::new(
            429,
            "invalid_request_error",
            "This object cannot be accessed right now because another API request or Stripe process is currently accessing it. \
             If you see this error intermittently, retry the request. If you see this error frequently and are making multiple concurrent \
             requests to a single object, make your requests serially or at a lower rate.",
        )
        .code("lock_timeout")
    }

    /// <https://docs.stripe.com/rate-limits>
    pub(crate) fn rate_limited() -> Self {
        Self::new(
            429,
            "invalid_request_error",
            "Request rate limit exceeded. Learn more about rate limits here https://stripe.com/docs/rate-limits.",
        )
        .code("rate_limit")
    }

    /// <https://docs.stripe.com/api/idempotent_requests>
    pub(crate) fn key_in_use(key: &str) -> Self {
        Self::new(
            409,
            "idempotency_error",
            format!(
                "There is currently another in-progress request using this Idempotent Key (that probably means you submitted twice, \
                 and the other request is still going through): {key}. Please try again later."
            ),
        )
        .code("idempotency_key_in_use")
    }

    pub(crate) fn key_with_other_parameters(key: &str) -> Self {
        Self::new(
            400,
            "idempotency_error",
            format!(
                "Keys for idempotent requests can only be used with the same parameters they were first used with. \
                 Try using a key other than '{key}' if you meant to execute a different request."
            ),
        )
    }

    pub(crate) fn key_for_other_endpoint(key: &str, first: &str, now: &str) -> Self {
        Self::new(
            400,
            "idempotency_error",
            format!(
                "Keys for idempotent requests can only be used for the same endpoint they were first used for ('{now}' vs '{first}'). \
                 Try using a key other than '{key}' if you meant to execute a different request."
            ),
        )
    }

    /// What a Stripe outage looks like. Kept by the idempotency layer: 500s are replayed too.
    pub(crate) fn internal() -> Self {
        Self {
            kept: true,
            ..Self::new(
                500,
                "api_error",
                "Sorry, there was an error processing your request. Please try again or contact support at https://support.stripe.com/.",
            )
        }
    }

    pub(crate) fn code(self, code: &'static str) -> Self {
        Self {
            code: Some(code),
            ..self
        }
    }

    pub(crate) fn param(self, param: impl Into<String>) -> Self {
        Self {
            param: Some(param.into()),
            ..self
        }
    }

    /// The same error of a request that changed the state.
    pub(crate) fn recorded(self) -> Self {
        Self { recorded: true, ..self }
    }

    /// The error as an object shows it, such as `last_finalization_error`.
    pub(crate) fn nested(&self) -> Value {
        json!({ "code": self.code, "message": self.message, "type": self.kind })
    }

    /// The answer's body; `request_id` names the request in Stripe's log.
    pub(crate) fn body(&self, request_id: &str) -> Value {
        let mut error = Map::new();
        if let Some(code) = self.code {
            error.insert("code".into(), code.into());
            let page = code.replace('_', "-");
            error.insert(
                "doc_url".into(),
                format!("https://stripe.com/docs/error-codes/{page}").into(),
            );
        }
        if let Some(code) = self.decline_code {
            error.insert("decline_code".into(), code.into());
        }
        error.insert("message".into(), self.message.as_str().into());
        if let Some(param) = &self.param {
            error.insert("param".into(), param.as_str().into());
        }
        error.insert(
            "request_log_url".into(),
            format!("https://dashboard.stripe.com/test/logs/{request_id}").into(),
        );
        error.insert("type".into(), self.kind.into());
        json!({ "error": error })
    }
}
