//! The built `farebox` against a local system whose clock stands still, as an operator would use it.

mod support;

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    process::Command,
    sync::Arc,
};

use farebox_aws::ledger::Alert;
use farebox_core::{
    ledger::{self, Claim, RowKey},
    tiers::{Catalog, Overrides},
};
use farebox_local::{DEV_TIERS, Options, System, VirtualClock};
use farebox_stripe::MeterEvent;
use farebox_stripe_standin::{Fault, FaultKind};
use serde_json::Value;

use crate::support::{START, farebox, run, serve, system};

/// What the new file changes: pro's overage.
const OLD_PRICE: &str = "overage: $0.002/call";
const NEW_PRICE: &str = "overage: $0.003/call";

struct Place {
    system: Arc<System>,
    url: String,
}

impl Place {
    async fn start() -> Self {
        let system = system().await;
        let url = serve(system.gateway.router(system.clone())).await;
        Self { system, url }
    }

    /// Runs the command; returns its exit code, stdout and stderr.
    async fn farebox(&self, arguments: &[&str]) -> (i32, String, String) {
        run(farebox(arguments, &[("FAREBOX_LOCAL", &self.url)])).await
    }

    async fn dry(&self, arguments: &[&str]) -> (i32, String) {
        let (code, stdout, stderr) = self.farebox(&[arguments, &["--dry-run"]].concat()).await;
        (code, stdout + &stderr)
    }

    async fn json(&self, arguments: &[&str]) -> (i32, Value) {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let (code, stdout, stderr) = self.farebox(&arguments).await;
        let value = serde_json::from_str(&stdout);
        (
            code,
            value.unwrap_or_else(|e| panic!("{arguments:?}: {e}: {stdout}{stderr}")),
        )
    }
}

