//! `farebox customers`: who pays, and for what.

use std::path::Path;

use farebox_aws::{control::NewKey, random::Random};
use farebox_billing::{Offer, Sale, When, check_meter, keep_caps};
use farebox_core::{
    account::{Contact, Customer, Phase, Standing},
    id::CustomerId,
    tiers::{Overrides, PastDue, PastDuePolicy, PlanId, Terms, parse_amount},
};
use serde_json::{Value, json};

use crate::{
    arguments::{AddCustomer, Customers, name},
    contact::{self, address, callable, secret, show_secret, show_stored},
    ended_in,
    failure::{Done, Failure},
    follow,
    keys::{show_issued, would, would_not},
    reach::Reach,
    show::{Out, count, plain, time},
    tiers::{ask, read},
};

pub(crate) async fn run(command: Customers, reach: &Reach, out: Out) -> Result<Done, Failure> {
    match command {
        Customers::Add(new) => add(new, reach, out).await,
        Customers::Show { id } => {
            let customer = reach.customer(&id.0).await?;
            show(&customer, None, reach, out).await
        }
        Customers::List => list(reach, out).await,
        Customers::SetTier {
            id,
            tier,
            at_period_end,
            catalog,
            r#override,
            trial,
        } => {
            let customer = reach.customer(&id.0).await?;
            let offer = offer(&customer, tier, catalog, r#override.as_deref(), at_period_end, reach).await?;
            let taken_back = taken_back(&customer);
            if trial.dry_run {
                return would_sell(&customer, &offer, taken_back.as_ref(), reach, out).await;
            }
            let changed = reach.books().await?.change_tier(&id.0, offer).await?;
            show(&changed, taken_back.as_ref(), reach, out).await
        }
        Customers::Cancel {
            id,
            at_period_end,
            yes,
            trial,
        } => {
            let customer = reach.customer(&id.0).await?;
            let when = when(at_period_end);
            let has_ended = customer.standing == Standing::Ended;
            if trial.dry_run {
                let now = reach.now().s();
                let end = customer.cycle.period_at(now).end;
                return match customer.ends {
                    _ if has_ended => would_not(out, &format!("the subscription of {} has ended", id.0)),
                    Some(ends) if when == When::PeriodEnd && ends == end && !customer.is_leaving => {
                        would_not(out, &format!("{} is to end on {} already", id.0, time(ends)))
                    }
                    _ => {
                        let from = from(&customer, when, now);
                        would(out, &format!("end the subscription of {} {from}", id.0))
                    }
                };
            }
            if when == When::Now && !has_ended && !yes {
                let id = &id.0;
                ask(&format!(
                    "End the subscription of {id} now? That can't be taken back, unlike --at-period-end."
                ))?;
            }
            let changed = reach.books().await?.cancel(&id.0, when).await?;
            show(&changed, None, reach, out).await
        }
        Customers::Grant {
            id,
            units,
            meter,
            grant,
            trial,
        } => {
            let customer = reach.customer(&id.0).await?;
            not_ended(&customer, reach, "given units would never be used")?;
            // Before the grant is called anything.
            check_meter(&reach.control.terms(&customer, reach.now()).await?, &meter)?;
            let known = customer.grants.iter().find(|known| Some(&known.id) == grant.as_ref());
            if let Some(known) = known.filter(|known| known.units != units || known.meter != meter) {
                return Err(Failure::Failed(format!(
                    "the grant {} gave {} {} units of {} already: another grant needs another --id",
                    known.id, id.0, known.units, known.meter
                )));
            }
            if trial.dry_run {
                return would(out, &format!("give {} {units} units of {meter}", id.0));
            }
            let books = reach.books().await?;
            let grant = match grant {
                Some(grant) => grant,
                None => {
                    let made = format!("cli-{}", Random::system().token()?);
                    // Before anything is written: whoever is interrupted needs it, since under another id it is given twice.
                    out.aside(&format!(
                        "This grant is called {made}; should it fail or be interrupted, repeat it with --id {made}."
                    ));
                    made
                }
            };
            let changed = books.grant(&id.0, &meter, units, &grant).await;
            let changed = changed.map_err(|error| half_given(error, &grant))?;
            let granted = changed.granted(&meter, reach.now().s());
            let value = json!({ "customer": id.0, "grant": grant, "meter": meter, "granted_in_period": granted });
            out.show(&value, || {
                format!(
                    "{} has {granted} given units of {meter} in this billing period (grant {grant}).",
                    id.0
                )
            })?;
            Ok(Done::Well)
        }
        Customers::Cap {
            id,
            amount,
            meter,
            trial,
        } => {
            let customer = reach.customer(&id.0).await?;
            let terms = reach.control.terms(&customer, reach.now()).await?;
            check_meter(&terms, &meter)?;
            let currency = terms.currency;
            let cap = match amount.as_str() {
                "none" => None,
                amount => Some(parse_amount(amount, currency).map_err(|problem| {
                    // What a file would be told to write is no answer here.
                    let problem = problem.split(": write ").next().unwrap_or_default();
                    Failure::usage(format!(
                        "{amount:?} {problem}: write an amount of {currency} like 99.50, or none"
                    ))
                })?),
            };
            let shown = cap.map_or("no cap".to_owned(), |cap| cap.display(currency));
            if trial.dry_run {
                return would(out, &format!("set {} to {shown} on {meter}", id.0));
            }
            reach.books().await?.cap(&id.0, &meter, cap).await?;
            let value = json!({ "customer": id.0, "meter": meter, "cap": cap, "currency": currency });
            out.show(&value, || {
                format!("{}: {shown} on {meter}, from the next request on.", id.0)
            })?;
            Ok(Done::Well)
        }
        Customers::Suspend { id, trial } => suspend(&id.0, true, trial.dry_run, reach, out).await,
        Customers::Resume { id, trial } => suspend(&id.0, false, trial.dry_run, reach, out).await,
        Customers::Follow { id, trial } => follow::run(id.map(|id| id.0), trial.dry_run, reach, out).await,
        Customers::Contact {
            id,
            email,
            webhook,
            rotate_webhook_secret,
            trial,
        } => {
            let change = contact::Change {
                email,
                webhook,
                rotate: rotate_webhook_secret,
            };
            contact::run(&id.0, change, trial.dry_run, reach, out).await
        }
    }
}

/// A grant that was refused was not given; one that failed may have been, in the ledger or in the record as well.
fn half_given(error: farebox_billing::Error, grant: &str) -> Failure {
    match error {
        farebox_billing::Error::Refused(why) => Failure::Failed(why),
        error => Failure::Failed(format!(
            "{}; what is given is given once, so repeat it with --id {grant}",
            Failure::from(error)
        )),
    }
}

async fn add(new: AddCustomer, reach: &Reach, out: Out) -> Result<Done, Failure> {
    let id = new.id.0;
    let catalog = newest(reach).await?;
    let overrides = new
        .r#override
        .as_deref()
        .map(agreement)
        .transpose()?
        .unwrap_or_default();
    let named = new.name.as_deref().map(name).transpose()?;
    reach.knows_tier(catalog, &new.tier).await?;
    let terms = reach.control.terms_of(catalog, &new.tier, &overrides).await?;
    let known = reach.control.accounts.customer(&id).await?;
    if known.as_ref().is_some_and(|known| known.standing != Standing::Ended) {
        return Err(Failure::Failed(format!(
            "customer {id} exists already: see `farebox customers show {id}`, or change it with `farebox customers set-tier`"
        )));
    }
    let mut contact = Contact {
        email: new.email.map(|email| address(&email)).transpose()?,
        webhook: new.webhook.map(|url| callable(&url, reach)).transpose()?,
        webhook_secrets: Vec::new(),
    };
    if new.trial.dry_run {
        let price = terms.price.amount.display(terms.currency);
        let trial = match new.trial_days.unwrap_or(terms.trial_days) {
            0 => String::new(),
            days => format!(
                ", after a trial of {}",
                count(usize::try_from(days).unwrap_or(usize::MAX), "day")
            ),
        };
        return would(
            out,
            &format!(
                "sell {id} {} (catalog {catalog}, {}) for {price} a {}{trial}",
                new.tier,
                terms.plan(),
                terms.price.interval
            ),
        );
    }
    if contact.webhook.is_some() {
        contact.webhook_secrets.push(secret()?);
    }
    let shown_once = contact.webhook_secrets.first().cloned();
    let sale = Sale {
        id: id.clone(),
        name: match (named, known) {
            (Some(name), _) => name.to_owned(),
            (None, Some(known)) => known.name,
            (None, None) => id.to_string(),
        },
        tier: new.tier,
        catalog,
        overrides,
        contact,
        trial_days: new.trial_days,
    };
    let customer = match reach.books().await?.sell(sale).await {
        Ok(customer) => customer,
        Err(error) => {
            let failure = Failure::from(error);
            return Err(match show_stored(&id, shown_once.as_ref(), reach, out).await? {
                true => Failure::Failed(format!(
                    "{failure}; {id} may be sold all the same, with the secret that is shown: see `farebox customers show {id}`"
                )),
                false => failure,
            });
        }
    };
    if !out.is_json {
        let phase = customer.phase_at(reach.now().s());
        let text = |id: &Option<String>| id.clone().unwrap_or_default();
        let mut told = format!(
            "{id} is sold {} ({}) for {} a {}.\nStripe: customer {}, subscription {}.\nBilling period: {} to {}.",
            phase.tier,
            phase.plan,
            terms.price.amount.display(terms.currency),
            terms.price.interval,
            text(&customer.stripe_customer),
            text(&customer.stripe_subscription),
            time(customer.cycle.current.start),
            time(customer.cycle.current.end)
        );
        if let Some(end) = trial_ends(&customer, reach.now().s()) {
            told.push_str(&format!("\nTrial until {}: nothing is charged before.", time(end)));
        }
        match new.key {
            // The key stays alone on stdout.
            true => out.aside(&told),
            false => out.line(&told)?,
        }
        // Before anything else can fail.
        if let Some(secret) = &shown_once {
            show_secret(record(&customer), secret, out)?;
        }
    }
    let mut issued = None;
    if new.key {
        let key = NewKey {
            brand: new.brand.brand,
            mode: reach.key_mode(false),
            name: "first key".to_owned(),
            scopes: Vec::new(),
            expires: None,
        };
        issued = Some(reach.control.issue_key(&id, key, reach.now()).await);
    }
    let (issued, failure) = match issued {
        Some(Ok(issued)) => (Some(issued), None),
        Some(Err(error)) => (None, Some(Failure::from(error))),
        None => (None, None),
    };
    if out.is_json {
        let mut value = record_at(&customer, reach.now().s());
        let mut secrets: Vec<&str> = Vec::new();
        if let Some(secret) = &shown_once {
            value["webhook_secret"] = json!(secret.reveal());
            secrets.push(secret.reveal());
        }
        if let Some(issued) = &issued {
            value["key"] = json!(issued.key.reveal());
            secrets.push(issued.key.reveal());
        }
        out.reveal(&value, String::new, &secrets)?;
    } else if let Some(issued) = &issued {
        show_issued(issued, &[], out)?;
    }
    match failure {
        None => Ok(Done::Well),
        Some(failure) => Err(Failure::Failed(format!(
            "{failure}; {id} is sold, and has no key yet: `farebox keys issue {id}`"
        ))),
    }
}

async fn offer(
    customer: &Customer,
    tier: String,
    catalog: Option<u64>,
    r#override: Option<&Path>,
    at_period_end: bool,
    reach: &Reach,
) -> Result<Offer, Failure> {
    let catalog = match catalog {
        Some(catalog) => catalog,
        None => newest(reach).await?,
    };
    if reach.control.accounts.catalog(catalog).await?.is_none() {
        let newest = newest(reach).await?;
        return Err(Failure::NotFound(format!(
            "there is no catalog {catalog}; the newest is {newest}"
        )));
    }
    reach.knows_tier(catalog, &tier).await?;
    if customer.standing == Standing::Ended {
        let id = &customer.id;
        return Err(Failure::Failed(format!(
            "the subscription of {id} has ended: sell it a tier anew with `farebox customers add {id} --tier {tier}`"
        )));
    }
    let phase = customer.phase_at(reach.now().s());
    let overrides = match r#override {
        Some(file) => agreement(file)?,
        None if phase.tier == tier => phase.overrides.clone(),
        None => Overrides::default(),
    };
    let terms = reach.control.terms_of(catalog, &tier, &overrides).await?;
    // As the change does it.
    let overrides = keep_caps(overrides, &phase.overrides, &terms);
    Ok(Offer {
        tier,
        catalog,
        overrides,
        when: when(at_period_end),
    })
}

