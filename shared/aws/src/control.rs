//! The control plane: every change writes its record first, then tells each counter item by bumping its epoch. It is done
//! when all have answered; from then on no request is decided by the old record.

use farebox_core::{
    account::{Contact, Customer, KeyRecord, Phase, Standing},
    counter,
    id::{CustomerId, Generation},
    key::{ApiKey, KeyHash, Mode},
    ledger,
    tiers::{Overrides, Pattern, Terms},
    time::{Cycle, Timestamp},
};

use crate::{
    Error,
    accounts::{AccountTable, Stored},
    counters::{self, CounterTable, Updated},
    ledger::LedgerTable,
};

/// How often a change is tried again because somebody else changed the customer meanwhile.
const TRIES_MAX: u32 = 8;

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
    /// Where alerts go.
    pub contact: Contact,
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

/// An event of Stripe's: its effect is stored once, in one transaction with its mark.
#[derive(Clone, Copy, Debug)]
pub struct Cause<'a> {
    /// `evt_…`
    pub event: &'a str,
    /// When it was received.
    pub now: Timestamp,
}

impl Control {
    /// Adds a customer and creates its counter items.
    ///
    /// # Errors
    /// [`Error::Refused`] if the id is taken or the tier's terms are not complete.
    pub async fn add_customer(&self, new: NewCustomer, now: Timestamp) -> Result<Customer, Error> {
        let phase = self.phase(0, &new.tier, new.catalog, new.overrides).await?;
        let mut customer = Customer {
            id: new.id,
            name: new.name,
            phases: vec![phase],
            offered: None,
            ends: None,
            is_leaving: false,
            cycle: new.cycle,
            auth_epoch: 1,
            is_suspended: false,
            standing: Standing::Good,
            grants: Vec::new(),
            contact: new.contact,
            stripe_customer: new.stripe_customer,
            stripe_subscription: new.stripe_subscription,
            next_slot: 0,
        };
        let shards = self.shards(&customer).await?;
        customer.next_slot = shards;
        // Items first: a customer whose record exists can be admitted at once.
        self.create_counters(&customer, 0..shards, 0, now).await?;
        match self.accounts.put_customer(&customer, None, None).await? {
            Stored::Done => Ok(customer),
            Stored::Contended | Stored::Marked => {
                Err(Error::Refused(format!("customer {} exists already", customer.id)))
            }
        }
    }

    /// What begins to hold at a second: a tier of a version of the catalog, with what was agreed.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is no such catalog or tier, or its terms are not complete.
    pub async fn phase(&self, from: u64, tier: &str, catalog: u64, overrides: Overrides) -> Result<Phase, Error> {
        let terms = self.terms_of(catalog, tier, &overrides).await?;
        Ok(Phase {
            from,
            tier: tier.to_owned(),
            catalog,
            overrides,
            plan: terms.plan(),
        })
    }

    /// The terms that hold for a customer at a time.
    ///
    /// # Errors
    /// [`Error::Refused`] if the catalog or the tier does not exist, or something `custom` is not agreed.
    pub async fn terms(&self, customer: &Customer, now: Timestamp) -> Result<Terms, Error> {
        let phase = customer.phase_at(now.s());
        self.terms_of(phase.catalog, &phase.tier, &phase.overrides).await
    }

    /// The terms of a tier in a version of the catalog, with what was agreed.
    ///
    /// # Errors
    /// As [`Self::terms`].
    pub async fn terms_of(&self, version: u64, tier: &str, overrides: &Overrides) -> Result<Terms, Error> {
        let catalog = self.accounts.catalog(version).await?;
        let catalog = catalog.ok_or_else(|| Error::Refused(format!("there is no catalog {version}")))?;
        catalog
            .terms(tier, overrides)
            .map_err(|e| Error::Refused(e.to_string()))
    }

    /// How many counter items a customer has: as many as the widest of its tiers asks for.
    ///
    /// # Errors
    /// As [`Self::terms`].
    pub async fn shards(&self, customer: &Customer) -> Result<u32, Error> {
        let mut shards = 1;
        for phase in &customer.phases {
            let terms = self.terms_of(phase.catalog, &phase.tier, &phase.overrides).await?;
            shards = shards.max(terms.shards);
        }
        Ok(shards)
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
        change: impl Fn(&mut Customer) -> Result<(), Error>,
    ) -> Result<Customer, Error> {
        for _ in 0..TRIES_MAX {
            let no_such = || Error::Refused(format!("there is no customer {id}"));
            let seen = self.accounts.customer(id).await?.ok_or_else(no_such)?;
            let mut changed = seen.clone();
            change(&mut changed)?;
            if let Some(stored) = self.store(&seen, changed, None, now).await? {
                return Ok(stored);
            }
        }
        Err(Error::Contended(format!("customer {id}")))
    }

    /// Stores a changed record in place of the one that was `seen`, and tells every counter item. `None` if somebody else
    /// changed it meanwhile: read it and whatever the change rests on again. An event whose effect is stored already changes
    /// nothing but makes sure that the counter items know.
    ///
    /// # Errors
    /// [`Error`]; repeating is safe.
    pub async fn store(
        &self,
        seen: &Customer,
        mut changed: Customer,
        cause: Option<Cause<'_>>,
        now: Timestamp,
    ) -> Result<Option<Customer>, Error> {
        changed.auth_epoch = seen.auth_epoch + 1;
        let before = self.shards(seen).await?;
        let shards = self.shards(&changed).await?.max(before);
        // A wider tier needs its new items before anybody is sent to them.
        let first_slot = changed.next_slot;
        changed.next_slot += shards - before;
        self.create_counters(&changed, before..shards, first_slot, now).await?;
        let event = cause.map(|cause| (cause.event, cause.now));
        match self
            .accounts
            .put_customer(&changed, Some(seen.auth_epoch), event)
            .await?
        {
            Stored::Done => {
                self.bump(&changed, shards).await?;
                Ok(Some(changed))
            }
            Stored::Contended => Ok(None),
            Stored::Marked => {
                // Whoever stored it may have died before the counter items were told; what was `seen` may be older than that.
                let no_such = || Error::Refused(format!("there is no customer {}", seen.id));
                let stored = self.accounts.customer(&seen.id).await?.ok_or_else(no_such)?;
                self.tell_counters(&stored).await?;
                Ok(Some(stored))
            }
        }
    }

