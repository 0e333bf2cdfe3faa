//! What strangers with made-up keys can make us do: counted on the wire, between the SDK and the table.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use farebox_authorizer::{Authorizer, Deps};
use farebox_aws::{
    accounts::AccountTable,
    connect::{Clients, Settings},
    counters::CounterTable,
    queue::UsageQueue,
};
use farebox_core::key::{ApiKey, Mode};
use farebox_local::System;
use farebox_tests::{Answer, call, sell, system};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
};

const TIERS: &str = "tiers: {t: {price: 0, included_calls: 100000/month, rate_limit: 40000/min, endpoints: [/v1/*]}}";
const MANY: u32 = 10_000;

/// The operations that went by, by name.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<String, u32>>>);

impl Seen {
    fn take(&self) -> Vec<(String, u32)> {
        let taken = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        taken.into_iter().collect()
    }

    /// Every call names its operation in a header.
    fn line(&self, line: &[u8]) {
        let line = String::from_utf8_lossy(line).to_ascii_lowercase();
        if let Some(target) = line.strip_prefix("x-amz-target:") {
            let operation = target.trim().rsplit('.').next().unwrap_or_default().to_owned();
            let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *seen.entry(operation).or_default() += 1;
        }
    }
}

/// Passes everything on, and sees what goes by.
async fn watched(to: SocketAddr) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (address, seen) = (listener.local_addr().expect("an address"), Seen::default());
    let counted = seen.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(pass_on(client, to, counted.clone()));
        }
    });
    (address, seen)
}

async fn pass_on(client: TcpStream, to: SocketAddr, seen: Seen) -> std::io::Result<()> {
    let server = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    tokio::spawn(async move { copy(&mut from_server, &mut to_client).await });
    let (mut line, mut buffer) = (Vec::new(), [0; 16_384]);
    loop {
        let n = from_client.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        for byte in &buffer[..n] {
            if *byte == b'\n' {
                seen.line(&std::mem::take(&mut line));
            } else {
                line.push(*byte);
            }
        }
        to_server.write_all(&buffer[..n]).await?;
    }
}

/// An environment whose calls of the table are seen.
async fn watched_environment(system: &System) -> (Authorizer, Seen) {
    let (address, seen) = watched(system.services.addresses[0]).await;
    let settings = Settings {
        dynamodb_endpoint: Some(format!("http://{address}")),
        ..system.services.settings.clone()
    };
    let (clients, tables) = (Clients::new(&settings), system.tables());
    let authorizer = Authorizer::new(Deps {
        accounts: AccountTable::new(clients.clone(), tables.accounts.clone()),
        counters: CounterTable::new(clients.clone(), tables.counters.clone()),
        queue: UsageQueue::new(clients, system.queues().usage.clone()),
        forbidden_403: true,
        usage_identifier_key: None,
    });
    (authorizer, seen)
}

/// A key as well-formed as any, that nobody was given.
fn made_up(n: u32) -> ApiKey {
    let mut random = [9; 32];
    random[..4].copy_from_slice(&n.to_be_bytes());
    ApiKey::new("fb", Mode::Test, random).expect("a good brand")
}

#[tokio::test]
async fn malformed_keys_cost_no_call_of_the_table() {
    let system = system(TIERS, 1).await;
    let (authorizer, seen) = watched_environment(&system).await;
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
    assert_eq!(seen.take(), []);
}

#[tokio::test]
async fn a_well_formed_unknown_key_costs_one_read_in_ten_seconds() {
    let system = system(TIERS, 1).await;
    let (authorizer, seen) = watched_environment(&system).await;
    let key = made_up(0);
    for _ in 0..MANY {
        assert_eq!(
            call(&system, &authorizer, key.reveal(), "/v1/x").await,
            Answer::Unauthorized
        );
    }
    assert_eq!(seen.take(), [("getitem".to_owned(), 1)]);
    // A minute of a hundred calls a second.
    for _ in 0..6_000 {
        system.clock().set(system.clock().now().plus_ms(10));
        assert_eq!(
            call(&system, &authorizer, key.reveal(), "/v1/x").await,
            Answer::Unauthorized
        );
    }
    assert_eq!(seen.take(), [("getitem".to_owned(), 6)]);
}

#[tokio::test]
async fn each_further_unknown_key_costs_one_read_and_never_a_write() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "t").await;
    let (authorizer, seen) = watched_environment(&system).await;
    for n in 0..MANY {
        let key = made_up(n);
        assert_eq!(
            call(&system, &authorizer, key.reveal(), "/v1/x").await,
            Answer::Unauthorized
        );
    }
    assert_eq!(seen.take(), [("getitem".to_owned(), MANY)]);
    // All of them again, at once: the last ten thousand are remembered.
    for n in 0..MANY {
        let key = made_up(n);
        assert_eq!(
            call(&system, &authorizer, key.reveal(), "/v1/x").await,
            Answer::Unauthorized
        );
    }
    assert_eq!(seen.take(), []);
    // A customer is served as ever: key, record and catalog once, then a write a request. Their memory is another one.
    for _ in 0..10 {
        assert_eq!(call(&system, &authorizer, &sold.key, "/v1/x").await, Answer::Admitted);
    }
    let served = [("getitem".to_owned(), 4), ("updateitem".to_owned(), 10)];
    assert_eq!(seen.take(), served);
}

#[tokio::test]
async fn who_is_shut_out_costs_next_to_nothing() {
    let system = system(TIERS, 1).await;
    let sold = sell(&system, "t").await;
    let (authorizer, seen) = watched_environment(&system).await;
    // A route that no tier has: the record is asked for again when what is known of it is 50 ms old.
    for _ in 0..1_000 {
        system.clock().set(system.clock().now().plus_ms(1));
        let answer = call(&system, &authorizer, &sold.key, "/nowhere").await;
        assert!(matches!(answer, Answer::Denied(code, _) if code == "no_such_route"));
    }
    let reads = seen.take();
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
    let calls: u32 = seen.take().iter().map(|(_, n)| n).sum();
    assert!(calls <= 4, "{calls} calls");
}
