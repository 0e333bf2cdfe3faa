//! The page behind Checkout: shows the first key, once.

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use serde_json::json;

use farebox_billing::Error;
use farebox_core::{id::CustomerId, key::ApiKey};
use sha2::{Digest, Sha256};

use crate::{
    Webhook,
    answer::{Refusal, json as json_page, page, refuse},
    checkout::ending,
};

/// Stripe's session ids have about 70.
const SESSION_BYTES_MAX: usize = 255;

/// A first key that is being shown, and whose it is.
struct Shown {
    customer: CustomerId,
    key: ApiKey,
}

impl Webhook {
    /// Shows the key of a completed session to whoever has the session's id: Stripe gave it to the buyer alone.
    pub(crate) async fn welcome(&self, request: &Request<Bytes>) -> Response<String> {
        let wants_json = wants_json(request.headers());
        let shown = match session_id(request.uri().query().unwrap_or_default()) {
            // Whoever asks must be told before the function ends: it would cost its whole time and answer nobody.
            Some(session) => match tokio::time::timeout(self.deps.patience, self.show(session)).await {
                Ok(shown) => shown,
                Err(_) => {
                    tracing::error!(session_ends = ending(session), "showing the first key took too long");
                    Err(Refusal::NotNow)
                }
            },
            None => Err(Refusal::NoSuchSession),
        };
        match shown {
            Ok(Shown { customer, key }) if wants_json => {
                let body = json!({ "customer": customer, "key": key.reveal(), "portal": self.deps.portal_url });
                json_page(StatusCode::OK, body.to_string())
            }
            Ok(Shown { key, .. }) => page(StatusCode::OK, HTML, self.key_page(&key)),
            Err(refusal) if wants_json => with_pace(refusal, refuse(refusal)),
            Err(refusal) => with_pace(refusal, page(refusal.status().0, HTML, self.refusal_page(refusal))),
        }
    }

    async fn show(&self, session: &str) -> Result<Shown, Refusal> {
        let failed = |error: Error| {
            tracing::error!(session_ends = ending(session), %error, "the first key can't be shown");
            Refusal::NotNow
        };
        let accounts = &self.deps.books.accounts;
        // Anybody may ask, as often as they like: what is known here costs no call of Stripe's.
        let is_shown = accounts.is_marked(&mark(session)).await;
        if is_shown.map_err(|e| failed(e.into()))? {
            return Err(Refusal::ShownAlready);
        }
        let session = match self.deps.books.stripe.checkout_session(session).await {
            Ok(session) => session,
            Err(error) if error.is_missing() => return Err(Refusal::NoSuchSession),
            Err(error) => return Err(failed(error.into())),
        };
        if session.status.as_deref() == Some("complete") && !self.yields_key(&session) {
            return Err(Refusal::ShownAlready);
        }
        let customer = self.admit(&session).await.map_err(failed)?;
        let customer = customer.ok_or(Refusal::NoSuchSession)?;
        let key = self.issue(&session, &customer).await.map_err(failed)?;
        let record = accounts.key(key.hash()).await.map_err(|e| failed(e.into()))?;
        if record.ok_or(Refusal::NotNow)?.revoked.is_some() {
            return Err(Refusal::ShownAlready);
        }
        // The mark goes first: a page that gets lost shows nothing, rather than the key to two people.
        let is_first = accounts.mark_once(&mark(&session.id), self.deps.books.now()).await;
        match is_first.map_err(|e| failed(e.into()))? {
            true => Ok(Shown { customer, key }),
            false => Err(Refusal::ShownAlready),
        }
    }

    fn key_page(&self, key: &ApiKey) -> String {
        let body = format!(
            "<h1>Your API key</h1>\n<p>This is the only time that it is shown. Keep it where you keep passwords.</p>\n\
             <pre>{}</pre>\n<p>Send it as <code>x-api-key</code>, or as <code>Authorization: Bearer</code>.</p>\n{}",
            key.reveal(),
            self.portal("Usage, plan and further keys"),
        );
        document("Welcome", &body)
    }

    fn refusal_page(&self, refusal: Refusal) -> String {
        let text = match refusal {
            Refusal::ShownAlready if self.deps.portal_url.is_some() => {
                "This key was shown already. It can't be shown again, but you can make another one."
            }
            Refusal::ShownAlready => {
                "This key was shown already. It can't be shown again: please ask whoever sold it to you for another one."
            }
            Refusal::NotNow => "Your key is not ready yet. Please load this page again in a few seconds.",
            _ => "There is no key to show here.",
        };
        let body = format!(
            "<h1>No key to show</h1>\n<p>{text}</p>\n{}",
            self.portal("Your account")
        );
        document("Welcome", &body)
    }

    fn portal(&self, label: &str) -> String {
        match &self.deps.portal_url {
            Some(url) => format!("<p><a href=\"{}\">{label}</a></p>\n", escaped(url)),
            None => String::new(),
        }
    }
}

/// The mark that a session's key was shown. Anybody can write anything into the page's address, a key by mistake too: nothing of
/// that is written down or asked for as it is.
fn mark(session: &str) -> String {
    let digest: String = Sha256::digest(session.as_bytes())[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("shown-{digest}")
}

const HTML: &str = "text/html; charset=utf-8";

fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta name=\"robots\" content=\"noindex\">\n<title>{title}</title>\n<style>body{{font:1rem/1.5 system-ui;max-width:40rem;margin:4rem auto;padding:0 1rem}}\
         pre{{padding:1rem;background:#eee;color:#000;white-space:pre-wrap;overflow-wrap:anywhere}}</style>\n{body}</html>\n"
    )
}

fn with_pace(refusal: Refusal, mut response: Response<String>) -> Response<String> {
    if refusal == Refusal::NotNow {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, header::HeaderValue::from_static("5"));
    }
    response
}

fn wants_json(headers: &HeaderMap) -> bool {
    let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accepts.is_some_and(|accept| accept.contains("application/json"))
}

/// The session that a query names, if it can be one.
#[must_use]
pub fn session_id(query: &str) -> Option<&str> {
    let id = query.split('&').find_map(|pair| pair.strip_prefix("session_id="))?;
    let is_one = id.starts_with("cs_")
        && id.len() <= SESSION_BYTES_MAX
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_one.then_some(id)
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            char => escaped.push(char),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::{escaped, session_id};

    #[test]
    fn only_what_can_be_a_session_is_asked_for() {
        assert_eq!(session_id("session_id=cs_test_a1B2"), Some("cs_test_a1B2"));
        assert_eq!(session_id("utm=1&session_id=cs_live_9"), Some("cs_live_9"));
        let long = format!("session_id=cs_{}", "a".repeat(300));
        for bad in [
            "",
            "session_id=",
            "session_id=cus_1",
            "session_id=cs_../x",
            "session_id=cs_%2e",
            "xsession_id=cs_1",
            long.as_str(),
        ] {
            assert_eq!(session_id(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_address_can_not_end_its_attribute() {
        assert_eq!(
            escaped("https://a/?b=1&c=\"><script>"),
            "https://a/?b=1&amp;c=&quot;&gt;&lt;script&gt;"
        );
    }
}
