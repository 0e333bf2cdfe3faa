//! What people and programs read: tables, sentences and JSON.

use std::{
    io::{self, ErrorKind, IsTerminal, Write},
    sync::atomic::{AtomicBool, Ordering},
};

use chrono::DateTime;
use comfy_table::{Cell, CellAlignment, Color, Table, presets};
use serde::Serialize;

use crate::{failure::Failure, secrecy::masked};

/// Whoever read stdout has gone away, as `head` does.
static IS_UNREAD: AtomicBool = AtomicBool::new(false);

/// Where answers go, and in which form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    /// One JSON value instead of sentences and tables.
    pub(crate) is_json: bool,
    is_coloured: bool,
}

impl Out {
    pub(crate) fn new(is_json: bool) -> Self {
        // https://no-color.org: any value but the empty one.
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            is_json,
            is_coloured: !is_json && !is_plain && io::stdout().is_terminal(),
        }
    }

    /// Prints the value as JSON, or what people read.
    pub(crate) fn show(self, value: &impl Serialize, people: impl FnOnce() -> String) -> Result<(), Failure> {
        self.reveal(value, people, &[])
    }

    /// The same with secrets in it that were made just now, for the one time that they are shown. That nobody reads them any more
    /// is a failure, unlike with everything else: they are in force, and nobody has them.
    pub(crate) fn reveal(
        self,
        value: &impl Serialize,
        people: impl FnOnce() -> String,
        secrets: &[&str],
    ) -> Result<(), Failure> {
        let text = match self.is_json {
            true => escaped(&serde_json::to_string_pretty(value).map_err(Failure::failed)?),
            false => people(),
        };
        self.write(&masked(text.trim_end(), secrets))?;
        match self.is_unread() && !secrets.is_empty() {
            true => Err(Failure::failed(
                "stdout is closed: what was made is in force, but could not be shown, and is shown only once. Replace it",
            )),
            false => Ok(()),
        }
    }

    /// Prints a line for people; with `--json` nothing.
    pub(crate) fn say(self, text: &str) -> Result<(), Failure> {
        if self.is_json { Ok(()) } else { self.line(text) }
    }

    /// Prints a line.
    pub(crate) fn line(self, text: &str) -> Result<(), Failure> {
        self.write(&masked(text, &[]))
    }

    /// Prints a line beside the answer, on stderr. Who has closed that as well misses it; `eprintln!` would end the command.
    pub(crate) fn aside(self, text: &str) {
        let _ = writeln!(io::stderr(), "{}", masked(text, &[]));
    }

    /// Whether nobody reads stdout any more, so that what only reads may end.
    pub(crate) fn is_unread(self) -> bool {
        IS_UNREAD.load(Ordering::Relaxed)
    }

    /// A reader that has gone away is no failure, and no reason to stop half way through what is being done: from then on
    /// nothing is said.
    fn write(self, text: &str) -> Result<(), Failure> {
        if self.is_unread() {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                IS_UNREAD.store(true, Ordering::Relaxed);
                Ok(())
            }
            written => written.map_err(Failure::failed),
        }
    }

    /// A table whose columns from `first_number` on are numbers.
    pub(crate) fn table(self, header: &[&str], first_number: usize, rows: Vec<Vec<String>>) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if !self.is_coloured {
            table.force_no_tty();
        }
        let bold = |text: &str| match self.is_coloured {
            true => Cell::new(text).fg(Color::DarkCyan),
            false => Cell::new(text),
        };
        table.set_header(header.iter().map(|text| bold(text)));
        for row in rows {
            table.add_row(row);
        }
        for i in 0..table.column_count() {
            if let Some(column) = table.column_mut(i) {
                let padding = (0, 2);
                column.set_padding(padding);
                if i >= first_number {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        let lines: Vec<String> = table
            .to_string()
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect();
        lines.join("\n")
    }

    /// A word that stands out: red for what is wrong, yellow for what waits.
    pub(crate) fn bad(self, text: &str) -> String {
        self.paint(text, 31)
    }

    pub(crate) fn waits(self, text: &str) -> String {
        self.paint(text, 33)
    }

    fn paint(self, text: &str, colour: u8) -> String {
        match self.is_coloured {
            true => format!("\u{1b}[{colour}m{text}\u{1b}[0m"),
            false => text.to_owned(),
        }
    }
}

/// Text that somebody else chose, without what could steer a terminal.
pub(crate) fn plain(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

/// JSON with DEL and the C1 controls escaped as well; they stand in strings only.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for char in json.chars() {
        match char {
            '\u{7f}'..='\u{9f}' => text.push_str(&format!("\\u{:04x}", u32::from(char))),
            char => text.push(char),
        }
    }
    text
}

/// A second of unix time in UTC.
pub(crate) fn time(s: u64) -> String {
    let date = i64::try_from(s).ok().and_then(|s| DateTime::from_timestamp(s, 0));
    date.map_or_else(|| s.to_string(), |date| date.format("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// `1 customer`, `2 customers`.
pub(crate) fn count(n: usize, noun: &str) -> String {
    match n {
        1 => format!("1 {noun}"),
        n => format!("{n} {noun}s"),
    }
}
