//! Endpoint groups of a tier.

use super::super::check::GROUPS_MAX;
use super::super::error::shortened;
use super::super::yaml::{Entry, Node, Place};
use super::super::{AtQuota, Custom, Group, Pattern, value};
use super::tier::missing;
use super::{Marks, Periods, Reader, is_name, join, look_up, mark};

const GROUP_FIELDS: &[&str] = &["endpoints", "rate_limit", "included_calls", "at_quota"];

impl Reader<'_> {
    pub(super) fn groups(&mut self, node: &Node, field: &str, periods: &mut Periods, marks: &mut Marks) -> Vec<Group> {
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
}
