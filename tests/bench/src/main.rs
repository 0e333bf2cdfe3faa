//! The real authorizer under an emulated Lambda, beside the least that could do its work and what else is used for it.
//!
//! `tests/bench/run.sh` builds everything and runs this; `README.md` has the figures and what they mean.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command that prints a report"
)]

mod callgrind;
mod emulator;
mod function;
mod proxy;
mod recovery;
mod report;
mod soak;
mod store;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use axum::body::Bytes;
use clap::{Parser, Subcommand};

use crate::{
    function::{Function, Program},
    report::{Cold, Figures},
    store::Store,
};

/// Measures the authorizer and prints a table. Exits with an error only if something does not work.
#[derive(Parser)]
struct Arguments {
    /// Fewer rounds: whether everything works, with figures that are only roughly right.
    #[arg(long)]
    quick: bool,
    /// Where the binaries are that `cargo build --profile lambda` made.
    #[arg(long, default_value = "target/lambda")]
    binaries: PathBuf,
    /// Where the bundled contestants in Node are.
    #[arg(long, default_value = "tests/bench/node/dist")]
    node: PathBuf,
    /// Where logs and profiles go.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    #[command(subcommand)]
    other: Option<Other>,
}

/// What else can be measured.
#[derive(Subcommand)]
enum Other {
    /// Serves on a bad network for a long time: memory must stay, and counts must agree.
    Soak {
        /// For how long.
        #[arg(long, default_value_t = 60)]
        minutes: u64,
        /// How many of a thousand calls to the table and the queue are dropped.
        #[arg(long, default_value_t = 10)]
        per_mille: u32,
        /// How many decisions each environment makes in a second; as many as it can by default.
        #[arg(long)]
        per_second: Option<NonZeroU32>,
    },
    /// Lets Stripe be gone for an hour, and sees how long the reports take after that.
    Recovery {
        /// How many customers have something to report.
        #[arg(long, default_value_t = 10_000)]
        customers: usize,
    },
}

/// How much is done.
struct Effort {
    rounds: u32,
    batch: u32,
    warm_up: u32,
    cold_starts: u32,
    profiled: (u64, u64),
}

