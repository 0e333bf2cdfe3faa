//! Sales on Checkout pages, catalogs that are applied, and what somebody does at Stripe's dashboard; with what must hold of them:
//! everything was sold once, made once and told once.

use std::collections::BTreeSet;

use bytes::Bytes;
use farebox_billing::CUSTOMER_KEY;
use farebox_core::{
    account::Standing,
    key::ApiKey,
    ledger::{Row, RowState},
    tiers::{Catalog, Overrides},
};
use farebox_stripe::{Buyer, CheckoutPrice, NewCheckout};
use http::Request;
use serde_json::Value;

use crate::{
    audit::Audit,
    world::{World, id},
};

/// How often a page is loaded again that asks for it, and how long a browser waits before.
const LOADS_MAX: u32 = 40;
const LOAD_PAUSE_S: u64 = 5;
/// What the webhook calls the key that it issues.
const FIRST_KEY: &str = "first key";
/// What the webhook writes down of a report that Stripe took and could not count.
const UNCOUNTED: &str = "Stripe took the report and could not count it";

/// Who bought on a Checkout page.
#[derive(Debug)]
pub(crate) struct Bought {
    /// The visit.
    session: String,
    tier: &'static str,
    /// Every key that was shown to anybody.
    pub(crate) shown: Vec<String>,
}

/// What a page says.
enum Page {
    Key(String),
    /// The browser is to load it again.
    NotYet,
    /// The key was shown before.
    Shown,
}

impl World {
    /// Opens a Checkout page, as the owner's shop does with the operator's key, and the buyer completes it.
    pub(crate) async fn check_out(&mut self, who: &'static str, tier: &'static str, name: &str) -> Result<(), String> {
        let (books, text) = (self.operator.clone(), |e: farebox_billing::Error| e.to_string());
        let terms = books
            .control()
            .terms_of(self.catalog, tier, &Overrides::default())
            .await
            .map_err(|e| e.to_string())?;
        let prices = books.ensure_plan(&terms).await.map_err(text)?;
        let metered = prices.metered.into_values().map(CheckoutPrice::Metered);
        let checkout = NewCheckout {
            buyer: Buyer::Email(format!("billing@{who}.example")),
            client_reference_id: None,
            prices: std::iter::once(CheckoutPrice::Flat(prices.base))
                .chain(metered)
                .collect(),
            trial_days: None,
            metadata: [(CUSTOMER_KEY.to_owned(), who.to_owned())].into(),
            success_url: "https://shop.example/welcome?session_id={CHECKOUT_SESSION_ID}".to_owned(),
            cancel_url: None,
        };
        // A page that nobody completes costs nothing: each attempt may open its own.
        let session = books.stripe.create_checkout_session(&checkout, name).await;
        let session = session.map_err(|e| e.to_string())?;
        let page = format!("/_standin/checkout/{}", session.id);
        self.at_stripe("POST", &page, "name=Ada").await;
        let bought = Bought {
            session: session.id,
            tier,
            shown: Vec::new(),
        };
        self.bought.insert(who, bought);
        self.sold.insert(who);
        Ok(())
    }

    /// The buyer comes to the welcome page, in two tabs at once, and loads each until it says something.
    pub(crate) async fn visit(&mut self, who: &'static str) {
        let session = self.bought[who].session.clone();
        for _ in 0..LOADS_MAX {
            let (one, other) = tokio::join!(self.load(&session), self.load(&session));
            let is_over = [&one, &other].iter().all(|page| !matches!(page, Page::NotYet));
            for page in [one, other] {
                if let Page::Key(key) = page {
                    self.keys.insert(who, key.clone());
                    self.bought.entry(who).and_modify(|bought| bought.shown.push(key));
                }
            }
            if is_over {
                break;
            }
            self.pass(self.now_s() + LOAD_PAUSE_S).await;
        }
        assert!(self.keys.contains_key(who), "no page showed {who} a key");
    }