/// What a change of the tier would do.
async fn would_sell(
    customer: &Customer,
    offer: &Offer,
    taken_back: Option<&TakenBack>,
    reach: &Reach,
    out: Out,
) -> Result<Done, Failure> {
    let (id, now) = (&customer.id, reach.now().s());
    let terms = reach.control.terms_of(offer.catalog, &offer.tier, &offer.overrides);
    let plan = terms.await?.plan();
    let sold = format!("{} (catalog {}, {plan})", offer.tier, offer.catalog);
    if holds_already(customer, offer, &plan, now) {
        return would_not(out, &format!("{id} has {sold} already"));
    }
    let mut what = format!(
        "sell {id} {sold} {}, in place of {}",
        from(customer, offer.when, now),
        customer.phase_at(now).plan
    );
    let Some(back) = taken_back else {
        return would(out, &what);
    };
    what.push_str(&format!("; {id} {}", back.said));
    out.show(&json!({ "would": what, "was_to_end": back.ends }), || {
        format!("would {what}")
    })?;
    Ok(Done::Pending)
}

/// Whether the offer is what holds, or is to hold from then on, with nothing beside it that a change would take back.
fn holds_already(customer: &Customer, offer: &Offer, plan: &PlanId, now_s: u64) -> bool {
    let is_it = |phase: &Phase| {
        (&phase.tier, phase.catalog, &phase.overrides, &phase.plan)
            == (&offer.tier, offer.catalog, &offer.overrides, plan)
    };
    if customer.ends.is_some() || customer.is_leaving || customer.offered.is_some() {
        return false;
    }
    match (customer.phase_after(now_s), offer.when) {
        (None, _) => is_it(customer.phase_at(now_s)),
        (Some(ahead), When::PeriodEnd) => is_it(ahead) && ahead.from == customer.cycle.period_at(now_s).end,
        (Some(_), When::Now) => false,
    }
}

