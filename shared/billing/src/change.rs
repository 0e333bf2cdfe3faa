//! A customer is sold a tier, changes it, is given units, is capped, or leaves.

use std::collections::{BTreeMap, HashMap};

use farebox_aws::control::NewCustomer;
use farebox_core::{
    account::{Contact, Customer, Grant, Phase, Standing},
    id::CustomerId,
    ledger::RowState,
    money::Money,
    tiers::{AtQuota, Overrides, TRIAL_DAYS_MAX, Terms},
    time::{Cycle, Period},
};
use farebox_stripe::{
    CustomerUpdate, CycleAnchor, ItemChange, Proration, Subscription, SubscriptionItem, SubscriptionUpdate,
};
use sha2::{Digest, Sha256};

use crate::{Books, Error, PlanPrices, reporter::seconds};

/// So often a step of a sale may meet a 5xx of Stripe's in a day.
const NAMES_MAX: u32 = 50;
/// The key in Stripe's metadata that names our customer.
pub const CUSTOMER_KEY: &str = "farebox_customer";

/// A sale to a new customer.
#[derive(Clone, Debug)]
pub struct Sale {
    /// The id.
    pub id: CustomerId,
    /// The name that people know.
    pub name: String,
    /// The tier.
    pub tier: String,
    /// The catalog's version.
    pub catalog: u64,
    /// What was agreed.
    pub overrides: Overrides,
    /// Where alerts go, and Stripe's mail.
    pub contact: Contact,
    /// Days of trial in place of the tier's.
    pub trial_days: Option<u32>,
}

impl Books {
    /// Sells a tier to a new customer, or anew to one whose subscription has ended: its plan in Stripe where it is missing, the
    /// customer, its subscription, its record and its counter items. Every step names itself to Stripe, so that selling again
    /// within a day after a crash doubles nothing.
    ///
    /// # Errors
    /// [`Error`] at the first step that fails; selling again goes on from there. [`Error::Refused`] if the id is taken.
    pub async fn sell(&self, sale: Sale) -> Result<Customer, Error> {
        let control = self.control();
        let terms = control.terms_of(sale.catalog, &sale.tier, &sale.overrides).await?;
        let known = self.accounts.customer(&sale.id).await?;
        if known.as_ref().is_some_and(|known| known.standing != Standing::Ended) {
            return Err(Error::Refused(format!("customer {} exists already", sale.id)));
        }
        if sale.trial_days.is_some_and(|days| days > TRIAL_DAYS_MAX) {
            return Err(Error::Refused(format!("a trial has at most {TRIAL_DAYS_MAX} days")));
        }
        let prices = self.ensure_plan(&terms).await?;
        let id = &sale.id;
        let metadata = HashMap::from([(CUSTOMER_KEY.to_owned(), id.to_string())]);
        let email = sale.contact.email.as_deref();
        // What is asked for is part of the name: Stripe answers another wish under a known name with an error.
        let life = known.as_ref().map_or(0, |known| known.auth_epoch).to_string();
        let former = known.as_ref().and_then(|known| known.stripe_customer.clone());
        let former = match former {
            // Who was deleted in Stripe can't be subscribed to anything any more.
            Some(former) => self.stripe.customer(&former).await?.map(|_| former),
            None => None,
        };
        let in_stripe = match former {
            Some(in_stripe) => in_stripe,
            None => {
                let key = step(id, "customer", &[&sale.name, email.unwrap_or_default(), &life]);
                self.create_customer(&sale.name, email, &metadata, &key).await?
            }
        };
        let trial = sale.trial_days.unwrap_or(terms.trial_days);
        let key = step(
            id,
            "subscription",
            &[&in_stripe, terms.plan().as_str(), &trial.to_string(), &life],
        );
        let trial = (trial > 0).then_some(trial);
        let subscription = self.subscribe(&in_stripe, &prices, trial, &metadata, &key).await?;
        let no_period = || Error::Refused("the new subscription has no items".to_owned());
        let item = subscription.items.first().ok_or_else(no_period)?;
        let cycle = Cycle {
            anchor: second(subscription.billing_cycle_anchor),
            interval: terms.price.interval,
            current: Period {
                start: second(item.current_period_start),
                end: second(item.current_period_end),
            },
            cuts: Vec::new(),
        };
        match known {
            Some(_) => self.revive(&sale, cycle, in_stripe, subscription.id).await?,
            None => {
                let new = NewCustomer {
                    id: sale.id.clone(),
                    name: sale.name,
                    tier: sale.tier,
                    catalog: sale.catalog,
                    overrides: sale.overrides,
                    cycle,
                    contact: sale.contact,
                    stripe_customer: Some(in_stripe),
                    stripe_subscription: Some(subscription.id),
                };
                control.add_customer(new, self.now()).await?;
            }
        }
        // The first payment may be open.
        Ok(self.follow(&sale.id, None).await?.customer)
    }

