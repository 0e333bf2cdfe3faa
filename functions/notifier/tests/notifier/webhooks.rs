//! Calls of customers' webhooks.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use farebox_core::{
    alert::{AlertMessage, Occasion, Recipient},
    money::{Currency, Money},
    time::Period,
};
use farebox_notifier::{AddressPolicy, Http};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::system::{NOW_S, SECRET, System, listen, message, quota};

fn only_hook(system: &System, url: &str) -> Recipient {
    Recipient {
        email: None,
        webhook: Some(url.to_owned()),
        ..system.acme()
    }
}

async fn start() -> System {
    let system = System::start().await;
    system
        .put_customer("acme", json!({ "webhook_secrets": [SECRET] }))
        .await;
    system
}

/// What became of the delivery: its state and the reason for it.
async fn state(system: &System, id: &str) -> (String, String) {
    use aws_sdk_dynamodb::types::AttributeValue;
    let get = system.clients.dynamodb.get_item().table_name("accounts");
    let get = get.key("pk", AttributeValue::S(format!("a#{id}")));
    let item = get
        .key("sk", AttributeValue::S("webhook".to_owned()))
        .send()
        .await
        .unwrap()
        .item
        .unwrap();
    let text = |name: &str| item[name].as_s().unwrap().clone();
    (text("state"), text("reason"))
}

#[tokio::test]
async fn an_event_carries_a_signature_of_every_secret() {
    let system = System::start().await;
    let old = "whsec_b2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xk";
    system
        .put_customer("acme", json!({ "webhook_secrets": [SECRET, old] }))
        .await;
    let url = format!("{}/acme", system.hooks);
    assert_eq!(
        system
            .deliver(&[&message("acme.1", Some(only_hook(&system, &url)), quota(80))])
            .await,
        Vec::<String>::new()
    );

    let hook = &system.sent("webhook")[0];
    let (id, timestamp) = (&hook.headers["webhook-id"], &hook.headers["webhook-timestamp"]);
    assert_eq!((id.as_str(), timestamp), ("acme~2e1", &NOW_S.to_string()));
    assert_eq!(hook.headers["content-type"], "application/json");
    assert!(hook.headers["user-agent"].starts_with("farebox/"));
    assert!(hook.headers["host"].starts_with("127.0.0.1:"));
    // Computed by other code than the notifier's.
    let signature = |secret: &str| {
        let key = BASE64_STANDARD.decode(&secret["whsec_".len()..]).unwrap();
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
        let tag = ring::hmac::sign(&key, format!("{id}.{timestamp}.{}", hook.body).as_bytes());
        format!("v1,{}", BASE64_STANDARD.encode(tag))
    };
    assert_eq!(
        hook.headers["webhook-signature"],
        format!("{} {}", signature(SECRET), signature(old))
    );
}

#[tokio::test]
async fn every_event_has_its_type_and_data() {
    let system = start().await;
    let period = Period {
        start: 1_796_083_200,
        end: 1_798_761_600,
    };
    let occasions = [
        quota(80),
        Occasion::SpendCap {
            tier: "pro".to_owned(),
            meter: "tokens".to_owned(),
            percent: 100,
            units: 9,
            cap_units: 9,
            cap: Money(10_000),
            currency: Currency::USD,
            period,
        },
        Occasion::PaymentFailed {
            invoice: "in_1".to_owned(),
            amount_due: 4_978,
            currency: "usd".to_owned(),
            attempts: 1,
            next_attempt: None,
            pay_url: Some("https://pay.example".to_owned()),
            policy: "block".to_owned(),
            policy_from: period.end,
        },
        Occasion::TrialEnding {
            tier: "pro".to_owned(),
            trial_end: period.end,
        },
        Occasion::KeyExpiring {
            name: "build".to_owned(),
            prefix: "acme_live_Ab3d".to_owned(),
            last_four: "x9Yz".to_owned(),
            expires: period.end,
        },
    ];
    let to = only_hook(&system, &format!("{}/acme", system.hooks));
    for (i, occasion) in occasions.into_iter().enumerate() {
        system
            .deliver(&[&message(&format!("a{i}"), Some(to.clone()), occasion)])
            .await;
    }
    let bodies = system
        .sent("webhook")
        .into_iter()
        .map(|hook| serde_json::from_str(&hook.body).unwrap());
    insta::assert_json_snapshot!("events", bodies.collect::<Vec<Value>>());
}

