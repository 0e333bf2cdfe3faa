//! What is wrong with what was seen. Nothing here asks anybody anything.

mod apis;
mod parts;
mod stripe;

use std::collections::BTreeMap;

use farebox_stripe::Area;
use serde::Serialize;

use super::facts::Facts;
use crate::{failure::Failure, show::count};

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
///
/// # Errors
/// If what the gateway responses should be can't be read.
pub(crate) fn findings(facts: &Facts) -> Result<Vec<Finding>, Failure> {
    let responses = apis::expected()?;
    let mut found = Vec::new();
    stack(facts, &mut found);
    apis::attached(facts, &mut found);
    for api in facts.rest_apis.iter().flatten() {
        apis::rest_api(api, &responses, facts.stack.as_ref(), &mut found);
    }
    for api in facts.http_apis.iter().flatten() {
        apis::http_api(api, &mut found);
    }
    for table in &facts.tables {
        parts::table(table, &mut found);
    }
    for queue in &facts.queues {
        parts::queue(queue, facts, &mut found);
    }
    parts::functions(facts, &mut found);
    parts::mappings(facts, &mut found);
    parts::schedules(facts, &mut found);
    parts::secrets(facts, &mut found);
    parts::alarms(facts, &mut found);
    parts::clocks(facts, &mut found);
    if let Some(stripe) = &facts.stripe {
        stripe::key(stripe, &mut found);
        stripe::endpoints(stripe, facts.stack.as_ref(), &mut found);
        stripe::grace(stripe, &mut found);
    }
    if let Some(catalog) = &facts.catalog {
        stripe::catalog(catalog, &mut found);
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
    Ok(found)
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
        if stripe.has_read_invoices && stripe.grace.is_none() {
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
