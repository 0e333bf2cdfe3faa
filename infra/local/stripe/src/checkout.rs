//! Checkout sessions in the mode `subscription`, and the page that their `url` opens.
//!
//! The page takes no card data: one button completes the session, as `POST` to the page's address does.
//!
//! Source: <https://docs.stripe.com/api/checkout/sessions>.

use serde_json::{Map, Value, json};

use crate::{
    calendar::DAY,
    catalog::{Metadata, merge},
    events::Cause,
    ids::Kind,
    invoices::Entry,
    money::{Decimal, shown},
    pauses::take_missing_method,
    payments::{declines, take_method},
    state::{Due, State},
    subscriptions::{Proration, Subscription},
    table::Object,
    wire::{error::ApiError, form::Params, list::Page},
};

/// The path of a session's page, before its id.
pub(crate) const PAGES: &str = "/_standin/checkout/";

/// Where a session is opened as a Payment Link opens it.
pub(crate) const LINK: &str = "/_standin/payment_link";

/// "It can be anywhere from 30 minutes to 24 hours after Checkout Session creation. By default, this value is 24 hours from creation."
const EXPIRES_S: (i64, i64) = (30 * 60, DAY);

/// The card that the page pays with, unless it is told another one.
const CARD: &str = "pm_card_visa";

/// Where a session is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Open,
    Complete,
    Expired,
}

impl Status {
    const WORDS: [(&'static str, Self); 3] = [
        ("open", Self::Open),
        ("complete", Self::Complete),
        ("expired", Self::Expired),
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Complete => "complete",
            Self::Expired => "expired",
        }
    }
}

/// One element of `line_items`.
#[derive(Debug, Clone)]
struct LineItem {
    id: String,
    price: String,
    quantity: Option<i64>,
    amount: i64,
    description: String,
}

/// A customer's visit to the page.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    id: String,
    status: Status,
    created: i64,
    expires_at: i64,
    url: String,
    success_url: String,
    cancel_url: Option<String>,
    customer: Option<String>,
    customer_email: Option<String>,
    client_reference_id: Option<String>,
    payment_link: Option<String>,
    currency: String,
    line_items: Vec<LineItem>,
    amount_total: i64,
    /// Whether the first payment comes later.
    trialing: bool,
    /// `payment_method_collection=if_required`
    card_if_required: bool,
    /// What the subscription gets from `subscription_data`, as parameters.
    subscription_data: Vec<(String, String)>,
    metadata: Metadata,
    subscription: Option<String>,
    invoice: Option<String>,
}

impl Object for Session {
    const NOUN: &'static str = "checkout.session";

    fn id(&self) -> &str {
        &self.id
    }
}

impl Session {
    /// The parameters of the subscription's items and data.
    fn form(&self) -> Vec<(String, String)> {
        let mut form = self.subscription_data.clone();
        for (index, item) in self.line_items.iter().enumerate() {
            form.push((format!("items[{index}][price]"), item.price.clone()));
            if let Some(quantity) = item.quantity {
                form.push((format!("items[{index}][quantity]"), quantity.to_string()));
            }
        }
        form
    }

    fn takes_card(&self) -> bool {
        !self.card_if_required || self.amount_total > 0
    }

    fn payment_status(&self) -> &'static str {
        match self.status {
            Status::Complete if self.trialing => "no_payment_required",
            Status::Complete => "paid",
            Status::Open | Status::Expired => "unpaid",
        }
    }

    /// Where the customer goes afterwards.
    fn landing(&self) -> String {
        self.success_url.replace("{CHECKOUT_SESSION_ID}", &self.id)
    }
}