#[tokio::test]
async fn the_answer_decides_what_becomes_of_the_event() {
    let system = start().await;
    let url = format!("{}/acme", system.hooks);
    for (status, expected) in [
        (200, "sent"),
        (204, "sent"),
        (299, "sent"),
        (410, "gave_up"),
        (301, "waiting"),
        (307, "waiting"),
        (400, "waiting"),
        (401, "waiting"),
        (404, "waiting"),
        (429, "waiting"),
        (500, "waiting"),
        (503, "waiting"),
    ] {
        let id = format!("a{status}");
        system.outbox.fail_next("webhook", 1, status);
        let failed = system
            .deliver(&[&message(&id, Some(only_hook(&system, &url)), quota(80))])
            .await;
        assert_eq!(state(&system, &id).await.0, expected, "{status}");
        assert_eq!(failed.is_empty(), expected != "waiting", "{status}");
    }
}

#[tokio::test]
async fn without_a_secret_nothing_is_called() {
    let system = System::start().await;
    let url = format!("{}/acme", system.hooks);
    let alert = |id: &str| message(id, Some(only_hook(&system, &url)), quota(80));
    // No such customer, no secret, none that is one.
    assert_eq!(system.deliver(&[&alert("a")]).await, Vec::<String>::new());
    system.put_customer("acme", json!({ "webhook_secrets": [] })).await;
    assert_eq!(system.deliver(&[&alert("b")]).await, Vec::<String>::new());
    system
        .put_customer("acme", json!({ "webhook_secrets": ["whsec_???"] }))
        .await;
    assert_eq!(system.deliver(&[&alert("c")]).await, Vec::<String>::new());
    for id in ["a", "b", "c"] {
        let expected = (
            "gave_up".to_owned(),
            "the customer has no secret to sign with".to_owned(),
        );
        assert_eq!(state(&system, id).await, expected);
    }
    assert_eq!(system.outbox.entries(), []);
}

#[tokio::test]
async fn addresses_that_are_not_called_are_given_up_before_a_byte_is_sent() {
    let mut system = start().await;
    // As on AWS. The outbox listens, and must not be reached.
    system.deps.http = Http::new(AddressPolicy::PublicOnly);
    let port = system.hooks.rsplit(':').next().unwrap().to_owned();
    for (i, url) in [
        format!("http://127.0.0.1:{port}"),
        format!("https://127.0.0.1:{port}"),
        format!("https://localhost:{port}"),
        format!("https://[::ffff:127.0.0.1]:{port}"),
        format!("https://[::1]:{port}"),
        "https://169.254.169.254/latest/meta-data".to_owned(),
        "https://[fd00:ec2::254]/".to_owned(),
        "https://10.0.0.1/".to_owned(),
        "https://user@example.com/".to_owned(),
        "nonsense".to_owned(),
    ]
    .iter()
    .enumerate()
    {
        let id = format!("a{i}");
        let alert = message(&id, Some(only_hook(&system, url)), quota(80));
        assert_eq!(system.deliver(&[&alert]).await, Vec::<String>::new(), "{url}");
        let (state, reason) = state(&system, &id).await;
        assert_eq!(state, "gave_up", "{url}: {reason}");
        assert!(!reason.contains(url.as_str()), "{reason}");
    }
    assert_eq!(system.outbox.entries(), []);
}

#[tokio::test]
async fn a_host_with_one_address_that_is_not_called_is_not_called_at_all() {
    let mut system = start().await;
    system.deps.http = Http::new(AddressPolicy::PublicOnly).resolving(|_, port| {
        let addresses = ["1.1.1.1", "10.0.0.1"].map(|ip| std::net::SocketAddr::new(ip.parse().unwrap(), port));
        Box::pin(async move { Ok(addresses.to_vec()) })
    });
    system
        .deliver(&[&message(
            "a",
            Some(only_hook(&system, "https://hooks.example/")),
            quota(80),
        )])
        .await;
    let reason = "the host is at an address that is not called: private".to_owned();
    assert_eq!(state(&system, "a").await, ("gave_up".to_owned(), reason));
}

