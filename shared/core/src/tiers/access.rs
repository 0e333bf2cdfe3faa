//! Whether a route is open to a tier, and how a request on it counts.

use super::pattern::{Decoded, Pattern, Route};
use super::{Access, Catalog, DEFAULT_METER, Tier};

/// Which tiers a route is open to.
#[derive(Clone, Copy)]
pub(super) struct Deciding<'a> {
    /// The most specific pattern that any tier names for the route.
    pub(super) pattern: &'a Pattern,
    /// The lowest tier that names it.
    pub(super) from: usize,
    /// Whether the tier that asks has the route.
    pub(super) is_open: bool,
}

impl Catalog {
    /// The tier of that name.
    pub fn tier(&self, name: &str) -> Option<&Tier> {
        self.tiers.iter().find(|tier| tier.name == name)
    }

    /// Whether a customer of `tier` may call the route, and how the request counts.
    ///
    /// Over all tiers the most specific matching pattern decides: the route is open to the lowest tier that names this
    /// pattern, and to every tier above it that matches the route by any of its patterns. A tier that the catalog does
    /// not know has no route.
    ///
    /// `path` is the request's path without a query. It is compared case-sensitively and after its percent-escapes are
    /// resolved once; a trailing slash makes no difference. What two readers could take differently is
    /// [`Access::NoSuchRoute`]: empty and dot segments, encoded slashes, backslashes, control characters, escapes that
    /// hide another escape, bytes that are not UTF-8, and a method in anything but capitals.
    pub fn access(&self, tier: &str, method: &str, path: &str) -> Access<'_> {
        let Some(path) = Decoded::new(path) else {
            return Access::NoSuchRoute;
        };
        let Some(route) = Route::new(method, &path) else {
            return Access::NoSuchRoute;
        };
        let tier = self.tiers.iter().position(|known| known.name == tier);
        self.access_route(tier, &route)
    }

    pub(super) fn access_route(&self, tier: Option<usize>, route: &Route<'_>) -> Access<'_> {
        let Some(deciding) = self.deciding(tier, route) else {
            return Access::NoSuchRoute;
        };
        let tier = tier
            .and_then(|index| self.tiers.get(index))
            .filter(|_| deciding.is_open);
        let Some(tier) = tier else {
            return Access::NotInTier {
                from: self.tiers.get(deciding.from).map_or("", |from| &from.name),
            };
        };
        let weights = most_specific(&tier.weights, route).or_else(|| most_specific(&self.weights, route));
        Access::Open {
            meter: most_specific(&self.meters, route).map_or(DEFAULT_METER, String::as_str),
            cost: weights.copied().unwrap_or(1),
            group: group_of(tier, route),
        }
    }

    /// What decides over the route, and whether it is open to the tier of that index.
    pub(super) fn deciding(&self, tier: Option<usize>, route: &Route<'_>) -> Option<Deciding<'_>> {
        let mut best: Option<(&Pattern, usize)> = None;
        let mut matches_tier = false;
        for (index, candidate) in self.tiers.iter().enumerate() {
            for pattern in &candidate.endpoints {
                // A pattern that is not narrower than the best can still open the route to the tier that asks.
                let is_narrower = best.is_none_or(|(best, _)| pattern.rank() > best.rank());
                let is_asked = Some(index) == tier && !matches_tier;
                if (is_narrower || is_asked) && pattern.matches_route(route) {
                    matches_tier |= is_asked;
                    if is_narrower {
                        best = Some((pattern, index));
                    }
                }
            }
        }
        let (pattern, from) = best?;
        let is_open = matches_tier && tier.is_some_and(|tier| tier >= from);
        Some(Deciding { pattern, from, is_open })
    }
}

/// What the most specific matching pattern names.
fn most_specific<'a, T>(patterns: &'a [(Pattern, T)], route: &Route<'_>) -> Option<&'a T> {
    let matching = patterns.iter().filter(|(pattern, _)| pattern.matches_route(route));
    matching
        .max_by_key(|(pattern, _)| pattern.rank())
        .map(|(_, named)| named)
}

fn group_of(tier: &Tier, route: &Route<'_>) -> Option<usize> {
    let patterns = tier.groups.iter().enumerate().flat_map(|(index, group)| {
        group
            .endpoints
            .iter()
            .filter(|pattern| pattern.matches_route(route))
            .map(move |pattern| (pattern, index))
    });
    patterns
        .max_by_key(|(pattern, _)| pattern.rank())
        .map(|(_, index)| index)
}
