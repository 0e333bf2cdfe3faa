//! The `farebox` command: `dev` runs the whole system on this machine, `demo` replays a month of real traffic through it.

mod demo;
mod dev;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// Turns an API on Amazon API Gateway into a paid product.
#[derive(Parser)]
#[command(name = "farebox", version, about, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    dev: Dev,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the whole system on this machine and stay (the default).
    Dev(Dev),
    /// Replay four days of real traffic, close the billing period and compare every count with every invoice.
    Demo {
        /// Print one JSON object instead of a table.
        #[arg(long)]
        json: bool,
    },
}

/// How `farebox dev` runs.
#[derive(clap::Args)]
struct Dev {
    /// The gateway's port on 127.0.0.1.
    #[arg(long, default_value_t = 8787)]
    port: u16,
    /// Keep everything in this directory over restarts; without it, in memory.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The tiers to sell; without it, the built-in example.
    #[arg(long, value_name = "FILE")]
    tiers: Option<PathBuf>,
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("FAREBOX_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let arguments = Arguments::parse();
    let outcome = match arguments.command.unwrap_or(Command::Dev(arguments.dev)) {
        Command::Demo { json } => runtime.block_on(demo::run(json)),
        Command::Dev(dev) => runtime.block_on(dev::run(dev.port, dev.data, dev.tiers)),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}
