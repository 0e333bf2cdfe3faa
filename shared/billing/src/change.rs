//! A customer is sold a tier, changes it, is given units, is capped, or leaves.

use std::collections::HashMap;

use farebox_aws::control::NewCustomer;
use farebox_core::{
    account::{Contact, Customer, Grant, Phase, Standing},
    id::CustomerId,
    ledger::RowState,
    money::Money,
    tiers::Overrides,
    time::{Cycle, Period},
};
use farebox_stripe::{CycleAnchor, ItemChange, Proration, SubscriptionUpdate};

use crate::{Books, Error};

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
    /// Sells a tier to a new customer: its plan in Stripe where it is missing, the customer, its subscription, its record and
    /// its counter items. Every step names itself to Stripe, so that selling again after a crash doubles nothing.
    ///
    /// # Errors
    /// [`Error`] at the first step that fails; selling again goes on from there. [`Error::Table`] if the id is taken.
    pub async fn sell(&self, sale: Sale) -> Result<Customer, Error> {
        let control = self.control();
        let terms = control.terms_of(sale.catalog, &sale.tier, &sale.overrides).await?;
        if self.accounts.customer(&sale.id).await?.is_some() {
            return Err(Error::Refused(format!("customer {} exists already", sale.id)));
        }
        let prices = self.ensure_plan(&terms).await?;
        let id = &sale.id;
        let step = |what: &str| format!("farebox-{id}-{what}");
        let metadata = HashMap::from([(CUSTOMER_KEY.to_owned(), id.to_string())]);
        let email = sale.contact.email.as_deref();
        let in_stripe = self
            .stripe
            .create_customer(&sale.name, email, metadata.clone(), &step("customer"))
            .await?;
        let trial = sale.trial_days.unwrap_or(terms.trial_days);
        let subscription = self
            .stripe
            .create_subscription(
                &in_stripe.id,
                &prices.all(),
                (trial > 0).then_some(trial),
                metadata,
                &step("subscription"),
            )
            .await?;
        let no_period = || Error::Refused("the new subscription has no items".to_owned());
        let item = subscription.items.first().ok_or_else(no_period)?;
        let new = NewCustomer {
            id: sale.id.clone(),
            name: sale.name,
            tier: sale.tier,
            catalog: sale.catalog,
            overrides: sale.overrides,
            cycle: Cycle {
                anchor: second(subscription.billing_cycle_anchor),
                interval: terms.price.interval,
                current: Period {
                    start: second(item.current_period_start),
                    end: second(item.current_period_end),
                },
                cuts: Vec::new(),
            },
            contact: sale.contact,
            stripe_customer: Some(in_stripe.id),
            stripe_subscription: Some(subscription.id),
        };
        Ok(control.add_customer(new, self.now()).await?)
    }
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

/// How often a step is tried again when somebody else changed the customer meanwhile.
const TRIES_MAX: u32 = 8;

impl Books {
    /// Changes a customer's tier.
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
        let terms = control.terms_of(offer.catalog, &offer.tier, &offer.overrides).await?;
        let mut phase = control.phase(0, &offer.tier, offer.catalog, offer.overrides).await?;
        let customer = self.customer(id).await?;
        if customer.standing == Standing::Ended {
            return Err(Error::Refused(format!(
                "the subscription of {id} has ended; sell it a tier anew"
            )));
        }
        if terms.price.interval != customer.cycle.interval {
            return Err(Error::Refused(format!(
                "{} is billed per {}, {id} is billed per {}: cancel at the period's end and sell it the tier then",
                offer.tier, terms.price.interval, customer.cycle.interval
            )));
        }
        if offer.when == When::PeriodEnd {
            phase.from = customer.cycle.period_at(now.s()).end;
        }
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
        // Back to what holds already, while another tier waits for the period's end: nothing was prorated, nothing is now.
        let is_back = offered.phase_at(now.s()).plan == phase.plan;
        let found = self.stripe.subscription(&subscription).await?;
        let mut items = Vec::new();
        match found.items.iter().find(|item| !item.is_metered) {
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
        if !items.is_empty() {
            let update = SubscriptionUpdate {
                items,
                proration: match offer.when {
                    When::Now if !is_back => Proration::CreateProrations,
                    When::Now | When::PeriodEnd => Proration::None,
                },
                // Else a free tier's period would end with the upgrade.
                billing_cycle_anchor: Some(CycleAnchor::Unchanged),
                ..SubscriptionUpdate::default()
            };
            let key = format!("farebox-{id}-change-{}", offered.auth_epoch);
            let updated = self.stripe.update_subscription(&subscription, &update, &key).await?;
            // Stripe counts a metered price from the second on at which it was added, by its own clock.
            let added = updated.items.iter().map(|item| second(item.created)).max().unwrap_or(0);
            if offer.when == When::Now {
                phase.from = added;
            }
        }
        self.begin(id, &phase).await
    }

