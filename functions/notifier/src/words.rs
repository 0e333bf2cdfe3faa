//! What mails can say: the names that a template may use, and their values for a message.

use chrono::{DateTime, SecondsFormat};
use farebox_core::{
    alert::{AlertMessage, Occasion, Recipient},
    money::{Currency, Money},
};

use crate::config::is_link;

/// Longer values are cut: a mail is read by people, a subject is a line.
const VALUE_CHARS_MAX: usize = 200;

/// The kinds of mail, and the names that a template of that kind may use.
pub(crate) const KINDS: [(&str, &[&str]); 5] = [
    (
        "quota_threshold",
        &[
            "tier",
            "meter",
            "percent",
            "units",
            "included",
            "period_start",
            "period_end",
            "is_reached",
            "is_overage",
            "is_throttle",
            "is_block",
        ],
    ),
    (
        "spend_cap",
        &[
            "tier",
            "meter",
            "percent",
            "units",
            "cap_units",
            "cap",
            "period_start",
            "period_end",
            "is_reached",
        ],
    ),
    (
        "payment_failed",
        &[
            "invoice",
            "amount",
            "attempts",
            "next_attempt",
            "pay_url",
            "policy_from",
            "is_ahead",
            "is_throttle",
            "is_block",
        ],
    ),
    ("trial_ending", &["tier", "trial_end"]),
    ("key_expiring", &["key_name", "key_prefix", "key_last_four", "expires"]),
];

/// What every mail may say besides.
pub(crate) const COMMON: [&str; 3] = ["customer", "customer_id", "portal_url"];

/// Values by name. What is not there is empty, and a section that asks for it is left out.
pub(crate) struct Values(Vec<(&'static str, String)>);

impl Values {
    /// What a mail about this message can say. Nothing but the message and the configuration is looked at.
    pub(crate) fn of(message: &AlertMessage, customer: &Recipient, portal_url: Option<&str>) -> Self {
        let mut values = Self(Vec::new());
        values.set("customer", clip(&customer.name));
        values.set("customer_id", customer.id.to_string());
        values.set("portal_url", portal_url.unwrap_or_default().to_owned());
        values.say(&message.occasion, message.at.s());
        values
    }

    pub(crate) fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map_or("", |(_, value)| value.as_str())
    }

    /// The names that have a value, if an empty one.
    #[cfg(test)]
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|(name, _)| *name).collect()
    }

    fn set(&mut self, name: &'static str, value: String) {
        self.0.push((name, value));
    }

    fn mark(&mut self, name: &'static str, is_so: bool) {
        self.set(name, if is_so { "yes" } else { "" }.to_owned());
    }

    fn say(&mut self, occasion: &Occasion, at_s: u64) {
        match occasion {
            Occasion::QuotaThreshold {
                tier,
                meter,
                percent,
                units,
                included,
                period,
                at_quota,
            } => {
                self.set("tier", clip(tier));
                self.set("meter", meter_name(meter));
                self.set("percent", percent.to_string());
                self.set("units", grouped(*units));
                self.set("included", grouped(*included));
                self.set("period_start", date(period.start));
                self.set("period_end", date(period.end));
                self.mark("is_reached", *percent >= 100);
                self.mark("is_overage", at_quota == "overage");
                self.mark("is_throttle", at_quota == "throttle");
                self.mark("is_block", at_quota == "block");
            }
            Occasion::SpendCap {
                tier,
                meter,
                percent,
                units,
                cap_units,
                cap,
                currency,
                period,
            } => {
                self.set("tier", clip(tier));
                self.set("meter", meter_name(meter));
                self.set("percent", percent.to_string());
                self.set("units", grouped(*units));
                self.set("cap_units", grouped(*cap_units));
                self.set("cap", cap.display(*currency));
                self.set("period_start", date(period.start));
                self.set("period_end", date(period.end));
                self.mark("is_reached", *percent >= 100);
            }
            Occasion::PaymentFailed {
                invoice,
                amount_due,
                currency,
                attempts,
                next_attempt,
                pay_url,
                policy,
                policy_from,
            } => {
                self.set("invoice", clip(invoice));
                self.set("amount", amount(*amount_due, currency));
                self.set("attempts", grouped(*attempts));
                self.set("next_attempt", next_attempt.map(date).unwrap_or_default());
                let pay_url = pay_url.as_deref().filter(|url| is_link(url));
                self.set("pay_url", pay_url.unwrap_or_default().to_owned());
                self.set("policy_from", date(*policy_from));
                self.mark("is_ahead", *policy_from > at_s);
                self.mark("is_throttle", policy == "throttle");
                self.mark("is_block", policy == "block");
            }
            Occasion::TrialEnding { tier, trial_end } => {
                self.set("tier", clip(tier));
                self.set("trial_end", date(*trial_end));
            }
            Occasion::KeyExpiring {
                name,
                prefix,
                last_four,
                expires,
            } => {
                self.set("key_name", clip(name));
                self.set("key_prefix", clip(prefix));
                self.set("key_last_four", clip(last_four));
                self.set("expires", date(*expires));
            }
            Occasion::Operator { .. } => {}
        }
    }
}

