//! From YAML nodes to a [`Catalog`], with every mistake on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use super::check::{At, Broken, GROUPS_MAX, METERS_MAX, SHARDS_MAX, Unsure, check};
use super::error::shortened;
use super::value;
use super::yaml::{self, Entry, Kind, Node, Place};
use super::{
    AtQuota, BasePrice, Catalog, Custom, DEFAULT_METER, Group, Interval, Limit, Pattern, Step, Tier, TierError,
    TierErrors, UsagePrice, alert_percents,
};
use crate::money::{Currency, Money};

/// The largest weight of a request.
const WEIGHT_MAX: u64 = 1_000_000;
/// Stripe's longest trial.
const TRIAL_DAYS_MAX: u64 = 730;
/// Bounds that keep the check of a file, and the search for a route, short.
const TIERS_MAX: usize = 16;
const PATTERNS_MAX: usize = 250;
const ENDPOINTS_MAX: usize = 500;
/// After so many mistakes the rest is left out.
const ERRORS_MAX: usize = 200;

const FILE_FIELDS: &[&str] = &["tiers", "currency", "weights", "meters"];
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
const GROUP_FIELDS: &[&str] = &["endpoints", "rate_limit", "included_calls", "at_quota"];
const STEP_FIELDS: &[&str] = &["up_to", "unit", "flat"];

impl Catalog {
    /// Reads and checks a `tiers.yaml`. `file_name` is only what the errors call it.
    ///
    /// `Err` holds every mistake of the file at once, each with its line; only what is no YAML at all hides the rest.
    pub fn from_yaml(text: &str, file_name: &str) -> Result<Self, TierErrors> {
        let root = yaml::load(text).map_err(|error| {
            let Place { line, column } = error.place;
            let (field, value, problem) = (String::new(), String::new(), error.problem);
            TierErrors::new(vec![TierError {
                file: file_name.to_owned(),
                line,
                column,
                field,
                value,
                problem,
            }])
        })?;
        let mut reader = Reader::new(file_name);
        match reader.file(&root) {
            Some(catalog) if reader.errors.is_empty() => Ok(catalog),
            _ => Err(TierErrors::new(reader.errors)),
        }
    }
}

/// What a field says, where it is, for rules that are checked later.
type Marks = BTreeMap<String, (Place, String)>;

struct Reader<'a> {
    file: &'a str,
    currency: Currency,
    errors: Vec<TierError>,
    /// A pattern, weight or meter of the file could not be read.
    routes_unsure: bool,
    /// Meter names of the file, if they could be read.
    meters: Option<BTreeSet<String>>,
}

/// A tier as far as it could be read.
struct Draft {
    tier: Tier,
    marks: Marks,
    unsure: BTreeSet<Unsure>,
}

/// The periods that a tier names, to agree with the first of them.
#[derive(Default)]
struct Periods {
    first: Option<(Interval, &'static str)>,
}

impl<'a> Reader<'a> {
    fn new(file: &'a str) -> Self {
        Self {
            file,
            currency: Currency::USD,
            errors: Vec::new(),
            routes_unsure: false,
            meters: None,
        }
    }

    fn error(&self, place: Place, field: &str, value: &str, problem: impl Display) -> TierError {
        TierError {
            file: self.file.to_owned(),
            line: place.line,
            column: place.column,
            field: field.to_owned(),
            value: shortened(value),
            problem: problem.to_string(),
        }
    }

    fn refuse_at(&mut self, place: Place, field: &str, value: &str, problem: impl Display) {
        if self.errors.len() < ERRORS_MAX {
            let error = self.error(place, field, value, problem);
            self.errors.push(error);
        }
    }

    fn refuse(&mut self, node: &Node, field: &str, problem: impl Display) {
        let value = match &node.kind {
            Kind::Text(text) => text.as_str(),
            _ => "",
        };
        self.refuse_at(node.place, field, value, problem);
    }