    /// Tells every counter item the customer's epoch again, for a change whose author may have died on the way.
    ///
    /// # Errors
    /// [`Error`]; repeating is safe.
    pub async fn tell_counters(&self, customer: &Customer) -> Result<(), Error> {
        self.bump(customer, self.shards(customer).await?).await
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
            let generation = Generation::new(self.accounts.random().bytes()?, slot);
            let create = counter::create(&generation, customer.auth_epoch, sealed);
            self.counters.write(&counters::key(&customer.id, shard), create).await?;
        }
        Ok(())
    }

    async fn bump(&self, customer: &Customer, shards: u32) -> Result<(), Error> {
        for shard in 0..shards {
            let key = counters::key(&customer.id, shard);
            // An item that is missing stays missing: admission answers "unavailable" until the operator restores it. One that
            // is shut for its restore may open with the epoch of before: it has not been told.
            if let Updated::Refused(Some(item)) = self.counters.write(&key, counter::bump(customer.auth_epoch)).await?
                && (item.auth_epoch < customer.auth_epoch || item.auth_epoch == counter::SHUT)
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
        let key = ApiKey::new(&new.brand, new.mode, self.accounts.random().bytes()?)
            .map_err(|e| Error::Refused(e.to_string()))?;
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

    /// Issues a key in place of another one, which stays valid until the grace is over. The new one expires when the other would
    /// have by itself: not with the grace of an earlier rotation.
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
        let replaced = self.accounts.replaced(hash).await?;
        let new = NewKey {
            brand: brand.to_owned(),
            mode: old.mode,
            name: old.name,
            scopes: old.scopes,
            expires: replaced.map_or(old.expires, |earlier| earlier.expires),
        };
        let new = self.issue_key(&old.customer, new, now).await?;
        let end = now.plus_ms(grace_s.saturating_mul(1_000));
        let replaced = self.accounts.put_replaced(hash, new.key.hash(), end).await?;
        let replaced = replaced.ok_or_else(no_such)?;
        self.change(&replaced.customer, now, |_| Ok(())).await?;
        Ok(new)
    }

    async fn change_key(
        &self,
        hash: KeyHash,
        now: Timestamp,
        change: impl Fn(&mut KeyRecord),
    ) -> Result<KeyRecord, Error> {
        let no_such = || Error::Refused("there is no such key".to_owned());
        let key = self.accounts.change_key(hash, change).await?.ok_or_else(no_such)?;
        self.change(&key.customer, now, |_| Ok(())).await?;
        Ok(key)
    }

    /// Gives a counter item another generation: one that came back from a backup, before it serves, or one that serves. One that is
    /// missing is made anew.
    ///
    /// The item is shut first, so that what the old generation counted is final; that is folded into the ledger, and then the
    /// item serves again. In between it admits nobody.
    ///
    /// # Errors
    /// [`Error`]. Repeat it: an item that is shut stays so until that is done.
    pub async fn restore_counter(&self, id: &CustomerId, shard: u32, now: Timestamp) -> Result<Generation, Error> {
        let no_such = || Error::Refused(format!("there is no counter item {shard} of customer {id}"));
        let key = counters::key(id, shard);
        let contended = || Error::Contended(format!("counter {key}"));
        let Some(item) = self.counters.read(&key).await? else {
            let (customer, slot) = self.take_slot(id).await?;
            if shard >= self.shards(&customer).await? {
                return Err(no_such());
            }
            self.create_counters(&customer, shard..shard + 1, slot, now).await?;
            let made = self.counters.read(&key).await?.ok_or_else(contended)?;
            return Generation::try_from(made.generation).map_err(|e| Error::Refused(e.to_string()));
        };
        let old = Generation::try_from(item.generation).map_err(|e| Error::Refused(e.to_string()))?;
        let Updated::Applied(shut) = self.counters.write(&key, counter::shut(&old)).await? else {
            return Err(contended());
        };
        let (customer, slot) = self.take_slot(id).await?;
        for (name, &units) in &shut.units {
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
        let generation = Generation::new(self.accounts.random().bytes()?, slot);
        let sealed = customer.cycle.bucket_before(now.s()).start;
        let restore = counter::restore(&shut, &generation, sealed, customer.auth_epoch);
        match self.counters.write(&key, restore).await? {
            Updated::Applied(_) => Ok(generation),
            Updated::Refused(_) => Err(contended()),
        }
    }

    /// Takes a slot from the record before it is used, so that no two generations ever share one. Nothing that decides a request
    /// changes, so no counter item has to be told.
    async fn take_slot(&self, id: &CustomerId) -> Result<(Customer, u32), Error> {
        for _ in 0..TRIES_MAX {
            let no_such = || Error::Refused(format!("there is no customer {id}"));
            let seen = self.accounts.customer(id).await?.ok_or_else(no_such)?;
            let mut taken = seen.clone();
            taken.next_slot += 1;
            taken.auth_epoch += 1;
            if self.accounts.put_customer(&taken, Some(seen.auth_epoch), None).await? == Stored::Done {
                return Ok((taken, seen.next_slot));
            }
        }
        Err(Error::Contended(format!("customer {id}")))
    }
}
