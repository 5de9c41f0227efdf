//! The results of an open loop of posts or reads, as lines for `bench/lib.sh`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use crate::clock::{now_ms, wait_out_the_hours_end};
use crate::http::Tier;
use crate::numbers::{ms, percentile};
use crate::open_loop::{Late, Outcome, Plan, run};
use crate::{print, requests};

/// Rate and length of a load.
#[derive(Debug, Clone, Args)]
pub(crate) struct Pace {
    /// Requests per second
    #[arg(long)]
    rate: f64,
    /// Length in seconds
    #[arg(long)]
    seconds: f64,
    /// Number of connections
    #[arg(long, default_value_t = 1_000)]
    connections: usize,
}

impl Pace {
    /// The number of requests.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "far below 2⁵³, and not negative")]
    pub(crate) fn count(&self) -> u64 {
        (self.rate * self.seconds).ceil() as u64
    }

    /// When the n-th request is due, from the start.
    pub(crate) fn due(&self, number: u64) -> Duration {
        Duration::from_secs_f64(number as f64 / self.rate)
    }

    pub(crate) fn lasting(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    pub(crate) fn plan(&self, to: SocketAddr, requests: Vec<Vec<u8>>, late: Late) -> Plan {
        Plan { to, requests, rate: self.rate, lasting: self.lasting(), connections: self.connections, late }
    }
}

/// Posts events of the current hour and prints `OFFER` with, per second: due, sent, acknowledged, refused (429 and 503),
/// other responses, no response; then median and 99th percentile of the acknowledged in ms.
pub(crate) async fn posts(to: SocketAddr, pace: Pace) -> anyhow::Result<()> {
    wait_out_the_hours_end(pace.lasting()).await;
    let plan = pace.plan(to, requests::posts(to, now_ms()), Late::Dropped);
    let sent = tokio::task::spawn_blocking(|| run(plan, |_| {})).await??;
    print(&summary(&sent, pace.lasting()))
}

/// Counts the requests due and answered while load was offered, without the first quarter, in which the number of
/// requests in flight still grows, and without the responses after the end, which the server sends without load.
fn summary(sent: &Outcome, lasting: Duration) -> String {
    let window = lasting / 4..lasting;
    let each_second = |count: usize| count as f64 / (lasting.as_secs_f64() * 0.75);
    let due = (sent.answers.len() as u64 + sent.unsent) as f64 / lasting.as_secs_f64();
    let begun = sent.answers.iter().filter(|answered| window.contains(&answered.due));
    let silent = begun.clone().filter(|answered| answered.status == 0).count();
    let answered: Vec<_> = sent
        .answers
        .iter()
        .filter(|answered| answered.status != 0 && window.contains(&(answered.due + answered.took)))
        .collect();
    let mut took: Vec<_> =
        answered.iter().filter(|answered| is_success(answered.status)).map(|answered| answered.took).collect();
    let refused = answered.iter().filter(|answered| matches!(answered.status, 429 | 503)).count();
    format!(
        "OFFER {due:.0} {:.0} {:.0} {:.0} {:.0} {:.0} {} {}",
        each_second(begun.count()),
        each_second(took.len()),
        each_second(refused),
        each_second(answered.len() - took.len() - refused),
        each_second(silent),
        ms(percentile(&mut took, 0.5)),
        ms(percentile(&mut took, 0.99)),
    )
}

/// Reads: 95 % of the current hour and 5 % of past ones, half of those inside and half outside the window of Redis, if any.
/// Prints `READS` with responses per second and failures; then `TIER` for each tier with its name, number of responses,
/// median and 99th percentile in ms.
pub(crate) async fn reads(to: SocketAddr, pace: Pace, live_hours: u64, hours: u64) -> anyhow::Result<()> {
    wait_out_the_hours_end(pace.lasting()).await;
    let spans: &[_] = if live_hours > 0 {
        &[(950, 0..=0), (25, 1..=live_hours), (25, live_hours + 2..=hours)]
    } else {
        &[(950, 0..=0), (50, 1..=hours)]
    };
    let plan = pace.plan(to, requests::gets(to, now_ms(), spans), Late::Outcome);
    let sent = tokio::task::spawn_blocking(|| run(plan, |_| {})).await??;
    let good = sent.count(|status| status == 200);
    let rate = good as f64 / sent.lasted(pace.lasting()).as_secs_f64();
    print(&format!("READS {rate:.0} {}", sent.answers.len() - good))?;
    for (name, tier) in [("memory", Tier::Memory), ("redis", Tier::Redis), ("archive", Tier::Archive)] {
        let of_tier = sent.answers.iter().filter(|answered| answered.tier == tier && answered.status == 200);
        let mut took: Vec<_> = of_tier.map(|answered| answered.took).collect();
        let (p50, p99) = (ms(percentile(&mut took, 0.5)), ms(percentile(&mut took, 0.99)));
        print(&format!("TIER {name} {} {p50} {p99}", took.len()))?;
    }
    Ok(())
}

fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open_loop::Exchange;

    #[test]
    fn counts_each_request_of_the_window_once() {
        let answered = |due, status, took| Exchange {
            due: Duration::from_millis(due),
            took: Duration::from_millis(took),
            status,
            tier: Tier::Unknown,
        };
        let answers = vec![
            answered(0, 204, 1),
            answered(999, 204, 31),
            answered(2_000, 202, 10),
            answered(2_000, 503, 1),
            answered(2_000, 429, 1),
            answered(2_000, 400, 1),
            answered(2_000, 0, 10_000),
            answered(3_999, 204, 2),
        ];
        // Over the last three of four seconds: six started, two acknowledged, two refused, one other, one without a response.
        let sent = Outcome { answers, unsent: 4 };
        assert_eq!(summary(&sent, Duration::from_secs(4)), "OFFER 3 2 1 1 0 0 10.00 31.00");
    }
}
