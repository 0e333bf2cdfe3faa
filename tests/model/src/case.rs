//! The cases: small worlds, each about a few of the things that can go wrong together.

use crate::world::Sec;

/// Unix seconds of the model's origin, 2026-01-01T00:00:00Z.
pub(crate) const ORIGIN_S: u64 = 1_767_225_600;
/// The hour that the cases begin in, seconds since the origin.
pub(crate) const HOUR: Sec = 10 * 3_600;

/// A small world.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// The moments that the clock stands at, seconds since the first hour. From `tail` on nothing goes wrong any more.
    pub moments: &'static [Sec],
    /// How many of the last moments are for finishing only.
    pub tail: u8,
    /// Counter items: shards of one customer.
    pub items: u8,
    /// Workers.
    pub workers: u8,
    /// Requests.
    pub requests: u8,
    /// Requests under way at a time.
    pub under_way: u8,
    /// By how many seconds the clocks of environments are off; all are possible at any time.
    pub skews: &'static [i32],
    /// A billing period starts this many seconds after the first hour.
    pub edge: Option<Sec>,
    /// Fresh 500s that Stripe answers.
    pub faults: u8,
    /// Calls may outlive the patience of their worker.
    pub late_calls: bool,
    /// How long a call can be on its way, seconds.
    pub life_s: Sec,
    /// How long a sum in Stripe may lag behind, seconds.
    pub lag_s: Sec,
    /// Workers may die.
    pub crashes: bool,
    /// Units of the credits that may be given.
    pub grants: &'static [u8],
    /// Counter items that may be lost.
    pub losses: u8,
    /// They may come back from a backup.
    pub backup: bool,
    /// The operator may give so many counter items another generation while they serve.
    pub renewals: u8,
    /// Buckets of frozen rows may be pruned before they are reported.
    pub makes_room: bool,
    /// Not even a call that was on its way may be counted after its row was parked.
    pub parked_is_over: bool,
    /// The ledger may be set back to a backup so many times.
    pub ledger_losses: u8,
    /// The customer may move to another customer in Stripe.
    pub moves: u8,
    /// The plan may change.
    pub changes: u8,
    /// The invoice may become final at any time after its period.
    pub invoice: bool,
}

const MINUTE: Sec = 60;
const H: Sec = 3_600;
const DAY: Sec = 24 * H;

/// Nothing goes wrong; the cases say what does.
const CALM: Case = Case {
    name: "",
    about: "",
    moments: TWO_BUCKETS,
    tail: 1,
    items: 1,
    workers: 1,
    requests: 2,
    under_way: 1,
    skews: &[0],
    edge: None,
    faults: 0,
    late_calls: false,
    life_s: 20 * MINUTE,
    lag_s: 10 * MINUTE,
    crashes: false,
    grants: &[],
    losses: 0,
    backup: false,
    renewals: 0,
    makes_room: false,
    parked_is_over: false,
    ledger_losses: 0,
    moves: 0,
    changes: 0,
    invoice: false,
};

/// One bucket, and time to finish.
const ONE_BUCKET: &[Sec] = &[10 * MINUTE, 20 * MINUTE, 26 * MINUTE];
/// Two buckets.
const TWO_BUCKETS: &[Sec] = &[10 * MINUTE, 70 * MINUTE, 76 * MINUTE];
/// Three buckets.
const THREE_BUCKETS: &[Sec] = &[10 * MINUTE, 70 * MINUTE, 130 * MINUTE, 136 * MINUTE];
/// Both sides of a cut in the first hour, and the second hour.
const CUT: &[Sec] = &[10 * MINUTE, 40 * MINUTE, 70 * MINUTE, 76 * MINUTE];
/// The ages at which the rules change, and what lies between them.
const FORGETTING: &[Sec] = &[
    10 * MINUTE,
    22 * H + 58 * MINUTE,
    23 * H + 5 * MINUTE,
    25 * H + 20 * MINUTE,
    47 * H + 10 * MINUTE,
    49 * H + 30 * MINUTE,
    49 * H + 36 * MINUTE,
];
/// Up to the age at which nothing is sent any more.
const MONTH: &[Sec] = &[
    10 * MINUTE,
    22 * H,
    33 * DAY + 23 * H,
    34 * DAY + 9 * MINUTE,
    34 * DAY + 20 * MINUTE,
    34 * DAY + 26 * MINUTE,
];

