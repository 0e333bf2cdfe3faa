//! Products and prices, and what a quantity costs at a price.
//!
//! Source: <https://docs.stripe.com/api/products>, <https://docs.stripe.com/api/prices> and
//! <https://docs.stripe.com/subscriptions/pricing-models/tiered-pricing>.

use serde_json::{Map, Value, json};

use crate::{
    calendar::{Interval, Unit},
    events::Cause,
    ids::Kind,
    money::{Decimal, shown},
    state::State,
    table::{Object, Table},
    wire::{error::ApiError, form::Params, list::Page},
};

/// Free pairs on an object, in the order of their keys.
pub(crate) type Metadata = std::collections::BTreeMap<String, String>;

/// Applies an update's pairs: an empty value removes its key.
/// <https://docs.stripe.com/api/metadata>
pub(crate) fn merge(metadata: &mut Metadata, pairs: Vec<(String, String)>) {
    for (key, value) in pairs {
        if value.is_empty() {
            metadata.remove(&key);
        } else {
            metadata.insert(key, value);
        }
    }
}

/// What is sold.
#[derive(Debug, Clone)]
pub(crate) struct Product {
    id: String,
    pub(crate) name: String,
    active: bool,
    description: Option<String>,
    pub(crate) unit_label: Option<String>,
    default_price: Option<String>,
    metadata: Metadata,
    created: i64,
    updated: i64,
}

impl Object for Product {
    const NOUN: &'static str = "product";

    fn id(&self) -> &str {
        &self.id
    }
}

impl Product {
    pub(crate) fn render(&self) -> Value {
        json!({
            "id": self.id,
            "object": "product",
            "active": self.active,
            "created": self.created,
            "default_price": self.default_price,
            "description": self.description,
            "images": [],
            "livemode": false,
            "marketing_features": [],
            "metadata": self.metadata,
            "name": self.name,
            "package_dimensions": null,
            "shippable": null,
            "statement_descriptor": null,
            "tax_code": null,
            "tax_details": null,
            "type": "service",
            "unit_label": self.unit_label,
            "updated": self.updated,
            "url": null,
        })
    }
}

/// How much and how often to charge. Everything that money depends on is immutable.
#[derive(Debug, Clone)]
pub(crate) struct Price {
    pub(crate) id: String,
    pub(crate) product: String,
    pub(crate) active: bool,
    pub(crate) currency: String,
    nickname: Option<String>,
    lookup_key: Option<String>,
    metadata: Metadata,
    created: i64,
    pub(crate) recurring: Option<Recurring>,
    scheme: Scheme,
    transform: Option<Transform>,
    tax_behavior: &'static str,
}

/// The recurring part of a price; metered if it names a meter.
#[derive(Debug, Clone)]
pub(crate) struct Recurring {
    pub(crate) interval: Interval,
    pub(crate) meter: Option<String>,
    trial_period_days: Option<i64>,
}

#[derive(Debug, Clone)]
enum Scheme {
    PerUnit(Decimal),
    Tiered(TiersMode, Vec<Tier>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TiersMode {
    Graduated,
    Volume,
}

/// A tier up to and including `up_to` units; the last has no bound.
#[derive(Debug, Clone)]
struct Tier {
    up_to: Option<i64>,
    unit: Option<Decimal>,
    flat: Option<Decimal>,
}

/// Divides the quantity before it is priced.
#[derive(Debug, Clone, Copy)]
struct Transform {
    divide_by: i64,
    up: bool,
}

impl Object for Price {
    const NOUN: &'static str = "price";

    fn id(&self) -> &str {
        &self.id
    }
}

/// One invoice line's worth of a price: the quantity that it covers and what it comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Charge {
    pub(crate) amount: i64,
    pub(crate) quantity: i64,
    pub(crate) unit: Option<Decimal>,
    pub(crate) description: String,
}

impl Price {
    /// The meter whose usage this price bills.
    pub(crate) fn meter(&self) -> Option<&str> {
        self.recurring.as_ref().and_then(|recurring| recurring.meter.as_deref())
    }

