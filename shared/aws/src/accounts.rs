//! Customers, keys and catalogs: one document an item, read consistently.
//!
//! | pk | sk | what |
//! | --- | --- | --- |
//! | `c#<customer>` | `customer` | the [`Customer`] |
//! | `c#<customer>` | `key#<hash>` | that the customer owns the key |
//! | `k#<hash>` | `key` | the [`KeyRecord`], and what it was [`Replaced`] by |
//! | `s#<cus_…>` | `id` | the customer's id in Farebox |
//! | `e#<evt_…>` | `event` | that the event's effect is stored; written in one transaction with it |
//! | `e#shown-<hash of a session>` | `event` | that a first key was shown, and by whose answer |
//! | `t#<version>` | `catalog` | a [`Catalog`], never changed |
//! | `t` | `newest` | the newest version |

use aws_sdk_dynamodb::{
    error::SdkError,
    operation::{put_item::PutItemError, transact_write_items::TransactWriteItemsError},
    types::{AttributeValue, Put, TransactWriteItem},
};
use farebox_core::{
    account::{Customer, KeyRecord, Replaced},
    id::CustomerId,
    key::KeyHash,
    tiers::Catalog,
    time::Timestamp,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Error, connect::Clients, item, random::Random};

/// A mark is kept this long, in seconds: Stripe repeats an event for three days, and shows it for thirty
/// (<https://docs.stripe.com/webhooks#retries>). What is marked by other names must be over before, as a first key is 30 days after
/// its session was opened.
pub const MARK_KEPT_S: u64 = 90 * 86_400;

/// How often something is tried again because somebody else changed it meanwhile.
const TRIES_MAX: u32 = 8;

/// How storing a customer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is stored.
    Done,
    /// Somebody else changed the customer meanwhile.
    Contended,
    /// The event's effect was stored before.
    Marked,
}

/// What a key's item holds: what decides its requests, and beside it what only a rotation asks for.
#[derive(Serialize, Deserialize)]
struct KeyDocument {
    #[serde(flatten)]
    key: KeyRecord,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replaced: Option<Replaced>,
}

/// The accounts table.
#[derive(Clone, Debug)]
pub struct AccountTable {
    clients: Clients,
    table: String,
}

impl AccountTable {
    /// The table of this name.
    #[must_use]
    pub fn new(clients: Clients, table: String) -> Self {
        Self { clients, table }
    }

    /// The random bytes that came with the clients.
    #[must_use]
    pub fn random(&self) -> &Random {
        &self.clients.random
    }

    /// Reads a customer.
    ///
    /// # Errors
    /// [`Error`] if the table can't be read.
    pub async fn customer(&self, id: &CustomerId) -> Result<Option<Customer>, Error> {
        self.read(&format!("c#{id}"), "customer").await
    }

    /// Reads a key.
    ///
    /// # Errors
    /// [`Error`] if the table can't be read.
    pub async fn key(&self, hash: KeyHash) -> Result<Option<KeyRecord>, Error> {
        self.read(&format!("k#{hash}"), "key").await
    }

    /// Reads a version of the catalog.
    ///
    /// # Errors
    /// [`Error`] if the table can't be read.
    pub async fn catalog(&self, version: u64) -> Result<Option<Catalog>, Error> {
        self.read(&format!("t#{version}"), "catalog").await
    }

    /// The newest version of the catalog, 0 if there is none.
    ///
    /// # Errors
    /// [`Error`] if the table can't be read.
    pub async fn newest_catalog(&self) -> Result<u64, Error> {
        Ok(self.read("t", "newest").await?.unwrap_or(0))
    }

    /// Stores a catalog as the next version, unless the newest one is the same. Returns its version. Whoever died between the
    /// two writes left a version that is not the newest: the same one is made it, another one is passed over.
    ///
    /// # Errors
    /// [`Error::Contended`] if others kept storing theirs; [`Error`] if the table can't be written. Repeating is safe.
    pub async fn put_catalog(&self, catalog: &Catalog) -> Result<u64, Error> {
        let mut version = self.newest_catalog().await?;
        if version > 0 && self.catalog(version).await?.as_ref() == Some(catalog) {
            return Ok(version);
        }
        for _ in 0..TRIES_MAX {
            version += 1;
            let key = format!("t#{version}");
            if self.put(&key, "catalog", catalog, 0, Seen::Nothing).await?
                || self.catalog(version).await?.as_ref() == Some(catalog)
            {
                self.advance_newest(version).await?;
                return Ok(version);
            }
        }
        Err(Error::Contended("the catalog".to_owned()))
    }

