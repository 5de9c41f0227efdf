//! The result of a load: a table for people, one line of JSON for scripts.

use std::fmt;
use std::time::Duration;

use millrace_contracts::Hour;
use serde_json::{Value, json};

use super::oracle::{Expected, Numbers};
use crate::text::{self, plural};

/// One of the three numbers.
type Pick = fn(&Numbers) -> u64;

/// The result of a load.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) run: String,
    pub(crate) seed: u64,
    pub(crate) events: u64,
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
    pub(crate) not_sent: u64,
    pub(crate) retried: u64,
    pub(crate) resent: u64,
    pub(crate) duplicated: u64,
    pub(crate) took: Duration,
    pub(crate) settled_after: Duration,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) max: Duration,
    /// Each hour's first ms, its expected range, and its actual numbers.
    pub(crate) hours: Vec<(u64, Expected, Result<Numbers, String>)>,
}

impl Report {
    /// Whether every number is right and at least one event was acknowledged.
    pub(crate) fn is_right(&self) -> bool {
        self.acknowledged > 0 && self.hours.iter().all(right)
    }

    /// Acknowledged events per second.
    fn throughput(&self) -> f64 {
        self.acknowledged as f64 / self.took.as_secs_f64().max(f64::EPSILON)
    }

    /// One line for scripts.
    pub(crate) fn json(&self) -> Value {
        let numbers =
            |n: &Numbers| json!({"unique_users": n.unique_users, "clicks": n.clicks, "impressions": n.impressions});
        let hours: Vec<Value> = self
            .hours
            .iter()
            .map(|row| {
                let (hour, expected, got) = row;
                json!({
                    "hour": name(*hour),
                    "least": numbers(&expected.least),
                    "most": numbers(&expected.most),
                    "got": got.as_ref().ok().map(numbers),
                    "error": got.as_ref().err(),
                    "ok": right(row),
                })
            })
            .collect();
        json!({
            "ok": self.is_right(),
            "run": self.run,
            "seed": self.seed,
            "events": self.events,
            "acknowledged": self.acknowledged,
            "refused": self.refused,
            "unknown": self.unknown,
            "not_sent": self.not_sent,
            "retried": self.retried,
            "resent": self.resent,
            "duplicated": self.duplicated,
            "seconds": self.took.as_secs_f64(),
            "per_second": self.throughput().round(),
            "settled_after_seconds": self.settled_after.as_secs_f64(),
            "p50_ms": self.p50.as_secs_f64() * 1e3,
            "p99_ms": self.p99.as_secs_f64() * 1e3,
            "max_ms": self.max.as_secs_f64() * 1e3,
            "hours": hours,
        })
    }

    /// One line for people.
    pub(crate) fn summary(&self) -> String {
        let hours = plural(self.hours.len() as u64, "hour");
        format!(
            "{} in {hours} acknowledged, {} refused, {} of unknown outcome; p99 {:.1?}. {}",
            plural(self.acknowledged, "event"),
            self.refused,
            self.unknown,
            self.p99,
            self.verdict()
        )
    }

    fn verdict(&self) -> String {
        let wrong = self.hours.iter().filter(|row| !right(row)).count();
        match (self.acknowledged, wrong) {
            (0, _) => "FAILED: no event was acknowledged".into(),
            (_, 0) => "Every number is right.".into(),
            (_, wrong) => {
                let verb = if wrong == 1 { "is" } else { "are" };
                format!("FAILED: {wrong} of {} {verb} wrong", plural(self.hours.len() as u64, "hour"))
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = text::table(&["hour", "number", "expected", "actual", "right"]);
        for row in &self.hours {
            let (hour, expected, got) = row;
            let of = |pick: Pick| {
                let (least, most) = (pick(&expected.least), pick(&expected.most));
                if least == most { least.to_string() } else { format!("{least} to {most}") }
            };
            let picks: [(&str, Pick); 3] =
                [("unique_users", |n| n.unique_users), ("clicks", |n| n.clicks), ("impressions", |n| n.impressions)];
            for (number, (label, pick)) in picks.into_iter().enumerate() {
                let got_text = match got {
                    Ok(got) => pick(got).to_string(),
                    Err(why) if number == 0 => why.clone(),
                    Err(_) => String::new(),
                };
                let fits =
                    got.as_ref().is_ok_and(|n| (pick(&expected.least)..=pick(&expected.most)).contains(&pick(n)));
                let hour = if number == 0 { name(*hour) } else { String::new() };
                table.add_row([hour, label.into(), of(pick), got_text, if fits { "yes" } else { "NO" }.into()]);
            }
        }
        writeln!(f, "{table}")?;
        writeln!(
            f,
            "{} events: {} acknowledged, {} refused, {} of unknown outcome, {} not sent; resent: {} after a refusal, {} after an \
             unknown outcome; {} duplicated",
            self.events,
            self.acknowledged,
            self.refused,
            self.unknown,
            self.not_sent,
            self.retried,
            self.resent,
            self.duplicated
        )?;
        writeln!(
            f,
            "{:.2} s, {:.0} acknowledged per second; responses: p50 {:.1?}, p99 {:.1?}, max {:.1?}; counts settled after {:.1?}",
            self.took.as_secs_f64(),
            self.throughput(),
            self.p50,
            self.p99,
            self.max,
            self.settled_after
        )?;
        writeln!(f, "run {}, seed {}", self.run, self.seed)?;
        f.write_str(&self.verdict())
    }
}

fn right((_, expected, got): &(u64, Expected, Result<Numbers, String>)) -> bool {
    got.as_ref().is_ok_and(|got| expected.allows(*got))
}

fn name(hour_start_ms: u64) -> String {
    i64::try_from(hour_start_ms).map_or_else(|_| hour_start_ms.to_string(), |ms| Hour::of_ms(ms).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(got: Result<Numbers, String>) -> Report {
        let numbers = Numbers { unique_users: 2, clicks: 1, impressions: 1 };
        let ms = Duration::from_millis;
        Report {
            run: "r".into(),
            seed: 1,
            events: 2,
            acknowledged: 2,
            refused: 0,
            unknown: 0,
            not_sent: 0,
            retried: 0,
            resent: 0,
            duplicated: 0,
            took: ms(1_000),
            settled_after: ms(5),
            p50: ms(1),
            p99: ms(2),
            max: ms(3),
            hours: vec![(0, Expected { least: numbers, most: numbers }, got)],
        }
    }

    #[test]
    fn passes_only_if_every_number_is_right() {
        let right = report(Ok(Numbers { unique_users: 2, clicks: 1, impressions: 1 }));
        assert!(right.is_right());
        assert!(right.to_string().ends_with("Every number is right."), "{right}");
        assert_eq!(right.json()["ok"], true);
        let line =
            "2 events in 1 hour acknowledged, 0 refused, 0 of unknown outcome; p99 2.0ms. Every number is right.";
        assert_eq!(right.summary(), line);
        let off_by_one = report(Ok(Numbers { unique_users: 2, clicks: 2, impressions: 1 }));
        assert!(off_by_one.to_string().contains("FAILED: 1 of 1 hour is wrong"), "{off_by_one}");
        assert_eq!(off_by_one.json()["ok"], false);
        assert!(!report(Err("status 503 (rebuilding)".into())).is_right());
        assert!(!Report { acknowledged: 0, hours: Vec::new(), ..report(Err(String::new())) }.is_right());
    }
}
