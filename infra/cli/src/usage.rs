//! `farebox usage`: what is used, by whom, and what it costs so far.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use farebox_aws::counters::key;
use farebox_billing::rows as buckets_of;
use farebox_core::{
    account::{Customer, Hold},
    admission::{Counters, parse_bucket_attribute, quota_attribute},
    id::CustomerId,
    ledger::{Balance, Row, RowKey, RowState},
    money::{Currency, Money},
    tiers::{AtQuota, Limit, PlanId, Terms},
    time::Period,
};
use serde::Serialize;
use serde_json::json;

use crate::{
    arguments::Usage,
    failure::{Done, Failure},
    had, period_of,
    reach::Reach,
    show::{Out, time},
};

pub(crate) async fn run(command: Usage, reach: &Reach, out: Out) -> Result<Done, Failure> {
    match command {
        Usage::Show { customer, period } => {
            let customer = reach.customer(&customer.0).await?;
            let period = period_of(&customer, &period, reach.now().s())?;
            had(&customer, period, reach).await?;
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

/// Units of a meter that the quota of the present billing period is held against: those under the plan that holds now.
pub(crate) async fn of_quota(customer: &Customer, meter: &str, reach: &Reach) -> Result<u64, Failure> {
    let now_s = reach.now().s();
    let start = customer.cycle.period_at(now_s).start;
    let name = quota_attribute(start, meter, &customer.phase_at(now_s).plan);
    let items = items_of(customer, reach).await?;
    Ok(items.iter().map(|(_, item)| item.units_of(&name)).sum())
}

/// A customer's counter items with their shards.
async fn items_of(customer: &Customer, reach: &Reach) -> Result<Vec<(u32, Counters)>, Failure> {
    let mut items = Vec::new();
    for shard in 0..reach.control.shards(customer).await? {
        let item = reach.control.counters.read(&key(&customer.id, shard)).await?;
        items.extend(item.map(|item| (shard, item)));
    }
    Ok(items)
}

/// One meter under one plan in one billing period.
#[derive(Serialize)]
struct Line {
    plan: String,
    meter: String,
    units: u64,
    included: Option<u64>,
    /// Given in this billing period, under whatever plan.
    granted: u64,
    /// Given units that the invoice of this plan is less, taken already or to be taken of what is left.
    credit: u64,
    amount: Option<u64>,
    shown_amount: String,
    spend_cap: Option<u64>,
    shown_cap: Option<String>,
}

/// What was used under a plan on a meter.
type ByPlan = BTreeMap<(String, String), u64>;

/// What was used in a billing period, bucket by bucket as it is billed: each under the plan that it is reported to. That need not
/// be the plan whose quota it was held against: what was used in the very second of a change is billed as what follows it.
///
/// A bucket stands in a counter, in the ledger, or in both; the greater figure is the newer one then. The counters were read
/// first: what is taken out of them is in the ledger by then.
fn by_plan(customer: &Customer, items: &[(u32, Counters)], rows: &[Row], period: Period) -> ByPlan {
    let mut buckets: BTreeMap<RowKey, (String, u64)> = BTreeMap::new();
    for row in rows_in(customer, rows, period) {
        buckets.insert(row.key.clone(), (plan_of(customer, row).to_string(), row.units));
    }
    for (shard, item) in items {
        for (key, units) in buckets_of(&customer.id, *shard, item) {
            if period.contains(key.bucket) {
                let plan = customer.phase_at(key.bucket).plan.to_string();
                let known = buckets.entry(key).or_insert((plan, 0));
                known.1 = known.1.max(units);
            }
        }
    }
    let mut units = ByPlan::new();
    for (key, (plan, n)) in buckets {
        *units.entry((plan, key.meter)).or_default() += n;
    }
    units
}

/// The plan that a row's units are billed under: that of its report, where there is one.
fn plan_of<'a>(customer: &'a Customer, row: &Row) -> &'a PlanId {
    let reported = row.report.as_ref().and_then(|report| {
        let is_it = |plan: &&PlanId| plan.event_name(&row.key.meter) == report.event_name;
        customer.phases.iter().map(|phase| &phase.plan).find(is_it)
    });
    reported.unwrap_or(&customer.phase_at(row.key.bucket).plan)
}

fn rows_in<'a>(customer: &'a Customer, rows: &'a [Row], period: Period) -> impl Iterator<Item = &'a Row> {
    rows.iter()
        .filter(move |row| row.key.customer == customer.id && period.contains(row.key.bucket))
}

/// How many given units each plan's invoice is less, and how many are left by meter then: what rows have taken already, and
/// what those to come will take of the balance, oldest first.
async fn credits(
    customer: &Customer,
    units: &ByPlan,
    rows: &[Row],
    period: Period,
    reach: &Reach,
) -> Result<(ByPlan, BTreeMap<String, u64>), Failure> {
    let mut left: BTreeMap<String, u64> = BTreeMap::new();
    for (_, meter) in units.keys() {
        if left.contains_key(meter) {
            continue;
        }
        let balance = reach.control.ledger.balance(&customer.id, meter).await?;
        let earlier = rows.iter().filter(|row| {
            let key = &row.key;
            key.customer == customer.id && key.meter == *meter && key.bucket < period.start && is_open(row)
        });
        let waiting = earlier.fold(balance, |balance, row| Balance {
            taken: balance.taken + customer.spendable(meter, row.key.bucket, balance).min(row.units),
            ..balance
        });
        left.insert(meter.clone(), waiting.left());
    }
    let mut order: Vec<&(String, String)> = units.keys().collect();
    order.sort_by_key(|(plan, _)| began(customer, plan));
    let mut credits = ByPlan::new();
    for key in order {
        let (mut taken, mut frozen) = (0u64, 0u64);
        let of_plan = |row: &&Row| row.key.meter == key.1 && plan_of(customer, row).as_str() == key.0;
        for row in rows_in(customer, rows, period)
            .filter(of_plan)
            .filter(|row| !is_open(row))
        {
            taken = taken.saturating_add(row.credit);
            frozen = frozen.saturating_add(row.units);
        }
        let to_come = units.get(key).copied().unwrap_or(0).saturating_sub(frozen);
        let rest = left.entry(key.1.clone()).or_default();
        let began = customer.phases.iter().find(|phase| phase.plan.as_str() == key.0);
        let at = began.map_or(period.start, |phase| phase.from.max(period.start));
        let waiting = Balance {
            granted: *rest,
            taken: 0,
        };
        let of_rest = to_come.min(customer.spendable(&key.1, at, waiting));
        *rest -= of_rest;
        credits.insert(key.clone(), taken.saturating_add(of_rest));
    }
    Ok((credits, left))
}

/// Which of a customer's plans one is, the oldest first.
fn began(customer: &Customer, plan: &str) -> Option<usize> {
    customer.phases.iter().position(|phase| phase.plan.as_str() == plan)
}

/// Whether the row's report is not written down yet.
fn is_open(row: &Row) -> bool {
    row.state == RowState::Open
}

/// The slower limit of a customer whose invoice stays unpaid, or the sentence that it is refused with.
fn held(customer: &Customer, terms: &Terms, now_s: u64) -> (Option<Limit>, Option<String>) {
    match customer.hold(&terms.past_due, now_s) {
        Hold::None => (None, None),
        Hold::Throttle(limit) => (
            Some(limit),
            Some(format!("An invoice is not paid: slowed to {limit} besides.")),
        ),
        Hold::Refuse(refusal) => (None, Some(format!("Refused: {}", refusal.message))),
    }
}

async fn show(customer: &Customer, period: Period, reach: &Reach, out: Out) -> Result<Done, Failure> {
    let now = reach.now().s();
    let is_current = period.contains(now);
    let terms = reach.control.terms(customer, reach.now()).await?;
    let items = items_of(customer, reach).await?;
    let (rows, _) = reach.control.ledger.scan().await?;
    let mut units = by_plan(customer, &items, &rows, period);
    if is_current {
        // What holds is shown though nothing was used.
        let plan = customer.phase_at(now).plan.to_string();
        for meter in terms.meters() {
            units.entry((plan.clone(), meter)).or_default();
        }
    }
    let (credits, mut left) = credits(customer, &units, &rows, period, reach).await?;
    // What is left after an earlier period is for this one to use.
    left.retain(|_, left| is_current && *left > 0);
    let mut lines = Vec::new();
    for ((plan, meter), units) in units {
        let credit = credits.get(&(plan.clone(), meter.clone())).copied().unwrap_or(0);
        lines.push(line(customer, plan, meter, (units, credit), period, reach).await?);
    }
    lines.sort_by_key(|line| (began(customer, &line.plan), line.meter.clone()));
    let sums = sums(&lines, terms.currency);
    let (slower, hold) = held(customer, &terms, now);
    let value = json!({
        "customer": customer.id, "period": period, "meters": lines, "sums": sums,
        "limits": terms.limits, "at_quota": terms.at_quota, "currency": terms.currency,
        "given_left": left, "slower_limit": slower,
    });
    out.show(&value, || {
        let row = |line: &Line| {
            let included = line.included.map_or("unlimited".to_owned(), |units| units.to_string());
            let numbers = [line.units.to_string(), included, line.credit.to_string()];
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
        // Where all is included, nothing is beyond it.
        let is_unlimited = terms.meters().iter().all(|meter| terms.included_units(meter).is_none());
        let beyond = match is_unlimited {
            true => String::new(),
            false => format!("; beyond what is included: {beyond}"),
        };
        let mut text = format!(
            "{table}\n{} to {}; limits: {limits}{beyond}",
            time(period.start),
            time(period.end)
        );
        for sum in sums.iter().filter(|sum| sum.plans > 1) {
            let Sum {
                plans,
                meter,
                units,
                shown_amount,
                ..
            } = sum;
            text.push_str(&format!(
                "\nTogether under {plans} plans: {units} units of {meter}, {shown_amount}."
            ));
        }
        for line in &lines {
            if let Some(cap) = &line.shown_cap {
                text.push_str(&format!("\nSpend cap of {} on {}: {cap}.", line.plan, line.meter));
            }
        }
        for (meter, left) in &left {
            text.push_str(&format!("\n{left} given units of {meter} are left."));
        }
        if let Some(hold) = hold.filter(|_| is_current) {
            text.push_str(&format!("\n{}", out.waits(&hold)));
        }
        text
    })?;
    Ok(Done::Well)
}

/// One meter in one billing period, under however many plans.
#[derive(Serialize)]
struct Sum {
    meter: String,
    plans: usize,
    units: u64,
    credit: u64,
    amount: Option<u64>,
    shown_amount: String,
}

fn sums(lines: &[Line], currency: Currency) -> Vec<Sum> {
    let meters: BTreeSet<&String> = lines.iter().map(|line| &line.meter).collect();
    let sum = |meter: &String| {
        let of_meter: Vec<&Line> = lines.iter().filter(|line| line.meter == *meter).collect();
        let total = |figure: fn(&Line) -> u64| {
            of_meter
                .iter()
                .fold(0, |sum: u64, line| sum.saturating_add(figure(line)))
        };
        let amount = of_meter
            .iter()
            .try_fold(0, |sum: u64, line| sum.checked_add(line.amount?));
        Sum {
            meter: meter.clone(),
            plans: of_meter.len(),
            units: total(|line| line.units),
            credit: total(|line| line.credit),
            amount,
            shown_amount: amount.map_or("unknown".to_owned(), |amount| Money(amount).display(currency)),
        }
    };
    meters.into_iter().map(sum).collect()
}

async fn line(
    customer: &Customer,
    plan: String,
    meter: String,
    (units, credit): (u64, u64),
    period: Period,
    reach: &Reach,
) -> Result<Line, Failure> {
    let phase = customer.phases.iter().rev().find(|phase| phase.plan.as_str() == plan);
    let given = customer
        .grants
        .iter()
        .filter(|grant| grant.meter == meter && period.contains(grant.period));
    let granted = given.fold(0, |sum: u64, grant| sum.saturating_add(grant.units));
    let Some(phase) = phase else {
        // Forgotten phases ended long ago.
        return Ok(Line {
            plan,
            meter,
            units,
            included: None,
            granted,
            credit,
            amount: None,
            shown_amount: "unknown".to_owned(),
            spend_cap: None,
            shown_cap: None,
        });
    };
    let terms = reach
        .control
        .terms_of(phase.catalog, &phase.tier, &phase.overrides)
        .await?;
    let amount = terms.usage_amount(&meter, units.saturating_sub(credit)).ok();
    let cap = terms.spend_cap.get(&meter);
    Ok(Line {
        plan,
        units,
        granted,
        credit,
        included: terms.included_units(&meter),
        amount: amount.map(|amount| amount.0),
        shown_amount: amount.map_or("unknown".to_owned(), |amount| amount.display(terms.currency)),
        spend_cap: cap.map(|cap| cap.0),
        shown_cap: cap.map(|cap| cap.display(terms.currency)),
        meter,
    })
}

async fn top(n: u32, reach: &Reach, out: Out) -> Result<Done, Failure> {
    let now = reach.now().s();
    let mut items: HashMap<CustomerId, Vec<(u32, Counters)>> = HashMap::new();
    for (id, shard, item) in reach.control.counters.scan().await?.items {
        items.entry(id).or_default().push((shard, item));
    }
    let mut rows: HashMap<CustomerId, Vec<Row>> = HashMap::new();
    for row in reach.control.ledger.scan().await?.0 {
        rows.entry(row.key.customer.clone()).or_default().push(row);
    }
    let mut used = Vec::new();
    for customer in reach.control.accounts.customers().await? {
        let items = items.remove(&customer.id).unwrap_or_default();
        let rows = rows.remove(&customer.id).unwrap_or_default();
        let by_plan = by_plan(&customer, &items, &rows, customer.cycle.period_at(now));
        let mut meters: BTreeMap<String, u64> = BTreeMap::new();
        for ((_, meter), units) in &by_plan {
            *meters.entry(meter.clone()).or_default() += units;
        }
        let customer = std::sync::Arc::new((customer, rows, by_plan));
        let meters = meters.into_iter().filter(|(_, units)| *units > 0);
        used.extend(meters.map(|(meter, units)| (units, customer.clone(), meter)));
    }
    used.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.0.id.cmp(&b.1.0.id)));
    used.truncate(usize::try_from(n).unwrap_or(usize::MAX));
    let mut users = Vec::new();
    for (units, customer, meter) in used {
        let (customer, rows, by_plan) = &*customer;
        let terms = reach.control.terms(customer, reach.now()).await?;
        let period = customer.cycle.period_at(now);
        let (credits, _) = credits(customer, by_plan, rows, period, reach).await?;
        // Each plan by itself, as it is billed.
        let mut lines = Vec::new();
        for (key, units) in by_plan.iter().filter(|((_, of), _)| *of == meter) {
            let credit = credits.get(key).copied().unwrap_or(0);
            lines.push(line(customer, key.0.clone(), meter.clone(), (*units, credit), period, reach).await?);
        }
        let amount = sums(&lines, terms.currency).pop().map(|sum| sum.shown_amount);
        let included = terms.included_units(&meter);
        users.push((
            units,
            customer.id.clone(),
            terms.tier.clone(),
            meter,
            included,
            amount.unwrap_or_default(),
        ));
    }
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
        if out.is_unread() {
            return Ok(Done::Well);
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
