//! Prices: a flat fee per period, or so much per unit of a meter.

use serde::{Deserialize, Deserializer};
use stripe_client_core::StripeRequest;
use stripe_product::price::{
    CreatePrice, CreatePriceRecurring, CreatePriceRecurringInterval, CreatePriceRecurringUsageType, CreatePriceTiers,
    CreatePriceTiersUpTo, ListPrice,
};
use stripe_shared::{PriceBillingScheme, PriceTiersMode};
use stripe_types::Currency;

use crate::list::Page;
use crate::{Client, Error, reference};

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
    /// In the minor unit; absent if tiered.
    pub unit_amount_decimal: Option<String>,
    /// Absent unless tiered.
    pub tiers_mode: Option<TiersMode>,
    /// The steps, which only [`Client::find_price`] asks for.
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
        let request = CreatePrice::new(parse_currency(currency))
            .product(product)
            .lookup_key(lookup_key)
            .recurring(CreatePriceRecurring::new(interval.parameter()?))
            .unit_amount(amount(amount_minor)?);
        self.create(&request, idempotency_key).await?.read()
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
        let metered = CreatePriceRecurring {
            meter: Some(meter_id.to_owned()),
            usage_type: Some(CreatePriceRecurringUsageType::Metered),
            ..CreatePriceRecurring::new(interval.parameter()?)
        };
        let request = CreatePrice::new(parse_currency(currency))
            .product(product)
            .lookup_key(lookup_key)
            .recurring(metered);
        let request = match spec {
            UsagePriceSpec::PerUnit { unit_amount_decimal } => request
                .billing_scheme(PriceBillingScheme::PerUnit)
                .unit_amount_decimal(unit_amount_decimal),
            UsagePriceSpec::Tiered { mode, steps } => request
                .billing_scheme(PriceBillingScheme::Tiered)
                .tiers_mode(mode.parameter())
                .tiers(steps.iter().map(PriceStep::parameter).collect::<Result<Vec<_>, _>>()?),
        };
        self.create(&request, idempotency_key).await?.read()
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
