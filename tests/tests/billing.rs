//! From the counter to the invoice.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use farebox_billing::{Books, TickReport};
use farebox_consumer::FoldReport;
use farebox_core::{
    id::Generation,
    ledger::{self, ASK_AFTER_S, PUT_OFF_S, REPORT_WITHIN_S, RowKey, RowState},
    message::UNITS_MAX,
    tiers::Overrides,
    time::Timestamp,
};
use farebox_local::{Options, System, VirtualClock};
use farebox_stripe::MeterEvent;
use farebox_stripe_standin::{Fault, FaultKind};
use farebox_tests::{Answer, START_S, call, environment, sell, system, units};

const PRO: &str = "
weights: {/v1/heavy: 50}
tiers: {pro: {price: 49/month, included_calls: 100/month, rate_limit: unlimited, endpoints: [/v1/*], overage: $0.002/call}}";

#[tokio::test]
async fn a_month_of_usage_arrives_in_stripe_exactly_once_and_on_the_invoice() {
    let system = system(PRO, 3).await;
    let sold = sell(&system, "pro").await;
    for hour in 0..30u64 {
        system
            .run_until(Timestamp::from_s(START_S + hour * 3_600 + 17))
            .await
            .expect("time passes");
        for n in 0..3 {
            assert_eq!(
                call(&system, &environment(&system, n), &sold.key, "/v1/heavy").await,
                Answer::Admitted
            );
            assert_eq!(
                call(&system, &environment(&system, n), &sold.key, "/v1/light").await,
                Answer::Admitted
            );
        }
        // Whatever is done twice changes nothing.
        system.send_usage().await.expect("folded");
        system.consumer.tick().await.expect("a tick");
        system.consumer.scan().await.expect("a scan");
    }
    let end = sold.customer.cycle.current.end;
    system
        .run_until(Timestamp::from_s(end + 7_200))
        .await
        .expect("the month ends");
    assert_eq!(units(&system, &sold).await, (4_590, 4_590, 4_590));
    let customer = sold.customer.stripe_customer.as_deref().expect("in Stripe");
    let invoices = system.services.stripe.invoices(customer).await.expect("invoices");
    let closing = invoices
        .iter()
        .find(|i| i.billing_reason.as_deref() == Some("subscription_cycle"))
        .expect("closed");
    assert_eq!(closing.total, 4_900 + (4_590 - 100) * 2 / 10);
}

#[tokio::test]
async fn usage_whose_every_message_was_lost_is_found_by_the_scan() {
    let system = system(PRO, 1).await;
    let sold = sell(&system, "pro").await;
    for _ in 0..7 {
        assert_eq!(
            call(&system, &environment(&system, 0), &sold.key, "/v1/light").await,
            Answer::Admitted
        );
    }
    // The environment dies with its outbox: nothing was sent.
    system.consumer.scan().await.expect("a scan");
    system.clock().set(Timestamp::from_s(START_S + 7_200));
    system.consumer.tick().await.expect("a tick");
    assert_eq!(units(&system, &sold).await, (7, 7, 7));
}

#[tokio::test]
async fn a_poison_message_fails_alone_and_a_duplicate_changes_nothing() {
    let system = system(PRO, 1).await;
    let sold = sell(&system, "pro").await;
    let generation = system
        .control
        .counters
        .read("acme#0")
        .await
        .expect("readable")
        .expect("there")
        .generation;
    let good = format!(
        r#"{{"v":1,"customer":"acme","shard":0,"generation":"{generation}","meter":"api_calls","bucket":{START_S},
        "bucket_end":{},"units":5,"period":{START_S},"plan":"pro-00000000","period_units":5,"alert_percents":[80],"at":0}}"#,
        START_S + 3_600
    );
    let huge = good.replace("\"units\":5", "\"units\":1000000000000000");
    let long_ago = START_S - REPORT_WITHIN_S - 3_600;
    let stale = good
        .replace(&(START_S + 3_600).to_string(), &(long_ago + 3_600).to_string())
        .replace(&START_S.to_string(), &long_ago.to_string());
    let bodies = [
        &good,
        "not json",
        "{\"v\":2}",
        "{\"v\":1}",
        &good.replace("\"units\":5", "\"units\":-5"),
        &huge,
        &good[..60],
        &good,
        &stale,
    ];
    let records: Vec<(String, String)> = bodies
        .iter()
        .enumerate()
        .map(|(i, body)| (format!("m{i}"), (*body).to_owned()))
        .collect();
    let report = system.consumer.fold(&records).await;
    let failed = ["m1", "m2", "m3", "m4", "m5", "m6"].map(str::to_owned);
    let expected = FoldReport {
        failed: failed.to_vec(),
        folded_rows: 1,
        stale_dropped: 1,
        alerts: Vec::new(),
    };
    assert_eq!(report, expected);
    let (rows, _) = system.control.ledger.scan().await.expect("readable");
    assert_eq!(
        rows.iter()
            .map(|row| (row.key.customer.as_str(), row.units))
            .collect::<Vec<_>>(),
        [("acme", 5)]
    );
    assert_eq!(sold.customer.id.as_str(), "acme");
}

#[tokio::test]
async fn messages_that_a_ledger_did_not_take_come_again() {
    let system = system(PRO, 1).await;
    let ledger = system.tables().ledger.clone();
    let delete = system.services.clients.dynamodb.delete_table().table_name(ledger);
    delete.send().await.expect("deleted");
    let record = |id: &str, customer: &str| {
        let body = format!(
            r#"{{"v":1,"customer":"{customer}","shard":0,"generation":"0123456789abcdef-0","meter":"api_calls","bucket":{START_S},
            "bucket_end":{},"units":5,"period":{START_S},"plan":"pro-00000000","period_units":5,"alert_percents":[80],"at":0}}"#,
            START_S + 3_600
        );
        (id.to_owned(), body)
    };
    let records = [record("a", "acme"), record("b", "acme"), record("c", "initech")];
    let report = system.consumer.fold(&records).await;
    assert_eq!((report.failed.join(" ").as_str(), report.folded_rows), ("a b c", 0));
}

/// A row of a counter item that is gone, with so many units.
async fn fold(system: &System, customer: &str, units: u64) {
    let key = RowKey {
        customer: customer.to_owned().try_into().expect("an id"),
        shard: 0,
        generation: Generation::new([7; 8], 0),
        meter: "api_calls".to_owned(),
        bucket: START_S,
    };
    let write = ledger::fold(&key, START_S + 3_600, units);
    system.control.ledger.write(&key, write).await.expect("written");
}

#[tokio::test]
async fn a_tick_tells_what_became_of_each_row() {
    let system = system(PRO, 1).await;
    for (customer, given, units) in [
        ("billed", 0, 5),
        ("given", 5, 5),
        ("partly", 4, 5),
        ("most", 0, UNITS_MAX),
        ("more", 0, UNITS_MAX + 1),
    ] {
        let sold = system.sell(customer, "pro", Overrides::default()).await;
        let id = &sold.expect("the tier is sold").customer.id;
        if given > 0 {
            let granted = system.books.grant(id, "api_calls", given, "welcome").await;
            granted.expect("given");
        }
        fold(&system, customer, units).await;
    }
    fold(&system, "nobody", 5).await;
    let nothing = system.sell("nothing", "pro", Overrides::default()).await;
    nothing.expect("the tier is sold");
    fold(&system, "nothing", 0).await;

    system.clock().set(Timestamp::from_s(START_S + 7_200));
    let expected = TickReport {
        due: 7,
        sealed: 3,
        closed: 3,
        reported: 3,
        finished: 6,
        errors: 1,
        ..TickReport::default()
    };
    assert_eq!(system.consumer.tick().await.expect("a tick"), expected);
    let (rows, _) = system.control.ledger.scan().await.expect("readable");
    let mut outcomes: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row.key.customer.as_str(),
                row.credit,
                row.outcome.as_deref().unwrap_or_default(),
            )
        })
        .collect();
    outcomes.sort_unstable();
    let expected = [
        ("billed", 0, "accepted"),
        ("given", 5, "all of it was given"),
        ("more", 0, ""),
        ("most", 0, "accepted"),
        ("nobody", 0, "not billed: the customer is not in Stripe"),
        ("nothing", 0, "nothing to report"),
        ("partly", 4, "accepted"),
    ];
    assert_eq!(outcomes, expected);
}

#[tokio::test]
async fn what_stripe_may_have_forgotten_is_sent_only_if_its_minute_is_empty() {
    let system = system(PRO, 1).await;
    // Somebody has reported so many units in the minute that the row's report is stamped with.
    for (customer, counted) in [("empty", 0), ("same", 5), ("other", 4)] {
        let sold = system.sell(customer, "pro", Overrides::default()).await;
        let sold = sold.expect("the tier is sold").customer;
        fold(&system, customer, 5).await;
        let event = MeterEvent {
            event_name: sold.phase_at(START_S).plan.event_name("api_calls"),
            stripe_customer: sold.stripe_customer.expect("in Stripe"),
            value: counted,
            identifier: format!("somebody-{customer}"),
            timestamp: START_S as i64,
        };
        if counted > 0 {
            let sent = system
                .services
                .stripe
                .report_meter_event(&event, &event.identifier)
                .await;
            sent.expect("Stripe takes it");
        }
    }
    system.clock().set(Timestamp::from_s(START_S + ASK_AFTER_S + 1));
    let report = system.consumer.tick().await.expect("a tick");
    assert_eq!((report.due, report.reported, report.parked), (3, 2, 1));
    let (rows, _) = system.control.ledger.scan().await.expect("readable");
    let outcome = |customer| {
        let row = rows.iter().find(|row| row.key.customer.as_str() == customer);
        row.and_then(|row| row.outcome.as_deref()).unwrap_or_default()
    };
    assert_eq!(outcome("empty"), "accepted");
    assert_eq!(outcome("same"), "found in Stripe's summary");
    assert_eq!(
        outcome("other"),
        "Stripe has counted 4 in the report's minute, neither 0 nor its 5"
    );
}

#[tokio::test]
async fn a_bucket_that_begins_when_its_period_closes_stays_open() {
    let system = system(PRO, 1).await;
    let sold = sell(&system, "pro").await;
    for hour in 0..2 {
        system.clock().set(Timestamp::from_s(START_S + hour * 3_600));
        let answer = call(&system, &environment(&system, 0), &sold.key, "/v1/light").await;
        assert_eq!(answer, Answer::Admitted);
    }
    let until = START_S + 3_600;
    let expected = TickReport {
        due: 1,
        sealed: 1,
        reported: 1,
        finished: 1,
        ..TickReport::default()
    };
    let closed = system.books.close(&sold.customer, until).await.expect("closed");
    assert_eq!(closed, expected);
    let again = system.books.close(&sold.customer, until).await.expect("closed");
    assert_eq!(again, TickReport::default());
    let (rows, _) = system.control.ledger.scan().await.expect("readable");
    assert_eq!(rows.iter().map(|row| row.key.bucket).collect::<Vec<_>>(), [START_S]);
}

#[tokio::test]
async fn a_worker_that_is_too_slow_lets_its_claim_go() {
    let system = system(PRO, 1).await;
    let sold = sell(&system, "pro").await;
    let answer = call(&system, &environment(&system, 0), &sold.key, "/v1/light").await;
    assert_eq!(answer, Answer::Admitted);
    // Between any two looks at its clock five minutes pass.
    let looks = AtomicU64::new(0);
    let slow = Books {
        clock: Arc::new(move || Timestamp::from_s(START_S + 300 * looks.fetch_add(1, Relaxed))),
        ..system.books.clone()
    };
    let expected = TickReport {
        due: 1,
        sealed: 1,
        dropped: 1,
        ..TickReport::default()
    };
    let closed = slow.close(&sold.customer, START_S + 3_600).await.expect("closed");
    assert_eq!(closed, expected);
    system.clock().set(Timestamp::from_s(START_S + 7_200));
    assert_eq!(units(&system, &sold).await, (1, 1, 0));
    system.consumer.tick().await.expect("a tick");
    assert_eq!(units(&system, &sold).await, (1, 1, 1));
}

#[tokio::test]
async fn a_restored_counter_bills_what_it_had_once() {
    let system = system(PRO, 1).await;
    let sold = sell(&system, "pro").await;
    let authorizer = environment(&system, 0);
    for _ in 0..4 {
        call(&system, &authorizer, &sold.key, "/v1/light").await;
    }
    system
        .control
        .restore_counter(&sold.customer.id, 0, system.clock().now())
        .await
        .expect("restored");
    for _ in 0..3 {
        assert_eq!(
            call(&system, &authorizer, &sold.key, "/v1/light").await,
            Answer::Admitted
        );
    }
    system.send_usage().await.expect("folded");
    system.clock().set(Timestamp::from_s(START_S + 7_200));
    for _ in 0..3 {
        system.consumer.tick().await.expect("a tick");
    }
    let (counted, ledger, stripe) = units(&system, &sold).await;
    assert_eq!((counted, ledger, stripe), (7, 7, 7));
}

#[tokio::test]
async fn everything_goes_on_from_disk() {
    let directory = std::env::temp_dir().join(format!("farebox-test-{}", std::process::id()));
    let start = || {
        System::start(Options {
            data: Some(directory.clone()),
            tiers: PRO.to_owned(),
            clock: VirtualClock::standing(Timestamp::from_s(START_S)),
            ..Options::new()
        })
    };
    let system = start().await.expect("a first start");
    let keys = system.ready_keys().await.expect("keys");
    for _ in 0..9 {
        assert_eq!(
            call(&system, &environment(&system, 0), &keys[0].1, "/v1/light").await,
            Answer::Admitted
        );
    }
    drop(system);

    let system = start().await.expect("a second start");
    assert_eq!(system.ready_keys().await.expect("keys"), keys, "the same keys");
    assert_eq!(
        call(&system, &environment(&system, 0), &keys[0].1, "/v1/light").await,
        Answer::Admitted
    );
    system
        .run_until(Timestamp::from_s(START_S + 7_200))
        .await
        .expect("time passes");
    let state = system.state().await.expect("a state");
    assert_eq!(state["ledger"][0]["units"], 10);
    assert_eq!(state["ledger"][0]["state"], "reported");
    assert_eq!(state["stripe"]["meter_events"]["accepted"], 1);
    drop(system);
    let _ = std::fs::remove_dir_all(&directory);
}

#[tokio::test]
async fn a_counter_item_that_nobody_can_read_does_not_keep_the_others_from_being_billed() {
    use aws_sdk_dynamodb::types::AttributeValue;
    let system = system(PRO, 1).await;
    let sold = sell(&system, "pro").await;
    let put = system
        .services
        .clients
        .dynamodb
        .put_item()
        .table_name("farebox-counters");
    let put = put.item("pk", AttributeValue::S("broken#0".to_owned()));
    put.item("generation", AttributeValue::N("7".to_owned()))
        .send()
        .await
        .expect("put");
    let answer = call(&system, &environment(&system, 0), &sold.key, "/v1/light").await;
    assert_eq!(answer, Answer::Admitted);
    let report = system.consumer.scan().await.expect("a scan");
    assert_eq!((report.errors, report.items, report.folded_rows), (1, 1, 1));
}

#[tokio::test]
async fn a_report_of_a_bucket_that_was_sealed_early_waits_until_stripe_takes_its_stamp() {
    let system = system(PRO, 1).await;
    let sold = sell(&system, "pro").await;
    // Ten restores later the counter item has slot 10: its reports are stamped ten minutes into the hour.
    for _ in 0..10 {
        let now = system.clock().now();
        let restored = system.control.restore_counter(&sold.customer.id, 0, now).await;
        restored.expect("restored");
    }
    let answer = call(&system, &environment(&system, 0), &sold.key, "/v1/light").await;
    assert_eq!(answer, Answer::Admitted);

    let closed = system.books.close(&sold.customer, START_S + 1).await.expect("closed");
    assert_eq!((closed.sealed, closed.parked, closed.errors), (1, 0, 0));
    let (rows, _) = system.control.ledger.scan().await.expect("readable");
    let row = rows.first().expect("a row");
    assert_eq!((row.state, row.due), (RowState::Sealed, START_S + 600 - 240));
    assert_eq!(
        row.own_minute,
        Some(false),
        "its bucket is not over: another slot may come"
    );

    system.clock().set(Timestamp::from_s(row.due));
    let report = system.consumer.tick().await.expect("a tick");
    assert_eq!((report.reported, report.parked), (1, 0));
    system.clock().set(Timestamp::from_s(START_S + 7_200));
    system.consumer.tick().await.expect("a tick");
    assert_eq!(units(&system, &sold).await, (1, 1, 1));
}

#[tokio::test]
async fn a_row_that_fails_lets_others_go_first() {
    let system = system(PRO, 1).await;
    let sold = sell(&system, "pro").await;
    // Nobody can bill so many units, and no counter item has them.
    let key = RowKey {
        customer: sold.customer.id.clone(),
        shard: 0,
        generation: Generation::new([7; 8], 0),
        meter: "api_calls".to_owned(),
        bucket: START_S,
    };
    let ledger = &system.control.ledger;
    let write = ledger::fold(&key, START_S + 3_600, UNITS_MAX + 1);
    ledger.write(&key, write).await.expect("written");

    let now = START_S + 7_200;
    system.clock().set(Timestamp::from_s(now));
    assert_eq!(ledger.due(now, 1).await.expect("readable"), std::slice::from_ref(&key));
    assert_eq!(system.consumer.tick().await.expect("a tick").errors, 1);
    assert!(ledger.due(now, 1).await.expect("readable").is_empty());
    let due = ledger.due(now + PUT_OFF_S, 1).await.expect("readable");
    assert_eq!(due, [key], "it is not forgotten");
}

#[tokio::test]
async fn a_stripe_that_does_not_answer_is_left_alone_from_the_first_call_on() {
    let system = system(PRO, 1).await;
    let sold = sell(&system, "pro").await;
    for hour in 0..3 {
        system.clock().set(Timestamp::from_s(START_S + hour * 3_600));
        let answer = call(&system, &environment(&system, 0), &sold.key, "/v1/light").await;
        assert_eq!(answer, Answer::Admitted);
    }
    system.send_usage().await.expect("folded");
    // A call without an answer costs its whole time-out, an answer that says no costs nothing.
    for (n, (kind, retried)) in [(FaultKind::DropBeforeCommit, 1), (FaultKind::Error500BeforeCommit, 3)]
        .into_iter()
        .enumerate()
    {
        system.services.stand_in.misbehave(Fault {
            method: None,
            path_prefix: "/v1/billing/meter_events".to_owned(),
            times: u32::MAX,
            kind,
        });
        system.clock().set(Timestamp::from_s(START_S + (4 + n as u64) * 3_600));
        let report = system.consumer.tick().await.expect("a tick");
        assert_eq!(
            (report.due, report.retried, report.reported),
            (3, retried, 0),
            "{kind:?}"
        );
        system.services.stand_in.behave();
    }
    system.clock().set(Timestamp::from_s(START_S + 6 * 3_600));
    assert_eq!(system.consumer.tick().await.expect("a tick").reported, 3);
}

#[tokio::test]
async fn what_waited_for_stripe_for_an_hour_is_there_ten_minutes_after_it_is_back() {
    let system = system(PRO, 1).await;
    let mut customers = Vec::new();
    for n in 0..25 {
        let sold = system.sell(&format!("customer{n}"), "pro", Overrides::default()).await;
        let sold = sold.expect("the tier is sold");
        let answer = call(&system, &environment(&system, 0), &sold.key, "/v1/light").await;
        assert_eq!(answer, Answer::Admitted);
        customers.push(sold);
    }
    system.send_usage().await.expect("folded");
    let rows_due_s = START_S + 3_600 + 600;
    let tick_at = async |s: u64| {
        system.clock().set(Timestamp::from_s(s));
        system.consumer.tick().await.expect("a tick")
    };
    for (n, kind) in [FaultKind::Error500BeforeCommit, FaultKind::DropBeforeCommit]
        .into_iter()
        .enumerate()
    {
        let began = rows_due_s + n as u64 * 1_800;
        system.services.stand_in.misbehave(Fault {
            method: None,
            path_prefix: "/v1/".to_owned(),
            times: u32::MAX,
            kind,
        });
        for tick in 0..6 {
            let report = tick_at(began + tick * 300).await;
            assert_eq!(report.reported, 0);
            // A Stripe that fails is left alone for the rest of the tick: the attempts that were on their way at most.
            assert!(report.retried < 41, "{report:?}");
        }
        system.services.stand_in.behave();
    }
    let back = rows_due_s + 3_600;
    let mut reported = 0;
    for tick in 0..3 {
        reported += tick_at(back + tick * 300).await.reported;
    }
    assert_eq!(reported, 25);
    for sold in &customers {
        assert_eq!(units(&system, sold).await, (1, 1, 1));
    }
}
