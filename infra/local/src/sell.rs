//! Selling a tier, as the operator would: the customer in both places, and a key.

use farebox_aws::control::NewKey;
use farebox_billing::{Books, Sale};
use farebox_core::{
    account::{Contact, Customer},
    id::CustomerId,
    key::Mode,
    tiers::Overrides,
};

use crate::Error;

/// The brand in front of local keys.
pub(crate) const BRAND: &str = "fb";

/// A customer just sold to.
pub struct Sold {
    /// The customer.
    pub customer: Customer,
    /// Its key, to be shown once.
    pub key: String,
}

/// Sells a tier, and issues a key. A customer that is there already only gets the key.
///
/// # Errors
/// [`Error`] at the first step that fails; selling again goes on from there.
pub async fn sell(
    books: &Books,
    catalog: u64,
    id: &CustomerId,
    tier: &str,
    overrides: Overrides,
) -> Result<Sold, Error> {
    let customer = match books.accounts.customer(id).await? {
        Some(customer) => customer,
        None => {
            let sale = Sale {
                id: id.clone(),
                name: id.to_string(),
                tier: tier.to_owned(),
                catalog,
                overrides,
                contact: Contact {
                    email: Some(format!("billing@{id}.example")),
                    ..Contact::default()
                },
                trial_days: None,
            };
            books.sell(sale).await?
        }
    };
    let new = NewKey {
        brand: BRAND.to_owned(),
        mode: Mode::Test,
        name: "first key".to_owned(),
        scopes: Vec::new(),
        expires: None,
    };
    let issued = books.control().issue_key(id, new, books.now()).await?;
    Ok(Sold {
        customer,
        key: issued.key.reveal().to_owned(),
    })
}
