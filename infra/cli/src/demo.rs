//! `farebox demo`: the replay's report as a table or as JSON.

use comfy_table::{CellAlignment, Table, presets};
use farebox_local::{CustomerResult, DemoReport, Error, SentAlert, replay};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    failure::{Done, Failure},
    show::Out,
};

pub(crate) async fn run(out: Out) -> Result<Done, Failure> {
    let bar = if out.is_json {
        ProgressBar::hidden()
    } else {
        ProgressBar::new(0)
    };
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} requests replayed") {
        bar.set_style(style);
    }
    let report = replay(|progress| {
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
    })
    .await?;
    bar.finish_and_clear();
    if out.is_json {
        // One line: it is for programs.
        out.line(&serde_json::to_string(&report).map_err(|e| Error::Refused(e.to_string()))?)?;
    } else {
        out.line(&told(&report))?;
    }
    Ok(if report.totals.difference == 0 {
        Done::Well
    } else {
        Done::Differs
    })
}

/// What people read.
fn told(report: &DemoReport) -> String {
    let codes: Vec<&String> = report.totals.denied.keys().collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let mut header: Vec<String> = ["customer", "tier", "requests", "admitted"].map(str::to_owned).to_vec();
    header.extend(codes.iter().map(|code| code.replace('_', " ")));
    header.extend(["counted", "in ledger", "in Stripe", "invoice", "difference"].map(str::to_owned));
    table.set_header(header);
    for customer in &report.customers {
        table.add_row(row(customer, &codes));
    }
    table.add_row(row(&report.totals, &codes));
    for i in 2..table.column_count() {
        if let Some(column) = table.column_mut(i) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut lines = vec![table.to_string(), String::new(), "What happened besides:".to_owned()];
    lines.extend(report.stories.iter().map(|story| format!("  {story}")));
    lines.push(format!("\n{} alerts were sent:", report.alerts.len()));
    let alert = |alert: &SentAlert| format!("  {} {:8} {:36} {}", alert.time, alert.channel, alert.to, alert.subject);
    lines.extend(report.alerts.iter().map(alert));
    lines.push(format!(
        "\n{} meter events in Stripe, {:.2} table writes per decision, {:.1} s.",
        report.stripe_meter_events, report.table_writes_per_decision, report.seconds
    ));
    lines.push(match report.totals.difference {
        0 => "Every unit that was admitted is counted, in the ledger, in Stripe and on the invoice: difference 0."
            .to_owned(),
        difference => format!("THE COUNTS DO NOT AGREE: difference {difference}."),
    });
    lines.join("\n")
}

fn row(customer: &CustomerResult, codes: &[&String]) -> Vec<String> {
    let mut cells = vec![
        customer.customer.clone(),
        customer.tier.clone(),
        customer.requests.to_string(),
        customer.admitted.to_string(),
    ];
    cells.extend(
        codes
            .iter()
            .map(|code| customer.denied.get(*code).copied().unwrap_or(0).to_string()),
    );
    cells.extend([customer.counted_units, customer.ledger_units, customer.stripe_units].map(|n| n.to_string()));
    let cents = customer.invoice_total_cents;
    cells.push(format!("${}.{:02}", cents / 100, cents % 100));
    cells.push(customer.difference.to_string());
    cells
}
