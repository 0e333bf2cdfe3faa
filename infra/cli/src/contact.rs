//! Where a customer's alerts go: addresses that can be reached, and the secret that signs calls.

use base64::{Engine, engine::general_purpose::STANDARD};
use farebox_aws::random::Random;
use farebox_core::{
    account::{Contact, Customer, WebhookSecret},
    id::CustomerId,
};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};

use crate::{
    customers::record,
    failure::{Done, Failure},
    keys::would,
    reach::Reach,
    show::Out,
};

/// While a secret is replaced there are two.
const SECRETS_MAX: usize = 2;
/// Longer addresses the notifier does not send to.
const ADDRESS_BYTES_MAX: usize = 320;
/// Longer ones it does not call.
const URL_BYTES_MAX: usize = 2_048;

/// What is to change. An empty text takes an address away.
pub(crate) struct Change {
    pub(crate) email: Option<String>,
    pub(crate) webhook: Option<String>,
    /// Sign with a new secret.
    pub(crate) rotate: bool,
}

pub(crate) async fn run(
    id: &CustomerId,
    change: Change,
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

/// Shows a secret for signing, alone on stdout.
pub(crate) fn show_secret(mut value: Value, secret: &WebhookSecret, out: Out) -> Result<(), Failure> {
    value["webhook_secret"] = json!(secret.reveal());
    if !out.is_json {
        out.aside("Calls to the webhook are signed with a secret that is shown once:");
    }
    out.reveal(&value, || secret.reveal().to_owned(), &[secret.reveal()])
}

/// Shows a new secret that is stored though storing it, or a step behind it, failed: calls are signed with it, and nobody would
/// know it. Says whether it was shown.
pub(crate) async fn show_stored(
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

pub(crate) fn secret() -> Result<WebhookSecret, Failure> {
    let random: [u8; 32] = Random::system().bytes()?;
    Ok(WebhookSecret::new(format!("whsec_{}", STANDARD.encode(random))))
}

/// One address, by the notifier's rule: what Stripe or SES could take for several, or for a name with one, it does not send to.
pub(crate) fn address(text: &str) -> Result<String, Failure> {
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ',' | ';' | '<' | '>');
    let is_fine = |(name, host): (&str, &str)| !name.is_empty() && host.contains('.');
    let is_one = text.len() <= ADDRESS_BYTES_MAX && !text.contains(is_odd);
    match is_one && text.rsplit_once('@').is_some_and(is_fine) {
        true => Ok(text.to_owned()),
        false => Err(Failure::usage(format!("{text:?} is not one mail address"))),
    }
}

/// The address of a webhook. It may hold what only its owner should know, so it is not repeated.
pub(crate) fn callable(url: &str, reach: &Reach) -> Result<String, Failure> {
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
