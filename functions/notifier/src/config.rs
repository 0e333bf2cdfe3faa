//! The configuration, from environment variables.

use std::path::PathBuf;

/// What the function is told from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The accounts table: customers and deliveries.
    pub accounts_table: String,
    /// The alert queue.
    pub alert_queue_url: String,
    /// The operator's topic; `None` tells the operator through the log only.
    pub alert_topic_arn: Option<String>,
    /// Who mails come from, `Acme API <billing@acme.example>`; `None` sends no mails.
    pub mail_from: Option<String>,
    /// The configuration set of SES that mails are sent with.
    pub mail_configuration_set: Option<String>,
    /// A directory whose templates are used in place of the built-in ones.
    pub mail_templates: Option<PathBuf>,
    /// Where customers look after their account.
    pub portal_url: Option<String>,
    /// Another endpoint for SES; `None` is AWS's.
    pub ses_endpoint: Option<String>,
    /// Another endpoint for SNS; `None` is AWS's.
    pub sns_endpoint: Option<String>,
}

impl Config {
    /// Reads `ACCOUNTS_TABLE` and `ALERT_QUEUE_URL`; and, each optional, `ALERT_TOPIC_ARN`, `MAIL_FROM`,
    /// `MAIL_CONFIGURATION_SET`, `MAIL_TEMPLATES`, `PORTAL_URL`, `AWS_ENDPOINT_URL_SESV2` and `AWS_ENDPOINT_URL_SNS`.
    ///
    /// # Errors
    /// A sentence that names the first variable that is missing or of no use.
    pub fn from_env(read: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let value = |name: &str| read(name).filter(|value| !value.is_empty());
        let need = |name: &str| value(name).ok_or_else(|| format!("{name} is not set"));
        let mail_from = value("MAIL_FROM");
        if mail_from.as_deref().is_some_and(|from| !is_sender(from)) {
            return Err("MAIL_FROM is of no use: it must be an address, or a name and an address in <>".to_owned());
        }
        let portal_url = value("PORTAL_URL");
        if portal_url.as_deref().is_some_and(|url| !is_link(url)) {
            return Err("PORTAL_URL is of no use: it must start with https:// or http://".to_owned());
        }
        Ok(Self {
            accounts_table: need("ACCOUNTS_TABLE")?,
            alert_queue_url: need("ALERT_QUEUE_URL")?,
            alert_topic_arn: value("ALERT_TOPIC_ARN"),
            mail_from,
            mail_configuration_set: value("MAIL_CONFIGURATION_SET"),
            mail_templates: value("MAIL_TEMPLATES").map(PathBuf::from),
            portal_url,
            ses_endpoint: value("AWS_ENDPOINT_URL_SESV2"),
            sns_endpoint: value("AWS_ENDPOINT_URL_SNS"),
        })
    }
}

fn is_sender(from: &str) -> bool {
    from.contains('@') && !from.contains(char::is_control)
}

/// Whether a text can be offered for clicking.
pub(crate) fn is_link(url: &str) -> bool {
    url.len() <= 2_048
        && (url.starts_with("https://") || url.starts_with("http://"))
        && !url.contains(|c: char| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::Config;

    #[test]
    fn a_missing_variable_is_named() {
        for missing in ["ACCOUNTS_TABLE", "ALERT_QUEUE_URL"] {
            for absent in [None, Some(String::new())] {
                let read = |name: &str| match name {
                    "ACCOUNTS_TABLE" | "ALERT_QUEUE_URL" if name != missing => Some("x".to_owned()),
                    _ => absent.clone(),
                };
                assert_eq!(Config::from_env(read), Err(format!("{missing} is not set")));
            }
        }
    }

    #[test]
    fn everything_else_is_optional() {
        let needed = |name: &str| {
            ["ACCOUNTS_TABLE", "ALERT_QUEUE_URL"]
                .contains(&name)
                .then(|| name.to_lowercase())
        };
        let config = Config {
            accounts_table: "accounts_table".to_owned(),
            alert_queue_url: "alert_queue_url".to_owned(),
            ..Config::default()
        };
        assert_eq!(Config::from_env(needed), Ok(config));

        let told = |name: &str| match name {
            "PORTAL_URL" => Some("https://portal.example".to_owned()),
            _ => Some(format!("{}@example.com", name.to_lowercase())),
        };
        let config = Config::from_env(told).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(config.alert_topic_arn.as_deref(), Some("alert_topic_arn@example.com"));
        assert_eq!(config.mail_from.as_deref(), Some("mail_from@example.com"));
        let set = config.mail_configuration_set.as_deref();
        assert_eq!(set, Some("mail_configuration_set@example.com"));
        assert_eq!(config.mail_templates, Some("mail_templates@example.com".into()));
        assert_eq!(
            config.ses_endpoint.as_deref(),
            Some("aws_endpoint_url_sesv2@example.com")
        );
        assert_eq!(config.sns_endpoint.as_deref(), Some("aws_endpoint_url_sns@example.com"));
    }

    #[test]
    fn values_of_no_use_are_named() {
        for (bad, value) in [
            ("MAIL_FROM", "Acme API"),
            ("MAIL_FROM", "a@b.example\nBcc: c@d.example"),
            ("PORTAL_URL", "javascript:alert(1)"),
            ("PORTAL_URL", "https://a b"),
        ] {
            let read = |name: &str| match name {
                "ACCOUNTS_TABLE" | "ALERT_QUEUE_URL" => Some("x".to_owned()),
                _ => (name == bad).then(|| value.to_owned()),
            };
            let error = Config::from_env(read).err().unwrap_or_default();
            assert!(error.starts_with(&format!("{bad} is of no use")), "{error}");
        }
    }
}
