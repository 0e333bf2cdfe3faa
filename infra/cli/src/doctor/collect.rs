//! Looking at everything, changing nothing.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::{BillingMode, KeySchemaElement, TableDescription, TimeToLiveStatus};
use aws_sdk_secretsmanager::operation::describe_secret::DescribeSecretError;
use aws_sdk_sqs::types::QueueAttributeName;
use farebox_aws::connect::http_client;
use farebox_billing::Making;
use farebox_stripe::{Access, Area, SecretKey};
use serde::Deserialize;

use super::facts::{
    Alarm, Authorizer, Catalog, Clock, Denied, Endpoint, Facts, Function, GatewayResponse, Grace, HttpApi, Mapping,
    Method, Queue, QueueSettings, RestApi, Schedule, Secret, SecretKind, Stage, Stripe, Subscription, Table, TableKind,
    TableSafety, TableSettings, Unread,
};
use crate::{
    arguments::Doctor,
    aws::{Reader, Service, encoded},
    failure::Failure,
    reach::{Reach, cause, machine_time, stripe},
    stack,
};

const FUNCTIONS: [&str; 4] = ["authorizer", "consumer", "webhook", "notifier"];
const SCHEDULES: [&str; 2] = ["tick", "scan"];
/// What a deployed stack has and this machine does not.
const NEEDS_AWS: &str = "On this machine there are no functions, schedules, alarms, secrets, backups, gateway responses, \
                         authorizer settings and webhook endpoints to look at: `farebox doctor` without --local looks at a stack's";

/// What to do where nobody answers.
const REACH: &str = "see that this machine gets there: proxy, firewall, --stripe-url, AWS_ENDPOINT_URL";

/// Who is asked what.
struct Look<'a> {
    reach: &'a Reach,
    reader: Reader,
    facts: Facts,
}

/// Everything there is to see.
///
/// # Errors
/// If there is no such stack, or nothing can be asked at all.
pub(crate) async fn collect(options: &Doctor, reach: &Reach) -> Result<Facts, Failure> {
    // Of the services that it asks, the local system has one.
    let endpoint = match reach.is_local {
        true => reach.settings.dynamodb_endpoint.clone(),
        false => reach.endpoint.clone(),
    };
    let settings = &reach.settings;
    let reader =
        Reader::new(settings.credentials.clone(), settings.region.clone(), endpoint).map_err(Failure::Failed)?;
    let mut look = Look {
        reach,
        reader,
        facts: Facts::default(),
    };
    match reach.is_local {
        true => look.facts.notes.push(NEEDS_AWS.to_owned()),
        false => look.facts.stack = Some(stack::describe(reach).await?),
    }
    look.tables().await;
    look.queues().await;
    look.deployed().await;
    let before_s = machine_time().s();
    let date = look.reader.date(Service::DynamoDb).await;
    look.clock("DynamoDB", before_s, date);
    if let Some((client, seen)) = look.stripe_key().await {
        let before_s = machine_time().s();
        let date = client.date().await.map_err(|e| e.to_string());
        // Who does not answer to that is not asked the rest.
        if look.clock("Stripe", before_s, date) {
            look.stripe(&client, seen).await;
            if look.facts.stripe.as_ref().is_some_and(|stripe| !stripe.is_key_unknown) {
                look.catalog(options, client).await;
            }
        }
    }
    Ok(look.facts)
}

