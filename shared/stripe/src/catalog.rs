//! Products: what the owner sells.

use std::collections::HashMap;

use serde::Deserialize;
use stripe_client_core::StripeRequest;
use stripe_product::product::{CreateProduct, RetrieveProduct, UpdateProduct};

use crate::client::path_id;
use crate::{Client, Error};

/// What is sold; its prices say for how much: <https://docs.stripe.com/api/products/object>.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Product {
    /// `prod_…`
    pub id: String,
    /// What the customer reads on the invoice.
    pub name: String,
    /// Ours to fill.
    #[serde(default)]
    pub metadata: HashMap<String, String>,
}

impl Client {
    /// Creates a product.
    ///
    /// # Errors
    /// As every call.
    pub async fn create_product(
        &self,
        name: &str,
        metadata: HashMap<String, String>,
        idempotency_key: &str,
    ) -> Result<Product, Error> {
        let mut request = CreateProduct::new(name);
        if !metadata.is_empty() {
            request = request.metadata(metadata);
        }
        self.create(&request, idempotency_key).await?.read()
    }

    /// Creates a product with an id of our own, which Stripe takes only once: <https://docs.stripe.com/api/products/create>.
    ///
    /// # Errors
    /// [`Error::Rejected`], of which [`Error::already_exists`] is true, if there is a product with this id.
    pub async fn create_product_with_id(
        &self,
        id: &str,
        name: &str,
        metadata: HashMap<String, String>,
        idempotency_key: &str,
    ) -> Result<Product, Error> {
        let mut request = CreateProduct::new(name).id(path_id(id)?);
        if !metadata.is_empty() {
            request = request.metadata(metadata);
        }
        self.create(&request, idempotency_key).await?.read()
    }

    /// The product with this id: <https://docs.stripe.com/api/products/retrieve>.
    ///
    /// # Errors
    /// As every call; a product that is absent is `None`.
    pub async fn find_product(&self, id: &str) -> Result<Option<Product>, Error> {
        self.find(RetrieveProduct::new(path_id(id)?).build()).await
    }

    /// Names a product anew: <https://docs.stripe.com/api/products/update>. Metadata keys that are not given stay; an empty
    /// value takes one away.
    ///
    /// # Errors
    /// [`Error::Rejected`] if there is none.
    pub async fn update_product(
        &self,
        id: &str,
        name: &str,
        metadata: HashMap<String, String>,
        idempotency_key: &str,
    ) -> Result<Product, Error> {
        let mut request = UpdateProduct::new(path_id(id)?).name(name);
        if !metadata.is_empty() {
            request = request.metadata(metadata);
        }
        self.create(&request, idempotency_key).await?.read()
    }
}
