//! The control plane: every change writes its record first, then tells each counter item by bumping its epoch. It is done
//! when all have answered; from then on no request is decided by the old record.

use farebox_core::{
    account::{Customer, KeyRecord},
    counter,
    id::{CustomerId, Generation},
    key::{ApiKey, KeyHash, Mode},
    ledger,
    tiers::{Overrides, Pattern, Terms},
    time::{Cycle, Timestamp},
};

use crate::{
    Error,
    accounts::AccountTable,
    counters::{self, CounterTable, Updated},
    ledger::LedgerTable,
    random,
};

/// The control plane's hands on the tables.
#[derive(Clone, Debug)]
pub struct Control {
    /// Customers, keys and catalogs.
    pub accounts: AccountTable,
    /// Counter items.
    pub counters: CounterTable,
    /// Ledger rows.
    pub ledger: LedgerTable,
}

/// What a new customer is made of.
#[derive(Clone, Debug)]
pub struct NewCustomer {
    /// The id.
    pub id: CustomerId,
    /// The name.
    pub name: String,
    /// The tier.
    pub tier: String,
    /// The catalog's version.
    pub catalog: u64,
    /// What was agreed.
    pub overrides: Overrides,
    /// The billing periods.
    pub cycle: Cycle,
    /// The customer in Stripe.
    pub stripe_customer: Option<String>,
    /// The subscription in Stripe.
    pub stripe_subscription: Option<String>,
}

/// What a new key is made of.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// The brand in front of it: `[a-z][a-z0-9]{0,15}`.
    pub brand: String,
    /// Live or test.
    pub mode: Mode,
    /// What its owner calls it.
    pub name: String,
    /// The routes it opens; empty is all of the tier's.
    pub scopes: Vec<Pattern>,
    /// From when on it is refused.
    pub expires: Option<Timestamp>,
}

/// A key just issued: the one moment in which it can be shown.
pub struct IssuedKey {
    /// The key.
    pub key: ApiKey,
    /// What the table knows of it.
    pub record: KeyRecord,
}

impl Control {
    /// Adds a customer and creates its counter items.
    ///
    /// # Errors
    /// [`Error::Refused`] if the id is taken or the tier's terms are not complete.
    pub async fn add_customer(&self, new: NewCustomer, now: Timestamp) -> Result<Customer, Error> {
        let mut customer = Customer {
            id: new.id,
            name: new.name,
            tier: new.tier,
            catalog: new.catalog,
            overrides: new.overrides,
            cycle: new.cycle,
            auth_epoch: 1,
            is_suspended: false,
            stripe_customer: new.stripe_customer,
            stripe_subscription: new.stripe_subscription,
            next_slot: 0,
        };
        let terms = self.terms(&customer).await?;
        customer.next_slot = terms.shards;
        // Items first: a customer whose record exists can be admitted at once.
        self.create_counters(&customer, 0..terms.shards, 0, now).await?;
        if self.accounts.put_customer(&customer, None).await? {
            Ok(customer)
        } else {
            Err(Error::Refused(format!("customer {} exists already", customer.id)))
        }
    }

    /// The terms that hold for a customer.
    ///
    /// # Errors
    /// [`Error::Refused`] if the catalog or the tier does not exist, or something `custom` is not agreed.
    pub async fn terms(&self, customer: &Customer) -> Result<Terms, Error> {
        let catalog = self.accounts.catalog(customer.catalog).await?;
        let catalog = catalog.ok_or_else(|| Error::Refused(format!("there is no catalog {}", customer.catalog)))?;
        catalog
            .terms(&customer.tier, &customer.overrides)
            .map_err(|e| Error::Refused(e.to_string()))
    }

    /// Changes a customer's record and makes the change hold from the next request on.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is no such customer or the change leaves its terms incomplete; [`Error::Contended`] if
    /// others kept changing it. Repeating is safe.
    pub async fn change(
        &self,
        id: &CustomerId,
        now: Timestamp,
        change: impl Fn(&mut Customer),
    ) -> Result<Customer, Error> {
        for _ in 0..8 {
            let no_such = || Error::Refused(format!("there is no customer {id}"));
            let mut customer = self.accounts.customer(id).await?.ok_or_else(no_such)?;
            let seen = customer.auth_epoch;
            let shards_before = self.terms(&customer).await?.shards;
            change(&mut customer);
            customer.auth_epoch = seen + 1;
            let shards = self.terms(&customer).await?.shards;
            // A wider tier needs its new items before anybody is sent to them.
            let first_slot = customer.next_slot;
            let added = shards_before..shards.max(shards_before);
            customer.next_slot += u32::try_from(added.len()).unwrap_or(u32::MAX);
            self.create_counters(&customer, added, first_slot, now).await?;
            if self.accounts.put_customer(&customer, Some(seen)).await? {
                self.bump(&customer, shards.max(shards_before)).await?;
                return Ok(customer);
            }
        }
        Err(Error::Contended(format!("customer {id}")))
    }

    async fn create_counters(
        &self,
        customer: &Customer,
        shards: std::ops::Range<u32>,
        first_slot: u32,
        now: Timestamp,
    ) -> Result<(), Error> {
        let sealed = customer.cycle.bucket_before(now.s()).start;
        for (slot, shard) in (first_slot..).zip(shards) {
            let generation = Generation::new(random::bytes()?, slot);
            let create = counter::create(&generation, customer.auth_epoch, sealed);
            self.counters.write(&counters::key(&customer.id, shard), create).await?;
        }
        Ok(())
    }