    /// Makes a version the newest one, unless there is a newer one by now.
    async fn advance_newest(&self, version: u64) -> Result<(), Error> {
        for _ in 0..TRIES_MAX {
            let seen = self.text("t", "newest").await?;
            let newest: u64 = match &seen {
                Some(text) => self.parse(text)?,
                None => 0,
            };
            let seen = seen.as_deref().map_or(Seen::Nothing, Seen::Document);
            if newest >= version || self.put("t", "newest", &version, 0, seen).await? {
                return Ok(());
            }
        }
        Err(Error::Contended("the newest catalog".to_owned()))
    }

    /// Stores a customer whose epoch was `seen` when it was read; `None` creates. With an event, its mark is stored in the same
    /// transaction.
    ///
    /// # Errors
    /// [`Error`] if the table can't be written.
    pub async fn put_customer(
        &self,
        customer: &Customer,
        seen: Option<u64>,
        event: Option<(&str, Timestamp)>,
    ) -> Result<Stored, Error> {
        let operation = || format!("put {} customer", self.table);
        let pk = format!("c#{}", customer.id);
        let mut puts =
            vec![self.transact_put(&pk, "customer", customer, customer.auth_epoch, Some(seen.unwrap_or(0)))?];
        if let Some((event, now)) = event {
            puts.push(self.mark(event, now)?);
        }
        if let Some(in_stripe) = &customer.stripe_customer {
            puts.push(self.transact_put(&format!("s#{in_stripe}"), "id", &customer.id, 0, None)?);
        }
        let request = self
            .clients
            .dynamodb
            .transact_write_items()
            .set_transact_items(Some(puts));
        match request.send().await {
            Ok(_) => Ok(Stored::Done),
            Err(e) => match e.as_service_error() {
                Some(TransactWriteItemsError::TransactionCanceledException(canceled)) => {
                    let failed = |i: usize| {
                        let reason = canceled.cancellation_reasons().get(i).and_then(|reason| reason.code());
                        reason == Some("ConditionalCheckFailed")
                    };
                    // The mark stands second. Whatever else it is — a changed record, another transaction — trying again helps.
                    Ok(if event.is_some() && failed(1) {
                        Stored::Marked
                    } else {
                        Stored::Contended
                    })
                }
                _ => Err(Error::call(operation(), &e)),
            },
        }
    }

    /// Whether there is a mark: an event's effect is stored, or what must happen once has its first time behind it.
    ///
    /// # Errors
    /// [`Error`] if the table can't be read.
    pub async fn is_marked(&self, what: &str) -> Result<bool, Error> {
        // What it says differs with who made it.
        Ok(self.text(&format!("e#{what}"), "event").await?.is_some())
    }

    /// Marks an event that has no effect on a customer's record.
    ///
    /// # Errors
    /// [`Error`] if the table can't be written.
    pub async fn put_mark(&self, event: &str, now: Timestamp) -> Result<(), Error> {
        let put = self.mark(event, now)?.put;
        let Some(put) = put else { return Ok(()) };
        let request = self
            .clients
            .dynamodb
            .put_item()
            .table_name(&self.table)
            .set_item(Some(put.item));
        request
            .send()
            .await
            .map_err(|e| Error::call(format!("put {} event", self.table), &e))?;
        Ok(())
    }

    /// Marks something that must happen once. Says whether this was the first time. The mark names who made it, so that a write
    /// that was done and whose answer was lost is not taken for somebody else's.
    ///
    /// # Errors
    /// [`Error`] if the outcome is not known.
    pub async fn mark_once(&self, what: &str, now: Timestamp) -> Result<bool, Error> {
        let pk = format!("e#{what}");
        let marker = self.clients.random.token()?;
        let put = self.transact_put(&pk, "event", &marker, 0, Some(0))?.put;
        let Some(put) = put else { return Ok(false) };
        let ours = put.item.get("doc").cloned();
        let request = self
            .clients
            .dynamodb
            .put_item()
            .table_name(&self.table)
            .set_item(Some(put.item))
            .item("ttl", mark_ends(now))
            .condition_expression("attribute_not_exists(pk) OR doc = :ours")
            .set_expression_attribute_values(ours.map(|ours| [(":ours".to_owned(), ours)].into()));
        let mut is_second = false;
        loop {
            let e = match request.clone().send().await {
                Ok(_) => return Ok(true),
                Err(e) if is_refused(&e) => return Ok(false),
                Err(e) => e,
            };
            // What happens once would be lost if this ended without an answer: the mark itself says whose it is. Where there is
            // none, the write may still be under way; put again, both are the same.
            match self.read::<String>(&pk, "event").await? {
                Some(found) => return Ok(found == marker),
                None if is_second => return Err(Error::call(format!("put {} event", self.table), &e)),
                None => is_second = true,
            }
        }
    }

