//! What stops half way leaves the operator with all that it takes to go on: no unit is given twice, no secret is in force that
//! nobody was shown, and nothing that is left is said to be done.

mod support;

use std::{
    process::{Command, Stdio},
    sync::Arc,
};

use farebox_local::{DEV_TIERS, System};
use serde_json::Value;

use crate::support::{farebox, run, serve, system};

struct Place {
    system: Arc<System>,
    url: String,
}

impl Place {
    async fn start() -> Self {
        let system = system().await;
        let url = serve(system.gateway.router(system.clone())).await;
        Self { system, url }
    }

    /// Runs the command; returns its exit code, stdout and stderr.
    async fn farebox(&self, arguments: &[&str]) -> (i32, String, String) {
        run(farebox(arguments, &[("FAREBOX_LOCAL", &self.url)])).await
    }

    /// The same where it must work.
    async fn json(&self, arguments: &[&str]) -> Value {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let (code, stdout, stderr) = self.farebox(&arguments).await;
        assert_eq!(code, 0, "{arguments:?}: {stdout}{stderr}");
        serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {stdout}{stderr}"))
    }

    /// Exit code and stderr, where nobody reads what the command prints.
    async fn unread(&self, arguments: &[&str]) -> (i32, String) {
        let mut command: Command = farebox(arguments, &[("FAREBOX_LOCAL", &self.url)]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn()?;
            drop(child.stdout.take());
            child.wait_with_output()
        });
        let output = output.await.expect("no panic").expect("farebox runs");
        let stderr = String::from_utf8(output.stderr).expect("text");
        (output.status.code().expect("an exit code"), stderr)
    }
}

fn file(name: &str, text: &str) -> String {
    let file = std::env::temp_dir().join(format!("farebox-halfway-{}-{name}", std::process::id()));
    std::fs::write(&file, text).expect("a temporary file");
    file.to_str().expect("a path").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_stops_nothing_half_way() {
    let place = Place::start().await;
    let new = file(
        "unread.yaml",
        &DEV_TIERS.replace("overage: $0.002/call", "overage: $0.003/call"),
    );
    let (code, stderr) = place.unread(&["tiers", "diff", &new]).await;
    assert_eq!((code, stderr.as_str()), (2, ""), "its own exit code");
    let (code, stderr) = place.unread(&["tiers", "apply", &new, "--yes"]).await;
    assert_eq!((code, stderr.as_str()), (0, ""));
    let left = place.json(&["tiers", "diff", &new]).await;
    assert_eq!(left["version"], 2, "all of it was applied: {left}");
    // It would go on for ever.
    let (code, stderr) = place.unread(&["usage", "tail"]).await;
    assert_eq!((code, stderr.as_str()), (0, ""));
    // A key that nobody was shown is no success.
    place.json(&["customers", "add", "acme", "--tier", "pro"]).await;
    let (code, stderr) = place.unread(&["keys", "issue", "acme"]).await;
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("could not be shown"), "{stderr}");
}
