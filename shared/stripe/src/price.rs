//! Prices: a flat fee per period, or so much per unit of a meter.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Deserializer};
use stripe_client_core::StripeRequest;
use stripe_product::price::{
    CreatePrice, CreatePriceRecurring, CreatePriceRecurringInterval, CreatePriceRecurringUsageType, CreatePriceTiers,
    CreatePriceTiersUpTo, ListPrice,
};
use stripe_shared::{PriceBillingScheme, PriceTiersMode};
use stripe_types::Currency;

use crate::list::{Listed, PAGE, Page};
use crate::{Client, Error, reference};

/// How many lookup keys Stripe takes at once: <https://docs.stripe.com/api/prices/list>.
const LOOKUP_KEYS_MAX: usize = 10;

/// How often a price is billed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interval {
    /// Every month, on the anchor's day.
    Month,
    /// Every year.
    Year,
    /// One that we don't sell.
    #[serde(other)]
    Other,
}

/// What a unit of usage costs: <https://docs.stripe.com/billing/subscriptions/usage-based/pricing-models>.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsagePriceSpec {
    /// The same for every unit.
    PerUnit {
        /// In the currency's minor unit, with at most 12 decimal places: `0.05` of usd is a twentieth of a cent.
        unit_amount_decimal: String,
    },
    /// Depending on how many.
    Tiered {
        /// Which units a step prices.
        mode: TiersMode,
        /// In order; the last one has no `up_to`.
        steps: Vec<PriceStep>,
    },
}

/// Which units a step prices: <https://docs.stripe.com/api/prices/object>.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TiersMode {
    /// Each unit costs what its own step says.
    Graduated,
    /// All units cost what the last unit's step says.
    Volume,
}

/// One step of a tiered price.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PriceStep {
    /// The last unit of this step; `None` for all that is left.
    pub up_to: Option<u64>,
    /// Per unit, as in [`UsagePriceSpec::PerUnit`].
    #[serde(default, deserialize_with = "or_zero")]
    pub unit_amount_decimal: String,
    /// For the step as a whole, in the minor unit.
    pub flat_amount: Option<u64>,
}

/// What something costs: <https://docs.stripe.com/api/prices/object>.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Price {
    /// `price_…`
    pub id: String,
    /// `prod_…`
    #[serde(deserialize_with = "reference::id")]
    pub product: String,
    /// Whether it can still be bought.
    pub active: bool,
    /// In lower case: `usd`.
    pub currency: String,
    /// Our name for it, unique in the account.
    pub lookup_key: Option<String>,
    /// A word for the owner; no customer reads it.
    pub nickname: Option<String>,
    /// Ours to fill.
    #[serde(default)]
    pub metadata: HashMap<String, String>,
    /// In the minor unit; absent if tiered.
    pub unit_amount_decimal: Option<String>,
    /// Absent unless tiered.
    pub tiers_mode: Option<TiersMode>,
    /// The steps, if it was read and not just created.
    pub tiers: Option<Vec<PriceStep>>,
    /// How it repeats; absent if it is paid once.
    pub recurring: Option<Recurring>,
}

/// How a price repeats.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Recurring {
    /// The unit of a period.
    pub interval: Interval,
    /// How many of them make a period.
    pub interval_count: u64,
    /// `licensed` or `metered`.
    pub usage_type: String,
    /// `mtr_…`, if metered.
    pub meter: Option<String>,
}

/// A price to be: <https://docs.stripe.com/api/prices/create>. What it costs can never be changed afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPrice {
    /// `prod_…`
    pub product: String,
    /// In lower case: `usd`.
    pub currency: String,
    /// How often it is billed.
    pub interval: Interval,
    /// What it costs.
    pub cost: PriceCost,
    /// Our name for it, unique in the account.
    pub lookup_key: Option<String>,
    /// Takes the lookup key from the price that has it, in the same step.
    pub transfer_lookup_key: bool,
    /// A word for the owner; no customer reads it.
    pub nickname: Option<String>,
    /// Ours to fill.
    pub metadata: HashMap<String, String>,
}

