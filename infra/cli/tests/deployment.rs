//! `farebox doctor`, `deploy` and `destroy` as an owner uses them: against a local system, with a `sam` that writes down what it
//! is asked, and a CloudFormation that knows one stack.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

use axum::{body::Body, extract::Request, response::Response};
use farebox_core::{tiers::Overrides, time::Timestamp};
use farebox_local::{DEV_TIERS, Options, System, VirtualClock};
use http_body_util::BodyExt;
use serde_json::{Value, json};

const START: Timestamp = Timestamp::from_s(1_800_000_000); // 2027-01-15 08:00:00Z

/// What the stand-in for Stripe takes.
const STRIPE_KEY: &str = "sk_test_local";

/// A directory that goes with its owner.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("farebox-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    /// A program in it, for a PATH.
    fn program(&self, name: &str, script: &str) -> &Self {
        let file = self.0.join(name);
        std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("a script");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("it may be run");
        self
    }

    /// A SAM CLI that writes down how it is called, and cargo-lambda.
    fn with_sam(name: &str, version: &str) -> Self {
        let directory = Self::new(name);
        let log = directory.0.join("calls");
        let script = format!(
            r#"if [ "$1" = --version ]; then echo "SAM CLI, version {version}"; exit; fi
echo "$CARGO_PROFILE_RELEASE_LTO $(basename "$PWD") $*" >> {}"#,
            log.display()
        );
        directory.program("sam", &script).program("cargo-lambda", "exit 1");
        directory
    }

    fn calls(&self) -> Vec<String> {
        let calls = std::fs::read_to_string(self.0.join("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The project's directory, where its template lies.
fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("it is there")
}

/// The command in the project's directory, without a terminal and without anything of this machine's configuration.
fn farebox(arguments: &[&str], path: &Path, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farebox"));
    command
        .args(arguments)
        .current_dir(project())
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", path.display()))
        .env("NO_COLOR", "1")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(variables.iter().copied())
        .stdin(std::process::Stdio::null());
    command
}

/// Exit code, stdout and stderr.
async fn run(mut command: Command) -> (i32, String, String) {
    let output: Output = tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("no panic")
        .expect("farebox runs");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    (
        output.status.code().expect("an exit code"),
        text(&output.stdout),
        text(&output.stderr),
    )
}

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
    let mut below = farebox(&arguments, &tools.0, &[]);
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
    let cases: [(i32, &[&str], &str); 6] = [
        (64, &["deploy"], "nobody can be asked here"),
        (64, &["deploy", "--yes", "--parameter", "KeyBrnd=x"], "KeyBrand"),
        (64, &["deploy", "--yes", "--parameter", "KeyBrand"], "Name=value"),
        (64, &["deploy", "--yes", "--local"], "the local system is not deployed"),
        (64, &["deploy", "--yes", "--guided"], "cannot be used with"),
        (1, &["deploy", "--yes", "--tiers", &mistaken], "price"),
    ];
    for (expected, arguments, word) in cases {
        let (code, stdout, stderr) = run(farebox(arguments, &tools.0, &[])).await;
        assert_eq!(code, expected, "{arguments:?}: {stdout}{stderr}");
        assert!(stderr.contains(word), "{arguments:?}: {stderr}");
    }
    let (code, stdout, _) = run(farebox(&["deploy", "--dry-run", "--guided"], &tools.0, &[])).await;
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
        let (code, _, stderr) = run(farebox(&["deploy", "--yes"], &tools.0, &[])).await;
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains(word) && stderr.contains("install it"), "{stderr}");
        assert_eq!(tools.calls(), [""; 0]);
    }
    let mut elsewhere = farebox(&["deploy", "--yes"], &tools.0, &[]);
    elsewhere.current_dir("/");
    let (code, _, stderr) = run(elsewhere).await;
    assert_eq!((code, stderr.contains("--template")), (64, true), "{stderr}");
}

const AUTHORIZER: &str = "arn:aws:lambda:us-east-1:1:function:farebox-authorizer";

/// An AWS with the stack `farebox` and nothing else, as far as `doctor` and `destroy` ask for it. The answers have the form that
/// each service documents: <https://docs.aws.amazon.com/index.html#products>.
async fn aws(request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let body = String::from_utf8_lossy(&body);
    let target = head.headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let (status, answer) = if body.contains("Action=") {
        xml(&body)
    } else {
        let path = target.unwrap_or(path);
        json_of(path).map_or((404, r#"{"message":"Not found"}"#.to_owned()), |json| {
            (200, json.to_string())
        })
    };
    Response::builder()
        .status(status)
        .body(Body::from(answer))
        .expect("an answer")
}

