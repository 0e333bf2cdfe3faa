//! Somebody subscribed on a Checkout page: they become a customer, with a key to begin with.

use farebox_aws::{
    accounts::MARK_KEPT_S,
    control::{Cause, NewCustomer},
};
use farebox_billing::{Books, CUSTOMER_KEY, Error, base_plan, period};
use farebox_core::{
    account::{Contact, KeyRecord},
    id::CustomerId,
    key::ApiKey,
    tiers::Overrides,
    time::{Cycle, Timestamp},
};
use farebox_stripe::{CheckoutSession, Event, Subscription};

use crate::{Webhook, answer::Verdict};

/// For so long after it was opened a session yields a key. The key follows from the secret and the brand of today: without an end,
/// an old link would yield another key once either is replaced.
const KEY_WITHIN_MS: u64 = 30 * 86_400_000;
// A mark that the key was shown is made after the session was opened, so it outlives that.
const _: () = assert!(KEY_WITHIN_MS < MARK_KEPT_S * 1_000);
/// How often a record is read again because somebody else changed it meanwhile.
const TRIES_MAX: u32 = 8;

impl Webhook {
    pub(crate) async fn checked_out(&self, event: &Event, cause: Cause<'_>) -> Result<Verdict, Error> {
        let Some(id) = event.object_id() else {
            return Ok(Verdict::Ignored);
        };
        let session = match self.deps.books.stripe.checkout_session(id).await {
            Ok(session) => session,
            Err(error) if error.is_missing() => return Ok(Verdict::Ignored),
            Err(error) => return Err(error.into()),
        };
        let Some(customer) = self.admit(&session).await? else {
            return Ok(Verdict::Ignored);
        };
        if self.yields_key(&session) {
            self.issue(&session, &customer).await?;
        }
        self.mark(cause).await
    }

    /// Whether a session is young enough to yield a key.
    pub(crate) fn yields_key(&self, session: &CheckoutSession) -> bool {
        let created = Timestamp::from_s(u64::try_from(session.created).unwrap_or(0));
        self.deps.books.now().ms_since(created) <= KEY_WITHIN_MS
    }

    /// Makes whoever completed a session a customer, unless they are one. `None` if they bought nothing of ours. Repeating
    /// changes nothing, so the page that shows the key need not wait for the event.
    pub(crate) async fn admit(&self, session: &CheckoutSession) -> Result<Option<CustomerId>, Error> {
        let (Some("complete"), Some(in_stripe), Some(subscription)) =
            (session.status.as_deref(), &session.customer, &session.subscription)
        else {
            return Ok(None);
        };
        let books = &self.deps.books;
        let customer = match books.accounts.customer_in_stripe(in_stripe).await? {
            Some(known) => {
                books.tell_of_second(&known, subscription).await?;
                known
            }
            None => {
                let subscription = books.stripe.subscription(subscription).await?;
                if base_plan(&subscription).is_none() {
                    return Ok(None);
                }
                self.bind(session, in_stripe, &subscription).await?
            }
        };
        books.follow(&customer, None).await?;
        Ok(Some(customer))
    }

    /// Binds a customer of Stripe's to the record that the session names, or to a new one.
    async fn bind(
        &self,
        session: &CheckoutSession,
        in_stripe: &str,
        subscription: &Subscription,
    ) -> Result<CustomerId, Error> {
        let books = &self.deps.books;
        // Only the owner writes metadata. A reference may be the buyer's: anybody can append one to the address of a Payment Link
        // (<https://docs.stripe.com/payment-links/url-parameters>), and a page of the owner's may take it from the browser. So it
        // says nothing on a link's session, and on others it names somebody new: what exists is given away by metadata alone.
        let by_owner = session.metadata.get(CUSTOMER_KEY);
        let by_reference = session.client_reference_id.as_ref();
        let named = by_owner.or(by_reference.filter(|_| session.payment_link.is_none()));
        let named = named.and_then(|name| CustomerId::try_from(name.clone()).ok());
        let may_take = by_owner.is_some() || named.is_none();
        for _ in 0..TRIES_MAX {
            let id = match &named {
                Some(id) => id.clone(),
                None => CustomerId::try_from(in_stripe.to_owned()).map_err(|e| Error::Refused(e.to_string()))?,
            };
            let Some(seen) = books.accounts.customer(&id).await? else {
                return add(books, id, in_stripe, subscription).await;
            };
            match &seen.stripe_customer {
                Some(same) if same == in_stripe => return Ok(id),
                None if may_take => {
                    let mut changed = seen.clone();
                    changed.stripe_customer = Some(in_stripe.to_owned());
                    changed.stripe_subscription = Some(subscription.id.clone());
                    if books
                        .control()
                        .store(&seen, changed, None, books.now())
                        .await?
                        .is_some()
                    {
                        return Ok(id);
                    }
                }
                _ => return self.conflict(&id, in_stripe, subscription).await,
            }
        }
        Err(farebox_aws::Error::Contended(format!("the customer of session …{}", ending(&session.id))).into())
    }