#[tokio::test]
async fn plain_http_leads_nowhere_but_to_this_machine() {
    let mut system = start().await;
    system.deps.http = Http::new(AddressPolicy::LoopbackToo).resolving(|_, port| {
        let address = std::net::SocketAddr::new([1, 1, 1, 1].into(), port);
        Box::pin(async move { Ok(vec![address]) })
    });
    system
        .deliver(&[&message(
            "a",
            Some(only_hook(&system, "http://hooks.example/")),
            quota(80),
        )])
        .await;
    assert_eq!(
        state(&system, "a").await,
        ("gave_up".to_owned(), "the address is not https".to_owned())
    );
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_tried_again() {
    let mut system = start().await;
    for (id, answer) in [("a", None), ("b", Some(vec![]))] {
        system.deps.http = Http::new(AddressPolicy::PublicOnly).resolving(move |_, _| {
            let answer = answer.clone().ok_or_else(|| std::io::Error::other("no such host"));
            Box::pin(async move { answer })
        });
        let alert = message(id, Some(only_hook(&system, "https://hooks.example/")), quota(80));
        assert_eq!(system.deliver(&[&alert]).await, ["0"]);
        assert_eq!(state(&system, id).await.0, "waiting");
    }
}

/// A TLS server with a certificate for `hooks.example`. Counts its connections and keeps the names that were asked for.
struct TlsHook {
    port: u16,
    names: Arc<Mutex<Vec<Option<String>>>>,
    roots: RootCertStore,
}

impl TlsHook {
    async fn start() -> Self {
        let certificate = CertificateDer::from(include_bytes!("fixtures/hooks.example.cert.der").to_vec());
        let key = PrivatePkcs8KeyDer::from(include_bytes!("fixtures/hooks.example.key.der").to_vec());
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], PrivateKeyDer::Pkcs8(key))
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (listener, _) = listen().await;
        let port = listener.local_addr().unwrap().port();
        let names: Arc<Mutex<Vec<Option<String>>>> = Arc::default();
        let asked = Arc::clone(&names);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                asked
                    .lock()
                    .unwrap()
                    .push(stream.get_ref().1.server_name().map(str::to_owned));
                let _ = stream.read(&mut [0; 16_384]).await;
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
                let _ = stream.shutdown().await;
            }
        });
        Self { port, names, roots }
    }

    fn connections(&self) -> usize {
        self.names.lock().unwrap().len()
    }
}

#[tokio::test]
async fn the_connection_goes_to_the_checked_address_with_the_name_of_the_host() {
    let (mut system, hook) = (start().await, TlsHook::start().await);
    let (resolutions, port) = (Arc::new(AtomicUsize::new(0)), hook.port);
    let count = Arc::clone(&resolutions);
    // The first resolution is harmless, any further one is not: DNS rebinding.
    let http = Http::new(AddressPolicy::LoopbackToo)
        .trusting(hook.roots.clone())
        .resolving(move |host, asked| {
            assert_eq!((host.as_str(), asked), ("hooks.example", 443));
            let is_first = count.fetch_add(1, Ordering::SeqCst) == 0;
            let address = if is_first { [127, 0, 0, 1] } else { [169, 254, 169, 254] };
            Box::pin(async move { Ok(vec![std::net::SocketAddr::from((address, port))]) })
        });
    system.deps.http = http;
    let alert = |id: &str| message(id, Some(only_hook(&system, "https://hooks.example/x")), quota(80));
    assert_eq!(system.deliver(&[&alert("a")]).await, Vec::<String>::new());
    assert_eq!(state(&system, "a").await.0, "sent");
    assert_eq!(*hook.names.lock().unwrap(), [Some("hooks.example".to_owned())]);
    assert_eq!(resolutions.load(Ordering::SeqCst), 1);

    // The next alert resolves anew, and is refused.
    assert_eq!(system.deliver(&[&alert("b")]).await, Vec::<String>::new());
    assert_eq!(state(&system, "b").await.0, "gave_up");
    assert_eq!((hook.connections(), resolutions.load(Ordering::SeqCst)), (1, 2));
}

#[tokio::test]
async fn a_certificate_that_is_not_the_host_s_is_not_talked_to() {
    let (mut system, hook) = (start().await, TlsHook::start().await);
    let port = hook.port;
    let http = move |roots: Option<&RootCertStore>| {
        let http = Http::new(AddressPolicy::LoopbackToo)
            .resolving(move |_, _| Box::pin(async move { Ok(vec![([127, 0, 0, 1], port).into()]) }));
        match roots {
            Some(roots) => http.trusting(roots.clone()),
            None => http,
        }
    };
    // Another name; then the right name, from nobody that is trusted.
    for (id, url, roots) in [
        ("a", "https://other.example/", Some(&hook.roots)),
        ("b", "https://hooks.example/", None),
    ] {
        system.deps.http = http(roots);
        let alert = message(id, Some(only_hook(&system, url)), quota(80));
        assert_eq!(system.deliver(&[&alert]).await, ["0"]);
        let (state, reason) = state(&system, id).await;
        assert!(
            state == "waiting" && reason.starts_with("TLS failed: "),
            "{state} {reason}"
        );
    }
    assert_eq!(hook.connections(), 0);
}

/// A server that reads a request and answers with these bytes, then with `then` for ever.
async fn raw(head: Vec<u8>, then: Option<(Vec<u8>, Duration)>) -> String {
    let (listener, url) = listen().await;
    tokio::spawn(answer(listener, head, then));
    url
}

