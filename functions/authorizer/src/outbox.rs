//! Usage messages on their way to the queue: cumulative, so that a later one replaces an earlier one.

use std::collections::{BTreeMap, HashMap};

use farebox_core::{
    ledger::{RowKey, thresholds_reached},
    message::UsageMessage,
    time::Timestamp,
};

/// A row's message waits this long for the next one.
const COALESCE_MS: u64 = 1_000;
/// After the queue failed it is left alone for so long: asking it takes time in which no request is served.
const REST_MS: u64 = 2_000;
/// More waiting messages than this are dropped, oldest buckets first: they are hints, the scan finds what they said.
const WAITING_MAX: usize = 10_000;

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// In order, so that what is sent follows from what was counted alone.
    waiting: BTreeMap<RowKey, UsageMessage>,
    /// When each row was last spoken of. A new row is, at once: it is what the consumer finds the bucket by.
    sent: HashMap<RowKey, Timestamp>,
    is_urgent: bool,
    rests_until: Timestamp,
}

impl Outbox {
    pub(crate) fn put(&mut self, message: UsageMessage, cost: u64) {
        // At once when an alert threshold is crossed.
        let reached = |units: u64| -> usize {
            let shares = [message.included, message.cap].into_iter().flatten();
            shares
                .map(|of| thresholds_reached(units, of, &message.alert_percents).len())
                .sum()
        };
        self.is_urgent |= reached(message.period_units) > reached(message.period_units.saturating_sub(cost));
        let key = RowKey::of(&message);
        match self.waiting.get(&key) {
            Some(waiting) if waiting.units >= message.units => {}
            _ => {
                self.waiting.insert(key, message);
            }
        }
        if self.waiting.len() > WAITING_MAX
            && let Some(oldest) = self.waiting.keys().min_by_key(|key| key.bucket).cloned()
        {
            self.waiting.remove(&oldest);
        }
    }

    /// Takes what is to be sent now: at most one message per row and second, unless it is urgent or everything is asked for.
    pub(crate) fn take(&mut self, now: Timestamp, all: bool) -> Vec<UsageMessage> {
        if now < self.rests_until && !all {
            return Vec::new();
        }
        let all = all || std::mem::take(&mut self.is_urgent);
        let is_due = |key: &&RowKey| all || self.sent.get(*key).is_none_or(|&at| now.ms_since(at) >= COALESCE_MS);
        let due: Vec<RowKey> = self.waiting.keys().filter(is_due).cloned().collect();
        if self.sent.len() > WAITING_MAX {
            self.sent.retain(|_, at| now.ms_since(*at) < COALESCE_MS);
        }
        let mut messages = Vec::with_capacity(due.len());
        for key in due {
            messages.extend(self.waiting.remove(&key));
            self.sent.insert(key, now);
        }
        messages
    }

    /// Puts back what the queue did not take.
    pub(crate) fn put_back(&mut self, messages: Vec<UsageMessage>, now: Timestamp) {
        self.rests_until = now.plus_ms(REST_MS);
        for message in messages {
            self.sent.remove(&RowKey::of(&message));
            self.put(message, 0);
        }
    }
}
