//! The long mode: every case, one line each.
//!
//! `farebox-model [part of a case's name] [seconds per case]`, or `farebox-model variants` for which case catches which broken
//! rule.

#![expect(clippy::print_stdout, reason = "it is a command")]

use std::time::Duration;

use farebox_model::{Case, Promises, Variant, check, findings, full, slice};

const THREADS: usize = 2;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let only = arguments.next().unwrap_or_default();
    let limit = arguments.next().and_then(|s| s.parse().ok()).map(Duration::from_secs);
    let is_well = match only.as_str() {
        "variants" => variants(limit),
        _ => cases(&only, limit),
    };
    if !is_well {
        std::process::exit(1);
    }
}

fn cases(only: &str, limit: Option<Duration>) -> bool {
    let (mut states, mut is_well) = (0, true);
    println!("| case | states | depth | seconds |");
    println!("| --- | ---: | ---: | ---: |");
    for case in chosen(only) {
        let checked = check(&case, None, Promises::All, THREADS, limit);
        states += checked.states;
        let cut_off = if checked.is_complete { "" } else { " (cut off)" };
        let seconds = checked.took.as_secs_f64();
        println!(
            "| {}{cut_off} | {} | {} | {seconds:.1} |",
            case.name, checked.states, checked.depth
        );
        if let Some(violation) = checked.violation {
            is_well = false;
            let trace = violation.trace.join("\n");
            println!("\n{} breaks a promise: {}\n\n{trace}\n", case.name, violation.what);
        }
    }
    println!("| all | {states} | | |");
    is_well
}

/// The cases with a part of a name, and what is known to be found if that is asked for.
fn chosen(only: &str) -> Vec<Case> {
    match only {
        "findings" => findings().into_iter().map(|(case, _)| case).collect(),
        _ => slice()
            .into_iter()
            .chain(full())
            .filter(|case| case.name.contains(only))
            .collect(),
    }
}

fn variants(limit: Option<Duration>) -> bool {
    let mut are_all_caught = true;
    println!("| broken rule | case | broken promise | steps | states until then |");
    println!("| --- | --- | --- | ---: | ---: |");
    for variant in Variant::ALL {
        for case in slice().into_iter().filter(|case| case.name == variant.caught_in()) {
            let checked = check(&case, Some(variant), variant.breaks(), 1, limit);
            are_all_caught &= checked.violation.is_some();
            let (what, steps) = match &checked.violation {
                Some(violation) => (violation.what.as_str(), violation.trace.len() - 1),
                None => ("NONE", 0),
            };
            println!(
                "| {variant:?} | {} | {what} | {steps} | {} |",
                case.name, checked.states
            );
        }
    }
    are_all_caught
}
