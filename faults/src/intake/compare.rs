//! The oracle of the journal: what clients were answered against what its files hold.

use std::collections::HashMap;

use super::client::{Fate, Sender};
use super::files::Line;

/// The maximum number of differences of one journal.
const MAX_DIFFERENCES: usize = 20;

/// Each acknowledged message is in the journal once, a refused one is not, one of unknown outcome at most once; byte for
/// byte; those of a client in the order of its numbers; nothing else. A client that forgets messages sends others before
/// they may arrive: of it, no order is required.
pub(crate) fn compare(lines: &[Line], seed: u64, senders: &[Sender]) -> Vec<String> {
    let mut found = Vec::new();
    let mut by_client: HashMap<&str, Vec<&Line>> = HashMap::new();
    for line in lines {
        by_client.entry(&line.client).or_default().push(line);
    }
    for sender in senders {
        let id = sender.habits.id.as_str();
        let lines = by_client.remove(id).unwrap_or_default();
        if !sender.habits.forgetful {
            let falls = lines.windows(2).filter(|two| two[0].seq >= two[1].seq);
            found.extend(falls.map(|two| format!("client {id}: {} stands before {}", two[0].seq, two[1].seq)));
        }
        let mut counts = vec![0_u32; sender.fates.len()];
        for line in lines {
            let number = line.seq.wrapping_sub(1);
            match usize::try_from(number).ok().and_then(|at| counts.get_mut(at)) {
                Some(count) if line.payload == sender.habits.message(seed, number) => *count += 1,
                Some(_) => found.push(format!("client {id}: {} has other bytes than were sent", line.seq)),
                None => found.push(format!("client {id}: {} was never sent", line.seq)),
            }
        }
        for (at, (fate, count)) in sender.fates.iter().zip(counts).enumerate() {
            let right = match fate {
                Fate::Acknowledged => count == 1,
                Fate::Unsent | Fate::Refused => count == 0,
                Fate::Unknown => count <= 1,
            };
            if !right {
                found.push(format!("client {id}: {} is {fate:?} and stands there {count} times", at + 1));
            }
        }
    }
    found.extend(by_client.into_keys().map(|client| format!("client {client} does not exist")));
    if found.len() > MAX_DIFFERENCES {
        let further = found.len() - MAX_DIFFERENCES;
        found.truncate(MAX_DIFFERENCES);
        found.push(format!("{further} further differences"));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::client::Habits;
    use super::*;

    const SEED: u64 = 7;

    fn sender(forgetful: bool) -> Sender {
        let second = Duration::from_secs(1);
        let habits = Habits {
            id: "a".into(),
            epoch: None,
            window: 1,
            burst: 1,
            pause: second,
            patience: second,
            faithful: false,
            large: false,
            forgetful,
            count: None,
        };
        let mut sender = Sender::new(habits);
        sender.fates = vec![Fate::Acknowledged, Fate::Refused, Fate::Unknown, Fate::Unsent];
        sender
    }

    #[test]
    fn every_kind_of_difference_is_found() {
        let line = |seq: u64| Line { client: "a".into(), seq, payload: sender(false).habits.message(SEED, seq - 1) };
        let count = |lines: &[Line], forgetful| compare(lines, SEED, &[sender(forgetful)]).len();
        assert_eq!(count(&[line(1)], false), 0);
        assert_eq!(count(&[line(1), line(3)], false), 0);
        assert_eq!(count(&[], false), 1, "lost");
        assert_eq!(count(&[line(1), line(1)], true), 1, "twice");
        assert_eq!(count(&[line(1), line(2)], false), 1, "refused");
        assert_eq!(count(&[line(1), line(3), line(3)], true), 1, "of unknown outcome, twice");
        assert_eq!(count(&[line(3), line(1)], false), 1, "out of order");
        assert_eq!(count(&[line(3), line(1)], true), 0, "of a client without an order");
        assert_eq!(count(&[line(1), line(4)], false), 1, "not sent");
        assert_eq!(count(&[line(1), line(9)], false), 1, "no such number");
        let other = Line { payload: b"other".to_vec(), ..line(1) };
        assert_eq!(count(&[other], false), 2, "other bytes, and lost");
        assert_eq!(count(&[line(1), Line { client: "b".into(), ..line(1) }], false), 1, "another client");
    }
}