impl State {
    pub(crate) fn create_session(&mut self, mut params: Params, host: &str, at: i64) -> Result<Value, ApiError> {
        let mode = params.required("mode")?;
        let customer = params.text("customer")?;
        let customer_email = params.text("customer_email")?;
        let client_reference_id = params.text("client_reference_id")?;
        let success_url = params.required("success_url")?;
        let cancel_url = params.text("cancel_url")?;
        let expires_at = params.natural("expires_at")?.unwrap_or(at + EXPIRES_S.1);
        let items = params
            .levels("line_items")?
            .ok_or_else(|| ApiError::missing("line_items"))?;
        let card_if_required = params
            .choice("payment_method_collection", &[("always", false), ("if_required", true)])?
            .unwrap_or(false);
        let data = params.level("subscription_data")?.map(take_subscription_data);
        let subscription_data = data.transpose()?.unwrap_or_default();
        let pairs = params.pairs("metadata")?;
        params.ignore(&[
            "allow_promotion_codes",
            "automatic_tax",
            "billing_address_collection",
            "consent_collection",
            "currency",
            "custom_text",
            "customer_update",
            "locale",
            "payment_method_types",
            "phone_number_collection",
            "saved_payment_method_options",
            "tax_id_collection",
            "ui_mode",
        ]);
        params.finish()?;
        if mode != "subscription" {
            return Err(ApiError::unsupported(
                "another mode of a checkout session than `subscription`",
            ));
        }
        if customer.is_some() && customer_email.is_some() {
            return Err(ApiError::invalid(
                "customer_email",
                "You may only specify one of these parameters: customer, customer_email.",
            ));
        }
        if let Some(customer) = &customer {
            self.live_customer(customer, "customer")?;
        }
        if !(at + EXPIRES_S.0..=at + EXPIRES_S.1).contains(&expires_at) {
            return Err(ApiError::invalid(
                "expires_at",
                "The `expires_at` timestamp must be between 30 minutes and 24 hours from Checkout Session creation.",
            ));
        }
        let line_items = items
            .into_iter()
            .map(|level| self.take_line_item(level))
            .collect::<Result<_, _>>()?;
        let mut metadata = Metadata::new();
        merge(&mut metadata, pairs);
        let mut session = Session {
            id: String::new(),
            status: Status::Open,
            created: at,
            expires_at,
            url: String::new(),
            success_url,
            cancel_url,
            customer,
            customer_email,
            client_reference_id,
            payment_link: None,
            currency: String::new(),
            line_items,
            amount_total: 0,
            trialing: false,
            card_if_required,
            subscription_data,
            metadata,
            subscription: None,
            invoice: None,
        };
        let (subscription, entries) = self.rehearse(&session, at)?;
        session.currency = subscription.currency.clone();
        session.trialing = subscription.trial.is_some();
        session.amount_total = entries.iter().fold(0, |total, entry| match entry {
            Entry::Lines(lines) => lines.iter().fold(total, |total, line| total + line.amount),
            Entry::Usage(_) => total,
        });
        session.id = self.ids.mint(Kind::CheckoutSession);
        session.url = format!("http://{host}{PAGES}{}", session.id);
        for item in &mut session.line_items {
            item.id = self.ids.mint(Kind::LineItem);
        }
        self.due
            .insert((session.expires_at, Due::ExpireSession(session.id.clone())));
        let rendered = render(&session);
        self.sessions.put(session);
        Ok(rendered)
    }

    /// Somebody opened a Payment Link: a session that names the link, with the reference that they wrote behind its address
    /// (<https://docs.stripe.com/payment-links/url-parameters>). Links are not kept: what this one sells and says is told here, as
    /// for a session.
    pub(crate) fn open_link(&mut self, params: Params, host: &str, at: i64) -> Result<Value, ApiError> {
        let opened = self.create_session(params, host, at)?;
        let id = opened["id"].as_str().unwrap_or_default();
        let mut session = self.sessions.get(id, "session")?.clone();
        session.payment_link = Some(self.ids.mint(Kind::PaymentLink));
        let rendered = render(&session);
        self.sessions.put(session);
        Ok(rendered)
    }

    /// The subscription that a session would make now, and what its first invoice would bill. Stores nothing.
    fn rehearse(&mut self, session: &Session, at: i64) -> Result<(Subscription, Vec<Entry>), ApiError> {
        let saved = self.ids.clone();
        let rehearsed = self.try_rehearse(session, at);
        self.ids = saved;
        rehearsed
    }

    fn try_rehearse(&mut self, session: &Session, at: i64) -> Result<(Subscription, Vec<Entry>), ApiError> {
        let mut params = Params::decode(&encode(&session.form()))?;
        let items = params.levels("items")?.unwrap_or_default();
        let days = params.natural("trial_period_days")?;
        let trial_end = params.natural("trial_end")?;
        let (mut subscription, interval) = self.new_subscription("", items, at)?;
        subscription.start(interval, trial_end.or(days.map(|days| at + days * DAY)), None, at)?;
        let entries = self.first_entries(&subscription, interval, Proration::Create);
        Ok((subscription, entries))
    }