/// What a price costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PriceCost {
    /// The same every period.
    Flat {
        /// In the currency's minor unit.
        amount_minor: u64,
    },
    /// What a meter counts.
    Metered {
        /// `mtr_…`
        meter: String,
        /// Per unit.
        spec: UsagePriceSpec,
    },
}

impl Client {
    /// Creates a price that is the same every period.
    ///
    /// # Errors
    /// [`Error::Rejected`] if another price has this lookup key.
    pub async fn create_flat_price(
        &self,
        product: &str,
        currency: &str,
        amount_minor: u64,
        interval: Interval,
        lookup_key: &str,
        idempotency_key: &str,
    ) -> Result<Price, Error> {
        let new = NewPrice {
            cost: PriceCost::Flat { amount_minor },
            ..NewPrice::of(product, currency, interval, lookup_key)
        };
        self.create_price(&new, idempotency_key).await
    }

    /// Creates a price for what a meter counts.
    ///
    /// # Errors
    /// [`Error::Rejected`] if another price has this lookup key, or the steps are not in order.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is one parameter of Stripe's, and a price has no defaults"
    )]
    pub async fn create_metered_price(
        &self,
        product: &str,
        currency: &str,
        interval: Interval,
        meter_id: &str,
        spec: &UsagePriceSpec,
        lookup_key: &str,
        idempotency_key: &str,
    ) -> Result<Price, Error> {
        let cost = PriceCost::Metered {
            meter: meter_id.to_owned(),
            spec: spec.clone(),
        };
        let new = NewPrice {
            cost,
            ..NewPrice::of(product, currency, interval, lookup_key)
        };
        self.create_price(&new, idempotency_key).await
    }

    /// Creates a price.
    ///
    /// # Errors
    /// [`Error::Rejected`] if another price has this lookup key and need not give it away, or the steps are not in order.
    pub async fn create_price(&self, new: &NewPrice, idempotency_key: &str) -> Result<Price, Error> {
        self.create(&new.request()?, idempotency_key).await?.read()
    }

    /// The active price with this lookup key, with its steps: <https://docs.stripe.com/products-prices/manage-prices#lookup-keys>.
    ///
    /// # Errors
    /// As every call; a price that is absent is `None`.
    pub async fn find_price(&self, lookup_key: &str) -> Result<Option<Price>, Error> {
        let request = ListPrice::new()
            .active(true)
            .lookup_keys([lookup_key.to_owned()])
            .expand(["data.tiers".to_owned()])
            .limit(1);
        let page: Page<Price> = self.get(request.build()).await?.read()?;
        Ok(page.data.into_iter().next())
    }

    /// The active prices with these lookup keys, with their steps, in no order.
    ///
    /// # Errors
    /// As every call; prices that are absent are left out.
    pub async fn prices_by_lookup_keys(&self, lookup_keys: &[&str]) -> Result<Vec<Price>, Error> {
        let distinct: Vec<_> = lookup_keys
            .iter()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .map(|&key| key.to_owned())
            .collect();
        let mut prices = Vec::with_capacity(distinct.len());
        for keys in distinct.chunks(LOOKUP_KEYS_MAX) {
            prices.extend(self.active_prices(|request| request.lookup_keys(keys)).await?);
        }
        Ok(prices)
    }

    /// The active prices of a product, with their steps, newest first: <https://docs.stripe.com/api/prices/list>.
    ///
    /// # Errors
    /// As every call.
    pub async fn prices_of_product(&self, product: &str) -> Result<Vec<Price>, Error> {
        self.active_prices(|request| request.product(product)).await
    }

    async fn active_prices(&self, narrow: impl Fn(ListPrice) -> ListPrice) -> Result<Vec<Price>, Error> {
        self.list(|after| {
            let request = ListPrice::new()
                .active(true)
                .expand(["data.tiers".to_owned()])
                .limit(PAGE);
            let mut request = narrow(request);
            if let Some(after) = after {
                request = request.starting_after(after);
            }
            request.build()
        })
        .await
    }
}

