//! Which records count, and the quarantine of all others: each is copied to `analytics.late` with the reason. No record is
//! dropped.

use millrace_base::limits::MAX_USER_BYTES;
use millrace_contracts::{
    EventRef, EventWindow, Hour, QuarantineReason, QuarantineRecord, Topic, UserHash, partition_of,
};
use millrace_log::{Record, Step};

/// How far log time may lag behind the clock of the command service, which has accepted the event by that clock. Without
/// this margin the processor would quarantine acknowledged events.
const MAX_CLOCK_SKEW_MS: i64 = 60_000;

/// Decides whether a record is an event that counts in this partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EventFilter {
    partitions: u32,
    window: EventWindow,
    oldest_ms: i64,
    max_ahead_ms: i64,
}

impl EventFilter {
    pub(crate) fn new(partitions: u32, window: EventWindow) -> Self {
        let (oldest_ms, max_ahead_ms) = window.at(MAX_CLOCK_SKEW_MS).into_inner();
        Self { partitions, window, oldest_ms, max_ahead_ms }
    }

    /// The event, or the reason for the quarantine.
    #[inline]
    pub(crate) fn event<'a>(
        &self,
        partition: u32,
        record: Record<'a>,
        log_time: i64,
    ) -> Result<EventRef<'a>, QuarantineReason> {
        let value = record.value.ok_or(QuarantineReason::Tombstone)?;
        let event = EventRef::decode(value).map_err(|_| QuarantineReason::Undecodable)?;
        if !is_valid_user(event.user) {
            return Err(QuarantineReason::InvalidUser);
        }
        if partition_of(UserHash::of(event.user), self.partitions) != partition {
            return Err(QuarantineReason::WrongPartition);
        }
        let newest = log_time.saturating_add(self.max_ahead_ms);
        if event.timestamp_ms < self.oldest_ms
            || event.timestamp_ms > newest
            || Hour::of_ms(event.timestamp_ms) > Hour::MAX
        {
            return Err(QuarantineReason::OutsideWindow);
        }
        Ok(event)
    }

    /// Whether a command service with the settings of this process would have refused the event. If so, another producer
    /// wrote it, or the settings of the processes differ.
    pub(crate) fn contradicts_command(&self, record: Record<'_>) -> bool {
        let event = record.value.and_then(|value| EventRef::decode(value).ok());
        event.is_some_and(|event| !self.window.at(event.received_at_ms).contains(&event.timestamp_ms))
    }
}

#[inline]
fn is_valid_user(user: &str) -> bool {
    // Nearly every id is plain ASCII, which needs no decoding. The fold has no early exit: faster for short text.
    let plain = || user.bytes().fold(true, |plain, byte| plain & (b' '..0x7f).contains(&byte));
    (1..=MAX_USER_BYTES).contains(&user.len()) && (plain() || !user.chars().any(char::is_control))
}

/// Writes a record to `analytics.late`.
pub(crate) fn quarantine(partition: u32, record: Record<'_>, log_time: i64, reason: QuarantineReason, step: &mut Step) {
    let copy = QuarantineRecord {
        reason,
        partition,
        offset: record.offset,
        log_time_ms: log_time,
        key: record.key,
        value: record.value,
        value_size: record.value.map_or(0, |value| value.len() as u64),
    };
    let hour = record.value.and_then(|value| EventRef::decode(value).ok()).map(|event| Hour::of_ms(event.timestamp_ms));
    match hour.filter(|hour| (Hour::of_ms(0)..=Hour::MAX).contains(hour)) {
        Some(hour) => step.put(Topic::LATE, partition, hour, |out| copy.encode(out)),
        None => step.put(Topic::LATE, partition, "-", |out| copy.encode(out)),
    }
}