/// A cancellation that a sale takes back.
struct TakenBack {
    /// When the subscription was to end.
    ends: u64,
    /// The same, behind the customer's name.
    said: String,
}

fn taken_back(customer: &Customer) -> Option<TakenBack> {
    let ends = customer.ends.filter(|_| customer.standing != Standing::Ended)?;
    let said = match customer.is_leaving {
        true => "was being ended at once: goes on".to_owned(),
        false => format!("was to end on {}: goes on", time(ends)),
    };
    Some(TakenBack { ends, said })
}

fn when(at_period_end: bool) -> When {
    if at_period_end { When::PeriodEnd } else { When::Now }
}

fn from(customer: &Customer, when: When, now_s: u64) -> String {
    match when {
        When::Now => "now".to_owned(),
        When::PeriodEnd => format!("on {}", time(customer.cycle.period_at(now_s).end)),
    }
}

async fn newest(reach: &Reach) -> Result<u64, Failure> {
    match reach.control.accounts.newest_catalog().await? {
        0 => Err(Failure::NotFound(
            "no tiers are sold yet: farebox tiers apply".to_owned(),
        )),
        version => Ok(version),
    }
}

/// What is agreed with a customer, as JSON. Errors name the place and the field, as serde says them.
fn agreement(file: &Path) -> Result<Overrides, Failure> {
    serde_json::from_str(&read(file)?).map_err(|problem| {
        Failure::Failed(format!(
            "{}: {problem}. Expected JSON with some of price, included, limits, overage, at_quota, spend_cap, alert_percents and \
             past_due, as in {{\"price\": {{\"amount\": 99900, \"interval\": \"month\"}}, \"included\": {{\"api_calls\": 1000000}}, \
             \"limits\": [{{\"units\": 1000, \"window_ms\": 60000}}]}}",
            file.display()
        ))
    })
}