    fn take_line_item(&self, mut level: Params) -> Result<LineItem, ApiError> {
        let (price_name, quantity_name) = (level.name("price"), level.name("quantity"));
        let price = level.required("price")?;
        let quantity = level.natural("quantity")?;
        level.ignore(&["adjustable_quantity", "dynamic_tax_rates", "tax_rates"]);
        level.finish()?;
        let price = self.catalog.prices.get(&price, &price_name)?;
        let product = self.catalog.product_of(price);
        let amount = match (price.meter(), quantity) {
            (None, None) => {
                return Err(ApiError::invalid(&quantity_name, "Quantity is required.").code("parameter_missing"));
            }
            (None, Some(quantity)) => {
                let charges = price.charges(quantity, product);
                charges
                    .iter()
                    .fold(0i64, |sum, charge| sum.saturating_add(charge.amount))
            }
            (Some(_), _) => 0,
        };
        Ok(LineItem {
            id: String::new(),
            price: price.id.clone(),
            quantity,
            amount,
            description: product.name.clone(),
        })
    }

    /// The customer presses the button: `POST` to the page. A session that is complete already stays as it is.
    pub(crate) fn complete_session(&mut self, id: &str, mut params: Params, at: i64) -> Result<Value, ApiError> {
        let email = params.text("email")?;
        let name = params.text("name")?;
        let method = take_method(&mut params, "payment_method")?.flatten();
        params.finish()?;
        let method = method.unwrap_or_else(|| CARD.to_owned());
        let mut session = self.sessions.get(id, "session")?.clone();
        match session.status {
            Status::Open => {}
            Status::Complete => return Ok(self.render_completed(&session)),
            Status::Expired => return Err(ApiError::refused("This Checkout Session has expired.")),
        }
        self.rehearse(&session, at)?;
        if session.amount_total > 0 && declines(&method) {
            return Err(ApiError::card_declined());
        }
        // What the customer does has no request of ours.
        let cause = Cause::default();
        let customer = match &session.customer {
            Some(customer) => self.live_customer(customer, "customer")?.id.clone(),
            None => {
                let mut form = Vec::new();
                let email = session.customer_email.clone().or(email);
                form.extend(email.map(|email| ("email".to_owned(), email)));
                form.extend(name.map(|name| ("name".to_owned(), name)));
                let made = self.create_customer(Params::decode(&encode(&form))?, at, &cause)?;
                made["id"].as_str().unwrap_or_default().to_owned()
            }
        };
        let mut form = session.form();
        form.push(("customer".to_owned(), customer.clone()));
        if session.takes_card() {
            form.push(("default_payment_method".to_owned(), method));
        }
        let made = self.create_subscription(Params::decode(&encode(&form))?, at, &cause)?;
        session.customer = Some(customer);
        session.subscription = made["id"].as_str().map(str::to_owned);
        session.invoice = made["latest_invoice"].as_str().map(str::to_owned);
        session.status = Status::Complete;
        let rendered = self.render_completed(&session);
        self.sessions.put(session);
        self.emit(at, &cause, "checkout.session.completed", rendered.clone(), None);
        Ok(rendered)
    }

    /// `/v1/checkout/sessions/:id/expire`
    pub(crate) fn expire_session(
        &mut self,
        id: &str,
        params: Params,
        at: i64,
        cause: &Cause,
    ) -> Result<Value, ApiError> {
        params.finish()?;
        let session = self.sessions.get(id, "session")?.clone();
        if session.status != Status::Open {
            return Err(ApiError::refused(format!(
                "Only Checkout Sessions with a status in [\"open\"] can be expired. This Checkout Session has a status of `{}`.",
                session.status.word()
            )));
        }
        Ok(self.end_session(session, at, cause))
    }

    /// Says whether the session still waited.
    pub(crate) fn expire_session_due(&mut self, id: &str, at: i64) -> bool {
        let open = self.sessions.find(id).filter(|session| session.status == Status::Open);
        let Some(session) = open.cloned() else {
            return false;
        };
        self.end_session(session, at, &Cause::default());
        true
    }

