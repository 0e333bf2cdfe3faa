//! What is wrong with what was seen. Nothing here asks anybody anything.

use std::collections::{BTreeMap, BTreeSet};

use farebox_stripe::{API_VERSION, Area};
use serde::{Deserialize, Serialize};

use super::facts::{
    Authorizer, Catalog, Endpoint, Facts, HttpApi, Method, Queue, RestApi, SecretKind, Stripe, Table, TableKind,
};
use crate::{show::count, stack::Stack};

/// How a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// Calls are not counted, not limited, not billed or wrongly refused.
    Error,
    /// They will be if something else happens, or it costs more than it need.
    Warning,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    /// Names the check, for programs.
    pub(crate) check: &'static str,
    pub(crate) what: String,
    /// Why it costs money, or what breaks.
    pub(crate) why: String,
    /// A command or a setting.
    pub(crate) fix: String,
}

/// A clock this far off is worth a word, seconds.
const CLOCK_WARNING_S: i64 = 2;
/// With a clock this far off buckets and windows are wrong, seconds. AWS refuses signatures from 300 on.
const CLOCK_ERROR_S: i64 = 60;
/// An invoice should stay a draft for so long: time to mend what keeps usage from being reported.
const GRACE_S: i64 = 24 * 3_600;
/// How long API Gateway keeps an authorizer's answer unless told otherwise:
/// <https://docs.aws.amazon.com/apigateway/latest/api/API_Authorizer.html>.
const TTL_DEFAULT_S: u64 = 300;
/// Lambda's advice for queues: <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html>.
const VISIBILITY_TIMEOUTS: u64 = 6;
/// What fewer, fuller invocations need.
const USAGE_BATCH: u64 = 10_000;
const USAGE_WINDOW_S: u64 = 60;
/// Names in a sentence; the rest are counted.
const NAMED_MAX: usize = 5;

/// Every finding, the worst first.
pub(crate) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    stack(facts, &mut found);
    attached(facts, &mut found);
    for api in facts.rest_apis.iter().flatten() {
        rest_api(api, facts.stack.as_ref(), &mut found);
    }
    for api in facts.http_apis.iter().flatten() {
        http_api(api, &mut found);
    }
    for table in &facts.tables {
        self::table(table, &mut found);
    }
    for queue in &facts.queues {
        self::queue(queue, facts, &mut found);
    }
    functions(facts, &mut found);
    mappings(facts, &mut found);
    schedules(facts, &mut found);
    secrets(facts, &mut found);
    alarms(facts, &mut found);
    clocks(facts, &mut found);
    if let Some(stripe) = &facts.stripe {
        key(stripe, &mut found);
        endpoints(stripe, facts.stack.as_ref(), &mut found);
        grace(stripe, &mut found);
    }
    if let Some(catalog) = &facts.catalog {
        self::catalog(catalog, &mut found);
    }
    for unread in &facts.unread {
        found.push(warning(
            "unread",
            format!("{} could not be read: {}", capital(&unread.what), unread.cause),
            "What can't be seen can't be checked.",
            unread.fix.clone(),
        ));
    }
    found.sort_by_key(|finding| finding.severity);
    found
}

/// What can't be found out from here, or is no trouble yet.
pub(crate) fn notes(facts: &Facts) -> Vec<String> {
    let mut notes = facts.notes.clone();
    let is_new = |alarm: &&super::facts::Alarm| alarm.state_value == "INSUFFICIENT_DATA";
    let new: Vec<&str> = facts
        .alarms
        .iter()
        .flat_map(BTreeMap::values)
        .filter(is_new)
        .map(|alarm| alarm.alarm_name.as_str())
        .collect();
    if !new.is_empty() {
        notes.push(format!(
            "{} without data yet, as after a deployment: {}",
            count(new.len(), "alarm"),
            names(new)
        ));
    }
    if let Some(stripe) = &facts.stripe {
        if stripe.grace.is_none() {
            notes.push(
                "How long invoices stay drafts can't be read before there is one for a billing period; it should be 24 h or more: \
                 https://dashboard.stripe.com/settings/billing/invoice"
                    .to_owned(),
            );
        }
        if stripe.is_restricted && !stripe.is_key_unknown {
            let written: Vec<&str> = Area::ALL
                .into_iter()
                .filter(|area| area.is_written())
                .map(Area::name)
                .collect();
            notes.push(format!(
                "That the key may write can't be tried without writing; it must be allowed to for {}",
                written.join(", ")
            ));
        }
    }
    notes
}

fn error(check: &'static str, what: impl Into<String>, why: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding {
        severity: Severity::Error,
        check,
        what: what.into(),
        why: why.into(),
        fix: fix.into(),
    }
}

fn warning(check: &'static str, what: impl Into<String>, why: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding {
        severity: Severity::Warning,
        ..error(check, what, why, fix)
    }
}

