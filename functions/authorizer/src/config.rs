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
        Ok(Self {
            accounts_table: need("ACCOUNTS_TABLE")?,
            counters_table: need("COUNTERS_TABLE")?,
            usage_queue_url: need("USAGE_QUEUE_URL")?,
            forbidden_403: match read("FORBIDDEN_STATUS_403").as_deref() {
                None | Some("" | "false") => false,
                Some("true") => true,
                Some(_) => return Err("FORBIDDEN_STATUS_403 must be true or false".to_owned()),
            },
            aws: Settings::from_env(read)?,
        })
    }
}
