//! Whatever an operator does for one customer leaves the other ones as they are, and shows nothing of them.

#[path = "support/commands.rs"]
mod commands;
#[expect(dead_code, reason = "the system has tiers of its own here")]
mod support;

use std::{collections::BTreeSet, sync::Arc};

use aws_sdk_sqs::types::QueueAttributeName;
use farebox_core::{
    id::Generation,
    key::ApiKey,
    ledger::{self, Claim, RowKey},
    message::{UsageMessage, VERSION},
    tiers::DEFAULT_METER,
};
use farebox_local::{Options, Sold, System, VirtualClock};
use farebox_stripe::MeterEvent;
use farebox_tests::{Answer, call, environment, held, items};

use crate::{
    commands::commands,
    support::{START, farebox, run, serve},
};

/// Every figure of a tier differs from those of the others. Beta alone is on the large one.
const TIERS: &str = "
weights:
  GET /v1/report: 47
tiers:
  small: {price: 5/month, included_calls: 1009/month, rate_limit: 211/min, endpoints: [/v1/*], overage: $0.002/call}
  middle: {price: 19/month, included_calls: 3001/month, rate_limit: 401/min, endpoints: [/v1/*], overage: $0.004/call}
  large: {price: 99/month, included_calls: 397/month, rate_limit: 6011/min, endpoints: [/v1/*], overage: $0.001/call}";
/// What the file to be applied changes: beta's own tier, which beta stays on as it was sold.
const OLD_PRICE: &str = "overage: $0.001/call";
const NEW_PRICE: &str = "overage: $0.003/call";
/// What only beta has: a name, a tier, what it includes, its limit, what was used in the first hour and in all.
const OF_BETA: [&str; 6] = ["beta", "large", "397", "6011", "329", "343"];
/// Buckets are hours.
const HOUR_S: u64 = 3_600;
/// The bucket whose rows are parked.
const PARKED_S: u64 = 3 * HOUR_S;
/// When the commands are given, half an hour after the last bucket of which anything is counted has begun.
const LAST_S: u64 = 4 * HOUR_S;
const NOW_S: u64 = LAST_S + HOUR_S / 2;
/// A message of beta's that no consumer can read: nothing sends it back.
const UNREADABLE: &str = r#"{"v":99,"customer":"beta"}"#;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// One customer, named in the arguments: nothing of others is shown.
    Acme,
    /// Everybody, or nobody: others may be shown, and stay as they are.
    All,
    /// Not run here: it begins a system of its own, or works on a deployment.
    Elsewhere,
}

/// A command, its arguments, whom it is for, the code that it ends with, and whether the first time changes anything.
type Case = (&'static str, &'static str, Of, i32, bool);

const CHANGES: bool = true;
const READS: bool = false;

/// Every command, with arguments that act on acme where it acts on a customer. `HASH` is that of acme's key, `NEW` a customer that
/// there is not yet, `HOOK` an address that takes calls, `FILE` a file with tiers.
const COMMANDS: [Case; 34] = [
    ("dev", "", Of::Elsewhere, 0, READS),
    ("demo", "", Of::Elsewhere, 0, READS),
    ("doctor", "", Of::Elsewhere, 0, READS),
    ("deploy", "", Of::Elsewhere, 0, READS),
    ("destroy", "", Of::Elsewhere, 0, READS),
    ("tiers check", "FILE", Of::All, 0, READS),
    // Changes are pending.
    ("tiers diff", "FILE", Of::All, 2, READS),
    ("tiers apply", "FILE --yes", Of::All, 0, CHANGES),
    ("customers add", "NEW --tier small --key", Of::All, 0, CHANGES),
    ("customers show", "acme", Of::Acme, 0, READS),
    ("customers list", "", Of::All, 0, READS),
    ("customers grant", "acme 100", Of::Acme, 0, CHANGES),
    ("customers cap", "acme 100", Of::Acme, 0, CHANGES),
    (
        "customers contact",
        "acme --email new@acme.example --webhook HOOK",
        Of::Acme,
        0,
        CHANGES,
    ),
    ("customers follow", "acme", Of::Acme, 0, READS),
    ("customers suspend", "acme", Of::Acme, 0, CHANGES),
    ("customers resume", "acme", Of::Acme, 0, CHANGES),
    ("customers set-tier", "acme middle", Of::Acme, 0, CHANGES),
    ("keys issue", "acme", Of::Acme, 0, CHANGES),
    ("keys rotate", "HASH", Of::Acme, 0, CHANGES),
    ("keys list", "acme", Of::Acme, 0, READS),
    ("keys revoke", "HASH", Of::Acme, 0, CHANGES),
    ("usage show", "acme", Of::Acme, 0, READS),
    ("usage top", "", Of::All, 0, READS),
    ("usage tail", "acme --looks 1", Of::Acme, 0, READS),
    ("alerts test", "acme", Of::Acme, 0, CHANGES),
    ("alerts list", "acme", Of::Acme, 0, READS),
    // Acme's parked row is mended; beta's is left to the operator.
    ("stripe repair", "", Of::All, 1, CHANGES),
    ("reconcile", "acme", Of::Acme, 0, READS),
    // Acme's message is sent back; beta's can't be read, and stays.
    ("events replay", "", Of::All, 1, CHANGES),
    ("counters restore", "acme 0", Of::Acme, 0, CHANGES),
    ("period close", "acme --now", Of::Acme, 0, CHANGES),
    ("cost", "--calls 10M", Of::All, 0, READS),
    ("completions", "bash", Of::All, 0, READS),
];
/// After all others: nothing comes after it.
const LAST: Case = ("customers cancel", "acme --yes", Of::Acme, 0, CHANGES);

#[tokio::test]
async fn no_command_is_left_out() {
    let listed = COMMANDS.iter().chain([&LAST]).map(|(path, ..)| (*path).to_owned());
    assert_eq!(commands().await, listed.collect(), "add a new command to COMMANDS");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_for_one_customer_leaves_the_others_alone() {
    let Two { system, acme, beta } = two().await;
    let url = serve(system.gateway.router(system.clone())).await;
    let hash = ApiKey::parse(&acme.key).expect("a key").hash().to_string();
    let hook = format!("http://{}/hooks/acme", system.services.outbox_address);
    let file = std::env::temp_dir().join(format!("farebox-isolation-{}.yaml", std::process::id()));
    std::fs::write(&file, TIERS.replace(OLD_PRICE, NEW_PRICE)).expect("a temporary file");
    let file = file.to_str().expect("a path").to_owned();

    let before = held(&system, &beta.customer).await;
    for (what, part) in [
        ("a parked row", "S(\"parked\")"),
        ("an open row", "S(\"open\")"),
        ("a reported row", "S(\"reported\")"),
        ("a mail about a threshold", "channel: \"email\""),
        ("usage in Stripe", ":332"),
    ] {
        assert!(
            before.iter().any(|text| text.contains(part)),
            "beta has no {what}: {before:#?}"
        );
    }
    for (path, arguments, of, ends, changes) in COMMANDS
        .iter()
        .chain([&LAST])
        .filter(|(.., of, _, _)| *of != Of::Elsewhere)
    {
        for is_first in [true, false] {
            let new = if is_first { "gamma" } else { "delta" };
            let filled = [("HASH", &*hash), ("FILE", &*file), ("HOOK", &*hook), ("NEW", new)]
                .into_iter()
                .fold((*arguments).to_owned(), |text, (name, value)| text.replace(name, value));
            let mut words: Vec<String> = path
                .split(' ')
                .chain(filled.split_whitespace())
                .map(str::to_owned)
                .collect();
            words.extend((!is_first).then(|| "--json".to_owned()));
            let asked: Vec<&str> = words.iter().map(String::as_str).collect();
            let was = concerned(&system, &acme, *of).await;
            let (code, stdout, stderr) = run(farebox(&asked, &[("FAREBOX_LOCAL", &url)])).await;
            let said = stdout + &stderr;
            assert!(!said.contains("panicked"), "{words:?}: {said}");
            // What was replaced is not replaced again.
            let is_refused = *path == "keys rotate" && !is_first;
            assert_eq!(code, if is_refused { 1 } else { *ends }, "{words:?}: {said}");
            if *of == Of::Acme {
                shows_nothing_of_beta(&words, &said);
            }
            for key in [&acme.key, &beta.key] {
                assert!(!said.contains(key), "{words:?} shows a key: {said}");
            }
            settle(&system).await;
            assert_eq!(held(&system, &beta.customer).await, before, "{words:?}");
            // What is done again may change nothing any more.
            if is_first || !changes {
                let has_changed = concerned(&system, &acme, *of).await != was;
                assert_eq!(has_changed, *changes, "{words:?}: {said}");
            }
        }
    }
    let left = system
        .drain(&system.queues().usage_dead)
        .await
        .expect("the queue answers");
    let left: Vec<&str> = left.iter().filter_map(|message| message.body()).collect();
    assert_eq!(left, [UNREADABLE], "beta's dead letter stays, and acme's is gone");
}

/// A name stands nowhere, not even in another word; a figure may be a part of a time or of a hash.
fn shows_nothing_of_beta(words: &[String], said: &str) {
    let shown: BTreeSet<&str> = said.split(|char: char| !char.is_ascii_alphanumeric()).collect();
    for word in OF_BETA {
        assert!(!shown.contains(word), "{words:?} shows {word}: {said}");
    }
    assert!(!said.contains("beta"), "{words:?} shows beta: {said}");
}

/// What a command may change: acme's, or anything at all.
async fn concerned(system: &System, acme: &Sold, of: Of) -> Vec<String> {
    if of == Of::Acme {
        return held(system, &acme.customer).await;
    }
    let (tables, queues) = (system.tables(), system.queues());
    let mut all = Vec::new();
    for table in [&tables.accounts, &tables.counters, &tables.ledger] {
        all.extend(items(system, table).await);
    }
    let sent = system.services.outbox.entries();
    all.extend(sent.iter().map(|entry| format!("{entry:?}")));
    all.push(system.services.stand_in.snapshot().to_string());
    for queue in [&queues.usage_dead, &queues.alerts_dead] {
        all.push(depth(system, queue).await);
    }
    all
}

/// How many messages a queue holds, hidden ones too.
async fn depth(system: &System, queue: &str) -> String {
    let request = system.services.clients.sqs.get_queue_attributes().queue_url(queue);
    let answer = request.attribute_names(QueueAttributeName::All).send().await;
    let attributes = answer.expect("the queue answers").attributes.unwrap_or_default();
    let names = [
        QueueAttributeName::ApproximateNumberOfMessages,
        QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
    ];
    let numbers = names.map(|name| attributes[&name].parse::<u64>().expect("a number"));
    format!("{queue} holds {}", numbers.into_iter().sum::<u64>())
}

/// Lets everything arrive that a command has set off.
async fn settle(system: &Arc<System>) {
    system.services.stand_in.settle();
    system.deliver_events().await.expect("delivered");
    system.pump().await.expect("folded");
    system.deliver_alerts().await.expect("delivered");
}

struct Two {
    system: Arc<System>,
    acme: Sold,
    beta: Sold,
}

/// Two customers, each with a bucket in Stripe, a parked one, one that is still open and a dead letter; beta was told that a
/// threshold is reached.
async fn two() -> Two {
    let options = Options {
        tiers: TIERS.to_owned(),
        clock: VirtualClock::standing(START),
        ..Options::new()
    };
    let system = System::start(options).await.expect("the system starts");
    let sell = async |id: &str, tier: &str| system.sell(id, tier, Default::default()).await.expect("sold");
    let (acme, beta) = (sell("acme", "small").await, sell("beta", "large").await);
    let authorizer = environment(&system, 0);
    let use_up = async |sold: &Sold, path: &str, times: u64| {
        for _ in 0..times {
            assert_eq!(call(&system, &authorizer, &sold.key, path).await, Answer::Admitted);
        }
    };
    use_up(&acme, "/v1/items", 7).await;
    use_up(&beta, "/v1/report", 7).await;
    system
        .run_until(START.plus_ms(PARKED_S * 1_000))
        .await
        .expect("time passes");
    use_up(&acme, "/v1/items", 5).await;
    use_up(&beta, "/v1/items", 11).await;
    system.send_usage().await.expect("folded");
    system.clock().set(START.plus_ms(NOW_S * 1_000));
    use_up(&acme, "/v1/items", 2).await;
    use_up(&beta, "/v1/items", 3).await;
    system.send_usage().await.expect("folded");

    park(&system, &acme, 5).await;
    let parked = park(&system, &beta, 11).await;
    // Somebody else has sent to beta's meter in that minute, so that the row is for the operator to settle.
    let event = MeterEvent {
        event_name: parked.event_name,
        stripe_customer: parked.stripe_customer,
        value: 3,
        identifier: "a-stranger".to_owned(),
        timestamp: i64::try_from(parked.timestamp).expect("small"),
    };
    let sent = system.services.stripe.report_meter_event(&event, "a-stranger").await;
    sent.expect("taken");

    let readable = last_message(&system, &acme).await.to_body();
    for body in [UNREADABLE, &readable] {
        let sqs = &system.services.clients.sqs;
        let dead = sqs.send_message().queue_url(&system.queues().usage_dead);
        dead.message_body(body).send().await.expect("sent");
    }
    settle(&system).await;
    Two { system, acme, beta }
}

async fn generation(system: &System, sold: &Sold) -> Generation {
    let item = system.control.counters.read(&format!("{}#0", sold.customer.id)).await;
    let item = item.expect("readable").expect("an item");
    Generation::try_from(item.generation).expect("a generation")
}

/// Parks a row, as the reporter does when Stripe rejects its report. Nothing of it is in Stripe.
async fn park(system: &System, sold: &Sold, units: u64) -> ledger::Report {
    let bucket = START.s() + PARKED_S;
    let key = RowKey {
        customer: sold.customer.id.clone(),
        shard: 0,
        generation: generation(system, sold).await,
        meter: DEFAULT_METER.to_owned(),
        bucket,
    };
    let report = ledger::Report {
        value: units,
        stripe_customer: sold.customer.stripe_customer.clone().expect("in Stripe"),
        event_name: sold.customer.phase_at(bucket).plan.event_name(DEFAULT_METER),
        timestamp: bucket,
        identifier: key.identifier(),
    };
    let now = system.clock().now();
    let seal = farebox_core::counter::seal(&key.generation, bucket);
    let item = format!("{}#0", sold.customer.id);
    system.control.counters.write(&item, seal).await.expect("sealed");
    let claim = Claim {
        token: "t".to_owned(),
        at: now,
    };
    for write in [
        ledger::freeze(&report, units, 0, now),
        ledger::claim(&claim),
        ledger::park("t", "stripe rejected the call"),
    ] {
        system.control.ledger.write(&key, write).await.expect("written");
    }
    let row = system
        .control
        .ledger
        .read(&key)
        .await
        .expect("readable")
        .expect("a row");
    assert_eq!((row.state, row.units), (ledger::RowState::Parked, units));
    report
}

/// What the authorizer has said of the newest bucket already: folding it again changes nothing.
async fn last_message(system: &System, sold: &Sold) -> UsageMessage {
    let bucket = START.s() + LAST_S;
    UsageMessage {
        v: VERSION,
        customer: sold.customer.id.clone(),
        shard: 0,
        generation: generation(system, sold).await,
        meter: DEFAULT_METER.to_owned(),
        bucket,
        bucket_end: bucket + HOUR_S,
        units: 2,
        period: sold.customer.cycle.current.start,
        plan: sold.customer.phase_at(bucket).plan.clone(),
        period_units: 14,
        included: Some(1_009),
        cap: None,
        alert_percents: vec![80],
        at: system.clock().now().ms(),
    }
}
