//! `farebox cost`: the monthly AWS bill, line by line.

use farebox_core::cost::{Estimate, Input, Totals, estimate};

use crate::{
    arguments::Cost,
    failure::{Done, Failure},
    show::Out,
};

pub(crate) fn run(cost: &Cost, out: Out) -> Result<Done, Failure> {
    let input = Input {
        calls: cost.calls,
        customers: cost.customers,
        remembered_percent: cost.remembered,
        coalescing: !cost.no_coalescing,
        ..Input::default()
    };
    let estimate = estimate(&input).map_err(Failure::usage)?;
    out.show(&estimate, || told(&estimate, out))?;
    Ok(Done::Well)
}

fn told(estimate: &Estimate, out: Out) -> String {
    let line = |line: &farebox_core::cost::Line| {
        vec![
            line.part.to_string(),
            line.service.to_owned(),
            line.item.to_owned(),
            line.quantity.to_string(),
            line.price.to_string(),
            line.amount.to_string(),
        ]
    };
    let header = ["for", "service", "what", "quantity", "price", "a month"];
    let lines = out.table(&header, 3, estimate.lines.iter().map(line).collect());
    let sums = |totals: &Totals| {
        format!(
            "API Gateway itself {}, Farebox {} ({} by use, {} without a call), together {}",
            totals.gateway, totals.farebox, totals.farebox_use, totals.farebox_fixed, totals.all
        )
    };
    let mut text = format!("{lines}\n\nA month: {}.\n", sums(&estimate.month));
    if let Some(per_million) = &estimate.per_million {
        text.push_str(&format!("A million calls: {}.\n", sums(per_million)));
    }
    text.push_str(&format!(
        "List prices of {} in us-east-1, before any free tier: look at AWS's pages before you rely on them. Left out: {}.",
        estimate.prices_as_of,
        estimate.left_out.join("; ")
    ));
    text
}
