//! The long mode: every case, one line each.

#![expect(clippy::print_stdout, reason = "it is a command")]

use farebox_model::{check, full, slice};

fn main() {
    let only = std::env::args().nth(1);
    let limit = std::env::args().nth(2).and_then(|s| s.parse().ok()).map(std::time::Duration::from_secs);
    let mut cases = slice();
    cases.extend(full());
    let (mut states, mut failed) = (0, false);
    println!("| case | states | depth | seconds |");
    println!("| --- | ---: | ---: | ---: |");
    for case in cases {
        if only.as_ref().is_some_and(|only| !case.name.contains(only.as_str())) {
            continue;
        }
        let checked = check(&case, None, 2, limit);
        states += checked.states;
        println!(
            "| {}{} | {} | {} | {:.1} |",
            case.name,
            if checked.is_complete { "" } else { " (cut off)" },
            checked.states,
            checked.depth,
            checked.took.as_secs_f64()
        );
        if let Some(violation) = checked.violation {
            failed = true;
            println!("\nVIOLATION of {}: {}\n{}\n", case.name, violation.what, violation.trace.join("\n"));
        }
    }
    println!("| all | {states} | | |");
    if failed {
        std::process::exit(1);
    }
}
