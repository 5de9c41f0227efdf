//! What is counted here and what is put aside into `analytics.late`, with the reason. There is no third way.

use millrace_contracts::{
    EventRef, EventWindow, Hour, QuarantineReason, QuarantineRecord, Topic, UserHash, partition_of,
};
use millrace_log::{Record, Step};

const MOST_USER_BYTES: usize = 256;
/// The command service asks its own clock whether an event is too far ahead; the log's time may be that much behind it. An
/// event that was acknowledged is not to be put aside here.
const CLOCKS_DIFFER_MS: i64 = 60_000;

/// What decides whether a record is an event to be counted here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    partitions: u32,
    from_ms: i64,
    ahead_ms: i64,
}

impl Rules {
    pub(crate) fn new(partitions: u32, window: EventWindow) -> Self {
        let (from_ms, ahead_ms) = window.at(CLOCKS_DIFFER_MS).into_inner();
        Self { partitions, from_ms, ahead_ms }
    }

    /// The event and its user's hash, or why it is not counted in this partition.
    #[inline]
    pub(crate) fn event<'a>(
        &self,
        partition: u32,
        record: Record<'a>,
        log_time: i64,
    ) -> Result<(EventRef<'a>, UserHash), QuarantineReason> {
        let value = record.value.ok_or(QuarantineReason::Tombstone)?;
        let event = EventRef::decode(value).map_err(|_| QuarantineReason::Undecodable)?;
        if !is_user(event.user) {
            return Err(QuarantineReason::InvalidUser);
        }
        let user = UserHash::of(event.user);
        if partition_of(user, self.partitions) != partition {
            return Err(QuarantineReason::WrongPartition);
        }
        let newest = log_time.saturating_add(self.ahead_ms);
        if event.timestamp_ms < self.from_ms
            || event.timestamp_ms > newest
            || Hour::of_ms(event.timestamp_ms) > Hour::MAX
        {
            return Err(QuarantineReason::OutsideWindow);
        }
        Ok((event, user))
    }
}

#[inline]
fn is_user(user: &str) -> bool {
    // Nearly every id is plain ASCII, which needs no look at characters. No early end: that is quicker for a short text.
    let plain = || user.bytes().fold(true, |plain, byte| plain & (b' '..0x7f).contains(&byte));
    (1..=MOST_USER_BYTES).contains(&user.len()) && (plain() || !user.chars().any(char::is_control))
}

/// Puts a record aside.
pub(crate) fn park(partition: u32, record: Record<'_>, log_time: i64, reason: QuarantineReason, step: &mut Step) {
    let parked = QuarantineRecord {
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
        Some(hour) => step.put(Topic::LATE, partition, hour, |out| parked.encode(out)),
        None => step.put(Topic::LATE, partition, "-", |out| parked.encode(out)),
    }
}
