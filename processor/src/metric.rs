//! Names of this crate's metrics.

/// Events counted.
pub(crate) const COUNTED: &str = "millrace_processor_counted_total";
/// Records that are no events, left aside.
pub(crate) const SKIPPED: &str = "millrace_processor_skipped_total";

/// Gives the recorder every name with its help text. Call once, after a recorder is installed.
pub fn describe_metrics() {
    metrics::describe_counter!(COUNTED, "Events counted, in steps that may still have been aborted and repeated");
    metrics::describe_counter!(SKIPPED, "Records of analytics.events that are no events, left aside");
}
