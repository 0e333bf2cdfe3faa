//! The long mode: every case, one line each.
//!
//! `farebox-model [part of a case's name] [seconds per case]`, or `farebox-model variants` for which case catches which broken
//! rule. The exit code is 0 only if there was something to check, all of its states were visited and no promise is broken.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a command")]

use std::time::Duration;

use farebox_model::{Case, Promises, Variant, check, findings, full, slice};

const THREADS: usize = 2;
/// All cases together have more states than this: whoever makes them smaller is to say so here.
const STATES_MIN: usize = 10_000_000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let only = arguments.next().unwrap_or_default();
    let limit = match arguments.next().map(|text| text.parse().map(Duration::from_secs)) {
        None => None,
        Some(Ok(limit)) => Some(limit),
        Some(Err(_)) => {
            eprintln!("the second argument is a number of seconds");
            std::process::exit(64);
        }
    };
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
    let chosen = chosen(only);
    if chosen.is_empty() {
        eprintln!("no case has {only:?} in its name");
        return false;
    }
    for case in chosen {
        let checked = check(&case, None, Promises::All, THREADS, limit);
        states += checked.states;
        let cut_off = if checked.is_complete { "" } else { " (cut off)" };
        let seconds = checked.took.as_secs_f64();
        println!(
            "| {}{cut_off} | {} | {} | {seconds:.1} |",
            case.name, checked.states, checked.depth
        );
        is_well &= checked.is_complete;
        if let Some(violation) = checked.violation {
            is_well = false;
            let trace = violation.trace.join("\n");
            println!("\n{} breaks a promise: {}\n\n{trace}\n", case.name, violation.what);
        }
    }
    println!("| all | {states} | | |");
    let is_all = only.is_empty() && limit.is_none();
    if is_all && states < STATES_MIN {
        eprintln!("fewer than {STATES_MIN} states: something is not modelled any more");
        is_well = false;
    }
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
        let mut cases = slice();
        cases.retain(|case| case.name == variant.caught_in());
        if cases.is_empty() {
            eprintln!("there is no case {} to catch {variant:?}", variant.caught_in());
            are_all_caught = false;
        }
        for case in cases {
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
