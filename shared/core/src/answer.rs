//! What a decision tells the caller: one set of names and values for the gateway's responses, the back end and the headers.
//!
//! API Gateway passes an authorizer's context on as strings under keys of letters, digits and `_`
//! (<https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-lambda-authorizer-output.html>). No value
//! that a body template uses holds a quotation mark or a backslash; only the two `ratelimit` values, which go to headers, do.

use crate::{
    admission::{Denial, DenialReason, Rate, RateStanding, Standing},
    time::Timestamp,
};

/// Context entries: names and values.
pub type Context = Vec<(&'static str, String)>;

/// The context of an admitted request.
#[must_use]
pub fn admitted(standing: &Standing, cost: u64, warn_percent: u8, now: Timestamp) -> Context {
    let mut context = vec![("code", "ok".to_owned()), ("cost", cost.to_string())];
    figures(&mut context, standing, None, warn_percent, now);
    context
}

/// The context of a denied request. It always carries `retry_after`: a request that is too large for its limit may try
/// again when the billing period, and perhaps the tier, has changed.
#[must_use]
pub fn denied(denial: &Denial, standing: &Standing, warn_percent: u8, now: Timestamp) -> Context {
    let (code, message) = match &denial.reason {
        DenialReason::RateLimit(rate) => {
            let left = standing.rates.iter().find(|standing| standing.rate == *rate);
            let message = match left.map_or(0, |standing| standing.remaining) {
                0 => format!("The limit of {} is used up.", spell(rate)),
                left => format!(
                    "Of the limit of {} are {left} left, and the request takes more.",
                    spell(rate)
                ),
            };
            ("rate_limited", message)
        }
        DenialReason::QuotaExceeded { group, included } => {
            let on = group.as_ref().map(|group| format!(" on {group}")).unwrap_or_default();
            let message = match included.saturating_sub(standing.quota.used) {
                0 => format!("The {included} units{on} of this billing period are used up."),
                left => {
                    format!(
                        "Of the {included} units{on} of this billing period are {left} left, and the request takes more."
                    )
                }
            };
            ("quota_exceeded", message)
        }
        DenialReason::SpendCap => (
            "spend_cap_reached",
            "The spend cap of this billing period is reached.".to_owned(),
        ),
        DenialReason::CostTooHigh { units_max } => (
            "cost_too_high",
            format!("The request takes more than the {units_max} units that a limit holds."),
        ),
    };
    let not_before = denial.not_before.unwrap_or(standing.quota.reset);
    let mut context = refused(code, message, not_before, now);
    let rate = match &denial.reason {
        DenialReason::RateLimit(rate) => Some(rate),
        _ => None,
    };
    figures(&mut context, standing, rate, warn_percent, now);
    context
}

/// The context of a request that could not be counted and is not let through uncounted.
#[must_use]
pub fn unavailable(now: Timestamp) -> Context {
    let message = "The request could not be counted just now, and was not let through.".to_owned();
    refused("unavailable", message, now.plus_ms(1_000), now)
}

fn refused(code: &'static str, message: String, not_before: Timestamp, now: Timestamp) -> Context {
    // RFC 9110, section 10.2.3: whole seconds. Rounded up, so that a retry at that time is admitted.
    let seconds = not_before.ms_since(now).div_ceil(1_000).max(1);
    vec![
        ("code", code.to_owned()),
        ("message", message),
        ("retry_after", seconds.to_string()),
    ]
}

/// The rate and quota figures. `remaining` and `reset` speak of the limit that denied, else of the one closest to its end.
fn figures(context: &mut Context, standing: &Standing, denied_by: Option<&Rate>, warn_percent: u8, now: Timestamp) {
    let used_up = |rate: &RateStanding| {
        let limit = rate.rate.limit.units.max(1);
        u128::from(limit - rate.remaining.min(limit)) * 1_000_000 / u128::from(limit)
    };
    let closest = match denied_by {
        Some(rate) => standing.rates.iter().find(|standing| standing.rate == *rate),
        None => standing.rates.iter().max_by_key(|rate| used_up(rate)),
    };
    if let Some(rate) = closest {
        context.push(("limit", rate.rate.limit.units.to_string()));
        context.push(("remaining", rate.remaining.to_string()));
        context.push(("reset", rate.reset.ms().div_ceil(1_000).to_string()));
    }
    if !standing.rates.is_empty() {
        context.push((
            "ratelimit",
            join(standing, |rate| {
                let seconds = rate.reset.ms_since(now).div_ceil(1_000);
                format!("{};r={};t={seconds}", policy_name(&rate.rate), rate.remaining)
            }),
        ));
        context.push((
            "ratelimit_policy",
            join(standing, |rate| {
                let seconds = rate.rate.limit.window_ms.div_ceil(1_000);
                format!("{};q={};w={seconds}", policy_name(&rate.rate), rate.rate.limit.units)
            }),
        ));
    }
    let quota = &standing.quota;
    if let Some(included) = quota.included {
        context.push(("quota_limit", included.to_string()));
    }
    context.push(("quota_used", quota.used.to_string()));
    context.push(("quota_reset", quota.reset.s().to_string()));
    // Without included units every request is beyond them, and nothing comes nearer.
    let is_quota_near = quota
        .included
        .filter(|&included| included > 0)
        .is_some_and(|included| u128::from(quota.used) * 100 >= u128::from(included) * u128::from(warn_percent));
    let is_rate_near = closest.is_some_and(|rate| used_up(rate) >= u128::from(warn_percent) * 10_000);
    if is_quota_near || is_rate_near {
        context.push(("warning", "approaching".to_owned()));
    }
}

fn join(standing: &Standing, item: impl Fn(&RateStanding) -> String) -> String {
    standing.rates.iter().map(item).collect::<Vec<_>>().join(", ")
}

/// The policy's name in the `RateLimit` fields, a Structured Fields string
/// (<https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/>).
fn policy_name(rate: &Rate) -> String {
    let seconds = rate.limit.window_ms.div_ceil(1_000);
    match &rate.group {
        None => format!("\"per{seconds}s\""),
        Some(group) => format!("\"{group}-per{seconds}s\""),
    }
}

fn spell(rate: &Rate) -> String {
    let (units, seconds) = (rate.limit.units, rate.limit.window_ms.div_ceil(1_000));
    match &rate.group {
        None => format!("{units} per {seconds} s"),
        Some(group) => format!("{units} per {seconds} s on {group}"),
    }
}
