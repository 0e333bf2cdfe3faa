//! Keys and secrets are written down nowhere: not in a log at its most talkative, not in a table, queue, mail or answer.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use farebox_aws::control::NewKey;
use farebox_core::{
    account::WebhookSecret,
    key::{ApiKey, Mode},
    tiers::Overrides,
    time::Timestamp,
};
use farebox_local::System;
use farebox_stripe::{Buyer, CheckoutPrice, NewCheckout};
use farebox_stripe_standin::{Fault, FaultKind};
use farebox_tests::{START_S, event, items, sell, system};
use tracing_subscriber::{fmt::MakeWriter, util::SubscriberInitExt};

use crate::{
    front::{Front, Reply},
    wire::Wires,
};

const TIERS: &str = "
tiers:
  pro: {price: 49/month, included_calls: 10/month, rate_limit: 20/min, endpoints: [/v1/*], overage: $0.002/call}
  scale: {price: 99/month, included_calls: 200/month, rate_limit: 100/min, endpoints: [/v1/*, /v2/*], overage: $0.001/call}";
/// What `farebox dev` works with in place of real secrets: of Stripe's API, of its webhook, and of first keys.
const SECRETS: [&str; 3] = ["sk_test_local", "whsec_local", "first-keys-of-the-local-system-only"];
const WEBHOOK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const DAY_MS: u64 = 86_400_000;

/// Everything that is logged on this thread, at every level and by every crate.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Log {
    /// Until what is returned is dropped.
    fn listen(&self) -> impl Sized + use<> {
        let all = tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::TRACE);
        all.with_ansi(false).with_writer(self.clone()).finish().set_default()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

/// A place where something could be written down, and what is there.
type Place = (String, String);

/// Everything that the system has written down, without the log.
async fn written(system: &System) -> Vec<Place> {
    let mut places = Vec::new();
    let tables = system.tables();
    for table in [&tables.accounts, &tables.counters, &tables.ledger] {
        for item in items(system, table).await {
            places.push((format!("table {table}"), item));
        }
    }
    let queues = system.queues();
    for queue in [&queues.usage, &queues.usage_dead, &queues.alerts, &queues.alerts_dead] {
        let messages = system.drain(queue).await.expect("the queue answers");
        let shown = messages.iter().map(|message| format!("{message:?}"));
        places.extend(shown.map(|message| (format!("queue {queue}"), message)));
    }
    for entry in system.services.outbox.entries() {
        places.push((format!("outbox, {}", entry.channel), format!("{entry:?}")));
    }
    places.push(("Stripe".to_owned(), system.services.stand_in.snapshot().to_string()));
    for event in system.services.stand_in.events_after(0).events {
        places.push(("an event of Stripe's".to_owned(), event.to_string()));
    }
    let state = system.state().await.expect("the state is readable");
    places.push(("/_farebox/state".to_owned(), state.to_string()));
    places
}

/// As it is, without its public beginning, in hexadecimal digits, and as a list of bytes.
fn disguises(secret: &str) -> [String; 4] {
    let bytes = secret.as_bytes();
    let shown = if secret.len() > 40 { 12 } else { 0 };
    [
        secret.to_owned(),
        secret[shown..].to_owned(),
        bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        bytes
            .iter()
            .map(|byte| byte.to_string())
            .collect::<Vec<String>>()
            .join(", "),
    ]
}

fn nowhere(secret: &str, places: &[Place]) {
    for (place, text) in places {
        for disguise in disguises(secret) {
            assert!(
                !text.contains(&disguise),
                "{place} has {secret}: {}",
                around(text, &disguise)
            );
        }
    }
}

/// A few words around what was found.
fn around<'a>(text: &'a str, found: &str) -> &'a str {
    let at = text.find(found).unwrap_or_default();
    let floor = |at: usize| (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    &text[floor(at.saturating_sub(200))..floor((at + 200).min(text.len()))]
}

/// What somebody is told, head and body.
fn told(what: String, reply: &Reply) -> Place {
    (what, format!("{}\n{}", reply.head, reply.body))
}

/// Every place of a request that a key could be put into by mistake or on purpose. Returns all that was answered.
async fn use_and_misuse(system: &System, front: &Front, key: &str) -> Vec<Place> {
    let mut answers = Vec::new();
    // The sample API says which path it was asked for. That is the back end's own word, and no word of Farebox's: whoever puts a
    // key into a path hands it to the back end.
    let echo = format!(r#"{{"path":"/v1/{key}"}}"#);
    let mut call = async |method: &str, target: &str, headers: &[(&str, &str)], body: &str| {
        let mut reply = front.call(method, target, headers, body).await;
        if reply.status == 200 && reply.body == echo {
            reply.body.clear();
        }
        answers.push(told(
            format!("the answer {} to {method} {target}", reply.status),
            &reply,
        ));
    };
    let bearer = format!("Bearer {key}");
    for path in [
        "/v1/items",
        "/v1/generate",
        "/v2/not/in/the/tier",
        "/nowhere",
        "/v1/..%2f",
    ] {
        call("GET", path, &[("x-api-key", key)], "").await;
        call("POST", path, &[("authorization", &bearer)], key).await;
    }
    let (mut wrong, doubled) = (key.to_owned(), format!("{key},{key}"));
    wrong.pop();
    wrong.push('!');
    for headers in [
        vec![("x-api-key", wrong.as_str())],
        vec![("x-api-key", &doubled)],
        vec![
            ("x-api-key", key),
            ("x-api-key", key),
            ("user-agent", key),
            ("cookie", key),
        ],
        vec![("authorization", key)],
        vec![("stripe-signature", key)],
    ] {
        for target in [
            "/v1/items".to_owned(),
            format!("/v1/{key}"),
            format!("/v1/items?key={key}"),
            format!("/_farebox/welcome?session_id={key}"),
            format!("/_farebox/welcome?session_id=cs_{key}"),
        ] {
            call("GET", &target, &headers, "").await;
        }
        let body = format!(r#"{{"id":"{key}","type":"{key}"}}"#);
        call("POST", "/_farebox/stripe/webhook", &headers, &body).await;
        call("POST", "/_farebox/clock", &headers, &body).await;
    }
    let event =
        serde_json::json!({ "headers": { "x-api-key": [key] }, "type": "REQUEST", "path": 7, "httpMethod": key });
    let authorizer = &system.gateway.authorizers()[0];
    let refused = authorizer.handle(&event, system.clock().now()).await;
    let error = refused.err().expect("no event of API Gateway's");
    answers.push(("the authorizer's error".to_owned(), format!("{error} {error:?}")));
    answers
}

/// Somebody buys on a Checkout page, and is shown the first key, once. What any page said later comes with it.
async fn buy(system: &System, front: &Front) -> (String, Vec<Place>) {
    let terms = system
        .control
        .terms_of(system.catalog.0, "pro", &Overrides::default())
        .await;
    let prices = system.books.ensure_plan(&terms.expect("terms")).await.expect("prices");
    let metered = prices.metered.into_values().map(CheckoutPrice::Metered);
    let checkout = NewCheckout {
        buyer: Buyer::Email("ada@buyer.example".to_owned()),
        client_reference_id: Some("buyer".to_owned()),
        prices: std::iter::once(CheckoutPrice::Flat(prices.base))
            .chain(metered)
            .collect(),
        trial_days: None,
        metadata: Default::default(),
        success_url: "https://shop.example/welcome?session_id={CHECKOUT_SESSION_ID}".to_owned(),
        cancel_url: None,
    };
    let session = system.services.stripe.create_checkout_session(&checkout, "shop").await;
    let session = session.expect("a session").id;
    let stripe = Front::at(system.services.addresses[2]);
    let page = format!("/_standin/checkout/{session}");
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let completed = stripe.call("POST", &page, &form, "name=Ada").await;
    assert!(completed.status < 400, "{}", completed.body);

    let welcome = format!("/_farebox/welcome?session_id={session}");
    let shown = front.call("GET", &welcome, &[("accept", "text/html")], "").await;
    assert_eq!(shown.status, 200, "{}", shown.body);
    let (_, after) = shown.body.split_once("<pre>").expect("a key");
    let (key, _) = after.split_once("</pre>").expect("a key");
    let mut later = vec![
        told("Stripe's Checkout page".to_owned(), &completed),
        ("the head of the welcome page".to_owned(), shown.head.clone()),
    ];
    let elsewhere = shown.body.replacen(key, "", 1);
    later.push(("the welcome page a second time".to_owned(), elsewhere));
    system.deliver_events().await.expect("delivered");
    for accept in ["text/html", "application/json"] {
        let again = front.call("GET", &welcome, &[("accept", accept)], "").await;
        assert_eq!(again.status, 410, "{}", again.body);
        later.push(("the next welcome page".to_owned(), again.head + &again.body));
    }
    (key.to_owned(), later)
}

/// The same with tables and Stripe out of order. Returns what was answered.
async fn use_in_trouble(system: &System, key: &str) -> Place {
    let wires = Wires::to(system).await;
    wires.dynamodb.cut(true);
    wires.sqs.cut(true);
    let cut_off = wires.environment(system);
    let answer = cut_off.handle(&event(key, "/v1/items"), system.clock().now()).await;
    let answer = serde_json::to_string(&answer.ok().expect("an answer")).expect("an answer is JSON");
    assert!(answer.contains("unavailable"), "{answer}");
    for kind in [
        FaultKind::Error500BeforeCommit,
        FaultKind::Malformed,
        FaultKind::DropAfterCommit,
    ] {
        system.services.stand_in.misbehave(Fault {
            method: None,
            path_prefix: "/v1/".to_owned(),
            times: 2,
            kind,
        });
    }
    ("the answer without tables".to_owned(), answer)
}

#[tokio::test]
async fn no_key_and_no_secret_is_ever_written_down() {
    let log = Log::default();
    let heard = log.listen();
    let system = system(TIERS, 2).await;
    let front = Front::open(&system).await;
    let sold = sell(&system, "pro").await;
    let (id, now) = (&sold.customer.id, system.clock().now());
    // Somebody who is called with alerts, and has a key that soon expires and one that replaces it.
    let hook = format!("http://{}/hooks/acme", system.services.outbox_address);
    let told = system.control.change(id, now, |customer| {
        customer.contact.webhook = Some(hook.clone());
        customer.contact.webhook_secrets = vec![WebhookSecret::new(WEBHOOK_SECRET.to_owned())];
        Ok(())
    });
    told.await.expect("changed");
    let new = NewKey {
        brand: "fb".to_owned(),
        mode: Mode::Test,
        name: "expires".to_owned(),
        scopes: Vec::new(),
        expires: Some(now.plus_ms(3 * DAY_MS)),
    };
    let expiring = system.control.issue_key(id, new, now).await.expect("issued").key;
    let replaced = system.control.rotate_key(expiring.hash(), "fb", 86_400, now).await;
    let (first, pages) = buy(&system, &front).await;
    let keys = [
        sold.key.clone(),
        first,
        expiring.reveal().to_owned(),
        replaced.expect("rotated").key.reveal().to_owned(),
    ];

    let mut answers = pages;
    for key in &keys {
        answers.extend(use_and_misuse(&system, &front, key).await);
        answers.push(use_in_trouble(&system, key).await);
        system.send_usage().await.expect("folded");
        if let Err(error) = system.run_until(system.clock().now().plus_ms(DAY_MS)).await {
            answers.push(("an error of the schedule".to_owned(), format!("{error} {error:?}")));
        }
    }
    system
        .control
        .revoke_key(expiring.hash(), system.clock().now())
        .await
        .expect("revoked");
    // A month's end: reports, invoices, mails, webhooks.
    system
        .run_until(Timestamp::from_s(START_S).plus_ms(35 * DAY_MS))
        .await
        .expect("time passes");
    drop(heard);

    let mut places = written(&system).await;
    let has = |channel: &str| places.iter().any(|(place, _)| place == channel);
    for channel in [
        "outbox, email",
        "outbox, webhook",
        "table farebox-ledger",
        "an event of Stripe's",
    ] {
        assert!(
            has(channel),
            "nothing in {channel}: {:?}",
            places
                .iter()
                .map(|(place, _)| place)
                .collect::<std::collections::BTreeSet<_>>()
        );
    }
    // What may be written down is found where it belongs, so what is not found is not there.
    for key in &keys {
        let hash = ApiKey::parse(key).expect("a key").hash().to_string();
        assert!(
            places
                .iter()
                .any(|(place, text)| place.contains("accounts") && text.contains(&hash))
        );
        assert!(places.iter().any(|(_, text)| text.contains(&key[..12])));
    }
    let has_secret = |(place, text): &&Place| place.contains("accounts") && text.contains(WEBHOOK_SECRET);
    assert_eq!(
        places.iter().filter(has_secret).count(),
        1,
        "the customer's own record signs the calls"
    );
    places.retain(|place| !has_secret(&place));
    // Nor is any of them said. The one page that shows a buyer the first key is here without it.
    assert!(answers.len() > keys.len() * 40, "{} answers", answers.len());
    places.extend(answers);
    assert!(log.text().len() > 100_000, "the log is at its most talkative");
    for secret in SECRETS
        .into_iter()
        .chain([WEBHOOK_SECRET])
        .chain(keys.iter().map(String::as_str))
    {
        nowhere(secret, &places);
    }
    let everything = log.text();
    places = vec![("the log".to_owned(), everything.clone())];
    for secret in SECRETS.into_iter().chain(keys.iter().map(String::as_str)) {
        nowhere(secret, &places);
    }
    // Customers' records, their webhooks' secrets among them, are read by the SDK, which shows what it reads below INFO. There a
    // function logs what Farebox itself says, and nothing else (`telemetry::start`).
    let is_logged = |line: &&str| {
        [" INFO ", " WARN ", " ERROR ", " DEBUG farebox", " TRACE farebox"]
            .iter()
            .any(|begin| line.contains(begin))
    };
    let quiet: Vec<&str> = everything.lines().filter(is_logged).collect();
    assert!(quiet.len() > 20, "{} lines", quiet.len());
    nowhere(WEBHOOK_SECRET, &[("a function's log".to_owned(), quiet.join("\n"))]);
}
