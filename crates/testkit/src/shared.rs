//! The servers that all tests of a run share, and the report of suites whose server is unavailable.

use std::env;
use std::io::Write as _;
use std::sync::{Mutex, OnceLock};

use crate::{Kafka, Postgres, Redis};

/// Bootstrap address of the shared Apache Kafka: `MILLRACE_TEST_KAFKA`, else one started for this test binary.
/// `None`, after [`not_run`], if there is none.
///
/// # Panics
/// With `CI` set, if there is none.
pub fn kafka(suite: &str) -> Option<&'static str> {
    static SHARED: Shared<Kafka> = Shared::new("MILLRACE_TEST_KAFKA");
    SHARED.address(suite, "Apache Kafka", || Kafka::start().map(|kafka| (kafka.brokers(), kafka)))
}

/// URL of the shared Redis: `MILLRACE_TEST_REDIS`, else one started for this test binary.
/// `None`, after [`not_run`], if there is none.
///
/// # Panics
/// With `CI` set, if there is none.
pub fn redis(suite: &str) -> Option<&'static str> {
    static SHARED: Shared<Redis> = Shared::new("MILLRACE_TEST_REDIS");
    SHARED.address(suite, "Redis", || Redis::start().map(|redis| (redis.url(), redis)))
}

/// URL of the shared PostgreSQL: `MILLRACE_TEST_POSTGRES`, else one started for this test binary.
/// `None`, after [`not_run`], if there is none.
///
/// # Panics
/// With `CI` set, if there is none.
pub fn postgres(suite: &str) -> Option<&'static str> {
    static SHARED: Shared<Postgres> = Shared::new("MILLRACE_TEST_POSTGRES");
    SHARED.address(suite, "PostgreSQL", || Postgres::start().map(|postgres| (postgres.url(), postgres)))
}

/// Reports that a suite did not run, and why, past the test harness's capture; with `CI` set, fails instead.
///
/// # Panics
/// With `CI` set to anything but an empty text, `0` or `false`.
pub fn not_run(suite: &str, needs: &str, why: &str) {
    let text = format!("NOT RUN: {suite} needs {needs}: {why}");
    let ci = env::var("CI").is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"));
    assert!(!ci, "{text}");
    // Not eprintln!: the harness discards its output when the test passes.
    let _ = writeln!(std::io::stderr(), "\n{text}\n");
}

/// Returns an error if `MILLRACE_TEST_SERVERS=none` is set, as `make quick` does.
pub(crate) fn servers_wanted() -> Result<(), String> {
    match env::var("MILLRACE_TEST_SERVERS") {
        Ok(value) if value == "none" => Err("MILLRACE_TEST_SERVERS=none: this run starts no servers".to_owned()),
        _ => Ok(()),
    }
}

struct Shared<S> {
    variable: &'static str,
    address: OnceLock<Result<String, String>>,
    /// A static, never dropped: the server's watchdog kills it when this process ends.
    server: Mutex<Option<S>>,
}

impl<S> Shared<S> {
    const fn new(variable: &'static str) -> Self {
        Self { variable, address: OnceLock::new(), server: Mutex::new(None) }
    }

    fn address(
        &'static self,
        suite: &str,
        needs: &str,
        start: impl FnOnce() -> Result<(String, S), String>,
    ) -> Option<&'static str> {
        let found = self.address.get_or_init(|| {
            if let Ok(named) = env::var(self.variable)
                && !named.is_empty()
            {
                return Ok(named);
            }
            let (address, server) = start()?;
            *self.server.lock().expect("no one panics with the lock") = Some(server);
            Ok(address)
        });
        match found {
            Ok(address) => Some(address),
            Err(why) => {
                not_run(suite, needs, &format!("{why} (or set {})", self.variable));
                None
            }
        }
    }
}
