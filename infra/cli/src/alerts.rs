//! `farebox alerts`: try out the way of an alert, and see what became of each.

use aws_sdk_dynamodb::types::AttributeValue;
use farebox_aws::{alerts::AlertQueue, ledger::Alert, random::Random};
use farebox_core::{
    account::Customer,
    alert::{AlertMessage, Occasion, Recipient, VERSION},
    tiers::DEFAULT_METER,
};
use serde::Serialize;
use serde_json::json;

use crate::{
    arguments::Alerts,
    failure::{Done, Failure},
    reach::Reach,
    show::{Out, time},
    usage,
};

pub(crate) async fn run(command: Alerts, reach: &Reach, out: Out) -> Result<Done, Failure> {
    match command {
        Alerts::Test { customer, trial, .. } => {
            let message = match customer {
                Some(id) => {
                    let customer = reach.customer(&id.0).await?;
                    if !has_address(&customer) {
                        return Err(Failure::Failed(format!(
                            "{0} has neither a mail address nor a webhook, so nothing was sent: \
                             `farebox customers contact {0} --email ADDRESS` gives it one",
                            customer.id
                        )));
                    }
                    to_customer(&customer, reach).await?
                }
                None => to_operator(reach)?,
            };
            if trial.dry_run {
                out.show(&json!({ "would": "send", "alert": message }), || {
                    format!("would send {}", message.to_body())
                })?;
                return Ok(Done::Pending);
            }
            let queue = AlertQueue::new(reach.clients.clone(), reach.queue("alerts").await?);
            queue.send(&message).await?;
            out.show(&message, || match &message.customer {
                None => format!("Sent {} to the alert queue, for the operator's topic.", message.id),
                Some(Recipient { id, email, webhook, .. }) => {
                    let or_nowhere = |text: &Option<String>| text.clone().unwrap_or_else(|| "nowhere".to_owned());
                    let (mail, call) = (or_nowhere(email), or_nowhere(webhook));
                    format!(
                        "Sent {} to the alert queue for {id}: mail to {mail}, call to {call}.",
                        message.id
                    )
                }
            })?;
            Ok(Done::Well)
        }
        Alerts::List { customer } => {
            let customer = reach.customer(&customer.0).await?;
            list(&customer, reach, out).await
        }
    }
}

/// Whether anybody can be told.
fn has_address(customer: &Customer) -> bool {
    customer.contact.email.is_some() || customer.contact.webhook.is_some()
}

/// What the customer is told at a threshold, with the figures as they are now.
async fn to_customer(customer: &Customer, reach: &Reach) -> Result<AlertMessage, Failure> {
    let terms = reach.control.terms(customer, reach.now()).await?;
    let now = reach.now();
    let period = customer.cycle.period_at(now.s());
    let included = terms.included_units(DEFAULT_METER).unwrap_or(0);
    let units = usage::of_quota(customer, DEFAULT_METER, reach).await?;
    Ok(AlertMessage {
        v: VERSION,
        id: format!("test-{}", Random::system().token()?),
        at: now,
        customer: Some(Recipient::of(customer)),
        occasion: Occasion::QuotaThreshold {
            tier: terms.tier.clone(),
            meter: DEFAULT_METER.to_owned(),
            percent: units.saturating_mul(100).checked_div(included).unwrap_or(0),
            units,
            included,
            period,
            at_quota: terms.at_quota.as_str().to_owned(),
        },
    })
}

fn to_operator(reach: &Reach) -> Result<AlertMessage, Failure> {
    Ok(AlertMessage {
        v: VERSION,
        id: format!("test-{}", Random::system().token()?),
        at: reach.now(),
        customer: None,
        occasion: Occasion::Operator {
            problem: "test".to_owned(),
            text: "This is a test of the operator's alerts: nothing is wrong and nothing is to be done.".to_owned(),
            details: std::collections::BTreeMap::from([("sent_by".to_owned(), "farebox alerts test".to_owned())]),
        },
    })
}

/// An alert and what became of it on each channel.
#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    alert: Alert,
    id: String,
    /// The higher threshold that was noticed at once with it, and told in its place.
    replaced_by: Option<u64>,
    deliveries: Vec<Delivery>,
}

#[derive(Serialize)]
struct Delivery {
    channel: String,
    state: String,
    attempts: u64,
    reason: String,
}

