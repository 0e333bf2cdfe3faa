//! The context that goes with an answer.

use farebox_core::answer::admitted;
use farebox_core::{
    admission::{QuotaStanding, Standing},
    time::Timestamp,
};

fn warns(included: Option<u64>, used: u64) -> bool {
    let standing = Standing {
        rates: Vec::new(),
        quota: QuotaStanding {
            included,
            used,
            reset: Timestamp::from_s(9),
        },
    };
    let context = admitted(&standing, 1, 80, Timestamp::from_s(0));
    context.iter().any(|(name, _)| *name == "warning")
}

#[test]
fn a_plan_that_includes_nothing_does_not_warn_of_every_request() {
    assert!(!warns(Some(0), 0));
    assert!(!warns(Some(0), 7));
    assert!(!warns(None, 7));
    assert!(!warns(Some(100), 79));
    assert!(warns(Some(100), 80));
}