/// `a, b, c and 4 more`.
fn names<'a>(all: impl IntoIterator<Item = &'a str>) -> String {
    let all: Vec<&str> = all.into_iter().collect();
    match all.len().checked_sub(NAMED_MAX) {
        None | Some(0) => all.join(", "),
        Some(more) => format!("{} and {more} more", all[..NAMED_MAX].join(", ")),
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// How what the template makes is made again.
const REDEPLOY: &str = "farebox deploy, which sets it as template.yaml says";

fn stack(facts: &Facts, found: &mut Vec<Finding>) {
    let Some(stack) = &facts.stack else { return };
    let is_settled = stack.status.ends_with("_COMPLETE") && !stack.status.contains("ROLLBACK");
    if !is_settled {
        found.push(warning(
            "stack",
            format!("Stack {} is in {}", stack.name, stack.status),
            "What runs may be half of an old and half of a new version.",
            format!(
                "aws cloudformation describe-stack-events --stack-name {}, then farebox deploy",
                stack.name
            ),
        ));
    }
}

// ---- APIs

fn attached(facts: &Facts, found: &mut Vec<Finding>) {
    let (Some(rest), Some(http)) = (&facts.rest_apis, &facts.http_apis) else {
        return;
    };
    if rest.is_empty() && http.is_empty() {
        found.push(error(
            "attached",
            "The authorizer is attached to no API of this region",
            "No call is counted, limited or billed.",
            "attach it as infra/snippets shows, or deploy with CreateSampleApi=true",
        ));
    }
}

fn rest_api(api: &RestApi, stack: Option<&Stack>, found: &mut Vec<Finding>) {
    let place = format!("{} ({})", api.name, api.id);
    for authorizer in &api.authorizers {
        let update = |change: &str| {
            format!(
                "aws apigateway update-authorizer --rest-api-id {} --authorizer-id {} --patch-operations {change}, then \
                 deploy the API: aws apigateway create-deployment --rest-api-id {} --stage-name STAGE",
                api.id, authorizer.id, api.id
            )
        };
        let ttl = update("op=replace,path=/authorizerResultTtlInSeconds,value=0");
        // With a TTL of 0 any source that every request has will do.
        let source = update("op=replace,path=/identitySource,value=context.identity.sourceIp");
        self::authorizer(&place, authorizer, ttl, source, found);
    }
    routes(&place, &api.authorizers, &api.methods, found);
    stages(&place, api, found);
    gateway_responses(&place, api, is_set(stack, "ForbiddenStatus403"), found);
    forbidden(&place, api, is_set(stack, "ForbiddenStatus403"), found);
}

fn http_api(api: &HttpApi, found: &mut Vec<Finding>) {
    let place = format!("{} ({})", api.name, api.id);
    for authorizer in &api.authorizers {
        let update = |change: &str| {
            format!(
                "aws apigatewayv2 update-authorizer --api-id {} --authorizer-id {} {change}",
                api.id, authorizer.id
            )
        };
        let ttl = update("--authorizer-result-ttl-in-seconds 0");
        let source = update("--identity-source '$context.identity.sourceIp'");
        self::authorizer(&place, authorizer, ttl, source, found);
    }
    routes(&place, &api.authorizers, &api.methods, found);
}

fn is_set(stack: Option<&Stack>, parameter: &str) -> bool {
    stack.is_some_and(|stack| stack.parameters.get(parameter).is_some_and(|value| value == "true"))
}

fn authorizer(place: &str, authorizer: &Authorizer, ttl_fix: String, source_fix: String, found: &mut Vec<Finding>) {
    let name = &authorizer.name;
    match authorizer.ttl_s {
        Some(0) => {}
        ttl => {
            let kept = ttl.unwrap_or(TTL_DEFAULT_S);
            found.push(error(
                "authorizer-ttl",
                format!("{place}: API Gateway keeps the answers of authorizer {name} for {kept} s"),
                "A kept answer is a call that is neither counted nor limited nor billed.",
                ttl_fix,
            ));
        }
    }
    if authorizer.kind != "REQUEST" {
        found.push(error(
            "authorizer-kind",
            format!("{place}: authorizer {name} is of type {}", authorizer.kind),
            "Such an authorizer is told neither method nor path, so every call is refused.",
            "make one of type REQUEST, as infra/snippets shows",
        ));
    }
    // What every request has is no condition.
    let is_condition = |source: &&String| !source.trim_start_matches('$').starts_with("context.");
    let conditions: Vec<&str> = authorizer
        .identity_sources
        .iter()
        .filter(is_condition)
        .map(String::as_str)
        .collect();
    if !conditions.is_empty() {
        found.push(warning(
            "identity-source",
            format!("{place}: authorizer {name} demands {}", names(conditions)),
            "A call without one of them is refused before the authorizer is asked; a key may come in x-api-key or in \
             Authorization, so paying customers are turned away.",
            source_fix,
        ));
    }
}

/// Routes that the authorizer is not asked for, on an API where it is attached. Preflights carry no key.
fn routes(place: &str, ours: &[Authorizer], methods: &[Method], found: &mut Vec<Finding>) {
    let is_ours = |method: &&Method| ours.iter().any(|one| method.authorizer.as_ref() == Some(&one.id));
    let (metered, open): (Vec<&Method>, Vec<&Method>) = methods
        .iter()
        .filter(|method| !method.route.starts_with("OPTIONS "))
        .partition(is_ours);
    if metered.is_empty() && !methods.is_empty() {
        found.push(error(
            "routes",
            format!("{place}: no route asks the authorizer"),
            "No call of this API is counted, limited or billed.",
            "set the authorizer on its routes, as infra/snippets shows, and deploy the API",
        ));
    } else if !open.is_empty() {
        let routes = names(open.iter().map(|method| method.route.as_str()));
        found.push(warning(
            "routes",
            format!(
                "{place}: {} without the authorizer: {routes}",
                count(open.len(), "route")
            ),
            "Calls of these are neither counted nor limited nor billed, unless that is meant.",
            "set the authorizer on them, as infra/snippets shows, and deploy the API",
        ));
    }
}

fn stages(place: &str, api: &RestApi, found: &mut Vec<Finding>) {
    let guarded: BTreeSet<&str> = api
        .methods
        .iter()
        .filter(|method| method.authorizer.is_some())
        .map(|method| method.route.as_str())
        .collect();
    for stage in &api.stages {
        let open = stage.open_routes.iter().flatten().map(String::as_str);
        let open: Vec<&str> = open.filter(|route| guarded.contains(route)).collect();
        if !open.is_empty() {
            found.push(error(
                "stage",
                format!(
                    "{place}: stage {} still serves without the authorizer: {}",
                    stage.name,
                    names(open)
                ),
                "The authorizer was set after the stage's deployment; until the next one these calls are not counted.",
                format!(
                    "aws apigateway create-deployment --rest-api-id {} --stage-name {}",
                    api.id, stage.name
                ),
            ));
        }
    }
}

/// What the API should answer, which the local gateway renders as well.
#[derive(Deserialize)]
struct Expected {
    #[serde(rename = "statusCode")]
    status: u16,
    headers: BTreeMap<String, String>,
}

fn expected() -> BTreeMap<String, Expected> {
    serde_json::from_str(include_str!("../../../gateway-responses.json")).unwrap_or_default()
}

fn gateway_responses(place: &str, api: &RestApi, forbids: bool, found: &mut Vec<Finding>) {
    let why = |kind: &str| match kind {
        "ACCESS_DENIED" => {
            "Whoever is over a limit is told 403 instead of 429 and not when to come back; clients then give up or try at once."
        }
        "INVALID_API_KEY" => {
            "A route outside of the tier is answered with a sentence that names neither tier nor portal."
        }
        _ => "A missing or wrong key is answered with a body that is no help.",
    };
    let fix = |kind: &str| {
        format!(
            "set {kind} as infra/gateway-responses.json says (x-amazon-apigateway-gateway-responses in infra/snippets), and \
             deploy the API"
        )
    };
    for (kind, expected) in expected() {
        if kind == "INVALID_API_KEY" && !forbids {
            continue;
        }
        let severity = if kind == "ACCESS_DENIED" {
            Severity::Error
        } else {
            Severity::Warning
        };
        let Some(response) = api.gateway_responses.get(&kind) else {
            found.push(Finding {
                severity,
                ..error(
                    "gateway-response",
                    format!("{place}: the gateway response {kind} is API Gateway's own"),
                    why(&kind),
                    fix(&kind),
                )
            });
            continue;
        };
        let status = response.status.as_deref().unwrap_or("none");
        if status != expected.status.to_string() {
            found.push(Finding {
                severity,
                ..error(
                    "gateway-response",
                    format!(
                        "{place}: {kind} is answered with {status} instead of {}",
                        expected.status
                    ),
                    why(&kind),
                    fix(&kind),
                )
            });
        }
        // API Gateway sets the content type from the template's.
        let wrong: Vec<&str> = expected
            .headers
            .iter()
            .filter(|(name, from)| *name != "Content-Type" && response.headers.get(*name) != Some(from))
            .map(|(name, _)| name.as_str())
            .collect();
        if !wrong.is_empty() {
            found.push(warning(
                "gateway-response",
                format!("{place}: {kind} lacks or maps otherwise {}", names(wrong)),
                "Clients don't learn their limits and when to come back.",
                fix(&kind),
            ));
        }
        if !response.has_json_body {
            found.push(warning(
                "gateway-response",
                format!("{place}: {kind} has no body for application/json"),
                "Clients are not told the code and the sentence that say what to do.",
                fix(&kind),
            ));
        }
    }
}

/// The pieces that a 403 for a route outside of the tier needs.
fn forbidden(place: &str, api: &RestApi, forbids: bool, found: &mut Vec<Finding>) {
    let with_key: Vec<&str> = api
        .methods
        .iter()
        .filter(|method| {
            method.needs_key
                && api
                    .authorizers
                    .iter()
                    .any(|one| method.authorizer.as_ref() == Some(&one.id))
        })
        .map(|method| method.route.as_str())
        .collect();
    if !forbids {
        if !with_key.is_empty() {
            found.push(error(
                "forbidden-403",
                format!("{place} demands an API key of API Gateway's for {}", names(with_key)),
                "With ForbiddenStatus403=false the authorizer names none: every call is refused.",
                "take apiKeyRequired away from these routes, or deploy with ForbiddenStatus403=true",
            ));
        }
        return;
    }
    if !api.takes_key_from_authorizer {
        found.push(error(
            "forbidden-403",
            format!("{place} takes its API key from the caller"),
            "ForbiddenStatus403 needs it from the authorizer; so a route outside of the tier is not refused with 403.",
            format!(
                "aws apigateway update-rest-api --rest-api-id {} --patch-operations op=replace,path=/apiKeySource,value=AUTHORIZER",
                api.id
            ),
        ));
    }
    let without: Vec<&str> = api
        .methods
        .iter()
        .filter(|method| {
            !method.needs_key
                && api
                    .authorizers
                    .iter()
                    .any(|one| method.authorizer.as_ref() == Some(&one.id))
        })
        .map(|method| method.route.as_str())
        .collect();
    if !without.is_empty() {
        found.push(error(
            "forbidden-403",
            format!("{place} demands no API key for {}", names(without)),
            "The authorizer says no by naming a key that does not exist; where none is demanded, calls outside of the tier are \
             let through unpaid.",
            "set apiKeyRequired on these routes, and deploy the API",
        ));
    }
    let with_plan = api.stages_with_key.as_deref().unwrap_or_default();
    let without: Vec<&str> = api
        .stages
        .iter()
        .map(|stage| stage.name.as_str())
        .filter(|stage| !with_plan.iter().any(|one| one == stage))
        .collect();
    if !without.is_empty() {
        found.push(error(
            "forbidden-403",
            format!(
                "{place}: no usage plan with the key of the output GatewayKeyId has stage {}",
                names(without)
            ),
            "Every call there is refused with 403.",
            "add the stage and the key to a usage plan without limits",
        ));
    }
}

// ---- Tables, queues, functions

fn table(table: &Table, found: &mut Vec<Finding>) {
    let name = &table.name;
    let Some(settings) = &table.settings else {
        found.push(error(
            "table",
            format!("There is no table {name}"),
            "Calls can't be counted, and those of tiers that block are refused.",
            "restore it from a backup or from the newest second of its point-in-time recovery; never deploy an empty one over it",
        ));
        return;
    };
    let (key, indexes): (&str, &[&str]) = match table.kind {
        TableKind::Accounts => ("pk S, sk S", &[]),
        TableKind::Counters => ("pk S", &[]),
        TableKind::Ledger => ("pk S, sk N", &["work: work S, due N"]),
    };
    let lacks = indexes
        .iter()
        .find(|index| !settings.indexes.iter().any(|one| one == **index));
    if settings.key != key || lacks.is_some() {
        let lacks = lacks.map_or(String::new(), |index| format!(", and has no index {index}"));
        found.push(error(
            "table",
            format!("Table {name} has the key {} instead of {key}{lacks}", settings.key),
            "It is another table than the functions work on: every call fails.",
            "name the right one with --stack or --accounts-table, --counters-table, --ledger-table",
        ));
    }
    let update = |change: &str| format!("aws dynamodb update-table --table-name {name} {change}");
    if !settings.is_on_demand {
        found.push(warning(
            "table",
            format!("Table {name} has provisioned capacity"),
            "Beyond it writes are throttled, and calls that can't be counted are refused; idle capacity is paid for.",
            update("--billing-mode PAY_PER_REQUEST"),
        ));
    }
    let Some(safety) = &table.safety else { return };
    if !safety.is_deletion_protected {
        found.push(error(
            "table",
            format!("Table {name} can be deleted by one call"),
            "With it goes what is counted and not billed yet.",
            update("--deletion-protection-enabled"),
        ));
    }
    if !safety.has_point_in_time_recovery {
        found.push(error(
            "table",
            format!("Table {name} has no point-in-time recovery"),
            "What is lost or overwritten can't be brought back, nor billed.",
            format!(
                "aws dynamodb update-continuous-backups --table-name {name} --point-in-time-recovery-specification \
                 PointInTimeRecoveryEnabled=true"
            ),
        ));
    }
    match (table.kind, safety.expires_by.as_deref()) {
        (TableKind::Accounts, Some("ttl")) | (TableKind::Counters | TableKind::Ledger, None) => {}
        (TableKind::Accounts, other) => found.push(warning(
            "table",
            format!("Items of table {name} expire by {} instead of ttl", other.unwrap_or("no attribute")),
            "Marks of events and deliveries stay for ever, and their storage is paid for.",
            format!(
                "aws dynamodb update-time-to-live --table-name {name} --time-to-live-specification Enabled=true,AttributeName=ttl"
            ),
        )),
        (_, Some(attribute)) => found.push(error(
            "table",
            format!("Items of table {name} expire by {attribute}"),
            "It holds counts: what expires is never billed.",
            format!(
                "aws dynamodb update-time-to-live --table-name {name} --time-to-live-specification \
                 Enabled=false,AttributeName={attribute}"
            ),
        )),
    }
}

/// The name at the end of a queue's URL.
fn queue_name(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

fn queue(queue: &Queue, facts: &Facts, found: &mut Vec<Finding>) {
    let part = queue.part;
    let Some(queue) = &queue.settings else {
        found.push(error(
            "queue",
            format!("There is no queue {part}"),
            late(part),
            REDEPLOY,
        ));
        return;
    };
    let name = queue_name(&queue.url);
    let reader = if part == "usage" { "consumer" } else { "notifier" };
    if queue.dead_letters.is_none() {
        found.push(error(
            "queue",
            format!("Queue {name} has no dead-letter queue"),
            "A message that can't be read comes again until it expires, and costs an invocation each time.",
            REDEPLOY,
        ));
    }
    if queue.dead_letter_depth > 0 {
        let what = if part == "usage" {
            "Somebody sends what is no usage; the counters have the units, so nothing is lost, but alerts may be late."
        } else {
            "Customers, or you, were not told of a threshold, a payment that failed or a parked row."
        };
        found.push(warning(
            "dead-letters",
            format!(
                "{} of queue {name} can't be delivered",
                count_u64(queue.dead_letter_depth, "message")
            ),
            what,
            format!("mend the cause, then: farebox events replay --queue {part}"),
        ));
    }
    let function = facts.functions.iter().find(|function| function.part == reader);
    let Some(settings) = function.and_then(|function| function.settings.as_ref()) else {
        return;
    };
    let window = mapping(facts, part, reader).and_then(|one| one.maximum_batching_window_in_seconds);
    let least = VISIBILITY_TIMEOUTS * settings.timeout + window.unwrap_or(0);
    if queue.visibility_s < least {
        found.push(warning(
            "queue",
            format!(
                "Queue {name} shows a message again after {} s; {reader} may take {} s",
                queue.visibility_s, settings.timeout
            ),
            "A message that is still being worked on is taken once more: invocations and calls are paid for twice.",
            format!(
                "{REDEPLOY}, or: aws sqs set-queue-attributes --queue-url {} --attributes VisibilityTimeout={least}",
                queue.url
            ),
        ));
    }
}

fn count_u64(n: u64, noun: &str) -> String {
    count(usize::try_from(n).unwrap_or(usize::MAX), noun)
}

fn functions(facts: &Facts, found: &mut Vec<Finding>) {
    for function in &facts.functions {
        let name = &function.name;
        let Some(settings) = &function.settings else {
            found.push(error(
                "function",
                format!("There is no function {name}"),
                loss(function.part),
                REDEPLOY,
            ));
            continue;
        };
        let is_broken = settings.state.as_deref().is_some_and(|state| state == "Failed")
            || settings
                .last_update_status
                .as_deref()
                .is_some_and(|status| status == "Failed");
        if is_broken {
            found.push(error(
                "function",
                format!("Function {name} could not be made ready, or its last change failed"),
                loss(function.part),
                format!("aws lambda get-function-configuration --function-name {name} says why; then farebox deploy"),
            ));
        }
    }
}

/// What is lost while a function does not run.
fn loss(part: &str) -> &'static str {
    match part {
        "authorizer" => "Every call is refused.",
        "consumer" => "Nothing is sealed or reported to Stripe: after 35 days usage can't be billed any more.",
        "webhook" => "Subscriptions, payments and cancellations at Stripe change nothing here, and invoices wait.",
        _ => "Nobody is told of thresholds, payments that failed and parked rows.",
    }
}

fn mapping<'a>(facts: &'a Facts, queue: &str, function: &str) -> Option<&'a super::facts::Mapping> {
    let queue = facts.queues.iter().find(|one| one.part == queue)?;
    let queue = queue_name(&queue.settings.as_ref()?.url);
    let function = &facts.functions.iter().find(|one| one.part == function)?.name;
    facts.mappings.iter().flatten().find(|mapping| {
        let ends = |arn: &Option<String>, name: &str| {
            arn.as_deref()
                .is_some_and(|arn| arn.split(':').any(|part| part == name))
        };
        ends(&mapping.event_source_arn, queue) && ends(&mapping.function_arn, function)
    })
}

