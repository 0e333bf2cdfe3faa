//! What was counted is billed to the unit, whatever happens to a counter item on the way.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use aws_sdk_dynamodb::{
    config::{ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeTransmitInterceptorContextRef},
    error::BoxError,
    types::AttributeValue,
};
use farebox_aws::{
    accounts::AccountTable, connect::Clients, control::Control, counters::CounterTable, ledger::LedgerTable,
};
use farebox_billing::{Books, Offer, When};
use farebox_core::{
    admission::parse_bucket_attribute,
    counter::BUCKETS_MAX,
    id::Generation,
    ledger::{self, Report, RowKey, RowState},
    tiers::Overrides,
    time::Timestamp,
};
use farebox_local::{Sold, System};
use farebox_tests::{Answer, START_S, call, environment, sell, system, units};

const PRO: &str = "
tiers:
  pro: {price: 49/month, included_calls: 100/month, rate_limit: unlimited, endpoints: [/v1/*], overage: $0.002/call}
  team: {price: 99/month, included_calls: 100/month, rate_limit: unlimited, endpoints: [/v1/*], overage: $0.002/call}";

const TWO_METERS: &str = "
meters: {tokens: [/v1/generate]}
tiers:
  pro: {price: 49/month, rate_limit: unlimited, endpoints: [/v1/*], included_calls: {api_calls: 100/month, tokens: 100/month},
    overage: {api_calls: $0.002, tokens: $0.002}}";

async fn calls(system: &System, sold: &Sold, n: u64) {
    for _ in 0..n {
        let answer = call(system, &environment(system, 0), &sold.key, "/v1/light").await;
        assert_eq!(answer, Answer::Admitted);
    }
}

type Item = HashMap<String, AttributeValue>;

async fn counter(system: &System) -> Item {
    let read = system.services.clients.dynamodb.get_item();
    let read = read
        .table_name(&system.tables().counters)
        .key("pk", AttributeValue::S("acme#0".to_owned()))
        .consistent_read(true);
    read.send().await.expect("readable").item.expect("there")
}

#[tokio::test]
async fn what_a_message_brings_while_its_row_is_frozen_is_not_lost() {
    let system = system(PRO, 1).await;
    let ledger = &system.control.ledger;
    let key = RowKey {
        customer: "acme".to_owned().try_into().expect("an id"),
        shard: 0,
        generation: Generation::new([7; 8], 0),
        meter: "api_calls".to_owned(),
        bucket: START_S,
    };
    let report = Report {
        value: 1,
        stripe_customer: "cus_1".to_owned(),
        event_name: "api_calls".to_owned(),
        timestamp: START_S,
        identifier: key.identifier(),
    };
    let now = Timestamp::from_s(START_S + 7_200);
    let write = async |write| ledger.write(&key, write).await.expect("an outcome");
    write(ledger::fold(&key, START_S + 3_600, 1)).await;
    // A worker has read the row; then a message comes.
    write(ledger::fold(&key, START_S + 3_600, 2)).await;
    for late in [
        ledger::freeze(&report, 1, 0, now),
        ledger::close(1, 1, "all of it was given", now),
    ] {
        write(late).await;
        let row = ledger.read(&key).await.expect("readable").expect("a row");
        assert_eq!((row.state, row.units), (RowState::Open, 2));
    }
    write(ledger::freeze(&Report { value: 2, ..report }, 2, 0, now)).await;
    let row = ledger.read(&key).await.expect("readable").expect("a row");
    assert_eq!((row.state, row.units), (RowState::Sealed, 2));
}

#[tokio::test]
async fn an_item_from_a_backup_takes_nothing_back_that_messages_said() {
    let system = system(PRO, 1).await;
    let sold = sell(&system, "pro").await;
    calls(&system, &sold, 1).await;
    let backup = counter(&system).await;
    calls(&system, &sold, 2).await;
    system.send_usage().await.expect("folded");
    let put = system.services.clients.dynamodb.put_item();
    let put = put.table_name(&system.tables().counters).set_item(Some(backup));
    put.send().await.expect("put back");

    // The consumer comes before the operator.
    system.clock().set(Timestamp::from_s(START_S + 7_200));
    system.consumer.tick().await.expect("a tick");
    let now = system.clock().now();
    let restored = system.control.restore_counter(&sold.customer.id, 0, now).await;
    restored.expect("restored");
    for _ in 0..2 {
        system.consumer.tick().await.expect("a tick");
    }
    let (_, ledger, stripe) = units(&system, &sold).await;
    assert_eq!((ledger, stripe), (3, 3));
}

#[tokio::test]
async fn a_report_is_stamped_within_its_bucket_though_a_change_cut_it_after_its_first_message() {
    let system = system(PRO, 1).await;
    let sold = sell(&system, "pro").await;
    let id = &sold.customer.id;
    // The fourth generation: its reports are stamped three minutes after the hour.
    for _ in 0..3 {
        let restored = system.control.restore_counter(id, 0, system.clock().now()).await;
        restored.expect("restored");
    }
    calls(&system, &sold, 2).await;
    system.send_usage().await.expect("folded");
    let cut = START_S + 120;
    system.clock().set(Timestamp::from_s(cut));
    let offer = Offer {
        tier: "team".to_owned(),
        catalog: system.catalog.0,
        overrides: Overrides::default(),
        when: When::Now,
    };
    system.books.change_tier(id, offer).await.expect("changed");
    calls(&system, &sold, 1).await;
    system
        .run_until(Timestamp::from_s(START_S + 7_200))
        .await
        .expect("time passes");
    let (rows, _) = system.control.ledger.scan().await.expect("readable");
    let stamps: Vec<(u64, u64)> = rows
        .iter()
        .filter_map(|row| Some((row.key.bucket, row.report.as_ref()?.timestamp)))
        .collect();
    assert_eq!(stamps.len(), 2, "{rows:?}");
    for (bucket, stamp) in stamps {
        assert_eq!(
            bucket < cut,
            stamp < cut,
            "the report of {bucket} is stamped {stamp}, on the other side of {cut}"
        );
    }
}

/// Lets something happen right before the write that gives a counter item its new generation.
struct BeforeTheSwitch<F>(F);

impl<F> std::fmt::Debug for BeforeTheSwitch<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BeforeTheSwitch")
    }
}

impl<F: Fn() + Send + Sync> Intercept for BeforeTheSwitch<F> {
    fn name(&self) -> &'static str {
        "BeforeTheSwitch"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.request().body().bytes().unwrap_or_default();
        if String::from_utf8_lossy(body).contains("SET generation = :new") {
            (self.0)();
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admission_between_the_last_look_at_an_item_and_its_new_generation_is_billed_once() {
    let system = system(PRO, 1).await;
    let sold = sell(&system, "pro").await;
    calls(&system, &sold, 4).await;

    let [asked, admitted] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
    let racing = {
        let (system, key) = (Arc::clone(&system), sold.key.clone());
        let (asked, admitted) = (Arc::clone(&asked), Arc::clone(&admitted));
        move || {
            let request = async {
                asked.fetch_add(1, Relaxed);
                if call(&system, &environment(&system, 0), &key, "/v1/light").await == Answer::Admitted {
                    admitted.fetch_add(1, Relaxed);
                }
            };
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(request));
        }
    };
    let known = &system.services.clients;
    let config = known
        .dynamodb
        .config()
        .to_builder()
        .interceptor(BeforeTheSwitch(racing));
    let clients = Clients {
        dynamodb: aws_sdk_dynamodb::Client::from_conf(config.build()),
        ..known.clone()
    };
    let tables = system.tables();
    let control = Control {
        accounts: AccountTable::new(clients.clone(), tables.accounts.clone()),
        counters: CounterTable::new(clients.clone(), tables.counters.clone()),
        ledger: LedgerTable::new(clients, tables.ledger.clone()),
    };
    let restored = control
        .restore_counter(&sold.customer.id, 0, system.clock().now())
        .await;
    restored.expect("restored");
    assert_eq!(asked.load(Relaxed), 1);
    calls(&system, &sold, 3).await;

    // Every message is lost.
    system.consumer.scan().await.expect("a scan");
    system.clock().set(Timestamp::from_s(START_S + 7_200));
    for _ in 0..3 {
        system.consumer.tick().await.expect("a tick");
    }
    let (_, ledger, stripe) = units(&system, &sold).await;
    let counted = 7 + admitted.load(Relaxed);
    assert_eq!((ledger, stripe), (counted, counted));
}

/// The reporter, without a way to Stripe.
fn cut_off(system: &System) -> Books {
    // Nobody listens there.
    let nowhere = farebox_stripe::Config {
        base_url: "http://127.0.0.1:9".to_owned(),
        ..farebox_stripe::Config::new(farebox_stripe::SecretKey::new("sk_test_local").expect("a key"))
    };
    Books {
        stripe: farebox_stripe::Client::new(nowhere).expect("a client"),
        ..system.books.clone()
    }
}

/// One unit, in a bucket that a change cuts after two minutes, which its first generation counts and as many later ones could.
/// What becomes of its report when Stripe is back after a day, and may have forgotten it.
async fn after_a_day(restored_before: u32, restored_later: u32) -> (RowState, Option<String>) {
    let system = system(PRO, 1).await;
    let sold = sell(&system, "pro").await;
    let id = &sold.customer.id;
    calls(&system, &sold, 1).await;
    system.send_usage().await.expect("folded");
    let restore = async |times| {
        for _ in 0..times {
            let restored = system.control.restore_counter(id, 0, system.clock().now()).await;
            restored.expect("restored");
        }
    };
    restore(restored_before).await;
    system.clock().set(Timestamp::from_s(START_S + 120));
    let offer = Offer {
        tier: "team".to_owned(),
        catalog: system.catalog.0,
        overrides: Overrides::default(),
        when: When::Now,
    };
    system.books.change_tier(id, offer).await.expect("changed");
    let tick = async |s, books: &Books| {
        system.clock().set(Timestamp::from_s(s));
        books.tick().await.expect("a tick");
    };
    tick(START_S + 7_200, &cut_off(&system)).await;
    restore(restored_later).await;
    tick(START_S + 25 * 3_600, &system.books).await;
    let (rows, _) = system.control.ledger.scan().await.expect("readable");
    let row = rows.into_iter().find(|row| row.units == 1).expect("the row");
    (row.state, row.outcome)
}

#[tokio::test]
async fn a_minute_that_later_generations_share_can_not_be_asked_for() {
    let accepted = (RowState::Reported, Some("accepted".to_owned()));
    assert_eq!(after_a_day(1, 0).await, accepted, "a minute for each of two");
    assert_eq!(after_a_day(1, 3).await, accepted, "they came when the bucket was over");
    let (state, why) = after_a_day(3, 0).await;
    assert_eq!(state, RowState::Parked);
    assert!(
        why.as_deref().is_some_and(|why| why.contains("its minute is shared")),
        "{why:?}"
    );
}

#[tokio::test]
async fn a_row_that_was_frozen_before_its_bucket_was_over_is_looked_at_again() {
    let system = system(PRO, 1).await;
    let sold = sell(&system, "pro").await;
    calls(&system, &sold, 1).await;
    let closed = cut_off(&system).close(&sold.customer, START_S + 1).await;
    assert_eq!(closed.expect("closed").sealed, 1);
    let row = async || {
        let (rows, _) = system.control.ledger.scan().await.expect("readable");
        rows.into_iter().next().expect("a row")
    };
    assert_eq!(row().await.own_minute, Some(false), "another generation may come");
    system.clock().set(Timestamp::from_s(START_S + 25 * 3_600));
    system.consumer.tick().await.expect("a tick");
    assert_eq!(row().await.outcome.as_deref(), Some("accepted"), "none came");
}

/// An item's size as DynamoDB counts it: names and values, a number two digits a byte and one more
/// (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html>).
fn size(item: &Item) -> usize {
    let value = |value: &AttributeValue| match value {
        AttributeValue::S(text) => text.len(),
        AttributeValue::N(digits) => digits.trim_end_matches('0').len().div_ceil(2) + 1,
        other => panic!("a counter item has no {other:?}"),
    };
    item.iter().map(|(name, of)| name.len() + value(of)).sum()
}

#[tokio::test]
async fn in_five_days_without_stripe_the_item_stays_below_1_kb_and_nothing_is_lost() {
    let system = system(TWO_METERS, 1).await;
    let sold = sell(&system, "pro").await;
    let cut_off = cut_off(&system);
    let (hours, hours_with_tokens) = (120, 10);
    let mut largest = 0;
    for hour in 0..hours {
        system.clock().set(Timestamp::from_s(START_S + hour * 3_600 + 600));
        cut_off.tick().await.expect("a tick");
        calls(&system, &sold, 2).await;
        // Of a meter that is used no more others make room.
        if hour < hours_with_tokens {
            let answer = call(&system, &environment(&system, 0), &sold.key, "/v1/generate").await;
            assert_eq!(answer, Answer::Admitted);
        }
        system.send_usage().await.expect("folded");
        let item = counter(&system).await;
        largest = largest.max(size(&item));
        let buckets: Vec<u64> = item
            .keys()
            .filter_map(|name| Some(parse_bucket_attribute(name)?.0))
            .collect();
        let most = BUCKETS_MAX + 2;
        assert!(buckets.len() <= most, "{} buckets after {hour} hours", buckets.len());
        // The newest stay: they are what a ledger that is put back from a backup lacks.
        let oldest = buckets.into_iter().min().expect("the running one");
        assert!(
            oldest + most as u64 * 3_600 > START_S + hour * 3_600,
            "{oldest} waits after {hour} hours"
        );
    }
    assert!(largest < 1_024, "{largest} bytes");
    let (rows, _) = system.control.ledger.scan().await.expect("readable");
    assert!(
        rows.iter().all(|row| row.state != RowState::Reported),
        "Stripe was away"
    );

    let back = Timestamp::from_s(START_S + (hours + 3) * 3_600);
    system.run_until(back).await.expect("time passes");
    let tokens = hours_with_tokens;
    assert_eq!(units(&system, &sold).await, (240, 240 + tokens, 240));
    let (rows, _) = system.control.ledger.scan().await.expect("readable");
    assert_eq!(rows.len(), 120 + 10);
    let of_tokens = rows.iter().filter(|row| row.key.meter == "tokens");
    assert_eq!(of_tokens.map(|row| row.units).sum::<u64>(), tokens);
    assert!(rows.iter().all(|row| row.state == RowState::Reported), "{rows:?}");
}
