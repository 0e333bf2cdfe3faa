//! What the stack is made of: tables, queues, functions, schedules, secrets, alarms, and the clocks of all.

use super::{
    CLOCK_ERROR_S, CLOCK_WARNING_S, Finding, REDEPLOY, Severity, USAGE_BATCH, USAGE_WINDOW_S, VISIBILITY_TIMEOUTS,
    error, names, warning,
};
use crate::doctor::facts::{Facts, Mapping, Queue, SecretKind, Table, TableKind};
use crate::show::count;

pub(super) fn table(table: &Table, found: &mut Vec<Finding>) {
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

pub(super) fn queue(queue: &Queue, facts: &Facts, found: &mut Vec<Finding>) {
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

pub(super) fn functions(facts: &Facts, found: &mut Vec<Finding>) {
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

fn mapping<'a>(facts: &'a Facts, queue: &str, function: &str) -> Option<&'a Mapping> {
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

pub(super) fn mappings(facts: &Facts, found: &mut Vec<Finding>) {
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

pub(super) fn schedules(facts: &Facts, found: &mut Vec<Finding>) {
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

pub(super) fn secrets(facts: &Facts, found: &mut Vec<Finding>) {
    for secret in &facts.secrets {
        let arn = &secret.arn;
        match (secret.kind, secret.versions) {
            (SecretKind::StripeKey, None) => found.push(error(
                "secret",
                format!("There is no secret {arn}, or it is about to be deleted"),
                "The consumer and the webhook can't start: nothing is reported to Stripe.",
                "aws secretsmanager restore-secret --secret-id ARN, or make one and deploy with its ARN as StripeKeySecretArn",
            )),
            (SecretKind::StripeKey, Some(_)) => found.extend(secret.fault.as_ref().map(|fault| {
                error(
                    "secret",
                    format!("The secret {arn} {fault}"),
                    "The consumer and the webhook can't start: nothing is reported to Stripe.",
                    format!(
                        "put the restricted key there: aws secretsmanager put-secret-value --secret-id {arn} --secret-string \
                         file:///dev/stdin"
                    ),
                )
            })),
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

pub(super) fn alarms(facts: &Facts, found: &mut Vec<Finding>) {
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

pub(super) fn clocks(facts: &Facts, found: &mut Vec<Finding>) {
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