fn mappings(facts: &Facts, found: &mut Vec<Finding>) {
    if facts.mappings.is_none() {
        return;
    }
    for (queue, function) in [("usage", "consumer"), ("alerts", "notifier")] {
        let Some(mapping) = mapping(facts, queue, function) else {
            found.push(error(
                "mapping",
                format!("Nothing brings the messages of the {queue} queue to the {function}"),
                late(queue),
                REDEPLOY,
            ));
            continue;
        };
        let update = |change: &str| format!("aws lambda update-event-source-mapping --uuid {} {change}", mapping.id);
        if !matches!(
            mapping.state.as_deref(),
            Some("Enabled" | "Enabling" | "Updating" | "Creating")
        ) {
            found.push(error(
                "mapping",
                format!(
                    "What brings the messages of the {queue} queue to the {function} is {}",
                    mapping.state.as_deref().unwrap_or("in no known state")
                ),
                late(queue),
                update("--enabled"),
            ));
        }
        if !mapping
            .function_response_types
            .iter()
            .any(|kind| kind == "ReportBatchItemFailures")
        {
            found.push(warning(
                "mapping",
                format!("The {function} can't hand back single messages of the {queue} queue"),
                "One bad message takes its whole batch into the dead-letter queue.",
                update("--function-response-types ReportBatchItemFailures"),
            ));
        }
        let (batch, window) = (
            mapping.batch_size.unwrap_or(10),
            mapping.maximum_batching_window_in_seconds.unwrap_or(0),
        );
        if queue == "usage" && (batch < USAGE_BATCH || window < USAGE_WINDOW_S) {
            found.push(warning(
                "mapping",
                format!("The consumer is given at most {batch} usage messages, gathered for {window} s"),
                "Fewer messages at a time are more invocations and more writes to the ledger.",
                update(&format!(
                    "--batch-size {USAGE_BATCH} --maximum-batching-window-in-seconds {USAGE_WINDOW_S}"
                )),
            ));
        }
    }
}

