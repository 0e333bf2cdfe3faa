//! What a plan needs in Stripe: the tier's product, a base price, and for each meter a meter and a price of the plan's own.
//!
//! A meter, its price and its event name belong to one plan and to nothing else. So a unit's price is settled by the name that
//! its report carries, not by when Stripe hears of it: a customer who changes plans in the middle of a period keeps the old
//! metered prices until that period is invoiced, and late reports find them.
//!
//! Everything is found again by its name: a product by its id, a meter by its event name, a price by its lookup key, each of
//! which Stripe gives only once. So making what is missing may be interrupted anywhere, repeated, and run twice at once.
//! Nothing is ever deleted or changed but a product's name: customers stay on the plan that they were sold.

use std::collections::{BTreeMap, HashMap, hash_map::Entry};

use farebox_core::{
    account::Standing,
    id::CustomerId,
    money::UnitAmount,
    tiers::{Catalog, Interval, MeteredPrice, Overrides, PlanId, PriceMode, Step, Terms, TermsError, TierChange},
};
use farebox_stripe::{Meter, NewPrice, Price, PriceCost, PriceStep, Product, TiersMode, UsagePriceSpec};

use crate::{Books, Error};

/// The keys in the metadata of products and prices.
const TIER_KEY: &str = "farebox_tier";
const PLAN_KEY: &str = "farebox_plan";
const METER_KEY: &str = "farebox_meter";
const CATALOG_KEY: &str = "farebox_catalog";

/// A plan's prices in Stripe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanPrices {
    /// The base price.
    pub base: String,
    /// The metered price of each meter.
    pub metered: BTreeMap<String, String>,
}

impl PlanPrices {
    /// Every price, the base price first.
    #[must_use]
    pub fn all(&self) -> Vec<&str> {
        let metered = self.metered.values().map(String::as_str);
        std::iter::once(self.base.as_str()).chain(metered).collect()
    }
}

/// What a catalog changes, and what is to be made before it can be sold.
#[derive(Clone, Debug)]
pub struct CataloguePlan {
    /// The catalog.
    pub catalog: Catalog,
    /// Its version: that of the newest stored one if it is the same, else the next.
    pub version: u64,
    /// Whether it is stored already.
    pub is_stored: bool,
    /// What it changes in the newest stored one; empty if there is none.
    pub changes: Vec<TierChange>,
    /// Each tier, lowest first.
    pub tiers: Vec<TierPlan>,
    /// Prices in Stripe that are not what their name says. Nothing is made while there is one.
    pub mismatches: Vec<Mismatch>,
    /// Customers for whom an older catalog goes on to hold, though this one says otherwise.
    pub staying: Vec<Staying>,
}

/// A tier of the catalog, and what Stripe lacks of it.
#[derive(Clone, Debug)]
pub struct TierPlan {
    /// The tier.
    pub tier: String,
    /// What it costs; `None` where the tier leaves that to each agreement.
    pub plan: Option<PlanId>,
    /// The fields that it leaves to each agreement.
    pub open: Vec<&'static str>,
    /// What is to be made, in this order.
    pub steps: Vec<Making>,
    terms: Option<Terms>,
}

/// One thing to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Making {
    /// The tier's product, with an id of ours.
    Product {
        /// Its id, `farebox_<tier>`.
        id: String,
        /// What customers read.
        name: String,
    },
    /// The tier's product has another name.
    ProductName {
        /// Its id.
        id: String,
        /// The name it has.
        old: String,
        /// The tier's.
        name: String,
    },
    /// A meter.
    Meter {
        /// The name that its events carry.
        event_name: String,
        /// What the owner reads.
        display_name: String,
    },
    /// What a meter's units cost.
    MeteredPrice {
        /// Its lookup key, which is the meter's event name.
        lookup_key: String,
        /// The meter's name in the catalog.
        meter: String,
    },
    /// What a period costs without usage. It comes last: a plan that has one is complete.
    BasePrice {
        /// Its lookup key.
        lookup_key: String,
    },
    /// The catalog, as this version.
    Catalog {
        /// The version.
        version: u64,
    },
}

