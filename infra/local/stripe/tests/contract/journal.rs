//! The journal: what was answered is still there after a crash, once.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use farebox_stripe_standin::{FaultKind, OpenError, Options, StandIn};
use proptest::prelude::*;
use serde_json::Value;

use crate::api::{Api, DAY, FEBRUARY_END, HOUR, START, id};

/// A path in the temporary directory that no other test has, without the file.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("farebox-stripe-standin-{}-{number}.jsonl", std::process::id()));
        let _ = fs::remove_file(&path);
        Self(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn open(journal: PathBuf, at: i64) -> Result<StandIn, OpenError> {
    StandIn::open(Options {
        journal: Some(journal),
        ..Options::new(Arc::new(move || at))
    })
}

/// Everything that can be seen from outside.
fn seen(standin: &StandIn) -> (Value, Vec<Value>) {
    (standin.snapshot(), standin.events_after(0).events)
}

#[tokio::test]
async fn a_crash_at_any_byte_of_the_last_write_loses_nothing_that_was_answered() {
    let place = Place::new();
    let api = Api::journaled(place.0.clone()).await;
    let meter = api.meter().await;
    let price = api.metered_price(&meter, "unit_amount=2").await;
    let customer = api.customer().await;
    api.subscribe(&customer, &[&price]).await;
    api.report(&customer, 5, "&identifier=a").await.ok();
    let answered = seen(&api.standin);
    let length = fs::metadata(&place.0).expect("a journal").len();
    api.report(&customer, 7, "&identifier=b").await.ok();
    let complete = seen(&api.standin);
    let journal = fs::read(&place.0).expect("a journal");

    let cut = Place::new();
    for end in length as usize..=journal.len() {
        fs::write(&cut.0, &journal[..end]).expect("writes");
        let standin = open(cut.0.clone(), START).expect("opens");
        let expected = if end == journal.len() { &complete } else { &answered };
        assert_eq!(&seen(&standin), expected, "cut at byte {end}");
        drop(standin);
        let left = fs::metadata(&cut.0).expect("a journal").len();
        assert_eq!(left, if end == journal.len() { end as u64 } else { length });
    }
}

#[tokio::test]
async fn a_reopened_stand_in_goes_on_where_it_was() {
    let place = Place::new();
    let (customer, first) = {
        let api = Api::journaled(place.0.clone()).await;
        let meter = api.meter().await;
        let price = api.metered_price(&meter, "unit_amount=2").await;
        let customer = api.customer().await;
        api.subscribe(&customer, &[&price]).await;
        api.report(&customer, 5, "&identifier=a").await.ok();
        api.misbehave("/v1/customers", FaultKind::Error500AfterCommit);
        (customer, api.post_with_key("/v1/customers", "name=B", "k").await)
    };
    let api = Api::journaled(place.0.clone()).await;
    assert_eq!(api.post_with_key("/v1/customers", "name=B", "k").await.body, first.body);
    assert_eq!(
        api.get("/v1/customers").await.ok()["data"]
            .as_array()
            .expect("data")
            .len(),
        2
    );
    assert_eq!(api.report(&customer, 5, "&identifier=a").await.status, 400);
    let new = id(&api.post("/v1/customers", "name=C").await.ok());
    assert_ne!(new, customer);
    api.set_clock(FEBRUARY_END + HOUR);
    assert_eq!(api.newest_invoice(&customer).await["total"], 10);
}

#[tokio::test]
async fn time_that_only_passes_is_in_the_journal_too() {
    let place = Place::new();
    let api = Api::journaled(place.0.clone()).await;
    let price = api.price("unit_amount=100").await;
    api.subscribe(&api.customer().await, &[&price]).await;
    api.set_clock(FEBRUARY_END + HOUR);
    api.standin.settle();
    let before = seen(&api.standin);
    let length = fs::metadata(&place.0).expect("a journal").len();
    api.standin.settle();
    api.get("/v1/customers").await.ok();
    assert_eq!(
        fs::metadata(&place.0).expect("a journal").len(),
        length,
        "what changes nothing is not journaled"
    );
    // Even under a clock that is behind.
    assert_eq!(seen(&open(place.0.clone(), START).expect("opens")), before);
}

#[test]
fn foreign_files_and_versions_and_settings_are_told_apart() {
    let place = Place::new();
    fs::write(&place.0, "hello\n").expect("writes");
    assert!(matches!(open(place.0.clone(), START), Err(OpenError::NotAJournal)));
    fs::write(&place.0, "{\"farebox_stripe_standin\":99,\"settings\":{}}\n").expect("writes");
    let error = open(place.0.clone(), START).expect_err("another version");
    assert_eq!(
        error.to_string(),
        "opening the journal: its format is version 99, this stand-in knows version 2"
    );
    fs::remove_file(&place.0).expect("removes");
    drop(open(place.0.clone(), START).expect("opens"));
    let other = StandIn::open(Options {
        journal: Some(place.0.clone()),
        invoice_grace_s: DAY,
        ..Options::new(Arc::new(|| START))
    });
    assert!(matches!(other, Err(OpenError::Settings { .. })));
    fs::write(
        &place.0,
        [fs::read(&place.0).expect("reads"), b"rubbish\n".to_vec()].concat(),
    )
    .expect("writes");
    assert!(matches!(
        open(place.0.clone(), START),
        Err(OpenError::Corrupt { line: 2, .. })
    ));
}

/// A step of a random history.
#[derive(Debug, Clone)]
enum Step {
    Customer,
    Subscribe {
        customer: usize,
        flat: bool,
        trial: bool,
    },
    Report {
        customer: usize,
        value: i64,
        identifier: u8,
        key: bool,
    },
    Switch {
        subscription: usize,
        flat: bool,
    },
    Cancel {
        subscription: usize,
        at_period_end: bool,
    },
    Card {
        customer: usize,
        fails: bool,
    },
    Pay,
    Checkout {
        flat: bool,
        presses: bool,
    },
    FailFinalization,
    Fault(FaultKind),
    Pass(i64),
    Read,
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![
        Just(FaultKind::Error500BeforeCommit),
        Just(FaultKind::Error500AfterCommit),
        Just(FaultKind::RateLimited429),
        Just(FaultKind::Malformed),
    ];
    prop_oneof![
        1 => Just(Step::Customer),
        2 => (0..3usize, any::<bool>(), any::<bool>()).prop_map(|(customer, flat, trial)| Step::Subscribe { customer, flat, trial }),
        6 => (0..3usize, -5..500i64, 0..6u8, any::<bool>())
            .prop_map(|(customer, value, identifier, key)| Step::Report { customer, value, identifier, key }),
        1 => (0..3usize, any::<bool>()).prop_map(|(subscription, flat)| Step::Switch { subscription, flat }),
        1 => (0..3usize, any::<bool>()).prop_map(|(subscription, at_period_end)| Step::Cancel { subscription, at_period_end }),
        2 => (0..3usize, any::<bool>()).prop_map(|(customer, fails)| Step::Card { customer, fails }),
        1 => Just(Step::Pay),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(flat, presses)| Step::Checkout { flat, presses }),
        1 => Just(Step::FailFinalization),
        1 => fault.prop_map(Step::Fault),
        3 => prop_oneof![1..HOUR, HOUR..3 * DAY, 20 * DAY..70 * DAY].prop_map(Step::Pass),
        1 => Just(Step::Read),
    ]
}