async fn answer(listener: TcpListener, head: Vec<u8>, then: Option<(Vec<u8>, Duration)>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let (head, then) = (head.clone(), then.clone());
        tokio::spawn(async move {
            let _ = stream.read(&mut [0; 16_384]).await;
            let _ = stream.write_all(&head).await;
            while let Some((bytes, pause)) = &then {
                tokio::time::sleep(*pause).await;
                if stream.write_all(bytes).await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn took(system: &System, alert: &AlertMessage) -> (Vec<String>, Duration) {
    let start = Instant::now();
    let failed = system.deliver(&[alert]).await;
    (failed, start.elapsed())
}

#[tokio::test]
async fn a_call_ends_after_three_seconds_whatever_the_other_side_does() {
    let system = start().await;
    // Never answers; answers its head byte by byte; is not reachable.
    let silent = raw(vec![], Some((vec![], Duration::from_secs(60)))).await;
    let slow = raw(
        b"HTTP/1.1 200 OK\r\nx: ".to_vec(),
        Some((b"y".to_vec(), Duration::from_millis(100))),
    )
    .await;
    for (id, url) in [("a", &silent), ("b", &slow)] {
        let (failed, took) = took(&system, &message(id, Some(only_hook(&system, url)), quota(80))).await;
        assert_eq!(failed, ["0"]);
        assert!((3.0..4.5).contains(&took.as_secs_f64()), "{took:?}");
        let reason = "no answer within 3 s".to_owned();
        assert_eq!(state(&system, id).await, ("waiting".to_owned(), reason));
    }
    let (listener, closed) = listen().await;
    drop(listener);
    system
        .deliver(&[&message("c", Some(only_hook(&system, &closed)), quota(80))])
        .await;
    assert_eq!(state(&system, "c").await.1, "no connection: connection refused");
}

#[tokio::test]
async fn a_long_answer_is_not_read_to_its_end() {
    let system = start().await;
    let endless = Some((vec![b'x'; 64 * 1024], Duration::ZERO));
    let body = raw(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), endless.clone()).await;
    let (failed, took_body) = took(&system, &message("a", Some(only_hook(&system, &body)), quota(80))).await;
    assert_eq!((failed, state(&system, "a").await.0), (vec![], "sent".to_owned()));
    assert!(took_body < Duration::from_secs(2), "{took_body:?}");

    let head = raw(b"HTTP/1.1 200 OK\r\nx: ".to_vec(), endless).await;
    let (failed, took_head) = took(&system, &message("b", Some(only_hook(&system, &head)), quota(80))).await;
    assert_eq!(
        (failed, state(&system, "b").await.0),
        (vec!["0".to_owned()], "waiting".to_owned())
    );
    assert!(took_head < Duration::from_secs(2), "{took_head:?}");
}

#[tokio::test]
async fn an_answer_that_drips_has_been_given_all_the_same() {
    let system = start().await;
    let drips = raw(
        b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
        Some((b"x".to_vec(), Duration::from_millis(100))),
    )
    .await;
    let (failed, took) = took(&system, &message("a", Some(only_hook(&system, &drips)), quota(80))).await;
    assert_eq!((failed, state(&system, "a").await.0), (vec![], "sent".to_owned()));
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let system = start().await;
    let there = format!("{}/there", system.hooks);
    let here = raw(
        format!("HTTP/1.1 307 x\r\nlocation: {there}\r\ncontent-length: 0\r\n\r\n").into(),
        None,
    )
    .await;
    let alert = message("a", Some(only_hook(&system, &here)), quota(80));
    assert_eq!(system.deliver(&[&alert]).await, ["0"]);
    let reason = "the webhook answered 307: redirects are not followed".to_owned();
    assert_eq!(state(&system, "a").await, ("waiting".to_owned(), reason));
    assert_eq!(system.outbox.entries(), []);
}

#[tokio::test]
async fn what_is_not_http_is_a_failure() {
    let system = start().await;
    for (id, bytes) in [
        ("a", &b"SSH-2.0-OpenSSH\r\n"[..]),
        ("b", b""),
        ("c", b"HTTP/1.1 200"),
        ("d", &[0; 4_096]),
    ] {
        let (listener, url) = listen().await;
        tokio::spawn(async move {
            if let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 16_384]).await;
                let _ = stream.write_all(bytes).await;
            }
        });
        let alert = message(id, Some(only_hook(&system, &url)), quota(80));
        assert_eq!(system.deliver(&[&alert]).await, ["0"], "{id}");
        assert_eq!(state(&system, id).await.0, "waiting", "{id}");
    }
}
