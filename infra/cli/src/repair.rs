//! `farebox stripe repair`: parked rows, which only the operator can settle.

use farebox_billing::{Parked, Remedy};
use serde_json::{Value, json};

use crate::{
    arguments::StripeCommand,
    failure::{Done, Failure},
    reach::Reach,
    show::{Out, count, time},
};

pub(crate) async fn run(command: StripeCommand, reach: &Reach, out: Out) -> Result<Done, Failure> {
    let StripeCommand::Repair { trial } = command;
    let books = reach.books().await?;
    let parked = books.parked().await?;
    let mut lines: Vec<(String, Value)> = Vec::new();
    let (mut left, mut pending) = (0, 0);
    for one in &parked {
        let outcome = match &one.remedy {
            Remedy::Operator(text) => {
                left += 1;
                text.clone()
            }
            remedy if trial.dry_run => {
                pending += 1;
                would(remedy).to_owned()
            }
            remedy => match books.repair(one).await? {
                true => done(remedy).to_owned(),
                false => "somebody else has moved it on".to_owned(),
            },
        };
        lines.push((spoken(one, &outcome, out), as_json(one, &outcome)));
    }
    let value: Vec<&Value> = lines.iter().map(|(_, value)| value).collect();
    out.show(&value, || {
        if lines.is_empty() {
            return "No row is parked.".to_owned();
        }
        let text: Vec<&str> = lines.iter().map(|(text, _)| text.as_str()).collect();
        let end = match left {
            0 => String::new(),
            n => format!("\n{} left to you.", count(n, "row")),
        };
        format!("{}{end}", text.join("\n"))
    })?;
    Ok(match (left, pending) {
        (0, 0) => Done::Well,
        (0, _) => Done::Pending,
        _ => Done::Differs,
    })
}

fn would(remedy: &Remedy) -> &'static str {
    match remedy {
        Remedy::Settle => "would be marked delivered",
        _ => "would be sent again",
    }
}

fn done(remedy: &Remedy) -> &'static str {
    match remedy {
        Remedy::Settle => "marked delivered",
        _ => "will be sent again by the schedule",
    }
}

fn spoken(parked: &Parked, outcome: &str, out: Out) -> String {
    let row = &parked.row;
    let why = row.outcome.as_deref().unwrap_or("nobody wrote down why");
    let in_stripe = parked
        .in_stripe
        .map_or("could not be asked".to_owned(), |units| format!("has {units}"));
    let value = row.report.as_ref().map_or(0, |report| report.value);
    format!(
        "{} {} in the bucket of {}: {value} units, Stripe {in_stripe} in its minute\n  parked: {why}\n  {}",
        row.key.customer,
        row.key.meter,
        time(row.key.bucket),
        match parked.remedy {
            Remedy::Operator(_) => out.bad(outcome),
            _ => out.waits(outcome),
        }
    )
}

fn as_json(parked: &Parked, outcome: &str) -> Value {
    let row = &parked.row;
    let remedy = match parked.remedy {
        Remedy::Settle => "settle",
        Remedy::SendAgain => "send_again",
        Remedy::Operator(_) => "operator",
    };
    json!({
        "row": row.key.to_string(), "customer": row.key.customer, "meter": row.key.meter, "bucket": row.key.bucket,
        "value": row.report.as_ref().map(|report| report.value), "in_stripe": parked.in_stripe,
        "parked": row.outcome, "remedy": remedy, "outcome": outcome,
    })
}