    fn mark(&self, event: &str, now: Timestamp) -> Result<TransactWriteItem, Error> {
        let mut item = self.transact_put(&format!("e#{event}"), "event", &now.s(), 0, Some(0))?;
        if let Some(put) = &mut item.put {
            put.item.insert("ttl".to_owned(), mark_ends(now));
        }
        Ok(item)
    }

    /// The customer that Stripe knows by this id.
    ///
    /// # Errors
    /// [`Error`] if the table can't be read.
    pub async fn customer_in_stripe(&self, id: &str) -> Result<Option<CustomerId>, Error> {
        self.read(&format!("s#{id}"), "id").await
    }

    /// Every key of a customer, by hash.
    ///
    /// # Errors
    /// [`Error`] if the table can't be read.
    pub async fn keys(&self, customer: &CustomerId) -> Result<Vec<(KeyHash, KeyRecord)>, Error> {
        let mut keys = Vec::new();
        for hash in self.key_hashes(customer).await? {
            if let Some(key) = self.key(hash).await? {
                keys.push((hash, key));
            }
        }
        keys.sort_by_key(|(_, key)| key.created);
        Ok(keys)
    }

    /// Stores a key, and that its customer owns it.
    ///
    /// # Errors
    /// [`Error`] if the table can't be written.
    pub async fn put_key(&self, hash: KeyHash, key: &KeyRecord) -> Result<(), Error> {
        self.put(
            &format!("c#{}", key.customer),
            &format!("key#{hash}"),
            &(),
            0,
            Seen::Anything,
        )
        .await?;
        self.put(&format!("k#{hash}"), "key", key, 0, Seen::Anything).await?;
        Ok(())
    }

    /// Changes a key, on top of whatever others made of it meanwhile. `None` if there is no such key.
    ///
    /// # Errors
    /// [`Error::Contended`] if others kept changing it; [`Error`] if the outcome is not known.
    pub async fn change_key(&self, hash: KeyHash, change: impl Fn(&mut KeyRecord)) -> Result<Option<KeyRecord>, Error> {
        self.change_document(hash, |document| change(&mut document.key)).await
    }

    /// Notes that another key took a key's place, which is valid until the end of the grace, or as long as it was if that is
    /// sooner. `None` if there is no such key.
    ///
    /// # Errors
    /// As [`Self::change_key`].
    pub async fn put_replaced(
        &self,
        hash: KeyHash,
        by: KeyHash,
        grace_ends: Timestamp,
    ) -> Result<Option<KeyRecord>, Error> {
        self.change_document(hash, |KeyDocument { key, replaced }| {
            // The grace of an earlier rotation is not what the key was issued with.
            let expires = replaced.map_or(key.expires, |earlier| earlier.expires);
            *replaced = Some(Replaced { by, expires });
            key.expires = Some(key.expires.map_or(grace_ends, |expires| expires.min(grace_ends)));
        })
        .await
    }

    /// What a key was replaced by; `None` if it was not, or there is no such key.
    ///
    /// # Errors
    /// [`Error`] if the table can't be read.
    pub async fn replaced(&self, hash: KeyHash) -> Result<Option<Replaced>, Error> {
        let found: Option<KeyDocument> = self.read(&format!("k#{hash}"), "key").await?;
        Ok(found.and_then(|document| document.replaced))
    }

    async fn change_document(
        &self,
        hash: KeyHash,
        change: impl Fn(&mut KeyDocument),
    ) -> Result<Option<KeyRecord>, Error> {
        for _ in 0..TRIES_MAX {
            let Some(seen) = self.text(&format!("k#{hash}"), "key").await? else {
                return Ok(None);
            };
            let mut document: KeyDocument = self.parse(&seen)?;
            change(&mut document);
            if self
                .put(&format!("k#{hash}"), "key", &document, 0, Seen::Document(&seen))
                .await?
            {
                return Ok(Some(document.key));
            }
        }
        Err(Error::Contended(format!("key {hash}")))
    }

