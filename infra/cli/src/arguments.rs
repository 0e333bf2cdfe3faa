//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use farebox_billing::check_grant_id;
use farebox_core::{
    id::CustomerId,
    key::check_brand,
    tiers::{Pattern, TRIAL_DAYS_MAX},
};

use crate::{
    failure::{DOCTOR_EXIT_CODES, EXIT_CODES, Failure},
    reach::LOCAL,
    secrecy::is_secret,
};

/// What stands on a command line is in the shell's history and in every list of processes.
pub(crate) const SECRET_FOUND: &str = "that is a key or a secret, which does not belong on a command line: replace it";

/// Turns an API on Amazon API Gateway into a paid product.
#[derive(Parser)]
#[command(name = "farebox", version, about, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) dev: Dev,
    #[command(flatten)]
    pub(crate) place: Where,
    /// Print JSON instead of tables and sentences.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// How `farebox dev` runs.
#[derive(Args, Clone, Default, PartialEq, Eq)]
pub(crate) struct Dev {
    /// The gateway's port on 127.0.0.1 [default: 8787].
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) port: Option<u16>,
    /// Keep everything in this directory over restarts; without it, in memory.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The tiers to sell from now on; without it, what --data keeps, or at first the built-in example.
    #[arg(long, value_name = "FILE")]
    pub(crate) tiers: Option<PathBuf>,
    /// Write the functions' environment here, for `cargo lambda watch --env-file FILE`.
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Option<PathBuf>,
}

/// Which system is meant: a deployed stack, or `farebox dev`.
#[derive(Args, Clone)]
#[command(next_help_heading = "Which system")]
pub(crate) struct Where {
    /// The system that `farebox dev` runs on this machine.
    #[arg(long, global = true, value_name = "URL", num_args = 0..=1, require_equals = true,
          default_missing_value = LOCAL, env = "FAREBOX_LOCAL")]
    pub(crate) local: Option<String>,
    /// A profile of the AWS configuration files.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// The AWS region.
    #[arg(long, global = true)]
    pub(crate) region: Option<String>,
    /// The stack's name: tables and queues are called after it.
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        default_value = "farebox",
        env = "FAREBOX_STACK"
    )]
    pub(crate) stack: String,
    /// The accounts table, if its name is not <stack>-accounts.
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "ACCOUNTS_TABLE",
        hide_short_help = true
    )]
    pub(crate) accounts_table: Option<String>,
    /// The counters table, if its name is not <stack>-counters.
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "COUNTERS_TABLE",
        hide_short_help = true
    )]
    pub(crate) counters_table: Option<String>,
    /// The ledger table, if its name is not <stack>-ledger.
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "LEDGER_TABLE",
        hide_short_help = true
    )]
    pub(crate) ledger_table: Option<String>,
    /// Another address of DynamoDB.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "AWS_ENDPOINT_URL_DYNAMODB",
        hide_short_help = true
    )]
    pub(crate) endpoint_url_dynamodb: Option<String>,
    /// Another address of SQS.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "AWS_ENDPOINT_URL_SQS",
        hide_short_help = true
    )]
    pub(crate) endpoint_url_sqs: Option<String>,
    /// Another address of Stripe. Its key is read from STRIPE_SECRET_KEY.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "STRIPE_BASE_URL",
        hide_short_help = true
    )]
    pub(crate) stripe_url: Option<String>,
}