    /// What `quantity` units cost, line by line. A per-unit and a volume price make one line; a graduated price makes one per
    /// tier that the quantity reaches. A tier's flat amount is a line of its own, with quantity 0, as Stripe's invoices show it.
    /// With quantity 0 the first tier counts as reached.
    pub(crate) fn charges(&self, quantity: i64, product: &Product) -> Vec<Charge> {
        let name = &product.name;
        let every = self.recurring.as_ref().map_or_else(String::new, |recurring| {
            let Interval { unit, count } = recurring.interval;
            if count == 1 {
                format!(" / {}", unit.word())
            } else {
                format!(" every {count} {}s", unit.word())
            }
        });
        let counted = |quantity: i64| match &product.unit_label {
            Some(label) => format!("{quantity} {label} × {name}"),
            None => format!("{quantity} × {name}"),
        };
        let per_unit = |quantity: i64, unit: Decimal, tier: &str| Charge {
            amount: unit.times(quantity),
            quantity,
            unit: Some(unit),
            description: format!(
                "{} ({tier}at {}{every})",
                counted(quantity),
                shown(unit, &self.currency)
            ),
        };
        let flat = |flat: Decimal, tier: &str| Charge {
            amount: flat.times(1),
            quantity: 0,
            unit: None,
            description: format!("{name} ({tier}at {}{every})", shown(flat, &self.currency)),
        };
        let in_tier = |quantity: i64, number: usize, tier: &Tier| {
            let label = format!("Tier {number} ");
            let units = tier.unit.map(|unit| per_unit(quantity, unit, &label));
            units.into_iter().chain(tier.flat.map(|amount| flat(amount, &label)))
        };
        match &self.scheme {
            Scheme::PerUnit(unit) => {
                let billed = self.transform.map_or(quantity, |transform| transform.apply(quantity));
                vec![per_unit(billed, *unit, "")]
            }
            Scheme::Tiered(TiersMode::Volume, tiers) => {
                let reached = tiers
                    .iter()
                    .position(|tier| tier.up_to.is_none_or(|up_to| quantity <= up_to));
                let reached = reached.unwrap_or(tiers.len() - 1);
                in_tier(quantity, reached + 1, &tiers[reached]).collect()
            }
            Scheme::Tiered(TiersMode::Graduated, tiers) => {
                let mut below = 0;
                let mut charges = Vec::new();
                for (index, tier) in tiers.iter().enumerate() {
                    if index > 0 && quantity <= below {
                        break;
                    }
                    let top = tier.up_to.map_or(quantity, |up_to| up_to.min(quantity));
                    charges.extend(in_tier(top - below, index + 1, tier));
                    below = top;
                }
                charges
            }
        }
    }

    /// `unit_amount` is shown only if it is whole. <https://docs.stripe.com/billing/subscriptions/decimal-amounts>
    fn unit(&self) -> Option<Decimal> {
        match &self.scheme {
            Scheme::PerUnit(unit) => Some(*unit),
            Scheme::Tiered(..) => None,
        }
    }

    fn mode(&self) -> Option<&'static str> {
        match &self.scheme {
            Scheme::PerUnit(_) => None,
            Scheme::Tiered(TiersMode::Graduated, _) => Some("graduated"),
            Scheme::Tiered(TiersMode::Volume, _) => Some("volume"),
        }
    }