    fn end_session(&mut self, mut session: Session, at: i64, cause: &Cause) -> Value {
        session.status = Status::Expired;
        let rendered = render(&session);
        self.sessions.put(session);
        self.emit(at, cause, "checkout.session.expired", rendered.clone(), None);
        rendered
    }

    pub(crate) fn retrieve_session(&self, id: &str, params: Params) -> Result<Value, ApiError> {
        params.finish()?;
        let session = self.sessions.get(id, "session")?;
        Ok(self.render_completed(session))
    }

    pub(crate) fn list_sessions(&self, mut params: Params) -> Result<Value, ApiError> {
        let page = Page::take(&mut params)?;
        let customer = params.text("customer")?;
        let subscription = params.text("subscription")?;
        let status = params.choice("status", &Status::WORDS)?;
        params.finish()?;
        let rows = self.sessions.newest_first(None).filter(|session| {
            (customer.is_none() || session.customer == customer)
                && (subscription.is_none() || session.subscription == subscription)
                && status.is_none_or(|status| session.status == status)
        });
        page.cut(
            rows,
            |session| session.id(),
            |session| self.render_completed(session),
            Session::NOUN,
            "/v1/checkout/sessions",
        )
    }

    pub(crate) fn list_line_items(&self, id: &str, mut params: Params) -> Result<Value, ApiError> {
        let page = Page::take(&mut params)?;
        params.finish()?;
        let session = self.sessions.get(id, "session")?;
        page.cut(
            session.line_items.iter(),
            |item| &item.id,
            |item| self.render_line_item(session, item),
            "item",
            &format!("/v1/checkout/sessions/{id}/line_items"),
        )
    }

    /// Adds the line items to a rendered session.
    pub(crate) fn expand_line_items(&self, rendered: &mut Map<String, Value>) {
        let session = rendered.get("id").and_then(Value::as_str);
        if let Some(session) = session.and_then(|id| self.sessions.find(id)) {
            let items: Vec<Value> = session
                .line_items
                .iter()
                .map(|item| self.render_line_item(session, item))
                .collect();
            let url = format!("/v1/checkout/sessions/{}/line_items", session.id);
            rendered.insert("line_items".into(), crate::wire::list::list(items, false, &url));
        }
    }

    fn render_line_item(&self, session: &Session, item: &LineItem) -> Value {
        json!({
            "id": item.id,
            "object": "item",
            "adjustable_quantity": null,
            "amount_discount": 0,
            "amount_subtotal": item.amount,
            "amount_tax": 0,
            "amount_total": item.amount,
            "currency": session.currency,
            "description": item.description,
            "metadata": {},
            "price": self.catalog.prices.find(&item.price).map(|price| price.render()),
            "quantity": item.quantity,
        })
    }

    /// With the customer's details, which are known once the session is complete.
    fn render_completed(&self, session: &Session) -> Value {
        let mut rendered = render(session);
        let customer = session.customer.as_ref().and_then(|id| self.customers.find(id));
        if let Some(customer) = customer.filter(|_| session.status == Status::Complete) {
            rendered["customer_details"] = json!({
                "address": null,
                "business_name": null,
                "email": customer.email,
                "individual_name": null,
                "name": customer.name,
                "phone": null,
                "tax_exempt": "none",
                "tax_ids": [],
            });
        }
        rendered
    }

    /// The page of a session, with a word on what went wrong; `None` if there is no such session.
    pub(crate) fn checkout_page(&self, id: &str, trouble: Option<&str>) -> Option<String> {
        let session = self.sessions.find(id)?;
        let amount = |amount: i64| shown(Decimal::whole(amount), &session.currency);
        let items: String = session
            .line_items
            .iter()
            .map(|item| {
                let counted = item
                    .quantity
                    .map_or_else(String::new, |quantity| format!("{quantity} × "));
                let cost = match item.quantity {
                    Some(_) => amount(item.amount),
                    None => "by usage".to_owned(),
                };
                format!("<li>{counted}{}: {cost}</li>", escape(&item.description))
            })
            .collect();
        let trouble = trouble.map_or_else(String::new, |words| format!("<p role=\"alert\">{}</p>", escape(words)));
        let cancel = session.cancel_url.as_ref().map_or_else(String::new, |url| {
            format!("<p><a href=\"{}\">Cancel</a></p>", escape(url))
        });
        let action = match session.status {
            Status::Open => format!("{trouble}<form method=\"post\"><button>Subscribe</button></form>{cancel}"),
            Status::Complete => format!("<p>Done. <a href=\"{}\">Go on</a></p>", escape(&session.landing())),
            Status::Expired => "<p>This session has expired.</p>".to_owned(),
        };
        Some(format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Checkout</title></head><body>\
             <h1>Checkout</h1><p>A stand-in for Stripe: no money moves.</p>\
             <ul>{items}</ul><p>Due today: {}</p>{action}</body></html>",
            amount(session.amount_total)
        ))
    }

    /// Where a complete session sends its customer.
    pub(crate) fn landing_of(&self, id: &str) -> Option<String> {
        let session = self.sessions.find(id)?;
        (session.status == Status::Complete).then(|| session.landing())
    }
}