impl Where {
    /// `FAREBOX_LOCAL=` means no local system, as if it were not set. `--local=` is refused: what it was to name is not there, and
    /// a deployed stack is not what was meant.
    pub(crate) fn settled(mut self) -> Result<Self, Failure> {
        if std::env::args_os().any(|word| word == "--local=") {
            return Err(Failure::usage(
                "--local= names no address: write --local, or --local=http://127.0.0.1:PORT",
            ));
        }
        self.local = self.local.filter(|url| !url.is_empty());
        Ok(self)
    }
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run the whole system on this machine and stay (the default).
    Dev(Dev),
    /// Replay four days of real traffic, close the billing period and compare every count with every invoice.
    Demo,
    /// Check tiers.yaml, compare it with what is sold, and sell what it says.
    #[command(subcommand)]
    Tiers(Tiers),
    /// Add, show and change customers.
    #[command(subcommand)]
    Customers(Customers),
    /// Issue, rotate, revoke and list API keys.
    #[command(subcommand)]
    Keys(Keys),
    /// See what is used.
    #[command(subcommand)]
    Usage(Usage),
    /// See and try out alerts.
    #[command(subcommand)]
    Alerts(Alerts),
    /// Compare counters, ledger, Stripe and invoices; exits with 0 only if nothing differs.
    #[command(after_help = EXIT_CODES)]
    Reconcile(Reconcile),
    /// Billing periods.
    #[command(subcommand)]
    Period(PeriodCommand),
    /// What only the operator can settle between the ledger and Stripe.
    #[command(subcommand)]
    Stripe(StripeCommand),
    /// Dead-letter queues.
    #[command(subcommand)]
    Events(Events),
    /// Counter items.
    #[command(subcommand)]
    Counters(CountersCommand),
    /// Look at everything that billing depends on and say what is wrong, what it costs and what mends it. Changes nothing.
    #[command(after_help = DOCTOR_EXIT_CODES)]
    Doctor(Doctor),
    /// Build and deploy the stack: SAM with the right flags. It needs sam 1.170 or later, and cargo-lambda.
    #[command(after_help = EXIT_CODES)]
    Deploy(Deploy),
    /// Take the stack down. The tables stay, unless told otherwise twice.
    #[command(after_help = EXIT_CODES)]
    Destroy(Destroy),
    /// Estimate the monthly AWS bill, line by line, from a dated price table.
    Cost(Cost),
    /// Print the completions of a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Subcommand)]
pub(crate) enum Tiers {
    /// Report every mistake of the file at once.
    #[command(after_help = EXIT_CODES)]
    Check(TiersFile),
    /// Say what the file changes, and what Stripe lacks; exits with 2 if anything is pending.
    ///
    /// Customers stay on what they were sold until `customers set-tier` moves them, which also takes back that a customer is to
    /// leave.
    #[command(after_help = EXIT_CODES)]
    Diff(TiersFile),
    /// Make what Stripe lacks, then store the catalog. Nothing is ever deleted.
    #[command(after_help = EXIT_CODES)]
    Apply {
        #[command(flatten)]
        file: TiersFile,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
        #[command(flatten)]
        trial: DryRun,
    },
}

/// What `farebox doctor` compares.
#[derive(Args)]
pub(crate) struct Doctor {
    /// Compare this file with what is sold, too.
    #[arg(long, value_name = "FILE")]
    pub(crate) tiers: Option<PathBuf>,
}

/// How a stack is deployed.
#[derive(Args)]
pub(crate) struct Deploy {
    /// The template; without it, Farebox's own in this directory or above.
    #[arg(long, value_name = "FILE")]
    pub(crate) template: Option<PathBuf>,
    /// A parameter of the template (`StripeKeySecretArn=arn:…`), several times for several. Others keep their values.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) parameter: Vec<String>,
    /// Check this file first: nothing is deployed if it has mistakes.
    #[arg(long, value_name = "FILE")]
    pub(crate) tiers: Option<PathBuf>,
    /// Let SAM ask for every parameter and remember the answers.
    #[arg(long, conflicts_with = "yes")]
    pub(crate) guided: bool,
    /// Do not ask before the changes are made.
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Print the commands that would be run.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// How a stack is taken down.
#[derive(Args)]
pub(crate) struct Destroy {
    /// The stack's name once more, where nobody can be asked.
    #[arg(long, value_name = "STACK")]
    pub(crate) yes: Option<String>,
    /// Give up usage that is not in Stripe yet, and messages in queues.
    #[arg(long)]
    pub(crate) force: bool,
    /// Delete the tables as well: every customer, key and count. Each is backed up first.
    #[arg(long)]
    pub(crate) delete_tables: bool,
    /// `delete STACK`, where nobody can be asked.
    #[arg(long, value_name = "TEXT", requires = "delete_tables")]
    pub(crate) yes_tables: Option<String>,
    #[command(flatten)]
    pub(crate) trial: DryRun,
}

#[derive(Args)]
pub(crate) struct TiersFile {
    /// The file.
    #[arg(default_value = "tiers.yaml")]
    pub(crate) file: PathBuf,
}

#[derive(Args, Clone, Copy)]
pub(crate) struct DryRun {
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Subcommand)]
pub(crate) enum Customers {
    /// Sell a tier to a new customer.
    #[command(after_help = EXIT_CODES)]
    Add(AddCustomer),
    /// Show a customer.
    Show {
        /// The customer's id.
        id: CustomerArg,
    },
    /// List all customers.
    List,
    /// Sell another tier, or the newest catalog's version of the same one. Who is to leave stays.
    ///
    /// A cancellation is taken back with that, also by the tier that the customer has already: `set-tier ID TIER` with the same
    /// tier is how to take one back.
    #[command(after_help = EXIT_CODES)]
    SetTier {
        /// The customer's id.
        id: CustomerArg,
        /// The tier.
        tier: String,
        /// At the end of the billing period instead of now.
        #[arg(long)]
        at_period_end: bool,
        /// The catalog's version; without it, the newest.
        #[arg(long, allow_negative_numbers = true)]
        catalog: Option<u64>,
        /// What is agreed, as JSON; without it, what is agreed already if the tier stays the same.
        #[arg(long, value_name = "FILE")]
        r#override: Option<PathBuf>,
        #[command(flatten)]
        trial: DryRun,
    },
    /// End the subscription: what is used is reported first.
    ///
    /// At once, it can't be taken back. At the period's end it can until then: with `set-tier` and the same tier.
    #[command(after_help = EXIT_CODES)]
    Cancel {
        /// The customer's id.
        id: CustomerArg,
        /// At the end of the billing period instead of now.
        #[arg(long)]
        at_period_end: bool,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
        #[command(flatten)]
        trial: DryRun,
    },
    /// Give units for the present billing period.
    Grant {
        /// The customer's id.
        id: CustomerArg,
        /// How many units.
        #[arg(value_parser = units, allow_negative_numbers = true)]
        units: u64,
        /// The meter.
        #[arg(long, default_value = farebox_core::tiers::DEFAULT_METER)]
        meter: String,
        /// Names the grant: giving the same one again changes nothing. Without it, each call gives anew.
        #[arg(long = "id", value_name = "GRANT", value_parser = grant_id)]
        grant: Option<String>,
        #[command(flatten)]
        trial: DryRun,
    },
    /// Set the most that usage may cost in a billing period, or take that cap away.
    Cap {
        /// The customer's id.
        id: CustomerArg,
        /// The amount in the tier's currency (`100`, `99.50`), or `none`.
        #[arg(allow_negative_numbers = true)]
        amount: String,
        /// The meter.
        #[arg(long, default_value = farebox_core::tiers::DEFAULT_METER)]
        meter: String,
        #[command(flatten)]
        trial: DryRun,
    },
    /// Refuse every request, from the next one on.
    Suspend {
        /// The customer's id.
        id: CustomerArg,
        #[command(flatten)]
        trial: DryRun,
    },
    /// Let a suspended customer in again.
    Resume {
        /// The customer's id.
        id: CustomerArg,
        #[command(flatten)]
        trial: DryRun,
    },
    /// Ask Stripe what holds and let the records agree, as each event does: for events that did not come.
    Follow {
        /// The customer's id; without it all that have a subscription.
        id: Option<CustomerArg>,
        #[command(flatten)]
        trial: DryRun,
    },
    /// Change where alerts go. An empty value takes an address away.
    Contact {
        /// The customer's id.
        id: CustomerArg,
        /// Where mail goes.
        #[arg(long)]
        email: Option<String>,
        /// The https address that is called.
        #[arg(long)]
        webhook: Option<String>,
        /// Sign calls with a new secret, shown once; the one before stays valid until the next rotation.
        #[arg(long)]
        rotate_webhook_secret: bool,
        #[command(flatten)]
        trial: DryRun,
    },
}

#[derive(Args)]
pub(crate) struct AddCustomer {
    /// The customer's id: 1 to 64 letters, digits, '_', '-' or '.'.
    pub(crate) id: CustomerArg,
    /// The tier.
    #[arg(long)]
    pub(crate) tier: String,
    /// The name that people know, 1 to 128 characters; without it, the id.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Where alerts and Stripe's mail go.
    #[arg(long)]
    pub(crate) email: Option<String>,
    /// The https address that is called with alerts; its signing secret is shown once.
    #[arg(long)]
    pub(crate) webhook: Option<String>,
    /// Days of trial in place of the tier's, up to 730.
    #[arg(long, allow_negative_numbers = true,
          value_parser = clap::value_parser!(u32).range(0..=i64::from(TRIAL_DAYS_MAX)))]
    pub(crate) trial_days: Option<u32>,
    /// What is agreed with this customer, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) r#override: Option<PathBuf>,
    /// Issue a key at once, shown once.
    #[arg(long)]
    pub(crate) key: bool,
    #[command(flatten)]
    pub(crate) brand: Brand,
    #[command(flatten)]
    pub(crate) trial: DryRun,
}

