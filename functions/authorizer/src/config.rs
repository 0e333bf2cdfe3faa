//! What the environment says.

use farebox_aws::connect::Settings;

/// The authorizer's environment variables.
pub struct Config {
    /// `ACCOUNTS_TABLE`.
    pub accounts_table: String,
    /// `COUNTERS_TABLE`.
    pub counters_table: String,
    /// `USAGE_QUEUE_URL`.
    pub usage_queue_url: String,
    /// `FORBIDDEN_STATUS_403`: `true` to answer 403 where a route is not in the tier; `false` or absent for 401.
    pub forbidden_403: bool,
    /// `USAGE_IDENTIFIER_KEY`: the key of the usage plan that admitted requests run under; needed for 403, as the API then takes
    /// keys from its authorizer.
    pub usage_identifier_key: Option<String>,
    /// What Lambda itself sets.
    pub aws: Settings,
}

impl Config {
    /// Reads the variables.
    ///
    /// # Errors
    /// The name of the first one that is missing or wrong.
    pub fn from_env(read: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let need = |name: &str| {
            read(name)
                .filter(|value| !value.is_empty())
                .ok_or_else(|| format!("{name} is not set"))
        };
        let forbidden_403 = match read("FORBIDDEN_STATUS_403").as_deref() {
            None | Some("" | "false") => false,
            Some("true") => true,
            Some(_) => return Err("FORBIDDEN_STATUS_403 must be true or false".to_owned()),
        };
        let usage_identifier_key = read("USAGE_IDENTIFIER_KEY").filter(|key| !key.is_empty());
        if forbidden_403 && usage_identifier_key.is_none() {
            return Err(
                "USAGE_IDENTIFIER_KEY is not set, and with FORBIDDEN_STATUS_403 every request needs it".to_owned(),
            );
        }
        Ok(Self {
            accounts_table: need("ACCOUNTS_TABLE")?,
            counters_table: need("COUNTERS_TABLE")?,
            usage_queue_url: need("USAGE_QUEUE_URL")?,
            forbidden_403,
            usage_identifier_key,
            aws: Settings::from_env(read)?,
        })
    }
}
