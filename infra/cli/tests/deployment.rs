//! `farebox doctor`, `deploy` and `destroy` as an owner uses them: against a local system, with a `sam` that writes down what it
//! is asked, and a CloudFormation that knows one stack.

#[path = "support/deployed.rs"]
mod deployed;
mod support;

use std::process::Command;

use farebox_core::tiers::Overrides;
use farebox_local::DEV_TIERS;
use serde_json::{Value, json};

use crate::{
    deployed::{AWS_SECRET, Directory, FUNCTIONS_KEY, aws, operator, project, stack},
    support::{START, run, serve},
};

/// What the stand-in for Stripe takes.
const STRIPE_KEY: &str = "sk_test_local";

#[tokio::test]
async fn a_deployment_builds_deploys_and_says_what_is_left() {
    let tools = Directory::with_sam("deploy", "1.170.0");
    let arguments = [
        "deploy",
        "--yes",
        "--stack",
        "paid",
        "--region",
        "eu-central-1",
        "--parameter",
        "KeyBrand=acme",
        "--parameter",
        "DocsUrl=https://a.example/?b&c",
    ];
    let mut below = operator(&arguments, &tools, &[]);
    below.current_dir(project().join("infra/cli"));
    let (code, stdout, stderr) = run(below).await;
    assert_eq!(code, 0, "{stdout}{stderr}");
    let name = project().file_name().expect("a name").to_string_lossy().into_owned();
    let deploy = "deploy --stack-name paid --region eu-central-1 --capabilities CAPABILITY_IAM --resolve-s3 --s3-prefix paid \
                  --tags Application=farebox --no-fail-on-empty-changeset --no-confirm-changeset --parameter-overrides \
                  KeyBrand=acme DocsUrl=\"https://a.example/?b&c\"";
    assert_eq!(
        tools.calls(),
        [
            format!("fat {name} build --template-file template.yaml"),
            format!(" {name} {deploy}")
        ]
    );
    // There are no credentials, so nothing could be read; what is left to do is said all the same.
    for step in [
        "could not be read",
        "invoice.created",
        "put-secret-value",
        "farebox doctor --stack paid",
    ] {
        assert!(stdout.contains(step), "{step}: {stdout}");
    }
}

