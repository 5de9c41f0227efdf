//! The extent of the archive: a seek to both ends of each partition.

use fjall::Readable;
use millrace_contracts::StoreError;

use super::{EmbeddedArchive, decode_position, failed, hour_of};
use crate::archive::range::ArchiveExtent;

impl EmbeddedArchive {
    pub(in crate::archive) fn extent(&self) -> Result<Option<ArchiveExtent>, StoreError> {
        let snapshot = self.database.snapshot();
        let mut hours = Vec::new();
        for partition in 0..self.partitions {
            let stored = snapshot.get(&self.positions, partition.to_be_bytes()).map_err(failed)?;
            let stored = stored.map(|bytes| decode_position(&bytes)).transpose()?;
            if !stored.is_some_and(|(_, complete)| complete) {
                return Ok(None);
            }
            let mut rows = snapshot.prefix(&self.hourly, partition.to_be_bytes());
            for row in [rows.next(), rows.next_back()].into_iter().flatten() {
                hours.push(hour_of(&row.key().map_err(failed)?)?);
            }
        }
        Ok(Some(ArchiveExtent(hours.iter().min().copied().zip(hours.iter().max().copied()))))
    }
}
