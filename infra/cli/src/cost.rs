//! `farebox cost`: the monthly AWS bill, line by line, with and without coalescing.

use std::collections::BTreeSet;

use farebox_core::cost::{Estimate, Input, Line, Totals, estimate};
use serde::Serialize;

use crate::{
    arguments::Cost,
    failure::{Done, Failure},
    show::Out,
};

/// The same month twice.
#[derive(Serialize)]
struct Bills {
    /// At most one usage message a second for each row and environment: what the authorizer does.
    coalesced: Estimate,
    /// One for each admitted call.
    not_coalesced: Estimate,
}

pub(crate) fn run(cost: &Cost, out: Out) -> Result<Done, Failure> {
    let bill = |coalescing: bool| {
        estimate(&Input {
            calls: cost.calls,
            customers: cost.customers,
            remembered_percent: cost.remembered,
            coalescing,
            ..Input::default()
        })
        .map_err(Failure::usage)
    };
    let bills = Bills {
        coalesced: bill(true)?,
        not_coalesced: bill(false)?,
    };
    out.show(&bills, || told(&bills, out))?;
    Ok(Done::Well)
}

fn told(
    Bills {
        coalesced,
        not_coalesced,
    }: &Bills,
    out: Out,
) -> String {
    let header = [
        "for",
        "service",
        "what",
        "quantity",
        "price",
        "a month",
        "not coalesced",
    ];
    let row = |line: &Line| {
        let same = |other: &&Line| (other.part, other.service, other.item) == (line.part, line.service, line.item);
        let other = not_coalesced.lines.iter().find(same);
        vec![
            line.part.to_string(),
            line.service.to_owned(),
            line.item.to_owned(),
            line.quantity.to_string(),
            line.price.to_string(),
            line.amount.to_string(),
            other.map(|line| line.amount.to_string()).unwrap_or_default(),
        ]
    };
    let lines = out.table(&header, 3, coalesced.lines.iter().map(row).collect());
    let sums = |totals: &Totals| {
        format!(
            "API Gateway itself {}, Farebox {} ({} by use, {} without a call), together {}",
            totals.gateway, totals.farebox, totals.farebox_use, totals.farebox_fixed, totals.all
        )
    };
    let mut text = format!(
        "{lines}\n\nA month: {}.\nWith a usage message for each call, not coalesced: Farebox {}, together {}.\n",
        sums(&coalesced.month),
        not_coalesced.month.farebox,
        not_coalesced.month.all
    );
    if let Some(per_million) = &coalesced.per_million {
        text.push_str(&format!("A million calls: {}.\n", sums(per_million)));
    }
    let input = &coalesced.input;
    text.push_str(&format!(
        "Supposed: {} customers, who call in {} hours of the month and {} seconds of each; {} environments of {} MB, {} ms for a decision.\n",
        input.customers, input.buckets, input.active_seconds, input.environments, input.memory_mb, input.decision_ms
    ));
    let sources: BTreeSet<&str> = coalesced.lines.iter().map(|line| line.price.source).collect();
    let sources: Vec<&str> = sources.into_iter().collect();
    text.push_str(&format!(
        "List prices of {} in {}, before any free tier: look at AWS's pages before you rely on them.\nLeft out: {}.\nPrices: {}",
        coalesced.prices_as_of,
        input.region,
        coalesced.left_out.join("; "),
        sources.join("\n        ")
    ));
    text
}