fn xml(body: &str) -> (u16, String) {
    if body.contains("Action=ListSubscriptionsByTopic") {
        let answer = "<ListSubscriptionsByTopicResponse><ListSubscriptionsByTopicResult><Subscriptions><member><Endpoint>\
                      op@example.com</Endpoint><SubscriptionArn>PendingConfirmation</SubscriptionArn></member></Subscriptions>\
                      </ListSubscriptionsByTopicResult></ListSubscriptionsByTopicResponse>";
        return (200, answer.to_owned());
    }
    if !body.split('&').any(|pair| pair == "StackName=farebox") {
        let error = "<ErrorResponse><Error><Type>Sender</Type><Code>ValidationError</Code><Message>Stack with id other does not \
                     exist</Message></Error><RequestId>r</RequestId></ErrorResponse>";
        return (400, error.to_owned());
    }
    if body.contains("Action=DescribeStacks") {
        let pairs = |kind: &str, pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(key, value)| {
                format!("<member><{kind}Key>{key}</{kind}Key><{kind}Value>{value}</{kind}Value></member>")
            });
            format!("<{kind}s>{}</{kind}s>", pairs.collect::<String>())
        };
        let outputs = [
            ("AuthorizerArn", AUTHORIZER),
            ("OperatorTopicArn", "arn:topic"),
            ("WebhookSecretArn", "arn:webhook"),
            ("WebhookUrl", "https://w.example/stripe/webhook"),
        ];
        let answer = format!(
            "<DescribeStacksResponse><DescribeStacksResult><Stacks><member><StackName>farebox</StackName><CreationTime>\
             2026-11-01T00:00:00Z</CreationTime><StackStatus>CREATE_COMPLETE</StackStatus>{}{}</member></Stacks>\
             </DescribeStacksResult></DescribeStacksResponse>",
            pairs(
                "Parameter",
                &[("StripeKeySecretArn", "arn:stripe"), ("ForbiddenStatus403", "false")]
            ),
            pairs("Output", &outputs)
        );
        return (200, answer);
    }
    let resource = |name: &str, kind: &str| {
        format!(
            "<member><LogicalResourceId>Any</LogicalResourceId><PhysicalResourceId>{name}</PhysicalResourceId><ResourceType>{kind}\
             </ResourceType><LastUpdatedTimestamp>2026-11-01T00:00:00Z</LastUpdatedTimestamp><ResourceStatus>CREATE_COMPLETE\
             </ResourceStatus></member>"
        )
    };
    let answer = format!(
        "<ListStackResourcesResponse><ListStackResourcesResult><StackResourceSummaries>{}{}{}</StackResourceSummaries>\
         </ListStackResourcesResult></ListStackResourcesResponse>",
        resource("arn:first-key", "AWS::SecretsManager::Secret"),
        resource("farebox-parked-rows", "AWS::CloudWatch::Alarm"),
        resource("farebox-gone", "AWS::CloudWatch::Alarm")
    );
    (200, answer)
}

