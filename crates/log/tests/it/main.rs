//! The conformance suite of the log port, run on both engines. Tests of Kafka alone are in `kafka`, `secure`, `topics`,
//! `open_offsets` and `open_foreign`; tests of the embedded engine alone are in the test binary `embedded`.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, missing_docs, reason = "tests fail by panicking")]

mod append;
mod child;
mod crash;
mod fetch;
mod harness;
mod isolation;
mod kafka;
mod metrics;
mod numbering;
mod open_foreign;
mod open_offsets;
mod positions;
mod read;
mod repeats;
mod restore;
mod resume;
mod secure;
mod sink;
mod topics;
mod wire;

/// Defines one test per engine from an `async fn(Engine)`.
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
