//! `farebox customers`: who pays, and for what.

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};
use farebox_aws::{control::NewKey, random::Random};
use farebox_billing::{Offer, Sale, When, check_meter, keep_caps};
use farebox_core::{
    account::{Contact, Customer, Phase, Standing, WebhookSecret},
    id::CustomerId,
    tiers::{Overrides, PastDue, PastDuePolicy, PlanId, Terms, parse_amount},
};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};

use crate::{
    arguments::{AddCustomer, Customers, name},
    ended_in,
    failure::{Done, Failure},
    follow,
    keys::{show_issued, would, would_not},
    reach::Reach,
    show::{Out, count, plain, time},
    tiers::{ask, read},
};

/// While a secret is replaced there are two.
const SECRETS_MAX: usize = 2;
/// Longer addresses the notifier does not send to.
const ADDRESS_BYTES_MAX: usize = 320;
/// Longer ones it does not call.
const URL_BYTES_MAX: usize = 2_048;

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
            let change = ContactChange {
                email,
                webhook,
                rotate: rotate_webhook_secret,
            };
            contact(&id.0, change, trial.dry_run, reach, out).await
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

/// Shows a secret for signing, alone on stdout.
fn show_secret(mut value: Value, secret: &WebhookSecret, out: Out) -> Result<(), Failure> {
    value["webhook_secret"] = json!(secret.reveal());
    if !out.is_json {
        out.aside("Calls to the webhook are signed with a secret that is shown once:");
    }
    out.reveal(&value, || secret.reveal().to_owned(), &[secret.reveal()])
}

/// Shows a new secret that is stored though storing it, or a step behind it, failed: calls are signed with it, and nobody would
/// know it. Says whether it was shown.
async fn show_stored(
    id: &CustomerId,
    secret: Option<&WebhookSecret>,
    reach: &Reach,
    out: Out,
) -> Result<bool, Failure> {
    let Some(secret) = secret else {
        return Ok(false);
    };
    let value = match reach.control.accounts.customer(id).await {
        Ok(Some(customer)) if customer.contact.webhook_secrets.contains(secret) => record(&customer),
        Ok(_) => return Ok(false),
        // It may be.
        Err(_) => json!({ "id": id }),
    };
    show_secret(value, secret, out)?;
    Ok(true)
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

struct ContactChange {
    email: Option<String>,
    webhook: Option<String>,
    rotate: bool,
}

async fn contact(
    id: &CustomerId,
    change: ContactChange,
    is_trial: bool,
    reach: &Reach,
    out: Out,
) -> Result<Done, Failure> {
    let before = reach.customer(id).await?;
    if change.email.is_none() && change.webhook.is_none() && !change.rotate {
        return Err(Failure::usage(
            "nothing to change: give --email, --webhook or --rotate-webhook-secret",
        ));
    }
    let given = |text: Option<String>| text.map(|text| Some(text).filter(|text| !text.is_empty()));
    let email = given(change.email)
        .map(|email| email.map(|email| address(&email)).transpose())
        .transpose()?;
    let webhook = given(change.webhook)
        .map(|url| url.map(|url| callable(&url, reach)).transpose())
        .transpose()?;
    let is_first = matches!(webhook, Some(Some(_))) && before.contact.webhook_secrets.is_empty();
    let new_secret = if change.rotate || is_first {
        Some(secret()?)
    } else {
        None
    };
    if is_trial {
        return would(out, &format!("change where alerts of {id} go"));
    }
    let apply = |contact: &mut Contact| {
        if let Some(email) = &email {
            contact.email.clone_from(email);
        }
        if let Some(webhook) = &webhook {
            contact.webhook.clone_from(webhook);
        }
        // A store that was tried again may find its own.
        if let Some(secret) = new_secret
            .as_ref()
            .filter(|secret| !contact.webhook_secrets.contains(secret))
        {
            contact.webhook_secrets.insert(0, secret.clone());
            contact.webhook_secrets.truncate(SECRETS_MAX);
        }
    };
    // Stripe knows of nothing else.
    let books = match email {
        Some(_) => Some(reach.books().await?),
        None => None,
    };
    let change = |customer: &mut Customer| {
        apply(&mut customer.contact);
        Ok(())
    };
    let mut changed = match reach.control.change(id, reach.now(), change).await {
        Ok(changed) => changed,
        Err(error) => {
            show_stored(id, new_secret.as_ref(), reach, out).await?;
            return Err(error.into());
        }
    };
    // Before anything else can fail.
    if let Some(secret) = &new_secret {
        show_secret(record(&changed), secret, out)?;
    }
    if let Some(books) = books {
        changed = books.tell_contact(changed).await.map_err(|error| {
            let failure = Failure::from(error);
            match new_secret {
                Some(_) => Failure::Failed(format!(
                    "{failure}; all but Stripe's mail address is changed and the secret is in force: repeat with --email alone"
                )),
                None => failure,
            }
        })?;
    }
    if new_secret.is_some() {
        return Ok(Done::Well);
    }
    let value = record(&changed);
    out.show(&value, || {
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "nobody".to_owned());
        let Contact { email, webhook, .. } = &changed.contact;
        format!(
            "{id}: mail goes to {}, calls go to {}.",
            or_none(email),
            or_none(webhook)
        )
    })?;
    Ok(Done::Well)
}