/// Refuses what an ended subscription has no use for.
fn not_ended(customer: &Customer, reach: &Reach, why: &str) -> Result<(), Failure> {
    match ended_in(customer, reach.now().s()) {
        None => Ok(()),
        Some(_) => Err(Failure::Failed(format!(
            "the subscription of {} has ended{}: {why}",
            customer.id,
            customer
                .ends
                .map_or(String::new(), |ends| format!(" on {}", time(ends)))
        ))),
    }
}

async fn suspend(id: &CustomerId, to: bool, is_trial: bool, reach: &Reach, out: Out) -> Result<Done, Failure> {
    let customer = reach.customer(id).await?;
    if !to {
        not_ended(&customer, reach, "nobody would be let in")?;
    }
    let verb = if to { "suspend" } else { "resume" };
    if is_trial && customer.is_suspended == to {
        let how = if to { "suspended already" } else { "not suspended" };
        return would_not(out, &format!("{id} is {how}"));
    }
    if is_trial {
        return would(out, &format!("{verb} {id}"));
    }
    let changed = reach
        .control
        .change(id, reach.now(), |customer| {
            customer.is_suspended = to;
            Ok(())
        })
        .await?;
    out.show(&record(&changed), || match to {
        true if ended_in(&changed, reach.now().s()).is_some() => {
            format!("{id} is suspended; its subscription has ended, so nobody was let in anyway.")
        }
        true => format!("{id} is refused from the next request on; Stripe goes on to bill the subscription."),
        false => format!("{id} is let in from the next request on."),
    })?;
    Ok(Done::Well)
}

