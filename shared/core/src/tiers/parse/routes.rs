//! Routes, and what they weigh and count on.

use super::super::check::METERS_MAX;
use super::super::error::shortened;
use super::super::yaml::{Entry, Kind, Node, Place};
use super::super::{Pattern, value};
use super::{Draft, Marks, Reader, field_of, is_name, join, look_up, mark};

/// The largest weight of a request.
const WEIGHT_MAX: u64 = 1_000_000;
/// Bounds that keep the check of a file, and the search for a route, short.
const PATTERNS_MAX: usize = 250;
const ENDPOINTS_MAX: usize = 500;

impl Reader<'_> {
    /// A list of patterns, without repeats.
    pub(super) fn patterns(&mut self, node: &Node, field: &str, name: &str, marks: &mut Marks) -> Vec<Pattern> {
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
    pub(super) fn ordered(&mut self, field: &str, patterns: &[(&Pattern, Place, String)]) {
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

    pub(super) fn endpoints_ordered(&mut self, drafts: &[Draft]) {
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

    pub(super) fn weights(&mut self, node: &Node, field: &str, name: &str, marks: &mut Marks) -> Vec<(Pattern, u64)> {
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

    pub(super) fn meters(&mut self, node: &Node) -> Vec<(Pattern, String)> {
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
}