/// What `subscription_data` may say, as parameters of the subscription.
fn take_subscription_data(mut level: Params) -> Result<Vec<(String, String)>, ApiError> {
    let mut form = Vec::new();
    for name in ["description", "trial_end", "trial_period_days"] {
        form.extend(level.text(name)?.map(|value| (name.to_owned(), value)));
    }
    for (key, value) in level.pairs("metadata")? {
        form.push((format!("metadata[{key}]"), value));
    }
    if let Some(missing_method) = take_missing_method(&mut level)? {
        let name = "trial_settings[end_behavior][missing_payment_method]";
        form.push((name.to_owned(), missing_method.word().to_owned()));
    }
    level.ignore(&["billing_mode", "invoice_settings", "proration_behavior"]);
    level.finish()?;
    Ok(form)
}

fn encode(pairs: &[(String, String)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn render(session: &Session) -> Value {
    json!({
        "id": session.id,
        "object": "checkout.session",
        "adaptive_pricing": null,
        "after_expiration": null,
        "allowed_payment_method_types": null,
        "allow_promotion_codes": null,
        "amount_subtotal": session.amount_total,
        "amount_total": session.amount_total,
        "automatic_tax": { "enabled": false, "liability": null, "provider": null, "status": null },
        "billing_address_collection": null,
        "cancel_url": session.cancel_url,
        "client_reference_id": session.client_reference_id,
        "client_secret": null,
        "collected_information": null,
        "consent": null,
        "consent_collection": null,
        "created": session.created,
        "currency": session.currency,
        "currency_conversion": null,
        "custom_fields": [],
        "custom_text": {
            "after_submit": null,
            "shipping_address": null,
            "submit": null,
            "terms_of_service_acceptance": null,
        },
        "customer": session.customer,
        "customer_account": null,
        "customer_creation": if session.customer.is_some() { Value::Null } else { "always".into() },
        "customer_details": session.customer_email.as_ref().map(|email| json!({
            "address": null,
            "business_name": null,
            "email": email,
            "individual_name": null,
            "name": null,
            "phone": null,
            "tax_exempt": "none",
            "tax_ids": null,
        })),
        "customer_email": session.customer_email,
        "discounts": [],
        "expires_at": session.expires_at,
        "integration_identifier": null,
        "invoice": session.invoice,
        "invoice_creation": null,
        "livemode": false,
        "locale": null,
        "managed_payments": null,
        "metadata": session.metadata,
        "mode": "subscription",
        "origin_context": null,
        "payment_intent": null,
        "payment_link": session.payment_link,
        "payment_method_collection": if session.card_if_required { "if_required" } else { "always" },
        "payment_method_configuration_details": null,
        "payment_method_options": null,
        "payment_method_types": ["card"],
        "payment_status": session.payment_status(),
        "permissions": null,
        "phone_number_collection": { "enabled": false },
        "recovered_from": null,
        "saved_payment_method_options": null,
        "setup_intent": null,
        "shipping_address_collection": null,
        "shipping_cost": null,
        "shipping_options": [],
        "status": session.status.word(),
        "submit_type": null,
        "subscription": session.subscription,
        "success_url": session.success_url,
        "total_details": { "amount_discount": 0, "amount_shipping": 0, "amount_tax": 0 },
        "ui_mode": "hosted_page",
        "url": if session.status == Status::Open { Value::from(session.url.as_str()) } else { Value::Null },
        "wallet_options": null,
    })
}
