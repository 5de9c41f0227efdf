//! What an open loop of posts or of reads comes to, as lines for `bench/lib.sh`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use crate::clock::{not_over_the_turn, now_ms};
use crate::http::Tier;
use crate::numbers::{ms, percentile};
use crate::open_loop::{Late, Plan, Sent, run};
use crate::{requests, say};

/// How much, and for how long.
#[derive(Debug, Clone, Args)]
pub(crate) struct Pace {
    /// Requests a second
    #[arg(long)]
    rate: f64,
    /// For how many seconds
    #[arg(long)]
    seconds: f64,
    /// Connections
    #[arg(long, default_value_t = 1_000)]
    connections: usize,
}

impl Pace {
    pub(crate) fn lasting(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    pub(crate) fn plan(&self, to: SocketAddr, requests: Vec<Vec<u8>>, late: Late) -> Plan {
        Plan { to, requests, rate: self.rate, lasting: self.lasting(), connections: self.connections, late }
    }
}

/// Posts events of the current hour and prints `OFFER`, then, each a second: due, sent, acknowledged, refused (429 and 503),
/// anything else, no answer; then median and 99th percentile of the acknowledged in ms.
pub(crate) async fn posts(to: SocketAddr, pace: Pace) -> anyhow::Result<()> {
    not_over_the_turn(pace.lasting()).await;
    let plan = pace.plan(to, requests::posts(to, now_ms()), Late::Dropped);
    let sent = tokio::task::spawn_blocking(|| run(plan, |_| {})).await??;
    say(&summary(&sent, pace.lasting()))
}

/// Of what was due and answered while requests were offered, but for the first quarter: it takes a while until as many
/// wait for an answer as ever will, and what is left waiting at the end is answered in peace.
fn summary(sent: &Sent, lasting: Duration) -> String {
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

/// Reads, 95 % of the current hour and 5 % of past ones, those half and half inside and beyond Redis' window where there
/// is one. `READS` with the answers a second and failures; then for each tier, as the answers say it: `TIER`, its name,
/// number, median and 99th percentile in ms.
pub(crate) async fn reads(to: SocketAddr, pace: Pace, live_hours: u64, hours: u64) -> anyhow::Result<()> {
    not_over_the_turn(pace.lasting()).await;
    let spans: &[_] = if live_hours > 0 {
        &[(950, 0..=0), (25, 1..=live_hours), (25, live_hours + 2..=hours)]
    } else {
        &[(950, 0..=0), (50, 1..=hours)]
    };
    let plan = pace.plan(to, requests::gets(to, now_ms(), spans), Late::Sent);
    let sent = tokio::task::spawn_blocking(|| run(plan, |_| {})).await??;
    let good = sent.count(|status| status == 200);
    let rate = good as f64 / sent.lasted(pace.lasting()).as_secs_f64();
    say(&format!("READS {rate:.0} {}", sent.answers.len() - good))?;
    for (name, tier) in [("memory", Tier::Memory), ("redis", Tier::Redis), ("archive", Tier::Archive)] {
        let of_tier = sent.answers.iter().filter(|answered| answered.tier == tier && answered.status == 200);
        let mut took: Vec<_> = of_tier.map(|answered| answered.took).collect();
        let (p50, p99) = (ms(percentile(&mut took, 0.5)), ms(percentile(&mut took, 0.99)));
        say(&format!("TIER {name} {} {p50} {p99}", took.len()))?;
    }
    Ok(())
}

fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open_loop::Answered;

    #[test]
    fn what_is_offered_and_answered_in_the_window_is_counted_once() {
        let answered = |due, status, took| Answered {
            due: Duration::from_millis(due),
            took: Duration::from_millis(took),
            status,
            tier: Tier::Untold,
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
        // Over the last three of four seconds: six were begun, two acknowledged, two refused, one other, one silent.
        let sent = Sent { answers, unsent: 4 };
        assert_eq!(summary(&sent, Duration::from_secs(4)), "OFFER 3 2 1 1 0 0 10.00 31.00");
    }
}
