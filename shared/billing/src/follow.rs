//! The record follows the subscription: Stripe is asked how things stand, and the record is made to agree.
//!
//! An event only says that it is time to look. What it said then does not matter: the subscription is fetched after the record
//! was read, and the record is only stored if nobody changed it since. So events may come twice, late and in any order, to
//! several workers at once, and the record ends as Stripe's last word has it.

use std::cmp::Reverse;

use farebox_aws::control::Cause;
use farebox_core::{
    account::{ChangedTooOften, Customer, Phase, Standing},
    alert::Occasion,
    id::CustomerId,
    tiers::{Interval, Overrides, PlanId},
    time::{Cycle, Period},
};
use farebox_stripe::{Invoice, ItemChange, Proration, Subscription, SubscriptionItem, SubscriptionUpdate};

use crate::{Books, Error, change::keep_caps};

/// How often a record is read again because somebody else changed it meanwhile.
const TRIES_MAX: u32 = 8;
/// An invoice is final this long after its period at the latest, whatever its endpoint answers: 72 hours
/// (<https://docs.stripe.com/billing/subscriptions/webhooks>), and a day.
const INVOICE_FINAL_S: u64 = 4 * 86_400;
/// What the lookup key of a base price begins with.
const BASE: &str = "farebox_base_";
/// What the lookup key of every price of ours begins with.
const OURS: &str = "farebox_";

/// What came of looking.
#[derive(Clone, Debug, PartialEq)]
pub struct Followed {
    /// The record as it is now.
    pub customer: Customer,
    /// Whether it had to change.
    pub is_changed: bool,
    /// What the operator was told.
    pub concerns: Vec<Concern>,
}

/// Something on a subscription that the record can't follow. What can be followed was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Concern {
    /// Its base price is of no plan that any version of the catalog has, or it has none. The tier stays as it was.
    UnknownPlan {
        /// `price_…`, if there is any flat price.
        price: Option<String>,
    },
    /// Its status is none that we know. The standing stays as it was.
    UnknownStatus {
        /// Stripe's word.
        status: String,
    },
    /// The tier was changed so often that another change is not taken. It stays as it was.
    ChangedTooOften,
}

impl Concern {
    /// The kind, what it is about, and the sentence for the operator.
    fn words(&self, customer: &Customer) -> (&'static str, &str, String) {
        let id = &customer.id;
        match self {
            Self::UnknownPlan { price } => {
                let price = price.as_deref().unwrap_or("no flat price");
                let text = format!(
                    "The subscription of {id} has {price}, which no version of the tiers sells: {id} keeps its tier and is \
                     billed something else. Give the subscription the base price of a tier."
                );
                ("unknown_plan", price, text)
            }
            Self::UnknownStatus { status } => {
                let text = format!(
                    "The subscription of {id} is {status}, which this version does not know: {id} stays as it was."
                );
                ("unknown_status", status, text)
            }
            Self::ChangedTooOften => {
                let text = format!(
                    "The tier of {id} was changed too often within 40 days: {id} keeps its tier, while Stripe bills another one."
                );
                ("changed_too_often", "tier", text)
            }
        }
    }
}

/// A plan that a subscription sells, as some version of the catalog has it.
#[derive(Clone, Debug, PartialEq)]
pub struct SoldPlan {
    /// What it is; when it begins is decided by [`agree`].
    pub phase: Phase,
    /// How long its billing periods are.
    pub interval: Interval,
}

