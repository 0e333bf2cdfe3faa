//! One tier: its quota, limits, policies and labels.

use std::collections::{BTreeMap, BTreeSet};

use super::super::check::{SHARDS_MAX, Unsure};
use super::super::value;
use super::super::yaml::{Entry, Kind, Node, Place};
use super::super::{
    AtQuota, BasePrice, Custom, DEFAULT_METER, Interval, Limit, TRIAL_DAYS_MAX, Tier, UsagePrice, alert_percents,
};
use super::{Draft, Marks, Periods, Reader, join, mark};
use crate::money::Money;

const TIER_FIELDS: &[&str] = &[
    "price",
    "included_calls",
    "rate_limit",
    "endpoints",
    "support",
    "overage",
    "sla",
    "at_quota",
    "spend_cap",
    "trial_days",
    "shards",
    "weights",
    "warn_at",
    "alerts_at",
    "past_due",
    "groups",
];

impl Reader<'_> {
    pub(super) fn tier(&mut self, entry: &Entry, path: &str) -> Option<Draft> {
        let node = &entry.node;
        let fields = self.fields(node, path, "a mapping with the tier's fields", TIER_FIELDS)?;
        for required in ["price", "included_calls", "rate_limit", "endpoints"] {
            if !fields.contains_key(required) {
                self.refuse_at(entry.place, &join(path, required), "", missing(required));
            }
        }
        let at = |name: &str| join(path, name);
        let mut marks = Marks::from([(String::new(), (entry.place, String::new()))]);
        for (name, node) in &fields {
            mark(&mut marks, name, node);
        }
        let mut unsure = BTreeSet::new();
        let mut periods = Periods::default();

        let mut price = None;
        if let Some(node) = fields.get("price") {
            price = self.price(node, &at("price"), &mut periods);
        }
        let included = fields.get("included_calls");
        let included = included.and_then(|node| self.included(node, &at("included_calls"), &mut periods, &mut marks));
        if included.is_none() {
            unsure.insert(Unsure::Included);
        }
        let limits = fields
            .get("rate_limit")
            .and_then(|node| self.limits(node, &at("rate_limit"), "rate_limit", &mut marks));
        let endpoints = match fields.get("endpoints") {
            Some(node) => self.patterns(node, &at("endpoints"), "endpoints", &mut marks),
            None => Vec::new(),
        };
        let overage = match fields.get("overage") {
            Some(node) => self.overage(node, &at("overage"), &mut marks),
            None => Some(BTreeMap::new()),
        };
        if overage.is_none() {
            unsure.insert(Unsure::Overage);
        }
        let overage = overage.unwrap_or_default();
        let mut at_quota = Some(if overage.is_empty() {
            AtQuota::Block
        } else {
            AtQuota::Overage
        });
        if let Some(node) = fields.get("at_quota") {
            at_quota = self.at_quota(node, &at("at_quota"), true);
            self.overage_is_priced(
                node,
                &at("at_quota"),
                at_quota,
                &overage,
                included.as_ref(),
                &mut unsure,
            );
        }
        if at_quota.is_none() {
            unsure.insert(Unsure::AtQuota);
        }
        let mut spend_cap = BTreeMap::new();
        if let Some(node) = fields.get("spend_cap") {
            let sure = !unsure.contains(&Unsure::Overage);
            spend_cap = self.spend_cap(
                node,
                &at("spend_cap"),
                sure.then_some(&overage),
                &mut periods,
                &mut marks,
            );
        }
        let trial_days = fields
            .get("trial_days")
            .and_then(|node| self.whole(node, &at("trial_days"), 0, TRIAL_DAYS_MAX.into(), "a number of days"));
        let mut shards = Some(1);
        if let Some(node) = fields.get("shards") {
            shards = self.whole(
                node,
                &at("shards"),
                1,
                u64::from(SHARDS_MAX),
                "a number of counter items",
            );
            if shards.is_none() {
                unsure.insert(Unsure::Shards);
            }
        }
        let weights = fields
            .get("weights")
            .map(|node| self.weights(node, &at("weights"), "weights", &mut marks));
        let warn = fields
            .get("warn_at")
            .and_then(|node| self.parsed(node, &at("warn_at"), "a percentage like 80%", value::percent));
        let alerts = fields
            .get("alerts_at")
            .and_then(|node| self.alerts(node, &at("alerts_at"), &mut marks));
        let past_due = fields
            .get("past_due")
            .and_then(|node| self.parsed(node, &at("past_due"), "keep, throttle(5/min) or block", str::parse));
        let groups = fields
            .get("groups")
            .map(|node| self.groups(node, &at("groups"), &mut periods, &mut marks));
        let support = fields.get("support").and_then(|node| self.label(node, &at("support")));
        let sla = fields.get("sla").and_then(|node| self.label(node, &at("sla")));

        if let (Some(Custom::Fixed((amount, None))), Some(node), None) = (&price, fields.get("price"), periods.first)
            && amount.0 > 0
            && included.is_some()
        {
            self.refuse(node, &at("price"), "has no period: write it like 49/month");
        }
        let interval = periods.first.map_or(Interval::Month, |(interval, _)| interval);
        let price = match price {
            Some(Custom::Fixed((amount, own))) => Custom::Fixed(BasePrice {
                amount,
                interval: own.unwrap_or(interval),
            }),
            _ => Custom::Custom,
        };
        let tier = Tier {
            name: entry.key.clone(),
            price,
            interval: periods.first.map(|(interval, _)| interval),
            included: included.unwrap_or(Custom::Custom),
            limits: limits.unwrap_or(Custom::Custom),
            endpoints,
            overage,
            at_quota: at_quota.unwrap_or(AtQuota::Block),
            spend_cap,
            trial_days: trial_days.unwrap_or(0),
            shards: shards.unwrap_or(1),
            weights: weights.unwrap_or_default(),
            warn_percent: warn.unwrap_or(80),
            alert_percents: alerts.unwrap_or_else(alert_percents),
            past_due: past_due.unwrap_or_default(),
            groups: groups.unwrap_or_default(),
            support,
            sla,
        };
        Some(Draft { tier, marks, unsure })
    }

    fn price(&mut self, node: &Node, field: &str, periods: &mut Periods) -> Option<Custom<(Money, Option<Interval>)>> {
        let currency = self.currency;
        let wanted = "a price like 49/month, 0 or custom";
        let price = self.parsed(node, field, wanted, |text| match text {
            "custom" => Ok(Custom::Custom),
            text => value::money(text, currency).map(Custom::Fixed),
        })?;
        if let Custom::Fixed((_, interval)) = price {
            self.period(node, field, "price", interval, periods);
        }
        Some(price)
    }

    /// Notes a period, which must be that of the fields before.
    pub(super) fn period(
        &mut self,
        node: &Node,
        field: &str,
        name: &'static str,
        interval: Option<Interval>,
        periods: &mut Periods,
    ) {
        match (interval, periods.first) {
            (Some(interval), Some((first, of))) if interval != first => {
                self.refuse(
                    node,
                    field,
                    format!("is per {interval}, but {of} is per {first}: they must agree"),
                );
            }
            (Some(interval), None) => periods.first = Some((interval, name)),
            _ => {}
        }
    }

    fn included(
        &mut self,
        node: &Node,
        field: &str,
        periods: &mut Periods,
        marks: &mut Marks,
    ) -> Option<Custom<BTreeMap<String, Option<u64>>>> {
        let wanted = "a quota like 50000/month, unlimited or custom";
        match &node.kind {
            Kind::Text(text) if text.trim() == "custom" => Some(Custom::Custom),
            Kind::Map(entries) => {
                let mut included = BTreeMap::new();
                let known = self.meter_entries(node, field, "included_calls", marks)?;
                let mut complete = known.len() == entries.len();
                for entry in known {
                    let field = join(field, &entry.key);
                    match self.parsed(
                        &entry.node,
                        &field,
                        "a quota like 50000/month or unlimited",
                        value::quota,
                    ) {
                        Some((units, interval)) => {
                            self.period(&entry.node, &field, "included_calls", interval, periods);
                            included.insert(entry.key.clone(), units);
                        }
                        None => complete = false,
                    }
                }
                complete.then_some(Custom::Fixed(included))
            }
            _ => {
                let (units, interval) = self.parsed(node, field, wanted, value::quota)?;
                self.period(node, field, "included_calls", interval, periods);
                Some(Custom::Fixed(BTreeMap::from([(DEFAULT_METER.to_owned(), units)])))
            }
        }
    }

    /// The entries of a mapping from meters.
    pub(super) fn meter_entries<'n>(
        &mut self,
        node: &'n Node,
        field: &str,
        name: &str,
        marks: &mut Marks,
    ) -> Option<Vec<&'n Entry>> {
        let entries = self.entries(node, field, "a mapping from meters")?;
        if entries.is_empty() {
            self.refuse(node, field, "is empty: give it a value or leave it out");
            return None;
        }
        let mut known = Vec::new();
        for entry in entries {
            mark(marks, &format!("{name}.{}", entry.key), &entry.node);
            if self.meter_is_known(&entry.key, entry.place, &join(field, &entry.key)) {
                known.push(entry);
            }
        }
        Some(known)
    }

    fn meter_is_known(&mut self, meter: &str, place: Place, field: &str) -> bool {
        let Some(meters) = &self.meters else {
            return true;
        };
        if meters.contains(meter) {
            return true;
        }
        let names: Vec<&str> = meters.iter().map(String::as_str).collect();
        let problem = format!("is not a meter: the file has {}", names.join(", "));
        self.refuse_at(place, field, "", problem);
        false
    }

    pub(super) fn limits(
        &mut self,
        node: &Node,
        field: &str,
        name: &str,
        marks: &mut Marks,
    ) -> Option<Custom<Vec<Limit>>> {
        match &node.kind {
            Kind::Text(text) if text.trim() == "custom" => Some(Custom::Custom),
            Kind::Text(text) if text.trim() == "unlimited" => Some(Custom::Fixed(Vec::new())),
            Kind::List(items) if items.is_empty() => {
                self.refuse(node, field, "is empty: write a limit like 100/min, or unlimited");
                None
            }
            Kind::List(items) => {
                let mut limits = Vec::new();
                let mut complete = true;
                for (index, item) in items.iter().enumerate() {
                    mark(marks, &format!("{name}#{index}"), item);
                    match self.parsed(item, field, "a rate limit like 100/min", str::parse) {
                        Some(limit) => limits.push(limit),
                        None => complete = false,
                    }
                }
                complete.then_some(Custom::Fixed(limits))
            }
            _ => {
                let limit = self.parsed(node, field, "a rate limit like 100/min, or a list of them", str::parse)?;
                Some(Custom::Fixed(vec![limit]))
            }
        }
    }

    /// An explicit `overage` needs a price at once, unless nothing can exceed the quota or the quota is agreed later.
    fn overage_is_priced(
        &mut self,
        node: &Node,
        field: &str,
        at_quota: Option<AtQuota>,
        overage: &BTreeMap<String, UsagePrice>,
        included: Option<&Custom<BTreeMap<String, Option<u64>>>>,
        unsure: &mut BTreeSet<Unsure>,
    ) {
        let may_lack = match included {
            Some(Custom::Fixed(included)) => included.values().all(Option::is_none),
            Some(Custom::Custom) => true,
            None => false,
        };
        let lacks = overage.is_empty() && !unsure.contains(&Unsure::Overage);
        if at_quota == Some(AtQuota::Overage) && lacks && !may_lack {
            self.refuse(
                node,
                field,
                "bills what exceeds the quota, but no overage price is given",
            );
            unsure.insert(Unsure::AtQuota);
        }
    }

    pub(super) fn at_quota(&mut self, node: &Node, field: &str, may_bill: bool) -> Option<AtQuota> {
        let wanted = if may_bill {
            "overage, block or throttle(5/min)"
        } else {
            "block or throttle(5/min)"
        };
        self.parsed(node, field, wanted, |text| match (text, value::throttle(text)) {
            ("block", _) => Ok(AtQuota::Block),
            ("overage", _) if may_bill => Ok(AtQuota::Overage),
            ("overage", _) => Err("is not for a group: what exceeds a group's quota is not billed".to_owned()),
            (_, Some(limit)) => limit
                .map(AtQuota::Throttle)
                .map_err(|_| "is not a throttle: write it with a slower limit, like throttle(5/min)".to_owned()),
            _ => Err(format!("is not a policy: write {wanted}")),
        })
    }

    /// Percentages to alert at, one or a list, in ascending order.
    fn alerts(&mut self, node: &Node, field: &str, marks: &mut Marks) -> Option<Vec<u16>> {
        let items = match &node.kind {
            Kind::List(items) => items,
            _ => std::slice::from_ref(node),
        };
        let wanted = "a percentage like 80%, or a list of them";
        let mut percents = Vec::new();
        for item in items {
            let percent = self.parsed(item, field, wanted, value::alert_percent);
            percents.extend(percent.map(|percent| (percent, item)));
        }
        if percents.len() < items.len() {
            return None;
        }
        percents.sort_by_key(|(percent, _)| *percent);
        for (index, (_, item)) in percents.iter().enumerate() {
            mark(marks, &format!("alerts_at#{index}"), item);
        }
        Some(percents.into_iter().map(|(percent, _)| percent).collect())
    }

    fn whole(&mut self, node: &Node, field: &str, least: u64, most: u64, wanted: &str) -> Option<u32> {
        self.parsed(node, field, wanted, |text| match value::count(text) {
            Ok(count) if (least..=most).contains(&count) => Ok(u32::try_from(count).unwrap_or(u32::MAX)),
            _ => Err(format!("is not {wanted} from {least} to {most}")),
        })
    }

    fn label(&mut self, node: &Node, field: &str) -> Option<String> {
        self.parsed(node, field, "a short text", |text| {
            if text.is_empty() {
                Err("is empty: give it a value or leave it out")
            } else if text.len() > 200 || text.chars().any(char::is_control) {
                Err("is not a short text: at most 200 bytes on one line")
            } else {
                Ok(text.to_owned())
            }
        })
    }
}

pub(super) fn missing(field: &str) -> &'static str {
    match field {
        "price" => "is missing: write a price like 49/month, 0 or custom",
        "included_calls" => "is missing: write a quota like 50000/month, unlimited or custom",
        "rate_limit" => "is missing: write a limit like 100/min, unlimited or custom",
        _ => "is missing: name at least one route, like [/v1/*]",
    }
}
