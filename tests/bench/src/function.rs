//! A function under test: its process, and what the kernel knows of it.

use std::{
    fs,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use axum::body::Bytes;
use tokio::process::{Child, Command};

use crate::emulator::{Answer, Emulator};

/// Longer than this nothing here takes, even under Valgrind.
const PATIENCE: Duration = Duration::from_secs(120);

/// How to start a function.
#[derive(Clone)]
pub(crate) struct Program {
    pub(crate) command: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
}

impl Program {
    pub(crate) fn with(&self, changes: &[(&str, &str)]) -> Self {
        let mut program = self.clone();
        for (name, value) in changes {
            program.environment.retain(|(known, _)| known != name);
            program.environment.push(((*name).to_owned(), (*value).to_owned()));
        }
        program
    }
}

/// A running function.
pub(crate) struct Function {
    emulator: Emulator,
    child: Child,
    /// From the start of the process to its first call for an event.
    pub(crate) init: Duration,
}

impl Function {
    /// Starts it and waits until it asks for its first event. Its output goes to a file.
    pub(crate) async fn start(program: &Program, log: &Path) -> Result<Self, String> {
        let text = |error: std::io::Error| format!("{}: {error}", program.command.join(" "));
        let emulator = Emulator::start().await.map_err(text)?;
        let (file, errors) = (fs::File::create(log).map_err(text)?, log.with_extension("err"));
        let errors = fs::File::create(errors).map_err(text)?;
        let (name, arguments) = program.command.split_first().ok_or("no command")?;
        let mut command = Command::new(name);
        command
            .args(arguments)
            .env_clear()
            .envs(program.environment.iter().map(|(name, value)| (name, value)))
            .env("AWS_LAMBDA_RUNTIME_API", emulator.address.to_string())
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .kill_on_drop(true);
        let began = Instant::now();
        let mut child = command.spawn().map_err(text)?;
        tokio::select! {
            () = emulator.ready() => {}
            ended = child.wait() => {
                let log = fs::read_to_string(log).unwrap_or_default();
                let ended = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                return Err(format!("it ended at init with {ended}: {}", log.trim()));
            }
            () = tokio::time::sleep(PATIENCE) => return Err("it does not get ready".to_owned()),
        }
        Ok(Self {
            emulator,
            child,
            init: began.elapsed(),
        })
    }

    /// One invocation.
    pub(crate) async fn invoke(&self, event: &Bytes) -> Result<Answer, String> {
        match tokio::time::timeout(PATIENCE, self.emulator.invoke(event)).await {
            Ok(answer) => answer,
            Err(_) => Err("it does not answer".to_owned()),
        }
    }

    /// Until what follows the last response is done as well.
    pub(crate) async fn rest(&self) {
        let _ = tokio::time::timeout(PATIENCE, self.emulator.ready()).await;
    }

    /// CPU time of all its threads so far, by the scheduler's own account
    /// (<https://docs.kernel.org/scheduler/sched-stats.html>).
    pub(crate) fn cpu(&self) -> Duration {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).into_iter().flatten();
        let of = |thread: fs::DirEntry| -> Option<u64> {
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse().ok()
        };
        Duration::from_nanos(threads.flatten().filter_map(of).sum())
    }

    /// The most memory that it ever held, in KiB.
    pub(crate) fn rss_peak_kib(&self) -> u64 {
        self.memory_kib("VmHWM:")
    }

    /// The memory that it holds, in KiB.
    pub(crate) fn rss_kib(&self) -> u64 {
        self.memory_kib("VmRSS:")
    }

    fn memory_kib(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
            .unwrap_or(0)
    }

    fn pid(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// Ends it as Lambda does.
    pub(crate) async fn end(mut self) {
        let _ = Command::new("kill").arg(self.pid().to_string()).status().await;
        let _ = tokio::time::timeout(PATIENCE, self.child.wait()).await;
    }
}