impl Books {
    /// Makes a customer's record agree with its subscription in Stripe, and the subscription's metered prices with its plan:
    /// missing ones are added before the plan begins, and those of former plans taken away once their last usage is invoiced
    /// for good. A plan whose prices can't be added does not begin: usage that Stripe has no price for is never billed.
    ///
    /// An event is marked in one transaction with its effect, or alone if there is none.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is no such customer, [`Error::Table`] also if others kept changing it; [`Error::Stripe`].
    /// Repeating is safe.
    pub async fn follow(&self, id: &CustomerId, cause: Option<Cause<'_>>) -> Result<Followed, Error> {
        for _ in 0..TRIES_MAX {
            // In this order: a subscription that is older than the record could take back what somebody has just stored.
            let seen = self.customer(id).await?;
            let Some(subscription) = self.subscription_of(&seen).await? else {
                return self.leave(seen, Vec::new(), cause).await;
            };
            let (sold, unpaid_since) = self.sold_in(&seen, &subscription).await?;
            let (subscription, priced) = match self.add_missing(sold.as_ref(), &subscription).await {
                Ok(Some(updated)) => (updated, Ok(())),
                Ok(None) => (subscription, Ok(())),
                Err(error) => (subscription, Err(error)),
            };
            let now = self.now();
            let (changed, concerns) = match priced {
                Ok(()) => agree(&seen, &subscription, sold.as_ref(), unpaid_since, now.s()),
                Err(_) => {
                    let interval = sold.as_ref().map(|sold| sold.interval);
                    keep_up(&seen, &subscription, interval, unpaid_since)
                }
            };
            // What goes wrong from here on keeps the event from being marked, never the record from being right.
            let told = self.tell_operator(&changed, &subscription, &concerns).await;
            let beside = match priced.and(told) {
                Ok(()) => self.tend(&changed, &subscription, now.s()).await,
                Err(error) => Err(error),
            };
            let cause = cause.filter(|_| beside.is_ok());
            if changed == seen {
                let left = self.leave(seen, concerns, cause).await?;
                beside?;
                return Ok(left);
            }
            let stored = self.control().store(&seen, changed, cause, now).await?;
            beside?;
            if let Some(customer) = stored {
                return Ok(Followed {
                    customer,
                    is_changed: true,
                    concerns,
                });
            }
        }
        Err(farebox_aws::Error::Contended(format!("customer {id}")).into())
    }

    /// What [`Self::follow`] would make of a customer's record: the record, and how it would be. Nothing changes.
    ///
    /// # Errors
    /// As [`Self::follow`].
    pub async fn would_follow(&self, id: &CustomerId) -> Result<(Customer, Customer), Error> {
        let seen = self.customer(id).await?;
        let Some(subscription) = self.subscription_of(&seen).await? else {
            return Ok((seen.clone(), seen));
        };
        let (sold, unpaid_since) = self.sold_in(&seen, &subscription).await?;
        let (agreed, _) = agree(&seen, &subscription, sold.as_ref(), unpaid_since, self.now().s());
        Ok((seen, agreed))
    }

    /// What a subscription sells, and since when its invoices are unpaid.
    async fn sold_in(
        &self,
        seen: &Customer,
        subscription: &Subscription,
    ) -> Result<(Option<SoldPlan>, Option<u64>), Error> {
        let sold = match base_plan(subscription) {
            Some(plan) => self.sold_plan(seen, &plan).await?,
            None => None,
        };
        let unpaid_since = match subscription.status.as_str() {
            "past_due" => unpaid_since(&self.stripe.invoices(&subscription.customer).await?, &subscription.id),
            _ => None,
        };
        Ok((sold, unpaid_since))
    }

    /// Nothing changes but the event's mark. Whoever made the record what it is may have died before the counter items were told.
    async fn leave(
        &self,
        customer: Customer,
        concerns: Vec<Concern>,
        cause: Option<Cause<'_>>,
    ) -> Result<Followed, Error> {
        self.control().tell_counters(&customer).await?;
        if let Some(cause) = cause {
            self.accounts.put_mark(cause.event, cause.now).await?;
        }
        Ok(Followed {
            customer,
            is_changed: false,
            concerns,
        })
    }

    async fn tell_operator(
        &self,
        customer: &Customer,
        subscription: &Subscription,
        concerns: &[Concern],
    ) -> Result<(), Error> {
        for concern in concerns {
            tracing::error!(customer = %customer.id, subscription = subscription.id, ?concern, "can't be followed");
            let (problem, what, text) = concern.words(customer);
            let id = format!("{problem}-{}-{what}", subscription.id);
            let details = [
                ("customer", customer.id.to_string()),
                ("subscription", subscription.id.clone()),
            ];
            let occasion = Occasion::Operator {
                problem: problem.to_owned(),
                text,
                details: details.map(|(name, value)| (name.to_owned(), value)).into(),
            };
            self.alert(id, None, occasion).await?;
        }
        Ok(())
    }