fn late(queue: &str) -> &'static str {
    match queue {
        "usage" => "Usage is found by the daily scan only, and no threshold is noticed.",
        _ => "Nobody is told of thresholds, payments that failed and parked rows.",
    }
}

fn schedules(facts: &Facts, found: &mut Vec<Finding>) {
    for schedule in &facts.schedules {
        if schedule.state.as_deref() == Some("ENABLED") {
            continue;
        }
        let state = match &schedule.state {
            Some(state) => format!("Schedule {} is {state}", schedule.name),
            None => format!("There is no schedule {}", schedule.name),
        };
        let why = match schedule.part {
            "tick" => "Nothing is sealed or reported to Stripe: after 35 days usage can't be billed any more.",
            _ => "Buckets whose every message was lost are never billed.",
        };
        found.push(error("schedule", state, why, REDEPLOY));
    }
}

fn secrets(facts: &Facts, found: &mut Vec<Finding>) {
    for secret in &facts.secrets {
        let arn = &secret.arn;
        match (secret.kind, secret.versions) {
            (SecretKind::StripeKey, None) => found.push(error(
                "secret",
                format!("There is no secret {arn}, or it is about to be deleted"),
                "The consumer and the webhook can't start: nothing is reported to Stripe.",
                "aws secretsmanager restore-secret --secret-id ARN, or make one and deploy with its ARN as StripeKeySecretArn",
            )),
            (SecretKind::Webhook, None) => found.push(error(
                "secret",
                format!("There is no secret {arn}, or it is about to be deleted"),
                "The webhook can't start: subscriptions and payments at Stripe change nothing here.",
                "aws secretsmanager restore-secret --secret-id ARN, or farebox deploy",
            )),
            (SecretKind::Webhook, Some(0 | 1)) => found.push(error(
                "secret",
                "The webhook's secret is still the random one of the deployment",
                "Every event of Stripe's is refused: subscriptions and payments change nothing here.",
                format!(
                    "put the signing secrets of both endpoints there: aws secretsmanager put-secret-value --secret-id {arn} \
                     --secret-string file:///dev/stdin"
                ),
            )),
            _ => {}
        }
    }
}