impl std::fmt::Display for Making {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Product { id, name } => write!(f, "product {id}, named {name}"),
            Self::ProductName { id, old, name } => write!(f, "product {id}: named {name} instead of {old}"),
            Self::Meter { event_name, .. } => write!(f, "meter {event_name}"),
            Self::MeteredPrice { lookup_key, .. } => write!(f, "metered price {lookup_key}"),
            Self::BasePrice { lookup_key } => write!(f, "base price {lookup_key}"),
            Self::Catalog { version } => write!(f, "catalog {version}"),
        }
    }
}

/// A price in Stripe that is not what its name says: changed by hand, or two plans of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The price, `price_…`.
    pub price: String,
    /// Its lookup key.
    pub lookup_key: String,
    /// What is not as the plan says.
    pub problems: Vec<String>,
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            price,
            lookup_key,
            problems,
        } = self;
        write!(
            f,
            "{price} has the lookup key {lookup_key}, but {}",
            problems.join(", and ")
        )
    }
}

/// Customers for whom an older catalog goes on to hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Staying {
    /// The tier.
    pub tier: String,
    /// The catalog that holds for them.
    pub catalog: u64,
    /// What they pay.
    pub plan: PlanId,
    /// What they would pay under the new catalog; `None` if it has no such tier, or asks for another agreement.
    pub becomes: Option<PlanId>,
    /// Who.
    pub customers: Vec<CustomerId>,
    /// Those of them that are to leave: whoever moves them takes that back.
    pub leaving: Vec<CustomerId>,
    /// What the new catalog would change for them.
    pub changes: Vec<String>,
}

impl CataloguePlan {
    /// Everything that is to be made, in order; the catalog itself comes last.
    #[must_use]
    pub fn steps(&self) -> Vec<Making> {
        let stored = (!self.is_stored).then_some(Making::Catalog { version: self.version });
        let steps = self.tiers.iter().flat_map(|tier| tier.steps.iter().cloned());
        steps.chain(stored).collect()
    }
}

/// What Stripe has, as far as it was looked for.
#[derive(Default)]
struct InStripe {
    products: HashMap<String, Product>,
    /// By event name; `None` if nobody looked.
    meters: Option<HashMap<String, Meter>>,
    /// By lookup key.
    prices: HashMap<String, Price>,
}

/// What every object made in one go carries.
struct Run {
    catalog: Option<u64>,
    /// Stripe keeps a 500 under its idempotency key and repeats it for a day, so each run has keys of its own. That nothing is
    /// made twice is the names' doing.
    nonce: String,
}

impl Books {
    /// What a catalog changes, and what is to be made before it can be sold.
    ///
    /// # Errors
    /// [`Error::Stripe`] or [`Error::Table`] if what there is can't be read.
    pub async fn catalogue_plan(&self, catalog: &Catalog) -> Result<CataloguePlan, Error> {
        let newest = self.accounts.newest_catalog().await?;
        let stored = self.stored_catalog(newest).await?;
        let is_stored = stored.as_ref() == Some(catalog);
        let version = if is_stored { newest } else { newest + 1 };
        let mut tiers: Vec<TierPlan> = catalog
            .tiers
            .iter()
            .map(|tier| TierPlan::of(catalog, &tier.name))
            .collect();
        let complete: Vec<&Terms> = tiers.iter().filter_map(|tier| tier.terms.as_ref()).collect();
        let in_stripe = self.look(&complete).await?;
        let mut mismatches = Vec::new();
        for tier in &mut tiers {
            let id = product_id(&tier.tier);
            let product = self.stripe.find_product(&id).await?;
            tier.steps = missing_product(&tier.tier, product.as_ref());
            if let Some(terms) = &tier.terms {
                tier.steps.extend(missing(terms, &in_stripe));
                mismatches.extend(self::mismatches(terms, &in_stripe));
            }
        }
        Ok(CataloguePlan {
            changes: stored.map(|stored| stored.diff(catalog)).unwrap_or_default(),
            staying: self.staying(catalog, version).await?,
            catalog: catalog.clone(),
            version,
            is_stored,
            tiers,
            mismatches,
        })
    }