/// Small enough for every test run. Each broken rule is caught in one of them.
#[must_use]
pub fn slice() -> Vec<Case> {
    vec![
        Case {
            name: "calm",
            about: "two requests, one worker, no fault",
            ..CALM
        },
        Case {
            name: "workers",
            about: "two workers that die anywhere, late and lost calls",
            moments: ONE_BUCKET,
            requests: 1,
            workers: 2,
            crashes: true,
            late_calls: true,
            ..CALM
        },
        Case {
            name: "order",
            about: "two buckets in any order, a third request",
            requests: 3,
            ..CALM
        },
        Case {
            name: "skew",
            about: "clocks two buckets behind to two ahead, two requests under way",
            moments: &[10 * MINUTE, 70 * MINUTE],
            requests: 2,
            under_way: 2,
            skews: &[-7_200, 0, 7_200],
            ..CALM
        },
        Case {
            name: "edge",
            about: "a period's edge inside a bucket, the invoice final at any time",
            moments: CUT,
            skews: &[-1_800, 0, 1_800],
            edge: Some(30 * MINUTE),
            invoice: true,
            ..CALM
        },
        Case {
            name: "shards",
            about: "two counter items",
            moments: ONE_BUCKET,
            items: 2,
            ..CALM
        },
        Case {
            name: "faults",
            about: "stored 500s, before and after the event was counted",
            requests: 1,
            faults: 2,
            crashes: true,
            late_calls: true,
            ..CALM
        },
        Case {
            name: "forgotten",
            about: "Stripe forgets identifiers, sums lag behind",
            moments: FORGETTING,
            requests: 1,
            crashes: true,
            late_calls: true,
            lag_s: 2 * H,
            ..CALM
        },
        Case {
            name: "forgotten, shards",
            about: "two reports in the same hour, Stripe is asked",
            moments: &[10 * MINUTE, 23 * H + 5 * MINUTE, 25 * H, 25 * H + 6 * MINUTE],
            items: 2,
            ..CALM
        },
        Case {
            name: "lost",
            about: "a counter item is lost and comes back from a backup",
            moments: ONE_BUCKET,
            losses: 1,
            backup: true,
            crashes: true,
            ..CALM
        },
        Case {
            name: "lost, two buckets",
            about: "a counter item is lost after a bucket was reported",
            losses: 1,
            backup: true,
            ..CALM
        },
        Case {
            name: "renewed",
            about: "a counter item gets another generation while it serves",
            moments: &[10 * MINUTE, 16 * MINUTE],
            requests: 3,
            renewals: 1,
            ..CALM
        },
        Case {
            name: "room",
            about: "frozen rows are pruned before they are reported, a worker that dies",
            makes_room: true,
            crashes: true,
            ..CALM
        },
        Case {
            name: "shared minute",
            about: "a bucket of one whole minute and two items: the second's report wraps around into the first's minute",
            moments: &[MINUTE, 23 * H + 5 * MINUTE, 25 * H, 25 * H + 6 * MINUTE],
            edge: Some(90),
            items: 2,
            late_calls: true,
            ..CALM
        },
        Case {
            name: "lost, shards",
            about: "one of two counter items is lost",
            moments: ONE_BUCKET,
            items: 2,
            losses: 1,
            backup: true,
            ..CALM
        },
        Case {
            name: "ledger",
            about: "the ledger is set back to a backup",
            ledger_losses: 1,
            requests: 1,
            ..CALM
        },
        Case {
            name: "credits",
            about: "two credits over two buckets",
            grants: &[1, 2],
            requests: 3,
            ..CALM
        },
        Case {
            name: "credits, workers",
            about: "a credit, two workers that die, late calls",
            moments: ONE_BUCKET,
            requests: 1,
            workers: 2,
            grants: &[1],
            crashes: true,
            late_calls: true,
            ..CALM
        },
        Case {
            name: "credits, two rows",
            about: "a credit, two workers that freeze two rows",
            moments: ONE_BUCKET,
            items: 2,
            workers: 2,
            grants: &[1],
            ..CALM
        },
        Case {
            name: "move",
            about: "the customer moves to another customer in Stripe, identifiers are forgotten",
            moments: FORGETTING,
            requests: 1,
            moves: 1,
            late_calls: true,
            ..CALM
        },
        Case {
            name: "plans",
            about: "a change of plan cuts a bucket",
            moments: CUT,
            changes: 1,
            ..CALM
        },
        Case {
            name: "month",
            about: "34 days without an answer: parked, with a reason",
            moments: MONTH,
            requests: 1,
            crashes: true,
            late_calls: true,
            ..CALM
        },
        Case {
            name: "ledger, forgotten",
            about: "the ledger is set back to a backup, identifiers are forgotten, sums lag",
            moments: FORGETTING,
            ledger_losses: 1,
            requests: 1,
            crashes: true,
            late_calls: true,
            ..CALM
        },
        Case {
            name: "ledger, plans",
            about: "the ledger is set back to a backup, the plan changes",
            moments: CUT,
            ledger_losses: 1,
            changes: 1,
            requests: 1,
            ..CALM
        },
    ]
}

