//! What strangers with made-up keys can make us do: counted on the wire, between the SDK and the table.

use farebox_core::key::{ApiKey, Mode};
use farebox_tests::{Answer, call, sell, system};

use crate::wire::Wires;

const TIERS: &str = "tiers: {t: {price: 0, included_calls: 100000/month, rate_limit: 40000/min, endpoints: [/v1/*]}}";
const MANY: u32 = 10_000;

/// A key as well-formed as any, that nobody was given.
fn made_up(n: u32) -> ApiKey {
    let mut random = [9; 32];
    random[..4].copy_from_slice(&n.to_be_bytes());
    ApiKey::new("fb", Mode::Test, random).expect("a good brand")
}

#[tokio::test]
async fn malformed_keys_cost_no_call_of_the_table() {
    let system = system(TIERS, 1).await;
    let wires = Wires::to(&system).await;
    let (authorizer, seen) = (wires.environment(&system), &wires.dynamodb);
    for n in 0..MANY {
        let key = made_up(n).reveal().to_owned();
        let digit = (n % 49) as usize + "fb_test_".len();
        let other = if key.as_bytes()[digit] == b'x' { "y" } else { "x" };
        let key = match n % 5 {
            // One character is wrong; it is cut; it goes on; another brand; no key at all.
            0 => [&key[..digit], other, &key[digit + 1..]].concat(),
            1 => key[..digit].to_owned(),
            2 => format!("{key}{}", "a".repeat(1 + n as usize % 8_192)),
            3 => key.replace("fb_", "FB_"),
            _ => format!("password{n}"),
        };
        assert_eq!(call(&system, &authorizer, &key, "/v1/x").await, Answer::Unauthorized);
    }
    assert_eq!(seen.seen(), []);
}

#[tokio::test]
async fn a_well_formed_unknown_key_costs_one_read_in_ten_seconds() {
    let system = system(TIERS, 1).await;
    let wires = Wires::to(&system).await;
    let (authorizer, seen) = (wires.environment(&system), &wires.dynamodb);
    let key = made_up(0);
    for _ in 0..MANY {
        assert_eq!(
            call(&system, &authorizer, key.reveal(), "/v1/x").await,
            Answer::Unauthorized
        );
    }
    assert_eq!(seen.seen(), [("getitem".to_owned(), 1)]);
    // A minute of a hundred calls a second.
    for _ in 0..6_000 {
        system.clock().set(system.clock().now().plus_ms(10));
        assert_eq!(
            call(&system, &authorizer, key.reveal(), "/v1/x").await,
            Answer::Unauthorized
        );
    }
    assert_eq!(seen.seen(), [("getitem".to_owned(), 6)]);
}

#[tokio::test]
async fn each_further_unknown_key_costs_one_read_and_never_a_write() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "t").await;
    let wires = Wires::to(&system).await;
    let (authorizer, seen) = (wires.environment(&system), &wires.dynamodb);
    for n in 0..MANY {
        let key = made_up(n);
        assert_eq!(
            call(&system, &authorizer, key.reveal(), "/v1/x").await,
            Answer::Unauthorized
        );
    }
    assert_eq!(seen.seen(), [("getitem".to_owned(), MANY)]);
    // All of them again, at once: the last ten thousand are remembered.
    for n in 0..MANY {
        let key = made_up(n);
        assert_eq!(
            call(&system, &authorizer, key.reveal(), "/v1/x").await,
            Answer::Unauthorized
        );
    }
    assert_eq!(seen.seen(), []);
    // A customer is served as ever: key, record and catalog once, then a write a request. Their memory is another one.
    for _ in 0..10 {
        assert_eq!(call(&system, &authorizer, &sold.key, "/v1/x").await, Answer::Admitted);
    }
    let served = [("getitem".to_owned(), 4), ("updateitem".to_owned(), 10)];
    assert_eq!(seen.seen(), served);
}

#[tokio::test]
async fn who_is_shut_out_costs_next_to_nothing() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "t").await;
    let wires = Wires::to(&system).await;
    let (authorizer, seen) = (wires.environment(&system), &wires.dynamodb);
    // A route that no tier has: the record is asked for again when what is known of it is 50 ms old.
    for _ in 0..1_000 {
        system.clock().set(system.clock().now().plus_ms(1));
        let answer = call(&system, &authorizer, &sold.key, "/nowhere").await;
        assert!(matches!(answer, Answer::Denied(code, _) if code == "no_such_route"));
    }
    let reads = seen.seen();
    assert!(
        matches!(&reads[..], [(get, n)] if get == "getitem" && *n <= 3 + 20),
        "{reads:?}"
    );
    // A revoked key.
    let hash = ApiKey::parse(&sold.key).expect("a key").hash();
    system
        .control
        .revoke_key(hash, system.clock().now())
        .await
        .expect("revoked");
    for _ in 0..MANY {
        assert_eq!(
            call(&system, &authorizer, &sold.key, "/v1/x").await,
            Answer::Unauthorized
        );
    }
    let calls: u32 = seen.seen().iter().map(|(_, n)| n).sum();
    assert!(calls <= 4, "{calls} calls");
}
