//! Every reachable state of the small cases.

use farebox_model::{Promises, check, slice};

#[test]
fn no_state_breaks_a_promise_and_every_state_can_finish() {
    for case in slice() {
        let checked = check(&case, None, Promises::All, 2, None);
        if let Some(violation) = checked.violation {
            panic!(
                "{} ({}): {}\n{}",
                case.name,
                case.about,
                violation.what,
                violation.trace.join("\n")
            );
        }
    }
}