/// The rest: the long mode.
#[must_use]
pub fn full() -> Vec<Case> {
    vec![
        Case {
            name: "wide workers",
            about: "two workers that die anywhere, two buckets, late calls",
            workers: 2,
            crashes: true,
            late_calls: true,
            ..CALM
        },
        Case {
            name: "wide skew",
            about: "clocks two buckets behind to two ahead, three buckets, a worker that dies",
            moments: THREE_BUCKETS,
            under_way: 2,
            skews: &[-7_200, 0, 7_200],
            crashes: true,
            ..CALM
        },
        Case {
            name: "wide edge",
            about: "a period's edge inside a bucket, two items, the invoice final at any time",
            moments: CUT,
            items: 2,
            edge: Some(30 * MINUTE),
            invoice: true,
            late_calls: true,
            ..CALM
        },
        Case {
            name: "wide shards",
            about: "two counter items, two workers that die",
            moments: ONE_BUCKET,
            items: 2,
            workers: 2,
            crashes: true,
            ..CALM
        },
        Case {
            name: "wide faults",
            about: "stored 500s, two workers that die, late calls",
            moments: &[10 * MINUTE, 70 * MINUTE, 76 * MINUTE, 82 * MINUTE, 88 * MINUTE],
            requests: 1,
            workers: 2,
            faults: 2,
            crashes: true,
            late_calls: true,
            ..CALM
        },
        Case {
            name: "wide forgotten",
            about: "identifiers forgotten, sums lag, two workers that die, a stored 500",
            moments: FORGETTING,
            requests: 1,
            workers: 2,
            faults: 1,
            crashes: true,
            late_calls: true,
            lag_s: 2 * H,
            ..CALM
        },
        Case {
            name: "wide forgotten, shards",
            about: "two items, identifiers forgotten, sums lag, late calls",
            moments: FORGETTING,
            items: 2,
            late_calls: true,
            lag_s: 2 * H,
            ..CALM
        },
        Case {
            name: "wide lost",
            about: "a counter item is lost, two buckets, a worker that dies",
            losses: 1,
            backup: true,
            crashes: true,
            ..CALM
        },
        Case {
            name: "wide renewed",
            about: "a counter item gets another generation while it serves, a worker that dies",
            moments: &[10 * MINUTE, 16 * MINUTE],
            requests: 3,
            renewals: 1,
            crashes: true,
            ..CALM
        },
        Case {
            name: "wide shared minute",
            about: "a bucket of two whole minutes and two items, one of which is lost and takes another slot",
            moments: &[MINUTE, 23 * H + 5 * MINUTE, 25 * H, 25 * H + 6 * MINUTE],
            edge: Some(150),
            items: 2,
            losses: 1,
            backup: true,
            ..CALM
        },
        Case {
            name: "wide room",
            about: "frozen rows are pruned before they are reported, a counter item is lost, a credit",
            moments: ONE_BUCKET,
            makes_room: true,
            losses: 1,
            backup: true,
            grants: &[1],
            crashes: true,
            ..CALM
        },
        Case {
            name: "wide credits",
            about: "two credits, two items, a worker that dies, two requests",
            moments: ONE_BUCKET,
            items: 2,
            grants: &[1, 1],
            crashes: true,
            ..CALM
        },
        Case {
            name: "wide move",
            about: "the customer moves, a stored 500, two workers",
            moments: FORGETTING,
            requests: 1,
            workers: 2,
            moves: 1,
            faults: 1,
            crashes: true,
            late_calls: true,
            ..CALM
        },
        Case {
            name: "wide plans",
            about: "a change of plan cuts a bucket, clocks are off, two requests under way",
            moments: CUT,
            changes: 1,
            under_way: 2,
            skews: &[-3_600, 0, 3_600],
            ..CALM
        },
        Case {
            name: "wide month",
            about: "34 days without an answer, two workers, a stored 500",
            moments: MONTH,
            requests: 1,
            workers: 2,
            faults: 1,
            crashes: true,
            late_calls: true,
            ..CALM
        },
        Case {
            name: "wide credits, workers",
            about: "a credit, two workers that die, late calls",
            moments: ONE_BUCKET,
            workers: 2,
            grants: &[1],
            crashes: true,
            late_calls: true,
            ..CALM
        },
        Case {
            name: "lost, edge",
            about: "a period's edge in a bucket's third minute, one of two counter items is lost",
            moments: CUT,
            edge: Some(3 * MINUTE),
            items: 2,
            losses: 1,
            backup: true,
            ..CALM
        },
        Case {
            name: "lost, credits",
            about: "a counter item is lost, a credit, a worker that dies",
            moments: ONE_BUCKET,
            grants: &[1],
            losses: 1,
            backup: true,
            crashes: true,
            ..CALM
        },
        Case {
            name: "lost, forgotten",
            about: "a counter item is lost, identifiers are forgotten",
            moments: FORGETTING,
            losses: 1,
            backup: true,
            ..CALM
        },
        Case {
            name: "plans, move, credits",
            about: "a change of plan, a move and a credit",
            moments: CUT,
            changes: 1,
            moves: 1,
            grants: &[1],
            ..CALM
        },
    ]
}

/// Worlds in which the rules, as they are shipped, break a promise: each with the promise that is broken, and more about it in
/// the README.
#[must_use]
pub fn findings() -> Vec<(Case, &'static str)> {
    vec![
        (
            Case {
                name: "found: late call after the park",
                about: "a call that outlives its claim, across the age of 34 days",
                moments: &[
                    10 * MINUTE,
                    34 * DAY - 2 * MINUTE,
                    34 * DAY + 9 * MINUTE,
                    34 * DAY + 15 * MINUTE,
                ],
                requests: 1,
                crashes: true,
                late_calls: true,
                parked_is_over: true,
                ..CALM
            },
            "CountedAfterPark",
        ),
        (
            Case {
                name: "found: ledger and move",
                about: "the ledger is set back to before a freeze, after a move, when Stripe has forgotten the identifier",
                moments: FORGETTING,
                ledger_losses: 1,
                moves: 1,
                requests: 1,
                ..CALM
            },
            "ReportedTwice",
        ),
        (
            Case {
                name: "found: ledger and credit",
                about: "the ledger is set back to before a credit was taken",
                ledger_losses: 1,
                grants: &[1],
                requests: 1,
                ..CALM
            },
            "Forgotten",
        ),
    ]
}