/// The record, and when the trial ends that runs.
fn record_at(customer: &Customer, now_s: u64) -> Value {
    let mut value = record(customer);
    value["trial_ends"] = json!(trial_ends(customer, now_s));
    value
}

/// When a running trial ends. Stripe counts billing periods from a trial's end on; the one before that is the trial
/// (<https://docs.stripe.com/billing/subscriptions/billing-cycle>).
fn trial_ends(customer: &Customer, now_s: u64) -> Option<u64> {
    let cycle = &customer.cycle;
    let is_before = cycle.current.contains(now_s) && cycle.current.end == cycle.anchor;
    (is_before && customer.standing != Standing::Ended).then_some(cycle.anchor)
}

/// The record without its secrets.
pub(crate) fn record(customer: &Customer) -> Value {
    let mut contact = customer.contact.clone();
    let secrets = contact.webhook_secrets.len();
    contact.webhook_secrets.clear();
    let without = Customer {
        contact,
        ..customer.clone()
    };
    // A record of ours has only text keys.
    let mut value = serde_json::to_value(&without).unwrap_or_default();
    value["contact"]["webhook_secrets"] = json!(secrets);
    value
}

/// Shows a customer, and first what the change before it took back.
async fn show(customer: &Customer, taken_back: Option<&TakenBack>, reach: &Reach, out: Out) -> Result<Done, Failure> {
    // A record whose terms are not complete any more is still shown.
    let terms = reach.control.terms(customer, reach.now()).await.ok();
    let now = reach.now().s();
    let mut value = record_at(customer, now);
    if let Some(back) = taken_back {
        value["was_to_end"] = json!(back.ends);
    }
    out.show(&value, || {
        let (phase, period) = (customer.phase_at(now), customer.cycle.period_at(now));
        let or_none = |text: &Option<String>| text.as_deref().map_or("none".to_owned(), plain);
        let mut lines = vec![
            ("customer", format!("{} ({})", customer.id, plain(&customer.name))),
            (
                "tier",
                format!("{} ({}, catalog {})", phase.tier, phase.plan, phase.catalog),
            ),
            ("standing", standing(customer, now)),
            ("period", format!("{} to {}", time(period.start), time(period.end))),
            ("stripe customer", or_none(&customer.stripe_customer)),
            ("subscription", or_none(&customer.stripe_subscription)),
            ("mail", or_none(&customer.contact.email)),
            ("webhook", or_none(&customer.contact.webhook)),
        ];
        if let Some(past_due) = terms.as_ref().and_then(|terms| overdue(customer, &terms.past_due, now)) {
            lines.insert(3, ("past due", past_due));
        }
        if let Some(offered) = &customer.offered {
            let from = match offered.from {
                0 => "at once".to_owned(),
                from => format!("from {}", time(from)),
            };
            lines.insert(
                2,
                ("asked of stripe", format!("{} ({}) {from}", offered.tier, offered.plan)),
            );
        }
        // What was planned does not begin if the subscription ends before.
        let next = customer.phase_after(now);
        if let Some(next) = next.filter(|next| customer.ends.is_none_or(|ends| next.from < ends)) {
            lines.insert(
                2,
                (
                    "then",
                    format!(
                        "{} ({}, catalog {}) from {}",
                        next.tier,
                        next.plan,
                        next.catalog,
                        time(next.from)
                    ),
                ),
            );
        }
        if let Some(back) = taken_back {
            lines.push(("cancellation", back.said.clone()));
        }
        // Caps have lines of their own.
        let agreed = Overrides {
            spend_cap: None,
            ..phase.overrides.clone()
        };
        let currency = terms.as_ref().map(|terms| terms.currency).unwrap_or_default();
        let agreed = agreed.sentences(currency);
        if !agreed.is_empty() {
            lines.insert(2, ("agreed", agreed.join("; ")));
        }
        if let Some(ends) = customer.ends {
            lines.push((if ends <= now { "ended" } else { "ends" }, time(ends)));
        }
        lines.extend(
            terms
                .as_ref()
                .map(|terms| caps(customer, terms, now))
                .unwrap_or_default(),
        );
        for grant in customer.grants.iter().filter(|grant| period.contains(grant.period)) {
            lines.push((
                "given",
                format!("{} units of {} ({})", grant.units, grant.meter, grant.id),
            ));
        }
        let lines: Vec<String> = lines.iter().map(|(name, value)| format!("{name:<16}{value}")).collect();
        lines.join("\n")
    })?;
    Ok(Done::Well)
}

