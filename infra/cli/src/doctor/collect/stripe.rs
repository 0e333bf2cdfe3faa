//! Stripe: what the key may do, where events go, how long invoices stay drafts, and what is sold.

use farebox_billing::Making;
use farebox_core::tiers;
use farebox_stripe::{Access, Area, SecretKey};

use super::{Look, REACH};
use crate::{
    doctor::facts::{Catalog, Denied, Endpoint, Grace, Secret, SecretKind, Stripe},
    failure::Failure,
    reach::{cause, stripe},
};

impl Look<'_> {
    /// Stripe by the key of the environment, else by that of the functions.
    pub(super) async fn stripe_key(&mut self) -> Option<(farebox_stripe::Client, Stripe)> {
        if self.reach.is_local {
            let client = self.reach.stripe().map_err(|e| e.to_string());
            let client = self.keep("Stripe", "start `farebox dev` anew", client)?;
            let seen = Stripe {
                key_from: "the local system".to_owned(),
                is_restricted: true, // it is nobody's
                ..Stripe::default()
            };
            return Some((client, seen));
        }
        let stack = self.facts.stack.clone()?;
        let of_environment = std::env::var("STRIPE_SECRET_KEY").ok().filter(|key| !key.is_empty());
        let arn = stack.parameters.get("StripeKeySecretArn");
        let of_functions = match arn {
            Some(arn) => {
                let answer = self.secrets_manager().get_secret_value().secret_id(arn).send().await;
                answer.map(|answer| Some(answer.secret_string)).map_err(|e| cause(&e))
            }
            None => Ok(None),
        };
        let of_functions = match (of_functions, &of_environment) {
            // The one of the environment will do.
            (Err(problem), Some(_)) => {
                let note = format!("The key of the functions can't be compared with STRIPE_SECRET_KEY: {problem}");
                self.facts.notes.push(note);
                None
            }
            (other, _) => self.keep(
                "the Stripe key",
                "set STRIPE_SECRET_KEY, or allow secretsmanager:GetSecretValue to whoever runs this",
                other,
            )?,
        };
        let of_functions = match (arn, of_functions) {
            (Some(arn), Some(text)) => self.key_of_functions(arn, text),
            _ => None,
        };
        let (from, key) = match (of_environment, arn) {
            (Some(key), _) => ("STRIPE_SECRET_KEY".to_owned(), key),
            (None, Some(arn)) => (format!("secret {arn}"), of_functions.clone()?),
            (None, None) => {
                let note = "Stripe was not looked at: the stack names no secret with its key, and STRIPE_SECRET_KEY is not set";
                self.facts.notes.push(note.to_owned());
                return None;
            }
        };
        let is_live = |key: &str| SecretKey::new(key).is_ok_and(|key| key.is_live());
        let seen = Stripe {
            key_from: from,
            is_restricted: SecretKey::new(&key).is_ok_and(|key| key.is_restricted()),
            is_live: is_live(&key),
            functions_key_is_live: of_functions.as_deref().map(is_live),
            ..Stripe::default()
        };
        let base = stack.parameters.get("StripeBaseUrl").filter(|url| !url.is_empty());
        let url = self.reach.stripe_url.clone().or_else(|| base.cloned());
        let client = self.keep(
            "Stripe",
            "set STRIPE_SECRET_KEY to a restricted key",
            stripe(Some(key), url),
        )?;
        Some((client, seen))
    }

    /// What the secret of the functions holds, unless that is no key: then the functions can't start.
    fn key_of_functions(&mut self, arn: &str, text: Option<String>) -> Option<String> {
        let key = text.as_deref().map(str::trim).filter(|key| !key.is_empty());
        let fault = match key.map(SecretKey::new) {
            Some(Ok(_)) => return key.map(str::to_owned),
            Some(Err(_)) => "holds what is no key of Stripe's: a key is one line without spaces",
            None => "holds no text",
        };
        let secrets = &mut self.facts.secrets;
        match secrets.iter_mut().find(|secret| secret.kind == SecretKind::StripeKey) {
            Some(secret) => secret.fault = Some(fault.to_owned()),
            // It could not be described, but there is a version of it: that was read.
            None => secrets.push(Secret {
                kind: SecretKind::StripeKey,
                arn: arn.to_owned(),
                versions: Some(1),
                fault: Some(fault.to_owned()),
            }),
        }
        None
    }

    pub(super) async fn stripe(&mut self, client: &farebox_stripe::Client, mut seen: Stripe) {
        for area in Area::ALL {
            let access = client.access(area).await.map_err(|e| e.to_string());
            match self.keep(&format!("what the key may do with {}", area.name()), REACH, access) {
                Some(Access::UnknownKey) => {
                    seen.is_key_unknown = true;
                    self.facts.stripe = Some(seen);
                    return;
                }
                Some(Access::Denied { permission }) => seen.denied.push(Denied {
                    area: area.name(),
                    permission,
                    is_written: area.is_written(),
                }),
                Some(Access::Allowed) | None => {}
            }
        }
        if !self.reach.is_local {
            self.endpoints(client, &mut seen).await;
        }
        let may_read = !seen.denied.iter().any(|denied| denied.area == Area::Invoices.name());
        if may_read {
            let times = client.invoice_times().await.map_err(|e| e.to_string());
            let times = self.keep("the invoices", "set Invoices to Read for this key", times);
            seen.has_read_invoices = times.is_some();
            seen.grace = times.and_then(grace);
        }
        self.facts.stripe = Some(seen);
    }

    async fn endpoints(&mut self, client: &farebox_stripe::Client, seen: &mut Stripe) {
        let endpoints = client.webhook_endpoints().await.map_err(|e| e.to_string());
        let endpoints = self.keep(
            "the webhook endpoints",
            "set Webhook Endpoints to Read for this key, or look there: https://dashboard.stripe.com/workbench/webhooks",
            endpoints,
        );
        let destinations = client.event_destinations().await.map_err(|e| e.to_string());
        let destinations = self.keep(
            "the event destinations",
            "set Event Destinations to Read for this key, or look there: https://dashboard.stripe.com/workbench/webhooks",
            destinations,
        );
        let endpoints = endpoints.map(|endpoints| {
            let own = endpoints.into_iter().map(|one| Endpoint {
                is_enabled: one.status == "enabled",
                id: one.id,
                url: one.url,
                events: one.enabled_events,
                api_version: one.api_version,
            });
            own.collect::<Vec<Endpoint>>()
        });
        let (thin, snapshot): (Vec<_>, Vec<_>) = destinations
            .iter()
            .flatten()
            .partition(|destination| destination.event_payload == "thin");
        let as_endpoint = |one: &&farebox_stripe::EventDestination| {
            Some(Endpoint {
                id: one.id.clone(),
                url: one.url.clone()?,
                events: one.enabled_events.clone(),
                api_version: one.snapshot_api_version.clone(),
                is_enabled: one.status == "enabled",
            })
        };
        // An endpoint may be in both lists; it is the same one then.
        seen.snapshot_endpoints = endpoints.map(|mut all| {
            let others = snapshot.iter().filter_map(as_endpoint);
            let others: Vec<Endpoint> = others
                .filter(|one| !all.iter().any(|known| known.url == one.url))
                .collect();
            all.extend(others);
            all
        });
        if destinations.is_some() {
            seen.thin_endpoints = Some(thin.iter().filter_map(as_endpoint).collect());
        }
    }

    pub(super) async fn catalog(&mut self, file: Option<&(String, tiers::Catalog)>, client: farebox_stripe::Client) {
        let seen = self.sold(file, client).await.map_err(|e| e.to_string());
        let what = "what is sold";
        self.facts.catalog = self.keep(
            what,
            "allow dynamodb:GetItem and Scan on the accounts table to whoever runs this",
            seen,
        );
    }

    async fn sold(
        &self,
        file: Option<&(String, tiers::Catalog)>,
        client: farebox_stripe::Client,
    ) -> Result<Catalog, Failure> {
        let accounts = &self.reach.control.accounts;
        let version = accounts.newest_catalog().await?;
        let books = self.reach.books_with(client).await?;
        let mut seen = Catalog::default();
        if let Some(stored) = accounts.catalog(version).await? {
            let plan = books.catalogue_plan(&stored).await?;
            seen.version = Some(version);
            seen.missing = plan.steps().iter().map(Making::to_string).collect();
            seen.mismatches = plan.mismatches.iter().map(ToString::to_string).collect();
        }
        if let Some((name, catalog)) = file {
            let plan = books.catalogue_plan(catalog).await?;
            let changes = plan.changes.iter().flat_map(|change| change.sentences.clone());
            seen.file = Some((name.clone(), changes.collect()));
        }
        Ok(seen)
    }
}

