//! Stripe: the key, the endpoints, how long invoices stay drafts, and what is sold there.

use farebox_stripe::API_VERSION;

use super::{Finding, GRACE_S, Severity, error, names, warning};
use crate::doctor::facts::{Catalog, Endpoint, Stripe};
use crate::stack::Stack;

pub(super) fn key(stripe: &Stripe, found: &mut Vec<Finding>) {
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

pub(super) fn endpoints(stripe: &Stripe, stack: Option<&Stack>, found: &mut Vec<Finding>) {
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
                "enable it at https://dashboard.stripe.com/workbench/webhooks, then farebox customers follow: Stripe disables what fails \
                 for days, and never sends what it would have sent meanwhile",
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

pub(super) fn grace(stripe: &Stripe, found: &mut Vec<Finding>) {
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

pub(super) fn catalog(catalog: &Catalog, found: &mut Vec<Finding>) {
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
