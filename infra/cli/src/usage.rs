//! `farebox usage`: what is used, by whom, and what it costs so far.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use farebox_aws::counters::key;
use farebox_core::{
    account::Customer,
    admission::{Counters, parse_bucket_attribute, quota_attribute},
    id::CustomerId,
    ledger::Row,
    tiers::{AtQuota, Terms},
    time::Period,
};
use serde::Serialize;
use serde_json::json;

use crate::{
    arguments::Usage,
    failure::{Done, Failure},
    period_of,
    reach::Reach,
    show::{Out, time},
};

pub(crate) async fn run(command: Usage, reach: &Reach, out: Out) -> Result<Done, Failure> {
    match command {
        Usage::Show { customer, period } => {
            let customer = reach.customer(&customer.0).await?;
            let period = period_of(&customer, &period, reach.now().s())?;
            show(&customer, period, reach, out).await
        }
        Usage::Top { n } => top(n, reach, out).await,
        Usage::Tail { customer, every, looks } => {
            if let Some(id) = &customer {
                reach.customer(&id.0).await?;
            }
            tail(customer.map(|id| id.0), every, looks, reach, out).await
        }
    }
}

/// Units of the present billing period by meter, under the plan that holds now.
pub(crate) async fn counted(customer: &Customer, reach: &Reach) -> Result<BTreeMap<String, u64>, Failure> {
    let terms = reach.control.terms(customer, reach.now()).await?;
    let mut items = Vec::new();
    for shard in 0..reach.control.shards(customer).await? {
        items.extend(reach.control.counters.read(&key(&customer.id, shard)).await?);
    }
    Ok(sum(customer, &terms, &items, reach.now().s()))
}

fn sum(customer: &Customer, terms: &Terms, items: &[Counters], now_s: u64) -> BTreeMap<String, u64> {
    let start = customer.cycle.period_at(now_s).start;
    let plan = &customer.phase_at(now_s).plan;
    let units = |meter: &str| {
        items
            .iter()
            .map(|item| item.units_of(&quota_attribute(start, meter, plan)))
            .sum()
    };
    terms
        .meters()
        .into_iter()
        .map(|meter| (meter.clone(), units(&meter)))
        .collect()
}

/// One meter under one plan in one billing period.
#[derive(Serialize)]
struct Line {
    plan: String,
    meter: String,
    units: u64,
    included: Option<u64>,
    granted: u64,
    amount: Option<u64>,
    shown_amount: String,
    spend_cap: Option<u64>,
}

async fn show(customer: &Customer, period: Period, reach: &Reach, out: Out) -> Result<Done, Failure> {
    let now = reach.now().s();
    let is_current = period.contains(now);
    let terms = reach.control.terms(customer, reach.now()).await?;
    let present = &customer.phase_at(now).plan;
    let mut units: BTreeMap<(String, String), u64> = BTreeMap::new();
    if is_current {
        for (meter, n) in counted(customer, reach).await? {
            units.insert((present.to_string(), meter), n);
        }
    }
    // What was used under other plans, or in other periods, is in the ledger.
    let (rows, _) = reach.control.ledger.scan().await?;
    for row in rows
        .iter()
        .filter(|row| row.key.customer == customer.id && period.contains(row.key.bucket))
    {
        let plan = &customer.phase_at(row.key.bucket).plan;
        if !(is_current && plan == present) {
            *units.entry((plan.to_string(), row.key.meter.clone())).or_default() += row.units;
        }
    }
    let mut lines = Vec::new();
    for ((plan, meter), units) in units {
        lines.push(line(customer, plan, meter, units, period, reach).await?);
    }
    let value = json!({
        "customer": customer.id, "period": period, "meters": lines,
        "limits": terms.limits, "at_quota": terms.at_quota, "currency": terms.currency,
    });
    out.show(&value, || {
        let row = |line: &Line| {
            let included = line.included.map_or("unlimited".to_owned(), |units| units.to_string());
            let numbers = [line.units.to_string(), included, line.granted.to_string()];
            let mut row = vec![line.plan.clone(), line.meter.clone()];
            row.extend(numbers);
            row.push(line.shown_amount.clone());
            row
        };
        let rows = lines.iter().map(row).collect();
        let table = out.table(
            &["plan", "meter", "units", "included", "given", "costs so far"],
            2,
            rows,
        );
        let limits: Vec<String> = terms.limits.iter().map(ToString::to_string).collect();
        let limits = if limits.is_empty() {
            "none".to_owned()
        } else {
            limits.join(", ")
        };
        let beyond = match terms.at_quota {
            AtQuota::Overage => "billed".to_owned(),
            AtQuota::Throttle(limit) => format!("slowed to {limit}"),
            AtQuota::Block => "refused".to_owned(),
        };
        format!(
            "{table}\n{} to {}; limits: {limits}; beyond what is included: {beyond}",
            time(period.start),
            time(period.end)
        )
    })?;
    Ok(Done::Well)
}

