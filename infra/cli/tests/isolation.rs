//! Whatever an operator does for one customer leaves the other ones as they are, and shows nothing of them.

#[path = "support/commands.rs"]
mod commands;
mod support;

use std::sync::Arc;

use farebox_core::key::ApiKey;
use farebox_local::{DEV_TIERS, System};
use farebox_tests::held;

use crate::{
    commands::commands,
    support::{farebox, run, serve, system},
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// One customer, named in the arguments: nothing of others is shown.
    Acme,
    /// Everybody, or nobody: others may be shown, and stay as they are.
    All,
    /// Not run here: it begins a system of its own, or works on a deployment.
    Elsewhere,
}

/// Every command, with arguments that act on acme where it acts on a customer. `KEY` and `HASH` are those of acme's key.
const COMMANDS: [(&str, &str, Of); 33] = [
    ("dev", "", Of::Elsewhere),
    ("demo", "", Of::Elsewhere),
    ("doctor", "", Of::Elsewhere),
    ("deploy", "", Of::Elsewhere),
    ("destroy", "", Of::Elsewhere),
    ("tiers check", "FILE", Of::All),
    ("tiers diff", "FILE", Of::All),
    ("tiers apply", "FILE --yes", Of::All),
    ("customers add", "gamma --tier pro --key", Of::All),
    ("customers show", "acme", Of::Acme),
    ("customers list", "", Of::All),
    ("customers grant", "acme 100", Of::Acme),
    ("customers cap", "acme 100", Of::Acme),
    (
        "customers contact",
        "acme --email new@acme.example --webhook https://acme.example/hook",
        Of::Acme,
    ),
    ("customers suspend", "acme", Of::Acme),
    ("customers resume", "acme", Of::Acme),
    ("customers set-tier", "acme free", Of::Acme),
    ("keys issue", "acme", Of::Acme),
    ("keys rotate", "HASH", Of::Acme),
    ("keys list", "acme", Of::Acme),
    ("keys revoke", "HASH", Of::Acme),
    ("usage show", "acme", Of::Acme),
    ("usage top", "", Of::All),
    ("usage tail", "acme --looks 1", Of::Acme),
    ("alerts test", "acme", Of::Acme),
    ("alerts list", "acme", Of::Acme),
    ("reconcile", "acme", Of::Acme),
    ("stripe repair", "", Of::All),
    ("events replay", "", Of::All),
    ("counters restore", "acme 0", Of::Acme),
    ("period close", "acme --now", Of::Acme),
    ("cost", "--calls 10M", Of::All),
    ("completions", "bash", Of::All),
];
/// After all others: nothing comes after it.
const LAST: (&str, &str, Of) = ("customers cancel", "acme --yes", Of::Acme);

#[tokio::test]
async fn no_command_is_left_out() {
    let listed = COMMANDS.iter().chain([&LAST]).map(|(path, ..)| (*path).to_owned());
    assert_eq!(commands().await, listed.collect(), "add a new command to COMMANDS");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_for_one_customer_leaves_the_others_alone() {
    let system = system().await;
    let url = serve(system.gateway.router(system.clone())).await;
    let acme = system.sell("acme", "pro", Default::default()).await.expect("sold");
    let beta = system.sell("beta", "pro", Default::default()).await.expect("sold");
    system.deliver_events().await.expect("delivered");
    let hash = ApiKey::parse(&acme.key).expect("a key").hash().to_string();
    let file = std::env::temp_dir().join(format!("farebox-isolation-{}.yaml", std::process::id()));
    std::fs::write(&file, DEV_TIERS).expect("a temporary file");
    let file = file.to_str().expect("a path").to_owned();

    let before = held(&system, &beta.customer).await;
    assert!(
        before.len() >= 5,
        "a record, a key, a counter item and Stripe's: {before:#?}"
    );
    for (path, arguments, of) in COMMANDS.iter().chain([&LAST]).filter(|(.., of)| *of != Of::Elsewhere) {
        for json in [false, true] {
            let arguments = arguments.replace("HASH", &hash).replace("FILE", &file);
            let mut words: Vec<String> = path
                .split(' ')
                .chain(arguments.split_whitespace())
                .map(str::to_owned)
                .collect();
            words.extend(json.then(|| "--json".to_owned()));
            let asked: Vec<&str> = words.iter().map(String::as_str).collect();
            let (code, stdout, stderr) = run(farebox(&asked, &[("FAREBOX_LOCAL", &url)])).await;
            let said = stdout + &stderr;
            assert!(!said.contains("panicked") && code != 64, "{words:?}: {said}");
            assert!(*of == Of::All || !said.contains("beta"), "{words:?} shows beta: {said}");
            for key in [&acme.key, &beta.key] {
                assert!(!said.contains(key), "{words:?} shows a key: {said}");
            }
            settle(&system).await;
            assert_eq!(held(&system, &beta.customer).await, before, "{words:?}");
        }
    }
}

/// Lets everything arrive that a command has set off.
async fn settle(system: &Arc<System>) {
    system.services.stand_in.settle();
    system.deliver_events().await.expect("delivered");
    system.deliver_alerts().await.expect("delivered");
}