    /// Makes everything that a catalogue plan names, then stores the catalog. `progress` hears of each step once it is done.
    /// Returns the catalog's version.
    ///
    /// # Errors
    /// [`Error::Refused`] if a price is not what its name says; nothing is made then. Else [`Error`] at the first step that
    /// fails: a plan made anew goes on from there.
    pub async fn apply(&self, plan: &CataloguePlan, mut progress: impl FnMut(&Making)) -> Result<u64, Error> {
        if !plan.mismatches.is_empty() {
            return Err(not_as_named(&plan.mismatches));
        }
        let run = Run {
            catalog: Some(plan.version),
            nonce: self.accounts.random().token()?,
        };
        let mut in_stripe = InStripe::default();
        for tier in plan.tiers.iter().filter(|tier| !tier.steps.is_empty()) {
            if let Some(terms) = &tier.terms {
                in_stripe = self.look(&[terms]).await?;
            }
            for step in &tier.steps {
                self.make(step, tier, &run, &mut in_stripe).await?;
                progress(step);
            }
        }
        let version = self.accounts.put_catalog(&plan.catalog).await?;
        if !plan.is_stored {
            progress(&Making::Catalog { version });
        }
        Ok(version)
    }

    /// Makes whatever of a plan is not in Stripe yet, and returns its prices.
    ///
    /// # Errors
    /// [`Error::Refused`] if a price in Stripe is not what its name says. Else [`Error::Stripe`] at the first step that fails;
    /// repeating goes on from there.
    pub async fn ensure_plan(&self, terms: &Terms) -> Result<PlanPrices, Error> {
        let keys = lookup_keys(terms);
        let prices = self.prices(&keys).await?;
        // A plan that is complete is the rule, and one question.
        let is_complete = prices.len() == keys.len();
        let mut in_stripe = if is_complete {
            InStripe {
                prices,
                ..InStripe::default()
            }
        } else {
            self.look(&[terms]).await?
        };
        let mismatches = mismatches(terms, &in_stripe);
        if !mismatches.is_empty() {
            return Err(not_as_named(&mismatches));
        }
        if !is_complete {
            let run = Run {
                catalog: None,
                nonce: self.accounts.random().token()?,
            };
            let product = self.stripe.find_product(&product_id(&terms.tier)).await?;
            let mut steps = Vec::new();
            // The name is the catalog's to change, not a single sale's.
            if product.is_none() {
                steps = missing_product(&terms.tier, None);
            }
            steps.extend(missing(terms, &in_stripe));
            let tier = TierPlan {
                tier: terms.tier.clone(),
                plan: Some(terms.plan()),
                open: Vec::new(),
                steps,
                terms: Some(terms.clone()),
            };
            for step in &tier.steps {
                self.make(step, &tier, &run, &mut in_stripe).await?;
            }
        }
        plan_prices(terms, &in_stripe)
    }

    async fn stored_catalog(&self, version: u64) -> Result<Option<Catalog>, Error> {
        if version == 0 {
            return Ok(None);
        }
        Ok(self.accounts.catalog(version).await?)
    }

    /// What Stripe has of these terms' plans.
    async fn look(&self, terms: &[&Terms]) -> Result<InStripe, Error> {
        let keys: Vec<String> = terms.iter().flat_map(|terms| lookup_keys(terms)).collect();
        let meters = self.stripe.meters().await?;
        Ok(InStripe {
            products: HashMap::new(),
            meters: Some(
                meters
                    .into_iter()
                    .map(|meter| (meter.event_name.clone(), meter))
                    .collect(),
            ),
            prices: self.prices(&keys).await?,
        })
    }

    async fn prices(&self, keys: &[String]) -> Result<HashMap<String, Price>, Error> {
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let prices = self.stripe.prices_by_lookup_keys(&keys).await?;
        Ok(prices
            .into_iter()
            .filter_map(|price| Some((price.lookup_key.clone()?, price)))
            .collect())
    }

