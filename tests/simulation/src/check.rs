//! The audit at the end: nothing is under way any more, and everything must agree to the unit.

use std::collections::BTreeMap;

use farebox_core::{
    ledger::RowState,
    tiers::{AtQuota, DEFAULT_METER, Overrides},
};
use serde_json::Value;

use crate::{
    audit::{Audit, Call, Verdict},
    run::{Run, Sums, event_name},
    sabotage::Sabotage,
};

pub(crate) async fn check(run: &Run) {
    if let Err(error) = tables(run).await {
        run.violation(format!("the audit can't read the tables: {error}"));
    }
    if let Err(error) = quotas(run).await {
        run.violation(format!("the audit can't read the quotas: {error}"));
    }
    let ambiguous = run.ambiguous();
    let is_known = run
        .world
        .sabotage
        .is_none_or(|sabotage| sabotage != Sabotage::RetriesTheCountingWrite);
    let found = calls(&run.world.wire.state().audit, ambiguous, is_known);
    for text in found {
        run.violation(text);
    }
}

/// Counter, ledger and Stripe.
async fn tables(run: &Run) -> Result<(), farebox_aws::Error> {
    let books = &run.world.auditor;
    let (rows, _) = books.ledger.scan().await?;
    let counted = run.world.wire.state().audit.counted.clone();
    let mut found = Vec::new();
    for row in &rows {
        if row.state != RowState::Reported {
            found.push(format!(
                "row {} is stuck: {} {:?}",
                row.key,
                row.state.as_str(),
                row.outcome
            ));
        }
        let units = counted.get(&row.key).copied().unwrap_or(0);
        if row.units != units {
            found.push(format!(
                "row {} says {} units, {units} were counted",
                row.key, row.units
            ));
        }
        if let Some(report) = &row.report
            && report.value + row.credit != row.units
        {
            found.push(format!(
                "row {} reports {} of {} units",
                row.key, report.value, row.units
            ));
        }
    }
    for (key, units) in &counted {
        if !rows.iter().any(|row| row.key == *key) {
            found.push(format!("{units} units of {key} have no row"));
        }
    }
    for (customer, shard, item) in books.counters.scan().await?.items {
        let left: Vec<&String> = item.units.keys().filter(|name| name.starts_with('u')).collect();
        if !left.is_empty() {
            found.push(format!("counter item {shard} of {customer} still holds {left:?}"));
        }
    }
    if let Some(due) = books.ledger.next_due().await? {
        found.push(format!("something is left to do, due at {due}"));
    }

    // By the name that the bucket's plan has in Stripe, not by what the row says.
    let mut expected = Sums::new();
    let mut given = 0;
    for customer in books.accounts.customers().await? {
        let in_stripe = customer.stripe_customer.clone().unwrap_or_default();
        let mut taken = 0;
        for row in rows.iter().filter(|row| row.key.customer == customer.id) {
            taken += row.credit;
            let name = event_name(&customer, row.key.bucket, &row.key.meter);
            let units = counted.get(&row.key).copied().unwrap_or(0) - row.credit.min(row.units);
            if units > 0 {
                *expected.entry((in_stripe.clone(), name)).or_insert(0) += units;
            }
        }
        let balance = books.ledger.balance(&customer.id, DEFAULT_METER).await?;
        if balance.taken != taken || taken > balance.granted {
            found.push(format!(
                "{taken} units were taken off reports of {}: {balance:?}",
                customer.id
            ));
        }
        given += taken;
    }
    let sums = in_stripe(&run.world.wire.stand_in().snapshot());
    if sums != expected {
        found.push(format!("Stripe has {sums:?}, what was counted is {expected:?}"));
    }
    {
        let mut state = run.world.wire.state();
        state.audit.reported = sums.values().sum();
        state.audit.given = given;
    }
    for text in found {
        run.violation(text);
    }
    Ok(())
}

/// What Stripe counted, by customer and name.
fn in_stripe(snapshot: &Value) -> Sums {
    let mut sums = Sums::new();
    for customer in snapshot["customers"].as_array().into_iter().flatten() {
        let id = customer["id"].as_str().unwrap_or_default();
        for (name, total) in customer["meters"].as_object().into_iter().flatten() {
            if let Some(total @ 1..) = total.as_u64() {
                sums.insert((id.to_owned(), name.clone()), total);
            }
        }
    }
    sums
}