#[derive(Args)]
pub(crate) struct Brand {
    /// What stands in front of keys: a lower-case letter and up to 15 more or digits.
    #[arg(long, default_value = "fb", env = "FAREBOX_KEY_BRAND", value_parser = brand)]
    pub(crate) brand: String,
}

#[derive(Subcommand)]
pub(crate) enum Keys {
    /// Issue a key. It is shown once, alone on stdout.
    Issue {
        /// The customer's id.
        customer: CustomerArg,
        /// What its owner calls it: 1 to 128 characters.
        #[arg(long)]
        name: Option<String>,
        /// A route that it opens (`GET /v1/*`), several times for several; without it, all of the tier's.
        #[arg(long)]
        scope: Vec<Pattern>,
        /// When it expires: `90d`, or a date like 2027-01-31.
        #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
        expires: Option<String>,
        /// A test key, as on `farebox dev` and with a test key of Stripe's anyway.
        #[arg(long)]
        test: bool,
        #[command(flatten)]
        brand: Brand,
        #[command(flatten)]
        trial: DryRun,
    },
    /// Issue a key in place of another one, which stays valid for a while.
    Rotate {
        /// The key's hash, the beginning of it (8 digits or more), or its prefix as `keys list` shows it.
        key: String,
        /// How long the old one stays valid: `24h`, `30min`, `7d`, `0`.
        #[arg(long, default_value = "24h", value_parser = duration_s, allow_hyphen_values = true)]
        grace: u64,
        #[command(flatten)]
        trial: DryRun,
    },
    /// Refuse a key, from the next request on and for ever.
    Revoke {
        /// The key's hash, the beginning of it (8 digits or more), or its prefix as `keys list` shows it.
        key: String,
        #[command(flatten)]
        trial: DryRun,
    },
    /// List a customer's keys.
    List {
        /// The customer's id.
        customer: CustomerArg,
    },
}

