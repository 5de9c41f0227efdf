//! `--dry-run`: reads everything, sends nothing.

use super::lines::Mark;
use super::records::Failure;
use super::reject::{MOST_SHOWN, Reject};
use super::{Input, Stop};

/// Events and lines that are none. The first hundred of these go to `show`.
pub(crate) fn look(input: &Input, mut show: impl FnMut(&str)) -> Result<(u64, u64), Stop> {
    let mut records = input.records(input.open()?, Mark::default())?;
    let (mut good, mut bad) = (0, 0);
    loop {
        match records.next() {
            Ok(Some(record)) => match record.event {
                Ok(_) => good += 1,
                Err(fault) => {
                    bad += 1;
                    if bad <= MOST_SHOWN {
                        show(&Reject::bad(record.line, fault).to_string());
                    }
                }
            },
            Ok(None) => return Ok((good, bad)),
            Err(Failure::Io(why)) => return Err(Stop::file(input.name())(why)),
            Err(Failure::Stop(stop)) => return Err(stop),
        }
    }
}
