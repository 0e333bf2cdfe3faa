//! Long outages, odd calendars and clocks that differ: exact, or loudly not.

use farebox_billing::Asked;
use farebox_core::ledger::RowState;
use farebox_stripe::MeterEvent;

use crate::{
    proxy::Fault,
    site::{ADMIT, Actor, Place, Service},
    wire::{At, Plan},
    world::{START_S, Skew, Step, TICK_S, World, id},
};

const HOUR_S: u64 = 3_600;
const DAY_S: u64 = 86_400;

/// Everything settles, and is exact and reported.
async fn is_exact(world: &mut World, what: &str) {
    world.settle().await;
    let audit = world.audit().await;
    assert!(audit.problems.is_empty(), "{what}: {:#?}", audit.problems);
    assert!(audit.counted > 0 && audit.parked == 0, "{what}: {audit:?}");
    // Whatever is away here, the table is not.
    assert_eq!(world.doubts(), [""; 0], "{what}");
}

/// Stripe is away for so long, and usage goes on: `every` seconds some calls. The first come two hours after it went.
async fn without_stripe(outage_s: u64, every_s: u64) -> World {
    let mut world = World::start(outage_s, START_S, Skew::default()).await;
    world
        .run(&[
            Step::Sell("acme", "pro"),
            Step::Wait(HOUR_S),
            Step::Down(Service::Stripe),
        ])
        .await;
    world.run(&[Step::TickEvery(6 * HOUR_S), Step::Wait(2 * HOUR_S)]).await;
    let end = START_S + HOUR_S + outage_s;
    while world.now_s() + every_s < end {
        world.run(&[Step::Calls("acme", 2), Step::Wait(every_s)]).await;
    }
    world
        .run(&[
            Step::Wait(end - world.now_s()),
            Step::Up(Service::Stripe),
            Step::TickEvery(TICK_S),
        ])
        .await;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_stripe_of_up_to_34_days_costs_nothing() {
    for (outage_s, every_s) in [
        (25 * HOUR_S, 3 * HOUR_S),
        (5 * DAY_S, 11 * HOUR_S),
        (34 * DAY_S, 67 * HOUR_S),
    ] {
        let mut world = without_stripe(outage_s, every_s).await;
        is_exact(&mut world, &format!("{outage_s} s")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stripe_takes_no_more_after_36_days_is_parked_and_told() {
    let mut world = without_stripe(36 * DAY_S, 5 * DAY_S).await;
    world.settle().await;
    let audit = world.audit().await;
    assert!(audit.problems.is_empty(), "{:#?}", audit.problems);
    let (rows, _) = world.system.books.ledger.scan().await.expect("the ledger is readable");
    let (parked, reported): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.state == RowState::Parked);
    assert!(
        !parked.is_empty() && !reported.is_empty(),
        "{} and {}",
        parked.len(),
        reported.len()
    );
    // Not a unit is missing: what is not in Stripe is in a row that says so.
    let units: u64 = rows.iter().map(|row| row.units).sum();
    assert_eq!(units, audit.counted);
    for row in &parked {
        let why = row.outcome.as_deref().unwrap_or_default();
        assert!(why.contains("older than 34 days"), "{why}");
    }
    // The operator is told of each, once.
    let told = world.system.services.outbox.entries().into_iter();
    let told = told
        .filter(|entry| entry.subject.as_deref() == Some("Farebox: row parked"))
        .count();
    assert_eq!(told, parked.len());
    // What makes `farebox reconcile` end with the exit code 1.
    let customer = world
        .system
        .books
        .customer(&crate::world::id("acme"))
        .await
        .expect("there");
    let reconciler = world.system.books.reconciler().await.expect("everything is readable");
    let period = customer.cycle.period_at(parked[0].key.bucket);
    let found = reconciler
        .customer(&customer, period, Asked::default())
        .await
        .expect("readable");
    assert!(!found.agrees() && found.difference > 0, "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_queue_or_of_the_consumer_costs_nothing() {
    for (outage, recovery) in [
        (
            [Step::Down(Service::Queue), Step::Wait(2 * DAY_S)],
            Step::Up(Service::Queue),
        ),
        ([Step::Crash, Step::Stall(5 * DAY_S)], Step::TickEvery(TICK_S)),
    ] {
        let mut world = World::start(5, START_S, Skew::default()).await;
        world.run(&[Step::Sell("acme", "pro"), Step::Calls("acme", 5)]).await;
        world.run(&outage).await;
        world
            .run(&[
                Step::Calls("acme", 3),
                Step::Stall(DAY_S),
                recovery,
                Step::Calls("acme", 4),
            ])
            .await;
        is_exact(&mut world, &format!("{outage:?}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_whose_answer_was_lost_is_found_when_stripe_has_forgotten_its_name() {
    let mut world = World::start(6, START_S, Skew::default()).await;
    let report = Place {
        actor: Actor::Consumer,
        site: "POST /v1/billing/meter_events",
    };
    let plan = Plan {
        at: At::Place(report),
        fault: Fault::DropAfter,
        nth: 0,
        times: u64::MAX,
        flavour: 0,
    };
    world.run(&[Step::Sell("acme", "pro"), Step::Calls("acme", 7)]).await;
    world.wire.plan(Some(plan));
    world
        .run(&[Step::Wait(2 * HOUR_S), Step::TickEvery(DAY_S), Step::Wait(2 * DAY_S)])
        .await;
    assert!(world.wire.struck() > 0);
    is_exact(&mut world, "a lost answer").await;
    let (rows, _) = world.system.books.ledger.scan().await.expect("the ledger is readable");
    let outcomes: Vec<_> = rows.iter().filter_map(|row| row.outcome.as_deref()).collect();
    assert!(outcomes.contains(&"found in Stripe's summary"), "{outcomes:?}");
}

/// Around each of the next three ends of a period that begins at `anchor`, to the second; each invoice has its own units.
async fn ends_of_periods(anchor: u64) {
    let mut world = World::start(anchor, anchor, Skew::default()).await;
    world.run(&[Step::Sell("acme", "pro")]).await;
    for _ in 0..3 {
        let customer = world
            .system
            .books
            .customer(&crate::world::id("acme"))
            .await
            .expect("there");
        let end = customer.cycle.period_at(world.now_s()).end;
        // The calls take a few seconds: some come before the end, some after it.
        world.pass(end - 4).await;
        world
            .run(&[Step::Calls("acme", 12), Step::Wait(3 * HOUR_S), Step::Calls("acme", 2)])
            .await;
    }
    is_exact(&mut world, &format!("anchored at {anchor}")).await;
    let books = &world.system.books;
    let customer = books.customer(&crate::world::id("acme")).await.expect("there");
    let reconciler = books.reconciler().await.expect("everything is readable");
    let mut at = anchor;
    while customer.cycle.period_at(at).end < world.now_s() {
        let period = customer.cycle.period_at(at);
        let asked = Asked {
            each_row: true,
            invoice: true,
        };
        let found = reconciler.customer(&customer, period, asked).await.expect("readable");
        assert!(found.agrees() && found.pending == 0, "{found:#?}");
        at = period.end;
    }
    assert!(at > anchor);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_is_billed_in_its_own_month_wherever_months_end() {
    for anchor in [
        1_769_594_400, // 2026-01-28T10:00Z
        1_769_680_800, // 2026-01-29
        1_769_767_200, // 2026-01-30
        1_769_853_600, // 2026-01-31: 28 February, 31 March, 30 April
        1_798_759_800, // 2026-12-31T23:30Z: over the year's end, and half-hour cuts
        1_832_925_600, // 2028-01-31: 29 February
        1_835_431_200, // 2028-02-29
    ] {
        ends_of_periods(anchor).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_that_differ_by_five_minutes_cost_nothing() {
    for (authorizer, consumer) in [(300, 0), (-300, 0), (0, 300), (0, -300), (300, -300), (-300, 300)] {
        let skew = Skew { authorizer, consumer };
        let mut world = World::start(7, START_S, skew).await;
        world
            .run(&[Step::Sell("acme", "pro"), Step::Sell("wide", "wide")])
            .await;
        // Around the end of an hour, around its sealing five minutes later, and around the period's end.
        for _ in 0..2 {
            let hour_end = (world.now_s() / HOUR_S + 1) * HOUR_S;
            for at in [hour_end - 3, hour_end + 298, hour_end + 598] {
                world.pass(at).await;
                world.run(&[Step::Calls("acme", 6), Step::Calls("wide", 4)]).await;
            }
        }
        let customer = world
            .system
            .books
            .customer(&crate::world::id("acme"))
            .await
            .expect("there");
        let end = customer.cycle.period_at(world.now_s()).end;
        for at in [end - 302, end - 3, end + 298] {
            world.pass(at).await;
            world.run(&[Step::Calls("acme", 6)]).await;
        }
        is_exact(&mut world, &format!("{skew:?}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_nobody_has_named_is_noticed() {
    let mut world = World::start(8, START_S, Skew::default()).await;
    world.run(&[Step::Sell("acme", "pro"), Step::Calls("acme", 1)]).await;
    // One that the list does not have, and one that it has of somebody else.
    drop(world.operator.accounts.keys(&id("acme")).await);
    drop(world.operator.ledger.scan().await);
    let unlisted: Vec<String> = world.wire.unlisted().into_iter().collect();
    let [new, anothers] = unlisted.as_slice() else {
        panic!("{unlisted:?}");
    };
    assert!(new.starts_with("operator: Query \"farebox-accounts\""), "{new}");
    assert_eq!(anothers, "operator: scan ledger");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_counts_and_is_tried_again_is_noticed() {
    let mut world = World::start(10, START_S, Skew::default()).await;
    world.run(&[Step::Sell("acme", "pro"), Step::Calls("acme", 1)]).await;
    let admission = Place {
        actor: Actor::Authorizer,
        site: ADMIT,
    };
    world.wire.plan(Some(Plan {
        at: At::Place(admission),
        fault: Fault::DropAfter,
        nth: 0,
        times: 1,
        flavour: 0,
    }));
    // The table has counted the first write, and its answer is lost.
    let event = farebox_tests::event(&world.keys["acme"], "/v1/light");
    world.wire.begins();
    drop(world.careless().handle(&event, world.system.clock().now()).await);
    assert!(world.wire.struck() == 1 && world.wire.repeated() > 0);
    let problems = world.audit().await.problems;
    let told = "a write that counts was tried again though its outcome was not known";
    assert!(problems.iter().any(|problem| problem == told), "{problems:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_unit_too_many_in_stripe_is_noticed() {
    let mut world = World::start(9, START_S, Skew::default()).await;
    world.run(&[Step::Sell("acme", "pro"), Step::Calls("acme", 4)]).await;
    is_exact(&mut world, "before").await;
    let (rows, _) = world.system.books.ledger.scan().await.expect("the ledger is readable");
    let report = rows.iter().find_map(|row| row.report.clone()).expect("a report");
    let event = MeterEvent {
        event_name: report.event_name,
        stripe_customer: report.stripe_customer,
        value: 1,
        identifier: "somebody-else".to_owned(),
        timestamp: i64::try_from(report.timestamp).expect("a time"),
    };
    let sent = world
        .system
        .services
        .stripe
        .report_meter_event(&event, "somebody-else")
        .await;
    sent.expect("Stripe takes it");
    let problems = world.audit().await.problems;
    // By the minute, by the total, and by `farebox reconcile`.
    assert_eq!(problems.len(), 3, "{problems:#?}");
}