#[derive(Subcommand)]
pub(crate) enum Usage {
    /// Units, what is included, what it costs so far, and the limits.
    Show {
        /// The customer's id.
        customer: CustomerArg,
        /// `current`, `previous`, or a date: the billing period that begins on it, else the one that it lies in.
        #[arg(long, default_value = "current")]
        period: String,
    },
    /// Who uses most in the present billing period.
    Top {
        /// How many.
        #[arg(short, default_value_t = 10, allow_negative_numbers = true,
              value_parser = clap::value_parser!(u32).range(1..))]
        n: u32,
    },
    /// Follow counters and ledger rows until Ctrl-C. Without a customer both tables are scanned each time.
    Tail {
        /// The customer's id.
        customer: Option<CustomerArg>,
        /// Seconds between two looks.
        #[arg(long, default_value_t = 1, allow_negative_numbers = true,
              value_parser = clap::value_parser!(u64).range(1..=3600))]
        every: u64,
        /// Stop after so many looks.
        #[arg(long, hide = true)]
        looks: Option<u64>,
    },
}

#[derive(Subcommand)]
pub(crate) enum Alerts {
    /// Send an alert through the queue, as it is now: to a customer, or to the operator.
    Test {
        /// The customer's id.
        #[arg(required_unless_present = "operator", conflicts_with = "operator")]
        customer: Option<CustomerArg>,
        /// To the operator's topic.
        #[arg(long)]
        operator: bool,
        #[command(flatten)]
        trial: DryRun,
    },
    /// List a customer's alerts and what became of each.
    List {
        /// The customer's id.
        customer: CustomerArg,
    },
}