    /// Makes the customer in Stripe. One that was made behind a 5xx is left alone there: without a subscription it pays nothing.
    async fn create_customer(
        &self,
        name: &str,
        email: Option<&str>,
        metadata: &HashMap<String, String>,
        key: &str,
    ) -> Result<String, Error> {
        for key in names(key) {
            match self.stripe.create_customer(name, email, metadata.clone(), &key).await {
                Err(farebox_stripe::Error::ServerFault { replayed: true, .. }) => {}
                answer => return Ok(answer?.id),
            }
        }
        Err(spent(key))
    }

    /// Subscribes the customer, who has no other living subscription: one that was made behind a 5xx is found before another is
    /// asked for.
    async fn subscribe(
        &self,
        in_stripe: &str,
        prices: &PlanPrices,
        trial: Option<u32>,
        metadata: &HashMap<String, String>,
        key: &str,
    ) -> Result<Subscription, Error> {
        let all = prices.all();
        for key in names(key) {
            let created = self
                .stripe
                .create_subscription(in_stripe, &all, trial, metadata.clone(), &key);
            match created.await {
                Err(farebox_stripe::Error::ServerFault { replayed: true, .. }) => {}
                answer => return Ok(answer?),
            }
            let made = self.stripe.subscriptions_of(in_stripe).await?;
            let is_it = |found: &Subscription| {
                found.ended_at.is_none() && found.items.iter().any(|item| item.price == prices.base)
            };
            if let Some(found) = made.into_iter().find(is_it) {
                return Ok(found);
            }
        }
        Err(spent(key))
    }

    /// A customer whose subscription had ended has a new one.
    async fn revive(&self, sale: &Sale, cycle: Cycle, in_stripe: String, subscription: String) -> Result<(), Error> {
        let now = self.now();
        for _ in 0..TRIES_MAX {
            let seen = self.customer(&sale.id).await?;
            let mut changed = seen.clone();
            let from = now.s().max(cycle.current.start);
            let phase = self
                .control()
                .phase(from, &sale.tier, sale.catalog, sale.overrides.clone())
                .await?;
            changed.cycle = Cycle {
                cuts: seen.cycle.cuts.clone(),
                ..cycle.clone()
            };
            changed
                .begin(phase, now.s())
                .map_err(|e| Error::Refused(e.to_string()))?;
            changed.offered = None;
            changed.ends = None;
            changed.is_leaving = false;
            changed.standing = Standing::Good;
            changed.stripe_customer = Some(in_stripe.clone());
            changed.stripe_subscription = Some(subscription.clone());
            changed.name.clone_from(&sale.name);
            if sale.contact != Contact::default() {
                changed.contact = sale.contact.clone();
            }
            if self.control().store(&seen, changed, None, now).await?.is_some() {
                return Ok(());
            }
        }
        Err(contended(&sale.id))
    }
}

