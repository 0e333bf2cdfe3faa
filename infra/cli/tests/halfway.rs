//! What stops half way leaves the operator with all that it takes to go on: no unit is given twice, no secret is in force that
//! nobody was shown, and nothing that is left is said to be done.

mod support;

use std::{
    process::{Command, Stdio},
    sync::Arc,
};

use axum::{
    Json, Router,
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
    routing::get,
};
use farebox_core::id::CustomerId;
use farebox_local::{DEV_TIERS, System};
use farebox_stripe_standin::{Fault, FaultKind};
use http_body_util::BodyExt;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};

use crate::support::{farebox, run, serve, system};

/// What is between the command and a service of AWS: it sees the operation and may change what is asked, or answer itself.
type Meddle = Arc<dyn Fn(&str, &mut Value) -> Option<(u16, Value)> + Send + Sync>;

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

    /// The same system, with somebody between the command and `dynamodb` or `sqs`.
    async fn with(&self, service: &'static str, meddle: Meddle) -> Self {
        let [dynamodb, sqs, _] = self.system.services.addresses;
        let to = if service == "sqs" { sqs } else { dynamodb };
        let between = Router::new().fallback(move |request: Request| forward(request, format!("http://{to}"), meddle));
        let between = serve(between).await;
        let get_endpoints = Request::get(format!("{}/_farebox/endpoints", self.url)).body(Body::empty());
        let (_, mut endpoints) = ask(get_endpoints.expect("a request")).await;
        endpoints[service] = json!(between);
        let router = Router::new().route("/_farebox/endpoints", get(async move || Json(endpoints)));
        Self {
            system: self.system.clone(),
            url: serve(router).await,
        }
    }

    /// Runs the command; returns its exit code, stdout and stderr.
    async fn farebox(&self, arguments: &[&str]) -> (i32, String, String) {
        run(farebox(arguments, &[("FAREBOX_LOCAL", &self.url)])).await
    }

    /// The same where it must work.
    async fn json(&self, arguments: &[&str]) -> Value {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let (code, stdout, stderr) = self.farebox(&arguments).await;
        assert_eq!(code, 0, "{arguments:?}: {stdout}{stderr}");
        serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {stdout}{stderr}"))
    }

    /// Exit code and stderr, where nobody reads what the command prints.
    async fn unread(&self, arguments: &[&str]) -> (i32, String) {
        let mut command: Command = farebox(arguments, &[("FAREBOX_LOCAL", &self.url)]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn()?;
            drop(child.stdout.take());
            child.wait_with_output()
        });
        let output = output.await.expect("no panic").expect("farebox runs");
        let stderr = String::from_utf8(output.stderr).expect("text");
        (output.status.code().expect("an exit code"), stderr)
    }

    /// The signing secrets that a customer's record holds, the newest first.
    async fn secrets(&self, id: &str) -> Vec<String> {
        let id = CustomerId::try_from(id.to_owned()).expect("an id");
        let customer = self.system.control.accounts.customer(&id).await.expect("readable");
        let contact = customer.expect("a customer").contact;
        let secrets = contact.webhook_secrets.iter();
        secrets.map(|secret| secret.reveal().to_owned()).collect()
    }

    /// Stripe fails at every such request from now on.
    fn stripe_fails(&self, method: &str, path: &str) {
        self.system.services.stand_in.misbehave(Fault {
            method: Some(method.to_owned()),
            path_prefix: path.to_owned(),
            times: 1_000,
            kind: FaultKind::Error500BeforeCommit,
        });
    }
}

async fn ask(request: Request) -> (u16, Value) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.request(request).await.expect("an answer");
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

async fn forward(request: Request, to: String, meddle: Meddle) -> Response {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let mut body: Value = serde_json::from_slice(&body).expect("JSON");
    let target = head.headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    let operation = target.and_then(|target| target.rsplit('.').next()).unwrap_or_default();
    let (status, answer) = match meddle(operation, &mut body) {
        Some(answer) => answer,
        None => {
            let mut request = Request::post(to);
            for (name, value) in &head.headers {
                if !["host", "content-length"].contains(&name.as_str()) {
                    request = request.header(name, value);
                }
            }
            ask(request.body(Body::from(body.to_string())).expect("a request")).await
        }
    };
    let status = axum::http::StatusCode::from_u16(status).expect("a status");
    let head = [("content-type", "application/x-amz-json-1.0")];
    (status, head, answer.to_string()).into_response()
}