    /// Reads a key with the text that it is stored as, to be named by [`Self::replace_key`].
    ///
    /// # Errors
    /// [`Error`] if the table can't be read.
    pub async fn seen_key(&self, hash: KeyHash) -> Result<Option<(String, KeyRecord)>, Error> {
        let Some(seen) = self.text(&format!("k#{hash}"), "key").await? else {
            return Ok(None);
        };
        let key = self.parse(&seen)?;
        Ok(Some((seen, key)))
    }

    /// Stores a key in place of the one that was `seen`. Says whether it still was that one.
    ///
    /// # Errors
    /// [`Error`] if the outcome is not known.
    pub async fn replace_key(&self, hash: KeyHash, seen: &str, key: &KeyRecord) -> Result<bool, Error> {
        let before: KeyDocument = self.parse(seen)?;
        let document = KeyDocument {
            key: key.clone(),
            ..before
        };
        self.put(&format!("k#{hash}"), "key", &document, 0, Seen::Document(seen))
            .await
    }

    /// Stores a key, unless there is one with this hash: what became of that since stays. Says whether it was new.
    ///
    /// # Errors
    /// [`Error`] if the outcome is not known.
    pub async fn put_key_once(&self, hash: KeyHash, key: &KeyRecord) -> Result<bool, Error> {
        self.put(
            &format!("c#{}", key.customer),
            &format!("key#{hash}"),
            &(),
            0,
            Seen::Anything,
        )
        .await?;
        self.put(&format!("k#{hash}"), "key", key, 0, Seen::Nothing).await
    }

    /// The hashes of a customer's keys.
    ///
    /// # Errors
    /// [`Error`] if the table can't be read.
    pub async fn key_hashes(&self, customer: &CustomerId) -> Result<Vec<KeyHash>, Error> {
        let mut hashes = Vec::new();
        let mut pages = self
            .clients
            .dynamodb
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .key_condition_expression("pk = :pk AND begins_with(sk, :key)")
            .expression_attribute_values(":pk", AttributeValue::S(format!("c#{customer}")))
            .expression_attribute_values(":key", AttributeValue::S("key#".to_owned()))
            .into_paginator()
            .items()
            .send();
        while let Some(item) = pages.next().await {
            let item = item.map_err(|e| Error::call(format!("query {}", self.table), &e))?;
            let hash = item::text(&item, "sk").and_then(|sk| KeyHash::from_hex(sk.strip_prefix("key#")?));
            hashes.extend(hash);
        }
        Ok(hashes)
    }

    /// The keys in use that expire in a span of time. It reads the whole table: for once a day.
    ///
    /// # Errors
    /// [`Error`] if the table can't be read.
    pub async fn keys_expiring(&self, from: Timestamp, until: Timestamp) -> Result<Vec<(KeyHash, KeyRecord)>, Error> {
        let mut keys = Vec::new();
        let mut pages = self
            .clients
            .dynamodb
            .scan()
            .table_name(&self.table)
            .filter_expression("sk = :key AND begins_with(pk, :k)")
            .expression_attribute_values(":key", AttributeValue::S("key".to_owned()))
            .expression_attribute_values(":k", AttributeValue::S("k#".to_owned()))
            .into_paginator()
            .items()
            .send();
        while let Some(item) = pages.next().await {
            let item = item.map_err(|e| Error::call(format!("scan {}", self.table), &e))?;
            let hash = item::text(&item, "pk").and_then(|pk| KeyHash::from_hex(pk.strip_prefix("k#")?));
            let key: KeyRecord = self.document(&item)?;
            let expires_then = key.expires.is_some_and(|expires| from <= expires && expires < until);
            if let Some(hash) = hash.filter(|_| expires_then && key.revoked.is_none()) {
                keys.push((hash, key));
            }
        }
        Ok(keys)
    }

    /// Every customer, in the order of their ids.
    ///
    /// # Errors
    /// [`Error`] if the table can't be read.
    pub async fn customers(&self) -> Result<Vec<Customer>, Error> {
        let mut customers = Vec::new();
        let mut pages = self
            .clients
            .dynamodb
            .scan()
            .table_name(&self.table)
            .filter_expression("sk = :customer")
            .expression_attribute_values(":customer", AttributeValue::S("customer".to_owned()))
            .into_paginator()
            .items()
            .send();
        while let Some(item) = pages.next().await {
            let item = item.map_err(|e| Error::call(format!("scan {}", self.table), &e))?;
            customers.push(self.document(&item)?);
        }
        customers.sort_by(|a: &Customer, b| a.id.cmp(&b.id));
        Ok(customers)
    }

