//! What a customer's webhook is told: `{type, timestamp, data}`, built from the message alone.

use farebox_core::{
    alert::{AlertMessage, Occasion, Recipient},
    time::Period,
};
use serde_json::{Value, json};

use crate::{
    config::is_link,
    words::{clip, rfc3339},
};

/// The body of the event; `None` for what customers are not told.
pub(crate) fn body(message: &AlertMessage, customer: &Recipient) -> Option<String> {
    let (kind, mut data) = event(&message.occasion)?;
    data["customer"] = json!(customer.id);
    let body = json!({ "type": kind, "timestamp": rfc3339(message.at.s()), "data": data });
    Some(body.to_string())
}

/// An event's type and its data. Both are a contract with customers: fields may be added, never changed.
fn event(occasion: &Occasion) -> Option<(&'static str, Value)> {
    match occasion {
        Occasion::QuotaThreshold {
            tier,
            meter,
            percent,
            units,
            included,
            period,
            at_quota,
        } => Some((
            "quota.threshold_reached",
            json!({
                "tier": clip(tier), "meter": clip(meter), "percent": percent, "units": units, "included": included,
                "period": times(*period), "at_quota": clip(at_quota),
            }),
        )),
        Occasion::SpendCap {
            tier,
            meter,
            percent,
            units,
            cap_units,
            cap,
            currency,
            period,
        } => Some((
            "spend_cap.threshold_reached",
            json!({
                "tier": clip(tier), "meter": clip(meter), "percent": percent, "units": units, "cap_units": cap_units,
                "cap": cap, "currency": currency, "period": times(*period),
            }),
        )),
        Occasion::PaymentFailed {
            invoice,
            amount_due,
            currency,
            attempts,
            next_attempt,
            pay_url,
            policy,
            policy_from,
        } => Some((
            "payment.failed",
            json!({
                "invoice": clip(invoice), "amount_due": amount_due, "currency": clip(currency), "attempts": attempts,
                "next_attempt": next_attempt.map(rfc3339), "pay_url": pay_url.as_deref().filter(|url| is_link(url)), "policy": clip(policy),
                "policy_from": rfc3339(*policy_from),
            }),
        )),
        Occasion::TrialEnding { tier, trial_end } => Some((
            "trial.ending",
            json!({ "tier": clip(tier), "trial_end": rfc3339(*trial_end) }),
        )),
        Occasion::KeyExpiring {
            name,
            prefix,
            last_four,
            expires,
        } => Some((
            "key.expiring",
            json!({
                "name": clip(name), "prefix": clip(prefix), "last_four": clip(last_four), "expires": rfc3339(*expires),
            }),
        )),
        Occasion::Operator { .. } => None,
    }
}

fn times(period: Period) -> Value {
    json!({ "start": rfc3339(period.start), "end": rfc3339(period.end) })
}