fn alarms(facts: &Facts, found: &mut Vec<Finding>) {
    let Some(stack) = &facts.stack else { return };
    if let Some(alarms) = &facts.alarms {
        let expected = stack
            .resources
            .get("AWS::CloudWatch::Alarm")
            .map_or(&[][..], Vec::as_slice);
        let missing: Vec<&str> = expected
            .iter()
            .map(String::as_str)
            .filter(|name| !alarms.contains_key(*name))
            .collect();
        if !missing.is_empty() {
            found.push(warning(
                "alarms",
                format!("{} missing: {}", count(missing.len(), "alarm"), names(missing)),
                "Nobody is told when usage is not counted, not reported or not delivered.",
                REDEPLOY,
            ));
        }
        for alarm in alarms.values().filter(|alarm| expected.contains(&alarm.alarm_name)) {
            let name = &alarm.alarm_name;
            if !alarm.actions_enabled || alarm.alarm_actions.is_empty() {
                found.push(warning(
                    "alarms",
                    format!("Alarm {name} tells nobody"),
                    "What it watches goes unnoticed.",
                    format!("aws cloudwatch enable-alarm-actions --alarm-names {name}, or farebox deploy"),
                ));
            }
            if alarm.state_value == "ALARM" {
                found.push(warning(
                    "alarms",
                    format!("Alarm {name} rings: {}", alarm.state_reason),
                    "See its description.",
                    format!("aws cloudwatch describe-alarms --alarm-names {name}"),
                ));
            }
        }
    }
    if let Some(subscriptions) = &facts.subscriptions {
        if subscriptions.is_empty() {
            found.push(warning(
                "operator",
                "Nobody has subscribed to the operator's topic",
                "Alarms and what only an operator can settle are told to nobody.",
                "deploy with OperatorEmail=you@example.com, or subscribe to the output OperatorTopicArn",
            ));
        }
        for waiting in subscriptions.iter().filter(|subscription| !subscription.is_confirmed) {
            found.push(warning(
                "operator",
                format!(
                    "{} has not confirmed the subscription to the operator's topic",
                    waiting.endpoint
                ),
                "Until then nothing is sent there.",
                "follow the link in the mail of AWS Notifications; it is sent again by subscribing again",
            ));
        }
    }
}

