//! Customers, keys and catalogs: one document an item, read consistently.
//!
//! | pk | sk | what |
//! | --- | --- | --- |
//! | `c#<customer>` | `customer` | the [`Customer`] |
//! | `c#<customer>` | `key#<hash>` | that the customer owns the key |
//! | `k#<hash>` | `key` | the [`KeyRecord`] |
//! | `t#<version>` | `catalog` | a [`Catalog`], never changed |

use aws_sdk_dynamodb::types::AttributeValue;
use farebox_core::{
    account::{Customer, KeyRecord},
    id::CustomerId,
    key::KeyHash,
    tiers::Catalog,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, connect::Clients, item};

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

    /// Stores a catalog as the next version, unless the newest one is the same. Returns its version.
    ///
    /// # Errors
    /// [`Error`] if the table can't be written.
    pub async fn put_catalog(&self, catalog: &Catalog) -> Result<u64, Error> {
        let newest = self.newest_catalog().await?;
        if newest > 0 && self.catalog(newest).await?.as_ref() == Some(catalog) {
            return Ok(newest);
        }
        let version = newest + 1;
        if !self
            .put(&format!("t#{version}"), "catalog", catalog, 0, Some(0))
            .await?
        {
            return Err(Error::Contended("the catalog".to_owned()));
        }
        self.put("t", "newest", &version, 0, None).await?;
        Ok(version)
    }

    /// Stores a customer whose epoch was `seen` when it was read; `None` creates. Says whether that still held.
    ///
    /// # Errors
    /// [`Error`] if the table can't be written.
    pub async fn put_customer(&self, customer: &Customer, seen: Option<u64>) -> Result<bool, Error> {
        self.put(
            &format!("c#{}", customer.id),
            "customer",
            customer,
            customer.auth_epoch,
            Some(seen.unwrap_or(0)),
        )
        .await
    }

    /// Stores a key, and that its customer owns it.
    ///
    /// # Errors
    /// [`Error`] if the table can't be written.
    pub async fn put_key(&self, hash: KeyHash, key: &KeyRecord) -> Result<(), Error> {
        self.put(&format!("c#{}", key.customer), &format!("key#{hash}"), &(), 0, None)
            .await?;
        self.put(&format!("k#{hash}"), "key", key, 0, None).await?;
        Ok(())
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
        answer.item.as_ref().map(|item| self.document(item)).transpose()
    }

    fn document<T: DeserializeOwned>(&self, item: &item::Item) -> Result<T, Error> {
        let document = item::text(item, "doc").unwrap_or_default();
        serde_json::from_str(document).map_err(|e| Error::item(format!("read {}", self.table), e.to_string()))
    }

    async fn put<T: Serialize>(
        &self,
        pk: &str,
        sk: &str,
        document: &T,
        epoch: u64,
        seen: Option<u64>,
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
            None => request,
            Some(0) => request.condition_expression("attribute_not_exists(pk)"),
            Some(seen) => request
                .condition_expression("epoch = :seen")
                .expression_attribute_values(":seen", AttributeValue::N(seen.to_string())),
        };
        match request.send().await {
            Ok(_) => Ok(true),
            Err(e)
                if e.as_service_error()
                    .is_some_and(|e| e.is_conditional_check_failed_exception()) =>
            {
                Ok(false)
            }
            Err(e) => Err(Error::call(operation(), &e)),
        }
    }
}
