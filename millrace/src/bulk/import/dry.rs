//! `--dry-run`: reads and checks every line, sends nothing.

use super::lines::Mark;
use super::records::Failure;
use super::reject::{MAX_PRINTED, Reject};
use super::{Input, Stop};

/// Counts valid events and invalid lines. The first hundred invalid lines go to `print`.
pub(crate) fn dry_run(input: &Input, mut print: impl FnMut(&str)) -> Result<(u64, u64), Stop> {
    let mut records = input.records(input.open()?, Mark::default())?;
    let (mut good, mut bad) = (0, 0);
    loop {
        match records.next() {
            Ok(Some(record)) => match record.event {
                Ok(_) => good += 1,
                Err(fault) => {
                    bad += 1;
                    if bad <= MAX_PRINTED {
                        print(&Reject::invalid(record.line, fault).to_string());
                    }
                }
            },
            Ok(None) => return Ok((good, bad)),
            Err(Failure::Io(why)) => return Err(Stop::file(input.name())(why)),
            Err(Failure::Stop(stop)) => return Err(stop),
        }
    }
}
