//! What the layer adds, what it leaves out, and whom it believes.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    sync::{Arc, Mutex},
};

use farebox_tower::{Caller, FareboxLayer};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use proptest::prelude::*;
use tower::{Layer, ServiceExt, service_fn};

type Entries = BTreeMap<String, String>;

/// What the authorizer says of an admitted request, and what the client is to read.
const FIGURES: [(&str, &str, &str); 10] = [
    ("limit", "x-ratelimit-limit", "100"),
    ("remaining", "x-ratelimit-remaining", "12"),
    ("reset", "x-ratelimit-reset", "1795435260"),
    ("warning", "x-ratelimit-warning", "approaching"),
    ("ratelimit", "ratelimit", "\"per60s\";r=12;t=60"),
    ("ratelimit_policy", "ratelimit-policy", "\"per60s\";q=100;w=60"),
    ("quota_limit", "x-quota-limit", "10000"),
    ("quota_used", "x-quota-used", "8100"),
    ("quota_reset", "x-quota-reset", "1796083200"),
    ("cost", "x-farebox-cost", "5"),
];
const CALLER: [(&str, &str); 3] = [("customer", "acme"), ("tier", "pro"), ("meter", "api_calls")];

fn entries() -> Entries {
    let figures = FIGURES.iter().map(|(name, _, value)| (*name, *value));
    figures
        .chain(CALLER)
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn acme() -> Caller {
    Caller::new("acme", "pro", Some("api_calls"), Some(5)).unwrap()
}

/// What the handler saw, and the answer.
struct Seen {
    caller: Option<Caller>,
    headers: HeaderMap,
    answer: Response<()>,
}

async fn call<B: Send + 'static>(layer: FareboxLayer, request: Request<B>) -> Seen {
    let seen = Arc::new(Mutex::new(None));
    let inner = seen.clone();
    let handler = service_fn(move |request: Request<B>| {
        let caller = request.extensions().get::<Caller>().cloned();
        *inner.lock().unwrap() = Some((caller, request.headers().clone()));
        let answer = Response::builder()
            .status(StatusCode::IM_A_TEAPOT)
            .header("x-ratelimit-limit", "7")
            .header("x-handler", "kept");
        async move { Ok::<_, Infallible>(answer.body(()).unwrap()) }
    });
    let answer = layer.layer(handler).oneshot(request).await.unwrap();
    let (caller, headers) = seen.lock().unwrap().take().unwrap();
    Seen {
        caller,
        headers,
        answer,
    }
}

async fn with_extension(entries: Entries) -> Seen {
    let mut request = Request::new(());
    request.extensions_mut().insert(entries);
    call(FareboxLayer::extension::<Entries>(), request).await
}

