//! What was measured, as people read it.

use std::{collections::BTreeMap, fmt::Write as _, process::Command, time::Duration};

/// Everything measured of one contestant.
pub(crate) struct Figures {
    name: &'static str,
    what: &'static str,
    pub(crate) latencies: Vec<Duration>,
    /// CPU of a decision, one for each round.
    pub(crate) cpu: Vec<Duration>,
    pub(crate) rss_peak_kib: u64,
    pub(crate) operations: BTreeMap<String, f64>,
    pub(crate) instructions: Option<f64>,
    pub(crate) binary_bytes: Option<u64>,
    pub(crate) cold: Vec<Cold>,
    pub(crate) cold_tls: Vec<Cold>,
}

/// One start.
pub(crate) struct Cold {
    /// From the start of the process to ready.
    pub(crate) init: Duration,
    /// The first response.
    pub(crate) first: Duration,
    /// CPU until ready.
    pub(crate) init_cpu: Duration,
    /// CPU until the first response.
    pub(crate) cpu: Duration,
}

impl Figures {
    pub(crate) fn new(name: &'static str, what: &'static str) -> Self {
        Self {
            name,
            what,
            latencies: Vec::new(),
            cpu: Vec::new(),
            rss_peak_kib: 0,
            operations: BTreeMap::new(),
            instructions: None,
            binary_bytes: None,
            cold: Vec::new(),
            cold_tls: Vec::new(),
        }
    }

    fn cpu_ms(&self) -> f64 {
        at(&self.cpu, 50)
    }
}

/// The median of the ratios of each round: what disturbs a round disturbs both.
fn ratio(ours: &[Duration], theirs: &[Duration]) -> f64 {
    let mut ratios: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| ms(*a) / ms(*b)).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// A percentile in milliseconds.
pub(crate) fn at(values: &[Duration], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().map_or(f64::NAN, ms)
}

fn median(cold: &[Cold], of: impl Fn(&Cold) -> Duration) -> f64 {
    at(&cold.iter().map(of).collect::<Vec<_>>(), 50)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

/// What it was measured on.
pub(crate) fn machine() -> String {
    let says = |command: &str, arguments: &[&str]| -> String {
        let output = Command::new(command).arg(arguments.join(" ")).output();
        output.map_or_else(
            |_| "none".to_owned(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
    };
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| {
        line.strip_prefix("model name")
            .map(|rest| rest.trim_start_matches([' ', '\t', ':']))
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "{} x {}, load {}; Linux {}; {}; Node {}\n",
        cores,
        model.unwrap_or("unknown processor"),
        load.split(' ').next().unwrap_or_default(),
        says("uname", &["-r"]),
        says("rustc", &["--version"]),
        says("node", &["--version"]),
    )
}

/// Everything, one line for each contestant.
pub(crate) fn table(all: &[Figures]) -> String {
    let mut text = String::from(
        "| | instructions | CPU ms | p50 ms | p99 ms | peak RSS MiB | binary MiB | store operations | init ms | first ms | CPU ms to it | over TLS: init ms | first ms | CPU ms to it |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for figures in all {
        let instructions = figures
            .instructions
            .map_or_else(|| "–".to_owned(), |n| format!("{:.0} k", n / 1_000.0));
        let binary = figures
            .binary_bytes
            .map_or_else(|| "–".to_owned(), |bytes| format!("{:.2}", mib(bytes)));
        let operations: Vec<String> = figures
            .operations
            .iter()
            .map(|(operation, n)| format!("{n:.3} {operation}"))
            .collect();
        // Writing into a string does not fail.
        let _ = writeln!(
            text,
            "| {} | {instructions} | {:.3} | {:.3} | {:.3} | {:.1} | {binary} | {} | {} | {} |",
            figures.what,
            figures.cpu_ms(),
            at(&figures.latencies, 50),
            at(&figures.latencies, 99),
            mib(figures.rss_peak_kib * 1_024),
            operations.join(", "),
            starts(&figures.cold),
            starts(&figures.cold_tls),
        );
    }
    text
}

fn starts(cold: &[Cold]) -> String {
    format!(
        "{:.1} | {:.2} | {:.1}",
        median(cold, |cold| cold.init),
        median(cold, |cold| cold.first),
        median(cold, |cold| cold.cpu)
    )
}

/// The goals, and how far they are met.
pub(crate) fn verdicts(all: &[Figures]) -> String {
    let of = |name: &str| all.iter().find(|figures| figures.name == name);
    let (Some(farebox), Some(bare), Some(node)) = (of("farebox"), of("bare"), of("node")) else {
        return String::new();
    };
    let instructions = match (farebox.instructions, bare.instructions) {
        (Some(ours), Some(theirs)) => ours / theirs,
        _ => f64::NAN,
    };
    let first = |cold: &[Cold]| median(cold, |cold| cold.first);
    let cpu = |cold: &[Cold]| median(cold, |cold| cold.cpu);
    let updates = farebox.operations.values().sum::<f64>();
    let goals = [
        ("instructions, of (a)", instructions, 1.15),
        ("CPU, of (b)", ratio(&farebox.cpu, &node.cpu), 0.22),
        ("store operations per decision", updates, 1.0),
        ("first response after init, ms", first(&farebox.cold), 1.0),
        ("first response after init over TLS, ms", first(&farebox.cold_tls), 1.0),
        ("CPU to the first response, ms", cpu(&farebox.cold), 6.0),
        ("CPU to the first response over TLS, ms", cpu(&farebox.cold_tls), 6.0),
        ("binary, MiB", farebox.binary_bytes.map_or(f64::NAN, mib), 5.5),
        ("peak RSS, MiB", mib(farebox.rss_peak_kib * 1_024), 8.0),
    ];
    let mut text = String::from("| goal | at most | measured | |\n| --- | --- | --- | --- |\n");
    for (goal, most, measured) in goals.map(|(goal, measured, most)| (goal, most, measured)) {
        let verdict = if measured.is_nan() {
            "not measured"
        } else if measured <= most + 0.000_5 {
            "met"
        } else {
            "missed"
        };
        let _ = writeln!(text, "| {goal} | {most} | {measured:.2} | {verdict} |");
    }
    let init = median(&farebox.cold_tls, |cold| cold.init_cpu);
    let _ = writeln!(
        text,
        "\nOf the CPU over TLS, {init:.1} ms are spent before the first event."
    );
    text
}
