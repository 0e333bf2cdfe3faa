//! The `farebox` command: `dev` runs the whole system on this machine, `demo` replays four days of real traffic through it and
//! closes the month, and the other commands are the operator's work on either a deployed stack or `farebox dev`.

mod alerts;
mod arguments;
mod aws;
mod contact;
mod cost;
mod counters;
mod customers;
mod demo;
mod deploy;
mod destroy;
mod dev;
mod doctor;
mod events;
mod failure;
mod follow;
mod keys;
mod period;
mod reach;
mod reconcile;
mod repair;
mod sam;
mod secrecy;
mod show;
mod stack;
mod tiers;
mod usage;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, error::ErrorKind};
use farebox_core::{
    account::{Customer, Standing},
    time::Period,
};

use crate::{
    arguments::{Arguments, Command, Dev, Tiers},
    failure::{Done, Failure},
    reach::Reach,
    secrecy::{is_secret, masked},
    show::Out,
};

/// `EX_USAGE` of sysexits.h.
const USAGE: u8 = 64;
const DAY_S: u64 = 86_400;

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("FAREBOX_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| secrecy::Log)
        .init();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return not_understood(&error),
    };
    let out = Out::new(arguments.json);
    match start(arguments, out) {
        Ok(done) => ExitCode::from(done.code()),
        Err(failure) => {
            let text = failure.to_string();
            let text = masked(&text, &[]);
            match out.is_json {
                true => out.aside(&serde_json::json!({ "error": text }).to_string()),
                false => out.aside(&format!("error: {text}")),
            }
            ExitCode::from(failure.code())
        }
    }
}

/// What is wrong with the command line, or the help that was asked for.
fn not_understood(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    let is_asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    // Nothing was understood, so nothing but the words themselves says whether a program reads the answer.
    let mut words = std::env::args_os().take_while(|word| word != "--");
    if !is_asked_for && words.any(|word| word == "--json") {
        Out::new(true).aside(&serde_json::json!({ "error": problem(error.kind(), &text) }).to_string());
    } else if is_secret(&text) {
        eprint!("{}", masked(&text, &[]));
    } else {
        drop(error.print());
    }
    ExitCode::from(if is_asked_for { 0 } else { USAGE })
}

/// What is wrong, without the usage that is printed under it for people.
fn problem(kind: ErrorKind, text: &str) -> String {
    if kind == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let below = text.split_once("\nCommands:\n").map_or("", |(_, below)| below);
        let lines = below.lines().take_while(|line| !line.is_empty());
        let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
        let names: Vec<&str> = names.filter(|name| !name.is_empty() && *name != "help").collect();
        return format!("a command is missing behind it: one of {}", names.join(", "));
    }
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let ends = ["\n\nUsage:", "\n\nFor more information"].map(|end| text.find(end).unwrap_or(text.len()));
    text[..ends[0].min(ends[1])].trim_end().to_owned()
}

fn start(arguments: Arguments, out: Out) -> Result<Done, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(Failure::failed)?.block_on(run(arguments, out))
}

