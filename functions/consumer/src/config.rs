//! The configuration, from environment variables.

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
    /// How Stripe is reached.
    pub stripe: farebox_stripe::Config,
}

impl Config {
    /// Reads `ACCOUNTS_TABLE`, `COUNTERS_TABLE`, `LEDGER_TABLE`, `ALERT_QUEUE_URL` and `STRIPE_SECRET_KEY`; and `STRIPE_BASE_URL`, without which
    /// Stripe is where Stripe is.
    ///
    /// # Errors
    /// A sentence that names the first variable that is missing or of no use, never its value.
    pub fn from_env(read: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let value = |name: &str| read(name).filter(|value| !value.is_empty());
        let need = |name: &str| value(name).ok_or_else(|| format!("{name} is not set"));
        let secret_key = farebox_stripe::SecretKey::new(need("STRIPE_SECRET_KEY")?)
            .map_err(|e| format!("STRIPE_SECRET_KEY is of no use: {e}"))?;
        // After an outage every customer's report is due at once.
        let mut stripe = farebox_stripe::Config::new(secret_key).paced();
        if let Some(url) = value("STRIPE_BASE_URL") {
            stripe.base_url = url;
        }
        Ok(Self {
            accounts_table: need("ACCOUNTS_TABLE")?,
            counters_table: need("COUNTERS_TABLE")?,
            ledger_table: need("LEDGER_TABLE")?,
            alert_queue: need("ALERT_QUEUE_URL")?,
            stripe,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Config;

    const NEEDED: [&str; 5] = [
        "ACCOUNTS_TABLE",
        "COUNTERS_TABLE",
        "LEDGER_TABLE",
        "ALERT_QUEUE_URL",
        "STRIPE_SECRET_KEY",
    ];

    #[test]
    fn a_missing_variable_is_named() {
        for missing in NEEDED {
            for absent in [None, Some(String::new())] {
                let read = |name: &str| {
                    if name == missing {
                        absent.clone()
                    } else {
                        Some("x".to_owned())
                    }
                };
                assert_eq!(Config::from_env(read).err(), Some(format!("{missing} is not set")));
            }
        }
    }

    #[test]
    fn stripe_is_where_it_is_unless_told_otherwise() {
        let needed = |name: &str| NEEDED.contains(&name).then(|| format!("the-{name}"));
        let config = Config::from_env(needed).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(config.ledger_table, "the-LEDGER_TABLE");
        assert_eq!(config.stripe.base_url, "https://api.stripe.com");

        let told = |name: &str| Some(format!("the-{name}"));
        assert_eq!(
            Config::from_env(told).unwrap_or_else(|e| panic!("{e}")).stripe.base_url,
            "the-STRIPE_BASE_URL"
        );
    }

    #[test]
    fn an_unusable_secret_is_named_and_not_shown() {
        let error = Config::from_env(|_| Some("sk_test_1\n".to_owned()))
            .err()
            .unwrap_or_default();
        assert!(
            error.contains("STRIPE_SECRET_KEY") && !error.contains("sk_test_1"),
            "{error}"
        );
    }
}