/// Names a step of a sale to Stripe, with what it asks for.
fn step(id: &CustomerId, what: &str, asked: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in asked {
        digest.update(part.len().to_be_bytes());
        digest.update(part.as_bytes());
    }
    let digest: String = digest.finalize()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("farebox-{id}-{what}-{digest}")
}

/// The names that a step has for Stripe, one after the other: Stripe keeps a 5xx under its name and repeats it for a day
/// (<https://docs.stripe.com/api/idempotent_requests>). Whoever does the step again passes those by, and asks once under the
/// next.
fn names(key: &str) -> impl Iterator<Item = String> {
    let later = (1..NAMES_MAX).map(move |n| format!("{key}-{n}"));
    std::iter::once(key.to_owned()).chain(later)
}

fn spent(key: &str) -> Error {
    Error::Refused(format!(
        "Stripe has failed {NAMES_MAX} times at {key}; try again tomorrow"
    ))
}

/// Whether a customer is turned away beyond some number of units of a period.
fn has_hard_quota(terms: &Terms) -> bool {
    let is_limited = terms.included.values().any(Option::is_some);
    let is_group_limited = terms.groups.iter().any(|group| group.included.is_some());
    !terms.cap_units.is_empty() || is_group_limited || (is_limited && terms.at_quota != AtQuota::Overage)
}

/// A wait, rounded up to whole minutes, as it is told.
fn minutes(s: u64) -> String {
    match s.div_ceil(60) {
        0 | 1 => "a minute".to_owned(),
        n => format!("{n} minutes"),
    }
}

fn contended(id: &CustomerId) -> Error {
    Error::Refused(format!("{id} is being changed by others; try again"))
}

/// When a change begins to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// From the next request on. The base price is prorated; units up to now cost what they did.
    Now,
    /// With the next billing period, without anything to prorate.
    PeriodEnd,
}

/// A tier that a customer changes to.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The tier.
    pub tier: String,
    /// The catalog's version.
    pub catalog: u64,
    /// What was agreed.
    pub overrides: Overrides,
    /// When it begins to hold.
    pub when: When,
}

/// Stripe takes at most 20 prices on a subscription (<https://docs.stripe.com/billing/subscriptions/multiple-products>).
const ITEMS_MAX: usize = 20;
/// So many grants of a period fit a record comfortably.
const GRANTS_MAX: usize = 100;
/// How often a step is tried again when somebody else changed the customer meanwhile.
const TRIES_MAX: u32 = 8;

