//! The whole service over the embedded engine's archive.

use std::sync::Arc;
use std::time::Duration;

use millrace_base::Clock;
use millrace_contracts::{Exactness, Hour, HourlyCount, Names, ProjectionWrite, WriteOutcome};
use millrace_query::ReadModels;
use millrace_service::ServiceContext;
use millrace_service::auth::Authenticator;
use millrace_service::cors::Cors;
use millrace_service::health::Health;
use millrace_service::net::Proxies;
use millrace_store::{Archive, HourlyStore as _};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::harness::{Client, config};

#[tokio::test]
async fn serves_the_counts_of_the_archive() {
    let directory = tempfile::tempdir().unwrap();
    let database = fjall::Database::builder(directory.path()).open().unwrap();
    let archive = Archive::embedded(&database, 2).unwrap();
    let mut writer = archive.writer();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client(listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let models = ReadModels { live: None, archive, live_hours: 24, refill: None, log: Arc::default() };
    let context = ServiceContext {
        health: Health::new(),
        stop: stop.clone(),
        auth: Authenticator::off(),
        tls: None,
        proxies: Proxies::default(),
        cors: Cors::default(),
    };
    let service = tokio::spawn(millrace_query::run(config(), listener, models, Names::default(), context));

    let (past, current) = (Hour::of_ms(123), Hour::of_ms(Clock::system().now_ms()));
    let target = |hour: Hour| format!("/analytics?timestamp={}", hour.start_ms());
    for hour in [past, current] {
        let reply = client.send("GET", &target(hour), &[]).await;
        assert_eq!((reply.status, reply.code()), (503, "rebuilding".to_owned()), "the archive is not complete yet");
    }
    for partition in 0..2 {
        let count = |hour| HourlyCount {
            hour,
            partition,
            generation: 1,
            next_offset: 9,
            clicks: 1,
            impressions: u64::from(partition),
            unique_users: 2,
            exactness: Exactness::Exact,
        };
        // The next hour, too, in case the current one ends during the test.
        let counts = [count(past), count(current), count(current.plus(1))];
        let write = ProjectionWrite {
            partition,
            expected: None,
            next: 2,
            last_record: None,
            caught_up: true,
            counted: None,
            items: &counts[..],
        };
        assert_eq!(writer.write(&[write]).await, Ok(vec![WriteOutcome::Applied]));
    }
    let reply = client.send("GET", &target(past), &[]).await;
    assert_eq!(reply.text(), "unique_users,4\nclicks,2\nimpressions,1\n");
    assert_eq!(reply.header("millrace-tier"), Some("archive"));
    let empty = client.send("GET", &target(past.plus(1)), &[]).await;
    assert_eq!(empty.text(), "unique_users,0\nclicks,0\nimpressions,0\n");

    // The 503 above may be served for another refresh interval.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    let reply = loop {
        let target = target(Hour::of_ms(Clock::system().now_ms()));
        let reply = client.send("GET", &target, &[]).await;
        if reply.status == 200 || tokio::time::Instant::now() > deadline {
            break reply;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(reply.text(), "unique_users,4\nclicks,2\nimpressions,1\n");
    assert_eq!(client.send("GET", "/readyz", &[]).await.status, 200);

    stop.cancel();
    service.await.unwrap();
}