    fn refuse_kind(&mut self, node: &Node, field: &str, wanted: &str) {
        match &node.kind {
            Kind::Null => self.refuse(node, field, "is empty: give it a value or leave it out"),
            Kind::Refused(problem) => self.refuse(node, field, problem),
            Kind::Text(_) => self.refuse(node, field, format!("is not {wanted}")),
            Kind::List(_) => self.refuse(node, field, format!("is a list: write {wanted}")),
            Kind::Map(_) => self.refuse(node, field, format!("is a mapping: write {wanted}")),
        }
    }

    fn text<'n>(&mut self, node: &'n Node, field: &str, wanted: &str) -> Option<&'n str> {
        match &node.kind {
            Kind::Text(text) => Some(text.trim()),
            _ => {
                self.refuse_kind(node, field, wanted);
                None
            }
        }
    }

    /// Reads a text by `read`.
    fn parsed<T, E: Display>(
        &mut self,
        node: &Node,
        field: &str,
        wanted: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match read(self.text(node, field, wanted)?) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.refuse(node, field, problem);
                None
            }
        }
    }

    /// The entries of a mapping, without those whose key was there before.
    fn entries<'n>(&mut self, node: &'n Node, field: &str, wanted: &str) -> Option<Vec<&'n Entry>> {
        let Kind::Map(entries) = &node.kind else {
            self.refuse_kind(node, field, wanted);
            return None;
        };
        let mut first: BTreeMap<&str, usize> = BTreeMap::new();
        let mut kept = Vec::new();
        for entry in entries {
            match first.get(entry.key.as_str()) {
                Some(line) => {
                    let problem = format!("is here a second time, first on line {line}");
                    self.refuse_at(entry.place, &join(field, &entry.key), "", problem);
                }
                None => {
                    first.insert(&entry.key, entry.place.line);
                    kept.push(entry);
                }
            }
        }
        Some(kept)
    }

    /// The entries of a mapping with known keys.
    fn fields<'n>(
        &mut self,
        node: &'n Node,
        field: &str,
        wanted: &str,
        known: &[&str],
    ) -> Option<BTreeMap<&'n str, &'n Node>> {
        let mut found = BTreeMap::new();
        for entry in self.entries(node, field, wanted)? {
            if known.contains(&entry.key.as_str()) {
                found.insert(entry.key.as_str(), &entry.node);
            } else {
                let problem = match near(&entry.key, known) {
                    Some(near) => format!("is not a field: did you mean {near}?"),
                    None => format!("is not a field: there are {}", known.join(", ")),
                };
                self.refuse_at(entry.place, &join(field, &shortened(&entry.key)), "", problem);
            }
        }
        Some(found)
    }

    fn file(&mut self, root: &Node) -> Option<Catalog> {
        let fields = self.fields(root, "", "a mapping with the field tiers", FILE_FIELDS)?;
        if let Some(node) = fields.get("currency") {
            self.currency = self
                .parsed(node, "currency", "a currency code", str::parse)
                .unwrap_or_default();
        }
        let mut marks = Marks::new();
        let meters = fields.get("meters").map(|node| self.meters(node)).unwrap_or_default();
        if !self.routes_unsure {
            let names = meters.iter().map(|(_, meter)| meter.clone());
            self.meters = Some(names.chain([DEFAULT_METER.to_owned()]).collect());
        }
        let weights = fields
            .get("weights")
            .map(|node| self.weights(node, "weights", "weights", &mut marks));
        let Some(tiers) = fields.get("tiers") else {
            self.refuse(root, "tiers", "is missing: the file needs at least one tier");
            return None;
        };
        let drafts = self.tiers(tiers)?;
        self.endpoints_ordered(&drafts);
        let tiers = drafts.iter().map(|draft| draft.tier.clone()).collect();
        let catalog = Catalog {
            currency: self.currency,
            tiers,
            meters,
            weights: weights.unwrap_or_default(),
        };
        for (index, draft) in drafts.into_iter().enumerate() {
            self.check(&catalog, index, draft, &marks);
        }
        Some(catalog)
    }

    fn tiers(&mut self, node: &Node) -> Option<Vec<Draft>> {
        let entries = self.entries(node, "tiers", "a mapping from each tier's name to its fields")?;
        if entries.is_empty() {
            self.refuse(node, "tiers", "is empty: the file needs at least one tier");
        }
        if entries.len() > TIERS_MAX {
            self.refuse(
                node,
                "tiers",
                format!("has {} tiers: at most {TIERS_MAX}", entries.len()),
            );
            return None;
        }
        let mut drafts = Vec::new();
        for entry in entries {
            let path = join("tiers", &shortened(&entry.key));
            if !is_name(&entry.key, 32, "_-") {
                let problem = "is not a tier's name: use a-z, 0-9, _ and -, at most 32";
                self.refuse_at(entry.place, &path, "", problem);
            }
            match self.tier(entry, &path) {
                Some(draft) => drafts.push(draft),
                None => self.routes_unsure = true,
            }
        }
        Some(drafts)
    }

    fn tier(&mut self, entry: &Entry, path: &str) -> Option<Draft> {
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
            .and_then(|node| self.whole(node, &at("trial_days"), 0, TRIAL_DAYS_MAX, "a number of days"));
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
    fn period(
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
    fn meter_entries<'n>(
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

    fn limits(&mut self, node: &Node, field: &str, name: &str, marks: &mut Marks) -> Option<Custom<Vec<Limit>>> {
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

    /// A list of patterns, without repeats.
    fn patterns(&mut self, node: &Node, field: &str, name: &str, marks: &mut Marks) -> Vec<Pattern> {
        let single = std::slice::from_ref(node);
        let items: &[Node] = match &node.kind {
            Kind::List(items) => items,
            Kind::Text(_) => single,
            _ => {
                self.routes_unsure = true;
                self.refuse_kind(node, field, "a list of routes like [/v1/items/*, POST /v1/items]");
                return Vec::new();
            }
        };
        if items.is_empty() {
            self.routes_unsure = true;
            self.refuse(node, field, "is empty: name at least one route");
        }
        if items.len() > PATTERNS_MAX {
            self.routes_unsure = true;
            self.refuse(
                node,
                field,
                format!("has {} routes: at most {PATTERNS_MAX}", items.len()),
            );
            return Vec::new();
        }
        let mut patterns: Vec<Pattern> = Vec::new();
        for item in items {
            let Some(pattern) = self.parsed(item, field, "a route like /v1/items/*", str::parse::<Pattern>) else {
                self.routes_unsure = true;
                continue;
            };
            if let Some(index) = patterns.iter().position(|earlier| *earlier == pattern) {
                let line = marks.get(&format!("{name}#{index}")).map_or(0, |(place, _)| place.line);
                self.refuse(item, field, format!("is the same route as one on line {line}"));
                continue;
            }
            mark(marks, &format!("{name}#{}", patterns.len()), item);
            patterns.push(pattern);
        }
        patterns
    }

    /// Refuses patterns of one kind that overlap without order, as none of them could decide.
    fn ordered(&mut self, field: &str, patterns: &[(&Pattern, Place, String)]) {
        for (index, (pattern, place, value)) in patterns.iter().enumerate() {
            let Some((other, other_place, _)) = patterns
                .iter()
                .take(index)
                .find(|(other, ..)| pattern.is_unordered_with(other))
            else {
                continue;
            };
            let line = other_place.line;
            let problem = format!(
                "and {other} on line {line} match some route both, and neither is the more specific one: \
                 write them so that one contains the other, or so that they do not meet"
            );
            let field = field_of(field, value);
            self.refuse_at(*place, &field, &pattern.to_string(), problem);
            self.routes_unsure = true;
        }
    }

    fn endpoints_ordered(&mut self, drafts: &[Draft]) {
        let mut patterns: Vec<(&Pattern, Place, String)> = Vec::new();
        for draft in drafts {
            for (index, pattern) in draft.tier.endpoints.iter().enumerate() {
                // A pattern that a lower tier names already has been compared with all before.
                if patterns.iter().any(|(earlier, ..)| *earlier == pattern) {
                    continue;
                }
                let (place, _) = look_up(&draft.marks, &format!("endpoints#{index}"));
                patterns.push((pattern, place, draft.tier.name.clone()));
            }
        }
        if patterns.len() > ENDPOINTS_MAX {
            let place = patterns.first().map(|(_, place, _)| *place).unwrap_or_default();
            let problem = format!("name {} different routes: at most {ENDPOINTS_MAX}", patterns.len());
            self.refuse_at(place, "tiers", "", problem);
            self.routes_unsure = true;
            return;
        }
        self.ordered("tiers.?.endpoints", &patterns);
    }

    fn overage(&mut self, node: &Node, field: &str, marks: &mut Marks) -> Option<BTreeMap<String, UsagePrice>> {
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

    fn at_quota(&mut self, node: &Node, field: &str, may_bill: bool) -> Option<AtQuota> {
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

    fn spend_cap(
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

    fn weights(&mut self, node: &Node, field: &str, name: &str, marks: &mut Marks) -> Vec<(Pattern, u64)> {
        let mut weights: Vec<(Pattern, u64)> = Vec::new();
        let mut places = Vec::new();
        let Some(entries) = self.entries(
            node,
            field,
            "a mapping from routes to units, like {POST /v1/generate: 50}",
        ) else {
            self.routes_unsure = true;
            return weights;
        };
        if entries.len() > PATTERNS_MAX {
            self.routes_unsure = true;
            self.refuse(
                node,
                field,
                format!("has {} routes: at most {PATTERNS_MAX}", entries.len()),
            );
            return weights;
        }
        for entry in entries {
            let pattern = self.key_pattern(entry, field);
            let own = format!("{field}: {}", shortened(&entry.key));
            let weight = self.parsed(&entry.node, &own, "a number of units", |text| {
                match value::count(text) {
                    Ok(count @ 1..=WEIGHT_MAX) => Ok(count),
                    _ => Err(format!("is not a number of units from 1 to {WEIGHT_MAX}")),
                }
            });
            let (Some(pattern), Some(weight)) = (pattern, weight) else {
                self.routes_unsure = true;
                continue;
            };
            if let Some(index) = weights.iter().position(|(earlier, _)| *earlier == pattern) {
                let line = places.get(index).map_or(0, |place: &Place| place.line);
                self.refuse_at(
                    entry.place,
                    field,
                    &entry.key,
                    format!("is the same route as one on line {line}"),
                );
                continue;
            }
            marks.insert(format!("{name}#{}", weights.len()), (entry.place, entry.key.clone()));
            places.push(entry.place);
            weights.push((pattern, weight));
        }
        let places = places.into_iter();
        let patterns: Vec<_> = weights
            .iter()
            .zip(places)
            .map(|((pattern, _), place)| (pattern, place, String::new()))
            .collect();
        self.ordered(field, &patterns);
        weights
    }

    fn key_pattern(&mut self, entry: &Entry, field: &str) -> Option<Pattern> {
        match entry.key.trim().parse() {
            Ok(pattern) => Some(pattern),
            Err(problem) => {
                self.refuse_at(entry.place, field, &entry.key, problem);
                None
            }
        }
    }

    fn meters(&mut self, node: &Node) -> Vec<(Pattern, String)> {
        let mut meters = Vec::new();
        let mut places: Vec<Place> = Vec::new();
        let wanted = "a mapping from meters to routes, like {tokens: [POST /v1/generate]}";
        let Some(entries) = self.entries(node, "meters", wanted) else {
            self.routes_unsure = true;
            return meters;
        };
        if entries.len() > METERS_MAX {
            self.refuse(
                node,
                "meters",
                format!("has {} meters: at most {METERS_MAX}", entries.len()),
            );
        }
        for entry in entries {
            let field = join("meters", &shortened(&entry.key));
            if !is_name(&entry.key, 20, "_") {
                self.refuse_at(
                    entry.place,
                    &field,
                    "",
                    "is not a meter's name: use a-z, 0-9 and _, at most 20",
                );
                self.routes_unsure = true;
            }
            if matches!(entry.key.as_str(), "call" | "unit" | "request" | "graduated" | "volume") {
                self.refuse_at(
                    entry.place,
                    &field,
                    "",
                    "is not a meter's name: the word has a meaning in overage",
                );
                self.routes_unsure = true;
            }
            if entry.key == "base" {
                let problem = "is not a meter's name: the tier's own price is called so in Stripe";
                self.refuse_at(entry.place, &field, "", problem);
                self.routes_unsure = true;
            }
            let mut marks = Marks::new();
            for (index, pattern) in self
                .patterns(&entry.node, &field, "m", &mut marks)
                .into_iter()
                .enumerate()
            {
                let (place, value) = look_up(&marks, &format!("m#{index}"));
                if let Some(earlier) = meters.iter().position(|(earlier, _)| *earlier == pattern) {
                    let line = places.get(earlier).map_or(0, |place| place.line);
                    self.refuse_at(
                        place,
                        &field,
                        &value,
                        format!("is the same route as one on line {line}"),
                    );
                    continue;
                }
                places.push(place);
                meters.push((pattern, entry.key.clone()));
            }
        }
        let named = meters.iter().zip(places);
        let patterns: Vec<_> = named
            .map(|((pattern, meter), place)| (pattern, place, meter.clone()))
            .collect();
        self.ordered("meters.?", &patterns);
        meters
    }

    fn groups(&mut self, node: &Node, field: &str, periods: &mut Periods, marks: &mut Marks) -> Vec<Group> {
        let Some(entries) = self.entries(node, field, "a mapping from each group's name to its fields") else {
            return Vec::new();
        };
        if entries.len() > GROUPS_MAX {
            self.refuse(
                node,
                field,
                format!("has {} groups: at most {GROUPS_MAX}", entries.len()),
            );
        }
        let mut groups: Vec<Group> = Vec::new();
        for entry in entries {
            let path = join(field, &shortened(&entry.key));
            if !is_name(&entry.key, 16, "_") {
                self.refuse_at(
                    entry.place,
                    &path,
                    "",
                    "is not a group's name: use a-z, 0-9 and _, at most 16",
                );
            }
            groups.extend(self.group(entry, &path, periods, marks));
        }
        let mut patterns: Vec<(&Pattern, Place, String)> = Vec::new();
        for group in &groups {
            for (index, pattern) in group.endpoints.iter().enumerate() {
                let (place, value) = look_up(marks, &format!("groups.{}.endpoints#{index}", group.name));
                if let Some((_, earlier, _)) = patterns.iter().find(|(earlier, ..)| *earlier == pattern) {
                    let field = format!("{field}.{}.endpoints", group.name);
                    let problem = format!("is the same route as one on line {}", earlier.line);
                    self.refuse_at(place, &field, &value, problem);
                    continue;
                }
                patterns.push((pattern, place, group.name.clone()));
            }
        }
        self.ordered(&format!("{field}.?.endpoints"), &patterns);
        groups
    }

    fn group(&mut self, entry: &Entry, path: &str, periods: &mut Periods, marks: &mut Marks) -> Option<Group> {
        let fields = self.fields(&entry.node, path, "a mapping with the group's fields", GROUP_FIELDS)?;
        let name = format!("groups.{}", entry.key);
        marks.insert(name.clone(), (entry.place, String::new()));
        for (field, node) in &fields {
            mark(marks, &format!("{name}.{field}"), node);
        }
        let at = |field: &str| join(path, field);
        let endpoints = match fields.get("endpoints") {
            Some(node) => self.patterns(node, &at("endpoints"), &format!("{name}.endpoints"), marks),
            None => {
                self.refuse_at(entry.place, &at("endpoints"), "", missing("endpoints"));
                Vec::new()
            }
        };
        let limits = match fields.get("rate_limit") {
            Some(node) => match self.limits(node, &at("rate_limit"), &format!("{name}.rate_limit"), marks) {
                Some(Custom::Custom) => {
                    self.refuse(
                        node,
                        &at("rate_limit"),
                        "is not for a group: write a rate limit like 5/s",
                    );
                    Vec::new()
                }
                Some(Custom::Fixed(limits)) => limits,
                None => Vec::new(),
            },
            None => Vec::new(),
        };
        let mut included = None;
        if let Some(node) = fields.get("included_calls") {
            let wanted = "a quota like 100/month";
            if let Some((units, interval)) = self.parsed(node, &at("included_calls"), wanted, value::quota) {
                self.period(node, &at("included_calls"), "included_calls", interval, periods);
                included = units;
                if units == Some(0) {
                    self.refuse(
                        node,
                        &at("included_calls"),
                        "includes nothing: leave the routes out of the tier",
                    );
                }
            }
        }
        let at_quota = fields
            .get("at_quota")
            .and_then(|node| self.at_quota(node, &at("at_quota"), false));
        if !fields.contains_key("rate_limit") && !fields.contains_key("included_calls") {
            self.refuse_at(
                entry.place,
                path,
                "",
                "limits nothing: give it rate_limit, included_calls or both",
            );
        }
        let at_quota = at_quota.unwrap_or(AtQuota::Block);
        Some(Group {
            name: entry.key.clone(),
            endpoints,
            limits,
            included,
            at_quota,
        })
    }

    /// Checks the tier's fields against each other.
    fn check(&mut self, catalog: &Catalog, index: usize, draft: Draft, file_marks: &Marks) {
        let Draft {
            tier,
            marks,
            mut unsure,
        } = draft;
        if self.routes_unsure {
            unsure.insert(Unsure::Routes);
        }
        for Broken { at, value, problem } in check(catalog, index, &tier, &unsure) {
            let (prefix, marks, field) = match &at {
                At::Tier(field) => (join("tiers", &tier.name), &marks, field),
                At::File(field) => (String::new(), file_marks, field),
            };
            let (place, written) = look_up(marks, field);
            // A plain value stands for a mapping with the one meter: the message names what is written.
            let field = field.split('#').next().unwrap_or_default();
            let plain = field
                .rsplit_once('.')
                .map(|(whole, _)| whole)
                .filter(|_| !marks.contains_key(field));
            let field = plain.filter(|whole| marks.contains_key(*whole)).unwrap_or(field);
            self.refuse_at(place, &join(&prefix, field), &value.unwrap_or(written), problem);
        }
    }
}

fn join(path: &str, field: &str) -> String {
    if path.is_empty() {
        field.to_owned()
    } else {
        format!("{path}.{field}")
    }
}

/// A field of several owners, with the one that is meant.
fn field_of(field: &str, owner: &str) -> String {
    field.replacen('?', owner, 1)
}

fn missing(field: &str) -> &'static str {
    match field {
        "price" => "is missing: write a price like 49/month, 0 or custom",
        "included_calls" => "is missing: write a quota like 50000/month, unlimited or custom",
        "rate_limit" => "is missing: write a limit like 100/min, unlimited or custom",
        _ => "is missing: name at least one route, like [/v1/*]",
    }
}

fn mark(marks: &mut Marks, name: &str, node: &Node) {
    let value = match &node.kind {
        Kind::Text(text) => text.clone(),
        _ => String::new(),
    };
    marks.insert(name.to_owned(), (node.place, value));
}

/// Where a field is, or else what it is part of.
fn look_up(marks: &Marks, field: &str) -> (Place, String) {
    let mut name = field;
    loop {
        if let Some(found) = marks.get(name) {
            return found.clone();
        }
        match name.rfind(['#', '.']) {
            Some(end) => name = &name[..end],
            None if name.is_empty() => return (Place { line: 1, column: 1 }, String::new()),
            None => name = "",
        }
    }
}

fn is_name(name: &str, bytes_max: usize, others: &str) -> bool {
    let is_fine = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || others.contains(char);
    (1..=bytes_max).contains(&name.len()) && name.chars().all(is_fine)
}

/// The known word that was probably meant.
fn near<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    if word.len() > 40 {
        return None;
    }
    let begins =
        |known: &&&str| word.len() >= 4 && known.starts_with(word) || known.len() >= 4 && word.starts_with(**known);
    let close = known.iter().map(|known| (distance(word, known), *known)).min();
    match close {
        Some((distance, known)) if distance <= 2 && distance * 2 < known.len() => Some(known),
        _ => known.iter().find(begins).copied(),
    }
}

/// How many characters to insert, remove or replace to get from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, one) in from.chars().enumerate() {
        let mut diagonal = above;
        let mut left = above + 1;
        for (cell, other) in row.iter_mut().skip(1).zip(&to) {
            let replaced = diagonal + usize::from(one != *other);
            diagonal = *cell;
            left = replaced.min(left + 1).min(*cell + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = above + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}