async fn run(arguments: Arguments, out: Out) -> Result<Done, Failure> {
    let Arguments {
        dev, place, command, ..
    } = arguments;
    if out.is_json && matches!(command, None | Some(Command::Dev(_))) {
        return Err(Failure::usage(
            "`farebox dev` prints no JSON: leave --json away. What it holds is JSON at /_farebox/state and /_farebox/endpoints",
        ));
    }
    let place = place.settled()?;
    let Some(command) = command else {
        return dev::run(dev).await;
    };
    if dev != Dev::default() {
        return Err(Failure::usage("--port, --data and --tiers belong behind `farebox dev`"));
    }
    match command {
        Command::Dev(dev) => return dev::run(dev).await,
        Command::Demo => return demo::run(out).await,
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "farebox", &mut script);
            out.line(String::from_utf8_lossy(&script).trim_end())?;
            return Ok(Done::Well);
        }
        Command::Cost(cost) => return cost::run(&cost, out),
        Command::Deploy(options) => return deploy::run(options, &place, out).await,
        Command::Destroy(options) => return destroy::run(options, &place, out).await,
        // The file alone is looked at.
        Command::Tiers(Tiers::Check(file)) => return tiers::check(&file.file, out),
        _ => {}
    }
    let reach = Reach::of(&place).await?;
    match command {
        Command::Tiers(command) => tiers::run(command, &reach, out).await,
        Command::Customers(command) => customers::run(command, &reach, out).await,
        Command::Keys(command) => keys::run(command, &reach, out).await,
        Command::Usage(command) => usage::run(command, &reach, out).await,
        Command::Alerts(command) => alerts::run(command, &reach, out).await,
        Command::Reconcile(options) => reconcile::run(options, &reach, out).await,
        Command::Stripe(command) => repair::run(command, &reach, out).await,
        Command::Period(command) => period::run(command, &reach, out).await,
        Command::Events(command) => events::run(command, &reach, out).await,
        Command::Counters(command) => counters::run(command, &reach, out).await,
        Command::Doctor(options) => doctor::run(options, &reach, out).await,
        // Done above.
        Command::Dev(_)
        | Command::Cost(_)
        | Command::Demo
        | Command::Deploy(_)
        | Command::Destroy(_)
        | Command::Completions { .. } => Ok(Done::Well),
    }
}

/// Whether a customer's subscription has ended, and in which billing period it did.
pub(crate) fn ended_in(customer: &Customer, now_s: u64) -> Option<Period> {
    match customer.ends.filter(|&ends| ends <= now_s) {
        Some(ends) => Some(customer.cycle.period_at(ends.saturating_sub(1))),
        None => (customer.standing == Standing::Ended).then_some(customer.cycle.current),
    }
}

/// Refuses a billing period that ended before anything is known of a customer: its first one, its first change, its first key.
pub(crate) async fn had(customer: &Customer, period: Period, reach: &Reach) -> Result<(), Failure> {
    match first_known(customer, period, reach).await? {
        first if first < period.end => Ok(()),
        first => Err(Failure::NotFound(format!(
            "{} has no such billing period: nothing is known of it before {}",
            customer.id,
            show::time(first)
        ))),
    }
}

/// From when on a customer is known, as far as that has to be found out for a billing period.
pub(crate) async fn first_known(customer: &Customer, period: Period, reach: &Reach) -> Result<u64, Failure> {
    let cycle = &customer.cycle;
    // A trial lies before the anchor; who bought anew has an anchor of its own, and keys from before.
    let of_record = cycle.cuts.iter().copied().chain([cycle.anchor, cycle.current.start]);
    let first = of_record.min().unwrap_or(0);
    if first < period.end {
        return Ok(first);
    }
    let keys = reach.control.accounts.keys(&customer.id).await?;
    Ok(keys
        .iter()
        .map(|(_, key)| key.created.s())
        .chain([first])
        .min()
        .unwrap_or(0))
}

/// The billing period that `current`, `previous` or a date names: the one that begins on the date, else the one that it lies in.
pub(crate) fn period_of(customer: &Customer, name: &str, now_s: u64) -> Result<Period, Failure> {
    let current = customer.cycle.period_at(now_s);
    match name {
        "current" => Ok(current),
        "previous" => Ok(customer.cycle.period_at(current.start.saturating_sub(1))),
        date => {
            let wrong = |_| {
                Failure::usage(format!(
                    "{date:?} is neither current nor previous nor a date like 2026-11-30"
                ))
            };
            let date = chrono::NaiveDate::parse_from_str(date, "%Y-%m-%d").map_err(wrong)?;
            let s = date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp();
            let midnight = u64::try_from(s).unwrap_or(0);
            let period = customer.cycle.period_at(midnight);
            // Periods begin at any time of day: the one that begins on the date is meant before the one that ends on it.
            if period.start < midnight && period.end < midnight.saturating_add(DAY_S) {
                return Ok(customer.cycle.period_at(period.end));
            }
            Ok(period)
        }
    }
}