/// The spend caps that hold, and whether they were agreed with this customer.
fn caps(customer: &Customer, terms: &Terms, now_s: u64) -> Vec<(&'static str, String)> {
    let is_own = customer.phase_at(now_s).overrides.spend_cap.is_some();
    let whose = if is_own { "own" } else { "the tier's" };
    let caps = terms.spend_cap.iter().map(|(meter, cap)| {
        let units = terms.cap_units.get(meter).copied().unwrap_or(0);
        let cap = cap.display(terms.currency);
        (
            "spend cap",
            format!("{cap} on {meter}, which is {units} units ({whose})"),
        )
    });
    let caps: Vec<_> = caps.collect();
    match caps.is_empty() && is_own {
        true => vec![("spend cap", "none (own)".to_owned())],
        false => caps,
    }
}

/// What an unpaid invoice does, and from when on.
fn overdue(customer: &Customer, past_due: &PastDue, now_s: u64) -> Option<String> {
    let what = match past_due.policy {
        PastDuePolicy::Keep => {
            return Some("nothing changes while it is")
                .filter(|_| is_overdue(customer))
                .map(str::to_owned);
        }
        PastDuePolicy::Throttle(limit) => format!("slowed to {limit}"),
        PastDuePolicy::Block => "refused".to_owned(),
    };
    match customer.standing {
        Standing::PastDue { since } => {
            let from = since.saturating_add(past_due.grace_s);
            let verb = if from <= now_s { "since" } else { "from" };
            Some(format!("since {}; {what} {verb} {}", time(since), time(from)))
        }
        Standing::Unpaid => Some(format!("Stripe has given up collecting; {what}")),
        _ => None,
    }
}

fn is_overdue(customer: &Customer) -> bool {
    matches!(customer.standing, Standing::PastDue { .. } | Standing::Unpaid)
}

/// How a customer stands, in a few words.
pub(crate) fn standing(customer: &Customer, now_s: u64) -> String {
    if customer.is_suspended {
        return "suspended".to_owned();
    }
    if customer.ends.is_some_and(|ends| ends <= now_s) {
        return "ended".to_owned();
    }
    match customer.standing {
        Standing::Good => match trial_ends(customer, now_s) {
            Some(end) => format!("trial until {}", time(end)),
            None => "good".to_owned(),
        },
        Standing::PastDue { since } => format!("past due since {}", time(since)),
        Standing::Unpaid => "unpaid".to_owned(),
        Standing::Incomplete => "incomplete".to_owned(),
        Standing::Paused => "paused".to_owned(),
        Standing::Ended => "ended".to_owned(),
    }
}

async fn list(reach: &Reach, out: Out) -> Result<Done, Failure> {
    let customers = reach.control.accounts.customers().await?;
    let now = reach.now().s();
    let value: Vec<Value> = customers.iter().map(|customer| record_at(customer, now)).collect();
    out.show(&value, || {
        if customers.is_empty() {
            return "There are no customers yet: farebox customers add ID --tier TIER".to_owned();
        }
        let row = |customer: &Customer| {
            let phase = customer.phase_at(now);
            vec![
                customer.id.to_string(),
                plain(&customer.name),
                phase.tier.clone(),
                phase.plan.to_string(),
                standing(customer, now),
                time(customer.cycle.period_at(now).end),
            ]
        };
        let rows = customers.iter().map(row).collect();
        let table = out.table(
            &["customer", "name", "tier", "plan", "standing", "period ends"],
            6,
            rows,
        );
        format!("{table}\n{}", count(customers.len(), "customer"))
    })?;
    Ok(Done::Well)
}
