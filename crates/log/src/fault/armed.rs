//! Arms fail points by environment variables.

use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fail::FailScenario;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// One entry of `MILLRACE_CRASH`, `name:permille[:delay-microseconds]`.
#[derive(Debug, PartialEq, Eq)]
struct Crash {
    point: String,
    permille: u64,
    delay_us: u64,
}

impl FromStr for Crash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            // Names contain double colons.
            let (point, numbers) = text.rsplit_once("::").and_then(|(module, rest)| {
                let (last, numbers) = rest.split_once(':')?;
                Some((format!("{module}::{last}"), numbers))
            })?;
            let (permille, delay_us) = numbers.split_once(':').unwrap_or((numbers, "0"));
            let crash = Self { point, permille: permille.parse().ok()?, delay_us: delay_us.parse().ok()? };
            (crash.permille <= 1_000 && crash.delay_us <= 60_000_000).then_some(crash)
        };
        parse().ok_or_else(|| format!("MILLRACE_CRASH: {text:?} is not name:permille[:delay-microseconds]"))
    }
}

impl Crash {
    fn arm(self, seed: u64) -> Result<(), String> {
        let hits = AtomicU64::new(0);
        let (point, seed) = (self.point.clone(), xxh3_64_with_seed(self.point.as_bytes(), seed));
        let hit = move || {
            let nth = hits.fetch_add(1, Ordering::Relaxed);
            let chance = xxh3_64_with_seed(&nth.to_le_bytes(), seed);
            if chance % 1_000 >= self.permille {
                return;
            }
            let (point, pause) = (self.point.clone(), (chance >> 10) % (self.delay_us + 1));
            if pause == 0 {
                return die(&point, nth);
            }
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_micros(pause));
                die(&point, nth);
            });
        };
        fail::cfg_callback(point, hit)
    }
}

/// Kills this process as kill -9 does: nothing is flushed or closed. Prints one line before.
fn die(point: &str, nth: u64) {
    eprintln!("millrace: crash at {point}, hit {nth}");
    let killed = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    killed.expect("a process may kill itself");
}

/// Arms the fail points that the environment names, until the scenario is dropped.
///
/// `FAILPOINTS` has the format of the crate `fail`. `MILLRACE_CRASH` has entries `name:permille[:delay-microseconds]`,
/// separated by commas: the process is killed at this share of the hits of the point, pseudo-randomly by
/// `MILLRACE_SEED`; with a delay, up to this much later, in the middle of whatever follows.
pub fn arm_fail_points() -> Result<FailScenario<'static>, String> {
    let scenario = FailScenario::setup();
    let seed = std::env::var("MILLRACE_SEED").unwrap_or_else(|_| "0".into());
    let seed = seed.parse().map_err(|_| format!("MILLRACE_SEED: {seed:?} is not a number"))?;
    let crashes = std::env::var("MILLRACE_CRASH").unwrap_or_default();
    for crash in crashes.split(',').filter(|crash| !crash.is_empty()) {
        crash.parse::<Crash>()?.arm(seed)?;
    }
    Ok(scenario)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crash_entries_parse_or_are_refused() {
        let crash = |text: &str| text.parse::<Crash>().ok().map(|c| (c.point, c.permille, c.delay_us));
        let committing = "kafka::stage::committing".to_owned();
        assert_eq!(crash("kafka::stage::committing:5"), Some((committing.clone(), 5, 0)));
        assert_eq!(crash("kafka::stage::committing:1000:300"), Some((committing, 1_000, 300)));
        for bad in ["", "x", "x:5", "a::b", "a::b:", "a::b:1001", "a::b:1:", "a::b:1:x", "a::b:-1"] {
            assert_eq!(crash(bad), None, "{bad}");
        }
    }
}
