//! What API Gateway hands on from a caller.

use std::sync::LazyLock;

use farebox_authorizer::{Effect, Event, Format, Response};
use farebox_core::{
    key::ApiKey,
    tiers::{Access, Catalog},
};
use serde_json::Value;

use crate::text;

const TIERS: &str = "
tiers:
  free: {price: 0, included_calls: 1000/month, rate_limit: 10/min, endpoints: [/v1/basic/*]}
  pro: {price: 49/month, included_calls: 5000/month, rate_limit: 100/min, endpoints: [/v1/*, 'GET /items/{id}/x'], overage: $0.002/call}
  all: {price: 99/month, included_calls: unlimited, rate_limit: unlimited, endpoints: [/*, /]}
weights: {POST /v1/generate: 50}";

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| match Catalog::from_yaml(TIERS, "tiers.yaml") {
    Ok(catalog) => catalog,
    Err(errors) => panic!("{errors}"),
});

/// Any event is understood or refused; an answer has no `null`, and of the key only what may be shown.
pub(crate) fn authorizer_event(data: &[u8]) {
    let Ok(event) = serde_json::from_slice::<Event<'_>>(data) else {
        return;
    };
    let key = event.key().and_then(|key| ApiKey::parse(key).ok());
    let Some(request) = event.request() else { return };
    opens(request.method, request.path);
    let principal = key
        .as_ref()
        .map(|key| key.display_prefix().to_owned())
        .unwrap_or_default();
    for effect in [Effect::Allow, Effect::Deny, Effect::Forbid] {
        let context = vec![("code", "ok".to_owned())];
        let response = Response::new(&request, effect, principal.clone(), context, None);
        let Ok(answer) = serde_json::to_value(&response) else {
            panic!("an answer is JSON")
        };
        assert!(has_no_null(&answer));
        let is_allowed = match request.format {
            Format::Simple => answer["isAuthorized"] == Value::Bool(true),
            Format::Policy | Format::HttpPolicy => {
                answer["policyDocument"]["Statement"][0]["Effect"] == "Allow"
                    && answer.get("usageIdentifierKey").is_none()
            }
        };
        assert_eq!(is_allowed, effect == Effect::Allow);
        // The resource is the gateway's own; whoever puts a key into a path has put it there.
        if let Some(key) = &key
            && !request.resource.contains(key.reveal())
        {
            assert!(!answer.to_string().contains(key.reveal()));
        }
    }
}

fn has_no_null(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(values) => values.iter().all(has_no_null),
        Value::Object(fields) => fields.values().all(has_no_null),
        _ => true,
    }
}

/// Any method and path: a route that is open can be read in one way only, and each tier opens what the ones below it do.
pub(crate) fn route(data: &[u8]) {
    let Some((method, path)) = text(data).and_then(|text| text.split_once(' ')) else {
        return;
    };
    opens(method, path);
}

fn opens(method: &str, path: &str) {
    let mut was_open = false;
    for tier in &CATALOG.tiers {
        let access = CATALOG.access(&tier.name, method, path);
        if let Access::Open { cost, .. } = access {
            assert!(cost >= 1, "every request counts");
            assert!(has_one_reading(path), "{path:?} is open and could be another route");
            was_open = true;
        } else {
            assert!(
                !was_open,
                "{method} {path:?} is open to a tier, but not to {}",
                tier.name
            );
        }
    }
}

/// As another reader would take the path: escapes resolved once, then again.
fn has_one_reading(path: &str) -> bool {
    let Some(once) = unescaped(path.as_bytes()) else {
        return false;
    };
    let segments: Vec<&[u8]> = once.split(|byte| *byte == b'/').skip(1).collect();
    let are_plain = segments.iter().enumerate().all(|(i, segment)| {
        // One slash at the end is the same route to everybody.
        let may_be_empty = i + 1 == segments.len();
        !matches!(segment, [b'.'] | [b'.', b'.']) && (may_be_empty || !segment.is_empty())
    });
    let slashes = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'/').count();
    are_plain
        && once.first() == Some(&b'/')
        && slashes(&once) == slashes(path.as_bytes())
        && !once.iter().any(|byte| matches!(byte, 0..=31 | 127 | b'\\'))
        && std::str::from_utf8(&once).is_ok()
}

fn unescaped(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let mut rest = bytes.iter();
    while let Some(&byte) = rest.next() {
        if byte != b'%' {
            plain.push(byte);
            continue;
        }
        let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
        let value = digit(rest.next())? * 16 + digit(rest.next())?;
        plain.push(u8::try_from(value).ok()?);
    }
    Some(plain)
}

/// Any query of the page behind Checkout: only what can be a session's id goes into a path at Stripe.
pub(crate) fn welcome_query(data: &[u8]) {
    let Some(query) = text(data) else { return };
    if let Some(id) = farebox_webhook::session_id(query) {
        assert!(query.contains(&format!("session_id={id}")));
        assert!(id.starts_with("cs_") && id.len() <= 255);
        assert!(
            id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'),
            "{id}"
        );
    }
}