async fn line(
    customer: &Customer,
    plan: String,
    meter: String,
    units: u64,
    period: Period,
    reach: &Reach,
) -> Result<Line, Failure> {
    let phase = customer.phases.iter().rev().find(|phase| phase.plan.as_str() == plan);
    let granted = customer.granted(&meter, period.start);
    let Some(phase) = phase else {
        // Forgotten phases ended long ago.
        return Ok(Line {
            plan,
            meter,
            units,
            included: None,
            granted,
            amount: None,
            shown_amount: "unknown".to_owned(),
            spend_cap: None,
        });
    };
    let terms = reach
        .control
        .terms_of(phase.catalog, &phase.tier, &phase.overrides)
        .await?;
    let amount = terms.usage_amount(&meter, units.saturating_sub(granted)).ok();
    Ok(Line {
        plan,
        units,
        granted,
        included: terms.included_units(&meter),
        amount: amount.map(|amount| amount.0),
        shown_amount: amount.map_or("unknown".to_owned(), |amount| amount.display(terms.currency)),
        spend_cap: terms.spend_cap.get(&meter).map(|cap| cap.0),
        meter,
    })
}

async fn top(n: usize, reach: &Reach, out: Out) -> Result<Done, Failure> {
    let now = reach.now().s();
    let mut items: HashMap<CustomerId, Vec<Counters>> = HashMap::new();
    for (id, _, item) in reach.control.counters.scan().await?.items {
        items.entry(id).or_default().push(item);
    }
    let mut users = Vec::new();
    for customer in reach.control.accounts.customers().await? {
        let terms = reach.control.terms(&customer, reach.now()).await?;
        let items = items.remove(&customer.id).unwrap_or_default();
        for (meter, units) in sum(&customer, &terms, &items, now) {
            let included = terms.included_units(&meter);
            let billed = units.saturating_sub(customer.granted(&meter, now));
            let amount = terms
                .usage_amount(&meter, billed)
                .map_or("unknown".to_owned(), |a| a.display(terms.currency));
            users.push((units, customer.id.clone(), terms.tier.clone(), meter, included, amount));
        }
    }
    users.retain(|user| user.0 > 0);
    users.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    users.truncate(n);
    let value: Vec<_> = users
        .iter()
        .map(|(units, id, tier, meter, included, amount)| {
            json!({ "customer": id, "tier": tier, "meter": meter, "units": units, "included": included, "amount": amount })
        })
        .collect();
    out.show(&value, || {
        if users.is_empty() {
            return "Nobody has used anything in the present billing period.".to_owned();
        }
        let rows = users.iter().map(|(units, id, tier, meter, included, amount)| {
            let included = included.map_or("unlimited".to_owned(), |units| units.to_string());
            vec![
                id.to_string(),
                tier.clone(),
                meter.clone(),
                units.to_string(),
                included,
                amount.clone(),
            ]
        });
        out.table(
            &["customer", "tier", "meter", "units", "included", "costs so far"],
            3,
            rows.collect(),
        )
    })?;
    Ok(Done::Well)
}