#[derive(Args)]
pub(crate) struct Reconcile {
    /// The customer's id; without it, everybody: then rows are asked for one by one only where a sum is off.
    pub(crate) customer: Option<CustomerArg>,
    /// `current`, `previous`, or a date: the billing period that begins on it, else the one that it lies in. With --invoice the
    /// default is `previous`; once the subscription has ended, the period in which it did.
    #[arg(long)]
    pub(crate) period: Option<String>,
    /// Compare the invoice too: quantities, and the amount that the terms come to.
    #[arg(long)]
    pub(crate) invoice: bool,
    /// Show every row, not only those with something to say.
    #[arg(long)]
    pub(crate) rows: bool,
}

#[derive(Subcommand)]
pub(crate) enum PeriodCommand {
    /// Report everything of a customer's ended billing periods to Stripe, due or not.
    #[command(after_help = EXIT_CODES)]
    Close {
        /// The customer's id.
        customer: CustomerArg,
        /// Up to the start of the running hour, not only to that of the present period.
        #[arg(long)]
        now: bool,
        #[command(flatten)]
        trial: DryRun,
    },
}

#[derive(Subcommand)]
pub(crate) enum StripeCommand {
    /// Settle parked rows: delivered if Stripe has exactly their value, sent again if it has nothing.
    #[command(after_help = EXIT_CODES)]
    Repair {
        #[command(flatten)]
        trial: DryRun,
    },
}

#[derive(Subcommand)]
pub(crate) enum Events {
    /// Send dead letters back to their queue. What can't be read stays, and is counted but not quoted.
    #[command(after_help = EXIT_CODES)]
    Replay {
        /// Which queue; without it, both.
        #[arg(long)]
        queue: Option<QueueName>,
        #[command(flatten)]
        trial: DryRun,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum QueueName {
    /// Usage messages.
    Usage,
    /// Alerts.
    Alerts,
}

#[derive(Subcommand)]
pub(crate) enum CountersCommand {
    /// Bring a counter item that came back from a backup into service, or make one anew that is missing.
    Restore {
        /// The customer's id.
        customer: CustomerArg,
        /// Which of the customer's counter items, from 0.
        #[arg(allow_negative_numbers = true)]
        shard: u32,
        #[command(flatten)]
        trial: DryRun,
    },
}

/// A customer's id as an argument.
#[derive(Clone, Debug)]
pub(crate) struct CustomerArg(pub(crate) CustomerId);

impl std::str::FromStr for CustomerArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_secret(text) {
            return Err(SECRET_FOUND.to_owned());
        }
        let id = CustomerId::try_from(text.to_owned());
        id.map(Self).map_err(|problem| problem.to_string())
    }
}

/// A name that people gave something.
pub(crate) fn name(text: &str) -> Result<&str, Failure> {
    if is_secret(text) {
        return Err(Failure::usage(format!("a name is seen by others: {SECRET_FOUND}")));
    }
    let is_fine = (1..=128).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    match is_fine {
        true => Ok(text),
        false => Err(Failure::usage(
            "a name is 1 to 128 characters without control characters",
        )),
    }
}