    /// The subscription to follow: the known one as long as it lives, then the best of the customer's others.
    async fn subscription_of(&self, seen: &Customer) -> Result<Option<Subscription>, Error> {
        let known = match &seen.stripe_subscription {
            Some(id) => absent(self.stripe.subscription(id).await)?,
            None => None,
        };
        match (&known, &seen.stripe_customer) {
            (Some(live), _) if !has_ended(live) => Ok(known),
            (_, Some(customer)) => {
                let others = absent(self.stripe.subscriptions_of(customer).await)?;
                Ok(heir(others.unwrap_or_default()).or(known))
            }
            (_, None) => Ok(known),
        }
    }

    /// What a plan is: what was agreed or holds with this customer, else a tier of the newest catalog that has it, with the spend caps
    /// that the customer has of its own, else what held before.
    async fn sold_plan(&self, seen: &Customer, plan: &PlanId) -> Result<Option<SoldPlan>, Error> {
        let now_s = self.now().s();
        let in_force = seen.phase_at(now_s).from;
        let ahead = seen.phases.iter().filter(|phase| phase.from >= in_force);
        let agreed = seen.offered.iter().chain(ahead).find(|phase| phase.plan == *plan);
        let found = match agreed {
            Some(phase) => Some(phase.clone()),
            None => match self.plan_in_catalogs(plan).await? {
                Some(sold) => return Ok(Some(self.with_own_caps(seen, sold).await?)),
                None => seen.phases.iter().rev().find(|phase| phase.plan == *plan).cloned(),
            },
        };
        let Some(phase) = found else { return Ok(None) };
        let terms = self
            .control()
            .terms_of(phase.catalog, &phase.tier, &phase.overrides)
            .await?;
        Ok(Some(SoldPlan {
            phase,
            interval: terms.price.interval,
        }))
    }

    /// What is sold, with the spend caps that the customer has of its own. The plan is the same: a cap costs nothing.
    async fn with_own_caps(&self, seen: &Customer, mut sold: SoldPlan) -> Result<SoldPlan, Error> {
        let own = &seen.phase_at(self.now().s()).overrides;
        let Phase { catalog, tier, .. } = &sold.phase;
        let terms = self.control().terms_of(*catalog, tier, &sold.phase.overrides).await?;
        let capped = keep_caps(sold.phase.overrides.clone(), own, &terms);
        match self.control().terms_of(*catalog, tier, &capped).await {
            Ok(_) => sold.phase.overrides = capped,
            // A cap that the tier can't hold, because its first step costs more, say.
            Err(farebox_aws::Error::Refused(problem)) => {
                tracing::error!(customer = %seen.id, tier, problem, "the customer's spend cap does not fit what was bought: set another");
            }
            Err(error) => return Err(error.into()),
        }
        Ok(sold)
    }

    /// The tier that a plan is of, in the newest version of the catalog that has it, for customers with whom nothing else was
    /// agreed.
    ///
    /// # Errors
    /// [`Error::Table`] if a catalog can't be read.
    pub async fn plan_in_catalogs(&self, plan: &PlanId) -> Result<Option<SoldPlan>, Error> {
        for version in (1..=self.accounts.newest_catalog().await?).rev() {
            let Some(catalog) = self.accounts.catalog(version).await? else {
                continue;
            };
            for tier in &catalog.tiers {
                // A tier with something left to agree on has no plan of its own.
                let Ok(terms) = catalog.terms(&tier.name, &Overrides::default()) else {
                    continue;
                };
                if terms.plan() == *plan {
                    return Ok(Some(SoldPlan {
                        phase: Phase {
                            from: 0,
                            tier: tier.name.clone(),
                            catalog: version,
                            overrides: Overrides::default(),
                            plan: plan.clone(),
                        },
                        interval: terms.price.interval,
                    }));
                }
            }
        }
        Ok(None)
    }

    /// Takes metered prices away that nothing is reported to any more.
    async fn tend(&self, customer: &Customer, subscription: &Subscription, now_s: u64) -> Result<(), Error> {
        let former = former_items(customer, subscription);
        if !can_be_changed(subscription) || former.is_empty() {
            return Ok(());
        }
        let invoices = self.stripe.invoices(&subscription.customer).await?;
        let over = former
            .into_iter()
            .filter(|(_, until)| is_invoiced(*until, &invoices, &subscription.id, now_s));
        let items = over.map(|(item, _)| ItemChange::Remove {
            item: item.id.clone(),
            clear_usage: false,
        });
        self.change_items(subscription, items.collect()).await?;
        Ok(())
    }

