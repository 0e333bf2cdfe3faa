//! `farebox reconcile`: counter, ledger, Stripe and invoice, compared.

use farebox_billing::{Asked, Reconciliation, RowCheck, SumCheck};
use farebox_core::time::Period;
use serde_json::json;

use crate::{
    arguments::Reconcile,
    ended_in,
    failure::{Done, Failure},
    first_known, had, period_of,
    reach::Reach,
    show::{Out, count, time},
};

pub(crate) async fn run(options: Reconcile, reach: &Reach, out: Out) -> Result<Done, Failure> {
    let (customers, is_single) = match &options.customer {
        Some(id) => (vec![reach.customer(&id.0).await?], true),
        None => (reach.control.accounts.customers().await?, false),
    };
    let default = if options.invoice { "previous" } else { "current" };
    let name = options.period.as_deref().unwrap_or(default);
    let reconciler = reach.books().await?.reconciler().await?;
    let asked = Asked {
        each_row: is_single,
        invoice: options.invoice,
    };
    let mut found = Vec::new();
    let mut without = 0;
    for customer in &customers {
        let period = match (&options.period, ended_in(customer, reach.now().s())) {
            (None, Some(period)) => period,
            _ => {
                let period = period_of(customer, name, reach.now().s())?;
                if is_single {
                    had(customer, period, reach).await?;
                } else if first_known(customer, period, reach).await? >= period.end {
                    without += 1;
                    continue;
                }
                period
            }
        };
        found.push(reconciler.customer(customer, period, asked).await?);
    }
    let difference: u64 = found.iter().map(|one| one.difference).sum();
    let pending: u64 = found.iter().map(|one| one.pending).sum();
    let problems: usize = found.iter().map(|one| one.problems.len()).sum();
    let value = json!({
        "difference": difference, "pending": pending, "problems": problems, "customers": found, "without_period": without
    });
    out.show(&value, || {
        let without = match without {
            0 => String::new(),
            n => format!("{} had no such billing period.", count(n, "customer")),
        };
        if found.is_empty() && !without.is_empty() {
            return without;
        }
        let end = match (difference, problems) {
            (0, 0) if pending == 0 => "Counter, ledger and Stripe agree: difference 0.".to_owned(),
            (0, 0) => format!("Difference 0; {} on their way.", units(pending)),
            (0, n) => out.bad(&format!("Difference 0, but {}.", count(n, "problem"))),
            (n, _) => out.bad(&format!("THE COUNTS DO NOT AGREE: difference {}.", units(n))),
        };
        let lines = [text(&found, options.rows, out), without, end];
        lines
            .into_iter()
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join("\n")
    })?;
    let agrees = found.iter().all(Reconciliation::agrees);
    Ok(if agrees { Done::Well } else { Done::Differs })
}

fn units(n: u64) -> String {
    match n {
        1 => "1 unit".to_owned(),
        n => format!("{n} units"),
    }
}

fn text(found: &[Reconciliation], all_rows: bool, out: Out) -> String {
    let has_invoice = found.iter().flat_map(|one| &one.sums).any(|sum| sum.invoice.is_some());
    let mut header = vec![
        "customer",
        "plan",
        "meter",
        "counted",
        "in ledger",
        "given",
        "reported",
        "in Stripe",
    ];
    if has_invoice {
        header.push("invoiced");
    }
    header.extend(["on its way", "difference"]);
    let rows = found.iter().flat_map(|one| one.sums.iter().map(move |sum| (one, sum)));
    let rows: Vec<Vec<String>> = rows.map(|(one, sum)| row(one, sum, has_invoice)).collect();
    let mut parts = vec![match rows.is_empty() {
        true => nothing(found),
        false => out.table(&header, 3, rows),
    }];
    for one in found {
        let told = one
            .rows
            .iter()
            .filter(|row| all_rows || row.note.is_some() || row.difference > 0);
        let rows: Vec<Vec<String>> = told.map(bucket).collect();
        if !rows.is_empty() {
            let header = [
                "bucket",
                "meter",
                "state",
                "what there is to say",
                "units",
                "value",
                "in Stripe",
                "difference",
            ];
            parts.push(format!(
                "\n{}, {} to {}:",
                one.customer,
                time(one.period.start),
                time(one.period.end)
            ));
            parts.push(out.table(&header, 4, rows));
        }
        let notes = one
            .sums
            .iter()
            .filter_map(|sum| Some(format!("{} {}: {}", one.customer, sum.meter, sum.note.as_ref()?)));
        parts.extend(notes.map(|note| out.waits(&note)));
        parts.extend(
            one.problems
                .iter()
                .map(|problem| out.bad(&format!("{}: {problem}", one.customer))),
        );
    }
    parts.join("\n")
}

/// In which billing periods nothing was used.
fn nothing(found: &[Reconciliation]) -> String {
    let mut periods: Vec<Period> = found.iter().map(|one| one.period).collect();
    periods.sort();
    periods.dedup();
    let named = |period: &Period| format!("{} to {}", time(period.start), time(period.end));
    match (periods.as_slice(), periods.first(), periods.last()) {
        ([period], ..) => format!("Nothing was used from {}.", named(period)),
        (_, Some(first), Some(last)) => format!(
            "Nothing was used in any customer's billing period; they lie between {} and {}.",
            time(first.start),
            time(last.end)
        ),
        _ => "There are no customers.".to_owned(),
    }
}

fn row(one: &Reconciliation, sum: &SumCheck, has_invoice: bool) -> Vec<String> {
    let mut cells = vec![one.customer.to_string(), sum.plan.to_string(), sum.meter.clone()];
    cells.extend([sum.counted, sum.units, sum.credit, sum.reported, sum.in_stripe].map(|n| n.to_string()));
    if has_invoice {
        cells.push(
            sum.invoice
                .as_ref()
                .map_or("–".to_owned(), |invoice| invoice.quantity.to_string()),
        );
    }
    cells.extend([sum.pending, sum.difference].map(|n| n.to_string()));
    cells
}

fn bucket(row: &RowCheck) -> Vec<String> {
    let or_dash = |n: Option<u64>| n.map_or("–".to_owned(), |n| n.to_string());
    vec![
        time(row.bucket),
        row.meter.clone(),
        row.state.unwrap_or("none").to_owned(),
        row.note.clone().unwrap_or_default(),
        row.counted.unwrap_or(row.units).max(row.units).to_string(),
        or_dash(row.value),
        or_dash(row.in_stripe),
        row.difference.to_string(),
    ]
}
