//! Names of this crate's metrics. All but the last are labelled with their store, `redis` or `archive`.

/// Records of `analytics.hourly` contained in a store.
pub(crate) const PROJECTED: &str = "millrace_materializer_projected_total";
/// Records that are no hourly counts, left aside.
pub(crate) const SKIPPED: &str = "millrace_materializer_skipped_total";
/// Where a store stands, by partition.
pub(crate) const POSITION: &str = "millrace_materializer_position";
/// Partitions that were built from the start.
pub(crate) const REBUILDS: &str = "millrace_materializer_rebuilds_total";
/// Times a store was found to have lost what had been written to it.
pub(crate) const LOST: &str = "millrace_materializer_lost_total";
/// Older hours that were to be put into Redis, by outcome: `filled`, `early` (the archive stayed behind), `incomplete` (a
/// store is being built) or `failed`.
pub(crate) const REFILLS: &str = "millrace_materializer_refills_total";

/// Gives the recorder every name with its help text. Call once, after a recorder is installed.
pub fn describe_metrics() {
    metrics::describe_counter!(PROJECTED, "Records of analytics.hourly contained in a store");
    metrics::describe_counter!(SKIPPED, "Records of analytics.hourly that are no hourly counts, left aside");
    metrics::describe_gauge!(POSITION, "Position in analytics.hourly up to which a store contains a partition");
    metrics::describe_counter!(REBUILDS, "Partitions of a store that were built from the start");
    metrics::describe_counter!(LOST, "Times a store was found to have lost what had been written to it");
    metrics::describe_counter!(REFILLS, "Older hours that were to be put into Redis, by outcome");
}