    fn scheme_word(&self) -> &'static str {
        match &self.scheme {
            Scheme::PerUnit(_) => "per_unit",
            Scheme::Tiered(..) => "tiered",
        }
    }

    /// Without `tiers`, which are shown only when expanded.
    pub(crate) fn render(&self) -> Value {
        json!({
            "id": self.id,
            "object": "price",
            "active": self.active,
            "billing_scheme": self.scheme_word(),
            "created": self.created,
            "currency": self.currency,
            "custom_unit_amount": null,
            "livemode": false,
            "lookup_key": self.lookup_key,
            "metadata": self.metadata,
            "nickname": self.nickname,
            "product": self.product,
            "recurring": self.recurring.as_ref().map(Recurring::render),
            "tax_behavior": self.tax_behavior,
            "tiers_mode": self.mode(),
            "transform_quantity": self.transform.map(|transform| json!({
                "divide_by": transform.divide_by,
                "round": if transform.up { "up" } else { "down" },
            })),
            "type": if self.recurring.is_some() { "recurring" } else { "one_time" },
            "unit_amount": self.unit().and_then(Decimal::as_whole),
            "unit_amount_decimal": self.unit().map(|unit| unit.to_string()),
        })
    }

    /// The price as the older `plan` object, which subscription items still carry.
    pub(crate) fn render_plan(&self) -> Value {
        let interval = self.recurring.as_ref().map(|recurring| recurring.interval);
        json!({
            "id": self.id,
            "object": "plan",
            "active": self.active,
            "amount": self.unit().and_then(Decimal::as_whole),
            "amount_decimal": self.unit().map(|unit| unit.to_string()),
            "billing_scheme": self.scheme_word(),
            "created": self.created,
            "currency": self.currency,
            "interval": interval.map(|interval| interval.unit.word()),
            "interval_count": interval.map(|interval| interval.count),
            "livemode": false,
            "metadata": self.metadata,
            "meter": self.meter(),
            "nickname": self.nickname,
            "product": self.product,
            "tiers_mode": self.mode(),
            "transform_usage": null,
            "trial_period_days": null,
            "usage_type": if self.meter().is_some() { "metered" } else { "licensed" },
        })
    }

    /// What `expand[]=tiers` adds.
    pub(crate) fn render_tiers(&self) -> Option<Value> {
        let Scheme::Tiered(_, tiers) = &self.scheme else {
            return None;
        };
        let tiers = tiers.iter().map(|tier| {
            json!({
                "flat_amount": tier.flat.and_then(Decimal::as_whole),
                "flat_amount_decimal": tier.flat.map(|flat| flat.to_string()),
                "unit_amount": tier.unit.and_then(Decimal::as_whole),
                "unit_amount_decimal": tier.unit.map(|unit| unit.to_string()),
                "up_to": tier.up_to,
            })
        });
        Some(tiers.collect())
    }
}

impl Recurring {
    fn render(&self) -> Value {
        json!({
            "interval": self.interval.unit.word(),
            "interval_count": self.interval.count,
            "meter": self.meter,
            "trial_period_days": self.trial_period_days,
            "usage_type": if self.meter.is_some() { "metered" } else { "licensed" },
        })
    }
}

impl Transform {
    fn apply(self, quantity: i64) -> i64 {
        let part = i64::from(self.up && quantity % self.divide_by != 0);
        quantity / self.divide_by + part
    }
}

/// All products and prices.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) products: Table<Product>,
    pub(crate) prices: Table<Price>,
}

impl Catalog {
    /// The product of a price. A price can't be made without one, and products are never removed.
    pub(crate) fn product_of(&self, price: &Price) -> &Product {
        self.products.find(&price.product).expect("a price's product exists")
    }

    fn holder_of(&self, lookup_key: &str) -> Option<&Price> {
        self.prices
            .iter()
            .find(|price| price.lookup_key.as_deref() == Some(lookup_key))
    }
}

impl State {
    pub(crate) fn create_product(&mut self, mut params: Params, at: i64, cause: &Cause) -> Result<Value, ApiError> {
        let id = params.text("id")?;
        let name = params.required("name")?;
        let description = params.text("description")?;
        let unit_label = params.text("unit_label")?;
        let active = params.boolean("active")?.unwrap_or(true);
        let pairs = params.pairs("metadata")?;
        params.ignore(&[
            "images",
            "marketing_features",
            "shippable",
            "statement_descriptor",
            "tax_code",
            "type",
            "url",
        ]);
        params.finish()?;
        if let Some(id) = id.as_deref().filter(|id| self.catalog.products.find(id).is_some()) {
            return Err(ApiError::refused(format!("Product already exists. (ID: {id})"))
                .code("resource_already_exists")
                .param("id"));
        }
        let product = self.new_product(id, name, active, pairs, at);
        let product = Product {
            description,
            unit_label,
            ..product
        };
        let rendered = product.render();
        self.catalog.products.put(product);
        self.emit(at, cause, "product.created", rendered.clone(), None);
        Ok(rendered)
    }

