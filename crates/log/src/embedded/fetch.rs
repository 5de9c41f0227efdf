//! Reads single records by their offsets: a get for each.

use std::time::Instant;

use millrace_contracts::Topic;

use super::{EmbeddedLog, codec, damaged};
use crate::{Batch, Fetched, Limits, LogError};

impl EmbeddedLog {
    pub(crate) fn fetch(
        &self,
        topic: Topic,
        partition: u32,
        offsets: &[u64],
        limits: Limits,
    ) -> Result<Fetched, LogError> {
        let began = Instant::now();
        let partition = self.0.shared.layout.get(topic, partition)?;
        let mut fetched = Fetched { records: Batch::new(partition.number), decided: 0 };
        for &offset in offsets {
            if offset >= partition.start() && offset < partition.end() {
                let value = partition.log.get(offset.to_be_bytes());
                match value.map_err(|error| damaged(partition.log.path(), &partition.shown(), error))? {
                    Some(value) => {
                        let record = codec::decode(offset, &value);
                        fetched.records.push(record.ok_or_else(|| partition.broken("the record", offset))?);
                    }
                    // Retention raises the start before it drops records.
                    None if offset < partition.start() => {}
                    None => return Err(partition.broken("the record", offset)),
                }
            }
            fetched.decided += 1;
            if fetched.records.bytes() >= limits.bytes || began.elapsed() >= limits.wait {
                break;
            }
        }
        Ok(fetched)
    }
}