    /// Lets a phase begin, where it has not begun already; one that says 0 begins now.
    async fn begin(&self, id: &CustomerId, phase: &Phase) -> Result<Customer, Error> {
        let now = self.now();
        let from = if phase.from > now.s() { phase.from } else { now.s() };
        let phase = Phase { from, ..phase.clone() };
        for _ in 0..TRIES_MAX {
            let seen = self.customer(id).await?;
            let mut changed = seen.clone();
            changed.offered = None;
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
        Err(Error::Refused(format!("{id} is being changed by others; try again")))
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
            let key = format!("farebox-{id}-cancel-{end}-{}", customer.auth_epoch);
            self.stripe.update_subscription(&subscription, &update, &key).await?;
            return Ok(control
                .change(id, now, |customer| {
                    customer.ends = Some(end);
                    Ok(())
                })
                .await?);
        }
        let ended = control
            .change(id, now, |customer| {
                customer.ends = Some(customer.ends.unwrap_or(u64::MAX).min(now.s()));
                Ok(())
            })
            .await?;
        self.close(&ended, now.s() + 1).await?;
        self.all_is_in_stripe(&ended).await?;
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

    /// Whether Stripe's own sums of the running period hold all that the ledger has.
    async fn all_is_in_stripe(&self, customer: &Customer) -> Result<(), Error> {
        let now = self.now();
        let period = customer.cycle.period_at(now.s());
        let mut reported: HashMap<String, u64> = HashMap::new();
        for row in self.ledger.rows_of(&customer.id, period.start, now.s() + 1).await? {
            match (row.state, row.report) {
                (RowState::Reported, report) => {
                    if let Some(report) = report {
                        *reported.entry(report.event_name).or_insert(0) += report.value;
                    }
                }
                (state, _) => {
                    let text = format!("row {} is still {}: try again in a minute", row.key, state.as_str());
                    return Err(Error::Refused(text));
                }
            }
        }
        for (event_name, units) in reported {
            let in_stripe = customer.stripe_customer.as_deref().unwrap_or_default();
            let Some(meter) = self.stripe.find_meter(&event_name).await? else {
                return Err(Error::Refused(format!("Stripe has no meter {event_name}")));
            };
            let seconds = |s: u64| i64::try_from(s).unwrap_or(i64::MAX);
            // A window of whole minutes that holds the whole period so far.
            let (start, end) = (period.start / 60 * 60, (now.s() + 60) / 60 * 60);
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

    /// Gives units for the running period: they raise what is included, and as many are taken off the reports to Stripe; what
    /// the period does not use is taken off later ones. The id names the grant: giving it again changes nothing.
    ///
    /// # Errors
    /// [`Error`] at the first step that fails; repeating is safe.
    pub async fn grant(&self, id: &CustomerId, meter: &str, units: u64, grant_id: &str) -> Result<Customer, Error> {
        let is_name = |text: &str| {
            !text.is_empty()
                && text.len() <= 64
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        };
        if !is_name(grant_id) {
            return Err(Error::Refused(
                "a grant's id is 1 to 64 letters, digits, '.', '_' or '-'".to_owned(),
            ));
        }
        if units == 0 || units > farebox_core::message::UNITS_MAX {
            return Err(Error::Refused("a grant is 1 to 999999999999999 units".to_owned()));
        }
        let now = self.now();
        let terms = self.control().terms(&self.customer(id).await?, now).await?;
        if !terms.meters().iter().any(|known| known == meter) {
            let known = terms.meters().join(", ");
            return Err(Error::Refused(format!(
                "tier {} has no meter {meter}; it has {known}",
                terms.tier
            )));
        }
        self.ledger.grant(id, meter, grant_id, units).await?;
        Ok(self
            .control()
            .change(id, now, |customer| {
                let period = customer.cycle.period_at(now.s()).start;
                // Those of ended periods have done what they can.
                customer
                    .grants
                    .retain(|grant| grant.period >= period || grant.id == grant_id);
                if !customer.grants.iter().any(|grant| grant.id == grant_id) {
                    customer.grants.push(Grant {
                        id: grant_id.to_owned(),
                        meter: meter.to_owned(),
                        units,
                        period,
                    });
                }
                Ok(())
            })
            .await?)
    }

    /// Caps what a meter's usage may cost in a billing period, or takes the cap away, from the next request on.
    ///
    /// # Errors
    /// [`Error::Table`] if the customer's terms do not go with it: a cap needs an overage price.
    pub async fn cap(&self, id: &CustomerId, meter: &str, cap: Option<Money>) -> Result<Customer, Error> {
        let now = self.now();
        let customer = self.customer(id).await?;
        let terms = self.control().terms(&customer, now).await?;
        let mut caps = terms.spend_cap;
        match cap {
            Some(cap) => caps.insert(meter.to_owned(), cap),
            None => caps.remove(meter),
        };
        Ok(self
            .control()
            .change(id, now, |customer| {
                let in_force = customer.phase_at(now.s()).from;
                for phase in customer.phases.iter_mut().filter(|phase| phase.from >= in_force) {
                    phase.overrides.spend_cap = Some(caps.clone());
                }
                Ok(())
            })
            .await?)
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

fn second(s: i64) -> u64 {
    u64::try_from(s).unwrap_or(0)
}
