//! What one environment remembers between requests. Nothing here decides anything that the table would decide otherwise.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use farebox_core::{
    account::{Customer, KeyRecord, Phase},
    admission::Belief,
    id::CustomerId,
    key::KeyHash,
    tiers::{Catalog, Terms},
    time::Timestamp,
};

/// How many customers, and how many unknown keys, are remembered.
const ENTRIES_MAX: usize = 10_000;
/// How long an unknown key is refused without a look at the table.
const UNKNOWN_KEY_MS: u64 = 10_000;

/// A customer with everything that was read under one epoch.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) customer: Arc<Customer>,
    /// What holds, and what is to hold: the phase in force when this was read, and those after it.
    pub(crate) phases: Arc<[Held]>,
    /// When the table last confirmed the record.
    pub(crate) confirmed: Timestamp,
}

/// A phase with its terms.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) phase: Phase,
    pub(crate) terms: Terms,
    pub(crate) catalog: Arc<Catalog>,
}

impl Account {
    /// What holds at a time; `None` never happens, as every customer has a phase.
    pub(crate) fn held_at(&self, now: Timestamp) -> Option<&Held> {
        let after = self.phases.partition_point(|held| held.phase.from <= now.s());
        self.phases.get(after.saturating_sub(1))
    }
}

/// What a denial is remembered by: the same route counts the same way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DenialKey {
    pub(crate) shard: u32,
    pub(crate) meter: String,
    pub(crate) group: Option<String>,
    pub(crate) cost: u64,
}

#[derive(Debug, Default)]
struct Entry {
    account: Option<Account>,
    /// Keys read after the account: they are at least as new as its epoch.
    keys: HashMap<KeyHash, Arc<KeyRecord>>,
    beliefs: HashMap<u32, Belief>,
    denials: HashMap<DenialKey, Timestamp>,
    /// How many requests in a row each counter item did not count.
    uncounted: HashMap<u32, u32>,
}

/// The memory of one environment.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    owners: HashMap<KeyHash, CustomerId>,
    customers: HashMap<CustomerId, Entry>,
    unknown: HashMap<KeyHash, Timestamp>,
    unknown_order: VecDeque<KeyHash>,
    catalogs: HashMap<u64, Arc<Catalog>>,
    /// Moves on with every reading of a customer.
    readings: u64,
}

impl Cache {
    pub(crate) fn is_unknown(&self, hash: KeyHash, now: Timestamp) -> bool {
        self.unknown
            .get(&hash)
            .is_some_and(|&since| now.ms_since(since) < UNKNOWN_KEY_MS && now >= since)
    }

    pub(crate) fn remember_unknown(&mut self, hash: KeyHash, now: Timestamp) {
        if self.unknown.insert(hash, now).is_none() {
            self.unknown_order.push_back(hash);
        }
        if self.unknown_order.len() > ENTRIES_MAX
            && let Some(oldest) = self.unknown_order.pop_front()
        {
            self.unknown.remove(&oldest);
        }
    }

    pub(crate) fn lookup(&self, hash: KeyHash) -> Option<(Arc<KeyRecord>, Account)> {
        let entry = self.customers.get(self.owners.get(&hash)?)?;
        Some((entry.keys.get(&hash)?.clone(), entry.account.clone()?))
    }

    /// How many readings of customers there were: a key read while this moved may be older than the account beside it.
    pub(crate) fn readings(&self) -> u64 {
        self.readings
    }

    pub(crate) fn account(&self, customer: &CustomerId) -> Option<Account> {
        self.customers.get(customer)?.account.clone()
    }

    /// A new reading of a customer: every key is read again, every denial forgotten. Beliefs stay, they are of the counters.
    pub(crate) fn remember_account(&mut self, account: Account) {
        self.readings += 1;
        if self.customers.len() >= ENTRIES_MAX && !self.customers.contains_key(&account.customer.id) {
            self.owners.clear();
            self.customers.clear();
        }
        let entry = self.customers.entry(account.customer.id.clone()).or_default();
        entry.account = Some(account);
        entry.keys.clear();
        entry.denials.clear();
    }

    pub(crate) fn remember_key(&mut self, hash: KeyHash, key: Arc<KeyRecord>) {
        self.owners.insert(hash, key.customer.clone());
        self.customers
            .entry(key.customer.clone())
            .or_default()
            .keys
            .insert(hash, key);
    }

