//! `farebox dev --data` killed at any moment goes on from disk: nothing counted is lost, nothing is billed twice.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

/// A running `farebox dev`. Killed when dropped, as hard as a power cut.
struct Dev {
    process: Child,
    address: String,
    key: String,
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.process.kill(); // SIGKILL
        let _ = self.process.wait();
    }
}

fn start(data: &Path) -> Dev {
    let mut process = Command::new(env!("CARGO_BIN_EXE_farebox"))
        .args(["dev", "--port", "0", "--data"])
        .arg(data)
        .stdout(Stdio::piped())
        .spawn()
        .expect("farebox starts");
    let output = BufReader::new(process.stdout.take().expect("stdout is piped"));
    let (mut address, mut key) = (String::new(), String::new());
    for line in output.lines() {
        let line = line.expect("stdout is text");
        if let Some((_, rest)) = line.split_once("a gateway on http://") {
            address = rest.split(' ').next().unwrap_or_default().to_owned();
        }
        if let Some((_, rest)) = line.split_once("x-api-key: ") {
            key = rest.split('\'').next().unwrap_or_default().to_owned(); // the last one is enterprise's
        }
        if line.starts_with("Stop with") {
            break;
        }
    }
    assert!(
        !address.is_empty() && !key.is_empty(),
        "farebox dev says where it is and with which keys"
    );
    Dev { process, address, key }
}

fn request(dev: &Dev, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(&dev.address).ok()?;
    let (key, length) = (&dev.key, body.len());
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: farebox\r\nx-api-key: {key}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

#[test]
fn killed_twelve_times_and_every_admitted_unit_is_billed_once() {
    let data = std::env::temp_dir().join(format!("farebox-kill-{}", std::process::id()));
    let mut admitted = 0;
    for round in 0..12u64 {
        let dev = start(&data);
        for _ in 0..10 {
            let (status, _) = request(&dev, "GET", "/v1/items", "").expect("the gateway answers");
            admitted += u64::from(status == 200);
        }
        if round % 3 == 2 {
            // Time passes, rows are sealed and reported, and the kill comes somewhere in between.
            std::thread::scope(|scope| {
                scope.spawn(|| request(&dev, "POST", "/_farebox/clock", r#"{"advance_seconds": 5000}"#));
                std::thread::sleep(std::time::Duration::from_millis(round * 3));
                let _ = Command::new("kill")
                    .args(["-9", &dev.process.id().to_string()])
                    .status();
            });
        }
    }
    let dev = start(&data);
    let (status, _) = request(&dev, "POST", "/_farebox/clock", r#"{"advance_seconds": 20000}"#).expect("time passes");
    assert_eq!(status, 200);
    let (_, state) = request(&dev, "GET", "/_farebox/state", "").expect("a state");
    let state: Value = serde_json::from_str(&state).expect("the state is JSON");
    let customers = state["customers"].as_array().expect("customers");
    let customer = customers
        .iter()
        .find(|c| c["id"] == "enterprise-customer")
        .expect("the customer is there");
    let own = |row: &&Value| row["customer"] == customer["id"];
    let rows = state["ledger"].as_array().expect("rows");
    assert!(rows.iter().all(|row| row["state"] == "reported"), "{rows:?}");
    let ledger: u64 = rows.iter().filter(own).filter_map(|row| row["units"].as_u64()).sum();
    let stripe = state["stripe"]["customers"].as_array().expect("Stripe's customers");
    let stripe = stripe
        .iter()
        .find(|c| c["id"] == customer["stripe_customer"])
        .expect("in Stripe");
    assert_eq!(admitted, 120);
    assert_eq!(ledger, admitted);
    let meters = stripe["meters"].as_object().expect("meters");
    assert_eq!(meters.values().filter_map(Value::as_u64).sum::<u64>(), admitted);
    drop(dev);
    let _ = std::fs::remove_dir_all(&data);
}