    /// Adds the metered prices of what is sold that are not on the subscription: nobody but us adds them. The subscription with
    /// them; `None` if it had them all.
    async fn add_missing(
        &self,
        sold: Option<&SoldPlan>,
        subscription: &Subscription,
    ) -> Result<Option<Subscription>, Error> {
        let Some(phase) = sold.map(|sold| &sold.phase).filter(|_| can_be_changed(subscription)) else {
            return Ok(None);
        };
        let terms = self
            .control()
            .terms_of(phase.catalog, &phase.tier, &phase.overrides)
            .await?;
        let is_missing = |meter: &String| {
            let key = phase.plan.event_name(meter);
            !subscription
                .items
                .iter()
                .any(|item| item.lookup_key.as_deref() == Some(&key))
        };
        if !terms.meters().iter().any(is_missing) {
            return Ok(None);
        }
        let prices = self.ensure_plan(&terms).await?;
        let new = prices
            .metered
            .values()
            .filter(|price| !subscription.items.iter().any(|item| item.price == **price));
        let items = new.map(|price| ItemChange::Add { price: price.clone() });
        self.change_items(subscription, items.collect()).await
    }

    /// Changes the items of a subscription, if there is anything to change, and returns it as it is then.
    async fn change_items(
        &self,
        subscription: &Subscription,
        items: Vec<ItemChange>,
    ) -> Result<Option<Subscription>, Error> {
        if items.is_empty() {
            return Ok(None);
        }
        let key = tend_key(&subscription.id, &items, self.now().s());
        let update = SubscriptionUpdate {
            items,
            proration: Proration::None,
            ..SubscriptionUpdate::default()
        };
        Ok(Some(
            self.stripe.update_subscription(&subscription.id, &update, &key).await?,
        ))
    }

    /// Tells the operator of a subscription that an event or a session names beside the one that the customer's record follows,
    /// if both are alive and it has prices of ours: the customer pays twice, and only one of the two lets anybody in.
    ///
    /// # Errors
    /// [`Error`] if it can't be found out or told.
    pub async fn tell_of_second(&self, id: &CustomerId, named: &str) -> Result<(), Error> {
        let seen = self.customer(id).await?;
        let Some(known) = seen.stripe_subscription.as_deref().filter(|known| *known != named) else {
            return Ok(());
        };
        let both = (
            absent(self.stripe.subscription(known).await)?,
            absent(self.stripe.subscription(named).await)?,
        );
        let (Some(known), Some(second)) = both else {
            return Ok(());
        };
        if has_ended(&known) || !can_be_changed(&second) || !is_ours(&second) {
            return Ok(());
        }
        let text = format!(
            "{id} has two subscriptions in Stripe, {} and {}. The record follows the first; the second is billed and lets nobody \
             in. Cancel and refund one of them.",
            known.id, second.id
        );
        let details = [
            ("customer", id.to_string()),
            ("subscription", known.id.clone()),
            ("second", second.id.clone()),
        ];
        let occasion = Occasion::Operator {
            problem: "second_subscription".to_owned(),
            text,
            details: details.map(|(name, value)| (name.to_owned(), value)).into(),
        };
        self.alert(format!("second_subscription-{}", second.id), None, occasion)
            .await
    }
}

/// The same change by two workers is one, and no two changes are: all of it is in the key. An hour later a stored fault is not
/// met again.
fn tend_key(subscription: &str, items: &[ItemChange], now_s: u64) -> String {
    let words = items.iter().map(|change| match change {
        ItemChange::Add { price } => format!("add {price}\n"),
        ItemChange::Replace { item, price } => format!("replace {item} {price}\n"),
        ItemChange::Remove { item, clear_usage } => format!("remove {item} {clear_usage}\n"),
    });
    // In no order that Stripe's answer or ours may have.
    let mut words: Vec<String> = words.collect();
    words.sort();
    // FNV-1a (<https://datatracker.ietf.org/doc/html/draft-eastlake-fnv>): every build says the same.
    let hash = words.concat().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("farebox-{subscription}-tend-{hash:016x}-{}", now_s / 3_600)
}