    pub(crate) fn forget_account(&mut self, customer: &CustomerId) {
        if let Some(entry) = self.customers.get_mut(customer) {
            entry.account = None;
            entry.keys.clear();
            entry.denials.clear();
        }
    }

    pub(crate) fn confirm(&mut self, customer: &CustomerId, now: Timestamp) {
        if let Some(account) = self
            .customers
            .get_mut(customer)
            .and_then(|entry| entry.account.as_mut())
        {
            account.confirmed = now;
        }
    }

    pub(crate) fn catalog(&self, version: u64) -> Option<Arc<Catalog>> {
        self.catalogs.get(&version).cloned()
    }

    pub(crate) fn remember_catalog(&mut self, version: u64, catalog: Arc<Catalog>) {
        self.catalogs.insert(version, catalog);
    }

    pub(crate) fn belief(&self, customer: &CustomerId, shard: u32) -> Option<Belief> {
        self.customers.get(customer)?.beliefs.get(&shard).cloned()
    }

    pub(crate) fn believe(&mut self, customer: &CustomerId, shard: u32, belief: Belief) {
        self.customers
            .entry(customer.clone())
            .or_default()
            .beliefs
            .insert(shard, belief);
    }

    /// A counter item answered a write: its run of uncounted requests is over.
    pub(crate) fn answered(&mut self, customer: &CustomerId, shard: u32) {
        if let Some(entry) = self.customers.get_mut(customer) {
            entry.uncounted.remove(&shard);
        }
    }

    /// A counter item did not count a request; returns how many in a row before it.
    pub(crate) fn not_counted(&mut self, customer: &CustomerId, shard: u32) -> u32 {
        let entry = self.customers.entry(customer.clone()).or_default();
        let run = entry.uncounted.entry(shard).or_default();
        let before = *run;
        *run = before.saturating_add(1);
        before
    }

    pub(crate) fn denied_until(&self, customer: &CustomerId, key: &DenialKey) -> Option<Timestamp> {
        self.customers.get(customer)?.denials.get(key).copied()
    }

    pub(crate) fn remember_denial(&mut self, customer: &CustomerId, key: DenialKey, until: Timestamp) {
        self.customers
            .entry(customer.clone())
            .or_default()
            .denials
            .insert(key, until);
    }
}

#[cfg(test)]
mod tests {
    use farebox_core::{
        id::CustomerId,
        key::{ApiKey, KeyHash, Mode},
        time::Timestamp,
    };

    use super::{Cache, ENTRIES_MAX, UNKNOWN_KEY_MS};

    fn made_up(n: u64) -> KeyHash {
        let mut random = [0; 32];
        random[..8].copy_from_slice(&n.to_be_bytes());
        let key = ApiKey::new("fb", Mode::Test, random);
        key.unwrap_or_else(|e| panic!("{e}")).hash()
    }

    #[test]
    fn unknown_keys_take_a_bounded_memory_however_many_come() {
        let (mut cache, now) = (Cache::default(), Timestamp::from_s(1));
        for n in 0..100_000 {
            cache.remember_unknown(made_up(n), now);
            cache.remember_unknown(made_up(n), now);
        }
        assert_eq!(
            (cache.unknown.len(), cache.unknown_order.len()),
            (ENTRIES_MAX, ENTRIES_MAX)
        );
        let entry = size_of::<(KeyHash, Timestamp)>() + 1; // and the map's byte of control
        let bytes = cache.unknown.capacity() * 8 / 7 * entry + cache.unknown_order.capacity() * size_of::<KeyHash>();
        assert!(bytes < 2_000_000, "{bytes} bytes");
        assert!(cache.is_unknown(made_up(99_999), now) && !cache.is_unknown(made_up(0), now));
        assert!(!cache.is_unknown(made_up(99_999), now.plus_ms(UNKNOWN_KEY_MS)));
    }

    #[test]
    fn a_run_of_uncounted_requests_is_of_one_counter_item() {
        let id = |name: &str| CustomerId::try_from(name.to_owned()).expect("an id");
        let (acme, beta) = (id("acme"), id("beta"));
        let mut cache = Cache::default();
        for run in 0..3 {
            assert_eq!(cache.not_counted(&acme, 0), run);
            cache.answered(&beta, 0);
            cache.answered(&acme, 1);
        }
        assert_eq!(cache.not_counted(&acme, 1), 0);
        cache.answered(&acme, 0);
        assert_eq!(cache.not_counted(&acme, 0), 0);
    }
}
