//! `tiers.yaml`: what is sold, and to whom each route is open.
//!
//! [`Catalog::from_yaml`] reads the file and reports every mistake at once; [`Catalog::access`] answers for each request
//! whether its route is open and how it counts; [`Catalog::terms`] says what holds for one customer; [`UsagePrice`] says
//! what the usage costs, as Stripe's invoice will; [`PlanId`] names what terms cost; [`Catalog::diff`] says what a new catalog
//! changes. A catalog goes to the authorizer as JSON.

mod access;
mod check;
mod diff;
mod error;
mod parse;
mod past_due;
mod pattern;
mod plan;
mod price;
mod terms;
mod value;
mod yaml;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::money::{Currency, Money, UnitAmount};

pub use diff::{TierChange, TierChangeKind};
pub use error::{TierError, TierErrors};
pub use past_due::{PastDue, PastDueError, PastDuePolicy};
pub use pattern::{Pattern, PatternError};
pub use plan::{MeteredPrice, PlanId, PlanIdError, PriceMode};
pub use price::Overflow;
pub use terms::TermsError;
pub use value::LimitError;

/// An amount as a tiers file writes one: `$99.50`, `99.50`, `99.50 EUR`.
///
/// # Errors
/// What is wrong with it, to be read after it.
pub fn parse_amount(text: &str, currency: Currency) -> Result<Money, String> {
    value::flat(text, currency)
}

/// Stripe's longest trial.
pub const TRIAL_DAYS_MAX: u32 = 730;

/// The meter that counts where nothing else is said.
pub const DEFAULT_METER: &str = "api_calls";

/// A checked `tiers.yaml`: every tier in ladder order, and the routes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Catalog {
    /// The currency of every price in the file.
    pub currency: Currency,
    /// The tiers, lowest first: a later tier is above an earlier one.
    pub tiers: Vec<Tier>,
    /// Which meter counts a route: the most specific matching pattern decides, else [`DEFAULT_METER`].
    pub meters: Vec<(Pattern, String)>,
    /// How many units a request takes on any tier: the most specific matching pattern decides, else 1.
    pub weights: Vec<(Pattern, u64)>,
}

/// A named bundle: price, included units, limits, endpoints, policy at the quota, support.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tier {
    /// The tier's name, as customers see it: `[a-z0-9_-]`, at most 32 bytes.
    pub name: String,
    /// The base price of a billing period.
    pub price: Custom<BasePrice>,
    /// The billing period that the file writes behind prices, quotas and caps; `None` if it writes none.
    #[serde(default)]
    pub interval: Option<Interval>,
    /// Units included in a billing period, by meter; `None` is unlimited. A meter that is not named includes nothing of its own.
    pub included: Custom<BTreeMap<String, Option<u64>>>,
    /// The limits, all of which must hold; empty is unlimited.
    pub limits: Custom<Vec<Limit>>,
    /// The routes that the tier names.
    pub endpoints: Vec<Pattern>,
    /// What a unit beyond the included ones costs, by meter.
    pub overage: BTreeMap<String, UsagePrice>,
    /// What happens at the quota.
    pub at_quota: AtQuota,
    /// The most that usage may cost in one billing period, base price not counted, by meter.
    pub spend_cap: BTreeMap<String, Money>,
    /// Days of trial before the first charge.
    pub trial_days: u32,
    /// Over how many counter items a customer's admissions are spread.
    pub shards: u32,
    /// How many units a request takes, where this tier says other than the whole file.
    pub weights: Vec<(Pattern, u64)>,
    /// From which percentage of a limit or quota a caller is warned.
    pub warn_percent: u8,
    /// At which percentages of the included units, and of a spend cap, the customer is alerted: ascending.
    #[serde(default = "alert_percents")]
    pub alert_percents: Vec<u16>,
    /// What happens once an invoice stays unpaid.
    #[serde(default)]
    pub past_due: PastDue,
    /// Endpoint groups with limits and quotas of their own, held in addition to the tier's.
    pub groups: Vec<Group>,
    /// Support level, shown to customers.
    pub support: Option<String>,
    /// Promised availability as written (`99.9%`), shown to customers.
    pub sla: Option<String>,
}

/// The default of [`Tier::alert_percents`].
fn alert_percents() -> Vec<u16> {
    vec![80, 100, 120]
}

/// A value of the file, or `custom`: agreed with each customer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Custom<T> {
    /// The same for every customer of the tier.
    Fixed(T),
    /// Named in each customer's [`Overrides`].
    Custom,
}

/// The base price of a billing period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BasePrice {
    /// The amount.
    pub amount: Money,
    /// How long the period is.
    pub interval: Interval,
}

/// The length of a billing period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interval {
    /// A calendar month from the anchor.
    #[default]
    Month,
    /// A calendar year from the anchor.
    Year,
}