/// The record that agrees with a subscription, and what it can't agree with.
///
/// `sold` is what the subscription's base price sells, `unpaid_since` when the first of its unpaid invoices became final. Nothing
/// in the result tells when we looked, except the second at which a plan begins that nobody had agreed on before.
#[must_use]
pub fn agree(
    seen: &Customer,
    subscription: &Subscription,
    sold: Option<&SoldPlan>,
    unpaid_since: Option<u64>,
    now_s: u64,
) -> (Customer, Vec<Concern>) {
    let interval = sold.map(|sold| sold.interval);
    let (mut customer, mut concerns) = keep_up(seen, subscription, interval, unpaid_since);
    if has_ended(subscription) {
        return (customer, concerns);
    }
    match sold {
        Some(sold) => {
            let before = seen.cycle.current;
            let is_over = customer.cycle.current.start > before.start && subscription.status != "trialing";
            let wait = Wait { before, is_over };
            if let Err(ChangedTooOften) = take_up(&mut customer, wait, sold, newest_item(subscription), now_s) {
                concerns.push(Concern::ChangedTooOften);
            }
        }
        None => concerns.push(Concern::UnknownPlan {
            price: flat_item(subscription).map(|item| item.price.clone()),
        }),
    }
    (customer, concerns)
}

/// All of the record that agrees with a subscription but the plan.
fn keep_up(
    seen: &Customer,
    subscription: &Subscription,
    interval: Option<Interval>,
    unpaid_since: Option<u64>,
) -> (Customer, Vec<Concern>) {
    let mut customer = seen.clone();
    let mut concerns = Vec::new();
    let is_new = seen.stripe_subscription.as_deref() != Some(subscription.id.as_str());
    customer.stripe_subscription = Some(subscription.id.clone());
    if let Some(period) = period(subscription) {
        customer.cycle = cycle(&seen.cycle, subscription, period, interval);
    }
    let leaves = leaves(seen, subscription, is_new);
    customer.is_leaving = leaves.is_some();
    customer.ends = leaves.or(ends_in_stripe(subscription));
    match standing(seen.standing, subscription, unpaid_since) {
        Some(standing) => customer.standing = standing,
        None => concerns.push(Concern::UnknownStatus {
            status: subscription.status.clone(),
        }),
    }
    (customer, concerns)
}

/// What a change at the period's end waits for.
struct Wait {
    /// The period that the record had.
    before: Period,
    /// Whether a paid period has begun since. Stripe may begin a period as well where it moves a trial's end.
    is_over: bool,
}

/// Lets what was sold begin, unless it has.
fn take_up(
    customer: &mut Customer,
    wait: Wait,
    sold: &SoldPlan,
    sold_at: u64,
    now_s: u64,
) -> Result<(), ChangedTooOften> {
    let plan = &sold.phase.plan;
    let holds = |phase: &Phase| phase.plan == *plan;
    if let Some(offered) = customer.offered.clone().filter(holds) {
        if is_same(customer.phase_at(now_s), &offered) {
            customer.drop_change_ahead(now_s);
        } else {
            // Late as we may be, what was counted meanwhile was counted under the plan before and keeps its price.
            let from = match offered.from {
                from if from <= now_s => now_s.max(sold_at),
                from => from,
            };
            let offered = Phase { from, ..offered };
            if customer.phase_after(now_s) != Some(&offered) {
                customer.begin(offered, now_s)?;
            }
        }
        customer.offered = None;
        return Ok(());
    }
    let in_force = customer.phase_at(now_s).from;
    if holds(customer.phase_at(now_s)) && customer.phase_after(now_s).is_some_and(|ahead| !holds(ahead)) {
        // Somebody took the change back in Stripe.
        customer.drop_change_ahead(now_s);
        return Ok(());
    }
    let period = customer.cycle.current;
    let is_between_periods = |phase: &&Phase| phase.from == period.start || phase.from == period.end;
    let ahead = customer.phase_after(now_s).filter(|phase| holds(phase)).cloned();
    if let Some(ahead) = ahead.filter(|ahead| period != wait.before && !is_between_periods(&ahead)) {
        // It waits for the end of a period that ended early, with a trial say, or was moved.
        let from = match wait.is_over {
            true => now_s.max(sold_at),
            false => period.end,
        };
        customer.drop_change_ahead(now_s);
        return customer.begin(Phase { from, ..ahead }, now_s);
    }
    if customer
        .phases
        .iter()
        .any(|phase| phase.from >= in_force && holds(phase))
    {
        return Ok(());
    }
    let from = now_s.max(sold_at);
    customer.begin(
        Phase {
            from,
            ..sold.phase.clone()
        },
        now_s,
    )
}

