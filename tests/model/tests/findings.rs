//! What the model has found in the rules as they are shipped, and nobody has settled yet: see the README. A test that fails
//! here is good news: the case goes to the slice.

use farebox_model::{Promises, check, findings};

#[test]
fn what_was_found_is_still_there() {
    for (case, promise) in findings() {
        let checked = check(&case, None, Promises::Amounts, 2, None);
        let broken = checked.violation.map(|violation| violation.what);
        assert_eq!(broken.as_deref(), Some(promise), "{}: {}", case.name, case.about);
    }
}