    /// One step. Refused because somebody else made it meanwhile, it is done.
    async fn make(&self, step: &Making, tier: &TierPlan, run: &Run, in_stripe: &mut InStripe) -> Result<(), Error> {
        match step {
            Making::Product { id, name } => {
                let metadata = run.metadata(&tier.tier, None, None);
                let key = run.key("product", id);
                match self.stripe.create_product_with_id(id, name, metadata, &key).await {
                    Ok(product) => in_stripe.products.insert(id.clone(), product),
                    Err(refused) => {
                        let found = self.found(refused, self.stripe.find_product(id)).await?;
                        in_stripe.products.insert(id.clone(), found)
                    }
                };
            }
            Making::ProductName { id, name, .. } => {
                let metadata = run.metadata(&tier.tier, None, None);
                self.stripe
                    .update_product(id, name, metadata, &run.key("name", id))
                    .await?;
            }
            Making::Meter {
                event_name,
                display_name,
            } => {
                let made = self
                    .stripe
                    .create_meter(event_name, display_name, &run.key("meter", event_name))
                    .await;
                let meter = match made {
                    Ok(meter) => meter,
                    Err(refused) => self.found(refused, self.stripe.find_meter(event_name)).await?,
                };
                in_stripe
                    .meters
                    .get_or_insert_default()
                    .insert(event_name.clone(), meter);
            }
            Making::MeteredPrice { lookup_key, .. } | Making::BasePrice { lookup_key } => {
                let new = new_price(step, tier, run, in_stripe)?;
                let price = match self.stripe.create_price(&new, &run.key("price", lookup_key)).await {
                    Ok(price) => price,
                    Err(refused) => self.found(refused, self.stripe.find_price(lookup_key)).await?,
                };
                in_stripe.prices.insert(lookup_key.clone(), price);
            }
            Making::Catalog { .. } => {}
        }
        Ok(())
    }

    /// What was refused because it is there already.
    async fn found<T>(
        &self,
        refused: farebox_stripe::Error,
        find: impl Future<Output = Result<Option<T>, farebox_stripe::Error>>,
    ) -> Result<T, Error> {
        if !matches!(refused, farebox_stripe::Error::Rejected { .. }) {
            return Err(refused.into());
        }
        find.await?.ok_or_else(|| refused.into())
    }

    /// Who stays on an older catalog that says something else.
    async fn staying(&self, catalog: &Catalog, version: u64) -> Result<Vec<Staying>, Error> {
        let now_s = self.now().s();
        let mut diffs: HashMap<u64, Vec<TierChange>> = HashMap::new();
        let mut staying: BTreeMap<(String, u64, PlanId), Staying> = BTreeMap::new();
        for customer in self.accounts.customers().await? {
            // What is agreed for the period's end decides, not what ends there.
            let phase = customer.phase_after(now_s).unwrap_or_else(|| customer.phase_at(now_s));
            if phase.catalog == version {
                continue;
            }
            let diff = match diffs.entry(phase.catalog) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => {
                    let old = self.stored_catalog(phase.catalog).await?;
                    unknown.insert(old.map(|old| old.diff(catalog)).unwrap_or_default())
                }
            };
            let changes: Vec<String> = diff
                .iter()
                .filter(|change| change.tier.is_empty() || change.tier == phase.tier)
                .flat_map(|change| change.sentences.clone())
                .collect();
            if changes.is_empty() {
                continue;
            }
            let becomes = catalog
                .terms(&phase.tier, &phase.overrides)
                .ok()
                .map(|terms| terms.plan());
            let group = (phase.tier.clone(), phase.catalog, phase.plan.clone());
            let group = staying.entry(group).or_insert_with(|| Staying {
                tier: phase.tier.clone(),
                catalog: phase.catalog,
                plan: phase.plan.clone(),
                becomes,
                customers: Vec::new(),
                leaving: Vec::new(),
                changes,
            });
            if customer.ends.is_some() && customer.standing != Standing::Ended {
                group.leaving.push(customer.id.clone());
            }
            group.customers.push(customer.id);
        }
        Ok(staying.into_values().collect())
    }
}