fn json_of(path: &str) -> Option<Value> {
    let uri = format!("arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{AUTHORIZER}/invocations");
    let function =
        |timeout: u64| Some(json!({ "Timeout": timeout, "State": "Active", "LastUpdateStatus": "Successful" }));
    let mapping = |queue: &str, function: &str, batch: u64, window: u64| {
        Some(json!({ "EventSourceMappings": [{
            "UUID": "u1", "State": "Enabled", "BatchSize": batch, "MaximumBatchingWindowInSeconds": window,
            "EventSourceArn": format!("arn:aws:sqs:us-east-1:1:{queue}"),
            "FunctionArn": format!("arn:aws:lambda:us-east-1:1:function:{function}"),
            "FunctionResponseTypes": ["ReportBatchItemFailures"] }] }))
    };
    match path {
        "GraniteServiceVersion20100801.DescribeAlarms" => Some(json!({ "MetricAlarms": [{
            "AlarmName": "farebox-parked-rows", "ActionsEnabled": true, "AlarmActions": ["arn:topic"],
            "StateValue": "ALARM", "StateReason": "1 datapoint" }] })),
        "secretsmanager.DescribeSecret" => {
            Some(json!({ "ARN": "arn", "VersionIdsToStages": { "v1": ["AWSCURRENT"], "v0": ["AWSPREVIOUS"] } }))
        }
        "secretsmanager.GetSecretValue" => Some(json!({ "SecretString": "rk_live_of_the_functions" })),
        "/2015-03-31/functions/farebox-authorizer/configuration" => function(10),
        "/2015-03-31/functions/farebox-consumer/configuration" => function(300),
        "/2015-03-31/functions/farebox-webhook/configuration" => function(28),
        "/2015-03-31/event-source-mappings?FunctionName=farebox-consumer" => {
            mapping("farebox-usage", "farebox-consumer", 10_000, 60)
        }
        "/2015-03-31/event-source-mappings?FunctionName=farebox-notifier" => {
            mapping("farebox-alerts", "farebox-notifier", 10, 0)
        }
        "/schedules/farebox-tick" => Some(json!({ "State": "DISABLED" })),
        "/schedules/farebox-scan" => Some(json!({ "State": "ENABLED" })),
        "/restapis?limit=500" => Some(json!({ "item": [{ "id": "a1", "name": "paid", "apiKeySource": "HEADER" }] })),
        "/restapis/a1/authorizers?limit=500" => Some(json!({ "item": [
            { "id": "z1", "name": "farebox", "type": "REQUEST", "authorizerUri": uri, "authorizerResultTtlInSeconds": 300 },
            { "id": "z2", "name": "pool", "type": "COGNITO_USER_POOLS" }] })),
        "/restapis/a1/resources?embed=methods&limit=500" => Some(json!({ "item": [
            { "id": "r0", "path": "/" },
            { "id": "r1", "path": "/v1", "resourceMethods": {
                "GET": { "httpMethod": "GET", "authorizationType": "CUSTOM", "authorizerId": "z1", "apiKeyRequired": false },
                "POST": { "httpMethod": "POST", "authorizationType": "NONE", "apiKeyRequired": false } } }] })),
        "/restapis/a1/gatewayresponses?limit=500" => Some(json!({ "item": [
            { "responseType": "ACCESS_DENIED", "statusCode": "403", "defaultResponse": true },
            { "responseType": "UNAUTHORIZED", "statusCode": "401", "defaultResponse": false,
              "responseParameters": { "gatewayresponse.header.WWW-Authenticate": "'Bearer'" },
              "responseTemplates": { "application/json": "{}" } }] })),
        "/restapis/a1/stages" => Some(json!({ "item": [{ "stageName": "live", "deploymentId": "d1" }] })),
        "/restapis/a1/deployments/d1?embed=apisummary" => Some(json!({ "id": "d1", "apiSummary": {
            "/v1": { "GET": { "authorizationType": "NONE", "apiKeyRequired": false } } } })),
        "/v2/apis" => {
            Some(json!({ "items": [{ "apiId": "h1", "name": "http" }, { "apiId": "h2", "name": "webhook" }] }))
        }
        "/v2/apis/h1/authorizers" => Some(json!({ "items": [{
            "authorizerId": "y1", "name": "farebox", "authorizerType": "REQUEST", "authorizerUri": uri,
            "identitySource": ["$request.header.x-api-key"], "authorizerResultTtlInSeconds": 0 }] })),
        "/v2/apis/h1/routes" => Some(json!({ "items": [{ "routeKey": "GET /items", "authorizerId": "y1" }] })),
        "/v2/apis/h2/authorizers" => Some(json!({ "items": [] })),
        _ => None,
    }
}

async fn serve(router: axum::Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// The local system, and the variables by which it passes for a deployed stack.
async fn stack() -> (Arc<System>, Vec<(&'static str, String)>) {
    let system = System::start(Options {
        clock: VirtualClock::standing(START),
        ..Options::new()
    })
    .await
    .expect("the system starts");
    let [dynamodb, sqs, _] = system.services.addresses.map(|address| format!("http://{address}"));
    let variables = vec![
        ("AWS_REGION", system.services.settings.region.clone()),
        ("AWS_ACCESS_KEY_ID", "test".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ("AWS_ENDPOINT_URL_DYNAMODB", dynamodb),
        ("AWS_ENDPOINT_URL_SQS", sqs),
        ("AWS_ENDPOINT_URL", serve(axum::Router::new().fallback(aws)).await),
    ];
    (system, variables)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_counted_and_not_billed_is_not_destroyed() {
    let (system, variables) = stack().await;
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let tools = Directory::with_sam("destroy", "1.170.0");
    let destroy = |more: &[&str]| {
        let arguments: Vec<&str> = ["destroy"].iter().chain(more).copied().collect();
        run(farebox(&arguments, &tools.0, &variables))
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

    let (code, _, stderr) = run(farebox(
        &["destroy", "--yes", "other", "--stack", "other"],
        &tools.0,
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
        let (code, stdout, stderr) = run(farebox(&arguments, &tools.0, &[("FAREBOX_LOCAL", &gateway)])).await;
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
    let (code, stdout, stderr) = run(farebox(&["doctor", "--json"], &tools.0, &variables)).await;
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
        !stdout.contains("rk_live_of_the_functions") && !stdout.contains(STRIPE_KEY),
        "no key is shown"
    );
}