/// One line of at most 200 characters.
pub(crate) fn clip(text: &str) -> String {
    let mut line: String = text
        .chars()
        .take(VALUE_CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(VALUE_CHARS_MAX).is_some() {
        line.push('…');
    }
    line
}

/// `2026-12-01T00:00:00Z`; what lies beyond the calendar is the epoch.
pub(crate) fn rfc3339(s: u64) -> String {
    time(s).to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// `1 December 2026, 00:00 UTC`.
fn date(s: u64) -> String {
    time(s).format("%-d %B %Y, %H:%M UTC").to_string()
}

fn time(s: u64) -> DateTime<chrono::Utc> {
    let time = i64::try_from(s).ok().and_then(|s| DateTime::from_timestamp(s, 0));
    time.unwrap_or(DateTime::UNIX_EPOCH)
}

/// `1,234,567`.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `api_calls` is `API calls`.
fn meter_name(meter: &str) -> String {
    let words: Vec<&str> = meter
        .split('_')
        .map(|word| if word == "api" { "API" } else { word })
        .collect();
    clip(&words.join(" "))
}

/// Stripe's amounts are signed and name any currency; one that we don't know is shown as Stripe counts it.
fn amount(minor: i64, currency: &str) -> String {
    let known: Option<Currency> = currency.parse().ok();
    let sign = if minor < 0 { "-" } else { "" };
    match known {
        Some(known) => format!("{sign}{}", Money(minor.unsigned_abs()).display(known)),
        None => format!("{minor} {} (in the smallest unit)", clip(currency).to_uppercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::{amount, clip, date, grouped, meter_name, rfc3339};

    #[test]
    fn figures_are_written_for_people() {
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(date(1_796_083_200), "1 December 2026, 00:00 UTC");
        assert_eq!(rfc3339(1_796_083_200), "2026-12-01T00:00:00Z");
        assert_eq!(rfc3339(u64::MAX), "1970-01-01T00:00:00Z");
        assert_eq!(meter_name("api_calls"), "API calls");
        assert_eq!(meter_name("tokens"), "tokens");
        assert_eq!(amount(4_900, "usd"), "$49.00");
        assert_eq!(amount(-4_900, "EUR"), "-€49.00");
        assert_eq!(amount(i64::MIN, "jpy"), "-¥9223372036854775808");
        assert_eq!(amount(1_500, "kwd"), "1500 KWD (in the smallest unit)");
    }

    #[test]
    fn values_are_one_short_line() {
        assert_eq!(clip("a\r\nBcc: b"), "a  Bcc: b");
        assert_eq!(clip(&"é".repeat(200)), "é".repeat(200));
        assert_eq!(clip(&"é".repeat(201)), format!("{}…", "é".repeat(200)));
    }
}