/// Whether two phases say the same, whenever they begin.
fn is_same(a: &Phase, b: &Phase) -> bool {
    (&a.tier, a.catalog, &a.overrides, &a.plan) == (&b.tier, b.catalog, &b.overrides, &b.plan)
}

fn standing(seen: Standing, subscription: &Subscription, unpaid_since: Option<u64>) -> Option<Standing> {
    Some(match subscription.status.as_str() {
        "active" | "trialing" => Standing::Good,
        "past_due" => Standing::PastDue {
            since: match (unpaid_since, seen) {
                (Some(since), _) | (None, Standing::PastDue { since }) => since,
                // No invoice says it: the period began with one.
                (None, _) => period(subscription).map_or(0, |period| period.start),
            },
        },
        "unpaid" => Standing::Unpaid,
        "incomplete" => Standing::Incomplete,
        "paused" => Standing::Paused,
        "canceled" | "incomplete_expired" => Standing::Ended,
        _ => return None,
    })
}

/// When Stripe ends the subscription.
fn ends_in_stripe(subscription: &Subscription) -> Option<u64> {
    let period_end = period(subscription)
        .filter(|_| subscription.cancel_at_period_end)
        .map(|period| period.end);
    subscription
        .ended_at
        .or(subscription.cancel_at)
        .map(second)
        .or(period_end)
}

/// Since when a subscription is being ended at once: that lets nobody in first and asks Stripe last. Until then it is not taken
/// back, unless the period ends meanwhile and the subscription goes on.
fn leaves(seen: &Customer, subscription: &Subscription, is_new: bool) -> Option<u64> {
    let is_of_period = |ends: &u64| period(subscription).is_some_and(|period| *ends >= period.start);
    seen.ends.filter(|_| seen.is_leaving && !is_new).filter(is_of_period)
}

fn cycle(seen: &Cycle, subscription: &Subscription, current: Period, interval: Option<Interval>) -> Cycle {
    let mut cycle = Cycle {
        anchor: second(subscription.billing_cycle_anchor),
        interval: interval.unwrap_or(seen.interval),
        current,
        cuts: seen.cuts.clone(),
    };
    if (cycle.anchor, cycle.interval) != (seen.anchor, seen.interval) {
        // Periods before the named one are worked out from the new anchor: buckets stay cut where they were.
        for cut in [seen.current.start, seen.current.end, current.start] {
            if cut > 0 && cut <= current.start {
                cycle.cut(cut);
            }
        }
    }
    cycle
}

/// Since when a subscription's newest final invoices are unpaid, however many those are: the finalization of the first of them.
/// `invoices` are the customer's, newest first.
#[must_use]
pub fn unpaid_since(invoices: &[Invoice], subscription: &str) -> Option<u64> {
    let of = |invoice: &&Invoice| invoice.subscription.as_deref() == Some(subscription);
    let is_final = |invoice: &&Invoice| !matches!(invoice.status.as_deref(), Some("draft" | "void") | None);
    invoices
        .iter()
        .filter(of)
        .filter(is_final)
        .take_while(|invoice| invoice.status.as_deref() == Some("open"))
        .filter_map(|invoice| invoice.finalized_at.map(second))
        .last()
}

/// The metered items of plans that hold no more, each with the end of the period that it was last used in: as far as that is
/// over.
fn former_items<'a>(customer: &Customer, subscription: &'a Subscription) -> Vec<(&'a SubscriptionItem, u64)> {
    let Some(current) = period(subscription) else {
        return Vec::new();
    };
    let in_force = customer.phase_at(current.start).from;
    let held = customer.phases.iter().filter(|phase| phase.from >= in_force);
    let mut needed: Vec<PlanId> = held.chain(&customer.offered).map(|phase| phase.plan.clone()).collect();
    needed.extend(base_plan(subscription));
    let is_former = |item: &&SubscriptionItem| {
        let key = item.lookup_key.as_deref().filter(|key| key.starts_with(OURS));
        item.is_metered && key.is_some_and(|key| !needed.iter().any(|plan| is_of(key, plan)))
    };
    let until = |item: &SubscriptionItem| {
        let key = item.lookup_key.as_deref().unwrap_or_default();
        let used_last = customer
            .phases
            .windows(2)
            .rev()
            .find(|pair| is_of(key, &pair[0].plan))
            .map(|pair| pair[1].from.saturating_sub(1));
        // One that no phase names may be of an offer that came to nothing, or of a phase that is forgotten: before the oldest.
        let forgotten = customer
            .phases
            .first()
            .map_or(0, |oldest| oldest.from.saturating_sub(1));
        let used_last = used_last.unwrap_or(second(item.created).max(forgotten));
        customer.cycle.period_at(used_last).end
    };
    let former = subscription
        .items
        .iter()
        .filter(is_former)
        .map(|item| (item, until(item)));
    former.filter(|(_, until)| *until <= current.start).collect()
}