    fn new_product(
        &mut self,
        id: Option<String>,
        name: String,
        active: bool,
        pairs: Vec<(String, String)>,
        at: i64,
    ) -> Product {
        let mut metadata = Metadata::new();
        merge(&mut metadata, pairs);
        Product {
            id: id.unwrap_or_else(|| self.ids.mint(Kind::Product)),
            name,
            active,
            description: None,
            unit_label: None,
            default_price: None,
            metadata,
            created: at,
            updated: at,
        }
    }

    pub(crate) fn update_product(
        &mut self,
        id: &str,
        mut params: Params,
        at: i64,
        cause: &Cause,
    ) -> Result<Value, ApiError> {
        let mut product = self.catalog.products.get(id, "id")?.clone();
        let before = product.render();
        if let Some(name) = params.text("name")? {
            product.name = name;
        }
        if let Some(active) = params.boolean("active")? {
            product.active = active;
        }
        if let Some(description) = params.settable("description")? {
            product.description = description;
        }
        if let Some(label) = params.settable("unit_label")? {
            product.unit_label = label;
        }
        if let Some(price) = params.text("default_price")? {
            self.catalog.prices.get(&price, "default_price")?;
            product.default_price = Some(price);
        }
        merge(&mut product.metadata, params.pairs("metadata")?);
        params.ignore(&[
            "images",
            "marketing_features",
            "shippable",
            "statement_descriptor",
            "tax_code",
            "url",
        ]);
        params.finish()?;
        product.updated = at;
        let rendered = product.render();
        self.catalog.products.put(product);
        self.emit(at, cause, "product.updated", rendered.clone(), Some(&before));
        Ok(rendered)
    }

    pub(crate) fn list_products(&self, mut params: Params) -> Result<Value, ApiError> {
        let page = Page::take(&mut params)?;
        let active = params.boolean("active")?;
        let ids = params.texts("ids")?;
        params.finish()?;
        let rows = self.catalog.products.newest_first(None).filter(|product| {
            active.is_none_or(|active| product.active == active)
                && ids.as_ref().is_none_or(|ids| ids.contains(&product.id))
        });
        page.cut(
            rows,
            |product| product.id(),
            |product| product.render(),
            Product::NOUN,
            "/v1/products",
        )
    }

    pub(crate) fn create_price(&mut self, mut params: Params, at: i64, cause: &Cause) -> Result<Value, ApiError> {
        let currency = take_currency(&mut params)?;
        let product = params.text("product")?;
        let product_data = params.level("product_data")?.map(take_product_data).transpose()?;
        let recurring = self.take_recurring(&mut params)?;
        let scheme = take_scheme(&mut params)?;
        let transform = take_transform(&mut params, &scheme)?;
        let nickname = params.text("nickname")?;
        let lookup_key = params.text("lookup_key")?;
        let transfer = params.boolean("transfer_lookup_key")?.unwrap_or(false);
        let active = params.boolean("active")?.unwrap_or(true);
        let tax_behavior = params.choice("tax_behavior", &TAX_BEHAVIORS)?.unwrap_or("unspecified");
        let pairs = params.pairs("metadata")?;
        params.finish()?;
        match (&product, &product_data) {
            (Some(product), None) => {
                self.catalog.products.get(product, "product")?;
            }
            (None, Some(_)) => {}
            (None, None) => return Err(ApiError::missing("product")),
            (Some(_), Some(_)) => {
                return Err(ApiError::invalid(
                    "product_data",
                    "You may only specify one of these parameters: product, product_data.",
                ));
            }
        }
        self.claim_lookup_key(lookup_key.as_deref(), transfer, None)?;

        let product = match (product, product_data) {
            (Some(product), _) => product,
            (None, data) => {
                let (name, unit_label, pairs) = data.unwrap_or_default();
                let product = Product {
                    unit_label,
                    ..self.new_product(None, name, true, pairs, at)
                };
                let (id, rendered) = (product.id.clone(), product.render());
                self.catalog.products.put(product);
                self.emit(at, cause, "product.created", rendered, None);
                id
            }
        };
        let mut metadata = Metadata::new();
        merge(&mut metadata, pairs);
        let price = Price {
            id: self.ids.mint(Kind::Price),
            product,
            active,
            currency,
            nickname,
            lookup_key,
            metadata,
            created: at,
            recurring,
            scheme,
            transform,
            tax_behavior,
        };
        let rendered = price.render();
        self.catalog.prices.put(price);
        self.emit(at, cause, "price.created", rendered.clone(), None);
        Ok(rendered)
    }

