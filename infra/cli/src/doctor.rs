//! `farebox doctor`: looks at everything that a deployment depends on and says what costs money or breaks, why, and what
//! mends it. It reads only.

mod collect;
mod facts;
mod findings;
#[cfg(test)]
mod tests;

use serde_json::json;

pub(crate) use self::collect::depth;
use self::findings::{Finding, Severity};
use crate::{
    arguments::Doctor,
    failure::{Done, Failure},
    reach::Reach,
    show::{Out, count, plain},
    tiers::catalog,
};

pub(crate) async fn run(options: Doctor, reach: &Reach, out: Out) -> Result<Done, Failure> {
    // First: what is wrong with the file is not for want of a permission.
    let file = match &options.tiers {
        Some(file) => Some((file.display().to_string(), catalog(file)?)),
        None => None,
    };
    let facts = collect::collect(file.as_ref(), reach).await?;
    let (found, notes) = (findings::findings(&facts)?, findings::notes(&facts));
    let value = json!({ "findings": found, "notes": notes, "facts": facts });
    out.show(&value, || spoken(&found, &notes, out))?;
    Ok(if found.is_empty() { Done::Well } else { Done::Differs })
}

fn spoken(found: &[Finding], notes: &[String], out: Out) -> String {
    let mut text = String::new();
    for finding in found {
        let severity = match finding.severity {
            Severity::Error => out.bad("error"),
            Severity::Warning => out.waits("warning"),
        };
        let [what, why, fix] = [&finding.what, &finding.why, &finding.fix].map(|part| plain(part));
        text.push_str(&format!("{severity}: {what}\n  why: {why}\n  fix: {fix}\n\n"));
    }
    for note in notes {
        text.push_str(&format!("note: {}\n", plain(note)));
    }
    if !notes.is_empty() {
        text.push('\n');
    }
    let of = |severity| found.iter().filter(|finding| finding.severity == severity).count();
    let end = match found.len() {
        0 => "Nothing to mend.".to_owned(),
        _ => format!(
            "{}, {}.",
            count(of(Severity::Error), "error"),
            count(of(Severity::Warning), "warning")
        ),
    };
    text + &end
}
