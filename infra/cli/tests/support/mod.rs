//! What the tests of the built `farebox` have in common.

use std::{
    process::{Command, Stdio},
    sync::Arc,
};

use farebox_core::time::Timestamp;
use farebox_local::{Options, System, VirtualClock};

/// Where the local system's clock stands.
pub const START: Timestamp = Timestamp::from_s(1_800_000_000); // 2027-01-15 08:00:00Z

/// The command, without a terminal and without anything of this machine's configuration.
pub fn farebox(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farebox"));
    command
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("NO_COLOR", "1")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(variables.iter().copied())
        .stdin(Stdio::null());
    command
}

/// Exit code, stdout and stderr.
pub async fn run(mut command: Command) -> (i32, String, String) {
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.expect("no panic").expect("farebox runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (
        output.status.code().expect("an exit code"),
        text(output.stdout),
        text(output.stderr),
    )
}

/// A local system whose clock stands still.
pub async fn system() -> Arc<System> {
    let options = Options {
        clock: VirtualClock::standing(START),
        ..Options::new()
    };
    System::start(options).await.expect("the system starts")
}

/// Serves on a free port; returns the address.
pub async fn serve(router: axum::Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}
