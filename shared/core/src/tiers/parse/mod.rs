//! From YAML nodes to a [`Catalog`], with every mistake on the way.

mod groups;
mod near;
mod routes;
mod tier;
mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use super::check::{At, Broken, Unsure, check};
use super::error::shortened;
use super::yaml::{self, Entry, Kind, Node, Place};
use super::{Catalog, DEFAULT_METER, Interval, Tier, TierError, TierErrors};
use crate::money::Currency;
use near::near;

/// Keeps the check of a file short.
const TIERS_MAX: usize = 16;
/// After so many mistakes the rest is left out.
const ERRORS_MAX: usize = 200;

const FILE_FIELDS: &[&str] = &["tiers", "currency", "weights", "meters"];

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
