//! Customers: who pays.

use std::collections::HashMap;

use serde::Deserialize;
use stripe_core::customer::CreateCustomer;

use crate::{Client, Error};

/// Who pays: <https://docs.stripe.com/api/customers/object>.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Customer {
    /// `cus_…`
    pub id: String,
    /// As given at creation or in the portal.
    pub name: Option<String>,
    /// As given at creation or in the portal.
    pub email: Option<String>,
    /// Ours to fill.
    #[serde(default)]
    pub metadata: HashMap<String, String>,
}

impl Client {
    /// Creates a customer.
    ///
    /// # Errors
    /// As every call.
    pub async fn create_customer(
        &self,
        name: &str,
        email: Option<&str>,
        metadata: HashMap<String, String>,
        idempotency_key: &str,
    ) -> Result<Customer, Error> {
        let mut request = CreateCustomer::new().name(name);
        if let Some(email) = email {
            request = request.email(email);
        }
        if !metadata.is_empty() {
            request = request.metadata(metadata);
        }
        self.create(&request, idempotency_key).await?.read()
    }
}
