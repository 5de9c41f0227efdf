//! Settings that several processes must agree on, exported as a metric: an alert compares the processes.

use metrics::gauge;
use millrace_contracts::metric;

/// Exports settings by key. Processes that use a setting export it at startup.
pub fn export_agreed_settings(settings: impl IntoIterator<Item = (&'static str, i64)>) {
    for (key, value) in settings {
        gauge!(metric::AGREED_SETTING.name, "key" => key).set(value as f64);
    }
}
