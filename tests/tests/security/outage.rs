//! Who is let in while DynamoDB or SQS is away, and what is missing from the start.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use farebox_aws::connect::Need;
use farebox_tests::{Answer, call, counted, system};

use tokio::net::TcpListener;

use crate::wire::{Wire, Wires};

const TIERS: &str = "
tiers:
  blocked: {price: 0, included_calls: 1000/month, rate_limit: 1000/min, endpoints: [/v1/*]}
  billed: {price: 5/month, included_calls: 1000/month, rate_limit: 1000/min, endpoints: [/v1/*], overage: $0.002/call}";

fn is_unavailable(answer: &Answer) -> bool {
    matches!(answer, Answer::Denied(code, _) if code == "unavailable")
}

#[tokio::test]
async fn who_is_billed_is_let_in_and_who_is_blocked_is_not_whatever_is_away() {
    let system = system(TIERS, 1).await;
    let sell = async |id: &str, tier: &str| system.sell(id, tier, Default::default()).await.expect("sold");
    let (billed, blocked) = (sell("payer", "billed").await, sell("trier", "blocked").await);
    let wires = Wires::to(&system).await;
    let authorizer = wires.environment(&system);
    let ask = async |key: &str| call(&system, &authorizer, key, "/v1/x").await;
    for key in [&billed.key, &blocked.key] {
        assert_eq!(ask(key).await, Answer::Admitted);
    }
    // A queue that is away is nothing to a caller; what it was to be told waits.
    for (is_table_away, is_queue_away) in [(false, true), (true, false), (true, true), (false, false)] {
        wires.dynamodb.cut(is_table_away);
        wires.sqs.cut(is_queue_away);
        assert_eq!(
            ask(&billed.key).await,
            Answer::Admitted,
            "{is_table_away} {is_queue_away}"
        );
        let answer = ask(&blocked.key).await;
        assert_eq!(is_unavailable(&answer), is_table_away, "{answer:?}");
        // Nobody is let in on a word that can't be checked, not even who would be billed.
        let cold = wires.environment(&system);
        let answer = call(&system, &cold, &billed.key, "/v1/x").await;
        assert_eq!(is_unavailable(&answer), is_table_away, "{answer:?}");
        let failed_before = authorizer.metrics().usage_failed.load(Relaxed);
        authorizer.flush(system.clock().now(), true).await;
        let failed = authorizer.metrics().usage_failed.load(Relaxed) > failed_before;
        // What was counted is to be told; without a table nothing was.
        assert_eq!(
            failed,
            is_queue_away && !is_table_away,
            "{is_table_away} {is_queue_away}"
        );
    }
    // Whoever was let in uncounted is not on the bill; whoever was not is not on it either. Four rounds, two without a table,
    // and two of the other environment.
    let uncounted = 2;
    assert_eq!(counted(&system, &billed).await, 1 + 4 - uncounted + 2);
    assert_eq!(counted(&system, &blocked).await, 1 + 4 - uncounted);
}

#[tokio::test]
async fn an_environment_lets_in_a_hundred_in_a_row_without_counting_them() {
    let system = system(TIERS, 1).await;
    let sell = async |id: &str| system.sell(id, "billed", Default::default()).await.expect("sold");
    let (payer, other) = (sell("payer").await, sell("other").await);
    let wires = Wires::to(&system).await;
    let authorizer = wires.environment(&system);
    let ask = async |key: &str| call(&system, &authorizer, key, "/v1/x").await;
    for key in [&payer.key, &other.key, &payer.key, &other.key] {
        assert_eq!(ask(key).await, Answer::Admitted);
    }
    wires.dynamodb.cut(true);
    for n in 0..100 {
        assert_eq!(ask(&payer.key).await, Answer::Admitted, "request {n}");
    }
    for _ in 0..2 {
        let answer = ask(&payer.key).await;
        assert!(is_unavailable(&answer), "{answer:?}");
    }
    assert_eq!(ask(&other.key).await, Answer::Admitted, "each counter item for itself");
    wires.dynamodb.cut(false);
    assert_eq!(ask(&payer.key).await, Answer::Admitted);
    wires.dynamodb.cut(true);
    assert_eq!(ask(&payer.key).await, Answer::Admitted, "the table has answered since");
    assert_eq!(counted(&system, &payer).await, 3);
}

/// Lambda ends a function that takes 10 s, and then nobody is answered anything.
#[tokio::test]
async fn a_table_that_does_not_answer_is_answered_for_in_time() {
    let system = system(TIERS, 1).await;
    let sold = system.sell("payer", "billed", Default::default()).await.expect("sold");
    let hole = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let wires = Wires {
        dynamodb: Wire::to(hole.local_addr().expect("an address")).await,
        ..Wires::to(&system).await
    };
    let cold = wires.environment(&system);
    let in_time = tokio::time::timeout(Duration::from_secs(8), async {
        cold.warm_up().await;
        call(&system, &cold, &sold.key, "/v1/x").await
    });
    let answer = in_time.await.expect("before Lambda gives up");
    assert!(is_unavailable(&answer), "{answer:?}");
}

/// What follows a response holds up the environment's next request.
#[tokio::test]
async fn a_queue_that_does_not_answer_is_asked_once_and_then_left_alone() {
    let system = system(TIERS, 1).await;
    let hole = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let wires = Wires {
        sqs: Wire::to(hole.local_addr().expect("an address")).await,
        ..Wires::to(&system).await
    };
    let authorizer = wires.environment(&system);
    // As many rows as take three calls.
    for n in 0..21 {
        let sold = system
            .sell(&format!("c{n}"), "billed", Default::default())
            .await
            .expect("sold");
        assert_eq!(call(&system, &authorizer, &sold.key, "/v1/x").await, Answer::Admitted);
    }
    let now = system.clock().now();
    let once = vec![("sendmessagebatch".to_owned(), 1)];
    for (after_ms, all, seen) in [
        (0, false, once.clone()),
        (1, false, vec![]),
        (1_999, false, vec![]),
        (2_000, false, once.clone()),
        (2_001, true, once),
    ] {
        authorizer.flush(now.plus_ms(after_ms), all).await;
        assert_eq!(wires.sqs.seen(), seen, "{after_ms} ms later");
    }
    assert_eq!(
        authorizer.metrics().usage_failed.load(Relaxed),
        3 * 21,
        "and nothing is forgotten"
    );
}

#[tokio::test]
async fn what_a_function_needs_and_lacks_is_named_at_the_start() {
    let system = system(TIERS, 1).await;
    let wires = Wires::to(&system).await;
    let clients = wires.clients(&system);
    let (tables, queues) = (system.tables(), system.queues());
    let complete = [
        Need::Accounts(&tables.accounts),
        Need::Counters(&tables.counters),
        Need::Ledger(&tables.ledger),
        Need::Queue("USAGE_QUEUE_URL", &queues.usage),
    ];
    clients.check(&complete).await.expect("all is there");
    let absent = format!("{}-absent", queues.usage);
    for (need, variable, name) in [
        (Need::Accounts("absent"), "ACCOUNTS_TABLE", "absent"),
        (Need::Counters("absent"), "COUNTERS_TABLE", "absent"),
        (Need::Ledger("absent"), "LEDGER_TABLE", "absent"),
        (Need::Queue("USAGE_QUEUE_URL", &absent), "USAGE_QUEUE_URL", &absent),
    ] {
        let missing = clients.check(&[need]).await.expect_err("it is missing").to_string();
        assert!(
            missing.starts_with(&format!("{variable} names {name}, of which AWS says: ")),
            "{missing}"
        );
    }
}