fn clocks(facts: &Facts, found: &mut Vec<Finding>) {
    for clock in &facts.clocks {
        let off = clock.ahead_s.abs();
        if off <= CLOCK_WARNING_S {
            continue;
        }
        let direction = if clock.ahead_s > 0 { "ahead of" } else { "behind" };
        found.push(Finding {
            severity: if off > CLOCK_ERROR_S { Severity::Error } else { Severity::Warning },
            ..error(
                "clock",
                format!("The clock of this machine is {off} s {direction} {}'s", clock.of),
                "What this command writes gets wrong times: periods, keys' expiry, reports. From 300 s on AWS refuses it.",
                "set the clock by the network: timedatectl set-ntp true",
            )
        });
    }
}

// ---- Stripe

fn key(stripe: &Stripe, found: &mut Vec<Finding>) {
    let from = &stripe.key_from;
    if stripe.is_key_unknown {
        found.push(error(
            "stripe-key",
            format!("Stripe does not know the key of {from} (any more)"),
            "Nothing can be reported or sold with it.",
            "put a valid restricted key there: https://dashboard.stripe.com/apikeys",
        ));
        return;
    }
    if !stripe.is_restricted {
        found.push(warning(
            "stripe-key",
            format!("The key of {from} is a secret key, not a restricted one"),
            "Whoever gets hold of it may refund, pay out and read everything.",
            "make a restricted key at https://dashboard.stripe.com/apikeys and put it there",
        ));
    }
    if stripe
        .functions_key_is_live
        .is_some_and(|is_live| is_live != stripe.is_live)
    {
        let mode = |is_live| if is_live { "live" } else { "test" };
        found.push(error(
            "stripe-key",
            format!(
                "The key of {from} is a {} key, that of the functions a {} key",
                mode(stripe.is_live),
                mode(!stripe.is_live)
            ),
            "What this command sells and what the functions report are in different worlds: nothing comes together.",
            "use keys of the same mode",
        ));
    }
    for denied in &stripe.denied {
        let permission = denied
            .permission
            .as_deref()
            .map_or(String::new(), |name| format!(" ({name})"));
        let wanted = if denied.is_written { "Write" } else { "Read" };
        found.push(error(
            "stripe-permission",
            format!("The key of {from} may not use {}{permission}", denied.area),
            "What needs it fails: selling, reporting or following subscriptions.",
            format!(
                "set {} to {wanted} for this key at https://dashboard.stripe.com/apikeys",
                denied.area
            ),
        ));
    }
}

