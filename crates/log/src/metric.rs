//! Names of this crate's metrics.

/// Steps of a stage that were committed.
pub(crate) const STEPS: &str = "millrace_stage_steps_total";
/// Steps of a stage that were aborted and repeated.
pub(crate) const ABORTS: &str = "millrace_stage_aborts_total";

/// Gives the recorder every name with its help text. Call once, after a recorder is installed.
pub fn describe_metrics() {
    metrics::describe_counter!(STEPS, "Steps of a stage that were committed");
    metrics::describe_counter!(ABORTS, "Steps of a stage that were aborted and repeated");
}
