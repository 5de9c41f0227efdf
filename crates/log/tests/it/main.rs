//! The conformance suite of the log port: what both engines promise, held on both. What only Kafka has is in `kafka`;
//! what only the embedded engine has, in the test binary `embedded`.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, missing_docs, reason = "tests fail by panicking")]

mod append;
mod child;
mod crash;
mod harness;
mod kafka;
mod left_open;
mod metrics;
mod numbering;
mod positions;
mod read;
mod restore;
mod sink;
mod topics;

/// Makes one test for each engine out of an `async fn(Engine)`.
macro_rules! on_both_engines {
    ($($test:ident),* $(,)?) => { $(
        mod $test {
            #[tokio::test(flavor = "multi_thread")]
            async fn kafka() {
                if let Some(engine) = crate::harness::Engine::kafka(stringify!($test)) {
                    super::$test(engine).await;
                }
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn embedded() {
                super::$test(crate::harness::Engine::embedded()).await;
            }
        }
    )* };
}
pub(crate) use on_both_engines;