async fn list(customer: &Customer, reach: &Reach, out: Out) -> Result<Done, Failure> {
    let id = &customer.id;
    let (_, mut alerts) = reach.control.ledger.scan().await?;
    alerts.retain(|alert| alert.customer == id.as_str());
    alerts.sort_by_key(|alert| {
        let (of, meter, plan) = (alert.of.clone(), alert.meter.clone(), alert.plan.clone());
        (alert.period, meter, of, plan, alert.percent)
    });
    let mut told = Vec::new();
    for alert in alerts {
        let name = alert.id();
        let deliveries = deliveries(&name, reach).await?;
        told.push(Told {
            alert,
            id: name,
            replaced_by: None,
            deliveries,
        });
    }
    let replaced: Vec<Option<u64>> = told.iter().map(|one| replaced_by(one, &told)).collect();
    for (one, by) in told.iter_mut().zip(replaced) {
        one.replaced_by = by;
    }
    let has_plans = told.iter().any(|one| one.alert.plan != told[0].alert.plan);
    out.show(&told, || {
        if told.is_empty() {
            return format!("{id} has reached no threshold.");
        }
        let row = |Told {
                       alert,
                       replaced_by,
                       deliveries,
                       ..
                   }: &Told| {
            let deliveries: Vec<String> = deliveries
                .iter()
                .map(|d| match d.reason.as_str() {
                    "" => format!("{} {}", d.channel, d.state),
                    reason => format!("{} {} ({reason})", d.channel, d.state),
                })
                .collect();
            let mut cells = vec![time(alert.period), alert.of.replace('_', " ")];
            if has_plans {
                cells.push(alert.plan.clone());
            }
            cells.extend([
                alert.meter.clone(),
                match replaced_by {
                    Some(percent) => format!("replaced by {percent} %"),
                    None if deliveries.is_empty() && !has_address(customer) => "never: there is no address".to_owned(),
                    None if deliveries.is_empty() => "not yet".to_owned(),
                    None => deliveries.join(", "),
                },
                format!("{} %", alert.percent),
                alert.units.to_string(),
                alert.included.to_string(),
            ]);
            cells
        };
        let rows = told.iter().map(row).collect();
        let mut header = vec!["period from", "of"];
        if has_plans {
            header.push("plan");
        }
        header.extend(["meter", "delivered", "reached", "units", "included"]);
        out.table(&header, header.len() - 3, rows)
    })?;
    Ok(Done::Well)
}

/// The threshold that was told in place of one that nobody was told of: of those that are noticed at once only the highest is
/// sent.
fn replaced_by(one: &Told, all: &[Told]) -> Option<u64> {
    if !one.deliveries.is_empty() {
        return None;
    }
    let alert = &one.alert;
    let higher = all.iter().filter(|other| {
        let other = &other.alert;
        (&other.of, &other.plan, &other.meter, other.period) == (&alert.of, &alert.plan, &alert.meter, alert.period)
            && other.percent > alert.percent
    });
    let higher: Vec<&Told> = higher.collect();
    let at_once = higher
        .iter()
        .filter(|other| other.alert.units == alert.units)
        .map(|other| other.alert.percent);
    let told = higher
        .iter()
        .filter(|other| !other.deliveries.is_empty())
        .map(|other| other.alert.percent);
    at_once.max().or(told.min())
}

async fn deliveries(alert: &str, reach: &Reach) -> Result<Vec<Delivery>, Failure> {
    let request = reach.clients.dynamodb.query().table_name(&reach.tables.accounts);
    let answer = request
        .key_condition_expression("pk = :pk")
        .expression_attribute_values(":pk", AttributeValue::S(format!("a#{alert}")))
        .send()
        .await
        .map_err(|e| Failure::Failed(format!("query {}: {e:?}", reach.tables.accounts)))?;
    let delivery = |item: &std::collections::HashMap<String, AttributeValue>| {
        let text = |name: &str| {
            item.get(name)
                .and_then(|value| value.as_s().ok())
                .cloned()
                .unwrap_or_default()
        };
        let attempts = item.get("attempts").and_then(|value| value.as_n().ok()?.parse().ok());
        Delivery {
            channel: text("sk"),
            state: text("state").replace('_', " "),
            attempts: attempts.unwrap_or(0),
            reason: text("reason"),
        }
    };
    Ok(answer.items().iter().map(delivery).collect())
}