impl NewPrice {
    /// A free one, without anything that can be left out.
    fn of(product: &str, currency: &str, interval: Interval, lookup_key: &str) -> Self {
        Self {
            product: product.to_owned(),
            currency: currency.to_owned(),
            interval,
            cost: PriceCost::Flat { amount_minor: 0 },
            lookup_key: Some(lookup_key.to_owned()),
            transfer_lookup_key: false,
            nickname: None,
            metadata: HashMap::new(),
        }
    }

    fn request(&self) -> Result<CreatePrice, Error> {
        let mut recurring = CreatePriceRecurring::new(self.interval.parameter()?);
        let mut request = CreatePrice::new(parse_currency(&self.currency)).product(&self.product);
        request = match &self.cost {
            PriceCost::Flat { amount_minor } => request.unit_amount(amount(*amount_minor)?),
            PriceCost::Metered { meter, spec } => {
                recurring.meter = Some(meter.clone());
                recurring.usage_type = Some(CreatePriceRecurringUsageType::Metered);
                spec.add_to(request)?
            }
        };
        request = request.recurring(recurring);
        if let Some(key) = &self.lookup_key {
            request = request.lookup_key(key);
        }
        if self.transfer_lookup_key {
            request = request.transfer_lookup_key(true);
        }
        if let Some(nickname) = &self.nickname {
            request = request.nickname(nickname);
        }
        if !self.metadata.is_empty() {
            request = request.metadata(self.metadata.clone());
        }
        Ok(request)
    }
}

impl UsagePriceSpec {
    fn add_to(&self, request: CreatePrice) -> Result<CreatePrice, Error> {
        Ok(match self {
            Self::PerUnit { unit_amount_decimal } => request
                .billing_scheme(PriceBillingScheme::PerUnit)
                .unit_amount_decimal(unit_amount_decimal),
            Self::Tiered { mode, steps } => request
                .billing_scheme(PriceBillingScheme::Tiered)
                .tiers_mode(mode.parameter())
                .tiers(steps.iter().map(PriceStep::parameter).collect::<Result<Vec<_>, _>>()?),
        })
    }
}

impl Listed for Price {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Interval {
    fn parameter(self) -> Result<CreatePriceRecurringInterval, Error> {
        match self {
            Self::Month => Ok(CreatePriceRecurringInterval::Month),
            Self::Year => Ok(CreatePriceRecurringInterval::Year),
            Self::Other => Err(Error::Invalid("a price is billed by the month or the year")),
        }
    }
}

impl TiersMode {
    fn parameter(self) -> PriceTiersMode {
        match self {
            Self::Graduated => PriceTiersMode::Graduated,
            Self::Volume => PriceTiersMode::Volume,
        }
    }
}

impl PriceStep {
    fn parameter(&self) -> Result<CreatePriceTiers, Error> {
        let up_to = match self.up_to {
            Some(up_to) => CreatePriceTiersUpTo::I64(amount(up_to)?),
            None => CreatePriceTiersUpTo::Inf,
        };
        Ok(CreatePriceTiers {
            unit_amount_decimal: Some(self.unit_amount_decimal.clone()),
            flat_amount: self.flat_amount.map(amount).transpose()?,
            ..CreatePriceTiers::new(up_to)
        })
    }
}

fn amount(value: u64) -> Result<i64, Error> {
    i64::try_from(value).map_err(|_| Error::Invalid("an amount or a bound is too large"))
}

/// Stripe itself judges a currency that async-stripe doesn't know.
fn parse_currency(currency: &str) -> Currency {
    currency
        .parse()
        .unwrap_or_else(|never: std::convert::Infallible| match never {})
}

/// A step that only has a flat amount has no price per unit: that is zero.
fn or_zero<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_else(|| "0".to_owned()))
}
