//! The control plane's and the consumer's writes to a counter item. Each can be repeated, and none creates an item but
//! [`create`].

use crate::{
    admission::{Counters, bucket_attribute, parse_bucket_attribute},
    expression::Expression,
    id::Generation,
};

/// The epoch of an item that is shut: none of a record is as late, so no admission enters.
pub const SHUT: u64 = u64::MAX;

/// Creates the item, or leaves the one that is there: customer creation and a higher shard count.
#[must_use]
pub fn create(generation: &Generation, auth_epoch: u64, sealed: u64) -> Expression {
    Expression::new(
        "SET generation = if_not_exists(generation, :generation), sealed = if_not_exists(sealed, :sealed), \
         auth_epoch = if_not_exists(auth_epoch, :epoch)",
        "attribute_not_exists(auth_epoch) OR auth_epoch <= :epoch",
    )
    .value(":generation", generation.as_str())
    .value(":sealed", sealed)
    .value(":epoch", auth_epoch)
}

/// Tells the item that its customer's records changed: from the next request on they are read again.
#[must_use]
pub fn bump(auth_epoch: u64) -> Expression {
    Expression::new("SET auth_epoch = :epoch", "auth_epoch < :epoch").value(":epoch", auth_epoch)
}

/// Seals a bucket: no admission enters it, or any earlier one, any more.
#[must_use]
pub fn seal(generation: &Generation, bucket: u64) -> Expression {
    Expression::new("SET sealed = :bucket", "generation = :generation AND sealed < :bucket")
        .value(":generation", generation.as_str())
        .value(":bucket", bucket)
}

/// What the answer to a [`seal`] says of a row's units: the item after it, or before it where the condition failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealAnswer {
    /// The bucket is sealed, and these are all its units.
    Final(u64),
    /// That generation can never be written again: what was folded is all there is.
    GenerationGone,
    /// The bucket is not sealed.
    NotSealed,
}

/// Reads the answer to a [`seal`].
#[must_use]
pub fn sealed_units(item: Option<&Counters>, generation: &Generation, bucket: u64, meter: &str) -> SealAnswer {
    match item {
        Some(item) if item.generation == generation.as_str() && item.sealed >= bucket => {
            SealAnswer::Final(item.units_of(&bucket_attribute(bucket, meter)))
        }
        Some(item) if item.generation == generation.as_str() => SealAnswer::NotSealed,
        _ => SealAnswer::GenerationGone,
    }
}

/// So many buckets an item keeps that wait to be reported: with more it outgrows 1 KB, and every admission costs twice.
pub const BUCKETS_MAX: usize = 24;

/// The oldest of an item's buckets, with their meters, as far as there are more than [`BUCKETS_MAX`]: those of frozen rows are
/// pruned though Stripe does not have them yet.
#[must_use]
pub fn crowded_out(item: &Counters) -> Vec<(u64, &str)> {
    let mut buckets: Vec<(u64, &str)> = item
        .units
        .keys()
        .filter_map(|name| parse_bucket_attribute(name))
        .collect();
    buckets.sort_unstable();
    buckets.truncate(buckets.len().saturating_sub(BUCKETS_MAX));
    buckets
}

/// Removes a bucket's attribute. Only after its row is frozen: while it is open, the counter is the truth.
#[must_use]
pub fn prune(generation: &Generation, bucket: u64, meter: &str) -> Expression {
    Expression::new("REMOVE #units", "generation = :generation AND sealed >= :bucket")
        .name("#units", bucket_attribute(bucket, meter))
        .value(":generation", generation.as_str())
        .value(":bucket", bucket)
}

/// Shuts an item that is to get another generation. What the answer says of the old one is final, every bucket of it.
#[must_use]
pub fn shut(generation: &Generation) -> Expression {
    Expression::new("SET auth_epoch = :shut", "generation = :generation")
        .value(":generation", generation.as_str())
        .value(":shut", SHUT)
}

/// Gives an item that is [`shut`] a generation of its own and removes every bucket that it had then: their units are in rows of
/// the old generation by now. From here on it serves.
#[must_use]
pub fn restore(shut: &Counters, generation: &Generation, sealed: u64, auth_epoch: u64) -> Expression {
    let is_bucket = |name: &&String| parse_bucket_attribute(name).is_some();
    let buckets: Vec<&String> = shut.units.keys().filter(is_bucket).collect();
    let mut update = String::from("SET generation = :new, sealed = :sealed, auth_epoch = :epoch");
    for i in 0..buckets.len() {
        update.push_str(if i == 0 { " REMOVE " } else { ", " });
        update.push_str(&format!("#u{i}"));
    }
    let mut write = Expression::new(update, "generation = :old AND auth_epoch = :shut")
        .value(":new", generation.as_str())
        .value(":old", shut.generation.as_str())
        .value(":shut", SHUT)
        .value(":sealed", sealed.max(shut.sealed))
        .value(":epoch", auth_epoch);
    for (i, name) in buckets.into_iter().enumerate() {
        write.names.push((format!("#u{i}"), name.clone()));
    }
    write
}
