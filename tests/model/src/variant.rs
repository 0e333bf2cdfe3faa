//! The rules, broken one at a time.

use crate::check::Promises;

/// A broken rule. Each must be caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// The row is frozen from the counter as it is read, unsealed.
    NoSealBeforeReport,
    /// The seal has no `sealed < :bucket`.
    SealMayGoBack,
    /// The seal, and whoever reads its answer, do not look at the generation.
    SealIgnoresGeneration,
    /// The prune does not look at the generation.
    PruneIgnoresGeneration,
    /// The seal creates an item that is absent.
    SealCreatesAbsentItem,
    /// The counter is pruned before its row is frozen.
    PruneBeforeFreeze,
    /// The admission has no `sealed < :bucket`.
    NoAdmissionGuard,
    /// The identifier carries the number of the attempt.
    IdentifierWithAttempt,
    /// Who takes over works out the report again.
    TakeOverRecomputes,
    /// The SDK sends a write again whose outcome is not known.
    SdkRetriesUnknownWrite,
    /// Counter items have no generation: what comes back from a backup serves as it is.
    NoGeneration,
    /// A restored item keeps its generation.
    RestoreKeepsGeneration,
    /// A restored item keeps the buckets of the backup.
    RestoreKeepsBuckets,
    /// "An event already exists with identifier" counts as refused.
    DuplicateIsFailure,
    /// The idempotency key never moves on.
    ConstantIdempotencyKey,
    /// Reports older than 23 hours are posted without asking.
    PostsWithoutAsking,
    /// Stripe is asked for the bucket's hour.
    AsksForTheHour,
    /// An answer of 0 is believed for as long as the worker likes.
    TrustsLaggingSummary,
    /// A fold does not look at the row's state.
    FoldsIntoAnyRow,
    /// Reported rows expire.
    RowsExpire,
    /// A credit has no mark: giving it again gives it twice.
    CreditGivenTwice,
    /// The balance is not compared when it is taken from.
    CreditTakenTwice,
    /// What a bucket does not use of the balance is dropped.
    CreditClamped,
    /// The shards of a customer share a row.
    ShardsSummed,
    /// A row is frozen or closed although a message has brought more meanwhile.
    FreezeForgetsFold,
    /// A row is frozen with what the counter says, although a message said more.
    FreezeTakesCounter,
    /// An item gets its new generation without having been shut.
    RestoreWithoutShutting,
    /// Room is made in an item without a look at the row.
    RoomFromOpenRows,
    /// A report is asked for although its minute is not its own.
    AsksForSharedMinute,
}

impl Variant {
    /// All of them.
    pub const ALL: [Self; 29] = [
        Self::NoSealBeforeReport,
        Self::SealMayGoBack,
        Self::SealIgnoresGeneration,
        Self::PruneIgnoresGeneration,
        Self::SealCreatesAbsentItem,
        Self::PruneBeforeFreeze,
        Self::NoAdmissionGuard,
        Self::IdentifierWithAttempt,
        Self::TakeOverRecomputes,
        Self::SdkRetriesUnknownWrite,
        Self::NoGeneration,
        Self::RestoreKeepsGeneration,
        Self::RestoreKeepsBuckets,
        Self::DuplicateIsFailure,
        Self::ConstantIdempotencyKey,
        Self::PostsWithoutAsking,
        Self::AsksForTheHour,
        Self::TrustsLaggingSummary,
        Self::FoldsIntoAnyRow,
        Self::RowsExpire,
        Self::CreditGivenTwice,
        Self::CreditTakenTwice,
        Self::CreditClamped,
        Self::ShardsSummed,
        Self::FreezeForgetsFold,
        Self::FreezeTakesCounter,
        Self::RestoreWithoutShutting,
        Self::RoomFromOpenRows,
        Self::AsksForSharedMinute,
    ];

    /// The case of the slice that catches it.
    #[must_use]
    pub fn caught_in(self) -> &'static str {
        match self {
            Self::NoSealBeforeReport | Self::NoAdmissionGuard | Self::SdkRetriesUnknownWrite => "calm",
            Self::SealMayGoBack => "order",
            Self::SealCreatesAbsentItem
            | Self::RestoreKeepsGeneration
            | Self::FoldsIntoAnyRow
            | Self::FreezeForgetsFold
            | Self::PruneBeforeFreeze => "lost",
            Self::SealIgnoresGeneration | Self::PruneIgnoresGeneration | Self::RestoreWithoutShutting => "renewed",
            Self::FreezeTakesCounter => "ledger",
            Self::RoomFromOpenRows => "room",
            Self::AsksForSharedMinute => "shared minute",
            Self::IdentifierWithAttempt | Self::DuplicateIsFailure | Self::ConstantIdempotencyKey => "faults",
            Self::TakeOverRecomputes => "credits, workers",
            Self::NoGeneration | Self::RestoreKeepsBuckets => "lost, two buckets",
            Self::PostsWithoutAsking | Self::TrustsLaggingSummary => "forgotten",
            Self::AsksForTheHour => "forgotten, shards",
            Self::RowsExpire => "move",
            Self::CreditGivenTwice | Self::CreditClamped => "credits",
            Self::CreditTakenTwice => "credits, two rows",
            Self::ShardsSummed => "lost, shards",
        }
    }

    /// What it breaks.
    #[must_use]
    pub fn breaks(self) -> Promises {
        match self {
            // They change no amount; they only never get anywhere.
            Self::ConstantIdempotencyKey | Self::FreezeTakesCounter => Promises::Finishing,
            _ => Promises::Amounts,
        }
    }
}
