//! The journal: every input that changed the state, one JSON line each, on disk before the answer goes out.
//!
//! The state machine is deterministic, so the inputs are enough. A line without its newline is the trace of a crash in the
//! middle of a write; nothing was answered for it, and [`Journal::open`] cuts it off.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{
    OpenError,
    state::{Call, Settings, State},
};

/// Counts up with every change that makes an old journal unreadable, or readable to another state.
const VERSION: u32 = 2;

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    farebox_stripe_standin: u32,
    settings: Settings,
}

/// An input that changed the state.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Input {
    /// The virtual time.
    pub(crate) at: i64,
    /// Absent if only time passed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) call: Option<Call>,
}

impl Input {
    /// Does to the state what it did the first time.
    fn replay(&self, state: &mut State) {
        state.settle(self.at);
        if let Some(call) = &self.call {
            state.handle(call, self.at);
        }
    }
}

/// An open journal, at its end.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    written: u64,
    flushed: Arc<Flushed>,
}

/// How far the journal is on disk. One flush serves everything that was written before it began.
#[derive(Debug)]
pub(crate) struct Flushed {
    file: File,
    up_to: Mutex<u64>,
}

/// What [`Journal::open`] found.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) journal: Journal,
    pub(crate) state: State,
    /// The time of the last input.
    pub(crate) at: i64,
    /// How many inputs were replayed.
    pub(crate) inputs: u64,
}

impl Journal {
    /// Opens or creates a journal and replays it.
    pub(crate) fn open(path: &Path, settings: Settings) -> Result<Opened, OpenError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let whole = text
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |newline| newline + 1);
        let mut lines = text[..whole].split_inclusive(|byte| *byte == b'\n');
        let mut state = State::new(settings);
        let mut at = i64::MIN;
        let mut inputs = 0;
        if let Some(header) = lines.next() {
            check_header(header, settings)?;
        }
        for line in lines {
            inputs += 1;
            let input: Input = serde_json::from_slice(line).map_err(|source| OpenError::Corrupt {
                line: inputs + 1,
                source,
            })?;
            input.replay(&mut state);
            at = at.max(input.at);
        }
        file.set_len(whole as u64)?;
        file.seek(SeekFrom::Start(whole as u64))?;
        let flushed = Arc::new(Flushed {
            file: file.try_clone()?,
            up_to: Mutex::new(0),
        });
        let mut journal = Self {
            file,
            written: 0,
            flushed,
        };
        if whole == 0 {
            journal.write(&Header {
                farebox_stripe_standin: VERSION,
                settings,
            })?;
            journal.flushed.wait(journal.written)?;
        }
        Ok(Opened {
            journal,
            state,
            at,
            inputs,
        })
    }

    /// Hands an input to the operating system; [`Flushed::wait`] then waits until it is on disk.
    pub(crate) fn append(&mut self, input: &Input) -> io::Result<()> {
        self.write(input)
    }

    fn write(&mut self, entry: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.written += line.len() as u64;
        Ok(())
    }

    /// How many bytes this process has written.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    pub(crate) fn flushed(&self) -> Arc<Flushed> {
        Arc::clone(&self.flushed)
    }
}

impl Flushed {
    /// Whether the first `written` bytes of this process are on disk.
    pub(crate) fn covers(&self, written: u64) -> bool {
        *self.up_to.lock().unwrap_or_else(PoisonError::into_inner) >= written
    }

    /// Blocks until they are.
    pub(crate) fn wait(&self, written: u64) -> io::Result<()> {
        let mut up_to = self.up_to.lock().unwrap_or_else(PoisonError::into_inner);
        if *up_to < written {
            self.file.sync_data()?;
            *up_to = written;
        }
        Ok(())
    }
}

fn check_header(line: &[u8], settings: Settings) -> Result<(), OpenError> {
    let version = serde_json::from_slice::<serde_json::Value>(line)
        .ok()
        .and_then(|header| header.get("farebox_stripe_standin")?.as_u64());
    match version {
        None => return Err(OpenError::NotAJournal),
        Some(version) if version != u64::from(VERSION) => {
            return Err(OpenError::Version {
                found: version,
                known: VERSION,
            });
        }
        Some(_) => {}
    }
    let header: Header = serde_json::from_slice(line).map_err(|source| OpenError::Corrupt { line: 1, source })?;
    if header.settings == settings {
        Ok(())
    } else {
        Err(OpenError::Settings {
            journal: format!("{:?}", header.settings),
            asked: format!("{settings:?}"),
        })
    }
}