#[tokio::test]
async fn a_deployment_is_refused_before_anything_is_run() {
    let tools = Directory::with_sam("refused", "1.170.0");
    let mistaken = tools.0.join("tiers.yaml");
    std::fs::write(&mistaken, "tiers:\n  pro: {price: -1}\n").expect("a file");
    let mistaken = mistaken.to_str().expect("a path").to_owned();
    let long = "a".repeat(54);
    let cases: [(i32, &[&str], &str); 7] = [
        (64, &["deploy"], "nobody can be asked here"),
        (64, &["deploy", "--yes", "--stack", &long], "at most 53 characters"),
        (64, &["deploy", "--yes", "--parameter", "KeyBrnd=x"], "KeyBrand"),
        (64, &["deploy", "--yes", "--parameter", "KeyBrand"], "Name=value"),
        (64, &["deploy", "--yes", "--local"], "the local system is not deployed"),
        (64, &["deploy", "--yes", "--guided"], "cannot be used with"),
        (1, &["deploy", "--yes", "--tiers", &mistaken], "price"),
    ];
    for (expected, arguments, word) in cases {
        let (code, stdout, stderr) = run(operator(arguments, &tools, &[])).await;
        assert_eq!(code, expected, "{arguments:?}: {stdout}{stderr}");
        assert!(stderr.contains(word), "{arguments:?}: {stderr}");
    }
    let (code, stdout, _) = run(operator(&["deploy", "--dry-run", "--guided"], &tools, &[])).await;
    assert_eq!(code, 2);
    assert!(
        stdout.contains("\nCARGO_PROFILE_RELEASE_LTO=fat")
            && stdout.contains("\nsam deploy --guided --stack-name farebox")
    );
    assert_eq!(tools.calls(), [""; 0]);

    let old = Directory::with_sam("old", "1.169.9");
    let none = Directory::new("none");
    let without = Directory::new("without");
    without.program("sam", "echo SAM CLI, version 1.170.0");
    for (tools, word) in [
        (&old, "sam is of version 1.169"),
        (&none, "sam, the SAM CLI, can't be started"),
        (&without, "cargo-lambda, which compiles the functions"),
    ] {
        let (code, _, stderr) = run(operator(&["deploy", "--yes"], tools, &[])).await;
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains(word) && stderr.contains("install it"), "{stderr}");
        assert_eq!(tools.calls(), [""; 0]);
    }
    let mut elsewhere = operator(&["deploy", "--yes"], &tools, &[]);
    elsewhere.current_dir("/");
    let (code, _, stderr) = run(elsewhere).await;
    assert_eq!((code, stderr.contains("--template")), (64, true), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_deployment_that_was_rolled_back_names_the_way_out() {
    let tools = Directory::new("rolled-back");
    let script = r#"if [ "$1" = --version ]; then echo "SAM CLI, version 1.170.0"; exit; fi; [ "$1" = build ]"#;
    tools.program("sam", script).program("cargo-lambda", "exit 1");
    let (_system, variables) = stack().await;
    let rolled_back = async |request: axum::extract::Request| {
        let body = aws(request).await.into_body();
        let body = axum::body::to_bytes(body, usize::MAX).await.expect("an answer");
        String::from_utf8_lossy(&body).replace("CREATE_COMPLETE", "ROLLBACK_COMPLETE")
    };
    let url = serve(axum::Router::new().fallback(rolled_back)).await;
    for (endpoint, is_named) in [(Some(&url), true), (None, false)] {
        let variables: Vec<(&str, &str)> = variables
            .iter()
            .map(|(name, value)| match endpoint {
                Some(url) if *name == "AWS_ENDPOINT_URL" => (*name, url.as_str()),
                _ => (*name, value.as_str()),
            })
            .collect();
        let (code, _, stderr) = run(operator(&["deploy", "--yes"], &tools, &variables)).await;
        assert_eq!(code, 1, "{stderr}");
        let way_out = "farebox destroy --stack farebox --delete-tables";
        assert_eq!(stderr.contains(way_out), is_named, "{stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_counted_and_not_billed_is_not_destroyed() {
    let (system, variables) = stack().await;
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let tools = Directory::with_sam("destroy", "1.170.0");
    let destroy = |more: &[&str]| {
        let arguments: Vec<&str> = ["destroy"].iter().chain(more).copied().collect();
        run(operator(&arguments, &tools, &variables))
    };
    let sold = system.sell("acme", "pro", Overrides::default()).await.expect("sold");
    let gateway = serve(system.gateway.router(system.clone())).await;
    for _ in 0..3 {
        let header = format!("x-api-key: {}", sold.key);
        let url = format!("{gateway}/v1/items");
        let call = move || {
            Command::new("curl")
                .args(["-s", "-o", "/dev/null", "-H", &header, &url])
                .status()
        };
        tokio::task::spawn_blocking(call)
            .await
            .expect("no panic")
            .expect("curl runs");
    }

    // Nobody sits at a terminal.
    for consent in [&[][..], &["--yes", "other"], &["--yes", "farebox", "--delete-tables"]] {
        let (code, _, stderr) = destroy(consent).await;
        assert_eq!(code, 64, "{consent:?}: {stderr}");
    }
    // Three units in an open bucket.
    let (code, stdout, stderr) = destroy(&["--yes", "farebox"]).await;
    assert_eq!(code, 1, "{stdout}{stderr}");
    for words in [
        "table farebox-ledger",
        "queue farebox-usage ",
        "secret arn:first-key",
        "1 of them with a subscription",
    ] {
        assert!(stdout.contains(words), "{words}: {stdout}");
    }
    assert!(stderr.contains("3 units in 1 bucket not in Stripe yet"), "{stderr}");
    let (code, stdout, _) = destroy(&["--dry-run"]).await;
    assert_eq!(code, 1, "{stdout}");
    let (code, stdout, _) = destroy(&["--dry-run", "--force"]).await;
    assert_eq!(code, 2, "{stdout}");
    assert!(
        stdout.contains("sam delete --no-prompts --stack-name farebox"),
        "{stdout}"
    );
    assert_eq!(tools.calls(), [""; 0]);

    // Reported, it may go; the tables stay.
    system.send_usage().await.expect("folded");
    system
        .run_until(START.plus_ms(3 * 3_600_000))
        .await
        .expect("time passes");
    let (code, stdout, stderr) = destroy(&["--yes", "farebox", "--json"]).await;
    assert_eq!(code, 0, "{stdout}{stderr}");
    let value: Value = serde_json::from_str(&stdout).expect("json");
    assert_eq!(value["holds"]["unreported"]["units"], 0, "{value}");
    assert_eq!(value["left"][1], "farebox-counters", "{value}");
    let calls = tools.calls();
    assert_eq!(calls.len(), 1);
    assert!(
        calls[0].ends_with("delete --no-prompts --stack-name farebox"),
        "{calls:?}"
    );

    // Without a backup, which the embedded DynamoDB does not make, no table is touched.
    let consent = ["--yes", "farebox", "--delete-tables", "--yes-tables", "delete farebox"];
    let (code, stdout, stderr) = destroy(&consent).await;
    assert_eq!(code, 1, "{stdout}{stderr}");
    assert!(stderr.contains("no table was deleted"), "{stderr}");
    assert!(
        system
            .control
            .accounts
            .customer(&sold.customer.id)
            .await
            .expect("readable")
            .is_some()
    );

    let (code, _, stderr) = run(operator(
        &["destroy", "--yes", "other", "--stack", "other"],
        &tools,
        &variables,
    ))
    .await;
    assert_eq!(
        (code, stderr.contains("there is no stack other")),
        (3, true),
        "{stderr}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_nothing_here_and_then_what_was_broken() {
    let (system, _) = stack().await;
    let gateway = serve(system.gateway.router(system.clone())).await;
    let tools = Directory::new("doctor");
    let doctor = async |more: &[&str]| {
        let arguments: Vec<&str> = ["doctor", "--json"].iter().chain(more).copied().collect();
        let (code, stdout, stderr) = run(operator(&arguments, &tools, &[("FAREBOX_LOCAL", &gateway)])).await;
        let value: Value = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}{stderr}"));
        (code, value)
    };
    // Plans are made in Stripe when they are first sold, or by `tiers apply`: nobody did yet.
    let (code, value) = doctor(&[]).await;
    assert_eq!(
        (code, value["findings"].as_array().map(Vec::len)),
        (1, Some(1)),
        "{value:#}"
    );
    let lacks = value["findings"][0]["what"].as_str().unwrap_or_default();
    assert!(
        lacks.starts_with("Stripe lacks of catalog 1: product farebox_free"),
        "{lacks}"
    );
    let plan = system.books.catalogue_plan(&system.catalog.1).await.expect("a plan");
    system.books.apply(&plan, |_| {}).await.expect("made");

    let (code, value) = doctor(&[]).await;
    assert_eq!((code, &value["findings"]), (0, &json!([])), "{value:#}");
    assert!(
        value["notes"][0]
            .as_str()
            .is_some_and(|note| note.contains("without --local")),
        "{value:#}"
    );
    let (facts, sqs) = (&value["facts"], &system.services.clients.sqs);
    assert_eq!(
        (facts["clocks"].as_array().map(Vec::len), &facts["catalog"]["version"]),
        (Some(2), &Value::from(1))
    );

    // A dead letter, and a file that says otherwise.
    let dead = &system.queues().usage_dead;
    sqs.send_message()
        .queue_url(dead)
        .message_body("?")
        .send()
        .await
        .expect("sent");
    let file = tools.0.join("tiers.yaml");
    std::fs::write(&file, DEV_TIERS.replace("overage: $0.002/call", "overage: $0.003/call")).expect("a file");
    let (code, value) = doctor(&["--tiers", file.to_str().expect("a path")]).await;
    assert_eq!(code, 1, "{value:#}");
    let findings = value["findings"].as_array().expect("a list");
    let checks: Vec<&str> = findings
        .iter()
        .filter_map(|finding| finding["check"].as_str())
        .collect();
    assert_eq!(checks, ["dead-letters", "catalog"], "{value:#}");
    assert!(
        findings[1]["what"]
            .as_str()
            .is_some_and(|what| what.contains("pro: overage 0.002/call")),
        "{value:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_reads_a_stack_over_the_wire() {
    let (system, mut variables) = stack().await;
    let plan = system.books.catalogue_plan(&system.catalog.1).await.expect("a plan");
    system.books.apply(&plan, |_| {}).await.expect("made");
    variables.push(("STRIPE_SECRET_KEY", STRIPE_KEY.to_owned()));
    variables.push(("STRIPE_BASE_URL", format!("http://{}", system.services.addresses[2])));
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let tools = Directory::new("wire");
    let (code, stdout, stderr) = run(operator(&["doctor", "--json"], &tools, &variables)).await;
    assert_eq!(code, 1, "{stdout}{stderr}");
    let value: Value = serde_json::from_str(&stdout).expect("json");
    let findings = value["findings"].as_array().expect("a list");
    let found = |check: &str, words: &str| {
        let fits = |finding: &&Value| {
            finding["check"] == check && finding["what"].as_str().is_some_and(|what| what.contains(words))
        };
        assert_eq!(findings.iter().filter(fits).count(), 1, "{check}: {words}: {value:#}");
    };
    let expected = [
        (
            "authorizer-ttl",
            "paid (a1): API Gateway keeps the answers of authorizer farebox for 300 s",
        ),
        ("gateway-response", "ACCESS_DENIED is API Gateway's own"),
        ("stage", "stage live still serves without the authorizer: GET /v1"),
        ("routes", "1 route without the authorizer: POST /v1"),
        (
            "identity-source",
            "http (h1): authorizer farebox demands $request.header.x-api-key",
        ),
        ("function", "no function farebox-notifier"),
        ("schedule", "farebox-tick is DISABLED"),
        ("queue", "Queue farebox-usage shows a message again after"),
        ("alarms", "1 alarm missing: farebox-gone"),
        ("alarms", "farebox-parked-rows rings: 1 datapoint"),
        ("operator", "op@example.com has not confirmed"),
        ("stripe-key", "is a test key, that of the functions a live key"),
        ("stripe-key", "not a restricted one"),
        (
            "stripe-endpoint",
            "no snapshot events to https://w.example/stripe/webhook",
        ),
        ("stripe-endpoint", "no thin events"),
    ];
    for (check, words) in expected {
        found(check, words);
    }
    // The embedded DynamoDB has no backups to be asked about.
    for table in ["accounts", "counters", "ledger"] {
        found("unread", &format!("Table farebox-{table} could not be read"));
    }
    assert_eq!(findings.len(), expected.len() + 3, "{value:#}");
    assert!(
        ![FUNCTIONS_KEY, STRIPE_KEY, AWS_SECRET]
            .iter()
            .any(|key| stdout.contains(key)),
        "no key is shown"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_holds_no_key_is_not_taken_for_one() {
    let (system, mut variables) = stack().await;
    variables.push(("STRIPE_BASE_URL", format!("http://{}", system.services.addresses[2])));
    let tools = Directory::new("no-key");
    for (held, words) in [
        (json!({ "SecretString": " \n" }), "The secret arn:stripe holds no text"),
        (
            json!({ "SecretBinary": "cmtfdGVzdF8x" }),
            "The secret arn:stripe holds no text",
        ),
        (
            json!({ "SecretString": "rk_test_1\nrk_test_2" }),
            "The secret arn:stripe holds what is no key",
        ),
    ] {
        let other = move |request: axum::extract::Request| async move {
            let target = request.headers().get("x-amz-target").cloned();
            match target.is_some_and(|target| target == "secretsmanager.GetSecretValue") {
                true => axum::response::Response::new(held.to_string().into()),
                false => aws(request).await,
            }
        };
        let endpoint = serve(axum::Router::new().fallback(other)).await;
        for key in [None, Some(STRIPE_KEY)] {
            let mut variables: Vec<(&str, &str)> =
                variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
            variables.push(("AWS_ENDPOINT_URL", &endpoint));
            variables.extend(key.map(|key| ("STRIPE_SECRET_KEY", key)));
            let (code, stdout, stderr) = run(operator(&["doctor", "--json"], &tools, &variables)).await;
            assert_eq!(code, 1, "{stdout}{stderr}");
            let value: Value = serde_json::from_str(&stdout).expect("json");
            let findings = value["findings"].as_array().expect("a list").iter();
            let said: Vec<&str> = findings.filter_map(|finding| finding["what"].as_str()).collect();
            assert_eq!(
                said.iter().filter(|what| what.starts_with(words)).count(),
                1,
                "{words}: {said:#?}"
            );
            assert!(
                !said.iter().any(|what| what.contains("that of the functions")),
                "{said:#?}"
            );
            // With a key of one's own the rest is looked at all the same.
            assert_eq!(value["facts"]["stripe"].is_null(), key.is_none(), "{value:#}");
        }
    }
}