async fn with_headers(entries: &[(&str, &str)]) -> Seen {
    let mut request = Request::new(());
    for (name, value) in entries {
        let name = format!("x-farebox-{}", name.replace('_', "-"));
        request.headers_mut().append(
            name.parse::<HeaderName>().unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    call(FareboxLayer::gateway_headers(), request).await
}

fn assert_every_header(seen: &Seen) {
    for (_, header, value) in FIGURES {
        let values: Vec<_> = seen.answer.headers().get_all(header).iter().collect();
        assert_eq!(values, [value], "{header}");
    }
    assert_eq!(seen.answer.headers()["x-handler"], "kept");
    assert_eq!(seen.answer.headers().len(), FIGURES.len() + 1);
    assert_eq!(seen.answer.status(), StatusCode::IM_A_TEAPOT);
    assert_eq!(seen.caller, Some(acme()));
}

/// The handler's answer, and nothing else.
fn assert_untouched(seen: &Seen) {
    let headers = seen.answer.headers();
    assert_eq!(
        (headers.len(), &headers["x-ratelimit-limit"]),
        (2, &HeaderValue::from_static("7"))
    );
    assert_eq!(seen.caller, None);
}

#[tokio::test]
async fn every_figure_becomes_its_header_and_replaces_the_handlers() {
    assert_every_header(&with_extension(entries()).await);

    let mut request = Request::new(());
    let map: HashMap<String, String> = entries().into_iter().collect();
    request.extensions_mut().insert(map);
    assert_every_header(&call(FareboxLayer::extension::<HashMap<String, String>>(), request).await);

    let entries = entries();
    let pairs: Vec<(&str, &str)> = entries
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_every_header(&with_headers(&pairs).await);
}

#[tokio::test]
async fn without_a_context_a_request_passes_through() {
    for layer in [
        FareboxLayer::extension::<Entries>(),
        FareboxLayer::lambda(),
        FareboxLayer::gateway_headers(),
    ] {
        assert_untouched(&call(layer, Request::new(())).await);
    }
}

#[tokio::test]
async fn an_entry_that_is_absent_sets_no_header_and_spoils_no_other() {
    for (absent, header, _) in FIGURES {
        let mut entries = entries();
        entries.remove(absent);
        let seen = with_extension(entries).await;
        let handlers_own = (header == "x-ratelimit-limit").then_some("7");
        assert_eq!(
            seen.answer.headers().get(header).map(|value| value.to_str().unwrap()),
            handlers_own
        );
        for (name, header, value) in FIGURES {
            if name != absent {
                assert_eq!(seen.answer.headers()[header], value);
            }
        }
        let cost = (absent != "cost").then_some(5);
        assert_eq!(seen.caller, Caller::new("acme", "pro", Some("api_calls"), cost));
    }
}

#[tokio::test]
async fn a_value_of_another_shape_sets_no_header() {
    let hostile = [
        "",
        " ",
        "-1",
        "+1",
        "1.5",
        "1e3",
        "0x10",
        " 1",
        "1 ",
        "null",
        "99999999999999999999",
        "1\r\nSet-Cookie: a=b",
        "1\nX: y",
        "1\0",
        "١",
        "approaching\r\nSet-Cookie: a=b",
        "\"per60s\";r=1\r\nSet-Cookie: a=b",
        "\u{7f}",
        "é",
    ];
    for value in hostile {
        for (name, header, _) in FIGURES {
            let mut entries = entries();
            entries.insert(name.to_owned(), value.to_owned());
            let seen = with_extension(entries).await;
            assert!(!seen.answer.headers().contains_key("set-cookie"));
            let kept = seen.answer.headers().get(header).map(|value| value.to_str().unwrap());
            match name {
                // Free text, as long as it can be printed.
                "ratelimit" | "ratelimit_policy"
                    if value.bytes().all(|b| matches!(b, b' '..=b'~')) && !value.is_empty() =>
                {
                    assert_eq!(kept, Some(value));
                }
                "warning" if value == "null" => assert_eq!(kept, Some(value)),
                "limit" => assert_eq!(kept, Some("7"), "{name}: {value:?}"),
                _ => assert_eq!(kept, None, "{name}: {value:?}"),
            }
        }
    }
    let mut entries = entries();
    entries.insert("ratelimit".to_owned(), "x".repeat(1_025));
    entries.insert("remaining".to_owned(), u64::MAX.to_string());
    let seen = with_extension(entries).await;
    assert!(!seen.answer.headers().contains_key("ratelimit"));
    assert_eq!(seen.answer.headers()["x-ratelimit-remaining"], "18446744073709551615");
}

#[tokio::test]
async fn a_caller_is_whole_or_absent() {
    let with = async |name: &str, value: &str| {
        let mut entries = entries();
        entries.insert(name.to_owned(), value.to_owned());
        with_extension(entries).await.caller
    };
    for bad in ["", "a b", "a/b", "acme\r\nx: y", "../admin", "ácme", &"a".repeat(65)] {
        let is_name_like = bad == "a/b" || bad == "../admin";
        assert_eq!(with("customer", bad).await, None, "{bad:?}");
        assert_eq!(with("tier", bad).await.is_some(), is_name_like, "{bad:?}");
        // What it counts as is not who it is.
        let caller = with("meter", bad).await.unwrap();
        assert_eq!(caller.meter(), is_name_like.then_some(bad));
    }
    let caller = with("cost", "-5").await.unwrap();
    assert_eq!((caller.customer(), caller.tier(), caller.cost()), ("acme", "pro", None));
    for absent in ["customer", "tier"] {
        let mut entries = entries();
        entries.remove(absent);
        assert_eq!(with_extension(entries).await.caller, None);
    }
}

#[tokio::test]
async fn a_client_cannot_write_its_own_figures_or_name() {
    // Given a request that claims to be somebody, in every way that a client and a careless layer have
    let forged = || {
        let mut request = Request::builder()
            .header("X-Farebox-Customer", "mallory")
            .header("x-farebox-tier", "enterprise")
            .header("x-farebox-limit", "999999")
            .header("x-farebox-anything", "x")
            .header("accept", "*/*")
            .body(())
            .unwrap();
        let mallory = Caller::new("mallory", "enterprise", None, None).unwrap();
        request.extensions_mut().insert(mallory);
        request
    };
    // When nobody promised that the gateway sets the headers
    for layer in [FareboxLayer::lambda(), FareboxLayer::extension::<Entries>()] {
        let seen = call(layer, forged()).await;
        // Then nothing of it is believed, or left for a handler to believe
        assert_untouched(&seen);
        assert_eq!(seen.headers.len(), 1);
        assert_eq!(seen.headers["accept"], "*/*");
    }
    // And the context wins where there is one
    let mut request = forged();
    request.extensions_mut().insert(entries());
    assert_every_header(&call(FareboxLayer::extension::<Entries>(), request).await);
}

#[tokio::test]
async fn a_header_that_is_there_twice_is_not_believed() {
    let seen = with_headers(&[
        ("customer", "mallory"),
        ("customer", "acme"),
        ("tier", "pro"),
        ("remaining", "999999"),
        ("remaining", "12"),
        ("reset", "1795435260"),
    ])
    .await;
    assert_eq!(seen.caller, None);
    assert!(!seen.answer.headers().contains_key("x-ratelimit-remaining"));
    assert_eq!(seen.answer.headers()["x-ratelimit-reset"], "1795435260");
    assert!(seen.headers.is_empty(), "handlers ask for the Caller");
}

#[tokio::test]
async fn a_header_that_is_no_text_is_not_believed() {
    let mut request = Request::new(());
    let headers = request.headers_mut();
    headers.insert("x-farebox-customer", HeaderValue::from_bytes(b"ac\xffme").unwrap());
    headers.insert("x-farebox-tier", HeaderValue::from_static("pro"));
    headers.insert("x-farebox-ratelimit", HeaderValue::from_bytes(b"\xfe").unwrap());
    assert_untouched(&call(FareboxLayer::gateway_headers(), request).await);
}

#[tokio::test]
async fn both_payload_formats_of_lambda_say_the_same() {
    for event in [include_str!("fixtures/rest.json"), include_str!("fixtures/http.json")] {
        let request = lambda_http::request::from_str(event).unwrap();
        let seen = call(FareboxLayer::lambda(), request).await;
        assert_every_header(&seen);
        assert!(!seen.headers.contains_key("x-farebox-customer"));
    }
}

#[tokio::test]
async fn a_lambda_context_may_be_nested_numeric_absent_or_nonsense() {
    let ask = async |event: &str, authorizer: serde_json::Value| {
        let mut event: serde_json::Value = serde_json::from_str(event).unwrap();
        event["requestContext"]["authorizer"] = authorizer;
        let request = lambda_http::request::from_str(&event.to_string()).unwrap();
        call(FareboxLayer::lambda(), request).await
    };
    let (rest, http) = (include_str!("fixtures/rest.json"), include_str!("fixtures/http.json"));
    let numeric =
        serde_json::json!({ "remaining": 12, "limit": { "a": 1 }, "reset": [1], "quota_used": -1, "cost": true });
    for (event, authorizer) in [
        (rest, numeric.clone()),
        (rest, serde_json::json!({ "lambda": numeric })),
        (http, serde_json::json!({ "lambda": numeric })),
    ] {
        let seen = ask(event, authorizer).await;
        assert_eq!(seen.answer.headers()["x-ratelimit-remaining"], "12");
        assert_eq!(seen.answer.headers()["x-ratelimit-limit"], "7");
        assert_eq!(seen.answer.headers().len(), 3);
    }
    for event in [rest, http] {
        assert_untouched(&ask(event, serde_json::Value::Null).await);
    }
}

#[tokio::test]
async fn an_error_of_the_service_is_passed_on() {
    let failing = service_fn(|_: Request<()>| async { Err::<Response<()>, _>("gone") });
    let mut request = Request::new(());
    request.extensions_mut().insert(entries());
    let layer = FareboxLayer::extension::<Entries>();
    assert_eq!(layer.layer(failing).oneshot(request).await.unwrap_err(), "gone");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the context holds: no panic, and only headers that a client may be shown.
    #[test]
    fn nothing_but_clean_headers_comes_out(values in proptest::collection::vec(any::<String>(), 13)) {
        let names = FIGURES.iter().map(|(name, ..)| *name).chain(CALLER.map(|(name, _)| name));
        let entries: Entries = names.map(str::to_owned).zip(values).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let seen = runtime.block_on(with_extension(entries));
        let known = |name: &HeaderName| name == "x-handler" || FIGURES.iter().any(|(_, header, _)| name == *header);
        for (name, value) in seen.answer.headers() {
            prop_assert!(known(name));
            prop_assert!(value.as_bytes().iter().all(|b| matches!(b, b' '..=b'~')));
        }
    }
}
