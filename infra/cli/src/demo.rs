//! `farebox demo`: the replay's report as a table or as JSON.

use comfy_table::{CellAlignment, Table, presets};
use farebox_local::{CustomerResult, DemoReport, Error, replay};
use indicatif::{ProgressBar, ProgressStyle};

use crate::failure::Done;

pub(crate) async fn run(json: bool) -> Result<Done, Error> {
    let bar = if json {
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
    if json {
        println!(
            "{}",
            serde_json::to_string(&report).map_err(|e| Error::Refused(e.to_string()))?
        );
    } else {
        print(&report);
    }
    Ok(if report.totals.difference == 0 {
        Done::Well
    } else {
        Done::Differs
    })
}

fn print(report: &DemoReport) {
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
    println!("{table}");
    println!("\nWhat happened besides:");
    for story in &report.stories {
        println!("  {story}");
    }
    println!("\n{} alerts were sent:", report.alerts.len());
    for alert in &report.alerts {
        println!("  {} {:8} {:36} {}", alert.time, alert.channel, alert.to, alert.subject);
    }
    println!(
        "\n{} meter events in Stripe, {:.2} table writes per decision, {:.1} s.",
        report.stripe_meter_events, report.table_writes_per_decision, report.seconds
    );
    if report.totals.difference == 0 {
        println!("Every unit that was admitted is counted, in the ledger, in Stripe and on the invoice: difference 0.");
    } else {
        println!("THE COUNTS DO NOT AGREE: difference {}.", report.totals.difference);
    }
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