/// The newest word on how long invoices of billing periods stay drafts.
fn grace(times: Vec<farebox_stripe::InvoiceTimes>) -> Option<Grace> {
    let cycle = |one: &farebox_stripe::InvoiceTimes| one.billing_reason.as_deref() == Some("subscription_cycle");
    times.into_iter().filter(cycle).find_map(|one| {
        let until = one.automatically_finalizes_at.or(one.finalized_at)?;
        Some(Grace {
            seconds: until - one.created,
            is_announced: one.automatically_finalizes_at.is_some(),
            invoice: one.id,
        })
    })
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grace_is_that_of_the_newest_invoice_of_a_billing_period() {
        let invoice =
            |id: &str, reason: &str, announced: Option<i64>, finalized: Option<i64>| farebox_stripe::InvoiceTimes {
                id: id.to_owned(),
                billing_reason: Some(reason.to_owned()),
                created: 1_000,
                automatically_finalizes_at: announced,
                finalized_at: finalized,
            };
        let first = invoice("in_3", "subscription_create", None, Some(1_000));
        let draft = invoice("in_2", "subscription_cycle", Some(4_600), None);
        let done = invoice("in_1", "subscription_cycle", None, Some(87_400));
        let found = grace(vec![first.clone(), draft, done.clone()]).unwrap();
        assert_eq!(
            (found.invoice.as_str(), found.seconds, found.is_announced),
            ("in_2", 3_600, true)
        );
        let found = grace(vec![first.clone(), done]).unwrap();
        assert_eq!((found.seconds, found.is_announced), (86_400, false));
        assert!(grace(vec![first]).is_none());
    }
}