/// At most `units` in any sliding window of `window_ms`. Both are at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Limit {
    /// Units in the window.
    pub units: u64,
    /// The window's length in milliseconds.
    pub window_ms: u64,
}

/// What a tier does with requests beyond its quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AtQuota {
    /// Admit and bill.
    Overage,
    /// Admit at a slower limit.
    Throttle(Limit),
    /// Deny until the next billing period.
    Block,
}

impl AtQuota {
    /// The policy in one word, as alerts and tiers files say it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overage => "overage",
            Self::Throttle(_) => "throttle",
            Self::Block => "block",
        }
    }
}

/// What units cost. Bounds (`up_to`) count all units of the billing period, the included ones too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsagePrice {
    /// Every unit beyond the included ones costs the same.
    PerUnit(UnitAmount),
    /// Each unit costs what its own step says.
    Graduated(Vec<Step>),
    /// All units cost what the step says that the total falls in; nothing is included for free.
    Volume(Vec<Step>),
}

/// One step of a graduated or volume price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The last unit of the step; `None` in the last step only.
    pub up_to: Option<u64>,
    /// The price of a unit.
    pub unit: UnitAmount,
    /// Charged once as soon as a unit falls in the step.
    pub flat: Money,
}

/// Endpoints with limits and a quota of their own, held in addition to the tier's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// The group's name: `[a-z0-9_]`, at most 16 bytes, unique in the tier.
    pub name: String,
    /// The routes of the group.
    pub endpoints: Vec<Pattern>,
    /// Limits on the group alone; empty is none.
    pub limits: Vec<Limit>,
    /// Units of the group included in a billing period; `None` is no quota of its own.
    pub included: Option<u64>,
    /// What happens at the group's quota: throttle or block, never overage.
    pub at_quota: AtQuota,
}

/// What was agreed with one customer. Present fields replace the tier's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Overrides {
    /// The base price.
    pub price: Option<BasePrice>,
    /// Included units by meter; `null` is unlimited.
    pub included: Option<BTreeMap<String, Option<u64>>>,
    /// The limits.
    pub limits: Option<Vec<Limit>>,
    /// Overage prices by meter.
    pub overage: Option<BTreeMap<String, UsagePrice>>,
    /// The policy at the quota.
    pub at_quota: Option<AtQuota>,
    /// Spend caps by meter.
    pub spend_cap: Option<BTreeMap<String, Money>>,
    /// At which percentages of the included units, and of a spend cap, the customer is alerted.
    pub alert_percents: Option<Vec<u16>>,
    /// What happens once an invoice stays unpaid.
    pub past_due: Option<PastDue>,
}

/// What holds for one customer: a tier with nothing left `custom`.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// The tier's name.
    pub tier: String,
    /// The currency of every amount.
    pub currency: Currency,
    /// The base price.
    pub price: BasePrice,
    /// Included units by meter; `None` is unlimited.
    pub included: BTreeMap<String, Option<u64>>,
    /// The limits, all of which must hold.
    pub limits: Vec<Limit>,
    /// Overage prices by meter.
    pub overage: BTreeMap<String, UsagePrice>,
    /// The policy at the quota.
    pub at_quota: AtQuota,
    /// The most that usage may cost in one billing period, base price not counted, by meter.
    pub spend_cap: BTreeMap<String, Money>,
    /// The most units that a spend cap leaves room for, by meter: [`UsagePrice::units_within`] of the cap.
    pub cap_units: BTreeMap<String, u64>,
    /// Over how many counter items admissions are spread.
    pub shards: u32,
    /// From which percentage on a caller is warned.
    pub warn_percent: u8,
    /// At which percentages of the included units, and of a spend cap, the customer is alerted: ascending.
    pub alert_percents: Vec<u16>,
    /// What happens once an invoice stays unpaid. The default's throttle is raised to one unit for each counter item.
    pub past_due: PastDue,
    /// Endpoint groups.
    pub groups: Vec<Group>,
    /// Days of trial before the first charge.
    pub trial_days: u32,
    /// Support level, shown to customers.
    pub support: Option<String>,
    /// Promised availability as written (`99.9%`), shown to customers.
    pub sla: Option<String>,
}

/// Whether a route is open to a tier, and how it counts.
#[derive(Clone, Debug, PartialEq)]
pub enum Access<'a> {
    /// Open: count `cost` units on `meter`, within `group` if one matches.
    Open {
        /// The meter that counts the request.
        meter: &'a str,
        /// Whole units that the request takes, at least 1.
        cost: u64,
        /// Index into the tier's groups.
        group: Option<usize>,
    },
    /// Not in this tier; `from` is the lowest tier that has it.
    NotInTier {
        /// The lowest tier that the route is open to.
        from: &'a str,
    },
    /// No tier names the route, or the path is ambiguous (dot segments, encoded slashes, control characters).
    NoSuchRoute,
}
