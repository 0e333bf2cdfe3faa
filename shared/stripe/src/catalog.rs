//! Products: what the owner sells.

use std::collections::HashMap;

use serde::Deserialize;
use stripe_product::product::CreateProduct;

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
}