/// What names a grant.
fn grant_id(text: &str) -> Result<String, String> {
    check_grant_id(text).map_err(|problem| problem.to_string())?;
    Ok(text.to_owned())
}

/// What stands in front of keys.
fn brand(text: &str) -> Result<String, String> {
    check_brand(text).map_err(|problem| problem.to_string())?;
    Ok(text.to_owned())
}

/// A count of units: `1000`, `1_000`.
fn units(text: &str) -> Result<u64, String> {
    match text.replace(['_', ','], "").parse() {
        Ok(0) | Err(_) => Err("expected a whole number of units, at least 1".to_owned()),
        Ok(units) if units > farebox_core::message::UNITS_MAX => Err("at most 15 digits".to_owned()),
        Ok(units) => Ok(units),
    }
}

/// A duration in seconds: `24h`, `30min`, `7d`, `90s`, `0`.
pub(crate) fn duration_s(text: &str) -> Result<u64, String> {
    let wrong = || "expected a duration like 24h, 30min, 7d or 0".to_owned();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_s: u64 = match unit {
        "" if number == 0 => 0,
        "s" => 1,
        "min" | "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(unit_s)
        .filter(|&s| s <= 3_660 * 86_400)
        .ok_or_else(wrong)
}

/// What the bill is estimated for.
#[derive(Args)]
pub(crate) struct Cost {
    /// Calls a month: `10M`, `1.5M`, `250k`, `1500000`.
    #[arg(long, value_parser = calls, allow_hyphen_values = true)]
    pub(crate) calls: u64,
    /// Customers.
    #[arg(long, default_value_t = 100, allow_negative_numbers = true)]
    pub(crate) customers: u32,
    /// How many of a hundred calls are denied from memory, which costs no write.
    #[arg(long, default_value_t = 0, value_name = "PERCENT", allow_negative_numbers = true,
          value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) remembered: u8,
}

/// `10M` is ten million; `k`, `M` and `G` are powers of a thousand, of which there may be a fraction: `1.5M`.
fn calls(text: &str) -> Result<u64, String> {
    let wrong = || "expected a whole number of calls, like 1500000, 250k or 1.5M".to_owned();
    let (number, unit) = match text.char_indices().last() {
        Some((i, 'k' | 'K')) => (&text[..i], 1_000),
        Some((i, 'm' | 'M')) => (&text[..i], 1_000_000),
        Some((i, 'g' | 'G')) => (&text[..i], 1_000_000_000),
        _ => (text, 1),
    };
    let (whole, fraction) = match number.split_once('.') {
        Some((_, "")) => return Err(wrong()),
        Some((whole, fraction)) => (whole, fraction.trim_end_matches('0')),
        None => (number, ""),
    };
    let digits = format!("{whole}{fraction}");
    if whole.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let parts = u32::try_from(fraction.len())
        .ok()
        .and_then(|places| 10u64.checked_pow(places));
    let (digits, parts) = (digits.parse::<u64>().ok(), parts.filter(|parts| unit % parts == 0));
    let calls = digits
        .zip(parts)
        .and_then(|(digits, parts)| digits.checked_mul(unit / parts));
    calls.ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_whole_and_may_be_written_with_a_fraction_of_a_unit() {
        for (text, expected) in [
            ("1500000", 1_500_000),
            ("250k", 250_000),
            ("10M", 10_000_000),
            ("1.5M", 1_500_000),
            ("0.000001M", 1),
            ("2.50G", 2_500_000_000),
            ("1.0", 1),
        ] {
            assert_eq!(calls(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "k",
            "-5",
            "+5",
            "1.5",
            "1.M",
            ".5M",
            "1.2.3M",
            "1.0000001M",
            "ten",
            "99999999999999999999",
        ] {
            assert!(calls(text).is_err(), "{text}");
        }
    }
}
