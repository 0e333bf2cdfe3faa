//! What usage costs, and its cap.

use std::collections::BTreeMap;

use super::super::yaml::{Kind, Node};
use super::super::{DEFAULT_METER, Step, UsagePrice, value};
use super::{Marks, Periods, Reader, join};
use crate::money::Money;

const STEP_FIELDS: &[&str] = &["up_to", "unit", "flat"];

impl Reader<'_> {
    pub(super) fn overage(
        &mut self,
        node: &Node,
        field: &str,
        marks: &mut Marks,
    ) -> Option<BTreeMap<String, UsagePrice>> {
        let mut prices = BTreeMap::new();
        match &node.kind {
            Kind::Map(entries)
                if !entries
                    .iter()
                    .any(|entry| entry.key == "graduated" || entry.key == "volume") =>
            {
                let known = self.meter_entries(node, field, "overage", marks)?;
                let mut complete = known.len() == entries.len();
                for entry in known {
                    match self.usage_price(&entry.node, &join(field, &entry.key), Some(&entry.key)) {
                        Some((_, price)) => {
                            prices.insert(entry.key.clone(), price);
                        }
                        None => complete = false,
                    }
                }
                complete.then_some(prices)
            }
            _ => {
                let (meter, price) = self.usage_price(node, field, None)?;
                Some(BTreeMap::from([(meter, price)]))
            }
        }
    }

    /// A price, and the meter that it is for: `meter`, or what the price itself names.
    fn usage_price(&mut self, node: &Node, field: &str, meter: Option<&str>) -> Option<(String, UsagePrice)> {
        let currency = self.currency;
        let wanted = "a price like $0.002/call, or a mapping with graduated or volume";
        if let Kind::Map(_) = &node.kind {
            let fields = self.fields(node, field, wanted, &["graduated", "volume"])?;
            let meter = meter.unwrap_or(DEFAULT_METER).to_owned();
            return match (fields.get("graduated"), fields.get("volume")) {
                (Some(steps), None) => Some((
                    meter,
                    UsagePrice::Graduated(self.steps(steps, &join(field, "graduated"))?),
                )),
                (None, Some(steps)) => Some((meter, UsagePrice::Volume(self.steps(steps, &join(field, "volume"))?))),
                _ => {
                    self.refuse(node, field, "needs exactly one of graduated and volume");
                    None
                }
            };
        }
        let text = self.text(node, field, wanted)?;
        let (price, unit) = match value::unit_price(text, currency) {
            Ok(price) => price,
            Err(problem) => {
                self.refuse(node, field, problem);
                return None;
            }
        };
        let named = unit.filter(|unit| !matches!(*unit, "call" | "unit" | "request"));
        match (meter, named) {
            (Some(meter), Some(named)) if meter != named => {
                self.refuse(node, field, format!("is per {named}, but stands at the meter {meter}"));
                None
            }
            (Some(meter), _) => Some((meter.to_owned(), UsagePrice::PerUnit(price))),
            (None, Some(named)) if self.meters.as_ref().is_some_and(|meters| !meters.contains(named)) => {
                let meters: Vec<&str> = self.meters.iter().flatten().map(String::as_str).collect();
                let problem = format!(
                    "is per {named}: write /call, or a meter of the file ({})",
                    meters.join(", ")
                );
                self.refuse(node, field, problem);
                None
            }
            (None, named) => Some((named.unwrap_or(DEFAULT_METER).to_owned(), UsagePrice::PerUnit(price))),
        }
    }

    fn steps(&mut self, node: &Node, field: &str) -> Option<Vec<Step>> {
        let Kind::List(items) = &node.kind else {
            self.refuse_kind(node, field, "a list of steps like {up_to: 100000, unit: $0.002}");
            return None;
        };
        let mut steps = Vec::new();
        for item in items {
            let fields = self.fields(item, field, "a step like {up_to: 100000, unit: $0.002}", STEP_FIELDS);
            let step = fields.and_then(|fields| self.step(item, &fields, field));
            steps.push(step);
        }
        steps.into_iter().collect()
    }

    fn step(&mut self, item: &Node, fields: &BTreeMap<&str, &Node>, field: &str) -> Option<Step> {
        let currency = self.currency;
        if !fields.contains_key("unit") && !fields.contains_key("flat") {
            self.refuse(item, field, "has a step without a price: give it unit, flat or both");
            return None;
        }
        let up_to = match fields.get("up_to") {
            Some(node) => self.parsed(node, &join(field, "up_to"), "a number of units", |text| match text {
                "inf" | "unlimited" => Ok(None),
                text => value::count(text).map(Some),
            }),
            None => Some(None),
        };
        let unit = match fields.get("unit") {
            Some(node) => {
                let read = |text: &str| match value::unit_price(text, currency) {
                    Ok((price, None | Some("call" | "unit" | "request"))) => Ok(price),
                    Ok((_, Some(_))) => Err("names a unit: leave it out, as the meter says it".to_owned()),
                    Err(problem) => Err(problem),
                };
                self.parsed(node, &join(field, "unit"), "a unit price like $0.002", read)
            }
            None => Some(Default::default()),
        };
        let flat = match fields.get("flat") {
            Some(node) => {
                let read = |text: &str| value::flat(text, currency);
                self.parsed(node, &join(field, "flat"), "an amount like $5", read)
            }
            None => Some(Money(0)),
        };
        Some(Step {
            up_to: up_to?,
            unit: unit?,
            flat: flat?,
        })
    }

    pub(super) fn spend_cap(
        &mut self,
        node: &Node,
        field: &str,
        overage: Option<&BTreeMap<String, UsagePrice>>,
        periods: &mut Periods,
        marks: &mut Marks,
    ) -> BTreeMap<String, Money> {
        let currency = self.currency;
        let mut caps = BTreeMap::new();
        let read = |text: &str| value::money(text, currency);
        if let Kind::Map(_) = &node.kind {
            for entry in self.meter_entries(node, field, "spend_cap", marks).unwrap_or_default() {
                let field = join(field, &entry.key);
                if let Some((cap, interval)) = self.parsed(&entry.node, &field, "an amount like $100/month", read) {
                    self.period(&entry.node, &field, "spend_cap", interval, periods);
                    caps.insert(entry.key.clone(), cap);
                }
            }
            return caps;
        }
        let Some((cap, interval)) = self.parsed(node, field, "an amount like $100/month", read) else {
            return caps;
        };
        self.period(node, field, "spend_cap", interval, periods);
        let Some(overage) = overage else { return caps };
        let mut priced = overage.keys();
        match (priced.next(), priced.next()) {
            (Some(meter), None) => {
                caps.insert(meter.clone(), cap);
            }
            (None, _) => self.refuse(node, field, "caps nothing: the tier has no overage price"),
            (Some(_), Some(_)) => {
                self.refuse(
                    node,
                    field,
                    "does not say which meter: write a mapping from each priced meter to its cap",
                );
            }
        }
        caps
    }
}