    async fn load(&self, session: &str) -> Page {
        let request = Request::get(format!("/live/welcome?session_id={session}")).header("accept", "application/json");
        let request = request.body(Bytes::new()).expect("a request");
        let answer = self.webhook.handle(request, self.operator.now()).await;
        match answer.status().as_u16() {
            200 => {
                let shown: Value = serde_json::from_str(answer.body()).expect("the page is JSON");
                Page::Key(shown["key"].as_str().expect("a key").to_owned())
            }
            410 => Page::Shown,
            _ => Page::NotYet,
        }
    }

    /// The operator applies a catalog: plans what is to be made, and makes it.
    pub(crate) async fn apply(&mut self, tiers: &'static str) -> Result<(), String> {
        let catalog = Catalog::from_yaml(tiers, "tiers.yaml").map_err(|e| e.to_string())?;
        let plan = self.operator.catalogue_plan(&catalog).await;
        let plan = plan.map_err(|e| e.to_string())?;
        let version = self.operator.apply(&plan, |_| {}).await;
        self.catalog = version.map_err(|e| e.to_string())?;
        self.applied = Some(tiers);
        Ok(())
    }

    /// Somebody at the dashboard deletes a customer.
    pub(crate) async fn delete_in_stripe(&mut self, who: &'static str) {
        let customer = self.system.books.customer(&id(who)).await.expect("the customer");
        let in_stripe = customer.stripe_customer.expect("the customer is in Stripe");
        self.at_stripe("DELETE", &format!("/v1/customers/{in_stripe}"), "")
            .await;
    }

    /// Somebody at the dashboard gives a tier's product another name.
    pub(crate) async fn rename_in_stripe(&self, tier: &str) {
        self.at_stripe("POST", &format!("/v1/products/farebox_{tier}"), "name=Renamed")
            .await;
    }