    /// The session names a record that is not the buyer's: another customer of Stripe's pays for it, or only the owner may give
    /// it away. Whoever paid now gets what they paid for, under a name of their own.
    async fn conflict(
        &self,
        named: &CustomerId,
        in_stripe: &str,
        subscription: &Subscription,
    ) -> Result<CustomerId, Error> {
        let id = CustomerId::try_from(in_stripe.to_owned()).map_err(|e| Error::Refused(e.to_string()))?;
        let own = self.deps.books.accounts.customer(&id).await?;
        if own
            .as_ref()
            .is_some_and(|own| own.stripe_customer.as_deref() != Some(in_stripe))
        {
            let text = format!("{in_stripe} subscribed by Checkout, and the record {id} is somebody else's");
            return Err(Error::Refused(text));
        }
        let text = format!(
            "{in_stripe} subscribed by Checkout in the name of {named}, whose record is not theirs. They became the customer \
             {in_stripe}; refund them or merge the two by hand. A record that nobody pays for is given to a buyer by the \
             session's metadata ({CUSTOMER_KEY}), not by its reference."
        );
        let details = [
            ("subscription", subscription.id.clone()),
            ("customer", named.to_string()),
        ];
        self.tell_operator(
            "checkout_conflict",
            format!("checkout-{}", subscription.id),
            text,
            &details,
        )
        .await?;
        match own {
            Some(_) => Ok(id),
            None => add(&self.deps.books, id, in_stripe, subscription).await,
        }
    }

    /// Issues the session's key. One that was issued before stays as it is, revoked or not.
    pub(crate) async fn issue(&self, session: &CheckoutSession, customer: &CustomerId) -> Result<ApiKey, Error> {
        let deps = &self.deps;
        let key = deps
            .first_key
            .key(&session.id, &deps.brand, deps.mode)
            .map_err(|e| Error::Refused(e.to_string()))?;
        let record = KeyRecord {
            customer: customer.clone(),
            name: "first key".to_owned(),
            prefix: key.display_prefix().to_owned(),
            last_four: key.last_four().to_owned(),
            mode: deps.mode,
            scopes: Vec::new(),
            created: deps.books.now(),
            expires: None,
            revoked: None,
        };
        deps.books.accounts.put_key_once(key.hash(), &record).await?;
        Ok(key)
    }
}

/// A record for somebody new, on the tier whose price they pay.
async fn add(books: &Books, id: CustomerId, in_stripe: &str, subscription: &Subscription) -> Result<CustomerId, Error> {
    let refused = |what: &str| Error::Refused(format!("{in_stripe} subscribed by Checkout, and {what}"));
    let plan = base_plan(subscription).ok_or_else(|| refused("pays no base price"))?;
    let sold = books.plan_in_catalogs(&plan).await?;
    let sold = sold.ok_or_else(|| refused(&format!("no version of the tiers has the plan {plan}")))?;
    let current = period(subscription).ok_or_else(|| refused("the subscription has no period"))?;
    let buyer = books.stripe.customer(in_stripe).await?;
    let buyer = buyer.ok_or_else(|| refused("is no customer in Stripe any more"))?;
    let new = NewCustomer {
        name: buyer.name.or(buyer.email.clone()).unwrap_or_else(|| id.to_string()),
        id: id.clone(),
        tier: sold.phase.tier,
        catalog: sold.phase.catalog,
        overrides: Overrides::default(),
        cycle: Cycle {
            anchor: u64::try_from(subscription.billing_cycle_anchor).unwrap_or(0),
            interval: sold.interval,
            current,
            cuts: Vec::new(),
        },
        contact: Contact {
            email: buyer.email,
            ..Contact::default()
        },
        stripe_customer: Some(in_stripe.to_owned()),
        stripe_subscription: Some(subscription.id.clone()),
    };
    match books.control().add_customer(new, books.now()).await {
        Ok(customer) => Ok(customer.id),
        // Another delivery of the event, or the page, was first.
        Err(error) => match books.accounts.customer_in_stripe(in_stripe).await? {
            Some(known) => Ok(known),
            None => Err(error.into()),
        },
    }
}

/// What is logged of a session's id: whoever has the whole of it is shown the key.
pub(crate) fn ending(session: &str) -> &str {
    let shown = session.len().saturating_sub(6).max(session.len() / 2);
    session.get(shown..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::ending;

    #[test]
    fn of_a_session_little_is_logged() {
        assert_eq!(ending("cs_test_a1B2c3D4e5F6g7H8"), "F6g7H8");
        assert_eq!(ending("cs_1"), "_1");
        assert_eq!(ending(""), "");
    }
}