impl TierPlan {
    fn of(catalog: &Catalog, tier: &str) -> Self {
        let (terms, open) = match catalog.terms(tier, &Overrides::default()) {
            Ok(terms) => (Some(terms), Vec::new()),
            Err(TermsError::Open { fields, .. }) => (None, fields),
            // A checked catalog has no other.
            Err(_) => (None, Vec::new()),
        };
        Self {
            tier: tier.to_owned(),
            plan: terms.as_ref().map(Terms::plan),
            open,
            steps: Vec::new(),
            terms,
        }
    }
}

impl Run {
    /// A meter and its price have one name, but are two calls.
    fn key(&self, what: &str, name: &str) -> String {
        format!("{what}-{name}-{}", self.nonce)
    }

    fn metadata(&self, tier: &str, plan: Option<&PlanId>, meter: Option<&str>) -> HashMap<String, String> {
        let mut metadata = HashMap::from([(TIER_KEY.to_owned(), tier.to_owned())]);
        metadata.extend(plan.map(|plan| (PLAN_KEY.to_owned(), plan.to_string())));
        metadata.extend(meter.map(|meter| (METER_KEY.to_owned(), meter.to_owned())));
        metadata.extend(
            self.catalog
                .map(|catalog| (CATALOG_KEY.to_owned(), catalog.to_string())),
        );
        metadata
    }
}

/// The id of a tier's product in Stripe.
fn product_id(tier: &str) -> String {
    format!("farebox_{tier}")
}

fn lookup_keys(terms: &Terms) -> Vec<String> {
    let plan = terms.plan();
    let metered = terms.meters().into_iter().map(|meter| plan.event_name(&meter));
    metered.chain([plan.base_lookup_key()]).collect()
}

fn missing_product(tier: &str, product: Option<&Product>) -> Vec<Making> {
    let (id, name) = (product_id(tier), tier.to_owned());
    match product {
        None => vec![Making::Product { id, name }],
        Some(product) if product.name != name => vec![Making::ProductName {
            id,
            old: product.name.clone(),
            name,
        }],
        Some(_) => Vec::new(),
    }
}

/// What Stripe lacks of a plan: the meters, their prices, and the base price last.
fn missing(terms: &Terms, in_stripe: &InStripe) -> Vec<Making> {
    let plan = terms.plan();
    let mut steps = Vec::new();
    let mut prices = Vec::new();
    for meter in terms.meters() {
        let event_name = plan.event_name(&meter);
        if in_stripe.prices.contains_key(&event_name) {
            continue;
        }
        if !in_stripe
            .meters
            .as_ref()
            .is_some_and(|meters| meters.contains_key(&event_name))
        {
            steps.push(Making::Meter {
                event_name: event_name.clone(),
                display_name: format!("{meter} ({plan})"),
            });
        }
        prices.push(Making::MeteredPrice {
            lookup_key: event_name,
            meter,
        });
    }
    steps.extend(prices);
    let lookup_key = plan.base_lookup_key();
    if !in_stripe.prices.contains_key(&lookup_key) {
        steps.push(Making::BasePrice { lookup_key });
    }
    steps
}

