//! Customers.
//!
//! Source: <https://docs.stripe.com/api/customers>.

use serde_json::{Value, json};

use crate::{
    catalog::{Metadata, merge},
    events::Cause,
    ids::Kind,
    payments::take_method,
    state::State,
    table::Object,
    wire::{error::ApiError, form::Params, list::Page},
};

/// Who pays.
#[derive(Debug, Clone)]
pub(crate) struct Customer {
    pub(crate) id: String,
    pub(crate) email: Option<String>,
    pub(crate) name: Option<String>,
    phone: Option<String>,
    description: Option<String>,
    metadata: Metadata,
    created: i64,
    pub(crate) deleted: bool,
    /// Whether the last automatic payment of an invoice failed.
    pub(crate) delinquent: bool,
    /// `invoice_settings[default_payment_method]`
    default_method: Option<String>,
    /// The payment method that was attached last.
    attached_method: Option<String>,
    /// Minor units; negative is credit that the next invoice consumes.
    /// <https://docs.stripe.com/billing/customer/balance>
    pub(crate) balance: i64,
    pub(crate) currency: Option<String>,
    pub(crate) invoice_prefix: String,
    pub(crate) invoices_numbered: u64,
}

impl Object for Customer {
    const NOUN: &'static str = "customer";

    fn id(&self) -> &str {
        &self.id
    }
}

impl Customer {
    /// A deleted customer answers only that it is deleted.
    pub(crate) fn render(&self) -> Value {
        if self.deleted {
            return json!({ "id": self.id, "object": "customer", "deleted": true });
        }
        json!({
            "id": self.id,
            "object": "customer",
            "address": null,
            "balance": self.balance,
            "created": self.created,
            "currency": self.currency,
            "default_source": null,
            "delinquent": self.delinquent,
            "description": self.description,
            "discount": null,
            "email": self.email,
            "invoice_prefix": self.invoice_prefix,
            "invoice_settings": {
                "custom_fields": null,
                "default_payment_method": self.default_method,
                "footer": null,
                "rendering_options": null,
            },
            "livemode": false,
            "metadata": self.metadata,
            "name": self.name,
            "next_invoice_sequence": self.invoices_numbered + 1,
            "phone": self.phone,
            "preferred_locales": [],
            "shipping": null,
            "tax_exempt": "none",
            "test_clock": null,
        })
    }

    /// The payment method that pays where a subscription has none of its own.
    pub(crate) fn method(&self) -> Option<&str> {
        self.default_method.as_deref().or(self.attached_method.as_deref())
    }

    fn read(&mut self, params: &mut Params) -> Result<(), ApiError> {
        for (name, field) in [
            ("email", &mut self.email),
            ("name", &mut self.name),
            ("phone", &mut self.phone),
            ("description", &mut self.description),
        ] {
            if let Some(value) = params.settable(name)? {
                *field = value;
            }
        }
        if let Some(method) = take_method(params, "payment_method")? {
            self.attached_method = method;
        }
        if let Some(mut settings) = params.level("invoice_settings")? {
            if let Some(method) = take_method(&mut settings, "default_payment_method")? {
                self.default_method = method;
            }
            settings.ignore(&["custom_fields", "footer", "rendering_options"]);
            settings.finish()?;
        }
        merge(&mut self.metadata, params.pairs("metadata")?);
        params.ignore(&[
            "address",
            "preferred_locales",
            "shipping",
            "source",
            "tax",
            "tax_exempt",
        ]);
        Ok(())
    }
}

impl State {
    /// A customer that is not deleted.
    pub(crate) fn live_customer(&self, id: &str, param: &str) -> Result<&Customer, ApiError> {
        let customer = self.customers.get(id, param)?;
        if customer.deleted {
            return Err(ApiError::no_such(Customer::NOUN, id, param));
        }
        Ok(customer)
    }

    pub(crate) fn create_customer(&mut self, mut params: Params, at: i64, cause: &Cause) -> Result<Value, ApiError> {
        let mut customer = Customer {
            id: String::new(),
            email: None,
            name: None,
            phone: None,
            description: None,
            metadata: Metadata::new(),
            created: at,
            deleted: false,
            delinquent: false,
            default_method: None,
            attached_method: None,
            balance: 0,
            currency: None,
            invoice_prefix: String::new(),
            invoices_numbered: 0,
        };
        customer.read(&mut params)?;
        if let Some(prefix) = params.text("invoice_prefix")? {
            customer.invoice_prefix = prefix;
        }
        params.finish()?;
        customer.id = self.ids.mint(Kind::Customer);
        if customer.invoice_prefix.is_empty() {
            customer.invoice_prefix = customer.id[customer.id.len() - 8..].to_uppercase();
        }
        let rendered = customer.render();
        self.customers.put(customer);
        self.emit(at, cause, "customer.created", rendered.clone(), None);
        Ok(rendered)
    }

    pub(crate) fn update_customer(
        &mut self,
        id: &str,
        mut params: Params,
        at: i64,
        cause: &Cause,
    ) -> Result<Value, ApiError> {
        let mut customer = self.live_customer(id, "id")?.clone();
        let before = customer.render();
        customer.read(&mut params)?;
        params.finish()?;
        let rendered = customer.render();
        self.customers.put(customer);
        self.emit(at, cause, "customer.updated", rendered.clone(), Some(&before));
        Ok(rendered)
    }

    /// Deleting a customer cancels its subscriptions at once; nothing more is billed.
    /// <https://docs.stripe.com/api/customers/delete>
    pub(crate) fn delete_customer(
        &mut self,
        id: &str,
        params: Params,
        at: i64,
        cause: &Cause,
    ) -> Result<Value, ApiError> {
        params.finish()?;
        let mut customer = self.live_customer(id, "id")?.clone();
        let rendered = customer.render();
        self.end_subscriptions_of(id, at, cause);
        customer.deleted = true;
        let tombstone = customer.render();
        self.customers.put(customer);
        self.emit(at, cause, "customer.deleted", rendered, None);
        Ok(tombstone)
    }

    pub(crate) fn list_customers(&self, mut params: Params) -> Result<Value, ApiError> {
        let page = Page::take(&mut params)?;
        let email = params.text("email")?;
        params.finish()?;
        let rows = self.customers.newest_first(None).filter(|customer| {
            !customer.deleted
                && email
                    .as_ref()
                    .is_none_or(|email| customer.email.as_ref() == Some(email))
        });
        page.cut(
            rows,
            |customer| customer.id(),
            |customer| customer.render(),
            Customer::NOUN,
            "/v1/customers",
        )
    }
}