impl Look<'_> {
    /// Keeps what was seen, or that it could not be.
    fn keep<T>(&mut self, what: &str, fix: &str, seen: Result<T, String>) -> Option<T> {
        seen.map_err(|cause| {
            self.facts.unread.push(Unread {
                what: what.to_owned(),
                cause,
                fix: fix.to_owned(),
            });
        })
        .ok()
    }

    async fn tables(&mut self) {
        let tables = &self.reach.tables;
        for (kind, name) in [
            (TableKind::Accounts, &tables.accounts),
            (TableKind::Counters, &tables.counters),
            (TableKind::Ledger, &tables.ledger),
        ] {
            let fix =
                "allow dynamodb:DescribeTable, DescribeContinuousBackups and DescribeTimeToLive to whoever runs this";
            let seen = self.table(kind, name).await;
            let seen = self.keep(&format!("table {name}"), fix, seen);
            self.facts.tables.extend(seen);
        }
    }

    async fn table(&self, kind: TableKind, name: &str) -> Result<Table, String> {
        let dynamodb = &self.reach.clients.dynamodb;
        let described = match dynamodb.describe_table().table_name(name).send().await {
            Ok(answer) => answer.table,
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|e| e.is_resource_not_found_exception()) =>
            {
                None
            }
            Err(error) => return Err(cause(&error)),
        };
        let safety = match &described {
            Some(table) if !self.reach.is_local => Some(self.safety(name, table).await?),
            _ => None,
        };
        Ok(Table {
            kind,
            name: name.to_owned(),
            settings: described.map(|table| table_settings(&table)),
            safety,
        })
    }

    async fn safety(&self, name: &str, table: &TableDescription) -> Result<TableSafety, String> {
        let dynamodb = &self.reach.clients.dynamodb;
        let backups = dynamodb.describe_continuous_backups().table_name(name).send().await;
        let recovery = backups
            .map_err(|e| cause(&e))?
            .continuous_backups_description
            .and_then(|backups| backups.point_in_time_recovery_description)
            .and_then(|recovery| recovery.point_in_time_recovery_status);
        let expiry = dynamodb.describe_time_to_live().table_name(name).send().await;
        let expiry = expiry.map_err(|e| cause(&e))?.time_to_live_description;
        let is_on = |status: &Option<TimeToLiveStatus>| {
            matches!(status, Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling))
        };
        Ok(TableSafety {
            is_deletion_protected: table.deletion_protection_enabled == Some(true),
            has_point_in_time_recovery: recovery.is_some_and(|status| status.as_str() == "ENABLED"),
            expires_by: expiry
                .filter(|expiry| is_on(&expiry.time_to_live_status))
                .and_then(|expiry| expiry.attribute_name),
        })
    }

    async fn queues(&mut self) {
        for part in ["usage", "alerts"] {
            let seen = self.queue(part).await.map(|settings| Queue { part, settings });
            let seen = self.keep(
                &format!("the {part} queue"),
                "allow sqs:GetQueueUrl and GetQueueAttributes to whoever runs this",
                seen,
            );
            self.facts.queues.extend(seen);
        }
    }

    async fn queue(&self, part: &str) -> Result<Option<QueueSettings>, String> {
        let Some(url) = self.reach.find_queue(part).await.map_err(|e| e.to_string())? else {
            return Ok(None);
        };
        let attributes = self.attributes(&url).await?;
        let number = |name: &QueueAttributeName| attributes.get(name).and_then(|value| value.parse().ok()).unwrap_or(0);
        let dead_letter_depth = match self.reach.find_queue(&format!("{part}-dead")).await {
            Ok(Some(dead)) => depth(&self.attributes(&dead).await?),
            Ok(None) => 0,
            Err(failure) => return Err(failure.to_string()),
        };
        Ok(Some(QueueSettings {
            visibility_s: number(&QueueAttributeName::VisibilityTimeout),
            dead_letters: attributes
                .get(&QueueAttributeName::RedrivePolicy)
                .and_then(|policy| serde_json::from_str::<serde_json::Value>(policy).ok())
                .and_then(|policy| policy["deadLetterTargetArn"].as_str().map(str::to_owned)),
            dead_letter_depth,
            url,
        }))
    }

    async fn attributes(&self, url: &str) -> Result<Attributes, String> {
        let request = self.reach.clients.sqs.get_queue_attributes().queue_url(url);
        let answer = request.attribute_names(QueueAttributeName::All).send().await;
        Ok(answer.map_err(|e| cause(&e))?.attributes.unwrap_or_default())
    }

    /// What only a stack has.
    async fn deployed(&mut self) {
        let Some(stack) = self.facts.stack.clone() else { return };
        for part in FUNCTIONS {
            let name = format!("{}-{part}", stack.name);
            let path = format!("/2015-03-31/functions/{}/configuration", encoded(&name));
            let seen = self.reader.read(Service::Lambda, &path).await;
            let seen = self.keep(
                &format!("function {name}"),
                "allow lambda:GetFunctionConfiguration to whoever runs this",
                seen,
            );
            self.facts
                .functions
                .extend(seen.map(|settings| Function { part, name, settings }));
        }
        let mappings = self.mappings(&stack.name).await;
        self.facts.mappings = self.keep(
            "what reads the queues",
            "allow lambda:ListEventSourceMappings to whoever runs this",
            mappings,
        );
        for part in SCHEDULES {
            let name = format!("{}-{part}", stack.name);
            let seen = self.schedule(&name).await;
            let seen = self.keep(
                &format!("schedule {name}"),
                "allow scheduler:GetSchedule to whoever runs this",
                seen,
            );
            self.facts
                .schedules
                .extend(seen.map(|state| Schedule { part, name, state }));
        }
        for (kind, arn) in [
            (SecretKind::StripeKey, stack.parameters.get("StripeKeySecretArn")),
            (SecretKind::Webhook, stack.outputs.get("WebhookSecretArn")),
        ] {
            let Some(arn) = arn.cloned() else { continue };
            let seen = self.versions(&arn).await;
            let seen = self.keep(
                &format!("secret {arn}"),
                "allow secretsmanager:DescribeSecret to whoever runs this",
                seen,
            );
            self.facts
                .secrets
                .extend(seen.map(|versions| Secret { kind, arn, versions }));
        }
        let alarms = self.reader.alarms::<Alarm>(&format!("{}-", stack.name)).await;
        let alarms = self.keep(
            "the alarms",
            "allow cloudwatch:DescribeAlarms to whoever runs this",
            alarms,
        );
        self.facts.alarms = alarms.map(|alarms| {
            alarms
                .into_iter()
                .map(|alarm| (alarm.alarm_name.clone(), alarm))
                .collect()
        });
        if let Some(topic) = stack.outputs.get("OperatorTopicArn") {
            let seen = self.subscriptions(topic).await;
            self.facts.subscriptions = self.keep(
                "who is told",
                "allow sns:ListSubscriptionsByTopic to whoever runs this",
                seen,
            );
        }
        if let Some(authorizer) = stack.outputs.get("AuthorizerArn") {
            let key = stack.outputs.get("GatewayKeyId");
            let rest = self.rest_apis(authorizer, key.map(String::as_str)).await;
            self.facts.rest_apis = self.keep("the REST APIs", "allow apigateway:GET to whoever runs this", rest);
            let http = self.http_apis(authorizer).await;
            self.facts.http_apis = self.keep("the HTTP APIs", "allow apigateway:GET to whoever runs this", http);
        }
    }

    async fn mappings(&self, stack: &str) -> Result<Vec<Mapping>, String> {
        let mut mappings = Vec::new();
        for function in ["consumer", "notifier"] {
            let path = format!("/2015-03-31/event-source-mappings?FunctionName={stack}-{function}");
            mappings.extend(self.reader.list(Service::Lambda, &path).await?);
        }
        Ok(mappings)
    }

    async fn schedule(&self, name: &str) -> Result<Option<String>, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Found {
            state: String,
        }
        let path = format!("/schedules/{}", encoded(name));
        let found: Option<Found> = self.reader.read(Service::Scheduler, &path).await?;
        Ok(found.map(|found| found.state))
    }

    fn secrets_manager(&self) -> aws_sdk_secretsmanager::Client {
        let settings = &self.reach.settings;
        let mut config = aws_sdk_secretsmanager::Config::builder()
            .behavior_version(aws_sdk_secretsmanager::config::BehaviorVersion::latest())
            .region(aws_sdk_secretsmanager::config::Region::new(settings.region.clone()))
            .credentials_provider(settings.credentials.clone())
            .http_client(http_client([&self.reach.endpoint]));
        config.set_endpoint_url(self.reach.endpoint.clone());
        aws_sdk_secretsmanager::Client::from_conf(config.build())
    }

    /// How many versions of a secret carry a name, `AWSCURRENT` or `AWSPREVIOUS`.
    async fn versions(&self, arn: &str) -> Result<Option<usize>, String> {
        match self.secrets_manager().describe_secret().secret_id(arn).send().await {
            Ok(secret) if secret.deleted_date.is_some() => Ok(None),
            Ok(secret) => {
                let versions = secret.version_ids_to_stages.unwrap_or_default();
                Ok(Some(versions.values().filter(|names| !names.is_empty()).count()))
            }
            Err(error) => match error.as_service_error() {
                Some(DescribeSecretError::ResourceNotFoundException(_)) => Ok(None),
                _ => Err(cause(&error)),
            },
        }
    }

    async fn subscriptions(&self, topic: &str) -> Result<Vec<Subscription>, String> {
        let settings = &self.reach.settings;
        let mut config = aws_sdk_sns::Config::builder()
            .behavior_version(aws_sdk_sns::config::BehaviorVersion::latest())
            .region(aws_sdk_sns::config::Region::new(settings.region.clone()))
            .credentials_provider(settings.credentials.clone())
            .http_client(http_client([&self.reach.endpoint]));
        config.set_endpoint_url(self.reach.endpoint.clone());
        let sns = aws_sdk_sns::Client::from_conf(config.build());
        let mut pages = sns
            .list_subscriptions_by_topic()
            .topic_arn(topic)
            .into_paginator()
            .items()
            .send();
        let mut subscriptions = Vec::new();
        while let Some(one) = pages.next().await {
            let one = one.map_err(|e| cause(&e))?;
            subscriptions.push(Subscription {
                endpoint: one.endpoint.unwrap_or_default(),
                is_confirmed: one.subscription_arn.is_some_and(|arn| arn.starts_with("arn:")),
            });
        }
        Ok(subscriptions)
    }

    async fn rest_apis(&self, function: &str, key: Option<&str>) -> Result<Vec<RestApi>, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Api {
            id: String,
            name: String,
            api_key_source: Option<String>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ReadAuthorizer {
            id: String,
            name: String,
            #[serde(rename = "type")]
            kind: String,
            authorizer_uri: Option<String>,
            identity_source: Option<String>,
            authorizer_result_ttl_in_seconds: Option<u64>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ReadResponse {
            response_type: String,
            status_code: Option<String>,
            #[serde(default)]
            response_parameters: BTreeMap<String, String>,
            #[serde(default)]
            response_templates: BTreeMap<String, String>,
            #[serde(default)]
            default_response: bool,
        }
        let mut attached = Vec::new();
        for api in self
            .reader
            .list::<Api>(Service::ApiGateway, "/restapis?limit=500")
            .await?
        {
            let path = |rest: &str| format!("/restapis/{}/{rest}", api.id);
            let authorizers: Vec<ReadAuthorizer> = self
                .reader
                .list(Service::ApiGateway, &path("authorizers?limit=500"))
                .await?;
            let authorizers: Vec<Authorizer> = authorizers
                .into_iter()
                .filter(|one| one.authorizer_uri.as_deref().is_some_and(|uri| calls(uri, function)))
                .map(|one| Authorizer {
                    id: one.id,
                    name: one.name,
                    kind: one.kind,
                    ttl_s: one.authorizer_result_ttl_in_seconds,
                    identity_sources: sources(one.identity_source.as_deref().unwrap_or_default()),
                })
                .collect();
            if authorizers.is_empty() {
                continue;
            }
            let responses: Vec<ReadResponse> = self
                .reader
                .list(Service::ApiGateway, &path("gatewayresponses?limit=500"))
                .await?;
            let own = responses.into_iter().filter(|response| !response.default_response);
            let stages = self.stages(&api.id).await?;
            attached.push(RestApi {
                takes_key_from_authorizer: api.api_key_source.as_deref() == Some("AUTHORIZER"),
                authorizers,
                methods: self.methods(&api.id).await?,
                gateway_responses: own
                    .map(|response| {
                        let headers = response.response_parameters.into_iter();
                        let read = GatewayResponse {
                            status: response.status_code,
                            headers: headers
                                .filter_map(|(name, from)| {
                                    Some((name.strip_prefix("gatewayresponse.header.")?.to_owned(), from))
                                })
                                .collect(),
                            has_json_body: response.response_templates.contains_key("application/json"),
                        };
                        (response.response_type, read)
                    })
                    .collect(),
                stages_with_key: match key {
                    Some(key) => Some(self.stages_with_key(&api.id, key).await?),
                    None => None,
                },
                stages,
                name: api.name,
                id: api.id,
            });
        }
        Ok(attached)
    }

    async fn methods(&self, api: &str) -> Result<Vec<Method>, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Resource {
            path: String,
            #[serde(default)]
            resource_methods: BTreeMap<String, ReadMethod>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ReadMethod {
            authorizer_id: Option<String>,
            #[serde(default)]
            api_key_required: bool,
        }
        let path = format!("/restapis/{api}/resources?embed=methods&limit=500");
        let resources: Vec<Resource> = self.reader.list(Service::ApiGateway, &path).await?;
        let methods = resources.into_iter().flat_map(|resource| {
            let path = resource.path;
            resource.resource_methods.into_iter().map(move |(verb, method)| Method {
                route: format!("{verb} {path}"),
                authorizer: method.authorizer_id,
                needs_key: method.api_key_required,
            })
        });
        Ok(methods.collect())
    }

    async fn stages(&self, api: &str) -> Result<Vec<Stage>, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ReadStage {
            stage_name: String,
            deployment_id: Option<String>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Deployment {
            #[serde(default)]
            api_summary: BTreeMap<String, BTreeMap<String, Summary>>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Summary {
            authorization_type: Option<String>,
        }
        let mut stages = Vec::new();
        let read: Vec<ReadStage> = self
            .reader
            .list(Service::ApiGateway, &format!("/restapis/{api}/stages"))
            .await?;
        for stage in read {
            let mut open_routes = None;
            if let Some(id) = stage.deployment_id {
                let path = format!("/restapis/{api}/deployments/{id}?embed=apisummary");
                let deployment: Option<Deployment> = self.reader.read(Service::ApiGateway, &path).await?;
                // A summary that names no kind of authorization says nothing about it.
                open_routes = deployment.map(|deployment| {
                    let methods = deployment.api_summary.into_iter().flat_map(|(path, methods)| {
                        methods
                            .into_iter()
                            .map(move |(verb, summary)| (format!("{verb} {path}"), summary))
                    });
                    methods
                        .filter(|(_, summary)| summary.authorization_type.as_deref() == Some("NONE"))
                        .map(|(route, _)| route)
                        .collect()
                });
            }
            stages.push(Stage {
                name: stage.stage_name,
                open_routes,
            });
        }
        Ok(stages)
    }

    async fn stages_with_key(&self, api: &str, key: &str) -> Result<Vec<String>, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Plan {
            #[serde(default)]
            api_stages: Vec<ApiStage>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ApiStage {
            api_id: String,
            stage: String,
        }
        let path = format!("/usageplans?keyId={}&limit=500", encoded(key));
        let plans: Vec<Plan> = self.reader.list(Service::ApiGateway, &path).await?;
        let stages = plans.into_iter().flat_map(|plan| plan.api_stages);
        Ok(stages.filter(|one| one.api_id == api).map(|one| one.stage).collect())
    }

    async fn http_apis(&self, function: &str) -> Result<Vec<HttpApi>, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Api {
            api_id: String,
            name: String,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ReadAuthorizer {
            authorizer_id: String,
            name: String,
            authorizer_type: String,
            authorizer_uri: Option<String>,
            #[serde(default)]
            identity_source: Vec<String>,
            authorizer_result_ttl_in_seconds: Option<u64>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Route {
            route_key: String,
            authorizer_id: Option<String>,
        }
        let mut attached = Vec::new();
        for api in self.reader.list::<Api>(Service::ApiGateway, "/v2/apis").await? {
            let path = format!("/v2/apis/{}/authorizers", api.api_id);
            let authorizers: Vec<ReadAuthorizer> = self.reader.list(Service::ApiGateway, &path).await?;
            let authorizers: Vec<Authorizer> = authorizers
                .into_iter()
                .filter(|one| one.authorizer_uri.as_deref().is_some_and(|uri| calls(uri, function)))
                .map(|one| Authorizer {
                    id: one.authorizer_id,
                    name: one.name,
                    kind: one.authorizer_type,
                    // An HTTP API keeps nothing unless it is told to:
                    // https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-lambda-authorizer.html
                    ttl_s: Some(one.authorizer_result_ttl_in_seconds.unwrap_or(0)),
                    identity_sources: one.identity_source,
                })
                .collect();
            if authorizers.is_empty() {
                continue;
            }
            let path = format!("/v2/apis/{}/routes", api.api_id);
            let routes: Vec<Route> = self.reader.list(Service::ApiGateway, &path).await?;
            attached.push(HttpApi {
                authorizers,
                methods: routes
                    .into_iter()
                    .map(|route| Method {
                        route: route.route_key,
                        authorizer: route.authorizer_id,
                        needs_key: false,
                    })
                    .collect(),
                name: api.name,
                id: api.api_id,
            });
        }
        Ok(attached)
    }

    /// Whether the other clock could be asked; that it can't be read is no failure.
    fn clock(&mut self, of: &'static str, before_s: u64, date: Result<Option<String>, String>) -> bool {
        let after_s = machine_time().s();
        let Some(date) = self.keep(of, REACH, date) else {
            return false;
        };
        let date = date.and_then(|date| chrono::DateTime::parse_from_rfc2822(&date).ok());
        if let Some(date) = date {
            let ahead_s = ahead_s(before_s, after_s, date.timestamp());
            self.facts.clocks.push(Clock { of, ahead_s });
        }
        true
    }

    /// Stripe by the key of the environment, else by that of the functions.
    async fn stripe_key(&mut self) -> Option<(farebox_stripe::Client, Stripe)> {
        if self.reach.is_local {
            let client = self.reach.stripe().map_err(|e| e.to_string());
            let client = self.keep("Stripe", "start `farebox dev` anew", client)?;
            let seen = Stripe {
                key_from: "the local system".to_owned(),
                is_restricted: true, // it is nobody's
                ..Stripe::default()
            };
            return Some((client, seen));
        }
        let stack = self.facts.stack.clone()?;
        let of_environment = std::env::var("STRIPE_SECRET_KEY").ok().filter(|key| !key.is_empty());
        let arn = stack.parameters.get("StripeKeySecretArn");
        let of_functions = match arn {
            Some(arn) => {
                let answer = self.secrets_manager().get_secret_value().secret_id(arn).send().await;
                answer.map(|answer| answer.secret_string).map_err(|e| cause(&e))
            }
            None => Ok(None),
        };
        let of_functions = match (of_functions, &of_environment) {
            // The one of the environment will do.
            (Err(problem), Some(_)) => {
                let note = format!("The key of the functions can't be compared with STRIPE_SECRET_KEY: {problem}");
                self.facts.notes.push(note);
                None
            }
            (other, _) => self.keep(
                "the Stripe key",
                "set STRIPE_SECRET_KEY, or allow secretsmanager:GetSecretValue to whoever runs this",
                other,
            )?,
        };
        let of_functions = of_functions.map(|key| key.trim().to_owned());
        let (from, key) = match (of_environment, arn) {
            (Some(key), _) => ("STRIPE_SECRET_KEY".to_owned(), key),
            (None, Some(arn)) => (format!("secret {arn}"), of_functions.clone()?),
            (None, None) => return None,
        };
        let is_live = |key: &str| SecretKey::new(key).is_ok_and(|key| key.is_live());
        let seen = Stripe {
            key_from: from,
            is_restricted: SecretKey::new(&key).is_ok_and(|key| key.is_restricted()),
            is_live: is_live(&key),
            functions_key_is_live: of_functions.as_deref().map(is_live),
            ..Stripe::default()
        };
        let base = stack.parameters.get("StripeBaseUrl").filter(|url| !url.is_empty());
        let url = self.reach.stripe_url.clone().or_else(|| base.cloned());
        let client = self.keep(
            "Stripe",
            "set STRIPE_SECRET_KEY to a restricted key",
            stripe(Some(key), url),
        )?;
        Some((client, seen))
    }

    async fn stripe(&mut self, client: &farebox_stripe::Client, mut seen: Stripe) {
        for area in Area::ALL {
            let access = client.access(area).await.map_err(|e| e.to_string());
            match self.keep(&format!("what the key may do with {}", area.name()), REACH, access) {
                Some(Access::UnknownKey) => {
                    seen.is_key_unknown = true;
                    self.facts.stripe = Some(seen);
                    return;
                }
                Some(Access::Denied { permission }) => seen.denied.push(Denied {
                    area: area.name(),
                    permission,
                    is_written: area.is_written(),
                }),
                Some(Access::Allowed) | None => {}
            }
        }
        if !self.reach.is_local {
            self.endpoints(client, &mut seen).await;
        }
        let may_read = !seen.denied.iter().any(|denied| denied.area == Area::Invoices.name());
        if may_read {
            let times = client.invoice_times().await.map_err(|e| e.to_string());
            let times = self.keep("the invoices", "set Invoices to Read for this key", times);
            seen.grace = grace(times.unwrap_or_default());
        }
        self.facts.stripe = Some(seen);
    }

    async fn endpoints(&mut self, client: &farebox_stripe::Client, seen: &mut Stripe) {
        let endpoints = client.webhook_endpoints().await.map_err(|e| e.to_string());
        let endpoints = self.keep(
            "the webhook endpoints",
            "set Webhook Endpoints to Read for this key, or look there: https://dashboard.stripe.com/workbench/webhooks",
            endpoints,
        );
        let destinations = client.event_destinations().await.map_err(|e| e.to_string());
        let destinations = self.keep(
            "the event destinations",
            "set Event Destinations to Read for this key, or look there: https://dashboard.stripe.com/workbench/webhooks",
            destinations,
        );
        let endpoints = endpoints.map(|endpoints| {
            let own = endpoints.into_iter().map(|one| Endpoint {
                is_enabled: one.status == "enabled",
                id: one.id,
                url: one.url,
                events: one.enabled_events,
                api_version: one.api_version,
            });
            own.collect::<Vec<Endpoint>>()
        });
        let (thin, snapshot): (Vec<_>, Vec<_>) = destinations
            .iter()
            .flatten()
            .partition(|destination| destination.event_payload == "thin");
        let as_endpoint = |one: &&farebox_stripe::EventDestination| {
            Some(Endpoint {
                id: one.id.clone(),
                url: one.url.clone()?,
                events: one.enabled_events.clone(),
                api_version: one.snapshot_api_version.clone(),
                is_enabled: one.status == "enabled",
            })
        };
        // An endpoint may be in both lists; it is the same one then.
        seen.snapshot_endpoints = endpoints.map(|mut all| {
            let others = snapshot.iter().filter_map(as_endpoint);
            let others: Vec<Endpoint> = others
                .filter(|one| !all.iter().any(|known| known.url == one.url))
                .collect();
            all.extend(others);
            all
        });
        if destinations.is_some() {
            seen.thin_endpoints = Some(thin.iter().filter_map(as_endpoint).collect());
        }
    }

    async fn catalog(&mut self, options: &Doctor, client: farebox_stripe::Client) {
        let seen = self.sold(options, client).await.map_err(|e| e.to_string());
        let what = "what is sold";
        self.facts.catalog = self.keep(
            what,
            "allow dynamodb:GetItem and Scan on the accounts table to whoever runs this",
            seen,
        );
    }

    async fn sold(&self, options: &Doctor, client: farebox_stripe::Client) -> Result<Catalog, Failure> {
        let accounts = &self.reach.control.accounts;
        let version = accounts.newest_catalog().await?;
        let books = self.reach.books_with(client).await?;
        let mut seen = Catalog::default();
        if let Some(stored) = accounts.catalog(version).await? {
            let plan = books.catalogue_plan(&stored).await?;
            seen.version = Some(version);
            seen.missing = plan.steps().iter().map(Making::to_string).collect();
            seen.mismatches = plan.mismatches.iter().map(ToString::to_string).collect();
        }
        if let Some(file) = &options.tiers {
            let name = file.display().to_string();
            let text = crate::tiers::read(file)?;
            let catalog = farebox_core::tiers::Catalog::from_yaml(&text, &name).map_err(Failure::failed)?;
            let plan = books.catalogue_plan(&catalog).await?;
            let changes = plan.changes.iter().flat_map(|change| change.sentences.clone());
            seen.file = Some((name, changes.collect()));
        }
        Ok(seen)
    }
}

type Attributes = std::collections::HashMap<QueueAttributeName, String>;

/// Messages in a queue, visible or not.
pub(crate) fn depth(attributes: &Attributes) -> u64 {
    [
        QueueAttributeName::ApproximateNumberOfMessages,
        QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
        QueueAttributeName::ApproximateNumberOfMessagesDelayed,
    ]
    .iter()
    .filter_map(|name| attributes.get(name)?.parse::<u64>().ok())
    .sum()
}

fn table_settings(table: &TableDescription) -> TableSettings {
    let key = |schema: &[KeySchemaElement]| {
        let parts = schema.iter().map(|element| {
            let mut attributes = table.attribute_definitions().iter();
            let kind = attributes.find(|attribute| attribute.attribute_name == element.attribute_name);
            let kind = kind.map_or("?", |attribute| attribute.attribute_type.as_str());
            format!("{} {kind}", element.attribute_name)
        });
        parts.collect::<Vec<_>>().join(", ")
    };
    let indexes = table.global_secondary_indexes().iter();
    TableSettings {
        key: key(table.key_schema()),
        indexes: indexes
            .map(|index| {
                format!(
                    "{}: {}",
                    index.index_name().unwrap_or_default(),
                    key(index.key_schema())
                )
            })
            .collect(),
        // A table that never had another mode has no summary of it, and then it is provisioned.
        is_on_demand: table
            .billing_mode_summary()
            .and_then(|summary| summary.billing_mode())
            .is_some_and(|mode| *mode == BillingMode::PayPerRequest),
    }
}

/// Whether an authorizer's URI calls a function, or an alias or version of it.
fn calls(uri: &str, function: &str) -> bool {
    let after = uri.split_once(function).map(|(_, after)| after);
    after.is_some_and(|after| after.starts_with('/') || after.starts_with(':'))
}

fn sources(text: &str) -> Vec<String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(str::to_owned).collect()
}

/// How far our clock is ahead of one that showed a whole second at some time between two looks at ours.
fn ahead_s(before_s: u64, after_s: u64, theirs_s: i64) -> i64 {
    let second = |s: u64| i64::try_from(s).unwrap_or(i64::MAX);
    let (before, after) = (second(before_s), second(after_s));
    if before > theirs_s + 1 {
        before - theirs_s
    } else if after < theirs_s {
        after - theirs_s
    } else {
        0
    }
}

/// The newest word on how long invoices of billing periods stay drafts.
fn grace(times: Vec<farebox_stripe::InvoiceTimes>) -> Option<Grace> {
    let cycle = |one: &farebox_stripe::InvoiceTimes| one.billing_reason.as_deref() == Some("subscription_cycle");
    times.into_iter().filter(cycle).find_map(|one| {
        let until = one.automatically_finalizes_at.or(one.finalized_at)?;
        Some(Grace {
            seconds: until - one.created,
            is_announced: one.automatically_finalizes_at.is_some(),
            invoice: one.id,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_told_apart_only_beyond_what_the_look_took() {
        assert_eq!(ahead_s(100, 100, 100), 0);
        assert_eq!(ahead_s(100, 103, 102), 0);
        assert_eq!(ahead_s(101, 101, 100), 0); // the second began before and may have ended
        assert_eq!(ahead_s(105, 106, 100), 5);
        assert_eq!(ahead_s(100, 101, 161), -60);
    }

    #[test]
    fn an_authorizer_is_ours_also_by_an_alias() {
        let function = "arn:aws:lambda:us-east-1:1:function:farebox-authorizer";
        let uri = |end: &str| format!("arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{function}{end}");
        assert!(calls(&uri("/invocations"), function));
        assert!(calls(&uri(":live/invocations"), function));
        assert!(!calls(&uri("-2/invocations"), function));
        assert!(!calls("arn:aws:lambda:other", function));
    }

    #[test]
    fn identity_sources_are_a_list_with_commas() {
        assert_eq!(
            sources("method.request.header.A, context.x"),
            ["method.request.header.A", "context.x"]
        );
        assert!(sources("").is_empty());
    }

    #[test]
    fn the_grace_is_that_of_the_newest_invoice_of_a_billing_period() {
        let invoice =
            |id: &str, reason: &str, announced: Option<i64>, finalized: Option<i64>| farebox_stripe::InvoiceTimes {
                id: id.to_owned(),
                billing_reason: Some(reason.to_owned()),
                created: 1_000,
                automatically_finalizes_at: announced,
                finalized_at: finalized,
            };
        let first = invoice("in_3", "subscription_create", None, Some(1_000));
        let draft = invoice("in_2", "subscription_cycle", Some(4_600), None);
        let done = invoice("in_1", "subscription_cycle", None, Some(87_400));
        let found = grace(vec![first.clone(), draft, done.clone()]).unwrap();
        assert_eq!(
            (found.invoice.as_str(), found.seconds, found.is_announced),
            ("in_2", 3_600, true)
        );
        let found = grace(vec![first.clone(), done]).unwrap();
        assert_eq!((found.seconds, found.is_announced), (86_400, false));
        assert!(grace(vec![first]).is_none());
    }
}