/// Hard quotas and spend caps, summed over a customer's counter items.
async fn quotas(run: &Run) -> Result<(), farebox_aws::Error> {
    let books = &run.world.auditor;
    let mut used: BTreeMap<(String, String), u64> = BTreeMap::new();
    for ((key, name), units) in &run.world.wire.state().audit.quotas {
        let customer = key.split('#').next().unwrap_or_default();
        *used.entry((customer.to_owned(), name.clone())).or_insert(0) += units;
    }
    for customer in books.accounts.customers().await? {
        let given = run
            .subjects()
            .iter()
            .find(|subject| subject.id == customer.id)
            .map_or(0, |subject| subject.given);
        for phase in &customer.phases {
            let terms = books
                .control()
                .terms_of(phase.catalog, &phase.tier, &Overrides::default())
                .await?;
            let included = (terms.at_quota == AtQuota::Block)
                .then(|| terms.included_units(DEFAULT_METER))
                .flatten();
            let Some(hard) = included
                .into_iter()
                .chain(terms.cap_units.get(DEFAULT_METER).copied())
                .min()
            else {
                continue;
            };
            let of_plan = |(known, name): &(String, String)| {
                *known == customer.id.as_str() && name.ends_with(&format!(".{}", phase.plan))
            };
            for ((_, name), units) in used.iter().filter(|(key, _)| of_plan(key)) {
                if *units > hard + given {
                    run.violation(format!(
                        "{name} of {} holds {units} units, {hard} are the most",
                        customer.id
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Together: what was let through is counted but for what was said to be uncounted, and nothing else is counted but what nobody knows.
fn sums(audit: &Audit) -> Option<String> {
    let counted: u64 = audit.counted.values().sum();
    let answered = |wanted: fn(&Verdict) -> bool| audit.units(|call| call.verdict.as_ref().is_some_and(wanted));
    let admitted = answered(|verdict| matches!(verdict, Verdict::Admitted | Verdict::Uncounted));
    let uncounted = answered(|verdict| *verdict == Verdict::Uncounted);
    let doubted = audit.units(|call| match &call.verdict {
        Some(Verdict::Denied(code)) => code == "unavailable" && call.unknown > 0,
        verdict => verdict.is_none(),
    });
    let is_right = counted + uncounted >= admitted && counted <= admitted + doubted;
    (!is_right).then(|| {
        format!("{counted} units counted, {admitted} admitted, {uncounted} of them uncounted, {doubted} more in doubt")
    })
}

/// Every request by itself: what was answered and what was counted.
fn calls(audit: &Audit, ambiguous: u64, is_known: bool) -> Vec<String> {
    let mut found: Vec<String> = sums(audit).into_iter().collect();
    let mut unknown = 0;
    for (id, call) in audit.calls.iter().enumerate() {
        let Call {
            verdict,
            commits,
            writes,
            answered,
            unknown: doubts,
            ..
        } = call;
        let is_right = match verdict {
            Some(Verdict::Admitted) => *commits == 1,
            // Nobody knows, or it was certainly not counted; in both cases the table did not answer.
            Some(Verdict::Uncounted) => *commits <= u64::from(*doubts > 0) && answered < writes,
            Some(Verdict::Denied(code)) if code == "unavailable" => *commits <= u64::from(*doubts > 0),
            Some(Verdict::Denied(_) | Verdict::Unauthorized) => *commits == 0,
            None => *commits <= 1,
        };
        if !is_right {
            found.push(format!("request {id} was counted {commits} times: {call:?}"));
        }
        if verdict.is_some() {
            unknown += doubts;
        }
    }
    // A killed environment may have said so before it died.
    let killed = audit.calls.iter().filter(|call| call.verdict.is_none()).count() as u64;
    if is_known && (ambiguous < unknown || ambiguous > unknown + killed) {
        found.push(format!(
            "{unknown} writes were of unknown outcome, the metric says {ambiguous}"
        ));
    }
    found
}