fn endpoints(stripe: &Stripe, stack: Option<&Stack>, found: &mut Vec<Finding>) {
    let Some(url) = stack.and_then(|stack| stack.outputs.get("WebhookUrl")) else {
        return;
    };
    for (is_thin, all) in [(false, &stripe.snapshot_endpoints), (true, &stripe.thin_endpoints)] {
        let Some(all) = all else { continue };
        let wanted = wanted(is_thin);
        let (form, why) = match is_thin {
            false => (
                "snapshot",
                "Subscriptions, payments and cancellations at Stripe change nothing here, and invoices are final before all \
                 usage is in them.",
            ),
            true => (
                "thin",
                "Usage that Stripe takes and then can't count is noticed only by farebox reconcile.",
            ),
        };
        let setting = format!(
            "at https://dashboard.stripe.com/workbench/webhooks: {form} events to {url}{}: {}",
            if is_thin {
                String::new()
            } else {
                format!(", API version {API_VERSION}")
            },
            wanted.join(", ")
        );
        let ours: Vec<&Endpoint> = all.iter().filter(|one| one.url == *url).collect();
        let Some(endpoint) = ours.iter().find(|one| one.is_enabled).or(ours.first()) else {
            found.push(Finding {
                severity: if is_thin { Severity::Warning } else { Severity::Error },
                ..error(
                    "stripe-endpoint",
                    format!("Stripe sends no {form} events to {url}"),
                    why,
                    format!("make an endpoint {setting}"),
                )
            });
            continue;
        };
        let id = &endpoint.id;
        if !endpoint.is_enabled {
            found.push(error(
                "stripe-endpoint",
                format!("The endpoint {id} for {form} events is disabled"),
                why,
                "enable it at https://dashboard.stripe.com/workbench/webhooks; Stripe disables what fails for days",
            ));
        }
        let has = |event: &str| endpoint.events.iter().any(|one| one == event || one == "*");
        let missing: Vec<&str> = wanted.iter().copied().filter(|event| !has(event)).collect();
        if !missing.is_empty() {
            found.push(error(
                "stripe-events",
                format!("The endpoint {id} is not sent {}", missing.join(", ")),
                why,
                format!("set it {setting}"),
            ));
        }
        let surplus = endpoint.events.iter().filter(|event| !wanted.contains(&event.as_str()));
        let surplus: Vec<&str> = surplus.map(String::as_str).collect();
        if !surplus.is_empty() {
            found.push(warning(
                "stripe-events",
                format!(
                    "The endpoint {id} is sent events that nothing looks at: {}",
                    names(surplus)
                ),
                "Each is an API call and an invocation that are paid for.",
                format!("set it {setting}"),
            ));
        }
        if !is_thin && endpoint.api_version.as_deref() != Some(API_VERSION) {
            found.push(warning(
                "stripe-version",
                format!(
                    "The endpoint {id} sends events of {}",
                    endpoint
                        .api_version
                        .as_deref()
                        .unwrap_or("the account's default version")
                ),
                "Farebox reads little of an event and fetches the rest, but is tried with its own version only.",
                format!(
                    "make another endpoint {setting}, put its secret beside the old one's, then delete the old one"
                ),
            ));
        }
    }
}

