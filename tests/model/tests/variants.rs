//! Each rule, broken: the model has to notice. The same case with the rules as they are shipped breaks no promise; that is
//! what `slice.rs` checks.

use farebox_model::{Variant, check, slice};

/// Breaks a rule, and names the promise that the checker finds broken.
fn caught(variant: Variant) -> String {
    let case = slice()
        .into_iter()
        .find(|case| case.name == variant.caught_in())
        .expect("a case of the slice");
    let checked = check(&case, Some(variant), variant.breaks(), 2, None);
    let violation = checked.violation.expect("the broken rule is caught");
    assert!(!violation.trace.is_empty());
    violation.what
}

#[test]
fn no_seal_before_report() {
    assert_eq!(caught(Variant::NoSealBeforeReport), "WrongSum");
}

#[test]
fn a_seal_that_may_go_back() {
    assert_eq!(caught(Variant::SealMayGoBack), "WrongSum");
}

#[test]
fn a_seal_that_does_not_check_the_generation() {
    assert_eq!(caught(Variant::SealIgnoresGeneration), "WrongSum");
}

#[test]
fn a_prune_that_does_not_check_the_generation() {
    let broken = caught(Variant::PruneIgnoresGeneration);
    // Two threads search: a row that says too little, and no row at all, are equally near.
    assert!(broken == "WrongSum" || broken == "Forgotten", "{broken}");
}

#[test]
fn a_seal_that_creates_an_absent_item() {
    assert_eq!(caught(Variant::SealCreatesAbsentItem), "ItemOfNothing");
}

#[test]
fn prune_before_freeze() {
    assert_eq!(caught(Variant::PruneBeforeFreeze), "WrongSum");
}

#[test]
fn the_admission_guard_missing() {
    assert_eq!(caught(Variant::NoAdmissionGuard), "WrongSum");
}

#[test]
fn an_identifier_with_an_attempt_number() {
    assert_eq!(caught(Variant::IdentifierWithAttempt), "TwoIdentifiers");
}

#[test]
fn take_over_recomputes_with_a_credit() {
    assert_eq!(caught(Variant::TakeOverRecomputes), "WrongSum");
}

#[test]
fn the_sdk_retries_an_unknown_write() {
    assert_eq!(caught(Variant::SdkRetriesUnknownWrite), "CountedTwice");
}

#[test]
fn no_generation() {
    assert_eq!(caught(Variant::NoGeneration), "WrongSum");
}

#[test]
fn a_restored_item_keeps_its_generation() {
    assert_eq!(caught(Variant::RestoreKeepsGeneration), "WrongSum");
}

#[test]
fn a_restored_item_keeps_its_old_buckets() {
    assert_eq!(caught(Variant::RestoreKeepsBuckets), "WrongSum");
}

#[test]
fn a_duplicate_400_treated_as_failure() {
    assert_eq!(caught(Variant::DuplicateIsFailure), "ParkedThoughDelivered");
}

#[test]
fn one_constant_idempotency_key_over_a_stored_500() {
    assert_eq!(caught(Variant::ConstantIdempotencyKey), "can finish");
}

#[test]
fn posting_after_23_hours_without_asking() {
    assert_eq!(caught(Variant::PostsWithoutAsking), "ReportedTwice");
}

#[test]
fn asking_for_the_hour_instead_of_the_rows_minute() {
    assert_eq!(caught(Variant::AsksForTheHour), "WrongSum");
}

#[test]
fn a_lagging_summary_trusted() {
    assert_eq!(caught(Variant::TrustsLaggingSummary), "ReportedTwice");
}

#[test]
fn a_fold_into_a_row_that_is_not_open() {
    assert_eq!(caught(Variant::FoldsIntoAnyRow), "WrongSum");
}

#[test]
fn ledger_rows_that_expire() {
    assert_eq!(caught(Variant::RowsExpire), "ReportedTwice");
}

#[test]
fn a_credit_given_twice() {
    assert_eq!(caught(Variant::CreditGivenTwice), "WrongCredit");
}

#[test]
fn a_credit_taken_twice() {
    assert_eq!(caught(Variant::CreditTakenTwice), "WrongCredit");
}

#[test]
fn a_credit_clamped_away() {
    assert_eq!(caught(Variant::CreditClamped), "WrongCredit");
}

#[test]
fn shards_summed_into_one_row() {
    assert_eq!(caught(Variant::ShardsSummed), "WrongSum");
}

#[test]
fn a_freeze_that_forgets_what_was_folded_meanwhile() {
    assert_eq!(caught(Variant::FreezeForgetsFold), "WrongSum");
}

#[test]
fn a_freeze_that_takes_the_counters_number_though_a_message_said_more() {
    assert_eq!(caught(Variant::FreezeTakesCounter), "can finish");
}

#[test]
fn a_restored_item_that_was_not_shut() {
    assert_eq!(caught(Variant::RestoreWithoutShutting), "WrongSum");
}

#[test]
fn room_made_of_rows_that_are_open() {
    assert_eq!(caught(Variant::RoomFromOpenRows), "WrongSum");
}

#[test]
fn a_shared_minute_that_is_asked_for() {
    assert_eq!(caught(Variant::AsksForSharedMinute), "WrongSum");
}