/// One way to decide a request.
struct Contestant {
    name: &'static str,
    what: &'static str,
    program: Program,
    binary: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("bench: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), String> {
    let effort = if arguments.quick {
        Effort {
            rounds: 3,
            batch: 60,
            warm_up: 60,
            cold_starts: 3,
            profiled: (20, 60),
        }
    } else {
        Effort {
            rounds: 20,
            batch: 150,
            warm_up: 600,
            cold_starts: 15,
            profiled: (100, 500),
        }
    };
    std::fs::create_dir_all(&arguments.out).map_err(|e| format!("{}: {e}", arguments.out.display()))?;
    match arguments.other {
        Some(Other::Soak {
            minutes,
            per_mille,
            per_second,
        }) => {
            let pause = per_second.map_or(Duration::ZERO, |n| Duration::from_secs(1) / n.get());
            return soak::run(&arguments, minutes, per_mille, pause).await;
        }
        Some(Other::Recovery { customers }) => return recovery::run(customers).await,
        None => {}
    }
    let store = Store::start(store::TIERS, "bench").await?;
    store.add_others().await?;
    let contestants = contestants(&arguments, &store);
    for contestant in &contestants {
        if !contestant.files().iter().all(|file| file.exists()) {
            return Err(format!("{} is not built; start tests/bench/run.sh", contestant.name));
        }
    }
    let mut figures: Vec<Figures> = contestants.iter().map(|c| Figures::new(c.name, c.what)).collect();

    check_starts(&contestants[0].program, &store, &arguments.out).await?;
    eprintln!("warm decisions, {} rounds of {} in turn", effort.rounds, effort.batch);
    let before = store.counted(&store.sold).await?;
    let admitted = warm(&contestants, &store, &effort, &arguments.out, &mut figures).await?;
    check_count(&store, before + admitted).await?;
    eprintln!("store operations");
    operations(&contestants, &store, &arguments.out, &mut figures).await?;
    eprintln!("cold starts");
    cold(&contestants, &store, &effort, &arguments.out, &mut figures).await?;
    for (contestant, figures) in contestants.iter().zip(&mut figures) {
        figures.binary_bytes = contestant
            .binary
            .as_ref()
            .and_then(|path| Some(path.metadata().ok()?.len()));
    }
    if callgrind::is_there() {
        eprintln!("instructions");
        for (contestant, figures) in contestants.iter().zip(&mut figures).filter(|(c, _)| c.binary.is_some()) {
            let counted = callgrind::instructions(
                &contestant.program,
                &store.event,
                effort.profiled,
                &arguments.out,
                contestant.name,
            );
            figures.instructions = Some(counted.await?);
        }
    } else {
        eprintln!("no valgrind: instructions stay empty");
    }
    println!("{}", report::machine());
    println!("{}", report::table(&figures));
    println!("{}", report::verdicts(&figures));
    Ok(())
}

fn contestants(arguments: &Arguments, store: &Store) -> Vec<Contestant> {
    let [dynamodb, sqs] = store.addresses();
    let environment: Vec<(String, String)> = [
        ("PATH", std::env::var("PATH").unwrap_or_default()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLEEXAMPLE00".to_owned()),
        (
            "AWS_SECRET_ACCESS_KEY",
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
        ),
        ("AWS_LAMBDA_FUNCTION_NAME", "bench-authorizer".to_owned()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256".to_owned()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
        ("AWS_ENDPOINT_URL_DYNAMODB", format!("http://{dynamodb}")),
        ("AWS_ENDPOINT_URL_SQS", format!("http://{sqs}")),
        ("ACCOUNTS_TABLE", store.system.tables().accounts.clone()),
        ("COUNTERS_TABLE", store.system.tables().counters.clone()),
        ("USAGE_QUEUE_URL", store.system.queues().usage.clone()),
        ("LIMITER_TABLE", "rate-limiter-flexible".to_owned()),
        ("NODE_ENV", "production".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let program = |command: Vec<&Path>| Program {
        command: command.into_iter().map(|part| part.display().to_string()).collect(),
        environment: environment.clone(),
    };
    let binary = |name: &'static str, what, file: &str| {
        let path = arguments.binaries.join(file);
        Contestant {
            name,
            what,
            program: program(vec![&path]),
            binary: Some(path),
        }
    };
    let node = |name: &'static str, what, file: &str| Contestant {
        name,
        what,
        program: program(vec![Path::new("node"), &arguments.node.join(file)]),
        binary: None,
    };
    vec![
        binary("farebox", "the authorizer", "farebox-authorizer"),
        binary("bare", "(a) one UpdateItem, same SDK and profile", "farebox-bench-bare"),
        node("node", "(b) Node, same single update, SDK v3 bundled", "update.mjs"),
        node("limiter", "(c) Node, rate-limiter-flexible on DynamoDB", "limiter.mjs"),
    ]
}

impl Contestant {
    fn files(&self) -> Vec<PathBuf> {
        self.program
            .command
            .iter()
            .filter(|part| part.contains('/'))
            .map(PathBuf::from)
            .collect()
    }
}

/// Rounds in which everybody has a turn, so that what else the machine does meets all of them. Returns how often the
/// authorizer admitted.
async fn warm(
    contestants: &[Contestant],
    store: &Store,
    effort: &Effort,
    out: &Path,
    figures: &mut [Figures],
) -> Result<u64, String> {
    let mut running = Vec::new();
    for contestant in contestants {
        let function = Function::start(&contestant.program, &out.join(format!("{}.log", contestant.name))).await?;
        for _ in 0..effort.warm_up {
            decide(&function, &store.event, contestant.name).await?;
        }
        running.push(function);
    }
    for _ in 0..effort.rounds {
        for ((contestant, function), figures) in contestants.iter().zip(&running).zip(figures.iter_mut()) {
            function.rest().await;
            let before = function.cpu();
            for _ in 0..effort.batch {
                figures
                    .latencies
                    .push(decide(function, &store.event, contestant.name).await?);
            }
            function.rest().await;
            figures.cpu.push((function.cpu() - before) / effort.batch);
        }
    }
    for (function, figures) in running.into_iter().zip(figures) {
        figures.rss_peak_kib = function.rss_peak_kib();
        function.end().await;
    }
    Ok(u64::from(effort.warm_up + effort.rounds * effort.batch))
}

/// One decision, which must be an admission.
async fn decide(function: &Function, event: &Bytes, name: &str) -> Result<Duration, String> {
    let answer = function.invoke(event).await?;
    let body = String::from_utf8_lossy(&answer.body);
    if answer.is_error || !body.contains(r#""Effect":"Allow""#) {
        return Err(format!("{name} did not admit: {body}"));
    }
    if name == "farebox" && !body.contains(r#""code":"ok""#) {
        return Err(format!("the authorizer admitted without counting: {body}"));
    }
    Ok(answer.took)
}

/// What was admitted was counted, to the unit.
async fn check_count(store: &Store, admitted: u64) -> Result<(), String> {
    match store.counted(&store.sold).await? {
        counted if counted == admitted => Ok(()),
        counted => Err(format!(
            "{admitted} requests were admitted, {counted} are on the counter"
        )),
    }
}

async fn operations(
    contestants: &[Contestant],
    store: &Store,
    out: &Path,
    figures: &mut [Figures],
) -> Result<(), String> {
    const DECISIONS: u64 = 200;
    let tap = proxy::Tap::default();
    let [dynamodb, _] = store.addresses();
    let proxy = proxy::between(dynamodb, tap.clone()).await.map_err(|e| e.to_string())?;
    let through = format!("http://{proxy}");
    for (contestant, figures) in contestants.iter().zip(figures) {
        let program = contestant.program.with(&[("AWS_ENDPOINT_URL_DYNAMODB", &through)]);
        let function = Function::start(&program, &out.join(format!("{}.log", contestant.name))).await?;
        for _ in 0..20 {
            decide(&function, &store.event, contestant.name).await?;
        }
        tap.counts.take();
        for _ in 0..DECISIONS {
            decide(&function, &store.event, contestant.name).await?;
        }
        figures.operations = tap
            .counts
            .take()
            .into_iter()
            .map(|(operation, n)| (operation, n as f64 / DECISIONS as f64))
            .collect::<BTreeMap<String, f64>>();
        function.end().await;
    }
    Ok(())
}

/// New processes, in turn: over plain HTTP, and over TLS as on AWS.
async fn cold(
    contestants: &[Contestant],
    store: &Store,
    effort: &Effort,
    out: &Path,
    figures: &mut [Figures],
) -> Result<(), String> {
    let [dynamodb, sqs] = store.addresses();
    let (dynamodb, pem) = proxy::encrypting(dynamodb).await?;
    let (sqs, sqs_pem) = proxy::encrypting(sqs).await?;
    let certificates = out.join("certificates.pem");
    std::fs::write(&certificates, pem + &sqs_pem).map_err(|e| e.to_string())?;
    let trusted = certificates.display().to_string();
    let https = |address: SocketAddr| format!("https://{address}");
    let encrypted = [
        ("AWS_ENDPOINT_URL_DYNAMODB", &*https(dynamodb)),
        ("AWS_ENDPOINT_URL_SQS", &*https(sqs)),
        ("AWS_CA_BUNDLE", &trusted),
        ("NODE_EXTRA_CA_CERTS", &trusted),
    ];
    for _ in 0..effort.cold_starts {
        for (contestant, figures) in contestants.iter().zip(figures.iter_mut()) {
            let log = out.join(format!("{}.cold.log", contestant.name));
            figures
                .cold
                .push(start(&contestant.program, store, contestant.name, &log).await?);
            let program = contestant.program.with(&encrypted);
            figures
                .cold_tls
                .push(start(&program, store, contestant.name, &log).await?);
        }
    }
    Ok(())
}

async fn start(program: &Program, store: &Store, name: &str, log: &Path) -> Result<Cold, String> {
    let function = Function::start(program, log).await?;
    let init_cpu = function.cpu();
    let first = decide(&function, &store.event, name).await?;
    let cold = Cold {
        init: function.init,
        first,
        init_cpu,
        cpu: function.cpu(),
    };
    function.end().await;
    Ok(cold)
}

/// A function that can't work says at init what it lacks; one whose services are only out of reach begins all the same.
async fn check_starts(program: &Program, store: &Store, out: &Path) -> Result<(), String> {
    let log = out.join("starts.log");
    let queue = store.system.queues().usage.replace("usage", "gone");
    for (variable, value) in [
        ("ACCOUNTS_TABLE", "gone"),
        ("COUNTERS_TABLE", "gone"),
        ("COUNTERS_TABLE", store.system.tables().ledger.as_str()),
        ("USAGE_QUEUE_URL", queue.as_str()),
        ("USAGE_QUEUE_URL", ""),
        ("FORBIDDEN_STATUS_403", "yes"),
    ] {
        match Function::start(&program.with(&[(variable, value)]), &log).await {
            Err(problem) if problem.contains(variable) => {}
            Err(problem) => return Err(format!("{variable}={value} is not named: {problem}")),
            Ok(_) => return Err(format!("the authorizer starts with {variable}={value}")),
        }
    }
    let nowhere = "http://127.0.0.1:9";
    for out_of_reach in [
        &[("AWS_ENDPOINT_URL_DYNAMODB", nowhere)][..],
        &[("AWS_ENDPOINT_URL_SQS", nowhere)],
        &[
            ("AWS_ENDPOINT_URL_DYNAMODB", nowhere),
            ("AWS_ENDPOINT_URL_SQS", nowhere),
        ],
    ] {
        let function = Function::start(&program.with(out_of_reach), &log)
            .await
            .map_err(|problem| format!("the authorizer does not start during an outage: {problem}"))?;
        let answer = function.invoke(&store.event).await?;
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        // Without its records nobody is known, and nobody let in; without the queue nothing is missing.
        let is_dynamodb = out_of_reach.iter().any(|(name, _)| name.ends_with("DYNAMODB"));
        let expected = if is_dynamodb {
            r#""code":"unavailable""#
        } else {
            r#""code":"ok""#
        };
        if !body.contains(expected) {
            return Err(format!("during an outage of {out_of_reach:?} the answer is {body}"));
        }
        function.end().await;
    }
    Ok(())
}