    pub(crate) fn update_price(
        &mut self,
        id: &str,
        mut params: Params,
        at: i64,
        cause: &Cause,
    ) -> Result<Value, ApiError> {
        let mut price = self.catalog.prices.get(id, "price")?.clone();
        let before = price.render();
        if let Some(active) = params.boolean("active")? {
            price.active = active;
        }
        if let Some(nickname) = params.settable("nickname")? {
            price.nickname = nickname;
        }
        if let Some(tax_behavior) = params.choice("tax_behavior", &TAX_BEHAVIORS)? {
            price.tax_behavior = tax_behavior;
        }
        let lookup_key = params.settable("lookup_key")?;
        let transfer = params.boolean("transfer_lookup_key")?.unwrap_or(false);
        merge(&mut price.metadata, params.pairs("metadata")?);
        params.finish()?;
        if let Some(lookup_key) = lookup_key {
            self.claim_lookup_key(lookup_key.as_deref(), transfer, Some(id))?;
            price.lookup_key = lookup_key;
        }
        let rendered = price.render();
        self.catalog.prices.put(price);
        self.emit(at, cause, "price.updated", rendered.clone(), Some(&before));
        Ok(rendered)
    }

    /// A lookup key is unique; `transfer` takes it from the price that holds it.
    /// <https://docs.stripe.com/products-prices/manage-prices#lookup-keys>
    fn claim_lookup_key(&mut self, key: Option<&str>, transfer: bool, by: Option<&str>) -> Result<(), ApiError> {
        let Some(holder) = key.and_then(|key| self.catalog.holder_of(key)) else {
            return Ok(());
        };
        if Some(holder.id.as_str()) == by {
            return Ok(());
        }
        if !transfer {
            return Err(ApiError::refused(format!(
                "A price (`{}`) already uses that lookup key. If you want to transfer the lookup key to the new price, pass `transfer_lookup_key=true`.",
                holder.id
            ))
            .code("resource_already_exists")
            .param("lookup_key"));
        }
        let robbed = Price {
            lookup_key: None,
            ..holder.clone()
        };
        self.catalog.prices.put(robbed);
        Ok(())
    }

    pub(crate) fn list_prices(&self, mut params: Params) -> Result<Value, ApiError> {
        let page = Page::take(&mut params)?;
        let active = params.boolean("active")?;
        let product = params.text("product")?;
        let currency = params.text("currency")?;
        let keys = params.texts("lookup_keys")?;
        let recurring = params.choice("type", &[("one_time", false), ("recurring", true)])?;
        let (meter, unit) = match params.level("recurring")? {
            None => (None, None),
            Some(mut level) => {
                let meter = level.text("meter")?;
                let unit = level.choice("interval", &Unit::WORDS)?;
                level.ignore(&["usage_type"]);
                level.finish()?;
                (meter, unit)
            }
        };
        params.finish()?;
        let rows = self.catalog.prices.newest_first(None).filter(|price| {
            active.is_none_or(|active| price.active == active)
                && product.as_ref().is_none_or(|product| price.product == *product)
                && currency.as_ref().is_none_or(|currency| price.currency == *currency)
                && recurring.is_none_or(|recurring| price.recurring.is_some() == recurring)
                && meter.as_ref().is_none_or(|meter| price.meter() == Some(meter))
                && unit.is_none_or(|unit| {
                    price
                        .recurring
                        .as_ref()
                        .is_some_and(|recurring| recurring.interval.unit == unit)
                })
                && keys
                    .as_ref()
                    .is_none_or(|keys| price.lookup_key.as_ref().is_some_and(|key| keys.contains(key)))
        });
        page.cut(
            rows,
            |price| price.id(),
            |price| price.render(),
            Price::NOUN,
            "/v1/prices",
        )
    }

