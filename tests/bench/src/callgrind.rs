//! Instructions, counted one by one. The machine's own counters are often not there in a virtual machine, and count the
//! neighbours' noise where they are; Valgrind's count is the same on every machine and at every load.

use std::{fs, path::Path};

use axum::body::Bytes;

use crate::function::{Function, Program};

/// Instructions of one decision: of a long run, less those of a short one, so that init is in neither.
pub(crate) async fn instructions(
    program: &Program,
    event: &Bytes,
    (few, many): (u64, u64),
    directory: &Path,
    name: &str,
) -> Result<f64, String> {
    let short = total(program, event, few, directory, name).await?;
    let long = total(program, event, many, directory, name).await?;
    Ok((long as f64 - short as f64) / (many - few) as f64)
}

async fn total(program: &Program, event: &Bytes, n: u64, directory: &Path, name: &str) -> Result<u64, String> {
    let out = directory.join(format!("{name}.{n}.callgrind"));
    let _ = fs::remove_file(&out);
    let mut under = program.clone();
    let valgrind = [
        "valgrind".to_owned(),
        "--tool=callgrind".to_owned(),
        format!("--callgrind-out-file={}", out.display()),
    ];
    under.command.splice(0..0, valgrind);
    let function = Function::start(&under, &directory.join(format!("{name}.callgrind.log"))).await?;
    for _ in 0..n {
        function.invoke(event).await?;
    }
    function.rest().await;
    function.end().await;
    let text = fs::read_to_string(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("totals:").or_else(|| line.strip_prefix("summary:")));
    total
        .and_then(|total| total.trim().parse().ok())
        .ok_or_else(|| format!("{} names no total", out.display()))
}

/// Whether Valgrind is there.
pub(crate) fn is_there() -> bool {
    std::process::Command::new("valgrind")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
}