    async fn bump(&self, customer: &Customer, shards: u32) -> Result<(), Error> {
        for shard in 0..shards {
            let key = counters::key(&customer.id, shard);
            // An item that is missing stays missing: admission answers "unavailable" until the operator restores it.
            if let Updated::Refused(Some(item)) = self.counters.write(&key, counter::bump(customer.auth_epoch)).await?
                && item.auth_epoch < customer.auth_epoch
            {
                return Err(Error::Contended(format!("counter {key}")));
            }
        }
        Ok(())
    }

    /// Issues a key. It opens from the next request on.
    ///
    /// # Errors
    /// [`Error`] if it can't be stored.
    pub async fn issue_key(&self, customer: &CustomerId, new: NewKey, now: Timestamp) -> Result<IssuedKey, Error> {
        if self.accounts.customer(customer).await?.is_none() {
            return Err(Error::Refused(format!("there is no customer {customer}")));
        }
        let key = ApiKey::new(&new.brand, new.mode, random::bytes()?).map_err(|e| Error::Refused(e.to_string()))?;
        let record = KeyRecord {
            customer: customer.clone(),
            name: new.name,
            prefix: key.display_prefix().to_owned(),
            last_four: key.last_four().to_owned(),
            mode: new.mode,
            scopes: new.scopes,
            created: now,
            expires: new.expires,
            revoked: None,
        };
        self.accounts.put_key(key.hash(), &record).await?;
        Ok(IssuedKey { key, record })
    }

    /// Revokes a key: refused from the next request on.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is no such key.
    pub async fn revoke_key(&self, hash: KeyHash, now: Timestamp) -> Result<KeyRecord, Error> {
        self.change_key(hash, now, |key| {
            key.revoked.get_or_insert(now);
        })
        .await
    }

    /// Issues a key in place of another one, which stays valid until the grace is over.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is no such key, or it is revoked.
    pub async fn rotate_key(
        &self,
        hash: KeyHash,
        brand: &str,
        grace_s: u64,
        now: Timestamp,
    ) -> Result<IssuedKey, Error> {
        let no_such = || Error::Refused("there is no such key".to_owned());
        let old = self.accounts.key(hash).await?.ok_or_else(no_such)?;
        if old.revoked.is_some() {
            return Err(Error::Refused("the key is revoked; issue a new one instead".to_owned()));
        }
        let new = NewKey {
            brand: brand.to_owned(),
            mode: old.mode,
            name: old.name,
            scopes: old.scopes,
            expires: old.expires,
        };
        let new = self.issue_key(&old.customer, new, now).await?;
        let end = now.plus_ms(grace_s.saturating_mul(1_000));
        self.change_key(hash, now, |key| {
            key.expires = Some(key.expires.map_or(end, |expires| expires.min(end)))
        })
        .await?;
        Ok(new)
    }

    async fn change_key(
        &self,
        hash: KeyHash,
        now: Timestamp,
        change: impl Fn(&mut KeyRecord),
    ) -> Result<KeyRecord, Error> {
        let no_such = || Error::Refused("there is no such key".to_owned());
        let mut key = self.accounts.key(hash).await?.ok_or_else(no_such)?;
        change(&mut key);
        self.accounts.put_key(hash, &key).await?;
        self.change(&key.customer, now, |_| {}).await?;
        Ok(key)
    }

    /// Brings a counter item that came back from a backup into service: folds what it had counted into the ledger rows of
    /// its old generation, then gives it a new one. Until that is done the item must not serve.
    ///
    /// # Errors
    /// [`Error`]; repeating is safe.
    pub async fn restore_counter(&self, id: &CustomerId, shard: u32, now: Timestamp) -> Result<Generation, Error> {
        let no_such = || Error::Refused(format!("there is no counter item {shard} of customer {id}"));
        let key = counters::key(id, shard);
        let item = self.counters.read(&key).await?.ok_or_else(no_such)?;
        // The slot is taken from the record before it is used, so that no two generations ever share one.
        let customer = self.change(id, now, |customer| customer.next_slot += 1).await?;
        let item = self
            .counters
            .read(&key)
            .await?
            .filter(|now| now.generation == item.generation)
            .ok_or_else(no_such)?;
        let old = Generation::try_from(item.generation.clone()).map_err(|e| Error::Refused(e.to_string()))?;
        for (name, &units) in &item.units {
            let Some((bucket, meter)) = farebox_core::admission::parse_bucket_attribute(name) else {
                continue;
            };
            let row = ledger::RowKey {
                customer: id.clone(),
                shard,
                generation: old.clone(),
                meter: meter.to_owned(),
                bucket,
            };
            self.ledger
                .write(&row, ledger::fold(&row, customer.cycle.bucket_at(bucket).end, units))
                .await?;
        }
        let generation = Generation::new(random::bytes()?, customer.next_slot - 1);
        let sealed = customer.cycle.bucket_before(now.s()).start;
        match self
            .counters
            .write(&key, counter::restore(&item, &generation, sealed, customer.auth_epoch))
            .await?
        {
            Updated::Applied(_) => Ok(generation),
            Updated::Refused(_) => Err(Error::Contended(format!("counter {key}"))),
        }
    }
}
