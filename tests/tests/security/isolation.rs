//! One customer's key never reads or changes anything of another's, on any route.

use std::{collections::BTreeSet, sync::Arc};

use farebox_core::key::ApiKey;
use farebox_local::{Sold, System};
use farebox_tests::{held, system};

use crate::front::{Front, Reply};

/// Every figure of one differs from that of the other.
const TIERS: &str = "
tiers:
  small: {price: 5/month, included_calls: 1009/month, rate_limit: 211/min, endpoints: [/v1/*], overage: $0.002/call}
  large: {price: 99/month, included_calls: 7919/month, rate_limit: 6011/min, endpoints: [/v1/*, /v2/*], overage: $0.001/call}";
/// What only beta has.
const OF_BETA: [&str; 5] = ["beta", "7919", "6011", "5974", "37"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    /// Callers with a key: they are shown their own figures.
    Callers,
    /// Whoever has what only Stripe hands out: a signature, or a session's id. A key opens nothing.
    Stripe,
    /// Whoever runs `farebox dev`, on their own machine. A key changes nothing.
    Operator,
}

/// Every route: as the source spells it, the methods, a request for it, and whom it is for.
const ROUTES: [(&str, &[&str], &str, For); 16] = [
    ("\"/v1/admin/stats\"", &["GET"], "/v1/admin/stats", For::Callers),
    ("\"/v1/generate\"", &["POST"], "/v1/generate", For::Callers),
    ("\"/v1/items\"", &["GET", "HEAD"], "/v1/items", For::Callers),
    ("\"/v1/basic/hello\"", &["GET"], "/v1/basic/hello", For::Callers),
    // The fallback: whatever a tier opens beside the sample API, and what none does.
    (
        "",
        &["GET", "PUT", "DELETE", "PATCH"],
        "/v1/customers/acme",
        For::Callers,
    ),
    ("", &["GET"], "/v2/only/of/the/other/tier", For::Callers),
    ("", &["GET"], "/v3/nobodys", For::Callers),
    ("", &["OPTIONS"], "/v1/items", For::Callers),
    ("EVENTS_PATH", &["POST", "GET"], "/_farebox/stripe/webhook", For::Stripe),
    ("WELCOME_PATH", &["GET", "HEAD"], "/_farebox/welcome", For::Stripe),
    (
        "WELCOME_PATH",
        &["GET"],
        "/_farebox/welcome?session_id=cs_test_1",
        For::Stripe,
    ),
    ("\"/_farebox/state\"", &["GET"], "/_farebox/state", For::Operator),
    ("\"/_farebox/clock\"", &["POST"], "/_farebox/clock", For::Operator),
    ("\"/_farebox/errors\"", &["GET"], "/_farebox/errors", For::Operator),
    (
        "\"/_farebox/endpoints\"",
        &["GET"],
        "/_farebox/endpoints",
        For::Operator,
    ),
    ("\"/_farebox/outbox\"", &["GET"], "/_farebox/outbox", For::Operator),
];

/// The routes that the gateway's source mounts, and those of the deployment's webhook.
fn mounted() -> BTreeSet<String> {
    let source = include_str!("../../../infra/local/src/gateway.rs");
    let calls = source.split(".route(").skip(1);
    calls
        .map(|call| call.split(',').next().unwrap_or_default().trim().to_owned())
        .collect()
}

#[test]
fn no_route_is_left_out() {
    let listed: BTreeSet<String> = ROUTES.iter().map(|(spelled, ..)| (*spelled).to_owned()).collect();
    let listed: BTreeSet<String> = listed.into_iter().filter(|spelled| !spelled.is_empty()).collect();
    assert_eq!(mounted(), listed, "add a new route to ROUTES");
    let template = include_str!("../../../template.yaml");
    let lines = template.lines();
    let deployed: Vec<&str> = lines
        .filter_map(|line| line.trim().strip_prefix("RouteKey: "))
        .collect();
    assert!(!deployed.is_empty(), "template.yaml spells its routes in another way");
    for route in deployed {
        let (_, path) = route.split_once(' ').expect("a method and a path");
        let is_listed = ROUTES
            .iter()
            .any(|(_, _, target, whom)| *whom == For::Stripe && target.contains(path));
        assert!(is_listed, "{route} is deployed: add it to ROUTES");
    }
}

struct Two {
    system: Arc<System>,
    front: Front,
    acme: Sold,
    beta: Sold,
}

/// Two customers, of which beta has used 37 units.
async fn two() -> Two {
    let system = system(TIERS, 1).await;
    let front = Front::open(&system).await;
    let sell = async |id: &str, tier: &str| system.sell(id, tier, Default::default()).await.expect("sold");
    let (acme, beta) = (sell("acme", "small").await, sell("beta", "large").await);
    for _ in 0..37 {
        let reply = front.call("GET", "/v1/items", &[("x-api-key", &beta.key)], "").await;
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
    system.send_usage().await.expect("folded");
    system.deliver_events().await.expect("delivered");
    system.deliver_alerts().await.expect("delivered");
    Two {
        system,
        front,
        acme,
        beta,
    }
}

/// Every way in which a caller could try to be taken for somebody else.
fn claims<'a>(beta: &'a str, hash: &'a str, bearer: &'a str) -> Vec<(&'static str, &'a str)> {
    let mut claims = vec![
        ("x-farebox-customer", beta),
        ("x-farebox-quota-limit", "7919"),
        ("x-farebox-quota-used", "37"),
        ("x-farebox-limit", "6011"),
        ("x-farebox-remaining", "5974"),
        ("x-farebox-tier", "large"),
        ("x-customer-id", beta),
        ("x-forwarded-user", beta),
        ("x-amzn-apigateway-api-id", beta),
        ("x-api-key-hash", hash),
        ("cookie", "customer=beta; session=beta"),
    ];
    // The header goes before the bearer token, so this one names nobody.
    claims.push(("authorization", bearer));
    claims
}

/// An answer shows nothing that only beta has, its key least of all. The time and lengths hold any figures, and are not looked at.
fn shows_nothing_of_beta(reply: &Reply, route: &str, key: &str) {
    assert!(
        !reply.head.contains(key) && !reply.body.contains(key),
        "{route} says beta's key: {}\n{}",
        reply.head,
        reply.body
    );
    let head = reply.head.lines().filter(|line| {
        let line = line.to_ascii_lowercase();
        let is_figure_of_its_own = ["date:", "content-length:", "x-ratelimit-reset:", "x-quota-reset:"];
        !is_figure_of_its_own.iter().any(|name| line.starts_with(name))
    });
    let words = |text: &str| -> BTreeSet<String> {
        let parts = text.split(|char: char| !char.is_ascii_alphanumeric());
        parts.map(str::to_owned).collect()
    };
    let said: BTreeSet<String> = head.chain([reply.body.as_str()]).flat_map(words).collect();
    for word in OF_BETA {
        assert!(
            !said.contains(word),
            "{route} says {word}: {}\n{}",
            reply.head,
            reply.body
        );
    }
}

#[tokio::test]
async fn a_key_shows_and_changes_its_own_customer_alone_on_every_route() {
    let Two {
        system,
        front,
        acme,
        beta,
    } = two().await;
    let before = held(&system, &beta.customer).await;
    assert!(
        before.len() >= 6,
        "a record, a key, a counter, a row and Stripe's: {before:#?}"
    );
    let hash = ApiKey::parse(&beta.key).expect("a key").hash().to_string();
    let bearer = format!("Bearer {}", beta.key);
    let mut admitted = 0;
    for (_, methods, target, whom) in ROUTES {
        for method in methods {
            let route = format!("{method} {target}");
            let separator = if target.contains('?') { '&' } else { '?' };
            let target = format!("{target}{separator}customer=beta&x-api-key={}", beta.key);
            let mut headers = vec![("x-api-key", acme.key.as_str())];
            headers.extend(claims("beta", &hash, &bearer));
            let body = if target.contains("clock") {
                r#"{"advance_seconds":0}"#
            } else {
                r#"{"customer":"beta"}"#
            };
            let reply = front.call(method, &target, &headers, body).await;
            match whom {
                For::Callers => {
                    shows_nothing_of_beta(&reply, &route, &beta.key);
                    // 405 is the back end's own answer.
                    if matches!(reply.status, 200 | 405) {
                        admitted += 1;
                        let used = admitted.to_string();
                        assert_eq!(reply.header("x-quota-limit"), Some("1009"), "{route}");
                        assert_eq!(reply.header("x-quota-used"), Some(used.as_str()), "{route}");
                        assert_eq!(reply.header("x-ratelimit-limit"), Some("211"), "{route}");
                    } else {
                        assert_eq!(reply.status, 403, "{route}: {}", reply.body);
                    }
                }
                For::Stripe => {
                    shows_nothing_of_beta(&reply, &route, &beta.key);
                    assert!((400..500).contains(&reply.status), "{route}: {}", reply.status);
                }
                For::Operator => {
                    let without = front.call(method, &target, &[], body).await;
                    assert_eq!((reply.status, without.status), (200, 200), "{route}");
                    for key in [&acme.key, &beta.key] {
                        assert!(!reply.head.contains(key) && !reply.body.contains(key), "{route}");
                    }
                }
            }
            assert_eq!(held(&system, &beta.customer).await, before, "{route}");
        }
    }
    assert_eq!(admitted, 10, "what acme's tier opens, and each counted once");
}

#[tokio::test]
async fn what_is_known_of_a_key_opens_nothing() {
    let Two {
        system,
        front,
        acme,
        beta,
    } = two().await;
    let before = held(&system, &beta.customer).await;
    let key = ApiKey::parse(&beta.key).expect("a key");
    let (hash, own) = (key.hash().to_string(), acme.key.clone());
    let spliced = format!("{}{}", &beta.key[..beta.key.len() - 4], &acme.key[acme.key.len() - 4..]);
    let candidates = [
        hash.clone(),
        hash.to_uppercase(),
        format!("k#{hash}"),
        key.display_prefix().to_owned(),
        format!("{}…{}", key.display_prefix(), key.last_four()),
        spliced,
        beta.key.to_uppercase(),
        beta.key.replace("_test_", "_live_"),
        format!("{own}, {}", beta.key),
        format!("{} {own}", beta.key),
        "beta".to_owned(),
    ];
    for (_, _, target, _) in ROUTES.iter().filter(|(.., whom)| *whom == For::Callers) {
        for candidate in &candidates {
            let reply = front.call("GET", target, &[("x-api-key", candidate)], "").await;
            assert_eq!(reply.status, 401, "{target} {candidate}");
            shows_nothing_of_beta(&reply, target, &beta.key);
            let bearer = format!("Bearer {candidate}");
            let reply = front.call("GET", target, &[("authorization", &bearer)], "").await;
            assert_eq!(reply.status, 401, "{target} {bearer}");
            shows_nothing_of_beta(&reply, target, &beta.key);
        }
    }
    assert_eq!(held(&system, &beta.customer).await, before);
}

#[tokio::test]
async fn a_customer_at_its_limit_leaves_the_other_one_alone() {
    let Two {
        system,
        front,
        acme,
        beta,
    } = two().await;
    let before = held(&system, &beta.customer).await;
    let call = async |key: &str| front.call("GET", "/v1/items", &[("x-api-key", key)], "").await;
    for _ in 0..211 {
        assert_eq!(call(&acme.key).await.status, 200);
    }
    assert_eq!(call(&acme.key).await.status, 429);
    assert_eq!(held(&system, &beta.customer).await, before);
    let reply = call(&beta.key).await;
    assert_eq!((reply.status, reply.header("x-quota-used")), (200, Some("38")));
    // And one that is shut out for good.
    let (id, now) = (&acme.customer.id, system.clock().now());
    let suspended = system.control.change(id, now, |customer| {
        customer.is_suspended = true;
        Ok(())
    });
    suspended.await.expect("suspended");
    system.clock().set(now.plus_ms(100)); // a denial is confirmed again after 50 ms
    assert_eq!((call(&acme.key).await.status, call(&beta.key).await.status), (403, 200));
}