async fn run(api: &Api, steps: Vec<Step>) {
    let meter = api.meter().await;
    let prices = [
        api.metered_price(&meter, "unit_amount_decimal=0.7").await,
        api.price("unit_amount=999").await,
    ];
    let (mut customers, mut subscriptions) = (vec![api.customer().await], Vec::new());
    for step in steps {
        match step {
            Step::Customer => {
                let answer = api.post("/v1/customers", "name=N").await;
                customers.extend(
                    serde_json::from_str::<Value>(&answer.body)
                        .ok()
                        .and_then(|body| body["id"].as_str().map(str::to_owned)),
                );
            }
            Step::Subscribe { customer, flat, trial } => {
                let customer = &customers[customer % customers.len()];
                let trial = if trial {
                    "&trial_period_days=5&trial_settings[end_behavior][missing_payment_method]=pause"
                } else {
                    ""
                };
                let form = format!(
                    "customer={customer}&items[0][price]={}{trial}",
                    prices[usize::from(flat)]
                );
                let answer = api.post("/v1/subscriptions", &form).await;
                subscriptions.extend(
                    serde_json::from_str::<Value>(&answer.body)
                        .ok()
                        .filter(|body| body["id"].is_string()),
                );
            }
            Step::Report {
                customer,
                value,
                identifier,
                key,
            } => {
                let customer = &customers[customer % customers.len()];
                let form = format!(
                    "event_name=api_calls&identifier=i{identifier}&payload[stripe_customer_id]={customer}&payload[value]={value}"
                );
                if key {
                    api.post_with_key("/v1/billing/meter_events", &form, &format!("k{identifier}"))
                        .await;
                } else {
                    api.post("/v1/billing/meter_events", &form).await;
                }
            }
            Step::Switch { subscription, flat } if !subscriptions.is_empty() => {
                let subscription = &subscriptions[subscription % subscriptions.len()];
                let item = subscription["items"]["data"][0]["id"].as_str().expect("an id");
                let form = format!("items[0][id]={item}&items[0][price]={}", prices[usize::from(flat)]);
                api.post(&format!("/v1/subscriptions/{}", id(subscription)), &form)
                    .await;
            }
            Step::Cancel {
                subscription,
                at_period_end,
            } if !subscriptions.is_empty() => {
                let path = format!(
                    "/v1/subscriptions/{}",
                    id(&subscriptions[subscription % subscriptions.len()])
                );
                if at_period_end {
                    api.post(&path, "cancel_at_period_end=true").await;
                } else {
                    api.delete(&format!("{path}?invoice_now=true")).await;
                }
            }
            Step::Switch { .. } | Step::Cancel { .. } => {}
            Step::Card { customer, fails } => {
                let method = if fails {
                    "pm_card_chargeCustomerFail"
                } else {
                    "pm_card_visa"
                };
                let path = format!("/v1/customers/{}", customers[customer % customers.len()]);
                let form = format!("invoice_settings[default_payment_method]={method}");
                api.post(&path, &form).await;
            }
            Step::Pay => {
                let open = api.get("/v1/invoices?status=open&limit=1").await;
                let invoice = serde_json::from_str::<Value>(&open.body).ok();
                if let Some(invoice) = invoice.and_then(|body| body["data"][0]["id"].as_str().map(str::to_owned)) {
                    api.post(&format!("/v1/invoices/{invoice}/pay"), "").await;
                }
            }
            Step::Checkout { flat, presses } => {
                let quantity = if flat { "&line_items[0][quantity]=1" } else { "" };
                let form = format!(
                    "mode=subscription&success_url=https://a.example&line_items[0][price]={}{quantity}",
                    prices[usize::from(flat)]
                );
                let answer = api.post("/v1/checkout/sessions", &form).await;
                let session = serde_json::from_str::<Value>(&answer.body).ok();
                let session = session.and_then(|body| body["id"].as_str().map(str::to_owned));
                if let Some(session) = session.filter(|_| presses) {
                    api.post(&format!("/_standin/checkout/{session}"), "").await;
                }
            }
            Step::FailFinalization => api.standin.fail_next_finalizations(1),
            Step::Fault(kind) => api.misbehave("/v1", kind),
            Step::Pass(seconds) => {
                api.set_clock(api.now() + seconds);
            }
            Step::Read => {
                api.get("/v1/invoices").await;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// The identical state, events and all, and each accepted identifier once.
    #[test]
    fn a_replayed_journal_gives_the_identical_state(steps in prop::collection::vec(step(), 1..60)) {
        let place = Place::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let lived = runtime.block_on(async {
            let api = Api::journaled(place.0.clone()).await;
            run(&api, steps).await;
            let lived = seen(&api.standin);
            let at = api.now();
            (lived, at)
        });
        let replayed = open(place.0.clone(), lived.1).expect("opens");
        prop_assert_eq!(seen(&replayed), lived.0);
    }
}