    async fn read<T: DeserializeOwned>(&self, pk: &str, sk: &str) -> Result<Option<T>, Error> {
        let text = self.text(pk, sk).await?;
        text.map(|text| self.parse(&text)).transpose()
    }

    /// The document of an item as it is stored.
    async fn text(&self, pk: &str, sk: &str) -> Result<Option<String>, Error> {
        let answer = self
            .clients
            .dynamodb
            .get_item()
            .table_name(&self.table)
            .key("pk", AttributeValue::S(pk.to_owned()))
            .key("sk", AttributeValue::S(sk.to_owned()))
            .consistent_read(true)
            .send()
            .await
            .map_err(|e| Error::call(format!("read {} {sk}", self.table), &e))?;
        let text = |item| item::text(item, "doc").unwrap_or_default().to_owned();
        Ok(answer.item.as_ref().map(text))
    }

    fn document<T: DeserializeOwned>(&self, item: &item::Item) -> Result<T, Error> {
        self.parse(item::text(item, "doc").unwrap_or_default())
    }

    fn parse<T: DeserializeOwned>(&self, text: &str) -> Result<T, Error> {
        serde_json::from_str(text).map_err(|e| Error::item(format!("read {}", self.table), place(&e)))
    }

    /// The put of a document, as part of a transaction. `seen`: the epoch it must have; 0 is that it must not exist.
    fn transact_put<T: Serialize>(
        &self,
        pk: &str,
        sk: &str,
        document: &T,
        epoch: u64,
        seen: Option<u64>,
    ) -> Result<TransactWriteItem, Error> {
        let operation = || format!("put {} {sk}", self.table);
        let document = serde_json::to_string(document).map_err(|e| Error::item(operation(), e.to_string()))?;
        let mut put = Put::builder()
            .table_name(&self.table)
            .item("pk", AttributeValue::S(pk.to_owned()))
            .item("sk", AttributeValue::S(sk.to_owned()))
            .item("epoch", AttributeValue::N(epoch.to_string()))
            .item("doc", AttributeValue::S(document));
        put = match seen {
            None => put,
            Some(0) => put.condition_expression("attribute_not_exists(pk)"),
            Some(seen) => put
                .condition_expression("epoch = :seen")
                .expression_attribute_values(":seen", AttributeValue::N(seen.to_string())),
        };
        let put = put.build().map_err(|e| Error::item(operation(), e.to_string()))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }

    async fn put<T: Serialize>(
        &self,
        pk: &str,
        sk: &str,
        document: &T,
        epoch: u64,
        seen: Seen<'_>,
    ) -> Result<bool, Error> {
        let operation = || format!("put {} {sk}", self.table);
        let document = serde_json::to_string(document).map_err(|e| Error::item(operation(), e.to_string()))?;
        let mut request = self
            .clients
            .dynamodb
            .put_item()
            .table_name(&self.table)
            .item("pk", AttributeValue::S(pk.to_owned()))
            .item("sk", AttributeValue::S(sk.to_owned()))
            .item("epoch", AttributeValue::N(epoch.to_string()))
            .item("doc", AttributeValue::S(document));
        request = match seen {
            Seen::Anything => request,
            Seen::Nothing => request.condition_expression("attribute_not_exists(pk)"),
            Seen::Document(seen) => request
                .condition_expression("doc = :seen")
                .expression_attribute_values(":seen", AttributeValue::S(seen.to_owned())),
        };
        match request.send().await {
            Ok(_) => Ok(true),
            Err(e) if is_refused(&e) => Ok(false),
            Err(e) => Err(Error::call(operation(), &e)),
        }
    }
}

/// What serde_json found and where, without the value that it found: that may be a secret which somebody put in the wrong place.
fn place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if text.starts_with("missing field") {
        return text;
    }
    let (kind, line, column) = (error.classify(), error.line(), error.column());
    format!("unexpected json ({kind:?}) at line {line} column {column}")
}

/// The attribute by which the table drops a mark.
fn mark_ends(now: Timestamp) -> AttributeValue {
    AttributeValue::N((now.s() + MARK_KEPT_S).to_string())
}

/// Whether a put was answered: the item is not what the condition says.
fn is_refused<R>(error: &SdkError<PutItemError, R>) -> bool {
    let service = error.as_service_error();
    service.is_some_and(PutItemError::is_conditional_check_failed_exception)
}

/// What an item must be for another to take its place.
#[derive(Clone, Copy)]
enum Seen<'a> {
    /// Whatever it is.
    Anything,
    /// There must be none.
    Nothing,
    /// It must hold this document.
    Document(&'a str),
}