fn wanted(is_thin: bool) -> Vec<&'static str> {
    if is_thin {
        farebox_webhook::thin_events()
    } else {
        farebox_webhook::snapshot_events()
    }
}

fn grace(stripe: &Stripe, found: &mut Vec<Finding>) {
    let Some(grace) = stripe.grace.as_ref().filter(|grace| grace.seconds < GRACE_S) else {
        return;
    };
    let hours = grace.seconds / 3_600;
    let of = if grace.is_announced { "stays" } else { "was" };
    found.push(warning(
        "invoice-grace",
        format!("Invoice {} {of} a draft for {hours} h only", grace.invoice),
        "Usage that reaches Stripe later is on no invoice: an outage of that length at a month's end is not billed.",
        "set the finalization grace period to 24 h or more (up to 72 h) at https://dashboard.stripe.com/settings/billing/invoice",
    ));
}

fn catalog(catalog: &Catalog, found: &mut Vec<Finding>) {
    let Some(version) = catalog.version else {
        found.push(error(
            "catalog",
            "Nothing is sold: there is no catalog",
            "No customer can be added, and so nobody let in.",
            "farebox tiers apply tiers.yaml",
        ));
        return;
    };
    for mismatch in &catalog.mismatches {
        found.push(error(
            "catalog",
            format!("In Stripe, {mismatch}"),
            "Customers are billed another price than the one they were sold.",
            "archive that price in Stripe and take its lookup key away, then: farebox tiers apply tiers.yaml",
        ));
    }
    if !catalog.missing.is_empty() {
        let missing = names(catalog.missing.iter().map(String::as_str));
        found.push(error(
            "catalog",
            format!("Stripe lacks of catalog {version}: {missing}"),
            "Reports to a meter that is absent are refused, and what has no price is not billed.",
            "farebox tiers apply with the file that is sold; it makes what is missing",
        ));
    }
    if let Some((file, changes)) = catalog.file.as_ref().filter(|(_, changes)| !changes.is_empty()) {
        let changes = names(changes.iter().map(String::as_str));
        found.push(warning(
            "catalog",
            format!("{file} says otherwise than catalog {version}, which is sold: {changes}"),
            "Customers are sold what the catalog says, not what the file does.",
            format!("farebox tiers diff {file}, then farebox tiers apply {file}"),
        ));
    }
}