fn new_price(step: &Making, tier: &TierPlan, run: &Run, in_stripe: &InStripe) -> Result<NewPrice, Error> {
    let incomplete = || Error::Refused(format!("tier {} has no price of its own", tier.tier));
    let (terms, plan) = tier.terms.as_ref().zip(tier.plan.as_ref()).ok_or_else(incomplete)?;
    let (lookup_key, meter, cost) = match step {
        Making::MeteredPrice { lookup_key, meter } => {
            let of_ours = in_stripe.meters.as_ref().and_then(|meters| meters.get(lookup_key));
            let no_meter = || Error::Refused(format!("stripe has no active meter named {lookup_key}"));
            let cost = PriceCost::Metered {
                meter: of_ours.ok_or_else(no_meter)?.id.clone(),
                spec: spec(terms.stripe_price(meter)),
            };
            (lookup_key, Some(meter.as_str()), cost)
        }
        Making::BasePrice { lookup_key } => {
            let amount_minor = terms.price.amount.0;
            (lookup_key, None, PriceCost::Flat { amount_minor })
        }
        _ => return Err(incomplete()),
    };
    Ok(NewPrice {
        product: product_id(&tier.tier),
        currency: terms.currency.code().to_owned(),
        interval: interval(terms),
        cost,
        lookup_key: Some(lookup_key.clone()),
        transfer_lookup_key: false,
        nickname: Some(format!("{} ({plan})", meter.unwrap_or("base"))),
        metadata: run.metadata(&tier.tier, Some(plan), meter),
    })
}

fn interval(terms: &Terms) -> farebox_stripe::Interval {
    match terms.price.interval {
        Interval::Month => farebox_stripe::Interval::Month,
        Interval::Year => farebox_stripe::Interval::Year,
    }
}

fn spec(price: MeteredPrice) -> UsagePriceSpec {
    let mode = match price.mode {
        PriceMode::PerUnit => {
            let unit = price.steps.first().map(|step| step.unit).unwrap_or_default();
            return UsagePriceSpec::PerUnit {
                unit_amount_decimal: unit.to_string(),
            };
        }
        PriceMode::Graduated => TiersMode::Graduated,
        PriceMode::Volume => TiersMode::Volume,
    };
    let steps = price.steps.into_iter().map(|step| PriceStep {
        up_to: step.up_to,
        unit_amount_decimal: step.unit.to_string(),
        flat_amount: (step.flat.0 > 0).then_some(step.flat.0),
    });
    UsagePriceSpec::Tiered {
        mode,
        steps: steps.collect(),
    }
}

fn plan_prices(terms: &Terms, in_stripe: &InStripe) -> Result<PlanPrices, Error> {
    let plan = terms.plan();
    let id = |key: String| match in_stripe.prices.get(&key) {
        Some(price) => Ok(price.id.clone()),
        None => Err(Error::Refused(format!("stripe has no price with the lookup key {key}"))),
    };
    let metered = terms.meters().into_iter().map(|meter| {
        let price = id(plan.event_name(&meter))?;
        Ok((meter, price))
    });
    Ok(PlanPrices {
        metered: metered.collect::<Result<_, Error>>()?,
        base: id(plan.base_lookup_key())?,
    })
}

fn not_as_named(mismatches: &[Mismatch]) -> Error {
    let problems: Vec<String> = mismatches.iter().map(Mismatch::to_string).collect();
    Error::Refused(format!(
        "{}. Nothing was made. Prices can't be changed: archive such a price in Stripe's dashboard and take its lookup key \
         away, then apply again",
        problems.join("; ")
    ))
}

/// Compares the prices that Stripe has with what the terms say.
fn mismatches(terms: &Terms, in_stripe: &InStripe) -> Vec<Mismatch> {
    let plan = terms.plan();
    let mut found = Vec::new();
    let mut compare = |key: String, problems: &dyn Fn(&Price) -> Vec<String>| {
        let Some(price) = in_stripe.prices.get(&key) else {
            return;
        };
        let mut problems = problems(price);
        if price.currency != terms.currency.code() {
            let (found, expected) = (&price.currency, terms.currency.code());
            problems.push(format!("its currency is {found}, not {expected}"));
        }
        let is_period = |recurring: &farebox_stripe::Recurring| {
            recurring.interval == interval(terms) && recurring.interval_count == 1
        };
        if !price.recurring.as_ref().is_some_and(is_period) {
            problems.push(format!("it is not billed every {}", terms.price.interval));
        }
        if !problems.is_empty() {
            found.push(Mismatch {
                price: price.id.clone(),
                lookup_key: key,
                problems,
            });
        }
    };
    for meter in terms.meters() {
        let event_name = plan.event_name(&meter);
        let of_ours = in_stripe.meters.as_ref().map(|meters| meters.get(&event_name));
        let expected = terms.stripe_price(&meter);
        compare(event_name.clone(), &|price| metered_problems(price, &expected, of_ours));
    }
    compare(plan.base_lookup_key(), &|price| base_problems(price, terms));
    found
}

