//! `farebox customers follow`: records agree with Stripe again where an event did not come.

use farebox_core::{account::Customer, id::CustomerId};
use serde_json::json;

use crate::{
    customers::standing,
    failure::{Done, Failure},
    reach::Reach,
    show::{Out, count, time},
};

/// One customer, or all that have a subscription.
pub(crate) async fn run(id: Option<CustomerId>, is_trial: bool, reach: &Reach, out: Out) -> Result<Done, Failure> {
    let customers = match &id {
        Some(id) => vec![reach.customer(id).await?],
        None => reach.control.accounts.customers().await?,
    };
    if id.is_some() && customers.iter().any(|customer| customer.stripe_subscription.is_none()) {
        return Err(Failure::failed("the customer has no subscription in Stripe to follow"));
    }
    let books = reach.books().await?;
    let (mut looked, mut changed, mut failed) = (0usize, Vec::new(), Vec::new());
    for Customer { id, .. } in customers
        .iter()
        .filter(|customer| customer.stripe_subscription.is_some())
    {
        looked += 1;
        let came = async {
            let (seen, agreed) = books.would_follow(id).await?;
            if seen == agreed {
                return Ok(None);
            }
            let now = match is_trial {
                true => agreed,
                false => books.follow(id, None).await?.customer,
            };
            Ok::<_, farebox_billing::Error>(Some((words(&seen, reach), words(&now, reach))))
        };
        match came.await {
            Ok(None) => {}
            Ok(Some((before, after))) => {
                out.say(&format!("{id}: {before} → {after}"))?;
                changed.push(json!({ "customer": id, "before": before, "after": after }));
            }
            // One that fails keeps no other from being followed.
            Err(error) => {
                let problem = Failure::from(error).to_string();
                if !out.is_json {
                    out.aside(&format!("{id}: {problem}"));
                }
                failed.push(json!({ "customer": id, "error": problem }));
            }
        }
    }
    let value = json!({ "looked_at": looked, "changed": changed, "failed": failed, "dry_run": is_trial });
    out.show(&value, || {
        let (of, changed) = (count(looked, "subscription"), changed.len());
        match (changed, is_trial) {
            (0, _) => format!("{of}: the records agree with Stripe."),
            (n, true) => format!("{of}: would change {}.", count(n, "record")),
            (n, false) => format!("{of}: changed {}, from the next request on.", count(n, "record")),
        }
    })?;
    Ok(match (failed.is_empty(), changed.is_empty(), is_trial) {
        (false, ..) => Done::Differs,
        (true, false, true) => Done::Pending,
        (true, ..) => Done::Well,
    })
}

/// What of a record Stripe's events are about.
fn words(customer: &Customer, reach: &Reach) -> String {
    let now = reach.now().s();
    let period = customer.cycle.period_at(now);
    let mut text = format!(
        "{}, {}, {} to {}",
        customer.phase_at(now).tier,
        standing(customer, now),
        time(period.start),
        time(period.end)
    );
    if let Some(ends) = customer.ends.filter(|&ends| ends > now) {
        text.push_str(&format!(", ends {}", time(ends)));
    }
    if let Some(ahead) = customer.phase_after(now) {
        text.push_str(&format!(", then {} from {}", ahead.tier, time(ahead.from)));
    }
    text
}