fn file(name: &str, text: &str) -> String {
    let file = std::env::temp_dir().join(format!("farebox-halfway-{}-{name}", std::process::id()));
    std::fs::write(&file, text).expect("a temporary file");
    file.to_str().expect("a path").to_owned()
}

/// What a DynamoDB answers that does not take a write, in a way that is not tried again.
fn refused() -> Option<(u16, Value)> {
    let error = json!({ "__type": "com.amazon.coral.validate#ValidationException", "message": "not now" });
    Some((400, error))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_stops_nothing_half_way() {
    let place = Place::start().await;
    let new = file(
        "unread.yaml",
        &DEV_TIERS.replace("overage: $0.002/call", "overage: $0.003/call"),
    );
    let (code, stderr) = place.unread(&["tiers", "diff", &new]).await;
    assert_eq!((code, stderr.as_str()), (2, ""), "its own exit code");
    let (code, stderr) = place.unread(&["tiers", "apply", &new, "--yes"]).await;
    assert_eq!((code, stderr.as_str()), (0, ""));
    let left = place.json(&["tiers", "diff", &new]).await;
    assert_eq!(left["version"], 2, "all of it was applied: {left}");
    // It would go on for ever.
    let (code, stderr) = place.unread(&["usage", "tail"]).await;
    assert_eq!((code, stderr.as_str()), (0, ""));
    // A key that nobody was shown is no success.
    place.json(&["customers", "add", "acme", "--tier", "pro"]).await;
    let (code, stderr) = place.unread(&["keys", "issue", "acme"]).await;
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("could not be shown"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_failed_half_way_is_repeated_under_the_id_that_was_made_up() {
    let place = Place::start().await;
    place.json(&["customers", "add", "acme", "--tier", "pro"]).await;
    // The ledger takes the units, the record does not.
    let meddle = |operation: &str, body: &mut Value| match operation {
        "PutItem" | "UpdateItem" | "TransactWriteItems" if body.to_string().contains("\"c#acme\"") => refused(),
        _ => None,
    };
    let broken = place.with("dynamodb", Arc::new(meddle)).await;
    let (code, stdout, stderr) = broken.farebox(&["customers", "grant", "acme", "100"]).await;
    assert_eq!(code, 1, "{stdout}{stderr}");
    let (before, error) = stderr.split_once("error: ").expect("an error");
    let (_, id) = error.split_once("repeat it with --id ").expect("how to go on");
    let id = id.trim();
    assert!(before.contains(id), "said before the write as well: {stderr}");
    let (code, _, stderr) = broken
        .farebox(&["customers", "grant", "acme", "100", "--id", "mine"])
        .await;
    assert_eq!(code, 1);
    assert!(stderr.trim_end().ends_with("repeat it with --id mine"), "{stderr}");

    for id in [id, "mine"] {
        place.json(&["customers", "grant", "acme", "100", "--id", id]).await;
    }
    let usage = place.json(&["usage", "show", "acme"]).await;
    assert_eq!(usage["given_left"]["api_calls"], 200, "{usage}");

    let (code, stdout, stderr) = place.farebox(&["customers", "grant", "acme", "1", "--json"]).await;
    let value: Value = serde_json::from_str(&stdout).expect("stdout is JSON");
    assert_eq!(code, 0);
    assert!(
        stderr.contains(value["grant"].as_str().expect("an id")),
        "{stdout}{stderr}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signing_secret_that_is_stored_is_shown_whatever_fails_after_it() {
    let place = Place::start().await;
    place.json(&["customers", "add", "acme", "--tier", "pro"]).await;
    place.stripe_fails("POST", "/v1/customers/");
    let first = [
        "customers",
        "contact",
        "acme",
        "--email",
        "new@acme.example",
        "--webhook",
        "https://acme.example/hook",
    ];
    let (code, stdout, stderr) = place.farebox(&first).await;
    assert_eq!(code, 1, "{stdout}{stderr}");
    assert_eq!(place.secrets("acme").await, [stdout.trim()], "{stderr}");
    assert!(
        stderr.contains("error: stripe: ") && stderr.contains("repeat with --email alone"),
        "{stderr}"
    );
    let rotate = [
        "customers",
        "contact",
        "acme",
        "--email",
        "new@acme.example",
        "--rotate-webhook-secret",
        "--json",
    ];
    let (code, shown, stderr) = place.farebox(&rotate).await;
    assert_eq!(code, 1, "{shown}{stderr}");
    let shown: Value = serde_json::from_str(&shown).expect("stdout is JSON");
    let secrets = place.secrets("acme").await;
    assert_eq!(
        (json!(secrets[0]), secrets[1].as_str()),
        (shown["webhook_secret"].clone(), stdout.trim())
    );
    let (code, _, stderr) = place.farebox(&rotate[..5]).await;
    assert_eq!(code, 1, "{stderr}");
    place.system.services.stand_in.behave();
    place.json(&rotate[..5]).await;
    assert_eq!(
        place.secrets("acme").await,
        secrets,
        "what goes on needs no other secret"
    );

    // The last step of a sale, and the one after it.
    place.stripe_fails("GET", "/v1/subscriptions/");
    let sale = |id| {
        let hook = "https://acme.example/hook";
        ["customers", "add", id, "--tier", "pro", "--webhook", hook, "--key"]
    };
    let (code, stdout, stderr) = place.farebox(&sale("beta")).await;
    assert_eq!(code, 1, "{stdout}{stderr}");
    assert_eq!(place.secrets("beta").await, [stdout.trim()], "{stderr}");
    assert!(stderr.contains("farebox customers show beta"), "{stderr}");
    place.system.services.stand_in.behave();
    let meddle = |operation: &str, body: &mut Value| match operation {
        "PutItem" | "UpdateItem" | "TransactWriteItems" if body.to_string().contains("first key") => refused(),
        _ => None,
    };
    let broken = place.with("dynamodb", Arc::new(meddle)).await;
    let (code, stdout, stderr) = broken.farebox(&sale("gamma")).await;
    assert_eq!(code, 1, "{stdout}{stderr}");
    assert_eq!(place.secrets("gamma").await, [stdout.trim()], "{stderr}");
    assert!(stderr.contains("farebox keys issue gamma"), "{stderr}");
    let arguments: Vec<&str> = sale("delta").into_iter().chain(["--json"]).collect();
    let (code, stdout, stderr) = broken.farebox(&arguments).await;
    assert_eq!(code, 1, "{stdout}{stderr}");
    let shown: Value = serde_json::from_str(&stdout).expect("stdout is JSON");
    assert_eq!(json!(place.secrets("delta").await), json!([shown["webhook_secret"]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_was_stored_behind_an_error_shows_its_secret() {
    let place = Place::start().await;
    place.json(&["customers", "add", "acme", "--tier", "pro"]).await;
    // The counter item is told after the record is stored.
    let meddle = |operation: &str, body: &mut Value| match operation {
        "UpdateItem"
            if body["TableName"]
                .as_str()
                .is_some_and(|name| name.ends_with("counters")) =>
        {
            refused()
        }
        _ => None,
    };
    let broken = place.with("dynamodb", Arc::new(meddle)).await;
    let hook = "https://acme.example/hook";
    let (code, stdout, stderr) = broken
        .farebox(&["customers", "contact", "acme", "--webhook", hook])
        .await;
    assert_eq!(code, 1, "{stdout}{stderr}");
    assert_eq!(place.secrets("acme").await, [stdout.trim()], "{stderr}");
    // Nothing is shown that is not in force.
    let meddle = |operation: &str, body: &mut Value| match operation {
        "PutItem" | "UpdateItem" | "TransactWriteItems" if body.to_string().contains("\"c#acme\"") => refused(),
        _ => None,
    };
    let broken = place.with("dynamodb", Arc::new(meddle)).await;
    let rotate = ["customers", "contact", "acme", "--rotate-webhook-secret"];
    let (code, stdout, stderr) = broken.farebox(&rotate).await;
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    assert_eq!(place.secrets("acme").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_failed_half_way_says_how_to_go_on() {
    let place = Place::start().await;
    place.json(&["customers", "add", "acme", "--tier", "pro"]).await;
    let issued = place.json(&["keys", "issue", "acme"]).await;
    let old = issued["hash"].as_str().expect("a hash");
    // The counter item is told after both keys are stored.
    let meddle = |operation: &str, body: &mut Value| match operation {
        "UpdateItem"
            if body["TableName"]
                .as_str()
                .is_some_and(|name| name.ends_with("counters")) =>
        {
            refused()
        }
        _ => None,
    };
    let broken = place.with("dynamodb", Arc::new(meddle)).await;
    let (code, stdout, stderr) = broken.farebox(&["keys", "rotate", old]).await;
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    assert!(stderr.contains("nobody has seen it: revoke that one"), "{stderr}");
    let keys = place.json(&["keys", "list", "acme"]).await;
    let hashes = keys
        .as_array()
        .expect("keys")
        .iter()
        .filter_map(|key| key["hash"].as_str());
    let unseen: Vec<&str> = hashes.filter(|hash| *hash != old).collect();
    assert_eq!(unseen.len(), 1, "{keys}");
    place.json(&["keys", "revoke", unseen[0]]).await;
    let new = place.json(&["keys", "rotate", old]).await;
    assert!(new["key"].is_string() && new["expires"].is_null(), "{new}");
}

const DEAD: [&str; 2] = ["events", "replay"];

impl Place {
    /// Puts a message where dead letters of the alerts are; what can't be read, as nothing else is at hand that stays.
    async fn dead_letter(&self, body: &str) -> String {
        let get_endpoints = Request::get(format!("{}/_farebox/endpoints", self.url)).body(Body::empty());
        let (_, endpoints) = ask(get_endpoints.expect("a request")).await;
        let queue = endpoints["queues"]["alerts_dead"].as_str().expect("a queue").to_owned();
        let sqs = &self.system.services.clients.sqs;
        let sent = sqs.send_message().queue_url(&queue).message_body(body).send().await;
        sent.expect("sent");
        queue
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_that_sqs_does_not_hand_out_are_not_said_to_be_gone() {
    let place = Place::start().await;
    let queue = place.dead_letter("not an alert").await;
    // Somebody else's run was interrupted.
    let receive = place.system.services.clients.sqs.receive_message().queue_url(&queue);
    let taken = receive.visibility_timeout(600).send().await.expect("received").messages;
    let taken = taken.expect("a message").remove(0);
    let (code, stdout, stderr) = place.farebox(&DEAD).await;
    assert_eq!(code, 1, "{stdout}{stderr}");
    assert!(
        stdout.contains("alerts: 0 messages sent back\n  1 message is still there"),
        "{stdout}"
    );
    let (_, stdout, _) = place.farebox(&["events", "replay", "--json"]).await;
    let value: Value = serde_json::from_str(&stdout).expect("stdout is JSON");
    assert_eq!(
        (&value[0]["left"], &value[1]["left"]),
        (&json!(0), &json!(1)),
        "{value}"
    );
    // And once it is visible, it is said to stay, and nothing besides.
    let show = place.system.services.clients.sqs.change_message_visibility();
    let show = show
        .queue_url(&queue)
        .receipt_handle(taken.receipt_handle.expect("a receipt"));
    show.visibility_timeout(0).send().await.expect("visible");
    let (code, stdout, _) = place.farebox(&DEAD).await;
    assert_eq!(code, 1, "{stdout}");
    assert!(
        stdout.contains("1 message stays: ") && !stdout.contains("still there"),
        "{stdout}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_answers_short_polls_with_nothing_is_emptied_all_the_same() {
    let place = Place::start().await;
    let (_, alert, _) = place
        .farebox(&["alerts", "test", "--operator", "--dry-run", "--json"])
        .await;
    let alert: Value = serde_json::from_str(&alert).expect("stdout is JSON");
    place.dead_letter(&alert["alert"].to_string()).await;
    // "Short polling … might not return all messages": here none.
    let meddle = |operation: &str, body: &mut Value| match operation {
        "ReceiveMessage" if body["WaitTimeSeconds"].as_u64().unwrap_or(0) == 0 => Some((200, json!({}))),
        _ => None,
    };
    let place = place.with("sqs", Arc::new(meddle)).await;
    let (code, stdout, stderr) = place.farebox(&DEAD).await;
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(stdout.contains("alerts: 1 message sent back"), "{stdout}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_comes_again_is_counted_once() {
    let place = Place::start().await;
    for body in ["not an alert", "nor is this"] {
        place.dead_letter(body).await;
    }
    // The run takes longer than messages stay hidden.
    let meddle = |operation: &str, body: &mut Value| {
        if operation == "ReceiveMessage" {
            body["VisibilityTimeout"] = json!(0);
        }
        None
    };
    let place = place.with("sqs", Arc::new(meddle)).await;
    for trial in [&DEAD[..], &["events", "replay", "--dry-run"]] {
        let run = place.farebox(trial);
        let run = tokio::time::timeout(std::time::Duration::from_secs(60), run).await;
        let (code, stdout, stderr) = run.expect("it comes to an end");
        assert_eq!(code, 1, "{stdout}{stderr}");
        assert!(
            stdout.contains("\n  2 messages stay: ") && !stdout.contains("still there"),
            "{stdout}"
        );
    }
}