fn secret() -> Result<WebhookSecret, Failure> {
    let random: [u8; 32] = Random::system().bytes()?;
    Ok(WebhookSecret::new(format!("whsec_{}", STANDARD.encode(random))))
}

/// One address, by the notifier's rule: what Stripe or SES could take for several, or for a name with one, it does not send to.
fn address(text: &str) -> Result<String, Failure> {
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ',' | ';' | '<' | '>');
    let is_fine = |(name, host): (&str, &str)| !name.is_empty() && host.contains('.');
    let is_one = text.len() <= ADDRESS_BYTES_MAX && !text.contains(is_odd);
    match is_one && text.rsplit_once('@').is_some_and(is_fine) {
        true => Ok(text.to_owned()),
        false => Err(Failure::usage(format!("{text:?} is not one mail address"))),
    }
}

/// The address of a webhook. It may hold what only its owner should know, so it is not repeated.
fn callable(url: &str, reach: &Reach) -> Result<String, Failure> {
    match uncallable(url, reach.is_local) {
        None => Ok(url.to_owned()),
        Some(why) => Err(Failure::usage(format!("the webhook's address {why}"))),
    }
}

/// Why the notifier would give up on an address, as its `Target::parse` does: `https`, and on `farebox dev` also `http` on this
/// machine.
fn uncallable(url: &str, is_local: bool) -> Option<&'static str> {
    if url.len() > URL_BYTES_MAX {
        return Some("is longer than 2048 characters");
    }
    let Ok(uri) = url.parse::<http::Uri>() else {
        return Some("is not a URL");
    };
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), _) => {}
        (Some("http"), Some("127.0.0.1" | "localhost" | "[::1]")) if is_local => {}
        _ => return Some("is not https"),
    }
    let Some(authority) = uri.authority() else {
        return Some("names no host");
    };
    if authority.as_str().contains('@') {
        return Some("carries a user name: put what the webhook is to know its caller by into the path");
    }
    let host = authority.host();
    let name = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if ServerName::try_from(name.unwrap_or(host)).is_err() {
        return Some("names no host");
    }
    match authority.port_u16() {
        Some(0) => Some("names port 0"),
        // `https://host:` and a port that is no number.
        None if authority.as_str().len() > host.len() => Some("names no port behind the colon"),
        _ => None,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_address_is_a_single_one() {
        for fine in ["a@b.example", "a+b.c@d.example", "\"a@b\"@c.example"] {
            assert_eq!(address(fine).unwrap(), fine);
        }
        let long = format!("{}@b.example", "a".repeat(320));
        for bad in [
            "",
            "a",
            "a@b",
            "@b.example",
            "a@b.example,c@d.example",
            "a@b.example;c@d.example",
            "<a@b.example>",
            "A <a@b.example>",
            "a b@c.example",
            "a@b.example\r\nBcc:c@d.example",
            &long,
        ] {
            assert!(matches!(address(bad), Err(Failure::Usage(_))), "{bad}");
        }
    }

    #[test]
    fn a_webhook_is_refused_where_the_notifier_would_give_up() {
        for fine in [
            "https://hooks.example",
            "https://hooks.example/a?b=c#d",
            "https://hooks.example?token=x",
            "https://[2606:4700::1111]:8443/",
            "HTTPS://hooks.example:443/",
        ] {
            assert_eq!(uncallable(fine, false), None, "{fine}");
        }
        assert_eq!(uncallable("http://127.0.0.1:8787/hooks/acme", true), None);
        let long = format!("https://hooks.example/{}", "x".repeat(2_100));
        for (url, why) in [
            ("http://hooks.example/", "is not https"),
            ("http://127.0.0.1/", "is not https"),
            ("ftp://hooks.example/", "is not https"),
            ("hooks.example", "is not https"),
            ("/hooks", "is not https"),
            ("", "is not a URL"),
            ("https:///x", "is not a URL"),
            ("https://a b/", "is not a URL"),
            ("https://hooks.example\r\nx: y/", "is not a URL"),
            ("https://user:secret@hooks.example/", "carries a user name"),
            ("https://hooks.example@10.0.0.1/", "carries a user name"),
            ("https://hooks.example:0/", "names port 0"),
            ("https://hooks.example:/", "names no port"),
            ("https://hooks.example:70000/", "names no port"),
            ("https://-/", "names no host"),
            ("https://[fe80::1%25eth0]/", "names no host"),
            (&long, "is longer"),
        ] {
            let refused = uncallable(url, false).unwrap_or("let through");
            assert!(refused.starts_with(why), "{url}: {refused}, expected {why}");
        }
        assert_eq!(uncallable("http://hooks.example/", true), Some("is not https"));
    }
}