impl Books {
    /// Changes a customer's tier.
    ///
    /// Whoever is to leave stays: a cancellation that was asked for, at once or at the period's end, is taken back, also by the tier
    /// that holds already.
    ///
    /// What is wanted is written down first, then Stripe is asked, then it begins: at once from the second on at which Stripe
    /// has the new prices. Whoever finds the new base price on the subscription can finish what somebody else began, so a crash
    /// on the way leaves nothing half done for longer than the next webhook takes. The old plan's metered prices stay on the
    /// subscription until the period's invoice is final: late reports find them.
    ///
    /// # Errors
    /// [`Error::Refused`] if the subscription has ended or the tier is billed over another interval; else at the first step
    /// that fails. Repeating is safe.
    pub async fn change_tier(&self, id: &CustomerId, offer: Offer) -> Result<Customer, Error> {
        let control = self.control();
        let now = self.now();
        let customer = self.customer(id).await?;
        if customer.standing == Standing::Ended {
            return Err(Error::Refused(format!(
                "the subscription of {id} has ended: sell it a tier anew with `farebox customers add {id} --tier {}`",
                offer.tier
            )));
        }
        let terms = control.terms_of(offer.catalog, &offer.tier, &offer.overrides).await?;
        if terms.price.interval != customer.cycle.interval {
            return Err(Error::Refused(format!(
                "{} is billed per {}, {id} is billed per {}: cancel at the period's end and sell it the tier then",
                offer.tier, terms.price.interval, customer.cycle.interval
            )));
        }
        let in_force = customer.phase_at(now.s());
        let overrides = keep_caps(offer.overrides, &in_force.overrides, &terms);
        let mut phase = control.phase(0, &offer.tier, offer.catalog, overrides).await?;
        if offer.when == When::PeriodEnd {
            phase.from = customer.cycle.period_at(now.s()).end;
        }
        // The parts of a quota are of so many items: others would begin anew in the middle of the period, or be forgotten.
        let held = control
            .terms_of(in_force.catalog, &in_force.tier, &in_force.overrides)
            .await?;
        let is_hard = [&held, &terms].into_iter().any(has_hard_quota);
        if offer.when == When::Now && phase.plan == in_force.plan && held.shards != terms.shards && is_hard {
            return Err(Error::Refused(format!(
                "{id} has a quota or a cap that is divided among {} shards: change to {} shards at the period's end",
                held.shards, terms.shards
            )));
        }
        // Before Stripe is asked for what the record would not take.
        let trial = Phase {
            from: phase.from.max(now.s()),
            ..phase.clone()
        };
        customer
            .clone()
            .begin(trial, now.s())
            .map_err(|e| Error::Refused(e.to_string()))?;
        let Some(subscription) = customer.stripe_subscription.clone() else {
            return self.begin(id, &phase).await;
        };
        let prices = self.ensure_plan(&terms).await?;
        let offered = control
            .change(id, now, |customer| {
                customer.offered = Some(phase.clone());
                Ok(())
            })
            .await?;
        let key = format!("farebox-{id}-change-{}", offered.auth_epoch);
        let mut found = self.stripe.subscription(&subscription).await?;
        // A change that waits has its price there already, unprorated. What is prorated now is what was paid.
        if offer.when == When::Now {
            found = self.sell_what_holds(&offered, found, &key).await?;
        }
        let mut items = Vec::new();
        match base_item(&found)? {
            Some(base) if base.price == prices.base => {}
            Some(base) => items.push(ItemChange::Replace {
                item: base.id.clone(),
                price: prices.base.clone(),
            }),
            None => items.push(ItemChange::Add {
                price: prices.base.clone(),
            }),
        }
        let missing = prices
            .metered
            .values()
            .filter(|price| !found.items.iter().any(|item| item.price == **price));
        items.extend(missing.map(|price| ItemChange::Add { price: price.clone() }));
        let added = items
            .iter()
            .filter(|item| matches!(item, ItemChange::Add { .. }))
            .count();
        if found.items.len() + added > ITEMS_MAX {
            return Err(Error::Refused(format!(
                "the subscription of {id} would have more than {ITEMS_MAX} prices; change the tier after this period is invoiced"
            )));
        }
        if !items.is_empty() || found.cancel_at_period_end {
            let update = SubscriptionUpdate {
                items,
                proration: match offer.when {
                    When::Now => Proration::CreateProrations,
                    When::PeriodEnd => Proration::None,
                },
                // Whoever is sold a tier stays.
                cancel_at_period_end: found.cancel_at_period_end.then_some(false),
                // Else a free tier's period would end with the upgrade.
                billing_cycle_anchor: Some(CycleAnchor::Unchanged),
                ..SubscriptionUpdate::default()
            };
            let updated = self.stripe.update_subscription(&subscription, &update, &key).await?;
            // Stripe counts a metered price from the second on at which it was added, by its own clock.
            let added = updated.items.iter().map(|item| second(item.created)).max().unwrap_or(0);
            if offer.when == When::Now {
                phase.from = added;
            }
        }
        self.begin(id, &phase).await
    }