fn file(name: &str, text: &str) -> PathBuf {
    let file = std::env::temp_dir().join(format!("farebox-operator-{}-{name}", std::process::id()));
    std::fs::write(&file, text).expect("a temporary file");
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_are_as_documented() {
    let place = Place::start().await;
    let bad = file("bad.yaml", "tiers:\n  pro: {price: -1, rate_limit: often}\n");
    let new = file("new.yaml", &DEV_TIERS.replace(OLD_PRICE, NEW_PRICE));
    let (bad, new) = (bad.to_str().expect("a path"), new.to_str().expect("a path"));
    let cases: [(i32, &[&str]); 16] = [
        (0, &["customers", "list"]),
        (1, &["tiers", "check", bad]),
        (1, &["tiers", "check", "/nowhere/tiers.yaml"]),
        (0, &["tiers", "check", new]),
        (2, &["tiers", "diff", new]),
        (2, &["tiers", "apply", new, "--dry-run"]),
        (64, &["tiers", "apply", new]), // nobody can be asked
        (3, &["customers", "show", "nobody"]),
        (3, &["keys", "revoke", "deadbeefdeadbeef"]),
        (64, &["customers", "show", "no#body"]),
        (64, &["customers", "frobnicate"]),
        (3, &["customers", "add", "acme", "--tier", "platinum"]),
        (
            64,
            &["customers", "add", "acme", "--tier", "pro", "--name", "a\u{1b}[2Jb"],
        ),
        (64, &["customers", "add", "acme", "--tier", "pro", "--name", ""]),
        (
            64,
            &[
                "customers",
                "add",
                "acme",
                "--tier",
                "pro",
                "--webhook",
                "http://acme.example/",
            ],
        ),
        (64, &["--port", "1", "customers", "list"]),
    ];
    for (expected, arguments) in cases {
        let (code, stdout, stderr) = place.farebox(arguments).await;
        assert_eq!(code, expected, "{arguments:?}: {stdout}{stderr}");
        assert!(
            expected == 0 || !(stdout.is_empty() && stderr.is_empty()),
            "{arguments:?} says why"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_within_reach_is_said_clearly() {
    let arguments = ["customers", "list", "--local=http://127.0.0.1:1"];
    let (code, _, stderr) = run(farebox(&arguments, &[])).await;
    assert_eq!(code, 1);
    assert!(
        stderr.contains("no local system answers at http://127.0.0.1:1") && stderr.contains("farebox dev"),
        "{stderr}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_shown_once_and_never_again() {
    let place = Place::start().await;
    let sold = [
        "customers",
        "add",
        "acme",
        "--tier",
        "pro",
        "--key",
        "--webhook",
        "https://acme.example/hook",
    ];
    let (code, sold) = place.json(&sold).await;
    assert_eq!(code, 0, "{sold}");
    let key = sold["key"].as_str().expect("a key").to_owned();
    let secret = sold["webhook_secret"].as_str().expect("a secret").to_owned();
    assert!(key.starts_with("fb_test_") && secret.starts_with("whsec_"));
    let prefix = &key[..12];
    let everything: [&[&str]; 8] = [
        &["customers", "show", "acme"],
        &["customers", "show", "acme", "--json"],
        &["customers", "list", "--json"],
        &["keys", "list", "acme"],
        &["keys", "list", "acme", "--json"],
        &["customers", "suspend", "acme", "--json"],
        &["keys", "revoke", &key],
        &["keys", "revoke", prefix, "--json"],
    ];
    for arguments in everything {
        let (_, stdout, stderr) = place.farebox(arguments).await;
        for text in [stdout, stderr] {
            assert!(
                !text.contains(&key) && !text.contains(&secret),
                "{arguments:?} shows a secret"
            );
        }
    }
    let (_, keys) = place.json(&["keys", "list", "acme"]).await;
    assert!(keys[0]["revoked"].is_u64(), "{keys}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reconcile_explains_every_difference() {
    let place = Place::start().await;
    let system = &place.system;
    let sold = system.sell("acme", "pro", Overrides::default()).await.expect("sold");
    let http = |path: &str| {
        let url = format!("{}{path}", place.url);
        let key = sold.key.clone();
        tokio::task::spawn_blocking(move || {
            let header = format!("x-api-key: {key}");
            let call = Command::new("curl")
                .args(["-s", "-o", "/dev/null", "-H", &header, &url])
                .status();
            call.expect("curl runs");
        })
    };
    for _ in 0..3 {
        http("/v1/items").await.expect("no panic");
    }
    system.send_usage().await.expect("folded");
    let (code, open) = place.json(&["reconcile", "acme"]).await;
    assert_eq!(
        (code, open["difference"].as_u64(), open["pending"].as_u64()),
        (0, Some(0), Some(3)),
        "{open}"
    );

    system
        .run_until(START.plus_ms(3 * 3_600_000))
        .await
        .expect("time passes");
    let (code, agreed) = place.json(&["reconcile", "acme"]).await;
    assert_eq!((code, agreed["pending"].as_u64()), (0, Some(0)), "{agreed}");

    // Somebody else sends to the same meter, in the row's minute.
    let plan = &sold.customer.phase_at(START.s()).plan;
    let event = MeterEvent {
        event_name: plan.event_name("api_calls"),
        stripe_customer: sold.customer.stripe_customer.clone().expect("in Stripe"),
        value: 5,
        identifier: "a-stranger".to_owned(),
        timestamp: i64::try_from(START.s()).expect("small"),
    };
    system
        .services
        .stripe
        .report_meter_event(&event, "a-stranger")
        .await
        .expect("taken");
    let (code, stdout, _) = place.farebox(&["reconcile", "acme"]).await;
    assert_eq!(code, 1, "{stdout}");
    assert!(
        stdout.contains("somebody else sends to this meter") && stdout.contains("difference 5"),
        "{stdout}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_row_is_sent_again_if_stripe_has_nothing_of_it() {
    let place = Place::start().await;
    let system = &place.system;
    let sold = system.sell("acme", "pro", Overrides::default()).await.expect("sold");
    let item = system
        .control
        .counters
        .read("acme#0")
        .await
        .expect("readable")
        .expect("an item");
    let key = RowKey {
        customer: sold.customer.id.clone(),
        shard: 0,
        generation: item.generation.try_into().expect("a generation"),
        meter: "api_calls".to_owned(),
        bucket: START.s(),
    };
    let report = ledger::Report {
        value: 7,
        stripe_customer: sold.customer.stripe_customer.clone().expect("in Stripe"),
        event_name: sold.customer.phase_at(START.s()).plan.event_name("api_calls"),
        timestamp: START.s(),
        identifier: key.identifier(),
    };
    // What is reported can be pruned only in a sealed bucket.
    let seal = farebox_core::counter::seal(&key.generation, START.s());
    system.control.counters.write("acme#0", seal).await.expect("sealed");
    let claim = Claim {
        token: "t".to_owned(),
        at: START,
    };
    for write in [
        ledger::fold(&key, START.s() + 3_600, 7),
        ledger::freeze(&report, 7, 0, START),
        ledger::claim(&claim),
        ledger::park("t", "stripe rejected the call"),
    ] {
        system.control.ledger.write(&key, write).await.expect("written");
    }
    // Whoever leaves at once would leave without paying it.
    let (code, _, stderr) = place.farebox(&["customers", "cancel", "acme", "--yes"]).await;
    assert_ne!(code, 0);
    let why = "is parked (stripe rejected the call): farebox stripe repair, then try again";
    assert!(stderr.contains(why), "{stderr}");
    let (code, dry) = place.json(&["stripe", "repair", "--dry-run"]).await;
    assert_eq!((code, dry[0]["remedy"].as_str()), (2, Some("send_again")), "{dry}");
    let (code, done) = place.json(&["stripe", "repair"]).await;
    assert_eq!(code, 0, "{done}");
    let row = system
        .control
        .ledger
        .read(&key)
        .await
        .expect("readable")
        .expect("a row");
    assert_eq!(row.state, ledger::RowState::Sealed);
    assert_eq!(row.faults, 1, "the answer it was parked for is not repeated");
    system.run_until(START.plus_ms(600_000)).await.expect("time passes");
    let row = system
        .control
        .ledger
        .read(&key)
        .await
        .expect("readable")
        .expect("a row");
    assert_eq!(row.state, ledger::RowState::Reported);

    // Nothing is left to repair.
    let (code, none) = place.json(&["stripe", "repair"]).await;
    assert_eq!((code, none), (0, Value::Array(Vec::new())));
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_a_period_now_leaves_the_running_hour_open() {
    let place = Place::start().await;
    let system = &place.system;
    let sold = system.sell("acme", "pro", Overrides::default()).await.expect("sold");
    let call = async || {
        let event = serde_json::json!({
            "type": "REQUEST", "methodArn": "arn:aws:execute-api:eu-central-1:123456789012:a/live/GET/x",
            "httpMethod": "GET", "path": "/v1/basic/x", "headers": { "X-Api-Key": sold.key }, "requestContext": { "stage": "live" },
        });
        let answer = system.gateway.authorizers()[0]
            .handle(&event, system.clock().now())
            .await;
        answer.expect("an answer");
    };
    call().await;
    // In the next hour.
    system.clock().set(START.plus_ms(3_600_000 + 600_000));
    call().await;
    let (code, closed) = place.json(&["period", "close", "acme", "--now"]).await;
    assert_eq!((code, &closed["rows"]["reported"]), (0, &Value::from(1)), "{closed}");
    let (rows, _) = system.control.ledger.scan().await.expect("readable");
    assert!(rows.iter().all(|row| row.key.bucket < START.s() + 3_600), "{rows:?}");
}

fn sorted(metadata: HashMap<String, String>) -> BTreeMap<String, String> {
    metadata.into_iter().collect()
}

/// Everything that a catalog made, without the ids that Stripe chose.
async fn made(system: &System) -> Vec<String> {
    let stripe = &system.services.stripe;
    let meters = stripe.meters().await.expect("meters");
    let mut made: Vec<String> = meters
        .iter()
        .map(|meter| format!("{} {}", meter.event_name, meter.display_name))
        .collect();
    for tier in ["free", "pro", "enterprise"] {
        let id = format!("farebox_{tier}");
        let product = stripe.find_product(&id).await.expect("products");
        made.push(format!(
            "{:?}",
            product.map(|product| (product.name, sorted(product.metadata)))
        ));
        for price in stripe.prices_of_product(&id).await.expect("prices") {
            let metadata = sorted(price.metadata);
            made.push(format!(
                "{:?} {:?} {:?} {metadata:?}",
                price.lookup_key, price.unit_amount_decimal, price.tiers
            ));
        }
    }
    let newest = system.control.accounts.newest_catalog().await.expect("a catalog");
    made.push(format!("catalog {newest}"));
    made.sort();
    made
}

async fn applied(fault: Option<(u32, FaultKind)>) -> (Vec<String>, bool) {
    let system = system().await;
    let catalog = Catalog::from_yaml(&DEV_TIERS.replace(OLD_PRICE, NEW_PRICE), "tiers.yaml").expect("a catalog");
    if let Some((nth, kind)) = fault {
        let fault = |times, kind| Fault {
            method: Some("POST".to_owned()),
            path_prefix: "/v1/".to_owned(),
            times,
            kind,
        };
        // The oldest fault that fits comes first.
        if nth > 1 {
            system.services.stand_in.misbehave(fault(nth - 1, FaultKind::Delay(0)));
        }
        system.services.stand_in.misbehave(fault(1, kind));
    }
    let plan = system.books.catalogue_plan(&catalog).await.expect("a plan");
    let is_interrupted = system.books.apply(&plan, |_| {}).await.is_err();
    if is_interrupted {
        let plan = system.books.catalogue_plan(&catalog).await.expect("a plan");
        system
            .books
            .apply(&plan, |_| {})
            .await
            .expect("the second time completes it");
    }
    let left = system.books.catalogue_plan(&catalog).await.expect("a plan");
    assert!(left.steps().is_empty() && left.mismatches.is_empty(), "{left:?}");
    (made(&system).await, is_interrupted)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apply_that_is_interrupted_anywhere_is_completed_by_the_next() {
    let (undisturbed, _) = applied(None).await;
    for kind in [
        FaultKind::Error500BeforeCommit,
        FaultKind::Error500AfterCommit,
        FaultKind::DropAfterCommit,
    ] {
        let mut nth = 1;
        loop {
            let (made, is_interrupted) = applied(Some((nth, kind))).await;
            if !is_interrupted {
                break;
            }
            assert_eq!(made, undisturbed, "{kind:?} at call {nth}");
            nth += 1;
        }
        assert_eq!(
            nth - 1,
            9,
            "three products, and a meter and two prices for each of two plans"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_key_is_said_to_be_valid_as_long_as_it_is() {
    let place = Place::start().await;
    place.json(&["customers", "add", "acme", "--tier", "pro"]).await;
    let (_, issued) = place.json(&["keys", "issue", "acme", "--expires", "1h"]).await;
    let hash = issued["hash"].as_str().expect("a hash").to_owned();
    let (code, _, stderr) = place.farebox(&["keys", "rotate", &hash, "--grace", "24h"]).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("stays valid until 2027-01-15 09:00:00Z"), "{stderr}");
    place
        .system
        .run_until(START.plus_ms(7_200_000))
        .await
        .expect("time passes");
    let (code, _, stderr) = place.farebox(&["keys", "rotate", &hash]).await;
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("expired on 2027-01-15 09:00:00Z"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_names_the_period_that_begins_on_it_and_an_ended_customer_the_one_it_ended_in() {
    let place = Place::start().await;
    place.json(&["customers", "add", "acme", "--tier", "pro"]).await;
    let (_, stdout, _) = place.farebox(&["reconcile", "acme", "--period", "2027-01-15"]).await;
    let first = "Nothing was used from 2027-01-15 08:00:00Z to 2027-02-15 08:00:00Z.";
    assert!(stdout.contains(first), "{stdout}");
    let (_, stdout, _) = place.farebox(&["reconcile", "acme", "--period", "2027-02-14"]).await;
    assert!(stdout.contains(first), "{stdout}");
    let (_, stdout, _) = place.farebox(&["reconcile", "acme", "--period", "2027-02-15"]).await;
    assert!(stdout.contains("from 2027-02-15 08:00:00Z"), "{stdout}");

    let (code, _, stderr) = place.farebox(&["customers", "cancel", "acme", "--yes"]).await;
    assert_eq!(code, 0, "{stderr}");
    place
        .system
        .run_until(START.plus_ms(70 * 86_400_000))
        .await
        .expect("time passes");
    let (_, stdout, _) = place.farebox(&["reconcile", "acme"]).await;
    assert!(!stdout.contains("2027-02-15 08:00:00Z to"), "{stdout}");
    for arguments in [
        &["customers", "resume", "acme"][..],
        &["customers", "grant", "acme", "5"],
    ] {
        let (code, _, stderr) = place.farebox(arguments).await;
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains("the subscription of acme has ended"), "{stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn given_units_are_taken_off_once() {
    let place = Place::start().await;
    let (code, _) = place.json(&["customers", "add", "acme", "--tier", "pro"]).await;
    assert_eq!(code, 0);
    let (code, _) = place.json(&["customers", "grant", "acme", "100", "--id", "gift"]).await;
    assert_eq!(code, 0);
    let (code, _) = place.json(&["customers", "grant", "acme", "100", "--id", "gift"]).await;
    assert_eq!(code, 0, "the same again changes nothing");
    let (code, _, stderr) = place
        .farebox(&["customers", "grant", "acme", "7", "--id", "gift"])
        .await;
    assert_eq!(code, 1);
    assert!(stderr.contains("gave acme 100 units of api_calls already"), "{stderr}");
    let (_, usage) = place.json(&["usage", "show", "acme"]).await;
    assert_eq!(usage["given_left"]["api_calls"], 100, "{usage}");
    assert_eq!(usage["meters"][0]["credit"], 0, "{usage}");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_in_use_is_refused_and_its_catalog_stays() {
    let directory = std::env::temp_dir().join(format!("farebox-operator-{}-data", std::process::id()));
    let start = |tiers: &str, keeps_catalog| {
        System::start(Options {
            data: Some(directory.clone()),
            tiers: tiers.to_owned(),
            keeps_catalog,
            clock: VirtualClock::standing(START),
            ..Options::new()
        })
    };
    let first = start(DEV_TIERS, true).await.expect("a first start");
    assert_eq!((first.catalog.0, first.catalog_changes.len()), (1, 0));
    let data = directory.to_str().expect("a path");
    let (code, _, stderr) = run(farebox(&["dev", "--port", "0", "--data", data], &[])).await;
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("is in use by another farebox"), "{stderr}");
    drop(first);

    let changed = DEV_TIERS.replace(OLD_PRICE, NEW_PRICE);
    let second = start(&changed, false).await.expect("another catalog");
    assert_eq!(second.catalog.0, 2);
    assert_eq!(second.catalog_changes, ["pro: overage 0.002/call → 0.003/call"]);
    drop(second);
    let third = start(DEV_TIERS, true).await.expect("a third start");
    assert_eq!(third.catalog.0, 2, "what is sold stays");
    drop(third);
    let _ = std::fs::remove_dir_all(&directory);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tier_that_is_sold_to_who_is_to_leave_says_that_this_takes_the_cancellation_back() {
    let place = Place::start().await;
    let (_, sold) = place.json(&["customers", "add", "acme", "--tier", "pro"]).await;
    let subscription = sold["stripe_subscription"].as_str().expect("a subscription").to_owned();
    let end = sold["cycle"]["current"]["end"].as_u64().expect("an end");
    let leave = ["customers", "cancel", "acme", "--at-period-end"];
    let goes_on = "was to end on 2027-02-15 08:00:00Z: goes on";

    for set_tier in [
        &["customers", "set-tier", "acme", "pro"][..],
        &["customers", "set-tier", "acme", "pro", "--at-period-end"],
        &["customers", "set-tier", "acme", "free", "--at-period-end"],
    ] {
        let (code, left) = place.json(&leave).await;
        assert_eq!((code, &left["ends"]), (0, &Value::from(end)), "{left}");
        let found = place.system.services.stripe.subscription(&subscription).await;
        assert!(found.expect("a subscription").cancel_at_period_end);
        let dry = [set_tier, &["--dry-run"]].concat();
        let (code, said, _) = place.farebox(&dry).await;
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(&format!("acme {goes_on}")), "{said}");
        let (_, dry) = place.json(&dry).await;
        assert_eq!(dry["was_to_end"], end, "{dry}");

        let (code, said, stderr) = place.farebox(set_tier).await;
        assert_eq!(code, 0, "{stderr}");
        assert!(said.contains(goes_on), "{said}");
        let (_, shown) = place.json(&["customers", "show", "acme"]).await;
        assert!(shown["ends"].is_null() && shown["was_to_end"].is_null(), "{shown}");
        let found = place.system.services.stripe.subscription(&subscription).await;
        assert!(!found.expect("a subscription").cancel_at_period_end, "{set_tier:?}");
    }
    place.json(&leave).await;
    let (_, told) = place.json(&["customers", "set-tier", "acme", "pro"]).await;
    assert_eq!(told["was_to_end"], end, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_at_once_is_asked_for_twice() {
    let place = Place::start().await;
    place.json(&["customers", "add", "acme", "--tier", "pro"]).await;
    let (code, _, stderr) = place.farebox(&["customers", "cancel", "acme"]).await;
    assert_eq!(code, 64, "{stderr}");
    assert!(stderr.contains("give --yes, or --dry-run"), "{stderr}");
    let (_, shown) = place.json(&["customers", "show", "acme"]).await;
    assert!(shown["ends"].is_null(), "{shown}");
    // What can be taken back needs no second word.
    let (code, _, stderr) = place.farebox(&["customers", "cancel", "acme", "--at-period-end"]).await;
    assert_eq!(code, 0, "{stderr}");
    let (code, _, stderr) = place.farebox(&["customers", "cancel", "acme", "--yes"]).await;
    assert_eq!(code, 0, "{stderr}");

    let (code, _, stderr) = place.farebox(&["customers", "set-tier", "acme", "pro"]).await;
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("`farebox customers add acme --tier pro`"), "{stderr}");
    let (_, said, _) = place.farebox(&["customers", "suspend", "acme"]).await;
    assert!(
        said.contains("its subscription has ended") && !said.contains("bill"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_change_nothing_is_not_pending() {
    let place = Place::start().await;
    place.json(&["customers", "add", "acme", "--tier", "free"]).await;
    let (code, said) = place.dry(&["customers", "set-tier", "acme", "free"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("nothing would change: acme has free (catalog 1,"),
        "{said}"
    );
    assert_eq!(place.dry(&["customers", "set-tier", "acme", "pro"]).await.0, 2);
    let (code, said) = place.dry(&["customers", "resume", "acme"]).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(place.dry(&["customers", "suspend", "acme"]).await.0, 2);
    place.json(&["customers", "suspend", "acme"]).await;
    let (code, said) = place.dry(&["customers", "suspend", "acme"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("acme is suspended already"), "{said}");

    // A plan that lies ahead is taken back by the tier in force, and does not begin behind an end.
    place
        .json(&["customers", "set-tier", "acme", "pro", "--at-period-end"])
        .await;
    assert_eq!(place.dry(&["customers", "set-tier", "acme", "free"]).await.0, 2);
    assert_eq!(
        place
            .dry(&["customers", "set-tier", "acme", "pro", "--at-period-end"])
            .await
            .0,
        0
    );
    let (_, said, _) = place.farebox(&["customers", "show", "acme"]).await;
    assert!(said.lines().any(|line| line.starts_with("then ")), "{said}");
    let leave = ["customers", "cancel", "acme", "--at-period-end"];
    assert_eq!(place.dry(&leave).await.0, 2);
    let (_, said, _) = place.farebox(&leave).await;
    assert!(said.lines().any(|line| line.starts_with("ends ")), "{said}");
    assert!(!said.lines().any(|line| line.starts_with("then ")), "{said}");
    assert_eq!(place.dry(&leave).await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_catalog_names_who_is_to_leave_among_those_who_stay_on_the_old_one() {
    let place = Place::start().await;
    let new = file("leaving.yaml", &DEV_TIERS.replace(OLD_PRICE, NEW_PRICE));
    let diff = ["tiers", "diff", new.to_str().expect("a path")];
    place.json(&["customers", "add", "acme", "--tier", "pro"]).await;
    let (_, said, _) = place.farebox(&diff).await;
    assert!(
        said.contains("farebox customers set-tier ID pro") && !said.contains("to leave"),
        "{said}"
    );
    place.json(&["customers", "cancel", "acme", "--at-period-end"]).await;
    let (_, said, _) = place.farebox(&diff).await;
    assert!(said.contains("to leave, which moving takes back: acme"), "{said}");
    let (_, diff) = place.json(&diff).await;
    assert_eq!(diff["staying"][0]["leaving"][0], "acme", "{diff}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_key_is_not_replaced_once_more_while_its_successor_is_valid() {
    let place = Place::start().await;
    place.json(&["customers", "add", "acme", "--tier", "pro"]).await;
    let hash = |key: &Value| key["hash"].as_str().expect("a hash").to_owned();
    let (_, first) = place.json(&["keys", "issue", "acme"]).await;
    let first = hash(&first);
    let (code, second) = place.json(&["keys", "rotate", &first, "--grace", "1h"]).await;
    assert_eq!((code, &second["expires"]), (0, &Value::Null), "{second}");
    let second = hash(&second);

    for last in ["--grace=24h", "--dry-run"] {
        let (code, _, stderr) = place.farebox(&["keys", "rotate", &first, last]).await;
        assert_eq!(code, 1, "{stderr}");
        assert!(
            stderr.contains(&second) && stderr.contains("rotate that one"),
            "{stderr}"
        );
    }
    let (code, third) = place.json(&["keys", "rotate", &second, "--grace", "1h"]).await;
    assert_eq!((code, &third["expires"]), (0, &Value::Null), "{third}");
    let third = hash(&third);
    let (_, _, stderr) = place.farebox(&["keys", "rotate", &first]).await;
    assert!(stderr.contains(&third), "the newest one is named: {stderr}");

    // Nobody has a key in its place any more: it is replaced, and what takes its place does not end with its grace.
    for revoked in [&second, &third] {
        place.json(&["keys", "revoke", revoked]).await;
    }
    let (code, fourth) = place.json(&["keys", "rotate", &first, "--grace", "1h"]).await;
    assert_eq!((code, &fourth["expires"]), (0, &Value::Null), "{fourth}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_expires_says_so_when_it_is_shown() {
    let place = Place::start().await;
    place.json(&["customers", "add", "acme", "--tier", "pro"]).await;
    let ends = "The new key expires on 2027-04-15 08:00:00Z.";
    let (_, key, stderr) = place.farebox(&["keys", "issue", "acme", "--expires", "90d"]).await;
    assert!(stderr.contains(ends), "{stderr}");
    let prefix: String = key.chars().take(12).collect();
    let (code, _, stderr) = place.farebox(&["keys", "rotate", &prefix]).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains(ends), "{stderr}");
    let (_, _, stderr) = place.farebox(&["keys", "issue", "acme"]).await;
    assert!(!stderr.contains("expires"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_argument_is_said_before_anything_is_done() {
    let place = Place::start().await;
    place.json(&["customers", "add", "acme", "--tier", "pro"]).await;
    let cases: [(&[&str], &str); 19] = [
        (
            &["customers", "add", "beta", "--tier", "pro", "--key", "--brand", "FB"],
            "lower-case letter",
        ),
        (
            &[
                "customers",
                "add",
                "beta",
                "--tier",
                "pro",
                "--key",
                "--brand",
                "FB",
                "--dry-run",
            ],
            "lower-case letter",
        ),
        (
            &["customers", "add", "beta", "--tier", "pro", "--trial-days", "731"],
            "731 is not in 0..=730",
        ),
        (
            &["customers", "add", "beta", "--tier", "pro", "--trial-days", "-1"],
            "-1 is not in 0..=730",
        ),
        (
            &["customers", "add", "beta", "--tier", "pro", "--email", "nobody"],
            "not one mail address",
        ),
        (&["keys", "issue", "acme", "--brand", "FB"], "lower-case letter"),
        (
            &["keys", "issue", "acme", "--brand", "FB", "--dry-run"],
            "lower-case letter",
        ),
        (
            &["keys", "rotate", "fb_test_Ab3d", "--grace", "-5h"],
            "expected a duration",
        ),
        (&["customers", "grant", "acme", "5", "--id", ""], "1 to 64 letters"),
        (
            &["customers", "grant", "acme", "-5"],
            "expected a whole number of units",
        ),
        (
            &["customers", "cap", "acme", "-5"],
            "\"-5\" is negative: write an amount of usd",
        ),
        (
            &["customers", "cap", "acme", "much"],
            "\"much\" is not an amount: write an amount of usd",
        ),
        (&["keys", "issue", "acme", "--expires", "-5d"], "no duration like 90d"),
        (&["usage", "top", "-n", "0"], "0 is not in"),
        (&["usage", "top", "-n", "-5"], "-5 is not in"),
        (&["cost", "--calls", "-5"], "expected a whole number of calls"),
        (
            &["cost", "--calls", "10M", "--remembered", "150"],
            "'--remembered <PERCENT>'",
        ),
        (
            &["counters", "restore", "acme", "-1"],
            "invalid value '-1' for '<SHARD>'",
        ),
        (&["customers", "list", "--local="], "--local= names no address"),
    ];
    for (arguments, why) in cases {
        let (code, stdout, stderr) = place.farebox(arguments).await;
        assert_eq!(code, 64, "{arguments:?}: {stdout}{stderr}");
        assert!(
            stderr.contains(why) && !stderr.contains("tip:"),
            "{arguments:?}: {stderr}"
        );
    }
    let (code, ..) = place.farebox(&["customers", "show", "beta"]).await;
    assert_eq!(code, 3, "nothing was sold");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meter_that_a_tier_does_not_have_is_refused_with_those_that_it_has() {
    let place = Place::start().await;
    place.json(&["customers", "add", "acme", "--tier", "pro"]).await;
    for arguments in [
        &["customers", "cap", "acme", "none", "--meter", "foo"][..],
        &["customers", "cap", "acme", "100", "--meter", "foo"],
        &["customers", "cap", "acme", "none", "--meter", "foo", "--dry-run"],
        &["customers", "grant", "acme", "100", "--meter", "foo"],
        &["customers", "grant", "acme", "100", "--meter", "foo", "--dry-run"],
    ] {
        let (code, stdout, stderr) = place.farebox(arguments).await;
        assert_eq!((code, stdout.as_str()), (1, ""), "{arguments:?}: {stderr}");
        assert_eq!(
            stderr, "error: tier pro has no meter foo; it has api_calls\n",
            "{arguments:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_command_line_is_json_where_that_is_asked_for() {
    let cases: [(&[&str], &str); 6] = [
        (&["customers", "show", "--json"], "<ID>"),
        (&["--json", "customers", "frobnicate"], "frobnicate"),
        (&["customers", "--json"], "add"),
        (
            &["customers", "grant", "acme", "many", "--json"],
            "expected a whole number",
        ),
        (&["--json"], "`farebox dev` prints no JSON"),
        (&["dev", "--port", "0", "--json"], "`farebox dev` prints no JSON"),
    ];
    for (arguments, why) in cases {
        let (code, stdout, stderr) = run(farebox(arguments, &[])).await;
        assert_eq!((code, stdout.as_str()), (64, ""), "{arguments:?}: {stderr}");
        let error: Value = serde_json::from_str(&stderr).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {stderr}"));
        let error = error["error"].as_str().expect("a sentence");
        assert!(
            error.contains(why) && !error.contains("Usage:"),
            "{arguments:?}: {error}"
        );
        assert!(!error.starts_with("error:"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_variable_names_no_local_system() {
    let (code, _, stderr) = run(farebox(&["customers", "list"], &[("FAREBOX_LOCAL", "")])).await;
    assert_eq!(code, 64, "{stderr}");
    assert!(stderr.contains("no region"), "a deployed stack is meant: {stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_tiers_is_called_by_its_name() {
    let place = Place::start().await;
    let bad = file("mistaken.yaml", "tiers:\n  pro: {price: -1}\n");
    let bad = bad.to_str().expect("a path");
    let (code, _, stderr) = run(farebox(&["--port", "0", "--tiers", bad], &[])).await;
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains(&format!("{bad}:2: tiers.pro.price")), "{stderr}");
    for (file, why) in [
        (bad, "tiers.pro.price"),
        ("/nowhere/tiers.yaml", "read /nowhere/tiers.yaml: No such file"),
    ] {
        let (code, stdout, stderr) = place.farebox(&["doctor", "--tiers", file]).await;
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        assert!(stderr.contains(why) && !stderr.contains("allow dynamodb"), "{stderr}");
    }
}

/// A call as a gateway asks for it.
async fn call(system: &System, key: &str) {
    let event = serde_json::json!({
        "type": "REQUEST", "methodArn": "arn:aws:execute-api:eu-central-1:123456789012:a/live/GET/x",
        "httpMethod": "GET", "path": "/v1/basic/x", "headers": { "X-Api-Key": key }, "requestContext": { "stage": "live" },
    });
    let answer = system.gateway.authorizers()[0].handle(&event, system.clock().now());
    answer.await.expect("an answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_that_of_every_plan_of_the_period() {
    let place = Place::start().await;
    let system = &place.system;
    let sold = system.sell("acme", "free", Overrides::default()).await.expect("sold");
    for _ in 0..3 {
        call(system, &sold.key).await;
    }
    system.clock().set(START.plus_ms(600_000));
    let (code, _) = place.json(&["customers", "set-tier", "acme", "pro"]).await;
    assert_eq!(code, 0);
    for _ in 0..2 {
        call(system, &sold.key).await;
    }
    let seen = async |when: &str| {
        let (_, usage) = place.json(&["usage", "show", "acme"]).await;
        let of = |i: usize| (usage["meters"][i]["plan"].clone(), usage["meters"][i]["units"].clone());
        let ((free, three), (pro, two)) = (of(0), of(1));
        let starts = |plan: &Value, with: &str| plan.as_str().is_some_and(|plan| plan.starts_with(with));
        assert!(starts(&free, "free-") && starts(&pro, "pro-"), "{when}: {usage}");
        assert_eq!((three, two), (Value::from(3), Value::from(2)), "{when}: {usage}");
        assert_eq!(usage["sums"][0]["units"], 5, "{when}: {usage}");
        let (_, top) = place.json(&["usage", "top"]).await;
        assert_eq!(top[0]["units"], 5, "{when}: {top}");
    };
    seen("in the counters").await;
    let (_, said, _) = place.farebox(&["usage", "show", "acme"]).await;
    assert!(
        said.contains("Together under 2 plans: 5 units of api_calls, $0.00."),
        "{said}"
    );
    system.send_usage().await.expect("folded");
    seen("in the counters and in the ledger").await;
    let later = system.run_until(START.plus_ms(5 * 3_600_000));
    later.await.expect("time passes");
    seen("reported").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_used_in_the_second_of_a_change_is_shown_as_it_is_billed() {
    let place = Place::start().await;
    let system = &place.system;
    let sold = system.sell("acme", "free", Overrides::default()).await.expect("sold");
    for _ in 0..3 {
        call(system, &sold.key).await;
    }
    place.json(&["customers", "set-tier", "acme", "pro"]).await;
    system.send_usage().await.expect("folded");
    let (_, compared) = place.json(&["reconcile", "acme"]).await;
    let (_, usage) = place.json(&["usage", "show", "acme"]).await;
    let billed = &compared["customers"][0]["sums"][0];
    assert_eq!(billed["counted"], 3, "{compared}");
    for figure in ["plan", "meter"] {
        assert_eq!(usage["meters"][0][figure], billed[figure], "{usage}{compared}");
    }
    assert_eq!(usage["meters"][0]["units"], 3, "{usage}");
    let (_, top) = place.json(&["usage", "top"]).await;
    assert_eq!(top[0]["units"], 3, "{top}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_period_before_a_customer_began_is_none() {
    let place = Place::start().await;
    place.json(&["customers", "add", "acme", "--tier", "pro"]).await;
    for arguments in [
        &["usage", "show", "acme", "--period", "previous"][..],
        &["usage", "show", "acme", "--period", "2026-11-01"],
        &["reconcile", "acme", "--period", "previous"],
        &["reconcile", "acme", "--invoice"],
    ] {
        let (code, stdout, stderr) = place.farebox(arguments).await;
        assert_eq!((code, stdout.as_str()), (3, ""), "{arguments:?}: {stderr}");
        let why = "acme has no such billing period: nothing is known of it before 2027-01-15 08:00:00Z";
        assert!(stderr.contains(why), "{arguments:?}: {stderr}");
    }
    let (code, said, _) = place.farebox(&["reconcile", "--period", "previous"]).await;
    assert_eq!((code, said.as_str()), (0, "1 customer had no such billing period.\n"));

    // A trial is a period, though the next ones are counted from its end.
    let trial = [
        "customers",
        "add",
        "beta",
        "--tier",
        "pro",
        "--trial-days",
        "7",
        "--key",
    ];
    place.json(&trial).await;
    let later = place.system.run_until(START.plus_ms(8 * 86_400_000));
    later.await.expect("time passes");
    for command in ["usage show beta", "reconcile beta"] {
        let arguments: Vec<&str> = command.split(' ').chain(["--period", "previous"]).collect();
        let (code, said, stderr) = place.farebox(&arguments).await;
        assert_eq!(code, 0, "{said}{stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_trial_and_what_is_agreed_are_shown() {
    let place = Place::start().await;
    let until = "rial until 2027-01-29 08:00:00Z";
    let add = ["customers", "add", "acme", "--tier", "pro", "--trial-days", "14"];
    let (_, said) = place.dry(&add).await;
    assert!(said.contains("after a trial of 14 days"), "{said}");
    let (_, said, _) = place.farebox(&add).await;
    assert!(
        said.contains(&format!("T{until}: nothing is charged before.")),
        "{said}"
    );
    for show in [&["customers", "show", "acme"][..], &["customers", "list"]] {
        let (_, said, _) = place.farebox(show).await;
        assert!(said.contains(until), "{said}");
    }
    let (_, shown) = place.json(&["customers", "show", "acme"]).await;
    assert_eq!(shown["trial_ends"], START.s() + 14 * 86_400, "{shown}");
    let later = place.system.run_until(START.plus_ms(15 * 86_400_000));
    later.await.expect("time passes");
    let (_, said, _) = place.farebox(&["customers", "show", "acme"]).await;
    assert!(!said.contains("trial"), "{said}");

    let text = r#"{"price": {"amount": 99900, "interval": "month"}, "included": {"api_calls": 1000000},
                   "limits": [{"units": 1000, "window_ms": 60000}]}"#;
    let agreed = file("agreed.json", text);
    let agreed = agreed.to_str().expect("a path");
    let add = ["customers", "add", "beta", "--tier", "enterprise", "--override", agreed];
    let (code, _, stderr) = place.farebox(&add).await;
    assert_eq!(code, 0, "{stderr}");
    let (_, said, _) = place.farebox(&["customers", "show", "beta"]).await;
    let line = said.lines().find(|line| line.starts_with("agreed "));
    assert_eq!(
        line,
        Some("agreed          price 999/month; included 1000000; limits 1000/min"),
        "{said}"
    );
    let (_, said, _) = place.farebox(&["customers", "show", "acme"]).await;
    assert!(!said.contains("agreed"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_would_open_nothing_is_issued_with_a_warning() {
    let place = Place::start().await;
    place.json(&["customers", "add", "acme", "--tier", "pro"]).await;
    let issue = [
        "keys",
        "issue",
        "acme",
        "--scope",
        "/v2/other",
        "--scope",
        "GET /v1/items",
    ];
    let why = "no tier has a route that /v2/other names: it opens nothing";
    let (code, said) = place.dry(&issue).await;
    assert_eq!(code, 2, "{said}");
    assert!(
        said.contains(&format!("warning: {why}")) && !said.contains("/v1/items"),
        "{said}"
    );
    let (code, issued) = place.json(&issue).await;
    assert_eq!((code, &issued["warnings"][0]), (0, &Value::from(why)), "{issued}");
    assert_eq!(issued["warnings"].as_array().map(Vec::len), Some(1), "{issued}");
    let (_, issued) = place.json(&["keys", "issue", "acme"]).await;
    assert_eq!(issued["warnings"].as_array().map(Vec::len), Some(0), "{issued}");

    place.json(&["customers", "cancel", "acme", "--yes"]).await;
    let (code, _, stderr) = place.farebox(&["keys", "issue", "acme"]).await;
    assert_eq!(code, 0, "{stderr}");
    let why = "warning: the subscription of acme has ended: the key opens nothing until `farebox customers add acme`";
    assert!(stderr.contains(why), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_to_nobody_is_not_sent() {
    let place = Place::start().await;
    place.json(&["customers", "add", "acme", "--tier", "pro"]).await;
    for last in ["--dry-run", "--json"] {
        let (code, stdout, stderr) = place.farebox(&["alerts", "test", "acme", last]).await;
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        assert!(stderr.contains("nothing was sent"), "{stderr}");
    }
    // One that was noticed is never told.
    let system = &place.system;
    let noticed = Alert {
        customer: "acme".to_owned(),
        of: "quota".to_owned(),
        plan: "pro".to_owned(),
        meter: "api_calls".to_owned(),
        percent: 80,
        period: START.s(),
        units: 40_000,
        included: 50_000,
    };
    system.control.ledger.note_alert(&noticed).await.expect("noted");
    let (_, said, _) = place.farebox(&["alerts", "list", "acme"]).await;
    assert!(said.contains("never: there is no address"), "{said}");
    let tell = ["customers", "contact", "acme", "--email", "a@acme.example"];
    place.json(&tell).await;
    let (_, said, _) = place.farebox(&["alerts", "list", "acme"]).await;
    assert!(said.contains("not yet"), "{said}");
    let (code, said, stderr) = place.farebox(&["alerts", "test", "acme"]).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(said.contains("mail to a@acme.example"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_said_to_be_beyond_what_is_unlimited() {
    let place = Place::start().await;
    let text = r#"{"price": {"amount": 99900, "interval": "month"}, "included": {"api_calls": null}, "limits": []}"#;
    let agreed = file("unlimited.json", text);
    let agreed = agreed.to_str().expect("a path");
    let add = ["customers", "add", "acme", "--tier", "enterprise", "--override", agreed];
    let (code, _, stderr) = place.farebox(&add).await;
    assert_eq!(code, 0, "{stderr}");
    let (_, said, _) = place.farebox(&["usage", "show", "acme"]).await;
    assert!(said.contains("unlimited") && !said.contains("beyond"), "{said}");
    place.json(&["customers", "add", "beta", "--tier", "pro"]).await;
    let (_, said, _) = place.farebox(&["usage", "show", "beta"]).await;
    assert!(said.contains("beyond what is included: billed"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_event_told_is_followed_by_hand() {
    let place = Place::start().await;
    for id in ["acme", "beta"] {
        place.json(&["customers", "add", id, "--tier", "pro"]).await;
    }
    let (code, said) = place.dry(&["customers", "follow"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("2 subscriptions: the records agree with Stripe."),
        "{said}"
    );

    // Stripe ends a subscription, and its event never comes.
    let (_, shown) = place.json(&["customers", "show", "acme"]).await;
    let subscription = shown["stripe_subscription"].as_str().expect("a subscription");
    let stripe = &place.system.services.stripe;
    let ended = stripe
        .cancel_subscription(subscription, false, false, "dashboard")
        .await;
    ended.expect("ended");
    let (code, said) = place.dry(&["customers", "follow"]).await;
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("acme: pro, good, "), "{said}");
    assert!(said.contains("2 subscriptions: would change 1 record."), "{said}");
    let (_, shown) = place.json(&["customers", "show", "acme"]).await;
    assert_eq!(shown["standing"]["is"], "good", "{shown}");

    let (code, told) = place.json(&["customers", "follow"]).await;
    assert_eq!(
        (code, &told["changed"][0]["customer"]),
        (0, &Value::from("acme")),
        "{told}"
    );
    let (_, shown) = place.json(&["customers", "show", "acme"]).await;
    assert_eq!(shown["standing"]["is"], "ended", "{shown}");
    let (_, told) = place.json(&["customers", "follow", "acme"]).await;
    assert_eq!(told["changed"], Value::Array(Vec::new()), "{told}");

    // One that can't be asked for keeps no other from being followed.
    stripe_is_down_once(&place);
    let (code, told) = place.json(&["customers", "follow"]).await;
    assert_eq!(code, 1, "{told}");
    assert_eq!(
        (&told["looked_at"], &told["failed"][0]["customer"]),
        (&Value::from(2), &Value::from("acme"))
    );
    assert_eq!(place.farebox(&["customers", "follow", "nobody"]).await.0, 3);
}

fn stripe_is_down_once(place: &Place) {
    place.system.services.stand_in.misbehave(Fault {
        method: Some("GET".to_owned()),
        path_prefix: "/v1/subscriptions".to_owned(),
        // The client asks three times.
        times: 3,
        kind: FaultKind::DropBeforeCommit,
    });
}