    /// A metered price names its meter since 2025-03-31.basil.
    /// <https://docs.stripe.com/changelog/basil/2025-03-31/deprecate-legacy-usage-based-billing>
    fn take_recurring(&self, params: &mut Params) -> Result<Option<Recurring>, ApiError> {
        let Some(mut level) = params.level("recurring")? else {
            return Ok(None);
        };
        let unit = level
            .choice("interval", &Unit::WORDS)?
            .ok_or_else(|| ApiError::missing("recurring[interval]"))?;
        let count = level.integer("interval_count")?.unwrap_or(1);
        if !(1..=unit.count_max()).contains(&count) {
            return Err(ApiError::invalid(
                "recurring[interval_count]",
                format!(
                    "`interval_count` must be between 1 and {} for the interval {}.",
                    unit.count_max(),
                    unit.word()
                ),
            ));
        }
        let metered = level
            .choice("usage_type", &[("licensed", false), ("metered", true)])?
            .unwrap_or(false);
        let meter = level.text("meter")?;
        let trial_period_days = level.natural("trial_period_days")?;
        level.finish()?;
        match (&meter, metered) {
            (Some(meter), true) => self
                .meters
                .get(meter, "recurring[meter]")?
                .require_active("recurring[meter]")?,
            (None, true) => return Err(ApiError::missing("recurring[meter]")),
            (Some(_), false) => {
                return Err(ApiError::invalid(
                    "recurring[meter]",
                    "`recurring[meter]` can only be set when `recurring[usage_type]` is `metered`.",
                ));
            }
            (None, false) => {}
        }
        Ok(Some(Recurring {
            interval: Interval {
                unit,
                count: u32::try_from(count).unwrap_or(1),
            },
            meter,
            trial_period_days,
        }))
    }
}

const TAX_BEHAVIORS: [(&str, &str); 3] = [
    ("exclusive", "exclusive"),
    ("inclusive", "inclusive"),
    ("unspecified", "unspecified"),
];

/// A three-letter ISO code, in lower case.
pub(crate) fn take_currency(params: &mut Params) -> Result<String, ApiError> {
    let currency = params.required("currency")?.to_lowercase();
    if currency.len() == 3 && currency.bytes().all(|byte| byte.is_ascii_lowercase()) {
        Ok(currency)
    } else {
        Err(ApiError::invalid("currency", format!("Invalid currency: {currency}.")))
    }
}

type ProductData = (String, Option<String>, Vec<(String, String)>);

fn take_product_data(mut level: Params) -> Result<ProductData, ApiError> {
    let data = (
        level.required("name")?,
        level.text("unit_label")?,
        level.pairs("metadata")?,
    );
    level.ignore(&["active", "statement_descriptor", "tax_code"]);
    level.finish()?;
    Ok(data)
}

fn take_scheme(params: &mut Params) -> Result<Scheme, ApiError> {
    let tiered = params
        .choice("billing_scheme", &[("per_unit", false), ("tiered", true)])?
        .unwrap_or(false);
    let unit = take_amount(params, "unit_amount")?;
    let mode = params.choice(
        "tiers_mode",
        &[("graduated", TiersMode::Graduated), ("volume", TiersMode::Volume)],
    )?;
    let tiers = params.levels("tiers")?;
    if !tiered {
        if tiers.is_some() || mode.is_some() {
            return Err(ApiError::invalid(
                "tiers",
                "You may only specify `tiers` and `tiers_mode` when `billing_scheme` is `tiered`.",
            ));
        }
        return match unit {
            Some(unit) => Ok(Scheme::PerUnit(unit)),
            None => Err(ApiError::missing("unit_amount")),
        };
    }
    if unit.is_some() {
        return Err(ApiError::invalid(
            "unit_amount",
            "You may not specify `unit_amount` or `unit_amount_decimal` when `billing_scheme` is `tiered`.",
        ));
    }
    let mode = mode.ok_or_else(|| ApiError::missing("tiers_mode"))?;
    let tiers = tiers.ok_or_else(|| ApiError::missing("tiers"))?;
    let tiers: Vec<Tier> = tiers.into_iter().map(take_tier).collect::<Result<_, _>>()?;
    check_bounds(&tiers)?;
    Ok(Scheme::Tiered(mode, tiers))
}

