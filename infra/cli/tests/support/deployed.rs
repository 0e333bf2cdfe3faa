//! What passes for a deployed stack: the local system's tables and queues, a `sam` that writes down what it is asked, and an AWS
//! that knows one stack.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use axum::{body::Body, extract::Request, response::Response};
use farebox_local::System;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::support::{farebox, serve, system};

/// What signs the calls to AWS; nobody looks at it here.
pub const AWS_SECRET: &str = "wJalrXUtnFEMI0K7MDENG0bPxRfiCYplanted";
/// Stripe's key that the functions use: what the stack's secret holds.
pub const FUNCTIONS_KEY: &str = "rk_live_51Functions8Jd2Lq6Ws4Ze9Xc";

/// A directory that goes with its owner.
pub struct Directory(pub PathBuf);

impl Directory {
    /// An empty one.
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("farebox-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    /// A program in it, for a PATH.
    pub fn program(&self, name: &str, script: &str) -> &Self {
        let file = self.0.join(name);
        std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("a script");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("it may be run");
        self
    }

    /// A SAM CLI that writes down how it is called, and cargo-lambda.
    pub fn with_sam(name: &str, version: &str) -> Self {
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

    /// How it was called.
    pub fn calls(&self) -> Vec<String> {
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
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("it is there")
}

/// The command in the project's directory, with only these tools.
pub fn operator(arguments: &[&str], tools: &Directory, variables: &[(&str, &str)]) -> Command {
    let mut command = farebox(arguments, variables);
    command
        .current_dir(project())
        .env("PATH", format!("{}:/usr/bin:/bin", tools.0.display()));
    command
}

const AUTHORIZER: &str = "arn:aws:lambda:us-east-1:1:function:farebox-authorizer";

/// An AWS with the stack `farebox` and nothing else, as far as `doctor` and `destroy` ask for it. The answers have the form that
/// each service documents: <https://docs.aws.amazon.com/index.html#products>.
pub async fn aws(request: Request) -> Response {
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
        "secretsmanager.GetSecretValue" => Some(json!({ "SecretString": FUNCTIONS_KEY })),
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

/// The local system, and the variables by which it passes for a deployed stack.
pub async fn stack() -> (Arc<System>, Vec<(&'static str, String)>) {
    let system = system().await;
    let [dynamodb, sqs, _] = system.services.addresses.map(|address| format!("http://{address}"));
    let variables = vec![
        ("AWS_REGION", system.services.settings.region.clone()),
        ("AWS_ACCESS_KEY_ID", "test".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", AWS_SECRET.to_owned()),
        ("AWS_ENDPOINT_URL_DYNAMODB", dynamodb),
        ("AWS_ENDPOINT_URL_SQS", sqs),
        ("AWS_ENDPOINT_URL", serve(axum::Router::new().fallback(aws)).await),
    ];
    (system, variables)
}