    /// Gives the subscription the base price of the plan in force, where one that waits for the period's end stands in its
    /// place. Nothing was prorated then, nothing is now.
    async fn sell_what_holds(
        &self,
        customer: &Customer,
        found: Subscription,
        key: &str,
    ) -> Result<Subscription, Error> {
        let now = self.now().s();
        let Some(ahead) = customer.phase_after(now) else {
            return Ok(found);
        };
        let in_force = &customer.phase_at(now).plan;
        let Some(base) = base_item(&found)? else {
            return Ok(found);
        };
        if ahead.plan == *in_force || base.lookup_key.as_deref() != Some(ahead.plan.base_lookup_key().as_str()) {
            return Ok(found);
        }
        let Some(price) = self.stripe.find_price(&in_force.base_lookup_key()).await? else {
            return Err(Error::Refused(format!(
                "Stripe has no price {}",
                in_force.base_lookup_key()
            )));
        };
        let update = SubscriptionUpdate {
            items: vec![ItemChange::Replace {
                item: base.id.clone(),
                price: price.id,
            }],
            proration: Proration::None,
            billing_cycle_anchor: Some(CycleAnchor::Unchanged),
            ..SubscriptionUpdate::default()
        };
        let key = format!("{key}-back");
        Ok(self.stripe.update_subscription(&found.id, &update, &key).await?)
    }

    /// Lets a phase begin, where it has not begun already; one that says 0 begins now.
    async fn begin(&self, id: &CustomerId, phase: &Phase) -> Result<Customer, Error> {
        let now = self.now();
        let from = if phase.from > now.s() { phase.from } else { now.s() };
        let phase = Phase { from, ..phase.clone() };
        for _ in 0..TRIES_MAX {
            let seen = self.customer(id).await?;
            let mut changed = seen.clone();
            // Somebody else's offer is theirs to finish.
            changed.offered = changed.offered.filter(|offered| offered.plan != phase.plan);
            changed.ends = None;
            changed.is_leaving = false;
            let is_same = |known: &Phase| {
                Phase {
                    from: 0,
                    ..known.clone()
                } == Phase {
                    from: 0,
                    ..phase.clone()
                }
            };
            let has_begun = match changed.phase_after(now.s()) {
                Some(ahead) => is_same(ahead) && ahead.from == phase.from,
                None => is_same(changed.phase_at(now.s())),
            };
            if !has_begun {
                if is_same(changed.phase_at(now.s())) {
                    changed.drop_change_ahead(now.s());
                } else {
                    changed
                        .begin(phase.clone(), now.s())
                        .map_err(|e| Error::Refused(e.to_string()))?;
                }
            }
            if changed == seen {
                return Ok(seen);
            }
            if let Some(stored) = self.control().store(&seen, changed, None, now).await? {
                return Ok(stored);
            }
        }
        Err(contended(id))
    }