/// What a look saw: units by bucket attribute and item, and the state of each row.
#[derive(Default)]
struct Look {
    units: BTreeMap<(CustomerId, u32, String), u64>,
    rows: BTreeMap<String, (String, u64)>,
}

async fn tail(
    only: Option<CustomerId>,
    every: u64,
    looks: Option<u64>,
    reach: &Reach,
    out: Out,
) -> Result<Done, Failure> {
    let mut seen: Option<Look> = None;
    let mut left = looks;
    out.say("Following counters and ledger rows; stop with Ctrl-C.")?;
    while left != Some(0) {
        let look = look(only.as_ref(), reach).await?;
        if let Some(before) = &seen {
            for line in news(before, &look) {
                out.line(&if out.is_json { line.to_string() } else { spoken(&line) })?;
            }
        }
        seen = Some(look);
        left = left.map(|n| n - 1);
        if left != Some(0) {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(every)) => {}
                _ = tokio::signal::ctrl_c() => return Ok(Done::Well),
            }
        }
    }
    Ok(Done::Well)
}

async fn look(only: Option<&CustomerId>, reach: &Reach) -> Result<Look, Failure> {
    let mut look = Look::default();
    let items = match only {
        None => reach.control.counters.scan().await?.items,
        Some(id) => {
            let customer = reach.customer(id).await?;
            let mut items = Vec::new();
            for shard in 0..reach.control.shards(&customer).await? {
                let item = reach.control.counters.read(&key(id, shard)).await?;
                items.extend(item.map(|item| (id.clone(), shard, item)));
            }
            items
        }
    };
    for (id, shard, item) in items {
        for (name, units) in item.units {
            if name.starts_with('u') {
                look.units.insert((id.clone(), shard, name), units);
            }
        }
    }
    let rows: Vec<Row> = match only {
        None => reach.control.ledger.scan().await?.0,
        // Rows with nothing left to do are not news.
        Some(id) => {
            let mut rows = Vec::new();
            for key in reach.control.ledger.waiting(id).await? {
                rows.extend(reach.control.ledger.read(&key).await?);
            }
            rows
        }
    };
    for row in rows {
        look.rows
            .insert(row.key.to_string(), (row.state.as_str().to_owned(), row.units));
    }
    Ok(look)
}

/// What changed from one look to the next.
fn news(before: &Look, now: &Look) -> Vec<serde_json::Value> {
    let mut lines = Vec::new();
    for (place, &units) in &now.units {
        let old = before.units.get(place).copied().unwrap_or(0);
        if let Some((bucket, meter)) = parse_bucket_attribute(&place.2)
            && units > old
        {
            lines.push(
                json!({ "what": "counted", "customer": place.0, "shard": place.1, "meter": meter,
                               "bucket": bucket, "units": units, "new": units - old }),
            );
        }
    }
    let names: BTreeSet<&String> = before.rows.keys().chain(now.rows.keys()).collect();
    for name in names {
        match (before.rows.get(name), now.rows.get(name)) {
            (old, Some((state, units))) if old.is_none_or(|(old, _)| old != state) => {
                lines.push(json!({ "what": "row", "row": name, "state": state, "units": units }));
            }
            (Some(_), None) => lines.push(json!({ "what": "row", "row": name, "state": "done" })),
            _ => {}
        }
    }
    lines
}

fn spoken(line: &serde_json::Value) -> String {
    let text = |name: &str| match &line[name] {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text("what").as_str() {
        "counted" => {
            let bucket = time(line["bucket"].as_u64().unwrap_or(0));
            format!(
                "{}  {} +{}, now {} in the bucket of {bucket}",
                text("customer"),
                text("meter"),
                text("new"),
                text("units")
            )
        }
        _ => format!("{}  {}", text("row"), text("state")),
    }
}