    /// A request to Stripe that passes by every proxy.
    async fn at_stripe(&self, method: &str, path: &str, form: &str) -> Value {
        let (status, answer) = farebox_tests::stripe(&self.system, method, path, form).await;
        assert!((200..400).contains(&status), "{method} {path}: {answer}");
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body).unwrap_or_default()
    }

    /// What must hold of everything that is sold, made or told once.
    pub(crate) async fn once(&self, rows: &[Row], audit: &mut Audit) {
        let made = self.made(audit).await;
        self.sales(audit).await;
        self.uncounted(rows, audit);
        if let Some(tiers) = self.applied {
            self.whole(tiers, &made, audit).await;
        }
    }

    /// Every product, meter and price at Stripe, by name. Each is there once.
    async fn made(&self, audit: &mut Audit) -> BTreeSet<String> {
        let mut made = BTreeSet::new();
        for (list, name) in [
            ("/v1/products", "id"),
            ("/v1/billing/meters", "event_name"),
            ("/v1/prices", "lookup_key"),
        ] {
            let page = self.at_stripe("GET", &format!("{list}?limit=100"), "").await;
            assert_eq!(page["has_more"], false, "{list}");
            for object in page["data"].as_array().into_iter().flatten() {
                let told = format!("{list} {}", object[name]);
                if object[name].is_null() || !made.insert(told.clone()) {
                    audit.problems.push(format!("made twice, or without a name: {told}"));
                }
            }
        }
        made
    }

    /// Who bought is one customer here and there, with one subscription and one key, which was shown once.
    async fn sales(&self, audit: &mut Audit) {
        let accounts = &self.system.books.accounts;
        let snapshot = self.system.services.stand_in.snapshot();
        let list = |kind: &str| snapshot[kind].as_array().cloned().unwrap_or_default();
        let customers = accounts.customers().await.expect("the customers are readable");
        let in_stripe: BTreeSet<&str> = customers
            .iter()
            .filter_map(|customer| customer.stripe_customer.as_deref())
            .collect();
        let mut note = |problem: String| audit.problems.push(problem);
        let known: BTreeSet<&str> = customers.iter().map(|customer| customer.id.as_str()).collect();
        if known != self.sold {
            note(format!("sold to {:?}, and there are {known:?}", self.sold));
        }
        let mut payers = BTreeSet::new();
        for subscription in list("subscriptions") {
            let payer = subscription["customer"].as_str().unwrap_or_default();
            if !in_stripe.contains(payer) || !payers.insert(payer.to_owned()) {
                note(format!("nobody's, or a second one: {subscription}"));
            }
        }
        for (who, bought) in &self.bought {
            let Some(customer) = customers.iter().find(|customer| customer.id.as_str() == *who) else {
                note(format!("{who} has paid and is no customer"));
                continue;
            };
            let payer = customer.stripe_customer.as_deref().unwrap_or_default();
            let tier = &customer.phase_at(self.now_s()).tier;
            if !payers.contains(payer) || customer.standing != Standing::Good || tier != bought.tier {
                note(format!("{who} has paid for {}: {customer:?}", bought.tier));
            }
            let mut keys = accounts.keys(&customer.id).await.expect("the keys are readable");
            keys.retain(|(_, key)| key.name == FIRST_KEY);
            let [shown] = bought.shown.as_slice() else {
                note(format!("{who} was shown {} keys", bought.shown.len()));
                continue;
            };
            let hash = ApiKey::parse(shown).expect("a good key").hash();
            if keys.len() != 1 || keys[0].0 != hash {
                note(format!("{who} was shown {hash} and has {keys:?}"));
            }
            if let Page::Key(_) = self.load(&bought.session).await {
                note(format!("the key of {who} is shown again"));
            }
        }
    }

    /// A report that Stripe could not count is parked, and the operator was told of it.
    fn uncounted(&self, rows: &[Row], audit: &mut Audit) {
        let snapshot = self.system.services.stand_in.snapshot();
        let is_uncounted = |row: &&Row| {
            row.state == RowState::Parked && row.outcome.as_deref().is_some_and(|o| o.starts_with(UNCOUNTED))
        };
        let entries = self.system.services.outbox.entries();
        let mut parked = 0;
        for row in rows.iter().filter(is_uncounted) {
            parked += 1;
            let identifier = row.key.identifier();
            let is_told = |entry: &&farebox_local::Entry| {
                entry.channel == "operator" && entry.text.as_deref().is_some_and(|text| text.contains(&identifier))
            };
            if !entries.iter().any(|entry| is_told(&entry)) {
                audit.problems.push(format!("nobody told the operator of {identifier}"));
            }
        }
        if snapshot["meter_events"]["rejected"].as_u64() != Some(parked) {
            audit.problems.push(format!(
                "{parked} rows are parked as not counted, Stripe says {}",
                snapshot["meter_events"]
            ));
        }
    }

    /// A catalog that was applied is the newest and the only new one, nothing of it is missing, and applying it again changes
    /// nothing.
    async fn whole(&self, tiers: &str, made: &BTreeSet<String>, audit: &mut Audit) {
        let books = &self.system.books;
        let catalog = Catalog::from_yaml(tiers, "tiers.yaml").expect("good tiers");
        let next = self.system.catalog.0 + 1;
        let stored = |version| books.accounts.catalog(version);
        let newest = books.accounts.newest_catalog().await.expect("readable");
        let (one, another) = (stored(next).await, stored(next + 1).await);
        let is_stored = one.expect("readable").as_ref() == Some(&catalog) && another.expect("readable").is_none();
        if newest != next || self.catalog != next || !is_stored {
            audit.problems.push(format!(
                "catalog {} was applied as {next}, the newest is {newest}",
                self.catalog
            ));
        }
        let plan = books.catalogue_plan(&catalog).await.expect("everything is readable");
        if !plan.steps().is_empty() || !plan.mismatches.is_empty() || !plan.is_stored {
            audit
                .problems
                .push(format!("{:?} is missing, {:?} is wrong", plan.steps(), plan.mismatches));
        }
        let again = books.apply(&plan, |_| {}).await.expect("applied again");
        let made_again = self.made(audit).await;
        if again != next || made_again != *made {
            audit.problems.push(format!(
                "applied again it is {again}, with {made_again:?} instead of {made:?}"
            ));
        }
    }
}
