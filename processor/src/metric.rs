//! Names of this crate's metrics. All of them are told of steps that are durable.

/// Events counted.
pub(crate) const COUNTED: &str = "millrace_processor_counted_total";
/// Events that were there before, by their id.
pub(crate) const DUPLICATES: &str = "millrace_processor_duplicates_total";
/// Those of them that had another content.
pub(crate) const CONFLICTS: &str = "millrace_processor_id_conflicts_total";
/// Records put aside, by reason.
pub(crate) const PARKED: &str = "millrace_processor_parked_total";
/// Sets that became sketches, by cause.
pub(crate) const SKETCHED: &str = "millrace_processor_sketched_hours_total";
/// Snapshots of an hour's users written to the log.
pub(crate) const SNAPSHOTS: &str = "millrace_processor_snapshots_total";
/// Bytes written to scratch files.
pub(crate) const SPILLED: &str = "millrace_processor_spilled_bytes_total";
/// Memory of the users of all hours.
pub(crate) const MEMORY: &str = "millrace_processor_users_memory_bytes";
/// Hours held, by the form their users are in.
pub(crate) const HOURS: &str = "millrace_processor_hours";
/// Event ids held.
pub(crate) const IDS: &str = "millrace_processor_event_ids";

/// The forms of [`HOURS`].
pub(crate) const FORMS: [&str; 3] = ["memory", "disk", "sketch"];

/// Gives the recorder every name with its help text. Call once, after a recorder is installed.
pub fn describe_metrics() {
    metrics::describe_counter!(COUNTED, "Events counted");
    metrics::describe_counter!(DUPLICATES, "Events not counted because their id was seen before in the window");
    metrics::describe_counter!(CONFLICTS, "Duplicates whose time or kind differs from the first event's, which holds");
    metrics::describe_counter!(PARKED, "Records of analytics.events put aside into analytics.late, by reason");
    metrics::describe_counter!(SKETCHED, "Hours whose users became a sketch, by cause: bound, age");
    metrics::describe_counter!(SNAPSHOTS, "Snapshots of an hour's users written to analytics.state");
    metrics::describe_counter!(SPILLED, "Bytes written to scratch files to save memory");
    metrics::describe_gauge!(MEMORY, "Memory of the users of all hours in bytes; bounded by processor.memory");
    metrics::describe_gauge!(HOURS, "Hours held, by the form of their users: memory, disk, sketch");
    metrics::describe_gauge!(IDS, "Occurrences of event ids held");
}