fn is_of(lookup_key: &str, plan: &PlanId) -> bool {
    lookup_key
        .strip_suffix(plan.as_str())
        .is_some_and(|rest| rest.ends_with('_'))
}

/// Whether the usage of a period that ended then is invoiced for good.
fn is_invoiced(until: u64, invoices: &[Invoice], subscription: &str, now_s: u64) -> bool {
    let mut of = invoices
        .iter()
        .filter(|invoice| invoice.subscription.as_deref() == Some(subscription))
        .filter(|invoice| invoice.billing_reason.as_deref() == Some("subscription_cycle"));
    let is_final = of.any(|invoice| invoice.finalized_at.is_some() && second(invoice.period_end) >= until);
    is_final || until.saturating_add(INVOICE_FINAL_S) <= now_s
}

/// Of several subscriptions the one that lets most through, and of those the newest.
fn heir(subscriptions: Vec<Subscription>) -> Option<Subscription> {
    let rank = |status: &str| match status {
        "active" | "trialing" => 0,
        "past_due" => 1,
        "unpaid" | "paused" => 2,
        _ => 3,
    };
    let sells = |subscription: &Subscription| !has_ended(subscription) && base_plan(subscription).is_some();
    let candidates = subscriptions.into_iter().filter(sells);
    candidates.min_by_key(|found| (rank(&found.status), Reverse(found.created), found.id.clone()))
}

/// The plan whose base price a subscription has.
#[must_use]
pub fn base_plan(subscription: &Subscription) -> Option<PlanId> {
    flat_items(subscription).find_map(|item| item.lookup_key.as_deref()?.strip_prefix(BASE)?.parse().ok())
}

/// The billing period that a subscription names: that of its base price.
#[must_use]
pub fn period(subscription: &Subscription) -> Option<Period> {
    let item = flat_item(subscription).or(subscription.items.first())?;
    let period = Period {
        start: second(item.current_period_start),
        end: second(item.current_period_end),
    };
    (period.start < period.end).then_some(period)
}

fn flat_items(subscription: &Subscription) -> impl Iterator<Item = &SubscriptionItem> {
    subscription.items.iter().filter(|item| !item.is_metered)
}

/// Our base price, or any flat one.
fn flat_item(subscription: &Subscription) -> Option<&SubscriptionItem> {
    let is_base = |item: &&SubscriptionItem| item.lookup_key.as_deref().is_some_and(|key| key.starts_with(BASE));
    flat_items(subscription)
        .find(is_base)
        .or(flat_items(subscription).next())
}

/// When the newest item was added: Stripe counts its usage from then on, by its own clock.
fn newest_item(subscription: &Subscription) -> u64 {
    let created = subscription.items.iter().map(|item| second(item.created));
    created.max().unwrap_or(0)
}

fn has_ended(subscription: &Subscription) -> bool {
    matches!(subscription.status.as_str(), "canceled" | "incomplete_expired")
}

/// Whether its items can be changed, and what they cost is billed.
fn can_be_changed(subscription: &Subscription) -> bool {
    !has_ended(subscription) && subscription.status != "incomplete"
}

fn is_ours(subscription: &Subscription) -> bool {
    let mut keys = subscription.items.iter().filter_map(|item| item.lookup_key.as_deref());
    keys.any(|key| key.starts_with(OURS))
}

/// What Stripe does not have is no error here.
fn absent<T>(answer: Result<T, farebox_stripe::Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn second(s: i64) -> u64 {
    u64::try_from(s).unwrap_or(0)
}

#[cfg(test)]
mod tests;
