//! The configuration, from environment variables.

use farebox_core::key::{ApiKey, Mode};
use farebox_stripe::SigningSecret;

use crate::FirstKeySecret;

/// What the function is told from outside.
pub struct Config {
    /// The accounts table.
    pub accounts_table: String,
    /// The counters table.
    pub counters_table: String,
    /// The ledger table.
    pub ledger_table: String,
    /// The URL of the queue that alerts are sent to.
    pub alert_queue: String,
    /// How Stripe is reached. The key's mode is the mode of the events that are taken.
    pub stripe: farebox_stripe::Config,
    /// The secrets of the webhook endpoints, newest first: one for snapshot events and one for thin ones, and two of each while
    /// they are rolled.
    pub webhook_secrets: Vec<SigningSecret>,
    /// What first keys are made from.
    pub first_key_secret: FirstKeySecret,
    /// The brand in front of keys.
    pub brand: String,
    /// Where customers look after their keys.
    pub portal_url: Option<String>,
}

impl Config {
    /// Reads `ACCOUNTS_TABLE`, `COUNTERS_TABLE`, `LEDGER_TABLE`, `ALERT_QUEUE_URL`, `STRIPE_SECRET_KEY`,
    /// `STRIPE_WEBHOOK_SECRETS` (with commas between them), `FIRST_KEY_SECRET` and `KEY_BRAND`; and `STRIPE_BASE_URL`, without
    /// which Stripe is where Stripe is, and `PORTAL_URL`, without which no page leads there.
    ///
    /// # Errors
    /// A sentence that names the first variable that is missing or of no use, never its value.
    pub fn from_env(read: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let value = |name: &str| read(name).filter(|value| !value.is_empty());
        let need = |name: &str| value(name).ok_or_else(|| format!("{name} is not set"));
        let secret_key = farebox_stripe::SecretKey::new(need("STRIPE_SECRET_KEY")?)
            .map_err(|e| format!("STRIPE_SECRET_KEY is of no use: {e}"))?;
        let mut stripe = farebox_stripe::Config::new(secret_key);
        if let Some(url) = value("STRIPE_BASE_URL") {
            stripe.base_url = url;
        }
        let webhook_secrets: Result<Vec<SigningSecret>, farebox_stripe::Error> = need("STRIPE_WEBHOOK_SECRETS")?
            .split(',')
            .map(|secret| SigningSecret::new(secret.trim()))
            .collect();
        let brand = need("KEY_BRAND")?;
        ApiKey::new(&brand, Mode::Test, [0; 32]).map_err(|e| format!("KEY_BRAND is of no use: {e}"))?;
        Ok(Self {
            accounts_table: need("ACCOUNTS_TABLE")?,
            counters_table: need("COUNTERS_TABLE")?,
            ledger_table: need("LEDGER_TABLE")?,
            alert_queue: need("ALERT_QUEUE_URL")?,
            stripe,
            webhook_secrets: webhook_secrets.map_err(|e| format!("STRIPE_WEBHOOK_SECRETS is of no use: {e}"))?,
            first_key_secret: FirstKeySecret::new(need("FIRST_KEY_SECRET")?)
                .map_err(|e| format!("FIRST_KEY_SECRET is of no use: {e}"))?,
            brand,
            portal_url: value("PORTAL_URL"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Config;

    const SET: [(&str, &str); 8] = [
        ("ACCOUNTS_TABLE", "accounts"),
        ("COUNTERS_TABLE", "counters"),
        ("LEDGER_TABLE", "ledger"),
        ("ALERT_QUEUE_URL", "https://queue"),
        ("STRIPE_SECRET_KEY", "sk_test_1"),
        ("STRIPE_WEBHOOK_SECRETS", "whsec_1, whsec_2"),
        ("FIRST_KEY_SECRET", "0123456789abcdef0123456789abcdef"),
        ("KEY_BRAND", "fb"),
    ];

    fn with(name: &str, value: Option<&str>) -> Result<Config, String> {
        Config::from_env(|read| {
            if read == name {
                return value.map(str::to_owned);
            }
            let found = SET.iter().find(|(name, _)| *name == read);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_missing_variable_is_named() {
        for (name, _) in SET {
            for absent in [None, Some("")] {
                assert_eq!(with(name, absent).err(), Some(format!("{name} is not set")));
            }
        }
    }

    #[test]
    fn what_is_of_no_use_is_named_and_not_shown() {
        for (name, bad) in [
            ("STRIPE_SECRET_KEY", "sk_test_1\n"),
            ("STRIPE_WEBHOOK_SECRETS", "whsec_1,,whsec_2"),
            ("FIRST_KEY_SECRET", "tooshort"),
            ("KEY_BRAND", "Fare-box"),
        ] {
            let error = with(name, Some(bad)).err().unwrap_or_default();
            assert!(error.starts_with(&format!("{name} is of no use")), "{error}");
            assert!(!error.contains(bad.trim()), "{error}");
        }
    }

    #[test]
    fn two_secrets_may_hold_at_a_time() {
        let config = with("PORTAL_URL", None).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(config.webhook_secrets.len(), 2);
        assert_eq!(config.stripe.base_url, "https://api.stripe.com");
        assert_eq!(config.portal_url, None);
    }
}