fn take_tier(mut level: Params) -> Result<Tier, ApiError> {
    let name = level.name("up_to");
    let up_to = match level.required("up_to")?.as_str() {
        "inf" => None,
        number => match number.parse() {
            Ok(number) if number > 0 => Some(number),
            _ => {
                return Err(
                    ApiError::invalid(name, format!("Invalid integer: {number}")).code("parameter_invalid_integer")
                );
            }
        },
    };
    let amounts = level.name("unit_amount");
    let unit = take_amount(&mut level, "unit_amount")?;
    let flat = take_amount(&mut level, "flat_amount")?;
    level.finish()?;
    if unit.is_none() && flat.is_none() {
        return Err(ApiError::missing(&amounts));
    }
    Ok(Tier { up_to, unit, flat })
}

fn check_bounds(tiers: &[Tier]) -> Result<(), ApiError> {
    let Some((last, bounded)) = tiers.split_last() else {
        return Err(ApiError::missing("tiers"));
    };
    if last.up_to.is_some() || bounded.iter().any(|tier| tier.up_to.is_none()) {
        return Err(ApiError::invalid(
            "tiers",
            "The last tier, and only the last tier, must have `up_to` set to `inf`.",
        ));
    }
    if bounded.windows(2).any(|pair| pair[0].up_to >= pair[1].up_to) {
        return Err(ApiError::invalid(
            "tiers",
            "Each tier's `up_to` must be greater than the previous tier's.",
        ));
    }
    Ok(())
}

/// `name` in whole minor units or `name`_decimal, not both.
fn take_amount(params: &mut Params, name: &str) -> Result<Option<Decimal>, ApiError> {
    let decimal_name = format!("{name}_decimal");
    let whole = params.natural(name)?;
    let decimal = params.text(&decimal_name)?;
    match (whole, decimal) {
        (None, None) => Ok(None),
        (Some(whole), None) => Ok(Some(Decimal::whole(whole))),
        (None, Some(text)) => match Decimal::parse(&text) {
            Some(amount) => Ok(Some(amount)),
            None => Err(ApiError::invalid(
                params.name(&decimal_name),
                format!("Invalid decimal: {text}"),
            )),
        },
        (Some(_), Some(_)) => Err(ApiError::invalid(
            params.name(&decimal_name),
            format!("You may only specify one of these parameters: {name}, {decimal_name}."),
        )),
    }
}

/// <https://docs.stripe.com/billing/subscriptions/usage-based/manage-billing-setup#transform-quantities>
fn take_transform(params: &mut Params, scheme: &Scheme) -> Result<Option<Transform>, ApiError> {
    let Some(mut level) = params.level("transform_quantity")? else {
        return Ok(None);
    };
    let divide_by = level
        .integer("divide_by")?
        .ok_or_else(|| ApiError::missing("transform_quantity[divide_by]"))?;
    let up = level
        .choice("round", &[("up", true), ("down", false)])?
        .ok_or_else(|| ApiError::missing("transform_quantity[round]"))?;
    level.finish()?;
    if divide_by < 1 {
        return Err(ApiError::invalid(
            "transform_quantity[divide_by]",
            "This value must be greater than or equal to 1.",
        ));
    }
    if matches!(scheme, Scheme::Tiered(..)) {
        return Err(ApiError::invalid(
            "transform_quantity",
            "`transform_quantity` cannot be used when `billing_scheme` is `tiered`.",
        ));
    }
    Ok(Some(Transform { divide_by, up }))
}

/// Adds the tiers to a rendered price, if it has any: the field can't be null.
pub(crate) fn expand_tiers(price: &Price, rendered: &mut Map<String, Value>) {
    if let Some(tiers) = price.render_tiers() {
        rendered.insert("tiers".into(), tiers);
    }
}
