//! `farebox period close`: everything counted so far is reported, due or not.

use serde_json::json;

use crate::{
    arguments::PeriodCommand,
    failure::{Done, Failure},
    keys::would,
    reach::Reach,
    show::{Out, count, time},
};

pub(crate) async fn run(command: PeriodCommand, reach: &Reach, out: Out) -> Result<Done, Failure> {
    let PeriodCommand::Close { customer, now, trial } = command;
    let id = customer.0;
    let customer = reach.customer(&id).await?;
    let at = reach.now().s();
    let until = match now {
        // The running bucket stays open: what is counted after a seal is the next bucket's, and that may have another price.
        true => customer.cycle.bucket_at(at).start,
        false => customer.cycle.period_at(at).start,
    };
    if trial.dry_run {
        let waiting = reach.control.ledger.waiting(&id).await?;
        let before = waiting.iter().filter(|key| key.bucket < until).count();
        let what = format!(
            "report what {id} used before {}: {before} rows wait in the ledger, and what is still in the counters",
            time(until)
        );
        return would(out, &what);
    }
    let report = reach.books().await?.close(&customer, until).await?;
    let value = json!({ "customer": id, "until": until, "rows": report });
    out.show(&value, || {
        let mut text = format!(
            "Before {}: {}, {} reported, {} closed without a report.",
            time(until),
            count(usize::try_from(report.due).unwrap_or(usize::MAX), "row"),
            report.reported,
            report.closed
        );
        if report.retried + report.dropped + report.errors > 0 {
            let unsettled = report.retried + report.dropped + report.errors;
            text.push_str(&format!(
                " {unsettled} are not settled yet; close again, and see `farebox reconcile {id}`."
            ));
        }
        if report.parked > 0 {
            text.push_str(&format!(" {} need you: farebox stripe repair.", report.parked));
        }
        text
    })?;
    let is_settled = report.retried + report.dropped + report.errors + report.parked == 0;
    Ok(if is_settled { Done::Well } else { Done::Differs })
}