    /// Ends a customer's subscription.
    ///
    /// At once: nobody is let in any more, everything counted so far is reported, and only when Stripe shows all of it is the
    /// subscription ended and its last invoice made: what Stripe has not seen by then it would never bill. At the period's end
    /// nobody is let in from that second on.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is no subscription, or as long as Stripe does not show all usage: repeat it later.
    pub async fn cancel(&self, id: &CustomerId, when: When) -> Result<Customer, Error> {
        let control = self.control();
        let now = self.now();
        let customer = self.customer(id).await?;
        let none = || Error::Refused(format!("{id} has no subscription"));
        let subscription = customer.stripe_subscription.clone().ok_or_else(none)?;
        let end = customer.cycle.period_at(now.s()).end;
        if when == When::PeriodEnd {
            let update = SubscriptionUpdate {
                cancel_at_period_end: Some(true),
                proration: Proration::None,
                ..SubscriptionUpdate::default()
            };
            // It may be asked for any number of times, and a name that got a 5xx is spent for a day.
            let key = format!("farebox-{id}-cancel-{end}-{}", self.accounts.random().token()?);
            self.stripe.update_subscription(&subscription, &update, &key).await?;
            return Ok(control
                .change(id, now, |customer| {
                    customer.ends = Some(end);
                    // Who began to leave at once is let in again: the subscription is paid until then.
                    customer.is_leaving = false;
                    Ok(())
                })
                .await?);
        }
        let ended = control
            .change(id, now, |customer| {
                customer.ends = Some(customer.ends.unwrap_or(u64::MAX).min(now.s()));
                customer.is_leaving = true;
                Ok(())
            })
            .await?;
        // Nobody is let in any more: what was counted until then, by clocks that were ahead too, is all there is.
        self.close(&ended, u64::MAX).await?;
        self.all_is_in_stripe(&ended).await?;
        let found = self.stripe.subscription(&subscription).await?;
        if found.ended_at.is_none() {
            let key = format!("farebox-{id}-cancel-{subscription}-{}", ended.auth_epoch);
            self.sell_what_holds(&ended, found, &key).await?;
        }
        let key = format!("farebox-{id}-cancel-{subscription}");
        match self.stripe.cancel_subscription(&subscription, true, true, &key).await {
            Ok(_) => {}
            // It ended already: by an earlier call, or by somebody else.
            Err(farebox_stripe::Error::Rejected { status: 404, .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(control
            .change(id, now, |customer| {
                customer.standing = Standing::Ended;
                Ok(())
            })
            .await?)
    }

    /// Whether Stripe's own sums hold all that the ledger has since the period began in which the customer left.
    async fn all_is_in_stripe(&self, customer: &Customer) -> Result<(), Error> {
        let now = self.now();
        let period = customer
            .cycle
            .period_at(customer.ends.map_or(now.s(), |ends| ends.min(now.s())));
        let mut reported: BTreeMap<String, u64> = BTreeMap::new();
        let mut last = now.s();
        for row in self.ledger.rows_of(&customer.id, period.start, u64::MAX).await? {
            match (row.state, row.report) {
                (RowState::Reported, report) => {
                    if let Some(report) = report {
                        *reported.entry(report.event_name).or_insert(0) += report.value;
                        last = last.max(report.timestamp);
                    }
                }
                (RowState::Parked, _) => {
                    let why = row.outcome.unwrap_or_default();
                    let text = format!(
                        "row {} is parked ({why}): farebox stripe repair, then try again",
                        row.key
                    );
                    return Err(Error::Refused(text));
                }
                (state, _) => {
                    let wait = minutes(row.due.saturating_sub(now.s()));
                    let text = format!("row {} is still {}: try again in {wait}", row.key, state.as_str());
                    return Err(Error::Refused(text));
                }
            }
        }
        for (event_name, units) in reported {
            let in_stripe = customer.stripe_customer.as_deref().unwrap_or_default();
            let Some(meter) = self.stripe.find_meter(&event_name).await? else {
                return Err(Error::Refused(format!("Stripe has no meter {event_name}")));
            };
            // A window of whole minutes that holds the whole period so far.
            let (start, end) = (period.start / 60 * 60, (last + 60) / 60 * 60);
            let shown = self
                .stripe
                .event_summary(&meter.id, in_stripe, seconds(start), seconds(end))
                .await?;
            if shown < units {
                let text =
                    format!("Stripe shows {shown} of {units} units of {event_name} so far: try again in a minute");
                return Err(Error::Refused(text));
            }
        }
        Ok(())
    }

    /// Gives units for the running period: they raise what the plan in force includes, and as many are taken off what is reported
    /// to Stripe from now on; what the period does not use is taken off later ones. What is reported already stays billed. The id
    /// names the grant for good: giving it again changes nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] if the id gave something else, or in an earlier period; else [`Error`] at the first step that fails.
    /// Repeating is safe.
    pub async fn grant(&self, id: &CustomerId, meter: &str, units: u64, grant_id: &str) -> Result<Customer, Error> {
        check_grant_id(grant_id)?;
        if units == 0 || units > farebox_core::message::UNITS_MAX {
            return Err(Error::Refused("a grant is 1 to 999999999999999 units".to_owned()));
        }
        let now = self.now();
        let customer = self.customer(id).await?;
        let terms = self.control().terms(&customer, now).await?;
        check_meter(&terms, meter)?;
        let period = customer.cycle.period_at(now.s());
        let is_known = |grant: &Grant| grant.id == grant_id && grant.meter == meter;
        let is_full = |customer: &Customer| {
            let of_period = customer.grants.iter().filter(|grant| grant.period >= period.start);
            !customer.grants.iter().any(is_known) && of_period.count() >= GRANTS_MAX
        };
        let too_many = format!("{GRANTS_MAX} grants were given in this period; give more at once");
        // Before anything is given: what is given and not in the record raises no quota.
        if is_full(&customer) {
            return Err(Error::Refused(too_many));
        }
        let given = self.ledger.grant(id, meter, grant_id, units, period.start).await?;
        let is_of_period = match given.period {
            Some(start) => period.contains(start),
            None => customer
                .grants
                .iter()
                .any(|grant| is_known(grant) && period.contains(grant.period)),
        };
        if given.units != units || !is_of_period {
            return Err(Error::Refused(format!(
                "the grant {grant_id} gave {id} {} units of {meter}{}: another grant needs another id",
                given.units,
                if is_of_period {
                    ""
                } else {
                    " in an earlier billing period"
                }
            )));
        }
        Ok(self
            .control()
            .change(id, now, |customer| {
                let period = customer.cycle.period_at(now.s()).start;
                // Those of ended periods have done what they can.
                customer
                    .grants
                    .retain(|grant| grant.period >= period || grant.id == grant_id);
                if !customer.grants.iter().any(is_known) {
                    if is_full(customer) {
                        return Err(farebox_aws::Error::Refused(too_many.clone()));
                    }
                    let plan = customer.phase_at(now.s()).plan.clone();
                    customer.grants.push(Grant {
                        id: grant_id.to_owned(),
                        meter: meter.to_owned(),
                        units,
                        period,
                        plan,
                    });
                }
                Ok(())
            })
            .await?)
    }

    /// Changes where a customer's alerts go, and with it where Stripe sends invoices: the record first, then Stripe is told what
    /// it says.
    ///
    /// # Errors
    /// [`Error`] at the first step that fails; repeating is safe.
    pub async fn contact(&self, id: &CustomerId, change: impl Fn(&mut Contact)) -> Result<Customer, Error> {
        let customer = self
            .control()
            .change(id, self.now(), |customer| {
                change(&mut customer.contact);
                Ok(())
            })
            .await?;
        self.tell_contact(customer).await
    }

    /// The second half of [`Self::contact`], for a record that is stored already.
    ///
    /// # Errors
    /// [`Error`] at the first step that fails; repeating [`Self::contact`] is safe.
    pub async fn tell_contact(&self, mut customer: Customer) -> Result<Customer, Error> {
        let id = &customer.id.clone();
        for _ in 0..TRIES_MAX {
            let Some(in_stripe) = &customer.stripe_customer else {
                return Ok(customer);
            };
            // An empty address takes the one that is there away.
            let email = customer.contact.email.clone().unwrap_or_default();
            let key = step(id, "email", &[in_stripe, &email, &customer.auth_epoch.to_string()]);
            let update = CustomerUpdate {
                email: Some(email),
                ..CustomerUpdate::default()
            };
            self.stripe.update_customer(in_stripe, &update, &key).await?;
            // Somebody else's change may have reached Stripe before this one.
            let now = self.customer(id).await?;
            if now.contact.email == customer.contact.email {
                return Ok(now);
            }
            customer = now;
        }
        Err(contended(id))
    }

    /// Caps what a meter's usage may cost in a billing period, or takes the cap away, from the next request on.
    ///
    /// # Errors
    /// [`Error::Refused`] if the tier in force has no such meter; [`Error::Table`] if the customer's terms do not go with the cap,
    /// which needs an overage price.
    pub async fn cap(&self, id: &CustomerId, meter: &str, cap: Option<Money>) -> Result<Customer, Error> {
        let now = self.now();
        for _ in 0..TRIES_MAX {
            let seen = self.customer(id).await?;
            check_meter(&self.control().terms(&seen, now).await?, meter)?;
            let mut changed = seen.clone();
            let in_force = seen.phase_at(now.s()).from;
            let offered = changed.offered.iter_mut();
            for phase in changed
                .phases
                .iter_mut()
                .filter(|phase| phase.from >= in_force)
                .chain(offered)
            {
                let terms = self
                    .control()
                    .terms_of(phase.catalog, &phase.tier, &phase.overrides)
                    .await?;
                // A tier to come that has nothing to cap goes without; the one in force says why it can't be.
                if !terms.overage.contains_key(meter) && phase.from != in_force {
                    continue;
                }
                let mut caps = terms.spend_cap;
                match cap {
                    Some(cap) => caps.insert(meter.to_owned(), cap),
                    None => caps.remove(meter),
                };
                phase.overrides.spend_cap = Some(caps);
            }
            if let Some(stored) = self.control().store(&seen, changed, None, now).await? {
                return Ok(stored);
            }
        }
        Err(contended(id))
    }

    /// A customer's record.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is none.
    pub async fn customer(&self, id: &CustomerId) -> Result<Customer, Error> {
        let none = || Error::Refused(format!("there is no customer {id}"));
        self.accounts.customer(id).await?.ok_or_else(none)
    }
}

/// Whether a text can name a grant.
///
/// # Errors
/// [`Error::Refused`] if it can't.
pub fn check_grant_id(text: &str) -> Result<(), Error> {
    let is_fine = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    match (1..=64).contains(&text.len()) && text.bytes().all(is_fine) {
        true => Ok(()),
        false => Err(Error::Refused(
            "a grant's id is 1 to 64 letters, digits, '.', '_' or '-'".to_owned(),
        )),
    }
}

/// Whether a tier has a meter: what is given or capped on another one would never be used.
///
/// # Errors
/// [`Error::Refused`] if it has not, with those that it has.
pub fn check_meter(terms: &Terms, meter: &str) -> Result<(), Error> {
    let known = terms.meters();
    match known.iter().any(|known| known == meter) {
        true => Ok(()),
        false => Err(Error::Refused(format!(
            "tier {} has no meter {meter}; it has {}",
            terms.tier,
            known.join(", ")
        ))),
    }
}

/// The item with the base price; `None` if there is no flat price at all.
fn base_item(subscription: &Subscription) -> Result<Option<&SubscriptionItem>, Error> {
    let ours = |item: &&SubscriptionItem| {
        item.lookup_key
            .as_deref()
            .is_some_and(|key| key.starts_with("farebox_base_"))
    };
    if let Some(item) = subscription.items.iter().find(ours) {
        return Ok(Some(item));
    }
    let mut flat = subscription.items.iter().filter(|item| !item.is_metered);
    match (flat.next(), flat.next()) {
        (found, None) => Ok(found),
        (Some(_), Some(_)) => Err(Error::Refused(format!(
            "subscription {} has several flat prices and none of them is a tier's",
            subscription.id
        ))),
        (None, Some(_)) => Ok(None),
    }
}

/// A customer's own spend caps go with it to a tier that has something to cap, unless others are agreed.
#[must_use]
pub fn keep_caps(mut overrides: Overrides, before: &Overrides, terms: &Terms) -> Overrides {
    if let (None, Some(own)) = (&overrides.spend_cap, &before.spend_cap) {
        let kept = own.iter().filter(|(meter, _)| terms.overage.contains_key(*meter));
        let mut caps = terms.spend_cap.clone();
        caps.extend(kept.map(|(meter, cap)| (meter.clone(), *cap)));
        if caps != terms.spend_cap {
            overrides.spend_cap = Some(caps);
        }
    }
    overrides
}

fn second(s: i64) -> u64 {
    u64::try_from(s).unwrap_or(0)
}