fn base_problems(price: &Price, terms: &Terms) -> Vec<String> {
    let mut problems = Vec::new();
    if price
        .recurring
        .as_ref()
        .is_none_or(|recurring| recurring.usage_type != "licensed")
    {
        problems.push("it is metered".to_owned());
    }
    let amount = price
        .unit_amount_decimal
        .as_deref()
        .and_then(|text| text.parse::<UnitAmount>().ok());
    let expected: Option<UnitAmount> = terms.price.amount.0.to_string().parse().ok();
    if amount.is_none() || amount != expected {
        let found = price.unit_amount_decimal.as_deref().unwrap_or("nothing");
        problems.push(format!("it costs {found}, not {}", terms.price.amount.0));
    }
    problems
}

/// `of_ours`: the active meter of the price's event name, if anybody looked.
fn metered_problems(price: &Price, expected: &MeteredPrice, of_ours: Option<Option<&Meter>>) -> Vec<String> {
    let mut problems = Vec::new();
    let meter = price
        .recurring
        .as_ref()
        .and_then(|recurring| recurring.meter.as_deref());
    match (meter, of_ours) {
        (None, _) => problems.push("no meter counts it".to_owned()),
        (Some(_), Some(None)) => {
            problems.push("its meter is not active: reactivate it in Stripe's dashboard".to_owned())
        }
        (Some(meter), Some(Some(ours))) if meter != ours.id => {
            problems.push(format!("it is counted by {meter}, not by {}", ours.id));
        }
        _ => {}
    }
    let mode = match price.tiers_mode {
        None => PriceMode::PerUnit,
        Some(TiersMode::Graduated) => PriceMode::Graduated,
        Some(TiersMode::Volume) => PriceMode::Volume,
    };
    let steps = match mode {
        PriceMode::PerUnit => price.unit_amount_decimal.as_deref().and_then(per_unit),
        _ => price.tiers.as_deref().and_then(steps),
    };
    if mode != expected.mode || steps.as_ref() != Some(&expected.steps) {
        let found = match steps {
            Some(steps) => written(mode, &steps),
            None => "something else".to_owned(),
        };
        problems.push(format!(
            "it costs {found}, not {}",
            written(expected.mode, &expected.steps)
        ));
    }
    problems
}

fn per_unit(text: &str) -> Option<Vec<Step>> {
    let unit = text.parse().ok()?;
    Some(vec![Step {
        up_to: None,
        unit,
        flat: farebox_core::money::Money(0),
    }])
}

fn steps(steps: &[PriceStep]) -> Option<Vec<Step>> {
    let step = |step: &PriceStep| {
        Some(Step {
            up_to: step.up_to,
            unit: step.unit_amount_decimal.parse().ok()?,
            flat: farebox_core::money::Money(step.flat_amount.unwrap_or(0)),
        })
    };
    steps.iter().map(step).collect()
}

/// A price in the minor unit: `graduated up to 50000 at 0, then at 0.2`.
fn written(mode: PriceMode, steps: &[Step]) -> String {
    let mode = match mode {
        PriceMode::PerUnit => "per unit",
        PriceMode::Graduated => "graduated",
        PriceMode::Volume => "volume",
    };
    let step = |step: &Step| {
        let bound = step.up_to.map_or("then".to_owned(), |up_to| format!("up to {up_to}"));
        let flat = match step.flat.0 {
            0 => String::new(),
            flat => format!(" and {flat} flat"),
        };
        format!("{bound} at {}{flat}", step.unit)
    };
    let steps: Vec<String> = steps.iter().map(step).collect();
    format!("{mode} {}", steps.join(", ")).replace("per unit then at", "per unit")
}
