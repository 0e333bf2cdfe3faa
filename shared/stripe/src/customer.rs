//! Customers: who pays.

use std::collections::HashMap;

use serde::Deserialize;
use stripe_client_core::StripeRequest;
use stripe_core::customer::{CreateCustomer, RetrieveCustomer, UpdateCustomer, UpdateCustomerInvoiceSettings};

use crate::client::path_id;
use crate::{Client, Error, reference};

/// Who pays: <https://docs.stripe.com/api/customers/object>.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "Read")]
pub struct Customer {
    /// `cus_…`
    pub id: String,
    /// As given at creation or in the portal.
    pub name: Option<String>,
    /// As given at creation or in the portal.
    pub email: Option<String>,
    /// `pm_…`, which pays the subscriptions that name no other.
    pub default_payment_method: Option<String>,
    /// Ours to fill.
    pub metadata: HashMap<String, String>,
}

/// A change of a customer: <https://docs.stripe.com/api/customers/update>. What is left at its default stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CustomerUpdate {
    /// Who it is.
    pub name: Option<String>,
    /// Where invoices are sent.
    pub email: Option<String>,
    /// `pm_…`, attached to the customer.
    pub default_payment_method: Option<String>,
    /// Keys to set; an empty value takes the key away.
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

    /// The customer with this id: <https://docs.stripe.com/api/customers/retrieve>.
    ///
    /// # Errors
    /// As every call; a customer that is absent or deleted is `None`.
    pub async fn customer(&self, id: &str) -> Result<Option<Customer>, Error> {
        self.find(RetrieveCustomer::new(path_id(id)?).build()).await
    }

    /// Changes a customer.
    ///
    /// # Errors
    /// [`Error::Rejected`] if there is none, or if the payment method is not attached to it.
    pub async fn update_customer(
        &self,
        id: &str,
        update: &CustomerUpdate,
        idempotency_key: &str,
    ) -> Result<Customer, Error> {
        let accepted = self.create(&update.request(path_id(id)?), idempotency_key).await?;
        accepted.read()
    }
}

impl CustomerUpdate {
    fn request(&self, id: &str) -> UpdateCustomer {
        let mut request = UpdateCustomer::new(id);
        if let Some(name) = &self.name {
            request = request.name(name);
        }
        if let Some(email) = &self.email {
            request = request.email(email);
        }
        if let Some(method) = &self.default_payment_method {
            request = request.invoice_settings(UpdateCustomerInvoiceSettings {
                default_payment_method: Some(method.clone()),
                ..UpdateCustomerInvoiceSettings::new()
            });
        }
        if !self.metadata.is_empty() {
            request = request.metadata(self.metadata.clone());
        }
        request
    }
}

#[derive(Deserialize)]
struct Read {
    id: String,
    name: Option<String>,
    email: Option<String>,
    #[serde(default)]
    metadata: HashMap<String, String>,
    invoice_settings: Option<InvoiceSettings>,
}

#[derive(Deserialize)]
struct InvoiceSettings {
    #[serde(default, deserialize_with = "reference::optional")]
    default_payment_method: Option<String>,
}

impl From<Read> for Customer {
    fn from(read: Read) -> Self {
        Self {
            id: read.id,
            name: read.name,
            email: read.email,
            default_payment_method: read
                .invoice_settings
                .and_then(|settings| settings.default_payment_method),
            metadata: read.metadata,
        }
    }
}
